//! From objects to running processes: echo backends on the endpoints that the objects name, a control plane, and
//! one Envoy per gateway.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::backend::{Backend, Identity};
use super::chancery::{self, Chancery, Node, Settings};
use super::dns::Dns;
use super::envoy::{self, Envoy};
use super::http::{Client, Request, Response};
use super::manifests::{self, Manifest, list, port, text, texts};
use super::net::Network;
use super::proxy::Proxy;

/// An endpoint that some EndpointSlice names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Endpoint {
    /// Who should answer there.
    pub(crate) identity: Identity,
    /// Where.
    pub(crate) address: SocketAddr,
}

/// All endpoints that the EndpointSlices name, sorted.
pub(crate) fn endpoints(manifests: &[Manifest]) -> anyhow::Result<Vec<Endpoint>> {
    let mut found = Vec::new();
    for slice in manifests.iter().filter(|manifest| manifest.kind() == "EndpointSlice") {
        let service = slice.label("kubernetes.io/service-name");
        if service.is_empty() {
            bail!("{} lacks the label kubernetes.io/service-name", slice.key());
        }
        let ports: Vec<u16> =
            list(&slice.object, "/ports").iter().filter_map(|entry| self::port(entry, "/port")).collect();
        for endpoint in list(&slice.object, "/endpoints") {
            for address in list(endpoint, "/addresses") {
                let address = address.as_str().unwrap_or_default();
                let ip: IpAddr =
                    address.parse().with_context(|| format!("`{address}` in {} is no address", slice.key()))?;
                let pod = text(endpoint, "/targetRef/name");
                let identity = Identity {
                    cluster: slice.cluster.clone(),
                    namespace: slice.namespace().to_owned(),
                    service: service.to_owned(),
                    pod: if pod.is_empty() { address.to_owned() } else { pod.to_owned() },
                    version: version(manifests, slice, pod),
                };
                let at = |port: &u16| Endpoint { identity: identity.clone(), address: SocketAddr::from((ip, *port)) };
                found.extend(ports.iter().map(at));
            }
        }
    }
    found.sort();
    Ok(found)
}

fn version(manifests: &[Manifest], slice: &Manifest, pod: &str) -> String {
    let same = |manifest: &&Manifest| {
        manifest.kind() == "Pod"
            && manifest.cluster == slice.cluster
            && manifest.namespace() == slice.namespace()
            && manifest.name() == pod
    };
    manifests.iter().find(same).map(|pod| pod.label("version").to_owned()).unwrap_or_default()
}

/// A gateway Service that some VirtualGateway selects, or that leads into its cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Gateway {
    /// Cluster.
    pub(crate) cluster: String,
    /// Namespace.
    pub(crate) namespace: String,
    /// Name of the Service.
    pub(crate) service: String,
    /// Labels of its Pods: the selector of the Service.
    pub(crate) labels: BTreeMap<String, String>,
    /// From Service port to the port that Envoy binds.
    pub(crate) ports: BTreeMap<u16, u16>,
}

impl Gateway {
    /// `cluster/namespace/service`.
    pub(crate) fn id(&self) -> String {
        format!("{}/{}/{}", self.cluster, self.namespace, self.service)
    }
}

/// The gateways of all VirtualGateways: Services of the same cluster that a `workloads` item picks by labels; and east-west
/// gateways.
pub(crate) fn gateways(manifests: &[Manifest]) -> Vec<Gateway> {
    manifests.iter().filter(|manifest| is_gateway_service(manifests, manifest)).map(gateway).collect()
}

/// The gateway that serves a VirtualGateway, `cluster/namespace/name`, and the Service port of its first listener.
pub(crate) fn gateway_of(manifests: &[Manifest], key: (&str, &str, &str)) -> anyhow::Result<(Gateway, u16)> {
    let named = |manifest: &&Manifest| {
        manifest.kind() == "VirtualGateway" && (manifest.cluster.as_str(), manifest.namespace(), manifest.name()) == key
    };
    let virtual_gateway = manifests.iter().find(named).with_context(|| format!("no VirtualGateway {key:?}"))?;
    let service = manifests.iter().find(|manifest| selects(virtual_gateway, manifest));
    let port = port(&virtual_gateway.object, "/spec/listeners/0/port/number");
    Ok((
        gateway(service.with_context(|| format!("{} selects no Service", virtual_gateway.key()))?),
        port.with_context(|| format!("{} has no listener with a port number", virtual_gateway.key()))?,
    ))
}

