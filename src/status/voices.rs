//! The voices of all replicas, over the API server of the management cluster: each keeps an object of its own, and reads those of
//! the others.
//!
//! Whether a replica is still there is counted by the reader's own clock, as with the [lease](super::lease): its object changes
//! every few seconds while it has gateways. Only time in which the API server answered the reader counts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use super::voice::{Unheard, Voice};
use super::writer::WITHIN;

/// How often whoever writes statuses reads what others say.
const HEARS_EVERY: Duration = Duration::from_secs(1);

/// How often the others do, who only explain by it.
const LOOKS_EVERY: Duration = Duration::from_secs(5);

/// How often a replica says at most something else.
const SPEAKS_EVERY: Duration = Duration::from_secs(1);

/// How often it says at least that it is still there, while it has gateways.
const BEATS_EVERY: Duration = Duration::from_secs(5);

/// After how long nothing that a replica said counts any more. What a Lease holds: half would be three beats of a busy server,
/// double would count gateways longer that are connected elsewhere by then, or nowhere.
const SILENT: Duration = Duration::from_secs(15);

/// After how long an object is removed of which nothing was heard.
const FORGOTTEN: Duration = Duration::from_secs(10 * 60);

/// The pause after an API server refused.
const REFUSED: Duration = Duration::from_secs(60);

/// Who they are among the objects of a namespace.
const LABEL: (&str, &str) = ("chancery.io/voice", "gateways");

/// What changes with every beat.
const BEAT: &str = "chancery.io/beat";

/// The field of the object that says everything.
const FIELD: &str = "document";

/// What was read of one replica's object.
#[derive(Clone, Debug)]
struct Listed {
    name: String,
    version: String,
    document: String,
}

/// One other replica.
#[derive(Debug)]
struct Known {
    /// The version that was seen last, and for how long it has been seen.
    version: String,
    silent: Duration,
    document: String,
    said: Result<Arc<Voice>, Unheard>,
    /// A number that is larger the later it said something else.
    said_at: u64,
}

/// What was heard of the other replicas.
#[derive(Debug, Default)]
struct Hearing {
    known: BTreeMap<String, Known>,
    /// When somebody listened last and was answered.
    listened: Option<Instant>,
    revision: u64,
}

impl Hearing {
    /// Takes in what all replicas say; the names of those that are to be forgotten.
    fn take(&mut self, listed: Vec<Listed>, now: Instant) -> Vec<String> {
        let before = self.heard_names();
        // A reader that was away for long hears at first who is there.
        let since = self.listened.map_or(Duration::ZERO, |listened| now.saturating_duration_since(listened));
        let since = since.min(2 * LOOKS_EVERY);
        self.listened = Some(now);
        let mut known = std::mem::take(&mut self.known);
        let mut is_other = false;
        for Listed { name, version, document } in listed {
            let one = match known.remove(&name) {
                Some(mut one) if one.document == document => {
                    one.silent = if one.version == version { one.silent + since } else { Duration::ZERO };
                    one.version = version;
                    one
                }
                before => {
                    is_other = true;
                    let said = Voice::read(&document).map(Arc::new);
                    if let Err(reason) = &said
                        && before.is_none_or(|before| before.said.as_ref().err() != Some(reason))
                    {
                        tracing::warn!(
                            object = name,
                            "what another replica says of its gateways is not heard: {reason}"
                        );
                    }
                    Known { version, silent: Duration::ZERO, document, said, said_at: self.revision + 1 }
                }
            };
            self.known.insert(name, one);
        }
        if is_other || before != self.heard_names() {
            self.revision += 1;
        }
        let forgotten = self.known.iter().filter(|(_, known)| known.silent >= FORGOTTEN);
        forgotten.map(|(name, _)| name.clone()).collect()
    }

    fn alive(&self) -> impl Iterator<Item = (&String, &Known, &Arc<Voice>)> {
        let alive = self.known.iter().filter(|(_, known)| known.silent < SILENT);
        alive.filter_map(|(name, known)| Some((name, known, known.said.as_ref().ok()?)))
    }

    fn heard_names(&self) -> Vec<String> {
        self.alive().map(|(name, ..)| name.clone()).collect()
    }

    /// What counts, the latest first.
    fn heard(&self) -> Vec<Arc<Voice>> {
        let mut heard: Vec<_> = self.alive().collect();
        heard.sort_by_key(|(_, known, _)| std::cmp::Reverse(known.said_at));
        heard.into_iter().map(|(_, _, voice)| voice.clone()).collect()
    }
}

/// What was said last.
#[derive(Debug, Default)]
struct Speech {
    said: Option<String>,
    at: Option<Instant>,
    beats: u64,
    /// Not before this time, after an API server did not take it.
    pause: Option<Instant>,
}

/// What to do about the own object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Nothing,
    Write,
    Beat,
    Remove,
}

