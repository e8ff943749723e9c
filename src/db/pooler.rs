//! What a pooler changes. In transaction mode it gives a connection another session for each
//! transaction, so nothing may be left in a session and nothing expected there: no settings, no
//! prepared statements, and outside a transaction no statement with parameters, which takes two messages.

use std::sync::LazyLock;

use anyhow::Result;
use sqlx::postgres::{PgArguments, PgConnectOptions, PgConnection};
use sqlx::query::Query;
use sqlx::{Connection, Postgres, Transaction};

use super::pool::KEY_LOOKUPS;
use super::{SESSION, sqlstate};
use crate::config::{Pooler, Secret};

/// The settings of a worker's session, for one transaction and in one message.
static BEGIN: LazyLock<String> = LazyLock::new(|| {
    let settings = SESSION.iter().chain(&KEY_LOOKUPS);
    let set = settings.map(|(name, value)| format!("; SET LOCAL {name} = '{value}'"));
    format!(
        "BEGIN ISOLATION LEVEL READ COMMITTED{}",
        set.collect::<String>()
    )
});

impl Pooler {
    /// How a worker reaches its database.
    ///
    /// # Errors
    /// If the URL is not one.
    pub fn options(self, url: &Secret, purpose: &str) -> Result<PgConnectOptions> {
        match self {
            Self::None => super::options(url, purpose),
            // PgBouncer refuses a connection that asks for settings it does not know.
            Self::Transaction => Ok(super::plain_options(url, purpose)?.extra_float_digits(None)),
        }
    }

    /// Opens a transaction that has the settings of a worker's session.
    ///
    /// # Errors
    /// What the database says.
    pub async fn begin(
        self,
        connection: &mut PgConnection,
    ) -> sqlx::Result<Transaction<'_, Postgres>> {
        match self {
            Self::None => connection.begin().await,
            Self::Transaction => connection.begin_with(BEGIN.as_str()).await,
        }
    }

    /// A statement of such a transaction: prepared once for a session of its own, and each time anew,
    /// without a name, behind a pooler.
    pub fn query(self, sql: &'static str) -> Query<'static, Postgres, PgArguments> {
        sqlx::query(sql).persistent(self == Self::None)
    }
}

/// What to do about an error that shows a pooler where PostgreSQL was expected.
pub(super) fn remedy(error: &sqlx::Error) -> Option<&'static str> {
    is_unexpected(error).then_some(
        "the URL leads to a pooler: set DATABASE_POOLER=transaction, and DATABASE_DIRECT_URL to PostgreSQL itself",
    )
}

/// Whether only a pooler gives this error, and only to those who do not expect one.
fn is_unexpected(error: &sqlx::Error) -> bool {
    let sqlstate = error.as_database_error().and_then(|error| error.code());
    match sqlstate.as_deref() {
        // A prepared statement that does not exist, or exists already: of another connection.
        Some("26000" | "42P05") => true,
        _ => says(error, "unsupported startup parameter"),
    }
}

/// Whether a pooler says what only a person can mend, and what PostgreSQL has SQLSTATEs for.
pub(super) fn is_refusal(error: &sqlx::Error) -> bool {
    const REFUSALS: [&str; 6] = [
        "unsupported startup parameter",
        "no such database",
        "no such user",
        "password authentication failed",
        "SASL authentication failed",
        // What PostgreSQL says of a database or role, handed on.
        "does not exist",
    ];
    REFUSALS.iter().any(|refusal| says(error, refusal))
}

/// Whether PgBouncer says this: with one SQLSTATE for everything, which is that of a lost connection.
fn says(error: &sqlx::Error, message: &str) -> bool {
    let answer = error.as_database_error();
    sqlstate::is(error, sqlstate::PROTOCOL_VIOLATION)
        && answer.is_some_and(|answer| answer.message().contains(message))
}
