//! Archetypes: named sets of services, each with the personas on which the set is plausible.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use crate::persona::Persona;
use crate::service::ServiceKind;

macro_rules! archetypes {
    ($($(#[doc = $doc:literal])* $variant:ident = $slug:literal, $title:literal, $services:tt, $personas:tt;)*) => {
        /// A kind of machine that is often met, as a set of services.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Archetype { $($(#[doc = $doc])* $variant,)* }

        impl Archetype {
            /// Every archetype, in the order in which a person is offered them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The word for it in files and URLs.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $slug,)* }
            }

            /// Its name for a person.
            pub const fn title(self) -> &'static str {
                match self { $(Self::$variant => $title,)* }
            }

            /// One line on what it stands for.
            pub const fn help(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc,)*).trim_ascii(),)* }
            }

            /// What such a machine serves: also the pool from which its mutations draw.
            pub const fn services(self) -> &'static [ServiceKind] {
                use ServiceKind::{
                    Conpot, DockerApi, Ftp, Http, Imap, K8s, Ldap, Llmnr, Mqtt, Mysql, Pop3,
                    Postgres, Rdp, Redis, Sip, Smb, Smtp, Snmp, Ssh, Telnet,
                };
                match self { $(Self::$variant => &$services,)* }
            }

            /// The personas that such a machine may show, the usual one first.
            pub const fn personas(self) -> &'static [Persona] {
                use Persona::{Bsd, Cisco, Embedded, Linux, Windows, WindowsServer};
                match self { $(Self::$variant => &$personas,)* }
            }
        }
    };
}

// The next archetype goes at the end of its family.
archetypes! {
    /// A workstation of an office.
    WindowsWorkstation = "windows-workstation", "Windows workstation", [Smb, Rdp], [Windows];
    /// A member server of a domain.
    WindowsServer = "windows-server", "Windows server", [Smb, Rdp, Ldap], [WindowsServer];
    /// The heart of a Windows domain.
    DomainController = "domain-controller", "Domain controller", [Ldap, Smb, Rdp, Llmnr], [WindowsServer];
    /// A server for general use.
    LinuxServer = "linux-server", "Linux server", [Ssh, Http], [Linux, Bsd];
    /// A web server whose pages are uploaded.
    WebServer = "web-server", "Web server", [Http, Ftp], [Linux, Bsd];
    /// A server of several databases.
    DatabaseServer = "database-server", "Database server", [Mysql, Postgres, Redis], [Linux, Bsd];
    /// A server of mailboxes.
    MailServer = "mail-server", "Mail server", [Smtp, Pop3, Imap], [Linux, Bsd];
    /// A store of files.
    FileServer = "file-server", "File server", [Smb, Ftp, Ssh], [Linux, Bsd];
    /// A network printer.
    Printer = "printer", "Printer", [Snmp, Ftp], [Embedded];
    /// A sensor or a camera.
    IotDevice = "iot-device", "IoT device", [Mqtt, Snmp, Telnet], [Embedded];
    /// A programmable controller of a plant.
    IndustrialControl = "industrial-control", "Industrial control", [Conpot, Snmp], [Embedded];
    /// A telephone exchange.
    VoipServer = "voip-server", "VoIP server", [Sip], [Linux, Cisco];
    /// A probe of the network's management.
    MonitoringNode = "monitoring-node", "Monitoring node", [Snmp, Ssh], [Linux, Bsd];
    /// A machine of a build farm.
    DevopsHost = "devops-host", "DevOps host", [DockerApi, Ssh, K8s], [Linux];
    /// The least that can be attacked: a way in and nothing else.
    Deaddeck = "deaddeck", "Dead deck", [Ssh], [Linux, Bsd];
}

/// A text that names no archetype.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no known archetype")]
pub struct UnknownArchetype {
    text: String,
}

impl Archetype {
    /// The persona that is usual for it.
    pub fn persona(self) -> Persona {
        self.personas().first().copied().unwrap_or_default()
    }

    /// The services of the archetype that a decky says it is of; none where it names no known one.
    pub fn pool_of(name: Option<&str>) -> Option<BTreeSet<ServiceKind>> {
        let archetype: Self = name?.parse().ok()?;
        Some(archetype.services().iter().copied().collect())
    }
}

impl fmt::Display for Archetype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Archetype {
    type Err = UnknownArchetype;

    fn from_str(text: &str) -> Result<Self, UnknownArchetype> {
        Self::ALL
            .iter()
            .copied()
            .find(|archetype| archetype.as_str() == text)
            .ok_or_else(|| UnknownArchetype {
                text: text.chars().take(64).collect(),
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_archetype_is_plausible_on_each_of_its_personas_and_shares_no_port() {
        for archetype in Archetype::ALL.iter().copied() {
            assert_eq!(archetype.as_str().parse(), Ok(archetype));
            assert!(!archetype.help().is_empty() && !archetype.title().is_empty());
            let mut ports = BTreeSet::new();
            for kind in archetype.services() {
                for persona in archetype.personas() {
                    assert!(kind.fits(*persona), "{archetype}: {kind} on {persona}");
                }
                assert!(kind.listens().all(|port| ports.insert(port)));
            }
        }
        assert_eq!(Archetype::ALL.len(), 15);
    }
}
