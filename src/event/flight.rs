//! The flight as producers publish it.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use serde::de::MapAccess;
use serde_json::{Map, Value, json};

use super::codes::{Cabin, FlightStatus};
use super::contract::{Contract, contract};
use super::digest::{Digest, Hashed};
use super::json::{Decode, Fields, Node, Path, Place};
use super::numbers::{Seats, Version};
use super::reason::{Reason, Rejected};
use super::text::{Airline, Airport, FlightNumber, Key, Letter, Text};

/// No scheduled flight takes longer.
const FLIGHT_TIME_MAX: TimeDelta = TimeDelta::hours(24);

contract! {
    /// The whole state of one flight after a change: one operating leg on one day.
    pub struct Flight<'a> {
        /// Opaque key of the flight.
        flight_id: Key<'a>,
        /// Grows with every change of this flight; gaps are fine.
        version: Version,
        /// IATA designator of the operating airline.
        airline: Airline<'a>,
        /// Flight number without airline and suffix.
        flight_number: FlightNumber<'a>,
        /// Operational suffix.
        suffix: Option<Letter<'a>>,
        /// IATA code of the airport of departure.
        origin: Airport<'a>,
        /// IATA code of the airport of arrival, another than `origin`.
        destination: Airport<'a>,
        /// Scheduled departure.
        scheduled_departure: DateTime<Utc>,
        /// Scheduled arrival: after the departure, at most 24 hours later.
        scheduled_arrival: DateTime<Utc>,
        /// Estimated departure.
        estimated_departure: Option<DateTime<Utc>>,
        /// Actual departure.
        actual_departure: Option<DateTime<Utc>>,
        /// Actual arrival.
        actual_arrival: Option<DateTime<Utc>>,
        /// The aircraft that flies it.
        aircraft: Option<Aircraft<'a>>,
        /// Seats for sale; absent means unknown.
        capacity: Option<Capacity>,
        /// Where the flight stands.
        status: FlightStatus,
    }
    check check_leg;
}

contract! {
    /// An aircraft.
    pub struct Aircraft<'a> {
        /// Aircraft type.
        aircraft_type = "type": Option<Text<'a>>,
        /// Registration (tail number).
        registration: Option<Text<'a>>,
    }
}

contract! {
    /// Seats for sale.
    pub struct Capacity {
        /// In the whole aircraft.
        total: Seats,
        /// By cabin letter, adding up to `total`; a cabin without seats is left out.
        by_cabin: Option<SeatsByCabin>,
    }
    check check_capacity;
}

contract! {
    /// The tombstone of a flight.
    pub struct FlightDeleted<'a> {
        /// Opaque key of the flight.
        flight_id: Key<'a>,
        /// Grows with every change of this flight; gaps are fine.
        version: Version,
        /// When the flight was deleted.
        deleted_at: DateTime<Utc>,
        /// Why it was deleted.
        reason: Option<Text<'a>>,
    }
}

/// Seats of each cabin that the aircraft has.
pub type SeatsByCabin = BTreeMap<Cabin, Seats>;

impl<'a> Decode<'a> for SeatsByCabin {
    fn decode(node: Node<'a>, at: &Path<'_>) -> Result<Self, Rejected> {
        Err(node.unexpected("an object", at))
    }

    fn decode_object<A: MapAccess<'a>>(
        mut entries: A,
        place: Place<'_>,
    ) -> Result<Result<Self, Rejected>, A::Error> {
        let mut fields = Fields::new(place)?;
        let mut seats = Ok(Self::new());
        while let Some(key) = fields.next_key(&mut entries)? {
            let Some(cabin) = Cabin::from_code(&key) else {
                fields.skip(key, &mut entries)?;
                // A cabin that we do not know holds seats that we would lose: not an unknown field.
                let expected = "must have no other keys than F, C, W, Y";
                seats = seats.and(Err(place.at.reject(Reason::UnknownValue, expected)));
                continue;
            };
            fields.note(key);
            let of_cabin = fields.value(cabin.as_str(), &mut entries)?;
            seats = seats.and_then(|mut seats: Self| {
                seats.insert(cabin, of_cabin?);
                Ok(seats)
            });
        }
        fields.end()?;
        Ok(seats)
    }
}

impl<'a> Contract<'a> for SeatsByCabin {
    fn schema() -> Value {
        let cabins: Map<_, _> = Cabin::ALL
            .iter()
            .map(|cabin| (cabin.as_str().to_owned(), Seats::schema()))
            .collect();
        json!({
            "type": "object",
            "properties": cabins,
            "additionalProperties": false,
            "minProperties": 1,
        })
    }
}

impl Hashed for SeatsByCabin {
    fn digest(&self, into: &mut Digest) {
        into.begin();
        for (cabin, seats) in self {
            into.field(cabin.as_str());
            seats.digest(into);
        }
        into.end();
    }
}

fn check_leg<'a>(flight: Flight<'a>, at: &Path<'_>) -> Result<Flight<'a>, Rejected> {
    if flight.origin == flight.destination {
        let expected = "must differ from origin";
        return Err(at
            .field("destination")
            .reject(Reason::SameAirport, expected));
    }
    let at = at.field("scheduled_arrival");
    let flight_time = flight.scheduled_arrival - flight.scheduled_departure;
    if flight_time <= TimeDelta::zero() {
        let expected = "must be after scheduled_departure";
        return Err(at.reject(Reason::ArrivalNotAfterDeparture, expected));
    }
    if flight_time > FLIGHT_TIME_MAX {
        let expected = "must be at most 24 hours after scheduled_departure";
        return Err(at.reject(Reason::FlightTooLong, expected));
    }
    Ok(flight)
}

fn check_capacity(capacity: Capacity, at: &Path<'_>) -> Result<Capacity, Rejected> {
    if let Some(seats) = &capacity.by_cabin {
        let sum: i32 = seats.values().map(|seats| seats.get()).sum();
        if sum != capacity.total.get() {
            let expected = "must add up to total";
            return Err(at
                .field("by_cabin")
                .reject(Reason::CapacityMismatch, expected));
        }
    }
    Ok(capacity)
}
