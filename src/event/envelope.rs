//! The CloudEvents envelope and the transport around it.

use std::borrow::Cow;

use chrono::{DateTime, Utc};
use serde::de::MapAccess;
use serde_json::{Value, json};

use super::booking::{Booking, BookingDeleted};
use super::contract::{Contract, read_object};
use super::flight::{Flight, FlightDeleted};
use super::json::{self, Decode, Node, Path, Place};
use super::kind::Kind;
use super::reason::{Reason, Rejected};
use super::text::{EventId, Text, UriReference};
use super::{BODY_BYTES_MAX, CONTENT_TYPE, Message};

impl<'a> Decode<'a> for Kind {
    fn decode(node: Node<'a>, at: &Path<'_>) -> Result<Self, Rejected> {
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

        impl<'a> Decode<'a> for $name {
            fn decode(node: Node<'a>, at: &Path<'_>) -> Result<Self, Rejected> {
                if node.text(at)? == $value {
                    Ok(Self)
                } else {
                    Err(at.reject($reason, concat!("must be \"", $value, "\"")))
                }
            }
        }

        impl<'a> Contract<'a> for $name {
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

/// What `data` says.
pub(super) enum Data<'a> {
    Booking(Booking<'a>),
    BookingDeleted(BookingDeleted<'a>),
    Flight(Flight<'a>),
    FlightDeleted(FlightDeleted<'a>),
}

/// `data` as it stands: its rules count after those of the envelope.
struct Payload<'a>(Result<Data<'a>, Rejected>);

impl<'a> Decode<'a> for Payload<'a> {
    fn decode(node: Node<'a>, at: &Path<'_>) -> Result<Self, Rejected> {
        Ok(Self(Err(node.unexpected("an object", at))))
    }

    fn decode_object<A: MapAccess<'a>>(
        entries: A,
        place: Place<'_>,
    ) -> Result<Result<Self, Rejected>, A::Error> {
        let data = match place.kind {
            Kind::BookingUpserted => Booking::decode_object(entries, place)?.map(Data::Booking),
            Kind::BookingDeleted => {
                BookingDeleted::decode_object(entries, place)?.map(Data::BookingDeleted)
            }
            Kind::FlightUpserted => Flight::decode_object(entries, place)?.map(Data::Flight),
            Kind::FlightDeleted => {
                FlightDeleted::decode_object(entries, place)?.map(Data::FlightDeleted)
            }
        };
        Ok(Ok(Self(data)))
    }
}

/// The attributes of an event. Those with an underscore are checked and not used.
struct Envelope<'a> {
    _specversion: Specversion,
    id: EventId<'a>,
    source: UriReference<'a>,
    kind: Kind,
    _subject: Option<Text<'a>>,
    time: DateTime<Utc>,
    _datacontenttype: Option<DataContentType>,
    _dataschema: Option<UriReference<'a>>,
    _partitionkey: Option<Text<'a>>,
    data: Payload<'a>,
}

impl<'a> Decode<'a> for Envelope<'a> {
    fn decode(node: Node<'a>, at: &Path<'_>) -> Result<Self, Rejected> {
        Err(node.unexpected("an object", at))
    }

    fn decode_object<A: MapAccess<'a>>(
        entries: A,
        place: Place<'_>,
    ) -> Result<Result<Self, Rejected>, A::Error> {
        Ok(read_object!(entries, place, Envelope {
            _specversion = "specversion": Specversion,
            id: EventId<'a>,
            source: UriReference<'a>,
            kind = "type": Kind,
            _subject = "subject": Option<Text<'a>>,
            time: DateTime<Utc>,
            _datacontenttype = "datacontenttype": Option<DataContentType>,
            _dataschema = "dataschema": Option<UriReference<'a>>,
            _partitionkey = "partitionkey": Option<Text<'a>>,
            data: Payload<'a>,
        }))
    }
}

/// An event whose envelope is checked.
pub(super) struct Opened<'a> {
    pub(super) id: Cow<'a, str>,
    pub(super) source: Cow<'a, str>,
    pub(super) kind: Kind,
    pub(super) time: DateTime<Utc>,
    pub(super) data: Data<'a>,
}

/// Opens a message.
pub(super) fn open<'a>(message: &Message<'a>) -> Result<Opened<'a>, Rejected> {
    check_transport(message)?;
    // `data` may stand before `type`, so it is read as what the routing key says; if that was wrong, the body is read again.
    let expected = Kind::from_code(message.routing_key).unwrap_or(Kind::BookingUpserted);
    let mut envelope: Envelope<'a> = json::read(message.body, expected)?;
    let kind = envelope.kind;
    check_route(message, kind, envelope.id.as_str())?;
    if kind != expected {
        envelope = json::read(message.body, kind)?;
    }
    Ok(Opened {
        id: envelope.id.into_inner(),
        source: envelope.source.into_inner(),
        kind,
        time: envelope.time,
        data: envelope.data.0?,
    })
}

fn check_route(message: &Message<'_>, kind: Kind, id: &str) -> Result<(), Rejected> {
    let at = Path::ROOT;
    // The default exchange routes by queue name: an operator has put the message back.
    if !message.exchange.is_empty() && message.routing_key != kind.routing_key() {
        let expected = "must equal the routing key of the message";
        return Err(at
            .field("type")
            .reject(Reason::RoutingKeyMismatch, expected));
    }
    if message
        .message_id
        .is_some_and(|message_id| message_id != id)
    {
        let expected = "must equal the message_id of the message";
        return Err(at.field("id").reject(Reason::MessageIdMismatch, expected));
    }
    Ok(())
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
    if content_type == CONTENT_TYPE {
        return true;
    }
    let mut parts = content_type.split(';').map(str::trim);
    let is_json = parts.next().is_some_and(|media_type| {
        media_type.eq_ignore_ascii_case(CONTENT_TYPE)
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
