//! What analysts ask, how long they wait.

use std::time::Instant;

use anyhow::{Result, ensure};
use chrono::NaiveDate;
use sqlx::PgConnection;

use crate::report::{Limit, Report, quantile};
use crate::rig::Place;

const MARKET_DAY: &str =
    "SELECT * FROM market_data WHERE origin = $1 AND destination = $2 AND data_date = $3";
const CURVE: &str =
    "SELECT * FROM booking_curve WHERE origin = $1 AND destination = $2 AND data_date = $3";
const FARES: &str =
    "SELECT * FROM market_fares WHERE origin = $1 AND destination = $2 AND data_date = $3";
/// How often each market-day's fares are asked for.
const FARES_ASKED: usize = 100;
const TOP_MARKETS: &str = "SELECT origin, destination, sum(booking_count) AS bookings FROM market_data \
    WHERE data_date >= $1 AND data_date < $1 + interval '1 month' \
    GROUP BY origin, destination ORDER BY bookings DESC, origin, destination LIMIT 20";

/// Origin, destination and date of a market-day.
type Key = (String, String, NaiveDate);

/// Asks each question many times over the stored bookings.
pub async fn measure(place: &Place, times: usize, report: &mut Report) -> Result<()> {
    place.tidy().await?;
    let mut connection = place.connect().await?;
    let keys: Vec<Key> = sqlx::query_as(
        "SELECT DISTINCT ON (md5(f.flight_id)) f.origin, f.destination, f.data_date \
         FROM flight_demand d JOIN flights f USING (flight_id) \
         WHERE f.deleted_at IS NULL AND f.status <> 'cancelled' ORDER BY md5(f.flight_id) LIMIT $1",
    )
    .bind(times as i64)
    .fetch_all(&mut connection)
    .await?;
    let by_key = by_key(&mut connection, MARKET_DAY, &keys).await?;
    report.add(
        "one market-day by key, p99",
        by_key,
        "ms",
        Limit::AtMost(5.0),
    );
    let top = top_markets(&mut connection, times / 10).await?;
    report.add(
        "top 20 markets of a month, p99",
        top,
        "ms",
        Limit::AtMost(100.0),
    );
    let curve = self::by_key(&mut connection, CURVE, &keys).await?;
    report.add("a booking curve, p99", curve, "ms", Limit::AtMost(20.0));
    Ok(())
}

/// Asks for the lowest and highest fare of a flight's market-day with so many bookings: those are kept nowhere, and looked
/// for among all of them.
pub async fn fares(
    place: &Place,
    flight: &str,
    bookings: usize,
    report: &mut Report,
) -> Result<()> {
    place.tidy().await?;
    let mut connection = place.connect().await?;
    let key: Key =
        sqlx::query_as("SELECT origin, destination, data_date FROM flights WHERE flight_id = $1")
            .bind(flight)
            .fetch_one(&mut connection)
            .await?;
    let fares = by_key(&mut connection, FARES, &vec![key; FARES_ASKED]).await?;
    let name = format!("fares of a market-day with {bookings} bookings, p99");
    report.add(name, fares, "ms", Limit::None);
    Ok(())
}

async fn by_key(connection: &mut PgConnection, query: &'static str, keys: &[Key]) -> Result<f64> {
    let mut ms = Vec::with_capacity(keys.len());
    for (origin, destination, data_date) in keys {
        let started = Instant::now();
        let rows = sqlx::query(query)
            .bind(origin)
            .bind(destination)
            .bind(data_date)
            .fetch_all(&mut *connection)
            .await?;
        ms.push(started.elapsed().as_secs_f64() * 1e3);
        ensure!(!rows.is_empty(), "a market-day is missing");
    }
    Ok(quantile(&ms, 0.99))
}

async fn top_markets(connection: &mut PgConnection, times: usize) -> Result<f64> {
    let month: NaiveDate = sqlx::query_scalar(
        "SELECT date_trunc('month', data_date)::date FROM flights WHERE deleted_at IS NULL \
         GROUP BY 1 ORDER BY count(*) DESC LIMIT 1",
    )
    .fetch_one(&mut *connection)
    .await?;
    let mut ms = Vec::with_capacity(times);
    for _ in 0..times {
        let started = Instant::now();
        let rows = sqlx::query(TOP_MARKETS)
            .bind(month)
            // Asked as people ask it, planned for this month: see README for those who prepare it.
            .persistent(false)
            .fetch_all(&mut *connection)
            .await?;
        ms.push(started.elapsed().as_secs_f64() * 1e3);
        ensure!(rows.len() == 20, "the month has {} markets", rows.len());
    }
    Ok(quantile(&ms, 0.99))
}
