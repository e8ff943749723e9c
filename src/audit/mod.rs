//! Recomputes MarketData from bookings, flights and airports, and compares.

mod background;
mod rebuild;

use std::fmt;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection, Postgres, Row, Transaction};

use crate::db::sqlstate;

pub use background::{Newest, is_cut_off, newest, verify_unless_recent};
pub use rebuild::{Rebuilt, rebuild};

/// The oracle: each relation of MarketData in plain SQL.
const MARKET_TRUTH: &str = include_str!("../../fixtures/market_truth.sql");
/// The same for what is stored beside the base data.
const STORED_TRUTH: &str = include_str!("stored_truth.sql");
/// The relations of MarketData that are compared; the other views are made of `market_activity` or of the base data alone.
const COMPARED: [&str; 3] = ["market_data", "market_fares", "market_activity"];
/// For a transaction that reads whole tables. Before they are analysed for the first time the planner takes a million
/// bookings for a few, and would compare each with each flight. To compile such a query takes longer than it saves.
const READ_WHOLE_TABLES: &str =
    "SET LOCAL work_mem = '64MB'; SET LOCAL enable_nestloop = off; SET LOCAL jit = off";
/// Rows that are listed for one relation; all are counted.
const LISTED_MAX: i64 = 1000;

/// A relation and what it must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Truth {
    /// Table or view.
    pub relation: &'static str,
    /// Its key columns, with commas between.
    pub key: &'static str,
    /// A query with the key and every column that is promised to be exact.
    pub query: &'static str,
}

/// Every relation of the oracle: statements headed by `-- relation: NAME key: COLUMN, ...`.
pub fn market_truth() -> Vec<Truth> {
    statements(MARKET_TRUTH)
}

fn statements(file: &'static str) -> Vec<Truth> {
    let headed = file.split("-- relation: ").skip(1);
    headed
        .filter_map(|statement| {
            let (header, query) = statement.split_once('\n')?;
            let (relation, key) = header.split_once(" key: ")?;
            let (query, _) = query.rsplit_once(';')?;
            Some(Truth {
                relation,
                key,
                query,
            })
        })
        .collect()
}

/// A cell, or a whole row, that is not what it must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Table or view.
    pub relation: &'static str,
    /// Key columns of the row.
    pub key: Vec<String>,
    /// What is wrong with it.
    #[serde(flatten)]
    pub problem: Problem,
}

/// What is wrong with a row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "problem", rename_all = "snake_case")]
pub enum Problem {
    /// It is not there.
    Missing,
    /// It must not be there.
    Surplus,
    /// A cell has another value; as text, since a number of JSON is not exact.
    Cell {
        /// The column.
        column: String,
        /// What is there.
        found: Option<String>,
        /// What must be.
        expected: Option<String>,
    },
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: ", self.relation, self.key.join(" "))?;
        let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "NULL".to_owned());
        match &self.problem {
            Problem::Missing => f.write_str("the row is missing"),
            Problem::Surplus => f.write_str("the row must not be there"),
            Problem::Cell {
                column,
                found,
                expected,
            } => {
                write!(f, "{column} is {}, must be {}", text(found), text(expected))
            }
        }
    }
}

/// What a verification found.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Moment of the snapshot that was compared.
    pub snapshot_at: DateTime<Utc>,
    /// Rows compared.
    pub rows: i64,
    /// Rows that differ.
    pub rows_different: i64,
    /// The differing cells, up to 1,000 rows of each relation.
    pub differences: Vec<Difference>,
}

impl Report {
    /// Whether every cell is what it must be.
    pub fn is_exact(&self) -> bool {
        self.rows_different == 0
    }
}

/// Compares MarketData, and what is stored for it, with the base data: in one snapshot, without
/// locking anybody out.
///
/// # Errors
/// What the database says.
pub async fn verify(connection: &mut PgConnection) -> sqlx::Result<Report> {
    let mut snapshot = connection
        .begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        .await?;
    let report = look(&mut snapshot).await?;
    snapshot.commit().await?;
    Ok(report)
}

/// Compares everything in the snapshot of the transaction that is open.
async fn look(snapshot: &mut PgConnection) -> sqlx::Result<Report> {
    sqlx::raw_sql(READ_WHOLE_TABLES)
        .execute(&mut *snapshot)
        .await?;
    let snapshot_at = sqlx::query_scalar("SELECT now()")
        .fetch_one(&mut *snapshot)
        .await?;
    let mut report = Report {
        snapshot_at,
        rows: 0,
        rows_different: 0,
        differences: Vec::new(),
    };
    let market = market_truth()
        .into_iter()
        .filter(|truth| COMPARED.contains(&truth.relation));
    for truth in market.chain(statements(STORED_TRUTH)) {
        compare(&mut *snapshot, truth, &mut report).await?;
    }
    Ok(report)
}

