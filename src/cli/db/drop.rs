//! `paxflow db drop` and `paxflow db reset`.

use std::process::ExitCode;

use anyhow::{Context, Result};
use sqlx::Connection;

use super::confirm::{Consent, refuse_in_production};
use crate::cli::{database, say};
use crate::config::Config;
use crate::db;
use crate::db::turn::Patience;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {
    #[command(flatten)]
    consent: Consent,
}

pub(super) async fn run(arguments: &Arguments, config: &Config) -> Result<ExitCode> {
    drop_all(arguments, config, "db drop").await?;
    say!("dropped");
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn reset(arguments: &Arguments, config: &Config) -> Result<ExitCode> {
    drop_all(arguments, config, "db reset").await?;
    db::migrate::migrate(&db::options(config.direct_url()?, "reset")?).await?;
    say!("dropped and created again, empty");
    Ok(ExitCode::SUCCESS)
}

async fn drop_all(arguments: &Arguments, config: &Config, command: &str) -> Result<()> {
    refuse_in_production(config, command)?;
    let options = db::options(config.direct_url()?, "drop")?;
    let mut connection = database(config, "drop").await?;
    let tables = db::drop::tables(&mut connection)
        .await
        .context("cannot see what there is")?;
    connection.close().await.ok();
    if !tables.is_empty() {
        let rows: Vec<_> = tables
            .iter()
            .map(|(table, rows)| format!("{table} ({rows} rows)"))
            .collect();
        arguments.consent.obtain(&format!(
            "This drops everything of paxflow in {}: {}, with their views and functions.",
            db::address(&options),
            rows.join(", ")
        ))?;
    }
    db::drop::drop_all(&options, Patience::default()).await
}
