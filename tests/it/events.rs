//! Events as producers write them. Each helper lays the fields of the test over a plain one.

use paxflow::event::Delivery;
use serde_json::{Value, json};

use crate::canary;

/// A booking of 100.00 USD in economy, with the fields of `data` on top.
pub fn booking(data: Value) -> Value {
    let plain = json!({
        "booking_id": "B1",
        "version": 1,
        "reference": "PAXFLW",
        "flight_id": "F1",
        "booked_at": "2026-03-01T12:00:00Z",
        "cabin": "Y",
        "booking_class": "M",
        "price": price("80.00", "20.00", "100.00", "USD"),
        "payment_status": "paid",
        "status": "confirmed",
    });
    envelope(
        "airline.booking.upserted.v1",
        "booking_id",
        overlay(plain, data),
    )
}

/// A flight from Tokyo to Phoenix with 100 seats, with the fields of `data` on top.
pub fn flight(data: Value) -> Value {
    let plain = json!({
        "flight_id": "F1",
        "version": 1,
        "airline": "PX",
        "flight_number": "100",
        "origin": "NRT",
        "destination": "PHX",
        "scheduled_departure": "2026-04-01T03:00:00Z",
        "scheduled_arrival": "2026-04-01T13:00:00Z",
        "capacity": {"total": 100},
        "status": "scheduled",
    });
    envelope(
        "airline.flight.upserted.v1",
        "flight_id",
        overlay(plain, data),
    )
}

/// The tombstone of a booking.
pub fn booking_deleted(booking_id: &str, version: i64) -> Value {
    let data =
        json!({"booking_id": booking_id, "version": version, "deleted_at": "2026-03-20T00:00:00Z"});
    envelope("airline.booking.deleted.v1", "booking_id", data)
}

/// The tombstone of a flight.
pub fn flight_deleted(flight_id: &str, version: i64) -> Value {
    let data =
        json!({"flight_id": flight_id, "version": version, "deleted_at": "2026-03-20T00:00:00Z"});
    envelope("airline.flight.deleted.v1", "flight_id", data)
}

/// A price; the caller adds up.
pub fn price(base: &str, taxes: &str, total: &str, currency: &str) -> Value {
    json!({"base": base, "taxes": taxes, "total": total, "currency": currency})
}

/// A total price without taxes.
pub fn plain_price(total: &str, currency: &str) -> Value {
    let taxes = if currency == "JPY" { "0" } else { "0.00" };
    price(total, taxes, total, currency)
}

/// The event as the broker would deliver it.
pub fn deliver(event: &Value) -> Delivery {
    let body = serde_json::to_vec(event).unwrap();
    canary::remember(&body);
    Delivery {
        body,
        exchange: "paxflow.events".to_owned(),
        routing_key: event["type"].as_str().unwrap().to_owned(),
        content_type: Some("application/cloudevents+json".to_owned()),
        message_id: Some(event["id"].as_str().unwrap().to_owned()),
        ..Delivery::default()
    }
}

fn envelope(kind: &str, key: &str, data: Value) -> Value {
    let id = format!("{kind}:{}:{}", data[key].as_str().unwrap(), data["version"]);
    json!({
        "specversion": "1.0",
        "id": id,
        "source": "/tests",
        "type": kind,
        "time": "2026-03-01T12:00:00Z",
        "data": data,
    })
}

fn overlay(mut plain: Value, data: Value) -> Value {
    let Value::Object(fields) = data else {
        panic!("fields are an object: {data}")
    };
    plain.as_object_mut().unwrap().extend(fields);
    plain
}
