//! Makes the emulated protocol of a service.

mod ftp;
mod http;
mod redis;
mod ssh;
mod telnet;

use std::io;
use std::sync::Arc;

use domain::service::{ServiceKind, ServiceOptions};

use crate::persona::Facts;
use crate::serve::Service;

/// The service `kind` with `options` on the machine of `facts`.
pub(crate) fn build(
    kind: ServiceKind,
    options: &ServiceOptions,
    facts: &Arc<Facts>,
) -> io::Result<Arc<dyn Service>> {
    let facts = Arc::clone(facts);
    Ok(match kind {
        ServiceKind::Ftp => Arc::new(ftp::Ftp::new(options, facts)),
        ServiceKind::Http => Arc::new(http::Http::new(options, facts)),
        ServiceKind::Redis => Arc::new(redis::Redis::new(options, facts)),
        ServiceKind::Ssh => Arc::new(ssh::Ssh::new(options, facts).map_err(io::Error::other)?),
        ServiceKind::Telnet => Arc::new(telnet::Telnet::new(options, facts)),
        // A service leaves this list with its implementation, and joins `ServiceKind::IMPLEMENTED`.
        ServiceKind::Conpot
        | ServiceKind::Dns
        | ServiceKind::DockerApi
        | ServiceKind::Elasticsearch
        | ServiceKind::Https
        | ServiceKind::Imap
        | ServiceKind::Ipp
        | ServiceKind::K8s
        | ServiceKind::Ldap
        | ServiceKind::Llmnr
        | ServiceKind::Mongodb
        | ServiceKind::Mqtt
        | ServiceKind::Mssql
        | ServiceKind::Mysql
        | ServiceKind::Ntp
        | ServiceKind::Pop3
        | ServiceKind::Postgres
        | ServiceKind::Rdp
        | ServiceKind::Sip
        | ServiceKind::Smb
        | ServiceKind::Smtp
        | ServiceKind::SmtpRelay
        | ServiceKind::Snmp
        | ServiceKind::Tftp
        | ServiceKind::Vnc
        | ServiceKind::Winrm => {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "this release cannot show it",
            ));
        }
    })
}

/// After how many attempts a login succeeds; never when 0.
fn accept_after(options: &ServiceOptions, facts: &Facts) -> u64 {
    options.integer("accept_after").map_or_else(
        || facts.accept_after(),
        |number| u64::try_from(number).unwrap_or(0),
    )
}

/// Whether the attempt with this number is let in.
fn lets_in(user: &[u8], attempt: u64, accept_after: u64) -> bool {
    // A name that no machine could have must not turn up in a prompt.
    let plausible = (1..=32).contains(&user.len())
        && user
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
        && user.first().is_some_and(u8::is_ascii_alphabetic);
    plausible && accept_after > 0 && attempt >= accept_after
}

#[cfg(test)]
mod tests;
