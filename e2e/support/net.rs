//! Networks of their own, on loopback: 127.A.B.0/24, one per cluster per test.
//!
//! Parallel tests, and tests of parallel checkouts, never meet: a network is claimed by listening on one of its
//! addresses for as long as it is in use, so the kernel says who has it.
//!
//! An API server takes no loopback addresses as endpoints. For worlds that live there are networks 198.18.B.0/24, of the
//! range that is reserved for tests of networks; a route of the kernel makes one of this machine's own while it is in use.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::Command;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use anyhow::{Context, bail, ensure};

/// Second octets from 16 on: the low ones belong to the demo (127.0.10.0/24) and to the system (127.0.0.0/24).
const FIRST: u32 = 16;
/// How many networks there are.
const COUNT: u32 = (255 - FIRST) * 256;
/// The host and port whose listener is the claim. Any port below the ephemeral range does.
const CLAIM: (u8, u16) = (254, 17_999);

/// A claimed network; free again when dropped.
#[derive(Debug)]
pub(crate) struct Network {
    octets: [u8; 3],
    next: AtomicU8,
    _route: Option<Route>,
    _claim: TcpListener,
}

/// A route that makes a network this machine's own; gone when dropped.
#[derive(Debug)]
struct Route(String);

impl Route {
    fn add(network: String) -> anyhow::Result<Self> {
        // One that a killed test left is as good.
        let output = route("replace", &network).context("run ip")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "{network} cannot be made an own network ({}): run as root, or under `unshare --user --map-root-user --net`",
            said.trim()
        );
        Ok(Self(network))
    }
}

impl Drop for Route {
    fn drop(&mut self) {
        // Nothing depends on it: whoever claims the network next takes it as it is.
        let _ = route("del", &self.0);
    }
}

fn route(verb: &str, network: &str) -> std::io::Result<std::process::Output> {
    Command::new("ip").args(["route", verb, "local", network, "dev", "lo"]).output()
}

impl Network {
    /// Claims a network that nobody has.
    pub(crate) fn claim() -> anyhow::Result<Self> {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        // Processes start far apart, so that the first try nearly always succeeds.
        let start = std::process::id().wrapping_mul(251);
        for _ in 0..COUNT {
            let index = start.wrapping_add(COUNTER.fetch_add(1, Ordering::Relaxed)) % COUNT;
            let (second, third) = octets(index)?;
            if let Ok(claim) = TcpListener::bind((Ipv4Addr::new(127, second, third, CLAIM.0), CLAIM.1)) {
                return Ok(Self { octets: [127, second, third], next: AtomicU8::new(1), _route: None, _claim: claim });
            }
        }
        bail!("no 127.x network is free: something listens on port {} of all addresses", CLAIM.1)
    }

    /// Claims a network that is not loopback, as endpoints behind an API server need it.
    ///
    /// # Errors
    /// Where this user may not add a route: neither root, nor root of a network namespace.
    pub(crate) fn claim_routed() -> anyhow::Result<Self> {
        for third in 0..=u8::MAX {
            // Of loopback only the last second octet is never handed out by `claim`.
            if let Ok(claim) = TcpListener::bind((Ipv4Addr::new(127, 255, third, CLAIM.0), CLAIM.1)) {
                let octets = [198, 18, third];
                let route = Route::add(format!("198.18.{third}.0/24"))?;
                return Ok(Self { octets, next: AtomicU8::new(1), _route: Some(route), _claim: claim });
            }
        }
        bail!("no 198.18.x network is free")
    }

    /// The first three octets as text: `127.16.0`.
    pub(crate) fn prefix(&self) -> String {
        self.octets.map(|octet| octet.to_string()).join(".")
    }

    fn address(&self, host: u8) -> Ipv4Addr {
        let [first, second, third] = self.octets;
        Ipv4Addr::new(first, second, third, host)
    }

    /// An address that this call has handed out for the first time.
    pub(crate) fn next_address(&self) -> anyhow::Result<Ipv4Addr> {
        let host = self.next.fetch_add(1, Ordering::Relaxed);
        if host >= CLAIM.0 {
            bail!("more than {} addresses in one network", CLAIM.0 - 1);
        }
        Ok(self.address(host))
    }

    /// A port that is free on this network. Nobody else binds here, so it stays free until the caller binds it.
    pub(crate) fn free_port(&self) -> anyhow::Result<u16> {
        free_port(self.address(CLAIM.0))
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
