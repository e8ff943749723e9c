//! The sample world: the real flights of two weeks, bookings for them, and every case worth showing.

use std::io::{self, Write};

use super::bookings::{Booking, Party, Trip};
use super::data::{Leg, Outcome};
use super::dice::Dice;
use super::encode;
use super::flights::{Flight, FlightKey};
use super::markets::{FIRST_DAY, Markets};
use crate::event::{BookingStatus, FlightStatus, PaymentStatus};

const SEED: u64 = 2013;

const HOUR_S: i64 = 3_600;
const DAY_S: i64 = 86_400;

/// Markets with this many flights in the two weeks, about one a day, are booked like real ones every
/// third day; all others only so much that they exist.
const FOCUS_LEGS: std::ops::RangeInclusive<usize> = 14..=16;

/// Per cent of the seats booked on such a flight, a tenth of which will be cancelled: some sell out.
const FOCUS_FILL_PERCENT: (i64, i64) = (45, 128);

/// Parties on any other flight.
const PARTIES: [(u32, u32); 4] = [(42, 0), (40, 1), (14, 2), (4, 3)];

/// Parties whose flight never comes.
const PENDING_PARTIES: u16 = 24;

/// Writes the sample world, one event a line, in the order of delivery: always the same bytes.
pub fn write_sample(out: &mut impl Write) -> io::Result<()> {
    let mut sample = Sample::new()?;
    for index in 0..sample.markets.legs.len() {
        sample.flight(index);
    }
    for index in 0..sample.markets.legs.len() {
        sample.bookings_of(index);
    }
    sample.pending_bookings();
    sample.deliver(out)
}

/// One line and when it is delivered.
struct Delivery {
    at: i64,
    line: std::ops::Range<usize>,
}

struct Sample {
    dice: Dice,
    markets: Markets,
    /// Market of each leg.
    market_of: Vec<u32>,
    parties: u32,
    /// All lines, one after the other.
    bytes: Vec<u8>,
    deliveries: Vec<Delivery>,
    /// Deliveries of the booking or flight at hand, by version.
    history: Vec<Delivery>,
}

impl Sample {
    fn new() -> io::Result<Self> {
        let markets = Markets::new(None)?;
        let mut market_of = vec![0; markets.legs.len()];
        for (index, market) in markets.list.iter().enumerate() {
            for leg in &market.legs {
                market_of[*leg as usize] = index as u32;
            }
        }
        Ok(Self {
            dice: Dice::new(SEED),
            markets,
            market_of,
            parties: 0,
            bytes: Vec::new(),
            deliveries: Vec::new(),
            history: Vec::new(),
        })
    }

    fn flight(&mut self, index: usize) {
        let market = self.market_of[index];
        let mut flight = Flight::of_leg(&self.markets.legs[index], market);
        self.say_flight(&flight);
        self.flight_case(index, &mut flight);
        let leg = &self.markets.legs[index];
        if !flight.deleted && (leg.outcome != Outcome::Arrived || self.dice.percent(80)) {
            flight.finish(leg);
            self.say_flight(&flight);
        }
        // Published only weeks before it leaves: bookings made through partners are there first.
        if index % 64 == 33 {
            self.history[0].at = flight.departure - 20 * DAY_S;
        }
        self.end_history();
    }

    /// What happens to a few flights, evenly spread, before they leave.
    fn flight_case(&mut self, index: usize, flight: &mut Flight) {
        let before_departure = flight.departure - 2 * DAY_S;
        match index % 2_000 {
            17 => {
                flight.departure += DAY_S;
                flight.touch(before_departure);
            }
            617 => {
                let other = (flight.market + 1) % self.markets.list.len() as u32;
                let market = &self.markets.list[other as usize];
                flight.change_route(other, market.origin, market.destination, market.block_min());
            }
            1_313 => {
                flight.deleted = true;
                flight.touch(before_departure);
            }
            77 | 1_077 => {
                flight.status = FlightStatus::Cancelled;
                flight.touch(before_departure);
                self.say_flight(flight);
                flight.status = FlightStatus::Scheduled;
                flight.touch(before_departure + 6 * HOUR_S);
            }
            case if case % 250 == 41 => flight.change_aircraft(&mut self.dice),
            case if case % 100 == 59 => {
                flight.status = FlightStatus::Delayed;
                flight.departure_delay_min = 45;
                flight.touch(flight.departure - 2 * HOUR_S);
            }
            _ => return,
        }
        self.say_flight(flight);
    }

    fn bookings_of(&mut self, index: usize) {
        let wanted = self.passengers_wanted(index);
        let trip = self.trip(index);
        let mut seated = 0;
        while seated < wanted {
            let party = self.party(trip);
            for passenger in 1..=party.size {
                let booking = party.booking(passenger, &mut self.dice);
                self.live(booking, index);
                seated += 1;
            }
        }
    }

    /// How many passengers book a flight, give or take the last party.
    fn passengers_wanted(&mut self, index: usize) -> i64 {
        let market = &self.markets.list[self.market_of[index] as usize];
        let leg = &self.markets.legs[index];
        if FOCUS_LEGS.contains(&market.legs.len()) && leg.day % 3 == 0 {
            let seats = if leg.seats == 0 {
                120
            } else {
                i64::from(leg.seats)
            };
            let (low, high) = FOCUS_FILL_PERCENT;
            return seats * self.dice.between(low, high) / 100;
        }
        i64::from(self.dice.weighted(&PARTIES))
    }

    fn party(&mut self, trip: Trip) -> Party {
        let fare = self.markets.list[trip.market as usize].fare;
        self.parties += 1;
        Party::draw(self.parties, trip, fare, &mut self.dice)
    }

