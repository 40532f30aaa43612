//! Links, addresses and routes of one network namespace, asked of the kernel by netlink.
//!
//! A socket belongs for ever to the namespace of the thread that opened it: whoever holds one works
//! in that namespace from any thread. It knows nothing of LANs or deckies.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd as _};
use std::sync::{Mutex, PoisonError};

use domain::persona::Mac;
use ipnet::IpNet;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    InfoBridge, InfoData, InfoIpVlan, InfoKind, InfoMacVlan, InfoVeth, IpVlanMode, LinkAttribute,
    LinkFlags, LinkInfo, LinkMessage, MacVlanMode,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

/// The multicast group of changes to links (`RTMGRP_LINK`).
const LINK_GROUP: u32 = 1;

/// A socket of routing netlink.
pub(super) struct Rtnl {
    inner: Mutex<Inner>,
}

impl fmt::Debug for Rtnl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rtnl").finish_non_exhaustive()
    }
}

struct Inner {
    socket: Socket,
    sequence: u32,
}

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) name: String,
    /// The bridge that it is a port of.
    pub(super) controller: Option<u32>,
    pub(super) mac: Option<Mac>,
}

/// The far end of a new pair, born in another namespace.
pub(super) struct Peer<'a, Fd> {
    pub(super) namespace: Fd,
    pub(super) name: &'a str,
    pub(super) mac: Option<Mac>,
}

/// What shares the link of a parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Child {
    Macvlan,
    Ipvlan,
}

