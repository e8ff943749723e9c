//! Rebuilds what is stored for MarketData beside the live rows, while events flow.
//!
//! `flight_demand` is summed up anew from all bookings into a temporary table. Every row there remembers
//! which version of the live row it was built beside. Batches that commit meanwhile leave new versions
//! behind, so the rows to be summed up once more are known without a trigger or a log, and few of them are
//! left when writers are locked out for the swap. The swap replaces what differs in one transaction: readers
//! see the old rows or the new ones. A rebuild that is killed leaves nothing: the server drops its table.

use std::time::{Duration, Instant};

use serde::Serialize;
use sqlx::postgres::PgConnection;

use super::{LOCK_PAUSE, LOCK_TRIES, is_lock_timeout, lock_writers_out};

/// This many rows are summed up again in the time of a batch.
const FEW: u64 = 500;
/// Under a load that changes more than [`FEW`] rows in every round, one round is as good as the next.
const ROUNDS_MAX: u32 = 5;
/// What a rebuild did.
#[derive(Debug, Clone, Serialize)]
pub struct Rebuilt {
    /// Rows built from the bookings.
    pub rows: i64,
    /// Rows summed up again, since their bookings changed meanwhile.
    pub caught_up: u64,
    /// Stored rows that differed and were replaced.
    pub replaced: i64,
    /// How long writers were locked out.
    pub locked_ms: u64,
}

/// Builds everything anew and swaps it in.
///
/// # Errors
/// What the database says; MarketData is then what it was, unless the connection was lost at the commit or after it.
pub async fn rebuild(connection: &mut PgConnection) -> sqlx::Result<Rebuilt> {
    for statement in [
        // To compile a statement that finds few rows takes longer than to run it, and writers would wait for it.
        "SET jit = off",
        include_str!("rebuild_build.sql"),
        "CREATE UNIQUE INDEX ON flight_demand_next (flight_id, cabin, currency)",
        "ANALYZE flight_demand_next",
    ] {
        sqlx::raw_sql(statement).execute(&mut *connection).await?;
    }
    let mut caught_up = 0;
    let mut tries = 1;
    let (replaced, locked) = loop {
        for _ in 0..ROUNDS_MAX {
            let moved = catch_up(connection, Absent::Left).await?;
            caught_up += moved;
            if moved <= FEW {
                break;
            }
        }
        match swap(connection, &mut caught_up).await {
            Ok(swapped) => break swapped,
            Err(error) if tries < LOCK_TRIES && is_lock_timeout(&error) => {
                tries += 1;
                tokio::time::sleep(LOCK_PAUSE).await;
            }
            Err(error) => return Err(error),
        }
    };
    let rows = "SELECT count(gross_booking_count) FROM flight_demand_next";
    let rebuilt = Rebuilt {
        rows: sqlx::query_scalar(rows).fetch_one(&mut *connection).await?,
        caught_up,
        replaced,
        locked_ms: locked.as_millis() as u64,
    };
    // It goes with the session in any case.
    let dropped = sqlx::raw_sql("DROP TABLE flight_demand_next").execute(connection);
    dropped.await.ok();
    Ok(rebuilt)
}

/// What becomes of rows that `flight_demand` had at neither look. They may have come and gone in between, so they are recomputed:
/// once, when writers are locked out, since until then it may happen again.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Absent {
    Left,
    Recomputed,
}

async fn catch_up(connection: &mut PgConnection, absent: Absent) -> sqlx::Result<u64> {
    let moved = sqlx::query(include_str!("rebuild_catch_up.sql"))
        .bind(absent == Absent::Recomputed)
        .execute(connection)
        .await?;
    Ok(moved.rows_affected())
}

/// Catches up for the last time and swaps, with writers locked out. A batch that waits for the lock adds
/// what it changes to rows that are right.
async fn swap(connection: &mut PgConnection, caught_up: &mut u64) -> sqlx::Result<(i64, Duration)> {
    let mut transaction = lock_writers_out(connection).await?;
    let locked = Instant::now();
    *caught_up += catch_up(&mut transaction, Absent::Recomputed).await?;
    let flights = sqlx::query(include_str!("repair_flights.sql"))
        .execute(&mut *transaction)
        .await?;
    let demand: i64 = sqlx::query_scalar(include_str!("rebuild_swap.sql"))
        .fetch_one(&mut *transaction)
        .await?;
    let different: i64 = sqlx::query_scalar(include_str!("rebuild_prove.sql"))
        .fetch_one(&mut *transaction)
        .await?;
    if different > 0 {
        transaction.rollback().await?;
        return Err(sqlx::Error::Protocol(format!(
            "{different} rows of flight_demand do not take what was built: look for triggers and row security on it"
        )));
    }
    transaction.commit().await?;
    Ok((flights.rows_affected() as i64 + demand, locked.elapsed()))
}
