//! Clients inside a cluster, on a real Envoy: each from an address of his own, and each finds what his workspace may see.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use crate::support::backend::Echo;
use crate::support::chancery::{self, Settings};
use crate::support::http::{Client, Request, Response};
use crate::support::manifests::{Manifest, text};
use crate::support::wait::{Not, PATIENCE, until};
use crate::support::world::{Mesh, RunningGateway};
use crate::support::yaml;

/// Three teams in one cluster, of which one runs the gateway. `recs` shares its virtual destination with `web` and with the
/// gateway's team, `web` shares its own with the gateway's team alone. `lab` belongs to nobody.
const WORLD: &str = "
apiVersion: admin.gloo.solo.io/v2
kind: KubernetesCluster
metadata: {name: cluster-1, namespace: gloo-mesh, annotations: {in: mgmt}}
---
apiVersion: admin.gloo.solo.io/v2
kind: Workspace
metadata: {name: platform, namespace: gloo-mesh, annotations: {in: mgmt}}
spec: {workloadClusters: [{name: cluster-1, namespaces: [{name: platform}]}]}
---
apiVersion: admin.gloo.solo.io/v2
kind: Workspace
metadata: {name: web, namespace: gloo-mesh, annotations: {in: mgmt}}
spec: {workloadClusters: [{name: cluster-1, namespaces: [{name: web}]}]}
---
apiVersion: admin.gloo.solo.io/v2
kind: Workspace
metadata: {name: recs, namespace: gloo-mesh, annotations: {in: mgmt}}
spec: {workloadClusters: [{name: cluster-1, namespaces: [{name: recs}]}]}
---
apiVersion: admin.gloo.solo.io/v2
kind: WorkspaceSettings
metadata: {name: web, namespace: web}
spec:
  importFrom: [{workspaces: [{name: recs}]}]
  exportTo: [{workspaces: [{name: platform}]}]
