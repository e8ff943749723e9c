//! The contract checked by an independent JSON parser, without looking at how events are written.

use chrono::{DateTime, FixedOffset};
use rust_decimal::Decimal;
use serde_json::Value;

/// The rule that an event breaks, if any.
pub(super) fn fault(line: &str) -> Option<&'static str> {
    check_event(line).err()
}

type Checked<T> = Result<T, &'static str>;

fn rule(holds: bool, name: &'static str) -> Checked<()> {
    if holds { Ok(()) } else { Err(name) }
}

fn check_event(line: &str) -> Checked<()> {
    let event: Value = serde_json::from_str(line).map_err(|_| "json")?;
    // A repeated key would be lost here, and the text would not come back.
    let rewritten = event.to_string();
    rule(rewritten == line, "duplicate key or spelling")?;
    rule(event["specversion"] == "1.0", "specversion")?;
    text(&event["id"])?;
    text(&event["source"])?;
    time(&event["time"])?;
    let data = &event["data"];
    let key = match event["type"].as_str() {
        Some("airline.booking.upserted.v1") => {
            check_booking(data)?;
            "booking_id"
        }
        Some("airline.flight.upserted.v1") => {
            check_flight(data)?;
            "flight_id"
        }
        Some("airline.booking.deleted.v1") => {
            time(&data["deleted_at"])?;
            "booking_id"
        }
        Some("airline.flight.deleted.v1") => {
            time(&data["deleted_at"])?;
            "flight_id"
        }
        _ => return Err("type"),
    };
    identifier(&data[key])?;
    rule(
        data["version"].as_i64().is_some_and(|version| version >= 1),
        "version",
    )
}

fn check_booking(data: &Value) -> Checked<()> {
    code(&data["reference"], 5..=13, "reference")?;
    identifier(&data["flight_id"])?;
    let booked_at = time(&data["booked_at"])?;
    rule(
        data["travel_date"]
            .as_str()
            .is_some_and(|date| date.parse::<chrono::NaiveDate>().is_ok()),
        "travel_date",
    )?;
    one_of(&data["cabin"], &["F", "C", "W", "Y"])?;
    code(&data["booking_class"], 1..=1, "booking_class")?;
    one_of(
        &data["payment_status"],
        &["pending", "paid", "refunded", "cancelled"],
    )?;
    one_of(
        &data["status"],
        &["confirmed", "cancelled", "used", "no_show"],
    )?;
    if data["status"] == "cancelled" {
        rule(time(&data["cancelled_at"])? >= booked_at, "cancelled_at")?;
    } else {
        rule(data["cancelled_at"].is_null(), "cancelled_at")?;
    }
    one_of(&data["point_of_sale"], &["US", "CA", "JP", "KW"])?;
    if !data["journey"].is_null() {
        airport(&data["journey"]["origin"])?;
        airport(&data["journey"]["destination"])?;
    }
    if !data["ticket_number"].is_null() {
        let digits = data["ticket_number"].as_str().unwrap_or_default();
        rule(
            digits.len() == 13 && digits.bytes().all(|byte| byte.is_ascii_digit()),
            "ticket_number",
        )?;
        rule(
            data["coupon"]
                .as_u64()
                .is_some_and(|coupon| (1..=4).contains(&coupon)),
            "coupon",
        )?;
    }
    if !data["passenger"].is_null() {
        check_passenger(&data["passenger"])?;
    }
    check_price(&data["price"])
}

fn check_passenger(passenger: &Value) -> Checked<()> {
    text(&passenger["name"])?;
    if let Some(email) = passenger["email"].as_str() {
        rule(
            email.ends_with("@example.com") || email.ends_with("@example.net"),
            "email",
        )?;
    }
    if let Some(phone) = passenger["phone"].as_str() {
        rule(phone.len() == 12 && phone.starts_with("+1555"), "phone")?;
    }
    Ok(())
}

