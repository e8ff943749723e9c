//! paxflow: booking and flight events in, exact MarketData out.

pub mod event;
pub mod sandbox;
pub mod world;
