//! Links, addresses, routes and kernel settings of the namespace that a thread has entered.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use domain::persona::Mac;
use domain::wiring::Wiring;
use ipnet::IpNet;
use netlink_packet_core::{
    NLM_F_CREATE, NLM_F_REPLACE, NetlinkDeserializable as _, NetlinkHeader,
    NetlinkSerializable as _,
};
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope,
};
use netlink_packet_route::link::{
    InfoKind, LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use nix::errno::Errno;

use super::netlink::Netlink;
use super::tables::{Refused, Tables};

/// The kernel's settings of the namespace of whoever looks.
const SYSCTLS: &str = "/proc/sys";

/// The namespace in which the calling thread is.
pub struct Inside {
    route: Netlink,
    tables: Option<Tables>,
}

/// An interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its number, by which the kernel is spoken to.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its hardware address, if it has one of six bytes.
    pub mac: Option<Mac>,
    /// Whether it is in use.
    pub up: bool,
    /// Whether it is the loopback interface.
    pub loopback: bool,
}

/// An address of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// The interface's number.
    pub index: u32,
    /// The address with its prefix length.
    pub net: IpNet,
}

/// A unicast route of the main table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteEntry {
    /// Where to.
    pub to: IpNet,
    /// The next hop, if there is one.
    pub via: Option<IpAddr>,
    /// Whether the kernel made it of an address.
    pub of_address: bool,
    message: RouteMessage,
}