---
apiVersion: admin.gloo.solo.io/v2
kind: WorkspaceSettings
metadata: {name: recs, namespace: recs}
spec: {exportTo: [{workspaces: [{name: web}, {name: platform}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: east, namespace: platform, labels: {istio: eastwestgateway}}
spec:
  selector: {app: east}
  ports: [{name: tls, port: 15443, targetPort: 15443}, {name: http, port: 80, targetPort: 8080}, {name: more, port: 9000, targetPort: 9000}]
---
apiVersion: v1
kind: Service
metadata: {name: recs, namespace: recs}
spec: {selector: {app: recs}, ports: [{name: http, port: 8080, targetPort: 8080}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: recs-1, namespace: recs, labels: {kubernetes.io/service-name: recs}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints: [{addresses: [10.1.0.11], targetRef: {kind: Pod, name: recs-0}}]
---
apiVersion: v1
kind: Service
metadata: {name: site, namespace: web}
spec: {selector: {app: site}, ports: [{name: http, port: 8080, targetPort: 8080}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: site-1, namespace: web, labels: {kubernetes.io/service-name: site}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints: [{addresses: [10.1.0.12], targetRef: {kind: Pod, name: site-0}}]
---
apiVersion: v1
kind: Pod
metadata: {name: recs-0, namespace: recs}
status: {phase: Running, podIPs: [{ip: 10.1.0.11}]}
---
apiVersion: v1
kind: Pod
metadata: {name: site-0, namespace: web}
status: {phase: Running, podIPs: [{ip: 10.1.0.12}]}
---
apiVersion: v1
kind: Pod
metadata: {name: ops-0, namespace: platform}
status: {phase: Running, podIPs: [{ip: 10.1.0.13}]}
---
apiVersion: v1
kind: Pod
metadata: {name: lab-0, namespace: lab}
status: {phase: Running, podIPs: [{ip: 10.1.0.14}]}
---
apiVersion: networking.gloo.solo.io/v2
kind: VirtualDestination
metadata: {name: recs, namespace: recs}
spec:
  hosts: [recs.mesh]
  services: [{namespace: recs}]
  ports: [{number: 80, protocol: HTTP, targetPort: {number: 8080}}]
---
apiVersion: networking.gloo.solo.io/v2
kind: VirtualDestination
metadata: {name: site, namespace: web}
spec:
  hosts: [site.mesh]
  services: [{namespace: web}]
  ports: [{number: 80, protocol: HTTP, targetPort: {number: 8080}}]
";

/// Whole connections of two teams on one port.
pub(crate) const WHOLE: &str = "
apiVersion: networking.gloo.solo.io/v2
kind: VirtualDestination
metadata: {name: raw, namespace: recs, creationTimestamp: '2024-01-01T00:00:00Z'}
spec:
  hosts: [raw.recs.mesh]
  services: [{namespace: recs}]
  ports: [{number: 9000, protocol: TCP, targetPort: {number: 8080}}]
---
apiVersion: networking.gloo.solo.io/v2
kind: VirtualDestination
metadata: {name: raw, namespace: platform, creationTimestamp: '2024-01-02T00:00:00Z'}
spec:
  hosts: [raw.platform.mesh]
  services: [{name: site}]
  ports: [{number: 9000, protocol: TCP, targetPort: {number: 8080}}]
---
apiVersion: admin.gloo.solo.io/v2
kind: WorkspaceSettings
metadata: {name: platform, namespace: platform}
spec: {importFrom: [{workspaces: [{name: web}]}]}
";

/// The header that says who a client is.
pub(crate) const TAG: &str = "x-chancery-client";

fn place(object: Value) -> Manifest {
    let cluster = text(&object, "/metadata/annotations/in");
    let cluster = if cluster.is_empty() { "cluster-1" } else { cluster }.to_owned();
    Manifest { cluster, object }
}

pub(crate) fn world(further: &str) -> anyhow::Result<Vec<Manifest>> {
    let mut manifests: Vec<Manifest> = yaml::documents(WORLD)?.into_iter().map(place).collect();
    manifests.extend(yaml::documents(further)?.into_iter().map(place));
    Ok(manifests)
}

async fn start(further: &str) -> anyhow::Result<Mesh> {
    Mesh::start(world(further)?, Settings::default()).await
}

fn east(mesh: &Mesh) -> anyhow::Result<&RunningGateway> {
    mesh.gateways.iter().find(|running| running.gateway.service == "east").context("no gateway")
}

/// The address of a Pod, `namespace/name`.
pub(crate) fn address(mesh: &Mesh, pod: &str) -> anyhow::Result<Ipv4Addr> {
    let is_it = |manifest: &&Manifest| {
        manifest.kind() == "Pod" && format!("{}/{}", manifest.namespace(), manifest.name()) == pod
    };
    let found = mesh.manifests.iter().find(is_it).with_context(|| format!("no Pod {pod}"))?;
    Ok(text(&found.object, "/status/podIPs/0/ip").parse()?)
}

/// One request from an address.
async fn send(mesh: &Mesh, port: u16, from: Ipv4Addr, request: &Request) -> anyhow::Result<Response> {
    Client::from(from, east(mesh)?.address(port)?).send(request).await
}

/// Who answers a request, or its status.
pub(crate) fn answered(response: &Response) -> String {
    match response.json().ok().and_then(|body| serde_json::from_value::<Echo>(body).ok()) {
        Some(echo) if response.status == 200 => echo.identity.backend(),
        _ => response.status.to_string(),
    }
}

/// Waits until a client gets an answer.
async fn gets(mesh: &Mesh, port: u16, from: Ipv4Addr, host: &str, wanted: &str) -> anyhow::Result<()> {
    let request = Request::get(host, "/");
    until(PATIENCE, &format!("{wanted} for {host} from {from}"), async || {
        match send(mesh, port, from, &request).await {
            Ok(response) if answered(&response) == wanted => Ok(()),
            Ok(response) => Err(Not::Yet(answered(&response))),
            Err(error) => Err(Not::Yet(format!("{error:#}"))),
        }
    })
    .await
    .map_err(|error| mesh.with_logs(error))
}

/// Who answers for the one team and for the other.
pub(crate) const RECS: &str = "cluster-1/recs/recs";
pub(crate) const SITE: &str = "cluster-1/web/site";

/// R166, R186, R187, R190: who sees a virtual destination reaches it by its host, and for others it is not there.
#[tokio::test]
async fn clients_find_what_their_workspace_may_see() -> anyhow::Result<()> {
    let mesh = start("").await?;
    let [web, recs, ops, lab] =
        ["web/site-0", "recs/recs-0", "platform/ops-0", "lab/lab-0"].map(|pod| address(&mesh, pod));
    let (web, recs, ops, lab) = (web?, recs?, ops?, lab?);
    gets(&mesh, 80, web, "recs.mesh", RECS).await?;
    let stranger = mesh.free_address("cluster-1")?;
    for (who, host, wanted) in [
        (web, "recs.mesh", RECS),
        (web, "RECS.mesh:80", RECS),
        (web, "site.mesh", SITE),
        (recs, "recs.mesh", RECS),
        (recs, "site.mesh", "404"),
        // Not imported, though exported.
        (ops, "recs.mesh", "404"),
        (lab, "recs.mesh", "404"),
        (stranger, "recs.mesh", "404"),
        (stranger, "site.mesh", "404"),
        (web, "other.mesh", "404"),
    ] {
        let request = Request::get(host, "/");
        let response = send(&mesh, 80, who, &request).await?;
        ensure!(answered(&response) == wanted, "{host} from {who}: {}, expected {wanted}", answered(&response));
        // What anybody writes himself says nothing, on HTTP/1.1 under every spelling.
        for (name, value) in [
            (TAG, "web/web/default"),
            ("X-Chancery-Client", "recs/recs/default"),
            ("x-forwarded-for", &*web.to_string()),
            ("x-forwarded-for", &*recs.to_string()),
            ("x-envoy-external-address", &*web.to_string()),
            ("x-real-ip", &*web.to_string()),
        ] {
            let response = send(&mesh, 80, who, &request.clone().header(name, value)).await?;
            let found = answered(&response);
            ensure!(found == wanted, "{host} from {who} with {name}: {value}: {found}, expected {wanted}");
        }
        // `explain` knows it beforehand.
        let gateway = east(&mesh)?.gateway.id();
        let told = chancery::explain_for(mesh.directory(), &mesh.settings, &gateway, 80, &who.to_string(), &request)?;
        let told = match told.pointer("/outcome/status").and_then(Value::as_u64) {
            Some(status) => status.to_string(),
            None => match text(&told, "/route/chain/0") {
                "recs/recs:port-80" => RECS.to_owned(),
                "web/site:port-80" => SITE.to_owned(),
                other => other.to_owned(),
            },
        };
        ensure!(told == wanted, "explain {host} from {who}: {told}, expected {wanted}");
    }
    // No upstream sees who a client is.
    let forged = Request::get("recs.mesh", "/").header(TAG, "x");
    let echo: Echo = serde_json::from_value(send(&mesh, 80, web, &forged).await?.json()?)?;
    ensure!(!echo.headers.contains_key(TAG), "{:?}", echo.headers);
    ensure!(echo.host == "recs.mesh", "{}", echo.host);
    Ok(())
}

/// Whose Pods may be told from gateways: `lab` is somebody's, who has an external service of the host of `recs`, at the gateway
/// itself, whose own team sees `recs`.
const HAIRPIN: &str = "
apiVersion: admin.gloo.solo.io/v2
kind: Workspace
metadata: {name: lab, namespace: gloo-mesh, annotations: {in: mgmt}}
spec: {workloadClusters: [{name: cluster-1, namespaces: [{name: lab}]}]}
---
apiVersion: admin.gloo.solo.io/v2
kind: WorkspaceSettings
metadata: {name: platform, namespace: platform}
spec: {importFrom: [{workspaces: [{name: recs}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: east-0, namespace: platform, labels: {app: east}}
status: {phase: Running, podIPs: [{ip: 10.1.0.15}]}
---
apiVersion: networking.gloo.solo.io/v2
kind: ExternalService
metadata: {name: hop, namespace: lab}
spec: {hosts: [recs.mesh], selector: {hop: 'yes'}, ports: [{number: 80, targetPort: {number: 8080}, protocol: HTTP}]}
---
apiVersion: networking.gloo.solo.io/v2
kind: ExternalEndpoint
metadata: {name: hop, namespace: lab, labels: {hop: 'yes'}}
spec: {address: 10.1.0.99, ports: [{number: 8080}]}
";

/// R45, R186: who makes a gateway send to itself is not the gateway's team there.
#[tokio::test]
async fn a_request_that_a_gateway_sends_to_itself_is_nobodys() -> anyhow::Result<()> {
    let mut mesh = start(HAIRPIN).await?;
    let (lab, at) = (address(&mesh, "lab/lab-0")?, east(&mesh)?.address(80)?);
    // What Envoy sends to its own host comes from there.
    let source = |pod: &mut Value| pod["status"]["podIPs"] = json!([{"ip": "127.0.0.1"}]);
    mesh.edit("Pod/platform/east-0@cluster-1", source)?;
    mesh.edit("ExternalService/lab/hop@cluster-1", |service| {
        service["spec"]["ports"][0]["targetPort"] = json!({"number": at.port()});
    })?;
    mesh.edit("ExternalEndpoint/lab/hop@cluster-1", |endpoint| {
        endpoint["spec"] = json!({"address": at.ip().to_string(), "ports": [{"number": at.port()}]});
    })?;
    until(PATIENCE, "the gateway to refuse what it sends itself", async || {
        let response = send(&mesh, 80, lab, &Request::get("recs.mesh", "/")).await;
        let response = response.map_err(|error| Not::Yet(format!("{error:#}")))?;
        // Envoy says so of what somebody else answered.
        let was_sent = response.header("x-envoy-upstream-service-time").is_some();
        match answered(&response).as_str() {
            "404" if was_sent => Ok(()),
            RECS => Err(Not::Ever("who is nobody is let in".to_owned())),
            other => Err(Not::Yet(format!("{other} {:?}", response.headers))),
        }
    })
    .await
    .map_err(|error| mesh.with_logs(error))?;

    // The same from a Pod of that team which is no gateway.
    mesh.edit("Pod/platform/east-0@cluster-1", |pod| pod["metadata"]["labels"] = json!({"app": "other"}))?;
    gets(&mesh, 80, lab, "recs.mesh", RECS).await
}

/// What Envoy has of a listener, with its version and when it came.
async fn listeners(mesh: &Mesh) -> anyhow::Result<String> {
    east(mesh)?.envoy.admin("/config_dump?resource=dynamic_listeners").await
}

/// R187: Pods come and go, and no listener is another.
#[tokio::test]
async fn clients_come_and_go_without_another_listener() -> anyhow::Result<()> {
    let mut mesh = start("").await?;
    let web = address(&mesh, "web/site-0")?;
    gets(&mesh, 80, web, "recs.mesh", RECS).await?;
    let before = listeners(&mesh).await?;
    let (first, second) = (mesh.free_address("cluster-1")?, mesh.free_address("cluster-1")?);
    let move_to =
        |address: Ipv4Addr| move |pod: &mut Value| pod["status"]["podIPs"] = json!([{"ip": address.to_string()}]);
    // Moves, takes an address that was another workspace's, and ends.
    gets(&mesh, 80, first, "recs.mesh", "404").await?;
    mesh.edit("Pod/platform/ops-0@cluster-1", move_to(first))?;
    mesh.edit("Pod/web/site-0@cluster-1", move_to(second))?;
    gets(&mesh, 80, second, "recs.mesh", RECS).await?;
    gets(&mesh, 80, web, "recs.mesh", "404").await?;
    mesh.edit("Pod/recs/recs-0@cluster-1", move_to(web))?;
    gets(&mesh, 80, web, "recs.mesh", RECS).await?;
    gets(&mesh, 80, web, "site.mesh", "404").await?;
    mesh.edit("Pod/web/site-0@cluster-1", |pod| pod["status"]["phase"] = json!("Succeeded"))?;
    gets(&mesh, 80, second, "recs.mesh", "404").await?;
    // Two workspaces claim one address: nobody has it.
    mesh.edit("Pod/platform/ops-0@cluster-1", move_to(web))?;
    gets(&mesh, 80, web, "recs.mesh", "404").await?;
    mesh.edit("Pod/platform/ops-0@cluster-1", move_to(first))?;
    gets(&mesh, 80, web, "recs.mesh", RECS).await?;
    ensure!(listeners(&mesh).await? == before, "a listener is another");
    Ok(())
}

/// R186, R188: a virtual destination on a port of its own opens that port, and takes it along when it goes.
#[tokio::test]
async fn ports_open_as_they_come_into_use() -> anyhow::Result<()> {
    let mut mesh = start("").await?;
    let web = address(&mesh, "web/site-0")?;
    gets(&mesh, 80, web, "recs.mesh", RECS).await?;
    let more: SocketAddr = east(&mesh)?.address(9000)?;
    ensure!(tokio::net::TcpStream::connect(more).await.is_err(), "port 9000 is open before anybody uses it");
    let port = |number: u16| move |vd: &mut Value| vd["spec"]["ports"][0]["number"] = json!(number);
    mesh.edit("VirtualDestination/recs/recs@cluster-1", port(9000))?;
    gets(&mesh, 9000, web, "recs.mesh", RECS).await?;
    gets(&mesh, 80, web, "recs.mesh", "404").await?;
    gets(&mesh, 80, web, "site.mesh", SITE).await?;
    mesh.edit("VirtualDestination/recs/recs@cluster-1", port(80))?;
    gets(&mesh, 80, web, "recs.mesh", RECS).await?;
    Ok(())
}

/// R76, R166, R189: a table of clients takes a host over, with policies of its owner and of the destination's.
#[tokio::test]
async fn a_table_takes_a_host_over_for_those_who_see_it() -> anyhow::Result<()> {
    let further = "
apiVersion: networking.gloo.solo.io/v2
kind: RouteTable
metadata: {name: canary, namespace: web}
spec:
  hosts: [recs.mesh, web.only]
  http:
    - name: beta
      labels: {kind: beta}
      matchers: [{uri: {prefix: /beta}}]
      forwardTo: {destinations: [{ref: {name: site}, port: {number: 8080}}]}
    - name: rest
      forwardTo: {destinations: [{ref: {name: recs, namespace: recs}, kind: VIRTUAL_DESTINATION, port: {number: 80}}]}
---
apiVersion: trafficcontrol.policy.gloo.solo.io/v2
kind: HeaderManipulationPolicy
metadata: {name: beta, namespace: web}
spec:
  applyToRoutes: [{route: {labels: {kind: beta}}}]
  config: {appendResponseHeaders: {x-beta: 'yes'}}
";
    let mut mesh = start(further).await?;
    let (web, recs) = (address(&mesh, "web/site-0")?, address(&mesh, "recs/recs-0")?);
    gets(&mesh, 80, web, "web.only", RECS).await?;
    for (who, host, path, wanted, has_header) in [
        (web, "recs.mesh", "/", RECS, false),
        (web, "recs.mesh", "/beta", SITE, true),
        (recs, "recs.mesh", "/beta", RECS, false),
        (recs, "web.only", "/", "404", false),
    ] {
        let response = send(&mesh, 80, who, &Request::get(host, path)).await?;
        ensure!(answered(&response) == wanted, "{host}{path} from {who}: {}", answered(&response));
        ensure!(response.header("x-beta").is_some() == has_header, "{host}{path} from {who}: {:?}", response.headers);
    }
    // Whoever sees the table has it, and it goes with its object.
    let file = mesh.manifests.iter().position(|manifest| manifest.name() == "canary").context("no table")?;
    std::fs::remove_file(&mesh.files[file])?;
    gets(&mesh, 80, web, "web.only", "404").await?;
    gets(&mesh, 80, web, "recs.mesh", RECS).await?;
    mesh.edit("VirtualDestination/recs/recs@cluster-1", |vd| vd["spec"]["hosts"] = json!(["new.mesh"]))?;
    gets(&mesh, 80, web, "new.mesh", RECS).await?;
    gets(&mesh, 80, web, "recs.mesh", "404").await
}

/// R205: a policy for a destination judges the Pod behind the address, and a gateway's own account lets no client in.
#[tokio::test]
async fn an_access_policy_judges_the_pod_behind_the_address() -> anyhow::Result<()> {
    let further = "
apiVersion: security.policy.gloo.solo.io/v2
kind: AccessPolicy
metadata: {name: recs, namespace: recs}
spec:
  applyToDestinations: [{selector: {name: recs}}]
  config: {authz: {allowedClients: [{serviceAccountSelector: {name: shop, namespace: web, cluster: cluster-1}}]}}
";
    let mut mesh = start(further).await?;
    let (web, recs) = (address(&mesh, "web/site-0")?, address(&mesh, "recs/recs-0")?);
    gets(&mesh, 80, web, "recs.mesh", "403").await?;
    gets(&mesh, 80, recs, "recs.mesh", "403").await?;
    let account = |name: &'static str| move |pod: &mut Value| pod["spec"] = json!({"serviceAccountName": name});
    mesh.edit("Pod/web/site-0@cluster-1", account("shop"))?;
    gets(&mesh, 80, web, "recs.mesh", RECS).await?;
    // The same name in another namespace is another account.
    mesh.edit("Pod/recs/recs-0@cluster-1", account("shop"))?;
    gets(&mesh, 80, recs, "site.mesh", "404").await?;
    gets(&mesh, 80, recs, "recs.mesh", "403").await?;
    for name in [TAG, "x-forwarded-for"] {
        let forged = Request::get("recs.mesh", "/").header(name, "web/web/shop");
        let response = send(&mesh, 80, recs, &forged).await?;
        ensure!(response.status == 403, "{name}: {}", response.status);
    }
    mesh.edit("AccessPolicy/recs/recs@cluster-1", |policy| {
        policy["spec"]["config"]["authz"]["allowedClients"] =
            json!([{"serviceAccountSelector": {"name": "default", "namespace": "platform", "cluster": "cluster-1"}}]);
    })?;
    // The gateway runs as that account, and is not the client.
    gets(&mesh, 80, web, "recs.mesh", "403").await
}

/// R188: whole connections are told apart by who opens them, and one that is open stays while clients come and go.
#[tokio::test]
async fn whole_connections_go_where_their_workspace_says() -> anyhow::Result<()> {
    let mut mesh = start(WHOLE).await?;
    let (web, recs, ops) =
        (address(&mesh, "web/site-0")?, address(&mesh, "recs/recs-0")?, address(&mesh, "platform/ops-0")?);
    gets(&mesh, 9000, web, "any.example", RECS).await?;
    gets(&mesh, 9000, recs, "any.example", RECS).await?;
    gets(&mesh, 9000, ops, "any.example", SITE).await?;
    let stranger = mesh.free_address("cluster-1")?;
    let refused = send(&mesh, 9000, stranger, &Request::get("any.example", "/")).await;
    ensure!(refused.is_err(), "a stranger gets {refused:?}");
    // A connection that is open now, and is used after others came.
    let mut open = Client::from(web, east(&mesh)?.address(9000)?);
    let first = open.send(&Request::get("any.example", "/")).await?;
    ensure!(answered(&first) == RECS, "{}", answered(&first));
    mesh.edit("Pod/platform/ops-0@cluster-1", |pod| {
        pod["status"]["podIPs"] = json!([{"ip": stranger.to_string()}]);
    })?;
    gets(&mesh, 9000, stranger, "any.example", SITE).await?;
    let refused = send(&mesh, 9000, ops, &Request::get("any.example", "/")).await;
    ensure!(refused.is_err(), "an address that was given back gets {refused:?}");
    let second = open.send(&Request::get("any.example", "/")).await?;
    ensure!(answered(&second) == RECS, "{}", answered(&second));
    let stats = east(&mesh)?.envoy.stats("listener_manager").await?;
    let count = |name: &str| stats.get(&format!("listener_manager.{name}")).copied().unwrap_or_default();
    ensure!(count("listener_modified") > 0, "{stats:?}");
    ensure!(count("listener_in_place_updated") == count("listener_modified"), "{stats:?}");
    ensure!(count("total_listeners_draining") == 0, "{stats:?}");
    Ok(())
}

/// R153, R155, R158: a federated Service has a host in its cluster, and federation that is switched off takes it away.
#[tokio::test]
async fn a_federated_service_has_a_host() -> anyhow::Result<()> {
    let mut mesh = start("").await?;
    let (web, ops) = (address(&mesh, "web/site-0")?, address(&mesh, "platform/ops-0")?);
    gets(&mesh, 80, web, "recs.mesh", RECS).await?;
    let host = "recs.recs.svc.cluster-1.global";
    let port = |number: u16| {
        move |service: &mut Value| {
            service["spec"]["ports"][0]["port"] = json!(number);
        }
    };
    mesh.edit("Service/recs/recs@cluster-1", port(9000))?;
    mesh.edit("WorkspaceSettings/recs/recs@cluster-1", |settings| {
        settings["spec"]["options"] = json!({"federation": {"enabled": true, "hostSuffix": "global"}});
    })?;
    gets(&mesh, 9000, web, host, RECS).await?;
    gets(&mesh, 9000, ops, host, "404").await?;
    mesh.edit("WorkspaceSettings/recs/recs@cluster-1", |settings| settings["spec"]["options"] = json!({}))?;
    until(PATIENCE, "a closed port", async || {
        let response = send(&mesh, 9000, web, &Request::get(host, "/")).await;
        response.map_or(Ok(()), |response| Err(Not::Yet(answered(&response))))
    })
    .await
}
