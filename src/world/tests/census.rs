//! What occurs in a world, counted by reading it like a consumer.

use std::collections::BTreeMap;

use serde_json::Value;

/// What there is in a world: how often each thing occurs.
#[derive(Default)]
pub(super) struct Census {
    counts: BTreeMap<String, u64>,
    pub(super) newest: BTreeMap<String, (i64, Value)>,
}

impl Census {
    fn count(&mut self, what: impl Into<String>) {
        *self.counts.entry(what.into()).or_default() += 1;
    }

    pub(super) fn of(&self, what: &str) -> u64 {
        self.counts.get(what).copied().unwrap_or(0)
    }

    /// Panics where two lines give different contents to one version.
    pub(super) fn take(world: &[u8]) -> Self {
        let mut census = Self::default();
        let mut contents: BTreeMap<(String, i64), &str> = BTreeMap::new();
        for line in super::lines(world) {
            let event: Value = serde_json::from_str(line).unwrap();
            let data = &event["data"];
            let entity = if event["type"].as_str().unwrap().contains("booking") {
                "booking"
            } else {
                "flight"
            };
            let key = data[format!("{entity}_id")].as_str().unwrap();
            let key = format!("{entity} {key}");
            let version = data["version"].as_i64().unwrap();
            census.count("line");
            if let Some(known) = contents.insert((key.clone(), version), line) {
                assert_eq!(known, line, "a conflict");
                census.count("duplicate");
                continue;
            }
            census.take_event(entity, &key, version, &event);
        }
        census
    }

    fn take_event(&mut self, entity: &str, key: &str, version: i64, event: &Value) {
        let data = &event["data"];
        self.count(event["type"].as_str().unwrap());
        if version == 1 {
            self.count(format!("first {entity}"));
        } else if entity == "booking" && data["status"] == "cancelled" {
            self.count("booking cancellation");
        }
        if let Some(capacity) = data["capacity"].as_object() {
            self.count(if capacity.contains_key("by_cabin") {
                "capacity by cabin"
            } else {
                "capacity"
            });
        }
        for name in ["status", "payment_status", "cabin"] {
            if let Some(value) = data[name].as_str() {
                self.count(format!("{entity} {name} {value}"));
            }
        }
        for name in [
            "journey",
            "passenger",
            "ticket_number",
            "seat",
            "channel",
            "fare_basis",
        ] {
            if !data[name].is_null() {
                self.count(format!("booking {name}"));
            }
        }
        if let Some(currency) = data["price"]["currency"].as_str() {
            self.count(currency);
        }
        if entity == "booking" && !data["flight_id"].is_null() {
            let flight = format!("flight {}", data["flight_id"].as_str().unwrap());
            if !self.newest.contains_key(&flight) {
                self.count("booking before its flight");
            }
        }
        match self.newest.get(key) {
            Some((known, _)) if *known > version => self.count(format!("{entity} out of order")),
            Some((_, before)) => {
                for what in differences(entity, before, data) {
                    self.count(what);
                }
                self.newest.insert(key.to_owned(), (version, data.clone()));
            }
            None => {
                self.newest.insert(key.to_owned(), (version, data.clone()));
            }
        }
    }
}

/// What a change did, in words.
fn differences(entity: &str, before: &Value, after: &Value) -> Vec<String> {
    let mut words = Vec::new();
    let deleted = |data: &Value| !data["deleted_at"].is_null();
    if deleted(before) && !deleted(after) {
        words.push(format!("{entity} restored"));
    }
    if deleted(before) || deleted(after) {
        return words;
    }
    for name in [
        "flight_id",
        "cabin",
        "seat",
        "capacity",
        "status",
        "origin",
        "destination",
        "scheduled_departure",
    ] {
        if before[name] != after[name] {
            words.push(format!("{entity} changes {name}"));
        }
    }
    for name in ["currency", "total"] {
        if before["price"][name] != after["price"][name] {
            words.push(format!("{entity} changes {name}"));
        }
    }
    if before["status"] == "cancelled" && after["status"] != "cancelled" {
        words.push(format!("{entity} reinstated"));
    }
    words
}

/// Bookings whose flight never comes.
pub(super) fn pending(census: &Census) -> usize {
    let flight_of = |data: &Value| data["flight_id"].as_str().map(|id| format!("flight {id}"));
    let bookings = census
        .newest
        .iter()
        .filter(|(key, _)| key.starts_with("booking"));
    bookings
        .filter_map(|(_, (_, data))| flight_of(data))
        .filter(|flight| !census.newest.contains_key(flight))
        .count()
}

/// Flights with at least as many active bookings as seats.
pub(super) fn closed_flights(census: &Census) -> usize {
    let mut active: BTreeMap<&str, u64> = BTreeMap::new();
    for (_, data) in census.newest.values() {
        if !data["booking_id"].is_null()
            && !data["status"].is_null()
            && data["status"] != "cancelled"
        {
            *active
                .entry(data["flight_id"].as_str().unwrap())
                .or_default() += 1;
        }
    }
    let full = |id: &str, booked: u64| {
        let (_, flight) = census.newest.get(&format!("flight {id}"))?;
        let seats = flight["capacity"]["total"].as_u64()?;
        Some(flight["status"] != "cancelled" && booked >= seats)
    };
    active
        .iter()
        .filter(|(id, booked)| full(id, **booked) == Some(true))
        .count()
}
