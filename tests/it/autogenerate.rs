//! The desired schema and the revisions, and what is written where they differ.

use std::borrow::Cow;
use std::future::pending;
use std::time::SystemTime;

use paxflow::db::migrate::MIGRATOR;
use paxflow::db::revisions::latest;
use paxflow::db::schema::{Change, Snapshot, autogenerate, snapshot};
use rand::rngs::ChaCha8Rng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{RngExt, SeedableRng};
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection, SqlSafeStr};

use crate::support::{Database, dump, execute};

const SCHEMA: &str = include_str!("../../migrations/schema.sql");

/// A small schema in which everything hangs on something else, and rows for it.
const TANGLE: &str = include_str!("autogenerate/tangle.sql");
const ROWS: &str = include_str!("autogenerate/rows.sql");
/// Statements that turn it into another one, separated by blank lines. Not all of them go together.
const EDITS: &str = include_str!("autogenerate/edits.sql");
/// Words of it that may be others.
const REPLACEMENTS: [(&str, &str); 10] = [
    ("thing_id serial", "thing_id bigserial"),
    ("owner_id bigint GENERATED", "owner_id integer GENERATED"),
    (
        "code     text COLLATE \"C\" NOT",
        "code     varchar(30) NOT",
    ),
    (
        "rank     integer NOT NULL DEFAULT 1",
        "rank     bigint NOT NULL",
    ),
    ("rank     integer", "rank     smallint"),
    ("weight   numeric(8, 2)", "weight   numeric(10, 3)"),
    ("price    integer", "price    numeric"),
    ("legs integer GENERATED", "legs bigint GENERATED"),
    (
        "shout(word text) RETURNS text",
        "shout(word text DEFAULT 'x') RETURNS text",
    ),
    ("weight > 10", "weight > 10.5"),
];

/// What loses data, each with the statements of the way there that are held back.
const HELD_BACK: [(&str, &[&str]); 12] = [
    ("DROP TABLE journal", &["DROP TABLE journal;"]),
    (
        "DROP TABLE journal; CREATE VIEW journal AS SELECT code FROM owners",
        &["DROP TABLE journal;", "CREATE VIEW journal AS"],
    ),
    ("ALTER TABLE owners DROP COLUMN note", &["ALTER TABLE owners DROP COLUMN note;"]),
    ("ALTER TABLE journal RENAME COLUMN line TO words", &["ALTER TABLE journal DROP COLUMN line;"]),
    (
        "ALTER TABLE owners ALTER COLUMN note TYPE varchar(10)",
        &["ALTER TABLE owners ALTER COLUMN note TYPE character varying(10) USING note::character varying(10);"],
    ),
    (
        "ALTER TABLE journal DROP COLUMN line; ALTER TABLE journal ADD COLUMN line text GENERATED ALWAYS AS ('x') STORED",
        &[
            "ALTER TABLE journal DROP COLUMN line;",
            "ALTER TABLE journal ADD COLUMN line text GENERATED ALWAYS AS ('x'::text) STORED;",
        ],
    ),
    (
        "ALTER TABLE things DROP COLUMN total; ALTER TABLE things ADD COLUMN total numeric",
        &["ALTER TABLE things DROP COLUMN total;", "ALTER TABLE things ADD COLUMN total numeric;"],
    ),
    (
        "ALTER TABLE owners ALTER COLUMN owner_id DROP IDENTITY; ALTER TABLE owners ALTER COLUMN owner_id SET DEFAULT 1",
        &[
            "ALTER TABLE owners ALTER COLUMN owner_id DROP IDENTITY;",
            "ALTER TABLE owners ALTER COLUMN owner_id SET DEFAULT 1;",
        ],
    ),
    (
        "ALTER TABLE things ALTER COLUMN thing_id DROP DEFAULT; DROP SEQUENCE things_thing_id_seq",
        &["ALTER SEQUENCE things_thing_id_seq OWNED BY NONE;", "DROP SEQUENCE things_thing_id_seq;"],
    ),
    ("ALTER TABLE journal SET UNLOGGED", &["ALTER TABLE journal SET UNLOGGED;"]),
    // Its key keeps the name of an index.
    (
        "ALTER TABLE hens DROP CONSTRAINT hens_egg; ALTER TABLE eggs DROP CONSTRAINT eggs_hen_id_fkey; ALTER TABLE eggs RENAME TO clutches",
        &["ALTER TABLE eggs DROP CONSTRAINT eggs_hen_id_fkey;", "DROP TABLE eggs;", "CREATE TABLE clutches ("],
    ),
    // One type narrower, one wider, and a view in the way of both.
    (
        "DROP VIEW heavy CASCADE; DROP TRIGGER things_touch ON things; ALTER TABLE things DROP COLUMN total;
         ALTER TABLE things ALTER COLUMN weight TYPE numeric(10, 3), ALTER COLUMN price TYPE smallint;
         CREATE VIEW heavy AS SELECT thing_id, owner_id, weight, price FROM things",
        &[
            "DROP VIEW heavy;",
            "DROP INDEX things_owner_id;",
            "ALTER TABLE things ALTER COLUMN weight DROP DEFAULT;",
            "ALTER TABLE things ALTER COLUMN weight TYPE numeric(10,3) USING weight::numeric(10,3);",
            "ALTER TABLE things ALTER COLUMN price TYPE smallint USING price::smallint;",
            "ALTER TABLE things ALTER COLUMN weight SET DEFAULT 0;",
            "CREATE INDEX things_owner_id ON things USING btree (owner_id) INCLUDE (price);",
            "CREATE VIEW heavy AS",
        ],
    ),
];

