//! The commands as their users meet them: what they print, and what they exit with.

use std::io::Write;
use std::process::Output;

use paxflow::config::SETTINGS;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use crate::canary;
use crate::events::{booking, flight};
use crate::process::{Place, Running, fed, generated, paxflow, place, properties, ran, until};
use crate::running::signal;
use crate::support::{Database, dump, execute};

/// Every command, as `paxflow help` lists them.
const COMMANDS: [&str; 14] = [
    "demo",
    "run",
    "publish",
    "check",
    "generate",
    "schema",
    "verify",
    "rebuild",
    "quarantine",
    "status",
    "doctor",
    "db",
    "completions",
    "man",
];

pub fn line(event: &Value) -> Vec<u8> {
    [&serde_json::to_vec(event).unwrap()[..], b"\n"].concat()
}

/// Three lines; the second breaks a rule.
pub fn mixed() -> Vec<u8> {
    let bad = booking(json!({ "booking_id": "B2", "cabin": "Z" }));
    [
        line(&flight(json!({}))),
        line(&bad),
        line(&booking(json!({}))),
    ]
    .concat()
}

pub fn file(contents: &[u8], suffix: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::Builder::new().suffix(suffix).tempfile().unwrap();
    file.write_all(contents).unwrap();
    file
}

pub fn path(file: &tempfile::NamedTempFile) -> &str {
    file.path().to_str().unwrap()
}

/// A failure is one line on stderr that begins with the program's name.
pub fn assert_one_line(stderr: &str) {
    assert!(
        stderr.starts_with("paxflow: ") && stderr.trim_end().lines().count() == 1,
        "{stderr}"
    );
}

#[tokio::test]
async fn check_names_file_line_reason_and_path() {
    let events = file(&mixed(), ".ndjson");
    let (code, out, _) = ran(paxflow(&["check", path(&events)])).await;
    assert_eq!(code, 1);
    assert!(
        out.contains(&format!(
            "{}:2: $.data.cabin: unknown_value: ",
            path(&events)
        )),
        "{out}"
    );
    assert!(out.ends_with("2 valid, 1 rejected\n"), "{out}");

    let (code, out, _) = ran(paxflow(&["check", "--json", path(&events)])).await;
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &report["valid"]), (1, &json!(2)));
    let rejected = &report["rejected"][0];
    assert_eq!(
        (&rejected["line"], &rejected["reason"]),
        (&json!(2), &json!("unknown_value"))
    );
    assert_eq!(
        (&rejected["path"], &rejected["file"]),
        (&json!("$.data.cabin"), &json!(path(&events)))
    );
}

#[tokio::test]
async fn check_reads_stdin_gzip_and_many_files() {
    let good = line(&flight(json!({})));
    let (code, out, _) = fed(paxflow(&["check", "-"]), &good).await;
    assert_eq!((code, out.as_str()), (0, "1 valid, 0 rejected\n"));

    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&mixed()).unwrap();
    let packed = file(&gzip.finish().unwrap(), ".ndjson.gz");
    let plain = file(&good, ".ndjson");
    let (code, out, _) = ran(paxflow(&["check", path(&plain), path(&packed)])).await;
    assert_eq!(code, 1);
    assert!(out.contains(&format!("{}:2: ", path(&packed))), "{out}");
    assert!(out.ends_with("3 valid, 1 rejected\n"), "{out}");

    let (code, _, err) = ran(paxflow(&["check", "/no/such/file"])).await;
    assert_eq!(code, 1);
    assert_one_line(&err);
    assert!(err.contains("/no/such/file"), "{err}");
}

#[tokio::test]
async fn an_event_over_many_lines_is_told_of_once() {
    let pretty = serde_json::to_vec_pretty(&flight(json!({}))).unwrap();
    let listed = serde_json::to_vec_pretty(&json!([flight(json!({}))])).unwrap();
    for (events, filter) in [(pretty, "jq -c '.'"), (listed, "jq -c '.[]'")] {
        let events = file(&events, ".json");
        for command in ["check", "publish"] {
            let (code, out, err) = ran(paxflow(&[command, path(&events)])).await;
            assert_eq!((code, out.as_str()), (1, ""));
            assert_one_line(&err);
            assert!(err.contains(path(&events)) && err.contains(filter), "{err}");
        }
    }
    // A line that was cut off does not hold up the others.
    let cut = [b"{\n".to_vec(), line(&flight(json!({})))].concat();
    let (_, _, err) = ran(paxflow(&[
        "publish",
        "--skip-invalid",
        path(&file(&cut, ".ndjson")),
    ]))
    .await;
    assert!(
        err.contains(":1: $: invalid_json") && err.contains("AMQP_URL"),
        "{err}"
    );
}

