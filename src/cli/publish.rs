//! `paxflow publish`: validate first, then send with confirms.

use std::collections::VecDeque;
use std::io::{BufReader, Seek, Write, stderr};
use std::pin::pin;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use futures_util::FutureExt;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::lines::{self, Lines};
use super::say;
use crate::broker::{self, BrokerError, Publisher, Topology, Unconfirmed};
use crate::config::Config;
use crate::event::{Message, decode};

/// Events on their way before the oldest must be confirmed.
const UNCONFIRMED_MAX: usize = 2000;
/// Events that are this late are sent at once; after a longer stall no more than this is caught up.
const CAUGHT_UP: Duration = Duration::from_millis(100);
/// A broker that has confirmed nothing for this long is told of.
const SILENCE: Duration = Duration::from_secs(10);

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// NDJSON files, one event a line, blank ones ignored; - is stdin, .gz is unpacked
    #[arg(required = true, value_name = "FILE")]
    files: Vec<String>,
    /// Publish the valid lines even if others are rejected
    #[arg(long)]
    skip_invalid: bool,
    /// At most this many events a second
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(arguments: &Arguments, config: &Config) -> Result<ExitCode> {
    let mut inputs = Vec::new();
    for name in &arguments.files {
        inputs.push(Input::new(name)?);
    }
    let (mut valid, mut rejected) = (0_u64, 0_u64);
    for input in &mut inputs {
        let (file_valid, file_rejected) = input.validate(arguments.skip_invalid)?;
        valid += file_valid;
        rejected += file_rejected;
    }
    let result = |published, seconds| json!({ "published": published, "rejected": rejected, "seconds": seconds });
    if rejected > 0 && !arguments.skip_invalid {
        if arguments.json {
            say!("{}", result(0, 0.0));
        }
        bail!(
            "{rejected} of {} events were rejected and nothing was published: mend them, or publish the others with --skip-invalid",
            valid + rejected
        );
    }

    let topology = Topology::of(config);
    let url = config.amqp_url()?;
    let publisher = Publisher::join(url, &topology).await.with_context(|| {
        format!(
            "cannot publish to the broker at {} (AMQP_URL)",
            broker::address(url)
        )
    })?;
    let mut sender = Sender::new(&publisher, valid, arguments.rate);
    let sent = sender.send_all(&mut inputs).await;
    if sent.is_err() {
        // What was confirmed before the connection broke.
        sender.take_confirmed().ok();
    }
    let (confirmed, seconds) = (sender.confirmed, sender.seconds());
    drop(sender);
    publisher.close().await;
    sent.with_context(|| {
        format!("{confirmed} of {valid} events are confirmed; publish again, what comes twice counts once")
    })?;
    ensure!(
        confirmed == valid,
        "{valid} events were valid and {confirmed} are published: the input has changed in between; publish it again, what comes twice counts once"
    );
    if arguments.json {
        say!("{}", result(confirmed, seconds));
    } else {
        say!("published {confirmed} events in {seconds:.1} s, {rejected} rejected");
    }
    Ok(ExitCode::SUCCESS)
}

/// Events that can be read twice: what is no file, such as a pipe, is kept on disk for that.
struct Input {
    name: String,
    spooled: Option<std::fs::File>,
}

impl Input {
    fn new(name: &str) -> Result<Self> {
        let mut spooled = None;
        let gives_once = |found: std::fs::Metadata| !found.is_file();
        if name == "-" || std::fs::metadata(name).is_ok_and(gives_once) {
            let mut file = tempfile::tempfile().context("cannot keep the input on disk")?;
            std::io::copy(&mut lines::open(name)?, &mut file)
                .with_context(|| format!("cannot read {name}"))?;
            spooled = Some(file);
        }
        Ok(Self {
            name: name.to_owned(),
            spooled,
        })
    }

    /// Its lines, from the first.
    fn lines(&mut self) -> Result<Lines> {
        let input = match &mut self.spooled {
            Some(file) => {
                file.rewind().context("cannot read the input again")?;
                let again = file.try_clone().context("cannot read the input again")?;
                Box::new(BufReader::new(again))
            }
            None => lines::open(&self.name)?,
        };
        Ok(Lines::new(input, &self.name))
    }

    /// Counts valid and rejected lines, and says what is wrong with each of the latter.
    fn validate(&mut self, skip_invalid: bool) -> Result<(u64, u64)> {
        let mut lines = self.lines()?;
        let (mut valid, mut rejected) = (0, 0);
        while let Some(body) = lines.next()? {
            if valid + rejected == 0 && !skip_invalid {
                lines::refuse_spread_out(body, &self.name)?;
            }
            match decode(&Message::of_body(body)) {
                Ok(_) => valid += 1,
                Err(finding) => {
                    rejected += 1;
                    writeln!(stderr(), "{}:{}: {finding}", self.name, lines.number).ok();
                }
            }
        }
        Ok((valid, rejected))
    }
}

