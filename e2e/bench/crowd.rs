//! Many light clients of one server.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::Bytes;
use tokio::sync::{OnceCell, Semaphore, mpsc};
use tokio::task::JoinSet;
use tonic::transport::Channel;

use super::ads::{Follower, connect};
use super::cpu;

/// Streams on one connection where files are short: what the server allows.
const SHARED: usize = 32;

/// Files that this process opens for a client and its like at the floor: both ends of the one, one of the other.
const FILES: usize = 3;

/// How many connect at a time, so that no queue of the system overflows.
const CONNECTING: usize = 64;

/// What one client was sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct News {
    /// Which client.
    pub(crate) client: usize,
    /// When it had the last byte.
    pub(crate) at: Instant,
    /// Bytes of the stream.
    pub(crate) bytes: usize,
    /// Resources, and names of removed ones.
    pub(crate) resources: usize,
}

/// Clients that acknowledge everything; gone when dropped.
#[derive(Debug)]
pub(crate) struct Crowd {
    count: usize,
    news: mpsc::UnboundedReceiver<News>,
    clients: JoinSet<anyhow::Result<()>>,
}

impl Crowd {
    /// Opens so many streams, each on a connection of its own if the process may open as many files. All have sent their first messages when this returns.
    pub(crate) async fn open(
        server: SocketAddr,
        count: usize,
        first: impl Fn(usize) -> Vec<Bytes> + Send + Sync + 'static,
    ) -> anyhow::Result<Self> {
        let (sender, news) = mpsc::unbounded_channel();
        let (first, places) = (Arc::new(first), Arc::new(Semaphore::new(CONNECTING)));
        let (opened, mut open) = mpsc::unbounded_channel();
        let mut clients = JoinSet::new();
        let on_one = if count * FILES < cpu::files()? { 1 } else { SHARED };
        let mut channel = Arc::new(OnceCell::new());
        for client in 0..count {
            if client.is_multiple_of(on_one) {
                channel = Arc::new(OnceCell::new());
            }
            let (first, places, channel) = (Arc::clone(&first), Arc::clone(&places), Arc::clone(&channel));
            let (opened, sender) = (opened.clone(), sender.clone());
            clients.spawn(async move {
                let place = places.acquire_owned().await?;
                let channel: &Channel = channel.get_or_try_init(|| connect(server)).await?;
                let mut follower = Follower::open(channel.clone(), &first(client)).await?;
                drop((place, opened.send(())));
                loop {
                    let received = follower.next().await?;
                    let resources = received.response.resources.len() + received.response.removed.len();
                    sender.send(News { client, at: received.at, bytes: received.bytes, resources })?;
                }
            });
        }
        drop(opened);
        let mut crowd = Self { count, news, clients };
        for _ in 0..count {
            if open.recv().await.is_none() {
                return Err(crowd.failure().await);
            }
        }
        Ok(crowd)
    }

    /// Waits until each client has got something, and says when the last had.
    pub(crate) async fn all(&mut self, patience: Duration) -> anyhow::Result<Vec<News>> {
        let mut told = vec![false; self.count];
        let (mut left, mut all) = (self.count, Vec::new());
        while left > 0 {
            let news = tokio::time::timeout(patience, self.news.recv()).await;
            let news = news.with_context(|| format!("{left} clients got nothing"))?.context("all clients are gone")?;
            left -= usize::from(!std::mem::replace(&mut told[news.client], true));
            all.push(news);
        }
        Ok(all)
    }

    /// Takes what has come without waiting; fails if a client is gone.
    pub(crate) async fn so_far(&mut self) -> anyhow::Result<Vec<News>> {
        if let Some(ended) = self.clients.try_join_next() {
            match ended? {
                Err(error) => return Err(error.context("a client lost its stream")),
                Ok(()) => bail!("a client ended"),
            }
        }
        Ok(std::iter::from_fn(|| self.news.try_recv().ok()).collect())
    }

    async fn failure(&mut self) -> anyhow::Error {
        match self.clients.join_next().await {
            Some(Ok(Err(error))) => error.context("a client cannot open its stream"),
            _ => anyhow::anyhow!("a client cannot open its stream"),
        }
    }
}
