//! Any permutation, duplication, batching or interleaving of the same events ends in the same tables.

use futures_util::FutureExt;
use futures_util::future::join_all;
use paxflow::batch::VerdictCounts;
use serde_json::{Value, json};
use std::panic::{AssertUnwindSafe, resume_unwind};

use crate::events::{booking, booking_deleted, flight, flight_deleted, plain_price};
use crate::history::Generator;
use crate::model;
use crate::support::{
    Applier, Database, assert_exact, assert_same_rows, dump, execute, seed, setting, table_rows,
};

/// Enough for the suite on every change; PAXFLOW_TEST_HISTORIES asks for more.
const HISTORIES: u64 = 300;
/// Databases that histories are tried in at the same time.
const LANES: u64 = 2;
const APPLIERS: usize = 4;

const MARKETS: &str =
    "SELECT origin, destination, data_date, flight_count, booking_count, gross_booking_count,
    cancellation_count FROM market_data ORDER BY 1, 2, 3";
const FARES: &str =
    "SELECT origin, destination, data_date, cabin, currency, booking_count, total_revenue
    FROM market_fares ORDER BY 1, 2, 3, 4, 5";
const QUARANTINE: &str =
    "SELECT reason, path, times_received, state FROM quarantined_events ORDER BY id";

#[tokio::test]
async fn order_free() {
    let histories = setting("PAXFLOW_TEST_HISTORIES").unwrap_or(HISTORIES);
    let seed = seed();
    println!("{histories} histories from PAXFLOW_TEST_SEED={seed}");
    let lanes = (0..LANES).map(|lane| async move {
        let mut laboratory = Laboratory::new().await;
        for number in (lane..histories).step_by(LANES as usize) {
            laboratory.try_history(seed + number).await;
        }
    });
    join_all(lanes).await;
}

/// A database and the appliers that try history after history in it.
struct Laboratory {
    appliers: Vec<Applier>,
    // After the connections, so that it is dropped when they are closed.
    _database: Database,
}

impl Laboratory {
    async fn new() -> Self {
        let database = Database::new().await;
        let mut appliers = Vec::new();
        for _ in 0..APPLIERS {
            appliers.push(database.applier().await);
        }
        Self {
            appliers,
            _database: database,
        }
    }

    async fn try_history(&mut self, seed: u64) {
        let mut generator = Generator::new(seed);
        let history = generator.history();
        let deliveries = generator.deliveries(&history);
        let checked = AssertUnwindSafe(self.check(&history, &deliveries))
            .catch_unwind()
            .await;
        if let Err(panic) = checked {
            for event in &history {
                eprintln!("{event}");
            }
            for (number, batches) in deliveries.iter().enumerate() {
                eprintln!("applier {number}: {}", outline(batches));
            }
            eprintln!("again with PAXFLOW_TEST_SEED={seed} PAXFLOW_TEST_HISTORIES=1");
            resume_unwind(panic);
        }
    }

    async fn check(&mut self, history: &[Value], deliveries: &[Vec<Vec<Value>>]) {
        self.clear().await;
        for event in history {
            self.appliers[0].apply(std::slice::from_ref(event)).await;
        }
        let in_order = table_rows(&mut self.appliers[0].connection).await;

        self.clear().await;
        let appliers = self.appliers.iter_mut().zip(deliveries);
        let counts = join_all(appliers.map(|(applier, batches)| apply_all(applier, batches))).await;
        let counts = counts
            .into_iter()
            .fold(VerdictCounts::default(), |sum, counts| sum + counts);
        let delivered: usize = deliveries.iter().flatten().map(Vec::len).sum();
        assert_eq!(counts.total(), delivered as u64);
        assert_eq!(counts.quarantined, 0);

        let connection = &mut self.appliers[0].connection;
        assert_same_rows(&table_rows(connection).await, &in_order);
        assert_exact(connection).await;
        for (query, expected) in model::QUERIES.iter().zip(model::expect(history)) {
            assert_eq!(dump(connection, query).await, expected, "{query}");
        }
        let committed = dump(connection, "SELECT sum(received) FROM worker_progress").await;
        assert_eq!(committed, format!("{delivered}\n"));
    }

    async fn clear(&mut self) {
        let tables = [
            "flights",
            "bookings",
            "flight_demand",
            "worker_progress",
            "quarantined_events",
        ];
        for table in tables {
            execute(
                &mut self.appliers[0].connection,
                &format!("DELETE FROM {table}"),
            )
            .await;
        }
    }
}

async fn apply_all(applier: &mut Applier, batches: &[Vec<Value>]) -> VerdictCounts {
    let mut counts = VerdictCounts::default();
    for batch in batches {
        counts = counts + applier.apply(batch).await;
    }
    counts
}

