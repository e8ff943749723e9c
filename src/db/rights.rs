//! What the roles of `deploy/roles.sql` may do with which table, and what a worker has to.

use anyhow::{Context, Result, ensure};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{Connection, Row};

const ROLES: &str = include_str!("../../deploy/roles.sql");

/// From here on the file needs no administrator.
const TABLES: &str = "\n-- Part 2: ";

/// Gives the roles their rights on the tables, new ones included. Does nothing to a database where
/// `deploy/roles.sql` was never run.
///
/// # Errors
/// What the database says.
pub async fn grant(connection: &mut PgConnection) -> sqlx::Result<()> {
    let tables = ROLES.find(TABLES).map_or("", |begin| &ROLES[begin..]);
    sqlx::raw_sql(tables).execute(connection).await?;
    Ok(())
}

/// The rights of a worker that the role lacks, and of each whether batches need it; asked through a pooler or not.
///
/// # Errors
/// What the database says.
pub async fn missing(connection: &mut PgConnection) -> sqlx::Result<Vec<(String, bool)>> {
    let rows = sqlx::raw_sql(include_str!("missing_rights.sql"))
        .fetch_all(connection)
        .await?;
    rows.iter()
        .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
        .collect()
}

/// Fails if the role may not do what a batch needs. Asked before the first delivery is taken: a worker that found out by
/// a batch, and is started again and again, would use up the delivery attempts of good events.
///
/// # Errors
/// The rights it lacks, or what the database says.
pub async fn require(options: &PgConnectOptions) -> Result<()> {
    let mut connection = super::connect(options)
        .await
        .map_err(super::explain)
        .context("cannot connect to see the rights of the role")?;
    let missing = missing(&mut connection)
        .await
        .context("cannot see the rights of the role")?;
    connection.close().await.ok();
    let for_batches: Vec<_> = missing
        .into_iter()
        .filter_map(|(right, for_batches)| for_batches.then_some(right))
        .collect();
    ensure!(
        for_batches.is_empty(),
        "the role {} lacks {}: GRANT it, or run deploy/roles.sql and make the role a member of paxflow_worker",
        options.get_username(),
        for_batches.join(", ")
    );
    Ok(())
}
