//! Rebuilding beside live traffic: exact, at once, and without a trace of one that was killed.

use serde_json::{Value, json};
use sqlx::postgres::PgConnection;

use crate::events::{booking, booking_deleted, flight};
use crate::process::{Place, Running, generated, place, ran, until};
use crate::support::{Database, WAITING, assert_exact, dump, execute, holding};

/// No real row comes near it.
const PLANTED: &str = "UPDATE flight_demand SET base_revenue = base_revenue + 1000000000";
/// How many rows hold what was planted, of how many.
const DRIFTED: &str =
    "SELECT count(*) FILTER (WHERE base_revenue >= 1000000000), count(*) FROM flight_demand";

async fn rebuild(place: &Place) -> (i32, Value) {
    let (code, out, err) = ran(place.paxflow(&["rebuild", "--json"])).await;
    (
        code,
        serde_json::from_str(&out).unwrap_or_else(|_| panic!("{out}{err}")),
    )
}

/// Starts a rebuild while `holder` keeps it from swapping, and returns once all is built and it waits.
async fn waiting_rebuild(place: &Place, holder: &mut PgConnection) -> Running {
    // In the order of a batch, which the holder may go on as.
    let hold = holding("LOCK TABLE flights, flight_demand IN ROW EXCLUSIVE MODE");
    execute(holder, &hold).await;
    let rebuild = Running::start(place.paxflow(&["rebuild"]));
    let waiting = "SELECT count(*) FROM pg_stat_activity
                   WHERE datname = current_database() AND application_name = 'paxflow rebuild'
                     AND wait_event_type = 'Lock'";
    let mut connection = place.connect().await;
    until("the rebuild waits to swap", async || {
        (dump(&mut connection, waiting).await == "1\n").then_some(())
    })
    .await;
    rebuild
}

#[tokio::test]
async fn rebuild_mends_what_is_missing_surplus_and_wrong_and_nothing_else() {
    let database = Database::new().await;
    let place = place(&database);
    let mut applier = database.applier().await;
    applier
        .apply(&[
            flight(json!({})),
            booking(json!({})),
            booking(json!({ "booking_id": "B2", "cabin": "C", "status": "cancelled", "cancelled_at": "2026-03-02T00:00:00Z" })),
            booking(json!({ "booking_id": "B3", "cabin": "F" })),
            booking(json!({ "booking_id": "B4", "cabin": "W" })),
        ])
        .await;
    let connection = &mut applier.connection;
    let rows = "SELECT *, xmin FROM flight_demand WHERE cabin = 'W'";
    let untouched = dump(connection, rows).await;
    execute(
        connection,
        "UPDATE flight_demand SET total_revenue = total_revenue + 0.01 WHERE cabin = 'Y';
         DELETE FROM flight_demand WHERE cabin = 'C';
         INSERT INTO flight_demand SELECT 'F9', cabin, currency, 1, 1, 0, 0, 0, 5, 5, last_event_at
         FROM flight_demand WHERE cabin = 'F';
         UPDATE flights SET data_date = '2020-02-02'",
    )
    .await;
    let (code, result) = rebuild(&place).await;
    assert_eq!((code, &result["exact"]), (0, &json!(true)), "{result}");
    assert_eq!(result["rebuilt"]["replaced"], 4);
    assert_eq!(result["rebuilt"]["rows"], 4);
    assert_exact(connection).await;
    assert_eq!(dump(connection, rows).await, untouched);
    let recorded = "SELECT drift_count, repaired_count FROM verifications";
    assert_eq!(dump(connection, recorded).await, "0 | 4\n");

    let (code, result) = rebuild(&place).await;
    assert_eq!((code, &result["rebuilt"]["replaced"]), (0, &json!(0)));
}

