//! What several worlds of tests have in common: workspace `shop` owns the gateway `ingress`, workspace `team` the Service
//! `stock` with one endpoint, and each lets the other use what delegation takes.

/// The objects as YAML; `@` stands for the annotation that places an object in `cluster-1`. A world appends its own.
pub(crate) const TWO_TEAMS: &str = r"
- apiVersion: admin.gloo.solo.io/v2
  kind: KubernetesCluster
  metadata: {name: cluster-1, namespace: gloo-mesh, annotations: {cluster.solo.io/cluster: mgmt}}
- apiVersion: admin.gloo.solo.io/v2
  kind: Workspace
  metadata: {name: shop, namespace: gloo-mesh, annotations: {cluster.solo.io/cluster: mgmt}}
  spec: {workloadClusters: [{name: cluster-1, namespaces: [{name: shop}]}]}
- apiVersion: admin.gloo.solo.io/v2
  kind: Workspace
  metadata: {name: team, namespace: gloo-mesh, annotations: {cluster.solo.io/cluster: mgmt}}
  spec: {workloadClusters: [{name: cluster-1, namespaces: [{name: team}]}]}
- apiVersion: admin.gloo.solo.io/v2
  kind: WorkspaceSettings
  metadata: {name: shop, namespace: shop, @}
  spec:
    exportTo: [{workspaces: [{name: team}], resources: [{kind: ROUTE_TABLE}]}]
    importFrom: [{workspaces: [{name: team}], resources: [{kind: SERVICE}]}]
- apiVersion: admin.gloo.solo.io/v2
  kind: WorkspaceSettings
  metadata: {name: team, namespace: team, @}
  spec:
    exportTo: [{workspaces: [{name: shop}], resources: [{kind: SERVICE}]}]
    importFrom: [{workspaces: [{name: shop}], resources: [{kind: ROUTE_TABLE}]}]
- apiVersion: v1
  kind: Service
  metadata: {name: ingress, namespace: shop, @}
  spec: {selector: {app: ingress}, ports: [{port: 80, targetPort: 8080}]}
- apiVersion: networking.gloo.solo.io/v2
  kind: VirtualGateway
  metadata: {name: ingress, namespace: shop, @}
  spec: {workloads: [{selector: {labels: {app: ingress}}}], listeners: [{http: {}, port: {number: 80}}]}
- apiVersion: v1
  kind: Service
  metadata: {name: stock, namespace: team, @}
  spec: {selector: {app: stock}, ports: [{name: http, port: 8080}]}
- apiVersion: discovery.k8s.io/v1
  kind: EndpointSlice
  metadata: {name: stock-1, namespace: team, labels: {kubernetes.io/service-name: stock}, @}
  ports: [{name: http, port: 8080}]
  endpoints: [{addresses: [10.1.0.11], targetRef: {kind: Pod, name: stock-0}}]
";
