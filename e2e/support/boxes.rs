//! The mesh of `config/mesh` as boxes: which Envoys and apps it has, where they stand, and how each is started; as processes on
//! loopback networks, and as containers of `docker-compose.yml`. Both come from the manifests and from nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};
use serde_json::{Map, Value, json};

use super::backend::{Identity, Leads};
use super::chancery;
use super::manifests::{Manifest, list, port, text, texts};
use super::project;
use super::world::{self, Gateway};

/// The manifests, below the checkout.
pub(crate) const MANIFESTS: &str = "config/mesh/manifests";

/// The bootstraps of containers.
pub(crate) const BOOTSTRAPS: &str = "config/mesh/envoy";

/// Pods with this label are Envoys.
const COMPONENT: (&str, &str) = ("app.kubernetes.io/component", "gateway");

/// East-west gateways have it.
const EAST_WEST: (&str, &str) = ("istio", "eastwestgateway");

/// The host name of the control plane among containers, and its port.
const CONTROL: (&str, u16) = ("control", 18_000);

/// Who containers run as; no more than that is in a container.
const USER: &str = "65532:65532";

/// What is said first in files that are made here.
const HEAD: &str =
    "# Made from config/mesh/manifests by `make compose`; a test compares. Edit those, and make it again.\n";

/// An Envoy.
#[derive(Clone, Debug)]
pub(crate) struct GatewayBox {
    /// What it is.
    pub(crate) gateway: Gateway,
    /// As whom its Pod runs.
    pub(crate) account: String,
    /// The address of its Pod.
    pub(crate) address: Ipv4Addr,
    /// The address under which others reach its Service, if that is another one.
    pub(crate) public: Option<Ipv4Addr>,
    /// Whether users are to reach it.
    pub(crate) is_ingress: bool,
}

/// An app: one address, with the ports of its endpoints.
#[derive(Clone, Debug)]
pub(crate) struct AppBox {
    /// Who it is.
    pub(crate) identity: Identity,
    /// Where it listens.
    pub(crate) addresses: Vec<SocketAddr>,
}

/// All boxes but the control plane.
#[derive(Clone, Debug)]
pub(crate) struct Boxes {
    /// Envoys, in the order of the manifests.
    pub(crate) gateways: Vec<GatewayBox>,
    /// Apps.
    pub(crate) apps: Vec<AppBox>,
    /// By cluster: where the hosts of virtual destinations lead, which DNS would say in a cluster.
    pub(crate) leads: BTreeMap<String, Leads>,
}

impl GatewayBox {
    /// `cluster-1-ingress`.
    pub(crate) fn name(&self) -> String {
        format!("{}-{}", self.gateway.cluster, self.gateway.service)
    }

    /// Its account as `chancery credentials` takes it.
    pub(crate) fn path(&self) -> String {
        format!("{}/{}/{}", self.gateway.cluster, self.gateway.namespace, self.account)
    }

    fn is_east_west(&self, manifests: &[Manifest]) -> bool {
        let id = self.gateway.id();
        let own =
            |m: &&Manifest| m.kind() == "Service" && format!("{}/{}/{}", m.cluster, m.namespace(), m.name()) == id;
        manifests.iter().find(own).is_some_and(|service| service.label(EAST_WEST.0) == EAST_WEST.1)
    }

