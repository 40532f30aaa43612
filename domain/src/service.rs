//! The services that a decky can show: their names, ports, and where they are plausible.
//!
//! The catalogue is whole from the start, so that topologies, archetypes and files can name every
//! service; [`ServiceKind::is_implemented`] says which of them a decky can carry out.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::persona::Persona;
use crate::topology::Protocol;

mod option;
mod schema;

pub use option::{
    InvalidOption, OptionDefault, OptionRule, OptionSchema, OptionValue, ServiceOptions,
};

macro_rules! services {
    ($(#[doc = $doc:literal] $variant:ident = $word:literal, tcp $tcp:tt, udp $udp:tt, on $on:tt;)*) => {
        /// An emulated protocol, in the order of the names.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum ServiceKind { $(#[doc = $doc] $variant,)* }

        impl ServiceKind {
            /// Every service, in the order of their names.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The word for it in files, events and URLs.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }

            /// The TCP ports on which it listens.
            pub const fn ports(self) -> &'static [u16] {
                match self { $(Self::$variant => &$tcp,)* }
            }

            /// The UDP ports on which it listens.
            pub const fn udp_ports(self) -> &'static [u16] {
                match self { $(Self::$variant => &$udp,)* }
            }

            /// The personas on which an attacker would expect it.
            pub const fn personas(self) -> &'static [Persona] {
                use Persona::{Bsd, Cisco, Embedded, Linux, Windows, WindowsServer};
                match self { $(Self::$variant => &$on,)* }
            }

            /// One line for a person who chooses among services.
            pub const fn help(self) -> &'static str {
                match self { $(Self::$variant => $doc.trim_ascii(),)* }
            }
        }
    };
}

