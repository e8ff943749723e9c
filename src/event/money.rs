//! Exact money and the two ISO lists.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use iso_currency::IntoEnumIterator as _;
use rust_decimal::Decimal;
use serde_json::{Value, json};

use super::contract::{Contract, contract};
use super::digest::{Digest, Hashed};
use super::json::{Decode, Node, Path};
use super::reason::{Reason, Rejected};

/// No currency has more decimals (CLF has four).
const DECIMALS_MAX: u32 = 4;
/// Digits before the point: amounts are below 10^12.
const INTEGER_DIGITS_MAX: usize = 12;

/// An ISO 4217 currency with a minor unit; `XXX`, gold and the like have none, so no price can be
/// given in them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Currency {
    code: &'static str,
    minor_units: u32,
}

/// By code. `iso_currency`'s own look-up by text compares with every code.
static CURRENCIES: LazyLock<Vec<Currency>> = LazyLock::new(|| {
    let mut currencies: Vec<_> = iso_currency::Currency::iter()
        .filter_map(|currency| {
            Some(Currency {
                code: currency.code(),
                minor_units: currency.exponent()?.into(),
            })
        })
        .collect();
    currencies.sort_unstable();
    currencies
});

impl Currency {
    /// Every currency, by code.
    pub fn all() -> &'static [Self] {
        &CURRENCIES
    }

    /// The currency of an ISO 4217 code.
    pub fn from_code(code: &str) -> Option<Self> {
        let index = CURRENCIES
            .binary_search_by_key(&code, |currency| currency.code)
            .ok()?;
        CURRENCIES.get(index).copied()
    }

    /// The ISO 4217 code.
    pub const fn as_str(self) -> &'static str {
        self.code
    }

    /// Decimals of an amount: 0 for JPY, 2 for AUD, 3 for KWD.
    pub const fn minor_units(self) -> u32 {
        self.minor_units
    }
}

impl<'a> Decode<'a> for Currency {
    fn decode(node: Node<'a>, at: &Path<'_>) -> Result<Self, Rejected> {
        Self::from_code(&node.text(at)?).ok_or_else(|| {
            at.reject(
                Reason::UnknownCurrency,
                "must be an ISO 4217 code of a currency with a minor unit, in capitals",
            )
        })
    }
}

impl<'a> Contract<'a> for Currency {
    fn schema() -> Value {
        let codes: Vec<_> = Self::all().iter().map(|currency| currency.code).collect();
        json!({ "type": "string", "enum": codes })
    }
}

impl Hashed for Currency {
    fn digest(&self, into: &mut Digest) {
        into.text(self.code);
    }
}

/// An ISO 3166 country.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Country(&'static str);

impl Country {
    /// The country of an ISO 3166 alpha-2 code.
    pub fn from_code(code: &str) -> Option<Self> {
        rust_iso3166::from_alpha2(code).map(|country| Self(country.alpha2))
    }

    /// The ISO 3166 alpha-2 code.
    pub const fn as_str(self) -> &'static str {
        self.0
    }
}

impl<'a> Decode<'a> for Country {
    fn decode(node: Node<'a>, at: &Path<'_>) -> Result<Self, Rejected> {
        Self::from_code(&node.text(at)?).ok_or_else(|| {
            at.reject(
                Reason::UnknownCountry,
                "must be an ISO 3166 alpha-2 code, in capitals",
            )
        })
    }
}

impl<'a> Contract<'a> for Country {
    fn schema() -> Value {
        json!({ "type": "string", "enum": rust_iso3166::ALL_ALPHA2 })
    }
}

impl Hashed for Country {
    fn digest(&self, into: &mut Digest) {
        into.text(self.0);
    }
}

/// An amount of money, as a decimal string.
impl<'a> Decode<'a> for Decimal {
    fn decode(node: Node<'a>, at: &Path<'_>) -> Result<Self, Rejected> {
        if matches!(node, Node::Integer(_) | Node::HugeInteger | Node::Fraction) {
            return Err(at.reject(
                Reason::WrongType,
                "must be a decimal string such as \"12.50\"; JSON numbers are not exact",
            ));
        }
        parse_amount(&node.text(at)?).map_err(|(reason, expected)| at.reject(reason, expected))
    }
}

