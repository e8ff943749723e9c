//! One flight and what may happen to it.

use super::data::{Code, Leg, Outcome};
use super::dice::Dice;
use crate::event::FlightStatus;

const HOUR_S: i64 = 3_600;
const DAY_S: i64 = 86_400;

/// Schedules open about eleven months ahead.
const PUBLISHED_DAYS: i64 = 331;

/// What a flight's id is made of. It keeps the first date and origin when the flight moves.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FlightKey {
    pub(super) airline: [u8; 2],
    pub(super) number: u16,
    pub(super) day: i64,
    pub(super) origin: Code,
    /// Tells the flights of an endless time table apart; 0 is not written.
    pub(super) round: u32,
}

#[derive(Clone, Copy)]
pub(super) struct Flight {
    pub(super) key: FlightKey,
    pub(super) version: u32,
    pub(super) market: u32,
    pub(super) origin: Code,
    pub(super) destination: Code,
    /// Scheduled departure, in seconds since the epoch.
    pub(super) departure: i64,
    pub(super) block_min: i64,
    pub(super) registration: &'static str,
    pub(super) aircraft: &'static str,
    /// 0 is unknown.
    pub(super) seats: u16,
    pub(super) status: FlightStatus,
    pub(super) departure_delay_min: i64,
    pub(super) arrival_delay_min: i64,
    pub(super) deleted: bool,
    /// When the newest version came to be.
    pub(super) changed_at: i64,
}

impl Flight {
    /// A real departure as it was first published.
    pub(super) fn of_leg(leg: &Leg, market: u32) -> Self {
        let mut flight = Self {
            key: FlightKey {
                airline: leg.airline,
                number: leg.number,
                day: leg.day,
                origin: leg.origin,
                round: 0,
            },
            version: 1,
            market,
            origin: leg.origin,
            destination: leg.destination,
            departure: leg.departure,
            block_min: leg.block_min,
            registration: leg.registration,
            aircraft: leg.aircraft,
            seats: leg.seats,
            status: FlightStatus::Scheduled,
            departure_delay_min: 0,
            arrival_delay_min: 0,
            deleted: false,
            changed_at: 0,
        };
        flight.publish();
        flight
    }

    /// Dates the first version by the departure.
    pub(super) fn publish(&mut self) {
        let day = self.departure / DAY_S - PUBLISHED_DAYS;
        self.changed_at = day * DAY_S + 2 * HOUR_S + i64::from(self.key.number) % HOUR_S;
    }

    pub(super) fn arrival(&self) -> i64 {
        self.departure + self.block_min * 60
    }

    pub(super) fn actual_departure(&self) -> i64 {
        self.departure + self.departure_delay_min * 60
    }

    pub(super) fn actual_arrival(&self) -> i64 {
        self.arrival() + self.arrival_delay_min * 60
    }

    /// Seats by cabin (Y, W, C, F), for the two flight numbers in three that publish them.
    pub(super) fn cabins(&self) -> Option<[u16; 4]> {
        if self.seats < 100 || self.key.number.is_multiple_of(3) {
            return None;
        }
        let (premium, business, first) = (self.seats / 10, self.seats / 12, self.seats / 25);
        Some([
            self.seats - premium - business - first,
            premium,
            business,
            first,
        ])
    }

    /// The next version, at the given time or just after the one before.
    pub(super) fn touch(&mut self, at: i64) {
        self.version += 1;
        self.changed_at = at.max(self.changed_at + 60);
    }

    /// The last state that a real departure reached.
    pub(super) fn finish(&mut self, leg: &Leg) {
        self.departure_delay_min = leg.departure_delay_min;
        self.arrival_delay_min = leg.arrival_delay_min;
        match leg.outcome {
            Outcome::Arrived => {
                self.status = FlightStatus::Arrived;
                self.touch(self.actual_arrival() + 120);
            }
            Outcome::Diverted => {
                self.status = FlightStatus::Diverted;
                self.touch(self.arrival() + 2 * HOUR_S);
            }
            Outcome::Cancelled => {
                self.status = FlightStatus::Cancelled;
                self.touch(self.departure - 5 * HOUR_S);
            }
        }
    }

