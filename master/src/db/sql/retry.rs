//! Doing a transaction again that the database ended in favour of another one.

use crate::db::accounts::UserError;
use crate::db::queue::{CancelError, CommitError, EditError, EnqueueError};
use crate::db::{IntentError, RedeemError, StandingError, StoreError, TopologyError};

/// How often a transaction is tried: those that are ended (a deadlock's victim, a serialization
/// failure) have made way for one that went on, so that few are ended twice.
const ATTEMPTS: u32 = 5;

/// An error of an operation of the store, which may be one of the database.
pub(super) trait OfStore {
    /// The error of the database, if it is one.
    fn store(&self) -> Option<&StoreError>;
}

impl OfStore for StoreError {
    fn store(&self) -> Option<&StoreError> {
        Some(self)
    }
}

/// The next error of an operation goes at the end.
macro_rules! of_store {
    ($($error:ident,)*) => {
        $(
            impl OfStore for $error {
                fn store(&self) -> Option<&StoreError> {
                    if let Self::Store(source) = self { Some(source) } else { None }
                }
            }
        )*
    };
}

of_store! {
    IntentError, RedeemError, StandingError, TopologyError, EnqueueError, CommitError, CancelError,
    EditError, UserError,
}

/// Runs a whole transaction, and again when the database ended it in favour of another.
pub(super) async fn again<T, E, F>(transaction: impl Fn() -> F + Send) -> Result<T, E>
where
    E: OfStore,
    F: Future<Output = Result<T, E>> + Send,
{
    for _ in 1..ATTEMPTS {
        match transaction().await {
            Err(error) if error.store().is_some_and(made_way) => {}
            result => return result,
        }
    }
    transaction().await
}

/// Whether the database ended the transaction, and would take it again at once.
fn made_way(error: &StoreError) -> bool {
    let StoreError::Busy { source, .. } = error else {
        return false;
    };
    // serialization_failure, deadlock_detected; no code of SQLite has this form.
    source
        .as_database_error()
        .and_then(|error| error.code())
        .is_some_and(|code| code == "40001" || code == "40P01")
}
