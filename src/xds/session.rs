//! One stream as a state machine: a request, a snapshot or a tick goes in; responses and reports come out.
//!
//! Pure: no clock, no channel, no gRPC. Times are durations since the stream began and come in as arguments. Both variants
//! of the protocol are fronts to the same lanes, so both have the same order between types, and one response in flight
//! per type.
//!
//! The order between types holds on ADS only. A stream of a service for one type knows nothing of what the client does on
//! its other streams, so it waits for nobody.
//!
//! # Rule
//! xDS protocol, "Incremental xDS" and "State of the world"; `reliability.md` sections 1 to 3.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::commons::Commons;
use super::inspection::ResourceState;
use super::lane::{Answer, Lane, Permission, Turn};
use super::message::{DeltaRequest, RequestError, Response, StateRequest, Variant};
use super::observation::{Acknowledgement, Ignored, IgnoredReason, Refusal, truncated};
use super::ordering::{Board, Standing, Timeouts};
use super::subscription::Limits;
use crate::model::Name;
use crate::snapshot::diff::endpoints_of;
use crate::snapshot::{Resource, ResourceType, Resources, Snapshot};

/// Requests of unknown types that are reported per stream; a client that sends more of them is no news.
const UNKNOWN_TYPES_REPORTED: usize = 8;

/// Bytes of a client's type URL that are kept.
const TYPE_URL_BYTES: usize = 256;

/// What comes out of a session, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// To be sent to the client.
    Respond(Response),
    /// The client holds something new.
    Acknowledged(Acknowledgement),
    /// The client refused something.
    Refused(Refusal),
    /// The client sent something without effect.
    Ignored(Ignored),
    /// The client has asked for other types for this long, and not for clusters. Said once.
    Stuck(Duration),
}

/// How a session behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionSettings {
    /// What one client may make us remember.
    pub limits: Limits,
    /// How long types wait for each other.
    pub timeouts: Timeouts,
    /// Bytes that a response stays below where its resources allow it. gRPC clients refuse messages above 4 MiB unless
    /// told otherwise (Envoy doesn't).
    pub response_bytes: usize,
    /// How long a client of ADS may ask for other types without asking for clusters, before that is reported; none for
    /// clients that may never need clusters. Above the 15 s for which Envoy says nothing about clusters that are warming.
    pub stuck_after: Option<Duration>,
}

impl Default for SessionSettings {
    /// The defaults of [`Limits`] and [`Timeouts`], 1 KiB less than 4 MiB, and 60 s.
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            timeouts: Timeouts::default(),
            response_bytes: (4 << 20) - (1 << 10),
            stuck_after: Some(Duration::from_secs(60)),
        }
    }
}

/// One stream.
#[derive(Debug)]
pub struct Session {
    settings: SessionSettings,
    commons: Commons,
    /// The one type that the stream is for; none on ADS.
    only: Option<ResourceType>,
    lanes: Lanes,
    snapshot: Option<Arc<Snapshot>>,
    /// Where a response carries all clusters: the endpoints that went with the last, until that is acknowledged. A cluster that
    /// is gone by then is carried on in the version that the client took before, which waits for endpoints again.
    endpoints_sent: BTreeMap<Name, Arc<Resource>>,
    nonces: u64,
    /// Until when the client may mention further types.
    opens_until: Duration,
    /// Until when the client may ask for what its newest listeners name.
    settles_at: Duration,
    unknown_types: usize,
    /// Since when the client is known to ask for clusters later.
    clusters_held_back: Option<Duration>,
    /// Since when the client asks for other types but not for clusters, until that is reported.
    without_clusters: WithoutClusters,
}

/// The types of one stream. Most clients never mention some of them, and a thousand clients are a thousand times nothing then.
#[derive(Debug)]
struct Lanes {
    variant: Variant,
    /// The number of the snapshot of now.
    serial: u64,
    /// Those that were mentioned, in the order of the types.
    begun: [Option<Box<Lane>>; ResourceType::ALL.len()],
}

