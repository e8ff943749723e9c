//! Restore: refusals that touch nothing, and everything or nothing.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use paxflow::db;
use paxflow::db::migrate::MIGRATOR;
use paxflow::db::revisions::ups;
use sqlx::postgres::PgConnection;
use tokio::process::Command;

use crate::backup::{
    Source, assert_one_line, blocked, empty, everything, gone, lock, restore, text,
};
use crate::process::{output, place, ran};
use crate::support::{Database, assert_same_rows, dump, execute};

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
         CREATE SEQUENCE mine_counted; CREATE COLLATION mine_order FROM \"C\";
         DO $$ BEGIN
             IF EXISTS (SELECT FROM pg_available_extensions WHERE name = 'pg_trgm') THEN
                 CREATE EXTENSION pg_trgm;
             END IF;
         END $$",
    )
    .await;
    let extensions = "SELECT count(*) FROM pg_proc WHERE proname = 'similarity'";
    let extensions_before = dump(&mut connection, extensions).await;
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
                UNION ALL SELECT count(*) FROM pg_collation WHERE collname = 'mine_order'";
    assert_eq!(dump(&mut connection, left).await, "0\n0\n0\n0\n");
    assert_eq!(dump(&mut connection, extensions).await, extensions_before);
}

#[tokio::test]
async fn what_others_have_made_of_it_is_not_dropped_with_it() {
    let source = Source::filled().await;
    let file = source.backup().await;
    let target = empty().await;
    let mut connection = target.connect().await;
    execute(
        &mut connection,
        "CREATE TABLE mine (id integer PRIMARY KEY); CREATE SCHEMA reports;
         CREATE MATERIALIZED VIEW reports.daily AS SELECT id FROM mine; CREATE PUBLICATION changes FOR TABLE mine",
    )
    .await;
    let before = everything(&mut connection).await;
    for (made, undo) in [
        ("publication changes of mine", "DROP PUBLICATION changes"),
        ("reports.daily", "DROP MATERIALIZED VIEW reports.daily"),
    ] {
        let (code, _, err) = restore(&target, &["--force", text(&file)]).await;
        assert!(
            code == 1 && err.contains(made) && err.contains("dropped with it"),
            "{err}"
        );
        assert_one_line(&err);
        assert_same_rows(&before, &everything(&mut connection).await);
        execute(&mut connection, undo).await;
    }
    let (code, out, err) = restore(&target, &["--force", text(&file)]).await;
    assert_eq!(code, 0, "{out}{err}");
}

#[tokio::test]
async fn a_table_of_somebody_else_that_has_the_name_of_one_of_ours_is_not_dropped() {
    let target = empty().await;
    let place = place(&target);
    let mut connection = target.connect().await;
    let (code, _, err) = ran(place.paxflow(&["db", "migrate", "upgrade", "5"])).await;
    assert_eq!(code, 0, "{err}");
    // A later revision makes one.
    execute(&mut connection, "CREATE TABLE users (name text)").await;
    for _ in 0..2 {
        let (code, _, err) = ran(place.paxflow(&["db", "drop", "--yes"])).await;
        assert_eq!(code, 0, "{err}");
        let relations = "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace";
        assert_eq!(dump(&mut connection, relations).await, "users\n");
    }
}

/// Neither that of another schema which comes first in the search_path, nor those of a program that records its revisions alike.
#[tokio::test]
async fn only_what_this_program_has_made_in_its_own_schema_is_dropped() {
    let database = Database::new().await;
    let mut connection = database.connect().await;
    execute(
        &mut connection,
        "CREATE SCHEMA app; CREATE TABLE app.users (name text);
         UPDATE _sqlx_migrations SET description = 'their first' WHERE version = 1",
    )
    .await;
    let mut place = place(&database);
    place.database_url += "?options=-csearch_path%3Dapp%2Cpublic";
    let drop = ["db", "drop", "--yes"];
    let (code, _, err) = ran(place.paxflow(&drop)).await;
    assert!(
        code == 1 && err.contains("revision 1 (their first), which this program does not know"),
        "{err}"
    );
    let ours = format!(
        "UPDATE _sqlx_migrations SET description = '{}' WHERE version = 1",
        ups(&MIGRATOR).next().unwrap().description
    );
    execute(&mut connection, &ours).await;
    let (code, _, err) = ran(place.paxflow(&drop)).await;
    assert_eq!(code, 0, "{err}");
    let left = "SELECT oid::regclass FROM pg_class
                WHERE relkind = 'r' AND relnamespace IN ('public'::regnamespace, 'app'::regnamespace)";
    assert_eq!(dump(&mut connection, left).await, "app.users\n");
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
            include_str!("../../migrations/0011_comments.down.sql"),
            include_str!("../../migrations/0010_airport_changes.down.sql"),
            include_str!("../../migrations/0009_booking_curve_days.down.sql"),
            include_str!("../../migrations/0008_bookings_flight.down.sql"),
            include_str!("../../migrations/0007_booking_curve.down.sql"),
            include_str!("../../migrations/0006_users.down.sql"),
            "; DELETE FROM _sqlx_migrations WHERE version >= 6"
        ),
    )
    .await;
    let file = source.backup().await;
    let target = empty().await;
    let (code, out, err) = restore(&target, &[text(&file)]).await;
    assert_eq!(code, 0, "{err}");
    let upgraded = format!(
        "upgraded the schema to revision {}\n",
        db::revisions::latest(&db::migrate::MIGRATOR)
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
        let (code, out, err) = restore(&target, &["--force", text(file)]).await;
        assert_eq!(code, 1, "{out}{err}");
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
async fn a_restore_that_is_killed_changes_nothing() {
    let source = Source::filled().await;
    let file = source.backup().await;
    let target = Database::new().await;
    let mut connection = target.connect().await;
    let before = everything(&mut connection).await;
    let mut locking = lock(&place(&target), "ACCESS SHARE").await;
    let arguments = ["db", "restore", "--force", text(&file)];
    let mut killed = place(&target).paxflow(&arguments).spawn().unwrap();
    blocked(&mut connection, "restore", 1).await;
    killed.kill().await.unwrap();
    execute(&mut locking, "ROLLBACK").await;
    gone(&mut connection, "restore").await;
    assert_same_rows(&everything(&mut connection).await, &before);
}

/// Everybody waits behind what it has dropped already.
#[tokio::test]
async fn a_restore_gives_way_to_who_uses_what_it_would_drop() {
    let source = Source::filled().await;
    let file = source.backup().await;
    let target = Database::new().await;
    let mut connection = target.connect().await;
    let before = everything(&mut connection).await;
    let locking = lock(&place(&target), "ACCESS SHARE").await;
    let (code, _, err) = restore(&target, &["--force", text(&file)]).await;
    assert!(
        code == 1 && err.contains("lock timeout: somebody is at work on what would be dropped"),
        "{err}"
    );
    gone(&mut connection, "restore").await;
    drop(locking);
    assert_same_rows(&everything(&mut connection).await, &before);
}
