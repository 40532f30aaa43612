//! Starts tasks: each has a name and a span, and none is started in another way.

use std::future::Future;

use tokio::task::JoinHandle;
use tracing::{Instrument, Span};

/// Starts `future` inside `span`. The name is what a console or a panic shows.
pub fn spawn<F>(name: &'static str, span: Span, future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    #[allow(clippy::disallowed_methods, reason = "the one place that starts tasks")]
    tokio::spawn(
        async move {
            tracing::trace!(task = name, "task started");
            future.await
        }
        .instrument(span),
    )
}

/// Runs what blocks (fsync, key generation) beside the tasks, inside the caller's span.
///
/// A panic in `work` is carried over to the caller; the runtime ending meanwhile is one too.
pub async fn blocking<T, W>(work: W) -> T
where
    W: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    let span = Span::current();
    #[allow(
        clippy::disallowed_methods,
        reason = "the one place that starts blocking work"
    )]
    let joined = tokio::task::spawn_blocking(move || span.in_scope(work)).await;
    match joined {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => std::panic::panic_any("the runtime ended under blocking work"),
        },
    }
}
