//! The contract as documents: JSON Schemas and the AsyncAPI description that producers get.

use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};

use super::contract::{Contract, described};
use super::envelope::{DataContentType, Specversion};
use super::kind::Kind;
use super::text::{EventId, Text, UriReference};
use super::{
    BODY_BYTES_MAX, Booking, BookingDeleted, CONTENT_TYPE, CONTRACT_VERSION, Flight, FlightDeleted,
    Reason,
};

/// Version of AsyncAPI's AMQP bindings that the document is written in.
const AMQP_BINDING_VERSION: &str = "0.3.0";

/// Which events a schema describes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SchemaKind {
    /// Events about bookings.
    Booking,
    /// Events about flights.
    Flight,
}

impl SchemaKind {
    fn name(self) -> &'static str {
        match self {
            SchemaKind::Booking => "booking",
            SchemaKind::Flight => "flight",
        }
    }

    fn kinds(self) -> [Kind; 2] {
        match self {
            SchemaKind::Booking => [Kind::BookingUpserted, Kind::BookingDeleted],
            SchemaKind::Flight => [Kind::FlightUpserted, Kind::FlightDeleted],
        }
    }
}

/// What else the decoder looks at.
const LIMITS: &str = "Have the validator assert `format`, or it takes dates that do not exist. What no schema sees is rejected \
    all the same: a total that is not the sum, times in the wrong order, capacities that do not add up, a key that comes twice, an integer \
    written as 2.0. `paxflow check` finds it.";

/// The JSON Schema (draft 2020-12) of the events about bookings or flights, envelope and all.
///
/// It accepts every event that the decoder accepts. The decoder also rejects what a schema cannot see: its description says
/// what.
pub fn json_schema(kind: SchemaKind) -> Value {
    let rules: Vec<Value> = kind.kinds().into_iter().map(data_by_type).collect();
    let (properties, required) = envelope(&kind.kinds(), json!({ "type": "object" }));
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": format!("urn:paxflow:schema:{}:v{CONTRACT_VERSION}", kind.name()),
        "title": format!("Events about one {}", kind.name()),
        "description": LIMITS,
        "type": "object",
        "properties": properties,
        "required": required,
        "allOf": rules,
    })
}

/// `data` is what `type` says it is.
fn data_by_type(kind: Kind) -> Value {
    json!({
        "if": { "properties": { "type": { "const": kind } }, "required": ["type"] },
        "then": { "properties": { "data": data_schema(kind) } },
    })
}

fn data_schema(kind: Kind) -> Value {
    match kind {
        Kind::BookingUpserted => Booking::schema(),
        Kind::BookingDeleted => BookingDeleted::schema(),
        Kind::FlightUpserted => Flight::schema(),
        Kind::FlightDeleted => FlightDeleted::schema(),
    }
}

/// The CloudEvents attributes of events of some types, and the names of the required ones.
fn envelope(kinds: &[Kind], data: Value) -> (Map<String, Value>, Vec<&'static str>) {
    let kinds = json!({ "type": "string", "enum": kinds });
    let text = Option::<Text>::schema;
    let uri = Option::<UriReference>::schema;
    let attributes = [
        (
            "specversion",
            true,
            Specversion::schema(),
            "Version of CloudEvents.",
        ),
        (
            "id",
            true,
            EventId::schema(),
            "Unique among the events of its source; also the message_id, unless it is longer than the 255 bytes that AMQP allows for that.",
        ),
        (
            "source",
            true,
            UriReference::schema(),
            "URI reference of the producer.",
        ),
        (
            "type",
            true,
            kinds,
            "Type of the event; also the routing key.",
        ),
        ("subject", false, text(), "What the event is about."),
        (
            "time",
            true,
            DateTime::<Utc>::schema(),
            "When it happened; never decides order.",
        ),
        (
            "datacontenttype",
            false,
            Option::<DataContentType>::schema(),
            "Media type of data.",
        ),
        ("dataschema", false, uri(), "URI of the schema of data."),
        (
            "partitionkey",
            false,
            text(),
            "Key for partitioned transports.",
        ),
        ("data", true, data, "The state or tombstone."),
    ];
    let mut properties = Map::new();
    let mut names_required = Vec::new();
    for (name, is_required, schema, doc) in attributes {
        properties.insert(name.to_owned(), described(schema, doc));
        if is_required {
            names_required.push(name);
        }
    }
    (properties, names_required)
}

/// The AsyncAPI 3 document: where and how to publish, every message with its schema and an
/// example, and why a message may be rejected.
pub fn asyncapi() -> Value {
    let messages: Map<_, _> = Kind::ALL
        .iter()
        .map(|kind| (message_name(*kind).to_owned(), message(*kind)))
        .collect();
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "Paxflow events",
            "version": CONTRACT_VERSION,
            "description": description(),
            "license": { "name": "MIT" },
        },
        "defaultContentType": CONTENT_TYPE,
        "servers": {
            "rabbitmq": {
                "host": "{host}",
                "protocol": "amqp",
                "protocolVersion": "0.9.1",
                "description": "The RabbitMQ broker that the worker consumes from.",
                "variables": {
                    "host": { "default": "localhost:5672", "description": "Host and port of the broker." },
                },
            },
        },
        "channels": channels(),
        "operations": operations(),
        "components": { "messages": messages },
    })
}

