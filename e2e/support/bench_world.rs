//! The world that the bench measures: many route tables behind one gateway, written as files as users write them.
//!
//! A platform team owns the gateway and the root tables, one per host. Each root table hands five paths to five teams,
//! and each path is served by two child tables of a team: one app, with one Service, one slice of endpoints and one
//! policy that selects the app's 20 routes by label. Delegation, destinations and policies cross workspaces, so every
//! rule about sharing is at work; nothing is wrong, so there are no findings.

use std::collections::BTreeSet;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::manifests;

/// The cluster of the gateway.
pub(crate) const CLUSTER_NAME: &str = "cluster-1";
/// The namespace of the gateway.
pub(crate) const NAMESPACE: &str = "edge";
/// The name of the gateway, and the `app` label of its Pods.
pub(crate) const GATEWAY_NAME: &str = "ingress";
/// The name of the gateway that [`second_gateway`] adds.
pub(crate) const OTHER_NAME: &str = "other";
/// The port of the gateway's Service, and the one that the gateway binds.
pub(crate) const PORTS: (u16, u16) = (80, 8080);

/// Workspaces of teams, and the platform team's.
const TEAMS: usize = 49;
/// Child tables below one root table.
const TABLES_PER_ROOT: usize = 10;
/// Child tables of one app.
const TABLES_PER_APP: usize = 2;
/// Routes of one child table.
const ROUTES_PER_TABLE: usize = 10;

/// How many routes the label `reach-…` marks, in a world that has as many in the first team. Each is twenty times the number
/// of apps that bear it.
pub(crate) const REACHES: [usize; 3] = [20, 200, 1_400];

/// The first app that policies reach by label.
pub(crate) const FIRST_REACHED: usize = 49;

/// How large a world is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct World {
    /// Child tables; a multiple of 10. Apps, Services, policies and root tables follow from it.
    pub(crate) tables: usize,
}

impl World {
    /// Routes that end a chain.
    pub(crate) fn routes(self) -> usize {
        self.tables * ROUTES_PER_TABLE
    }

    /// Apps: Services, slices and policies.
    pub(crate) fn apps(self) -> usize {
        self.tables / TABLES_PER_APP
    }

    /// Hosts.
    pub(crate) fn roots(self) -> usize {
        self.tables / TABLES_PER_ROOT
    }

    /// Writes one file per object: `DIR/<cluster>/<namespace>/<kind>-<name>.yaml`.
    pub(crate) fn write(self, directory: &Path) -> anyhow::Result<()> {
        let mgmt = directory.join("mgmt");
        let cluster = directory.join("cluster-1");
        save(&mgmt.join("platform"), "clusters", CLUSTER)?;
        save(&mgmt.join("platform"), "workspace-edge", &workspace("edge"))?;
        let edge = cluster.join("edge");
        save(&edge, "settings", &settings("edge", "'*'"))?;
        save(&edge, "gateway", GATEWAY)?;
        for team in 0..TEAMS {
            let team = team_name(team);
            save(&mgmt.join("platform"), &format!("workspace-{team}"), &workspace(&team))?;
            save(&cluster.join(&team), "settings", &settings(&team, "edge"))?;
        }
        for root in 0..self.roots() {
            save(&edge, &format!("table-site-{root}"), &root_table(root))?;
        }
        for app in 0..self.apps() {
            let folder = cluster.join(team_name(app % TEAMS));
            save(&folder, &format!("service-app-{app}"), &service(app))?;
            save(&folder, &format!("policy-app-{app}"), &policy(app))?;
            for half in 0..TABLES_PER_APP {
                save(&folder, &format!("table-app-{app}-{half}"), &child_table(app, half))?;
            }
        }
        Ok(())
    }

    /// The app whose route is edited. The policy of every fourth app adds a header, which leaves answers as they are.
    pub(crate) fn first_probe(self) -> Probe {
        Probe::App(0)
    }

