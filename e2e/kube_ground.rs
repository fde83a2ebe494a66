//! What Chancery brings to a cluster, before a real API server: definitions of its kinds, and roles.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use crate::support::chancery::{self, Settings};
use crate::support::kube::{self, Kube};
use crate::support::manifests::{self, Manifest, list, text};
use crate::support::wait::{Not, PATIENCE, until};
use crate::support::{project, yaml};

/// Kinds that the API checks when they are written; of all others it takes everything.
const CHECKED: [&str; 3] = ["RouteTable", "VirtualDestination", "VirtualGateway"];

/// What the API refuses although Chancery would serve it in part, with a warning.
const REFUSED_ANYWAY: [&str; 5] = [
    "without hosts, leave out virtualGateways, applyToDestinations and failureMode",
    "write at least one of http, tcp and tls",
    "write at least one of hosts, services, externalServices and externalWorkloads",
    "with mode ISTIO_MUTUAL, leave out secretName and files",
    "with mode SIMPLE, write secretName, or files with serverCert and privateKey",
];

/// The definitions as the binary makes them, by file name.
fn made() -> anyhow::Result<BTreeMap<String, String>> {
    let folder = tempfile::tempdir()?;
    let output = Command::new(chancery::binary()?).args(["crds", "--directory"]).arg(folder.path()).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    texts(folder.path())
}

fn texts(folder: &Path) -> anyhow::Result<BTreeMap<String, String>> {
    let text = |path: &Path| {
        let name = path.file_name().context("a file has a name")?.to_string_lossy().into_owned();
        Ok((name, fs::read_to_string(path)?))
    };
    manifests::files(folder)?.iter().map(|path| text(path)).collect()
}

#[test]
fn the_definitions_of_the_repository_are_those_of_the_binary() -> anyhow::Result<()> {
    let (made, kept) = (made()?, texts(&project().join("config/crds"))?);
    let names = |files: &BTreeMap<String, String>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(
        names(&made),
        names(&kept),
        "run `make crds` and commit what it wrote, without files that it no longer writes"
    );
    for (name, text) in &made {
        assert!(kept[name] == *text, "{name} differs: run `make crds` and commit what it wrote");
    }
    let output = Command::new(chancery::binary()?).arg("crds").output()?;
    let printed = yaml::documents(&String::from_utf8(output.stdout)?)?;
    let mut found = BTreeSet::new();
    for document in &printed {
        let name = format!("{}.yaml", text(document, "/metadata/name"));
        assert_eq!(yaml::documents(&kept[&name])?, std::slice::from_ref(document), "{name}");
        found.insert(name);
    }
    assert_eq!(found.len(), kept.len(), "what is printed is what is kept");
    Ok(())
}

#[tokio::test]
async fn kubectl_knows_the_kinds_by_the_names_that_people_type() -> anyhow::Result<()> {
    let kube = Kube::start("kinds").await?;
    kube.install_crds().await?;
    let again = kube.apply_path(&project().join("config/crds"))?;
    assert!(again.lines().all(|line| line.ends_with(" unchanged")), "{again}");

    for (short, kind) in [
        ("rt", "RouteTable"),
        ("vg", "VirtualGateway"),
        ("vd", "VirtualDestination"),
        ("ws", "Workspace"),
        ("eas", "ExtAuthServer"),
        ("rlp", "RateLimitPolicy"),
    ] {
        let told = explained(&kube, short).await?;
        let named = told.lines().find_map(|line| line.strip_prefix("KIND:")).map(str::trim);
        assert_eq!(named, Some(kind), "{short}");
    }
    let categories = |category: &str| -> anyhow::Result<usize> {
        let listed = kube.kubectl(&["api-resources", "--no-headers", "-o", "name", "--categories", category])?;
        Ok(listed.lines().count())
    };
    let count = manifests::files(&project().join("config/crds"))?.len();
    assert_eq!((categories("chancery")?, categories("solo-io")?), (count, count));

    let told = explained(&kube, "rt.spec.http.forwardTo.pathRewrite").await?;
    assert!(told.contains("Replaces the matched prefix"), "{told}");
    let told = explained(&kube, "workspacesettings.spec.importFrom.resources.kind").await?;
    assert!(told.contains("ROUTE_TABLE"), "{told}");

    shows_what_became_of_an_object(&kube)
}

