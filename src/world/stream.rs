//! The endless stream: a fixed mix of events over flights on sale and a pool of live bookings.

use std::collections::BTreeMap;
use std::io::{self, Write};

use super::bad;
use super::bookings::{Booking, Party, Trip};
use super::dice::Dice;
use super::encode;
use super::flights::Flight;
use super::markets::{MARKETS_MAX, Markets};
use crate::event::{BookingStatus, PaymentStatus};

/// What decides a generated world, to the byte.
#[derive(Clone, Debug)]
pub struct Arguments {
    /// How many events: lines of output.
    pub events: u64,
    /// Another seed, another world.
    pub seed: u64,
    /// How many markets, 1 to 20,000: the real ones, busiest first, then invented ones. `None` is all
    /// real ones.
    pub markets: Option<u32>,
    /// Share of the lines that break the contract, 0 to 1.
    pub bad_ratio: f64,
}

/// Flights on sale at any moment. Bounds the memory, and keeps a flight's load near that of an aircraft.
const FLIGHTS_ON_SALE_MAX: usize = 4_096;

/// Bookings that may still change; a new one takes the place of an arbitrary one.
const LIVE_BOOKINGS_MAX: usize = 1 << 17;

/// Lines that may come again; one in eight events is kept.
const REPEATABLE_MAX: usize = 1_024;

/// A line that is held back comes at most this many lines late.
const HELD_LINES_MAX: u64 = 400;

/// Lines in a million that repeat an earlier one.
const DUPLICATES_PPM: u32 = 20_000;

/// Steps in a million that hold a version back until a higher one is out. Each gives two lines, so
/// 2 % of the lines are late.
const LATE_PPM: u32 = 20_900;

/// Of the flights, per cent whose first event comes this many lines late, or a tenth of a shorter stream:
/// after some of their bookings.
const LATE_FLIGHTS_PERCENT: u32 = 10;
const LATE_FLIGHT_LINES_MAX: u64 = 20_000;

#[derive(Clone, Copy)]
enum Step {
    NewBooking,
    Change,
    Cancel,
    Flight,
}

const MIX: [(u32, Step); 4] = [
    (70, Step::NewBooking),
    (18, Step::Change),
    (8, Step::Cancel),
    (4, Step::Flight),
];

/// Writes `events` lines, each one event: CloudEvents 1.0, structured JSON.
///
/// 70 % new bookings, 18 % changes, 8 % cancellations and 4 % flight events; 2 % of all lines repeat an
/// earlier one exactly and 2 % come after a higher version of the same booking or flight. Lines are in
/// no order of time. Memory stays below 100 MB however long the stream is.
pub fn generate(arguments: &Arguments, out: &mut impl Write) -> io::Result<()> {
    check(arguments)?;
    let bad_ppm = (arguments.bad_ratio * 1_000_000.0).round() as u32;
    let mut stream = Stream::new(arguments)?;
    let mut lines = Lines::new(out, arguments.events);
    while !lines.is_full() {
        if let Some(line) = lines.due() {
            lines.write(&line)?;
        } else if stream.is_open() && stream.dice.per_million(bad_ppm) {
            stream.bad_event(&mut lines)?;
        } else if stream.dice.per_million(DUPLICATES_PPM) {
            lines.repeat(&mut stream.dice)?;
        } else {
            stream.step(&mut lines)?;
        }
    }
    Ok(())
}

fn check(arguments: &Arguments) -> io::Result<()> {
    let invalid = |message| Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    if arguments
        .markets
        .is_some_and(|markets| !(1..=MARKETS_MAX).contains(&markets))
    {
        return invalid("markets: a number from 1 to 20000");
    }
    if !(0.0..=1.0).contains(&arguments.bad_ratio) {
        return invalid("bad ratio: a number from 0 to 1");
    }
    Ok(())
}

