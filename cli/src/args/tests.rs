use super::*;

fn parse(words: &[&str]) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(std::iter::once(&"decnet").chain(words))
}

#[test]
fn the_command_line_is_consistent() {
    command().debug_assert();
}

#[test]
fn a_negative_number_is_a_wrong_value_and_no_option() {
    for (words, option) in [
        (&["topology", "generate", "--seed", "-1"][..], "--seed"),
        (&["event", "ls", "--limit", "-5"], "--limit"),
        (&["topology", "generate", "--depth=-1"], "--depth"),
    ] {
        let refused = command().try_get_matches_from([&["decnet"], words].concat());
        let said = refused.expect_err("it is none").to_string();
        assert!(
            said.contains("invalid value '-") && said.contains(option),
            "{said}"
        );
    }
}

#[test]
fn every_command_of_the_manual_is_taken() {
    let commands: &[&[&str]] = &[
        &["up"],
        &["up", "--data-dir", "/d", "--topology", "t.yaml"],
        &[
            "up",
            "--no-topology",
            "--api-listen",
            "127.0.0.1:0",
            "--fleet-listen",
            "0.0.0.0:7443",
        ],
        &["down", "--data-dir", "/d"],
        &["status", "--output", "json"],
        &["doctor"],
        &["login"],
        &["login", "alice", "--password-stdin"],
        &["logout"],
        &["user", "add", "alice", "--role", "operator"],
        &["user", "add", "alice", "--password-stdin"],
        &["user", "ls", "--output", "yaml"],
        &["user", "role", "alice", "viewer"],
        &["user", "passwd"],
        &["user", "passwd", "alice"],
        &["user", "rm", "alice"],
        &["token", "create", "ci", "--role", "admin", "--ttl", "90d"],
        &["token", "ls", "--all"],
        &["token", "rm", "0198c0de-0000-7000-8000-000000000000"],
        &[
            "host", "enroll", "edge-07", "--ttl", "15m", "--output", "json",
        ],
        &["host", "ls"],
        &["host", "inspect", "edge-07"],
        &["host", "cordon", "edge-07"],
        &["host", "uncordon", "edge-07"],
        &["host", "drain", "edge-07", "--no-wait"],
        &["host", "revoke", "edge-07"],
        &["host", "rm", "edge-07", "--force"],
        &["host", "token", "ls"],
        &[
            "topology", "create", "t.yaml", "--host", "edge-07", "--name", "x",
        ],
        &["topology", "create", "-"],
        &["topology", "ls", "--output", "yaml"],
        &["topology", "inspect", "office", "--output", "json"],
        &["topology", "export", "office", "--hydrated"],
        &[
            "topology",
            "deploy",
            "office",
            "--wait",
            "--timeout",
            "120s",
            "--replace",
        ],
        &["topology", "retry", "office", "--no-wait"],
        &["topology", "teardown", "office", "--force"],
        &["topology", "rm", "office"],
        &["topology", "validate", "t.yaml", "--output", "json"],
        &["topology", "hash", "office"],
        &["topology", "status-events", "office"],
        &[
            "event", "ls", "--limit", "1000", "--kind", "auth", "--since", "15m",
        ],
        &[
            "event",
            "tail",
            "--follow",
            "--topology",
            "office",
            "--decky",
            "gate",
        ],
        &[
            "event",
            "export",
            "-o",
            "events.ndjson",
            "--until",
            "2026-03-01T00:00:00Z",
        ],
        &["topology", "generate"],
        &[
            "topology",
            "generate",
            "--name",
            "m",
            "--depth",
            "2",
            "--services",
            "ssh,http",
            "--output-file",
            "m.yaml",
        ],
        &[
            "topology",
            "generate",
            "--archetype",
            "web-server,printer=2",
        ],
        &["topology", "graph", "office"],
        &["topology", "graph", "office.yaml", "--format", "mermaid"],
        &["topology", "plan", "office.yaml"],
        &[
            "topology",
            "plan",
            "-",
            "--detailed-exitcode",
            "--output",
            "json",
        ],
        &[
            "topology", "generate", "--from", "scan.xml", "--name", "copy",
        ],
        &["topology", "export", "office", "--format", "compose"],
        &[
            "topology",
            "deploy",
            "office",
            "--dry-run",
            "--host",
            "edge-07",
        ],
        &[
            "topology",
            "apply",
            "office.yaml",
            "--wait",
            "--expected-revision",
            "3",
        ],
        &["topology", "apply", "-", "--dry-run"],
        &[
            "topology",
            "mutate",
            "office",
            "add_lan",
            "name=lab",
            "subnet=10.9.5.0/24",
        ],
        &[
            "topology",
            "mutate",
            "office",
            "remove_decky",
            "decky=db",
            "--no-wait",
        ],
        &[
            "topology",
            "mutations",
            "office",
            "--state",
            "failed",
            "--limit",
            "7",
        ],
        &["topology", "explain", "office"],
        &[
            "mutation",
            "inspect",
            "0190a000-0000-7000-8000-000000000003",
            "--wait",
        ],
        &["mutation", "cancel", "0190a000-0000-7000-8000-000000000003"],
        &[
            "mutation",
            "revert",
            "0190a000-0000-7000-8000-000000000003",
            "--no-wait",
        ],
        &["decky", "ls", "--topology", "office", "--output", "ndjson"],
        &["decky", "inspect", "gate"],
        &["decky", "mutate", "gate", "--timeout", "30s"],
        &["decky", "mutate", "--all", "--topology", "office"],
        &["service", "ls", "--output", "ndjson"],
        &["service", "schema", "ssh"],
        &["archetype", "ls"],
        &["persona", "ls", "--output", "yaml"],
        &["completion", "fish"],
        &[
            "--quiet",
            "--url",
            "http://127.0.0.1:8080",
            "topology",
            "ls",
        ],
    ];
    for words in commands {
        if let Err(error) = parse(words) {
            panic!("{words:?}: {error}");
        }
    }
}

