//! `make demo`, twice: the whole story on one machine, with nothing left behind.

use std::process::Command;

use anyhow::{Result, ensure};
use tests::process::{binaries, repository};
use tests::slot::Slot;

#[test]
fn the_demo_succeeds_twice_and_leaves_nothing() -> Result<()> {
    // Removes what an earlier, killed test left in the way.
    let _slot = Slot::take()?;
    for round in 1..=2 {
        let output = Command::new("bash")
            .arg(repository().join("scripts/demo.sh"))
            .env("DECNET_BIN_DIR", binaries())
            .stdin(std::process::Stdio::null())
            .output()?;
        let said = String::from_utf8_lossy(&output.stdout);
        let told = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "round {round}:\n{said}\n{told}");
        for step in [
            "office: login of root at gate",
            "office: command at gate",
            "branch: request to router",
        ] {
            ensure!(
                said.contains(step),
                "round {round}: {step} is not in the story:\n{said}"
            );
        }
    }
    Ok(())
}
