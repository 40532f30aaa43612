//! What the engine of a host of a world really holds, whatever anybody says.

use anyhow::{Context as _, Result, bail};

use super::World;
use crate::docker::{Container, Network};

impl World {
    /// Every container of a host, running or not.
    pub fn containers(&self, host: &str) -> Result<Vec<Container>> {
        let seat = self.seat(host)?;
        seat.engine.containers(seat)
    }

    /// Every network of a host.
    pub fn networks(&self, host: &str) -> Result<Vec<Network>> {
        let seat = self.seat(host)?;
        seat.engine.networks(seat)
    }

    /// Ids of every object of a host: what must stay or go.
    pub fn object_ids(&self, host: &str) -> Result<Vec<String>> {
        let seat = self.seat(host)?;
        seat.engine.object_ids(seat)
    }

    /// The container of a decky of a topology on a host.
    pub fn container(&self, host: &str, address: &str) -> Result<Container> {
        self.containers(host)?
            .into_iter()
            .find(|container| container.addresses.values().any(|own| own == address))
            .with_context(|| format!("no container of {host} has the address {address}"))
    }

    /// The network of a LAN of a topology on a host.
    pub fn network(&self, host: &str, subnet: &str) -> Result<Network> {
        self.networks(host)?
            .into_iter()
            .find(|network| network.subnet == subnet)
            .with_context(|| format!("no network of {host} has the subnet {subnet}"))
    }

    /// Removes a container, as somebody would who knows nothing of the agent.
    pub fn remove_container(&self, host: &str, container: &Container) -> Result<()> {
        let seat = self.seat(host)?;
        seat.engine.remove(seat, container)
    }

    /// Ends the process of a container.
    pub fn kill_container(&self, host: &str, container: &Container) -> Result<()> {
        self.seat(host)?.engine.kill(container)
    }

    /// Takes a container off a network.
    pub fn cut(&self, host: &str, container: &Container, network: &Network) -> Result<()> {
        self.seat(host)?.engine.cut(container, network)
    }

    /// Removes a network.
    pub fn remove_network(&self, host: &str, network: &Network) -> Result<()> {
        self.seat(host)?.engine.remove_network(network)
    }

    /// Fails unless the engine holds nothing of a host.
    pub fn assert_empty(&self, host: &str) -> Result<()> {
        let left = self.object_ids(host)?;
        if !left.is_empty() {
            bail!("the engine still holds {left:?} of {host}");
        }
        Ok(())
    }

    /// Fails unless the engine holds of a host exactly so many running containers and networks.
    pub fn assert_holds(&self, host: &str, deckies: usize, lans: usize) -> Result<()> {
        let containers = self.containers(host)?;
        let networks = self.networks(host)?;
        let running = containers
            .iter()
            .filter(|container| container.running)
            .count();
        if containers.len() != deckies || running != deckies || networks.len() != lans {
            bail!(
                "{host} holds {} containers ({running} running) and {} networks, not {deckies} and {lans}: {:?}",
                containers.len(),
                networks.len(),
                containers
                    .iter()
                    .map(|container| &container.name)
                    .collect::<Vec<_>>()
            );
        }
        Ok(())
    }
}
