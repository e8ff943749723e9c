//! The worker dies, freezes, or is told to stop, at every step of a batch's life.

use std::time::{Duration, Instant};

use futures_util::future::join_all;

use super::harness::{
    BACK_WITHIN, Line, PREFETCH, Rig, STOP_WITHIN, in_lanes, seeds, small_batches,
};
use super::invariants::Footprint;
use super::proxy::{Cut, Held};
use super::wire::{
    ACK, BEGIN, BEGIN_ANSWERED, CANCEL, COMMIT, COMMIT_ANSWERED, CONCLUDE, CONSUME_ANSWERED,
    DELIVER, NACK, Point, STATEMENTS,
};
use crate::process::{Worker, until};

/// Where the life of a batch can end: a delivery on its way, decoded and folded (the transaction is about
/// to begin), begun, before each of the five statements, before the commit, after it, and before the
/// acknowledgement. After the acknowledgement the worker takes deliveries of the next batch.
fn points() -> Vec<Point> {
    let statements = STATEMENTS.iter().map(|(point, _)| *point);
    [DELIVER, BEGIN, BEGIN_ANSWERED]
        .into_iter()
        .chain(statements)
        .chain([COMMIT, COMMIT_ANSWERED, ACK])
        .collect()
}

/// Publishes events and returns with the worker halted at one of its steps.
async fn halted_at(rig: &mut Rig, line: &Line, worker: &Worker, point: Point) -> Held {
    let before = rig.world.below(2);
    let proxy = match point {
        DELIVER | ACK | CANCEL | NACK => &line.broker,
        _ => &line.database,
    };
    rig.halted_at(proxy.trap(point, before), worker).await
}

async fn kill(worker: &mut Worker) {
    worker.signal("KILL");
    worker.exit_within(STOP_WITHIN).await;
}

#[test]
fn sigkill_at_every_step_of_a_batch() {
    const SEEDS: u64 = 5;
    let points = points();
    assert!(points.len() >= 11);
    let run = async |seed| {
        let mut rig = Rig::new(seed).await;
        for point in rig.world.shuffled(&points) {
            let line = rig.line().await;
            let mut worker = line.worker().await;
            let held = halted_at(&mut rig, &line, &worker, point).await;
            kill(&mut worker).await;
            // What it sent last arrives after its death, or never.
            match rig.world.below(3) {
                0 => held.cut_before(Cut::Reset),
                1 => held.cut_before(Cut::Close),
                _ => held.pass(),
            }
        }
        // While it stops: what is in hand is committed, acknowledged, or handed back.
        for point in [CANCEL, COMMIT, COMMIT_ANSWERED, ACK, NACK] {
            kill_at_a_step_of_its_stop(&mut rig, point).await;
        }
        rig.finish().await;
    };
    in_lanes(seeds(SEEDS), run);
}

async fn kill_at_a_step_of_its_stop(rig: &mut Rig, point: Point) {
    let line = rig.line().await;
    let mut worker = line.worker().await;
    // Of a batch and of nothing else, so that a commit and an acknowledgement follow.
    let batch = halted_at(rig, &line, &worker, CONCLUDE).await;
    let trap = || match point {
        CANCEL | ACK | NACK => line.broker.trap(point, 0),
        _ => line.database.trap(point, 0),
    };
    // It cancels as soon as it stops, and once more where it hands back; the batch before may be acknowledged until then.
    let early = (point == CANCEL).then(trap);
    worker.signal("TERM");
    until("it stops", async || {
        worker.log().contains("stopping").then_some(())
    })
    .await;
    let trap = early.unwrap_or_else(trap);
    batch.pass();
    let held = trap.sprung_by(|| worker.log()).await;
    kill(&mut worker).await;
    drop(held);
}

#[tokio::test]
async fn a_hundred_kills_of_two_replicas_under_load() {
    const KILLS: usize = 100;
    for seed in seeds(1) {
        let mut rig = Rig::new(seed).await;
        let mut workers = [
            Worker::start(small_batches(&rig.place)).await,
            Worker::start(small_batches(&rig.place)).await,
        ];
        for _ in 0..KILLS {
            let before = rig.committed().await;
            rig.publish(40).await;
            // In the midst of it: before anything is committed, or after some batches.
            let progress = rig.world.below(30) as i64;
            rig.place.committed_at_least(before + progress).await;
            let unlucky = rig.world.below(2);
            kill(&mut workers[unlucky]).await;
            workers[unlucky] = Worker::start(small_batches(&rig.place)).await;
        }
        for worker in workers {
            worker.stop().await;
        }
        rig.finish().await;
    }
}

