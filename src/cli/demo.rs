//! `paxflow demo`: everything once, on private servers.

use std::fmt::{self, Display};
use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use chrono::Utc;
use comfy_table::{Table, presets};
use serde::Serialize;
use sqlx::FromRow;
use sqlx::postgres::{PgConnection, PgPool};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::publish::Sender;
use super::verify::summary;
use crate::broker::{self, Publisher, Topology};
use crate::config::{Config, Secret};
use crate::event::{Message, decode};
use crate::health::Health;
use crate::sandbox::{Options, Sandbox};
use crate::stop::Stop;
use crate::worker::{self, Worker};
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
    /// Print the result as JSON; what happens meanwhile goes to stderr
    #[arg(long)]
    json: bool,
}

impl Arguments {
    /// Says what happens. Whether anybody reads it makes no difference to the demo.
    fn tell(&self, what: impl Display) {
        if self.json {
            writeln!(std::io::stderr(), "{what}").ok();
        } else {
            writeln!(std::io::stdout(), "{what}").ok();
        }
    }
}

/// What came out.
#[derive(Serialize)]
struct Shown {
    events: u64,
    /// From the start of the worker to its last commit.
    seconds: f64,
    verdicts: Verdicts,
    top_markets: Vec<Market>,
    quarantined: Vec<SetAside>,
    verify: audit::Report,
    exact: bool,
}

/// Runs the main job once. With `DATABASE_URL` and `AMQP_URL` set, on those servers.
pub(super) async fn run(arguments: &Arguments, mut config: Config) -> Result<ExitCode> {
    let mut private = None;
    if config.database_url.is_none() || config.amqp_url.is_none() {
        let started = Instant::now();
        arguments
            .tell("Starting a private PostgreSQL and RabbitMQ (loopback only, temporary data) ...");
        let sandbox = Sandbox::start(&Options::default()).await?;
        let seconds = started.elapsed().as_secs_f64();
        arguments.tell(format_args!("  both answer after {seconds:.1} s"));
        config.database_url = Some(Secret::new(sandbox.database_url()));
        config.database_direct_url = config.database_url.clone();
        config.amqp_url = Some(Secret::new(sandbox.amqp_url()));
        private = Some(sandbox);
    } else {
        refuse_where_others_work(&config).await?;
    }
    let keeping = match private {
        Some(_) => how_to_reach(&config)?,
        None => "\nStill running on the servers given; Ctrl-C stops the worker, and the data stay."
            .to_owned(),
    };
    let mut interrupts = signal(SignalKind::interrupt()).context("cannot wait for Ctrl-C")?;
    let exact = tokio::select! {
        shown = show(arguments, &config) => kept(arguments, &keeping, shown, &mut interrupts).await,
        _ = interrupts.recv() => Ok(true),
    };
    if let Some(sandbox) = private {
        sandbox.stop().await?;
        arguments.tell("The private servers are stopped and their data is removed.");
    }
    Ok(super::exit_code(exact?))
}

/// On given servers the sample events are there to stay, and another worker would take half of them.
async fn refuse_where_others_work(config: &Config) -> Result<()> {
    ensure!(
        !config.is_production(),
        "paxflow demo adds sample data and is refused while PAXFLOW_ENV is production"
    );
    let queue = broker::queue_state(config.amqp_url()?, &config.queue).await?;
    let consumers = queue.map_or(0, |queue| queue.consumers);
    ensure!(
        consumers == 0,
        "{consumers} workers consume {}: stop them, or unset DATABASE_URL and AMQP_URL for a demo on private servers",
        config.queue
    );
    Ok(())
}

/// The worker of the demo, once it has done its work.
struct Running {
    worker: JoinHandle<Result<()>>,
    request: watch::Sender<bool>,
    pool: PgPool,
    /// Whether what it made is exact.
    exact: bool,
}

impl Running {
    /// Stops it, while its servers still run.
    async fn stop(self) -> Result<bool> {
        self.request.send_replace(true);
        self.worker.await.context("the worker failed")??;
        self.pool.close().await;
        Ok(self.exact)
    }
}

/// Leaves the worker running until Ctrl-C, if that is asked for.
async fn kept(
    arguments: &Arguments,
    keeping: &str,
    shown: Result<Running>,
    interrupts: &mut Signal,
) -> Result<bool> {
    let running = shown?;
    if arguments.keep {
        arguments.tell(keeping);
        interrupts.recv().await;
    }
    running.stop().await
}

