//! `paxflow db restore`.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use sqlx::Connection;
use sqlx::postgres::PgConnectOptions;

use crate::audit::{self, Report};
use crate::cli::{say, verify};
use crate::config::Config;
use crate::db::backup::{MAGIC, Rows, Server};
use crate::db::{self, migrate, revisions};

/// How often progress without a known end is drawn.
const TICK: Duration = Duration::from_millis(200);

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {
    /// A backup made by paxflow db backup
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Drop everything that is in the database's schema public first, in the same transaction
    #[arg(long)]
    force: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(arguments: &Arguments, config: &Config) -> Result<ExitCode> {
    let Arguments { file, force, json } = arguments;
    let path = file.display();
    check_format(file).with_context(|| format!("cannot restore {path}"))?;
    let options = db::options(config.direct_url()?, "restore")?;
    let address = db::address(&options);
    let restored = async {
        let server = Server::look(options.clone()).await?;
        let revision = server.revision(file).await?;
        ensure!(
            revision <= revisions::latest(&migrate::MIGRATOR),
            "its schema is at revision {revision}, this program knows revisions up to {}: use a newer paxflow",
            revisions::latest(&migrate::MIGRATOR)
        );
        let drops = server.drops().await?;
        refuse_to_destroy(drops.len(), *force, config)?;
        let progress = restoring();
        let rows = server.restore(file, &drops, &progress).await;
        progress.finish_and_clear();
        anyhow::Ok((revision, rows?))
    };
    let (revision, rows) = restored
        .await
        .with_context(|| format!("cannot restore {path} into the database at {address}"))?;
    // From here on it is restored, whatever comes.
    let report = finish(&options).await.with_context(|| {
        format!("{path} is restored, but the database at {address} is not ready")
    })?;
    if *json {
        let exact = report.is_exact();
        say!(
            "{}",
            json!({ "file": path.to_string(), "revision": revision, "rows": rows, "exact": exact, "rows_verified": report.rows })
        );
    } else {
        show(file, revision, &rows, &report)?;
    }
    Ok(crate::cli::exit_code(report.is_exact()))
}

/// Says what it is that pg_restore would not understand.
fn check_format(file: &Path) -> Result<()> {
    let mut begin = Vec::new();
    File::open(file)?
        .take(MAGIC.len() as u64)
        .read_to_end(&mut begin)?;
    ensure!(
        begin == MAGIC,
        "it is not in pg_dump's custom format: name a file that paxflow db backup has written"
    );
    Ok(())
}

fn refuse_to_destroy(objects: usize, force: bool, config: &Config) -> Result<()> {
    ensure!(
        objects == 0 || !config.is_production(),
        "the database is not empty ({objects} objects in schema public), and PAXFLOW_ENV=production refuses to drop them: restore into an empty one"
    );
    ensure!(
        objects == 0 || force,
        "the database is not empty ({objects} objects in schema public): restore into an empty one, or drop them with --force"
    );
    Ok(())
}

/// Hidden by itself where stderr is not a terminal.
fn restoring() -> ProgressBar {
    let progress = ProgressBar::no_length();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {human_pos} rows in {elapsed} {msg}")
    {
        progress.set_style(style);
    }
    progress.enable_steady_tick(TICK);
    progress
}

/// Brings an older schema up to date, and proves MarketData.
async fn finish(options: &PgConnectOptions) -> Result<Report> {
    migrate::migrate(options).await?;
    let mut connection = db::connect(options).await?;
    db::rights::grant(&mut connection)
        .await
        .context("cannot give the roles their rights")?;
    sqlx::raw_sql("ANALYZE")
        .execute(&mut connection)
        .await
        .context("cannot gather statistics")?;
    let report = audit::verify(&mut connection)
        .await
        .context("cannot verify")?;
    connection.close().await.ok();
    Ok(report)
}

fn show(file: &Path, revision: i64, rows: &Rows, report: &Report) -> std::io::Result<()> {
    say!(
        "restored {} rows of {} tables at revision {revision} from {}",
        rows.values().sum::<u64>(),
        rows.len(),
        file.display()
    );
    if revision < revisions::latest(&migrate::MIGRATOR) {
        say!(
            "upgraded the schema to revision {}",
            revisions::latest(&migrate::MIGRATOR)
        );
    }
    say!("{}", verify::summary(report));
    if !report.is_exact() {
        say!(
            "it was so when the backup was made, or this server has other time zone data: paxflow verify lists the cells, --repair rebuilds them"
        );
    }
    Ok(())
}
