//! Least privilege: what the roles of deploy/roles.sql may do, and everything they may not.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use paxflow::broker::Subscription;
use paxflow::config::Secret;
use paxflow::{audit, db};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};

use crate::boot::fails;
use crate::process::{Place, Worker, database_url, generated, place, ran, until};
use crate::support::{Database, dump, execute};

pub const ROLES: &str = include_str!("../../deploy/roles.sql");
const PASSWORD: &str = "canary-secret";
/// SQLSTATE of what a role may not do.
const DENIED: &str = "42501";

/// Every relation, with what worker and analyst may do. Whoever adds a relation has to decide.
pub const RIGHTS: &str = "\
_sqlx_migrations | SELECT | -
airports | SELECT | SELECT
booking_curve | SELECT | SELECT
bookings | INSERT SELECT UPDATE | -
flight_demand | DELETE INSERT SELECT UPDATE | -
flights | INSERT SELECT UPDATE | SELECT
market_activity | SELECT | SELECT
market_capacity_by_cabin | SELECT | SELECT
market_data | SELECT | SELECT
market_data_history | SELECT | SELECT
market_fares | SELECT | SELECT
pending_bookings | SELECT | SELECT
quarantined_events | DELETE INSERT SELECT UPDATE | -
reference_data | SELECT | -
user_api_keys | - | -
user_sessions | - | -
users | - | -
verifications | INSERT SELECT | -
worker_progress | INSERT SELECT UPDATE | -
";

/// What nobody but the owner and administrators may do.
const DENIED_TO_BOTH: [&str; 22] = [
    "CREATE TABLE public.mine (id integer)",
    "CREATE VIEW public.mine AS SELECT 1",
    "CREATE FUNCTION public.mine() RETURNS integer LANGUAGE sql AS 'SELECT 1'",
    "CREATE SCHEMA mine",
    "CREATE TEMPORARY TABLE mine (id integer)",
    "CREATE INDEX ON flights (airline)",
    "ALTER TABLE flights ADD COLUMN mine integer",
    "ALTER TABLE airports DISABLE TRIGGER ALL",
    "DROP TABLE bookings",
    "DROP VIEW market_data",
    "TRUNCATE flight_demand",
    "TRUNCATE bookings, flights",
    "DELETE FROM bookings",
    "UPDATE airports SET timezone = NULL",
    "SELECT * FROM users",
    "SELECT password_hash FROM users",
    "SELECT secret_sha256 FROM user_api_keys",
    "SELECT token_sha256 FROM user_sessions",
    "INSERT INTO users (email, display_name, role) VALUES ('me@example.com', 'me', 'admin')",
    "UPDATE _sqlx_migrations SET checksum = ''",
    "CREATE ROLE mine",
    "COPY flights TO PROGRAM 'cat'",
];

/// What only the worker may do, tried by the analyst.
const DENIED_TO_ANALYST: [&str; 12] = [
    "SELECT * FROM bookings",
    "SELECT booking_id FROM bookings",
    "SELECT passenger_email FROM bookings LIMIT 0",
    "SELECT body FROM quarantined_events",
    "SELECT * FROM flight_demand",
    "SELECT * FROM worker_progress",
    "SELECT * FROM verifications",
    "SELECT * FROM _sqlx_migrations",
    "INSERT INTO flights SELECT * FROM flights",
    "UPDATE flights SET status = 'cancelled'",
    "DELETE FROM flights",
    "BEGIN; LOCK TABLE flights IN EXCLUSIVE MODE",
];

/// A login of one of the roles, dropped by [`Login::drop_from`].
pub struct Login {
    name: String,
}

