//! The state of a mesh as clients of the API see it: the demo, with gateways that say what tests make them say.

use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::watch;

use super::pb::State;
use super::*;
use crate::compile::compile;
use crate::emit::{EmitOptions, emit_gateway};
use crate::ir::frozen::Remembered;
use crate::model::{EnvoyRelease, GatewayId, Name};
use crate::publish::GatewayKey;
use crate::resolve::Options;
use crate::snapshot::{ResourceType, Snapshot};
use crate::store::Store;
use crate::xds::node::Node;
use crate::xds::observation::{
    Acknowledgement, Blame, Gained, Observation, Observer, Peer, Refusal, RefusedResource, Sending, StreamId,
};

/// The demo's only gateway.
pub(crate) const GATEWAY: &str = "cluster-1/gateway/ingress-gateway";

/// The demo, compiled and published, with nobody connected yet.
pub(crate) struct Mesh {
    pub(crate) sources: Sources,
    pub(crate) state: watch::Sender<Option<Arc<Compiled>>>,
    pub(crate) snapshot: Arc<Snapshot>,
    observer: metering::Metered<Told>,
}

/// Passes everything on to the ledger.
struct Told(Arc<Ledger>);

impl Observer for Told {
    fn observe(&self, event: Observation) {
        self.0.observe(event);
    }
}

impl Mesh {
    pub(crate) fn new() -> Self {
        let demo = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("config/demo");
        let loaded = crate::source::read(&[demo], &crate::source::Options::default()).unwrap();
        let store = Store::from_objects(loaded.objects.iter().cloned());
        let compiled = compile(&store, &loaded.findings, &Options::default(), &[].into(), &Remembered::default());
        let gateway: GatewayId = GATEWAY.parse().unwrap();
        let snapshot = Arc::new(emit_gateway(&compiled.plans[&gateway], &EmitOptions::default()));
        let publisher = Arc::new(Publisher::new());
        let key = GatewayKey { gateway, bind: "0.0.0.0".into(), envoy: EnvoyRelease::serving(None) };
        publisher.publish(&key, snapshot.clone());
        let (state, receiver) = watch::channel(Some(Arc::new(compiled)));
        let sources = Sources {
            compiled: receiver,
            ledger: Arc::new(Ledger::new()),
            publisher,
            limits: Arc::default(),
            missing: Arc::default(),
            stale: Arc::default(),
            places: loaded.places,
            metrics: Metrics::new(),
            credentials: None,
        };
        let observer = metering::Metered { observer: Told(sources.ledger.clone()), metrics: sources.metrics.clone() };
        Self { sources, state, snapshot, observer }
    }

    fn tell(&self, event: Observation) {
        self.observer.observe(event);
    }

    /// An Envoy connects.
    pub(crate) fn connect(&self, stream: u64, id: &str) -> Arc<Peer> {
        let node = Node {
            id: id.into(),
            cluster: Some("cluster-1".into()),
            namespace: Some("gateway".into()),
            pod: None,
            labels: [].into(),
            service_account: None,
            bind: "0.0.0.0".into(),
            revision: None,
            version: None,
        };
        let peer = Arc::new(Peer { stream: StreamId(stream), gateway: GATEWAY.into(), node: Arc::new(node) });
        self.tell(Observation::Connected(peer.clone()));
        peer
    }

    /// A response with everything of a type is sent.
    pub(crate) fn send(&self, peer: &Arc<Peer>, resource_type: ResourceType) {
        let resources = self.snapshot.resources(resource_type);
        let sending = Sending {
            resource_type,
            nonce: "1".into(),
            version: self.snapshot.type_version(resource_type),
            resources: resources.len(),
            removed: 0,
            bytes: resources.values().map(|resource| resource.body.len()).sum(),
        };
        self.tell(Observation::Sent(peer.clone(), sending));
    }

    /// All but some resources of a type are acknowledged.
    pub(crate) fn acknowledge(&self, peer: &Arc<Peer>, resource_type: ResourceType, outstanding: usize) {
        let acknowledgement = Acknowledgement {
            resource_type,
            version: self.snapshot.type_version(resource_type),
            resources: Gained::default(),
            removed: Vec::new(),
            outstanding,
            after: Some(Duration::from_millis(3)),
        };
        self.tell(Observation::Acknowledged(peer.clone(), acknowledgement));
    }

    /// A resource of a type is refused.
    pub(crate) fn refuse(&self, peer: &Arc<Peer>, resource_type: ResourceType, name: &str, blame: Blame) {
        let resource = self.snapshot.get(resource_type, name).expect("the demo has it");
        let refused = RefusedResource {
            name: resource.name.clone(),
            version: resource.version.clone(),
            owners: resource.owners.clone(),
        };
        let refusal = Refusal {
            resource_type,
            nonce: "1".into(),
            resources: vec![refused],
            blame,
            message: "Envoy's own words".to_owned(),
        };
        self.tell(Observation::Refused(peer.clone(), refusal));
    }

