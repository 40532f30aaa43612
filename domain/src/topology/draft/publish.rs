//! The ports of the host behind which a draft's decky answers.

use std::net::Ipv4Addr;

use super::{DraftDecky, Resolver};
use crate::topology::{Protocol, Publish};

impl Resolver<'_> {
    pub(super) fn read_publish(
        &mut self,
        written: &DraftDecky,
        path: &str,
        target: &str,
    ) -> Vec<Publish> {
        let mut published = Vec::new();
        for (number, publish) in written.publish.iter().take(256).enumerate() {
            let place = format!("{path}.publish[{number}]");
            let mut port = |field: &str, value: i64| {
                let port = u16::try_from(value).ok().filter(|port| *port > 0);
                if port.is_none() {
                    let message = format!("{value} is no port (1 to 65535)");
                    self.value_finding(target, format!("{place}.{field}"), &message);
                }
                port
            };
            let host_port = port("host_port", publish.host_port);
            let decky_port = port("decky_port", publish.decky_port);
            let protocol = match publish.protocol.as_deref().map(str::parse) {
                None => Protocol::Tcp,
                Some(Ok(protocol)) => protocol,
                Some(Err(error)) => {
                    self.value_finding(target, format!("{place}.protocol"), &format!("{error}"));
                    continue;
                }
            };
            let host_ip = match publish.host_ip.as_deref().map(str::parse::<Ipv4Addr>) {
                None => None,
                Some(Ok(ip)) => Some(ip).filter(|ip| !ip.is_unspecified()),
                Some(Err(_)) => {
                    let message = "not an IPv4 address";
                    self.value_finding(target, format!("{place}.host_ip"), message);
                    continue;
                }
            };
            if let (Some(host_port), Some(decky_port)) = (host_port, decky_port) {
                published.push(Publish {
                    host_ip,
                    host_port,
                    decky_port,
                    protocol,
                });
            }
        }
        published
    }
}
