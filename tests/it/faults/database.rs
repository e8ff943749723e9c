//! The database breaks off, refuses, waits or changes, at every step of a batch's life.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use paxflow::sandbox::Shutdown;
use sqlx::{Connection, PgConnection};

use super::harness::{Line, Rig, in_lanes, seeds, small_batches};
use super::proxy::{Cut, Held};
use super::wire::{
    ACK, BEGIN, BEGIN_ANSWERED, COMMIT, COMMIT_ANSWERED, CONCLUDE, Point, STATEMENTS,
};
use crate::process::{Place, Worker, until};
use crate::running::signal;
use crate::support::{WAITING, dump, execute, holding};

/// The sessions of the workers.
const TERMINATE: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = 'paxflow worker'";

async fn run(place: &Place, sql: &str) {
    execute(&mut place.connect().await, sql).await;
}

/// Waits until the worker has said something.
async fn says(worker: &Worker, what: &str) {
    until(&format!("it says: {what}"), async || {
        worker.log().contains(what).then_some(())
    })
    .await;
}

#[test]
fn sessions_terminated_at_every_step_of_the_transaction() {
    let points: Vec<Point> = [BEGIN, BEGIN_ANSWERED]
        .into_iter()
        .chain(STATEMENTS.iter().map(|(point, _)| *point))
        .chain([COMMIT, COMMIT_ANSWERED])
        .collect();
    in_lanes(seeds(5), async |seed| {
        let mut rig = Rig::new(seed).await;
        let line = rig.line().await;
        let worker = line.worker().await;
        for point in rig.world.shuffled(&points) {
            let held = rig.halted_at(line.database.trap(point, 0), &worker).await;
            let before = rig.committed().await;
            run(&rig.place, TERMINATE).await;
            held.pass();
            rig.assert_goes_on(&worker, Instant::now(), before).await;
        }
        worker.stop().await;
        rig.finish().await;
    });
}

/// What becomes of a commit whose answer the worker does not see.
#[derive(Debug, Clone, Copy)]
enum Unknown {
    /// It never reached the database.
    Before,
    /// It did, and the answer is lost.
    After,
    /// The answer comes long after others have seen the rows.
    Delayed,
}

#[test]
fn a_commit_with_unknown_outcome_counts_once() {
    const TIMES: usize = 50;
    let kinds = [Unknown::Before, Unknown::After, Unknown::Delayed];
    in_lanes(seeds(3).zip(kinds), async |(seed, kind)| {
        let mut rig = Rig::new(seed).await;
        let line = rig.line().await;
        let worker = line.worker().await;
        for _ in 0..TIMES {
            let cut = if rig.world.below(2) == 0 {
                Cut::Reset
            } else {
                Cut::Close
            };
            let (point, before) = match kind {
                Unknown::Before => (COMMIT, rig.committed().await),
                Unknown::After | Unknown::Delayed => (COMMIT_ANSWERED, rig.committed().await),
            };
            let trap = line.database.trap(point, 0);
            rig.publish(10).await;
            let held = trap.sprung_by(|| worker.log()).await;
            let committed = rig.committed().await;
            match kind {
                Unknown::Before => held.cut_before(cut),
                Unknown::After => {
                    assert!(committed > before, "the commit is through");
                    held.cut_before(cut);
                }
                Unknown::Delayed => {
                    assert!(committed > before, "the commit is through");
                    held.pass();
                }
            }
            rig.place.committed_at_least(committed + 1).await;
        }
        // Also the counts: no batch was done twice because its answer was lost.
        rig.place.committed_at_least(rig.published as i64).await;
        worker.stop().await;
        assert_eq!(rig.committed().await, rig.published as i64);
        rig.finish().await;
    });
}

/// Halts a batch before a statement, with everything locked that it locks before.
async fn halted_before(rig: &mut Rig, line: &Line, worker: &Worker, point: Point) -> Held {
    rig.halted_at(line.database.trap(point, 0), worker).await
}

#[tokio::test]
async fn a_deadlock_forced_on_the_worker_is_waited_out() {
    for seed in seeds(3) {
        let mut rig = Rig::new(seed).await;
        let line = rig.line().await;
        let worker = line.worker().await;
        // It holds bookings and will want its row of worker_progress; the other way round here.
        let held = halted_before(&mut rig, &line, &worker, "lock_stored").await;
        let mut other = rig.place.connect().await;
        // The worker looks for circles first, and is the one that loses.
        execute(&mut other, "SET deadlock_timeout = '60s'").await;
        let first = holding("LOCK TABLE worker_progress IN EXCLUSIVE MODE");
        execute(&mut other, &first).await;
        let blocked = async {
            execute(
                &mut other,
                "LOCK TABLE bookings IN ACCESS EXCLUSIVE MODE; COMMIT",
            )
            .await;
        };
        let released = async {
            until("the other waits", async || {
                (rig.place.number(WAITING).await > 0).then_some(())
            })
            .await;
            held.pass();
        };
        tokio::join!(blocked, released);
        says(&worker, "deadlock detected").await;
        let before = rig.committed().await;
        rig.publish(10).await;
        rig.assert_goes_on(&worker, Instant::now(), before).await;
        worker.stop().await;
        rig.finish().await;
    }
}

