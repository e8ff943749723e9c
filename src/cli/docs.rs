//! `paxflow completions` and `paxflow man`, from the same definitions as `--help`.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::CommandFactory;

use super::Cli;

#[derive(Debug, clap::Args)]
pub(super) struct Completions {
    /// Which shell
    #[arg(value_enum)]
    shell: clap_complete::Shell,
}

#[derive(Debug, clap::Args)]
pub(super) struct Man {
    /// Where to write paxflow.1, paxflow-run.1 and so on
    directory: PathBuf,
}

pub(super) fn completions(arguments: &Completions) -> Result<ExitCode> {
    // Straight to stdout it would panic where nobody reads.
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Cli::command(), "paxflow", &mut script);
    std::io::stdout().write_all(&script)?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn man(arguments: &Man) -> Result<ExitCode> {
    let directory = &arguments.directory;
    std::fs::create_dir_all(directory)
        .and_then(|()| clap_mangen::generate_to(Cli::command(), directory))
        .with_context(|| format!("cannot write the man pages to {}", directory.display()))?;
    Ok(ExitCode::SUCCESS)
}
