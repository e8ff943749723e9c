//! Every fixture does what its name says, and so does every field that is taken away from one.

use std::collections::BTreeSet;

use chrono::{DateTime, TimeZone as _, Utc};
use rust_decimal::Decimal;
use serde_json::{Value, json};

use super::*;
use crate::event::{Cabin, Change, Kind, Reason, State};

#[test]
fn every_event_decodes() {
    let mut kinds = BTreeSet::new();
    for fixture in events() {
        let event = decode_body(&fixture.body).unwrap_or_else(|e| panic!("{}: {e}", fixture.name));
        kinds.insert(event.kind);
    }
    assert_eq!(kinds.len(), Kind::ALL.len());
}

#[test]
fn every_event_passes_with_the_properties_of_a_correct_publisher() {
    for fixture in events() {
        let json = fixture.json();
        for content_type in [
            "application/cloudevents+json",
            "application/json",
            "Application/CloudEvents+JSON; charset=UTF-8",
            "application/json;charset=\"utf-8\"; profile=x",
        ] {
            let message = Message {
                body: &fixture.body,
                exchange: "paxflow.events",
                routing_key: json["type"].as_str().unwrap(),
                content_type: Some(content_type),
                content_encoding: Some("UTF-8"),
                message_id: json["id"].as_str(),
            };
            decode(&message).unwrap_or_else(|e| panic!("{} as {content_type}: {e}", fixture.name));
        }
    }
}

#[test]
fn every_rejected_file_gives_its_reason_path_and_detail() {
    for fixture in rejected() {
        let body = fixture.body();
        match decode(&fixture.message(&body)) {
            Ok(_) => panic!("{} must be rejected", fixture.file),
            Err(rejected) => assert_eq!(
                (
                    rejected.reason.as_str(),
                    rejected.path.as_str(),
                    rejected.detail.as_str()
                ),
                (
                    fixture.reason.as_str(),
                    fixture.path.as_str(),
                    fixture.detail.as_str()
                ),
                "{}: {rejected}",
                fixture.file
            ),
        }
    }
}

#[test]
fn every_reason_has_a_rejected_file() {
    // These two only arise where the event meets the database.
    let later = [Reason::VersionConflict, Reason::RefusedByDatabase];
    let seen: BTreeSet<_> = rejected()
        .into_iter()
        .map(|fixture| fixture.reason)
        .collect();
    let expected: BTreeSet<_> = Reason::ALL
        .iter()
        .filter(|reason| !later.contains(reason))
        .map(|reason| reason.as_str().to_owned())
        .collect();
    assert_eq!(seen, expected);
}

