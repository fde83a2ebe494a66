//! Workspaces, their settings and registered clusters.

use std::net::IpAddr;

use crate::crd::Object;
use crate::crd::common::{PortSelector, TypedObjectKind, WorkspaceSelector};
use crate::crd::workspace as written;
use crate::model::{Code, FieldPath, Finding, Findings, Host, Kind, Name};
use crate::resolve::facts::{
    Age, Cluster, ClusterItem, DialledAddress, EastWestItem, Federation, NamespaceItem, Port, ResourceFilter, Settings,
    SettingsOptions, ShareItem, Workspace, WorkspacePattern,
};

use super::{labels, lower_client_mode, lower_port, lower_selector, not_applicable, optional, port_number};

pub(super) fn cluster(object: &Object, spec: &written::KubernetesCluster) -> Cluster {
    Cluster {
        id: object.meta.id.clone(),
        labels: object.meta.labels.clone(),
        domain: optional(&spec.cluster_domain).unwrap_or_else(|| "cluster.local".into()),
    }
}

/// R18 to R21.
pub(super) fn workspace(object: &Object, spec: &written::Workspace, findings: &mut Findings) -> Workspace {
    let id = &object.meta.id;
    let entries: Vec<Option<bool>> = spec.workload_clusters.iter().map(|entry| entry.config_enabled).collect();
    let mut half_set = false;
    let mut clusters = Vec::with_capacity(spec.workload_clusters.len());
    for (index, entry) in spec.workload_clusters.iter().enumerate() {
        let field = FieldPath::new("spec.workloadClusters").index(index);
        // A selector that cannot be read would pick more than its author means.
        if object.defect_within(&field).is_some() {
            continue;
        }
        if entry.namespaces.is_empty() {
            findings.push(
                Finding::error(
                    id,
                    Code::InvalidField,
                    "the entry has no `namespaces`, so it picks nothing; write `namespaces: [{name: \"*\"}]` for all",
                )
                .at(field.clone()),
            );
        }
        let siblings: Vec<Option<bool>> = entry.namespaces.iter().map(|item| item.config_enabled).collect();
        let mut namespaces = Vec::with_capacity(entry.namespaces.len());
        for (position, item) in entry.namespaces.iter().enumerate() {
            if item.name.is_empty() && item.labels.is_empty() {
                findings.push(
                    Finding::warning(
                        id,
                        Code::InvalidField,
                        "the item has neither `name` nor `labels`, so it picks nothing; write `name: \"*\"` for all",
                    )
                    .at(field.field("namespaces").index(position)),
                );
            }
            namespaces.push(NamespaceItem {
                name: optional(&item.name),
                labels: labels(&item.labels),
                config: config_enabled(item.config_enabled, &siblings, &mut half_set),
            });
        }
        clusters.push(ClusterItem {
            index,
            name: optional(&entry.name),
            labels: labels(&entry.selector),
            namespaces,
            config: config_enabled(entry.config_enabled, &entries, &mut half_set),
        });
    }
    if half_set {
        findings.push(
            Finding::warning(
                id,
                Code::InvalidField,
                "`configEnabled` is written on some entries and left out on others, where it counts as false; write it on all",
            )
            .at(FieldPath::new("spec.workloadClusters")),
        );
    }
    Workspace { id: id.clone(), age: Age::new(object.meta.created, id), labels: object.meta.labels.clone(), clusters }
}

/// R21: true by default; once a sibling sets it, left out counts as false.
fn config_enabled(own: Option<bool>, siblings: &[Option<bool>], half_set: &mut bool) -> bool {
    match own {
        Some(value) => value,
        None if siblings.iter().any(Option::is_some) => {
            *half_set = true;
            false
        }
        None => true,
    }
}

