//! One booking and what may happen to it.

use super::data::{Code, Fare};
use super::dice::Dice;
use super::fares::{Currency, Price, classes, lead_days};
use super::flights::{Flight, FlightKey};
use crate::event::{BookingStatus, Cabin, PaymentStatus};

const HOUR_S: i64 = 3_600;
const DAY_S: i64 = 86_400;

/// (weight, country): where tickets are sold.
const POINTS_OF_SALE: [(u32, PointOfSale); 4] = [
    (82, PointOfSale::UnitedStates),
    (9, PointOfSale::Canada),
    (5, PointOfSale::Japan),
    (4, PointOfSale::Kuwait),
];

const CABINS: [(u32, Cabin); 4] = [
    (88, Cabin::Economy),
    (6, Cabin::PremiumEconomy),
    (4, Cabin::Business),
    (2, Cabin::First),
];

const PARTY_SIZES: [(u32, u8); 4] = [(63, 1), (26, 2), (6, 3), (5, 4)];

#[derive(Clone, Copy, PartialEq)]
pub(super) enum PointOfSale {
    UnitedStates,
    Canada,
    Japan,
    Kuwait,
}

impl PointOfSale {
    pub(super) fn country(self) -> &'static str {
        match self {
            Self::UnitedStates => "US",
            Self::Canada => "CA",
            Self::Japan => "JP",
            Self::Kuwait => "KW",
        }
    }

    pub(super) fn currency(self) -> Currency {
        match self {
            Self::UnitedStates => Currency::Usd,
            Self::Canada => Currency::Cad,
            Self::Japan => Currency::Jpy,
            Self::Kuwait => Currency::Kwd,
        }
    }

    /// The clock that its booking times are written with.
    pub(super) fn utc_offset_hours(self) -> i64 {
        match self {
            Self::UnitedStates => 0,
            Self::Canada => -5,
            Self::Japan => 9,
            Self::Kuwait => 3,
        }
    }
}

/// The part of a flight that a booking repeats.
#[derive(Clone, Copy)]
pub(super) struct Trip {
    pub(super) flight: FlightKey,
    pub(super) market: u32,
    pub(super) origin: Code,
    pub(super) departure: i64,
    pub(super) arrival: i64,
    /// Seats beyond economy are sold on large aircraft only.
    pub(super) has_cabins: bool,
}

impl Trip {
    pub(super) fn on(flight: &Flight) -> Self {
        Self {
            flight: flight.key,
            market: flight.market,
            origin: flight.origin,
            departure: flight.departure,
            arrival: flight.arrival(),
            has_cabins: flight.seats >= 100,
        }
    }
}

/// Passengers who book together share a record locator, a flight and a moment.
#[derive(Clone, Copy)]
pub(super) struct Party {
    pub(super) serial: u32,
    pub(super) size: u8,
    pub(super) trip: Trip,
    pub(super) point_of_sale: PointOfSale,
    pub(super) cabin: Cabin,
    pub(super) booked_at: i64,
    pub(super) price: Price,
    /// Decides everything about the party that has no distribution of its own: names, channel, contacts.
    pub(super) traits: u32,
}

impl Party {
    pub(super) fn draw(serial: u32, trip: Trip, fare: Fare, dice: &mut Dice) -> Self {
        let lead = lead_days(dice);
        let point_of_sale = dice.weighted(&POINTS_OF_SALE);
        let cabin = if trip.has_cabins {
            dice.weighted(&CABINS)
        } else {
            Cabin::Economy
        };
        Self {
            serial,
            size: dice.weighted(&PARTY_SIZES),
            trip,
            point_of_sale,
            cabin,
            booked_at: trip.departure - lead * DAY_S - dice.between(HOUR_S, DAY_S),
            price: Price::draw(fare, lead, cabin, point_of_sale.currency(), dice),
            traits: dice.bits(),
        }
    }

    pub(super) fn booking(&self, passenger: u8, dice: &mut Dice) -> Booking {
        Booking {
            party: self.serial,
            passenger,
            version: 1,
            trip: self.trip,
            point_of_sale: self.point_of_sale,
            booked_at: self.booked_at,
            cabin: self.cabin,
            class: dice.pick(classes(self.cabin)),
            seat: None,
            price: self.price,
            payment: if dice.percent(20) {
                PaymentStatus::Pending
            } else {
                PaymentStatus::Paid
            },
            status: BookingStatus::Confirmed,
            deleted: false,
            traits: self.traits,
            changed_at: self.booked_at,
        }
    }
}

