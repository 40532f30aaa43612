//! The harness of the end-to-end tests: a world of real processes on a real Docker daemon, with
//! clients that nobody here wrote.
//!
//! A [`world::World`] owns temporary data directories, a slot of subnets and ports that no other
//! test uses, and everything that it starts; dropping it, also in a panic, ends the processes by
//! their ids and removes the Docker objects by their host labels.
#![allow(
    clippy::disallowed_methods,
    reason = "tests start programs, read the environment and wait by polling; daemons do not"
)]

pub mod api;
pub mod bench;
pub mod cli;
pub mod converse;
pub mod docker;
pub mod engine;
pub mod load;
pub mod native;
pub mod netns;
pub mod patience;
pub mod postgres;
pub mod prober;
pub mod process;
pub mod scripted;
pub mod shapes;
pub mod sim;
pub mod slot;
pub mod wire;
pub mod wiretap;
pub mod world;
