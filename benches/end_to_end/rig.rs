//! Servers, a fresh database and queue for every run, and the oracle that ends it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use paxflow::broker::Topology;
use paxflow::config::{Config, ConsumerRole, Secret};
use paxflow::sandbox::{Options, Sandbox};
use paxflow::{audit, db};
use sqlx::migrate::MigrateDatabase;
use sqlx::{Connection, PgConnection, Postgres};

use crate::process::{Cpu, Worker};
use crate::queues;

/// How often a fact is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// How long a worker may go without a commit.
const STALLED_AFTER: Duration = Duration::from_secs(60);

/// A PostgreSQL and a RabbitMQ: private ones, or those of `DATABASE_URL` and `AMQP_URL`.
pub struct Servers {
    sandbox: Option<Sandbox>,
    database_url: String,
    amqp_url: String,
    places: u32,
    /// PostgreSQL's own, for the record.
    pub database_version: String,
}

/// What a commit must be worth, so that it may be acknowledged.
const DURABILITY: &str = "SELECT current_setting('server_version'),
    current_setting('fsync') = 'on' AND current_setting('full_page_writes') = 'on'
    AND current_setting('synchronous_commit') <> 'off'";

impl Servers {
    /// Starts private servers unless both are given.
    pub async fn start(config: &Config) -> Result<Self> {
        let (sandbox, database_url, amqp_url) = match (&config.database_url, &config.amqp_url) {
            (Some(database), Some(amqp)) => {
                (None, database.expose().to_owned(), amqp.expose().to_owned())
            }
            _ => {
                let sandbox = Self::private().await?;
                let urls = (sandbox.database_url(), sandbox.amqp_url());
                let (database_url, amqp_url) = (urls.0.to_owned(), urls.1.to_owned());
                (Some(sandbox), database_url, amqp_url)
            }
        };
        let options = db::options(&Secret::new(&database_url), "bench")?;
        let mut connection = db::connect(&options).await?;
        let (database_version, is_durable): (String, bool) = sqlx::query_as(DURABILITY)
            .fetch_one(&mut connection)
            .await?;
        ensure!(
            is_durable,
            "fsync, full_page_writes and synchronous_commit have to be on"
        );
        connection.close().await?;
        Ok(Self {
            sandbox,
            database_url,
            amqp_url,
            places: 0,
            database_version,
        })
    }

