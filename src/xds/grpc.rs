//! The frames of gRPC around messages, read and written without a buffer of their own.
//!
//! tonic copies every message into a buffer of its stream, which grows with the largest and stays: with thousands of
//! streams that is most of their memory. Here a request is read from the bytes as they came in, and a response goes out in
//! [chunks](Message) as the client takes them. What is large in it is never copied: all streams send the same bytes.
//!
//! # Rule
//! "gRPC over HTTP2": a byte that says whether a message is compressed, four bytes of length, the message; the status
//! comes in the trailers.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body::{Body as _, Frame};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};
use tonic::Status;
use tonic::codegen::http::{HeaderMap, HeaderValue, Response, header};

use super::slot::{Receiver, Sender};
use super::wire::Message;

/// Bytes before each message.
pub(super) const HEADER_BYTES: usize = 5;

/// Bytes that are set aside for a message before any of it has come, whatever length its header claims.
const RESERVED_BYTES: usize = 64 << 10;

/// Bytes from which on a message is large: of a client that connects again and names all that it holds.
const LARGE_BYTES: usize = 64 << 10;

/// Large messages that are taken in at a time, all streams together. When thousands of clients connect again at once, the
/// others wait in the sockets and not in memory; double would hold twice as many.
const LARGE_AT_ONCE: usize = 8;

/// How long a large message may take, and wait, before others have their turn and it goes on beside them: nobody holds
/// anybody up by sending slowly. A message of megabytes takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(1);

/// Room for large messages, shared by all streams of a server.
#[derive(Clone, Debug)]
pub(super) struct Rooms(Arc<Semaphore>);

impl Default for Rooms {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(LARGE_AT_ONCE)))
    }
}

/// Whether there is room for the message that is being read.
#[derive(Debug)]
enum Room {
    /// Nobody asked.
    Unasked,
    /// It is waited for until then.
    Awaited(Instant),
    /// It is there, until then.
    Held { _permit: OwnedSemaphorePermit, until: Instant },
    /// It took too long.
    Without,
}

/// What goes to the client: messages, or how the stream ends. On the heap, so that an empty slot is small.
pub(super) type Outgoing = Result<Box<Message>, Box<Status>>;

/// Where what goes to a client is put.
pub(super) type Outbound = Sender<Outgoing>;

/// The messages of a client.
#[derive(Debug)]
pub(super) struct Requests {
    body: Body,
    /// Bytes that came and were not looked at.
    unread: Bytes,
    header: [u8; HEADER_BYTES],
    header_bytes: usize,
    /// The beginning of a message that came in several pieces.
    partial: Vec<u8>,
    limit: usize,
    rooms: Rooms,
    /// Until the message after it is asked for.
    room: Room,
}

impl Requests {
    /// Reads messages of at most `limit` bytes from a body.
    pub(super) fn new(body: Body, limit: usize, rooms: Rooms) -> Self {
        let (unread, header, partial) = (Bytes::new(), [0; HEADER_BYTES], Vec::new());
        Self { body, unread, header, header_bytes: 0, partial, limit, rooms, room: Room::Unasked }
    }

