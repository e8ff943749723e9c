//! All that is promised, checked at the end of every run.

use std::collections::BTreeSet;
use std::fs;

use serde_json::json;

use super::harness::World;
use crate::events::flight;
use crate::process::{LAST, Place, last_version};
use crate::support::{Database, assert_exact, assert_same_rows, dump, execute, table_rows};

/// A worker needs this little, however much is waiting for it.
const RSS_MIB_MAX: u64 = 256;
const FDS_MAX: usize = 64;
const THREADS_MAX: usize = 32;

/// The end of a run: every confirmed event has had its effect once.
pub async fn check(place: &Place, world: &World, published: usize) {
    let mut connection = place.connect().await;
    // The looks below join whole tables; without it the planner takes them for empty.
    execute(&mut connection, "ANALYZE").await;
    assert_exact(&mut connection).await;
    place.assert_exact().await;
    let undisturbed = undisturbed(world, last_version(&mut connection).await).await;
    assert_same_rows(&table_rows(&mut connection).await, &undisturbed);
    let set_aside = "SELECT body FROM quarantined_events";
    let set_aside: BTreeSet<Vec<u8>> = sqlx::query_scalar(set_aside)
        .fetch_all(&mut connection)
        .await
        .unwrap()
        .into_iter()
        .collect();
    let bad: BTreeSet<Vec<u8>> = world.bad.iter().cloned().collect();
    assert!(
        set_aside == bad,
        "no_loss: other bodies are set aside than those that are bad"
    );

    let regressions = "SELECT * FROM version_regressions";
    assert_eq!(
        dump(&mut connection, regressions).await,
        "",
        "versions_monotone"
    );
    let unbalanced = "SELECT worker_id, received FROM worker_progress
        WHERE received <> applied + duplicate + stale + folded + quarantined";
    assert_eq!(
        dump(&mut connection, unbalanced).await,
        "",
        "the verdicts do not add up"
    );
    let (received, _) = place.committed().await;
    assert!(
        received >= published as i64,
        "{received} received of {published}"
    );
    let left = "SELECT pid, state, application_name FROM pg_stat_activity
        WHERE datname = current_database() AND application_name LIKE 'paxflow%' AND pid <> pg_backend_pid()
          AND (application_name = 'paxflow worker' OR state LIKE 'idle in transaction%')";
    assert_eq!(dump(&mut connection, left).await, "", "sessions are left");
}

/// The tables after the same events without any fault, in one go, and after the last of all, as often as it came.
async fn undisturbed(world: &World, last: i64) -> String {
    let database = Database::new().await;
    let mut applier = database.applier().await;
    for batch in world.events.chunks(1000) {
        applier.apply(batch).await;
    }
    applier
        .apply(&[flight(json!({ "flight_id": LAST, "version": last }))])
        .await;
    execute(&mut applier.connection, "ANALYZE").await;
    table_rows(&mut applier.connection).await
}

/// What a process holds.
#[derive(Debug, Clone, Copy)]
pub struct Footprint {
    pub fds: usize,
    pub threads: usize,
    pub rss_mib: u64,
}

impl Footprint {
    /// Looks at a process.
    pub fn of(id: u32) -> Self {
        let entries = |directory: &str| {
            fs::read_dir(format!("/proc/{id}/{directory}"))
                .unwrap()
                .count()
        };
        let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap();
        let rss = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .unwrap();
        let rss_kib: u64 = rss.trim().trim_end_matches(" kB").parse().unwrap();
        Self {
            fds: entries("fd"),
            threads: entries("task"),
            rss_mib: rss_kib / 1024,
        }
    }

    /// It is no more than a worker ever needs.
    pub fn assert_bounded(&self) {
        assert!(
            self.fds <= FDS_MAX && self.threads <= THREADS_MAX && self.rss_mib <= RSS_MIB_MAX,
            "bounded: {self:?}"
        );
    }
}
