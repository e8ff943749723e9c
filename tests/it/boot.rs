//! How a worker starts: the schema once, and one clear line where it cannot.

use std::process::ExitStatus;
use std::time::{Duration, Instant};

use paxflow::db;
use sqlx::{AssertSqlSafe, Connection};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::process::Command;

use crate::process::{Place, Worker, database_url, place, ran, until};
use crate::support::{Database, drop_database, dump, execute, servers};

/// A boot that fails does not try for long.
const FAILS_WITHIN: Duration = Duration::from_secs(30);

/// A database without a schema, dropped at the end of [`with_empty_database`].
pub async fn with_empty_database(name: &str, test: impl AsyncFnOnce(Place)) {
    let name = format!("paxflow_boot_{name}_{}", std::process::id());
    let url = servers().database_url.as_str();
    let mut admin = sqlx::PgConnection::connect(url).await.unwrap();
    execute(&mut admin, &format!("CREATE DATABASE {name}")).await;
    test(Place::new(&database_url(&name), &servers().amqp_url)).await;
    drop_database(&mut admin, &name).await;
}

/// Exit status of a boot that fails, and the one line that is no log line.
pub async fn fails(command: Command) -> (ExitStatus, String) {
    let mut worker = Worker::spawn(command);
    let status = worker.exit_within(FAILS_WITHIN).await;
    let log = worker.log();
    let said: Vec<_> = log.lines().filter(|line| !line.starts_with('{')).collect();
    assert!(!status.success(), "{log}");
    assert_eq!(said.len(), 1, "one line says why: {log}");
    assert!(said[0].starts_with("paxflow: "), "{log}");
    assert!(!log.contains("panicked"), "{log}");
    (status, said[0].to_owned())
}

#[tokio::test]
async fn migrated_once_by_four_workers_that_start_together() {
    with_empty_database("together", async |place| {
        let workers = tokio::join!(
            place.worker(),
            place.worker(),
            place.worker(),
            place.worker()
        );
        let revisions = place
            .number("SELECT count(*) FROM _sqlx_migrations WHERE success")
            .await;
        assert_eq!(
            revisions,
            db::revisions::ups(&db::migrate::MIGRATOR).count() as i64
        );
        assert_eq!(
            place
                .number("SELECT max(version) FROM _sqlx_migrations")
                .await,
            db::revisions::latest(&db::migrate::MIGRATOR)
        );
        assert!(place.number("SELECT count(*) FROM airports").await > 7_000);
        let (one, two, three, four) = workers;
        tokio::join!(one.stop(), two.stop(), three.stop(), four.stop());
    })
    .await;
}

#[tokio::test]
async fn a_stop_in_the_midst_of_a_revision_leaves_it_out_and_the_next_start_finishes() {
    with_empty_database("stopped", async |place| {
        let (code, _, err) = ran(place.paxflow(&["db", "migrate", "upgrade", "3"])).await;
        assert_eq!(code, 0, "{err}");
        let mut connection = place.connect().await;
        // The first view of revision 4 comes through, the second one takes its time.
        let slow = "CREATE FUNCTION slow() RETURNS event_trigger LANGUAGE plpgsql AS $$
            BEGIN
                IF to_regclass('market_data') IS NOT NULL THEN PERFORM pg_sleep(100); END IF;
            END $$;
            CREATE EVENT TRIGGER slow ON ddl_command_start WHEN TAG IN ('CREATE VIEW') EXECUTE FUNCTION slow()";
        execute(&mut connection, slow).await;
        let mut worker = place.boot().await;
        let sleeping = "SELECT count(*) FROM pg_stat_activity
            WHERE datname = current_database() AND wait_event = 'PgSleep'";
        until("the migration takes its time", async || {
            (place.number(sleeping).await == 1).then_some(())
        })
        .await;
        worker.signal("TERM");
        let status = worker.exit_within(Duration::from_secs(10)).await;
        assert_eq!(status.code(), Some(0), "{}", worker.log());

        execute(&mut connection, "DROP EVENT TRIGGER slow").await;
        let standing = "SELECT (SELECT max(version) FROM _sqlx_migrations WHERE success), to_regclass('market_data')";
        assert_eq!(dump(&mut connection, standing).await, "3 | -\n");
        let began = Instant::now();
        place.worker().await.stop().await;
        let server = "SELECT current_setting('server_version_num')::bigint";
        // Before 14 a server sleeps on for somebody who has gone.
        assert!(
            began.elapsed() < Duration::from_secs(60) || place.number(server).await < 140_000,
            "it had to wait for the one that was stopped"
        );
        let (code, out, err) = ran(place.paxflow(&["db", "check"])).await;
        assert_eq!(code, 0, "{out}{err}");
    })
    .await;
}

