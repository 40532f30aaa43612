//! Measures what deckies use: after each look at the engine, and not more often than is of use.
//!
//! The figures stand beside the reports and change none of them.

use std::sync::Arc;
use std::time::Duration;

use domain::observe::Handle;
use domain::usage::{Usage, Usages};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::apply::Followed;
use crate::engine::usage::Meter;
use crate::task;

/// Between measurements at least.
pub const EVERY: Duration = Duration::from_secs(10);

/// How many packets the containment of a decky has refused, when something counts them.
pub type Refused = Arc<dyn Fn(&Handle) -> Option<u64> + Send + Sync>;

/// Measures.
pub struct Measurer {
    /// Which deckies there are; told anew with each look at the engine.
    pub following: watch::Receiver<Arc<Vec<Followed>>>,
    /// Reads the figures.
    pub meter: Meter,
    /// Counts refused packets.
    pub refused: Refused,
    /// Between measurements at least.
    pub every: Duration,
    /// Where the figures go.
    pub usages: watch::Sender<Arc<Usages>>,
}

impl Measurer {
    /// Measures until `shutdown`.
    pub async fn run(mut self, shutdown: CancellationToken) {
        loop {
            tokio::select! {
                changed = self.following.changed() => if changed.is_err() {
                    return;
                },
                () = shutdown.cancelled() => return,
            }
            let followed = Arc::clone(&self.following.borrow_and_update());
            let mut meter = std::mem::take(&mut self.meter);
            let refused = Arc::clone(&self.refused);
            // Some hundred small files: not beside the heartbeats.
            let (meter, measured) = task::blocking(move || {
                let usages = measure(&mut meter, &followed, &refused);
                (meter, usages)
            })
            .await;
            self.meter = meter;
            self.usages.send_if_modified(|current| {
                let news = **current != measured;
                if news {
                    *current = Arc::new(measured);
                }
                news
            });
            tokio::select! {
                () = sleep(self.every) => {}
                () = shutdown.cancelled() => return,
            }
        }
    }
}

fn measure(meter: &mut Meter, followed: &[Followed], refused: &Refused) -> Usages {
    let running: Vec<&Followed> = followed.iter().filter(|one| one.running).collect();
    let handles: Vec<Handle> = running.iter().map(|one| one.handle.clone()).collect();
    let found = meter.measure(&handles);
    running
        .into_iter()
        .filter_map(|one| {
            let usage = Usage {
                refused_packets: refused(&one.handle),
                ..*found.get(&one.handle)?
            };
            Some((one.decky, usage))
        })
        .collect()
}

impl std::fmt::Debug for Measurer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Measurer")
            .field("meter", &self.meter)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use domain::id::{DeckyId, TopologyId};
    use uuid::Uuid;

    use super::*;

    fn followed(number: u128, running: bool) -> Followed {
        Followed {
            decky: DeckyId::new(Uuid::from_u128(number)),
            topology: TopologyId::new(Uuid::from_u128(1)),
            handle: Handle::new(format!("{number:064x}")),
            running,
        }
    }

    #[tokio::test]
    async fn running_deckies_are_measured_after_each_look_at_the_engine() {
        let kernel = tempfile::tempdir().expect("a directory can be made");
        let root = kernel.path();
        for number in [7, 8] {
            let group = format!("docker/{number:064x}");
            std::fs::create_dir_all(root.join("proc").join(number.to_string())).expect("ours");
            std::fs::create_dir_all(root.join("cgroup").join(&group)).expect("ours");
            std::fs::write(
                root.join(format!("proc/{number}/cgroup")),
                format!("0::/{group}\n"),
            )
            .expect("ours");
            std::fs::write(root.join("cgroup").join(&group).join("pids.current"), "4\n")
                .expect("ours");
        }
        let (follow, following) = watch::channel(Arc::new(Vec::new()));
        let (usages, mut measured) = watch::channel(Arc::default());
        let measurer = Measurer {
            following,
            meter: Meter::within(root.join("proc"), root.join("cgroup")),
            refused: Arc::new(|handle| handle.as_str().ends_with('7').then_some(3)),
            every: Duration::ZERO,
            usages,
        };
        let shutdown = CancellationToken::new();
        let span = tracing::info_span!("test.measure");
        let running = task::spawn("measure", span, measurer.run(shutdown.clone()));
        follow.send_replace(Arc::new(vec![
            followed(7, true),
            // One that has ended, and one that is nowhere to be found.
            followed(8, false),
            followed(9, true),
        ]));
        measured.changed().await.expect("it measures");
        let expected = Usages::from([(
            DeckyId::new(Uuid::from_u128(7)),
            Usage {
                pids: 4,
                refused_packets: Some(3),
                ..Usage::default()
            },
        )]);
        assert_eq!(**measured.borrow_and_update(), expected);
        follow.send_replace(Arc::new(Vec::new()));
        measured.changed().await.expect("it measures");
        assert!(measured.borrow_and_update().is_empty());
        shutdown.cancel();
        running.await.expect("no panic");
    }
}
