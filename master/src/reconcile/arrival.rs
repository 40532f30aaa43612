//! What a host's report says of mutations that are on their way to it, and of what its deckies
//! have come to serve.

use domain::assign::{HostReport, Phase};
use domain::decide::is_tried_again;
use domain::id::TopologyId;
use domain::revision::Fence;
use domain::topology::status::TopologyStatus;

use super::{PassError, Reconciler};
use crate::crash;
use crate::db::HostRow;
use crate::db::queue::Arrival;
use crate::fleet::LiveHost;
use crate::signal::tell;
use crate::substrate::Seen;

impl Reconciler {
    /// Ends the mutations of which the host has reported, and tells what has changed by them.
    /// `status` is where the topology stands after this pass has decided it.
    pub(super) async fn arrived(
        &mut self,
        topology: TopologyId,
        status: TopologyStatus,
        row: &HostRow,
        live: &LiveHost,
    ) -> Result<(), PassError> {
        let Some(report) = live.report.as_deref() else {
            return Ok(());
        };
        for (fence, arrival) in arrivals(topology, status, row.assignment.fence, report) {
            self.settle_mutations(topology, fence, &arrival).await?;
        }
        let Some((held, hash)) = report.content else {
            return Ok(());
        };
        let holds =
            report.fence == row.assignment.fence && report.content == row.assignment.content;
        // What it served before it hears of more was served, and somebody may have seen it.
        let held_before = report.fence < row.assignment.fence
            && report.phase == Phase::Applied
            && !report.in_flight;
        if held == topology
            && (holds || held_before)
            && status == TopologyStatus::Active
            && report.is_converged()
        {
            let seen = Seen {
                host: row.id,
                fence: report.fence,
                hash,
            };
            self.teller
                .converged(topology, seen)
                .await
                .map_err(PassError::Substrate)?;
        }
        Ok(())
    }

    async fn settle_mutations(
        &mut self,
        topology: TopologyId,
        fence: Fence,
        arrival: &Arrival,
    ) -> Result<(), PassError> {
        // A steady host says the same again and again.
        if self.settled.get(&topology) >= Some(&fence) {
            return Ok(());
        }
        let now = (self.clock)();
        let ended = self
            .store
            .settle_mutations(topology, fence, arrival, now)
            .await
            .map_err(|source| PassError::Mutations { topology, source })?;
        crash::point("mutation.settled");
        for row in &ended {
            tell(&self.bus, row);
        }
        self.settled.insert(topology, fence);
        Ok(())
    }
}

/// Up to which fences mutations have ended, and how, the older first; none while the host is at work or
/// away.
fn arrivals(
    topology: TopologyId,
    status: TopologyStatus,
    assigned: Fence,
    report: &HostReport,
) -> Vec<(Fence, Arrival)> {
    match status {
        TopologyStatus::Active | TopologyStatus::Degraded => {}
        // What a failed deploy or a teardown leaves has ended with it.
        TopologyStatus::Pending
        | TopologyStatus::Deploying
        | TopologyStatus::Failed
        | TopologyStatus::TearingDown
        | TopologyStatus::TornDown => return Vec::new(),
    }
    let mut arrivals = Vec::new();
    let is_this = report.content.is_some_and(|(held, _)| held == topology);
    if is_this && report.fence <= assigned {
        match report.phase {
            _ if report.in_flight => return Vec::new(),
            Phase::Applied => arrivals.push((report.fence, Arrival::Reported)),
            Phase::Failed => {
                let reason = report
                    .failure
                    .as_ref()
                    .map_or_else(|| "the host gave no reason".to_owned(), ToString::to_string);
                arrivals.push((report.fence, Arrival::Failed(reason)));
            }
            Phase::Idle | Phase::Applying | Phase::Clearing => {}
        }
    }
    // What came before it has arrived all the same.
    if let Some(failure) = report.refused(assigned)
        && !is_tried_again(failure, Some(status))
    {
        arrivals.push((assigned, Arrival::Failed(failure.to_string())));
    }
    arrivals
}

#[cfg(test)]
mod tests {
    use domain::assign::{ApplyFailure, FailureCode, Refusal};
    use domain::topology::hydrate::VersionHash;
    use uuid::Uuid;

    use super::*;

    const STATUS: TopologyStatus = TopologyStatus::Active;

    fn topology() -> TopologyId {
        TopologyId::new(Uuid::from_u128(1))
    }

    fn report(generation: u64, phase: Phase) -> HostReport {
        HostReport {
            fence: Fence::new(1, generation),
            phase,
            in_flight: false,
            content: Some((topology(), VersionHash::new([7; 32]))),
            applied_at: None,
            failure: None,
            refusal: None,
            observed: None,
            drift: Vec::new(),
            timings: Default::default(),
        }
    }

    fn refusing(mut report: HostReport, generation: u64, code: FailureCode) -> HostReport {
        let message = "it cannot".to_owned();
        report.refusal = Some(Refusal {
            fence: Fence::new(1, generation),
            failure: ApplyFailure { code, message },
        });
        report
    }

    /// Up to which generation, and whether it was carried out.
    fn ended(report: &HostReport, assigned: u64) -> Vec<(u64, bool)> {
        arrivals(topology(), STATUS, Fence::new(1, assigned), report)
            .into_iter()
            .map(|(fence, arrival)| (fence.generation.get(), arrival == Arrival::Reported))
            .collect()
    }

    #[test]
    fn what_a_host_holds_has_arrived_whatever_it_refuses_next() {
        use FailureCode::{Corrupt, Store};
        let held = || report(5, Phase::Applied);
        assert_eq!(ended(&held(), 5), [(5, true)]);
        assert_eq!(ended(&held(), 6), [(5, true)]);
        assert_eq!(
            ended(&refusing(held(), 6, Corrupt), 6),
            [(5, true), (6, false)]
        );
        assert_eq!(ended(&refusing(held(), 5, Corrupt), 6), [(5, true)]);
        let failed = report(5, Phase::Failed);
        assert_eq!(
            ended(&refusing(failed, 6, Corrupt), 6),
            [(5, false), (6, false)]
        );
        // A disk that is full now is told again.
        assert_eq!(ended(&refusing(held(), 6, Store), 6), [(5, true)]);
        // It is still at work on what came before.
        let mut busy = refusing(report(5, Phase::Applying), 6, Corrupt);
        busy.in_flight = true;
        assert_eq!(ended(&busy, 6), []);
        busy.in_flight = false;
        assert_eq!(ended(&busy, 6), [(6, false)]);
        let mut empty = refusing(report(5, Phase::Idle), 6, Corrupt);
        empty.content = None;
        assert_eq!(ended(&empty, 6), [(6, false)]);
    }
}
