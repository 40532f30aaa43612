//! Scans of nmap (`nmap -oX`): what was found to be open becomes a network of deckies that looks
//! the same from outside. One LAN is made for each /24; how they are joined no scan says, so that
//! is assumed, and said.

mod read;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use domain::name::{DeckyName, Hostname, MAX_NAME};
use domain::persona::Persona;
use domain::service::ServiceKind;
use domain::topology::finding::{Finding, FindingCode};
use domain::topology::{LanKind, Protocol};
use proto::topology_file::{FileDecky, FileEdge, FileLan, TopologyFile};

use self::read::{Host, Port, System};
use super::Loaded;
use super::malformed::Malformed;

/// Most findings of one import: whoever has more reads none of them.
const MAX_FINDINGS: usize = 100;

/// Whether a text is XML of any kind: no document of ours begins so.
pub(super) fn is_xml(text: &str) -> bool {
    text.trim_start_matches('\u{feff}')
        .trim_start()
        .starts_with('<')
}

/// Makes a topology document of a scan. `name` is what the topology is called.
pub(super) fn convert(text: &str, name: &str) -> Result<Loaded, Malformed> {
    let hosts = read::read(text.trim_start_matches('\u{feff}'))?;
    let mut import = Import::default();
    for host in &hosts {
        import.host(host);
    }
    Ok(import.finish(name))
}

/// The topology so far.
#[derive(Default)]
struct Import {
    findings: Vec<Finding>,
    names: BTreeSet<String>,
    addresses: BTreeSet<Ipv4Addr>,
    /// The deckies of each /24, each with the last number of its address.
    lans: BTreeMap<[u8; 3], Vec<(u8, FileDecky)>>,
    silent: usize,
    addressless: usize,
    /// Findings that are only counted.
    more: usize,
}

impl Import {
    fn host(&mut self, host: &Host) {
        let path = format!("hosts[{}]", host.place);
        let Some(address) = host.address.as_ref().and_then(|text| text.parse().ok()) else {
            self.addressless += 1;
            return;
        };
        let address: Ipv4Addr = address;
        let target = format!("host {address}");
        if !self.addresses.insert(address) {
            self.changed(&target, path, "it is there twice; the first is taken");
            return;
        }
        let services = self.services(host, &path, &target);
        if services.is_empty() {
            self.silent += 1;
            return;
        }
        let [a, b, c, last] = address.octets();
        // The engine answers at the first address of each LAN, and the last is the broadcast's.
        let is_free = !matches!(last, 0 | 1 | 255);
        if !is_free {
            let text = format!("{address} is no address for a decky; it gets another");
            self.changed(&target, path, &text);
        }
        let shown = host.name.as_deref().and_then(label);
        let decky = FileDecky {
            name: self.name(shown.as_deref(), address),
            hostname: shown.filter(|text| Hostname::parse(text).is_ok()),
            archetype: None,
            persona: persona(host).map(|persona| persona.as_str().to_owned()),
            services: services.iter().map(ToString::to_string).collect(),
            service_config: BTreeMap::new(),
            forwards_l3: false,
            publish: Vec::new(),
            mutate_every: None,
            seed: None,
            edges: vec![FileEdge {
                lan: lan_name([a, b, c]),
                address: is_free.then(|| address.to_string()),
                mac: None,
                home: None,
            }],
        };
        self.lans.entry([a, b, c]).or_default().push((last, decky));
    }

