//! Each relation of MarketData against an example worked out by hand.

use serde_json::{Value, json};

use crate::events::{booking, booking_deleted, flight, flight_deleted, plain_price, price};
use crate::model::QUERIES;
use crate::support::{Applier, Database, assert_exact, drift, dump, execute};

/// A booking of flight F1, named by its number.
fn passenger(number: usize, data: Value) -> Value {
    let mut event = booking(data);
    event["data"]["booking_id"] = json!(format!("B{number}"));
    event["id"] = json!(format!("B{number}"));
    event
}

/// Applies events in one batch and returns the lines of a query.
async fn after(database: &Database, events: &[Value], query: &str) -> String {
    let mut applier = database.applier().await;
    let counts = applier.apply(events).await;
    assert_eq!(counts.applied, events.len() as u64, "{counts:?}");
    let Applier { connection, .. } = &mut applier;
    assert_exact(connection).await;
    dump(connection, query).await
}

#[tokio::test]
async fn market_data_counts_flights_seats_and_bookings() {
    let database = Database::new().await;
    let events = [
        // F1 is overbooked; its missing seat is not taken from F2.
        flight(json!({"flight_id": "F1", "capacity": {"total": 2}})),
        passenger(1, json!({})),
        passenger(2, json!({"status": "used"})),
        passenger(3, json!({"status": "no_show"})),
        flight(json!({"flight_id": "F2", "capacity": {"total": 10}})),
        passenger(4, json!({"flight_id": "F2"})),
        passenger(
            5,
            json!({"flight_id": "F2", "status": "cancelled", "cancelled_at": "2026-03-02T00:00:00Z"}),
        ),
        passenger(6, json!({"flight_id": "F2"})),
        booking_deleted("B7", 1),
        // Unknown capacity.
        flight(json!({"flight_id": "F3", "origin": "KWI", "destination": "HNL", "capacity": null})),
        passenger(8, json!({"flight_id": "F3"})),
        // All flights of the market are cancelled.
        flight(
            json!({"flight_id": "F4", "origin": "PHX", "destination": "HNL", "status": "cancelled"}),
        ),
        passenger(9, json!({"flight_id": "F4"})),
        // An airport that nobody knows.
        flight(
            json!({"flight_id": "F5", "origin": "ZZZ", "destination": "NRT", "capacity": {"total": 1}}),
        ),
        flight_deleted("F6", 1),
    ];
    assert_eq!(
        after(&database, &events, QUERIES[0]).await,
        "KWI | HNL | 2026-04-01 | 1 | 0 | - | 1 | 1 | 0 | 0 | 0 | - | 0 | - | t\n\
         NRT | PHX | 2026-04-01 | 2 | 0 | 12 | 5 | 6 | 1 | 1 | 1 | 8 | 1 | 0.4167 | f\n\
         PHX | HNL | 2026-03-31 | 0 | 1 | 0 | 0 | 0 | 0 | 0 | 0 | 0 | 0 | - | f\n\
         ZZZ | NRT | 2026-04-01 | 1 | 0 | 1 | 0 | 0 | 0 | 0 | 0 | 1 | 0 | 0.0000 | t\n"
    );
}

#[tokio::test]
async fn a_cancelled_flight_beside_an_operating_one_hides_no_seats() {
    let database = Database::new().await;
    let events = [
        flight(json!({"flight_id": "F1", "capacity": {"total": 4}})),
        flight(json!({"flight_id": "F2", "capacity": null, "status": "cancelled"})),
        passenger(1, json!({})),
        passenger(2, json!({"flight_id": "F2"})),
    ];
    assert_eq!(
        after(&database, &events, QUERIES[0]).await,
        "NRT | PHX | 2026-04-01 | 1 | 1 | 4 | 1 | 1 | 0 | 0 | 0 | 3 | 0 | 0.2500 | f\n"
    );
}

