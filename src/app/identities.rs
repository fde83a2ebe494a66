//! The certificates of gateways, from the plans that need them to the snapshots that carry them; and the root behind them,
//! where a policy leaves it to the control plane.
//!
//! The clock enters here and nowhere else. A new period or a new root changes secrets; nothing else of a snapshot.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::mpsc;

use crate::compile::Compiled;
use crate::emit::emit_issued;
use crate::ir::trust::{Identity, Terms, Trust};
use crate::ir::{GatewayPlan, Secret, SecretId};
use crate::model::{Code, FieldPath, Finding, Findings, Name};
use crate::resolve::trust::{KeptRoot, RootOfTrust};
use crate::resolve::world::World;
use crate::snapshot::{Resource, ResourceType, Snapshot, Version};
use crate::source::kubernetes::{NewRoot, RootSecrets};
use crate::trust::leaf::{self, Period};
use crate::trust::root::{self, Root, RootFile};
use crate::trust::{Held, TrustError, held};

use super::expiry::Expiry;
use super::roots::InSecrets;

/// Longest wait for something to become due: a clock may be set meanwhile.
const LONGEST_WAIT: Duration = Duration::from_secs(600);

/// When a root that could not be kept is tried again, in seconds.
const TRIED_AGAIN: i64 = 60;

/// How a kept root is treated while no policy says so: as by default.
const RENEW_WITH_LEFT: u32 = 100_000;

/// Issues certificates and remembers them while they are in use.
pub(super) struct Identities {
    clock: fn() -> Timestamp,
    /// Where the root is kept; none keeps none.
    file: Option<RootFile>,
    /// Where it is kept instead, if API servers are the source.
    secrets: Option<InSecrets>,
    roots: Result<Vec<Root>, TrustError>,
    /// One that is made and could not be written yet.
    unwritten: Option<Root>,
    issued: BTreeMap<Version, Arc<Resource>>,
    /// What listeners show beside what is issued here.
    expiry: Expiry,
    /// What the certificates of gateways stand under.
    above: Above,
}

impl Identities {
    /// With the root that a state directory holds, if there is a directory and a root in it.
    pub(super) fn open(state: Option<&Path>, clock: fn() -> Timestamp) -> Self {
        let file = state.map(RootFile::of);
        let roots = file.as_ref().map_or(Ok(Vec::new()), RootFile::load);
        if let Err(error) = &roots {
            tracing::error!("the root of trust that was kept cannot be used, and no other is made: {error}");
        }
        let (expiry, above) = (Expiry::default(), Above::default());
        Self { clock, file, secrets: None, roots, unwritten: None, issued: BTreeMap::new(), expiry, above }
    }

    /// The same with roots that are kept in Secrets. Those of a file, which an earlier release kept, go there.
    pub(super) fn in_secrets(mut self, maker: Option<mpsc::UnboundedSender<NewRoot>>) -> Self {
        self.secrets =
            Some(InSecrets::new(maker, std::mem::replace(&mut self.roots, Ok(Vec::new())).unwrap_or_default()));
        self.file = None;
        self
    }

    /// Takes in what is known of the Secrets in which roots are kept.
    pub(super) fn take(&mut self, known: RootSecrets) {
        if let Some(secrets) = &mut self.secrets {
            secrets.take(known);
        }
    }

    /// Whether a root is wanted of which it is not known yet whether there is one: then nothing is published.
    pub(super) fn is_root_awaited(&self) -> bool {
        self.secrets.as_ref().is_some_and(|secrets| secrets.is_awaited(self.now()))
    }

    fn now(&self) -> i64 {
        (self.clock)().as_second()
    }

    /// The root that is kept, as the next compile is told of it. One is made where a policy wants one (`wanted`) and
    /// there is none, or none that lasts.
    ///
    /// # Cost
    /// Making one takes a second or so, and waits for the disk; once in a root's life.
    pub(super) fn kept_root(&mut self, wanted: Option<&Terms>) -> KeptRoot {
        let now = self.now();
        if let Some(secrets) = &mut self.secrets {
            return secrets.kept_root(wanted, &default_terms(), now);
        }
        let Some(file) = &self.file else { return KeptRoot::NoPlace };
        if self.roots.is_err() {
            // Somebody may have put it right.
            self.roots = file.load();
        }
        let roots = match &mut self.roots {
            Ok(roots) => roots,
            Err(error) => return KeptRoot::Failed(error.to_string().into()),
        };
        if let Some(terms) = wanted
            && root::needs_another(roots, terms, now)
        {
            match another(file, roots, &mut self.unwritten, terms, now) {
                Ok(()) => tracing::info!("a root of trust is made and kept"),
                Err(error) if roots.is_empty() => return KeptRoot::Failed(error.to_string().into()),
                Err(error) => tracing::error!("the root of trust cannot be followed by another: {error}"),
            }
        }
        let terms = wanted.cloned().unwrap_or_else(default_terms);
        match root::signing(roots, &terms, now) {
            Some(signer) => KeptRoot::Kept { signer, authorities: root::trusted(roots, now) },
            None => KeptRoot::Missing,
        }
    }

