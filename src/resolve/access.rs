//! Which access rules hold at a destination and on a gateway, as one gateway judges by them.
//!
//! There are no sidecars: the gateway that sends a request to a destination enforces what the destination's owner says, and
//! there the client is the gateway itself, so that its identity is compared here and not by Envoy. On a gateway the clients
//! are those who connect to it, known by their certificates.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::ir::Guard;
use crate::ir::policy::access::{Access, AccessEntry, Behalf, Caller, Client};
use crate::ir::policy::reference::ObjectPick;
use crate::ir::policy::{Phase, Policy};
use crate::ir::route::{Action, RouteBody};
use crate::ir::trust::Identity;
use crate::ir::upstream::{Purpose, UpstreamId};
use crate::model::labels::contains_all;
use crate::model::{Code, FieldPath, Finding, Findings, GatewayId, Kind, Labels, Name, ObjectRef, WorkspaceId};

use super::crossing::way;
use super::destination::selects;
use super::facts::{PolicyEffect, PolicyObject, Selector, Service};
use super::gateway::{account_of, selects_gateway};
use super::mesh::has_clients;
use super::policy::access::merge;
use super::selection::{destination_labels, destinations};
use super::upstream::behind;
use super::world::World;

/// What a valid AccessPolicy says; nothing for others.
fn access_of(policy: &PolicyObject) -> Option<&Arc<Access>> {
    match &policy.effect {
        PolicyEffect::Valid(Policy::Access(access)) => Some(access),
        _ => None,
    }
}

/// The rules for a destination, and for what is behind a virtual one, on one gateway: a request has to pass all of them.
///
/// # Cost
/// In proportion to the policies that select it, and where its owner selects workloads, to the Pods of its namespace.
///
/// # Rule
/// R118, R120, R122, R123.
pub fn at_destination<W: World + ?Sized>(world: &W, gateway: &GatewayId, upstream: &UpstreamId) -> Vec<Guard> {
    let mut guards: Vec<Guard> = Vec::new();
    for target in behind(world, upstream) {
        // What there is no way to gets no requests from here.
        let is_remote = target.object.kind == Kind::Service && target.object.cluster != gateway.cluster;
        if is_remote && target != *upstream && way(world, gateway, &target, Purpose::Crossing).is_err() {
            continue;
        }
        let policies = selecting(world, &target);
        let is_caller = |client: &Client| callers_of(world, gateway, client);
        if let Some(guard) = guard(&policies, is_caller)
            && !guards.contains(&guard)
        {
            guards.push(guard);
        }
    }
    guards
}

/// The rules on a gateway, for all who connect to it.
///
/// # Rule
/// R120, R123.
pub fn at_gateway<W: World + ?Sized>(world: &W, gateway: &GatewayId, owner: &WorkspaceId) -> Option<Guard> {
    guard(&on_gateway(world, gateway, owner), |client| {
        if client.external_workloads.is_some() {
            return Vec::new();
        }
        let Some(pick) = &client.service_accounts else { return vec![caller(client, Behalf::Any)] };
        let found: BTreeSet<Name> = accounts(world, pick)
            .iter()
            .filter_map(|account| Identity::uri(&account.cluster, &account.namespace, &account.name).ok())
            .collect();
        let by_certificate =
            (!found.is_empty()).then(|| Caller { identities: Some(found), ..caller(client, Behalf::Any) });
        by_certificate.into_iter().chain(pods_of(world, gateway, client, pick)).collect()
    })
}

/// The valid AccessPolicies that select a gateway as a workload.
fn on_gateway<W: World + ?Sized>(world: &W, gateway: &GatewayId, owner: &WorkspaceId) -> Vec<Arc<PolicyObject>> {
    let policies = world.workload_policies(owner).into_iter();
    policies.filter(|policy| access_of(policy).is_some() && selects_gateway(world, gateway, policy)).collect()
}

