//! Behind PgBouncer in transaction mode: the worker works, and migrations ask for a direct URL.

use std::fs::File;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use chrono::Utc;
use paxflow::config::{PoolConfig, Pooler, Secret};
use paxflow::{apply, db};
use serde_json::json;
use sqlx::postgres::{PgConnection, PgPool};
use sqlx::{Connection, Row};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::boot::{fails, with_empty_database};
use crate::events::{booking, deliver};
use crate::process::{Place, Worker, generated, place, ran, until};
use crate::support::{Database, servers};

const EVENTS: u64 = 6_000;
/// Sessions that the pooler has for a database: fewer than the workers have connections.
const SESSIONS: i64 = 3;
/// How soon a worker commits again after the return of what was away.
const BACK_WITHIN: Duration = Duration::from_secs(15);

/// A private PgBouncer before the PostgreSQL of the tests; gone with this value.
struct PgBouncer {
    child: Child,
    directory: TempDir,
    credentials: String,
    port: u16,
}

impl PgBouncer {
    async fn start() -> Self {
        let url = servers().database_url.as_str();
        let (credentials, server) = url.split_once('@').expect("the URL names a user");
        let (_, credentials) = credentials.split_once("://").unwrap();
        let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
        let server: sqlx::postgres::PgConnectOptions =
            format!("postgres://{server}").parse().unwrap();
        let port = free_port();
        let directory = tempfile::tempdir().unwrap();
        // PgBouncer refuses to run as root and becomes somebody else, who has to read this.
        std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let users = directory.path().join("users");
        std::fs::write(&users, format!("\"{user}\" \"{password}\"\n")).unwrap();
        let auth = if password.is_empty() {
            "trust"
        } else {
            "scram-sha-256"
        };
        let settings = format!(
            "[databases]\n* = host={} port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = {auth}\nauth_file = {}\npool_mode = transaction\n\
             default_pool_size = {SESSIONS}\n",
            server.get_host(),
            server.get_port(),
            users.display()
        );
        std::fs::write(directory.path().join("settings"), settings).unwrap();
        let mut bouncer = Self {
            child: spawn(directory.path()),
            directory,
            credentials: credentials.to_owned(),
            port,
        };
        bouncer.answers().await;
        bouncer
    }

    /// The same place by way of the pooler.
    fn before(&self, place: &Place) -> Place {
        let (_, database) = place.database_url.rsplit_once('/').unwrap();
        Place {
            database_url: format!(
                "postgres://{}@127.0.0.1:{}/{database}",
                self.credentials, self.port
            ),
            ..place.clone()
        }
    }

    async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }

    async fn start_again(&mut self) {
        self.child = spawn(self.directory.path());
        self.answers().await;
    }

    async fn answers(&mut self) {
        until("PgBouncer answers", async || {
            if let Some(status) = self.child.try_wait().unwrap() {
                let log = std::fs::read_to_string(self.directory.path().join("log"));
                panic!("PgBouncer ended, {status}: {}", log.unwrap());
            }
            let address = ("127.0.0.1", self.port);
            tokio::net::TcpStream::connect(address).await.ok()
        })
        .await;
    }
}

