//! The types of events.

use super::closed_list::codes;

codes! {
    /// The event types, which are also the routing keys.
    pub enum Kind {
        /// The whole state of one booking after a change.
        BookingUpserted = "airline.booking.upserted.v1",
        /// A booking is gone.
        BookingDeleted = "airline.booking.deleted.v1",
        /// The whole state of one flight after a change.
        FlightUpserted = "airline.flight.upserted.v1",
        /// A flight is gone.
        FlightDeleted = "airline.flight.deleted.v1",
    }
}

impl Kind {
    /// The routing key that events of this type are published with.
    pub const fn routing_key(self) -> &'static str {
        self.as_str()
    }
}
