//! Requests over many connections, as fast as they are answered or at a steady rate, and how they were answered.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::http::{Client, Request, Response};
use super::wait::PATIENCE;

/// How many failures are kept word for word.
const SHOWN: usize = 10;

/// How fast requests follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// Each connection asks again as soon as it is answered.
    Unbounded,
    /// So many requests a second, all connections together.
    PerSecond(u32),
}

/// How long a connection is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lasts {
    /// As long as the load.
    AllTheTime,
    /// For one request: each meets what is in force for new connections.
    OneRequest,
}

/// Requests that are being sent.
#[derive(Debug)]
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    start: Instant,
    connections: usize,
    clients: JoinSet<Tally>,
    /// Requests that have ended.
    ended: watch::Sender<usize>,
}

/// How requests were answered.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    /// Connections that were kept busy.
    pub(crate) connections: usize,
    /// Requests sent.
    pub(crate) sent: usize,
    /// How many of them failed: no answer, a reset, or another answer than is right.
    pub(crate) failed: usize,
    /// The first failures.
    pub(crate) failures: Vec<String>,
    /// From first to last request.
    pub(crate) duration: Duration,
    latencies: Vec<Duration>,
}

impl Load {
    /// Starts to send the requests, in turn, on every connection. The judge says what is wrong with an answer.
    pub(crate) fn start(
        address: SocketAddr,
        connections: usize,
        pace: Pace,
        requests: Vec<Request>,
        judge: impl Fn(usize, &Response) -> anyhow::Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self::start_with(move || Client::new(address), Lasts::AllTheTime, connections, pace, requests, judge)
    }

    /// The same with clients of a kind.
    pub(crate) fn start_with(
        client: impl Fn() -> Client + Send + Sync + 'static,
        lasts: Lasts,
        connections: usize,
        pace: Pace,
        requests: Vec<Request>,
        judge: impl Fn(usize, &Response) -> anyhow::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let client_of = Arc::new(client);
        let (stop, requests, judge) = (Arc::new(AtomicBool::new(false)), Arc::new(requests), Arc::new(judge));
        let mut clients = JoinSet::new();
        let ended = watch::Sender::new(0);
        for number in 0..connections {
            let (stop, requests, judge) = (Arc::clone(&stop), Arc::clone(&requests), Arc::clone(&judge));
            let (client_of, ended) = (Arc::clone(&client_of), ended.clone());
            let count = u32::try_from(connections).unwrap_or(u32::MAX);
            clients.spawn(async move {
                let mut ticks = match pace {
                    Pace::Unbounded => None,
                    Pace::PerSecond(rate) => {
                        let period = Duration::from_secs(1) * count / rate;
                        // Connections take turns within one period.
                        let first = period * u32::try_from(number).unwrap_or_default() / count;
                        let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + first, period);
                        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
                        Some(ticks)
                    }
                };
                let mut client = client_of();
                let mut tally = Tally::default();
                for index in (0..requests.len()).cycle().skip(number) {
                    if let Some(ticks) = &mut ticks {
                        ticks.tick().await;
                    }
                    if lasts == Lasts::OneRequest {
                        client = client_of();
                    }
                    let start = Instant::now();
                    let answer = client.send(&requests[index]).await;
                    tally.latencies.push(start.elapsed());
                    tally.sent += 1;
                    if let Err(error) = answer.and_then(|response| judge(index, &response)) {
                        tally.failed += 1;
                        if tally.failures.len() < SHOWN {
                            let (host, path) = (&requests[index].host, &requests[index].path);
                            tally.failures.push(format!("request {} to {host}{path}: {error:#}", tally.sent));
                        }
                    }
                    ended.send_modify(|count| *count += 1);
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                }
                tally
            });
        }
        Self { stop, start: Instant::now(), connections, clients, ended }
    }

    /// Waits until so many requests were sent and answered after this call, rightly or not. A test that wants load during
    /// a step waits for it, and so depends on no machine's speed.
    pub(crate) async fn goes_on(&self, requests: usize) -> anyhow::Result<()> {
        let mut ended = self.ended.subscribe();
        // What is under way now was sent before.
        let enough = *ended.borrow() + self.connections + requests;
        let answered = ended.wait_for(|count| *count >= enough);
        tokio::time::timeout(PATIENCE, answered).await.context("the load stands still")??;
        Ok(())
    }

    /// Ends the requests and says how they were answered.
    pub(crate) async fn tally(mut self) -> anyhow::Result<Tally> {
        self.stop.store(true, Ordering::Relaxed);
        let mut tally = Tally { connections: self.connections, ..Tally::default() };
        while let Some(client) = self.clients.join_next().await {
            let client = client?;
            tally.sent += client.sent;
            tally.failed += client.failed;
            tally.latencies.extend(client.latencies);
            tally.failures.extend(client.failures);
        }
        tally.failures.truncate(SHOWN);
        tally.duration = self.start.elapsed();
        tally.latencies.sort_unstable();
        Ok(tally)
    }

    /// Ends the requests and says how many there were; fails if one failed.
    pub(crate) async fn end(self) -> anyhow::Result<usize> {
        let tally = self.tally().await?;
        tally.is_flawless()?;
        Ok(tally.sent)
    }
}

impl Tally {
    /// Requests a second.
    pub(crate) fn rate(&self) -> f64 {
        self.sent as f64 / self.duration.as_secs_f64()
    }

    /// The time that so many of a hundred requests took at most.
    pub(crate) fn percentile(&self, percent: usize) -> Duration {
        let index = (self.latencies.len() * percent / 100).min(self.latencies.len().saturating_sub(1));
        self.latencies.get(index).copied().unwrap_or_default()
    }

    /// Fails if a request failed, or none was sent.
    pub(crate) fn is_flawless(&self) -> anyhow::Result<()> {
        if self.failed > 0 {
            bail!("{} of {} requests failed:\n{}", self.failed, self.sent, self.failures.join("\n"));
        }
        ensure!(self.sent > 0, "no request was sent");
        Ok(())
    }
}