    /// Another version of this flight, different from the one before.
    pub(super) fn change(&mut self, dice: &mut Dice) {
        if self.deleted {
            self.deleted = false;
            self.status = FlightStatus::Scheduled;
            self.touch(self.changed_at + HOUR_S);
        } else if self.status == FlightStatus::Cancelled && dice.percent(70) {
            self.status = FlightStatus::Scheduled;
            self.touch(self.changed_at + 2 * HOUR_S);
        } else {
            self.change_published(dice);
        }
    }

    fn change_published(&mut self, dice: &mut Dice) {
        match dice.below(100) {
            0..=24 => self.delay(dice),
            25..=34 if self.status != FlightStatus::Boarding => {
                self.status = FlightStatus::Boarding;
                self.touch(self.departure - 2_400);
            }
            25..=54 if self.status != FlightStatus::Departed => {
                self.status = FlightStatus::Departed;
                self.departure_delay_min += dice.between(-9, 40);
                self.touch(self.actual_departure());
            }
            25..=79 => self.arrive(dice),
            80..=88 if self.status != FlightStatus::Cancelled => {
                self.status = FlightStatus::Cancelled;
                self.touch(self.departure - dice.between(1, 72) * HOUR_S);
            }
            80..=91 => self.move_days(dice),
            92..=96 => self.change_aircraft(dice),
            97 => {
                self.status = FlightStatus::Diverted;
                self.departure_delay_min += 1;
                self.touch(self.arrival() + HOUR_S);
            }
            _ => {
                self.deleted = true;
                self.touch(self.departure - dice.between(1, 90) * DAY_S);
            }
        }
    }

    fn delay(&mut self, dice: &mut Dice) {
        self.status = FlightStatus::Delayed;
        // A delay grows from one version to the next, which keeps the versions different.
        self.departure_delay_min = self.departure_delay_min.max(0) + dice.between(10, 120);
        self.touch(self.departure - 2 * HOUR_S);
    }

    fn arrive(&mut self, dice: &mut Dice) {
        if self.status == FlightStatus::Arrived {
            // A correction by the minute.
            self.arrival_delay_min += 1;
        } else {
            // Never before the departure: no flight makes up more than a sixth of its time.
            let made_up = (self.block_min / 6).min(15);
            self.arrival_delay_min = self.departure_delay_min + dice.between(-made_up, 15);
            self.status = FlightStatus::Arrived;
        }
        self.touch(self.actual_arrival() + 120);
    }

    /// To another date, by whole days; all that was known of its operation is void.
    fn move_days(&mut self, dice: &mut Dice) {
        self.departure += dice.between(1, 3) * DAY_S;
        self.status = FlightStatus::Scheduled;
        self.departure_delay_min = 0;
        self.arrival_delay_min = 0;
        self.touch(self.changed_at + dice.between(1, 30) * DAY_S);
    }

    /// Another aircraft of another size, or one whose size nobody published.
    pub(super) fn change_aircraft(&mut self, dice: &mut Dice) {
        const FLEET: [(u16, &str); 6] = [
            (50, "CRJ-200"),
            (76, "CRJ-900"),
            (128, "A319-131"),
            (150, "A320-232"),
            (199, "A321-231"),
            (0, "ERJ 195"),
        ];
        let (seats, aircraft) = dice.pick(&FLEET);
        self.seats = if seats == self.seats {
            seats + 2
        } else {
            seats
        };
        self.aircraft = aircraft;
        self.registration = "";
        self.touch(self.departure - dice.between(1, 20) * DAY_S);
    }

    /// To another pair of airports at the same time.
    pub(super) fn change_route(
        &mut self,
        market: u32,
        origin: Code,
        destination: Code,
        block_min: i64,
    ) {
        self.market = market;
        self.origin = origin;
        self.destination = destination;
        self.block_min = block_min;
        self.touch(self.departure - 30 * DAY_S);
    }
}
