//! One stream's task: moves messages between a client, a [`Session`] and a source of snapshots. It owns no rule.
//!
//! A client that doesn't read holds at most one response per type, as shared resources; a response is written only as
//! far as there is room for it.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tonic::Status;

use super::caller::Caller;
use super::commons::Commons;
use super::credentials::Admitted;
use super::grpc::{Outbound, Requests};
use super::inspection::Sessions;
use super::message::{RequestError, Response};
use super::node::{Node, NodeError};
use super::observation::{Blame, IgnoredReason, Observation, Observer, Peer, Reason, Sending, StreamId};
use super::server::ServerSettings;
use super::session::{Output, Session, SessionSettings};
use super::source::{SnapshotSource, Subscription};
use super::spread;
use super::turnstile::Turnstile;
use super::wire::{Fault, Message, Protocol};
use crate::snapshot::ResourceType;

/// One stream.
#[derive(Debug)]
pub(super) struct Stream<S, O: Observer> {
    pub(super) id: StreamId,
    /// The one type that its service serves; none on ADS.
    pub(super) only: Option<ResourceType>,
    /// Who opened it.
    pub(super) admitted: Admitted,
    pub(super) peer: Option<SocketAddr>,
    pub(super) source: Arc<S>,
    pub(super) observer: Arc<O>,
    pub(super) turnstile: Arc<Turnstile<O>>,
    pub(super) sessions: Sessions,
    pub(super) settings: Arc<ServerSettings>,
    pub(super) commons: Commons,
    /// When the server stops: the number of streams that were open then.
    pub(super) closing: watch::Receiver<Option<usize>>,
}

/// How a stream ended without an error.
enum End {
    /// The client has gone.
    Client,
}

/// A client that was matched to a gateway. Dropping it is how it ends, whatever the reason.
struct Connection<O: Observer> {
    observer: Arc<O>,
    peer: Arc<Peer>,
}

impl<S: SnapshotSource, O: Observer> Stream<S, O> {
    /// Serves the stream to its end.
    pub(super) async fn run<P: Protocol>(mut self, mut inbound: Requests, outbound: Outbound) {
        let mut admitted = std::mem::replace(&mut self.admitted, Admitted::anybody());
        let caller = admitted.caller.clone();
        let served = tokio::select! {
            served = self.serve::<P>(&caller, &mut inbound, &outbound) => served,
            () = admitted.revoked() => Err(Status::unauthenticated("the token is not accepted any more")),
        };
        if let Err(status) = served {
            tracing::debug!(stream = self.id.0, code = ?status.code(), reason = ?status.message(), "stream refused");
            // A client that doesn't read doesn't hear the last word either.
            if tokio::time::timeout(self.settings.drain, outbound.room()).await.is_ok() {
                outbound.give(Err(Box::new(status)));
            }
        }
    }

