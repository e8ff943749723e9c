//! Stores the flights and bookings of a batch whose keys are not stored.

use sqlx::{PgConnection, Row};

use super::insertion::{self, Insertion};
use super::rows::{Arrays, CopyStream};
use super::{booking_rows, ensure_stored, flight_rows};
use crate::batch::{ByKey, Folded, Newest};
use crate::config::Pooler;
use crate::db::sqlstate;
use crate::event::{Booking, Flight};

/// Tells of each flight and booking of a batch, in their order, whether it was stored now.
#[derive(Debug, Default)]
pub(super) struct New {
    pub flights: Vec<bool>,
    pub bookings: Vec<bool>,
}

/// Whether a twin has inserted a key that this batch was copying.
pub(super) fn is_collision(error: &sqlx::Error) -> bool {
    let constraint = error
        .as_database_error()
        .and_then(|error| error.constraint());
    sqlstate::is(error, sqlstate::UNIQUE_VIOLATION) && constraint == Some("bookings_pkey")
}

/// Stores what is new.
pub(super) async fn insert(
    connection: &mut PgConnection,
    pooler: Pooler,
    folded: &Folded<'_>,
    insertion: Insertion,
) -> sqlx::Result<New> {
    if !insertion.copies && !insertion.in_turn {
        return insert_new(connection, pooler, &folded.flights, &folded.bookings).await;
    }
    let flights = insert_new(connection, pooler, &folded.flights, &ByKey::new()).await?;
    if insertion.in_turn {
        insertion::take_turn(connection, pooler).await?;
    }
    let bookings = if insertion.copies {
        copy_new(connection, pooler, &folded.bookings).await?
    } else {
        let none = ByKey::new();
        let bookings = insert_new(connection, pooler, &none, &folded.bookings);
        bookings.await?.bookings
    };
    Ok(New {
        bookings,
        ..flights
    })
}

async fn insert_new(
    connection: &mut PgConnection,
    pooler: Pooler,
    flights: &ByKey<'_, Flight<'_>>,
    bookings: &ByKey<'_, Booking<'_>>,
) -> sqlx::Result<New> {
    if flights.is_empty() && bookings.is_empty() {
        return Ok(New::default());
    }
    let query = pooler.query(include_str!("insert_new.sql"));
    let query = Arrays::of(flights.values(), flight_rows::put).bind(query);
    let query = Arrays::of(bookings.values(), booking_rows::put).bind(query);
    let inserted = query.fetch_one(connection).await?;
    Ok(New {
        flights: are_among(flights, inserted.try_get(0)?),
        bookings: are_among(bookings, inserted.try_get(1)?),
    })
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
        booking_rows::put(Some(newest), &mut stream);
        if let Some(piece) = stream.piece()? {
            copy.send(piece.as_slice()).await?;
        }
    }
    let sent = stream.rows();
    copy.send(stream.finish()?.as_slice()).await?;
    let copied = copy.finish().await?;
    ensure_stored("bookings", copied, sent)
}

/// Tells of each state, in their order, whether its key is one of `keys`, which has no others.
fn are_among<T>(states: &ByKey<'_, T>, mut keys: Vec<String>) -> Vec<bool> {
    keys.sort_unstable();
    let mut keys = keys.iter().peekable();
    states
        .keys()
        .map(|key| keys.next_if(|next| *next == key).is_some())
        .collect()
}
