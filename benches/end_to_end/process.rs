//! The worker as a process of its own, and what the kernel counts of it.

use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::time::clock_getcpuclockid;
use nix::unistd::Pid;
use tokio::process::{Child, Command};

use crate::rig::Place;

/// Ticks a second in /proc, on every Linux that Rust supports.
const TICKS_PER_SECOND: f64 = 100.0;
/// How long a worker may take to stop.
const STOP_WITHIN: Duration = Duration::from_secs(15);

/// CPU time, user and system, to the nanosecond while a process runs: a burst of some thousand events is but twenty ticks of
/// /proc.
#[derive(Debug, Clone, Copy)]
pub struct Cpu(Duration);

impl Cpu {
    /// Of one process with all of its threads.
    pub fn of(pid: u32) -> Result<Self> {
        let clock = clock_getcpuclockid(Pid::from_raw(pid.try_into()?));
        let spent = clock.and_then(|clock| clock.now());
        let spent = spent.with_context(|| format!("reading the CPU clock of process {pid}"))?;
        Ok(Self(spent.into()))
    }

    /// Of a process, its children, and those of them that have ended.
    pub fn of_family(pid: u32) -> Result<Self> {
        let mut family = Self::of(pid)?.0 + Stat::read(pid)?.ended_children();
        for entry in fs::read_dir("/proc").context("reading /proc")? {
            let name = entry?.file_name();
            let Some(child) = name.to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            // One that has ended meanwhile is the parent's already.
            if let Ok(stat) = Stat::read(child)
                && stat.parent() == pid
                && let Ok(Self(spent)) = Self::of(child)
            {
                family += spent;
            }
        }
        Ok(Self(family))
    }

    /// Of this process.
    pub fn own() -> Result<Self> {
        Self::of(std::process::id())
    }

    /// What this process has spent since `before`, in seconds for a million of so many events.
    pub fn own_per_million(before: Self, events: usize) -> Result<f64> {
        let since = Self::own()?.seconds() - before.seconds();
        Ok(since / events as f64 * 1e6)
    }

    /// In seconds.
    pub fn seconds(self) -> f64 {
        self.0.as_secs_f64()
    }
}

/// Counts what the host of a virtual machine keeps of the processors for itself: where it is much, figures are of another
/// machine, and what needs both cores suffers more than what needs one.
pub struct Steal {
    since: Instant,
    ticks: u64,
}

impl Steal {
    /// From now on.
    pub fn count() -> Result<Self> {
        Ok(Self {
            since: Instant::now(),
            ticks: Self::ticks()?,
        })
    }

    /// All processors, since the machine started: proc(5), `steal`.
    fn ticks() -> Result<u64> {
        let stat = fs::read_to_string("/proc/stat").context("reading /proc/stat")?;
        let steal = stat.split_whitespace().nth(8);
        let ticks = steal.and_then(|ticks| ticks.parse().ok());
        ticks.context("/proc/stat has no steal")
    }

    /// Of all processors until now, percent.
    pub fn percent(&self) -> Result<f64> {
        let cores = std::thread::available_parallelism()?.get() as f64;
        let stolen = (Self::ticks()? - self.ticks) as f64 / TICKS_PER_SECOND;
        Ok(stolen / self.since.elapsed().as_secs_f64() / cores * 100.0)
    }
}

/// The fields of `/proc/PID/stat` behind the name, which may itself hold blanks: proc(5), field 3 and on.
struct Stat(Vec<u64>);

impl Stat {
    fn read(pid: u32) -> Result<Self> {
        let path = format!("/proc/{pid}/stat");
        let line = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
        let (_, fields) = line
            .rsplit_once(')')
            .with_context(|| format!("no name in {path}"))?;
        Ok(Self(
            fields
                .split_whitespace()
                .map(|field| field.parse().unwrap_or_default())
                .collect(),
        ))
    }

    fn field(&self, number: usize) -> u64 {
        self.0.get(number - 3).copied().unwrap_or_default()
    }

    fn parent(&self) -> u32 {
        self.field(4) as u32
    }

    fn ended_children(&self) -> Duration {
        let ticks = self.field(16) + self.field(17);
        Duration::from_secs_f64(ticks as f64 / TICKS_PER_SECOND)
    }
}

/// A worker: `paxflow run`, or one to compare it with.
pub struct Worker {
    child: Child,
    pid: u32,
}

impl Worker {
    /// Starts a worker with its defaults and some settings.
    pub fn start(place: &Place, settings: &[(&str, &str)]) -> Result<Self> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_paxflow"));
        command
            .arg("run")
            .env("PAXFLOW_EXCHANGE", &place.topology.exchange)
            .env("PAXFLOW_CONSUMER", place.topology.consumer.as_str())
            .env("PAXFLOW_HTTP_ADDR", "127.0.0.1:0")
            .env("PAXFLOW_VERIFY_EVERY_SECS", "0")
            .env("PAXFLOW_LOG", "warn")
            .envs(settings.iter().copied());
        Self::spawn(place, command)
    }

    /// Starts a worker of another make, which reads the same settings.
    pub fn spawn(place: &Place, mut command: Command) -> Result<Self> {
        let child = command
            .env("DATABASE_URL", &place.database_url)
            .env("AMQP_URL", &place.amqp_url)
            .env("PAXFLOW_QUEUE", &place.topology.queue)
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("starting a worker")?;
        let pid = child.id().context("the worker has no pid")?;
        Ok(Self { child, pid })
    }

    /// CPU-seconds so far.
    pub fn cpu(&self) -> Result<f64> {
        Ok(Cpu::of(self.pid)?.seconds())
    }

    /// Most memory ever resident, bytes.
    pub fn peak_rss(&self) -> Result<u64> {
        self.memory("VmHWM:")
    }

    /// Memory resident now, bytes.
    pub fn rss(&self) -> Result<u64> {
        self.memory("VmRSS:")
    }

    fn memory(&self, field: &str) -> Result<u64> {
        let path = format!("/proc/{}/status", self.pid);
        let status = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
        let kib = status
            .lines()
            .find_map(|line| {
                line.strip_prefix(field)?
                    .trim()
                    .strip_suffix(" kB")?
                    .parse::<u64>()
                    .ok()
            })
            .with_context(|| format!("no {field} in {path}"))?;
        Ok(kib * 1024)
    }

    /// Halts it as it is, with its connections open, until it is to go on.
    pub fn halt(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    /// Lets it go on.
    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::SIGCONT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(self.pid.try_into()?);
        kill(pid, signal).context("the worker has ended by itself")
    }

    /// Ends it in its orderly way.
    pub async fn stop(mut self) -> Result<()> {
        self.signal(Signal::SIGTERM)?;
        let status = tokio::time::timeout(STOP_WITHIN, self.child.wait())
            .await
            .context("the worker does not stop")??;
        ensure!(status.success(), "the worker ended with {status}");
        Ok(())
    }
}
