//! What people get wrong behind an API server: each is told with what to do, and everything else goes on.

use super::statuses::approval;
use super::*;
use crate::support::tls::Authority;

/// Waits until `chancery status` tells something with these words, or nothing of the sort.
async fn until_findings(chancery: &Chancery, what: &str, is_right: impl Fn(&str) -> bool) -> anyhow::Result<()> {
    until(PATIENCE, what, async || {
        let status = crate::support::chancery::status(chancery.admin()).map_err(|error| format!("{error:#}"))?;
        let text = status.to_string();
        if is_right(&text) { Ok(()) } else { Err(Not::Yet(text)) }
    })
    .await
    .with_context(|| chancery.log_tail())
}

/// Kinds that are not defined yet are told; once they are, their objects are served, without a restart. Definitions of another
/// version are told too, until those of this one are applied.
#[tokio::test]
async fn definitions_that_are_missing_or_older_are_told_and_taken_up_when_they_are_applied() -> anyhow::Result<()> {
    let kube = Kube::start("undefined").await?;
    let all = objects("mgmt");
    let (own, others): (Vec<Value>, Vec<Value>) =
        all.into_iter().partition(|object| object["apiVersion"].as_str().is_some_and(|text| text.ends_with("/v2")));
    kube.apply(&others)?;
    let chancery = Chancery::serve_kubernetes(&kube.kubeconfig(), &Settings::default()).await?;
    until_findings(&chancery, "missing kinds to be told", |text| {
        text.contains("KIND_NOT_SERVED") && text.contains("apply what `chancery crds` prints")
    })
    .await?;
    kube.install_crds().await?;
    kube.apply(&own)?;
    until_served(&chancery, "mgmt", "the objects of kinds that are defined now", |served| served.len() >= 4).await?;
    until_findings(&chancery, "nothing to be missing", |text| !text.contains("KIND_NOT_SERVED")).await?;

    let definition = "routetables.networking.gloo.solo.io";
    kube.kubectl(&["annotate", "--overwrite", "crd", definition, "chancery/definition=0000000000000000"])?;
    until_findings(&chancery, "the older definition to be told", |text| {
        text.contains("DEFINITION_OUTDATED")
            && text.contains("`routetables`")
            && text.contains("chancery crds | kubectl apply")
    })
    .await?;
    served(&chancery, "mgmt").await?;
    let folder = crate::support::project().join("config/crds");
    kube.apply_path(&folder)?;
    until_findings(&chancery, "nothing to be older", |text| !text.contains("DEFINITION_OUTDATED")).await
}

