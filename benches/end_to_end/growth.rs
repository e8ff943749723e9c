//! Whether an event costs the same however much is stored.

use anyhow::{Result, ensure};

use crate::events::{Events, Extremes};
use crate::latency;
use crate::limits;
use crate::load;
use crate::process::Worker;
use crate::queries;
use crate::report::{Limit, Report, median, median_ratio, quantile};
use crate::rig::{Place, Servers, committed, received};

/// Batch size in which the first bookings are stored.
const BATCH: usize = 1_000;
/// Of all events, those that make a booking.
const NEW_BOOKINGS: f64 = 0.7;

/// What an event costs with so many bookings stored.
#[derive(Debug, Clone)]
pub struct Cost {
    /// Bookings stored in the middle of what was measured; in a market-day, those that are active.
    pub stored: f64,
    /// CPU-seconds of worker and PostgreSQL for a million events, in each burst; none where PostgreSQL's are not to be seen.
    cpus: Vec<f64>,
    /// Milliseconds, in each spell.
    p99s: Vec<f64>,
}

impl Cost {
    /// The median of the bursts.
    pub fn cpu(&self) -> f64 {
        median(&self.cpus)
    }
}

/// The most that something grows for a tenfold of what is stored, between neighbours: 0.1 is a tenth. Neighbours were
/// measured one after the other each time, so it is their ratios that count: the machine may have been another the next
/// time.
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
    /// Spells of steady load in a round, for the latency, and as many bursts, for the CPU.
    pub turns: usize,
    /// Events a second of a spell.
    pub rate: f64,
    /// Seconds of a spell: the machine is slow for longer, and then for all sizes.
    pub seconds: f64,
    /// Events of a burst, that wait in the queue before any is taken.
    pub burst: usize,
}

impl Extent {
    /// Events that all of it takes.
    pub fn events(&self) -> usize {
        self.in_a_round() * self.rounds
    }

    fn in_a_round(&self) -> usize {
        let in_a_spell = (self.rate * self.seconds) as usize;
        self.turns * (in_a_spell + self.burst)
    }

    /// Rounds that are measured at one place with so many bookings: it grows by half of them at most, unless one round is
    /// more.
    fn rounds_at(&self, bookings: usize) -> usize {
        let rounds = bookings as f64 / 2.0 / self.grown_in(1);
        (rounds as usize).clamp(1, self.rounds)
    }

    /// Bookings that a place has at first, so that it has `bookings` in the middle of these rounds.
    fn at_first(&self, bookings: usize, rounds: usize) -> usize {
        bookings.saturating_sub((self.grown_in(rounds) / 2.0) as usize)
    }

    fn grown_in(&self, rounds: usize) -> f64 {
        (self.in_a_round() * rounds) as f64 * NEW_BOOKINGS
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
    /// Each for as many rounds.
    places: Vec<Filled>,
    rounds_each: usize,
    events: &'a Events,
    cpus: Vec<f64>,
    p99s: Vec<f64>,
}

impl<'a> Stage<'a> {
    fn new(stored: usize, places: Vec<Filled>, rounds_each: usize, events: &'a Events) -> Self {
        Self {
            stored,
            places,
            rounds_each,
            events,
            cpus: Vec::new(),
            p99s: Vec::new(),
        }
    }

    /// Fills the place of the rounds that begin, if they are its first, with what the events from `next` on are about, and
    /// with others.
    async fn fill(&mut self, next: usize, extent: Extent, round: usize) -> Result<()> {
        if !round.is_multiple_of(self.rounds_each) {
            return Ok(());
        }
        let rounds = self.rounds_each.min(extent.rounds - round);
        let events = next..next + extent.in_a_round() * rounds;
        let history = self
            .events
            .history(events, extent.at_first(self.stored, rounds));
        let Filled { place, used } = &mut self.places[round / self.rounds_each];
        *used = next;
        limits::apply(place, self.events.deliveries(history), BATCH).await?;
        place.tidy().await
    }

    /// Starts the worker of a round, and has it take so much that it has as many deliveries in hand as it may.
    async fn start<'s>(
        &'s mut self,
        settings: &[(&str, &str)],
        round: usize,
    ) -> Result<Running<'s>> {
        let filled = &mut self.places[round / self.rounds_each];
        let worker = Worker::start(&filled.place, settings)?;
        latency::warm_up(&filled.place).await?;
        Ok(Running {
            worker,
            filled,
            events: self.events,
            cpus: &mut self.cpus,
            p99s: &mut self.p99s,
        })
    }
}

/// One size with a worker, for a round.
struct Running<'s> {
    worker: Worker,
    filled: &'s mut Filled,
    events: &'s Events,
    cpus: &'s mut Vec<f64>,
    p99s: &'s mut Vec<f64>,
}

