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

/// Bookings that are stored, and the events that come next.
struct Stage<'a> {
    place: Place,
    stored: f64,
    events: &'a Events,
    /// How many of the events are used.
    used: usize,
    cpu: Vec<f64>,
    p99: Vec<f64>,
}

impl<'a> Stage<'a> {
    async fn new(place: Place, events: &'a Events, used: usize) -> Result<Self> {
        let stored = bookings(&place).await?;
        Ok(Self {
            place,
            stored,
            events,
            used,
            cpu: Vec::new(),
            p99: Vec::new(),
        })
    }

    async fn measure(
        &mut self,
        servers: &Servers,
        settings: &[(&str, &str)],
        extent: Extent,
        number: usize,
    ) -> Result<()> {
        self.place.tidy().await?;
        let drained = self.used..self.used + extent.drained;
        load::fill(&self.place, self.events.range(drained.clone())).await?;
        let cpu = cpu_per_million(&self.place, servers, settings).await?;
        self.cpu.push(cpu);
        self.used = drained.end;
        self.place.tidy().await?;
        let p99 = p99_of(&self.place, self.events, self.used, extent, number).await?;
        self.p99.push(p99);
        self.used += extent.at_rate();
        Ok(())
    }
}

/// Measures the stages in turn, there and back: whatever else the machine does meets all of them.
async fn in_turn(
    servers: &Servers,
    stages: &mut [Stage<'_>],
    settings: &[(&str, &str)],
    extent: Extent,
) -> Result<Vec<Cost>> {
    for repeat in 0..extent.repeats {
        for stage in &mut *stages {
            stage.measure(servers, settings, extent, repeat).await?;
        }
        stages.reverse();
    }
    stages.sort_by(|one, other| one.stored.total_cmp(&other.stored));
    let costs = stages.iter().map(|stage| Cost {
        stored: stage.stored,
        cpu: median(&stage.cpu),
        p99: median(&stage.p99),
    });
    Ok(costs.collect())
}

/// With bookings all over the market: `sizes`, and as many as make up `largest`, on a place where the first `used` events
/// are stored already.
pub async fn with_bookings(
    servers: &mut Servers,
    events: &Events,
    sizes: &[usize],
    (largest, place, used): (usize, &Place, usize),
    extent: Extent,
) -> Result<Vec<Cost>> {
    let mut stages = Vec::new();
    for size in sizes {
        let place = servers.place().await?;
        let used = fill_until(&place, events, 0, *size).await?;
        stages.push(Stage::new(place, events, used).await?);
    }
    let used = fill_until(place, events, used, largest).await?;
    stages.push(Stage::new(place.clone(), events, used).await?);
    let costs = in_turn(servers, &mut stages, &[], extent).await?;
    // The largest comes last, and stays.
    stages.pop();
    for stage in stages {
        stage.place.remove().await?;
    }
    Ok(costs)
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
    let events = (extent.drained + extent.at_rate()) * extent.repeats;
    let days = sizes
        .iter()
        .map(|size| Extremes::new(*size, events, elsewhere))
        .collect::<Result<Vec<_>>>()?;
    let mut stages = Vec::new();
    for day in &days {
        let place = servers.place().await?;
        limits::apply(&place, day.stored.deliveries(0..day.stored.len()), 1_000).await?;
        stages.push(Stage::new(place, &day.stream, 0).await?);
    }
    let costs = in_turn(servers, &mut stages, &SMALL_BATCHES, extent).await?;
    for stage in stages {
        stage.place.remove().await?;
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
