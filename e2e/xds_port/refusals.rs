//! What a real Envoy says when it refuses several resources at once, and what is made of it (F2, case 9).

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context, ensure};
use chancery::snapshot::{Resource, ResourceType, Snapshot};
use chancery::xds::caller::Caller;
use chancery::xds::inspection::Sessions;
use chancery::xds::node::{Node, NodeError};
use chancery::xds::observation::{Blame, Observation, Observer, Refusal};
use chancery::xds::server::{Access, ServerSettings, serve};
use chancery::xds::source::{SnapshotSource, Subscription};
use envoy_types::pb::envoy::config::cluster::v3 as cluster_pb;
use envoy_types::pb::envoy::config::core::v3 as core_pb;
use envoy_types::pb::envoy::config::listener::v3 as listener_pb;
use envoy_types::pb::google::protobuf::Any;
use prost::Message;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

use crate::support::envoy::Envoy;
use crate::support::wait::PATIENCE;

/// Everybody gets the same.
pub(crate) struct Shared(pub(crate) watch::Sender<Option<Arc<Snapshot>>>);

impl SnapshotSource for Shared {
    async fn subscribe(&self, _: &Node, _: &Caller) -> Result<Subscription, NodeError> {
        Ok(Subscription { gateway: "edge".into(), snapshots: self.0.subscribe(), held: None })
    }
}

pub(crate) struct Events(pub(crate) mpsc::UnboundedSender<Observation>);

impl Observer for Events {
    fn observe(&self, event: Observation) {
        // Nobody listens any more when the test is over.
        let _ = self.0.send(event);
    }
}

pub(super) fn resource(name: &str, message: &impl Message) -> Resource {
    Resource::from_content(name.into(), message.encode_to_vec().into(), Arc::from([]))
}

/// A cluster that resolves a name but has none is refused.
fn cluster(name: &str, is_good: bool) -> Resource {
    let kind = if is_good {
        cluster_pb::cluster::DiscoveryType::Static
    } else {
        cluster_pb::cluster::DiscoveryType::LogicalDns
    };
    let discovery = Some(cluster_pb::cluster::ClusterDiscoveryType::Type(kind.into()));
    let name_text = name.to_owned();
    resource(name, &cluster_pb::Cluster { name: name_text, cluster_discovery_type: discovery, ..Default::default() })
}

/// A listener with a filter that no Envoy has is refused.
pub(super) fn listener(name: &str, is_good: bool) -> Resource {
    let known = "envoy.extensions.filters.network.direct_response.v3.Config";
    let type_url = format!("type.googleapis.com/{}", if is_good { known } else { "chancery.Nothing" });
    let config = listener_pb::filter::ConfigType::TypedConfig(Any { type_url, value: Vec::new() });
    let filter = listener_pb::Filter { name: "filter".to_owned(), config_type: Some(config) };
    let socket = core_pb::SocketAddress {
        address: Ipv4Addr::LOCALHOST.to_string(),
        port_specifier: Some(core_pb::socket_address::PortSpecifier::PortValue(0)),
        ..Default::default()
    };
    let address = core_pb::Address { address: Some(core_pb::address::Address::SocketAddress(socket)) };
    let chain = listener_pb::FilterChain { filters: vec![filter], ..Default::default() };
    let listener = listener_pb::Listener {
        name: name.to_owned(),
        address: Some(address),
        filter_chains: vec![chain],
        ..Default::default()
    };
    resource(name, &listener)
}

pub(crate) fn bootstrap(xds: SocketAddr, api_type: &str) -> String {
    let socket =
        |address: SocketAddr| json!({ "socket_address": { "address": address.ip(), "port_value": address.port() } });
    let endpoint = json!({ "lb_endpoints": [{ "endpoint": { "address": socket(xds) } }] });
    let http2 = json!({
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": { "http2_protocol_options": {} },
    });
    let source = json!({ "ads": {}, "resource_api_version": "V3" });
    let ads = json!({
        "api_type": api_type,
        "transport_api_version": "V3",
        "grpc_services": [{ "envoy_grpc": { "cluster_name": "xds" } }],
    });
    json!({
        "node": { "id": "edge-1", "cluster": "edge" },
        "admin": { "address": socket(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))) },
        "dynamic_resources": { "ads_config": ads, "cds_config": source, "lds_config": source },
        "static_resources": { "clusters": [{
            "name": "xds",
            "type": "STATIC",
            "typed_extension_protocol_options": { "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": http2 },
            "load_assignment": { "cluster_name": "xds", "endpoints": [endpoint] },
        }] },
    })
    .to_string()
}

