//! One private server process and the small shell that outlives us to clean up after it.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::{Instant, sleep, timeout};

use super::Shutdown;

const SCRIPT: &str = include_str!("keeper.sh");
/// Creating a cluster takes 1 s of CPU and booting a broker 8 s: a machine may be ten times slower than that, not more.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);
const READY_LIMIT: Duration = Duration::from_secs(90);
const PROBE_INTERVAL: Duration = Duration::from_millis(20);
const LOG_TAIL_LINES: usize = 15;
/// The shell's own status for a program that is not there.
const NOT_FOUND: &str = "127";

/// What is the same for every run of a server.
pub(super) struct Server {
    /// Name in messages.
    pub name: &'static str,
    /// The Debian package that holds it.
    pub package: &'static str,
    /// Shell functions that the keeper calls, `prepare`, `serve` and `forget`, and `last_signal`, which ends the server at once.
    pub script: &'static str,
    /// The signal it takes as a request to end in good order.
    pub graceful: &'static str,
}

/// A server under its keeper. The keeper has a process group of its own, so that Ctrl-C on our terminal leaves the server
/// to us, and holds the read end of a pipe whose write end dies with us, so that even a `kill -9` leaves nothing behind.
pub(super) struct Keeper {
    server: &'static Server,
    pub(super) dir: PathBuf,
    pid: Option<u32>,
    pub(super) child: Child,
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Keeper {
    /// Starts the keeper over `dir`, which it owns from now on, and lets it prepare the server's data.
    pub async fn start(
        server: &'static Server,
        dir: TempDir,
        variables: &[(&str, String)],
    ) -> Result<Self> {
        // A file rather than `sh -c`, for the sake of `ps`.
        let script = dir.path().join("keeper");
        std::fs::write(&script, [server.script, SCRIPT].concat())
            .context("cannot write a script")?;
        let mut child = Command::new("sh")
            .arg(&script)
            .env("DIR", dir.path())
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start sh")?;
        let (Some(orders), Some(answers)) = (child.stdin.take(), child.stdout.take()) else {
            bail!("sh was started without pipes");
        };
        let answers = BufReader::new(answers).lines();
        let mut keeper = Self {
            server,
            dir: dir.keep(),
            pid: None,
            child,
            orders,
            answers,
        };
        match keeper.answer().await?.as_str() {
            "prepared 0" => Ok(keeper),
            answer if answer.ends_with(NOT_FOUND) => {
                bail!(
                    "{} is not installed: apt-get install {}",
                    server.name,
                    server.package
                )
            }
            _ => bail!("cannot prepare {}:\n{}", server.name, keeper.log_tail()),
        }
    }

    pub fn pid(&self) -> Option<u32> {
        self.pid
    }

    /// Starts the server and probes it until it answers.
    pub async fn serve<Ready: Future<Output = bool>>(
        &mut self,
        probe: impl Fn() -> Ready,
    ) -> Result<()> {
        ensure!(self.pid.is_none(), "{} runs already", self.server.name);
        let pid = self
            .order("start")
            .await?
            .parse()
            .context("cannot read a pid")?;
        self.pid = Some(pid);
        let deadline = Instant::now() + READY_LIMIT;
        while !probe().await {
            ensure!(
                is_alive(pid),
                "{} ended while starting:\n{}",
                self.server.name,
                self.log_tail()
            );
            ensure!(
                Instant::now() < deadline,
                "{} does not answer:\n{}",
                self.server.name,
                self.log_tail()
            );
            sleep(PROBE_INTERVAL).await;
        }
        Ok(())
    }

    /// Ends the server and keeps its data. Returns when its process is gone.
    pub async fn halt(&mut self, shutdown: Shutdown) -> Result<()> {
        ensure!(self.pid.is_some(), "{} does not run", self.server.name);
        let signal = match shutdown {
            Shutdown::Graceful => self.server.graceful,
            Shutdown::Kill => "KILL",
        };
        let answer = self.order(signal).await?;
        ensure!(
            answer == "stopped",
            "{} did not stop: {answer}",
            self.server.name
        );
        self.pid = None;
        Ok(())
    }

    /// Ends the server at once, for its data go with it, and waits for the keeper to have finished.
    pub async fn close(mut self) -> Result<()> {
        drop(self.orders);
        timeout(ANSWER_LIMIT, self.child.wait())
            .await
            .with_context(|| format!("the keeper of {} does not end", self.server.name))??;
        ensure!(!self.dir.exists(), "{} was left behind", self.dir.display());
        Ok(())
    }

    async fn order(&mut self, word: &str) -> Result<String> {
        self.orders
            .write_all(format!("{word}\n").as_bytes())
            .await
            .with_context(|| format!("cannot tell the keeper of {} to {word}", self.server.name))?;
        self.answer().await
    }

    async fn answer(&mut self) -> Result<String> {
        timeout(ANSWER_LIMIT, self.answers.next_line())
            .await
            .with_context(|| format!("the keeper of {} does not answer", self.server.name))??
            .with_context(|| format!("the keeper of {} has ended", self.server.name))
    }

    fn log_tail(&self) -> String {
        let log = std::fs::read_to_string(self.dir.join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
    }
}

/// False also for a zombie: a server that ended is one until its keeper waits for it.
pub(super) fn is_alive(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status
        .lines()
        .any(|line| line.starts_with("State:") && !line.contains("(zombie)"))
}
