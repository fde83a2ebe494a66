//! Roots of trust that Chancery made, in Secrets of the admin namespace: each is created once, under a name that only one
//! replica can have, and never changed. Who is slower takes the other's.

use std::collections::BTreeMap;
use std::sync::Arc;

use kube::api::{DynamicObject, ListParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::mpsc;

use super::held::{Told, Trouble, What};
use super::watch::{Heard, Message, ROOT_LABEL, resource};
use super::{Options, trouble};
use crate::crd::secret::encode;
use crate::crd::{Object, Spec};
use crate::model::{Kind, Name, SecretBytes};

/// How the names of these Secrets begin. A number follows, but for the first.
const NAME: &str = "chancery-root";

/// The entries of such a Secret.
const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";

/// A root of trust as it stands in a Secret; nothing of it is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootSecret {
    /// Name of the Secret.
    pub name: Name,
    /// PEM.
    pub certificate: SecretBytes,
    /// PEM.
    pub key: SecretBytes,
}

/// What is known of these Secrets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RootSecrets {
    /// All that are there; none while that is unknown.
    pub found: Option<Vec<RootSecret>>,
    /// Why they cannot be read, or none can be made: a part of a sentence.
    pub problem: Option<String>,
}

/// A root that is to be kept.
#[derive(Clone, Debug)]
pub struct NewRoot {
    /// Name of its Secret: the one that comes after those by which it was decided that one is to be made, so that of two who
    /// decide by the same one comes too late.
    name: String,
    /// PEM.
    pub certificate: SecretBytes,
    /// PEM.
    pub key: SecretBytes,
}

impl NewRoot {
    /// One that comes after others.
    #[must_use]
    pub fn after<'a>(names: impl Iterator<Item = &'a Name>, certificate: SecretBytes, key: SecretBytes) -> Self {
        Self { name: next(names), certificate, key }
    }
}

/// See the module.
#[derive(Default)]
pub(super) struct Roots {
    found: Option<BTreeMap<Name, Arc<Object>>>,
    problem: Option<String>,
    given: RootSecrets,
}

impl Roots {
    pub(super) fn hear(&mut self, heard: Heard) {
        let named = |told: Told| (told.object.meta.id.name.clone(), told.object);
        match heard {
            Heard::Listed(told) => {
                self.found = Some(told.into_iter().map(named).collect());
                self.problem = None;
            }
            Heard::Put(told) => {
                self.found.get_or_insert_default().extend([named(*told)]);
                self.problem = None;
            }
            Heard::Deleted(id) => {
                self.found.get_or_insert_default().remove(&id.name);
            }
            Heard::Failed(Trouble::Refused(words)) => self.problem = Some(words),
            Heard::Failed(Trouble::NotServed) => self.problem = Some("the API server serves no Secrets".to_owned()),
            // That is told of the cluster; what is known stays.
            Heard::Failed(Trouble::Unreachable(_)) | Heard::Recovered | Heard::Defined(_) => {}
        }
    }

    /// Takes what an earlier run kept, where nothing is known in this one.
    pub(super) fn recall(&mut self, told: &[Told]) {
        let named = |told: &Told| (told.object.meta.id.name.clone(), told.object.clone());
        self.found.get_or_insert_with(|| told.iter().map(named).collect());
    }

    pub(super) fn objects(&self) -> Vec<Arc<Object>> {
        self.found.iter().flat_map(BTreeMap::values).cloned().collect()
    }

    /// What is known, if it is something else than was given last.
    pub(super) fn change(&mut self) -> Option<RootSecrets> {
        let known = RootSecrets {
            found: self.found.as_ref().map(|found| found.values().map(|object| read(object)).collect()),
            problem: self.problem.clone(),
        };
        (known != self.given).then(|| {
            self.given = known.clone();
            known
        })
    }

