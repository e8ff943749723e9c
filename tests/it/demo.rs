//! `paxflow demo`, as a newcomer runs it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{ChildStdout, Command};

use crate::process::{PATIENCE, paxflow, place, ran, until};
use crate::running::signal;
use crate::support::Database;

/// The demo with private servers, whose data go below `directory`.
fn demo(directory: &tempfile::TempDir) -> Command {
    // PostgreSQL refuses to run as root: its own user must be able to get there.
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = paxflow(&["demo"]);
    command
        .env("TMPDIR", directory.path())
        .current_dir(directory.path());
    command
}

/// Processes that were started with this directory in their command line, and what lies in it.
fn left_of(directory: &tempfile::TempDir) -> Vec<String> {
    let directory = directory.path().to_str().unwrap();
    let files = fs::read_dir(directory).unwrap();
    let mut left: Vec<_> = files
        .map(|file| file.unwrap().path().display().to_string())
        .collect();
    for process in fs::read_dir("/proc").unwrap().flatten() {
        let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(directory) {
            left.push(line);
        }
    }
    left
}

fn assert_says(shown: &str, expected: &[&str]) {
    for expected in expected {
        assert!(shown.contains(expected), "{expected} is not in\n{shown}");
    }
}

#[tokio::test]
async fn the_demo_proves_itself_and_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (code, shown, log) = ran(demo(&directory)).await;
    assert_eq!(code, 0, "{shown}{log}");
    let expected = [
        "71258 sample events",
        "JFK-HNL",
        "Verdicts: 71261 received = ",
        "total_mismatch",
        "verify: exact: ",
    ];
    assert_says(&shown, &expected);
    assert_eq!(left_of(&directory), Vec::<String>::new());
}

#[tokio::test]
async fn the_demo_as_json_is_one_document_with_the_verdict() {
    let database = Database::new().await;
    let place = place(&database);
    let (code, out, log) = ran(place.paxflow(&["demo", "--json"])).await;
    assert_eq!(code, 0, "{out}{log}");
    assert_says(
        &log,
        &["71258 sample events", "all confirmed", "Running the worker"],
    );
    let shown: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (&shown["exact"], &shown["events"]),
        (&json!(true), &json!(71_261))
    );
    assert_eq!(shown["verify"]["rows_different"], 0);
    let verdicts = shown["verdicts"].as_object().unwrap();
    let settled = verdicts.iter().filter(|(name, _)| *name != "received");
    let settled: u64 = settled.map(|(_, count)| count.as_u64().unwrap()).sum();
    assert_eq!((settled, &verdicts["received"]), (71_261, &json!(71_261)));
    assert_eq!(shown["top_markets"].as_array().unwrap().len(), 10);
    assert_eq!(shown["top_markets"][0]["market"], "JFK-HNL");
    let reasons = shown["quarantined"].as_array().unwrap();
    assert!(
        reasons.iter().any(|row| row["reason"] == "total_mismatch"),
        "{out}"
    );
    assert!(shown["seconds"].as_f64().unwrap() > 0.0);
}

/// Reads what the demo prints, up to a line that says so.
async fn read_to(lines: &mut Lines<BufReader<ChildStdout>>, what: &str) {
    let read = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            if line.contains(what) {
                return;
            }
        }
        panic!("the demo ended before it said: {what}");
    };
    let said = tokio::time::timeout(PATIENCE, read).await;
    said.unwrap_or_else(|_| panic!("the demo has not said in {PATIENCE:?}: {what}"));
}

#[tokio::test]
async fn a_demo_that_is_kept_ends_in_good_order() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = demo(&directory);
    let mut demo = command.arg("--keep").spawn().unwrap();
    let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines();
    read_to(&mut lines, "Ctrl-C stops it all").await;
    signal(demo.id().unwrap(), "INT");
    read_to(&mut lines, "The private servers are stopped").await;
    let ended = demo.wait_with_output().await.unwrap();
    assert!(ended.status.success(), "{ended:?}");
    // The worker was stopped before its servers.
    let log = String::from_utf8_lossy(&ended.stderr);
    assert_says(&log, &["stopping"]);
    assert!(!log.contains("waiting for"), "{log}");
    assert_eq!(left_of(&directory), Vec::<String>::new());
}

#[tokio::test]
async fn a_demo_keeps_out_of_production_and_of_the_way_of_other_workers() {
    let database = Database::new().await;
    let place = place(&database);
    let mut production = place.paxflow(&["demo"]);
    production.env("PAXFLOW_ENV", "production");
    let (code, _, err) = ran(production).await;
    assert!(code == 1 && err.contains("adds sample data"), "{err}");
    let worker = place.worker().await;
    until("it consumes", async || {
        let queue = place.waiting(&place.topology.queue).await;
        (queue.consumers == 1).then_some(())
    })
    .await;
    let (code, _, err) = ran(place.paxflow(&["demo"])).await;
    assert!(code == 1 && err.contains("1 workers consume"), "{err}");
    worker.stop().await;
    assert_eq!(place.number("SELECT count(*) FROM bookings").await, 0);
}

#[tokio::test]
async fn a_demo_that_is_kept_on_given_servers_tells_no_password_and_removes_nothing() {
    let database = Database::new().await;
    let place = place(&database);
    let mut demo = place.paxflow(&["demo", "--keep"]);
    let mut demo = demo.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines();
    read_to(&mut lines, "Still running").await;
    signal(demo.id().unwrap(), "INT");
    let mut rest = Vec::new();
    while let Some(line) = lines.next_line().await.unwrap() {
        rest.push(line);
    }
    assert!(demo.wait().await.unwrap().success());
    assert_eq!(rest, Vec::<String>::new());
    assert!(place.number("SELECT count(*) FROM bookings").await > 0);
}

#[tokio::test]
async fn a_killed_demo_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let mut demo = demo(&directory).spawn().unwrap();
    let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines();
    read_to(&mut lines, "both answer").await;
    // Two directories, two keepers, two servers at the least.
    assert!(left_of(&directory).len() >= 6, "the servers run");
    demo.kill().await.unwrap();
    until("nothing is left", async || {
        left_of(&directory).is_empty().then_some(())
    })
    .await;
}
