//! Who gets what from the xDS port: nobody anything without a credential, nobody another's with one, and Envoys follow theirs
//! while they run.

use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context as Task, Poll};

use anyhow::{Context, bail, ensure};
use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair, SanType};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::client::TlsStream;
use tonic::codegen::{Service, http};
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_prost::ProstCodec;

use crate::support::chancery::{self, Chancery, Settings};
use crate::support::envoy;
use crate::support::http::{Protocol, get};
use crate::support::manifests;
use crate::support::tls::{Dial, Pair};
use crate::support::wait::{Not, PATIENCE, until};
use crate::support::world::{Mesh, Speech, gateways};
use crate::support::yaml;
use crate::trust::{Root, WORLD, place, policy};
use crate::xds_port::{labels, node, text};

/// The account of the gateway `web`, whose Pod says so, and that of `other`, which has no Pod.
const WEB: &str = "cluster-1/edge/front-door";
const OTHER: &str = "cluster-1/edge/default";

/// What belongs to `web` alone.
const SECRET: &str = "trust/identity";

/// The services, with what their methods are called and the type that they serve; ADS serves all, and has no single requests.
const SERVICES: [(&str, &str, &str); 8] = [
    (
        "envoy.service.discovery.v3.AggregatedDiscoveryService",
        "AggregatedResources",
        "extensions.transport_sockets.tls.v3.Secret",
    ),
    ("envoy.service.cluster.v3.ClusterDiscoveryService", "Clusters", "config.cluster.v3.Cluster"),
    ("envoy.service.endpoint.v3.EndpointDiscoveryService", "Endpoints", "config.endpoint.v3.ClusterLoadAssignment"),
    ("envoy.service.listener.v3.ListenerDiscoveryService", "Listeners", "config.listener.v3.Listener"),
    ("envoy.service.route.v3.RouteDiscoveryService", "Routes", "config.route.v3.RouteConfiguration"),
    ("envoy.service.route.v3.ScopedRoutesDiscoveryService", "ScopedRoutes", "config.route.v3.ScopedRouteConfiguration"),
    ("envoy.service.secret.v3.SecretDiscoveryService", "Secrets", "extensions.transport_sockets.tls.v3.Secret"),
    (
        "envoy.service.extension.v3.ExtensionConfigDiscoveryService",
        "ExtensionConfigs",
        "config.core.v3.TypedExtensionConfig",
    ),
];

/// How a stream is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Delta,
    Stream,
    Fetch,
}

/// A stream that is open as long as this is.
struct Held {
    stream: Streaming<DeltaDiscoveryResponse>,
    _requests: tokio::sync::mpsc::Sender<DeltaDiscoveryRequest>,
}

/// What a client has.
pub(crate) struct Wallet {
    dial: Dial,
    /// As it stands in the header.
    token: Option<String>,
}

/// Opens connections with TLS for a channel.
struct Dialer {
    address: SocketAddr,
    dial: Dial,
}

impl Service<http::Uri> for Dialer {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = Box<dyn std::error::Error + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Task<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Uri) -> Self::Future {
        let (address, dial) = (self.address, self.dial.clone());
        Box::pin(async move { Ok(TokioIo::new(dial.over(TcpStream::connect(address).await?).await?)) })
    }
}

impl Wallet {
    /// Somebody who trusts the server, shows a certificate or none, and sends a token or none.
    pub(crate) fn new(authority: &str, shows: Option<&Pair>, token: Option<&str>) -> anyhow::Result<Self> {
        let dial = Dial::under(authority, shows)?.asking(Some("control.example"), Protocol::Http2)?;
        Ok(Self { dial, token: token.map(str::to_owned) })
    }

    async fn channel(&self, address: SocketAddr) -> anyhow::Result<Channel> {
        let dialer = Dialer { address, dial: self.dial.clone() };
        let endpoint = Endpoint::from_static("http://control.example");
        Ok(tokio::time::timeout(PATIENCE, endpoint.connect_with_connector(dialer)).await.context("no connection")??)
    }

