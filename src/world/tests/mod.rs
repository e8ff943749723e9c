//! The worlds, read back.

#![allow(clippy::unwrap_used)]

mod census;
mod contract;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::sync::LazyLock;

use serde_json::Value;

use super::{Arguments, bad, generate, write_sample};
use census::{Census, closed_flights, pending};
use contract::fault;

const STORED: &[u8] = include_bytes!("../../../fixtures/world/sample_world.ndjson.gz");
const README: &str = include_str!("../../../fixtures/world/README.md");

fn world(events: u64, seed: u64, markets: Option<u32>, bad_ratio: f64) -> Vec<u8> {
    let arguments = Arguments {
        events,
        seed,
        markets,
        bad_ratio,
    };
    let mut out = Vec::new();
    generate(&arguments, &mut out).unwrap();
    out
}

/// Written once for all tests.
fn sample() -> &'static [u8] {
    static SAMPLE: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let mut out = Vec::new();
        write_sample(&mut out).unwrap();
        out
    });
    &SAMPLE
}

fn sample_census() -> &'static Census {
    static CENSUS: LazyLock<Census> = LazyLock::new(|| Census::take(sample()));
    &CENSUS
}

fn lines(world: &[u8]) -> Vec<&str> {
    std::str::from_utf8(world).unwrap().lines().collect()
}

#[test]
fn the_same_arguments_give_the_same_bytes() {
    let first = world(20_000, 7, Some(300), 0.01);
    assert!(first == world(20_000, 7, Some(300), 0.01));
    assert!(first != world(20_000, 8, Some(300), 0.01));
    assert!(first != world(20_000, 7, Some(301), 0.01));
}

/// A change of the generator shows here: it changes the load of every benchmark recorded before.
#[test]
fn the_bytes_are_the_same_on_every_machine() {
    let hash = xxhash_rust::xxh3::xxh3_64(&world(10_000, 1, None, 0.01));
    assert_eq!(format!("{hash:016x}"), "1289a9cba631c23f");
}

#[test]
fn every_line_obeys_the_contract() {
    for (seed, markets) in [(1, None), (2, Some(1)), (3, Some(20_000))] {
        for line in lines(&world(10_000, seed, markets, 0.0)) {
            assert_eq!(fault(line), None, "{line}");
        }
    }
    for line in lines(sample()) {
        assert_eq!(fault(line), None, "{line}");
    }
}

#[test]
fn there_are_exactly_as_many_lines_as_asked_for() {
    for events in [0, 1, 2, 99, 1_000, 12_345] {
        for bad_ratio in [0.0, 0.5, 1.0] {
            assert_eq!(
                lines(&world(events, 4, None, bad_ratio)).len() as u64,
                events
            );
        }
    }
}

#[test]
fn the_mix_is_that_of_the_load() {
    let census = Census::take(&world(60_000, 5, None, 0.0));
    let lines = census.of("line") as f64;
    let share = |count: u64| 100.0 * count as f64 / lines;
    let flights = census.of("airline.flight.upserted.v1") + census.of("airline.flight.deleted.v1");
    let bookings =
        census.of("airline.booking.upserted.v1") + census.of("airline.booking.deleted.v1");
    let new = census.of("first booking");
    let cancellations = census.of("booking cancellation");
    let late = census.of("booking out of order") + census.of("flight out of order");
    let duplicates = census.of("duplicate");
    // The first four add up to 98: the other 2 are duplicates.
    for (name, count, expected) in [
        ("new bookings", new, 68.6),
        ("cancellations", cancellations, 7.9),
        ("changes", bookings - new - cancellations, 17.6),
        ("flights", flights, 3.9),
        ("duplicates", duplicates, 2.0),
        ("out of order", late, 2.0),
    ] {
        let measured = share(count);
        assert!(
            (measured - expected).abs() < expected / 8.0,
            "{name}: {measured} % for {expected} %"
        );
    }
}

#[test]
fn bodies_have_the_size_of_the_load() {
    for line in lines(&world(40_000, 6, None, 0.0)) {
        // A tombstone has little to say.
        let least = if line.contains("deleted_at") {
            200
        } else {
            350
        };
        assert!(
            (least..=600).contains(&line.len()),
            "{} bytes: {line}",
            line.len()
        );
    }
}

#[test]
fn the_first_market_is_drawn_as_zipf_says() {
    let world = world(40_000, 6, None, 0.0);
    let mut flights: BTreeMap<String, u64> = BTreeMap::new();
    for line in lines(&world) {
        if line.contains("flight.upserted") && line.contains(r#""version":1,"#) {
            let event: Value = serde_json::from_str(line).unwrap();
            let data = &event["data"];
            *flights
                .entry(format!("{}{}", data["origin"], data["destination"]))
                .or_default() += 1;
        }
    }
    let total: u64 = flights.values().sum();
    let weights: f64 = (1..=186).map(|rank| f64::from(rank).powf(-1.1)).sum();
    let busiest = *flights.values().max().unwrap() as f64 / total as f64;
    assert!(
        (busiest * weights - 1.0).abs() < 0.15,
        "{busiest} for {}",
        1.0 / weights
    );
}

#[test]
fn the_stream_has_every_kind_of_change() {
    let census = Census::take(&world(100_000, 9, None, 0.0));
    for feature in CHANGES {
        assert!(census.of(feature) > 0, "none of: {feature}");
    }
    for feature in [
        "booking restored",
        "flight restored",
        "flight out of order",
        "flight status boarding",
    ] {
        assert!(census.of(feature) > 0, "none of: {feature}");
    }
}