fn channels() -> Value {
    let messages: Map<_, _> = Kind::ALL
        .iter()
        .map(|kind| message_name(*kind).to_owned())
        .zip(message_references("#/components/messages"))
        .collect();
    json!({
        "events": {
            "address": "{type}",
            "description": "The topic exchange that producers publish to; its name and virtual host are the defaults, ask who runs the broker. The routing key of a message is its `type`; the queue is bound to `airline.#`.",
            "parameters": {
                "type": { "enum": Kind::ALL, "description": "The `type` of the event.", "location": "$message.payload#/type" },
            },
            "servers": [{ "$ref": "#/servers/rabbitmq" }],
            "messages": messages,
            "bindings": {
                "amqp": {
                    "is": "routingKey",
                    "exchange": {
                        "name": "paxflow.events",
                        "type": "topic",
                        "durable": true,
                        "autoDelete": false,
                        "vhost": "/",
                    },
                    "bindingVersion": AMQP_BINDING_VERSION,
                },
            },
        },
        "queue": {
            "address": "paxflow.events",
            "description": "The quorum queue that the worker consumes.",
            "servers": [{ "$ref": "#/servers/rabbitmq" }],
            "messages": messages,
            "bindings": {
                "amqp": {
                    "is": "queue",
                    "queue": {
                        "name": "paxflow.events",
                        "durable": true,
                        "exclusive": false,
                        "autoDelete": false,
                        "vhost": "/",
                    },
                    "bindingVersion": AMQP_BINDING_VERSION,
                },
            },
        },
    })
}

fn operations() -> Value {
    json!({
        "publish": {
            "action": "send",
            "summary": "What producers do: publish persistent messages, with confirms.",
            "channel": { "$ref": "#/channels/events" },
            "messages": message_references("#/channels/events/messages"),
            "bindings": {
                "amqp": { "deliveryMode": 2, "mandatory": true, "bindingVersion": AMQP_BINDING_VERSION },
            },
        },
        "consume": {
            "action": "receive",
            "summary": "What the worker does: acknowledge what is committed.",
            "channel": { "$ref": "#/channels/queue" },
            "messages": message_references("#/channels/queue/messages"),
            "bindings": { "amqp": { "ack": true, "bindingVersion": AMQP_BINDING_VERSION } },
        },
    })
}

fn message_references(base: &str) -> Vec<Value> {
    let reference = |kind: &Kind| json!({ "$ref": format!("{base}/{}", message_name(*kind)) });
    Kind::ALL.iter().map(reference).collect()
}

fn message(kind: Kind) -> Value {
    let (properties, required) = envelope(&[kind], data_schema(kind));
    json!({
        "name": kind,
        "title": kind.description().trim_end_matches('.'),
        "contentType": CONTENT_TYPE,
        "payload": { "type": "object", "properties": properties, "required": required },
        "examples": [{ "name": message_name(kind), "payload": example(kind) }],
    })
}

fn message_name(kind: Kind) -> &'static str {
    match kind {
        Kind::BookingUpserted => "bookingUpserted",
        Kind::BookingDeleted => "bookingDeleted",
        Kind::FlightUpserted => "flightUpserted",
        Kind::FlightDeleted => "flightDeleted",
    }
}

fn example(kind: Kind) -> Value {
    let json = match kind {
        Kind::BookingUpserted => include_str!("../../fixtures/events/booking_is_made.json"),
        Kind::BookingDeleted => include_str!("../../fixtures/events/booking_is_deleted.json"),
        Kind::FlightUpserted => include_str!("../../fixtures/events/flight_is_scheduled.json"),
        Kind::FlightDeleted => include_str!("../../fixtures/events/flight_is_deleted.json"),
    };
    serde_json::from_str(json).unwrap_or_default()
}

fn description() -> String {
    let reasons: String = Reason::ALL
        .iter()
        .map(|reason| format!("| `{reason}` | {} |\n", reason.description()))
        .collect();
    format!(
        "Bookings and flights as CloudEvents 1.0 in structured JSON mode. Every event carries the full \
         state of one booking or flight, so events may come in any order and more than once: only a \
         higher `version` replaces what is stored.\n\n\
         A body has at most {BODY_BYTES_MAX} bytes. `content_type` is `{CONTENT_TYPE}` or `application/json`, \
         `message_id` the event's `id` or absent, the routing key its `type`. Unknown fields are ignored. Timestamps lie \
         between 1970-01-01T00:00:00Z and 2100-01-01T00:00:00Z, the latter excluded.\n\n\
         {LIMITS}\n\n\
         A message that breaks a rule is quarantined with a reason code and the JSON path of the value:\n\n\
         | reason | meaning |\n|---|---|\n{reasons}"
    )
}