// The next service goes where its name sorts, with its options in `schema`.
services! {
    /// Industrial controller: Modbus, S7 and its web page.
    Conpot = "conpot", tcp [80, 102, 502], udp [], on [Linux, Embedded];
    /// Name server (RFC 1035).
    Dns = "dns", tcp [53], udp [53], on [Linux, WindowsServer, Bsd, Embedded, Cisco];
    /// Docker Engine API.
    DockerApi = "docker_api", tcp [2375, 2376], udp [], on [Linux, WindowsServer];
    /// Elasticsearch REST API.
    Elasticsearch = "elasticsearch", tcp [9200], udp [], on [Linux, WindowsServer, Bsd];
    /// File transfer (RFC 959).
    Ftp = "ftp", tcp [21], udp [], on [Linux, Windows, WindowsServer, Bsd, Embedded];
    /// Web server (RFC 9112).
    Http = "http", tcp [80], udp [], on [Linux, Windows, WindowsServer, Bsd, Embedded, Cisco];
    /// Web server over TLS (RFC 9110).
    Https = "https", tcp [443], udp [], on [Linux, Windows, WindowsServer, Bsd, Embedded, Cisco];
    /// Mailboxes (RFC 9051), also over TLS.
    Imap = "imap", tcp [143, 993], udp [], on [Linux, WindowsServer, Bsd];
    /// Printing (RFC 8010).
    Ipp = "ipp", tcp [631], udp [], on [Linux, Bsd, Embedded];
    /// Kubernetes API server.
    K8s = "k8s", tcp [6443, 8080], udp [], on [Linux];
    /// Directory (RFC 4511), also over TLS.
    Ldap = "ldap", tcp [389, 636], udp [], on [Linux, WindowsServer, Bsd];
    /// Name resolution of the link (RFC 4795, RFC 6762).
    Llmnr = "llmnr", tcp [], udp [5353, 5355], on [Linux, Windows, WindowsServer];
    /// MongoDB wire protocol.
    Mongodb = "mongodb", tcp [27017], udp [], on [Linux, WindowsServer, Bsd];
    /// Message broker (MQTT 3.1.1).
    Mqtt = "mqtt", tcp [1883], udp [], on [Linux, Bsd, Embedded];
    /// Microsoft SQL Server (TDS).
    Mssql = "mssql", tcp [1433], udp [], on [WindowsServer, Windows, Linux];
    /// MySQL (protocol 10).
    Mysql = "mysql", tcp [3306], udp [], on [Linux, Windows, WindowsServer, Bsd];
    /// Network time (RFC 5905).
    Ntp = "ntp", tcp [], udp [123], on [Linux, WindowsServer, Bsd, Embedded, Cisco];
    /// Mailboxes (RFC 1939), also over TLS.
    Pop3 = "pop3", tcp [110, 995], udp [], on [Linux, WindowsServer, Bsd];
    /// PostgreSQL (protocol 3).
    Postgres = "postgres", tcp [5432], udp [], on [Linux, Windows, WindowsServer, Bsd];
    /// Remote desktop (MS-RDPBCGR).
    Rdp = "rdp", tcp [3389], udp [], on [Windows, WindowsServer];
    /// Redis (RESP2).
    Redis = "redis", tcp [6379], udp [], on [Linux, Bsd];
    /// Telephony (RFC 3261).
    Sip = "sip", tcp [5060], udp [5060], on [Linux, Bsd, Embedded, Cisco];
    /// Windows file sharing (MS-SMB2).
    Smb = "smb", tcp [139, 445], udp [], on [Windows, WindowsServer, Linux, Bsd, Embedded];
    /// Mail server that takes credentials (RFC 5321).
    Smtp = "smtp", tcp [25, 465, 587], udp [], on [Linux, WindowsServer, Bsd];
    /// Mail server that takes every message (RFC 5321).
    SmtpRelay = "smtp_relay", tcp [25, 465, 587], udp [], on [Linux, WindowsServer, Bsd];
    /// Management of devices (RFC 3416).
    Snmp = "snmp", tcp [], udp [161], on [Linux, Windows, WindowsServer, Bsd, Embedded, Cisco];
    /// Secure shell (RFC 4251 to 4254).
    Ssh = "ssh", tcp [22], udp [], on [Linux, Bsd, Embedded, Cisco];
    /// Telnet (RFC 854).
    Telnet = "telnet", tcp [23], udp [], on [Linux, Bsd, Embedded, Cisco];
    /// Trivial file transfer (RFC 1350).
    Tftp = "tftp", tcp [], udp [69], on [Linux, Bsd, Embedded, Cisco];
    /// Remote screen (RFC 6143).
    Vnc = "vnc", tcp [5900], udp [], on [Linux, Windows, Bsd];
    /// Remote management of Windows (MS-WSMV).
    Winrm = "winrm", tcp [5985, 5986], udp [], on [Windows, WindowsServer];
}

/// A text that names no service.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no known service")]
pub struct UnknownService {
    text: String,
}

impl ServiceKind {
    /// The services that a decky can carry out, in the order of their names. The next one goes
    /// where its name sorts.
    pub const IMPLEMENTED: &'static [Self] =
        &[Self::Ftp, Self::Http, Self::Redis, Self::Ssh, Self::Telnet];

    /// Whether a decky can carry it out.
    pub fn is_implemented(self) -> bool {
        Self::IMPLEMENTED.contains(&self)
    }

    /// Every transport and port on which it listens.
    pub fn listens(self) -> impl Iterator<Item = (Protocol, u16)> {
        let tcp = self.ports().iter().map(|port| (Protocol::Tcp, *port));
        tcp.chain(self.udp_ports().iter().map(|port| (Protocol::Udp, *port)))
    }

    /// Whether an attacker would expect it on `persona`.
    pub fn fits(self, persona: Persona) -> bool {
        self.personas().contains(&persona)
    }

    /// The options that it takes.
    pub const fn schema(self) -> &'static [OptionSchema] {
        schema::of(self)
    }
}

/// The services of a decky, each with its options, in the order of their names.
pub type ServiceSet = BTreeMap<ServiceKind, ServiceOptions>;

impl fmt::Display for ServiceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for ServiceKind {
    type Err = UnknownService;

    fn from_str(text: &str) -> Result<Self, UnknownService> {
        Self::ALL
            .iter()
            .copied()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| UnknownService {
                text: text.chars().take(64).collect(),
            })
    }
}

#[cfg(test)]
mod tests;
