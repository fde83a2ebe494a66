//! Writes statuses to API servers: only those that differ, a few at a time, and never twice in vain.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::{Duration, Instant};

use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Map, Value, json};
use tokio::task::JoinSet;

use super::clock::Clock;
use crate::model::{Approval, Kind, Name, ObjectRef};
use crate::source::kubernetes::{Clients, Written, resource};

/// Whose fields these are, for the API server.
const MANAGER: &str = "chancery-controller";

/// Writes at a time, over all API servers.
const AT_ONCE: usize = 8;

/// Longest that an API server may take to answer; shorter than what a Lease holds.
pub const WITHIN: Duration = Duration::from_secs(5);

/// How long an object whose status could not be written is left alone, at first; each further failure doubles it.
const PAUSE: Duration = Duration::from_secs(1);

/// The longest of these pauses.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The longest pause after which a server that could not be reached is tried again: it may be back long before objects would be.
const LONGEST_AWAY: Duration = Duration::from_secs(4);

/// What is written beside another control plane's fields.
const BESIDE: [&str; 3] = ["conditions", "gateways", "notApplicable"];

/// Most bytes of an event's note, as Kubernetes has it.
const NOTE: usize = 1024;

/// A status that is to be written.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The object.
    pub id: ObjectRef,
    /// What stands there.
    pub written: Written,
    /// What is to stand there: all fields of ours.
    pub status: Value,
    /// What to tell as an event.
    pub event: Option<Event>,
}

/// Something that happened to an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The verdict now.
    pub approval: Approval,
    /// Why, in one word.
    pub reason: String,
    /// Why, in a sentence.
    pub note: String,
}

impl Event {
    fn of_another() -> Self {
        let note = "another control plane writes the status of this object and keeps its fields; the verdict of Chancery \
                    stands in the conditions";
        Self { approval: Approval::Warning, reason: "StatusOfAnother".to_owned(), note: note.to_owned() }
    }
}

/// What was learned of API servers by writing.
#[derive(Debug, Default)]
pub struct Learned {
    /// Fields that a server drops, because the definition of the kind does not know them.
    pruned: BTreeMap<(Name, Kind), BTreeSet<String>>,
    /// Objects whose API fields another control plane writes.
    foreign: BTreeSet<ObjectRef>,
    /// Objects whose status could not be written: when to try again, and after how many failures.
    failed: BTreeMap<ObjectRef, (Instant, u32)>,
    /// Clusters whose server could not be reached, likewise.
    away: BTreeMap<Name, (Instant, u32)>,
    /// Which fields of each object were written last.
    fields: BTreeMap<ObjectRef, u64>,
}

/// What came of a turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Statuses that were written.
    pub written: usize,
    /// Statuses that could not be written.
    pub failed: usize,
}

/// What came of one write.
enum Outcome {
    /// The status as it stands now.
    Written(Value),
    /// The definition does not know these fields, and nothing was written.
    Undeclared(BTreeSet<String>),
    /// Somebody else has fields of it.
    Conflict,
    /// The object is gone, or is another by now.
    Gone,
    /// The server cannot be reached; the object has nothing to do with it.
    Away(String),
    Failed(String),
}

impl Learned {
    /// The same status without what would be in vain.
    #[must_use]
    pub fn useful(&self, id: &ObjectRef, status: Value) -> Value {
        let mut status = status;
        if self.foreign.contains(id)
            && let Some(fields) = status.as_object_mut()
        {
            fields.retain(|field, _| BESIDE.contains(&field.as_str()));
        }
        if let Some(pruned) = self.pruned.get(&(id.cluster.clone(), id.kind)) {
            for path in pruned {
                remove(&mut status, path);
            }
        }
        status
    }

    /// Whether a status has other fields than those that were written last: one that is over is still there.
    #[must_use]
    pub fn has_fewer(&self, id: &ObjectRef, status: &Value) -> bool {
        self.fields.get(id).is_some_and(|fields| *fields != fields_of(status))
    }

