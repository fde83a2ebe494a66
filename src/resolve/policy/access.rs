//! AccessPolicy: who may call what. What several policies allow unites.

use std::collections::{BTreeMap, BTreeSet};

use crate::crd::common::DestinationKind;
use crate::crd::policy::access::{self as written, AccessPolicy, PeerTlsMode};
use crate::crd::policy::opaque::OpaquePolicy;
use crate::crd::policy::selector::{IdentitySelector, WorkloadSelector};
use crate::ir::policy::TextPattern;
use crate::ir::policy::access::{Access, AccessEntry, Cidr, Client, HeaderRule};
use crate::model::{FieldPath, Findings, Name, ObjectRef};
use crate::resolve::facts::Fault;

use super::parts::{cidr, config, destination_kinds, edge_glob, fault, glob, header, pick, quoted, remark, set};
use super::{is_header_name, no_config};

/// What stands for issuer and subject where there is no token.
const NO_TOKEN: &str = "-/-";

/// What an AccessPolicy means.
///
/// # Errors
/// A destination that is a VirtualDestination; a path, method, header, address or principal that is none; a header
/// without values.
///
/// # Rule
/// R122, R123, R130.
pub fn lower(id: &ObjectRef, policy: &AccessPolicy, remarks: &mut Findings) -> Result<Access, Fault> {
    let config = policy.config.as_ref().ok_or_else(no_config)?;
    let place = self::config();
    let on_workloads = !policy.apply_to_workloads.is_empty();
    if on_workloads {
        if !policy.apply_to_destinations.is_empty() {
            let text = "the list is ignored, because `applyToWorkloads` is written; remove one of the two";
            remark(id, &FieldPath::new("spec.applyToDestinations"), text, remarks);
        }
    } else {
        let allowed = [DestinationKind::Service, DestinationKind::ExternalService];
        destination_kinds(&policy.apply_to_destinations, &allowed, "select the Services behind it")?;
    }
    let mut access = Access::default();
    let entries: Vec<(FieldPath, &written::Authorization)> = match (&config.authz, config.authz_list.as_slice()) {
        (Some(authz), []) => vec![(place.field("authz"), authz)],
        (authz, list) => {
            if authz.is_some() {
                remark(id, &place.field("authz"), "`authz` is ignored beside `authzList`; move it there", remarks);
            }
            let list_place = place.field("authzList");
            list.iter().enumerate().map(|(index, authz)| (list_place.index(index), authz)).collect()
        }
    };
    for (index, (field, written)) in entries.iter().enumerate() {
        let entry = entry(id, field, index, written, remarks)?;
        if !on_workloads && !entry.as_ref().is_none_or(|entry| entry.peers.is_empty()) {
            let text = "at destinations this is the address that connects to the gateway, not the gateway's own";
            remark(id, &field.field("allowedIpBlocks"), text, remarks);
        }
        let list = if written.dry_run { &mut access.dry_run } else { &mut access.enforced };
        list.get_or_insert_default().extend(entry);
    }
    if let Some(authn) = &config.authn
        && authn.tls_mode == PeerTlsMode::Strict
    {
        access.require_peer_tls = true;
        if !on_workloads {
            let text = "no proxy stands before these Pods, so nothing can ask clients for certificates there";
            remark(id, &place.field("authn").field("tlsMode"), text, remarks);
        }
    }
    if let Some(layers) = &config.enforcement_layers {
        let field = place.field("enforcementLayers");
        if layers.cni {
            let text = "no network policies are written; the policy is enforced by gateways alone";
            remark(id, &field.field("cni"), text, remarks);
            if !layers.mesh {
                remark(id, &field.field("mesh"), "gateways enforce the policy all the same", remarks);
            }
        }
    }
    Ok(access)
}

/// What the policy selects: destinations only where it selects no workloads.
pub(super) fn selectors(policy: &AccessPolicy) -> OpaquePolicy {
    use crate::crd::common::ObjectSelector;
    let workloads = policy.apply_to_workloads.iter().map(|item| WorkloadSelector {
        selector: item.selector.as_ref().map(|place| ObjectSelector {
            labels: place.labels.clone(),
            name: String::new(),
            namespace: place.namespace.clone(),
            cluster: place.cluster.clone(),
            workspace: place.workspace.clone(),
        }),
        ..WorkloadSelector::default()
    });
    let destinations = policy.apply_to_workloads.is_empty().then(|| policy.apply_to_destinations.clone());
    OpaquePolicy {
        apply_to_destinations: destinations.unwrap_or_default(),
        apply_to_workloads: workloads.collect(),
        ..OpaquePolicy::default()
    }
}

/// What several policies on one target mean together, oldest first.
///
/// # Rule
/// R123: the union of what is allowed.
#[must_use]
pub fn merge<'a>(policies: impl IntoIterator<Item = &'a Access>) -> Access {
    let mut united = Access::default();
    for policy in policies {
        for (all, own) in [(&mut united.enforced, &policy.enforced), (&mut united.dry_run, &policy.dry_run)] {
            if let Some(own) = own {
                all.get_or_insert_default().extend(own.iter().cloned());
            }
        }
        united.require_peer_tls |= policy.require_peer_tls;
    }
    united
}

