//! The data that is shipped with the schema: every airport with an IATA code and its time zone.

use sqlx::postgres::PgConnection;
use sqlx::{Connection, Row};
use xxhash_rust::xxh3::xxh3_64;

/// Every airport with an IATA code, as `airports` holds them.
const AIRPORTS: &str = include_str!("../../migrations/reference/airports.csv");

fn checksum() -> String {
    format!("{:016x}", xxh3_64(AIRPORTS.as_bytes()))
}

/// Whether the shipped edition is loaded, and no other.
///
/// # Errors
/// What the database says.
pub async fn is_loaded(connection: &mut PgConnection) -> sqlx::Result<bool> {
    // A simple statement, which a pooler lets through.
    let loaded = sqlx::raw_sql("SELECT checksum FROM reference_data WHERE name = 'airports'")
        .fetch_optional(connection)
        .await?;
    let loaded: Option<String> = loaded.map(|row| row.try_get(0)).transpose()?;
    Ok(loaded.as_deref() == Some(&checksum()))
}

/// Loads the shipped edition, unless it is there.
pub(super) async fn load(connection: &mut PgConnection) -> sqlx::Result<()> {
    // Whatever the role's default is: airports refuse another level.
    let mut transaction = connection
        .begin_with("BEGIN ISOLATION LEVEL READ COMMITTED")
        .await?;
    // Workers that start together take turns; the second finds the work done.
    sqlx::raw_sql("LOCK TABLE reference_data IN SHARE ROW EXCLUSIVE MODE")
        .execute(&mut *transaction)
        .await?;
    if is_loaded(&mut transaction).await? {
        return Ok(());
    }
    sqlx::raw_sql("CREATE TEMPORARY TABLE shipped_airports (LIKE airports) ON COMMIT DROP")
        .execute(&mut *transaction)
        .await?;
    let mut copy = transaction
        .copy_in_raw("COPY shipped_airports FROM STDIN (FORMAT csv, HEADER)")
        .await?;
    copy.send(AIRPORTS.as_bytes()).await?;
    let rows = copy.finish().await?;
    sqlx::raw_sql(include_str!("load_airports.sql"))
        .execute(&mut *transaction)
        .await?;
    sqlx::query(include_str!("note_reference_data.sql"))
        .bind(checksum())
        .bind(rows as i64)
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await
}