#[tokio::test]
async fn generate_gives_the_same_bytes_for_the_same_arguments() {
    let arguments = [
        "generate",
        "--events",
        "500",
        "--seed",
        "5",
        "--markets",
        "20",
        "--bad-ratio",
        "0.1",
    ];
    let (code, first, _) = ran(paxflow(&arguments)).await;
    assert_eq!((code, first.lines().count()), (0, 500));
    assert_eq!(ran(paxflow(&arguments)).await.1, first);
    let (_, other, _) = ran(paxflow(&["generate", "--events", "500", "--seed", "6"])).await;
    assert_ne!(other, first);
    for wrong in [["--bad-ratio", "2"], ["--markets", "0"], ["--events", "-1"]] {
        let (code, _, err) = ran(paxflow(&[
            "generate", "--events", "1", "--seed", "1", wrong[0], wrong[1],
        ]))
        .await;
        assert!(code != 0 && err.contains(wrong[0]), "{err}");
    }
}

/// Runs a command and reads no more than its first line.
async fn first_line_of(mut command: Command) -> Output {
    let mut child = command.spawn().unwrap();
    let mut first = String::new();
    let mut reader = BufReader::with_capacity(64, child.stdout.take().unwrap());
    reader.read_line(&mut first).await.unwrap();
    drop(reader);
    let output = child.wait_with_output().await.unwrap();
    canary::assert_output_silent(&command, &output);
    output
}

#[tokio::test]
async fn a_command_ends_quietly_when_its_reader_has_had_enough() {
    let generate = &["generate", "--events", "1000000", "--seed", "5"][..];
    for command in [generate, &["schema", "asyncapi"]] {
        let output = first_line_of(paxflow(command)).await;
        assert_eq!(output.status.code(), Some(141), "{output:?}");
        assert!(output.stderr.is_empty(), "{output:?}");
    }
}

#[tokio::test]
async fn completions_end_quietly_when_nobody_reads_them() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = paxflow(&["completions", "bash"]);
    let child = command.stdout(writer).spawn().unwrap();
    let output = child.wait_with_output().await.unwrap();
    assert_eq!(output.status.code(), Some(141), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
}

/// A place whose worker has applied some events.
async fn filled(database: &Database) -> Place {
    let place = place(database);
    place.publish(&generated(500, 9, 0.02)).await;
    let worker = place.worker().await;
    place.committed_at_least(500).await;
    worker.stop().await;
    place
}

#[tokio::test]
async fn verify_names_a_drift_of_one_cent_and_mends_just_that() {
    let database = Database::new().await;
    let place = filled(&database).await;
    let (code, out, err) = ran(place.paxflow(&["verify"])).await;
    assert_eq!(code, 0, "{err}");
    assert!(out.starts_with("exact: "), "{out}");

    let mut connection = place.connect().await;
    let planted = "UPDATE flight_demand SET total_revenue = total_revenue + 0.01 WHERE (flight_id, cabin, currency) =
                   (SELECT flight_id, cabin, currency FROM flight_demand JOIN flights USING (flight_id)
                    WHERE booking_count > 0 AND flights.deleted_at IS NULL AND flights.status <> 'cancelled'
                    ORDER BY flight_id LIMIT 1)";
    let rows = sqlx::query(planted)
        .execute(&mut connection)
        .await
        .unwrap()
        .rows_affected();
    assert_eq!(rows, 1);
    let (code, out, _) = ran(place.paxflow(&["verify"])).await;
    assert_eq!(code, 1);
    assert!(
        out.lines()
            .any(|line| line.starts_with("market_fares ") && line.contains("total_revenue is ")),
        "{out}"
    );
    assert!(out.contains("DRIFT: "), "{out}");

    let (code, out, _) = ran(place.paxflow(&["verify", "--json"])).await;
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &report["exact"]), (1, &json!(false)));
    let differences = report["differences"].as_array().unwrap();
    assert!(
        differences
            .iter()
            .any(|d| d["relation"] == "market_fares" && d["column"] == "total_revenue"),
        "{out}"
    );

    let (code, out, _) = ran(place.paxflow(&["verify", "--repair"])).await;
    assert_eq!(code, 0, "{out}");
    assert!(out.contains("rebuilt 1 stored rows"), "{out}");
    let (code, out, _) = ran(place.paxflow(&["verify", "--repair", "--json"])).await;
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (code, &report["exact"], &report["repaired"]),
        (0, &json!(true), &json!(0))
    );
}

#[tokio::test]
async fn verify_repair_as_json_is_one_document() {
    let database = Database::new().await;
    let place = filled(&database).await;
    let planted =
        "UPDATE flight_demand SET total_revenue = total_revenue + 1 WHERE booking_count > 0";
    execute(&mut place.connect().await, planted).await;
    let (code, out, _) = ran(place.paxflow(&["verify", "--repair", "--json"])).await;
    let report: Value = serde_json::from_str(&out).expect("one JSON document");
    assert_eq!((code, &report["exact"]), (0, &json!(true)));
    assert!(report["repaired"].as_i64() > Some(0), "{out}");
    assert!(!report["mended"].as_array().unwrap().is_empty(), "{out}");
}

