//! Problems of edits: what was not changed, and why not.

use axum::http::StatusCode;
use axum::http::header::RETRY_AFTER;

use super::{AWAY, Answer, CONFLICT, find, refused, store};
use crate::db::queue::{CancelError, EditError, EnqueueError};
use crate::topology::{CanvasError, ChangeError, RevertError};

pub(super) fn change(error: &ChangeError) -> Answer {
    match error {
        ChangeError::Find(error) => find(error),
        ChangeError::NotEditable(status) => Answer::new(CONFLICT, "not_editable", error)
            .next("export it and create it anew")
            .current(status),
        ChangeError::Stale { current, .. } => Answer::new(CONFLICT, "stale_revision", error)
            .next("read it again and repeat")
            .current(current),
        ChangeError::Refused(findings) => refused(error, findings),
        ChangeError::Contended => Answer::new(AWAY, "contended", error)
            .next("try again")
            .header(RETRY_AFTER, "1"),
        ChangeError::Read(error)
        | ChangeError::Edit(EditError::Store(error))
        | ChangeError::Enqueue(EnqueueError::Store(error)) => store(error),
        ChangeError::Edit(EditError::Unknown) | ChangeError::Enqueue(EnqueueError::Unknown) => {
            Answer::new(StatusCode::NOT_FOUND, "unknown", "the topology was removed")
        }
        // Each of these is read anew and ends as one of those above.
        ChangeError::Edit(EditError::NotDraft(_) | EditError::StaleRevision { .. })
        | ChangeError::Enqueue(
            EnqueueError::NotLive(_)
            | EnqueueError::StaleRevision { .. }
            | EnqueueError::Overtaken { .. },
        ) => Answer::new(CONFLICT, "stale_revision", error).next("read it again and repeat"),
    }
}

pub(super) fn revert(error: &RevertError) -> Answer {
    match error {
        RevertError::Unknown => Answer::new(StatusCode::NOT_FOUND, "unknown", error),
        RevertError::NothingDone(state) => Answer::new(CONFLICT, "nothing_done", error)
            .next("cancel it if it is pending; otherwise there is nothing to undo")
            .current(state),
        RevertError::Malformed(_) => Answer::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "the master failed",
        )
        .next("look for the reference in the master's log"),
        RevertError::Read(error) => store(error),
        RevertError::Change(error) => change(error),
    }
}

pub(super) fn cancel(error: &CancelError) -> Answer {
    match error {
        CancelError::Unknown => Answer::new(StatusCode::NOT_FOUND, "unknown", error),
        CancelError::NotPending(state) => Answer::new(CONFLICT, "not_pending", error)
            .next("revert it if it is on its way or done")
            .current(state),
        CancelError::Store(error) => store(error),
    }
}

pub(super) fn canvas(error: &CanvasError) -> Answer {
    match error {
        CanvasError::Find(error) => find(error),
        CanvasError::Exhausted(range) => Answer::new(CONFLICT, "exhausted", error)
            .next("ask for another range, or remove what is not needed")
            .current(range),
        CanvasError::Store(error) => store(error),
    }
}
