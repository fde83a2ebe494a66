//! What API servers and others do to the writing of statuses: none of it delays configuration or disturbs traffic, and in the
//! end every status is right.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use super::faults::{Fault, Faulty, answer, failure};
use super::shop::{HOST, Shop, TABLE, load, numbered, shows};
use super::statuses::{approval, condition, until_object, writes};
use super::*;
use crate::support::http::{Client, Request};

/// Whether a request writes the status of an object.
fn writes_status(asked: &str) -> bool {
    asked.starts_with("PATCH ") && asked.contains("/status")
}

/// Whether a status is of the object as it stands.
fn is_current(object: &Value) -> bool {
    let of = &object["status"]["common"]["State"]["observedGeneration"];
    of.is_number() && *of == object["metadata"]["generation"]
}

#[tokio::test]
async fn statuses_that_cannot_be_written_delay_nothing_and_are_right_in_the_end() -> anyhow::Result<()> {
    let mut shop = Shop::start("writing", 1).await?;
    let (faulty, folder) = (Faulty::before(&shop.kube).await?, tempfile::tempdir()?);
    let chancery = Chancery::serve_kubernetes(&faulty.kubeconfig(folder.path())?, &Settings::default()).await?;
    let address = shop.join(&chancery, None).await?;
    let is_right = |table: &Value| approval(table) == "ACCEPTED" && is_current(table) && acknowledged(table);
    until_object(&shop.kube, &chancery, TABLE, is_right).await?;
    let load = load(address);

    // Writes that are never answered: edits are served, and the statuses stay what they were.
    faulty.set(|asked| writes_status(asked).then_some(Fault::Hold));
    let stuck = faulty.answered();
    shop.edit(1)?;
    shows(address, 1).await?;
    until(STATUSES, "a write that is stuck", async || {
        if faulty.answered() > stuck { Ok(()) } else { Err(Not::Yet("none".to_owned())) }
    })
    .await?;
    shop.edit(2)?;
    shows(address, 2).await?;
    let table = shop.kube.get(&[TABLE[0], TABLE[1], "-n", "shop"])?;
    ensure!(!is_current(&table), "{table}");
    // Those that hang go on hanging; new ones pass.
    faulty.set(|_| None);
    until_object(&shop.kube, &chancery, TABLE, is_right).await?;

    // Refused at first, each time in another way.
    for (status, code, reason) in [
        ("409 Conflict", 409, "Conflict"),
        ("429 Too Many Requests", 429, "TooManyRequests"),
        ("500 Internal Server Error", 500, "InternalError"),
    ] {
        let refused = Mutex::new(BTreeSet::new());
        faulty.set(move |asked| {
            // Once for each object.
            let is_first = || refused.lock().unwrap_or_else(PoisonError::into_inner).insert(asked.to_owned());
            if writes_status(asked) && is_first() { answer(status, &failure(code, reason)) } else { None }
        });
        let number = u64::from(code);
        shop.edit(number)?;
        shows(address, number).await?;
        until_object(&shop.kube, &chancery, TABLE, is_right).await.context(status)?;
    }
    faulty.set(|_| None);

    another_writes_the_same_objects(&shop, &chancery, address).await?;
    the_server_and_its_store_are_killed_meanwhile(&mut shop, &chancery, address).await?;
    load.end().await?;
    Ok(())
}

fn acknowledged(table: &Value) -> bool {
    condition(table, "Programmed") == "True/Acknowledged"
}

