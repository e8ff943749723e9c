//! The program itself: its processes, the queue they work on, and the facts that a test waits for.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::process::{ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use lapin::options::{
    BasicPublishOptions, ConfirmSelectOptions, QueueBindOptions, QueueDeclareOptions,
    QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties};
use paxflow::broker::{Publisher, QueueState, Topology, queue_state};
use paxflow::config::{ConsumerRole, Secret};
use paxflow::event::{Change, Message, decode};
use paxflow::{audit, db, world};
use serde_json::json;
use sqlx::postgres::PgConnection;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::canary;
use crate::events::flight;
use crate::running::{said, signal};
use crate::support::{Database, servers, sum_of};

pub use crate::running::{Running, fed};

/// How long a fact may take to come true on a machine that is busy with other things.
pub const PATIENCE: Duration = Duration::from_secs(180);
/// The flight that is published last.
pub const LAST: &str = "LAST";
/// How often a fact is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Waits for a fact.
pub async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(fact) = look().await {
            return fact;
        }
        assert!(
            started.elapsed() < PATIENCE,
            "not seen in {PATIENCE:?}: {what}"
        );
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// A database, a broker, and an exchange and queue that no other test uses.
#[derive(Clone)]
pub struct Place {
    /// The database.
    pub database_url: String,
    /// The broker.
    pub amqp_url: String,
    /// Exchange and queue.
    pub topology: Topology,
}

/// A place on the shared servers.
pub fn place(database: &Database) -> Place {
    let name = database
        .options
        .get_database()
        .expect("a test's database has a name");
    Place::new(&database_url(name), &servers().amqp_url)
}

/// A database of the shared server by its name.
pub fn database_url(name: &str) -> String {
    let (server, _) = servers()
        .database_url
        .rsplit_once('/')
        .expect("the URL names a database");
    format!("{server}/{name}")
}

impl Place {
    pub fn new(database_url: &str, amqp_url: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        // In containers processes are numbered alike, and a broker may be there for longer.
        let random = rand::random::<u32>();
        let name = format!("paxflow.test.{}.{number}.{random:08x}", std::process::id());
        Self {
            database_url: database_url.to_owned(),
            amqp_url: amqp_url.to_owned(),
            topology: Topology {
                exchange: name.clone(),
                queue: name,
                consumer: ConsumerRole::Shared,
            },
        }
    }

    /// The program with the settings of this place and no others.
    pub fn paxflow(&self, arguments: &[&str]) -> Command {
        let mut command = paxflow(arguments);
        command
            .env("DATABASE_URL", &self.database_url)
            .env("AMQP_URL", &self.amqp_url)
            .env("PAXFLOW_EXCHANGE", &self.topology.exchange)
            .env("PAXFLOW_QUEUE", &self.topology.queue)
            .env("PAXFLOW_CONSUMER", self.topology.consumer.as_str())
            .env("PAXFLOW_HTTP_ADDR", "127.0.0.1:0");
        command
    }

    /// Starts a worker that has announced itself; it need not be ready.
    pub async fn boot(&self) -> Worker {
        Worker::start(self.paxflow(&["run"])).await
    }

    /// Starts a worker and waits until it is ready.
    pub async fn worker(&self) -> Worker {
        let worker = self.boot().await;
        worker.ready().await;
        worker
    }

    /// Connects to the database.
    pub async fn connect(&self) -> PgConnection {
        let options = db::options(&Secret::new(self.database_url.as_str()), "test").unwrap();
        db::connect(&options).await.expect("the database answers")
    }

    /// Declares exchange and queues as the program does.
    pub async fn declare(&self) {
        let url = Secret::new(self.amqp_url.as_str());
        let publisher = Publisher::open(&url, &self.topology)
            .await
            .expect("the broker takes the topology");
        publisher.close().await;
    }

    /// Opens a connection that publishes to the exchange, with the queues declared.
    pub async fn producer(&self) -> Producer {
        self.declare().await;
        let connection = Connection::connect(&self.amqp_url, ConnectionProperties::default())
            .await
            .unwrap();
        let channel = connection.create_channel().await.unwrap();
        channel
            .confirm_select(ConfirmSelectOptions::default())
            .await
            .unwrap();
        Producer {
            topology: self.topology.clone(),
            _connection: connection,
            channel,
        }
    }

