//! Whether the host hands packets on at all: turned on for published ports, for nothing else while it
//! is on because of them, and put back when the last link to a LAN goes.
//!
//! The setting is the machine's. So are its guard, which stands as long as agents have it on, and the
//! note of how it was before: whoever of them goes last puts it back. Where Docker is, Docker's own
//! rules say what else is handed on.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::fabric::{uplink_prefix, uplink_prefix_of};
use super::place::gone_is_fine;
use super::program;
use super::rtnl::Rtnl;
use super::{Shared, disk, refused};
use crate::chain::Chain;
use crate::engine::files::{Durable, atomically};
use crate::engine::{EngineError, EngineErrorKind};
use crate::netns::{Family, comments};
use crate::task;

/// The chain in which Docker lets others speak first; without a rule there, its own drop what is
/// forwarded.
const DOCKER: &str = "DOCKER-USER";
const FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";
/// The kernel changes this one along with that.
const REDIRECTS: &str = "/proc/sys/net/ipv4/conf/all/accept_redirects";
const BOOT: &str = "/proc/sys/kernel/random/boot_id";
/// Of IPv4 alone: what the host does with IPv6 is as it was.
const GUARD: &str = "decnet-forward";
const GUARDS: &str = "not of deckies";

/// How the machine was before its agents had it forward: it did not.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Before {
    /// A note of an earlier boot is void. Its directory may be on a disk.
    boot: String,
    accept_redirects: String,
}

impl Shared {
    /// Has the host hand on what comes from deckies or goes to them, and Docker let it pass.
    pub(super) async fn let_forward(self: &Arc<Self>) -> Result<(), EngineError> {
        let _held = self.hold_machine().await?;
        let failed = |source| refused("could not have the host forward packets", source);
        if !is_on() && self.before().is_none() {
            // First: whoever dies behind this leaves a host that the next one guards and puts back.
            self.note().map_err(failed)?;
        }
        if self.before().is_some() {
            self.guard().await?;
        }
        if !is_on() {
            fs::write(FORWARD, "1").map_err(failed)?;
        }
        self.pass_docker(&uplink_prefix(self.host)).await
    }

    /// Has the guard stand as long as the host forwards because of its agents. A failure is told and
    /// left to the next look, which must not be lost by it.
    pub(super) async fn keep_guard(self: &Arc<Self>) {
        let kept = async {
            if self.before().is_none() {
                return Ok(());
            }
            let _held = self.hold_machine().await?;
            if self.before().is_none() {
                return Ok(());
            }
            self.guard().await
        };
        if let Err(error) = kept.await {
            tracing::warn!(error = %Chain(&error), "what the host forwards is not guarded");
        }
    }

    /// Puts the host back as it was, unless another agent has a link to a LAN.
    pub(super) async fn leave_forwarding(self: &Arc<Self>) -> Result<(), EngineError> {
        self.leave_docker().await?;
        if self.before().is_none() {
            return Ok(());
        }
        let _held = self.hold_machine().await?;
        let failed = |source| refused("could not have the host forward no packets", source);
        let Some(before) = self.before() else {
            return Ok(());
        };
        if !uplink_prefixes().map_err(failed)?.is_empty() {
            return Ok(());
        }
        if self.has_docker().await? {
            return self.leave_to_docker().await;
        }
        fs::write(FORWARD, "0").map_err(failed)?;
        fs::write(REDIRECTS, &before.accept_redirects).map_err(failed)?;
        self.forget().await
    }

    /// Lets nothing through but what is of deckies, or leaves that to Docker.
    async fn guard(&self) -> Result<(), EngineError> {
        if self.has_docker().await? {
            return self.leave_to_docker().await;
        }
        let found = task::blocking(|| comments(Family::Ipv4, GUARD)).await;
        let found = found.map_err(|source| refused("could not read the guard", source))?;
        if found.is_some_and(|rules| rules == [GUARDS]) {
            return Ok(());
        }
        let rules = format!(
            "add table ip {GUARD}\n\
             delete table ip {GUARD}\n\
             table ip {GUARD} {{\n\
             \tchain forward {{\n\
             \t\ttype filter hook forward priority filter - 10; policy accept;\n\
             \t\tiifname != \"du*\" oifname != \"du*\" drop comment \"{GUARDS}\"\n\
             \t}}\n}}\n"
        );
        self.load(&rules).await
    }

