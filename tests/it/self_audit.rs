//! MarketData verified while events flow, by hand and by the workers themselves, and what they do beside it.

use std::time::{Duration, Instant};

use paxflow::audit::{self, Difference, Problem};
use paxflow::db::{Fault, fault_of};
use serde_json::{Value, json};
use sqlx::Connection as _;
use sqlx::postgres::PgConnection;
use tokio::process::Command;

use crate::canary;
use crate::events::{booking, flight};
use crate::process::{Place, Worker, generated, place, ran, until};
use crate::support::{Database, WAITING, dump, execute, holding};

const VERIFIED_THROUGH: &str = "paxflow_verified_through_timestamp_seconds";
const DRIFT: &str = "paxflow_drift_rows";
/// `audit::background` holds it while it verifies.
const LOCK: &str = "SELECT pg_advisory_xact_lock(x'7061786661756474'::bigint)";

async fn worker(place: &Place, settings: &[(&str, &str)]) -> Worker {
    let mut command = place.paxflow(&["run"]);
    command.envs(settings.iter().copied());
    let worker = Worker::start(command).await;
    worker.ready().await;
    worker
}

/// Waits until a worker reports this many differing rows, and returns through when all was exact.
async fn reports(worker: &Worker, what: &str, drift: impl Fn(f64) -> bool) -> f64 {
    until(what, async || {
        let (_, metrics) = worker.get("/metrics").await;
        let known = metrics.contains(&format!("\n{DRIFT} "));
        (known && drift(worker.metric(DRIFT).await)).then_some(())
    })
    .await;
    worker.metric(VERIFIED_THROUGH).await
}

#[tokio::test]
async fn workers_audit_themselves_and_every_one_reports_the_drift() {
    let database = Database::new().await;
    let place = place(&database);
    place.publish(&generated(300, 31, 0.0)).await;
    let every = [("PAXFLOW_VERIFY_EVERY_SECS", "1")];
    let (one, two) = tokio::join!(worker(&place, &every), worker(&place, &every));
    place.committed_at_least(300).await;
    for worker in [&one, &two] {
        let through = reports(worker, "it is exact", |rows| rows == 0.0).await;
        assert!(
            (through - chrono::Utc::now().timestamp() as f64).abs() < 60.0,
            "{through}"
        );
    }
    let (_, metrics) = one.get("/metrics").await;
    for name in [VERIFIED_THROUGH, DRIFT] {
        assert!(metrics.contains(&format!("# HELP {name} ")), "{metrics}");
    }

    let mut connection = place.connect().await;
    let plant = "UPDATE flight_demand SET total_revenue = total_revenue + 0.01
                 WHERE (flight_id, cabin, currency) = (SELECT flight_id, cabin, currency FROM flight_demand LIMIT 1)";
    execute(&mut connection, plant).await;
    let mut through = Vec::new();
    for worker in [&one, &two] {
        through.push(reports(worker, "the drift is seen", |rows| rows > 0.0).await);
    }
    let (code, out, _) = ran(place.paxflow(&["verify", "--repair"])).await;
    assert_eq!(code, 0, "{out}");
    for (worker, before) in [&one, &two].into_iter().zip(through) {
        // It stood still while there was drift, and goes on now.
        let after = reports(worker, "it is exact again", |rows| rows == 0.0).await;
        assert!(after > before, "{before}, then {after}");
    }
    let drifting = "SELECT count(*) FROM verifications v WHERE drift_count > 0";
    assert_ne!(dump(&mut connection, drifting).await, "0\n");
    let (first, second) = (one.stop().await, two.stop().await);
    let said = "DRIFT in MarketData";
    assert!(
        first.contains(said) || second.contains(said),
        "{first}{second}"
    );
}

