//! Measures every figure that paxflow promises, in one run on the same bytes, on servers it starts itself.
//!
//! `cargo bench --bench end_to_end` takes less than 25 minutes; `-- --quick` is a smoke test of less than 3,
//! whose figures say little; `-- --soak 60` is an hour of steady load. With `DATABASE_URL` and `AMQP_URL` set it uses those servers. A run whose
//! tables are not exact ends without a figure.

mod drain;
mod events;
mod growth;
mod latency;
mod limits;
mod load;
mod peers;
mod plot;
mod process;
mod queries;
mod replicas;
mod report;
mod rig;
mod slowed;
mod soak;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Result;
use clap::Parser;
use paxflow::config::Config;
use serde_json::json;

use events::Events;
use growth::{Cost, Extent};
use latency::Latency;
use plot::{Axis, Line};
use report::{Limit, Report};
use rig::Servers;

#[derive(Debug, Parser)]
#[command(about = "Measures every figure that paxflow promises")]
struct Arguments {
    /// A smoke test
    #[arg(long)]
    quick: bool,
    /// Instead of all that, a steady load for so many minutes, and whether anything grows
    #[arg(long, value_name = "MINUTES")]
    soak: Option<f64>,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

/// How much of everything.
struct Plan {
    drained: usize,
    row_by_row: usize,
    /// In batches and row by row.
    peers: [usize; 2],
    rounds: usize,
    waiting: usize,
    idle_events: usize,
    /// Shares of the drain rate at which the latency is measured; the promise is at one half.
    rates: &'static [f64],
    latency_seconds: f64,
    stored: &'static [usize],
    in_one_market_day: &'static [usize],
    growth: Extent,
    replicated: usize,
    replica_rounds: usize,
    asked: usize,
}

const FULL: Plan = Plan {
    drained: 150_000,
    row_by_row: 4_000,
    peers: [60_000, 3_000],
    rounds: 2,
    waiting: 1_000_000,
    idle_events: 500,
    rates: &[0.125, 0.25, 0.5, 0.7, 0.85],
    latency_seconds: 15.0,
    stored: &[10_000, 100_000, 1_000_000],
    in_one_market_day: &[100, 1_000, 10_000, 100_000],
    growth: Extent {
        drained: 30_000,
        rate: 3_000.0,
        seconds: 8.0,
        repeats: 3,
    },
    replicated: 80_000,
    replica_rounds: 1,
    asked: 1_000,
};

const QUICK: Plan = Plan {
    drained: 15_000,
    row_by_row: 300,
    peers: [5_000, 300],
    rounds: 1,
    waiting: 30_000,
    idle_events: 50,
    rates: &[0.25, 0.5],
    latency_seconds: 2.0,
    stored: &[1_000, 10_000],
    in_one_market_day: &[100, 1_000],
    growth: Extent {
        drained: 5_000,
        rate: 1_000.0,
        seconds: 2.0,
        repeats: 1,
    },
    replicated: 10_000,
    replica_rounds: 1,
    asked: 100,
};

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let plan = if arguments.quick { &QUICK } else { &FULL };
    let started = Instant::now();
    let mut servers = Servers::start(&Config::from_env()?).await?;
    let mut report = Report::default();
    std::fs::create_dir_all(target())?;
    let (measured, name) = match arguments.soak {
        Some(minutes) => {
            let measured = soak::measure(&mut servers, minutes, &mut report).await;
            (measured, "soak.json")
        }
        None => {
            let measured = measure(&mut servers, plan, &mut report).await;
            (measured, "end_to_end.json")
        }
    };
    servers.stop().await?;
    measured?;
    println!("\n{}", report.table());
    let about = json!({
        "quick": arguments.quick,
        "cores": std::thread::available_parallelism()?.get(),
        "seconds": started.elapsed().as_secs(),
    });
    let path = target().join(name);
    report.write(&path, &about)?;
    println!(
        "{} figures miss what they must reach; {} s; written to {}",
        report.missed(),
        started.elapsed().as_secs(),
        path.display()
    );
    Ok(())
}

