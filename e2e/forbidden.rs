//! What must not work: four delegations that lack something, each named where its authors look, each answered on
//! exactly its own paths, with everything beside it untouched.

use serde_json::Value;

use crate::scenarios::{find, misconfigured};
use crate::support::chancery::{self, Settings};
use crate::support::http::Request;
use crate::support::manifests::{Manifest, by_annotation, list, text};
use crate::support::world::Mesh;
use crate::support::yaml;

/// The host of all root tables here.
const HOST: &str = "www.example.com";

/// A broken world and what must be seen of it.
struct Case<'a> {
    manifests: Vec<Manifest>,
    /// Root table that serves the host.
    root: &'a str,
    code: &'a str,
    /// Tables that are INVALID because of it, `namespace/name`.
    invalid: &'a [&'a str],
    /// What the findings' messages must name: the missing half and who owes it.
    named: &'a [&'a str],
    /// Paths that answer 500.
    broken: &'a [&'a str],
    /// Paths that answer 200, with their backends.
    served: &'a [(&'a str, &'a str)],
    /// Paths that nobody serves.
    unserved: &'a [&'a str],
}

/// The findings with a code on a table that `check` calls INVALID.
fn findings<'a>(report: &'a Value, table: &str, code: &str) -> Vec<&'a Value> {
    let object = format!("RouteTable/{table}@");
    let items = list(report, "/items").iter();
    let invalid =
        items.filter(|item| text(item, "/object").starts_with(&object) && text(item, "/approval") == "INVALID");
    invalid.flat_map(|item| list(item, "/findings")).filter(|finding| text(finding, "/code") == code).collect()
}

async fn check(case: Case<'_>) -> anyhow::Result<()> {
    let mesh = Mesh::start(case.manifests.clone(), Settings::default()).await?;
    let (report, clean) = chancery::check(mesh.directory(), &mesh.settings)?;
    assert!(!clean, "check calls the directory clean: {report:#}");
    let mut messages = Vec::new();
    for table in case.invalid {
        let findings = findings(&report, table, case.code);
        assert!(!findings.is_empty(), "{table} is not INVALID with {}: {report:#}", case.code);
        messages.extend(findings.into_iter().map(|finding| text(finding, "/message")));
    }
    for part in case.named {
        assert!(messages.iter().any(|message| message.contains(part)), "nobody names `{part}`: {messages:#?}");
    }
    let others = mesh.manifests.iter().filter(|manifest| manifest.kind() == "RouteTable");
    for table in others.map(|table| format!("{}/{}", table.namespace(), table.name())) {
        let blamed = !findings(&report, &table, case.code).is_empty();
        assert_eq!(blamed, case.invalid.contains(&table.as_str()), "{table} carries {}: {report:#}", case.code);
    }

    let answers = async {
        for path in case.broken {
            let response = mesh.send(case.root, &Request::get(HOST, path)).await?;
            assert_eq!((response.status, response.text()), (500, misconfigured(case.code)), "{path}");
        }
        for (path, backend) in case.served {
            let response = mesh.send(case.root, &Request::get(HOST, path)).await?;
            assert_eq!(response.status, 200, "{path}: {}", response.text());
            let body = response.json()?;
            let got = format!("{}/{}", text(&body, "/namespace"), text(&body, "/service"));
            assert_eq!(&got, backend, "{path}");
        }
        for path in case.unserved {
            let response = mesh.send(case.root, &Request::get(HOST, path)).await?;
            assert_eq!(response.status, 404, "{path}: {}", response.text());
        }
        anyhow::Ok(())
    };
    answers.await.map_err(|error| mesh.with_logs(error))
}

#[tokio::test]
async fn a_parent_that_does_not_export_its_table() -> anyhow::Result<()> {
    check(Case {
        manifests: find("consent-1")?.manifests()?,
        root: "source-apps/parent",
        code: "DELEGATION_NOT_EXPORTED",
        invalid: &["source-apps/parent"],
        named: &["export", "target"],
        broken: &["/a", "/a/any"],
        served: &[("/b", "source-apps/app-b")],
        unserved: &["/", "/c"],
    })
    .await
}

#[tokio::test]
async fn a_child_that_does_not_import_the_parents_table() -> anyhow::Result<()> {
    check(Case {
        manifests: find("consent-2")?.manifests()?,
        root: "source-apps/parent",
        code: "DELEGATION_NOT_IMPORTED",
        invalid: &["source-apps/parent"],
        named: &["import", "target"],
        broken: &["/a", "/a/any"],
        served: &[("/b", "source-apps/app-b")],
        unserved: &["/", "/c"],
    })
    .await
}