/// Each crash counts against every delivery in hand, though none of them is to blame. The next worker begins with
/// one and clears them long before the broker's limit.
#[tokio::test]
async fn thirty_crashes_with_full_hands_dead_letter_nothing() {
    const CRASHES: usize = 30;
    for seed in seeds(1) {
        let mut rig = Rig::new(seed).await;
        for _ in 0..CRASHES {
            rig.publish(300).await;
            let line = rig.line().await;
            let before = rig.committed().await;
            let mut worker = Worker::start(line.command()).await;
            rig.place.committed_at_least(before + 3 * PREFETCH).await;
            let trap = line.database.trap(COMMIT, 1);
            let held = trap.sprung_by(|| worker.log()).await;
            until("its hands are full", async || {
                let delivered = line.journal.count(DELIVER) as i64;
                let committed = rig.committed().await - before;
                (delivered - committed >= PREFETCH).then_some(())
            })
            .await;
            worker.signal("KILL");
            worker.exit_within(STOP_WITHIN).await;
            held.cut_before(Cut::Reset);
        }
        rig.finish().await;
    }
}

/// The commit of a worker that is dead arrives while the next one works on the same events.
#[tokio::test]
async fn a_commit_that_arrives_after_the_death_of_its_worker_counts_once() {
    for seed in seeds(3) {
        let mut rig = Rig::new(seed).await;
        let line = rig.line().await;
        let mut worker = line.worker().await;
        let held = halted_at(&mut rig, &line, &worker, COMMIT).await;
        kill(&mut worker).await;
        let heir = Worker::start(small_batches(&rig.place)).await;
        let waiting = "SELECT count(*) FROM pg_stat_activity
                       WHERE datname = current_database() AND wait_event_type = 'Lock'";
        until("the heir waits for the dead one's keys", async || {
            (rig.place.number(waiting).await > 0).then_some(())
        })
        .await;
        held.pass();
        heir.stop().await;
        rig.finish().await;
    }
}

#[tokio::test]
async fn frozen_for_longer_than_the_heartbeat_another_takes_over() {
    for (seed, point) in seeds(3).zip([DELIVER, COMMIT_ANSWERED, ACK]) {
        let mut rig = Rig::new(seed).await;
        let mut line = rig.line().await;
        // The broker gives up on a peer after two of them.
        line.place.amqp_url += "?heartbeat=1";
        let frozen = line.worker().await;
        let held = halted_at(&mut rig, &line, &frozen, point).await;
        frozen.signal("STOP");
        held.pass();
        until("the broker has given it up", async || {
            let state = rig.place.waiting(&rig.place.topology.queue).await;
            (state.consumers == 0).then_some(())
        })
        .await;
        let other = Worker::start(small_batches(&rig.place)).await;
        other.ready().await;
        let before = rig.committed().await;
        rig.publish(20).await;
        rig.place.committed_at_least(before + 20).await;
        frozen.signal("CONT");
        let over = Instant::now();
        until("it consumes again", async || {
            let state = rig.place.waiting(&rig.place.topology.queue).await;
            (state.consumers == 2).then_some(())
        })
        .await;
        frozen.ready().await;
        assert!(over.elapsed() < BACK_WITHIN, "{}", frozen.log());
        frozen.stop().await;
        other.stop().await;
        rig.finish().await;
    }
}

/// In the midst of every step: whether the step ends or never does, the worker ends in time and hands back
/// what it has not committed.
#[tokio::test]
async fn clean_exit_on_sigterm_at_every_step_of_a_batch() {
    for seed in seeds(1) {
        let mut rig = Rig::new(seed).await;
        for point in points() {
            let line = rig.line().await;
            let mut worker = line.worker().await;
            let held = halted_at(&mut rig, &line, &worker, point).await;
            worker.signal("TERM");
            until("it has heard", async || {
                worker.log().contains("told to stop").then_some(())
            })
            .await;
            held.pass();
            let status = worker.exit_within(STOP_WITHIN).await;
            assert_eq!(status.code(), Some(0), "{point}: {}", worker.log());
        }
        rig.finish().await;
    }
}