    fn trip(&self, index: usize) -> Trip {
        Trip::on(&Flight::of_leg(
            &self.markets.legs[index],
            self.market_of[index],
        ))
    }

    /// All that happens to one booking, made for the given leg.
    fn live(&mut self, mut booking: Booking, index: usize) {
        self.say_booking(&booking);
        let mut index = index;
        if booking.payment == PaymentStatus::Pending && self.dice.percent(80) {
            let soon = booking.booked_at + self.dice.between(300, DAY_S);
            booking.pay(soon);
            self.say_booking(&booking);
        }
        if self.dice.percent(14) {
            index = self.change(&mut booking, index);
        }
        if self.dice.percent(12) {
            let moment = booking.next_moment(&mut self.dice);
            booking.cancel(moment);
            self.say_booking(&booking);
            if self.dice.percent(6) {
                let moment = booking.next_moment(&mut self.dice);
                booking.reinstate(moment);
                self.say_booking(&booking);
            }
        }
        if booking.is_active() {
            self.fly(&mut booking, index);
        }
        self.end_history();
    }

    /// One change of a booking; returns the leg that it is on afterwards.
    fn change(&mut self, booking: &mut Booking, index: usize) -> usize {
        let moment = booking.next_moment(&mut self.dice);
        let fare = self.markets.list[booking.trip.market as usize].fare;
        let mut leg = index;
        match self.dice.below(100) {
            0..=24 => leg = self.rebook(booking, index, true, moment),
            25..=34 => leg = self.rebook(booking, index, false, moment),
            35..=54 => booking.change_price(fare, moment, &mut self.dice),
            55..=59 => booking.change_currency(fare, moment, &mut self.dice),
            60..=69 => booking.change_cabin(fare, moment, &mut self.dice),
            70..=94 => booking.choose_seat(moment, &mut self.dice),
            95..=98 => booking.delete(moment),
            _ => {
                booking.delete(moment);
                self.say_booking(booking);
                booking.reinstate(moment + HOUR_S);
            }
        }
        self.say_booking(booking);
        leg
    }

    /// To another leg, in the same market if it is wanted.
    fn rebook(
        &mut self,
        booking: &mut Booking,
        index: usize,
        same_market: bool,
        moment: i64,
    ) -> usize {
        let market = if same_market {
            self.market_of[index]
        } else {
            let markets = self.markets.list.len() as u32;
            (self.market_of[index] + 1 + self.dice.below(markets - 1)) % markets
        };
        let market = &self.markets.list[market as usize];
        let leg = self.dice.pick(&market.legs) as usize;
        if leg == index {
            booking.choose_seat(moment, &mut self.dice);
            return index;
        }
        let trip = self.trip(leg);
        booking.rebook(trip, market.fare, moment, &mut self.dice);
        leg
    }

    /// The end of the journey, as far as the airline reports it.
    fn fly(&mut self, booking: &mut Booking, index: usize) {
        let Leg {
            outcome, departure, ..
        } = self.markets.legs[index];
        if outcome == Outcome::Cancelled {
            if self.dice.percent(60) {
                booking.cancel(departure - 4 * HOUR_S);
                self.say_booking(booking);
            }
            return;
        }
        match self.dice.below(100) {
            0..=4 => booking.close(BookingStatus::NoShow),
            5..=89 => booking.close(BookingStatus::Used),
            _ => return,
        }
        self.say_booking(booking);
    }

    /// Bookings sold by a partner whose flights nobody publishes.
    fn pending_bookings(&mut self) {
        for number in 1..=PENDING_PARTIES {
            let index = self.dice.below(self.markets.legs.len() as u32) as usize;
            let mut trip = self.trip(index);
            trip.flight = FlightKey {
                airline: *b"0P",
                number,
                day: FIRST_DAY + i64::from(number) % 14,
                ..trip.flight
            };
            let party = self.party(trip);
            for passenger in 1..=party.size {
                let booking = party.booking(passenger, &mut self.dice);
                self.say_booking(&booking);
                self.end_history();
            }
        }
    }

    fn say_booking(&mut self, booking: &Booking) {
        let start = self.bytes.len();
        encode::booking(&mut self.bytes, booking);
        self.say(booking.changed_at, start);
    }

    fn say_flight(&mut self, flight: &Flight) {
        let start = self.bytes.len();
        encode::flight(&mut self.bytes, flight);
        self.say(flight.changed_at, start);
    }

    fn say(&mut self, at: i64, start: usize) {
        let line = start..self.bytes.len();
        self.history.push(Delivery { at, line });
    }

    /// Takes over the deliveries at hand, some of them late and some twice.
    fn end_history(&mut self) {
        let versions = self.history.len();
        if versions > 1 && self.dice.percent(4) {
            let late = self.dice.below(versions as u32 - 1) as usize;
            self.history[late].at = self.history[late + 1].at + self.dice.between(1, 900);
        }
        for delivery in self.history.drain(..) {
            if self.dice.per_million(15_000) {
                let at = delivery.at + self.dice.between(1, 3 * DAY_S);
                let line = delivery.line.clone();
                self.deliveries.push(Delivery { at, line });
            }
            self.deliveries.push(delivery);
        }
    }

    fn deliver(mut self, out: &mut impl Write) -> io::Result<()> {
        // Stable, so that what happens in the same second keeps the order it was said in.
        self.deliveries.sort_by_key(|delivery| delivery.at);
        for delivery in &self.deliveries {
            out.write_all(&self.bytes[delivery.line.clone()])?;
            out.write_all(b"\n")?;
        }
        Ok(())
    }
}