    /// Forgets objects that are gone, and failures of those that are right.
    pub fn retain(&mut self, is_there: impl Fn(&ObjectRef) -> bool, is_right: impl Fn(&ObjectRef) -> bool) {
        self.failed.retain(|id, _| is_there(id) && !is_right(id));
        self.fields.retain(|id, _| is_there(id));
        self.foreign.retain(|id| is_there(id));
    }

    /// Forgets servers that were away and are to be asked for nothing now.
    pub fn retain_away(&mut self, is_wanted: impl Fn(&Name) -> bool, now: Instant) {
        self.away.retain(|cluster, (until, _)| now < *until || is_wanted(cluster));
    }

    /// Whether an object is to be left alone for now.
    #[must_use]
    pub fn waits(&self, id: &ObjectRef, now: Instant) -> bool {
        self.failed.get(id).is_some_and(|(until, _)| now < *until) || self.is_away(&id.cluster, now)
    }

    /// When the first object that waits is tried again.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        self.failed.values().chain(self.away.values()).map(|(until, _)| *until).min()
    }

    fn is_away(&self, cluster: &Name, now: Instant) -> bool {
        self.away.get(cluster).is_some_and(|(until, _)| now < *until)
    }

    /// Notes that a server could not be reached. What was on its way when that was noted says it once more.
    fn could_not_reach(&mut self, cluster: &Name, now: Instant) {
        let entry = self.away.entry(cluster.clone()).or_insert((now, 0));
        if entry.0 <= now {
            *entry = (now + pause(entry.1, LONGEST_AWAY), entry.1 + 1);
        }
    }

    /// Learns from what stands there after a write: what is missing is dropped every time.
    fn compare(&mut self, id: &ObjectRef, wanted: &Value, status: &Value) {
        let mut missing = BTreeSet::new();
        missing_paths(wanted, status, "", &mut missing);
        // Fields that are left out next time are others than were written now.
        if !missing.is_empty() && self.drop(id, missing) {
            let rest = fields_of(&self.useful(id, wanted.clone()));
            self.fields.insert(id.clone(), rest);
        }
    }

    /// Notes fields that are not to be written any more; whether that was not known.
    fn drop(&mut self, id: &ObjectRef, missing: BTreeSet<String>) -> bool {
        let known = self.pruned.entry((id.cluster.clone(), id.kind)).or_default();
        let new = missing.iter().filter(|path| !known.contains(*path)).count();
        if new > 0 {
            tracing::warn!(
                kind = %id.kind, cluster = %id.cluster, fields = new,
                "the definition of this kind drops fields of the status, so they are not written; `chancery crds` prints \
                 definitions that keep them"
            );
        }
        known.extend(missing);
        new > 0
    }

    fn failed(&mut self, id: &ObjectRef, now: Instant) {
        let entry = self.failed.entry(id.clone()).or_insert((now, 0));
        *entry = (now + pause(entry.1, LONGEST_PAUSE), entry.1 + 1);
    }
}

/// The pause after so many failures.
fn pause(failures: u32, longest: Duration) -> Duration {
    PAUSE.saturating_mul(1 << failures.min(10)).min(longest)
}

