//! A steady load for a long time: whether anything grows that should not.

use std::ops::Range;
use std::time::Duration;

use anyhow::Result;

use crate::events::Events;
use crate::process::Worker;
use crate::producer::Producer;
use crate::report::{Limit, Report};
use crate::rig::{Place, Servers, committed};

/// Events that are sent together, and how often: a fraction of what two cores can do, so that nothing ever waits.
const BURST: usize = 30;
const BURST_EVERY: Duration = Duration::from_millis(100);
/// Looks at everything, evenly spread.
const PARTS: usize = 12;
/// The first of them, until tables and worker have the size of daily business.
const SETTLING: usize = 2;

/// How things stood at the end of a part, or were meanwhile.
#[derive(Debug, Clone, Copy)]
struct Part {
    /// CPU-seconds of worker and PostgreSQL for a million events; not a number where PostgreSQL's are not to be seen.
    cpu: f64,
    /// Mebibytes resident in the worker.
    memory: f64,
    tables: Tables,
    /// Updates without a new index entry, of all in this part, percent.
    bookings_hot: f64,
    demand_hot: f64,
}

/// Sizes in bytes; counts since the database was made.
#[derive(Debug, Clone, Copy, Default, sqlx::FromRow)]
struct Tables {
    bookings_row: f64,
    bookings_index_row: f64,
    demand_row: f64,
    bookings_updates: f64,
    bookings_hot_updates: f64,
    demand_updates: f64,
    demand_hot_updates: f64,
}

const LOOK: &str = "
    WITH rows AS (
        SELECT (SELECT count(*) FROM bookings)::float8 AS bookings, (SELECT count(*) FROM flight_demand)::float8 AS demand
    )
    SELECT pg_table_size('bookings') / rows.bookings AS bookings_row,
           pg_indexes_size('bookings') / rows.bookings AS bookings_index_row,
           pg_total_relation_size('flight_demand') / rows.demand AS demand_row,
           b.n_tup_upd::float8 AS bookings_updates, b.n_tup_hot_upd::float8 AS bookings_hot_updates,
           d.n_tup_upd::float8 AS demand_updates, d.n_tup_hot_upd::float8 AS demand_hot_updates
    FROM rows, pg_stat_user_tables b, pg_stat_user_tables d
    WHERE b.relname = 'bookings' AND d.relname = 'flight_demand'";

/// One worker, so many minutes, nothing but the autovacuum of a server as it is installed.
pub async fn measure(servers: &mut Servers, minutes: f64, report: &mut Report) -> Result<()> {
    let seconds = minutes * 60.0 / PARTS as f64;
    let events = (seconds / BURST_EVERY.as_secs_f64()) as usize * BURST;
    let all = Events::generate(events * PARTS, None)?;
    let place = servers.place().await?;
    let worker = Worker::start(&place, &[])?;
    let mut progress = place.connect().await?;
    let mut parts = Vec::with_capacity(PARTS);
    let mut before = Tables::default();
    for number in 0..PARTS {
        let at_first = servers.cpu_with(&worker)?.unwrap_or(f64::NAN);
        let part = number * events..(number + 1) * events;
        send(&place, &all, part).await?;
        committed(&mut progress, ((number + 1) * events) as u64).await?;
        let cpu = servers.cpu_with(&worker)?.unwrap_or(f64::NAN) - at_first;
        let tables = look(&place).await?;
        let part = Part {
            cpu: cpu / events as f64 * 1e6,
            memory: worker.rss()? as f64 / f64::from(1 << 20),
            tables,
            bookings_hot: percent(
                tables.bookings_hot_updates - before.bookings_hot_updates,
                tables.bookings_updates - before.bookings_updates,
            ),
            demand_hot: percent(
                tables.demand_hot_updates - before.demand_hot_updates,
                tables.demand_updates - before.demand_updates,
            ),
        };
        before = tables;
        println!(
            "After {:.0} min: {part:?}",
            (number + 1) as f64 * seconds / 60.0
        );
        parts.push(part);
    }
    worker.stop().await?;
    place.assert_exact().await?;
    place.remove().await?;
    compare(&parts, report);
    Ok(())
}

async fn send(place: &Place, events: &Events, part: Range<usize>) -> Result<()> {
    let mut producer = Producer::connect(place).await?;
    let mut next_burst = tokio::time::interval(BURST_EVERY);
    for start in part.clone().step_by(BURST) {
        next_burst.tick().await;
        for event in events.range(start..part.end.min(start + BURST)) {
            producer.put(&event)?;
        }
        producer.flush().await?;
    }
    producer.close().await
}

/// What is looked at of a part.
type Figure = fn(&Part) -> f64;

/// The worst of the second half with the worst of the first, once all has settled: the leaves of an index of random keys
/// fill together and split together, so what a booking takes of it goes up and down all the time.
fn compare(parts: &[Part], report: &mut Report) {
    let settled = &parts[SETTLING..];
    let (first, second) = settled.split_at(settled.len() / 2);
    let most = |half: &[Part], of: Figure| half.iter().map(of).fold(f64::NEG_INFINITY, f64::max);
    let least = |half: &[Part], of: Figure| half.iter().map(of).fold(f64::INFINITY, f64::min);
    let growing: [(&str, &'static str, Figure); 5] = [
        ("CPU of worker and database", "s/1M", |part| part.cpu),
        ("memory of the worker", "MiB", |part| part.memory),
        ("table of bookings, for each", "bytes", |part| {
            part.tables.bookings_row
        }),
        ("indexes of bookings, for each", "bytes", |part| {
            part.tables.bookings_index_row
        }),
        ("flight_demand, for each row", "bytes", |part| {
            part.tables.demand_row
        }),
    ];
    for (name, unit, of) in growing {
        if parts.iter().any(|part| of(part).is_nan()) {
            continue;
        }
        let before = most(first, of);
        report.add(
            format!("{name}, most of the first half"),
            before,
            unit,
            Limit::None,
        );
        report.add(
            format!("{name}, most of the second"),
            most(second, of),
            unit,
            Limit::AtMost(1.15 * before),
        );
    }
    let shares: [(&str, Figure); 2] = [
        ("HOT share of updates of bookings", |part| part.bookings_hot),
        ("HOT share of updates of flight_demand", |part| {
            part.demand_hot
        }),
    ];
    for (name, of) in shares {
        let before = least(first, of);
        report.add(
            format!("{name}, least of the first half"),
            before,
            "%",
            Limit::None,
        );
        report.add(
            format!("{name}, least of the second"),
            least(second, of),
            "%",
            Limit::AtLeast(0.85 * before),
        );
    }
}

async fn look(place: &Place) -> Result<Tables> {
    let mut connection = place.connect().await?;
    Ok(sqlx::query_as(LOOK).fetch_one(&mut connection).await?)
}

fn percent(part: f64, all: f64) -> f64 {
    part / all * 100.0
}
