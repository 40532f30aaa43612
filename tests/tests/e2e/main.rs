//! The end-to-end tests: real processes, real Docker, real clients. One module a promise.
#![allow(
    clippy::disallowed_methods,
    reason = "tests start programs, read the environment and wait by polling; daemons do not"
)]

mod access;
mod arch;
mod bad_input;
mod bus;
mod clients;
mod contain;
mod crash;
mod decky;
mod demo;
mod deploy;
mod drift;
mod evidence;
mod failure;
mod fence;
mod join;
mod live;
mod native;
mod openapi;
mod operator;
mod postgres;
mod restart;
mod revoke;
mod tour;
mod up;
mod walk;
