//! NDJSON input: one event a line, from files, gzipped files or stdin.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, stdin};

use anyhow::{Context, Result, bail};
use flate2::read::MultiGzDecoder;

use crate::event::BODY_BYTES_MAX;

/// Opens a file of events; `-` is stdin, `.gz` is unpacked.
pub(super) fn open(name: &str) -> Result<Box<dyn BufRead>> {
    if name == "-" {
        return Ok(Box::new(BufReader::with_capacity(1 << 20, stdin())));
    }
    let file = File::open(name).with_context(|| format!("cannot open {name}"))?;
    let reader: Box<dyn Read> = if name.ends_with(".gz") {
        Box::new(MultiGzDecoder::new(file))
    } else {
        Box::new(file)
    };
    Ok(Box::new(BufReader::with_capacity(1 << 20, reader)))
}

/// Refuses a file whose first line begins an event that goes on in the next: each of its lines would be rejected.
pub(super) fn refuse_spread_out(first: &[u8], name: &str) -> Result<()> {
    let filter = match first.trim_ascii() {
        b"{" => ".",
        b"[" => ".[]",
        _ => return Ok(()),
    };
    bail!(
        "{name} has an event over many lines, where one event a line is wanted: jq -c '{filter}' makes that of it"
    )
}

/// Reads the next line without its end into `line`; `false` at the end of the input. Of a line that is
/// longer than any event only the beginning is kept, which is enough to reject it.
pub(super) fn read_line(input: &mut dyn BufRead, line: &mut Vec<u8>, name: &str) -> Result<bool> {
    line.clear();
    let mut any = false;
    loop {
        let buffer = input
            .fill_buf()
            .with_context(|| format!("cannot read {name}"))?;
        if buffer.is_empty() {
            return Ok(any);
        }
        any = true;
        let (part, used, ended) = match buffer.iter().position(|byte| *byte == b'\n') {
            Some(end) => (&buffer[..end], end + 1, true),
            None => (buffer, buffer.len(), false),
        };
        // One byte more than an event may have, and one that may be the CR of the line's end.
        let room = (BODY_BYTES_MAX + 2).saturating_sub(line.len());
        line.extend_from_slice(&part[..part.len().min(room)]);
        input.consume(used);
        if ended {
            if line.last() == Some(&b'\r') {
                line.pop();
            }
            return Ok(true);
        }
    }
}