#[tokio::test]
async fn a_destination_that_the_roots_owner_does_not_see() -> anyhow::Result<()> {
    check(Case {
        manifests: find("consent-4")?.manifests()?,
        root: "source-apps/parent",
        code: "DESTINATION_NOT_VISIBLE",
        invalid: &["source-apps/parent", "target-apps/child"],
        named: &["app-a", "source"],
        broken: &["/a", "/a/any"],
        served: &[("/b", "source-apps/app-b")],
        unserved: &["/", "/c"],
    })
    .await
}

/// Table `one` delegates to table `two`, which delegates back.
const CYCLE: &str = r"
- apiVersion: networking.gloo.solo.io/v2
  kind: RouteTable
  metadata: {name: parent, namespace: source-apps, annotations: {cluster.solo.io/cluster: cluster-1}}
  spec:
    hosts: [www.example.com]
    virtualGateways: [{name: ingress, namespace: source-gateways, cluster: cluster-1}]
    http:
      - name: to-one
        matchers: [{uri: {prefix: /a}}]
        delegate: {routeTables: [{name: one, namespace: source-apps}]}
      - name: beside
        matchers: [{uri: {prefix: /b}}]
        forwardTo: {destinations: [{ref: {name: app-b, namespace: source-apps}, port: {number: 8080}}]}
- apiVersion: networking.gloo.solo.io/v2
  kind: RouteTable
  metadata: {name: one, namespace: source-apps, annotations: {cluster.solo.io/cluster: cluster-1}}
  spec:
    http:
      - name: own
        matchers: [{uri: {prefix: /own}}]
        forwardTo: {destinations: [{ref: {name: app-a, namespace: source-apps}, port: {number: 8080}}]}
      - name: to-two
        matchers: [{uri: {prefix: /x}}]
        delegate: {routeTables: [{name: two, namespace: source-apps}]}
- apiVersion: networking.gloo.solo.io/v2
  kind: RouteTable
  metadata: {name: two, namespace: source-apps, annotations: {cluster.solo.io/cluster: cluster-1}}
  spec:
    http:
      - name: own
        matchers: [{uri: {prefix: /own}}]
        forwardTo: {destinations: [{ref: {name: app-b, namespace: source-apps}, port: {number: 8080}}]}
      - name: back-to-one
        matchers: [{uri: {prefix: /back}}]
        delegate: {routeTables: [{name: one, namespace: source-apps}]}
";

#[tokio::test]
async fn two_tables_that_delegate_to_each_other() -> anyhow::Result<()> {
    // The surroundings of a simple scenario, with other tables.
    let mut manifests = find("basic-2")?.manifests()?;
    manifests.retain(|manifest| manifest.kind() != "RouteTable");
    for document in yaml::documents(CYCLE)? {
        manifests.extend(by_annotation(list(&document, ""))?);
    }
    check(Case {
        manifests,
        root: "source-apps/parent",
        code: "DELEGATION_CYCLE",
        invalid: &["source-apps/parent", "source-apps/one", "source-apps/two"],
        named: &["one"],
        broken: &["/a/x/back", "/a/x/back/own"],
        served: &[("/a/own", "source-apps/app-a"), ("/a/x/own", "source-apps/app-b"), ("/b", "source-apps/app-b")],
        unserved: &["/a", "/a/x", "/"],
    })
    .await
}

#[tokio::test]
async fn the_reverse_direction_is_refused_and_the_message_names_the_way_out() -> anyhow::Result<()> {
    check(Case {
        manifests: find("consent-5")?.manifests()?,
        root: "source-apps/parent",
        code: "DELEGATION_NOT_EXPORTED",
        invalid: &["source-apps/parent"],
        named: &["export", "target", "either"],
        broken: &["/a", "/a/any"],
        served: &[("/b", "source-apps/app-b")],
        unserved: &["/", "/c"],
    })
    .await
}

#[tokio::test]
async fn the_reverse_direction_is_enough_with_consent_either() -> anyhow::Result<()> {
    let settings = Settings { consent: Some("either"), ..Settings::default() };
    let mesh = Mesh::start(find("consent-5")?.manifests()?, settings).await?;
    let (report, _) = chancery::check(mesh.directory(), &mesh.settings)?;
    assert!(findings(&report, "source-apps/parent", "DELEGATION_NOT_EXPORTED").is_empty(), "{report:#}");
    for path in ["/a", "/a/any"] {
        let sent = mesh.send("source-apps/parent", &Request::get(HOST, path)).await;
        let response = sent.map_err(|error| mesh.with_logs(error))?;
        assert_eq!(response.status, 200, "{path}: {}", response.text());
        assert_eq!(text(&response.json()?, "/namespace"), "target-apps", "{path}");
        assert_eq!(response.header("x-policy-1").as_deref(), Some("applied"), "{path}: the parent's policy reaches it");
    }
    Ok(())
}
