//! Servers that go away under load: the worker says so, waits, and goes on by itself.

use std::time::{Duration, Instant};

use paxflow::sandbox::{Options, Sandbox, Shutdown};
use serde_json::json;
use tokio::task::JoinHandle;

use crate::events::flight;
use crate::faults::harness::Line;
use crate::process::{Place, Worker, generated, place, until};
use crate::support::{Database, execute};

const EVENTS: u64 = 4_000;
/// How soon a worker commits again after the return of what was away.
const BACK_WITHIN: Duration = Duration::from_secs(15);
/// How soon a worker says that its broker is silent: two heartbeats of ten seconds, and half as long for a machine that is busy.
const NOTICED_WITHIN: Duration = Duration::from_secs(30);

/// Feeds the queue over the whole length of the test, without a pause that would leave nothing to do.
fn feed(place: &Place, seed: u64) -> JoinHandle<()> {
    let place = place.clone();
    tokio::spawn(async move { place.publish(&generated(EVENTS, seed, 0.01)).await })
}

async fn committed(place: &Place) -> i64 {
    place.committed().await.0
}

/// The worker commits something new in time.
async fn assert_goes_on(worker: &Worker, place: &Place, since: Instant, before: i64) {
    place.committed_at_least(before + 1).await;
    worker.ready().await;
    assert!(
        since.elapsed() < BACK_WITHIN,
        "liveness: back after {:?}\n{}",
        since.elapsed(),
        worker.log()
    );
}

#[tokio::test]
async fn liveness_through_outages_of_the_database() {
    let mut sandbox = Sandbox::start(&Options::default()).await.unwrap();
    let place = Place::new(sandbox.database_url(), sandbox.amqp_url());
    let worker = place.worker().await;
    for (seed, shutdown) in [(1, Shutdown::Graceful), (2, Shutdown::Kill)] {
        let before = committed(&place).await;
        let feeding = feed(&place, seed);
        place.committed_at_least(before + 1).await;
        sandbox.postgres_stop(shutdown).await.unwrap();
        let reason = worker.unready().await;
        assert!(reason.starts_with("database: "), "{reason}");
        crate::process::until("it tells why no connection can be made", async || {
            let (_, reason) = worker.get("/readyz").await;
            reason.contains("Connection refused").then_some(())
        })
        .await;
        feeding.await.unwrap();
        assert_eq!(worker.get("/livez").await.0, 200);
        sandbox.postgres_start().await.unwrap();
        let (back, stood) = (Instant::now(), committed(&place).await);
        assert!(
            stood < before + EVENTS as i64,
            "the fault came in mid-stream"
        );
        assert_goes_on(&worker, &place, back, stood).await;
    }
    place.drained().await;
    worker.stop().await;
    place.assert_drained().await;
    place.assert_exact().await;
    // Together, since a key may be in both.
    let published = [1, 2].map(|seed| generated(EVENTS, seed, 0.01)).concat();
    place.assert_holds(&published).await;
    let (received, settled) = place.committed().await;
    assert!(
        received == settled && received > 2 * EVENTS as i64,
        "{received} received, {settled} settled"
    );
    sandbox.stop().await.unwrap();
}

#[tokio::test]
async fn liveness_through_outages_of_the_broker() {
    let mut sandbox = Sandbox::start(&Options::default()).await.unwrap();
    let place = Place::new(sandbox.database_url(), sandbox.amqp_url());
    let worker = place.worker().await;
    for shutdown in [Shutdown::Graceful, Shutdown::Kill] {
        // Halted, so that it has enough to do when the broker goes.
        worker.signal("STOP");
        let before = committed(&place).await;
        place.publish(&generated(2 * EVENTS, 3, 0.01)).await;
        worker.signal("CONT");
        place.committed_at_least(before + 1).await;
        sandbox.rabbitmq_stop(shutdown).await.unwrap();
        let reason = worker.unready().await;
        assert!(reason.starts_with("broker: "), "{reason}");
        assert_eq!(worker.get("/livez").await.0, 200);
        sandbox.rabbitmq_start().await.unwrap();
        let (back, stood) = (Instant::now(), committed(&place).await);
        // Something new, so that there is something to commit however far it had come.
        place.publish(&generated(EVENTS, 4, 0.01)).await;
        assert_goes_on(&worker, &place, back, stood).await;
    }
    place.drained().await;
    worker.stop().await;
    place.assert_drained().await;
    place.assert_exact().await;
    // Together, since a key may be in both.
    let published = [generated(2 * EVENTS, 3, 0.01), generated(EVENTS, 4, 0.01)].concat();
    place.assert_holds(&published).await;
    let (received, settled) = place.committed().await;
    assert!(
        received == settled && received > 3 * EVENTS as i64,
        "{received} received, {settled} settled"
    );
    sandbox.stop().await.unwrap();
}