impl Login {
    pub async fn of(role: &str, admin: &mut PgConnection) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("paxflow_login_{}_{number}", std::process::id());
        let create = format!("CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}' IN ROLE {role}");
        execute(admin, &create).await;
        Self { name }
    }

    fn options(&self, database: &Database) -> PgConnectOptions {
        let options = database.options.clone();
        options.username(&self.name).password(PASSWORD)
    }

    pub fn place(&self, database: &Database) -> Place {
        let url = database_url(database.options.get_database().unwrap());
        let (_, host) = url.split_once('@').unwrap();
        Place {
            database_url: format!("postgres://{}:{PASSWORD}@{host}", self.name),
            ..place(database)
        }
    }

    async fn connect(&self, database: &Database) -> PgConnection {
        db::connect(&self.options(database)).await.unwrap()
    }

    /// It owns nothing, or this fails.
    pub async fn drop_from(self, admin: &mut PgConnection) {
        execute(admin, &format!("DROP ROLE {}", self.name)).await;
    }
}

async fn sqlstate(connection: &mut PgConnection, sql: &str) -> String {
    let result = sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await;
    match result {
        Ok(_) => "it succeeded".to_owned(),
        Err(error) => match error.as_database_error().and_then(|error| error.code()) {
            Some(code) => code.into_owned(),
            None => error.to_string(),
        },
    }
}

async fn assert_denied(connection: &mut PgConnection, statements: &[&str]) {
    for sql in statements {
        assert_eq!(sqlstate(connection, sql).await, DENIED, "{sql}");
    }
}

pub async fn rights(admin: &mut PgConnection) -> String {
    let rights = |role: &str| {
        format!(
            "coalesce((SELECT string_agg(p, ' ' ORDER BY p)
                       FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER']) p
                       WHERE has_table_privilege('{role}', c.oid, p)), '-')"
        )
    };
    let sql = format!(
        "SELECT c.relname, {}, {}
         FROM pg_class c
         WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
         ORDER BY c.relname COLLATE \"C\"",
        rights("paxflow_worker"),
        rights("paxflow_analyst")
    );
    dump(admin, &sql).await
}

/// A database without a schema.
pub async fn empty() -> (Database, PgConnection) {
    let database = Database::new().await;
    let mut admin = database.connect().await;
    execute(
        &mut admin,
        "DROP SCHEMA public CASCADE; CREATE SCHEMA public",
    )
    .await;
    (database, admin)
}

#[tokio::test]
async fn every_relation_has_the_rights_decided_for_it() {
    let database = Database::new().await;
    let mut admin = database.connect().await;
    execute(&mut admin, ROLES).await;
    assert_eq!(rights(&mut admin).await, RIGHTS);
    // What was given by hand, or by an older file, ends with the next run.
    execute(&mut admin, "GRANT ALL ON users TO paxflow_worker, PUBLIC").await;
    execute(&mut admin, ROLES).await;
    assert_eq!(rights(&mut admin).await, RIGHTS);
    let sequences = "SELECT relname FROM pg_class WHERE relkind = 'S' AND relnamespace = 'public'::regnamespace
                     AND (has_sequence_privilege('paxflow_worker', oid, 'USAGE, SELECT, UPDATE')
                          OR has_sequence_privilege('paxflow_analyst', oid, 'USAGE, SELECT, UPDATE'))";
    assert_eq!(dump(&mut admin, sequences).await, "");
}

#[tokio::test]
async fn rights_come_with_the_schema_when_the_roles_are_there_first() {
    let (database, mut admin) = empty().await;
    execute(&mut admin, ROLES).await;
    let deploy = Login::of("paxflow_owner", &mut admin).await;
    db::migrate::migrate(&deploy.options(&database))
        .await
        .unwrap();
    assert_eq!(rights(&mut admin).await, RIGHTS);
    deploy.drop_from(&mut admin).await;
}