    async fn serve<P: Protocol>(
        &mut self,
        caller: &Caller,
        inbound: &mut Requests,
        outbound: &Outbound,
    ) -> Result<End, Status> {
        let first = tokio::select! {
            _ = closed(&mut self.closing) => return Err(stopping()),
            message = tokio::time::timeout(self.settings.first_message, inbound.next()) => message,
        };
        let first = first.map_err(|_| Status::deadline_exceeded("the stream began without a message"))?;
        let Some(first) = first? else { return Ok(End::Client) };
        let mut request = P::read(&first).map_err(|fault| refused(&fault))?;
        let node = Arc::new(Node::decode(request.node.take()).map_err(|error| self.turned_away(&error))?);
        let subscription = tokio::select! {
            _ = closed(&mut self.closing) => return Err(stopping()),
            () = outbound.closed() => return Ok(End::Client),
            subscription = self.source.subscribe(&node, caller) => subscription,
        };
        let Subscription { gateway, snapshots, held } = subscription.map_err(|error| self.turned_away(&error))?;
        let peer = Arc::new(Peer { stream: self.id, gateway, node });
        let registration = self.sessions.register(peer.clone(), P::VARIANT, self.only);
        let connection = Connection::open(self.observer.clone(), peer, caller);
        // Dropped before the connection: who hears of its end finds that nobody watches any more.
        let (mut snapshots, _held) = (snapshots, held);
        tracing::debug!(stream = self.id.0, variant = ?P::VARIANT, only = ?self.only, "what the stream is for");

        let begin = Instant::now();
        let mut is_stopping = false;
        let settings = SessionSettings {
            // Others may never need clusters.
            stuck_after: self.settings.session.stuck_after.filter(|_| connection.peer.node.version.is_some()),
            ..self.settings.session
        };
        let session = match self.only {
            None => Session::new(settings, P::VARIANT),
            Some(only) => Session::of_one_type(settings, P::VARIANT, only),
        };
        let mut session = Box::new(session.sharing(self.commons.clone()));
        let mut outbox: VecDeque<Response> = VecDeque::new();
        let published = snapshots.borrow_and_update().clone();
        if let Some(snapshot) = published {
            connection.take(session.snapshot(Duration::ZERO, snapshot), &mut outbox);
        }
        let outputs = P::tell(&mut session, begin.elapsed(), request);
        connection.take(outputs.map_err(|fault| refused(&fault))?, &mut outbox);
        drop(first);
        let expiry = tokio::time::sleep_until(begin + spread::age(self.id, self.settings.stream_age));
        tokio::pin!(expiry);
        loop {
            while outbound.has_room()
                && let Some(response) = outbox.pop_front()
            {
                outbound.give(Ok(Box::new(Message::of(P::VARIANT, response)?)));
            }
            let deadline = session.next_deadline(begin.elapsed());
            tokio::select! {
                open = closed(&mut self.closing), if !is_stopping => {
                    is_stopping = true;
                    let end = Instant::now() + spread::drain(self.id, open, self.settings.drain);
                    let end = end.min(expiry.deadline());
                    expiry.as_mut().reset(end);
                }
                () = &mut expiry => return Err(if is_stopping { stopping() } else { aged() }),
                () = outbound.closed() => return Ok(End::Client),
                questions = registration.questions() => {
                    for question in questions {
                        // Who asked may have gone.
                        let _ = question.send(session.inspect());
                    }
                }
                // Room is used above, as soon as there is some.
                has_room = outbound.room(), if !outbox.is_empty() => {
                    if !has_room {
                        return Ok(End::Client);
                    }
                }
                message = inbound.next() => match message? {
                    Some(message) => {
                        let request = P::read(&message).map_err(|fault| refused(&fault))?;
                        connection.peer.node.confirm(request.node.as_ref()).map_err(|error| self.turned_away(&error))?;
                        let outputs = P::tell(&mut session, begin.elapsed(), request);
                        connection.take(outputs.map_err(|fault| refused(&fault))?, &mut outbox);
                    }
                    None => return Ok(End::Client),
                },
                changed = snapshots.changed() => {
                    changed.map_err(|_| Status::unavailable("this gateway is no longer served here: connect again"))?;
                    let published = snapshots.borrow_and_update().clone();
                    if let Some(snapshot) = published {
                        connection.take(session.snapshot(begin.elapsed(), snapshot), &mut outbox);
                    }
                }
                () = tokio::time::sleep_until(begin + deadline.unwrap_or_default()), if deadline.is_some() => {
                    connection.take(session.tick(begin.elapsed()), &mut outbox);
                }
            }
        }
    }

    /// Tells of a node that gets nothing; what its client is told.
    fn turned_away(&self, error: &NodeError) -> Status {
        let reason = match error {
            NodeError::Missing | NodeError::Changed { .. } | NodeError::Invalid(_) => Some(Reason::Node),
            NodeError::Unknown(_) => Some(Reason::NoGateway),
            NodeError::Denied(_) => Some(Reason::NotItsOwn),
            NodeError::Unavailable(_) => None,
        };
        if let Some(reason) = reason {
            self.turnstile.turn_away(reason, self.peer, &error.to_string());
        }
        status(error)
    }
}

impl<O: Observer> Connection<O> {
    fn open(observer: Arc<O>, peer: Arc<Peer>, caller: &Caller) -> Self {
        let envoy = peer.node.version.map(tracing::field::display);
        let (gateway, node, stream) = (&peer.gateway, peer.node.id.escape_debug(), peer.stream.0);
        let identity = caller.account().map(|_| tracing::field::display(caller));
        tracing::info!(%gateway, %node, stream, envoy, identity, "gateway connected");
        observer.observe(Observation::Connected(peer.clone()));
        Self { observer, peer }
    }

    /// Reports what came out of the session, and queues its responses.
    fn take(&self, outputs: Vec<Output>, outbox: &mut VecDeque<Response>) {
        let peer = || self.peer.clone();
        for output in outputs {
            self.log(&output);
            let observation = match output {
                Output::Respond(response) => {
                    let sending = sending(&response);
                    outbox.push_back(response);
                    Observation::Sent(peer(), sending)
                }
                Output::Acknowledged(acknowledgement) => Observation::Acknowledged(peer(), acknowledgement),
                Output::Refused(refusal) => Observation::Refused(peer(), refusal),
                Output::Ignored(ignored) => Observation::Ignored(peer(), ignored),
                Output::Stuck(waited) => Observation::Stuck(peer(), waited),
            };
            self.observer.observe(observation);
        }
    }

