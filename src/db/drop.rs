//! Dropping everything that the applied revisions have made, whatever state it is in.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use sqlx::migrate::Migration;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgDatabaseError};
use sqlx::{AssertSqlSafe, Connection};

use super::migrate::MIGRATOR;
use super::revisions::{Standing, standing, ups};
use super::sqlstate;
use super::statements::split;
use super::turn::{Patience, Turn};

/// The names of everything of a kind (TABLE, VIEW, FUNCTION) that an applied revision makes. What has the name of something that
/// another one would make is somebody else's.
fn made(kind: &str, standing: &Standing) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for file in ups(&MIGRATOR).filter(|file| standing.has(file.version)) {
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

/// Where the database stands. From here on names mean the schema that has the record of the revisions: another one may have come
/// before it since, with tables of somebody else.
///
/// # Errors
/// What the database says, or a revision that is not of this program, whose tables it does not know.
async fn ours(connection: &mut PgConnection) -> Result<Standing> {
    let standing = standing(connection, &MIGRATOR).await?;
    for revision in &standing.revisions {
        let is_it = |file: &Migration| {
            file.version == revision.version && *file.description == *revision.message
        };
        ensure!(
            ups(&MIGRATOR).any(is_it),
            "the database has revision {} ({}), which this program does not know: drop it with the program that has made it",
            revision.version,
            revision.message
        );
    }
    let keep_to_it = "SELECT set_config('search_path', relnamespace::regnamespace::text, false)
        FROM pg_class WHERE oid = to_regclass('_sqlx_migrations')";
    sqlx::raw_sql(keep_to_it).execute(connection).await?;
    Ok(standing)
}

/// The tables that would be dropped, with their rows. The connection is of no other use then.
///
/// # Errors
/// What the database says, or a revision that is not of this program.
pub async fn tables(connection: &mut PgConnection) -> Result<Vec<(String, i64)>> {
    let standing = ours(connection).await?;
    let mut tables = Vec::new();
    for name in made("TABLE", &standing) {
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

/// Drops everything that the applied revisions have made, and what they are recorded in, in one transaction. Without any,
/// only an empty record of them is dropped.
///
/// # Errors
/// Who holds a lock, what of others depends on it, or a revision that is not of this program.
pub async fn drop_all(options: &PgConnectOptions, patience: Patience) -> Result<()> {
    let mut turn = Turn::take(options, patience).await?;
    let standing = ours(&mut turn.connection).await?;
    let mut drops = String::new();
    for kind in ["VIEW", "TABLE", "FUNCTION"] {
        let mut names: Vec<_> = made(kind, &standing).into_iter().collect();
        if kind == "TABLE" && (!names.is_empty() || standing.current().is_none()) {
            names.push("_sqlx_migrations".to_owned());
        }
        if !names.is_empty() {
            drops = format!("{drops}DROP {kind} IF EXISTS {}; ", names.join(", "));
        }
    }
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
