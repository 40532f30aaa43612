//! What a host's report says of mutations that are on their way to it, and of what its deckies
//! have come to serve.

use domain::assign::{HostReport, Phase};
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
        if let Some((fence, arrival)) = arrival(topology, status, row, report) {
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
        if self.settled.get(&topology) == Some(&fence) {
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

/// Up to which fence mutations have ended, and how; none while the host is at work or away.
fn arrival(
    topology: TopologyId,
    status: TopologyStatus,
    row: &HostRow,
    report: &HostReport,
) -> Option<(Fence, Arrival)> {
    match status {
        TopologyStatus::Active | TopologyStatus::Degraded => {}
        // What a failed deploy or a teardown leaves has ended with it.
        TopologyStatus::Pending
        | TopologyStatus::Deploying
        | TopologyStatus::Failed
        | TopologyStatus::TearingDown
        | TopologyStatus::TornDown => return None,
    }
    let assigned = row.assignment.fence;
    if let Some(refusal) = &report.refusal
        && refusal.fence == assigned
    {
        return Some((assigned, Arrival::Failed(refusal.failure.to_string())));
    }
    let is_this = report.content.is_some_and(|(held, _)| held == topology);
    if !is_this || report.in_flight || report.fence > assigned {
        return None;
    }
    match report.phase {
        Phase::Applied => Some((report.fence, Arrival::Reported)),
        Phase::Failed => {
            let reason = report
                .failure
                .as_ref()
                .map_or_else(|| "the host gave no reason".to_owned(), ToString::to_string);
            Some((report.fence, Arrival::Failed(reason)))
        }
        Phase::Idle | Phase::Applying | Phase::Clearing => None,
    }
}
