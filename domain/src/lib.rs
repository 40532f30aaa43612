//! What is true: the facts and decisions of DECNET, as values and pure functions.
//!
//! Nothing here performs I/O, reads a clock, draws randomness or knows a wire format: time and
//! random bytes are parameters, and the master and the agent run the very same code.

pub mod archetype;
pub mod assign;
mod canonical;
pub mod decide;
pub mod decky_mutation;
pub mod event;
pub mod host;
pub mod id;
pub mod interval;
pub mod name;
pub mod observe;
pub mod persona;
pub mod plan;
pub mod revision;
pub mod role;
pub mod seed;
pub mod service;
#[cfg(test)]
mod testkit;
pub mod topology;
pub mod usage;
pub mod wiring;
