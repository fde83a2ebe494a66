//! A small world with delegation: workspace `shop` owns the gateway and delegates everything to a table of workspace
//! `team`, whose backend counts. A test brings the routes and the policies.

use std::net::SocketAddr;

use anyhow::Context;
use serde_json::{Value, json};

use super::backend::{Backend, Echo};
use super::chancery::{self, Settings};
use super::http::{Client, Request, Response};
use super::manifests::{self, Manifest, by_annotation, list, text};
use super::two_teams::TWO_TEAMS;
use super::wait::{Not, PATIENCE, until};
use super::world::{Mesh, Speech};
use super::yaml;

/// The host of everything.
pub(crate) const HOST: &str = "www.example.com";

/// The gateway.
pub(crate) const GATEWAY: &str = "cluster-1/shop/ingress";

/// Beside [`TWO_TEAMS`]; `@` stands for the annotation that places an object in `cluster-1`; a test's text may use it as well.
const FRAME: &str = r"
- apiVersion: networking.gloo.solo.io/v2
  kind: RouteTable
  metadata: {name: www, namespace: shop, @}
  spec:
    hosts: [www.example.com]
    virtualGateways: [{name: ingress}]
    http: [{name: team, delegate: {routeTables: [{name: child, namespace: team}]}}]
";

/// A second Service of `team`, which worlds append that guard a destination beside [`TWO_TEAMS`]'s `stock`.
pub(crate) const VAULT: &str = r"
- apiVersion: v1
  kind: Service
  metadata: {name: vault, namespace: team, labels: {guard: 'yes'}, @}
  spec: {selector: {app: vault}, ports: [{name: http, port: 8080}]}
- apiVersion: discovery.k8s.io/v1
  kind: EndpointSlice
  metadata: {name: vault-1, namespace: team, labels: {kubernetes.io/service-name: vault}, @}
  ports: [{name: http, port: 8080}]
  endpoints: [{addresses: [10.1.0.12], targetRef: {kind: Pod, name: vault-0}}]
";

/// The world as it runs, with a client of its gateway.
pub(crate) struct Delegated {
    pub(crate) mesh: Mesh,
    client: Client,
}

impl Delegated {
    /// Starts the world with further objects, a YAML list; `RouteTable/team/child` should be among them.
    pub(crate) async fn start(objects: &str) -> anyhow::Result<Self> {
        Self::start_with(objects, Settings::default()).await
    }

    /// The same with settings.
    pub(crate) async fn start_with(objects: &str, settings: Settings) -> anyhow::Result<Self> {
        Self::of(Mesh::start(manifests(objects)?, settings).await?)
    }

    /// The same with a gateway that talks to the control plane in a way of its own.
    pub(crate) async fn start_speaking(objects: &str, speech: &Speech<'_>) -> anyhow::Result<Self> {
        Self::of(Mesh::start_speaking(manifests(objects)?, Settings::default(), speech).await?)
    }

    fn of(mesh: Mesh) -> anyhow::Result<Self> {
        let client = Client::new(mesh.entrance("shop/www")?.1);
        Ok(Self { mesh, client })
    }

    /// Leads a Service of `team`, by the name of its port, to something that is no echo backend. Such a slice must not be
    /// there when the world starts.
    pub(crate) fn leads(&self, service: &str, port: &str, address: SocketAddr) -> anyhow::Result<()> {
        let object = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": format!("{service}-1"), "namespace": "team", "labels": {"kubernetes.io/service-name": service}},
            "ports": [{"name": port, "port": address.port()}],
            "endpoints": [{"addresses": [address.ip().to_string()]}],
        });
        let slice = Manifest { cluster: "cluster-1".to_owned(), object };
        manifests::write(self.mesh.directory(), &[slice]).map(drop)
    }

    pub(crate) async fn send(&mut self, request: &Request) -> anyhow::Result<Response> {
        self.client.send(request).await.map_err(|error| self.mesh.with_logs(error))
    }

    /// Sends a request; its status and how many requests reached a backend meanwhile.
    pub(crate) async fn outcome(&mut self, request: &Request) -> anyhow::Result<(u16, u64)> {
        let before = self.received();
        let status = self.send(request).await?.status;
        Ok((status, self.received() - before))
    }

    /// Waits until a request is answered with a status.
    pub(crate) async fn answers(&mut self, request: &Request, status: u16) -> anyhow::Result<()> {
        let (mesh, client) = (&self.mesh, &mut self.client);
        let what = format!("{} {} answered with {status}", request.method, request.path);
        let answered = until(PATIENCE, &what, async || {
            let response = client.send(request).await.map_err(|error| format!("{error:#}"))?;
            if response.status == status { Ok(()) } else { Err(Not::Yet(response.status.to_string())) }
        });
        answered.await.map_err(|error| mesh.with_logs(error))
    }

    /// How many requests reached a backend.
    pub(crate) fn received(&self) -> u64 {
        self.mesh.backends.iter().map(Backend::requests).sum()
    }

    /// What `chancery check` says of an object, `Kind/namespace/name@cluster`.
    pub(crate) fn checked(&self, object: &str) -> anyhow::Result<Value> {
        let (report, _) = chancery::check(self.mesh.directory(), &self.mesh.settings)?;
        let item = list(&report, "/items").iter().find(|item| text(item, "/object") == object);
        item.cloned().with_context(|| format!("{object} is not in {report:#}"))
    }

    /// The field of an object's first error.
    pub(crate) fn blamed_field(&self, object: &str) -> anyhow::Result<String> {
        let item = self.checked(object)?;
        let error = list(&item, "/findings").iter().find(|finding| text(finding, "/severity") == "error");
        Ok(text(error.with_context(|| format!("no error: {item:#}"))?, "/field").to_owned())
    }

    /// The verdict on an object: its approval, its message, and how many routes it has.
    pub(crate) fn verdict(&self, object: &str) -> anyhow::Result<(String, String, u64)> {
        let item = self.checked(object)?;
        let routes = item.pointer("/counts/numSelectedRoutes").and_then(Value::as_u64).unwrap_or_default();
        Ok((text(&item, "/approval").to_owned(), text(&item, "/message").to_owned(), routes))
    }

    /// What `chancery explain` says of a request.
    pub(crate) fn explained(&self, request: &Request) -> anyhow::Result<Value> {
        chancery::explain(self.mesh.directory(), &self.mesh.settings, GATEWAY, request)
    }
}

/// The objects of a world.
pub(crate) fn manifests(objects: &str) -> anyhow::Result<Vec<Manifest>> {
    let mut manifests = Vec::new();
    for text in [TWO_TEAMS, FRAME, objects] {
        let text = text.replace('@', "annotations: {cluster.solo.io/cluster: cluster-1}");
        for document in yaml::documents(&text)? {
            manifests.extend(by_annotation(list(&document, ""))?);
        }
    }
    Ok(manifests)
}

/// What a backend answered.
pub(crate) fn echo(response: &Response) -> anyhow::Result<Echo> {
    Ok(serde_json::from_value(response.json()?)?)
}

/// A request to the world.
pub(crate) fn request(method: &str, path: &str) -> Request {
    Request { method: method.to_owned(), ..Request::get(HOST, path) }
}
