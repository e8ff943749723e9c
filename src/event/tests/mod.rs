//! The contract against its fixtures, an independent validator and generated input.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod edges;
mod fixtures;
mod hash;
mod properties;
mod schemas;

use std::fs;
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::Value;

use super::{CONTENT_TYPE, Event, Message, Rejected, decode};

/// A file of `fixtures/events`.
struct Fixture {
    name: String,
    body: Vec<u8>,
}

impl Fixture {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// An entry of `fixtures/rejected/index.json`. A property that is not given is as a correct
/// publisher would set it.
#[derive(Deserialize)]
struct RejectedFixture {
    file: String,
    reason: String,
    path: String,
    detail: String,
    schema_rejects: bool,
    #[serde(default = "correct_content_type")]
    content_type: Option<String>,
    content_encoding: Option<String>,
    routing_key: Option<String>,
    message_id: Option<String>,
}

fn correct_content_type() -> Option<String> {
    Some(CONTENT_TYPE.to_owned())
}

impl RejectedFixture {
    fn body(&self) -> Vec<u8> {
        fs::read(fixture_dir("rejected").join(&self.file)).unwrap()
    }

    fn message<'a>(&'a self, body: &'a [u8]) -> Message<'a> {
        Message {
            exchange: self.routing_key.as_ref().map_or("", |_| "paxflow.events"),
            routing_key: self.routing_key.as_deref().unwrap_or_default(),
            content_type: self.content_type.as_deref(),
            content_encoding: self.content_encoding.as_deref(),
            message_id: self.message_id.as_deref(),
            ..Message::of_body(body)
        }
    }
}

fn fixture_dir(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures")
        .join(name)
}

fn events() -> Vec<Fixture> {
    let mut files: Vec<PathBuf> = fs::read_dir(fixture_dir("events"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files
        .into_iter()
        .map(|file| Fixture {
            name: file.file_stem().unwrap().to_str().unwrap().to_owned(),
            body: fs::read(&file).unwrap(),
        })
        .collect()
}

fn event(name: &str) -> Value {
    let body = fs::read(fixture_dir("events").join(format!("{name}.json"))).unwrap();
    serde_json::from_slice(&body).unwrap()
}

fn rejected() -> Vec<RejectedFixture> {
    let index = fs::read(fixture_dir("rejected").join("index.json")).unwrap();
    serde_json::from_slice(&index).unwrap()
}

fn decode_body(body: &[u8]) -> Result<Event<'_>, Rejected> {
    decode(&Message::of_body(body))
}

fn rejection(event: &Value) -> Rejected {
    let body = event.to_string();
    let result = decode_body(body.as_bytes()).map(|event| event.kind);
    result.expect_err("the event must be rejected")
}

/// The value at a dotted path below the event.
fn at<'v>(event: &'v mut Value, path: &str) -> &'v mut Value {
    path.split('.')
        .fold(event, |value, name| value.get_mut(name).unwrap())
}

/// Sets the value at a dotted path.
fn with(event: &Value, path: &str, value: impl Into<Value>) -> Value {
    let mut changed = event.clone();
    let (parent, name) = path.rsplit_once('.').unwrap_or(("", path));
    let parent = if parent.is_empty() {
        &mut changed
    } else {
        at(&mut changed, parent)
    };
    parent[name] = value.into();
    changed
}