    async fn private() -> Result<Sandbox> {
        let options = Options {
            // A small server whose log is as README asks for it: the sandbox's own share of memory is that of a demo.
            postgresql_settings: [
                ("shared_buffers", "1GB"),
                ("checkpoint_timeout", "30min"),
                ("max_wal_size", "8GB"),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec(),
            rabbitmq_plugins: vec!["rabbitmq_consistent_hash_exchange"],
            ..Options::default()
        };
        Sandbox::start(&options).await
    }

    /// A migrated database and a queue that nobody else uses.
    pub async fn place(&mut self) -> Result<Place> {
        self.places += 1;
        let name = format!("paxflow_bench_{}_{}", std::process::id(), self.places);
        let (server, query) = split_database(&self.database_url)?;
        let database_url = format!("{server}/{name}{query}");
        Postgres::create_database(&database_url)
            .await
            .context("creating a database for the benchmark")?;
        let place = Place {
            database_url,
            amqp_url: self.amqp_url.clone(),
            queues: vec![name.clone()],
            handed_over: Arc::default(),
            topology: Topology {
                exchange: name.clone(),
                queue: name,
                consumer: ConsumerRole::Shared,
            },
        };
        let options = db::options(&Secret::new(&place.database_url), "bench")?;
        db::migrate::migrate(&options).await?;
        queues::declare(&place).await?;
        Ok(place)
    }

    /// CPU spent by PostgreSQL and RabbitMQ so far; nothing of servers that are not private.
    pub fn cpu(&self) -> Result<ServersCpu> {
        let Some(sandbox) = &self.sandbox else {
            return Ok(ServersCpu::default());
        };
        let postgres = sandbox.postgres_pid().context("PostgreSQL is gone")?;
        let rabbitmq = sandbox.rabbitmq_pid().context("RabbitMQ is gone")?;
        Ok(ServersCpu {
            postgres: Some(Cpu::of_family(postgres)?),
            rabbitmq: Some(Cpu::of(rabbitmq)?),
        })
    }

    /// CPU-seconds of a worker and PostgreSQL so far; nothing where PostgreSQL's are not to be seen.
    pub fn cpu_with(&self, worker: &Worker) -> Result<Option<f64>> {
        let worker = worker.cpu()?;
        let postgres = self.cpu()?.postgres;
        Ok(postgres.map(|postgres| worker + postgres.seconds()))
    }

    /// Stops what was started here.
    pub async fn stop(self) -> Result<()> {
        match self.sandbox {
            Some(sandbox) => sandbox.stop().await,
            None => Ok(()),
        }
    }
}

/// CPU of the two servers, where it can be seen.
#[derive(Debug, Clone, Copy, Default)]
pub struct ServersCpu {
    /// PostgreSQL with all of its processes.
    pub postgres: Option<Cpu>,
    /// RabbitMQ.
    pub rabbitmq: Option<Cpu>,
}

/// The URL without its database, and what follows it.
fn split_database(url: &str) -> Result<(&str, &str)> {
    let (rest, query) = match url.find('?') {
        Some(at) => url.split_at(at),
        None => (url, ""),
    };
    let (server, _) = rest
        .rsplit_once('/')
        .context("DATABASE_URL names no database")?;
    Ok((server, query))
}

/// A database and the queue, or queues, that lead there.
#[derive(Clone)]
pub struct Place {
    /// The database.
    pub database_url: String,
    /// The broker.
    pub amqp_url: String,
    /// Exchange that is published to; exchange and queue of a worker.
    pub topology: Topology,
    /// Every queue that what is published goes to.
    pub queues: Vec<String>,
    /// Events that were published to it, or applied there from memory.
    pub handed_over: Arc<AtomicU64>,
}

/// Workers that drained a queue, from their first commit on: what it takes to start a process is no event's.
#[derive(Debug, Clone, Copy)]
pub struct Drained {
    /// Events committed after the first commit.
    pub events: u64,
    /// From the first commit to the last.
    pub seconds: f64,
    /// CPU-seconds of the workers.
    pub worker_cpu: f64,
    /// CPU-seconds of PostgreSQL meanwhile.
    pub postgres_cpu: Option<f64>,
    /// CPU-seconds of RabbitMQ meanwhile.
    pub rabbitmq_cpu: Option<f64>,
    /// Peak resident set of the worker, bytes.
    pub peak_rss: u64,
    /// WAL written, bytes.
    pub wal_bytes: f64,
}

impl Drained {
    /// Events a second.
    pub fn rate(&self) -> f64 {
        self.events as f64 / self.seconds
    }

    /// CPU-seconds of the worker for a million events.
    pub fn cpu_per_million(&self) -> f64 {
        self.worker_cpu / self.events as f64 * 1e6
    }
}

impl Place {
    /// Counts events that are published to it or applied there.
    pub fn hand_over(&self, events: usize) {
        self.handed_over.fetch_add(events as u64, Ordering::Relaxed);
    }

    /// A connection to the database.
    pub async fn connect(&self) -> Result<PgConnection> {
        let options = db::options(&Secret::new(&self.database_url), "bench")?;
        Ok(db::connect(&options).await?)
    }

    /// Does what a server does by itself within minutes, so that it is not done in the midst of a measurement. No CHECKPOINT:
    /// whatever is written first after one is written whole, which takes more of what has more pages.
    pub async fn tidy(&self) -> Result<()> {
        let mut connection = self.connect().await?;
        sqlx::raw_sql("VACUUM ANALYZE")
            .execute(&mut connection)
            .await?;
        Ok(connection.close().await?)
    }

    /// Has a worker drain what was published, and asks the oracle.
    pub async fn drain(&self, servers: &Servers, settings: &[(&str, &str)]) -> Result<Drained> {
        let start = || Ok(vec![Worker::start(self, settings)?]);
        self.drain_by(servers, start).await
    }