/// The worker says in time that its broker is away.
async fn assert_notices_the_silence(worker: &Worker) {
    let noticed = tokio::time::timeout(NOTICED_WITHIN, worker.unready()).await;
    let reason = noticed.unwrap_or_else(|_| panic!("not noticed in {NOTICED_WITHIN:?}"));
    assert!(reason.starts_with("broker: "), "{reason}");
}

/// A path that is lost without a word, in the midst of work: a question that stays without an answer may tell of it sooner
/// than a heartbeat that stays away.
#[tokio::test]
async fn liveness_after_the_path_to_the_broker_was_lost_in_silence() {
    let database = Database::new().await;
    let place = place(&database);
    let line = Line::to(&place).await;
    let worker = line.place.worker().await;
    let feeding = feed(&place, 6);
    place.committed_at_least(1).await;
    line.broker.freeze(true);
    assert_notices_the_silence(&worker).await;
    feeding.await.unwrap();
    let stood = committed(&place).await;
    line.broker.freeze(false);
    let back = Instant::now();
    place
        .publish(&[flight(json!({})).to_string().into_bytes()])
        .await;
    assert_goes_on(&worker, &place, back, stood).await;
    place.drained().await;
    worker.stop().await;
    place.assert_drained().await;
    place.assert_exact().await;
}

/// One that asks nothing has but the heartbeat.
#[tokio::test]
async fn honest_readiness_of_an_idle_worker_whose_broker_falls_silent() {
    let database = Database::new().await;
    let line = Line::to(&place(&database)).await;
    let worker = line.place.worker().await;
    line.broker.freeze(true);
    assert_notices_the_silence(&worker).await;
    line.broker.freeze(false);
    worker.ready().await;
    worker.stop().await;
}

#[tokio::test]
async fn a_worker_started_before_its_servers_comes_up_with_them() {
    let mut sandbox = Sandbox::start(&Options::default()).await.unwrap();
    let place = Place::new(sandbox.database_url(), sandbox.amqp_url());
    let stopped = tokio::try_join!(async { sandbox.postgres_stop(Shutdown::Graceful).await });
    stopped.unwrap();
    sandbox.rabbitmq_stop(Shutdown::Graceful).await.unwrap();
    let worker = place.boot().await;
    let reason = worker.unready().await;
    assert!(reason.starts_with("database: "), "{reason}");
    sandbox.postgres_start().await.unwrap();
    crate::process::until("it waits for the broker", async || {
        worker
            .log()
            .contains("waiting for the broker")
            .then_some(())
    })
    .await;
    assert!(
        worker.log().contains("waiting for the database"),
        "{}",
        worker.log()
    );
    sandbox.rabbitmq_start().await.unwrap();
    let back = Instant::now();
    worker.ready().await;
    assert!(back.elapsed() < BACK_WITHIN, "{:?}", back.elapsed());
    place.publish(&generated(50, 5, 0.0)).await;
    place.committed_at_least(50).await;
    worker.stop().await;
    sandbox.stop().await.unwrap();
}

#[tokio::test]
async fn honest_readiness_of_an_idle_worker_over_a_read_only_database() {
    let database = Database::new().await;
    let place = place(&database);
    let worker = place.worker().await;
    let (_, metrics) = worker.get("/metrics").await;
    for rare in ["acks_lost", "batch_retries", "deliveries_requeued"] {
        let none = format!("paxflow_{rare}_total 0\n");
        assert!(metrics.contains(&none), "{none}{metrics}");
    }
    assert!(
        metrics.contains("{verdict=\"quarantined\"} 0\n"),
        "{metrics}"
    );
    let mut connection = place.connect().await;
    let alter = |what: &str| {
        format!(
            "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I {what}', current_database()); END $$"
        )
    };
    let terminate = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE datname = current_database() AND pid <> pg_backend_pid()";
    let read_only = alter("SET default_transaction_read_only = on");
    execute(&mut connection, &read_only).await;
    execute(&mut connection, terminate).await;
    until("it says why", async || {
        let (_, reason) = worker.get("/readyz").await;
        reason.contains("the database is read-only").then_some(())
    })
    .await;
    assert_eq!(
        worker.log().matches("the database does not answer").count(),
        1
    );
    // Its sessions of meanwhile are left to it.
    execute(
        &mut connection,
        &alter("RESET default_transaction_read_only"),
    )
    .await;
    worker.ready().await;
    let log = worker.stop().await;
    assert_eq!(log.matches("the database answers").count(), 2, "{log}");
    assert_eq!(
        log.matches("the database does not answer").count(),
        1,
        "{log}"
    );
}
