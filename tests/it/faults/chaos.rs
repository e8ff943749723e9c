//! Seeded mixes of every fault. The actions of a run are chosen before it starts, so that its seed
//! brings the same ones again; at its end everything is exact, drained and balanced.
//!
//! PAXFLOW_TEST_CHAOS asks for more runs than a change can wait for.

use std::time::{Duration, Instant};

use paxflow::sandbox::Shutdown;
use rand::rngs::ChaCha8Rng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use super::harness::{Line, Rig, STOP_WITHIN, in_lanes, seeds};
use super::proxy::{Cut, Held, Proxy};
use super::wire::{ACK, BEGIN_ANSWERED, COMMIT, COMMIT_ANSWERED, CONCLUDE, DELIVER, Point};
use crate::process::Worker;
use crate::support::{execute, holding, setting};

const RUNS: u64 = 25;
const ACTIONS: usize = 40;
const REPLICAS: usize = 2;
/// How long a fault that ends by itself lasts, at most: beyond the first back-offs.
const FAULT_MS_MAX: u64 = 400;

const POINTS: [Point; 8] = [
    DELIVER,
    BEGIN_ANSWERED,
    "insert_new",
    "lock_stored",
    CONCLUDE,
    COMMIT,
    COMMIT_ANSWERED,
    ACK,
];
const CUTS: [Cut; 3] = [Cut::Close, Cut::Reset, Cut::Half];

/// Which way of a replica is meant.
#[derive(Debug, Clone, Copy)]
enum Way {
    Broker,
    Database,
}

#[derive(Debug, Clone, Copy)]
enum Action {
    Publish(usize),
    Kill(usize),
    Restart(usize),
    /// Stopped for a while, as by a hypervisor.
    Pause(usize, Duration),
    Cut(usize, Way, Cut),
    CutAt(usize, Point, Cut),
    KillAt(usize, Point),
    Freeze(usize, Way, Duration),
    Refuse(usize, Way, Duration),
    Slow(usize, Way, Duration),
    Terminate,
    /// Somebody holds a table.
    Lock(Duration),
    ReadOnly(Duration),
}

fn plan(rng: &mut ChaCha8Rng) -> Vec<Action> {
    (0..ACTIONS).map(|_| choose(rng)).collect()
}

fn choose(rng: &mut ChaCha8Rng) -> Action {
    let replica = rng.random_range(0..REPLICAS);
    let way = *[Way::Broker, Way::Database].choose(rng).unwrap();
    let cut = *CUTS.choose(rng).unwrap();
    let point = *POINTS.choose(rng).unwrap();
    let lasting = Duration::from_millis(rng.random_range(1..=FAULT_MS_MAX));
    match rng.random_range(0..20) {
        0..=3 => Action::Publish(rng.random_range(10..=80)),
        4 => Action::Kill(replica),
        5 => Action::Restart(replica),
        6 => Action::Pause(replica, lasting),
        7..=8 => Action::Cut(replica, way, cut),
        9..=11 => Action::CutAt(replica, point, cut),
        12..=13 => Action::KillAt(replica, point),
        14 => Action::Freeze(replica, way, lasting),
        15 => Action::Refuse(replica, way, lasting),
        16 => Action::Slow(replica, way, lasting / 40),
        17 => Action::Terminate,
        18 => Action::Lock(lasting),
        _ => Action::ReadOnly(lasting),
    }
}

/// A worker and its way to the servers.
struct Replica {
    line: Line,
    worker: Worker,
}

impl Replica {
    async fn new(rig: &mut Rig) -> Self {
        let line = rig.line().await;
        let worker = Worker::start(line.command()).await;
        Self { line, worker }
    }

    async fn kill(&mut self) {
        self.worker.signal("KILL");
        self.worker.exit_within(STOP_WITHIN).await;
        self.worker = Worker::start(self.line.command()).await;
    }

    async fn restart(&mut self) {
        self.worker.signal("TERM");
        let status = self.worker.exit_within(STOP_WITHIN).await;
        assert!(status.success(), "{status}: {}", self.worker.log());
        self.worker = Worker::start(self.line.command()).await;
    }

    fn way(&self, way: Way) -> &Proxy {
        match way {
            Way::Broker => &self.line.broker,
            Way::Database => &self.line.database,
        }
    }

    /// The frame of a step, if the replica comes to it before long: another one may have had the events.
    async fn halted_at(&self, rig: &mut Rig, point: Point) -> Option<Held> {
        let way = match point {
            DELIVER | ACK => Way::Broker,
            _ => Way::Database,
        };
        let mut trap = self.way(way).trap(point, 0);
        rig.publish(30).await;
        trap.sprung_within(Duration::from_millis(FAULT_MS_MAX))
            .await
    }
}

/// Nothing is waited for here: how long a fault lasts is part of it.
async fn last(lasting: Duration) {
    tokio::time::sleep(lasting).await;
}

