//! The checked form of each object: what its author said, once the manifest's shape no longer matters.
//!
//! No reference is followed here. A part that could not be understood carries its fault with it, so that whoever uses
//! the part decides how far the fault reaches.

mod workspaces;

pub use workspaces::{
    ClientMode, Cluster, ClusterItem, DialledAddress, EastWestItem, Federation, NamespaceItem, ResourceFilter,
    Settings, SettingsOptions, ShareItem, Workspace, WorkspacePattern,
};

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::ir::client_tls::Origination;
use crate::ir::listener::TlsVersion;
use crate::ir::policy::Policy;
use crate::ir::policy::ext_auth::{AuthServer, ExtAuth};
use crate::ir::policy::jwt::Jwt;
use crate::ir::policy::rate_limit::RateLimit;
use crate::ir::route::{DirectResponse, HostRewrite, Matcher, PathRewrite, Redirect};
use crate::ir::trust::Terms;
use crate::ir::upstream::{Locality, UpstreamProtocol};
use crate::model::{Code, FieldPath, Host, Kind, Labels, Name, ObjectRef, SecretBytes};

/// Age order: oldest first.
///
/// Earlier creation time first; ties by namespace, name and cluster in byte order. Without a creation time an object is
/// younger than any that has one.
///
/// # Rule
/// R1, D1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Age {
    created: Option<jiff::Timestamp>,
    id: ObjectRef,
}

impl Age {
    /// The age of an object.
    #[must_use]
    pub fn new(created: Option<jiff::Timestamp>, id: &ObjectRef) -> Self {
        Self { created, id: id.clone() }
    }

    /// Before every other.
    #[must_use]
    pub fn first() -> Self {
        let id = ObjectRef::new(Kind::ALL[0], "", "", "");
        Self { created: Some(jiff::Timestamp::MIN), id }
    }

    fn key(&self) -> (bool, Option<jiff::Timestamp>, &Name, &Name, &Name) {
        (self.created.is_none(), self.created, &self.id.namespace, &self.id.name, &self.id.cluster)
    }
}

impl PartialOrd for Age {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Age {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key()).then_with(|| self.id.kind.cmp(&other.id.kind))
    }
}

/// Why a part of an object cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What it is.
    pub code: Code,
    /// Where in the object.
    pub field: FieldPath,
    /// What is wrong and what to do.
    pub message: String,
}

/// Selects objects. An absent field does not restrict.
///
/// # Rule
/// R39.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Selector {
    /// Labels that the object carries.
    pub labels: Labels,
    /// Exact name.
    pub name: Option<Name>,
    /// Exact namespace.
    pub namespace: Option<Name>,
    /// Exact cluster.
    pub cluster: Option<Name>,
    /// Owning workspace.
    pub workspace: Option<Name>,
}

/// Names one object; what is left out is the holder's.
///
/// # Rule
/// R38.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// Name; empty when the author left it out, which finds nothing.
    pub name: Name,
    /// Namespace, if written.
    pub namespace: Option<Name>,
    /// Cluster, if written.
    pub cluster: Option<Name>,
}

/// A port by number or by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Port {
    /// 1 to 65535.
    Number(u16),
    /// As in the Service.
    Name(Name),
}

/// The three kinds of destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DestinationKind {
    /// Kubernetes Service.
    Service,
    /// VirtualDestination.
    VirtualDestination,
    /// ExternalService.
    ExternalService,
}

impl DestinationKind {
    /// The kind of the object.
    #[must_use]
    pub fn kind(self) -> Kind {
        match self {
            Self::Service => Kind::Service,
            Self::VirtualDestination => Kind::VirtualDestination,
            Self::ExternalService => Kind::ExternalService,
        }
    }
}

/// Selects destinations for a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DestinationSelector {
    /// Which objects.
    pub selector: Selector,
    /// Of which kind.
    pub kind: DestinationKind,
    /// Which port; absent means all.
    pub port: Option<Port>,
}

// ---- tables ------------------------------------------------------------------------------------------------------

/// A RouteTable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Its name.
    pub id: ObjectRef,
    /// Its age.
    pub age: Age,
    /// `metadata.labels`.
    pub labels: Labels,
    /// Root tables have hosts; a child takes effect by delegation only.
    pub role: TableRole,
    /// Whether it is for some clients inside the clusters only, who cannot be told from others (R101, D13).
    pub is_for_some_clients: bool,
    /// Order among siblings, higher first (R96).
    pub weight: i32,
    /// HTTP routes in order.
    pub routes: Vec<TableRoute>,
    /// Routes of whole connections in order: those of `spec.tcp`, then those of `spec.tls`.
    pub streams: Vec<StreamRoute>,
}