/// What `kubectl explain` says, which an API server knows a moment after it serves a kind.
async fn explained(kube: &Kube, path: &str) -> anyhow::Result<String> {
    let told = async || kube.kubectl(&["explain", path]).map_err(|error| Not::Yet(format!("{error:#}")));
    until(PATIENCE, &format!("what {path} is"), told).await
}

/// Columns read the API's own fields and the standard conditions, also of kinds whose status is flat.
fn shows_what_became_of_an_object(kube: &Kube) -> anyhow::Result<()> {
    let table = json!({"apiVersion": "networking.gloo.solo.io/v2", "kind": "RouteTable",
        "metadata": {"name": "web", "namespace": "default"}, "spec": {"hosts": ["a.example"], "http": [{"name": "all"}]}});
    let trust = json!({"apiVersion": "admin.gloo.solo.io/v2", "kind": "RootTrustPolicy",
        "metadata": {"name": "root", "namespace": "default"}, "spec": {"config": {"mgmtServerCa": {"generated": {}}}}});
    kube.apply(&[table.clone(), trust.clone()])?;
    let condition = |kind: &str, reason: &str| {
        json!({"type": kind, "status": "True", "reason": reason, "message": "",
        "observedGeneration": 1, "lastTransitionTime": "2026-01-01T00:00:00Z"})
    };
    let conditions = json!([condition("Accepted", "Fine"), condition("Programmed", "Served")]);
    let with = |object: &Value, status: Value| {
        json!({"apiVersion": object["apiVersion"], "kind": object["kind"],
        "metadata": object["metadata"], "status": status})
    };
    kube.apply_status(&[
        with(
            &table,
            json!({"common": {"State": {"approval": "WARNING", "message": "m", "observedGeneration": 1}},
                "conditions": conditions, "gateways": "2/3", "ownedByWorkspace": "shop", "numParentRouteTables": 4,
                "numAppliedRoutePolicies": {"security.policy.gloo.solo.io/v2, Kind=ExtAuthPolicy": 1}}),
        ),
        with(&trust, json!({"state": "ACCEPTED", "observedGeneration": 1, "conditions": conditions})),
    ])?;
    for (kind, wide, headers, values) in [
        ("rt", false, "NAME APPROVAL ACCEPTED PROGRAMMED REASON AGE", "web WARNING True True Fine"),
        (
            "rt",
            true,
            "NAME APPROVAL ACCEPTED PROGRAMMED REASON GATEWAYS WORKSPACE AGE",
            "web WARNING True True Fine 2/3 shop",
        ),
        ("roottrustpolicies", false, "NAME APPROVAL ACCEPTED PROGRAMMED REASON AGE", "root ACCEPTED True True Fine"),
    ] {
        let shown = kube.kubectl(&["get", kind, "-o", if wide { "wide" } else { "" }])?;
        let rows: Vec<String> =
            shown.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(rows[0], headers, "{kind}");
        assert!(rows[1].starts_with(values), "{kind}: {}", rows[1]);
    }
    let kept = kube.get(&["rt", "web"])?;
    assert_eq!(kept["status"]["numParentRouteTables"], 4, "counters of a kind are kept");
    Ok(())
}

/// An object of the reference, and where it stands.
struct Written {
    origin: String,
    object: Value,
    /// Everything of its case, to ask Chancery about it.
    world: Vec<Manifest>,
}

/// The clusters' objects of all Markdown cases.
fn cases() -> anyhow::Result<Vec<Written>> {
    let mut found = Vec::new();
    let mut files: Vec<_> =
        fs::read_dir(project().join("src/cases"))?.map(|entry| Ok(entry?.path())).collect::<anyhow::Result<_>>()?;
    files.sort();
    for file in files {
        let name = file.file_name().context("a file has a name")?.to_string_lossy().into_owned();
        let text = fs::read_to_string(&file)?;
        let mut sections = text.split("\n## ");
        let shared = blocks(sections.next().unwrap_or_default())?;
        let add = |title: &str, before: &[Value], own: &[Value], found: &mut Vec<Written>| {
            let world: Vec<Manifest> = before.iter().chain(own).map(placed).collect();
            found.extend(own.iter().map(|object| Written {
                origin: format!("{name}, {title}"),
                object: object.clone(),
                world: world.clone(),
            }));
        };
        add("shared", &[], &shared, &mut found);
        for section in sections {
            add(section.lines().next().unwrap_or_default(), &shared, &blocks(section)?, &mut found);
        }
    }
    Ok(found)
}