/// Which keys and versions the batches hold.
fn outline(batches: &[Vec<Value>]) -> String {
    let name = |event: &Value| {
        let data = &event["data"];
        let key = data["booking_id"]
            .as_str()
            .or(data["flight_id"].as_str())
            .unwrap();
        format!("{key}v{}", data["version"])
    };
    let batch =
        |batch: &Vec<Value>| format!("[{}]", batch.iter().map(name).collect::<Vec<_>>().join(" "));
    batches.iter().map(batch).collect::<Vec<_>>().join(" ")
}

fn counts(
    applied: u64,
    duplicate: u64,
    stale: u64,
    folded: u64,
    quarantined: u64,
) -> VerdictCounts {
    VerdictCounts {
        applied,
        duplicate,
        stale,
        folded,
        quarantined,
    }
}

#[tokio::test]
async fn a_booking_may_arrive_before_its_flight() {
    let database = Database::new().await;
    let mut applier = database.applier().await;
    applier.apply(&[booking(json!({}))]).await;
    let connection = &mut applier.connection;
    assert_eq!(dump(connection, MARKETS).await, "");
    assert_eq!(
        dump(
            connection,
            "SELECT booking_id, flight_id FROM pending_bookings"
        )
        .await,
        "B1 | F1\n"
    );
    assert_exact(connection).await;

    applier.apply(&[flight(json!({}))]).await;
    let connection = &mut applier.connection;
    assert_eq!(
        dump(connection, MARKETS).await,
        "NRT | PHX | 2026-04-01 | 1 | 1 | 1 | 0\n"
    );
    assert_eq!(
        dump(connection, FARES).await,
        "NRT | PHX | 2026-04-01 | Y | USD | 1 | 100.00\n"
    );
    assert_eq!(
        dump(connection, "SELECT booking_id FROM pending_bookings").await,
        ""
    );
    assert_exact(connection).await;
}

#[tokio::test]
async fn a_cancellation_may_arrive_before_the_creation() {
    let database = Database::new().await;
    let mut applier = database.applier().await;
    let cancelled =
        json!({"version": 2, "status": "cancelled", "cancelled_at": "2026-03-05T23:59:59Z"});
    applier
        .apply(&[flight(json!({})), booking(cancelled)])
        .await;
    let late = applier.apply(&[booking(json!({}))]).await;
    assert_eq!(late, counts(0, 0, 1, 0, 0));
    let connection = &mut applier.connection;
    assert_eq!(
        dump(connection, MARKETS).await,
        "NRT | PHX | 2026-04-01 | 1 | 0 | 1 | 1\n"
    );
    let activity =
        "SELECT activity_date, gross_bookings, cancellations, gross_revenue, cancelled_revenue
        FROM market_activity ORDER BY 1";
    assert_eq!(
        dump(connection, activity).await,
        "2026-03-01 | 1 | 0 | 100.00 | 0\n2026-03-05 | 0 | 1 | 0 | 100.00\n"
    );
    assert_exact(connection).await;
}

#[tokio::test]
async fn a_changed_booking_leaves_nothing_behind() {
    let database = Database::new().await;
    let mut applier = database.applier().await;
    let elsewhere = json!({"flight_id": "F2", "origin": "PHX", "destination": "NRT"});
    applier.apply(&[flight(json!({})), flight(elsewhere)]).await;
    let changes = [
        (json!({}), "NRT | PHX | 2026-04-01 | Y | USD | 1 | 100.00\n"),
        (
            json!({"price": plain_price("90.00", "USD")}),
            "NRT | PHX | 2026-04-01 | Y | USD | 1 | 90.00\n",
        ),
        (
            json!({"cabin": "C", "price": plain_price("9000", "JPY")}),
            "NRT | PHX | 2026-04-01 | C | JPY | 1 | 9000\n",
        ),
        (
            json!({"flight_id": "F2"}),
            "PHX | NRT | 2026-03-31 | Y | USD | 1 | 100.00\n",
        ),
        (
            json!({"status": "cancelled", "cancelled_at": "2026-03-05T00:00:00Z"}),
            "",
        ),
        (
            json!({"status": "used"}),
            "NRT | PHX | 2026-04-01 | Y | USD | 1 | 100.00\n",
        ),
        (json!({"flight_id": "F9"}), ""),
    ];
    for (version, (mut change, fares)) in (1..).zip(changes) {
        change["version"] = json!(version);
        applier.apply(&[booking(change)]).await;
        assert_eq!(
            dump(&mut applier.connection, FARES).await,
            fares,
            "version {version}"
        );
        assert_exact(&mut applier.connection).await;
    }
    applier.apply(&[booking_deleted("B1", 8)]).await;
    let demand = "SELECT count(*) FROM flight_demand";
    assert_eq!(dump(&mut applier.connection, demand).await, "0\n");
    assert_exact(&mut applier.connection).await;
}

