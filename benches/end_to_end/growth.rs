//! Whether an event costs the same however much is stored.

use anyhow::Result;

use crate::events::{Events, Extremes};
use crate::latency;
use crate::limits;
use crate::load;
use crate::process::Worker;
use crate::report::{Limit, Report, growth_per_tenfold, median};
use crate::rig::{Place, Servers};

/// What an event costs with so many bookings stored.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    /// Bookings stored when the measured events began.
    pub stored: f64,
    /// CPU-seconds of worker and PostgreSQL for a million events.
    pub cpu: f64,
    /// Milliseconds.
    pub p99: f64,
}

/// How much is measured at each size.
#[derive(Debug, Clone, Copy)]
pub struct Extent {
    /// Events that are drained for the CPU.
    pub drained: usize,
    /// Events a second of the latency.
    pub rate: f64,
    /// Seconds of it.
    pub seconds: f64,
    /// Runs at each size; the median counts.
    pub repeats: usize,
}

impl Extent {
    fn at_rate(&self) -> usize {
        (self.rate * self.seconds) as usize
    }
}

/// With bookings all over the market: `sizes`, and last of all as many as make up `largest`, on a place where the first
/// `used` events are stored already.
pub async fn with_bookings(
    servers: &mut Servers,
    events: &Events,
    sizes: &[usize],
    (largest, place, used): (usize, &Place, usize),
    extent: Extent,
) -> Result<Vec<Cost>> {
    let mut costs = Vec::new();
    for size in sizes {
        let place = servers.place().await?;
        costs.push(with_stored(servers, events, &place, 0, *size, extent).await?);
        place.remove().await?;
    }
    costs.push(with_stored(servers, events, place, used, largest, extent).await?);
    Ok(costs)
}

async fn with_stored(
    servers: &Servers,
    events: &Events,
    place: &Place,
    used: usize,
    size: usize,
    extent: Extent,
) -> Result<Cost> {
    let mut used = fill_until(place, events, used, size).await?;
    let stored = bookings(place).await?;
    place.tidy().await?;
    let (mut cpu, mut p99) = (Vec::new(), Vec::new());
    for repeat in 0..extent.repeats {
        let measured = used..used + extent.drained;
        load::fill(place, events.range(measured.clone())).await?;
        cpu.push(cpu_per_million(place, servers, &[]).await?);
        used = measured.end;
        p99.push(p99_of(place, events, used, extent, repeat).await?);
        used += extent.at_rate();
    }
    Ok(Cost {
        stored,
        cpu: median(&cpu),
        p99: median(&p99),
    })
}

/// In one batch of the default size a booking of the smallest market-day would be made and cancelled: it leaves nothing
/// to be measured.
const SMALL_BATCHES: [(&str, &str); 1] = [("PAXFLOW_BATCH_MAX", "200")];

/// With all bookings in one market-day, whose extremes are cancelled all the time.
pub async fn with_one_market_day(
    servers: &mut Servers,
    elsewhere: &Events,
    sizes: &[usize],
    extent: Extent,
) -> Result<Vec<Cost>> {
    let mut costs = Vec::new();
    for size in sizes {
        let events = (extent.drained + extent.at_rate()) * extent.repeats;
        let day = Extremes::new(*size, events, elsewhere)?;
        let place = servers.place().await?;
        limits::apply(&place, day.stored.deliveries(0..day.stored.len()), 1_000).await?;
        place.tidy().await?;
        let (mut cpu, mut p99, mut used) = (Vec::new(), Vec::new(), 0);
        for repeat in 0..extent.repeats {
            load::fill(&place, day.stream.range(used..used + extent.drained)).await?;
            cpu.push(cpu_per_million(&place, servers, &SMALL_BATCHES).await?);
            used += extent.drained;
            p99.push(p99_of(&place, &day.stream, used, extent, repeat).await?);
            used += extent.at_rate();
        }
        place.remove().await?;
        costs.push(Cost {
            stored: *size as f64,
            cpu: median(&cpu),
            p99: median(&p99),
        });
    }
    Ok(costs)
}

/// Reports growth in both.
pub fn report(costs: &[Cost], what: &str, report: &mut Report) {
    for cost in costs {
        let name = |figure| format!("{figure}, {:.0} {what}", cost.stored);
        report.add(
            name("CPU of worker and database"),
            cost.cpu,
            "s/1M",
            Limit::None,
        );
        report.add(name("latency p99"), cost.p99, "ms", Limit::None);
    }
    let points = |of: fn(&Cost) -> f64| {
        costs
            .iter()
            .map(|cost| (cost.stored, of(cost)))
            .collect::<Vec<_>>()
    };
    let percent = |of| growth_per_tenfold(&points(of)) * 100.0;
    let limit = Limit::AtMost(15.0);
    report.add(
        format!("most growth of CPU per tenfold of {what}"),
        percent(|cost| cost.cpu),
        "%",
        limit,
    );
    report.add(
        format!("most growth of p99 per tenfold of {what}"),
        percent(|cost| cost.p99),
        "%",
        limit,
    );
}

async fn cpu_per_million(
    place: &Place,
    servers: &Servers,
    settings: &[(&str, &str)],
) -> Result<f64> {
    let drained = place.drain(servers, settings).await?;
    let seconds = drained.worker_cpu + drained.postgres_cpu.unwrap_or_default();
    Ok(seconds / drained.events as f64 * 1e6)
}

async fn p99_of(
    place: &Place,
    events: &Events,
    from: usize,
    extent: Extent,
    number: usize,
) -> Result<f64> {
    let worker = Worker::start(place, &[])?;
    latency::warm_up(place).await?;
    let latency =
        latency::at_rate(place, events, from, extent.rate, extent.seconds, number).await?;
    worker.stop().await?;
    place.assert_exact().await?;
    Ok(latency.p99)
}

/// Applies events beyond those used until so many bookings are stored; returns how many are used then.
async fn fill_until(
    place: &Place,
    events: &Events,
    mut used: usize,
    wanted: usize,
) -> Result<usize> {
    loop {
        let missing = wanted as f64 - bookings(place).await?;
        if missing <= 0.0 {
            return Ok(used);
        }
        // Seven of ten events are a new booking.
        let next = (used + (missing / 0.7) as usize + 100).min(events.len());
        limits::apply(place, events.deliveries(used..next), 1_000).await?;
        used = next;
    }
}

async fn bookings(place: &Place) -> Result<f64> {
    let mut connection = place.connect().await?;
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM bookings")
        .fetch_one(&mut connection)
        .await?;
    Ok(count as f64)
}
