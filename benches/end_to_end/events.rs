//! The bytes that all figures are measured on.

use std::collections::{BTreeSet, HashSet};
use std::ops::Range;

use anyhow::{Context, Result, bail};
use paxflow::event::Delivery;
use paxflow::event::{Change, Message, decode};
use paxflow::world;
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

/// Another seed, another world.
const SEED: u64 = 20_261_122;

/// A body with what it is published with.
struct Envelope {
    body: Range<usize>,
    routing_key: &'static str,
    id: String,
    about: Entity,
}

/// What an event is about.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Entity {
    Booking(String),
    Flight(String),
}

/// Events in the order in which they are published.
#[derive(Default)]
pub struct Events {
    bodies: Vec<u8>,
    envelopes: Vec<Envelope>,
}

/// An event as it is handed to a publisher.
pub struct Event<'a> {
    /// AMQP routing key.
    pub routing_key: &'static str,
    /// AMQP message id.
    pub id: &'a str,
    /// The body.
    pub body: &'a [u8],
}

impl Events {
    /// The mix of the world's stream: 70 % new bookings, 18 % changes, 8 % cancellations, 4 % flights, 2 % of
    /// all twice and 2 % out of order, over so many markets.
    pub fn generate(events: usize, markets: Option<u32>) -> Result<Self> {
        let arguments = world::Arguments {
            events: events as u64,
            seed: SEED,
            markets,
            bad_ratio: 0.0,
        };
        let mut lines = Vec::new();
        world::generate(&arguments, &mut lines)?;
        let mut generated = Self::default();
        for line in lines.split(|byte| *byte == b'\n') {
            if !line.is_empty() {
                generated.push(line)?;
            }
        }
        Ok(generated)
    }

    /// Appends an event.
    pub fn push(&mut self, body: &[u8]) -> Result<()> {
        let event = decode(&Message::of_body(body)).context("a generated event is rejected")?;
        let start = self.bodies.len();
        self.bodies.extend_from_slice(body);
        self.envelopes.push(Envelope {
            body: start..self.bodies.len(),
            routing_key: event.kind.routing_key(),
            id: event.id.into_owned(),
            about: match event.change {
                Change::Booking(booking) => Entity::Booking(booking.key.into_owned()),
                Change::Flight(flight) => Entity::Flight(flight.key.into_owned()),
            },
        });
        Ok(())
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.envelopes.len()
    }

    /// Some of them, in their order.
    pub fn range(&self, range: Range<usize>) -> impl Iterator<Item = Event<'_>> {
        range.map(|at| self.event(at))
    }

    fn event(&self, at: usize) -> Event<'_> {
        let envelope = &self.envelopes[at];
        Event {
            routing_key: envelope.routing_key,
            id: &envelope.id,
            body: &self.bodies[envelope.body.clone()],
        }
    }

    /// All of them, in their order.
    pub fn iter(&self) -> impl Iterator<Item = Event<'_>> {
        self.range(0..self.len())
    }

    /// Some of them as a broker would deliver them.
    pub fn deliveries(&self, places: impl IntoIterator<Item = usize>) -> Vec<Delivery> {
        places
            .into_iter()
            .map(|at| self.event(at))
            .enumerate()
            .map(|(index, event)| Delivery {
                tag: index as u64 + 1,
                body: event.body.to_vec(),
                exchange: "bench".to_owned(),
                routing_key: event.routing_key.to_owned(),
                content_type: Some("application/cloudevents+json".to_owned()),
                message_id: Some(event.id.to_owned()),
                ..Delivery::default()
            })
            .collect()
    }

    /// Which of the events before a stretch leave so many bookings stored, or more: those about any booking or flight of
    /// the stretch, so that its events leave the same of these whatever else is stored, and about the newest others.
    pub fn history(&self, stretch: Range<usize>, bookings: usize) -> Vec<usize> {
        let before = 0..stretch.start;
        let about = |at: usize| &self.envelopes[at].about;
        let is_booking = |entity: &Entity| matches!(entity, Entity::Booking(_));
        let mut kept: HashSet<&Entity> = stretch.map(about).collect();
        let needed = before.clone().map(about);
        let stored: HashSet<&Entity> = needed
            .filter(|entity| is_booking(entity) && kept.contains(entity))
            .collect();
        let mut missing = bookings.saturating_sub(stored.len());
        for entity in before.clone().rev().map(about) {
            if missing == 0 {
                break;
            }
            if kept.insert(entity) && is_booking(entity) {
                missing -= 1;
            }
        }
        before.filter(|at| kept.contains(about(*at))).collect()
    }
}

