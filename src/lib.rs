//! paxflow: booking and flight events in, exact MarketData out.
//!
//! Data flows one way, and the modules stand in its order:
//!
//! ```text
//! broker -> event -> batch -> apply (insert, lock, conclude) -> commit -> ack
//! ```
//!
//! * [`broker`] receives deliveries and settles them; the only module that knows AMQP.
//! * [`event`] turns bytes into an event of the contract, or says which rule they break. Pure.
//! * [`batch`] keeps the newest version of each key of a batch. Pure.
//! * [`market`] knows what one booking adds to MarketData. Pure.
//! * [`apply`] is the one transaction of a batch; a `.sql` file per statement.
//! * [`worker`] is the loop: gather deliveries, have a batch applied and committed, then acknowledge it.
//! * [`audit`] recomputes MarketData and compares; [`upkeep`] has a worker do so on a schedule.
//!
//! Around them: [`config`] (the only reader of the environment), [`db`] (connections, faults, schema),
//! [`tls`] (servers that fail a handshake), [`health`], [`http`] and [`telemetry`] (what operators see),
//! [`backoff`], [`stop`], [`world`] (the sample world), [`sandbox`] (private servers for demo, tests and benches)
//! and [`cli`] (the commands).
//!
//! Invariants: one transaction for a batch and the acknowledgement after it; locks are taken in one
//! global order (see [`apply`]); MarketData relations are views over `flights`, `bookings` and
//! `flight_demand`, whose rows are keyed by what a booking names itself, so nothing ever moves
//! between markets; time is an argument in the pure modules.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod apply;
pub mod audit;
pub mod batch;
pub mod broker;
pub mod event;
pub mod market;
pub mod worker;

pub mod backoff;
pub mod cli;
pub mod config;
pub mod db;
pub mod health;
pub mod http;
pub mod sandbox;
pub mod stop;
pub mod telemetry;
pub mod tls;
pub mod upkeep;
pub mod world;
