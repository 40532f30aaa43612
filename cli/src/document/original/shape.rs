//! The shapes of the original's documents. Fields that say nothing about the topology (states,
//! times, canvas positions) are passed over.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// What is pushed to an agent.
#[derive(Deserialize)]
pub(super) struct Pushed {
    pub(super) hydrated: Document,
}

#[derive(Deserialize)]
pub(super) struct Document {
    pub(super) topology: Topology,
    pub(super) lans: Vec<Lan>,
    pub(super) deckies: Vec<Decky>,
    pub(super) edges: Vec<Edge>,
}

#[derive(Deserialize)]
pub(super) struct Topology {
    pub(super) name: String,
}

#[derive(Deserialize)]
pub(super) struct Lan {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) subnet: String,
    #[serde(default)]
    pub(super) is_dmz: bool,
}

#[derive(Deserialize)]
pub(super) struct Decky {
    pub(super) uuid: String,
    pub(super) name: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) services: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    decky_config: Config,
    #[serde(default)]
    pub(super) ip: Option<String>,
}

impl Decky {
    pub(super) fn config(&self) -> &Config {
        &self.decky_config
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Config {
    #[serde(deserialize_with = "or_default")]
    pub(super) ips_by_lan: Addresses,
    pub(super) forwards_l3: bool,
    pub(super) archetype: Option<String>,
    #[serde(deserialize_with = "or_default")]
    pub(super) service_config: BTreeMap<String, Option<BTreeMap<String, Value>>>,
}

#[derive(Deserialize)]
pub(super) struct Edge {
    pub(super) decky_uuid: String,
    pub(super) lan_id: String,
    #[serde(default)]
    pub(super) is_bridge: bool,
    #[serde(default)]
    pub(super) forwards_l3: bool,
}

/// Addresses by the names of LANs, in the order of the document: the first is the decky's home.
#[derive(Default)]
pub(super) struct Addresses(pub(super) Vec<(String, Option<String>)>);

impl Addresses {
    /// The address in each LAN; of two, the one that is written last.
    pub(super) fn by_lan(&self) -> BTreeMap<&str, Option<&str>> {
        let entries = self.0.iter();
        entries
            .map(|(lan, address)| (lan.as_str(), address.as_deref()))
            .collect()
    }
}

impl<'de> Deserialize<'de> for Addresses {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;

        impl<'de> Visitor<'de> for Entries {
            type Value = Addresses;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of addresses by the names of LANs")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Addresses, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Addresses(entries))
            }
        }

        deserializer.deserialize_map(Entries)
    }
}

/// Rows that were never written hold null.
fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}
