//! `paxflow db migrate`: revisions by hand.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Subcommand;
use comfy_table::{Table, presets};
use sqlx::Connection;
use sqlx::migrate::{Migration, Migrator};
use sqlx::postgres::PgConnectOptions;

use super::confirm::{Consent, refuse_in_production};
use super::create;
use crate::cli::{database, say};
use crate::config::Config;
use crate::db::migrate::{MIGRATOR, downgrade, grant_again, upgrade};
use crate::db::revisions::{self, Standing, State, down, file_name, latest, ups};
use crate::db::statements::split;
use crate::db::turn::Patience;
use crate::db::{self, reference};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {
    /// Use the revisions in a directory instead of those that this program was built with; create writes
    /// there, to migrations unless told otherwise
    #[arg(long, global = true, value_name = "DIR")]
    dir: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List every revision: what it is about, when it was applied, whether its file is unchanged
    #[command(after_help = "Example:\n  paxflow db migrate show")]
    Show {
        /// Print it as JSON
        #[arg(long)]
        json: bool,
    },
    /// Apply revisions, each in one transaction
    #[command(
        after_help = "Example:\n  paxflow db migrate upgrade --dry-run\n  paxflow db migrate upgrade 5"
    )]
    Upgrade {
        /// The last revision to apply: a number, or latest
        #[arg(default_value = "latest", value_name = "REV")]
        revision: Target,
        /// Print the SQL and change nothing
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        options: ChangeOptions,
    },
    /// Take revisions back, newest first, each in one transaction
    #[command(
        after_help = "Example:\n  paxflow db migrate downgrade 4 --dry-run\n  paxflow db migrate downgrade base --yes"
    )]
    Downgrade {
        /// The last revision to keep: a number, or base for none
        #[arg(value_name = "REV")]
        revision: Target,
        /// Print the SQL and change nothing
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        options: ChangeOptions,
    },
    /// Take every revision back and apply them all again: an empty database
    #[command(after_help = "Example:\n  paxflow db migrate reset --yes")]
    Reset {
        #[command(flatten)]
        options: ChangeOptions,
    },
    /// Write the files of a new revision
    #[command(
        after_help = "Example:\n  paxflow db migrate create -m \"add meal preference\" --autogenerate"
    )]
    Create(create::Arguments),
}

#[derive(Debug, Clone, Copy, clap::Args)]
struct ChangeOptions {
    /// Seconds to wait for others that change the schema [default: 300], and for those that use a table [default: 10]
    #[arg(long, value_name = "SECS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    lock_timeout: Option<u64>,
    #[command(flatten)]
    consent: Consent,
}

