//! The markets of a world, how often each is drawn, and the flights each can offer.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use super::data::{self, Airport, Code, Fare, Leg};
use super::dice::Dice;
use super::flights::{Flight, FlightKey};

/// As many as there are synthetic designators and flight numbers for, and more than any airline serves.
pub(super) const MARKETS_MAX: u32 = 20_000;

/// The same invented markets in every world, whatever its seed.
const MARKETS_SEED: u64 = 1;

/// IATA assigns no designator that begins with 0, so these cannot be mistaken for an airline.
const INVENTED_AIRLINES: [[u8; 2]; 3] = [*b"0A", *b"0B", *b"0C"];
const INVENTED_NUMBERS: u32 = 9_999;

/// 2013-01-01, the first day of the real flights.
pub(super) const FIRST_DAY: i64 = 15_706;
const REAL_DAYS: i64 = 14;

/// Invented flights stay within 20 years, so that every time lies far before 2100.
const DAYS_MAX: i64 = 512 * REAL_DAYS;

/// Invented markets are neither so near that nobody would fly nor so far that no flight would do it non-stop.
const DISTANCE_KM: std::ops::RangeInclusive<i64> = 150..=13_000;

pub(super) struct Market {
    pub(super) origin: Code,
    pub(super) destination: Code,
    pub(super) fare: Fare,
    /// Indexes of its real departures in [`Markets::legs`], by departure.
    pub(super) legs: Vec<u32>,
    /// How many flights have been created so far.
    created: i64,
    distance_km: i64,
    /// Solar time at the origin, in minutes ahead of UTC: close enough for an invented time table.
    solar_offset_min: i64,
}

pub(super) struct Markets {
    pub(super) legs: Vec<Leg>,
    pub(super) list: Vec<Market>,
    /// Running sums of the Zipf weights.
    cumulative: Vec<u64>,
}

impl Markets {
    /// The real markets, busiest first, cut or extended with invented ones to `count` if given.
    pub(super) fn new(count: Option<u32>) -> io::Result<Self> {
        let airports = data::airports()?;
        let legs = data::legs()?;
        let mut list = real(&legs, &airports)?;
        if let Some(count) = count {
            list.truncate(count as usize);
            invent(&mut list, &airports, count as usize);
        }
        let mut sum = 0;
        let cumulative = (1..=list.len() as u64)
            .map(|rank| {
                sum += zipf_weight(rank);
                sum
            })
            .collect();
        Ok(Self {
            legs,
            list,
            cumulative,
        })
    }

    pub(super) fn draw(&self, dice: &mut Dice) -> u32 {
        let total = self.cumulative.last().copied().unwrap_or(1);
        let point = dice.below_u64(total);
        self.cumulative.partition_point(|sum| *sum <= point) as u32
    }

    /// The next flight of a market: its real ones first, then the same time table on later days.
    pub(super) fn next_flight(&mut self, index: u32, dice: &mut Dice) -> Flight {
        let market = &mut self.list[index as usize];
        let nth = market.created;
        market.created += 1;
        if market.legs.is_empty() {
            let equipment = &self.legs[dice.below(self.legs.len() as u32) as usize];
            return market.invented_flight(index, nth, equipment);
        }
        let count = market.legs.len() as i64;
        let leg = &self.legs[market.legs[(nth % count) as usize] as usize];
        let cycle = nth / count;
        let mut flight = Flight::of_leg(leg, index);
        let days = cycle * REAL_DAYS % DAYS_MAX;
        flight.departure += days * 86_400;
        flight.key.day += days;
        flight.key.round = (cycle * REAL_DAYS / DAYS_MAX) as u32;
        flight
    }
}

impl Market {
    fn new(origin: &Airport, destination: &Airport, legs: Vec<u32>) -> Self {
        let distance_km = distance_km(origin, destination);
        Self {
            origin: origin.code,
            destination: destination.code,
            fare: fare_by_distance(distance_km),
            legs,
            created: 0,
            distance_km,
            solar_offset_min: origin.longitude * 4 / 1_000,
        }
    }

    /// A daily flight with a departure time of its own, flown with some real aircraft.
    fn invented_flight(&self, index: u32, nth: i64, equipment: &Leg) -> Flight {
        let day = FIRST_DAY + nth % DAYS_MAX;
        let clock_min = i64::from(index) * 37 % 1_080 + 300;
        Flight {
            key: FlightKey {
                airline: INVENTED_AIRLINES[(index / INVENTED_NUMBERS) as usize],
                number: (index % INVENTED_NUMBERS + 1) as u16,
                day,
                origin: self.origin,
                round: (nth / DAYS_MAX) as u32,
            },
            origin: self.origin,
            destination: self.destination,
            departure: (day * 1_440 + clock_min - self.solar_offset_min) * 60,
            block_min: block_min(self.distance_km),
            ..Flight::of_leg(equipment, index)
        }
    }

