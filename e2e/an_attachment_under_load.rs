//! Policies come and go, ten a second for a minute, while requests are sent that satisfy all of them: none fails, no
//! connection is drained, and no listener gets another version. All kinds take part that stand on routes, destinations and
//! gateways; those that are about a listener itself are no part of this. Edits that a busy machine was late for follow at once,
//! and how many there were is told; that each policy came and went is the least.
//!
//! It lasts long, and so it has a name that lets the others run beside it, as `an_edit_under_load.rs` does.

use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tokio::time::MissedTickBehavior;

use crate::all_at_once::{World, limit};
use crate::support::delegated::{HOST, request};
use crate::support::http::Request;
use crate::support::load::{Load, Pace};
use crate::support::manifests::{self, Manifest};

/// How long. The project's own measure.
const DURATION: Duration = Duration::from_secs(60);

/// Between two edits.
const BETWEEN_EDITS: Duration = Duration::from_millis(100);

/// So many are made, however slow the machine is.
const EDITS: usize = 600;

/// Limits without a service, and a value that clients who satisfy everything never send.
const LOCAL: &str = r"
- apiVersion: admin.gloo.solo.io/v2
  kind: RateLimitServerConfig
  metadata: {name: local, namespace: team, annotations: {cluster.solo.io/cluster: cluster-1, chancery/rate-limiting: local}}
  spec: {raw: {descriptors: [{key: here, rateLimit: {unit: DAY, requestsPerUnit: 1}}]}}
";

/// Requests a second, and the connections that are kept busy.
const RATE: u32 = 120;
const CONNECTIONS: usize = 8;

/// What must not move: versions of listeners, and connections that are asked to go away.
const LISTENERS: &str =
    "listener_manager.(listener_(added|modified|in_place_updated|removed)|total_listeners_draining)$";
/// Where Envoy tells the version of each listener.
const VERSIONS: &str = "/config_dump?resource=dynamic_listeners&mask=name,active_state.version_info";
const DRAINS: &str = r"downstream_cx_drain_close$|update_rejected$";

fn object(group: &str, kind: &str, name: &str, spec: &Value) -> Manifest {
    let object = json!({
        "apiVersion": format!("{group}.policy.gloo.solo.io/v2"), "kind": kind,
        "metadata": {"name": name, "namespace": "team"}, "spec": spec,
    });
    Manifest { cluster: "cluster-1".to_owned(), object }
}

/// One policy of each sort. What has a priority gets one that was never used before.
fn policies(issuer: &str, number: usize) -> Vec<Manifest> {
    let routes = json!([{"route": {"labels": {"all": "yes"}}}]);
    let on_routes = |group: &str, kind: &str, name: &str, config: &Value| {
        object(group, kind, name, &json!({"applyToRoutes": routes, "config": config}))
    };
    let auth = |name: &str, config: &Value| {
        let routes = json!([{"route": {"labels": {"auth": name}}}]);
        object("security", "ExtAuthPolicy", name, &json!({"applyToRoutes": routes, "config": config}))
    };
    let entries = json!([{"allowedMethods": ["GET", "POST"]}]);
    let mut door = object(
        "security",
        "AccessPolicy",
        "door",
        &json!({"applyToWorkloads": [{}], "config": {"authzList": [{"allowedIpBlocks": ["127.0.0.0/8"]}]}}),
    );
    door.object["metadata"]["namespace"] = json!("shop");
    let keys = json!({"headerName": "x-key", "k8sSecretApikeyStorage": {"labelSelector": {"keys": "shop"}}});
    vec![
        on_routes(
            "trafficcontrol",
            "HeaderManipulationPolicy",
            "headers",
            &json!({"appendResponseHeaders": {"x-number": number.to_string()}}),
        ),
        on_routes(
            "security",
            "JWTPolicy",
            "token",
            &json!({
                "phase": {"preAuthz": {"priority": 1000 + number}},
                "providers": {"a": {"issuer": "https://a", "local": {"inline": issuer}, "keepToken": true}},
            }),
        ),
        on_routes("security", "CSRFPolicy", "csrf", &json!({"filterEnabled": true})),
        auth("server", &json!({"customAuth": {}, "server": {"name": "authz"}})),
        limit("early", &json!({"preAuthz": {"priority": -1 - i64::try_from(number).unwrap_or_default()}})),
        object(
            "security",
            "AccessPolicy",
            "stock",
            &json!({
                "applyToDestinations": [{"selector": {"name": "stock"}}], "config": {"authzList": entries},
            }),
        ),
        on_routes("security", "CORSPolicy", "cors", &json!({"allowOrigins": [{"exact": "https://app.test"}]})),
        auth("keys", &json!({"glooAuth": {"configs": [{"apiKeyAuth": keys}]}})),
        on_routes("resilience", "RetryTimeoutPolicy", "timeout", &json!({"requestTimeout": "9s"})),
        limit("late", &json!({"postAuthz": {"priority": number}})),
        local(number),
        door,
        on_routes(
            "resilience",
            "FaultInjectionPolicy",
            "fault",
            &json!({"abort": {"httpStatus": 418, "percentage": 0}}),
        ),
    ]
}

/// One for which gateways count by themselves.
fn local(number: usize) -> Manifest {
    let mut local = limit("local", &json!({"postAuthz": {"priority": number}}));
    let config = &mut local.object["spec"]["config"];
    config["ratelimitServerConfig"]["name"] = json!("local");
    config["raw"] =
        json!({"rateLimits": [{"actions": [{"requestHeaders": {"headerName": "x-local", "descriptorKey": "here"}}]}]});
    local
}