/// What loses none.
const NOT_HELD_BACK: [&str; 13] = [
    "ALTER TABLE things DROP COLUMN total; DROP VIEW heavy CASCADE; ALTER TABLE things ALTER COLUMN weight TYPE numeric",
    "ALTER TABLE owners ADD COLUMN email text",
    "ALTER TABLE owners ALTER COLUMN note TYPE text",
    "ALTER TABLE things DROP COLUMN total; ALTER TABLE things ALTER COLUMN \"Odd one\" TYPE text COLLATE \"C\"",
    "ALTER TABLE things DROP COLUMN total",
    "ALTER TABLE owners ALTER COLUMN rank DROP NOT NULL, ALTER COLUMN rank DROP DEFAULT",
    "DROP INDEX owners_loud",
    "ALTER TABLE owners DROP CONSTRAINT owners_pkey CASCADE",
    "DROP VIEW heavy CASCADE",
    "DROP TRIGGER things_touch ON things",
    "COMMENT ON TABLE owners IS NULL",
    "ALTER TABLE owners RESET (fillfactor)",
    "CREATE OR REPLACE FUNCTION shout(word text) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT word $$",
];

const EMPTY: &str = "DROP SCHEMA public CASCADE; CREATE SCHEMA public";

/// With fixed seeds all but one, which is new every time.
const COMBINATIONS: u64 = 100;

/// Base schemas, and an empty database to build desired ones in.
struct Bench {
    script: String,
    base: Snapshot,
    at_base: PgConnection,
    blank: PgConnection,
    _databases: [Database; 2],
}

impl Bench {
    /// With a base schema made by a script.
    async fn of(script: &str) -> Self {
        let databases = [Database::new().await, Database::new().await];
        let mut at_base = databases[0].connect().await;
        let mut blank = databases[1].connect().await;
        for connection in [&mut at_base, &mut blank] {
            execute(
                connection,
                "DROP SCHEMA public CASCADE; CREATE SCHEMA public",
            )
            .await;
            execute(connection, "SET synchronous_commit = off").await;
        }
        execute(&mut at_base, script).await;
        Self {
            script: script.to_owned(),
            base: snapshot(&mut at_base).await.unwrap(),
            at_base,
            blank,
            _databases: databases,
        }
    }

    /// The schema that a script builds; one that continues the base's continues there.
    async fn built_by(&mut self, script: &str) -> sqlx::Result<Snapshot> {
        let (connection, statements) = match script.strip_prefix(&self.script) {
            Some(edits) => (&mut self.at_base, edits),
            None => (&mut self.blank, script),
        };
        let mut transaction = connection.begin().await.unwrap();
        let built = sqlx::raw_sql(AssertSqlSafe(statements))
            .execute(&mut *transaction)
            .await;
        let found = match built {
            Ok(_) => Ok(snapshot(&mut transaction).await.unwrap()),
            Err(error) => Err(error),
        };
        transaction.rollback().await.unwrap();
        found
    }

