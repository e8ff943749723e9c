//! What the content hash sees and what it does not.

use serde_json::{Value, json};

use super::*;
use crate::event::Change;

fn hash(event: &Value) -> [u8; 16] {
    hash_of_text(&event.to_string())
}

fn hash_of_text(body: &str) -> [u8; 16] {
    match decode_body(body.as_bytes()).unwrap().change {
        Change::Booking(revision) => revision.content_hash,
        Change::Flight(revision) => revision.content_hash,
    }
}

fn hex(hash: [u8; 16]) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The hashes are stored: if this test fails, every repeated event would become a conflict.
#[test]
fn the_encoding_is_for_ever() {
    let hashes: Vec<_> = [
        "booking_is_made",
        "booking_is_made_with_required_fields_only",
        "booking_is_cancelled",
        "booking_is_deleted",
        "flight_arrives",
        "flight_is_scheduled_with_required_fields_only",
        "flight_is_deleted",
    ]
    .map(|name| format!("{name} {}", hex(hash(&event(name)))))
    .to_vec();
    assert_eq!(
        hashes,
        [
            "GOLDEN",
        ]
    );
}

#[test]
fn spelling_does_not_count() {
    let made = event("booking_is_made");
    let expected = hash(&made);
    for (path, value) in [
        ("data.booked_at", json!("2026-01-05T14:43:48.1210009+11:00")),
        ("data.price.base", json!("2500")),
        ("data.price.taxes", json!("310.4")),
        ("data.cancelled_at", Value::Null),
        ("data.unknown", json!({ "a": [1] })),
        ("id", json!("another")),
        ("time", json!("2026-01-06T00:00:00Z")),
        ("source", json!("/another")),
        ("subject", Value::Null),
    ] {
        assert_eq!(hash(&with(&made, path, value)), expected, "{path}");
    }
    let mut reversed = made.clone();
    let data: Vec<_> = made["data"].as_object().unwrap().clone().into_iter().collect();
    reversed["data"] = data.into_iter().rev().collect();
    assert_eq!(hash(&reversed), expected);
    let escaped = made.to_string().replace("TXP9OL", "\\u0054XP9OL");
    assert_eq!(hash_of_text(&escaped), expected);
}

#[test]
fn every_field_counts() {
    let cases = [
        (
            "booking_is_cancelled",
            json!({
                "booking_id": "x", "version": 9, "reference": "AAAAA", "ticket_number": null,
                "coupon": 2, "flight_id": "x", "journey": null, "passenger": null,
                "booked_at": "2026-01-05T03:43:48.121001Z", "travel_date": "2026-02-01",
                "cabin": "C", "booking_class": "L", "fare_basis": "x", "seat": "1A",
                "point_of_sale": "US", "channel": null, "payment_status": "paid",
                "cancelled_at": "2026-01-20T11:02:00.000001Z",
            }),
        ),
        (
            "flight_arrives",
            json!({
                "flight_id": "x", "version": 10, "airline": "9W", "flight_number": "2110",
                "suffix": null, "origin": "YUL", "destination": "RDU",
                "scheduled_departure": "2026-02-01T00:15:01Z",
                "scheduled_arrival": "2026-02-01T02:00:01Z", "estimated_departure": null,
                "actual_departure": null, "actual_arrival": null, "aircraft": null,
                "capacity": null, "status": "diverted",
            }),
        ),
        (
            "booking_is_deleted",
            json!({ "booking_id": "x", "version": 12, "deleted_at": "2026-02-10T00:00:01Z", "reason": null }),
        ),
    ];
    for (name, changes) in cases {
        let valid = event(name);
        let mut hashes = vec![hash(&valid)];
        for (field, value) in changes.as_object().unwrap() {
            hashes.push(hash(&with(&valid, &format!("data.{field}"), value.clone())));
        }
        let count = hashes.len();
        hashes.sort_unstable();
        hashes.dedup();
        assert_eq!(hashes.len(), count, "{name}");
    }
}

#[test]
fn nested_values_count_under_their_own_name() {
    let made = event("booking_is_made");
    let mut hashes: Vec<_> = [
        ("data.journey", json!({ "origin": "MIA", "destination": "YYZ" })),
        ("data.passenger", json!({ "name": "A", "email": "B" })),
        ("data.passenger", json!({ "name": "A", "phone": "B" })),
        ("data.passenger", json!({ "name": "AB" })),
        ("data.price", json!({ "base": "310.40", "taxes": "2500.00", "total": "2810.40", "currency": "CAD" })),
        ("data.price", json!({ "base": "2500.00", "taxes": "310.40", "total": "2810.40", "currency": "USD" })),
        ("data.status", json!("used")),
    ]
    .into_iter()
    .map(|(path, value)| hash(&with(&made, path, value)))
    .chain([hash(&made)])
    .collect();
    hashes.sort_unstable();
    hashes.dedup();
    assert_eq!(hashes.len(), 8);
}

#[test]
fn a_tombstone_is_no_state() {
    let booking = json!({ "booking_id": "x", "flight_id": "x", "version": 1, "deleted_at": "2026-02-10T00:00:00Z" });
    let deleted = with(&event("booking_is_deleted"), "data", booking.clone());
    let flight = with(&event("flight_is_deleted"), "data", booking);
    assert_ne!(hash(&deleted), hash(&flight));
}
