//! The servers, a database of its own for each test, and the looks at it.

use std::collections::BTreeSet;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use chrono::Utc;
use paxflow::apply::{self, Committer};
use paxflow::batch::VerdictCounts;
use paxflow::config::{Pooler, Secret};
use paxflow::db;
use paxflow::db::migrate::MIGRATOR;
use paxflow::db::revisions::file_name;
use paxflow::sandbox::{Options, Sandbox};
use serde_json::Value;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Connection, Row};
use tokio::sync::OnceCell;

use crate::events::deliver;

/// MarketData recomputed from the base tables.
const MARKET_TRUTH: &str = include_str!("../../fixtures/market_truth.sql");

/// Everything that has to be the same however the events came.
const RELATIONS: [&str; 10] = [
    "bookings",
    "flights",
    "flight_demand",
    "market_data",
    "market_fares",
    "market_activity",
    "market_data_history",
    "booking_curve",
    "market_capacity_by_cabin",
    "pending_bookings",
];

/// Whoever touches the template holds this lock: PostgreSQL copies a database only while nobody uses it.
const TEMPLATE_LOCK: i64 = 0x7061_7866;

/// A whole number that the caller of the tests may set.
pub fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| {
        value
            .parse()
            .unwrap_or_else(|_| panic!("{name} is a whole number"))
    })
}

/// Where the random choices of a test begin: another one in every run, unless PAXFLOW_TEST_SEED asks
/// for a run again.
pub fn seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    setting("PAXFLOW_TEST_SEED").unwrap_or(now.as_secs())
}

/// Where the servers of the tests are.
pub struct Servers {
    /// A database to connect to when making others.
    pub database_url: String,
    /// The broker.
    pub amqp_url: String,
}

/// The servers that all tests share: those of the environment, or private ones that live as long as
/// this process. A test that stops servers starts a sandbox of its own.
pub fn servers() -> &'static Servers {
    static SERVERS: OnceLock<Servers> = OnceLock::new();
    SERVERS.get_or_init(|| {
        let given = (std::env::var("DATABASE_URL"), std::env::var("AMQP_URL"));
        if let (Ok(database_url), Ok(amqp_url)) = given {
            return Servers {
                database_url,
                amqp_url,
            };
        }
        let (started, servers) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            runtime().block_on(async move {
                let sandbox = Sandbox::start(&Options::default())
                    .await
                    .expect("the sandbox starts");
                let servers = Servers {
                    database_url: sandbox.database_url().to_owned(),
                    amqp_url: sandbox.amqp_url().to_owned(),
                };
                started.send(servers).unwrap();
                std::future::pending::<()>().await;
                drop(sandbox);
            });
        });
        servers.recv().expect("the sandbox starts")
    })
}

/// A migrated database that goes away with this value.
pub struct Database {
    /// How to reach it.
    pub options: PgConnectOptions,
    name: String,
}

impl Database {
    /// Makes a fresh copy of the migrated template.
    pub async fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("paxflow_test_{}_{number}", std::process::id());
        let template = template().await;
        let mut admin = connect(&admin_options()).await;
        sqlx::query("SELECT pg_advisory_lock_shared($1)")
            .bind(TEMPLATE_LOCK)
            .execute(&mut admin)
            .await
            .unwrap();
        execute(
            &mut admin,
            &format!("CREATE DATABASE {name} TEMPLATE {template}"),
        )
        .await;
        admin.close().await.unwrap();
        Self {
            options: admin_options().database(&name),
            name,
        }
    }

    /// Opens a connection of the kind that a worker has.
    pub async fn connect(&self) -> PgConnection {
        connect(&self.options).await
    }

    /// Opens an applier with a connection of its own.
    pub async fn applier(&self) -> Applier {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let mut connection = self.connect().await;
        // Nothing here survives a crash of the server, so nothing has to wait for its disk.
        execute(&mut connection, "SET synchronous_commit = off").await;
        let id = format!("test-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        Applier {
            connection,
            committer: Committer::new(id, Utc::now(), Pooler::None),
        }
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let name = self.name.clone();
        // A thread, since a test drops this inside its own runtime, also while it fails.
        let dropped = std::thread::spawn(move || {
            runtime().block_on(async {
                let mut admin = connect(&admin_options()).await;
                drop_database(&mut admin, &name).await;
                admin.close().await.unwrap();
            });
        });
        if dropped.join().is_err() {
            eprintln!("database {} was left behind", self.name);
        }
    }
}