/// Limits how many events are sent a second.
struct Pace {
    every: Duration,
    /// When the next event may be sent.
    due: Instant,
}

impl Pace {
    /// When an event may be sent that is ready `now`.
    fn next(&mut self, now: Instant) -> Instant {
        let at = self.due.max(now - CAUGHT_UP);
        self.due = at + self.every;
        at
    }
}

/// Sends events and keeps a window of them on their way.
pub(super) struct Sender<'a> {
    publisher: &'a Publisher,
    unconfirmed: VecDeque<Unconfirmed>,
    confirmed: u64,
    started: Instant,
    pace: Option<Pace>,
    progress: ProgressBar,
}

impl<'a> Sender<'a> {
    pub(super) fn new(publisher: &'a Publisher, events: u64, rate: Option<u32>) -> Self {
        let now = Instant::now();
        // Hidden by itself where stderr is not a terminal.
        let progress = ProgressBar::new(events);
        if let Ok(style) = ProgressStyle::with_template(
            "{bar:40} {human_pos}/{human_len} events, {per_sec}, {eta} left",
        ) {
            progress.set_style(style);
        }
        Self {
            publisher,
            unconfirmed: VecDeque::with_capacity(UNCONFIRMED_MAX),
            confirmed: 0,
            started: now,
            pace: rate.map(|rate| Pace {
                every: Duration::from_secs(1) / rate,
                due: now,
            }),
            progress,
        }
    }

    async fn send_all(&mut self, inputs: &mut [Input]) -> Result<()> {
        for input in inputs {
            let mut lines = input.lines()?;
            while let Some(body) = lines.next()? {
                if let Ok(event) = decode(&Message::of_body(body)) {
                    self.send(event.kind.routing_key(), Some(&event.id), body)
                        .await?;
                }
            }
        }
        Ok(self.finish().await?)
    }

    /// Waits until everything sent is confirmed.
    pub(super) async fn finish(&mut self) -> Result<(), BrokerError> {
        while !self.unconfirmed.is_empty() {
            self.confirm_oldest().await?;
        }
        self.progress.finish_and_clear();
        Ok(())
    }

    /// Seconds since it was made.
    pub(super) fn seconds(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    pub(super) async fn send(
        &mut self,
        routing_key: &str,
        event_id: Option<&str>,
        body: &[u8],
    ) -> Result<(), BrokerError> {
        if let Some(pace) = &mut self.pace {
            tokio::time::sleep_until(pace.next(Instant::now()).into()).await;
        }
        self.take_confirmed()?;
        if self.unconfirmed.len() == UNCONFIRMED_MAX {
            self.confirm_oldest().await?;
        }
        let sending = self.publisher.send(routing_key, event_id, body);
        let unconfirmed = patiently(sending, &self.progress).await?;
        self.unconfirmed.push_back(unconfirmed);
        Ok(())
    }

    /// Counts what is confirmed by now.
    fn take_confirmed(&mut self) -> Result<(), BrokerError> {
        while let Some(oldest) = self.unconfirmed.front_mut()
            && let Some(confirmed) = oldest.confirmed().now_or_never()
        {
            self.unconfirmed.pop_front();
            confirmed?;
            self.count_one();
        }
        Ok(())
    }

    async fn confirm_oldest(&mut self) -> Result<(), BrokerError> {
        let Some(mut oldest) = self.unconfirmed.pop_front() else {
            return Ok(());
        };
        patiently(oldest.confirmed(), &self.progress).await?;
        self.count_one();
        Ok(())
    }

    fn count_one(&mut self) {
        self.confirmed += 1;
        self.progress.set_position(self.confirmed);
    }
}

/// Waits for the broker as long as it takes, and says so once it takes long.
async fn patiently<T>(answer: impl Future<Output = T>, progress: &ProgressBar) -> T {
    let mut answer = pin!(answer);
    if let Ok(answer) = tokio::time::timeout(SILENCE, &mut answer).await {
        return answer;
    }
    let silence = SILENCE.as_secs();
    let why = "it takes nothing while it is short of memory or disk; still waiting";
    let told = format!("paxflow: the broker has confirmed nothing for {silence} s: {why}");
    // Not into the bar, where there is one.
    progress.suspend(|| writeln!(stderr(), "{told}").ok());
    answer.await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_stall_the_rate_is_kept_to_again() {
        let started = Instant::now();
        let every = Duration::from_millis(10);
        let mut pace = Pace {
            every,
            due: started,
        };
        for sent in 0..5 {
            assert_eq!(pace.next(started), started + every * sent);
        }
        let after = started + Duration::from_secs(60);
        let at_once = (0..1_000).filter(|_| pace.next(after) <= after).count();
        assert_eq!(at_once, 11, "100 ms are caught up");
    }
}