    /// Accepted, the way up leads from the base to the desired schema, and the way down back.
    async fn assert_there_and_back(&mut self, desired: &Snapshot, change: &Change, what: &str) {
        let mut transaction = self.at_base.begin().await.unwrap();
        execute(&mut transaction, &accept(&change.up)).await;
        let up = snapshot(&mut transaction).await.unwrap();
        assert_same(&up, desired, &format!("{what}: up\n{}", change.up));
        execute(&mut transaction, &accept(&change.down)).await;
        let down = snapshot(&mut transaction).await.unwrap();
        assert_same(&down, &self.base, &format!("{what}: down\n{}", change.down));
        transaction.rollback().await.unwrap();
        // Left as it is written, what is held back one way is held back the other way.
        let mut transaction = self.at_base.begin().await.unwrap();
        execute(&mut transaction, &change.up).await;
        execute(&mut transaction, &change.down).await;
        let back = snapshot(&mut transaction).await.unwrap();
        let both = format!("{what}: as written\n{}\n{}", change.up, change.down);
        assert_same(&back, &self.base, &both);
        transaction.rollback().await.unwrap();
    }
}

/// What a person does who accepts everything that is held back.
fn accept(script: &str) -> String {
    let mut held = false;
    let mut accepted = String::new();
    for line in script.lines() {
        let statement = line.strip_prefix("--").filter(|_| held);
        held = line.starts_with("-- Held back: ") || statement.is_some();
        accepted += statement.map_or(line, |line| line.strip_prefix(' ').unwrap_or(line));
        accepted += "\n";
    }
    accepted
}

fn assert_same(found: &Snapshot, expected: &Snapshot, what: &str) {
    let difference = found.difference(expected).join("\n");
    assert!(
        difference.is_empty(),
        "{what}\nfound <> expected\n{difference}"
    );
}

#[tokio::test]
async fn the_revisions_build_the_desired_schema() {
    let database = Database::new().await;
    let change = autogenerate(&database.options, SCHEMA, &MIGRATOR, pending())
        .await
        .unwrap();
    if let Some(change) = change {
        panic!(
            "migrations/schema.sql wants something else; a revision would say:\n{}",
            change.up
        );
    }
}

/// Every script leads there and back by itself, starting from the base.
async fn assert_each_there_and_back(base_script: &str, edited: &[(&str, String)]) {
    let mut bench = Bench::of(base_script).await;
    for (what, script) in edited {
        let desired = bench.built_by(script).await;
        let desired = desired.unwrap_or_else(|error| panic!("{what}: {error}"));
        let change =
            Change::between(&bench.base, &desired).unwrap_or_else(|| panic!("{what}: no change"));
        bench.assert_there_and_back(&desired, &change, what).await;
    }
}

#[tokio::test]
async fn every_single_change_leads_there_and_back() {
    let appended = EDITS
        .split("\n\n")
        .map(|edit| (edit, format!("{TANGLE}\n{edit}")));
    let replaced = REPLACEMENTS.map(|(word, other)| (other, TANGLE.replace(word, other)));
    let edited: Vec<_> = appended.chain(replaced).collect();
    assert!(edited.len() >= 80);
    assert_each_there_and_back(TANGLE, &edited).await;
}

#[tokio::test]
async fn changes_of_the_real_schema_lead_there_and_back() {
    let replaced = [
        (
            "capacity_total        integer",
            "capacity_total        bigint",
        ),
        (
            "price_total         numeric,",
            "price_total         numeric(14, 3) NOT NULL,",
        ),
        (
            "END::numeric(6, 4) AS load_factor",
            "END::numeric(8, 4) AS load_factor",
        ),
        ("FROM market;", "FROM market WHERE flight_count > 0;"),
        (
            "zone text) RETURNS date",
            "zone text DEFAULT 'UTC') RETURNS date",
        ),
        ("lower(email)", "upper(email)"),
        ("IN ('analyst', ", "IN ('analyst', 'guest', "),
        ("ON DELETE CASCADE", "ON DELETE RESTRICT"),
        ("fillfactor = 10", "fillfactor = 20"),
        ("price AS average_price", "round(price, 2) AS average_price"),
        ("LANGUAGE sql STABLE", "LANGUAGE sql STABLE PARALLEL SAFE"),
        ("FOR EACH ROW EXECUTE", "FOR EACH STATEMENT EXECUTE"),
        (
            "booking_id          text COLLATE \"C\"",
            "booking_id          text",
        ),
        (
            "user_id       bigint GENERATED ALWAYS",
            "user_id       bigint GENERATED BY DEFAULT",
        ),
    ];
    let edited = replaced.map(|(word, other)| (other, SCHEMA.replace(word, other)));
    assert_each_there_and_back(SCHEMA, &edited).await;
}

