//! The allocators against the recorded cases, and where they differ from them on purpose.

use serde_json::Value;

use super::*;

fn cases(kind: &str) -> Vec<Value> {
    let all: Vec<Value> =
        serde_json::from_str(include_str!("../../../../tests/vectors/allocators.json"))
            .expect("the vectors are JSON");
    all.into_iter()
        .filter(|case| case["kind"] == kind)
        .collect()
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

#[test]
fn addresses_are_handed_out_as_recorded() {
    let mut seen = 0;
    for case in cases("ip") {
        let subnet = text(&case["subnet"]);
        let Ok(net) = subnet.parse::<Ipv4Net>() else {
            assert_eq!(subnet, "bad");
            continue;
        };
        // A /31 and a /32 have no room: their addresses are the network's and the broadcast's.
        if net.prefix_len() > 30 {
            assert_eq!(AddressAllocator::new(net).next_free(), None);
            continue;
        }
        let mut allocator = AddressAllocator::new(net);
        for step in case["steps"].as_array().expect("steps") {
            let result = &step["result"];
            let address = step["op"]
                .get(1)
                .and_then(|text| text.as_str()?.parse().ok());
            seen += 1;
            match (text(&step["op"][0]), address) {
                ("next_free", _) => {
                    let got = allocator.next_free().map(|address| address.to_string());
                    assert_eq!(got.as_deref(), result.as_str(), "{step}");
                }
                ("reserve", Some(address)) => match allocator.reserve(address) {
                    // Taken twice is told apart, and nothing changes.
                    Ok(()) | Err(AddressRefused::Taken) => {
                        assert_eq!(*result, Value::Null, "{step}")
                    }
                    Err(AddressRefused::OutOfSubnet | AddressRefused::Reserved) => {
                        assert!(result.get("error").is_some(), "{step}");
                    }
                },
                ("release", Some(address)) => allocator.release(address),
                ("is_free", Some(address)) => {
                    assert_eq!(Some(allocator.is_free(address)), result.as_bool(), "{step}");
                }
                // No address is made of the word `bogus` in the first place.
                (_, None) => assert_eq!(step["op"][1], "bogus"),
                (other, _) => panic!("{other}"),
            }
        }
    }
    assert!(seen > 20, "{seen}");
}

#[test]
fn subnets_are_handed_out_as_recorded_but_never_over_a_part_that_is_taken() {
    for case in cases("subnet") {
        let base: SubnetBase = text(&case["base"]).parse().expect("a base");
        let reserved: Vec<Ipv4Net> = case["reserved"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|net| text(net).parse().expect("a subnet"))
            .collect();
        let mut allocator = SubnetAllocator::new(base, reserved);
        for step in case["steps"].as_array().expect("steps") {
            let net = step["op"]
                .get(1)
                .map(|net| text(net).parse().expect("a subnet"));
            match (text(&step["op"][0]), net) {
                ("next_free", _) => {
                    let got = allocator.next_free().map(|net| net.to_string());
                    // 172.20.3.0/25 is taken: the recorded 172.20.3.0/24 would overlap it.
                    let want = match step["result"].as_str() {
                        Some("172.20.3.0/24") if case["base"] == "172.20." => Some("172.20.4.0/24"),
                        Some("172.20.4.0/24") if case["base"] == "172.20." => Some("172.20.5.0/24"),
                        other => other,
                    };
                    assert_eq!(got.as_deref(), want, "{step}");
                }
                ("reserve", Some(net)) => {
                    allocator.reserve(net);
                    allocator.reserve(net);
                }
                ("is_free", Some(net)) => {
                    assert_eq!(Some(allocator.is_free(net)), step["result"].as_bool());
                }
                (other, _) => panic!("{other}"),
            }
        }
    }
}

#[test]
fn a_subnet_is_reserved_by_range_and_not_by_its_text() {
    let base = SubnetBase::default();
    let wide = "172.16.0.0/12".parse().expect("a subnet");
    assert_eq!(SubnetAllocator::new(base, [wide]).next_free(), None);
    let narrow = "172.20.0.128/30".parse().expect("a subnet");
    let next = SubnetAllocator::new(base, [narrow]).next_free();
    assert_eq!(
        next.map(|net| net.to_string()).as_deref(),
        Some("172.20.1.0/24")
    );
}

#[test]
fn a_base_is_from_12_to_24_bits_and_a_12_has_4096_subnets() {
    for (text, slots) in [
        ("172.16.0.0/12", 4096),
        ("172.20", 256),
        ("10.5.", 256),
        ("10.5.6.0", 1),
        ("10.5.6.0/24", 1),
        ("192.168.0.0/20", 16),
    ] {
        assert_eq!(text.parse().map(SubnetBase::slots), Ok(slots), "{text}");
    }
    for text in [
        "",
        "10",
        "10.0.0.0/8",
        "10.0.0.0/11",
        "10.0.0.0/25",
        "10.0.0.1/24",
        "172.20.1",
        "300.1",
        "172.20/16",
        "::/16",
        "10.5.6.7",
    ] {
        assert!(text.parse::<SubnetBase>().is_err(), "{text}");
    }
    let mut allocator = SubnetAllocator::new("172.16.0.0/12".parse().expect("a base"), []);
    let handed: Vec<_> = std::iter::from_fn(|| allocator.next_free()).collect();
    assert_eq!(handed.len(), 4096);
    assert!(handed.is_sorted_by(|a, b| a < b));
}