/// Writes statuses, as long as `until` is not reached. A server that does not answer makes nobody else wait for longer than
/// [`WITHIN`].
pub async fn write(
    wanted: Vec<Wanted>,
    clients: &Clients,
    learned: &mut Learned,
    until: Instant,
    clock: &Clock,
) -> Tally {
    let mut tally = Tally::default();
    // What is told comes after what it is about is known, and takes its own time.
    let mut writes: JoinSet<Option<(Wanted, Outcome)>> = JoinSet::new();
    let mut wanted = wanted.into_iter();
    loop {
        while writes.len() < AT_ONCE && clock.now() < until {
            let Some(next) = wanted.next() else { break };
            let Some(client) = clients.get(&next.id.cluster) else { continue };
            if learned.is_away(&next.id.cluster, clock.now()) {
                continue;
            }
            writes.spawn(async move {
                let late = || Outcome::Failed(format!("no answer within {} s", WITHIN.as_secs()));
                let outcome = tokio::time::timeout(WITHIN, apply(client, &next)).await.unwrap_or_else(|_| late());
                Some((next, outcome))
            });
        }
        let Some(done) = writes.join_next().await else { return tally };
        let Ok(Some((mut done, outcome))) = done else { continue };
        let mut event = None;
        match outcome {
            Outcome::Written(status) => {
                tally.written += 1;
                event = done.event.take();
                learned.failed.remove(&done.id);
                learned.away.remove(&done.id.cluster);
                learned.fields.insert(done.id.clone(), fields_of(&done.status));
                learned.compare(&done.id, &done.status, &status);
            }
            Outcome::Conflict => {
                if learned.foreign.insert(done.id.clone()) {
                    event = Some(Event::of_another());
                    tracing::warn!(
                        object = %done.id,
                        "another control plane writes the status of this object, and keeps its fields; only conditions are \
                         written beside them"
                    );
                } else {
                    tally.failed += 1;
                    learned.failed(&done.id, clock.now());
                }
            }
            // Tried again at once without them, unless that was tried.
            Outcome::Undeclared(fields) => {
                if !learned.drop(&done.id, fields) {
                    tally.failed += 1;
                    learned.failed(&done.id, clock.now());
                }
            }
            // Its deletion will be heard of; if it is not, the definition has no status of its own.
            Outcome::Gone => {
                tally.failed += 1;
                learned.failed(&done.id, clock.now());
            }
            Outcome::Away(reason) => {
                tracing::debug!(cluster = %done.id.cluster, reason, "statuses cannot be written there for now");
                learned.could_not_reach(&done.id.cluster, clock.now());
            }
            Outcome::Failed(reason) => {
                tally.failed += 1;
                tracing::debug!(object = %done.id, reason, "its status could not be written");
                learned.failed(&done.id, clock.now());
            }
        }
        if let Some((event, client)) = event.zip(clients.get(&done.id.cluster)) {
            writes.spawn(async move {
                let _late = tokio::time::timeout(WITHIN, tell(client, &done, &event)).await;
                None
            });
        }
    }
}

async fn apply(client: Client, wanted: &Wanted) -> Outcome {
    let id = &wanted.id;
    let resource = resource(id.kind);
    let api: Api<DynamicObject> = Api::namespaced_with(client, &id.namespace, &resource);
    let document = json!({
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        // Another object of the same name has another uid, and is refused.
        "metadata": {"name": id.name.as_str(), "namespace": id.namespace.as_str(), "uid": &*wanted.written.uid},
        "status": wanted.status,
    });
    match api.patch_status(&id.name, &PatchParams::apply(MANAGER), &Patch::Apply(&document)).await {
        Ok(object) => Outcome::Written(object.data.get("status").cloned().unwrap_or_default()),
        Err(kube::Error::Api(status)) if !undeclared(&status.message).is_empty() => {
            Outcome::Undeclared(undeclared(&status.message))
        }
        Err(kube::Error::Api(status)) if status.code == 404 => Outcome::Gone,
        Err(kube::Error::Api(status)) if status.code == 409 => {
            let causes = status.details.as_ref().map(|details| details.causes.as_slice()).unwrap_or_default();
            let is_of_fields = causes.iter().any(|cause| cause.reason == "FieldManagerConflict");
            if is_of_fields { Outcome::Conflict } else { Outcome::Gone }
        }
        Err(error @ kube::Error::Api(_)) => Outcome::Failed(error.to_string()),
        Err(error) => Outcome::Away(error.to_string()),
    }
}