/// The objects of a Markdown text, in its blocks of manifests.
fn blocks(text: &str) -> anyhow::Result<Vec<Value>> {
    let mut objects = Vec::new();
    let mut parts = text.split("\n```");
    parts.next();
    for part in parts {
        let Some((kind, body)) = part.split_once('\n') else { continue };
        if matches!(kind, "yaml" | "then") {
            objects.extend(yaml::documents(body).with_context(|| body.to_owned())?);
        }
    }
    Ok(objects)
}

fn placed(object: &Value) -> Manifest {
    let cluster = text(object, "/metadata/annotations/cluster.solo.io~1cluster");
    Manifest { cluster: if cluster.is_empty() { "cluster-1" } else { cluster }.to_owned(), object: object.clone() }
}

/// The objects of a folder of `config`, and of the founding scenarios.
fn shipped() -> anyhow::Result<Vec<Written>> {
    let mut found = Vec::new();
    for folder in ["config/demo", "config/mesh/manifests"] {
        let world = manifests::read(&project().join(folder))?;
        found.extend(world.iter().map(|manifest| Written {
            origin: folder.to_owned(),
            object: manifest.object.clone(),
            world: world.clone(),
        }));
    }
    let scenarios = yaml::documents(&fs::read_to_string(project().join("e2e/scenarios.yaml"))?)?;
    for scenario in scenarios.iter().flat_map(|file| list(file, "/scenarios")) {
        let world = manifests::by_annotation(list(scenario, "/objects"))?;
        found.extend(world.iter().map(|manifest| Written {
            origin: text(scenario, "/id").to_owned(),
            object: manifest.object.clone(),
            world: world.clone(),
        }));
    }
    Ok(found)
}

/// Of a kind that the definitions are about, under a name of its own.
fn renamed(object: &Value, index: usize) -> Option<Value> {
    let group = text(object, "/apiVersion").strip_suffix(".gloo.solo.io/v2")?;
    let known = ["admin", "networking"].contains(&group) || group.ends_with(".policy");
    known.then(|| {
        let mut object = object.clone();
        object["metadata"] = json!({"name": format!("x-{index}"), "namespace": "default"});
        object
    })
}

#[tokio::test]
async fn every_manifest_that_chancery_accepts_passes_the_definitions() -> anyhow::Result<()> {
    let kube = Kube::start_defined("manifests").await?;
    let mut written = shipped()?;
    written.extend(cases()?);
    let mut seen = BTreeSet::new();
    let mut is_new = |object: &Value| {
        let told = format!("{} {} {}", object["apiVersion"], object["kind"], object["spec"]);
        seen.insert(told)
    };
    let objects: Vec<Value> = written
        .iter()
        .enumerate()
        .filter_map(|(index, written)| renamed(&written.object, index))
        .filter(|object| is_new(object))
        .collect();
    assert!(objects.len() > 800, "only {} objects were found", objects.len());
    let all = json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string();
    let create = ["create", "--dry-run=server", "--validate=strict", "-f", "-"];
    let output = kube::run(&kube.kubeconfig(), &create, Some(&all))?;
    let passed = String::from_utf8(output.stdout)?.lines().filter(|line| line.contains("created")).count();
    let refusals = refusals(&String::from_utf8(output.stderr)?)?;
    assert_eq!(passed + refusals.len(), objects.len(), "kubectl says something about each");

    let mut unjust = Vec::new();
    for (index, words) in &refusals {
        let Written { origin, object, world } = &written[*index];
        let own = placed(object);
        if REFUSED_ANYWAY.iter().any(|reason| words.contains(reason)) && CHECKED.contains(&own.kind()) {
            continue;
        }
        let folder = tempfile::tempdir()?;
        manifests::write(folder.path(), world)?;
        let (report, _) = chancery::check(folder.path(), &Settings::default())?;
        let is_own = |item: &&Value| text(item, "/object") == own.key();
        let approval = list(&report, "/items").iter().find(is_own).map(|item| text(item, "/approval"));
        if matches!(approval, Some("ACCEPTED" | "WARNING")) {
            unjust.push(format!("{origin}: {} is {approval:?}, and refused: {words}", own.key()));
        }
    }
    assert!(unjust.is_empty(), "{}", unjust.join("\n"));
    Ok(())
}

