//! Whether memory grows while nothing but content changes: everything between objects and the wire, in this process.

use std::net::Ipv4Addr;

use anyhow::{Context, anyhow, ensure};
use chancery::emit::{EmitOptions, Emitter, Layout};
use chancery::snapshot::verify::Verifier;

use super::measure::memory;
use super::report::{Report, mebibytes};
use super::step::{Kept, Step};
use crate::support::bench_world::{World, slice_text};

/// Hosts that come and go by turns.
const HOSTS: usize = 7;

/// How much more memory there may be after all edits than after the first twentieth of them, as a factor.
const MOST: f64 = 1.05;

/// Runs it.
pub(crate) async fn run(report: &mut Report<'_>) -> anyhow::Result<()> {
    let edits = report.scale.pick(1_000_000_usize, 200);
    report
        .line(&format!("{:>9} {:>14} {:>14} {:>14} {:>10}", "edits", "before", "after 5 %", "after all", "an edit"))?;
    let mut kept = Kept::load(World { tables: 10 })?;
    let (mut emitter, mut verifier) = (Emitter::new(Layout::default()), Verifier::new());
    let (before, begun) = (memory()?, std::time::Instant::now());
    let mut early = before;
    for edit in 1..=edits {
        let text = if edit % 4 == 0 {
            let [_, b, c, d] = u32::try_from(edit).unwrap_or_default().to_be_bytes();
            slice_text(0, Ipv4Addr::new(10, b, c, d))
        } else {
            table(edit)
        };
        kept.edit(&[Step::Put(text)])?;
        let plan = kept.plan().context("there is no gateway")?;
        let snapshot = emitter.emit(plan, &EmitOptions::default());
        let violations = verifier.verify(&snapshot);
        ensure!(violations.is_empty(), anyhow!("edit {edit}: {violations:?}"));
        if edit == edits.div_ceil(20) {
            early = memory()?;
        }
    }
    let (after, each) = (memory()?, begun.elapsed() / u32::try_from(edits)?);
    let shown = [before, early, after].map(|bytes| format!("{:.1} MiB", mebibytes(bytes)));
    report.line(&format!("{edits:>9} {:>14} {:>14} {:>14} {each:>10.0?}", shown[0], shown[1], shown[2]))?;
    report.goal("memory after all edits over that after a twentieth", after as f64 / early as f64, MOST, "")
}

/// A table whose host, expression, header and answer are like none before.
fn table(edit: usize) -> String {
    format!(
        "\
apiVersion: networking.gloo.solo.io/v2
kind: RouteTable
metadata:
  name: churn
  namespace: edge
  labels:
    edit: edit-{edit}
spec:
  hosts:
    - churn-{}.example.com
  virtualGateways:
    - name: ingress
      namespace: edge
      cluster: cluster-1
  http:
    - name: route-{edit}
      labels:
        edit: edit-{edit}
      matchers:
        - uri: {{regex: '/edit-{edit}/[0-9]+'}}
          headers:
            - name: x-edit-{edit}
      directResponse: {{status: 200, body: 'edit-{edit}'}}
",
        edit % HOSTS
    )
}
