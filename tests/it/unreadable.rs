//! Messages that the AMQP library cannot read: each delivery of one ends the connection, and with
//! it every delivery in hand counts as failed.

use serde_json::json;

use crate::events::booking;
use crate::faults::harness::small_batches;
use crate::process::{Worker, place, until};
use crate::raw::{HEADERS, MESSAGE_ID, Message, RawProducer, field, long, short};
use crate::support::Database;

const KEY: &[u8] = b"airline.booking.upserted.v1";
const GOOD: i64 = 300;

fn good(number: i64) -> Vec<u8> {
    serde_json::to_vec(&booking(json!({ "booking_id": format!("GOOD-{number}") }))).unwrap()
}

/// With 300 good events around it the message ends in the dead-letter queue, and they do not.
async fn assert_dead_letters_only(unreadable: impl Fn(&str) -> Message) {
    let database = Database::new().await;
    let place = place(&database);
    place.declare().await;
    let mut producer = RawProducer::connect(&place.amqp_url).await;
    let exchange = &place.topology.exchange;
    for number in 0..GOOD {
        if number == GOOD / 2 {
            producer.send(&unreadable(exchange)).await;
        }
        let event = Message::event(exchange, KEY, &good(number));
        producer.send(&event).await;
    }
    producer.confirm().await;

    let worker = Worker::start(small_batches(&place)).await;
    until("it is dead-lettered", async || {
        let dead = place.waiting(&place.topology.dead_letters()).await;
        (dead.ready > 0).then_some(())
    })
    .await;
    producer
        .send(&Message::event(exchange, KEY, &good(GOOD)))
        .await;
    producer.confirm().await;
    let applied = "SELECT coalesce(sum(applied), 0)::bigint FROM worker_progress";
    until("every good event is applied", async || {
        (place.number(applied).await == GOOD + 1).then_some(())
    })
    .await;
    worker.ready().await;
    let ended = worker.metric("paxflow_deliveries_unreadable_total").await;
    assert!(ended >= 40.0, "{ended}");
    let log = worker.stop().await;
    let said = log.lines().filter(|line| line.contains("not UTF-8"));
    // Once for each time that it stood in another window than before, and not for each delivery.
    assert!((1..20).contains(&said.count()), "{log}");
    assert!(log.contains(&place.topology.dead_letters()), "{log}");

    assert_eq!(place.waiting(&place.topology.queue).await.ready, 0);
    assert_eq!(place.waiting(&place.topology.dead_letters()).await.ready, 1);
    let stored = "SELECT count(*) FROM bookings";
    assert_eq!(place.number(stored).await, GOOD + 1);
    let quarantined = "SELECT count(*) FROM quarantined_events";
    assert_eq!(place.number(quarantined).await, 0);
}

#[tokio::test]
async fn poison_isolated_when_a_routing_key_cannot_be_read() {
    assert_dead_letters_only(|exchange| Message::event(exchange, b"airline.\xff", &good(0))).await;
}

#[tokio::test]
async fn poison_isolated_when_a_property_cannot_be_read() {
    assert_dead_letters_only(|exchange| {
        Message::event(exchange, KEY, &good(0)).with(MESSAGE_ID, &short(b"\xff"))
    })
    .await;
}

#[tokio::test]
async fn poison_isolated_when_the_name_of_a_header_cannot_be_read() {
    assert_dead_letters_only(|exchange| {
        let headers = field(b"\xff", b'S', &long(b"value"));
        Message::event(exchange, KEY, &good(0)).with(HEADERS, &long(&headers))
    })
    .await;
}
