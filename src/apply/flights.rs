//! Upserts the flights of a batch.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, Row};

use super::rows::{Arrays, Rows};
use super::{Written, ensure_stored};
use crate::batch::{ByKey, Newest};
use crate::config::Pooler;
use crate::event::{Flight, SeatsByCabin, State};

/// Writes the flights that are newer than what is stored.
pub(super) async fn write(
    connection: &mut PgConnection,
    pooler: Pooler,
    flights: &ByKey<'_, Flight<'_>>,
) -> sqlx::Result<Written> {
    let mut written = Written::default();
    if flights.is_empty() {
        return Ok(written);
    }
    let inserted = rows(flights.values())
        .bind(pooler.query(include_str!("insert_flights.sql")))
        .fetch_one(&mut *connection)
        .await?;
    let inserted: Vec<String> = inserted.try_get(0)?;
    let inserted: HashSet<&str> = inserted.iter().map(String::as_str).collect();
    let mut known = Vec::new();
    for (key, newest) in flights {
        if inserted.contains(key.as_ref()) {
            written.settle(newest, None);
        } else {
            known.push(key.as_ref());
        }
    }
    if known.is_empty() {
        return Ok(written);
    }
    let stored = pooler
        .query(include_str!("lock_flights.sql"))
        .bind(known)
        .fetch_all(&mut *connection)
        .await?;
    let newer = written.newer(flights, &stored)?;
    ensure_stored("flights", written.keys, flights.len())?;
    let sent = newer.len();
    if sent > 0 {
        let updated = rows(newer.into_iter().map(|(newest, _)| newest))
            .bind(pooler.query(include_str!("update_flights.sql")))
            .execute(connection)
            .await?;
        ensure_stored("flights", updated.rows_affected(), sent)?;
    }
    Ok(written)
}

type Instant = DateTime<Utc>;

/// Puts flights in the order of columns that `insert_flights` and `update_flights` share.
fn rows<'a>(newest: impl IntoIterator<Item = &'a Newest<'a, Flight<'a>>>) -> Arrays {
    let mut rows = Arrays::default();
    for newest in newest {
        put(newest, &mut rows);
    }
    rows
}

fn put<'a>(newest: &'a Newest<'a, Flight<'a>>, row: &mut impl Rows) {
    let (flight, tombstone) = match &newest.revision.state {
        State::Upserted(flight) => (Some(flight), None),
        State::Deleted(tombstone) => (None, Some(tombstone)),
    };
    let aircraft = flight.and_then(|flight| flight.aircraft.as_ref());
    let capacity = flight.and_then(|flight| flight.capacity.as_ref());
    let by_cabin = capacity.and_then(|c| c.by_cabin.as_ref());
    row.row();
    row.field::<&str>(newest.revision.key.as_ref());
    row.field::<i64>(newest.revision.version);
    row.field::<&[u8]>(newest.revision.content_hash.as_slice());
    row.field::<Instant>(tombstone.map(|t| t.deleted_at));
    row.field::<&str>(tombstone.and_then(|t| t.reason.as_deref()));
    row.field::<&str>(flight.map(|f| f.airline.as_str()));
    row.field::<&str>(flight.map(|f| f.flight_number.as_str()));
    row.field::<&str>(flight.and_then(|f| f.suffix.as_ref().map(|text| text.as_str())));
    row.field::<&str>(flight.map(|f| f.origin.as_str()));
    row.field::<&str>(flight.map(|f| f.destination.as_str()));
    row.field::<Instant>(flight.map(|f| f.scheduled_departure));
    row.field::<Instant>(flight.map(|f| f.scheduled_arrival));
    row.field::<Instant>(flight.and_then(|f| f.estimated_departure));
    row.field::<Instant>(flight.and_then(|f| f.actual_departure));
    row.field::<Instant>(flight.and_then(|f| f.actual_arrival));
    row.field::<&str>(aircraft.and_then(|a| a.aircraft_type.as_ref().map(|text| text.as_str())));
    row.field::<&str>(aircraft.and_then(|a| a.registration.as_ref().map(|text| text.as_str())));
    row.field::<i32>(capacity.map(|c| c.total.get()));
    row.field::<String>(by_cabin.map(seats_as_json));
    row.field::<&str>(flight.map(|f| f.status.as_str()));
    row.field::<&str>(newest.source.as_ref());
    row.field::<Instant>(newest.event_at);
}

fn seats_as_json(seats: &SeatsByCabin) -> String {
    let seats: serde_json::Map<_, _> = seats
        .iter()
        .map(|(cabin, seats)| (cabin.as_str().to_owned(), seats.get().into()))
        .collect();
    serde_json::Value::Object(seats).to_string()
}
