//! Backup and restore: the same rows, exact, as a whole or not at all.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};

use indicatif::ProgressBar;
use paxflow::config::Secret;
use paxflow::db;
use paxflow::db::backup::{Rows, Server, Snapshot};
use serde_json::{Value, json};
use sqlx::postgres::PgConnection;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

use crate::events::{booking, flight};
use crate::process::{Place, generated, output, place, ran, until};
use crate::running::{Running, signal};
use crate::support::{Database, WAITING, assert_exact, assert_same_rows, dump, execute, holding};

const PASSENGER: &str = "Canary Passenger";

/// A database, and a directory for its backups.
pub struct Source {
    _database: Database,
    pub place: Place,
    pub connection: PgConnection,
    pub directory: TempDir,
}

impl Source {
    /// With a little of everything in it.
    pub async fn filled() -> Self {
        let database = Database::new().await;
        let mut applier = database.applier().await;
        let flights: Vec<_> = (0..20)
            .map(|n| flight(json!({ "flight_id": format!("F{n}") })))
            .collect();
        applier.apply(&flights).await;
        let bookings: Vec<_> = (0..200)
            .map(|n| {
                let id = format!("B{n}");
                let flight_id = format!("F{}", n % 22);
                let passenger = json!({ "name": PASSENGER, "email": "canary@example.com" });
                booking(json!({ "booking_id": id, "flight_id": flight_id, "passenger": passenger }))
            })
            .collect();
        applier.apply(&bookings).await;
        let bad = booking(json!({ "booking_id": "BAD", "cabin": "Z" }));
        applier.apply(&[bad]).await;
        let mut connection = database.connect().await;
        execute(
            &mut connection,
            "INSERT INTO users (email, display_name)
             SELECT n || '@example.com', E'a\\tb\\\\.\\n\\\\.\\n' || n FROM generate_series(1, 7) n",
        )
        .await;
        Self {
            place: place(&database),
            connection,
            _database: database,
            directory: tempfile::tempdir().unwrap(),
        }
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Backs it up and returns the file.
    pub async fn backup(&self) -> PathBuf {
        let file = self.file("market.dump");
        let (code, out, err) = ran(self.place.paxflow(&["db", "backup", text(&file)])).await;
        assert_eq!((code, err.as_str()), (0, ""), "{out}");
        file
    }
}

pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A database with nothing in it.
pub async fn empty() -> Database {
    let database = Database::new().await;
    let mut connection = database.connect().await;
    execute(
        &mut connection,
        "DROP SCHEMA public CASCADE; CREATE SCHEMA public",
    )
    .await;
    database
}

pub async fn restore(target: &Database, arguments: &[&str]) -> (i32, String, String) {
    let arguments = [&["db", "restore"], arguments].concat();
    ran(place(target).paxflow(&arguments)).await
}

/// What the schema is made of, and every row of every table.
pub async fn everything(connection: &mut PgConnection) -> String {
    let schema = [
        "SELECT pg_describe_object(classoid, objoid, objsubid), description FROM pg_description
         WHERE classoid IN ('pg_class'::regclass, 'pg_proc'::regclass, 'pg_trigger'::regclass)
           AND objoid >= 16384",
        "SELECT conrelid::regclass, conname, pg_get_constraintdef(oid) FROM pg_constraint
         WHERE connamespace = 'public'::regnamespace",
        "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'",
        "SELECT viewname, definition FROM pg_views WHERE schemaname = 'public'",
        "SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal",
    ];
    let mut all = String::new();
    for rows in schema {
        let sorted = format!("SELECT * FROM ({rows}) s ORDER BY s::text COLLATE \"C\"");
        all += &dump(connection, &sorted).await;
    }
    let tables = "SELECT relname FROM pg_class
                  WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' ORDER BY relname";
    for table in dump(connection, tables).await.lines() {
        let rows = format!(
            "SELECT '{table}', to_jsonb(t)::text COLLATE \"C\" AS line FROM {table} t ORDER BY line"
        );
        all += &dump(connection, &rows).await;
    }
    all
}

pub fn assert_one_line(err: &str) {
    assert!(
        err.starts_with("paxflow: ") && err.trim_end().lines().count() == 1,
        "{err}"
    );
    assert!(!err.contains("anary"), "{err}");
}

#[tokio::test]
async fn what_is_restored_is_what_was_backed_up() {
    let mut source = Source::filled().await;
    let file = source.file("market.dump");
    let (code, out, err) = ran(source
        .place
        .paxflow(&["db", "backup", text(&file), "--json"]))
    .await;
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    let backup: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        backup["revision"],
        json!(db::revisions::latest(&db::migrate::MIGRATOR))
    );
    assert_eq!(backup["rows"]["public.bookings"], json!(200));
    assert_eq!(backup["rows"]["public.users"], json!(7));
    assert_eq!(backup["rows"]["public.user_sessions"], json!(0));
    assert_eq!(backup["bytes"], json!(fs::metadata(&file).unwrap().len()));

