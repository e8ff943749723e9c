//! What nobody may read outside the tables: the passengers of all events that the tests send, and the
//! passwords that the program is given. Every log, metric and output of the suite is looked through.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Output;
use std::sync::Mutex;

use paxflow::sandbox::{Options, Sandbox};
use serde_json::Value;
use tokio::process::Command;

use crate::process::{Place, generated, output, until};

/// Shorter ones stand in other words.
const SECRET_BYTES_MIN: usize = 6;
/// Commands whose output is events: that is what they are for.
const PRINT_EVENTS: [&str; 2] = ["generate", "--raw"];

static PEOPLE: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Notes the name, e-mail address and telephone number of an event, also of one that is cut or wrong.
pub fn remember(body: &[u8]) {
    let text = String::from_utf8_lossy(body);
    let passenger = text.split_once("\"passenger\"").and_then(|(_, rest)| {
        let end = rest.find('}')?;
        let object = rest[..=end].trim_start().strip_prefix(':')?;
        serde_json::from_str::<BTreeMap<String, Value>>(object).ok()
    });
    let values = passenger.into_iter().flatten();
    let texts = values.filter_map(|(_, value)| Some(value.as_str()?.to_owned()));
    PEOPLE
        .lock()
        .unwrap()
        .extend(texts.filter(|text| text.len() >= SECRET_BYTES_MIN));
}

/// The passwords in the URLs that a command is given.
pub fn passwords(command: &Command) -> Vec<String> {
    let urls = command.as_std().get_envs().filter_map(|(name, value)| {
        let is_url = name.to_str()?.ends_with("_URL");
        value?.to_str().filter(|_| is_url)
    });
    let passwords = urls.filter_map(|url| {
        let (credentials, _) = url.split_once("://")?.1.rsplit_once('@')?;
        Some(credentials.split_once(':')?.1.to_owned())
    });
    passwords
        .filter(|password| password.len() >= SECRET_BYTES_MIN)
        .collect()
}

/// A text holds no passenger of any test and none of some passwords.
pub fn assert_silent(what: &str, text: &str, passwords: &[String]) {
    let people = PEOPLE.lock().unwrap().clone();
    let told = people
        .iter()
        .chain(passwords)
        .find(|secret| text.contains(*secret));
    if let Some(secret) = told {
        let line = text.lines().find(|line| line.contains(secret));
        panic!("{what} tells {secret:?}: {line:?}");
    }
}

/// What a command has written holds nothing of the kind either, unless it prints events on purpose.
pub fn assert_output_silent(command: &Command, output: &Output) {
    let passwords = passwords(command);
    let (out, err) = (&output.stdout, &output.stderr);
    assert_silent("stderr", &String::from_utf8_lossy(err), &passwords);
    let mut arguments = command.as_std().get_args();
    if !arguments.any(|argument| PRINT_EVENTS.iter().any(|events| argument == *events)) {
        assert_silent("stdout", &String::from_utf8_lossy(out), &passwords);
    }
}

/// Name of every connection that the broker of a sandbox has, and whether it is encrypted.
pub async fn broker_connections(sandbox: &Sandbox) -> BTreeSet<(String, bool)> {
    let pid = sandbox.rabbitmq_pid().expect("the broker runs");
    // The node's name, its ports and its cookie.
    let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap();
    let environment = String::from_utf8(environment).unwrap();
    let variables = environment
        .split('\0')
        .filter_map(|pair| pair.split_once('='));
    let mut command = Command::new("rabbitmqctl");
    command
        .args(["--silent", "--no-table-headers"])
        .args(["list_connections", "ssl", "client_properties"])
        .env_clear()
        .envs(variables)
        .env_remove("ERL_FLAGS");
    let listed = output(command).await;
    let text = String::from_utf8(listed.stdout).unwrap();
    let error = String::from_utf8_lossy(&listed.stderr);
    assert!(listed.status.success(), "{text}{error}");
    let connection = |line: &str| {
        let (ssl, properties) = line.split_once('\t')?;
        let (_, name) = properties.split_once("{\"connection_name\",\"")?;
        let (name, _) = name.split_once('"')?;
        Some((name.to_owned(), ssl == "true"))
    };
    text.lines()
        .map(|line| connection(line).unwrap_or_else(|| panic!("no name: {line}")))
        .collect()
}

#[test]
#[should_panic(expected = "the log tells \"Grace Canary\"")]
fn a_passenger_in_a_text_is_found() {
    remember(br#"{"data":{"passenger": {"email":null,"name":"Grace Canary"},"cut"#);
    assert_silent("the log", "first\nseat 1A of Grace Canary\nlast", &[]);
}

#[test]
#[should_panic(expected = "the log tells \"canary:pass@word\"")]
fn a_password_in_a_text_is_found() {
    let mut command = Command::new("paxflow");
    command.env("AMQP_URL", "amqp://joe:canary:pass@word@mq:5672/%2f");
    let passwords = passwords(&command);
    assert_silent("the log", "joe:canary:pass@word@mq refused", &passwords);
}

/// The driver reads a file of passwords, and tells of a line that it cannot read.
#[tokio::test]
async fn a_broken_line_of_a_password_file_is_not_told() {
    let passwords = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(passwords.path(), "127.0.0.1:1:market:canary-secret\n").unwrap();
    let mut command = crate::process::paxflow(&["db", "check"]);
    command
        .env("DATABASE_URL", "postgres://joe@127.0.0.1:1/market")
        .env("PGPASSFILE", passwords.path());
    let output = output(command).await;
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && !err.is_empty());
    assert_silent("stderr", &err, &["canary-secret".to_owned()]);
}

#[tokio::test]
async fn connections_are_named_for_what_they_do() {
    let sandbox = Sandbox::start(&Options::default()).await.unwrap();
    let place = Place::new(sandbox.database_url(), sandbox.amqp_url());
    let worker = place.worker().await;
    let events = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(events.path(), generated(1000, 5, 0.0).join(&b'\n')).unwrap();
    // Slow, so that it is there to be seen.
    let path = events.path().to_str().unwrap();
    let mut publish = place.paxflow(&["publish", "--rate", "1", path]);
    let mut publishing = publish.spawn().unwrap();
    let expected = ["paxflow publisher", "paxflow worker"];
    let expected = BTreeSet::from(expected.map(|name| (name.to_owned(), false)));
    until("both connections are named so, and no other", async || {
        (broker_connections(&sandbox).await == expected).then_some(())
    })
    .await;
    let names = "SELECT DISTINCT application_name FROM pg_stat_activity
                 WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()
                 ORDER BY application_name";
    let mut connection = place.connect().await;
    until("every session is named so", async || {
        let names: Vec<String> = sqlx::query_scalar(names)
            .fetch_all(&mut connection)
            .await
            .unwrap();
        (names == ["paxflow upkeep", "paxflow worker"]).then_some(())
    })
    .await;
    publishing.kill().await.unwrap();
    worker.stop().await;
    sandbox.stop().await.unwrap();
}
