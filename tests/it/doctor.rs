//! Misconfigurations, made one by one: doctor names each, and finds nothing once it is undone.

mod misconfigured;

use std::path::Path;

use lapin::options::{ExchangeDeclareOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Connection, ConnectionProperties, ExchangeKind};
use paxflow::config::Secret;
use paxflow::db;
use paxflow::sandbox::{Options, Sandbox, Shutdown};
use serde_json::Value;
use sqlx::Connection as _;
use sqlx::postgres::PgConnection;
use tokio::process::Command;

use self::misconfigured::DATABASES;
use crate::events::flight;
use crate::process::{Place, place, properties, ran, until};
use crate::support::{Database, dump, execute, servers};

/// Runs `rabbitmqctl` as the operator of a private broker, with the cookie, name and ports it has itself.
pub async fn rabbitmqctl(sandbox: &Sandbox, arguments: &[&str]) {
    let pid = sandbox.rabbitmq_pid().unwrap();
    let environment = std::fs::read_to_string(format!("/proc/{pid}/environ")).unwrap();
    let variables = environment
        .split('\0')
        .filter_map(|pair| pair.split_once('='));
    let mut command = tokio::process::Command::new("rabbitmqctl");
    command.args(arguments).env_clear().envs(variables);
    let (code, out, err) = ran(command).await;
    assert_eq!(code, 0, "{out}{err}");
}

/// Exit code and findings.
async fn doctor(place: &Place) -> (i32, Vec<Value>) {
    examined(place.paxflow(&["doctor", "--json"])).await
}

async fn examined(command: Command) -> (i32, Vec<Value>) {
    let (code, out, err) = ran(command).await;
    let findings: Vec<Value> = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{out}{err}"));
    assert_eq!(code, i32::from(!findings.is_empty()), "{out}");
    (code, findings)
}