/// A desired schema made of random edits in random order, without those that do not go together; the
/// edits are named.
async fn random_schema(bench: &mut Bench, rng: &mut ChaCha8Rng) -> (Snapshot, String) {
    let mut script = TANGLE.to_owned();
    let replacements = rng.random_range(0..=3);
    let mut named = Vec::new();
    for (word, other) in REPLACEMENTS.sample(rng, replacements) {
        script = script.replace(word, other);
        named.push(*other);
    }
    let mut edits: Vec<_> = EDITS.split("\n\n").collect();
    edits.shuffle(rng);
    edits.truncate(rng.random_range(1..=8));
    let mut transaction = bench.blank.begin().await.unwrap();
    execute(&mut transaction, &script).await;
    for edit in edits {
        let mut attempt = transaction.begin().await.unwrap();
        let edited = sqlx::raw_sql(AssertSqlSafe(edit))
            .execute(&mut *attempt)
            .await;
        if edited.is_ok() {
            attempt.commit().await.unwrap();
            named.push(edit);
        } else {
            attempt.rollback().await.unwrap();
        }
    }
    let desired = snapshot(&mut transaction).await.unwrap();
    transaction.rollback().await.unwrap();
    (desired, named.join("\n"))
}

/// Every value that was put into the tables, without regard to types that were made wider.
const VALUES: &str = "
    SELECT owner_id, code, rank, note, since FROM owners ORDER BY owner_id;
    SELECT thing_id, owner_id, code, weight::float8, price, \"Odd one\", made_at FROM things ORDER BY thing_id;
    SELECT hen_id, egg_id FROM hens;
    SELECT egg_id, hen_id FROM eggs;
    SELECT line FROM journal ORDER BY line";

#[tokio::test]
async fn random_combinations_lead_there_and_back_and_lose_nothing_unasked() {
    let clock = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let fresh = clock.unwrap().as_nanos() as u64;
    let mut bench = Bench::of(TANGLE).await;
    let mut full = Bench::of(&format!("{TANGLE}\n{ROWS}")).await;
    let values = dump(&mut full.at_base, VALUES).await;
    for seed in (1..COMBINATIONS).chain([fresh]) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let (desired, edits) = random_schema(&mut bench, &mut rng).await;
        let what = format!("seed {seed}:\n{edits}\n");
        let Some(change) = Change::between(&bench.base, &desired) else {
            assert_same(&bench.base, &desired, &what);
            continue;
        };
        bench.assert_there_and_back(&desired, &change, &what).await;
        // As it is written, it runs on rows too, or says why not, and loses none of them.
        let mut transaction = full.at_base.begin().await.unwrap();
        match sqlx::raw_sql(AssertSqlSafe(&*change.up))
            .execute(&mut *transaction)
            .await
        {
            Ok(_) => {
                let left = dump(&mut transaction, VALUES).await;
                assert_eq!(left, values, "{what}{}", change.up);
            }
            Err(error) => {
                let said = change.up.contains("-- Fails if the table has rows");
                assert!(
                    said && is_not_null_violation(&error),
                    "{what}{error}\n{}",
                    change.up
                );
            }
        }
        transaction.rollback().await.unwrap();
    }
}

fn is_not_null_violation(error: &sqlx::Error) -> bool {
    let error = error.as_database_error();
    error.is_some_and(|error| error.code().as_deref() == Some("23502"))
}

/// The first lines of the statements of a script that are held back.
fn held_back(script: &str) -> Vec<&str> {
    let lines = script.lines().zip(script.lines().skip(1));
    let held = lines.filter(|(line, _)| line.starts_with("-- Held back: "));
    held.map(|(_, next)| next.trim_start_matches("-- "))
        .collect()
}

