//! Measures every figure that paxflow promises, in one run on the same bytes, on servers it starts itself.
//!
//! `cargo bench --bench end_to_end` is to take less than 25 minutes; `-- --quick` is a smoke test of less than 3,
//! whose figures say little; `-- --soak 60` is an hour of steady load. With `DATABASE_URL` and `AMQP_URL`
//! set it uses those servers. A run whose tables are not exact ends without a figure.

mod drain;
mod events;
mod growth;
mod latency;
mod limits;
mod load;
mod peers;
mod plot;
mod process;
mod producer;
mod queries;
mod queues;
mod replicas;
mod report;
mod rig;
mod slowed;
mod soak;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use paxflow::config::Config;
use serde_json::json;

use events::Events;
use growth::{Cost, Extent};
use latency::Latency;
use plot::{Axis, Line};
use process::{Cpu, Steal};
use report::{Limit, Report, median};
use rig::Servers;

/// The share of the drain rate for which a latency is promised.
const PROMISED_AT: f64 = 0.5;
/// Events a second that no drain reaches: there are enough for the latency at a share of it.
const FASTEST_DRAIN: f64 = 200_000.0;
/// Events a second that leave a system idle.
const IDLE_RATE: f64 = 20.0;

#[derive(Debug, Parser)]
#[command(about = "Measures every figure that paxflow promises")]
struct Arguments {
    /// A smoke test
    #[arg(long)]
    quick: bool,
    /// Only these; peers and latency after the drain that they are compared with
    #[arg(long, value_enum, value_delimiter = ',', value_name = "PARTS")]
    only: Option<Vec<Part>>,
    /// Instead of all that, a steady load for so many minutes, and whether anything grows
    #[arg(long, value_name = "MINUTES", conflicts_with = "only")]
    soak: Option<f64>,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

/// A part of what is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// A long queue beside its limits
    Drain,
    /// Workers in Python
    Peers,
    /// From publishing to visible in market_data, over rate
    Latency,
    /// A database that is slow for a while
    Slowed,
    /// A longer queue, many bookings, and what analysts ask of them
    Growth,
    /// Many bookings of one market-day
    MarketDay,
    /// One, two and four workers, and partitions
    Replicas,
}

impl Arguments {
    fn plan(&self) -> &'static Plan {
        if self.quick { &QUICK } else { &FULL }
    }

    fn asks_for(&self, any_of: &[Part]) -> bool {
        let only = self.only.as_ref();
        only.is_none_or(|only| any_of.iter().any(|part| only.contains(part)))
    }
}

/// How much of everything.
struct Plan {
    drained: usize,
    row_by_row: usize,
    rounds: usize,
    /// In batches and row by row, in each round.
    peers: [usize; 2],
    waiting: usize,
    /// Each of three times.
    idle_events: usize,
    /// Shares of the drain rate at which the latency is measured, [`PROMISED_AT`] among them.
    rates: &'static [f64],
    /// How often at that one.
    latency_runs: usize,
    latency_seconds: f64,
    stored: &'static [usize],
    /// Where those that have been waiting are stored.
    stored_most: usize,
    growth: Extent,
    in_one_market_day: &'static [usize],
    market_day: Extent,
    /// At most; on a slow machine fewer.
    replicated: usize,
    /// There and back.
    replica_runs: usize,
    asked: usize,
    /// Seconds before, during and after a slow-down of the database.
    slowed: f64,
}

const FULL: Plan = Plan {
    drained: 120_000,
    row_by_row: 2_000,
    rounds: 3,
    peers: [30_000, 700],
    waiting: 1_000_000,
    idle_events: 200,
    rates: &[0.125, 0.25, 0.375, 0.5],
    latency_runs: 3,
    latency_seconds: 10.0,
    stored: &[10_000, 100_000],
    stored_most: 1_000_000,
    growth: Extent {
        rounds: 8,
        turns: 3,
        rate: 1_000.0,
        seconds: 1.0,
        burst: 4_000,
    },
    in_one_market_day: &[100, 1_000, 10_000, 100_000],
    market_day: Extent {
        rounds: 4,
        turns: 4,
        rate: 1_000.0,
        seconds: 1.0,
        burst: 4_000,
    },
    replicated: 250_000,
    replica_runs: 5,
    asked: 1_000,
    slowed: 10.0,
};

