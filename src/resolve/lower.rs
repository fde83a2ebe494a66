//! One object to its checked form. No reference is followed.
//!
//! # Findings
//! What is wrong with an object by itself: [`Code::InvalidField`], [`Code::Unsupported`], [`Code::NotApplicable`],
//! [`Code::BareWildcardHost`]. Values of a wrong type were reported when the manifest was decoded; here they decide how far
//! the fault reaches.

mod discovery;
mod external;
mod gateway;
mod listener_tls;
mod stream;
mod table;
mod trust;
mod workspace;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::crd::common::{self, DestinationKind as WrittenKind, ObjectReference, ObjectSelector, PortSelector};
use crate::crd::policy::selector as written;
use crate::crd::{Object, Spec};
use crate::model::{Code, FieldPath, Finding, Findings, Host, Kind, Labels, Name, ObjectRef};

use super::facts::{
    Account, AuthServerObject, ClientMode, Cluster, DestinationKind, DestinationSelector, ExternalEndpoint,
    ExternalService, Node, Pod, PolicyObject, Port, Reference, Secret, Selector, Service, Settings, Slice, Table,
    TrustPolicy, VirtualDestination, VirtualGateway, Workspace,
};
use super::policy;
use super::policy::rate_limit::LimitObject;

pub(crate) use discovery::service_of_slice;

/// The checked form of an object.
#[derive(Clone, Debug, PartialEq)]
pub enum Lowered {
    /// A namespace with its labels.
    Namespace(Labels),
    /// A Service.
    Service(Arc<Service>),
    /// An EndpointSlice that belongs to a Service.
    Slice(Arc<Slice>),
    /// A Pod.
    Pod(Arc<Pod>),
    /// A ServiceAccount.
    Account(Arc<Account>),
    /// A Node.
    Node(Arc<Node>),
    /// A registered cluster.
    Cluster(Arc<Cluster>),
    /// A Workspace.
    Workspace(Arc<Workspace>),
    /// WorkspaceSettings.
    Settings(Arc<Settings>),
    /// A VirtualGateway.
    Gateway(Arc<VirtualGateway>),
    /// A RouteTable.
    Table(Arc<Table>),
    /// A VirtualDestination.
    VirtualDestination(Arc<VirtualDestination>),
    /// An ExternalService.
    ExternalService(Arc<ExternalService>),
    /// An ExternalEndpoint.
    ExternalEndpoint(Arc<ExternalEndpoint>),
    /// A Secret.
    Secret(Arc<Secret>),
    /// An ExtAuthServer.
    AuthServer(Arc<AuthServerObject>),
    /// A RootTrustPolicy.
    Trust(Arc<TrustPolicy>),
    /// A policy of any kind.
    Policy(Arc<PolicyObject>),
    /// An object that RateLimitPolicies refer to.
    Limits(Arc<LimitObject>),
    /// Nothing that routing needs.
    Nothing,
}

/// Checks one object.
///
/// # Cost
/// In proportion to the object.
#[must_use]
pub fn lower(object: &Object) -> (Lowered, Findings) {
    let mut findings = Findings::new();
    if is_refused(object) {
        return (Lowered::Nothing, findings);
    }
    let lowered = match &*object.spec() {
        Spec::Namespace(_) => Lowered::Namespace(object.meta.labels.clone()),
        Spec::Service(service) => Lowered::Service(Arc::new(discovery::service(object, service, &mut findings))),
        Spec::EndpointSlice(slice) => {
            discovery::slice(object, slice).map_or(Lowered::Nothing, |slice| Lowered::Slice(Arc::new(slice)))
        }
        Spec::Pod(pod) => Lowered::Pod(Arc::new(discovery::pod(object, pod))),
        Spec::ServiceAccount(_) => Lowered::Account(Arc::new(discovery::account(object))),
        Spec::Node(node) => Lowered::Node(Arc::new(discovery::node(object, node))),
        Spec::KubernetesCluster(cluster) => Lowered::Cluster(Arc::new(workspace::cluster(object, cluster))),
        Spec::Workspace(spec) => Lowered::Workspace(Arc::new(workspace::workspace(object, spec, &mut findings))),
        Spec::WorkspaceSettings(spec) => Lowered::Settings(Arc::new(workspace::settings(object, spec, &mut findings))),
        Spec::VirtualGateway(spec) => Lowered::Gateway(Arc::new(gateway::gateway(object, spec, &mut findings))),
        Spec::RouteTable(spec) => Lowered::Table(Arc::new(table::table(object, spec, &mut findings))),
        Spec::VirtualDestination(spec) => {
            Lowered::VirtualDestination(Arc::new(discovery::virtual_destination(object, spec, &mut findings)))
        }
        Spec::ExternalService(spec) => {
            Lowered::ExternalService(Arc::new(external::external_service(object, spec, &mut findings)))
        }
        Spec::ExternalEndpoint(spec) => {
            Lowered::ExternalEndpoint(Arc::new(external::external_endpoint(object, spec, &mut findings)))
        }
        Spec::RootTrustPolicy(spec) => Lowered::Trust(Arc::new(trust::trust_policy(object, spec, &mut findings))),
        Spec::ExtAuthServer(spec) => {
            Lowered::AuthServer(Arc::new(policy::ext_auth::server_object(object, spec, &mut findings)))
        }
        Spec::Unsupported => {
            not_supported(object, &mut findings);
            Lowered::Nothing
        }
        Spec::RateLimitServerSettings(_) | Spec::RateLimitServerConfig(_) | Spec::RateLimitClientConfig(_) => {
            let referenced = policy::rate_limit::referenced(object, &mut findings);
            referenced.map_or(Lowered::Nothing, |limits| Lowered::Limits(Arc::new(limits)))
        }
        Spec::Secret(secret) => Lowered::Secret(Arc::new(discovery::secret(object, secret))),
        Spec::ConfigMap(_) => Lowered::Nothing,
        _ => policy::lower(object, &mut findings).map_or(Lowered::Nothing, |policy| Lowered::Policy(Arc::new(policy))),
    };
    (lowered, findings)
}

