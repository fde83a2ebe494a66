//! Identities of gateways on real ones: who is shown what, who is let in, and what survives.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
    date_time_ymd,
};
use serde_json::{Value, json};

use crate::support::chancery::{self, Settings};
use crate::support::http::{Client, Protocol, Request, get};
use crate::support::manifests::{self, Manifest};
use crate::support::tls::{Dial, Pair};
use crate::support::wait::{Not, PATIENCE, until};
use crate::support::world::Mesh;
use crate::support::yaml;

/// Two gateways. `web` shows its own identity on two ports, of which one lets in one other gateway only; `other` has no part
/// in it. A Pod says as whom `web` runs.
pub(crate) const WORLD: &str = "
apiVersion: admin.gloo.solo.io/v2
kind: KubernetesCluster
metadata: {name: cluster-1, namespace: gloo-mesh, annotations: {in: mgmt}}
---
apiVersion: admin.gloo.solo.io/v2
kind: Workspace
metadata: {name: team, namespace: gloo-mesh, annotations: {in: mgmt}}
spec: {workloadClusters: [{name: cluster-1, namespaces: [{name: edge}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: edge}
spec:
  selector: {app: web}
  ports:
    - {name: http, port: 80, targetPort: 8080}
    - {name: https, port: 443, targetPort: 8443}
    - {name: picky, port: 444, targetPort: 8444}
---
apiVersion: v1
kind: Pod
metadata: {name: web-7, namespace: edge, labels: {app: web}}
spec: {serviceAccountName: front-door}
---
apiVersion: v1
kind: Service
metadata: {name: other, namespace: edge}
spec: {selector: {app: other}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: networking.gloo.solo.io/v2
kind: VirtualGateway
metadata: {name: web, namespace: edge}
spec:
  workloads: [{selector: {labels: {app: web}}}]
  listeners:
    - {http: {}, port: {number: 80}}
    - {http: {}, port: {number: 443}, tls: {mode: ISTIO_MUTUAL}}
    - {http: {}, port: {number: 444}, tls: {mode: ISTIO_MUTUAL, verifySubjectAltName: ['spiffe://cluster-2/ns/edge/sa/friend']}}
---
apiVersion: networking.gloo.solo.io/v2
kind: VirtualGateway
metadata: {name: other, namespace: edge}
spec: {workloads: [{selector: {labels: {app: other}}}], listeners: [{http: {}, port: {number: 80}}]}
---
apiVersion: networking.gloo.solo.io/v2
kind: RouteTable
metadata: {name: shop, namespace: edge}
spec:
  hosts: [shop.example]
  virtualGateways: [{name: web, namespace: edge}, {name: other, namespace: edge}]
  http: [{name: all, directResponse: {status: 200}}]
";

const SECRET: &str = "Secret/gloo-mesh/ca@mgmt";
const POLICY: &str = "RootTrustPolicy/gloo-mesh/root@mgmt";
const OWN: &str = "spiffe://cluster-1/ns/edge/sa/front-door";
const FRIEND: &str = "spiffe://cluster-2/ns/edge/sa/friend";
const STRANGER: &str = "spiffe://cluster-2/ns/edge/sa/stranger";

/// A root, and what it signs.
pub(crate) struct Root {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Root {
    pub(crate) fn new(name: &str) -> anyhow::Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?;
        Ok(Self { certificate: params.self_signed(&key)?.pem(), key: key.serialize_pem() })
    }

    /// One that this one signs, from when to when in seconds since 1970.
    pub(crate) fn between(&self, lasts: (i64, i64)) -> anyhow::Result<Self> {
        let mut params = lasting(lasts)?;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "between");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate()?;
        let issuer = Issuer::from_ca_cert_pem(&self.certificate, KeyPair::from_pem(&self.key)?)?;
        Ok(Self { certificate: params.signed_by(&key, &issuer)?.pem(), key: key.serialize_pem() })
    }

    /// The one that a control plane keeps.
    pub(crate) fn kept(state: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(state.join("root.pem")).context("the kept root")?;
        let (certificate, key) = text.split_at(text.find("-----BEGIN PRIVATE KEY").context("no key")?);
        Ok(Self { certificate: certificate.to_owned(), key: key.to_owned() })
    }

    pub(crate) fn secret(&self, name: &str) -> Manifest {
        place(json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": {"name": name, "namespace": "gloo-mesh", "annotations": {"in": "mgmt"}},
            "stringData": {"ca-cert.pem": self.certificate, "ca-key.pem": self.key, "root-cert.pem": self.certificate},
        }))
    }

    fn sign(&self, name: SanType, mut params: CertificateParams) -> anyhow::Result<Pair> {
        params.subject_alt_names = vec![name];
        let key = KeyPair::generate()?;
        let issuer = Issuer::from_ca_cert_pem(&self.certificate, KeyPair::from_pem(&self.key)?)?;
        Ok(Pair { certificate: params.signed_by(&key, &issuer)?.pem(), key: key.serialize_pem() })
    }

    /// A certificate as gateways have it.
    pub(crate) fn identity(&self, uri: &str) -> anyhow::Result<Pair> {
        self.sign(SanType::URI(uri.try_into()?), CertificateParams::default())
    }

    /// The same, from when to when in seconds since 1970.
    pub(crate) fn identity_lasting(&self, uri: &str, lasts: (i64, i64)) -> anyhow::Result<Pair> {
        self.sign(SanType::URI(uri.try_into()?), lasting(lasts)?)
    }
}

/// What holds from one moment to another, in seconds since 1970.
fn lasting((begins, ends): (i64, i64)) -> anyhow::Result<CertificateParams> {
    let at = |seconds: i64| anyhow::Ok(date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds.try_into()?));
    let mut params = CertificateParams::default();
    (params.not_before, params.not_after) = (at(begins)?, at(ends)?);
    Ok(params)
}