    /// Publishes bodies as a correct producer would.
    pub async fn publish(&self, bodies: &[Vec<u8>]) {
        self.producer().await.publish(bodies).await;
    }

    /// Messages that are ready in a queue; those in the hands of a worker are not.
    pub async fn waiting(&self, queue: &str) -> QueueState {
        let url = Secret::new(self.amqp_url.as_str());
        queue_state(&url, queue)
            .await
            .expect("the broker answers")
            .expect("the queue exists")
    }

    /// With every worker gone nothing is left in the queue, and nothing was dead-lettered.
    pub async fn assert_drained(&self) {
        until("the queue has no consumer", async || {
            (self.waiting(&self.topology.queue).await.consumers == 0).then_some(())
        })
        .await;
        assert_eq!(
            self.waiting(&self.topology.queue).await.ready,
            0,
            "events are left in the queue"
        );
        assert_eq!(
            self.waiting(&self.topology.dead_letters()).await.ready,
            0,
            "events were dead-lettered"
        );
    }

    /// Verdicts of all workers: (received, the sum of the five).
    pub async fn committed(&self) -> (i64, i64) {
        let sums = "SELECT coalesce(sum(received), 0)::bigint,
                           coalesce(sum(applied + duplicate + stale + folded + quarantined), 0)::bigint
                    FROM worker_progress";
        sqlx::query_as(sums)
            .fetch_one(&mut self.connect().await)
            .await
            .unwrap()
    }

    /// Waits until the workers have committed so many deliveries.
    pub async fn committed_at_least(&self, deliveries: i64) {
        let mut connection = self.connect().await;
        until(
            &format!("{deliveries} deliveries are committed"),
            async || {
                let sum = "SELECT coalesce(sum(received), 0)::bigint FROM worker_progress";
                let received: i64 = sqlx::query_scalar(sum)
                    .fetch_one(&mut connection)
                    .await
                    .unwrap();
                (received >= deliveries).then_some(())
            },
        )
        .await;
    }

    /// Waits until everything published so far is committed. With one worker the queue is in order, and
    /// what comes back to it comes back to its front: so the last event is the last one.
    pub async fn drained(&self) {
        let mut connection = self.connect().await;
        let version = last_version(&mut connection).await + 1;
        let last = flight(json!({ "flight_id": LAST, "version": version }));
        self.publish(&[serde_json::to_vec(&last).unwrap()]).await;
        until("the last event is committed", async || {
            (last_version(&mut connection).await == version).then_some(())
        })
        .await;
    }

    /// No loss: the highest version of every key is stored, and every bad event is set aside.
    pub async fn assert_holds(&self, bodies: &[Vec<u8>]) {
        let (mut newest, mut bad) = (BTreeMap::<String, i64>::new(), BTreeSet::new());
        for body in bodies {
            let Ok(event) = decode(&Message::of_body(body)) else {
                bad.insert(body);
                continue;
            };
            let (key, version) = match event.change {
                Change::Booking(booking) => (format!("booking {}", booking.key), booking.version),
                Change::Flight(flight) => (format!("flight {}", flight.key), flight.version),
            };
            let highest = newest.entry(key).or_default();
            *highest = version.max(*highest);
        }
        let stored = "SELECT 'booking ' || booking_id, version FROM bookings
                      UNION ALL SELECT 'flight ' || flight_id, version FROM flights";
        let mut connection = self.connect().await;
        let stored: Vec<(String, i64)> = sqlx::query_as(stored)
            .fetch_all(&mut connection)
            .await
            .unwrap();
        let stored: BTreeMap<_, _> = stored.into_iter().collect();
        for (key, version) in &newest {
            assert_eq!(stored.get(key), Some(version), "{key}");
        }
        let set_aside = "SELECT body FROM quarantined_events";
        let set_aside: Vec<Vec<u8>> = sqlx::query_scalar(set_aside)
            .fetch_all(&mut connection)
            .await
            .unwrap();
        for body in bad {
            assert!(
                set_aside.contains(body),
                "{}",
                String::from_utf8_lossy(body)
            );
        }
    }

    /// MarketData and what is stored for it equal their recompute.
    pub async fn assert_exact(&self) {
        let report = audit::verify(&mut self.connect().await).await.unwrap();
        assert!(
            report.rows > 0 && report.is_exact(),
            "{:?}",
            report.differences
        );
    }

