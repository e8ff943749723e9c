//! The schema by hand: revisions up and down, many at once, and what is refused.

use std::path::Path;
use std::process::Stdio;

use paxflow::db;
use paxflow::db::migrate::MIGRATOR;
use paxflow::db::revisions::{latest, ups};
use serde_json::{Value, json};
use sqlx::Connection;
use sqlx::migrate::Migrate;
use sqlx::postgres::PgConnection;
use tokio::process::Command;

use crate::boot::with_empty_database;
use crate::events::{booking, flight};
use crate::process::{Place, database_url, fed, generated, place, ran};
use crate::support::{Database, dump, execute, holding, with_revisions};

/// The schema as the catalogs tell it.
async fn catalogs(connection: &mut PgConnection) -> String {
    dump(connection, include_str!("catalogs.sql")).await
}

/// Runs `paxflow db`, which has to succeed.
async fn does(place: &Place, arguments: &[&str]) -> String {
    let (code, out, err) = ran(place.paxflow(&[&["db"], arguments].concat())).await;
    assert_eq!(code, 0, "{arguments:?}: {out}{err}");
    out
}

/// Runs `paxflow db`, which has to fail; returns the line that says why.
async fn refuses(place: &Place, arguments: &[&str]) -> String {
    let (code, out, err) = ran(place.paxflow(&[&["db"], arguments].concat())).await;
    assert_eq!(code, 1, "{arguments:?}: {out}{err}");
    let why = err.lines().last().unwrap_or_default();
    assert!(why.starts_with("paxflow: "), "{err}");
    why.to_owned()
}

fn text(dir: &tempfile::TempDir) -> &str {
    dir.path().to_str().unwrap()
}

#[tokio::test]
async fn every_revision_goes_down_and_up_again_over_data() {
    let database = Database::new().await;
    database
        .applier()
        .await
        .apply(&[flight(json!({})), booking(json!({}))])
        .await;
    let place = place(&database);
    let mut connection = place.connect().await;
    let versions: Vec<_> = ups(&MIGRATOR).map(|file| file.version).collect();

    let mut on_the_way_down = vec![catalogs(&mut connection).await];
    for version in versions.iter().rev() {
        let before = (version - 1).to_string();
        does(&place, &["migrate", "downgrade", &before, "--yes"]).await;
        on_the_way_down.push(catalogs(&mut connection).await);
    }
    assert_eq!(on_the_way_down.pop().unwrap(), "", "base is empty");
    for version in &versions {
        does(&place, &["migrate", "upgrade", &version.to_string()]).await;
        assert_eq!(
            catalogs(&mut connection).await,
            on_the_way_down.pop().unwrap(),
            "revision {version}"
        );
    }
    assert!(place.number("SELECT count(*) FROM airports").await > 7_000);
    assert_eq!(place.number("SELECT count(*) FROM bookings").await, 0);
}

#[tokio::test]
async fn migrated_once_by_eight_processes_that_upgrade_together() {
    with_empty_database("eight", async |place| {
        let upgrades: Vec<_> = (0..8)
            .map(|_| {
                let command = place.paxflow(&["db", "migrate", "upgrade"]);
                tokio::spawn(ran(command))
            })
            .collect();
        for upgrade in upgrades {
            let (code, out, err) = upgrade.await.unwrap();
            assert_eq!(code, 0, "{out}{err}");
        }
        let revisions = ups(&MIGRATOR).count() as i64;
        let recorded = "SELECT count(*) FROM _sqlx_migrations WHERE success";
        assert_eq!(place.number(recorded).await, revisions);
        does(&place, &["status"]).await;
    })
    .await;
}

#[tokio::test]
async fn a_failing_revision_leaves_nothing_and_names_file_and_statement() {
    let dir = with_revisions(&[
        (
            "0016_meals.up.sql",
            "CREATE TABLE meals (id bigint);\n\n-- what is stored\nINSERT INTO meals\nVALUES ('soup; of the day');\n",
        ),
        ("0016_meals.down.sql", "DROP TABLE meals;"),
    ]);
    let database = Database::new().await;
    let place = place(&database);
    let mut connection = place.connect().await;
    let before = catalogs(&mut connection).await;
    let why = refuses(&place, &["migrate", "--dir", text(&dir), "upgrade"]).await;
    assert!(
        why.contains("0016_meals.up.sql, line 4: INSERT INTO meals; nothing of it remains")
            && why.contains("SQLSTATE 22P02")
            && !why.contains("soup"),
        "{why}"
    );
    assert_eq!(catalogs(&mut connection).await, before);
    does(&place, &["status"]).await;
}

