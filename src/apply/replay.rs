//! Replays messages that were set aside, through the same steps as a batch.

use std::collections::{BTreeMap, BTreeSet};

use chrono::NaiveDate;
use serde::Serialize;
use sqlx::postgres::PgRow;
use sqlx::{Connection, FromRow, PgConnection, Row};

use super::insertion::Insertion;
use super::{Committer, Effect, refused_by_database, write};
use crate::batch::{self, Folded, Verdict, VerdictCounts};
use crate::db::{Fault, fault_of, sqlstate};
use crate::event::{CONTRACT_VERSION, Delivery, Rejected, State};

/// A preview reads one snapshot; a worker that changes the same rows meanwhile makes it start anew.
const PREVIEW_TRIES: u32 = 5;

/// What became of a message that was replayed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Replayed {
    /// It passed, with this verdict, and is marked as replayed.
    Passed(Verdict),
    /// It still breaks a rule and stays as it is, with that rule as its reason.
    Rejected(Rejected),
    /// It was replayed before; nothing has changed.
    Before,
    /// It is discarded, and only open ones were asked for; nothing has changed.
    Discarded,
    /// There is no such message.
    Unknown,
}

/// What a replay would do.
#[derive(Debug, Default, Serialize)]
pub struct Preview {
    /// Messages that would pass.
    pub passing: Vec<i64>,
    /// Messages that would still break a rule.
    pub rejected: Vec<StillRejected>,
    /// Messages that were replayed before: nothing would become of them.
    pub replayed_before: Vec<i64>,
    /// Numbers of no message.
    pub unknown: Vec<i64>,
    /// Those that would pass, by verdict, all as one batch: a replay takes them one by one, and what is folded here is applied or
    /// stale there.
    pub verdicts: VerdictCounts,
    /// Cells of MarketData that would change.
    pub cells: Vec<CellChange>,
}

/// A message that still breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StillRejected {
    /// Its number.
    pub id: i64,
    /// The rule.
    #[serde(flatten)]
    pub rejected: Rejected,
}

/// A cell of MarketData before and after.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CellChange {
    /// Table or view.
    pub relation: String,
    /// Key columns of the row.
    pub key: Vec<String>,
    /// The column.
    pub column: String,
    /// What is there now; as text, since a number of JSON is not exact. `None` also for a row that is not there.
    pub before: Option<String>,
    /// What would be there.
    pub after: Option<String>,
}

struct SetAside {
    id: i64,
    state: String,
    delivery: Delivery,
}

impl FromRow<'_, PgRow> for SetAside {
    fn from_row(row: &PgRow) -> sqlx::Result<Self> {
        Ok(Self {
            id: row.try_get("id")?,
            state: row.try_get("state")?,
            delivery: Delivery {
                exchange: row.try_get("exchange")?,
                routing_key: row.try_get("routing_key")?,
                content_type: row.try_get("content_type")?,
                content_encoding: row.try_get("content_encoding")?,
                message_id: row.try_get("message_id")?,
                body: row.try_get("body")?,
                // No rule looks at the rest.
                ..Delivery::default()
            },
        })
    }
}

async fn fetch(connection: &mut PgConnection, ids: &[i64]) -> sqlx::Result<Vec<SetAside>> {
    let rows =
        "SELECT id, state, exchange, routing_key, content_type, content_encoding, message_id, body
                FROM quarantined_events
                WHERE id = ANY ($1::bigint[])
                ORDER BY id";
    sqlx::query_as(rows).bind(ids).fetch_all(connection).await
}

/// Applies one message that was set aside, in one transaction with its mark, so that it never has its
/// effect without the mark or twice.
///
/// Only a message that passes is counted in `worker_progress`, as received once more: what is set aside
/// there stays the sum of `times_received`.
///
/// # Errors
/// What the database says, unless the row itself is refused.
pub async fn replay(
    connection: &mut PgConnection,
    committer: &Committer,
    id: i64,
    discarded_too: bool,
) -> sqlx::Result<Replayed> {
    // Until no twin changes its state meanwhile: what the twin has made of it counts.
    loop {
        let Some(message) = fetch(connection, &[id]).await?.pop() else {
            return Ok(Replayed::Unknown);
        };
        match message.state.as_str() {
            "replayed" => return Ok(Replayed::Before),
            "discarded" if !discarded_too => return Ok(Replayed::Discarded),
            _ => {}
        }
        let (rejected, sqlstate) = match pass(connection, committer, &message).await {
            Ok(Some(Replayed::Rejected(rejected))) => (rejected, None),
            Ok(Some(settled)) => return Ok(settled),
            Ok(None) => continue,
            Err(error) => match fault_of(&error) {
                Fault::Data { sqlstate } => (refused_by_database(), Some(sqlstate)),
                Fault::Transient | Fault::Permanent => return Err(error),
            },
        };
        if note_reason(connection, &message, &rejected, sqlstate).await? {
            return Ok(Replayed::Rejected(rejected));
        }
    }
}

