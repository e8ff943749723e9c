//! Upserts the bookings of a batch and tells what they replaced.

use chrono::{DateTime, Utc};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

use super::booking_rows::{put, rows};
use super::insertion::{self, Insertion};
use super::rows::{Arrays, CopyStream};
use super::{Written, ensure_stored};
use crate::batch::{ByKey, Newest};
use crate::config::Pooler;
use crate::db::sqlstate;
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

/// Whether a twin has inserted a key that this batch was copying.
pub(super) fn is_collision(error: &sqlx::Error) -> bool {
    let constraint = error
        .as_database_error()
        .and_then(|error| error.constraint());
    sqlstate::is(error, sqlstate::UNIQUE_VIOLATION) && constraint == Some("bookings_pkey")
}

/// Writes the bookings that are newer than what is stored.
pub(super) async fn write<'a>(
    connection: &mut PgConnection,
    pooler: Pooler,
    bookings: &'a ByKey<'a, Booking<'a>>,
    insertion: Insertion,
) -> sqlx::Result<(Written, Vec<Replaced<'a>>)> {
    let mut written = Written::default();
    let mut replaced = Vec::with_capacity(bookings.len());
    if bookings.is_empty() {
        return Ok((written, replaced));
    }
    if insertion.in_turn {
        insertion::take_turn(connection, pooler).await?;
    }
    let new = if insertion.copies {
        copy_new(connection, pooler, bookings).await?
    } else {
        insert_new(connection, pooler, bookings).await?
    };
    let mut known = Vec::new();
    for ((key, newest), is_new) in bookings.iter().zip(new) {
        if is_new {
            written.settle(newest, None);
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
    let newer = written.newer(bookings, &stored)?;
    for &(newest, row) in &newer {
        replaced.push(Replaced::new(newest, counted(row)?));
    }
    ensure_stored("bookings", written.keys, bookings.len())?;
    let sent = newer.len();
    if sent > 0 {
        let updated = rows::<Arrays>(newer.into_iter().map(|(newest, _)| newest))
            .bind(pooler.query(include_str!("update_bookings.sql")))
            .execute(connection)
            .await?;
        ensure_stored("bookings", updated.rows_affected(), sent)?;
    }
    Ok((written, replaced))
}

/// Copies the bookings that are not stored; tells of each whether it is one of them.
async fn copy_new(
    connection: &mut PgConnection,
    pooler: Pooler,
    bookings: &ByKey<'_, Booking<'_>>,
) -> sqlx::Result<Vec<bool>> {
    let keys: Vec<&str> = bookings.keys().map(AsRef::as_ref).collect();
    let stored = pooler
        .query(include_str!("stored_bookings.sql"))
        .bind(keys)
        .fetch_one(&mut *connection)
        .await?;
    let is_stored = are_among(bookings, stored.try_get(0)?);
    let new = bookings.values().zip(&is_stored);
    let mut new = new.filter_map(|(newest, is_stored)| (!is_stored).then_some(newest));
    if let Some(first) = new.next() {
        copy(connection, std::iter::once(first).chain(new)).await?;
    }
    Ok(is_stored.into_iter().map(|is_stored| !is_stored).collect())
}

/// Copies bookings, in pieces, so that the server is at work on one while the next is made.
async fn copy<'a>(
    connection: &mut PgConnection,
    bookings: impl Iterator<Item = &'a Newest<'a, Booking<'a>>>,
) -> sqlx::Result<()> {
    let mut copy = connection
        .copy_in_raw(include_str!("copy_bookings.sql"))
        .await?;
    let mut stream = CopyStream::default();
    for newest in bookings {
        put(newest, &mut stream);
        if let Some(piece) = stream.piece()? {
            copy.send(piece.as_slice()).await?;
        }
    }
    let sent = stream.rows();
    copy.send(stream.finish()?.as_slice()).await?;
    let copied = copy.finish().await?;
    ensure_stored("bookings", copied, sent)
}

/// Inserts the bookings that are not stored; tells of each whether it is one of them.
async fn insert_new(
    connection: &mut PgConnection,
    pooler: Pooler,
    bookings: &ByKey<'_, Booking<'_>>,
) -> sqlx::Result<Vec<bool>> {
    let inserted = rows::<Arrays>(bookings.values())
        .bind(pooler.query(include_str!("insert_bookings.sql")))
        .fetch_one(connection)
        .await?;
    Ok(are_among(bookings, inserted.try_get(0)?))
}

/// Tells of each booking, in their order, whether its key is among some that all are keys of them.
fn are_among(bookings: &ByKey<'_, Booking<'_>>, mut keys: Vec<String>) -> Vec<bool> {
    keys.sort_unstable();
    let mut keys = keys.iter().peekable();
    bookings
        .keys()
        .map(|key| keys.next_if(|next| *next == key).is_some())
        .collect()
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