/// Drops a database and ends the sessions in it: PostgreSQL 12 has no `WITH (FORCE)`.
pub async fn drop_database(admin: &mut PgConnection, name: &str) {
    sqlx::query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1")
        .bind(name)
        .execute(&mut *admin)
        .await
        .unwrap();
    execute(admin, &format!("DROP DATABASE {name}")).await;
}

/// One replica of the worker's apply path.
pub struct Applier {
    /// Its connection.
    pub connection: PgConnection,
    /// Its name in `worker_progress`.
    pub committer: Committer,
}

impl Applier {
    /// Applies events as one batch.
    pub async fn try_apply(&mut self, events: &[Value]) -> sqlx::Result<VerdictCounts> {
        let deliveries: Vec<_> = events.iter().map(deliver).collect();
        let counts = apply::apply(&mut self.connection, &self.committer, &deliveries).await?;
        assert_eq!(
            counts.total(),
            events.len() as u64,
            "every delivery has one verdict: {counts:?}"
        );
        Ok(counts)
    }

    /// Applies events as one batch, which has to succeed.
    pub async fn apply(&mut self, events: &[Value]) -> VerdictCounts {
        self.try_apply(events).await.expect("the batch commits")
    }
}

/// Runs a statement without parameters.
pub async fn execute(connection: &mut PgConnection, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql))
        .execute(connection)
        .await
        .unwrap_or_else(|error| panic!("{sql}: {error}"));
}

/// Begins a transaction with a statement, whose locks last until the test ends it: the sessions of the program are ended
/// before that, once they have idled in one for some seconds.
pub fn holding(statement: &str) -> String {
    format!("SET idle_in_transaction_session_timeout = 0; BEGIN; {statement}")
}

/// How many sessions of the database wait for a lock: in others, which are copies, tables have the same numbers.
pub const WAITING: &str = "SELECT count(*) FROM pg_locks
    WHERE NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";

/// The rows of a query as lines of `a | b | c`; NULL is `-`.
pub async fn dump(connection: &mut PgConnection, sql: &str) -> String {
    // The simple protocol answers in text, whatever the types are.
    let rows = sqlx::raw_sql(AssertSqlSafe(sql))
        .fetch_all(connection)
        .await;
    let rows = rows.unwrap_or_else(|error| panic!("{sql}: {error}"));
    rows.iter().map(line).collect()
}

fn line(row: &PgRow) -> String {
    let cells: Vec<_> = (0..row.len())
        .map(|index| {
            row.try_get_raw(index)
                .unwrap()
                .as_str()
                .unwrap_or("-")
                .to_owned()
        })
        .collect();
    cells.join(" | ") + "\n"
}

/// The rows that differ between MarketData and its recompute, relation by relation: empty if exact.
pub async fn drift(connection: &mut PgConnection) -> String {
    let mut drift = String::new();
    for section in MARKET_TRUTH.split("-- relation: ").skip(1) {
        let (header, statement) = section.split_once('\n').unwrap();
        let (relation, key) = header.split_once(" key: ").unwrap();
        let truth = statement.trim().trim_end_matches(';');
        // Every column of the recompute is in the relation, and equal; NULL equals NULL.
        let sql = format!(
            "SELECT '{relation}', {key}, to_jsonb(truth) AS truth, to_jsonb(found) AS found
             FROM ({truth}) truth FULL JOIN {relation} found USING ({key})
             WHERE (to_jsonb(found) @> to_jsonb(truth)) IS NOT TRUE"
        );
        drift += &dump(connection, &sql).await;
    }
    drift
}

