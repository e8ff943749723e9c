//! Strict JSON, read into the types of the contract: nothing is copied but strings with escapes.
//!
//! Where `serde_json::Value` would keep the last of two equal keys, an object that holds a key twice is refused, wherever
//! it stands. A body is read to its end before any rule of the contract counts.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::kind::Kind;
use super::reason::{Reason, Rejected};

/// What can be read from JSON.
pub(super) trait Decode<'a>: Sized {
    /// Decodes a JSON value that is no object.
    fn decode(node: Node<'a>, at: &Path<'_>) -> Result<Self, Rejected>;

    /// The value that an object stands for, or the first of its fields that breaks a rule, in the order of the contract.
    ///
    /// # Errors
    /// What is no JSON as the contract wants it.
    fn decode_object<A: MapAccess<'a>>(
        entries: A,
        place: Place<'_>,
    ) -> Result<Result<Self, Rejected>, A::Error> {
        skip_object(entries, place)?;
        Ok(Self::decode(Node::Object, place.at))
    }

    /// The value that an absent field stands for.
    fn absent(at: &Path<'_>) -> Result<Self, Rejected> {
        Err(at.reject(Reason::MissingField, "is required"))
    }
}

/// An optional field: absent and null say the same.
impl<'a, T: Decode<'a>> Decode<'a> for Option<T> {
    fn decode(node: Node<'a>, at: &Path<'_>) -> Result<Self, Rejected> {
        match node {
            Node::Null => Ok(None),
            node => T::decode(node, at).map(Some),
        }
    }

    fn decode_object<A: MapAccess<'a>>(
        entries: A,
        place: Place<'_>,
    ) -> Result<Result<Self, Rejected>, A::Error> {
        Ok(T::decode_object(entries, place)?.map(Some))
    }

    fn absent(_: &Path<'_>) -> Result<Self, Rejected> {
        Ok(None)
    }
}

/// Where a value stands. Only names of the contract enter it, and it becomes text only when
/// something is rejected.
pub(super) struct Path<'p> {
    parent: Option<&'p Path<'p>>,
    name: &'static str,
}

impl Path<'static> {
    /// The whole event.
    pub(super) const ROOT: Self = Path {
        parent: None,
        name: "$",
    };
}

impl Path<'_> {
    pub(super) fn field<'p>(&'p self, name: &'static str) -> Path<'p> {
        Path {
            parent: Some(self),
            name,
        }
    }

    pub(super) fn reject(&self, reason: Reason, expected: impl Into<String>) -> Rejected {
        Rejected {
            reason,
            path: self.render(),
            detail: expected.into(),
        }
    }

    fn render(&self) -> String {
        match self.parent {
            Some(parent) => format!("{}.{}", parent.render(), self.name),
            None => self.name.to_owned(),
        }
    }
}

/// The field's value, or what its type makes of an absent one.
pub(super) fn said<'a, T: Decode<'a>>(
    found: Found<T>,
    name: &'static str,
    object: &Path<'_>,
) -> Result<T, Rejected> {
    found.unwrap_or_else(|| T::absent(&object.field(name)))
}

/// Deepest nesting of objects and arrays. The contract needs four levels; serde_json would stop
/// at 128.
pub(super) const NESTING_MAX: usize = 100;

/// 2^63.
const BEYOND_64_BITS: f64 = 9_223_372_036_854_775_808.0;

/// A JSON value, reduced to what a field that is no object can use.
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
    /// The same goes for an object where none belongs.
    Object,
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

/// A value that no field wants: it only has to be JSON.
impl<'a> Decode<'a> for Node<'a> {
    fn decode(node: Node<'a>, _: &Path<'_>) -> Result<Self, Rejected> {
        Ok(node)
    }
}

/// Reads a body that holds exactly one JSON value. What stands in `data` is read as `kind` says.
pub(super) fn read<'a, T: Decode<'a>>(body: &'a [u8], kind: Kind) -> Result<T, Rejected> {
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
    let place = Place {
        at: &at,
        depth: 0,
        kind,
        broken_rule: &broken_rule,
    };
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = Typed::new(place)
        .deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value));
    value.unwrap_or_else(|error| {
        let expected = match broken_rule.get() {
            Reason::DuplicateKey => "each key must be unique in its object".to_owned(),
            Reason::NestedTooDeep => format!("must not be nested deeper than {NESTING_MAX} levels"),
            _ if error.is_eof() => "must be one JSON value; it ends early".to_owned(),
            _ if error.to_string().starts_with("number out of range") => {
                "must hold no number beyond those of 64-bit floats".to_owned()
            }
            _ => "must be one JSON value".to_owned(),
        };
        // The parser's own words may quote the body; its position cannot.
        let (line, column) = (error.line(), error.column());
        Err(at.reject(
            broken_rule.get(),
            format!("{expected} (line {line}, column {column})"),
        ))
    })
}

/// Where a value is read.
#[derive(Clone, Copy)]
pub(super) struct Place<'p> {
    /// Its path.
    pub(super) at: &'p Path<'p>,
    /// What `data` is read as.
    pub(super) kind: Kind,
    depth: usize,
    /// serde_json's errors carry text only: the rule of an error of ours goes past them.
    broken_rule: &'p Cell<Reason>,
}

