//! B9: many clusters as one: what a Pod costs where many virtual destinations have backends in three clusters.
//!
//! Every virtual destination has a Service in each cluster and ten endpoints in all. `cluster-1` has an ingress gateway with a
//! route to each of them; every cluster has an east-west gateway, which serves the hosts of all of them to clients inside, and
//! receives what others send. Clients are Pods, as many in every world. One endpoint comes and goes, one client has another
//! address, one virtual destination another host: what that costs is counted over all four gateways; no Envoy takes part.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use envoy_types::pb::google::protobuf::{Value, value::Kind};

use super::ads::{Holder, envoy_node};
use super::cpu::Clock;
use super::report::{Report, Samples, exponent, mebibytes, milliseconds, spread};
use super::scene::SILENCE;
use super::step::{Kept, Step, timed};
use crate::support::bench_world::{CLUSTER_NAME, GATEWAY_NAME, place};
use crate::support::chancery::{Chancery, Settings};
use crate::support::wait::PATIENCE;

const CLUSTERS: [&str; 3] = ["cluster-1", "cluster-2", "cluster-3"];

/// Where something is done.
const EDITED: &str = CLUSTERS[1];

/// Endpoints of a virtual destination in each of them.
const ENDPOINTS: [usize; 3] = [4, 3, 3];

/// The gateways, each with its cluster.
const GATEWAYS: [(&str, &str); 4] =
    [("cluster-1", GATEWAY_NAME), ("cluster-1", "ew"), ("cluster-2", "ew"), ("cluster-3", "ew")];

/// Objects of one file.
const TOGETHER: usize = 50;

/// When nothing came for so long, nothing more comes.
const LAST: Duration = Duration::from_millis(100);

/// What is done by turns: a name, a file of the cluster, and its two texts.
type Edit = (&'static str, &'static str, fn() -> [String; 2]);

const EDITS: [Edit; 3] = [
    ("an endpoint", "slice-0", || [slice(0, 1, 4), slice(0, 1, 3)]),
    ("a client", "client-more", || [client(1, 60_000), client(1, 60_001)]),
    ("a virtual destination", "virtual-more", || {
        let other = |host: &str| virtual_destination(0).replace("name: d-0", "name: more").replace("d-0.mesh", host);
        [other("more.mesh"), other("other.mesh")]
    }),
];

/// How large a world is.
#[derive(Clone, Copy, Debug)]
struct World {
    destinations: usize,
    clients: usize,
}

/// Runs it.
pub(crate) async fn run(report: &mut Report<'_>) -> anyhow::Result<()> {
    let sizes = report.scale.pick(vec![(50, 1_000, 30), (500, 1_000, 30)], vec![(3, 10, 2), (30, 10, 2)]);
    report.line("milliseconds, median / 99th percentile; bytes and resources of one edit over all gateways")?;
    let mut compiled: Vec<Vec<(f64, f64)>> = vec![Vec::new(); EDITS.len()];
    let mut served = compiled.clone();
    for (destinations, clients, samples) in sizes {
        let world = World { destinations, clients };
        let endpoints = destinations * ENDPOINTS.iter().sum::<usize>();
        let folder = tempfile::tempdir().context("make a folder for the manifests")?;
        world.write(folder.path())?;
        let mut kept = Kept::of(folder.path(), EDITED)?;
        let (first, took) = timed(|| kept.compile());
        let found = first.findings.first().map(|finding| format!("{finding:?}"));
        ensure!(found.is_none(), "a finding: {}", found.unwrap_or_default());
        let (_, afresh) = timed(|| kept.afresh());
        let chancery = Chancery::serve(folder.path(), &Settings::default()).await?;
        let mut holders = Vec::new();
        for (cluster, name) in GATEWAYS {
            let mut node = envoy_node(&format!("{cluster}-{name}"), name, "127.0.0.1");
            let cluster = Value { kind: Some(Kind::StringValue(cluster.to_owned())) };
            node.metadata.get_or_insert_default().fields.insert("cluster".to_owned(), cluster);
            let mut holder = Holder::open(chancery.xds(), node).await?;
            holder.settle(SILENCE).await?;
            holders.push(holder);
        }
        let bytes: Vec<String> =
            holders.iter().map(|holder| format!("{:.2}", mebibytes(holder.world.bytes() as u64))).collect();
        report.line(&format!(
            "{destinations:>5} virtual destinations, {endpoints} endpoints, {clients} clients: from scratch {:.1}, first step {:.1}; MiB of {} and the east-west gateways: {}",
            milliseconds(afresh),
            milliseconds(took),
            GATEWAYS[0].1,
            bytes.join(", ")
        ))?;
        report.line(&format!(
            "{:>23} {:>5} {:>17} {:>17} {:>17} {:>10} {:>10}",
            "edit", "world", "compiled", "chancery CPU", "to the last byte", "bytes", "resources"
        ))?;
        for (index, (name, file, texts)) in EDITS.iter().enumerate() {
            let [one, two] = texts();
            let steps = [&one, &two].map(|text| vec![Step::Put(text.clone())]);
            let spent = kept.measure(&steps, samples).with_context(|| (*name).to_owned())?;
            compiled[index].push((destinations as f64, milliseconds(spent.median())));
            let file = folder.path().join(EDITED).join("apps").join(format!("{file}.yaml"));
            let cost = serve(&chancery, &mut holders, &file, [&one, &two], samples).await?;
            served[index].push((destinations as f64, milliseconds(cost.cpu.median())));
            report.line(&format!(
                "{name:>23} {destinations:>5} {:>17} {:>17} {:>17} {:>10} {:>10}",
                spread(&spent),
                spread(&cost.cpu),
                spread(&cost.wall),
                cost.bytes / samples,
                cost.resources / samples,
            ))?;
            // What is compiled and what is served are the same worlds.
            let gone = [Step::Delete(two.clone())];
            if *name != EDITS[0].0 {
                kept.edit(&gone)?;
                fs::remove_file(&file)?;
                settle(&mut holders).await?;
            }
        }
    }
    let name = EDITS[0].0;
    for (what, costs) in [("compiled", &compiled[0]), ("CPU", &served[0])] {
        let growth = exponent(costs);
        report.line(&format!("growth exponent of {name}, {what}, in virtual destinations: {growth:.3}"))?;
        report.goal(&format!("B9 growth exponent of {name}, {what}"), growth, 0.05, "")?;
    }
    Ok(())
}