    /// What the clock says of the certificate that signs and of those above it, and of those that listeners show.
    pub(super) fn findings(&mut self, compiled: &Compiled) -> Findings {
        self.expiry.look(compiled);
        self.above.look(compiled.inputs.trust());
        let mut findings = self.above.findings((self.clock)());
        findings.extend(self.expiry.findings(compiled, self.now()));
        findings
    }

    /// The earliest end of a certificate, by where it comes from, in seconds since 1970: the Secrets of listeners, as the last
    /// call of [`findings`](Self::findings) saw them, and the certificate that signs.
    pub(super) fn earliest_ends(&self) -> BTreeMap<&'static str, i64> {
        let root = self.above.links.first().map(|(_, own)| ("root", own.ends));
        self.expiry.earliest().map(|ends| ("secret", ends)).into_iter().chain(root).collect()
    }

    /// The version of the gateway's own certificate as it should be now; none for a gateway that needs none.
    pub(super) fn wanted(&self, plan: &GatewayPlan) -> Option<Version> {
        let (_, identity) = needed(plan)?;
        Some(leaf::version(identity, &Period::at(identity, self.now())))
    }

    /// The same snapshot with the gateway's own certificate in place of the stand-in.
    ///
    /// # Errors
    /// It cannot be issued: the snapshot must not be published.
    pub(super) fn fill(
        &mut self,
        plan: &GatewayPlan,
        trust: &RootOfTrust,
        snapshot: Snapshot,
    ) -> Result<Snapshot, String> {
        let Some((id, identity)) = needed(plan) else { return Ok(snapshot) };
        let period = Period::at(identity, self.now());
        let version = leaf::version(identity, &period);
        let resource = match self.issued.get(&version) {
            Some(issued) => issued.clone(),
            None => {
                let trust = trust.as_ref().map_err(Name::to_string)?;
                let signer = trust.signer.as_ref().ok_or("there is nothing to sign with")?;
                let issued = leaf::issue(signer, identity, &period).map_err(|error| error.to_string())?;
                let pair = Secret::KeyPair { chain: issued.chain, key: issued.key, ocsp_staple: None };
                let resource = Arc::new(emit_issued(id, &pair, version.clone()));
                self.issued.insert(version, resource.clone());
                resource
            }
        };
        let mut secrets = (*snapshot.resources(ResourceType::Secret)).clone();
        secrets.insert(resource.name.clone(), resource);
        Ok(snapshot.with_shared(ResourceType::Secret, Arc::new(secrets)))
    }

    /// Forgets certificates that no gateway has any more.
    pub(super) fn retain(&mut self, used: &BTreeSet<&Version>) {
        self.issued.retain(|version, _| used.contains(version));
    }

    /// How many certificates are remembered.
    #[cfg(test)]
    pub(super) fn issued(&self) -> usize {
        self.issued.len()
    }

    /// How long until something is to be renewed, or ends; none where nothing ever is.
    pub(super) fn due(&self, compiled: &Compiled) -> Option<Duration> {
        let now = self.now();
        let leaves = compiled.plans.values().filter_map(|plan| needed(plan));
        let mut times: Vec<i64> = leaves.map(|(_, identity)| Period::at(identity, now).renewed).collect();
        if let (Some(terms), Some(_)) = (compiled.inputs.generated_root(), &self.file) {
            match &self.roots {
                Ok(roots) if self.unwritten.is_none() => times.extend(root::next_change(roots, terms, now)),
                Ok(_) | Err(_) => times.push(now + TRIED_AGAIN),
            }
        }
        if let (Some(terms), Some(secrets)) = (compiled.inputs.generated_root(), &self.secrets) {
            times.extend(secrets.due(terms, now));
        }
        times.extend(self.above.links.iter().flat_map(|(_, own)| [own.begins, own.ends + 1]));
        times.extend(self.expiry.changes());
        let next = times.into_iter().filter(|time| *time > now).min()?;
        Some(Duration::from_secs(u64::try_from(next - now).unwrap_or_default()).min(LONGEST_WAIT))
    }
}

