//! Judges a document without a master: the same code that the master runs, with ids and seeds
//! that follow from names instead of chance.

use std::collections::BTreeMap;

use domain::id::{DeckyId, LanId, TopologyId};
use domain::seed::Seed;
use domain::topology::Topology;
use domain::topology::draft::{Draft, Entropy, resolve};
use domain::topology::finding::{Finding, sort};
use domain::topology::hydrate::{VersionHash, hydrate};
use domain::topology::validate::{Limits, check};
use uuid::Uuid;

use super::Loaded;

/// What a document is worth.
#[derive(Debug)]
pub(crate) struct Judged {
    /// Everything that is wrong, sorted.
    pub(crate) findings: Vec<Finding>,
    /// The version hash of its shape; none while there are errors.
    pub(crate) hash: Option<VersionHash>,
}

/// 32 bytes that follow from what is named and from nothing else.
fn derived(kind: &str, topology: &str, name: &str) -> [u8; 32] {
    let words = [kind, topology, name]
        .map(str::to_ascii_lowercase)
        .join("\0");
    Seed::new([0; 32]).derive(&words)
}

fn derived_uuid(kind: &str, topology: &str, name: &str) -> Uuid {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&derived(kind, topology, name)[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

/// Counts: for ids and seeds that are replaced, or thrown away, before anybody sees them.
#[derive(Debug)]
pub(crate) struct Counting(pub(crate) u128);

impl Entropy for Counting {
    fn uuid(&mut self) -> Uuid {
        self.0 += 1;
        Uuid::from_u128(self.0)
    }

    fn bytes(&mut self) -> [u8; 32] {
        self.uuid();
        derived("position", "", &self.0.to_string())
    }
}

/// Reads and judges a document.
pub(crate) fn judge(loaded: Loaded) -> Judged {
    let mut draft = Draft::from(loaded.file);
    for decky in &mut draft.deckies {
        let name = &decky.name;
        decky
            .seed
            .get_or_insert_with(|| Seed::new(derived("seed", &draft.name, name)).hex());
    }
    let resolved = resolve(&draft, None, &Limits::default(), &mut Counting(0));
    let mut findings = check(&resolved);
    findings.extend(loaded.findings);
    sort(&mut findings);
    let sound = !findings.iter().any(Finding::is_error);
    let hash = sound.then(|| hydrate(&named(resolved.topology)).version_hash());
    Judged { findings, hash }
}

/// The same topology with ids that follow from names: the hash must not depend on the order of
/// the document.
fn named(mut topology: Topology) -> Topology {
    let whole = topology.name.to_string();
    topology.id = TopologyId::new(derived_uuid("topology", &whole, ""));
    let mut lans = BTreeMap::new();
    for lan in &mut topology.lans {
        let id = LanId::new(derived_uuid("lan", &whole, lan.name.as_str()));
        lans.insert(std::mem::replace(&mut lan.id, id), id);
    }
    let mut deckies = BTreeMap::new();
    for decky in &mut topology.deckies {
        let id = DeckyId::new(derived_uuid("decky", &whole, decky.name.as_str()));
        deckies.insert(std::mem::replace(&mut decky.id, id), id);
    }
    for edge in &mut topology.edges {
        edge.lan = lans.get(&edge.lan).copied().unwrap_or(edge.lan);
        edge.decky = deckies.get(&edge.decky).copied().unwrap_or(edge.decky);
    }
    topology
}
