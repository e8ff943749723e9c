//! `paxflow doctor`: settings that could lose messages or block.

mod broker;
mod database;

use std::process::ExitCode;

use anyhow::{Context, Result};
use serde::Serialize;

use super::say;
use crate::config::Config;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Print the findings as JSON
    #[arg(long)]
    json: bool,
}

/// Something that could lose messages or block.
#[derive(Debug, Serialize)]
struct Finding {
    /// `broker` or `database`.
    server: &'static str,
    /// Name of the check.
    check: &'static str,
    /// What there is.
    found: String,
    /// What it can lead to.
    danger: &'static str,
    /// What to do.
    remedy: &'static str,
}

pub(super) async fn run(arguments: &Arguments, config: &Config) -> Result<ExitCode> {
    let (mut findings, consumers) = broker::examine(config).await?;
    findings.extend(database::examine(config, consumers).await?);
    if arguments.json {
        let findings = serde_json::to_string_pretty(&findings);
        say!("{}", findings.context("cannot write the findings")?);
    } else {
        for finding in &findings {
            say!("{} {}: {}", finding.server, finding.check, finding.found);
            say!("    {}", finding.danger);
            say!("    remedy: {}", finding.remedy);
        }
        match findings.len() {
            0 => say!("nothing found that could lose messages or block"),
            count => say!("{count} found"),
        }
    }
    Ok(crate::cli::exit_code(findings.is_empty()))
}
