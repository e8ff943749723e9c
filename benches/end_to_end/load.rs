//! What a producer does: fills a queue, or sends at a steady rate whatever becomes of it.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::events::Event;
use crate::producer::Producer;
use crate::queues::waiting;
use crate::rig::Place;

/// Events on their way before the oldest must be confirmed.
const UNCONFIRMED_MAX: u64 = 3_000;
/// Events that are written in one go where the rate does not matter.
const FILL_TOGETHER: usize = 100;
/// The shortest sleep of an open loop; what is due by then leaves together.
const TICK: Duration = Duration::from_millis(1);

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
