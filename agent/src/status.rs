//! What `decnet-agent status` shows: the row verbatim, the spool, what is observed. Reads, and
//! writes nothing; needs no lock, so that it works while the agent runs and when it does not.

use std::fmt::Write as _;
use std::fs::File;
use std::path::Path;

use domain::observe::{Inventory, ObservedDecky, ObservedLan};
use pki::identity::files::{IdentityFiles, LoadIdentityError};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::engine::{Engine, EngineError};
use crate::identity::{LoadMembershipError, Membership};
use crate::leave::STORE_FILE;
use crate::spool::{Figures, OpenError, Spool};
use crate::store::{AppliedState, Row, Store, StoreError};

/// Everything that can be seen of an agent from outside of it.
#[derive(Debug)]
pub struct Status {
    host: Option<Host>,
    running: bool,
    row: Option<Row>,
    spool: Option<Figures>,
    observed: Option<Inventory>,
}

#[derive(Debug)]
struct Host {
    id: String,
    membership: Option<Membership>,
    certificate_until: OffsetDateTime,
}

/// Why the status could not be read.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// The identity cannot be read.
    #[error("could not read this host's identity")]
    Identity {
        /// Why.
        #[source]
        source: LoadIdentityError,
    },
    /// The membership cannot be read.
    #[error("could not read where this host belongs")]
    Membership {
        /// Why.
        #[source]
        source: LoadMembershipError,
    },
    /// The row cannot be read.
    #[error("could not read the row")]
    Store {
        /// Why.
        #[source]
        source: StoreError,
    },
    /// The spool cannot be read.
    #[error("could not read the spool")]
    Spool {
        /// Why.
        #[source]
        source: OpenError,
    },
    /// The engine does not tell what is there.
    #[error("could not look at the engine")]
    Engine {
        /// Why.
        #[source]
        source: EngineError,
    },
}

impl StatusError {
    /// What to do about it: one sentence for the operator.
    pub const fn next_step(&self) -> &'static str {
        match self {
            Self::Engine { .. } => "Check that the Docker daemon runs, or leave out --live.",
            Self::Identity { .. }
            | Self::Membership { .. }
            | Self::Store { .. }
            | Self::Spool { .. } => "Check that this user may read the data directory.",
        }
    }
}

impl Status {
    /// Reads the data directory.
    pub async fn read(data: &Path) -> Result<Self, StatusError> {
        let identity = IdentityFiles::new(data)
            .load()
            .map_err(|source| StatusError::Identity { source })?;
        let membership =
            Membership::load(data).map_err(|source| StatusError::Membership { source })?;
        let host = identity.map(|identity| Host {
            id: identity.host().to_string(),
            certificate_until: identity.not_after(),
            membership,
        });
        let row = Store::peek(&data.join(STORE_FILE))
            .await
            .map_err(|source| StatusError::Store { source })?;
        let spool = Spool::peek(data)
            .await
            .map_err(|source| StatusError::Spool { source })?;
        Ok(Self {
            host,
            running: is_running(data),
            row,
            spool,
            observed: None,
        })
    }

    /// Asks the engine what is there.
    pub async fn look(&mut self, engine: &dyn Engine) -> Result<(), StatusError> {
        let observed = engine.inventory().await;
        self.observed = Some(observed.map_err(|source| StatusError::Engine { source })?);
        Ok(())
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let Self {
            host,
            running,
            row,
            spool,
            observed,
        } = self;
        json!({
            "host": host.as_ref().map(|host| json!({
                "id": host.id,
                "name": host.membership.as_ref().map(|it| it.host.to_string()),
                "masters": host.membership.as_ref().map(masters),
                "clock_skew_seconds": host.membership.as_ref().map(|it| it.skew.whole_seconds()),
                "certificate_until": timestamp(host.certificate_until),
            })),
            "running": running,
            "row": row.as_ref().map(row_json),
            "spool": spool.as_ref().map(|figures| json!({
                "id": figures.id.to_string(),
                "waiting": figures.events,
                "bytes": figures.bytes,
                "last": figures.last,
                "acknowledged": figures.acked,
                "dropped": figures.dropped,
            })),
            "observed": observed.as_ref().map(observed_json),
        })
    }

