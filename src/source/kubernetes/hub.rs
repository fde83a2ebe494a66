//! Where everything comes together: watches are started and ended here, and what they say becomes batches.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use kube::api::{DynamicObject, ListParams};
use kube::{Api, Client};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch as channel};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::held::{Held, Told, Trouble, What, kinds};
use super::kept::{self, Current, Document, Shelf};
use super::narrator::Narrator;
use super::observed::Observed;
use super::pace::{Pace, Road};
use super::registry::{Health, Link, registrations};
use super::roots::{NewRoot, Roots};
use super::watch::{Heard, Message, Watch, resource};
use super::{Clients, Given, Missing, Options, SecretQuery, Stale, access, definitions, trouble};
use crate::crd::Spec;
use crate::model::{Code, Finding, Kind, Name, SecretBytes};

/// How long a question for Secrets may stay unanswered before that counts as no.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// How long what is wrong is gathered before it is told, where nothing else changed.
const TELL_AFTER: Duration = Duration::from_millis(400);

/// Messages that are taken in before what came of them is given.
const AT_ONCE: usize = 20_000;

/// How long a start waits for an API server that does not answer, before what an earlier run kept counts.
const AWAITED: Duration = Duration::from_millis(500);

/// How long it waits for one that has answered some questions.
const LISTED_WITHIN: Duration = Duration::from_secs(5);

/// How long what is read is another than what is kept, at most; in large clusters longer, by what each object takes.
const KEPT_EVERY: Duration = Duration::from_secs(5);
const KEPT_PER_OBJECT: Duration = Duration::from_micros(500);

/// The namespace that every cluster has, and whose uid no two share.
const SYSTEM: &str = "kube-system";

/// A cluster was reached, or not.
struct Reached {
    cluster: Name,
    turn: u64,
    outcome: Result<(Client, String), Unreached>,
}

/// Why a registered cluster is not reached.
enum Unreached {
    /// Its kubeconfig cannot be used.
    Unusable(String),
    /// Asked again after a pause.
    Trouble(Trouble),
}

/// See the module.
pub(super) struct Hub<T> {
    options: Options,
    take: T,
    held: Held,
    observed: Observed,
    missing: Missing,
    clients: Clients,
    tell: channel::Sender<BTreeMap<Name, Health>>,
    management: Option<Client>,
    /// The bound of all attempts after failures.
    pace: Pace,
    /// The way to the management cluster.
    road: Arc<Road>,
    /// What makes the management cluster itself.
    uid: Option<String>,
    links: BTreeMap<Name, Link>,
    /// Clusters that are not reached, and why.
    unreached: BTreeMap<Name, String>,
    wanted: BTreeMap<SecretQuery, Instant>,
    /// Whether it is known which Secrets are wanted.
    is_asked: bool,
    answered: Arc<BTreeSet<SecretQuery>>,
    secrets: BTreeMap<(Name, What), AbortHandle>,
    out: mpsc::UnboundedSender<Message>,
    inbox: Option<mpsc::UnboundedReceiver<Message>>,
    reached: mpsc::UnboundedSender<Reached>,
    reaches: Option<mpsc::UnboundedReceiver<Reached>>,
    /// Whether the clusters were looked at for which the first batch waits.
    is_known: bool,
    /// When to tell what is wrong.
    told_at: Option<Instant>,
    narrator: Narrator,
    begun: Instant,
    /// When it was last looked whether something of an earlier run is to count.
    looked: Instant,
    /// What an earlier run kept of clusters that were not listed yet.
    earlier: BTreeMap<Name, kept::Cluster<Value>>,
    /// Keeps what is read, where there is a place for it.
    keep: Option<Box<dyn FnMut(Current) + Send>>,
    /// What was kept last, and when.
    kept: Option<(u64, Instant)>,
    /// Since when clusters are not what they are at their API servers.
    stale: Stale,
    roots: Roots,
}