    fn status(&self) -> pb::StatusResponse {
        let compiled = self.sources.compiled().unwrap();
        state::status(&self.sources, &compiled, "2026-01-01T00:00:00Z".parse().unwrap())
    }
}

const SERVED: [ResourceType; 4] =
    [ResourceType::Cluster, ResourceType::Endpoint, ResourceType::Listener, ResourceType::Route];

fn states(gateway: &pb::Gateway) -> Vec<(&str, State)> {
    let short = |url| str::rsplit(url, '.').next().unwrap_or_default();
    gateway.types.iter().map(|of_type| (short(&of_type.type_url), of_type.state())).collect()
}

#[test]
fn a_gateway_that_holds_everything_is_told_so() {
    let mesh = Mesh::new();
    assert_eq!(mesh.status().gateways, []);
    let peer = mesh.connect(1, "envoy-1");
    for resource_type in SERVED {
        mesh.send(&peer, resource_type);
    }
    let status = mesh.status();
    assert!(states(&status.gateways[0]).iter().all(|(_, state)| *state == State::Behind), "sent, not answered");
    for resource_type in SERVED {
        mesh.acknowledge(&peer, resource_type, 0);
    }
    let status = mesh.status();
    let [gateway] = status.gateways.as_slice() else { panic!("{status:#?}") };
    assert_eq!((gateway.gateway.as_str(), gateway.node.as_str(), gateway.envoy.as_str()), (GATEWAY, "envoy-1", ""));
    assert!(gateway.since.parse::<jiff::Timestamp>().is_ok(), "{}", gateway.since);
    assert_eq!(gateway.types.len(), 4);
    for (of_type, resource_type) in gateway.types.iter().zip(SERVED) {
        assert_eq!(of_type.state(), State::Acknowledged, "{of_type:?}");
        assert_eq!(of_type.version, mesh.snapshot.type_version(resource_type).to_string());
    }
    // Endpoints on loopback are warnings of the demo: objects with findings, with their places.
    let warned = status.objects.iter().find(|object| object.object.starts_with("EndpointSlice/")).unwrap();
    let place = warned.findings[0].location.as_ref().unwrap();
    assert!(place.file.ends_with(".yaml") && place.line > 0, "{place:?}");
    assert_eq!(status.counts.iter().map(|count| count.objects).sum::<u64>(), 27);
}

#[test]
fn a_refusal_carries_envoys_words_and_reaches_the_objects() {
    let mesh = Mesh::new();
    let (good, bad) = (mesh.connect(1, "good"), mesh.connect(2, "bad"));
    let route = mesh.snapshot.resources(ResourceType::Route).keys().next().cloned().unwrap();
    for peer in [&good, &bad] {
        mesh.send(peer, ResourceType::Route);
    }
    mesh.acknowledge(&good, ResourceType::Route, 0);
    mesh.refuse(&bad, ResourceType::Route, &route, Blame::Exact);

    let status = mesh.status();
    let (of_bad, of_good) = (&status.gateways[0], &status.gateways[1]);
    assert_eq!(states(of_good), [("RouteConfiguration", State::Acknowledged)]);
    assert_eq!(states(of_bad), [("RouteConfiguration", State::Refused)]);
    let refusal = &of_bad.types[0].refusals[0];
    assert_eq!((refusal.resource.as_str(), refusal.message.as_str()), (route.as_str(), "Envoy's own words"));
    let table = "RouteTable/gateway/web@cluster-1";
    assert!(refusal.owners.iter().any(|owner| owner == table), "{refusal:?}");
    assert!(status.objects.iter().any(|object| object.object == table), "an object without findings is told too");

    let holdings = state::holdings_of_object(&mesh.sources, &table.parse().unwrap());
    let told: Vec<(&str, State, &str)> =
        holdings.iter().map(|holding| (holding.node.as_str(), holding.state(), holding.message.as_str())).collect();
    assert_eq!(told, [("bad", State::Refused, "Envoy's own words"), ("good", State::Acknowledged, "")]);
}

