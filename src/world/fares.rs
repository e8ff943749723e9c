//! What a seat costs and how early it is booked, in the shapes that airline statistics publish.

use super::data::Fare;
use super::dice::Dice;
use crate::event::Cabin;

/// (share of bookings, days before departure): quantiles with straight lines between them.
const LEAD_DAYS: [(i64, i64); 8] = [
    (0, 0),
    (10, 8),
    (25, 21),
    (50, 51),
    (75, 115),
    (90, 224),
    (99, 390),
    (100, 400),
];

/// (up to this many days before departure, fare in per cent of the lowest).
const PREMIUM: [(i64, u64); 8] = [
    (3, 143),
    (7, 139),
    (14, 131),
    (21, 125),
    (30, 120),
    (45, 118),
    (60, 121),
    (i64::MAX, 129),
];

/// Average of `PREMIUM` over `LEAD_DAYS`: dividing by it keeps the median of a market where it is.
const PREMIUM_MEAN: u64 = 126;

/// The booking classes sold in a cabin.
pub(super) fn classes(cabin: Cabin) -> &'static [u8] {
    match cabin {
        Cabin::Economy => b"YBMHQKLTVX",
        Cabin::PremiumEconomy => b"PEA",
        Cabin::Business => b"CDJZ",
        Cabin::First => b"FA",
    }
}

fn fare_percent(cabin: Cabin) -> u64 {
    match cabin {
        Cabin::Economy => 100,
        Cabin::PremiumEconomy => 165,
        Cabin::Business => 320,
        Cabin::First => 480,
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Currency {
    Usd,
    Cad,
    Jpy,
    Kwd,
}

impl Currency {
    pub(super) fn code(self) -> &'static str {
        match self {
            Self::Usd => "USD",
            Self::Cad => "CAD",
            Self::Jpy => "JPY",
            Self::Kwd => "KWD",
        }
    }

    pub(super) fn decimals(self) -> u32 {
        match self {
            Self::Usd | Self::Cad => 2,
            Self::Jpy => 0,
            Self::Kwd => 3,
        }
    }

    /// Minor units of this currency for an amount in US cents, at rates fixed in January 2013.
    fn of_cents(self, cents: u64) -> u64 {
        match self {
            Self::Usd => cents,
            Self::Cad => cents * 985 / 1_000,
            Self::Jpy => cents * 88 / 100,
            Self::Kwd => cents * 282 / 100,
        }
    }
}

/// Amounts in minor units; the total is never stored apart from its parts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Price {
    pub(super) base: u64,
    pub(super) taxes: u64,
    pub(super) currency: Currency,
}

impl Price {
    pub(super) fn draw(
        fare: Fare,
        lead_days: i64,
        cabin: Cabin,
        currency: Currency,
        dice: &mut Dice,
    ) -> Self {
        let cents = between_quartiles(fare, dice) * premium(lead_days) / PREMIUM_MEAN;
        let base = cents * fare_percent(cabin) / 100;
        // US ticket tax of 7.5 %, segment fee, passenger facility and security charges.
        let taxes = base * 75 / 1_000 + 1_100;
        Self {
            base: currency.of_cents(base),
            taxes: currency.of_cents(taxes),
            currency,
        }
    }

    pub(super) fn total(&self) -> u64 {
        self.base + self.taxes
    }
}

pub(super) fn lead_days(dice: &mut Dice) -> i64 {
    // Hundredths of a per cent, so that the tail is not all whole quantiles.
    let point = dice.between(0, 9_999);
    for pair in LEAD_DAYS.windows(2) {
        let ((low, first), (high, last)) = (pair[0], pair[1]);
        if point < high * 100 {
            return first + (last - first) * (point - low * 100) / ((high - low) * 100);
        }
    }
    LEAD_DAYS[LEAD_DAYS.len() - 1].1
}

fn premium(lead_days: i64) -> u64 {
    let step = PREMIUM.iter().find(|(limit, _)| lead_days <= *limit);
    step.map_or(PREMIUM_MEAN, |(_, percent)| *percent)
}

/// A fare in cents: one of the four quarters, evenly spread within it.
fn between_quartiles(fare: Fare, dice: &mut Dice) -> u64 {
    let spread = (fare.upper - fare.lower).max(100);
    let (low, high) = match dice.below(4) {
        0 => (fare.lower * 6 / 10, fare.lower),
        1 => (fare.lower, fare.median),
        2 => (fare.median, fare.upper),
        _ => (fare.upper, fare.upper + spread),
    };
    u64::from(low + dice.below((high - low).max(1)))
}