#[derive(Clone, Copy)]
pub(super) struct Booking {
    pub(super) party: u32,
    pub(super) passenger: u8,
    pub(super) version: u32,
    pub(super) trip: Trip,
    pub(super) point_of_sale: PointOfSale,
    pub(super) booked_at: i64,
    pub(super) cabin: Cabin,
    pub(super) class: u8,
    /// Row and letter.
    pub(super) seat: Option<(u8, u8)>,
    pub(super) price: Price,
    pub(super) payment: PaymentStatus,
    pub(super) status: BookingStatus,
    pub(super) deleted: bool,
    pub(super) traits: u32,
    /// When the newest version came to be: the time of the cancellation too, since all that ever
    /// follows one is a reinstatement or a tombstone.
    pub(super) changed_at: i64,
}

impl Booking {
    pub(super) fn is_active(&self) -> bool {
        !self.deleted && self.status != BookingStatus::Cancelled
    }

    /// The next version, at the given time or just after the one before.
    fn touch(&mut self, at: i64) {
        // A gap now and then: the contract promises growth, not a count.
        self.version += if self.traits >> 24 & 15 == 0 { 2 } else { 1 };
        self.changed_at = at.max(self.changed_at + 60);
    }

    pub(super) fn cancel(&mut self, at: i64) {
        self.touch(at);
        self.status = BookingStatus::Cancelled;
        self.payment = match self.payment {
            PaymentStatus::Paid => PaymentStatus::Refunded,
            _ => PaymentStatus::Cancelled,
        };
    }

    pub(super) fn delete(&mut self, at: i64) {
        self.touch(at);
        self.deleted = true;
    }

    /// Back from a cancellation or a tombstone.
    pub(super) fn reinstate(&mut self, at: i64) {
        self.touch(at);
        self.deleted = false;
        self.status = BookingStatus::Confirmed;
        self.payment = PaymentStatus::Paid;
    }

    pub(super) fn pay(&mut self, at: i64) {
        self.touch(at);
        self.payment = PaymentStatus::Paid;
    }

    /// Another flight at the price of its market.
    pub(super) fn rebook(&mut self, trip: Trip, fare: Fare, at: i64, dice: &mut Dice) {
        self.touch(at);
        self.trip = trip;
        if !trip.has_cabins {
            self.cabin = Cabin::Economy;
        }
        self.seat = None;
        self.status = BookingStatus::Confirmed;
        self.reprice(fare, dice);
    }

    pub(super) fn choose_seat(&mut self, at: i64, dice: &mut Dice) {
        self.touch(at);
        let letter = b"ABCDEF"[dice.below(6) as usize];
        let row = dice.between(1, 33) as u8;
        self.seat = match self.seat {
            Some((taken, _)) if taken == row => Some((row + 1, letter)),
            _ => Some((row, letter)),
        };
    }

    pub(super) fn change_price(&mut self, fare: Fare, at: i64, dice: &mut Dice) {
        self.touch(at);
        let before = self.price;
        self.reprice(fare, dice);
        if self.price == before {
            self.price.base += 1;
        }
    }

    pub(super) fn change_currency(&mut self, fare: Fare, at: i64, dice: &mut Dice) {
        self.touch(at);
        self.point_of_sale = match self.point_of_sale {
            PointOfSale::UnitedStates => PointOfSale::Canada,
            PointOfSale::Canada => PointOfSale::Japan,
            PointOfSale::Japan => PointOfSale::Kuwait,
            PointOfSale::Kuwait => PointOfSale::UnitedStates,
        };
        self.reprice(fare, dice);
    }

    pub(super) fn change_cabin(&mut self, fare: Fare, at: i64, dice: &mut Dice) {
        self.touch(at);
        self.cabin = match self.cabin {
            Cabin::Economy => Cabin::PremiumEconomy,
            Cabin::PremiumEconomy => Cabin::Business,
            Cabin::Business => Cabin::First,
            Cabin::First => Cabin::Economy,
        };
        self.reprice(fare, dice);
    }

    /// At the end of the flight: flown, or not turned up.
    pub(super) fn close(&mut self, status: BookingStatus) {
        self.touch(self.trip.arrival + HOUR_S);
        self.status = status;
        if self.payment == PaymentStatus::Pending {
            self.payment = PaymentStatus::Paid;
        }
    }

    fn reprice(&mut self, fare: Fare, dice: &mut Dice) {
        let lead = ((self.trip.departure - self.changed_at) / DAY_S).max(0);
        let currency = self.point_of_sale.currency();
        self.class = dice.pick(classes(self.cabin));
        self.price = Price::draw(fare, lead, self.cabin, currency, dice);
    }

    /// A moment between the newest version and the departure, if any is left.
    pub(super) fn next_moment(&self, dice: &mut Dice) -> i64 {
        let left = (self.trip.departure - self.changed_at).clamp(3_600, 400 * DAY_S);
        self.changed_at + dice.between(60, left)
    }
}