/// Such as by an upgrade whose connection was lost between its revisions and the rights.
#[tokio::test]
async fn rights_that_are_missing_come_with_an_upgrade_that_has_nothing_else_to_do() {
    let (database, mut admin) = empty().await;
    execute(&mut admin, ROLES).await;
    let deploy = Login::of("paxflow_owner", &mut admin).await;
    let worker = Login::of("paxflow_worker", &mut admin).await;
    db::migrate::migrate(&deploy.options(&database))
        .await
        .unwrap();
    // Somebody else's, which the login may not give away.
    execute(
        &mut admin,
        "CREATE TABLE public.mine (id integer); REVOKE ALL ON bookings FROM paxflow_worker",
    )
    .await;
    let upgrade = ["db", "migrate", "upgrade"];
    for (login, are_back) in [(&worker, false), (&deploy, true)] {
        let (code, out, err) = ran(login.place(&database).paxflow(&upgrade)).await;
        assert_eq!((code, err.as_str()), (0, ""), "{out}");
        assert!(out.contains("nothing to do"), "{out}");
        let worker_may = "SELECT has_table_privilege('paxflow_worker', 'bookings', 'INSERT')";
        let expected = if are_back { "t\n" } else { "f\n" };
        assert_eq!(dump(&mut admin, worker_may).await, expected);
    }
    execute(&mut admin, "DROP TABLE public.mine").await;
    assert_eq!(rights(&mut admin).await, RIGHTS);
    for login in [deploy, worker] {
        gone(&mut admin, &login).await;
        login.drop_from(&mut admin).await;
    }
}

/// Who migrates at the start may be another login than who commits batches.
#[tokio::test]
async fn a_frozen_copy_is_ended_by_the_login_that_copies() {
    let database = Database::new().await;
    let mut admin = database.connect().await;
    execute(&mut admin, ROLES).await;
    let deploy = Login::of("paxflow_owner", &mut admin).await;
    let login = Login::of("paxflow_worker", &mut admin).await;
    let mut command = login.place(&database).paxflow(&["run"]);
    command.env("DATABASE_DIRECT_URL", &deploy.place(&database).database_url);
    let worker = Worker::start(command).await;
    worker.ready().await;
    let options = login.options(&database).application_name("paxflow worker");
    let mut frozen = options.connect().await.unwrap();
    let pid = dump(&mut frozen, "SELECT pg_backend_pid()").await;
    let copy = include_str!("../../src/apply/copy_bookings.sql");
    let held = frozen.copy_in_raw(copy).await.unwrap();
    let left = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}");
    until("its session is ended", async || {
        (dump(&mut admin, &left).await == "0\n").then_some(())
    })
    .await;
    drop(held);
    worker.stop().await;
    for login in [deploy, login] {
        gone(&mut admin, &login).await;
        login.drop_from(&mut admin).await;
    }
}

#[tokio::test]
async fn a_migration_leaves_rights_alone_where_the_roles_are_not_used() {
    let (used, mut admin) = empty().await;
    execute(&mut admin, ROLES).await;
    let (unused, mut other) = empty().await;
    // As it is in a new database before PostgreSQL 15.
    execute(&mut other, "GRANT ALL ON SCHEMA public TO PUBLIC").await;
    db::migrate::migrate(&unused.options).await.unwrap();
    let owned = "SELECT count(*) FROM pg_class WHERE relowner = 'paxflow_owner'::regrole";
    assert_eq!(dump(&mut other, owned).await, "0\n");
    assert!(!rights(&mut other).await.contains("SELECT"));
    drop(used);
}

