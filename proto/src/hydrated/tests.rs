//! The document comes back as it went, and nothing else does.

use domain::topology::Topology;
use domain::topology::draft::{Draft, Entropy, resolve};
use domain::topology::hydrate::hydrate;
use domain::topology::validate::Limits;

use super::*;
use crate::topology_file::TopologyFile;

struct Counting(u128);

impl Entropy for Counting {
    fn uuid(&mut self) -> uuid::Uuid {
        self.0 += 1;
        uuid::Uuid::from_u128(self.0)
    }

    fn bytes(&mut self) -> [u8; 32] {
        [7; 32]
    }
}

fn office() -> Topology {
    let file = serde_json::json!({
        "name": "office",
        "lans": [
            {"name": "dmz", "subnet": "10.1.0.0/24", "kind": "dmz"},
            {"name": "inner", "subnet": "10.1.1.0/24"},
        ],
        "deckies": [
            {
                "name": "edge", "hostname": "www01", "persona": "bsd", "forwards_l3": true,
                "services": ["ssh", "http"],
                "service_config": {"ssh": {"accept_after": 2, "banner": "OpenSSH_9.2 \"quoted\""}},
                "publish": [{"host_ip": "127.0.0.1", "host_port": 2222, "decky_port": 22}],
                "edges": [{"lan": "dmz", "address": "10.1.0.9"}, {"lan": "inner"}],
            },
            {"name": "db", "services": ["redis"], "edges": [{"lan": "INNER", "mac": "00:25:90:0a:0b:0c"}]},
        ],
    });
    let file: TopologyFile = serde_json::from_value(file).expect("a topology file");
    let resolved = resolve(
        &Draft::from(file),
        None,
        &Limits::default(),
        &mut Counting(0),
    );
    assert_eq!(resolved.findings, []);
    resolved.topology
}

#[test]
fn a_document_comes_back_as_it_went_under_its_hash() {
    let hydrated = hydrate(&office());
    let bytes = encode(&hydrated);
    let back = decode_announced(&bytes, hydrated.version_hash()).expect("it was encoded");
    assert_eq!(back, hydrated);
    assert_eq!(encode(&back), bytes);
}

#[test]
fn a_document_that_is_not_the_announced_one_is_refused() {
    let hydrated = hydrate(&office());
    let text = String::from_utf8(encode(&hydrated)).expect("JSON is UTF-8");
    let edited = text.replace("\"host_port\":2222", "\"host_port\":2223");
    let refused = decode_announced(edited.as_bytes(), hydrated.version_hash());
    assert!(
        matches!(refused, Err(InvalidHydrated::Hash { .. })),
        "{refused:?}"
    );
    let unknown = text.replace("\"schema\":1", "\"schema\":1,\"x\":1");
    assert!(matches!(
        decode(unknown.as_bytes()),
        Err(InvalidHydrated::Json(_))
    ));
    let newer = text.replace("\"schema\":1", "\"schema\":9");
    assert!(matches!(
        decode(newer.as_bytes()),
        Err(InvalidHydrated::Schema { got: 9 })
    ));
}

#[test]
fn an_exported_topology_is_read_back_to_the_same_machines() {
    let topology = office();
    let file = TopologyFile::from(&topology);
    let resolved = resolve(
        &Draft::from(file),
        None,
        &Limits::default(),
        &mut Counting(1000),
    );
    assert_eq!(resolved.findings, []);
    let (mut before, mut after) = (hydrate(&topology), hydrate(&resolved.topology));
    // Identities are new; everything that an attacker meets is not.
    for hydrated in [&mut before, &mut after] {
        hydrated.deckies.sort_by(|a, b| a.name.cmp(&b.name));
    }
    let seen = |it: &HydratedTopology| -> Vec<_> {
        it.deckies
            .iter()
            .map(|decky| {
                let faces: Vec<_> = decky
                    .interfaces
                    .iter()
                    .map(|face| (face.address, face.mac))
                    .collect();
                (decky.spec(), decky.services.clone(), faces)
            })
            .collect()
    };
    assert_eq!(seen(&before), seen(&after));
}