fn check_price(price: &Value) -> Checked<()> {
    let decimals = match price["currency"].as_str() {
        Some("USD" | "CAD") => 2,
        Some("JPY") => 0,
        Some("KWD") => 3,
        _ => return Err("currency"),
    };
    let amount = |name: &str| -> Checked<Decimal> {
        let text = price[name].as_str().ok_or("amount")?;
        rule(
            text.bytes()
                .all(|byte| byte.is_ascii_digit() || byte == b'.'),
            "amount",
        )?;
        rule(
            !text.starts_with('0') || text == "0" || text.starts_with("0."),
            "amount",
        )?;
        let amount: Decimal = text.parse().map_err(|_| "amount")?;
        rule(amount.scale() == decimals, "decimals")?;
        Ok(amount)
    };
    rule(
        amount("base")? + amount("taxes")? == amount("total")?,
        "total",
    )
}

fn check_flight(data: &Value) -> Checked<()> {
    let airline = data["airline"].as_str().unwrap_or_default();
    code(&data["airline"], 2..=2, "airline")?;
    rule(
        airline.bytes().any(|byte| byte.is_ascii_uppercase()),
        "airline",
    )?;
    let number = data["flight_number"].as_str().unwrap_or_default();
    rule(
        number.len() <= 4 && !number.starts_with('0') && number.parse::<u16>().is_ok(),
        "flight_number",
    )?;
    airport(&data["origin"])?;
    airport(&data["destination"])?;
    rule(data["origin"] != data["destination"], "destination")?;
    let block = time(&data["scheduled_arrival"])? - time(&data["scheduled_departure"])?;
    rule(
        block.num_seconds() > 0 && block.num_hours() <= 24,
        "scheduled_arrival",
    )?;
    for name in ["estimated_departure", "actual_departure", "actual_arrival"] {
        if !data[name].is_null() {
            time(&data[name])?;
        }
    }
    if !data["actual_arrival"].is_null() {
        let air = time(&data["actual_arrival"])? - time(&data["actual_departure"])?;
        rule(air.num_minutes() >= 15, "actual_arrival")?;
    }
    one_of(
        &data["status"],
        &[
            "scheduled",
            "delayed",
            "boarding",
            "departed",
            "arrived",
            "cancelled",
            "diverted",
        ],
    )?;
    check_capacity(&data["capacity"])
}

fn check_capacity(capacity: &Value) -> Checked<()> {
    if capacity.is_null() {
        return Ok(());
    }
    let seats = |value: &Value| {
        value
            .as_u64()
            .filter(|seats| (1..=1_000).contains(seats))
            .ok_or("seats")
    };
    let total = seats(&capacity["total"])?;
    let Some(by_cabin) = capacity["by_cabin"].as_object() else {
        return Ok(());
    };
    let mut sum = 0;
    for (cabin, value) in by_cabin {
        rule(["F", "C", "W", "Y"].contains(&cabin.as_str()), "by_cabin")?;
        sum += seats(value)?;
    }
    rule(sum == total, "by_cabin")
}

fn text(value: &Value) -> Checked<()> {
    let text = value.as_str().ok_or("text")?;
    rule(
        !text.is_empty() && text.trim() == text && !text.contains(char::is_control),
        "text",
    )
}

fn identifier(value: &Value) -> Checked<()> {
    let text = value.as_str().ok_or("identifier")?;
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._:/-".contains(&byte);
    rule(
        (1..=64).contains(&text.len()) && text.bytes().all(allowed),
        "identifier",
    )
}

fn code(value: &Value, length: std::ops::RangeInclusive<usize>, name: &'static str) -> Checked<()> {
    let text = value.as_str().ok_or(name)?;
    let capital = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit();
    rule(
        length.contains(&text.len()) && text.bytes().all(capital),
        name,
    )
}

fn airport(value: &Value) -> Checked<()> {
    code(value, 3..=3, "airport")?;
    rule(
        !value
            .to_string()
            .contains(|letter: char| letter.is_ascii_digit()),
        "airport",
    )
}

fn one_of(value: &Value, allowed: &[&str]) -> Checked<()> {
    rule(
        value.as_str().is_some_and(|text| allowed.contains(&text)),
        "enum",
    )
}

fn time(value: &Value) -> Checked<DateTime<FixedOffset>> {
    let time = DateTime::parse_from_rfc3339(value.as_str().ok_or("time")?).map_err(|_| "time")?;
    rule((0..4_102_444_800).contains(&time.timestamp()), "time")?;
    Ok(time)
}
