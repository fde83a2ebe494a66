//! The world that the bench measures: many route tables behind one gateway, written as files as users write them.
//!
//! A platform team owns the gateway and the root tables, one per host. Each root table hands five paths to five teams,
//! and each path is served by two child tables of a team: one app, with one Service, one slice of endpoints and one
//! policy that selects the app's 20 routes by label. Delegation, destinations and policies cross workspaces, so every
//! rule about sharing is at work; nothing is wrong, so there are no findings.

use std::fs;
use std::path::Path;

use anyhow::Context;

/// Workspaces of teams, and the platform team's.
const TEAMS: usize = 49;
/// Child tables below one root table.
const TABLES_PER_ROOT: usize = 10;
/// Child tables of one app.
const TABLES_PER_APP: usize = 2;
/// Routes of one child table.
const ROUTES_PER_TABLE: usize = 10;

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
}

fn save(folder: &Path, name: &str, text: &str) -> anyhow::Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    let file = folder.join(format!("{name}.yaml"));
    fs::write(&file, text).with_context(|| format!("write {}", file.display()))
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
spec:
  http:
"
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
