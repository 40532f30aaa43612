//! Reads nmap's XML into the few facts that a topology is made of. A scan quotes what machines
//! answered, so the text is hostile: no entity is expanded, nothing is nested or repeated without
//! bound, and no document type is believed.

use quick_xml::XmlVersion;
use quick_xml::events::{BytesStart, Event};
use quick_xml::reader::Reader;

use super::super::malformed::Malformed;

/// nmap nests nine deep; scripts may nest tables.
const MAX_DEPTH: usize = 32;
/// nmap's longest element has a dozen.
const MAX_ATTRIBUTES: usize = 64;
/// Far more than a topology takes; the limits of a topology are the validator's.
const MAX_HOSTS: usize = 65_536;
/// Nothing that is used is longer.
const MAX_VALUE: usize = 256;

/// A machine that was up.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Host {
    /// Its place among the hosts of the document.
    pub(super) place: usize,
    pub(super) address: Option<String>,
    pub(super) name: Option<String>,
    pub(super) system: Option<System>,
    /// Those that were open.
    pub(super) ports: Vec<Port>,
    down: bool,
    ports_seen: usize,
    systems_seen: usize,
}

/// The operating system that fits best.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct System {
    /// Such as `Microsoft Windows Server 2019`.
    pub(super) title: String,
    /// Such as `Windows`, `Linux`, `embedded`.
    pub(super) family: String,
    /// Such as `general purpose`, `webcam`.
    pub(super) kind: String,
    pub(super) vendor: String,
}

/// An open port.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Port {
    /// Its place among the ports of its host.
    pub(super) place: usize,
    pub(super) protocol: String,
    pub(super) number: String,
    /// What nmap calls the service.
    pub(super) service: Option<String>,
    /// On what the service says it runs.
    pub(super) system: Option<String>,
    open: bool,
}

/// An element that means something here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tag {
    Run,
    Host,
    Status,
    Address,
    Hostnames,
    Hostname,
    Ports,
    Port,
    State,
    Service,
    Os,
    Match,
    Class,
    Other,
}

impl Tag {
    fn new(name: &str) -> Self {
        match name {
            "nmaprun" => Self::Run,
            "host" => Self::Host,
            "status" => Self::Status,
            "address" => Self::Address,
            "hostnames" => Self::Hostnames,
            "hostname" => Self::Hostname,
            "ports" => Self::Ports,
            "port" => Self::Port,
            "state" => Self::State,
            "service" => Self::Service,
            "os" => Self::Os,
            "osmatch" => Self::Match,
            "osclass" => Self::Class,
            _ => Self::Other,
        }
    }
}

/// What is being read.
struct Scan<'a> {
    reader: Reader<&'a [u8]>,
    text: &'a str,
    open: Vec<Tag>,
    /// Whether its first element was there.
    rooted: bool,
    hosts_seen: usize,
    hosts: Vec<Host>,
    host: Host,
    port: Port,
}

/// The machines that were up, in the order of the document.
pub(super) fn read(text: &str) -> Result<Vec<Host>, Malformed> {
    let mut reader = Reader::from_str(text);
    reader.config_mut().check_end_names = true;
    let mut scan = Scan {
        reader,
        text,
        open: Vec::new(),
        rooted: false,
        hosts_seen: 0,
        hosts: Vec::new(),
        host: Host::default(),
        port: Port::default(),
    };
    while scan.step()? {}
    Ok(scan.hosts)
}