#[tokio::test]
async fn a_newer_schema_is_refused() {
    let database = Database::new().await;
    let place = place(&database);
    let newer =
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
                 VALUES (9999, 'of the future', true, '', 0)";
    sqlx::query(newer)
        .execute(&mut place.connect().await)
        .await
        .unwrap();
    let (_, said) = fails(place.paxflow(&["run"])).await;
    assert!(
        said.contains("9999") && said.contains("newer paxflow"),
        "{said}"
    );
}

#[tokio::test]
async fn an_edited_revision_is_refused_by_name() {
    let database = Database::new().await;
    let place = place(&database);
    let mut connection = place.connect().await;
    let edited = "UPDATE _sqlx_migrations SET checksum = '\\x00' WHERE version = 2";
    sqlx::query(edited).execute(&mut connection).await.unwrap();
    let (_, said) = fails(place.paxflow(&["run"])).await;
    assert!(said.contains("revision 2 was edited"), "{said}");
}

#[tokio::test]
async fn a_queue_with_other_arguments_is_explained_and_left_alone() {
    let database = Database::new().await;
    let place = place(&database);
    place.declare_classic_queue().await;
    let (_, said) = fails(place.paxflow(&["run"])).await;
    assert!(
        said.contains(&place.topology.queue) && said.contains("PAXFLOW_QUEUE"),
        "{said}"
    );
    // Declaring it in the same way again succeeds only if it is what it was.
    place.declare_classic_queue().await;
}

#[tokio::test]
async fn a_queue_with_another_kind_of_consumers_names_the_setting() {
    let database = Database::new().await;
    let place = place(&database);
    place.declare().await;
    let mut command = place.paxflow(&["run"]);
    command.env("PAXFLOW_CONSUMER", "active");
    let (_, said) = fails(command).await;
    assert!(
        said.contains("set PAXFLOW_CONSUMER as the queue was made"),
        "{said}"
    );
    let mut doctor = place.paxflow(&["doctor"]);
    doctor.env("PAXFLOW_CONSUMER", "active");
    let (_, out, _) = ran(doctor).await;
    assert!(out.contains("remedy: set PAXFLOW_CONSUMER"), "{out}");
    // At once, and not when the database has come up.
    for (of_the_url, wrong, expected) in [
        ("/%2f", "/", "names an empty vhost"),
        (
            "/%2f",
            "/%2f?heartbeat=canary",
            "a wrong value of heartbeat: expected amqp://",
        ),
        ("/%2f", "/%2f?cacertfile=/nowhere", "asks for no TLS"),
    ] {
        let nowhere = Place {
            database_url: "postgres://paxflow@127.0.0.1:1/nowhere".to_owned(),
            amqp_url: servers().amqp_url.replace(of_the_url, wrong),
            ..place.clone()
        };
        let (_, said) = fails(nowhere.paxflow(&["run"])).await;
        assert!(
            said.contains(expected) && !said.contains("canary"),
            "{said}"
        );
    }
}

#[tokio::test]
async fn wrong_credentials_and_names_end_the_boot_without_the_password() {
    let database = Database::new().await;
    let good = place(&database);
    let with_password = |url: &str| {
        let (user, host) = url.split_once('@').unwrap();
        let (user, _) = user.rsplit_once(':').unwrap();
        format!("{user}:canary-secret@{host}")
    };
    let trusted = sqlx::PgConnection::connect(&with_password(&good.database_url))
        .await
        .is_ok();
    let mut cases = vec![
        (
            "no such database",
            Place {
                database_url: database_url("paxflow_no_such"),
                ..good.clone()
            },
            "does not exist",
        ),
        (
            "wrong broker password",
            Place {
                amqp_url: with_password(&good.amqp_url),
                ..good.clone()
            },
            "broker",
        ),
        (
            "no such vhost",
            Place {
                amqp_url: good.amqp_url.replace("%2f", "no-such"),
                ..good.clone()
            },
            "broker",
        ),
    ];
    if !trusted {
        let place = Place {
            database_url: with_password(&good.database_url),
            ..good.clone()
        };
        cases.push(("wrong database password", place, "password"));
    }
    for (what, place, expected) in cases {
        let (_, said) = fails(place.paxflow(&["run"])).await;
        assert!(said.contains(expected), "{what}: {said}");
        assert!(!said.contains("canary-secret"), "{what}: {said}");
    }
}

/// A name that nobody answers for may be a broker that is not there yet.
#[tokio::test]
async fn a_broker_whose_name_is_unknown_is_waited_for() {
    let database = Database::new().await;
    let place = Place {
        amqp_url: "amqp://paxflow:x@broker.invalid:5672/%2f".to_owned(),
        ..place(&database)
    };
    let worker = place.boot().await;
    until("it has tried twice", async || {
        let log = worker.log();
        (log.matches("waiting for the broker").count() > 1).then_some(())
    })
    .await;
    let reason = worker.unready().await;
    assert!(reason.starts_with("broker: "), "{reason}");
    worker.stop().await;
}

