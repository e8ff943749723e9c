//! Several replicas at once, on the same rows, and readers beside them.

use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::join_all;
use paxflow::apply::Committer;
use paxflow::batch::VerdictCounts;
use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;
use rand::seq::IndexedRandom;
use serde_json::{Value, json};
use sqlx::PgConnection;
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use crate::events::{booking, flight};
use crate::history::Generator;
use crate::model;
use crate::process::until;
use crate::support::{Applier, Database, assert_exact, drift, dump, execute, holding};

/// Keeps every batch from its commit.
const LOCK: &str = "LOCK TABLE worker_progress IN SHARE MODE";

const HOT_FLIGHTS: usize = 30;
const HOT_BOOKINGS: usize = 150;

/// Batches of one applier; no two events of all appliers have the same key and version.
struct HotBatches {
    generator: Generator,
    rng: ChaCha8Rng,
    applier: usize,
    appliers: usize,
    number: usize,
}

impl HotBatches {
    fn new(applier: usize, appliers: usize) -> Self {
        let seed = applier as u64;
        Self {
            generator: Generator::new(seed),
            rng: ChaCha8Rng::seed_from_u64(seed),
            applier,
            appliers,
            number: 0,
        }
    }

    /// A batch of different keys in random order.
    fn next(&mut self, events: usize) -> Vec<Value> {
        let version = (self.number * self.appliers + self.applier + 1) as i64;
        let keys = self.keys();
        self.number += 1;
        keys.sample(&mut self.rng, events)
            .map(|key| {
                if key.starts_with('F') {
                    self.generator.flight(key, version)
                } else {
                    self.generator.booking(key, version, HOT_FLIGHTS)
                }
            })
            .collect()
    }

    /// In turns the appliers meet first at flights, at stored bookings, at new ones, and at the sums of
    /// flights: whoever waits for another at one step never gets to race it at the next.
    fn keys(&self) -> Vec<String> {
        let flights = (0..HOT_FLIGHTS).map(|key| format!("F{key}"));
        let bookings = (0..HOT_BOOKINGS).map(|key| format!("B{key}"));
        let new_bookings = (0..HOT_BOOKINGS).map(|key| format!("B{key}from{}", self.number));
        let own_bookings = (0..HOT_BOOKINGS).map(|key| format!("B{key}of{}", self.applier));
        match self.number % 4 {
            0 => flights.chain(bookings).collect(),
            1 => bookings.collect(),
            2 => new_bookings.collect(),
            _ => own_bookings.collect(),
        }
    }
}

/// Events of a batch that has enough bookings to be copied.
const COPIED: usize = 120;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn hot_keys_never_deadlock_and_stay_exact() {
    race(200, COPIED, |_| {}).await;
}

/// As few as workers take while they keep up.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn hot_keys_that_are_inserted_never_deadlock_and_stay_exact() {
    race(200, 60, |_| {}).await;
}

/// Those who have met a twin take turns for a while; these forget it at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn hot_keys_that_are_copied_never_deadlock_and_stay_exact() {
    race(100, COPIED, forget_twins).await;
}

