//! The control plane may die at any time: gateways keep serving, and a restart sends them nothing that they hold.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use serde_json::json;

use crate::scenarios::find;
use crate::support::envoy::Envoy;
use crate::support::http::{Client, Request};
use crate::support::wait::{Not, PATIENCE, until};
use crate::support::world::Mesh;

const ROOT: &str = "source-apps/parent";

/// Requests that are sent while the control plane is away; each must succeed.
const REQUESTS_MEANWHILE: usize = 200;

/// Counters that rise when Envoy takes an update of listeners, clusters, endpoints or routes.
const UPDATES: &str =
    r"^(cluster_manager\.cds|listener_manager\.lds|cluster\..*|http\..*\.rds\..*)\.(update_success|update_rejected)$";

/// What Envoy counted, by lane: CDS, LDS, EDS and RDS, accepted and refused together.
pub(crate) async fn updates(envoy: &Envoy) -> anyhow::Result<BTreeMap<&'static str, u64>> {
    let mut lanes = BTreeMap::from([("CDS", 0), ("LDS", 0), ("EDS", 0), ("RDS", 0)]);
    for (name, count) in envoy.stats(UPDATES).await? {
        let lane = match name.split('.').next() {
            Some("cluster_manager") => "CDS",
            Some("listener_manager") => "LDS",
            Some("cluster") => "EDS",
            _ => "RDS",
        };
        *lanes.entry(lane).or_default() += count;
    }
    Ok(lanes)
}

pub(crate) async fn connected(envoy: &Envoy, wanted: u64) -> anyhow::Result<()> {
    until(PATIENCE, &format!("control_plane.connected_state {wanted}"), async || {
        let stats = envoy.stats(r"^control_plane\.connected_state$").await.map_err(|error| format!("{error:#}"))?;
        match stats.get("control_plane.connected_state") {
            Some(state) if *state == wanted => Ok(()),
            state => Err(Not::Yet(format!("{state:?}"))),
        }
    })
    .await
}

/// The one gateway of the world.
fn ingress(mesh: &Mesh) -> anyhow::Result<&Envoy> {
    Ok(&mesh.gateways.first().context("no gateway")?.envoy)
}

async fn survive(mesh: &mut Mesh) -> anyhow::Result<()> {
    let request = Request::get("www.example.com", "/a");
    let address = mesh.entrance(ROOT)?.1;
    let mut client = Client::new(address);
    let policy = async |client: &mut Client| {
        let response = client.send(&request).await?;
        anyhow::ensure!(response.status == 200, "{}: {}", response.status, response.text());
        response.header("x-policy-1").context("no x-policy-1")
    };
    assert_eq!(policy(&mut client).await?, "applied");
    connected(ingress(mesh)?, 1).await?;
    let before = updates(ingress(mesh)?).await?;
    // The bootstrap may leave out statistics of single clusters, and with them those of EDS.
    let counted = ["CDS", "LDS", "RDS"].iter().all(|lane| before[lane] > 0);
    assert!(counted, "a lane without updates is not counted: {before:?}");

    mesh.chancery.kill();
    connected(ingress(mesh)?, 0).await?;
    for number in 0..REQUESTS_MEANWHILE {
        let answer = policy(&mut client).await.with_context(|| format!("request {number} without control plane"))?;
        assert_eq!(answer, "applied");
    }

    mesh.chancery.restart().await?;
    mesh.chancery.is_ready().await?;
    connected(ingress(mesh)?, 1).await?;

    // A change of one policy is the event that ends the exchange after the reconnect: what the control plane sent
    // again would have come before it, on the same stream.
    mesh.edit("HeaderManipulationPolicy/source-apps/policy-1@cluster-1", |policy| {
        policy["spec"]["config"]["appendResponseHeaders"] = json!({ "x-policy-1": "changed" });
    })?;
    until(PATIENCE, "the changed policy at the gateway", async || match policy(&mut client).await {
        Ok(value) if value == "changed" => Ok(()),
        Ok(value) => Err(Not::Yet(value)),
        Err(error) => Err(Not::Yet(format!("{error:#}"))),
    })
    .await?;
    let after = updates(ingress(mesh)?).await?;
    let mut expected = before.clone();
    *expected.entry("RDS").or_default() += 1;
    if after != expected {
        bail!("updates before the restart {before:?}, after it and one edited route policy {after:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_killed_control_plane_harms_nobody_and_comes_back_in_silence() -> anyhow::Result<()> {
    let mut mesh = Mesh::start(find("delegated-1")?.manifests()?, Default::default()).await?;
    let outcome = survive(&mut mesh).await;
    outcome.map_err(|error| mesh.with_logs(error))
}
