//! `paxflow publish`: validate first, then send with confirms.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Seek, Write, stderr};
use std::pin::pin;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use futures_util::FutureExt;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::{lines, say};
use crate::broker::{self, BrokerError, Publisher, Topology, Unconfirmed};
use crate::config::Config;
use crate::event::{Message, decode};

/// Events on their way before the oldest must be confirmed.
const UNCONFIRMED_MAX: usize = 2000;
/// A broker that has confirmed nothing for so long is told of.
const SILENCE: Duration = Duration::from_secs(10);

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// NDJSON files, one event a line; - is stdin, .gz is unpacked
    #[arg(required = true, value_name = "FILE")]
    files: Vec<String>,
    /// Publish the valid lines even if others are rejected
    #[arg(long)]
    skip_invalid: bool,
    /// At most so many events a second
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

    fn open(&mut self) -> Result<Box<dyn BufRead>> {
        match &mut self.spooled {
            Some(file) => {
                file.rewind().context("cannot read the input again")?;
                let again = file.try_clone().context("cannot read the input again")?;
                Ok(Box::new(BufReader::new(again)))
            }
            None => lines::open(&self.name),
        }
    }

    /// Counts valid and rejected lines, and says what is wrong with each of the latter.
    fn validate(&mut self, skip_invalid: bool) -> Result<(u64, u64)> {
        let (mut input, mut body) = (self.open()?, Vec::new());
        let (mut valid, mut rejected) = (0, 0);
        while lines::read_line(&mut *input, &mut body, &self.name)? {
            if valid + rejected == 0 && !skip_invalid {
                lines::refuse_spread_out(&body, &self.name)?;
            }
            match decode(&Message::of_body(&body)) {
                Ok(_) => valid += 1,
                Err(finding) => {
                    rejected += 1;
                    let line = valid + rejected;
                    writeln!(stderr(), "{}:{line}: {finding}", self.name).ok();
                }
            }
        }
        Ok((valid, rejected))
    }
}

/// Sends events and keeps a window of them on their way.
pub(super) struct Sender<'a> {
    publisher: &'a Publisher,
    unconfirmed: VecDeque<Unconfirmed>,
    sent: u64,
    confirmed: u64,
    started: Instant,
    rate: Option<u32>,
    progress: ProgressBar,
}

impl<'a> Sender<'a> {
    pub(super) fn new(publisher: &'a Publisher, events: u64, rate: Option<u32>) -> Self {
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
            sent: 0,
            confirmed: 0,
            started: Instant::now(),
            rate,
            progress,
        }
    }

    async fn send_all(&mut self, inputs: &mut [Input]) -> Result<()> {
        for input in inputs {
            let (mut lines, mut body) = (input.open()?, Vec::new());
            while lines::read_line(&mut *lines, &mut body, &input.name)? {
                if let Ok(event) = decode(&Message::of_body(&body)) {
                    self.send(event.kind.routing_key(), Some(&event.id), &body)
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
        if let Some(rate) = self.rate {
            let due = self.started + Duration::from_secs_f64(self.sent as f64 / f64::from(rate));
            tokio::time::sleep_until(due.into()).await;
        }
        self.take_confirmed()?;
        if self.unconfirmed.len() == UNCONFIRMED_MAX {
            self.confirm_oldest().await?;
        }
        let sending = self.publisher.send(routing_key, event_id, body);
        self.unconfirmed.push_back(patiently(sending).await?);
        self.sent += 1;
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
        patiently(oldest.confirmed()).await?;
        self.count_one();
        Ok(())
    }

    fn count_one(&mut self) {
        self.confirmed += 1;
        self.progress.set_position(self.confirmed);
    }
}

/// Waits for the broker as long as it takes, and says so once it takes long.
async fn patiently<T>(answer: impl Future<Output = T>) -> T {
    let mut answer = pin!(answer);
    if let Ok(answer) = tokio::time::timeout(SILENCE, &mut answer).await {
        return answer;
    }
    let silence = SILENCE.as_secs();
    let why = "it takes nothing while it is short of memory or disk; still waiting";
    writeln!(
        stderr(),
        "paxflow: the broker has confirmed nothing for {silence} s: {why}"
    )
    .ok();
    answer.await
}
