//! `paxflow demo`: everything once, on private servers.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use chrono::Utc;
use comfy_table::{Table, presets};
use sqlx::postgres::{PgConnection, PgPool};
use sqlx::{FromRow, Row};
use tokio::signal::unix::{SignalKind, signal};

use super::publish::Sender;
use super::verify::summary;
use crate::broker::{Publisher, Topology};
use crate::config::{Config, Secret};
use crate::event::{Message, decode};
use crate::health::Health;
use crate::sandbox::{Options, Sandbox};
use crate::worker::{self, Stop, Worker};
use crate::{apply, audit, db, world};

/// Events that break the contract, with the routing keys that they are published with.
const BROKEN: [(&str, &str); 3] = [
    (
        "airline.booking.upserted.v1",
        include_str!("../../fixtures/rejected/total_is_a_cent_too_much.json"),
    ),
    (
        "airline.flight.upserted.v1",
        include_str!("../../fixtures/rejected/origin_is_lower_case.json"),
    ),
    (
        "airline.booking.upserted.v2",
        include_str!("../../fixtures/rejected/type_is_version_2.json"),
    ),
];

/// How often the demo looks whether the worker has finished.
const LOOK_EVERY: Duration = Duration::from_millis(50);

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Leave the servers and the worker running until Ctrl-C, and print how to reach them
    #[arg(long)]
    keep: bool,
}

/// Runs the main job once. With `DATABASE_URL` and `AMQP_URL` set, on those servers.
pub(super) async fn run(arguments: &Arguments, mut config: Config) -> Result<ExitCode> {
    let mut private = None;
    if config.database_url.is_none() || config.amqp_url.is_none() {
        let started = Instant::now();
        println!("Starting a private PostgreSQL and RabbitMQ (loopback only, temporary data) ...");
        let sandbox = Sandbox::start(&Options::default()).await?;
        println!(
            "  both answer after {:.1} s",
            started.elapsed().as_secs_f64()
        );
        config.database_url = Some(Secret::new(sandbox.database_url()));
        config.database_direct_url = config.database_url.clone();
        config.amqp_url = Some(Secret::new(sandbox.amqp_url()));
        private = Some(sandbox);
    }
    let exact = tokio::select! {
        exact = show(arguments, &config) => exact,
        () = interrupted() => Ok(true),
    };
    if let Some(sandbox) = private {
        sandbox.stop().await?;
        println!("The private servers are stopped and their data is removed.");
    }
    Ok(if exact? {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

async fn interrupted() {
    match signal(SignalKind::interrupt()) {
        Ok(mut interrupt) => drop(interrupt.recv().await),
        Err(_) => std::future::pending().await,
    }
}

async fn show(arguments: &Arguments, config: &Config) -> Result<bool> {
    let options = db::options(config.direct_url()?, "demo")?;
    println!(
        "Migrating the database to revision {} ...",
        db::revisions::latest(&db::migrate::MIGRATOR)
    );
    db::migrate::migrate(&options).await?;

    let topology = Topology {
        exchange: config.exchange.clone(),
        queue: config.queue.clone(),
    };
    let published = publish(config, &topology).await?;

    println!("Running the worker on them ...");
    let pool = db::pool::open(options.clone(), config.pool);
    let identity = apply::Worker {
        id: format!("demo-{}", Utc::now().timestamp_millis()),
        started_at: Utc::now(),
        pooler: config.pool.pooler,
    };
    let worker = Worker {
        identity,
        amqp_url: config.amqp_url()?.clone(),
        topology,
        pool: pool.clone(),
        health: Health::default(),
        batch_max: config.batch_max,
        batch_linger: config.batch_linger,
        prefetch: config.prefetch,
    };
    let (request, stop) = Stop::new();
    let started = Instant::now();
    let worker_id = worker.identity.id.clone();
    let mut running = tokio::spawn(async move { worker::run(&worker, stop).await });
    let verdicts = tokio::select! {
        drained = drained(&pool, &worker_id, published) => drained?,
        ended = &mut running => return ended.context("the worker failed")?.map(|()| false),
    };
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "  {published} events applied and acknowledged in {seconds:.1} s ({:.0} events/s)",
        published as f64 / seconds
    );

    let mut connection = db::connect(&options).await?;
    // The planner's statistics, which a server would gather by itself within minutes.
    sqlx::raw_sql("ANALYZE").execute(&mut connection).await?;
    println!("\nTop markets:\n{}", top_markets(&mut connection).await?);
    println!("\n{verdicts}");
    println!("\nQuarantined:\n{}", quarantined(&mut connection).await?);
    let report = audit::verify(&mut connection).await?;
    audit::record(&mut connection, &report, 0).await?;
    println!("\nverify: {}", summary(&report));
    if arguments.keep {
        keep(config)?;
        std::future::pending::<()>().await;
    }
    request.send_replace(true);
    running.await.context("the worker failed")??;
    pool.close().await;
    Ok(report.is_exact())
}

/// Sends the sample world through the broker; returns how many events it has.
async fn publish(config: &Config, topology: &Topology) -> Result<u64> {
    let mut events = Vec::new();
    world::write_sample(&mut events).context("cannot make the sample events")?;
    let lines: Vec<_> = events
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .collect();
    println!(
        "Publishing the {} sample events, and {} broken ones, to exchange {} ...",
        lines.len(),
        BROKEN.len(),
        topology.exchange
    );
    let publisher = Publisher::open(config.amqp_url()?, topology).await?;
    let mut sender = Sender::new(&publisher, lines.len() as u64, None);
    for line in &lines {
        let event = decode(&Message::of_body(line))?;
        sender
            .send(event.kind.routing_key(), Some(&event.id), line)
            .await?;
    }
    for (routing_key, body) in BROKEN {
        sender.send(routing_key, None, body.as_bytes()).await?;
    }
    sender.finish().await?;
    println!("  all confirmed in {:.1} s", sender.seconds());
    publisher.close().await;
    Ok((lines.len() + BROKEN.len()) as u64)
}

#[derive(FromRow)]
struct Verdicts {
    received: i64,
    applied: i64,
    duplicate: i64,
    stale: i64,
    folded: i64,
    quarantined: i64,
}

impl std::fmt::Display for Verdicts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            received,
            applied,
            duplicate,
            stale,
            folded,
            quarantined,
        } = self;
        write!(
            f,
            "Verdicts: {received} received = {applied} applied + {duplicate} duplicate + {stale} stale + {folded} folded \
             + {quarantined} quarantined"
        )
    }
}