impl ChangeOptions {
    fn patience(self) -> Patience {
        match self.lock_timeout.map(Duration::from_secs) {
            Some(limit) => Patience {
                turn: limit,
                lock: limit,
            },
            None => Patience::default(),
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Target {
    Base,
    Latest,
    Number(i64),
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "base" => Ok(Self::Base),
            "latest" | "head" => Ok(Self::Latest),
            number => number
                .parse()
                .map(Self::Number)
                .map_err(|_| "expected the number of a revision, base or latest".to_owned()),
        }
    }
}

impl Target {
    fn version(self, migrator: &Migrator) -> Result<i64> {
        match self {
            Self::Base => Ok(0),
            Self::Latest => Ok(latest(migrator)),
            Self::Number(number) => {
                ensure!(
                    number == 0 || migrator.version_exists(number),
                    "there is no revision {number}: see paxflow db migrate show"
                );
                Ok(number)
            }
        }
    }
}

pub(super) async fn run(arguments: &Arguments, config: &Config) -> Result<ExitCode> {
    let from_dir = match &arguments.dir {
        Some(dir) if !matches!(arguments.command, Command::Create(_)) => {
            Some(revisions::in_directory(dir).await?)
        }
        _ => None,
    };
    let migrator = from_dir.as_ref().unwrap_or(&MIGRATOR);
    match &arguments.command {
        Command::Show { json } => show(*json, migrator, config).await?,
        Command::Upgrade {
            revision,
            dry_run,
            options,
        } => {
            let plan = Plan::up(revision.version(migrator)?, migrator, config).await?;
            plan.carry_out(*dry_run, *options).await?;
        }
        Command::Downgrade {
            revision,
            dry_run,
            options,
        } => {
            let plan = Plan::down(revision.version(migrator)?, migrator, config).await?;
            if !dry_run && plan.losses()?.is_some() {
                refuse_in_production(config, "db migrate downgrade")?;
            }
            plan.carry_out(*dry_run, *options).await?;
        }
        Command::Reset { options } => {
            refuse_in_production(config, "db migrate reset")?;
            let back = Plan::down(0, migrator, config).await?;
            back.carry_out(false, *options).await?;
            let again = Plan::up(latest(migrator), migrator, config).await?;
            again.carry_out(false, *options).await?;
        }
        Command::Create(new) => {
            let dir = arguments.dir.as_deref().unwrap_or(Path::new("migrations"));
            create::run(new, dir, config).await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn look(migrator: &Migrator, config: &Config) -> Result<(PgConnectOptions, Standing)> {
    let mut connection = database(config, "migrate").await?;
    let standing = revisions::standing(&mut connection, migrator).await?;
    connection.close().await.ok();
    Ok((db::options(config.direct_url()?, "migrate")?, standing))
}

async fn show(json: bool, migrator: &Migrator, config: &Config) -> Result<()> {
    let (_, Standing { revisions }) = look(migrator, config).await?;
    if json {
        let text =
            serde_json::to_string_pretty(&revisions).context("cannot write the revisions")?;
        say!("{text}");
        return Ok(());
    }
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    table.set_header(["revision", "message", "applied (UTC)", "state"]);
    for revision in revisions {
        let state = match revision.state {
            State::Applied => "applied, checksum matches",
            State::Pending => "pending",
            State::Edited => "EDITED since it was applied",
            State::Unknown => "unknown to this program",
            State::Dirty => "DIRTY: did not finish",
        };
        let applied_at = revision
            .applied_at
            .map(|at| at.format("%Y-%m-%d %H:%M:%S").to_string());
        table.add_row([
            revision.version.to_string(),
            revision.message,
            applied_at.unwrap_or_default(),
            state.to_owned(),
        ]);
    }
    say!("{table}");
    Ok(())
}

async fn has_airports(database: &PgConnectOptions) -> Result<bool> {
    let mut connection = db::connect(database).await?;
    let loaded = reference::is_loaded(&mut connection).await;
    connection.close().await.ok();
    loaded.context("cannot read reference_data")
}

/// The files that lead from where a database stands to where it shall be.
struct Plan<'a> {
    files: Vec<&'a Migration>,
    current: i64,
    target: i64,
    /// Whether the airports of this version have to be loaded, although the schema is where it shall be.
    lacks_airports: bool,
    migrator: &'a Migrator,
    database: PgConnectOptions,
}

impl<'a> Plan<'a> {
    async fn up(target: i64, migrator: &'a Migrator, config: &Config) -> Result<Self> {
        let (database, standing) = look(migrator, config).await?;
        standing.refuse_unsound(migrator)?;
        let current = standing.current_version();
        ensure!(
            target >= current,
            "the schema is at revision {current}, after {target}: paxflow db migrate downgrade {target}"
        );
        let pending = standing.in_state(State::Pending);
        let files = pending
            .filter(|revision| revision.version <= target)
            .filter_map(|revision| ups(migrator).find(|file| file.version == revision.version))
            .collect();
        let is_complete = current == target && current >= latest(&MIGRATOR);
        let lacks_airports = is_complete && !has_airports(&database).await?;
        Ok(Self {
            files,
            current,
            target,
            lacks_airports,
            migrator,
            database,
        })
    }

    async fn down(target: i64, migrator: &'a Migrator, config: &Config) -> Result<Self> {
        let (database, standing) = look(migrator, config).await?;
        standing.refuse_unsound(migrator)?;
        let current = standing.current_version();
        ensure!(
            target <= current,
            "the schema is at revision {current}, before {target}: paxflow db migrate upgrade {target}"
        );
        let applied = standing.in_state(State::Applied);
        let files = applied
            .rev()
            .filter(|revision| revision.version > target)
            .filter_map(|revision| down(migrator, revision.version))
            .collect();
        Ok(Self {
            files,
            current,
            target,
            lacks_airports: false,
            migrator,
            database,
        })
    }

    /// Changes the schema, after asking if that may lose data; only prints the SQL on a dry run.
    async fn carry_out(&self, dry_run: bool, options: ChangeOptions) -> Result<()> {
        let (current, target, patience) = (self.current, self.target, options.patience());
        if self.lacks_airports {
            if dry_run {
                say!("-- the airports of this version");
            } else {
                upgrade(&self.database, self.migrator, target, patience).await?;
                say!(
                    "the schema is at revision {current}; the airports of this version are loaded"
                );
            }
        } else if current == target && self.files.is_empty() {
            if !dry_run {
                grant_again(&self.database, self.migrator, patience).await?;
            }
            say!("the schema is at revision {current}: nothing to do");
        } else if dry_run {
            for file in &self.files {
                say!("-- {}\n{}", file_name(file), file.sql.as_str());
            }
        } else {
            if let Some(losses) = self.losses()? {
                options.consent.obtain(&losses)?;
            }
            if target >= current {
                upgrade(&self.database, self.migrator, target, patience).await?;
                say!("upgraded from revision {current} to {target}");
            } else {
                downgrade(&self.database, self.migrator, target, patience).await?;
                say!("downgraded from revision {current} to {target}");
            }
        }
        Ok(())
    }

    /// The statements that may lose data.
    fn losses(&self) -> Result<Option<String>> {
        let mut losses = Vec::new();
        for file in &self.files {
            let name = file_name(file);
            let statements =
                split(file.sql.as_str()).with_context(|| format!("{name} is no SQL"))?;
            let lossy = statements
                .iter()
                .filter(|statement| statement.may_lose_data());
            losses.extend(lossy.map(|statement| format!("{} ({name})", statement.headline())));
        }
        Ok((!losses.is_empty()).then(|| format!("This may lose data: {}.", losses.join(", "))))
    }
}