/// R28 to R32, R44, R152, R185.
pub(super) fn settings(object: &Object, spec: &written::WorkspaceSettings, findings: &mut Findings) -> Settings {
    let id = &object.meta.id;
    let mut options = SettingsOptions::default();
    if let Some(written) = &spec.options {
        if let Some(isolation) = &written.service_isolation {
            options.service_isolation = Some(isolation.enabled);
            if isolation.trim_proxy_config.is_some() {
                not_applicable(object, "options.serviceIsolation.trimProxyConfig", "there are no sidecars", findings);
            }
            if isolation.enforcement_layers.is_some() {
                not_applicable(
                    object,
                    "options.serviceIsolation.enforcementLayers",
                    "gateways enforce isolation",
                    findings,
                );
            }
        }
        if let Some(federation) = &written.federation {
            let field = FieldPath::new("spec.options.federation");
            let mut ports = Vec::with_capacity(federation.ports.len());
            for (index, port) in federation.ports.iter().enumerate() {
                let port = lower_port(port).unwrap_or_else(|message| {
                    let at = field.field("ports").index(index);
                    findings.push(Finding::error(id, Code::InvalidField, message).at(at));
                    None
                });
                // A port that is none federates nothing: no Service has port 0.
                ports.push(port.unwrap_or(Port::Number(0)));
            }
            let suffix = host_suffix(&federation.host_suffix);
            if suffix.is_none() {
                let message = format!(
                    "`{}` cannot end a host name, so nothing is federated; write labels with dots between them, as `global`",
                    federation.host_suffix
                );
                findings.push(Finding::error(id, Code::InvalidField, message).at(field.field("hostSuffix")));
            }
            options.federation = Some(Federation {
                // A limit that cannot be read would federate more than its author means.
                enabled: federation.enabled && object.defect_within(&field).is_none() && suffix.is_some(),
                suffix: suffix.unwrap_or_default(),
                services: federation.service_selector.iter().map(lower_selector).collect(),
                ports,
            });
        }
        options.east_west = east_west(object, written, findings);
        options.client_mode = written.virtual_dest_client_mode.as_ref().and_then(lower_client_mode);
        if written.trim_all_proxy_config {
            not_applicable(object, "options.trimAllProxyConfig", "there are no sidecars", findings);
        }
    }
    let unreadable = object.defects.iter().any(|defect| {
        matches!(defect.field.as_str(), "spec" | "spec.options")
            || defect.field.is_within(&FieldPath::new("spec.options.serviceIsolation"))
    });
    if unreadable {
        // Isolation that cannot be read is on: it only ever refuses.
        options.service_isolation = Some(true);
    }
    Settings {
        id: id.clone(),
        age: Age::new(object.meta.created, id),
        import_from: shares(object, "importFrom", &spec.import_from, findings),
        export_to: shares(object, "exportTo", &spec.export_to, findings),
        options,
    }
}

/// The suffix of federated hosts, if it can be one.
fn host_suffix(written: &str) -> Option<Name> {
    let suffix = written.strip_prefix('.').unwrap_or(written);
    if suffix.is_empty() {
        return Some(Name::default());
    }
    Host::parse(suffix).ok().filter(|host| !host.is_wildcard()).map(|host| host.name().clone())
}