    /// The next message; none if the client said its last. It may be dropped while it waits.
    ///
    /// # Errors
    /// A [`Status`] that the stream ends with.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        if self.header_bytes == 0 {
            self.room = Room::Unasked;
        }
        loop {
            if let Some(message) = self.take()? {
                return Ok(Some(message));
            }
            self.make_room().await;
            let frame = self.frame().await;
            match frame.map(|frame| frame.map(Frame::into_data)) {
                Some(Ok(Ok(data))) => self.unread = data,
                // What follows the trailers is nothing.
                None | Some(Ok(Err(_))) if self.header_bytes == 0 => return Ok(None),
                None | Some(Ok(Err(_))) => return Err(Status::internal("the stream ended within a message")),
                Some(Err(error)) => {
                    let status = Status::from_error(error.into());
                    return if status.code() == tonic::Code::Cancelled { Ok(None) } else { Err(status) };
                }
            }
        }
    }

    /// Waits until there is room for a message, if it is large.
    async fn make_room(&mut self) {
        let is_large = self.header_bytes == HEADER_BYTES && self.length() > LARGE_BYTES;
        let until = match self.room {
            Room::Unasked if is_large => Instant::now() + PATIENCE,
            Room::Awaited(until) => until,
            Room::Unasked | Room::Held { .. } | Room::Without => return,
        };
        self.room = Room::Awaited(until);
        self.room = match timeout_at(until, self.rooms.0.clone().acquire_owned()).await {
            Ok(Ok(permit)) => Room::Held { _permit: permit, until: Instant::now() + PATIENCE },
            // Nobody closes it.
            Ok(Err(_)) | Err(_) => Room::Without,
        };
    }

    /// The next piece of the body.
    async fn frame(&mut self) -> Option<Result<Frame<Bytes>, axum::Error>> {
        let body = &mut self.body;
        let mut frame = poll_fn(|task| Pin::new(&mut *body).poll_frame(task));
        if let Room::Held { until, .. } = &self.room {
            match timeout_at(*until, &mut frame).await {
                Ok(frame) => return frame,
                Err(_) => self.room = Room::Without,
            }
        }
        frame.await
    }

    /// What the header says of the message.
    fn length(&self) -> usize {
        let [_, length @ ..] = self.header;
        u32::from_be_bytes(length) as usize
    }

    /// A message, if all of it is there.
    fn take(&mut self) -> Result<Option<Bytes>, Status> {
        let missing = self.unread.split_to(self.unread.len().min(HEADER_BYTES - self.header_bytes));
        self.header[self.header_bytes..self.header_bytes + missing.len()].copy_from_slice(&missing);
        self.header_bytes += missing.len();
        if self.header_bytes < HEADER_BYTES {
            return Ok(None);
        }
        if self.header[0] != 0 {
            return Err(Status::internal("a message is marked as compressed, and compression was not agreed on"));
        }
        let length = self.length();
        if length > self.limit {
            let limit = self.limit;
            return Err(Status::out_of_range(format!("a message of {length} bytes: the limit is {limit}")));
        }
        let here = self.unread.split_to(self.unread.len().min(length - self.partial.len()));
        if here.len() == length {
            self.header_bytes = 0;
            return Ok(Some(here));
        }
        if self.partial.capacity() == 0 {
            self.partial.reserve(length.min(RESERVED_BYTES));
        }
        self.partial.extend_from_slice(&here);
        if self.partial.len() < length {
            return Ok(None);
        }
        self.header_bytes = 0;
        Ok(Some(std::mem::take(&mut self.partial).into()))
    }
}

/// The body of an answer: messages until the channel closes, then the status.
#[derive(Debug)]
pub(super) struct Responses {
    /// None after the last.
    outgoing: Option<Receiver<Outgoing>>,
    current: Option<Box<Message>>,
}

impl Responses {
    /// The answer to a request that opened a stream.
    pub(super) fn answer(outgoing: Receiver<Outgoing>) -> Response<Body> {
        let mut response = Response::new(Body::new(Self { outgoing: Some(outgoing), current: None }));
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        response
    }
}

impl http_body::Body for Responses {
    type Data = Bytes;
    type Error = Status;

