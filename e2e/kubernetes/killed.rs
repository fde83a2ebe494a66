//! The control plane is killed while it pushes, again and again: no request fails, what it had begun comes to its end after the
//! restart, and the statuses are right.

use super::shop::{Shop, TABLE, load, numbered, shows};
use super::statuses::{approval, condition, until_object};
use super::*;
use crate::support::proxy::Proxy;

/// After how many messages between it and its two gateways it is killed, from before it hears of the edit to after both
/// acknowledged.
const AFTER: [u64; 5] = [0, 1, 2, 3, 4];

#[tokio::test]
async fn a_control_plane_that_is_killed_while_it_pushes_harms_nobody_and_tells_the_truth_afterwards()
-> anyhow::Result<()> {
    let mut shop = Shop::start("killed", 2).await?;
    let mut chancery = Chancery::serve_kubernetes(&shop.kube.kubeconfig(), &Settings::default()).await?;
    let witness = Proxy::witness().await?;
    let first = shop.join(&chancery, Some(&witness)).await?;
    let second = shop.join(&chancery, Some(&witness)).await?;
    shows(first, 0).await?;
    shows(second, 0).await?;
    let load = load(first);
    let mut messages = witness.messages();
    for (number, after) in (1..).zip(AFTER) {
        let enough = *messages.borrow_and_update() + after;
        let (kubeconfig, list) = (shop.kube.kubeconfig(), numbered(number).to_string());
        let edit = move || kubectl_with(&kubeconfig, &["apply", "-f", "-"], Some(&list));
        let edit = tokio::task::spawn_blocking(edit);
        let pushed = messages.wait_for(|count| *count >= enough);
        tokio::time::timeout(PATIENCE, pushed).await.with_context(|| chancery.log_tail())??;
        chancery.kill();
        edit.await??;
        load.goes_on(40).await?;
        chancery.restart().await?;
        shows(first, number).await.with_context(|| witness.transcript())?;
        shows(second, number).await.with_context(|| witness.transcript())?;
    }
    load.end().await?;
    // One version, one content, whichever process sent it.
    let mut contents = BTreeMap::new();
    for passed in witness.passed() {
        let known = *contents.entry((passed.kind.clone(), passed.version.clone())).or_insert(passed.content);
        ensure!(known == passed.content, "{passed:?} has the version of other bytes");
    }
    // The Lease is the killed one's until its time is over.
    let table = until_object(&shop.kube, &chancery, TABLE, |table| {
        let state = &table["status"]["common"]["State"];
        approval(table) == "ACCEPTED"
            && state["observedGeneration"] == table["metadata"]["generation"]
            && table["status"]["gateways"] == "2/2"
    })
    .await?;
    ensure!(condition(&table, "Programmed") == "True/Acknowledged", "{table}");
    Ok(())
}
