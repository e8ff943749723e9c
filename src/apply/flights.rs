//! Upserts the flights of a batch.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use sqlx::postgres::PgArguments;
use sqlx::query::Query;
use sqlx::{PgConnection, Postgres, Row};

use super::Written;
use super::columns::Column;
use crate::batch::{ByKey, Newest, Precedence};
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
    let inserted = Columns::of(flights.values())
        .bind(pooler.query(include_str!("insert_flights.sql")))
        .fetch_one(&mut *connection)
        .await?;
    let inserted: Vec<String> = inserted.try_get(0)?;
    let inserted: HashSet<&str> = inserted.iter().map(String::as_str).collect();
    let mut known = Vec::new();
    for (key, newest) in flights {
        if inserted.contains(key.as_ref()) {
            written.settle(newest.delivery, Precedence::Newer);
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
    let mut newer = Vec::new();
    for row in &stored {
        let Some(newest) = flights.get(row.try_get::<&str, _>("flight_id")?) else {
            continue;
        };
        let precedence = newest
            .revision
            .precedence(row.try_get("version")?, row.try_get("content_hash")?);
        written.settle(newest.delivery, precedence);
        if precedence == Precedence::Newer {
            newer.push(newest);
        }
    }
    if !newer.is_empty() {
        Columns::of(newer)
            .bind(pooler.query(include_str!("update_flights.sql")))
            .execute(connection)
            .await?;
    }
    Ok(written)
}

/// The parameters of `insert_flights` and `update_flights`, a column each.
#[derive(Default)]
struct Columns<'a> {
    flight_ids: Column<&'a str>,
    versions: Column<i64>,
    content_hashes: Column<&'a [u8]>,
    deleted_at: Column<DateTime<Utc>>,
    delete_reasons: Column<&'a str>,
    airlines: Column<&'a str>,
    flight_numbers: Column<&'a str>,
    suffixes: Column<&'a str>,
    origins: Column<&'a str>,
    destinations: Column<&'a str>,
    scheduled_departures: Column<DateTime<Utc>>,
    scheduled_arrivals: Column<DateTime<Utc>>,
    estimated_departures: Column<DateTime<Utc>>,
    actual_departures: Column<DateTime<Utc>>,
    actual_arrivals: Column<DateTime<Utc>>,
    aircraft_types: Column<&'a str>,
    aircraft_registrations: Column<&'a str>,
    capacity_totals: Column<i32>,
    capacities_by_cabin: Column<String>,
    statuses: Column<&'a str>,
    sources: Column<&'a str>,
    last_event_at: Column<DateTime<Utc>>,
}

impl<'a> Columns<'a> {
    fn of(newest: impl IntoIterator<Item = &'a Newest<'a, Flight<'a>>>) -> Self {
        let mut columns = Self::default();
        for state in newest {
            columns.push(state);
        }
        columns
    }

    fn push(&mut self, newest: &'a Newest<'a, Flight<'a>>) {
        let (flight, tombstone) = match &newest.revision.state {
            State::Upserted(flight) => (Some(flight), None),
            State::Deleted(tombstone) => (None, Some(tombstone)),
        };
        let aircraft = flight.and_then(|flight| flight.aircraft.as_ref());
        let capacity = flight.and_then(|flight| flight.capacity.as_ref());
        self.flight_ids.push(newest.revision.key.as_ref());
        self.versions.push(newest.revision.version);
        self.content_hashes
            .push(newest.revision.content_hash.as_slice());
        self.deleted_at.push(tombstone.map(|t| t.deleted_at));
        self.delete_reasons
            .push(tombstone.and_then(|t| t.reason.as_deref()));
        self.airlines.push(flight.map(|f| f.airline.as_str()));
        self.flight_numbers
            .push(flight.map(|f| f.flight_number.as_str()));
        self.suffixes
            .push(flight.and_then(|f| f.suffix.as_ref().map(|text| text.as_str())));
        self.origins.push(flight.map(|f| f.origin.as_str()));
        self.destinations
            .push(flight.map(|f| f.destination.as_str()));
        self.scheduled_departures
            .push(flight.map(|f| f.scheduled_departure));
        self.scheduled_arrivals
            .push(flight.map(|f| f.scheduled_arrival));
        self.estimated_departures
            .push(flight.and_then(|f| f.estimated_departure));
        self.actual_departures
            .push(flight.and_then(|f| f.actual_departure));
        self.actual_arrivals
            .push(flight.and_then(|f| f.actual_arrival));
        self.aircraft_types
            .push(aircraft.and_then(|a| a.aircraft_type.as_ref().map(|text| text.as_str())));
        self.aircraft_registrations
            .push(aircraft.and_then(|a| a.registration.as_ref().map(|text| text.as_str())));
        self.capacity_totals.push(capacity.map(|c| c.total.get()));
        self.capacities_by_cabin.push(
            capacity
                .and_then(|c| c.by_cabin.as_ref())
                .map(seats_as_json),
        );
        self.statuses.push(flight.map(|f| f.status.as_str()));
        self.sources.push(newest.source.as_ref());
        self.last_event_at.push(newest.event_at);
    }

    fn bind<'q>(self, query: Query<'q, Postgres, PgArguments>) -> Query<'q, Postgres, PgArguments> {
        query
            .bind(self.flight_ids)
            .bind(self.versions)
            .bind(self.content_hashes)
            .bind(self.deleted_at)
            .bind(self.delete_reasons)
            .bind(self.airlines)
            .bind(self.flight_numbers)
            .bind(self.suffixes)
            .bind(self.origins)
            .bind(self.destinations)
            .bind(self.scheduled_departures)
            .bind(self.scheduled_arrivals)
            .bind(self.estimated_departures)
            .bind(self.actual_departures)
            .bind(self.actual_arrivals)
            .bind(self.aircraft_types)
            .bind(self.aircraft_registrations)
            .bind(self.capacity_totals)
            .bind(self.capacities_by_cabin)
            .bind(self.statuses)
            .bind(self.sources)
            .bind(self.last_event_at)
    }
}

fn seats_as_json(seats: &SeatsByCabin) -> String {
    let seats: serde_json::Map<_, _> = seats
        .iter()
        .map(|(cabin, seats)| (cabin.as_str().to_owned(), seats.get().into()))
        .collect();
    serde_json::Value::Object(seats).to_string()
}