const QUICK_EXTENT: Extent = Extent {
    rounds: 1,
    turns: 1,
    rate: 1_000.0,
    seconds: 2.0,
    burst: 8_000,
};

const QUICK: Plan = Plan {
    drained: 15_000,
    row_by_row: 300,
    rounds: 1,
    peers: [5_000, 300],
    waiting: 30_000,
    idle_events: 20,
    rates: &[0.5],
    latency_runs: 1,
    latency_seconds: 2.0,
    stored: &[5_000],
    stored_most: 30_000,
    growth: QUICK_EXTENT,
    in_one_market_day: &[100, 1_000],
    market_day: QUICK_EXTENT,
    replicated: 10_000,
    replica_runs: 1,
    asked: 100,
    slowed: 4.0,
};

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let (started, steal) = (Instant::now(), Steal::count()?);
    let mut servers = Servers::start(&Config::from_env()?).await?;
    let mut report = Report::default();
    std::fs::create_dir_all(target())?;
    let (measured, name) = match arguments.soak {
        Some(minutes) => {
            let measured = soak::measure(&mut servers, minutes, &mut report).await;
            (measured, "soak.json")
        }
        None => {
            let measured = measure(&mut servers, &arguments, &mut report).await;
            let name = match arguments.only {
                Some(_) => "parts.json",
                None => "end_to_end.json",
            };
            (measured, name)
        }
    };
    let database_version = servers.database_version.clone();
    servers.stop().await?;
    if let Err(error) = measured {
        // What it came to until then took minutes.
        println!("\n{}", report.table());
        return Err(error);
    }
    let cores = std::thread::available_parallelism()?.get();
    let elapsed = started.elapsed().as_secs_f64();
    report.add(
        "processors kept by the host",
        steal.percent()?,
        "%",
        Limit::None,
    );
    println!("\n{}", report.table());
    let about = json!({
        "quick": arguments.quick,
        "cores": cores,
        "seconds": elapsed as u64,
        "postgresql": database_version,
    });
    let path = target().join(name);
    report.write(&path, &about)?;
    if arguments.quick {
        println!("A smoke test: it is too short for its verdicts to count.");
    }
    println!(
        "{} figures miss what they must reach; {elapsed:.0} s; written to {}",
        report.missed(),
        path.display()
    );
    Ok(())
}

fn target() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("bench")
}

async fn measure(servers: &mut Servers, arguments: &Arguments, report: &mut Report) -> Result<()> {
    let plan = arguments.plan();
    println!("Making the events ...");
    let total = plan.stored_most * 3 / 2 + plan.growth.events();
    let in_time = (FASTEST_DRAIN * PROMISED_AT * plan.latency_seconds) as usize;
    let most = [total, plan.drained, plan.waiting, in_time];
    let events = Events::generate(most.into_iter().fold(0, usize::max), None)?;

    // At the beginning, in the middle and at the end: a machine that is slow is so for minutes.
    let mut idle = Vec::new();
    if arguments.asks_for(&[Part::Latency]) {
        idle.push(idle_latency(servers, plan).await?);
    }
    if arguments.asks_for(&[Part::Drain, Part::Peers, Part::Latency]) {
        println!("Draining {} events ...", plan.drained);
        let (drain, row_by_row) = drain::measure(servers, &events, plan, report).await?;
        if arguments.asks_for(&[Part::Peers]) {
            println!("Workers in Python ...");
            peers::measure(servers, &events, plan, row_by_row, report).await?;
        }
        if arguments.asks_for(&[Part::Latency]) {
            println!("Latency ...");
            idle.push(idle_latency(servers, plan).await?);
            let latencies = latencies(servers, &events, drain, plan, report).await?;
            plot_latencies(&latencies)?;
        }
    }
    if arguments.asks_for(&[Part::Slowed]) {
        println!("A database that is slow for a while ...");
        slowed::measure(servers, &events, plan.slowed, report).await?;
    }
    let mut costs = Vec::new();
    if arguments.asks_for(&[Part::Growth]) {
        costs = grow(servers, &events, plan, report).await?;
    }
    if arguments.asks_for(&[Part::MarketDay]) {
        println!("With more and more bookings of one market-day ...");
        let sizes = plan.in_one_market_day;
        let extent = plan.market_day;
        let crowded = growth::with_one_market_day(servers, &events, sizes, extent, report).await?;
        growth::report(&crowded, "bookings of one market-day", report);
        if !costs.is_empty() {
            plot_costs(&costs, &crowded)?;
        }
    }
    if arguments.asks_for(&[Part::Replicas]) {
        replicate(servers, plan, report).await?;
    }
    if arguments.asks_for(&[Part::Latency]) {
        idle.push(idle_latency(servers, plan).await?);
        let idle = Latency::median_of(&idle);
        report.add("idle latency, p50", idle.p50, "ms", Limit::None);
        report.add("idle latency, p99", idle.p99, "ms", Limit::AtMost(15.0));
    }
    Ok(())
}

