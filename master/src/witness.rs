//! Says whether a piece of work may have stored anything, so that what failed before it did something
//! can be told from what did something and failed then.
//!
//! Transactions tell it when they commit, and not whoever began them: a mark that every handler has to
//! set is missing in the next one.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

tokio::task_local! {
    /// Whether the work that this task is part of has come to a commit.
    static COMMITTED: Arc<AtomicBool>;
}

/// What a piece of work has left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Nothing: it may be done again.
    Nothing,
    /// Something, or at least a commit of which nobody knows whether it was stored.
    Possible,
}

/// Does a piece of work, with every task that it starts and awaits.
pub(crate) async fn witnessed<F: Future>(work: F) -> (F::Output, Effect) {
    let committed = Arc::<AtomicBool>::default();
    let done = COMMITTED.scope(Arc::clone(&committed), work).await;
    let effect = if committed.load(Ordering::Acquire) {
        Effect::Possible
    } else {
        Effect::Nothing
    };
    (done, effect)
}

/// Makes a future that will run in a task of its own part of the work that starts it.
pub(crate) fn inherited<F: Future>(future: F) -> impl Future<Output = F::Output> {
    let committed = COMMITTED.try_with(Arc::clone).ok();
    async move {
        match committed {
            Some(committed) => COMMITTED.scope(committed, future).await,
            None => future.await,
        }
    }
}

/// Tells that a transaction is about to commit.
pub(crate) fn committing() {
    // Most of what commits is of no work that anybody witnesses.
    if let Ok(committed) = COMMITTED.try_with(Arc::clone) {
        committed.store(true, Ordering::Release);
    }
}
