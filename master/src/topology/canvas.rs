//! What an editor asks for while it draws: where things are drawn, and what is free.

use std::net::Ipv4Addr;

use domain::id::LanId;
use domain::topology::allocate::{AddressAllocator, SubnetAllocator, SubnetBase};
use domain::topology::layout::{Area, Layout, Point};
use domain::topology::{Lan, Topology};
use ipnet::Ipv4Net;

use super::edit::find_decky;
use super::{FindError, Topologies};
use crate::db::StoreError;
use crate::db::queue::Place;

/// Where one thing is to be drawn, by the id or the name of the thing.
#[derive(Debug, Clone, Default)]
pub struct Drawn {
    /// Boxes of LANs.
    pub lans: Vec<(String, Area)>,
    /// Places of deckies.
    pub deckies: Vec<(String, Point)>,
}

/// Why there is no suggestion, or no layout.
#[derive(Debug, thiserror::Error)]
pub enum CanvasError {
    /// Nothing has that id or name.
    #[error(transparent)]
    Find(#[from] FindError),
    /// Nothing is left of a range.
    #[error("nothing is free in {0}")]
    Exhausted(Ipv4Net),
    /// The store failed.
    #[error("the canvas could not be stored or read")]
    Store(#[source] StoreError),
}

// === impl Topologies ===

impl Topologies {
    /// Where the parts of a topology are drawn.
    pub async fn layout(&self, reference: &str) -> Result<Layout, CanvasError> {
        let topology = self.find(reference).await?.topology;
        self.layout_of(&topology).await
    }

    /// Moves what is named; the rest stays.
    pub async fn draw(&self, reference: &str, drawn: &Drawn) -> Result<Layout, CanvasError> {
        let topology = self.find(reference).await?.topology;
        let mut places = Vec::new();
        for (reference, area) in &drawn.lans {
            places.push(Place {
                object: find_lan(&topology, reference)?.id.uuid(),
                x: area.at.x.into(),
                y: area.at.y.into(),
                size: Some((area.width.into(), area.height.into())),
            });
        }
        for (reference, at) in &drawn.deckies {
            places.push(Place {
                object: find_decky(&topology, reference)?.id.uuid(),
                x: at.x.into(),
                y: at.y.into(),
                size: None,
            });
        }
        self.store
            .put_places(topology.id, &places)
            .await
            .map_err(CanvasError::Store)?;
        self.bus.publish(
            format!("topology.{}.layout", topology.id),
            serde_json::json!({ "topology_id": topology.id.to_string() }),
        );
        self.layout_of(&topology).await
    }

    /// A subnet that overlaps no LAN of a topology that is not torn down.
    pub async fn next_subnet(
        &self,
        reference: &str,
        base: SubnetBase,
    ) -> Result<Ipv4Net, CanvasError> {
        self.find(reference).await?;
        let taken = self.editor.taken_subnets().await;
        let taken = taken.map_err(CanvasError::Store)?;
        SubnetAllocator::new(base, taken)
            .next_free()
            .ok_or(CanvasError::Exhausted(base.range()))
    }

    /// An address that no decky has on a LAN, with the LAN's range.
    pub async fn next_address(
        &self,
        reference: &str,
        lan: &str,
    ) -> Result<(Ipv4Net, Ipv4Addr), CanvasError> {
        let topology = self.find(reference).await?.topology;
        let lan = find_lan(&topology, lan)?;
        let address = AddressAllocator::of(&topology, lan.id)
            .and_then(|mut allocator| allocator.next_free())
            .ok_or(CanvasError::Exhausted(lan.subnet))?;
        Ok((lan.subnet, address))
    }

    async fn layout_of(&self, topology: &Topology) -> Result<Layout, CanvasError> {
        let places = self.store.places(topology.id).await;
        let mut layout = Layout::default();
        for place in places.map_err(CanvasError::Store)? {
            let at = Point {
                x: clamped(place.x),
                y: clamped(place.y),
            };
            let lan = topology
                .lans
                .iter()
                .find(|lan| lan.id.uuid() == place.object);
            if let Some(lan) = lan {
                let (width, height) = place.size.unwrap_or_default();
                let area = Area {
                    at,
                    width: u32::try_from(width).unwrap_or_default(),
                    height: u32::try_from(height).unwrap_or_default(),
                };
                layout.lans.insert(lan.id, area);
                continue;
            }
            let mut deckies = topology.deckies.iter();
            if let Some(decky) = deckies.find(|decky| decky.id.uuid() == place.object) {
                layout.deckies.insert(decky.id, at);
            }
        }
        Ok(layout)
    }
}

fn clamped(coordinate: i64) -> i32 {
    i32::try_from(coordinate).unwrap_or_default()
}

fn find_lan<'a>(topology: &'a Topology, reference: &str) -> Result<&'a Lan, FindError> {
    let id: Option<LanId> = reference.parse().ok();
    id.and_then(|id| topology.lan(id))
        .or_else(|| {
            let mut lans = topology.lans.iter();
            lans.find(|lan| lan.name.as_str().eq_ignore_ascii_case(reference))
        })
        .ok_or_else(|| FindError::Unknown {
            noun: "lan",
            key: reference.to_owned(),
        })
}
