//! What an emitter makes of a plan is what is made of it from scratch, whatever it made before.

use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::prelude::*;

use crate::ir::secret::SecretPart;
use crate::ir::{GatewayPlan, Secret, SecretId, Serves, VirtualHost};
use crate::model::{Host, Kind, SecretBytes};
use crate::snapshot::verify::{Verifier, verify};
use crate::snapshot::{ResourceType, Snapshot};

use super::testing::*;
use super::{EmitOptions, Emitter, Form, Layout, Parts, Ready, emit_gateway, emit_gateway_after};

/// Few routes, so that edits cross the threshold.
const THRESHOLD: usize = 24;

fn options() -> EmitOptions {
    EmitOptions { cut_from_routes: THRESHOLD, ..EmitOptions::default() }
}

/// One step of a script.
#[derive(Clone, Debug)]
enum Edit {
    /// A host with as many routes to some service.
    Put {
        host: usize,
        routes: usize,
        service: usize,
    },
    RemoveHost(usize),
    /// An endpoint of a service moves.
    Endpoint {
        service: usize,
        port: u16,
    },
    RemoveService(usize),
    /// Transports of a service come, or go with 0.
    Transports {
        service: usize,
        remotes: u8,
    },
    /// The listener's other chain comes or goes, whose hosts are misdirected here.
    Misdirected(Vec<usize>),
    Port(u16),
    RemovePort(u16),
    Secret(u8),
    RemoveSecret,
    /// Nothing changes, and all values are made anew.
    Rebuild,
    /// What stands by is not needed any more.
    Settle,
    /// Gateways have what is prepared.
    Ready,
    /// From now on nothing is cut, or something is again.
    CutFrom(usize),
}

const HOSTS: usize = 24;

fn domain(host: usize) -> String {
    match host {
        0 => "*.example".to_owned(),
        1 => "*".to_owned(),
        host => format!("site-{host}.example"),
    }
}

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let edit = prop_oneof![
        10 => (0..HOSTS, 0..6_usize, 0..4_usize).prop_map(|(host, routes, service)| Edit::Put { host, routes, service }),
        5 => (0..HOSTS).prop_map(Edit::RemoveHost),
        3 => (0..4_usize, 1..9_u16).prop_map(|(service, port)| Edit::Endpoint { service, port }),
        1 => (0..4_usize).prop_map(Edit::RemoveService),
        2 => (0..4_usize, 0..3_u8).prop_map(|(service, remotes)| Edit::Transports { service, remotes }),
        1 => proptest::collection::vec(0..HOSTS, 0..3).prop_map(Edit::Misdirected),
        1 => (8081..8083_u16).prop_map(Edit::Port),
        1 => (8081..8083_u16).prop_map(Edit::RemovePort),
        1 => (0..3_u8).prop_map(Edit::Secret),
        1 => Just(Edit::RemoveSecret),
        2 => Just(Edit::Rebuild),
        2 => Just(Edit::Settle),
        2 => Just(Edit::Ready),
        1 => prop_oneof![Just(THRESHOLD), Just(usize::MAX)].prop_map(Edit::CutFrom),
    ];
    proptest::collection::vec(edit, 1..40)
}

fn secret_id() -> SecretId {
    SecretId { object: object(Kind::Secret, "cert"), part: SecretPart::KeyPair }
}

fn build_host(host: usize, routes: usize, service: usize) -> VirtualHost {
    let one = |number: usize| {
        route(&format!("r{number}")).prefix(&format!("/{number}")).forward(&format!("service-{service}"), 100)
    };
    self::host(&domain(host), (0..routes).map(one))
}

