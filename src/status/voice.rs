//! What one replica tells others of its gateways: a document of bounded size, in which nothing is secret.
//!
//! It says which objects the replica had compiled, by generation; how its gateways stand with what came of them; and what they
//! refused. It does not compare versions of resources: these may differ between replicas for minutes, because what stands
//! by for old connections depends on when a replica was started. Generations are what statuses speak of, and are the
//! same everywhere.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::programmed::{Group, Standings};
use super::view::Standing;
use crate::model::{Code, EnvoyRelease, Name, ObjectRef, Severity};
use crate::publish::GatewayKey;
use crate::xds::observation::excerpt;

/// The format of these documents. One of another format is not read.
const FORMAT: u32 = 1;

/// Most bytes of a document; an API server takes objects of up to 1 MiB.
pub const LONGEST: usize = 512 * 1024;

/// How many sums there are at most.
const SUMS: usize = 4096;

/// Most keys of gateways, most gateways that are told one by one, and most objects that they lack, in one document.
const KEYS: usize = 256;
const NODES: usize = 4096;
const LACKED: usize = 2048;

/// Most refusals in one document, most objects of each, and most nodes that each names.
const REFUSALS: usize = 64;
const BLAMED: usize = 64;
const NAMED: usize = 16;

/// Most findings of other kinds in one document.
const FINDINGS: usize = 256;

/// Most bytes of Envoy's words, and of a node's name.
const WORDS: usize = 1024;
const NAME: usize = 128;

/// Which generation of each object was compiled, in so few sums that they can be told: an object is in the sum that its name
/// leads to. Where two replicas have the same sum, they have the same of every object in it.
///
/// # Cost
/// 16 KiB; an object that changes takes two sums of its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generations {
    sums: Vec<u32>,
    objects: usize,
}

impl Default for Generations {
    fn default() -> Self {
        Self { sums: vec![0; SUMS], objects: 0 }
    }
}

/// Where an object is among the sums, and what it adds there.
fn place(id: &ObjectRef, generation: i64) -> (usize, u32) {
    let name = id.to_string();
    let place = xxhash_rust::xxh3::xxh3_64(name.as_bytes());
    let sum = xxhash_rust::xxh3::xxh3_64_with_seed(name.as_bytes(), generation.cast_unsigned());
    // Both are cut: less of the first is needed, and half of the second is enough.
    #[expect(clippy::cast_possible_truncation)]
    let (place, sum) = (place as usize % SUMS, sum as u32);
    (place, sum)
}

impl Generations {
    /// Takes an object in.
    pub fn add(&mut self, id: &ObjectRef, generation: i64) {
        let (place, sum) = place(id, generation);
        self.sums[place] = self.sums[place].wrapping_add(sum);
        self.objects += 1;
    }

    /// Takes an object out again.
    pub fn remove(&mut self, id: &ObjectRef, generation: i64) {
        let (place, sum) = place(id, generation);
        self.sums[place] = self.sums[place].wrapping_sub(sum);
        self.objects = self.objects.saturating_sub(1);
    }

    /// So many sums as tell objects apart, in hexadecimal digits.
    fn told(&self) -> String {
        let number = self.objects.next_power_of_two().clamp(16, SUMS);
        self.folded(number).iter().map(|sum| format!("{sum:08x}")).collect()
    }

    /// The same in fewer sums.
    fn folded(&self, number: usize) -> Vec<u32> {
        let mut folded = vec![0_u32; number];
        for (index, sum) in self.sums.iter().enumerate() {
            folded[index % number] = folded[index % number].wrapping_add(*sum);
        }
        folded
    }

    /// Which sums are others than those that were told: how many there are, and their places.
    #[must_use]
    pub fn differing(&self, voice: &Voice) -> Differing {
        let told = &voice.objects;
        let own = self.folded(told.len());
        let places = own.iter().zip(told).enumerate().filter(|(_, (own, told))| own != told);
        Differing { of: told.len(), places: places.map(|(place, _)| place).collect() }
    }
}

/// About which objects two replicas differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Differing {
    of: usize,
    places: BTreeSet<usize>,
}

impl Differing {
    /// Whether they differ about none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Whether they may differ about an object.
    #[must_use]
    pub fn contains(&self, id: &ObjectRef) -> bool {
        self.places.contains(&(place(id, 0).0 % self.of))
    }
}

/// What a replica says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Voice {
    /// Sums of [`Generations`]; their number is a power of two.
    objects: Vec<u32>,
    /// How its gateways stand.
    pub standings: Standings,
    /// What they refused.
    pub refusals: Vec<Refused>,
    /// What else is to be told of objects because of gateways.
    pub findings: Vec<Told>,
}