#[tokio::test]
async fn a_tombstone_keeps_late_versions_out() {
    let database = Database::new().await;
    let mut applier = database.applier().await;
    applier
        .apply(&[flight(json!({})), booking_deleted("B1", 3)])
        .await;
    assert_eq!(
        applier.apply(&[booking(json!({"version": 2}))]).await,
        counts(0, 0, 1, 0, 0)
    );
    assert_eq!(
        dump(&mut applier.connection, MARKETS).await,
        "NRT | PHX | 2026-04-01 | 1 | 0 | 0 | 0\n"
    );
    applier
        .apply(&[booking(json!({"version": 4})), flight_deleted("F1", 3)])
        .await;
    assert_eq!(
        applier.apply(&[flight(json!({"version": 2}))]).await,
        counts(0, 0, 1, 0, 0)
    );
    assert_eq!(dump(&mut applier.connection, MARKETS).await, "");
    // A deleted flight has been seen: its bookings do not wait for it.
    assert_eq!(
        dump(
            &mut applier.connection,
            "SELECT booking_id FROM pending_bookings"
        )
        .await,
        ""
    );
    applier.apply(&[flight(json!({"version": 4}))]).await;
    assert_eq!(
        dump(&mut applier.connection, MARKETS).await,
        "NRT | PHX | 2026-04-01 | 1 | 1 | 1 | 0\n"
    );
    assert_exact(&mut applier.connection).await;
}

#[tokio::test]
async fn a_tombstone_forgets_the_passenger() {
    let database = Database::new().await;
    let mut applier = database.applier().await;
    let passenger =
        json!({"name": "Ada Example", "email": "ada@example.org", "phone": "+441234567"});
    applier
        .apply(&[booking(json!({"passenger": passenger}))])
        .await;
    applier.apply(&[booking_deleted("B1", 2)]).await;
    let row = dump(&mut applier.connection, "SELECT b::text FROM bookings b").await;
    assert!(
        !row.to_lowercase().contains("ada") && !row.contains("441234567"),
        "{row}"
    );
}

#[tokio::test]
async fn a_thousand_versions_of_one_key_in_one_batch() {
    let database = Database::new().await;
    let mut applier = database.applier().await;
    applier.apply(&[flight(json!({}))]).await;
    let price = |version: i64| plain_price(&format!("{version}.00"), "USD");
    // 617 and 1000 have no common divisor: every version once, far from sorted.
    let versions = (0..1000).map(|step| step * 617 % 1000 + 1);
    let batch: Vec<_> = versions
        .map(|version| booking(json!({"version": version, "price": price(version)})))
        .collect();
    assert_eq!(applier.apply(&batch).await, counts(1, 0, 0, 999, 0));
    assert_eq!(
        dump(&mut applier.connection, FARES).await,
        "NRT | PHX | 2026-04-01 | Y | USD | 1 | 1000.00\n"
    );
    assert_exact(&mut applier.connection).await;
}

#[tokio::test]
async fn same_version_same_content_is_a_duplicate() {
    let database = Database::new().await;
    let mut applier = database.applier().await;
    let first = booking(json!({}));
    let mut spelt_otherwise = booking(json!({
        "booked_at": "2026-03-01T14:00:00.000000999+02:00",
        "price": {"currency": "USD", "total": "100", "taxes": "20.0", "base": "80"},
        "seat": null,
        "unknown_field": "ignored",
    }));
    spelt_otherwise["id"] = json!("another-id");
    spelt_otherwise["time"] = json!("2026-03-09T00:00:00Z");
    let batch = [first.clone(), spelt_otherwise.clone(), first.clone()];
    assert_eq!(applier.apply(&batch).await, counts(1, 2, 0, 0, 0));
    let before = table_rows(&mut applier.connection).await;
    assert_eq!(
        applier.apply(&[spelt_otherwise, first]).await,
        counts(0, 2, 0, 0, 0)
    );
    assert_same_rows(&table_rows(&mut applier.connection).await, &before);
}

