//! How a worker is doing, told by the worker and asked by `/readyz`; in the log when it changes.

use std::time::{Duration, Instant};

use metrics::gauge;
use tokio::sync::watch;
use tracing::{info, warn};

use crate::telemetry;

/// A batch that is in the works for longer is no progress.
const STALLED_AFTER: Duration = Duration::from_secs(30);

/// The state of a worker, shared between those who tell and those who ask.
#[derive(Debug, Clone)]
pub struct Health(watch::Sender<State>);

#[derive(Debug)]
struct State {
    broker: Result<(), String>,
    database: Result<(), String>,
    committing_since: Option<Instant>,
    /// Why the batch in the works is held.
    held: Option<String>,
    /// Events that were set aside and are not in the log yet.
    set_aside: u64,
}

impl Default for Health {
    fn default() -> Self {
        let booting = || Err("not connected yet".to_owned());
        let health = Self(watch::Sender::new(State {
            broker: booting(),
            database: booting(),
            committing_since: None,
            held: None,
            set_aside: 0,
        }));
        health.broker(booting());
        health.database(booting());
        health
    }
}

impl Health {
    /// Tells that the broker is connected, or why not.
    pub fn broker(&self, state: Result<(), String>) {
        gauge!(telemetry::UP, "to" => "broker").set(f64::from(u8::from(state.is_ok())));
        self.0.send_modify(|health| health.broker = state);
    }

    /// Tells that the database answers, or why not.
    pub fn database(&self, state: Result<(), String>) {
        gauge!(telemetry::UP, "to" => "database").set(f64::from(u8::from(state.is_ok())));
        self.0.send_modify(|health| {
            match (&health.database, &state) {
                (Ok(()), Err(reason)) => warn!(reason, "the database does not answer"),
                (Err(_), Ok(())) => info!("the database answers"),
                _ => {}
            }
            health.database = state;
        });
    }

    /// Tells that a batch is taken up, or that none is.
    pub fn committing(&self, since: Option<Instant>) {
        self.0.send_modify(|health| {
            health.committing_since = since;
            health.held = None;
        });
    }

    /// Tells why the batch in the works could not be committed yet: a database that answers may still
    /// refuse to write.
    pub fn held(&self, reason: String) {
        self.0.send_modify(|health| health.held = Some(reason));
    }

    /// Tells that events were set aside.
    pub fn set_aside(&self, events: u64) {
        self.0.send_modify(|health| health.set_aside += events);
    }

    /// Events that were set aside since this was asked last.
    pub fn take_set_aside(&self) -> u64 {
        let mut events = 0;
        self.0
            .send_modify(|health| events = std::mem::take(&mut health.set_aside));
        events
    }

    /// Whether the worker makes progress, or is idle with both connections up.
    ///
    /// # Errors
    /// Why it is not.
    pub fn readiness(&self, now: Instant) -> Result<(), String> {
        let state = self.0.borrow();
        if let Err(reason) = &state.database {
            return Err(format!("database: {reason}"));
        }
        if let Err(reason) = &state.broker {
            return Err(format!("broker: {reason}"));
        }
        if let Some(reason) = &state.held {
            return Err(format!("database: a batch is held: {reason}"));
        }
        match state.committing_since {
            Some(since) if now.duration_since(since) > STALLED_AFTER => Err(format!(
                "no progress: a batch has been committing for {} s",
                (now - since).as_secs()
            )),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_means_connected_and_moving() {
        let (health, now) = (Health::default(), Instant::now());
        assert!(health.readiness(now).is_err());
        health.database(Ok(()));
        assert_eq!(
            health.readiness(now),
            Err("broker: not connected yet".to_owned())
        );
        health.broker(Ok(()));
        assert_eq!(health.readiness(now), Ok(()));
        health.committing(Some(now));
        health.held("read-only".to_owned());
        health.database(Ok(()));
        assert!(health.readiness(now).is_err());
        health.committing(Some(now));
        assert_eq!(health.readiness(now + STALLED_AFTER), Ok(()));
        assert!(
            health
                .readiness(now + STALLED_AFTER + Duration::from_secs(1))
                .is_err()
        );
    }
}