/// More workers, over all markets and in one.
async fn replicate(servers: &mut Servers, plan: &Plan, report: &mut Report) -> Result<()> {
    println!("Replicas ...");
    for (markets, what, ways) in [
        (None, "many markets", &replicas::WITH_PARTITIONS[..]),
        (Some(1), "one market", &replicas::ON_ONE_QUEUE[..]),
    ] {
        let events = Events::generate(plan.replicated, markets)?;
        replicas::measure(servers, &events, what, ways, plan.replica_runs, report).await?;
    }
    Ok(())
}

/// A long queue, then more and more bookings, then what analysts wait for where they are the most.
async fn grow(
    servers: &mut Servers,
    events: &Events,
    plan: &Plan,
    report: &mut Report,
) -> Result<Vec<Cost>> {
    println!("With {} events waiting ...", plan.waiting);
    let place = drain::memory(servers, events, plan.waiting, report).await?;
    println!("With more and more bookings ...");
    let most = (plan.stored_most, &place, plan.waiting);
    let costs = growth::with_bookings(servers, events, plan.stored, most, plan.growth).await?;
    growth::report(&costs, "bookings", report);
    println!("Analysts ...");
    queries::measure(&place, plan.asked, report).await?;
    place.remove().await?;
    Ok(costs)
}

async fn idle_latency(servers: &mut Servers, plan: &Plan) -> Result<Latency> {
    let place = servers.place().await?;
    let idle = latency::idle(&place, plan.idle_events).await?;
    place.remove().await?;
    Ok(idle)
}

/// Latency over rate, and of the broker alone.
async fn latencies(
    servers: &mut Servers,
    events: &Events,
    drain: f64,
    plan: &Plan,
    report: &mut Report,
) -> Result<Vec<Latency>> {
    let half = drain * PROMISED_AT;
    for (rate, when) in [(IDLE_RATE, "idle"), (half, "at 0.5 of the drain rate")] {
        let place = servers.place().await?;
        let broker = latency::of_broker(&place, events, rate, plan.latency_seconds).await?;
        for (figure, ms) in [("p50", broker.p50), ("p99", broker.p99)] {
            let name = format!("the broker alone, {when}, {figure}");
            report.add(name, ms, "ms", Limit::None);
        }
        place.remove().await?;
    }
    let mut runs = vec![Vec::new(); plan.rates.len()];
    let mut order: Vec<usize> = (0..runs.len()).collect();
    for run in 0..plan.latency_runs {
        for at in order.iter().copied() {
            let share = plan.rates[at];
            if run == 0 || share == PROMISED_AT {
                let rate = drain * share;
                runs[at].push(latency_at(servers, events, rate, plan.latency_seconds).await?);
            }
        }
        order.reverse();
    }
    let of_share = plan.rates.iter().zip(&runs);
    Ok(of_share
        .map(|(share, runs)| report_latency(runs, *share, report))
        .collect())
}