/// Says why a replayed message is still set aside; `false` if its state has changed.
async fn note_reason(
    connection: &mut PgConnection,
    message: &SetAside,
    rejected: &Rejected,
    sqlstate: Option<String>,
) -> sqlx::Result<bool> {
    let noted = sqlx::query(
        "UPDATE quarantined_events SET reason = $3, path = $4, detail = $5, sqlstate = $6, contract_version = $7
         WHERE id = $1 AND state = $2",
    )
    .bind(message.id)
    .bind(&message.state)
    .bind(rejected.reason.as_str())
    .bind(&rejected.path)
    .bind(&rejected.detail)
    .bind(sqlstate)
    .bind(CONTRACT_VERSION)
    .execute(connection)
    .await;
    match noted.map_err(|error| (fault_of(&error), error)) {
        // The same body is set aside for that reason already: each row keeps its own.
        Err((Fault::Data { .. }, _)) => Ok(true),
        Ok(noted) => Ok(noted.rows_affected() > 0),
        Err((_, error)) => Err(error),
    }
}

/// Applies a message and marks it; nothing of it if its state has changed since it was read.
async fn pass(
    connection: &mut PgConnection,
    committer: &Committer,
    message: &SetAside,
) -> sqlx::Result<Option<Replayed>> {
    let folded = batch::fold(std::slice::from_ref(&message.delivery));
    let mut transaction = connection.begin().await?;
    let Effect {
        counts,
        mut rejected,
        ..
    } = write(&mut transaction, committer, folded, Insertion::INSERT).await?;
    if let Some((_, rejected)) = rejected.pop() {
        transaction.rollback().await?;
        return Ok(Some(Replayed::Rejected(rejected)));
    }
    // The mark comes after the effect, in the lock order of a batch. A twin that replays the same message
    // has waited for our booking or flight, or waits here, and then finds it marked.
    let marked = sqlx::query(include_str!("mark_replayed.sql"))
        .bind(message.id)
        .bind(&message.state)
        .execute(&mut *transaction)
        .await?;
    if marked.rows_affected() == 0 {
        transaction.rollback().await?;
        return Ok(None);
    }
    transaction.commit().await?;
    Ok(Some(Replayed::Passed(if counts.applied > 0 {
        Verdict::Applied
    } else if counts.stale > 0 {
        Verdict::Stale
    } else {
        Verdict::Duplicate
    })))
}

/// What replaying these messages would do, seen in one snapshot and rolled back: it takes the rights of a replay.
///
/// # Errors
/// What the database says, unless a row itself is refused.
pub async fn preview(
    connection: &mut PgConnection,
    committer: &Committer,
    ids: &[i64],
) -> sqlx::Result<Preview> {
    let found = fetch(connection, ids).await?;
    let is_unknown = |id: &&i64| found.iter().all(|message| message.id != **id);
    let unknown: Vec<i64> = ids.iter().filter(is_unknown).copied().collect();
    let (before, mut messages): (Vec<_>, Vec<_>) = found
        .into_iter()
        .partition(|message| message.state == "replayed");
    let mut tries = 1;
    let mut refused = Vec::new();
    loop {
        let error = match try_preview(connection, committer, &messages).await {
            Ok(mut preview) => {
                preview.rejected.extend(refused);
                preview.rejected.sort_by_key(|message| message.id);
                preview.replayed_before = before.iter().map(|message| message.id).collect();
                preview.unknown = unknown;
                return Ok(preview);
            }
            Err(error) => error,
        };
        if let Fault::Data { .. } = fault_of(&error) {
            let alone = refused_alone(connection, committer, &messages).await?;
            if alone.is_empty() {
                return Err(error);
            }
            for id in alone {
                messages.retain(|message| message.id != id);
                refused.push(StillRejected {
                    id,
                    rejected: refused_by_database(),
                });
            }
        } else if sqlstate::is(&error, sqlstate::SERIALIZATION_FAILURE) && tries < PREVIEW_TRIES {
            tries += 1;
        } else {
            return Err(error);
        }
    }
}

/// The messages whose row the database refuses.
async fn refused_alone(
    connection: &mut PgConnection,
    committer: &Committer,
    messages: &[SetAside],
) -> sqlx::Result<Vec<i64>> {
    let mut refused = Vec::new();
    for message in messages {
        let mut transaction = connection.begin().await?;
        let folded = batch::fold(std::slice::from_ref(&message.delivery));
        if let Err(error) = write(&mut transaction, committer, folded, Insertion::INSERT).await {
            match fault_of(&error) {
                Fault::Data { .. } => refused.push(message.id),
                Fault::Transient | Fault::Permanent => return Err(error),
            }
        }
        transaction.rollback().await?;
    }
    Ok(refused)
}

