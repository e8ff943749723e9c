//! Upserts the bookings of a batch and tells what they replaced.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

use super::Written;
use super::booking_columns::BookingColumns;
use crate::batch::{ByKey, Newest, Precedence};
use crate::config::Pooler;
use crate::event::{Booking, BookingStatus, State};
use crate::market::{Counted, Demand};

/// A booking that was written: what MarketData has to take back and what to count.
pub(super) struct Replaced<'a> {
    /// The stored state that counted until now.
    pub stored: Option<Counted>,
    /// The new state, unless it is a tombstone.
    pub booking: Option<&'a Booking<'a>>,
    /// Time of the event.
    pub event_at: DateTime<Utc>,
}

impl<'a> Replaced<'a> {
    fn new(newest: &'a Newest<'a, Booking<'a>>, stored: Option<Counted>) -> Self {
        let booking = match &newest.revision.state {
            State::Upserted(booking) => Some(booking),
            State::Deleted(_) => None,
        };
        Self {
            stored,
            booking,
            event_at: newest.event_at,
        }
    }
}

/// Writes the bookings that are newer than what is stored.
pub(super) async fn write<'a>(
    connection: &mut PgConnection,
    pooler: Pooler,
    bookings: &'a ByKey<'a, Booking<'a>>,
) -> sqlx::Result<(Written, Vec<Replaced<'a>>)> {
    let mut written = Written::default();
    let mut replaced = Vec::with_capacity(bookings.len());
    if bookings.is_empty() {
        return Ok((written, replaced));
    }
    let inserted = BookingColumns::of(bookings.values())
        .bind(pooler.query(include_str!("insert_bookings.sql")))
        .fetch_one(&mut *connection)
        .await?;
    let inserted: Vec<String> = inserted.try_get(0)?;
    let inserted: HashSet<&str> = inserted.iter().map(String::as_str).collect();
    let mut known = Vec::new();
    for (key, newest) in bookings {
        if inserted.contains(key.as_ref()) {
            written.settle(newest.delivery, Precedence::Newer);
            replaced.push(Replaced::new(newest, None));
        } else {
            known.push(key.as_ref());
        }
    }
    if known.is_empty() {
        return Ok((written, replaced));
    }
    let stored = pooler
        .query(include_str!("lock_bookings.sql"))
        .bind(known)
        .fetch_all(&mut *connection)
        .await?;
    let mut newer = Vec::new();
    for row in &stored {
        let Some(newest) = bookings.get(row.try_get::<&str, _>("booking_id")?) else {
            continue;
        };
        let precedence = newest
            .revision
            .precedence(row.try_get("version")?, row.try_get("content_hash")?);
        written.settle(newest.delivery, precedence);
        if precedence == Precedence::Newer {
            replaced.push(Replaced::new(newest, counted(row)?));
            newer.push(newest);
        }
    }
    if !newer.is_empty() {
        BookingColumns::of(newer)
            .bind(pooler.query(include_str!("update_bookings.sql")))
            .execute(connection)
            .await?;
    }
    Ok((written, replaced))
}

/// What a stored booking adds to MarketData; nothing for a tombstone.
fn counted(row: &PgRow) -> sqlx::Result<Option<Counted>> {
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
