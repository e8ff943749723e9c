//! A batch of deliveries, decoded and folded: for each key the newest version wins. Pure.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Add;

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::event::{self, Booking, Change, Delivery, Event, Flight, Reason, Rejected, Revision};

/// How a delivery ended. Each ends in exactly one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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

/// The newest state of one key in a batch. Where its version came with two contents, the first of them.
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
    /// All deliveries of the key in their order, where there are several.
    all: Vec<Seen>,
}

/// A delivery of a key, as far as it decides on others.
#[derive(Debug, Clone, Copy)]
struct Seen {
    delivery: usize,
    version: i64,
    content_hash: [u8; 16],
}

impl<T> Newest<'_, T> {
    fn seen(&self) -> Seen {
        Seen {
            delivery: self.delivery,
            version: self.revision.version,
            content_hash: self.revision.content_hash,
        }
    }

    /// Tells the verdict of each delivery of the key, judged one after the other as if each had come alone to the version and
    /// content hash that are stored, if any are. It is the newest state that is applied, or none.
    pub fn judge(&self, stored: Option<(i64, &[u8])>, mut tell: impl FnMut(usize, Verdict)) {
        let alone = [self.seen()];
        let all = if self.all.is_empty() {
            &alone[..]
        } else {
            &self.all
        };
        let (mut kept, mut is_stored) = (stored, true);
        for seen in all {
            let verdict = match kept.map(|kept| seen.precedence(kept)) {
                None | Some(Precedence::Newer) => {
                    (kept, is_stored) = (Some((seen.version, &seen.content_hash[..])), false);
                    if seen.delivery == self.delivery {
                        Verdict::Applied
                    } else {
                        Verdict::Folded
                    }
                }
                Some(Precedence::Duplicate) => Verdict::Duplicate,
                Some(Precedence::Conflict) => Verdict::Quarantined,
                Some(Precedence::Stale) if is_stored => Verdict::Stale,
                Some(Precedence::Stale) => Verdict::Folded,
            };
            tell(seen.delivery, verdict);
        }
    }
}

/// The newest states by key. Iterating is the lock order.
pub type ByKey<'a, T> = BTreeMap<Cow<'a, str>, Newest<'a, T>>;

/// A folded batch: what to write, and what breaks a rule whatever is stored.
#[derive(Debug, Default)]
pub struct Folded<'a> {
    /// Newest state of each flight.
    pub flights: ByKey<'a, Flight<'a>>,
    /// Newest state of each booking.
    pub bookings: ByKey<'a, Booking<'a>>,
    /// Deliveries that break a rule, by their place in the batch.
    pub rejected: Vec<(usize, Rejected)>,
    /// Newest event time in the batch.
    pub last_event_at: Option<DateTime<Utc>>,
}

/// Decodes a batch and keeps the newest version of each key.
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
        match change {
            Change::Booking(revision) => {
                keep_newest(&mut self.bookings, delivery, revision, source, event_at);
            }
            Change::Flight(revision) => {
                keep_newest(&mut self.flights, delivery, revision, source, event_at);
            }
        }
    }
}

fn keep_newest<'a, T>(
    states: &mut ByKey<'a, T>,
    delivery: usize,
    revision: Revision<'a, T>,
    source: Cow<'a, str>,
    event_at: DateTime<Utc>,
) {
    let mut newest = Newest {
        delivery,
        revision,
        source,
        event_at,
        all: Vec::new(),
    };
    match states.entry(newest.revision.key.clone()) {
        Entry::Vacant(place) => {
            place.insert(newest);
        }
        Entry::Occupied(mut place) => {
            let kept = place.get_mut();
            if kept.all.is_empty() {
                kept.all.push(kept.seen());
            }
            kept.all.push(newest.seen());
            if newest.revision.version > kept.revision.version {
                newest.all = std::mem::take(&mut kept.all);
                place.insert(newest);
            }
        }
    }
}