impl<T: FnMut(Given) -> bool> Hub<T> {
    pub(super) fn new(
        options: Options,
        take: T,
        (observed, missing, clients, stale): (Observed, Missing, Clients, Stale),
        tell: channel::Sender<BTreeMap<Name, Health>>,
        shelf: Option<Shelf>,
    ) -> Self {
        let (out, inbox) = mpsc::unbounded_channel();
        let (reached, reaches) = mpsc::unbounded_channel();
        let held = Held::new(&options.management);
        let pace = Pace::default();
        let (earlier, keep) = match shelf {
            Some(shelf) => (shelf.earlier.filter(|earlier| earlier.server == options.server), Some(shelf.keep)),
            None => (None, None),
        };
        let earlier = earlier.map(|earlier| earlier.clusters).unwrap_or_default();
        let now = Instant::now();
        Self {
            road: Arc::new(Road::new(pace.clone())),
            pace,
            options,
            take,
            held,
            observed,
            missing,
            clients,
            tell,
            management: None,
            uid: None,
            links: BTreeMap::new(),
            unreached: BTreeMap::new(),
            wanted: BTreeMap::new(),
            answered: Arc::default(),
            secrets: BTreeMap::new(),
            out,
            inbox: Some(inbox),
            reached,
            reaches: Some(reaches),
            is_known: false,
            told_at: None,
            narrator: Narrator::new(now),
            begun: now,
            looked: now,
            is_asked: false,
            earlier: earlier.into_iter().map(|(name, cluster)| (name.as_str().into(), cluster)).collect(),
            keep,
            kept: None,
            stale,
            roots: Roots::default(),
        }
    }