/// The gateway that serves a root table, `namespace/name`, and the Service port: the first that the table names.
pub(crate) fn gateway_of_table(manifests: &[Manifest], table: &str) -> anyhow::Result<(Gateway, u16)> {
    let named = |manifest: &&Manifest| {
        manifest.kind() == "RouteTable" && format!("{}/{}", manifest.namespace(), manifest.name()) == table
    };
    let table = manifests.iter().find(named).with_context(|| format!("no RouteTable {table}"))?;
    let reference = table.object.pointer("/spec/virtualGateways/0");
    let reference = reference.with_context(|| format!("{} names no gateway", table.key()))?;
    let or = |given: &'_ str, own: &str| if given.is_empty() { own.to_owned() } else { given.to_owned() };
    let cluster = or(text(reference, "/cluster"), &table.cluster);
    let namespace = or(text(reference, "/namespace"), table.namespace());
    gateway_of(manifests, (&cluster, &namespace, text(reference, "/name")))
}

fn is_gateway_service(manifests: &[Manifest], service: &Manifest) -> bool {
    if is_east_west(manifests, service) {
        return true;
    }
    let gateways = manifests.iter().filter(|manifest| manifest.kind() == "VirtualGateway");
    gateways.into_iter().any(|virtual_gateway| selects(virtual_gateway, service))
}

/// Whether settings choose a gateway Service by its labels, or its label does by default.
fn is_east_west(manifests: &[Manifest], service: &Manifest) -> bool {
    if service.kind() != "Service" || texts(&service.object, "/spec/selector").is_empty() {
        return false;
    }
    let own = texts(&service.object, "/metadata/labels");
    let settings = manifests.iter().filter(|manifest| manifest.kind() == "WorkspaceSettings");
    let items = settings.flat_map(|settings| list(&settings.object, "/spec/options/eastWestGateways"));
    let mut wanted: Vec<_> = items.map(|item| texts(item, "/selector/labels")).collect();
    wanted.push([("istio".to_owned(), "eastwestgateway".to_owned())].into());
    wanted.iter().any(|wanted| !wanted.is_empty() && wanted.iter().all(|(key, value)| own.get(key) == Some(value)))
}

fn selects(virtual_gateway: &Manifest, service: &Manifest) -> bool {
    if service.kind() != "Service" || service.cluster != virtual_gateway.cluster {
        return false;
    }
    let own = texts(&service.object, "/spec/selector");
    list(&virtual_gateway.object, "/spec/workloads").iter().any(|item| {
        let wanted = texts(item, "/selector/labels");
        !wanted.is_empty() && wanted.iter().all(|(key, value)| own.get(key) == Some(value))
    })
}

/// The gateway that a Service is.
pub(crate) fn gateway(service: &Manifest) -> Gateway {
    let pair = |entry: &Value| {
        let outside = port(entry, "/port")?;
        Some((outside, port(entry, "/targetPort").unwrap_or(outside)))
    };
    Gateway {
        cluster: service.cluster.clone(),
        namespace: service.namespace().to_owned(),
        service: service.name().to_owned(),
        labels: texts(&service.object, "/spec/selector"),
        ports: list(&service.object, "/spec/ports").iter().filter_map(pair).collect(),
    }
}

/// The networks of a relocated world, and where its gateways bind.
#[derive(Debug)]
pub(crate) struct Relocation {
    networks: BTreeMap<String, Network>,
    binds: BTreeMap<String, Ipv4Addr>,
}

impl Relocation {
    /// The address that a gateway binds.
    pub(crate) fn bind(&self, gateway: &Gateway) -> Ipv4Addr {
        self.binds.get(&gateway.id()).copied().unwrap_or(Ipv4Addr::LOCALHOST)
    }
}

/// Moves a world to networks of its own: endpoint addresses, gateway addresses and target ports, and of east-west gateways
/// the ports that other clusters dial; nothing else.
///
/// Each cluster gets one network. Equal addresses and equal ports of one cluster stay equal.
pub(crate) fn relocate(manifests: &mut [Manifest]) -> anyhow::Result<Relocation> {
    relocate_to(manifests, Network::claim)
}

/// The same, to networks that an API server takes as addresses of endpoints.
pub(crate) fn relocate_routed(manifests: &mut [Manifest]) -> anyhow::Result<Relocation> {
    relocate_to(manifests, Network::claim_routed)
}

