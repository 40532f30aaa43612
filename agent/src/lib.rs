//! The agent: it obeys. It applies what the master assigns exactly, or refuses with a named
//! reason; it decides nothing, listens on nothing, and touches no engine object at boot.

pub mod apply;
pub mod chain;
pub mod collect;
pub mod config;
pub mod crash;
pub mod datadir;
pub mod engine;
pub mod fence;
pub mod guard;
pub mod health;
pub mod identity;
pub mod join;
pub mod leave;
pub mod link;
pub mod measure;
pub mod netns;
pub mod notice;
pub mod report;
pub mod run;
pub mod spool;
pub mod status;
pub mod store;
pub mod task;