    /// The one number that a query gives.
    pub async fn number(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql)
            .fetch_one(&mut self.connect().await)
            .await
            .unwrap()
    }

    /// Adds an argument-less binding, or takes any routing key with `#`.
    pub async fn bind(&self, key: &str) {
        let connection = Connection::connect(&self.amqp_url, ConnectionProperties::default())
            .await
            .unwrap();
        let channel = connection.create_channel().await.unwrap();
        let (queue, exchange) = (
            self.topology.queue.as_str(),
            self.topology.exchange.as_str(),
        );
        let options = QueueBindOptions::default();
        channel
            .queue_bind(
                queue.into(),
                exchange.into(),
                key.into(),
                options,
                FieldTable::default(),
            )
            .await
            .unwrap();
        connection.close(200, "done".into()).await.unwrap();
    }

    /// Takes the queue away, with all that is in it.
    pub async fn delete_queue(&self) {
        let connection = Connection::connect(&self.amqp_url, ConnectionProperties::default())
            .await
            .unwrap();
        let channel = connection.create_channel().await.unwrap();
        let queue = self.topology.queue.as_str().into();
        let deleted = channel.queue_delete(queue, QueueDeleteOptions::default());
        deleted.await.unwrap();
        connection.close(200, "done".into()).await.unwrap();
    }

    /// Declares the queue in a way that the program does not.
    pub async fn declare_classic_queue(&self) {
        let connection = Connection::connect(&self.amqp_url, ConnectionProperties::default())
            .await
            .unwrap();
        let channel = connection.create_channel().await.unwrap();
        let mut arguments = FieldTable::default();
        arguments.insert("x-max-length".into(), AMQPValue::LongInt(1000));
        let queue = self.topology.queue.as_str().into();
        channel
            .queue_declare(queue, QueueDeclareOptions::durable(), arguments)
            .await
            .unwrap();
        connection.close(200, "done".into()).await.unwrap();
    }
}

/// How often a queue was seen [`Place::drained`].
pub async fn last_version(connection: &mut PgConnection) -> i64 {
    let version = "SELECT coalesce(max(version), 0) FROM flights WHERE flight_id = $1";
    let version = sqlx::query_scalar(version).bind(LAST).fetch_one(connection);
    version.await.unwrap()
}

/// A connection that publishes with confirms.
pub struct Producer {
    topology: Topology,
    _connection: Connection,
    channel: Channel,
}

impl Producer {
    /// Publishes bodies as a correct producer would, and waits until the broker has them.
    pub async fn publish(&self, bodies: &[Vec<u8>]) {
        let mut confirms = Vec::with_capacity(bodies.len());
        for body in bodies {
            // The type is the routing key, also of an event that is broken elsewhere.
            let event = decode(&Message::of_body(body));
            let key = event.map_or("airline.booking.upserted.v1", |event| {
                event.kind.routing_key()
            });
            let exchange = self.topology.exchange.clone();
            confirms.push(self.send(&exchange, key, properties(), body).await);
        }
        for confirm in confirms {
            let confirmation = confirm.await.unwrap();
            let taken = matches!(confirmation, Confirmation::Ack(None));
            assert!(taken, "a queue takes it");
        }
    }

    /// Sends one message as it is.
    pub async fn send(
        &self,
        exchange: &str,
        key: &str,
        properties: BasicProperties,
        body: &[u8],
    ) -> lapin::PublisherConfirm {
        canary::remember(body);
        let options = BasicPublishOptions {
            mandatory: true,
            ..Default::default()
        };
        self.channel
            .basic_publish(exchange.into(), key.into(), options, body, properties)
            .await
            .unwrap()
    }
}

/// What a correct producer sets.
pub fn properties() -> BasicProperties {
    BasicProperties::default()
        .with_content_type(paxflow::event::CONTENT_TYPE.into())
        .with_delivery_mode(2)
}

