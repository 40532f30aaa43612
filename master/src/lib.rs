//! The master: it owns the database, the status machine and the reconciler.
//!
//! `http` and `rpc` (what is asked) and `reconcile` (what follows from reports) call the use cases
//! `topology`, `enroll`, `fleet` and `pipeline`, which call `db`.

#![cfg_attr(
    test,
    allow(
        clippy::wildcard_enum_match_arm,
        reason = "a test panics on what it does not expect"
    )
)]

pub mod allow;
pub mod bus;
pub mod chain;
pub mod clock;
pub mod config;
pub mod crash;
pub mod db;
pub mod enroll;
pub mod entropy;
pub mod fleet;
pub mod forget;
pub mod http;
pub mod metrics;
pub mod mutate;
pub mod operators;
pub mod pipeline;
pub mod reconcile;
pub mod rpc;
pub mod serve;
pub mod signal;
mod substrate;
pub mod task;
pub mod topology;
mod witness;