/// The output, with what is to come later or again.
struct Lines<'a, W: Write> {
    out: &'a mut W,
    left: u64,
    written: u64,
    /// By the line number at which they are due, then in the order they were held back.
    held: BTreeMap<(u64, u64), Vec<u8>>,
    holds: u64,
    repeatable: Vec<Vec<u8>>,
}

impl<'a, W: Write> Lines<'a, W> {
    fn new(out: &'a mut W, events: u64) -> Self {
        Self {
            out,
            left: events,
            written: 0,
            held: BTreeMap::new(),
            holds: 0,
            repeatable: Vec::with_capacity(REPEATABLE_MAX),
        }
    }

    fn is_full(&self) -> bool {
        self.left == 0
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        if self.written.is_multiple_of(8) {
            self.remember(line);
        }
        self.write_once(line)
    }

    /// A line that no other line repeats.
    fn write_once(&mut self, line: &[u8]) -> io::Result<()> {
        if self.left == 0 {
            return Ok(());
        }
        self.left -= 1;
        self.written += 1;
        self.out.write_all(line)?;
        self.out.write_all(b"\n")
    }

    fn remember(&mut self, line: &[u8]) {
        if self.repeatable.len() < REPEATABLE_MAX {
            self.repeatable.push(line.to_vec());
            return;
        }
        let slot = &mut self.repeatable[(self.written / 8) as usize % REPEATABLE_MAX];
        slot.clear();
        slot.extend_from_slice(line);
    }

    fn repeat(&mut self, dice: &mut Dice) -> io::Result<()> {
        if self.repeatable.is_empty() {
            return Ok(());
        }
        let index = dice.below(self.repeatable.len() as u32) as usize;
        let line = std::mem::take(&mut self.repeatable[index]);
        self.write_once(&line)?;
        self.repeatable[index] = line;
        Ok(())
    }

    /// Sends a line after the next one at the earliest, `lines_max` lines later at the latest.
    fn hold(&mut self, line: &[u8], lines_max: u64, dice: &mut Dice) {
        let due = self.written + 1 + dice.below_u64(lines_max);
        self.holds += 1;
        self.held.insert((due, self.holds), line.to_vec());
    }

    fn due(&mut self) -> Option<Vec<u8>> {
        let entry = self.held.first_entry()?;
        (entry.key().0 <= self.written).then(|| entry.remove())
    }
}

struct Stream {
    dice: Dice,
    markets: Markets,
    on_sale: Vec<Flight>,
    flights_created: usize,
    bookings: Vec<Booking>,
    party: Option<(Party, u8)>,
    parties: u32,
    /// Flights still to publish before anything else, so that the first bookings spread over them.
    opening: u64,
    /// Events that were drawn out of turn, by kind: the next steps of that kind are skipped for them.
    ahead: [u64; 4],
    late_flight_lines: u64,
    line: Vec<u8>,
}

impl Stream {
    fn new(arguments: &Arguments) -> io::Result<Self> {
        let opening = (arguments.events / 100).clamp(1, FLIGHTS_ON_SALE_MAX as u64 / 4);
        let mut ahead = [0; 4];
        ahead[Step::Flight as usize] = opening;
        Ok(Self {
            dice: Dice::new(arguments.seed),
            markets: Markets::new(arguments.markets)?,
            on_sale: Vec::with_capacity(FLIGHTS_ON_SALE_MAX),
            flights_created: 0,
            bookings: Vec::new(),
            party: None,
            parties: 0,
            opening,
            ahead,
            late_flight_lines: (arguments.events / 10).clamp(1, LATE_FLIGHT_LINES_MAX),
            line: Vec::with_capacity(1_024),
        })
    }

    /// Whether any flight is on sale yet.
    fn is_open(&self) -> bool {
        !self.on_sale.is_empty()
    }

