//! What every type of the contract knows about itself: how it is decoded and described.
//! The types are the single source of the decoder and of the schemas that producers get.

use serde_json::{Value, json};

use super::json::Decode;

/// A type of the contract.
pub(super) trait Contract<'a>: Decode<'a> {
    /// Whether an object must have a field of this type.
    const REQUIRED: bool = true;

    /// The JSON Schema of the values that `decode` accepts.
    fn schema() -> Value;
}

impl<'a, T: Contract<'a>> Contract<'a> for Option<T> {
    const REQUIRED: bool = false;

    fn schema() -> Value {
        json!({ "anyOf": [T::schema(), { "type": "null" }] })
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

/// Reads the fields of an object into a struct; fields that it does not have are ignored.
macro_rules! read_object {
    ($entries:expr, $place:expr, $name:ident { $( $field:ident $(= $json:literal)?: $ty:ty, )+ }) => {{
        use $crate::event::contract::json_name;
        use $crate::event::json::said;
        let (mut entries, place) = ($entries, $place);
        let mut fields = $crate::event::json::Fields::new(place)?;
        $( let mut $field: $crate::event::json::Found<$ty> = None; )+
        while let Some(key) = fields.next_key(&mut entries)? {
            match key.as_ref() {
                $( json_name!($field $($json)?) => {
                    fields.take(json_name!($field $($json)?), &mut entries, &mut $field)?
                } )+
                _ => fields.skip(key, &mut entries)?,
            }
        }
        fields.end()?;
        // Not before the object has ended: that it is JSON counts before any rule.
        let read = || -> Result<_, $crate::event::reason::Rejected> {
            Ok($name { $( $field: said($field, json_name!($field $($json)?), place.at)?, )+ })
        };
        read()
    }};
}
pub(super) use read_object;

/// An object of the contract. One declaration gives the struct, its decoder, its part of the
/// content hash and its schema. A field is optional if its type is an `Option`.
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
            use $crate::event::contract::{Contract, described, json_name, read_object};
            use $crate::event::digest::{Digest, Hashed};
            use $crate::event::json::{Decode, Node, Path, Place};
            use $crate::event::reason::Rejected;

            impl<'a> Decode<'a> for $name $(<$a>)? {
                fn decode(node: Node<'a>, at: &Path<'_>) -> Result<Self, Rejected> {
                    Err(node.unexpected("an object", at))
                }

                fn decode_object<A: serde::de::MapAccess<'a>>(
                    entries: A,
                    place: Place<'_>,
                ) -> Result<Result<Self, Rejected>, A::Error> {
                    let decoded = read_object!(entries, place, $name { $( $field $(= $json)?: $ty, )+ });
                    $( let decoded = decoded.and_then(|decoded| $check(decoded, place.at)); )?
                    Ok(decoded)
                }
            }

            impl<'a> Contract<'a> for $name $(<$a>)? {
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
        };
    };
}
pub(super) use contract;