/// One entry of `spec.tcp` or `spec.tls`: where whole connections go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamRoute {
    /// Where it stands.
    pub field: FieldPath,
    /// Which connections it takes.
    pub matcher: StreamMatcher,
    /// Destinations with their weights worked out (R77).
    pub destinations: Arc<[DestinationReference]>,
    /// What is wrong with it by itself; connections are closed then.
    pub fault: Option<Fault>,
}

/// Which connections a route takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamMatcher {
    /// Of `spec.tcp`: those to one of these ports of the gateway Service; empty means any.
    Tcp(Vec<u16>),
    /// Of `spec.tls`: those that state one of these names, to the port if one is written.
    Sni(Vec<(Host, Option<u16>)>),
}

/// What kind of table it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TableRole {
    /// It has `hosts`.
    Root(RootTable),
    /// It has none.
    Child,
}

/// What only a root table decides.
///
/// # Rule
/// R100.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RootTable {
    /// Valid hosts; a table whose hosts are all invalid is still a root.
    pub hosts: Vec<Host>,
    /// Gateways that it names, with their place.
    pub gateways: Vec<Reference>,
    /// Whether it serves clients inside the clusters (R76).
    pub serves_mesh: bool,
    /// What becomes of the tree while a route of it is invalid.
    pub failure_mode: FailureMode,
}

/// What becomes of a tree while a route of it is invalid.
///
/// # Rule
/// R138.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FailureMode {
    /// Invalid routes answer with a direct response.
    #[default]
    RouteReplacement,
    /// The whole tree keeps its last accepted configuration.
    FreezeConfig,
    /// Cannot be read: a tree that kept a configuration goes on keeping it, any other replaces routes.
    Unreadable,
}

/// One entry of `spec.http`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableRoute {
    /// R80; `route-<index>` where it has none.
    pub name: Name,
    /// Position in `spec.http`.
    pub index: usize,
    /// Route labels, in the order of their keys. A map of its own would take 400 bytes for every route.
    pub labels: Box<[(Name, Name)]>,
    /// Alternatives that can be understood; none written is one that takes everything.
    pub matchers: Box<[Matcher]>,
    /// What it does.
    pub action: TableAction,
    /// What is wrong with it by itself, whatever it refers to.
    pub faults: Vec<Fault>,
}

/// What a route of a table does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TableAction {
    /// Forward; neighbours share it where they do the same.
    Forward(Arc<TableForward>),
    /// Hand over to child tables.
    Delegate(Box<Delegate>),
    /// Redirect.
    Redirect(Arc<Redirect>),
    /// Answer.
    Direct(DirectResponse),
    /// Nothing that could be done; the route's faults say why.
    None,
}

/// A forwarding action as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableForward {
    /// Destinations with their weights worked out (R77).
    pub destinations: Arc<[DestinationReference]>,
    /// Path.
    pub path_rewrite: Option<PathRewrite>,
    /// Host.
    pub host_rewrite: Option<HostRewrite>,
}

/// One destination as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DestinationReference {
    /// The object.
    pub reference: Reference,
    /// Its kind.
    pub kind: DestinationKind,
    /// Its port, if written.
    pub port: Option<Port>,
    /// Endpoint labels.
    pub subset: Labels,
    /// 1 to 100.
    pub weight: u32,
    /// Where it stands.
    pub place: DestinationPlace,
}

impl DestinationReference {
    /// Where it stands in its object, below the field of its route.
    #[must_use]
    pub fn field(&self, route: &FieldPath) -> FieldPath {
        match self.place {
            DestinationPlace::Listed(index) => route.field("forwardTo").field("destinations").index(index),
            DestinationPlace::Default => FieldPath::new("spec.defaultDestination"),
            DestinationPlace::Route => route.clone(),
        }
    }
}

/// Where a destination stands, seen from its route, so that it is the same on each route which says the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DestinationPlace {
    /// In `forwardTo.destinations`, at a position counted from 0.
    Listed(usize),
    /// In `spec.defaultDestination` (R75).
    Default,
    /// Where the route itself does.
    Route,
}

/// A delegating action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delegate {
    /// Selector items in order.
    pub items: Vec<Selector>,
    /// How the children's routes are ordered.
    pub sort: SortMethod,
}

/// Order of delegated routes.
///
/// # Rule
/// R96, R97.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SortMethod {
    /// By table weight.
    TableWeight,
    /// By how specific the path is.
    RouteSpecificity,
}

