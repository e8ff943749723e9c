//! Tests against real servers, one binary so that they share them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

mod backup;
mod boot;
mod commands;
mod contract;
mod demo;
mod events;
mod history;
mod migrations;
mod model;
mod order;
mod outage;
mod pgbouncer;
mod pool;
mod process;
mod proxy;
mod races;
mod relations;
mod restore;
mod roles;
mod support;
mod tidy;
mod worker;