    /// Works until nobody wants more.
    pub(super) async fn run(
        mut self,
        config: kube::Config,
        (mut asked, mut new_roots): (channel::Receiver<BTreeSet<SecretQuery>>, mpsc::UnboundedReceiver<NewRoot>),
        mut stop: oneshot::Receiver<()>,
    ) {
        let (Some(mut inbox), Some(mut reaches)) = (self.inbox.take(), self.reaches.take()) else { return };
        match Client::try_from(config) {
            Ok(client) => self.follow_management(client),
            Err(error) => {
                tracing::error!("the kubeconfig cannot be used: {error}");
                return;
            }
        }
        loop {
            self.missing.set(if self.answered_at_all() { Vec::new() } else { self.held.missing() });
            let due = self.due();
            let waited = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = &mut stop => {
                    self.keep(true);
                    return;
                }
                message = inbox.recv() => {
                    let Some(message) = message else { return };
                    self.hear(message);
                    for _ in 0..AT_ONCE {
                        let Ok(message) = inbox.try_recv() else { break };
                        self.hear(message);
                    }
                }
                reached = reaches.recv() => {
                    if let Some(Reached { cluster, turn, outcome }) = reached {
                        self.reached(&cluster, turn, outcome);
                    }
                }
                changed = asked.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let wanted = asked.borrow_and_update().clone();
                    self.ask(wanted);
                }
                Some(new) = new_roots.recv() => {
                    if let Some(client) = self.management.clone() {
                        self.roots.make(client, &self.options, new, self.out.clone());
                    }
                }
                () = waited => {}
            }
            self.recall();
            self.register();
            if !self.give() {
                return;
            }
            self.narrate();
            self.keep(false);
        }
    }

    /// Says in the log what is waited for.
    fn narrate(&mut self) {
        if self.answered_at_all() {
            let is_listed = self.held.clusters().all(|name| self.held.recalled(name).is_none());
            if let Some(line) = self.narrator.ends().filter(|_| is_listed) {
                tracing::info!("{line}");
            }
        } else if let Some(line) = self.narrator.says(&self.held, &self.unreached, &self.options, Instant::now()) {
            tracing::warn!("{line}");
        }
    }

    fn answered_at_all(&self) -> bool {
        self.is_known && self.held.missing().is_empty()
    }

    /// Gives what changed; whether anybody wants more.
    fn give(&mut self) -> bool {
        let mut is_wanted = true;
        // What is wrong comes of many watches, mostly one after another: it is told once.
        let now = Instant::now();
        self.told_at = self.held.is_only_said().then(|| self.told_at.unwrap_or(now + TELL_AFTER));
        let is_early = self.told_at.is_some_and(|due| now < due);
        if !is_early && let Some(batch) = self.held.batch(self.is_known) {
            self.told_at = None;
            is_wanted &= (self.take)(Given::Batch(batch));
        }
        let answered: BTreeSet<SecretQuery> = self
            .wanted
            .iter()
            .filter(|(query, asked)| self.is_answered(query, **asked))
            .map(|(q, _)| q.clone())
            .collect();
        if let Some(known) = self.roots.change() {
            is_wanted &= (self.take)(Given::Roots(known));
        }
        if *self.answered != answered {
            self.answered = Arc::new(answered);
            is_wanted &= (self.take)(Given::Answered(self.answered.clone()));
        }
        let health = self.health();
        self.tell_stale(&health);
        self.tell.send_if_modified(|told| {
            let is_other = *told != health;
            *told = health;
            is_other
        });
        is_wanted
    }

    fn hear(&mut self, message: Message) {
        let Message { cluster, turn, what, heard } = message;
        let is_current = match self.links.get(&cluster) {
            Some(link) => link.turn == turn,
            None => cluster == self.options.management,
        };
        if !is_current {
            return;
        }
        match &what {
            What::Credential(secret) => return self.hear_credential(secret, heard),
            What::Roots => return self.roots.hear(heard),
            What::Kind(_) | What::Secret(..) | What::Secrets(_) | What::Definitions => {}
        }
        if matches!(heard, Heard::Failed(Trouble::Unreachable(_) | Trouble::Refused(_))) {
            tracing::debug!(%cluster, ?what, "a watch failed");
        }
        match heard {
            Heard::Listed(told) => self.held.listed(&cluster, &what, told),
            Heard::Put(told) => self.held.put(&cluster, &what, *told),
            Heard::Deleted(id) => self.held.deleted(&cluster, &what, &id),
            Heard::Failed(trouble) => self.held.troubled(&cluster, &what, trouble),
            Heard::Recovered => self.held.recovered(&cluster, &what),
            Heard::Defined(defined) => self.held.defined(&cluster, defined),
        }
    }

    fn follow_management(&mut self, client: Client) {
        let name = self.options.management.clone();
        let road = self.road.clone();
        for what in kinds().map(What::Kind).chain([What::Roots]) {
            self.watch((&client, &road), &name, 0, what);
        }
        self.watch_definitions(&client, &name, 0);
        let reached = self.reached.clone();
        let (cluster, asked) = (name, client.clone());
        tokio::spawn(async move {
            if let Some(uid) = reach(&asked, &road, |_| true).await {
                // Nobody hears it when the source ends.
                let _ = reached.send(Reached { cluster, turn: 0, outcome: Ok((asked, uid)) });
            }
        });
        self.clients.set(&self.options.management, Some(client.clone()));
        self.management = Some(client);
    }

    fn watch(&self, (client, road): (&Client, &Arc<Road>), cluster: &Name, turn: u64, what: What) -> AbortHandle {
        let watch = Watch {
            client: client.clone(),
            road: road.clone(),
            cluster: cluster.clone(),
            turn,
            what,
            admin_namespace: self.options.admin_namespace.clone(),
            keeps: self.keep.is_some(),
            observed: self.observed.clone(),
            out: self.out.clone(),
        };
        tokio::spawn(watch.run()).abort_handle()
    }

    fn watch_definitions(&self, client: &Client, cluster: &Name, turn: u64) -> AbortHandle {
        let (cluster, out) = (cluster.clone(), self.out.clone());
        let tell = move |defined| {
            let (cluster, heard) = (cluster.clone(), Heard::Defined(defined));
            out.send(Message { cluster, turn, what: What::Definitions, heard }).is_ok()
        };
        tokio::spawn(definitions::follow(client.clone(), tell)).abort_handle()
    }

    // Clusters

    /// Follows what is registered.
    fn register(&mut self) {
        let Some(client) = self.management.clone().filter(|_| self.held.is_managed()) else { return };
        let management = self.options.management.clone();
        let own = self.held.managed(Kind::KubernetesCluster).map(|object| &object.meta.id);
        let own = own.filter(|id| id.namespace == self.options.admin_namespace && id.name == management).cloned();
        let own = own.into_iter().next();
        self.held.add(&management, own);
        let registered = registrations(&self.held, &self.options.admin_namespace, &management);
        let gone: Vec<Name> = self.links.keys().filter(|name| !registered.contains_key(*name)).cloned().collect();
        for name in gone {
            self.links.remove(&name);
            self.unreached.remove(&name);
            self.clients.set(&name, None);
            self.held.remove(&name);
            self.earlier.remove(&name);
            self.observed.forget_cluster(&name);
            self.secrets.retain(|(cluster, _), task| {
                let stays = *cluster != name;
                if !stays {
                    task.abort();
                }
                stays
            });
        }
        for (name, registration) in registered {
            let was_connected = self.was_connected(&registration.id) || self.earlier.contains_key(&name);
            if !self.is_known && !registration.skips_warming && was_connected {
                self.held.wait_for(&name);
            }
            if self.links.get(&name).is_some_and(|link| link.registration == registration) {
                continue;
            }
            self.held.add(&name, Some(registration.id.clone()));
            let secret = registration.secret.clone();
            let is_watched = self.links.values().any(|link| link.registration.secret == secret);
            let kubeconfig = self.links.values().find(|link| link.registration.secret == secret);
            let kubeconfig = kubeconfig.and_then(|link| link.kubeconfig.clone());
            let before = self.links.remove(&name);
            let mut link = Link::new(registration);
            link.turn = before.as_ref().map_or(0, |before| before.turn + 1);
            link.uid = before.as_ref().and_then(|before| before.uid.clone());
            drop(before);
            self.links.insert(name.clone(), link);
            if is_watched && kubeconfig.is_some() {
                self.connect(&name, kubeconfig);
            } else if !self.secrets.contains_key(&(management.clone(), What::Credential(secret.clone()))) {
                let task = self.watch((&client, &self.road), &management, 0, What::Credential(secret.clone()));
                self.secrets.insert((management.clone(), What::Credential(secret)), task);
            }
        }
        let used: BTreeSet<Name> = self.links.values().map(|link| link.registration.secret.clone()).collect();
        self.secrets.retain(|(_, what), task| {
            let stays = !matches!(what, What::Credential(secret) if !used.contains(secret));
            if !stays {
                task.abort();
            }
            stays
        });
        self.is_known = true;
    }

    /// Whether a cluster took part in an earlier run, as its status says.
    ///
    /// # Rule
    /// R10.
    fn was_connected(&self, registration: &crate::model::ObjectRef) -> bool {
        let Some(written) = self.observed.get(registration) else { return false };
        let conditions = written.status.get("conditions").and_then(serde_json::Value::as_array);
        conditions.into_iter().flatten().any(|condition| {
            condition["type"] == "Synced" && (condition["status"] == "True" || condition["reason"] == "Lost")
        })
    }

    fn hear_credential(&mut self, secret: &Name, heard: Heard) {
        let told: Option<Box<Told>> = match heard {
            Heard::Listed(told) => told.into_iter().next().map(Box::new),
            Heard::Put(told) => Some(told),
            Heard::Deleted(_) => None,
            Heard::Failed(trouble) => {
                for name in self.with_credential(secret) {
                    self.cannot_read(&name, secret, &trouble);
                }
                return;
            }
            Heard::Recovered | Heard::Defined(_) => return,
        };
        let kubeconfig = told.as_ref().and_then(|told| match &*told.object.spec() {
            Spec::Secret(secret) => access::kubeconfig_of(secret).cloned(),
            _ => None,
        });
        for name in self.with_credential(secret) {
            let Some(link) = self.links.get_mut(&name) else { continue };
            let is_same = link.is_looked_for && link.kubeconfig == kubeconfig && kubeconfig.is_some();
            link.is_looked_for = true;
            if is_same {
                continue;
            }
            if kubeconfig.is_some() {
                self.connect(&name, kubeconfig.clone());
                continue;
            }
            link.end();
            link.kubeconfig = None;
            self.clients.set(&name, None);
            let namespace = &self.options.admin_namespace;
            let message = if told.is_some() {
                format!(
                    "the Secret `{namespace}/{secret}` has no entry `kubeconfig`: put the kubeconfig of the cluster there; \
                     until then nothing is read from it"
                )
            } else {
                format!(
                    "there is no Secret `{namespace}/{secret}` with the kubeconfig of this cluster: create it, with the \
                     kubeconfig under the key `kubeconfig`; until then nothing is read from it"
                )
            };
            self.cannot(&name, Code::ClusterCredential, &message);
        }
    }

    fn with_credential(&self, secret: &Name) -> Vec<Name> {
        let links = self.links.iter().filter(|(_, link)| link.registration.secret == *secret);
        links.map(|(name, _)| name.clone()).collect()
    }

    fn cannot_read(&mut self, name: &Name, secret: &Name, trouble: &Trouble) {
        let words = match trouble {
            Trouble::NotServed => "the API server serves no Secrets".to_owned(),
            Trouble::Refused(words) | Trouble::Unreachable(words) => words.clone(),
        };
        // While the management cluster is away, that is told of itself.
        if !matches!(trouble, Trouble::Unreachable(_)) {
            let message = format!("its credential, the Secret `{secret}`, cannot be read: {words}");
            self.cannot(name, Code::ClusterCredential, &message);
        }
    }

    /// Says why a cluster is not reached.
    fn cannot(&mut self, name: &Name, code: Code, message: &str) {
        let Some(link) = self.links.get(name) else { return };
        let finding = match code {
            Code::ClusterUnreachable => Finding::warning(&link.registration.id, code, message),
            code => Finding::error(&link.registration.id, code, message),
        };
        if self.unreached.insert(name.clone(), message.to_owned()).as_deref() != Some(message) {
            tracing::warn!(cluster = %name, "not connected: {message}");
        }
        self.held.say(name, Some(finding));
    }

    /// Connects to a cluster by another credential than before. What the one before read stays.
    fn connect(&mut self, name: &Name, kubeconfig: Option<SecretBytes>) {
        let Some(link) = self.links.get_mut(name) else { return };
        self.clients.set(name, None);
        link.end();
        link.kubeconfig = kubeconfig.clone();
        link.is_looked_for = true;
        let Some(kubeconfig) = kubeconfig else { return };
        let (cluster, turn, reached) = (name.clone(), link.turn, self.reached.clone());
        let road = Arc::new(Road::new(self.pace.clone()));
        link.road = Some(road.clone());
        let connecting = async move {
            let tell = |outcome| reached.send(Reached { cluster: cluster.clone(), turn, outcome }).is_ok();
            let client = match access::remote(&kubeconfig).await.map(Client::try_from) {
                Ok(Ok(client)) => client,
                Ok(Err(_)) => {
                    tell(Err(Unreached::Unusable("holds certificates or keys that cannot be used".to_owned())));
                    return;
                }
                Err(reason) => {
                    tell(Err(Unreached::Unusable(reason)));
                    return;
                }
            };
            if let Some(uid) = reach(&client, &road, |trouble| tell(Err(Unreached::Trouble(trouble)))).await {
                tell(Ok((client, uid)));
            }
        };
        link.tasks.push(tokio::spawn(connecting).abort_handle());
    }

    fn reached(&mut self, name: &Name, turn: u64, outcome: Result<(Client, String), Unreached>) {
        if *name == self.options.management {
            self.uid = outcome.ok().map(|(_, uid)| uid);
            return;
        }
        let Some(link) = self.links.get(name).filter(|link| link.turn == turn) else { return };
        let secret = link.registration.secret.clone();
        let (client, uid) = match outcome {
            Ok(reached) => reached,
            Err(Unreached::Unusable(reason)) => {
                let message = format!("the Secret `{}/{secret}` {reason}", self.options.admin_namespace);
                self.cannot(name, Code::ClusterCredential, &message);
                return;
            }
            Err(Unreached::Trouble(Trouble::Unreachable(words))) => {
                let message = format!(
                    "its API server does not answer: {words}; look at the server, and at the address in the Secret `{secret}`"
                );
                self.cannot(name, Code::ClusterUnreachable, &message);
                return;
            }
            Err(Unreached::Trouble(trouble)) => {
                let words = match trouble {
                    Trouble::Refused(words) => words,
                    _ => "it serves no namespaces".to_owned(),
                };
                let message = format!(
                    "its API server refuses the credential in the Secret `{secret}`: {words}; write a valid one, it is taken up \
                     at once"
                );
                self.cannot(name, Code::ClusterCredential, &message);
                return;
            }
        };
        if let Some(other) = self.same(name, &uid) {
            let message = format!(
                "the kubeconfig in the Secret `{secret}` leads to the cluster that is `{other}` already: correct its address, \
                 or delete one of the two; nothing is read through it"
            );
            self.cannot(name, Code::ClusterCredential, &message);
            return;
        }
        let Some(link) = self.links.get_mut(name) else { return };
        if link.uid.as_ref().is_some_and(|before| *before != uid) {
            let message = format!(
                "the kubeconfig in the Secret `{secret}` leads to another cluster than before: correct it, or delete this \
                 KubernetesCluster and create it anew; what was read from the cluster before stays in force"
            );
            self.cannot(name, Code::ClusterCredential, &message);
            return;
        }
        tracing::info!(cluster = %name, "connected");
        link.uid = Some(uid);
        link.client = Some(client.clone());
        let Some(road) = link.road.clone() else { return };
        self.clients.set(name, Some(client.clone()));
        self.unreached.remove(name);
        self.held.say(name, None);
        let definitions = self.watch_definitions(&client, name, turn);
        let tasks = kinds().map(|kind| self.watch((&client, &road), name, turn, What::Kind(kind)));
        let tasks: Vec<AbortHandle> = tasks.chain([definitions]).collect();
        if let Some(link) = self.links.get_mut(name) {
            link.tasks.extend(tasks);
        }
        // Secrets are watched over the new connection.
        let stale: Vec<(Name, What)> = self.secrets.keys().filter(|(cluster, _)| cluster == name).cloned().collect();
        for key in stale {
            if let Some(task) = self.secrets.remove(&key) {
                task.abort();
            }
        }
        self.watch_secrets();
    }

    /// The other cluster that is the same.
    fn same(&self, name: &Name, uid: &str) -> Option<Name> {
        if self.uid.as_deref() == Some(uid) {
            return Some(self.options.management.clone());
        }
        let mut others = self.links.iter().filter(|(other, _)| *other != name);
        others.find(|(_, link)| link.uid.as_deref() == Some(uid)).map(|(other, _)| other.clone())
    }

    fn health(&self) -> BTreeMap<Name, Health> {
        let health = |name: &Name, is_connected| {
            let message = self.unreached.get(name).cloned().or_else(|| self.held.ailment(name)).unwrap_or_default();
            let is_synced = self.held.takes_part(name);
            Health { is_connected: is_connected && message.is_empty(), is_synced, message }
        };
        let own = (self.options.management.clone(), health(&self.options.management, true));
        let others = self.links.iter().map(|(name, link)| (name.clone(), health(name, link.client.is_some())));
        others.chain([own]).collect()
    }

    // Secrets

    /// Takes over which Secrets are asked for.
    fn ask(&mut self, wanted: BTreeSet<SecretQuery>) {
        let now = Instant::now();
        self.is_asked = true;
        self.wanted.retain(|query, _| wanted.contains(query));
        for query in wanted {
            self.wanted.entry(query).or_insert(now);
        }
        self.watch_secrets();
    }

    /// Watches the Secrets that are asked for, where they are, and no others.
    fn watch_secrets(&mut self) {
        let needed: BTreeSet<(Name, What)> = self.wanted.keys().flat_map(|query| self.places(query)).collect();
        let surplus: Vec<(Name, What)> = self
            .secrets
            .keys()
            .filter(|key| !matches!(key.1, What::Credential(_)) && !needed.contains(*key))
            .cloned()
            .collect();
        for key in surplus {
            if let Some(task) = self.secrets.remove(&key) {
                task.abort();
            }
            self.held.forget(&key.0, &key.1);
        }
        for (cluster, what) in needed {
            if self.secrets.contains_key(&(cluster.clone(), what.clone())) {
                continue;
            }
            if let Some((client, road, turn)) = self.client(&cluster) {
                let task = self.watch((&client, &road), &cluster, turn, what.clone());
                self.secrets.insert((cluster, what), task);
            }
        }
    }

    fn client(&self, cluster: &Name) -> Option<(Client, Arc<Road>, u64)> {
        if *cluster == self.options.management {
            return self.management.clone().map(|client| (client, self.road.clone(), 0));
        }
        let link = self.links.get(cluster)?;
        Some((link.client.clone()?, link.road.clone()?, link.turn))
    }

    /// The watches that answer a question.
    fn places(&self, query: &SecretQuery) -> Vec<(Name, What)> {
        match query {
            SecretQuery::One(id) => {
                vec![(id.cluster.clone(), What::Secret(id.namespace.clone(), id.name.clone()))]
            }
            SecretQuery::Labelled(labels) => {
                self.held.clusters().map(|cluster| (cluster.clone(), What::Secrets(labels.clone()))).collect()
            }
        }
    }

    fn is_answered(&self, query: &SecretQuery, asked: Instant) -> bool {
        asked.elapsed() >= ANSWER_WITHIN
            || self.places(query).iter().all(|(cluster, what)| {
                self.held.is_answered(cluster, what)
                    || (self.client(cluster).is_none() && self.held.recalled(cluster).is_none())
            })
    }

    /// When the next question counts as answered, or something is to be told.
    fn due(&self) -> Option<Instant> {
        let open = self.wanted.iter().filter(|(query, _)| !self.answered.contains(*query));
        let narrated = (!self.answered_at_all()).then(|| self.narrator.due(Instant::now()));
        let recalls = (!self.earlier.is_empty()).then_some([AWAITED, LISTED_WITHIN]).into_iter().flatten();
        let recalls = recalls.map(|after| self.begun + after).filter(|at| *at > self.looked);
        let answered = open.map(|(_, asked)| *asked + ANSWER_WITHIN);
        answered.chain(self.told_at).chain(narrated).chain(recalls).chain(self.keeps_at()).min()
    }
}

