//! Finding what an operator names: by id or by name. A name may look like an id, so both are tried.

use crate::db::{HostRow, Store, StoreError, TopologyRow};

use super::Topologies;

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

// === impl Topologies ===

impl Topologies {
    /// The topology of that id or name.
    pub async fn find(&self, reference: &str) -> Result<TopologyRow, FindError> {
        find_topology(self.store.as_ref(), reference).await
    }
}

/// The topology of that id or name.
pub async fn find_topology(store: &dyn Store, reference: &str) -> Result<TopologyRow, FindError> {
    let failed = |source| FindError::Store {
        noun: "topology",
        source,
    };
    if let Ok(id) = reference.parse()
        && let Some(row) = store.topology(id).await.map_err(failed)?
    {
        return Ok(row);
    }
    if let Some(id) = store.topology_named(reference).await.map_err(failed)?
        && let Some(row) = store.topology(id).await.map_err(failed)?
    {
        return Ok(row);
    }
    Err(FindError::Unknown {
        noun: "topology",
        key: reference.to_owned(),
    })
}

/// The host of that id or name; a removed one only by its id.
pub async fn find_host(store: &dyn Store, reference: &str) -> Result<HostRow, FindError> {
    let failed = |source| FindError::Store {
        noun: "host",
        source,
    };
    if let Ok(id) = reference.parse()
        && let Some(row) = store.host(id).await.map_err(failed)?
    {
        return Ok(row);
    }
    let named = store.hosts(false).await.map_err(failed)?;
    named
        .into_iter()
        .find(|row| row.name.as_str().eq_ignore_ascii_case(reference))
        .ok_or_else(|| FindError::Unknown {
            noun: "host",
            key: reference.to_owned(),
        })
}
