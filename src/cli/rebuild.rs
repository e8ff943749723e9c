//! `paxflow rebuild`.

use std::process::ExitCode;

use anyhow::{Context, Result};
use serde_json::json;

use super::say;
use super::verify::summary;
use crate::audit;
use crate::config::Config;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(arguments: &Arguments, config: &Config) -> Result<ExitCode> {
    let mut connection = super::database_with_schema(config, "rebuild").await?;
    let rebuilt = audit::rebuild(&mut connection)
        .await
        .context("cannot rebuild; MarketData is what it was, or rebuilt if the database was lost at the very end")?;
    let report = audit::verify(&mut connection)
        .await
        .context("rebuilt, but cannot verify")?;
    audit::record(&mut connection, &report, rebuilt.replaced)
        .await
        .context("rebuilt and verified, but the result could not be recorded")?;
    if arguments.json {
        say!(
            "{}",
            json!({ "rebuilt": rebuilt, "exact": report.is_exact(), "verified": report })
        );
    } else {
        say!(
            "rebuilt {} rows, {} of them again since their bookings changed meanwhile",
            rebuilt.rows,
            rebuilt.caught_up
        );
        say!(
            "swapped within {} ms: {} rows differed",
            rebuilt.locked_ms,
            rebuilt.replaced
        );
        for difference in &report.differences {
            say!("{difference}");
        }
        say!("{}", summary(&report));
    }
    Ok(super::exit_code(report.is_exact()))
}
