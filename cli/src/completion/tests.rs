use std::ffi::OsString;

use clap::CommandFactory as _;

use crate::args::Cli;

/// What is offered after these words.
fn offered(words: &[&str]) -> Vec<String> {
    let words: Vec<OsString> = std::iter::once("decnet")
        .chain(words.iter().copied())
        .map(OsString::from)
        .collect();
    let last = words.len() - 1;
    let candidates = clap_complete::engine::complete(&mut Cli::command(), words, last, None);
    candidates
        .expect("it completes")
        .iter()
        .map(|candidate| candidate.get_value().to_string_lossy().into_owned())
        .collect()
}

#[test]
fn every_noun_and_verb_is_offered() {
    let nouns = offered(&[""]);
    for noun in ["topology", "mutation", "decky", "host", "service"] {
        assert!(nouns.contains(&noun.to_owned()), "{nouns:?}");
    }
    for (noun, verbs) in [
        (
            "topology",
            &[
                "generate",
                "plan",
                "apply",
                "mutate",
                "mutations",
                "explain",
            ][..],
        ),
        ("mutation", &["cancel", "revert", "inspect"]),
        ("decky", &["ls", "inspect", "mutate"]),
    ] {
        let found = offered(&[noun, ""]);
        for verb in verbs {
            assert!(found.contains(&(*verb).to_owned()), "{noun} {found:?}");
        }
    }
    let operations = offered(&["topology", "mutate", "office", "a"]);
    assert_eq!(operations, ["add_lan", "add_decky", "attach_decky"]);
}

#[test]
fn what_is_one_of_a_few_words_is_offered() {
    assert_eq!(
        offered(&["user", "add", "alice", "--role", "o"]),
        ["operator"]
    );
    assert_eq!(offered(&["event", "ls", "--kind", "au"]), ["auth"]);
    assert_eq!(offered(&["event", "tail", "--service", "ss"]), ["ssh"]);
}

#[test]
fn where_a_file_or_a_topology_is_meant_files_are_offered() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("office.yaml"), "").expect("writable");
    let begun = folder.path().join("off");
    let found = offered(&["topology", "graph", &begun.to_string_lossy()]);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].ends_with("office.yaml"), "{found:?}");
    let found = offered(&["topology", "create", &begun.to_string_lossy()]);
    assert_eq!(found.len(), 1, "{found:?}");
}

#[test]
fn without_a_master_no_name_is_offered_and_nothing_fails() {
    assert_eq!(offered(&["topology", "deploy", "off"]), [""; 0]);
    assert_eq!(offered(&["mutation", "cancel", "0"]), [""; 0]);
    assert_eq!(offered(&["user", "rm", "a"]), [""; 0]);
}
