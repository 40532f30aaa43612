//! Attempts to reach what is not the decky's to reach.

use std::io::{self, Read as _};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _, UdpSocket};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use crate::Outcome;

/// What an attempt that must fail is waited for.
const PATIENCE: Duration = Duration::from_millis(700);
/// The question "what is the address of a.root-servers.net".
const QUESTION: &[u8] =
    b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x0croot-servers\x03net\x00\x00\x01\x00\x01";
const NETLINK: i32 = 16;
const ROUTE: i32 = 0;
const NETFILTER: i32 = 12;
const PACKET: i32 = 17;

fn target(text: &str) -> io::Result<SocketAddr> {
    let mut found = text.to_socket_addrs()?;
    found
        .next()
        .ok_or_else(|| io::Error::other("no such address"))
}

pub(crate) fn tcp(to: &str) -> Outcome {
    TcpStream::connect_timeout(&target(to)?, PATIENCE)?;
    Ok("connected".to_owned())
}

/// Which address a machine says to be asked from: its listener must print the peer on its own.
pub(crate) fn peer(to: &str) -> Outcome {
    let mut stream = TcpStream::connect_timeout(&target(to)?, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut said = String::new();
    stream.read_to_string(&mut said)?;
    Ok(said)
}

/// Passes when the kernel takes it; whether it arrives is for the other side to tell.
pub(crate) fn udp(to: &str) -> Outcome {
    let to = target(to)?;
    let socket = UdpSocket::bind(if to.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" })?;
    socket.set_broadcast(true)?;
    socket.send_to(b"out", to)?;
    Ok("sent".to_owned())
}

pub(crate) fn dns(server: &str) -> Outcome {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.send_to(QUESTION, target(server)?)?;
    let (length, from) = socket.recv_from(&mut [0; 512])?;
    Ok(format!("{length} bytes from {from}"))
}

/// Conversations with as many ports of a machine of the topology as can be begun at once.
pub(crate) fn flood(to: &str) -> Outcome {
    let to = target(to)?;
    let mut sent = 0_u32;
    for port in 10_000..13_000_u16 {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        sent += u32::from(socket.send_to(b"x", (to.ip(), port)).is_ok());
    }
    Ok(sent.to_string())
}

pub(crate) fn ping_socket() -> Outcome {
    Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::ICMPV4))?;
    Ok("opened".to_owned())
}

pub(crate) fn raw_socket() -> Outcome {
    let attempts = [
        (Domain::IPV4, Protocol::ICMPV4),
        (Domain::IPV4, Protocol::from(255)),
        (Domain::IPV6, Protocol::ICMPV6),
    ];
    first_passed(attempts.map(|(domain, protocol)| Socket::new(domain, Type::RAW, Some(protocol))))
}

/// A socket on which an ARP answer with a false address could be sent.
pub(crate) fn arp_spoof() -> Outcome {
    let (domain, arp) = (Domain::from(PACKET), Protocol::from(0x0608));
    first_passed([Type::RAW, Type::DGRAM].map(|kind| Socket::new(domain, kind, Some(arp))))
}

fn first_passed<T>(attempts: impl IntoIterator<Item = io::Result<T>>) -> Outcome {
    let mut refusals = Vec::new();
    for attempt in attempts {
        match attempt {
            Ok(_) => return Ok("opened".to_owned()),
            Err(error) => refusals.push(error.to_string()),
        }
    }
    Err(io::Error::other(refusals.join("; ")))
}

/// The deletion of every table of packet filter rules in the decky's own namespace, in one batch.
pub(crate) fn flush_rules() -> Outcome {
    const BATCH_BEGIN: u16 = 0x10;
    const BATCH_END: u16 = 0x11;
    const DELETE_TABLE: u16 = (10 << 8) | 2;
    let generic = |family: u8, resource: u8| [family, 0, 0, resource];
    let batch = [
        message(BATCH_BEGIN, 1, &generic(0, 10)),
        message(DELETE_TABLE, 5, &generic(0, 0)),
        message(BATCH_END, 1, &generic(0, 10)),
    ];
    netlink(NETFILTER, &batch.concat())
}

/// A route of one's own.
pub(crate) fn add_route() -> Outcome {
    const NEW_ROUTE: u16 = 24;
    // IPv4, 198.51.100.0/24, main table, static, global, unicast, by the loopback interface.
    let mut body = vec![2, 24, 0, 0, 254, 4, 0, 1, 0, 0, 0, 0];
    body.extend([8, 0, 1, 0, 198, 51, 100, 0]);
    body.extend([8, 0, 4, 0, 1, 0, 0, 0]);
    netlink(ROUTE, &message(NEW_ROUTE, 0x405, &body))
}

fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(u32::try_from(body.len() + 16).unwrap_or(16).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend([1, 0, 0, 0, 0, 0, 0, 0]);
    bytes.extend(body);
    bytes
}

fn netlink(family: i32, request: &[u8]) -> Outcome {
    let socket = Socket::new(
        Domain::from(NETLINK),
        Type::RAW,
        Some(Protocol::from(family)),
    )?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.send(request)?;
    let mut buffer = vec![0; 4096];
    let length = (&socket).read(&mut buffer)?;
    let code = buffer.get(16..20).and_then(|code| code.first_chunk());
    match code.map_or(0, |code| i32::from_ne_bytes(*code)) {
        0 => Ok(format!("{length} bytes of consent")),
        code => Err(io::Error::from_raw_os_error(code.saturating_neg())),
    }
}
