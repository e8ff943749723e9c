//! `paxflow schema`.

use std::process::ExitCode;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::say;
use crate::event::{SchemaKind, asyncapi, json_schema};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Which document; both JSON Schemas if none is named
    #[arg(value_enum)]
    document: Option<Document>,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Document {
    /// JSON Schema of booking events
    Booking,
    /// JSON Schema of flight events
    Flight,
    /// AsyncAPI 3 document of the whole contract
    Asyncapi,
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let document = match arguments.document {
        Some(Document::Booking) => json_schema(SchemaKind::Booking),
        Some(Document::Flight) => json_schema(SchemaKind::Flight),
        Some(Document::Asyncapi) => asyncapi(),
        None => both(),
    };
    let text = serde_json::to_string_pretty(&document).context("cannot write the schema")?;
    say!("{}", in_ascii(&text));
    Ok(ExitCode::SUCCESS)
}

/// JSON with what is beyond ASCII escaped: patterns hold characters that are not to be seen, or turn the writing direction.
fn in_ascii(json: &str) -> String {
    let mut ascii = String::with_capacity(json.len());
    for c in json.chars() {
        if c.is_ascii() {
            ascii.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                ascii.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    ascii
}

fn both() -> Value {
    json!({ "booking": json_schema(SchemaKind::Booking), "flight": json_schema(SchemaKind::Flight) })
}
