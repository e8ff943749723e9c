//! One consumer at a time: who it is, who follows it; and a stream that is spread over several such queues.

use std::io::Write;
use std::time::Duration;

use paxflow::broker::Topology;
use paxflow::config::ConsumerRole;
use paxflow::event::{Message, decode};
use paxflow::sandbox::{Options, Sandbox};
use tempfile::NamedTempFile;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::doctor::rabbitmqctl;
use crate::process::{Place, Worker, generated, place, properties, until};
use crate::support::{Database, sum_of};

const RECEIVED: &str = "paxflow_deliveries_received_total";
/// Deliveries after which a worker holds as many as it may, and no more makes way for others.
const SETTLED_IN: usize = 600;

impl Place {
    fn consumed_as(&self, consumer: ConsumerRole) -> Self {
        let topology = Topology {
            consumer,
            ..self.topology.clone()
        };
        Self {
            topology,
            ..self.clone()
        }
    }
}

async fn worker(place: &Place) -> Worker {
    let mut command = place.paxflow(&["run"]);
    command.env("PAXFLOW_PREFETCH", "100");
    let worker = Worker::start(command).await;
    worker.ready().await;
    until("it consumes", async || {
        worker.log().contains("\"consuming\"").then_some(())
    })
    .await;
    worker
}

#[tokio::test]
async fn one_consumes_and_the_next_takes_over_when_it_is_killed() {
    let database = Database::new().await;
    let place = place(&database).consumed_as(ConsumerRole::Standby);
    let bodies = generated(3 * SETTLED_IN as u64, 31, 0.0);
    let total = |parts: usize| (parts * SETTLED_IN) as i64;

    let mut first = worker(&place).await;
    place.publish(&bodies[..SETTLED_IN]).await;
    place.committed_at_least(total(1)).await;
    let second = worker(&place).await;
    place.publish(&bodies[SETTLED_IN..2 * SETTLED_IN]).await;
    place.committed_at_least(total(2)).await;
    assert_eq!(second.metric(RECEIVED).await, 0.0);

    first.signal("KILL");
    first.exit_within(Duration::from_secs(10)).await;
    place.publish(&bodies[2 * SETTLED_IN..]).await;
    place.committed_at_least(total(3)).await;
    assert!(second.metric(RECEIVED).await >= SETTLED_IN as f64);
    second.stop().await;
    place.assert_drained().await;
    place.assert_holds(&bodies).await;
    place.assert_exact().await;
}

#[tokio::test]
async fn an_active_one_that_joins_is_preferred_to_a_standby_from_rabbitmq_4_on() {
    let database = Database::new().await;
    let shared = place(&database);
    let bodies = generated(2 * SETTLED_IN as u64, 32, 0.0);
    let standby = worker(&shared.consumed_as(ConsumerRole::Standby)).await;
    let place = shared.consumed_as(ConsumerRole::Active);
    place.publish(&bodies[..SETTLED_IN]).await;
    place.committed_at_least(SETTLED_IN as i64).await;
    let active = worker(&place).await;
    place.publish(&bodies[SETTLED_IN..]).await;
    place.committed_at_least(2 * SETTLED_IN as i64).await;
    let took_over = active.metric(RECEIVED).await > 0.0;
    assert_eq!(took_over, broker_version(&place.amqp_url).await >= 4);
    active.stop().await;
    standby.stop().await;
    place.assert_drained().await;
    place.assert_holds(&bodies).await;
    place.assert_exact().await;
}

/// What the broker says in its first frame: `version`, a long string (`S`, 4 bytes of length).
async fn broker_version(amqp_url: &str) -> u32 {
    let (_, rest) = amqp_url.split_once('@').unwrap();
    let (address, _) = rest.split_once('/').unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"AMQP\0\0\x09\x01").await.unwrap();
    let mut head = [0; 7];
    stream.read_exact(&mut head).await.unwrap();
    let length = u32::from_be_bytes(head[3..].try_into().unwrap());
    let mut frame = vec![0; length as usize];
    stream.read_exact(&mut frame).await.unwrap();
    let name = b"\x07versionS";
    let at = frame
        .windows(name.len())
        .position(|part| part == name)
        .unwrap();
    let major = frame[at + name.len() + 4..]
        .split(|byte| *byte == b'.')
        .next();
    String::from_utf8_lossy(major.unwrap()).parse().unwrap()
}

#[tokio::test]
async fn a_stream_is_spread_over_partitions_and_stays_exact() {
    const PARTITIONS: usize = 3;
    let options = Options {
        rabbitmq_plugins: vec!["rabbitmq_consistent_hash_exchange"],
        ..Options::default()
    };
    let sandbox = Sandbox::start(&options).await.unwrap();
    let exchange = "paxflow.events";
    let definitions = definitions(PARTITIONS);
    let file = definitions.path().to_str().unwrap();
    rabbitmqctl(&sandbox, &["import_definitions", file]).await;
    let parts: Vec<Place> = (1..=PARTITIONS)
        .map(|number| {
            let mut part = Place::new(sandbox.database_url(), sandbox.amqp_url());
            part.topology.exchange = format!("{exchange}.{number}");
            part.topology.queue = format!("{exchange}.{number}");
            part.consumed_as(ConsumerRole::Active)
        })
        .collect();
    let bodies = generated(3_000, 33, 0.0);
    let producer = parts[0].producer().await;
    for body in &bodies {
        let event = decode(&Message::of_body(body)).unwrap();
        let properties = properties().with_message_id(event.id.as_ref().into());
        let sent = producer.send(exchange, event.kind.routing_key(), properties, body);
        sent.await.await.unwrap();
    }
    // Nothing was lost before the workers were there.
    let mut workers = Vec::new();
    for part in &parts {
        workers.push(worker(part).await);
    }
    parts[0].committed_at_least(bodies.len() as i64).await;
    for worker in workers {
        let (_, metrics) = worker.get("/metrics").await;
        let received = sum_of(&metrics, RECEIVED);
        let fair = bodies.len() as f64 / PARTITIONS as f64;
        assert!(
            (0.7 * fair..1.3 * fair).contains(&received),
            "{received} of {fair}"
        );
        worker.stop().await;
    }
    for part in &parts {
        part.assert_drained().await;
    }
    parts[0].assert_holds(&bodies).await;
    parts[0].assert_exact().await;
    sandbox.stop().await.unwrap();
}

/// What deploy/partitions prints, in a file.
fn definitions(partitions: usize) -> NamedTempFile {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/partitions");
    let printed = std::process::Command::new(script)
        .arg(partitions.to_string())
        .output()
        .unwrap();
    assert!(printed.status.success());
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(&printed.stdout).unwrap();
    file
}
