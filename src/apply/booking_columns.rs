//! The bookings of a batch as parameters of a statement.

use chrono::{DateTime, NaiveDate, Utc};
use rust_decimal::Decimal;
use sqlx::Postgres;
use sqlx::postgres::PgArguments;
use sqlx::query::Query;

use super::columns::Column;
use crate::batch::Newest;
use crate::event::{Booking, State};

/// The parameters of `insert_bookings` and `update_bookings`, a column each.
#[derive(Default)]
pub(super) struct BookingColumns<'a> {
    booking_ids: Column<&'a str>,
    versions: Column<i64>,
    content_hashes: Column<&'a [u8]>,
    deleted_at: Column<DateTime<Utc>>,
    delete_reasons: Column<&'a str>,
    references: Column<&'a str>,
    ticket_numbers: Column<&'a str>,
    coupons: Column<i16>,
    flight_ids: Column<&'a str>,
    journey_origins: Column<&'a str>,
    journey_destinations: Column<&'a str>,
    passenger_names: Column<&'a str>,
    passenger_emails: Column<&'a str>,
    passenger_phones: Column<&'a str>,
    booked_at: Column<DateTime<Utc>>,
    travel_dates: Column<NaiveDate>,
    cabins: Column<&'a str>,
    booking_classes: Column<&'a str>,
    fare_bases: Column<&'a str>,
    seats: Column<&'a str>,
    points_of_sale: Column<&'a str>,
    channels: Column<&'a str>,
    price_bases: Column<Decimal>,
    price_taxes: Column<Decimal>,
    price_totals: Column<Decimal>,
    currencies: Column<&'a str>,
    payment_statuses: Column<&'a str>,
    statuses: Column<&'a str>,
    cancelled_at: Column<DateTime<Utc>>,
    sources: Column<&'a str>,
    last_event_at: Column<DateTime<Utc>>,
}

impl<'a> BookingColumns<'a> {
    pub(super) fn of(newest: impl IntoIterator<Item = &'a Newest<'a, Booking<'a>>>) -> Self {
        let mut columns = Self::default();
        for state in newest {
            columns.push(state);
        }
        columns
    }

    fn push(&mut self, newest: &'a Newest<'a, Booking<'a>>) {
        let (booking, tombstone) = match &newest.revision.state {
            State::Upserted(booking) => (Some(booking), None),
            State::Deleted(tombstone) => (None, Some(tombstone)),
        };
        let journey = booking.and_then(|b| b.journey.as_ref());
        let passenger = booking.and_then(|b| b.passenger.as_ref());
        self.booking_ids.push(newest.revision.key.as_ref());
        self.versions.push(newest.revision.version);
        self.content_hashes
            .push(newest.revision.content_hash.as_slice());
        self.deleted_at.push(tombstone.map(|t| t.deleted_at));
        self.delete_reasons
            .push(tombstone.and_then(|t| t.reason.as_deref()));
        self.references.push(booking.map(|b| b.reference.as_str()));
        self.ticket_numbers
            .push(booking.and_then(|b| b.ticket_number.as_ref().map(|text| text.as_str())));
        self.coupons
            .push(booking.and_then(|b| b.coupon).map(|coupon| coupon.get()));
        self.flight_ids.push(booking.map(|b| b.flight_id.as_str()));
        self.journey_origins
            .push(journey.map(|j| j.origin.as_str()));
        self.journey_destinations
            .push(journey.map(|j| j.destination.as_str()));
        self.passenger_names
            .push(passenger.map(|p| p.name.as_str()));
        self.passenger_emails
            .push(passenger.and_then(|p| p.email.as_ref().map(|text| text.as_str())));
        self.passenger_phones
            .push(passenger.and_then(|p| p.phone.as_ref().map(|text| text.as_str())));
        self.booked_at.push(booking.map(|b| b.booked_at));
        self.travel_dates.push(booking.and_then(|b| b.travel_date));
        self.cabins.push(booking.map(|b| b.cabin.as_str()));
        self.booking_classes
            .push(booking.map(|b| b.booking_class.as_str()));
        self.fare_bases
            .push(booking.and_then(|b| b.fare_basis.as_ref().map(|text| text.as_str())));
        self.seats
            .push(booking.and_then(|b| b.seat.as_ref().map(|text| text.as_str())));
        self.points_of_sale
            .push(booking.and_then(|b| b.point_of_sale.map(|country| country.as_str())));
        self.channels
            .push(booking.and_then(|b| b.channel.as_ref().map(|text| text.as_str())));
        self.price_bases.push(booking.map(|b| b.price.base));
        self.price_taxes.push(booking.map(|b| b.price.taxes));
        self.price_totals.push(booking.map(|b| b.price.total));
        self.currencies
            .push(booking.map(|b| b.price.currency.as_str()));
        self.payment_statuses
            .push(booking.map(|b| b.payment_status.as_str()));
        self.statuses.push(booking.map(|b| b.status.as_str()));
        self.cancelled_at.push(booking.and_then(|b| b.cancelled_at));
        self.sources.push(newest.source.as_ref());
        self.last_event_at.push(newest.event_at);
    }

    pub(super) fn bind<'q>(
        self,
        query: Query<'q, Postgres, PgArguments>,
    ) -> Query<'q, Postgres, PgArguments> {
        query
            .bind(self.booking_ids)
            .bind(self.versions)
            .bind(self.content_hashes)
            .bind(self.deleted_at)
            .bind(self.delete_reasons)
            .bind(self.references)
            .bind(self.ticket_numbers)
            .bind(self.coupons)
            .bind(self.flight_ids)
            .bind(self.journey_origins)
            .bind(self.journey_destinations)
            .bind(self.passenger_names)
            .bind(self.passenger_emails)
            .bind(self.passenger_phones)
            .bind(self.booked_at)
            .bind(self.travel_dates)
            .bind(self.cabins)
            .bind(self.booking_classes)
            .bind(self.fare_bases)
            .bind(self.seats)
            .bind(self.points_of_sale)
            .bind(self.channels)
            .bind(self.price_bases)
            .bind(self.price_taxes)
            .bind(self.price_totals)
            .bind(self.currencies)
            .bind(self.payment_statuses)
            .bind(self.statuses)
            .bind(self.cancelled_at)
            .bind(self.sources)
            .bind(self.last_event_at)
    }
}
