//! MarketData computed in memory from a set of events, in whatever order they stand: an independent
//! reading of the definitions that shares no code and no SQL with the product.

use std::collections::BTreeMap;

use chrono::{DateTime, FixedOffset, NaiveDate, Utc};
use rust_decimal::{Decimal, RoundingStrategy};
use serde_json::Value;

/// Origins without daylight saving time, with the hours that their clocks are ahead of UTC. Any other
/// airport counts as unknown.
const CLOCKS: [(&str, i32); 5] = [
    ("NRT", 9),
    ("KWI", 3),
    ("PHX", -7),
    ("HNL", -10),
    ("KEF", 0),
];

/// Where the column ends: 99.9999.
const LOAD_FACTOR_MAX: Decimal = Decimal::from_parts(999_999, 0, 0, false, 4);

/// The relations that the model computes, each with the query whose lines it predicts.
pub const QUERIES: [&str; 3] = [
    "SELECT origin, destination, data_date, flight_count, cancelled_flight_count, seat_capacity,
            booking_count, gross_booking_count, cancellation_count, used_count, no_show_count,
            available_seats, closed_flight_count, load_factor, is_estimated
     FROM market_data ORDER BY origin, destination, data_date",
    "SELECT origin, destination, data_date, cabin, currency, booking_count,
            round(total_revenue, 3), round(base_revenue, 3), round(average_price, 6),
            round(min_price, 3), round(max_price, 3), round(average_base_fare, 6)
     FROM market_fares ORDER BY origin, destination, data_date, cabin, currency",
    "SELECT origin, destination, data_date, activity_date, cabin, currency,
            gross_bookings, cancellations, round(gross_revenue, 3), round(cancelled_revenue, 3)
     FROM market_activity ORDER BY origin, destination, data_date, activity_date, cabin, currency",
];

type Market = (String, String, NaiveDate);

struct Flight {
    market: Market,
    clock_known: bool,
    capacity: Option<i64>,
    cancelled: bool,
}

struct Booking {
    flight_id: String,
    cabin: String,
    currency: String,
    base: Decimal,
    total: Decimal,
    status: String,
    booked_on: NaiveDate,
    cancelled_on: Option<NaiveDate>,
}

/// The lines that each of [`QUERIES`] has to answer after these events.
pub fn expect(events: &[Value]) -> [String; 3] {
    let flights: BTreeMap<String, Flight> = newest(events, "flight")
        .into_iter()
        .filter_map(|(key, data)| Some((key, read_flight(data?))))
        .collect();
    let bookings: Vec<Booking> = newest(events, "booking")
        .into_values()
        .filter_map(|data| Some(read_booking(data?)))
        .collect();
    let counted: Vec<(&Market, &Booking)> = bookings
        .iter()
        .filter_map(|booking| {
            let flight = flights
                .get(&booking.flight_id)
                .filter(|flight| !flight.cancelled)?;
            Some((&flight.market, booking))
        })
        .collect();
    [
        market_data(&flights, &bookings),
        market_fares(&counted),
        market_activity(&counted),
    ]
}

/// The data of the highest version of each key; `None` for a tombstone.
fn newest<'a>(events: &'a [Value], entity: &str) -> BTreeMap<String, Option<&'a Value>> {
    let mut newest: BTreeMap<String, (i64, Option<&Value>)> = BTreeMap::new();
    for event in events {
        let kind = event["type"].as_str().unwrap();
        if !kind.starts_with(&format!("airline.{entity}.")) {
            continue;
        }
        let data = &event["data"];
        let key = text(&data[format!("{entity}_id")]);
        let version = data["version"].as_i64().unwrap();
        let state = kind.contains(".upserted.").then_some(data);
        let kept = newest.entry(key).or_insert((version, state));
        if version > kept.0 {
            *kept = (version, state);
        }
    }
    newest
        .into_iter()
        .map(|(key, (_, state))| (key, state))
        .collect()
}

fn read_flight(data: &Value) -> Flight {
    let origin = text(&data["origin"]);
    let clock = CLOCKS.iter().find(|(airport, _)| *airport == origin);
    let departure = instant(&data["scheduled_departure"]);
    let offset = FixedOffset::east_opt(clock.map_or(0, |(_, hours)| hours * 3600)).unwrap();
    let data_date = departure.with_timezone(&offset).date_naive();
    Flight {
        market: (origin, text(&data["destination"]), data_date),
        clock_known: clock.is_some(),
        capacity: data["capacity"]["total"].as_i64(),
        cancelled: data["status"] == "cancelled",
    }
}

fn read_booking(data: &Value) -> Booking {
    let price = &data["price"];
    Booking {
        flight_id: text(&data["flight_id"]),
        cabin: text(&data["cabin"]),
        currency: text(&price["currency"]),
        base: text(&price["base"]).parse().unwrap(),
        total: text(&price["total"]).parse().unwrap(),
        status: text(&data["status"]),
        booked_on: instant(&data["booked_at"]).date_naive(),
        cancelled_on: data["cancelled_at"]
            .is_string()
            .then(|| instant(&data["cancelled_at"]).date_naive()),
    }
}