/// With a worker at a rate; and where the two cores are spent meanwhile.
async fn latency_at(
    servers: &mut Servers,
    events: &Events,
    rate: f64,
    seconds: f64,
) -> Result<(Latency, [f64; 4])> {
    let place = servers.place().await?;
    let worker = process::Worker::start(&place, &[])?;
    latency::warm_up(&place).await?;
    let before = Spent::now(servers, &worker)?;
    let latency = latency::at_rate(&place, events, rate, seconds).await?;
    let cores = before.cores_since(servers, &worker)?;
    worker.stop().await?;
    place.assert_exact().await?;
    place.remove().await?;
    Ok((latency, cores))
}

/// Reports the medians of what was measured at one rate.
fn report_latency(runs: &[(Latency, [f64; 4])], share: f64, report: &mut Report) -> Latency {
    let latencies: Vec<Latency> = runs.iter().map(|run| run.0).collect();
    let latency = Latency::median_of(&latencies);
    let limit = |limit| {
        if share == PROMISED_AT {
            Limit::AtMost(limit)
        } else {
            Limit::None
        }
    };
    let name = |figure| format!("latency at {share} of the drain rate, {figure}");
    report.add(name("which is"), latency.rate, "events/s", Limit::None);
    report.add(name("p50"), latency.p50, "ms", limit(10.0));
    report.add(name("p99"), latency.p99, "ms", limit(50.0));
    report.add(name("max"), latency.max, "ms", Limit::None);
    report.add(name("sent late, p99"), latency.late_p99, "ms", Limit::None);
    for (who, whose) in Spent::WHO.into_iter().enumerate() {
        let used: Vec<f64> = runs.iter().map(|run| run.1[who]).collect();
        report.add(name(whose), median(&used), "cores", Limit::None);
    }
    latency
}

/// CPU-seconds of everybody at a moment.
struct Spent {
    at: Instant,
    seconds: [f64; 4],
}

impl Spent {
    const WHO: [&str; 4] = ["RabbitMQ", "PostgreSQL", "the worker", "the load itself"];

    fn now(servers: &Servers, worker: &process::Worker) -> Result<Self> {
        let cpu = servers.cpu()?;
        let of = |cpu: Option<Cpu>| cpu.map_or(f64::NAN, Cpu::seconds);
        Ok(Self {
            at: Instant::now(),
            seconds: [
                of(cpu.rabbitmq),
                of(cpu.postgres),
                worker.cpu()?,
                Cpu::own()?.seconds(),
            ],
        })
    }

    fn cores_since(&self, servers: &Servers, worker: &process::Worker) -> Result<[f64; 4]> {
        let now = Self::now(servers, worker)?;
        let elapsed = (now.at - self.at).as_secs_f64();
        let used = |who: usize| (now.seconds[who] - self.seconds[who]) / elapsed;
        Ok(std::array::from_fn(used))
    }
}

fn plot_latencies(latencies: &[Latency]) -> Result<()> {
    let over_rate =
        |of: fn(&Latency) -> f64| latencies.iter().map(|at| (at.rate, of(at))).collect();
    plot::draw(
        &target().join("latency_over_rate.svg"),
        "From publishing to visible in market_data",
        &Axis {
            name: "events a second",
            logarithmic: false,
        },
        "milliseconds",
        &[
            Line {
                name: "p50",
                points: over_rate(|at| at.p50),
            },
            Line {
                name: "p99",
                points: over_rate(|at| at.p99),
            },
        ],
    )
}

fn plot_costs(costs: &[Cost], crowded: &[Cost]) -> Result<()> {
    let over_stored = |costs: &[Cost]| costs.iter().map(|at| (at.stored, at.cpu())).collect();
    plot::draw(
        &target().join("cost_over_stored.svg"),
        "CPU of worker and database for a million events",
        &Axis {
            name: "bookings stored",
            logarithmic: true,
        },
        "CPU-seconds",
        &[
            Line {
                name: "in many markets",
                points: over_stored(costs),
            },
            Line {
                name: "in one market-day, extremes cancelled",
                points: over_stored(crowded),
            },
        ],
    )
}
