//! Requests to the kernel over one netlink socket, and its answers, as bytes.
//!
//! The kernel answers a request before the call that sends it returns, so the socket never waits: an
//! answer that is not there is an error, not a thread that hangs.

use std::io;

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST};
use netlink_sys::{Socket, SocketAddr};

/// Length of a message's header (RFC 3549, section 2.3.2).
const HEADER: usize = 16;
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// The state changed while it was being told: the telling is not of one moment.
const INTERRUPTED: u16 = 0x10;
/// How often a dump is begun anew when the state changes under it.
const ATTEMPTS: u32 = 8;
/// More than the kernel puts into one datagram.
const BUFFER: usize = 64 * 1024;

/// A socket that belongs to the namespace in which it was opened.
pub(super) struct Netlink {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Netlink {
    pub(super) fn open(protocol: isize) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        socket.set_non_blocking(true)?;
        Ok(Self {
            socket,
            sequence: 0,
            buffer: Vec::with_capacity(BUFFER),
        })
    }

    /// Only what is asked for is told, instead of everything of that kind.
    pub(super) fn strictly(self) -> io::Result<Self> {
        self.socket.set_netlink_get_strict_chk(true)?;
        Ok(self)
    }

    /// Asks for one thing or changes one; `each` gets the type and the body of what is answered.
    pub(super) fn ask(
        &mut self,
        kind: u16,
        flags: u16,
        body: &[u8],
        each: impl FnMut(u16, &[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        self.exchange(kind, flags | NLM_F_ACK, body, each)
    }

    /// Asks for all there is of a kind.
    pub(super) fn dump<T>(
        &mut self,
        kind: u16,
        body: &[u8],
        mut read: impl FnMut(u16, &[u8]) -> io::Result<Option<T>>,
    ) -> io::Result<Vec<T>> {
        for _ in 0..ATTEMPTS {
            let mut found = Vec::new();
            let told = self.exchange(kind, NLM_F_DUMP, body, |kind, body| {
                found.extend(read(kind, body)?);
                Ok(())
            });
            match told {
                Ok(()) => return Ok(found),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::new(
            io::ErrorKind::ResourceBusy,
            "it changes faster than it can be read",
        ))
    }

    /// Sends messages that count together or not at all, such as those between two brackets of the
    /// packet filter. The first complaint is the answer.
    pub(super) fn transact(&mut self, messages: &[Message]) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut request = Vec::new();
        // Without a complaint the kernel says nothing but what it is asked for.
        let asks = messages.len().saturating_sub(2);
        for (number, message) in messages.iter().enumerate() {
            let ack = if number == asks { NLM_F_ACK } else { 0 };
            let flags = message.flags | NLM_F_REQUEST | ack;
            write(
                &mut request,
                message.kind,
                flags,
                self.sequence,
                &message.body,
            )?;
        }
        self.socket.send(&request, 0)?;
        let mut answered = false;
        let mut complaint = None;
        loop {
            self.buffer.clear();
            match self.socket.recv(&mut self.buffer, 0) {
                // That was all.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
                Ok(_) => {}
            }
            let mut rest = &self.buffer[..];
            while !rest.is_empty() {
                let (message, after) = split(rest)?;
                rest = after;
                if message.sequence != self.sequence || message.kind != ERROR {
                    continue;
                }
                answered = true;
                if message.code() != 0 {
                    complaint.get_or_insert(message.code());
                }
            }
        }
        match complaint {
            Some(code) => Err(io::Error::from_raw_os_error(code.saturating_neg())),
            None if answered => Ok(()),
            None => Err(io::Error::other("the kernel did not answer")),
        }
    }

    fn exchange(
        &mut self,
        kind: u16,
        flags: u16,
        body: &[u8],
        mut each: impl FnMut(u16, &[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut request = Vec::new();
        write(
            &mut request,
            kind,
            flags | NLM_F_REQUEST,
            self.sequence,
            body,
        )?;
        self.socket.send(&request, 0)?;
        let mut interrupted = false;
        loop {
            self.buffer.clear();
            self.socket.recv(&mut self.buffer, 0)?;
            let mut rest = &self.buffer[..];
            while !rest.is_empty() {
                let (message, after) = split(rest)?;
                rest = after;
                // What is left of a dump that was given up.
                if message.sequence != self.sequence {
                    continue;
                }
                interrupted |= message.flags & INTERRUPTED != 0;
                match message.kind {
                    ERROR | DONE => {
                        return match message.code() {
                            0 if interrupted => Err(io::ErrorKind::Interrupted.into()),
                            0 => Ok(()),
                            code => Err(io::Error::from_raw_os_error(code.saturating_neg())),
                        };
                    }
                    kind => each(kind, message.body)?,
                }
            }
        }
    }
}

/// A message to be sent.
pub(super) struct Message {
    pub(super) kind: u16,
    pub(super) flags: u16,
    pub(super) body: Vec<u8>,
}

/// Appends a message (RFC 3549, section 2.3.2) to a request.
fn write(
    request: &mut Vec<u8>,
    kind: u16,
    flags: u16,
    sequence: u32,
    body: &[u8],
) -> io::Result<()> {
    let length = u32::try_from(HEADER.saturating_add(body.len())).map_err(io::Error::other)?;
    request.extend(length.to_ne_bytes());
    request.extend(kind.to_ne_bytes());
    request.extend(flags.to_ne_bytes());
    request.extend(sequence.to_ne_bytes());
    request.extend(0_u32.to_ne_bytes());
    request.extend(body);
    request.resize(request.len().next_multiple_of(4), 0);
    Ok(())
}

/// A message that was received.
struct Received<'a> {
    kind: u16,
    flags: u16,
    sequence: u32,
    body: &'a [u8],
}

impl Received<'_> {
    /// The code that the last message of an answer begins with: 0, or a negative error number.
    fn code(&self) -> i32 {
        self.body
            .first_chunk()
            .map_or(0, |code| i32::from_ne_bytes(*code))
    }
}

/// The first message of a datagram, and what comes after it.
fn split(bytes: &[u8]) -> io::Result<(Received<'_>, &[u8])> {
    let broken = || io::Error::new(io::ErrorKind::InvalidData, "a broken answer of the kernel");
    let header: &[u8; HEADER] = bytes.first_chunk().ok_or_else(broken)?;
    let [l0, l1, l2, l3, k0, k1, f0, f1, s0, s1, s2, s3, ..] = *header;
    let length = usize::try_from(u32::from_ne_bytes([l0, l1, l2, l3])).map_err(io::Error::other)?;
    let body = bytes.get(HEADER..length).ok_or_else(broken)?;
    // Each message begins at a multiple of four bytes.
    let next = length.next_multiple_of(4).min(bytes.len());
    let message = Received {
        kind: u16::from_ne_bytes([k0, k1]),
        flags: u16::from_ne_bytes([f0, f1]),
        sequence: u32::from_ne_bytes([s0, s1, s2, s3]),
        body,
    };
    Ok((message, bytes.get(next..).unwrap_or_default()))
}

/// Appends an attribute (RFC 3549, section 2.3.3).
pub(super) fn attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) -> io::Result<()> {
    let length = u16::try_from(value.len().saturating_add(4)).map_err(io::Error::other)?;
    body.extend(length.to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
    body.resize(body.len().next_multiple_of(4), 0);
    Ok(())
}

/// The value of the first attribute of a kind.
pub(super) fn find(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    // The two highest bits tell how the value is written, not what it is.
    const KIND: u16 = 0x3fff;
    loop {
        let [l0, l1, k0, k1] = *attributes.first_chunk()?;
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        let value = attributes.get(4..length)?;
        if u16::from_ne_bytes([k0, k1]) & KIND == wanted {
            return Some(value);
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_attribute_is_found_behind_one_of_odd_length() {
        let mut body = Vec::new();
        attribute(&mut body, 1, b"decnet\0").expect("it is short");
        attribute(&mut body, 0x8002, &[7; 8]).expect("it is short");
        assert_eq!(body.len(), 12 + 12);
        assert_eq!(find(&body, 1), Some(&b"decnet\0"[..]));
        assert_eq!(find(&body, 2), Some(&[7; 8][..]));
        assert_eq!(find(&body, 3), None);
    }

    proptest! {
        #[test]
        fn no_answer_makes_it_panic(bytes: Vec<u8>, kind: u16) {
            find(&bytes, kind);
            if let Ok((message, rest)) = split(&bytes) {
                message.code();
                prop_assert!(rest.len() < bytes.len());
            }
        }
    }
}
