//! Writes the changes of a batch to `flight_demand`.

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, Row};

use super::ensure_stored;
use super::rows::{Arrays, Rows};
use crate::config::Pooler;
use crate::market::{Delta, DemandKey, Rollup};

/// Adds every change of the rollup, then removes the rows that it has emptied, if there are any.
pub(super) async fn add(
    connection: &mut PgConnection,
    pooler: Pooler,
    rollup: &Rollup<'_>,
) -> sqlx::Result<()> {
    let (mut changed, mut shrunk) = (Arrays::default(), Arrays::default());
    for (
        key,
        Delta {
            demand,
            last_event_at,
        },
    ) in rollup.changes()
    {
        put_key(key, &mut changed);
        changed.field::<i64>(demand.gross_bookings);
        changed.field::<i64>(demand.bookings);
        changed.field::<i64>(demand.cancellations);
        changed.field::<i64>(demand.used);
        changed.field::<i64>(demand.no_show);
        // As text: the driver would write 0.00 as 0, and whether a row that adds up to nothing has decimals
        // would depend on the order of its bookings.
        changed.field::<String>(demand.total_revenue.to_string());
        changed.field::<String>(demand.base_revenue.to_string());
        changed.field::<DateTime<Utc>>(*last_event_at);
        if demand.gross_bookings < 0 {
            put_key(key, &mut shrunk);
        }
    }
    let (sent, may_be_empty) = (changed.rows(), shrunk.rows() > 0);
    if sent == 0 {
        return Ok(());
    }
    let added = changed
        .bind(pooler.query(include_str!("add_demand.sql")))
        .fetch_one(&mut *connection)
        .await?;
    ensure_stored(
        "flight_demand",
        added.try_get::<i64, _>(0)?.unsigned_abs(),
        sent,
    )?;
    let any_is_empty: bool = added.try_get(1)?;
    if any_is_empty && may_be_empty {
        shrunk
            .bind(pooler.query(include_str!("delete_empty_demand.sql")))
            .execute(connection)
            .await?;
    }
    Ok(())
}

fn put_key(key: &DemandKey<'_>, row: &mut impl Rows) {
    row.row();
    row.field::<&str>(key.flight_id);
    row.field::<&str>(key.cabin);
    row.field::<&str>(key.currency);
}