    let target = empty().await;
    let (code, out, err) = restore(&target, &[text(&file), "--json"]).await;
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    let restored: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(restored["rows"], backup["rows"]);
    assert_eq!(
        (&restored["exact"], &restored["revision"]),
        (&json!(true), &backup["revision"])
    );
    let mut connection = target.connect().await;
    let (found, expected) = (
        everything(&mut connection).await,
        everything(&mut source.connection).await,
    );
    assert!(expected.contains(PASSENGER) && expected.contains("bookings_flight"));
    assert_same_rows(&found, &expected);
    assert_exact(&mut connection).await;
    let next = "INSERT INTO users (email, display_name) VALUES ('x', 'x') RETURNING user_id";
    assert_eq!(
        dump(&mut connection, next).await,
        "8\n",
        "numbers go on where they were"
    );
    let analyzed =
        "SELECT count(*) FROM pg_stats WHERE tablename = 'bookings' AND attname = 'cabin'";
    assert_eq!(dump(&mut connection, analyzed).await, "1\n");
}

#[tokio::test]
async fn a_backup_while_workers_commit_is_one_moment() {
    let database = Database::new().await;
    let place = place(&database);
    let worker = place.worker().await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("live.dump");
    let events = generated(4000, 21, 0.02);
    let backed_up = AtomicBool::new(false);
    let producer = place.producer().await;
    let publishing = async {
        let mut published = 0;
        for bodies in events.chunks(50) {
            producer.publish(bodies).await;
            published += bodies.len() as i64;
            // Something goes on being committed until the backup is there.
            place.committed_at_least(published - 100).await;
            if backed_up.load(Ordering::Relaxed) {
                break;
            }
        }
        published
    };
    let backing_up = async {
        place.committed_at_least(300).await;
        let result = ran(place.paxflow(&["db", "backup", text(&file)])).await;
        backed_up.store(true, Ordering::Relaxed);
        result
    };
    let (published, (code, out, err)) = tokio::join!(publishing, backing_up);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    place.committed_at_least(published).await;
    worker.stop().await;

    let target = empty().await;
    let (code, out, err) = restore(&target, &[text(&file)]).await;
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(out.contains("\nexact: "), "{out}");
    let restored = crate::process::place(&target);
    restored.assert_exact().await;
    let (received, settled) = restored.committed().await;
    assert_eq!(received, settled);
    assert!(
        received >= 300 && received < published,
        "{received} of {published}"
    );
}