impl Speech {
    /// What to do, if `wanted` is what there is to say.
    fn next(&self, wanted: Option<&str>, now: Instant) -> Act {
        if self.pause.is_some_and(|until| now < until) {
            return Act::Nothing;
        }
        let passed = self.at.map(|at| now.saturating_duration_since(at));
        match (wanted, self.said.as_deref()) {
            (None, None) => Act::Nothing,
            (None, Some(_)) => Act::Remove,
            (Some(wanted), Some(said)) if wanted == said => {
                if passed.is_some_and(|passed| passed >= BEATS_EVERY) {
                    Act::Beat
                } else {
                    Act::Nothing
                }
            }
            (Some(_), _) if passed.is_some_and(|passed| passed < SPEAKS_EVERY) => Act::Nothing,
            (Some(_), _) => Act::Write,
        }
    }
}

/// The Pod in which a replica runs, which owns its object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Its identity.
    pub uid: String,
}

impl Pod {
    /// That of this process, as the downward API says; none where it does not.
    #[must_use]
    pub fn of_this_process() -> Option<Self> {
        let named = |variable: &str| std::env::var(variable).ok().filter(|value| !value.is_empty());
        Some(Self { name: named("POD_NAME")?, uid: named("POD_UID")? })
    }
}

/// The voices of the other replicas, and the own one.
pub struct Voices {
    own: Own,
    pod: Option<Pod>,
    hearing: Hearing,
    speech: Speech,
    began: Option<Instant>,
    /// When it was listened last, whether or not there was an answer.
    asked: Option<Instant>,
    /// Not before this time, after an API server refused to be read.
    deaf_until: Option<Instant>,
    /// Whether it was told that reading is refused, and whether it was of writing.
    is_told: [bool; 2],
}

impl std::fmt::Debug for Voices {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Voices").field("own", &self.own.name).field("hearing", &self.hearing).finish_non_exhaustive()
    }
}

/// The object of this replica.
#[derive(Clone)]
pub struct Own {
    api: Api<DynamicObject>,
    name: String,
}

impl std::fmt::Debug for Own {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Own").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Own {
    /// Takes it away.
    ///
    /// # Errors
    /// Where the API server does not answer, or refuses.
    pub async fn remove(&self) -> Result<(), kube::Error> {
        remove(&self.api, &self.name).await
    }
}

async fn remove(api: &Api<DynamicObject>, name: &str) -> Result<(), kube::Error> {
    match api.delete(name, &DeleteParams::default()).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        removed => removed.map(drop),
    }
}

impl Voices {
    /// Those in a namespace, for a replica of this name.
    #[must_use]
    pub fn new(client: Client, namespace: &str, identity: &str, pod: Option<Pod>) -> Self {
        let own = Own { api: Api::namespaced_with(client, namespace, &config_maps()), name: name_of(identity) };
        let (hearing, speech) = (Hearing::default(), Speech::default());
        Self { own, pod, hearing, speech, began: None, asked: None, deaf_until: None, is_told: [false; 2] }
    }

    /// The own object, for whoever takes it away at the end; none where there is none.
    #[must_use]
    pub fn own(&self) -> Option<Own> {
        self.speech.said.is_some().then(|| self.own.clone())
    }

