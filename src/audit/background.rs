//! Verifies in the background: one worker at a time, at a bounded cost.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::postgres::PgConnection;
use sqlx::{Connection, FromRow};

use super::{Report, look, record};
use crate::db::sqlstate;

/// Whoever verifies in the background holds this lock until its transaction ends.
const LOCK: i64 = 0x7061_7866_6175_6474;
/// One of the five comparisons may take this long, on one core.
const BOUNDS: &str =
    "SET LOCAL statement_timeout = '60s'; SET LOCAL max_parallel_workers_per_gather = 0";

/// The verification of the newest snapshot, whoever made it.
#[derive(Debug, Clone, Serialize, FromRow)]
pub struct Newest {
    /// When it ended.
    pub finished_at: DateTime<Utc>,
    /// Rows that were compared.
    pub row_count: i64,
    /// Rows that differed.
    pub drift_count: i64,
    /// Seconds since it ended, by the clock of the database.
    #[serde(skip)]
    pub age_secs: f64,
    /// Moment of the newest snapshot that was exact.
    #[serde(skip)]
    pub verified_through: Option<DateTime<Utc>>,
}

/// Reads the newest result; none where nobody has ever verified.
///
/// # Errors
/// What the database says.
pub async fn newest(connection: &mut PgConnection) -> sqlx::Result<Option<Newest>> {
    sqlx::query_as(include_str!("newest.sql"))
        .fetch_optional(connection)
        .await
}

/// Verifies and records the result, unless another worker is at it or has done so within `every`.
///
/// # Errors
/// What the database says; [`is_cut_off`] if it took too long; SQLSTATE 40001 if another worker was quicker.
pub async fn verify_unless_recent(
    connection: &mut PgConnection,
    every: Duration,
) -> sqlx::Result<Option<Report>> {
    // The lock may become free after the snapshot, which then lacks the verification that held it. Of two
    // such, the database lets one commit: each has read that there is none, and writes one.
    let mut transaction = connection
        .begin_with("BEGIN ISOLATION LEVEL SERIALIZABLE")
        .await?;
    let free = "SELECT pg_try_advisory_xact_lock($1)
                   AND NOT EXISTS (SELECT FROM verifications WHERE finished_at > now() - make_interval(secs => $2))";
    let free: bool = sqlx::query_scalar(free)
        .bind(LOCK)
        .bind(every.as_secs_f64())
        .fetch_one(&mut *transaction)
        .await?;
    if !free {
        transaction.rollback().await?;
        return Ok(None);
    }
    sqlx::raw_sql(BOUNDS).execute(&mut *transaction).await?;
    let report = look(&mut transaction).await?;
    record(&mut transaction, &report, 0).await?;
    transaction.commit().await?;
    Ok(Some(report))
}

/// Whether a verification was given up because it took too long.
pub fn is_cut_off(error: &sqlx::Error) -> bool {
    sqlstate::is(error, sqlstate::QUERY_CANCELED)
}
