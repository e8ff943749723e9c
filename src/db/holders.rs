//! Tells who holds the lock that a migration waits for.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::warn;

/// How often it looks; a migration that is quicker is not looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Looks, from a session of its own, at what another session waits for, until it is dropped.
pub(super) struct Holders {
    looking: JoinHandle<()>,
    seen: watch::Receiver<Option<String>>,
}

impl Holders {
    /// Watches the session that `waiting` is connected with.
    ///
    /// # Errors
    /// What the database says.
    pub(super) async fn of(
        waiting: &mut PgConnection,
        options: &PgConnectOptions,
    ) -> sqlx::Result<Self> {
        let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()")
            .fetch_one(waiting)
            .await?;
        let (sender, seen) = watch::channel(None);
        let options = options.clone();
        let looking = tokio::spawn(async move {
            if let Err(error) = look(pid, &options, &sender).await {
                let reason = super::told(&error);
                warn!(
                    reason,
                    "cannot tell who holds the lock that a migration may wait for"
                );
            }
        });
        Ok(Self { looking, seen })
    }

    /// Who was seen last.
    pub(super) fn last_seen(&self) -> Option<String> {
        self.seen.borrow().clone()
    }
}

impl Drop for Holders {
    fn drop(&mut self) {
        self.looking.abort();
    }
}

async fn look(
    pid: i32,
    options: &PgConnectOptions,
    seen: &watch::Sender<Option<String>>,
) -> sqlx::Result<()> {
    tokio::time::sleep(LOOK_EVERY).await;
    let mut connection = super::connect(options).await?;
    loop {
        let holders: Option<String> = sqlx::query_scalar(include_str!("holders.sql"))
            .bind(pid)
            .fetch_one(&mut connection)
            .await?;
        if let Some(holders) = holders
            && seen.borrow().as_ref() != Some(&holders)
        {
            warn!(holders, "a migration waits for a lock");
            seen.send_replace(Some(holders));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
