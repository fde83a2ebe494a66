//! What endpoints are called: no cluster takes those that want a transport that it lacks.

use crate::ir::policy::access::Access;
use crate::ir::upstream::Endpoint;
use crate::ir::{Guard, Upstream};
use crate::snapshot::diff::endpoints_of;

use super::*;

/// The names of the cluster and of its endpoints, which are those that it takes.
fn names(upstream: Upstream) -> (String, String) {
    let snapshot = emit_gateway(&plan([], [upstream]), &EmitOptions::default());
    let clusters = snapshot.resources(ResourceType::Cluster);
    let endpoints = snapshot.resources(ResourceType::Endpoint);
    let (cluster, endpoints) = (clusters.values().next().unwrap(), endpoints.keys().next().unwrap());
    assert_eq!(endpoints_of(cluster), *endpoints);
    (cluster.name.to_string(), endpoints.to_string())
}

fn crossing(clusters: &[&str]) -> Upstream {
    Upstream { remotes: clusters.iter().map(|cluster| remote(cluster)).collect(), ..upstream("cart") }
}

#[test]
fn r178_endpoints_are_named_by_the_transports_of_their_cluster() {
    let plain = names(upstream("cart"));
    assert_eq!(plain, (CART.to_owned(), CART.to_owned()), "a plain one keeps its name");
    let two = names(crossing(&["c2"]));
    let three = names(crossing(&["c2", "c3"]));
    for (cluster, endpoints) in [&two, &three] {
        assert_eq!(cluster, CART, "routes lead to the same cluster");
        assert!(endpoints.starts_with(&format!("{CART}@")), "{endpoints}");
    }
    assert_ne!(two, three, "the cluster before knows no way to c3");
    let mut other = crossing(&["c2"]);
    other.remotes.values_mut().for_each(|remote| remote.namespaces = ["elsewhere".into()].into());
    assert_ne!(names(other), two, "the cluster before would take nobody there, or somebody else");
    let mut more = crossing(&["c2"]);
    more.endpoints.values_mut().flatten().for_each(|endpoint| endpoint.port += 1);
    assert_eq!(names(more), two, "Pods come and go");
}

#[test]
fn r195_endpoints_of_servers_with_tls_have_a_name_of_their_own() {
    let mut secure = upstream("cart");
    secure.externals.insert("es/cluster-1/shop/pay".into(), None);
    let (_, behind) = names(secure);
    assert!(behind.starts_with(&format!("{CART}@")), "{behind}");
}

#[test]
fn r178_the_checker_sees_endpoints_that_ask_for_what_their_cluster_lacks() {
    let mut cart = crossing(&["c2"]);
    let far = Endpoint { via: Some("c2".into()), ..Endpoint::direct("192.0.2.1".into(), 15443) };
    cart.endpoints.values_mut().for_each(|own| own.push(far.clone()));
    let good = emit_gateway(&plan([], [cart.clone()]), &EmitOptions::default());
    assert_eq!(verify(&good).iter().filter(|v| v.resource_type == ResourceType::Endpoint).count(), 0);
    cart.remotes.clear();
    let bad = emit_gateway(&plan([], [cart]), &EmitOptions::default());
    assert!(verify(&bad).iter().any(|v| v.message.contains("transport that its cluster lacks")));
}

#[test]
fn r122_endpoints_of_a_group_are_named_by_who_may_call_it() {
    let group = |policies: &[&str]| {
        let mut group = upstream("cart");
        group.id.object = object(Kind::VirtualDestination, "cart");
        group.guards = policies
            .iter()
            .map(|policy| Guard {
                policies: vec![object(Kind::AccessPolicy, policy)],
                access: Access { enforced: Some(Vec::new()), ..Access::default() },
            })
            .collect();
        names(group)
    };
    let open = group(&[]);
    assert_eq!(open.0, open.1);
    assert!(group(&["read"]).1.starts_with(&format!("{}@", open.0)));
    assert_ne!(group(&["read"]), group(&["write"]), "the cluster before lets in whom the new one does not");
}