    pub(super) fn block_min(&self) -> i64 {
        block_min(self.distance_km)
    }
}

fn real(legs: &[Leg], airports: &[Airport]) -> io::Result<Vec<Market>> {
    let airport = |code: Code| {
        let at = airports.binary_search_by_key(&code, |airport| airport.code);
        at.map(|at| &airports[at]).map_err(|_| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                "a flight's airport is not in airports.csv",
            )
        })
    };
    let mut by_pair: BTreeMap<(Code, Code), Vec<u32>> = BTreeMap::new();
    for (index, leg) in legs.iter().enumerate() {
        let pair = (leg.origin, leg.destination);
        by_pair.entry(pair).or_default().push(index as u32);
    }
    let fares: BTreeMap<(Code, Code), Fare> = data::fares()?
        .into_iter()
        .map(|(origin, destination, fare)| ((origin, destination), fare))
        .collect();
    let mut markets = Vec::with_capacity(by_pair.len());
    for ((origin, destination), legs) in by_pair {
        let mut market = Market::new(airport(origin)?, airport(destination)?, legs);
        if let Some(fare) = fares.get(&(origin, destination)) {
            market.fare = *fare;
        }
        markets.push(market);
    }
    markets.sort_by_key(|market| std::cmp::Reverse(market.legs.len()));
    Ok(markets)
}

fn invent(markets: &mut Vec<Market>, airports: &[Airport], count: usize) {
    let mut dice = Dice::new(MARKETS_SEED);
    let mut taken: BTreeSet<(Code, Code)> = markets
        .iter()
        .map(|market| (market.origin, market.destination))
        .collect();
    while markets.len() < count {
        let origin = &airports[dice.below(airports.len() as u32) as usize];
        let destination = &airports[dice.below(airports.len() as u32) as usize];
        let apart = DISTANCE_KM.contains(&distance_km(origin, destination));
        if apart && taken.insert((origin.code, destination.code)) {
            markets.push(Market::new(origin, destination, Vec::new()));
        }
    }
}

/// 2^40 / rank^1.1 in integers: rank^1.1 is rank times its tenth root.
fn zipf_weight(rank: u64) -> u64 {
    const ONE: u128 = 1 << 10;
    // The largest root with root^10 <= rank, in units of 1/1024; 3^10 exceeds every rank.
    let (mut root, mut above) = (ONE, 3 * ONE);
    while above - root > 1 {
        let middle = (root + above) / 2;
        if middle.pow(10) <= u128::from(rank) << 100 {
            root = middle;
        } else {
            above = middle;
        }
    }
    (1 << 50) / (rank * root as u64)
}

/// On a flat map stretched by the middle latitude, with Bhaskara's rational cosine: off by some percent,
/// and the same everywhere.
fn distance_km(from: &Airport, to: &Airport) -> i64 {
    let north = from.latitude - to.latitude;
    let around = (from.longitude - to.longitude).abs();
    let east = around.min(360_000 - around);
    let middle = (from.latitude + to.latitude) / 2;
    let square = middle * middle / 1_000_000;
    let east = east * (32_400 - 4 * square) / (32_400 + square);
    let thousandths = (north * north + east * east).unsigned_abs().isqrt();
    thousandths as i64 * 111_195 / 1_000_000
}

/// Taxi, climb and approach, then 14 km a minute.
fn block_min(distance_km: i64) -> i64 {
    (40 + distance_km / 14).min(1_430)
}

fn fare_by_distance(distance_km: i64) -> Fare {
    let median = 6_000 + distance_km as u32 * 11;
    Fare {
        lower: median * 7 / 10,
        median,
        upper: median * 27 / 20,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zipf_weights_fall_with_the_power_of_their_rank() {
        for rank in [1_u64, 2, 10, 186, 20_000] {
            let exact = (1_u64 << 40) as f64 / (rank as f64).powf(1.1);
            let weight = zipf_weight(rank) as f64;
            assert!(
                (weight / exact - 1.0).abs() < 0.002,
                "rank {rank}: {weight} for {exact}"
            );
        }
    }

    #[test]
    fn distances_are_about_right() {
        let airports = data::airports().unwrap();
        let find = |code: &[u8; 3]| {
            airports
                .iter()
                .find(|airport| airport.code == *code)
                .unwrap()
        };
        for (from, to, km) in [
            (b"JFK", b"LAX", 3_980),
            (b"JFK", b"BOS", 300),
            (b"NRT", b"SFO", 8_270),
        ] {
            let measured = distance_km(find(from), find(to));
            assert!((measured - km).abs() < km / 10, "{measured} for {km}");
        }
    }

    #[test]
    fn there_are_as_many_markets_as_asked_for() {
        for count in [1, 5, 186, 1_000, MARKETS_MAX] {
            assert_eq!(Markets::new(Some(count)).unwrap().list.len() as u32, count);
        }
        assert_eq!(Markets::new(None).unwrap().list.len(), 186);
    }
}
