//! The invariants of the code itself, read from cargo and from the sources.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use tests::process::repository;

const CRATES: [&str; 8] = [
    "agent", "cli", "decky", "domain", "master", "pki", "proto", "tests",
];

/// The names of every package that a crate links in a release, itself excluded.
fn links(name: &str) -> Result<BTreeSet<String>> {
    let output = Command::new("cargo")
        .current_dir(repository())
        .args([
            "tree",
            "--locked",
            "--offline",
            "-p",
            name,
            "-e",
            "normal",
            "--prefix",
            "none",
            "--format",
            "{lib}|{p}",
        ])
        .output()?;
    if !output.status.success() {
        bail!("cargo tree: {}", String::from_utf8_lossy(&output.stderr));
    }
    let text = String::from_utf8(output.stdout)?;
    Ok(text
        .lines()
        .filter_map(|line| line.split('|').nth(1)?.split(' ').next())
        .filter(|package| *package != name)
        .map(str::to_owned)
        .collect())
}

/// The crate with the one unsafe module, and that module.
const UNSAFE_CRATE: &str = "decky";
const UNSAFE_MODULE: &str = "decky/src/serve/saved_syn.rs";

fn sources(under: &Path) -> Result<Vec<(PathBuf, String)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(under).with_context(|| under.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(sources(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path)?;
            found.push((path, text));
        }
    }
    found.sort();
    Ok(found)
}

fn crate_sources(name: &str) -> Result<Vec<(String, String)>> {
    let root = repository();
    let all = sources(&root.join(name).join("src"))?;
    all.into_iter()
        .map(|(path, text)| {
            let path = path.strip_prefix(&root)?.to_string_lossy().into_owned();
            Ok((path, text))
        })
        .collect()
}

#[test]
fn crates_know_only_what_the_arrows_allow() -> Result<()> {
    let arrows: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("domain", &[][..]),
        ("proto", &["domain"]),
        ("pki", &["domain"]),
        ("decky", &["domain", "proto"]),
        ("cli", &["domain", "proto"]),
        ("agent", &["domain", "pki", "proto"]),
        ("master", &["domain", "pki", "proto"]),
    ]);
    for (name, allowed) in arrows {
        let linked = links(name)?;
        let ours: BTreeSet<&str> = CRATES
            .into_iter()
            .filter(|other| linked.contains(*other))
            .collect();
        ensure!(
            ours == allowed.iter().copied().collect(),
            "{name} links {ours:?}, not {allowed:?}"
        );
    }
    Ok(())
}

#[test]
fn domain_has_no_runtime_clock_socket_file_or_wire_crate() -> Result<()> {
    let linked = links("domain")?;
    let barred = [
        "async-trait",
        "bollard",
        "chrono",
        "futures",
        "futures-util",
        "getrandom",
        "hyper",
        "mio",
        "prost",
        "rand",
        "reqwest",
        "rustix",
        "rustls",
        "serde",
        "serde_json",
        "socket2",
        "sqlx",
        "tempfile",
        "tokio",
        "toml",
        "tonic",
        "tracing",
    ];
    for name in barred {
        ensure!(!linked.contains(name), "domain links {name}");
    }
    let calls = [
        "std::fs",
        "std::env",
        "std::io",
        "std::process",
        "std::thread",
        "std::time::Instant",
        "SystemTime",
        "TcpStream",
        "TcpListener",
        "UdpSocket",
        "now_utc",
        "now_local",
        "async fn",
        "new_v4",
        "now_v7",
    ];
    for (path, text) in crate_sources("domain")? {
        let shipped = text.split("#[cfg(test)]").next().unwrap_or_default();
        for call in calls {
            ensure!(!shipped.contains(call), "{path} names {call}");
        }
    }
    Ok(())
}

#[test]
fn a_decky_links_no_identity_database_engine_or_rpc() -> Result<()> {
    let linked = links("decky")?;
    for name in [
        "pki",
        "sqlx",
        "sqlx-core",
        "libsqlite3-sys",
        "bollard",
        "tonic",
        "prost",
        "reqwest",
        "rcgen",
    ] {
        ensure!(!linked.contains(name), "decky links {name}");
    }
    Ok(())
}

/// What a host can do is asked of its agent; and whatever an engine takes minutes for, the API
/// answers meanwhile.
#[test]
fn the_master_links_no_engine_and_runs_no_program() -> Result<()> {
    let linked = links("master")?;
    for name in ["agent", "bollard", "netlink-sys", "netlink-packet-route"] {
        ensure!(!linked.contains(name), "master links {name}");
    }
    for (path, text) in crate_sources("master")? {
        for word in ["process::Command", "Command::new("] {
            ensure!(!text.contains(word), "{path} starts programs: {word}");
        }
    }
    Ok(())
}

#[test]
fn there_is_one_tls_provider() -> Result<()> {
    let lock = std::fs::read_to_string(repository().join("Cargo.lock"))?;
    for name in ["aws-lc-sys", "aws-lc-rs", "openssl-sys", "openssl"] {
        ensure!(
            !lock.contains(&format!("name = \"{name}\"")),
            "Cargo.lock has {name}"
        );
    }
    Ok(())
}

