//! What is stored for the keys of a batch that were not new.

use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

use crate::config::Pooler;
use crate::event::BookingStatus;
use crate::market::{Counted, Demand};

/// Locked rows, each with its key, version and content hash.
#[derive(Default)]
pub(super) struct Stored {
    pub flights: Vec<PgRow>,
    pub bookings: Vec<PgRow>,
}

/// Locks what is stored for some keys.
pub(super) async fn lock(
    connection: &mut PgConnection,
    pooler: Pooler,
    flights: &[&str],
    bookings: &[&str],
) -> sqlx::Result<Stored> {
    let mut stored = Stored::default();
    if flights.is_empty() && bookings.is_empty() {
        return Ok(stored);
    }
    let rows = pooler
        .query(include_str!("lock_stored.sql"))
        .bind(flights)
        .bind(bookings)
        .fetch_all(connection)
        .await?;
    for row in rows {
        if row.try_get("is_flight")? {
            stored.flights.push(row);
        } else {
            stored.bookings.push(row);
        }
    }
    Ok(stored)
}

/// What a stored booking adds to MarketData; nothing for a tombstone.
pub(super) fn counted(row: &PgRow) -> sqlx::Result<Option<Counted>> {
    let Some(flight_id) = row.try_get("flight_id")? else {
        return Ok(None);
    };
    let status: &str = row.try_get("status")?;
    let status = BookingStatus::from_code(status).ok_or_else(|| {
        sqlx::Error::Decode(format!("bookings.status holds an unknown code: {status}").into())
    })?;
    Ok(Some(Counted {
        flight_id,
        cabin: row.try_get("cabin")?,
        currency: row.try_get("currency")?,
        demand: Demand::of(
            status,
            row.try_get("price_base")?,
            row.try_get("price_total")?,
        ),
    }))
}