impl<T: FnMut(Given) -> bool> Hub<T> {
    /// Takes clusters as an earlier run kept them, where their API servers do not answer.
    ///
    /// # Rule
    /// R10, R11.
    fn recall(&mut self) {
        self.looked = Instant::now();
        if self.earlier.is_empty() || self.looked < self.begun + AWAITED {
            return;
        }
        let management = &self.options.management;
        let is_late = self.looked >= self.begun + LISTED_WITHIN;
        let away: Vec<Name> = self
            .earlier
            .keys()
            .filter(|name| {
                let is_without_credential = self.held.recalled(management).is_some()
                    && self.links.get(*name).is_some_and(|link| link.kubeconfig.is_none());
                let is_unreached = self.unreached.contains_key(*name) || is_without_credential;
                let is_away = self.held.is_away(name) || is_unreached;
                is_away && !self.held.takes_part(name) && (is_late || !self.held.has_begun(name))
            })
            .cloned()
            .collect();
        for name in away {
            let recalled = self.earlier.remove(&name).and_then(|kept| kept.recall(&name));
            let Some(recalled) = recalled else { continue };
            tracing::warn!(
                cluster = %name, objects = recalled.told.len(), at = %recalled.at,
                "its API server does not answer; its objects are those that were kept then, until it does"
            );
            if name == self.options.management {
                self.roots.recall(&recalled.roots);
            }
            self.held.recall(&name, recalled);
        }
        let held = &self.held;
        self.earlier.retain(|name, _| !held.takes_part(name));
    }

