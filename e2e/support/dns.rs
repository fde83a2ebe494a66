//! A DNS server for tests: it knows a few names, and says that no other exists.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use serde_json::{Value, json};
use tokio::net::UdpSocket;
use tokio::task::AbortHandle;

/// Bytes before the question.
const HEADER: usize = 12;

/// Names with their addresses.
type Names = BTreeMap<String, Vec<Ipv4Addr>>;

/// A running server; stops when dropped.
#[derive(Debug)]
pub(crate) struct Dns {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    names: Arc<Mutex<Names>>,
    task: AbortHandle,
}

impl Dns {
    /// Starts one on a host. It answers when this returns.
    pub(crate) async fn start(host: Ipv4Addr) -> anyhow::Result<Self> {
        let socket = UdpSocket::bind((host, 0)).await.context("bind a DNS server")?;
        let address = socket.local_addr()?;
        let names: Arc<Mutex<Names>> = Arc::default();
        let known = Arc::clone(&names);
        let task = tokio::spawn(async move {
            let mut buffer = [0; 512];
            while let Ok((length, client)) = socket.recv_from(&mut buffer).await {
                let answer = answer(&buffer[..length], &known.lock().unwrap_or_else(PoisonError::into_inner));
                if let Some(answer) = answer {
                    let _ = socket.send_to(&answer, client).await;
                }
            }
        });
        Ok(Self { address, names, task: task.abort_handle() })
    }

    /// Lets a name have these addresses from now on; without any it does not exist.
    pub(crate) fn set(&self, name: &str, addresses: &[Ipv4Addr]) {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if addresses.is_empty() {
            names.remove(name);
        } else {
            names.insert(name.to_owned(), addresses.to_vec());
        }
    }

    /// Makes an Envoy look names up here.
    pub(crate) fn serve(&self, bootstrap: &mut Value) {
        bootstrap["typed_dns_resolver_config"] = json!({
            "name": "envoy.network.dns_resolver.cares",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig",
                "resolvers": [{"socket_address": {
                    "protocol": "UDP", "address": self.address.ip().to_string(), "port_value": self.address.port(),
                }}],
                "dns_resolver_options": {"no_default_search_domain": true},
            },
        });
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The answer to a query with one question; none to anything else.
fn answer(query: &[u8], names: &Names) -> Option<Vec<u8>> {
    let mut labels = Vec::new();
    let mut at = HEADER;
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(query.get(at..at + length)?).to_lowercase());
        at += length;
    }
    let question = query.get(HEADER..at + 4)?;
    let is_a = query.get(at..at + 2)? == [0, 1];
    let known = names.get(&labels.join("."));
    let found: &[Ipv4Addr] = if is_a { known.map_or(&[], Vec::as_slice) } else { &[] };
    let mut answer = query.get(..2)?.to_vec();
    // A response, recursion available; no such name where there is none.
    answer.extend([0x81, if known.is_some() { 0x80 } else { 0x83 }]);
    answer.extend([0, 1, 0, u8::try_from(found.len()).ok()?, 0, 0, 0, 0]);
    answer.extend(question);
    for address in found {
        // The name of the question, an address of the internet, for a second.
        answer.extend([0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4]);
        answer.extend(address.octets());
    }
    Some(answer)
}
