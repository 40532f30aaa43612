//! The agent: it obeys. It applies what the master assigns exactly, or refuses with a named
//! reason; it decides nothing, listens on nothing, and touches no engine object at boot.

pub mod chain;
pub mod crash;
pub mod engine;
pub mod task;