    /// For people.
    pub fn table(&self) -> String {
        let mut out = String::new();
        let mut line = |name: &str, value: &str| {
            // Writing to a String does not fail.
            writeln!(out, "{name:<14}{value}").ok();
        };
        match &self.host {
            None => line("host", "not joined"),
            Some(host) => {
                let name = host.membership.as_ref().map(|it| it.host.to_string());
                line(
                    "host",
                    &format!("{} ({})", name.as_deref().unwrap_or("?"), host.id),
                );
                if let Some(membership) = &host.membership {
                    line("master", &masters(membership).join(", "));
                    line(
                        "clock skew",
                        &format!("{} s", membership.skew.whole_seconds()),
                    );
                }
                line(
                    "certificate",
                    &format!("until {}", timestamp(host.certificate_until)),
                );
            }
        }
        line(
            "agent",
            if self.running {
                "running"
            } else {
                "not running"
            },
        );
        match &self.row {
            None => line("row", "none"),
            Some(row) => {
                line("fence", &row.fence.to_string());
                line("phase", row.phase().as_str());
                if let Some(held) = row.held() {
                    line("topology", &held.topology.to_string());
                    line("version hash", &held.hash.to_string());
                    line("document", &format!("{} bytes", held.hydrated.len()));
                }
                let (failure, at) = failure_and_time(row);
                if let Some(failure) = failure {
                    line("error", &failure);
                }
                if let Some(at) = at {
                    line("at", &timestamp(at));
                }
            }
        }
        match &self.spool {
            None => line("spool", "none"),
            Some(figures) => line(
                "spool",
                &format!(
                    "{} events wait ({} KiB), {} of {} sent, {} dropped",
                    figures.events,
                    figures.bytes.div_ceil(1024),
                    figures.acked,
                    figures.last,
                    figures.dropped
                ),
            ),
        }
        if let Some(observed) = &self.observed {
            let Inventory {
                lans,
                deckies,
                foreign,
            } = observed;
            for lan in lans {
                line("lan", &format!("{} topology {}", lan.id, lan.topology));
            }
            for decky in deckies {
                let place = attachments(decky).join(" ");
                line(
                    "decky",
                    &format!("{} {} {place}", decky.id, decky.state.as_str()),
                );
            }
            for object in foreign {
                line("foreign", &format!("{} {}", object.noun, object.name));
            }
            if observed.is_empty() {
                line("observed", "nothing");
            }
        }
        out
    }
}

fn is_running(data: &Path) -> bool {
    // Read-only, and shared: looking must not make an agent that starts just now fail.
    File::open(data.join("lock")).is_ok_and(|lock| {
        matches!(
            lock.try_lock_shared(),
            Err(std::fs::TryLockError::WouldBlock)
        )
    })
}

fn masters(membership: &Membership) -> Vec<String> {
    membership
        .masters
        .iter()
        .map(|master| format!("https://{master}"))
        .collect()
}

fn row_json(row: &Row) -> Value {
    let held = row.held();
    let (error, at) = failure_and_time(row);
    json!({
        "epoch": row.fence.epoch.get(),
        "generation": row.fence.generation.get(),
        "phase": row.phase().as_str(),
        "topology_id": held.map(|held| held.topology.to_string()),
        "hash": held.map(|held| held.hash.to_string()),
        "hydrated": held.map(|held| String::from_utf8_lossy(&held.hydrated).into_owned()),
        "error": error,
        "at": at.map(timestamp),
    })
}

fn failure_and_time(row: &Row) -> (Option<String>, Option<OffsetDateTime>) {
    match &row.state {
        AppliedState::Idle | AppliedState::Applying(_) | AppliedState::Clearing => (None, None),
        AppliedState::Applied { at, .. } => (None, Some(*at)),
        AppliedState::Failed { reason, at, .. } => (Some(reason.to_string()), Some(*at)),
    }
}

