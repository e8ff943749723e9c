//! `paxflow db backup`.

use std::fmt;
use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use indicatif::{HumanBytes, ProgressBar, ProgressState, ProgressStyle};
use serde_json::json;

use crate::cli::say;
use crate::config::Config;
use crate::db;
use crate::db::backup::{Server, Snapshot};

/// The file holds personal data.
const OWNER_ONLY: u32 = 0o600;
/// How often progress without a known end is drawn.
const TICK: Duration = Duration::from_millis(200);

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {
    /// Where to write it
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Replace FILE if it is there
    #[arg(long)]
    force: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(arguments: &Arguments, config: &Config) -> Result<ExitCode> {
    let Arguments { file, force, json } = arguments;
    let path = file.display();
    ensure!(
        file != Path::new("-"),
        "a backup is read back once it is written, which a pipe cannot be: name a file to write (./- is one)"
    );
    ensure!(
        *force || !file.exists(),
        "{path} is there already: choose another name, or replace it with --force"
    );
    ensure!(
        !file.is_dir(),
        "{path} is a directory: name a file to write"
    );
    let options = db::options(config.direct_url()?, "backup")?;
    let address = db::address(&options);
    let interrupted = super::interrupted()?;
    let partial = Partial::create(file)?;
    let written = async {
        let snapshot = write(&Server::look(options).await?, &partial).await?;
        partial.complete(file)?;
        anyhow::Ok(snapshot)
    };
    let written = tokio::select! {
        written = written => written,
        () = interrupted => Err(anyhow!("interrupted")),
    };
    let snapshot = match written {
        Ok(snapshot) => snapshot,
        Err(error) => {
            fs::remove_file(&partial.path).ok();
            return Err(error.context(format!("cannot back up the database at {address}")));
        }
    };
    let bytes = fs::metadata(file).map_or(0, |file| file.len());
    let Snapshot { revision, rows } = snapshot;
    if *json {
        say!(
            "{}",
            json!({ "file": path.to_string(), "bytes": bytes, "revision": revision, "rows": rows })
        );
    } else {
        say!(
            "backed up {} rows of {} tables at revision {revision}: {path} ({})",
            rows.values().sum::<u64>(),
            rows.len(),
            HumanBytes(bytes)
        );
    }
    Ok(ExitCode::SUCCESS)
}

async fn write(server: &Server, partial: &Partial) -> Result<Snapshot> {
    let progress = dumping(&partial.path);
    let snapshot = server.dump(&partial.path, &partial.file, &progress).await;
    progress.finish_and_clear();
    let snapshot = snapshot?;
    let progress = ProgressBar::new(snapshot.rows.values().sum());
    if let Ok(style) =
        ProgressStyle::with_template("{bar:40} {human_pos}/{human_len} rows read back, {eta} left")
    {
        progress.set_style(style);
    }
    let read_back = server.read_back(&partial.path, &snapshot, &progress).await;
    progress.finish_and_clear();
    read_back?;
    Ok(snapshot)
}

/// Hidden by itself where stderr is not a terminal.
fn dumping(partial: &Path) -> ProgressBar {
    let progress = ProgressBar::no_length();
    let partial = partial.to_owned();
    let written = move |_: &ProgressState, to: &mut dyn fmt::Write| {
        let bytes = fs::metadata(&partial).map_or(0, |file| file.len());
        // Nobody is told about a failure to draw.
        write!(to, "{}", HumanBytes(bytes)).ok();
    };
    if let Ok(style) =
        ProgressStyle::with_template("{spinner} {written} written in {elapsed} {msg}")
    {
        progress.set_style(style.with_key("written", written));
    }
    progress.enable_steady_tick(TICK);
    progress
}

/// A file that is being written under another name, so that a backup which was killed never looks whole.
struct Partial {
    file: File,
    path: PathBuf,
}

impl Partial {
    fn create(target: &Path) -> Result<Self> {
        let mut path = target.as_os_str().to_owned();
        path.push(".partial");
        let path = PathBuf::from(path);
        let create = || {
            let file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .mode(OWNER_ONLY)
                .open(&path)?;
            file.set_permissions(Permissions::from_mode(OWNER_ONLY))?;
            std::io::Result::Ok(file)
        };
        let file = create().with_context(|| format!("cannot write {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => (),
            Err(TryLockError::WouldBlock) => {
                bail!("another backup is writing {}", path.display())
            }
            Err(TryLockError::Error(error)) => {
                return Err(anyhow!(error).context(format!("cannot lock {}", path.display())));
            }
        }
        Ok(Self { file, path })
    }

    /// Gives the file its name when everything is on the disk.
    fn complete(&self, target: &Path) -> Result<()> {
        let named = || {
            self.file.sync_all()?;
            fs::rename(&self.path, target)?;
            let directory = match target.parent() {
                Some(parent) if parent != Path::new("") => parent,
                _ => Path::new("."),
            };
            File::open(directory)?.sync_all()
        };
        named().with_context(|| format!("cannot complete {}", target.display()))
    }
}
