//! The compiler that keeps against the one that does not, step by step.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::TestCaseError;
use serde_json::{Value, json};

use crate::compile::{Compiled, compile};
use crate::crd::{Change, Object};
use crate::ir::trust::Signer;
use crate::model::{Code, FieldPath, Location, ObjectRef, SecretBytes, Severity};
use crate::resolve::RequireAuth;
use crate::resolve::gateway::class_of_one;
use crate::resolve::trust::KeptRoot;
use crate::resolve::world::World as _;
use crate::testing::authority::Authority;
use crate::testing::decode;
use crate::testing::mutation::{Mutation, WORLDS_AS_WRITTEN, World, apply, mutation, options};

use super::*;

mod large;
mod layers;
mod mesh;
mod protecting;

/// How many scripts are tried.
const SCRIPTS: u32 = 150;

/// A compiler, the store that it follows, and what it remembers.
struct Pair {
    store: Store,
    compiler: Compiler,
    remembered: Arc<Remembered>,
    wanted: BTreeSet<GatewayId>,
    options: Options,
    /// What is given beside the source's findings.
    said: Findings,
}

/// What a server may be told of the root that it keeps.
static ROOTS: LazyLock<Vec<KeptRoot>> = LazyLock::new(|| {
    let kept = |name: &str| {
        let made = Authority::new(name, None);
        let signer = Signer {
            id: name.into(),
            certificate: SecretBytes::new(made.certificate.as_bytes()),
            chain: SecretBytes::default(),
            key: SecretBytes::new(made.key.serialize_pem().as_bytes()),
        };
        KeptRoot::Kept { signer, authorities: SecretBytes::new(made.certificate.as_bytes()) }
    };
    vec![KeptRoot::NoPlace, KeptRoot::Missing, KeptRoot::Failed("full".into()), kept("one"), kept("two")]
});

impl Pair {
    fn new() -> Self {
        let compiler = Compiler::new(&options());
        Self {
            store: Store::default(),
            compiler,
            remembered: Arc::default(),
            wanted: BTreeSet::new(),
            options: options(),
            said: Findings::new(),
        }
    }

    /// Makes the store hold a world, by changes alone.
    fn put(&mut self, world: &World) -> Findings {
        let (objects, findings) = decode(world.clone());
        let mut once: BTreeMap<ObjectRef, Arc<Object>> = BTreeMap::new();
        for object in objects {
            once.entry(object.meta.id.clone()).or_insert(object);
        }
        let gone: Vec<ObjectRef> =
            self.store.objects().map(|object| object.meta.id.clone()).filter(|id| !once.contains_key(id)).collect();
        let changed = once.into_values().filter(|object| self.store.get(&object.meta.id) != Some(object));
        let batch: Vec<Change> = changed.map(Change::Put).chain(gone.into_iter().map(Change::Delete)).collect();
        self.store.apply(batch);
        findings
    }

    /// Compiles in both ways.
    fn compile(&mut self, given: &Findings) -> (Compiled, Compiled) {
        let kept = self.compiler.step(&self.store, given, &self.options, &self.wanted, &self.remembered);
        let afresh = compile(&self.store, given, &self.options, &self.wanted, &self.remembered);
        self.remembered = kept.remembered.clone();
        (kept, afresh)
    }

    fn step(&mut self, world: &World) -> Result<(), TestCaseError> {
        let mut given = self.put(world);
        given.extend(self.said.clone());
        let (kept, afresh) = self.compile(&given);
        same(&kept, &afresh)
    }