#[tokio::test]
async fn an_edited_file_is_refused_by_name() {
    let dir = with_revisions(&[("0002_flights.up.sql", "CREATE TABLE flights (id bigint);")]);
    let database = Database::new().await;
    let place = place(&database);
    for command in [["upgrade", "6"], ["downgrade", "4"]] {
        let arguments = [&["migrate", "--dir", text(&dir)][..], &command, &["--yes"]].concat();
        let why = refuses(&place, &arguments).await;
        assert!(why.contains("0002_flights.up.sql"), "{why}");
    }
    let shown = does(&place, &["migrate", "--dir", text(&dir), "show", "--json"]).await;
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(
        (&shown[0]["state"], &shown[1]["state"]),
        (&json!("applied"), &json!("edited"))
    );
}

#[tokio::test]
async fn who_holds_a_lock_is_named() {
    let dir = with_revisions(&[
        (
            "0016_meals.up.sql",
            "ALTER TABLE bookings ADD COLUMN meal text;",
        ),
        (
            "0016_meals.down.sql",
            "ALTER TABLE bookings DROP COLUMN meal;",
        ),
    ]);
    let database = Database::new().await;
    let place = place(&database);
    let mut holder = place.connect().await;
    let pid = dump(&mut holder, "SELECT pg_backend_pid()").await;
    execute(&mut holder, "SET application_name = 'night report'").await;
    let upgrade = [
        "migrate",
        "--dir",
        text(&dir),
        "upgrade",
        "--lock-timeout",
        "2",
    ];
    let is_named = |why: &str| why.contains(&format!("held by pid {} (night report", pid.trim()));

    let lock = holding("LOCK TABLE bookings IN ACCESS SHARE MODE");
    execute(&mut holder, &lock).await;
    let why = refuses(&place, &upgrade).await;
    assert!(
        is_named(&why) && why.contains("ALTER TABLE bookings"),
        "{why}"
    );

    execute(&mut holder, "ROLLBACK").await;
    holder.lock().await.unwrap();
    let why = refuses(&place, &upgrade).await;
    assert!(
        why.contains("another process is changing the schema"),
        "{why}"
    );
    assert!(
        why.contains(&format!("by pid {} (night report", pid.trim())),
        "{why}"
    );

    holder.close().await.unwrap();
    does(&place, &upgrade).await;
}

#[tokio::test]
async fn a_running_worker_goes_on_while_a_revision_expands_the_schema() {
    let dir = with_revisions(&[
        (
            "0016_meals.up.sql",
            "ALTER TABLE bookings ADD COLUMN meal text;
             ALTER TABLE flights ADD COLUMN gate text NOT NULL DEFAULT '';
             CREATE INDEX bookings_meal ON bookings (meal);",
        ),
        (
            "0016_meals.down.sql",
            "ALTER TABLE flights DROP COLUMN gate; ALTER TABLE bookings DROP COLUMN meal;",
        ),
    ]);
    let database = Database::new().await;
    let place = place(&database);
    let worker = place.worker().await;
    let events = generated(900, 7, 0.0);
    let mut parts = events.chunks(300);
    place.publish(parts.next().unwrap()).await;
    place.committed_at_least(300).await;
    for (direction, published) in [(["upgrade", "16"], 600), (["downgrade", "15"], 900)] {
        let change = [
            &["migrate", "--dir", text(&dir)][..],
            &direction,
            &["--yes"],
        ]
        .concat();
        does(&place, &change).await;
        place.publish(parts.next().unwrap()).await;
        place.committed_at_least(published).await;
    }
    place.assert_holds(&events).await;
    place.assert_exact().await;
    worker.stop().await;
}

