//! Deploy and teardown: checked, stored as intent, left to the reconciler to carry out.

use domain::host::{HostState, Standing};
use domain::id::TopologyId;
use domain::revision::Revision;
use domain::topology::finding::{Finding, FindingCode};
use domain::topology::hydrate::hydrate;
use domain::topology::status::{IllegalTransition, StatusEvent, TopologyStatus};
use domain::topology::validate::validate;

use super::{FindError, LOCAL, Topologies, find_host};
use crate::chain::Chain;
use crate::crash;
use crate::db::{
    Actor, Deploy, Force, HostRow, IntentError, Replace, Settlement, StoreError, Teardown, Withdraw,
};
use crate::signal::{tell_ended, tell_status};

/// Why a topology is torn down before its host has said so.
const FORCED: &str = "forced; cleaned if the host returns";

/// How a deploy is asked for.
#[derive(Debug, Clone)]
pub struct DeployOrder {
    /// Whether a failed one only may be tried.
    pub attempt: Attempt,
    /// Whether a live topology on the host gives way.
    pub replace: Replace,
    /// Another host than the stored one, by name or id.
    pub host: Option<String>,
    /// At which revision it is meant, if that was said: at another one nothing is deployed.
    pub expected: Option<Revision>,
}

/// How a teardown is asked for.
#[derive(Debug, Clone, Copy)]
pub struct TeardownOrder {
    /// Whether it is settled before its host has said so.
    pub force: Force,
    /// At which revision it is meant, if that was said: at another one nothing is torn down. What
    /// is being torn down already is at its last revision.
    pub expected: Option<Revision>,
}

/// Which deploy it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attempt {
    /// Of a topology that is pending or failed.
    Any,
    /// Of one that has failed.
    Retry,
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

// === impl Topologies ===

impl Topologies {
    /// Stores the intent to deploy, once nothing stands in its way.
    pub async fn deploy(
        &self,
        reference: &str,
        order: DeployOrder,
        actor: Actor,
    ) -> Result<TopologyId, DeployError> {
        let row = self.find(reference).await.map_err(DeployError::Find)?;
        let DeployOrder {
            attempt,
            replace,
            host,
            expected,
        } = order;
        let current = row.topology.revision;
        if let Some(expected) = expected.filter(|expected| *expected != current) {
            return Err(DeployError::Intent(IntentError::StaleRevision {
                expected,
                current,
            }));
        }
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
        let host = host
            .and_then(|host| self.ready(host))
            .map_err(DeployError::Target)?;
        let hydrated = hydrate(topology);
        let document = proto::hydrated::encode(&hydrated);
        if document.len() > proto::hydrated::MAX_DOCUMENT {
            findings.push(Finding::error(
                FindingCode::TooLarge,
                "topology",
                "",
                format!(
                    "{} bytes of hydrated document exceed what agents take",
                    document.len()
                ),
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
        let assignment = self
            .store
            .deploy(deploy)
            .await
            .map_err(DeployError::Intent)?;
        crash::point("deploy.stored");
        tracing::info!(
            topology.id = %topology.id,
            host.id = %host.id,
            generation = %assignment.fence.generation,
            "deploy stored"
        );
        let change = [row.status, TopologyStatus::Deploying];
        let of = (topology.id, &topology.name);
        tell_status(&self.bus, of, change, "a deploy was asked for");
        self.waker.wake();
        Ok(topology.id)
    }

    /// Stores the intent to take a topology down; by force, settles it at once.
    pub async fn teardown(
        &self,
        reference: &str,
        order: TeardownOrder,
        actor: Actor,
    ) -> Result<TopologyId, TeardownError> {
        let TeardownOrder { force, expected } = order;
        let row = self.find(reference).await.map_err(TeardownError::Find)?;
        let id = row.topology.id;
        let now = (self.clock)();
        // A teardown that hangs is what force is for: it is not asked for twice.
        let status = if row.status == TopologyStatus::TearingDown && force == Force::Yes {
            row.status
        } else {
            let reason = "an operator asked for it";
            let teardown = Teardown {
                topology: id,
                expected,
                reason: reason.to_owned(),
                actor: actor.clone(),
                now,
            };
            let stored = self.store.teardown(teardown).await;
            let status = stored.map_err(TeardownError::Intent)?;
            let of = (id, &row.topology.name);
            tell_status(&self.bus, of, [row.status, status], reason);
            // What a reader of the bus misses is in the database.
            let told = tell_ended(self.store.as_ref(), &self.bus, id, now).await;
            if let Err(error) = told {
                tracing::warn!(error = %Chain(&error), "cancelled mutations could not be told");
            }
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
            let settled = self
                .store
                .settle(settlement)
                .await
                .map_err(TeardownError::Intent)?;
            if let Some(status) = settled {
                let of = (id, &row.topology.name);
                let change = [TopologyStatus::TearingDown, status];
                tell_status(&self.bus, of, change, FORCED);
            }
        }
        self.waker.wake();
        Ok(id)
    }

    pub(super) async fn target(&self, reference: &str) -> Result<HostRow, TargetError> {
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
            state @ (HostState::Lost | HostState::Unknown) => {
                Err(TargetError::Away { name, state })
            }
            HostState::Revoked => Err(TargetError::Closed {
                name,
                standing: host.standing,
            }),
        }
    }
}

fn may_deploy(status: TopologyStatus, attempt: Attempt) -> Result<(), IllegalTransition> {
    let event = StatusEvent::DeployRequested;
    match attempt {
        Attempt::Retry if status != TopologyStatus::Failed => Err(IllegalTransition {
            from: status,
            event,
        }),
        Attempt::Retry | Attempt::Any => status.next(event).map(|_| ()),
    }
}