impl Scan<'_> {
    /// Reads one event; false at the end of the document.
    fn step(&mut self) -> Result<bool, Malformed> {
        let event = match self.reader.read_event() {
            Ok(event) => event,
            Err(error) => return Err(self.fault(self.reader.error_position(), &error.to_string())),
        };
        match event {
            Event::Start(start) => {
                let tag = self.enter(&start)?;
                self.open.push(tag);
            }
            Event::Empty(start) => {
                let tag = self.enter(&start)?;
                self.open.push(tag);
                self.leave();
            }
            Event::End(_) => self.leave(),
            // What nmap itself writes; anything more could declare entities or fetch files.
            Event::DocType(kind) => {
                if kind.trim() != "nmaprun" {
                    return Err(self.refusal("document types with declarations are refused"));
                }
            }
            Event::GeneralRef(name) => {
                let known = ["lt", "gt", "amp", "apos", "quot"].contains(&&*name);
                if !known && !name.starts_with('#') {
                    return Err(self.refusal("entities of its own are refused"));
                }
            }
            Event::Eof if self.rooted && self.open.is_empty() => return Ok(false),
            Event::Eof => {
                return Err(self.refusal("the scan ends in the middle: was nmap interrupted?"));
            }
            Event::Text(_)
            | Event::CData(_)
            | Event::Comment(_)
            | Event::Decl(_)
            | Event::PI(_) => {}
        }
        Ok(true)
    }

    fn enter(&mut self, start: &BytesStart<'_>) -> Result<Tag, Malformed> {
        if self.open.len() >= MAX_DEPTH {
            return Err(self.refusal(&format!("elements are nested deeper than {MAX_DEPTH}")));
        }
        let name = start.name();
        let tag = Tag::new(name.as_ref());
        if self.open.is_empty() && tag != Tag::Run {
            return Err(self.refusal("not a scan of nmap: the first element is not nmaprun"));
        }
        self.rooted = true;
        match (self.open.as_slice(), tag) {
            ([Tag::Run], Tag::Host) => {
                if self.hosts_seen >= MAX_HOSTS {
                    return Err(self.refusal(&format!("there are more than {MAX_HOSTS} hosts")));
                }
                self.host = Host {
                    place: self.hosts_seen,
                    ..Host::default()
                };
                self.hosts_seen += 1;
            }
            ([Tag::Run, Tag::Host], Tag::Status) => {
                // Programs that write like nmap may say nothing of what answers.
                let state = self.value(start, "state")?;
                self.host.down = state.is_some_and(|state| state != "up");
            }
            ([Tag::Run, Tag::Host], Tag::Address)
                if self.value(start, "addrtype")?.as_deref() == Some("ipv4") =>
            {
                self.host.address = self.value(start, "addr")?;
            }
            ([Tag::Run, Tag::Host, Tag::Hostnames], Tag::Hostname) if self.host.name.is_none() => {
                self.host.name = self.value(start, "name")?;
            }
            ([Tag::Run, Tag::Host, Tag::Ports], Tag::Port) => {
                self.port = Port {
                    place: self.host.ports_seen,
                    protocol: self.value(start, "protocol")?.unwrap_or_default(),
                    number: self.value(start, "portid")?.unwrap_or_default(),
                    ..Port::default()
                };
                self.host.ports_seen += 1;
            }
            ([Tag::Run, Tag::Host, Tag::Ports, Tag::Port], Tag::State) => {
                self.port.open = self.value(start, "state")?.as_deref() == Some("open");
            }
            ([Tag::Run, Tag::Host, Tag::Ports, Tag::Port], Tag::Service) => {
                self.port.service = self.value(start, "name")?;
                self.port.system = self.value(start, "ostype")?;
            }
            // They are ordered by how well they fit.
            ([Tag::Run, Tag::Host, Tag::Os], Tag::Match) => {
                self.host.systems_seen += 1;
                if self.host.systems_seen == 1 {
                    self.host.system = Some(System {
                        title: self.value(start, "name")?.unwrap_or_default(),
                        ..System::default()
                    });
                }
            }
            ([Tag::Run, Tag::Host, Tag::Os, Tag::Match], Tag::Class) => self.class(start)?,
            _ => {}
        }
        Ok(tag)
    }

    /// The first class of the best match says what kind of machine it is.
    fn class(&mut self, start: &BytesStart<'_>) -> Result<(), Malformed> {
        let first = self.host.systems_seen == 1;
        let lacks = |system: &&System| system.family.is_empty();
        if !first || self.host.system.as_ref().filter(lacks).is_none() {
            return Ok(());
        }
        let family = self.value(start, "osfamily")?.unwrap_or_default();
        let kind = self.value(start, "type")?.unwrap_or_default();
        let vendor = self.value(start, "vendor")?.unwrap_or_default();
        if let Some(system) = &mut self.host.system {
            system.family = family;
            system.kind = kind;
            system.vendor = vendor;
        }
        Ok(())
    }

    fn leave(&mut self) {
        let tag = self.open.pop();
        match (self.open.as_slice(), tag) {
            ([Tag::Run, Tag::Host, Tag::Ports], Some(Tag::Port)) if self.port.open => {
                self.host.ports.push(std::mem::take(&mut self.port));
            }
            ([Tag::Run], Some(Tag::Host)) if !self.host.down => {
                self.hosts.push(std::mem::take(&mut self.host));
            }
            _ => {}
        }
    }

    /// The value of an attribute, cut to what can be of use.
    fn value(&self, start: &BytesStart<'_>, name: &str) -> Result<Option<String>, Malformed> {
        // One more than allowed shows that there are more.
        for (index, attribute) in start.attributes().take(MAX_ATTRIBUTES + 1).enumerate() {
            if index == MAX_ATTRIBUTES {
                let text = format!("an element has more than {MAX_ATTRIBUTES} attributes");
                return Err(self.refusal(&text));
            }
            let attribute = attribute.map_err(|error| self.refusal(&error.to_string()))?;
            if attribute.key.as_ref() == name {
                let value = attribute
                    .normalized_value(XmlVersion::Implicit1_0)
                    .map_err(|error| self.refusal(&error.to_string()))?;
                return Ok(Some(value.chars().take(MAX_VALUE).collect()));
            }
        }
        Ok(None)
    }

    /// A fault of what was just read.
    fn refusal(&self, text: &str) -> Malformed {
        self.fault(self.reader.buffer_position(), text)
    }

    fn fault(&self, offset: u64, text: &str) -> Malformed {
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        let before = &self.text.as_bytes()[..offset.min(self.text.len())];
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        let column = 1 + before
            .iter()
            .rev()
            .take_while(|byte| **byte != b'\n')
            .count();
        let mut path = String::new();
        if self.open.len() > 1 && self.open[1] == Tag::Host {
            path = format!("hosts[{}]", self.host.place);
        }
        if self.open.len() > 3 && self.open[3] == Tag::Port {
            path.push_str(&format!(".ports[{}]", self.port.place));
        }
        Malformed::at(line, column, path, text)
    }
}