    /// Docker has come later. It wants the host to forward, found that it does, and has therefore
    /// not set the policy that it sets with it.
    async fn leave_to_docker(&self) -> Result<(), EngineError> {
        let unread = |source| refused("could not read the links of this host", source);
        // The other agents may have no reason to look at this again.
        for links in uplink_prefixes().map_err(unread)? {
            self.pass_docker(&links).await?;
        }
        let policy = ["FORWARD", "DROP"].map(str::to_owned);
        if !self.iptables("-P", &policy).await? {
            return Err(EngineError {
                kind: EngineErrorKind::Refused,
                attempt: "could not set the policy of the chain FORWARD".to_owned(),
                source: None,
            });
        }
        tracing::info!("what the host forwards is left to Docker");
        self.forget().await
    }

    /// Takes away the guard, and the note at the end: whoever dies before does all of this again.
    async fn forget(&self) -> Result<(), EngineError> {
        self.load(&format!("add table ip {GUARD}\ndelete table ip {GUARD}\n"))
            .await?;
        gone_is_fine(fs::remove_file(self.places.forwarding()))
            .map_err(disk("could not forget how the host was"))
    }

    /// Holds off the other agents of this machine.
    async fn hold_machine(self: &Arc<Self>) -> Result<File, EngineError> {
        let this = Arc::clone(self);
        task::blocking(move || this.ports.lock())
            .await
            .map_err(disk("could not hold off the other agents of this machine"))
    }

    fn note(&self) -> io::Result<()> {
        let before = Before {
            boot: setting(BOOT)?,
            accept_redirects: setting(REDIRECTS)?,
        };
        let bytes = serde_json::to_vec_pretty(&before).map_err(io::Error::other)?;
        atomically(&self.places.forwarding(), &bytes, 0o600, Durable::No)
    }

    /// How the machine was; none when it did forward, or others have it do so.
    fn before(&self) -> Option<Before> {
        let bytes = fs::read(self.places.forwarding()).ok()?;
        let before: Before = serde_json::from_slice(&bytes).ok()?;
        setting(BOOT)
            .is_ok_and(|boot| boot == before.boot)
            .then_some(before)
    }

    async fn pass_docker(&self, links: &str) -> Result<(), EngineError> {
        for rule in docker_rules(links) {
            let found = self.iptables("-C", &rule).await?;
            if !found && self.has_docker().await? && !self.iptables("-I", &rule).await? {
                let attempt = format!("could not add a rule to the chain {DOCKER}");
                return Err(EngineError {
                    kind: EngineErrorKind::Refused,
                    attempt,
                    source: None,
                });
            }
        }
        Ok(())
    }

    async fn leave_docker(&self) -> Result<(), EngineError> {
        for rule in docker_rules(&uplink_prefix(self.host)) {
            // As often as it is there: two agents with one id were never at work, but a person may
            // have been.
            while self.iptables("-D", &rule).await? {}
        }
        Ok(())
    }

    async fn has_docker(&self) -> Result<bool, EngineError> {
        self.iptables("-S", &[DOCKER.to_owned()]).await
    }

    /// Whether iptables did it. A host without it has no Docker that could be in the way.
    async fn iptables(&self, verb: &str, rule: &[String]) -> Result<bool, EngineError> {
        let mut arguments = vec!["-w", "5", verb];
        arguments.extend(rule.iter().map(String::as_str));
        match program::run("iptables", &arguments, "", self.limit).await {
            Ok(ended) => Ok(ended.status.success()),
            Err(error) if error.kind == EngineErrorKind::Unreachable => Ok(false),
            Err(error) => Err(error),
        }
    }
}

fn is_on() -> bool {
    setting(FORWARD).is_ok_and(|value| value == "1")
}

fn setting(path: &str) -> io::Result<String> {
    Ok(fs::read_to_string(path)?.trim().to_owned())
}

/// What the names of this machine's links to LANs begin with, one for each agent that has any.
fn uplink_prefixes() -> io::Result<BTreeSet<String>> {
    let links = Rtnl::here()?.links()?;
    let prefixes = links.iter().filter_map(|link| uplink_prefix_of(&link.name));
    Ok(prefixes.map(str::to_owned).collect())
}

fn docker_rules(links: &str) -> [Vec<String>; 2] {
    let links = format!("{links}+");
    let rule = |words: &[&str]| {
        [DOCKER]
            .iter()
            .chain(words)
            .map(|word| (*word).to_owned())
            .collect::<Vec<_>>()
    };
    [
        rule(&["-o", &links, "-j", "ACCEPT"]),
        rule(&[
            "-i",
            &links,
            "-m",
            "conntrack",
            "--ctstate",
            "RELATED,ESTABLISHED",
            "-j",
            "ACCEPT",
        ]),
    ]
}

#[cfg(test)]
mod tests;