/// Objects that the API server takes and that make no sense, and Secrets that are no certificates: each is told in its status with
/// an event, and a good table goes on to be served and edited.
#[tokio::test]
async fn what_passes_the_schema_and_makes_no_sense_is_told_and_ends_nothing_else() -> anyhow::Result<()> {
    let kube = Kube::start_defined("nonsense").await?;
    let mut all = objects("mgmt");
    let services = all.iter_mut().filter(|object| object["kind"] == "Service" && object["metadata"]["name"] == "web");
    let ports = json!([{"name": "http", "port": 8080}, {"name": "one", "port": 8443}, {"name": "two", "port": 9443}]);
    services.for_each(|service| service["spec"]["ports"] = ports.clone());
    kube.apply(&all)?;
    let chancery = Chancery::serve_kubernetes(&kube.kubeconfig(), &Settings::default()).await?;
    let before = served(&chancery, "mgmt").await?;
    let table_of = |name: &str, host: &str, route: Value| {
        let mut object = table("/");
        object["metadata"]["name"] = json!(name);
        object["spec"]["hosts"] = json!([host]);
        object["spec"]["http"] = json!([route]);
        object
    };
    let to = |name: &str| json!({"destinations": [{"ref": {"name": name}, "port": {"number": 80}}]});
    let object = |api: &str, kind: &str, name: &str, spec: Value| {
        let metadata = json!({"name": name, "namespace": "shop"});
        json!({"apiVersion": format!("{api}.gloo.solo.io/v2"), "kind": kind, "metadata": metadata, "spec": spec})
    };
    let listener = |secret: &str, port: u16| {
        json!({
            "workloads": [{"selector": {"labels": {"app": "web"}, "cluster": "mgmt"}}],
            "listeners": [{"http": {}, "port": {"number": port}, "tls": {"mode": "SIMPLE", "secretName": secret}}],
        })
    };
    let opaque = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "Opaque", "metadata": {"name": "opaque", "namespace": "shop"},
        "stringData": {"password": "CANARY-PASSWORD"},
    });
    let cors =
        json!({"applyToRoutes": [{"route": {"labels": {"a": "b"}}}], "config": {"allowOrigins": [{"regex": "(["}]}});
    // The kind, its name, and what the status says.
    let rows = [
        (
            table_of(
                "regex",
                "regex.example.com",
                json!({"name": "a", "matchers": [{"uri": {"regex": "(["}}], "forwardTo": to("cart")}),
            ),
            "routetable",
            "INVALID",
        ),
        (
            table_of("nowhere", "nowhere.example.com", json!({"name": "a", "forwardTo": to("nowhere")})),
            "routetable",
            "INVALID",
        ),
        (object("networking", "VirtualGateway", "opaque", listener("opaque", 8443)), "virtualgateway", "INVALID"),
        (object("networking", "VirtualGateway", "absent", listener("absent", 9443)), "virtualgateway", "INVALID"),
        (object("security.policy", "CORSPolicy", "origins", cors), "corspolicy", "INVALID"),
        // R17: the same name as the cluster's own, where it does not count.
        (object("admin", "KubernetesCluster", "mgmt", json!({})), "kubernetescluster", "PENDING"),
    ];
    kube.apply(&[opaque])?;
    for (object, kind, expected) in &rows {
        kube.apply(std::slice::from_ref(object)).with_context(|| format!("{kind} is refused"))?;
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        until(STATUSES, &format!("the status of {kind} {name}"), async || {
            let found = kube.get(&[kind, name, "-n", "shop"]).map_err(|error| format!("{error:#}"))?;
            let message = found["status"]["common"]["State"]["message"].as_str().unwrap_or_default().to_owned();
            if approval(&found) == *expected && !message.is_empty() {
                Ok(())
            } else {
                Err(Not::Yet(found["status"].to_string()))
            }
        })
        .await
        .with_context(|| chancery.log_tail())?;
        let event = async || {
            let events = kube.get(&["events.events.k8s.io", "-n", "shop"]).map_err(|error| format!("{error:#}"))?;
            let items = events["items"].as_array().cloned().unwrap_or_default();
            let is_told = items.iter().any(|event| event["regarding"]["name"] == name);
            if is_told { Ok(()) } else { Err(Not::Yet(format!("{} events", items.len()))) }
        };
        until(STATUSES, &format!("an event about {kind} {name}"), event).await?;
    }
    // Whatever they asked for, the good table is served and edited.
    let host = |served: &Served| {
        served.iter().find(|((kind, _), _)| kind.ends_with(".RouteConfiguration")).map(|(_, v)| v.clone())
    };
    kube.apply(&[table("/cart")])?;
    let after = until_served(&chancery, "mgmt", "an edit of the good table", |now| host(now) != host(&before)).await?;
    ensure!(after.keys().any(|(kind, _)| kind.ends_with(".Listener")), "{after:?}");
    let cart = kube.get(&["routetable", "cart", "-n", "shop"])?;
    ensure!(approval(&cart) == "ACCEPTED", "{cart}");
    ensure!(!chancery.log()?.contains("CANARY"), "the log quotes a Secret");
    // The certificate that was missing, as it should be: taken up without a restart.
    let secret = Authority::new("shop")?.sign("absent.example.com", "shop")?.secret("shop", "absent");
    kube.apply(&[secret])?;
    until(PATIENCE, "the gateway with its certificate", async || {
        let found = kube.get(&["virtualgateway", "absent", "-n", "shop"]).map_err(|error| format!("{error:#}"))?;
        if approval(&found) == "ACCEPTED" { Ok(()) } else { Err(Not::Yet(found["status"].to_string())) }
    })
    .await
}
