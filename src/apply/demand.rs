//! Writes the changes of a batch to `flight_demand`.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::columns::Column;
use crate::config::Pooler;
use crate::market::{DemandKey, Rollup};

#[derive(Default)]
struct Columns<'a> {
    keys: Keys<'a>,
    gross_bookings: Column<i64>,
    bookings: Column<i64>,
    cancellations: Column<i64>,
    used: Column<i64>,
    no_show: Column<i64>,
    // As text: the driver would write 0.00 as 0, and whether a row that adds up to nothing has decimals
    // would depend on the order of its bookings.
    total_revenue: Column<String>,
    base_revenue: Column<String>,
    last_event_at: Column<DateTime<Utc>>,
}

#[derive(Default)]
struct Keys<'a> {
    flight_ids: Column<&'a str>,
    cabins: Column<&'a str>,
    currencies: Column<&'a str>,
}

impl<'a> Keys<'a> {
    fn push(&mut self, key: &DemandKey<'a>) {
        self.flight_ids.push(key.flight_id);
        self.cabins.push(key.cabin);
        self.currencies.push(key.currency);
    }
}

/// Adds every change of the rollup, then removes the rows that it has emptied.
pub(super) async fn add(
    connection: &mut PgConnection,
    pooler: Pooler,
    rollup: &Rollup<'_>,
) -> sqlx::Result<()> {
    let mut columns = Columns::default();
    let mut shrunk = Keys::default();
    for (key, delta) in rollup.changes() {
        columns.keys.push(key);
        columns.gross_bookings.push(delta.demand.gross_bookings);
        columns.bookings.push(delta.demand.bookings);
        columns.cancellations.push(delta.demand.cancellations);
        columns.used.push(delta.demand.used);
        columns.no_show.push(delta.demand.no_show);
        columns
            .total_revenue
            .push(delta.demand.total_revenue.to_string());
        columns
            .base_revenue
            .push(delta.demand.base_revenue.to_string());
        columns.last_event_at.push(delta.last_event_at);
        if delta.demand.gross_bookings < 0 {
            shrunk.push(key);
        }
    }
    if columns.keys.flight_ids.is_empty() {
        return Ok(());
    }
    pooler
        .query(include_str!("add_demand.sql"))
        .bind(columns.keys.flight_ids)
        .bind(columns.keys.cabins)
        .bind(columns.keys.currencies)
        .bind(columns.gross_bookings)
        .bind(columns.bookings)
        .bind(columns.cancellations)
        .bind(columns.used)
        .bind(columns.no_show)
        .bind(columns.total_revenue)
        .bind(columns.base_revenue)
        .bind(columns.last_event_at)
        .execute(&mut *connection)
        .await?;
    if !shrunk.flight_ids.is_empty() {
        pooler
            .query(include_str!("delete_empty_demand.sql"))
            .bind(shrunk.flight_ids)
            .bind(shrunk.cabins)
            .bind(shrunk.currencies)
            .execute(connection)
            .await?;
    }
    Ok(())
}