impl<'a> Contract<'a> for Decimal {
    fn schema() -> Value {
        json!({ "type": "string", "pattern": amount_pattern(DECIMALS_MAX) })
    }
}

impl Hashed for Decimal {
    fn digest(&self, into: &mut Digest) {
        into.amount(*self);
    }
}

fn parse_amount(text: &str) -> Result<Decimal, (Reason, &'static str)> {
    const INVALID: (Reason, &str) = (
        Reason::InvalidDecimal,
        "must be digits, with a point before decimals if there are any, such as \"12.50\"",
    );
    let (negative, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (integer, decimals) = match unsigned.split_once('.') {
        Some((_, "")) => return Err(INVALID),
        Some((integer, decimals)) => (integer, decimals),
        None => (unsigned, ""),
    };
    let leading_zero = integer.len() > 1 && integer.starts_with('0');
    let mut digits = integer.bytes().chain(decimals.bytes());
    if integer.is_empty() || leading_zero || !digits.all(|b| b.is_ascii_digit()) {
        return Err(INVALID);
    }
    if negative {
        return Err((Reason::NegativeAmount, "must not have a minus sign"));
    }
    if integer.len() > INTEGER_DIGITS_MAX {
        return Err((Reason::OutOfRange, "must be less than 10^12"));
    }
    let scale = u32::try_from(decimals.len()).unwrap_or(u32::MAX);
    if scale > DECIMALS_MAX {
        return Err((
            Reason::TooManyDecimals,
            "must have no more decimals than its currency",
        ));
    }
    let units = integer
        .bytes()
        .chain(decimals.bytes())
        .fold(0, |units: i64, digit| units * 10 + i64::from(digit - b'0'));
    Ok(Decimal::new(units, scale))
}

fn amount_pattern(decimals: u32) -> String {
    match decimals {
        0 => r"^(0|[1-9][0-9]{0,11})$".to_owned(),
        _ => format!(r"^(0|[1-9][0-9]{{0,11}})(\.[0-9]{{1,{decimals}}})?$"),
    }
}

contract! {
    /// What one passenger pays for one flight. Amounts are decimal strings, at least 0, with no
    /// more decimals than the currency has; `total` is `base` plus `taxes` exactly.
    pub struct Price {
        /// The fare.
        base: Decimal,
        /// Taxes and fees.
        taxes: Decimal,
        /// `base` plus `taxes`.
        total: Decimal,
        /// ISO 4217 code of a currency with a minor unit.
        currency: Currency,
    }
    check in_minor_units;
    rules decimals_by_currency;
}

/// Gives the amounts the decimals of their currency, so that 12.5 USD and 12.50 USD are the same
/// price.
fn in_minor_units(mut price: Price, at: &Path<'_>) -> Result<Price, Rejected> {
    let decimals = price.currency.minor_units();
    let amounts = [
        ("base", &mut price.base),
        ("taxes", &mut price.taxes),
        ("total", &mut price.total),
    ];
    for (name, amount) in amounts {
        if amount.scale() > decimals {
            let expected = format!("must have at most {decimals} decimals in its currency");
            return Err(at.field(name).reject(Reason::TooManyDecimals, expected));
        }
        amount.rescale(decimals);
    }
    if price.total != price.base + price.taxes {
        let expected = "must equal base + taxes exactly";
        return Err(at.field("total").reject(Reason::TotalMismatch, expected));
    }
    Ok(price)
}

fn decimals_by_currency() -> Value {
    let mut currencies: BTreeMap<u32, Vec<&str>> = BTreeMap::new();
    for currency in Currency::all() {
        currencies
            .entry(currency.minor_units)
            .or_default()
            .push(currency.code);
    }
    let rule = |(decimals, codes)| {
        let amount = json!({ "pattern": amount_pattern(decimals) });
        json!({
            "if": { "properties": { "currency": { "enum": codes } }, "required": ["currency"] },
            "then": { "properties": { "base": amount, "taxes": amount, "total": amount } },
        })
    };
    currencies.into_iter().map(rule).collect()
}
