//! A worker within the test, which sees how it is doing and has less patience than one that is operated.

use std::time::{Duration, Instant};

use chrono::Utc;
use paxflow::apply::Committer;
use paxflow::config::{PoolConfig, Pooler, Secret};
use paxflow::db;
use paxflow::health::Health;
use paxflow::stop::Stop;
use paxflow::worker::{self, Worker};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::process::{Place, generated, place, until};
use crate::support::{Database, execute, holding};

const EVENTS: i64 = 50;
/// Longer than a batch may take to be called progress.
const LATER: Duration = Duration::from_secs(60);

struct Running {
    health: Health,
    stop: watch::Sender<bool>,
    ended: JoinHandle<anyhow::Result<()>>,
}

impl Running {
    /// Starts it, and waits until it consumes.
    async fn start(database: &Database, place: &Place, hold_max: Duration) -> Self {
        place.declare().await;
        let config = PoolConfig {
            size: 3,
            max_overflow: 0,
            recycle: Duration::from_secs(3600),
            pooler: Pooler::None,
        };
        let health = Health::default();
        let worker = Worker {
            committer: Committer::new("held".to_owned(), Utc::now(), Pooler::None),
            amqp_url: Secret::new(place.amqp_url.as_str()),
            topology: place.topology.clone(),
            pool: db::pool::open(database.options.clone(), config),
            health: health.clone(),
            batch_max: 1000,
            batch_linger: Duration::ZERO,
            prefetch: 2000,
            hold_max,
        };
        let (request, stop) = Stop::new();
        let running = Self {
            ended: tokio::spawn(async move { worker::run(&worker, stop).await }),
            stop: request,
            health,
        };
        running.is_ready(Instant::now()).await;
        running
    }

    async fn is_ready(&self, at: Instant) {
        until("it is ready", async || self.health.readiness(at).ok()).await;
    }

    async fn stop(self) {
        self.stop.send_replace(true);
        self.ended.await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_is_held_for_too_long_goes_back_and_comes_again() {
    let database = Database::new().await;
    let place = place(&database);
    let worker = Running::start(&database, &place, Duration::from_secs(1)).await;
    let mut admin = database.connect().await;
    let alter = |what: &str| {
        format!(
            "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I {what}', current_database()); END $$"
        )
    };
    let read_only = alter("SET default_transaction_read_only = on");
    let terminate = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE datname = current_database() AND pid <> pg_backend_pid()";
    execute(&mut admin, &read_only).await;
    execute(&mut admin, terminate).await;
    place.publish(&generated(EVENTS as u64, 7, 0.0)).await;
    until(
        "all of them wait in the queue again, nobody takes them, and the worker says so",
        async || {
            let queue = place.waiting(&place.topology.queue).await;
            let is_ready = worker.health.readiness(Instant::now()).is_ok();
            (i64::from(queue.ready) == EVENTS && queue.consumers == 0 && !is_ready).then_some(())
        },
    )
    .await;
    execute(&mut admin, &alter("RESET default_transaction_read_only")).await;
    place.committed_at_least(EVENTS).await;
    worker.is_ready(Instant::now()).await;
    worker.stop().await;
    place.assert_drained().await;
    place.assert_exact().await;
    assert_eq!(place.committed().await, (EVENTS, EVENTS));
}

#[tokio::test(flavor = "multi_thread")]
async fn honest_readiness_of_a_worker_that_stands_still_and_of_one_that_has_nothing_to_do() {
    let database = Database::new().await;
    let place = place(&database);
    // Longer than a database takes to come back, and far below the broker's consumer time-out of 30 min.
    assert!((240..900).contains(&worker::HOLD_MAX.as_secs()));
    let worker = Running::start(&database, &place, worker::HOLD_MAX).await;
    let mut lock = database.connect().await;
    execute(
        &mut lock,
        &holding("LOCK TABLE flights IN ACCESS EXCLUSIVE MODE"),
    )
    .await;
    place.publish(&generated(EVENTS as u64, 8, 0.0)).await;
    until("a batch makes no progress", async || {
        let why = worker.health.readiness(Instant::now() + LATER).err();
        why.filter(|why| why.starts_with("no progress: "))
    })
    .await;
    assert_eq!(worker.health.readiness(Instant::now()), Ok(()));
    execute(&mut lock, "ROLLBACK").await;
    place.committed_at_least(EVENTS).await;
    worker.is_ready(Instant::now() + LATER).await;
    worker.stop().await;
    place.assert_drained().await;
}
