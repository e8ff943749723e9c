//! The same queue drained by workers in Python: see `benches/peers`.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use tokio::process::Command;

use crate::Plan;
use crate::events::Events;
use crate::load;
use crate::process::Worker;
use crate::report::{Limit, Report, median, median_ratio};
use crate::rig::{Drained, Servers};

/// Drains some events by each of them in turn, and by paxflow beside them; `row_by_row` is paxflow's events a second with one
/// transaction for each.
pub async fn measure(
    servers: &mut Servers,
    events: &Events,
    plan: &Plan,
    row_by_row: f64,
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
    let peers = [
        ("batched.py", "batches in Python (aio-pika, asyncpg)", None),
        (
            "row_by_row.py",
            "row by row in Python (pika, SQLAlchemy)",
            Some(row_by_row),
        ),
    ];
    let (mut drains, mut runs) = (Vec::new(), [Vec::new(), Vec::new()]);
    for _ in 0..plan.rounds {
        let place = servers.place().await?;
        load::fill(&place, events.range(0..plan.drained)).await?;
        drains.push(place.drain(servers, &[]).await?.rate());
        place.remove().await?;
        for (peer, (script, ..)) in peers.into_iter().enumerate() {
            let place = servers.place().await?;
            load::fill(&place, events.range(0..plan.peers[peer])).await?;
            let start = || {
                let mut command = Command::new(parts.join("bin/python"));
                command.arg(scripts.join(script));
                Ok(vec![Worker::spawn(&place, command)?])
            };
            runs[peer].push(place.drain_by(servers, start).await?);
            place.remove().await?;
        }
    }
    for ((_, what, ours), runs) in peers.into_iter().zip(&runs) {
        let of = |figure: fn(&Drained) -> f64| runs.iter().map(figure).collect::<Vec<_>>();
        let (rates, cpu) = (of(Drained::rate), median(&of(Drained::cpu_per_million)));
        let rate = median(&rates);
        report.add(what, rate, "events/s", Limit::None);
        report.add(format!("CPU of {what}"), cpu, "s/1M", Limit::None);
        let name = format!("drain / {what}");
        report.add(name, median_ratio(&drains, &rates), "", Limit::None);
        // A drain is in batches.
        if let Some(ours) = ours {
            let name = format!("the same way in paxflow / {what}");
            report.add(name, ours / rate, "", Limit::None);
        }
    }
    Ok(())
}
