//! The canonical document of a hydrated topology, and the digests of it and of its parts.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{
    DeckyLimits, HydratedDecky, HydratedInterface, HydratedLan, HydratedTopology, SCHEMA,
    SpecDigest, VersionHash,
};
use crate::canonical::{self, Canonical, object, write_displayed, write_members};
use crate::id::{DeckyId, LanId, TopologyId};
use crate::name::{DeckyName, Hostname, LanName};
use crate::persona::{Mac, Persona};
use crate::seed::Seed;
use crate::service::{OptionValue, ServiceOptions, ServiceSet};
use crate::topology::{LanDriver, LanKind, Protocol, Publish};
use crate::wiring::Route;

impl HydratedTopology {
    /// The canonical document: what `decnet topology export --hydrated` prints, what travels to
    /// the agent, and what is hashed.
    pub fn document(&self) -> String {
        canonical::text(self)
    }

    /// SHA-256 of the canonical document.
    pub fn version_hash(&self) -> VersionHash {
        VersionHash(canonical::digest(|out| self.write_to(out)))
    }
}

impl HydratedLan {
    /// The digest of what can only be changed by making the LAN anew.
    pub fn spec(&self) -> SpecDigest {
        let Self {
            id: _,
            name: _,
            subnet,
            subnet6,
            gateway,
            kind: _,
            driver,
        } = self;
        SpecDigest(canonical::digest(|out| {
            object!(out, driver, gateway, subnet, subnet6)
        }))
    }
}

impl HydratedDecky {
    /// The digest of what can only be changed by making the decky anew: not its services, which
    /// are reloaded, not its interfaces, routes and kernel settings, which are wired while it runs,
    /// not its name, which is a label.
    pub fn spec(&self) -> SpecDigest {
        let Self {
            id: _,
            name: _,
            hostname,
            persona,
            seed,
            forwards_l3: _, // among the sysctls
            services: _,
            interfaces: _,
            routes: _,
            publish,
            sysctls: _,
            limits,
        } = self;
        SpecDigest(canonical::digest(|out| {
            object!(out, hostname, limits, persona, publish, seed)
        }))
    }
}

impl Canonical for HydratedTopology {
    fn write_to(&self, out: &mut impl Write) -> fmt::Result {
        let Self { id, lans, deckies } = self;
        let schema = SCHEMA;
        object!(out, deckies, id, lans, schema)
    }
}

/// Types whose document is all of their fields.
macro_rules! whole {
    ($($type:ident { $($field:ident),* $(,)? })*) => {$(
        impl Canonical for $type {
            fn write_to(&self, out: &mut impl Write) -> fmt::Result {
                let Self { $($field),* } = self;
                object!(out, $($field),*)
            }
        }
    )*};
}

whole! {
    HydratedLan { driver, gateway, id, kind, name, subnet, subnet6 }
    HydratedDecky {
        forwards_l3, hostname, id, interfaces, limits, name, persona, publish, routes, seed,
        services, sysctls,
    }
    HydratedInterface { address, address6, lan, mac }
    DeckyLimits { cpu_milli, memory_mib, pids }
    Publish { decky_port, host_ip, host_port, protocol }
    Route { to, via }
}

/// Types whose document is the word for them.
macro_rules! words {
    ($($type:ident)*) => {$(
        impl Canonical for $type {
            fn write_to(&self, out: &mut impl Write) -> fmt::Result {
                self.as_str().write_to(out)
            }
        }
    )*};
}

words! { DeckyName Hostname LanKind LanName Persona Protocol }

/// Types whose document is what they display.
macro_rules! displayed {
    ($($type:ident)*) => {$(
        impl Canonical for $type {
            fn write_to(&self, out: &mut impl Write) -> fmt::Result {
                write_displayed(self, out)
            }
        }
    )*};
}

displayed! {
    DeckyId LanId TopologyId IpAddr IpNet Ipv4Addr Ipv4Net Ipv6Addr Ipv6Net LanDriver Mac
}

impl Canonical for Seed {
    fn write_to(&self, out: &mut impl Write) -> fmt::Result {
        self.hex().write_to(out)
    }
}

impl Canonical for BTreeMap<String, String> {
    fn write_to(&self, out: &mut impl Write) -> fmt::Result {
        write_members(self.iter().map(|(key, value)| (key.as_str(), value)), out)
    }
}

impl Canonical for ServiceSet {
    fn write_to(&self, out: &mut impl Write) -> fmt::Result {
        write_members(
            self.iter().map(|(kind, options)| (kind.as_str(), options)),
            out,
        )
    }
}

impl Canonical for ServiceOptions {
    fn write_to(&self, out: &mut impl Write) -> fmt::Result {
        write_members(self.iter(), out)
    }
}

impl Canonical for OptionValue {
    fn write_to(&self, out: &mut impl Write) -> fmt::Result {
        match self {
            Self::Text(text) => text.write_to(out),
            Self::Integer(number) => number.write_to(out),
            Self::Boolean(flag) => flag.write_to(out),
        }
    }
}

#[cfg(test)]
mod tests;