// ---- gateways ----------------------------------------------------------------------------------------------------

/// A VirtualGateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtualGateway {
    /// Its name.
    pub id: ObjectRef,
    /// Its age.
    pub age: Age,
    /// Which gateway workloads implement it; `None` means all of its workspace (R52).
    pub workloads: Option<Vec<Selector>>,
    /// Listeners that can be understood.
    pub listeners: Vec<GatewayListener>,
}

/// What a listener speaks.
///
/// # Rule
/// R55.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenerProtocol {
    /// Plain HTTP.
    Http,
    /// HTTP within TLS.
    Https,
    /// Plain TCP.
    Tcp,
    /// TCP within TLS, or TLS that is passed through.
    Tls,
}

impl ListenerProtocol {
    /// The API's text.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "HTTP",
            Self::Https => "HTTPS",
            Self::Tcp => "TCP",
            Self::Tls => "TLS",
        }
    }
}

/// One listener of a VirtualGateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayListener {
    /// Position in `spec.listeners`.
    pub index: usize,
    /// Port of the gateway Service.
    pub port: Port,
    /// What it speaks.
    pub protocol: ListenerProtocol,
    /// Why it is not programmed, if it is not; it still takes its port (R55, R56).
    pub fault: Option<Fault>,
    /// Who may bind; `None` means every table of R62 (R63).
    pub allowed: Option<Vec<AllowedTables>>,
    /// First host, for the conflict rule R56.
    pub first_host: Name,
    /// What becomes of TLS; `None` in plaintext.
    pub tls: Option<TlsMode>,
    /// Whether every request is answered 301 to `https` (R61).
    pub redirects_to_https: bool,
}

impl GatewayListener {
    /// The hosts that it is for: those of `allowedRouteTables`, else every one.
    pub fn hosts(&self) -> impl Iterator<Item = Host> {
        let written = self.allowed.iter().flatten().map(|item| item.host.clone());
        written.chain(self.allowed.is_none().then(Host::any))
    }
}

/// What a listener does with TLS.
///
/// # Rule
/// R58.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TlsMode {
    /// Passes it through by server name.
    Passthrough,
    /// Ends it.
    Terminate(Termination),
}

/// How a listener ends TLS, as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Termination {
    /// Certificate, and authorities where clients must show one.
    pub material: TlsMaterial,
    /// Whether clients must show a certificate.
    pub mutual: bool,
    /// Names of which one must be in a client's certificate.
    pub names: Vec<Name>,
    /// Lowest version.
    pub minimum: TlsVersion,
    /// Highest version.
    pub maximum: TlsVersion,
    /// Ciphers that Envoy has.
    pub ciphers: Vec<Name>,
}

/// Where certificates come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TlsMaterial {
    /// A Secret in the gateway's own namespace and cluster (R59).
    Secret(Name),
    /// Files on the gateway's disk.
    Files {
        /// Path of the certificate chain.
        chain: Name,
        /// Path of the key.
        key: Name,
        /// Path of the authorities; empty where clients show nothing.
        authorities: Name,
    },
    /// The gateway's own identity in the mesh.
    Workload,
}

/// One item of `allowedRouteTables`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowedTables {
    /// Host pattern.
    pub host: Host,
    /// Namespace of the table; absent means any.
    pub namespace: Option<Name>,
    /// Further restriction (D10).
    pub selector: Selector,
}

// ---- secrets ----------------------------------------------------------------------------------------------------

/// A Kubernetes Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Secret {
    /// Its name.
    pub id: ObjectRef,
    /// Its age.
    pub age: Age,
    /// Its labels.
    pub labels: Labels,
    /// `kubernetes.io/tls` and so on.
    pub kind: Name,
    /// Its content by key.
    pub data: BTreeMap<Name, SecretBytes>,
}

// ---- trust ------------------------------------------------------------------------------------------------------

/// A RootTrustPolicy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustPolicy {
    /// Its name.
    pub id: ObjectRef,
    /// Its age.
    pub age: Age,
    /// What signs.
    pub root: Result<RootSource, Fault>,
    /// How the certificates of gateways are made.
    pub gateways: Result<Terms, Fault>,
    /// What else is trusted, with its place.
    pub passive: Vec<(FieldPath, Result<RootSource, Fault>)>,
}

/// Where a root comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RootSource {
    /// The control plane makes it and keeps it.
    Generated(Terms),
    /// A Secret beside the policy.
    Secret(Name),
}

