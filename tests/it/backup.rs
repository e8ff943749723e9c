//! Backup and restore: the same rows, exact, as a whole or not at all.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};

use paxflow::db;
use serde_json::{Value, json};
use sqlx::postgres::PgConnection;
use tempfile::TempDir;
use tokio::process::Command;

use crate::events::{booking, flight};
use crate::process::{Place, generated, output, place, ran};
use crate::support::{Database, assert_exact, assert_same_rows, dump, execute};

const PASSENGER: &str = "Canary Passenger";

/// A database, and a directory for its backups.
struct Source {
    _database: Database,
    place: Place,
    connection: PgConnection,
    directory: TempDir,
}

impl Source {
    /// With a little of everything in it.
    async fn filled() -> Self {
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

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Backs it up and returns the file.
    async fn backup(&self) -> PathBuf {
        let file = self.file("market.dump");
        let (code, out, err) = ran(self.place.paxflow(&["db", "backup", text(&file)])).await;
        assert_eq!((code, err.as_str()), (0, ""), "{out}");
        file
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A database with nothing in it.
async fn empty() -> Database {
    let database = Database::new().await;
    let mut connection = database.connect().await;
    execute(
        &mut connection,
        "DROP SCHEMA public CASCADE; CREATE SCHEMA public",
    )
    .await;
    database
}

async fn restore(target: &Database, arguments: &[&str]) -> (i32, String, String) {
    let arguments = [&["db", "restore"], arguments].concat();
    ran(place(target).paxflow(&arguments)).await
}

/// What the schema is made of, and every row of every table.
async fn everything(connection: &mut PgConnection) -> String {
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

/// A database whose server does something to every booking that comes in: what no backup brings along.
async fn with_trigger(body: &str) -> (Database, PgConnection) {
    let database = empty().await;
    let mut connection = database.connect().await;
    let hidden = format!(
        "CREATE SCHEMA hidden;
         CREATE FUNCTION hidden.meddle() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} END $$;
         CREATE FUNCTION hidden.spy() RETURNS event_trigger LANGUAGE plpgsql AS $$
         BEGIN
             IF EXISTS (SELECT FROM pg_event_trigger_ddl_commands()
                        WHERE object_identity = 'public.bookings' AND command_tag = 'CREATE TABLE') THEN
                 CREATE TRIGGER meddle BEFORE INSERT ON public.bookings
                     FOR EACH ROW EXECUTE FUNCTION hidden.meddle();
             END IF;
         END $$;
         CREATE EVENT TRIGGER spy ON ddl_command_end WHEN TAG IN ('CREATE TABLE') EXECUTE FUNCTION hidden.spy()"
    );
    execute(&mut connection, &hidden).await;
    (database, connection)
}

fn assert_one_line(err: &str) {
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
    assert_eq!(backup["revision"], json!(db::migrate::latest()));
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
    assert!(expected.contains(PASSENGER) && expected.contains("bookings_active"));
    assert_same_rows(&found, &expected);
    assert_exact(&mut connection).await;
    let next = "INSERT INTO users (email, display_name) VALUES ('x', 'x') RETURNING user_id";
    assert_eq!(
        dump(&mut connection, next).await,
        "8\n",
        "numbers go on where they were"
    );
    let analyzed = "SELECT reltuples::integer FROM pg_class WHERE relname = 'bookings'";
    assert_eq!(dump(&mut connection, analyzed).await, "200\n");
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
async fn a_backup_that_fails_leaves_nothing_and_says_why() {
    let source = Source::filled().await;
    let file = source.file("market.dump");
    let nowhere = source.file("no/such/directory/market.dump");
    let schemaless = empty().await;
    let mut away = source.place.clone();
    away.database_url = "postgres://paxflow:canary-secret@127.0.0.1:1/market".to_owned();
    let cases = [
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
async fn a_database_that_is_not_empty_is_replaced_only_by_force_and_never_in_production() {
    let mut source = Source::filled().await;
    let file = source.backup().await;
    let target = Database::new().await;
    let mut connection = target.connect().await;
    execute(
        &mut connection,
        "CREATE TABLE mine (id integer); INSERT INTO mine VALUES (1);
         CREATE TYPE mood AS ENUM ('good'); CREATE DOMAIN mail AS text;
         CREATE FUNCTION mine(mood, at mail) RETURNS integer LANGUAGE sql AS 'SELECT 1';
         CREATE VIEW mine_too AS SELECT id FROM mine; CREATE MATERIALIZED VIEW mine_kept AS SELECT 1;
         CREATE SEQUENCE mine_counted;
         CREATE EXTENSION IF NOT EXISTS pg_trgm",
    )
    .await;
    let before = everything(&mut connection).await;
    let (code, _, err) = restore(&target, &[text(&file)]).await;
    assert_eq!(code, 1);
    assert_one_line(&err);
    assert!(
        err.contains("not empty") && err.contains("--force"),
        "{err}"
    );
    let arguments = ["db", "restore", "--force", text(&file)];
    let mut production = place(&target).paxflow(&arguments);
    production.env("PAXFLOW_ENV", "production");
    let (code, _, err) = ran(production).await;
    assert_eq!(code, 1);
    assert_one_line(&err);
    assert!(err.contains("PAXFLOW_ENV=production"), "{err}");
    assert_same_rows(&everything(&mut connection).await, &before);

    let (code, out, err) = restore(&target, &["--force", text(&file)]).await;
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert_same_rows(
        &everything(&mut connection).await,
        &everything(&mut source.connection).await,
    );
    let left = "SELECT count(*) FROM pg_class WHERE relname LIKE 'mine%'
                UNION ALL SELECT count(*) FROM pg_type WHERE typname IN ('mood', 'mail')
                UNION ALL SELECT count(*) FROM pg_proc WHERE proname = 'mine'
                UNION ALL SELECT count(*) FROM pg_proc WHERE proname = 'similarity'";
    assert_eq!(
        dump(&mut connection, left).await,
        "0\n0\n0\n1\n",
        "an extension stays"
    );
}

#[tokio::test]
async fn a_backup_of_a_newer_schema_is_refused_before_anything_is_touched() {
    let mut source = Source::filled().await;
    execute(
        &mut source.connection,
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (9999, 'of the future', true, '', 0)",
    )
    .await;
    let file = source.backup().await;
    let target = Database::new().await;
    let mut connection = target.connect().await;
    let before = everything(&mut connection).await;
    let (code, _, err) = restore(&target, &["--force", text(&file)]).await;
    assert_eq!(code, 1);
    assert_one_line(&err);
    assert!(
        err.contains("9999") && err.contains("newer paxflow"),
        "{err}"
    );
    assert_same_rows(&everything(&mut connection).await, &before);
}

#[tokio::test]
async fn a_backup_of_an_older_schema_is_upgraded() {
    let mut source = Source::filled().await;
    execute(
        &mut source.connection,
        concat!(
            include_str!("../../migrations/0006_users.down.sql"),
            "; DELETE FROM _sqlx_migrations WHERE version = 6"
        ),
    )
    .await;
    let file = source.backup().await;
    let target = empty().await;
    let (code, out, err) = restore(&target, &[text(&file)]).await;
    assert_eq!(code, 0, "{err}");
    let upgraded = format!(
        "upgraded the schema to revision {}\n",
        db::migrate::latest()
    );
    assert!(
        out.contains("at revision 5 from") && out.contains(&upgraded),
        "{out}"
    );
    let users = "SELECT count(*) FROM users";
    assert_eq!(dump(&mut target.connect().await, users).await, "0\n");
}

#[tokio::test]
async fn a_file_that_is_broken_or_foreign_changes_nothing() {
    let source = Source::filled().await;
    let file = source.backup().await;
    let whole = fs::read(&file).unwrap();
    let truncated = source.file("truncated.dump");
    // Behind the table of contents, in the midst of the rows.
    fs::write(&truncated, &whole[..whole.len() - 2000]).unwrap();
    let head = source.file("head.dump");
    fs::write(&head, &whole[..100]).unwrap();
    let script = source.file("script.sql");
    fs::write(&script, "DROP TABLE bookings;").unwrap();
    let foreign = source.file("foreign.dump");
    let mut other = empty().await;
    execute(
        &mut other.connect().await,
        "CREATE TABLE other (id integer)",
    )
    .await;
    pg_dump(&mut other, &foreign).await;
    let missing = source.file("missing.dump");
    let cases = [
        (&truncated, "pg_restore: "),
        (&head, "pg_restore: "),
        (&script, "custom format"),
        (&foreign, "no backup of paxflow"),
        (&missing, "No such file"),
    ];
    let target = Database::new().await;
    let mut connection = target.connect().await;
    execute(&mut connection, "CREATE TABLE mine (id integer)").await;
    let before = everything(&mut connection).await;
    for (file, expected) in cases {
        let (code, _, err) = restore(&target, &["--force", text(file)]).await;
        assert_eq!(code, 1, "{err}");
        assert_one_line(&err);
        assert!(err.contains(expected) && err.contains(text(file)), "{err}");
        assert_same_rows(&everything(&mut connection).await, &before);
    }
}

/// As whoever made that database would have done it.
async fn pg_dump(database: &mut Database, file: &Path) {
    let mut command = Command::new("pg_dump");
    let url = place(database).database_url;
    command
        .args(["--format=custom", "--file"])
        .arg(file)
        .arg(url)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let output = output(command).await;
    assert!(output.status.success(), "{output:?}");
}

#[tokio::test]
async fn a_restore_that_loses_a_row_is_undone() {
    let source = Source::filled().await;
    let file = source.backup().await;
    let swallow = "RETURN CASE WHEN NEW.booking_id = 'B7' THEN NULL ELSE NEW END;";
    let (target, mut connection) = with_trigger(swallow).await;
    let (code, _, err) = restore(&target, &[text(&file)]).await;
    assert_eq!(code, 1);
    assert_one_line(&err);
    assert!(
        err.contains("199 rows of public.bookings would be restored, the backup holds 200"),
        "{err}"
    );
    let relations = "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace";
    assert_eq!(dump(&mut connection, relations).await, "0\n");
}

#[tokio::test]
async fn what_the_database_refuses_is_said_without_values() {
    let source = Source::filled().await;
    let file = source.backup().await;
    let refuse =
        "RAISE EXCEPTION 'refused: \"%\"', NEW.passenger_name USING DETAIL = NEW.passenger_email;";
    let (target, _) = with_trigger(refuse).await;
    let (code, _, err) = restore(&target, &[text(&file)]).await;
    assert_eq!(code, 1);
    assert_one_line(&err);
    assert!(err.trim_end().ends_with("psql: refused"), "{err}");
}

#[tokio::test]
async fn a_drift_is_restored_as_it_was_and_said() {
    let mut source = Source::filled().await;
    execute(
        &mut source.connection,
        "UPDATE flight_demand SET total_revenue = total_revenue + 0.01 WHERE flight_id = 'F1';
         SET session_replication_role = replica;
         UPDATE airports SET timezone = 'Asia/Tokyo' WHERE iata_code IN (SELECT origin FROM flights)",
    )
    .await;
    let file = source.backup().await;
    let target = empty().await;
    let (code, out, err) = restore(&target, &[text(&file)]).await;
    assert_eq!((code, err.as_str()), (1, ""), "{out}");
    assert!(
        out.contains("\nDRIFT: ") && out.contains("--repair"),
        "{out}"
    );
    // No trigger of the airports has moved a flight meanwhile.
    assert_same_rows(
        &everything(&mut target.connect().await).await,
        &everything(&mut source.connection).await,
    );
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
