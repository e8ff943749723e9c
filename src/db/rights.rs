//! What the roles of `deploy/roles.sql` may do with which table, and what a worker has to.

use anyhow::{Context, Result, ensure};
use sqlx::Connection;
use sqlx::postgres::{PgConnectOptions, PgConnection};

const ROLES: &str = include_str!("../../deploy/roles.sql");

/// From here on the file needs no administrator.
const TABLES: &str = "\n-- Part 2: ";

/// The rights that the role lacks, and of each whether batches need it.
pub const MISSING: &str = include_str!("missing_rights.sql");

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
    let missing: Vec<(String, bool)> = sqlx::query_as(MISSING)
        .persistent(false)
        .fetch_all(&mut connection)
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
