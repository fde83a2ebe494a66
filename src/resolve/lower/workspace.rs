//! Workspaces, their settings and registered clusters.

use crate::crd::Object;
use crate::crd::common::{PortSelector, TypedObjectKind, WorkspaceSelector};
use crate::crd::workspace as written;
use crate::model::{Code, FieldPath, Finding, Findings, Kind};
use crate::resolve::facts::{
    Age, Cluster, ClusterItem, EastWestItem, Federation, NamespaceItem, Port, ResourceFilter, Settings, SettingsOptions, ShareItem,
    Workspace, WorkspacePattern,
};

use super::{labels, lower_port, lower_selector, not_applicable, optional, port_number};

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
            options.federation = Some(Federation {
                // A limit that cannot be read would federate more than its author means.
                enabled: federation.enabled && object.defect_within(&field).is_none(),
                services: federation.service_selector.iter().map(lower_selector).collect(),
                ports,
            });
        }
        if !written.east_west_gateways.is_empty() {
            options.east_west = Some((id.clone(), east_west(object, &written.east_west_gateways, findings)));
        }
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

/// R185: an item that cannot be read chooses nothing, lest traffic go another way than its author means.
fn east_west(
    object: &Object,
    written: &[written::EastWestGatewaySelector],
    findings: &mut Findings,
) -> Vec<EastWestItem> {
    let mut items = Vec::with_capacity(written.len());
    for (index, item) in written.iter().enumerate() {
        let field = FieldPath::new("spec.options.eastWestGateways").index(index);
        if object.defect_within(&field).is_some() {
            continue;
        }
        let mut error = |at: FieldPath, message: String| {
            findings.push(Finding::error(&object.meta.id, Code::InvalidField, message).at(at));
        };
        let mut port = |name: &str, written: Option<&PortSelector>, default: &str| match written.map(lower_port) {
            Some(Ok(Some(port))) => Some(port),
            Some(Err(message)) => {
                error(field.field(name), message);
                None
            }
            Some(Ok(None)) | None => Some(Port::Name(default.into())),
        };
        let passing = port("port", item.port.as_ref(), "tls");
        let terminating = port("tlsTerminationPort", item.tls_termination_port.as_ref(), "https");
        let mut instead = Vec::with_capacity(item.host_info_overrides.len());
        for (position, host) in item.host_info_overrides.iter().enumerate() {
            let at = field.field("hostInfoOverrides").index(position);
            let port = if host.port == 0 { Ok(None) } else { port_number(host.port).map(Some) };
            match (optional(&host.addr), port) {
                (None, _) => error(at.field("addr"), "write the IP address to dial".to_owned()),
                (_, Err(message)) => error(at.field("port"), message),
                (Some(address), Ok(port)) => instead.push((address, port)),
            }
        }
        let is_whole = instead.len() == item.host_info_overrides.len();
        if let (Some(passing), Some(terminating), true) = (passing, terminating, is_whole) {
            let selector = item.selector.as_ref().map_or_else(EastWestItem::default_selector, lower_selector);
            items.push(EastWestItem { index, selector, terminating, passing, instead });
        }
    }
    items
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
