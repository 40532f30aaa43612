//! The effect of one operation. What it leaves behind is judged by the validator, not here: only
//! what cannot be done at all is refused.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::{DeckyPatch, LanPatch, NewDecky, NewEdge, Op, Regime};
use crate::id::{DeckyId, LanId};
use crate::name::DeckyName;
use crate::topology::allocate::{AddressAllocator, AddressRefused, check};
use crate::topology::finding::{Finding, FindingCode as Code};
use crate::topology::{Decky, Edge, Lan, Topology};

pub(super) fn apply(op: &Op, topology: &mut Topology, regime: Regime) -> Result<(), Finding> {
    match op {
        Op::AddLan(lan) => add_lan(lan, topology),
        Op::RemoveLan { lan } => remove_lan(*lan, topology),
        Op::UpdateLan { lan, patch } => update_lan(*lan, patch, topology, regime),
        Op::AddDecky(new) => add_decky(new, topology),
        Op::RemoveDecky { decky } => remove_decky(*decky, topology),
        Op::UpdateDecky { decky, patch } => update_decky(*decky, patch, topology),
        Op::AttachDecky {
            decky,
            edge,
            forwards_l3,
        } => {
            attach(*decky, *edge, topology)?;
            let decky = decky_of(topology, *decky)?;
            decky.forwards_l3 = forwards_l3.unwrap_or(decky.forwards_l3);
            Ok(())
        }
        Op::DetachDecky { decky, lan } => detach(*decky, *lan, topology),
    }
}

fn unknown(noun: &str, id: impl std::fmt::Display) -> Finding {
    Finding::error(
        Code::ReferenceUnknown,
        format!("{noun} {id}"),
        noun,
        format!("the topology has no {noun} {id}"),
    )
}

fn lan_of(topology: &mut Topology, id: LanId) -> Result<&mut Lan, Finding> {
    let mut lans = topology.lans.iter_mut();
    lans.find(|lan| lan.id == id)
        .ok_or_else(|| unknown("lan", id))
}

fn decky_of(topology: &mut Topology, id: DeckyId) -> Result<&mut Decky, Finding> {
    let mut deckies = topology.deckies.iter_mut();
    deckies
        .find(|decky| decky.id == id)
        .ok_or_else(|| unknown("decky", id))
}

fn add_lan(lan: &Lan, topology: &mut Topology) -> Result<(), Finding> {
    if topology.lan(lan.id).is_some() {
        return Err(there_already("lan", lan.id));
    }
    topology.lans.push(lan.clone());
    Ok(())
}

fn there_already(noun: &str, id: impl std::fmt::Display) -> Finding {
    Finding::error(
        Code::ChangeRefused,
        format!("{noun} {id}"),
        noun,
        format!("the topology has {noun} {id} already"),
    )
}

fn remove_lan(id: LanId, topology: &mut Topology) -> Result<(), Finding> {
    let name = lan_of(topology, id)?.name.clone();
    let at_home = topology
        .edges
        .iter()
        .find(|edge| edge.lan == id && edge.home);
    if let Some(edge) = at_home {
        let decky = topology
            .decky(edge.decky)
            .map_or_else(|| edge.decky.to_string(), |decky| decky.name.to_string());
        return Err(Finding::error(
            Code::HomeLan,
            format!("lan {name}"),
            "lan",
            format!("{decky} is at home there and would be orphaned; remove that decky first"),
        ));
    }
    topology.edges.retain(|edge| edge.lan != id);
    topology.lans.retain(|lan| lan.id != id);
    Ok(())
}

