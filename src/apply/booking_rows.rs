//! The bookings of a batch as rows of a statement.

use chrono::{DateTime, NaiveDate, Utc};
use rust_decimal::Decimal;

use super::rows::Rows;
use crate::batch::Newest;
use crate::event::Booking;

type Instant = DateTime<Utc>;

/// Puts one booking in the order of columns that `copy_bookings`, `insert_new` and `conclude` share, or NULL in each of them.
pub(super) fn put<'a>(newest: Option<&'a Newest<'a, Booking<'a>>>, row: &mut impl Rows) {
    let (booking, tombstone) = newest.map(|n| n.revision.state.parts()).unwrap_or_default();
    row.row();
    row.field::<&str>(newest.map(|n| n.revision.key.as_ref()));
    row.field::<i64>(newest.map(|n| n.revision.version));
    row.field::<&[u8]>(newest.map(|n| n.revision.content_hash.as_slice()));
    row.field::<Instant>(tombstone.map(|t| t.deleted_at));
    row.field::<&str>(tombstone.and_then(|t| t.reason.as_deref()));
    put_ticket(booking, row);
    put_sale(booking, row);
    row.field::<&str>(newest.map(|n| n.source.as_ref()));
    row.field::<Instant>(newest.map(|n| n.event_at));
}

/// Who travels where, on which document.
fn put_ticket<'a>(booking: Option<&'a Booking<'a>>, row: &mut impl Rows) {
    let journey = booking.and_then(|b| b.journey.as_ref());
    let passenger = booking.and_then(|b| b.passenger.as_ref());
    row.field::<&str>(booking.map(|b| b.reference.as_str()));
    row.field::<&str>(booking.and_then(|b| b.ticket_number.as_ref().map(|text| text.as_str())));
    row.field::<i16>(booking.and_then(|b| b.coupon).map(|coupon| coupon.get()));
    row.field::<&str>(booking.map(|b| b.flight_id.as_str()));
    row.field::<&str>(journey.map(|j| j.origin.as_str()));
    row.field::<&str>(journey.map(|j| j.destination.as_str()));
    row.field::<&str>(passenger.map(|p| p.name.as_str()));
    row.field::<&str>(passenger.and_then(|p| p.email.as_ref().map(|text| text.as_str())));
    row.field::<&str>(passenger.and_then(|p| p.phone.as_ref().map(|text| text.as_str())));
    row.field::<Instant>(booking.map(|b| b.booked_at));
    row.field::<NaiveDate>(booking.and_then(|b| b.travel_date));
}

/// What was sold, where, for how much, and what became of it.
fn put_sale<'a>(booking: Option<&'a Booking<'a>>, row: &mut impl Rows) {
    row.field::<&str>(booking.map(|b| b.cabin.as_str()));
    row.field::<&str>(booking.map(|b| b.booking_class.as_str()));
    row.field::<&str>(booking.and_then(|b| b.fare_basis.as_ref().map(|text| text.as_str())));
    row.field::<&str>(booking.and_then(|b| b.seat.as_ref().map(|text| text.as_str())));
    row.field::<&str>(booking.and_then(|b| b.point_of_sale.map(|country| country.as_str())));
    row.field::<&str>(booking.and_then(|b| b.channel.as_ref().map(|text| text.as_str())));
    row.field::<Decimal>(booking.map(|b| b.price.base));
    row.field::<Decimal>(booking.map(|b| b.price.taxes));
    row.field::<Decimal>(booking.map(|b| b.price.total));
    row.field::<&str>(booking.map(|b| b.price.currency.as_str()));
    row.field::<&str>(booking.map(|b| b.payment_status.as_str()));
    row.field::<&str>(booking.map(|b| b.status.as_str()));
    row.field::<Instant>(booking.and_then(|b| b.cancelled_at));
}