/// Of which object kubectl says that it is invalid, and why.
fn refusals(errors: &str) -> anyhow::Result<Vec<(usize, String)>> {
    let number = |line: &str| {
        let (_, rest) = line.split_once("\"x-").with_context(|| format!("what is this about? {line}"))?;
        let digits = rest.split('"').next().unwrap_or_default();
        Ok((digits.parse().with_context(|| line.to_owned())?, line.to_owned()))
    };
    errors.lines().filter(|line| line.starts_with("Error from server")).map(number).collect()
}

/// `spec`, whether it passes, and of what is refused a part of the reason.
const CHECKS: &[(&str, &str, Option<&str>)] = &[
    ("VirtualGateway", "{listeners: [{port: {number: 80}, http: {}}]}", None),
    ("VirtualGateway", "{listeners: [{port: {name: http}, http: {anything: [1]}, unknown: {x: 1}}]}", None),
    ("VirtualGateway", "{}", Some("listeners: Required")),
    ("VirtualGateway", "{listeners: []}", Some("at least 1 items")),
    ("VirtualGateway", "{listeners: [{http: {}}]}", Some("port: Required")),
    ("VirtualGateway", "{listeners: [{port: {}}]}", Some("the number or the name of the port")),
    ("VirtualGateway", "{listeners: [{port: {number: 65536}}]}", Some("less than or equal to 65535")),
    ("VirtualGateway", "{listeners: [{port: {number: 80}, allowedRouteTables: [{}]}]}", Some("host: Required")),
    ("VirtualGateway", "{listeners: [{port: {number: 80}, exposedExternalServices: [{}]}]}", Some("host: Required")),
    ("VirtualGateway", "{listeners: [{port: {number: 80}, http: {}, appProtocol: grpc-Web}]}", None),
    ("VirtualGateway", "{listeners: [{port: {number: 80}, http: {}, appProtocol: SMTP}]}", Some("appProtocol")),
    (
        "VirtualGateway",
        "{listeners: [{port: {number: 80}, http: {}, appProtocol: MONGO}]}",
        Some("with http and no tls"),
    ),
    (
        "VirtualGateway",
        "{listeners: [{port: {number: 80}, http: {}, tls: {}, appProtocol: HTTP}]}",
        Some("with http and tls"),
    ),
    ("VirtualGateway", "{listeners: [{port: {number: 80}, http: {}, tls: {}, appProtocol: https}]}", None),
    ("VirtualGateway", "{listeners: [{port: {number: 80}, tcp: {}, appProtocol: HTTP}]}", Some("with tcp and no tls")),
    (
        "VirtualGateway",
        "{listeners: [{port: {number: 80}, tcp: {}, tls: {}, appProtocol: TCP}]}",
        Some("with tcp and tls"),
    ),
    ("VirtualGateway", "{listeners: [{port: {number: 80}, httpsRedirect: false}]}", Some("httpsRedirect needs http")),
    ("VirtualGateway", "{listeners: [{port: {number: 80}, http: {}, httpsRedirect: true}]}", None),
    ("VirtualGateway", "{listeners: [{port: {number: 80}, tls: {mode: SIMPLE}}]}", Some("with mode SIMPLE")),
    ("VirtualGateway", "{listeners: [{port: {number: 80}, tls: {mode: SIMPLE, secretName: s}}]}", None),
    (
        "VirtualGateway",
        "{listeners: [{port: {number: 80}, tls: {mode: MUTUAL, files: {serverCert: a, privateKey: b}}}]}",
        Some("with mode MUTUAL"),
    ),
    (
        "VirtualGateway",
        "{listeners: [{port: {number: 80}, tls: {mode: ISTIO_MUTUAL, secretName: s}}]}",
        Some("ISTIO_MUTUAL"),
    ),
    ("VirtualGateway", "{listeners: [{port: {number: 80}, tls: {secretName: s}}]}", None),
    (
        "VirtualGateway",
        "{listeners: [{port: {number: 80}, tls: {parameters: {minimumProtocolVersion: TLSv1_1}}}]}",
        Some("write cipherSuites"),
    ),
    (
        "RouteTable",
        "{hosts: [a.example], virtualGateways: [{name: web}], http: [{forwardTo: {destinations: [{ref: {name: a}}]}}]}",
        None,
    ),
    ("RouteTable", "{http: [{name: child}], unknown: 1}", None),
    ("RouteTable", "{hosts: [a.example]}", Some("at least one of http, tcp and tls")),
    ("RouteTable", "{virtualGateways: [{name: web}], http: [{name: a}]}", Some("without hosts")),
    ("RouteTable", "{failureMode: FREEZE_CONFIG, http: [{name: a}]}", Some("without hosts")),
    (
        "RouteTable",
        "{defaultDestination: {ref: {name: a}}, http: [{redirect: {}}]}",
        Some("needs an http route with forwardTo"),
    ),
    ("RouteTable", "{defaultDestination: {ref: {name: a}}, http: [{forwardTo: {destinations: []}}]}", None),
    ("RouteTable", "{http: [{forwardTo: {destinations: []}}]}", Some("needs defaultDestination")),
    ("RouteTable", "{http: [{name: a}], workloadSelectors: [{kind: VM}]}", Some("kind")),
    ("RouteTable", "{http: [{directResponse: {status: 99}}]}", Some("greater than or equal to 100")),
    ("RouteTable", "{tcp: [{forwardTo: {destinations: []}}]}", Some("at least 1 items")),
    ("RouteTable", "{tls: [{forwardTo: {}}]}", Some("destinations: Required")),
    ("RouteTable", "{http: [{name: a}], portalMetadata: {apiProductId: a}}", Some("apiVersion: Required")),
    ("RouteTable", "{http: [{name: a}], portalMetadata: {apiProductId: 'a b', apiVersion: v1}}", Some("apiProductId")),
    ("VirtualDestination", "{hosts: [a.mesh], ports: [{number: 80, protocol: gRPC}]}", None),
    ("VirtualDestination", "{hosts: [a.mesh]}", Some("ports: Required")),
    ("VirtualDestination", "{ports: [{number: 80, protocol: HTTP}]}", Some("at least one of hosts")),
    (
        "VirtualDestination",
        "{hosts: [a.mesh], ports: [{number: 0, protocol: HTTP}]}",
        Some("greater than or equal to 1"),
    ),
    ("VirtualDestination", "{hosts: [a.mesh], ports: [{number: 80}]}", Some("protocol: Required")),
    ("VirtualDestination", "{hosts: [a.mesh], ports: [{number: 80, protocol: SMTP}]}", Some("protocol")),
    (
        "VirtualDestination",
        "{hosts: [a.mesh], ports: [{number: 80, protocol: HTTP, targetPort: {number: 81}}]}",
        Some("targetPort needs services"),
    ),
    ("VirtualDestination", "{services: [{}], ports: [{number: 80, protocol: HTTP, targetPort: {number: 81}}]}", None),
];

