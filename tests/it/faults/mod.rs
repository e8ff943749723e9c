//! Faults on purpose: whatever breaks, whenever it breaks, nothing is lost, nothing counts twice, and the
//! worker goes on by itself.
//!
//! Nothing in `src` is there for these tests. Every step in the life of a batch shows on one of the two
//! wires: its deliveries, each statement of its transaction, the commit, the answer to it, the
//! acknowledgement. So a proxy between the worker and its servers halts the worker at any of them, and
//! what is tested is the program as it is shipped: no failpoints that a build might forget to leave out.
//!
//! Every test prints the PAXFLOW_TEST_SEED that chooses the same events and the same moments again.

mod broker;
mod chaos;
mod database;
mod hands;
pub mod harness;
pub mod invariants;
mod process;
pub mod proxy;
mod wire;
