//! What is asked before data goes.

use std::io::{IsTerminal, Write, stdin};

use anyhow::{Context, Result, bail, ensure};

use crate::config::Config;

/// Consent to something that cannot be undone.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(super) struct Consent {
    /// Do not ask before data is lost
    #[arg(long)]
    yes: bool,
}

impl Consent {
    /// Goes on only if a person agrees, now or by `--yes`.
    pub(super) fn obtain(self, consequence: &str) -> Result<()> {
        if self.yes {
            return Ok(());
        }
        ensure!(
            stdin().is_terminal(),
            "{consequence} Nothing was done: agree with --yes"
        );
        let mut terminal = std::io::stderr();
        write!(terminal, "{consequence}\nType yes to go on: ")
            .and_then(|()| terminal.flush())
            .context("cannot ask")?;
        let mut answer = String::new();
        stdin()
            .read_line(&mut answer)
            .context("cannot read the answer")?;
        ensure!(answer.trim() == "yes", "nothing was done");
        Ok(())
    }
}

/// Fails where data must never be dropped by a command.
pub(super) fn refuse_in_production(config: &Config, command: &str) -> Result<()> {
    if config.is_production() {
        bail!("paxflow {command} destroys data and is refused while PAXFLOW_ENV is production");
    }
    Ok(())
}
