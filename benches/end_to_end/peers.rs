//! The same queue drained by workers in Python: see `benches/peers`.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use tokio::process::Command;

use crate::events::Events;
use crate::load;
use crate::process::Worker;
use crate::report::{Limit, Report};
use crate::rig::Servers;

/// Drains so many events by each of them; `drain` and `row_by_row` are paxflow's events a second.
pub async fn measure(
    servers: &mut Servers,
    events: &Events,
    [batched, single]: [usize; 2],
    [drain, row_by_row]: [f64; 2],
    report: &mut Report,
) -> Result<()> {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers");
    let parts = Path::new(env!("CARGO_TARGET_TMPDIR")).join("peers");
    let setup = Command::new(scripts.join("setup"))
        .arg(&parts)
        .status()
        .await
        .context("running benches/peers/setup")?;
    ensure!(setup.success(), "benches/peers/setup failed");
    for (script, what, count, ours) in [
        (
            "batched.py",
            "batches in Python (aio-pika, asyncpg)",
            batched,
            drain,
        ),
        (
            "row_by_row.py",
            "row by row in Python (pika, SQLAlchemy)",
            single,
            row_by_row,
        ),
    ] {
        let place = servers.place().await?;
        load::fill(&place, events.range(0..count)).await?;
        let start = || {
            let mut command = Command::new(parts.join("bin/python"));
            command.arg(scripts.join(script));
            Ok(vec![Worker::spawn(&place, command)?])
        };
        let drained = place.drain_by(servers, start).await?;
        place.remove().await?;
        report.add(what, drained.rate(), "events/s", Limit::None);
        report.add(
            format!("CPU of {what}"),
            drained.cpu_per_million(),
            "s/1M",
            Limit::None,
        );
        report.add(
            format!("drain / {what}"),
            drain / drained.rate(),
            "",
            Limit::None,
        );
        report.add(
            format!("the same way in paxflow / {what}"),
            ours / drained.rate(),
            "",
            Limit::None,
        );
    }
    Ok(())
}