async fn act(rig: &mut Rig, replicas: &mut [Replica], action: Action) {
    match action {
        Action::Publish(events) => rig.publish(events).await,
        Action::Kill(replica) => replicas[replica].kill().await,
        Action::Restart(replica) => replicas[replica].restart().await,
        Action::Pause(replica, lasting) => {
            replicas[replica].worker.signal("STOP");
            last(lasting).await;
            replicas[replica].worker.signal("CONT");
        }
        Action::Cut(replica, way, cut) => replicas[replica].way(way).cut(cut),
        Action::CutAt(replica, point, cut) => {
            if let Some(held) = replicas[replica].halted_at(rig, point).await {
                held.cut_after(cut);
            }
        }
        Action::KillAt(replica, point) => {
            let held = replicas[replica].halted_at(rig, point).await;
            replicas[replica].kill().await;
            drop(held);
        }
        Action::Freeze(replica, way, lasting) => {
            replicas[replica].way(way).freeze(true);
            last(lasting).await;
            replicas[replica].way(way).freeze(false);
        }
        Action::Refuse(replica, way, lasting) => {
            replicas[replica].way(way).refuse(true);
            replicas[replica].way(way).cut(Cut::Reset);
            last(lasting).await;
            replicas[replica].way(way).refuse(false);
        }
        Action::Slow(replica, way, delay) => replicas[replica].way(way).delay(delay),
        Action::Terminate | Action::Lock(_) | Action::ReadOnly(_) => {
            trouble_database(rig, action).await;
        }
    }
}

const TERMINATE: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = 'paxflow worker'";

async fn trouble_database(rig: &Rig, action: Action) {
    let mut other = rig.place.connect().await;
    execute(&mut other, "SET default_transaction_read_only = off").await;
    match action {
        Action::Lock(lasting) => {
            let lock = holding("LOCK TABLE bookings IN EXCLUSIVE MODE");
            execute(&mut other, &lock).await;
            last(lasting).await;
            execute(&mut other, "COMMIT").await;
        }
        Action::ReadOnly(lasting) => {
            let alter = |setting: &str| {
                format!(
                    "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I {setting}', current_database()); END $$"
                )
            };
            let read_only = alter("SET default_transaction_read_only = on");
            execute(&mut other, &format!("{read_only}; {TERMINATE}")).await;
            last(lasting).await;
            // Sessions that were opened meanwhile stay read-only.
            execute(&mut other, &alter("RESET default_transaction_read_only")).await;
        }
        _ => execute(&mut other, TERMINATE).await,
    }
}

async fn run(seed: u64) {
    let mut rig = Rig::new(seed).await;
    let actions = plan(&mut ChaCha8Rng::seed_from_u64(seed));
    println!("seed {seed}: {actions:?}");
    let mut replicas = vec![Replica::new(&mut rig).await, Replica::new(&mut rig).await];
    for action in actions {
        act(&mut rig, &mut replicas, action).await;
    }
    settle(&mut rig, replicas).await;
    rig.finish().await;
}

/// All faults are over: every replica is ready again, works, and ends well.
async fn settle(rig: &mut Rig, replicas: Vec<Replica>) {
    for replica in &replicas {
        for way in [Way::Broker, Way::Database] {
            replica.way(way).delay(Duration::ZERO);
        }
    }
    let over = Instant::now();
    let before = rig.committed().await;
    rig.publish(20).await;
    for replica in &replicas {
        rig.assert_goes_on(&replica.worker, over, before).await;
    }
    for replica in replicas {
        replica.worker.stop().await;
    }
}

#[test]
fn chaos_ends_exact_drained_and_balanced() {
    in_lanes(seeds(setting("PAXFLOW_TEST_CHAOS").unwrap_or(RUNS)), run);
}

/// The servers themselves go and come as well.
#[tokio::test]
async fn chaos_with_servers_that_stop_and_start() {
    for seed in seeds(1) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut rig = Rig::private(seed).await;
        let mut replicas = vec![Replica::new(&mut rig).await, Replica::new(&mut rig).await];
        for round in 0..8 {
            for _ in 0..5 {
                let action = choose(&mut rng);
                println!("seed {seed}: {action:?}");
                act(&mut rig, &mut replicas, action).await;
            }
            rig.publish(60).await;
            let shutdown = *[Shutdown::Graceful, Shutdown::Kill]
                .choose(&mut rng)
                .unwrap();
            println!("seed {seed}: {shutdown:?}");
            // The broker takes far longer to start.
            if round % 4 == 3 {
                rig.hang_up();
                rig.servers().rabbitmq_stop(shutdown).await.unwrap();
                rig.servers().rabbitmq_start().await.unwrap();
            } else {
                rig.servers().postgres_stop(shutdown).await.unwrap();
                rig.servers().postgres_start().await.unwrap();
            }
            for replica in &replicas {
                replica.worker.ready().await;
            }
        }
        settle(&mut rig, replicas).await;
        rig.finish().await;
    }
}
