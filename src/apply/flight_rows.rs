//! The flights of a batch as rows of a statement.

use chrono::{DateTime, Utc};

use super::rows::Rows;
use crate::batch::Newest;
use crate::event::{Flight, SeatsByCabin};

type Instant = DateTime<Utc>;

/// Puts one flight in the order of columns that `insert_new` and `conclude` share, or NULL in each of them.
pub(super) fn put<'a>(newest: Option<&'a Newest<'a, Flight<'a>>>, row: &mut impl Rows) {
    let (flight, tombstone) = newest.map(|n| n.revision.state.parts()).unwrap_or_default();
    let aircraft = flight.and_then(|flight| flight.aircraft.as_ref());
    let capacity = flight.and_then(|flight| flight.capacity.as_ref());
    let by_cabin = capacity.and_then(|c| c.by_cabin.as_ref());
    row.row();
    row.field::<&str>(newest.map(|n| n.revision.key.as_ref()));
    row.field::<i64>(newest.map(|n| n.revision.version));
    row.field::<&[u8]>(newest.map(|n| n.revision.content_hash.as_slice()));
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
    row.field::<&str>(newest.map(|n| n.source.as_ref()));
    row.field::<Instant>(newest.map(|n| n.event_at));
}

fn seats_as_json(seats: &SeatsByCabin) -> String {
    let seats: serde_json::Map<_, _> = seats
        .iter()
        .map(|(cabin, seats)| (cabin.as_str().to_owned(), seats.get().into()))
        .collect();
    serde_json::Value::Object(seats).to_string()
}
