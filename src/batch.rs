//! A batch of deliveries, decoded and folded: for each key the newest version wins. Pure.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Add;

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::event::{self, Booking, Change, Event, Flight, Message, Reason, Rejected, Revision};

/// A message as the broker delivered it, with what quarantine keeps of it.
#[derive(Debug, Clone, Default)]
pub struct Delivery {
    /// Number of the delivery on its channel.
    pub tag: u64,
    /// The body exactly as received.
    pub body: Vec<u8>,
    /// Exchange it was published to.
    pub exchange: String,
    /// Routing key it was published with.
    pub routing_key: String,
    /// AMQP `content_type`.
    pub content_type: Option<String>,
    /// AMQP `content_encoding`.
    pub content_encoding: Option<String>,
    /// AMQP `message_id`.
    pub message_id: Option<String>,
    /// AMQP headers as a JSON object.
    pub headers: serde_json::Map<String, serde_json::Value>,
}

impl Delivery {
    fn message(&self) -> Message<'_> {
        Message {
            body: &self.body,
            exchange: &self.exchange,
            routing_key: &self.routing_key,
            content_type: self.content_type.as_deref(),
            content_encoding: self.content_encoding.as_deref(),
            message_id: self.message_id.as_deref(),
        }
    }
}

/// How a delivery ended. Each ends in exactly one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It changed a row.
    Applied,
    /// Its version was stored already, with the same content.
    Duplicate,
    /// A higher version was stored already.
    Stale,
    /// A higher version of its key stood in the same batch.
    Folded,
    /// It broke a rule and was set aside.
    Quarantined,
}

/// Deliveries by verdict; they add up to what was received.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct VerdictCounts {
    /// See [`Verdict::Applied`].
    pub applied: u64,
    /// See [`Verdict::Duplicate`].
    pub duplicate: u64,
    /// See [`Verdict::Stale`].
    pub stale: u64,
    /// See [`Verdict::Folded`].
    pub folded: u64,
    /// See [`Verdict::Quarantined`].
    pub quarantined: u64,
}

impl VerdictCounts {
    /// Counts one more delivery.
    pub fn count(&mut self, verdict: Verdict) {
        *match verdict {
            Verdict::Applied => &mut self.applied,
            Verdict::Duplicate => &mut self.duplicate,
            Verdict::Stale => &mut self.stale,
            Verdict::Folded => &mut self.folded,
            Verdict::Quarantined => &mut self.quarantined,
        } += 1;
    }

    /// All deliveries counted.
    pub fn total(&self) -> u64 {
        self.applied + self.duplicate + self.stale + self.folded + self.quarantined
    }
}

impl Add for VerdictCounts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            applied: self.applied + other.applied,
            duplicate: self.duplicate + other.duplicate,
            stale: self.stale + other.stale,
            folded: self.folded + other.folded,
            quarantined: self.quarantined + other.quarantined,
        }
    }
}

/// The newest state of one key in a batch.
#[derive(Debug)]
pub struct Newest<'a, T> {
    /// Which delivery of the batch it came with.
    pub delivery: usize,
    /// The state.
    pub revision: Revision<'a, T>,
    /// CloudEvents `source` of the event.
    pub source: Cow<'a, str>,
    /// CloudEvents `time` of the event.
    pub event_at: DateTime<Utc>,
}

/// The newest states by key. Iterating is the lock order.
pub type ByKey<'a, T> = BTreeMap<Cow<'a, str>, Newest<'a, T>>;

/// A folded batch: what to write, and what is decided without the database.
#[derive(Debug, Default)]
pub struct Folded<'a> {
    /// Newest state of each flight.
    pub flights: ByKey<'a, Flight<'a>>,
    /// Newest state of each booking.
    pub bookings: ByKey<'a, Booking<'a>>,
    /// Deliveries that break a rule, by their place in the batch.
    pub rejected: Vec<(usize, Rejected)>,
    /// Deliveries decided here: duplicates and folded ones. The rejected are not among them.
    pub counts: VerdictCounts,
    /// Newest event time in the batch.
    pub last_event_at: Option<DateTime<Utc>>,
}