#[tokio::test]
async fn what_could_lose_data_is_held_back_with_the_reason() {
    let mut bench = Bench::of(TANGLE).await;
    for (edit, expected) in HELD_BACK {
        let desired = bench.built_by(&format!("{TANGLE}\n{edit}")).await.unwrap();
        let change = Change::between(&bench.base, &desired).unwrap();
        assert_eq!(held_back(&change.up), expected, "{edit}\n{}", change.up);
        let total = held_back(&change.up).len() + held_back(&change.down).len();
        assert_eq!(change.held_back, total, "{edit}");
    }
    // The way back from what is new drops it: whoever goes it is asked.
    let desired = bench
        .built_by(&format!("{TANGLE}\nALTER TABLE journal ADD COLUMN at date"))
        .await;
    let change = Change::between(&bench.base, &desired.unwrap()).unwrap();
    assert_eq!(change.up, "ALTER TABLE journal ADD COLUMN at date;\n\n");
    assert_eq!(
        change.down,
        "-- What has been stored here since is lost.\nALTER TABLE journal DROP COLUMN at;\n\n"
    );
}

#[tokio::test]
async fn nothing_else_is_held_back() {
    let mut bench = Bench::of(TANGLE).await;
    for edit in NOT_HELD_BACK {
        let desired = bench.built_by(&format!("{TANGLE}\n{edit}")).await.unwrap();
        let change = Change::between(&bench.base, &desired).unwrap();
        assert!(held_back(&change.up).is_empty(), "{edit}\n{}", change.up);
        assert!(!change.up.contains("Fails if"), "{edit}\n{}", change.up);
    }
}

#[tokio::test]
async fn what_may_fail_or_is_not_written_is_said() {
    let mut bench = Bench::of(TANGLE).await;
    let said = [
        (
            "ALTER TABLE owners ALTER COLUMN note SET NOT NULL",
            "-- Fails if a row has no value: fill it first.\nALTER TABLE owners ALTER COLUMN note SET NOT NULL;",
        ),
        (
            "ALTER TABLE owners ADD COLUMN email text NOT NULL",
            "-- Fails if the table has rows: give it a default, or fill it before NOT NULL.\nALTER TABLE owners ADD COLUMN",
        ),
        (
            "ALTER TABLE hens ALTER COLUMN hen_id ADD GENERATED ALWAYS AS IDENTITY",
            "-- Begins at 1, whatever is stored: let it RESTART WITH a number beyond, or new rows meet those that are there.\n",
        ),
        (
            "DROP VIEW heaviest; CREATE VIEW heaviest AS SELECT n FROM heavy_owners",
            "-- Made again below; privileges on it have to be granted again.\nDROP VIEW heaviest;",
        ),
        (
            "CREATE TYPE mood AS ENUM ('glad', 'sad')",
            "-- By hand: wanted: type mood glad, sad\n",
        ),
        (
            "CREATE MATERIALIZED VIEW codes AS SELECT code FROM owners",
            "-- By hand: wanted: materialized view codes ",
        ),
        (
            "CREATE TABLE many (n integer) PARTITION BY RANGE (n)",
            "-- By hand: wanted: table many RANGE (n) n integer\n",
        ),
        (
            "CREATE TYPE pair AS (one integer, two text)",
            "-- By hand: wanted: composite type pair one integer, two text\n",
        ),
        (
            "CREATE SCHEMA reporting; CREATE VIEW reporting.codes AS SELECT code FROM owners",
            "-- By hand: wanted: schema reporting\n",
        ),
        (
            "CREATE PUBLICATION changes FOR TABLE owners",
            "-- By hand: wanted: publication changes f t t t t owners\n",
        ),
        (
            "ALTER TABLE owners REPLICA IDENTITY FULL",
            "-- By hand: wanted: replica identity of owners f\n",
        ),
        (
            "ALTER VIEW heaviest ALTER COLUMN weight SET DEFAULT 1",
            "-- By hand: wanted: default value for column weight of view heaviest 1\n",
        ),
        (
            "CREATE TEXT SEARCH CONFIGURATION names (COPY = simple)",
            "-- By hand: wanted: text search configuration names\n",
        ),
        (
            "ALTER TABLE owners ENABLE ROW LEVEL SECURITY",
            "-- By hand: wanted: row security of owners",
        ),
    ];
    for (edit, expected) in said {
        let desired = bench.built_by(&format!("{TANGLE}\n{edit}")).await.unwrap();
        let change = Change::between(&bench.base, &desired).unwrap();
        assert!(change.up.contains(expected), "{edit}\n{}", change.up);
        execute(&mut bench.blank, &format!("{TANGLE}\n{}", change.up)).await;
        execute(&mut bench.blank, EMPTY).await;
    }
}