#[tokio::test]
async fn status_is_one_screen_with_and_without_a_queue() {
    let database = Database::new().await;
    let place = place(&database);
    let (code, out, err) = ran(place.paxflow(&["status"])).await;
    assert_eq!(code, 0, "{err}");
    assert!(
        out.contains("does not exist yet") && out.contains("verify      never"),
        "{out}"
    );

    place.publish(&generated(100, 9, 0.1)).await;
    let producer = place.producer().await;
    let dead = place.topology.dead_letters();
    producer
        .send(&dead, "", properties(), b"dead")
        .await
        .await
        .unwrap();
    // The clock of its producer is ahead, by years.
    let mut ahead = flight(json!({ "flight_id": "AHEAD" }));
    ahead["time"] = json!("2090-01-01T00:00:00Z");
    producer.publish(&[ahead.to_string().into_bytes()]).await;
    let worker = place.worker().await;
    place.committed_at_least(101).await;
    let (code, out, _) = ran(place.paxflow(&["status"])).await;
    assert!(code == 0 && out.lines().count() <= 24, "{out}");
    assert!(
        out.contains("1 consumers, 1 dead letters") && out.contains("received    101 in "),
        "{out}"
    );
    assert!(!out.contains("2090"), "{out}");

    ran(place.paxflow(&["verify"])).await;
    let (code, out, _) = ran(place.paxflow(&["status", "--json"])).await;
    let status: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (
            code,
            &status["workers"]["received"],
            &status["queue"]["consumers"]
        ),
        (0, &json!(101), &json!(1))
    );
    assert_eq!(status["last_verify"]["drift_count"], 0);
    worker.stop().await;

    // One that began before it, ended after it and found drift.
    let late = "INSERT INTO verifications (started_at, finished_at, row_count, drift_count, repaired_count)
                VALUES (now() - interval '1 hour', now(), 1, 1, 0)";
    execute(&mut place.connect().await, late).await;
    let (_, out, _) = ran(place.paxflow(&["status", "--json"])).await;
    let status: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(status["last_verify"]["drift_count"], 0);
}

#[tokio::test]
async fn a_file_of_settings_counts_in_its_directory_and_not_below() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join(".env"), "PAXFLOW_BATCH_MAX=many\n").unwrap();
    let below = dir.path().join("below");
    std::fs::create_dir(&below).unwrap();
    for (place, reads) in [(dir.path(), true), (&below, false)] {
        let mut status = paxflow(&["status"]);
        status.current_dir(place);
        let (code, _, err) = ran(status).await;
        assert_eq!(code, 1);
        assert_eq!(err.contains("PAXFLOW_BATCH_MAX"), reads, "{err}");
    }
}

#[tokio::test]
async fn a_parameter_that_is_not_known_is_named_without_its_value() {
    let mut check = paxflow(&["db", "check"]);
    check.env(
        "DATABASE_URL",
        "postgres://joe@127.0.0.1:1/x?sslpassword=canary",
    );
    let (code, _, err) = ran(check).await;
    assert_eq!((code, err.matches("sslpassword").count()), (1, 1), "{err}");
    assert!(
        err.contains("DATABASE_URL") && !err.contains("canary"),
        "{err}"
    );
}

#[tokio::test]
async fn a_command_without_its_server_fails_in_one_line() {
    // For verify, 1 says that there is drift.
    for (command, failure) in [("verify", 2), ("status", 1), ("rebuild", 1)] {
        let mut away = paxflow(&[command]);
        away.env(
            "DATABASE_URL",
            "postgres://paxflow:canary-secret@127.0.0.1:1/paxflow",
        );
        let (code, _, err) = ran(away).await;
        assert_eq!(code, failure);
        assert_one_line(&err);
        assert!(
            err.contains("127.0.0.1:1") && !err.contains("canary"),
            "{err}"
        );
        assert_eq!(err.matches("Connection refused").count(), 1, "{err}");
        let (code, _, err) = ran(paxflow(&[command])).await;
        assert_eq!(code, failure);
        assert!(err.contains("DATABASE_URL is not set"), "{err}");
    }
}

