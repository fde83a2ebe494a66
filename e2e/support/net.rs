//! Networks of their own, on loopback: 127.A.B.0/24, one per cluster per test.
//!
//! Parallel tests, and tests of parallel checkouts, never meet: a network is claimed by listening on one of its
//! addresses for as long as it is in use, so the kernel says who has it.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use anyhow::{Context, bail};

/// Second octets from 16 on: the low ones belong to the demo (127.0.10.0/24) and to the system (127.0.0.0/24).
const FIRST: u32 = 16;
/// How many networks there are.
const COUNT: u32 = (255 - FIRST) * 256;
/// The host and port whose listener is the claim. Any port below the ephemeral range does.
const CLAIM: (u8, u16) = (254, 17_999);

/// A claimed network; free again when dropped.
#[derive(Debug)]
pub(crate) struct Network {
    octets: (u8, u8),
    next: AtomicU8,
    _claim: TcpListener,
}

impl Network {
    /// Claims a network that nobody has.
    pub(crate) fn claim() -> anyhow::Result<Self> {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        // Processes start far apart, so that the first try nearly always succeeds.
        let start = std::process::id().wrapping_mul(251);
        for _ in 0..COUNT {
            let index = start.wrapping_add(COUNTER.fetch_add(1, Ordering::Relaxed)) % COUNT;
            let octets = octets(index)?;
            if let Ok(claim) = TcpListener::bind((Ipv4Addr::new(127, octets.0, octets.1, CLAIM.0), CLAIM.1)) {
                return Ok(Self { octets, next: AtomicU8::new(1), _claim: claim });
            }
        }
        bail!("no 127.x network is free: something listens on port {} of all addresses", CLAIM.1)
    }

    /// The first three octets as text: `127.16.0`.
    pub(crate) fn prefix(&self) -> String {
        format!("127.{}.{}", self.octets.0, self.octets.1)
    }

    /// An address that this call has handed out for the first time.
    pub(crate) fn next_address(&self) -> anyhow::Result<Ipv4Addr> {
        let host = self.next.fetch_add(1, Ordering::Relaxed);
        if host >= CLAIM.0 {
            bail!("more than {} addresses in one network", CLAIM.0 - 1);
        }
        Ok(Ipv4Addr::new(127, self.octets.0, self.octets.1, host))
    }

    /// A port that is free on this network. Nobody else binds here, so it stays free until the caller binds it.
    pub(crate) fn free_port(&self) -> anyhow::Result<u16> {
        let host = Ipv4Addr::new(127, self.octets.0, self.octets.1, CLAIM.0);
        free_port(host)
    }
}

/// A port that was free on an address a moment ago.
pub(crate) fn free_port(host: Ipv4Addr) -> anyhow::Result<u16> {
    let listener = TcpListener::bind(SocketAddr::from((host, 0))).with_context(|| format!("bind {host}"))?;
    Ok(listener.local_addr()?.port())
}

fn octets(index: u32) -> anyhow::Result<(u8, u8)> {
    Ok((u8::try_from(FIRST + index / 256)?, u8::try_from(index % 256)?))
}