// ---- services ----------------------------------------------------------------------------------------------------

/// A Kubernetes Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its name.
    pub id: ObjectRef,
    /// Its age.
    pub age: Age,
    /// `metadata.labels`.
    pub labels: Labels,
    /// `spec.selector`; empty selects no Pod.
    pub selector: Labels,
    /// Ports in order.
    pub ports: Vec<ServicePort>,
    /// Where it is reached from outside its cluster, IP addresses or DNS names: its load balancer, else `externalIPs` (R14).
    pub outside: Vec<Name>,
    /// Its own addresses, inside its cluster.
    pub addresses: Vec<IpAddr>,
    /// The DNS name that it stands for, if it is an `ExternalName`.
    pub alias: Option<Name>,
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Its name; empty when there is one port only.
    pub name: Name,
    /// Its number.
    pub number: u16,
    /// The container port: by number, or by name on each Pod.
    pub target: Port,
    /// Protocol towards the Pods, from `appProtocol` or the name; `None` for TLS (R195).
    pub protocol: Option<UpstreamProtocol>,
    /// Whether the same say that it speaks neither HTTP nor TLS, so that connections to its host are passed on whole.
    pub is_stream: bool,
    /// Whether it is TCP.
    pub tcp: bool,
    /// The port on every Node, if there is one.
    pub node_port: Option<u16>,
}

/// An EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    /// Its name.
    pub id: ObjectRef,
    /// The Service that it belongs to (label `kubernetes.io/service-name`).
    pub service: ObjectRef,
    /// Port names and numbers.
    pub ports: Vec<(Name, u16)>,
    /// Usable entries (R12).
    pub endpoints: Vec<SliceEndpoint>,
}

/// One entry of a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliceEndpoint {
    /// IP addresses.
    pub addresses: Vec<Name>,
    /// The Pod behind it.
    pub pod: Option<ObjectRef>,
    /// Its Node.
    pub node: Option<Name>,
    /// Its zone, where the slice says so.
    pub zone: Option<Name>,
    /// Whether it is to be used: its Pod says so, and is not about to end.
    pub is_ready: bool,
}

/// A Pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Its name.
    pub id: ObjectRef,
    /// Its labels.
    pub labels: Labels,
    /// The service account as which it runs.
    pub service_account: Name,
    /// Its addresses.
    pub addresses: Vec<Name>,
    /// Its Node.
    pub node: Option<Name>,
    /// Container ports by name.
    pub ports: BTreeMap<Name, u16>,
    /// Whether it may be sent requests.
    pub ready: bool,
    /// Whether requests from its addresses are its own: not where it has ended, or has no address but its Node's.
    pub is_client: bool,
    /// Whether it has ended, well or not.
    pub has_ended: bool,
}

/// A ServiceAccount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Its name.
    pub id: ObjectRef,
    /// Its age.
    pub age: Age,
    /// Its labels.
    pub labels: Labels,
}

/// A Node: its place, and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub id: ObjectRef,
    /// Region.
    pub region: Name,
    /// Zone.
    pub zone: Name,
    /// Sub-zone.
    pub sub_zone: Name,
    /// Its external IP addresses, else its internal ones.
    pub addresses: Vec<Name>,
}

/// A VirtualDestination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtualDestination {
    /// Its name.
    pub id: ObjectRef,
    /// Its age.
    pub age: Age,
    /// Its labels.
    pub labels: Labels,
    /// Its hosts.
    pub hosts: Vec<Name>,
    /// Selectors of backing Services.
    pub services: Vec<Selector>,
    /// Selectors of backing ExternalServices.
    pub external: Vec<Selector>,
    /// Ports.
    pub ports: Vec<VirtualPort>,
    /// Where TLS ends that crosses clusters; absent for what the settings say.
    pub client_mode: Option<ClientMode>,
}

impl VirtualDestination {
    /// Whether it says itself where requests go, so that no table must (R164).
    #[must_use]
    pub fn has_backends(&self) -> bool {
        !(self.services.is_empty() && self.external.is_empty())
    }
}

/// A port of a VirtualDestination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtualPort {
    /// What routes name.
    pub number: u16,
    /// The port of the backing Services.
    pub target: Port,
    /// Protocol towards the backends; `None` for one that HTTP routes cannot use.
    pub protocol: Option<UpstreamProtocol>,
    /// Whether the backends speak TLS.
    pub is_tls: bool,
}