#[tokio::test]
async fn load_factor_may_exceed_one_and_ends_where_its_column_ends() {
    let database = Database::new().await;
    let mut events = vec![flight(json!({"capacity": {"total": 1}}))];
    events.extend((0..2).map(|number| passenger(number, json!({}))));
    let load_factor =
        "SELECT booking_count, load_factor, available_seats, closed_flight_count FROM market_data";
    assert_eq!(
        after(&database, &events, load_factor).await,
        "2 | 2.0000 | 0 | 1\n"
    );
    let more: Vec<_> = (2..100)
        .map(|number| passenger(number, json!({})))
        .collect();
    assert_eq!(
        after(&database, &more, load_factor).await,
        "100 | 99.9999 | 0 | 1\n"
    );
}

#[tokio::test]
async fn market_fares_never_add_across_currencies() {
    let database = Database::new().await;
    let kuwaiti = json!({"cabin": "C", "price": price("10.125", "0.5", "10.625", "KWD")});
    let cancelled = json!({
        "price": plain_price("5.00", "USD"), "status": "cancelled", "cancelled_at": "2026-03-02T00:00:00Z",
    });
    let events = [
        flight(json!({})),
        flight(json!({"flight_id": "F2"})),
        passenger(1, json!({})),
        passenger(2, json!({"price": price("30.00", "10.05", "40.05", "USD")})),
        passenger(
            3,
            json!({"flight_id": "F2", "price": plain_price("10", "USD")}),
        ),
        passenger(4, json!({"price": plain_price("12000", "JPY")})),
        passenger(5, kuwaiti),
        passenger(6, cancelled),
    ];
    let market = "NRT | PHX | 2026-04-01";
    let expected = [
        "C | KWD | 1 | 10.625 | 10.125 | 10.625000 | 10.625 | 10.625 | 10.125000",
        "Y | JPY | 1 | 12000.000 | 12000.000 | 12000.000000 | 12000.000 | 12000.000 | 12000.000000",
        "Y | USD | 3 | 150.050 | 120.000 | 50.016667 | 10.000 | 100.000 | 40.000000",
    ];
    assert_eq!(
        after(&database, &events, QUERIES[1]).await,
        expected.map(|line| format!("{market} | {line}\n")).concat()
    );
}

#[tokio::test]
async fn fares_are_looked_up_once_and_only_for_who_reads_them() {
    let database = Database::new().await;
    let mut connection = database.connect().await;
    for (columns, looks) in [
        (
            "booking_count, total_revenue, base_revenue, average_price, average_base_fare",
            0,
        ),
        ("min_price", 1),
        ("*", 1),
    ] {
        let plan = format!("EXPLAIN SELECT {columns} FROM market_fares");
        let plan = dump(&mut connection, &plan).await;
        assert!(plan.contains("flight_demand"), "{plan}");
        assert_eq!(
            plan.matches(" on bookings ").count(),
            looks,
            "{columns}: {plan}"
        );
    }
}

#[tokio::test]
async fn market_activity_is_by_utc_day() {
    let database = Database::new().await;
    let events = [
        flight(json!({})),
        passenger(1, json!({"booked_at": "2026-03-01T23:30:00-02:00"})),
        passenger(
            2,
            json!({"booked_at": "2026-03-02T00:00:00Z", "price": plain_price("50.00", "USD")}),
        ),
        passenger(
            3,
            json!({
                "booked_at": "2026-03-02T10:00:00Z", "status": "cancelled", "cancelled_at": "2026-03-02T11:00:00Z",
            }),
        ),
        passenger(
            4,
            json!({
                "booked_at": "2026-03-01T10:00:00Z", "status": "cancelled", "cancelled_at": "2026-03-05T00:30:00+01:00",
            }),
        ),
    ];
    let market = "NRT | PHX | 2026-04-01";
    let expected = [
        "2026-03-01 | Y | USD | 1 | 0 | 100.000 | 0.000",
        "2026-03-02 | Y | USD | 3 | 1 | 250.000 | 100.000",
        "2026-03-04 | Y | USD | 0 | 1 | 0.000 | 100.000",
    ];
    assert_eq!(
        after(&database, &events, QUERIES[2]).await,
        expected.map(|line| format!("{market} | {line}\n")).concat()
    );
}