impl Lanes {
    fn get(&self, resource_type: ResourceType) -> Option<&Lane> {
        self.begun[resource_type as usize].as_deref()
    }

    /// Whether the client has asked for nothing of a type.
    fn is_unopened(&self, resource_type: ResourceType) -> bool {
        self.get(resource_type).is_none_or(|lane| lane.standing().unopened)
    }

    /// A type that is mentioned, in the state of the snapshot of now.
    fn begin(&mut self, resource_type: ResourceType, snapshot: Option<&Arc<Snapshot>>, commons: &Commons) -> &mut Lane {
        let serial = self.serial;
        self.begun[resource_type as usize].get_or_insert_with(|| {
            let mut lane = Box::new(Lane::new(resource_type, self.variant));
            if let Some(snapshot) = snapshot {
                lane.update(snapshot.resources(resource_type), serial, commons);
            }
            lane
        })
    }

    /// Those that were mentioned.
    fn begun(&mut self) -> impl Iterator<Item = (ResourceType, &mut Lane)> {
        let all = ResourceType::ALL.into_iter().zip(&mut self.begun);
        all.filter_map(|(resource_type, lane)| Some((resource_type, lane.as_deref_mut()?)))
    }
}

/// Whether a client asks for other types but not for clusters.
#[derive(Clone, Copy, Debug)]
enum WithoutClusters {
    /// It asked for nothing yet.
    Silent,
    /// Since then.
    Since(Duration),
    /// It asked for clusters, or that it doesn't was reported.
    Settled,
}

impl Session {
    /// An ADS stream on which nothing was said yet.
    #[must_use]
    pub fn new(settings: SessionSettings, variant: Variant) -> Self {
        let settle = settings.timeouts.settle;
        Self {
            settings,
            commons: Commons::default(),
            only: None,
            lanes: Lanes { variant, serial: 0, begun: Default::default() },
            snapshot: None,
            endpoints_sent: BTreeMap::new(),
            nonces: 0,
            opens_until: settle,
            settles_at: settle,
            unknown_types: 0,
            clusters_held_back: None,
            without_clusters: WithoutClusters::Silent,
        }
    }

    /// A stream of a service that serves one type, on which nothing was said yet.
    #[must_use]
    pub fn of_one_type(settings: SessionSettings, variant: Variant, only: ResourceType) -> Self {
        let (opens_until, settles_at) = (Duration::ZERO, Duration::ZERO);
        Self { only: Some(only), opens_until, settles_at, ..Self::new(settings, variant) }
    }

    /// The same, sharing with other streams what is worked out once for all.
    #[must_use]
    pub(super) fn sharing(self, commons: Commons) -> Self {
        Self { commons, ..self }
    }

    /// What is shared, and what the client would hold of the type of a request if it held everything.
    pub(super) fn known(&self, type_url: &str) -> (&Commons, Option<Arc<Resources>>) {
        let asked = if type_url.is_empty() { self.only } else { ResourceType::from_url(type_url) };
        (&self.commons, asked.zip(self.snapshot.as_ref()).map(|(of, snapshot)| snapshot.resources(of)))
    }

