//! Decisions of the reconciler: pure, level-triggered, made from what agents report and never
//! from what the master remembers having sent.

use time::OffsetDateTime;

use crate::assign::{ApplyFailure, Assignment, FailureCode, HostReport, Phase};
use crate::id::TopologyId;
use crate::topology::status::{StatusEvent, TopologyStatus};

/// What is known of a host when its next message is decided.
#[derive(Debug, Clone, Copy)]
pub struct HostView<'a> {
    /// What is assigned to it.
    pub assignment: &'a Assignment,
    /// The status of the assigned topology, if any.
    pub status: Option<TopologyStatus>,
    /// What it last reported on its present connection; none when it is not connected.
    pub report: Option<&'a HostReport>,
    /// Before when nothing may be sent to it again (back-off), when that is so.
    pub not_before: Option<OffsetDateTime>,
    /// The time.
    pub now: OffsetDateTime,
}

/// What to send to a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostAction {
    /// Nothing.
    Rest,
    /// Its assignment, as it stands.
    Push,
    /// Nothing before the back-off has passed.
    Wait,
    /// The host has obeyed a fence that this master did not set (the database was restored):
    /// raise the assignment above it.
    Supersede,
}

/// Decides what to send to a host.
pub fn decide_host(view: &HostView<'_>) -> HostAction {
    let Some(report) = view.report else {
        return HostAction::Rest;
    };
    let assignment = view.assignment;
    if report.fence > assignment.fence {
        return HostAction::Supersede;
    }
    if report
        .refused(assignment.fence)
        .is_some_and(|failure| !is_tried_again(failure, view.status))
    {
        return HostAction::Rest;
    }
    let push = match view.not_before {
        Some(at) if view.now < at => HostAction::Wait,
        Some(_) | None => HostAction::Push,
    };
    if report.fence < assignment.fence {
        return push;
    }
    if report.content != assignment.content {
        return HostAction::Supersede;
    }
    if report.in_flight {
        return HostAction::Rest;
    }
    match report.phase {
        // Interrupted by the end of the agent's process.
        Phase::Applying | Phase::Clearing => push,
        // A failed deploy waits for the operator; a failed repair or teardown is tried again.
        Phase::Failed => match view.status {
            Some(TopologyStatus::Active | TopologyStatus::Degraded) => push,
            None => push,
            Some(
                TopologyStatus::Pending
                | TopologyStatus::Deploying
                | TopologyStatus::Failed
                | TopologyStatus::TearingDown
                | TopologyStatus::TornDown,
            ) => HostAction::Rest,
        },
        Phase::Applied | Phase::Idle => {
            if report.observed.is_none() || report.is_converged() {
                HostAction::Rest
            } else {
                push
            }
        }
    }
}

/// Whether a refusal is of what passes by itself, such as a full disk. A deploy that it has failed
/// waits for the operator, as every failed deploy does; what is to be kept or removed does not.
pub const fn is_tried_again(refusal: &ApplyFailure, status: Option<TopologyStatus>) -> bool {
    let passes = matches!(refusal.code, FailureCode::Store);
    let waits = matches!(
        status,
        Some(TopologyStatus::Deploying | TopologyStatus::Failed)
    );
    passes && !waits
}

/// What is known of a topology when its status is decided.
#[derive(Debug, Clone, Copy)]
pub struct TopologyView<'a> {
    /// The topology.
    pub topology: TopologyId,
    /// Where it stands.
    pub status: TopologyStatus,
    /// What is assigned to its host.
    pub assignment: &'a Assignment,
    /// What its host last reported on its present connection; none when it is not connected.
    pub report: Option<&'a HostReport>,
    /// Until when a deploy may take.
    pub deadline: Option<OffsetDateTime>,
    /// The time.
    pub now: OffsetDateTime,
}

/// What becomes of a topology.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TopologyAction {
    /// Nothing, and nothing is awaited.
    Rest,
    /// Nothing yet: what is awaited, for a person.
    Await(&'static str),
    /// Its status takes an event, for a reason.
    Settle(StatusEvent, String),
    /// Its deploy is given up and its assignment withdrawn, so that a host that comes late is
    /// cleaned.
    Withdraw(String),
}

