//! paxflow