    /// When to keep what is read, where something is another than what is kept.
    fn keeps_at(&self) -> Option<Instant> {
        let is_answered = self.is_asked && self.answered.len() == self.wanted.len();
        if self.keep.is_none() || !self.answered_at_all() || !is_answered {
            return None;
        }
        let pause = KEPT_EVERY.max(KEPT_PER_OBJECT * u32::try_from(self.held.len()).unwrap_or(u32::MAX));
        match self.kept {
            Some((revision, _)) if revision == self.held.revision() => None,
            Some((_, at)) => Some(at + pause),
            None => Some(self.begun),
        }
    }

    /// Keeps what is read, if it is time.
    fn keep(&mut self, is_last: bool) {
        let now = Instant::now();
        if self.keeps_at().is_none_or(|at| at > now && !is_last) {
            return;
        }
        let Some(keep) = &mut self.keep else { return };
        self.kept = Some((self.held.revision(), now));
        let at = jiff::Timestamp::now();
        let clusters = self.held.clusters().filter_map(|name| {
            let roots = if *name == self.options.management { self.roots.objects() } else { Vec::new() };
            Some((name.to_string(), self.held.kept(name, at, &roots)?))
        });
        keep(Document { server: self.options.server.clone(), clusters: clusters.collect() });
    }

