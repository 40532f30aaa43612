use serde_json::{Value, json};

use super::*;

fn written(words: &[&str]) -> Result<OpShape, String> {
    let fields: Vec<String> = words[1..].iter().map(|word| (*word).to_owned()).collect();
    read(words[0], &fields)
}

fn body(words: &[&str]) -> Value {
    serde_json::to_value(written(words).expect("an operation")).expect("plain")
}

#[test]
fn each_operation_is_written_as_key_and_value() {
    let table = [
        (
            &["add_lan", "name=lab", "subnet=10.9.5.0/24", "kind=internal"][..],
            json!({"op": "add_lan", "name": "lab", "subnet": "10.9.5.0/24", "kind": "internal"}),
        ),
        (
            &["remove_lan", "lan=lab"],
            json!({"op": "remove_lan", "lan": "lab"}),
        ),
        (
            &["update_lan", "lan=lab", "name=vault", "subnet6="],
            json!({"op": "update_lan", "lan": "lab", "patch": {"name": "vault", "subnet6": null}}),
        ),
        (
            &[
                "add_decky",
                "name=db",
                "lan=inner@10.9.1.30",
                "lan=lab",
                "services=redis,ssh",
                "ssh.accept_after=3",
                "ssh.banner=\"22\"",
                "forwards_l3=true",
                "persona=linux",
                "publish=2222:22",
                "publish=10.0.0.1:5353:53/udp",
                "mutate_every=6h",
            ],
            json!({
                "op": "add_decky", "name": "db", "persona": "linux", "services": ["redis", "ssh"],
                "service_config": {"ssh": {"accept_after": 3, "banner": "22"}}, "forwards_l3": true,
                "publish": [{"host_port": 2222, "decky_port": 22},
                    {"host_ip": "10.0.0.1", "host_port": 5353, "decky_port": 53, "protocol": "udp"}],
                "mutate_every": "6h",
                "edges": [{"lan": "inner", "address": "10.9.1.30"}, {"lan": "lab"}],
            }),
        ),
        (
            &["remove_decky", "decky=db"],
            json!({"op": "remove_decky", "decky": "db"}),
        ),
        (
            &[
                "update_decky",
                "decky=db",
                "services=",
                "archetype=",
                "mutate_every=",
                "publish=",
                "ftp.anonymous=true",
                "lan=inner@10.9.1.31",
                "home=lab",
            ],
            json!({"op": "update_decky", "decky": "db", "patch": {
                "services": [], "archetype": null, "mutate_every": null, "publish": [],
                "service_config": {"ftp": {"anonymous": true}},
                "edges": [{"lan": "inner", "address": "10.9.1.31"}, {"lan": "lab", "home": true}],
            }}),
        ),
        (
            &[
                "attach_decky",
                "decky=db",
                "lan=lab",
                "address=10.9.5.9",
                "forwards_l3=no",
            ],
            json!({"op": "attach_decky", "decky": "db", "lan": "lab", "address": "10.9.5.9", "forwards_l3": false}),
        ),
        (
            &["detach_decky", "decky=db", "lan=lab"],
            json!({"op": "detach_decky", "decky": "db", "lan": "lab"}),
        ),
    ];
    assert_eq!(table.len(), OPERATIONS.len());
    for (words, wanted) in table {
        assert_eq!(body(words), wanted, "{words:?}");
    }
}

#[test]
fn what_is_wrong_is_said_with_the_way_out() {
    for (words, wanted) in [
        (&["add_lan"][..], "add_lan needs name=…: its name"),
        (&["add_lan", "name="], "add_lan needs name=…"),
        (
            &["add_lan", "nmae=a"],
            "add_lan takes no \"nmae\"; did you mean name?",
        ),
        (
            &["remove_lan", "zzz=a"],
            "remove_lan takes no \"zzz\"; it takes lan",
        ),
        (&["add_lan", "name"], "\"name\" is no KEY=VALUE"),
        (&["add_lan", "name=a", "name=b"], "name is there twice"),
        (&["add_decky", "name=a"], "add_decky needs lan=…"),
        (
            &["attach_decky", "decky=a", "lan=b", "home=perhaps"],
            "home is true or false",
        ),
        (
            &["update_decky", "decky=a", "publish=22"],
            "no published port such as 2222:22",
        ),
        (
            &["update_decky", "decky=a", "publish=a:b"],
            "no published port such as 2222:22",
        ),
        (&["update_decky", "decky=a", "SERVICE.OPTION=1"], ""),
        (
            &["remove_decky", "decky=a", "ssh.banner=b"],
            "remove_decky takes no \"ssh.banner\"",
        ),
    ] {
        match written(words) {
            Err(said) => assert!(said.contains(wanted), "{words:?}: {said}"),
            // The service is named by whoever types: the master knows which there are.
            Ok(op) => assert!(wanted.is_empty(), "{words:?}: {op:?}"),
        }
    }
}

#[test]
fn the_help_lists_every_operation_with_its_fields() {
    insta::assert_snapshot!(help());
}

proptest::proptest! {
    #[test]
    fn no_words_make_it_panic(op in 0..OPERATIONS.len(), words in proptest::collection::vec(".{0,20}", 0..5)) {
        drop(read(OPERATIONS[op].name, &words));
    }
}