fn relocate_to(manifests: &mut [Manifest], claim: fn() -> anyhow::Result<Network>) -> anyhow::Result<Relocation> {
    let gateways = gateways(manifests);
    let east_west = manifests.iter().filter(|manifest| is_east_west(manifests, manifest)).map(Manifest::key);
    let east_west: BTreeSet<String> = east_west.collect();
    let mut clusters: BTreeMap<String, Cluster> = BTreeMap::new();
    let mut binds = BTreeMap::new();
    for manifest in manifests.iter_mut() {
        if !matches!(manifest.kind(), "EndpointSlice" | "Pod" | "Service") {
            continue;
        }
        let cluster = match clusters.entry(manifest.cluster.clone()) {
            std::collections::btree_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::btree_map::Entry::Vacant(new) => new.insert(Cluster::on(claim()?)),
        };
        match manifest.kind() {
            "EndpointSlice" => {
                for endpoint in items(&mut manifest.object, "/endpoints") {
                    for address in items(endpoint, "/addresses") {
                        cluster.move_address(address)?;
                    }
                }
                for entry in items(&mut manifest.object, "/ports") {
                    cluster.move_port(entry.pointer_mut("/port"))?;
                }
            }
            "Pod" => {
                if let Some(address) = manifest.object.pointer_mut("/status/podIP") {
                    cluster.move_address(address)?;
                }
                for entry in items(&mut manifest.object, "/status/podIPs") {
                    if let Some(address) = entry.pointer_mut("/ip") {
                        cluster.move_address(address)?;
                    }
                }
            }
            _ => {
                let is_east_west = east_west.contains(&manifest.key());
                for entry in items(&mut manifest.object, "/spec/ports") {
                    cluster.move_port(entry.pointer_mut("/targetPort"))?;
                }
                // There is no load balancer: what other clusters dial is the port that Envoy binds.
                for entry in is_east_west.then(|| items(&mut manifest.object, "/spec/ports")).into_iter().flatten() {
                    if matches!(entry["name"].as_str(), Some("tls" | "https")) {
                        entry["port"] = entry["targetPort"].clone();
                    }
                }
                let id = format!("{}/{}/{}", manifest.cluster, manifest.namespace(), manifest.name());
                if gateways.iter().any(|gateway| gateway.id() == id) {
                    let bind = match binds.get(&id) {
                        Some(known) => *known,
                        None => cluster.network.next_address()?,
                    };
                    for entry in items(&mut manifest.object, "/status/loadBalancer/ingress") {
                        *entry = json!({ "ip": bind.to_string() });
                    }
                    binds.insert(id, bind);
                }
            }
        }
    }
    let networks = clusters.into_iter().map(|(name, cluster)| (name, cluster.network)).collect();
    Ok(Relocation { networks, binds })
}

struct Cluster {
    network: Network,
    addresses: BTreeMap<String, Ipv4Addr>,
    ports: BTreeMap<u64, u16>,
}

impl Cluster {
    fn on(network: Network) -> Self {
        Self { network, addresses: BTreeMap::new(), ports: BTreeMap::new() }
    }

    fn move_address(&mut self, value: &mut Value) -> anyhow::Result<()> {
        let old = value.as_str().unwrap_or_default().to_owned();
        let new = match self.addresses.get(&old) {
            Some(known) => *known,
            None => self.network.next_address()?,
        };
        self.addresses.insert(old, new);
        *value = json!(new.to_string());
        Ok(())
    }

    /// Named and absent ports stay as they are.
    fn move_port(&mut self, value: Option<&mut Value>) -> anyhow::Result<()> {
        let Some(value) = value else { return Ok(()) };
        let Some(old) = value.as_u64() else { return Ok(()) };
        let new = match self.ports.get(&old) {
            Some(known) => *known,
            None => self.network.free_port()?,
        };
        self.ports.insert(old, new);
        *value = json!(new);
        Ok(())
    }
}

fn items<'a>(value: &'a mut Value, pointer: &str) -> &'a mut [Value] {
    value.pointer_mut(pointer).and_then(Value::as_array_mut).map_or(&mut [], Vec::as_mut_slice)
}

/// How gateways talk to the control plane.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Speech<'a> {
    /// Further flags for `chancery bootstrap`.
    pub(crate) flags: &'a [&'a str],
    /// What else differs in the bootstrap.
    pub(crate) change: Option<fn(&mut Value)>,
    /// The Envoy to run, if not the one that everything is tested against.
    pub(crate) binary: Option<&'a Path>,
    /// What stands between the gateway and the control plane.
    pub(crate) through: Option<&'a Proxy>,
    /// Where it looks names up, if not where its system does.
    pub(crate) dns: Option<&'a Dns>,
}

