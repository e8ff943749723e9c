//! Tests against real servers, one binary so that they share them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

mod boot;
mod commands;
mod contract;
mod demo;
mod events;
mod faults;
mod history;
mod migrations;
mod model;
mod order;
mod outage;
mod pool;
mod process;
mod races;
mod relations;
mod support;
mod tidy;
mod worker;
