//! Route configurations that are cut: real gateways find in the parts what they find in the whole, before, while and
//! after a chain is cut, and a change among many routes is served sooner.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use chancery::emit::{EmitOptions, Emitter, Form, Parts, Ready, emit_gateway};
use chancery::ir::listener::{HttpHosts, Purpose as Whom};
use chancery::ir::route::{DirectResponse, Forward, Hop, WeightedDestination};
use chancery::ir::upstream::{Endpoint, Locality, UpstreamProtocol};
use chancery::ir::{
    Action, Chain, GatewayPlan, Listener, Matcher, Route, RouteBody, Serves, Upstream, UpstreamId, VirtualHost,
};
use chancery::model::{Host, Kind, Name, ObjectRef, PathMatch, WorkspaceId};
use chancery::snapshot::Snapshot;
use chancery::snapshot::verify::verify;
use chancery::xds::inspection::Sessions;
use chancery::xds::server::{Access, ServerSettings, serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};

use crate::support::backend::{Backend, Identity};
use crate::support::envoy::{Envoy, RELEASES, find, find_release};
use crate::support::http::{Client, Protocol, Request, Response};
use crate::support::load::{Lasts, Load, Pace};
use crate::support::wait::{Not, PATIENCE, until};
use crate::xds_port::refusals::{Events, Shared, bootstrap};

/// Hosts without wildcard, and the routes of each.
const HOSTS: usize = 220;
const ROUTES: usize = 10;

/// Whose answer changes from step to step.
const MARKER: &str = "marker.example";

/// Releases that are sent cut chains.
const CUTTING: &[&str] = &[RELEASES[2], RELEASES[3], RELEASES[4]];

/// Requests on their way while the chain is cut.
const RATE: u32 = 200;

/// Pushes that are timed, to each of both layouts.
const SAMPLES: usize = 21;

fn object(kind: Kind, name: &str) -> ObjectRef {
    ObjectRef::new(kind, "cluster-1", "shop", name)
}

fn echo() -> UpstreamId {
    UpstreamId::new(&object(Kind::Service, "echo"), 80)
}

fn route(name: &str, path: &str, action: Action) -> Route {
    let hop =
        Hop { table: object(Kind::RouteTable, "www"), owner: WorkspaceId("shop".into()), route: name.into(), index: 0 };
    let body = RouteBody {
        action,
        policies: Arc::from([]),
        chain: Arc::from([hop]),
        labels: Default::default(),
        attached: Arc::from([]),
        fault: None,
    };
    let matcher = Matcher { path: PathMatch::Prefix(path.into()), ..Matcher::any() };
    Route { name: name.into(), matcher, body: Arc::new(body) }
}

/// A host that answers with its name and some text.
fn host(domain: &str, routes: usize, text: &str) -> anyhow::Result<Arc<VirtualHost>> {
    let answer = |number: usize| {
        let path = if number + 1 == routes { "/".to_owned() } else { format!("/path-{number}") };
        let body = format!("{domain} {path} {text}").into();
        route(&format!("r{number}"), &path, Action::Direct(DirectResponse { status: 200, body }))
    };
    Ok(Arc::new(VirtualHost {
        domain: Host::parse(domain)?,
        tables: vec![object(Kind::RouteTable, "www")],
        redirects_to_https: false,
        routes: (0..routes).map(answer).collect(),
    }))
}