    /// Takes in a delta request.
    ///
    /// Its answer to a response counts first, then its subscriptions; these count even if the answer is stale or a
    /// refusal.
    ///
    /// # Errors
    /// [`RequestError`]: the stream must end.
    pub fn request(&mut self, now: Duration, request: &DeltaRequest) -> Result<Vec<Output>, RequestError> {
        let mut outputs = Vec::new();
        let Some(resource_type) = self.type_of(&request.type_url, &mut outputs)? else { return Ok(outputs) };
        let lane = self.lanes.begin(resource_type, self.snapshot.as_ref(), &self.commons);
        let answer = if request.nonce.is_empty() {
            None
        } else {
            Some(lane.answer(&request.nonce, request.error.as_deref(), now))
        };
        let first = lane.standing().unopened;
        lane.subscribe(request, &self.settings.limits, &self.commons)?;
        if first && self.waits_for_endpoints(resource_type, request) {
            self.lanes.begin(resource_type, self.snapshot.as_ref(), &self.commons).distrust();
            self.clusters_held_back = Some(now);
        }
        if request.nonce.is_empty() && request.error.is_some() {
            outputs.push(ignored(&request.type_url, IgnoredReason::ErrorWithoutNonce));
        }
        self.take_answer(now, resource_type, answer, &mut outputs);
        self.advance(now, &mut outputs);
        Ok(outputs)
    }

    /// Whether a first request of a type comes from a client in the middle of taking clusters in.
    ///
    /// Envoy asks for clusters first when it connects again, unless one of them is warming: then it asks for clusters
    /// only when that has its endpoints, or after 15 s. The endpoints that it states are those of the cluster before,
    /// and the new one waits for them to be sent, or to be told that there are none; listeners and routes wait for the request that follows. Seen on Envoy
    /// 1.40.
    ///
    /// # Rule
    /// `reliability.md` case 24.
    fn waits_for_endpoints(&self, resource_type: ResourceType, request: &DeltaRequest) -> bool {
        let is_first = self.only.is_none() && self.lanes.is_unopened(ResourceType::Cluster);
        let asks = !request.subscribe.is_empty() || request.recognised.names.is_some();
        resource_type == ResourceType::Endpoint && is_first && asks
    }

    /// Takes in a state-of-the-world request.
    ///
    /// One with a nonce that is not that of the last response has no effect: the client wrote it before it saw that
    /// response, and its answer to that will state its newest names.
    ///
    /// # Errors
    /// [`RequestError`]: the stream must end.
    pub fn request_state(&mut self, now: Duration, request: &StateRequest) -> Result<Vec<Output>, RequestError> {
        let mut outputs = Vec::new();
        let Some(resource_type) = self.type_of(&request.type_url, &mut outputs)? else { return Ok(outputs) };
        let lane = self.lanes.begin(resource_type, self.snapshot.as_ref(), &self.commons);
        let answer = match lane.turn(request, now) {
            Turn::Current(answer) => answer,
            Turn::Foreign => Some(Answer::Stale),
            Turn::Outdated => {
                outputs.push(ignored(&request.type_url, IgnoredReason::StaleNonce));
                return Ok(outputs);
            }
        };
        lane.replace_interest(request, &self.settings.limits, &self.commons)?;
        if request.nonce.is_empty() && request.error.is_some() {
            outputs.push(ignored(&request.type_url, IgnoredReason::ErrorWithoutNonce));
        }
        self.take_answer(now, resource_type, answer, &mut outputs);
        self.advance(now, &mut outputs);
        Ok(outputs)
    }

    /// The type that a request is about; none if it is unknown here.
    ///
    /// ADS has no reply to an unknown type, with either variant; a service for one type refuses every other.
    ///
    /// # Rule
    /// `reliability.md` case 40.
    fn type_of(&mut self, url: &str, outputs: &mut Vec<Output>) -> Result<Option<ResourceType>, RequestError> {
        let asked = ResourceType::from_url(url);
        if let Some(only) = self.only {
            // Who asks a service for one type needn't say which.
            return match asked {
                _ if url.is_empty() => Ok(Some(only)),
                Some(asked) if asked == only => Ok(Some(only)),
                _ => Err(RequestError::Type { served: only.type_url(), asked: truncated(url, TYPE_URL_BYTES) }),
            };
        }
        if asked.is_none() && self.unknown_types < UNKNOWN_TYPES_REPORTED {
            self.unknown_types += 1;
            outputs.push(ignored(url, IgnoredReason::UnknownType));
        }
        Ok(asked)
    }