#[tokio::test]
async fn rebuild_is_exact_while_events_flow_and_loses_none() {
    const EVENTS: i64 = 6000;
    let database = Database::new().await;
    let place = place(&database);
    let events = generated(EVENTS as u64, 21, 0.01);
    place.publish(&events[..2000]).await;
    let worker = place.worker().await;
    place.committed_at_least(2000).await;
    execute(&mut place.connect().await, PLANTED).await;
    let producer = place.producer().await;
    let flowing = async {
        for part in events[2000..].chunks(100) {
            producer.publish(part).await;
        }
    };
    let rebuilding = async {
        let mut caught_up = 0;
        let mut replaced = 0;
        // As often as it takes to have rebuilt while the last events came.
        while place.committed().await.0 < EVENTS {
            let (code, result) = rebuild(&place).await;
            assert_eq!(code, 0, "{result}");
            caught_up += result["rebuilt"]["caught_up"].as_i64().unwrap();
            replaced += result["rebuilt"]["replaced"].as_i64().unwrap();
        }
        (caught_up, replaced)
    };
    let ((), (caught_up, replaced)) = tokio::join!(flowing, rebuilding);
    assert!(
        caught_up > 0 && replaced > 0,
        "{caught_up} caught up, {replaced} replaced"
    );
    place.committed_at_least(EVENTS).await;
    worker.stop().await;
    place.assert_exact().await;
    place.assert_holds(&events).await;
    place.assert_drained().await;
}

#[tokio::test]
async fn a_repair_that_waits_for_somebody_lets_workers_through() {
    let database = Database::new().await;
    let place = place(&database);
    let mut holder = place.connect().await;
    let mut applier = database.applier().await;
    applier
        .apply(&[
            booking(json!({ "booking_id": "B1", "flight_id": "F1" })),
            booking(json!({ "booking_id": "B2", "flight_id": "F2" })),
        ])
        .await;
    execute(
        &mut applier.connection,
        "UPDATE flight_demand SET total_revenue = total_revenue + 1 WHERE flight_id = 'F1'",
    )
    .await;
    let hold =
        holding("UPDATE flight_demand SET last_event_at = last_event_at WHERE flight_id = 'F2'");
    execute(&mut holder, &hold).await;
    let repair = Running::start(place.paxflow(&["verify", "--repair"]));
    until("the repair waits", async || {
        (dump(&mut applier.connection, WAITING).await != "0\n").then_some(())
    })
    .await;
    let worker = place.worker().await;
    place.publish(&generated(100, 22, 0.0)).await;
    place.committed_at_least(2 + 100).await;
    execute(&mut holder, "COMMIT").await;
    let (code, out, err) = repair.ended().await;
    assert!(
        code == 0 && out.contains("rebuilt 1 stored rows"),
        "{out}{err}"
    );
    worker.stop().await;
    place.assert_exact().await;
}

#[tokio::test]
async fn a_reader_sees_the_old_rows_or_the_new_ones() {
    let database = Database::new().await;
    let place = place(&database);
    let mut applier = database.applier().await;
    let events: Vec<_> = (0..2000)
        .map(|n| booking(json!({ "booking_id": format!("B{n}"), "flight_id": format!("F{n}") })))
        .collect();
    applier.apply(&events).await;
    execute(&mut applier.connection, PLANTED).await;
    let mut seen = std::collections::BTreeSet::new();
    let rebuilding = tokio::spawn(ran(place.paxflow(&["rebuild"])));
    while !rebuilding.is_finished() {
        seen.insert(dump(&mut applier.connection, DRIFTED).await);
    }
    let (code, out, _) = rebuilding.await.unwrap();
    seen.insert(dump(&mut applier.connection, DRIFTED).await);
    let seen: Vec<_> = seen.iter().map(String::as_str).collect();
    assert_eq!(seen, ["0 | 2000\n", "2000 | 2000\n"]);
    assert_eq!(code, 0, "{out}");
}

#[tokio::test]
async fn a_row_that_comes_and_goes_after_the_build_is_seen() {
    let database = Database::new().await;
    let place = place(&database);
    let mut applier = database.applier().await;
    applier
        .apply(&[flight(json!({})), booking(json!({}))])
        .await;
    execute(&mut applier.connection, "DELETE FROM flight_demand").await;
    let mut holder = place.connect().await;
    let rebuilding = waiting_rebuild(&place, &mut holder).await;
    // One more for the row that is not there, and one less: it is empty, and not there, as what was built has seen it.
    let price = json!({ "base": "200", "taxes": "50", "total": "250", "currency": "USD" });
    let other = booking(json!({ "booking_id": "B2", "price": price }));
    applier.apply(&[other]).await;
    applier.apply(&[booking_deleted("B1", 2)]).await;
    let rows = "SELECT count(*) FROM flight_demand";
    assert_eq!(dump(&mut applier.connection, rows).await, "0\n");
    execute(&mut holder, "COMMIT").await;
    let (code, out, err) = rebuilding.ended().await;
    assert_eq!(code, 0, "{out}{err}");
    assert_exact(&mut applier.connection).await;
}

