//! The embedded CSV files as typed rows.

use std::io;

const AIRPORTS: &str = include_str!("../../migrations/reference/airports.csv");
const FLIGHTS: &str = include_str!("../../fixtures/world/flights.csv");
const FARES: &str = include_str!("../../fixtures/world/fares.csv");

/// An IATA airport code.
pub(super) type Code = [u8; 3];

pub(super) struct Airport {
    pub(super) code: Code,
    /// Thousandths of a degree: parsed without floats, which keeps distances equal on every machine.
    pub(super) latitude: i64,
    pub(super) longitude: i64,
}

/// One departure that took place, or was cancelled, in the two weeks.
pub(super) struct Leg {
    /// Local date at the origin, in days since 1970-01-01.
    pub(super) day: i64,
    /// Scheduled departure, in seconds since 1970-01-01T00:00Z.
    pub(super) departure: i64,
    pub(super) block_min: i64,
    pub(super) departure_delay_min: i64,
    pub(super) arrival_delay_min: i64,
    pub(super) airline: [u8; 2],
    pub(super) number: u16,
    pub(super) origin: Code,
    pub(super) destination: Code,
    pub(super) registration: &'static str,
    /// 0 where the register of planes does not say.
    pub(super) seats: u16,
    pub(super) aircraft: &'static str,
    pub(super) outcome: Outcome,
}

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Outcome {
    Arrived,
    Diverted,
    Cancelled,
}

/// Quartiles of the one-way fare of a market, in US cents.
#[derive(Clone, Copy)]
pub(super) struct Fare {
    pub(super) lower: u32,
    pub(super) median: u32,
    pub(super) upper: u32,
}

pub(super) fn airports() -> io::Result<Vec<Airport>> {
    rows("airports.csv", AIRPORTS, |fields| {
        Some(Airport {
            code: code(fields.first()?)?,
            latitude: thousandths(fields.get(7)?)?,
            longitude: thousandths(fields.get(8)?)?,
        })
    })
}

pub(super) fn legs() -> io::Result<Vec<Leg>> {
    rows("flights.csv", FLIGHTS, |fields| {
        Some(Leg {
            day: day(fields.first()?)?,
            departure: instant(fields.get(1)?)?,
            block_min: fields.get(2)?.parse().ok()?,
            departure_delay_min: optional(fields.get(3)?)?,
            arrival_delay_min: optional(fields.get(4)?)?,
            airline: fields.get(5)?.as_bytes().try_into().ok()?,
            number: fields.get(6)?.parse().ok()?,
            origin: code(fields.get(7)?)?,
            destination: code(fields.get(8)?)?,
            registration: fields.get(9)?,
            seats: u16::try_from(optional(fields.get(10)?)?).ok()?,
            aircraft: fields.get(11)?,
            outcome: outcome(fields.get(12)?)?,
        })
    })
}

pub(super) fn fares() -> io::Result<Vec<(Code, Code, Fare)>> {
    rows("fares.csv", FARES, |fields| {
        let cents = |index: usize| Some(fields.get(index)?.parse::<u32>().ok()? * 100);
        let fare = Fare {
            median: cents(2)?,
            lower: cents(3)?,
            upper: cents(4)?,
        };
        Some((code(fields.first()?)?, code(fields.get(1)?)?, fare))
    })
}

fn rows<T>(
    name: &str,
    text: &'static str,
    row: impl Fn(&[&'static str]) -> Option<T>,
) -> io::Result<Vec<T>> {
    let mut fields = Vec::new();
    let mut parsed = Vec::new();
    for (index, line) in text.lines().enumerate().skip(1) {
        split(line, &mut fields);
        let row = row(&fields).ok_or_else(|| {
            let message = format!("embedded {name}, line {}: malformed row", index + 1);
            io::Error::new(io::ErrorKind::InvalidData, message)
        })?;
        parsed.push(row);
    }
    Ok(parsed)
}

/// Splits at commas outside quotes. Doubled quotes are left as they are: no column used here has any.
fn split(line: &'static str, fields: &mut Vec<&'static str>) {
    fields.clear();
    let mut quoted = false;
    let mut start = 0;
    for (at, byte) in line.bytes().enumerate() {
        match byte {
            b'"' => quoted = !quoted,
            b',' if !quoted => {
                fields.push(&line[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    fields.push(&line[start..]);
}

fn code(text: &str) -> Option<Code> {
    text.as_bytes().try_into().ok()
}

/// An empty number is 0: no delay known, no seats known.
fn optional(text: &str) -> Option<i64> {
    if text.is_empty() {
        Some(0)
    } else {
        text.parse().ok()
    }
}

fn outcome(text: &str) -> Option<Outcome> {
    match text {
        "arrived" => Some(Outcome::Arrived),
        "diverted" => Some(Outcome::Diverted),
        "cancelled" => Some(Outcome::Cancelled),
        _ => None,
    }
}

/// Days since 1970-01-01 of `2013-01-14`.
fn day(text: &str) -> Option<i64> {
    let date: chrono::NaiveDate = text.parse().ok()?;
    Some(i64::from(date.to_epoch_days()))
}

/// Seconds since 1970-01-01T00:00Z of `2013-01-14T05:30Z`.
fn instant(text: &str) -> Option<i64> {
    let hours: i64 = text.get(11..13)?.parse().ok()?;
    let minutes: i64 = text.get(14..16)?.parse().ok()?;
    Some(day(text.get(..10)?)? * 86_400 + hours * 3_600 + minutes * 60)
}

fn thousandths(text: &str) -> Option<i64> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let mut value: i64 = whole.parse().ok()?;
    let mut fraction = fraction.bytes();
    for _ in 0..3 {
        let digit = fraction.next().unwrap_or(b'0');
        value = value * 10 + i64::from(digit.checked_sub(b'0')?);
    }
    Some(sign * value)
}
