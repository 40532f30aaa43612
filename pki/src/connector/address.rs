//! Where the master is: what an operator types behind `join`.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use rustls_pki_types::DnsName;

/// Where a master listens for agents unless told otherwise.
pub const DEFAULT_PORT: u16 = 7443;

/// A DNS name or an address, and a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MasterAddress {
    host: String,
    port: u16,
}

/// A text that is no address of a master.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an address like https://10.0.0.5:{DEFAULT_PORT}")]
pub struct InvalidMasterAddress {
    text: String,
}

impl MasterAddress {
    /// The name or address, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub const fn port(&self) -> u16 {
        self.port
    }
}

impl FromStr for MasterAddress {
    type Err = InvalidMasterAddress;

    /// Reads `https://host:port`, `host:port` or `host`; IPv6 in brackets.
    fn from_str(text: &str) -> Result<Self, InvalidMasterAddress> {
        parse(text.trim()).ok_or_else(|| InvalidMasterAddress {
            text: text.chars().take(128).collect(),
        })
    }
}

impl fmt::Display for MasterAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

fn parse(text: &str) -> Option<MasterAddress> {
    let text = text.strip_prefix("https://").unwrap_or(text);
    let text = text.strip_suffix('/').unwrap_or(text);
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, port) = rest.split_once(']')?;
        host.parse::<Ipv6Addr>().ok()?;
        (
            host,
            if port.is_empty() {
                None
            } else {
                Some(port.strip_prefix(':')?)
            },
        )
    } else {
        match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        }
    };
    let port = match port {
        None => DEFAULT_PORT,
        // `parse` alone would take "+443".
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().ok()?,
        Some(_) => return None,
    };
    let known = host.parse::<IpAddr>().is_ok() || DnsName::try_from(host).is_ok();
    (known && port != 0).then(|| MasterAddress {
        host: host.to_owned(),
        port,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_operators_type() {
        for (typed, meant) in [
            ("https://10.0.0.5:7443", "10.0.0.5:7443"),
            ("https://10.0.0.5:7443/", "10.0.0.5:7443"),
            ("10.0.0.5", "10.0.0.5:7443"),
            ("master.example:99", "master.example:99"),
            ("[::1]:8443", "[::1]:8443"),
            ("https://[fe80::1]", "[fe80::1]:7443"),
        ] {
            let address: MasterAddress = typed.parse().expect(typed);
            assert_eq!(address.to_string(), meant);
        }
    }

    #[test]
    fn refuses_what_is_no_address() {
        for typed in [
            "",
            "http://x:1",
            "https://",
            "a b:1",
            "x:0",
            "x:+1",
            "x:70000",
            "::1",
            "x:1/path",
        ] {
            let refused = typed.parse::<MasterAddress>().expect_err(typed);
            assert_eq!(
                refused,
                InvalidMasterAddress {
                    text: typed.to_owned()
                }
            );
        }
    }
}
