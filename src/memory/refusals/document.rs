//! What is kept of refusals over a restart, so that a gateway that connects after it is not sent what others refused.
//!
//! Secrets are not kept: neither refused ones nor accepted versions that need one which the objects no longer have. For
//! those, and where nothing was kept, the first gateway that connects refuses anew.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::model::{Kind, Name, ObjectRef};
use crate::publish::GatewayKey;
use crate::snapshot::{Resource, ResourceType, Version};

use super::{Bytes, Refusals, Refused, Single};

/// Name of the document.
pub const REFUSED: &str = "refused";

/// Refusals, and what stands in for what was refused.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Document {
    refusals: Vec<Refusal>,
    accepted: Vec<Accepted>,
}

/// One refusal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Refusal {
    type_url: String,
    name: Name,
    version: String,
    message: Arc<str>,
    first: Key,
    /// By the text of their class.
    nodes: BTreeMap<String, BTreeSet<Name>>,
    blamed: Arc<[ObjectRef]>,
}

/// An accepted resource that stands in, or that one which stands in refers to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Accepted {
    key: Key,
    type_url: String,
    #[serde(flatten)]
    resource: Stored,
}

/// A resource; none if its bytes cannot be read. As text only in the file.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(from = "Text", into = "Text")]
struct Stored(Option<Arc<Resource>>);

#[derive(Serialize, Deserialize)]
struct Text {
    name: Name,
    version: String,
    owners: Arc<[ObjectRef]>,
    /// In hexadecimal digits.
    body: String,
}

impl PartialEq for Stored {
    /// Equal versions mean equal bytes.
    fn eq(&self, other: &Self) -> bool {
        let [own, other] = [self, other].map(|stored| stored.0.as_ref().map(|r| (&r.name, &r.version, &r.owners)));
        own == other
    }
}

impl From<Text> for Stored {
    fn from(Text { name, version, owners, body }: Text) -> Self {
        let version = Version::new(&version);
        Self(bytes(&body).map(|body| Arc::new(Resource { name, version, body: body.into(), owners })))
    }
}

impl From<Stored> for Text {
    fn from(Stored(resource): Stored) -> Self {
        let nothing = || Resource::from_content(Name::default(), Default::default(), [].into());
        let resource = resource.unwrap_or_else(|| Arc::new(nothing()));
        Self {
            name: resource.name.clone(),
            version: resource.version.to_string(),
            owners: resource.owners.clone(),
            body: hexadecimal(&resource.body),
        }
    }
}

/// Which gateways.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::memory) struct Key {
    gateway: String,
    bind: Name,
    envoy: (u32, u32),
}

impl From<&GatewayKey> for Key {
    fn from(key: &GatewayKey) -> Self {
        Self { gateway: key.gateway.to_string(), bind: key.bind.clone(), envoy: key.envoy.numbers() }
    }
}

impl Key {
    pub(in crate::memory) fn is(&self, key: &GatewayKey) -> bool {
        *self == Self::from(key)
    }
}

/// What stands in for something else, by key of gateways: resources and what they refer to.
pub type StandIns<'a> = BTreeMap<&'a GatewayKey, &'a BTreeMap<(ResourceType, Name), Arc<Resource>>>;

/// Whether routes may have passwords, keys or what comes of a Secret: they configure a slot that does.
///
/// # Cost
/// One pass over the bytes where a policy that may have some is on them, else one over the owners.
fn has_credentials(routes: &Resource) -> bool {
    const SLOTS: [&[u8]; 3] = [b"basic", b"key", b"or"];
    const BEFORE: &[u8] = b"chancery.auth.";
    if routes.owners.iter().all(|owner| owner.kind != Kind::ExtAuthPolicy) {
        return false;
    }
    let routes = &routes.body[..];
    let ends = routes.windows(BEFORE.len()).enumerate().filter(|(_, window)| *window == BEFORE);
    let mut after = ends.map(|(at, _)| &routes[at + BEFORE.len()..]);
    after.any(|rest| SLOTS.iter().any(|slot| rest.starts_with(slot)))
}