#[tokio::test]
async fn workers_share_one_schedule_and_never_audit_at_once() {
    let database = Database::new().await;
    let place = place(&database);
    let every = [("PAXFLOW_VERIFY_EVERY_SECS", "2")];
    let (one, two, three) = tokio::join!(
        worker(&place, &every),
        worker(&place, &every),
        worker(&place, &every)
    );
    let mut connection = place.connect().await;
    let verifications = "SELECT count(*) FROM verifications";
    until("some verifications", async || {
        (place.number(verifications).await >= 4).then_some(())
    })
    .await;
    let too_soon = "SELECT count(*) FROM verifications one, verifications next
                    WHERE next.id = one.id + 1 AND next.started_at < one.finished_at + interval '2 s'";
    assert_eq!(place.number(too_soon).await, 0);

    // Whoever holds the lock is verifying.
    let mut holder = connection.begin().await.unwrap();
    execute(&mut holder, LOCK).await;
    let before = place.number(verifications).await;
    let tried = "SELECT count(*) FROM pg_stat_activity
                 WHERE datname = current_database() AND application_name = 'paxflow upkeep'
                   AND xact_start IS NULL AND state_change > now() - interval '1 s'";
    let held = Instant::now();
    until("all have looked and found it taken", async || {
        (held.elapsed() > Duration::from_secs(5) && place.number(tried).await > 0).then_some(())
    })
    .await;
    assert_eq!(place.number(verifications).await, before);
    holder.rollback().await.unwrap();
    until("they go on", async || {
        (place.number(verifications).await > before).then_some(())
    })
    .await;
    tokio::join!(one.stop(), two.stop(), three.stop());
}

#[tokio::test]
async fn an_upkeep_that_fails_again_and_again_says_so_once() {
    let database = Database::new().await;
    let place = place(&database);
    let worker = worker(&place, &[("PAXFLOW_VERIFY_EVERY_SECS", "1")]).await;
    reports(&worker, "it is exact", |rows| rows == 0.0).await;
    let mut connection = place.connect().await;
    let failed = "SELECT xact_rollback FROM pg_stat_database WHERE datname = current_database()";
    let before = place.number(failed).await;
    execute(&mut connection, "ALTER TABLE verifications RENAME TO away").await;
    until("it has failed again", async || {
        (place.number(failed).await >= before + 3).then_some(())
    })
    .await;
    execute(&mut connection, "ALTER TABLE away RENAME TO verifications").await;
    let verifications = "SELECT count(*) FROM verifications";
    let before = place.number(verifications).await;
    until("it goes on", async || {
        (place.number(verifications).await > before).then_some(())
    })
    .await;
    let said = worker.stop().await;
    assert_eq!(said.matches("the upkeep failed").count(), 1, "{said}");
}

/// As of one that goes to a standby, while batches go on.
#[tokio::test]
async fn a_verification_that_cannot_be_noted_is_told() {
    let database = Database::new().await;
    let place = place(&database);
    let read_only = format!(
        "{}?options=-cdefault_transaction_read_only%3Don",
        place.database_url
    );
    let settings = [
        ("PAXFLOW_VERIFY_EVERY_SECS", "3"),
        ("DATABASE_DIRECT_URL", read_only.as_str()),
    ];
    let worker = worker(&place, &settings).await;
    let failed = "the background verification failed";
    until("it says so", async || {
        worker.log().contains(failed).then_some(())
    })
    .await;
    worker.stop().await;
}

#[tokio::test]
async fn verify_says_that_it_does_not_list_all() {
    let database = Database::new().await;
    let place = place(&database);
    let mut applier = database.applier().await;
    let bookings: Vec<_> = (0..1010)
        .map(|n| booking(json!({ "booking_id": format!("B{n}"), "flight_id": format!("F{n}") })))
        .collect();
    applier.apply(&bookings).await;
    let drift = "UPDATE flight_demand SET total_revenue = 0";
    execute(&mut applier.connection, drift).await;
    let (code, out, _) = ran(place.paxflow(&["verify"])).await;
    assert_eq!((code, out.lines().count()), (1, 1002));
    assert!(
        out.contains("\nand 10 rows more: --repair rebuilds them all\nDRIFT: 1010 of "),
        "{out}"
    );
}