#[tokio::test]
async fn what_loses_data_is_asked_first() {
    let database = Database::new().await;
    let place = place(&database);
    let mut connection = place.connect().await;
    let before = catalogs(&mut connection).await;
    let why = refuses(&place, &["migrate", "downgrade", "base"]).await;
    assert!(
        why.contains("DROP TABLE bookings (0003_bookings.down.sql)") && why.contains("--yes"),
        "{why}"
    );
    let dir = with_revisions(&[
        (
            "0016_no_seats.up.sql",
            "ALTER TABLE bookings DROP COLUMN seat;",
        ),
        (
            "0016_no_seats.down.sql",
            "ALTER TABLE bookings ADD COLUMN seat text;",
        ),
    ]);
    let why = refuses(&place, &["migrate", "--dir", text(&dir), "upgrade"]).await;
    assert!(
        why.contains("ALTER TABLE bookings DROP COLUMN seat (0016_no_seats.up.sql)"),
        "{why}"
    );
    for (answer, code) in [("no", 1), ("yes", 0)] {
        assert_eq!(catalogs(&mut connection).await, before);
        let asked = on_a_terminal(&place, "db migrate downgrade base", answer).await;
        assert_eq!(asked.0, code, "{}", asked.1);
        assert!(asked.1.contains("Type yes to go on"), "{}", asked.1);
    }
    assert_eq!(catalogs(&mut connection).await, "");
}

/// Runs a command on a terminal of its own and types an answer; returns its exit code and what it said.
async fn on_a_terminal(place: &Place, arguments: &str, answer: &str) -> (i32, String) {
    let program = place.paxflow(&[]).as_std().get_program().to_owned();
    let line = format!("{} {arguments}", program.to_str().unwrap());
    let mut command = Command::new("script");
    command
        .args(["--quiet", "--return", "--command", &line, "/dev/null"])
        .env("DATABASE_URL", &place.database_url)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let (code, said, _) = fed(command, format!("{answer}\n").as_bytes()).await;
    (code, said)
}

#[tokio::test]
async fn a_dry_run_prints_the_sql_and_changes_nothing() {
    let database = Database::new().await;
    let place = place(&database);
    let mut connection = place.connect().await;
    let before = catalogs(&mut connection).await;
    let down = does(&place, &["migrate", "downgrade", "4", "--dry-run"]).await;
    assert!(down.starts_with("-- 0015_what_counts.down.sql\n"), "{down}");
    assert!(
        down.contains("-- 0005_operations.down.sql\nDROP TABLE"),
        "{down}"
    );
    assert_eq!(catalogs(&mut connection).await, before);

    does(&place, &["migrate", "downgrade", "4", "--yes"]).await;
    let up = does(&place, &["migrate", "upgrade", "5", "--dry-run"]).await;
    assert!(up.starts_with("-- 0005_operations.up.sql\n"), "{up}");
    assert!(!up.contains("0006"), "{up}");
    assert_ne!(catalogs(&mut connection).await, before);
}

#[tokio::test]
async fn a_target_in_the_wrong_direction_names_the_right_command() {
    let database = Database::new().await;
    let place = place(&database);
    let why = refuses(&place, &["migrate", "upgrade", "3"]).await;
    assert!(why.contains("paxflow db migrate downgrade 3"), "{why}");
    let why = refuses(&place, &["migrate", "upgrade", "77"]).await;
    assert!(why.contains("there is no revision 77"), "{why}");
    does(&place, &["migrate", "downgrade", "3", "--yes"]).await;
    let why = refuses(&place, &["migrate", "downgrade", "4", "--yes"]).await;
    assert!(why.contains("paxflow db migrate upgrade 4"), "{why}");
}

#[tokio::test]
async fn a_revision_that_cannot_be_taken_back_is_left_alone() {
    let dir = with_revisions(&[("0016_meals.up.sql", "CREATE TABLE meals (id bigint);")]);
    let database = Database::new().await;
    let place = place(&database);
    let with_dir = |command: &'static str, revision: &'static str| {
        let dir = text(&dir).to_owned();
        let place = &place;
        async move {
            let arguments = ["db", "migrate", "--dir", &dir, command, revision, "--yes"];
            ran(place.paxflow(&arguments)).await
        }
    };
    assert_eq!(with_dir("upgrade", "latest").await.0, 0);
    let (code, _, err) = with_dir("downgrade", "base").await;
    assert!(
        code == 1 && err.contains("revision 16 (meals) has no file"),
        "{err}"
    );
    assert_eq!(place.number("SELECT count(*) FROM meals").await, 0);
}

