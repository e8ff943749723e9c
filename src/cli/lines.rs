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

/// Events of an input, a line each. Blank lines hold none, and count as lines.
pub(super) struct Lines {
    input: Box<dyn BufRead>,
    /// Of the input, for messages.
    name: String,
    /// The line that was read last; the first is 1.
    pub(super) number: u64,
    body: Vec<u8>,
}

impl Lines {
    pub(super) fn new(input: Box<dyn BufRead>, name: &str) -> Self {
        Self {
            input,
            name: name.to_owned(),
            number: 0,
            body: Vec::new(),
        }
    }

    /// The next event; none at the end of the input.
    pub(super) fn next(&mut self) -> Result<Option<&[u8]>> {
        while self.read_line()? {
            self.number += 1;
            // Of one that is too long the rest is not known.
            if self.body.len() > BODY_BYTES_MAX || !self.body.trim_ascii().is_empty() {
                return Ok(Some(&self.body));
            }
        }
        Ok(None)
    }

    /// Reads a line without its end; `false` at the end of the input. Of one that is longer than any event only the beginning is
    /// kept, which is enough to reject it.
    fn read_line(&mut self) -> Result<bool> {
        self.body.clear();
        let mut any = false;
        loop {
            let buffer = self
                .input
                .fill_buf()
                .with_context(|| format!("cannot read {}", self.name))?;
            if buffer.is_empty() {
                return Ok(any);
            }
            any = true;
            let (part, used, ended) = match buffer.iter().position(|byte| *byte == b'\n') {
                Some(end) => (&buffer[..end], end + 1, true),
                None => (buffer, buffer.len(), false),
            };
            // One byte more than an event may have, and one that may be the CR of the line's end.
            let room = (BODY_BYTES_MAX + 2).saturating_sub(self.body.len());
            self.body.extend_from_slice(&part[..part.len().min(room)]);
            self.input.consume(used);
            if ended {
                if self.body.last() == Some(&b'\r') {
                    self.body.pop();
                }
                return Ok(true);
            }
        }
    }
}

/// Refuses an input whose first line begins an event that goes on in the next: each of its lines would be rejected.
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