/// Tells policies that want client certificates from a gateway whose listeners, with these ports, do not all ask for them.
///
/// # Findings
/// [`Code::PolicyRemark`] as warnings on the policies.
pub fn peer_tls_findings<W: World + ?Sized>(
    world: &W,
    gateway: &GatewayId,
    owner: &WorkspaceId,
    without: &BTreeSet<u16>,
    findings: &mut Findings,
) {
    let Some(port) = without.first() else { return };
    for policy in on_gateway(world, gateway, owner) {
        if access_of(&policy).is_some_and(|access| access.require_peer_tls) {
            let message = format!(
                "port {port} of gateway `{gateway}` asks clients for no certificate, and a VirtualGateway alone says so: write `tls.mode: MUTUAL` or `ISTIO_MUTUAL` there"
            );
            let field = FieldPath::new("spec.config.authn.tlsMode");
            findings.push(Finding::warning(&policy.id, Code::PolicyRemark, message).at(field));
        }
    }
}

/// Tells policies that ask who bears a token of a route on which tokens are verified only after authorization: nobody is known
/// there when they judge, so their entries hold for nobody.
///
/// # Findings
/// [`Code::PolicyRemark`] as warnings on the policies.
///
/// # Cost
/// None where no policy of the route verifies tokens so late; else that of the rules at its destinations.
pub fn late_token_findings<W: World + ?Sized>(
    world: &W,
    gateway: &GatewayId,
    owner: &WorkspaceId,
    body: &RouteBody,
    findings: &mut Findings,
) {
    let destinations = match &body.action {
        Action::Forward(forward) => &forward.destinations[..],
        Action::Redirect(_) | Action::Direct(_) => &[],
    };
    let is_late = |policies: &[Policy]| {
        policies.iter().any(|policy| matches!(policy, Policy::Jwt(own) if own.jwt.place.phase == Phase::PostAuthz))
    };
    // Nearly no route has such a policy.
    if !is_late(&body.policies) && !destinations.iter().any(|to| is_late(&to.policies)) {
        return;
    }
    let verification = |policies: &[Policy]| {
        policies.iter().find_map(|policy| match policy {
            Policy::Jwt(verification) => Some((verification.jwt.place.phase, verification.policy.clone())),
            _ => None,
        })
    };
    let of_route = verification(&body.policies);
    let ways: Vec<_> = match destinations {
        [] => vec![(None, None)],
        _ => destinations.iter().map(|to| (Some(&to.upstream), verification(&to.policies))).collect(),
    };
    for (upstream, of_destination) in ways {
        let mut both = of_route.iter().chain(&of_destination);
        let Some((_, late)) = both.clone().find(|(phase, _)| *phase == Phase::PostAuthz) else { continue };
        let is_early_too = both.any(|(phase, _)| *phase == Phase::PreAuthz);
        let targets = upstream.map(|upstream| behind(world, upstream)).unwrap_or_default();
        let at_targets = targets.iter().flat_map(|target| selecting(world, target));
        for policy in at_targets.chain(on_gateway(world, gateway, owner)) {
            let Some(access) = access_of(&policy) else { continue };
            let entries = access.enforced.iter().chain(&access.dry_run).flatten();
            // Who bears a token that was verified in time is known; who bears none is not, as there may be another.
            let asks =
                |client: &Client| !client.not_principals.is_empty() || (!is_early_too && !client.principals.is_empty());
            if entries.flat_map(|entry| entry.clients.iter().flatten()).any(asks) {
                let message = format!(
                    "on gateway `{gateway}` `{late}` verifies tokens after authorization, so nobody who bears one is known when this policy judges, and entries that ask for {} hold for nobody there; write `preAuthz` as its phase",
                    if is_early_too { "`notRequestPrincipals`" } else { "`requestIdentityMatcher`" }
                );
                findings.push(Finding::warning(&policy.id, Code::PolicyRemark, message).with(late));
            }
        }
    }
}

/// What policies say together, oldest first; nothing where they say nothing about who may do what.
fn guard(policies: &[Arc<PolicyObject>], callers: impl Fn(&Client) -> Vec<Caller>) -> Option<Guard> {
    let Access { enforced, dry_run, require_peer_tls } =
        merge(policies.iter().filter_map(|policy| access_of(policy).map(AsRef::as_ref)));
    if enforced.is_none() && dry_run.is_none() {
        return None;
    }
    let resolve = |entries: Vec<AccessEntry>| -> Vec<AccessEntry<Caller>> {
        entries.into_iter().filter_map(|entry| resolved(entry, &callers)).collect()
    };
    let access = Access { enforced: enforced.map(&resolve), dry_run: dry_run.map(&resolve), require_peer_tls };
    let says = |policy: &&Arc<PolicyObject>| {
        access_of(policy).is_some_and(|access| access.enforced.is_some() || access.dry_run.is_some())
    };
    Some(Guard { policies: policies.iter().filter(says).map(|policy| policy.id.clone()).collect(), access })
}

