//! Real gateways of an API server's objects: what `Programmed` says of them, and how long an edit by kubectl takes.

use std::time::{Duration, Instant};

use envoy_types::pb::envoy::config::route::v3::RouteConfiguration;
use envoy_types::pb::envoy::config::route::v3::route_match::PathSpecifier;
use prost::Message;

use super::many::tell;
use super::shop::{HOST, Shop, TABLE, load, numbered, shows};
use super::statuses::{approval, condition, until_object, writes};
use super::*;
use crate::support::http::{Client, Request};
use crate::support::proxy::Proxy;

/// The path of a route that Envoys refuse.
pub(super) const POISON: &str = "/poison";

/// Edits that are timed.
const EDITS: u64 = 50;

/// Makes routes unacceptable that have the path.
pub(super) fn poison(kind: &str, bytes: &[u8]) -> Option<Vec<u8>> {
    if kind != "RouteConfiguration" {
        return None;
    }
    let mut routes = RouteConfiguration::decode(bytes).ok()?;
    let mut is_changed = false;
    for host in &mut routes.virtual_hosts {
        let paths = host.routes.iter().filter_map(|route| route.r#match.as_ref()?.path_specifier.as_ref());
        if paths.into_iter().any(|path| matches!(path, PathSpecifier::Prefix(prefix) if prefix == POISON)) {
            host.domains.extend(host.domains.clone());
            is_changed = true;
        }
    }
    is_changed.then(|| routes.encode_to_vec())
}

/// When the condition `Programmed` changed last.
fn since(object: &Value) -> &Value {
    let conditions = object["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    conditions.iter().find(|one| one["type"] == "Programmed").map_or(&Value::Null, |one| &one["lastTransitionTime"])
}

/// The message of the condition `Programmed`.
pub(super) fn words(object: &Value) -> &str {
    let conditions = object["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let found = conditions.iter().find(|one| one["type"] == "Programmed");
    found.and_then(|one| one["message"].as_str()).unwrap_or_default()
}

/// Cases 8 and 10 of the sessions, as kubectl shows them.
#[tokio::test]
async fn r132_programmed_says_which_gateways_hold_an_object_and_what_those_say_that_refuse_it() -> anyhow::Result<()> {
    let mut shop = Shop::start("gateways", 2).await?;
    let chancery = Chancery::serve_kubernetes(&shop.kube.kubeconfig(), &Settings::default()).await?;
    let none = until_object(&shop.kube, &chancery, TABLE, |table| approval(table) == "ACCEPTED").await?;
    ensure!(condition(&none, "Programmed") == "Unknown/NoGateways" && none["status"]["gateways"].is_null(), "{none}");
    let proxy = Proxy::start(|kind, _, bytes| poison(kind, bytes)).await?;
    let first = shop.join(&chancery, Some(&proxy)).await?;
    let second = shop.join(&chancery, Some(&proxy)).await?;
    let holds = |table: &Value, gateways: &str, programmed: &str| {
        table["status"]["gateways"] == gateways && condition(table, "Programmed") == programmed
    };
    let both = |table: &Value| holds(table, "2/2", "True/Acknowledged");
    let held = until_object(&shop.kube, &chancery, TABLE, both).await?;
    ensure!(words(&held) == "2 of 2 connected gateways acknowledged it", "{held}");
    let gateway = until_object(&shop.kube, &chancery, ["virtualgateway", "web"], both).await?;
    ensure!(approval(&gateway) == "ACCEPTED", "{gateway}");
    let columns = shop.kube.kubectl(&["get", "routetable", "cart", "-n", "shop", "-o", "wide"])?;
    ensure!(columns.contains("2/2") && columns.contains("ACCEPTED"), "{columns}");

    // Refused: the author reads Envoy's words, and traffic goes on as before.
    let load = load(first);
    let before = writes(&chancery).await?;
    let mut bad = numbered(1);
    bad["spec"]["http"][0]["matchers"] = json!([{"uri": {"prefix": POISON}}]);
    shop.kube.apply(&[bad])?;
    let refused = until_object(&shop.kube, &chancery, TABLE, |table| approval(table) == "FAILED").await?;
    let refused = match holds(&refused, "0/2", "False/Refused") {
        true => refused,
        false => until_object(&shop.kube, &chancery, TABLE, |table| holds(table, "0/2", "False/Refused")).await?,
    };
    ensure!(words(&refused).contains("Only unique values for domains are permitted"), "{refused}");
    ensure!(refused["status"]["common"]["State"]["message"].as_str().is_some_and(|text| text.contains("Only unique")));
    ensure!(since(&refused).is_string(), "{refused}");
    shows(first, 0).await?;
    // Two gateways refused it, several times: one or two statuses, and one event.
    ensure!(writes(&chancery).await? <= before + 4.0, "{} writes", writes(&chancery).await? - before);
    let events = async || {
        let events = shop.kube.get(&["events.events.k8s.io", "-n", "shop"])?;
        let events = events["items"].as_array().cloned().unwrap_or_default();
        anyhow::Ok(events.iter().filter(|event| event["reason"] == "RefusedByGateway").count())
    };
    ensure!(events().await? == 1, "{} events", events().await?);

    // Corrected: in force on both, and the condition is true again.
    shop.edit(2)?;
    until_object(&shop.kube, &chancery, TABLE, both).await?;
    shows(first, 2).await?;
    shows(second, 2).await?;
    load.end().await?;

    // A gateway that is gone does not count, and where none is left nobody is said to hold it.
    shop.gateways.pop();
    until_object(&shop.kube, &chancery, TABLE, |table| holds(table, "1/1", "True/Acknowledged")).await?;
    takes(&shop, &chancery, first).await?;
    shop.gateways.clear();
    until_object(&shop.kube, &chancery, TABLE, |table| condition(table, "Programmed") == "Unknown/NoGateways").await?;
    Ok(())
}

/// Times edits from kubectl's write to the gateway's answer. That is printed; what is asserted is that each is in force.
async fn takes(shop: &Shop, chancery: &Chancery, address: std::net::SocketAddr) -> anyhow::Result<()> {
    let mut client = Client::new(address);
    let request = Request::get(HOST, "/number");
    let (mut whole, mut after): (Vec<Duration>, Vec<Duration>) = (Vec::new(), Vec::new());
    for number in 100..100 + EDITS {
        let patch = json!([{"op": "replace", "path": "/spec/http/0/directResponse/body", "value": number.to_string()}]);
        let begun = Instant::now();
        let patch = ["patch", "routetable", "cart", "-n", "shop", "--type=json", "-p", &patch.to_string()];
        shop.kube.kubectl(&patch)?;
        let written = Instant::now();
        // Without a pause: what is measured takes milliseconds.
        while client.send(&request).await?.text() != number.to_string() {
            ensure!(written.elapsed() < PATIENCE, "edit {number} is not in force\n{}", chancery.log_tail());
        }
        whole.push(begun.elapsed());
        after.push(written.elapsed());
    }
    whole.sort_unstable();
    after.sort_unstable();
    let of = |times: &[Duration], percent: usize| times[(times.len() * percent).div_ceil(100) - 1];
    tell(&format!(
        "{EDITS} edits by kubectl until a gateway serves them: from kubectl's start median {:?}, 99th {:?}; from its end median \
         {:?}, 99th {:?}",
        of(&whole, 50),
        of(&whole, 99),
        of(&after, 50),
        of(&after, 99)
    ));
    Ok(())
}