/// Decides what becomes of a topology.
pub fn decide_topology(view: &TopologyView<'_>) -> TopologyAction {
    use TopologyAction::{Await, Rest, Settle};
    use TopologyStatus as Is;
    match view.status {
        Is::Pending | Is::Failed | Is::TornDown => Rest,
        Is::TearingDown => match view.report {
            None => Await("the host does not answer; it is cleaned when it returns"),
            Some(report) if report.refused(view.assignment.fence).is_some() => {
                Await("the host refuses what it is to hold instead")
            }
            Some(report) if report.fence != view.assignment.fence => {
                Await("the host has not yet been told")
            }
            Some(report) if report.in_flight => Await("the host is removing it"),
            Some(report) => match &report.observed {
                Some(observed) if observed.lacks(view.topology) => Settle(
                    StatusEvent::HostIsEmpty,
                    "the host reports that nothing is left".to_owned(),
                ),
                Some(_) => Await("the host still holds a part of it"),
                None => Await("the engine of the host does not answer"),
            },
        },
        Is::Deploying | Is::Active | Is::Degraded => decide_desired(view),
    }
}

fn decide_desired(view: &TopologyView<'_>) -> TopologyAction {
    use TopologyAction::{Await, Rest, Settle, Withdraw};
    use TopologyStatus as Is;
    let deploying = view.status == Is::Deploying;
    let overdue = deploying && view.deadline.is_some_and(|deadline| view.now >= deadline);
    let Some(report) = view.report else {
        if overdue {
            return Withdraw("the host did not answer before the deadline".to_owned());
        }
        return if deploying {
            Await("the host does not answer")
        } else {
            Rest
        };
    };
    // A host that holds what it is to hold has refused something else under that fence.
    let holds = report.fence == view.assignment.fence && report.content == view.assignment.content;
    if let Some(failure) = report.refused(view.assignment.fence)
        && !holds
    {
        return match view.status {
            // It was never begun: what it was to replace still stands there, and goes.
            Is::Deploying => Withdraw(failure.to_string()),
            Is::Active => Settle(StatusEvent::Drifted, failure.to_string()),
            Is::Degraded | Is::Pending | Is::Failed | Is::TearingDown | Is::TornDown => {
                Await("the host refuses its assignment")
            }
        };
    }
    if !holds {
        if overdue {
            return Withdraw("the host did not take the assignment before the deadline".to_owned());
        }
        return Await("the host has not yet been told");
    }
    if report.in_flight {
        if overdue {
            return Withdraw("the host did not finish before the deadline".to_owned());
        }
        return Await("the host is at work");
    }
    match report.phase {
        Phase::Failed => {
            let reason = report
                .failure
                .as_ref()
                .map_or_else(|| "the host gave no reason".to_owned(), ToString::to_string);
            match view.status {
                Is::Deploying => Settle(StatusEvent::ApplyFailed, reason),
                Is::Active => Settle(StatusEvent::Drifted, reason),
                Is::Degraded | Is::Pending | Is::Failed | Is::TearingDown | Is::TornDown => {
                    Await("the host could not repair it; it is tried again")
                }
            }
        }
        Phase::Applying | Phase::Clearing | Phase::Idle => {
            if overdue {
                return Withdraw("the host did not finish before the deadline".to_owned());
            }
            Await("the host was interrupted and is told again")
        }
        Phase::Applied => {
            if report.observed.is_none() {
                return Await("the engine of the host does not answer");
            }
            if report.is_converged() {
                return match view.status {
                    Is::Active => Rest,
                    Is::Deploying | Is::Degraded => Settle(
                        StatusEvent::Converged,
                        "the host reports exactly what is desired".to_owned(),
                    ),
                    Is::Pending | Is::Failed | Is::TearingDown | Is::TornDown => Rest,
                };
            }
            if overdue {
                return Withdraw("the host did not converge before the deadline".to_owned());
            }
            let list: Vec<String> = report
                .drift
                .iter()
                .filter(|drift| drift.kind.needs_repair())
                .take(8)
                .map(ToString::to_string)
                .collect();
            match view.status {
                Is::Active => Settle(StatusEvent::Drifted, list.join(", ")),
                Is::Deploying
                | Is::Degraded
                | Is::Pending
                | Is::Failed
                | Is::TearingDown
                | Is::TornDown => Await("the host repairs it"),
            }
        }
    }
}

#[cfg(test)]
mod tests;