/// Decodes a batch and keeps the newest version of each key.
///
/// Of two contents for one version the first delivery stays and the other is rejected.
pub fn fold(deliveries: &[Delivery]) -> Folded<'_> {
    let mut folded = Folded::default();
    for (index, delivery) in deliveries.iter().enumerate() {
        match event::decode(&delivery.message()) {
            Ok(event) => folded.take(index, event),
            Err(rejected) => folded.rejected.push((index, rejected)),
        }
    }
    folded
}

impl<'a> Folded<'a> {
    fn take(&mut self, delivery: usize, event: Event<'a>) {
        self.last_event_at = self.last_event_at.max(Some(event.time));
        let Event {
            source,
            time: event_at,
            change,
            ..
        } = event;
        let loser = match change {
            Change::Booking(revision) => keep_newest(
                &mut self.bookings,
                Newest {
                    delivery,
                    revision,
                    source,
                    event_at,
                },
            ),
            Change::Flight(revision) => keep_newest(
                &mut self.flights,
                Newest {
                    delivery,
                    revision,
                    source,
                    event_at,
                },
            ),
        };
        match loser {
            None => {}
            Some(Precedence::Newer | Precedence::Stale) => self.counts.count(Verdict::Folded),
            Some(Precedence::Duplicate) => self.counts.count(Verdict::Duplicate),
            Some(Precedence::Conflict) => self.rejected.push((delivery, conflict())),
        }
    }
}

/// Puts a state into its place; `Some` tells how it stood to the one that was there, since then one
/// of the two is decided.
fn keep_newest<'a, T>(states: &mut ByKey<'a, T>, newest: Newest<'a, T>) -> Option<Precedence> {
    match states.entry(newest.revision.key.clone()) {
        Entry::Vacant(place) => {
            place.insert(newest);
            None
        }
        Entry::Occupied(mut place) => {
            let kept = &place.get().revision;
            let precedence = newest.revision.precedence(kept.version, &kept.content_hash);
            if precedence == Precedence::Newer {
                place.insert(newest);
            }
            Some(precedence)
        }
    }
}

/// How a state stands to the one that is kept already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precedence {
    /// Its version is higher: it replaces the other.
    Newer,
    /// The same version and content.
    Duplicate,
    /// The same version, another content: a fault of the producer.
    Conflict,
    /// Its version is lower.
    Stale,
}

impl<T> Revision<'_, T> {
    /// The version guard: how this state stands to a kept one. Time never decides.
    pub fn precedence(&self, kept_version: i64, kept_hash: &[u8]) -> Precedence {
        match self.version.cmp(&kept_version) {
            Ordering::Greater => Precedence::Newer,
            Ordering::Less => Precedence::Stale,
            Ordering::Equal if self.content_hash == kept_hash => Precedence::Duplicate,
            Ordering::Equal => Precedence::Conflict,
        }
    }
}