/// The plan of a gateway with one plaintext port.
fn plan(port: u16, mut hosts: Vec<Arc<VirtualHost>>, upstreams: Vec<Upstream>) -> anyhow::Result<GatewayPlan> {
    hosts.sort_by(|a, b| a.domain.cmp(&b.domain));
    let gateway = object(Kind::VirtualGateway, "edge");
    let chain = Chain {
        name: Name::default(),
        gateways: vec![gateway.clone()],
        client: None,
        server_names: BTreeSet::new(),
        tls: None,
        guards: Vec::new(),
        serves: Serves::Http(HttpHosts { virtual_hosts: hosts, misdirected: BTreeSet::new() }),
    };
    let listener = Listener {
        bind_port: port,
        purpose: Whom::Gateway,
        service_ports: [80].into(),
        gateways: vec![gateway],
        chains: vec![chain],
    };
    Ok(GatewayPlan {
        gateway: "cluster-1/edge/ingress".parse().map_err(anyhow::Error::msg)?,
        listeners: [(port, Arc::new(listener))].into(),
        extensions: Arc::default(),
        guard: None,
        clients: None,
        upstreams: upstreams.into_iter().map(|upstream| (upstream.id.clone(), Arc::new(upstream))).collect(),
        secrets: BTreeMap::new(),
    })
}

/// The hosts with wildcards that there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Wild {
    /// None: what is cut is cut fine.
    No,
    /// For all hosts below one: it is cut coarse.
    Below,
    /// The same, and for all hosts.
    Any,
}

impl Wild {
    /// How a chain is laid out that is cut first with these hosts.
    fn form(self) -> Form {
        Form::Cut(if self == Self::No { Parts::Fine } else { Parts::Coarse })
    }
}

/// Exact hosts, perhaps some with wildcards, a host with a backend, and the marker.
fn world(port: u16, backend: SocketAddr, marker: &str, wild: Wild) -> anyhow::Result<GatewayPlan> {
    let mut hosts = vec![host("own.wild.example", 1, "own")?];
    if wild >= Wild::Below {
        hosts.push(host("*.wild.example", 1, "wild")?);
    }
    hosts.extend((0..HOSTS).map(|n| host(&format!("site-{n}.example"), ROUTES, "")).collect::<Result<Vec<_>, _>>()?);
    hosts.push(host(MARKER, 1, marker)?);
    if wild == Wild::Any {
        hosts.push(host("*", 1, "anybody")?);
    }
    let destination = WeightedDestination { upstream: echo(), weight: 100, policies: Vec::new() };
    let forward = Forward { destinations: [destination].into(), path_rewrite: None, host_rewrite: None };
    hosts.push(Arc::new(VirtualHost {
        domain: Host::parse("echo.example")?,
        tables: vec![object(Kind::RouteTable, "www")],
        redirects_to_https: false,
        routes: [route("echo", "/", Action::Forward(forward.into()))].into_iter().collect(),
    }));
    let endpoint = Endpoint::direct(backend.ip().to_string().into(), backend.port());
    let upstream = Upstream {
        id: echo(),
        protocol: UpstreamProtocol::Http1,
        hostname: "echo".into(),
        endpoints: [(Locality::default(), vec![endpoint])].into(),
        shares: BTreeMap::new(),
        outlier: None,
        tls: None,
        externals: BTreeMap::new(),
        remotes: BTreeMap::new(),
        secrets: Vec::new(),
        closed: None,
        guards: Vec::new(),
        protected_by: Vec::new(),
    };
    plan(port, hosts, vec![upstream])
}

fn options(cut_from_routes: usize) -> EmitOptions {
    EmitOptions { bind: IpAddr::from([127, 0, 0, 1]), cut_from_routes, ..EmitOptions::default() }
}

/// A control plane with one gateway.
struct Served {
    snapshots: Arc<Shared>,
    envoy: Envoy,
    address: SocketAddr,
    server: tokio::task::JoinHandle<anyhow::Result<()>>,
    _events: mpsc::UnboundedReceiver<chancery::xds::observation::Observation>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Served {
    async fn start(binary: &Path, api_type: &str, port: u16, first: Snapshot) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let xds = listener.local_addr()?;
        let snapshots = Arc::new(Shared(watch::Sender::new(Some(Arc::new(first)))));
        let (sender, events) = mpsc::unbounded_channel();
        let (source, settings) = (snapshots.clone(), ServerSettings::default());
        let server = tokio::spawn(async move {
            let events = Arc::new(Events(sender));
            serve((listener, Access::Anybody), source, events, Sessions::default(), settings, std::future::pending())
                .await?;
            Ok(())
        });
        let mut envoy = Envoy::start_binary(binary, "cut", &bootstrap(xds, api_type)).await?;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        envoy.listens(address).await?;
        Ok(Self { snapshots, envoy, address, server, _events: events })
    }