/// However many come in one batch.
#[tokio::test]
async fn a_conflict_is_one_with_what_is_stored() {
    let database = Database::new().await;
    let mut applier = database.applier().await;
    let state = |version: i64, seat: &str| booking(json!({"version": version, "seat": seat}));
    let applied = applier.apply(&[state(2, "2B")]).await;
    assert_eq!(applied, counts(1, 0, 0, 0, 0));
    for (batch, expected) in [
        (vec![state(2, "2A"), state(2, "2B")], counts(0, 1, 0, 0, 1)),
        (vec![state(2, "2A"), state(2, "2A")], counts(0, 0, 0, 0, 2)),
        (vec![state(1, "1A"), state(1, "1B")], counts(0, 0, 2, 0, 0)),
        (vec![state(2, "2C"), state(3, "3A")], counts(1, 0, 0, 0, 1)),
    ] {
        assert_eq!(applier.apply(&batch).await, expected);
    }
    let set_aside = "SELECT convert_from(body, 'UTF8')::jsonb -> 'data' ->> 'seat', times_received
                     FROM quarantined_events ORDER BY 1";
    let connection = &mut applier.connection;
    assert_eq!(dump(connection, set_aside).await, "2A | 3\n2C | 1\n");
    let stored = "SELECT version, seat FROM bookings";
    assert_eq!(dump(connection, stored).await, "3 | 3A\n");
}

#[tokio::test]
async fn same_version_other_content_is_quarantined() {
    let database = Database::new().await;
    let mut applier = database.applier().await;
    let first = booking(json!({}));
    let other = booking(json!({"seat": "12A"}));
    let tombstone = booking_deleted("B1", 1);
    let batch = [flight(json!({})), first, other.clone()];
    assert_eq!(applier.apply(&batch).await, counts(2, 0, 0, 0, 1));
    assert_eq!(applier.apply(&[tombstone]).await, counts(0, 0, 0, 0, 1));
    assert_eq!(applier.apply(&[other]).await, counts(0, 0, 0, 0, 1));
    let connection = &mut applier.connection;
    assert_eq!(
        dump(connection, QUARANTINE).await,
        "version_conflict | $.data.version | 2 | open\nversion_conflict | $.data.version | 1 | open\n"
    );
    assert_eq!(
        dump(connection, "SELECT seat, deleted_at FROM bookings").await,
        "- | -\n"
    );
    assert_exact(connection).await;
}

#[tokio::test]
async fn an_airport_that_changes_its_time_zone_moves_its_flights() {
    let database = Database::new().await;
    let mut applier = database.applier().await;
    // 03:30 UTC is the evening before in New York, and an hour later there in summer.
    let departs = |version: i64, departure: &str, arrival: &str| {
        flight(json!({
            "version": version, "origin": "JFK", "scheduled_departure": departure, "scheduled_arrival": arrival,
        }))
    };
    let winter = departs(1, "2026-03-08T04:30:00Z", "2026-03-08T10:00:00Z");
    let summer = departs(2, "2026-03-09T03:30:00Z", "2026-03-09T10:00:00Z");
    let midnight = departs(3, "2026-03-09T04:00:00Z", "2026-03-09T10:00:00Z");
    let dates = "SELECT origin, data_date, booking_count, is_estimated FROM market_data";
    applier.apply(&[winter, booking(json!({}))]).await;
    assert_eq!(
        dump(&mut applier.connection, dates).await,
        "JFK | 2026-03-07 | 1 | f\n"
    );
    applier.apply(&[summer]).await;
    assert_eq!(
        dump(&mut applier.connection, dates).await,
        "JFK | 2026-03-08 | 1 | f\n"
    );
    applier.apply(&[midnight]).await;
    let connection = &mut applier.connection;
    assert_eq!(dump(connection, dates).await, "JFK | 2026-03-09 | 1 | f\n");
    let changes = [
        (
            "UPDATE airports SET timezone = 'Pacific/Honolulu' WHERE iata_code = 'JFK'",
            "JFK | 2026-03-08 | 1 | f\n",
        ),
        (
            "UPDATE airports SET timezone = NULL WHERE iata_code = 'JFK'",
            "JFK | 2026-03-09 | 1 | t\n",
        ),
        (
            "UPDATE airports SET timezone = 'America/Phoenix' WHERE iata_code = 'JFK'",
            "JFK | 2026-03-08 | 1 | f\n",
        ),
        (
            "DELETE FROM airports WHERE iata_code = 'JFK'",
            "JFK | 2026-03-09 | 1 | t\n",
        ),
        (
            "INSERT INTO airports (iata_code, name, timezone) VALUES ('JFK', 'K', 'Pacific/Honolulu')",
            "JFK | 2026-03-08 | 1 | f\n",
        ),
        (
            "UPDATE airports SET iata_code = 'ZZZ' WHERE iata_code = 'JFK'",
            "JFK | 2026-03-09 | 1 | t\n",
        ),
    ];
    for (change, expected) in changes {
        execute(connection, change).await;
        assert_eq!(dump(connection, dates).await, expected, "{change}");
        assert_exact(connection).await;
    }
}
