//! An echo server: says who it is and what it received, as JSON. HTTP/1.1, and HTTP/2 with prior knowledge.
//!
//! ```text
//! echo --instance cluster-1/shop/cart=127.16.0.11:8080 --instance cluster-1/shop/cart/v2=127.16.0.12:8080
//! ```
//!
//! Prints one JSON line with the addresses once all instances listen, and runs until it is told to end.

#![expect(clippy::print_stdout, reason = "the ready line is this program's output")]

mod support;

use std::net::SocketAddr;
use std::str::FromStr;

use clap::Parser;
use serde_json::json;
use support::backend::{Backend, Identity, Leads};

/// Says who it is and what it received.
#[derive(Debug, Parser)]
struct Arguments {
    /// Address of one instance without a name; port 0 lets the system pick
    #[arg(long, value_name = "ADDRESS")]
    listen: Vec<SocketAddr>,
    /// An instance: CLUSTER/NAMESPACE/SERVICE[/VERSION]=ADDRESS
    #[arg(long, value_name = "NAME=ADDRESS", required_unless_present = "listen")]
    instance: Vec<Instance>,
    /// Where a host leads that instances may call: HOST=ADDRESS
    #[arg(long, value_name = "HOST=ADDRESS")]
    lead: Vec<Lead>,
}

#[derive(Clone, Debug)]
struct Lead {
    host: String,
    address: SocketAddr,
}

impl FromStr for Lead {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (host, address) = text.split_once('=').ok_or("write HOST=ADDRESS")?;
        let address = address.parse().map_err(|_| format!("`{address}` is not IP:PORT"))?;
        Ok(Self { host: host.to_owned(), address })
    }
}

#[derive(Clone, Debug)]
struct Instance {
    identity: Identity,
    address: SocketAddr,
}

impl FromStr for Instance {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, address) = text.split_once('=').ok_or("write NAME=ADDRESS")?;
        let address: SocketAddr = address.parse().map_err(|_| format!("`{address}` is not IP:PORT"))?;
        let parts: Vec<&str> = name.split('/').collect();
        let (cluster, namespace, service, version) = match parts.as_slice() {
            [cluster, namespace, service] => (*cluster, *namespace, *service, ""),
            [cluster, namespace, service, version] => (*cluster, *namespace, *service, *version),
            _ => return Err(format!("`{name}` is not CLUSTER/NAMESPACE/SERVICE or CLUSTER/NAMESPACE/SERVICE/VERSION")),
        };
        let identity = Identity {
            cluster: cluster.to_owned(),
            namespace: namespace.to_owned(),
            service: service.to_owned(),
            pod: address.ip().to_string(),
            version: version.to_owned(),
        };
        Ok(Self { identity, address })
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let unnamed = |address: SocketAddr| Instance {
        identity: Identity { pod: address.ip().to_string(), ..Identity::default() },
        address,
    };
    let leads: Leads = arguments.lead.into_iter().map(|lead| (lead.host, lead.address)).collect();
    let mut backends = Vec::new();
    for instance in arguments.listen.into_iter().map(unnamed).chain(arguments.instance) {
        backends.push(Backend::start_app(instance.identity, instance.address, leads.clone()).await?);
    }
    let ready: Vec<_> = backends
        .iter()
        .map(|backend| json!({ "name": backend.identity.backend(), "address": backend.address }))
        .collect();
    println!("{}", json!({ "ready": ready }));
    support::ended().await
}