#[tokio::test]
async fn an_audit_that_is_switched_off_does_nothing() {
    let database = Database::new().await;
    let place = place(&database);
    let off = worker(&place, &[("PAXFLOW_VERIFY_EVERY_SECS", "0")]).await;
    let on = worker(&place, &[("PAXFLOW_VERIFY_EVERY_SECS", "1")]).await;
    reports(&on, "the other one audits", |rows| rows == 0.0).await;
    on.stop().await;
    let verifications = "SELECT count(*) FROM verifications";
    let before = place.number(verifications).await;
    // It reports what others find all the same.
    reports(&off, "the result of the other one", |rows| rows == 0.0).await;
    // Older than any schedule allows: whoever audits would do so at the next look, which has ended once there is another.
    let looked = async |drift: f64| {
        until("it has looked, or audited", async || {
            let looked = off.metric(DRIFT).await == drift;
            (looked || place.number(verifications).await != before).then_some(())
        })
        .await;
    };
    let mut connection = place.connect().await;
    let old =
        "UPDATE verifications SET drift_count = 7, started_at = started_at - interval '8 days',
                                        finished_at = finished_at - interval '8 days'";
    execute(&mut connection, old).await;
    looked(7.0).await;
    execute(&mut connection, "UPDATE verifications SET drift_count = 8").await;
    looked(8.0).await;
    assert_eq!(place.number(verifications).await, before);
    off.stop().await;
}

#[tokio::test]
async fn settled_events_are_forgotten_after_their_time_and_open_ones_never() {
    let database = Database::new().await;
    let place = place(&database);
    let mut applier = database.applier().await;
    let bad: Vec<_> = (0..6)
        .map(|n| booking(json!({ "booking_id": format!("B{n}"), "cabin": "Z" })))
        .collect();
    applier.apply(&bad).await;
    applier.apply(&[flight(json!({}))]).await;
    execute(
        &mut applier.connection,
        "UPDATE quarantined_events SET state = 'replayed' WHERE id IN (1, 2);
         UPDATE quarantined_events SET state = 'discarded' WHERE id IN (3, 4);
         UPDATE quarantined_events SET state_changed_at = now() - interval '8 days', first_received_at = '2020-01-01',
                last_received_at = '2020-01-01' WHERE id IN (1, 3, 5);
         UPDATE quarantined_events SET state_changed_at = now() - interval '6 days' WHERE id IN (2, 4, 6)",
    )
    .await;
    let settings = [
        ("PAXFLOW_QUARANTINE_DAYS", "7"),
        ("PAXFLOW_VERIFY_EVERY_SECS", "1"),
    ];
    let worker = worker(&place, &settings).await;
    let left = "SELECT string_agg(id::text, ' ' ORDER BY id) FROM quarantined_events";
    until("what is settled for long is gone", async || {
        (dump(&mut applier.connection, left).await == "2 4 5 6\n").then_some(())
    })
    .await;
    worker.stop().await;
    assert_eq!(dump(&mut applier.connection, left).await, "2 4 5 6\n");
}

/// Bookings of ten markets, a hundred on each flight, with what they add up to.
async fn many_bookings(connection: &mut PgConnection, bookings: u64) {
    execute(connection, "SET synchronous_commit = off").await;
    let flights = format!(
        "INSERT INTO flights (flight_id, version, content_hash, airline, flight_number, origin, destination,
                              scheduled_departure, scheduled_arrival, status, capacity_total,
                              data_date, time_zone_known, source, last_event_at)
         SELECT 'M' || n, 1, '\\x00', 'PX', '1', 'NRT', (ARRAY['PHX', 'LAX', 'JFK', 'SFO', 'SEA'])[1 + n % 5],
                departure, departure + interval '9 hours', 'scheduled', 150,
                local_date(departure, 'Asia/Tokyo'), true, '/tests', '2026-01-01Z'
         FROM generate_series(0, {bookings} / 100) n,
              LATERAL (SELECT timestamptz '2026-01-01Z' + n % 365 * interval '1 day' AS departure) d"
    );
    let rows = format!(
        "INSERT INTO bookings (booking_id, version, content_hash, reference, flight_id, booked_at, cabin,
                               booking_class, price_base, price_taxes, price_total, currency, payment_status,
                               status, cancelled_at, source, last_event_at)
         SELECT 'M' || n, 1, '\\x00', 'ABCDEF', 'M' || n / 100, '2025-12-01Z', (ARRAY['Y', 'Y', 'W', 'C'])[1 + n % 4], 'Y',
                n % 997 + 0.25, 0.50, n % 997 + 0.75, (ARRAY['USD', 'EUR'])[1 + n % 2], 'paid',
                CASE WHEN n % 10 = 0 THEN 'cancelled' ELSE 'confirmed' END,
                CASE WHEN n % 10 = 0 THEN timestamptz '2025-12-05Z' END, '/tests', '2026-01-01Z'
         FROM generate_series(1, {bookings}) n"
    );
    for statement in [flights.as_str(), &rows, "ANALYZE"] {
        execute(connection, statement).await;
    }
    // Sums all of it up.
    audit::repair(connection).await.unwrap();
    execute(connection, "ANALYZE").await;
}

