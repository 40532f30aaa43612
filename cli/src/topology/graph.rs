//! `decnet topology graph`: a topology drawn from the DMZ inwards.
//!
//! The document may be any: what cannot be placed is drawn apart, and nothing here judges it
//! (`topology validate` does). Every text is made safe for terminals when the graph is read; each
//! notation escapes what it obeys itself.

mod dot;
mod html;
mod mermaid;
mod tree;

use std::collections::{BTreeMap, BTreeSet};

use domain::topology::LanKind;
use domain::topology::draft::{Draft, DraftDecky, DraftPublish};
use domain::topology::validate::Limits;
use serde_json::json;

use super::args::{GraphArgs, Notation};
use crate::context::Context;
use crate::document::{self, Subject};
use crate::failure::{Exit, Failure};
use crate::safe::clipped;

/// Most characters of one word: a name has 63 at most, where it is a name.
const WORD: usize = 80;
/// Most entries of one list.
const LIST: usize = 64;

/// A topology, ready to be drawn.
#[derive(Debug)]
struct Graph {
    name: String,
    lans: Vec<Lan>,
    deckies: Vec<Decky>,
    /// The LANs in the order in which they are reached, those of the DMZ first.
    order: Vec<usize>,
}

#[derive(Debug)]
struct Lan {
    name: String,
    subnet: String,
    is_dmz: bool,
    /// Over how many gateways it is reached.
    level: usize,
    /// Its place in the order in which LANs are reached.
    rank: usize,
    /// The LAN and the decky over which it is reached; none of a root.
    via: Option<Via>,
    /// Whether there is a way from the DMZ to it.
    reached: bool,
    /// The deckies on it.
    members: Vec<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Via {
    lan: usize,
    decky: usize,
}

#[derive(Debug)]
struct Decky {
    name: String,
    persona: Option<String>,
    services: Vec<String>,
    routes: bool,
    publishes: Vec<String>,
    /// Where it is, each LAN once, in the order of its interfaces.
    places: Vec<Place>,
    /// The LANs that it names and that do not exist.
    nowhere: Vec<String>,
    /// How many edges more it has than are drawn.
    more: usize,
}

#[derive(Debug)]
struct Place {
    lan: usize,
    address: Option<String>,
    home: bool,
}

pub(super) async fn run(args: &GraphArgs, context: &Context) -> Result<Exit, Failure> {
    let file = match Subject::new(&args.subject.subject) {
        Subject::Document(source) => document::load(&source)?.file,
        Subject::Stored(name) => context.client()?.document(&name).await?,
    };
    let graph = Graph::of(&Draft::from(file), &Limits::default())?;
    let text = graph.draw(args.format);
    let output = &context.output;
    if output.is_table() {
        output.raw(text.as_bytes())?;
    } else {
        let drawn = json!({ "format": args.format.as_str(), "text": text });
        output.show(&drawn, |_| String::new())?;
    }
    Ok(Exit::Done)
}

// === impl Graph ===

impl Graph {
    /// The graph of a draft. One that is larger than a topology may be is refused: nobody could
    /// read it, and drawing it might never end.
    fn of(draft: &Draft, limits: &Limits) -> Result<Self, Failure> {
        for (what, count, limit) in [
            ("LANs", draft.lans.len(), limits.lans),
            ("deckies", draft.deckies.len(), limits.deckies),
        ] {
            if count > limit {
                let text = format!("{count} {what} exceed the limit of {limit}");
                return Err(Failure::say(text).next("split it into several topologies"));
            }
        }
        let mut names = BTreeMap::new();
        for (index, lan) in draft.lans.iter().enumerate() {
            // Of two LANs with one name, the first is meant.
            names.entry(lan.name.to_ascii_lowercase()).or_insert(index);
        }
        let mut lans: Vec<Lan> = draft
            .lans
            .iter()
            .map(|lan| Lan {
                name: word(&lan.name),
                subnet: word(&lan.subnet),
                is_dmz: lan.kind.as_deref() == Some(LanKind::Dmz.as_str()),
                level: 0,
                rank: 0,
                via: None,
                reached: false,
                members: Vec::new(),
            })
            .collect();
        let deckies: Vec<Decky> = draft
            .deckies
            .iter()
            .map(|written| Decky::of(written, &names, limits))
            .collect();
        for (index, decky) in deckies.iter().enumerate() {
            for place in &decky.places {
                lans[place.lan].members.push(index);
            }
        }
        let mut graph = Self {
            name: word(&draft.name),
            lans,
            deckies,
            order: Vec::new(),
        };
        graph.reach();
        Ok(graph)
    }