    fn step(&mut self, lines: &mut Lines<impl Write>) -> io::Result<()> {
        if self.opening > 0 {
            self.opening -= 1;
            let at = self.new_flight();
            return self.first_flight_event(at, lines);
        }
        let step = self.dice.weighted(&MIX);
        if let Some(ahead) = self.ahead[step as usize].checked_sub(1) {
            self.ahead[step as usize] = ahead;
            return Ok(());
        }
        let late = self.dice.per_million(LATE_PPM);
        match step {
            Step::Flight => self.flight_step(late, lines),
            Step::NewBooking => {
                let at = self.new_booking();
                self.booking_step(at, late, lines)
            }
            Step::Change => match self.any_booking() {
                Some(at) => {
                    self.change_booking(at);
                    self.booking_step(at, late, lines)
                }
                None => Ok(()),
            },
            Step::Cancel => match self.any_confirmed() {
                Some(at) => {
                    let moment = self.bookings[at].next_moment(&mut self.dice);
                    self.bookings[at].cancel(moment);
                    self.booking_step(at, late, lines)
                }
                None => Ok(()),
            },
        }
    }

    /// Sends the newest version of a booking; or, late, the version after it first.
    fn booking_step(
        &mut self,
        at: usize,
        late: bool,
        lines: &mut Lines<impl Write>,
    ) -> io::Result<()> {
        self.encode_booking(at);
        if late {
            lines.hold(&self.line, HELD_LINES_MAX, &mut self.dice);
            self.change_booking(at);
            self.ahead[Step::Change as usize] += 1;
            self.encode_booking(at);
        }
        lines.write(&self.line)
    }

    fn flight_step(&mut self, late: bool, lines: &mut Lines<impl Write>) -> io::Result<()> {
        let is_new = self.dice.percent(50);
        let at = if is_new {
            self.new_flight()
        } else {
            self.changed_flight()
        };
        if late {
            self.encode_flight(at);
            lines.hold(&self.line, HELD_LINES_MAX, &mut self.dice);
            self.change_flight(at);
            self.ahead[Step::Flight as usize] += 1;
        } else if is_new {
            return self.first_flight_event(at, lines);
        }
        self.encode_flight(at);
        lines.write(&self.line)
    }

    fn first_flight_event(&mut self, at: usize, lines: &mut Lines<impl Write>) -> io::Result<()> {
        self.encode_flight(at);
        if self.dice.percent(LATE_FLIGHTS_PERCENT) {
            lines.hold(&self.line, self.late_flight_lines, &mut self.dice);
            return Ok(());
        }
        lines.write(&self.line)
    }

    fn bad_event(&mut self, lines: &mut Lines<impl Write>) -> io::Result<()> {
        let at = self.dice.below(self.on_sale.len() as u32) as usize;
        let party = self.draw_party(at);
        let booking = party.booking(1, &mut self.dice);
        self.line.clear();
        encode::booking(&mut self.line, &booking);
        bad::break_booking(&mut self.line, &mut self.dice);
        lines.write_once(&self.line)
    }

    fn encode_booking(&mut self, at: usize) {
        self.line.clear();
        encode::booking(&mut self.line, &self.bookings[at]);
    }

    fn encode_flight(&mut self, at: usize) {
        self.line.clear();
        encode::flight(&mut self.line, &self.on_sale[at]);
    }

    /// Where the new flight stands among those on sale.
    fn new_flight(&mut self) -> usize {
        let market = self.markets.draw(&mut self.dice);
        let mut flight = self.markets.next_flight(market, &mut self.dice);
        flight.publish();
        let at = self.flights_created % FLIGHTS_ON_SALE_MAX;
        self.flights_created += 1;
        if at < self.on_sale.len() {
            self.on_sale[at] = flight;
        } else {
            self.on_sale.push(flight);
        }
        at
    }

    fn changed_flight(&mut self) -> usize {
        let at = self.dice.below(self.on_sale.len() as u32) as usize;
        self.change_flight(at);
        at
    }

