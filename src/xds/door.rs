//! Connections: accepted, and where there are credentials, wrapped in TLS.
//!
//! A handshake that takes its time holds up nobody. A connection ends when what was shown on it is no longer accepted.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::codegen::http::HeaderMap;
use tonic::transport::server::Connected;

use super::credentials::{Admitted, Credentials, Shown};
use super::observation::{Observer, Reason};
use super::turnstile::Turnstile;

/// How long a handshake may take; one takes two round trips.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Connections that wait to be taken up.
const BACKLOG: usize = 16;

/// Who may open streams.
#[derive(Clone, Debug)]
pub enum Access {
    /// Whoever reaches the port, in plaintext.
    Anybody,
    /// Who has a credential, over TLS.
    Credentials(Credentials),
}

impl Access {
    /// Keeps credentials up to date. Never ends.
    pub(super) async fn follow(&self) {
        match self {
            Self::Anybody => std::future::pending().await,
            Self::Credentials(credentials) => credentials.follow().await,
        }
    }

    /// Who opens a stream.
    pub(super) async fn admit(
        &self,
        arrival: Option<&Arrival>,
        headers: &HeaderMap,
    ) -> Result<Admitted, (Reason, String)> {
        match self {
            Self::Anybody => Ok(Admitted::anybody()),
            Self::Credentials(credentials) => {
                credentials.admit(arrival.map_or(&Shown::Nothing, |arrival| &arrival.shown), headers).await
            }
        }
    }
}

/// What is known of a connection.
#[derive(Clone, Debug)]
pub(super) struct Arrival {
    pub(super) peer: Option<SocketAddr>,
    shown: Shown,
}

/// A connection.
pub(super) struct Connection {
    arrival: Arrival,
    io: Wire,
    /// Ready when it must end.
    end: Pin<Box<dyn Future<Output = ()> + Send>>,
}

enum Wire {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Accepts connections, until nobody takes them any more; then it stops listening.
pub(super) async fn accept<O: Observer>(
    listener: TcpListener,
    access: Access,
    turnstile: Arc<Turnstile<O>>,
    taken: mpsc::Sender<io::Result<Connection>>,
) {
    let mut handshakes = JoinSet::new();
    loop {
        tokio::select! {
            () = taken.closed() => return,
            Some(_) = handshakes.join_next() => {}
            accepted = listener.accept() => {
                let (taken, turnstile) = (taken.clone(), turnstile.clone());
                let (stream, peer) = match accepted {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        // Whoever takes connections knows which errors pass.
                        let _ = taken.send(Err(error)).await;
                        continue;
                    }
                };
                // Only delays small messages.
                let _ = stream.set_nodelay(true);
                match &access {
                    Access::Anybody => {
                        let _ = taken.send(Ok(Connection::plain(stream, peer))).await;
                    }
                    Access::Credentials(credentials) => {
                        let credentials = credentials.clone();
                        handshakes.spawn(async move {
                            if let Some(connection) = shake(stream, peer, credentials, &turnstile).await {
                                let _ = taken.send(Ok(connection)).await;
                            }
                        });
                    }
                }
            }
        }
    }
}

/// A channel for [`accept`].
pub(super) fn channel() -> (mpsc::Sender<io::Result<Connection>>, mpsc::Receiver<io::Result<Connection>>) {
    mpsc::channel(BACKLOG)
}

async fn shake<O: Observer>(
    stream: TcpStream,
    peer: SocketAddr,
    credentials: Credentials,
    turnstile: &Turnstile<O>,
) -> Option<Connection> {
    let acceptor = TlsAcceptor::from(credentials.tls());
    let stream = match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        // A probe that only connects.
        Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => return None,
        Ok(Err(error)) => {
            turnstile.turn_away(reason(&error), Some(peer), &error.to_string());
            return None;
        }
        Err(_) => {
            turnstile.turn_away(Reason::Handshake, Some(peer), "the TLS handshake takes too long");
            return None;
        }
    };
    let chain: Vec<_> = stream.get_ref().1.peer_certificates().unwrap_or_default().to_vec();
    let chain: Vec<_> = chain.into_iter().map(rustls::pki_types::CertificateDer::into_owned).collect();
    let arrival = Arrival { peer: Some(peer), shown: Shown::by(&chain) };
    let end: Pin<Box<dyn Future<Output = ()> + Send>> =
        if chain.is_empty() { Box::pin(std::future::pending()) } else { Box::pin(credentials.outlived(chain)) };
    Some(Connection { arrival, io: Wire::Tls(Box::new(stream)), end })
}

/// Whether a handshake failed for the certificate of the client.
fn reason(error: &io::Error) -> Reason {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidCertificate(_)) => Reason::Certificate,
        _ => Reason::Handshake,
    }
}

impl Connection {
    fn plain(stream: TcpStream, peer: SocketAddr) -> Self {
        let arrival = Arrival { peer: Some(peer), shown: Shown::Nothing };
        Self { arrival, io: Wire::Plain(stream), end: Box::pin(std::future::pending()) }
    }
}

impl Connected for Connection {
    type ConnectInfo = Arrival;

    fn connect_info(&self) -> Arrival {
        self.arrival.clone()
    }
}

impl AsyncRead for Connection {
    /// The client seems to have gone, when the connection must end.
    fn poll_read(mut self: Pin<&mut Self>, task: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.end.as_mut().poll(task).is_ready() {
            self.end = Box::pin(std::future::ready(()));
            return Poll::Ready(Ok(()));
        }
        match &mut self.io {
            Wire::Plain(stream) => Pin::new(stream).poll_read(task, into),
            Wire::Tls(stream) => Pin::new(stream.as_mut()).poll_read(task, into),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, task: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.io {
            Wire::Plain(stream) => Pin::new(stream).poll_write(task, bytes),
            Wire::Tls(stream) => Pin::new(stream.as_mut()).poll_write(task, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.io {
            Wire::Plain(stream) => Pin::new(stream).poll_write_vectored(task, parts),
            Wire::Tls(stream) => Pin::new(stream.as_mut()).poll_write_vectored(task, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.io {
            Wire::Plain(stream) => stream.is_write_vectored(),
            Wire::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Wire::Plain(stream) => Pin::new(stream).poll_flush(task),
            Wire::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(task),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Wire::Plain(stream) => Pin::new(stream).poll_shutdown(task),
            Wire::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(task),
        }
    }
}
