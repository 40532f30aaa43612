//! The layout: where a person has put things on the canvas. It stands beside a topology and is no
//! part of it: moving a box changes nothing that a host holds.

use std::collections::BTreeMap;

use super::Topology;
use crate::id::{DeckyId, LanId};

/// A place on the canvas, in whole pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Point {
    /// From the left.
    pub x: i32,
    /// From the top.
    pub y: i32,
}

/// A box on the canvas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Area {
    /// Its upper left corner.
    pub at: Point,
    /// Its width.
    pub width: u32,
    /// Its height.
    pub height: u32,
}

/// Where the parts of one topology are. What is not here is laid out by whoever draws it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Layout {
    /// Boxes of LANs.
    pub lans: BTreeMap<LanId, Area>,
    /// Places of deckies, within their home LAN.
    pub deckies: BTreeMap<DeckyId, Point>,
}

impl Layout {
    /// Drops the places of what `topology` does not have.
    pub fn prune(&mut self, topology: &Topology) {
        self.lans.retain(|id, _| topology.lan(*id).is_some());
        self.deckies.retain(|id, _| topology.decky(*id).is_some());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit;
    use crate::topology::hydrate::hydrate;

    #[test]
    fn a_layout_forgets_what_is_gone_and_changes_no_hash() {
        let mut topology = testkit::topology(&testkit::draft(1, &[(0, false, Vec::new())]));
        let before = hydrate(&topology).version_hash();
        let mut layout = Layout::default();
        for lan in &topology.lans {
            layout.lans.insert(lan.id, Area::default());
        }
        let decky = topology.deckies[0].id;
        layout.deckies.insert(decky, Point { x: -40, y: 60 });
        assert_eq!(hydrate(&topology).version_hash(), before);

        let gone = topology.lans.pop().expect("there are two LANs");
        layout.prune(&topology);
        assert!(!layout.lans.contains_key(&gone.id) && layout.lans.len() == 1);
        assert_eq!(layout.deckies.len(), 1);
    }
}
