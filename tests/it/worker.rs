//! The worker as a process: nothing lost, nothing counted twice, a clean end, an honest answer.

use std::time::{Duration, Instant};

use serde_json::json;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, PgConnection};
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::events::{booking, flight};
use crate::faults::harness::Line;
use crate::process::{Place, Worker, generated, place, ran, until};
use crate::running::signal;
use crate::support::{Database, WAITING, dump, execute, holding, sum_of};

const EVENTS: i64 = 5_000;
const HALF: usize = EVENTS as usize;
/// Keeps every batch waiting.
const LOCK: &str = "LOCK TABLE bookings IN EXCLUSIVE MODE";
/// How long a worker may take to stop.
const STOP_MAX: Duration = Duration::from_secs(10);

fn body(event: &serde_json::Value) -> Vec<u8> {
    serde_json::to_vec(event).unwrap()
}

#[tokio::test]
async fn no_loss_exact_rollup_and_queues_drained_with_two_workers() {
    let database = Database::new().await;
    let place = place(&database);
    place.publish(&generated(EVENTS as u64, 11, 0.02)).await;
    let (one, two) = tokio::join!(place.worker(), place.worker());
    place.committed_at_least(EVENTS).await;
    // A batch is counted after it is committed.
    let settled = "paxflow_deliveries_settled_total";
    until(
        "both workers have counted what they committed",
        async || {
            let sum = one.metric(settled).await + two.metric(settled).await;
            (sum >= EVENTS as f64).then_some(())
        },
    )
    .await;

    let mut received = 0.0;
    for worker in [&one, &two] {
        let (_, metrics) = worker.get("/metrics").await;
        let sum = |name| sum_of(&metrics, name);
        assert_eq!(
            sum("paxflow_deliveries_received_total"),
            sum(settled) + sum("paxflow_deliveries_requeued_total")
        );
        received += sum("paxflow_deliveries_received_total");
    }
    assert_eq!(received, EVENTS as f64);
    assert_eq!(place.committed().await, (EVENTS, EVENTS));
    let quarantined = place
        .number("SELECT sum(times_received)::bigint FROM quarantined_events")
        .await;
    assert_eq!(
        quarantined,
        place
            .number("SELECT sum(quarantined)::bigint FROM worker_progress")
            .await
    );
    assert!(quarantined > EVENTS / 100, "{quarantined} of {EVENTS}");
    place.assert_exact().await;
    place
        .assert_holds(&generated(EVENTS as u64, 11, 0.02))
        .await;
    let logs = one.stop().await + &two.stop().await;
    assert!(logs.contains("set aside in quarantined_events"), "{logs}");
    place.assert_drained().await;
}

/// What is published before a fault is its first half; the rest to a worker whose hands are to be full.
fn load() -> Vec<Vec<u8>> {
    generated(2 * EVENTS as u64, 12, 0.02)
}

/// Starts a worker on a full queue and returns once it is in the midst of it.
async fn under_load(place: &Place, load: &[Vec<u8>]) -> Worker {
    place.publish(load).await;
    let worker = place.boot().await;
    place.committed_at_least(1).await;
    worker
}

/// A worker with its hands full, whose transaction waits for a lock of `lock`. A fast machine may be through with the first
/// load before there is a lock.
async fn stuck(place: &Place, lock: &mut PgConnection) -> Worker {
    let load = load();
    let worker = under_load(place, &load[..HALF]).await;
    execute(lock, &holding(LOCK)).await;
    place.publish(&load[HALF..]).await;
    until("its transaction waits", async || {
        (place.number(WAITING).await > 0).then_some(())
    })
    .await;
    worker
}

/// A second worker finishes what the first one left; every event has had its effect.
async fn assert_another_finishes(place: &Place, published: &[Vec<u8>]) {
    let worker = place.worker().await;
    place.drained().await;
    worker.stop().await;
    place.assert_drained().await;
    place.assert_exact().await;
    place.assert_holds(published).await;
    let (received, settled) = place.committed().await;
    assert!(
        received == settled && received > published.len() as i64,
        "{received} received, {settled} settled"
    );
}

