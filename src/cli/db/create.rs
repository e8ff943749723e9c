//! `paxflow db migrate create`: the files of a new revision.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use chrono::Utc;

use crate::cli::say;
use crate::config::Config;
use crate::db;
use crate::db::revisions::{in_directory, latest};
use crate::db::schema::autogenerate;

/// Longest part of a file name that comes from the message, in bytes.
const NAME_MAX: usize = 60;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// What the revision is about
    #[arg(short, long)]
    message: String,
    /// Write the statements that lead to DIR/schema.sql: compares it with what the revisions build, in two
    /// scratch databases on the server of DATABASE_DIRECT_URL, or else DATABASE_URL
    #[arg(long)]
    autogenerate: bool,
}

pub(super) async fn run(arguments: &Arguments, dir: &Path, config: &Config) -> Result<()> {
    let migrator = in_directory(dir).await?;
    let version = latest(&migrator) + 1;
    let name = file_stem(&arguments.message)?;
    let mut bodies = [String::new(), String::new()];
    if arguments.autogenerate {
        let path = dir.join("schema.sql");
        let desired = std::fs::read_to_string(&path)
            .with_context(|| format!("cannot read the desired schema {}", path.display()))?;
        let server = db::options(config.direct_url()?, "autogenerate")?;
        let Some(change) =
            autogenerate(&server, &desired, &migrator, super::interrupted()?).await?
        else {
            say!(
                "nothing to do: the revisions build what {} says",
                path.display()
            );
            return Ok(());
        };
        if change.held_back > 0 {
            say!(
                "{} statements are commented out or to be written by hand: decide on each",
                change.held_back
            );
        }
        bodies = [change.up, change.down];
    }
    let directions = [("up", "applies it"), ("down", "takes it back")];
    for ((direction, purpose), body) in directions.into_iter().zip(bodies) {
        let path = dir.join(format!("{version:04}_{name}.{direction}.sql"));
        let header = format!(
            "-- Revision {version}: {}\n-- Created {}. This file {purpose}, in one transaction.\n\n",
            arguments.message,
            Utc::now().format("%Y-%m-%d")
        );
        write_new(&path, format!("{header}{body}").trim_end())?;
        say!("wrote {}", path.display());
    }
    Ok(())
}

/// Writes a file that must not be there yet.
fn write_new(path: &Path, text: &str) -> Result<()> {
    File::create_new(path)
        .and_then(|mut file| writeln!(file, "{text}"))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// The message as part of a file name.
fn file_stem(message: &str) -> Result<String> {
    ensure!(
        !message.contains(char::is_control),
        "the message must be one line of text"
    );
    let mut stem = String::new();
    for word in message
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty())
    {
        if stem.len() + word.len() >= NAME_MAX {
            break;
        }
        if !stem.is_empty() {
            stem.push('_');
        }
        stem.push_str(&word.to_lowercase());
    }
    ensure!(
        !stem.is_empty(),
        "the message must have a word in Latin letters or digits to name the files by"
    );
    Ok(stem)
}
