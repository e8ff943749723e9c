//! How many deliveries a worker holds from its start on, and what that costs them of their attempts, of which each
//! message has a limited number.

use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use paxflow::broker::Subscription;
use paxflow::config::Secret;
use serde_json::json;
use sqlx::PgConnection;

use crate::events::booking;
use crate::process::{Place, Worker, generated, place, until};
use crate::support::{Database, execute, holding};

const PUBLISHED: i64 = 400;
const PREFETCH: i64 = 90;
const BATCH: i64 = 10;
const STOP_MAX: Duration = Duration::from_secs(10);

/// Full of events for workers whose batches wait: the first for a table, one that comes to so many events for a gate.
struct Gated {
    place: Place,
    table: PgConnection,
    gates: PgConnection,
}

impl Gated {
    async fn new(database: &Database, gates_at: &[i64]) -> Self {
        let place = place(database);
        place.publish(&generated(PUBLISHED as u64, 15, 0.0)).await;
        let (mut table, mut gates) = (place.connect().await, place.connect().await);
        let (mut waits, mut locks) = (String::new(), Vec::new());
        for (gate, events) in (1..).zip(gates_at) {
            let wait = format!("PERFORM pg_advisory_xact_lock({gate})");
            waits += &format!("IF NEW.received >= {events} THEN {wait}; END IF; ");
            locks.push(format!("pg_advisory_lock({gate})"));
        }
        let closed = format!(
            "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {waits} RETURN NEW; END $$;
             CREATE TRIGGER wait BEFORE UPDATE ON worker_progress FOR EACH ROW EXECUTE FUNCTION wait();
             SELECT {}",
            locks.join(", ")
        );
        execute(&mut gates, &closed).await;
        let locked = holding("LOCK TABLE worker_progress IN EXCLUSIVE MODE");
        execute(&mut table, &locked).await;
        Self {
            place,
            table,
            gates,
        }
    }

    async fn worker(&self) -> Worker {
        let mut command = self.place.paxflow(&["run"]);
        command
            .env("PAXFLOW_BATCH_MAX", BATCH.to_string())
            .env("PAXFLOW_PREFETCH", PREFETCH.to_string());
        Worker::start(command).await
    }

    async fn first_batch_goes(&mut self) {
        execute(&mut self.table, "COMMIT").await;
    }

    async fn waits_at(&self, gate: i64) {
        let waiting = "SELECT coalesce(max(objid::bigint), 0)
                       FROM pg_locks JOIN pg_database ON pg_database.oid = pg_locks.database
                       WHERE datname = current_database() AND locktype = 'advisory' AND NOT granted";
        until("a batch waits at the gate", async || {
            (self.place.number(waiting).await == gate).then_some(())
        })
        .await;
    }

    async fn open(&mut self, gate: i64) {
        let unlock = format!("SELECT pg_advisory_unlock({gate})");
        execute(&mut self.gates, &unlock).await;
    }

    async fn in_hand(&self) -> i64 {
        let ready = self.place.waiting(&self.place.topology.queue).await.ready;
        PUBLISHED - i64::from(ready) - self.place.committed().await.0
    }

    async fn assert_stays_within(&self, limits: RangeInclusive<i64>, time: Duration) {
        let watched = Instant::now();
        while watched.elapsed() < time {
            let in_hand = self.in_hand().await;
            assert!(limits.contains(&in_hand), "{in_hand} in hand");
        }
    }

    async fn assert_stays(&self, limit: i64) {
        until("it has all that it may have", async || {
            (self.in_hand().await == limit).then_some(())
        })
        .await;
        // Long enough to take the rest of the queue.
        self.assert_stays_within(limit..=limit, Duration::from_secs(1))
            .await;
    }
}

#[tokio::test]
async fn after_its_first_new_delivery_a_worker_takes_all_that_it_may() {
    let database = Database::new().await;
    let mut gated = Gated::new(&database, &[2]).await;
    let worker = gated.worker().await;
    gated.assert_stays(1).await;
    gated.first_batch_goes().await;
    gated.waits_at(1).await;
    gated.assert_stays(PREFETCH).await;
    gated.open(1).await;
    gated.place.committed_at_least(PUBLISHED).await;
    worker.stop().await;
}

#[tokio::test]
async fn after_a_repeated_one_it_takes_step_by_step_more_and_never_beyond_the_prefetch() {
    let database = Database::new().await;
    // Every batch from before the last step to after it, and one with the full prefetch.
    let steps: Vec<i64> = (50..=200).step_by(BATCH as usize).collect();
    let gates = [&steps[..], &[300]].concat();
    let mut gated = Gated::new(&database, &gates).await;
    let mut worker = gated.worker().await;
    gated.assert_stays(1).await;
    worker.signal("KILL");
    worker.exit_within(STOP_MAX).await;
    let worker = gated.worker().await;
    gated.assert_stays(1).await;
    gated.first_batch_goes().await;
    for (gate, _) in (1..).zip(&steps) {
        gated.waits_at(gate).await;
        gated
            .assert_stays_within(0..=PREFETCH, Duration::from_millis(300))
            .await;
        gated.open(gate).await;
    }
    let full = gates.len() as i64;
    gated.waits_at(full).await;
    gated.assert_stays(PREFETCH).await;
    gated.open(full).await;
    gated.place.committed_at_least(PUBLISHED).await;
    worker.stop().await;
}

/// Takes so many deliveries and goes away.
async fn give_back(place: &Place, deliveries: u16) {
    let url = Secret::new(place.amqp_url.as_str());
    let mut subscription = Subscription::open(&url, &place.topology, deliveries)
        .await
        .unwrap();
    for _ in 0..deliveries {
        subscription.next().await.unwrap();
    }
    subscription.close().await;
}

/// With so many deliveries that had been given back before two workers start, no attempt is counted but those.
async fn assert_a_start_uses_up_no_attempt(given_back: u16) {
    const EVENTS: usize = 5_000;
    let database = Database::new().await;
    let place = place(&database);
    // What is set aside keeps its headers, the broker's count of attempts among them.
    let bad = |number| {
        let bad = booking(json!({ "booking_id": format!("B{number}"), "cabin": "Z" }));
        serde_json::to_vec(&bad).unwrap()
    };
    place
        .publish(&(0..EVENTS).map(bad).collect::<Vec<_>>())
        .await;
    if given_back > 0 {
        give_back(&place, given_back).await;
    }
    let workers = [place.worker().await, place.worker().await];
    place.committed_at_least(EVENTS as i64).await;
    for worker in workers {
        worker.stop().await;
    }
    let set_aside = "SELECT count(*) FROM quarantined_events";
    assert_eq!(place.number(set_aside).await, EVENTS as i64);
    let attempts = "SELECT coalesce(sum((headers ->> 'x-delivery-count')::bigint), 0)::bigint
                    FROM quarantined_events";
    assert_eq!(place.number(attempts).await, i64::from(given_back));
}

#[tokio::test]
async fn a_start_uses_up_no_attempt() {
    assert_a_start_uses_up_no_attempt(0).await;
}

#[tokio::test]
async fn a_start_on_repeated_deliveries_uses_up_no_attempt() {
    assert_a_start_uses_up_no_attempt(2_000).await;
}
