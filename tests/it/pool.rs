//! The pool of database connections: kept, overflowing, replaced and left clean.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use paxflow::config::{PoolConfig, Pooler};
use paxflow::db;
use paxflow::db::pool::Lease;
use sqlx::Acquire;
use sqlx::postgres::{PgConnection, PgPool};
use tracing::Level;

use crate::process::{Worker, generated, place, until};
use crate::support::{Database, WAITING, dump, execute, holding};

fn open(database: &Database, size: u32, max_overflow: u32, recycle: Duration) -> PgPool {
    let config = PoolConfig {
        size,
        max_overflow,
        recycle,
        pooler: Pooler::None,
    };
    let options = database.options.clone();
    // What the server would write into its log is told to us as well.
    let options = options.options([("client_min_messages", "warning")]);
    db::pool::open(options.application_name("pool under test"), config)
}

/// What is logged, for those who look at it later.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(line)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

async fn sessions(watcher: &mut PgConnection) -> i64 {
    sqlx::query_scalar(
        "SELECT count(*) FROM pg_stat_activity
         WHERE application_name = 'pool under test' AND datname = current_database()",
    )
    .fetch_one(watcher)
    .await
    .unwrap()
}

#[tokio::test]
async fn overflow_lasts_as_long_as_the_load() {
    let database = Database::new().await;
    let mut watcher = database.connect().await;
    let pool = open(&database, 3, 2, Duration::from_secs(3600));
    let mut taken = Vec::new();
    for _ in 0..5 {
        taken.push(pool.acquire().await.unwrap());
    }
    assert_eq!(sessions(&mut watcher).await, 5);
    let sixth = pool.acquire().await;
    assert!(matches!(sixth, Err(sqlx::Error::PoolTimedOut)), "{sixth:?}");
    // One that waits gets the next that is returned.
    let waiting = tokio::spawn({
        let pool = pool.clone();
        async move { pool.acquire().await.is_ok() }
    });
    taken.pop();
    assert!(waiting.await.unwrap());
    until("the one that waited has returned it", async || {
        (sessions(&mut watcher).await == 4).then_some(())
    })
    .await;

    for left in [3, 3, 3] {
        // One after the other, since a connection that is being closed still counts as open.
        taken.pop();
        until("the extra connections are closed", async || {
            (sessions(&mut watcher).await == left).then_some(())
        })
        .await;
    }
    drop(taken);
    let mut again = Vec::new();
    for _ in 0..3 {
        again.push(pool.acquire().await.unwrap());
    }
    assert_eq!(sessions(&mut watcher).await, 3);
}