/// The program without any setting.
pub fn paxflow(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_paxflow"));
    command
        .args(arguments)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        // No .env of the project counts.
        .current_dir(std::env::temp_dir())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// Runs a command to its end.
pub async fn output(mut command: Command) -> Output {
    let ended = tokio::time::timeout(PATIENCE, command.output()).await;
    let output = ended
        .expect("the command ends")
        .expect("the command starts");
    canary::assert_output_silent(&command, &output);
    output
}

/// Exit code, stdout and stderr of a command.
pub async fn ran(command: Command) -> (i32, String, String) {
    said(output(command).await)
}

/// A running `paxflow run`; killed when dropped.
pub struct Worker {
    child: Child,
    log: PathBuf,
    _directory: tempfile::TempDir,
    address: String,
    passwords: Vec<String>,
}

impl Drop for Worker {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // What it said last tells why a test that waits for it has failed.
            eprintln!("{}", self.log());
        } else {
            canary::assert_silent("the log", &self.log(), &self.passwords);
        }
    }
}

impl Worker {
    /// Starts a worker and waits until it has announced itself.
    pub async fn start(command: Command) -> Self {
        let mut worker = Self::spawn(command);
        worker.address = until("the worker says where it serves", async || {
            let log = worker.log();
            let line = log.lines().find(|line| line.contains("\"starting\""))?;
            let line: serde_json::Value = serde_json::from_str(line).ok()?;
            Some(line["http"].as_str()?.to_owned())
        })
        .await;
        worker
    }

    /// Starts a worker that may end at once.
    pub fn spawn(mut command: Command) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        let file = File::create(&log).unwrap();
        let child = command
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .expect("the worker starts");
        Self {
            child,
            log,
            _directory: directory,
            address: String::new(),
            passwords: canary::passwords(&command),
        }
    }

    /// Everything it has written.
    pub fn log(&self) -> String {
        let mut log = String::new();
        File::open(&self.log)
            .unwrap()
            .read_to_string(&mut log)
            .unwrap();
        log
    }

    /// Waits until it is ready.
    pub async fn ready(&self) {
        until("the worker is ready", async || {
            (self.get("/readyz").await.0 == 200).then_some(())
        })
        .await;
    }

    /// Waits until it is not ready, and returns the reason.
    pub async fn unready(&self) -> String {
        until("the worker is not ready", async || {
            let (status, reason) = self.get("/readyz").await;
            (status == 503).then_some(reason)
        })
        .await
    }

    /// Status and body of an endpoint.
    pub async fn get(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address)
            .await
            .unwrap_or_else(|error| panic!("the worker does not serve: {error}\n{}", self.log()));
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
            self.address
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer
            .split_once("\r\n\r\n")
            .expect("the answer has a head");
        canary::assert_silent(path, body, &self.passwords);
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok());
        (status.expect("the answer has a status"), body.to_owned())
    }

    /// A metric, added up over its labels.
    pub async fn metric(&self, name: &str) -> f64 {
        let (_, metrics) = self.get("/metrics").await;
        sum_of(&metrics, name)
    }

    /// The process.
    pub fn id(&self) -> u32 {
        self.child.id().expect("the worker runs")
    }

    /// Sends a signal.
    pub fn signal(&self, name: &str) {
        signal(self.id(), name);
    }

    /// Waits for its end.
    pub async fn exit_within(&mut self, limit: Duration) -> ExitStatus {
        let ended = tokio::time::timeout(limit, self.child.wait()).await;
        ended
            .unwrap_or_else(|_| panic!("still there after {limit:?}:\n{}", self.log()))
            .unwrap()
    }

    /// Whether it ends within a limit.
    pub async fn ends_within(&mut self, limit: Duration) -> bool {
        tokio::time::timeout(limit, self.child.wait()).await.is_ok()
    }

    /// Asks it to stop and waits for a clean end.
    pub async fn stop(mut self) -> String {
        self.signal("TERM");
        let status = self.exit_within(Duration::from_secs(10)).await;
        assert!(status.success(), "{status}:\n{}", self.log());
        self.log()
    }
}

/// Generated events, one body each.
pub fn generated(events: u64, seed: u64, bad_ratio: f64) -> Vec<Vec<u8>> {
    let mut lines = Vec::new();
    let arguments = world::Arguments {
        events,
        seed,
        markets: Some(50),
        bad_ratio,
    };
    world::generate(&arguments, &mut lines).unwrap();
    lines
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(<[u8]>::to_vec)
        .inspect(|body| canary::remember(body))
        .collect()
}
