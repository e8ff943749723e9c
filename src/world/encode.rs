//! Events as bytes: one compact CloudEvents 1.0 JSON object, appended to a buffer that is used again.

use std::fmt;
use std::io::Write as _;

use chrono::{Datelike as _, NaiveDate};

use super::bookings::{Booking, PointOfSale};
use super::fares::Price;
use super::flights::{Flight, FlightKey};
use super::people;
use crate::event::{BookingStatus, FlightStatus, Kind, PaymentStatus};

/// Seconds between a change and its event.
const EVENT_LAG_S: i64 = 2;

/// How many record locators of six characters there are.
const LOCATORS: u64 = 36_u64.pow(6);

/// Odd and no multiple of 3, so that the multiplication below maps no two parties to one locator.
const LOCATOR_STEP: u64 = 1_327_217_885;

/// Bytes of JSON; every value written is free of characters that JSON escapes.
pub(super) struct Json<'a>(pub(super) &'a mut Vec<u8>);

impl Json<'_> {
    fn raw(&mut self, text: &str) -> &mut Self {
        self.0.extend_from_slice(text.as_bytes());
        self
    }

    fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// A member with a plain text value; `open` and `close` are for values written in parts.
    fn text(&mut self, name: &str, value: &str) -> &mut Self {
        self.open(name).raw(value).close()
    }

    fn open(&mut self, name: &str) -> &mut Self {
        self.key(name).raw("\"")
    }

    fn close(&mut self) -> &mut Self {
        self.raw("\"")
    }

    fn key(&mut self, name: &str) -> &mut Self {
        self.raw(",\"").raw(name).raw("\":")
    }

    fn number(&mut self, value: u64) -> &mut Self {
        self.write(format_args!("{value}"))
    }

    /// The last `width` digits, with leading zeros.
    fn padded(&mut self, value: u64, width: usize) -> &mut Self {
        let digits = value % 10_u64.pow(width as u32);
        self.write(format_args!("{digits:0width$}"))
    }

    fn write(&mut self, text: fmt::Arguments) -> &mut Self {
        // A buffer in memory takes all of it.
        let _ = self.0.write_fmt(text);
        self
    }

    fn date(&mut self, day: i64, separator: &str) -> &mut Self {
        let date = NaiveDate::from_epoch_days(day as i32).unwrap_or_default();
        let (year, month, day) = (date.year(), date.month(), date.day());
        self.write(format_args!(
            "{year}{separator}{month:02}{separator}{day:02}"
        ))
    }

    fn time(&mut self, instant: i64) -> &mut Self {
        self.clock(instant).raw("Z")
    }

    fn time_at(&mut self, instant: i64, offset_hours: i64) -> &mut Self {
        if offset_hours == 0 {
            return self.time(instant);
        }
        self.clock(instant + offset_hours * 3_600);
        self.write(format_args!("{offset_hours:+03}:00"))
    }

    fn clock(&mut self, instant: i64) -> &mut Self {
        let second = instant.rem_euclid(86_400);
        let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
        self.date(instant.div_euclid(86_400), "-");
        self.write(format_args!("T{hour:02}:{minute:02}:{second:02}"))
    }

    fn money(&mut self, minor: u64, decimals: u32) -> &mut Self {
        let unit = 10_u64.pow(decimals);
        self.number(minor / unit);
        if decimals > 0 {
            self.raw(".").padded(minor % unit, decimals as usize);
        }
        self
    }

    fn flight_id(&mut self, key: &FlightKey) -> &mut Self {
        self.bytes(&key.airline).number(u64::from(key.number));
        self.raw("-").date(key.day, "").raw("-").bytes(&key.origin);
        if key.round > 0 {
            self.raw("-").number(u64::from(key.round));
        }
        self
    }

    fn locator(&mut self, party: u32) -> &mut Self {
        let mut value = (u64::from(party) + 1) * LOCATOR_STEP % LOCATORS;
        for _ in 0..6 {
            self.0
                .push(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"[(value % 36) as usize]);
            value /= 36;
        }
        self
    }

    fn booking_id(&mut self, booking: &Booking) -> &mut Self {
        self.locator(booking.party).raw("-");
        self.number(u64::from(booking.passenger))
    }
}

/// The long optional fields. A booking has one kind of them at most, which keeps bodies below 600 bytes.
#[derive(PartialEq)]
enum Optional {
    Ticket,
    Journey,
    Email,
    Phone,
}

