//! Dropping everything that the revisions have ever made, whatever state it is in.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgDatabaseError};
use sqlx::{AssertSqlSafe, Connection};

use super::migrate::MIGRATOR;
use super::revisions::ups;
use super::sqlstate;
use super::statements::split;
use super::turn::{Patience, Turn};

/// The names of everything of a kind (TABLE, VIEW, FUNCTION) that a revision makes.
fn made(kind: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for file in ups(&MIGRATOR) {
        for statement in split(file.sql.as_str()).unwrap_or_default() {
            names.extend(
                statement
                    .creates()
                    .filter(|(made, _)| *made == kind)
                    .map(|(_, name)| name),
            );
        }
    }
    names
}

/// The tables that would be dropped, with their rows.
///
/// # Errors
/// What the database says.
pub async fn tables(connection: &mut PgConnection) -> sqlx::Result<Vec<(String, i64)>> {
    let mut tables = Vec::new();
    for name in made("TABLE") {
        let there: Option<String> = sqlx::query_scalar("SELECT to_regclass($1)::text")
            .bind(&name)
            .fetch_one(&mut *connection)
            .await?;
        if there.is_some() {
            let count = format!("SELECT count(*) FROM {name}");
            let rows = sqlx::query_scalar(AssertSqlSafe(count))
                .fetch_one(&mut *connection)
                .await?;
            tables.push((name, rows));
        }
    }
    Ok(tables)
}

/// Drops everything that the revisions have ever made, and what they are recorded in, in one transaction.
///
/// # Errors
/// Who holds a lock, or what of others depends on it.
pub async fn drop_all(options: &PgConnectOptions, patience: Patience) -> Result<()> {
    let mut turn = Turn::take(options, patience).await?;
    let list = |kind| made(kind).into_iter().collect::<Vec<_>>().join(", ");
    let drops = format!(
        "DROP VIEW IF EXISTS {}; DROP TABLE IF EXISTS {}, _sqlx_migrations; DROP FUNCTION IF EXISTS {}",
        list("VIEW"),
        list("TABLE"),
        list("FUNCTION")
    );
    let mut transaction = turn.connection.begin().await?;
    let dropped = sqlx::raw_sql(AssertSqlSafe(drops))
        .execute(&mut *transaction)
        .await;
    if let Err(error) = dropped {
        drop(transaction);
        let mut what = String::from("nothing was dropped");
        if sqlstate::is(&error, sqlstate::LOCK_NOT_AVAILABLE) {
            what = format!("{what}: a lock is held{}", turn.held_by());
        }
        let answer = error.as_database_error();
        let answer = answer.and_then(|answer| answer.try_downcast_ref::<PgDatabaseError>());
        if let Some(detail) = answer.and_then(PgDatabaseError::detail) {
            what = format!("{what}: {}", detail.replace('\n', "; "));
        }
        return Err(anyhow::Error::new(error).context(what));
    }
    transaction.commit().await.context("nothing was dropped")?;
    turn.end().await;
    Ok(())
}