    fn publish(&self, snapshot: Snapshot) -> anyhow::Result<()> {
        let violations = verify(&snapshot);
        ensure!(violations.is_empty(), "{violations:?}");
        self.snapshots.0.send_replace(Some(Arc::new(snapshot)));
        Ok(())
    }

    /// Waits until the marker answers with some text.
    async fn shows(&self, text: &str) -> anyhow::Result<()> {
        until(PATIENCE, &format!("answer {text}"), async || {
            // A connection of its own: one that is drained knows the old routes only.
            let answer = Client::new(self.address).send(&Request::get(MARKER, "/")).await;
            let seen = answer.map_or_else(|error| format!("{error:#}"), |response| response.text());
            if seen.ends_with(text) { Ok(()) } else { Err(Not::Yet(seen)) }
        })
        .await
    }
}

/// A port that nobody has now.
async fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0").await?.local_addr()?.port())
}

/// Sends a request as it is written; status and body.
async fn raw(address: SocketAddr, request: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    let read = async {
        // Not to its end: Envoy leaves a connection that it is about to close open for a second.
        loop {
            let text = String::from_utf8_lossy(&answer).into_owned();
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
                if body.len() >= length.unwrap_or_default() {
                    return Ok(format!("{} {body}", head.lines().next().unwrap_or_default()));
                }
            }
            ensure!(stream.read_buf(&mut answer).await? > 0, "closed after {text:?}");
        }
    };
    tokio::time::timeout(PATIENCE, read).await.context("no answer")?
}

/// Hosts as clients write them.
const SPELLINGS: &[&str] = &[
    "site-7.example",
    "Site-7.Example",
    "SITE-7.EXAMPLE:8080",
    "site-7.example:80",
    "site-7.example:",
    "site-7.example:x",
    "site-7.example.",
    "site-219.example",
    "own.wild.example",
    "OWN.wild.example:1",
    "other.wild.example",
    "Other.Wild.Example",
    "a.b.wild.example:443",
    "wild.example",
    "nobody.example",
    "NOBODY.example:80",
    "[::1]",
    "[::1]:80",
    "127.0.0.1:80",
    "",
];

/// The answers to all spellings, over both protocols, with and without a forged header.
async fn answers(address: SocketAddr) -> anyhow::Result<BTreeMap<String, String>> {
    let mut answers = BTreeMap::new();
    let mut http2 = Client::speaking(address, Protocol::Http2);
    let prefix = format!("route/{}", address.port());
    for host in SPELLINGS {
        for forged in [None, Some("000"), Some("3ff")] {
            let part = forged.map(|part| format!("{prefix}/{part}"));
            let header = part.as_ref().map(|part| format!("x-chancery-part: {part}\r\n")).unwrap_or_default();
            for path in ["/", "/path-3"] {
                let text = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{header}\r\n");
                answers.insert(format!("HTTP/1 {host:?} {path} {forged:?}"), raw(address, &text).await?);
                if host.is_empty() || host.ends_with(":x") {
                    // The client refuses to send these.
                    continue;
                }
                let mut request = Request::get(host, path);
                request.headers.extend(part.iter().map(|part| ("x-chancery-part".to_owned(), part.clone())));
                let response = http2.send(&request).await?;
                answers.insert(
                    format!("HTTP/2 {host:?} {path} {forged:?}"),
                    format!("{} {}", response.status, response.text()),
                );
            }
        }
    }
    for request in ["GET / HTTP/1.1\r\n\r\n", "GET / HTTP/1.0\r\n\r\n"] {
        answers.insert(format!("{request:?}"), raw(address, request).await?);
    }
    Ok(answers)
}