fn target() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("bench")
}

async fn measure(servers: &mut Servers, plan: &Plan, report: &mut Report) -> Result<()> {
    println!("Making the events ...");
    let growing = (plan.growth.drained as f64 + plan.growth.rate * plan.growth.seconds)
        * plan.growth.repeats as f64;
    let largest = plan.stored.iter().max().copied().unwrap_or_default() as f64;
    let total = (largest * 1.5 + growing) as usize + plan.waiting;
    let events = Events::generate(total.max(plan.drained), None)?;

    println!("Draining {} events ...", plan.drained);
    let (drain, row_by_row) = drain::measure(servers, &events, plan, report).await?;
    println!("Workers in Python ...");
    peers::measure(servers, &events, plan.peers, [drain, row_by_row], report).await?;
    println!("Latency ...");
    let latencies = latencies(servers, &events, drain, plan, report).await?;
    println!("A database that is slow for a while ...");
    slowed::measure(servers, &events, report).await?;
    println!("With {} events waiting ...", plan.waiting);
    drain::memory(servers, &events, plan.waiting, report).await?;
    println!("With more and more bookings ...");
    let (costs, place) = growth::with_bookings(servers, &events, plan.stored, plan.growth).await?;
    growth::report(&costs, "bookings", report);
    println!("Analysts ...");
    queries::measure(&place, plan.asked, report).await?;
    place.remove().await?;
    println!("With more and more bookings of one market-day ...");
    let crowded = growth::with_one_market_day(servers, plan.in_one_market_day, plan.growth).await?;
    growth::report(&crowded, "bookings of one market-day", report);
    println!("Replicas ...");
    for (markets, what) in [(None, "many markets"), (Some(1), "one market")] {
        let events = Events::generate(plan.replicated, markets)?;
        replicas::measure(servers, &events, what, plan.replica_rounds, report).await?;
    }
    plots(&latencies, &costs, &crowded)
}

/// Latency over rate, and of an idle system.
async fn latencies(
    servers: &mut Servers,
    events: &Events,
    drain: f64,
    plan: &Plan,
    report: &mut Report,
) -> Result<Vec<Latency>> {
    let place = servers.place().await?;
    let idle = latency::idle(&place, plan.idle_events).await?;
    report.add("idle latency, p50", idle.p50, "ms", Limit::None);
    report.add("idle latency, p99", idle.p99, "ms", Limit::AtMost(15.0));
    place.remove().await?;
    let mut latencies = Vec::new();
    for share in plan.rates.iter().copied() {
        let place = servers.place().await?;
        let worker = process::Worker::start(&place, &[])?;
        latency::warm_up(&place).await?;
        let latency =
            latency::at_rate(&place, events, 0, drain * share, plan.latency_seconds, 0).await?;
        worker.stop().await?;
        place.assert_exact().await?;
        place.remove().await?;
        let promised = share == 0.5;
        let limit = |limit| {
            if promised {
                Limit::AtMost(limit)
            } else {
                Limit::None
            }
        };
        let name = |figure| format!("latency at {:.0} events/s, {figure}", latency.rate);
        report.add(name("p50"), latency.p50, "ms", limit(10.0));
        report.add(name("p99"), latency.p99, "ms", limit(50.0));
        report.add(name("max"), latency.max, "ms", Limit::None);
        report.add(name("sent late, p99"), latency.late_p99, "ms", Limit::None);
        latencies.push(latency);
    }
    Ok(latencies)
}

fn plots(latencies: &[Latency], costs: &[Cost], crowded: &[Cost]) -> Result<()> {
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
    )?;
    let over_stored = |costs: &[Cost]| costs.iter().map(|at| (at.stored, at.cpu)).collect();
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