#[tokio::test]
async fn a_worker_works_and_proves_itself_without_any_other_right() {
    let database = Database::new().await;
    let mut admin = database.connect().await;
    execute(&mut admin, ROLES).await;
    let login = Login::of("paxflow_worker", &mut admin).await;
    let place = login.place(&database);
    let worker = place.worker().await;
    let events = generated(1500, 11, 0.05);
    place.publish(&events).await;
    place.committed_at_least(events.len() as i64).await;
    let log = worker.stop().await;
    assert!(!log.contains(PASSWORD), "{log}");
    place.assert_holds(&events).await;
    place.assert_exact().await;

    let (code, out, err) = ran(place.paxflow(&["verify"])).await;
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    let recorded = "SELECT count(*) FROM verifications";
    assert_eq!(dump(&mut admin, recorded).await, "1\n");
    execute(
        &mut admin,
        "UPDATE flight_demand SET total_revenue = total_revenue + 0.01",
    )
    .await;
    let (code, out, err) = ran(place.paxflow(&["verify", "--repair"])).await;
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    for command in [
        &["status"][..],
        &["quarantine", "list"],
        &["quarantine", "replay", "--dry-run"],
        &["quarantine", "discard", "1", "--why", "a test"],
    ] {
        // What still breaks a rule makes a replay exit 1, without an error.
        let (_, out, err) = ran(place.paxflow(command)).await;
        assert_eq!(err, "", "{command:?}");
        assert_ne!(out, "", "{command:?}");
    }
    let mut connection = login.connect(&database).await;
    let forgotten = paxflow::apply::forget(&mut connection, 1, 1000).await;
    assert_eq!(forgotten.unwrap(), 0, "it was settled today");
    drop(connection);

    let mut connection = login.connect(&database).await;
    assert_denied(&mut connection, &DENIED_TO_BOTH).await;
    assert_denied(
        &mut connection,
        &["DELETE FROM flights", "SET ROLE paxflow_owner"],
    )
    .await;
    drop(connection);
    gone(&mut admin, &login).await;
    login.drop_from(&mut admin).await;
}

#[tokio::test]
async fn a_worker_that_is_refused_beside_its_batches_says_so() {
    let database = Database::new().await;
    let mut admin = database.connect().await;
    execute(&mut admin, ROLES).await;
    let login = Login::of("paxflow_worker", &mut admin).await;
    let mut command = place(&database).paxflow(&["run"]);
    command
        .env("DATABASE_DIRECT_URL", login.place(&database).database_url)
        .env("PAXFLOW_VERIFY_EVERY_SECS", "1");
    let worker = Worker::start(command).await;
    until("it has verified", async || {
        let verified = dump(&mut admin, "SELECT count(*) > 0 FROM verifications").await;
        (verified == "t\n").then_some(())
    })
    .await;
    let change = format!(
        "ALTER ROLE {} PASSWORD 'another';
         SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE datname = current_database() AND application_name = 'paxflow upkeep'",
        login.name
    );
    execute(&mut admin, &change).await;
    until("it says so", async || {
        let log = worker.log();
        (log.contains("the upkeep failed") && log.contains("authentication")).then_some(())
    })
    .await;
    worker.stop().await;
    login.drop_from(&mut admin).await;
}

#[tokio::test]
async fn an_analyst_reads_the_market_and_no_passenger() {
    let database = Database::new().await;
    let mut applier = database.applier().await;
    let flight = crate::events::flight(serde_json::json!({}));
    let booking = crate::events::booking(serde_json::json!({}));
    applier.apply(&[flight, booking]).await;
    let mut admin = database.connect().await;
    execute(&mut admin, ROLES).await;
    let login = Login::of("paxflow_analyst", &mut admin).await;
    let mut connection = login.connect(&database).await;
    for truth in audit::market_truth() {
        let count = format!("SELECT count(*) FROM {}", truth.relation);
        assert_eq!(
            dump(&mut connection, &count).await,
            dump(&mut admin, &count).await
        );
    }
    for relation in [
        "flights",
        "airports",
        "market_data",
        "market_fares",
        "booking_curve",
    ] {
        let filled = format!("SELECT count(*) > 0 FROM {relation}");
        assert_eq!(dump(&mut connection, &filled).await, "t\n", "{relation}");
    }
    let personal = "SELECT table_name, column_name FROM information_schema.columns
                    WHERE table_schema = 'public' AND column_name ~ 'passenger|email|phone|password|secret|token|body'";
    assert_eq!(dump(&mut connection, personal).await, "");
    assert_denied(&mut connection, &DENIED_TO_BOTH).await;
    assert_denied(&mut connection, &DENIED_TO_ANALYST).await;
    drop(connection);
    gone(&mut admin, &login).await;
    login.drop_from(&mut admin).await;
}

