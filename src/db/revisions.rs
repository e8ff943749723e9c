//! The revisions of the schema: which a database has, and which a set of files knows.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::migrate::{Migration, Migrator};
use sqlx::postgres::PgConnection;
use sqlx::{FromRow, Row};

/// How a revision of the files and of the database compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// The database has it as the file says.
    Applied,
    /// The database does not have it yet.
    Pending,
    /// The file was changed after it had been applied: nobody knows what this schema is.
    Edited,
    /// The database has it, the files do not: they are older than the schema.
    Unknown,
    /// A revision that runs outside a transaction began and did not finish.
    Dirty,
}

/// One revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Revision {
    /// Its number.
    pub version: i64,
    /// What it is about, as the database has it where it is applied.
    pub message: String,
    /// When the database got it.
    pub applied_at: Option<DateTime<Utc>>,
    /// How the database and the file compare.
    pub state: State,
}

/// Where a database stands: every revision that it or the files have, by number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// In ascending order.
    pub revisions: Vec<Revision>,
}

#[derive(FromRow)]
struct Applied {
    version: i64,
    description: String,
    installed_on: DateTime<Utc>,
    success: bool,
    checksum: Vec<u8>,
}

/// Compares a database with the revisions of `migrator`.
///
/// # Errors
/// What the database says.
pub async fn standing(connection: &mut PgConnection, migrator: &Migrator) -> Result<Standing> {
    let applied = applied(connection)
        .await
        .context("cannot read the schema revision")?;
    Ok(compare(applied, migrator))
}

async fn applied(connection: &mut PgConnection) -> sqlx::Result<BTreeMap<i64, Applied>> {
    let mut applied = BTreeMap::new();
    // Simple statements, which a pooler lets through.
    let table = sqlx::raw_sql("SELECT to_regclass('_sqlx_migrations') IS NOT NULL")
        .fetch_one(&mut *connection)
        .await?;
    if table.try_get(0)? {
        let rows = sqlx::raw_sql(
            "SELECT version, description, installed_on, success, checksum FROM _sqlx_migrations",
        )
        .fetch_all(connection)
        .await?;
        for row in rows {
            let row = Applied::from_row(&row)?;
            applied.insert(row.version, row);
        }
    }
    Ok(applied)
}

fn compare(mut applied: BTreeMap<i64, Applied>, migrator: &Migrator) -> Standing {
    let mut revisions = Vec::new();
    for file in ups(migrator) {
        let row = applied.remove(&file.version);
        let state = match &row {
            None => State::Pending,
            Some(row) if !row.success => State::Dirty,
            Some(row) if *row.checksum != *file.checksum => State::Edited,
            Some(_) => State::Applied,
        };
        let applied_at = row.as_ref().map(|row| row.installed_on);
        revisions.push(Revision {
            version: file.version,
            message: row.map_or_else(|| file.description.to_string(), |row| row.description),
            applied_at,
            state,
        });
    }
    revisions.extend(applied.into_values().map(|row| Revision {
        version: row.version,
        message: row.description,
        applied_at: Some(row.installed_on),
        state: if row.success {
            State::Unknown
        } else {
            State::Dirty
        },
    }));
    revisions.sort_by_key(|revision| revision.version);
    Standing { revisions }
}

/// The revisions that stand in a directory.
///
/// # Errors
/// If it cannot be read.
pub async fn in_directory(directory: &Path) -> Result<Migrator> {
    Migrator::new(directory)
        .await
        .with_context(|| format!("cannot read the revisions in {}", directory.display()))
}

/// The files that bring the schema forward, in order.
pub fn ups(migrator: &Migrator) -> impl Iterator<Item = &Migration> {
    let is_up = |file: &&Migration| file.migration_type.is_up_migration();
    migrator.iter().filter(is_up)
}

/// The file that takes a revision back.
pub fn down(migrator: &Migrator, version: i64) -> Option<&Migration> {
    let is_down =
        |file: &&Migration| file.version == version && file.migration_type.is_down_migration();
    migrator.iter().find(is_down)
}

/// The newest revision of the files; 0 if there is none.
pub fn latest(migrator: &Migrator) -> i64 {
    ups(migrator).map(|file| file.version).max().unwrap_or(0)
}

/// The name of a revision's file.
pub fn file_name(file: &Migration) -> String {
    let (version, words) = (file.version, file.description.replace(' ', "_"));
    format!("{version:04}_{words}{}", file.migration_type.suffix())
}

impl Standing {
    /// The newest revision that the database has.
    pub fn current(&self) -> Option<&Revision> {
        let applied = |revision: &&Revision| revision.applied_at.is_some();
        self.revisions.iter().rev().find(applied)
    }

    /// Its number; 0 for an empty database.
    pub fn current_version(&self) -> i64 {
        self.current().map_or(0, |revision| revision.version)
    }

    /// The revisions in a state.
    pub fn in_state(&self, state: State) -> impl DoubleEndedIterator<Item = &Revision> {
        self.revisions
            .iter()
            .filter(move |revision| revision.state == state)
    }

    /// Whether the database has a revision, in whatever state.
    pub fn has(&self, version: i64) -> bool {
        let is_it =
            |revision: &Revision| revision.version == version && revision.applied_at.is_some();
        self.revisions.iter().any(is_it)
    }

    /// Whether the database has just what the files say.
    pub fn in_sync(&self) -> bool {
        self.revisions
            .iter()
            .all(|revision| revision.state == State::Applied)
    }

    /// Fails unless revisions can be added and taken back.
    ///
    /// # Errors
    /// A revision that is unknown, edited or half applied, by name, and what to do.
    pub fn refuse_unsound(&self, migrator: &Migrator) -> Result<()> {
        if let Some(unknown) = self.in_state(State::Unknown).last() {
            bail!(
                "the schema is at revision {} ({}), this program knows revisions up to {}: run a newer paxflow",
                unknown.version,
                unknown.message,
                latest(migrator)
            );
        }
        if let Some(edited) = self.in_state(State::Edited).next() {
            let file = ups(migrator).find(|file| file.version == edited.version);
            bail!(
                "revision {} was edited after it was applied: restore {}, and put the change into a new revision",
                edited.version,
                file.map(file_name).unwrap_or_default()
            );
        }
        if let Some(dirty) = self.in_state(State::Dirty).next() {
            bail!(
                "revision {} ({}) did not finish: complete or take back its statements by hand, then set success or delete \
                 its row in _sqlx_migrations",
                dirty.version,
                dirty.message
            );
        }
        Ok(())
    }
}