    /// One line per change of state; clients' texts only as Rust would quote them.
    fn log(&self, output: &Output) {
        let (gateway, node) = (&self.peer.gateway, self.peer.node.id.escape_debug());
        match output {
            Output::Respond(response) => tracing::debug!(
                %gateway, %node, type_url = response.resource_type.type_url(), version = %response.version,
                nonce = %response.nonce, resources = response.resources.len(), removed = response.removed.len(), "sent"
            ),
            Output::Acknowledged(acknowledgement) => tracing::debug!(
                %gateway, %node, type_url = acknowledgement.resource_type.type_url(),
                version = %acknowledgement.version, outstanding = acknowledgement.outstanding, "acknowledged"
            ),
            Output::Refused(refusal) if refusal.blame == Blame::Suspected => tracing::debug!(
                %gateway, %node, type_url = refusal.resource_type.type_url(), nonce = %refusal.nonce,
                resources = refusal.resources.len(), reason = %refusal.message.escape_debug(), "refused together, sending apart"
            ),
            // One warning for each refused resource comes from whoever takes the observations, not one per client.
            Output::Refused(refusal) => {
                let (resource, version) = refusal.resources.first().map(|r| (&r.name, &r.version)).unzip();
                tracing::debug!(
                    %gateway, %node, type_url = refusal.resource_type.type_url(), nonce = %refusal.nonce,
                    version = version.map(tracing::field::display),
                    resource = resource.map(|name| tracing::field::display(name.escape_debug())), reason = %refusal.message.escape_debug(),
                    "refused"
                );
            }
            Output::Stuck(waited) => tracing::warn!(
                %gateway, %node, seconds = waited.as_secs(), "gateway asks for other types, but not for clusters: \
                its configuration doesn't follow; if this stays, restart it"
            ),
            Output::Ignored(ignored) if ignored.reason == IgnoredReason::UnknownType => tracing::info!(
                %gateway, %node, type_url = %ignored.type_url.escape_debug(), "ignored a request for a type that isn't served"
            ),
            Output::Ignored(ignored) => tracing::debug!(
                %gateway, %node, type_url = %ignored.type_url.escape_debug(), reason = ?ignored.reason, "ignored a request"
            ),
        }
    }
}

impl<O: Observer> Drop for Connection<O> {
    fn drop(&mut self) {
        let peer = &self.peer;
        tracing::info!(gateway = %peer.gateway, node = %peer.node.id.escape_debug(), stream = peer.stream.0, "gateway disconnected");
        self.observer.observe(Observation::Disconnected(peer.clone()));
    }
}

fn sending(response: &Response) -> Sending {
    Sending {
        resource_type: response.resource_type,
        nonce: response.nonce.clone(),
        version: response.version.clone(),
        resources: response.resources.len(),
        removed: response.removed.len(),
        bytes: response.resources.iter().map(|resource| resource.body.len()).sum(),
    }
}

/// Waits until the server stops; how many streams were open then.
async fn closed(closing: &mut watch::Receiver<Option<usize>>) -> usize {
    // An error means that the server has gone without a word.
    closing.wait_for(Option::is_some).await.ok().and_then(|open| *open).unwrap_or_default()
}

fn aged() -> Status {
    Status::unavailable("this stream has reached its age: connect again, to any replica")
}

fn stopping() -> Status {
    Status::unavailable("the control plane is stopping: connect again")
}

fn status(error: &NodeError) -> Status {
    let text = error.to_string();
    match error {
        NodeError::Missing | NodeError::Changed { .. } | NodeError::Invalid(_) => Status::invalid_argument(text),
        NodeError::Unknown(_) => Status::not_found(text),
        NodeError::Denied(_) => Status::permission_denied(text),
        NodeError::Unavailable(_) => Status::unavailable(text),
    }
}

fn refused(fault: &Fault) -> Status {
    let text = fault.to_string();
    match fault {
        Fault::Malformed => Status::internal(text),
        Fault::Refused(RequestError::Limit(_)) => Status::resource_exhausted(text),
        Fault::Refused(RequestError::Type { .. }) => Status::invalid_argument(text),
    }
}