    /// Does what a step of a script does beside objects.
    fn play(&mut self, around: &Around) {
        match around {
            Around::Unread(is_unread) => {
                let at = Location { file: "broken.yaml".into(), line: 1, column: 1 };
                let finding = Finding::in_file(at, Severity::Error, Code::InvalidField, "no object can be read");
                self.said = is_unread.then_some(finding).into_iter().collect();
            }
            Around::Broken(index) => {
                let tables: Vec<ObjectRef> = self.tables().collect();
                if !tables.is_empty() {
                    let finding = Finding::error(index.get(&tables), Code::InvalidField, "the source says so");
                    self.said = vec![finding.at(FieldPath::new("spec.http").index(0))];
                }
            }
            Around::Root(index) => self.options.kept_root = index.get(&ROOTS).clone(),
            Around::RequireAuth(is_on) => {
                self.options.require_auth = if *is_on { RequireAuth::On } else { RequireAuth::Off };
            }
            Around::Wanted(index) => {
                let services = self.store.objects().filter(|object| object.meta.id.kind == Kind::Service);
                let services: Vec<ObjectRef> = services.map(|object| object.meta.id.clone()).collect();
                if !services.is_empty() {
                    self.wanted = [class_of_one(index.get(&services))].into();
                }
            }
        }
    }

    fn tables(&self) -> impl Iterator<Item = ObjectRef> {
        self.store.objects().map(|object| object.meta.id.clone()).filter(|id| id.kind == Kind::RouteTable)
    }
}

/// Whether two results are the same, by everything that can be asked of them.
fn same(kept: &Compiled, afresh: &Compiled) -> Result<(), TestCaseError> {
    prop_assert_eq!(kept.findings.to_vec(), afresh.findings.to_vec());
    prop_assert_eq!(kept.findings.len(), afresh.findings.len());
    prop_assert_eq!(&kept.bindings, &afresh.bindings);
    prop_assert!(kept.trees == afresh.trees, "other trees");
    let gateways = |compiled: &Compiled| compiled.plans.keys().cloned().collect::<Vec<_>>();
    prop_assert_eq!(gateways(kept), gateways(afresh));
    for (gateway, plan) in &afresh.plans {
        let own = &kept.plans[gateway];
        prop_assert_eq!(&own.listeners, &plan.listeners);
        prop_assert_eq!(&own.upstreams, &plan.upstreams);
        prop_assert!(own == plan, "another plan of {}", gateway);
    }
    prop_assert_eq!(&kept.verdicts, &afresh.verdicts);
    prop_assert_eq!(&kept.limits, &afresh.limits);
    prop_assert_eq!(&kept.remembered, &afresh.remembered);
    prop_assert_eq!(kept.inputs.roster(), afresh.inputs.roster());
    let ids = |compiled: &Compiled| compiled.objects.objects().map(|object| object.meta.id.clone()).collect::<Vec<_>>();
    prop_assert_eq!(ids(kept), ids(afresh));
    Ok(())
}

/// Lets some root tables freeze.
fn freeze_some(world: &mut World, every: usize) {
    let roots = world.iter_mut().filter(|(_, object)| object["spec"].get("hosts").is_some());
    for (_, table) in roots.step_by(every) {
        table["spec"]["failureMode"] = json!("FREEZE_CONFIG");
    }
}

/// Lets the gateways of a world show their own identity, under a root that is generated or from a Secret.
fn trust(world: &mut World, is_generated: bool) {
    for (_, gateway) in world.iter_mut().filter(|(_, object)| object["kind"] == "VirtualGateway") {
        if let Some(listener) = gateway["spec"]["listeners"].get_mut(0) {
            listener["tls"] = json!({"mode": "ISTIO_MUTUAL"});
        }
    }
    let (root, between) = &*AUTHORITIES;
    let source = if is_generated { json!({"generated": {}}) } else { json!({"secretRef": {"name": "ca"}}) };
    let metadata = |name: &str| json!({"name": name, "namespace": "gloo-mesh"});
    world.push((
        "mgmt".to_owned(),
        json!({
            "apiVersion": "admin.gloo.solo.io/v2", "kind": "RootTrustPolicy", "metadata": metadata("root"),
            "spec": {"config": {"mgmtServerCa": source}},
        }),
    ));
    world.push((
        "mgmt".to_owned(),
        json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": metadata("ca"), "stringData": {
                "ca-cert.pem": between.certificate, "ca-key.pem": between.key.serialize_pem(),
                "root-cert.pem": root.certificate,
            },
        }),
    ));
}

/// A root, and what it signed.
static AUTHORITIES: LazyLock<(Authority, Authority)> = LazyLock::new(|| {
    let root = Authority::new("root", None);
    let between = Authority::new("between", Some(&root));
    (root, between)
});