impl<'p> Place<'p> {
    fn fail<E: de::Error>(&self, reason: Reason) -> E {
        self.broken_rule.set(reason);
        E::custom(reason)
    }

    /// What an object or array holds.
    fn inside<E: de::Error>(self) -> Result<Self, E> {
        if self.depth == NESTING_MAX {
            return Err(self.fail(Reason::NestedTooDeep));
        }
        Ok(Place {
            depth: self.depth + 1,
            ..self
        })
    }
}

/// Reads a value of a type: a rule that it breaks does not end the body.
struct Typed<'p, T> {
    place: Place<'p>,
    of: PhantomData<T>,
}

impl<'p, T> Typed<'p, T> {
    fn new(place: Place<'p>) -> Self {
        Self {
            place,
            of: PhantomData,
        }
    }
}

impl<'de, T: Decode<'de>> DeserializeSeed<'de> for Typed<'_, T> {
    type Value = Result<T, Rejected>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, T: Decode<'de>> Visitor<'de> for Typed<'_, T> {
    type Value = Result<T, Rejected>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(T::decode(Node::Null, self.place.at))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(T::decode(Node::Bool, self.place.at))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
        Ok(T::decode(Node::Integer(number), self.place.at))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
        let node = i64::try_from(number).map_or(Node::HugeInteger, Node::Integer);
        Ok(T::decode(node, self.place.at))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Self::Value, E> {
        // serde_json gives integers beyond 64 bits as floats, which have no fraction up there.
        let node = if number.abs() >= BEYOND_64_BITS {
            Node::HugeInteger
        } else {
            Node::Fraction
        };
        Ok(T::decode(node, self.place.at))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(T::decode(Node::Text(Cow::Borrowed(text)), self.place.at))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(T::decode(Node::Text(text.to_owned().into()), self.place.at))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let item = self.place.inside()?;
        while items.next_element_seed(Typed::<Node>::new(item))?.is_some() {}
        Ok(T::decode(Node::Array, self.place.at))
    }

    fn visit_map<A: MapAccess<'de>>(self, entries: A) -> Result<Self::Value, A::Error> {
        T::decode_object(entries, self.place)
    }
}

/// Reads to its end an object where none belongs.
pub(super) fn skip_object<'a, A: MapAccess<'a>>(
    mut entries: A,
    place: Place<'_>,
) -> Result<(), A::Error> {
    let mut fields = Fields::new(place)?;
    while let Some(key) = fields.next_key(&mut entries)? {
        fields.skip(key, &mut entries)?;
    }
    fields.end()
}

/// What was read of a field: nothing, if it is absent.
pub(super) type Found<T> = Option<Result<T, Rejected>>;

/// The fields of an object while it is read.
pub(super) struct Fields<'a, 'p> {
    /// Of each field.
    place: Place<'p>,
    /// Keys that nobody takes.
    others: Vec<Cow<'a, str>>,
    /// Whether a field was taken twice.
    repeated: bool,
}

impl<'a, 'p> Fields<'a, 'p> {
    pub(super) fn new<E: de::Error>(object: Place<'p>) -> Result<Self, E> {
        Ok(Self {
            place: object.inside()?,
            others: Vec::new(),
            repeated: false,
        })
    }

    pub(super) fn next_key<A: MapAccess<'a>>(
        &self,
        entries: &mut A,
    ) -> Result<Option<Cow<'a, str>>, A::Error> {
        Ok(entries.next_key()?.map(|Key(key)| key))
    }

    /// Reads the value of the field of this name.
    pub(super) fn take<T: Decode<'a>, A: MapAccess<'a>>(
        &mut self,
        name: &'static str,
        entries: &mut A,
        found: &mut Found<T>,
    ) -> Result<(), A::Error> {
        self.repeated |= found.is_some();
        *found = Some(self.value(name, entries)?);
        Ok(())
    }

    /// Checks the value of a field that nobody takes.
    pub(super) fn skip<A: MapAccess<'a>>(
        &mut self,
        key: Cow<'a, str>,
        entries: &mut A,
    ) -> Result<(), A::Error> {
        self.note(key);
        entries
            .next_value_seed(Typed::<Node>::new(self.place))
            .map(|_| ())
    }

    /// Remembers a key that is not taken by its name.
    pub(super) fn note(&mut self, key: Cow<'a, str>) {
        self.others.push(key);
    }

    /// Reads the next value, which stands under this name.
    pub(super) fn value<T: Decode<'a>, A: MapAccess<'a>>(
        &self,
        name: &'static str,
        entries: &mut A,
    ) -> Result<Result<T, Rejected>, A::Error> {
        let at = self.place.at.field(name);
        let place = Place {
            at: &at,
            ..self.place
        };
        entries.next_value_seed(Typed::new(place))
    }

    /// Refuses an object that holds a key twice.
    pub(super) fn end<E: de::Error>(mut self) -> Result<(), E> {
        if self.repeated || has_duplicate(&mut self.others) {
            return Err(self.place.fail(Reason::DuplicateKey));
        }
        Ok(())
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

fn has_duplicate(keys: &mut [Cow<'_, str>]) -> bool {
    keys.sort_unstable();
    keys.windows(2).any(|pair| pair[0] == pair[1])
}
