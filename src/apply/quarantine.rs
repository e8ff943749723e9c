//! Sets messages aside in `quarantined_events`, and settles them there.

use std::collections::BTreeMap;

use serde_json::Value;
use sqlx::PgConnection;

use super::ensure_stored;
use super::rows::{Arrays, Rows};
use crate::config::Pooler;
use crate::event::{CONTRACT_VERSION, Delivery, Rejected};

/// One row: a message, what it breaks, and how often it came.
#[derive(Clone, Copy)]
struct SetAside<'a> {
    delivery: &'a Delivery,
    rejected: &'a Rejected,
    sqlstate: Option<&'a str>,
    times_received: i64,
}

/// Writes one row for each body and reason, in ascending order of both.
pub(super) async fn set_aside(
    connection: &mut PgConnection,
    pooler: Pooler,
    deliveries: &[Delivery],
    rejected: &[(usize, Rejected)],
    sqlstate: Option<&str>,
) -> sqlx::Result<()> {
    let mut distinct: BTreeMap<_, SetAside<'_>> = BTreeMap::new();
    for (index, rejected) in rejected {
        let delivery = &deliveries[*index];
        let key = (rejected.reason.as_str(), delivery.body.as_slice());
        let row = distinct.entry(key).or_insert(SetAside {
            delivery,
            rejected,
            sqlstate,
            times_received: 0,
        });
        row.times_received += 1;
    }
    if distinct.is_empty() {
        return Ok(());
    }
    let sent = distinct.len();
    let stored = Arrays::of(distinct.into_values(), put)
        .bind(pooler.query(include_str!("quarantine.sql")))
        .bind(CONTRACT_VERSION)
        .execute(connection)
        .await?;
    ensure_stored("quarantined_events", stored.rows_affected(), sent)
}

fn put(message: Option<SetAside<'_>>, row: &mut Arrays) {
    let rejected = message.map(|message| message.rejected);
    let delivery = message.map(|message| message.delivery);
    let headers = delivery.map(|delivery| Value::Object(delivery.headers.clone()).to_string());
    row.row();
    row.field::<&str>(rejected.map(|rejected| rejected.reason.as_str()));
    row.field::<&str>(rejected.map(|rejected| rejected.path.as_str()));
    row.field::<&str>(rejected.map(|rejected| rejected.detail.as_str()));
    row.field::<&str>(delivery.map(|delivery| delivery.exchange.as_str()));
    row.field::<&str>(delivery.map(|delivery| delivery.routing_key.as_str()));
    row.field::<&str>(delivery.and_then(|delivery| delivery.content_type.as_deref()));
    row.field::<&str>(delivery.and_then(|delivery| delivery.content_encoding.as_deref()));
    row.field::<&str>(delivery.and_then(|delivery| delivery.message_id.as_deref()));
    row.field::<String>(headers);
    row.field::<&[u8]>(delivery.map(|delivery| delivery.body.as_slice()));
    row.field::<&str>(message.and_then(|message| message.sqlstate));
    row.field::<i64>(message.map(|message| message.times_received));
}

/// Settles messages without applying them: open ones, or with `erase`, which leaves nothing that tells whom they were about, settled
/// ones as well. Returns those that it found.
///
/// # Errors
/// What the database says.
pub async fn discard(
    connection: &mut PgConnection,
    ids: &[i64],
    why: &str,
    erase: bool,
) -> sqlx::Result<Vec<i64>> {
    sqlx::query_scalar(include_str!("discard.sql"))
        .bind(ids)
        .bind(why)
        .bind(erase)
        .fetch_all(connection)
        .await
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