/// What is said of the second content of one version.
pub fn conflict() -> Rejected {
    Rejected {
        reason: Reason::VersionConflict,
        path: "$.data.version".to_owned(),
        detail:
            "another content of this key and version came first; send changes with a higher version"
                .to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use serde_json::{Value, json};

    use super::*;
    use crate::event::CONTENT_TYPE;

    fn delivery(mut event: Value, change: Value) -> Delivery {
        for (field, value) in change.as_object().unwrap() {
            event["data"][field] = value.clone();
        }
        Delivery {
            body: event.to_string().into_bytes(),
            content_type: Some(CONTENT_TYPE.to_owned()),
            ..Delivery::default()
        }
    }

    fn booking(change: Value) -> Delivery {
        let event = include_str!("../fixtures/events/booking_is_made.json");
        delivery(serde_json::from_str(event).unwrap(), change)
    }

    fn flight(change: Value) -> Delivery {
        let event = include_str!("../fixtures/events/flight_is_scheduled.json");
        delivery(serde_json::from_str(event).unwrap(), change)
    }

    fn all_verdicts() -> VerdictCounts {
        let mut counts = VerdictCounts::default();
        let verdicts = [
            Verdict::Applied,
            Verdict::Duplicate,
            Verdict::Stale,
            Verdict::Folded,
            Verdict::Quarantined,
        ];
        for (times, verdict) in (1..).zip(verdicts) {
            for _ in 0..times {
                counts.count(verdict);
            }
        }
        counts
    }

    #[test]
    fn verdicts_are_counted_one_by_one_and_add_up() {
        let counts = all_verdicts();
        let each = |factor| VerdictCounts {
            applied: factor,
            duplicate: 2 * factor,
            stale: 3 * factor,
            folded: 4 * factor,
            quarantined: 5 * factor,
        };
        assert_eq!(counts, each(1));
        assert_eq!(counts.total(), 15);
        assert_eq!(counts + counts + counts, each(3));
    }

    #[test]
    fn the_highest_version_stays_wherever_it_stands() {
        let versions = [3, 9, 5];
        let deliveries = versions.map(|version| booking(json!({ "version": version })));
        for order in [[0, 1, 2], [1, 0, 2], [2, 0, 1]] {
            let deliveries = order.map(|place| deliveries[place].clone());
            let folded = fold(&deliveries);
            let newest = folded.bookings.values().next().unwrap();
            assert_eq!(newest.revision.version, 9);
            let at = order.iter().position(|place| *place == 1);
            assert_eq!(Some(newest.delivery), at);
            assert_eq!((folded.counts.folded, folded.counts.total()), (2, 2));
            assert_eq!((folded.bookings.len(), folded.rejected.len()), (1, 0));
        }
    }

    #[test]
    fn what_comes_twice_is_a_duplicate_and_what_contradicts_it_is_rejected() {
        let other = flight(json!({ "status": "cancelled" }));
        let folded = [flight(json!({})), flight(json!({})), other];
        let folded = fold(&folded);
        assert_eq!(folded.flights.values().next().unwrap().delivery, 0);
        assert_eq!((folded.counts.duplicate, folded.counts.total()), (1, 1));
        assert_eq!(folded.rejected, [(2, conflict())]);
        assert_eq!(folded.rejected[0].1.reason, Reason::VersionConflict);
    }

    #[test]
    fn keys_come_in_the_order_in_which_they_are_locked() {
        let keys = ["b", "a", "C", "aa"];
        let deliveries = keys.map(|key| booking(json!({ "booking_id": key })));
        let folded = fold(&deliveries);
        let sorted: Vec<&str> = folded.bookings.keys().map(AsRef::as_ref).collect();
        assert_eq!(sorted, ["C", "a", "aa", "b"]);
    }

    #[test]
    fn a_bad_message_keeps_its_place_and_its_neighbours() {
        let bad = booking(json!({ "version": 0 }));
        let folded = [booking(json!({})), bad, flight(json!({}))];
        let folded = fold(&folded);
        let places: Vec<_> = folded.rejected.iter().map(|(place, _)| *place).collect();
        assert_eq!(places, [1]);
        assert_eq!((folded.bookings.len(), folded.flights.len()), (1, 1));
        assert_eq!(folded.counts, VerdictCounts::default());
    }

    #[test]
    fn the_newest_event_time_counts_wherever_it_stands() {
        let newest = DateTime::UNIX_EPOCH + TimeDelta::days(20_000);
        let times = [0, 2, 1].map(|hours| newest - TimeDelta::hours(hours));
        let deliveries = times.map(|time| {
            let event = booking(json!({}));
            let mut event: Value = serde_json::from_slice(&event.body).unwrap();
            event["time"] = json!(time.to_rfc3339());
            delivery(event, json!({}))
        });
        assert_eq!(fold(&deliveries).last_event_at, Some(newest));
        assert_eq!(fold(&[]).last_event_at, None);
    }

    #[test]
    fn a_message_is_judged_with_its_properties() {
        let good = booking(json!({}));
        let bad = [
            Delivery {
                exchange: "paxflow.events".to_owned(),
                routing_key: "airline.flight.upserted.v1".to_owned(),
                ..good.clone()
            },
            Delivery {
                content_type: None,
                ..good.clone()
            },
            Delivery {
                content_encoding: Some("gzip".to_owned()),
                ..good.clone()
            },
            Delivery {
                message_id: Some("another".to_owned()),
                ..good.clone()
            },
        ];
        assert_eq!(fold(&bad).rejected.len(), bad.len());
        assert_eq!(fold(&[good]).rejected.len(), 0);
    }
}