/// What some edits cost while they were served.
#[derive(Debug, Default)]
struct Cost {
    cpu: Samples,
    wall: Samples,
    bytes: usize,
    resources: usize,
}

async fn serve(
    chancery: &Chancery,
    holders: &mut [Holder],
    file: &Path,
    texts: [&str; 2],
    samples: usize,
) -> anyhow::Result<Cost> {
    let mut clock = Clock::of(chancery.pid());
    let mut cost = Cost::default();
    let rename = |text: &str| -> anyhow::Result<()> {
        let beside = file.with_extension("tmp");
        fs::write(&beside, text)?;
        Ok(fs::rename(&beside, file)?)
    };
    // Both ways have been gone before it counts.
    for text in texts {
        rename(text)?;
        wait(holders).await?;
        clock.quiet().await?;
        settle(holders).await?;
    }
    for sample in 0..samples {
        clock.quiet().await?;
        let (ran, begun) = (clock.read()?, Instant::now());
        rename(texts[sample % 2])?;
        let mut news = wait(holders).await?;
        clock.quiet().await?;
        cost.cpu.push(clock.read()? - ran);
        news.add(settle(holders).await?);
        cost.wall.push(news.last.unwrap_or(begun) - begun);
        cost.bytes += news.bytes;
        cost.resources += news.resources;
    }
    Ok(cost)
}

/// What some gateways were sent.
#[derive(Debug, Default)]
struct News {
    last: Option<Instant>,
    bytes: usize,
    resources: usize,
}

impl News {
    fn add(&mut self, other: Self) {
        self.last = self.last.max(other.last);
        self.bytes += other.bytes;
        self.resources += other.resources;
    }
}

/// Takes what comes until some gateway got something.
async fn wait(holders: &mut [Holder]) -> anyhow::Result<News> {
    let begun = Instant::now();
    loop {
        let news = settle(holders).await?;
        if news.last.is_some() {
            return Ok(news);
        }
        ensure!(begun.elapsed() < PATIENCE, "no gateway was sent anything");
    }
}

/// Takes what comes until nothing comes to anybody.
async fn settle(holders: &mut [Holder]) -> anyhow::Result<News> {
    let [one, two, three, four] = holders else { anyhow::bail!("four gateways, and not {}", holders.len()) };
    let (one, two, three, four) = tokio::join!(drain(one), drain(two), drain(three), drain(four));
    let mut news = News::default();
    for own in [one?, two?, three?, four?] {
        news.add(own);
    }
    Ok(news)
}

async fn drain(holder: &mut Holder) -> anyhow::Result<News> {
    let mut news = News::default();
    while let Some(received) = holder.follower.next_within(LAST).await? {
        holder.world.take(&received)?;
        news.add(News {
            last: Some(received.at),
            bytes: received.bytes,
            resources: received.response.resources.len() + received.response.removed.len(),
        });
    }
    Ok(news)
}

// ---- the world ----------------------------------------------------------------------------------------------------

impl World {
    fn write(self, directory: &Path) -> anyhow::Result<()> {
        place(&directory.join("mgmt").join("platform.yaml"), PLATFORM)?;
        for (index, cluster) in CLUSTERS.into_iter().enumerate() {
            let folder = directory.join(cluster).join("apps");
            let write = |name: &str, text: &str| place(&folder.join(format!("{name}.yaml")), text);
            write("ew", &EAST_WEST.replace("{address}", &format!("192.0.2.{}", index + 1)))?;
            if cluster == CLUSTER_NAME {
                write("ingress", INGRESS)?;
                write("table", &self.table())?;
            }
            write("slice-0", &slice(0, index, ENDPOINTS[index]))?;
            let of_destination = |number: usize| {
                let mut texts = vec![service(number)];
                texts.extend((number > 0).then(|| slice(number, index, ENDPOINTS[index])));
                texts.extend((cluster == CLUSTER_NAME).then(|| virtual_destination(number)));
                texts
            };
            let destinations: Vec<String> = (0..self.destinations).flat_map(of_destination).collect();
            // Clients are in all clusters.
            let clients = (0..self.clients).filter(|number| number % CLUSTERS.len() == index);
            let clients: Vec<String> = clients.map(|number| client(index, number)).collect();
            for (name, texts) in [("destinations", destinations), ("clients", clients)] {
                for (part, texts) in texts.chunks(TOGETHER).enumerate() {
                    write(&format!("{name}-{part}"), &texts.join("---\n"))?;
                }
            }
        }
        Ok(())
    }

