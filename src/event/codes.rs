//! The closed lists of the contract: cabins and statuses.

use serde_json::{Value, json};

use super::closed_list::codes;
use super::contract::Contract;
use super::digest::{Digest, Hashed};
use super::json::{Decode, Node, Path};
use super::reason::{Reason, Rejected};

codes! {
    /// The cabin that was paid for. In the order of the letters, so that sorting by cabin and
    /// sorting by its code agree.
    pub enum Cabin {
        /// Business class.
        Business = "C",
        /// First class.
        First = "F",
        /// Premium economy class.
        PremiumEconomy = "W",
        /// Economy class.
        Economy = "Y",
    }
}

codes! {
    /// Where the payment of a booking stands.
    pub enum PaymentStatus {
        /// Not paid yet.
        Pending = "pending",
        /// Paid in full.
        Paid = "paid",
        /// Paid and given back.
        Refunded = "refunded",
        /// Called off before it was made.
        Cancelled = "cancelled",
    }
}

codes! {
    /// Where a booking stands.
    pub enum BookingStatus {
        /// Holds its seat.
        Confirmed = "confirmed",
        /// Given up; `cancelled_at` says when.
        Cancelled = "cancelled",
        /// The passenger flew.
        Used = "used",
        /// The passenger did not come.
        NoShow = "no_show",
    }
}

codes! {
    /// Where a flight stands.
    pub enum FlightStatus {
        /// As planned.
        Scheduled = "scheduled",
        /// Leaves later than planned.
        Delayed = "delayed",
        /// Passengers are boarding.
        Boarding = "boarding",
        /// In the air.
        Departed = "departed",
        /// At its destination.
        Arrived = "arrived",
        /// Does not operate.
        Cancelled = "cancelled",
        /// Landed elsewhere.
        Diverted = "diverted",
    }
}

macro_rules! contract_codes {
    ($($name:ident),+) => {$(
        impl<'a> Decode<'a> for $name {
            fn decode(node: Node<'a>, at: &Path<'_>) -> Result<Self, Rejected> {
                Self::from_code(&node.text(at)?).ok_or_else(|| {
                    let codes: Vec<_> = Self::ALL.iter().map(|value| value.as_str()).collect();
                    at.reject(Reason::UnknownValue, format!("must be one of {}", codes.join(", ")))
                })
            }
        }

        impl<'a> Contract<'a> for $name {
            fn schema() -> Value {
                let codes: Vec<_> = Self::ALL.iter().map(|value| value.as_str()).collect();
                json!({ "type": "string", "enum": codes })
            }
        }

        impl Hashed for $name {
            fn digest(&self, into: &mut Digest) {
                into.text(self.as_str());
            }
        }
    )+};
}

contract_codes!(Cabin, PaymentStatus, BookingStatus, FlightStatus);