#[test]
fn what_is_not_in_force_is_told_as_refused_also_where_the_accepted_version_is_held() {
    let mesh = Mesh::new();
    let peer = mesh.connect(1, "envoy-1");
    let (name, resource) =
        mesh.snapshot.resources(ResourceType::Route).iter().next().map(|(n, r)| (n.clone(), r.clone())).unwrap();
    mesh.send(&peer, ResourceType::Route);
    mesh.acknowledge(&peer, ResourceType::Route, 0);
    let newcomer = "RouteTable/gateway/new@cluster-1";
    let withheld = crate::publish::Withheld {
        version: crate::snapshot::Version::new("compiled"),
        owners: resource.owners.iter().cloned().chain([newcomer.parse().unwrap()]).collect(),
        message: "no such filter".into(),
    };
    let key =
        GatewayKey { gateway: GATEWAY.parse().unwrap(), bind: "0.0.0.0".into(), envoy: EnvoyRelease::serving(None) };
    mesh.sources.publisher.withhold(&key, [((ResourceType::Route, name.clone()), withheld)].into());
    for object in [newcomer, "RouteTable/gateway/web@cluster-1"] {
        let holdings = state::holdings_of_object(&mesh.sources, &object.parse().unwrap());
        let routes = holdings.iter().find(|holding| holding.resource == *name).expect(object);
        assert_eq!((routes.state(), routes.version.as_str()), (State::Refused, "compiled"));
        assert_eq!(routes.message, "not in force, the last accepted version is; refused: no such filter");
    }
    // What is served is held, so the gateway itself is up to date.
    assert_eq!(states(&mesh.status().gateways[0]), [("RouteConfiguration", State::Acknowledged)]);
}

#[test]
fn what_travelled_with_something_bad_is_behind_not_refused() {
    let mesh = Mesh::new();
    let peer = mesh.connect(1, "envoy-1");
    let cluster = mesh.snapshot.resources(ResourceType::Cluster).keys().next().cloned().unwrap();
    mesh.send(&peer, ResourceType::Cluster);
    mesh.refuse(&peer, ResourceType::Cluster, &cluster, Blame::Suspected);
    assert_eq!(states(&mesh.status().gateways[0]), [("Cluster", State::Behind)]);
}

#[test]
fn two_streams_of_one_node_are_one_gateway_and_the_graver_state_counts() {
    let mesh = Mesh::new();
    let (clusters, routes) = (mesh.connect(1, "envoy-1"), mesh.connect(2, "envoy-1"));
    mesh.send(&clusters, ResourceType::Cluster);
    mesh.acknowledge(&clusters, ResourceType::Cluster, 0);
    mesh.send(&routes, ResourceType::Route);
    assert_eq!(
        states(&mesh.status().gateways[0]),
        [("Cluster", State::Acknowledged), ("RouteConfiguration", State::Behind)]
    );
    mesh.send(&routes, ResourceType::Cluster);
    assert_eq!(states(&mesh.status().gateways[0])[0], ("Cluster", State::Behind));

    // The target port of the demo's gateway Service.
    let holdings = state::holdings_of_request(&mesh.sources, GATEWAY, 18080, "www.example.com");
    let told: Vec<(&str, State)> = holdings.iter().map(|h| (h.resource.as_str(), h.state())).collect();
    assert_eq!(told, [("listener/18080", State::Behind), ("route/18080", State::Behind)]);
}

#[test]
fn metrics_follow_what_gateways_do() {
    let mesh = Mesh::new();
    let peer = mesh.connect(1, "envoy-1");
    let route: Name = mesh.snapshot.resources(ResourceType::Route).keys().next().cloned().unwrap();
    mesh.send(&peer, ResourceType::Listener);
    mesh.acknowledge(&peer, ResourceType::Listener, 0);
    mesh.send(&peer, ResourceType::Route);
    mesh.refuse(&peer, ResourceType::Route, &route, Blame::Exact);
    let text = metering::write(&mesh.sources, crate::telemetry::metrics::Exposition::Text);
    for line in [
        "chancery_xds_gateways_connected 1",
        "chancery_xds_streams{type=\"Listener\"} 1",
        "chancery_xds_pushes_total{type=\"Listener\"} 1",
        "chancery_xds_acknowledgement_seconds_count{type=\"Listener\"} 1",
        "chancery_xds_nacks_total{type=\"RouteConfiguration\",kind=\"RouteTable\"} 1",
        "chancery_snapshots 1",
        "chancery_objects{kind=\"RouteTable\",state=\"ACCEPTED\"} 3",
    ] {
        assert!(text.lines().any(|found| found == line), "no `{line}` in:\n{text}");
    }
    let foreign = ["envoy-1", "recommendation", "ingress-gateway", route.as_str()];
    assert!(!foreign.iter().any(|name| text.contains(name)), "names are no labels:\n{text}");
    mesh.tell(Observation::Disconnected(peer));
    let text = metering::write(&mesh.sources, crate::telemetry::metrics::Exposition::Text);
    assert!(text.contains("chancery_xds_gateways_connected 0\n") && !text.contains("chancery_xds_streams{"), "{text}");
}
