//! Envoy's discovery messages to the session's values and back, straight from and to the bytes; no rule lives here.
//!
//! Messages are read and written by hand, because both ways have one part that is large and the same for many streams. A
//! request of a client that connects again names everything that it holds: where that is what the snapshot has, it is
//! recognised by a sum instead of being taken apart. A response carries resources that every stream is sent: it is written
//! piece by piece as the client takes it, and large resources are passed on as they are.
//!
//! # Rule
//! `envoy.service.discovery.v3` at Envoy 1.40.

use std::collections::BTreeMap;
use std::str::{Utf8Error, from_utf8};
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use prost::encoding::{
    DecodeContext, WireType, decode_key, decode_varint, encode_varint, encoded_len_varint, skip_field,
};
use prost::{DecodeError, Message as _};
use tonic::Status;

use super::commons::Sum;
use super::grpc::HEADER_BYTES;
use super::message::{DeltaRequest, Recognised, RequestError, Response, StateRequest, Variant};
use super::node::StatedNode;
use super::session::{Output, Session};
use crate::model::Name;
use crate::snapshot::{Resource, Resources};

/// Bytes of a response that are written at a time. At double, a client that doesn't read costs that much more.
const CHUNK_BYTES: usize = 12 << 10;

/// Bytes from which on a resource is passed on as it is; copying fewer costs less than a frame of their own.
const SHARED_BYTES: usize = 4 << 10;

/// Names from which on a list is compared as a whole first.
const RECOGNISED_FROM: usize = 16;

/// How one variant of the protocol looks on the wire.
pub(super) trait Protocol: Send + Sync + 'static {
    /// The variant.
    const VARIANT: Variant;

    /// Reads a request.
    ///
    /// # Errors
    /// [`Fault::Malformed`]
    ///
    /// # Cost
    /// One pass over its fields; names and versions stay where they are.
    fn read(message: &Bytes) -> Result<Request<'_>, Fault>;

    /// Tells a session what a request says, apart from the node.
    fn tell(session: &mut Session, now: Duration, request: Request<'_>) -> Result<Vec<Output>, Fault>;
}

/// A request of either variant as it stands on the wire.
#[derive(Debug, Default)]
pub(super) struct Request<'a> {
    /// What the client says about itself; what Envoy tells about its extensions is skipped.
    pub(super) node: Option<StatedNode>,
    type_url: &'a str,
    names: Vec<&'a [u8]>,
    unsubscribe: Vec<&'a [u8]>,
    /// Entries of a map from names to versions.
    initial_versions: Vec<&'a [u8]>,
    version: &'a str,
    nonce: &'a str,
    error: Option<String>,
}

/// Why a request ends the stream.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// It is no request.
    #[error("failed to decode a request: it is no discovery request of this variant")]
    Malformed,
    /// It asks for what it can't have.
    #[error(transparent)]
    Refused(#[from] RequestError),
}

impl From<DecodeError> for Fault {
    fn from(_: DecodeError) -> Self {
        Self::Malformed
    }
}

impl From<Utf8Error> for Fault {
    fn from(_: Utf8Error) -> Self {
        Self::Malformed
    }
}

/// Delta messages.
#[derive(Debug)]
pub(super) enum Delta {}

/// State-of-the-world messages.
#[derive(Debug)]
pub(super) enum StateOfTheWorld {}

impl Protocol for Delta {
    const VARIANT: Variant = Variant::Delta;

    fn read(message: &Bytes) -> Result<Request<'_>, Fault> {
        let mut request = Request::default();
        for field in Fields(message) {
            match field? {
                (1, bytes) => request.node(bytes)?,
                (2, bytes) => request.type_url = from_utf8(bytes)?,
                (3, bytes) => request.names.push(bytes),
                (4, bytes) => request.unsubscribe.push(bytes),
                (5, bytes) => request.initial_versions.push(bytes),
                (6, bytes) => request.nonce = from_utf8(bytes)?,
                (7, bytes) => request.error = Some(refusal(bytes)?),
                _ => {}
            }
        }
        Ok(request)
    }

    fn tell(session: &mut Session, now: Duration, request: Request<'_>) -> Result<Vec<Output>, Fault> {
        let recognised = recognise(session, &request);
        let Request { type_url, initial_versions: versions, nonce, error, .. } = request;
        let mut initial_versions = BTreeMap::new();
        if recognised.held.is_none() {
            for (name, version) in versions.into_iter().map(entry).collect::<Result<Vec<_>, _>>()? {
                initial_versions.insert(Name::from(from_utf8(name)?), from_utf8(version)?.to_owned());
            }
        }
        let subscribe = if recognised.names.is_some() { Vec::new() } else { names(&request.names)? };
        let unsubscribe = names(&request.unsubscribe)?;
        let (type_url, nonce) = (type_url.to_owned(), nonce.to_owned());
        let request = DeltaRequest { type_url, subscribe, unsubscribe, initial_versions, nonce, error, recognised };
        Ok(session.request(now, &request)?)
    }
}