impl Optional {
    fn of(booking: &Booking) -> Self {
        match booking.traits & 7 {
            0..=2 => Self::Ticket,
            3 => Self::Journey,
            4..=5 => Self::Email,
            _ => Self::Phone,
        }
    }
}

/// The newest version of a booking, as a state or as a tombstone.
pub(super) fn booking(out: &mut Vec<u8>, booking: &Booking) {
    let mut json = Json(out);
    json.raw(r#"{"specversion":"1.0""#);
    json.open("id").booking_id(booking).raw(".");
    json.number(u64::from(booking.version)).close();
    json.text("source", booking_source(booking.point_of_sale));
    let kind = if booking.deleted {
        Kind::BookingDeleted
    } else {
        Kind::BookingUpserted
    };
    json.text("type", kind.as_str());
    json.open("time")
        .time(booking.changed_at + EVENT_LAG_S)
        .close();
    json.raw(r#","data":{"booking_id":""#)
        .booking_id(booking)
        .close();
    json.key("version").number(u64::from(booking.version));
    if booking.deleted {
        json.open("deleted_at").time(booking.changed_at).close();
        json.text("reason", "booked twice by mistake");
    } else {
        booking_person(&mut json, booking);
        booking_trip(&mut json, booking);
        booking_state(&mut json, booking);
    }
    json.raw("}}");
}

fn booking_source(point_of_sale: PointOfSale) -> &'static str {
    match point_of_sale {
        PointOfSale::UnitedStates | PointOfSale::Canada => "/airline/pss/us1",
        PointOfSale::Japan => "/airline/pss/ap1",
        PointOfSale::Kuwait => "/airline/pss/eu1",
    }
}

fn booking_person(json: &mut Json, booking: &Booking) {
    let optional = Optional::of(booking);
    json.open("reference").locator(booking.party).close();
    if optional == Optional::Ticket && booking.payment == PaymentStatus::Paid {
        json.open("ticket_number").raw("0");
        json.number(16 + u64::from(booking.traits % 60)).raw("24");
        json.padded(u64::from(booking.party), 7);
        json.number(u64::from(booking.passenger % 10)).close();
        json.key("coupon")
            .number(u64::from(booking.traits >> 9 & 1) + 1);
    }
    json.open("flight_id")
        .flight_id(&booking.trip.flight)
        .close();
    if optional == Optional::Journey {
        // Sold by the partner who flies the rest of it and keeps its passengers to itself.
        json.raw(r#","journey":{"origin":""#)
            .bytes(&booking.trip.origin)
            .close();
        json.text("destination", people::connection(booking.traits))
            .raw("}");
        return;
    }
    let (family, given) = people::name(booking.traits, booking.passenger);
    json.raw(r#","passenger":{"name":""#);
    json.raw(family).raw("/").raw(given).close();
    if optional == Optional::Email {
        json.open("email");
        let start = json.0.len();
        json.raw(&given[..1]).raw(".").raw(family);
        json.0[start..].make_ascii_lowercase();
        json.raw(people::mail_domain(booking.traits)).close();
    } else if optional == Optional::Phone {
        json.open("phone").raw("+1555");
        json.padded(u64::from(booking.traits >> 5), 7).close();
    }
    json.raw("}");
}

fn booking_trip(json: &mut Json, booking: &Booking) {
    let offset = booking.point_of_sale.utc_offset_hours();
    json.open("booked_at")
        .time_at(booking.booked_at, offset)
        .close();
    json.open("travel_date")
        .date(booking.trip.flight.day, "-")
        .close();
    json.text("cabin", booking.cabin.as_str());
    json.open("booking_class").bytes(&[booking.class]).close();
    match (Optional::of(booking), booking.traits >> 6 & 3) {
        (Optional::Ticket, 0 | 1) => json
            .open("fare_basis")
            .bytes(&[booking.class])
            .raw("E7NR")
            .close(),
        (Optional::Ticket, 2) => json.text("channel", "web"),
        (Optional::Ticket, _) => json.text("channel", "agency"),
        _ => json,
    };
    if let Some((row, letter)) = booking.seat {
        json.open("seat")
            .number(u64::from(row))
            .bytes(&[letter])
            .close();
    }
    json.text("point_of_sale", booking.point_of_sale.country());
}

fn booking_state(json: &mut Json, booking: &Booking) {
    let Price {
        base,
        taxes,
        currency,
    } = booking.price;
    let decimals = currency.decimals();
    json.raw(r#","price":{"base":""#)
        .money(base, decimals)
        .close();
    json.open("taxes").money(taxes, decimals).close();
    json.open("total")
        .money(booking.price.total(), decimals)
        .close();
    json.text("currency", currency.code()).raw("}");
    json.text("payment_status", booking.payment.as_str());
    json.text("status", booking.status.as_str());
    if booking.status == BookingStatus::Cancelled {
        json.open("cancelled_at").time(booking.changed_at).close();
    }
}

/// The newest version of a flight, as a state or as a tombstone.
pub(super) fn flight(out: &mut Vec<u8>, flight: &Flight) {
    let mut json = Json(out);
    json.raw(r#"{"specversion":"1.0""#);
    json.open("id").flight_id(&flight.key).raw(".");
    json.number(u64::from(flight.version)).close();
    json.text("source", "/airline/ops/us1");
    let kind = if flight.deleted {
        Kind::FlightDeleted
    } else {
        Kind::FlightUpserted
    };
    json.text("type", kind.as_str());
    json.open("time")
        .time(flight.changed_at + EVENT_LAG_S)
        .close();
    json.raw(r#","data":{"flight_id":""#)
        .flight_id(&flight.key)
        .close();
    json.key("version").number(u64::from(flight.version));
    if flight.deleted {
        json.open("deleted_at").time(flight.changed_at).close();
        json.text("reason", "withdrawn from the schedule");
    } else {
        flight_schedule(&mut json, flight);
        flight_operation(&mut json, flight);
        flight_equipment(&mut json, flight);
        json.text("status", flight.status.as_str());
    }
    json.raw("}}");
}

fn flight_schedule(json: &mut Json, flight: &Flight) {
    json.open("airline").bytes(&flight.key.airline).close();
    json.open("flight_number")
        .number(u64::from(flight.key.number))
        .close();
    json.open("origin").bytes(&flight.origin).close();
    json.open("destination").bytes(&flight.destination).close();
    json.open("scheduled_departure")
        .time(flight.departure)
        .close();
    json.open("scheduled_arrival")
        .time(flight.arrival())
        .close();
}

fn flight_operation(json: &mut Json, flight: &Flight) {
    if flight.status == FlightStatus::Delayed {
        json.open("estimated_departure")
            .time(flight.actual_departure())
            .close();
    }
    if matches!(
        flight.status,
        FlightStatus::Departed | FlightStatus::Arrived | FlightStatus::Diverted
    ) {
        json.open("actual_departure")
            .time(flight.actual_departure())
            .close();
    }
    if flight.status == FlightStatus::Arrived {
        json.open("actual_arrival")
            .time(flight.actual_arrival())
            .close();
    }
}

fn flight_equipment(json: &mut Json, flight: &Flight) {
    if !flight.aircraft.is_empty() {
        json.raw(r#","aircraft":{"type":""#)
            .raw(flight.aircraft)
            .close();
        if !flight.registration.is_empty() {
            json.text("registration", flight.registration);
        }
        json.raw("}");
    }
    if flight.seats == 0 {
        return;
    }
    json.raw(r#","capacity":{"total":"#)
        .number(u64::from(flight.seats));
    if let Some([economy, premium, business, first]) = flight.cabins() {
        json.raw(r#","by_cabin":{"F":"#).number(u64::from(first));
        json.key("C").number(u64::from(business));
        json.key("W").number(u64::from(premium));
        json.key("Y").number(u64::from(economy)).raw("}");
    }
    json.raw("}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn times_carry_their_offset() {
        let mut text = Vec::new();
        Json(&mut text)
            .time_at(1_357_000_200, -5)
            .raw(" ")
            .time_at(1_357_000_200, 9);
        assert_eq!(text, b"2012-12-31T19:30:00-05:00 2013-01-01T09:30:00+09:00");
    }

    #[test]
    fn money_has_the_decimals_of_its_currency() {
        for (minor, decimals, expected) in [
            (5, 2, "0.05"),
            (23_100, 2, "231.00"),
            (880, 0, "880"),
            (1_042, 3, "1.042"),
        ] {
            let mut text = Vec::new();
            Json(&mut text).money(minor, decimals);
            assert_eq!(String::from_utf8(text).unwrap(), expected);
        }
    }

    #[test]
    fn no_two_parties_share_a_locator() {
        let mut seen = BTreeSet::new();
        for party in 0..200_000 {
            let mut text = Vec::new();
            Json(&mut text).locator(party);
            assert!(seen.insert(text));
        }
    }
}
