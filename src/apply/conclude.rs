//! Writes what a batch changes in rows that it holds, what it adds to `flight_demand`, and the count of its verdicts.

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, Row};

use super::rows::{Arrays, Rows};
use super::{Committer, booking_rows, ensure_stored, flight_rows};
use crate::batch::{Newest, VerdictCounts};
use crate::event::{Booking, Flight};
use crate::market::{Delta, DemandKey, Rollup};

/// What is left to write of a batch once it is known what is stored.
pub(super) struct Conclusion<'a> {
    /// Newer states of flights that are locked.
    pub flights: Vec<&'a Newest<'a, Flight<'a>>>,
    /// Newer states of bookings that are locked.
    pub bookings: Vec<&'a Newest<'a, Booking<'a>>>,
    /// What all bookings of the batch change in MarketData.
    pub rollup: Rollup<'a>,
    /// Newest event time in the batch.
    pub last_event_at: Option<DateTime<Utc>>,
    /// All verdicts.
    pub counts: VerdictCounts,
}

/// Writes it, then removes the rows of `flight_demand` that it has emptied, if there are any; returns which of the
/// committer's batches this is.
pub(super) async fn conclude(
    connection: &mut PgConnection,
    committer: &Committer,
    conclusion: Conclusion<'_>,
) -> sqlx::Result<i64> {
    let pooler = committer.pooler;
    let Conclusion {
        flights,
        bookings,
        rollup,
        last_event_at,
        counts,
    } = conclusion;
    let sent = [
        ("flights", flights.len()),
        ("bookings", bookings.len()),
        ("flight_demand", rollup.changes().count()),
    ];
    let query = pooler
        .query(include_str!("conclude.sql"))
        .bind(&committer.id)
        .bind(committer.started_at)
        .bind(last_event_at)
        .bind(counts.total() as i64)
        .bind(counts.applied as i64)
        .bind(counts.duplicate as i64)
        .bind(counts.stale as i64)
        .bind(counts.folded as i64)
        .bind(counts.quarantined as i64);
    let query = Arrays::of(flights, flight_rows::put).bind(query);
    let query = Arrays::of(bookings, booking_rows::put).bind(query);
    let query = Arrays::of(rollup.changes(), put_change).bind(query);
    let written = query.fetch_one(&mut *connection).await?;
    for (column, (table, sent)) in (1..).zip(sent) {
        let stored: i64 = written.try_get(column)?;
        ensure_stored(table, stored.unsigned_abs(), sent)?;
    }
    if written.try_get(4)? {
        let may_be_empty = |change: &(_, &Delta)| change.1.demand.gross_bookings < 0;
        let shrunk = Arrays::of(rollup.changes().filter(may_be_empty), put_key);
        shrunk
            .bind(pooler.query(include_str!("delete_empty_demand.sql")))
            .execute(connection)
            .await?;
    }
    written.try_get(0)
}

type Change<'r, 'a> = (&'r DemandKey<'a>, &'r Delta);

fn put_change(change: Option<Change<'_, '_>>, row: &mut Arrays) {
    put_key(change, row);
    let delta = change.map(|(_, delta)| delta);
    let demand = delta.map(|delta| delta.demand);
    row.field::<i64>(demand.map(|demand| demand.gross_bookings));
    row.field::<i64>(demand.map(|demand| demand.bookings));
    row.field::<i64>(demand.map(|demand| demand.cancellations));
    row.field::<i64>(demand.map(|demand| demand.used));
    row.field::<i64>(demand.map(|demand| demand.no_show));
    // As text: the driver would write 0.00 as 0, and whether a row that adds up to nothing has decimals
    // would depend on the order of its bookings.
    row.field::<String>(demand.map(|demand| demand.total_revenue.to_string()));
    row.field::<String>(demand.map(|demand| demand.base_revenue.to_string()));
    row.field::<DateTime<Utc>>(delta.map(|delta| delta.last_event_at));
}

fn put_key(change: Option<Change<'_, '_>>, row: &mut Arrays) {
    let key = change.map(|(key, _)| key);
    row.row();
    row.field::<&str>(key.map(|key| key.flight_id));
    row.field::<&str>(key.map(|key| key.cabin));
    row.field::<&str>(key.map(|key| key.currency));
}