/// What other kinds are written like in the wild: numbers as texts, names of enums as numbers, older names, nothing at all.
const OPEN: &[(&str, &str, &str)] = &[
    ("admin", "Workspace", "{workloadClusters: {name: x}}"),
    (
        "admin",
        "WorkspaceSettings",
        "{importFrom: null, options: {serviceIsolation: true, federation: {enabled: 'yes'}}}",
    ),
    ("networking", "ExternalService", "{hosts: [a.example], ports: [{number: '443', protocol: 1}], name: old}"),
    (
        "resilience.policy",
        "RetryTimeoutPolicy",
        "{config: {requestTimeout: 5, retries: {attempts: '3'}}, apply_to_routes: []}",
    ),
    ("security.policy", "WAFPolicy", "{config: {anything: {goes: [1, two, null]}}}"),
];

#[tokio::test]
async fn what_the_api_refuses_is_refused_and_nothing_else() -> anyhow::Result<()> {
    let kube = Kube::start_defined("checks").await?;
    let object = |group: &str, kind: &str, spec: &str, index: usize| -> anyhow::Result<Value> {
        let spec = yaml::documents(spec)?.pop().context("a spec")?;
        Ok(json!({"apiVersion": format!("{group}.gloo.solo.io/v2"), "kind": kind,
            "metadata": {"name": format!("x-{index}"), "namespace": "default"}, "spec": spec}))
    };
    let mut objects = Vec::new();
    for (index, (kind, spec, _)) in CHECKS.iter().enumerate() {
        objects.push(object("networking", kind, spec, index)?);
    }
    for (index, (group, kind, spec)) in OPEN.iter().enumerate() {
        objects.push(object(group, kind, spec, CHECKS.len() + index)?);
    }
    let all = json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string();
    let output = kube::run(&kube.kubeconfig(), &["create", "--validate=strict", "-f", "-"], Some(&all))?;
    let refused: BTreeMap<usize, String> = refusals(&String::from_utf8(output.stderr)?)?.into_iter().collect();
    for (index, (kind, spec, reason)) in CHECKS.iter().enumerate() {
        match (reason, refused.get(&index)) {
            (None, None) => {}
            (Some(reason), Some(words)) => assert!(words.contains(reason), "{kind} {spec}: {words}"),
            (expected, got) => panic!("{kind} {spec}: {expected:?}, and the API server says {got:?}"),
        }
    }
    for (index, (_, kind, spec)) in OPEN.iter().enumerate() {
        assert_eq!(refused.get(&(CHECKS.len() + index)), None, "{kind} {spec}");
    }
    let kept = kube.get(&["externalservices", &format!("x-{}", CHECKS.len() + 2)])?;
    assert_eq!(kept["spec"]["name"], "old", "what no type knows is kept, so that it can be reported");
    Ok(())
}