#[test]
fn what_makes_no_sense_is_a_usage_error() {
    let commands: &[&[&str]] = &[
        &["topology", "inspect", "../../hosts"],
        &["topology", "inspect", ".."],
        &["host", "enroll", "edge-07", "--ttl", "25h"],
        &["host", "enroll", "edge-07", "--ttl", "0s"],
        &["host", "enroll", ""],
        &["topology", "deploy", "office", "--timeout", "soon"],
        &["event", "ls", "--since", "yesterday"],
        &["event", "ls", "--all", "--limit", "3"],
        &["up", "--no-topology", "--topology", "t.yaml"],
        &["service", "schema", "sssh"],
        &["topology", "graph", "office", "--format", "png"],
        &["topology", "plan"],
        &["topology", "generate", "--depth", "deep"],
        &["topology", "generate", "--from", "scan.xml", "--depth", "2"],
        &[
            "topology",
            "export",
            "office",
            "--hydrated",
            "--format",
            "json",
        ],
        &["topology", "deploy", "office", "--dry-run", "--wait"],
        &["topology", "mutate", "office", "add_lann", "name=lab"],
        &["topology", "mutate", "office"],
        &["topology", "mutations", "office", "--state", "done"],
        &["decky", "mutate"],
        &["decky", "mutate", "--all"],
        &["decky", "mutate", "gate", "--all", "--topology", "office"],
        &["mutation", "cancel", "../x"],
        &["status", "--output", "xml"],
        &["completion", "tcsh"],
        &["status", "--token", "dna_secret"],
        &["login", "--password", "secret"],
        &["login", "alice@example"],
        &["user", "add", "alice", "--role", "root"],
        &["token", "create", "ci", "--ttl", "0s"],
        &["token", "create", "ci", "--ttl", "4000d"],
    ];
    for words in commands {
        let error = parse(words).expect_err("no sense");
        assert_eq!(error.exit_code(), 2, "{words:?}: {error}");
    }
}

