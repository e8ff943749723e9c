//! The schema: embedded revisions, applied on boot by whoever comes first.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use chrono::{DateTime, Utc};
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{Connection, Row};
use tracing::info;
use xxhash_rust::xxh3::xxh3_64;

/// The revisions that this program knows.
pub static MIGRATOR: Migrator = sqlx::migrate!("./migrations");

/// Every airport with an IATA code, as `airports` holds them.
const AIRPORTS: &str = include_str!("../../migrations/reference/airports.csv");

/// How long a worker waits for another one that is migrating.
const LOCK_TIMEOUT: Duration = Duration::from_secs(300);

/// Where a database stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revision {
    /// The newest applied revision; 0 for an empty database.
    pub current: i64,
    /// When it was applied.
    pub applied_at: Option<DateTime<Utc>>,
    /// The newest revision that this program knows.
    pub latest: i64,
}

/// The newest revision that this program knows.
pub fn latest() -> i64 {
    MIGRATOR
        .iter()
        .map(|migration| migration.version)
        .max()
        .unwrap_or(0)
}

/// Reads where a database stands.
///
/// # Errors
/// What the database says.
pub async fn revision(connection: &mut PgConnection) -> sqlx::Result<Revision> {
    let mut revision = Revision {
        current: 0,
        applied_at: None,
        latest: latest(),
    };
    let known: Option<String> = sqlx::query_scalar("SELECT to_regclass('_sqlx_migrations')::text")
        .fetch_one(&mut *connection)
        .await?;
    if known.is_some() {
        let newest =
            "SELECT version, installed_on FROM _sqlx_migrations ORDER BY version DESC LIMIT 1";
        if let Some(row) = sqlx::query(newest).fetch_optional(connection).await? {
            revision.current = row.try_get(0)?;
            revision.applied_at = row.try_get(1)?;
        }
    }
    Ok(revision)
}

/// Brings the schema to the latest revision and loads the reference data, on a connection of its own.
///
/// Workers that start together take turns; a database that is up to date is left untouched, so a
/// worker without the right to change the schema can run.
///
/// # Errors
/// If the schema is newer than this program, a revision was edited after it was applied, or one fails.
pub async fn migrate(options: &PgConnectOptions) -> Result<()> {
    let mut connection = super::connect(options)
        .await
        .context("cannot connect to migrate")?;
    let before = revision(&mut connection)
        .await
        .context("cannot read the schema revision")?;
    if before.current > before.latest {
        bail!(
            "the schema is at revision {}, this program knows revisions up to {}: run a newer paxflow",
            before.current,
            before.latest
        );
    }
    if before.current > 0 {
        // The migrator compares only when it has a revision to add.
        refuse_edited(&mut connection).await?;
    }
    if before.current < before.latest || !airports_loaded(&mut connection).await? {
        upgrade(&mut connection).await?;
        info!(
            from = before.current,
            to = before.latest,
            "schema is up to date"
        );
    }
    connection.close().await.ok();
    Ok(())
}

/// Fails if the file of an applied revision has changed since: nobody knows what this schema is.
///
/// # Errors
/// Which revision it is, or what the database says.
pub async fn refuse_edited(connection: &mut PgConnection) -> Result<()> {
    let applied: Vec<(i64, Vec<u8>)> =
        sqlx::query_as("SELECT version, checksum FROM _sqlx_migrations ORDER BY version")
            .fetch_all(connection)
            .await
            .context("cannot read the applied revisions")?;
    for (version, checksum) in applied {
        let mut known = MIGRATOR
            .iter()
            .filter(|migration| migration.version == version);
        if known.any(|known| known.migration_type.is_up_migration() && *known.checksum != *checksum)
        {
            return Err(explain(MigrateError::VersionMismatch(version)));
        }
    }
    Ok(())
}

async fn upgrade(connection: &mut PgConnection) -> Result<()> {
    // The migrator waits for its lock without limit by itself, and keeps it when a revision fails:
    // both end with this connection.
    let lock_timeout = format!("SET lock_timeout = '{}s'", LOCK_TIMEOUT.as_secs());
    sqlx::raw_sql(sqlx::AssertSqlSafe(lock_timeout))
        .execute(&mut *connection)
        .await?;
    MIGRATOR.run(&mut *connection).await.map_err(explain)?;
    load_airports(connection)
        .await
        .context("cannot load the airports")
}

fn explain(error: MigrateError) -> anyhow::Error {
    match error {
        MigrateError::VersionMissing(version) => anyhow::anyhow!(
            "the schema has revision {version}, which this program does not know: run a newer paxflow"
        ),
        MigrateError::VersionMismatch(version) => {
            anyhow::anyhow!("revision {version} was edited after it was applied: restore its file")
        }
        other => anyhow::Error::new(other).context("cannot migrate the schema"),
    }
}

fn checksum() -> String {
    format!("{:016x}", xxh3_64(AIRPORTS.as_bytes()))
}

/// Whether the airports of this program are loaded, and no other edition.
///
/// # Errors
/// What the database says.
pub async fn airports_loaded(connection: &mut PgConnection) -> sqlx::Result<bool> {
    let loaded: Option<String> =
        sqlx::query_scalar("SELECT checksum FROM reference_data WHERE name = 'airports'")
            .fetch_optional(connection)
            .await?;
    Ok(loaded.as_deref() == Some(&checksum()))
}

async fn load_airports(connection: &mut PgConnection) -> sqlx::Result<()> {
    let mut transaction = connection.begin().await?;
    // Workers that start together take turns; the second finds the work done.
    sqlx::raw_sql("LOCK TABLE reference_data IN SHARE ROW EXCLUSIVE MODE")
        .execute(&mut *transaction)
        .await?;
    if airports_loaded(&mut transaction).await? {
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