/// Waits until the worker has committed so many deliveries.
async fn drained(pool: &PgPool, worker_id: &str, events: u64) -> Result<Verdicts> {
    let progress = "SELECT received, applied, duplicate, stale, folded, quarantined FROM worker_progress WHERE worker_id = $1";
    loop {
        let verdicts: Option<Verdicts> = sqlx::query_as(progress)
            .bind(worker_id)
            .fetch_optional(pool)
            .await?;
        match verdicts {
            Some(verdicts) if verdicts.received as u64 >= events => return Ok(verdicts),
            _ => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
}

async fn top_markets(connection: &mut PgConnection) -> Result<Table> {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    table.set_header([
        "market",
        "flights",
        "bookings",
        "cancelled",
        "load factor",
        "average price (USD)",
    ]);
    for row in sqlx::query(include_str!("top_markets.sql"))
        .fetch_all(connection)
        .await?
    {
        let text = |column| {
            row.try_get::<Option<String>, _>(column)
                .map(Option::unwrap_or_default)
        };
        let count = |column| row.try_get::<i64, _>(column).map(|count| count.to_string());
        table.add_row([
            text(0)?,
            count(1)?,
            count(2)?,
            count(3)?,
            text(4)?,
            text(5)?,
        ]);
    }
    ensure!(!table.is_empty(), "no market came out");
    Ok(table)
}

async fn quarantined(connection: &mut PgConnection) -> Result<Table> {
    let newest = "SELECT reason, path, detail FROM quarantined_events ORDER BY id DESC LIMIT 10";
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    table.set_header(["reason", "where", "what is expected"]);
    for row in sqlx::query(newest).fetch_all(connection).await? {
        let text = |column: usize| row.try_get::<String, _>(column);
        table.add_row([text(0)?, text(1)?, text(2)?]);
    }
    Ok(table)
}

/// Says how to reach what is left running. The password is made for this run and ends with it.
fn keep(config: &Config) -> Result<()> {
    println!("\nStill running; in another terminal:");
    println!("  export DATABASE_URL={}", config.database_url()?.expose());
    println!("  export AMQP_URL={}", config.amqp_url()?.expose());
    println!("  psql $DATABASE_URL -c 'SELECT * FROM market_data LIMIT 5'");
    println!("  paxflow generate --events 1000 --seed 2 | paxflow publish -");
    println!("  paxflow status");
    println!("Ctrl-C stops it all and removes the data.");
    Ok(())
}
