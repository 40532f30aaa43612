//! The tables of `fleet.md`'s crash recovery, and the law that nothing is active by hearsay.

use proptest::prelude::*;
use time::Duration;
use uuid::Uuid;

use super::*;
use crate::assign::{ApplyFailure, Content, FailureCode, Refusal};
use crate::id::LanId;
use crate::observe::{Drift, DriftKind, Handle, Inventory, ObservedLan};
use crate::revision::Fence;
use crate::topology::hydrate::VersionHash;

const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

fn topology() -> TopologyId {
    TopologyId::new(Uuid::from_u128(1))
}

fn content() -> Content {
    Some((topology(), VersionHash::new([1; 32])))
}

fn assignment(generation: u64, content: Content) -> Assignment {
    Assignment {
        fence: Fence::new(1, generation),
        content,
    }
}

fn report(generation: u64, phase: Phase, content: Content) -> HostReport {
    HostReport {
        fence: Fence::new(1, generation),
        phase,
        in_flight: false,
        content,
        applied_at: None,
        failure: None,
        refusal: None,
        observed: Some(Inventory::default()),
        drift: Vec::new(),
        timings: crate::assign::Timings::new(),
    }
}

fn drifted(mut report: HostReport, kind: DriftKind) -> HostReport {
    report.drift = vec![Drift {
        kind,
        object: "decky web".to_owned(),
    }];
    report
}

fn holding(mut report: HostReport) -> HostReport {
    report.observed = Some(Inventory {
        lans: vec![ObservedLan {
            handle: Handle::new("x"),
            id: LanId::new(Uuid::from_u128(2)),
            topology: topology(),
            spec: None,
            depth: 0,
        }],
        ..Inventory::default()
    });
    report
}

fn in_flight(mut report: HostReport) -> HostReport {
    report.in_flight = true;
    report
}

fn unseen(mut report: HostReport) -> HostReport {
    report.observed = None;
    report
}

fn failed(mut report: HostReport) -> HostReport {
    report.failure = Some(ApplyFailure {
        code: FailureCode::PortTaken,
        message: "port 80 is taken".to_owned(),
    });
    report
}

fn refused(mut report: HostReport, generation: u64) -> HostReport {
    report.refusal = Some(Refusal {
        fence: Fence::new(1, generation),
        failure: ApplyFailure {
            code: FailureCode::Corrupt,
            message: "other hash".to_owned(),
        },
    });
    report
}

fn told(
    status: Option<TopologyStatus>,
    assignment: &Assignment,
    report: Option<&HostReport>,
    not_before: Option<OffsetDateTime>,
) -> HostAction {
    decide_host(&HostView {
        assignment,
        status,
        report,
        not_before,
        now: NOW,
    })
}