    /// Another number once something else counts.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.hearing.revision
    }

    /// Whether the others were heard, or cannot be heard.
    #[must_use]
    pub fn is_heard(&self, now: Instant) -> bool {
        let is_over = self.began.is_some_and(|began| now.saturating_duration_since(began) >= SILENT);
        self.hearing.listened.is_some() || self.is_told[0] || is_over
    }

    /// What the others say, the latest first.
    #[must_use]
    pub fn heard(&self) -> Vec<Arc<Voice>> {
        self.hearing.heard()
    }

    /// Reads what the others say, if it is time for it. Who `leads` does so more often.
    pub async fn hear(&mut self, leads: bool, now: Instant) {
        let every = if leads { HEARS_EVERY } else { LOOKS_EVERY };
        self.began.get_or_insert(now);
        if self.asked.is_some_and(|asked| now < asked + every) || self.deaf_until.is_some_and(|until| now < until) {
            return;
        }
        self.asked = Some(now);
        let parameters = ListParams::default().labels(&format!("{}={}", LABEL.0, LABEL.1));
        let listed = tokio::time::timeout(WITHIN, self.own.api.list(&parameters)).await;
        let listed = match listed {
            Ok(Ok(listed)) => listed,
            Ok(Err(error)) => {
                if self.refused(0, &error, "what other replicas say of their gateways cannot be read, so statuses speak of this replica's alone") {
                    self.deaf_until = Some(now + REFUSED);
                }
                return;
            }
            Err(_) => {
                tracing::debug!("what other replicas say of their gateways cannot be read: no answer");
                // Statuses do not wait for it every time.
                self.deaf_until = Some(now + 3 * WITHIN);
                return;
            }
        };
        self.is_told[0] = false;
        let listed = listed.items.into_iter().filter_map(|mut object| {
            let name = object.metadata.name?;
            let document = match object.data["data"][FIELD].take() {
                Value::String(document) => document,
                _ => String::new(),
            };
            (name != self.own.name).then_some(Listed { name, version: object.metadata.resource_version?, document })
        });
        let listed = listed.collect();
        let forgotten = self.hearing.take(listed, now);
        if !leads {
            return;
        }
        for name in forgotten {
            match tokio::time::timeout(WITHIN, remove(&self.own.api, &name)).await {
                Ok(Ok(())) => {
                    tracing::info!(object = name, "nothing was heard of a replica for long; what it said is removed");
                }
                Ok(Err(error)) => drop(self.refused(1, &error, "what a replica said that is gone cannot be removed")),
                Err(_) => return,
            }
        }
    }

    /// Says this of the own gateways, if it is another than before and it is time for it; nothing where there are none.
    pub async fn speak(&mut self, wanted: impl FnOnce() -> Option<String>, now: Instant) {
        // What is said is made only when it might be sent.
        let is_time = self.speech.at.is_none_or(|at| now >= at + SPEAKS_EVERY);
        if !is_time || self.speech.pause.is_some_and(|until| now < until) {
            return;
        }
        let wanted = wanted();
        let act = self.speech.next(wanted.as_deref(), now);
        let done = match act {
            Act::Nothing => return,
            Act::Write => tokio::time::timeout(WITHIN, self.write(wanted.as_deref().unwrap_or_default())).await,
            Act::Beat => tokio::time::timeout(WITHIN, self.beat()).await,
            Act::Remove => tokio::time::timeout(WITHIN, self.own.remove()).await,
        };
        match done {
            Ok(Ok(())) => {
                if act != Act::Beat {
                    self.speech.said = wanted;
                }
                (self.speech.at, self.speech.pause, self.is_told[1]) = (Some(now), None, false);
            }
            Ok(Err(error)) => {
                let is_gone = matches!(&error, kube::Error::Api(status) if status.code == 404);
                if is_gone && act != Act::Remove {
                    // Somebody took it away: it is written anew.
                    self.speech.said = None;
                    return;
                }
                let words =
                    "what this replica's gateways say cannot be told to other replicas, so statuses may leave them out";
                let pause = if self.refused(1, &error, words) { REFUSED } else { BEATS_EVERY };
                self.speech.pause = Some(now + pause);
            }
            Err(_) => self.speech.pause = Some(now + BEATS_EVERY),
        }
    }

    async fn write(&self, document: &str) -> Result<(), kube::Error> {
        let mut metadata = json!({
            "name": self.own.name,
            "labels": {LABEL.0: LABEL.1},
            "annotations": {BEAT: self.speech.beats.to_string()},
        });
        if let Some(Pod { name, uid }) = &self.pod {
            metadata["ownerReferences"] = json!([{"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid}]);
        }
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {FIELD: document}});
        if self.speech.said.is_none() {
            let object = serde_json::from_value(object.clone()).map_err(kube::Error::SerdeError)?;
            match self.own.api.create(&PostParams::default(), &object).await {
                // Of an earlier life of this replica.
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                created => return created.map(drop),
            }
        }
        self.own.api.patch(&self.own.name, &PatchParams::default(), &Patch::Merge(&object)).await.map(drop)
    }

    async fn beat(&mut self) -> Result<(), kube::Error> {
        self.speech.beats += 1;
        let patch = json!({"metadata": {"annotations": {BEAT: self.speech.beats.to_string()}}});
        self.own.api.patch_metadata(&self.own.name, &PatchParams::default(), &Patch::Merge(&patch)).await.map(drop)
    }

    /// Tells once that reading or writing is refused; whether it is.
    fn refused(&mut self, which: usize, error: &kube::Error, what: &str) -> bool {
        let is_refused = matches!(error, kube::Error::Api(status) if status.code == 403);
        if !is_refused {
            tracing::debug!("{what}: {error}");
        } else if !std::mem::replace(&mut self.is_told[which], true) {
            tracing::warn!("{what}: {error}; apply the roles of this version, see `config/kubernetes`");
        }
        is_refused
    }
}

/// The name of a replica's object.
fn name_of(identity: &str) -> String {
    let letter = |letter: char| match letter.to_ascii_lowercase() {
        letter @ ('a'..='z' | '0'..='9' | '-') => letter,
        _ => '-',
    };
    let name: String = identity.chars().map(letter).collect();
    // What tells processes apart is at the end.
    let start = name.len().saturating_sub(200);
    format!("chancery-gateways-{}", name[start..].trim_matches('-'))
}

/// How ConfigMaps are addressed.
fn config_maps() -> ApiResource {
    ApiResource {
        group: String::new(),
        version: "v1".to_owned(),
        api_version: "v1".to_owned(),
        kind: "ConfigMap".to_owned(),
        plural: "configmaps".to_owned(),
    }
}

#[cfg(test)]
mod tests;
