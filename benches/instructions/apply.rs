//! What of the program's module binds bookings.

mod booking_columns;
mod columns;

use std::hint::black_box;

use crate::batch::Folded;

/// Makes the parameters of the statement that inserts them.
pub fn bind(folded: &Folded<'_>) {
    let columns = booking_columns::BookingColumns::of(folded.bookings.values());
    drop(black_box(columns.bind(sqlx::query(""))));
}