    /// Opens a stream by its path, sends one message, and gives the first that comes.
    async fn exchange<Q, A>(&self, channel: Channel, path: &str, message: Q) -> Result<Option<A>, Status>
    where
        Q: prost::Message + Send + Sync + 'static,
        A: prost::Message + Default + Send + Sync + 'static,
    {
        let mut client = tonic::client::Grpc::new(channel);
        client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        // The stream stays open: it is the server that ends it.
        let messages = tokio_stream::StreamExt::chain(tokio_stream::iter([message]), tokio_stream::pending());
        let mut request = tonic::Request::new(messages);
        if let Some(token) = &self.token {
            let value = MetadataValue::try_from(token).map_err(|error| Status::internal(error.to_string()))?;
            request.metadata_mut().insert("authorization", value);
        }
        let path = path.parse().map_err(|_| Status::internal("no path"))?;
        let codec = ProstCodec::<Q, A>::default();
        let answer = async { client.streaming(request, path, codec).await?.into_inner().message().await };
        let late = |_| Status::deadline_exceeded("no answer");
        tokio::time::timeout(PATIENCE, answer).await.map_err(late)?
    }

    /// Opens a stream that stays open as long as what comes of it.
    async fn hold(&self, channel: &Channel, node: &Node) -> Result<Held, Status> {
        let (service, methods, message) = SERVICES[0];
        let (node, names) = (Some(node.clone()), vec!["nothing/of/this/name".to_owned()]);
        let type_url = format!("type.googleapis.com/envoy.{message}");
        let first = DeltaDiscoveryRequest { node, type_url, resource_names_subscribe: names, ..Default::default() };
        let mut client = tonic::client::Grpc::new(channel.clone());
        client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        // The client of gRPC says that a stream has ended when there are no more requests.
        let (requests, messages) = tokio::sync::mpsc::channel(1);
        requests.try_send(first).map_err(|error| Status::internal(error.to_string()))?;
        let mut request = tonic::Request::new(tokio_stream::wrappers::ReceiverStream::new(messages));
        let token = self.token.as_deref().unwrap_or_default();
        let value = MetadataValue::try_from(token).map_err(|error| Status::internal(error.to_string()))?;
        request.metadata_mut().insert("authorization", value);
        let path = format!("/{service}/Delta{methods}").parse().map_err(|_| Status::internal("no path"))?;
        let codec = ProstCodec::<DeltaDiscoveryRequest, DeltaDiscoveryResponse>::default();
        let answer = client.streaming(request, path, codec);
        let late = |_| Status::deadline_exceeded("no answer");
        let mut stream = tokio::time::timeout(PATIENCE, answer).await.map_err(late)??.into_inner();
        tokio::time::timeout(PATIENCE, stream.message()).await.map_err(late)??;
        Ok(Held { stream, _requests: requests })
    }

    /// Asks a service for something by name and gives how many resources come, and how many are said not to exist.
    pub(crate) async fn ask(
        &self,
        address: SocketAddr,
        (service, methods, message): (&str, &str, &str),
        way: Way,
        node: &Node,
        name: &str,
    ) -> anyhow::Result<Result<(usize, usize), Status>> {
        let channel = match self.channel(address).await {
            Ok(channel) => channel,
            Err(error) => return Ok(Err(Status::unauthenticated(format!("{error:#}")))),
        };
        let type_url = format!("type.googleapis.com/envoy.{message}");
        let (node, names) = (Some(node.clone()), vec![name.to_owned()]);
        Ok(match way {
            Way::Delta => {
                let request =
                    DeltaDiscoveryRequest { node, type_url, resource_names_subscribe: names, ..Default::default() };
                let path = format!("/{service}/Delta{methods}");
                let answer = self.exchange::<_, DeltaDiscoveryResponse>(channel, &path, request).await;
                answer.map(|answer| answer.map_or((0, 0), |a| (a.resources.len(), a.removed_resources.len())))
            }
            Way::Stream | Way::Fetch => {
                let request = DiscoveryRequest { node, type_url, resource_names: names, ..Default::default() };
                let path = format!("/{service}/{way:?}{methods}");
                let answer = self.exchange::<_, DiscoveryResponse>(channel, &path, request).await;
                answer.map(|answer| answer.map_or((0, 0), |a| (a.resources.len(), 0)))
            }
        })
    }
}

/// The world of two gateways under a root, with credentials for both.
struct World {
    mesh: Mesh,
    folder: TempDir,
}

