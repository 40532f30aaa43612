//! The tour of a fresh user, run as it is printed, against a golden transcript.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use tests::process::{binaries, repository};
use tests::world::World;

const HOST: &str = "local";
/// What the tour uses when nobody says otherwise: the transcript shows these.
const NET: &str = "10.66.";
const PORTS: u16 = 20_000;

/// What one run differs in from the next stands as a word in capitals: ids, times, the folder.
fn masked(text: &str, world: &World) -> String {
    let net = world.slot.subnet(0);
    let net = net.trim_end_matches("0.0/24");
    let mut out = String::new();
    for line in text.lines() {
        // How far something is while it is awaited is another matter each time.
        if is_progress(line) {
            continue;
        }
        let mut line = line.replace(net, NET);
        for index in 0..100 {
            let (here, there) = (world.slot.port(index), PORTS + index);
            line = line.replace(&here.to_string(), &there.to_string());
        }
        out.push_str(masked_words(&line).trim_end());
        out.push('\n');
    }
    out
}

fn is_progress(line: &str) -> bool {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words.as_slice() {
        ["tour:", ..] => true,
        ["mutation", _, _, state, ..] => ["pending", "applying"]
            .iter()
            .any(|open| state.trim_end_matches([',', ';']) == *open),
        _ => false,
    }
}

/// Ids, hashes, times and ages; the space that a table puts after them goes with them.
fn masked_words(line: &str) -> String {
    let mut masked: Vec<String> = Vec::new();
    let words: Vec<&str> = line.split_whitespace().collect();
    let mut index = 0;
    while index < words.len() {
        let word = words[index];
        let bare = word.trim_matches(['(', ')', ',', ':', '"']);
        let age = words
            .get(index + 2)
            .is_some_and(|ago| ago.starts_with("ago"))
            && bare.parse::<u32>().is_ok();
        if age {
            let tail = words[index + 2].trim_start_matches("ago");
            masked.push(format!("AGO{tail}"));
            index += 3;
            continue;
        }
        masked.push(match bare {
            "now" => word.replace(bare, "AGO"),
            _ if uuid::Uuid::parse_str(bare).is_ok() => word.replace(bare, "ID"),
            _ if is_hash(bare) => word.replace(bare, "HASH"),
            _ if is_time(bare) => word.replace(bare, "TIME"),
            // What a decky answers, and from which port it was asked.
            _ if masked.last().is_some_and(|before| before == "->") && is_number(bare) => {
                "STATUS".to_owned()
            }
            _ if bare.starts_with(NET) && bare.contains(':') => {
                let address = bare.split(':').next().unwrap_or_default();
                format!("{address}:PORT")
            }
            _ => word.to_owned(),
        });
        index += 1;
    }
    let indent = line.len() - line.trim_start().len();
    // Columns are as wide as what was masked: one space is as good.
    format!("{}{}", " ".repeat(indent), masked.join(" "))
}

fn is_hash(word: &str) -> bool {
    let digits = word.bytes().filter(u8::is_ascii_digit).count();
    word.len() == 12 && digits > 0 && word.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn is_number(word: &str) -> bool {
    word.len() == 3 && word.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_time(word: &str) -> bool {
    let shape: String = word
        .chars()
        .map(|character| {
            if character.is_ascii_digit() {
                '9'
            } else {
                character
            }
        })
        .collect();
    [
        "9999-99-99",
        "99:99:99",
        "99:99:99.999",
        "9999-99-99T99:99:99Z",
    ]
    .contains(&shape.as_str())
}

#[test]
fn the_tour_of_a_fresh_user_goes_as_it_is_printed() -> Result<()> {
    let world = World::with_host(HOST)?;
    let path = std::env::var("PATH").unwrap_or_default();
    let script = repository().join("examples/tour.sh");
    // Notes stand where they were said: between the results.
    let output = Command::new("sh")
        .args(["-c", "exec sh \"$1\" 2>&1", "tour"])
        .arg(&script)
        .env("PATH", format!("{}:{path}", binaries().display()))
        .env("DECNET_DATA_DIR", world.master_dir())
        .env("NO_COLOR", "1")
        .env("TOUR_HOST", HOST)
        .env("TOUR_SUBNETS", world.slot.subnet(0).replace("/24", "/16"))
        .env("TOUR_PORTS", world.slot.port(0).to_string())
        .stdin(Stdio::null())
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "the tour ended early:\n{said}");
    let said = masked(&said, &world);
    let golden: PathBuf = repository().join("tests/tests/e2e/tour.txt");
    if std::env::var_os("DECNET_BLESS").is_some() {
        std::fs::write(&golden, &said)?;
    }
    let wanted = std::fs::read_to_string(&golden).context("tour.txt")?;
    ensure!(
        said == wanted,
        "the tour goes otherwise (DECNET_BLESS=1 accepts it):\n{said}"
    );
    world.assert_empty(HOST)?;
    world.done()
}
