//! The CloudEvents envelope and the transport around it.

use std::borrow::Cow;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::codes::codes;
use super::contract::{Contract, Fields, Path};
use super::json::{self, Node};
use super::reason::{Reason, Rejected};
use super::text::{EventId, Text, UriReference};
use super::{BODY_BYTES_MAX, Message};

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

    fn decode(node: Node<'_>, at: &Path<'_>) -> Result<Self, Rejected> {
        let kind = node.text(at)?;
        Self::from_code(&kind).ok_or_else(|| {
            if is_other_version(&kind) {
                at.reject(Reason::UnsupportedVersion, "must end in .v1")
            } else {
                let kinds: Vec<_> = Self::ALL.iter().map(|kind| kind.as_str()).collect();
                at.reject(
                    Reason::UnknownType,
                    format!("must be one of {}", kinds.join(", ")),
                )
            }
        })
    }
}

fn is_other_version(kind: &str) -> bool {
    let Some((name, version)) = kind.rsplit_once(".v") else {
        return false;
    };
    let is_number = !version.is_empty() && version.bytes().all(|b| b.is_ascii_digit());
    is_number
        && Kind::ALL.iter().any(|known| {
            known
                .as_str()
                .rsplit_once(".v")
                .is_some_and(|(known, _)| known == name)
        })
}

/// A text that can have one value only.
macro_rules! constant_type {
    ($(#[doc = $doc:literal])+ $name:ident, $value:literal, $reason:expr) => {
        $(#[doc = $doc])+
        pub(super) struct $name;

        impl<'a> Contract<'a> for $name {
            fn decode(node: Node<'a>, at: &Path<'_>) -> Result<Self, Rejected> {
                if node.text(at)? == $value {
                    Ok(Self)
                } else {
                    Err(at.reject($reason, concat!("must be \"", $value, "\"")))
                }
            }

            fn schema() -> Value {
                json!({ "type": "string", "const": $value })
            }
        }
    };
}

constant_type! {
    /// The version of CloudEvents.
    Specversion, "1.0", Reason::UnsupportedSpecversion
}

constant_type! {
    /// The media type of `data`.
    DataContentType, "application/json", Reason::UnsupportedContentType
}

/// The attributes that the program uses, and `data` as it stands.
pub(super) struct Envelope<'a> {
    pub(super) id: Cow<'a, str>,
    pub(super) source: Cow<'a, str>,
    pub(super) kind: Kind,
    pub(super) time: DateTime<Utc>,
    pub(super) data: Node<'a>,
}

/// Opens a message: everything but `data` is checked.
pub(super) fn open<'a>(message: &Message<'a>) -> Result<Envelope<'a>, Rejected> {
    check_transport(message)?;
    let at = Path::ROOT;
    let mut fields = Fields::of(json::parse(message.body)?, &at)?;
    fields.take::<Specversion>("specversion", &at)?;
    let id: EventId<'a> = fields.take("id", &at)?;
    let source: UriReference<'a> = fields.take("source", &at)?;
    let kind = Kind::decode(fields.take_required("type", &at)?, &at.field("type"))?;
    fields.take::<Option<Text>>("subject", &at)?;
    let time = fields.take("time", &at)?;
    fields.take::<Option<DataContentType>>("datacontenttype", &at)?;
    fields.take::<Option<UriReference>>("dataschema", &at)?;
    fields.take::<Option<Text>>("partitionkey", &at)?;
    let data = fields.take_required("data", &at)?;
    // The default exchange routes by queue name: an operator has put the message back.
    if !message.exchange.is_empty() && message.routing_key != kind.routing_key() {
        let expected = "must equal the routing key of the message";
        return Err(at
            .field("type")
            .reject(Reason::RoutingKeyMismatch, expected));
    }
    if message
        .message_id
        .is_some_and(|message_id| message_id != id.as_str())
    {
        let expected = "must equal the message_id of the message";
        return Err(at.field("id").reject(Reason::MessageIdMismatch, expected));
    }
    Ok(Envelope {
        id: id.into_inner(),
        source: source.into_inner(),
        kind,
        time,
        data,
    })
}

fn check_transport(message: &Message<'_>) -> Result<(), Rejected> {
    let at = Path::ROOT;
    if message.body.len() > BODY_BYTES_MAX {
        let expected = format!("must have at most {BODY_BYTES_MAX} bytes");
        return Err(at.reject(Reason::BodyTooLarge, expected));
    }
    if !message.content_type.is_some_and(is_json_in_utf8) {
        let expected = "the message's content_type must be application/cloudevents+json or application/json, in UTF-8";
        return Err(at.reject(Reason::UnsupportedContentType, expected));
    }
    let plain = |encoding: &str| {
        encoding.eq_ignore_ascii_case("identity") || encoding.eq_ignore_ascii_case("utf-8")
    };
    if !message.content_encoding.is_none_or(plain) {
        let expected = "the message's content_encoding must be absent, identity or utf-8";
        return Err(at.reject(Reason::UnsupportedContentEncoding, expected));
    }
    Ok(())
}

fn is_json_in_utf8(content_type: &str) -> bool {
    let mut parts = content_type.split(';').map(str::trim);
    let is_json = parts.next().is_some_and(|media_type| {
        media_type.eq_ignore_ascii_case("application/cloudevents+json")
            || media_type.eq_ignore_ascii_case("application/json")
    });
    is_json
        && parts.all(|parameter| match parameter.split_once('=') {
            Some((name, value)) if name.eq_ignore_ascii_case("charset") => {
                value.trim_matches('"').eq_ignore_ascii_case("utf-8")
            }
            _ => true,
        })
}