#[test]
fn a_host_is_told_again_exactly_when_its_report_asks_for_it() {
    use HostAction::{Push, Rest, Supersede};
    use TopologyStatus as Is;
    let held = assignment(5, content());
    let nothing = assignment(5, None);
    let drift = DriftKind::Missing;
    let table: [(&str, Option<Is>, &Assignment, HostReport, HostAction); 19] = [
        (
            "older generation",
            Some(Is::Deploying),
            &held,
            report(4, Phase::Idle, None),
            Push,
        ),
        (
            "lost store",
            Some(Is::Active),
            &held,
            report(0, Phase::Idle, None),
            Push,
        ),
        (
            "older, at work",
            Some(Is::Deploying),
            &held,
            in_flight(report(4, Phase::Applying, None)),
            Push,
        ),
        (
            "newer than ours",
            Some(Is::Active),
            &held,
            report(6, Phase::Applied, content()),
            Supersede,
        ),
        (
            "same fence, other content",
            Some(Is::Active),
            &held,
            report(5, Phase::Applied, None),
            Supersede,
        ),
        (
            "at work",
            Some(Is::Deploying),
            &held,
            in_flight(report(5, Phase::Applying, content())),
            Rest,
        ),
        (
            "interrupted",
            Some(Is::Deploying),
            &held,
            report(5, Phase::Applying, content()),
            Push,
        ),
        (
            "interrupted clearing",
            None,
            &nothing,
            report(5, Phase::Clearing, None),
            Push,
        ),
        (
            "converged",
            Some(Is::Active),
            &held,
            report(5, Phase::Applied, content()),
            Rest,
        ),
        (
            "not looked yet",
            Some(Is::Active),
            &held,
            unseen(report(5, Phase::Applied, content())),
            Rest,
        ),
        (
            "drifted",
            Some(Is::Active),
            &held,
            drifted(report(5, Phase::Applied, content()), drift),
            Push,
        ),
        (
            "incomplete",
            Some(Is::Deploying),
            &held,
            drifted(report(5, Phase::Applied, content()), drift),
            Push,
        ),
        (
            "foreign only",
            Some(Is::Active),
            &held,
            drifted(report(5, Phase::Applied, content()), DriftKind::Foreign),
            Rest,
        ),
        (
            "failed deploy",
            Some(Is::Deploying),
            &held,
            failed(report(5, Phase::Failed, content())),
            Rest,
        ),
        (
            "failed and settled",
            Some(Is::Failed),
            &held,
            failed(report(5, Phase::Failed, content())),
            Rest,
        ),
        (
            "failed repair",
            Some(Is::Degraded),
            &held,
            failed(report(5, Phase::Failed, content())),
            Push,
        ),
        (
            "failed clearing",
            None,
            &nothing,
            failed(report(5, Phase::Failed, None)),
            Push,
        ),
        (
            "strays",
            None,
            &nothing,
            drifted(report(5, Phase::Idle, None), DriftKind::Stray),
            Push,
        ),
        (
            "refused",
            Some(Is::Deploying),
            &held,
            refused(report(4, Phase::Idle, None), 5),
            Rest,
        ),
    ];
    for (name, status, assignment, report, expected) in table {
        assert_eq!(
            told(status, assignment, Some(&report), None),
            expected,
            "{name}"
        );
    }
    assert_eq!(told(None, &held, None, None), Rest, "not connected");
    let late = NOW + Duration::SECOND;
    let older = report(4, Phase::Idle, None);
    assert_eq!(
        told(None, &held, Some(&older), Some(late)),
        HostAction::Wait,
        "back-off"
    );
    assert_eq!(
        told(None, &held, Some(&older), Some(NOW)),
        Push,
        "back-off has passed"
    );
}