#[test]
fn clean_exit_on_sigterm_at_a_step_that_never_ends() {
    let run = async |(seed, point): (u64, Point)| {
        let mut rig = Rig::new(seed).await;
        let line = rig.line().await;
        let mut worker = line.worker().await;
        let held = halted_at(&mut rig, &line, &worker, point).await;
        worker.signal("TERM");
        let status = worker.exit_within(STOP_WITHIN).await;
        assert_eq!(status.code(), Some(0), "{point}: {}", worker.log());
        held.cut_before(Cut::Close);
        rig.finish().await;
    };
    let points = [BEGIN_ANSWERED, "insert_new", COMMIT, COMMIT_ANSWERED, ACK];
    in_lanes(seeds(points.len() as u64).zip(points), run);
}

/// What the broker has not come to of the acknowledgements would be delivered again.
#[tokio::test]
async fn a_stop_waits_for_a_slow_broker() {
    const SLOW: Duration = Duration::from_secs(4);
    for seed in seeds(1) {
        let mut rig = Rig::new(seed).await;
        let line = rig.line().await;
        let mut worker = line.worker().await;
        let held = halted_at(&mut rig, &line, &worker, ACK).await;
        worker.signal("TERM");
        assert!(!worker.ends_within(SLOW).await, "{}", worker.log());
        held.pass();
        let status = worker.exit_within(STOP_WITHIN).await;
        assert_eq!(status.code(), Some(0), "{}", worker.log());
        rig.finish().await;
    }
}

/// Each time another connection, with its thread and its buffers; the process stays as large as it was.
#[tokio::test]
async fn two_hundred_sessions_leave_nothing_behind() {
    const SESSIONS: u64 = 200;
    // The pool opens connections when they are needed: they are counted where they lead to.
    const POOLED: &str = "SELECT count(*) FROM pg_stat_activity
         WHERE datname = current_database() AND application_name = 'paxflow worker'";
    for seed in seeds(1) {
        let mut rig = Rig::new(seed).await;
        let line = rig.line().await;
        let worker = line.worker().await;
        let mut settled = None;
        for session in 1..=SESSIONS {
            let acked = line.journal.count(ACK);
            rig.publish(3).await;
            // Whoever makes progress is not kept waiting.
            until("it makes progress", async || {
                (line.journal.count(ACK) > acked).then_some(())
            })
            .await;
            if session == SESSIONS / 10 {
                let pooled = rig.place.number(POOLED).await as usize;
                settled = Some((Footprint::of(worker.id()), pooled));
            }
            let cut = if session % 2 == 0 {
                Cut::Reset
            } else {
                Cut::Close
            };
            line.broker.cut(cut);
            until("it consumes again", async || {
                (line.journal.count(CONSUME_ANSWERED) > session).then_some(())
            })
            .await;
        }
        worker.ready().await;
        let pooled = rig.place.number(POOLED).await as usize;
        let ((settled, settled_pooled), now) = (settled.unwrap(), Footprint::of(worker.id()));
        assert!(pooled > 0 && settled_pooled > 0);
        assert!(
            now.fds - pooled <= settled.fds - settled_pooled + 2
                && now.threads <= settled.threads + 2
                && now.rss_mib <= settled.rss_mib + 16,
            "bounded: {settled:?} after {} sessions, {now:?} after {SESSIONS}",
            SESSIONS / 10
        );
        worker.stop().await;
        rig.finish().await;
    }
}

#[tokio::test]
async fn two_hundred_starts_and_stops_leave_nothing_behind() {
    const STARTS: usize = 200;
    const LANES: usize = 4;
    for seed in seeds(1) {
        let mut rig = Rig::new(seed).await;
        rig.publish(400).await;
        let place = &rig.place;
        let lanes = (0..LANES).map(|_| async move {
            for _ in 0..STARTS / LANES {
                Worker::start(small_batches(place)).await.stop().await;
            }
        });
        join_all(lanes).await;
        rig.finish().await;
    }
}