/// Compares one relation with its truth and adds what differs to the report.
///
/// # Errors
/// What the database says.
pub async fn compare(
    connection: &mut PgConnection,
    truth: Truth,
    report: &mut Report,
) -> sqlx::Result<()> {
    let Truth {
        relation,
        key,
        query,
    } = truth;
    // Made of files of this program alone.
    let comparison = format!(
        "WITH truth AS ({query}),
         compared AS (
             SELECT to_jsonb(t) AS expected, to_jsonb(r) AS found
             FROM truth t FULL JOIN {relation} r USING ({key})
         ),
         different AS (SELECT * FROM compared WHERE (found @> expected) IS NOT TRUE),
         cells AS (
             SELECT d.expected, d.found, c.name
             FROM (SELECT * FROM different LIMIT {LISTED_MAX}) d
             LEFT JOIN LATERAL jsonb_object_keys(d.expected) AS c (name) ON d.found IS NOT NULL
             WHERE d.expected IS NULL OR d.found IS NULL OR d.found -> c.name IS DISTINCT FROM d.expected -> c.name
         )
         SELECT (SELECT count(*) FROM compared), (SELECT count(*) FROM different),
                coalesce(expected, found), found IS NULL, expected IS NULL, name, found ->> name, expected ->> name
         FROM (SELECT) one LEFT JOIN cells ON true"
    );
    let rows = sqlx::query(AssertSqlSafe(comparison))
        .fetch_all(connection)
        .await?;
    if let Some(counts) = rows.first() {
        report.rows += counts.try_get::<i64, _>(0)?;
        report.rows_different += counts.try_get::<i64, _>(1)?;
    }
    for row in &rows {
        if let Some(values) = row.try_get::<Option<Value>, _>(2)? {
            let key = key
                .split(", ")
                .map(|column| values[column].as_str().unwrap_or_default().to_owned())
                .collect();
            let problem = match (row.try_get(3)?, row.try_get(4)?) {
                (true, _) => Problem::Missing,
                (_, true) => Problem::Surplus,
                _ => Problem::Cell {
                    column: row.try_get(5)?,
                    found: row.try_get(6)?,
                    expected: row.try_get(7)?,
                },
            };
            report.differences.push(Difference {
                relation,
                key,
                problem,
            });
        }
    }
    Ok(())
}

/// How often writers are asked to stand aside.
const LOCK_TRIES: u32 = 10;
/// Between two of them writers go on.
const LOCK_PAUSE: Duration = Duration::from_secs(3);

/// Begins a transaction in which nobody else writes what is stored for MarketData. Writers wait behind us while we wait for
/// one that is at it; who is at it for longer is asked later again.
async fn lock_writers_out(
    connection: &mut PgConnection,
) -> sqlx::Result<Transaction<'_, Postgres>> {
    let lock = "SET LOCAL lock_timeout = '3s'; LOCK TABLE flights, flight_demand IN SHARE ROW EXCLUSIVE MODE";
    let mut transaction = connection.begin().await?;
    sqlx::raw_sql(lock).execute(&mut *transaction).await?;
    Ok(transaction)
}

fn is_lock_timeout(error: &sqlx::Error) -> bool {
    sqlstate::is(error, sqlstate::LOCK_NOT_AVAILABLE)
}

/// Rebuilds the stored rows that differ, in one transaction; returns how many.
///
/// Workers wait for it, and then add to rows that are right again.
///
/// # Errors
/// What the database says.
pub async fn repair(connection: &mut PgConnection) -> sqlx::Result<i64> {
    let mut tries = 1;
    loop {
        match try_repair(connection).await {
            Err(error) if tries < LOCK_TRIES && is_lock_timeout(&error) => {
                tries += 1;
                tokio::time::sleep(LOCK_PAUSE).await;
            }
            repaired => return repaired,
        }
    }
}

async fn try_repair(connection: &mut PgConnection) -> sqlx::Result<i64> {
    let mut transaction = lock_writers_out(connection).await?;
    let flights = sqlx::query(include_str!("repair_flights.sql"))
        .execute(&mut *transaction)
        .await?;
    let demand: i64 = sqlx::query_scalar(include_str!("repair_demand.sql"))
        .fetch_one(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok(flights.rows_affected() as i64 + demand)
}

/// Remembers what a verification found.
///
/// # Errors
/// What the database says.
pub async fn record(
    connection: &mut PgConnection,
    report: &Report,
    repaired: i64,
) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO verifications (started_at, finished_at, row_count, drift_count, repaired_count)
         VALUES ($1, clock_timestamp(), $2, $3, $4)",
    )
    .bind(report.snapshot_at)
    .bind(report.rows)
    .bind(report.rows_different)
    .bind(repaired)
    .execute(connection)
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oracle_speaks_of_every_relation() {
        let relations: Vec<_> = market_truth().iter().map(|truth| truth.relation).collect();
        for compared in COMPARED {
            assert!(
                relations.contains(&compared),
                "{compared} is not in the oracle: {relations:?}"
            );
        }
        let stored: Vec<_> = statements(STORED_TRUTH)
            .iter()
            .map(|truth| truth.relation)
            .collect();
        assert_eq!(stored, ["flights", "flight_demand"]);
    }
}