#[tokio::test]
async fn clean_exit_on_sigterm_and_sigint_under_load() {
    for signal in ["TERM", "INT"] {
        let database = Database::new().await;
        let place = place(&database);
        let mut worker = under_load(&place, &load()[..HALF]).await;
        worker.signal(signal);
        let status = worker.exit_within(STOP_MAX).await;
        assert_eq!(status.code(), Some(0), "{}", worker.log());
        let (received, settled) = place.committed().await;
        assert_eq!(received, settled);
        let left = until("its deliveries are back", async || {
            let state = place.waiting(&place.topology.queue).await;
            (state.consumers == 0).then_some(i64::from(state.ready))
        })
        .await;
        // Nothing of what was committed is left unacknowledged by a clean end.
        assert_eq!(left, EVENTS - received);
        assert_another_finishes(&place, &load()[..HALF]).await;
        // One more for the event that the second worker waited for.
        assert_eq!(place.committed().await.0, EVENTS + 1);
    }
}

#[tokio::test]
async fn a_second_sigterm_leaves_at_once_and_loses_nothing() {
    let database = Database::new().await;
    let place = place(&database);
    let mut lock = place.connect().await;
    // The first signal cannot end it.
    let mut worker = stuck(&place, &mut lock).await;
    worker.signal("TERM");
    until("it says that it stops", async || {
        worker.log().contains("told to stop").then_some(())
    })
    .await;
    worker.signal("TERM");
    let status = worker.exit_within(Duration::from_secs(2)).await;
    assert_eq!(status.code(), Some(130), "{}", worker.log());
    execute(&mut lock, "ROLLBACK").await;
    assert_another_finishes(&place, &load()).await;
}

#[tokio::test]
async fn a_stop_while_the_database_hangs_hands_the_events_back_in_time() {
    let database = Database::new().await;
    let place = place(&database);
    let mut lock = place.connect().await;
    let mut worker = stuck(&place, &mut lock).await;
    worker.signal("TERM");
    let status = worker.exit_within(STOP_MAX).await;
    assert_eq!(status.code(), Some(0), "{}", worker.log());
    execute(&mut lock, "ROLLBACK").await;
    assert_another_finishes(&place, &load()).await;
}

#[tokio::test]
async fn a_transient_fault_burns_no_delivery_attempt() {
    let database = Database::new().await;
    let place = place(&database);
    let mut connection = place.connect().await;
    let impatient = "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET lock_timeout = ''100ms''', current_database()); END $$";
    execute(&mut connection, impatient).await;
    execute(&mut connection, &holding(LOCK)).await;
    let worker = place.worker().await;
    place.publish(&[body(&booking(json!({})))]).await;
    until("it has tried some times", async || {
        let tries = worker.metric("paxflow_batch_retries_total").await;
        (tries >= 3.0).then_some(())
    })
    .await;
    execute(&mut connection, "COMMIT").await;
    place.committed_at_least(1).await;
    let (_, metrics) = worker.get("/metrics").await;
    assert_eq!(sum_of(&metrics, "paxflow_deliveries_requeued_total"), 0.0);
    assert_eq!(sum_of(&metrics, "paxflow_deliveries_received_total"), 1.0);
    assert_eq!(sum_of(&metrics, "paxflow_broker_sessions_total"), 1.0);
    worker.stop().await;
}