#[tokio::test]
async fn status_tells_behind_ahead_and_dirty_and_check_answers() {
    let database = Database::new().await;
    let place = place(&database);
    let newest = latest(&MIGRATOR);
    assert!(does(&place, &["status"]).await.contains("in sync"));
    let answers = async |schema: String| {
        let said = does(&place, &["check"]).await;
        assert!(
            said.starts_with("ok: ") && said.ends_with(&format!(", {schema}\n")),
            "{said}"
        );
    };
    answers(format!("revision {newest}, in sync")).await;

    does(&place, &["migrate", "downgrade", "4", "--yes"]).await;
    answers(format!(
        "revision 4 of {newest}, not in sync: see paxflow db status"
    ))
    .await;
    let behind = status(&place).await;
    assert_eq!(
        (
            &behind["behind"],
            &behind["current"]["version"],
            &behind["latest_revision"]
        ),
        (&json!(newest - 4), &json!(4), &json!(newest))
    );
    does(&place, &["migrate", "upgrade"]).await;

    let mut connection = place.connect().await;
    let unknown =
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
                   VALUES (9999, 'of the future', true, '', 0)";
    execute(&mut connection, unknown).await;
    assert_eq!(status(&place).await["ahead"], json!(1));
    execute(
        &mut connection,
        "DELETE FROM _sqlx_migrations WHERE version = 9999",
    )
    .await;

    execute(
        &mut connection,
        "UPDATE _sqlx_migrations SET success = false WHERE version = 5",
    )
    .await;
    assert_eq!(status(&place).await["dirty"], json!([5]));
    let why = refuses(&place, &["migrate", "downgrade", "4", "--yes"]).await;
    assert!(
        why.contains("revision 5 (operations) did not finish"),
        "{why}"
    );
}

/// The status of a database that is not in sync.
async fn status(place: &Place) -> Value {
    let (code, out, err) = ran(place.paxflow(&["db", "status", "--json"])).await;
    assert_eq!(code, 2, "{out}{err}");
    serde_json::from_str(&out).unwrap()
}

#[tokio::test]
async fn a_database_that_is_away_is_named_without_its_password() {
    let mut place = place(&Database::new().await);
    place.database_url = "postgres://joe:canary-secret@127.0.0.1:1/market".to_owned();
    for command in ["check", "status", "init", "drop"] {
        let why = refuses(&place, &[command]).await;
        assert!(
            why.contains("127.0.0.1:1/market") && why.contains("DATABASE_URL"),
            "{why}"
        );
        assert!(!why.contains("canary"), "{why}");
    }
}

#[tokio::test]
async fn a_new_revision_has_the_next_number_and_can_be_applied() {
    let dir = with_revisions(&[]);
    let database = Database::new().await;
    let place = place(&database);
    let message = "Add: meal preference (VGML, ...)";
    let create = ["migrate", "--dir", text(&dir), "create", "-m", message];
    let wrote = does(&place, &create).await;
    for direction in ["up", "down"] {
        let path = dir
            .path()
            .join(format!("0016_add_meal_preference_vgml.{direction}.sql"));
        assert!(wrote.contains(path.to_str().unwrap()), "{wrote}");
        let header = std::fs::read_to_string(path).unwrap();
        assert!(
            header.starts_with(&format!("-- Revision 16: {message}\n")),
            "{header}"
        );
    }
    does(&place, &["migrate", "--dir", text(&dir), "upgrade"]).await;
    does(&place, &["migrate", "--dir", text(&dir), "downgrade", "10"]).await;
    let why = refuses(
        &place,
        &["migrate", "--dir", text(&dir), "create", "-m", "?"],
    )
    .await;
    assert!(why.contains("message"), "{why}");
    let why = refuses(
        &place,
        &["migrate", "--dir", "/nowhere", "create", "-m", "x"],
    )
    .await;
    assert!(why.contains("/nowhere"), "{why}");
    assert!(Path::new("migrations").is_dir());
}

#[tokio::test]
async fn an_autogenerated_revision_leads_to_the_desired_schema_and_back() {
    let dir = with_revisions(&[]);
    let schema = include_str!("../../migrations/schema.sql");
    let desired = dir.path().join("schema.sql");
    std::fs::write(&desired, schema).unwrap();
    let database = Database::new().await;
    let place = place(&database);
    let create = [
        "migrate",
        "--dir",
        text(&dir),
        "create",
        "--autogenerate",
        "-m",
        "meals",
    ];
    let files = || std::fs::read_dir(dir.path()).unwrap().count();
    let before = files();
    assert!(does(&place, &create).await.starts_with("nothing to do"));
    assert_eq!(files(), before, "nothing is written");

    let meal =
        "    seat                text,\n    meal                text NOT NULL DEFAULT 'none',\n";
    let with_meal = schema.replace("    seat                text,\n", meal)
        + "CREATE TABLE meals (meal text PRIMARY KEY);\nCREATE INDEX bookings_meal ON bookings (meal);\n";
    assert!(with_meal.contains(meal));
    std::fs::write(&desired, with_meal).unwrap();
    does(&place, &create).await;
    let mut connection = place.connect().await;
    let base = catalogs(&mut connection).await;
    does(&place, &["migrate", "--dir", text(&dir), "upgrade"]).await;
    assert!(does(&place, &create).await.starts_with("nothing to do"));
    assert_ne!(catalogs(&mut connection).await, base);
    does(
        &place,
        &["migrate", "--dir", text(&dir), "downgrade", "15", "--yes"],
    )
    .await;
    assert_eq!(catalogs(&mut connection).await, base);
}

