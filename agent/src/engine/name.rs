//! Names of engine objects. They are for people: an object is ours by its labels, never by name.

use domain::id::{DeckyId, HostId, LanId};

/// How many names are tried when others have taken the first ones.
pub(crate) const ATTEMPTS: u32 = 9;

/// What the names of a host's objects begin with.
pub fn prefix(host: HostId) -> String {
    format!("decnet-{}-", host.short())
}

/// The `attempt`-th name of a LAN's network, counted from 1.
///
/// The hops from the DMZ come first because Docker before 28 gives the default route, and with it
/// the published ports, to the network whose name sorts first.
pub fn lan(host: HostId, depth: u32, lan: LanId, attempt: u32) -> String {
    numbered(
        format!("{}{:02}-{}", prefix(host), depth.min(99), lan.short()),
        attempt,
    )
}

/// The `attempt`-th name of a decky's container, counted from 1.
pub fn decky(host: HostId, decky: DeckyId, attempt: u32) -> String {
    numbered(format!("{}{}", prefix(host), decky.short()), attempt)
}

/// The name of a LAN's bridge: Linux allows 15 bytes.
pub fn bridge(lan: LanId) -> String {
    format!("dn{}", lan.short())
}

fn numbered(name: String, attempt: u32) -> String {
    if attempt <= 1 {
        name
    } else {
        format!("{name}-{attempt}")
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_bridge_name_fits_into_linux() {
        assert!(bridge(LanId::new(Uuid::max())).len() <= 15);
    }

    #[test]
    fn the_network_nearest_the_dmz_sorts_first() {
        let host = HostId::new(Uuid::nil());
        let (low, high) = (LanId::new(Uuid::nil()), LanId::new(Uuid::max()));
        assert!(lan(host, 0, high, 1) < lan(host, 1, low, 1));
        assert!(lan(host, 2, high, 1) < lan(host, 10, low, 1));
        assert!(lan(host, u32::MAX, high, 1).ends_with("99-ffffffffffff"));
    }

    #[test]
    fn a_second_attempt_is_another_name() {
        let (host, id) = (HostId::new(Uuid::nil()), DeckyId::new(Uuid::max()));
        assert_eq!(decky(host, id, 1), "decnet-000000000000-ffffffffffff");
        assert_eq!(decky(host, id, 2), "decnet-000000000000-ffffffffffff-2");
    }
}