/// MarketData equals its recompute from bookings, flights and airports.
pub async fn assert_exact(connection: &mut PgConnection) {
    let drift = drift(connection).await;
    assert!(
        drift.is_empty(),
        "MarketData differs from its recompute:\n{drift}"
    );
}

/// Every row of every relation, freshness and audit marks aside: byte for byte what has to be the same.
pub async fn table_rows(connection: &mut PgConnection) -> String {
    let rows = RELATIONS.map(|relation| {
        format!(
            "SELECT '{relation}' AS relation,
                    (to_jsonb(r) - ARRAY['created_at', 'updated_at', 'last_event_at', 'source'])::text
                        COLLATE \"C\" AS line
             FROM {relation} r"
        )
    });
    dump(
        connection,
        &format!("{} ORDER BY relation, line", rows.join(" UNION ALL ")),
    )
    .await
}

/// Two results of [`table_rows`] are the same; if not, shows the rows that only one of them has.
pub fn assert_same_rows(found: &str, expected: &str) {
    let only_in = |one: &str, other: &str| {
        let other: BTreeSet<_> = other.lines().collect();
        one.lines()
            .filter(|line| !other.contains(line))
            .collect::<Vec<_>>()
            .join("\n")
    };
    assert!(
        found == expected,
        "the tables differ\nfound:\n{}\nexpected:\n{}",
        only_in(found, expected),
        only_in(expected, found)
    );
}

/// The migrated database that the others are copied from. It stays on the server for the next run of
/// the same schema.
async fn template() -> &'static str {
    static TEMPLATE: OnceCell<String> = OnceCell::const_new();
    TEMPLATE.get_or_init(make_template).await
}

async fn make_template() -> String {
    let schema: Vec<String> = db::migrate::MIGRATOR
        .iter()
        .map(|migration| format!("{:02x?}", migration.checksum))
        .collect();
    let mut admin = connect(&admin_options()).await;
    let name: String = sqlx::query_scalar("SELECT 'paxflow_template_' || md5($1)")
        .bind(schema.concat())
        .fetch_one(&mut admin)
        .await
        .unwrap();
    sqlx::query("SELECT pg_advisory_lock($1)")
        .bind(TEMPLATE_LOCK)
        .execute(&mut admin)
        .await
        .unwrap();
    let exists: bool =
        sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
            .bind(&name)
            .fetch_one(&mut admin)
            .await
            .unwrap();
    if !exists {
        execute(&mut admin, &format!("CREATE DATABASE {name}")).await;
    }
    db::migrate::migrate(&admin_options().database(&name))
        .await
        .expect("the schema migrates");
    admin.close().await.unwrap();
    name
}

fn admin_options() -> PgConnectOptions {
    db::options(&Secret::new(servers().database_url.as_str()), "test").unwrap()
}

async fn connect(options: &PgConnectOptions) -> PgConnection {
    db::connect(options).await.expect("the database answers")
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

/// A metric of an exposition, added up over its labels.
pub fn sum_of(metrics: &str, name: &str) -> f64 {
    let samples = metrics.lines().filter_map(|line| line.rsplit_once(' '));
    samples
        .filter(|(series, _)| series.split('{').next() == Some(name))
        .map(|(_, value)| value.parse::<f64>().unwrap())
        .sum()
}

/// The revisions of this program and further ones, as files.
pub fn with_revisions(further: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for file in MIGRATOR.iter() {
        std::fs::write(dir.path().join(file_name(file)), file.sql.as_str()).unwrap();
    }
    for (name, sql) in further {
        std::fs::write(dir.path().join(name), sql).unwrap();
    }
    dir
}
