//! Whether the definitions that an API server has of our kinds are those of this version.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kube::api::{ApiResource, DynamicObject, ListParams};
use kube::{Api, Client, ResourceExt as _};

use crate::crd::definition::{FINGERPRINT, fingerprint};
use crate::model::Kind;

/// How often it is looked. A definition that was applied is noticed that late.
const LOOK_EVERY: Duration = Duration::from_secs(15);

/// Looks until nobody listens, and tells which kinds are defined otherwise, when that changes.
pub(super) async fn follow(client: Client, tell: impl Fn(BTreeSet<Kind>) -> bool) {
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
    let mut told = None;
    loop {
        match api.list_metadata(&ListParams::default()).await {
            Ok(found) => {
                let marks =
                    found.items.iter().filter_map(|one| Some((one.name_any(), one.annotations().get(FINGERPRINT)?)));
                let others = marks.filter_map(|(name, mark)| {
                    let (kind, own) = ours.get(&name)?;
                    (own != mark).then_some(*kind)
                });
                let others: BTreeSet<Kind> = others.collect();
                if told.as_ref() != Some(&others) {
                    told = Some(others.clone());
                    if !tell(others) {
                        return;
                    }
                }
            }
            // That a server is away is told by those who read objects; who may not look here misses a piece of advice.
            Err(error) => tracing::debug!("the definitions of kinds cannot be looked at: {error}"),
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
