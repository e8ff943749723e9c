//! One, two and four workers on one queue.

use anyhow::Result;

use crate::events::Events;
use crate::load;
use crate::report::{Limit, Report, median};
use crate::rig::Servers;

/// There and back, so that a machine that slows down slows them all.
const ORDER: [usize; 6] = [1, 2, 4, 4, 2, 1];

/// Drains the same events with each number of workers.
pub async fn measure(
    servers: &mut Servers,
    events: &Events,
    what: &str,
    rounds: usize,
    report: &mut Report,
) -> Result<()> {
    let mut rates: [Vec<f64>; 5] = Default::default();
    let mut deadlocks = 0;
    for replicas in ORDER.repeat(rounds) {
        let place = servers.place().await?;
        load::fill(&place, events.iter()).await?;
        rates[replicas].push(place.drain(servers, replicas, &[]).await?.rate());
        let mut connection = place.connect().await?;
        let seen: i64 = sqlx::query_scalar(
            "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()",
        )
        .fetch_one(&mut connection)
        .await?;
        deadlocks += seen;
        drop(connection);
        place.remove().await?;
    }
    for replicas in [1, 2, 4] {
        let name = format!("drain with {replicas} workers, {what}");
        report.add(name, median(&rates[replicas]), "events/s", Limit::None);
    }
    let gain = median(&rates[4]) / median(&rates[1]);
    report.add(
        format!("4 workers / 1 worker, {what}"),
        gain,
        "",
        Limit::AtLeast(0.95),
    );
    report.add(
        format!("deadlocks, {what}"),
        deadlocks as f64,
        "",
        Limit::AtMost(0.0),
    );
    Ok(())
}