#[tokio::test]
async fn a_batch_that_was_halved_before_a_fault_counts_once() {
    const BEFORE: usize = 16;
    let database = Database::new().await;
    let place = place(&database);
    let mut connection = place.connect().await;
    // The second is refused for good, the fourth for a while.
    let refuse = "CREATE TABLE busy ();
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF NEW.seat = '2A' THEN RAISE check_violation; END IF;
            IF NEW.seat = '4A' AND to_regclass('busy') IS NOT NULL THEN RAISE lock_not_available; END IF;
            RETURN NEW;
        END $$;
        CREATE TRIGGER refuse BEFORE INSERT ON bookings FOR EACH ROW EXECUTE FUNCTION refuse()";
    execute(&mut connection, refuse).await;
    let numbered = |number| {
        let id = format!("B{number}");
        body(&booking(
            json!({ "booking_id": id, "seat": format!("{number}A") }),
        ))
    };
    let mut command = place.paxflow(&["run"]);
    command
        .env("PAXFLOW_BATCH_MAX", "4")
        .env("PAXFLOW_BATCH_LINGER_MS", "1000");
    let worker = Worker::start(command).await;
    let settled = "paxflow_deliveries_settled_total";
    // It begins with one delivery in hand: after these it takes all four in one batch.
    let before: Vec<_> = (10..).take(BEFORE).map(numbered).collect();
    place.publish(&before).await;
    until("it takes four at once", async || {
        (worker.metric(settled).await >= BEFORE as f64).then_some(())
    })
    .await;
    place.publish(&[1, 2, 3, 4].map(numbered)).await;
    until("it has tried some times", async || {
        let tries = worker.metric("paxflow_batch_retries_total").await;
        (tries >= 3.0).then_some(())
    })
    .await;
    execute(&mut connection, "DROP TABLE busy").await;
    let all = (BEFORE + 4) as f64;
    until("all are settled", async || {
        (worker.metric(settled).await >= all).then_some(())
    })
    .await;
    let verdicts = "SELECT received, applied, duplicate, quarantined FROM worker_progress";
    assert_eq!(dump(&mut connection, verdicts).await, "20 | 19 | 0 | 1\n");
    let times = "SELECT times_received FROM quarantined_events";
    assert_eq!(dump(&mut connection, times).await, "1\n");
    assert_eq!(worker.metric(settled).await, all);
    worker.stop().await;
}

#[tokio::test]
async fn ack_after_commit_survives_kill_9_under_load() {
    let database = Database::new().await;
    let place = place(&database);
    let mut worker = under_load(&place, &load()[..HALF]).await;
    worker.signal("KILL");
    worker.exit_within(STOP_MAX).await;
    assert_another_finishes(&place, &load()[..HALF]).await;
}

#[tokio::test]
async fn batches_grow_with_the_load_and_an_idle_event_is_visible_at_once() {
    let database = Database::new().await;
    let place = place(&database);
    place.publish(&generated(2_000, 13, 0.0)).await;
    let worker = place.worker().await;
    place.committed_at_least(2_000).await;
    let batches = place
        .number("SELECT sum(batches)::bigint FROM worker_progress")
        .await;
    assert!(batches < 500, "{batches} batches for 2000 waiting events");

    let producer = place.producer().await;
    let mut fastest = Duration::MAX;
    for version in 1..=10 {
        let event = flight(json!({ "flight_id": "IDLE", "version": version }));
        let sent = Instant::now();
        producer.publish(&[body(&event)]).await;
        place.committed_at_least(2_000 + version).await;
        fastest = fastest.min(sent.elapsed());
    }
    // Far above what it takes, far below any timer: nothing waits for a batch to fill.
    assert!(fastest < Duration::from_millis(500), "{fastest:?}");
    worker.stop().await;
}

#[tokio::test]
async fn honest_readiness_before_the_servers_are_there() {
    let database = Database::new().await;
    let mut place = place(&database);
    let there = place.clone();
    // Nobody listens on port 1.
    place.database_url = "postgres://paxflow:x@127.0.0.1:1/paxflow".to_owned();
    let worker = place.boot().await;
    assert_eq!(worker.get("/livez").await, (200, "ok\n".to_owned()));
    let reason = worker.unready().await;
    assert!(reason.starts_with("database: "), "{reason}");
    until("it says what it waits for", async || {
        worker
            .log()
            .contains("waiting for the database")
            .then_some(())
    })
    .await;
    worker.stop().await;

    place.database_url = there.database_url.clone();
    place.amqp_url = "amqp://paxflow:x@127.0.0.1:1/%2f".to_owned();
    let worker = place.boot().await;
    until("the broker is the reason", async || {
        let (status, reason) = worker.get("/readyz").await;
        (status == 503 && reason.starts_with("broker: ")).then_some(())
    })
    .await;
    until("it says what it waits for", async || {
        worker
            .log()
            .contains("waiting for the broker")
            .then_some(())
    })
    .await;
    assert_eq!(worker.get("/livez").await.0, 200);
    worker.stop().await;

    let worker = there.worker().await;
    assert_eq!(worker.get("/readyz").await, (200, "ready\n".to_owned()));
    worker.stop().await;
}