/// A gateway and the Envoy that is its one Pod.
#[derive(Debug)]
pub(crate) struct RunningGateway {
    /// What it is.
    pub(crate) gateway: Gateway,
    /// Its Envoy.
    pub(crate) envoy: Envoy,
    /// The address that its listeners bind.
    pub(crate) bind: Ipv4Addr,
}

impl RunningGateway {
    /// Starts an Envoy for a gateway. Its listeners come later, from the control plane.
    pub(crate) async fn start(gateway: Gateway, bind: Ipv4Addr, xds: SocketAddr) -> anyhow::Result<Self> {
        Self::start_with(gateway, bind, xds, &[]).await
    }

    /// The same with further flags for `chancery bootstrap`.
    pub(crate) async fn start_with(
        gateway: Gateway,
        bind: Ipv4Addr,
        xds: SocketAddr,
        flags: &[&str],
    ) -> anyhow::Result<Self> {
        let pod = format!("{}-0", gateway.service);
        Self::start_speaking(gateway, &pod, bind, xds, &Speech { flags, ..Speech::default() }).await
    }

    /// The same as any of its Pods, with a way of its own to talk to the control plane.
    pub(crate) async fn start_speaking(
        gateway: Gateway,
        pod: &str,
        bind: Ipv4Addr,
        xds: SocketAddr,
        speech: &Speech<'_>,
    ) -> anyhow::Result<Self> {
        let xds = match speech.through {
            Some(proxy) => {
                proxy.lead_to(xds);
                proxy.address()
            }
            None => xds,
        };
        let node = Node {
            cluster: &gateway.cluster,
            namespace: &gateway.namespace,
            pod,
            labels: gateway.labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect(),
            bind,
        };
        let mut bootstrap: Value = serde_json::from_str(&chancery::bootstrap(xds, &node, speech.flags)?)?;
        if let Some(change) = speech.change {
            change(&mut bootstrap);
        }
        if let Some(dns) = speech.dns {
            dns.serve(&mut bootstrap);
        }
        let binary = speech.binary.map_or_else(envoy::find, |binary| Ok(binary.to_owned()))?;
        let name = format!("{}/{}/{pod}", gateway.cluster, gateway.namespace);
        let envoy = Envoy::start_binary(&binary, &name, &bootstrap.to_string()).await?;
        Ok(Self { gateway, envoy, bind })
    }

    /// Where clients reach a port of the gateway's Service.
    pub(crate) fn address(&self, service_port: u16) -> anyhow::Result<SocketAddr> {
        let target = self.gateway.ports.get(&service_port);
        let target = target.with_context(|| format!("{} has no port {service_port}", self.gateway.id()))?;
        Ok(SocketAddr::from((self.bind, *target)))
    }
}

/// A world that runs; everything in it ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Mesh {
    /// The objects as written, after relocation.
    pub(crate) manifests: Vec<Manifest>,
    /// The files, in the order of the objects.
    pub(crate) files: Vec<PathBuf>,
    /// How the directory is read.
    pub(crate) settings: Settings,
    /// The control plane.
    pub(crate) chancery: Chancery,
    /// One per gateway.
    pub(crate) gateways: Vec<RunningGateway>,
    /// One per endpoint.
    pub(crate) backends: Vec<Backend>,
    relocation: Relocation,
    folder: TempDir,
}

impl Mesh {
    /// Relocates a world, writes it, and starts all of it. Gateways listen when this returns.
    pub(crate) async fn start(manifests: Vec<Manifest>, settings: Settings) -> anyhow::Result<Self> {
        Self::start_speaking(manifests, settings, &Speech::default()).await
    }

    /// The same with gateways that talk to the control plane in a way of their own.
    pub(crate) async fn start_speaking(
        manifests: Vec<Manifest>,
        settings: Settings,
        speech: &Speech<'_>,
    ) -> anyhow::Result<Self> {
        let mut mesh = Self::start_without_gateways(manifests, settings).await?;
        for gateway in self::gateways(&mesh.manifests) {
            let bind = mesh.relocation.bind(&gateway);
            mesh.join(&gateway, bind, speech).await?;
        }
        if let Err(error) = mesh.listening().await {
            return Err(mesh.with_logs(error));
        }
        Ok(mesh)
    }

