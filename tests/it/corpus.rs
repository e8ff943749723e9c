//! The corpus of bad input, 120 cases by number: each for bookings and flights through the real broker, or where `ELSEWHERE` says.

mod cases;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::events::{booking, flight};
use crate::process::{Place, place};
use crate::raw::{
    CONTENT_ENCODING, CONTENT_TYPE, HEADERS, Message, RawProducer, field, long, short,
};
use crate::support::Database;
use cases::Case;

/// Cases that one kind of event has alone, or that take more than one message: the fixtures and tests
/// which cover them.
const ELSEWHERE: &[(u8, &[&str])] = &[
    (
        46,
        &[
            "flight_number_has_a_leading_zero",
            "flight_number_has_the_airline",
            "flight_number_has_5_digits",
        ],
    ),
    (
        47,
        &[
            "flight_belongs_to_an_airline_with_a_digit",
            "airline_has_no_letter",
        ],
    ),
    (48, &["flight_has_all_four_cabins", "suffix_is_a_digit"]),
    (
        49,
        &[
            "currency_is_lower_case",
            "currency_is_none",
            "currency_has_2_letters",
            "currency_is_a_sign",
        ],
    ),
    (54, &["base_is_negative", "base_is_negative_zero"]),
    (55, &["booking_costs_nothing"]),
    (
        56,
        &[
            "unknown_field_is_an_infinite_number",
            "base_has_an_exponent",
        ],
    ),
    (57, &["base_has_29_decimals", "base_has_an_exponent"]),
    (58, &["base_has_an_exponent"]),
    (59, &["base_is_beyond_96_bits"]),
    (
        60,
        &["booking_costs_almost_a_trillion", "base_is_a_trillion"],
    ),
    (
        61,
        &[
            "base_has_3_decimals_of_a_dollar",
            "base_is_a_number",
            "total_is_a_cent_too_much",
        ],
    ),
    (62, &["base_has_29_decimals"]),
    (
        63,
        &[
            "base_has_a_decimal_comma",
            "base_has_a_thousands_space",
            "base_is_hexadecimal",
            "base_has_arabic_digits",
        ],
    ),
    (
        64,
        &[
            "base_has_a_plus_sign",
            "base_has_a_leading_zero",
            "base_has_no_digit_before_the_point",
            "base_has_no_digit_after_the_point",
        ],
    ),
    (
        66,
        &["load_factor_may_exceed_one_and_ends_where_its_column_ends"],
    ),
    (
        82,
        &["arrival_is_before_departure", "arrival_is_at_departure"],
    ),
    (83, &["arrival_is_a_month_after_departure"]),
    (86, &["same_version_same_content_is_a_duplicate"]),
    (87, &["same_version_other_content_is_quarantined"]),
    (88, &["order_free"]),
    (
        89,
        &[
            "a_cancellation_may_arrive_before_the_creation",
            "a_tombstone_keeps_late_versions_out",
        ],
    ),
    (
        90,
        &["same_version_same_content_is_a_duplicate", "order_free"],
    ),
    (
        91,
        &[
            "booking_is_reinstated_after_cancellation",
            "a_tombstone_keeps_late_versions_out",
        ],
    ),
    (
        92,
        &[
            "a_booking_may_arrive_before_its_flight",
            "pending_bookings_wait_for_a_flight_that_was_never_seen",
        ],
    ),
    (93, &["a_flight_that_moves_takes_its_bookings_along"]),
    (
        94,
        &[
            "booking_changes_currency_to_usd",
            "a_changed_booking_leaves_nothing_behind",
        ],
    ),
    (
        95,
        &[
            "flight_moves_to_another_route",
            "a_flight_that_moves_takes_its_bookings_along",
        ],
    ),
    (96, &["a_thousand_versions_of_one_key_in_one_batch"]),
    (
        97,
        &["order_free", "hot_keys_never_deadlock_and_stay_exact"],
    ),
    (106, &["headers_of_every_kind_are_kept_and_harm_nothing"]),
    (
        110,
        &["a_thousand_bad_messages_among_a_thousand_good_ones_or_in_a_row"],
    ),
    (111, &["a_batch_of_nothing_but_poison_commits"]),
    (112, &["poison_may_stand_first_or_last"]),
    (
        115,
        &[
            "a_rejection_never_holds_a_value_of_the_message",
            "no_secrets_or_personal_data_in_logs",
        ],
    ),
];
const CASES: u8 = 120;