    /// So many of these at most, of hosts all over the world.
    pub(crate) fn probes(self, most: usize) -> Vec<Probe> {
        let roots: BTreeSet<usize> = (0..most).map(|probe| probe * self.roots() / most / 4 * 4).collect();
        roots.into_iter().map(|root| Probe::App(root * TABLES_PER_ROOT / TABLES_PER_APP)).collect()
    }

    /// The same near the end of the world.
    pub(crate) fn last_probe(self) -> Probe {
        Probe::App((self.apps() - 1) / 4 * 4)
    }

    /// Writes a slice of its own for every app, beside the one that its Service has.
    pub(crate) fn write_slices(self, directory: &Path) -> anyhow::Result<()> {
        (0..self.apps()).try_for_each(|app| place(&slice_file(directory, app), &slice_text(app, Ipv4Addr::LOCALHOST)))
    }
}

/// A route that answers by itself, so that a request tells which edit is in force.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Probe {
    /// In the first table of an app.
    App(usize),
    /// In the last table of a [large tree](large_tree) of so many.
    Leaf(usize),
}

impl Probe {
    /// The file of the table that holds the route.
    pub(crate) fn file(self, directory: &Path) -> PathBuf {
        match self {
            Self::App(app) => folder(directory, app).join(format!("table-app-{app}-0.yaml")),
            Self::Leaf(_) => directory.join("cluster-1").join("edge").join("table-leaf.yaml"),
        }
    }

    /// The table with a route that answers so.
    pub(crate) fn table(self, answer: &str) -> String {
        let app = match self {
            Self::App(app) => app,
            Self::Leaf(children) => return large_tree_files(children, answer).1,
        };
        let text = child_table(app, 0);
        let at = text.rfind("      forwardTo:").unwrap_or(text.len());
        format!("{}      directResponse:\n        status: 200\n        body: {answer}\n", &text[..at])
    }

    /// Puts that table in place.
    pub(crate) fn answer(self, directory: &Path, answer: &str) -> anyhow::Result<()> {
        manifests::replace(&self.file(directory), &self.table(answer))
    }

    /// The host of a request for the route.
    pub(crate) fn host(self) -> String {
        match self {
            Self::App(app) => format!("site-{}.example.com", app * TABLES_PER_APP / TABLES_PER_ROOT),
            Self::Leaf(_) => "large.example.com".to_owned(),
        }
    }

    /// Its path.
    pub(crate) fn path(self) -> String {
        let last = ROUTES_PER_TABLE - 1;
        match self {
            Self::App(app) => format!("/app-{app}/0/part-{last}"),
            Self::Leaf(children) => format!("/leaf-{}/part-{last}", children - 1),
        }
    }
}

/// The file of an app's own slice.
pub(crate) fn slice_file(directory: &Path, app: usize) -> PathBuf {
    folder(directory, app).join(format!("slice-app-{app}.yaml"))
}

/// An app's own slice: one endpoint.
pub(crate) fn slice_text(app: usize, address: Ipv4Addr) -> String {
    let team = team_name(app % TEAMS);
    format!(
        "\
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: app-{app}-2
  namespace: {team}
  labels:
    kubernetes.io/service-name: app-{app}
addressType: IPv4
ports:
  - name: http
    port: 9080
    protocol: TCP
endpoints:
  - addresses: [{address}]
    conditions: {{ready: true}}
"
    )
}

/// The file and the text of a policy that reaches as many routes as `reach` says, one of [`REACHES`]. Each has a header of its
/// own: of several policies for one header on a route, one wins.
pub(crate) fn reaching_policy(directory: &Path, reach: usize, value: &str) -> (PathBuf, String) {
    let text = format!(
        "\
apiVersion: trafficcontrol.policy.gloo.solo.io/v2
kind: HeaderManipulationPolicy
metadata:
  name: reach-{reach}
  namespace: {team}
spec:
  applyToRoutes:
    - route:
        labels:
          reach-{reach}: 'yes'
  config:
    appendResponseHeaders: {{x-reach-{reach}: {value}}}
",
        team = team_name(0)
    );
    (folder(directory, 0).join(format!("policy-reach-{reach}.yaml")), text)
}