/// A booking on a flight of one's own making.
fn booking(id: &str, version: u64, flight_id: &str, cents: u64, cancelled: bool) -> Vec<u8> {
    let price = |cents: u64| format!("{}.{:02}", cents / 100, cents % 100);
    let mut data = json!({
        "booking_id": id,
        "version": version,
        "reference": "BENCH1",
        "flight_id": flight_id,
        "booked_at": "2026-11-01T08:00:00Z",
        "cabin": "Y",
        "booking_class": "K",
        "price": {"base": price(cents - 1_000), "taxes": "10.00", "total": price(cents), "currency": "USD"},
        "payment_status": "paid",
        "status": "confirmed",
    });
    if cancelled {
        data["status"] = json!("cancelled");
        data["cancelled_at"] = json!("2026-11-02T08:00:00Z");
    }
    envelope("booking", id, version, data)
}

/// The flight of a market-day that nobody else has.
pub fn flight(flight_id: &str, origin: &str, destination: &str) -> Vec<u8> {
    let data = json!({
        "flight_id": flight_id,
        "version": 1,
        "airline": "XB",
        "flight_number": "1",
        "origin": origin,
        "destination": destination,
        "scheduled_departure": "2027-03-01T12:00:00Z",
        "scheduled_arrival": "2027-03-01T18:00:00Z",
        "capacity": {"total": 180},
        "status": "scheduled",
    });
    envelope("flight", flight_id, 1, data)
}

fn envelope(entity: &str, key: &str, version: u64, data: Value) -> Vec<u8> {
    let event = json!({
        "specversion": "1.0",
        "id": format!("{key}:{version}"),
        "source": "/bench",
        "type": format!("airline.{entity}.upserted.v1"),
        "subject": key,
        "time": "2026-11-03T08:00:00Z",
        "datacontenttype": "application/json",
        "data": data,
    });
    event.to_string().into_bytes()
}

/// The number-th booking that a latency is measured with.
pub fn canary(flight_id: &str, number: usize) -> Vec<u8> {
    booking(
        &format!("{flight_id}:{number}"),
        1,
        flight_id,
        20_000,
        false,
    )
}

/// A market-day with many bookings whose cheapest and dearest are cancelled all the time.
pub struct Extremes {
    /// The bookings that are there at first.
    pub stored: Events,
    /// 20 % cancel the booking with the lowest or highest price of that day, as many book anew at a price between
    /// them, and the rest is as everywhere.
    pub stream: Events,
}

impl Extremes {
    /// The only flight of that day.
    pub const FLIGHT: &str = "XB:1:2027-03-01";

    /// With so many bookings stored, and so many events.
    pub fn new(stored: usize, events: usize, elsewhere: &Events) -> Result<Self> {
        let mut day = MarketDay {
            rng: ChaCha8Rng::seed_from_u64(SEED),
            booked: 0,
            prices: BTreeSet::new(),
        };
        let mut before = Events::default();
        before.push(&flight(Self::FLIGHT, "LHR", "JFK"))?;
        for _ in 0..stored {
            before.push(&day.book(5_000..500_000))?;
        }
        let mut stream = Events::default();
        let mut elsewhere = elsewhere.iter();
        for number in 0..events {
            match number % 5 {
                0 => stream.push(&day.cancel_extreme(number % 2 == 0)?)?,
                1 => {
                    let between = day.between()?;
                    stream.push(&day.book(between))?;
                }
                _ => stream.push(elsewhere.next().context("the load is used up")?.body)?,
            }
        }
        Ok(Self {
            stored: before,
            stream,
        })
    }
}

struct MarketDay {
    rng: ChaCha8Rng,
    /// Bookings ever made.
    booked: usize,
    /// Price, in cents, and number of the active ones.
    prices: BTreeSet<(u64, usize)>,
}

impl MarketDay {
    fn book(&mut self, prices: Range<u64>) -> Vec<u8> {
        let (number, cents) = (self.booked, self.rng.random_range(prices));
        self.booked += 1;
        self.prices.insert((cents, number));
        booking(&id(number), 1, Extremes::FLIGHT, cents, false)
    }

    /// Prices that are neither the lowest nor the highest: a booking that is an extreme at once would be cancelled
    /// within the batch that makes it, and leave nothing to be measured.
    fn between(&self) -> Result<Range<u64>> {
        let (Some((low, _)), Some((high, _))) = (self.prices.first(), self.prices.last()) else {
            bail!("the market-day is empty");
        };
        let middle = (low + high) / 2;
        Ok(middle..middle + 1 + (high - low) / 10)
    }

    fn cancel_extreme(&mut self, lowest: bool) -> Result<Vec<u8>> {
        let price = if lowest {
            self.prices.first()
        } else {
            self.prices.last()
        };
        // Among equals the oldest: prices draw together, and the newest may be of the same batch.
        let (cents, _) = price.context("the market-day is empty")?;
        let oldest = self.prices.range((*cents, 0)..).next().copied();
        let (cents, number) = oldest.context("a price is gone")?;
        self.prices.remove(&(cents, number));
        Ok(booking(&id(number), 2, Extremes::FLIGHT, cents, true))
    }
}

fn id(number: usize) -> String {
    format!("extreme:{number}")
}