fn observed_json(inventory: &Inventory) -> Value {
    let Inventory {
        lans,
        deckies,
        foreign,
    } = inventory;
    json!({
        "lans": lans.iter().map(lan_json).collect::<Vec<_>>(),
        "deckies": deckies.iter().map(decky_json).collect::<Vec<_>>(),
        "foreign": foreign
            .iter()
            .map(|object| json!({ "noun": object.noun, "name": object.name }))
            .collect::<Vec<_>>(),
    })
}

fn lan_json(lan: &ObservedLan) -> Value {
    json!({
        "handle": lan.handle.as_str(),
        "lan_id": lan.id.to_string(),
        "topology_id": lan.topology.to_string(),
        "spec": lan.spec.map(|spec| hex::encode(spec.bytes())),
        "depth": lan.depth,
    })
}

fn decky_json(decky: &ObservedDecky) -> Value {
    json!({
        "handle": decky.handle.as_str(),
        "decky_id": decky.id.to_string(),
        "topology_id": decky.topology.to_string(),
        "spec": decky.spec.map(|spec| hex::encode(spec.bytes())),
        "state": decky.state.as_str(),
        "addresses": attachments(decky),
        "config": decky.config,
        "outdated": decky.outdated,
    })
}

fn attachments(decky: &ObservedDecky) -> Vec<String> {
    decky
        .attachments
        .iter()
        .map(|at| {
            at.address
                .map_or_else(|| "?".to_owned(), |address| address.to_string())
        })
        .collect()
}

fn timestamp(at: OffsetDateTime) -> String {
    at.format(&Rfc3339).unwrap_or_else(|_| at.to_string())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use domain::id::{SpoolId, TopologyId};
    use domain::revision::Fence;
    use domain::topology::hydrate::VersionHash;
    use uuid::Uuid;

    use super::*;
    use crate::store::Held;

    fn status() -> Status {
        let held = Held {
            topology: TopologyId::new(Uuid::from_u128(7)),
            hash: VersionHash::new([0xab; 32]),
            hydrated: Bytes::from_static(b"{}"),
        };
        Status {
            host: None,
            running: true,
            row: Some(Row {
                fence: Fence::new(2, 5),
                state: AppliedState::Applied {
                    held,
                    at: OffsetDateTime::UNIX_EPOCH,
                },
            }),
            spool: Some(Figures {
                id: SpoolId::new(Uuid::from_u128(9)),
                last: 12,
                acked: 10,
                events: 2,
                bytes: 300,
                dropped: 1,
            }),
            observed: Some(Inventory::default()),
        }
    }

    #[test]
    fn the_table_is_what_an_operator_reads() {
        let expected = "\
host          not joined
agent         running
fence         2.5
phase         applied
topology      00000000-0000-0000-0000-000000000007
version hash  abababababababababababababababababababababababababababababababab
document      2 bytes
at            1970-01-01T00:00:00Z
spool         2 events wait (1 KiB), 10 of 12 sent, 1 dropped
observed      nothing
";
        assert_eq!(status().table(), expected);
    }

    #[test]
    fn the_json_has_the_row_verbatim() {
        let row = &status().json()["row"];
        assert_eq!(row["epoch"], 2);
        assert_eq!(row["hydrated"], "{}");
        assert_eq!(row["phase"], "applied");
        assert_eq!(row["error"], Value::Null);
    }

    #[tokio::test]
    async fn an_empty_directory_has_a_status_and_stays_empty() {
        let data = tempfile::tempdir().expect("temporary directory");
        let status = Status::read(data.path())
            .await
            .expect("nothing is no error");
        assert_eq!(
            status.table(),
            "host          not joined\nagent         not running\nrow           none\nspool         none\n"
        );
        assert_eq!(std::fs::read_dir(data.path()).expect("readable").count(), 0);
    }
}