impl Refusals {
    /// What is to be kept, given what stands in for what was refused.
    ///
    /// # Cost
    /// In proportion to the refusals and the resources that stand in, whatever their size, but for routes with an
    /// ExtAuthPolicy: their bytes are looked through.
    #[must_use]
    pub fn document(&self, stand_ins: &StandIns<'_>) -> Document {
        let mut document = (*self.earlier).clone();
        for (bytes, refused) in self.refused.iter().filter(|(bytes, _)| bytes.resource_type != ResourceType::Secret) {
            document.refusals.push(Refusal {
                type_url: bytes.resource_type.type_url().to_owned(),
                name: bytes.name.clone(),
                version: bytes.version.to_string(),
                message: refused.message.clone(),
                first: (&refused.first).into(),
                nodes: refused.nodes.iter().map(|(class, nodes)| (class.to_string(), nodes.clone())).collect(),
                blamed: refused.blamed.clone(),
            });
        }
        for (key, resources) in stand_ins {
            let is_secret = |of: ResourceType, resource: &Resource| match of {
                ResourceType::Secret => true,
                ResourceType::Route => has_credentials(resource),
                _ => false,
            };
            if resources.iter().any(|((of, _), resource)| is_secret(*of, resource)) {
                continue;
            }
            document.accepted.extend(resources.iter().map(|((resource_type, _), resource)| Accepted {
                key: (*key).into(),
                type_url: resource_type.type_url().to_owned(),
                resource: Stored(Some(resource.clone())),
            }));
        }
        document
    }

    /// Begins with what an earlier run kept; it counts for the gateways of a key from [`recall`](Self::recall) on.
    #[must_use]
    pub fn of_earlier_run(document: Document) -> Self {
        Self { earlier: Arc::new(document), ..Self::default() }
    }