#[test]
fn a_status_follows_from_the_report_and_from_nothing_else() {
    use StatusEvent::{ApplyFailed, Converged, Drifted, HostIsEmpty};
    use TopologyStatus as Is;
    let held = assignment(5, content());
    let nothing = assignment(6, None);
    let missing = DriftKind::Missing;
    let overdue = Some(NOW);
    let applied = || report(5, Phase::Applied, content());
    // Name, status, assignment, report, deadline, and the event or its absence.
    type Row<'a> = (
        &'a str,
        Is,
        &'a Assignment,
        Option<HostReport>,
        Option<OffsetDateTime>,
        Option<StatusEvent>,
    );
    let table: [Row<'_>; 24] = [
        (
            "applied whole",
            Is::Deploying,
            &held,
            Some(applied()),
            None,
            Some(Converged),
        ),
        (
            "repaired",
            Is::Degraded,
            &held,
            Some(applied()),
            None,
            Some(Converged),
        ),
        ("steady", Is::Active, &held, Some(applied()), None, None),
        (
            "drifted",
            Is::Active,
            &held,
            Some(drifted(applied(), missing)),
            None,
            Some(Drifted),
        ),
        (
            "foreign",
            Is::Active,
            &held,
            Some(drifted(applied(), DriftKind::Foreign)),
            None,
            None,
        ),
        (
            "incomplete",
            Is::Deploying,
            &held,
            Some(drifted(applied(), missing)),
            None,
            None,
        ),
        (
            "unseen",
            Is::Deploying,
            &held,
            Some(unseen(applied())),
            None,
            None,
        ),
        (
            "repair at work",
            Is::Active,
            &held,
            Some(in_flight(drifted(applied(), missing))),
            None,
            None,
        ),
        (
            "older generation",
            Is::Deploying,
            &held,
            Some(report(4, Phase::Applied, content())),
            None,
            None,
        ),
        (
            "other content",
            Is::Deploying,
            &held,
            Some(report(5, Phase::Idle, None)),
            None,
            None,
        ),
        (
            "failed",
            Is::Deploying,
            &held,
            Some(failed(report(5, Phase::Failed, content()))),
            None,
            Some(ApplyFailed),
        ),
        (
            "repair failed",
            Is::Active,
            &held,
            Some(failed(report(5, Phase::Failed, content()))),
            None,
            Some(Drifted),
        ),
        (
            "still failing",
            Is::Degraded,
            &held,
            Some(failed(report(5, Phase::Failed, content()))),
            None,
            None,
        ),
        (
            "a change refused",
            Is::Active,
            &held,
            Some(refused(report(4, Phase::Applied, content()), 5)),
            None,
            Some(Drifted),
        ),
        (
            "refused, and not what it is to hold",
            Is::Active,
            &held,
            Some(refused(report(5, Phase::Applied, content()), 5)),
            None,
            None,
        ),
        (
            "still refused",
            Is::Degraded,
            &held,
            Some(refused(report(4, Phase::Applied, content()), 5)),
            None,
            None,
        ),
        (
            "refused before",
            Is::Deploying,
            &held,
            Some(refused(report(4, Phase::Idle, None), 4)),
            None,
            None,
        ),
        ("silent", Is::Deploying, &held, None, None, None),
        (
            "silent while active",
            Is::Active,
            &held,
            None,
            overdue,
            None,
        ),
        (
            "torn down",
            Is::TearingDown,
            &nothing,
            Some(report(6, Phase::Idle, None)),
            None,
            Some(HostIsEmpty),
        ),
        (
            "not yet told",
            Is::TearingDown,
            &nothing,
            Some(report(5, Phase::Applied, content())),
            None,
            None,
        ),
        (
            "rest left",
            Is::TearingDown,
            &nothing,
            Some(holding(report(6, Phase::Idle, None))),
            None,
            None,
        ),
        (
            "a removal refused",
            Is::TearingDown,
            &nothing,
            Some(refused(report(5, Phase::Applied, content()), 6)),
            None,
            None,
        ),
        (
            "gone silent",
            Is::TearingDown,
            &nothing,
            None,
            overdue,
            None,
        ),
    ];
    for (name, status, assignment, report, deadline, expected) in table {
        let action = decide_topology(&TopologyView {
            topology: topology(),
            status,
            assignment,
            report: report.as_ref(),
            deadline,
            now: NOW,
        });
        let event = match action {
            TopologyAction::Settle(event, reason) => {
                assert!(!reason.is_empty(), "{name}");
                Some(event)
            }
            TopologyAction::Rest | TopologyAction::Await(_) => None,
            TopologyAction::Withdraw(reason) => panic!("{name} withdrawn: {reason}"),
        };
        assert_eq!(event, expected, "{name}");
    }
}

#[test]
fn a_deploy_that_is_refused_is_withdrawn_so_that_what_it_was_to_replace_goes() {
    let held = assignment(5, content());
    let refused = refused(report(4, Phase::Idle, None), 5);
    let action = decide_topology(&TopologyView {
        topology: topology(),
        status: TopologyStatus::Deploying,
        assignment: &held,
        report: Some(&refused),
        deadline: None,
        now: NOW,
    });
    let TopologyAction::Withdraw(reason) = action else {
        panic!("{action:?}");
    };
    assert!(reason.contains("other hash"), "{reason}");
}