#[tokio::test]
async fn a_file_is_private_whole_and_not_overwritten() {
    let source = Source::filled().await;
    let file = source.file("market.dump");
    let partial = source.file("market.dump.partial");
    // Left behind by one that was killed, longer than what comes.
    fs::write(&partial, vec![b'x'; 10_000_000]).unwrap();
    fs::set_permissions(&partial, fs::Permissions::from_mode(0o644)).unwrap();
    let first = source.backup().await;
    assert_eq!(first, file);
    let metadata = fs::metadata(&file).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    assert!(metadata.len() < 1_000_000 && !partial.exists());
    let written = fs::read(&file).unwrap();

    let (code, _, err) = ran(source.place.paxflow(&["db", "backup", text(&file)])).await;
    assert_eq!(code, 1);
    assert_one_line(&err);
    assert!(
        err.contains(text(&file)) && err.contains("--force"),
        "{err}"
    );
    assert_eq!(fs::read(&file).unwrap(), written);

    let held = File::create(&partial).unwrap();
    held.lock().unwrap();
    let forced = ["db", "backup", "--force", text(&file)];
    let (code, _, err) = ran(source.place.paxflow(&forced)).await;
    assert_eq!(code, 1);
    assert_one_line(&err);
    assert!(err.contains("another backup") && partial.exists(), "{err}");
    drop(held);
    let (code, _, err) = ran(source.place.paxflow(&forced)).await;
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(file.exists() && !partial.exists());
}

#[tokio::test]
async fn a_file_that_holds_other_rows_than_the_database_did_is_found_out() {
    let source = Source::filled().await;
    let file = source.backup().await;
    let options = db::options(&Secret::new(source.place.database_url.as_str()), "test").unwrap();
    let server = Server::look(options).await.unwrap();
    let hidden = ProgressBar::hidden();
    let mut snapshot = Snapshot {
        revision: db::revisions::latest(&db::migrate::MIGRATOR),
        rows: Rows::new(),
    };
    let other = server.read_back(&file, &snapshot, &hidden).await;
    let said = other.unwrap_err().to_string();
    assert!(said.contains("public._sqlx_migrations has "), "{said}");
    let counts = "SELECT format('%I.%I', 'public', relname) FROM pg_class
                  WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'";
    let mut connection = source.place.connect().await;
    for table in dump(&mut connection, counts).await.lines() {
        let count = dump(&mut connection, &format!("SELECT count(*) FROM {table}")).await;
        snapshot
            .rows
            .insert(table.to_owned(), count.trim().parse().unwrap());
    }
    server.read_back(&file, &snapshot, &hidden).await.unwrap();
    // One that this file lacks.
    *snapshot.rows.get_mut("public.bookings").unwrap() += 1;
    let said = server
        .read_back(&file, &snapshot, &hidden)
        .await
        .unwrap_err()
        .to_string();
    assert!(
        said.ends_with("public.bookings has 200 rows, should have 201"),
        "{said}"
    );
}

#[tokio::test]
async fn a_backup_that_fails_leaves_nothing_and_says_why() {
    let source = Source::filled().await;
    let file = source.file("market.dump");
    let nowhere = source.file("no/such/directory/market.dump");
    let schemaless = empty().await;
    let mut away = source.place.clone();
    away.database_url = "postgres://paxflow:canary-secret@127.0.0.1:1/market".to_owned();
    let pipe = PathBuf::from("-");
    let cases = [
        (&source.place, &pipe, "name a file"),
        (&source.place, &nowhere, "No such file"),
        (&place(&schemaless), &file, "no paxflow schema"),
        (&away, &file, "127.0.0.1:1/market"),
    ];
    for (place, file, expected) in cases {
        let (code, _, err) = ran(place.paxflow(&["db", "backup", text(file)])).await;
        assert_eq!(code, 1, "{err}");
        assert_one_line(&err);
        assert!(err.contains(expected), "{err}");
        assert_eq!(fs::read_dir(source.directory.path()).unwrap().count(), 0);
    }
}

#[tokio::test]
async fn a_backup_that_is_interrupted_leaves_nothing() {
    let mut source = Source::filled().await;
    let file = source.file("market.dump");
    for name in ["INT", "TERM"] {
        let mut command = source.place.paxflow(&["db", "backup", text(&file)]);
        command.stderr(Stdio::piped());
        let (stopped, locking) = start_and_hold_up(&mut source, command).await;
        assert!(source.file("market.dump.partial").exists());
        signal(stopped.id().unwrap(), name);
        let ended = stopped.wait_with_output().await.unwrap();
        let err = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(1), "{err}");
        assert!(err.contains("interrupted"), "{err}");
        assert_eq!(fs::read_dir(source.directory.path()).unwrap().count(), 0);
        // A session that waits for a lock does not see that its client has gone.
        execute(&mut locking.await.unwrap(), "ROLLBACK").await;
        gone(&mut source.connection, "backup").await;
    }
}