/// Whether an object counts as absent because of what could not be read of it.
///
/// Kubernetes' own kinds: an API server would not have taken it, and a selector or label less would mean more Pods, or a
/// protecting policy less. Destinations: the same holds for their labels and selectors. Routes to it answer 500.
fn is_refused(object: &Object) -> bool {
    let kind = object.meta.id.kind;
    let is_strict =
        !kind.is_v2() || matches!(kind, Kind::VirtualDestination | Kind::ExternalService | Kind::ExternalEndpoint);
    is_strict && !object.defects.is_empty()
}

fn not_supported(object: &Object, findings: &mut Findings) {
    let id = &object.meta.id;
    findings.push(Finding::warning(
        id,
        Code::Unsupported,
        format!("{} is read but not supported yet; it has no effect", id.kind),
    ));
}

/// A map of texts as labels.
pub(super) fn labels(written: &BTreeMap<String, String>) -> Labels {
    written.iter().map(|(key, value)| (Name::from(key), Name::from(value))).collect()
}

/// A text that may be left out; empty is left out.
pub(super) fn optional(written: &str) -> Option<Name> {
    (!written.is_empty()).then(|| Name::from(written))
}

pub(super) fn lower_selector(written: &ObjectSelector) -> Selector {
    Selector {
        labels: labels(&written.labels),
        name: optional(&written.name),
        namespace: optional(&written.namespace),
        cluster: optional(&written.cluster),
        workspace: optional(&written.workspace),
    }
}

pub(super) fn lower_reference(written: &ObjectReference) -> Reference {
    Reference {
        name: (&written.name).into(),
        namespace: optional(&written.namespace),
        cluster: optional(&written.cluster),
    }
}

/// A port; nothing where neither number nor name is there.
///
/// # Errors
/// A number beyond 65535 or 0.
pub(super) fn lower_port(written: &PortSelector) -> Result<Option<Port>, String> {
    match (written.number, &written.name) {
        (Some(number), _) => port_number(number).map(|number| Some(Port::Number(number))),
        (None, Some(name)) if !name.is_empty() => Ok(Some(Port::Name(name.into()))),
        (None, _) => Ok(None),
    }
}

/// Where TLS ends that crosses clusters; nothing where no mode is written.
fn lower_client_mode(written: &common::ClientMode) -> Option<ClientMode> {
    let common::ClientMode { auto, sni_routing, tls_termination } = written;
    let at_gateway = auto.is_some() || tls_termination.is_some();
    sni_routing.is_some().then_some(ClientMode::Pod).or(at_gateway.then_some(ClientMode::Gateway))
}

pub(super) fn port_number(number: u32) -> Result<u16, String> {
    u16::try_from(number)
        .ok()
        .filter(|number| *number != 0)
        .ok_or_else(|| format!("{number} is no port: write 1 to 65535"))
}

pub(super) fn lower_kind(written: WrittenKind) -> DestinationKind {
    match written {
        WrittenKind::Service => DestinationKind::Service,
        WrittenKind::VirtualDestination => DestinationKind::VirtualDestination,
        WrittenKind::ExternalService => DestinationKind::ExternalService,
    }
}

pub(super) fn lower_destination_selector(written: &written::DestinationSelector) -> DestinationSelector {
    DestinationSelector {
        selector: written.selector.as_ref().map(lower_selector).unwrap_or_default(),
        kind: lower_kind(written.kind),
        // A port that is none selects nothing: no Service has port 0.
        port: written.port.as_ref().and_then(|port| lower_port(port).unwrap_or(Some(Port::Number(0)))),
    }
}

/// A host that is written a second time.
fn stands_twice(id: &ObjectRef, host: &Host, at: FieldPath) -> Finding {
    Finding::warning(id, Code::InvalidField, format!("`{host}` stands twice: leave one of them out")).at(at)
}

/// Reports a field that has no effect here.
fn not_applicable(object: &Object, field: &str, why: &str, findings: &mut Findings) {
    findings.push(
        Finding::info(&object.meta.id, Code::NotApplicable, format!("`{field}` has no effect: {why}"))
            .at(FieldPath::new(format!("spec.{field}"))),
    );
}