/// Refused bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Refused {
    /// The release that refused them.
    pub envoy: (u32, u32),
    /// The class of those that refused them, if it means nothing to others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// The type, the name and the version.
    pub type_url: String,
    /// The resource's name.
    pub name: Name,
    /// The resource's version.
    pub version: String,
    /// Envoy's words. Foreign text: quote it where it is shown.
    pub words: String,
    /// Who refused them, by class of gateways.
    pub nodes: BTreeMap<String, Who>,
    /// The objects that are to blame.
    pub blamed: Vec<Blamed>,
    /// Whether the last accepted version stays in force.
    pub is_kept: bool,
}

/// Gateways of a class.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Who {
    /// How many.
    pub count: usize,
    /// Some of them, or all. Foreign text: quote it where it is shown.
    pub named: BTreeSet<String>,
}

impl Who {
    /// These nodes.
    pub fn of<'n>(nodes: impl Iterator<Item = &'n Name>) -> Self {
        let named: BTreeSet<String> = nodes.map(|node| excerpt(node, NAME)).collect();
        Self { count: named.len(), named }
    }

    /// Takes in those of another replica; who is named by both is one.
    pub fn join(&mut self, other: &Self) {
        let known = other.named.iter().filter(|node| self.named.contains(*node)).count();
        self.count += other.count.saturating_sub(known);
        self.named.extend(other.named.iter().cloned());
    }
}

/// An object as it was compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blamed {
    /// The object.
    pub object: ObjectRef,
    /// Its generation.
    pub generation: i64,
}

/// A finding about an object as it was compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// About which object.
    pub about: Blamed,
    /// How bad it is.
    pub severity: Severity,
    /// What it is.
    pub code: Code,
    /// What is wrong. It may hold foreign text, quoted.
    pub message: String,
}

/// Why a document is not heard.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unheard {
    /// Too long.
    #[error("it has {0} bytes, and at most {LONGEST} are read")]
    TooLong(usize),
    /// Of another Chancery.
    #[error("its format is {0}, and this Chancery reads format {FORMAT}: replicas of one version hear each other")]
    Format(u64),
    /// Not what a Chancery writes.
    #[error("it is not what a replica writes: {0}")]
    Broken(String),
}

/// How much is told in full.
#[derive(Clone, Copy)]
struct Bounds {
    nodes: usize,
    lacked: usize,
    refusals: usize,
    findings: usize,
}

impl Voice {
    /// What to say, as it is sent: in full if that is not too long, else less and less of it. What is left out counts as not
    /// acknowledged.
    #[must_use]
    pub fn text(generations: &Generations, standings: &Standings, refusals: &[Refused], findings: &[Told]) -> String {
        let mut text = String::new();
        for less in [1, 4, 16, 64, usize::MAX] {
            let bounds = Bounds {
                nodes: NODES / less,
                lacked: LACKED / less,
                refusals: REFUSALS / less,
                findings: FINDINGS / less,
            };
            let document = Document::new(generations, standings, refusals, findings, bounds);
            text = serde_json::to_string(&document).unwrap_or_default();
            if text.len() <= LONGEST {
                break;
            }
        }
        text
    }

    /// Reads what was sent.
    ///
    /// # Errors
    /// [`Unheard`].
    pub fn read(text: &str) -> Result<Self, Unheard> {
        if text.len() > LONGEST {
            return Err(Unheard::TooLong(text.len()));
        }
        let broken = |error: serde_json::Error| Unheard::Broken(excerpt(&error.to_string(), NAME));
        let Format { format } = serde_json::from_str(text).map_err(broken)?;
        if format != u64::from(FORMAT) {
            return Err(Unheard::Format(format));
        }
        let document: Document = serde_json::from_str(text).map_err(broken)?;
        document.voice().ok_or_else(|| Unheard::Broken("a value of it means nothing".to_owned()))
    }
}

/// Its first field, of every format.
#[derive(Deserialize)]
struct Format {
    format: u64,
}

/// A [`Voice`] as it is sent.
#[derive(Serialize, Deserialize)]
struct Document {
    format: u32,
    objects: String,
    gateways: Vec<Served>,
    refusals: Vec<Refused>,
    findings: Vec<Finding>,
}

/// The gateways of one key.
#[derive(Serialize, Deserialize)]
struct Served {
    gateway: String,
    bind: Name,
    envoy: (u32, u32),
    groups: Vec<Alike>,
}

/// A [`Group`].
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Alike {
    nodes: Vec<String>,
    more: usize,
    behind: Vec<Id>,
    refused: Vec<Id>,
    is_cut: bool,
}

/// A [`Told`].
#[derive(Serialize, Deserialize)]
struct Finding {
    about: Blamed,
    is_error: bool,
    code: Code,
    message: String,
}

/// An object as text.
#[derive(Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
struct Id(ObjectRef);