pub(crate) fn place(object: Value) -> Manifest {
    let cluster = object.pointer("/metadata/annotations/in").and_then(Value::as_str).unwrap_or("cluster-1").to_owned();
    Manifest { cluster, object }
}

pub(crate) fn policy(authority: &Value) -> Manifest {
    place(json!({
        "apiVersion": "admin.gloo.solo.io/v2", "kind": "RootTrustPolicy",
        "metadata": {"name": "root", "namespace": "gloo-mesh", "annotations": {"in": "mgmt"}},
        "spec": {"config": {"mgmtServerCa": authority}},
    }))
}

async fn start(further: Vec<Manifest>) -> anyhow::Result<Mesh> {
    let mut manifests: Vec<Manifest> = yaml::documents(WORLD)?.into_iter().map(place).collect();
    manifests.extend(further);
    Mesh::start(manifests, Settings::default()).await
}

fn web(mesh: &Mesh, port: u16) -> anyhow::Result<SocketAddr> {
    mesh.gateways.iter().find(|running| running.gateway.service == "web").context("no gateway")?.address(port)
}

/// One request on a connection of its own.
async fn request(mesh: &Mesh, port: u16, root: &Root, shows: Option<&Pair>) -> anyhow::Result<u16> {
    let dial = Dial::under(&root.certificate, shows)?;
    let mut client = Client::with_tls(web(mesh, port)?, Protocol::Http1, dial);
    Ok(client.send(&Request::get("shop.example", "/")).await?.status)
}

/// Waits until a gateway that is under a root is let in by one that is under the same.
async fn is_in(mesh: &Mesh, root: &Root, shows: &Pair) -> anyhow::Result<()> {
    until(PATIENCE, "a request with an identity", async || match request(mesh, 443, root, Some(shows)).await {
        Ok(200) => Ok(()),
        Ok(status) => Err(Not::Yet(status.to_string())),
        Err(error) => Err(Not::Yet(format!("{error:#}"))),
    })
    .await
    .map_err(|error| mesh.with_logs(error))
}

/// Waits until nobody is let in.
async fn is_closed(mesh: &Mesh, root: &Root, shows: &Pair) -> anyhow::Result<()> {
    until(PATIENCE, "a closed port", async || match request(mesh, 443, root, Some(shows)).await {
        Ok(status) => Err(Not::Yet(status.to_string())),
        Err(_) => Ok(()),
    })
    .await
}

async fn is_refused(mesh: &Mesh, port: u16, root: &Root, shows: Option<&Pair>, who: &str) -> anyhow::Result<()> {
    let answer = request(mesh, port, root, shows).await;
    ensure!(answer.is_err(), "{who} gets in: {answer:?}");
    Ok(())
}

pub(crate) fn from_secret() -> Value {
    json!({"secretRef": {"name": "ca"}})
}

