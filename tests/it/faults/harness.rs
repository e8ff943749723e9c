//! What every test of a fault needs: servers, events, a way to break, and the end that must come.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use paxflow::config::Secret;
use paxflow::db;
use paxflow::sandbox::{Options, Sandbox};
use rand::rngs::ChaCha8Rng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use tokio::process::Command;

use super::invariants;
use super::proxy::{FRAME_WITHIN, Held, Journal, Proxy, Trap};
use super::wire::Protocol;
use crate::history::Generator;
use crate::process::{Place, Producer, Worker, place, until};
use crate::support::{Database, execute, seed};

/// How soon a worker commits again after the fault is over.
pub const BACK_WITHIN: Duration = Duration::from_secs(15);
/// How long a worker that has not come to a step is waited for before it gets more to do.
const NEXT_TRY_AFTER: Duration = Duration::from_secs(5);
/// How long a worker may take to stop.
pub const STOP_WITHIN: Duration = Duration::from_secs(10);

/// Deliveries that [`small_batches`] may hold.
pub const PREFETCH: i64 = 40;

/// Versions that went back: no row of it may ever be written.
const WATCH_VERSIONS: &str = "
    CREATE TABLE version_regressions (relation text, key text, before bigint, after bigint);
    CREATE FUNCTION note_regression() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF NEW.version < OLD.version THEN
            INSERT INTO version_regressions VALUES (TG_TABLE_NAME, OLD::text, OLD.version, NEW.version);
        END IF;
        RETURN NEW;
    END $$;
    CREATE TRIGGER note_regression AFTER UPDATE ON bookings FOR EACH ROW EXECUTE FUNCTION note_regression();
    CREATE TRIGGER note_regression AFTER UPDATE ON flights FOR EACH ROW EXECUTE FUNCTION note_regression();";

/// Seeds of as many runs, printed so that a failed one can be run again.
pub fn seeds(runs: u64) -> impl Iterator<Item = u64> {
    let first = seed();
    println!("{runs} runs from PAXFLOW_TEST_SEED={first}");
    first..first + runs
}

/// Runs at the same time that do not hold each other up: each has a thread.
pub fn in_lanes<T: Send>(work: impl Iterator<Item = T>, run: impl AsyncFn(T) + Sync) {
    const LANES: usize = 3;
    let work = Mutex::new(work.collect::<Vec<_>>().into_iter());
    std::thread::scope(|lanes| {
        for _ in 0..LANES {
            lanes.spawn(|| {
                let runtime = tokio::runtime::Runtime::new().unwrap();
                while let Some(item) = next(&work) {
                    runtime.block_on(run(item));
                }
            });
        }
    });
}

fn next<T>(work: &Mutex<impl Iterator<Item = T>>) -> Option<T> {
    work.lock().unwrap().next()
}

/// A world of events without two contents for one version, so that it ends in the same tables however it
/// arrives. No two chunks share a key: a later version would hide that an earlier one was lost.
pub struct World {
    rng: ChaCha8Rng,
    generator: Generator,
    chunks: usize,
    /// Every valid event made so far.
    pub events: Vec<Value>,
    /// Every body made so far that breaks the contract.
    pub bad: Vec<Vec<u8>>,
}

impl World {
    pub fn new(seed: u64) -> Self {
        Self {
            rng: ChaCha8Rng::seed_from_u64(seed),
            generator: Generator::new(seed),
            chunks: 0,
            events: Vec::new(),
            bad: Vec::new(),
        }
    }

