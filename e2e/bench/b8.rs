//! B8: routes are added, edited and removed one by one while a real Envoy is asked a thousand times a second, and no answer
//! is wrong.
//!
//! Every route is a table of its own that another delegates to; every tenth brings its own Service, so that clusters come
//! and go with it. A request for a route that is there is answered by the backend that it names: never by 404, 5xx or
//! another backend. While a route is on its way, the answer of before is right too, but not once the new one was seen and
//! has had time to reach all workers.

use std::net::SocketAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use super::report::{Report, spread};
use super::scene::{Scene, envoy};
use crate::support::backend::{Backend, Identity};
use crate::support::bench_world::{PORTS, World, place};
use crate::support::http::{Client, Request, Response};
use crate::support::load::{Load, Pace};
use crate::support::manifests;
use crate::support::wait::{Not, PATIENCE, until};

/// The host of all routes.
const HOST: &str = "wave.example.com";
/// The Services that routes lead to: before and after an edit.
const BACKENDS: [&str; 2] = ["live-a", "live-b"];
/// Every so many routes one has a Service of its own, on the first backend.
const OWN_SERVICE: usize = 10;
/// How long the workers of an Envoy may differ.
const WORKERS: Duration = Duration::from_millis(250);
/// Connections of the load.
const CONNECTIONS: usize = 8;

/// What is right for a route.
#[derive(Clone, Copy, Debug)]
struct Watched {
    /// The answer of before; the same as the new one when nothing is on its way.
    old: Answer,
    /// The answer that is to come.
    new: Answer,
    /// When that was seen first.
    seen: Option<Instant>,
}

/// All routes.
#[derive(Clone, Debug)]
struct Routes(Arc<Mutex<Vec<Watched>>>);

/// An answer, as far as it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Nothing,
    Backend(usize),
}

impl Routes {
    fn none(count: usize) -> Self {
        let nothing = Watched { old: Answer::Nothing, new: Answer::Nothing, seen: None };
        Self(Arc::new(Mutex::new(vec![nothing; count])))
    }

    fn all(&self) -> std::sync::MutexGuard<'_, Vec<Watched>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on another answer is right too.
    fn expect(&self, route: usize, new: Answer) {
        let watched = &mut self.all()[route];
        *watched = Watched { old: watched.new, new, seen: None };
    }

    /// From now on the answer of before is wrong.
    fn hold(&self, routes: Range<usize>) {
        for watched in &mut self.all()[routes] {
            watched.old = watched.new;
        }
    }

    /// What is wrong with an answer now.
    fn judge(&self, route: usize, response: &Response) -> anyhow::Result<()> {
        let answer = Answer::of(response)?;
        let watched = &mut self.all()[route];
        if answer == watched.new {
            watched.seen.get_or_insert_with(Instant::now);
            return Ok(());
        }
        let since = watched.seen.map(|seen| seen.elapsed());
        let is_late = since.is_some_and(|since| since > WORKERS);
        ensure!(answer == watched.old && !is_late, "{answer:?} where {:?} is right, seen since {since:?}", watched.new);
        Ok(())
    }
}

impl Answer {
    fn of(response: &Response) -> anyhow::Result<Self> {
        match response.status {
            404 => Ok(Self::Nothing),
            200 => Ok(Self::Backend(backend(response)?)),
            status => bail!("{status} {}", response.text()),
        }
    }
}

/// Which backend it is that answers.
fn backend(response: &Response) -> anyhow::Result<usize> {
    let body = response.json()?;
    let service = body.get("service").and_then(serde_json::Value::as_str).unwrap_or_default();
    BACKENDS.iter().position(|backend| *backend == service).with_context(|| format!("answered by {service:?}"))
}

