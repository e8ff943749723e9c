//! Sets messages aside in `quarantined_events`.

use std::collections::BTreeMap;

use sqlx::PgConnection;

use super::ensure_stored;
use crate::batch::Delivery;
use crate::config::Pooler;
use crate::event::{CONTRACT_VERSION, Rejected};

#[derive(Default)]
struct Columns<'a> {
    reasons: Vec<&'static str>,
    paths: Vec<&'a str>,
    details: Vec<&'a str>,
    exchanges: Vec<&'a str>,
    routing_keys: Vec<&'a str>,
    content_types: Vec<Option<&'a str>>,
    content_encodings: Vec<Option<&'a str>>,
    message_ids: Vec<Option<&'a str>>,
    headers: Vec<String>,
    bodies: Vec<&'a [u8]>,
    sqlstates: Vec<Option<&'a str>>,
    times_received: Vec<i64>,
    places: Vec<i64>,
}

/// Writes one row for each body and reason, in ascending order of both.
pub(super) async fn set_aside(
    connection: &mut PgConnection,
    pooler: Pooler,
    deliveries: &[Delivery],
    rejected: &[(usize, Rejected)],
    sqlstate: Option<&str>,
) -> sqlx::Result<()> {
    let mut distinct: BTreeMap<_, (&Delivery, &Rejected, i64)> = BTreeMap::new();
    for (index, rejected) in rejected {
        let delivery = &deliveries[*index];
        let key = (rejected.reason.as_str(), delivery.body.as_slice());
        distinct.entry(key).or_insert((delivery, rejected, 0)).2 += 1;
    }
    if distinct.is_empty() {
        return Ok(());
    }
    let sent = distinct.len();
    let mut columns = Columns::default();
    for (delivery, rejected, times_received) in distinct.into_values() {
        columns.places.push(columns.places.len() as i64);
        columns.reasons.push(rejected.reason.as_str());
        columns.paths.push(&rejected.path);
        columns.details.push(&rejected.detail);
        columns.exchanges.push(&delivery.exchange);
        columns.routing_keys.push(&delivery.routing_key);
        columns.content_types.push(delivery.content_type.as_deref());
        columns
            .content_encodings
            .push(delivery.content_encoding.as_deref());
        columns.message_ids.push(delivery.message_id.as_deref());
        columns
            .headers
            .push(serde_json::Value::Object(delivery.headers.clone()).to_string());
        columns.bodies.push(&delivery.body);
        columns.sqlstates.push(sqlstate);
        columns.times_received.push(times_received);
    }
    let stored = pooler
        .query(include_str!("quarantine.sql"))
        .bind(columns.reasons)
        .bind(columns.paths)
        .bind(columns.details)
        .bind(columns.exchanges)
        .bind(columns.routing_keys)
        .bind(columns.content_types)
        .bind(columns.content_encodings)
        .bind(columns.message_ids)
        .bind(columns.headers)
        .bind(columns.bodies)
        .bind(columns.sqlstates)
        .bind(columns.times_received)
        .bind(columns.places)
        .bind(CONTRACT_VERSION)
        .execute(connection)
        .await?;
    ensure_stored("quarantined_events", stored.rows_affected(), sent)
}

/// Removes up to `most` messages that were replayed or discarded at least `days` ago; returns how many.
/// What is open stays for ever.
///
/// # Errors
/// What the database says.
pub async fn forget(connection: &mut PgConnection, days: u16, most: u32) -> sqlx::Result<u64> {
    let forgotten = sqlx::query(include_str!("forget.sql"))
        .bind(i32::from(days))
        .bind(i64::from(most))
        .execute(connection)
        .await?;
    Ok(forgotten.rows_affected())
}