/// Each batch asks for what it needs, whatever the database's default is.
#[tokio::test]
async fn another_default_isolation_does_no_harm() {
    for (seed, level) in seeds(2).zip(["repeatable read", "serializable"]) {
        let mut rig = Rig::new(seed).await;
        let sql = format!(
            "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_isolation = ''{level}''', current_database()); END $$"
        );
        run(&rig.place, &sql).await;
        let (first, second) = (rig.line().await, rig.line().await);
        let one = first.worker().await;
        let held = halted_before(&mut rig, &first, &one, "lock_stored").await;
        let two = second.worker().await;
        let before = rig.committed().await;
        rig.place.committed_at_least(before + 1).await;
        held.pass();
        let before = rig.committed().await;
        rig.publish(200).await;
        rig.place.committed_at_least(before + 150).await;
        let log = one.stop().await + &two.stop().await;
        assert!(!log.contains("could not serialize"), "{log}");
        rig.finish().await;
    }
}

/// A fault of the whole database that lasts until it is mended: the worker says what it is on `/readyz`,
/// keeps what it holds, and goes on by itself.
async fn assert_waits(rig: &mut Rig, worker: &Worker, fault: &str, said: &str, mended: &str) {
    let mut other = rig.place.connect().await;
    execute(&mut other, fault).await;
    rig.publish(30).await;
    let reason = worker.unready().await;
    assert!(reason.starts_with("database: "), "{reason}");
    says(worker, said).await;
    assert_eq!(worker.get("/livez").await.0, 200);
    execute(&mut other, mended).await;
    let (over, before) = (Instant::now(), rig.committed().await);
    rig.publish(5).await;
    rig.assert_goes_on(worker, over, before).await;
}

/// Alters the database, for sessions that are opened after it.
fn alter(setting: &str) -> String {
    format!("DO $$ BEGIN EXECUTE format('ALTER DATABASE %I {setting}', current_database()); END $$")
}

/// Gives every session of the worker a setting.
fn set(setting: &str) -> String {
    format!("{}; {TERMINATE}", alter(&format!("SET {setting}")))
}

#[tokio::test]
async fn time_outs_and_a_read_only_database_are_waited_out() {
    for seed in seeds(1) {
        let mut rig = Rig::new(seed).await;
        let worker = Worker::start(small_batches(&rig.place)).await;
        worker.ready().await;
        for (setting, said) in [
            ("lock_timeout = ''200ms''", "lock timeout"),
            ("statement_timeout = ''400ms''", "statement timeout"),
        ] {
            run(&rig.place, &set(setting)).await;
            let lock = holding("LOCK TABLE bookings IN EXCLUSIVE MODE");
            assert_waits(&mut rig, &worker, &lock, said, "COMMIT").await;
            let name = setting.split(' ').next().unwrap();
            run(&rig.place, &alter(&format!("RESET {name}"))).await;
        }
        // The sessions of the worker that were opened meanwhile stay read-only.
        let read_only = set("default_transaction_read_only = on");
        let writable = format!(
            "SET default_transaction_read_only = off; {}",
            alter("RESET default_transaction_read_only")
        );
        assert_waits(
            &mut rig,
            &worker,
            &read_only,
            "read-only transaction",
            &writable,
        )
        .await;
        worker.stop().await;
        rig.finish().await;
    }
}

/// A role of its own, since the limits of a role do not bind a superuser.
async fn as_role(rig: &Rig, name: &str) -> Place {
    let sql = format!(
        "CREATE ROLE {name} LOGIN PASSWORD 'secret';
         GRANT ALL ON SCHEMA public TO {name};
         GRANT ALL ON ALL TABLES IN SCHEMA public TO {name};
         GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {name}"
    );
    run(&rig.place, &sql).await;
    let (_, server) = rig.place.database_url.split_once('@').unwrap();
    Place {
        database_url: format!("postgres://{name}:secret@{server}"),
        ..rig.place.clone()
    }
}

async fn drop_role(rig: &Rig, name: &str) {
    run(
        &rig.place,
        &format!("DROP OWNED BY {name}; DROP ROLE {name}"),
    )
    .await;
}

