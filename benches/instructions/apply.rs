//! What of the program's module binds bookings.

mod booking_rows;
mod rows;

use std::hint::black_box;

use crate::batch::Folded;

/// Makes what COPY reads of them.
pub fn bind(folded: &Folded<'_>) {
    let mut stream = rows::CopyStream::default();
    for newest in folded.bookings.values() {
        booking_rows::put(Some(newest), &mut stream);
    }
    black_box(stream.finish()).expect("every value can be encoded");
}