    fn table(self) -> String {
        let mut text = TABLE.to_owned();
        for number in 0..self.destinations {
            // Writing to a string does not fail.
            let _ = writeln!(
                text,
                "    - {{name: d-{number}, matchers: [{{uri: {{prefix: /d-{number}/}}}}], forwardTo: {{destinations: [{{ref: {{name: d-{number}}}, kind: VIRTUAL_DESTINATION, port: {{number: 80}}}}]}}}}"
            );
        }
        text
    }
}

const PLATFORM: &str = "\
apiVersion: admin.gloo.solo.io/v2
kind: KubernetesCluster
metadata: {name: cluster-1, namespace: gloo-mesh}
---
apiVersion: admin.gloo.solo.io/v2
kind: KubernetesCluster
metadata: {name: cluster-2, namespace: gloo-mesh}
---
apiVersion: admin.gloo.solo.io/v2
kind: KubernetesCluster
metadata: {name: cluster-3, namespace: gloo-mesh}
---
apiVersion: admin.gloo.solo.io/v2
kind: Workspace
metadata: {name: team, namespace: gloo-mesh}
spec: {workloadClusters: [{namespaces: [{name: edge}, {name: apps}]}]}
---
apiVersion: admin.gloo.solo.io/v2
kind: RootTrustPolicy
metadata: {name: root, namespace: gloo-mesh}
spec: {config: {mgmtServerCa: {generated: {rsaKeySizeBytes: 2048}}}}
";

const EAST_WEST: &str = "\
apiVersion: v1
kind: Service
metadata: {name: ew, namespace: edge, labels: {istio: eastwestgateway}}
spec:
  selector: {app: ew}
  ports: [{name: tls, port: 15443, targetPort: 15443}, {name: http, port: 80, targetPort: 8080}]
status: {loadBalancer: {ingress: [{ip: {address}}]}}
";

const INGRESS: &str = "\
apiVersion: v1
kind: Service
metadata: {name: ingress, namespace: edge}
spec: {selector: {app: ingress}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: networking.gloo.solo.io/v2
kind: VirtualGateway
metadata: {name: ingress, namespace: edge}
spec: {workloads: [{selector: {labels: {app: ingress}}}], listeners: [{http: {}, port: {number: 80}}]}
";

const TABLE: &str = "\
apiVersion: networking.gloo.solo.io/v2
kind: RouteTable
metadata: {name: shop, namespace: apps}
spec:
  hosts: [shop.example]
  virtualGateways: [{name: ingress, namespace: edge, cluster: cluster-1}]
  http:
";

fn service(number: usize) -> String {
    format!(
        "\
apiVersion: v1
kind: Service
metadata: {{name: d-{number}, namespace: apps, labels: {{app: d-{number}}}}}
spec: {{selector: {{app: d-{number}}}, ports: [{{name: http, port: 80, targetPort: 9080}}]}}
"
    )
}

/// The slice of a Service in a cluster, with so many endpoints.
fn slice(number: usize, cluster: usize, endpoints: usize) -> String {
    let address =
        |endpoint: usize| format!("{{addresses: [10.{}.{}.{}]}}", cluster + 1, number / 50, number % 50 * 5 + endpoint);
    let endpoints: Vec<String> = (0..endpoints).map(address).collect();
    format!(
        "\
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: d-{number}-1, namespace: apps, labels: {{kubernetes.io/service-name: d-{number}}}}}
addressType: IPv4
ports: [{{name: http, port: 9080, protocol: TCP}}]
endpoints: [{}]
",
        endpoints.join(", ")
    )
}

fn virtual_destination(number: usize) -> String {
    format!(
        "\
apiVersion: networking.gloo.solo.io/v2
kind: VirtualDestination
metadata: {{name: d-{number}, namespace: apps}}
spec: {{hosts: [d-{number}.mesh], services: [{{labels: {{app: d-{number}}}}}], ports: [{{number: 80, protocol: HTTP}}]}}
"
    )
}

fn client(cluster: usize, number: usize) -> String {
    format!(
        "\
apiVersion: v1
kind: Pod
metadata: {{name: client-{}, namespace: apps}}
status: {{phase: Running, podIPs: [{{ip: 10.{}.{}.{}}}]}}
",
        if number < 60_000 { number.to_string() } else { "more".to_owned() },
        cluster + 101,
        number / 250,
        number % 250 + 1
    )
}
