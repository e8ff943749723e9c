//! Closed lists of codes: one declaration gives the enum, its codes and their meaning.

use serde_json::{Value, json};

use super::contract::{Contract, Decode, Path};
use super::digest::{Digest, Hashed};
use super::json::Node;
use super::reason::{Reason, Rejected};

/// An enum whose variants are codes of the contract. The doc comments are also the descriptions
/// that producers read.
macro_rules! codes {
    (
        $(#[doc = $doc:literal])+
        pub enum $name:ident {
            $( $(#[doc = $variant_doc:literal])+ $variant:ident = $code:literal, )+
        }
    ) => {
        $(#[doc = $doc])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $( $(#[doc = $variant_doc])+ $variant, )+
        }

        impl $name {
            /// Every value, in the order of the contract.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The code as it stands in JSON and in tables.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $code,)+
                }
            }

            /// What the code means, in one line.
            pub fn description(self) -> &'static str {
                match self {
                    $(Self::$variant => concat!($($variant_doc),+).trim_start(),)+
                }
            }

            /// The value of a code, if it is one of them.
            pub fn from_code(code: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|value| value.as_str() == code)
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }
    };
}
pub(super) use codes;

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
