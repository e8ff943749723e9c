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
    // Simple statements here and below, which a pooler lets through.
    let known = sqlx::raw_sql("SELECT to_regclass('_sqlx_migrations') IS NOT NULL")
        .fetch_one(&mut *connection)
        .await?;
    if known.try_get(0)? {
        let newest =
            "SELECT version, installed_on FROM _sqlx_migrations ORDER BY version DESC LIMIT 1";
        if let Some(row) = sqlx::raw_sql(newest).fetch_optional(connection).await? {
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
        .map_err(super::pooler::explain)
        .context("cannot connect to migrate")?;
    if let Some(before) = behind(&mut connection).await? {
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

/// Fails unless the database is up to date: all that can be done about it through a pooler.
///
/// # Errors
/// As [`migrate`], and if there is something to migrate.
pub async fn require_latest(options: &PgConnectOptions) -> Result<()> {
    let mut connection = super::connect(options)
        .await
        .map_err(super::pooler::explain)
        .context("cannot connect to see the schema revision")?;
    if let Some(before) = behind(&mut connection).await? {
        bail!(
            "the database is not up to date (revision {} of {}) and cannot be migrated through a pooler: \
             set DATABASE_DIRECT_URL to PostgreSQL itself, as postgres://user:password@host:5432/database",
            before.current,
            before.latest
        );
    }
    connection.close().await.ok();
    Ok(())
}

/// What is applied, unless that is all that this program needs.
async fn behind(connection: &mut PgConnection) -> Result<Option<Revision>> {
    let before = revision(connection)
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
        refuse_edited(connection).await?;
    }
    let up_to_date = before.current == before.latest && airports_loaded(connection).await?;
    Ok((!up_to_date).then_some(before))
}

/// Fails if the file of an applied revision has changed since: nobody knows what this schema is.
async fn refuse_edited(connection: &mut PgConnection) -> Result<()> {
    let applied = "SELECT version, checksum FROM _sqlx_migrations ORDER BY version";
    let applied = sqlx::raw_sql(applied).fetch_all(connection).await;
    for row in applied.context("cannot read the applied revisions")? {
        let (version, checksum): (i64, Vec<u8>) = (row.try_get(0)?, row.try_get(1)?);
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

async fn airports_loaded(connection: &mut PgConnection) -> sqlx::Result<bool> {
    let loaded = "SELECT checksum FROM reference_data WHERE name = 'airports'";
    let loaded = sqlx::raw_sql(loaded).fetch_optional(connection).await?;
    let loaded: Option<String> = loaded.map(|row| row.try_get(0)).transpose()?;
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
