//! What is in hand when a session ends: a batch that cannot commit, one decoded behind it, and one that gathers.

use std::time::{Duration, Instant};

use paxflow::broker::Subscription;
use paxflow::config::Secret;
use serde_json::json;
use sqlx::PgConnection;

use super::harness::{Line, STOP_WITHIN, small_batches};
use super::proxy::Cut;
use super::wire::CONSUME_ANSWERED;
use crate::events::booking;
use crate::process::{Place, Worker, generated, place, until};
use crate::raw::{HEADERS, Message, RawProducer, field, long};
use crate::support::{Database, execute, holding};

/// Enough for [`small_batches`] to have its full prefetch.
const BEFORE: u64 = 100;
/// One alone in its batch, and two batches of ten.
const IN_HAND: f64 = 21.0;

/// Keeps every batch waiting, for as long as it takes to fill the hands of a worker.
const LOCK: &str = "LOCK TABLE bookings IN EXCLUSIVE MODE";

/// A worker whose first batch tries again and again, and the connection whose lock it needs.
async fn with_full_hands(place: &Place, line: &Line) -> (Worker, PgConnection) {
    let mut connection = place.connect().await;
    let impatient = "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET lock_timeout = ''100ms''', current_database()); END $$";
    execute(&mut connection, impatient).await;
    place.declare().await;
    let worker = line.worker().await;
    place.publish(&generated(BEFORE, 31, 0.0)).await;
    place.committed_at_least(BEFORE as i64).await;
    execute(&mut connection, &holding(LOCK)).await;
    let taken = async |events: f64| {
        until("it has taken them", async || {
            let received = worker.metric("paxflow_deliveries_received_total").await;
            (received == BEFORE as f64 + events).then_some(())
        })
        .await;
    };
    place.publish(&bookings(0..1)).await;
    taken(1.0).await;
    until("it has tried", async || {
        let tries = worker.metric("paxflow_batch_retries_total").await;
        (tries >= 1.0).then_some(())
    })
    .await;
    place.publish(&bookings(1..60)).await;
    taken(IN_HAND).await;
    (worker, connection)
}

fn bookings(numbers: std::ops::Range<usize>) -> Vec<Vec<u8>> {
    let event = |number| booking(json!({ "booking_id": format!("HAND{number}") }));
    numbers
        .map(|number| serde_json::to_vec(&event(number)).unwrap())
        .collect()
}

async fn assert_all_are_stored(place: &Place) {
    place.drained().await;
    let stored = "SELECT count(*) FROM bookings WHERE booking_id LIKE 'HAND%'";
    assert_eq!(place.number(stored).await, 60);
    place.assert_exact().await;
}

