//! The event contract: bytes to [`Event`] or [`Rejected`], and the schemas that producers get.
//!
//! Pure: no I/O, no clock. A message that breaks a rule is a value like any other; the checks run
//! in the order of the contract, so the same message is always rejected for the same reason.

mod booking;
mod closed_list;
mod codes;
mod contract;
mod digest;
mod envelope;
mod flight;
mod json;
mod kind;
mod message;
mod money;
mod numbers;
mod reason;
mod schema;
#[cfg(test)]
mod tests;
mod text;
mod time;

use std::borrow::Cow;

use chrono::{DateTime, Utc};

pub use booking::{Booking, BookingDeleted, Journey, Passenger};
pub use codes::{BookingStatus, Cabin, FlightStatus, PaymentStatus};
pub use flight::{Aircraft, Capacity, Flight, FlightDeleted, SeatsByCabin};
pub use kind::Kind;
pub use message::{Delivery, Message};
pub use money::{Country, Currency, Price};
pub use numbers::{Coupon, Seats, Version};
pub use reason::{Reason, Rejected};
pub use schema::{SchemaKind, asyncapi, json_schema};
pub use text::{
    Airline, Airport, EventId, FlightNumber, Key, Letter, Personal, Reference, Text, TicketNumber,
    UriReference,
};

use digest::content_hash;
use envelope::{Data, Opened};

/// The version of the contract that this release reads.
pub const CONTRACT_VERSION: &str = "1";

/// Largest body. A larger one is rejected by its length, before it is parsed.
pub const BODY_BYTES_MAX: usize = 256 * 1024;

/// The content type that producers set.
pub const CONTENT_TYPE: &str = "application/cloudevents+json";

/// An event that keeps every rule of the contract.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event<'a> {
    /// The id that its producer gave it.
    pub id: Cow<'a, str>,
    /// URI reference of its producer.
    pub source: Cow<'a, str>,
    /// Its type.
    pub kind: Kind,
    /// When it happened; never decides order.
    pub time: DateTime<Utc>,
    /// What it says.
    pub change: Change<'a>,
}

/// What an event is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change<'a> {
    /// A booking.
    Booking(Revision<'a, Booking<'a>>),
    /// A flight.
    Flight(Revision<'a, Flight<'a>>),
}

/// One version of a booking or flight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revision<'a, T> {
    /// `booking_id` or `flight_id`.
    pub key: Cow<'a, str>,
    /// Only a higher version replaces a stored one.
    pub version: i64,
    /// Hash of the contract fields: equal for events that say the same, however they spell it.
    pub content_hash: [u8; 16],
    /// The state that the version brings.
    pub state: State<'a, T>,
}

/// The state of a booking or flight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State<'a, T> {
    /// It exists, and this is all of it.
    Upserted(T),
    /// It is gone.
    Deleted(Tombstone<'a>),
}

impl<'a, T> State<'a, T> {
    /// The entity, or what is left of it: one of the two.
    pub fn parts(&self) -> (Option<&T>, Option<&Tombstone<'a>>) {
        match self {
            Self::Upserted(entity) => (Some(entity), None),
            Self::Deleted(tombstone) => (None, Some(tombstone)),
        }
    }
}

/// What is left of something deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tombstone<'a> {
    /// When it was deleted.
    pub deleted_at: DateTime<Utc>,
    /// Why, if the producer says so.
    pub reason: Option<Cow<'a, str>>,
}

/// Reads a message; the event borrows from its body.
pub fn decode<'a>(message: &Message<'a>) -> Result<Event<'a>, Rejected> {
    let Opened {
        id,
        source,
        kind,
        time,
        data,
    } = envelope::open(message)?;
    let change = match data {
        Data::Booking(booking) => Change::Booking(Revision {
            key: booking.booking_id.clone().into_inner(),
            version: booking.version.get(),
            content_hash: content_hash(kind, &booking),
            state: State::Upserted(booking),
        }),
        Data::BookingDeleted(deleted) => Change::Booking(Revision {
            content_hash: content_hash(kind, &deleted),
            key: deleted.booking_id.into_inner(),
            version: deleted.version.get(),
            state: State::Deleted(Tombstone::new(deleted.deleted_at, deleted.reason)),
        }),
        Data::Flight(flight) => Change::Flight(Revision {
            key: flight.flight_id.clone().into_inner(),
            version: flight.version.get(),
            content_hash: content_hash(kind, &flight),
            state: State::Upserted(flight),
        }),
        Data::FlightDeleted(deleted) => Change::Flight(Revision {
            content_hash: content_hash(kind, &deleted),
            key: deleted.flight_id.into_inner(),
            version: deleted.version.get(),
            state: State::Deleted(Tombstone::new(deleted.deleted_at, deleted.reason)),
        }),
    };
    Ok(Event {
        id,
        source,
        kind,
        time,
        change,
    })
}

impl<'a> Tombstone<'a> {
    fn new(deleted_at: DateTime<Utc>, reason: Option<Text<'a>>) -> Self {
        Tombstone {
            deleted_at,
            reason: reason.map(Text::into_inner),
        }
    }
}