/// Asserts that these checks, and no others, have found something.
async fn assert_finds(place: &Place, expected: &[(&str, &str)]) {
    let (_, findings) = doctor(place).await;
    let found: Vec<(&str, &str)> = findings
        .iter()
        .map(|finding| {
            (
                finding["check"].as_str().unwrap(),
                finding["found"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        found.len(),
        expected.len(),
        "expected {expected:?}, found {found:#?}"
    );
    for (check, text) in expected {
        assert!(
            found
                .iter()
                .any(|(name, found)| name == check && found.contains(text)),
            "expected {check}: {text}, found {found:#?}"
        );
    }
    for finding in &findings {
        assert!(!finding["remedy"].as_str().unwrap().is_empty());
        assert!(!finding["danger"].as_str().unwrap().is_empty());
    }
}

async fn healthy(database: &Database) -> Place {
    let place = place(database);
    place.declare().await;
    place
}

#[tokio::test]
async fn doctor_finds_nothing_where_a_worker_has_started() {
    let database = Database::new().await;
    let place = healthy(&database).await;
    place.worker().await.stop().await;
    let (code, out, err) = ran(place.paxflow(&["doctor"])).await;
    assert_eq!(code, 0, "{out}{err}");
    assert_eq!(out, "nothing found that could lose messages or block\n");
}

#[tokio::test]
async fn doctor_finds_what_is_wrong_with_a_database() {
    let database = Database::new().await;
    let place = healthy(&database).await;
    let name = database.options.get_database().unwrap();
    let mut connection = place.connect().await;
    let kept = "CREATE TABLE kept AS TABLE reference_data; CREATE TABLE kept_migrations AS TABLE _sqlx_migrations";
    execute(&mut connection, kept).await;
    for (make, check, found, undo) in DATABASES {
        // One by one: a statement that changes what a transaction may do must not share it.
        for statement in make.split("; ") {
            execute(&mut connection, &statement.replace("{db}", name)).await;
        }
        assert_finds(&place, &[(check, found)]).await;
        for statement in undo.split("; ") {
            execute(&mut connection, &statement.replace("{db}", name)).await;
        }
    }
    assert_finds(&place, &[]).await;
}

#[tokio::test]
async fn doctor_finds_the_privileges_that_a_role_lacks() {
    let database = Database::new().await;
    let place = healthy(&database).await;
    let role = format!("paxflow_sick_{}", std::process::id());
    let mut connection = place.connect().await;
    let grants = format!(
        "CREATE ROLE {role} LOGIN PASSWORD 'sick';
         GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role};
         REVOKE DELETE ON flight_demand FROM {role};
         REVOKE INSERT ON quarantined_events FROM {role};
         REVOKE EXECUTE ON FUNCTION local_date FROM PUBLIC"
    );
    execute(&mut connection, &grants).await;
    let (_, host) = place.database_url.split_once('@').unwrap();
    let sick = Place {
        database_url: format!("postgres://{role}:sick@{host}"),
        ..place.clone()
    };
    let lacking = [
        ("privileges", "DELETE on flight_demand"),
        ("privileges", "INSERT on quarantined_events"),
        ("privileges", "EXECUTE on local_date"),
    ];
    assert_finds(&sick, &lacking).await;
    // It is the worker's role that counts, whoever migrates.
    let shorten = format!("ALTER ROLE {role} SET lock_timeout = '50ms'");
    execute(&mut connection, &shorten).await;
    let mut command = sick.paxflow(&["doctor", "--json"]);
    command.env("DATABASE_DIRECT_URL", &place.database_url);
    let (_, findings) = examined(command).await;
    let checks: Vec<_> = findings.iter().map(|finding| &finding["check"]).collect();
    assert_eq!(
        checks,
        ["lock_timeout", "privileges", "privileges", "privileges"],
        "{findings:?}"
    );
    // A question that cannot be asked is a finding beside the others.
    let hide = format!("REVOKE SELECT ON _sqlx_migrations FROM {role}");
    execute(&mut connection, &hide).await;
    let hidden = [
        ("lock_timeout", "50 ms"),
        ("examination", "_sqlx_migrations"),
    ];
    assert_finds(&sick, &hidden).await;
    execute(&mut connection, &format!("DROP OWNED BY {role}")).await;
    execute(&mut connection, &format!("DROP ROLE {role}")).await;
}

/// Batches go by the one, and what is verified by the other.
#[tokio::test]
async fn doctor_finds_urls_that_lead_to_different_databases() {
    let (database, other) = (Database::new().await, Database::new().await);
    let place = healthy(&database).await;
    let checks_with = async |direct: &str, pooler: Option<&str>| {
        let mut command = place.paxflow(&["doctor", "--json"]);
        command.env("DATABASE_DIRECT_URL", direct);
        command.envs(pooler.map(|pooler| ("DATABASE_POOLER", pooler)));
        let (_, findings) = examined(command).await;
        let check = |finding: &Value| finding["check"].as_str().unwrap().to_owned();
        findings.iter().map(check).collect::<Vec<_>>()
    };
    let same = &place.database_url;
    let (left, right) = same.rsplit_once('/').unwrap();
    let elsewhere = format!("{left}/{}", other.options.get_database().unwrap());
    assert_eq!(checks_with(&elsewhere, None).await, ["direct_url"]);
    let read_only = format!("{left}/{right}?options=-cdefault_transaction_read_only%3Don");
    assert_eq!(checks_with(&read_only, None).await, ["read_only"]);
    // A pool ends at the pooler: a worker has one connection beside it.
    let limit = format!("ALTER DATABASE {right} CONNECTION LIMIT 7");
    execute(&mut place.connect().await, &limit).await;
    assert_eq!(checks_with(same, None).await, ["connections"]);
    assert!(checks_with(same, Some("transaction")).await.is_empty());
}

#[tokio::test]
async fn doctor_takes_a_zone_as_postgresql_does_and_does_not_wait_for_ever() {
    let database = Database::new().await;
    let place = healthy(&database).await;
    let mut connection = place.connect().await;
    let lower = "UPDATE airports SET timezone = lower(timezone) WHERE iata_code = 'JFK'";
    execute(&mut connection, lower).await;
    assert_finds(&place, &[]).await;
    execute(&mut connection, "BEGIN; LOCK TABLE airports").await;
    assert_finds(&place, &[("examination", "lock timeout")]).await;
}

#[tokio::test]
async fn doctor_finds_a_database_of_another_encoding_and_an_empty_one() {
    let name = format!("paxflow_latin_{}", std::process::id());
    let mut admin = PgConnection::connect(&servers().database_url)
        .await
        .unwrap();
    let create = format!(
        "CREATE DATABASE {name} ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
    );
    execute(&mut admin, &create).await;
    let place = Place::new(&crate::process::database_url(&name), &servers().amqp_url);
    place.declare().await;
    assert_finds(
        &place,
        &[("encoding", "LATIN1"), ("schema", "revision 0, ")],
    )
    .await;
    execute(&mut admin, &format!("DROP DATABASE {name}")).await;
}

/// Makes exchanges and queues of a place in ways that the program does not.
struct Operator {
    connection: Connection,
}

impl Operator {
    async fn new() -> Self {
        let connection = Connection::connect(&servers().amqp_url, ConnectionProperties::default());
        Self {
            connection: connection.await.unwrap(),
        }
    }

    async fn exchange(&self, name: &str, kind: ExchangeKind, durable: bool) {
        let channel = self.connection.create_channel().await.unwrap();
        let options = ExchangeDeclareOptions {
            durable,
            ..Default::default()
        };
        channel
            .exchange_declare(name.into(), kind, options, FieldTable::default())
            .await
            .unwrap();
    }

    async fn queue(&self, name: &str, durable: bool, arguments: &[(&str, AMQPValue)]) {
        let channel = self.connection.create_channel().await.unwrap();
        let options = QueueDeclareOptions {
            durable,
            ..Default::default()
        };
        let mut table = FieldTable::default();
        for (name, value) in arguments {
            table.insert((*name).into(), value.clone());
        }
        channel
            .queue_declare(name.into(), options, table)
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn doctor_finds_exchanges_and_queues_that_are_missing_or_different() {
    let database = Database::new().await;
    let operator = Operator::new().await;

    let nothing = place(&database);
    let (exchange, queue) = (
        nothing.topology.exchange.clone(),
        nothing.topology.queue.clone(),
    );
    let missing = |kind: &str, name: &str| format!("{kind} {name}");
    let names = [
        missing("exchange", &exchange),
        missing("exchange", &format!("{queue}.dead")),
        missing("queue", &queue),
        missing("queue", &format!("{queue}.dead")),
    ];
    let expected: Vec<_> = names
        .iter()
        .map(|name| ("missing", name.as_str()))
        .collect();
    assert_finds(&nothing, &expected).await;

    let exchanges = place(&database);
    operator
        .exchange(&exchanges.topology.exchange, ExchangeKind::Direct, true)
        .await;
    operator
        .exchange(
            &exchanges.topology.dead_letters(),
            ExchangeKind::Fanout,
            false,
        )
        .await;
    let expected = [
        ("arguments", "type is direct"),
        ("arguments", "durable is false"),
        ("missing", "queue"),
        ("missing", "queue"),
    ];
    assert_finds(&exchanges, &expected).await;
}

/// A long string, as an argument of a queue.
fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}

#[tokio::test]
async fn doctor_finds_a_queue_that_keeps_less_than_it_is_given() {
    let database = Database::new().await;
    let operator = Operator::new().await;
    let classic = place(&database);
    operator
        .exchange(&classic.topology.exchange, ExchangeKind::Topic, true)
        .await;
    operator
        .exchange(&classic.topology.dead_letters(), ExchangeKind::Fanout, true)
        .await;
    operator
        .queue(
            &classic.topology.dead_letters(),
            true,
            &[("x-queue-type", text("quorum"))],
        )
        .await;
    let arguments = [
        ("x-message-ttl", AMQPValue::LongInt(60_000)),
        ("x-max-length", AMQPValue::LongInt(9)),
    ];
    operator
        .queue(&classic.topology.queue, false, &arguments)
        .await;
    let expected = [
        // None or classic, by the version of RabbitMQ.
        ("arguments", "x-queue-type is "),
        ("arguments", "durable is false"),
        ("arguments", "x-message-ttl is 60000"),
        ("arguments", "x-max-length is 9"),
        ("arguments", "x-dead-letter-exchange is none"),
        ("arguments", "x-overflow is none"),
    ];
    assert_finds(&classic, &expected).await;
}

#[tokio::test]
async fn doctor_finds_a_queue_that_gives_an_event_up_too_early() {
    let database = Database::new().await;
    let operator = Operator::new().await;
    let hasty = place(&database);
    operator
        .exchange(&hasty.topology.exchange, ExchangeKind::Topic, true)
        .await;
    operator
        .exchange(&hasty.topology.dead_letters(), ExchangeKind::Fanout, true)
        .await;
    operator
        .queue(
            &hasty.topology.dead_letters(),
            true,
            &[("x-queue-type", text("quorum"))],
        )
        .await;
    let arguments = [
        ("x-queue-type", text("quorum")),
        ("x-delivery-limit", AMQPValue::LongInt(2)),
        (
            "x-dead-letter-exchange",
            text(&hasty.topology.dead_letters()),
        ),
        ("x-dead-letter-strategy", text("at-least-once")),
        ("x-overflow", text("reject-publish")),
    ];
    operator
        .queue(&hasty.topology.queue, true, &arguments)
        .await;
    assert_finds(&hasty, &[("arguments", "x-delivery-limit is 2")]).await;
}

#[tokio::test]
async fn doctor_finds_messages_that_nobody_takes() {
    let database = Database::new().await;
    let place = healthy(&database).await;
    let producer = place.producer().await;
    producer
        .publish(&[serde_json::to_vec(&flight(serde_json::json!({}))).unwrap()])
        .await;
    assert_finds(&place, &[("consumers", "1 messages wait")]).await;
    let dead = place.topology.dead_letters();
    producer
        .send(&dead, "", properties(), b"given up")
        .await
        .await
        .unwrap();
    let expected = [
        ("consumers", "1 messages wait"),
        ("dead_letters", "1 messages in "),
    ];
    assert_finds(&place, &expected).await;
    let worker = place.worker().await;
    place.committed_at_least(1).await;
    assert_finds(&place, &[expected[1]]).await;
    worker.stop().await;
}

#[tokio::test]
async fn doctor_names_servers_that_are_away_without_their_passwords() {
    let away = Place::new(
        "postgres://paxflow:canary-secret@127.0.0.1:1/paxflow",
        "amqp://paxflow:canary-secret@127.0.0.1:1/%2f",
    );
    assert_finds(
        &away,
        &[
            ("reachable", "127.0.0.1:1"),
            ("reachable", "127.0.0.1:1/paxflow"),
        ],
    )
    .await;
    let (_, out, err) = ran(away.paxflow(&["doctor"])).await;
    assert!(out.ends_with("2 found\n") && !(out + &err).contains("canary"));
}

#[tokio::test]
async fn doctor_finds_what_is_wrong_with_whole_servers() {
    let setting = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let options = Options {
        postgresql_settings: vec![
            setting("fsync", "off"),
            setting("full_page_writes", "off"),
            setting("autovacuum", "off"),
            setting("max_connections", "20"),
        ],
        rabbitmq_settings: vec![
            setting("disk_free_limit.absolute", "999999GB"),
            setting("heartbeat", "0"),
        ],
        ..Options::default()
    };
    let mut sandbox = Sandbox::start(&options).await.unwrap();
    let place = Place::new(sandbox.database_url(), sandbox.amqp_url());
    let database = db::options(&Secret::new(sandbox.database_url()), "test").unwrap();
    db::migrate::migrate(&database).await.unwrap();
    place.declare().await;
    let mut expected = vec![
        ("fsync", "off"),
        ("full_page_writes", "off"),
        ("autovacuum", "autovacuum is off"),
        ("connections", "17 offered"),
        ("alarm", "takes no messages"),
    ];
    assert_finds(&place, &expected).await;
    let deaf = Place {
        amqp_url: format!("{}?heartbeat=0", place.amqp_url),
        ..place.clone()
    };
    expected.push(("heartbeat", "off"));
    assert_finds(&deaf, &expected).await;
    expected.pop();
    rabbitmqctl(&sandbox, &["add_user", "weak", "secret"]).await;
    rabbitmqctl(&sandbox, &["set_permissions", "weak", "none", ".*", ".*"]).await;
    let (_, broker) = place.amqp_url.split_once('@').unwrap();
    let weak = Place {
        amqp_url: format!("amqp://weak:secret@{broker}"),
        ..place.clone()
    };
    let objects = ["exchange", "queue"].map(|kind| format!("no permission to configure {kind} "));
    let forbidden = [0, 0, 1, 1].map(|kind| ("permission", objects[kind].as_str()));
    assert_finds(&weak, &[&expected[..], &forbidden].concat()).await;
    let lacking = "of 2 that commits wait for, 0 connected";
    expected.push(("synchronous_standby_names", lacking));
    wait_for_standbys(&place, &expected).await;
    let mut connection = place.connect().await;
    let directory = dump(&mut connection, "SHOW data_directory").await;
    connection.close().await.unwrap();
    sandbox.postgres_stop(Shutdown::Graceful).await.unwrap();
    std::fs::write(Path::new(directory.trim_end()).join("standby.signal"), "").unwrap();
    sandbox.postgres_start().await.unwrap();
    expected.push(("read_only", "the server is a standby"));
    assert_finds(&place, &expected).await;
    sandbox.stop().await.unwrap();
}

/// Has commits wait for standbys that are not there, which is found beside what else is expected.
async fn wait_for_standbys(place: &Place, expected: &[(&str, &str)]) {
    let mut connection = place.connect().await;
    for statement in [
        "CREATE ROLE plain LOGIN PASSWORD 'secret'; GRANT SELECT ON ALL TABLES IN SCHEMA public TO plain",
        "ALTER SYSTEM SET synchronous_standby_names = 'FIRST 2 (ghost, spook)'",
        "SELECT pg_reload_conf()",
    ] {
        execute(&mut connection, statement).await;
    }
    until("the setting has arrived", async || {
        let names = dump(&mut connection, "SHOW synchronous_standby_names").await;
        names.contains("ghost").then_some(())
    })
    .await;
    assert_finds(place, expected).await;
    // So does who may not see which standby is synchronous.
    let (_, host) = place.database_url.split_once('@').unwrap();
    let plain = Place {
        database_url: format!("postgres://plain:secret@{host}"),
        ..place.clone()
    };
    let (_, findings) = doctor(&plain).await;
    let found = findings
        .iter()
        .find(|found| found["check"] == "synchronous_standby_names");
    let found = found.unwrap_or_else(|| panic!("{findings:?}"));
    assert!(
        found["found"]
            .as_str()
            .unwrap()
            .contains("of 2 that commits wait for, 0 connected")
    );
}