/// Makes a root and keeps it. What could not be written is tried again, not made again.
fn another(
    file: &RootFile,
    roots: &mut Vec<Root>,
    unwritten: &mut Option<Root>,
    terms: &Terms,
    now: i64,
) -> Result<(), TrustError> {
    let new = match unwritten.take() {
        Some(made) => made,
        None => Root::make(terms, now)?,
    };
    let mut all: Vec<Root> = roots.iter().filter(|root| root.lasts(now)).cloned().collect();
    all.push(new.clone());
    match file.save(&all) {
        Ok(()) => {
            *roots = all;
            Ok(())
        }
        Err(error) => {
            *unwritten = Some(new);
            Err(error)
        }
    }
}

fn default_terms() -> Terms {
    let key = crate::ir::trust::KeyType::Rsa4096;
    Terms { days: 365, key, organization: Name::default(), renew_with_left: RENEW_WITH_LEFT }
}

/// The gateway's own certificate, if some chain of it shows one.
fn needed(plan: &GatewayPlan) -> Option<(&SecretId, &Identity)> {
    plan.secrets.iter().find_map(|(id, secret)| match secret {
        Secret::Identity(identity) => Some((id, identity)),
        Secret::KeyPair { .. } | Secret::Trust { .. } => None,
    })
}

/// What a moment says of the certificate that signs for gateways, and of those above it.
pub(crate) fn ended(trust: &RootOfTrust, now: Timestamp) -> Findings {
    let mut above = Above::default();
    above.look(trust);
    above.findings(now)
}

/// What stands between the certificates of gateways and the root, each by what it is called: all of it has to hold.
#[derive(Debug, Default)]
struct Above {
    of: Option<Arc<Trust>>,
    links: Vec<(&'static str, Held)>,
}

impl Above {
    /// Looks at a root of trust, if it is another than before.
    ///
    /// # Cost
    /// Nothing while it is the same.
    fn look(&mut self, trust: &RootOfTrust) {
        let trust = trust.as_ref().ok();
        let is_same = match (trust, &self.of) {
            (Some(now), Some(before)) => Arc::ptr_eq(now, before),
            (now, before) => now.is_none() && before.is_none(),
        };
        if is_same {
            return;
        }
        self.of = trust.cloned();
        self.links.clear();
        let Some((trust, signer)) = trust.and_then(|trust| Some((trust, trust.signer.as_ref()?))) else { return };
        self.links.extend(held(&signer.certificate).into_iter().map(|own| ("the certificate that signs", own)));
        // The first is the one that signs.
        let above = held(&signer.chain).into_iter().skip(1);
        self.links.extend(above.map(|own| ("a certificate between the one that signs and the root", own)));
        let Some((_, last)) = self.links.last() else { return };
        // Of several roots of one name the one that holds longest counts.
        let roots = held(&trust.authorities).into_iter().filter(|root| root.subject == last.issuer);
        let root = roots.max_by_key(|root| root.ends).filter(|_| last.subject != last.issuer);
        self.links.extend(root.map(|root| ("the root that signed it", root)));
    }

    /// What a moment says of it: the first thing that does not hold.
    fn findings(&self, now: Timestamp) -> Findings {
        let now = now.as_second();
        let date = |seconds: i64| Timestamp::from_second(seconds).map(|at| at.to_string()).unwrap_or_default();
        let problem = |(what, own): &(&'static str, Held)| {
            if now > own.ends {
                Some(format!("{what} ended at {}: replace it", date(own.ends)))
            } else if now < own.begins {
                Some(format!("{what} holds from {} only: look at the clock, or replace it", date(own.begins)))
            } else {
                None
            }
        };
        let (Some(trust), Some(problem)) = (&self.of, self.links.iter().find_map(problem)) else {
            return Findings::new();
        };
        let message = format!("{problem}; TLS between gateways fails until then");
        let at = FieldPath::new("spec.config.mgmtServerCa");
        vec![Finding::error(&trust.policy, Code::Certificate, message).at(at)]
    }
}