fn apply(plan: &mut GatewayPlan, edit: &Edit) {
    let hosts = |plan: &mut GatewayPlan, change: &dyn Fn(&mut Vec<Arc<VirtualHost>>)| {
        for listener in plan.listeners.values_mut().map(Arc::make_mut) {
            for chain in &mut listener.chains {
                if let Serves::Http(http) = &mut chain.serves {
                    change(&mut http.virtual_hosts);
                    http.virtual_hosts.sort_by(|a, b| a.domain.cmp(&b.domain));
                    let own: BTreeSet<Host> = http.virtual_hosts.iter().map(|host| host.domain.clone()).collect();
                    http.misdirected.retain(|host| !own.contains(host));
                }
            }
        }
    };
    match edit {
        Edit::Put { host, routes, service } => {
            let new = Arc::new(build_host(*host, *routes, *service));
            hosts(plan, &|list| {
                list.retain(|old| old.domain != new.domain);
                list.push(new.clone());
            });
        }
        Edit::RemoveHost(host) => hosts(plan, &|list| list.retain(|old| old.domain.as_str() != domain(*host))),
        Edit::Endpoint { service, port } => {
            let mut changed = upstream(&format!("service-{service}"));
            changed.endpoints.values_mut().flatten().for_each(|endpoint| endpoint.port = *port);
            plan.upstreams.insert(changed.id.clone(), Arc::new(changed));
        }
        Edit::Transports { service, remotes } => {
            let mut changed = upstream(&format!("service-{service}"));
            changed.remotes = (0..*remotes).map(|number| remote(&format!("far-{number}"))).collect();
            plan.upstreams.insert(changed.id.clone(), Arc::new(changed));
        }
        Edit::RemoveService(number) => drop(plan.upstreams.remove(&service(&format!("service-{number}")))),
        Edit::Misdirected(others) => {
            for chain in plan.listeners.values_mut().flat_map(|listener| &mut Arc::make_mut(listener).chains) {
                if let Serves::Http(http) = &mut chain.serves {
                    let others = others.iter().map(|host| Host::parse(&domain(*host)).unwrap());
                    http.misdirected =
                        others.filter(|host| http.virtual_hosts.iter().all(|own| own.domain != *host)).collect();
                }
            }
        }
        Edit::Port(port) => {
            let mut listener = plan.listeners[&8080].clone();
            Arc::make_mut(&mut listener).bind_port = *port;
            plan.listeners.insert(*port, listener);
        }
        Edit::RemovePort(port) => drop(plan.listeners.remove(port)),
        Edit::Secret(content) => {
            let bytes = |text: String| SecretBytes::new(text.as_bytes());
            let content = Secret::KeyPair {
                chain: bytes(format!("chain {content}")),
                key: bytes(format!("key {content}")),
                ocsp_staple: None,
            };
            plan.secrets.insert(secret_id(), content);
        }
        Edit::RemoveSecret => drop(plan.secrets.remove(&secret_id())),
        Edit::Settle | Edit::Ready | Edit::CutFrom(_) => {}
        Edit::Rebuild => {
            let upstreams = plan.upstreams.iter();
            plan.upstreams = upstreams.map(|(id, upstream)| (id.clone(), Arc::new((**upstream).clone()))).collect();
            hosts(plan, &|list| list.iter_mut().for_each(|host| *host = Arc::new((**host).clone())));
        }
    }
}

