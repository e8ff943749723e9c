//! What every type of the contract knows about itself: how it is decoded and described.
//! The types are the single source of the decoder and of the schemas that producers get.

use std::borrow::Cow;

use serde_json::{Value, json};

use super::json::Node;
use super::reason::{Reason, Rejected};

/// A type of the contract.
pub(super) trait Contract<'a>: Sized {
    /// Whether an object must have a field of this type.
    const REQUIRED: bool = true;

    /// The value that a JSON value stands for.
    fn decode(node: Node<'a>, at: &Path<'_>) -> Result<Self, Rejected>;

    /// The value that an absent field stands for.
    fn absent(at: &Path<'_>) -> Result<Self, Rejected> {
        Err(at.reject(Reason::MissingField, "is required"))
    }

    /// The JSON Schema of the values that `decode` accepts.
    fn schema() -> Value;
}

/// An optional field: absent and null say the same.
impl<'a, T: Contract<'a>> Contract<'a> for Option<T> {
    const REQUIRED: bool = false;

    fn decode(node: Node<'a>, at: &Path<'_>) -> Result<Self, Rejected> {
        match node {
            Node::Null => Ok(None),
            node => T::decode(node, at).map(Some),
        }
    }

    fn absent(_: &Path<'_>) -> Result<Self, Rejected> {
        Ok(None)
    }

    fn schema() -> Value {
        json!({ "anyOf": [T::schema(), { "type": "null" }] })
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

/// The fields of an object, to be taken one by one in the order of the contract.
pub(super) struct Fields<'a> {
    fields: Vec<(Cow<'a, str>, Node<'a>)>,
    /// Most producers write the contract's order, so the next field usually stands here.
    next: usize,
}

impl<'a> Fields<'a> {
    pub(super) fn of(node: Node<'a>, at: &Path<'_>) -> Result<Self, Rejected> {
        match node {
            Node::Object(fields) => Ok(Fields { fields, next: 0 }),
            other => Err(other.unexpected("an object", at)),
        }
    }

    /// Decodes the field of this name; fields that nobody takes are ignored.
    pub(super) fn take<T: Contract<'a>>(
        &mut self,
        name: &'static str,
        at: &Path<'_>,
    ) -> Result<T, Rejected> {
        let at = at.field(name);
        match self.take_node(name) {
            Some(node) => T::decode(node, &at),
            None => T::absent(&at),
        }
    }

    /// The value of the field of this name, whatever it is.
    pub(super) fn take_required(
        &mut self,
        name: &'static str,
        at: &Path<'_>,
    ) -> Result<Node<'a>, Rejected> {
        self.take_node(name)
            .ok_or_else(|| at.field(name).reject(Reason::MissingField, "is required"))
    }

    fn take_node(&mut self, name: &str) -> Option<Node<'a>> {
        let (before, after) = self.fields.split_at(self.next);
        let index = match after.iter().position(|(key, _)| key == name) {
            Some(offset) => self.next + offset,
            None => before.iter().position(|(key, _)| key == name)?,
        };
        self.next = index + 1;
        Some(std::mem::replace(&mut self.fields[index].1, Node::Null))
    }

    /// What is left of the fields.
    pub(super) fn into_inner(self) -> Vec<(Cow<'a, str>, Node<'a>)> {
        self.fields
    }
}

/// Adds a description, from doc comments, to a schema that has none of its own.
pub(super) fn described(mut schema: Value, doc: &str) -> Value {
    if let Some(schema) = schema.as_object_mut() {
        schema
            .entry("description")
            .or_insert_with(|| doc.trim().into());
    }
    schema
}

/// The name of a field in JSON: its own, unless another is given.
macro_rules! json_name {
    ($field:ident) => {
        stringify!($field)
    };
    ($field:ident $json:literal) => {
        $json
    };
}
pub(super) use json_name;

/// An object of the contract. One declaration gives the struct, its decoder, its JSON, its part of
/// the content hash and its schema. A field is optional if its type is an `Option`.
///
/// `check` names a function that applies the rules between fields, `rules` one that says them in
/// JSON Schema.
macro_rules! contract {
    (
        $(#[doc = $doc:literal])+
        pub struct $name:ident $(<$a:lifetime>)? {
            $( $(#[doc = $field_doc:literal])+ $field:ident $(= $json:literal)?: $ty:ty, )+
        }
        $(check $check:path;)?
        $(rules $rules:path;)?
    ) => {
        $(#[doc = $doc])+
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct $name $(<$a>)? {
            $( $(#[doc = $field_doc])+ pub $field: $ty, )+
        }

        const _: () = {
            use $crate::event::contract::{Contract, Fields, Path, described, json_name};
            use $crate::event::digest::{Digest, Hashed};
            use $crate::event::json::Node;
            use $crate::event::reason::Rejected;

            impl<'a> Contract<'a> for $name $(<$a>)? {
                fn decode(node: Node<'a>, at: &Path<'_>) -> Result<Self, Rejected> {
                    let mut fields = Fields::of(node, at)?;
                    let decoded = Self {
                        $( $field: fields.take(json_name!($field $($json)?), at)?, )+
                    };
                    $( let decoded = $check(decoded, at)?; )?
                    Ok(decoded)
                }

                fn schema() -> serde_json::Value {
                    let mut properties = serde_json::Map::new();
                    let mut required: Vec<&str> = Vec::new();
                    $(
                        let name = json_name!($field $($json)?);
                        let schema = <$ty as Contract>::schema();
                        let schema = described(schema, concat!($($field_doc),+));
                        properties.insert(name.to_owned(), schema);
                        if <$ty as Contract>::REQUIRED {
                            required.push(name);
                        }
                    )+
                    #[allow(unused_mut, reason = "only some objects have rules between fields")]
                    let mut schema = serde_json::json!({
                        "type": "object",
                        "description": concat!($($doc),+).trim(),
                        "properties": properties,
                        "required": required,
                    });
                    $( schema["allOf"] = $rules(); )?
                    schema
                }
            }

            impl $(<$a>)? Hashed for $name $(<$a>)? {
                fn digest(&self, into: &mut Digest) {
                    into.begin();
                    $(
                        if !self.$field.is_absent() {
                            into.field(json_name!($field $($json)?));
                            self.$field.digest(into);
                        }
                    )+
                    into.end();
                }
            }

            impl $(<$a>)? serde::Serialize for $name $(<$a>)? {
                fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                    use serde::ser::SerializeMap as _;
                    let mut map = serializer.serialize_map(None)?;
                    $(
                        if !self.$field.is_absent() {
                            let name = json_name!($field $($json)?);
                            map.serialize_entry(name, &self.$field)?;
                        }
                    )+
                    map.end()
                }
            }
        };
    };
}
pub(super) use contract;
