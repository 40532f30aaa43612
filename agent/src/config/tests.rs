use super::*;

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(Path::new("agent.toml"), text)
}

fn refusal(text: &str) -> String {
    let error = parse(text).expect_err(text);
    crate::chain::Chain(&error).to_string()
}

#[test]
fn an_empty_file_is_the_default() {
    assert_eq!(parse("").expect("no key is required"), Config::default());
}

#[test]
fn the_example_says_what_is_the_default() {
    let text = include_str!("../../decnet-agent.example.toml");
    assert_eq!(parse(text).expect("the example"), Config::default());
    // Each key stands there, commented out with its default; put in force, they are the same.
    let uncommented: String = text
        .lines()
        .map(|line| line.strip_prefix("#: ").unwrap_or(line))
        .flat_map(|line| [line, "\n"])
        .collect();
    let full = parse(&uncommented).expect("the example with every key in force");
    assert_eq!(full.spool, Config::default().spool);
    assert_eq!(full.collect, Config::default().collect);
    assert_eq!(full.log, Config::default().log);
    assert_eq!(full.guard, Config::default().guard);
    let table: toml::Table = uncommented.parse().expect("parsed above");
    for (section, keys) in KEYS {
        let there = if section.is_empty() {
            Some(&table)
        } else {
            table[*section].as_table()
        };
        for key in *keys {
            assert!(
                there.is_some_and(|there| there.contains_key(*key)),
                "{section}.{key}"
            );
        }
    }
}

#[test]
fn an_unknown_key_is_refused_with_the_nearest_known_one() {
    for (text, said) in [
        (
            "data_dri = \"/x\"",
            "agent.toml: unknown key data_dri, did you mean data_dir?",
        ),
        (
            "[spool]\nmax_mb = 1",
            "agent.toml: unknown key spool.max_mb, did you mean spool.max_mib?",
        ),
        (
            "max_events = 5",
            "agent.toml: unknown key max_events, did you mean spool.max_events?",
        ),
        (
            "[spol]\nmax_mib = 1",
            "agent.toml: unknown key spol, did you mean spool?",
        ),
        ("zzz = 1", "agent.toml: unknown key zzz"),
    ] {
        assert_eq!(refusal(text), said);
    }
}

#[test]
fn a_wrong_value_is_refused_with_its_place() {
    let said = refusal("[collect]\nflush = \"20\"");
    assert!(said.contains("line 2"), "{said}");
    assert!(said.contains("is no duration such as"), "{said}");
    let said = refusal("masters = [\"http://x\"]");
    assert!(
        said.contains("is not an address like https://10.0.0.5:7443"),
        "{said}"
    );
    assert_eq!(
        refusal("[spool]\nmax_mib = 0"),
        "agent.toml: spool.max_mib must be at least 1"
    );
}