#[tokio::test]
async fn market_data_history_looks_back_over_days_without_activity() {
    let database = Database::new().await;
    let booked = |day: &str, total: &str, currency: &str| json!({"booked_at": format!("{day}T12:00:00Z"), "price": plain_price(total, currency)});
    let cancelled = |mut booking: Value, day: &str| {
        booking["status"] = json!("cancelled");
        booking["cancelled_at"] = json!(format!("{day}T12:00:00Z"));
        booking
    };
    let events = [
        flight(json!({})),
        passenger(1, booked("2026-03-01", "100.00", "USD")),
        passenger(2, booked("2026-03-01", "200.00", "USD")),
        passenger(
            3,
            cancelled(booked("2026-03-05", "300.00", "USD"), "2026-03-10"),
        ),
        passenger(4, booked("2026-03-08", "400.00", "USD")),
        passenger(5, booked("2026-04-01", "500.00", "USD")),
        passenger(6, booked("2026-03-08", "50.00", "EUR")),
        passenger(
            7,
            cancelled(booked("2026-03-01", "1000", "JPY"), "2026-03-09"),
        ),
        passenger(8, booked("2026-03-20", "0", "AUD")),
        passenger(9, booked("2026-03-27", "10.00", "AUD")),
    ];
    let history = "SELECT currency, collection_date, booking_count, round(average_price, 2), pickup_1d, pickup_7d,
            round(price_change_7d, 2), round(price_change_30d, 2)
        FROM market_data_history ORDER BY currency, collection_date";
    assert_eq!(
        after(&database, &events, history).await,
        // From nothing to something is no percentage.
        "AUD | 2026-03-20 | 1 | 0.00 | 1 | 1 | - | -\n\
         AUD | 2026-03-27 | 2 | 5.00 | 1 | 1 | - | -\n\
         EUR | 2026-03-08 | 1 | 50.00 | 1 | 1 | - | -\n\
         JPY | 2026-03-01 | 1 | 1000.00 | 1 | 1 | - | -\n\
         JPY | 2026-03-09 | 0 | - | -1 | -1 | - | -\n\
         USD | 2026-03-01 | 2 | 150.00 | 2 | 2 | - | -\n\
         USD | 2026-03-05 | 3 | 200.00 | 1 | 3 | - | -\n\
         USD | 2026-03-08 | 4 | 250.00 | 1 | 2 | 66.67 | -\n\
         USD | 2026-03-10 | 3 | 233.33 | -1 | 1 | 55.56 | -\n\
         USD | 2026-04-01 | 4 | 300.00 | 1 | 1 | 28.57 | 100.00\n"
    );
}

#[tokio::test]
async fn booking_curve_runs_from_a_year_before_departure_to_the_day() {
    let database = Database::new().await;
    let events = [
        flight(json!({})),
        // 396 days before: it stands at day 365 already.
        passenger(1, json!({"booked_at": "2025-03-01T00:00:00Z"})),
        // 30 days before, cancelled 10 days before.
        passenger(
            2,
            json!({
                "booked_at": "2026-03-02T00:00:00Z", "status": "cancelled", "cancelled_at": "2026-03-22T00:00:00Z",
            }),
        ),
        passenger(3, json!({"booked_at": "2026-04-01T00:00:00Z"})),
        // After the day of departure: on no curve.
        passenger(4, json!({"booked_at": "2026-04-02T00:00:00Z"})),
        passenger(
            5,
            json!({"booked_at": "2026-03-31T00:00:00Z", "cabin": "F"}),
        ),
    ];
    let curve =
        "SELECT cabin, days_before_departure, bookings_on_hand, gross_bookings, cancellations
        FROM booking_curve WHERE days_before_departure IN (365, 31, 30, 11, 10, 1, 0)
        ORDER BY cabin, days_before_departure DESC";
    assert_eq!(
        after(&database, &events, curve).await,
        "F | 365 | 0 | 0 | 0\nF | 31 | 0 | 0 | 0\nF | 30 | 0 | 0 | 0\nF | 11 | 0 | 0 | 0\n\
         F | 10 | 0 | 0 | 0\nF | 1 | 1 | 1 | 0\nF | 0 | 1 | 1 | 0\n\
         Y | 365 | 1 | 1 | 0\nY | 31 | 1 | 1 | 0\nY | 30 | 2 | 2 | 0\nY | 11 | 2 | 2 | 0\n\
         Y | 10 | 1 | 2 | 1\nY | 1 | 1 | 2 | 1\nY | 0 | 2 | 3 | 1\n"
    );
    let mut connection = database.connect().await;
    let days = "SELECT cabin, count(*), min(days_before_departure), max(days_before_departure)
        FROM booking_curve GROUP BY cabin ORDER BY cabin";
    assert_eq!(
        dump(&mut connection, days).await,
        "F | 366 | 0 | 365\nY | 366 | 0 | 365\n"
    );
}