    /// Creates its Secret. That it is there, or another replica's, is heard from the watch; that it
    /// cannot be made comes as a message.
    pub(super) fn make(
        &mut self,
        client: Client,
        options: &Options,
        new: NewRoot,
        out: mpsc::UnboundedSender<Message>,
    ) {
        // Whoever asks again wants to hear again.
        self.problem = None;
        self.given.problem = None;
        let (cluster, namespace) = (options.management.clone(), options.admin_namespace.clone());
        tokio::spawn(async move {
            let api = Api::namespaced_with(client, &namespace, &resource(Kind::Secret));
            let Err(reason) = create(&api, &new).await else { return };
            let words = format!("the Secret `{namespace}/{}` {reason}", new.name);
            let heard = Heard::Failed(Trouble::Refused(words));
            // Nobody hears it when the source ends.
            let _ = out.send(Message { cluster, turn: 0, what: What::Roots, heard });
        });
    }
}

/// # Errors
/// The end of a sentence that begins with the Secret's name.
async fn create(api: &Api<DynamicObject>, new: &NewRoot) -> Result<(), String> {
    let name = &new.name;
    let mut secret = DynamicObject::new(name, &resource(Kind::Secret));
    secret.metadata.labels = Some([(ROOT_LABEL.to_owned(), "generated".to_owned())].into());
    secret.data = json!({
        "type": "kubernetes.io/tls", "immutable": true,
        "data": {CERTIFICATE: encode(new.certificate.expose()), KEY: encode(new.key.expose())},
    });
    match api.create(&PostParams::default(), &secret).await {
        Ok(_) => {
            tracing::info!(secret = %name, "a root of trust is made and kept");
            Ok(())
        }
        // Another replica's, which the watch brings, unless somebody else has the name.
        Err(kube::Error::Api(status)) if status.code == 409 => {
            let only = ListParams::default().fields(&format!("metadata.name={name}")).limit(1);
            let there = api.list(&only).await.ok().and_then(|found| found.items.into_iter().next());
            let has_label = |secret: &DynamicObject| {
                secret.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(ROOT_LABEL))
            };
            match there {
                Some(there) if !has_label(&there) => Err(format!(
                    "is there and has no label `{ROOT_LABEL}`, so it is not used as a root of trust: delete it, or label it"
                )),
                _ => Ok(()),
            }
        }
        Err(error) => Err(match trouble(&error) {
            Trouble::Refused(words) => {
                format!(
                    "cannot be created: {words}; grant `create` on Secrets of the namespace (config/kubernetes has the role)"
                )
            }
            Trouble::Unreachable(words) => format!("cannot be created: {words}; it is tried again"),
            Trouble::NotServed => "cannot be created: there is no such namespace".to_owned(),
        }),
    }
}

/// The name after all that are there.
fn next<'a>(names: impl Iterator<Item = &'a Name>) -> String {
    let number = |name: &Name| match name.as_str().strip_prefix(NAME)? {
        "" => Some(1_u64),
        number => number.strip_prefix('-')?.parse().ok(),
    };
    match names.filter_map(number).max() {
        None => NAME.to_owned(),
        Some(last) => format!("{NAME}-{}", last.saturating_add(1)),
    }
}

fn read(object: &Object) -> RootSecret {
    let entry = |secret: &crate::crd::core::Secret, name: &str| secret.data.get(name).cloned().unwrap_or_default();
    let (certificate, key) = match &*object.spec() {
        Spec::Secret(secret) => (entry(secret, CERTIFICATE), entry(secret, KEY)),
        _ => <(SecretBytes, SecretBytes)>::default(),
    };
    RootSecret { name: object.meta.id.name.clone(), certificate, key }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_each_other_so_that_two_replicas_want_the_same() {
        let next = |names: &[&str]| {
            let names: Vec<Name> = names.iter().map(|name| Name::from(*name)).collect();
            super::next(names.iter())
        };
        assert_eq!(next(&[]), "chancery-root");
        assert_eq!(next(&["chancery-root"]), "chancery-root-2");
        assert_eq!(next(&["chancery-root-2", "chancery-root-10", "chancery-root", "mine"]), "chancery-root-11");
    }
}
