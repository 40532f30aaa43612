//! Starts tasks: each has a name and a span, and none is started in another way.

use std::future::Future;

use tokio::task::JoinHandle;
use tracing::{Instrument as _, Span};

use crate::witness::inherited;

/// Starts `future` inside `span`, as part of the work that starts it. The name is what a console or a
/// panic shows.
pub fn spawn<F>(name: &'static str, span: Span, future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    #[allow(clippy::disallowed_methods, reason = "the one place that starts tasks")]
    tokio::spawn(
        inherited(async move {
            tracing::trace!(task = name, "task started");
            future.await
        })
        .instrument(span),
    )
}
