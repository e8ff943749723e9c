//! What a producer does: fills a queue, or sends at a steady rate whatever becomes of it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use lapin::options::{ExchangeDeleteOptions, QueueDeleteOptions};
use lapin::{Connection, ConnectionProperties};
use paxflow::broker::{Publisher, Unconfirmed, queue_state};
use paxflow::config::Secret;

use crate::events::Event;
use crate::rig::Place;

/// Events on their way before the oldest must be confirmed.
const UNCONFIRMED_MAX: usize = 3_000;
/// The shortest sleep of an open loop; what is due by then leaves together.
const TICK: Duration = Duration::from_millis(1);

/// Declares exchanges and queues as a worker does.
pub async fn declare(place: &Place) -> Result<()> {
    publisher(place).await?.close().await;
    Ok(())
}

/// A connection that publishes there.
pub async fn publisher(place: &Place) -> Result<Publisher> {
    Ok(Publisher::open(&Secret::new(&place.amqp_url), &place.topology).await?)
}

/// Deletes exchanges and queues.
pub async fn delete(place: &Place) -> Result<()> {
    let connection = Connection::connect(&place.amqp_url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    let dead = place.topology.dead_letters();
    for queue in [&place.topology.queue, &dead] {
        channel
            .queue_delete(queue.as_str().into(), QueueDeleteOptions::default())
            .await?;
    }
    for exchange in [&place.topology.exchange, &dead] {
        channel
            .exchange_delete(exchange.as_str().into(), ExchangeDeleteOptions::default())
            .await?;
    }
    connection.close(200, "done".into()).await?;
    Ok(())
}

/// Events that wait in the queue.
pub async fn waiting(place: &Place) -> Result<u32> {
    let state = queue_state(&Secret::new(&place.amqp_url), &place.topology.queue).await?;
    Ok(state.context("the queue is missing")?.ready)
}

/// Publishes as fast as the broker confirms.
pub async fn fill(place: &Place, events: impl Iterator<Item = Event<'_>>) -> Result<()> {
    let publisher = publisher(place).await?;
    let mut unconfirmed = VecDeque::with_capacity(UNCONFIRMED_MAX);
    for event in events {
        if unconfirmed.len() == UNCONFIRMED_MAX
            && let Some(oldest) = unconfirmed.pop_front()
        {
            Unconfirmed::confirmed(oldest).await?;
        }
        unconfirmed.push_back(send(&publisher, &event).await?);
    }
    for sent in unconfirmed {
        sent.confirmed().await?;
    }
    publisher.close().await;
    Ok(())
}

/// Sends one event.
pub async fn send(publisher: &Publisher, event: &Event<'_>) -> Result<Unconfirmed> {
    Ok(publisher
        .send(event.routing_key, Some(event.id), event.body)
        .await?)
}

/// Sends at a steady rate, on time or late.
///
/// Nothing waits for the worker or for confirms: a stall is met by every event that was due meanwhile.
pub async fn at_rate<'a>(
    publisher: &Publisher,
    started: Instant,
    per_second: f64,
    events: impl Iterator<Item = Event<'a>>,
) -> Result<Sent> {
    let mut sent = Sent::default();
    for (number, event) in events.enumerate() {
        let due = started + Duration::from_secs_f64(number as f64 / per_second);
        while let Some(early) = due.checked_duration_since(Instant::now()) {
            tokio::time::sleep(early.max(TICK)).await;
        }
        sent.late.push(due.elapsed());
        sent.unconfirmed.push(send(publisher, &event).await?);
    }
    Ok(sent)
}

/// What was sent in an open loop.
#[derive(Default)]
pub struct Sent {
    late: Vec<Duration>,
    unconfirmed: Vec<Unconfirmed>,
}

impl Sent {
    /// How late each event left, milliseconds.
    pub fn late_ms(&self) -> Vec<f64> {
        self.late
            .iter()
            .map(|late| late.as_secs_f64() * 1e3)
            .collect()
    }

    /// Waits until the broker has them all.
    pub async fn confirmed(self) -> Result<()> {
        for sent in self.unconfirmed {
            sent.confirmed().await?;
        }
        Ok(())
    }
}
