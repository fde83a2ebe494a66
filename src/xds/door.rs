//! Connections: accepted, and where there are credentials, wrapped in TLS.
//!
//! A handshake that takes its time holds up nobody. A connection ends when what was shown on it is no longer accepted, and
//! when nothing is shown on it in time.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::codegen::http::HeaderMap;
use tonic::transport::server::Connected;

use super::credentials::{Admitted, Credentials, Shown};
use super::lobby::{Lobby, Stay, Visit};
use super::observation::{Observer, Reason};
use super::turnstile::Turnstile;

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
                let admitted =
                    credentials.admit(arrival.map_or(&Shown::Nothing, |arrival| &arrival.shown), headers).await?;
                if let (Some(arrival), Some(account)) = (arrival, admitted.caller.account()) {
                    arrival.visit.prove(account).map_err(|why| (Reason::Limit, why))?;
                }
                Ok(admitted)
            }
        }
    }
}

/// What is known of a connection.
#[derive(Clone, Debug)]
pub(super) struct Arrival {
    pub(super) peer: Option<SocketAddr>,
    shown: Shown,
    visit: Arc<Visit>,
}

/// A connection.
pub(super) struct Connection {
    arrival: Arrival,
    io: Wire,
    /// Ready when it must end.
    end: Pin<Box<dyn Future<Output = ()> + Send>>,
    is_over: bool,
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
    lobby: Arc<Lobby>,
    taken: mpsc::Sender<io::Result<Connection>>,
) {
    let is_full = || turnstile.turn_away(Reason::Limit, None, "as many connections are open as there may be");
    let mut handshakes = JoinSet::new();
    loop {
        let next = async {
            lobby.room(is_full).await;
            listener.accept().await
        };
        tokio::select! {
            () = taken.closed() => return,
            Some(_) = handshakes.join_next() => {}
            accepted = next => {
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
                        let _ = taken.send(Ok(Connection::plain(stream, peer, lobby.pass()))).await;
                    }
                    Access::Credentials(credentials) => {
                        let (credentials, entered) = (credentials.clone(), lobby.enter());
                        handshakes.spawn(async move {
                            if let Some(connection) = shake((stream, peer), entered, credentials, turnstile).await {
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
    (stream, peer): (TcpStream, SocketAddr),
    (visit, stay): (Arc<Visit>, Stay),
    credentials: Credentials,
    turnstile: Arc<Turnstile<O>>,
) -> Option<Connection> {
    let acceptor = TlsAcceptor::from(credentials.tls());
    let mut over: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(stay.over());
    let shaken = tokio::select! {
        shaken = acceptor.accept(stream) => shaken,
        () = &mut over => {
            turnstile.turn_away(Reason::Handshake, Some(peer), "the TLS handshake takes too long");
            return None;
        }
    };
    let stream = match shaken {
        Ok(stream) => stream,
        // A probe that only connects.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return None,
        Err(error) => {
            turnstile.turn_away(reason(&error), Some(peer), &error.to_string());
            return None;
        }
    };
    let chain: Vec<_> = stream.get_ref().1.peer_certificates().unwrap_or_default().to_vec();
    let chain: Vec<_> = chain.into_iter().map(rustls::pki_types::CertificateDer::into_owned).collect();
    let shown = Shown::by(&chain);
    if let Shown::Account(account) = &shown
        && let Err(why) = visit.prove(account)
    {
        turnstile.turn_away(Reason::Limit, Some(peer), &why);
        return None;
    }
    let in_time = async move {
        over.await;
        turnstile.turn_away(Reason::NoCredential, Some(peer), "no credential was shown in time");
    };
    let end: Pin<Box<dyn Future<Output = ()> + Send>> = if chain.is_empty() {
        Box::pin(in_time)
    } else {
        Box::pin(async move {
            tokio::select! {
                () = credentials.outlived(chain) => {}
                () = in_time => {}
            }
        })
    };
    Some(Connection {
        arrival: Arrival { peer: Some(peer), shown, visit },
        io: Wire::Tls(Box::new(stream)),
        end,
        is_over: false,
    })
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
    fn plain(stream: TcpStream, peer: SocketAddr, visit: Arc<Visit>) -> Self {
        let arrival = Arrival { peer: Some(peer), shown: Shown::Nothing, visit };
        Self { arrival, io: Wire::Plain(stream), end: Box::pin(std::future::pending()), is_over: false }
    }

    /// Whether it must end now.
    fn is_over(&mut self, task: &mut Context<'_>) -> bool {
        self.is_over = self.is_over || self.end.as_mut().poll(task).is_ready();
        self.is_over
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
        if self.is_over(task) {
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

    /// Fails when the connection must end: a client that reads nothing does not keep it.
    fn poll_flush(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_over(task) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
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