/// An entry; nothing for one without any restriction, which allows nothing.
fn entry(
    id: &ObjectRef,
    field: &FieldPath,
    index: usize,
    written: &written::Authorization,
    remarks: &mut Findings,
) -> Result<Option<AccessEntry>, Fault> {
    let paths = set(&field.field("allowedPaths"), &written.allowed_paths, |field, text| {
        let pattern = edge_glob(field, text)?;
        let never = match &pattern {
            TextPattern::Exact(path) | TextPattern::Prefix(path) => !path.starts_with('/'),
            _ => false,
        };
        if never || text.contains('?') {
            let why = "this matches no path: paths start with `/`, and the query is not part of them";
            remark(id, field, why, remarks);
        }
        Ok(pattern)
    })?;
    let methods = set(&field.field("allowedMethods"), &written.allowed_methods, |field, text| {
        if !is_header_name(text) {
            return Err(fault(field, format!("{} is no HTTP method: write for instance `GET`", quoted(text))));
        }
        if text.contains('*') || text.bytes().any(|b| b.is_ascii_lowercase()) {
            let why = "methods are compared as they are; write upper case, and leave the list out for any";
            remark(id, field, why, remarks);
        }
        Ok(Name::from(text))
    })?;
    let entry = AccessEntry {
        policy: id.clone(),
        index,
        clients: clients(&field.field("allowedClients"), &written.allowed_clients)?,
        paths,
        methods,
        headers: headers(field, written)?,
        peers: blocks(&field.field("allowedIpBlocks"), &written.allowed_ip_blocks)?,
        remotes: blocks(&field.field("allowedRemoteIpBlocks"), &written.allowed_remote_ip_blocks)?,
    };
    let restricts = !written.allowed_clients.is_empty()
        || !entry.paths.is_empty()
        || !entry.methods.is_empty()
        || !entry.headers.is_empty()
        || !entry.peers.is_empty()
        || !entry.remotes.is_empty();
    Ok(restricts.then_some(entry))
}

/// The clients of an entry; nothing where any may call.
fn clients(field: &FieldPath, written: &[IdentitySelector]) -> Result<Option<Vec<Client>>, Fault> {
    let mut clients = Vec::new();
    for (index, item) in written.iter().enumerate() {
        let place = field.index(index).field("requestIdentityMatcher");
        let matcher = item.request_identity_matcher.clone().unwrap_or_default();
        clients.push(Client {
            service_accounts: item.service_account_selector.as_ref().map(pick),
            external_workloads: item.external_workload_selector.as_ref().map(pick),
            principals: set(&place.field("requestPrincipals"), &matcher.request_principals, principal)?,
            not_principals: set(&place.field("notRequestPrincipals"), &matcher.not_request_principals, principal)?,
        });
    }
    let any = clients.is_empty() || clients.contains(&Client::default());
    clients.sort();
    clients.dedup();
    Ok((!any).then_some(clients))
}

fn principal(field: &FieldPath, text: &str) -> Result<TextPattern, Fault> {
    let pattern = edge_glob(field, text)?;
    let takes_nobody = match &pattern {
        TextPattern::Exact(text) => *text == NO_TOKEN,
        TextPattern::Prefix(text) => NO_TOKEN.starts_with(text.as_str()),
        TextPattern::Suffix(text) => NO_TOKEN.ends_with(text.as_str()),
        TextPattern::Any | TextPattern::Regex(_) => false,
    };
    if takes_nobody {
        return Err(fault(field, format!("`{NO_TOKEN}` stands for requests without a token; name issuer and subject")));
    }
    Ok(pattern)
}

fn headers(field: &FieldPath, written: &written::Authorization) -> Result<BTreeMap<Name, HeaderRule>, Fault> {
    let mut rules = BTreeMap::new();
    let Some(request) = written.r#match.as_ref().and_then(|part| part.request.as_ref()) else { return Ok(rules) };
    let place = field.field("match").field("request").field("headers");
    for (name, rule) in &request.headers {
        let field = place.field(name);
        let name = header(&field, name)?;
        if rule.values.is_empty() && rule.not_values.is_empty() {
            return Err(fault(&field, "the header has no condition: write `values` or `notValues`"));
        }
        let rule = HeaderRule {
            values: set(&field.field("values"), &rule.values, glob)?,
            not_values: set(&field.field("notValues"), &rule.not_values, glob)?,
        };
        if rules.insert(name, rule).is_some() {
            return Err(fault(&field, "the header is named twice in different case; join its conditions"));
        }
    }
    Ok(rules)
}

fn blocks(field: &FieldPath, written: &[String]) -> Result<BTreeSet<Cidr>, Fault> {
    set(field, written, cidr)
}

#[cfg(test)]
mod tests;