/// A second control plane takes a status over. Its words stay, ours stand beside them, and nobody fights.
async fn another_writes_the_same_objects(
    shop: &Shop,
    chancery: &Chancery,
    address: std::net::SocketAddr,
) -> anyhow::Result<()> {
    let state = json!({"approval": "WARNING", "message": "said by another", "observedGeneration": 1});
    let metadata = json!({"name": "web", "namespace": "shop"});
    shop.kube.apply_status(&[json!({
        "apiVersion": "networking.gloo.solo.io/v2", "kind": "VirtualGateway", "metadata": metadata,
        "status": {"common": {"State": state}},
    })])?;
    let told = async || {
        let events = shop.kube.get(&["events.events.k8s.io", "-n", "shop"]).map_err(|error| format!("{error:#}"))?;
        let events = events["items"].as_array().cloned().unwrap_or_default();
        let told: Vec<&Value> = events.iter().filter(|event| event["reason"] == "StatusOfAnother").collect();
        if told.len() == 1 { Ok(()) } else { Err(Not::Yet(format!("{} events: {told:?}", told.len()))) }
    };
    until(STATUSES, "an event that another writes", told).await.with_context(|| chancery.log_tail())?;
    // An edit is judged in the conditions alone; one that says nothing else than before too, and with nothing beside it.
    shop.edit(3)?;
    shows(address, 3).await?;
    until_object(&shop.kube, chancery, TABLE, |table| is_current(table) && acknowledged(table)).await?;
    shop.kube.kubectl(&[
        "patch",
        "virtualgateway",
        "web",
        "-n",
        "shop",
        "--type=json",
        "-p",
        r#"[{"op": "add", "path": "/spec/listeners/0/http/anything", "value": 1}]"#,
    ])?;
    // All of them, Programmed too: it follows the verdict by a write of its own when gateways take their time.
    let judged = |gateway: &Value| {
        let conditions = gateway["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
        let is_now = |one: &Value| one["observedGeneration"] == gateway["metadata"]["generation"];
        acknowledged(gateway) && !conditions.is_empty() && conditions.iter().all(is_now)
    };
    let gateway = until_object(&shop.kube, chancery, ["virtualgateway", "web"], judged).await?;
    ensure!(gateway["status"]["common"]["State"] == state, "{gateway}");
    ensure!(chancery.log()?.contains("another control plane writes the status"), "{}", chancery.log_tail());
    // Looks at it, because something is another, and writes nothing more there.
    shop.edit(4)?;
    until_object(&shop.kube, chancery, TABLE, |table| is_current(table) && acknowledged(table)).await?;
    let still = shop.kube.get(&["virtualgateway", "web", "-n", "shop"])?;
    ensure!(still["metadata"]["resourceVersion"] == gateway["metadata"]["resourceVersion"], "{gateway}\n{still}");
    told().await.map_err(|not| anyhow::anyhow!("{not:?}")).with_context(|| chancery.log_tail())
}

/// While many statuses are being written, everything that could take them is killed, and comes back.
async fn the_server_and_its_store_are_killed_meanwhile(
    shop: &mut Shop,
    chancery: &Chancery,
    address: std::net::SocketAddr,
) -> anyhow::Result<()> {
    const TABLES: usize = 150;
    let before = writes(chancery).await?;
    let many: Vec<Value> = (0..TABLES)
        .map(|number| {
            let mut table = numbered(0);
            table["metadata"]["name"] = json!(format!("cart-{number}"));
            table["spec"]["hosts"] = json!([format!("shop-{number}.example.com")]);
            table
        })
        .collect();
    shop.kube.apply(&many)?;
    until(STATUSES, "some statuses to be written", async || match writes(chancery).await {
        Ok(number) if number > before => Ok(()),
        other => Err(Not::Yet(format!("{other:?}"))),
    })
    .await?;
    // What is to be served later has been told by then.
    let last = Request::get(&format!("shop-{}.example.com", TABLES - 1), "/number");
    until(PATIENCE, "the last table to be served", async || match Client::new(address).send(&last).await {
        Ok(answer) if answer.text() == "0" => Ok(()),
        Ok(answer) => Err(Not::Yet(format!("{} {}", answer.status, answer.text()))),
        Err(error) => Err(Not::Yet(format!("{error:#}"))),
    })
    .await?;
    shop.kube.kill_with_store();
    let answer = Client::new(address).send(&last).await?;
    ensure!(answer.text() == "0", "{}", answer.text());
    ensure!(Client::new(address).send(&Request::get(HOST, "/number")).await?.text() == "4");
    shop.kube.resume().await?;
    until(STATUSES, "all statuses to be right", async || {
        let all = shop.kube.get(&["routetables", "-n", "shop"]).map_err(|error| format!("{error:#}"))?;
        let items = all["items"].as_array().cloned().unwrap_or_default();
        let right = |table: &&Value| approval(table) == "ACCEPTED" && is_current(table) && acknowledged(table);
        match items.iter().filter(right).count() {
            right if right == TABLES + 1 => Ok(()),
            right => Err(Not::Yet(format!("{right} of {}", items.len()))),
        }
    })
    .await
    .with_context(|| chancery.log_tail())?;
    shop.edit(5)?;
    shows(address, 5).await
}
