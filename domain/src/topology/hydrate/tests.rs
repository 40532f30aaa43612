//! The laws of the version hash.

use proptest::prelude::*;

use super::*;
use crate::revision::Revision;
use crate::service::{OptionValue, ServiceKind, ServiceOptions};
use crate::testkit::any_topology;

/// Edits that change how a decky or LAN behaves.
fn behave_differently(topology: &Topology, choice: usize) -> Option<Topology> {
    let mut edited = topology.clone();
    match choice % 9 {
        0 => {
            let decky = edited.deckies.first_mut()?;
            if decky.services.remove(&ServiceKind::Ssh).is_none() {
                decky
                    .services
                    .insert(ServiceKind::Ssh, ServiceOptions::default());
            }
        }
        1 => {
            let decky = edited.deckies.first_mut()?;
            let options = decky.services.get_mut(&ServiceKind::Ssh)?;
            options
                .set(
                    ServiceKind::Ssh,
                    "banner",
                    OptionValue::Text("OpenSSH_1".to_owned()),
                )
                .expect("the option exists");
        }
        8 => edited.lans.first_mut()?.subnet6 = Some("fd00:9::/64".parse().expect("a range")),
        2 => edited.deckies.first_mut()?.forwards_l3 ^= true,
        3 => edited.deckies.first_mut()?.persona = Persona::Cisco,
        4 => edited.edges.first_mut()?.address = Ipv4Addr::new(10, 9, 0, 99),
        5 => edited.deckies.first_mut()?.seed = Seed::new([7; 32]),
        6 => {
            edited.deckies.first_mut()?.publish.push(Publish {
                host_ip: None,
                host_port: 9,
                decky_port: 9,
                protocol: crate::topology::Protocol::Udp,
            });
        }
        _ => edited.lans.first_mut()?.subnet = "10.10.0.0/24".parse().expect("a subnet"),
    }
    Some(edited)
}

proptest! {
    #[test]
    fn order_and_revision_leave_the_hash_equal(topology in any_topology(), turn in any::<usize>()) {
        let mut shuffled = topology.clone();
        shuffled.lans.reverse();
        let deckies = shuffled.deckies.len().max(1);
        shuffled.deckies.rotate_left(turn % deckies);
        shuffled.edges.reverse();
        shuffled.revision = Revision::new(77);
        prop_assert_eq!(hydrate(&shuffled), hydrate(&topology));
        prop_assert_eq!(hydrate(&shuffled).version_hash(), hydrate(&topology).version_hash());
    }

    #[test]
    fn the_hash_is_equal_exactly_when_the_hydrated_value_is(
        topology in any_topology(),
        choice in any::<usize>(),
    ) {
        let before = hydrate(&topology);
        if let Some(edited) = behave_differently(&topology, choice) {
            let after = hydrate(&edited);
            prop_assert_eq!(before == after, before.version_hash() == after.version_hash());
            prop_assert_ne!(&before, &after);
        }
    }

    #[test]
    fn what_needs_no_recreation_leaves_the_spec_equal(topology in any_topology()) {
        for choice in [0, 1, 4] {
            if let Some(edited) = behave_differently(&topology, choice) {
                let (before, after) = (hydrate(&topology), hydrate(&edited));
                for (before, after) in before.deckies.iter().zip(&after.deckies) {
                    prop_assert_eq!(before.spec(), after.spec());
                }
            }
        }
    }
}

/// The original strips words such as `version` and `x` wherever they stand, a service's options
/// included, and keeps `state`.
#[test]
fn an_option_counts_whatever_it_is_called() {
    use crate::testkit::{draft, topology};
    let topology = topology(&draft(0, &[(0, false, vec![ServiceKind::Dns])]));
    let with = |version: &str| {
        let mut edited = topology.clone();
        let options = edited.deckies[0].services.get_mut(&ServiceKind::Dns);
        let options = options.expect("it serves dns");
        let version = OptionValue::Text(version.to_owned());
        let set = options.set(ServiceKind::Dns, "version", version);
        set.expect("the option exists");
        hydrate(&edited).version_hash()
    };
    assert_ne!(with("9.16"), with("9.18"));
    assert_ne!(with("9.16"), hydrate(&topology).version_hash());
}
