//! `paxflow check`: what a producer asks before publishing.

use std::process::ExitCode;

use anyhow::{Context, Result};
use serde_json::json;

use super::lines::{self, Lines};
use super::say;
use crate::event::{Message, decode};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// NDJSON files, one event a line, blank ones ignored; - is stdin, .gz is unpacked
    #[arg(required = true, value_name = "FILE")]
    files: Vec<String>,
    /// Print the findings as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let (mut valid, mut rejected) = (0_u64, 0_u64);
    let mut findings = Vec::new();
    for name in &arguments.files {
        let mut lines = Lines::new(lines::open(name)?, name);
        let mut is_first = true;
        while let Some(body) = lines.next()? {
            if std::mem::take(&mut is_first) {
                lines::refuse_spread_out(body, name)?;
            }
            match decode(&Message::of_body(body)) {
                Ok(_) => valid += 1,
                Err(finding) => {
                    rejected += 1;
                    let line = lines.number;
                    if arguments.json {
                        findings.push(json!({
                            "file": name, "line": line, "reason": finding.reason.as_str(),
                            "path": finding.path, "detail": finding.detail,
                        }));
                    } else {
                        say!("{name}:{line}: {finding}");
                    }
                }
            }
        }
    }
    if arguments.json {
        let report = json!({ "valid": valid, "rejected": findings });
        say!(
            "{}",
            serde_json::to_string_pretty(&report).context("cannot write the report")?
        );
    } else {
        say!("{valid} valid, {rejected} rejected");
    }
    Ok(super::exit_code(rejected == 0))
}