/// A policy that protects all routes of its workspace and is not supported, so that they are closed.
fn guard(world: &mut World, beside: Index) {
    let tables: Vec<&(String, Value)> = world.iter().filter(|(_, object)| object["kind"] == "RouteTable").collect();
    if tables.is_empty() {
        return;
    }
    let (cluster, table) = beside.get(&tables);
    let guard = json!({
        "apiVersion": "security.policy.gloo.solo.io/v2", "kind": "JWTPolicy",
        "metadata": {"name": "guard", "namespace": table["metadata"]["namespace"]},
        "spec": {"applyToRoutes": [{"route": {}}]},
    });
    let guard = (cluster.clone(), guard);
    world.push(guard);
}

/// An AccessPolicy beside a Service, or an account or Pod that one may be about, in place of what was there.
fn access(world: &mut World, beside: Index, which: Index) {
    let services: Vec<&(String, Value)> = world.iter().filter(|(_, object)| object["kind"] == "Service").collect();
    if services.is_empty() {
        return;
    }
    let (cluster, service) = beside.get(&services);
    let metadata = |name: &str, labels: &Value| json!({"name": name, "namespace": service["metadata"]["namespace"], "labels": labels});
    let policy = |spec: Value| {
        json!({
            "apiVersion": "security.policy.gloo.solo.io/v2", "kind": "AccessPolicy",
            "metadata": metadata("access", &Value::Null), "spec": spec,
        })
    };
    let account = |role: &str| json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata("one", &json!({"role": role}))});
    let pod = |account: &str| {
        json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": metadata("extra", &service["spec"]["selector"]),
            "spec": {"serviceAccountName": account}, "status": {"podIP": "10.9.9.9"},
        })
    };
    let by_label = json!({"authzList": [{"allowedClients": [{"serviceAccountSelector": {"labels": {"role": "a"}}}]}]});
    let by_name = json!({"authz": {"allowedClients": [{"serviceAccountSelector": {"name": "one"}}]}});
    let name = &service["metadata"]["name"];
    let objects = [
        policy(json!({"config": by_label})),
        policy(json!({"applyToDestinations": [{"selector": {"name": name}}], "config": by_name})),
        policy(
            json!({"applyToDestinations": [{"selector": {"name": name}}], "config": {"authzList": [{"dryRun": true}]}}),
        ),
        policy(json!({"applyToWorkloads": [{}], "config": by_label})),
        policy(json!({"applyToWorkloads": [{"selector": {"labels": service["spec"]["selector"]}}], "config": {
            "authn": {"tlsMode": "STRICT"}, "authzList": [{"allowedIpBlocks": ["10.0.0.0/8"]}]}})),
        policy(json!({"applyToWorkloads": [{"selector": {"labels": service["spec"]["selector"]}}]})),
        account("a"),
        account("b"),
        pod("one"),
        pod("two"),
    ];
    let object = (cluster.clone(), which.get(&objects).clone());
    replace(world, object);
}

/// Puts an object in place of the one that has its name.
pub(super) fn replace(world: &mut World, object: (String, Value)) {
    let id = |(cluster, object): &(String, Value)| {
        (
            cluster.clone(),
            object["kind"].clone(),
            object["metadata"]["namespace"].clone(),
            object["metadata"]["name"].clone(),
        )
    };
    let own = id(&object);
    world.retain(|other| id(other) != own);
    world.push(object);
}