    /// The bootstrap of its container, from the `chancery` binary.
    fn bootstrap(&self) -> anyhow::Result<String> {
        let Gateway { cluster, namespace, service, labels, .. } = &self.gateway;
        let mut command = Command::new(chancery::binary()?);
        command.args(["bootstrap", "--xds-address", &format!("{}:{}", CONTROL.0, CONTROL.1)]);
        command.args(["--xds-credentials", "/keys", "-o", "yaml", "--service-account", &self.account]);
        command.args(["--cluster", cluster, "--namespace", namespace, "--pod", &format!("{service}-0")]);
        for (key, value) in labels {
            command.args(["--label", &format!("{key}={value}")]);
        }
        let output = command.output().context("run chancery bootstrap")?;
        ensure!(output.status.success(), "chancery bootstrap: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    }
}

impl AppBox {
    /// `cluster-1-recs`; with a version `cluster-1-web-api-v2`.
    pub(crate) fn name(&self) -> String {
        let Identity { cluster, service, version, .. } = &self.identity;
        [cluster, service, version]
            .map(String::as_str)
            .into_iter()
            .filter(|part| !part.is_empty())
            .collect::<Vec<_>>()
            .join("-")
    }

    /// What `echo` is started with, given where hosts lead in its cluster.
    pub(crate) fn arguments(&self, leads: &Leads) -> Vec<String> {
        let Identity { cluster, namespace, service, version, .. } = &self.identity;
        let mut arguments = Vec::new();
        for address in &self.addresses {
            let version = if version.is_empty() { String::new() } else { format!("/{version}") };
            arguments.extend(["--instance".to_owned(), format!("{cluster}/{namespace}/{service}{version}={address}")]);
        }
        for (host, address) in leads {
            arguments.extend(["--lead".to_owned(), format!("{host}={address}")]);
        }
        arguments
    }

    fn address(&self) -> anyhow::Result<Ipv4Addr> {
        self.addresses
            .first()
            .and_then(|address| match address {
                SocketAddr::V4(address) => Some(*address.ip()),
                SocketAddr::V6(_) => None,
            })
            .with_context(|| format!("{} has no address", self.name()))
    }
}

impl Boxes {
    /// What the manifests say.
    pub(crate) fn of(manifests: &[Manifest]) -> anyhow::Result<Self> {
        let mut gateways = Vec::new();
        for pod in manifests.iter().filter(|m| m.kind() == "Pod" && m.label(COMPONENT.0) == COMPONENT.1) {
            let labels = texts(&pod.object, "/metadata/labels");
            let selects = |m: &&Manifest| {
                let selector = texts(&m.object, "/spec/selector");
                let here = (m.kind(), m.cluster.as_str(), m.namespace()) == ("Service", &pod.cluster, pod.namespace());
                here && !selector.is_empty() && selector.iter().all(|(key, value)| labels.get(key) == Some(value))
            };
            let service = manifests.iter().find(selects).with_context(|| format!("no Service of {}", pod.key()))?;
            let address = text(&pod.object, "/status/podIP").parse().with_context(|| pod.key())?;
            let public = text(&service.object, "/status/loadBalancer/ingress/0/ip").parse().ok();
            gateways.push(GatewayBox {
                gateway: world::gateway(service),
                account: text(&pod.object, "/spec/serviceAccountName").to_owned(),
                address,
                public: public.filter(|public| *public != address),
                is_ingress: service.label(EAST_WEST.0) != EAST_WEST.1,
            });
        }
        let mut apps: BTreeMap<Identity, Vec<SocketAddr>> = BTreeMap::new();
        for endpoint in world::endpoints(manifests)? {
            apps.entry(endpoint.identity).or_default().push(endpoint.address);
        }
        let apps = apps.into_iter().map(|(identity, addresses)| AppBox { identity, addresses }).collect();
        let mut leads: BTreeMap<String, Leads> = BTreeMap::new();
        for gateway in gateways.iter().filter(|gateway| gateway.is_east_west(manifests)) {
            let leads = leads.entry(gateway.gateway.cluster.clone()).or_default();
            for destination in manifests.iter().filter(|m| m.kind() == "VirtualDestination") {
                let first = list(&destination.object, "/spec/ports").first();
                let number =
                    first.and_then(|entry| port(entry, "/number")).context("a virtual destination without ports")?;
                let target = gateway.gateway.ports.get(&number).copied().unwrap_or(number);
                for host in list(&destination.object, "/spec/hosts").iter().filter_map(Value::as_str) {
                    leads.insert(host.to_owned(), SocketAddr::from((gateway.address, target)));
                }
            }
        }
        Ok(Self { gateways, apps, leads })
    }

    /// Where hosts lead in a cluster.
    pub(crate) fn leads_of(&self, cluster: &str) -> Leads {
        self.leads.get(cluster).cloned().unwrap_or_default()
    }

    /// The clusters, in order.
    pub(crate) fn clusters(&self) -> Vec<String> {
        let gateways = self.gateways.iter().map(|gateway| &gateway.gateway.cluster);
        let clusters: BTreeSet<&String> = gateways.chain(self.apps.iter().map(|app| &app.identity.cluster)).collect();
        clusters.into_iter().cloned().collect()
    }

    /// The first three octets of a cluster's network.
    pub(crate) fn prefix(&self, cluster: &str) -> anyhow::Result<String> {
        let gateway = self.gateways.iter().find(|gateway| gateway.gateway.cluster == cluster);
        Ok(prefix(gateway.with_context(|| format!("{cluster} has no gateway"))?.address))
    }

    /// The files of bootstraps, by name.
    pub(crate) fn bootstraps(&self) -> anyhow::Result<BTreeMap<String, String>> {
        let file =
            |gateway: &GatewayBox| Ok((format!("{}.yaml", gateway.name()), format!("{HEAD}{}", gateway.bootstrap()?)));
        self.gateways.iter().map(file).collect()
    }

    /// `docker-compose.yml`.
    pub(crate) fn compose(&self) -> anyhow::Result<String> {
        let envoy = format!("envoyproxy/envoy:v{}", envoy_version()?);
        let keys = |part: String| json!({"type": "volume", "source": "keys", "target": "/keys", "read_only": true, "volume": {"subpath": part}});
        let started = |name: &str, condition: &str| json!({name: {"condition": condition}});
        let built = |target: &str| json!({"context": ".", "target": target});
        let mut services = Map::new();

        let mut credentials = vec!["credentials".to_owned(), "/keys".to_owned()];
        credentials.extend(["--server".to_owned(), CONTROL.0.to_owned()]);
        credentials.extend(self.gateways.iter().flat_map(|gateway| ["--gateway".to_owned(), gateway.path()]));
        services.insert(
            "credentials".to_owned(),
            json!({
                "build": built("chancery"), "image": "chancery", "user": USER, "network_mode": "none",
                "command": credentials, "volumes": ["keys:/keys"],
            }),
        );
        services.insert(
            CONTROL.0.to_owned(),
            json!({
                "build": built("chancery"), "image": "chancery", "user": USER, "read_only": true,
                "command": [
                    "serve", "/config", "--xds-address", format!("0.0.0.0:{}", CONTROL.1),
                    "--xds-credentials", "/keys", "--state", "/state",
                ],
                "volumes": [format!("./{MANIFESTS}:/config:ro"), "state:/state", keys("server".to_owned())],
                "networks": ["control"],
                "depends_on": started("credentials", "service_completed_successfully"),
            }),
        );
        let mut has_public = false;
        for gateway in &self.gateways {
            let mut networks = json!({
                "control": {}, gateway.gateway.cluster.clone(): {"ipv4_address": gateway.address.to_string()},
            });
            if let Some(public) = gateway.public {
                networks["between"] = json!({"ipv4_address": public.to_string()});
                has_public = true;
            } else {
                networks["between"] = json!({});
            }
            let name = gateway.name();
            let mut service = json!({
                "image": envoy, "user": USER,
                "command": ["envoy", "-c", "/envoy.yaml", "--log-level", "warning"],
                "volumes": [
                    format!("./{BOOTSTRAPS}/{name}.yaml:/envoy.yaml:ro"),
                    keys(format!("gateways/{}", gateway.path())),
                ],
                "networks": networks,
                "depends_on": started(CONTROL.0, "service_started"),
            });
            if gateway.is_ingress {
                let ports = gateway.gateway.ports.values().map(|port| format!("127.0.0.1:{port}:{port}"));
                service["ports"] = ports.collect();
            }
            services.insert(name, service);
        }
        for app in &self.apps {
            let command = app.arguments(&self.leads_of(&app.identity.cluster));
            services.insert(
                app.name(),
                json!({
                    "build": built("echo"), "image": "chancery-echo", "user": USER, "read_only": true, "command": command,
                    "networks": {app.identity.cluster.clone(): {"ipv4_address": app.address()?.to_string()}},
                }),
            );
        }
        let mut networks = Map::new();
        networks.insert("control".to_owned(), json!({}));
        let network = |prefix: &str| json!({"ipam": {"config": [{"subnet": format!("{prefix}.0/24")}]}});
        for cluster in self.clusters() {
            networks.insert(cluster.clone(), network(&self.prefix(&cluster)?));
        }
        let public = self.gateways.iter().find_map(|gateway| gateway.public);
        if let Some(public) = public.filter(|_| has_public) {
            networks.insert("between".to_owned(), network(&prefix(public)));
        }
        let value = json!({
            "name": "chancery-mesh", "services": services, "networks": networks, "volumes": {"keys": {}, "state": {}},
        });
        Ok(format!("{HEAD}{}", ::chancery::render::to_yaml(&value)))
    }

    /// Writes what containers are started from.
    pub(crate) fn write(&self) -> anyhow::Result<()> {
        std::fs::create_dir_all(project().join(BOOTSTRAPS))?;
        for (name, text) in self.bootstraps()? {
            std::fs::write(project().join(BOOTSTRAPS).join(name), text)?;
        }
        std::fs::write(project().join("docker-compose.yml"), self.compose()?)?;
        Ok(())
    }
}

fn prefix(address: Ipv4Addr) -> String {
    let [a, b, c, _] = address.octets();
    format!("{a}.{b}.{c}")
}

/// The version of Envoy that everything is tested against.
pub(crate) fn envoy_version() -> anyhow::Result<String> {
    let makefile = std::fs::read_to_string(project().join("Makefile"))?;
    let line = makefile.lines().find_map(|line| line.strip_prefix("ENVOY_VERSION := "));
    Ok(line.context("the Makefile names no ENVOY_VERSION")?.trim().to_owned())
}

/// Moves files to networks on loopback: addresses of clusters by their first three octets, and addresses between clusters to the
/// gateways that have them, because on one host a gateway has one address.
pub(crate) fn move_to_loopback(directory: &Path, boxes: &Boxes, networks: &[String]) -> anyhow::Result<()> {
    let clusters = boxes.clusters();
    ensure!(networks.len() >= clusters.len(), "too few networks");
    let mut moves: Vec<(String, String)> = Vec::new();
    for (cluster, network) in clusters.iter().zip(networks) {
        let before = format!("{}.", boxes.prefix(cluster)?);
        let here = boxes.gateways.iter().filter(|gateway| gateway.gateway.cluster == *cluster);
        for gateway in here {
            if let Some(public) = gateway.public {
                let host = gateway.address.octets()[3];
                moves.push((public.to_string(), format!("{network}.{host}")));
            }
        }
        moves.push((before, format!("{network}.")));
    }
    for file in super::manifests::files(directory)? {
        let text = std::fs::read_to_string(&file)?;
        let moved = moves.iter().fold(text.clone(), |text, (before, after)| text.replace(before, after));
        if moved != text {
            super::manifests::replace(&file, &moved)?;
        }
    }
    Ok(())
}
