//! Personas: the operating system that a decky shows, and what a scanner compares of it.

use std::fmt;
use std::str::FromStr;

use crate::seed::Seed;
use crate::service::ServiceKind;

/// An operating system that a decky shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Persona {
    /// A Linux server.
    #[default]
    Linux,
    /// A Windows workstation.
    Windows,
    /// A Windows server.
    WindowsServer,
    /// A BSD server.
    Bsd,
    /// A camera, a printer, a router of a home.
    Embedded,
    /// A network device.
    Cisco,
}

/// A text that names no persona.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no known persona (linux, windows, windows_server, bsd, embedded, cisco)")]
pub struct UnknownPersona {
    text: String,
}

impl Persona {
    /// Every persona.
    pub const ALL: [Self; 6] = [
        Self::Linux,
        Self::Windows,
        Self::WindowsServer,
        Self::Bsd,
        Self::Embedded,
        Self::Cisco,
    ];

    /// The word for it in files and URLs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Linux => "linux",
            Self::Windows => "windows",
            Self::WindowsServer => "windows_server",
            Self::Bsd => "bsd",
            Self::Embedded => "embedded",
            Self::Cisco => "cisco",
        }
    }

    /// The first persona on which all of `services` are plausible; Linux when there is none.
    pub fn fitting(services: impl Iterator<Item = ServiceKind> + Clone) -> Self {
        Self::ALL
            .into_iter()
            .find(|persona| services.clone().all(|kind| kind.fits(*persona)))
            .unwrap_or_default()
    }

    /// Kernel settings (under `net.ipv4.`) of the decky's own network namespace.
    pub const fn sysctls(self) -> [(&'static str, &'static str); 10] {
        let [ttl, syn, stamps, scaling, sack, ecn, pmtu, fin, rate, mask] = match self {
            Self::Linux => ["64", "6", "1", "1", "1", "2", "0", "60", "1000", "6168"],
            Self::Windows | Self::WindowsServer => {
                ["128", "2", "1", "1", "1", "0", "0", "30", "0", "0"]
            }
            Self::Bsd => ["64", "6", "1", "1", "1", "0", "0", "60", "250", "6168"],
            Self::Embedded => ["255", "3", "0", "0", "0", "0", "1", "15", "0", "0"],
            Self::Cisco => ["255", "2", "0", "0", "0", "0", "1", "15", "0", "0"],
        };
        [
            ("net.ipv4.ip_default_ttl", ttl),
            ("net.ipv4.tcp_syn_retries", syn),
            ("net.ipv4.tcp_timestamps", stamps),
            ("net.ipv4.tcp_window_scaling", scaling),
            ("net.ipv4.tcp_sack", sack),
            ("net.ipv4.tcp_ecn", ecn),
            ("net.ipv4.ip_no_pmtu_disc", pmtu),
            ("net.ipv4.tcp_fin_timeout", fin),
            ("net.ipv4.icmp_ratelimit", rate),
            ("net.ipv4.icmp_ratemask", mask),
        ]
    }

    /// Organisationally unique identifiers of vendors that sell such machines (IEEE MA-L).
    const fn vendors(self) -> &'static [[u8; 3]] {
        match self {
            Self::Linux | Self::Bsd => &[
                [0x00, 0x25, 0x90], // Supermicro
                [0xf8, 0xbc, 0x12], // Dell
                [0x3c, 0xd9, 0x2b], // Hewlett Packard
                [0x00, 0x1b, 0x21], // Intel
                [0x00, 0x50, 0x56], // VMware
            ],
            Self::Windows | Self::WindowsServer => &[
                [0xf8, 0xbc, 0x12], // Dell
                [0x3c, 0xd9, 0x2b], // Hewlett Packard
                [0x00, 0x21, 0xcc], // Flextronics, for Lenovo
                [0x00, 0x50, 0x56], // VMware
            ],
            Self::Embedded => &[
                [0x00, 0x40, 0x8c], // Axis
                [0x00, 0x1b, 0xa9], // Brother
                [0x00, 0x11, 0x32], // Synology
            ],
            Self::Cisco => &[[0x00, 0x1b, 0x0d], [0x00, 0x1e, 0x49], [0x00, 0x26, 0x0b]],
        }
    }

    /// The hardware address of a decky's `index`-th interface: a vendor that fits, the rest from
    /// the seed, one vendor for a whole machine.
    pub fn mac(self, seed: &Seed, index: usize) -> Mac {
        let vendor = seed
            .choose("mac vendor", self.vendors())
            .copied()
            .unwrap_or([2, 0, 0]);
        let rest = seed.derive(&format!("mac {index}"));
        Mac([vendor[0], vendor[1], vendor[2], rest[0], rest[1], rest[2]])
    }
}

impl fmt::Display for Persona {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Persona {
    type Err = UnknownPersona;

    fn from_str(text: &str) -> Result<Self, UnknownPersona> {
        Self::ALL
            .into_iter()
            .find(|persona| persona.as_str() == text)
            .ok_or_else(|| UnknownPersona {
                text: text.chars().take(64).collect(),
            })
    }
}

/// An Ethernet address (EUI-48), shown as `00:25:90:0a:0b:0c`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac([u8; 6]);

impl Mac {
    /// Wraps the bytes of an interface that is there.
    pub const fn new(bytes: [u8; 6]) -> Self {
        Self(bytes)
    }

    /// Its six bytes.
    pub const fn bytes(self) -> [u8; 6] {
        self.0
    }
}

/// A text that is no unicast Ethernet address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no unicast MAC address such as 00:25:90:0a:0b:0c")]
pub struct InvalidMac {
    text: String,
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Mac {
    type Err = InvalidMac;

    fn from_str(text: &str) -> Result<Self, InvalidMac> {
        let invalid = || InvalidMac {
            text: text.chars().take(64).collect(),
        };
        let mut bytes = [0_u8; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts
                .next()
                .filter(|part| part.len() == 2)
                .ok_or_else(invalid)?;
            hex::decode_to_slice(part, std::slice::from_mut(byte)).map_err(|_| invalid())?;
        }
        // The lowest bit of the first byte marks a group address (IEEE 802, section 8.2).
        if parts.next().is_some() || bytes[0] & 1 == 1 || bytes == [0; 6] {
            return Err(invalid());
        }
        Ok(Self(bytes))
    }
}