#[tokio::test]
async fn too_many_connections_are_waited_out() {
    for seed in seeds(1) {
        let mut rig = Rig::new(seed).await;
        let role = format!("paxflow_crowded_{}", std::process::id());
        let place = as_role(&rig, &role).await;
        let worker = Worker::start(small_batches(&place)).await;
        worker.ready().await;
        let none = format!("ALTER ROLE {role} CONNECTION LIMIT 0; {TERMINATE}");
        let enough = format!("ALTER ROLE {role} CONNECTION LIMIT -1");
        assert_waits(
            &mut rig,
            &worker,
            &none,
            "too many connections for role",
            &enough,
        )
        .await;
        worker.stop().await;
        drop_role(&rig, &role).await;
        rig.finish().await;
    }
}

/// Also while it has nothing to do: a supervisor that starts it again may have the new password.
#[tokio::test]
async fn an_idle_worker_ends_where_its_login_is_let_in_no_more() {
    let rig = Rig::new(seeds(1).next().unwrap()).await;
    let role = format!("paxflow_rotated_{}", std::process::id());
    let place = as_role(&rig, &role).await;
    let mut worker = Worker::start(small_batches(&place)).await;
    worker.ready().await;
    run(
        &rig.place,
        &format!("ALTER ROLE {role} NOLOGIN; {TERMINATE}"),
    )
    .await;
    let ended = worker.exit_within(Duration::from_secs(15)).await;
    let log = worker.log();
    let last = log.lines().last().unwrap_or_default();
    assert!(
        ended.code() == Some(1)
            && last.starts_with("paxflow: the database refuses to work with us (DATABASE_URL)")
            && last.ends_with("is not permitted to log in"),
        "{ended}: {log}"
    );
    drop_role(&rig, &role).await;
    rig.finish().await;
}

/// What only a person can mend ends the worker with one clear line; nothing it held is lost.
#[tokio::test]
async fn a_missing_permission_or_table_ends_the_worker_and_loses_nothing() {
    for seed in seeds(1) {
        let mut rig = Rig::new(seed).await;
        let role = format!("paxflow_barred_{}", std::process::id());
        let place = as_role(&rig, &role).await;
        let revoke = format!("REVOKE INSERT ON bookings FROM {role}");
        let grant = format!("GRANT INSERT ON bookings TO {role}");
        for (fault, mended, said) in [
            (
                revoke.as_str(),
                grant.as_str(),
                "permission denied for table bookings",
            ),
            (
                "ALTER TABLE quarantined_events RENAME TO elsewhere",
                "ALTER TABLE elsewhere RENAME TO quarantined_events",
                "\"quarantined_events\" does not exist",
            ),
            (
                "ALTER TABLE flights RENAME COLUMN suffix TO was_suffix",
                "ALTER TABLE flights RENAME COLUMN was_suffix TO suffix",
                "\"suffix\"",
            ),
        ] {
            let mut worker = Worker::start(small_batches(&place)).await;
            worker.ready().await;
            run(&rig.place, fault).await;
            rig.publish(30).await;
            let status = worker.exit_within(Duration::from_secs(30)).await;
            let log = worker.log();
            assert_eq!(status.code(), Some(1), "{log}");
            let lines: Vec<_> = log
                .lines()
                .filter(|line| line.starts_with("paxflow: "))
                .collect();
            assert!(lines.len() == 1 && lines[0].contains(said), "{log}");
            run(&rig.place, mended).await;
        }
        drop_role(&rig, &role).await;
        rig.finish().await;
    }
}

#[tokio::test]
async fn the_schema_may_change_under_a_running_worker() {
    for seed in seeds(1) {
        let mut rig = Rig::new(seed).await;
        let worker = Worker::start(small_batches(&rig.place)).await;
        worker.ready().await;
        for change in [
            "ALTER TABLE bookings ADD COLUMN later text",
            "ALTER TABLE flights ADD COLUMN later integer NOT NULL DEFAULT 7",
            "CREATE INDEX CONCURRENTLY later ON bookings (later)",
            "REINDEX TABLE CONCURRENTLY flight_demand",
            "ALTER TABLE bookings DROP COLUMN later; ALTER TABLE flights DROP COLUMN later",
            "VACUUM FULL bookings",
            "CLUSTER flights USING flights_pkey",
            "ALTER TABLE worker_progress ALTER COLUMN worker_id TYPE varchar(200)",
            "ALTER TABLE worker_progress ALTER COLUMN worker_id TYPE text",
        ] {
            let before = rig.committed().await;
            let changed = async {
                let mut other = rig.place.connect().await;
                for statement in change.split("; ") {
                    execute(&mut other, statement).await;
                }
            };
            changed.await;
            rig.publish(20).await;
            rig.assert_goes_on(&worker, Instant::now(), before).await;
        }
        worker.stop().await;
        rig.finish().await;
    }
}

