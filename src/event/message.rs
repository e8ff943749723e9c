//! What the broker delivers, and what of it the contract looks at.

use super::CONTENT_TYPE;

/// A message as the broker delivered it, with what quarantine keeps of it.
#[derive(Debug, Clone, Default)]
pub struct Delivery {
    /// Number of the delivery on its channel.
    pub tag: u64,
    /// The body exactly as received.
    pub body: Vec<u8>,
    /// Exchange it was published to.
    pub exchange: String,
    /// Routing key it was published with.
    pub routing_key: String,
    /// AMQP `content_type`.
    pub content_type: Option<String>,
    /// AMQP `content_encoding`.
    pub content_encoding: Option<String>,
    /// AMQP `message_id`.
    pub message_id: Option<String>,
    /// AMQP headers as a JSON object.
    pub headers: serde_json::Map<String, serde_json::Value>,
}

impl Delivery {
    /// Bytes of its body, and of its headers as JSON.
    pub fn bytes(&self) -> usize {
        let headers = if self.headers.is_empty() {
            0
        } else {
            serde_json::to_string(&self.headers).map_or(0, |json| json.len())
        };
        self.body.len() + headers
    }

    /// As the contract sees it.
    pub fn message(&self) -> Message<'_> {
        Message {
            body: &self.body,
            exchange: &self.exchange,
            routing_key: &self.routing_key,
            content_type: self.content_type.as_deref(),
            content_encoding: self.content_encoding.as_deref(),
            message_id: self.message_id.as_deref(),
        }
    }
}

/// One delivery as the contract sees it.
///
/// A content type is required. The routing key must be the event's type, except on the default
/// exchange, through which operators put messages back. A `message_id` may be absent, but not
/// differ from the event's id.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    /// The body, exactly as received.
    pub body: &'a [u8],
    /// The exchange it was published to; empty for the default exchange.
    pub exchange: &'a str,
    /// The routing key it was published with.
    pub routing_key: &'a str,
    /// The `content_type` property.
    pub content_type: Option<&'a str>,
    /// The `content_encoding` property.
    pub content_encoding: Option<&'a str>,
    /// The `message_id` property.
    pub message_id: Option<&'a str>,
}

impl<'a> Message<'a> {
    /// A body that was not delivered: the properties of the message give no cause for rejection.
    pub fn of_body(body: &'a [u8]) -> Self {
        Message {
            body,
            exchange: "",
            routing_key: "",
            content_type: Some(CONTENT_TYPE),
            content_encoding: None,
            message_id: None,
        }
    }
}
