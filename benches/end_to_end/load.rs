//! What a producer does: fills a queue, or sends at a steady rate whatever becomes of it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lapin::options::{
    ExchangeBindOptions, ExchangeDeclareOptions, ExchangeDeleteOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Connection, ConnectionProperties, ExchangeKind};
use paxflow::broker::{Publisher, Topology, queue_state};
use paxflow::config::{ConsumerRole, Secret};

use crate::events::Event;
use crate::producer::Producer;
use crate::rig::Place;

/// Events on their way before the oldest must be confirmed.
const UNCONFIRMED_MAX: u64 = 3_000;
/// Events that are written in one go where the rate does not matter.
const FILL_TOGETHER: usize = 100;
/// The shortest sleep of an open loop; what is due by then leaves together.
const TICK: Duration = Duration::from_millis(2);

/// Declares exchanges and queues as a worker does.
pub async fn declare(place: &Place) -> Result<()> {
    let url = Secret::new(&place.amqp_url);
    Publisher::open(&url, &place.topology).await?.close().await;
    Ok(())
}

/// Spreads what is published over so many partitions, each with an exchange and a queue of its own; returns the
/// places of their workers.
pub async fn partition(place: &mut Place, partitions: usize) -> Result<Vec<Place>> {
    let name = place.topology.exchange.clone();
    let parts: Vec<Place> = (1..=partitions)
        .map(|number| Place {
            topology: Topology {
                exchange: format!("{name}.{number}"),
                queue: format!("{name}.{number}"),
                consumer: ConsumerRole::Active,
            },
            ..place.clone()
        })
        .collect();
    for part in &parts {
        declare(part).await?;
    }
    let connection = Connection::connect(&place.amqp_url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    let nothing = FieldTable::default;
    let hash = hash_exchange(&name);
    let mut by_message_id = nothing();
    by_message_id.insert(
        "hash-property".into(),
        AMQPValue::LongString("message_id".into()),
    );
    let kind = ExchangeKind::Custom("x-consistent-hash".to_owned());
    let options = ExchangeDeclareOptions::default();
    channel
        .exchange_declare(hash.as_str().into(), kind, options, by_message_id)
        .await
        .context("the plugin rabbitmq_consistent_hash_exchange is needed")?;
    let binds = parts
        .iter()
        .map(|part| (part.topology.exchange.as_str(), hash.as_str(), "1"));
    for (to, from, key) in binds.chain([(hash.as_str(), name.as_str(), "airline.#")]) {
        let options = ExchangeBindOptions::default();
        channel
            .exchange_bind(to.into(), from.into(), key.into(), options, nothing())
            .await?;
    }
    let queue = place.topology.queue.as_str();
    channel
        .queue_unbind(
            queue.into(),
            name.as_str().into(),
            "airline.#".into(),
            nothing(),
        )
        .await?;
    connection.close(200, "done".into()).await?;
    place.queues = parts
        .iter()
        .map(|part| part.topology.queue.clone())
        .collect();
    Ok(parts)
}

fn hash_exchange(name: &str) -> String {
    format!("{name}.partitions")
}

/// Deletes exchanges and queues.
pub async fn delete(place: &Place) -> Result<()> {
    let connection = Connection::connect(&place.amqp_url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    let mut names = place.queues.clone();
    names.push(place.topology.queue.clone());
    names.extend(names.clone().iter().map(|name| format!("{name}.dead")));
    for name in &names {
        channel
            .queue_delete(name.as_str().into(), QueueDeleteOptions::default())
            .await?;
    }
    names.push(hash_exchange(&place.topology.exchange));
    for name in &names {
        channel
            .exchange_delete(name.as_str().into(), ExchangeDeleteOptions::default())
            .await?;
    }
    connection.close(200, "done".into()).await?;
    Ok(())
}

/// Events that wait in the queues.
pub async fn waiting(place: &Place) -> Result<u32> {
    let mut ready = 0;
    for queue in &place.queues {
        let state = queue_state(&Secret::new(&place.amqp_url), queue).await?;
        ready += state.context("the queue is missing")?.ready;
    }
    Ok(ready)
}

/// Publishes to a place where nobody consumes, and asks whether all of it waits there: what the broker can route nowhere it
/// confirms, too.
pub async fn fill(place: &Place, events: impl Iterator<Item = Event<'_>>) -> Result<()> {
    let before = waiting(place).await?;
    let published = publish(place, events).await?;
    let more = waiting(place).await? - before;
    ensure!(
        more == published,
        "{published} events published, {more} wait"
    );
    Ok(())
}

/// Publishes as fast as the broker confirms; returns how many.
pub async fn publish(place: &Place, events: impl Iterator<Item = Event<'_>>) -> Result<u32> {
    let mut producer = Producer::connect(place).await?;
    let mut published = 0;
    for (number, event) in events.enumerate() {
        producer.put(&event)?;
        published += 1;
        if number % FILL_TOGETHER == 0 {
            producer.flush().await?;
            producer.confirmed_but(UNCONFIRMED_MAX).await?;
        }
    }
    producer.close().await?;
    Ok(published)
}

/// Sends at a steady rate, on time or late; returns how late each event left, milliseconds.
///
/// Nothing waits for the worker or for confirms: a stall is met by every event that was due meanwhile.
pub async fn at_rate<'a>(
    producer: &mut Producer,
    started: Instant,
    per_second: f64,
    events: impl Iterator<Item = Event<'a>>,
) -> Result<Vec<f64>> {
    let mut late_ms = Vec::new();
    for (number, event) in events.enumerate() {
        let due = started + Duration::from_secs_f64(number as f64 / per_second);
        while let Some(early) = due.checked_duration_since(Instant::now()) {
            producer.flush().await?;
            tokio::time::sleep(early.max(TICK)).await;
        }
        late_ms.push(due.elapsed().as_secs_f64() * 1e3);
        producer.put(&event)?;
    }
    producer.flush().await?;
    Ok(late_ms)
}