    /// So many events of a few flights and bookings, and some of them twice, out of order, with bad ones
    /// among them.
    pub fn chunk(&mut self, events: usize) -> Vec<Vec<u8>> {
        let (flights, bookings) = (1 + events / 30, 1 + events / 6);
        let chunk = self.chunks;
        self.chunks += 1;
        let first = self.events.len();
        for number in 0..events {
            // Every key has as many versions as it takes.
            let event = if number % 8 == 0 {
                let (flight, version) = (number / 8 % flights, number / 8 / flights + 1);
                self.generator.flight(&format!("F{flight}"), version as i64)
            } else {
                let (booking, version) = (number % bookings, number / bookings + 1);
                let key = format!("C{chunk}B{booking}");
                self.generator.booking(&key, version as i64, flights)
            };
            self.events.push(in_chunk(event, chunk));
        }
        let mut bodies: Vec<_> = self.events[first..].iter().map(body).collect();
        for again in 0..events / 10 {
            bodies.push(bodies[again].clone());
        }
        for number in 0..=events / 25 {
            let event = self.events[first..].choose(&mut self.rng).unwrap();
            let mut bad = event.clone();
            bad["data"]["version"] = json!(-1 - number as i64);
            let bad = if number % 2 == 0 {
                body(&bad)
            } else {
                broken(&bad)
            };
            bodies.push(bad.clone());
            self.bad.push(bad);
        }
        bodies.shuffle(&mut self.rng);
        bodies
    }

    /// A number below a limit.
    pub fn below(&mut self, limit: usize) -> usize {
        self.rng.random_range(0..limit)
    }

    /// Shuffles what a test goes through.
    pub fn shuffled<T: Clone>(&mut self, items: &[T]) -> Vec<T> {
        let mut items = items.to_vec();
        items.shuffle(&mut self.rng);
        items
    }
}

/// Gives the flights of an event a name that only this chunk has.
fn in_chunk(mut event: Value, chunk: usize) -> Value {
    if let Some(flight) = event["data"]["flight_id"].as_str() {
        event["data"]["flight_id"] = json!(format!("C{chunk}{flight}"));
        event["id"] = json!(format!("C{chunk}:{}", event["id"].as_str().unwrap()));
    }
    event
}

/// As by a producer that died in the midst of it.
fn broken(event: &Value) -> Vec<u8> {
    let mut body = body(event);
    body.pop();
    body
}

fn body(event: &Value) -> Vec<u8> {
    serde_json::to_vec(event).unwrap()
}

/// A way to both servers that can be broken.
pub struct Line {
    /// The way to RabbitMQ.
    pub broker: Proxy,
    /// The way to PostgreSQL.
    pub database: Proxy,
    /// The place as seen through them.
    pub place: Place,
    /// What came through.
    pub journal: Arc<Journal>,
}

impl Line {
    /// Lays a line to a place.
    pub async fn to(place: &Place) -> Self {
        let journal = Arc::new(Journal::default());
        let through = async |url: &str, protocol| {
            let server = host_of(url);
            let proxy = Proxy::to(server, protocol, &journal).await;
            let url = url.replacen(server, &proxy.address, 1);
            (proxy, url)
        };
        let (broker, amqp_url) = through(&place.amqp_url, Protocol::Amqp).await;
        let (database, database_url) = through(&place.database_url, Protocol::Postgres).await;
        let place = Place {
            // The frames of a connection that may turn into TLS cannot be told apart.
            database_url: format!("{database_url}?sslmode=disable"),
            amqp_url,
            topology: place.topology.clone(),
        };
        Self {
            broker,
            database,
            place,
            journal,
        }
    }

    /// The worker, with batches small enough to be many.
    pub fn command(&self) -> Command {
        small_batches(&self.place)
    }

    /// Starts a worker on this line and waits until it is ready.
    pub async fn worker(&self) -> Worker {
        let worker = Worker::start(self.command()).await;
        worker.ready().await;
        worker
    }
}

/// A worker with batches small enough to be many.
pub fn small_batches(place: &Place) -> Command {
    let mut command = place.paxflow(&["run"]);
    command
        .env("PAXFLOW_BATCH_MAX", "10")
        .env("PAXFLOW_PREFETCH", PREFETCH.to_string());
    command
}

/// Host and port of a URL.
fn host_of(url: &str) -> &str {
    let (_, host) = url.split_once('@').expect("the URL has a user");
    host.split('/').next().unwrap()
}

/// A place with the events that were published to it.
pub struct Rig {
    /// The servers, reached directly.
    pub place: Place,
    /// What was published, all of it confirmed.
    pub world: World,
    /// The servers of this rig alone, if it has them.
    pub sandbox: Option<Sandbox>,
    producer: Option<Producer>,
    /// How many that were.
    pub published: usize,
    journals: Vec<Arc<Journal>>,
    _database: Option<Database>,
}

