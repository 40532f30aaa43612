//! The network namespaces of containers: found once by the daemon's word, then without it, wired and
//! looked at from outside.
//!
//! What a namespace is to look like is [`crate::netns`]'s business.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::IpAddr;

use bollard::query_parameters as query;
use domain::id::DeckyId;
use domain::observe::Handle;
use domain::topology::hydrate::HydratedInterface;
use domain::wiring::{ObservedWiring, Wiring};
use futures_util::StreamExt as _;
use futures_util::stream;

use super::{DockerEngine, brief};
use crate::chain::Chain;
use crate::engine::{EngineError, EngineErrorKind};
use crate::netns::{self, Namespace, Seal};
use crate::task;

/// How many containers are looked up at once when none is known: after a start of the agent.
const LOOKUPS: usize = 8;

/// A container's process, and what is kept of its namespace.
#[derive(Debug, Clone)]
pub(super) struct Wired {
    pid: u32,
    inode: u64,
    seal: Option<Seal>,
}

impl Wired {
    /// The namespace, as long as the process has it.
    fn namespace(&self) -> Option<Namespace> {
        let namespace = Namespace::of_process(self.pid).ok()?;
        (namespace.inode() == self.inode).then_some(namespace)
    }
}

/// What the daemon's word about a container leads to.
enum Lookup {
    Found(Wired),
    /// It has no namespace any more.
    Ended,
    /// It runs, as far as is known, and nothing of it can be read.
    Unreadable,
}

/// Why a container's namespace could not be found.
#[derive(Debug, thiserror::Error)]
enum Unfound {
    #[error("the container does not run")]
    NotRunning,
    #[error("process {pid} is none of the container any more")]
    Reused { pid: u32 },
}

impl DockerEngine {
    /// Makes the namespace of a running container look as it should.
    pub(super) async fn wire(&self, handle: &Handle, wiring: &Wiring) -> Result<(), EngineError> {
        let attempt = format!("could not wire container {}", brief(handle));
        let (pid, namespace) = self.namespace(handle, &attempt).await?;
        let inode = namespace.inode();
        let wanted = wiring.clone();
        let seal = task::blocking(move || netns::wire(&namespace, &wanted))
            .await
            .map_err(|source| refused(&attempt, source))?;
        let bytes = seal.encode();
        let seal = Some(seal);
        let wired = Wired { pid, inode, seal };
        self.wired(|all| all.insert(handle.clone(), wired));
        if let Some(decky) = self.known(|known| known.deckies.get(handle).copied())
            && let Err(error) = self.files.seal(decky, &bytes).await
        {
            // The next process will wire it once more; this one knows.
            tracing::warn!(decky.id = %decky, error = %Chain(&error), "a seal is not kept");
        }
        Ok(())
    }

    /// Takes the routes of a container away that lead to a network which it is to join: the daemon
    /// gives no address on a network to which there is a route. Rewiring makes those that are still
    /// wanted.
    pub(super) async fn make_way(
        &self,
        handle: &Handle,
        interface: &HydratedInterface,
    ) -> Result<(), EngineError> {
        let attempt = format!(
            "could not make way for {} in container {}",
            interface.address,
            brief(handle)
        );
        let known = self.wired(|all| all.get(handle).and_then(Wired::namespace));
        let namespace = match known {
            Some(namespace) => namespace,
            None => match self.namespace(handle, &attempt).await {
                Ok((_, namespace)) => namespace,
                // One that does not run has no routes; of everything else the daemon says more.
                Err(_) => return Ok(()),
            },
        };
        let addresses: Vec<IpAddr> = std::iter::once(interface.address.into())
            .chain(interface.address6.map(IpAddr::from))
            .collect();
        let clear = move || {
            netns::within(&namespace, |inside| {
                for route in inside.routes()? {
                    let leads_there = addresses.iter().any(|address| route.to.contains(address));
                    if leads_there && !route.of_address && route.to.prefix_len() > 0 {
                        inside.remove_route(&route)?;
                    }
                }
                Ok::<_, io::Error>(())
            })
        };
        task::blocking(clear)
            .await
            .map_err(|source| refused(&attempt, source))
    }

    /// How the namespaces of running containers look. One that has ended meanwhile is left out; one
    /// that cannot be read looks as if nothing in it were right.
    pub(super) async fn look_at(
        &self,
        running: &[(Handle, DeckyId)],
    ) -> BTreeMap<Handle, ObservedWiring> {
        self.wired(|all| all.retain(|handle, _| running.iter().any(|(other, _)| other == handle)));
        let known = running.iter().map(|(handle, decky)| {
            let wired = self.wired(|all| all.get(handle).cloned());
            (handle.clone(), *decky, wired)
        });
        let known: Vec<_> = known.collect();
        let (mut seen, lost) = task::blocking(move || look(known)).await;
        if lost.is_empty() {
            return seen;
        }
        // Started by somebody else, or before this process: the daemon knows where.
        let found: Vec<_> = stream::iter(lost)
            .map(|(handle, decky)| async move {
                let found = self.find(&handle, decky).await;
                (handle, decky, found)
            })
            .buffer_unordered(LOOKUPS)
            .collect()
            .await;
        let mut wired = Vec::new();
        for (handle, decky, lookup) in found {
            match lookup {
                Lookup::Found(found) => wired.push((handle, decky, Some(found))),
                Lookup::Ended => {}
                Lookup::Unreadable => drop(seen.insert(handle, ObservedWiring::default())),
            }
        }
        let (more, gone) = task::blocking(move || look(wired)).await;
        seen.extend(more);
        if !gone.is_empty() {
            tracing::debug!(
                count = gone.len(),
                "containers ended while they were looked at"
            );
        }
        seen
    }