/// Runs it.
pub(crate) async fn run(report: &mut Report<'_>) -> anyhow::Result<()> {
    let world = World { tables: report.scale.pick(1_000, 10) };
    let (adds, edits, removals) = report.scale.pick((3_000, 1_000, 1_000), (30, 10, 10));
    let rate = report.scale.pick(1_000, 200);
    // Changes a second: three waves in half a minute.
    let pace = report.scale.pick(250, 50);
    let mut backends = Vec::new();
    let scene = Scene::start(world, "first", |_| Ok(())).await?;
    for name in BACKENDS {
        let identity = Identity { service: name.to_owned(), ..Identity::default() };
        let backend = Backend::start(identity, SocketAddr::from((scene.address()?, 9_080))).await?;
        place(&folder(scene.directory()).join(format!("service-{name}.yaml")), &service(name, backend.address))?;
        backends.push(backend);
    }
    let own = backends[0].address;
    place(&folder(scene.directory()).join("table-wave.yaml"), ROOT)?;
    place(&file(scene.directory(), adds), &table(adds, BACKENDS[0]))?;
    let bind = scene.address()?;
    let mut gateway = envoy(bind, scene.chancery.xds()).await?;
    let address = SocketAddr::from((bind, PORTS.1));
    gateway.envoy.listens(address).await?;
    // One more than are added is there from the first to the last.
    let routes = Routes::none(adds + 1);
    routes.expect(adds, Answer::Backend(0));
    settled(address, &routes, adds..adds + 1, Answer::Backend(0)).await?;

    // Every other request is for the one that stays.
    let asked: Vec<usize> = (0..adds).flat_map(|route| [route, adds]).collect();
    let requests = asked.iter().map(|route| request(*route)).collect();
    let judge = {
        let routes = routes.clone();
        move |index: usize, response: &Response| routes.judge(asked[index], response)
    };
    let load = Load::start(address, CONNECTIONS, Pace::PerSecond(rate), requests, judge);
    let mut waits = Vec::new();
    let waves =
        [(0..adds, Answer::Backend(0)), (0..edits, Answer::Backend(1)), (adds - removals..adds, Answer::Nothing)];
    for (wave, answer) in waves {
        let mut ticks = tokio::time::interval(Duration::from_secs(1) / pace);
        for route in wave.clone() {
            ticks.tick().await;
            routes.expect(route, answer);
            let file = file(scene.directory(), route);
            match answer {
                Answer::Nothing => std::fs::remove_file(&file)?,
                Answer::Backend(number) => manifests::replace(&file, &text(route, BACKENDS[number], own))?,
            }
        }
        let begun = Instant::now();
        let settled = settled(address, &routes, wave, answer).await;
        settled.map_err(|error| scene.with_log(error))?;
        waits.push(begun.elapsed());
    }
    let tally = load.tally().await?;
    let mut samples = super::report::Samples::default();
    samples.extend(waits.iter().copied());
    report.line(&format!(
        "{adds} adds, {edits} edits, {removals} removals at {pace}/s, {} requests at {:.0}/s: {} wrong answers; requests took {:.2} / {:.2} ms (median / 99th percentile)",
        tally.sent,
        tally.rate(),
        tally.failed,
        tally.percentile(50).as_secs_f64() * 1e3,
        tally.percentile(99).as_secs_f64() * 1e3,
    ))?;
    report.line(&format!(
        "from the last file of a wave until all of it is served: {} ms (median / most of 3)",
        spread(&samples)
    ))?;
    report.goal("B8 wrong answers", tally.failed as f64, 0.0, "")?;
    tally.is_flawless()
}

fn request(route: usize) -> Request {
    Request::get(HOST, &format!("/wave-{route}/x"))
}

/// Waits until every route of a wave is as it shall be, and holds the load to it from now on.
async fn settled(address: SocketAddr, routes: &Routes, wave: Range<usize>, wanted: Answer) -> anyhow::Result<()> {
    let mut client = Client::new(address);
    for route in wave.clone() {
        until(2 * PATIENCE, &format!("route {route} to be {wanted:?}"), async || {
            let response = client.send(&request(route)).await.map_err(|error| Not::Yet(format!("{error:#}")))?;
            let answer = Answer::of(&response).map_err(|error| Not::Ever(format!("{error:#}")))?;
            if answer == wanted { Ok(()) } else { Err(Not::Yet(format!("{answer:?}"))) }
        })
        .await?;
    }
    // What one worker serves all do soon; requests that are on their way are judged by then.
    tokio::time::sleep(WORKERS).await;
    routes.hold(wave);
    Ok(())
}

fn folder(directory: &Path) -> PathBuf {
    directory.join("cluster-1").join("edge")
}

fn file(directory: &Path, route: usize) -> PathBuf {
    folder(directory).join(format!("wave-{route}.yaml"))
}

const ROOT: &str = "\
apiVersion: networking.gloo.solo.io/v2
kind: RouteTable
metadata:
  name: wave
  namespace: edge
spec:
  hosts:
    - wave.example.com
  virtualGateways:
    - name: ingress
      namespace: edge
      cluster: cluster-1
  http:
    - name: waves
      matchers:
        - uri:
            prefix: /
      delegate:
        routeTables:
          - labels:
              wave: member
";

/// A route, and its Service if it has one of its own.
fn text(route: usize, backend: &str, address: SocketAddr) -> String {
    if !route.is_multiple_of(OWN_SERVICE) || backend != BACKENDS[0] {
        return table(route, backend);
    }
    let own = format!("wave-{route}");
    format!("{}---\n{}", table(route, &own), service(&own, address))
}

fn table(route: usize, service: &str) -> String {
    format!(
        "\
apiVersion: networking.gloo.solo.io/v2
kind: RouteTable
metadata:
  name: wave-{route}
  namespace: edge
  labels:
    wave: member
spec:
  http:
    - name: member
      matchers:
        - uri:
            prefix: /wave-{route}/
      forwardTo:
        destinations:
          - ref:
              name: {service}
              namespace: edge
            port:
              number: 8080
"
    )
}

fn service(name: &str, address: SocketAddr) -> String {
    format!(
        "\
apiVersion: v1
kind: Service
metadata:
  name: {name}
  namespace: edge
spec:
  selector:
    app: {name}
  ports:
    - name: http
      port: 8080
      targetPort: {port}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: {name}-1
  namespace: edge
  labels:
    kubernetes.io/service-name: {name}
addressType: IPv4
ports:
  - name: http
    port: {port}
    protocol: TCP
endpoints:
  - addresses: [{ip}]
    conditions: {{ready: true}}
",
        port = address.port(),
        ip = address.ip(),
    )
}
