//! What an offered assignment means to an agent, decided from its row alone: pure, and exactly the
//! table of the design.

use domain::assign::{Content, Phase};
use domain::revision::Fence;

use crate::store::Row;

/// An assignment, as far as the fence is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offered {
    /// Its place in the order of assignments.
    pub fence: Fence,
    /// What the host is to hold.
    pub content: Content,
}

/// What to do with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Refuse: a newer one was seen.
    Stale,
    /// Refuse: the same fence came with other content.
    Conflict,
    /// It is at work on it already: its progress is what is wanted.
    Attach,
    /// It is done and nothing differs: report.
    Nothing,
    /// It failed, or was interrupted: run again.
    RunAgain,
    /// It is done and something differs: make good what differs.
    Repair,
    /// It is new.
    Begin,
    /// It is new and something older is being carried out: stop that at the next step.
    Supersede,
}

/// Judges an offer. `floor` is the newest fence that the master says the host was ever given: it
/// stands in for a row that was lost.
pub fn judge(
    row: &Row,
    in_flight: bool,
    floor: Fence,
    offered: &Offered,
    drifted: bool,
) -> Verdict {
    if offered.fence < row.fence.max(floor) {
        return Verdict::Stale;
    }
    if offered.fence > row.fence {
        return if in_flight {
            Verdict::Supersede
        } else {
            Verdict::Begin
        };
    }
    if offered.content != row.content() {
        return Verdict::Conflict;
    }
    if in_flight {
        return Verdict::Attach;
    }
    match row.phase() {
        Phase::Failed | Phase::Applying | Phase::Clearing => Verdict::RunAgain,
        Phase::Applied | Phase::Idle if drifted => Verdict::Repair,
        Phase::Applied | Phase::Idle => Verdict::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use domain::assign::{ApplyFailure, FailureCode};
    use domain::id::TopologyId;
    use domain::topology::hydrate::VersionHash;
    use proptest::prelude::*;
    use time::OffsetDateTime;
    use uuid::Uuid;

    use super::*;
    use crate::store::{AppliedState, Held};

    const AT: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

    fn held(hash: u8) -> Held {
        Held {
            topology: TopologyId::new(Uuid::max()),
            hash: VersionHash::new([hash; 32]),
            hydrated: Bytes::new(),
        }
    }

    fn failed(held: Option<Held>) -> AppliedState {
        let reason = ApplyFailure {
            code: FailureCode::EngineRefused,
            message: String::new(),
        };
        AppliedState::Failed {
            held,
            reason,
            at: AT,
        }
    }

    fn content(hash: u8) -> Content {
        Some((TopologyId::new(Uuid::max()), VersionHash::new([hash; 32])))
    }

    fn applied(hash: u8) -> AppliedState {
        AppliedState::Applied {
            held: held(hash),
            at: AT,
        }
    }

    #[test]
    fn every_row_of_the_table() {
        let seven = Fence::new(1, 7);
        let none = Fence::default();
        let (six, eight, later) = (Fence::new(1, 6), Fence::new(1, 8), Fence::new(2, 0));
        let (run, rest, sound, drift) = (true, false, false, true);
        let cases = [
            // older
            (
                applied(1),
                rest,
                none,
                six,
                content(1),
                sound,
                Verdict::Stale,
            ),
            (
                applied(1),
                rest,
                none,
                Fence::new(0, 99),
                content(1),
                drift,
                Verdict::Stale,
            ),
            (
                AppliedState::Applying(held(1)),
                run,
                none,
                six,
                content(2),
                sound,
                Verdict::Stale,
            ),
            (
                AppliedState::Idle,
                rest,
                eight,
                seven,
                None,
                sound,
                Verdict::Stale,
            ),
            // equal, other content
            (
                applied(1),
                rest,
                none,
                seven,
                content(2),
                sound,
                Verdict::Conflict,
            ),
            (
                applied(1),
                rest,
                none,
                seven,
                None,
                sound,
                Verdict::Conflict,
            ),
            (
                AppliedState::Idle,
                rest,
                none,
                seven,
                content(1),
                sound,
                Verdict::Conflict,
            ),
            (
                AppliedState::Applying(held(1)),
                run,
                none,
                seven,
                content(2),
                sound,
                Verdict::Conflict,
            ),
            // equal, in flight
            (
                AppliedState::Applying(held(1)),
                run,
                none,
                seven,
                content(1),
                sound,
                Verdict::Attach,
            ),
            (
                AppliedState::Clearing,
                run,
                none,
                seven,
                None,
                drift,
                Verdict::Attach,
            ),
            (
                applied(1),
                run,
                none,
                seven,
                content(1),
                drift,
                Verdict::Attach,
            ),
            // equal, done
            (
                applied(1),
                rest,
                none,
                seven,
                content(1),
                sound,
                Verdict::Nothing,
            ),
            (
                AppliedState::Idle,
                rest,
                none,
                seven,
                None,
                sound,
                Verdict::Nothing,
            ),
            (
                applied(1),
                rest,
                seven,
                seven,
                content(1),
                sound,
                Verdict::Nothing,
            ),
            // equal, failed or interrupted
            (
                failed(Some(held(1))),
                rest,
                none,
                seven,
                content(1),
                sound,
                Verdict::RunAgain,
            ),
            (
                failed(None),
                rest,
                none,
                seven,
                None,
                drift,
                Verdict::RunAgain,
            ),
            (
                AppliedState::Applying(held(1)),
                rest,
                none,
                seven,
                content(1),
                sound,
                Verdict::RunAgain,
            ),
            (
                AppliedState::Clearing,
                rest,
                none,
                seven,
                None,
                sound,
                Verdict::RunAgain,
            ),
            // equal, drifted
            (
                applied(1),
                rest,
                none,
                seven,
                content(1),
                drift,
                Verdict::Repair,
            ),
            (
                AppliedState::Idle,
                rest,
                none,
                seven,
                None,
                drift,
                Verdict::Repair,
            ),
            // newer
            (
                applied(1),
                rest,
                none,
                eight,
                content(1),
                sound,
                Verdict::Begin,
            ),
            (applied(1), rest, eight, eight, None, sound, Verdict::Begin),
            (
                failed(Some(held(1))),
                rest,
                none,
                later,
                content(2),
                sound,
                Verdict::Begin,
            ),
            // newer, in the middle of something
            (
                AppliedState::Applying(held(1)),
                run,
                none,
                eight,
                content(2),
                sound,
                Verdict::Supersede,
            ),
            (
                AppliedState::Clearing,
                run,
                none,
                later,
                content(2),
                sound,
                Verdict::Supersede,
            ),
            (
                applied(1),
                run,
                none,
                eight,
                None,
                drift,
                Verdict::Supersede,
            ),
        ];
        for (state, in_flight, floor, fence, content, drifted, verdict) in cases {
            let row = Row {
                fence: seven,
                state,
            };
            let offered = Offered { fence, content };
            let said = judge(&row, in_flight, floor, &offered, drifted);
            assert_eq!(
                said, verdict,
                "{row:?} {in_flight} {floor} {offered:?} {drifted}"
            );
        }
    }

    fn fences() -> impl Strategy<Value = Fence> {
        (0_u64..4, 0_u64..4).prop_map(|(epoch, generation)| Fence::new(epoch, generation))
    }

    fn states() -> impl Strategy<Value = AppliedState> {
        prop_oneof![
            Just(AppliedState::Idle),
            Just(AppliedState::Clearing),
            (0_u8..3).prop_map(|hash| AppliedState::Applying(held(hash))),
            (0_u8..3).prop_map(applied),
            proptest::option::of((0_u8..3).prop_map(held)).prop_map(failed),
        ]
    }

    fn contents() -> impl Strategy<Value = Content> {
        proptest::option::of(0_u8..3).prop_map(|hash| hash.and_then(content))
    }

    proptest! {
        #[test]
        fn nothing_is_done_for_an_old_fence_and_nothing_new_is_refused(
            fence in fences(), state in states(), in_flight: bool, floor in fences(),
            offered in (fences(), contents()), drifted: bool,
        ) {
            let row = Row { fence, state };
            let offered = Offered { fence: offered.0, content: offered.1 };
            let verdict = judge(&row, in_flight, floor, &offered, drifted);
            let newest = fence.max(floor);
            prop_assert_eq!(verdict == Verdict::Stale, offered.fence < newest);
            if offered.fence > newest {
                let begins = if in_flight { Verdict::Supersede } else { Verdict::Begin };
                prop_assert_eq!(verdict, begins);
            }
            // Whatever is carried out is what the row says, or newer.
            if matches!(verdict, Verdict::RunAgain | Verdict::Repair | Verdict::Attach) {
                prop_assert_eq!(offered.content, row.content());
            }
        }
    }
}