    /// Tells which clusters are not what they are at their API servers, and since when.
    fn tell_stale(&self, health: &BTreeMap<Name, Health>) {
        let ill = health.iter().filter(|(name, health)| health.is_synced && self.is_stale(name, health));
        let held = &self.held;
        let reason = |health: &'_ Health| match health.message.as_str() {
            "" => "it is being listed".to_owned(),
            message => message.to_owned(),
        };
        self.stale.set(ill.map(|(name, health)| (name, held.recalled(name), reason(health))));
    }

    fn is_stale(&self, name: &Name, health: &Health) -> bool {
        !health.message.is_empty() || self.held.recalled(name).is_some()
    }
}

/// Asks a cluster until it says what makes it itself; nothing where nobody wants to know any more, which `fails` tells of each
/// failure.
async fn reach(client: &Client, road: &Road, mut fails: impl FnMut(Trouble) -> bool) -> Option<String> {
    let mut scout = None;
    loop {
        match uid_of(client).await {
            Ok(uid) => {
                road.is_open(scout);
                return Some(uid);
            }
            Err(trouble) => {
                if !fails(trouble) {
                    return None;
                }
                drop(scout);
                scout = road.wait().await;
            }
        }
    }
}

/// What makes a cluster itself.
async fn uid_of(client: &Client) -> Result<String, Trouble> {
    let namespaces: Api<DynamicObject> = Api::all_with(client.clone(), &resource(Kind::Namespace));
    let only = ListParams::default().fields(&format!("metadata.name={SYSTEM}")).limit(1);
    let listed = namespaces.list(&only).await.map_err(|error| trouble(&error))?;
    let uid = listed.items.into_iter().next().and_then(|namespace| namespace.metadata.uid);
    uid.ok_or_else(|| Trouble::Unreachable(format!("it has no namespace `{SYSTEM}` yet")))
}
