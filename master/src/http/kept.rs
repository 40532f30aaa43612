//! Answers that are the same until something is written: made once, then given again. A topology of a
//! thousand deckies takes longer to be read and written down than anything else that is asked for, and
//! pages that people look at ask for it again and again.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::Bytes;

use super::problem::ApiError;
use crate::db::Store;

/// Most bytes of answers that are kept.
pub(super) const MOST: usize = 16 * 1024 * 1024;

/// What is kept, all of it made at one version of the store.
#[derive(Debug, Default)]
pub(super) struct Kept(Mutex<Shelf>);

#[derive(Debug, Default)]
struct Shelf {
    version: u64,
    bytes: usize,
    answers: HashMap<String, Made>,
}

/// An answer.
#[derive(Debug, Clone)]
pub(super) struct Made {
    /// Its entity tag, without quotes.
    pub(super) tag: Arc<str>,
    /// Its JSON.
    pub(super) json: Bytes,
}

impl Kept {
    /// The answer that is kept under `key`, or the one that is made. The key says everything on which
    /// the answer depends but the store.
    pub(super) async fn or_make(
        &self,
        store: &dyn Store,
        key: String,
        make: impl Future<Output = Result<Made, ApiError>>,
    ) -> Result<Made, ApiError> {
        // Asked first: what is written while the answer is made is then found out.
        let Some(version) = store.version() else {
            return make.await;
        };
        if let Some(made) = self.shelf(version).answers.get(&key) {
            return Ok(made.clone());
        }
        let made = make.await?;
        let mut shelf = self.shelf(version);
        let size = key.len() + made.json.len();
        if shelf.version == version && size <= MOST {
            if shelf.bytes + size > MOST {
                shelf.clear();
            }
            shelf.bytes += size;
            shelf.answers.insert(key, made.clone());
        }
        Ok(made)
    }

    #[cfg(test)]
    pub(super) fn size(&self) -> usize {
        let shelf = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let answers = shelf.answers.iter();
        answers.map(|(key, made)| key.len() + made.json.len()).sum()
    }

    /// The shelf, without what is older than `version`.
    fn shelf(&self, version: u64) -> MutexGuard<'_, Shelf> {
        let mut shelf = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if shelf.version < version {
            shelf.clear();
            shelf.version = version;
        }
        shelf
    }
}

impl Shelf {
    fn clear(&mut self) {
        self.answers.clear();
        self.bytes = 0;
    }
}