#[tokio::test]
async fn neither_reads_the_secrets_of_the_other() {
    let database = Database::new().await;
    let mut admin = database.connect().await;
    execute(&mut admin, ROLES).await;
    let worker = Login::of("paxflow_worker", &mut admin).await;
    let analyst = Login::of("paxflow_analyst", &mut admin).await;
    for (one, other, role) in [
        (&worker, &analyst, "paxflow_analyst"),
        (&analyst, &worker, "paxflow_worker"),
    ] {
        let mut mine = one.connect(&database).await;
        let mut theirs = other.connect(&database).await;
        let denied = [
            "SELECT rolpassword FROM pg_authid",
            "SELECT passwd FROM pg_shadow",
            "SELECT setconfig FROM pg_db_role_setting, pg_read_file('postgresql.conf')",
            "SELECT umoptions FROM pg_user_mapping",
            &format!("ALTER ROLE {} PASSWORD 'mine'", other.name),
            &format!("SET ROLE {}", other.name),
            &format!("SET SESSION AUTHORIZATION {}", other.name),
            &format!("GRANT {role} TO {}", one.name),
            "SET ROLE paxflow_owner",
        ];
        assert_denied(&mut mine, &denied).await;
        // Another's statement may hold a value.
        execute(&mut theirs, "SELECT 1 AS canary").await;
        let seen = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE usename = '{}' AND query LIKE '%canary'",
            other.name
        );
        assert_eq!(
            dump(&mut admin, &seen).await,
            "1\n",
            "the administrator sees it"
        );
        assert_eq!(dump(&mut mine, &seen).await, "0\n");
        let shown = format!(
            "SELECT passwd FROM pg_user WHERE usename = '{}'",
            other.name
        );
        assert_eq!(dump(&mut mine, &shown).await, "********\n");
        for (connection, login) in [(mine, one), (theirs, other)] {
            connection.close().await.unwrap();
            gone(&mut admin, login).await;
        }
    }
    for login in [worker, analyst] {
        login.drop_from(&mut admin).await;
    }
}

#[tokio::test]
async fn nobody_else_enters_the_database() {
    let database = Database::new().await;
    let mut admin = database.connect().await;
    execute(&mut admin, ROLES).await;
    let stranger = Login::of("pg_monitor", &mut admin).await;
    let refused = db::connect(&stranger.options(&database)).await.unwrap_err();
    let code = refused.as_database_error().and_then(|error| error.code());
    assert_eq!(code.as_deref(), Some(DENIED), "{refused}");
    stranger.drop_from(&mut admin).await;
}

#[tokio::test]
async fn a_worker_before_its_migration_asks_for_the_owner_in_one_line() {
    let (database, mut admin) = empty().await;
    execute(&mut admin, ROLES).await;
    let login = Login::of("paxflow_worker", &mut admin).await;
    let place = login.place(&database);
    let mut worker = Worker::spawn(place.paxflow(&["run"]));
    let status = worker.exit_within(Duration::from_secs(30)).await;
    let log = worker.log();
    assert!(!status.success(), "{log}");
    let said: Vec<_> = log.lines().filter(|line| !line.starts_with('{')).collect();
    assert_eq!(said.len(), 1, "{log}");
    assert!(
        said[0].contains("revision 0 of") && said[0].contains("paxflow db migrate upgrade"),
        "{log}"
    );
    assert!(
        said[0].contains("paxflow_owner") && !log.contains(PASSWORD),
        "{log}"
    );
    gone(&mut admin, &login).await;
    login.drop_from(&mut admin).await;
}