#[test]
fn what_is_refused_for_lack_of_room_is_told_again_where_nobody_waits() {
    use HostAction::{Push, Rest};
    use TopologyStatus as Is;
    let (held, nothing) = (assignment(5, content()), assignment(5, None));
    let mut short = refused(report(4, Phase::Applied, content()), 5);
    let failure = &mut short.refusal.as_mut().expect("it refuses").failure;
    failure.code = FailureCode::Store;
    for (status, assignment, expected) in [
        (Some(Is::Deploying), &held, Rest),
        (Some(Is::Failed), &held, Rest),
        (Some(Is::Active), &held, Push),
        (Some(Is::Degraded), &held, Push),
        (None, &nothing, Push),
    ] {
        assert_eq!(
            told(status, assignment, Some(&short), None),
            expected,
            "{status:?}"
        );
    }
    let late = Some(NOW + Duration::SECOND);
    let waits = told(Some(Is::Degraded), &held, Some(&short), late);
    assert_eq!(waits, HostAction::Wait);
    // Of a repair it holds the fence already.
    let mut repair = drifted(report(5, Phase::Applied, content()), DriftKind::Missing);
    repair.refusal = short.refusal;
    assert_eq!(told(Some(Is::Degraded), &held, Some(&repair), None), Push);
}

#[test]
fn a_deploy_beyond_its_deadline_is_withdrawn_unless_the_host_has_it() {
    let held = assignment(5, content());
    let decide = |report: Option<&HostReport>| {
        decide_topology(&TopologyView {
            topology: topology(),
            status: TopologyStatus::Deploying,
            assignment: &held,
            report,
            deadline: Some(NOW),
            now: NOW,
        })
    };
    let late = [
        None,
        Some(report(4, Phase::Idle, None)),
        Some(in_flight(report(5, Phase::Applying, content()))),
        Some(report(5, Phase::Applying, content())),
        Some(drifted(
            report(5, Phase::Applied, content()),
            DriftKind::Stopped,
        )),
    ];
    for report in late {
        let action = decide(report.as_ref());
        assert!(
            matches!(action, TopologyAction::Withdraw(_)),
            "{report:?} gave {action:?}"
        );
    }
    let whole = report(5, Phase::Applied, content());
    assert!(matches!(
        decide(Some(&whole)),
        TopologyAction::Settle(StatusEvent::Converged, _)
    ));
}

proptest! {
    #[test]
    fn every_decision_is_one_that_the_status_machine_takes(
        status in 0..TopologyStatus::ALL.len(),
        generation in 4_u64..7,
        phase in 0..Phase::ALL.len(),
        flags in any::<[bool; 6]>(),
    ) {
        let status = TopologyStatus::ALL[status];
        let assigned = assignment(5, content());
        let mut seen = report(generation, Phase::ALL[phase], flags[0].then_some(()).and(content()));
        if flags[1] {
            seen = drifted(seen, DriftKind::Missing);
        }
        if flags[2] {
            seen = holding(seen);
        }
        if flags[3] {
            seen = unseen(seen);
        }
        seen.in_flight = flags[4];
        let action = decide_topology(&TopologyView {
            topology: topology(),
            status,
            assignment: &assigned,
            report: Some(&seen),
            deadline: flags[5].then_some(NOW),
            now: NOW,
        });
        match action {
            TopologyAction::Settle(event, _) => {
                prop_assert!(status.next(event).is_ok());
                if event == StatusEvent::Converged {
                    prop_assert!(seen.is_converged() && !seen.in_flight);
                    prop_assert_eq!(seen.fence, assigned.fence);
                    prop_assert_eq!(seen.content, assigned.content);
                }
            }
            TopologyAction::Withdraw(_) => {
                prop_assert!(status.next(StatusEvent::ApplyFailed).is_ok());
            }
            TopologyAction::Rest | TopologyAction::Await(_) => {}
        }
    }
}
