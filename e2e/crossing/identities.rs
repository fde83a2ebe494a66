//! Identities between clusters: replaced under load, and refused with a reason when they have ended or not begun.

use std::net::SocketAddr;

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use super::{CART, WEB, answer_from, answers, ask, gateway, start_with};
use crate::support::chancery;
use crate::support::http::{Client, Protocol, Request};
use crate::support::issuer::now;
use crate::support::load::{Lasts, Load, Pace};
use crate::support::manifests::{self, list, text};
use crate::support::tls::{Dial, TlsFront};
use crate::support::wait::{Not, PATIENCE, until};
use crate::support::world::{Mesh, Speech};
use crate::trust::Root;

const POLICY: &str = "RootTrustPolicy/gloo-mesh/root@mgmt";
const SECRET: &str = "Secret/gloo-mesh/ca@mgmt";

/// A day, in seconds.
const DAY: i64 = 86_400;

/// Whole connections to what is in `cluster-2` alone: each that a client opens is one more between the gateways, with a handshake
/// of its own.
const RAW: &str = "
apiVersion: networking.gloo.solo.io/v2
kind: VirtualGateway
metadata: {name: raw, namespace: apps}
spec: {workloads: [{selector: {labels: {app: web}}}], listeners: [{tcp: {}, port: {number: 9000}}]}
---
apiVersion: v1
kind: Service
metadata: {name: queue, namespace: apps, labels: {app: queue}, annotations: {in: cluster-2}}
spec: {ports: [{name: tcp, port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: queue-1, namespace: apps, labels: {kubernetes.io/service-name: queue}, annotations: {in: cluster-2}}
ports: [{name: tcp, port: 9081}]
endpoints: [{addresses: [10.2.0.21], targetRef: {kind: Pod, name: queue-0}}]
---
apiVersion: networking.gloo.solo.io/v2
kind: VirtualDestination
metadata: {name: queue, namespace: apps}
spec: {services: [{labels: {app: queue}}], ports: [{number: 9000, protocol: TCP, targetPort: {number: 80}}]}
---
apiVersion: networking.gloo.solo.io/v2
kind: RouteTable
metadata: {name: raw, namespace: apps}
spec:
  hosts: [queue.example]
  virtualGateways: [{name: raw, namespace: apps}]
  tcp: [{forwardTo: {destinations: [{ref: {name: queue, namespace: apps}, kind: VIRTUAL_DESTINATION, port: {number: 9000}}]}}]
";

/// Where whole connections come in.
fn raw(mesh: &Mesh) -> anyhow::Result<SocketAddr> {
    mesh.gateways.iter().find(|running| running.gateway.service == "web").context("no gateway")?.address(9000)
}

async fn start(root: &Root) -> anyhow::Result<Mesh> {
    let mesh = start_with(root, RAW, &Speech::default()).await?;
    answer_from(&mesh, "/", &["cluster-1", "cluster-2"]).await?;
    answer_from(&mesh, "/there", &["cluster-2"]).await?;
    connects(&mesh).await?;
    Ok(mesh)
}

/// Waits until a whole connection gets through to the other cluster.
async fn connects(mesh: &Mesh) -> anyhow::Result<()> {
    let address = raw(mesh)?;
    until(PATIENCE, "a connection to the other cluster", async || {
        match Client::new(address).send(&Request::get("queue.example", "/")).await {
            Ok(answer) if answer.status == 200 => Ok(()),
            other => Err(Not::Yet(format!("{other:?}"))),
        }
    })
    .await
    .map_err(|error| mesh.with_logs(error))
}

/// Waits until none does.
async fn is_cut(mesh: &Mesh) -> anyhow::Result<()> {
    let address = raw(mesh)?;
    until(PATIENCE, "no connection to the other cluster", async || {
        match Client::new(address).send(&Request::get("queue.example", "/")).await {
            Ok(answer) => Err(Not::Yet(answer.text())),
            Err(_) => Ok(()),
        }
    })
    .await
    .map_err(|error| mesh.with_logs(error))
}

/// Requests to both clusters, and whole connections to the other one, of which none may fail.
struct Both {
    requests: Load,
    connections: Load,
}

impl Both {
    fn start(mesh: &Mesh) -> anyhow::Result<Self> {
        let (web, raw) = (gateway(mesh, "web")?, raw(mesh)?);
        let paths = ["/", "/two", "/there"].map(|path| Request::get("shop.example", path)).to_vec();
        let requests = Load::start(web, 4, Pace::PerSecond(60), paths, |_, response| {
            ensure!(response.status == 200, "{} {}", response.status, response.text());
            Ok(())
        });
        let whole = vec![Request::get("queue.example", "/")];
        let client = move || Client::new(raw);
        let connections = Load::start_with(client, Lasts::OneRequest, 4, Pace::PerSecond(60), whole, |_, response| {
            ensure!(response.status == 200, "{} {}", response.status, response.text());
            Ok(())
        });
        Ok(Self { requests, connections })
    }

    async fn goes_on(&self) -> anyhow::Result<()> {
        self.requests.goes_on(30).await?;
        self.connections.goes_on(30).await
    }

    async fn end(self) -> anyhow::Result<()> {
        self.requests.end().await.context("requests")?;
        self.connections.end().await.context("whole connections").map(drop)
    }
}

/// The versions of a secret that the gateways hold, in their order.
async fn held(mesh: &Mesh, secret: &str) -> anyhow::Result<Vec<String>> {
    let mut versions = Vec::new();
    for running in &mesh.gateways {
        let dump = running.envoy.admin("/config_dump?resource=dynamic_active_secrets").await?;
        let dump: Value = serde_json::from_str(&dump)?;
        let found = list(&dump, "/configs").iter().find(|entry| text(entry, "/name") == secret);
        let found = found.with_context(|| format!("{} has no {secret}", running.gateway.id()))?;
        versions.push(text(found, "/version_info").to_owned());
    }
    Ok(versions)
}

/// Waits until all gateways hold another version of a secret than they did.
async fn is_replaced(mesh: &Mesh, secret: &str, before: &[String]) -> anyhow::Result<()> {
    until(PATIENCE, &format!("another {secret} everywhere"), async || match held(mesh, secret).await {
        Ok(held) if held.iter().zip(before).all(|(now, before)| now != before) => Ok(()),
        other => Err(Not::Yet(format!("{other:?}"))),
    })
    .await
    .map_err(|error| mesh.with_logs(error))
}

#[tokio::test(flavor = "multi_thread")]
async fn r191_a_root_is_replaced_under_load_and_no_request_fails() -> anyhow::Result<()> {
    let (old, new) = (Root::new("old")?, Root::new("new")?);
    let mut mesh = start(&old).await?;
    manifests::write(mesh.directory(), &[new.secret("next")])?;
    let load = Both::start(&mesh)?;
    load.goes_on().await?;
    let own = |name: &str| json!({"secretRef": {"name": name}});
    let steps = [
        ("trust/roots", json!({"mgmtServerCa": own("ca"), "passiveCertificateAuthorities": [own("next")]})),
        ("trust/identity", json!({"mgmtServerCa": own("next"), "passiveCertificateAuthorities": [own("ca")]})),
        ("trust/roots", json!({"mgmtServerCa": own("next")})),
    ];
    for (changes, config) in steps {
        let before = held(&mesh, changes).await?;
        mesh.edit(POLICY, |object| object["spec"]["config"] = config)?;
        is_replaced(&mesh, changes, &before).await?;
        load.goes_on().await?;
    }
    load.end().await.map_err(|error| mesh.with_logs(error))?;
    assert_eq!(ask(&mesh, CART, &new, Some(&new.identity(WEB)?)).await?, 200);
    let answer = ask(&mesh, CART, &new, Some(&old.identity(WEB)?)).await;
    ensure!(answer.is_err(), "an identity under the old root gets in: {answer:?}");
    Ok(())
}

/// The clock renews in the same way as another term does: by another version of the same secret.
#[tokio::test(flavor = "multi_thread")]
async fn r193_identities_are_renewed_under_load_and_no_request_fails() -> anyhow::Result<()> {
    let root = Root::new("root")?;
    let mut mesh = start(&root).await?;
    let dial = Dial::under(&root.certificate, Some(&root.identity(WEB)?))?.asking(Some(CART), Protocol::Http1)?;
    let load = Both::start(&mesh)?;
    load.goes_on().await?;
    for days in [90, 7, 1] {
        let before = held(&mesh, "trust/identity").await?;
        let shown = dial.certificate(gateway(&mesh, "ew")?).await?;
        mesh.edit(POLICY, |object| object["spec"]["config"]["intermediateCertOptions"] = json!({"ttlDays": days}))?;
        is_replaced(&mesh, "trust/identity", &before).await?;
        load.goes_on().await?;
        ensure!(dial.certificate(gateway(&mesh, "ew")?).await? != shown, "the gateway shows what it showed before");
    }
    load.end().await.map_err(|error| mesh.with_logs(error))?;
    for running in &mesh.gateways {
        let updates = running.envoy.stats("listener_manager.listener_modified").await?;
        assert_eq!(updates.values().sum::<u64>(), 0, "a renewal changes no listener");
    }
    Ok(())
}

/// Who has an identity that ended yesterday, or begins tomorrow because a clock is wrong, is told so in the handshake, on both
/// sides.
#[tokio::test(flavor = "multi_thread")]
async fn r181_r194_what_has_ended_or_not_begun_is_refused_in_the_handshake() -> anyhow::Result<()> {
    let root = Root::new("root")?;
    let mut mesh = start(&root).await?;
    let today = i64::try_from(now())?;
    let (ended, begins) = ((today - 2 * DAY, today - DAY), (today + DAY, today + 2 * DAY));
    for lasts in [ended, begins] {
        let shows = root.identity_lasting(WEB, lasts)?;
        let dial = Dial::under(&root.certificate, Some(&shows))?.asking(Some(CART), Protocol::Http1)?;
        let refused = dial.refusal(gateway(&mesh, "ew")?).await?;
        // TLS has one word for both.
        ensure!(refused.contains("CertificateExpired"), "{refused}");
    }
    let counted = mesh.gateways.iter().find(|running| running.gateway.service == "ew").context("no gateway")?;
    let counted = counted.envoy.stats("ssl.fail_verify_error").await?;
    ensure!(counted.values().sum::<u64>() >= 2, "{counted:?}");

    let backend = mesh.backends.iter().find(|backend| backend.identity.cluster == "cluster-2").context("no backend")?;
    let backend = backend.address;
    let server = "spiffe://cluster-2/ns/apps/sa/default";
    for lasts in [ended, begins] {
        let at = SocketAddr::from((mesh.free_address("cluster-2")?, 15_443));
        let front = TlsFront::start(at, &root.identity_lasting(server, lasts)?, backend).await?;
        mesh.edit("WorkspaceSettings/apps/team@cluster-1", |object| {
            object["spec"]["options"]["eastWestGateways"] = json!([{
                "selector": {"labels": {"istio": "eastwestgateway"}, "cluster": "cluster-2"},
                "hostInfoOverrides": [{"addr": at.ip().to_string(), "port": at.port()}],
            }]);
        })?;
        let told = until(PATIENCE, "the gateway to refuse the server", async || {
            let address = gateway(&mesh, "web").map_err(|error| error.to_string())?;
            let answer = Client::new(address).send(&Request::get("shop.example", "/there")).await;
            match front.refusals().pop() {
                Some(told) if answer.as_ref().is_ok_and(|answer| answer.status == 503) => Ok(told),
                told => Err(Not::Yet(format!("{answer:?} {told:?}"))),
            }
        })
        .await
        .map_err(|error| mesh.with_logs(error))?;
        ensure!(told.contains("CertificateExpired") && front.handshakes().is_empty(), "{told}");
    }
    Ok(())
}

/// What signs has ended, and with it all that it signed; or it begins tomorrow, because the clock here is wrong.
#[tokio::test(flavor = "multi_thread")]
async fn r191_a_signer_that_has_ended_or_not_begun_cuts_the_way_and_is_told() -> anyhow::Result<()> {
    let root = Root::new("root")?;
    let mut mesh = start(&root).await?;
    let today = i64::try_from(now())?;
    // One that ends while it is in use, and one that another clock made.
    let ends = root.between((today - DAY, today + 3))?;
    // Whoever got in before it ended could take up where he was: connections are opened all the time.
    let others = Both::start(&mesh)?;
    let begins = root.between((today + DAY, today + 2 * DAY))?;
    for (signer, told) in [(ends, "the certificate that signs ended at"), (begins, "look at the clock, or replace it")]
    {
        let mut secret = signer.secret("ca").object;
        secret["stringData"]["root-cert.pem"] = json!(root.certificate);
        mesh.edit(SECRET, |object| *object = secret)?;
        until(PATIENCE, told, async || {
            let status = chancery::status(mesh.chancery.admin()).map_err(|error| Not::Ever(format!("{error:#}")))?;
            let item = list(&status, "/items").iter().find(|item| text(item, "/object") == POLICY);
            let item = item.ok_or("nothing".to_owned())?;
            let is_told = text(item, "/approval") == "INVALID" && text(item, "/findings/0/message").contains(told);
            if is_told { Ok(()) } else { Err(Not::Yet(item.to_string())) }
        })
        .await
        .map_err(|error| mesh.with_logs(error))?;
        is_cut(&mesh).await?;
        others.connections.goes_on(10).await?;
        is_cut(&mesh).await?;
        // What crosses nothing goes on, and the way is open again once something else signs.
        until(PATIENCE, "answers of the own cluster", async || match answers(&mesh, "/").await {
            Ok(found) if found.contains_key("cluster-1") => Ok(()),
            other => Err(Not::Yet(format!("{other:?}"))),
        })
        .await?;
        let whole = root.secret("ca").object;
        mesh.edit(SECRET, |object| *object = whole)?;
        connects(&mesh).await?;
    }
    Ok(())
}