/// Tells an event. One that is not taken is lost: the status says the same.
async fn tell(client: Client, wanted: &Wanted, event: &Event) {
    let id = &wanted.id;
    let resource = kube::api::ApiResource {
        group: "events.k8s.io".to_owned(),
        version: "v1".to_owned(),
        api_version: "events.k8s.io/v1".to_owned(),
        kind: "Event".to_owned(),
        plural: "events".to_owned(),
    };
    let api: Api<DynamicObject> = Api::namespaced_with(client, &id.namespace, &resource);
    let end = (0..=NOTE.min(event.note.len())).rev().find(|end| event.note.is_char_boundary(*end)).unwrap_or(0);
    let is_good = event.approval == Approval::Accepted;
    let now = jiff::Timestamp::now();
    // As the API's own clients name them.
    let name = format!("{}.{:x}", &id.name[..id.name.len().min(200)], now.as_nanosecond());
    let mut object = DynamicObject::new(&name, &resource);
    object.data = json!({
        "eventTime": format!("{now:.6}"),
        "reportingController": "chancery.io/controller",
        "reportingInstance": identity(),
        "action": "Judged",
        "reason": event.reason,
        "type": if is_good { "Normal" } else { "Warning" },
        "note": &event.note[..end],
        "regarding": {
            "apiVersion": id.kind.group().api_version(),
            "kind": id.kind.as_str(),
            "name": id.name.as_str(),
            "namespace": id.namespace.as_str(),
            "uid": &*wanted.written.uid,
        },
    });
    if let Err(error) = api.create(&PostParams::default(), &object).await {
        tracing::debug!(object = %id, "an event could not be told: {error}");
    }
}

/// Which fields a status has, in short.
fn fields_of(status: &Value) -> u64 {
    let mut hasher = DefaultHasher::new();
    for field in status.as_object().into_iter().flat_map(Map::keys) {
        field.hash(&mut hasher);
    }
    hasher.finish()
}

/// What an API server says of a field that its definition does not know.
const UNDECLARED: &str = ": field not declared in schema";

/// The fields of the status that an API server says its definition does not know, each as a path.
fn undeclared(message: &str) -> BTreeSet<String> {
    // What follows the last of these words is about something else.
    let (named, _) = message.rsplit_once(UNDECLARED).unwrap_or_default();
    let of_status = named.split(UNDECLARED).filter_map(|part| part.rsplit_once(".status.").map(|(_, path)| path));
    of_status
        .filter(|path| !path.contains([' ', ':']))
        .map(|path| format!("\u{0}{}", path.replace('.', "\u{0}")))
        .collect()
}

/// The name of this replica: its Pod's, or the host's.
#[must_use]
pub fn identity() -> String {
    let named = |variable: &str| std::env::var(variable).ok().filter(|name| !name.is_empty());
    let pod = named("POD_NAME").or_else(|| named("HOSTNAME")).unwrap_or_else(|| "chancery".to_owned());
    format!("{pod}_{}", std::process::id())
}

/// The paths of a wanted status that another one does not have. Lists are taken as a whole.
fn missing_paths(wanted: &Value, status: &Value, path: &str, missing: &mut BTreeSet<String>) {
    let Some(fields) = wanted.as_object() else { return };
    for (key, value) in fields {
        // Keys of the API's maps may hold dots; no path is split inside of one.
        let path = format!("{path}\u{0}{key}");
        match status.get(key) {
            None => drop(missing.insert(path)),
            Some(there) => missing_paths(value, there, &path, missing),
        }
    }
}