    fn take_answer(
        &mut self,
        now: Duration,
        resource_type: ResourceType,
        answer: Option<Answer>,
        outputs: &mut Vec<Output>,
    ) {
        match answer {
            Some(Answer::Stale) => outputs.push(ignored(resource_type.type_url(), IgnoredReason::StaleNonce)),
            Some(Answer::Refused(refusals)) => outputs.extend(refusals.into_iter().map(Output::Refused)),
            // A new listener makes Envoy ask for its routes.
            Some(Answer::Acknowledged) if resource_type == ResourceType::Listener && self.only.is_none() => {
                self.settles_at = now + self.settings.timeouts.settle;
            }
            Some(Answer::Acknowledged) if resource_type == ResourceType::Cluster => self.endpoints_sent.clear(),
            Some(Answer::Acknowledged) | None => {}
        }
    }

    /// Takes in a new snapshot; the one before, as far as it wasn't sent, is forgotten.
    #[must_use]
    pub fn snapshot(&mut self, now: Duration, snapshot: Arc<Snapshot>) -> Vec<Output> {
        self.lanes.serial += 1;
        let serial = self.lanes.serial;
        for (resource_type, lane) in self.lanes.begun() {
            lane.update(snapshot.resources(resource_type), serial, &self.commons);
        }
        self.snapshot = Some(snapshot);
        let mut outputs = Vec::new();
        self.advance(now, &mut outputs);
        outputs
    }

    /// Lets time pass; needed only at [`next_deadline`](Self::next_deadline).
    #[must_use]
    pub fn tick(&mut self, now: Duration) -> Vec<Output> {
        let mut outputs = Vec::new();
        self.advance(now, &mut outputs);
        outputs
    }

    /// When waiting alone may allow something to be sent; none if only the client or a snapshot can.
    #[must_use]
    pub fn next_deadline(&self, now: Duration) -> Option<Duration> {
        let to_send = self.board(now).next_deadline(&self.settings.timeouts);
        to_send.into_iter().chain(self.stuck_at().filter(|at| *at > now)).min()
    }

    /// How each resource stands that the client asked for, or holds.
    ///
    /// # Cost
    /// A few lookups per resource.
    #[must_use]
    pub fn inspect(&self) -> Vec<ResourceState> {
        self.lanes.begun.iter().flatten().flat_map(|lane| lane.inspect()).collect()
    }

    /// When it is to be reported that the client doesn't ask for clusters.
    fn stuck_at(&self) -> Option<Duration> {
        match (self.without_clusters, self.settings.stuck_after) {
            (WithoutClusters::Since(since), Some(patience)) => Some(since + patience),
            _ => None,
        }
    }

    /// Notes whether the client asks for clusters.
    ///
    /// # Rule
    /// `reliability.md` case 27.
    fn watch_clusters(&mut self, now: Duration, outputs: &mut Vec<Output>) {
        let opened = |resource_type: ResourceType| !self.lanes.is_unopened(resource_type);
        match self.without_clusters {
            WithoutClusters::Settled => {}
            _ if self.only.is_some() || opened(ResourceType::Cluster) => {
                self.without_clusters = WithoutClusters::Settled;
            }
            WithoutClusters::Silent if ResourceType::ALL.into_iter().any(opened) => {
                self.without_clusters = WithoutClusters::Since(now);
            }
            WithoutClusters::Since(since) if self.stuck_at().is_some_and(|at| now >= at) => {
                self.without_clusters = WithoutClusters::Settled;
                outputs.push(Output::Stuck(now.saturating_sub(since)));
            }
            WithoutClusters::Silent | WithoutClusters::Since(_) => {}
        }
    }