/// How a state stands to the one that is kept already.
enum Precedence {
    /// Its version is higher: it replaces the other.
    Newer,
    /// The same version and content.
    Duplicate,
    /// The same version, another content: a fault of the producer.
    Conflict,
    /// Its version is lower.
    Stale,
}

impl Seen {
    /// The version guard. Time never decides.
    fn precedence(&self, (kept_version, kept_hash): (i64, &[u8])) -> Precedence {
        match self.version.cmp(&kept_version) {
            Ordering::Greater => Precedence::Newer,
            Ordering::Less => Precedence::Stale,
            Ordering::Equal if self.content_hash == kept_hash => Precedence::Duplicate,
            Ordering::Equal => Precedence::Conflict,
        }
    }
}

/// The rejection of another content for a version already seen.
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
            assert_eq!((folded.bookings.len(), folded.rejected.len()), (1, 0));
        }
    }

    /// Version and content of a key.
    type State<'t> = (i64, &'t str);
    /// What is stored, what comes, and what is said of it.
    type Case<'t> = (Option<State<'t>>, &'t [State<'t>], &'t [Verdict]);

    fn of_one_key(states: &[State<'_>]) -> Vec<Delivery> {
        let state =
            |&(version, seat): &State<'_>| booking(json!({ "version": version, "seat": seat }));
        states.iter().map(state).collect()
    }

    fn cases() -> [Case<'static>; 12] {
        use Verdict::{Applied, Duplicate, Folded, Quarantined, Stale};
        let nothing = None;
        [
            (
                nothing,
                &[(1, "A"), (1, "A"), (1, "B")],
                &[Applied, Duplicate, Quarantined],
            ),
            (
                nothing,
                &[(1, "A"), (1, "B"), (1, "A")],
                &[Applied, Quarantined, Duplicate],
            ),
            (
                nothing,
                &[(1, "A"), (2, "A"), (1, "B")],
                &[Folded, Applied, Folded],
            ),
            (
                nothing,
                &[(2, "A"), (1, "A"), (3, "A")],
                &[Folded, Folded, Applied],
            ),
            (
                nothing,
                &[(1, "A"), (1, "B"), (2, "A")],
                &[Folded, Quarantined, Applied],
            ),
            (
                Some((1, "B")),
                &[(1, "A"), (1, "B")],
                &[Quarantined, Duplicate],
            ),
            (
                Some((1, "B")),
                &[(1, "A"), (1, "A")],
                &[Quarantined, Quarantined],
            ),
            (
                Some((1, "B")),
                &[(1, "A"), (2, "A")],
                &[Quarantined, Applied],
            ),
            (
                Some((1, "A")),
                &[(2, "A"), (2, "B"), (2, "A")],
                &[Applied, Quarantined, Duplicate],
            ),
            (Some((5, "A")), &[(1, "A"), (1, "B")], &[Stale, Stale]),
            (
                Some((5, "A")),
                &[(4, "A"), (5, "A"), (5, "B")],
                &[Stale, Duplicate, Quarantined],
            ),
            (
                Some((5, "A")),
                &[(4, "A"), (6, "A"), (5, "A")],
                &[Stale, Applied, Folded],
            ),
        ]
    }

    #[test]
    fn each_is_judged_as_if_it_had_come_alone() {
        for (stored, states, expected) in cases() {
            let stored = stored.map(|stored| of_one_key(&[stored]));
            let stored = stored.as_deref().map(fold);
            let stored = stored.as_ref().map(|stored| {
                let stored = &stored.bookings.values().next().unwrap().revision;
                (stored.version, &stored.content_hash[..])
            });
            let deliveries = of_one_key(states);
            let folded = fold(&deliveries);
            assert_eq!(folded.rejected, []);
            let mut verdicts = vec![None; states.len()];
            let newest = folded.bookings.values().next().unwrap();
            newest.judge(stored, |delivery, verdict| {
                assert_eq!(verdicts[delivery].replace(verdict), None);
            });
            let verdicts: Vec<_> = verdicts.into_iter().flatten().collect();
            assert_eq!(verdicts, expected, "{states:?}");
        }
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
