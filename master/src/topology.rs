//! The use cases of topologies: what an operator may ask for, and what is checked before intent
//! is stored. It never acts on a host: it stores intent and wakes the reconciler.

use std::sync::Arc;
use std::time::Duration;

use domain::id::{HostId, TopologyId};
use domain::revision::Revision;
use domain::topology::Topology;
use domain::topology::draft::{Draft, resolve};
use domain::topology::finding::{Finding, FindingCode, sort};
use domain::topology::hydrate::{VersionHash, hydrate};
use domain::topology::validate::check;
use sha2::{Digest as _, Sha256};

use crate::bus::Bus;
use crate::clock::Clock;
use crate::db::{Actor, HostRow, Removal, Store, StoreError, TopologyError, TopologyRow};
use crate::entropy::OsEntropy;
use crate::fleet::{Fleet, LiveHost};
use crate::signal::{Conditions, Waker};

mod canvas;
mod edit;
mod find;
mod intent;
mod judged;

pub use canvas::{CanvasError, Drawn};
pub use edit::{Change, ChangeError, EditOrder, Edited, Editor, Mode, Outcome, RevertError};
pub use find::{FindError, find_host, find_topology};
pub use intent::{Attempt, DeployError, DeployOrder, TargetError, TeardownError, TeardownOrder};
pub use judged::Judgements;

use judged::Judged;

/// The host that carries a topology for which no host was named.
pub const LOCAL: &str = "local";

/// What an operator may ask for.
pub struct Topologies {
    /// Where intent is stored.
    pub store: Arc<dyn Store>,
    /// Who is there to carry it out.
    pub fleet: Arc<Fleet>,
    /// What the reconciler awaits.
    pub conditions: Arc<Conditions>,
    /// What was looked at lately.
    pub judgements: Judgements,
    /// Edits what is stored.
    pub editor: Editor,
    /// Wakes the reconciler.
    pub waker: Waker,
    /// Where changes are told.
    pub bus: Arc<Bus>,
    /// The time.
    pub clock: Clock,
    /// How long a deploy may take before it is given up.
    pub deploy_timeout: Duration,
}

/// A topology that was stored.
#[derive(Debug)]
pub struct Created {
    /// Its identity.
    pub id: TopologyId,
    /// What stands in the way of its deploy, and what does not but should be known.
    pub findings: Vec<Finding>,
}

/// A topology, and everything that is known of where it stands.
#[derive(Debug)]
pub struct Inspection {
    /// What is stored.
    pub row: Arc<TopologyRow>,
    /// Its host, if it has one.
    pub host: Option<HostRow>,
    /// What its host says.
    pub live: Option<LiveHost>,
    /// What is awaited.
    pub condition: Option<String>,
    /// What is wrong with it as it is stored.
    pub findings: Arc<[Finding]>,
}

