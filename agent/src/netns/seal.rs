//! What is kept of a wired namespace, so that somebody's hand on its rules is seen later.

use std::collections::BTreeMap;

use domain::wiring::{RulesDigest, Wiring};
use serde::{Deserialize, Serialize};

use super::rules;

/// The state of a namespace when it had been wired. Engines keep it beside their own state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seal {
    /// Which namespace.
    pub(super) inode: u64,
    /// How often its rules had been changed then: as long as it is this often, they are untouched.
    pub(super) generation: u32,
    /// Which rules were loaded.
    rules: String,
    /// The fingerprint of what the kernel made of them.
    fingerprint: String,
    /// Which kernel settings were made.
    pub(super) sysctls: BTreeMap<String, Setting>,
}

/// A kernel setting. The kernel keeps some times in ticks, and tells another number than it was told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Setting {
    /// What was written.
    pub(super) asked: String,
    /// What was read afterwards.
    pub(super) kept: String,
}

impl Seal {
    pub(super) fn new(inode: u64, generation: u32, wiring: &Wiring, made: [u8; 32]) -> Self {
        Self {
            inode,
            generation,
            rules: hex::encode(rules::digest(wiring)),
            fingerprint: hex::encode(made),
            sysctls: BTreeMap::new(),
        }
    }

    /// Notes a kernel setting that was made.
    pub(super) fn note(&mut self, key: &str, asked: &str, kept: String) {
        let asked = asked.to_owned();
        self.sysctls.insert(key.to_owned(), Setting { asked, kept });
    }

    /// The bytes of its file.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("numbers and texts are always JSON")
    }

    /// Reads its file; none when it is broken, or another release's: the namespace is wired anew.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }

    /// The rules that were loaded.
    pub(super) fn rules(&self) -> Option<RulesDigest> {
        let mut digest = [0; 32];
        hex::decode_to_slice(&self.rules, &mut digest).ok()?;
        Some(digest)
    }

    pub(super) fn is_of(&self, fingerprint: [u8; 32]) -> bool {
        self.fingerprint == hex::encode(fingerprint)
    }
}