/// The project's revisions and one more.
fn with_next_revision(change: &Change) -> Migrator {
    let next = latest(&MIGRATOR) + 1;
    let revision = |kind, sql: &str| {
        let sql = AssertSqlSafe(accept(sql)).into_sql_str();
        Migration::new(next, Cow::Borrowed("next"), kind, sql, false)
    };
    let mut revisions: Vec<_> = MIGRATOR.iter().cloned().collect();
    revisions.push(revision(MigrationType::ReversibleUp, &change.up));
    revisions.push(revision(MigrationType::ReversibleDown, &change.down));
    Migrator::with_migrations(revisions)
}

#[tokio::test]
async fn what_is_written_runs_as_the_next_revision_and_is_taken_back() {
    let database = Database::new().await;
    let edits = "
        CREATE TABLE carriers (airline text PRIMARY KEY, name text NOT NULL);
        ALTER TABLE flights ADD CONSTRAINT flights_airline FOREIGN KEY (airline) REFERENCES carriers;
        ALTER TABLE users DROP COLUMN disabled_at;
        CREATE FUNCTION carrier_of(booking text) RETURNS text LANGUAGE sql STABLE AS
            $$ SELECT f.airline FROM bookings b JOIN flights f USING (flight_id) WHERE b.booking_id = booking $$;
        COMMENT ON TABLE carriers IS 'Airlines; by designator.';";
    let desired = format!("{SCHEMA}{edits}");
    let change = autogenerate(&database.options, &desired, &MIGRATOR, pending()).await;
    let change = change.unwrap().expect("there is something to do");
    let migrator = with_next_revision(&change);
    let nothing = autogenerate(&database.options, &desired, &migrator, pending()).await;
    assert_eq!(nothing.unwrap(), None);
    let mut connection = database.connect().await;
    let before = snapshot(&mut connection).await.unwrap();
    migrator.run(&mut connection).await.unwrap();
    assert!(snapshot(&mut connection).await.unwrap() != before);
    migrator
        .undo(&mut connection, latest(&MIGRATOR))
        .await
        .unwrap();
    assert_same(&snapshot(&mut connection).await.unwrap(), &before, "undone");
}

#[tokio::test]
async fn no_scratch_database_is_left_behind_and_the_failing_statement_is_named() {
    let database = Database::new().await;
    let mut admin = database.connect().await;
    let role = format!("paxflow_scratch_{}", std::process::id());
    execute(
        &mut admin,
        &format!("CREATE ROLE {role} LOGIN PASSWORD 'canary-secret' CREATEDB"),
    )
    .await;
    let server = database
        .options
        .clone()
        .username(&role)
        .password("canary-secret");
    let said = async |desired: &str, migrations: &Migrator| {
        let error = autogenerate(&server, desired, migrations, pending())
            .await
            .unwrap_err();
        let said = format!("{error:#}");
        assert!(!said.contains("canary-secret"), "{said}");
        said
    };
    let broken = said(
        "CREATE TABLE a (\n  b int);\n\n-- then\nCREATE TABLE a (c int);\n",
        &MIGRATOR,
    )
    .await;
    assert!(
        broken.contains("line 5: CREATE TABLE a (c int)") && broken.contains("already exists"),
        "{broken}"
    );
    let change = Change {
        up: "SELECT 1 / 0;".to_owned(),
        down: String::new(),
        held_back: 0,
    };
    let broken = said(SCHEMA, &with_next_revision(&change)).await;
    assert!(
        broken.contains("revisions") && broken.contains("division by zero"),
        "{broken}"
    );
    let left = format!("SELECT datname FROM pg_database WHERE datdba = '{role}'::regrole");
    assert_eq!(dump(&mut admin, &left).await, "");
    execute(&mut admin, &format!("ALTER ROLE {role} NOCREATEDB")).await;
    let refused = said(SCHEMA, &MIGRATOR).await;
    assert!(refused.contains("CREATEDB"), "{refused}");
    execute(&mut admin, &format!("DROP ROLE {role}")).await;
}
