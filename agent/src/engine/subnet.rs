//! The subnets that this host's own routes lead to, as the kernel lists them.

use std::fs;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

/// The kernel's own table of routes.
const ROUTES: &str = "/proc/net/route";

/// The subnets of the host's routes and their devices, default routes left out. A host without such
/// a table has no routes that could be told from it.
pub(super) fn of_routes() -> Vec<(String, Ipv4Net)> {
    routes(&fs::read_to_string(ROUTES).unwrap_or_default())
}

/// The subnets of `/proc/net/route` and their devices.
fn routes(table: &str) -> Vec<(String, Ipv4Net)> {
    let parse = |line: &str| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let (device, destination, mask) = (fields.first()?, fields.get(1)?, fields.get(7)?);
        // The kernel prints the bytes in the order of memory.
        let address = |hex: &str| {
            u32::from_str_radix(hex, 16)
                .ok()
                .map(|bits| Ipv4Addr::from(bits.to_ne_bytes()))
        };
        let subnet = Ipv4Net::with_netmask(address(destination)?, address(mask)?).ok()?;
        (subnet.prefix_len() > 0).then(|| ((*device).to_owned(), subnet.trunc()))
    };
    table.lines().skip(1).filter_map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_endian = "little")]
    #[test]
    fn reads_the_kernels_routes() {
        let table = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\n\
                     eth0\t00000000\t0100A8C0\t0003\t0\t0\t0\t00000000\t0\n\
                     docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\n\
                     broken line\n";
        let subnet = "172.17.0.0/16".parse().expect("it is one");
        assert_eq!(routes(table), [("docker0".to_owned(), subnet)]);
    }
}
