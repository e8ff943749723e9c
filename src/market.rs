//! What one booking adds to MarketData, and how such contributions add up. Pure.

use std::collections::BTreeMap;
use std::ops::{AddAssign, Neg};

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;

use crate::event::{Booking, BookingStatus};

/// The key of a `flight_demand` row. Ordered as its primary key is, so that iterating a map of them
/// is the global lock order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct DemandKey<'a> {
    /// The flight, known or not.
    pub flight_id: &'a str,
    /// Cabin letter.
    pub cabin: &'a str,
    /// ISO 4217 currency.
    pub currency: &'a str,
}

/// The measures of a `flight_demand` row, or a change to them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Demand {
    /// Not-deleted bookings.
    pub gross_bookings: i64,
    /// The ones that are not cancelled.
    pub bookings: i64,
    /// The cancelled ones.
    pub cancellations: i64,
    /// The ones with status `used`.
    pub used: i64,
    /// The ones with status `no_show`.
    pub no_show: i64,
    /// Sum of total prices over `bookings`, in the currency of the key.
    pub total_revenue: Decimal,
    /// Sum of base fares over `bookings`.
    pub base_revenue: Decimal,
}

impl Demand {
    /// What a single not-deleted booking adds.
    pub fn of(status: BookingStatus, base: Decimal, total: Decimal) -> Self {
        let active = status != BookingStatus::Cancelled;
        // A zero keeps the currency's decimals: sums are stored in the same scale in every order.
        let counted = |amount: Decimal| {
            if active {
                amount
            } else {
                Decimal::new(0, amount.scale())
            }
        };
        Self {
            gross_bookings: 1,
            bookings: i64::from(active),
            cancellations: i64::from(!active),
            used: i64::from(status == BookingStatus::Used),
            no_show: i64::from(status == BookingStatus::NoShow),
            total_revenue: counted(total),
            base_revenue: counted(base),
        }
    }

    /// Whether adding this changes nothing.
    pub fn is_zero(&self) -> bool {
        *self == Self::default()
    }
}

impl Neg for Demand {
    type Output = Self;

    fn neg(self) -> Self {
        Self {
            gross_bookings: -self.gross_bookings,
            bookings: -self.bookings,
            cancellations: -self.cancellations,
            used: -self.used,
            no_show: -self.no_show,
            total_revenue: -self.total_revenue,
            base_revenue: -self.base_revenue,
        }
    }
}

impl AddAssign for Demand {
    fn add_assign(&mut self, other: Self) {
        self.gross_bookings += other.gross_bookings;
        self.bookings += other.bookings;
        self.cancellations += other.cancellations;
        self.used += other.used;
        self.no_show += other.no_show;
        self.total_revenue = sum(self.total_revenue, other.total_revenue);
        self.base_revenue = sum(self.base_revenue, other.base_revenue);
    }
}

/// A sum with the decimals of its terms. `Decimal` itself drops those of a zero, and whether 0 or 0.00
/// is stored would depend on the order.
fn sum(a: Decimal, b: Decimal) -> Decimal {
    let mut sum = a + b;
    sum.rescale(a.scale().max(b.scale()));
    sum
}

/// A stored booking as far as `flight_demand` counts it.
#[derive(Debug, Clone)]
pub struct Counted {
    /// Its flight.
    pub flight_id: String,
    /// Its cabin letter.
    pub cabin: String,
    /// Currency of its price.
    pub currency: String,
    /// What it adds there.
    pub demand: Demand,
}

/// One change to a `flight_demand` row.
#[derive(Debug, Clone, Copy)]
pub struct Delta {
    /// What to add; may be negative.
    pub demand: Demand,
    /// Newest time of the events behind it.
    pub last_event_at: DateTime<Utc>,
}

/// The changes of one batch, one for each row it touches.
#[derive(Debug, Default)]
pub struct Rollup<'a> {
    deltas: BTreeMap<DemandKey<'a>, Delta>,
}

impl<'a> Rollup<'a> {
    /// Counts the new state of a booking.
    pub fn add(&mut self, booking: &'a Booking<'_>, event_at: DateTime<Utc>) {
        let key = DemandKey {
            flight_id: booking.flight_id.as_str(),
            cabin: booking.cabin.as_str(),
            currency: booking.price.currency.as_str(),
        };
        let demand = Demand::of(booking.status, booking.price.base, booking.price.total);
        self.change(key, demand, event_at);
    }

    /// Takes back what the state that was stored before had added.
    pub fn retract(&mut self, stored: &'a Counted, event_at: DateTime<Utc>) {
        let key = DemandKey {
            flight_id: &stored.flight_id,
            cabin: &stored.cabin,
            currency: &stored.currency,
        };
        self.change(key, -stored.demand, event_at);
    }

    fn change(&mut self, key: DemandKey<'a>, demand: Demand, event_at: DateTime<Utc>) {
        let delta = self.deltas.entry(key).or_insert(Delta {
            demand: Demand::default(),
            last_event_at: event_at,
        });
        delta.demand += demand;
        delta.last_event_at = delta.last_event_at.max(event_at);
    }