#[tokio::test(flavor = "multi_thread")]
async fn r58_r193_gateways_of_one_root_know_each_other_and_nobody_else() -> anyhow::Result<()> {
    let (root, foreign) = (Root::new("root")?, Root::new("foreign")?);
    let mesh = start(vec![root.secret("ca"), policy(&from_secret())]).await?;
    let (friend, stranger) = (root.identity(FRIEND)?, root.identity(STRANGER)?);
    is_in(&mesh, &root, &friend).await?;

    // It is who its Pod says, and nothing else.
    let dial = Dial::under(&root.certificate, Some(&friend))?;
    assert_eq!(dial.uris(web(&mesh, 443)?).await?, [OWN]);

    assert_eq!(request(&mesh, 443, &root, Some(&stranger)).await?, 200, "any identity under the root");
    is_refused(&mesh, 443, &root, None, "a client without a certificate").await?;
    is_refused(&mesh, 443, &root, Some(&foreign.identity(FRIEND)?), "another root's gateway").await?;
    let host = root.sign(SanType::DnsName("friend.example".try_into()?), CertificateParams::default())?;
    is_refused(&mesh, 443, &root, Some(&host), "what the root signed for something else").await?;
    is_refused(&mesh, 443, &foreign, Some(&friend), "a client that trusts another root").await?;
    ensure!(get(web(&mesh, 443)?, "shop.example", "/").await.is_err(), "plaintext on the TLS port");

    // `verifySubjectAltName` narrows it.
    assert_eq!(request(&mesh, 444, &root, Some(&friend)).await?, 200);
    is_refused(&mesh, 444, &root, Some(&stranger), "a gateway that is not named").await?;

    // The other gateway has none of it.
    for running in &mesh.gateways {
        let dump = running.envoy.admin("/config_dump?resource=dynamic_active_secrets").await?;
        assert_eq!(dump.contains("trust/"), running.gateway.service == "web", "{}", running.gateway.id());
    }
    Ok(())
}

