//! What is just inside or outside of a rule, and what a decoded value says of itself.

use serde_json::{Map, Value, json};

use super::*;
use crate::event::{Booking, Change, Kind, SchemaKind, State, asyncapi, json_schema};

fn assert_accepted(path: &str, value: impl Into<Value>) {
    let event = with(&event("booking_is_made"), path, value);
    if let Err(rejected) = decode_body(event.to_string().as_bytes()) {
        panic!("{path} {}: {rejected}", event.pointer("/source").unwrap());
    }
}

fn assert_rejected(path: &str, value: impl Into<Value>) {
    let rejected = rejection(&with(&event("booking_is_made"), path, value));
    assert_eq!(rejected.path, format!("$.{path}"), "{rejected}");
}

#[test]
fn a_percent_sign_in_a_uri_needs_two_digits() {
    assert_accepted("source", "/agencies/a%2Fb");
    for source in ["/a%", "/a%2", "/a%2g", "/a%g2", "/a%%20"] {
        assert_rejected("source", source);
    }
}

#[test]
fn the_widest_offsets_of_a_day_are_accepted() {
    for offset in ["+23:59", "-23:59", "+00:59", "+23:00"] {
        assert_accepted("time", format!("2026-01-31T12:00:00{offset}"));
    }
    for offset in ["+24:00", "-24:00", "+00:60"] {
        assert_rejected("time", format!("2026-01-31T12:00:00{offset}"));
    }
}

#[test]
fn as_many_decimals_as_any_currency_has_are_accepted() {
    let price =
        json!({ "base": "1.2345", "taxes": "0.0000", "total": "1.2345", "currency": "CLF" });
    assert_accepted("data.price", price);
}

#[test]
fn a_large_object_may_not_repeat_a_key_either() {
    let unknown = |count: usize| -> Map<String, Value> {
        let name = |number: usize| (format!("k{number:03}"), Value::Null);
        (0..count).map(name).collect()
    };
    // As many as are compared in pairs, one more, and many more.
    for count in [32, 33, 100] {
        assert_accepted("extension", unknown(count));
        let body = event("booking_is_made").to_string();
        let object = Value::from(unknown(count)).to_string();
        let twice = object.replacen('}', r#","k000":null}"#, 1);
        let body = body.replacen('{', &format!(r#"{{"extension":{twice},"#), 1);
        let rejected = decode_body(body.as_bytes()).unwrap_err();
        assert_eq!(rejected.reason.as_str(), "duplicate_key", "{count}");
    }
}

#[test]
fn a_cabin_has_its_seats_once() {
    let flight = event("flight_is_scheduled").to_string();
    let cabins = r#""by_cabin":{"#;
    assert!(flight.contains(cabins));
    let twice = flight.replacen(cabins, &format!(r#"{cabins}"Y":1,"#), 1);
    let routed = Message {
        routing_key: Kind::FlightUpserted.routing_key(),
        ..Message::of_body(twice.as_bytes())
    };
    assert_eq!(
        decode(&routed).unwrap_err().reason.as_str(),
        "duplicate_key"
    );
}

#[test]
fn of_several_faults_the_first_of_the_contract_is_named() {
    // Keys stand in the order of the alphabet here.
    let event = with(&event("booking_is_made"), "data.status", "lost");
    let event = with(&event, "data.version", 0);
    assert_eq!(rejection(&event).path, "$.data.version");
    let event = with(&event, "source", "");
    assert_eq!(rejection(&event).path, "$.source");
    let event = with(&event, "id", Value::Null);
    assert_eq!(rejection(&event).path, "$.id");
    let cut = event.to_string();
    let rejected = decode_body(&cut.as_bytes()[..cut.len() - 1]).unwrap_err();
    assert_eq!(rejected.reason.as_str(), "invalid_json");
}

fn assert_booking(holds: impl Fn(&Booking<'_>)) {
    let event = event("booking_is_made").to_string();
    match decode_body(event.as_bytes()).unwrap().change {
        Change::Booking(revision) => match &revision.state {
            State::Upserted(booking) => holds(booking),
            State::Deleted(_) => panic!("the booking is not deleted"),
        },
        Change::Flight(_) => panic!("it is not a flight"),
    }
}

#[test]
fn a_country_says_its_code() {
    assert_booking(|booking| {
        let event = event("booking_is_made");
        let country = booking.point_of_sale.unwrap().as_str();
        assert_eq!(event["data"]["point_of_sale"], country);
    });
}

#[test]
fn who_travels_is_not_printed() {
    assert_booking(|booking| {
        let passenger = booking.passenger.as_ref().unwrap();
        let printed = format!("{passenger:?}");
        assert!(printed.contains("name: Personal(..)"), "{printed}");
        assert!(!printed.contains(passenger.name.as_str()), "{printed}");
    });
}

#[test]
fn a_schema_says_what_it_is_about() {
    for (kind, name) in [
        (SchemaKind::Booking, "booking"),
        (SchemaKind::Flight, "flight"),
    ] {
        let id = format!("urn:paxflow:schema:{name}:v1");
        assert_eq!(json_schema(kind)["$id"], id.as_str());
    }
}

#[test]
fn every_message_can_be_published_and_consumed() {
    let document = asyncapi();
    for (operation, channel) in [("publish", "events"), ("consume", "queue")] {
        let messages = document["operations"][operation]["messages"].as_array();
        let mut listed: Vec<_> = messages.unwrap().iter().map(|m| &m["$ref"]).collect();
        let there = document["channels"][channel]["messages"].as_object();
        let base = format!("#/channels/{channel}/messages");
        let mut expected: Vec<_> = there
            .unwrap()
            .keys()
            .map(|name| Value::from(format!("{base}/{name}")))
            .collect();
        listed.sort_by_key(|reference| reference.to_string());
        expected.sort_by_key(|reference| reference.to_string());
        assert_eq!(listed, expected.iter().collect::<Vec<_>>());
        assert_eq!(listed.len(), 4);
    }
}