/// Takes the value at a path out; what is empty after that goes too.
fn remove(value: &mut Value, path: &str) {
    fn within(fields: &mut Map<String, Value>, keys: &[&str]) {
        match keys {
            [] => {}
            [last] => drop(fields.remove(*last)),
            [first, rest @ ..] => {
                if let Some(inner) = fields.get_mut(*first).and_then(Value::as_object_mut) {
                    within(inner, rest);
                }
            }
        }
    }
    let keys: Vec<&str> = path.split('\u{0}').skip(1).collect();
    if let Some(fields) = value.as_object_mut() {
        within(fields, &keys);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_definition_drops_is_asked_for_once() {
        let id = ObjectRef::new(Kind::RouteTable, "mgmt", "shop", "cart");
        let wanted = json!({
            "common": {"State": {"approval": "ACCEPTED", "message": "", "observedGeneration": 2}},
            "conditions": [{"type": "Accepted"}],
            "counts": {"a.b/v2, Kind=X": 1},
        });
        let kept = json!({"common": {"State": {"approval": "ACCEPTED", "observedGeneration": 2}}, "counts": {}});
        let mut learned = Learned::default();
        assert_eq!(learned.useful(&id, wanted.clone()), wanted);
        learned.compare(&id, &wanted, &kept);
        let rest = learned.useful(&id, wanted.clone());
        assert_eq!(rest, kept);
        assert!(super::super::document::says(&kept, &rest));
        // Objects of the same kind behind another server are another matter.
        let other = ObjectRef::new(Kind::RouteTable, "c1", "shop", "cart");
        assert_eq!(learned.useful(&other, wanted.clone()), wanted);
    }

    #[test]
    fn what_a_definition_does_not_know_is_read_from_the_server_s_words() {
        let words = "failed to create typed patch object (shop/cart; networking.gloo.solo.io/v2, Kind=RouteTable): errors:\n  \
            .status.conditions: field not declared in schema\n  .status.common.State.observedGeneration: field not declared \
            in schema";
        let paths = ["\u{0}common\u{0}State\u{0}observedGeneration", "\u{0}conditions"].map(str::to_owned);
        assert_eq!(undeclared(words), paths.into());
        assert!(undeclared("routetables \"cart\" is forbidden").is_empty());
        let conflict = "Apply failed with 1 conflict: conflict with \"gloo\": .status.common.State.approval";
        assert!(undeclared(conflict).is_empty(), "fields of another are known to the definition");
        let mut status =
            json!({"common": {"State": {"approval": "ACCEPTED", "observedGeneration": 1}}, "conditions": []});
        for path in undeclared(words) {
            remove(&mut status, &path);
        }
        assert_eq!(status, json!({"common": {"State": {"approval": "ACCEPTED"}}}));
    }

    #[test]
    fn a_field_that_is_over_is_taken_away_once() {
        let id = ObjectRef::new(Kind::RouteTable, "mgmt", "shop", "cart");
        let (with, without) = (json!({"conditions": [], "gateways": "1/1"}), json!({"conditions": []}));
        let mut learned = Learned::default();
        assert!(!learned.has_fewer(&id, &without), "of another run nobody knows");
        learned.fields.insert(id.clone(), fields_of(&with));
        assert!(learned.has_fewer(&id, &without) && !learned.has_fewer(&id, &with));
        learned.retain(|_| false, |_| false);
        assert!(!learned.has_fewer(&id, &without));
    }

    #[test]
    fn what_fails_waits_longer_each_time() {
        let id = ObjectRef::new(Kind::RouteTable, "mgmt", "shop", "cart");
        let (mut learned, begin) = (Learned::default(), Instant::now());
        assert!(!learned.waits(&id, begin));
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
            learned.failed(&id, begin);
            assert!(learned.waits(&id, begin + Duration::from_secs(seconds) - Duration::from_millis(1)));
            assert!(!learned.waits(&id, begin + Duration::from_secs(seconds)));
        }
    }

    /// An outage of half a minute must not make statuses wait for half a minute more.
    #[test]
    fn a_server_that_is_away_is_tried_again_soon_and_its_objects_with_it() {
        let [here, there] = ["mgmt", "c1"].map(|cluster| ObjectRef::new(Kind::RouteTable, cluster, "shop", "cart"));
        let (mut learned, mut now) = (Learned::default(), Instant::now());
        for seconds in [1, 2, 4, 4, 4] {
            // Eight writes were on their way.
            (0..AT_ONCE).for_each(|_| learned.could_not_reach(&here.cluster, now));
            let until = now + Duration::from_secs(seconds);
            assert!(learned.waits(&here, until - Duration::from_millis(1)) && !learned.waits(&there, now));
            learned.retain_away(|_| false, now);
            assert_eq!(learned.due(), Some(until));
            now = until;
            learned.retain_away(|cluster| *cluster == here.cluster, now);
        }
        learned.retain_away(|_| false, now);
        assert_eq!(learned.due(), None, "nothing is to be written there any more");
    }
}