/// R185: none where nothing is written.
fn east_west(
    object: &Object,
    written: &written::WorkspaceOptions,
    findings: &mut Findings,
) -> Option<Vec<EastWestItem>> {
    let mut items = Vec::with_capacity(written.east_west_gateways.len());
    for (index, entry) in written.east_west_gateways.iter().enumerate() {
        let field = FieldPath::new("spec.options.eastWestGateways").index(index);
        // A selector or port that cannot be read would choose other gateways than its author means.
        if object.defect_within(&field).is_some() {
            continue;
        }
        let mut port = |written: Option<&PortSelector>, name: &str| {
            let port = written.map_or(Ok(None), lower_port);
            port.unwrap_or_else(|message| {
                findings.push(Finding::error(&object.meta.id, Code::InvalidField, message).at(field.field(name)));
                // No Service has it.
                Some(Port::Number(0))
            })
        };
        let (passing, ending) =
            (port(entry.port.as_ref(), "port"), port(entry.tls_termination_port.as_ref(), "tlsTerminationPort"));
        let mut overrides = Vec::with_capacity(entry.host_info_overrides.len());
        for (position, info) in entry.host_info_overrides.iter().enumerate() {
            let at = field.field("hostInfoOverrides").index(position);
            let is_address = info.addr.parse::<IpAddr>().is_ok();
            let is_name = Host::parse(&info.addr).is_ok_and(|host| !host.is_wildcard());
            // Kept without an address: what is discovered is not what the author wants.
            let nowhere = DialledAddress { address: Name::default(), port: None };
            if !is_address && !is_name {
                let message = format!("`{}` is no IP address and no host name", info.addr);
                findings.push(Finding::error(&object.meta.id, Code::InvalidField, message).at(at.field("addr")));
                overrides.push(nowhere);
                continue;
            }
            let port = if info.port == 0 { Ok(None) } else { port_number(info.port).map(Some) };
            match port {
                Ok(port) => overrides.push(DialledAddress { address: (&info.addr).into(), port }),
                Err(message) => {
                    let finding = Finding::error(&object.meta.id, Code::InvalidField, message);
                    findings.push(finding.at(at.field("port")));
                    overrides.push(nowhere);
                }
            }
        }
        items.push(EastWestItem {
            selector: entry.selector.as_ref().map(lower_selector),
            port: passing,
            termination_port: ending,
            overrides,
        });
    }
    (!written.east_west_gateways.is_empty()).then_some(items)
}

fn shares(
    object: &Object,
    list: &str,
    written: &[written::WorkspaceObjectSelector],
    findings: &mut Findings,
) -> Vec<ShareItem> {
    let mut items = Vec::with_capacity(written.len());
    for (index, entry) in written.iter().enumerate() {
        let field = FieldPath::new(format!("spec.{list}")).index(index);
        // A filter that cannot be read would share more than its author means.
        if object.defect_within(&field).is_some() {
            continue;
        }
        if entry.workspaces.is_empty() {
            findings.push(
                Finding::warning(
                    &object.meta.id,
                    Code::InvalidField,
                    "the entry names no `workspaces`, so it matches nobody; write `workspaces: [{name: \"*\"}]` for all",
                )
                .at(field),
            );
        }
        items.push(ShareItem {
            workspaces: entry.workspaces.iter().map(partner).collect(),
            resources: entry
                .resources
                .iter()
                .map(|filter| ResourceFilter {
                    kind: shareable(filter.kind),
                    labels: labels(&filter.labels),
                    name: optional(&filter.name),
                    namespace: optional(&filter.namespace),
                    cluster: optional(&filter.cluster),
                })
                .collect(),
        });
    }
    items
}

fn partner(written: &WorkspaceSelector) -> WorkspacePattern {
    WorkspacePattern { name: optional(&written.name), labels: labels(&written.selector) }
}

/// R32: `None` for all, `Some(None)` for kinds that are accepted and share nothing here.
#[expect(clippy::option_option, reason = "all kinds, one kind, or a kind without effect")]
fn shareable(written: TypedObjectKind) -> Option<Option<Kind>> {
    match written {
        TypedObjectKind::All => None,
        TypedObjectKind::RouteTable => Some(Some(Kind::RouteTable)),
        TypedObjectKind::Service => Some(Some(Kind::Service)),
        TypedObjectKind::VirtualDestination => Some(Some(Kind::VirtualDestination)),
        TypedObjectKind::ExternalService => Some(Some(Kind::ExternalService)),
        TypedObjectKind::ApiDoc
        | TypedObjectKind::GraphQlResolverMap
        | TypedObjectKind::GraphQlSchema
        | TypedObjectKind::GraphQlStitchedSchema
        | TypedObjectKind::ExternalWorkload => Some(None),
    }
}