#[tokio::test]
async fn every_command_has_help_with_an_example() {
    for setting in SETTINGS {
        let (_, long, _) = ran(paxflow(&["--help"])).await;
        assert!(
            long.contains(setting.name),
            "{} is not in --help",
            setting.name
        );
    }
    let mut to_see = vec![Vec::<String>::new()];
    while let Some(path) = to_see.pop() {
        let words = path.iter().map(String::as_str).chain(["--help"]);
        let (code, help, _) = ran(paxflow(&words.collect::<Vec<_>>())).await;
        assert_eq!(code, 0);
        // The usage line names the command as well.
        let (_, examples) = help.split_once("Example:\n  ").unwrap_or_default();
        let call = format!("paxflow {} ", path.join(" "));
        let shown = |line| format!("{line} ").contains(&call);
        assert!(path.is_empty() || examples.lines().any(shown), "{help}");
        to_see.extend(subcommands(&help).map(|command| [&path[..], &[command]].concat()));
    }
    let (_, help, _) = ran(paxflow(&["--help"])).await;
    assert_eq!(subcommands(&help).collect::<Vec<_>>(), COMMANDS);
}

/// The commands that a help text lists.
fn subcommands(help: &str) -> impl Iterator<Item = String> {
    let section = help
        .split("Commands:\n")
        .nth(1)
        .and_then(|rest| rest.split("\n\n").next())
        .unwrap_or_default();
    section
        .lines()
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|command| *command != "help")
        .map(str::to_owned)
}

/// As a container has it that was given no value: not a worker that says nothing.
#[tokio::test]
async fn an_empty_log_filter_is_refused() {
    let mut command = paxflow(&["status"]);
    command.env("PAXFLOW_LOG", "");
    let (code, _, err) = ran(command).await;
    assert!(
        code == 1 && err.contains("PAXFLOW_LOG has a wrong value"),
        "{err}"
    );
}

#[tokio::test]
async fn a_wrong_setting_is_named_with_its_form_and_default() {
    for setting in SETTINGS {
        let wrong = match setting.name {
            "PAXFLOW_EXCHANGE" | "PAXFLOW_QUEUE" => "",
            "PAXFLOW_LOG" => "verbose",
            // Any name is an environment.
            "PAXFLOW_ENV" => continue,
            _ => "canary value",
        };
        let mut command = paxflow(&["status"]);
        command.env(setting.name, wrong);
        let (code, _, err) = ran(command).await;
        assert_eq!(code, 1, "{}", setting.name);
        assert_one_line(&err);
        assert!(
            err.contains(setting.name) && err.contains(setting.form),
            "{}: {err}",
            setting.name
        );
        assert!(
            err.contains(&format!("default: {}", setting.default)) || setting.default.is_empty(),
            "{err}"
        );
        assert!(!err.contains("canary"), "{err}");
    }
}

#[tokio::test]
async fn completions_and_man_pages_know_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        let (code, out, _) = ran(paxflow(&["completions", shell])).await;
        assert_eq!(code, 0);
        let words: Vec<_> = out.split(|c: char| !c.is_alphanumeric()).collect();
        for command in COMMANDS {
            assert!(
                words.contains(&command),
                "{command} is not in the completions of {shell}"
            );
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let pages = directory.path().join("man");
    let (code, _, err) = ran(paxflow(&["man", pages.to_str().unwrap()])).await;
    assert_eq!(code, 0, "{err}");
    for command in COMMANDS {
        let page = std::fs::read_to_string(pages.join(format!("paxflow-{command}.1"))).unwrap();
        assert!(page.contains("Example:"), "{command}");
    }
}

#[tokio::test]
async fn create_leaves_no_scratch_database_behind_when_it_is_interrupted() {
    let database = Database::new().await;
    let place = place(&database);
    let mut connection = database.connect().await;
    let dir = tempfile::tempdir().unwrap();
    // The desired schema takes its time.
    std::fs::write(dir.path().join("schema.sql"), "SELECT pg_sleep(100);").unwrap();
    let dir = dir.path().to_str().unwrap();
    let create = [
        "db",
        "migrate",
        "--dir",
        dir,
        "create",
        "--autogenerate",
        "-m",
        "later",
    ];
    for name in ["INT", "TERM"] {
        let creating = Running::start(place.paxflow(&create));
        let id = creating.id();
        let scratch = format!(
            "SELECT count(*) FROM pg_database WHERE datname LIKE 'paxflow\\_scratch\\_{id}\\_%'"
        );
        let sleeping = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname LIKE 'paxflow\\_scratch\\_{id}\\_%'"
        );
        until("it builds the desired schema", async || {
            (dump(&mut connection, &sleeping).await == "1\n").then_some(())
        })
        .await;
        signal(id, name);
        let (code, out, err) = creating.ended().await;
        assert_eq!(code, 1, "{out}{err}");
        assert_eq!(
            err.trim_end().lines().last(),
            Some("paxflow: interrupted: nothing is written")
        );
        assert_eq!(
            dump(&mut connection, &scratch).await,
            "0\n",
            "after SIG{name}"
        );
        assert_eq!(std::fs::read_dir(dir).unwrap().count(), 1);
    }
}