#[tokio::test]
async fn no_more_than_the_size_is_kept_of_what_is_returned_at_once_and_all_can_be_had_again() {
    let database = Database::new().await;
    let mut watcher = database.connect().await;
    let pool = open(&database, 3, 2, Duration::from_secs(3600));
    for _ in 0..20 {
        let mut taken = Vec::new();
        for _ in 0..5 {
            taken.push(pool.acquire().await.expect("all five can be had"));
        }
        assert_eq!(sessions(&mut watcher).await, 5);
        drop(taken);
        until("the extra connections are closed", async || {
            let idle = u32::try_from(pool.num_idle()).unwrap();
            (idle == pool.size() && idle <= 3).then_some(())
        })
        .await;
        until("and so are their sessions", async || {
            (sessions(&mut watcher).await <= 3).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn connections_are_replaced_at_their_age() {
    let database = Database::new().await;
    let pool = open(&database, 1, 0, Duration::from_secs(1));
    let session = "SELECT pg_backend_pid()";
    let first: i32 = sqlx::query_scalar(session).fetch_one(&pool).await.unwrap();
    until("another session answers", async || {
        let now: i32 = sqlx::query_scalar(session).fetch_one(&pool).await.unwrap();
        (now != first).then_some(())
    })
    .await;
}

#[tokio::test]
async fn who_waits_for_the_only_connection_has_it_from_a_busy_worker_in_time() {
    let database = Database::new().await;
    let pool = open(&database, 1, 0, Duration::from_secs(3600));
    let mut lease = Lease::renewed(None, &pool).await.unwrap();
    let waiting = tokio::spawn({
        let pool = pool.clone();
        async move { db::pool::answers(&pool).await }
    });
    while !waiting.is_finished() {
        execute(&mut lease.connection, "SELECT 1").await;
        lease = Lease::renewed(Some(lease), &pool).await.unwrap();
    }
    waiting.await.unwrap().expect("it did not wait for long");
}

#[tokio::test]
async fn batches_of_a_long_queue_go_over_one_connection() {
    const BATCHES: i64 = 40;
    let database = Database::new().await;
    let mut watcher = database.connect().await;
    execute(
        &mut watcher,
        "CREATE TABLE committed (batch bigint GENERATED ALWAYS AS IDENTITY, session int);
         CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
             'BEGIN INSERT INTO committed (session) VALUES (pg_backend_pid()); RETURN NULL; END';
         CREATE TRIGGER note AFTER INSERT OR UPDATE ON worker_progress EXECUTE FUNCTION note()",
    )
    .await;
    let place = place(&database);
    place.publish(&generated(4_000, 5, 0.0)).await;
    let mut command = place.paxflow(&["run"]);
    command.env("PAXFLOW_BATCH_MAX", "50");
    let worker = Worker::start(command).await;
    place.drained().await;
    // Of the last: a worker begins with one delivery in hand, and is idle between the first.
    let changes: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM (
             SELECT session <> lag(session) OVER (ORDER BY batch) AS changed
             FROM committed ORDER BY batch DESC LIMIT $1) AS last
         WHERE changed",
    )
    .bind(BATCHES)
    .fetch_one(&mut watcher)
    .await
    .unwrap();
    assert!(
        changes < BATCHES / 4,
        "{changes} changes in {BATCHES} batches"
    );
    worker.stop().await;
}

#[tokio::test]
async fn a_session_that_was_given_up_on_does_not_wait_on() {
    let database = Database::new().await;
    let pool = open(&database, 1, 0, Duration::from_secs(3600));
    let (mut holder, mut watcher) = (database.connect().await, database.connect().await);
    execute(&mut holder, &holding("LOCK TABLE bookings")).await;
    let mut connection = pool.acquire().await.unwrap();
    tokio::select! {
        locked = sqlx::raw_sql("SELECT count(*) FROM bookings").execute(&mut *connection) => panic!("{locked:?}"),
        () = until("it waits", async || (dump(&mut watcher, WAITING).await == "1\n").then_some(())) => {}
    }
    db::pool::abandon(connection, Duration::ZERO);
    // Before PostgreSQL 14 it cannot know.
    let knows = "SELECT count(*) FROM pg_settings WHERE name = 'client_connection_check_interval'";
    let left = if dump(&mut watcher, knows).await == "1\n" {
        0
    } else {
        1
    };
    until("as many are left as have to", async || {
        (sessions(&mut watcher).await == left).then_some(())
    })
    .await;
    assert_eq!(dump(&mut watcher, WAITING).await, format!("{left}\n"));
}

#[tokio::test]
async fn a_transaction_left_open_is_rolled_back_on_return() {
    let database = Database::new().await;
    let pool = open(&database, 1, 0, Duration::from_secs(3600));
    let mut connection = pool.acquire().await.unwrap();
    // As `begin()` leaves it when its caller is dropped in the midst of it.
    sqlx::raw_sql(
        "BEGIN; INSERT INTO verifications (started_at, row_count, drift_count) VALUES (now(), 1, 0)",
    )
    .execute(&mut *connection)
    .await
    .unwrap();
    drop(connection);
    let mut connection = pool.acquire().await.unwrap();
    let open: bool = sqlx::query_scalar("SELECT txid_current_if_assigned() IS NOT NULL")
        .fetch_one(&mut *connection)
        .await
        .expect("the transaction before is over, failed or not");
    assert!(!open);
    let transaction = connection.begin().await.unwrap();
    transaction.rollback().await.unwrap();
    let mut watcher = database.connect().await;
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM verifications")
        .fetch_one(&mut watcher)
        .await
        .unwrap();
    assert_eq!(rows, 0);
}

#[tokio::test]
async fn a_connection_is_returned_without_a_warning_in_the_log_of_the_server() {
    let log = Log::default();
    let writer = log.clone();
    let warnings = tracing_subscriber::fmt()
        .with_max_level(Level::WARN)
        .with_writer(move || writer.clone())
        .finish();
    // Of this thread, which is all that this test runs on.
    let _guard = tracing::subscriber::set_default(warnings);
    let database = Database::new().await;
    let pool = open(&database, 1, 0, Duration::from_secs(3600));
    for _ in 0..3 {
        let mut connection = pool.acquire().await.unwrap();
        let transaction = connection.begin().await.unwrap();
        transaction.commit().await.unwrap();
    }
    // With the only connection in hand, all returns are done.
    let mut connection = pool.acquire().await.unwrap();
    assert_eq!(log.text(), "");
    // A warning would have been seen.
    let warning = sqlx::raw_sql("ROLLBACK").execute(&mut *connection);
    warning.await.unwrap();
    assert!(log.text().contains("no transaction in progress"));
}
