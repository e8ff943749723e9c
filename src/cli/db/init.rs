//! `paxflow db init`: a database to work with.

use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use chrono::Utc;
use sqlx::Postgres;
use sqlx::migrate::MigrateDatabase;
use sqlx::postgres::{PgConnectOptions, PgConnection};

use crate::batch::VerdictCounts;
use crate::cli::say;
use crate::cli::verify::summary;
use crate::config::{Config, Pooler};
use crate::db::migrate::MIGRATOR;
use crate::db::{revisions, sqlstate};
use crate::event::{CONTENT_TYPE, Delivery, Message, decode};
use crate::{apply, audit, db, world};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {
    /// Add the events of the sample world, for development
    #[arg(long)]
    sample: bool,
}

pub(super) async fn run(arguments: &Arguments, config: &Config) -> Result<ExitCode> {
    ensure!(
        !arguments.sample || !config.is_production(),
        "PAXFLOW_ENV=production refuses to add sample events: leave --sample out"
    );
    let url = config.direct_url()?;
    let options = db::options(url, "init")?;
    if is_missing(&options, config).await? {
        Postgres::create_database(url.expose())
            .await
            .with_context(|| format!("cannot create the database {}", db::address(&options)))?;
        say!("created the database {}", db::address(&options));
    }
    db::migrate::migrate(&options).await?;
    say!(
        "schema at revision {}, airports loaded",
        revisions::latest(&MIGRATOR)
    );
    if !arguments.sample {
        return Ok(ExitCode::SUCCESS);
    }
    let mut connection = db::connect(&options).await?;
    let counts = add_sample(&mut connection, config.batch_max).await?;
    say!(
        "sample world: {} events, {} applied, {} without effect: they came twice, or with an older version",
        counts.total(),
        counts.applied,
        counts.total() - counts.applied
    );
    let report = audit::verify(&mut connection).await?;
    audit::record(&mut connection, &report, 0).await?;
    say!("verify: {}", summary(&report));
    Ok(crate::cli::exit_code(report.is_exact()))
}

async fn is_missing(options: &PgConnectOptions, config: &Config) -> Result<bool> {
    match db::connect(options).await {
        Ok(_) => Ok(false),
        Err(error) => {
            if sqlstate::is(&error, sqlstate::INVALID_CATALOG_NAME) {
                return Ok(true);
            }
            Err(db::explain(error)).with_context(|| {
                format!(
                    "cannot connect to the database at {} ({})",
                    db::address(options),
                    config.direct_setting()
                )
            })
        }
    }
}

/// Applies the sample events as the worker would, without a broker.
async fn add_sample(connection: &mut PgConnection, batch_max: usize) -> Result<VerdictCounts> {
    let mut sample = Vec::new();
    world::write_sample(&mut sample).context("cannot make the sample events")?;
    let deliveries = sample
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(deliver)
        .collect::<Result<Vec<_>>>()?;
    let id = format!("init-{}", Utc::now().timestamp_millis());
    let committer = apply::Committer::new(id, Utc::now(), Pooler::None);
    let mut counts = VerdictCounts::default();
    for batch in deliveries.chunks(batch_max) {
        counts = counts
            + apply::apply(connection, &committer, batch)
                .await
                .context("cannot apply the sample events")?;
    }
    ensure!(
        counts.quarantined == 0,
        "{} sample events were quarantined: the database holds other versions of them",
        counts.quarantined
    );
    // The planner's statistics, which a server would gather by itself within minutes.
    sqlx::raw_sql("ANALYZE").execute(connection).await?;
    Ok(counts)
}

fn deliver(line: &[u8]) -> Result<Delivery> {
    let event = decode(&Message::of_body(line))?;
    Ok(Delivery {
        body: line.to_owned(),
        routing_key: event.kind.routing_key().to_owned(),
        content_type: Some(CONTENT_TYPE.to_owned()),
        ..Delivery::default()
    })
}