/// Lets appliers write the same rows at the same time; each does something of its own between two of its batches.
async fn race(batches_each: usize, batch_events: usize, between: fn(&mut Applier)) {
    const APPLIERS: usize = 4;
    let database = Database::new().await;
    // Without it the appliers drift apart and hardly ever want the same rows at the same time.
    let start = Arc::new(Barrier::new(APPLIERS));
    let mut running = JoinSet::new();
    for number in 0..APPLIERS {
        let mut applier = database.applier().await;
        let start = Arc::clone(&start);
        running.spawn(async move {
            let mut batches = HotBatches::new(number, APPLIERS);
            let mut counts = VerdictCounts::default();
            let mut sent = Vec::new();
            for _ in 0..batches_each {
                let batch = batches.next(batch_events);
                between(&mut applier);
                start.wait().await;
                counts = counts + applier.apply(&batch).await;
                sent.extend(batch);
            }
            (counts, sent)
        });
    }
    // One that fails is told at once: the others would wait for it at the barrier.
    let (mut counts, mut sent) = (Vec::new(), Vec::new());
    while let Some(returned) = running.join_next().await {
        let (counted, events) =
            returned.unwrap_or_else(|failed| resume_unwind(failed.into_panic()));
        counts.push(counted);
        sent.extend(events);
    }
    let counts = counts
        .into_iter()
        .fold(VerdictCounts::default(), |sum, counts| sum + counts);
    assert_eq!(
        counts.total(),
        (APPLIERS * batches_each * batch_events) as u64
    );
    assert_eq!(counts.applied + counts.stale, counts.total());
    assert!(
        counts.stale > 0,
        "the appliers did not overtake each other: {counts:?}"
    );
    let mut connection = database.connect().await;
    assert_exact(&mut connection).await;
    for (query, expected) in model::QUERIES.iter().zip(model::expect(&sent)) {
        assert_eq!(dump(&mut connection, query).await, expected, "{query}");
    }
}

/// Enough of them that both are in the midst of COPY at the same time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_bookings_copied_at_once_never_deadlock() {
    const ROUNDS: usize = 20;
    const BOOKINGS: usize = 2_000;
    let database = Database::new().await;
    let start = Arc::new(Barrier::new(2));
    let mut running = JoinSet::new();
    for _ in 0..2 {
        let mut applier = database.applier().await;
        let start = Arc::clone(&start);
        running.spawn(async move {
            let mut counts = VerdictCounts::default();
            for round in 0..ROUNDS {
                let event = |key| booking(json!({ "booking_id": format!("B{key}of{round}") }));
                let batch: Vec<_> = (0..BOOKINGS).map(event).collect();
                forget_twins(&mut applier);
                start.wait().await;
                counts = counts + applier.apply(&batch).await;
            }
            counts
        });
    }
    let mut sum = VerdictCounts::default();
    while let Some(counts) = running.join_next().await {
        sum = sum + counts.unwrap_or_else(|failed| resume_unwind(failed.into_panic()));
    }
    let each = (ROUNDS * BOOKINGS) as u64;
    assert_eq!((sum.applied, sum.duplicate), (each, each));
}

fn forget_twins(applier: &mut Applier) {
    let Committer {
        id,
        started_at,
        pooler,
        ..
    } = applier.committer.clone();
    applier.committer = Committer::new(id, started_at, pooler);
}

#[tokio::test]
async fn a_booking_that_a_twin_inserts_while_it_is_copied_counts_once() {
    const BOOKINGS: usize = 150;
    let database = Database::new().await;
    let (mut first, mut second) = (database.applier().await, database.applier().await);
    let mut gate = database.connect().await;
    let mut observer = database.connect().await;
    // Stops the first one before its commit, with its booking inserted.
    execute(&mut gate, &holding(LOCK)).await;
    let bookings = |keys: std::ops::Range<usize>| {
        let key = |key| booking(json!({ "booking_id": format!("B{key}") }));
        keys.map(key).collect::<Vec<_>>()
    };
    let (early, all) = (bookings(7..8), bookings(0..BOOKINGS));
    let early = tokio::spawn(async move { first.apply(&early).await });
    waits_in(&mut observer, "WITH updated_flights").await;
    let late = tokio::spawn(async move { second.apply(&all).await });
    waits_in(&mut observer, "COPY bookings").await;
    execute(&mut gate, "COMMIT").await;
    assert_eq!(early.await.unwrap().applied, 1);
    let counts = late.await.unwrap();
    assert_eq!((counts.applied, counts.duplicate), (BOOKINGS as u64 - 1, 1));
    assert_exact(&mut observer).await;
}