#[test]
fn sql_stands_only_in_the_stores() -> Result<()> {
    let allowed = [
        "master/src/db/",
        "agent/src/store.rs",
        "agent/src/store/",
        "agent/src/spool.rs",
        "agent/src/spool/",
    ];
    let statements = [
        "SELECT ",
        "INSERT ",
        "UPDATE ",
        "DELETE FROM",
        "CREATE TABLE",
        "CREATE INDEX",
        "PRAGMA ",
        "BEGIN IMMEDIATE",
    ];
    // A decky has no database; what looks like SQL in it is bait.
    for name in CRATES
        .into_iter()
        .filter(|name| !["decky", "tests"].contains(name))
    {
        for (path, text) in crate_sources(name)? {
            if allowed.iter().any(|place| path.starts_with(place)) {
                continue;
            }
            for (number, line) in text.lines().enumerate() {
                // Prose may say a word of it; a statement stands in a literal.
                let code = line.split("//").next().unwrap_or_default();
                let is_sql = code.contains('"')
                    && statements
                        .iter()
                        .any(|word| code.contains(&format!("\"{word}")));
                ensure!(!is_sql, "{path}:{} has SQL: {}", number + 1, line.trim());
                ensure!(
                    !code.contains("sqlx::query"),
                    "{path}:{} asks the database",
                    number + 1
                );
            }
        }
    }
    Ok(())
}

#[test]
fn generated_types_stand_only_at_the_edges() -> Result<()> {
    let allowed = [
        "proto/src/convert",
        "proto/src/fuzz.rs",
        "proto/src/lib.rs",
        "master/src/rpc",
        "agent/src/link",
    ];
    for name in CRATES.into_iter().filter(|name| *name != "tests") {
        for (path, text) in crate_sources(name)? {
            if allowed.iter().any(|place| path.starts_with(place)) {
                continue;
            }
            ensure!(
                !text.contains("proto::v1") && !text.contains("crate::v1"),
                "{path} names generated types"
            );
        }
    }
    Ok(())
}

#[test]
fn every_crate_inherits_the_lints_and_every_version() -> Result<()> {
    for name in CRATES.into_iter().chain(["tests/prober"]) {
        let manifest = std::fs::read_to_string(repository().join(name).join("Cargo.toml"))?;
        // The one exception is compared with what it replaces below.
        ensure!(
            manifest.contains("[lints]\nworkspace = true") || name == UNSAFE_CRATE,
            "{name} does not inherit the lints"
        );
        ensure!(
            manifest.contains("publish.workspace = true"),
            "{name} could be published"
        );
        let mut dependencies = false;
        for line in manifest.lines() {
            if line.starts_with('[') {
                dependencies = line.contains("dependencies");
            } else if dependencies && line.contains('=') && !line.starts_with('#') {
                ensure!(
                    line.contains("workspace = true"),
                    "{name} has a version of its own: {line}"
                );
            }
        }
    }
    Ok(())
}

/// The lines of a table of a manifest, without comments.
fn table<'a>(manifest: &'a str, head: &str) -> Vec<&'a str> {
    manifest
        .lines()
        .map(str::trim)
        .skip_while(|line| *line != head)
        .skip(1)
        .take_while(|line| !line.starts_with('['))
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .collect()
}

#[test]
fn unsafe_code_stands_in_one_module() -> Result<()> {
    let root = repository();
    let workspace = std::fs::read_to_string(root.join("Cargo.toml"))?;
    let own = std::fs::read_to_string(root.join(UNSAFE_CRATE).join("Cargo.toml"))?;
    for tool in ["rust", "clippy"] {
        let theirs = table(&workspace, &format!("[workspace.lints.{tool}]"));
        let ours = table(&own, &format!("[lints.{tool}]"));
        ensure!(!theirs.is_empty(), "the workspace has no lints for {tool}");
        let expected: Vec<&str> = theirs
            .into_iter()
            .map(|line| match line {
                "unsafe_code = \"forbid\"" => "unsafe_code = \"deny\"",
                other => other,
            })
            .collect();
        ensure!(
            ours == expected,
            "{UNSAFE_CRATE} has lints of its own: {ours:?}, not {expected:?}"
        );
    }
    for name in CRATES {
        for (path, text) in sources(&root.join(name).join("src"))? {
            let path = path.strip_prefix(&root)?.to_string_lossy().into_owned();
            let allows = text.lines().any(|line| {
                let line = line.trim();
                !line.starts_with("//") && line.contains("unsafe_code")
            });
            ensure!(
                allows == (path == UNSAFE_MODULE),
                "{path} {} unsafe code",
                if allows { "allows" } else { "no longer allows" }
            );
        }
    }
    let module = std::fs::read_to_string(root.join(UNSAFE_MODULE))?;
    let blocks = module.matches("unsafe {").count();
    ensure!(blocks == 3, "{UNSAFE_MODULE} has {blocks} unsafe blocks");
    ensure!(
        module.matches("// SAFETY: ").count() == blocks,
        "an unsafe block of {UNSAFE_MODULE} does not say why it is sound"
    );
    Ok(())
}

