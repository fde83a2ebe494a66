//! The bench on its smallest worlds: that it runs, that every answer is right, and that it measures what it says; not how
//! long anything takes.

#[path = "bench/cells.rs"]
pub(crate) mod cells;

use anyhow::{Context, ensure};
use cells::report::{Report, Scale};

/// Runs one cell and gives back what it wrote.
async fn small(name: &str) -> anyhow::Result<String> {
    let mut out = Vec::new();
    let mut report = Report::new(Scale::Small, &mut out);
    cells::run(name, &mut report).await.context(name.to_owned())?;
    ensure!(report.missed() == 0 && report.goals().is_empty(), "small sizes have no goals: {}", report.goals());
    Ok(String::from_utf8(out)?)
}

/// The words of the only row, or the last, that begins so.
fn row<'a>(text: &'a str, begins: &str) -> anyhow::Result<Vec<&'a str>> {
    let line = text.lines().rfind(|line| line.trim_start().starts_with(begins));
    Ok(line.with_context(|| format!("no row {begins:?} in\n{text}"))?.split_whitespace().collect())
}

#[tokio::test]
async fn compiling_from_scratch_is_measured_on_the_whole_world() -> anyhow::Result<()> {
    let text = small("compile").await?;
    let row = row(&text, "20 ")?;
    ensure!(row[..4] == ["20", "200", "155", "1"], "{row:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn b1_a_rename_is_served_and_so_is_its_floor() -> anyhow::Result<()> {
    let text = small("B1").await?;
    ensure!(row(&text, "hosts      20")?[1..4] == ["20", "200", "4"], "{text}");
    ensure!(row(&text, "one host")?[2..5] == ["10", "100", "4"], "{text}");
    Ok(())
}

#[tokio::test]
async fn compiling_one_edit_is_measured_for_every_kind() -> anyhow::Result<()> {
    let text = small("step").await?;
    row(&text, "1000 ")?;
    row(&text, "a leaf of a tree of    10")?;
    Ok(())
}

#[tokio::test]
async fn memory_is_looked_at_over_many_edits() -> anyhow::Result<()> {
    let text = small("churn").await?;
    row(&text, "200 ")?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn b2_an_edit_has_its_cost() -> anyhow::Result<()> {
    let text = small("B2").await?;
    for edited in ["policy", "JWTPolicy", "ExtAuthPolicy"] {
        row(&text, &format!("{edited} of 20 routes"))?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn b3_nothing_is_sent_for_nothing() -> anyhow::Result<()> {
    let text = small("B3").await?;
    let row = row(&text, "an annotation")?;
    ensure!(row[2..] == ["0", "0", "0", "0"], "{row:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn b5_a_cold_start_ends_in_an_answer() -> anyhow::Result<()> {
    let text = small("B5").await?;
    let row = row(&text, "200 ")?;
    ensure!(row[..2] == ["200", "2"], "{row:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn b4_every_stream_gets_the_change() -> anyhow::Result<()> {
    let text = small("B4").await?;
    ensure!(row(&text, "small")?[2..4] == ["50", "3"], "{text}");
    ensure!(row(&text, "large")?[2..4] == ["20", "2"], "{text}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn b7_gateways_that_come_back_are_sent_nothing() -> anyhow::Result<()> {
    let text = small("B7").await?;
    ensure!(row(&text, "10 ")?[..3] == ["10", "0", "B"], "{text}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn b6_every_endpoint_arrives() -> anyhow::Result<()> {
    let text = small("B6").await?;
    row(&text, "200 ")?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn b8_no_answer_is_wrong_while_routes_come_and_go() -> anyhow::Result<()> {
    let text = small("B8").await?;
    ensure!(row(&text, "30 adds")?.windows(3).any(|words| words == ["0", "wrong", "answers;"]), "{text}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn b9_one_pod_is_sent_to_whom_it_concerns_however_many_virtual_destinations_there_are() -> anyhow::Result<()> {
    let text = small("B9").await?;
    let sent = |begins: &str| row(&text, begins).map(|row| row.last().map(|last| (*last).to_owned()));
    // The ingress gateway, the client listeners of three east-west gateways, and what `cluster-2` receives.
    for world in ["3", "30"] {
        ensure!(sent(&format!("an endpoint {world:>5}"))?.as_deref() == Some("5"), "{text}");
        ensure!(sent(&format!("a client {world:>5}"))?.as_deref() == Some("1"), "{text}");
    }
    row(&text, "a virtual destination")?;
    Ok(())
}