#[tokio::test]
async fn a_terminal_sees_progress_and_a_pipe_does_not() {
    let source = Source::filled().await;
    let file = source.file("seen.dump");
    let program = source.place.paxflow(&["db", "backup", text(&file)]);
    let mut terminal = Command::new("script");
    let line = format!(
        "{} db backup {}",
        env!("CARGO_BIN_EXE_paxflow"),
        text(&file)
    );
    terminal
        .args(["--quiet", "--return", "--command", &line, "/dev/null"])
        .env("TERM", "xterm")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    for (name, value) in program.as_std().get_envs() {
        if let Some(value) = value {
            terminal.env(name, value);
        }
    }
    let seen = output(terminal).await;
    let seen = String::from_utf8(seen.stdout).unwrap();
    assert!(
        seen.contains("rows read back") && seen.contains("written in"),
        "{seen:?}"
    );
    assert!(seen.contains("backed up "), "{seen:?}");
    let piped = ["db", "backup", "--force", text(&file)];
    let (code, out, err) = ran(source.place.paxflow(&piped)).await;
    assert_eq!(
        (code, err.as_str(), out.lines().count()),
        (0, "", 1),
        "{out}"
    );
}

/// Holds a lock on a table that no worker needs, until the connection's transaction ends.
pub async fn lock(place: &Place, mode: &str) -> PgConnection {
    let mut connection = place.connect().await;
    let lock = holding(&format!("LOCK TABLE users IN {mode} MODE"));
    execute(&mut connection, &lock).await;
    connection
}

/// Waits until a command has so many sessions, of which one waits for a lock.
pub async fn blocked(connection: &mut PgConnection, command: &str, sessions: i64) {
    let waiting = format!(
        "SELECT count(*), count(*) FILTER (WHERE wait_event_type = 'Lock') FROM pg_stat_activity
         WHERE datname = current_database() AND application_name = 'paxflow {command}'"
    );
    until("the command waits", async || {
        (dump(connection, &waiting).await == format!("{sessions} | 1\n")).then_some(())
    })
    .await;
}

/// Starts a backup whose pg_dump waits for a table: behind somebody who waits for the backup, which holds it. Returns that one
/// as well, once it has the table.
async fn start_and_hold_up(
    source: &mut Source,
    mut command: Command,
) -> (Child, JoinHandle<PgConnection>) {
    let mut first = lock(&source.place, "ACCESS EXCLUSIVE").await;
    let child = command.spawn().unwrap();
    blocked(&mut source.connection, "backup", 1).await;
    let place = source.place.clone();
    let second = tokio::spawn(async move { lock(&place, "ACCESS EXCLUSIVE").await });
    until("both wait for the table", async || {
        (source.place.number(WAITING).await == 2).then_some(())
    })
    .await;
    execute(&mut first, "ROLLBACK").await;
    blocked(&mut source.connection, "backup", 2).await;
    (child, second)
}

/// Waits until nothing of a command is left.
pub async fn gone(connection: &mut PgConnection, command: &str) {
    let sessions = format!(
        "SELECT count(*) FROM pg_stat_activity
         WHERE datname = current_database() AND application_name = 'paxflow {command}'"
    );
    until("the command is gone", async || {
        (dump(connection, &sessions).await == "0\n").then_some(())
    })
    .await;
}

/// The command lines of a process's children, as everybody on the machine sees them.
fn children(parent: u32) -> Vec<String> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let children = processes.filter(|process| {
        let stat = fs::read_to_string(process.path().join("stat")).unwrap_or_default();
        let after_name = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
        after_name.split(' ').nth(1) == Some(&parent.to_string())
    });
    children
        .map(|process| fs::read_to_string(process.path().join("cmdline")).unwrap_or_default())
        .collect()
}