#[test]
fn no_module_file_is_named_mod() -> Result<()> {
    for name in CRATES {
        for (path, _) in sources(&repository().join(name))? {
            ensure!(!path.ends_with("mod.rs"), "{} exists", path.display());
        }
    }
    Ok(())
}

#[test]
fn every_file_says_what_it_is_responsible_for() -> Result<()> {
    for name in CRATES {
        for (path, text) in crate_sources(name)? {
            // A file of tests alone says it in its name.
            let is_tests = path.ends_with("/tests.rs") || path.contains("/tests/");
            ensure!(
                is_tests || text.starts_with("//!"),
                "{path} does not begin with what it is responsible for"
            );
        }
    }
    Ok(())
}

#[test]
fn the_map_of_the_code_fits_a_sitting() -> Result<()> {
    let text = std::fs::read_to_string(repository().join("ARCHITECTURE.md"))?;
    let lines = text.lines().count();
    ensure!(lines <= 200, "ARCHITECTURE.md has {lines} lines");
    for name in CRATES {
        ensure!(
            text.contains(&format!("`{name}/`")),
            "ARCHITECTURE.md does not name {name}/"
        );
    }
    Ok(())
}

/// Lines of the code blocks of a document.
fn code_lines(text: &str) -> Vec<&str> {
    let mut inside = false;
    let mut lines = Vec::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            inside = !inside;
        } else if inside {
            lines.push(line.trim());
        }
    }
    lines
}

#[test]
fn every_command_in_the_documents_exists() -> Result<()> {
    let root = repository();
    let makefile = std::fs::read_to_string(root.join("Makefile"))?;
    let mut seen = BTreeSet::new();
    for document in [
        "README.md",
        "examples/README.md",
        "docs/operators.md",
        "docs/events.md",
        "STYLE.md",
    ] {
        let text =
            std::fs::read_to_string(root.join(document)).with_context(|| document.to_owned())?;
        for line in code_lines(&text) {
            let line = line.split('#').next().unwrap_or_default();
            let line = line.rsplit("$ ").next().unwrap_or_default();
            for part in line.split('|') {
                let words: Vec<&str> = part.split_whitespace().collect();
                match words.as_slice() {
                    ["make", target, ..] => {
                        ensure!(
                            makefile.contains(&format!("\n{target}:")),
                            "{document}: there is no `make {target}`"
                        );
                    }
                    [
                        program @ ("decnet" | "decnet-master" | "decnet-agent"),
                        verbs @ ..,
                    ] => {
                        let verbs: Vec<&str> = verbs
                            .iter()
                            .take(2)
                            .take_while(|verb| {
                                verb.bytes()
                                    .all(|byte| byte.is_ascii_lowercase() || byte == b'-')
                                    && !verb.starts_with('-')
                            })
                            .copied()
                            .collect();
                        seen.insert((document, (*program).to_owned(), verbs.join(" ")));
                    }
                    _ => {}
                }
            }
        }
    }
    ensure!(!seen.is_empty(), "the documents show no command at all");
    for (document, program, verbs) in seen {
        let path = tests::process::binary(&program)?;
        let nouns = [
            "host",
            "topology",
            "mutation",
            "decky",
            "event",
            "service",
            "archetype",
            "persona",
            "config",
        ];
        let mut arguments: Vec<&str> = verbs.split(' ').filter(|verb| !verb.is_empty()).collect();
        // A second word is a verb only behind a noun; elsewhere it is somebody's name.
        if !arguments.first().is_some_and(|noun| nouns.contains(noun)) {
            arguments.truncate(1);
        }
        arguments.push("--help");
        let outcome = tests::cli::run(&path, &arguments, &[], "")?;
        ensure!(
            outcome.code == Some(0),
            "{document}: `{}` is unknown: {}",
            outcome.command,
            outcome.stderr
        );
    }
    Ok(())
}

#[test]
fn the_example_topologies_have_no_findings() -> Result<()> {
    for (file, lans, deckies, edges) in [
        ("office", 3, 6, 8),
        ("branch", 1, 2, 2),
        ("maze", 20, 100, 119),
    ] {
        let path = repository().join(format!("examples/{file}.yaml"));
        let outcome = tests::cli::run(
            &tests::process::binary("decnet")?,
            &[
                "topology",
                "validate",
                &path.to_string_lossy(),
                "--output",
                "json",
            ],
            &[],
            "",
        )?;
        let findings: serde_json::Value = outcome.json()?;
        let findings = findings.get("findings").unwrap_or(&findings);
        ensure!(
            findings.as_array().is_some_and(Vec::is_empty),
            "{file}.yaml: {findings}"
        );
        let text = std::fs::read_to_string(&path)?;
        ensure!(
            text.matches("subnet:").count() == lans,
            "{file}.yaml has not {lans} LANs"
        );
        ensure!(
            text.matches("persona:").count() == deckies,
            "{file}.yaml has not {deckies} deckies"
        );
        ensure!(
            text.matches("address:").count() == edges,
            "{file}.yaml has not {edges} edges"
        );
    }
    Ok(())
}