impl Rig {
    /// A database and a queue on the shared servers.
    pub async fn new(seed: u64) -> Self {
        let database = Database::new().await;
        let mut rig = Self::at(place(&database), seed).await;
        rig._database = Some(database);
        rig
    }

    /// Servers that may be stopped.
    pub async fn private(seed: u64) -> Self {
        let sandbox = Sandbox::start(&Options::default())
            .await
            .expect("the sandbox starts");
        let place = Place::new(sandbox.database_url(), sandbox.amqp_url());
        let options = db::options(&Secret::new(sandbox.database_url()), "test").unwrap();
        db::migrate::migrate(&options)
            .await
            .expect("the schema migrates");
        let mut rig = Self::at(place, seed).await;
        rig.sandbox = Some(sandbox);
        rig
    }

    async fn at(place: Place, seed: u64) -> Self {
        execute(&mut place.connect().await, WATCH_VERSIONS).await;
        place.declare().await;
        Self {
            place,
            world: World::new(seed),
            sandbox: None,
            producer: None,
            published: 0,
            journals: Vec::new(),
            _database: None,
        }
    }

    /// The private servers.
    pub fn servers(&mut self) -> &mut Sandbox {
        self.sandbox
            .as_mut()
            .expect("the rig has servers of its own")
    }

    /// Lays a line; what comes through it counts for the invariants.
    pub async fn line(&mut self) -> Line {
        let line = Line::to(&self.place).await;
        self.journals.push(Arc::clone(&line.journal));
        line
    }

    /// Makes events and publishes them with confirms.
    pub async fn publish(&mut self, events: usize) {
        let bodies = self.world.chunk(events);
        if self.producer.is_none() {
            self.producer = Some(self.place.producer().await);
        }
        self.producer.as_ref().unwrap().publish(&bodies).await;
        self.published += bodies.len();
    }

    /// Publishes until the worker comes to a step, and halts it there. How deliveries happen to be cut
    /// into batches decides whether a batch has anything to say in a statement.
    pub async fn halted_at(&mut self, mut trap: Trap, worker: &Worker) -> Held {
        let started = Instant::now();
        loop {
            self.publish(60).await;
            if let Some(held) = trap.sprung_within(NEXT_TRY_AFTER).await {
                return held;
            }
            assert!(
                started.elapsed() < FRAME_WITHIN,
                "{}",
                trap.missed(worker.log())
            );
        }
    }

    /// Forgets the connection that publishes: the broker went away.
    pub fn hang_up(&mut self) {
        self.producer = None;
    }

    /// Deliveries committed so far.
    pub async fn committed(&self) -> i64 {
        self.place.committed().await.0
    }

    /// Something new is committed in time after a fault is over. `before` is what was committed then.
    pub async fn assert_goes_on(&self, worker: &Worker, over: Instant, before: i64) {
        self.place.committed_at_least(before + 1).await;
        worker.ready().await;
        let took = over.elapsed();
        assert!(
            took < BACK_WITHIN,
            "liveness: back after {took:?}\n{}",
            worker.log()
        );
    }

    /// With every other worker gone, a last one finishes what is left; then all that is promised holds.
    pub async fn finish(mut self) {
        self.hang_up();
        // Until its connections have ended, a dead worker has its transaction, and what it was given: a consumer that was
        // cancelled counts no more.
        for journal in &self.journals {
            journal.ended().await;
        }
        until("the other workers are gone", async || {
            let state = self.place.waiting(&self.place.topology.queue).await;
            (state.consumers == 0).then_some(())
        })
        .await;
        let worker = self.place.worker().await;
        self.place.drained().await;
        let footprint = invariants::Footprint::of(worker.id());
        worker.stop().await;
        self.place.assert_drained().await;
        footprint.assert_bounded();
        for journal in &self.journals {
            assert_eq!(journal.early_acks(), 0, "ack_after_commit");
        }
        invariants::check(&self.place, &self.world, self.published).await;
        if let Some(sandbox) = self.sandbox {
            sandbox.stop().await.unwrap();
        }
    }
}
