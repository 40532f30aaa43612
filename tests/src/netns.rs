//! Attackers: network namespaces of their own, on a LAN of a topology or outside of the host, in
//! which real clients run.

use std::path::Path;

use anyhow::Result;

use crate::cli::{self, Outcome};
use crate::docker::Network;
use crate::slot::Slot;

/// A network namespace with one interface and one address.
#[derive(Debug)]
pub struct Attacker {
    namespace: String,
    link: String,
    address: String,
}

fn ip(arguments: &[&str]) -> Result<Outcome> {
    cli::system("ip", arguments, "")
}

impl Attacker {
    fn new(slot: &Slot, label: char, address: &str) -> Result<Self> {
        let this = Self {
            namespace: format!("dne{}{label}", slot.number()),
            link: format!("dne{}{label}", slot.number()),
            address: address.to_owned(),
        };
        // A killed test may have left them.
        this.remove();
        ip(&["netns", "add", &this.namespace])?.ok()?;
        ip(&[
            "link",
            "add",
            &this.link,
            "type",
            "veth",
            "peer",
            "name",
            "eth0",
            "netns",
            &this.namespace,
        ])?
        .ok()?;
        this.inside(&["ip", "link", "set", "lo", "up"])?;
        this.inside(&["ip", "addr", "add", &format!("{address}/24"), "dev", "eth0"])?;
        this.inside(&["ip", "link", "set", "eth0", "up"])?;
        Ok(this)
    }

    /// Joins the bridge of a LAN, as a machine that is plugged in there.
    pub fn on_lan(slot: &Slot, network: &Network, address: &str) -> Result<Self> {
        let this = Self::new(slot, 'l', address)?;
        ip(&["link", "set", &this.link, "master", &network.bridge])?.ok()?;
        ip(&["link", "set", &this.link, "up"])?.ok()?;
        Ok(this)
    }

    /// Stands outside: the host is its router, and published ports are what it reaches. LAN 255 of
    /// the slot is the wire between the two.
    pub fn outside(slot: &Slot) -> Result<Self> {
        let this = Self::new(slot, 'o', &slot.address(255, 2))?;
        ip(&[
            "addr",
            "add",
            &format!("{}/24", slot.address(255, 1)),
            "dev",
            &this.link,
        ])?
        .ok()?;
        ip(&["link", "set", &this.link, "up"])?.ok()?;
        this.inside(&[
            "ip",
            "route",
            "add",
            "default",
            "via",
            &slot.address(255, 1),
        ])?;
        Ok(this)
    }

    /// Its address: what evidence must name as the source.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The name of the namespace, for `ip netns exec`.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Runs a program there.
    pub fn run(&self, command: &[&str], input: &str) -> Result<Outcome> {
        let mut arguments = vec!["netns", "exec", &self.namespace];
        arguments.extend(command);
        cli::run(Path::new("ip"), &arguments, &[], input)
    }

    /// Runs a program there, which must succeed.
    pub fn inside(&self, command: &[&str]) -> Result<Outcome> {
        self.run(command, "")?.ok()
    }

    /// Logs in by ssh with a password and runs one command.
    pub fn ssh(&self, address: &str, user: &str, password: &str, command: &str) -> Result<Outcome> {
        let target = format!("{user}@{address}");
        self.run(
            &[
                "sshpass",
                "-p",
                password,
                "ssh",
                "-o",
                "StrictHostKeyChecking=no",
                "-o",
                "UserKnownHostsFile=/dev/null",
                "-o",
                "LogLevel=ERROR",
                "-o",
                "ConnectTimeout=10",
                "-o",
                "PreferredAuthentications=password",
                "-o",
                "PubkeyAuthentication=no",
                &target,
                command,
            ],
            "",
        )
    }

    /// Whether a TCP connection opens.
    pub fn reaches(&self, address: &str, port: u16) -> Result<bool> {
        Ok(self
            .run(&["nc", "-z", "-w", "2", address, &port.to_string()], "")?
            .code
            == Some(0))
    }

    fn remove(&self) {
        // What is not there cannot be removed, and that is well.
        drop(ip(&["netns", "del", &self.namespace]));
        drop(ip(&["link", "del", &self.link]));
    }
}

impl Drop for Attacker {
    fn drop(&mut self) {
        self.remove();
    }
}