    /// How many packets a container's rules have held back, for whatever reason.
    pub(super) fn held_back(&self, handle: &Handle) -> Option<u64> {
        let wired = self.wired(|all| all.get(handle).cloned())?;
        let held = netns::refused(&wired.namespace()?).ok()?;
        Some(held.refused.saturating_add(held.flooded))
    }

    pub(super) fn forget_wiring(&self, handle: &Handle) {
        self.wired(|all| all.remove(handle));
    }

    async fn find(&self, handle: &Handle, decky: DeckyId) -> Lookup {
        let attempt = format!("could not look up container {}", brief(handle));
        let (pid, namespace) = match self.namespace(handle, &attempt).await {
            Ok(found) => found,
            Err(error) if error.kind == EngineErrorKind::NotFound => {
                tracing::debug!(error = %Chain(&error), "a container has no namespace to look at");
                return Lookup::Ended;
            }
            Err(error) => {
                tracing::warn!(decky.id = %decky, error = %Chain(&error), "a decky's network cannot be found");
                return Lookup::Unreadable;
            }
        };
        let seal = self.files.read_seal(decky).await;
        let wired = Wired {
            pid,
            inode: namespace.inode(),
            seal: seal.as_deref().and_then(Seal::decode),
        };
        self.wired(|all| all.insert(handle.clone(), wired.clone()));
        Lookup::Found(wired)
    }

    /// The first process of a container, and its namespace; one that does not run is not found.
    async fn namespace(
        &self,
        handle: &Handle,
        attempt: &str,
    ) -> Result<(u32, Namespace), EngineError> {
        let docker = self.client.docker(attempt).await?;
        let options = None::<query::InspectContainerOptions>;
        let inspect = docker.inspect_container(handle.as_str(), options);
        let shown = self
            .client
            .within(attempt, self.client.limit, inspect)
            .await?;
        let pid = shown.state.and_then(|state| state.pid);
        let pid = pid
            .and_then(|pid| u32::try_from(pid).ok())
            .filter(|pid| *pid > 0);
        let Some(pid) = pid else {
            return Err(unfound(attempt, Unfound::NotRunning.into()));
        };
        let container = handle.as_str().to_owned();
        task::blocking(move || enter(pid, &container))
            .await
            .map(|namespace| (pid, namespace))
            .map_err(|source| unfound(attempt, source))
    }
}

fn unfound(attempt: &str, source: Boxed) -> EngineError {
    let kind = match source.downcast_ref() {
        Some(Unfound::NotRunning) => EngineErrorKind::NotFound,
        Some(Unfound::Reused { .. }) | None => EngineErrorKind::Refused,
    };
    EngineError {
        kind,
        attempt: attempt.to_owned(),
        source: Some(source),
    }
}

type Boxed = Box<dyn std::error::Error + Send + Sync>;

/// The namespace of a process that must be of `container`.
fn enter(pid: u32, container: &str) -> Result<Namespace, Boxed> {
    let gone = |error: io::Error| -> Boxed {
        if error.kind() == io::ErrorKind::NotFound {
            Unfound::NotRunning.into()
        } else {
            error.into()
        }
    };
    let namespace = Namespace::of_process(pid).map_err(gone)?;
    // Looked at afterwards: a number that was given to another process meanwhile is found out, and
    // the rules of a decky never come to stand in the namespace of a stranger, or of the host.
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).map_err(gone)?;
    if groups.contains(container) {
        Ok(namespace)
    } else {
        Err(Unfound::Reused { pid }.into())
    }
}

type Looked = (BTreeMap<Handle, ObservedWiring>, Vec<(Handle, DeckyId)>);

/// Looks at what is known; the rest must be looked up.
fn look(containers: Vec<(Handle, DeckyId, Option<Wired>)>) -> Looked {
    let mut seen = BTreeMap::new();
    let mut lost = Vec::new();
    for (handle, decky, wired) in containers {
        let namespace = wired.as_ref().and_then(Wired::namespace);
        let (Some(wired), Some(namespace)) = (wired, namespace) else {
            lost.push((handle, decky));
            continue;
        };
        let wiring = netns::observe(&namespace, wired.seal.as_ref()).unwrap_or_else(|error| {
            tracing::warn!(decky.id = %decky, error = %Chain(&error), "a decky's network cannot be read");
            ObservedWiring::default()
        });
        seen.insert(handle, wiring);
    }
    (seen, lost)
}

fn refused(attempt: &str, source: impl std::error::Error + Send + Sync + 'static) -> EngineError {
    EngineError {
        kind: EngineErrorKind::Refused,
        attempt: attempt.to_owned(),
        source: Some(Box::new(source)),
    }
}
