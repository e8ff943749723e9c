//! paxflow

pub mod world;