/// An entry with its clients found; nothing where none of them can be the caller.
fn resolved(entry: AccessEntry, callers: &impl Fn(&Client) -> Vec<Caller>) -> Option<AccessEntry<Caller>> {
    let AccessEntry { policy, index, clients, paths, methods, headers, peers, remotes } = entry;
    let clients = match clients {
        None => None,
        Some(clients) => {
            let mut callers: Vec<Caller> = clients.iter().flat_map(callers).collect();
            callers.sort();
            callers.dedup();
            if callers.is_empty() {
                return None;
            }
            (!callers.contains(&Caller::default())).then_some(callers)
        }
    };
    Some(AccessEntry { policy, index, clients, paths, methods, headers, peers, remotes })
}

/// A client with what is to be asked of his tokens.
fn caller(client: &Client, behalf: Behalf) -> Caller {
    Caller {
        behalf,
        identities: None,
        principals: client.principals.clone(),
        not_principals: client.not_principals.clone(),
    }
}

/// As whom a gateway may call that clients mean: itself, and Pods of its cluster for which it does so.
///
/// # Rule
/// R205.
fn callers_of<W: World + ?Sized>(world: &W, gateway: &GatewayId, client: &Client) -> Vec<Caller> {
    if client.external_workloads.is_some() {
        return Vec::new();
    }
    let Some(pick) = &client.service_accounts else { return vec![caller(client, Behalf::Any)] };
    if !has_clients(world, gateway) {
        return is_account_of(world, gateway, pick).then(|| caller(client, Behalf::Any)).into_iter().collect();
    }
    let itself = is_account_of(world, gateway, pick).then(|| caller(client, Behalf::Own));
    itself.into_iter().chain(pods_of(world, gateway, client, pick)).collect()
}

/// The Pods that clients mean, where the gateway knows who sends a request.
fn pods_of<W: World + ?Sized>(world: &W, gateway: &GatewayId, client: &Client, pick: &ObjectPick) -> Option<Caller> {
    if !has_clients(world, gateway) {
        return None;
    }
    let here = accounts(world, pick).into_iter().filter(|account| account.cluster == gateway.cluster);
    let pods: BTreeSet<(Name, Name)> = here.map(|account| (account.namespace.clone(), account.name.clone())).collect();
    (!pods.is_empty()).then(|| caller(client, Behalf::Pods(pods)))
}

/// Whether a gateway runs as one of the accounts that a selector means.
fn is_account_of<W: World + ?Sized>(world: &W, gateway: &GatewayId, pick: &ObjectPick) -> bool {
    let account = account_of(world, gateway);
    let is_named = pick.place() == Some((&account.name, &account.namespace, &account.cluster));
    let selector = selector(pick);
    let labels = || {
        let own = Selector {
            name: Some(account.name.clone()),
            namespace: Some(account.namespace.clone()),
            cluster: Some(account.cluster.clone()),
            ..Selector::default()
        };
        world.accounts(&own).first().map(|account| account.labels.clone()).unwrap_or_default()
    };
    let labels = if pick.labels.is_empty() { Labels::new() } else { labels() };
    let fits = selector.fits(&account, &labels) && selector.fits_owner(world.roster().owner_of(&account));
    fits && (pick.place().is_none() || is_named)
}

/// The ServiceAccounts that a selector finds. One with name, namespace and cluster and nothing else need not exist.
fn accounts<W: World + ?Sized>(world: &W, pick: &ObjectPick) -> Vec<ObjectRef> {
    if let Some((name, namespace, cluster)) = pick.place()
        && pick.labels.is_empty()
        && pick.workspace.is_none()
    {
        return vec![ObjectRef::new(Kind::ServiceAccount, cluster, namespace, name)];
    }
    let selector = selector(pick);
    let found = world.accounts(&selector).into_iter().map(|account| account.id.clone());
    found.filter(|id| selector.fits_owner(world.roster().owner_of(id))).collect()
}

