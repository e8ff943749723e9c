//! What bounds a worker: the broker alone, the database alone, and the database fed by COPY.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use chrono::Utc;
use futures_util::{FutureExt, StreamExt};
use paxflow::apply;
use paxflow::broker::Subscription;
use paxflow::config::{PoolConfig, Pooler, Secret};
use paxflow::db;
use paxflow::event::Delivery;
use sqlx::postgres::{PgPool, PgPoolCopyExt};
use tokio::sync::oneshot;

use crate::rig::Place;

/// The worker's defaults.
pub const PREFETCH: u16 = 2_000;
const BATCH_MAX: usize = 1_000;
/// Rows are sent together, as a bulk loader does.
const COPY_PART_BYTES: usize = 64 * 1024;

/// Events a second that a consumer takes and acknowledges as the worker does, and throws away.
pub async fn bare_drain(place: &Place, events: usize) -> Result<f64> {
    let url = Secret::new(&place.amqp_url);
    let mut subscription = Subscription::open(&url, &place.topology, PREFETCH).await?;
    let started = Instant::now();
    let mut left = events;
    while left > 0 {
        let mut last = subscription.next().await?;
        let mut taken = 1;
        while taken < BATCH_MAX.min(left)
            && let Some(next) = subscription.next().now_or_never()
        {
            last = next?;
            taken += 1;
        }
        subscription.ack_up_to(last.tag).await?;
        left -= taken;
    }
    let rate = events as f64 / started.elapsed().as_secs_f64();
    subscription.hand_back(Duration::ZERO).await;
    Ok(rate)
}

/// A connection like the worker's, and who applies over it.
async fn applier(place: &Place) -> Result<(PgPool, apply::Committer)> {
    let options = db::options(&Secret::new(&place.database_url), "bench")?;
    let one = PoolConfig {
        size: 1,
        max_overflow: 0,
        recycle: Duration::from_secs(3600),
        pooler: Pooler::None,
    };
    let pool = db::pool::open(options, one);
    let id = format!("bench-{}", Utc::now().timestamp_micros());
    let committer = apply::Committer::new(id, Utc::now(), Pooler::None);
    drop(pool.acquire().await?);
    Ok((pool, committer))
}

/// Applies deliveries from memory, in batches, over one connection.
pub async fn apply(place: &Place, deliveries: Vec<Delivery>, batch: usize) -> Result<()> {
    place.hand_over(deliveries.len());
    let (pool, committer) = applier(place).await?;
    apply_over(&pool, &committer, deliveries, batch).await?;
    pool.close().await;
    Ok(())
}

/// As in a worker, the next batch is decoded while one commits.
async fn apply_over(
    pool: &PgPool,
    committer: &apply::Committer,
    deliveries: Vec<Delivery>,
    batch: usize,
) -> Result<()> {
    let mut deliveries = deliveries.into_iter();
    let mut before = tokio::spawn(async { anyhow::Ok(()) });
    loop {
        let part: Vec<Delivery> = deliveries.by_ref().take(batch).collect();
        if part.is_empty() {
            break;
        }
        let (decoded, decoding) = oneshot::channel();
        let (pool, committer) = (pool.clone(), committer.clone());
        before = tokio::spawn(async move {
            let mut batch = apply::Batch::of(&part);
            before.await??;
            // From here on the next one is decoded.
            decoded.send(()).ok();
            let mut connection = pool.acquire().await?;
            Ok(batch.apply(&mut connection, &committer).await?)
        });
        if decoding.await.is_err() {
            break;
        }
    }
    before.await?
}

/// Events a second of the worker's own transaction, fed from memory.
pub async fn bare_apply(place: &Place, deliveries: Vec<Delivery>) -> Result<f64> {
    let events = deliveries.len();
    place.hand_over(events);
    let (pool, committer) = applier(place).await?;
    let started = Instant::now();
    apply_over(&pool, &committer, deliveries, BATCH_MAX).await?;
    let rate = events as f64 / started.elapsed().as_secs_f64();
    pool.close().await;
    Ok(rate)
}

/// Rows a second that COPY writes into an empty table like `bookings`, with all of its indexes and checks.
pub async fn copy(place: &Place) -> Result<f64> {
    let options = db::options(&Secret::new(&place.database_url), "bench")?;
    let pool = PgPool::connect_with(options).await?;
    sqlx::raw_sql("CREATE TABLE copied (LIKE bookings INCLUDING ALL) WITH (fillfactor = 90)")
        .execute(&pool)
        .await?;
    let mut parts = vec![Vec::with_capacity(COPY_PART_BYTES)];
    let mut out = pool
        .copy_out_raw("COPY (SELECT * FROM bookings ORDER BY created_at) TO STDOUT (FORMAT binary)")
        .await?;
    while let Some(row) = out.next().await {
        match parts.last_mut() {
            Some(part) if part.len() < COPY_PART_BYTES => part.extend_from_slice(&row?),
            _ => parts.push(row?.to_vec()),
        }
    }
    drop(out);
    let started = Instant::now();
    let mut copy = pool
        .copy_in_raw("COPY copied FROM STDIN (FORMAT binary)")
        .await?;
    for part in parts {
        copy.send(part).await?;
    }
    let copied = copy.finish().await.context("COPY failed")?;
    let rate = copied as f64 / started.elapsed().as_secs_f64();
    sqlx::raw_sql("DROP TABLE copied").execute(&pool).await?;
    pool.close().await;
    Ok(rate)
}