/// An object that limits beside a Service, or one that such an object refers to, in place of what was there.
fn limit(world: &mut World, beside: Index, which: Index) {
    let services: Vec<&(String, Value)> = world.iter().filter(|(_, object)| object["kind"] == "Service").collect();
    if services.is_empty() {
        return;
    }
    let (cluster, service) = beside.get(&services);
    let namespace = &service["metadata"]["namespace"];
    let name = &service["metadata"]["name"];
    let port = &service["spec"]["ports"][0]["port"];
    let object = |group: &str, kind: &str, name: &str, spec: Value| {
        json!({"apiVersion": format!("{group}.gloo.solo.io/v2"), "kind": kind, "spec": spec,
            "metadata": {"name": name, "namespace": namespace}})
    };
    let policy = |name: &str, spec: Value| object("trafficcontrol.policy", "RateLimitPolicy", name, spec);
    let rules = |spec: Value| object("admin", "RateLimitServerConfig", "rules", spec);
    let here = json!({"ref": {"name": name}, "port": {"number": port}});
    let actions = json!({"rateLimits": [{"actions": [{"remoteAddress": {}}], "setActions": [{"remoteAddress": {}}]}]});
    let config =
        json!({"ratelimitServerConfig": {"name": "rules"}, "serverSettings": {"name": "settings"}, "raw": actions});
    let by_client = json!({"phase": {"preAuthz": {"priority": 3}}, "ratelimitServerConfig": {"name": "rules"},
        "serverSettings": {"name": "settings"}, "ratelimitClientConfig": {"name": "client"}});
    let limit = json!({"unit": "DAY", "requestsPerUnit": 1});
    let tree = json!({"descriptors": [{"key": "remote_address", "rateLimit": limit}]});
    let sets =
        json!({"setDescriptors": [{"rateLimit": limit}, {"simpleDescriptors": [{"key": "a"}], "rateLimit": limit}]});
    let objects = [
        policy("limits", json!({"applyToRoutes": [{}], "config": config})),
        policy("limits", json!({"config": config})),
        policy("more", json!({"applyToRoutes": [{"route": {}}], "config": by_client})),
        policy("more", json!({"applyToRoutes": [{"route": {}}], "config": {"raw": {}}})),
        rules(json!({"destinationServers": [here], "raw": tree})),
        rules(json!({"destinationServers": [here, {"ref": {"name": "gone"}}], "raw": sets})),
        rules(json!({"destinationServers": [{"ref": {"name": "gone"}}], "raw": tree})),
        object("admin", "RateLimitServerConfig", "other", json!({"destinationServers": [here], "raw": sets})),
        object("admin", "RateLimitServerSettings", "settings", json!({"destinationServer": here})),
        object("admin", "RateLimitServerSettings", "settings", json!({"destinationServer": here, "denyOnFail": true})),
        object("admin", "RateLimitServerSettings", "settings", json!({"destinationServer": {"ref": {"name": "gone"}}})),
        object("trafficcontrol.policy", "RateLimitClientConfig", "client", json!({"raw": actions})),
        object("trafficcontrol.policy", "RateLimitClientConfig", "client", json!({"raw": {}})),
    ];
    let object = (cluster.clone(), which.get(&objects).clone());
    let is_same = |other: &(String, Value)| {
        other.0 == object.0
            && ["kind"].iter().all(|field| other.1[field] == object.1[field])
            && ["namespace", "name"].iter().all(|field| other.1["metadata"][field] == object.1["metadata"][field])
    };
    world.retain(|other| !is_same(other));
    world.push(object);
}