    /// Asked only while the client has room, so what it doesn't read isn't written either.
    fn poll_frame(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        loop {
            if let Some(chunk) = self.current.as_mut().and_then(Iterator::next) {
                return Poll::Ready(Some(Ok(Frame::data(chunk))));
            }
            self.current = None;
            let Some(outgoing) = &mut self.outgoing else { return Poll::Ready(None) };
            let status = match ready!(outgoing.poll_next(task)) {
                Some(Ok(message)) => {
                    self.current = Some(message);
                    continue;
                }
                Some(Err(status)) => *status,
                None => Status::ok(""),
            };
            self.outgoing = None;
            let mut trailers = HeaderMap::with_capacity(2);
            let written = status.add_header(&mut trailers);
            return Poll::Ready(Some(written.map(|()| Frame::trailers(trailers))));
        }
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    fn message(text: &str) -> Vec<u8> {
        let length = u32::try_from(text.len()).unwrap().to_be_bytes();
        [&[0], length.as_slice(), text.as_bytes()].concat()
    }

    /// What is read from a body that comes in these pieces.
    async fn read(pieces: Vec<Vec<u8>>) -> Result<Vec<String>, Status> {
        let pieces = pieces.into_iter().map(|piece| Ok::<_, std::io::Error>(Bytes::from(piece)));
        let mut requests = Requests::new(Body::from_stream(tokio_stream::iter(pieces)), 10, Rooms::default());
        let mut texts = Vec::new();
        while let Some(message) = requests.next().await? {
            texts.push(String::from_utf8(message.to_vec()).unwrap());
        }
        Ok(texts)
    }

    #[tokio::test]
    async fn messages_are_read_wherever_they_are_cut() {
        let all = [message("one"), message(""), message("three 3"), message("10 letters")].concat();
        for length in 1..=all.len() {
            let pieces = all.chunks(length).map(<[u8]>::to_vec).collect();
            assert_eq!(read(pieces).await.unwrap(), ["one", "", "three 3", "10 letters"], "pieces of {length} bytes");
        }
    }

    /// A client that says one message in pieces.
    fn client(message: &[u8], rooms: &Rooms) -> Requests {
        let pieces: Vec<_> =
            message.chunks(1_000).map(|piece| Ok::<_, std::io::Error>(Bytes::copy_from_slice(piece))).collect();
        Requests::new(Body::from_stream(tokio_stream::iter(pieces)), usize::MAX, rooms.clone())
    }

    #[tokio::test]
    async fn large_messages_have_their_turn() {
        let rooms = Rooms(Arc::new(Semaphore::new(1)));
        let (large, small) = (message(&"x".repeat(LARGE_BYTES + 1)), message("small"));
        let [mut first, mut second] = [client(&large, &rooms), client(&large, &rooms)];
        assert_eq!(first.next().await.unwrap().unwrap().len(), LARGE_BYTES + 1);
        {
            let waits = std::pin::pin!(second.next());
            assert!(
                waits.poll(&mut Context::from_waker(std::task::Waker::noop())).is_pending(),
                "the first is looked at"
            );
        }
        assert_eq!(client(&small, &rooms).next().await.unwrap().unwrap(), "small", "nobody waits with a small one");
        assert_eq!(first.next().await.unwrap(), None);
        assert_eq!(second.next().await.unwrap().unwrap().len(), LARGE_BYTES + 1);
        drop(second);
        assert_eq!(rooms.0.available_permits(), 1);
    }

    #[tokio::test]
    async fn nobody_waits_for_ever() {
        let rooms = Rooms(Arc::new(Semaphore::new(0)));
        let large = message(&"x".repeat(LARGE_BYTES + 1));
        assert_eq!(client(&large, &rooms).next().await.unwrap().unwrap().len(), LARGE_BYTES + 1);
    }

    #[tokio::test]
    async fn what_makes_no_message_ends_the_stream() {
        for (what, bytes, code, says) in [
            ("a header that ends", vec![0, 0], Code::Internal, "within a message"),
            ("a message that ends", message("half")[..7].to_vec(), Code::Internal, "within a message"),
            ("too long a message", message("eleven chars"), Code::OutOfRange, "a message of 12 bytes: the limit is 10"),
            ("a compressed one", vec![1, 0, 0, 0, 0], Code::Internal, "compressed"),
        ] {
            let status = read(vec![bytes]).await.unwrap_err();
            assert_eq!(status.code(), code, "{what}");
            assert!(status.message().contains(says), "{what}: {}", status.message());
        }
    }
}
