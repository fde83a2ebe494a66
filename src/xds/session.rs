//! One stream as a state machine: a request, a snapshot or a tick goes in; responses and reports come out.
//!
//! Pure: no clock, no channel, no gRPC. Times are durations since the stream began and come in as arguments. Delta
//! only; state-of-the-world will be a second front to the same lanes.
//!
//! # Rule
//! xDS protocol, "Incremental xDS"; `reliability.md` sections 1 to 3.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::lane::{Answer, Lane, Permission};
use super::observation::{Acknowledgement, Ignored, IgnoredReason, Refusal, truncated};
use super::ordering::{Board, Timeouts};
use super::subscription::{LimitExceeded, Limits};
use crate::model::Name;
use crate::snapshot::diff::endpoints_of;
use crate::snapshot::{Resource, ResourceType, Snapshot, Version};

/// Requests of unknown types that are reported per stream; a client that sends more of them is no news.
const UNKNOWN_TYPES_REPORTED: usize = 8;

/// Bytes of a client's type URL that are kept.
const TYPE_URL_BYTES: usize = 256;

/// What a delta request says, apart from the node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeltaRequest {
    /// The type, as the client wrote it.
    pub type_url: String,
    /// Names to subscribe to.
    pub subscribe: Vec<Name>,
    /// Names to unsubscribe from.
    pub unsubscribe: Vec<Name>,
    /// What the client holds when it connects again, by name.
    pub initial_versions: BTreeMap<Name, String>,
    /// The nonce of the response that this answers; empty if it answers none.
    pub nonce: String,
    /// Why the client refuses that response.
    pub error: Option<String>,
}

/// A delta response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeltaResponse {
    /// The type.
    pub resource_type: ResourceType,
    /// Unique within the stream.
    pub nonce: Name,
    /// Version of the type in the snapshot; for people, the protocol doesn't use it.
    pub version: Version,
    /// Resources to add or replace.
    pub resources: Vec<Arc<Resource>>,
    /// Names to drop, and names that were asked for and don't exist.
    pub removed: Vec<Name>,
}

/// What comes out of a session, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// To be sent to the client.
    Respond(DeltaResponse),
    /// The client holds something new.
    Acknowledged(Acknowledgement),
    /// The client refused something.
    Refused(Refusal),
    /// The client sent something without effect.
    Ignored(Ignored),
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
}

impl Default for SessionSettings {
    /// The defaults of [`Limits`] and [`Timeouts`], and 1 KiB less than 4 MiB.
    fn default() -> Self {
        Self { limits: Limits::default(), timeouts: Timeouts::default(), response_bytes: (4 << 20) - (1 << 10) }
    }
}

/// One delta stream.
#[derive(Debug)]
pub struct Session {
    settings: SessionSettings,
    lanes: [Lane; ResourceType::ALL.len()],
    snapshot: Option<Arc<Snapshot>>,
    nonces: u64,
    /// Until when the client may ask for what its newest listeners name.
    settles_at: Duration,
    unknown_types: usize,
}

impl Session {
    /// A stream on which nothing was said yet.
    #[must_use]
    pub fn new(settings: SessionSettings) -> Self {
        let lanes = ResourceType::ALL.map(Lane::new);
        let settles_at = settings.timeouts.settle;
        Self { settings, lanes, snapshot: None, nonces: 0, settles_at, unknown_types: 0 }
    }

    /// Takes in a request.
    ///
    /// Its answer to a response counts first, then its subscriptions; these count even if the answer is stale or a
    /// refusal.
    ///
    /// # Errors
    /// [`LimitExceeded`]: the stream must end.
    pub fn request(&mut self, now: Duration, request: &DeltaRequest) -> Result<Vec<Output>, LimitExceeded> {
        let mut outputs = Vec::new();
        let ignored =
            |reason| Output::Ignored(Ignored { type_url: truncated(&request.type_url, TYPE_URL_BYTES), reason });
        let Some(resource_type) = ResourceType::from_url(&request.type_url) else {
            if self.unknown_types < UNKNOWN_TYPES_REPORTED {
                self.unknown_types += 1;
                outputs.push(ignored(IgnoredReason::UnknownType));
            }
            return Ok(outputs);
        };
        let lane = &mut self.lanes[resource_type as usize];
        if request.nonce.is_empty() {
            if request.error.is_some() {
                outputs.push(ignored(IgnoredReason::ErrorWithoutNonce));
            }
        } else {
            match lane.answer(&request.nonce, request.error.as_deref(), now) {
                Answer::Stale => outputs.push(ignored(IgnoredReason::StaleNonce)),
                Answer::Refused(refusal) => outputs.extend(refusal.map(Output::Refused)),
                // A new listener makes Envoy ask for its routes.
                Answer::Acknowledged if resource_type == ResourceType::Listener => {
                    self.settles_at = now + self.settings.timeouts.settle;
                }
                Answer::Acknowledged => {}
            }
        }
        lane.subscribe(request, &self.settings.limits)?;
        self.advance(now, &mut outputs);
        Ok(outputs)
    }

    /// Takes in a new snapshot; the one before, as far as it wasn't sent, is forgotten.
    #[must_use]
    pub fn snapshot(&mut self, now: Duration, snapshot: Arc<Snapshot>) -> Vec<Output> {
        for (lane, resource_type) in self.lanes.iter_mut().zip(ResourceType::ALL) {
            lane.update(snapshot.resources(resource_type), || snapshot.type_version(resource_type));
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
        self.board(now).next_deadline(&self.settings.timeouts)
    }

    /// Sends whatever may be sent.
    fn advance(&mut self, now: Duration, outputs: &mut Vec<Output>) {
        if self.snapshot.is_none() {
            return;
        }
        for (lane, resource_type) in self.lanes.iter_mut().zip(ResourceType::ALL) {
            // What endpoints must be sent depends on the clusters that are; nothing before them waits for them.
            if resource_type != ResourceType::Endpoint {
                lane.refresh();
            }
        }
        for resource_type in ResourceType::ALL {
            let lane = &mut self.lanes[resource_type as usize];
            lane.refresh();
            outputs.extend(lane.report().map(Output::Acknowledged));
            let board = self.board(now);
            let permission = Permission {
                add: board.may_add(resource_type, &self.settings.timeouts),
                remove: board.may_remove(resource_type, &self.settings.timeouts),
                clung_to: board.is_clung_to(resource_type),
                nonce: (self.nonces + 1).to_string().into(),
                response_bytes: self.settings.response_bytes,
            };
            let Some(response) = self.lanes[resource_type as usize].send(now, permission) else { continue };
            self.nonces += 1;
            if resource_type == ResourceType::Cluster {
                // A cluster that is sent has its endpoints sent with it.
                let endpoints = &mut self.lanes[ResourceType::Endpoint as usize];
                response.resources.iter().for_each(|cluster| endpoints.require(&endpoints_of(cluster)));
            }
            outputs.push(Output::Respond(response));
        }
    }

    fn board(&self, now: Duration) -> Board {
        Board {
            standings: std::array::from_fn(|position| self.lanes[position].standing()),
            opens_until: self.settings.timeouts.settle,
            settles_at: self.settles_at,
            now,
        }
    }
}

#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod transcript_tests;