#[tokio::test]
async fn a_change_that_hides_a_drift_after_the_build_is_seen() {
    let database = Database::new().await;
    let place = place(&database);
    let mut applier = database.applier().await;
    let two = [booking(json!({})), booking(json!({ "booking_id": "B2" }))];
    applier.apply(&[flight(json!({}))]).await;
    applier.apply(&two).await;
    // As if there were a third one, of the same price.
    execute(
        &mut applier.connection,
        "UPDATE flight_demand SET gross_booking_count = 3, booking_count = 3, total_revenue = 300, base_revenue = 240",
    )
    .await;
    let rebuilding = waiting_rebuild(&place, &mut applier.connection).await;
    // What was built says two, and so does the row after this batch: but one is left. Its commit ends the wait.
    applier.apply(&[booking_deleted("B2", 2)]).await;
    let counted = dump(
        &mut applier.connection,
        "SELECT booking_count FROM flight_demand",
    )
    .await;
    assert!(counted == "2\n" || counted == "1\n", "{counted}");
    let (code, out, err) = rebuilding.ended().await;
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("1 rows differed"), "{out}");
    assert_exact(&mut applier.connection).await;
    let counted = dump(
        &mut applier.connection,
        "SELECT booking_count FROM flight_demand",
    )
    .await;
    assert_eq!(counted, "1\n");
}

#[tokio::test]
async fn a_killed_rebuild_leaves_everything_as_it_was_and_the_next_one_succeeds() {
    let database = Database::new().await;
    let place = place(&database);
    let mut applier = database.applier().await;
    applier
        .apply(&[flight(json!({})), booking(json!({}))])
        .await;
    execute(&mut applier.connection, PLANTED).await;
    let relations = "SELECT oid, relname FROM pg_class ORDER BY oid";
    let before = dump(&mut applier.connection, relations).await;

    let mut holder = place.connect().await;
    let killed = waiting_rebuild(&place, &mut holder).await;
    assert_ne!(dump(&mut applier.connection, relations).await, before);
    killed.kill().await;
    execute(&mut holder, "COMMIT").await;
    let sessions = "SELECT count(*) FROM pg_stat_activity
                    WHERE datname = current_database() AND application_name = 'paxflow rebuild'";
    until("its session is gone", async || {
        (dump(&mut holder, sessions).await == "0\n").then_some(())
    })
    .await;
    let tables = "SELECT count(*) FROM pg_class WHERE relname LIKE 'flight_demand_next%'";
    assert_eq!(dump(&mut applier.connection, tables).await, "0\n");
    assert_eq!(dump(&mut applier.connection, DRIFTED).await, "1 | 1\n");
    let (code, result) = rebuild(&place).await;
    assert_eq!((code, &result["rebuilt"]["replaced"]), (0, &json!(1)));
    assert_exact(&mut applier.connection).await;
}

#[tokio::test]
async fn a_table_that_does_not_take_what_was_built_is_left_as_it_was() {
    let database = Database::new().await;
    let place = place(&database);
    let mut applier = database.applier().await;
    applier
        .apply(&[flight(json!({})), booking(json!({}))])
        .await;
    execute(&mut applier.connection, PLANTED).await;
    execute(
        &mut applier.connection,
        "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
         CREATE TRIGGER keep BEFORE UPDATE ON flight_demand FOR EACH ROW EXECUTE FUNCTION keep()",
    )
    .await;
    let (code, _, err) = ran(place.paxflow(&["rebuild"])).await;
    assert!(
        code == 1 && err.contains("1 rows of flight_demand do not take"),
        "{err}"
    );
    assert_eq!(dump(&mut applier.connection, DRIFTED).await, "1 | 1\n");
}