impl Protocol for StateOfTheWorld {
    const VARIANT: Variant = Variant::StateOfTheWorld;

    fn read(message: &Bytes) -> Result<Request<'_>, Fault> {
        let mut request = Request::default();
        for field in Fields(message) {
            match field? {
                (1, bytes) => request.version = from_utf8(bytes)?,
                (2, bytes) => request.node(bytes)?,
                (3, bytes) => request.names.push(bytes),
                (4, bytes) => request.type_url = from_utf8(bytes)?,
                (5, bytes) => request.nonce = from_utf8(bytes)?,
                (6, bytes) => request.error = Some(refusal(bytes)?),
                _ => {}
            }
        }
        Ok(request)
    }

    fn tell(session: &mut Session, now: Duration, request: Request<'_>) -> Result<Vec<Output>, Fault> {
        let recognised = recognise(session, &request);
        let names = if recognised.names.is_some() { Vec::new() } else { names(&request.names)? };
        let Request { type_url, version, nonce, error, .. } = request;
        let (type_url, version, nonce) = (type_url.to_owned(), version.to_owned(), nonce.to_owned());
        let request = StateRequest { type_url, names, version, nonce, error, recognised };
        Ok(session.request_state(now, &request)?)
    }
}

impl Request<'_> {
    /// Takes in a node, which may come in parts.
    fn node(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        Ok(self.node.get_or_insert_with(StatedNode::default).merge(bytes)?)
    }
}

/// The fields of a message that have a length, in their order; the others are skipped.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn read(&mut self) -> Result<Option<(u32, &'a [u8])>, Fault> {
        while !self.0.is_empty() {
            let (tag, wire_type) = decode_key(&mut self.0)?;
            if wire_type != WireType::LengthDelimited {
                skip_field(wire_type, tag, &mut self.0, DecodeContext::default())?;
                continue;
            }
            let length = usize::try_from(decode_varint(&mut self.0)?).unwrap_or(usize::MAX);
            let Some((bytes, rest)) = self.0.split_at_checked(length) else { return Err(Fault::Malformed) };
            self.0 = rest;
            return Ok(Some((tag, bytes)));
        }
        Ok(None)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, &'a [u8]), Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        let field = self.read().transpose();
        if matches!(field, Some(Err(_))) {
            self.0 = &[];
        }
        field
    }
}

fn names(names: &[&[u8]]) -> Result<Vec<Name>, Fault> {
    names.iter().map(|name| Ok(Name::from(from_utf8(name)?))).collect()
}

/// An entry of a map from texts to texts.
fn entry(entry: &[u8]) -> Result<(&[u8], &[u8]), Fault> {
    let (mut key, mut value) = (&[][..], &[][..]);
    for field in Fields(entry) {
        match field? {
            (1, bytes) => key = bytes,
            (2, bytes) => value = bytes,
            _ => {}
        }
    }
    Ok((key, value))
}

/// Writes an entry of a map from texts to texts as everybody writes it. Who writes it otherwise isn't recognised.
pub(super) fn put_entry(key: &str, value: &str, into: &mut BytesMut) {
    put_field(1, key.as_bytes(), into);
    put_field(2, value.as_bytes(), into);
}

/// The message of a `google.rpc.Status`.
fn refusal(status: &[u8]) -> Result<String, Fault> {
    let mut message = "";
    for field in Fields(status) {
        if let (2, bytes) = field? {
            message = from_utf8(bytes)?;
        }
    }
    Ok(message.to_owned())
}

/// Finds out whether a request names what others do, or holds what the snapshot has.
fn recognise(session: &Session, request: &Request<'_>) -> Recognised {
    let mut recognised = Recognised::default();
    let Request { type_url, names, initial_versions: versions, .. } = request;
    let (commons, current) = session.known(type_url);
    let is_current_long = |current: &&Arc<Resources>| current.len() >= RECOGNISED_FROM;
    let content = |count: usize| {
        let current = current.as_ref().filter(is_current_long).filter(|current| current.len() == count)?;
        Some((current, commons.content(current)))
    };
    if names.len() >= RECOGNISED_FROM {
        let mut sum = Sum::default();
        names.iter().for_each(|name| sum.add(name));
        // Whoever asks for all there is finds a set even if it is the first.
        let _all = content(names.len());
        recognised.names = commons.set(sum).filter(|set| set.names().len() == names.len());
    }
    if let Some((current, (_, states))) = content(versions.len()) {
        let mut sum = Sum::default();
        versions.iter().for_each(|entry| sum.add(entry));
        recognised.held = (sum == states).then(|| current.clone());
    }
    recognised
}

