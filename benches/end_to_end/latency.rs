//! From the moment an event was meant to be sent until an analyst sees it in `market_data`.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use paxflow::broker::Subscription;
use paxflow::config::Secret;
use rand::RngExt;
use sqlx::PgConnection;

use crate::events::{Events, canary, flight};
use crate::limits::PREFETCH;
use crate::load;
use crate::process::Worker;
use crate::producer::Producer;
use crate::report::{median, quantile};
use crate::rig::{Place, committed, received};

/// Bookings a second whose way is watched.
const CANARIES_PER_SECOND: f64 = 200.0;
/// How often an analyst looks while something is on its way.
const LOOK_EVERY: Duration = Duration::from_millis(1);
/// The same in an idle system, where looking disturbs nothing.
const LOOK_IDLE_EVERY: Duration = Duration::from_micros(200);
/// A consumer that does nothing else acknowledges as often as a worker with small batches.
const ACKNOWLEDGE_EVERY: Duration = Duration::from_millis(5);
/// How long anything may take to be seen.
const SEEN_WITHIN: Duration = Duration::from_secs(60);
/// A worker begins with one delivery in hand and goes on with as many as it may; after so many it is at its pace.
const WARM_UP: usize = 4_000;
/// Pauses between two events of an idle system.
const PAUSE_MS: std::ops::Range<u64> = 5..35;

/// Milliseconds until it was visible, over one run.
#[derive(Debug, Clone, Copy)]
pub struct Latency {
    /// Events a second.
    pub rate: f64,
    /// Median.
    pub p50: f64,
    /// 99 of 100 were visible by then.
    pub p99: f64,
    /// The last of all.
    pub max: f64,
    /// How late 99 of 100 events left the sender: its own fault, and part of the above.
    pub late_p99: f64,
}

impl Latency {
    /// Of single ways at one rate.
    fn of(rate: f64, ms: &[f64], late: &[f64]) -> Self {
        Self {
            rate,
            p50: median(ms),
            p99: quantile(ms, 0.99),
            max: quantile(ms, 1.0),
            late_p99: quantile(late, 0.99),
        }
    }

    /// The median of each figure of some runs.
    pub fn median_of(runs: &[Self]) -> Self {
        let of = |figure: fn(&Self) -> f64| median(&runs.iter().map(figure).collect::<Vec<_>>());
        Self {
            rate: of(|run| run.rate),
            p50: of(|run| run.p50),
            p99: of(|run| run.p99),
            max: of(|run| run.max),
            late_p99: of(|run| run.late_p99),
        }
    }
}

/// A market-day of our own, and the connection of somebody who looks at it.
struct Watch {
    connection: PgConnection,
    destination: String,
    flight_id: String,
}

impl Watch {
    async fn new(place: &Place, number: usize) -> Result<Self> {
        // An airport that nobody else flies to.
        let destination = format!("Q{}{}", letter(number / 26), letter(number % 26));
        let flight_id = format!("canary-{number}");
        let mut events = Events::default();
        events.push(&flight(&flight_id, "QQQ", &destination))?;
        crate::limits::apply(place, events.deliveries(0..1), 1).await?;
        let mut watch = Self {
            connection: place.connect().await?,
            destination,
            flight_id,
        };
        // The first question of a connection takes the longest.
        watch.visible_bookings().await?;
        Ok(watch)
    }

    async fn visible_bookings(&mut self) -> Result<usize> {
        let count: i64 = sqlx::query_scalar(
            "SELECT booking_count FROM market_data \
             WHERE origin = 'QQQ' AND destination = $1 AND data_date = '2027-03-01'",
        )
        .bind(&self.destination)
        .fetch_one(&mut self.connection)
        .await?;
        Ok(count as usize)
    }

    /// Notes when each booking was first seen; `due` tells when the next one is expected.
    async fn all(
        mut self,
        bookings: usize,
        due: impl Fn(usize) -> Instant,
    ) -> Result<Vec<Instant>> {
        let mut seen = Vec::with_capacity(bookings);
        while seen.len() < bookings {
            let expected = due(seen.len());
            tokio::time::sleep_until(expected.into()).await;
            let visible = self.visible_bookings().await?;
            seen.resize(visible.max(seen.len()), Instant::now());
            ensure!(
                expected.elapsed() < SEEN_WITHIN,
                "an event is not visible after {SEEN_WITHIN:?}"
            );
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(seen)
    }
}

fn letter(number: usize) -> char {
    char::from(b'A' + (number % 26) as u8)
}

/// One booking's way.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// When it was to be sent.
    pub due: Instant,
    /// Milliseconds from then until it was visible.
    pub ms: f64,
}

/// What was watched, and what it takes to judge it.
pub struct Watched {
    /// Every booking that was watched.
    pub samples: Vec<Sample>,
    /// How late each event left, milliseconds.
    late: Vec<f64>,
    /// Events of the load that were sent beside them.
    pub sent: usize,
}

impl Watched {
    /// Milliseconds of each.
    pub fn ms(&self) -> Vec<f64> {
        self.samples.iter().map(|sample| sample.ms).collect()
    }
}