impl World {
    async fn start() -> anyhow::Result<Self> {
        Self::start_with(None).await
    }

    /// The same with so many files and connections that the control plane may have open.
    async fn start_with(open_files: Option<u32>) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        chancery::credentials(&folder.path().join("keys"), true, &[WEB, OTHER], false)?;
        chancery::credentials(&folder.path().join("keys"), false, &[WEB, OTHER], true)?;
        let xds_credentials = Some(folder.path().join("keys/server"));
        let settings = Settings { xds_credentials, open_files, ..Settings::default() };
        let mut manifests: Vec<_> = yaml::documents(WORLD)?.into_iter().map(place).collect();
        manifests.push(policy(&json!({"generated": {"rsaKeySizeBytes": 2048}})));
        Ok(Self { mesh: Mesh::start_without_gateways(manifests, settings).await?, folder })
    }

    fn keys(&self) -> PathBuf {
        self.folder.path().join("keys")
    }

    fn of(&self, account: &str) -> PathBuf {
        self.keys().join("gateways").join(account)
    }

    fn authority(&self) -> anyhow::Result<String> {
        std::fs::read_to_string(self.keys().join("server/ca.crt")).context("the authority")
    }

    fn pair(&self, account: &str) -> anyhow::Result<Pair> {
        let secret = json_file(&self.of(account).join("identity.json"))?;
        let text = |pointer: &str| secret.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        Ok(Pair {
            certificate: text("/resources/0/tls_certificate/certificate_chain/inline_string"),
            key: text("/resources/0/tls_certificate/private_key/inline_string"),
        })
    }

    /// As it stands in the header.
    fn token(&self, account: &str) -> anyhow::Result<String> {
        let secret = json_file(&self.of(account).join("token.json"))?;
        let value = secret.pointer("/resources/0/generic_secret/secret/inline_string").and_then(Value::as_str);
        Ok(value.context("no token")?.to_owned())
    }

    /// How often streams were refused for a reason.
    async fn refused(&self, reason: &str) -> anyhow::Result<u64> {
        let metrics = get(self.mesh.chancery.admin(), "localhost", "/metrics").await?.text();
        let line = format!("chancery_xds_refused_streams_total{{reason=\"{reason}\"}} ");
        let count = metrics.lines().find_map(|candidate| candidate.strip_prefix(&line));
        Ok(count.map_or(Ok(0), str::parse)?)
    }
}

fn json_file(path: &Path) -> anyhow::Result<Value> {
    Ok(serde_json::from_str(&std::fs::read_to_string(path).with_context(|| path.display().to_string())?)?)
}

/// A node that is matched to a gateway of the world.
fn states(service: &str) -> Node {
    let labels = labels(&[("app", service)]);
    node("cluster-1/edge/x", &[("cluster", text("cluster-1")), ("namespace", text("edge")), ("labels", labels)])
}

/// A certificate that an authority signed for something else than a gateway, or that has ended.
fn signed(authority: &Root, names: Vec<SanType>, has_ended: bool) -> anyhow::Result<Pair> {
    let mut params = CertificateParams::default();
    params.subject_alt_names = names;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    if has_ended {
        (params.not_before, params.not_after) = (rcgen::date_time_ymd(2020, 1, 1), rcgen::date_time_ymd(2021, 1, 1));
    }
    let key = KeyPair::generate()?;
    let issuer = Issuer::from_ca_cert_pem(&authority.certificate, KeyPair::from_pem(&authority.key)?)?;
    Ok(Pair { certificate: params.signed_by(&key, &issuer)?.pem(), key: key.serialize_pem() })
}