#[tokio::test]
async fn who_has_met_a_twin_copies_in_turn() {
    const BOOKINGS: usize = 150;
    const TURN: &str = "pg_advisory_xact_lock('bookings'::regclass::oid::integer, 0)";
    let database = Database::new().await;
    let (mut first, mut second) = (database.applier().await, database.applier().await);
    let (mut gate, mut observer) = (database.connect().await, database.connect().await);
    let bookings = |of: &str| {
        let key = |key| booking(json!({ "booking_id": format!("{of}{key}") }));
        (0..BOOKINGS).map(key).collect::<Vec<_>>()
    };
    // Two that copy the same bookings: one of them meets its twin.
    execute(&mut gate, &holding(LOCK)).await;
    let (one, other) = (bookings("A"), bookings("A"));
    let one = tokio::spawn(async move { first.apply(&one).await });
    waits_in(&mut observer, "WITH updated_flights").await;
    let other = tokio::spawn(async move {
        second.apply(&other).await;
        second
    });
    waits_in(&mut observer, "COPY bookings").await;
    execute(&mut gate, "COMMIT").await;
    one.await.unwrap();
    let mut met = other.await.unwrap();

    execute(&mut gate, &holding(&format!("SELECT {TURN}"))).await;
    // A batch that is too small to be copied waits for nobody.
    assert_eq!(met.apply(&bookings("B")[..10]).await.applied, 10);
    let third = bookings("C");
    let third = tokio::spawn(async move { met.apply(&third).await });
    waits_in(&mut observer, "pg_advisory_xact_lock").await;
    // It holds no booking yet that those who take no turn could wait for.
    let (mut free, mut halt) = (database.applier().await, database.connect().await);
    execute(&mut halt, &holding(LOCK)).await;
    let twin = bookings("C")[7..8].to_vec();
    let twin = tokio::spawn(async move { free.apply(&twin).await });
    waits_in(&mut observer, "WITH updated_flights").await;
    execute(&mut gate, "COMMIT").await;
    waits_in(&mut observer, "COPY bookings").await;
    execute(&mut halt, "COMMIT").await;
    assert_eq!(twin.await.unwrap().applied, 1);
    let counts = third.await.unwrap();
    assert_eq!((counts.applied, counts.duplicate), (BOOKINGS as u64 - 1, 1));
    assert_exact(&mut observer).await;
}

