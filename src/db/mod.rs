//! The database: connections, faults and the schema.

pub mod backup;
pub mod client;
pub mod drop;
mod holders;
pub mod migrate;
pub mod pool;
pub mod pooler;
pub mod reference;
pub mod revisions;
pub mod rights;
pub mod schema;
pub mod sockets;
pub mod sqlstate;
pub mod statements;
pub mod turn;

use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions, Connection};

use crate::config::Secret;
use crate::tls;

/// How long a connection may take to be made before it counts as an outage.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Settings of every session.
const SESSION: [(&str, &str); 5] = [
    ("timezone", "UTC"),
    // Each statement of a batch sees what was committed while it waited, such as an airport's new time zone.
    ("default_transaction_isolation", "read committed"),
    // The driver reads no other form, where it asks for text.
    ("bytea_output", "hex"),
    ("client_min_messages", "error"),
    ("idle_in_transaction_session_timeout", "15s"),
];

/// Log filter of the driver: of a parameter that it does not know, and of a line of a password file that it cannot read, it tells
/// the value as well. What it says of a file that it may not read or does not trust is lost with that.
pub const LIBRARY_LOG: &str = "sqlx_postgres::options=off";

/// Whose fault an error is, which decides what is done about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// One row cannot be stored: SQLSTATE classes 21, 22 and 23.
    Data {
        /// The five characters that PostgreSQL gave.
        sqlstate: String,
    },
    /// The database is away, busy, shutting down, read-only or full: the same work succeeds later.
    Transient,
    /// Only a person can mend it: wrong password, missing table, missing permission.
    Permanent,
}

/// Whose fault an error is.
pub fn fault_of(error: &sqlx::Error) -> Fault {
    if pooler::is_refusal(error) {
        return Fault::Permanent;
    }
    match error {
        sqlx::Error::Database(error) => {
            let sqlstate = error.code().unwrap_or_default();
            match sqlstate.get(..2).unwrap_or_default() {
                "21" | "22" | "23" => Fault::Data {
                    sqlstate: sqlstate.into_owned(),
                },
                // 25: read-only after a fail-over, idle too long; 0A: a plan from before a migration.
                "08" | "25" | "40" | "53" | "55" | "57" | "58" | "XX" | "0A" => Fault::Transient,
                _ => Fault::Permanent,
            }
        }
        sqlx::Error::Io(error) if tls::refusal(error).is_some() => Fault::Permanent,
        sqlx::Error::Io(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::BeginFailed => Fault::Transient,
        _ => Fault::Permanent,
    }
}

/// What the server says, or the driver where it is about the way there: the driver's own words for a refusal name a line of the
/// server's source.
pub fn told(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Database(refusal) => refusal.message().to_owned(),
        other => other.to_string(),
    }
}

/// Adds what to do to an error that only a person can mend, where the error itself does not tell.
pub fn explain(error: sqlx::Error) -> anyhow::Error {
    if let sqlx::Error::Io(error) = &error
        && let Some(problem) = tls::refusal(error)
    {
        // A text, since the error says it once more in its source.
        return anyhow!(
            "{problem}: with sslmode=verify-full the URL has to name the host as the server's certificate does, \
             and with sslrootcert=FILE the CA, unless the system trusts it: {error}"
        );
    }
    let remedy = match &error {
        sqlx::Error::Tls(_) => Some(
            "no TLS as sslmode asks for it: turn it on in PostgreSQL (ssl = on), or correct the URL",
        ),
        _ if sqlstate::is(&error, sqlstate::INVALID_CATALOG_NAME) => {
            Some("paxflow db init creates the database")
        }
        _ => pooler::remedy(&error),
    };
    let error = anyhow::Error::new(error);
    match remedy {
        Some(remedy) => error.context(remedy),
        None => error,
    }
}

/// How to reach a database, with the session settings that every connection has.
///
/// # Errors
/// If the URL is not one.
pub fn options(url: &Secret, purpose: &str) -> Result<PgConnectOptions> {
    Ok(plain_options(url, purpose)?
        .options(SESSION)
        .options([("tcp_keepalives_idle", "10")]))
}

fn plain_options(url: &Secret, purpose: &str) -> Result<PgConnectOptions> {
    let options: PgConnectOptions = url.expose().parse().ok().context(
        "the database's URL cannot be read: expected postgres://user:password@host:5432/database",
    )?;
    Ok(options
        .application_name(&format!("paxflow {purpose}"))
        .statement_cache_capacity(64)
        .disable_statement_logging())
}

/// Opens one connection, outside the pool.
///
/// # Errors
/// What the server or the network says; a silent one counts as timed out.
pub async fn connect(options: &PgConnectOptions) -> sqlx::Result<PgConnection> {
    match tokio::time::timeout(CONNECT_TIMEOUT, PgConnection::connect_with(options)).await {
        Ok(connected) => {
            sockets::set();
            connected
        }
        Err(_) => Err(sqlx::Error::Io(std::io::Error::new(
            std::io::ErrorKind::TimedOut,
            format!("no answer within {} s", CONNECT_TIMEOUT.as_secs()),
        ))),
    }
}

/// Has the server check once a second, during a long statement or a wait for a lock, that its client is still there. Before
/// PostgreSQL 14 it cannot: a statement whose client has gone runs to its end.
async fn detect_lost_client(connection: &mut PgConnection) {
    let notice = "SELECT set_config(name, '1s', false) FROM pg_settings WHERE name = 'client_connection_check_interval'";
    sqlx::raw_sql(notice).execute(connection).await.ok();
}

/// Where a database is, to be shown to people: never its password.
pub fn address(options: &PgConnectOptions) -> String {
    // As the server takes it.
    let database = options
        .get_database()
        .unwrap_or_else(|| options.get_username());
    format!("{}:{}/{database}", options.get_host(), options.get_port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_shows_no_password() {
        let url = Secret::new("postgres://joe:canary@db.example:5433/market");
        assert_eq!(
            address(&options(&url, "test").unwrap()),
            "db.example:5433/market"
        );
        // The server takes the user's name where none is given.
        let url = Secret::new("postgres://joe:canary@db.example");
        assert_eq!(
            address(&options(&url, "test").unwrap()),
            "db.example:5432/joe"
        );
    }

    #[test]
    fn a_lost_connection_is_nobodys_fault() {
        let lost = sqlx::Error::Io(std::io::ErrorKind::ConnectionReset.into());
        assert_eq!(fault_of(&lost), Fault::Transient);
        assert_eq!(fault_of(&sqlx::Error::PoolTimedOut), Fault::Transient);
        assert_eq!(fault_of(&sqlx::Error::RowNotFound), Fault::Permanent);
    }
}
