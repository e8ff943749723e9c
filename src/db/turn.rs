//! The right to change the schema, which one process has at a time.

use std::time::Duration;

use anyhow::{Context, Result};
use sqlx::migrate::Migrate;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, Connection};

use super::holders::Holders;

/// How long a change of the schema waits for others.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For another process that is changing the schema.
    pub turn: Duration,
    /// For a table that somebody uses. Whoever comes after waits behind the change, so this is short.
    pub lock: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            turn: Duration::from_secs(300),
            lock: Duration::from_secs(10),
        }
    }
}

/// A connection whose turn it is. The turn ends with it: the migrator keeps its lock when a revision fails.
pub(super) struct Turn {
    pub(super) connection: PgConnection,
    holders: Holders,
}

impl Turn {
    pub(super) async fn take(options: &PgConnectOptions, patience: Patience) -> Result<Self> {
        let mut connection = super::connect(options)
            .await
            .map_err(super::explain)
            .context("cannot connect to change the schema")?;
        // Who has gone gives the turn to the next one.
        super::detect_lost_client(&mut connection).await;
        let holders = Holders::of(&mut connection, options).await?;
        let mut turn = Self {
            connection,
            holders,
        };
        // The migrator takes the same lock once more, without a limit of its own.
        turn.wait_at_most(patience.turn).await?;
        if let Err(error) = turn.connection.lock().await {
            return Err(anyhow::Error::new(error).context(format!(
                "another process is changing the schema{} and did not finish within {} s: try again",
                turn.held_by(),
                patience.turn.as_secs()
            )));
        }
        turn.wait_at_most(patience.lock).await?;
        Ok(turn)
    }

    /// Limits how long a statement waits for a lock.
    pub(super) async fn wait_at_most(&mut self, limit: Duration) -> sqlx::Result<()> {
        let set = format!("SET lock_timeout = '{}ms'", limit.as_millis());
        sqlx::raw_sql(AssertSqlSafe(set))
            .execute(&mut self.connection)
            .await
            .map(|_| ())
    }

    /// Who had the lock that was last waited for, to be put into a sentence.
    pub(super) fn held_by(&self) -> String {
        let seen = self.holders.last_seen();
        seen.map(|holders| format!(" by {holders}"))
            .unwrap_or_default()
    }

    pub(super) async fn end(self) {
        self.connection.close().await.ok();
    }
}
