//! One, two and four workers, on one queue and on a partition each.

use anyhow::Result;

use crate::events::Events;
use crate::process::{Steal, Worker};
use crate::report::{Limit, Report, median, median_ratio};
use crate::rig::Servers;
use crate::{load, queues};

/// How long one worker is to drain what all of them drain, at most: starting four takes 0.2 to 0.3 s on any machine.
const DRAINED_IN_SECS: f64 = 5.0;
/// What tells how many events that is.
const TRIED: usize = 50_000;

/// So many workers and how they divide the queue; those that are compared first.
pub const WITH_PARTITIONS: [(usize, Way); 5] = [
    (1, Way::Shared),
    (4, Way::Shared),
    (4, Way::Partitioned),
    (2, Way::Partitioned),
    (2, Way::Shared),
];
/// The same without partitions.
pub const ON_ONE_QUEUE: [(usize, Way); 3] = [(1, Way::Shared), (4, Way::Shared), (2, Way::Shared)];

/// How workers divide what is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// All consume one queue.
    Shared,
    /// Each is the active consumer of a partition.
    Partitioned,
}

/// Drains the same events, all of them or what one worker takes five seconds for, in each of the ways so often, there and
/// back: a machine that slows down slows all of them.
pub async fn measure(
    servers: &mut Servers,
    events: &Events,
    what: &str,
    ways: &[(usize, Way)],
    runs: usize,
    report: &mut Report,
) -> Result<()> {
    let (tried, _) = run(servers, events, TRIED.min(events.len()), ways[0]).await?;
    let drained = events.len().min((tried * DRAINED_IN_SECS) as usize);
    let name = format!("events for each drain, {what}");
    report.add(name, drained as f64, "", Limit::None);
    let steal = Steal::count()?;
    let mut rates = vec![Vec::new(); ways.len()];
    let mut deadlocks = 0;
    let mut order: Vec<usize> = (0..ways.len()).collect();
    for _ in 0..runs {
        for which in order.iter().copied() {
            let (rate, seen) = run(servers, events, drained, ways[which]).await?;
            rates[which].push(rate);
            deadlocks += seen;
        }
        order.reverse();
    }
    let one = &rates[0];
    for ((workers, way), rates) in ways.iter().zip(&rates) {
        let name = match way {
            Way::Shared if *workers == 1 => "1 worker".to_owned(),
            Way::Shared => format!("{workers} workers"),
            Way::Partitioned => format!("{workers} partitions, a worker each"),
        };
        let drain = format!("drain by {name}, {what}");
        report.add(drain, median(rates), "events/s", Limit::None);
        let limit = match (workers, way) {
            (1, _) => continue,
            (4, Way::Shared) => Limit::AtLeast(0.95),
            _ => Limit::None,
        };
        let ratio = format!("{name} / 1 worker, {what}");
        report.add(ratio, median_ratio(rates, one), "", limit);
    }
    report.add(
        format!("deadlocks, {what}"),
        deadlocks as f64,
        "",
        Limit::AtMost(0.0),
    );
    report.add(
        format!("processors kept by the host meanwhile, {what}"),
        steal.percent()?,
        "%",
        Limit::None,
    );
    Ok(())
}

/// Drains the first events; returns events a second, and how many deadlocks the database saw.
async fn run(
    servers: &mut Servers,
    events: &Events,
    drained: usize,
    (replicas, way): (usize, Way),
) -> Result<(f64, i64)> {
    let mut place = servers.place().await?;
    let workers = match way {
        Way::Shared => vec![place.clone(); replicas],
        Way::Partitioned => queues::partition(&mut place, replicas).await?,
    };
    load::fill(&place, events.range(0..drained)).await?;
    let start = || workers.iter().map(|of| Worker::start(of, &[])).collect();
    let rate = place.drain_by(servers, start).await?.rate();
    let mut connection = place.connect().await?;
    let deadlocks = sqlx::query_scalar(
        "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()",
    )
    .fetch_one(&mut connection)
    .await?;
    drop(connection);
    place.remove().await?;
    Ok((rate, deadlocks))
}