/// The only broker listens on the loopback address of IPv4.
#[tokio::test]
async fn an_ipv6_address_of_the_broker_leads_there_and_nowhere_else() {
    let database = Database::new().await;
    let good = place(&database);
    let (user, server) = good.amqp_url.split_once('@').unwrap();
    let (host, rest) = server.split_once(':').unwrap();
    assert_eq!(host, "127.0.0.1");
    let mapped = Place {
        amqp_url: format!("{user}@[::ffff:127.0.0.1]:{rest}"),
        ..good.clone()
    };
    let worker = mapped.worker().await;
    assert!(worker.log().contains("\"broker\":\"[::ffff:127.0.0.1]:"));
    worker.stop().await;
    let elsewhere = Place {
        amqp_url: format!("{user}@[::1]:{rest}"),
        ..good
    };
    let worker = elsewhere.boot().await;
    until("it does not go to localhost", async || {
        worker
            .log()
            .contains("waiting for the broker")
            .then_some(())
    })
    .await;
    worker.stop().await;
}

#[tokio::test]
async fn a_server_that_speaks_something_else_is_named_and_asked_again_with_patience() {
    let database = Database::new().await;
    let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = other.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = other.accept().await {
            let mut greeting = [0; 8];
            client.read_exact(&mut greeting).await.ok();
            client
                .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                .await
                .ok();
        }
    });
    let elsewhere = Place {
        amqp_url: format!("amqp://paxflow:x@{address}/%2f"),
        ..place(&database)
    };
    let worker = elsewhere.boot().await;
    until("it waits for the broker", async || {
        worker
            .log()
            .contains(
                "does not speak AMQP 0-9-1: correct host and port in AMQP_URL\",\"retry_in_ms\"",
            )
            .then_some(())
    })
    .await;
    assert!(!worker.log().contains("dead_letters"), "{}", worker.log());
    worker.stop().await;
}

#[tokio::test]
async fn a_worker_without_the_right_to_change_the_schema_runs() {
    let database = Database::new().await;
    let place = place(&database);
    let role = format!("paxflow_plain_{}", std::process::id());
    let mut connection = place.connect().await;
    let grants = format!(
        "CREATE ROLE {role} LOGIN PASSWORD 'plain';
         GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role};
         GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {role}"
    );
    sqlx::raw_sql(AssertSqlSafe(grants))
        .execute(&mut connection)
        .await
        .unwrap();
    let (_, host) = place.database_url.split_once('@').unwrap();
    let plain = Place {
        database_url: format!("postgres://{role}:plain@{host}"),
        ..place.clone()
    };
    let worker = plain.worker().await;
    place
        .publish(&crate::process::generated(100, 3, 0.05))
        .await;
    place.committed_at_least(100).await;
    worker.stop().await;
    until("its sessions are gone", async || {
        let sessions = "SELECT count(*) FROM pg_stat_activity WHERE usename LIKE 'paxflow_plain%'";
        (place.number(sessions).await == 0).then_some(())
    })
    .await;
    execute(&mut connection, &format!("DROP OWNED BY {role}")).await;
    execute(&mut connection, &format!("DROP ROLE {role}")).await;
}

#[tokio::test]
async fn a_server_may_write_bytes_in_another_form() {
    let database = Database::new().await;
    let place = place(&database);
    let alter = "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET bytea_output = escape', current_database()); END $$";
    execute(&mut place.connect().await, alter).await;
    place.worker().await.stop().await;
    let (code, out, err) = ran(place.paxflow(&["db", "status"])).await;
    assert_eq!(code, 0, "{out}{err}");
}

#[tokio::test]
async fn airports_alone_can_be_out_of_date() {
    let database = Database::new().await;
    let place = place(&database);
    execute(&mut place.connect().await, "DELETE FROM reference_data").await;
    let (code, out, _) = ran(place.paxflow(&["db", "status"])).await;
    assert!(
        code == 2 && out.contains("airports of this version are not loaded"),
        "{out}"
    );
    let (code, out, err) = ran(place.paxflow(&["db", "migrate", "upgrade"])).await;
    assert!(code == 0 && out.contains("are loaded"), "{out}{err}");
    let (code, out, _) = ran(place.paxflow(&["db", "status"])).await;
    assert!(code == 0 && out.contains("in sync"), "{out}");
    let (_, out, _) = ran(place.paxflow(&["db", "migrate", "upgrade"])).await;
    assert!(out.contains("nothing to do"), "{out}");
}
