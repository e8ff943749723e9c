//! The pool of database connections.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions, Postgres};
use sqlx::{Connection, Row};

use super::sockets;
use crate::config::{PoolConfig, Pooler};

/// How long a caller waits for a connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);
/// A database that does not answer the least question for this long is away: a lost network path sends
/// no reset.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the pool's server is asked why no connection to it could be made.
const CAUSE_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a connection is handed on before it is returned, so that the pool can replace it, and give it to who else waits.
const LEASE_MAX: Duration = Duration::from_secs(1);

/// Ends a transaction that may be open. A ROLLBACK alone, where none is, would be a warning in the server's log, each time.
const END_TRANSACTION: &str = "BEGIN; ROLLBACK";

/// Batches look rows up by key, many at once. The planner does not see how many, and a plan made while
/// a table was empty would go on scanning it when it has grown.
pub(super) const KEY_LOOKUPS: [(&str, &str); 3] = [
    ("plan_cache_mode", "force_generic_plan"),
    ("enable_seqscan", "off"),
    ("jit", "off"),
];

/// Makes the pool that batches are committed on; connections are opened when they are needed.
///
/// At most `size + max_overflow` connections are open. One that is returned while more than `size`
/// are open is closed, so the overflow lasts only as long as the load. One that is being closed still
/// counts: of many that are returned at the same moment more may go than had to, and the next load opens
/// them again. The driver tells nobody when it has closed one, and to keep too many would be worse.
pub fn open(options: PgConnectOptions, config: PoolConfig) -> PgPool {
    let opened: Arc<OnceLock<PgPool>> = Arc::default();
    let returned_to = Arc::clone(&opened);
    let options = match config.pooler {
        Pooler::None => options.options(KEY_LOOKUPS),
        Pooler::Transaction => options,
    };
    let pool = PgPoolOptions::new()
        .max_connections(config.size + config.max_overflow)
        .max_lifetime(config.recycle)
        .idle_timeout(None)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        // The first statement on a dead connection fails as fast as a ping would.
        .test_before_acquire(false)
        .after_connect(move |connection, _| {
            sockets::set();
            Box::pin(async move {
                // Whoever gives up on a batch must not leave a session behind that waits on. A pooler's sessions are not ours.
                if config.pooler == Pooler::None {
                    super::detect_lost_client(connection).await;
                }
                Ok(())
            })
        })
        .after_release(move |connection, _| {
            let keep = returned_to
                .get()
                .is_none_or(|pool| pool.size() <= config.size);
            Box::pin(async move {
                // A caller that was dropped inside `begin` leaves a transaction open behind it; a
                // connection that cannot even roll back is gone, and so is one whose transaction has failed.
                let ended = sqlx::raw_sql(END_TRANSACTION).execute(connection);
                Ok(keep && ended.await.is_ok())
            })
        })
        .connect_lazy_with(options);
    opened.get_or_init(|| pool.clone());
    pool
}

/// Takes a connection of the pool. The driver tries again until the time is over, and keeps to itself what was in its way: the server
/// is asked for that.
async fn acquire(pool: &PgPool) -> sqlx::Result<PoolConnection<Postgres>> {
    let timed_out = match pool.acquire().await {
        Err(error @ sqlx::Error::PoolTimedOut) => error,
        acquired => return acquired,
    };
    let asked = async { super::connect(&pool.connect_options()).await?.close().await };
    match tokio::time::timeout(CAUSE_TIMEOUT, asked).await {
        Ok(Err(cause)) => Err(cause),
        Ok(Ok(())) => Err(timed_out),
        Err(_) => Err(no_answer(ACQUIRE_TIMEOUT + CAUSE_TIMEOUT)),
    }
}

/// Whether it takes no writes, as a standby does. A statement that writes would wait for locks as well.
const IS_READ_ONLY: &str = "SELECT current_setting('transaction_read_only')::boolean";

/// Asks whether the database answers, and takes what a worker writes.
///
/// # Errors
/// What it says, or that it says nothing.
pub async fn answers(pool: &PgPool) -> sqlx::Result<()> {
    let mut connection = acquire(pool).await?;
    // A simple statement, which a pooler lets through.
    let question = sqlx::raw_sql(IS_READ_ONLY).fetch_one(&mut *connection);
    let Ok(answer) = tokio::time::timeout(ANSWER_TIMEOUT, question).await else {
        return Err(abandon(connection, ANSWER_TIMEOUT));
    };
    if answer?.try_get_unchecked::<&str, _>(0)? == "t" {
        // A session that was opened while the database was read-only stays so.
        connection.close_on_drop();
        let reason = "the database is read-only";
        return Err(sqlx::Error::Io(std::io::Error::new(
            std::io::ErrorKind::ReadOnlyFilesystem,
            reason,
        )));
    }
    Ok(())
}

/// A connection of the pool that one batch hands on to the next. Were it returned after each, batches would go round over
/// several, whose backends each have caches and plans of their own to fill, and each return asks the server.
#[derive(Debug)]
pub struct Lease {
    /// The connection, with no transaction open.
    pub connection: PoolConnection<Postgres>,
    since: Instant,
}

impl Lease {
    /// Goes on with the one that was handed on, unless there is none or it was for long; then with another of the pool.
    ///
    /// # Errors
    /// If the pool has none to give.
    pub async fn renewed(handed_on: Option<Self>, pool: &PgPool) -> sqlx::Result<Self> {
        match handed_on.filter(|lease| lease.since.elapsed() < LEASE_MAX) {
            Some(lease) => Ok(lease),
            None => Ok(Self {
                connection: acquire(pool).await?,
                since: Instant::now(),
            }),
        }
    }
}

/// Gives up on a connection in the midst of a statement: closed, since nobody knows its state.
pub fn abandon(connection: PoolConnection<Postgres>, waited: Duration) -> sqlx::Error {
    drop(connection.detach());
    no_answer(waited)
}

fn no_answer(waited: Duration) -> sqlx::Error {
    let reason = format!("no answer within {} s", waited.as_secs());
    sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, reason))
}