#[tokio::test]
async fn honest_readiness_while_a_database_answers_but_takes_nothing() {
    let database = Database::new().await;
    let place = place(&database);
    let producer = place.producer().await;
    let worker = place.worker().await;
    let mut connection = place.connect().await;
    // As after a fail-over: it can be read.
    sqlx::raw_sql(
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_read_only = on', current_database()); END $$;
         SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE datname = current_database() AND pid <> pg_backend_pid()",
    )
    .execute(&mut connection)
    .await
    .unwrap();
    producer
        .publish(&[body(&flight(json!({}))), body(&booking(json!({})))])
        .await;
    let reason = worker.unready().await;
    assert!(reason.starts_with("database: "), "{reason}");
    // Longer than it takes to look whether an idle database answers.
    let watched = Instant::now();
    while watched.elapsed() < Duration::from_secs(5) {
        let (status, reason) = worker.get("/readyz").await;
        assert_eq!(status, 503, "{reason}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    sqlx::raw_sql(
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I RESET default_transaction_read_only', current_database()); END $$;
         SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE datname = current_database() AND pid <> pg_backend_pid()",
    )
    .execute(&mut connection)
    .await
    .unwrap();
    worker.ready().await;
    place.committed_at_least(2).await;
    place.assert_exact().await;
    worker.stop().await;
}

#[tokio::test]
async fn honest_readiness_while_the_database_is_silent() {
    let database = Database::new().await;
    let place = place(&database);
    let line = Line::to(&place).await;
    let worker = line.place.worker().await;
    line.database.freeze(true);
    let reason = worker.unready().await;
    assert!(
        reason.contains("no answer") || reason.contains("timed out"),
        "{reason}"
    );
    line.database.freeze(false);
    worker.ready().await;
    place.publish(&[body(&flight(json!({})))]).await;
    place.committed_at_least(1).await;
    worker.stop().await;
}

#[tokio::test]
async fn a_stop_while_the_broker_is_silent_ends_in_time() {
    let database = Database::new().await;
    let place = place(&database);
    let line = Line::to(&place).await;
    let mut worker = line.place.worker().await;
    line.broker.freeze(true);
    worker.signal("TERM");
    let status = worker.exit_within(STOP_MAX).await;
    assert_eq!(status.code(), Some(0), "{}", worker.log());

    // One that cannot even connect stops as well.
    let mut worker = line.place.boot().await;
    worker.unready().await;
    worker.signal("TERM");
    let status = worker.exit_within(STOP_MAX).await;
    assert_eq!(status.code(), Some(0), "{}", worker.log());
}

#[tokio::test]
async fn a_log_that_nobody_reads_keeps_no_worker_from_working_or_stopping() {
    let database = Database::new().await;
    let place = place(&database);
    let mut worker = place.paxflow(&["run"]).spawn().unwrap();
    let mut log = BufReader::new(worker.stderr.take().unwrap()).lines();
    while !log
        .next_line()
        .await
        .unwrap()
        .unwrap()
        .contains("consuming")
    {}
    drop(log);
    // It has something to say: that its connection is gone.
    let mut connection = place.connect().await;
    let cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
               WHERE datname = current_database() AND pid <> pg_backend_pid()";
    execute(&mut connection, cut).await;
    place.publish(&generated(200, 16, 0.0)).await;
    place.committed_at_least(200).await;
    signal(worker.id().unwrap(), "TERM");
    let ended = tokio::time::timeout(STOP_MAX, worker.wait()).await;
    assert!(ended.expect("it stops").unwrap().success());
}

/// The locks of its batch would hold up all others.
#[tokio::test]
async fn a_session_that_is_frozen_in_a_copy_is_ended() {
    let database = Database::new().await;
    let place = place(&database);
    let worker = place.worker().await;
    let options: PgConnectOptions = place.database_url.parse().unwrap();
    let mut frozen = options
        .application_name("paxflow worker")
        .connect()
        .await
        .unwrap();
    let pid = dump(&mut frozen, "SELECT pg_backend_pid()").await;
    let copy = include_str!("../../src/apply/copy_bookings.sql");
    let held = frozen.copy_in_raw(copy).await.unwrap();
    let left = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}");
    let mut looker = place.connect().await;
    until("its session is ended", async || {
        (dump(&mut looker, &left).await == "0\n").then_some(())
    })
    .await;
    drop(held);
    let log = worker.stop().await;
    assert!(log.contains("ended what stood in a COPY"), "{log}");
}