#[tokio::test]
async fn a_stop_hands_back_all_that_has_no_verdict() {
    let database = Database::new().await;
    let place = place(&database);
    let line = Line::to(&place).await;
    let (mut worker, mut connection) = with_full_hands(&place, &line).await;
    worker.signal("TERM");
    let status = worker.exit_within(STOP_WITHIN).await;
    assert_eq!(status.code(), Some(0), "{}", worker.log());
    let log = worker.log();
    let told = log
        .lines()
        .find(|line| line.contains("handed back to the broker"));
    let told = told.unwrap_or_else(|| panic!("nothing is handed back: {log}"));
    assert!(told.contains(r#""events":21"#), "{told}");
    execute(&mut connection, "COMMIT").await;
    let heir = Worker::start(small_batches(&place)).await;
    assert_all_are_stored(&place).await;
    // With nothing in hand there is nothing to tell.
    let log = heir.stop().await;
    assert!(!log.contains("handed back"), "{log}");
}

#[tokio::test]
async fn a_connection_that_breaks_is_told_from_a_verdict() {
    let database = Database::new().await;
    let place = place(&database);
    let line = Line::to(&place).await;
    let (worker, mut connection) = with_full_hands(&place, &line).await;
    line.broker.cut(Cut::Reset);
    until("the broker has noticed", async || {
        let state = place.waiting(&place.topology.queue).await;
        (state.consumers == 0).then_some(())
    })
    .await;
    execute(&mut connection, "COMMIT").await;
    assert_all_are_stored(&place).await;
    // Both batches commit, and nobody can be told; what had only been gathered comes again.
    assert_eq!(worker.metric("paxflow_acks_lost_total").await, 11.0);
    let requeued = worker.metric("paxflow_deliveries_requeued_total").await;
    assert_eq!(requeued, 10.0);
    worker.stop().await;
}

/// The broker hears nothing more of what it was told already.
#[tokio::test]
async fn an_acknowledgement_before_the_break_is_not_lost() {
    let database = Database::new().await;
    let place = place(&database);
    place.declare().await;
    let line = Line::to(&place).await;
    // After that of the start: all that it had in hand is settled, and it consumes with a wider prefetch.
    let trap = line.broker.trap(CONSUME_ANSWERED, 1);
    let worker = line.worker().await;
    place.publish(&bookings(0..60)).await;
    let asked = trap.sprung_by(|| worker.log()).await;
    asked.cut_before(Cut::Reset);
    assert_all_are_stored(&place).await;
    assert_eq!(worker.metric("paxflow_acks_lost_total").await, 0.0);
    worker.stop().await;
}

/// Memory is bounded by bytes as well as by events: a batch takes no more once it holds 16 MiB.
async fn assert_a_batch_is_full_of(large: impl Fn(&str, usize) -> Message, messages: usize) {
    const WARM: u64 = 400;
    let database = Database::new().await;
    let place = place(&database);
    let worker = place.boot().await;
    place.publish(&generated(WARM, 32, 0.0)).await;
    place.committed_at_least(WARM as i64).await;
    let mut connection = place.connect().await;
    execute(&mut connection, &holding(LOCK)).await;
    let taken = async |events: usize| {
        until("it has taken them", async || {
            let received = worker.metric("paxflow_deliveries_received_total").await;
            (received == WARM as f64 + events as f64).then_some(())
        })
        .await;
    };
    let batches = "SELECT batches FROM worker_progress";
    let before = place.number(batches).await;
    place.publish(&bookings(0..1)).await;
    taken(1).await;
    let mut producer = RawProducer::connect(&place.amqp_url).await;
    for number in 1..=messages {
        let message = large(&place.topology.exchange, number);
        producer.send(&message).await;
    }
    producer.confirm().await;
    taken(1 + messages).await;
    execute(&mut connection, "COMMIT").await;
    place
        .committed_at_least((WARM as usize + 1 + messages) as i64)
        .await;
    // The one alone, 16 MiB, and the rest.
    assert_eq!(place.number(batches).await, before + 3);
    worker.stop().await;
}

const KEY: &[u8] = b"airline.booking.upserted.v1";

#[tokio::test]
async fn large_bodies_make_a_batch_full() {
    let filler = "x".repeat(250_000);
    let large = |exchange: &str, number: usize| {
        let mut event = booking(json!({ "booking_id": format!("HAND{number}") }));
        event["filler"] = json!(filler);
        Message::event(exchange, KEY, &serde_json::to_vec(&event).unwrap())
    };
    assert_a_batch_is_full_of(large, 80).await;
}

#[tokio::test]
async fn large_headers_make_a_batch_full() {
    // As JSON each takes six letters.
    let filler = [1; 20_000];
    let large = |exchange: &str, number: usize| {
        let event = booking(json!({ "booking_id": format!("HAND{number}") }));
        let headers = field(b"filler", b'S', &long(&filler));
        Message::event(exchange, KEY, &serde_json::to_vec(&event).unwrap())
            .with(HEADERS, &long(&headers))
    };
    assert_a_batch_is_full_of(large, 160).await;
}

/// The linger is for more to come: there is no more where the batch is full, where all is in hand that may be,
/// and at a stop.
#[tokio::test]
async fn nothing_lingers_that_has_nothing_to_wait_for() {
    const BATCH: usize = 3;
    let database = Database::new().await;
    let place = place(&database);
    let producer = place.producer().await;
    let mut command = place.paxflow(&["run"]);
    command
        .env("PAXFLOW_BATCH_MAX", BATCH.to_string())
        .env("PAXFLOW_PREFETCH", "6")
        .env("PAXFLOW_BATCH_LINGER_MS", "10000");
    let mut worker = Worker::start(command).await;
    worker.ready().await;
    let published = Instant::now();
    producer.publish(&bookings(0..41)).await;
    // Fewer than a batch are left over, and those do wait; if none is, one more.
    place.committed_at_least(39).await;
    if place.committed().await.0 == 41 {
        producer.publish(&bookings(41..42)).await;
    }
    let all = bookings_received(&worker).await;
    let watched = Instant::now();
    let settled = place.committed().await.0;
    assert!(settled < all, "{settled} of {all}");
    while watched.elapsed() < Duration::from_secs(1) {
        assert_eq!(place.committed().await.0, settled);
    }
    let (_, metrics) = worker.get("/metrics").await;
    let full = r#"paxflow_batch_events_bucket{le="3"}"#;
    let any = r#"paxflow_batch_events_bucket{le="+Inf"}"#;
    let of = |name: &str| {
        let value = metrics.lines().find_map(|line| line.strip_prefix(name));
        value.expect("the histogram has the bucket")
    };
    assert_eq!(of(full), of(any), "{metrics}");
    worker.signal("TERM");
    let status = worker.exit_within(STOP_WITHIN).await;
    assert_eq!(status.code(), Some(0), "{}", worker.log());
    let took = published.elapsed();
    assert!(took.as_secs() < 10, "{took:?}");
    assert_eq!(place.committed().await.0, all);
}

/// All that were published, once the worker has them.
async fn bookings_received(worker: &Worker) -> i64 {
    until("it has the last one", async || {
        let received = worker.metric("paxflow_deliveries_received_total").await as i64;
        let settled = worker.metric("paxflow_deliveries_settled_total").await as i64;
        (received >= 41 && received > settled).then_some(received)
    })
    .await
}

#[tokio::test]
async fn handing_back_is_one_attempt() {
    let database = Database::new().await;
    let place = place(&database);
    let url = Secret::new(&place.amqp_url);
    let events = generated(4, 37, 0.0);
    place.publish(&events).await;
    for attempts in 0..3 {
        let mut subscription = Subscription::open(&url, &place.topology, 10).await.unwrap();
        for _ in &events {
            let delivery = subscription.next().await.unwrap();
            let seen = delivery.headers.get("x-delivery-count");
            assert_eq!(seen.map_or(0, |count| count.as_i64().unwrap()), attempts);
        }
        subscription.hand_back(Duration::ZERO).await;
    }
}