/// A response on its way out, in pieces.
#[derive(Debug)]
pub(super) struct Message {
    variant: Variant,
    type_url: &'static str,
    /// What comes before the resources.
    head: BytesMut,
    resources: std::vec::IntoIter<Arc<Resource>>,
    /// A large resource that is next.
    body: Option<Bytes>,
    /// Bytes that are left.
    left: usize,
}

impl Message {
    /// A response, with the header that gRPC has before it.
    ///
    /// The version of the whole is left out of delta, which doesn't use it; each resource has its own.
    ///
    /// # Errors
    /// More than gRPC can carry in one message, 4 GiB.
    pub(super) fn of(variant: Variant, response: Response) -> Result<Self, Status> {
        let type_url = response.resource_type.type_url();
        let Response { nonce, version, resources, removed, .. } = response;
        let mut texts: Vec<(u8, &str)> = vec![(4, type_url), (5, &nonce)];
        match variant {
            Variant::Delta => texts.extend(removed.iter().map(|name| (6, name.as_str()))),
            Variant::StateOfTheWorld => texts.push((1, version.as_str())),
        }
        let head: usize = texts.iter().map(|(_, text)| field_length(text.len())).sum();
        let items: usize = resources.iter().map(|resource| field_length(item(variant, type_url, resource).1)).sum();
        let Ok(length) = u32::try_from(head + items) else {
            return Err(Status::resource_exhausted("a response of more than 4 GiB: ask for fewer resources"));
        };
        let left = HEADER_BYTES + head + items;
        let mut head = BytesMut::with_capacity(left.min(CHUNK_BYTES + SHARED_BYTES));
        head.put_u8(0);
        head.put_u32(length);
        for (tag, text) in texts {
            put_field(tag, text.as_bytes(), &mut head);
        }
        Ok(Self { variant, type_url, head, resources: resources.into_iter(), body: None, left })
    }
}

impl Iterator for Message {
    type Item = Bytes;

    /// The next piece.
    fn next(&mut self) -> Option<Bytes> {
        if let Some(body) = self.body.take() {
            self.left -= body.len();
            return Some(body);
        }
        let mut chunk = std::mem::take(&mut self.head);
        chunk.reserve((CHUNK_BYTES + SHARED_BYTES).min(self.left).saturating_sub(chunk.len()));
        while chunk.len() < CHUNK_BYTES {
            let Some(resource) = self.resources.next() else { break };
            let (any, length) = item(self.variant, self.type_url, &resource);
            put_length(2, length, &mut chunk);
            if self.variant == Variant::Delta {
                put_field(1, resource.version.as_str().as_bytes(), &mut chunk);
                put_field(3, resource.name.as_bytes(), &mut chunk);
                put_length(2, any, &mut chunk);
            }
            put_field(1, self.type_url.as_bytes(), &mut chunk);
            put_length(2, resource.body.len(), &mut chunk);
            if resource.body.len() >= SHARED_BYTES {
                self.body = Some(resource.body.clone());
                break;
            }
            chunk.put_slice(&resource.body);
        }
        self.left -= chunk.len();
        (!chunk.is_empty()).then(|| chunk.freeze())
    }
}

/// Lengths of a resource's `Any` and of what carries it: a `Resource`, or the `Any` itself.
fn item(variant: Variant, type_url: &str, resource: &Resource) -> (usize, usize) {
    let any = field_length(type_url.len()) + field_length(resource.body.len());
    match variant {
        Variant::StateOfTheWorld => (any, any),
        Variant::Delta => {
            let texts = field_length(resource.version.as_str().len()) + field_length(resource.name.len());
            (any, texts + field_length(any))
        }
    }
}

/// Length of a field of so many bytes, with its tag and length.
fn field_length(bytes: usize) -> usize {
    1 + encoded_len_varint(bytes as u64) + bytes
}

/// Tag and length of a field; tags are below 16.
fn put_length(tag: u8, bytes: usize, into: &mut BytesMut) {
    into.put_u8(tag << 3 | WireType::LengthDelimited as u8);
    encode_varint(bytes as u64, into);
}

fn put_field(tag: u8, bytes: &[u8], into: &mut BytesMut) {
    put_length(tag, bytes.len(), into);
    into.put_slice(bytes);
}

#[cfg(test)]
mod tests;
