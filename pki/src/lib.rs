//! WHO IS SPEAKING: the certificate authority, identities, join tokens and the TLS on both ends of
//! the line between agents and the master.
//!
//! Roles are separated twice, by extended key usage **and** by one URI in the certificate:
//! `decnet://host/<uuid>` may only be a client, `decnet://master` may only be a server. What a
//! host may do is not decided here but by the [`acceptor::AllowList`] that the master gives.
//!
//! Time is a parameter of everything that issues or reads; only the TLS verifiers and the acceptor
//! read a clock, and that one is passed in too ([`clock::Clock`]).

pub mod acceptor;
pub mod bundle;
pub mod ca;
pub mod clock;
pub mod connector;
pub mod csr;
pub mod file;
pub mod fingerprint;
pub mod identity;
pub mod token;

mod pem;
#[cfg(test)]
mod testkit;

/// Makes ring the process's TLS provider, for the crates (reqwest) that look for a default one.
/// Calling it twice is harmless; the code in this crate names its provider and needs no default.
pub fn install_crypto_provider() {
    // Err means that a default stands already, which is what was asked for.
    drop(rustls::crypto::ring::default_provider().install_default());
}