fn load(address: SocketAddr, wild: Wild) -> Load {
    let asked = [
        ("site-1.example", "site-1.example /"),
        ("Site-2.Example:80", "site-2.example /"),
        ("x.wild.example", if wild >= Wild::Below { "*.wild.example /" } else { "" }),
        ("own.wild.example", "own.wild.example /"),
        ("nobody.example", if wild == Wild::Any { "* /" } else { "" }),
    ];
    let requests = asked.iter().map(|(host, _)| Request::get(host, "/")).collect();
    Load::start(address, 10, Pace::PerSecond(RATE), requests, move |index, response: &Response| {
        let expected = asked[index].1;
        let status = if expected.is_empty() { 404 } else { 200 };
        ensure!(response.status == status && response.text().starts_with(expected), "{response:?}");
        Ok(())
    })
}

async fn judge(binary: &Path, api_type: &str, wild: Wild) -> anyhow::Result<()> {
    let echo = Backend::start(Identity::default(), SocketAddr::from(([127, 0, 0, 1], 0))).await?;
    let port = free_port().await?;
    let world = |marker: &str| world(port, echo.address, marker, wild);
    let whole = emit_gateway(&world("whole")?, &options(usize::MAX));
    let served = Served::start(binary, api_type, port, whole).await?;
    served.shows("whole").await?;
    let expected = answers(served.address).await?;
    let found = expected.values().filter(|answer| answer.contains("site-7.example /")).count();
    ensure!(found > 20, "the whole is not as expected: {expected:#?}");

    let requests = load(served.address, wild);
    let mut emitter = Emitter::default();
    served.publish(emitter.emit(&world("prepared")?, &options(1)))?;
    served.shows("prepared").await?;
    emitter.ready(Ready::Everything);
    let cut = emitter.emit(&world("cut")?, &options(1));
    ensure!(emitter.layout().form(port, "") == Some(wild.form()), "{:?}", emitter.layout());
    served.publish(cut)?;
    served.shows("cut").await?;
    requests.end().await.context("while the chain was cut")?;
    let seen = answers(served.address).await?;
    for (request, answer) in &expected {
        ensure!(seen.get(request) == Some(answer), "{request}: whole {answer:?}, cut {:?}", seen.get(request));
    }
    // What a backend sees, and that a client cannot give it our header.
    let forged = Request::get("Echo.Example", "/").header("x-chancery-part", &format!("route/{port}/000"));
    let response = Client::new(served.address).send(&forged).await?;
    ensure!(response.status == 200 && !response.text().contains("x-chancery-part"), "{}", response.text());

    let changes = "listener_manager.listener_(modified|added|in_place_updated)";
    let before = served.envoy.stats(changes).await?;
    let requests = load(served.address, wild);
    for number in 0..10 {
        let text = format!("edit {number}");
        served.publish(emitter.emit(&world(&text)?, &options(1)))?;
        served.shows(&text).await?;
    }
    requests.end().await.context("while hosts changed")?;
    ensure!(served.envoy.stats(changes).await? == before, "an edit changed the listener");
    let refused = served.envoy.stats("update_rejected$").await?;
    ensure!(refused.values().all(|count| *count == 0), "{refused:?}");
    Ok(())
}

