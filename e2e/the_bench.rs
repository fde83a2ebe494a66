//! The bench on its smallest world: that it runs and measures what it says, not how long it takes.

#[path = "bench/measure.rs"]
mod measure;

use crate::support::bench_world::World;

#[test]
fn the_bench_measures_the_whole_world() -> anyhow::Result<()> {
    let world = World { tables: 20 };
    let folder = tempfile::tempdir()?;
    world.write(folder.path())?;
    let run = measure::measure(folder.path())?;
    let result = &run.result;
    assert_eq!((result.routes, result.with_policies), (world.routes(), world.routes()), "{result:?}");
    assert_eq!(result.clusters, world.apps(), "{result:?}");
    assert!(run.peak_memory > 0 && result.snapshot > 0 && !run.cold_start().is_zero(), "{run:?}");
    Ok(())
}