fn selector(pick: &ObjectPick) -> Selector {
    Selector {
        labels: pick.labels.clone(),
        name: pick.name.clone(),
        namespace: pick.namespace.clone(),
        cluster: pick.cluster.clone(),
        workspace: pick.workspace.clone(),
    }
}

/// The valid AccessPolicies that select a destination, or a Pod behind it, in age order.
pub(super) fn selecting<W: World + ?Sized>(world: &W, target: &UpstreamId) -> Vec<Arc<PolicyObject>> {
    let Some(owner) = world.roster().owner_of(&target.object) else { return Vec::new() };
    let Some(labels) = destination_labels(world, &target.object) else { return Vec::new() };
    let mut found = world.access_policies(owner, &target.object, &labels);
    found.retain(|policy| policy.targets.destinations.iter().any(|selector| selects(world, selector, target)));
    found.extend(on_pods_of(world, owner, &target.object, |policy| access_of(policy).is_some()));
    found.sort_by(|a, b| a.age.cmp(&b.age));
    found.dedup_by(|a, b| a.id == b.id);
    found
}

/// Whether the owner of a destination says who may call it, so that his rules hold in place of isolation. Rules that refuse
/// nobody are none.
///
/// # Rule
/// R46.
pub fn replaces_isolation<W: World + ?Sized>(world: &W, target: &UpstreamId) -> bool {
    selecting(world, target).iter().filter_map(|policy| access_of(policy)).any(|access| access.enforced.is_some())
}

/// The policies of an owner, of some sort, that select one of the Pods behind a Service.
///
/// # Cost
/// In proportion to the owner's policies that select workloads, and to the Pods of the namespace where there are such.
///
/// # Rule
/// R120.
pub(super) fn on_pods_of<W: World + ?Sized>(
    world: &W,
    owner: &WorkspaceId,
    service: &ObjectRef,
    is_wanted: impl Fn(&PolicyObject) -> bool,
) -> Vec<Arc<PolicyObject>> {
    let mut policies = world.workload_policies(owner);
    policies.retain(|policy| is_wanted(policy));
    if policies.is_empty() {
        return policies;
    }
    let Some(service) = world.service(service).filter(|service| !service.selector.is_empty()) else {
        return Vec::new();
    };
    policies.retain(|policy| {
        policy.targets.workloads.iter().any(|selector| {
            selector.fits_owner(Some(owner))
                && (selects_all(selector, &service) || picks_pod(world, selector, &service))
        })
    });
    policies
}

/// Whether a workload selector picks every Pod that a Service may select, also such as are not there yet.
fn selects_all(selector: &Selector, service: &Service) -> bool {
    selector.fits(&service.id, &service.selector)
}

fn picks_pod<W: World + ?Sized>(world: &W, selector: &Selector, service: &Service) -> bool {
    let pods = world.pods(&service.id.cluster, &service.id.namespace);
    pods.iter().any(|pod| contains_all(&pod.labels, &service.selector) && selector.fits(&pod.id, &pod.labels))
}

/// What a policy reaches, beside routes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// Ports of destinations.
    pub ports: BTreeSet<(ObjectRef, u16)>,
    /// Namespaces, with their clusters, of these destinations and of the gateways.
    pub namespaces: BTreeSet<(Name, Name)>,
    /// ServiceAccounts that it lets in.
    pub accounts: BTreeSet<ObjectRef>,
}

impl Reach {
    /// By the API's names.
    pub fn counts(&self) -> impl Iterator<Item = (&'static str, usize)> {
        [
            ("numSelectedDestinationPorts", self.ports.len()),
            ("numSelectedNamespaces", self.namespaces.len()),
            ("numAllowedServiceAccounts", self.accounts.len()),
        ]
        .into_iter()
        .filter(|(_, number)| *number > 0)
    }
}

