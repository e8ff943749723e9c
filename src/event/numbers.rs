//! Bounded integers of the contract.

use serde_json::{Value, json};

use super::contract::Contract;
use super::digest::{Digest, Hashed};
use super::json::{Decode, Node, Path};
use super::reason::{Reason, Rejected};

/// A JSON integer within a range; `1.0`, `1e0` and `"1"` are none.
macro_rules! integer_type {
    ($(#[doc = $doc:literal])+ $name:ident($int:ty), $range:expr) => {
        $(#[doc = $doc])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name($int);

        impl $name {
            /// The number.
            pub const fn get(self) -> $int {
                self.0
            }
        }

        impl<'a> Decode<'a> for $name {
            fn decode(node: Node<'a>, at: &Path<'_>) -> Result<Self, Rejected> {
                let number = match node {
                    Node::Integer(number) => <$int>::try_from(number).ok(),
                    Node::HugeInteger => None,
                    other => return Err(other.unexpected("a JSON integer", at)),
                };
                match number {
                    Some(number) if $range.contains(&number) => Ok(Self(number)),
                    _ => {
                        let (min, max) = $range.into_inner();
                        Err(at.reject(Reason::OutOfRange, format!("must be {min} to {max}")))
                    }
                }
            }
        }

        impl<'a> Contract<'a> for $name {
            fn schema() -> Value {
                let (min, max) = $range.into_inner();
                json!({ "type": "integer", "minimum": min, "maximum": max })
            }
        }

        impl Hashed for $name {
            fn digest(&self, into: &mut Digest) {
                into.integer(self.0.into());
            }
        }
    };
}

integer_type! {
    /// The version of a state, given by the producer: grows with every change, gaps are fine.
    Version(i64), 1..=i64::MAX
}

integer_type! {
    /// The coupon of a ticket.
    Coupon(i16), 1..=4
}

integer_type! {
    /// A number of seats.
    Seats(i32), 1..=1000
}