async fn show(arguments: &Arguments, config: &Config) -> Result<Running> {
    let options = db::options(config.direct_url()?, "demo")?;
    let revision = db::revisions::latest(&db::migrate::MIGRATOR);
    arguments.tell(format_args!(
        "Migrating the database to revision {revision} ..."
    ));
    db::migrate::migrate(&options).await?;

    let topology = Topology::of(config);
    let events = publish(arguments, config, &topology).await?;

    arguments.tell("Running the worker on them ...");
    let pool = db::pool::open(options.clone(), config.pool);
    let id = format!("demo-{}", Utc::now().timestamp_millis());
    let committer = apply::Committer::new(id, Utc::now(), config.pool.pooler);
    let worker = Worker {
        committer,
        amqp_url: config.amqp_url()?.clone(),
        topology,
        pool: pool.clone(),
        health: Health::default(),
        batch_max: config.batch_max,
        batch_linger: config.batch_linger,
        prefetch: config.prefetch,
        hold_max: worker::HOLD_MAX,
    };
    let (request, stop) = Stop::new();
    let started = Instant::now();
    let worker_id = worker.committer.id.clone();
    let mut running = tokio::spawn(async move { worker::run(&worker, stop).await });
    let verdicts = tokio::select! {
        drained = drained(&pool, &worker_id, events) => drained?,
        ended = &mut running => {
            ended.context("the worker failed")??;
            bail!("the worker stopped before it was told to");
        }
    };
    let seconds = started.elapsed().as_secs_f64();
    let mut connection = db::connect(&options).await?;
    let shown = look(&mut connection, events, seconds, verdicts).await?;
    if arguments.json {
        let shown = serde_json::to_string(&shown).context("cannot write the result")?;
        writeln!(std::io::stdout(), "{shown}").ok();
    } else {
        arguments.tell(&shown);
    }
    Ok(Running {
        worker: running,
        request,
        pool,
        exact: shown.exact,
    })
}

/// Sends the sample world through the broker; returns how many events it has.
async fn publish(arguments: &Arguments, config: &Config, topology: &Topology) -> Result<u64> {
    let mut events = Vec::new();
    world::write_sample(&mut events).context("cannot make the sample events")?;
    let lines: Vec<_> = events
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .collect();
    arguments.tell(format_args!(
        "Publishing the {} sample events, and {} broken ones, to exchange {} ...",
        lines.len(),
        BROKEN.len(),
        topology.exchange
    ));
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
    arguments.tell(format_args!("  all confirmed in {:.1} s", sender.seconds()));
    publisher.close().await;
    Ok((lines.len() + BROKEN.len()) as u64)
}

#[derive(FromRow, Serialize)]
struct Verdicts {
    received: i64,
    applied: i64,
    duplicate: i64,
    stale: i64,
    folded: i64,
    quarantined: i64,
}

impl Display for Verdicts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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

/// Waits until the worker has committed this many deliveries.
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

#[derive(FromRow, Serialize)]
struct Market {
    market: String,
    flights: i64,
    bookings: i64,
    cancelled: i64,
    /// As text, since a number of JSON is not exact; so is the price.
    load_factor: Option<String>,
    average_usd: Option<String>,
}

#[derive(FromRow, Serialize)]
struct SetAside {
    reason: String,
    path: String,
    detail: String,
}

/// Looks at what the worker has made of the events, and proves it.
async fn look(
    connection: &mut PgConnection,
    events: u64,
    seconds: f64,
    verdicts: Verdicts,
) -> Result<Shown> {
    // The planner's statistics, which a server would gather by itself within minutes.
    sqlx::raw_sql("ANALYZE").execute(&mut *connection).await?;
    let top_markets: Vec<Market> = sqlx::query_as(include_str!("top_markets.sql"))
        .fetch_all(&mut *connection)
        .await?;
    ensure!(!top_markets.is_empty(), "no market came out");
    let newest = "SELECT reason, path, detail FROM quarantined_events ORDER BY id DESC LIMIT 10";
    let quarantined = sqlx::query_as(newest).fetch_all(&mut *connection).await?;
    let verify = audit::verify(connection).await?;
    audit::record(connection, &verify, 0).await?;
    Ok(Shown {
        events,
        seconds,
        verdicts,
        top_markets,
        quarantined,
        exact: verify.is_exact(),
        verify,
    })
}

impl Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (events, seconds) = (self.events, self.seconds);
        let rate = events as f64 / seconds;
        writeln!(
            f,
            "  {events} events applied and acknowledged in {seconds:.1} s ({rate:.0} events/s)"
        )?;
        writeln!(f, "\nTop markets:\n{}", markets_table(&self.top_markets))?;
        writeln!(f, "\n{}", self.verdicts)?;
        let quarantined = quarantined_table(&self.quarantined);
        writeln!(f, "\nQuarantined:\n{quarantined}")?;
        write!(f, "\nverify: {}", summary(&self.verify))
    }
}

fn markets_table(markets: &[Market]) -> Table {
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
    for market in markets {
        table.add_row([
            &market.market,
            &market.flights.to_string(),
            &market.bookings.to_string(),
            &market.cancelled.to_string(),
            market.load_factor.as_deref().unwrap_or_default(),
            market.average_usd.as_deref().unwrap_or_default(),
        ]);
    }
    table
}

fn quarantined_table(set_aside: &[SetAside]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    table.set_header(["reason", "where", "what is expected"]);
    for SetAside {
        reason,
        path,
        detail,
    } in set_aside
    {
        table.add_row([reason, path, detail]);
    }
    table
}

/// How to reach private servers that are left running. Their passwords are made for this run and end with it.
fn how_to_reach(config: &Config) -> Result<String> {
    let paxflow = std::env::current_exe().context("cannot tell where this program is")?;
    let paxflow = paxflow.display();
    Ok(format!(
        "\nStill running; in another terminal:
  export DATABASE_URL={}
  export AMQP_URL={}
  psql $DATABASE_URL -c 'SELECT * FROM market_data LIMIT 5'
  {paxflow} generate --events 1000 --seed 2 | {paxflow} publish -
  {paxflow} quarantine list    # what a world of another seed says otherwise of the same bookings
  {paxflow} status
Ctrl-C stops it all and removes the data.",
        config.database_url()?.expose(),
        config.amqp_url()?.expose()
    ))
}
