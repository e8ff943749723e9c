//! The desired schema against what the revisions build.
//!
//! `migrations/schema.sql` says what is wanted. [`autogenerate`] builds it in one scratch database and the
//! revisions in another, reads both back from PostgreSQL's catalogs ([`snapshot()`]), and writes the
//! statements that lead from one to the other and back.
//!
//! The libraries that were looked at first: pgmold 0.34 parses SQL by itself and finds 20 differences
//! between this project's schema and itself (it would drop the sequences of identities, and knows no
//! fillfactor); declare_schema 0.0.14 (alpha, "you will likely lose data") and sql-schema 0.6 (early, tables,
//! indexes and types only) are no further; migra, pg-schema-diff, pgschema and pg-delta want Python, Go or
//! Node. PostgreSQL's own deparsers need no parser and know every version.
//!
//! In steps: what differs is dropped, altered or made (`difference`), what could lose data is held back
//! (`hold`), the rest is writing (`script`).

mod difference;
mod hold;
mod script;
mod snapshot;

use std::pin::{Pin, pin};

use anyhow::{Context, Result, anyhow};
use sqlx::migrate::Migrator;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, Connection};

use super::statements::split;
use difference::Difference;
use hold::Held;
pub use snapshot::{Snapshot, snapshot};

/// What brings the revisions to the desired schema, and back.
///
/// What could lose data stands in it commented out, below a line `-- Held back:` with the reason: dropping a
/// table, a column that is not generated, a sequence or an identity; turning a stored column into a
/// computed one or back; a column type that may not hold every value of the old one; a table that becomes
/// unlogged; and what makes no sense without these. The way back holds back the same and nothing else: it
/// takes back what the way there does, and whoever runs it is asked before anything is dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The statements of the next revision.
    pub up: String,
    /// The statements that take it back.
    pub down: String,
    /// How many statements of both are commented out, or have to be written by hand.
    pub held_back: usize,
}

impl Change {
    /// Writes what turns one schema into the other, and back; nothing if they are equal.
    pub fn between(current: &Snapshot, desired: &Snapshot) -> Option<Self> {
        let there = Difference::between(current, desired);
        let back = Difference::between(desired, current);
        let held = Held::of(&there);
        let up = script::script(&there, &held)?;
        let down = script::script(&back, &held.on_the_way_back(&there, &back))?;
        Some(Self {
            held_back: up.held_back + down.held_back,
            up: up.sql,
            down: down.sql,
        })
    }
}

/// Compares a desired schema with what revisions build, in two scratch databases on a server. They are
/// dropped again, also when it is interrupted.
///
/// # Errors
/// If the server lets no database be made, or the desired schema or a revision fails there.
pub async fn autogenerate(
    server: &PgConnectOptions,
    desired_sql: &str,
    migrations: &Migrator,
    interrupted: impl Future<Output = ()>,
) -> Result<Option<Change>> {
    let mut interrupted = pin!(interrupted);
    let desired = in_scratch_database(server, interrupted.as_mut(), async |connection| {
        run_script(connection, desired_sql).await
    })
    .await?;
    let current = in_scratch_database(server, interrupted.as_mut(), async |connection| {
        migrations
            .run(connection)
            .await
            .context("the revisions do not run on an empty database")
    })
    .await?;
    Ok(Change::between(&current, &desired))
}

/// The schema that something builds in a database of its own, which is dropped again.
async fn in_scratch_database(
    server: &PgConnectOptions,
    interrupted: Pin<&mut impl Future<Output = ()>>,
    build: impl AsyncFnOnce(&mut PgConnection) -> Result<()>,
) -> Result<Snapshot> {
    let name = format!(
        "paxflow_scratch_{}_{:016x}",
        std::process::id(),
        rand::random::<u64>()
    );
    let place = super::address(server);
    let mut admin = super::connect(server)
        .await
        .map_err(super::explain)
        .with_context(|| format!("cannot connect to {place} to make a scratch database"))?;
    execute(
        &mut admin,
        format!("CREATE DATABASE {name} TEMPLATE template0"),
    )
    .await
    .with_context(|| {
        format!("cannot make a scratch database at {place}: the role needs CREATEDB")
    })?;
    let scratch = server.clone().database(&name);
    let built = tokio::select! {
        built = build_there(&scratch, build) => built,
        () = interrupted => Err(anyhow!("interrupted: nothing is written")),
    };
    // What was interrupted may still be at work there.
    let ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1";
    sqlx::query(ended)
        .bind(&name)
        .execute(&mut admin)
        .await
        .ok();
    let dropped = execute(&mut admin, format!("DROP DATABASE {name}")).await;
    admin.close().await.ok();
    let built = built?;
    dropped.with_context(|| {
        format!("the scratch database {name} at {place} is left behind: drop it")
    })?;
    Ok(built)
}

async fn build_there(
    database: &PgConnectOptions,
    build: impl AsyncFnOnce(&mut PgConnection) -> Result<()>,
) -> Result<Snapshot> {
    // Whatever the role's own settings are, names mean the same in both databases.
    let options = database
        .clone()
        .options([("search_path", "public"), ("synchronous_commit", "off")]);
    let mut connection = super::connect(&options)
        .await
        .context("cannot connect to the scratch database")?;
    let result = match build(&mut connection).await {
        Ok(()) => snapshot(&mut connection)
            .await
            .context("cannot read the schema of the scratch database"),
        Err(error) => Err(error),
    };
    connection.close().await.ok();
    result
}

async fn run_script(connection: &mut PgConnection, script: &str) -> Result<()> {
    for statement in split(script).context("the desired schema is no SQL")? {
        execute(connection, statement.text.to_owned())
            .await
            .with_context(|| {
                format!(
                    "the desired schema fails at line {}: {}",
                    statement.line,
                    statement.headline()
                )
            })?;
    }
    Ok(())
}

async fn execute(connection: &mut PgConnection, sql: String) -> sqlx::Result<()> {
    sqlx::raw_sql(AssertSqlSafe(sql))
        .execute(connection)
        .await
        .map(|_| ())
}