    /// Has workers of any make drain what was published, and asks the oracle.
    pub async fn drain_by(
        &self,
        servers: &Servers,
        start: impl FnOnce() -> Result<Vec<Worker>>,
    ) -> Result<Drained> {
        let mut connection = self.connect().await?;
        let stored = received(&mut connection).await?;
        let all = stored + u64::from(queues::waiting(self).await?);
        let workers = start()?;
        let first = committed(&mut connection, stored + 1).await?;
        let before = Mark::now(servers, &workers, &mut connection).await?;
        committed(&mut connection, all).await?;
        let after = Mark::now(servers, &workers, &mut connection).await?;
        let spent =
            |before: Option<Cpu>, after: Option<Cpu>| Some(after?.seconds() - before?.seconds());
        let peaks = workers.iter().map(Worker::peak_rss);
        let drained = Drained {
            events: all - first,
            seconds: (after.at - before.at).as_secs_f64(),
            worker_cpu: after.workers - before.workers,
            postgres_cpu: spent(before.servers.postgres, after.servers.postgres),
            rabbitmq_cpu: spent(before.servers.rabbitmq, after.servers.rabbitmq),
            peak_rss: peaks
                .collect::<Result<Vec<_>>>()?
                .into_iter()
                .max()
                .unwrap_or_default(),
            wal_bytes: after.wal - before.wal,
        };
        for worker in workers {
            worker.stop().await?;
        }
        self.assert_exact().await?;
        Ok(drained)
    }

    /// The oracle: without it no figure counts.
    pub async fn assert_exact(&self) -> Result<()> {
        let mut connection = self.connect().await?;
        let report = audit::verify(&mut connection).await?;
        ensure!(
            report.is_exact(),
            "MarketData differs from a recompute in {} rows",
            report.rows_different
        );
        let (received, verdicts): (i64, i64) = sqlx::query_as(
            "SELECT coalesce(sum(received), 0)::bigint, \
             coalesce(sum(applied + duplicate + stale + folded), 0)::bigint FROM worker_progress",
        )
        .fetch_one(&mut connection)
        .await?;
        let published = self.handed_over.load(Ordering::Relaxed);
        ensure!(
            received == verdicts && received as u64 == published,
            "{published} published, {received} received, {verdicts} verdicts without those of quarantine"
        );
        ensure!(
            queues::waiting(self).await? == 0,
            "events are left in the queue"
        );
        connection.close().await?;
        Ok(())
    }

    /// Removes database and queue.
    pub async fn remove(self) -> Result<()> {
        // What is left in a broker is not worth the figures of a long run.
        if let Err(error) = queues::delete(&self).await {
            eprintln!("exchanges or queues are left behind: {error:#}");
        }
        Postgres::force_drop_database(&self.database_url).await?;
        Ok(())
    }
}

/// What has been spent at a moment.
struct Mark {
    at: Instant,
    /// CPU-seconds of all workers.
    workers: f64,
    servers: ServersCpu,
    /// Bytes of WAL.
    wal: f64,
}

impl Mark {
    async fn now(
        servers: &Servers,
        workers: &[Worker],
        connection: &mut PgConnection,
    ) -> Result<Self> {
        Ok(Self {
            at: Instant::now(),
            workers: workers.iter().map(Worker::cpu).sum::<Result<_>>()?,
            servers: servers.cpu()?,
            wal: wal_position(connection).await?,
        })
    }
}

/// Deliveries committed so far, by all workers.
pub async fn received(connection: &mut PgConnection) -> Result<u64> {
    let sum: i64 =
        sqlx::query_scalar("SELECT coalesce(sum(received), 0)::bigint FROM worker_progress")
            .fetch_one(connection)
            .await?;
    Ok(sum as u64)
}

/// Waits until so many deliveries are committed; returns how many are then.
pub async fn committed(connection: &mut PgConnection, wanted: u64) -> Result<u64> {
    let (mut seen, mut since) = (0, Instant::now());
    loop {
        let now = received(connection).await?;
        if now >= wanted {
            return Ok(now);
        }
        if now > seen {
            (seen, since) = (now, Instant::now());
        } else if since.elapsed() > STALLED_AFTER {
            bail!("the worker stalled at {now} of {wanted} events");
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn wal_position(connection: &mut PgConnection) -> Result<f64> {
    let bytes = sqlx::query_scalar("SELECT (pg_current_wal_insert_lsn() - '0/0')::float8")
        .fetch_one(connection)
        .await?;
    Ok(bytes)
}