#[tokio::test]
async fn a_backup_that_is_killed_never_looks_whole_and_its_children_show_no_password() {
    let mut source = Source::filled().await;
    let file = source.file("market.dump");
    let command = source.place.paxflow(&["db", "backup", text(&file)]);
    let (mut killed, locking) = start_and_hold_up(&mut source, command).await;
    let (_, password) = source.place.database_url.split_once("://").unwrap();
    let (password, _) = password.split_once('@').unwrap();
    let (_, password) = password.split_once(':').unwrap();
    let seen = children(killed.id().unwrap());
    assert!(seen.iter().any(|line| line.contains("pg_dump")), "{seen:?}");
    assert!(!seen.iter().any(|line| line.contains(password)), "{seen:?}");
    killed.kill().await.unwrap();
    assert!(!file.exists());
    execute(&mut locking.await.unwrap(), "ROLLBACK").await;
    gone(&mut source.connection, "backup").await;
    assert!(!file.exists() && source.file("market.dump.partial").exists());
    // Unless pg_dump still writes there.
    until("what it left is free", async || {
        let again = ran(source.place.paxflow(&["db", "backup", text(&file)])).await;
        (again.0 == 0).then_some(())
    })
    .await;
}

/// What is backed up is schema public: of tables that are elsewhere the file would hold nothing.
#[tokio::test]
async fn tables_outside_of_public_are_refused_and_not_left_out() {
    let database = Database::new().await;
    let mut place = place(&database);
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("there.dump");
    let file = file.to_str().unwrap();
    let (code, _, err) = ran(place.paxflow(&["db", "backup", file])).await;
    assert_eq!(code, 0, "{err}");
    execute(&mut database.connect().await, "CREATE SCHEMA app").await;
    place.database_url += "?options=-csearch_path%3Dapp%2Cpublic";
    for command in [
        &["db", "backup", "elsewhere.dump"][..],
        &["db", "restore", file],
    ] {
        let mut command = place.paxflow(command);
        command.current_dir(directory.path());
        let (code, _, err) = ran(command).await;
        assert!(code == 1 && err.contains("leads to schema app"), "{err}");
    }
    let files = fs::read_dir(directory.path()).unwrap().count();
    assert_eq!(files, 1);
}

/// A table that is rewritten, by a change of the schema, is empty to a snapshot of before.
#[tokio::test]
async fn a_backup_taken_while_a_table_is_rewritten_holds_its_rows() {
    let source = Source::filled().await;
    let mut rewriting = source.place.connect().await;
    execute(
        &mut rewriting,
        "SET idle_in_transaction_session_timeout = 0; BEGIN;
         ALTER TABLE users ADD COLUMN lot double precision DEFAULT random()",
    )
    .await;
    let file = source.file("market.dump");
    let backup = Running::start(source.place.paxflow(&["db", "backup", text(&file)]));
    until("the backup waits for the table", async || {
        let waiting = "SELECT count(*) FROM pg_stat_activity
             WHERE datname = current_database() AND wait_event_type = 'Lock'";
        (source.place.number(waiting).await > 0).then_some(())
    })
    .await;
    execute(&mut rewriting, "COMMIT").await;
    let (code, out, err) = backup.ended().await;
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    let target = empty().await;
    let (code, out, err) = restore(&target, &[text(&file)]).await;
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    let mut restored = target.connect().await;
    assert_eq!(
        dump(&mut restored, "SELECT count(*) FROM users").await,
        "7\n"
    );
}

#[tokio::test]
async fn a_table_is_backed_up_without_those_that_inherit_from_it() {
    let source = Source::filled().await;
    execute(
        &mut source.place.connect().await,
        "CREATE TABLE parent (n integer); CREATE TABLE child () INHERITS (parent);
         INSERT INTO parent VALUES (1); INSERT INTO child VALUES (2), (3)",
    )
    .await;
    let file = source.backup().await;
    let target = empty().await;
    let (code, out, err) = restore(&target, &[text(&file)]).await;
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    let rows = dump(
        &mut target.connect().await,
        "SELECT n FROM parent ORDER BY n",
    )
    .await;
    assert_eq!(rows, "1\n2\n3\n");
}