/// An ExtAuthPolicy beside a Service, or a server or key that one may be about, in place of what was there.
fn ext_auth(world: &mut World, beside: Index, which: Index) {
    let services: Vec<&(String, Value)> = world.iter().filter(|(_, object)| object["kind"] == "Service").collect();
    if services.is_empty() {
        return;
    }
    let (cluster, service) = beside.get(&services);
    let port = &service["spec"]["ports"][0]["port"];
    let metadata =
        |name: &str| json!({"name": name, "namespace": service["metadata"]["namespace"], "labels": {"keys": "yes"}});
    let policy = |name: &str, targets: Value, config: Value| {
        let mut spec = targets;
        spec["config"] = config;
        json!({
            "apiVersion": "security.policy.gloo.solo.io/v2", "kind": "ExtAuthPolicy", "metadata": metadata(name), "spec": spec,
        })
    };
    let server = |name: &str, spec: Value| json!({"apiVersion": "admin.gloo.solo.io/v2", "kind": "ExtAuthServer", "metadata": metadata(name), "spec": spec});
    let key = |name: &str, kind: &str, key: &str| {
        json!({
            "apiVersion": "v1", "kind": "Secret", "type": kind, "metadata": metadata(name), "stringData": {"api-key": key},
        })
    };
    let reference = json!({"ref": {"name": service["metadata"]["name"]}, "port": {"number": port}});
    let (routes, all) = (json!({"applyToRoutes": [{"route": {}}]}), json!({}));
    let keys = json!({"k8sSecretApikeyStorage": {"labelSelector": {"keys": "yes"}}});
    let named = json!({"k8sSecretApikeyStorage": {"apiKeySecretRefs": [{"name": "key"}]}});
    let either =
        json!({"configs": [{"name": "a", "apiKeyAuth": keys}, {"name": "b", "jwt": {}}], "booleanExpr": "a || b"});
    const KIND: &str = "extauth.solo.io/apikey";
    let objects = [
        policy("ask", routes.clone(), json!({"customAuth": {}})),
        policy("ask", all.clone(), json!({"customAuth": {}, "server": {"name": "other"}})),
        policy("keys", routes.clone(), json!({"glooAuth": {"configs": [{"apiKeyAuth": keys}]}})),
        policy("keys", all, json!({"glooAuth": {"configs": [{"apiKeyAuth": named}]}})),
        policy("keys", routes, json!({"glooAuth": either})),
        server("first", json!({"destinationServer": reference})),
        server("first", json!({"destinationServer": reference, "failureModeAllow": true})),
        server("other", json!({"destinationServer": reference, "statusOnError": 503, "httpService": {}})),
        server("other", json!({"destinationServer": {"ref": {"name": "lost"}}})),
        key("key", KIND, "one"),
        key("key", "Opaque", "one"),
        key("twin", KIND, "one"),
        key("twin", KIND, "two"),
    ];
    let object = (cluster.clone(), which.get(&objects).clone());
    replace(world, object);
}