/// Why a topology was not stored.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// It cannot be read: names, references or values are wrong.
    #[error("topology cannot be read")]
    Refused(Vec<Finding>),
    /// Its host is no host.
    #[error(transparent)]
    Target(TargetError),
    /// The store did not take it.
    #[error("topology was not stored")]
    Insert(#[source] TopologyError),
    /// The store failed.
    #[error("topology could not be compared with those that are stored")]
    Store(#[source] StoreError),
}

/// Why a topology was not removed.
#[derive(Debug, thiserror::Error)]
pub enum DeleteError {
    /// Nothing has that id or name.
    #[error(transparent)]
    Find(FindError),
    /// The store did not remove it.
    #[error("topology was not removed")]
    Delete(#[source] TopologyError),
}

// === impl Topologies ===

impl Topologies {
    /// What is wrong with a draft, of reading it and of the rules. Stores nothing.
    pub fn validate(&self, draft: &Draft) -> Vec<Finding> {
        check(&resolve(
            draft,
            None,
            &self.editor.limits,
            &mut self.entropy(),
        ))
    }

    /// Stores a draft as pending. What cannot be read is refused with every finding; what merely
    /// breaks rules is stored, since a draft may be unfinished, and its findings are returned.
    pub async fn create(
        &self,
        draft: &Draft,
        host: Option<&str>,
        actor: Actor,
    ) -> Result<Created, CreateError> {
        let host = match host {
            Some(reference) => Some(
                self.target(reference)
                    .await
                    .map_err(CreateError::Target)?
                    .id,
            ),
            None => None,
        };
        let resolved = resolve(draft, host, &self.editor.limits, &mut self.entropy());
        let mut findings = check(&resolved);
        if !resolved.findings.is_empty() {
            return Err(CreateError::Refused(findings));
        }
        let topology = resolved.topology;
        findings.extend(self.overlaps(&topology).await.map_err(CreateError::Store)?);
        sort(&mut findings);
        self.store
            .insert_topology(&topology, actor, (self.clock)())
            .await
            .map_err(CreateError::Insert)?;
        Ok(Created {
            id: topology.id,
            findings,
        })
    }

    /// Removes a topology and what belongs to it, if it is at the revision that is meant, where one
    /// is; its events and the audit stay.
    pub async fn delete(
        &self,
        reference: &str,
        expected: Option<Revision>,
        actor: Actor,
    ) -> Result<(), DeleteError> {
        let row = self.find(reference).await.map_err(DeleteError::Find)?;
        let id = row.topology.id;
        let observed_empty = row.topology.host.is_none_or(|host| {
            self.fleet
                .live(host)
                .and_then(|live| live.report)
                .and_then(|report| report.observed.as_ref().map(|observed| observed.lacks(id)))
                .unwrap_or(false)
        });
        let removal = Removal {
            topology: id,
            expected,
            observed_empty,
            actor,
            now: (self.clock)(),
        };
        self.store
            .delete_topology(removal)
            .await
            .map_err(DeleteError::Delete)?;
        self.waker.wake();
        Ok(())
    }

    /// A topology, and everything that is known of where it stands.
    pub async fn inspect(&self, reference: &str) -> Result<Inspection, FindError> {
        let Judged { row, findings } = self.judgements.of(self.store.as_ref(), reference).await?;
        let host = match row.topology.host {
            Some(id) => {
                let found = self.store.host(id).await;
                found.map_err(|source| FindError::Store {
                    noun: "host",
                    source,
                })?
            }
            None => None,
        };
        Ok(Inspection {
            live: host.as_ref().and_then(|host| self.fleet.live(host.id)),
            host,
            condition: self.conditions.of(row.topology.id),
            findings,
            row,
        })
    }

    /// The canonical document: the very bytes that are assigned while it is live, or what would
    /// be assigned if it were deployed now.
    pub async fn hydrated(&self, reference: &str) -> Result<(Vec<u8>, VersionHash), FindError> {
        let row = self.find(reference).await?;
        if let (true, Some((_, hash)), Some(host)) =
            (row.status.is_live(), row.desired, row.topology.host)
        {
            let stored = self.store.assigned_document(host).await;
            let stored = stored.map_err(|source| FindError::Store {
                noun: "document",
                source,
            })?;
            // While it is torn down its host is assigned another, or nothing.
            if let Some(bytes) =
                stored.filter(|bytes| <[u8; 32]>::from(Sha256::digest(bytes)) == *hash.bytes())
            {
                return Ok((bytes, hash));
            }
        }
        let hydrated = hydrate(&row.topology);
        Ok((proto::hydrated::encode(&hydrated), hydrated.version_hash()))
    }

    /// Warnings for LANs that overlap those of a live topology of the same host. No more than
    /// that: the two are on the host together only while one replaces the other.
    async fn overlaps(&self, topology: &Topology) -> Result<Vec<Finding>, StoreError> {
        let host: Option<HostId> = match topology.host {
            Some(id) => Some(id),
            None => match find_host(self.store.as_ref(), LOCAL).await {
                Ok(host) => Some(host.id),
                Err(FindError::Unknown { .. }) => None,
                Err(FindError::Store { source, .. }) => return Err(source),
            },
        };
        let mut findings = Vec::new();
        for summary in self.store.topologies().await? {
            if host.is_none() || summary.host != host || !summary.status.is_live() {
                continue;
            }
            let Some(other) = self.store.topology(summary.id).await? else {
                continue;
            };
            for (index, lan) in topology.lans.iter().enumerate() {
                for taken in &other.topology.lans {
                    if lan.subnet.contains(&taken.subnet) || taken.subnet.contains(&lan.subnet) {
                        findings.push(Finding::warning(
                            FindingCode::SubnetOverlap,
                            format!("lan {}", lan.name),
                            format!("lans[{index}].subnet"),
                            format!(
                                "{} overlaps {} of LAN {} of the topology {}, which is live on \
                                 the host",
                                lan.subnet, taken.subnet, taken.name, summary.name
                            ),
                        ));
                    }
                }
            }
        }
        Ok(findings)
    }

    fn entropy(&self) -> OsEntropy {
        OsEntropy::at((self.clock)())
    }
}
