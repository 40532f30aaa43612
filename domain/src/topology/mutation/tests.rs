//! What the tests of mutations share.

use std::collections::BTreeMap;

use super::draft::{Context, DeckyPatchDraft, LanPatchDraft, MutationDraft, OpDraft, resolve};
use super::*;
use crate::service::{OptionValue, ServiceKind};
use crate::testkit::{self, Counting, plain};
use crate::topology::allocate::{SubnetAllocator, SubnetBase};
use crate::topology::draft::{DraftDecky, DraftEdge, DraftLan, DraftPublish};
use crate::topology::hydrate::hydrate;
use crate::topology::validate::validate;

mod edits;
mod history;
mod laws;
mod refusals;

/// A DMZ, two LANs in a row, a web server in the DMZ and a gateway for each inner LAN.
fn sample() -> Topology {
    let services = vec![ServiceKind::Ssh, ServiceKind::Http];
    let topology = testkit::topology(&testkit::draft(
        2,
        &[
            (0, false, services.clone()),
            (1, true, services.clone()),
            (2, true, services.clone()),
            (2, false, services),
        ],
    ));
    assert_eq!(validate(&topology), []);
    topology
}

fn read(
    draft: &MutationDraft,
    topology: &Topology,
    regime: Regime,
    entropy: &mut Counting,
) -> Result<Mutation, Vec<Finding>> {
    let base: SubnetBase = "10.9.0.0/16".parse().expect("a base");
    let taken = topology.lans.iter().map(|lan| lan.subnet);
    resolve(
        draft,
        &mut Context {
            topology,
            regime,
            limits: &Limits::default(),
            subnets: &mut SubnetAllocator::new(base, taken),
            entropy,
        },
    )
}

fn run(
    topology: &Topology,
    draft: &MutationDraft,
    regime: Regime,
) -> Result<Applied, Vec<Finding>> {
    // Each revision draws ids of its own.
    let mut entropy = Counting(5000 + 100 * u128::from(topology.revision.get()));
    read(draft, topology, regime, &mut entropy)?.apply(topology, regime, &Limits::default())
}

fn live(topology: &Topology, op: OpDraft) -> Result<Applied, Vec<Finding>> {
    run(topology, &MutationDraft::One(op), Regime::Live)
}

fn done(topology: &Topology, op: OpDraft) -> Topology {
    let applied = live(topology, op).expect("it applies");
    assert_eq!(applied.topology.revision, topology.revision.next());
    applied.topology
}

/// Codes and places of a refusal.
fn refused(topology: &Topology, op: OpDraft) -> Vec<(&'static str, String)> {
    let findings = live(topology, op).expect_err("it is refused");
    assert!(findings.iter().all(Finding::is_error));
    let place = |finding: Finding| (finding.code.as_str(), finding.path);
    findings.into_iter().map(place).collect()
}

fn lan(name: &str) -> DraftLan {
    DraftLan {
        name: name.to_owned(),
        ..DraftLan::default()
    }
}

fn on(lan: &str) -> DraftEdge {
    DraftEdge {
        lan: lan.to_owned(),
        ..DraftEdge::default()
    }
}

fn decky(name: &str, lans: &[&str], services: &[&str]) -> Box<DraftDecky> {
    Box::new(DraftDecky {
        name: name.to_owned(),
        services: services.iter().map(|name| (*name).to_owned()).collect(),
        edges: lans.iter().map(|lan| on(lan)).collect(),
        ..DraftDecky::default()
    })
}

fn update(decky: &str, patch: DeckyPatchDraft) -> OpDraft {
    OpDraft::UpdateDecky {
        decky: decky.to_owned(),
        patch: Box::new(patch),
    }
}

fn attach(decky: &str, edge: DraftEdge) -> OpDraft {
    OpDraft::AttachDecky {
        decky: decky.to_owned(),
        edge,
        forwards_l3: None,
    }
}

fn detach(decky: &str, lan: &str) -> OpDraft {
    OpDraft::DetachDecky {
        decky: decky.to_owned(),
        lan: lan.to_owned(),
    }
}

fn remove_lan(lan: &str) -> OpDraft {
    OpDraft::RemoveLan {
        lan: lan.to_owned(),
    }
}

fn remove_decky(decky: &str) -> OpDraft {
    OpDraft::RemoveDecky {
        decky: decky.to_owned(),
    }
}

fn rename_lan(lan: &str, name: &str) -> OpDraft {
    let name = Some(name.to_owned());
    OpDraft::UpdateLan {
        lan: lan.to_owned(),
        patch: LanPatchDraft {
            name,
            ..LanPatchDraft::default()
        },
    }
}
