//! The loop: gather deliveries, have a batch decoded, applied and committed, acknowledge it after that; retry, pause or stop.
//!
//! While one batch commits the next one gathers, so batches are as large as the load makes them; one that is
//! full is decoded meanwhile. Transactions follow one another: a batch begins when the one before it has committed.

mod commit;

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures_util::FutureExt;
use metrics::{counter, gauge};
use sqlx::postgres::PgPool;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use crate::apply;
use crate::backoff::Backoff;
use crate::batch::VerdictCounts;
use crate::broker::{BrokerError, DELIVERY_LIMIT, Subscription, Topology};
use crate::config::Secret;
use crate::db::pool::Lease;
use crate::db::{self, Fault, fault_of};
use crate::event::Delivery;
use crate::health::Health;
use crate::stop::Stop;
use crate::telemetry;

use commit::{Handover, Outcome, commit, note_verdicts};

/// Pause before consuming again after an unreadable message. The broker dead-letters it only after
/// [`DELIVERY_LIMIT`] deliveries, and until then it holds up the others.
const UNREADABLE_WAIT: Duration = Duration::from_millis(100);
/// Deliveries in hand after a start, see [`Subscription::end_narrow`].
const FIRST_PREFETCH: u16 = 1;
/// While a batch commits, what has arrived is taken this often: nobody is woken for each delivery.
const GATHER_EVERY: Duration = Duration::from_millis(5);
/// A batch that commits, and one that is decoded meanwhile.
const BATCHES_AT_WORK_MAX: usize = 2;
/// A batch takes no more once it holds this many bytes of bodies and headers.
const BATCH_BYTES_MAX: usize = 16 << 20;
/// How long a stop may take before what is in hand is handed back: with the goodbyes to a broker that
/// does not answer it ends within 10 s.
const STOP_MAX: Duration = Duration::from_secs(7);
/// [`Worker::hold_max`] outside tests. Long, since a hand-back costs each message one of its delivery attempts, and a database
/// that is full or locked refuses all workers; yet far below the broker's consumer time-out of 30 min, which would close the
/// channel, and take back the batch behind as well.
pub const HOLD_MAX: Duration = Duration::from_secs(600);
/// How often a worker looks whether the database answers.
const PING_EVERY: Duration = Duration::from_secs(2);
/// Events that are set aside are summed up in the log this often: of a bad producer there may be thousands a second.
const TELL_SET_ASIDE_EVERY: Duration = Duration::from_secs(60);

/// What a worker needs to run.
#[derive(Debug, Clone)]
pub struct Worker {
    /// Whose row of `worker_progress` counts its batches, and how it inserts.
    pub committer: apply::Committer,
    /// The broker.
    pub amqp_url: Secret,
    /// Exchange and queue.
    pub topology: Topology,
    /// The database.
    pub pool: PgPool,
    /// Where it tells how it is doing.
    pub health: Health,
    /// Most events in a batch.
    pub batch_max: usize,
    /// How long a batch that is not full waits for more.
    pub batch_linger: Duration,
    /// Most deliveries in hand.
    pub prefetch: u16,
    /// A batch that cannot be committed for this long goes back to the broker: another worker may reach the database.
    pub hold_max: Duration,
}

/// Works until it is told to stop. An outage of the broker or the database is waited out.
///
/// # Errors
/// What only a person can mend; nothing in hand has been acknowledged then.
pub async fn run(worker: &Worker, mut stop: Stop) -> Result<()> {
    note_verdicts(&VerdictCounts::default());
    let mut watching = tokio::spawn(watch(worker.clone()));
    let ended = tokio::select! {
        ended = sessions(worker, &mut stop) => ended,
        refused = &mut watching => Err(refused.context("the watch failed")?),
    };
    watching.abort();
    tell_set_aside(worker);
    ended
}

