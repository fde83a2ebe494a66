//! A thousand tables at once: their statuses cost about one write each, and what they say is in force before.

use std::time::Instant;

use super::statuses::{approval, metric, writes};
use super::*;

const TABLES: usize = 1000;

#[tokio::test]
async fn r137_a_thousand_tables_at_once_are_served_first_and_written_about_once_each() -> anyhow::Result<()> {
    let kube = Kube::start("many").await?;
    install_loose(&kube)?;
    kube.apply(&objects("mgmt"))?;
    let chancery = Chancery::serve_kubernetes(&kube.kubeconfig(), &Settings::default()).await?;
    until(STATUSES, "the first statuses", async || match writes(&chancery).await {
        Ok(number) if number >= 4.0 => Ok(()),
        other => Err(Not::Yet(format!("{other:?}"))),
    })
    .await
    .with_context(|| chancery.log_tail())?;
    let before = writes(&chancery).await?;
    let many: Vec<Value> = (0..TABLES)
        .map(|number| {
            let mut table = table("/");
            table["metadata"]["name"] = json!(format!("cart-{number}"));
            table["spec"]["hosts"] = json!([format!("shop-{number}.example.com")]);
            table
        })
        .collect();
    kube.apply(&many)?;
    let applied = Instant::now();
    let accepted = "chancery_objects{kind=\"RouteTable\",state=\"ACCEPTED\"} ";
    until(4 * PATIENCE, "all tables to be in force", async || match metric(&chancery, accepted).await {
        Ok(number) if number >= (TABLES + 1) as f64 => Ok(()),
        other => Err(Not::Yet(format!("{other:?}"))),
    })
    .await?;
    let in_force = applied.elapsed();
    until(4 * PATIENCE, "all statuses to be right", async || {
        let all =
            kube.get(&["routetables.networking.gloo.solo.io", "-n", "shop"]).map_err(|error| format!("{error:#}"))?;
        let items = all["items"].as_array().cloned().unwrap_or_default();
        match items.iter().filter(|table| approval(table) == "ACCEPTED").count() {
            right if right == TABLES + 1 => Ok(()),
            right => Err(Not::Yet(format!("{right} of {}", items.len()))),
        }
    })
    .await
    .with_context(|| chancery.log_tail())?;
    let (right, number) = (applied.elapsed(), writes(&chancery).await? - before);
    tell(&format!(
        "{TABLES} tables: {number} writes; in force {in_force:?} after kubectl ended, all statuses right {right:?}"
    ));
    ensure!(number <= 2.0 * TABLES as f64, "{number} writes");
    Ok(())
}

#[expect(clippy::print_stdout, reason = "a measurement is to be read")]
pub(super) fn tell(words: &str) {
    println!("{words}");
}
