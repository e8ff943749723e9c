//! The exchanges and queues of a place: declared, divided into partitions, looked at and deleted.

use anyhow::{Context, Result};
use lapin::options::{
    ExchangeBindOptions, ExchangeDeclareOptions, ExchangeDeleteOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Connection, ConnectionProperties, ExchangeKind};
use paxflow::broker::{Publisher, Topology, queue_state};
use paxflow::config::{ConsumerRole, Secret};

use crate::rig::Place;

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