/// What Envoy refuses, and what it takes, until it holds or has refused everything of both types.
async fn settle(events: &mut mpsc::UnboundedReceiver<Observation>) -> anyhow::Result<(Vec<Refusal>, Vec<String>)> {
    let (mut refusals, mut held): (Vec<Refusal>, Vec<String>) = (Vec::new(), Vec::new());
    let wanted = [(ResourceType::Cluster, 2), (ResourceType::Listener, 2)];
    let mut left = wanted.map(|(resource_type, _)| (resource_type, None));
    while left.iter().zip(wanted).any(|((_, outstanding), (_, wanted))| *outstanding != Some(wanted)) {
        let event = tokio::time::timeout(PATIENCE, events.recv()).await;
        match event.with_context(|| format!("refused {refusals:?}, held {held:?}"))?.context("the server ended")? {
            Observation::Refused(_, refusal) => refusals.push(refusal),
            Observation::Acknowledged(_, news) => {
                held.extend(news.resources.iter().map(|(name, _)| name.to_string()));
                left.iter_mut()
                    .filter(|(t, _)| *t == news.resource_type)
                    .for_each(|(_, o)| *o = Some(news.outstanding));
            }
            _ => {}
        }
    }
    held.sort();
    Ok((refusals, held))
}

async fn check(api_type: &str) -> anyhow::Result<()> {
    let port = TcpListener::bind("127.0.0.1:0").await?;
    let address = port.local_addr()?;
    let snapshot = Snapshot::new()
        // Names that begin alike, and one with the separator of Envoy's list in it.
        .with(
            ResourceType::Cluster,
            [cluster("good", true), cluster("svc/bad", false), cluster("svc/bad, 1", false), cluster("svc/good", true)],
        )
        .with(
            ResourceType::Listener,
            [listener("listener/80", false), listener("listener/8080", false), listener("listener/90", true)],
        );
    let source = Arc::new(Shared(watch::Sender::new(Some(Arc::new(snapshot)))));
    let (sender, mut events) = mpsc::unbounded_channel();
    let server = tokio::spawn(serve(
        (port, Access::Anybody),
        source,
        Arc::new(Events(sender)),
        Sessions::default(),
        ServerSettings::default(),
        std::future::pending(),
    ));
    let envoy = Envoy::start("refusing", &bootstrap(address, api_type)).await?;
    let settled = settle(&mut events).await;
    let (refusals, held) = settled.map_err(|error| error.context(envoy.log_tail()))?;
    ensure!(held == ["good", "listener/90", "svc/good"], "{api_type}: holds {held:?}");
    let mut named = Vec::new();
    for refusal in &refusals {
        ensure!(refusal.blame == Blame::Exact, "{api_type}: {refusal:?}");
        let [resource] = refusal.resources.as_slice() else { anyhow::bail!("{api_type}: {refusal:?}") };
        let why = if refusal.resource_type == ResourceType::Cluster { "LOGICAL_DNS" } else { "chancery.Nothing" };
        let is_own =
            refusal.message.contains(&format!(" {}: ", resource.name)) && refusal.message.matches(why).count() == 1;
        ensure!(is_own, "{api_type}: the words for {} are {:?}", resource.name, refusal.message);
        named.push(resource.name.to_string());
    }
    ensure!(named == ["svc/bad", "svc/bad, 1", "listener/80", "listener/8080"], "{api_type}: refused {named:?}");
    server.abort();
    Ok(())
}

#[tokio::test]
async fn case_9_envoy_names_the_clusters_and_listeners_that_it_refuses() -> anyhow::Result<()> {
    check("DELTA_GRPC").await?;
    check("GRPC").await
}