impl Running<'_> {
    /// Steady load for a while: its latency. `number` tells apart what is measured at one place.
    async fn spell(&mut self, extent: Extent, number: usize) -> Result<()> {
        let (rate, seconds) = (extent.rate, extent.seconds);
        let Filled { place, used } = &mut *self.filled;
        let watched = latency::watched(place, self.events, *used, rate, seconds, number).await?;
        *used += watched.sent;
        self.p99s.push(quantile(&watched.ms(), 0.99));
        Ok(())
    }

    /// A queue that has filled while the worker was halted: its CPU.
    async fn burst(&mut self, servers: &Servers, events: usize) -> Result<()> {
        let Filled { place, used } = &mut *self.filled;
        let next = *used..*used + events;
        *used = next.end;
        let mut progress = place.connect().await?;
        let before = received(&mut progress).await?;
        self.worker.halt()?;
        load::publish(place, self.events.range(next)).await?;
        let at_first = servers.cpu_with(&self.worker)?;
        self.worker.resume()?;
        committed(&mut progress, before + events as u64).await?;
        if let (Some(before), Some(now)) = (at_first, servers.cpu_with(&self.worker)?) {
            self.cpus.push((now - before) / events as f64 * 1e6);
        }
        Ok(())
    }

    /// Leaves nothing to autovacuum, which would do it while another size is measured.
    async fn stop(self) -> Result<()> {
        self.worker.stop().await?;
        self.filled.place.tidy().await
    }
}

/// Measures all stages with a worker each, of which one is at work: each spell and burst between those of its neighbours,
/// there and back, so that whatever else the machine does meets all of them.
async fn in_round(
    servers: &Servers,
    stages: &mut [Stage<'_>],
    settings: &[(&str, &str)],
    extent: Extent,
    round: usize,
) -> Result<()> {
    let mut running = Vec::new();
    for stage in stages {
        running.push(stage.start(settings, round).await?);
    }
    for turn in round * extent.turns..(round + 1) * extent.turns {
        if turn % 2 == 1 {
            running.reverse();
        }
        for size in &mut running {
            size.spell(extent, turn).await?;
        }
        for size in &mut running {
            size.burst(servers, extent.burst).await?;
        }
        if turn % 2 == 1 {
            running.reverse();
        }
    }
    for size in running {
        size.stop().await?;
    }
    Ok(())
}

/// What was measured, if the tables are exact.
async fn costs(stages: Vec<Stage<'_>>) -> Result<Vec<Cost>> {
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
/// are stored already. What is measured is the same events at each size, and comes to the same bookings and flights; the
/// fewer are stored, the more of the sums in `flight_demand` are new.
pub async fn with_bookings(
    servers: &mut Servers,
    events: &Events,
    sizes: &[usize],
    (largest, place, used): (usize, &Place, usize),
    extent: Extent,
) -> Result<Vec<Cost>> {
    let at_first = extent.at_first(largest, extent.rounds);
    let most = fill_until(place.clone(), events, used, at_first).await?;
    place.tidy().await?;
    let most = Stage::new(largest, vec![most], extent.rounds, events);
    let (mut stages, mut small) = (Vec::new(), Vec::new());
    for size in sizes.iter().copied() {
        let rounds_each = extent.rounds_at(size);
        let mut places = Vec::new();
        for _ in 0..extent.rounds.div_ceil(rounds_each) {
            let place = servers.place().await?;
            small.push(place.clone());
            places.push(Filled { place, used: 0 });
        }
        stages.push(Stage::new(size, places, rounds_each, events));
    }
    stages.push(most);
    for round in 0..extent.rounds {
        let next = stages[sizes.len()].places[0].used;
        for stage in &mut stages[..sizes.len()] {
            stage.fill(next, extent, round).await?;
        }
        in_round(servers, &mut stages, &[], extent, round).await?;
    }
    let costs = costs(stages).await?;
    for place in small {
        place.remove().await?;
    }
    Ok(costs)
}

/// In one batch of the default size a booking of the smallest market-day would be made and cancelled: it leaves nothing
/// to be measured. A spell hardly has so many to take at once.
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
        limits::apply(&place, day.stored.deliveries(0..day.stored.len()), BATCH).await?;
        place.tidy().await?;
        places.push(place.clone());
        let filled = Filled { place, used: 0 };
        stages.push(Stage::new(*size, vec![filled], extent.rounds, &day.stream));
    }
    for round in 0..extent.rounds {
        in_round(servers, &mut stages, &SMALL_BATCHES, extent, round).await?;
    }
    let costs = costs(stages).await?;
    for (place, size) in places.into_iter().zip(sizes) {
        queries::fares(&place, Extremes::FLIGHT, *size, report).await?;
        place.remove().await?;
    }
    Ok(costs)
}

/// Reports growth in both; in CPU only where it was seen.
pub fn report(costs: &[Cost], what: &str, report: &mut Report) {
    let cpu = ("CPU", "CPU of worker and database", "s/1M");
    let p99 = ("p99", "latency p99", "ms");
    let cpus: fn(&Cost) -> &[f64] = |cost| &cost.cpus;
    let p99s: fn(&Cost) -> &[f64] = |cost| &cost.p99s;
    for ((short, figure, unit), of) in [(cpu, cpus), (p99, p99s)] {
        if costs.iter().any(|cost| of(cost).is_empty()) {
            continue;
        }
        for cost in costs {
            let name = format!("{figure}, {:.0} {what}", cost.stored);
            report.add(name, median(of(cost)), unit, Limit::None);
        }
        report.add(
            format!("most growth of {short} per tenfold of {what}"),
            growth_per_tenfold(costs, of) * 100.0,
            "%",
            Limit::AtMost(15.0),
        );
    }
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
        limits::apply(&place, events.deliveries(used..next), BATCH).await?;
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
