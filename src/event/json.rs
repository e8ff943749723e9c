//! Strict JSON as a tree that borrows from the body.
//!
//! `serde_json::Value` would keep the last of two equal keys and copy every string; this tree
//! refuses duplicates wherever they stand and copies only strings with escapes.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::contract::Path;
use super::reason::{Reason, Rejected};

/// Deepest nesting of objects and arrays. The contract needs four levels; serde_json would stop
/// at 128.
pub(super) const NESTING_MAX: usize = 100;

/// Up to this many keys, comparing each pair is cheaper than sorting; beyond, a hostile object
/// must not cost quadratic time.
const PAIRWISE_KEYS_MAX: usize = 32;

/// Keys that there is room for at once: every attribute of the envelope, every field of a booking.
/// Other objects grow as they come, or a body of many small ones would cost 100 times its size.
const ENVELOPE_KEYS: usize = 10;
const DATA_KEYS: usize = 20;

/// 2^63.
const BEYOND_64_BITS: f64 = 9_223_372_036_854_775_808.0;

/// A JSON value.
pub(super) enum Node<'a> {
    Null,
    Bool,
    Integer(i64),
    /// An integer beyond 64 bits.
    HugeInteger,
    /// A number with a fraction or an exponent.
    Fraction,
    Text(Cow<'a, str>),
    /// The contract has no arrays: what stands in one is checked as JSON and forgotten.
    Array,
    Object(Vec<(Cow<'a, str>, Node<'a>)>),
}

impl<'a> Node<'a> {
    /// The text of a string.
    pub(super) fn text(self, at: &Path<'_>) -> Result<Cow<'a, str>, Rejected> {
        match self {
            Node::Text(text) => Ok(text),
            other => Err(other.unexpected("a string", at)),
        }
    }

    /// The rejection of a value that is not what its field expects.
    pub(super) fn unexpected(&self, expected: &str, at: &Path<'_>) -> Rejected {
        match self {
            Node::Null => at.reject(
                Reason::NullField,
                format!("is required and must be {expected}"),
            ),
            _ => at.reject(Reason::WrongType, format!("must be {expected}")),
        }
    }
}

/// Parses a body that holds exactly one JSON value.
pub(super) fn parse(body: &[u8]) -> Result<Node<'_>, Rejected> {
    let at = Path::ROOT;
    let text = std::str::from_utf8(body).map_err(|error| {
        let detail = format!("must be UTF-8; byte {} is not", error.valid_up_to());
        at.reject(Reason::InvalidUtf8, detail)
    })?;
    if text.starts_with('\u{feff}') {
        return Err(at.reject(
            Reason::ByteOrderMark,
            "must not start with a byte order mark",
        ));
    }
    let broken_rule = Cell::new(Reason::InvalidJson);
    let seed = Seed {
        depth: 0,
        keys: ENVELOPE_KEYS,
        broken_rule: &broken_rule,
    };
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let node = seed
        .deserialize(&mut deserializer)
        .and_then(|node| deserializer.end().map(|()| node));
    node.map_err(|error| {
        let expected = match broken_rule.get() {
            Reason::DuplicateKey => "each key must be unique in its object".to_owned(),
            Reason::NestedTooDeep => format!("must not be nested deeper than {NESTING_MAX} levels"),
            _ if error.is_eof() => "must be one JSON value; it ends early".to_owned(),
            _ => "must be one JSON value".to_owned(),
        };
        // The parser's own words may quote the body; its position cannot.
        let (line, column) = (error.line(), error.column());
        at.reject(
            broken_rule.get(),
            format!("{expected} (line {line}, column {column})"),
        )
    })
}

/// Reads one value; also the visitor of what it finds.
#[derive(Clone, Copy)]
struct Seed<'c> {
    depth: usize,
    /// How many keys an object here is expected to have.
    keys: usize,
    /// serde_json's errors carry text only: the rule of an error of ours goes past them.
    broken_rule: &'c Cell<Reason>,
}

impl Seed<'_> {
    fn fail<E: de::Error>(&self, reason: Reason) -> E {
        self.broken_rule.set(reason);
        E::custom(reason)
    }

    fn deeper<E: de::Error>(&self) -> Result<Self, E> {
        if self.depth == NESTING_MAX {
            return Err(self.fail(Reason::NestedTooDeep));
        }
        Ok(Seed {
            depth: self.depth + 1,
            keys: 0,
            broken_rule: self.broken_rule,
        })
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Node<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node<'de>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Node<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Node<'de>, E> {
        Ok(Node::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Node<'de>, E> {
        Ok(Node::Bool)
    }

    fn visit_i64<E>(self, number: i64) -> Result<Node<'de>, E> {
        Ok(Node::Integer(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Node<'de>, E> {
        Ok(i64::try_from(number).map_or(Node::HugeInteger, Node::Integer))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Node<'de>, E> {
        // serde_json gives integers beyond 64 bits as floats, which have no fraction up there.
        if number.abs() >= BEYOND_64_BITS {
            return Ok(Node::HugeInteger);
        }
        Ok(Node::Fraction)
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Node<'de>, E> {
        Ok(Node::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Node<'de>, E> {
        Ok(Node::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node<'de>, A::Error> {
        let item = self.deeper()?;
        while items.next_element_seed(item)?.is_some() {}
        Ok(Node::Array)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Node<'de>, A::Error> {
        let mut value = self.deeper()?;
        let mut fields: Vec<(Cow<'de, str>, Node<'de>)> = Vec::with_capacity(self.keys);
        while let Some(Key(key)) = entries.next_key()? {
            value.keys = if key == "data" { DATA_KEYS } else { 0 };
            fields.push((key, entries.next_value_seed(value)?));
        }
        if has_duplicate_key(&fields) {
            return Err(self.fail(Reason::DuplicateKey));
        }
        Ok(Node::Object(fields))
    }
}

/// A key, borrowed unless it holds escapes (a `Cow` by itself would always be copied).
struct Key<'a>(Cow<'a, str>);

impl<'de> de::Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyVisitor;
        impl<'de> Visitor<'de> for KeyVisitor {
            type Value = Key<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }

            fn visit_borrowed_str<E>(self, key: &'de str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Borrowed(key)))
            }

            fn visit_str<E>(self, key: &str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Owned(key.to_owned())))
            }
        }
        deserializer.deserialize_str(KeyVisitor)
    }
}

fn has_duplicate_key(fields: &[(Cow<'_, str>, Node<'_>)]) -> bool {
    if fields.len() <= PAIRWISE_KEYS_MAX {
        return fields
            .iter()
            .enumerate()
            .any(|(i, (key, _))| fields[..i].iter().any(|(earlier, _)| earlier == key));
    }
    let mut keys: Vec<&str> = fields.iter().map(|(key, _)| key.as_ref()).collect();
    keys.sort_unstable();
    keys.windows(2).any(|pair| pair[0] == pair[1])
}