    /// Sends whatever may be sent.
    fn advance(&mut self, now: Duration, outputs: &mut Vec<Output>) {
        self.watch_clusters(now, outputs);
        if self.snapshot.is_none() {
            return;
        }
        for (resource_type, lane) in self.lanes.begun() {
            // What endpoints must be sent depends on the clusters that are; nothing before them waits for them.
            if resource_type != ResourceType::Endpoint {
                lane.refresh();
            }
        }
        for resource_type in ResourceType::ALL {
            let Some(lane) = self.lanes.begun[resource_type as usize].as_deref_mut() else { continue };
            lane.refresh();
            outputs.extend(lane.report().map(Output::Acknowledged));
            if lane.has_nothing_to_send() {
                continue;
            }
            let board = self.board(now);
            let permission = Permission {
                add: board.may_add(resource_type, &self.settings.timeouts),
                remove: board.may_remove(resource_type, &self.settings.timeouts),
                clung_to: board.is_clung_to(resource_type),
                in_force: if resource_type == ResourceType::Endpoint { self.in_force(&board) } else { u64::MAX },
                nonce: self.nonces + 1,
                response_bytes: self.settings.response_bytes,
            };
            let Some(clusters) = self.lanes.begun[resource_type as usize].as_deref_mut() else { continue };
            let Some(response) = clusters.send(now, permission) else { continue };
            self.nonces += 1;
            if resource_type == ResourceType::Cluster {
                // A cluster that the client may not hold has its endpoints sent with it.
                let required: Vec<Name> = clusters.unacknowledged().iter().map(|c| endpoints_of(c)).collect();
                let may_come_again = clusters.carries_all();
                let endpoints = self.lanes.begin(ResourceType::Endpoint, self.snapshot.as_ref(), &self.commons);
                let before = std::mem::take(&mut self.endpoints_sent);
                for name in required {
                    let answer = endpoints.require(&name, before.get(&name)).filter(|_| may_come_again);
                    self.endpoints_sent.extend(answer.map(|answer| (name, answer)));
                }
                response.removed.iter().for_each(|name| endpoints.release(name));
            }
            outputs.push(Output::Respond(response));
        }
    }

    /// The number of the newest snapshot of which the client has all that may protect endpoints, or that first endpoints have
    /// waited for as long as anything does.
    fn in_force(&self, board: &Board) -> u64 {
        use ResourceType::{Cluster, Endpoint, Extension, Listener, Route, ScopedRoute};
        if self.only.is_some() || board.is_overdue(Endpoint, &self.settings.timeouts) {
            return u64::MAX;
        }
        let whole = [Cluster, Listener, Extension, ScopedRoute, Route].map(|of| match self.lanes.get(of) {
            Some(lane) if !lane.standing().unopened => lane.whole(),
            // It may hold some from the stream before, and will say so.
            _ if self.unmentioned(of).expecting && board.now < self.opens_until => 0,
            _ => u64::MAX,
        });
        whole.into_iter().min().unwrap_or(u64::MAX)
    }

    /// How a type stands that the client has not mentioned.
    fn unmentioned(&self, resource_type: ResourceType) -> Standing {
        let snapshot = self.snapshot.as_ref();
        let expecting = snapshot.is_some_and(|snapshot| !snapshot.resources(resource_type).is_empty());
        Standing { unopened: true, expecting, ..Standing::default() }
    }

    fn board(&self, now: Duration) -> Board {
        let mut standings: [Standing; ResourceType::ALL.len()] =
            ResourceType::ALL.map(|of| self.lanes.get(of).map_or_else(|| self.unmentioned(of), Lane::standing));
        let clusters = &mut standings[ResourceType::Cluster as usize];
        clusters.held_back_since = self.clusters_held_back.filter(|_| clusters.unopened);
        Board { standings, opens_until: self.opens_until, settles_at: self.settles_at, now }
    }
}

fn ignored(type_url: &str, reason: IgnoredReason) -> Output {
    Output::Ignored(Ignored { type_url: truncated(type_url, TYPE_URL_BYTES), reason })
}

#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod transcript_tests;