/// Types and resources whose content is the same are the same in memory.
fn shares(before: &Snapshot, now: &Snapshot) -> Result<(), TestCaseError> {
    for resource_type in ResourceType::ALL {
        let (older, newer) = (before.resources(resource_type), now.resources(resource_type));
        if older == newer && !older.is_empty() {
            prop_assert!(Arc::ptr_eq(&older, &newer), "{:?} did not change", resource_type);
        }
        for (name, resource) in newer.iter() {
            if let Some(before) = older.get(name).filter(|before| before == &resource) {
                prop_assert!(Arc::ptr_eq(before, resource), "{} did not change", name);
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Bytes, versions, owners, and the checker's verdict.
    #[test]
    fn an_emitter_and_its_checker_agree_with_those_from_scratch(script in edits(), is_uncertain in any::<bool>()) {
        let mut plan = plan([], (0..4).map(|number| upstream(&format!("service-{number}"))));
        let layout = if is_uncertain { Layout::uncertain() } else { Layout::default() };
        let (mut emitter, mut verifier) = (Emitter::new(layout), Verifier::new());
        let (mut last, mut options) = (Snapshot::new(), options());
        for edit in &script {
            apply(&mut plan, edit);
            match edit {
                Edit::Settle => emitter.settle(),
                Edit::Ready => emitter.ready(Ready::Everything),
                Edit::CutFrom(routes) => options.cut_from_routes = *routes,
                _ => {}
            }
            let before = emitter.layout().clone();
            let snapshot = emitter.emit(&plan, &options);
            prop_assert!(snapshot == emit_gateway_after(&plan, &options, &before), "after {:?}", edit);
            shares(&last, &snapshot)?;
            prop_assert_eq!(verifier.verify(&snapshot), verify(&snapshot), "after {:?}", edit);
            last = snapshot;
        }
    }
}

/// Names of a type that differ between two snapshots.
fn changed(before: &Snapshot, now: &Snapshot, resource_type: ResourceType) -> Vec<String> {
    let (before, now) = (before.resources(resource_type), now.resources(resource_type));
    let names: BTreeSet<_> = before.keys().chain(now.keys()).collect();
    names.into_iter().filter(|name| before.get(*name) != now.get(*name)).map(ToString::to_string).collect()
}

/// Emits a plan whose chain is cut, after what has to be there before.
fn emit_cut(emitter: &mut Emitter, plan: &GatewayPlan) -> Snapshot {
    let before = emitter.emit(plan, &options());
    assert!(!emitter.layout().preparing().is_empty() && !emitter.layout().is_cut());
    emitter.ready(Ready::Everything);
    let cut = emitter.emit(plan, &options());
    assert_eq!(changed(&before, &cut, ResourceType::Listener), ["listener/8080"]);
    assert!(changed(&before, &cut, ResourceType::ScopedRoute).is_empty(), "they were not all there");
    assert_eq!(changed(&before, &cut, ResourceType::Route), ["route/8080"]);
    cut
}

#[test]
fn an_edit_of_a_cut_chain_changes_one_part() {
    let hosts =
        |changed: Option<usize>| (2..50).map(move |number| build_host(number, 2, usize::from(changed == Some(number))));
    let services = || ["service-0", "service-1"].map(upstream);
    let mut emitter = Emitter::default();
    let before = emit_cut(&mut emitter, &plan(hosts(None), services()));
    assert_eq!(verify(&before), []);
    assert!(emitter.layout().form(8080, "") == Some(Form::Cut(Parts::Fine)));
    let parts = before.resources(ResourceType::Route).len();
    assert!(parts > 40, "{parts} parts for 48 hosts");
    let after = emitter.emit(&plan(hosts(Some(7)), services()), &options());
    assert_eq!(changed(&before, &after, ResourceType::Route).len(), 1);
    for unchanged in [ResourceType::Listener, ResourceType::ScopedRoute, ResourceType::Cluster] {
        assert!(changed(&before, &after, unchanged).is_empty(), "{unchanged:?}");
    }
    // A host more: its part and at most its scope.
    let more = emitter.emit(&plan(hosts(Some(7)).chain([build_host(99, 1, 0)]), services()), &options());
    assert_eq!(changed(&after, &more, ResourceType::Route).len(), 1);
    assert!(changed(&after, &more, ResourceType::ScopedRoute).len() <= 1);
    // Fewer are left: the layout stays, so no connection is drained.
    let fewer = emitter.emit(&plan((2..6).map(|number| build_host(number, 2, 0)), services()), &options());
    assert!(changed(&more, &fewer, ResourceType::Listener).is_empty());
    assert_eq!(fewer.resources(ResourceType::Route).len(), 4);
    assert_eq!(verify(&fewer), []);
}

#[test]
fn parts_stand_by_for_connections_that_end() {
    let hosts = |number: usize, service| (2..2 + number).map(move |host| build_host(host, 1, service));
    let services = || ["service-0", "service-1"].map(upstream);
    let mut emitter = Emitter::default();
    let cut = emit_cut(&mut emitter, &plan(hosts(THRESHOLD, 0), services()));
    assert_eq!(emitter.layout().form(8080, ""), Some(Form::Cut(Parts::Fine)));
    assert!(cut.get(ResourceType::Route, "route/8080").is_none());
    let back = emitter.emit(&plan(hosts(4, 0), services()), &options());
    assert!(emitter.layout().is_standing_by());
    assert_eq!(changed(&cut, &back, ResourceType::Listener), ["listener/8080"]);
    // The whole, and a part for each host, with edits.
    let edited = emitter.emit(&plan(hosts(3, 0).chain([build_host(5, 1, 1)]), services()), &options());
    let differs = changed(&back, &edited, ResourceType::Route);
    assert!(differs.len() == 2 && differs[0] == "route/8080" && differs[1].starts_with("route/8080/"), "{differs:?}");
    assert_eq!(edited.resources(ResourceType::ScopedRoute).len(), 4);
    assert_eq!(verify(&edited), []);
    emitter.settle();
    let settled = emitter.emit(&plan(hosts(4, 0), services()), &options());
    assert_eq!(settled.resources(ResourceType::Route).keys().collect::<Vec<_>>(), ["route/8080"]);
    assert!(settled.resources(ResourceType::ScopedRoute).is_empty() && !emitter.layout().is_standing_by());
    assert_eq!(verify(&settled), []);
}

#[test]
fn fine_parts_stand_by_when_a_host_with_a_wildcard_comes() {
    let exact = |service| (2..62).map(move |host| build_host(host, 20, if host == 7 { service } else { 0 }));
    let wild = |service| exact(service).chain([build_host(0, 1, 0)]);
    let services = || ["service-0", "service-1"].map(upstream);
    let mut emitter = Emitter::default();
    let fine = emit_cut(&mut emitter, &plan(exact(0), services()));
    assert_eq!(emitter.layout().form(8080, ""), Some(Form::Cut(Parts::Fine)));
    let names_of = |snapshot: &Snapshot| -> BTreeSet<String> {
        snapshot.resources(ResourceType::ScopedRoute).keys().map(ToString::to_string).collect()
    };
    let before = emitter.layout().clone();
    let prepared = emitter.emit(&plan(wild(0), services()), &options());
    assert_eq!(emitter.layout().form(8080, ""), Some(Form::Preparing { from: Some(Parts::Fine), to: Parts::Coarse }));
    assert!(prepared == emit_gateway_after(&plan(wild(0), services()), &options(), &before));
    assert!(changed(&fine, &prepared, ResourceType::Listener).is_empty());
    assert_eq!(names_of(&prepared).len(), 1024 + 4096);
    assert_eq!(verify(&prepared), []);
    emitter.ready(Ready::Everything);
    let before = emitter.layout().clone();
    let both = emitter.emit(&plan(wild(0), services()), &options());
    assert_eq!(emitter.layout().form(8080, ""), Some(Form::CutAnew(Parts::Coarse)));
    assert!(both == emit_gateway_after(&plan(wild(0), services()), &options(), &before));
    assert_eq!(changed(&prepared, &both, ResourceType::Listener), ["listener/8080"]);
    assert_eq!(names_of(&both), names_of(&prepared), "connections of before lost their routes");
    assert_eq!(verify(&both), []);
    // An edit is in the part of both numbers.
    let edited = emitter.emit(&plan(wild(1), services()), &options());
    assert_eq!(changed(&both, &edited, ResourceType::Route).len(), 2);
    emitter.settle();
    let settled = emitter.emit(&plan(wild(1), services()), &options());
    assert_eq!(emitter.layout().form(8080, ""), Some(Form::Cut(Parts::Coarse)));
    assert!(changed(&edited, &settled, ResourceType::Listener).is_empty());
    assert_eq!(names_of(&settled).len(), 1024);
    assert_eq!(verify(&settled), []);
}

#[test]
fn what_an_earlier_run_may_have_cut_stands_by() {
    let plan = |routes| plan([build_host(7, routes, 0)], [upstream("service-0")]);
    let scopes = |layout, routes| {
        let mut emitter = Emitter::new(layout);
        let first = emitter.emit(&plan(routes), &options()).resources(ResourceType::ScopedRoute).len();
        assert_eq!(verify(&emitter.emit(&plan(routes), &options())), []);
        // What comes later nobody has cut before.
        let mut other = plan(routes);
        let mut listener = other.listeners[&8080].clone();
        Arc::make_mut(&mut listener).bind_port = 8081;
        other.listeners.insert(8081, listener);
        emitter.emit(&other, &options());
        assert_eq!(emitter.layout().form(8081, ""), Some(Form::Whole));
        first
    };
    assert_eq!(scopes(Layout::uncertain(), THRESHOLD / 2), 1);
    assert_eq!(scopes(Layout::uncertain(), THRESHOLD / 4 - 1), 0);
    assert_eq!(scopes(Layout::default(), THRESHOLD / 2), 0);
}

#[test]
fn a_chain_with_much_for_every_host_stays_whole() {
    let hosts = |wild| (2..50).map(|number| build_host(number, 1, 0)).chain([build_host(0, wild, 0)]);
    let snapshot = emit_gateway(&plan(hosts(2), [upstream("service-0")]), &options());
    assert_eq!(snapshot.resources(ResourceType::Route).keys().collect::<Vec<_>>(), ["route/8080"]);
    assert!(snapshot.resources(ResourceType::ScopedRoute).is_empty());
}
