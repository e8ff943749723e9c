//! The booking as producers publish it.

use chrono::{DateTime, NaiveDate, Utc};
use serde_json::{Value, json};

use super::codes::{BookingStatus, Cabin, PaymentStatus};
use super::contract::contract;
use super::json::Path;
use super::money::{Country, Price};
use super::numbers::{Coupon, Version};
use super::reason::{Reason, Rejected};
use super::text::{Airport, Key, Letter, Personal, Reference, Text, TicketNumber};

contract! {
    /// The whole state of one booking after a change: one passenger on one flight, which is what a
    /// ticket coupon is.
    pub struct Booking<'a> {
        /// Opaque key of the booking.
        booking_id: Key<'a>,
        /// Grows with every change of this booking; gaps are fine.
        version: Version,
        /// Record locator; not unique, never a key.
        reference: Reference<'a>,
        /// Ticket number, once ticketed.
        ticket_number: Option<TicketNumber<'a>>,
        /// Coupon of the ticket.
        coupon: Option<Coupon>,
        /// Key of the flight; the flight may not be known yet.
        flight_id: Key<'a>,
        /// True origin and destination of the whole trip.
        journey: Option<Journey<'a>>,
        /// Personal data: stays in `bookings`, or where the event breaks a rule in `quarantined_events`, and goes nowhere else.
        passenger: Option<Passenger<'a>>,
        /// When the booking was made.
        booked_at: DateTime<Utc>,
        /// Date of travel as ticketed; informative.
        travel_date: Option<NaiveDate>,
        /// The cabin: F first, C business, W premium economy, Y economy.
        cabin: Cabin,
        /// Booking class (RBD); the cabin is never inferred from it.
        booking_class: Letter<'a>,
        /// Fare basis code.
        fare_basis: Option<Text<'a>>,
        /// Assigned seat.
        seat: Option<Text<'a>>,
        /// ISO 3166 alpha-2 code of the country of sale.
        point_of_sale: Option<Country>,
        /// Sales channel.
        channel: Option<Text<'a>>,
        /// What the passenger pays.
        price: Price,
        /// Where the payment stands.
        payment_status: PaymentStatus,
        /// Where the booking stands.
        status: BookingStatus,
        /// When it was cancelled: present exactly when `status` is `cancelled`, not before `booked_at`.
        cancelled_at: Option<DateTime<Utc>>,
    }
    check check_cancellation;
    rules cancellation_rules;
}

contract! {
    /// Where a whole trip begins and ends, which may be the same airport.
    pub struct Journey<'a> {
        /// IATA code of the airport where the trip begins.
        origin: Airport<'a>,
        /// IATA code of the airport where the trip ends.
        destination: Airport<'a>,
    }
}

contract! {
    /// Who travels: personal data.
    pub struct Passenger<'a> {
        /// Name of the passenger.
        name: Personal<'a>,
        /// E-mail address of the passenger.
        email: Option<Personal<'a>>,
        /// Telephone number of the passenger.
        phone: Option<Personal<'a>>,
    }
}

contract! {
    /// The tombstone of a booking.
    pub struct BookingDeleted<'a> {
        /// Opaque key of the booking.
        booking_id: Key<'a>,
        /// Grows with every change of this booking; gaps are fine.
        version: Version,
        /// When the booking was deleted.
        deleted_at: DateTime<Utc>,
        /// Why it was deleted.
        reason: Option<Text<'a>>,
    }
}

fn check_cancellation<'a>(booking: Booking<'a>, at: &Path<'_>) -> Result<Booking<'a>, Rejected> {
    let at = at.field("cancelled_at");
    let cancelled = booking.status == BookingStatus::Cancelled;
    match booking.cancelled_at {
        None if cancelled => Err(at.reject(
            Reason::CancelledAtMissing,
            "is required when status is cancelled",
        )),
        Some(_) if !cancelled => Err(at.reject(
            Reason::CancelledAtUnexpected,
            "must be absent unless status is cancelled",
        )),
        Some(cancelled_at) if cancelled_at < booking.booked_at => Err(at.reject(
            Reason::CancelledBeforeBooked,
            "must not be before booked_at",
        )),
        _ => Ok(booking),
    }
}

fn cancellation_rules() -> Value {
    json!([{
        "if": { "properties": { "status": { "const": BookingStatus::Cancelled } }, "required": ["status"] },
        "then": { "properties": { "cancelled_at": { "type": "string" } }, "required": ["cancelled_at"] },
        "else": { "properties": { "cancelled_at": { "type": "null" } } },
    }])
}
