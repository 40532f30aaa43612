//! What is said: every byte that crosses a process boundary, and nothing that acts on it.

pub mod bus;
pub mod catalogue;
pub mod decky_config;
pub mod difference;
#[cfg(test)]
mod fuzz;
pub mod hydrated;
pub mod line;
pub mod settings;
pub mod topology_file;

#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "grpc")]
pub mod codec;
#[cfg(feature = "grpc")]
pub mod convert;
#[cfg(feature = "rest")]
pub mod queued;
#[cfg(feature = "rest")]
pub mod rest;

/// Generated from `decnet/v1/fleet.proto`. Only `convert` and the rpc and link modules of master
/// and agent name these types.
#[cfg(feature = "grpc")]
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    clippy::wildcard_enum_match_arm,
    clippy::cast_possible_truncation,
    clippy::allow_attributes_without_reason,
    reason = "generated code"
)]
pub mod v1 {
    tonic::include_proto!("decnet.v1");
}