/// What an AccessPolicy reaches, and which destinations a JWTPolicy or an ExtAuthPolicy does; nothing for other policies, and
/// for an AccessPolicy that is invalid.
///
/// # Findings
/// [`Code::EnforcedAtGatewaysOnly`] on one that reaches destinations; [`Code::PolicyRemark`] on one that selects some of the
/// Pods behind a Service, which is protected whole.
///
/// # Cost
/// In proportion to the objects that its selectors find.
///
/// # Rule
/// R118, R120, R135.
pub fn reach<W: World + ?Sized>(
    world: &W,
    owner: &WorkspaceId,
    policy: &PolicyObject,
    gateways: &BTreeSet<GatewayId>,
    findings: &mut Findings,
) -> Reach {
    let mut reach = Reach::default();
    // Of others, what they come to is no matter: where one is invalid, gateways close the destination.
    let is_of_requests = matches!(policy.id.kind, Kind::JwtPolicy | Kind::ExtAuthPolicy);
    let access = access_of(policy);
    if access.is_none() && !is_of_requests {
        return reach;
    }
    for selector in &policy.targets.destinations {
        for (id, _) in destinations(world, &selector.selector, selector.kind) {
            let ports =
                world.service(&id).map(|service| service.ports.iter().map(|port| port.number).collect::<Vec<_>>());
            for port in ports.unwrap_or_default() {
                let target = UpstreamId::new(&id, port);
                if world.roster().owner_of(&id) == Some(owner) && selects(world, selector, &target) {
                    reach.ports.insert((id.clone(), port));
                }
            }
        }
    }
    let Some(access) = access else {
        at_gateways_only(policy, &reach, findings);
        return reach;
    };
    let mut mixed = None;
    for selector in policy.targets.workloads.iter().filter(|selector| selector.fits_owner(Some(owner))) {
        let here: Vec<_> = world.roster().namespaces_of(owner).collect();
        for (cluster, namespace) in here {
            let of_namespace =
                Selector { cluster: Some(cluster.clone()), namespace: Some(namespace.clone()), ..Selector::default() };
            for service in world.services(&of_namespace) {
                let is_gateway = gateways.iter().any(|gateway| {
                    (&gateway.cluster, &gateway.namespace) == (cluster, namespace)
                        && gateway.services.contains(&service.id.name)
                });
                let is_all = selects_all(selector, &service);
                if service.selector.is_empty() || !(is_all || picks_pod(world, selector, &service)) {
                    continue;
                }
                if is_gateway {
                    reach.namespaces.insert((cluster.clone(), namespace.clone()));
                    continue;
                }
                reach.ports.extend(service.ports.iter().map(|port| (service.id.clone(), port.number)));
                let pods = world.pods(cluster, namespace);
                let mut behind = pods.iter().filter(|pod| contains_all(&pod.labels, &service.selector));
                if !is_all && mixed.is_none() {
                    let other = behind.find(|pod| !selector.fits(&pod.id, &pod.labels));
                    mixed = other.map(|pod| (service.id.clone(), pod.id.clone()));
                }
            }
        }
    }
    reach.namespaces.extend(reach.ports.iter().map(|(id, _)| (id.cluster.clone(), id.namespace.clone())));
    let entries = access.enforced.iter().chain(&access.dry_run).flatten();
    for pick in entries.flat_map(|entry| entry.clients.iter().flatten()).filter_map(|c| c.service_accounts.as_ref()) {
        reach.accounts.extend(accounts(world, pick));
    }
    if let Some((service, pod)) = mixed {
        let message = format!(
            "`{service}` is protected whole, although `{pod}` behind it is not selected: gateways choose a Pod after they have judged"
        );
        let field = FieldPath::new("spec.applyToWorkloads");
        findings.push(Finding::warning(&policy.id, Code::PolicyRemark, message).at(field).with(&service));
    }
    at_gateways_only(policy, &reach, findings);
    reach
}

/// Tells what protects destinations that nobody else enforces it.
fn at_gateways_only(policy: &PolicyObject, reach: &Reach, findings: &mut Findings) {
    if let Some((first, _)) = reach.ports.first() {
        let message = format!(
            "gateways alone enforce this, on what they send to `{first}`{}; requests from Pod to Pod pass no gateway, so close that way with a NetworkPolicy",
            if reach.ports.iter().any(|(id, _)| id != first) { " and others" } else { "" }
        );
        findings.push(Finding::warning(&policy.id, Code::EnforcedAtGatewaysOnly, message).with(first));
    }
}