/// Policies by their place in the list, with the files of those that are there.
struct Coming {
    issuer: String,
    directory: PathBuf,
    files: Vec<Vec<PathBuf>>,
    number: usize,
}

impl Coming {
    /// Attaches the next policy, or takes it away.
    fn turn(&mut self) -> anyhow::Result<()> {
        let count = self.files.len();
        let place = self.number % count;
        // In each second round a policy goes that came in the one before.
        match std::mem::take(&mut self.files[place]) {
            none if none.is_empty() => {
                let policy = policies(&self.issuer, self.number).swap_remove(place);
                self.files[place] = manifests::write(&self.directory, &[policy])?;
            }
            files => files.iter().try_for_each(std::fs::remove_file).context("remove a policy")?,
        }
        self.number += 1;
        Ok(())
    }
}

/// Requests that satisfy every policy.
fn requests(world: &World) -> anyhow::Result<Vec<Request>> {
    let token = world.token("alice", "staff")?;
    let good = |request: Request| {
        let request = request.header("authorization", &token).header("x-pass", "yes");
        request.header("x-key", "correct-horse-battery").header("x-more", "1")
    };
    let post = request("POST", "/all").header("origin", &format!("https://{HOST}"));
    let app = request("GET", "/keys").header("origin", "https://app.test");
    Ok([request("GET", "/all"), post, request("GET", "/keys"), app, request("GET", "/plain")].map(good).to_vec())
}

async fn judge(world: &mut World) -> anyhow::Result<()> {
    let address = world.team.mesh.entrance("shop/www")?.1;
    let requests = requests(world)?;
    let envoy = |world: &World, stats: &'static str| {
        let envoy = &world.team.mesh.gateways[0].envoy;
        let admin = envoy.admin_address();
        async move { crate::support::http::get(admin, "admin", &format!("/stats?filter={stats}")).await.map(|r| r.text()) }
    };
    let issuer = world.issuer.jwks();
    let mut coming = Coming {
        files: vec![Vec::new(); policies(&issuer, 0).len()],
        directory: world.team.mesh.directory().to_owned(),
        issuer,
        number: 0,
    };
    // Each policy once, to see that it does something where requests do not satisfy it.
    let nobody = |path: &str| request("GET", path);
    for _ in 0..coming.files.len() {
        coming.turn()?;
    }
    for (asked, status) in [
        (nobody("/all"), 401),
        (nobody("/keys"), 401),
        (request("PUT", "/plain"), 403),
        (requests[0].clone().header("x-early", "a"), 429),
        (requests[0].clone().header("x-late", "a"), 429),
        (requests[0].clone().header("x-local", "a"), 429),
        (Request { method: "POST".to_owned(), ..requests[2].clone() }.header("origin", "https://evil.test"), 403),
    ] {
        world.team.answers(&asked, status).await?;
    }
    let (listeners, drains) = (envoy(world, LISTENERS).await?, envoy(world, DRAINS).await?);
    let versions = world.team.mesh.gateways[0].envoy.admin(VERSIONS).await?;
    ensure!(versions.contains("version_info"), "{versions}");
    let asked = world.authz.count();
    let load = Load::start(address, CONNECTIONS, Pace::PerSecond(RATE), requests, |_, response| {
        ensure!(response.status == 200, "{}: {}", response.status, response.text());
        Ok(())
    });
    let (start, before) = (Instant::now(), coming.number);
    let mut ticks = tokio::time::interval(BETWEEN_EDITS);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    while start.elapsed() < DURATION || coming.number - before < EDITS {
        ticks.tick().await;
        coming.turn()?;
    }
    let edits = coming.number - before;
    let tally = load.tally().await?;
    // Not captured, as the numbers are wanted of a test that passes too.
    writeln!(
        std::io::stderr(),
        "policies under load: {} requests over {} connections for {:.0} s, {edits} edits, {} failed, p50 {:.1?}, p99 {:.1?}",
        tally.sent,
        tally.connections,
        tally.duration.as_secs_f64(),
        tally.failed,
        tally.percentile(50),
        tally.percentile(99),
    )?;
    tally.is_flawless()?;
    ensure!(world.authz.count() > asked, "the server was never asked meanwhile");
    assert_eq!(envoy(world, LISTENERS).await?, listeners, "listeners are as they were");
    assert_eq!(world.team.mesh.gateways[0].envoy.admin(VERSIONS).await?, versions);
    assert_eq!(envoy(world, DRAINS).await?, drains, "no connection was asked to go away, and nothing refused");
    // What came last is in force, and what went is not.
    while coming.files.iter().any(|files| !files.is_empty()) {
        if coming.files[coming.number % coming.files.len()].is_empty() {
            coming.number += 1;
        } else {
            coming.turn()?;
        }
    }
    world.team.answers(&nobody("/all"), 200).await?;
    world.team.answers(&nobody("/keys"), 200).await?;
    world.team.answers(&request("PUT", "/plain"), 200).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_while_policies_come_and_go() -> anyhow::Result<()> {
    let mut world = World::start(LOCAL).await?;
    let outcome = judge(&mut world).await;
    outcome.map_err(|error| world.team.mesh.with_logs(error))
}
