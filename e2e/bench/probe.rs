//! A client on one connection that asks the same again and again, and tells when the answer changes.
//!
//! It blocks a thread of its own: a timer of an event loop is as coarse as what is measured.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use crate::support::bench_world;

/// Between an answer and the next question: less costs the machine under test, more shows in what is measured.
const PAUSE: Duration = Duration::from_micros(100);

/// How long one answer, or a change, may take.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A kept-alive connection and the question.
#[derive(Debug)]
pub(crate) struct Probe {
    stream: TcpStream,
    question: Vec<u8>,
}

impl Probe {
    /// Connects.
    pub(crate) fn open(address: SocketAddr, asks: bench_world::Probe) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).with_context(|| format!("connect to {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        let question = format!("GET {} HTTP/1.1\r\nhost: {}\r\n\r\n", asks.path(), asks.host()).into_bytes();
        Ok(Self { stream, question })
    }

    /// Asks once: status and body.
    pub(crate) fn ask(&mut self) -> anyhow::Result<(u16, String)> {
        self.stream.write_all(&self.question)?;
        let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
        loop {
            let count = self.stream.read(&mut buffer)?;
            ensure!(count > 0, "the gateway closed the connection");
            answer.extend_from_slice(&buffer[..count]);
            let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
            let head = std::str::from_utf8(&answer[..end]).context("the head of an answer")?;
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let length: usize = length.unwrap_or("0").parse().context("content-length")?;
            if answer.len() < end + 4 + length {
                continue;
            }
            let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).context("no status")?;
            return Ok((status, String::from_utf8_lossy(&answer[end + 4..]).into_owned()));
        }
    }

    /// Asks until the answer is `new`, and says when it was. Nothing but 200 and `old` may come before.
    pub(crate) fn until(&mut self, old: &str, new: &str) -> anyhow::Result<Instant> {
        let begun = Instant::now();
        loop {
            let (status, body) = self.ask()?;
            let at = Instant::now();
            match (status, body.as_str()) {
                (200, body) if body == new => return Ok(at),
                (200, body) if body == old => {}
                _ => bail!("a wrong answer: {status} {body:?}, where {old:?} or {new:?} is right"),
            }
            if begun.elapsed() > TIMEOUT {
                bail!("the answer is still {old:?} after {TIMEOUT:?}");
            }
            std::thread::sleep(PAUSE);
        }
    }
}
