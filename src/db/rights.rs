//! What the roles of `deploy/roles.sql` may do with which table.

use sqlx::postgres::PgConnection;

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
