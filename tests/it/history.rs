//! Generated histories: what a few flights and bookings go through, and the ways it may arrive.

use chrono::{DateTime, TimeDelta, Utc};
use rand::rngs::ChaCha8Rng;
use rand::seq::{IndexedMutRandom, IndexedRandom, SliceRandom};
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use crate::events;

/// With a fixed offset, so that the model needs no time zone data, and one that nobody knows.
const AIRPORTS: [&str; 6] = ["NRT", "KWI", "PHX", "HNL", "KEF", "ZZZ"];
const EVENTS_MAX: usize = 40;
const APPLIERS_MAX: usize = 4;

/// A seeded source of histories.
pub struct Generator {
    rng: ChaCha8Rng,
}

impl Generator {
    /// The same seed makes the same histories.
    pub fn new(seed: u64) -> Self {
        Self {
            rng: ChaCha8Rng::seed_from_u64(seed),
        }
    }

    /// Every version of a few flights and bookings, one event each, sorted by key and version.
    pub fn history(&mut self) -> Vec<Value> {
        let flights = self.rng.random_range(1..=4);
        let bookings = self.rng.random_range(1..=8);
        let mut history = Vec::new();
        for flight in 0..flights {
            for version in self.versions() {
                history.push(self.flight(&format!("F{flight}"), version));
            }
        }
        for booking in 0..bookings {
            for version in self.versions() {
                history.push(self.booking(&format!("B{booking}"), version, flights));
            }
        }
        // Which events of a long history fall away makes gaps, and flights that are never seen.
        while history.len() > EVENTS_MAX {
            let index = self.rng.random_range(0..history.len());
            history.remove(index);
        }
        history
    }

    /// The events shuffled, some of them more than once, cut into batches for 1 to 4 appliers.
    pub fn deliveries(&mut self, history: &[Value]) -> Vec<Vec<Vec<Value>>> {
        let mut arriving = history.to_vec();
        for event in history {
            for copy in 0..self.rng.random_range(0..=2) {
                arriving.push(self.copy(event, copy));
            }
        }
        arriving.shuffle(&mut self.rng);
        let mut appliers = vec![Vec::new(); self.rng.random_range(1..=APPLIERS_MAX)];
        let batch_max = *[1, 3, 10, 100].choose(&mut self.rng).unwrap();
        let mut rest = arriving.as_slice();
        while !rest.is_empty() {
            let size = self.rng.random_range(1..=batch_max).min(rest.len());
            let (batch, later) = rest.split_at(size);
            appliers
                .choose_mut(&mut self.rng)
                .unwrap()
                .push(batch.to_vec());
            rest = later;
        }
        appliers
    }

    /// The same event delivered again, or published again at another time under another id.
    fn copy(&mut self, event: &Value, number: u32) -> Value {
        let mut copy = event.clone();
        if self.rng.random_bool(0.5) {
            copy["id"] = json!(format!("{}:again{number}", event["id"].as_str().unwrap()));
            copy["time"] = json!("2026-03-02T08:00:00+02:00");
        }
        copy
    }

    fn versions(&mut self) -> Vec<i64> {
        let kept = self.rng.random_range(1..=6);
        let mut versions: Vec<i64> = (1..=6).collect();
        versions.shuffle(&mut self.rng);
        versions.truncate(kept);
        versions.sort_unstable();
        versions
    }

    /// Some state of a flight, or its tombstone.
    pub fn flight(&mut self, flight_id: &str, version: i64) -> Value {
        if self.rng.random_bool(0.15) {
            return events::flight_deleted(flight_id, version);
        }
        let route: Vec<_> = AIRPORTS.sample(&mut self.rng, 2).collect();
        // Around two midnights, so that the local date differs from the UTC date.
        let departure = instant("2026-04-01T00:00:00Z") + self.time_delta(TimeDelta::hours(48));
        let mut flight = json!({
            "flight_id": flight_id,
            "version": version,
            "origin": route[0],
            "destination": route[1],
            "scheduled_departure": departure.to_rfc3339(),
            "scheduled_arrival": (departure + TimeDelta::hours(9)).to_rfc3339(),
            "status": self.one_of(&["scheduled", "delayed", "departed", "arrived", "diverted", "cancelled"]),
        });
        flight["capacity"] = match self.rng.random_range(0..4) {
            0 => Value::Null,
            1 => json!({"total": 3, "by_cabin": {"C": 1, "Y": 2}}),
            _ => json!({"total": self.rng.random_range(1..=4)}),
        };
        events::flight(flight)
    }

    /// Some state of a booking of one of so many flights, or its tombstone.
    pub fn booking(&mut self, booking_id: &str, version: i64, flights: usize) -> Value {
        if self.rng.random_bool(0.12) {
            return events::booking_deleted(booking_id, version);
        }
        let booked_at = instant("2025-02-01T00:00:00Z") + self.time_delta(TimeDelta::days(440));
        let status = self.one_of(&[
            "confirmed",
            "confirmed",
            "confirmed",
            "cancelled",
            "cancelled",
            "used",
            "no_show",
        ]);
        let mut booking = json!({
            "booking_id": booking_id,
            "version": version,
            // One more than there are: some bookings wait for ever.
            "flight_id": format!("F{}", self.rng.random_range(0..=flights)),
            "booked_at": booked_at.to_rfc3339(),
            "cabin": self.one_of(&["F", "C", "W", "Y", "Y", "Y"]),
            "price": self.price(),
            "status": status,
        });
        if status == "cancelled" {
            let cancelled_at = booked_at + self.time_delta(TimeDelta::days(40));
            booking["cancelled_at"] = json!(cancelled_at.to_rfc3339());
        }
        events::booking(booking)
    }

    fn price(&mut self) -> Value {
        let (base, taxes) = (
            self.rng.random_range(0..500_i64),
            self.rng.random_range(0..100_i64),
        );
        let total = base + taxes;
        match self.rng.random_range(0..4) {
            0 => events::price(
                &base.to_string(),
                &taxes.to_string(),
                &total.to_string(),
                "JPY",
            ),
            1 => events::price(
                &format!("{base}.125"),
                &format!("{taxes}.5"),
                &format!("{total}.625"),
                "KWD",
            ),
            // An amount may be spelt with fewer decimals than its currency has.
            2 => events::price(
                &base.to_string(),
                &format!("{taxes}.5"),
                &format!("{total}.50"),
                "USD",
            ),
            _ => events::price(
                &format!("{base}.95"),
                &format!("{taxes}.04"),
                &format!("{total}.99"),
                "USD",
            ),
        }
    }

    fn one_of(&mut self, values: &[&'static str]) -> &'static str {
        values.choose(&mut self.rng).unwrap()
    }

    fn time_delta(&mut self, max: TimeDelta) -> TimeDelta {
        TimeDelta::microseconds(self.rng.random_range(0..=max.num_microseconds().unwrap()))
    }
}

fn instant(text: &str) -> DateTime<Utc> {
    DateTime::parse_from_rfc3339(text).unwrap().to_utc()
}
