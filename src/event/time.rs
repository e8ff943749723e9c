//! Instants and dates of the contract: strict RFC 3339, within 1970 to 2099.

use chrono::{DateTime, Datelike as _, NaiveDate, TimeDelta, Utc};
use serde_json::{Value, json};

use super::contract::Contract;
use super::digest::{Digest, Hashed};
use super::json::{Decode, Node, Path};
use super::reason::{Reason, Rejected};

/// 2100-01-01T00:00:00Z, the first instant that is too late.
const END_MICROS: i64 = 4_102_444_800_000_000;

/// Years that an instant of the range may be written in, given its offset.
const TIMESTAMP_PATTERN: &str = r"^(1969|19[7-9][0-9]|20[0-9]{2}|2100)-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]+)?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$";
const DATE_PATTERN: &str = "^(19[7-9][0-9]|20[0-9]{2})-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])$";

/// An instant, to the microsecond.
impl<'a> Decode<'a> for DateTime<Utc> {
    fn decode(node: Node<'a>, at: &Path<'_>) -> Result<Self, Rejected> {
        let instant = parse_timestamp(&node.text(at)?).ok_or_else(|| {
            at.reject(
                Reason::InvalidTimestamp,
                "must be RFC 3339 with capital T, an offset or capital Z, and no leap second, such as 2026-01-31T23:59:59.123456Z or 2026-02-01T09:15:00+11:00",
            )
        })?;
        if (0..END_MICROS).contains(&instant.timestamp_micros()) {
            Ok(instant)
        } else {
            Err(at.reject(
                Reason::OutOfRange,
                "must lie between 1970-01-01T00:00:00Z and 2100-01-01T00:00:00Z, the latter excluded",
            ))
        }
    }
}

impl<'a> Contract<'a> for DateTime<Utc> {
    fn schema() -> Value {
        json!({
            "type": "string",
            "format": "date-time",
            "pattern": TIMESTAMP_PATTERN,
            "$comment": "not before 1970-01-01T00:00:00Z, and before 2100-01-01T00:00:00Z",
        })
    }
}

impl Hashed for DateTime<Utc> {
    fn digest(&self, into: &mut Digest) {
        into.integer(self.timestamp_micros());
    }
}

/// A calendar date.
impl<'a> Decode<'a> for NaiveDate {
    fn decode(node: Node<'a>, at: &Path<'_>) -> Result<Self, Rejected> {
        let date = parse_date(node.text(at)?.as_bytes())
            .ok_or_else(|| at.reject(Reason::InvalidDate, "must be a date such as 2026-01-31"))?;
        if (1970..2100).contains(&date.year()) {
            Ok(date)
        } else {
            Err(at.reject(
                Reason::OutOfRange,
                "must lie between 1970-01-01 and 2099-12-31",
            ))
        }
    }
}

impl<'a> Contract<'a> for NaiveDate {
    fn schema() -> Value {
        json!({ "type": "string", "format": "date", "pattern": DATE_PATTERN })
    }
}

impl Hashed for NaiveDate {
    fn digest(&self, into: &mut Digest) {
        into.integer(self.num_days_from_ce().into());
    }
}

/// No leap seconds and no 24:00: neither is one instant in every system that reads it. Digits
/// beyond the microsecond are cut here, before anything compares the instant.
fn parse_timestamp(text: &str) -> Option<DateTime<Utc>> {
    let (date, rest) = text.as_bytes().split_at_checked(10)?;
    let [b'T', h1, h2, b':', m1, m2, b':', s1, s2, rest @ ..] = rest else {
        return None;
    };
    let (micros, offset) = match rest {
        [b'.', rest @ ..] => {
            let digits = rest.iter().take_while(|b| b.is_ascii_digit()).count();
            let (fraction, offset) = rest.split_at(digits);
            (micros(fraction)?, offset)
        }
        offset => (0, offset),
    };
    parse_date(date)?
        .and_hms_micro_opt(
            number(&[*h1, *h2])?,
            number(&[*m1, *m2])?,
            number(&[*s1, *s2])?,
            micros,
        )?
        .and_utc()
        .checked_sub_signed(parse_offset(offset)?)
}

fn parse_offset(offset: &[u8]) -> Option<TimeDelta> {
    let (sign, h1, h2, m1, m2) = match offset {
        b"Z" => return Some(TimeDelta::zero()),
        [b'+', h1, h2, b':', m1, m2] => (1, h1, h2, m1, m2),
        [b'-', h1, h2, b':', m1, m2] => (-1, h1, h2, m1, m2),
        _ => return None,
    };
    let (hours, minutes) = (number(&[*h1, *h2])?, number(&[*m1, *m2])?);
    if hours > 23 || minutes > 59 {
        return None;
    }
    TimeDelta::try_minutes(sign * i64::from(hours * 60 + minutes))
}

fn parse_date(date: &[u8]) -> Option<NaiveDate> {
    let [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2] = date else {
        return None;
    };
    let year = number(&[*y1, *y2, *y3, *y4])?;
    NaiveDate::from_ymd_opt(
        i32::try_from(year).ok()?,
        number(&[*m1, *m2])?,
        number(&[*d1, *d2])?,
    )
}

fn micros(fraction: &[u8]) -> Option<u32> {
    let kept = &fraction[..fraction.len().min(6)];
    let scale = [0, 100_000, 10_000, 1_000, 100, 10, 1][kept.len()];
    (scale > 0).then_some(number(kept)? * scale)
}

/// A number of at most nine digits.
fn number(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0, |number, digit| {
        digit
            .is_ascii_digit()
            .then(|| number * 10 + u32::from(digit - b'0'))
    })
}
