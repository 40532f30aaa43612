//! The decky's real interfaces, as far as an unprivileged process may read them.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

/// One interface with its IPv4 address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Interface {
    pub(crate) name: String,
    pub(crate) address: Ipv4Addr,
    pub(crate) prefix: u32,
    pub(crate) mac: String,
}

/// What is known of the network of the decky.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Network {
    pub(crate) interfaces: Vec<Interface>,
    pub(crate) gateway: Option<Ipv4Addr>,
}

impl Network {
    /// Reads it; `seen` is an address that the decky certainly has.
    pub(crate) fn read(seen: IpAddr) -> Self {
        let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let locals = locals(&text("/proc/net/fib_trie"));
        let mut network = Self::default();
        for route in text("/proc/net/route")
            .lines()
            .skip(1)
            .filter_map(parse_route)
        {
            if route.mask == 0 {
                network.gateway = Some(route.gateway);
            } else if route.gateway.is_unspecified()
                && let Some(address) = locals
                    .iter()
                    .find(|local| u32::from(**local) & route.mask == u32::from(route.network))
            {
                network.add(&route.name, *address, route.mask.leading_ones());
            }
        }
        if network.interfaces.is_empty()
            && let IpAddr::V4(address) = seen.to_canonical()
            && !address.is_loopback()
        {
            network.add("eth0", address, 24);
        }
        network
    }

    fn add(&mut self, name: &str, address: Ipv4Addr, prefix: u32) {
        let path = Path::new("/sys/class/net").join(name).join("address");
        let mac = std::fs::read_to_string(path)
            .unwrap_or_default()
            .trim()
            .to_owned();
        let mac = if mac.len() == 17 {
            mac
        } else {
            "52:54:00:12:34:56".to_owned()
        };
        if self
            .interfaces
            .iter()
            .all(|interface| interface.address != address)
        {
            self.interfaces.push(Interface {
                name: name.to_owned(),
                address,
                prefix,
                mac,
            });
        }
    }
}

struct Route {
    name: String,
    network: Ipv4Addr,
    gateway: Ipv4Addr,
    mask: u32,
}

/// A line of `/proc/net/route`: numbers are in the machine's byte order.
fn parse_route(line: &str) -> Option<Route> {
    let mut fields = line.split_whitespace();
    let name = fields.next()?.to_owned();
    let mut number = |skip: usize| -> Option<u32> {
        u32::from_str_radix(fields.nth(skip)?, 16)
            .ok()
            .map(|raw| u32::from_be_bytes(raw.to_ne_bytes()))
    };
    let network = Ipv4Addr::from(number(0)?);
    let gateway = Ipv4Addr::from(number(0)?);
    let mask = number(4)?;
    Some(Route {
        name,
        network,
        gateway,
        mask,
    })
}

/// The machine's own addresses in `/proc/net/fib_trie`.
fn locals(text: &str) -> Vec<Ipv4Addr> {
    let mut found = Vec::new();
    let mut last = None;
    for line in text.lines() {
        if let Some(address) = line.trim().strip_prefix("|-- ") {
            last = address.parse::<Ipv4Addr>().ok();
        } else if line.contains("/32 host LOCAL")
            && let Some(address) = last
            && !address.is_loopback()
            && !found.contains(&address)
        {
            found.push(address);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_kernels_tables() {
        let trie = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n           |-- 10.1.2.3\n              /32 host LOCAL\n           |-- 127.0.0.1\n              /32 host LOCAL\n";
        assert_eq!(locals(trie), [Ipv4Addr::new(10, 1, 2, 3)]);
        let route = parse_route("eth0\t0002010A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0")
            .expect("well formed");
        assert_eq!(route.network, Ipv4Addr::new(10, 1, 2, 0));
        assert_eq!(route.mask.leading_ones(), 24);
        assert_eq!(route.name, "eth0");
    }
}