    /// Finds the way to each LAN: breadth first from the DMZ, then from whatever was not reached.
    fn reach(&mut self) {
        let mut seen = vec![false; self.lans.len()];
        let dmz = (0..self.lans.len()).filter(|lan| self.lans[*lan].is_dmz);
        let roots: Vec<usize> = dmz.chain(0..self.lans.len()).collect();
        for root in roots {
            if std::mem::replace(&mut seen[root], true) {
                continue;
            }
            let reached = self.lans[root].is_dmz;
            let mut next = self.order.len();
            self.order.push(root);
            while let Some(lan) = self.order.get(next).copied() {
                self.lans[lan].rank = next;
                next += 1;
                self.lans[lan].reached = reached;
                let mut members = self.lans[lan].members.clone();
                // Of several ways, the one that routes is the way.
                members.sort_by_key(|decky| !self.deckies[*decky].routes);
                for decky in members {
                    for place in &self.deckies[decky].places {
                        if !std::mem::replace(&mut seen[place.lan], true) {
                            self.lans[place.lan].level = self.lans[lan].level + 1;
                            self.lans[place.lan].via = Some(Via { lan, decky });
                            self.order.push(place.lan);
                        }
                    }
                }
            }
        }
    }

    fn draw(&self, notation: Notation) -> String {
        match notation {
            Notation::Tree => tree::draw(self),
            Notation::Mermaid => mermaid::draw(self),
            Notation::Dot => dot::draw(self),
            Notation::Html => html::draw(self),
        }
    }

    /// The LANs that are reached over this decky from this LAN.
    fn behind(&self, decky: usize, lan: usize) -> impl Iterator<Item = usize> {
        let via = Some(Via { lan, decky });
        let places = self.deckies[decky].places.iter();
        places
            .map(|place| place.lan)
            .filter(move |there| self.lans[*there].via == via)
    }

    /// The deckies that are on no LAN of the document.
    fn lost(&self) -> impl Iterator<Item = &Decky> {
        self.deckies.iter().filter(|decky| decky.places.is_empty())
    }

    /// Every membership: the decky, where it is, and whether the LAN is reached over it.
    fn memberships(&self) -> impl Iterator<Item = (usize, &Place, bool)> {
        self.deckies
            .iter()
            .enumerate()
            .flat_map(move |(index, decky)| {
                decky.places.iter().map(move |place| {
                    let via = self.lans[place.lan].via;
                    (index, place, via.is_some_and(|via| via.decky == index))
                })
            })
    }
}

// === impl Decky ===

impl Decky {
    /// The decky with as many edges as one may have; that there are more is said.
    fn of(written: &DraftDecky, names: &BTreeMap<String, usize>, limits: &Limits) -> Self {
        let mut places: Vec<Place> = Vec::new();
        let mut nowhere = Vec::new();
        // A decky on one LAN twice is there once: the first time counts.
        let mut seen = BTreeSet::new();
        for edge in written.edges.iter().take(limits.edges_per_decky) {
            let Some(lan) = names.get(&edge.lan.to_ascii_lowercase()).copied() else {
                nowhere.push(word(&edge.lan));
                continue;
            };
            if !seen.insert(lan) {
                continue;
            }
            places.push(Place {
                lan,
                address: edge
                    .address
                    .as_deref()
                    .filter(|text| !text.is_empty())
                    .map(word),
                home: edge.home == Some(true),
            });
        }
        // One home at most, and one where there is any place: the first when nobody says.
        let home = places.iter().position(|place| place.home).unwrap_or(0);
        for (index, place) in places.iter_mut().enumerate() {
            place.home = index == home;
        }
        Self {
            name: word(&written.name),
            persona: written.persona.as_deref().map(word),
            services: written
                .services
                .iter()
                .take(LIST)
                .map(|text| word(text))
                .collect(),
            routes: written.forwards_l3,
            publishes: written.publish.iter().take(LIST).map(published).collect(),
            places,
            nowhere,
            more: written.edges.len().saturating_sub(limits.edges_per_decky),
        }
    }

    fn home(&self) -> Option<&Place> {
        self.places.iter().find(|place| place.home)
    }

    fn at(&self, lan: usize) -> Option<&Place> {
        self.places.iter().find(|place| place.lan == lan)
    }

    /// What it is, in a few words.
    fn about(&self) -> Vec<String> {
        let mut words: Vec<String> = self.persona.iter().cloned().collect();
        if !self.services.is_empty() {
            words.push(self.services.join(" "));
        }
        if self.routes {
            words.push("routes".to_owned());
        }
        if !self.publishes.is_empty() {
            words.push(format!("published {}", self.publishes.join(" ")));
        }
        words.extend(self.nowhere.iter().map(|lan| format!("no such LAN: {lan}")));
        if self.more > 0 {
            words.push(format!("and {} edges that are not drawn", self.more));
        }
        words
    }
}

fn published(publish: &DraftPublish) -> String {
    let DraftPublish {
        host_ip,
        host_port,
        decky_port,
        protocol,
    } = publish;
    let ip = host_ip.as_deref().map(|ip| format!("{ip}:"));
    let protocol = protocol.as_deref().unwrap_or("tcp");
    word(&format!(
        "{}{host_port}->{decky_port}/{protocol}",
        ip.unwrap_or_default()
    ))
}

fn word(text: &str) -> String {
    clipped(text, WORD)
}

#[cfg(test)]
mod tests;