async fn try_preview(
    connection: &mut PgConnection,
    committer: &Committer,
    messages: &[SetAside],
) -> sqlx::Result<Preview> {
    let deliveries: Vec<_> = messages
        .iter()
        .map(|message| message.delivery.clone())
        .collect();
    let folded = batch::fold(&deliveries);
    // What differs between the two looks is then the doing of these messages alone.
    let mut snapshot = connection
        .begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ")
        .await?;
    let flights = flights_touched(&mut snapshot, &folded).await?;
    let mut markets = markets_of(&mut snapshot, &flights).await?;
    let mut written = snapshot.begin().await?;
    let effect = write(&mut written, committer, folded, Insertion::INSERT).await?;
    markets.extend(markets_of(&mut written, &flights).await?);
    let after = cells(&mut written, &markets).await?;
    written.rollback().await?;
    let before = cells(&mut snapshot, &markets).await?;
    snapshot.rollback().await?;

    let rejected: Vec<_> = effect
        .rejected
        .into_iter()
        .map(|(place, rejected)| StillRejected {
            id: messages[place].id,
            rejected,
        })
        .collect();
    let ids = messages.iter().map(|message| message.id);
    Ok(Preview {
        passing: ids
            .filter(|id| rejected.iter().all(|message| message.id != *id))
            .collect(),
        rejected,
        verdicts: VerdictCounts {
            quarantined: 0,
            ..effect.counts
        },
        cells: changes(before, after),
        ..Preview::default()
    })
}

/// The flights that the events name, and those that their bookings are on now.
async fn flights_touched(
    connection: &mut PgConnection,
    folded: &Folded<'_>,
) -> sqlx::Result<BTreeSet<String>> {
    let bookings: Vec<&str> = folded.bookings.keys().map(AsRef::as_ref).collect();
    let stored = "SELECT DISTINCT flight_id FROM bookings WHERE booking_id = ANY ($1::text[]) AND flight_id IS NOT NULL";
    let mut flights: BTreeSet<String> = sqlx::query_scalar(stored)
        .bind(bookings)
        .fetch_all(connection)
        .await?
        .into_iter()
        .collect();
    flights.extend(folded.flights.keys().map(|key| key.clone().into_owned()));
    for booking in folded.bookings.values() {
        if let State::Upserted(booking) = &booking.revision.state {
            flights.insert(booking.flight_id.as_str().to_owned());
        }
    }
    Ok(flights)
}

type Market = (String, String, NaiveDate);

async fn markets_of(
    connection: &mut PgConnection,
    flights: &BTreeSet<String>,
) -> sqlx::Result<BTreeSet<Market>> {
    let markets = "SELECT DISTINCT origin, destination, data_date
                   FROM flights
                   WHERE flight_id = ANY ($1::text[]) AND deleted_at IS NULL";
    let flights: Vec<&String> = flights.iter().collect();
    let markets = sqlx::query_as(markets).bind(flights).fetch_all(connection);
    Ok(markets.await?.into_iter().collect())
}

/// Relation, key and column.
type Cell = (String, Vec<String>, String);

async fn cells(
    connection: &mut PgConnection,
    markets: &BTreeSet<Market>,
) -> sqlx::Result<BTreeMap<Cell, Option<String>>> {
    let (mut origins, mut destinations, mut dates) = (Vec::new(), Vec::new(), Vec::new());
    for (origin, destination, data_date) in markets {
        origins.push(origin);
        destinations.push(destination);
        dates.push(data_date);
    }
    let rows = sqlx::query(include_str!("market_cells.sql"))
        .bind(origins)
        .bind(destinations)
        .bind(dates)
        .fetch_all(connection)
        .await?;
    let cells = rows.iter().map(|row| {
        let cell = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        Ok((cell, row.try_get(3)?))
    });
    cells.collect()
}

fn changes(
    before: BTreeMap<Cell, Option<String>>,
    mut after: BTreeMap<Cell, Option<String>>,
) -> Vec<CellChange> {
    let mut changed: BTreeMap<Cell, (Option<String>, Option<String>)> = BTreeMap::new();
    for (cell, before) in before {
        let after = after.remove(&cell).flatten();
        changed.insert(cell, (before, after));
    }
    for (cell, after) in after {
        changed.insert(cell, (None, after));
    }
    changed
        .into_iter()
        .filter(|(_, (before, after))| before != after)
        .map(|((relation, key, column), (before, after))| CellChange {
            relation,
            key,
            column,
            before,
            after,
        })
        .collect()
}