/// `fast` and `immediate`, in the midst of batches, on servers of its own.
#[tokio::test]
async fn a_server_that_is_stopped_fast_or_at_once_is_waited_out() {
    for seed in seeds(1) {
        let mut rig = Rig::private(seed).await;
        let line = rig.line().await;
        let worker = line.worker().await;
        for point in [CONCLUDE, COMMIT, COMMIT_ANSWERED, ACK] {
            for immediate in [false, true] {
                let proxy = if point == ACK {
                    &line.broker
                } else {
                    &line.database
                };
                let trap = proxy.trap(point, 0);
                rig.publish(60).await;
                let held = trap.sprung_by(|| worker.log()).await;
                if immediate {
                    let postmaster = rig.servers().postgres_pid().unwrap();
                    signal(postmaster, "QUIT");
                    until("it is gone", async || {
                        let gone = PgConnection::connect(&rig.place.database_url)
                            .await
                            .is_err();
                        gone.then_some(())
                    })
                    .await;
                    rig.servers().postgres_stop(Shutdown::Kill).await.unwrap();
                } else {
                    rig.servers()
                        .postgres_stop(Shutdown::Graceful)
                        .await
                        .unwrap();
                }
                held.pass();
                worker.unready().await;
                rig.servers().postgres_start().await.unwrap();
                let over = Instant::now();
                let before = rig.committed().await;
                rig.publish(5).await;
                rig.assert_goes_on(&worker, over, before).await;
            }
        }
        worker.stop().await;
        rig.finish().await;
    }
}

/// The file of a table without rows on a disk that is full, for whoever opens it from now on.
struct FullDisk(PathBuf);

impl FullDisk {
    async fn under(rig: &Rig, table: &str) -> Self {
        let file = format!(
            "SELECT current_setting('data_directory') || '/' || pg_relation_filepath('{table}')"
        );
        let mut connection = rig.place.connect().await;
        let file = dump(&mut connection, &file).await;
        let disk = Self(file.trim_end().into());
        assert_eq!(std::fs::metadata(&disk.0).unwrap().len(), 0);
        std::fs::rename(&disk.0, disk.aside()).unwrap();
        // Whatever is written there finds no space left on the device.
        std::os::unix::fs::symlink("/dev/full", &disk.0).unwrap();
        disk
    }

    fn aside(&self) -> PathBuf {
        self.0.with_extension("aside")
    }

    fn free(self) {
        std::fs::rename(self.aside(), &self.0).unwrap();
    }
}

#[tokio::test]
async fn a_full_disk_is_waited_out() {
    /// All sessions, with the files that they hold open.
    const END_OTHERS: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid()";
    for seed in seeds(1) {
        let mut rig = Rig::private(seed).await;
        let worker = Worker::start(small_batches(&rig.place)).await;
        worker.ready().await;
        let full = FullDisk::under(&rig, "bookings").await;
        run(&rig.place, END_OTHERS).await;
        rig.publish(60).await;
        let reason = worker.unready().await;
        assert!(reason.starts_with("database: "), "{reason}");
        says(&worker, "No space left on device").await;
        assert_eq!(worker.get("/livez").await.0, 200);
        full.free();
        run(&rig.place, END_OTHERS).await;
        let (over, before) = (Instant::now(), rig.committed().await);
        rig.assert_goes_on(&worker, over, before).await;
        worker.stop().await;
        rig.finish().await;
    }
}

/// Two thousand batches of four workers that want the same rows.
#[tokio::test]
async fn four_replicas_on_hot_keys_never_deadlock() {
    const BATCHES: i64 = 2_000;
    for seed in seeds(1) {
        let mut rig = Rig::new(seed).await;
        let mut workers = Vec::new();
        for _ in 0..4 {
            let mut command = small_batches(&rig.place);
            command.env("PAXFLOW_BATCH_MAX", "8");
            workers.push(Worker::start(command).await);
        }
        let batches = "SELECT coalesce(sum(batches), 0)::bigint FROM worker_progress";
        while rig.place.number(batches).await < BATCHES {
            // Few keys in each, so that every batch wants what another one holds.
            rig.publish(150).await;
        }
        for worker in workers {
            let log = worker.stop().await;
            assert!(!log.contains("deadlock"), "{log}");
        }
        let deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
        assert_eq!(rig.place.number(deadlocks).await, 0);
        rig.finish().await;
    }
}