    /// The changes in lock order, without those that cancel out.
    pub fn changes(&self) -> impl Iterator<Item = (&DemandKey<'a>, &Delta)> {
        self.deltas
            .iter()
            .filter(|(_, delta)| !delta.demand.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cancelled_booking_is_gross_but_brings_no_revenue() {
        let fare = Decimal::new(12050, 2);
        let cancelled = Demand::of(BookingStatus::Cancelled, fare, fare);
        assert_eq!(
            (
                cancelled.gross_bookings,
                cancelled.bookings,
                cancelled.cancellations
            ),
            (1, 0, 1)
        );
        assert_eq!(cancelled.total_revenue.to_string(), "0.00");
    }

    #[test]
    fn a_sum_of_nothing_keeps_the_decimals() {
        for status in [BookingStatus::Cancelled, BookingStatus::Confirmed] {
            let mut demand = Demand::default();
            let booking = Demand::of(status, Decimal::new(1000, 2), Decimal::new(1200, 2));
            for change in [booking, -booking] {
                demand += change;
                assert_eq!(demand.total_revenue.scale(), 2);
                assert_eq!(demand.base_revenue.scale(), 2);
            }
        }
    }

    #[test]
    fn taking_back_what_was_added_leaves_nothing() {
        for status in [
            BookingStatus::Confirmed,
            BookingStatus::Cancelled,
            BookingStatus::Used,
            BookingStatus::NoShow,
        ] {
            let mut demand = Demand::of(status, Decimal::new(10, 1), Decimal::new(25, 1));
            demand += -demand;
            assert!(demand.is_zero(), "{status:?}");
        }
    }
    fn at(hour: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + chrono::TimeDelta::hours(hour)
    }

    fn counted(cabin: &str, status: BookingStatus, base: i64, total: i64) -> Counted {
        Counted {
            flight_id: "F1".to_owned(),
            cabin: cabin.to_owned(),
            currency: "USD".to_owned(),
            demand: Demand::of(status, Decimal::new(base, 2), Decimal::new(total, 2)),
        }
    }

    #[test]
    fn every_measure_adds_up_by_itself() {
        let statuses = [
            BookingStatus::Confirmed,
            BookingStatus::Used,
            BookingStatus::Used,
            BookingStatus::NoShow,
            BookingStatus::NoShow,
            BookingStatus::NoShow,
            BookingStatus::Cancelled,
            BookingStatus::Cancelled,
            BookingStatus::Cancelled,
            BookingStatus::Cancelled,
        ];
        let mut sum = Demand::default();
        for status in statuses {
            sum += Demand::of(status, Decimal::new(1000, 2), Decimal::new(1250, 2));
        }
        let expected = Demand {
            gross_bookings: 10,
            bookings: 6,
            cancellations: 4,
            used: 2,
            no_show: 3,
            total_revenue: Decimal::new(7500, 2),
            base_revenue: Decimal::new(6000, 2),
        };
        assert_eq!(sum, expected);
        assert!(!sum.is_zero());
    }

    #[test]
    fn changes_are_by_cabin_in_lock_order_with_the_newest_time() {
        let economy = counted("Y", BookingStatus::Confirmed, 100, 150);
        let business = counted("C", BookingStatus::Used, 1000, 1500);
        let mut rollup = Rollup::default();
        rollup.retract(&economy, at(2));
        rollup.retract(&business, at(1));
        rollup.retract(&economy, at(3));
        rollup.retract(&economy, at(1));
        let changes: Vec<_> = rollup.changes().collect();
        let cabins: Vec<_> = changes.iter().map(|(key, _)| key.cabin).collect();
        assert_eq!(cabins, ["C", "Y"]);
        let (key, delta) = changes[1];
        assert_eq!((key.flight_id, key.currency), ("F1", "USD"));
        assert_eq!(delta.last_event_at, at(3));
        assert_eq!(delta.demand.gross_bookings, -3);
        assert_eq!(delta.demand.total_revenue, Decimal::new(-450, 2));
    }

    #[test]
    fn a_booking_that_says_the_same_again_changes_nothing() {
        let body = include_bytes!("../fixtures/events/booking_is_made.json");
        let event = crate::event::decode(&crate::event::Message::of_body(body)).unwrap();
        let crate::event::Change::Booking(revision) = &event.change else {
            panic!("it is a booking");
        };
        let crate::event::State::Upserted(booking) = &revision.state else {
            panic!("it is no tombstone");
        };
        let mut rollup = Rollup::default();
        rollup.add(booking, at(1));
        let (key, delta) = rollup.changes().next().unwrap();
        assert_eq!((key.cabin, key.currency), ("Y", "CAD"));
        assert_eq!((delta.demand.gross_bookings, delta.demand.bookings), (1, 1));
        assert_eq!(delta.demand.base_revenue.to_string(), "2500.00");
        let stored = Counted {
            flight_id: key.flight_id.to_owned(),
            cabin: key.cabin.to_owned(),
            currency: key.currency.to_owned(),
            demand: delta.demand,
        };
        rollup.retract(&stored, at(2));
        assert_eq!(rollup.changes().count(), 0);
    }
}
