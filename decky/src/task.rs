//! Starts tasks, each in a span of its own.

use std::future::Future;

use tokio::task::JoinHandle;
use tracing::Instrument;

/// Starts `future` in a span that carries its name.
#[allow(
    clippy::disallowed_methods,
    reason = "this is the spawn that everything else uses"
)]
pub(crate) fn spawn<F>(name: &'static str, future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    tokio::spawn(future.instrument(tracing::info_span!("task", name)))
}
