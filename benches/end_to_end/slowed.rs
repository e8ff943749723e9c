//! A database whose every statement takes longer for a while, and how soon the worker follows.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::events::Events;
use crate::latency;
use crate::process::Worker;
use crate::report::{Limit, Report, median, quantile};
use crate::rig::{Place, Servers};

/// How much longer a statement takes.
const DELAY: Duration = Duration::from_millis(200);
/// Events a second: what a batch of the default size every 2 s can do.
const RATE: f64 = 250.0;
/// An event is on time again when it is visible within so many milliseconds.
const ON_TIME_MS: f64 = 100.0;

/// A way to the database on which every message to it is under way for some milliseconds.
struct SlowWay {
    address: String,
    delay_ms: Arc<AtomicU64>,
}

impl SlowWay {
    async fn to(server: String) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let delay_ms = Arc::new(AtomicU64::new(0));
        let delay = Arc::clone(&delay_ms);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, server.clone(), Arc::clone(&delay)));
            }
        });
        Ok(Self { address, delay_ms })
    }

    fn slow_down(&self, delay: Duration) {
        self.delay_ms
            .store(delay.as_millis() as u64, Ordering::Relaxed);
    }
}

async fn carry(client: TcpStream, server: String, delay: Arc<AtomicU64>) -> std::io::Result<()> {
    let server = TcpStream::connect(server).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let answered = Arc::new(AtomicBool::new(true));
    let has_answered = Arc::clone(&answered);
    let answers = tokio::spawn(async move {
        let mut bytes = vec![0; 1 << 20];
        loop {
            let length = from_server.read(&mut bytes).await?;
            if length == 0 {
                return to_client.shutdown().await;
            }
            has_answered.store(true, Ordering::Relaxed);
            to_client.write_all(&bytes[..length]).await?;
        }
    });
    let mut bytes = vec![0; 1 << 20];
    loop {
        let length = from_client.read(&mut bytes).await?;
        if length == 0 {
            break;
        }
        // The parts of one statement follow each other without an answer; only the first is held up.
        if answered.swap(false, Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(delay.load(Ordering::Relaxed))).await;
        }
        to_server.write_all(&bytes[..length]).await?;
    }
    to_server.shutdown().await?;
    answers.await?
}

/// A steady load through a slow-down and back, each phase of so many seconds.
pub async fn measure(
    servers: &mut Servers,
    events: &Events,
    phase: f64,
    report: &mut Report,
) -> Result<()> {
    let place = servers.place().await?;
    let (host, rest) = place
        .database_url
        .split_once('@')
        .and_then(|(_, host)| host.split_once('/'))
        .context("the database URL has no host")?;
    let way = SlowWay::to(host.to_owned()).await?;
    let slow = Place {
        database_url: place.database_url.replacen(
            &format!("{host}/{rest}"),
            &format!("{}/{rest}", way.address),
            1,
        ),
        ..place.clone()
    };
    let worker = Worker::start(&slow, &[])?;
    latency::warm_up(&slow).await?;
    let phase = Duration::from_secs_f64(phase);
    let phases = async {
        tokio::time::sleep(phase).await;
        way.slow_down(DELAY);
        let slowed = Instant::now();
        tokio::time::sleep(phase).await;
        way.slow_down(Duration::ZERO);
        (slowed, Instant::now())
    };
    let seconds = 3.0 * phase.as_secs_f64();
    let watched = latency::watched(&place, events, 0, RATE, seconds, 0);
    let (watched, (slowed, restored)) = tokio::join!(watched, phases);
    let samples = watched?.samples;
    worker.stop().await?;
    place.assert_exact().await?;
    place.remove().await?;

    let due = |when: Range<Instant>| {
        let within = samples.iter().filter(|sample| when.contains(&sample.due));
        within.map(|sample| sample.ms).collect::<Vec<_>>()
    };
    report.add(
        "latency before a slow-down of the database, p50",
        median(&due(restored - 3 * phase..slowed)),
        "ms",
        Limit::None,
    );
    report.add(
        "while its every statement takes 200 ms more, p99",
        quantile(&due(slowed + phase.mul_f64(0.3)..restored), 0.99),
        "ms",
        Limit::None,
    );
    let late_until = samples
        .iter()
        .filter(|sample| sample.ms > ON_TIME_MS)
        .map(|sample| sample.due + Duration::from_secs_f64(sample.ms / 1e3))
        .map(|seen| seen.saturating_duration_since(restored).as_secs_f64())
        .fold(0.0, f64::max);
    report.add(
        "until all is on time again after it",
        late_until,
        "s",
        Limit::AtMost(5.0),
    );
    Ok(())
}
