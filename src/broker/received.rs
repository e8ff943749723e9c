//! What the broker delivers, as the rest of the program sees it.

use lapin::types::{AMQPValue, FieldTable, ShortString};

use crate::event::Delivery;

/// Headers that are nested deeper are kept in this depth only: no reader of JSON goes down as far as AMQP does.
const HEADER_LEVELS_MAX: usize = 32;

/// What the contract sees of a delivery.
pub(super) fn received(delivery: lapin::message::Delivery) -> Delivery {
    let properties = &delivery.properties;
    let text = |value: &Option<ShortString>| value.clone().map(|value| storable(value.into()));
    Delivery {
        tag: delivery.delivery_tag,
        exchange: storable(delivery.exchange.into()),
        routing_key: storable(delivery.routing_key.into()),
        content_type: text(properties.content_type()),
        content_encoding: text(properties.content_encoding()),
        message_id: text(properties.message_id()),
        headers: properties
            .headers()
            .as_ref()
            .map(|headers| headers_as_json(headers, 1))
            .unwrap_or_default(),
        body: delivery.data,
    }
}

fn headers_as_json(
    headers: &FieldTable,
    level: usize,
) -> serde_json::Map<String, serde_json::Value> {
    headers
        .into_iter()
        .map(|(name, value)| (storable(name.to_string()), value_as_json(value, level)))
        .collect()
}

fn value_as_json(value: &AMQPValue, level: usize) -> serde_json::Value {
    match value {
        AMQPValue::FieldArray(_) | AMQPValue::FieldTable(_) if level >= HEADER_LEVELS_MAX => {
            "nested too deep".into()
        }
        AMQPValue::Boolean(value) => (*value).into(),
        AMQPValue::ShortShortInt(value) => (*value).into(),
        AMQPValue::ShortShortUInt(value) => (*value).into(),
        AMQPValue::ShortInt(value) => (*value).into(),
        AMQPValue::ShortUInt(value) => (*value).into(),
        AMQPValue::LongInt(value) => (*value).into(),
        AMQPValue::LongUInt(value) => (*value).into(),
        AMQPValue::LongLongInt(value) => (*value).into(),
        AMQPValue::Float(value) => (*value).into(),
        AMQPValue::Double(value) => (*value).into(),
        AMQPValue::DecimalValue(value) => format!("{}e-{}", value.value, value.scale).into(),
        AMQPValue::ShortString(value) => storable(value.to_string()).into(),
        AMQPValue::LongString(value) => lossy(value.as_bytes()).into(),
        AMQPValue::FieldArray(values) => {
            let values = values.as_slice().iter();
            values
                .map(|value| value_as_json(value, level + 1))
                .collect()
        }
        AMQPValue::Timestamp(value) => (*value).into(),
        AMQPValue::FieldTable(table) => headers_as_json(table, level + 1).into(),
        AMQPValue::ByteArray(bytes) => lossy(bytes.as_slice()).into(),
        AMQPValue::Void => serde_json::Value::Null,
    }
}

fn lossy(bytes: &[u8]) -> String {
    storable(String::from_utf8_lossy(bytes).into_owned())
}

/// PostgreSQL's text has no NUL.
fn storable(text: String) -> String {
    if text.contains('\0') {
        text.replace('\0', "\u{fffd}")
    } else {
        text
    }
}
