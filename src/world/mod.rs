//! A made-up world of flights and bookings, as the events its airlines would publish.
//!
//! Flights, fares and airports are real public data (`fixtures/world/README.md`); passengers and
//! bookings are invented. Everything is a function of its arguments: one seeded generator,
//! integer arithmetic, no hash-ordered collection, so the same arguments give the same bytes on
//! every machine.
//!
//! - [`generate`]: a stream of any length, for load.
//! - [`write_sample`]: the sample world, small and full of cases, for the demo and for development.

mod bad;
mod bookings;
mod data;
mod dice;
mod encode;
mod fares;
mod flights;
mod markets;
mod people;
mod sample;
mod stream;
#[cfg(test)]
mod tests;

pub use sample::write_sample;
pub use stream::{Arguments, generate};
