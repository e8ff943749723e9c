//! `paxflow db check`.

use std::process::ExitCode;

use anyhow::Result;
use sqlx::Connection;

use crate::cli::{database, say};
use crate::config::Config;
use crate::db::migrate::MIGRATOR;
use crate::db::{self, revisions};

pub(super) async fn run(config: &Config) -> Result<ExitCode> {
    let mut connection = database(config, "check").await?;
    let standing = revisions::standing(&mut connection, &MIGRATOR).await?;
    let address = db::address(&db::options(config.direct_url()?, "check")?);
    let latest = revisions::latest(&MIGRATOR);
    let schema = match standing.current() {
        _ if standing.in_sync() => format!("revision {latest}, in sync"),
        Some(current) => format!(
            "revision {} of {latest}, not in sync: see paxflow db status",
            current.version
        ),
        None => format!("no schema yet, latest revision {latest}"),
    };
    say!("ok: {address}, {schema}");
    connection.close().await.ok();
    Ok(ExitCode::SUCCESS)
}