/// One after the other, because each loads thousands of parts.
async fn in_every_release(api_type: &str, wild: Wild) -> anyhow::Result<()> {
    for release in CUTTING {
        judge(&find_release(release)?, api_type, wild).await.with_context(|| format!("Envoy {release}"))?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r67_a_cut_changes_no_answer() -> anyhow::Result<()> {
    in_every_release("DELTA_GRPC", Wild::Below).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r67_a_fine_cut_changes_no_answer() -> anyhow::Result<()> {
    in_every_release("DELTA_GRPC", Wild::No).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r67_a_cut_changes_no_answer_with_a_catch_all() -> anyhow::Result<()> {
    in_every_release("DELTA_GRPC", Wild::Any).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r67_a_cut_changes_no_answer_in_state_of_the_world() -> anyhow::Result<()> {
    judge(&find()?, "GRPC", Wild::Any).await
}

/// Sends requests on connections that were there before the chain is another, and on new ones.
fn loads(address: SocketAddr) -> [Load; 2] {
    let requests: Vec<Request> = (0..50).map(|n| Request::get(&format!("site-{n}.example"), "/")).collect();
    let judge = |index: usize, response: &Response| {
        let expected = format!("site-{index}.example /");
        ensure!(response.status == 200 && response.text().starts_with(&expected), "{response:?}");
        Ok(())
    };
    let old = Load::start(address, 10, Pace::PerSecond(RATE), requests.clone(), judge);
    let client = move || Client::new(address);
    [old, Load::start_with(client, Lasts::OneRequest, 10, Pace::PerSecond(RATE), requests, judge)]
}

/// Steps from whole to cut and back, each with edits, while requests are on their way.
async fn there_and_back(binary: &Path, api_type: &str) -> anyhow::Result<()> {
    let echo = Backend::start(Identity::default(), SocketAddr::from(([127, 0, 0, 1], 0))).await?;
    let port = free_port().await?;
    let world = |marker: &str| world(port, echo.address, marker, Wild::No);
    let mut emitter = Emitter::default();
    let first = emitter.emit(&world("first")?, &options(usize::MAX));
    let served = Served::start(binary, api_type, port, first).await?;
    served.shows("first").await?;
    let requests = loads(served.address);
    let steps = [
        ("prepared", 1, Form::Preparing { from: None, to: Parts::Fine }),
        ("cut", 1, Form::Cut(Parts::Fine)),
        ("back", usize::MAX, Form::StandingBy(Parts::Fine)),
        ("cut again", 1, Form::Cut(Parts::Fine)),
        ("back again", usize::MAX, Form::StandingBy(Parts::Fine)),
    ];
    for (step, cut_from, form) in steps {
        // Nobody follows scopes when it is cut first, so nobody has to have them.
        emitter.ready(Ready::Everything);
        for edit in 0..3 {
            let text = format!("{step} {edit}");
            served.publish(emitter.emit(&world(&text)?, &options(cut_from)))?;
            ensure!(emitter.layout().form(port, "") == Some(form), "{text}: {:?}", emitter.layout());
            served.shows(&text).await?;
        }
    }
    for load in requests {
        load.end().await.context("while the chain was cut and put together")?;
    }
    emitter.settle();
    served.publish(emitter.emit(&world("settled")?, &options(usize::MAX)))?;
    served.shows("settled").await?;
    let refused = served.envoy.stats("update_rejected$").await?;
    ensure!(refused.values().all(|count| *count == 0), "{refused:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r67_no_request_fails_on_the_way_to_the_cut_and_back() -> anyhow::Result<()> {
    for release in CUTTING {
        there_and_back(&find_release(release)?, "DELTA_GRPC").await.with_context(|| format!("Envoy {release}"))?;
    }
    there_and_back(&find()?, "GRPC").await.context("state of the world")
}

/// A host is removed with its backend: it is gone at once, its cluster follows, and no request meets a route whose cluster is
/// gone.
async fn remove_a_host(binary: &Path, api_type: &str) -> anyhow::Result<()> {
    let echo = Backend::start(Identity::default(), SocketAddr::from(([127, 0, 0, 1], 0))).await?;
    let port = free_port().await?;
    let mut emitter = Emitter::default();
    let mut plan = world(port, echo.address, "first", Wild::No)?;
    emitter.emit(&plan, &options(1));
    emitter.ready(Ready::Everything);
    let first = emitter.emit(&plan, &options(1));
    ensure!(emitter.layout().form(port, "") == Some(Wild::No.form()), "the chain is not cut");
    let served = Served::start(binary, api_type, port, first).await?;
    served.shows("first").await?;
    let clusters = "^cluster_manager.active_clusters$";
    let before = served.envoy.stats(clusters).await?;
    let requests = vec![Request::get("echo.example", "/")];
    let load = Load::start(served.address, 4, Pace::PerSecond(RATE), requests, |_, response: &Response| {
        ensure!([200, 404].contains(&response.status), "{}: {}", response.status, response.text());
        Ok(())
    });
    plan.upstreams.clear();
    for chain in plan.listeners.values_mut().flat_map(|listener| &mut Arc::make_mut(listener).chains) {
        if let Serves::Http(http) = &mut chain.serves {
            http.virtual_hosts.retain(|host| host.domain.as_str() != "echo.example");
        }
    }
    served.publish(emitter.emit(&plan, &options(1)))?;
    until(PATIENCE, "the host and its cluster to go", async || {
        let answer = Client::new(served.address).send(&Request::get("echo.example", "/")).await;
        let status = answer.map_err(|error| format!("{error:#}"))?.status;
        let now = served.envoy.stats(clusters).await.map_err(|error| format!("{error:#}"))?;
        let is_gone = status == 404 && now.values().sum::<u64>() + 1 == before.values().sum::<u64>();
        if is_gone { Ok(()) } else { Err(Not::Yet(format!("{status}, {now:?} of {before:?}"))) }
    })
    .await?;
    load.end().await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_31_a_host_that_is_removed_is_gone_before_its_cluster() -> anyhow::Result<()> {
    remove_a_host(&find()?, "DELTA_GRPC").await.context("delta")?;
    remove_a_host(&find()?, "GRPC").await.context("state of the world")
}

fn median(samples: &mut [Duration]) -> Duration {
    samples.sort_unstable();
    samples[samples.len() / 2]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_among_ten_thousand_routes_is_served_sooner_where_they_are_cut() -> anyhow::Result<()> {
    let mut hosts = (0..1_000).map(|n| host(&format!("site-{n}.example"), 10, "")).collect::<Result<Vec<_>, _>>()?;
    let mut layouts = Vec::new();
    for (what, cut_from) in [("whole", usize::MAX), ("cut", 1)] {
        let (port, mut emitter) = (free_port().await?, Emitter::default());
        emitter.emit(&plan(port, hosts.clone(), Vec::new())?, &options(cut_from));
        emitter.ready(Ready::Everything);
        let first = emitter.emit(&plan(port, hosts.clone(), Vec::new())?, &options(cut_from));
        let served = Served::start(&find()?, "DELTA_GRPC", port, first).await?;
        layouts.push((what, cut_from, served, emitter, Vec::new()));
    }
    for number in 0..SAMPLES {
        let text = format!("edit {number}");
        let changed = number * 37 % hosts.len();
        hosts[changed] = host(&format!("site-{changed}.example"), 10, &text)?;
        let domain = format!("site-{changed}.example");
        for (what, cut_from, served, emitter, samples) in &mut layouts {
            let plan = plan(served.address.port(), hosts.clone(), Vec::new())?;
            let snapshot = Arc::new(emitter.emit(&plan, &options(*cut_from)));
            let mut client = Client::new(served.address);
            client.send(&Request::get(&domain, "/")).await?;
            let start = Instant::now();
            served.snapshots.0.send_replace(Some(snapshot));
            loop {
                let response = client.send(&Request::get(&domain, "/")).await?;
                ensure!(response.status == 200, "{what}: {response:?}");
                if response.text().ends_with(&text) {
                    break;
                }
                ensure!(start.elapsed() < PATIENCE, "{what}: {}", response.text());
            }
            samples.push(start.elapsed());
        }
    }
    let [whole, cut] = [0, 1].map(|layout| median(&mut layouts[layout].4));
    // Not captured, as the numbers are wanted of a test that passes too.
    writeln!(
        std::io::stderr(),
        "one host among 10,000 routes, push to served, median: whole {whole:.1?}, cut {cut:.1?}"
    )?;
    ensure!(cut * 3 < whole, "cut {cut:?}, whole {whole:?}");
    Ok(())
}