/// How many entries of Envoy's lists a policy is on that reaches so many routes. Every third app that it reaches has a
/// CORSPolicy, and each of its tables one route for one method, which has an entry for preflights as well.
pub(crate) fn entries(reach: usize) -> usize {
    let apps = reach / (TABLES_PER_APP * ROUTES_PER_TABLE);
    reach + (apps + 1) / 3 * TABLES_PER_APP
}

/// The file and the text of a policy that verifies tokens on as many routes as `reach` says, one of [`REACHES`], with an
/// audience.
pub(crate) fn token_policy(directory: &Path, reach: usize, audience: &str) -> (PathBuf, String) {
    let providers = format!(
        "a: {{issuer: 'https://a.example', audiences: [{audience}], remote: {{url: 'https://a.example/keys'}}}}"
    );
    protecting_policy(directory, "JWTPolicy", reach, &format!("providers:\n      {providers}"))
}

/// The same of a policy that has a server asked, at a host.
pub(crate) fn auth_policy(directory: &Path, reach: usize, host: &str) -> (PathBuf, String) {
    let server = format!("{{grpc: {{address: '{host}.authz.example:9000'}}}}");
    protecting_policy(
        directory,
        "ExtAuthPolicy",
        reach,
        &format!("glooAuth: {{configs: [{{passThroughAuth: {server}}}]}}"),
    )
}

/// The same of one that allows an origin.
pub(crate) fn cors_policy(directory: &Path, reach: usize, origin: &str) -> (PathBuf, String) {
    let config = format!("allowOrigins: [{{exact: 'https://{origin}.cors.example'}}]");
    protecting_policy(directory, "CORSPolicy", reach, &config)
}

/// The same of one that lets requests of another origin change state.
pub(crate) fn csrf_policy(directory: &Path, reach: usize, origin: &str) -> (PathBuf, String) {
    let config = format!("{{filterEnabled: true, additionalOrigins: [{{exact: {origin}.csrf.example}}]}}");
    protecting_policy(directory, "CSRFPolicy", reach, &config)
}

/// The same of one that has a service count requests.
pub(crate) fn limit_policy(directory: &Path, reach: usize, value: &str) -> (PathBuf, String) {
    let team = team_name(0);
    let rules = format!("destinationServers: [{{ref: {{name: app-{FIRST_REACHED}}}, port: {{name: http}}}}]");
    let settings = format!(
        "---
apiVersion: admin.gloo.solo.io/v2
kind: RateLimitServerSettings
metadata: {{name: limits-{reach}, namespace: {team}}}
spec: {{destinationServer: {{ref: {{name: app-{FIRST_REACHED}}}, port: {{name: http}}}}}}
"
    );
    let (file, text) = limiting_policy(directory, reach, value, &format!("serverSettings: {{name: limits-{reach}}}, "));
    (file, format!("{text}{}{settings}", rules_of(reach, "", &rules)))
}

/// The same of one for which gateways count by themselves.
pub(crate) fn local_limit_policy(directory: &Path, reach: usize, value: &str) -> (PathBuf, String) {
    let (file, text) = limiting_policy(directory, reach, value, "");
    (file, format!("{text}{}", rules_of(reach, "chancery/rate-limiting: local", "")))
}

/// With a header that clients are told apart by.
fn limiting_policy(directory: &Path, reach: usize, header: &str, more: &str) -> (PathBuf, String) {
    let actions = format!("{{actions: [{{requestHeaders: {{headerName: x-{header}, descriptorKey: who}}}}]}}");
    let config = format!("{{ratelimitServerConfig: {{name: limits-{reach}}}, {more}raw: {{rateLimits: [{actions}]}}}}");
    let (file, text) = protecting_policy(directory, "RateLimitPolicy", reach, &config);
    (file, text.replace("security.policy", "trafficcontrol.policy"))
}