#[test]
fn a_bad_line_breaks_a_rule_and_a_good_one_none() {
    let world = world(20_000, 10, None, 0.05);
    let faults: Vec<&str> = lines(&world).into_iter().filter_map(fault).collect();
    assert!(
        (880..1_120).contains(&faults.len()),
        "{} bad lines",
        faults.len()
    );
    let kinds: BTreeSet<&str> = faults.into_iter().collect();
    assert!(kinds.len() >= 12, "{kinds:?}");
}

#[test]
fn each_way_to_break_an_event_breaks_it() {
    let template = lines(&world(2_000, 11, None, 0.0))
        .into_iter()
        .find(|line| line.contains("booking.upserted") && line.contains(r#""version":1,"#))
        .unwrap()
        .to_owned();
    for way in 0..bad::WAYS {
        let mut event = template.clone().into_bytes();
        bad::break_in(&mut event, way);
        let event = String::from_utf8(event).unwrap();
        assert_ne!(fault(&event), None, "{event}");
    }
}

#[test]
fn wrong_arguments_are_refused() {
    for (markets, bad_ratio) in [
        (Some(0), 0.0),
        (Some(20_001), 0.0),
        (None, -0.1),
        (None, 1.1),
        (None, f64::NAN),
    ] {
        let arguments = Arguments {
            events: 1,
            seed: 1,
            markets,
            bad_ratio,
        };
        let error = generate(&arguments, &mut Vec::new()).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    }
}

const CHANGES: [&str; 30] = [
    "duplicate",
    "booking out of order",
    "booking before its flight",
    "booking cancellation",
    "booking reinstated",
    "booking restored",
    "booking changes flight_id",
    "booking changes cabin",
    "booking changes seat",
    "booking changes total",
    "booking changes currency",
    "booking status used",
    "booking status no_show",
    "booking payment_status pending",
    "booking payment_status refunded",
    "booking payment_status cancelled",
    "airline.booking.deleted.v1",
    "airline.flight.deleted.v1",
    "flight reinstated",
    "flight changes capacity",
    "flight changes destination",
    "flight changes scheduled_departure",
    "flight status delayed",
    "flight status cancelled",
    "flight status diverted",
    "flight status arrived",
    "capacity",
    "capacity by cabin",
    "JPY",
    "KWD",
];

#[test]
fn the_sample_has_every_case_worth_showing() {
    let census = sample_census();
    for feature in CHANGES {
        assert!(census.of(feature) > 0, "none of: {feature}");
    }
    let optional = [
        "journey",
        "passenger",
        "ticket_number",
        "seat",
        "channel",
        "fare_basis",
    ];
    for field in optional.map(|field| format!("booking {field}")) {
        assert!(census.of(&field) > 0, "none of: {field}");
    }
    assert!(pending(census) > 0, "no booking whose flight never comes");
    assert!(closed_flights(census) > 0, "no flight is full");
}

#[test]
fn the_stored_sample_is_what_the_generator_writes() {
    let mut stored = Vec::new();
    flate2::read::GzDecoder::new(STORED)
        .read_to_end(&mut stored)
        .unwrap();
    assert!(
        stored == sample(),
        "regenerate fixtures/world/sample_world.ndjson.gz"
    );
    assert!(STORED.len() < 5_000_000);
}

/// The table of the data's README, so that its counts stay true.
#[test]
fn the_readme_counts_the_sample_right() {
    let census = sample_census();
    let flights = || {
        let of_flight = |(key, (_, data)): (&String, &(i64, Value))| {
            key.starts_with("flight").then(|| data.clone())
        };
        census.newest.iter().filter_map(of_flight)
    };
    let mut rows = vec![("events", census.of("line"))];
    for name in [
        "airline.booking.upserted.v1",
        "airline.booking.deleted.v1",
        "airline.flight.upserted.v1",
        "airline.flight.deleted.v1",
    ] {
        rows.push((name, census.of(name)));
    }
    rows.push(("exact duplicates of those", census.of("duplicate")));
    rows.push((
        "older versions that come late",
        census.of("booking out of order") + census.of("flight out of order"),
    ));
    let bookings = census
        .newest
        .keys()
        .filter(|key| key.starts_with("booking"))
        .count();
    rows.push(("bookings", bookings as u64));
    rows.push(("booking cancellations", census.of("booking cancellation")));
    rows.push(("bookings whose flight never comes", pending(census) as u64));
    for currency in ["USD", "CAD", "JPY", "KWD"] {
        rows.push((currency, census.of(currency)));
    }
    rows.push(("flights", flights().count() as u64));
    let last = |status: &str| {
        flights()
            .filter(|flight| flight["status"] == status)
            .count() as u64
    };
    rows.push(("flights cancelled in the end", last("cancelled")));
    let unknown =
        flights().filter(|flight| flight["capacity"].is_null() && flight["deleted_at"].is_null());
    rows.push(("flights of unknown capacity", unknown.count() as u64));
    rows.push(("flights that sell out", closed_flights(census) as u64));
    let mut table = String::new();
    for (name, count) in rows {
        table.push_str(&format!("| {name} | {count} |\n"));
    }
    assert!(README.contains(&table), "the table should be:\n{table}");
}

/// What MarketData's local dates are for: these flights leave on another date in UTC.
#[test]
fn the_readme_knows_how_many_flights_leave_on_another_date_in_utc() {
    let legs = super::data::legs().unwrap();
    let differing = legs
        .iter()
        .filter(|leg| leg.departure.div_euclid(86_400) != leg.day)
        .count();
    assert!(README.contains(&format!(
        "| of the {} flights as published, on another date in UTC | {differing} |",
        legs.len()
    )));
}
