//! The content hash: tells a repeated event from a conflicting one of the same version.

use rust_decimal::Decimal;
use xxhash_rust::xxh3::xxh3_128;

use super::kind::Kind;

/// The hash of what an event says: its type and its contract fields.
///
/// How the JSON spells it does not count: order and escapes, unknown fields, null or absent, the
/// offset of an instant, trailing zeros of an amount. The hash is stored with the row, so the
/// encoding below is for ever; an optional field added later leaves the hash of what lacks it.
pub(super) fn content_hash(kind: Kind, content: &impl Hashed) -> [u8; 16] {
    let mut digest = Digest(Vec::with_capacity(1024));
    digest.text(kind.as_str());
    content.digest(&mut digest);
    xxh3_128(&digest.0).to_le_bytes()
}

/// What a content hash is made of.
pub(super) trait Hashed {
    /// Adds the value.
    fn digest(&self, into: &mut Digest);

    /// Whether the value is written and hashed as no field at all.
    fn is_absent(&self) -> bool {
        false
    }
}

impl<T: Hashed> Hashed for Option<T> {
    fn digest(&self, into: &mut Digest) {
        if let Some(value) = self {
            value.digest(into);
        }
    }

    fn is_absent(&self) -> bool {
        self.is_none()
    }
}

/// The canonical bytes: each value starts with a tag, and whatever varies in length says its own.
pub(super) struct Digest(Vec<u8>);

impl Digest {
    const TEXT: u8 = 1;
    const INTEGER: u8 = 2;
    const AMOUNT: u8 = 3;
    const OBJECT: u8 = 4;
    const FIELD: u8 = 5;
    const END: u8 = 6;

    pub(super) fn text(&mut self, text: &str) {
        self.tagged(Self::TEXT, text);
    }

    /// Also instants, in microseconds since 1970, and dates, in days since 0001-01-01.
    pub(super) fn integer(&mut self, number: i64) {
        self.0.push(Self::INTEGER);
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    pub(super) fn amount(&mut self, amount: Decimal) {
        self.0.push(Self::AMOUNT);
        self.0.extend_from_slice(&amount.scale().to_le_bytes());
        self.0.extend_from_slice(&amount.mantissa().to_le_bytes());
    }

    pub(super) fn begin(&mut self) {
        self.0.push(Self::OBJECT);
    }

    /// Names the value that follows; absent fields are left out.
    pub(super) fn field(&mut self, name: &str) {
        self.tagged(Self::FIELD, name);
    }

    pub(super) fn end(&mut self) {
        self.0.push(Self::END);
    }

    fn tagged(&mut self, tag: u8, text: &str) {
        self.0.push(tag);
        self.0.extend_from_slice(&(text.len() as u64).to_le_bytes());
        self.0.extend_from_slice(text.as_bytes());
    }
}
