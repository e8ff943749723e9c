//! `paxflow verify`.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context, Result};
use serde_json::json;

use super::say;
use crate::audit::{self, Report};
use crate::config::Config;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Rebuild the cells that differ, in one transaction, then compare again
    #[arg(long)]
    repair: bool,
    /// Print the findings as JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(arguments: &Arguments, config: &Config) -> Result<ExitCode> {
    let mut connection = super::database_with_schema(config, "verify").await?;
    let mut report = audit::verify(&mut connection)
        .await
        .context("cannot verify")?;
    let (mut repaired, mut mended) = (0, Vec::new());
    if arguments.repair && !report.is_exact() {
        if !arguments.json {
            // Whoever reads may have had enough; the repair and the exit code are what counts.
            show(&report, repaired, "").ok();
        }
        repaired = audit::repair(&mut connection)
            .await
            .context("cannot repair")?;
        mended = report.differences;
        report = audit::verify(&mut connection)
            .await
            .context("cannot verify the repair")?;
    }
    if let Err(error) = audit::record(&mut connection, &report, repaired).await {
        let reason = crate::db::told(&error);
        let problem = format_args!("the result could not be recorded: {reason}");
        writeln!(std::io::stderr(), "paxflow: {problem}").ok();
    }
    if arguments.json {
        let mut value = serde_json::to_value(&report).context("cannot write the report")?;
        value["exact"] = json!(report.is_exact());
        value["repaired"] = json!(repaired);
        value["mended"] = json!(mended);
        say!("{value}");
    } else {
        show(&report, repaired, ": --repair rebuilds them all").ok();
    }
    Ok(super::exit_code(report.is_exact()))
}

/// `remedy` follows how many rows more there are than are listed.
fn show(report: &Report, repaired: i64, remedy: &str) -> std::io::Result<()> {
    if repaired > 0 {
        say!("rebuilt {repaired} stored rows");
    }
    for difference in &report.differences {
        say!("{difference}");
    }
    let listed: BTreeSet<_> = report
        .differences
        .iter()
        .map(|difference| (difference.relation, &difference.key))
        .collect();
    let more = report.rows_different - listed.len() as i64;
    if more > 0 {
        say!("and {more} rows more{remedy}");
    }
    say!("{}", summary(report));
    Ok(())
}

/// The answer in one line.
pub(super) fn summary(report: &Report) -> String {
    let at = super::utc(report.snapshot_at);
    if report.is_exact() {
        format!(
            "exact: {} rows are what the bookings and flights of {at} add up to",
            report.rows
        )
    } else {
        format!(
            "DRIFT: {} of {} rows differ from the bookings and flights of {at}",
            report.rows_different, report.rows
        )
    }
}