impl Clone for Id {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl From<Id> for String {
    fn from(id: Id) -> Self {
        id.0.to_string()
    }
}

impl TryFrom<String> for Id {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse().map(Self).map_err(|_| format!("{:?} is no object", excerpt(&text, NAME)))
    }
}

impl Serialize for Blamed {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (Id(self.object.clone()), self.generation).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Blamed {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (Id(object), generation) = Deserialize::deserialize(deserializer)?;
        Ok(Self { object, generation })
    }
}

impl Document {
    fn new(
        generations: &Generations,
        standings: &Standings,
        refusals: &[Refused],
        findings: &[Told],
        mut bounds: Bounds,
    ) -> Self {
        let refusals = refusals.iter().take(bounds.refusals).map(Refused::bounded).collect();
        let findings = findings.iter().take(bounds.findings).map(|told| Finding {
            about: told.about.clone(),
            is_error: told.severity == Severity::Error,
            code: told.code,
            message: excerpt(&told.message, 2 * WORDS),
        });
        let findings = findings.collect();
        let served = standings.iter().take(KEYS).map(|(key, groups)| Served {
            gateway: key.gateway.to_string(),
            bind: key.bind.clone(),
            envoy: key.envoy.numbers(),
            groups: groups.iter().map(|group| Alike::new(group, &mut bounds)).collect(),
        });
        let gateways = served.collect();
        Self { format: FORMAT, objects: generations.told(), gateways, refusals, findings }
    }

    /// What it says; none where a value means nothing.
    fn voice(self) -> Option<Voice> {
        let sums = self.objects.as_bytes().chunks(8).map(|digits| {
            let digits = std::str::from_utf8(digits).ok().filter(|digits| digits.len() == 8)?;
            u32::from_str_radix(digits, 16).ok()
        });
        let objects: Vec<u32> = sums.collect::<Option<_>>()?;
        if !objects.len().is_power_of_two() || objects.len() > SUMS {
            return None;
        }
        let mut standings = Standings::new();
        for Served { gateway, bind, envoy, groups } in self.gateways {
            let key = GatewayKey { gateway: gateway.parse().ok()?, bind, envoy: EnvoyRelease::serving(Some(envoy)) };
            let _: std::net::IpAddr = key.bind.parse().ok()?;
            let groups = groups.into_iter().map(Alike::group).collect::<Option<_>>()?;
            standings.insert(key, groups);
        }
        let told = |finding: Finding| Told {
            about: finding.about,
            severity: if finding.is_error { Severity::Error } else { Severity::Warning },
            code: finding.code,
            message: excerpt(&finding.message, 2 * WORDS),
        };
        let refusals = self.refusals.iter().map(Refused::bounded).collect();
        Some(Voice { objects, standings, refusals, findings: self.findings.into_iter().map(told).collect() })
    }
}

impl Alike {
    fn new(group: &Group, bounds: &mut Bounds) -> Self {
        let nodes: Vec<String> = group.nodes.iter().take(bounds.nodes).map(|node| format!("{node:016x}")).collect();
        bounds.nodes -= nodes.len();
        let more = group.more + group.nodes.len() - nodes.len();
        let is_cut = group.is_cut || group.lacks.len() > bounds.lacked;
        let (mut behind, mut refused) = (Vec::new(), Vec::new());
        for (object, standing) in group.lacks.iter().take(bounds.lacked) {
            match standing {
                Standing::Refused => refused.push(Id(object.clone())),
                Standing::Behind => behind.push(Id(object.clone())),
                Standing::Current => {}
            }
        }
        bounds.lacked -= group.lacks.len().min(bounds.lacked);
        Self { nodes, more, behind, refused, is_cut }
    }

    fn group(self) -> Option<Group> {
        let nodes = self.nodes.iter().map(|node| u64::from_str_radix(node, 16).ok()).collect::<Option<_>>()?;
        let behind = self.behind.into_iter().map(|Id(object)| (object, Standing::Behind));
        let refused = self.refused.into_iter().map(|Id(object)| (object, Standing::Refused));
        // No fleet is larger, and sums of such numbers do not overflow.
        let more = self.more.min(1 << 20);
        Some(Group { nodes, more, lacks: behind.chain(refused).collect(), is_cut: self.is_cut })
    }
}

impl Refused {
    /// The same within its bounds.
    fn bounded(&self) -> Self {
        let who = |who: &Who| Who {
            count: who.count.min(1 << 20),
            named: who.named.iter().take(NAMED).map(|node| excerpt(node, NAME)).collect(),
        };
        Self {
            words: excerpt(&self.words, WORDS),
            nodes: self.nodes.iter().take(NAMED).map(|(class, nodes)| (class.clone(), who(nodes))).collect(),
            blamed: self.blamed.iter().take(BLAMED).cloned().collect(),
            ..self.clone()
        }
    }
}

#[cfg(test)]
mod tests;