/// An ExternalService.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalService {
    /// Its name.
    pub id: ObjectRef,
    /// Its age.
    pub age: Age,
    /// Its labels.
    pub labels: Labels,
    /// Its hosts; gateways use the first.
    pub hosts: Vec<Host>,
    /// Its IP addresses, sorted.
    pub addresses: Vec<Name>,
    /// Labels of its endpoints; empty picks none.
    pub selector: Labels,
    /// Ports, each number once.
    pub ports: Vec<ExternalPort>,
    /// Why it cannot be a destination at all.
    pub fault: Option<Fault>,
}

/// A port of an ExternalService.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalPort {
    /// What routes name.
    pub number: u16,
    /// Its name; may be empty.
    pub name: Name,
    /// The port of the endpoints.
    pub target: Port,
    /// Protocol for HTTP routes; `None` for one that they cannot use.
    pub protocol: Option<UpstreamProtocol>,
    /// Whether gateways start TLS.
    pub tls: PortTls,
    /// Why it cannot be a destination.
    pub fault: Option<Fault>,
}

/// Whether gateways start TLS on a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortTls {
    /// No.
    Never,
    /// For HTTP routes, because the protocol says so; bytes of whole connections are TLS already.
    ForHttp(Origination),
    /// On every connection.
    Always(Origination),
}

/// An ExternalEndpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalEndpoint {
    /// Its name.
    pub id: ObjectRef,
    /// Its age.
    pub age: Age,
    /// Its labels.
    pub labels: Labels,
    /// Where it is; absent where that cannot be read.
    pub address: Option<ExternalAddress>,
    /// Port names and numbers.
    pub ports: Vec<(Name, u16)>,
    /// Its place.
    pub locality: Locality,
}

/// Where an ExternalEndpoint is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExternalAddress {
    /// An IP address.
    Ip(IpAddr),
    /// A DNS name in lower case.
    Name(Name),
    /// A Unix socket on the gateway's host, by its absolute path.
    Socket(Name),
}

// ---- policies ----------------------------------------------------------------------------------------------------

/// A policy of any kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyObject {
    /// The object.
    pub id: ObjectRef,
    /// Its age.
    pub age: Age,
    /// What it selects.
    pub targets: Targets,
    /// What it does, or why it does nothing.
    pub effect: PolicyEffect,
}

/// What a policy does where it attaches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PolicyEffect {
    /// This.
    Valid(Policy),
    /// What [`policy::settle`](super::policy::settle) makes of this, by following its references.
    Draft(Draft),
    /// Nothing: it is invalid, or its kind is not supported.
    Invalid(Arc<Fault>),
}

/// What a policy does, as far as it says so by itself: Secrets, servers and destinations are names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Draft {
    /// JWTPolicy.
    Jwt(Arc<Jwt>),
    /// RateLimitPolicy.
    RateLimit(Arc<RateLimit>),
    /// ExtAuthPolicy.
    ExtAuth(Arc<ExtAuth>),
}

/// An ExtAuthServer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthServerObject {
    /// The object.
    pub id: ObjectRef,
    /// Its age.
    pub age: Age,
    /// How it is asked, or why it cannot be.
    pub server: Result<AuthServer, Fault>,
}

/// What a policy selects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Targets {
    /// `applyToRoutes`; with the kind's default for no selector worked in.
    pub routes: Vec<RouteSelector>,
    /// `applyToRouteDestinations`.
    pub route_destinations: Vec<RouteDestinationSelector>,
    /// `applyToDestinations`; with the kind's default for no selector worked in.
    pub destinations: Vec<DestinationSelector>,
    /// `applyToWorkloads` with the kind's default; only gateways of the same owner are reached (R120).
    pub workloads: Vec<Selector>,
}

/// One item of `applyToRoutes`.
///
/// # Rule
/// R113.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteSelector {
    /// Every route whose chain contains the policy's owner (R114).
    All,
    /// By effective labels and the table that holds the route.
    Route(RouteLabelSelector),
    /// By where the route forwards to.
    WithDestinations(DestinationSelector),
}

/// Selects routes by label.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteLabelSelector {
    /// Effective labels.
    pub labels: Labels,
    /// Namespace of the table that holds the route (D19).
    pub namespace: Option<Name>,
    /// Its cluster.
    pub cluster: Option<Name>,
    /// Its owner.
    pub workspace: Option<Name>,
}

/// One item of `applyToRouteDestinations`.
///
/// # Rule
/// R117.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteDestinationSelector {
    /// Routes; absent means every route.
    pub route: RouteLabelSelector,
    /// Destinations of those routes; none means all.
    pub destinations: Vec<DestinationSelector>,
}

#[cfg(test)]
mod tests;