#[tokio::test]
async fn market_capacity_by_cabin_sums_the_flights_that_say_it() {
    let database = Database::new().await;
    let events = [
        flight(
            json!({"flight_id": "F1", "capacity": {"total": 100, "by_cabin": {"C": 10, "Y": 90}}}),
        ),
        flight(json!({"flight_id": "F2", "capacity": {"total": 50, "by_cabin": {"Y": 50}}})),
        flight(json!({"flight_id": "F3", "capacity": {"total": 70}})),
        flight(
            json!({"flight_id": "F4", "capacity": {"total": 9, "by_cabin": {"Y": 9}}, "status": "cancelled"}),
        ),
    ];
    let seats = "SELECT origin, destination, data_date, cabin, flight_count, seat_capacity
        FROM market_capacity_by_cabin ORDER BY cabin";
    assert_eq!(
        after(&database, &events, seats).await,
        "NRT | PHX | 2026-04-01 | C | 1 | 10\nNRT | PHX | 2026-04-01 | Y | 2 | 140\n"
    );
}

#[tokio::test]
async fn pending_bookings_wait_for_a_flight_that_was_never_seen() {
    let database = Database::new().await;
    let events = [
        flight_deleted("F1", 1),
        passenger(1, json!({"flight_id": "F9"})),
        passenger(
            2,
            json!({"flight_id": "F9", "status": "cancelled", "cancelled_at": "2026-03-02T00:00:00Z"}),
        ),
        passenger(3, json!({})),
        booking_deleted("B4", 1),
    ];
    let pending =
        "SELECT booking_id, flight_id, cabin, currency, status FROM pending_bookings ORDER BY 1";
    assert_eq!(
        after(&database, &events, pending).await,
        "B1 | F9 | Y | USD | confirmed\nB2 | F9 | Y | USD | cancelled\n"
    );
}

#[tokio::test]
async fn the_oracle_finds_a_wrong_cell() {
    let database = Database::new().await;
    let mut applier = database.applier().await;
    applier
        .apply(&[flight(json!({})), booking(json!({}))])
        .await;
    let connection = &mut applier.connection;
    assert_eq!(drift(connection).await, "");
    execute(
        connection,
        "UPDATE flight_demand SET total_revenue = total_revenue + 0.01",
    )
    .await;
    assert!(drift(connection).await.starts_with("market_fares | "));
    execute(connection, "DELETE FROM flight_demand").await;
    let found = drift(connection).await;
    assert!(
        found.contains("market_data | ") && found.contains("market_fares | "),
        "{found}"
    );
}

#[tokio::test]
async fn every_table_view_and_column_says_what_it_is() {
    let database = Database::new().await;
    let mut connection = database.connect().await;
    // objsubid 0 is the relation itself.
    let silent = "SELECT c.relname, a.attname
        FROM pg_class c
        JOIN LATERAL (
            SELECT 0 AS attnum, NULL AS attname
            UNION ALL
            SELECT attnum, attname FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped
        ) a ON true
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm')
          AND coalesce(CASE WHEN a.attnum = 0 THEN obj_description(c.oid, 'pg_class')
                            ELSE col_description(c.oid, a.attnum) END, '') = ''
        ORDER BY 1, 2";
    assert_eq!(
        dump(&mut connection, silent).await,
        "",
        "these have no comment"
    );
}
