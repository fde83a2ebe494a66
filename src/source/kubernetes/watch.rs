//! One watch: a kind of a cluster, or some of its Secrets, from its API server to messages. Lists in pages, watches with
//! bookmarks, begins anew after `410 Gone`, and asks again after a growing pause when it gets nothing.

use std::pin::pin;
use std::sync::Arc;

use kube::api::{ApiResource, DynamicObject};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;

use super::definitions::Defined;
use super::held::{Told, Trouble, What};
use super::observed::{Observed, Written};
use super::pace::{Backoff, Road};
use crate::crd::yaml::decode_value;
use crate::model::{Kind, Name, ObjectRef};

/// Objects per page of a list: what an API server answers within its time, whatever its size.
const PAGE: u32 = 500;

/// How long a watch lasts, in seconds, before it is opened anew; one that is dead without a word is noticed then.
const LASTS: u32 = 120;

/// Failures in a row of a watch that had listed, before anybody is told: a connection that is closed now and then is none.
const TOLERATED: u32 = 1;

/// The label of Secrets with roots of trust that Chancery made.
pub(super) const ROOT_LABEL: &str = "chancery/root";

/// Where kubectl keeps the whole object once more.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// What a watch says.
#[derive(Debug)]
pub(super) enum Heard {
    /// A complete list.
    Listed(Vec<Told>),
    /// A new or different object.
    Put(Box<Told>),
    /// An object is gone.
    Deleted(ObjectRef),
    /// It gets nothing, and asks again.
    Failed(Trouble),
    /// It goes on after failures.
    Recovered,
    /// Which kinds are defined.
    Defined(Defined),
}

/// A message of a watch.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) cluster: Name,
    /// Which connection of the cluster it came over.
    pub(super) turn: u64,
    pub(super) what: What,
    pub(super) heard: Heard,
}

/// One watch.
pub(super) struct Watch {
    pub(super) client: Client,
    pub(super) road: Arc<Road>,
    pub(super) cluster: Name,
    pub(super) turn: u64,
    pub(super) what: What,
    /// The namespace of [`What::Credential`] and [`What::Roots`].
    pub(super) admin_namespace: Name,
    /// Whether objects are kept over a restart.
    pub(super) keeps: bool,
    pub(super) observed: Observed,
    pub(super) out: mpsc::UnboundedSender<Message>,
}

impl Watch {
    /// Watches until nobody listens.
    pub(super) async fn run(self) {
        let kind = self.kind();
        let resource = resource(kind);
        let config = watcher::Config::default().page_size(PAGE).timeout(LASTS);
        let (api, config): (Api<DynamicObject>, _) = match &self.what {
            What::Kind(_) => (Api::all_with(self.client.clone(), &resource), config),
            What::Secrets(labels) => {
                let labels: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
                (Api::all_with(self.client.clone(), &resource), config.labels(&labels.join(",")))
            }
            What::Secret(namespace, name) => self.one(namespace, name, &resource, config),
            What::Credential(name) => self.one(&self.admin_namespace, name, &resource, config),
            // Looked at otherwise.
            What::Definitions => return,
            What::Roots => {
                let api = Api::namespaced_with(self.client.clone(), &self.admin_namespace, &resource);
                (api, config.labels(ROOT_LABEL))
            }
        };
        let mut stream = pin!(watcher(api.clone(), config.clone()));
        let (mut backoff, mut scout) = (Backoff::default(), None);
        let (mut listing, mut has_listed, mut was_told) = (Vec::new(), false, false);
        loop {
            let Some(event) = stream.next().await else { return };
            let event = match event {
                // It begins to ask, which is no answer.
                Ok(Event::Init) => {
                    listing.clear();
                    continue;
                }
                Ok(event) => event,
                Err(error) => {
                    let trouble = trouble(&error);
                    let is_answer = is_answer(&error);
                    if is_answer {
                        self.road.is_open(scout.take());
                    }
                    // A list that is too old is asked for again at once, and is nothing to be told.
                    if !has_listed || backoff.failures() >= TOLERATED {
                        was_told = true;
                        if !self.say(Heard::Failed(trouble)) {
                            return;
                        }
                    }
                    // What answers next may have been restored from a copy, whose versions say nothing of what is gone: it is
                    // asked for everything, and equal objects wake nobody. And a watch that is opened again says nothing until
                    // something changes, so that whoever tries for all others would not learn that it got through.
                    if has_listed && (was_told || !is_answer) {
                        stream.set(watcher(api.clone(), config.clone()));
                    }
                    if is_answer {
                        self.road.pause(&mut backoff).await;
                    } else {
                        // How often this watch failed counts for what is told only.
                        backoff.pause();
                        drop(scout.take());
                        scout = self.road.wait().await;
                    }
                    continue;
                }
            };
            self.road.is_open(scout.take());
            let heard = match event {
                Event::Init => continue,
                Event::InitApply(object) => {
                    listing.extend(read(&self.cluster, kind, object, self.keeps));
                    continue;
                }
                Event::InitDone => {
                    has_listed = true;
                    let told = std::mem::take(&mut listing);
                    let ids = told.iter().map(|(told, _)| told.object.meta.id.clone());
                    self.observed.list(kind, &self.cluster, &ids.collect());
                    Heard::Listed(told.into_iter().map(|(told, written)| self.note(told, written)).collect())
                }
                Event::Apply(object) => {
                    backoff.reset();
                    match read(&self.cluster, kind, object, self.keeps) {
                        Some((told, written)) => Heard::Put(Box::new(self.note(told, written))),
                        None => continue,
                    }
                }
                Event::Delete(object) => {
                    backoff.reset();
                    let id = self.id(kind, &object);
                    self.observed.forget(&id);
                    Heard::Deleted(id)
                }
            };
            if std::mem::take(&mut was_told) && !self.say(Heard::Recovered) {
                return;
            }
            if !self.say(heard) {
                return;
            }
        }
    }