    /// The services that listen on the open ports of a host; a port that none has is said.
    fn services(&mut self, host: &Host, path: &str, target: &str) -> BTreeSet<ServiceKind> {
        let open: BTreeSet<(Protocol, u16)> = host.ports.iter().filter_map(listens).collect();
        let mut services = BTreeSet::new();
        let mut taken = BTreeSet::new();
        for port in &host.ports {
            let chosen = listens(port).and_then(|listens| choose(listens, port, &open));
            match chosen {
                // Of two that share a port, such as the two mail servers, the first stays.
                Some(kind)
                    if !services.contains(&kind)
                        && kind.listens().any(|at| taken.contains(&at)) => {}
                Some(kind) => {
                    taken.extend(kind.listens());
                    services.insert(kind);
                }
                None => {
                    let Port {
                        protocol,
                        number,
                        service,
                        ..
                    } = port;
                    let known = service.as_deref().map_or(String::new(), |name| {
                        format!(" ({})", name.chars().take(64).collect::<String>())
                    });
                    self.push(Finding::warning(
                        FindingCode::UnknownService,
                        target,
                        format!("{path}.ports[{}]", port.place),
                        format!("no service listens on {number}/{protocol}{known}: it is left out"),
                    ));
                }
            }
        }
        services
    }

    /// A name that no decky has yet.
    fn name(&mut self, shown: Option<&str>, address: Ipv4Addr) -> String {
        let dashed = address.to_string().replace('.', "-");
        let plain = format!("host-{dashed}");
        let mut candidates = vec![plain.clone(), format!("decky-{dashed}")];
        if let Some(shown) = shown {
            let kept = MAX_NAME - dashed.len() - 1;
            let short: String = shown.chars().take(kept).collect();
            candidates.insert(0, format!("{short}-{dashed}"));
            candidates.insert(0, shown.to_owned());
        }
        let free = |name: &String| {
            DeckyName::parse(name).is_ok() && !self.names.contains(&name.to_ascii_lowercase())
        };
        let name = candidates.into_iter().find(free).unwrap_or(plain);
        self.names.insert(name.to_ascii_lowercase());
        name
    }

    fn changed(&mut self, target: &str, path: impl Into<String>, message: &str) {
        let code = FindingCode::ImportChanged;
        self.push(Finding::warning(code, target, path, message));
    }

    fn push(&mut self, finding: Finding) {
        if self.findings.len() < MAX_FINDINGS {
            self.findings.push(finding);
        } else {
            self.more += 1;
        }
    }

    fn finish(mut self, name: &str) -> Loaded {
        for (count, what) in [
            (self.silent, "without an open port of a known service"),
            (self.addressless, "without an IPv4 address"),
        ] {
            if count > 0 {
                let text = format!("hosts that are left out because they are {what}: {count}");
                self.changed("topology", "hosts", &text);
            }
        }
        self.join();
        let dmz = self.dmz();
        let lans = self.lans.keys().map(|net| FileLan {
            name: lan_name(*net),
            subnet: format!("{}.{}.{}.0/24", net[0], net[1], net[2]),
            subnet6: None,
            kind: (Some(*net) == dmz).then(|| LanKind::Dmz.as_str().to_owned()),
            driver: None,
        });
        let file = TopologyFile {
            name: name.to_owned(),
            lans: lans.collect(),
            deckies: self
                .lans
                .values_mut()
                .flatten()
                .map(|(_, decky)| decky.clone())
                .collect(),
        };
        if self.more > 0 {
            self.findings.push(Finding::warning(
                FindingCode::ImportChanged,
                "topology",
                "hosts",
                format!("findings that are not shown: {}", self.more),
            ));
        }
        Loaded {
            file,
            findings: self.findings,
        }
    }

    /// The LAN that outsiders reach first: one with public addresses, or else the lowest.
    fn dmz(&self) -> Option<[u8; 3]> {
        let is_public = |net: &&[u8; 3]| !Ipv4Addr::new(net[0], net[1], net[2], 1).is_private();
        let public = self.lans.keys().find(is_public);
        public.or_else(|| self.lans.keys().next()).copied()
    }