/// Waits until a session waits for a lock in a statement with this text.
async fn waits_in(observer: &mut PgConnection, statement: &str) {
    let waiting = format!(
        "SELECT count(*) FROM pg_stat_activity
         WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%{statement}%'"
    );
    until(statement, async || {
        (dump(observer, &waiting).await == "1\n").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_flight_that_moves_takes_its_bookings_along() {
    const BOOKINGS: usize = 300;
    let database = Database::new().await;
    let routes = [("NRT", "PHX"), ("PHX", "NRT"), ("HNL", "KEF")];
    let moves: Vec<_> = (1..=150)
        .map(|version| {
            let (origin, destination) = routes[version % routes.len()];
            let day = version % 28 + 1;
            vec![flight(json!({
                "version": version,
                "origin": origin,
                "destination": destination,
                "scheduled_departure": format!("2026-04-{day:02}T03:00:00Z"),
                "scheduled_arrival": format!("2026-04-{day:02}T13:00:00Z"),
            }))]
        })
        .collect();
    let booked: Vec<_> = (0..BOOKINGS)
        .map(|number| booking(json!({"booking_id": format!("B{number}")})))
        .collect();
    let (first, second) = booked.split_at(BOOKINGS / 2);
    let small_batches =
        |events: &[Value]| events.chunks(3).map(<[Value]>::to_vec).collect::<Vec<_>>();
    let work = [moves, small_batches(first), small_batches(second)];

    let running = join_all(work.iter().map(async |batches| {
        let mut applier = database.applier().await;
        for batch in batches {
            applier.apply(batch).await;
        }
    }));
    running.await;
    let mut connection = database.connect().await;
    // Version 150: the first route, on the 11th.
    let markets =
        "SELECT origin, destination, data_date, flight_count, booking_count FROM market_data";
    assert_eq!(
        dump(&mut connection, markets).await,
        "NRT | PHX | 2026-04-11 | 1 | 300\n"
    );
    assert_exact(&mut connection).await;
}

#[tokio::test]
async fn a_time_zone_may_change_while_flights_arrive() {
    const ROUNDS: usize = 40;
    let database = Database::new().await;
    let done = AtomicBool::new(false);
    let arrive = async {
        let mut applier = database.applier().await;
        for round in 0..ROUNDS {
            let flights: Vec<_> = (0..10)
                .map(|number| flight(json!({"flight_id": format!("F{round}-{number}")})))
                .collect();
            applier.apply(&flights).await;
        }
        done.store(true, Ordering::Relaxed);
    };
    let change = async {
        let mut connection = database.connect().await;
        while !done.load(Ordering::Relaxed) {
            for zone in ["Pacific/Honolulu", "Asia/Tokyo"] {
                let update =
                    format!("UPDATE airports SET timezone = '{zone}' WHERE iata_code = 'NRT'");
                execute(&mut connection, &update).await;
                assert_exact(&mut connection).await;
            }
        }
    };
    tokio::join!(arrive, change);
    let mut connection = database.connect().await;
    let markets = "SELECT origin, data_date, flight_count FROM market_data";
    assert_eq!(
        dump(&mut connection, markets).await,
        "NRT | 2026-04-01 | 400\n"
    );
    assert_exact(&mut connection).await;
}

#[tokio::test]
async fn a_time_zone_does_not_change_over_an_old_snapshot() {
    let database = Database::new().await;
    let mut connection = database.connect().await;
    execute(
        &mut connection,
        "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM flights",
    )
    .await;
    let mut applier = database.applier().await;
    applier.apply(&[flight(json!({}))]).await;
    let update = "UPDATE airports SET timezone = 'Pacific/Honolulu' WHERE iata_code = 'NRT'";
    let refused = sqlx::raw_sql(update).execute(&mut connection).await;
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("READ COMMITTED"), "{refused}");
    execute(&mut connection, "ROLLBACK").await;
    assert_exact(&mut connection).await;
}

#[tokio::test]
async fn snapshot_consistent() {
    const APPLIERS: usize = 2;
    const READS: usize = 200;
    // Small, so that many commits fall between and into the reads.
    const BATCH_EVENTS: usize = 10;
    let database = Database::new().await;
    let done = AtomicBool::new(false);
    let write = async |number: usize| {
        let mut applier = database.applier().await;
        let mut batches = HotBatches::new(number, APPLIERS);
        let mut counts = VerdictCounts::default();
        while !done.load(Ordering::Relaxed) {
            counts = counts + applier.apply(&batches.next(BATCH_EVENTS)).await;
        }
        counts
    };
    let read = async {
        let mut connection = database.connect().await;
        let mut seen = Vec::new();
        for number in 0..READS {
            execute(
                &mut connection,
                "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
            )
            .await;
            seen.push(read_sums(&mut connection).await);
            if number % 20 == 0 {
                assert_eq!(drift(&mut connection).await, "", "at read {number}");
            }
            execute(&mut connection, "COMMIT").await;
        }
        done.store(true, Ordering::Relaxed);
        seen
    };
    let (_, _, mut seen) = tokio::join!(write(0), write(1), read);
    seen.dedup();
    assert!(
        seen.len() > READS / 10,
        "too few commits between the reads: {}",
        seen.len()
    );
}

/// The active bookings, counted in four ways, in as many statements of one snapshot.
async fn read_sums(connection: &mut PgConnection) -> String {
    let counted = "SELECT count(*) FROM bookings b JOIN flights f USING (flight_id)
        WHERE b.deleted_at IS NULL AND b.status <> 'cancelled' AND f.deleted_at IS NULL AND f.status <> 'cancelled'";
    let expected = dump(connection, counted).await;
    for sum in [
        "SELECT coalesce(sum(booking_count), 0) FROM market_data",
        "SELECT coalesce(sum(booking_count), 0) FROM market_fares",
        "SELECT coalesce(sum(gross_bookings - cancellations), 0) FROM market_activity",
    ] {
        assert_eq!(dump(connection, sum).await, expected, "{sum}");
    }
    expected
}
