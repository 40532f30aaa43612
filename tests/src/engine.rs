//! What the engine of a host really holds, by the programs of the machine and not by the agent: the
//! tests' second witness, the same questions for each engine.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::cli::system;
use crate::docker::{self, Container, Network};
use crate::native;
use crate::world::Seat;

/// Which engine a host has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Engine {
    /// A Docker daemon.
    #[default]
    Docker,
    /// The kernel.
    Native,
}

/// Makes a test of each function that takes an [`Engine`], for each of them.
#[macro_export]
macro_rules! on_each_engine {
    ($($name:ident),* $(,)?) => {
        mod docker {
            $(#[test] fn $name() -> anyhow::Result<()> { super::$name(tests::engine::Engine::Docker) })*
        }
        mod native {
            $(#[test] fn $name() -> anyhow::Result<()> { super::$name(tests::engine::Engine::Native) })*
        }
    };
}

impl Engine {
    /// The word for it on the agent's command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Native => "native",
        }
    }

    /// Every container of a host, running or not, in the order of their names.
    pub fn containers(self, seat: &Seat) -> Result<Vec<Container>> {
        match self {
            Self::Docker => docker::containers(&seat.id),
            Self::Native => native::containers(&seat.id, &seat.data_dir),
        }
    }

    /// Every network of a host, in the order of their names.
    pub fn networks(self, seat: &Seat) -> Result<Vec<Network>> {
        match self {
            Self::Docker => docker::networks(&seat.id),
            Self::Native => native::networks(&seat.data_dir),
        }
    }

    /// Ids of every object of a host; with nothing else left of them, when there is none.
    pub fn object_ids(self, seat: &Seat) -> Result<Vec<String>> {
        match self {
            Self::Docker => docker::object_ids(&seat.id),
            Self::Native => native::object_ids(&seat.id, &seat.data_dir),
        }
    }

    /// Removes a container, as somebody would who knows nothing of the agent.
    pub fn remove(self, seat: &Seat, container: &Container) -> Result<()> {
        match self {
            Self::Docker => docker::docker(&["rm", "-f", &container.id]).map(drop),
            Self::Native => native::remove(&seat.id, &seat.data_dir, container),
        }
    }

    /// Ends the process of a container.
    pub fn kill(self, container: &Container) -> Result<()> {
        match self {
            Self::Docker => docker::docker(&["kill", &container.id]).map(drop),
            Self::Native => native::kill(container),
        }
    }

    /// Takes a container off a network.
    pub fn cut(self, container: &Container, network: &Network) -> Result<()> {
        match self {
            Self::Docker => {
                let arguments = ["network", "disconnect", "-f", &network.id, &container.id];
                docker::docker(&arguments).map(drop)
            }
            Self::Native => native::cut(container, network),
        }
    }

    /// Has the engine report a change that is none, so that the agent looks.
    pub fn nudge(self, seat: &Seat, container: &Container) -> Result<()> {
        match self {
            Self::Docker => {
                for name in [format!("{}-seen", container.name), container.name.clone()] {
                    docker::docker(&["rename", &container.id, &name])?;
                }
                Ok(())
            }
            Self::Native => {
                let networks = self.networks(seat)?;
                native::nudge(networks.first().context("it is on a network")?)
            }
        }
    }

    /// How many bytes of what a container has said are kept, and how many are at most.
    pub fn kept_output(self, seat: &Seat, container: &Container) -> Result<(u64, u64)> {
        const MIB: u64 = 1024 * 1024;
        let (folder, name, most) = match self {
            // Four files of 8 MiB.
            Self::Docker => {
                let path = container.inspect["LogPath"]
                    .as_str()
                    .context("it is logged")?;
                let (folder, name) = path.rsplit_once('/').context("a path")?;
                (PathBuf::from(folder), name.to_owned(), 32 * MIB)
            }
            // What is written, and the copy of what was read last.
            Self::Native => (
                seat.data_dir.join("native").join("out"),
                container.id.clone(),
                64 * MIB,
            ),
        };
        let mut kept = 0;
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(&name) {
                kept += entry.metadata()?.len();
            }
        }
        ensure!(kept > 0, "nothing of its output is kept");
        Ok((kept, most))
    }

    /// Takes a published port away from the host, and nothing else.
    pub fn unpublish(self, seat: &Seat, port: u16) -> Result<()> {
        match self {
            Self::Docker => docker::unpublish(port),
            Self::Native => native::unpublish(&seat.id),
        }
    }

    /// Removes a network.
    pub fn remove_network(self, network: &Network) -> Result<()> {
        match self {
            Self::Docker => docker::docker(&["network", "rm", &network.id]).map(drop),
            Self::Native => native::remove_network(network),
        }
    }

    /// Gives a subnet to somebody else on this machine, until it is dropped.
    pub fn occupy(self, name: &str, subnet: &str) -> Result<Occupied> {
        let occupied = Occupied {
            engine: self,
            name: name.to_owned(),
        };
        occupied.free();
        match self {
            Self::Docker => {
                docker::docker(&["network", "create", "--subnet", subnet, name])?;
            }
            Self::Native => {
                system("ip", &["link", "add", name, "type", "bridge"], "")?.ok()?;
                system("ip", &["address", "add", subnet, "dev", name], "")?.ok()?;
                system("ip", &["link", "set", name, "up"], "")?.ok()?;
            }
        }
        Ok(occupied)
    }
}

/// A subnet that is somebody else's.
#[derive(Debug)]
pub struct Occupied {
    engine: Engine,
    name: String,
}

impl Occupied {
    /// Fails unless it is still there.
    pub fn stands(&self) -> Result<()> {
        match self.engine {
            Engine::Docker => docker::docker(&["network", "inspect", &self.name]).map(drop),
            Engine::Native => {
                let links = system("ip", &["-j", "link"], "")?.ok()?;
                let links: Vec<Value> = serde_json::from_str(&links.stdout)?;
                links
                    .iter()
                    .find(|link| link["ifname"] == *self.name)
                    .map(drop)
                    .with_context(|| format!("{} is gone", self.name))
            }
        }
    }

    fn free(&self) {
        // It may be gone.
        match self.engine {
            Engine::Docker => drop(docker::docker(&["network", "rm", &self.name])),
            Engine::Native => drop(system("ip", &["link", "del", &self.name], "")),
        }
    }
}

impl Drop for Occupied {
    fn drop(&mut self) {
        self.free();
    }
}