    /// Joins each LAN to the DMZ over the machine that looks most like its router.
    fn join(&mut self) {
        let Some(dmz) = self.dmz() else { return };
        let mut joined = Vec::new();
        for (_, deckies) in self.lans.iter_mut().filter(|(net, _)| **net != dmz) {
            let rank = |last: u8| (last != 1, last != 254, last);
            let Some((_, gateway)) = deckies.iter_mut().min_by_key(|(last, _)| rank(*last)) else {
                continue;
            };
            gateway.forwards_l3 = true;
            gateway.edges.push(FileEdge {
                lan: lan_name(dmz),
                address: None,
                mac: None,
                home: None,
            });
            joined.push(gateway.name.clone());
        }
        for name in joined {
            let text = format!(
                "no scan says how LANs are joined: {name} is made the way to {}",
                lan_name(dmz)
            );
            self.changed(&format!("decky {name}"), "hosts", &text);
        }
    }
}

fn lan_name([a, b, c]: [u8; 3]) -> String {
    format!("net-{a}-{b}-{c}")
}

fn listens(port: &Port) -> Option<(Protocol, u16)> {
    let number = port.number.parse().ok().filter(|number| *number > 0)?;
    Some((port.protocol.parse().ok()?, number))
}

/// The service of the catalogue that a port stands for. A port on which several listen is decided
/// by the host's other ports, and then by what nmap calls it.
fn choose(
    listens: (Protocol, u16),
    port: &Port,
    open: &BTreeSet<(Protocol, u16)>,
) -> Option<ServiceKind> {
    let said = port.service.as_deref().unwrap_or_default();
    let has = |number: u16| open.contains(&(Protocol::Tcp, number));
    let wanted = match listens {
        (Protocol::Tcp, 80) if has(102) || has(502) => ServiceKind::Conpot,
        (Protocol::Tcp, 80) => ServiceKind::Http,
        (Protocol::Tcp, 25 | 465 | 587) => ServiceKind::Smtp,
        // The second port of Kubernetes is most often a plain web server's.
        (Protocol::Tcp, 8080) if !has(6443) && !said.contains("kube") => return None,
        _ => ServiceKind::ALL
            .iter()
            .copied()
            .find(|kind| kind.listens().any(|at| at == listens))?,
    };
    Some(wanted)
}

/// The first label of a host name, as far as it can be a name.
fn label(text: &str) -> Option<String> {
    let first = text.split('.').next().unwrap_or_default();
    let fits = DeckyName::parse(first).is_ok();
    fits.then(|| first.to_owned())
}

/// The persona that shows the operating system of a host; none when nothing is known of it.
fn persona(host: &Host) -> Option<Persona> {
    let matched = host.system.as_ref().and_then(of_system);
    matched.or_else(|| {
        let said = host.ports.iter().find_map(|port| port.system.as_deref())?;
        of_words(said, said)
    })
}

fn of_system(system: &System) -> Option<Persona> {
    let System {
        title,
        family,
        kind,
        vendor,
    } = system;
    let is = |text: &str, words: &[&str]| {
        let text = text.to_ascii_lowercase();
        words.iter().any(|word| text.contains(word))
    };
    if is(vendor, &["cisco"]) || is(family, &["ios", "nx-os", "catos"]) && !is(vendor, &["apple"]) {
        return Some(Persona::Cisco);
    }
    let is_general = kind.is_empty() || is(kind, &["general purpose"]);
    if is(family, &["windows"]) {
        return of_words("windows", title);
    }
    if !is_general || is(family, &["embedded"]) {
        return Some(Persona::Embedded);
    }
    of_words(family, title)
}

fn of_words(family: &str, title: &str) -> Option<Persona> {
    let family = family.to_ascii_lowercase();
    let is_server = title.to_ascii_lowercase().contains("server");
    let has = |words: &[&str]| words.iter().any(|word| family.contains(word));
    if has(&["windows"]) {
        Some(if is_server {
            Persona::WindowsServer
        } else {
            Persona::Windows
        })
    } else if has(&["bsd", "mac os", "macos"]) {
        Some(Persona::Bsd)
    } else if has(&["ios", "nx-os"]) {
        Some(Persona::Cisco)
    } else if has(&["linux", "unix"]) {
        Some(Persona::Linux)
    } else {
        None
    }
}