    /// The same without any gateway; [`Mesh::join`] adds them.
    pub(crate) async fn start_without_gateways(
        mut manifests: Vec<Manifest>,
        settings: Settings,
    ) -> anyhow::Result<Self> {
        let relocation = relocate(&mut manifests)?;
        let folder = tempfile::tempdir().context("make a folder for the manifests")?;
        let files = manifests::write(folder.path(), &manifests)?;
        let backends = start_backends(&manifests).await?;
        let chancery = Chancery::serve(folder.path(), &settings).await?;
        Ok(Self { manifests, files, settings, chancery, gateways: Vec::new(), backends, relocation, folder })
    }

    /// One more Envoy of a gateway, as a Pod of its own: the last of `gateways` afterwards. It does not wait for listeners.
    pub(crate) async fn join(
        &mut self,
        gateway: &Gateway,
        bind: Ipv4Addr,
        speech: &Speech<'_>,
    ) -> anyhow::Result<&mut RunningGateway> {
        let number = self.gateways.iter().filter(|running| running.gateway == *gateway).count();
        let pod = format!("{}-{number}", gateway.service);
        let joined = RunningGateway::start_speaking(gateway.clone(), &pod, bind, self.chancery.xds(), speech).await?;
        self.gateways.push(joined);
        self.gateways.last_mut().context("no gateway")
    }

    /// An address of a cluster's network that nobody has yet.
    pub(crate) fn free_address(&self, cluster: &str) -> anyhow::Result<Ipv4Addr> {
        let network = self.relocation.networks.get(cluster);
        network.with_context(|| format!("no network of {cluster}"))?.next_address()
    }

    /// The address that a gateway's first Envoy binds.
    pub(crate) fn bind(&self, gateway: &Gateway) -> Ipv4Addr {
        self.relocation.bind(gateway)
    }

    async fn listening(&mut self) -> anyhow::Result<()> {
        for manifest in self.manifests.iter().filter(|manifest| manifest.kind() == "VirtualGateway") {
            let key = (manifest.cluster.as_str(), manifest.namespace(), manifest.name());
            let (gateway, port) = gateway_of(&self.manifests, key)?;
            let running = self.gateways.iter_mut().find(|running| running.gateway == gateway);
            let running = running.with_context(|| format!("{} does not run", gateway.id()))?;
            let address = running.address(port)?;
            running.envoy.listens(address).await?;
        }
        Ok(())
    }

    /// The directory that is served.
    pub(crate) fn directory(&self) -> &Path {
        self.folder.path()
    }

    /// The running gateway that serves a root table, `namespace/name`, and where: the first that it names.
    pub(crate) fn entrance(&self, table: &str) -> anyhow::Result<(&RunningGateway, SocketAddr)> {
        let (gateway, port) = gateway_of_table(&self.manifests, table)?;
        let running = self.gateways.iter().find(|running| running.gateway == gateway);
        let running = running.with_context(|| format!("{} does not run", gateway.id()))?;
        Ok((running, running.address(port)?))
    }

    /// Sends one request to the gateway of a root table.
    pub(crate) async fn send(&self, table: &str, request: &Request) -> anyhow::Result<Response> {
        let (_, address) = self.entrance(table)?;
        Client::new(address).send(request).await
    }

    /// Changes one object, `Kind/namespace/name@cluster`, in memory and in its file.
    pub(crate) fn edit(&mut self, key: &str, change: impl FnOnce(&mut Value)) -> anyhow::Result<()> {
        let index = self.manifests.iter().position(|manifest| manifest.key() == key);
        let index = index.with_context(|| format!("no object {key}"))?;
        change(&mut self.manifests[index].object);
        manifests::replace(&self.files[index], &serde_json::to_string_pretty(&self.manifests[index].object)?)
    }

    /// An error with what the processes logged last.
    pub(crate) fn with_logs(&self, error: anyhow::Error) -> anyhow::Error {
        let mut logs = vec![self.chancery.log_tail()];
        logs.extend(self.gateways.iter().map(|running| running.envoy.log_tail()));
        error.context(logs.join("\n"))
    }
}

/// Starts an echo backend on every endpoint that the objects name.
pub(crate) async fn start_backends(manifests: &[Manifest]) -> anyhow::Result<Vec<Backend>> {
    let mut backends = Vec::new();
    for endpoint in endpoints(manifests)? {
        backends.push(Backend::start(endpoint.identity, endpoint.address).await?);
    }
    Ok(backends)
}