#[tokio::test]
async fn who_lacks_a_right_is_told_which_and_a_worker_before_it_takes_a_delivery() {
    let database = Database::new().await;
    let mut admin = database.connect().await;
    execute(&mut admin, ROLES).await;
    let revoke = "REVOKE INSERT ON bookings FROM paxflow_worker;
                  REVOKE INSERT ON verifications FROM paxflow_worker";
    execute(&mut admin, revoke).await;
    let login = Login::of("paxflow_worker", &mut admin).await;
    let place = login.place(&database);
    place.publish(&generated(1, 41, 0.0)).await;
    let (_, said) = fails(place.paxflow(&["run"])).await;
    let lacks = format!("the role {} lacks INSERT on bookings: GRANT it", login.name);
    assert!(said.contains(&lacks), "{said}");
    let url = Secret::new(&place.amqp_url);
    let mut subscription = Subscription::open(&url, &place.topology, 1).await.unwrap();
    let delivery = subscription.next().await.unwrap();
    assert_eq!(delivery.headers.get("x-delivery-count"), None);
    subscription.close().await;
    let downgrade = ["db", "migrate", "downgrade", "4", "--yes"];
    let (code, _, err) = ran(place.paxflow(&downgrade)).await;
    let remedy = "run `paxflow db migrate downgrade 4` as its owner or a member of paxflow_owner: permission denied";
    assert!(code == 1 && err.contains(remedy), "{err}");
    // Without what batches do not need a worker starts.
    execute(&mut admin, "GRANT INSERT ON bookings TO paxflow_worker").await;
    place.worker().await.stop().await;
    gone(&mut admin, &login).await;
    login.drop_from(&mut admin).await;
}

#[tokio::test]
async fn an_administrator_without_superuser_rights_is_enough() {
    // The roles are there already, for another database.
    let (_other, mut admin) = empty().await;
    execute(&mut admin, ROLES).await;
    let (database, mut admin) = empty().await;
    let manager = Login::of("pg_monitor", &mut admin).await;
    let name = &manager.name;
    let database_name = database.options.get_database().unwrap();
    execute(&mut admin, &format!("ALTER ROLE {name} CREATEROLE")).await;
    // From PostgreSQL 16 on he may join only a role that he administers, such as one that he made.
    let version = "SELECT current_setting('server_version_num')::integer >= 160000";
    if dump(&mut admin, version).await == "t\n" {
        let admin_option = format!("GRANT paxflow_owner TO {name} WITH ADMIN OPTION");
        execute(&mut admin, &admin_option).await;
    }
    let belongs_to = |user: &str| {
        format!(
            "ALTER DATABASE {database_name} OWNER TO {user}; ALTER SCHEMA public OWNER TO {user}"
        )
    };
    execute(&mut admin, &belongs_to(name)).await;
    db::migrate::migrate(&manager.options(&database))
        .await
        .unwrap();
    execute(&mut manager.connect(&database).await, ROLES).await;
    assert_eq!(rights(&mut admin).await, RIGHTS);
    gone(&mut admin, &manager).await;
    execute(&mut admin, &belongs_to(database.options.get_username())).await;
    manager.drop_from(&mut admin).await;
}

#[tokio::test]
async fn the_owner_backs_up_and_restores_and_the_rights_come_back() {
    let (database, mut admin) = empty().await;
    execute(&mut admin, ROLES).await;
    let owner = Login::of("paxflow_owner", &mut admin).await;
    let worker = Login::of("paxflow_worker", &mut admin).await;
    let place = owner.place(&database);
    db::migrate::migrate(&owner.options(&database))
        .await
        .unwrap();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("market.dump");
    let file = file.to_str().unwrap();
    let (code, _, err) = ran(worker.place(&database).paxflow(&["db", "backup", file])).await;
    assert!(code == 1 && err.contains("as the owner"), "{err}");
    let (code, _, err) = ran(place.paxflow(&["db", "backup", file])).await;
    assert_eq!((code, err.as_str()), (0, ""));
    let (code, _, err) = ran(place.paxflow(&["db", "restore", "--force", file])).await;
    assert_eq!((code, err.as_str()), (0, ""));
    assert_eq!(rights(&mut admin).await, RIGHTS);
    for login in [owner, worker] {
        gone(&mut admin, &login).await;
        login.drop_from(&mut admin).await;
    }
}

/// The sessions of a login have ended.
pub async fn gone(admin: &mut PgConnection, login: &Login) {
    let sessions = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE usename = '{}'",
        login.name
    );
    crate::process::until("its sessions are gone", async || {
        (dump(admin, &sessions).await == "0\n").then_some(())
    })
    .await;
}
