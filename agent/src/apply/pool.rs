//! Jobs of an attempt, a few at once: as many as the engine is fastest with.

use std::time::Instant;

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio_util::sync::CancellationToken;

use super::error::ApplyError;
use super::pace::Pace;

/// Whether to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    On,
    Stop,
}

/// How many jobs run at once.
#[derive(Debug, Clone, Copy)]
pub(super) enum AtOnce<'a> {
    /// So many.
    Fixed(usize),
    /// As many as the engine is fastest with.
    Paced(&'a Pace),
}

impl AtOnce<'_> {
    fn begin(self) {
        if let Self::Paced(pace) = self {
            pace.begin(Instant::now());
        }
    }

    fn limit(self) -> usize {
        match self {
            Self::Fixed(limit) => limit.max(1),
            Self::Paced(pace) => pace.limit(),
        }
    }

    fn done(self) {
        if let Self::Paced(pace) = self {
            pace.done(Instant::now());
        }
    }
}

/// A part of an attempt that runs beside others.
pub(super) type Job<'a> = BoxFuture<'a, Result<Flow, ApplyError>>;

/// Runs jobs, a few at once, in their order. After the first error or a stop no job
/// begins, and those that run end.
pub(super) async fn run(
    at_once: AtOnce<'_>,
    jobs: Vec<Job<'_>>,
    stop: &CancellationToken,
) -> Result<Flow, ApplyError> {
    at_once.begin();
    let mut waiting = jobs.into_iter();
    let mut running = FuturesUnordered::new();
    let mut first = None;
    loop {
        let limit = at_once.limit();
        while first.is_none() && !stop.is_cancelled() && running.len() < limit {
            match waiting.next() {
                Some(job) => running.push(job),
                None => break,
            }
        }
        match running.next().await {
            Some(Ok(Flow::On | Flow::Stop)) => at_once.done(),
            Some(Err(error)) => match &first {
                None => first = Some(error),
                Some(_) => {
                    tracing::warn!(error = %crate::chain::Chain(&error), "and another step")
                }
            },
            None => break,
        }
    }
    match first {
        Some(error) => Err(error),
        None if stop.is_cancelled() => Ok(Flow::Stop),
        None => Ok(Flow::On),
    }
}