/// Runs a command that may take long on as many bookings as were asked for.
async fn patiently(mut command: Command) -> (i32, Value) {
    let ended = tokio::time::timeout(Duration::from_secs(600), command.output()).await;
    let output = ended.expect("the command ends").unwrap();
    canary::assert_output_silent(&command, &output);
    let report = serde_json::from_slice(&output.stdout);
    (
        output.status.code().unwrap(),
        report.unwrap_or_else(|_| panic!("{output:?}")),
    )
}

#[tokio::test]
async fn verify_finds_one_cent_among_many_bookings_while_events_flow() {
    let bookings = std::env::var("PAXFLOW_TEST_BOOKINGS").map_or(100_000, |n| n.parse().unwrap());
    let database = Database::new().await;
    let place = place(&database);
    let mut connection = place.connect().await;
    many_bookings(&mut connection, bookings).await;
    let plant = "UPDATE flight_demand SET total_revenue = total_revenue + 0.01
                 WHERE (flight_id, cabin, currency) = ('M777', 'W', 'USD')";
    execute(&mut connection, plant).await;
    let mut applier = database.applier().await;

    // Batches on the very flight that is wrong, for as long as it takes to verify.
    let started = Instant::now();
    let verifying = tokio::spawn(patiently(place.paxflow(&["verify", "--json"])));
    let (mut version, mut slowest) = (0, Duration::ZERO);
    while !verifying.is_finished() {
        version += 1;
        let begun = Instant::now();
        let events = [
            booking(json!({ "booking_id": "live", "flight_id": "M777", "version": version })),
            booking(
                json!({ "booking_id": format!("L{version}"), "flight_id": "M777", "cabin": "W" }),
            ),
        ];
        applier.apply(&events).await;
        slowest = slowest.max(begun.elapsed());
    }
    let (code, report) = verifying.await.unwrap();
    println!(
        "{bookings} bookings verified in {:?} beside {version} batches of {slowest:?} at most",
        started.elapsed()
    );
    assert!(version > 3, "no batch could commit meanwhile");
    assert_eq!((code, &report["exact"]), (1, &json!(false)));
    let cells: Vec<_> = report["differences"]
        .as_array()
        .unwrap()
        .iter()
        .map(|cell| format!("{} {} {}", cell["relation"], cell["key"], cell["column"]))
        .collect();
    let market = r#"["NRT","JFK","2026-02-17","W","USD"]"#;
    let expected = [
        format!(r#""market_fares" {market} "total_revenue""#),
        format!(r#""market_fares" {market} "average_price""#),
        r#""flight_demand" ["M777","W","USD"] "total_revenue""#.to_owned(),
    ];
    assert_eq!(cells.len(), 3, "{cells:#?}");
    for cell in expected {
        assert!(cells.contains(&cell), "{cell} is not among {cells:#?}");
    }

    let (code, report) = patiently(place.paxflow(&["verify", "--repair", "--json"])).await;
    assert_eq!((code, &report["repaired"]), (0, &json!(1)), "{report}");

    execute(&mut connection, plant).await;
    let (code, result) = patiently(place.paxflow(&["rebuild", "--json"])).await;
    assert_eq!((code, &result["rebuilt"]["replaced"]), (0, &json!(1)));
    println!("rebuilt: {}", result["rebuilt"]);
}

/// A drift that comes after the first statement of a look, and before the last.
async fn drift_meanwhile<T>(database: &Database, look: impl Future<Output = T>) -> T {
    let mut other = database.connect().await;
    let lock = holding("LOCK TABLE flight_demand IN ACCESS EXCLUSIVE MODE");
    execute(&mut other, &lock).await;
    let drift = async {
        until("the look waits", async || {
            (dump(&mut other, WAITING).await == "1\n").then_some(())
        })
        .await;
        let drift = "UPDATE flight_demand SET total_revenue = total_revenue + 0.01; COMMIT";
        execute(&mut other, drift).await;
    };
    tokio::join!(look, drift).0
}

async fn with_a_booking() -> Database {
    let database = Database::new().await;
    let mut applier = database.applier().await;
    let events = [flight(json!({})), booking(json!({}))];
    applier.apply(&events).await;
    database
}

#[tokio::test]
async fn a_verification_speaks_of_one_moment() {
    let database = with_a_booking().await;
    let mut connection = database.connect().await;
    let report = drift_meanwhile(&database, audit::verify(&mut connection)).await;
    let report = report.unwrap();
    assert!(report.is_exact(), "{:?}", report.differences);
    let report = audit::verify(&mut connection).await.unwrap();
    assert!(!report.is_exact(), "what came later is seen by the next");
}

/// In what is stored of a flight that is not known, which no view shows.
#[tokio::test]
async fn a_verification_finds_a_row_that_is_missing_and_one_too_many() {
    let database = Database::new().await;
    let mut applier = database.applier().await;
    applier.apply(&[booking(json!({}))]).await;
    let mut connection = database.connect().await;
    let copied = "CREATE TEMPORARY TABLE copied AS SELECT * FROM flight_demand; UPDATE copied SET cabin = 'F'";
    execute(&mut connection, copied).await;
    for (drift, problem, cabin) in [
        (
            "INSERT INTO flight_demand SELECT * FROM copied",
            Problem::Surplus,
            "F",
        ),
        (
            "DELETE FROM flight_demand WHERE cabin = 'Y'",
            Problem::Missing,
            "Y",
        ),
    ] {
        assert!(audit::verify(&mut connection).await.unwrap().is_exact());
        execute(&mut connection, drift).await;
        let report = audit::verify(&mut connection).await.unwrap();
        let key = ["F1", cabin, "USD"].map(str::to_owned).to_vec();
        let relation = "flight_demand";
        let expected = Difference {
            relation,
            key,
            problem,
        };
        assert_eq!(
            (report.rows_different, report.differences),
            (1, vec![expected])
        );
        audit::repair(&mut connection).await.unwrap();
    }
}

#[tokio::test]
async fn a_self_audit_speaks_of_one_moment() {
    let database = with_a_booking().await;
    let mut connection = database.connect().await;
    let audited = audit::verify_unless_recent(&mut connection, Duration::ZERO);
    let report = drift_meanwhile(&database, audited).await.unwrap();
    let first = report.expect("nobody else is at it");
    assert!(first.is_exact(), "{:?}", first.differences);
    let next = audit::verify_unless_recent(&mut connection, Duration::ZERO)
        .await
        .unwrap();
    let next = next.expect("nobody else is at it");
    assert!(!next.is_exact(), "what came later is seen by the next");
    let newest = audit::newest(&mut connection).await.unwrap().unwrap();
    assert_eq!(newest.verified_through, Some(first.snapshot_at));
}

/// An audit whose snapshot is taken while another one is at it, and whose turn comes after that one's end.
#[tokio::test]
async fn an_audit_that_began_before_another_ended_does_not_follow_it() {
    let database = with_a_booking().await;
    let mut connection = database.connect().await;
    let mut other = database.connect().await;
    let hour = Duration::from_secs(3600);
    let lock = holding(
        "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE; SELECT count(*) FROM verifications;
         LOCK TABLE verifications IN ACCESS EXCLUSIVE MODE",
    );
    execute(&mut other, &lock).await;
    let ended = async {
        until("the late one waits", async || {
            (dump(&mut other, WAITING).await == "1\n").then_some(())
        })
        .await;
        let end = "INSERT INTO verifications (started_at, finished_at, row_count, drift_count, repaired_count)
                   VALUES (now(), clock_timestamp(), 1, 0, 0); COMMIT";
        execute(&mut other, end).await;
    };
    let (late, ()) = tokio::join!(audit::verify_unless_recent(&mut connection, hour), ended);
    let error = late.expect_err("it has not seen the one that ended, and must not commit");
    assert_eq!(fault_of(&error), Fault::Transient, "{error}");
    let next = audit::verify_unless_recent(&mut connection, hour)
        .await
        .unwrap();
    assert!(next.is_none(), "{next:?}");
}

#[tokio::test]
async fn a_long_verification_that_began_before_others_does_not_take_them_back() {
    let database = Database::new().await;
    let mut connection = database.connect().await;
    let ended = "INSERT INTO verifications (started_at, finished_at, row_count, drift_count, repaired_count) VALUES
        ('2026-01-01 10:00+00', '2026-01-01 10:01+00', 1, 0, 0),
        ('2026-01-01 11:00+00', '2026-01-01 11:01+00', 1, 0, 0)";
    execute(&mut connection, ended).await;
    let newest = audit::newest(&mut connection).await.unwrap().unwrap();
    let long = "INSERT INTO verifications (started_at, finished_at, row_count, drift_count, repaired_count)
        VALUES ('2026-01-01 09:00+00', '2026-01-01 11:30+00', 1, 0, 0), ('2026-01-01 09:30+00', '2026-01-01 11:31+00', 1, 7, 0)";
    execute(&mut connection, long).await;
    let after = audit::newest(&mut connection).await.unwrap().unwrap();
    assert_eq!(
        (after.verified_through, after.drift_count),
        (newest.verified_through, 0)
    );
}

/// Flights and bookings of which the database has no statistics, and so many pages of them that comparing each with each
/// seems as good as anything.
const MANY_AT_ONCE: &str = "
    ALTER TABLE flights SET (autovacuum_enabled = off);
    ALTER TABLE bookings SET (autovacuum_enabled = off);
    ALTER TABLE flight_demand SET (autovacuum_enabled = off);
    INSERT INTO flights (flight_id, version, content_hash, airline, flight_number, origin, destination,
        scheduled_departure, scheduled_arrival, status, data_date, time_zone_known, source, last_event_at)
    SELECT 'F' || n, 1, '', 'XX', '1', 'NRT', 'PHX', at, at + interval '9 hours', 'scheduled',
        local_date(at, 'Asia/Tokyo'), true, 'test', now()
    FROM generate_series(1, 50000) n, LATERAL (SELECT timestamptz '2026-04-01 00:00:00+00' + n * interval '1 hour') t (at);
    INSERT INTO bookings (booking_id, version, content_hash, reference, flight_id, booked_at, cabin, booking_class,
        price_base, price_taxes, price_total, currency, payment_status, status, source, last_event_at, fare_basis)
    SELECT 'B' || n, 1, '', 'AAAAAA', 'F' || n, '2026-03-01 00:00:00+00', 'Y', 'Y',
        100.00, 20.00, 120.00, 'USD', 'paid', 'confirmed', 'test', now(), repeat('x', 1600)
    FROM generate_series(1, 40000) n";

#[tokio::test]
async fn verify_needs_no_statistics_of_the_tables() {
    let database = Database::new().await;
    let mut connection = database.connect().await;
    execute(&mut connection, MANY_AT_ONCE).await;
    audit::repair(&mut connection).await.unwrap();
    // Each booking compared with each flight takes minutes; a look at each of them, a second.
    execute(&mut connection, "SET statement_timeout = '20s'").await;
    let report = audit::verify(&mut connection).await.unwrap();
    assert!(report.is_exact() && report.rows > 40_000, "{report:?}");
    let analysed =
        "SELECT count(*) FROM pg_stats WHERE tablename IN ('flights', 'bookings', 'flight_demand')";
    assert_eq!(dump(&mut connection, analysed).await, "0\n");
}