fn update_lan(
    id: LanId,
    patch: &LanPatch,
    topology: &mut Topology,
    regime: Regime,
) -> Result<(), Finding> {
    let LanPatch {
        name,
        subnet,
        subnet6,
        kind,
        driver,
    } = patch;
    let lan = lan_of(topology, id)?;
    let changed = [
        ("subnet", subnet.is_some_and(|subnet| subnet != lan.subnet)),
        (
            "subnet6",
            subnet6.is_some_and(|subnet| subnet != lan.subnet6),
        ),
        ("kind", kind.is_some_and(|kind| kind != lan.kind)),
        (
            "driver",
            driver.as_ref().is_some_and(|driver| *driver != lan.driver),
        ),
    ];
    if let (Some((field, _)), Regime::Live) =
        (changed.into_iter().find(|(_, changed)| *changed), regime)
    {
        return Err(Finding::error(
            Code::ChangeRefused,
            format!("lan {}", lan.name),
            format!("patch.{field}"),
            format!(
                "the {field} of a live LAN stays: add a LAN with the new {field}, move the deckies \
                 there, then remove this one"
            ),
        ));
    }
    if let Some(name) = name {
        lan.name = name.clone();
    }
    lan.subnet6 = subnet6.unwrap_or(lan.subnet6);
    lan.kind = kind.unwrap_or(lan.kind);
    if let Some(driver) = driver {
        lan.driver.clone_from(driver);
    }
    if let Some(subnet) = *subnet {
        let before = std::mem::replace(&mut lan.subnet, subnet);
        renumber(id, before, subnet, topology)?;
    }
    Ok(())
}

/// Moves the addresses of a LAN to its new range: one that fits stays, another keeps its host
/// part where that is free, and the rest get the next free ones.
fn renumber(
    lan: LanId,
    before: Ipv4Net,
    after: Ipv4Net,
    topology: &mut Topology,
) -> Result<(), Finding> {
    let mut allocator = AddressAllocator::new(after);
    let mut moved = Vec::new();
    for (index, edge) in topology.edges.iter().enumerate() {
        if edge.lan == lan {
            match allocator.reserve(edge.address) {
                Ok(()) | Err(AddressRefused::Taken) => {}
                Err(AddressRefused::OutOfSubnet | AddressRefused::Reserved) => moved.push(index),
            }
        }
    }
    for index in moved {
        let edge = &mut topology.edges[index];
        let host = edge
            .address
            .to_bits()
            .wrapping_sub(before.network().to_bits());
        let same = after.network().to_bits().checked_add(host);
        let same = same.map(Ipv4Addr::from_bits).filter(|address| {
            check(after, *address).is_ok() && allocator.reserve(*address).is_ok()
        });
        edge.address = same
            .or_else(|| allocator.next_free())
            .ok_or_else(|| exhausted("patch.subnet", after))?;
    }
    Ok(())
}

fn exhausted(path: &str, subnet: Ipv4Net) -> Finding {
    Finding::error(
        Code::IpExhausted,
        format!("subnet {subnet}"),
        path,
        "no address is left in the LAN; give it a larger subnet",
    )
}

fn add_decky(new: &NewDecky, topology: &mut Topology) -> Result<(), Finding> {
    if topology.decky(new.decky.id).is_some() {
        return Err(there_already("decky", new.decky.id));
    }
    topology.deckies.push(new.decky.clone());
    for edge in &new.edges {
        attach(new.decky.id, *edge, topology)?;
    }
    Ok(())
}

fn remove_decky(id: DeckyId, topology: &mut Topology) -> Result<(), Finding> {
    decky_of(topology, id)?;
    topology.edges.retain(|edge| edge.decky != id);
    topology.deckies.retain(|decky| decky.id != id);
    Ok(())
}

