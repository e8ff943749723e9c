//! Whether an event costs the same however much is stored.

use anyhow::{Result, ensure};

use crate::events::{Events, Extremes};
use crate::latency;
use crate::limits;
use crate::load;
use crate::process::Worker;
use crate::queries;
use crate::report::{Limit, Report, median, median_ratio, quantile};
use crate::rig::{Place, Servers};

/// Of all events, those that make a booking.
const NEW_BOOKINGS: f64 = 0.7;

/// What an event costs with so many bookings stored.
#[derive(Debug, Clone)]
pub struct Cost {
    /// Bookings stored in the middle of what was measured; in a market-day, those that are active.
    pub stored: f64,
    /// CPU-seconds of worker and PostgreSQL for a million events, in each drain.
    cpus: Vec<f64>,
    /// Milliseconds, in each spell.
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

/// How much is measured at each size.
#[derive(Debug, Clone, Copy)]
pub struct Extent {
    /// Times that all sizes have their turn.
    pub rounds: usize,
    /// Spells of steady load in a round, for the latency.
    pub spells: usize,
    /// Events a second of these.
    pub rate: f64,
    /// Seconds of each: the machine is slow for longer, and then for all sizes.
    pub seconds: f64,
    /// Events that are drained in a round, for the CPU: what follows the worker's start is counted.
    pub drained: usize,
}

impl Extent {
    /// Events that all of it takes.
    pub fn events(&self) -> usize {
        self.in_a_round() * self.rounds
    }

    fn in_a_round(&self) -> usize {
        self.drained + self.in_a_spell() * self.spells
    }

    fn in_a_spell(&self) -> usize {
        (self.rate * self.seconds) as usize
    }

    /// Places with so many bookings that share the rounds, so that none grows by more than half, unless one round is
    /// more.
    fn places_for(&self, bookings: usize) -> usize {
        let grown = self.events() as f64 * NEW_BOOKINGS;
        let places = (grown / (bookings as f64 / 2.0)).ceil() as usize;
        places.clamp(1, self.rounds)
    }

    /// Bookings of a place at first, so that it has `bookings` in the middle of what is measured there.
    fn at_first(&self, bookings: usize) -> usize {
        let rounds = self.rounds.div_ceil(self.places_for(bookings));
        let grown = (self.in_a_round() * rounds) as f64 * NEW_BOOKINGS;
        bookings.saturating_sub((grown / 2.0) as usize)
    }
}

/// A database with bookings, and how many of the events have gone there.
struct Filled {
    place: Place,
    used: usize,
}

/// One size, and the events that come next.
struct Stage<'a> {
    stored: usize,
    /// Filled alike, used in turn.
    places: Vec<Filled>,
    events: &'a Events,
    cpus: Vec<f64>,
    p99s: Vec<f64>,
}

impl<'a> Stage<'a> {
    fn new(stored: usize, places: Vec<Filled>, events: &'a Events) -> Self {
        Self {
            stored,
            places,
            events,
            cpus: Vec::new(),
            p99s: Vec::new(),
        }
    }

    /// The latency first, since a drain adds the most.
    async fn measure(
        &mut self,
        servers: &Servers,
        settings: &[(&str, &str)],
        extent: Extent,
        round: usize,
    ) -> Result<()> {
        let turn = round % self.places.len();
        let Filled { place, used } = &mut self.places[turn];
        place.tidy().await?;
        let worker = Worker::start(place, &[])?;
        latency::warm_up(place).await?;
        let (rate, seconds) = (extent.rate, extent.seconds);
        for spell in 0..extent.spells {
            let number = round * extent.spells + spell;
            let watched =
                latency::watched(place, self.events, *used, rate, seconds, number).await?;
            self.p99s.push(quantile(&watched.ms(), 0.99));
            *used += watched.sent;
        }
        worker.stop().await?;
        let drained = *used..*used + extent.drained;
        load::fill(place, self.events.range(drained.clone())).await?;
        self.cpus
            .push(cpu_per_million(place, servers, settings).await?);
        *used = drained.end;
        Ok(())
    }
}