#[tokio::test]
async fn drop_and_reset_take_what_is_ours_and_only_that() {
    let database = Database::new().await;
    database.applier().await.apply(&[booking(json!({}))]).await;
    let place = place(&database);
    let mut connection = place.connect().await;
    let whole = catalogs(&mut connection).await;
    execute(&mut connection, "CREATE TABLE notes (text text)").await;

    for (command, environment) in [
        (&["drop"][..], "production"),
        (&["reset"], "Production"),
        (&["migrate", "reset"], "prod"),
        (&["migrate", "downgrade", "base"], "production"),
    ] {
        let arguments = [&["db"], command, &["--yes"]].concat();
        let mut production = place.paxflow(&arguments);
        production.env("PAXFLOW_ENV", environment);
        let (code, _, err) = ran(production).await;
        assert!(code == 1 && err.contains("PAXFLOW_ENV"), "{err}");
        let why = refuses(&place, command).await;
        assert!(why.contains("bookings") && why.contains("--yes"), "{why}");
    }
    assert_eq!(place.number("SELECT count(*) FROM bookings").await, 1);

    // Also a schema in a state that no revision can lead out of.
    execute(
        &mut connection,
        "UPDATE _sqlx_migrations SET checksum = '\\x00' WHERE version = 2",
    )
    .await;
    execute(
        &mut connection,
        "CREATE VIEW seats AS SELECT seat FROM bookings",
    )
    .await;
    let why = refuses(&place, &["drop", "--yes"]).await;
    assert!(
        why.contains("view seats depends on") && why.contains("nothing was dropped"),
        "{why}"
    );
    execute(&mut connection, "DROP VIEW seats").await;
    does(&place, &["reset", "--yes"]).await;
    assert_eq!(place.number("SELECT count(*) FROM bookings").await, 0);
    does(&place, &["migrate", "reset", "--yes"]).await;
    does(&place, &["drop", "--yes"]).await;
    let left = catalogs(&mut connection).await;
    assert!(
        left.lines().all(|line| line.contains("notes")) && !left.is_empty(),
        "{left}"
    );
    assert_eq!(
        place
            .number("SELECT count(*) FROM pg_class WHERE relname = '_sqlx_migrations'")
            .await,
        0
    );
    execute(&mut connection, "DROP TABLE notes").await;
    does(&place, &["drop"]).await;

    does(&place, &["init"]).await;
    assert_eq!(catalogs(&mut connection).await, whole);
}

#[tokio::test]
async fn init_makes_what_is_missing_and_can_be_repeated() {
    let name = format!("paxflow_init_{}", std::process::id());
    let template = Database::new().await;
    let mut place = place(&template);
    place.database_url = database_url(&name);
    assert!(
        does(&place, &["init"])
            .await
            .contains("created the database")
    );
    let mut production = place.paxflow(&["db", "init", "--sample"]);
    production.env("PAXFLOW_ENV", "production");
    let (code, _, err) = ran(production).await;
    assert!(code == 1 && err.contains("PAXFLOW_ENV"), "{err}");
    let first = does(&place, &["init", "--sample"]).await;
    let bookings = place.number("SELECT count(*) FROM bookings").await;
    let again = does(&place, &["init", "--sample"]).await;
    assert!(
        first.contains("verify: exact") && again.contains("verify: exact"),
        "{first}{again}"
    );
    assert!(again.contains(" 0 applied"), "{again}");
    assert!(bookings > 10_000);
    assert_eq!(
        place.number("SELECT count(*) FROM bookings").await,
        bookings
    );
    let mut admin = db::connect(&template.options).await.unwrap();
    execute(&mut admin, &format!("DROP DATABASE {name}")).await;
}