#[test]
fn index_and_files_agree() {
    let indexed: BTreeSet<_> = rejected().into_iter().map(|fixture| fixture.file).collect();
    let files: BTreeSet<_> = fs::read_dir(fixture_dir("rejected"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|file| file != "index.json")
        .collect();
    assert_eq!(indexed, files);
}

#[test]
fn a_rejection_never_holds_a_value_of_the_message() {
    const CANARY: &str = "cánary-7341";
    for fixture in events() {
        let json = fixture.json();
        for path in leaves(&json) {
            let rejected = rejection_if_any(&with(&json, &path, CANARY));
            assert!(!rejected.contains(CANARY), "{path}: {rejected}");
            let rejected = rejection_if_any(&with(&json, &path, json!({ CANARY: [CANARY] })));
            assert!(!rejected.contains(CANARY), "{path}: {rejected}");
        }
    }
    let text = format!("{{\"{CANARY}\": {{\"{CANARY}\": 1, \"{CANARY}\": \"{CANARY}");
    for end in ["", "\"}}", "\\ud800\"}}", "\"]"] {
        let rejected = decode_body(format!("{text}{end}").as_bytes())
            .unwrap_err()
            .to_string();
        assert!(!rejected.contains(CANARY), "{rejected}");
    }
}

#[test]
fn a_required_field_cannot_be_dropped_nulled_or_replaced() {
    let required = [
        ("booking_is_made", "specversion id source type time data"),
        (
            "flight_is_scheduled",
            "specversion id source type time data",
        ),
        (
            "booking_is_made",
            "data.booking_id data.version data.reference data.flight_id data.booked_at data.cabin \
             data.booking_class data.price data.price.base data.price.taxes data.price.total \
             data.price.currency data.payment_status data.status data.journey.origin \
             data.journey.destination data.passenger.name",
        ),
        (
            "flight_arrives",
            "data.flight_id data.version data.airline data.flight_number data.origin \
             data.destination data.scheduled_departure data.scheduled_arrival data.status \
             data.capacity.total",
        ),
        (
            "booking_is_deleted",
            "data.booking_id data.version data.deleted_at",
        ),
        (
            "flight_is_deleted",
            "data.flight_id data.version data.deleted_at",
        ),
    ];
    for (name, paths) in required {
        let valid = event(name);
        for path in paths.split_whitespace() {
            let expect = |changed: &Value, reason| {
                let rejected = rejection(changed);
                assert_eq!(
                    (rejected.reason, rejected.path),
                    (reason, format!("$.{path}")),
                    "{name}"
                );
            };
            expect(&without(&valid, path), Reason::MissingField);
            expect(&with(&valid, path, Value::Null), Reason::NullField);
            expect(&with(&valid, path, true), Reason::WrongType);
            expect(&with(&valid, path, json!([])), Reason::WrongType);
        }
    }
}

#[test]
fn an_optional_field_can_be_dropped_or_nulled_but_not_replaced() {
    let optional = [
        (
            "booking_is_made",
            "subject datacontenttype dataschema partitionkey",
        ),
        (
            "booking_is_made",
            "data.ticket_number data.coupon data.journey data.passenger data.passenger.email \
             data.passenger.phone data.travel_date data.fare_basis data.seat data.point_of_sale \
             data.channel",
        ),
        (
            "flight_arrives",
            "data.suffix data.estimated_departure data.actual_departure data.actual_arrival \
             data.aircraft data.aircraft.type data.aircraft.registration data.capacity \
             data.capacity.by_cabin",
        ),
        ("booking_is_deleted", "data.reason"),
        ("flight_is_deleted", "data.reason"),
    ];
    for (name, paths) in optional {
        let valid = event(name);
        for path in paths.split_whitespace() {
            let absent = without(&valid, path).to_string();
            let null = with(&valid, path, Value::Null).to_string();
            let absent = decode_body(absent.as_bytes()).unwrap();
            let null = decode_body(null.as_bytes()).unwrap();
            assert_eq!(absent, null, "{name}: {path}");
            let rejected = rejection(&with(&valid, path, true));
            assert_eq!(
                (rejected.reason, rejected.path),
                (Reason::WrongType, format!("$.{path}")),
                "{name}"
            );
        }
    }
}

#[test]
fn the_largest_body_passes_and_one_byte_more_does_not() {
    let mut body = event("booking_is_made").to_string();
    body.extend(std::iter::repeat_n(
        ' ',
        crate::event::BODY_BYTES_MAX - body.len(),
    ));
    decode_body(body.as_bytes()).unwrap();
    body.push(' ');
    assert_eq!(
        decode_body(body.as_bytes()).unwrap_err().reason,
        Reason::BodyTooLarge
    );
}

#[test]
fn the_deepest_nesting_passes() {
    let nested = format!("{}{}", "[".repeat(99), "]".repeat(99));
    let body = event("booking_is_made").to_string();
    let body = format!("{},\"x\":{nested}}}", body.strip_suffix('}').unwrap());
    decode_body(body.as_bytes()).unwrap();
}

#[test]
fn a_message_put_back_through_the_default_exchange_needs_no_routing_key() {
    let body = event("booking_is_made").to_string();
    let message = Message {
        exchange: "",
        routing_key: "paxflow.events",
        ..Message::of_body(body.as_bytes())
    };
    decode(&message).unwrap();
}

#[test]
fn strings_are_borrowed_from_the_body() {
    let body = event("booking_is_made").to_string();
    let event = decode_body(body.as_bytes()).unwrap();
    let Change::Booking(revision) = &event.change else {
        panic!("a booking")
    };
    for text in [&event.id, &event.source, &revision.key] {
        assert!(matches!(text, std::borrow::Cow::Borrowed(_)));
    }
}

#[test]
fn values_arrive_as_they_were_meant() {
    let yen = event("booking_costs_whole_yen").to_string();
    let dinar = event("booking_costs_thousandths_of_a_dinar").to_string();
    let instant = event("booking_time_has_nanoseconds_and_an_offset").to_string();
    let price = |body: &'static str| match decode_body(body.as_bytes()).unwrap().change {
        Change::Booking(revision) => match revision.state {
            State::Upserted(booking) => (booking.price, booking.booked_at, booking.cabin),
            State::Deleted(_) => panic!("not deleted"),
        },
        Change::Flight(_) => panic!("a booking"),
    };
    let leak = |text: String| -> &'static str { Box::leak(text.into_boxed_str()) };
    let (yen, _, _) = price(leak(yen));
    assert_eq!(
        (yen.total, yen.total.scale()),
        (Decimal::new(144_430, 0), 0)
    );
    let (dinar, _, cabin) = price(leak(dinar));
    assert_eq!(dinar.taxes.to_string(), "20.500");
    assert_eq!(cabin, Cabin::First);
    let (_, booked_at, _) = price(leak(instant));
    let expected: DateTime<Utc> = Utc.timestamp_micros(1_767_584_628_123_456).unwrap();
    assert_eq!(booked_at, expected);
}

fn without(event: &Value, path: &str) -> Value {
    let mut changed = event.clone();
    let (parent, name) = path.rsplit_once('.').unwrap_or(("", path));
    let parent = if parent.is_empty() {
        &mut changed
    } else {
        at(&mut changed, parent)
    };
    parent.as_object_mut().unwrap().remove(name).unwrap();
    changed
}

fn rejection_if_any(event: &Value) -> String {
    let body = event.to_string();
    decode_body(body.as_bytes()).map_or_else(|rejected| rejected.to_string(), |_| String::new())
}

/// Dotted paths of all values that are not objects.
fn leaves(value: &Value) -> Vec<String> {
    let Some(object) = value.as_object() else {
        return vec![];
    };
    let mut paths = vec![];
    for (name, value) in object {
        match value {
            Value::Object(_) => paths.extend(
                leaves(value)
                    .into_iter()
                    .map(|leaf| format!("{name}.{leaf}")),
            ),
            _ => paths.push(name.clone()),
        }
    }
    paths
}