fn market_data(flights: &BTreeMap<String, Flight>, bookings: &[Booking]) -> String {
    let mut markets: BTreeMap<&Market, Vec<(&String, &Flight)>> = BTreeMap::new();
    for (flight_id, flight) in flights {
        markets
            .entry(&flight.market)
            .or_default()
            .push((flight_id, flight));
    }
    let mut lines = String::new();
    for (market, flights) in markets {
        let with_status = |flight_id: &String, statuses: &[&str]| {
            let of_flight = bookings
                .iter()
                .filter(|booking| booking.flight_id == *flight_id);
            of_flight
                .filter(|booking| statuses.contains(&booking.status.as_str()))
                .count() as i64
        };
        let operating: Vec<_> = flights
            .iter()
            .filter(|(_, flight)| !flight.cancelled)
            .collect();
        let count = |statuses: &[&str]| {
            operating
                .iter()
                .map(|(id, _)| with_status(id, statuses))
                .sum::<i64>()
        };
        let active = ["confirmed", "used", "no_show"];
        let booked = count(&active);
        let cancelled = count(&["cancelled"]);
        let seats: Option<i64> = operating.iter().map(|(_, flight)| flight.capacity).sum();
        let available: Option<i64> = operating
            .iter()
            .map(|(id, flight)| Some((flight.capacity? - with_status(id, &active)).max(0)))
            .sum();
        let closed = operating
            .iter()
            .filter(|(id, flight)| {
                flight
                    .capacity
                    .is_some_and(|seats| with_status(id, &active) >= seats)
            })
            .count();
        let load_factor = seats.filter(|seats| *seats > 0).map(|seats| {
            let exact = Decimal::from(booked) / Decimal::from(seats);
            rounded(exact.min(LOAD_FACTOR_MAX), 4)
        });
        lines += &line(&[
            &keys(market),
            &operating.len().to_string(),
            &(flights.len() - operating.len()).to_string(),
            &or_null(seats),
            &booked.to_string(),
            &(booked + cancelled).to_string(),
            &cancelled.to_string(),
            &count(&["used"]).to_string(),
            &count(&["no_show"]).to_string(),
            &or_null(available),
            &closed.to_string(),
            &or_null(load_factor),
            if seats.is_none() || flights.iter().any(|(_, flight)| !flight.clock_known) {
                "t"
            } else {
                "f"
            },
        ]);
    }
    lines
}

fn market_fares(counted: &[(&Market, &Booking)]) -> String {
    let mut fares: BTreeMap<_, Vec<&Booking>> = BTreeMap::new();
    for (market, booking) in counted
        .iter()
        .filter(|(_, booking)| booking.status != "cancelled")
    {
        fares
            .entry((market, &booking.cabin, &booking.currency))
            .or_default()
            .push(booking);
    }
    let mut lines = String::new();
    for ((market, cabin, currency), bookings) in fares {
        let count = Decimal::from(bookings.len());
        let total: Decimal = bookings.iter().map(|booking| booking.total).sum();
        let base: Decimal = bookings.iter().map(|booking| booking.base).sum();
        lines += &line(&[
            &keys(market),
            cabin,
            currency,
            &count.to_string(),
            &rounded(total, 3),
            &rounded(base, 3),
            &rounded(total / count, 6),
            &rounded(
                bookings.iter().map(|booking| booking.total).min().unwrap(),
                3,
            ),
            &rounded(
                bookings.iter().map(|booking| booking.total).max().unwrap(),
                3,
            ),
            &rounded(base / count, 6),
        ]);
    }
    lines
}

fn market_activity(counted: &[(&Market, &Booking)]) -> String {
    let mut activity: BTreeMap<_, (u32, u32, Decimal, Decimal)> = BTreeMap::new();
    for (market, booking) in counted {
        let on = |day| (market, day, &booking.cabin, &booking.currency);
        let booked = activity.entry(on(booking.booked_on)).or_default();
        booked.0 += 1;
        booked.2 += booking.total;
        if let Some(day) = booking.cancelled_on {
            let cancelled = activity.entry(on(day)).or_default();
            cancelled.1 += 1;
            cancelled.3 += booking.total;
        }
    }
    let mut lines = String::new();
    for ((market, day, cabin, currency), (gross, cancelled, gross_revenue, cancelled_revenue)) in
        activity
    {
        lines += &line(&[
            &keys(market),
            &day.to_string(),
            cabin,
            currency,
            &gross.to_string(),
            &cancelled.to_string(),
            &rounded(gross_revenue, 3),
            &rounded(cancelled_revenue, 3),
        ]);
    }
    lines
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn instant(value: &Value) -> DateTime<Utc> {
    DateTime::parse_from_rfc3339(value.as_str().unwrap())
        .unwrap()
        .to_utc()
}

/// As PostgreSQL rounds: half away from zero, trailing zeros kept.
fn rounded(value: Decimal, decimals: u32) -> String {
    let mut value = value.round_dp_with_strategy(decimals, RoundingStrategy::MidpointAwayFromZero);
    value.rescale(decimals);
    value.to_string()
}

fn or_null(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

fn keys((origin, destination, data_date): &Market) -> String {
    format!("{origin} | {destination} | {data_date}")
}

fn line(cells: &[&str]) -> String {
    cells.join(" | ") + "\n"
}