/// Names of the fixtures and of the tests.
fn names() -> BTreeSet<String> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let mut names = BTreeSet::new();
    for directory in ["fixtures/events", "fixtures/rejected"] {
        for entry in fs::read_dir(root.join(directory)).unwrap() {
            let file = entry.unwrap().path();
            names.insert(file.file_stem().unwrap().to_str().unwrap().to_owned());
        }
    }
    for directory in ["tests/it", "src/event/tests"] {
        for entry in fs::read_dir(root.join(directory)).unwrap() {
            let path = entry.unwrap().path();
            let Ok(source) = fs::read_to_string(&path) else {
                continue;
            };
            let mut is_test = false;
            for line in source.lines() {
                is_test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
                if let Some((_, name)) = line.split_once("fn ").filter(|_| is_test) {
                    names.insert(name.split('(').next().unwrap().to_owned());
                    is_test = false;
                }
            }
        }
    }
    names
}

#[test]
fn every_case_of_the_corpus_is_covered() {
    let names = names();
    let mut covered: BTreeSet<u8> = cases::all().iter().map(|(_, case)| case.number).collect();
    for (number, by) in ELSEWHERE {
        for name in *by {
            assert!(names.contains(*name), "case {number}: there is no {name}");
        }
        covered.insert(*number);
    }
    let missing: Vec<_> = (1..=CASES)
        .filter(|number| !covered.contains(number))
        .collect();
    assert!(missing.is_empty(), "cases without coverage: {missing:?}");
}

/// The message of a case, with its label as a header.
fn message(place: &Place, label: &str, case: &Case) -> Message {
    let (exchange, key) = match case.routing_key {
        Some(key) => (place.topology.exchange.as_str(), key),
        // By way of the default exchange the routing key says nothing of the type.
        None => ("", place.topology.queue.as_str()),
    };
    let mut message = Message::bare(exchange, key.as_bytes(), &case.body)
        .with(CONTENT_TYPE, &short(case.content_type.as_bytes()));
    if let Some(encoding) = case.content_encoding {
        message = message.with(CONTENT_ENCODING, &short(encoding.as_bytes()));
    }
    let label = field(b"case", b'S', &long(label.as_bytes()));
    message = message.with(HEADERS, &long(&label));
    for (property, value) in &case.properties {
        message = message.with(*property, value);
    }
    message
}

