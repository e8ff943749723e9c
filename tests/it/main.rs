//! Tests against real servers, one binary so that they share them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

mod autogenerate;
mod backup;
mod boot;
mod canary;
mod commands;
mod contract;
mod corpus;
mod demo;
mod doctor;
mod events;
mod faults;
mod held;
mod history;
mod kept_back;
mod migrations;
mod model;
mod order;
mod outage;
mod partitions;
mod pgbouncer;
mod planted;
mod pool;
mod prefetch;
mod process;
mod publish;
mod quarantine;
mod races;
mod raw;
mod rebuild;
mod relations;
mod restore;
mod rights;
mod roles;
mod running;
mod sandbox;
mod self_audit;
mod support;
mod telemetry;
mod tidy;
mod tls;
mod unreadable;
mod worker;
