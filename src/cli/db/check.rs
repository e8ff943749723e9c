//! `paxflow db check`.

use std::process::ExitCode;

use anyhow::{Context, Result};
use sqlx::Connection;

use crate::cli::{database, say};
use crate::config::Config;
use crate::db;

pub(super) async fn run(config: &Config) -> Result<ExitCode> {
    let mut connection = database(config, "check").await?;
    connection
        .ping()
        .await
        .context("the database does not answer")?;
    say!(
        "ok: {}",
        db::address(&db::options(config.direct_url()?, "check")?)
    );
    connection.close().await.ok();
    Ok(ExitCode::SUCCESS)
}
