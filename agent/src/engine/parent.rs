//! LANs on a real network: what the host must have for one, said before anything is made.

use std::io;
use std::path::Path;

use crate::netns;

/// The host's interfaces.
const INTERFACES: &str = "/sys/class/net";

/// Why a LAN on a real network cannot be made.
#[derive(Debug, thiserror::Error)]
pub(super) enum Impossible {
    /// Its interface is not there.
    #[error("this host has no interface {parent}")]
    NoParent { parent: String },
    /// The kernel cannot make such links.
    #[error(
        "this host's kernel has no {driver} driver: load it (modprobe {driver}) or take another one"
    )]
    NoDriver { driver: &'static str },
    /// The kernel does not say.
    #[error("could not ask the kernel for its {driver} driver")]
    Unknown {
        driver: &'static str,
        #[source]
        source: io::Error,
    },
}

/// Whether a LAN of this driver can be made on this interface of the host.
pub(super) fn possible(driver: &'static str, parent: &str) -> Result<(), Impossible> {
    // A name of an interface has no slash: the domain has seen to it.
    if !Path::new(INTERFACES).join(parent).exists() {
        let parent = parent.to_owned();
        return Err(Impossible::NoParent { parent });
    }
    match netns::has_driver(driver) {
        Ok(true) => Ok(()),
        Ok(false) => Err(Impossible::NoDriver { driver }),
        Err(source) => Err(Impossible::Unknown { driver, source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_host_lacks_is_named() {
        let refusal = possible("macvlan", "decnet-nowhere").expect_err("there is none");
        assert_eq!(
            refusal.to_string(),
            "this host has no interface decnet-nowhere"
        );
        let refusal = possible("decnet-nonesuch", "lo").expect_err("there is none");
        assert!(matches!(refusal, Impossible::NoDriver { .. }), "{refusal}");
        assert!(
            refusal.to_string().contains("modprobe decnet-nonesuch"),
            "{refusal}"
        );
    }
}
