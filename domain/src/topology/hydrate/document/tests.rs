//! The document, against one that stands here and against one that is made in another way.

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::*;
use crate::service::{OptionRule, ServiceKind};
use crate::testkit::{any_topology, draft, rfc8785, topology};
use crate::topology::hydrate::hydrate;

/// Something of everything that a document may say.
fn specimen() -> HydratedTopology {
    use ServiceKind::{Dns, Http, Ssh};
    let mut topology = topology(&draft(
        2,
        &[
            (0, false, vec![Ssh, Dns]),
            (1, true, vec![Http]),
            (2, true, vec![]),
        ],
    ));
    topology.lans[0].driver = "macvlan:eth0".parse().expect("a driver");
    topology.lans[1].subnet6 = Some("fd00:9:0:1::/64".parse().expect("a range"));
    let first = &mut topology.deckies[0];
    first.publish.push(Publish {
        host_ip: Some(Ipv4Addr::LOCALHOST),
        host_port: 8053,
        decky_port: 53,
        protocol: Protocol::Udp,
    });
    let banner = "\"\\ \u{e9}\u{1f600}/".to_owned();
    for (kind, name, value) in [
        (Dns, "recursion", OptionValue::Boolean(true)),
        (Ssh, "accept_after", OptionValue::Integer(2)),
        (Ssh, "banner", OptionValue::Text(banner)),
    ] {
        let options = first.services.get_mut(&kind).expect("it is served");
        options.set(kind, name, value).expect("the option exists");
    }
    let mut hydrated = hydrate(&topology);
    let sysctls = Arc::make_mut(&mut hydrated.deckies[0].sysctls);
    for key in ["\u{1f600}", "\u{fb33}", "\n"] {
        sysctls.insert(key.to_owned(), "\u{1f}".to_owned());
    }
    hydrated
}

/// The document as a value, made without anything of what is tried here.
fn value(topology: &HydratedTopology) -> Value {
    json!({
        "schema": 1,
        "id": topology.id.to_string(),
        "lans": topology.lans.iter().map(lan).collect::<Vec<_>>(),
        "deckies": topology.deckies.iter().map(decky).collect::<Vec<_>>(),
    })
}

fn lan(lan: &HydratedLan) -> Value {
    json!({
        "id": lan.id.to_string(),
        "name": lan.name.as_str(),
        "subnet": lan.subnet.to_string(),
        "subnet6": lan.subnet6.map(|subnet| subnet.to_string()),
        "gateway": lan.gateway.to_string(),
        "kind": lan.kind.as_str(),
        "driver": lan.driver.to_string(),
    })
}

fn decky(decky: &HydratedDecky) -> Value {
    let interface = |face: &HydratedInterface| {
        json!({
            "lan": face.lan.to_string(),
            "address": face.address.to_string(),
            "address6": face.address6.map(|address| address.to_string()),
            "mac": face.mac.to_string(),
        })
    };
    let publish = |publish: &Publish| {
        json!({
            "host_ip": publish.host_ip.map(|address| address.to_string()),
            "host_port": publish.host_port,
            "decky_port": publish.decky_port,
            "protocol": publish.protocol.as_str(),
        })
    };
    let route = |route: &Route| json!({ "to": route.to.to_string(), "via": route.via.to_string() });
    let option = |value: &OptionValue| match value {
        OptionValue::Text(text) => json!(text),
        OptionValue::Integer(number) => json!(number),
        OptionValue::Boolean(flag) => json!(flag),
    };
    let service = |(kind, options): (&ServiceKind, &ServiceOptions)| {
        let options: serde_json::Map<_, _> = options
            .iter()
            .map(|(name, value)| (name.to_owned(), option(value)))
            .collect();
        (kind.to_string(), Value::Object(options))
    };
    json!({
        "id": decky.id.to_string(),
        "name": decky.name.as_str(),
        "hostname": decky.hostname.as_str(),
        "persona": decky.persona.as_str(),
        "seed": decky.seed.hex(),
        "forwards_l3": decky.forwards_l3,
        "services": decky.services.iter().map(service).collect::<serde_json::Map<_, _>>(),
        "interfaces": decky.interfaces.iter().map(interface).collect::<Vec<_>>(),
        "routes": decky.routes.iter().map(route).collect::<Vec<_>>(),
        "publish": decky.publish.iter().map(publish).collect::<Vec<_>>(),
        "sysctls": *decky.sysctls,
        "limits": {
            "memory_mib": decky.limits.memory_mib,
            "pids": decky.limits.pids,
            "cpu_milli": decky.limits.cpu_milli,
        },
    })
}

fn hashed(text: &str) -> [u8; 32] {
    Sha256::digest(text).into()
}

/// Were these bytes others, every agent would be sent what it already holds; were the specs others, it
/// would make all of it anew.
#[test]
fn a_topology_gives_these_bytes_on_every_machine_and_release() {
    let specimen = specimen();
    assert_eq!(specimen.document() + "\n", include_str!("golden.json"));
    assert_eq!(
        [
            specimen.version_hash().to_string(),
            specimen.lans[0].spec().to_string(),
            specimen.deckies[0].spec().to_string(),
        ],
        [
            "14821a87a0c3c560592addc0b37a49c672128c85baa37f1ba1261ebb5155b375",
            "80d696f14346562928ff43da533f30612070eb95d4cc17e4435f81e34994058f",
            "ab28b471ae6fc38b46c36cd4cd4c3171e4451bfed18f2e61d3be8d513e2427ce",
        ]
    );
}

proptest! {
    #[test]
    fn a_document_is_what_another_writer_writes_and_its_digest_is_the_hash(
        topology in any_topology(),
        speaks6 in any::<bool>(),
        sysctls in prop::collection::btree_map(any::<String>(), any::<String>(), 0..4),
    ) {
        let mut topology = topology;
        topology.lans[0].subnet6 = speaks6.then(|| "fd00:9::/64".parse().expect("a range"));
        let mut hydrated = hydrate(&topology);
        for decky in &mut hydrated.deckies {
            Arc::make_mut(&mut decky.sysctls).extend(sysctls.clone());
        }
        let document = hydrated.document();
        prop_assert_eq!(&document, &rfc8785(&value(&hydrated)));
        prop_assert_eq!(*hydrated.version_hash().bytes(), hashed(&document));
    }
}

#[test]
fn a_spec_is_the_digest_of_what_cannot_be_altered() {
    let part = |mut whole: Value, keys: &[&str]| {
        let members = whole.as_object_mut().expect("it is an object");
        members.retain(|key, _| keys.contains(&key.as_str()));
        hashed(&rfc8785(&whole))
    };
    let specimen = specimen();
    for of in &specimen.lans {
        let keys = ["subnet", "subnet6", "gateway", "driver"];
        assert_eq!(*of.spec().bytes(), part(lan(of), &keys));
    }
    for of in &specimen.deckies {
        let keys = ["hostname", "persona", "seed", "publish", "limits"];
        assert_eq!(*of.spec().bytes(), part(decky(of), &keys));
    }
}

#[test]
fn no_option_takes_a_number_that_readers_of_json_disagree_on() {
    const MOST: i64 = (1 << 53) - 1;
    for option in ServiceKind::ALL.iter().flat_map(|kind| kind.schema()) {
        if let OptionRule::Integer { min, max } = option.rule {
            assert!(-MOST <= min && max <= MOST, "{}", option.name);
        }
    }
}
