//! A message becomes an event or a rejection. An event stays the same when its JSON is spelled anew.
//!
//! The input is exchange, routing key, content type, content encoding and message id, each ended by a
//! byte that no text has, then the body. A property without any byte is not there.
#![no_main]

use libfuzzer_sys::fuzz_target;
use paxflow::event::{Message, decode};

const PROPERTIES: usize = 5;
const END: u8 = 0xff;

fuzz_target!(|input: &[u8]| {
    let mut parts = input.splitn(PROPERTIES + 1, |byte| *byte == END);
    let properties: Vec<_> = parts
        .by_ref()
        .take(PROPERTIES)
        .map(String::from_utf8_lossy)
        .collect();
    let text = |at: usize| properties.get(at).map_or("", |text| text.as_ref());
    let given = |at: usize| Some(text(at)).filter(|text| !text.is_empty());
    let message = Message {
        body: parts.next().unwrap_or_default(),
        exchange: text(0),
        routing_key: text(1),
        content_type: given(2),
        content_encoding: given(3),
        message_id: given(4),
    };
    match decode(&message) {
        Ok(event) => {
            let json: serde_json::Value =
                serde_json::from_slice(message.body).expect("an event is JSON");
            let json = json.to_string();
            assert_eq!(
                decode(&Message::of_body(json.as_bytes())).as_ref(),
                Ok(&event)
            );
        }
        Err(rejected) => assert!(rejected.path.starts_with('$') && !rejected.detail.is_empty()),
    }
});