fn attach(id: DeckyId, new: NewEdge, topology: &mut Topology) -> Result<(), Finding> {
    let number = topology.edges_of(id).count();
    let subnet = lan_of(topology, new.lan)?.subnet;
    let decky = decky_of(topology, id)?;
    let mac = new
        .mac
        .unwrap_or_else(|| decky.persona.mac(&decky.seed, number));
    let name = decky.name.clone();
    if topology.edge(id, new.lan).is_some() {
        return Err(Finding::error(
            Code::EdgeDup,
            format!("decky {name}"),
            "lan",
            "the decky is on this LAN already",
        ));
    }
    let address = match new.address {
        Some(address) => address,
        None => AddressAllocator::of(topology, new.lan)
            .and_then(|mut allocator| allocator.next_free())
            .ok_or_else(|| exhausted("address", subnet))?,
    };
    // A decky's first LAN is its home, whatever was said.
    let home = new.home || number == 0;
    if home {
        let others = topology.edges.iter_mut().filter(|edge| edge.decky == id);
        others.for_each(|edge| edge.home = false);
    }
    let edge = Edge {
        id: new.id,
        decky: id,
        lan: new.lan,
        address,
        mac,
        home,
    };
    // Edges are grouped by decky, in the order of its interfaces.
    let last = topology.edges.iter().rposition(|edge| edge.decky == id);
    let place = last.map_or(topology.edges.len(), |last| last + 1);
    topology.edges.insert(place, edge);
    Ok(())
}

fn detach(id: DeckyId, lan: LanId, topology: &mut Topology) -> Result<(), Finding> {
    let name = decky_of(topology, id)?.name.clone();
    lan_of(topology, lan)?;
    let Some(edge) = topology.edge(id, lan) else {
        return Err(not_attached(&name, "lan"));
    };
    // Its only LAN can be left, to undo that it was joined; the shape rules then have their say.
    if edge.home && topology.edges_of(id).count() > 1 {
        return Err(at_home(&name));
    }
    topology
        .edges
        .retain(|edge| edge.decky != id || edge.lan != lan);
    Ok(())
}

/// Why a decky cannot leave a LAN.
pub(super) fn at_home(decky: &DeckyName) -> Finding {
    Finding::error(
        Code::HomeLan,
        format!("decky {decky}"),
        "lan",
        "the decky is at home there; make another LAN its home, or remove the decky",
    )
}

fn not_attached(decky: &DeckyName, path: &str) -> Finding {
    Finding::error(
        Code::EdgeUnknown,
        format!("decky {decky}"),
        path,
        "the decky is not on this LAN",
    )
}

fn update_decky(id: DeckyId, patch: &DeckyPatch, topology: &mut Topology) -> Result<(), Finding> {
    let DeckyPatch {
        name,
        hostname,
        archetype,
        services,
        persona,
        forwards_l3,
        publish,
        mutate_every,
        seed,
        edges,
    } = patch.clone();
    let decky = decky_of(topology, id)?;
    decky.name = name.unwrap_or_else(|| decky.name.clone());
    decky.hostname = hostname.unwrap_or_else(|| decky.hostname.clone());
    decky.archetype = archetype.unwrap_or_else(|| decky.archetype.take());
    decky.services = services.unwrap_or_else(|| std::mem::take(&mut decky.services));
    decky.persona = persona.unwrap_or(decky.persona);
    decky.forwards_l3 = forwards_l3.unwrap_or(decky.forwards_l3);
    decky.publish = publish.unwrap_or_else(|| std::mem::take(&mut decky.publish));
    decky.mutate_every = mutate_every.unwrap_or(decky.mutate_every);
    decky.seed = seed.unwrap_or(decky.seed);
    let name = decky.name.clone();
    for (number, patch) in edges.into_iter().enumerate() {
        if topology.edge(id, patch.lan).is_none() {
            return Err(not_attached(&name, &format!("patch.edges[{number}].lan")));
        }
        for edge in topology.edges.iter_mut().filter(|edge| edge.decky == id) {
            if edge.lan == patch.lan {
                edge.address = patch.address.unwrap_or(edge.address);
                edge.mac = patch.mac.unwrap_or(edge.mac);
                edge.home |= patch.becomes_home;
            } else if patch.becomes_home {
                edge.home = false;
            }
        }
    }
    Ok(())
}