impl Rtnl {
    /// A socket in the namespace of the calling thread.
    pub(super) fn here() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self {
            inner: Mutex::new(Inner {
                socket,
                sequence: 0,
            }),
        })
    }

    /// A socket in the namespace of the calling thread that hears of every change to a link.
    pub(super) fn listener() -> io::Result<Socket> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind(&SocketAddr::new(0, LINK_GROUP))?;
        socket.set_non_blocking(true)?;
        Ok(socket)
    }

    /// Every link.
    pub(super) fn links(&self) -> io::Result<Vec<Link>> {
        let ask = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let answers = self.ask(ask, NLM_F_DUMP)?;
        Ok(answers.into_iter().filter_map(read_link).collect())
    }

    /// The index of a link; none when it is not there.
    pub(super) fn index_of(&self, name: &str) -> io::Result<Option<u32>> {
        let mut message = LinkMessage::default();
        message
            .attributes
            .push(LinkAttribute::IfName(name.to_owned()));
        match self.ask(RouteNetlinkMessage::GetLink(message), NLM_F_ACK) {
            Ok(answers) => Ok(answers
                .into_iter()
                .find_map(read_link)
                .map(|link| link.index)),
            Err(error) if is_gone(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes a bridge, up.
    pub(super) fn add_bridge(&self, name: &str) -> io::Result<()> {
        let mut message = named(name);
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Bridge),
            // Attackers' groups are nobody's business here, and the snooping would ask them.
            LinkInfo::Data(InfoData::Bridge(vec![InfoBridge::MulticastSnooping(false)])),
        ]));
        self.create(message)
    }

    /// Makes a pair: one end here and up, as a port of `bridge` if that is given, and its peer.
    pub(super) fn add_pair(
        &self,
        name: &str,
        bridge: Option<u32>,
        peer: &Peer<'_, impl AsFd>,
    ) -> io::Result<()> {
        // The kernel refuses to bring an end up whose other end is not there yet.
        let mut far = unused(peer.name);
        far.attributes
            .push(LinkAttribute::NetNsFd(peer.namespace.as_fd().as_raw_fd()));
        if let Some(mac) = peer.mac {
            far.attributes
                .push(LinkAttribute::Address(mac.bytes().to_vec()));
        }
        let mut near = named(name);
        if let Some(bridge) = bridge {
            near.attributes.push(LinkAttribute::Controller(bridge));
        }
        near.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(far))),
        ]));
        self.create(near)
    }

    /// Makes a link in another namespace that shares the link `parent` of this one.
    pub(super) fn add_child(
        &self,
        kind: Child,
        parent: u32,
        child: &Peer<'_, impl AsFd>,
    ) -> io::Result<()> {
        let mut message = unused(child.name);
        message.attributes.push(LinkAttribute::Link(parent));
        message
            .attributes
            .push(LinkAttribute::NetNsFd(child.namespace.as_fd().as_raw_fd()));
        // Links of the kind ipvlan have the address of their parent.
        if let (Child::Macvlan, Some(mac)) = (kind, child.mac) {
            message
                .attributes
                .push(LinkAttribute::Address(mac.bytes().to_vec()));
        }
        message.attributes.push(LinkAttribute::LinkInfo(match kind {
            Child::Macvlan => vec![
                LinkInfo::Kind(InfoKind::MacVlan),
                LinkInfo::Data(InfoData::MacVlan(vec![InfoMacVlan::Mode(
                    MacVlanMode::Bridge,
                )])),
            ],
            Child::Ipvlan => vec![
                LinkInfo::Kind(InfoKind::IpVlan),
                LinkInfo::Data(InfoData::IpVlan(vec![InfoIpVlan::Mode(IpVlanMode::L2)])),
            ],
        }));
        self.create(message)
    }

    /// Brings a link up.
    pub(super) fn set_up(&self, index: u32) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        self.ask(RouteNetlinkMessage::SetLink(message), NLM_F_ACK)?;
        Ok(())
    }

    /// Removes a link, and its peer with it. One that is gone is removed.
    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message
            .attributes
            .push(LinkAttribute::IfName(name.to_owned()));
        match self.ask(RouteNetlinkMessage::DelLink(message), NLM_F_ACK) {
            Ok(_) => Ok(()),
            Err(error) if is_gone(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Gives a link an address, which brings the route to its range with it. One that it has is
    /// given.
    pub(super) fn add_address(&self, index: u32, address: IpNet) -> io::Result<()> {
        let mut message = AddressMessage::default();
        message.header.index = index;
        message.header.prefix_len = address.prefix_len();
        message.header.family = match address {
            IpNet::V4(_) => AddressFamily::Inet,
            IpNet::V6(_) => AddressFamily::Inet6,
        };
        message
            .attributes
            .push(AddressAttribute::Address(address.addr()));
        match address {
            IpNet::V4(v4) => {
                message
                    .attributes
                    .push(AddressAttribute::Local(IpAddr::V4(v4.addr())));
                message
                    .attributes
                    .push(AddressAttribute::Broadcast(v4.broadcast()));
            }
            IpNet::V6(_) => {}
        }
        let ask = RouteNetlinkMessage::NewAddress(message);
        match self.ask(ask, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL) {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn create(&self, message: LinkMessage) -> io::Result<()> {
        let ask = RouteNetlinkMessage::NewLink(message);
        self.ask(ask, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL)?;
        Ok(())
    }

    fn ask(
        &self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> io::Result<Vec<RouteNetlinkMessage>> {
        // A panic elsewhere leaves at worst an answer that nobody reads: its number tells it apart.
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.sequence = inner.sequence.wrapping_add(1);
        let sequence = inner.sequence;
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = sequence;
        let mut request = NetlinkMessage::new(header, NetlinkPayload::from(message));
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        inner.socket.send(&bytes, 0)?;
        let mut answers = Vec::new();
        loop {
            let (datagram, _) = inner.socket.recv_from_full()?;
            let mut rest = datagram.as_slice();
            while !rest.is_empty() {
                let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                    .map_err(io::Error::other)?;
                let length = usize::try_from(answer.header.length).map_err(io::Error::other)?;
                // Every message begins at a multiple of four.
                rest = rest
                    .get(length.max(1).next_multiple_of(4)..)
                    .unwrap_or_default();
                if answer.header.sequence_number != sequence {
                    continue;
                }
                match answer.payload {
                    NetlinkPayload::Error(error) if error.code.is_some() => {
                        return Err(error.to_io());
                    }
                    NetlinkPayload::Error(_) | NetlinkPayload::Done(_) => return Ok(answers),
                    NetlinkPayload::InnerMessage(inner) => answers.push(inner),
                    NetlinkPayload::Noop | NetlinkPayload::Overrun(_) => {}
                    _ => {}
                }
            }
        }
    }
}

/// Whether there is no such link.
fn is_gone(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error())
}

fn named(name: &str) -> LinkMessage {
    let mut message = unused(name);
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    message
}

fn unused(name: &str) -> LinkMessage {
    let mut message = LinkMessage::default();
    message
        .attributes
        .push(LinkAttribute::IfName(name.to_owned()));
    message
}

fn read_link(message: RouteNetlinkMessage) -> Option<Link> {
    let RouteNetlinkMessage::NewLink(message) = message else {
        return None;
    };
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        controller: None,
        mac: None,
    };
    for attribute in message.attributes {
        if let LinkAttribute::IfName(name) = attribute {
            link.name = name;
        } else if let LinkAttribute::Controller(index) = attribute {
            link.controller = Some(index).filter(|index| *index != 0);
        } else if let LinkAttribute::Address(bytes) = attribute {
            link.mac = <[u8; 6]>::try_from(bytes.as_slice()).ok().map(Mac::new);
        }
    }
    Some(link)
}