    fn change_flight(&mut self, at: usize) {
        let flight = &mut self.on_sale[at];
        if flight.deleted || !self.dice.percent(2) {
            flight.change(&mut self.dice);
            return;
        }
        let index = self.markets.draw(&mut self.dice);
        let market = &self.markets.list[index as usize];
        if index == flight.market {
            flight.change(&mut self.dice);
        } else {
            flight.change_route(index, market.origin, market.destination, market.block_min());
        }
    }

    fn draw_party(&mut self, flight: usize) -> Party {
        let trip = Trip::on(&self.on_sale[flight]);
        let fare = self.markets.list[trip.market as usize].fare;
        self.parties += 1;
        Party::draw(self.parties, trip, fare, &mut self.dice)
    }

    fn new_booking(&mut self) -> usize {
        let (party, passenger) = match self.party {
            Some((party, seated)) if seated < party.size => (party, seated + 1),
            _ => {
                let flight = self.dice.below(self.on_sale.len() as u32) as usize;
                (self.draw_party(flight), 1)
            }
        };
        self.party = Some((party, passenger));
        let booking = party.booking(passenger, &mut self.dice);
        if self.bookings.len() < LIVE_BOOKINGS_MAX {
            self.bookings.push(booking);
            return self.bookings.len() - 1;
        }
        let at = self.dice.below(LIVE_BOOKINGS_MAX as u32) as usize;
        self.bookings[at] = booking;
        at
    }

    fn any_booking(&mut self) -> Option<usize> {
        let live = self.bookings.len() as u32;
        (live > 0).then(|| self.dice.below(live) as usize)
    }

    /// A booking that can be cancelled, if a few tries find one.
    fn any_confirmed(&mut self) -> Option<usize> {
        (0..16).find_map(|_| {
            let at = self.any_booking()?;
            let booking = &self.bookings[at];
            (!booking.deleted && booking.status == BookingStatus::Confirmed).then_some(at)
        })
    }

    fn change_booking(&mut self, at: usize) {
        let dice = &mut self.dice;
        let booking = &mut self.bookings[at];
        let moment = booking.next_moment(dice);
        if !booking.is_active() {
            if !booking.deleted && dice.percent(10) {
                booking.delete(moment);
            } else {
                booking.reinstate(moment);
            }
            return;
        }
        let fare = self.markets.list[booking.trip.market as usize].fare;
        match dice.below(100) {
            0..=24 if booking.status != BookingStatus::Used => booking.close(BookingStatus::Used),
            25..=29 if booking.status != BookingStatus::NoShow => {
                booking.close(BookingStatus::NoShow)
            }
            0..=44 => self.rebook(at, true, moment),
            45..=54 => self.rebook(at, false, moment),
            55..=66 => booking.change_price(fare, moment, dice),
            67..=72 => booking.change_currency(fare, moment, dice),
            73..=79 => booking.change_cabin(fare, moment, dice),
            80..=87 if booking.payment == PaymentStatus::Pending => booking.pay(moment),
            80..=97 => booking.choose_seat(moment, dice),
            _ => booking.delete(moment),
        }
    }

    /// To another flight, in the same market if a few tries find one there and it is wanted.
    fn rebook(&mut self, at: usize, same_market: bool, moment: i64) {
        let current = self.bookings[at].trip;
        let flights = self.on_sale.len() as u32;
        let mut target = None;
        for _ in 0..8 {
            let flight = &self.on_sale[self.dice.below(flights) as usize];
            if flight.key == current.flight {
                continue;
            }
            target = Some(Trip::on(flight));
            if same_market == (flight.market == current.market) {
                break;
            }
        }
        let booking = &mut self.bookings[at];
        match target {
            Some(trip) => {
                let fare = self.markets.list[trip.market as usize].fare;
                booking.rebook(trip, fare, moment, &mut self.dice);
            }
            None => booking.choose_seat(moment, &mut self.dice),
        }
    }
}
