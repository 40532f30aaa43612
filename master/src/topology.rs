//! The use cases of topologies: what an operator may ask for, and what is checked before intent
//! is stored. It never acts on a host: it stores intent and wakes the reconciler.

use std::sync::Arc;
use std::time::Duration;

use domain::host::{HostState, Standing};
use domain::id::{HostId, TopologyId};
use domain::topology::Topology;
use domain::topology::draft::{Draft, resolve};
use domain::topology::finding::{Finding, FindingCode, sort};
use domain::topology::hydrate::{VersionHash, hydrate};
use domain::topology::status::{IllegalTransition, StatusEvent, TopologyStatus};
use domain::topology::validate::{Limits, check, validate};
use sha2::{Digest as _, Sha256};

use crate::bus::Bus;
use crate::clock::Clock;
use crate::crash;
use crate::db::{
    Actor, Deploy, Force, HostRow, IntentError, Replace, Settlement, Store, StoreError,
    TopologyError, TopologyRow, Withdraw,
};
use crate::entropy::OsEntropy;
use crate::fleet::{Fleet, LiveHost};
use crate::reconcile::{Conditions, Waker};

/// The host that carries a topology for which no host was named.
pub const LOCAL: &str = "local";
/// Why a topology is torn down before its host has said so.
const FORCED: &str = "forced; cleaned if the host returns";

/// What an operator may ask for.
pub struct Topologies {
    /// Where intent is stored.
    pub store: Arc<dyn Store>,
    /// Who is there to carry it out.
    pub fleet: Arc<Fleet>,
    /// What the reconciler awaits.
    pub conditions: Arc<Conditions>,
    /// Wakes the reconciler.
    pub waker: Waker,
    /// Where changes are told.
    pub bus: Arc<Bus>,
    /// The time.
    pub clock: Clock,
    /// How large a topology may be.
    pub limits: Limits,
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

/// How a deploy is asked for.
#[derive(Debug, Clone)]
pub struct DeployOrder {
    /// Whether a failed one only may be tried.
    pub attempt: Attempt,
    /// Whether a live topology on the host gives way.
    pub replace: Replace,
    /// Another host than the stored one, by name or id.
    pub host: Option<String>,
}

/// Which deploy it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attempt {
    /// Of a topology that is pending or failed.
    Any,
    /// Of one that has failed.
    Retry,
}

/// A topology, and everything that is known of where it stands.
#[derive(Debug)]
pub struct Inspection {
    /// What is stored.
    pub row: TopologyRow,
    /// Its host, if it has one.
    pub host: Option<HostRow>,
    /// What its host says.
    pub live: Option<LiveHost>,
    /// What is awaited.
    pub condition: Option<String>,
    /// What is wrong with it as it is stored.
    pub findings: Vec<Finding>,
}

/// Why something was not found.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// Nothing has that id or name.
    #[error("there is no {noun} {key:?}")]
    Unknown {
        /// What was looked for.
        noun: &'static str,
        /// Under which id or name.
        key: String,
    },
    /// The store failed.
    #[error("{noun} could not be looked up")]
    Store {
        /// What was looked for.
        noun: &'static str,
        /// Why.
        #[source]
        source: StoreError,
    },
}