fn uri(account: &str) -> anyhow::Result<SanType> {
    Ok(SanType::URI(format!("spiffe://cluster-1/ns/edge/sa/{account}").try_into()?))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_service_refuses_who_proves_nothing_or_to_be_another() -> anyhow::Result<()> {
    let world = World::start().await?;
    let (address, authority) = (world.mesh.chancery.xds(), world.authority()?);
    let root = Root::kept(&world.keys())?;
    let web = states("web");
    let ads = SERVICES[0];

    // Who is right gets what is theirs, by certificate and by token; and only then are refusals worth anything.
    let certificate = Wallet::new(&authority, Some(&world.pair(WEB)?), None)?;
    let token = Wallet::new(&authority, None, Some(&world.token(WEB)?))?;
    let bare = world.token(WEB)?.replace("Bearer ", "");
    let bare = Wallet::new(&authority, None, Some(&bare))?;
    until(PATIENCE, "the secret of the gateway", async || {
        match certificate.ask(address, ads, Way::Delta, &web, SECRET).await {
            Ok(Ok((1, 0))) => Ok(()),
            other => Err(Not::Yet(format!("{other:?}"))),
        }
    })
    .await?;
    for wallet in [&certificate, &token, &bare] {
        for way in [Way::Delta, Way::Stream] {
            for service in [ads, SERVICES[6]] {
                let got = wallet.ask(address, service, way, &web, SECRET).await?;
                ensure!(matches!(got, Ok((1, 0))), "{service:?} {way:?}: {got:?}");
            }
        }
        for service in SERVICES {
            let got = wallet.ask(address, service, Way::Delta, &web, "nothing/of/this/name").await?;
            ensure!(matches!(got, Ok((0, 1))), "{service:?}: {got:?}");
        }
    }

    let foreign = Root::new("foreign")?;
    let digest = std::fs::read_to_string(world.keys().join("server/tokens"))?;
    let digest = digest.lines().find_map(|line| line.strip_prefix(WEB)).context("no digest")?.trim().to_owned();
    let two = [uri("front-door")?, uri("default")?].to_vec();
    let unproven: [(&str, Option<Pair>, Option<String>); 7] = [
        ("nothing", None, None),
        ("an empty token", None, Some(String::new())),
        ("another token", None, Some("Bearer a-token-of-nobody".to_owned())),
        ("the digest of a token", None, Some(format!("Bearer {digest}"))),
        ("another scheme", None, Some(world.token(WEB)?.replace("Bearer", "Basic"))),
        (
            "a certificate of nobody",
            Some(signed(&root, vec![SanType::DnsName("web.example".try_into()?)], false)?),
            None,
        ),
        ("a certificate of two", Some(signed(&root, two, false)?), None),
    ];
    // Refused in the handshake: what the client sees of that is a connection that ends.
    let without_tls: [(&str, Option<Pair>, Option<String>); 3] = [
        ("a certificate under another root", Some(foreign.identity("spiffe://cluster-1/ns/edge/sa/front-door")?), None),
        ("a certificate that has ended", Some(signed(&root, vec![uri("front-door")?], true)?), None),
        ("the server's certificate", Some(server_pair(&world.keys())?), Some(world.token(WEB)?)),
    ];
    let of_another = [
        ("another's certificate", Some(world.pair(OTHER)?), None),
        ("another's token", None, Some(world.token(OTHER)?)),
        ("another's certificate and an own token", Some(world.pair(OTHER)?), Some(world.token(WEB)?)),
    ];
    let unproven = unproven.into_iter().map(|case| (case, Some(Code::Unauthenticated)));
    let of_another = of_another.into_iter().map(|case| (case, Some(Code::PermissionDenied)));
    let cases = unproven.chain(of_another).chain(without_tls.into_iter().map(|case| (case, None)));
    for ((what, shows, token), code) in cases {
        let wallet = Wallet::new(&authority, shows.as_ref(), token.as_deref())?;
        for service in SERVICES {
            for way in [Way::Delta, Way::Stream, Way::Fetch] {
                let got = wallet.ask(address, service, way, &web, SECRET).await?;
                let status = match got {
                    Err(status) => status,
                    Ok(got) => bail!("{what}, {service:?} {way:?}: {got:?}"),
                };
                // Single requests are not served, whoever asks; who is nobody does not hear that.
                let is_unserved = way == Way::Fetch && code == Some(Code::PermissionDenied);
                let code = if is_unserved { Some(Code::Unimplemented) } else { code };
                ensure!(code.is_none_or(|code| status.code() == code), "{what}, {service:?} {way:?}: {status:?}");
                ensure!(!status.message().contains("trust/"), "{what}: {status:?}");
            }
        }
    }

    // No path leads around it, and health leads nowhere.
    let nobody = Wallet::new(&authority, None, None)?;
    for path in ["/", "//envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources", "/x.Y/Z"] {
        let channel = nobody.channel(address).await?;
        let answer =
            nobody.exchange::<_, DeltaDiscoveryResponse>(channel, path, DeltaDiscoveryRequest::default()).await;
        let code = answer.map_err(|status| status.code());
        ensure!(matches!(code, Err(Code::Unauthenticated)), "{path}: {code:?}");
    }
    let mut health = HealthClient::new(nobody.channel(address).await?);
    let health = health.check(HealthCheckRequest::default()).await?.into_inner();
    ensure!(health.status() == ServingStatus::Serving, "{health:?}");
    // Nor does plaintext.
    let plain = Endpoint::new(format!("http://{address}"))?.connect().await;
    if let Ok(channel) = plain {
        let answer = nobody
            .exchange::<_, DeltaDiscoveryResponse>(
                channel,
                &format!("/{}/Delta{}", ads.0, ads.1),
                DeltaDiscoveryRequest::default(),
            )
            .await;
        ensure!(answer.is_err(), "plaintext is answered: {answer:?}");
    }

    // Counted by reason, and not logged line by line; and no secret is in the log.
    for (reason, least) in
        [("no_credential", 24), ("token", 96), ("certificate", 120), ("not_its_own", 48), ("handshake", 1)]
    {
        let count = world.refused(reason).await?;
        ensure!(count >= least, "{reason}: {count}");
    }
    let log = world.mesh.chancery.log()?;
    ensure!(log.contains("turned away") && log.matches("turned away").count() < 60, "{log}");
    let token = world.token(WEB)?.replace("Bearer ", "");
    ensure!(
        !log.contains(&token) && !log.contains("PRIVATE KEY") && !log.contains("a-token-of-nobody"),
        "a secret is in the log"
    );
    Ok(())
}

fn server_pair(keys: &Path) -> anyhow::Result<Pair> {
    let read = |name: &str| std::fs::read_to_string(keys.join("server").join(name));
    Ok(Pair { certificate: read("tls.crt")?, key: read("tls.key")? })
}

/// Starts the two gateways with credentials, and a third that says it is `web` and has the credentials of `other`.
async fn join(world: &mut World, binary: &Path, token: bool) -> anyhow::Result<SocketAddr> {
    let mut entrance = None;
    for (service, account) in [("web", WEB), ("other", OTHER), ("web", OTHER)] {
        let gateway = gateways(&world.mesh.manifests).into_iter().find(|gateway| gateway.service == service);
        let gateway = gateway.context("no gateway")?;
        let (directory, bind) = (world.of(account), world.mesh.free_address("cluster-1")?);
        let directory = directory.to_string_lossy().into_owned();
        let mut flags = vec!["--xds-credentials", &directory];
        if token {
            flags.push("--xds-token");
        } else {
            // By the address of the control plane without a word; by name where that is said.
            flags.extend(["--xds-server-name", "control.example"]);
        }
        let speech = Speech { flags: &flags, binary: Some(binary), ..Speech::default() };
        let running = world.mesh.join(&gateway, bind, &speech).await?;
        if service == "web" && account == WEB {
            let address = running.address(80)?;
            running.envoy.listens(address).await?;
            entrance = Some(address);
        }
    }
    entrance.context("no gateway")
}

/// Changes what the gateway answers, and waits until it does.
async fn follows(world: &mut World, entrance: SocketAddr, status: u16) -> anyhow::Result<()> {
    world.mesh.edit("RouteTable/edge/shop@cluster-1", |object| {
        object["spec"]["http"][0]["directResponse"]["status"] = json!(status);
    })?;
    let answer = until(PATIENCE, "the answer of an edit", async || match get(entrance, "shop.example", "/").await {
        Ok(response) if response.status == status => Ok(()),
        Ok(response) => Err(Not::Yet(response.status.to_string())),
        Err(error) => Err(Not::Yet(format!("{error:#}"))),
    });
    answer.await.map_err(|error| world.mesh.with_logs(error))
}

fn connections(chancery: &Chancery) -> anyhow::Result<usize> {
    let log = chancery.log()?;
    let of_web = |line: &&str| line.contains("\"gateway connected\"") && line.contains("sa/front-door");
    Ok(log.lines().filter(of_web).count())
}

/// Waits until `web` has connected more often than before.
async fn connects_again(world: &World, before: usize) -> anyhow::Result<()> {
    let again = until(PATIENCE, "another stream of the gateway", async || match connections(&world.mesh.chancery) {
        Ok(now) if now > before => Ok(()),
        other => Err(Not::Yet(format!("{other:?}"))),
    });
    again.await.map_err(|error| world.mesh.with_logs(error))
}

/// The impostor has nothing, and was told so.
async fn impostor_has_nothing(world: &World) -> anyhow::Result<()> {
    until(PATIENCE, "a refused stream", async || match world.refused("not_its_own").await {
        Ok(count) if count > 0 => Ok(()),
        other => Err(Not::Yet(format!("{other:?}"))),
    })
    .await?;
    let impostor = world.mesh.gateways.last().context("no gateway")?;
    let dump = impostor.envoy.admin("/config_dump?include_eds").await?;
    for part in ["dynamic_listeners", "shop.example", "trust/"] {
        ensure!(!dump.contains(part), "{part} is in {dump}");
    }
    Ok(())
}

async fn envoys_follow_their_certificates(binary: &Path) -> anyhow::Result<()> {
    let mut world = World::start().await?;
    let entrance = join(&mut world, binary, false).await?;
    follows(&mut world, entrance, 201).await?;
    impostor_has_nothing(&world).await?;

    // Another root: first both are trusted, then the gateways show what it signed, then the first is dropped.
    let next = world.folder.path().join("next");
    chancery::credentials(&next, true, &[WEB, OTHER], false)?;
    let (old, new) = (world.authority()?, std::fs::read_to_string(next.join("server/ca.crt"))?);
    let server = world.keys().join("server");
    let both = format!("{old}{new}");
    manifests::replace(&server.join("ca.crt"), &both)?;
    for account in [WEB, OTHER] {
        let mut roots = json_file(&next.join("gateways").join(account).join("roots.json"))?;
        roots["resources"][0]["validation_context"]["trusted_ca"]["inline_string"] = json!(both);
        manifests::replace(&world.of(account).join("roots.json"), &roots.to_string())?;
        let identity = std::fs::read_to_string(next.join("gateways").join(account).join("identity.json"))?;
        manifests::replace(&world.of(account).join("identity.json"), &identity)?;
    }
    let before = connections(&world.mesh.chancery)?;
    for name in ["tls.key", "tls.crt", "ca.crt"] {
        manifests::replace(&server.join(name), &std::fs::read_to_string(next.join("server").join(name))?)?;
    }
    connects_again(&world, before).await?;
    follows(&mut world, entrance, 202).await?;
    impostor_has_nothing(&world).await
}

async fn envoys_follow_their_tokens(binary: &Path) -> anyhow::Result<()> {
    let mut world = World::start().await?;
    let entrance = join(&mut world, binary, true).await?;
    follows(&mut world, entrance, 201).await?;
    impostor_has_nothing(&world).await?;

    // The first new one leaves the one before good, the second does not.
    let before = connections(&world.mesh.chancery)?;
    for _ in 0..2 {
        chancery::credentials(&world.keys(), false, &[WEB, OTHER], true)?;
    }
    connects_again(&world, before).await?;
    follows(&mut world, entrance, 202).await?;
    impostor_has_nothing(&world).await
}

/// As Kubernetes gives and renews them: a file with the token alone, beside what names it.
async fn envoys_follow_tokens_in_files_of_their_own(binary: &Path) -> anyhow::Result<()> {
    let mut world = World::start().await?;
    let (tokens, file) = (world.folder.path().join("tokens"), world.folder.path().join("tokens/xds"));
    std::fs::create_dir(&tokens)?;
    let secret = json!({"resources": [{
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
        "name": "token",
        "generic_secret": {"secret": {"filename": file, "watched_directory": {"path": tokens}}},
    }]});
    let bare = |world: &World| anyhow::Ok(world.token(WEB)?.replace("Bearer ", ""));
    std::fs::write(&file, bare(&world)?)?;
    std::fs::write(world.of(WEB).join("token.json"), secret.to_string())?;
    let entrance = join(&mut world, binary, true).await?;
    follows(&mut world, entrance, 201).await?;

    let before = connections(&world.mesh.chancery)?;
    for _ in 0..2 {
        chancery::credentials(&world.keys(), false, &[WEB], true)?;
        manifests::replace(&file, &bare(&world)?)?;
        std::fs::write(world.of(WEB).join("token.json"), secret.to_string())?;
    }
    connects_again(&world, before).await?;
    follows(&mut world, entrance, 202).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn envoys_show_certificates_and_follow_them() -> anyhow::Result<()> {
    envoys_follow_their_certificates(&envoy::find()?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn envoys_send_tokens_and_follow_them() -> anyhow::Result<()> {
    envoys_follow_their_tokens(&envoy::find()?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn envoys_send_tokens_from_files_of_their_own() -> anyhow::Result<()> {
    for release in [envoy::RELEASES[4], envoy::OLDEST] {
        envoys_follow_tokens_in_files_of_their_own(&envoy::find_release(release)?).await.context(release)?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_oldest_envoy_shows_a_certificate_and_follows_it() -> anyhow::Result<()> {
    envoys_follow_their_certificates(&envoy::find_release(envoy::OLDEST)?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_oldest_envoy_sends_a_token_and_follows_it() -> anyhow::Result<()> {
    envoys_follow_their_tokens(&envoy::find_release(envoy::OLDEST)?).await
}

/// Renewed files that do not fit together yet change nothing; files that are gone neither.
#[tokio::test(flavor = "multi_thread")]
async fn half_of_a_renewal_leaves_what_was_good_in_force() -> anyhow::Result<()> {
    let world = World::start().await?;
    let (address, authority) = (world.mesh.chancery.xds(), world.authority()?);
    let wallet = Wallet::new(&authority, None, Some(&world.token(WEB)?))?;
    let server = world.keys().join("server");
    let tells = async |part: &str| {
        until(PATIENCE, "a complaint in the log", async || match world.mesh.chancery.log() {
            Ok(log) if log.contains(part) => Ok(()),
            other => Err(Not::Yet(format!("{:?}", other.map(|log| log.len())))),
        })
        .await
    };
    let serves = async || {
        let got = wallet.ask(address, SERVICES[0], Way::Delta, &states("web"), "none").await?;
        ensure!(matches!(got, Ok((0, 1))), "{got:?}");
        anyhow::Ok(())
    };
    let key = std::fs::read_to_string(server.join("tls.key"))?;
    manifests::replace(&server.join("tls.key"), &KeyPair::generate()?.serialize_pem())?;
    tells("does not serve with tls.crt").await?;
    serves().await?;
    manifests::replace(&server.join("tls.key"), &key)?;
    let tokens = std::fs::read_to_string(server.join("tokens"))?;
    manifests::replace(&server.join("tokens"), &format!("{tokens}oops\n"))?;
    tells("line 3 is not").await?;
    serves().await?;
    std::fs::remove_file(server.join("tls.crt"))?;
    tells("tls.crt: it is missing").await?;
    serves().await
}

/// More connections of strangers than the control plane may have: each ends soon, gateways get in meanwhile, and who loses his
/// credential is out meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_strangers_keeps_nobody_out_and_ends() -> anyhow::Result<()> {
    const STRANGERS: usize = 200;
    let world = World::start_with(Some(128)).await?;
    let (address, authority) = (world.mesh.chancery.xds(), world.authority()?);
    let certificate = Wallet::new(&authority, Some(&world.pair(WEB)?), None)?;
    let token = Wallet::new(&authority, None, Some(&world.token(WEB)?))?;
    let gets = async |wallet: &Wallet| {
        let got = wallet.ask(address, SERVICES[0], Way::Delta, &states("web"), "none").await?;
        anyhow::Ok(got.map_err(|status| status.code()))
    };
    let held = token.hold(&token.channel(address).await?, &states("web")).await?;

    let nobody = Wallet::new(&authority, None, None)?;
    let mut strangers = JoinSet::new();
    for number in 0..STRANGERS {
        let dial = nobody.dial.clone();
        strangers.spawn(async move {
            let stream = TcpStream::connect(address).await?;
            if number % 2 == 0 {
                // Half of them say nothing at all.
                let mut stream = stream;
                return stream.read_to_end(&mut Vec::new()).await.context("no end");
            }
            // Whoever is cut off in the handshake has ended too.
            let Ok(mut stream) = dial.over(stream).await else { return Ok(0) };
            let ended = stream.read_to_end(&mut Vec::new()).await;
            Ok(ended.unwrap_or_default())
        });
    }
    for wallet in [&certificate, &token, &certificate] {
        ensure!(matches!(gets(wallet).await?, Ok((0, 1))), "a gateway is kept out");
    }
    let server = world.keys().join("server");
    let tokens = std::fs::read_to_string(server.join("tokens"))?;
    let others: String = tokens.lines().filter(|line| !line.starts_with(WEB)).map(|line| format!("{line}\n")).collect();
    manifests::replace(&server.join("tokens"), &others)?;
    let mut held = held;
    let end = tokio::time::timeout(PATIENCE, held.stream.message()).await.context("the stream does not end")?;
    ensure!(end.as_ref().is_err_and(|status| status.code() == Code::Unauthenticated), "{end:?}");
    ensure!(matches!(gets(&token).await?, Err(Code::Unauthenticated)), "a token that is gone is accepted");

    let all = tokio::time::timeout(PATIENCE, strangers.join_all()).await.context("strangers stay")?;
    ensure!(all.len() == STRANGERS);
    ensure!(matches!(gets(&certificate).await?, Ok((0, 1))));
    ensure!(world.refused("no_credential").await? + world.refused("handshake").await? > 0, "nobody is counted");
    let log = world.mesh.chancery.log()?;
    ensure!(!log.contains("Too many open files"), "{}", world.mesh.chancery.log_tail());
    Ok(())
}

/// One account takes so many streams, and leaves the others theirs.
#[tokio::test(flavor = "multi_thread")]
async fn an_account_has_so_many_streams_and_others_theirs() -> anyhow::Result<()> {
    const MOST: usize = 1_000;
    const PER_CONNECTION: usize = 25;
    let world = World::start().await?;
    let (address, authority) = (world.mesh.chancery.xds(), world.authority()?);
    let web = Wallet::new(&authority, None, Some(&world.token(WEB)?))?;
    let node = states("web");
    let mut streams = Vec::new();
    for _ in 0..MOST / PER_CONNECTION {
        let channel = web.channel(address).await?;
        for _ in 0..PER_CONNECTION {
            streams.push(web.hold(&channel, &node).await.context("a stream of those it may have")?);
        }
    }
    let channel = web.channel(address).await?;
    let refused = web.hold(&channel, &node).await;
    let status = refused.err().context("one stream too many is served")?;
    ensure!(status.code() == Code::ResourceExhausted && status.message().contains("account"), "{status:?}");
    ensure!(world.refused("limit").await? == 1);
    let other = Wallet::new(&authority, None, Some(&world.token(OTHER)?))?;
    other.hold(&other.channel(address).await?, &states("other")).await.context("another account")?;
    streams.pop();
    until(PATIENCE, "room for another stream", async || {
        web.hold(&channel, &node).await.map(drop).map_err(|status| Not::Yet(format!("{status:?}")))
    })
    .await
}

#[tokio::test]
async fn credentials_that_cannot_be_used_are_a_line_at_the_start() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let keys = folder.path().join("keys");
    chancery::credentials(&keys, true, &[], false)?;
    let server = keys.join("server");
    let start = async |says: &str| {
        let settings = Settings { xds_credentials: Some(server.clone()), ..Settings::default() };
        match Chancery::serve(&crate::support::project().join("config/demo"), &settings).await {
            Ok(_) => bail!("it serves, and should say {says:?}"),
            Err(error) => {
                let error = format!("{error:#}");
                ensure!(error.contains(says) && !error.contains("PRIVATE"), "{says:?} is not in {error}");
                Ok(())
            }
        }
    };
    std::fs::remove_file(server.join("ca.crt"))?;
    start("neither ca.crt nor tokens").await?;
    std::fs::write(server.join("ca.crt"), "no PEM")?;
    start("ca.crt: it holds no certificate").await?;
    std::fs::remove_file(server.join("tls.key"))?;
    start("tls.key: it is missing").await?;
    std::fs::remove_dir_all(&server)?;
    start("tls.crt: it is missing").await
}