    fn say(&self, heard: Heard) -> bool {
        let Self { cluster, turn, what, .. } = self;
        let message = Message { cluster: cluster.clone(), turn: *turn, what: what.clone(), heard };
        self.out.send(message).is_ok()
    }

    fn kind(&self) -> Kind {
        match self.what {
            What::Kind(kind) => kind,
            What::Secret(..) | What::Secrets(_) | What::Credential(_) | What::Roots | What::Definitions => Kind::Secret,
        }
    }

    fn one(
        &self,
        namespace: &Name,
        name: &Name,
        resource: &ApiResource,
        config: watcher::Config,
    ) -> (Api<DynamicObject>, watcher::Config) {
        let api = Api::namespaced_with(self.client.clone(), namespace, resource);
        (api, config.fields(&format!("metadata.name={name}")))
    }

    fn id(&self, kind: Kind, object: &DynamicObject) -> ObjectRef {
        let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
        ObjectRef::new(kind, &self.cluster, namespace, object.metadata.name.as_deref().unwrap_or_default())
    }

    fn note(&self, told: Told, written: Option<Written>) -> Told {
        if let Some(written) = written {
            self.observed.note(&told.object.meta.id, written);
        }
        told
    }
}

/// Decodes an object as a manifest is decoded.
fn read(cluster: &Name, kind: Kind, mut object: DynamicObject, keeps: bool) -> Option<(Told, Option<Written>)> {
    let written = kind.is_v2().then(|| Written::of(&mut object));
    let metadata = &mut object.metadata;
    metadata.managed_fields = None;
    if let Some(annotations) = &mut metadata.annotations {
        annotations.remove(LAST_APPLIED);
    }
    // An item of a list does not say what it is.
    object.types = Some(kube::core::TypeMeta {
        api_version: kind.group().api_version().to_owned(),
        kind: kind.as_str().to_owned(),
    });
    let value = serde_json::to_value(object).unwrap_or(Value::Null);
    // What reads as it was written needs no text of its own. Kubernetes' own kinds were checked by the API server.
    let text = (keeps && kind.is_v2()).then(|| value.to_string());
    let (object, findings) = decode_value(value, cluster);
    let object = object?;
    let text = text.filter(|_| !findings.is_empty() || !object.defects.is_empty()).map(Arc::from);
    Some((Told { object: Arc::new(object), findings, text }, written))
}

/// How a kind is addressed.
#[must_use]
pub fn resource(kind: Kind) -> ApiResource {
    let api_version = kind.group().api_version();
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
    ApiResource {
        group: group.to_owned(),
        version: version.to_owned(),
        api_version: api_version.to_owned(),
        kind: kind.as_str().to_owned(),
        plural: kind.plural().to_owned(),
    }
}

