//! `paxflow generate`.

use std::io::{BufWriter, Write, stdout};
use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::world;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// How many events to write
    #[arg(long, value_name = "N")]
    events: u64,
    /// Seed of the world
    #[arg(long, value_name = "S")]
    seed: u64,
    /// How many markets the world has, 1 to 20000; more than the real ones are made up
    #[arg(long, value_name = "M", value_parser = clap::value_parser!(u32).range(1..=20_000))]
    markets: Option<u32>,
    /// Share of events that break the contract, 0 to 1
    #[arg(long, value_name = "R", default_value_t = 0.0, value_parser = ratio)]
    bad_ratio: f64,
}

fn ratio(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(ratio) if (0.0..=1.0).contains(&ratio) => Ok(ratio),
        _ => Err("expected a number from 0 to 1".to_owned()),
    }
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let world = world::Arguments {
        events: arguments.events,
        seed: arguments.seed,
        markets: arguments.markets,
        bad_ratio: arguments.bad_ratio,
    };
    let mut out = BufWriter::with_capacity(1 << 20, stdout().lock());
    let written = world::generate(&world, &mut out).and_then(|()| out.flush());
    written.context("cannot write the events")?;
    Ok(ExitCode::SUCCESS)
}