    /// Takes over what an earlier run kept about the gateways of a key, which are served for the first time in this one.
    ///
    /// What cannot be read is left out.
    pub fn recall(&mut self, key: &GatewayKey) {
        let earlier = Arc::make_mut(&mut self.earlier);
        let refusals = std::mem::take(&mut earlier.refusals);
        let (own, others): (Vec<_>, _) = refusals.into_iter().partition(|refusal: &Refusal| refusal.first.is(key));
        earlier.refusals = others;
        let accepted = std::mem::take(&mut earlier.accepted);
        let (taken, others): (Vec<_>, _) = accepted.into_iter().partition(|accepted: &Accepted| accepted.key.is(key));
        earlier.accepted = others;
        for refusal in own {
            let Some(resource_type) = ResourceType::from_url(&refusal.type_url) else { continue };
            let classes = refusal.nodes.into_iter();
            let refused = Refused {
                message: refusal.message,
                nodes: classes.filter_map(|(class, nodes)| Some((class.parse().ok()?, nodes))).collect(),
                first: key.clone(),
                blamed: refusal.blamed,
                is_judged: true,
                left: None,
            };
            let version = Version::new(&refusal.version);
            self.refused.insert(Bytes::new(key, resource_type, &refusal.name, &version), refused);
        }
        for accepted in taken {
            let resource_type = ResourceType::from_url(&accepted.type_url);
            let (Some(resource_type), Stored(Some(resource))) = (resource_type, accepted.resource) else { continue };
            let types = &mut self.gateways.entry(key.clone()).or_default().accepted;
            let single = &mut types.entry(resource_type).or_default().single;
            single.insert(resource.name.clone(), Single { last: resource, before: None });
        }
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a text cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn bytes(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) {
        return None;
    }
    let digits = text.as_bytes().chunks(2);
    digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::EnvoyRelease;

    fn key(envoy: (u32, u32)) -> GatewayKey {
        GatewayKey {
            gateway: "c1/edge/web".parse().unwrap(),
            bind: "0.0.0.0".into(),
            envoy: EnvoyRelease::serving(Some(envoy)),
        }
    }

    fn resource(name: &str, body: &'static [u8]) -> Arc<Resource> {
        let owners = ["RouteTable/shop/www@c1".parse().unwrap()].into();
        Arc::new(Resource::from_content(name.into(), body.into(), owners))
    }

    #[test]
    fn what_was_refused_stays_refused_after_a_restart() {
        let (own, other) = (key((1, 40)), key((1, 36)));
        let (old, new) = (resource("route/80", b"old"), resource("route/80", &[0, 255, 16]));
        let refused = Bytes::new(&own, ResourceType::Route, &new.name, &new.version);
        let mut before = Refusals::new();
        before.refuse(&own, &"web-0".into(), refused.clone(), new.owners.clone(), "not like this");
        let standing: BTreeMap<_, _> = [((ResourceType::Route, old.name.clone()), old.clone())].into();
        let document = before.document(&[(&own, &standing)].into());
        let text = serde_json::to_string(&document).unwrap();

        let mut after = Refusals::of_earlier_run(serde_json::from_str(&text).unwrap());
        assert!(after.is_empty(), "nobody is served yet");
        after.recall(&other);
        assert!(after.is_empty(), "another release refused nothing");
        assert_eq!(after.document(&StandIns::new()), document, "what nobody asked for yet is kept on");
        after.recall(&own);
        let (bytes, words) = after.iter().next().unwrap();
        assert_eq!((bytes, &*words.message), (&refused, "not like this"));
        assert_eq!(words.nodes, [(own.gateway.clone(), [Name::from("web-0")].into())].into());
        assert_eq!(after.accepted(&own, ResourceType::Route, "route/80"), Some(&old));
        assert_eq!(after.document(&[(&own, &standing)].into()), document);
    }

    #[test]
    fn no_secret_is_kept() {
        let own = key((1, 40));
        let secret = resource("secret/c1/edge/shop", b"CANARY");
        let bytes = Bytes::new(&own, ResourceType::Secret, &secret.name, &secret.version);
        let mut refusals = Refusals::new();
        refusals.refuse(&own, &"web-0".into(), bytes, secret.owners.clone(), "no");
        let listener = resource("listener/443", b"l");
        let standing: BTreeMap<_, _> = [
            ((ResourceType::Secret, secret.name.clone()), secret.clone()),
            ((ResourceType::Listener, listener.name.clone()), listener),
        ]
        .into();
        let document = refusals.document(&[(&own, &standing)].into());
        assert_eq!(document, Document::default());
    }

    /// What routes have of users and keys is as secret as a Secret.
    #[test]
    fn no_routes_with_credentials_are_kept() {
        let own = key((1, 40));
        for (body, is_kept) in [
            (&b"..chancery.auth.basic..u:{SHA}CANARY"[..], false),
            (b"..chancery.auth.key..CANARY", false),
            (b"..chancery.auth.key-headers..CANARY", false),
            (b"..chancery.auth.or..CANARY", false),
            (b"..chancery.auth.jwt..chancery.auth.jwt-claims..chancery.extauth.0", true),
        ] {
            let policy = ObjectRef::new(Kind::ExtAuthPolicy, "c1", "shop", "keys");
            let routes = Arc::new(Resource::from_content("route/80".into(), body.into(), [policy].into()));
            let standing: BTreeMap<_, _> = [((ResourceType::Route, routes.name.clone()), routes)].into();
            let document = Refusals::new().document(&[(&own, &standing)].into());
            assert_eq!(document != Document::default(), is_kept, "{}", String::from_utf8_lossy(body));
        }
    }

    #[test]
    fn what_cannot_be_read_is_left_out() {
        assert_eq!(bytes("00ff10"), Some(vec![0, 255, 16]));
        assert_eq!((bytes("0"), bytes("zz"), bytes("00f")), (None, None, None));
    }
}