#[tokio::test]
async fn every_metric_is_there_and_described() {
    let database = Database::new().await;
    let place = place(&database);
    let mut command = place.paxflow(&["run"]);
    command.env("PAXFLOW_VERIFY_EVERY_SECS", "1");
    let worker = Worker::start(command).await;
    worker.ready().await;
    place.publish(&generated(200, 14, 0.1)).await;
    place.committed_at_least(200).await;
    let declared: Vec<_> = include_str!("../../src/telemetry.rs")
        .split('"')
        .filter(|text| text.starts_with("paxflow_"))
        .collect();
    let metrics = until("all of them are there", async || {
        let (_, metrics) = worker.get("/metrics").await;
        let there = |name: &&str| metrics.contains(&format!("# TYPE {name} "));
        declared.iter().all(there).then_some(metrics)
    })
    .await;
    let described: Vec<_> = metrics
        .lines()
        .filter_map(|line| line.strip_prefix("# HELP ")?.split_once(' '))
        .filter(|(_, help)| !help.is_empty())
        .map(|(name, _)| name)
        .collect();
    for line in metrics
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        let name = line.split(['{', ' ']).next().unwrap();
        let family = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|end| name.strip_suffix(end))
            .unwrap_or(name);
        assert!(name.starts_with("paxflow_"), "{line}");
        assert!(
            described.contains(&family) || described.contains(&name),
            "{name} is not described"
        );
    }
    assert!(described.len() >= declared.len() && declared.len() > 10);
    worker.stop().await;
}

#[tokio::test]
async fn no_secrets_or_personal_data_in_logs() {
    const CANARIES: [&str; 3] = [
        "Canary Ophelia",
        "ophelia.canary@example.org",
        "+61 491 570 006",
    ];
    let database = Database::new().await;
    let place = place(&database);
    let passenger = json!({ "name": CANARIES[0], "email": CANARIES[1], "phone": CANARIES[2] });
    let good = booking(json!({ "passenger": passenger }));
    let conflicting = booking(json!({ "passenger": passenger, "seat": "1A" }));
    let bad = booking(json!({ "booking_id": "B2", "passenger": passenger, "cabin": CANARIES[0] }));
    let stray = booking(
        json!({ "booking_id": "B3", "passenger": { "name": "\u{0}", "email": CANARIES[1] } }),
    );
    let mut cut = body(&good);
    cut.truncate(cut.len() - 2);
    let mut command = place.paxflow(&["run"]);
    command.env("PAXFLOW_LOG", "debug");
    let worker = Worker::start(command).await;
    worker.ready().await;
    // A row that the database refuses makes it quote the row.
    sqlx::query("ALTER TABLE bookings ADD CONSTRAINT no_boom CHECK (seat <> 'BOOM')")
        .execute(&mut place.connect().await)
        .await
        .unwrap();
    let refused = booking(json!({ "booking_id": "B4", "passenger": passenger, "seat": "BOOM" }));
    let bodies = [&good, &conflicting, &bad, &stray, &refused].map(body);
    place.publish(&[&bodies[..], &[cut]].concat()).await;
    place.committed_at_least(6).await;
    let (_, metrics) = worker.get("/metrics").await;
    let log = worker.stop().await;

    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bodies.join(&b'\n')).unwrap();
    let (_, checked, errors) = ran(place.paxflow(&["check", file.path().to_str().unwrap()])).await;
    let password = |url: &str| url.split([':', '@']).nth(2).unwrap().to_owned();
    let (database_password, amqp_password) =
        (password(&place.database_url), password(&place.amqp_url));
    assert!(database_password.len() > 3 && amqp_password.len() > 3);
    let texts = [log, metrics, checked, errors];
    for canary in CANARIES
        .iter()
        .copied()
        .chain(["Ophelia", &database_password, &amqp_password])
    {
        for text in &texts {
            let line = text.lines().find(|line| line.contains(canary));
            assert!(line.is_none(), "{canary} in {line:?}");
        }
    }
}
