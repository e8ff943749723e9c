//! paxflow

pub mod event;