/// Why a host cannot be the target.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// There is no such host.
    #[error("there is no host {0:?} to carry the topology")]
    Unknown(String),
    /// It takes nothing new.
    #[error("host {name} is {standing} and takes no new topology")]
    Closed {
        /// Its name.
        name: String,
        /// Its standing.
        standing: Standing,
    },
    /// It does not answer.
    #[error("host {name} is {state} and cannot be told")]
    Away {
        /// Its name.
        name: String,
        /// Its state.
        state: HostState,
    },
    /// The store failed.
    #[error("host of the topology could not be looked up")]
    Store(#[source] StoreError),
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

/// Why a topology is not being deployed.
#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    /// Nothing has that id or name.
    #[error(transparent)]
    Find(FindError),
    /// Its status does not allow it.
    #[error(transparent)]
    Illegal(IllegalTransition),
    /// It breaks rules.
    #[error("topology cannot be deployed as it is")]
    Refused(Vec<Finding>),
    /// Its host cannot take it.
    #[error(transparent)]
    Target(TargetError),
    /// The intent was not stored.
    #[error("deploy was not stored")]
    Intent(#[source] IntentError),
}

/// Why a topology is not being taken down.
#[derive(Debug, thiserror::Error)]
pub enum TeardownError {
    /// Nothing has that id or name.
    #[error(transparent)]
    Find(FindError),
    /// The intent was not stored.
    #[error("teardown was not stored")]
    Intent(#[source] IntentError),
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
        check(&resolve(draft, None, &self.limits, &mut self.entropy()))
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
            Some(reference) => Some(self.target(reference).await.map_err(CreateError::Target)?.id),
            None => None,
        };
        let resolved = resolve(draft, host, &self.limits, &mut self.entropy());
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
        Ok(Created { id: topology.id, findings })
    }

    /// Stores the intent to deploy, once nothing stands in its way.
    pub async fn deploy(
        &self,
        reference: &str,
        order: DeployOrder,
        actor: Actor,
    ) -> Result<TopologyId, DeployError> {
        let row = self.find(reference).await.map_err(DeployError::Find)?;
        let DeployOrder { attempt, replace, host } = order;
        may_deploy(row.status, attempt).map_err(DeployError::Illegal)?;
        let topology = &row.topology;
        let mut findings = validate(topology);
        if findings.iter().any(Finding::is_error) {
            return Err(DeployError::Refused(findings));
        }
        let host = match (host, topology.host) {
            (Some(reference), _) => self.target(&reference).await,
            (None, Some(id)) => self.target(&id.to_string()).await,
            (None, None) => self.target(LOCAL).await,
        };
        // That the subnets of what the host carries now are free is no question here: it gives
        // way first, or the store refuses the deploy because the host is occupied.
        let host = host.and_then(|host| self.ready(host)).map_err(DeployError::Target)?;
        let hydrated = hydrate(topology);
        let document = proto::hydrated::encode(&hydrated);
        if document.len() > proto::hydrated::MAX_DOCUMENT {
            findings.push(Finding::error(
                FindingCode::TooLarge,
                "topology",
                "",
                format!("{} bytes of hydrated document exceed what agents take", document.len()),
            ));
            return Err(DeployError::Refused(findings));
        }
        let now = (self.clock)();
        let deploy = Deploy {
            topology: topology.id,
            revision: topology.revision,
            host: host.id,
            hash: hydrated.version_hash(),
            hydrated: document,
            replace,
            deadline: now + self.deploy_timeout,
            actor,
            now,
        };
        let assignment = self.store.deploy(deploy).await.map_err(DeployError::Intent)?;
        crash::point("deploy.stored");
        tracing::info!(
            topology.id = %topology.id,
            host.id = %host.id,
            generation = %assignment.fence.generation,
            "deploy stored"
        );
        self.tell(&row, TopologyStatus::Deploying, "a deploy was asked for");
        self.waker.wake();
        Ok(topology.id)
    }

    /// Stores the intent to take a topology down; by force, settles it at once.
    pub async fn teardown(
        &self,
        reference: &str,
        force: Force,
        actor: Actor,
    ) -> Result<TopologyId, TeardownError> {
        let row = self.find(reference).await.map_err(TeardownError::Find)?;
        let id = row.topology.id;
        let now = (self.clock)();
        // A teardown that hangs is what force is for: it is not asked for twice.
        let status = if row.status == TopologyStatus::TearingDown && force == Force::Yes {
            row.status
        } else {
            let reason = "an operator asked for it";
            let stored = self.store.teardown(id, reason.to_owned(), actor.clone(), now).await;
            let status = stored.map_err(TeardownError::Intent)?;
            self.tell(&row, status, reason);
            status
        };
        crash::point("teardown.stored");
        if force == Force::Yes && status == TopologyStatus::TearingDown {
            let settlement = Settlement {
                topology: id,
                from: TopologyStatus::TearingDown,
                event: StatusEvent::HostIsEmpty,
                reason: FORCED.to_owned(),
                applied: None,
                withdraw: Withdraw::Nothing,
                actor,
                now,
            };
            // None: the host has reported its absence in the meantime, which is as good.
            let settled = self.store.settle(settlement).await.map_err(TeardownError::Intent)?;
            if let Some(status) = settled {
                self.tell(&TopologyRow { status: TopologyStatus::TearingDown, ..row }, status, FORCED);
            }
        }
        self.waker.wake();
        Ok(id)
    }

    /// Removes a topology and what belongs to it; its events and the audit stay.
    pub async fn delete(&self, reference: &str, actor: Actor) -> Result<(), DeleteError> {
        let row = self.find(reference).await.map_err(DeleteError::Find)?;
        let id = row.topology.id;
        let observed_empty = row.topology.host.is_none_or(|host| {
            self.fleet
                .live(host)
                .and_then(|live| live.report)
                .and_then(|report| report.observed.as_ref().map(|observed| observed.lacks(id)))
                .unwrap_or(false)
        });
        self.store
            .delete_topology(id, observed_empty, actor, (self.clock)())
            .await
            .map_err(DeleteError::Delete)?;
        self.waker.wake();
        Ok(())
    }

    /// A topology, and everything that is known of where it stands.
    pub async fn inspect(&self, reference: &str) -> Result<Inspection, FindError> {
        let row = self.find(reference).await?;
        let host = match row.topology.host {
            Some(id) => {
                let found = self.store.host(id).await;
                found.map_err(|source| FindError::Store { noun: "host", source })?
            }
            None => None,
        };
        Ok(Inspection {
            live: host.as_ref().and_then(|host| self.fleet.live(host.id)),
            host,
            condition: self.conditions.of(row.topology.id),
            findings: validate(&row.topology),
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
            let stored = stored.map_err(|source| FindError::Store { noun: "document", source })?;
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

    /// The topology of that id or name. A name may look like an id, so both are tried.
    pub async fn find(&self, reference: &str) -> Result<TopologyRow, FindError> {
        let failed = |source| FindError::Store { noun: "topology", source };
        if let Ok(id) = reference.parse()
            && let Some(row) = self.store.topology(id).await.map_err(failed)?
        {
            return Ok(row);
        }
        if let Some(id) = self.store.topology_named(reference).await.map_err(failed)?
            && let Some(row) = self.store.topology(id).await.map_err(failed)?
        {
            return Ok(row);
        }
        Err(FindError::Unknown { noun: "topology", key: reference.to_owned() })
    }

    async fn target(&self, reference: &str) -> Result<HostRow, TargetError> {
        match find_host(self.store.as_ref(), reference).await {
            Ok(host) if host.standing == Standing::Removed => {
                Err(TargetError::Unknown(reference.to_owned()))
            }
            Ok(host) => Ok(host),
            Err(FindError::Unknown { key, .. }) => Err(TargetError::Unknown(key)),
            Err(FindError::Store { source, .. }) => Err(TargetError::Store(source)),
        }
    }

    fn ready(&self, host: HostRow) -> Result<HostRow, TargetError> {
        // Whether its standing lets it take this topology is decided where the intent is stored: a
        // cordoned host may take again what it holds.
        let name = host.name.to_string();
        match self.fleet.state_of(&host, (self.clock)()) {
            HostState::Ready | HostState::Late => Ok(host),
            state @ (HostState::Lost | HostState::Unknown) => Err(TargetError::Away { name, state }),
            HostState::Revoked => Err(TargetError::Closed { name, standing: host.standing }),
        }
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
            let Some(other) = self.store.topology(summary.id).await? else { continue };
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

    fn tell(&self, before: &TopologyRow, to: TopologyStatus, reason: &str) {
        let id = before.topology.id;
        self.bus.publish(
            format!("topology.{id}.status"),
            serde_json::json!({
                "topology": id.to_string(),
                "name": before.topology.name.as_str(),
                "from": before.status.as_str(),
                "to": to.as_str(),
                "reason": reason,
            }),
        );
    }

    fn entropy(&self) -> OsEntropy {
        OsEntropy::at((self.clock)())
    }
}

/// The host of that id or name; a removed one only by its id. A name may look like an id, so
/// both are tried.
pub async fn find_host(store: &dyn Store, reference: &str) -> Result<HostRow, FindError> {
    let failed = |source| FindError::Store { noun: "host", source };
    if let Ok(id) = reference.parse()
        && let Some(row) = store.host(id).await.map_err(failed)?
    {
        return Ok(row);
    }
    let named = store.hosts(false).await.map_err(failed)?;
    named
        .into_iter()
        .find(|row| row.name.as_str().eq_ignore_ascii_case(reference))
        .ok_or_else(|| FindError::Unknown { noun: "host", key: reference.to_owned() })
}

fn may_deploy(status: TopologyStatus, attempt: Attempt) -> Result<(), IllegalTransition> {
    let event = StatusEvent::DeployRequested;
    match attempt {
        Attempt::Retry if status != TopologyStatus::Failed => {
            Err(IllegalTransition { from: status, event })
        }
        Attempt::Retry | Attempt::Any => status.next(event).map(|_| ()),
    }
}