#[tokio::test]
async fn every_case_of_the_corpus_ends_as_the_contract_says() {
    let database = Database::new().await;
    let place = place(&database);
    place.declare().await;
    let corpus: Vec<_> = cases::all()
        .into_iter()
        .enumerate()
        .map(|(at, (kind, case))| (format!("{} {kind} {at}", case.number), case))
        .collect();
    let mut producer = RawProducer::connect(&place.amqp_url).await;
    for (label, case) in &corpus {
        producer.send(&message(&place, label, case)).await;
    }
    producer.confirm().await;
    let worker = place.worker().await;
    let published = corpus.len() as i64;
    place.committed_at_least(published).await;

    let rows: Vec<(String, String, Value, Vec<u8>)> =
        sqlx::query_as("SELECT reason, path, headers, body FROM quarantined_events")
            .fetch_all(&mut place.connect().await)
            .await
            .unwrap();
    let mut wrong = Vec::new();
    for (label, case) in &corpus {
        let own = rows.iter().find(|row| row.2["case"] == **label);
        // The same body for the same reason is one row, with the headers that came first.
        let same = |row: &&(String, String, Value, Vec<u8>)| {
            let expected = case.expected.as_ref().map(|(reason, _)| *reason);
            row.3 == case.body && Some(row.0.as_str()) == expected
        };
        let found = own.or_else(|| rows.iter().find(same));
        let found = found.map(|row| (row.0.as_str(), row.1.clone()));
        if found != case.expected {
            wrong.push(format!("{label}: {found:?} instead of {:?}", case.expected));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let accepted = corpus.iter().filter(|(_, case)| case.expected.is_none());
    let counts = "SELECT sum(applied)::bigint, sum(quarantined)::bigint FROM worker_progress";
    let counts: (i64, i64) = sqlx::query_as(counts)
        .fetch_one(&mut place.connect().await)
        .await
        .unwrap();
    let accepted = accepted.count() as i64;
    assert_eq!(counts, (accepted, published - accepted));
    worker.stop().await;
    place.assert_drained().await;
    place.assert_exact().await;
}

/// A field without a name: arrays in each other, as deep as a frame has room for.
fn nested() -> Vec<u8> {
    let lengths = (0..26_000_u32).rev().map(|within| 5 * within);
    let arrays = lengths.flat_map(|length| [&b"A"[..], &length.to_be_bytes()].concat());
    std::iter::once(0).chain(arrays).collect()
}

/// Headers that are hostile or just odd, and how they are kept.
fn headers() -> Vec<(&'static str, Vec<u8>, Value)> {
    let text = |name: &[u8], value: &[u8]| field(name, b'S', &long(value));
    let death = [
        field(b"count", b'l', &(-1_i64).to_be_bytes()),
        text(b"queue", b"q"),
    ]
    .concat();
    let death = field(
        b"x-death",
        b'A',
        &long(&[&b"F"[..], &long(&death)].concat()),
    );
    let fields: Vec<(&str, u8, Vec<u8>, Value)> = vec![
        ("t", b't', vec![1], json!(true)),
        ("b", b'b', vec![0xff], json!(-1)),
        ("B", b'B', vec![0xff], json!(255)),
        ("s", b's', vec![0xff, 0xfe], json!(-2)),
        ("u", b'u', vec![0xff, 0xfe], json!(65534)),
        ("I", b'I', vec![0xff; 4], json!(-1)),
        ("i", b'i', vec![0xff; 4], json!(u32::MAX)),
        ("l", b'l', vec![0xff; 8], json!(-1)),
        ("f", b'f', 1.5_f32.to_be_bytes().to_vec(), json!(1.5)),
        ("d", b'd', 2.5_f64.to_be_bytes().to_vec(), json!(2.5)),
        ("D", b'D', vec![2, 0, 0, 0, 123], json!("123e-2")),
        ("S", b'S', long(b"a\xff\0"), json!("a\u{fffd}\u{fffd}")),
        ("A", b'A', long(b"t\x01V"), json!([true, null])),
        ("T", b'T', 7_u64.to_be_bytes().to_vec(), json!(7)),
        ("F", b'F', long(&text(b"k", b"v")), json!({ "k": "v" })),
        ("x", b'x', long(b"bytes"), json!("bytes")),
        ("V", b'V', vec![], json!(null)),
    ];
    let every = fields
        .iter()
        .flat_map(|(name, kind, bytes, _)| field(name.as_bytes(), *kind, bytes));
    let kept = fields
        .iter()
        .map(|(name, .., value)| ((*name).to_owned(), value.clone()));
    let huge = "h".repeat(100 << 10);
    let mut deep = json!("nested too deep");
    for _ in 0..31 {
        deep = json!([deep]);
    }
    let deep = json!({ "": deep });
    vec![
        ("every type", every.collect(), Value::Object(kept.collect())),
        (
            "a forged x-death",
            death,
            json!({ "x-death": [{ "count": -1, "queue": "q" }] }),
        ),
        (
            "a delivery count that is a text",
            text(b"x-delivery-count", b"many"),
            json!({}),
        ),
        (
            "100 KiB",
            text(b"huge", huge.as_bytes()),
            json!({ "huge": huge }),
        ),
        ("26,000 levels", nested(), deep),
    ]
}

#[tokio::test]
async fn headers_of_every_kind_are_kept_and_harm_nothing() {
    let database = Database::new().await;
    let place = place(&database);
    place.declare().await;
    let mut producer = RawProducer::connect(&place.amqp_url).await;
    let queue = place.topology.queue.as_bytes();
    let headers = headers();
    for (at, (_, table, _)) in headers.iter().enumerate() {
        for body in [
            format!("bad {at}"),
            booking(json!({ "booking_id": format!("B{at}") })).to_string(),
            flight(json!({ "flight_id": format!("F{at}") })).to_string(),
        ] {
            let message = Message::event("", queue, body.as_bytes()).with(HEADERS, &long(table));
            producer.send(&message).await;
        }
    }
    producer.confirm().await;
    let worker = place.worker().await;
    place.committed_at_least(3 * headers.len() as i64).await;
    for (at, (what, _, expected)) in headers.iter().enumerate() {
        let found: Value =
            sqlx::query_scalar("SELECT headers FROM quarantined_events WHERE body = $1")
                .bind(format!("bad {at}").into_bytes())
                .fetch_one(&mut place.connect().await)
                .await
                .unwrap();
        let expected = expected.as_object().unwrap();
        for (name, value) in expected {
            assert!(found[name] == *value, "{what}: {name}: {found}");
        }
    }
    let stored = "SELECT (SELECT count(*) FROM bookings) + (SELECT count(*) FROM flights)";
    assert_eq!(place.number(stored).await, 2 * headers.len() as i64);
    worker.stop().await;
    place.assert_drained().await;
}

/// A bad event: the database would take it, the contract does not.
fn bad(number: usize) -> Vec<u8> {
    let event = if number.is_multiple_of(2) {
        booking
    } else {
        flight
    };
    event(json!({ "version": -1 - number as i64 }))
        .to_string()
        .into_bytes()
}

fn good(number: usize) -> Vec<u8> {
    booking(json!({ "booking_id": format!("GOOD-{number}") }))
        .to_string()
        .into_bytes()
}

/// Publishes, and says in how many batches one worker has committed it.
async fn batches_of(place: &Place, bodies: &[Vec<u8>]) -> i64 {
    let batches = "SELECT coalesce(sum(batches), 0)::bigint FROM worker_progress";
    let (before, (received, _)) = (place.number(batches).await, place.committed().await);
    place.declare().await;
    let mut producer = RawProducer::connect(&place.amqp_url).await;
    for body in bodies {
        let queue = place.topology.queue.as_bytes();
        producer.send(&Message::event("", queue, body)).await;
    }
    producer.confirm().await;
    let worker = place.worker().await;
    place
        .committed_at_least(received + bodies.len() as i64)
        .await;
    worker.stop().await;
    place.number(batches).await - before
}

#[tokio::test]
async fn a_thousand_bad_messages_among_a_thousand_good_ones_or_in_a_row() {
    const EACH: usize = 1_000;
    let database = Database::new().await;
    let place = place(&database);
    let plain: Vec<_> = (0..2 * EACH).map(good).collect();
    let without = batches_of(&place, &plain).await;
    // One after the other, so that no batch is without.
    let mixed: Vec<_> = (0..EACH)
        .flat_map(|number| [bad(number), good(2 * EACH + number)])
        .collect();
    let row = (EACH..2 * EACH)
        .map(bad)
        .chain((3 * EACH..4 * EACH).map(good));
    let row: Vec<_> = row.collect();
    for bodies in [mixed, row] {
        let with = batches_of(&place, &bodies).await;
        // What costs time is a commit, and a bad message costs none of its own.
        assert!(with <= 2 * without, "{with} batches instead of {without}");
    }
    let stored = "SELECT count(*) FROM bookings";
    assert_eq!(place.number(stored).await, 4 * EACH as i64);
    let set_aside =
        "SELECT sum(times_received)::bigint FROM quarantined_events WHERE reason = 'out_of_range'";
    assert_eq!(place.number(set_aside).await, 2 * EACH as i64);
    assert_eq!(place.committed().await, (6 * EACH as i64, 6 * EACH as i64));
    place.assert_drained().await;
}
