//! `failureMode: FREEZE_CONFIG` on a real gateway: the old routes hold while other trees change, the fix lands, and a killed
//! control plane that kept its state comes back to the same.

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use crate::restart::connected;
use crate::support::chancery::{Chancery, Settings, binary};
use crate::support::http::Request;
use crate::support::manifests::{self, by_annotation};
use crate::support::wait::{Not, PATIENCE, until};
use crate::support::world::Mesh;
use crate::support::yaml;

/// Workspace `shop` owns the gateway and two root tables; the one that freezes delegates to workspace `team`.
const WORLD: &str = "
apiVersion: admin.gloo.solo.io/v2
kind: KubernetesCluster
metadata: {name: cluster-1, namespace: gloo-mesh, annotations: {cluster.solo.io/cluster: mgmt}}
---
apiVersion: admin.gloo.solo.io/v2
kind: Workspace
metadata: {name: shop, namespace: gloo-mesh, annotations: {cluster.solo.io/cluster: mgmt}}
spec: {workloadClusters: [{name: cluster-1, namespaces: [{name: shop}]}]}
---
apiVersion: admin.gloo.solo.io/v2
kind: Workspace
metadata: {name: team, namespace: gloo-mesh, annotations: {cluster.solo.io/cluster: mgmt}}
spec: {workloadClusters: [{name: cluster-1, namespaces: [{name: team}]}]}
---
apiVersion: admin.gloo.solo.io/v2
kind: WorkspaceSettings
metadata: {name: shop, namespace: shop, annotations: {cluster.solo.io/cluster: cluster-1}}
spec: {exportTo: [{workspaces: [{name: team}], resources: [{kind: ROUTE_TABLE}]}]}
---
apiVersion: admin.gloo.solo.io/v2
kind: WorkspaceSettings
metadata: {name: team, namespace: team, annotations: {cluster.solo.io/cluster: cluster-1}}
spec: {importFrom: [{workspaces: [{name: shop}], resources: [{kind: ROUTE_TABLE}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop, annotations: {cluster.solo.io/cluster: cluster-1}}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: networking.gloo.solo.io/v2
kind: VirtualGateway
metadata: {name: web, namespace: shop, annotations: {cluster.solo.io/cluster: cluster-1}}
spec: {workloads: [{selector: {labels: {app: web}}}], listeners: [{http: {}, port: {number: 80}}]}
---
apiVersion: networking.gloo.solo.io/v2
kind: RouteTable
metadata: {name: www, namespace: shop, annotations: {cluster.solo.io/cluster: cluster-1}}
spec:
  hosts: [www.example]
  virtualGateways: [{name: web}]
  failureMode: FREEZE_CONFIG
  http:
    - name: team
      matchers: [{uri: {prefix: /team}}]
      delegate: {routeTables: [{name: leaf, namespace: team}]}
    - name: cart
      matchers: [{uri: {prefix: /cart}}]
      forwardTo: {destinations: [{ref: {name: cart}}]}
---
apiVersion: networking.gloo.solo.io/v2
kind: RouteTable
metadata: {name: leaf, namespace: team, annotations: {cluster.solo.io/cluster: cluster-1}}
spec:
  http:
    - {name: said, directResponse: {status: 200, body: first}}
---
apiVersion: networking.gloo.solo.io/v2
kind: RouteTable
metadata: {name: other, namespace: shop, annotations: {cluster.solo.io/cluster: cluster-1}}
spec:
  hosts: [other.example]
  virtualGateways: [{name: web}]
  http:
    - {name: said, directResponse: {status: 200, body: first}}
---
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop, annotations: {cluster.solo.io/cluster: cluster-1}}
spec: {selector: {app: cart}, ports: [{name: http, port: 8080}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: cart-1
  namespace: shop
  labels: {kubernetes.io/service-name: cart}
  annotations: {cluster.solo.io/cluster: cluster-1}
addressType: IPv4
endpoints: [{addresses: [127.0.0.1]}]
ports: [{name: http, port: 8080}]
";

const ROOT: &str = "shop/www";
const LEAF: &str = "RouteTable/team/leaf@cluster-1";
const OTHER: &str = "RouteTable/shop/other@cluster-1";

/// Status and body.
async fn answer(mesh: &Mesh, host: &str, path: &str) -> anyhow::Result<(u16, String)> {
    let response = mesh.send(ROOT, &Request::get(host, path)).await?;
    Ok((response.status, response.text()))
}

async fn says(mesh: &Mesh, host: &str, path: &str, status: u16, body: &str) -> anyhow::Result<()> {
    let found = answer(mesh, host, path).await?;
    ensure!(found == (status, body.to_owned()), "{host}{path} answers {found:?}, not {status} {body:?}");
    Ok(())
}

async fn becomes(mesh: &Mesh, host: &str, path: &str, status: u16, body: &str) -> anyhow::Result<()> {
    until(PATIENCE, &format!("{status} {body:?} from {host}{path}"), async || {
        says(mesh, host, path, status, body).await.map_err(|error| Not::Yet(format!("{error:#}")))
    })
    .await
}

fn said(body: &str) -> Value {
    json!({"name": "said", "directResponse": {"status": 200, "body": body}})
}

/// A route that leads nowhere.
fn lost() -> Value {
    json!({
        "name": "lost",
        "matchers": [{"uri": {"prefix": "/lost"}}],
        "forwardTo": {"destinations": [{"ref": {"name": "nowhere"}}]},
    })
}

/// Changes the table of the other tree and waits for it at the gateway: what was saved before is in force by then, if at all.
async fn other_becomes(mesh: &mut Mesh, body: &str) -> anyhow::Result<()> {
    mesh.edit(OTHER, |table| table["spec"]["http"] = json!([said(body)]))?;
    becomes(mesh, "other.example", "/", 200, body).await
}

async fn frozen(mesh: &Mesh) -> anyhow::Result<()> {
    says(mesh, "www.example", "/team", 200, "first").await?;
    says(mesh, "www.example", "/team/lost", 200, "first").await?;
    let (status, body) = answer(mesh, "www.example", "/cart").await?;
    ensure!(status == 200, "/cart answers {status}: {body}");
    Ok(())
}

/// Waits until the state says something.
async fn kept(mesh: &Mesh, text: &str) -> anyhow::Result<()> {
    let file = mesh.chancery.state().join("frozen.json");
    until(PATIENCE, &format!("{text:?} in {}", file.display()), async || {
        let found = std::fs::read_to_string(&file).map_err(|error| error.to_string())?;
        if found.contains(text) { Ok(()) } else { Err(Not::Yet(found)) }
    })
    .await
}

async fn restarted(mesh: &mut Mesh) -> anyhow::Result<()> {
    mesh.chancery.restart().await?;
    mesh.chancery.is_ready().await?;
    connected(&mesh.gateways.first().context("no gateway")?.envoy, 1).await
}

async fn freezes(mesh: &mut Mesh) -> anyhow::Result<()> {
    frozen(mesh).await?;
    kept(mesh, "first").await?;

    // A child of another workspace breaks one route and changes another: both wait, with all of the tree.
    mesh.edit(LEAF, |table| table["spec"]["http"] = json!([lost(), said("second")]))?;
    other_becomes(mesh, "second").await?;
    frozen(mesh).await?;

    // kill -9, twice: the first restart finds what a valid tree left, the second what a frozen one did.
    for body in ["third", "fourth"] {
        mesh.chancery.kill();
        restarted(mesh).await?;
        other_becomes(mesh, body).await?;
        frozen(mesh).await?;
    }

    // The fix brings everything that waited.
    mesh.edit(LEAF, |table| table["spec"]["http"] = json!([said("second")]))?;
    becomes(mesh, "www.example", "/team", 200, "second").await?;
    kept(mesh, "second").await?;

    // Broken again, and the state lost with the process: routes are replaced, and changes land (R141).
    mesh.edit(LEAF, |table| table["spec"]["http"] = json!([lost(), said("third")]))?;
    other_becomes(mesh, "fifth").await?;
    says(mesh, "www.example", "/team/lost", 200, "second").await?;
    mesh.chancery.kill();
    std::fs::remove_dir_all(mesh.chancery.state()).context("lose the state")?;
    restarted(mesh).await?;
    let misconfigured = "chancery: route misconfigured (DESTINATION_NOT_FOUND)";
    becomes(mesh, "www.example", "/team/lost", 500, misconfigured).await?;
    becomes(mesh, "www.example", "/team", 200, "third").await
}

/// R138, R140, R141.
#[tokio::test]
async fn a_frozen_tree_holds_its_traffic_until_the_fix_and_over_a_killed_control_plane() -> anyhow::Result<()> {
    let manifests = by_annotation(&yaml::documents(WORLD).context("the world")?)?;
    let mut mesh = Mesh::start(manifests, Default::default()).await?;
    let outcome = freezes(&mut mesh).await;
    outcome.map_err(|error| mesh.with_logs(error))
}

/// A clean stop writes what the last compile left, however long that takes; and nobody else starts on the directory of one that
/// runs.
#[tokio::test]
async fn a_clean_stop_loses_nothing_and_a_state_directory_has_one_process() -> anyhow::Result<()> {
    // Mebibytes, so that writing them takes longer than ending would.
    const ROUTES: usize = 6;
    let mut documents = yaml::documents(WORLD).context("the world")?;
    for table in documents.iter_mut().filter(|object| object["metadata"]["name"] == "leaf") {
        let large = |index: usize| {
            json!({
                "name": format!("large-{index}"),
                "matchers": [{"uri": {"exact": format!("/team/{index}")}}],
                "directResponse": {"status": 200, "body": "x".repeat(1 << 20)},
            })
        };
        table["spec"]["http"] = (0..ROUTES).map(large).collect();
    }
    let folder = tempfile::tempdir()?;
    manifests::write(folder.path(), &by_annotation(&documents)?)?;
    let mut chancery = Chancery::serve(folder.path(), &Settings::default()).await?;
    chancery.stop().await?;
    let kept = std::fs::read_to_string(chancery.state().join("frozen.json"));
    let kept = kept.map_err(|error| anyhow::anyhow!("{error}: {}", chancery.log_tail()))?;
    ensure!(kept.len() > ROUTES << 20, "{} bytes are kept", kept.len());

    chancery.restart().await?;
    let mut second = std::process::Command::new(binary()?);
    second.args(["serve", "--xds-address", "127.0.0.1:0", "--admin-address", "127.0.0.1:0", "--state"]);
    let second = second.arg(chancery.state()).arg(folder.path()).output()?;
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    ensure!(second.status.code() == Some(1) && said.contains("in use by another process"), "{}: {said}", second.status);
    Ok(())
}
