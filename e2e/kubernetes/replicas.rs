//! Several replicas with gateways of their own: the status speaks of all of them, whoever writes it.

use std::collections::BTreeSet;

use super::gateways::{POISON, poison, words};
use super::shop::{Shop, TABLE, numbered, shows};
use super::statuses::{approval, condition, metric, until_object, writes};
use super::*;
use crate::support::project;
use crate::support::proxy::Proxy;

/// What the status of the table says: the verdict, how many gateways acknowledged it, and what `Programmed` says.
fn told(table: &Value) -> String {
    let gateways = table["status"]["gateways"].as_str().unwrap_or("none");
    format!("{} {gateways} {}", approval(table), condition(table, "Programmed"))
}

const IN_FORCE: &str = "ACCEPTED 2/2 True/Acknowledged";
const REFUSED: &str = "FAILED 1/2 False/Refused";

/// The table with a route that an Envoy behind the proxy refuses.
fn bad(number: u64) -> Value {
    let mut bad = numbered(number);
    bad["spec"]["http"][1]["matchers"] = json!([{"uri": {"prefix": POISON}}]);
    bad
}

/// The replicas' objects.
fn voices(kube: &Kube) -> anyhow::Result<Vec<Value>> {
    let all = kube.get(&["configmaps", "-n", "gloo-mesh", "-l", "chancery.io/voice"])?;
    Ok(all["items"].as_array().cloned().unwrap_or_default())
}

/// Cases 8 and 10 of the sessions, with a gateway that only another replica heard. All of it under the roles of the deployment.
#[tokio::test]
async fn r132_a_refusal_that_another_replica_heard_stands_in_the_status() -> anyhow::Result<()> {
    let mut shop = Shop::start("exchange", 2).await?;
    for file in ["cluster.yaml", "management.yaml", "deployment.yaml"] {
        shop.kube.apply_path(&project().join("config/kubernetes").join(file))?;
    }
    let account = shop.kube.account("gloo-mesh", "chancery")?;
    let serve = async || Chancery::serve_kubernetes(&account, &Settings::default()).await;

    // The one that writes has no gateway of its own.
    let mut writer = serve().await?;
    until_object(&shop.kube, &writer, TABLE, |table| told(table) == "ACCEPTED none Unknown/NoGateways").await?;
    let (mut near, mut far) = (serve().await?, serve().await?);
    let direct = shop.join(&near, None).await?;
    until_object(&shop.kube, &writer, TABLE, |table| told(table) == "ACCEPTED 1/1 True/Acknowledged").await?;
    let proxy = Proxy::start(|kind, _, bytes| poison(kind, bytes)).await?;
    let proxied = shop.join(&far, Some(&proxy)).await?;
    let held = until_object(&shop.kube, &writer, TABLE, |table| told(table) == IN_FORCE).await?;
    ensure!(words(&held) == "2 of 2 connected gateways acknowledged it", "{held}");

    // Refused by a gateway of another replica, in Envoy's words.
    shop.kube.apply(&[bad(1)])?;
    let refused = until_object(&shop.kube, &writer, TABLE, |table| told(table) == REFUSED).await?;
    ensure!(words(&refused).contains("Only unique values for domains are permitted"), "{refused}");
    ensure!(words(&refused).starts_with("1 Envoy of gateway `mgmt/shop/web`"), "{refused}");
    let message = refused["status"]["common"]["State"]["message"].as_str().unwrap_or_default();
    ensure!(message.contains("Only unique values"), "{refused}");
    ensure!(!writer.log()?.contains("Envoy refused a resource"), "the writer heard it itself");
    shows(direct, 1).await?;

    // Corrected: in force on both.
    shop.edit(2)?;
    until_object(&shop.kube, &writer, TABLE, |table| told(table) == IN_FORCE).await?;
    shows(proxied, 2).await?;
    ensure!(writes(&near).await? + writes(&far).await? == 0.0, "another one wrote");
    for voice in voices(&shop.kube)? {
        let document = voice["data"]["document"].as_str().unwrap_or_default();
        ensure!(document.starts_with("{\"format\":1,") && document.len() < 4096, "{voice}");
    }

    // The one that writes ends, and gives the Lease up: another one goes on, with the gateways of both.
    writer.stop().await?;
    shop.edit(3)?;
    until(STATUSES, "another one to write", async || {
        let leads = async |one| metric(one, "chancery_leader ").await.map_err(|error| Not::Ever(format!("{error:#}")));
        match leads(&near).await? + leads(&far).await? {
            1.0 => Ok(()),
            number => Err(Not::Yet(format!("{number} lead"))),
        }
    })
    .await?;
    let is_third = |table: &Value| {
        let of = &table["status"]["common"]["State"]["observedGeneration"];
        told(table) == IN_FORCE && *of == table["metadata"]["generation"]
    };
    until_object(&shop.kube, &near, TABLE, is_third).await?;

    // One is killed whose gateway refuses: it counts until it has been silent for long enough, and then no more.
    shop.kube.apply(&[bad(4)])?;
    until_object(&shop.kube, &near, TABLE, |table| told(table) == REFUSED).await?;
    far.kill();
    let mut said = BTreeSet::new();
    let alone = "ACCEPTED 1/1 True/Acknowledged";
    until_object(&shop.kube, &near, TABLE, |table| {
        said.insert(told(table));
        told(table) == alone
    })
    .await?;
    said.remove(REFUSED);
    said.remove(alone);
    ensure!(said.is_empty(), "in between the status said {said:?}");

    // Who stops takes back what it said; of who was killed it is left for whoever writes.
    ensure!(voices(&shop.kube)?.len() == 2, "{:?}", voices(&shop.kube)?);
    near.stop().await?;
    ensure!(voices(&shop.kube)?.len() == 1, "{:?}", voices(&shop.kube)?);
    let asked = shop.kube.asked()?;
    for verb in ["create", "delete", "list", "patch"] {
        let granted = (verb.to_owned(), ":configmaps".to_owned(), true);
        ensure!(asked.contains(&granted), "nobody asked to {verb}: {asked:?}");
    }
    let refused: Vec<_> = asked.iter().filter(|(_, _, is_allowed)| !is_allowed).collect();
    ensure!(refused.is_empty(), "the roles lack {refused:?}");
    Ok(())
}