#[test]
fn waiting_is_the_default_and_the_last_word_counts() {
    let waits = |words: &[&str]| {
        let Command::Topology(TopologyCommand::Deploy(args)) = parse(words).expect("sense").command
        else {
            panic!("another command")
        };
        args.waits()
    };
    assert!(waits(&["topology", "deploy", "office"]));
    assert!(!waits(&["topology", "deploy", "office", "--no-wait"]));
    assert!(waits(&[
        "topology",
        "deploy",
        "office",
        "--no-wait",
        "--wait"
    ]));
    assert!(!waits(&[
        "topology",
        "deploy",
        "office",
        "--wait",
        "--no-wait"
    ]));
}

#[test]
fn help_names_variables_and_never_their_values() {
    let help = Cli::command().render_long_help().to_string();
    for name in [
        "DECNET_URL",
        "DECNET_DATA_DIR",
        "DECNET_OUTPUT",
        "DECNET_TOKEN",
    ] {
        assert!(help.contains(name), "{name}");
    }
    assert!(!help.contains("DECNET_URL="), "{help}");
}

/// What people read, with the name of the file.
const PAGES: [(&str, &str); 6] = [
    ("README.md", include_str!("../../../README.md")),
    ("CHANGELOG.md", include_str!("../../../CHANGELOG.md")),
    (
        "docs/operators.md",
        include_str!("../../../docs/operators.md"),
    ),
    (
        "docs/mutations.md",
        include_str!("../../../docs/mutations.md"),
    ),
    ("docs/events.md", include_str!("../../../docs/events.md")),
    (
        "examples/README.md",
        include_str!("../../../examples/README.md"),
    ),
];

/// The words of `decnet …` in a line of a shell session; none when it runs something else.
fn typed(line: &str) -> Option<Vec<&str>> {
    let line = line.trim().trim_start_matches("$ ");
    let command = line
        .split(['|', '>', '<', '#', ';'])
        .next()
        .unwrap_or_default();
    let words: Vec<&str> = command.split_whitespace().collect();
    (words.first() == Some(&"decnet")).then_some(words)
}

#[test]
fn every_command_that_is_printed_for_people_is_taken() {
    let mut taken = 0;
    for (page, text) in PAGES {
        let mut fenced = false;
        for line in text.lines() {
            if line.trim_start().starts_with("```") {
                fenced = !fenced;
                continue;
            }
            let Some(words) = typed(line).filter(|_| fenced) else {
                continue;
            };
            taken += 1;
            if let Err(error) = Cli::try_parse_from(&words) {
                let shows = error.kind() == clap::error::ErrorKind::DisplayHelp;
                assert!(shows, "{page}: {line}\n{error}");
            }
        }
    }
    assert!(taken > 80, "only {taken} commands were found");
}

#[test]
fn every_verb_and_flag_that_is_named_in_passing_exists() {
    let mut named = 0;
    for (page, text) in PAGES {
        // Between backticks; a page opens and closes them in turn.
        let code = text.split('`').skip(1).step_by(2);
        for code in code.filter(|code| code.starts_with("decnet ")) {
            let words: Vec<&str> = code.split_whitespace().skip(1).collect();
            named += 1;
            let mut command = Cli::command();
            command.build();
            for (place, word) in words.iter().enumerate() {
                if let Some(flag) = word.strip_prefix("--") {
                    let flag = flag.split('=').next();
                    let known = command.get_arguments().any(|arg| arg.get_long() == flag);
                    assert!(known, "{page}: `{code}` has no {word}");
                    continue;
                }
                match command.find_subcommand(word) {
                    Some(found) => command = found.clone(),
                    // The first word is a noun; what no verb takes is a value.
                    None => assert!(place > 0, "{page}: `{code}`"),
                }
            }
        }
    }
    assert!(named >= 10, "only {named} were found");
}