fn rules_of(reach: usize, annotation: &str, more: &str) -> String {
    let team = team_name(0);
    let separator = if more.is_empty() { "" } else { ", " };
    format!(
        "---
apiVersion: admin.gloo.solo.io/v2
kind: RateLimitServerConfig
metadata: {{name: limits-{reach}, namespace: {team}, annotations: {{{annotation}}}}}
spec: {{raw: {{descriptors: [{{key: who, rateLimit: {{unit: MINUTE, requestsPerUnit: 60}}}}]}}{separator}{more}}}
"
    )
}

/// The file and the text of a policy that lets clients call some paths of the Service of the first app that policies reach, to
/// which the least of [`REACHES`] routes lead.
pub(crate) fn access_policy(directory: &Path, _: usize, path: &str) -> (PathBuf, String) {
    let text = format!(
        "\
apiVersion: security.policy.gloo.solo.io/v2
kind: AccessPolicy
metadata:
  name: calls
  namespace: {team}
spec:
  applyToDestinations:
    - selector:
        name: app-{FIRST_REACHED}
  config:
    authzList: [{{allowedPaths: [/{path}/access/*]}}]
",
        team = team_name(0)
    );
    (folder(directory, 0).join("accesspolicy-calls.yaml"), text)
}

fn protecting_policy(directory: &Path, kind: &str, reach: usize, config: &str) -> (PathBuf, String) {
    let text = format!(
        "\
apiVersion: security.policy.gloo.solo.io/v2
kind: {kind}
metadata:
  name: protects-{reach}
  namespace: {team}
spec:
  applyToRoutes:
    - route:
        labels:
          reach-{reach}: 'yes'
  config:
    {config}
",
        team = team_name(0)
    );
    (folder(directory, 0).join(format!("{}-protects-{reach}.yaml", kind.to_lowercase())), text)
}

/// The file and the text of a second gateway, with one table of its own, which answers `answer`: it sees nothing of the
/// rest.
pub(crate) fn second_gateway(directory: &Path, answer: &str) -> (PathBuf, String) {
    let gateway = GATEWAY.replace(GATEWAY_NAME, OTHER_NAME);
    let text = format!(
        "{gateway}---
apiVersion: networking.gloo.solo.io/v2
kind: RouteTable
metadata:
  name: other
  namespace: edge
spec:
  hosts:
    - other.example.com
  virtualGateways:
    - name: other
      namespace: edge
      cluster: cluster-1
  http:
    - name: other
      directResponse:
        status: 200
        body: {answer}
"
    );
    (directory.join("cluster-1").join("edge").join("gateway-other.yaml"), text)
}

/// The file and the text of one table for one host with so many routes, the last of which answers `answer`.
pub(crate) fn large_table(directory: &Path, routes: usize, answer: &str) -> (PathBuf, String) {
    let mut text = String::from(
        "\
apiVersion: networking.gloo.solo.io/v2
kind: RouteTable
metadata:
  name: large
  namespace: edge
spec:
  hosts:
    - large.example.com
  virtualGateways:
    - name: ingress
      namespace: edge
      cluster: cluster-1
  http:
",
    );
    for route in 0..routes {
        let body = if route + 1 == routes { answer } else { "large" };
        text.push_str(&format!(
            "    - name: r{route}
      matchers:
        - uri: {{prefix: /part-{route:05}}}
          headers:
            - name: x-large
              value: 'value of a header that makes the route as rich as real ones are'
      directResponse: {{status: 200, body: {body}}}
"
        ));
    }
    (directory.join("cluster-1").join("edge").join("table-large.yaml"), text)
}

/// One host whose root table delegates to so many tables of ten routes each, the last route of which answers `answer`; the
/// last object is the last table.
pub(crate) fn large_tree(children: usize, answer: &str) -> String {
    let mut text = String::from(
        "\
apiVersion: networking.gloo.solo.io/v2
kind: RouteTable
metadata:
  name: large
  namespace: edge
spec:
  hosts:
    - large.example.com
  virtualGateways:
    - name: ingress
      namespace: edge
      cluster: cluster-1
  http:
",
    );
    for child in 0..children {
        text.push_str(&format!(
            "    - matchers: [{{uri: {{prefix: /leaf-{child}}}}}]
      delegate: {{routeTables: [{{name: leaf-{child}, namespace: edge}}]}}
"
        ));
    }
    for child in 0..children {
        text.push_str(&format!(
            "---
apiVersion: networking.gloo.solo.io/v2
kind: RouteTable
metadata:
  name: leaf-{child}
  namespace: edge
spec:
  http:
"
        ));
        for route in 0..ROUTES_PER_TABLE {
            let body = if child + 1 == children && route + 1 == ROUTES_PER_TABLE { answer } else { "large" };
            text.push_str(&format!(
                "    - name: r{route}
      matchers: [{{uri: {{prefix: /part-{route}}}}}]
      directResponse: {{status: 200, body: {body}}}
"
            ));
        }
    }
    text
}

/// The same as two files: all but the last table, and that table.
pub(crate) fn large_tree_files(children: usize, answer: &str) -> (String, String) {
    let all = large_tree(children, answer);
    all.rsplit_once("---\n").map(|(rest, last)| (rest.to_owned(), last.to_owned())).unwrap_or_default()
}

/// Writes a large tree, with its last table in a file of its own.
pub(crate) fn write_large_tree(directory: &Path, children: usize, answer: &str) -> anyhow::Result<()> {
    let (rest, last) = large_tree_files(children, answer);
    let file = Probe::Leaf(children).file(directory);
    place(&file.with_file_name("table-large.yaml"), &rest)?;
    place(&file, &last)
}

/// Writes a file into a folder that may not be there yet.
pub(crate) fn place(file: &Path, text: &str) -> anyhow::Result<()> {
    let parent = file.parent().context("a file has a folder")?;
    fs::create_dir_all(parent).with_context(|| format!("make {}", parent.display()))?;
    fs::write(file, text).with_context(|| format!("write {}", file.display()))
}

/// The folder of an app's team.
fn folder(directory: &Path, app: usize) -> PathBuf {
    directory.join("cluster-1").join(team_name(app % TEAMS))
}

/// Labels by which policies reach a known number of routes: some apps of the first team bear each. Those that
/// have a header policy already, probes among them, do not.
fn reach_labels(app: usize) -> String {
    let turn = app / TEAMS;
    if !app.is_multiple_of(TEAMS) || turn.is_multiple_of(4) {
        return String::new();
    }
    let place = turn - turn / 4 - 1;
    let borne = REACHES.iter().filter(|reach| place < **reach / (TABLES_PER_APP * ROUTES_PER_TABLE));
    borne.map(|reach| format!("    reach-{reach}: 'yes'\n")).collect()
}

fn save(folder: &Path, name: &str, text: &str) -> anyhow::Result<()> {
    place(&folder.join(format!("{name}.yaml")), text)
}

fn team_name(team: usize) -> String {
    format!("team-{team}")
}

const CLUSTER: &str = "\
apiVersion: admin.gloo.solo.io/v2
kind: KubernetesCluster
metadata:
  name: cluster-1
  namespace: gloo-mesh
spec:
  clusterDomain: cluster.local
";

const GATEWAY: &str = "\
apiVersion: v1
kind: Service
metadata:
  name: ingress
  namespace: edge
spec:
  selector:
    app: ingress
  ports:
    - name: http
      port: 80
      targetPort: 8080
---
apiVersion: networking.gloo.solo.io/v2
kind: VirtualGateway
metadata:
  name: ingress
  namespace: edge
spec:
  workloads:
    - selector:
        labels:
          app: ingress
  listeners:
    - http: {}
      port:
        number: 80
";

fn workspace(name: &str) -> String {
    format!(
        "\
apiVersion: admin.gloo.solo.io/v2
kind: Workspace
metadata:
  name: {name}
  namespace: gloo-mesh
spec:
  workloadClusters:
    - name: cluster-1
      namespaces:
        - name: {name}
"
    )
}

/// Shares everything with a partner, both ways.
fn settings(name: &str, partner: &str) -> String {
    format!(
        "\
apiVersion: admin.gloo.solo.io/v2
kind: WorkspaceSettings
metadata:
  name: {name}
  namespace: {name}
spec:
  importFrom:
    - workspaces:
        - name: {partner}
  exportTo:
    - workspaces:
        - name: {partner}
"
    )
}

fn root_table(root: usize) -> String {
    let mut text = format!(
        "\
apiVersion: networking.gloo.solo.io/v2
kind: RouteTable
metadata:
  name: site-{root}
  namespace: edge
  labels:
    site: site-{root}
spec:
  hosts:
    - site-{root}.example.com
  virtualGateways:
    - name: ingress
      namespace: edge
      cluster: cluster-1
  http:
"
    );
    let apps = TABLES_PER_ROOT / TABLES_PER_APP;
    for app in root * apps..(root + 1) * apps {
        let team = team_name(app % TEAMS);
        text.push_str(&format!(
            "    - name: app-{app}
      labels:
        tier: edge
      matchers:
        - uri:
            prefix: /app-{app}
      delegate:
        routeTables:
          - labels:
              app: app-{app}
            workspace: {team}
"
        ));
    }
    text
}

fn child_table(app: usize, half: usize) -> String {
    let team = team_name(app % TEAMS);
    let mut text = format!(
        "\
apiVersion: networking.gloo.solo.io/v2
kind: RouteTable
metadata:
  name: app-{app}-{half}
  namespace: {team}
  labels:
    app: app-{app}
    team: {team}
{labels}spec:
  http:
",
        labels = reach_labels(app)
    );
    for route in 0..ROUTES_PER_TABLE {
        // Mostly prefixes, and one each of what else real tables hold.
        let matcher = match route {
            0 => format!("uri: {{exact: /{half}/home}}"),
            1 => format!("uri: {{regex: '/{half}/items/[0-9]+'}}"),
            2 => format!("uri: {{prefix: /{half}/write}}\n          method: POST"),
            3 => format!(
                "uri: {{prefix: /{half}/beta}}\n          headers:\n            - name: x-beta\n              value: 'true'"
            ),
            _ => format!("uri: {{prefix: /{half}/part-{route}}}"),
        };
        text.push_str(&format!(
            "    - name: r{route}
      labels:
        part: part-{route}
      matchers:
        - {matcher}
      forwardTo:
        destinations:
          - ref:
              name: app-{app}
              namespace: {team}
            port:
              number: 8080
"
        ));
    }
    text
}

fn service(app: usize) -> String {
    let team = team_name(app % TEAMS);
    let (high, low) = (app / 200, app % 200);
    format!(
        "\
apiVersion: v1
kind: Service
metadata:
  name: app-{app}
  namespace: {team}
  labels:
    app: app-{app}
spec:
  selector:
    app: app-{app}
  ports:
    - name: http
      port: 8080
      targetPort: 9080
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: app-{app}-1
  namespace: {team}
  labels:
    kubernetes.io/service-name: app-{app}
addressType: IPv4
ports:
  - name: http
    port: 9080
    protocol: TCP
endpoints:
  - addresses: [10.{high}.{low}.1]
    conditions: {{ready: true}}
  - addresses: [10.{high}.{low}.2]
    conditions: {{ready: true}}
"
    )
}

/// One policy per app, of the kinds in turn.
fn policy(app: usize) -> String {
    let (group, kind, config) = match app % 4 {
        0 => ("trafficcontrol", "HeaderManipulationPolicy", "appendResponseHeaders: {x-app: measured}"),
        1 => ("resilience", "RetryTimeoutPolicy", "requestTimeout: 2s"),
        2 => ("security", "CORSPolicy", "allowOrigins: [{exact: https://shop.example.com}]"),
        _ => ("resilience", "FaultInjectionPolicy", "delay: {fixedDelay: 10ms, percentage: 1}"),
    };
    format!(
        "\
apiVersion: {group}.policy.gloo.solo.io/v2
kind: {kind}
metadata:
  name: app-{app}
  namespace: {team}
spec:
  applyToRoutes:
    - route:
        labels:
          app: app-{app}
  config:
    {config}
",
        team = team_name(app % TEAMS)
    )
}