/// Measures the stages in turn, there and back: whatever else the machine does meets all of them.
async fn in_turn(
    servers: &Servers,
    mut stages: Vec<Stage<'_>>,
    settings: &[(&str, &str)],
    extent: Extent,
) -> Result<Vec<Cost>> {
    for round in 0..extent.rounds {
        for stage in &mut stages {
            stage.measure(servers, settings, extent, round).await?;
        }
        stages.reverse();
    }
    stages.sort_by_key(|stage| stage.stored);
    let mut costs = Vec::new();
    for stage in stages {
        for filled in stage.places {
            filled.place.assert_exact().await?;
        }
        costs.push(Cost {
            stored: stage.stored as f64,
            cpus: stage.cpus,
            p99s: stage.p99s,
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
    let mut small = Vec::new();
    for size in sizes.iter().copied() {
        let mut places = Vec::new();
        for _ in 0..extent.places_for(size) {
            let place = servers.place().await?;
            small.push(place.clone());
            places.push(fill_until(place, events, 0, extent.at_first(size)).await?);
        }
        stages.push(Stage::new(size, places, events));
    }
    let most = fill_until(place.clone(), events, used, extent.at_first(largest)).await?;
    stages.push(Stage::new(largest, vec![most], events));
    let costs = in_turn(servers, stages, &[], extent).await?;
    for place in small {
        place.remove().await?;
    }
    Ok(costs)
}

/// In one batch of the default size a booking of the smallest market-day would be made and cancelled: it leaves nothing
/// to be measured.
const SMALL_BATCHES: [(&str, &str); 1] = [("PAXFLOW_BATCH_MAX", "200")];

/// With so many bookings in one market-day, whose extremes are cancelled all the time.
pub async fn with_one_market_day(
    servers: &mut Servers,
    elsewhere: &Events,
    sizes: &[usize],
    extent: Extent,
    report: &mut Report,
) -> Result<Vec<Cost>> {
    let days = sizes
        .iter()
        .map(|size| Extremes::new(*size, extent.events(), elsewhere))
        .collect::<Result<Vec<_>>>()?;
    let (mut stages, mut places) = (Vec::new(), Vec::new());
    for (size, day) in sizes.iter().zip(&days) {
        let place = servers.place().await?;
        limits::apply(&place, day.stored.deliveries(0..day.stored.len()), 1_000).await?;
        places.push(place.clone());
        stages.push(Stage::new(
            *size,
            vec![Filled { place, used: 0 }],
            &day.stream,
        ));
    }
    let costs = in_turn(servers, stages, &SMALL_BATCHES, extent).await?;
    for (place, size) in places.into_iter().zip(sizes) {
        queries::fares(&place, Extremes::FLIGHT, *size, report).await?;
        place.remove().await?;
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
    let start = || Ok(vec![Worker::start(place, settings)?]);
    let drained = place
        .drain_on_trust(servers, latency::WARM_UP, start)
        .await?;
    let seconds = drained.worker_cpu + drained.postgres_cpu.unwrap_or(f64::NAN);
    Ok(seconds / drained.events as f64 * 1e6)
}

/// Applies events beyond the `used` until so many bookings are stored.
async fn fill_until(
    place: Place,
    events: &Events,
    mut used: usize,
    wanted: usize,
) -> Result<Filled> {
    loop {
        let missing = wanted as f64 - bookings(&place).await?;
        if missing <= 0.0 {
            return Ok(Filled { place, used });
        }
        let next = (used + (missing / NEW_BOOKINGS) as usize + 100).min(events.len());
        ensure!(next > used, "the events are used up");
        limits::apply(&place, events.deliveries(used..next), 1_000).await?;
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