fn spawn(directory: &Path) -> Child {
    let log = File::create(directory.join("log")).unwrap();
    let mut command = Command::new("sh");
    command
        // Debian keeps it out of the PATH of all but root.
        .args(["-c", "PATH=$PATH:/usr/sbin; exec pgbouncer \"$@\"", "sh"])
        .arg(directory.join("settings"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .kill_on_drop(true);
    let is_root = std::fs::metadata("/proc/self").unwrap().uid() == 0;
    if is_root {
        command.args(["-u", "nobody"]);
    }
    let found = std::process::Command::new("sh")
        .args(["-c", "PATH=$PATH:/usr/sbin; command -v pgbouncer"])
        .stdout(Stdio::null())
        .status();
    assert!(
        found.unwrap().success(),
        "PgBouncer is not installed: apt-get install pgbouncer, or deploy/setup --tests"
    );
    command.spawn().unwrap()
}

/// Below Linux's ephemeral range: while PgBouncer is down, its port must not be lent to whoever tries to reach it.
pub fn free_port() -> u16 {
    // No two tests try the same one.
    static TRIED: AtomicU16 = AtomicU16::new(0);
    let first = 20_000 + (std::process::id() % 10_000) as u16;
    loop {
        let port = first + TRIED.fetch_add(1, Ordering::Relaxed);
        assert!(port < 32_768, "no port is free");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Starts `paxflow run` as one has to behind a pooler.
fn run(place: &Place) -> Command {
    let mut command = place.paxflow(&["run"]);
    command.env("DATABASE_POOLER", "transaction");
    command
}

async fn worker(place: &Place) -> Worker {
    let worker = Worker::start(run(place)).await;
    worker.ready().await;
    worker
}

fn pool(place: &Place, pooler: Pooler) -> PgPool {
    let url = Secret::new(place.database_url.as_str());
    let config = PoolConfig {
        size: 1,
        max_overflow: 0,
        recycle: Duration::from_secs(3600),
        pooler,
    };
    db::pool::open(pooler.options(&url, "test").unwrap(), config)
}

async fn sessions_of_workers(watcher: &mut PgConnection) -> i64 {
    sqlx::query_scalar(
        "SELECT count(*) FROM pg_stat_activity
         WHERE application_name = 'paxflow worker' AND datname = current_database()",
    )
    .fetch_one(watcher)
    .await
    .unwrap()
}

#[tokio::test]
async fn no_loss_and_exact_rollup_with_three_workers_though_the_pooler_is_killed() {
    let database = Database::new().await;
    let direct = place(&database);
    let mut bouncer = PgBouncer::start().await;
    let pooled = bouncer.before(&direct);
    let (one, two, three) = tokio::join!(worker(&pooled), worker(&pooled), worker(&pooled));
    let feeding = tokio::spawn({
        let direct = direct.clone();
        async move { direct.publish(&generated(EVENTS, 31, 0.01)).await }
    });
    direct.committed_at_least(1).await;
    bouncer.kill().await;
    for worker in [&one, &two, &three] {
        let reason = worker.unready().await;
        assert!(reason.starts_with("database: "), "{reason}");
    }
    feeding.await.unwrap();
    let stood = direct.committed().await.0;
    assert!(stood < EVENTS as i64, "the fault came in mid-stream");
    bouncer.start_again().await;
    let back = Instant::now();
    direct.committed_at_least(stood + 1).await;
    for worker in [&one, &two, &three] {
        worker.ready().await;
    }
    assert!(back.elapsed() < BACK_WITHIN, "{:?}", back.elapsed());
    let sessions = sessions_of_workers(&mut direct.connect().await).await;
    assert!((1..=SESSIONS).contains(&sessions), "{sessions} sessions");

    one.stop().await;
    two.stop().await;
    direct.drained().await;
    three.stop().await;
    direct.assert_drained().await;
    direct.assert_exact().await;
    direct.assert_holds(&generated(EVENTS, 31, 0.01)).await;
    let (received, settled) = direct.committed().await;
    assert!(
        received == settled && received > EVENTS as i64,
        "{received} received, {settled} settled"
    );
}

#[tokio::test]
async fn a_transaction_has_the_settings_of_a_session_and_leaves_none_behind() {
    let database = Database::new().await;
    let direct = place(&database);
    let bouncer = PgBouncer::start().await;
    let settings = "SELECT string_agg(name || ' ' || setting, ', ' ORDER BY name) FROM pg_settings
                    WHERE name ~ 'plan_cache_mode|enable_seqscan|^jit$|TimeZone|client_min_messages'
                       OR name = 'idle_in_transaction_session_timeout'";
    let (mut seen, mut after) = (Vec::new(), Vec::new());
    for (place, pooler) in [
        (&direct, Pooler::None),
        (&bouncer.before(&direct), Pooler::Transaction),
    ] {
        let pool = pool(place, pooler);
        let mut connection = pool.acquire().await.unwrap();
        let mut transaction = pooler.begin(&mut connection).await.unwrap();
        let row = pooler.query(settings).fetch_one(&mut *transaction).await;
        seen.push(row.unwrap().get::<String, _>(0));
        transaction.commit().await.unwrap();
        let row = sqlx::raw_sql(settings).fetch_one(&mut *connection).await;
        after.push(row.unwrap().get::<String, _>(0));
    }
    assert_eq!(seen[0], seen[1]);
    assert!(seen[1].contains("enable_seqscan off"), "{}", seen[1]);
    // The next transaction of this session may be anybody's.
    assert!(after[1].contains("enable_seqscan on"), "{}", after[1]);
    assert!(after[1].contains("plan_cache_mode auto"), "{}", after[1]);
}

#[tokio::test]
async fn bookings_are_copied_through_a_pooler_too() {
    const BOOKINGS: u64 = 150;
    let database = Database::new().await;
    let bouncer = PgBouncer::start().await;
    let pool = pool(&bouncer.before(&place(&database)), Pooler::Transaction);
    let worker = apply::Committer::new("copying".to_owned(), Utc::now(), Pooler::Transaction);
    let event = |key| deliver(&booking(json!({ "booking_id": format!("B{key}") })));
    let batch: Vec<_> = (0..BOOKINGS).map(event).collect();
    let mut connection = pool.acquire().await.unwrap();
    for (applied, duplicate) in [(BOOKINGS, 0), (0, BOOKINGS)] {
        let counts = apply::apply(&mut connection, &worker, &batch)
            .await
            .unwrap();
        assert_eq!((counts.applied, counts.duplicate), (applied, duplicate));
    }
}

#[tokio::test]
async fn migrations_ask_for_a_direct_url() {
    with_empty_database("pgbouncer", async |direct| {
        let bouncer = PgBouncer::start().await;
        let pooled = bouncer.before(&direct);
        let (_, said) = fails(run(&pooled)).await;
        assert!(said.contains("DATABASE_DIRECT_URL"), "{said}");
        assert!(said.contains("revision 0 of"), "{said}");
        let tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'";
        assert_eq!(direct.number(tables).await, 0);

        let mut command = run(&pooled);
        command.env("DATABASE_DIRECT_URL", &direct.database_url);
        let migrating = Worker::start(command).await;
        migrating.ready().await;
        migrating.stop().await;
        assert!(direct.number(tables).await > 0);

        // What is up to date needs no direct URL, with other sessions in the pooler's hands.
        let worker = worker(&pooled).await;
        direct.publish(&generated(100, 32, 0.0)).await;
        direct.committed_at_least(100).await;
        let log = worker.stop().await;
        assert!(log.contains("no DATABASE_DIRECT_URL"), "{log}");
    })
    .await;
}

#[tokio::test]
async fn commands_ask_for_a_direct_url() {
    let database = Database::new().await;
    let direct = place(&database);
    let bouncer = PgBouncer::start().await;
    direct.declare().await;
    let pooled = bouncer.before(&direct);
    for (command, failure, well) in [("verify", 2, "exact: "), ("doctor", 1, "nothing found")] {
        let command = || {
            let mut command = pooled.paxflow(&[command]);
            command.env("DATABASE_POOLER", "transaction");
            command
        };
        let (code, _, said) = ran(command()).await;
        assert_eq!(code, failure, "{said}");
        assert!(said.contains("DATABASE_DIRECT_URL is not set"), "{said}");
        let mut with_direct = command();
        with_direct.env("DATABASE_DIRECT_URL", &direct.database_url);
        let (code, said, err) = ran(with_direct).await;
        assert!(code == 0 && said.contains(well), "{said}{err}");
    }
}

#[tokio::test]
async fn a_pooler_that_nobody_spoke_of_is_named() {
    let database = Database::new().await;
    let bouncer = PgBouncer::start().await;
    let pooled = bouncer.before(&place(&database));
    let (_, said) = fails(pooled.paxflow(&["run"])).await;
    assert!(said.contains("DATABASE_POOLER=transaction"), "{said}");
}

#[tokio::test]
async fn wrong_credentials_and_names_end_the_boot_also_behind_a_pooler() {
    let database = Database::new().await;
    let bouncer = PgBouncer::start().await;
    let pooled = bouncer.before(&place(&database));
    let (user, host) = pooled.database_url.rsplit_once('@').unwrap();
    let mut cases = vec![(format!("{user}@{host}_no_such"), "does not exist")];
    if let Some((scheme, password)) = user.rsplit_once(':')
        && !password.starts_with("//")
    {
        cases.push((format!("{scheme}:canary-secret@{host}"), "authentication"));
    }
    for (database_url, expected) in cases {
        let place = Place {
            database_url,
            ..pooled.clone()
        };
        let (_, said) = fails(run(&place)).await;
        assert!(said.contains(expected), "{said}");
        assert!(!said.contains("canary-secret"), "{said}");
    }
}

#[tokio::test]
async fn named_statements_of_another_connection_are_what_a_pooler_gives() {
    let database = Database::new().await;
    let bouncer = PgBouncer::start().await;
    let pool = pool(&bouncer.before(&place(&database)), Pooler::Transaction);
    let mut outcomes = Vec::new();
    let mut connections = Vec::new();
    for _ in 0..2 {
        // Each names its first statement the same, in the one session that is free.
        let mut connection = PgConnection::connect_with(&pool.connect_options())
            .await
            .unwrap();
        let mut transaction = connection.begin().await.unwrap();
        outcomes.push(sqlx::query("SELECT 1").execute(&mut *transaction).await);
        transaction.rollback().await.unwrap();
        connections.push(connection);
    }
    assert!(outcomes[0].is_ok());
    let error = outcomes.remove(1).unwrap_err();
    assert_eq!(db::fault_of(&error), db::Fault::Permanent);
    let said = format!("{:#}", db::explain(error));
    assert!(said.contains("DATABASE_POOLER=transaction"), "{said}");
}
