//! The attacker in a decky's place (package `prober`), and how it is told what to try.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use agent::netns::{self, Namespace};
use anyhow::{Context as _, Result};
use serde::Deserialize;

use crate::docker::Container;
use crate::patience::{Look, eventually};
use crate::process::binary;
use crate::world::{SOON, World};

/// A bomb on a busy machine takes its time.
const PATIENCE: Duration = Duration::from_secs(120);

/// What an attempt has come to.
#[derive(Debug, Clone, Deserialize)]
pub struct Attempt {
    /// What was tried.
    pub attempt: String,
    /// Whether it succeeded, as far as it can be seen from inside.
    pub passed: bool,
    /// What the kernel said.
    pub detail: String,
}

/// A line to the attacker in a decky.
#[derive(Debug)]
pub struct Implant {
    stream: BufReader<TcpStream>,
}

impl Implant {
    /// Joins a host and starts its agent, with the attacker in the place of every decky.
    pub fn occupy(world: &mut World, host: &str) -> Result<()> {
        world.join(host)?;
        let prober = binary("prober")?;
        world.start_agent(host, &["--decky-binary", &prober.to_string_lossy()])?;
        world.await_settled(host)?;
        Ok(())
    }

    /// Connects from inside of its own namespace: the host has no way to an inner LAN of every
    /// engine.
    pub fn at(decky: &Container, address: &str) -> Result<Self> {
        let namespace = Namespace::of_process(decky.pid)?;
        let stream = eventually(&format!("the attacker at {address}"), SOON, || {
            let stream = netns::within(&namespace, |_| TcpStream::connect((address, 80)))?;
            Ok(Look::Seen(stream))
        })?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self {
            stream: BufReader::new(stream),
        })
    }

    /// Has it try something.
    pub fn attempt(&mut self, what: &str) -> Result<Attempt> {
        writeln!(self.stream.get_mut(), "{what}")?;
        let mut line = String::new();
        self.stream
            .read_line(&mut line)
            .with_context(|| format!("no answer to {what}"))?;
        serde_json::from_str(&line).with_context(|| format!("{what}: {line:?}"))
    }
}