/// An external service beside a Service, with whatever its endpoints and TLS are made of, and routes that lead there, in place
/// of what was there.
fn external(world: &mut World, beside: Index, which: Index) {
    let tables: Vec<&(String, Value)> = world.iter().filter(|(_, object)| object["kind"] == "RouteTable").collect();
    let services: Vec<&(String, Value)> = world.iter().filter(|(_, object)| object["kind"] == "Service").collect();
    if tables.is_empty() || services.is_empty() {
        return;
    }
    let (cluster, table) = beside.get(&tables);
    let (_, service) = beside.get(&services);
    let namespace = &table["metadata"]["namespace"];
    let metadata =
        |name: &str, namespace: &Value| json!({"name": name, "namespace": namespace, "labels": {"app": "pay"}});
    let object = |kind: &str, name: &str, spec: Value| json!({"apiVersion": "networking.gloo.solo.io/v2", "kind": kind, "metadata": metadata(name, namespace), "spec": spec});
    let policy = |targets: Value, config: Value| {
        json!({
            "apiVersion": "security.policy.gloo.solo.io/v2", "kind": "ClientTLSPolicy",
            "metadata": metadata("tls", namespace), "spec": {"applyToDestinations": targets, "config": config},
        })
    };
    let own = json!([{"selector": {"name": service["metadata"]["name"]}}]);
    let all = json!([{"kind": "EXTERNAL_SERVICE"}, {"kind": "VIRTUAL_DESTINATION"}, {"selector": {"labels": {"app": "pay"}}}]);
    let mutual = json!({"mutual": {"config": {"credentialName": "pay"}}});
    let mut routed = (*table).clone();
    for (kind, name) in [("EXTERNAL_SERVICE", "pay"), ("VIRTUAL_DESTINATION", "pays"), ("SERVICE", "pod")] {
        let route = json!({
            "name": name, "matchers": [{"uri": {"exact": format!("/{name}")}}],
            "forwardTo": {"destinations": [{"ref": {"name": name, "namespace": namespace}, "kind": kind, "port": {"number": 80}}]},
        });
        if let Some(routes) = routed.pointer_mut("/spec/http").and_then(Value::as_array_mut) {
            routes.insert(0, route);
        }
    }
    let gateways = world.iter().filter(|(_, object)| object["kind"] == "VirtualGateway");
    let at_gateway = gateways.map(|(_, gateway)| gateway["metadata"]["namespace"].clone()).next().unwrap_or_default();
    let (pair, _) = &*AUTHORITIES;
    let port = |tls: Value| json!([{"number": 80, "name": "web", "protocol": "HTTP", "targetPort": {"number": 443}, "clientsideTls": tls}]);
    let named = json!([{"number": 80, "protocol": "HTTPS", "targetPort": {"name": "web"}}]);
    let objects = [
        routed.clone(),
        routed,
        object("ExternalService", "pay", json!({"hosts": ["pay.example"], "selector": {"app": "pay"}, "ports": named})),
        object(
            "ExternalService",
            "pay",
            json!({"hosts": ["*.pay.example"], "selector": {"app": "pay"}, "ports": port(json!({}))}),
        ),
        object(
            "ExternalService",
            "pay",
            json!({"addresses": ["192.0.2.1"], "ports": port(json!({"mode": "ISTIO_MUTUAL"}))}),
        ),
        object("ExternalService", "again", json!({"addresses": ["192.0.2.1"], "ports": port(json!({}))})),
        object(
            "ExternalService",
            "pay",
            json!({"hosts": ["pay.example"], "ports": port(json!({"mode": "MUTUAL", "credentialName": "pay"}))}),
        ),
        object("ExternalEndpoint", "one", json!({"address": "10.9.9.9", "ports": [{"name": "web", "number": 443}]})),
        object(
            "ExternalEndpoint",
            "two",
            json!({"address": "a.pay.example", "ports": [{"name": "web", "number": 443}]}),
        ),
        object("ExternalEndpoint", "two", json!({"address": "unix:///run/pay.sock"})),
        object(
            "VirtualDestination",
            "pays",
            json!({"services": [{"name": service["metadata"]["name"]}], "externalServices": [{}],
                "ports": [{"number": 80, "protocol": "HTTPS", "targetPort": service["spec"]["ports"][0]["port"]}]}),
        ),
        object(
            "VirtualDestination",
            "pays",
            json!({"externalServices": [{"labels": {"app": "pay"}}], "ports": [{"number": 80, "protocol": "HTTP"}]}),
        ),
        json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata("pod", namespace),
            "spec": {"selector": {"app": "pay"}, "ports": [{"name": "https", "port": 80, "targetPort": 8443}]}}),
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata("pay", &at_gateway),
            "stringData": {"tls.crt": pair.certificate, "tls.key": pair.key.serialize_pem()}}),
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata("pay", &at_gateway), "stringData": {"tls.crt": "none"}}),
        policy(own.clone(), mutual.clone()),
        policy(all.clone(), mutual),
        policy(all, json!({"disable": {}})),
        policy(own, json!({"istioMutual": {}})),
    ];
    let object = (cluster.clone(), which.get(&objects).clone());
    replace(world, object);
}

/// What changes beside objects.
#[derive(Clone, Debug)]
enum Around {
    /// Some file holds nothing that can be read, or that is over.
    Unread(bool),
    /// The source finds the routes of a table wrong.
    Broken(Index),
    /// The server keeps another root of trust.
    Root(Index),
    /// The default-deny switch.
    RequireAuth(bool),
    /// A class of gateways is asked for.
    Wanted(Index),
}

/// What one step of a script does.
#[derive(Clone, Debug)]
enum Act {
    /// Several things go wrong at once.
    Break(Vec<Mutation>),
    /// Everything is as it was in the beginning.
    Restore,
    /// One object is as it was in the beginning, or there again.
    Mend(Index),
    /// One object is gone.
    Delete(Index),
    /// Routes are closed by a policy.
    Guard(Index),
    /// Somebody may call something, or another is somebody.
    Access(Index, Index),
    /// Requests are limited, or by other rules.
    Limit(Index, Index),
    /// Requests have to show who sends them, or are asked about by others.
    ExtAuth(Index, Index),
    /// Something is outside the clusters, or is spoken to in TLS.
    External(Index, Index),
    /// Clients inside a cluster find something, or are somebody.
    Mesh(Index, Index),
    /// Something else than objects.
    Around(Around),
    /// Nothing changes.
    Nothing,
}