impl Inside {
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self {
            route: Netlink::open(NETLINK_ROUTE)?.strictly()?,
            tables: None,
        })
    }

    /// Every interface.
    pub fn links(&mut self) -> io::Result<Vec<Link>> {
        let mut request = LinkMessage::default();
        // Counters of each interface would be most of the answer.
        request.attributes = vec![LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats])];
        let found = self.dump(RouteNetlinkMessage::GetLink(request))?;
        let read = |message| {
            if let RouteNetlinkMessage::NewLink(link) = message {
                Some(read_link(&link))
            } else {
                None
            }
        };
        Ok(found.into_iter().filter_map(read).collect())
    }

    /// Every address of every interface.
    pub fn addresses(&mut self) -> io::Result<Vec<Address>> {
        let request = AddressMessage::default();
        let found = self.dump(RouteNetlinkMessage::GetAddress(request))?;
        let read = |message| {
            if let RouteNetlinkMessage::NewAddress(address) = message {
                read_address(&address)
            } else {
                None
            }
        };
        Ok(found.into_iter().filter_map(read).collect())
    }

    /// The unicast routes of the main table, of both families.
    pub fn routes(&mut self) -> io::Result<Vec<RouteEntry>> {
        let mut routes = Vec::new();
        for anywhere in [
            IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        ] {
            let mut request = RouteMessage::default();
            request.header.address_family = family(anywhere);
            request.attributes = vec![RouteAttribute::Table(RouteHeader::RT_TABLE_MAIN.into())];
            let found = match self.dump(RouteNetlinkMessage::GetRoute(request)) {
                // A table in which nothing was written yet is not there.
                Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
                other => other?,
            };
            routes.extend(found.into_iter().filter_map(|message| {
                if let RouteNetlinkMessage::NewRoute(route) = message {
                    read_route(route, anywhere)
                } else {
                    None
                }
            }));
        }
        Ok(routes)
    }

    /// Gives an interface another hardware address.
    pub fn set_mac(&mut self, index: u32, mac: Mac) -> io::Result<()> {
        let mut request = LinkMessage::default();
        request.header.index = index;
        request.attributes = vec![LinkAttribute::Address(mac.bytes().to_vec())];
        self.request(RouteNetlinkMessage::SetLink(request), 0)
    }

    /// Takes an interface into use.
    pub fn set_up(&mut self, index: u32) -> io::Result<()> {
        let mut request = LinkMessage::default();
        request.header.index = index;
        request.header.flags = LinkFlags::Up;
        request.header.change_mask = LinkFlags::Up;
        self.request(RouteNetlinkMessage::SetLink(request), 0)
    }

    /// Gives an interface an address. One that it has stays.
    pub fn add_address(&mut self, index: u32, net: IpNet) -> io::Result<()> {
        let request = address_message(index, net);
        self.request(
            RouteNetlinkMessage::NewAddress(request),
            NLM_F_CREATE | NLM_F_REPLACE,
        )
    }

    /// Takes an address from an interface. One that it has not is taken.
    pub fn remove_address(&mut self, index: u32, net: IpNet) -> io::Result<()> {
        let request = address_message(index, net);
        match self.request(RouteNetlinkMessage::DelAddress(request), 0) {
            // With the first address of a subnet the kernel removes the others.
            Err(error) if error.raw_os_error() == Some(Errno::EADDRNOTAVAIL as i32) => Ok(()),
            other => other,
        }
    }

    /// Adds a route, in place of another one to the same destination.
    pub fn replace_route(&mut self, to: IpNet, via: IpAddr) -> io::Result<()> {
        let mut request = RouteMessage::default();
        request.header.address_family = family(to.addr());
        request.header.destination_prefix_length = to.prefix_len();
        request.header.table = RouteHeader::RT_TABLE_MAIN;
        request.header.protocol = RouteProtocol::Static;
        request.header.scope = RouteScope::Universe;
        request.header.kind = RouteType::Unicast;
        request.attributes = vec![
            RouteAttribute::Destination(to.network().into()),
            RouteAttribute::Gateway(via.into()),
        ];
        self.request(
            RouteNetlinkMessage::NewRoute(request),
            NLM_F_CREATE | NLM_F_REPLACE,
        )
    }

    /// Removes a route that [`Inside::routes`] has shown. One that is gone is removed.
    pub fn remove_route(&mut self, route: &RouteEntry) -> io::Result<()> {
        match self.request(RouteNetlinkMessage::DelRoute(route.message.clone()), 0) {
            // It went with another one or with an address.
            Err(error) if error.raw_os_error() == Some(Errno::ESRCH as i32) => Ok(()),
            other => other,
        }
    }

    /// A kernel setting of this namespace, such as `net.ipv4.ip_forward`; blanks are single spaces.
    pub fn sysctl(&self, key: &str) -> io::Result<String> {
        let text = fs::read_to_string(sysctl_path(key)?)?;
        Ok(text.split_whitespace().collect::<Vec<_>>().join(" "))
    }

    /// Changes a kernel setting of this namespace.
    pub fn set_sysctl(&mut self, key: &str, value: &str) -> io::Result<()> {
        fs::write(sysctl_path(key)?, value)
    }

    /// Changes a kernel setting of this namespace unless it is so already: some settings do more
    /// than their name says when they are written.
    pub fn ensure_sysctl(&mut self, key: &str, value: &str) -> io::Result<()> {
        if self.sysctl(key)? == value {
            return Ok(());
        }
        self.set_sysctl(key, value)
    }

    /// Makes our table be what `wiring` asks for, in one step, with counters that go on.
    pub fn load_rules(&mut self, wiring: &Wiring) -> io::Result<()> {
        self.tables()?.replace(wiring)
    }

    /// SHA-256 of all that our table is made of, as the kernel has it.
    pub fn fingerprint(&mut self) -> io::Result<[u8; 32]> {
        self.tables()?.fingerprint()
    }

    /// Counts the changes of all rules in the namespace, by whomever.
    pub fn ruleset_generation(&mut self) -> io::Result<u32> {
        self.tables()?.generation()
    }

    /// Whether our table is there.
    pub fn has_rules(&mut self) -> io::Result<bool> {
        self.tables()?.stands()
    }

    /// What our table has held back; nothing when it is not there.
    pub fn refused(&mut self) -> io::Result<Refused> {
        self.tables()?.refused()
    }

    /// Asks for an interface on nothing: the kernel looks for the kind before it looks for more.
    pub(super) fn has_driver(&mut self, kind: &str) -> io::Result<bool> {
        let mut request = LinkMessage::default();
        let kind = LinkInfo::Kind(InfoKind::Other(kind.to_owned()));
        request.attributes = vec![LinkAttribute::LinkInfo(vec![kind])];
        match self.request(RouteNetlinkMessage::NewLink(request), NLM_F_CREATE) {
            Err(error) if error.raw_os_error() == Some(Errno::EOPNOTSUPP as i32) => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(error),
            Ok(()) | Err(_) => Ok(true),
        }
    }

    /// Sends a request of the family of links, addresses and routes that changes something.
    pub fn request(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        let (kind, body) = written(&message);
        self.route.ask(kind, flags, &body, |_, _| Ok(()))
    }

    fn dump(&mut self, message: RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
        let (kind, body) = written(&message);
        self.route.dump(kind, &body, |kind, body| {
            let mut header = NetlinkHeader::default();
            header.message_type = kind;
            RouteNetlinkMessage::deserialize(&header, body)
                .map(Some)
                .map_err(io::Error::other)
        })
    }

    fn tables(&mut self) -> io::Result<&mut Tables> {
        if self.tables.is_none() {
            self.tables = Some(Tables::open()?);
        }
        Ok(self
            .tables
            .as_mut()
            .expect("it was opened in this function"))
    }
}

