//! What a worker keeps of what it has recorded.

use metrics::histogram;
use paxflow::telemetry::{COMMIT_SECONDS, start_metrics};
use tokio::process::Command;

use crate::faults::invariants::Footprint;
use crate::process::until;

/// Set for the process that runs one test and nothing else.
const ALONE: &str = "PAXFLOW_TEST_ALONE";

/// Runs a test in a process of its own, in which every block that is freed goes back to the system at once; `false` there.
async fn ran_alone(test: &str) -> bool {
    if std::env::var_os(ALONE).is_some() {
        return false;
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", test, "--nocapture"])
        .env(ALONE, "1")
        // Of glibc.
        .env("MALLOC_MMAP_THRESHOLD_", "256")
        .kill_on_drop(true);
    let ended = command.output().await.unwrap();
    let said = String::from_utf8_lossy(&ended.stdout) + String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{said}");
    assert!(said.contains(" 1 passed"), "{said}");
    true
}

fn rss_mib() -> u64 {
    Footprint::of(std::process::id()).rss_mib
}

#[tokio::test]
async fn what_nobody_scrapes_is_not_kept() {
    const SAMPLES: usize = 1_000_000;
    if ran_alone("telemetry::what_nobody_scrapes_is_not_kept").await {
        return;
    }
    let _metrics = start_metrics().unwrap();
    let seconds = histogram!(COMMIT_SECONDS);
    let before = rss_mib();
    for _ in 0..SAMPLES {
        seconds.record(0.01);
    }
    let kept = rss_mib() - before;
    assert!(kept > 8, "{kept} MiB hold {SAMPLES} samples");
    until("they are summed up", async || {
        // What was summed up is freed while others are recorded.
        for _ in 0..100 {
            seconds.record(0.01);
        }
        (rss_mib() < before + kept / 4).then_some(())
    })
    .await;
}