fn around() -> impl Strategy<Value = Around> {
    prop_oneof![
        3 => any::<bool>().prop_map(Around::Unread),
        2 => any::<Index>().prop_map(Around::Broken),
        3 => any::<Index>().prop_map(Around::Root),
        1 => any::<bool>().prop_map(Around::RequireAuth),
        1 => any::<Index>().prop_map(Around::Wanted),
    ]
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => prop::collection::vec(mutation(), 1..4).prop_map(Act::Break),
        1 => Just(Act::Restore),
        3 => any::<Index>().prop_map(Act::Mend),
        2 => any::<Index>().prop_map(Act::Delete),
        1 => any::<Index>().prop_map(Act::Guard),
        5 => any::<(Index, Index)>().prop_map(|(beside, which)| Act::Access(beside, which)),
        8 => any::<(Index, Index)>().prop_map(|(beside, which)| Act::Limit(beside, which)),
        5 => any::<(Index, Index)>().prop_map(|(beside, which)| Act::ExtAuth(beside, which)),
        9 => any::<(Index, Index)>().prop_map(|(beside, which)| Act::External(beside, which)),
        10 => any::<(Index, Index)>().prop_map(|(beside, which)| Act::Mesh(beside, which)),
        4 => around().prop_map(Act::Around),
        1 => Just(Act::Nothing),
    ]
}

fn play(world: &mut World, first: &World, act: &Act) {
    match act {
        Act::Break(mutations) => mutations.iter().for_each(|mutation| apply(world, mutation)),
        Act::Restore => world.clone_from(first),
        Act::Mend(index) => {
            let (cluster, object) = index.get(first);
            let is_it = |other: &Value| other["kind"] == object["kind"] && other["metadata"] == object["metadata"];
            world.retain(|(_, other)| !is_it(other));
            world.push((cluster.clone(), object.clone()));
        }
        Act::Delete(index) => {
            if !world.is_empty() {
                world.remove(index.index(world.len()));
            }
        }
        Act::Guard(beside) => guard(world, *beside),
        Act::Access(beside, which) => access(world, *beside, *which),
        Act::Limit(beside, which) => limit(world, *beside, *which),
        Act::ExtAuth(beside, which) => ext_auth(world, *beside, *which),
        Act::External(beside, which) => external(world, *beside, *which),
        Act::Mesh(beside, which) => mesh::mesh(world, *beside, *which),
        Act::Around(_) | Act::Nothing => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: SCRIPTS,
        failure_persistence: None,
        max_shrink_iters: 400,
        ..ProptestConfig::default()
    })]

    #[test]
    fn r2_after_every_step_the_result_is_what_compiling_from_scratch_gives(
        world in any::<Index>(),
        freezing in 0_usize..4,
        trusting in 0_usize..3,
        script in prop::collection::vec(act(), 1..14),
    ) {
        let mut first = world.get(&WORLDS_AS_WRITTEN).clone();
        if freezing > 0 {
            freeze_some(&mut first, freezing);
        }
        if trusting > 0 {
            trust(&mut first, trusting == 1);
        }
        let mut world = first.clone();
        let mut pair = Pair::new();
        pair.step(&world)?;
        for act in &script {
            play(&mut world, &first, act);
            if let Act::Around(around) = act {
                pair.play(around);
            }
            pair.step(&world)?;
        }
    }

    #[test]
    fn r2_the_order_of_arrival_does_not_matter_to_what_is_kept(
        world in any::<Index>(),
        order in any::<u64>(),
        batch in 1_usize..5,
    ) {
        let world = world.get(&WORLDS_AS_WRITTEN).clone();
        let mut arriving: Vec<(u64, (String, Value))> = world.iter().cloned().enumerate().map(|(index, object)| {
            let mixed = (index as u64 + 1).wrapping_mul(order | 1).rotate_left(17).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            (mixed, object)
        }).collect();
        arriving.sort_by_key(|(mixed, _)| *mixed);
        let mut pair = Pair::new();
        let mut now = World::new();
        for objects in arriving.chunks(batch) {
            now.extend(objects.iter().map(|(_, object)| object.clone()));
            pair.step(&now)?;
        }
    }
}