async fn sessions(worker: &Worker, stop: &mut Stop) -> Result<()> {
    let mut backoff = Backoff::default();
    let mut told = false;
    loop {
        if !database_answers(worker, stop).await? {
            return Ok(());
        }
        let opened = tokio::select! {
            opened = Subscription::open(&worker.amqp_url, &worker.topology, FIRST_PREFETCH) => opened,
            // Nothing is in hand yet, so nothing is lost with a connection half made.
            () = stop.requested() => return Ok(()),
        };
        let lost = match opened {
            Ok(subscription) => {
                info!(queue = worker.topology.queue, "consuming");
                counter!(telemetry::BROKER_SESSIONS).increment(1);
                worker.health.broker(Ok(()));
                match Session::new(worker, subscription).consume(stop).await? {
                    End::Stopped => return Ok(()),
                    End::Lost { error, settled } => {
                        if settled > 0 {
                            backoff = Backoff::default();
                            told = false;
                        }
                        error
                    }
                }
            }
            Err(BrokerError::Refused(reason)) => {
                bail!("the broker refuses to work with us (AMQP_URL): {reason}")
            }
            Err(error) => error,
        };
        worker.health.broker(Err(lost.to_string()));
        let wait = match lost {
            BrokerError::Unreadable(reason) => {
                if !told {
                    tell_unreadable(worker, reason);
                    told = true;
                }
                counter!(telemetry::UNREADABLE).increment(1);
                UNREADABLE_WAIT
            }
            // A broker that ended a session it had accepted (queue deleted, time-out) is asked again.
            BrokerError::Lost(reason) | BrokerError::Refused(reason) => {
                let wait = backoff.next_wait();
                let retry_in_ms = wait.as_millis() as u64;
                warn!(reason, retry_in_ms, "waiting for the broker");
                wait
            }
        };
        if stop.requested_within(wait).await {
            return Ok(());
        }
    }
}

fn tell_unreadable(worker: &Worker, reason: &str) {
    warn!(
        queue = worker.topology.queue,
        dead_letters = worker.topology.dead_letters(),
        reason,
        "each delivery of it ends the connection: after {DELIVERY_LIMIT} the broker moves it to the dead-letter queue"
    );
}

