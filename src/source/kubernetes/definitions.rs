//! Which of our kinds an API server has definitions of, and whether they are those of this version.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kube::api::{ApiResource, DynamicObject, ListParams};
use kube::{Api, Client, ResourceExt as _};
use tokio::time::Instant;

use crate::crd::definition::{FINGERPRINT, fingerprint};
use crate::model::Kind;

/// How often it is looked. A definition that was applied is noticed that late.
const LOOK_EVERY: Duration = Duration::from_secs(15);

/// How soon it is looked again where nobody answered.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// How long a server that starts may take to serve what it has definitions of: until then it answers 404.
const SERVED_WITHIN: Duration = Duration::from_secs(60);

/// What is defined.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Defined {
    /// Kinds that are bound to be served, if not yet.
    pub(super) expected: BTreeSet<Kind>,
    /// Kinds that are defined otherwise than by this version.
    pub(super) outdated: BTreeSet<Kind>,
}

/// Looks until nobody listens, and tells what is defined, when that changes.
pub(super) async fn follow(client: Client, tell: impl Fn(Defined) -> bool) {
    let ours: BTreeMap<String, (Kind, String)> = Kind::ALL
        .iter()
        .filter_map(|kind| {
            let (group, _) = kind.group().api_version().split_once('/')?;
            Some((format!("{}.{group}", kind.plural()), (*kind, fingerprint(*kind)?)))
        })
        .collect();
    let resource = ApiResource {
        group: "apiextensions.k8s.io".to_owned(),
        version: "v1".to_owned(),
        api_version: "apiextensions.k8s.io/v1".to_owned(),
        kind: "CustomResourceDefinition".to_owned(),
        plural: "customresourcedefinitions".to_owned(),
    };
    let api: Api<DynamicObject> = Api::all_with(client, &resource);
    let (mut told, mut answered) = (None, None);
    loop {
        let defined = match api.list_metadata(&ListParams::default()).await {
            Ok(found) => {
                let mut defined = Defined::default();
                for definition in &found.items {
                    let Some((kind, own)) = ours.get(&definition.name_any()) else { continue };
                    defined.expected.insert(*kind);
                    if definition.annotations().get(FINGERPRINT).is_some_and(|mark| mark != own) {
                        defined.outdated.insert(*kind);
                    }
                }
                if answered.get_or_insert_with(Instant::now).elapsed() > SERVED_WITHIN {
                    defined.expected.clear();
                }
                Some(defined)
            }
            // Who may not look here misses a piece of advice.
            Err(kube::Error::Api(status)) if matches!(status.code, 401 | 403 | 404) => Some(Defined::default()),
            // That a server is away is told by those who read objects.
            Err(_) => None,
        };
        let pause = if defined.is_some() { LOOK_EVERY } else { LOOK_AGAIN };
        if let Some(defined) = defined.filter(|defined| told.as_ref() != Some(defined)) {
            told = Some(defined.clone());
            if !tell(defined) {
                return;
            }
        }
        tokio::time::sleep(pause).await;
    }
}