fn written(message: &RouteNetlinkMessage) -> (u16, Vec<u8>) {
    let mut body = vec![0; message.buffer_len()];
    message.serialize(&mut body);
    (message.message_type(), body)
}

fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

fn read_link(message: &LinkMessage) -> Link {
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        mac: None,
        up: message.header.flags.contains(LinkFlags::Up),
        loopback: message.header.flags.contains(LinkFlags::Loopback),
    };
    for attribute in &message.attributes {
        if let LinkAttribute::IfName(name) = attribute {
            link.name.clone_from(name);
        } else if let LinkAttribute::Address(bytes) = attribute {
            link.mac = <[u8; 6]>::try_from(&bytes[..]).ok().map(Mac::new);
        }
    }
    link
}

fn read_address(message: &AddressMessage) -> Option<Address> {
    let mut found = None;
    for attribute in &message.attributes {
        if let AddressAttribute::Local(address) = attribute {
            // On a link between two ends the other attribute is the far one.
            found = Some(*address);
            break;
        } else if let AddressAttribute::Address(address) = attribute {
            found = Some(*address);
        }
    }
    Some(Address {
        index: message.header.index,
        net: IpNet::new(found?, message.header.prefix_len).ok()?,
    })
}

/// `anywhere` is the destination of a route that names none, and tells the family.
fn read_route(message: RouteMessage, anywhere: IpAddr) -> Option<RouteEntry> {
    let header = &message.header;
    if header.address_family != family(anywhere)
        || header.table != RouteHeader::RT_TABLE_MAIN
        || header.kind != RouteType::Unicast
    {
        return None;
    }
    let (mut to, mut via) = (anywhere, None);
    for attribute in &message.attributes {
        if let RouteAttribute::Destination(address) = attribute {
            to = ip(address)?;
        } else if let RouteAttribute::Gateway(address) = attribute {
            via = ip(address);
        }
    }
    Some(RouteEntry {
        to: IpNet::new(to, header.destination_prefix_length).ok()?,
        via,
        of_address: header.protocol == RouteProtocol::Kernel,
        message,
    })
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    if let RouteAddress::Inet(address) = address {
        Some((*address).into())
    } else if let RouteAddress::Inet6(address) = address {
        Some((*address).into())
    } else {
        None
    }
}

fn address_message(index: u32, net: IpNet) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(net.addr());
    message.header.prefix_len = net.prefix_len();
    message.header.scope = AddressScope::Universe;
    message.header.index = index;
    message.attributes = vec![AddressAttribute::Address(net.addr())];
    match net {
        IpNet::V4(net) => {
            message
                .attributes
                .push(AddressAttribute::Local(net.addr().into()));
            if net.prefix_len() < 31 {
                let broadcast: Ipv4Addr = net.broadcast();
                message
                    .attributes
                    .push(AddressAttribute::Broadcast(broadcast));
            }
        }
        IpNet::V6(_) => {
            // Nobody else has it: asking around first would keep it unusable for a second.
            message.header.flags = AddressHeaderFlags::Nodad;
            message
                .attributes
                .push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
    }
    message
}

/// Where a setting is. Names come from a document that was received: none leads elsewhere.
fn sysctl_path(key: &str) -> io::Result<PathBuf> {
    let plain = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
    };
    if !key.starts_with("net.") || !key.split('.').all(plain) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "no kernel setting of a network has such a name",
        ));
    }
    Ok([SYSCTLS].into_iter().chain(key.split('.')).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_one_of_the_network_or_none() {
        let path = sysctl_path("net.ipv4.conf.eth0.arp_notify").expect("it is one");
        assert_eq!(
            path.to_string_lossy(),
            "/proc/sys/net/ipv4/conf/eth0/arp_notify"
        );
        for key in [
            "kernel.hostname",
            "net",
            "net.",
            "net..x",
            "net.a/../../b",
            "net.ipv4.a b",
        ] {
            let error = sysctl_path(key).expect_err(key);
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{key}");
        }
    }
}