/// A company signs for the mesh, and keeps the key of its root to itself.
#[tokio::test(flavor = "multi_thread")]
async fn r191_what_stands_between_is_shown() -> anyhow::Result<()> {
    let root = Root::new("company")?;
    let mut secret = root.between((0, 4_102_444_800))?.secret("ca");
    secret.object["stringData"]["root-cert.pem"] = json!(root.certificate);
    let mesh = start(vec![secret, policy(&from_secret())]).await?;
    let friend = root.identity(FRIEND)?;
    is_in(&mesh, &root, &friend).await?;
    assert_eq!(Dial::under(&root.certificate, Some(&friend))?.uris(web(&mesh, 443)?).await?, [OWN]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r191_a_generated_root_survives_a_restart() -> anyhow::Result<()> {
    let mut mesh = start(vec![policy(&json!({"generated": {"rsaKeySizeBytes": 2048}}))]).await?;
    let file = mesh.chancery.state().join("root.pem");
    assert_eq!(std::fs::metadata(&file)?.permissions().mode() & 0o777, 0o600);
    let root = Root::kept(&mesh.chancery.state())?;
    let friend = root.identity(FRIEND)?;
    is_in(&mesh, &root, &friend).await?;

    mesh.chancery.restart().await?;
    let again = Root::kept(&mesh.chancery.state())?;
    assert_eq!((again.certificate, &again.key), (root.certificate.clone(), &root.key));
    let admin = mesh.chancery.admin();
    let headers = vec![("x-chancery".to_owned(), "1".to_owned())];
    let everything =
        Request { method: "POST".to_owned(), headers, ..Request::get("localhost", "/logging?filter=trace") };
    assert_eq!(Client::new(admin).send(&everything).await?.status, 200);
    // An Envoy that comes now has what the others have.
    let running = mesh.gateways.iter().position(|running| running.gateway.service == "web").context("no gateway")?;
    let (gateway, bind) = (mesh.gateways[running].gateway.clone(), mesh.gateways[running].bind);
    drop(mesh.gateways.remove(running));
    let fresh = crate::support::world::RunningGateway::start(gateway, bind, mesh.chancery.xds()).await?;
    mesh.gateways.push(fresh);
    is_in(&mesh, &root, &friend).await?;

    // The key is in that file and nowhere else.
    let secret = root.key.lines().nth(1).context("no key")?.to_owned();
    let directory = mesh.directory().to_string_lossy().into_owned();
    let server = format!("http://{admin}");
    for arguments in [
        vec!["check", &directory],
        vec!["render", &directory, "--gateway", "cluster-1/edge/web"],
        vec!["explain", &directory, POLICY],
        vec!["status", "--server", &server, "-o", "json"],
        vec!["explain", "--server", &server, POLICY, "-o", "json"],
    ] {
        let mut command = Command::new(chancery::binary()?);
        command.args(&arguments);
        if arguments[1] == directory {
            command.args(["--management-cluster", "mgmt", "--allow-loopback-endpoints"]);
        }
        let output = command.output().context("run chancery")?;
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        ensure!(!said.is_empty() && !said.contains(&secret) && !said.contains("PRIVATE KEY"), "{arguments:?}: {said}");
        ensure!(arguments[0] != "render" || said.contains("trust/identity"), "{said}");
    }
    let metrics = get(admin, "localhost", "/metrics").await?.text();
    ensure!(metrics.contains("chancery_xds") && !metrics.contains(&secret), "{metrics}");
    let log = mesh.chancery.log()?;
    ensure!(log.contains("\"level\":\"trace\""), "serve logs nothing at trace");
    ensure!(!log.contains(&secret) && !log.contains("PRIVATE KEY"), "a key is in the log");
    for entry in std::fs::read_dir(mesh.chancery.state())? {
        let path = entry?.path();
        let holds = std::fs::read_to_string(&path)?.contains(&secret);
        assert_eq!(holds, path == file, "{}", path.display());
    }
    Ok(())
}

/// First trust both, then sign with the new one, then drop the old one.
#[tokio::test(flavor = "multi_thread")]
async fn r191_a_root_is_replaced_without_shutting_anybody_out() -> anyhow::Result<()> {
    let (old, new) = (Root::new("old")?, Root::new("new")?);
    let mut mesh = start(vec![old.secret("ca"), new.secret("next"), policy(&from_secret())]).await?;
    let (before, after) = (old.identity(FRIEND)?, new.identity(FRIEND)?);
    is_in(&mesh, &old, &before).await?;
    is_refused(&mesh, 443, &old, Some(&after), "a gateway under a root that is not trusted yet").await?;

    let trust = |own: &str, other: &str| {
        json!({
            "mgmtServerCa": {"secretRef": {"name": own}},
            "passiveCertificateAuthorities": [{"secretRef": {"name": other}}],
        })
    };
    mesh.edit(POLICY, |object| object["spec"]["config"] = trust("ca", "next"))?;
    is_in(&mesh, &old, &after).await?;
    assert_eq!(request(&mesh, 443, &old, Some(&before)).await?, 200);

    mesh.edit(POLICY, |object| object["spec"]["config"] = trust("next", "ca"))?;
    is_in(&mesh, &new, &before).await?;
    assert_eq!(request(&mesh, 443, &new, Some(&after)).await?, 200);

    mesh.edit(POLICY, |object| object["spec"]["config"] = json!({"mgmtServerCa": {"secretRef": {"name": "next"}}}))?;
    is_closed(&mesh, &new, &before).await?;
    assert_eq!(request(&mesh, 443, &new, Some(&after)).await?, 200);
    for running in &mesh.gateways {
        let updates = running.envoy.stats("listener_manager.listener_modified").await?;
        assert_eq!(updates.values().sum::<u64>(), 0, "a root changes no listener");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r191_a_broken_root_closes_what_needs_it_and_nothing_else() -> anyhow::Result<()> {
    let (root, other) = (Root::new("root")?, Root::new("other")?);
    let mut mesh = start(vec![root.secret("ca"), policy(&from_secret())]).await?;
    let friend = root.identity(FRIEND)?;
    is_in(&mesh, &root, &friend).await?;
    let plain = web(&mesh, 80)?;

    mesh.edit(SECRET, |object| object["stringData"]["ca-key.pem"] = json!(other.key))?;
    is_closed(&mesh, &root, &friend).await?;
    assert_eq!(get(plain, "shop.example", "/").await?.status, 200);
    ensure!(get(web(&mesh, 443)?, "shop.example", "/").await.is_err(), "plaintext in place of TLS");
    let (report, _) = chancery::check(mesh.directory(), &mesh.settings)?;
    let said = report.to_string();
    ensure!(said.contains("the key in `ca-key.pem` is not that of the first certificate in `ca-cert.pem`"), "{said}");
    ensure!(!said.contains("BEGIN"), "a secret is quoted: {said}");

    mesh.edit(SECRET, |object| object["stringData"]["ca-key.pem"] = json!(root.key))?;
    is_in(&mesh, &root, &friend).await?;

    // A second, younger policy changes nothing, whatever it says.
    let mut second = policy(&json!({"generated": {}}));
    second.object["metadata"]["name"] = json!("second");
    manifests::write(mesh.directory(), &[second])?;
    let (report, _) = chancery::check(mesh.directory(), &mesh.settings)?;
    ensure!(report.to_string().contains("BEATEN_BY_OLDER"), "{report}");
    assert_eq!(request(&mesh, 443, &root, Some(&friend)).await?, 200);
    Ok(())
}