/// Waits until the database answers, before any delivery is taken; `false` if told to stop.
async fn database_answers(worker: &Worker, stop: &mut Stop) -> Result<bool> {
    let mut backoff = Backoff::default();
    while let Err(reason) = ask_database(worker).await? {
        let wait = backoff.next_wait();
        let retry_in_ms = wait.as_millis() as u64;
        warn!(reason, retry_in_ms, "waiting for the database");
        if stop.requested_within(wait).await {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether the database answers, or why not.
///
/// # Errors
/// If it will not before a person has done something.
async fn ask_database(worker: &Worker) -> Result<Result<(), String>> {
    let answer = match db::pool::answers(&worker.pool).await {
        Err(error) if fault_of(&error) != Fault::Transient => {
            return Err(db::explain(error))
                .context("the database refuses to work with us (DATABASE_URL)");
        }
        answer => answer.map_err(|error| db::told(&error)),
    };
    worker.health.database(answer.clone());
    Ok(answer)
}

/// Keeps the readiness honest while there is nothing to commit, and sums up in the log what was set aside. Ends with what only
/// a person can mend.
async fn watch(worker: Worker) -> anyhow::Error {
    let mut told_at = None;
    loop {
        tokio::time::sleep(PING_EVERY).await;
        if let Err(error) = ask_database(&worker).await {
            return error;
        }
        gauge!(telemetry::POOL_OPEN).set(f64::from(worker.pool.size()));
        if told_at.is_none_or(|at: Instant| at.elapsed() >= TELL_SET_ASIDE_EVERY)
            && tell_set_aside(&worker)
        {
            told_at = Some(Instant::now());
        }
    }
}

/// Tells how many events were set aside since it was told last, if there are any.
fn tell_set_aside(worker: &Worker) -> bool {
    let events = worker.health.take_set_aside();
    if events > 0 {
        warn!(
            events,
            "set aside in quarantined_events: paxflow quarantine list tells why"
        );
    }
    events > 0
}

/// How a session with the broker ended.
enum End {
    Stopped,
    Lost { error: BrokerError, settled: u64 },
}

/// What the loop does next.
enum Step {
    Receive(Result<Delivery, BrokerError>),
    Look,
    Settle(Result<Outcome>),
    Flush,
    Stop,
    GiveUp,
}

/// One connection to the broker, with what was received over it and is not settled yet.
struct Session<'w> {
    worker: &'w Worker,
    subscription: Subscription,
    gathered: Vec<Delivery>,
    gathered_bytes: usize,
    /// Batches on their way into the database, the first one in its transaction.
    at_work: VecDeque<JoinHandle<Result<Outcome>>>,
    /// Tells when the last of them has committed, on which connection. None where nothing is at work: an idle worker keeps
    /// no connection from the pool.
    last_committed: Option<oneshot::Receiver<Lease>>,
    /// Until when what is gathered waits for more.
    linger_until: Instant,
    /// When a stop has taken too long, if one is under way.
    stop_by: Option<Instant>,
}

impl<'w> Session<'w> {
    fn new(worker: &'w Worker, subscription: Subscription) -> Self {
        Self {
            worker,
            subscription,
            gathered: Vec::new(),
            gathered_bytes: 0,
            at_work: VecDeque::new(),
            last_committed: None,
            linger_until: Instant::now(),
            stop_by: None,
        }
    }

    async fn consume(mut self, stop: &mut Stop) -> Result<End> {
        loop {
            if self.stop_by.is_some() && self.at_work.is_empty() && self.gathered.is_empty() {
                return Ok(self.hand_back(0).await);
            }
            let done = match self.next_step(stop).await {
                Step::Receive(delivery) => delivery.and_then(|delivery| self.gather(delivery)),
                Step::Look => self.look(),
                Step::Flush => self.look().map(|()| self.flush(stop.clone())),
                Step::Settle(outcome) => match outcome? {
                    Outcome::Committed { last_tag, events } => {
                        self.settle(last_tag, events, stop).await
                    }
                    Outcome::Held { events } => {
                        let behind = self.wind_up().await?;
                        return Ok(self.hand_back(events + behind).await);
                    }
                },
                Step::Stop => {
                    info!("stopping: no more deliveries are taken");
                    self.stop_by = Some(Instant::now() + STOP_MAX);
                    if let Err(error) = self.subscription.cancel().await {
                        warn!(reason = %error, "the broker went away while stopping");
                    }
                    Ok(())
                }
                Step::GiveUp => return Ok(self.hand_back(0).await),
            };
            if let Err(error) = done {
                return self.lost(error, stop).await;
            }
        }
    }

    async fn next_step(&mut self, stop: &mut Stop) -> Step {
        if self.is_due() {
            return Step::Flush;
        }
        let stopping = self.stop_by.is_some();
        let room = self.has_room();
        let idle = self.at_work.is_empty();
        let has_work = !self.gathered.is_empty();
        tokio::select! {
            biased;
            () = stop.requested(), if !stopping => Step::Stop,
            () = reached(self.stop_by) => Step::GiveUp,
            outcome = first_done(&mut self.at_work) => Step::Settle(outcome),
            () = sleep_until(self.linger_until), if idle && has_work => Step::Flush,
            () = tokio::time::sleep(GATHER_EVERY), if !idle && room && !stopping => Step::Look,
            delivery = self.subscription.next(), if idle && room && !stopping => Step::Receive(delivery),
        }
    }

    /// Whether what is gathered need not wait any longer.
    fn is_due(&self) -> bool {
        if self.gathered.is_empty() {
            return false;
        }
        if !self.at_work.is_empty() {
            return !self.has_room() && self.at_work.len() < BATCHES_AT_WORK_MAX;
        }
        self.stop_by.is_some()
            || !self.has_room()
            || self.subscription.is_exhausted()
            || self.linger_until <= Instant::now()
    }

    /// Takes the deliveries that wait already, if there is room for them.
    fn look(&mut self) -> Result<(), BrokerError> {
        if self.stop_by.is_some() || !self.has_room() {
            return Ok(());
        }
        match self.subscription.next().now_or_never() {
            Some(first) => self.gather(first?),
            None => Ok(()),
        }
    }

    /// Takes a delivery and all others that wait already.
    fn gather(&mut self, first: Delivery) -> Result<(), BrokerError> {
        if self.gathered.is_empty() {
            self.linger_until = Instant::now() + self.worker.batch_linger;
        }
        let before = self.gathered.len();
        let taken = self.take_waiting(first);
        counter!(telemetry::RECEIVED).increment((self.gathered.len() - before) as u64);
        taken
    }

    fn take_waiting(&mut self, first: Delivery) -> Result<(), BrokerError> {
        let mut next = Some(Ok(first));
        while let Some(delivery) = next {
            let delivery = delivery?;
            self.gathered_bytes += delivery.bytes();
            self.gathered.push(delivery);
            next = if self.has_room() {
                self.subscription.next().now_or_never()
            } else {
                None
            };
        }
        Ok(())
    }

    fn has_room(&self) -> bool {
        let bytes_left = BATCH_BYTES_MAX.saturating_sub(self.gathered_bytes);
        self.gathered.len() < self.worker.batch_max && bytes_left > 0
    }

    fn flush(&mut self, stop: Stop) {
        let batch = std::mem::take(&mut self.gathered);
        self.gathered_bytes = 0;
        let (to_next, from_this) = oneshot::channel();
        let handover = Handover {
            from_previous: self.last_committed.replace(from_this),
            previous_is_at_work: !self.at_work.is_empty(),
            to_next,
        };
        // A task of its own, that nobody aborts: a transaction dropped half-way would leave its
        // connection in an unknown state.
        let commit = commit(self.worker.clone(), batch, handover, stop);
        self.at_work.push_back(tokio::spawn(commit));
    }

    /// Acknowledges a batch that has committed, and asks for more deliveries at a time.
    async fn settle(
        &mut self,
        last_tag: u64,
        events: u64,
        stop: &mut Stop,
    ) -> Result<(), BrokerError> {
        let acknowledged = match self.start_next(stop) {
            Ok(()) => self.acknowledge(last_tag, stop).await,
            lost => lost,
        };
        if let Err(error) = acknowledged {
            counter!(telemetry::ACKS_LOST).increment(events);
            return Err(error);
        }
        tokio::select! {
            biased;
            // What a half-made consumer is given goes back with the rest.
            () = stop.requested() => Ok(()),
            widened = self.subscription.widen() => widened,
        }
    }

    /// Has the next batch begin before the last one is acknowledged, if none is at work: an acknowledgement takes as long as to
    /// wake another thread, and back. Where there is no next batch, the connection goes back to the pool.
    fn start_next(&mut self, stop: &Stop) -> Result<(), BrokerError> {
        if self.at_work.is_empty() {
            self.look()?;
            if self.is_due() {
                self.flush(stop.clone());
            } else {
                self.last_committed = None;
            }
        }
        Ok(())
    }

    async fn acknowledge(&mut self, last_tag: u64, stop: &mut Stop) -> Result<(), BrokerError> {
        tokio::select! {
            biased;
            () = stop.requested() => {}
            ended = self.subscription.end_narrow(last_tag, self.worker.prefetch) => ended?,
        }
        self.subscription.ack_up_to(last_tag).await
    }

    /// The connection broke: the broker delivers what is not acknowledged again. A commit under way
    /// is waited for, so that no two sessions of this worker are ever at work, unless a stop takes too long.
    async fn lost(mut self, error: BrokerError, stop: &mut Stop) -> Result<End> {
        self.worker.health.broker(Err(error.to_string()));
        self.subscription.close().await;
        counter!(telemetry::REQUEUED).increment(self.gathered.len() as u64);
        let stop_by = self.stop_by;
        let unsettled = tokio::select! {
            held = self.wind_up() => held?,
            () = stop_took_too_long(stop_by, stop) => return Ok(End::Stopped),
        };
        counter!(telemetry::REQUEUED).increment(unsettled);
        if stop_by.is_some() {
            return Ok(End::Stopped);
        }
        Ok(End::Lost {
            error,
            settled: self.subscription.settled(),
        })
    }

    /// Waits for the batches at work, whose events will be delivered again; returns how many of them have
    /// no verdict.
    async fn wind_up(&mut self) -> Result<u64> {
        let mut held = 0;
        while !self.at_work.is_empty() {
            match first_done(&mut self.at_work).await? {
                Outcome::Committed { events, .. } => {
                    counter!(telemetry::ACKS_LOST).increment(events)
                }
                Outcome::Held { events } => held += events,
            }
        }
        Ok(held)
    }

    async fn hand_back(self, held: u64) -> End {
        let unsettled = held + self.gathered.len() as u64;
        if unsettled > 0 {
            warn!(
                events = unsettled,
                "handed back to the broker without a verdict"
            );
        }
        counter!(telemetry::REQUEUED).increment(unsettled);
        let left = self
            .stop_by
            .map(|limit| limit.saturating_duration_since(Instant::now()));
        let settled = self.subscription.settled();
        self.subscription.hand_back(left.unwrap_or_default()).await;
        if self.stop_by.is_some() {
            return End::Stopped;
        }
        End::Lost {
            error: BrokerError::Lost(
                "left by ourselves: what was in hand went back while the database is away"
                    .to_owned(),
            ),
            settled,
        }
    }
}

/// Waits until then; for ever if there is no limit.
async fn reached(limit: Option<Instant>) {
    match limit {
        Some(limit) => sleep_until(limit).await,
        None => std::future::pending().await,
    }
}

/// Of a stop that is under way or will be requested.
async fn stop_took_too_long(limit: Option<Instant>, stop: &mut Stop) {
    match limit {
        Some(limit) => sleep_until(limit).await,
        None => {
            stop.requested().await;
            tokio::time::sleep(STOP_MAX).await;
        }
    }
}

/// The first batch at work; one that is not done stays.
async fn first_done(at_work: &mut VecDeque<JoinHandle<Result<Outcome>>>) -> Result<Outcome> {
    match at_work.front_mut() {
        Some(task) => {
            let outcome = task.await;
            at_work.pop_front();
            outcome.context("the commit task failed")?
        }
        None => std::future::pending().await,
    }
}
