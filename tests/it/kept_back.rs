//! Rows that somebody's trigger keeps back without an error: nothing of their batch counts, and nothing is lost.

use std::ops::Range;

use paxflow::audit;
use paxflow::db::{Fault, fault_of};
use serde_json::{Value, json};

use crate::events::{booking, flight};
use crate::support::{Database, dump, execute};

const KEEP_BACK: &str = "CREATE FUNCTION keep_back() RETURNS trigger LANGUAGE plpgsql
    AS 'BEGIN RETURN NULL; END'";

fn bookings(numbers: Range<u32>, data: Value) -> Vec<Value> {
    let one = |number| {
        let mut data = data.clone();
        data["booking_id"] = json!(format!("B{number}"));
        booking(data)
    };
    numbers.map(one).collect()
}

#[tokio::test]
async fn a_batch_whose_rows_are_kept_back_fails_and_names_the_table() {
    let database = Database::new().await;
    let mut applier = database.applier().await;
    execute(&mut applier.connection, KEEP_BACK).await;
    let cases = [
        ("INSERT", "flights", vec![flight(json!({}))]),
        ("INSERT", "bookings", bookings(0..5, json!({}))),
        // So many are copied.
        ("INSERT", "bookings", bookings(5..155, json!({}))),
        (
            "INSERT",
            "flight_demand",
            bookings(155..156, json!({ "flight_id": "F2" })),
        ),
        ("UPDATE", "flights", vec![flight(json!({ "version": 2 }))]),
        (
            "UPDATE",
            "bookings",
            bookings(0..5, json!({ "version": 2 })),
        ),
        (
            "UPDATE",
            "flight_demand",
            bookings(0..1, json!({ "version": 3, "status": "used" })),
        ),
        (
            "INSERT",
            "quarantined_events",
            bookings(0..1, json!({ "cabin": "Z" })),
        ),
        (
            "UPDATE",
            "quarantined_events",
            bookings(0..1, json!({ "cabin": "Z" })),
        ),
    ];
    let received = "SELECT coalesce(sum(received), 0) FROM worker_progress";
    for (operation, table, events) in cases {
        let case = format!("{operation} {table}, {} events", events.len());
        let before = dump(&mut applier.connection, received).await;
        let trigger = format!(
            "CREATE TRIGGER keep_back BEFORE {operation} ON {table} FOR EACH ROW EXECUTE FUNCTION keep_back()"
        );
        execute(&mut applier.connection, &trigger).await;
        let error = applier.try_apply(&events).await.expect_err(&case);
        assert_eq!(fault_of(&error), Fault::Permanent, "{case}");
        let named = format!("row security on {table}");
        assert!(error.to_string().contains(&named), "{case}: {error}");
        assert_eq!(dump(&mut applier.connection, received).await, before);

        let gone = format!("DROP TRIGGER keep_back ON {table}");
        execute(&mut applier.connection, &gone).await;
        applier.apply(&events).await;
    }
    let report = audit::verify(&mut applier.connection).await.unwrap();
    assert!(report.is_exact(), "{report:?}");
}