/// Gives a worker that has just started enough to do, so that what is measured next is not its start. The same
/// event again and again: nothing is stored of it but one flight.
pub async fn warm_up(place: &Place) -> Result<()> {
    let mut progress = place.connect().await?;
    let before = received(&mut progress).await?;
    let mut events = Events::default();
    for _ in 0..WARM_UP {
        events.push(&flight("warm-up", "QQQ", "QQZ"))?;
    }
    load::publish(place, events.iter()).await?;
    committed(&mut progress, before + WARM_UP as u64).await?;
    Ok(())
}

/// Sends at a rate for a time, with a worker that runs already.
pub async fn at_rate(place: &Place, load: &Events, rate: f64, seconds: f64) -> Result<Latency> {
    let watched = watched(place, load, 0, rate, seconds, 0).await?;
    Ok(Latency::of(rate, &watched.ms(), &watched.late))
}

/// The same, with every booking that was watched. `number` tells apart what is measured at one place.
pub async fn watched(
    place: &Place,
    load: &Events,
    from: usize,
    rate: f64,
    seconds: f64,
    number: usize,
) -> Result<Watched> {
    let every = (rate / CANARIES_PER_SECOND).max(1.0) as usize;
    let total = (rate * seconds) as usize;
    let watch = Watch::new(place, number).await?;
    let mut events = Events::default();
    let (mut canaries, mut others) = (0, load.range(from..load.len()));
    for index in 0..total {
        if index % every == 0 {
            events.push(&canary(&watch.flight_id, canaries))?;
            canaries += 1;
        } else {
            events.push(others.next().context("the load is used up")?.body)?;
        }
    }
    let mut progress = place.connect().await?;
    let before = received(&mut progress).await?;
    let mut producer = Producer::connect(place).await?;
    let started = Instant::now();
    let due = move |canary| started + Duration::from_secs_f64((canary * every) as f64 / rate);
    let watching = tokio::spawn(watch.all(canaries, due));
    let late = load::at_rate(&mut producer, started, rate, events.iter()).await?;
    let seen = watching.await.context("the watch failed")??;
    producer.close().await?;
    committed(&mut progress, before + total as u64).await?;
    let samples = seen.iter().enumerate().map(|(canary, at)| Sample {
        due: due(canary),
        ms: at.saturating_duration_since(due(canary)).as_secs_f64() * 1e3,
    });
    Ok(Watched {
        samples: samples.collect(),
        late,
        sent: total - canaries,
    })
}

/// What the broker alone takes: the same events to a consumer that acknowledges and throws away.
pub async fn of_broker(place: &Place, load: &Events, rate: f64, seconds: f64) -> Result<Latency> {
    let total = (rate * seconds) as usize;
    let url = Secret::new(&place.amqp_url);
    let mut subscription = Subscription::open(&url, &place.topology, PREFETCH).await?;
    let mut producer = Producer::connect(place).await?;
    let consuming = tokio::spawn(async move {
        let mut seen = Vec::with_capacity(total);
        let mut acknowledged = Instant::now();
        while seen.len() < total {
            let delivery = subscription.next().await?;
            seen.push(Instant::now());
            if acknowledged.elapsed() >= ACKNOWLEDGE_EVERY || seen.len() == total {
                subscription.ack_up_to(delivery.tag).await?;
                acknowledged = Instant::now();
            }
        }
        subscription.hand_back(Duration::ZERO).await;
        anyhow::Ok(seen)
    });
    let started = Instant::now();
    let late = load::at_rate(&mut producer, started, rate, load.range(0..total)).await?;
    let seen = consuming.await.context("the consumer failed")??;
    producer.close().await?;
    let ms: Vec<f64> = seen
        .iter()
        .enumerate()
        .map(|(number, at)| {
            let due = started + Duration::from_secs_f64(number as f64 / rate);
            at.saturating_duration_since(due).as_secs_f64() * 1e3
        })
        .collect();
    Ok(Latency::of(rate, &ms, &late))
}

/// One event at a time into a system that does nothing else.
pub async fn idle(place: &Place, events: usize) -> Result<Latency> {
    let worker = Worker::start(place, &[])?;
    let mut watch = Watch::new(place, 0).await?;
    let mut producer = Producer::connect(place).await?;
    let mut ms = Vec::with_capacity(events);
    for number in 0..=events {
        let pause = rand::rng().random_range(PAUSE_MS);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        let mut event = Events::default();
        event.push(&canary(&watch.flight_id, number))?;
        let sent = Instant::now();
        for event in event.iter() {
            producer.put(&event)?;
        }
        producer.flush().await?;
        while watch.visible_bookings().await? <= number {
            ensure!(
                sent.elapsed() < SEEN_WITHIN,
                "an event is not visible after {SEEN_WITHIN:?}"
            );
            tokio::time::sleep(LOOK_IDLE_EVERY).await;
        }
        // The first one waits for the worker to start.
        if number > 0 {
            ms.push(sent.elapsed().as_secs_f64() * 1e3);
        }
    }
    producer.close().await?;
    worker.stop().await?;
    place.assert_exact().await?;
    Ok(Latency::of(0.0, &ms, &[0.0]))
}
