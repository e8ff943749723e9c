//! Changes of the schema: on boot by whoever comes first, and by hand.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use sqlx::error::DatabaseError;
use sqlx::migrate::{MigrateError, Migration, Migrator};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, Connection};
use tracing::info;

use super::revisions::{Standing, down, file_name, latest, standing, ups};
use super::sqlstate::{INSUFFICIENT_PRIVILEGE, LOCK_NOT_AVAILABLE};
use super::statements::{Statement, split};
use super::turn::{Patience, Turn};
use super::{Fault, fault_of, reference, rights};

/// The revisions that this program was built with.
pub static MIGRATOR: Migrator = sqlx::migrate!("./migrations");

const CANNOT_GRANT: &str = "cannot give the roles of deploy/roles.sql their rights";

/// What a failed revision waits for when its failing statement is looked for.
const SEARCH_LOCK_TIMEOUT: Duration = Duration::from_secs(1);

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
        .map_err(super::explain)
        .context("cannot connect to migrate")?;
    if let Some(before) = behind(&mut connection).await? {
        let newest = latest(&MIGRATOR);
        upgrade(options, &MIGRATOR, newest, Patience::default()).await?;
        info!(
            from = before.current_version(),
            to = newest,
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
        .map_err(super::explain)
        .context("cannot connect to see the schema revision")?;
    if let Some(before) = behind(&mut connection).await? {
        bail!(
            "the database is not up to date (revision {} of {}) and cannot be migrated through a pooler: \
             set DATABASE_DIRECT_URL to PostgreSQL itself, as postgres://user:password@host:5432/database",
            before.current_version(),
            latest(&MIGRATOR)
        );
    }
    connection.close().await.ok();
    Ok(())
}

/// Where the database stands, unless it has all that this program needs.
async fn behind(connection: &mut PgConnection) -> Result<Option<Standing>> {
    let before = standing(connection, &MIGRATOR).await?;
    before.refuse_unsound(&MIGRATOR)?;
    let up_to_date = before.in_sync() && reference::is_loaded(connection).await?;
    Ok((!up_to_date).then_some(before))
}

/// Applies the revisions up to `target`, each in one transaction, and with the latest one the
/// reference data.
///
/// # Errors
/// The file and statement that failed, which left nothing behind, or who holds a lock.
pub async fn upgrade(
    options: &PgConnectOptions,
    migrator: &Migrator,
    target: i64,
    patience: Patience,
) -> Result<()> {
    let (mut turn, standing) = start(options, migrator, patience).await?;
    let applied = migrator.run_to(target, &mut turn.connection).await;
    if let Err(error) = applied {
        // Those before the one that failed stay, also what they have made anew.
        rights::grant(&mut turn.connection).await.ok();
        if let Some(refusal) = refusal(&error) {
            return Err(not_the_owner(&standing, migrator, &refusal));
        }
        return Err(explain(turn, error, ups(migrator)).await);
    }
    if target >= latest(&MIGRATOR) {
        reference::load(&mut turn.connection)
            .await
            .context("cannot load the airports")?;
    }
    rights::grant(&mut turn.connection)
        .await
        .context(CANNOT_GRANT)?;
    turn.end().await;
    Ok(())
}

/// Gives the roles of deploy/roles.sql the rights that an upgrade was kept from giving them, when its connection was lost for
/// instance. Who may not give any has none to make up for.
///
/// # Errors
/// What the database says, or who holds a lock.
pub async fn grant_again(
    options: &PgConnectOptions,
    migrator: &Migrator,
    patience: Patience,
) -> Result<()> {
    let (mut turn, _) = start(options, migrator, patience).await?;
    grant_if_may(&mut turn.connection).await?;
    turn.end().await;
    Ok(())
}

async fn grant_if_may(connection: &mut PgConnection) -> Result<()> {
    match rights::grant(connection).await {
        Err(error) if !super::sqlstate::is(&error, INSUFFICIENT_PRIVILEGE) => {
            Err(error).context(CANNOT_GRANT)
        }
        _ => Ok(()),
    }
}

/// Takes the revisions after `target` back, newest first, each in one transaction.
///
/// # Errors
/// As [`upgrade`]; also if one of them has no file that takes it back.
pub async fn downgrade(
    options: &PgConnectOptions,
    migrator: &Migrator,
    target: i64,
    patience: Patience,
) -> Result<()> {
    let (mut turn, standing) = start(options, migrator, patience).await?;
    let downs = |version| down(migrator, version);
    let one_way = standing.revisions.iter().find(|revision| {
        revision.version > target
            && revision.applied_at.is_some()
            && downs(revision.version).is_none()
    });
    if let Some(revision) = one_way {
        return Err(anyhow!(
            "revision {} ({}) has no file that takes it back: restore a backup from before it",
            revision.version,
            revision.message
        ));
    }
    let taken_back = migrator.undo(&mut turn.connection, target).await;
    if let Err(error) = taken_back {
        rights::grant(&mut turn.connection).await.ok();
        if let Some(refusal) = refusal(&error) {
            bail!(
                "this role may not change the schema: run `paxflow db migrate downgrade {target}` as its owner \
                 or a member of paxflow_owner: {refusal}"
            );
        }
        let downs = migrator
            .iter()
            .filter(|file| file.migration_type.is_down_migration());
        return Err(explain(turn, error, downs).await);
    }
    grant_if_may(&mut turn.connection).await?;
    turn.end().await;
    Ok(())
}

/// Waits for its turn and looks where the database stands by then.
async fn start(
    options: &PgConnectOptions,
    migrator: &Migrator,
    patience: Patience,
) -> Result<(Turn, Standing)> {
    let mut turn = Turn::take(options, patience).await?;
    let standing = standing(&mut turn.connection, migrator).await?;
    standing.refuse_unsound(migrator)?;
    Ok((turn, standing))
}

/// What the server says the role may not do, if it is that.
fn refusal(error: &MigrateError) -> Option<String> {
    let answer = answer(error)?;
    (answer.code().as_deref() == Some(INSUFFICIENT_PRIVILEGE)).then(|| answer.message().to_owned())
}

fn not_the_owner(before: &Standing, migrator: &Migrator, refusal: &str) -> anyhow::Error {
    let problem = if before.in_sync() {
        "the airports of this version are not loaded, and this role may not load them".to_owned()
    } else {
        let (current, latest) = (before.current_version(), latest(migrator));
        format!("the schema is at revision {current} of {latest}, and this role may not change it")
    };
    anyhow!(
        "{problem}: run `paxflow db migrate upgrade` as its owner or a member of paxflow_owner: {refusal}"
    )
}

/// Names the file and the statement, and who holds the lock if it is for that.
async fn explain<'a>(
    mut turn: Turn,
    error: MigrateError,
    mut files: impl Iterator<Item = &'a Migration>,
) -> anyhow::Error {
    let MigrateError::ExecuteMigration(cause, version) = error else {
        return anyhow::Error::new(error).context("cannot change the schema");
    };
    let Some(file) = files.find(|file| file.version == version) else {
        return anyhow::Error::new(cause).context(format!("revision {version} failed"));
    };
    let mut what = format!("revision {version} failed in {}", file_name(file));
    if let Some(statement) = failing_statement(&mut turn, file).await {
        what = format!("{what}, line {}: {}", statement.line, statement.headline());
    }
    let sqlstate = answer(&cause).and_then(DatabaseError::code);
    let sqlstate = sqlstate.unwrap_or_default();
    if sqlstate == LOCK_NOT_AVAILABLE {
        what = format!(
            "{what}: the lock it needs is held{}; end that session or try again later",
            turn.held_by()
        );
    }
    if !file.no_tx {
        what.push_str("; nothing of it remains");
    }
    match fault_of(&cause) {
        // What the server says of a value quotes it, and it may be a passenger's.
        Fault::Data { .. } => {
            anyhow!("{what} (SQLSTATE {sqlstate}: what is stored does not fit)")
        }
        Fault::Transient | Fault::Permanent => anyhow::Error::new(cause).context(what),
    }
}

/// What the server said, if it did.
fn answer<'e>(error: &'e (dyn std::error::Error + 'static)) -> Option<&'e dyn DatabaseError> {
    let mut causes = std::iter::successors(Some(error), |error| error.source());
    causes.find_map(|cause| cause.downcast_ref::<sqlx::Error>()?.as_database_error())
}

/// Runs a failed revision once more, statement by statement, in a transaction that is rolled back:
/// the server does not tell which statement of a file failed.
async fn failing_statement<'a>(turn: &mut Turn, file: &'a Migration) -> Option<Statement<'a>> {
    if file.no_tx {
        return None;
    }
    turn.wait_at_most(SEARCH_LOCK_TIMEOUT).await.ok()?;
    let mut transaction = turn.connection.begin().await.ok()?;
    for statement in split(file.sql.as_str())? {
        let again = sqlx::raw_sql(AssertSqlSafe(statement.text)).execute(&mut *transaction);
        if again.await.is_err() {
            return Some(statement);
        }
    }
    None
}
