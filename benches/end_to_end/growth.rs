//! Whether an event costs the same however much is stored.

use anyhow::Result;

use crate::events::{Events, Extremes};
use crate::latency;
use crate::limits;
use crate::load;
use crate::process::Worker;
use crate::report::{Limit, Report, median, median_ratio};
use crate::rig::{Place, Servers};

/// What an event costs with so many bookings stored.
#[derive(Debug, Clone)]
pub struct Cost {
    /// Bookings stored when the measured events began.
    pub stored: f64,
    /// CPU-seconds of worker and PostgreSQL for a million events, in each round.
    cpus: Vec<f64>,
    /// Milliseconds, in each round.
    p99s: Vec<f64>,
}

impl Cost {
    /// The median of the rounds.
    pub fn cpu(&self) -> f64 {
        median(&self.cpus)
    }
}

/// The most that something grows for a tenfold of what is stored, between neighbours: 0.1 is a tenth. In each round
/// neighbours were measured one after the other, so it is their ratios that count: the machine may have been another in
/// the next round.
fn growth_per_tenfold(costs: &[Cost], of: fn(&Cost) -> &[f64]) -> f64 {
    costs
        .windows(2)
        .map(|pair| {
            let tenfolds = (pair[1].stored / pair[0].stored).log10();
            median_ratio(of(&pair[1]), of(&pair[0])).powf(1.0 / tenfolds) - 1.0
        })
        .fold(f64::NEG_INFINITY, f64::max)
}

/// How much is measured at each size, in rounds through all of them.
#[derive(Debug, Clone, Copy)]
pub struct Extent {
    /// Events that are drained at a time, for the CPU.
    pub drained: usize,
    /// How often.
    pub drains: usize,
    /// Events a second of the latency.
    pub rate: f64,
    /// Seconds at a time: the machine is slow for longer, and then for all sizes.
    pub seconds: f64,
    /// How often.
    pub spells: usize,
}

impl Extent {
    /// Events that all of it takes.
    pub fn events(&self) -> usize {
        self.drained * self.drains + self.in_a_spell() * self.spells
    }

    fn in_a_spell(&self) -> usize {
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
    cpus: Vec<f64>,
    p99s: Vec<f64>,
}

impl<'a> Stage<'a> {
    async fn new(place: Place, events: &'a Events, used: usize) -> Result<Self> {
        let stored = bookings(&place).await?;
        Ok(Self {
            place,
            stored,
            events,
            used,
            cpus: Vec::new(),
            p99s: Vec::new(),
        })
    }

    /// Drains what comes next.
    async fn drain(
        &mut self,
        servers: &Servers,
        settings: &[(&str, &str)],
        extent: Extent,
    ) -> Result<()> {
        self.place.tidy().await?;
        let drained = self.used..self.used + extent.drained;
        load::fill(&self.place, self.events.range(drained.clone())).await?;
        let cpu = cpu_per_million(&self.place, servers, settings).await?;
        self.cpus.push(cpu);
        self.used = drained.end;
        Ok(())
    }

    /// A worker for the latency, beyond its start.
    async fn warm_up(&self) -> Result<Worker> {
        self.place.tidy().await?;
        let worker = Worker::start(&self.place, &[])?;
        latency::warm_up(&self.place).await?;
        Ok(worker)
    }

    /// Sends what comes next at a rate.
    async fn send(&mut self, extent: Extent, number: usize) -> Result<()> {
        let (rate, seconds) = (extent.rate, extent.seconds);
        let latency =
            latency::at_rate(&self.place, self.events, self.used, rate, seconds, number).await?;
        self.p99s.push(latency.p99);
        self.used += extent.in_a_spell();
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
    for _ in 0..extent.drains {
        for stage in &mut *stages {
            stage.drain(servers, settings, extent).await?;
        }
        stages.reverse();
    }
    let mut workers = Vec::new();
    for stage in &*stages {
        workers.push(stage.warm_up().await?);
    }
    for spell in 0..extent.spells {
        for stage in &mut *stages {
            stage.send(extent, spell).await?;
        }
        stages.reverse();
    }
    for worker in workers {
        worker.stop().await?;
    }
    stages.sort_by(|one, other| one.stored.total_cmp(&other.stored));
    let mut costs = Vec::new();
    for stage in &*stages {
        stage.place.assert_exact().await?;
        costs.push(Cost {
            stored: stage.stored,
            cpus: stage.cpus.clone(),
            p99s: stage.p99s.clone(),
        });
    }
    Ok(costs)
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
    let days = sizes
        .iter()
        .map(|size| Extremes::new(*size, extent.events(), elsewhere))
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
            cost.cpu(),
            "s/1M",
            Limit::None,
        );
        report.add(name("latency p99"), median(&cost.p99s), "ms", Limit::None);
    }
    let percent = |of| growth_per_tenfold(costs, of) * 100.0;
    let limit = Limit::AtMost(15.0);
    report.add(
        format!("most growth of CPU per tenfold of {what}"),
        percent(|cost| &cost.cpus),
        "%",
        limit,
    );
    report.add(
        format!("most growth of p99 per tenfold of {what}"),
        percent(|cost| &cost.p99s),
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