/// The plurals of all kinds with their groups, as the definitions have them.
fn plurals() -> anyhow::Result<BTreeSet<(String, String)>> {
    let definition = |text: &String| -> anyhow::Result<(String, String)> {
        let definition = yaml::documents(text)?.pop().context("a definition")?;
        Ok((
            self::text(&definition, "/spec/group").to_owned(),
            self::text(&definition, "/spec/names/plural").to_owned(),
        ))
    };
    texts(&project().join("config/crds"))?.values().map(definition).collect()
}

/// What a role of a file grants: group and resource with their verbs.
fn granted(file: &str, role: &str) -> anyhow::Result<BTreeMap<(String, String), BTreeSet<String>>> {
    let documents = yaml::documents(&fs::read_to_string(project().join("config/kubernetes").join(file))?)?;
    let is_it =
        |document: &&Value| text(document, "/kind") == "ClusterRole" && text(document, "/metadata/name") == role;
    let role = documents.iter().find(is_it).with_context(|| format!("{file} has no ClusterRole {role}"))?;
    let names = |rule: &Value, pointer: &str| -> Vec<String> {
        list(rule, pointer).iter().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let mut grants: BTreeMap<_, BTreeSet<String>> = BTreeMap::new();
    for rule in list(role, "/rules") {
        for group in names(rule, "/apiGroups") {
            for resource in names(rule, "/resources") {
                grants.entry((group.clone(), resource)).or_default().extend(names(rule, "/verbs"));
            }
        }
    }
    Ok(grants)
}

#[test]
fn chancery_may_read_every_kind_and_no_role_has_a_wildcard() -> anyhow::Result<()> {
    let reads = granted("cluster.yaml", "chancery-reader")?;
    for kind in plurals()? {
        let verbs: Vec<&str> = reads.get(&kind).into_iter().flatten().map(String::as_str).collect();
        assert_eq!(verbs, ["list", "watch"], "{kind:?}");
    }
    for (file, text) in texts(&project().join("config/kubernetes"))? {
        for document in yaml::documents(&text)?.iter().filter(|document| document.get("rules").is_some()) {
            assert!(
                !document["rules"].to_string().contains('*'),
                "{file}: {} has a wildcard",
                document["metadata"]["name"]
            );
        }
    }
    Ok(())
}

/// Who, verb, resource, namespace, and whether it is allowed.
const MAY: &[(&str, &str, &str, &str, bool)] = &[
    // Pam registers clusters and creates workspaces.
    ("pam", "create", "kubernetesclusters.admin.gloo.solo.io", "gloo-mesh", true),
    ("pam", "create", "workspaces.admin.gloo.solo.io", "gloo-mesh", true),
    ("pam", "patch", "workspacesettings.admin.gloo.solo.io", "gloo-mesh", true),
    ("pam", "create", "roottrustpolicies.admin.gloo.solo.io", "gloo-mesh", true),
    ("pam", "create", "secrets", "gloo-mesh", true),
    ("pam", "get", "secrets", "shop", false),
    ("pam", "get", "routetables.networking.gloo.solo.io", "shop", true),
    ("pam", "update", "routetables.networking.gloo.solo.io", "shop", false),
    // Arjay settles what his workspace shares.
    ("arjay", "update", "workspacesettings.admin.gloo.solo.io", "shop", true),
    ("arjay", "update", "workspacesettings.admin.gloo.solo.io", "gloo-mesh", false),
    ("arjay", "update", "workspacesettings.admin.gloo.solo.io", "elsewhere", false),
    ("arjay", "create", "virtualdestinations.networking.gloo.solo.io", "shop", true),
    ("arjay", "create", "virtualgateways.networking.gloo.solo.io", "shop", false),
    ("arjay", "create", "workspaces.admin.gloo.solo.io", "gloo-mesh", false),
    ("arjay", "create", "accesspolicies.security.policy.gloo.solo.io", "shop", false),
    // Oliver makes gateways, tables and policies.
    ("oliver", "create", "virtualgateways.networking.gloo.solo.io", "shop", true),
    ("oliver", "delete", "routetables.networking.gloo.solo.io", "shop", true),
    ("oliver", "create", "jwtpolicies.security.policy.gloo.solo.io", "shop", true),
    ("oliver", "create", "extauthservers.admin.gloo.solo.io", "shop", true),
    ("oliver", "get", "workspacesettings.admin.gloo.solo.io", "shop", true),
    ("oliver", "update", "workspacesettings.admin.gloo.solo.io", "shop", false),
    ("oliver", "create", "routetables.networking.gloo.solo.io", "elsewhere", false),
    ("oliver", "get", "secrets", "shop", false),
    // Alice adds her route, and reads the rest.
    ("alice", "patch", "routetables.networking.gloo.solo.io", "shop", true),
    ("alice", "create", "routetables.networking.gloo.solo.io", "shop", false),
    ("alice", "delete", "routetables.networking.gloo.solo.io", "shop", false),
    ("alice", "list", "retrytimeoutpolicies.resilience.policy.gloo.solo.io", "shop", true),
    ("alice", "create", "retrytimeoutpolicies.resilience.policy.gloo.solo.io", "shop", false),
    ("alice", "get", "routetables.networking.gloo.solo.io", "elsewhere", false),
];

#[tokio::test]
async fn people_may_do_their_part_and_nothing_else() -> anyhow::Result<()> {
    let kube = Kube::start_defined("people").await?;
    let namespaces = ["gloo-mesh", "shop", "elsewhere"];
    kube.apply(&namespaces.map(|name| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})))?;
    kube.apply_path(&project().join("config/kubernetes/personas.yaml"))?;
    kube.kubectl(&["create", "clusterrolebinding", "pam", "--clusterrole=chancery-platform-admin", "--user=pam"])?;
    kube.kubectl(&["create", "rolebinding", "pam", "-n", "gloo-mesh", "--role=chancery-platform-admin", "--user=pam"])?;
    for (name, role) in [("arjay", "app-owner"), ("oliver", "operator"), ("alice", "developer")] {
        let (role, user) = (format!("--clusterrole=chancery-{role}"), format!("--user={name}"));
        kube.kubectl(&["create", "rolebinding", name, "-n", "shop", &role, &user])?;
    }
    let may = |who: &str, verb: &str, what: &str, namespace: &str| -> anyhow::Result<bool> {
        let (what, part) = what.split_once('/').unwrap_or((what, ""));
        let part = format!("--subresource={part}");
        let ask = ["auth", "can-i", verb, what, &part, "-n", namespace, "--as", who];
        let output = kube::run(&kube.kubeconfig(), &ask, None)?;
        match String::from_utf8_lossy(&output.stdout).trim() {
            "yes" => Ok(true),
            "no" => Ok(false),
            said => anyhow::bail!("{said}{}", String::from_utf8_lossy(&output.stderr)),
        }
    };
    for (who, verb, what, namespace, expected) in MAY {
        assert_eq!(may(who, verb, what, namespace)?, *expected, "{who} {verb} {what} in {namespace}");
    }
    for who in ["pam", "arjay", "oliver", "alice"] {
        let status = "routetables.networking.gloo.solo.io/status";
        assert!(!may(who, "patch", status, "shop")?, "{who} may write a status");
    }
    Ok(())
}