/// What a failure of a watch means.
fn trouble(error: &watcher::Error) -> Trouble {
    match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => super::trouble(error),
        watcher::Error::WatchError(status) => super::trouble_of_code(status.code, &status.message),
        watcher::Error::NoResourceVersion => Trouble::Unreachable("it lists without a resourceVersion".to_owned()),
    }
}

/// Whether the server answered, if only with a failure.
fn is_answer(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => matches!(error, kube::Error::Api(_)),
        watcher::Error::WatchError(_) | watcher::Error::NoResourceVersion => true,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// One suite for both sources: what a manifest says is the same object from a file and from an API server, which keeps more
    /// of it.
    #[test]
    fn r2_an_object_is_the_same_from_a_file_and_from_an_api_server() {
        let folder = tempfile::tempdir().unwrap();
        for (kind, manifest) in [
            (
                Kind::RouteTable,
                json!({"spec": {"hosts": ["a.example"], "http": [{"name": "r", "labels": {"a": "b"}}], "odd": 1}}),
            ),
            (Kind::Service, json!({"spec": {"clusterIP": "10.0.0.1", "ports": [{"port": 80, "targetPort": "http"}]}})),
            (
                Kind::EndpointSlice,
                json!({"addressType": "IPv4", "endpoints": [{"addresses": ["10.1.1.1"]}], "ports": null}),
            ),
            (
                Kind::Pod,
                json!({"spec": {"serviceAccountName": "web", "containers": []}, "status": {"podIP": "10.1.1.1"}}),
            ),
            (Kind::Node, json!({"status": {"addresses": [{"type": "InternalIP", "address": "10.0.0.9"}]}})),
            (Kind::Secret, json!({"type": "kubernetes.io/tls", "data": {"tls.crt": "Y3J0", "tls.key": "a2V5"}})),
            (
                Kind::CorsPolicy,
                json!({"spec": {"applyToRoutes": [{"route": {"labels": {"a": "b"}}}], "config": {"nope": true}}}),
            ),
        ] {
            let mut manifest = manifest;
            manifest["apiVersion"] = json!(kind.group().api_version());
            manifest["kind"] = json!(kind.as_str());
            manifest["metadata"] = json!({
                "name": "x", "namespace": "shop", "labels": {"a": "b"}, "annotations": {"note": "1"},
                "creationTimestamp": "2026-01-01T00:00:00Z", "generation": 4,
            });
            let file = folder.path().join("x.json");
            std::fs::write(&file, manifest.to_string()).unwrap();
            let files = crate::source::read(&[folder.path().to_owned()], &crate::source::Options::default()).unwrap();
            // As it comes in a list: without saying what it is, with what the server and kubectl keep beside it.
            let mut listed = manifest.clone();
            listed.as_object_mut().unwrap().retain(|key, _| key != "apiVersion" && key != "kind");
            listed["metadata"]["uid"] = json!("1-2-3");
            listed["metadata"]["resourceVersion"] = json!("77");
            listed["metadata"]["managedFields"] = json!([{"manager": "kubectl", "operation": "Update"}]);
            listed["metadata"]["annotations"][LAST_APPLIED] = json!(manifest.to_string());
            let (told, written) = read(&"mgmt".into(), kind, serde_json::from_value(listed).unwrap(), false).unwrap();
            let of_file = &files.objects[0];
            assert!(crate::source::same_content(of_file, &told.object), "{of_file:?}\n{:?}", told.object);
            let texts = |findings: &[crate::model::Finding]| -> Vec<_> {
                findings.iter().map(|f| (f.code, f.field.clone(), f.message.clone())).collect()
            };
            assert_eq!(texts(&files.findings), texts(&told.findings), "{kind}");
            assert_eq!(
                written.map(|written| (written.generation, written.uid)),
                kind.is_v2().then(|| (4, "1-2-3".into()))
            );
        }
    }

    #[test]
    fn kinds_are_addressed_as_the_api_server_serves_them() {
        let url = |kind| {
            let resource = resource(kind);
            (resource.group, resource.version, resource.plural)
        };
        let texts =
            |group: &str, version: &str, plural: &str| (group.to_owned(), version.to_owned(), plural.to_owned());
        assert_eq!(url(Kind::Pod), texts("", "v1", "pods"));
        assert_eq!(url(Kind::EndpointSlice), texts("discovery.k8s.io", "v1", "endpointslices"));
        assert_eq!(url(Kind::RouteTable), texts("networking.gloo.solo.io", "v2", "routetables"));
    }
}
