//! One, two and four workers, on one queue and on a partition each.

use anyhow::Result;

use crate::events::Events;
use crate::load;
use crate::process::{Steal, Worker};
use crate::report::{Limit, Report, median, median_ratio};
use crate::rig::Servers;

/// So many workers and how they divide the queue, there and back, and one beside four each time: a machine that slows down
/// slows both.
pub const WITH_PARTITIONS: [(usize, Way); 12] = [
    (1, Way::Shared),
    (4, Way::Shared),
    (2, Way::Shared),
    (2, Way::Partitioned),
    (4, Way::Partitioned),
    (4, Way::Partitioned),
    (2, Way::Partitioned),
    (2, Way::Shared),
    (4, Way::Shared),
    (1, Way::Shared),
    (1, Way::Shared),
    (4, Way::Shared),
];
/// The same without partitions.
pub const ON_ONE_QUEUE: [(usize, Way); 8] = [
    (1, Way::Shared),
    (4, Way::Shared),
    (2, Way::Shared),
    (2, Way::Shared),
    (4, Way::Shared),
    (1, Way::Shared),
    (1, Way::Shared),
    (4, Way::Shared),
];

/// How workers divide what is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// All consume one queue.
    Shared,
    /// Each is the active consumer of a partition.
    Partitioned,
}

/// Drains the same events with each number of workers.
pub async fn measure(
    servers: &mut Servers,
    events: &Events,
    what: &str,
    order: &[(usize, Way)],
    report: &mut Report,
) -> Result<()> {
    let (mut rates, steal) = (Vec::new(), Steal::count()?);
    let mut deadlocks = 0;
    for (replicas, way) in order.iter().copied() {
        let (rate, seen) = run(servers, events, replicas, way).await?;
        rates.push((replicas, way, rate));
        deadlocks += seen;
    }
    let rates_of = |replicas, way| {
        let of_these = rates.iter().filter(|run| (run.0, run.1) == (replicas, way));
        of_these.map(|run| run.2).collect::<Vec<f64>>()
    };
    let mut named = Vec::new();
    for (replicas, way) in order.iter().copied() {
        if named.contains(&(replicas, way)) {
            continue;
        }
        named.push((replicas, way));
        let name = match way {
            Way::Shared => format!("drain with {replicas} workers, {what}"),
            Way::Partitioned => format!("drain of {replicas} partitions, a worker each, {what}"),
        };
        let rate = median(&rates_of(replicas, way));
        report.add(name, rate, "events/s", Limit::None);
    }
    report.add(
        format!("4 workers / 1 worker, {what}"),
        median_ratio(&rates_of(4, Way::Shared), &rates_of(1, Way::Shared)),
        "",
        Limit::AtLeast(0.95),
    );
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

/// Events a second, and how many deadlocks the database saw.
async fn run(
    servers: &mut Servers,
    events: &Events,
    replicas: usize,
    way: Way,
) -> Result<(f64, i64)> {
    let mut place = servers.place().await?;
    let workers = match way {
        Way::Shared => vec![place.clone(); replicas],
        Way::Partitioned => load::partition(&mut place, replicas).await?,
    };
    load::fill(&place, events.iter()).await?;
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
