//! What is answered when a request is not carried out: every error becomes an RFC 9457 problem
//! here and nowhere else.

use std::time::Duration;

use axum::Json;
use axum::http::header::{CONTENT_TYPE, ETAG, HeaderName, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use domain::name::InvalidName;
use domain::revision::Revision;
use domain::topology::finding::Finding;
use domain::topology::status::{IllegalTransition, TopologyStatus};
use proto::rest::{FindingShape, PROBLEM, Problem};

use super::extract::Malformed;
use crate::chain::Chain;
use crate::db::accounts::UserError;
use crate::db::queue::CancelError;
use crate::db::{IntentError, StandingError, StoreError, TopologyError};
use crate::enroll::MintError;
use crate::operators::name::InvalidOperatorName;
use crate::operators::password::{Busy, Weak};
use crate::operators::{LoginError, PasswordError};
use crate::topology::{
    CanvasError, ChangeError, CreateError, DeleteError, DeployError, FindError, RevertError,
    TargetError, TeardownError,
};

mod edit;

/// Why a request is not carried out.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApiError {
    /// Nothing says who asks, or nobody knows it.
    #[error("a known bearer token is needed")]
    Unauthenticated,
    /// The role of whoever asks is too low.
    #[error("the token does not allow this")]
    Forbidden,
    /// A cookie says who asks, and nothing says that one of our pages does.
    #[error("the token against forged requests is missing or wrong")]
    Csrf,
    /// Another password must be chosen first.
    #[error("the password must be changed before anything else")]
    MustChange,
    /// Whoever asks has no password or session: it is a token.
    #[error("this is for users who have logged in")]
    NotAUser,
    /// The path is not UTF-8.
    #[error("the path is not UTF-8")]
    Path,
    /// The resource is another than the caller has seen.
    #[error("the topology is at revision {current}, and another was expected")]
    Precondition {
        /// Its revision.
        current: Revision,
    },
    /// An idempotency key that was used for something else.
    #[error("the idempotency key was used for another request")]
    KeyDiffers,
    /// The request of that idempotency key is being served.
    #[error("the request of that idempotency key is being served")]
    KeyRunning,
    /// Nobody knows what became of the request of that idempotency key.
    #[error("whether the request of that idempotency key was carried out is not known")]
    KeyUnknown,
    /// The answer to the request of that idempotency key was not kept.
    #[error("the request of that idempotency key was answered {status}, with more than is kept")]
    KeyUnkept {
        /// Its status.
        status: StatusCode,
        /// Where what it made is found, if it has said.
        location: Option<String>,
    },
    /// A name that breaks the rule for users and API tokens.
    #[error(transparent)]
    OperatorName(#[from] InvalidOperatorName),
    /// Of [`crate::operators::Operators::login`].
    #[error(transparent)]
    Login(#[from] LoginError),
    /// Of setting a password.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// Of changing a user.
    #[error(transparent)]
    User(#[from] UserError),
    /// Asked under another name than this server's.
    #[error("this server is not asked under that name")]
    UnknownName,
    /// Asked by a page of another server.
    #[error("pages of another origin are not answered")]
    ForeignOrigin,
    /// There is no such route.
    #[error("there is no such resource")]
    NoRoute,
    /// The route does not take the method.
    #[error("the resource does not take this method")]
    NoMethod,
    /// The answer did not begin in time.
    #[error("the request was not answered in time")]
    TimedOut,
    /// As many event streams are open as may be.
    #[error("too many event streams are open")]
    TooManyStreams,
    /// The caller has as many event streams open as one may have.
    #[error("too many event streams of one user are open")]
    TooManyOfUser,
    /// The body is larger than any may be.
    #[error("the body exceeds {limit} bytes")]
    TooLarge {
        /// How large it may be.
        limit: usize,
    },
    /// The body did not arrive whole.
    #[error("the body did not arrive whole")]
    Torn,
    /// The body is not JSON, or does not say so.
    #[error("the body must be application/json")]
    NotJson,
    /// A body or query that is not of its shape.
    #[error("the request is malformed")]
    Malformed(Malformed),
    /// A name that breaks the rule for names.
    #[error(transparent)]
    Name(InvalidName),
    /// Nothing has that id.
    #[error("there is no {noun} {key:?}")]
    Unknown {
        /// What was looked for.
        noun: &'static str,
        /// Under which id.
        key: String,
    },
    /// Of [`crate::topology::Topologies::find`] and its like.
    #[error(transparent)]
    Find(#[from] FindError),
    /// Of [`crate::topology::Topologies::create`].
    #[error(transparent)]
    Create(#[from] CreateError),
    /// Of [`crate::topology::Topologies::deploy`].
    #[error(transparent)]
    Deploy(#[from] DeployError),
    /// Of [`crate::topology::Topologies::teardown`].
    #[error(transparent)]
    Teardown(#[from] TeardownError),
    /// Of [`crate::topology::Topologies::delete`].
    #[error(transparent)]
    Delete(#[from] DeleteError),
    /// Of [`crate::topology::Editor::edit`].
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// Of [`crate::topology::Editor::revert`].
    #[error(transparent)]
    Revert(#[from] RevertError),
    /// Of [`crate::topology::Editor::cancel`].
    #[error(transparent)]
    Cancel(#[from] CancelError),
    /// Of layouts and suggestions.
    #[error(transparent)]
    Canvas(#[from] CanvasError),
    /// Of [`crate::fleet::Fleet::set_standing`].
    #[error(transparent)]
    Standing(#[from] StandingError),
    /// Of [`crate::enroll::Enroll::mint`].
    #[error(transparent)]
    Mint(#[from] MintError),
    /// Of a plain read or write.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ApiError {
    /// The revision that is stored, of an act that was refused because it is another one than was
    /// expected.
    pub(super) fn overtaken(&self) -> Option<Revision> {
        if let Self::Deploy(DeployError::Intent(IntentError::StaleRevision { current, .. }))
        | Self::Teardown(TeardownError::Intent(IntentError::StaleRevision {
            current, ..
        }))
        | Self::Delete(DeleteError::Delete(TopologyError::StaleRevision { current, .. }))
        | Self::Change(ChangeError::Stale { current, .. })
        | Self::Revert(RevertError::Change(ChangeError::Stale { current, .. })) = self
        {
            Some(*current)
        } else {
            None
        }
    }
}

/// A problem before it is written.
struct Answer {
    status: StatusCode,
    kind: &'static str,
    title: String,
    next_step: Option<String>,
    findings: Vec<FindingShape>,
    current: Option<String>,
    /// A header that tells programs what the next step tells people.
    header: Option<(HeaderName, HeaderValue)>,
}

impl Answer {
    fn new(status: StatusCode, kind: &'static str, title: impl ToString) -> Self {
        Self {
            status,
            kind,
            title: title.to_string(),
            next_step: None,
            findings: Vec::new(),
            current: None,
            header: None,
        }
    }

    fn next(mut self, step: impl Into<String>) -> Self {
        self.next_step = Some(step.into());
        self
    }

    fn current(mut self, current: impl ToString) -> Self {
        self.current = Some(current.to_string());
        self
    }

    fn findings(mut self, findings: Vec<FindingShape>) -> Self {
        self.findings = findings;
        self
    }

    fn header(mut self, name: HeaderName, value: &'static str) -> Self {
        self.header = Some((name, HeaderValue::from_static(value)));
        self
    }

    /// Says after how many seconds to ask again, a begun one counted whole.
    fn retry_after(mut self, wait: Duration) -> Self {
        let seconds = wait.as_secs().saturating_add(1);
        self.header = Some((RETRY_AFTER, HeaderValue::from(seconds)));
        self
    }

    /// Says which revision there is.
    fn etag(mut self, revision: Revision) -> Self {
        self.header = HeaderValue::try_from(format!("\"{revision}\""))
            .ok()
            .map(|value| (ETAG, value));
        self
    }
}

const INVALID: StatusCode = StatusCode::UNPROCESSABLE_ENTITY;
const CONFLICT: StatusCode = StatusCode::CONFLICT;
const AWAY: StatusCode = StatusCode::SERVICE_UNAVAILABLE;

impl ApiError {
    fn answer(&self) -> Answer {
        match self {
            Self::Unauthenticated => Answer::new(StatusCode::UNAUTHORIZED, "unauthenticated", self)
                .next("send the header `Authorization: Bearer TOKEN`")
                .header(WWW_AUTHENTICATE, "Bearer"),
            Self::Forbidden => Answer::new(StatusCode::FORBIDDEN, "forbidden", self),
            Self::Csrf => Answer::new(StatusCode::FORBIDDEN, "csrf", self)
                .next("send `csrf_token` of /api/v1/me as the header `X-CSRF-Token`"),
            Self::MustChange => Answer::new(StatusCode::FORBIDDEN, "password_change_needed", self)
                .next("change it: POST /api/v1/me/password, or `decnet login`"),
            Self::NotAUser => Answer::new(CONFLICT, "not_a_user", self)
                .next("log in: POST /api/v1/login, or `decnet login`"),
            Self::Path => Answer::new(StatusCode::BAD_REQUEST, "malformed", self)
                .next("encode the UTF-8 form of the path"),
            Self::Precondition { current } => {
                Answer::new(StatusCode::PRECONDITION_FAILED, "stale_revision", self)
                    .next("read it again and repeat")
                    .current(current)
                    .etag(*current)
            }
            Self::KeyDiffers => Answer::new(INVALID, "idempotency_key_reused", self)
                .next("choose a new key for a new request"),
            Self::KeyRunning => Answer::new(CONFLICT, "idempotency_key_running", self)
                .next("ask again in a moment; the answer will be the same")
                .header(RETRY_AFTER, "1"),
            Self::KeyUnknown => Answer::new(CONFLICT, "idempotency_outcome_unknown", self).next(
                "look at the state of what was asked for; ask for what is missing with another key",
            ),
            Self::KeyUnkept { location, .. } => {
                let place = location.as_deref();
                let place = place.unwrap_or("the state of what was asked for");
                Answer::new(CONFLICT, "idempotency_answer_not_kept", self)
                    .next(format!("look at {place}; asking again is not needed"))
            }
            Self::OperatorName(_) => {
                let finding = one("NAME_INVALID", self.to_string(), "request", "name");
                Answer::new(INVALID, "malformed", self).findings(vec![finding])
            }
            Self::Login(error) => login(error),
            Self::Password(error) => password(error),
            Self::User(error) => user(error),
            Self::UnknownName => Answer::new(StatusCode::MISDIRECTED_REQUEST, "unknown_name", self)
                .next("ask under localhost, or give the name to the master with --advertise"),
            Self::ForeignOrigin => Answer::new(StatusCode::FORBIDDEN, "foreign_origin", self),
            Self::NoRoute => {
                Answer::new(StatusCode::NOT_FOUND, "unknown", self).next("the API is under /api/v1")
            }
            Self::NoMethod => Answer::new(StatusCode::METHOD_NOT_ALLOWED, "method", self)
                .next("the header `Allow` names those that it takes"),
            Self::TimedOut => Answer::new(AWAY, "timed_out", self)
                .next("look at the state of what was asked for before asking again")
                .header(RETRY_AFTER, "5"),
            Self::TooManyStreams => Answer::new(AWAY, "too_many_streams", self)
                .next("close another stream, or read /api/v1/events page by page")
                .header(RETRY_AFTER, "10"),
            Self::TooManyOfUser => {
                Answer::new(StatusCode::TOO_MANY_REQUESTS, "too_many_streams", self)
                    .next("close another stream of yours, or read /api/v1/events page by page")
                    .header(RETRY_AFTER, "10")
            }
            Self::TooLarge { .. } => Answer::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", self)
                .next("send less at a time"),
            Self::Torn => Answer::new(StatusCode::BAD_REQUEST, "torn", self).next("send it again"),
            Self::NotJson => Answer::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "media_type", self)
                .next("send JSON, with the header `Content-Type: application/json`"),
            Self::Malformed(malformed) => {
                let answer = Answer::new(INVALID, "malformed", malformed.title());
                let answer = answer.findings(vec![malformed.finding()]);
                match &malformed.nearest {
                    Some(nearest) => answer.next(format!("did you mean `{nearest}`?")),
                    None => answer,
                }
            }
            Self::Name(_) => {
                let finding = one("NAME_INVALID", self.to_string(), "request", "name");
                Answer::new(INVALID, "malformed", self).findings(vec![finding])
            }
            Self::Unknown { .. } => Answer::new(StatusCode::NOT_FOUND, "unknown", self),
            Self::Find(error) => find(error),
            Self::Create(error) => create(error),
            Self::Deploy(error) => deploy(error),
            Self::Teardown(TeardownError::Find(error)) => find(error),
            Self::Teardown(TeardownError::Intent(error)) => intent(error),
            Self::Delete(DeleteError::Find(error)) => find(error),
            Self::Delete(DeleteError::Delete(error)) => topology(error),
            Self::Change(error) => edit::change(error),
            Self::Revert(error) => edit::revert(error),
            Self::Cancel(error) => edit::cancel(error),
            Self::Canvas(error) => edit::canvas(error),
            Self::Standing(error) => standing(error),
            Self::Mint(error) => mint(error),
            Self::Store(error) => store(error),
        }
    }
}

fn one(code: &str, message: String, target: &str, path: &str) -> FindingShape {
    FindingShape {
        severity: "error".to_owned(),
        code: code.to_owned(),
        message,
        target: target.to_owned(),
        path: path.to_owned(),
    }
}

fn login(error: &LoginError) -> Answer {
    match error {
        LoginError::Throttled { after } => {
            Answer::new(StatusCode::TOO_MANY_REQUESTS, "throttled", error)
                .next("wait as long as `Retry-After` says, then try again")
                .retry_after(*after)
        }
        LoginError::Refused => Answer::new(StatusCode::UNAUTHORIZED, "login_refused", error)
            .next("an admin can give a new password: `decnet user passwd NAME`")
            .header(WWW_AUTHENTICATE, "Bearer"),
        LoginError::Busy(error) => busy(error),
        LoginError::Store(error) => store(error),
    }
}

fn busy(error: &Busy) -> Answer {
    Answer::new(AWAY, "busy", error)
        .next("try again")
        .header(RETRY_AFTER, "1")
}

fn password(error: &PasswordError) -> Answer {
    match error {
        // Not 401: the session is as good as before.
        PasswordError::Current(LoginError::Refused) => wrong_password("the password is wrong"),
        PasswordError::Current(error) => login(error),
        PasswordError::Weak(error) => weak(error),
        PasswordError::Busy(error) => busy(error),
        PasswordError::User(error) => user(error),
        PasswordError::Store(error) => store(error),
    }
}

fn wrong_password(title: impl ToString) -> Answer {
    Answer::new(StatusCode::FORBIDDEN, "wrong_password", title)
        .next("give the password that is in force as `current`")
}

fn weak(error: &Weak) -> Answer {
    let finding = one("PASSWORD_WEAK", error.to_string(), "request", "password");
    Answer::new(INVALID, "weak_password", error)
        .next("choose a longer one: four words that have nothing to do with each other")
        .findings(vec![finding])
}

fn user(error: &UserError) -> Answer {
    match error {
        UserError::Unknown => Answer::new(StatusCode::NOT_FOUND, "unknown", error),
        UserError::NameTaken => {
            Answer::new(CONFLICT, "name_taken", error).next("choose another name")
        }
        UserError::LastAdmin => {
            Answer::new(CONFLICT, "last_admin", error).next("make another user an admin first")
        }
        UserError::Overtaken => wrong_password(error),
        UserError::Store(error) => store(error),
    }
}

fn refused(title: impl ToString, findings: &[Finding]) -> Answer {
    Answer::new(INVALID, "invalid_topology", title)
        .next("correct what the findings name")
        .findings(findings.iter().map(FindingShape::from).collect())
}

fn find(error: &FindError) -> Answer {
    match error {
        FindError::Unknown { .. } => Answer::new(StatusCode::NOT_FOUND, "unknown", error),
        FindError::Store { source, .. } => store(source),
    }
}

fn create(error: &CreateError) -> Answer {
    match error {
        CreateError::Refused(findings) => refused(error, findings),
        CreateError::Target(error) => target(error),
        CreateError::Insert(error) => topology(error),
        CreateError::Store(error) => store(error),
    }
}

fn deploy(error: &DeployError) -> Answer {
    match error {
        DeployError::Find(error) => find(error),
        DeployError::Illegal(error) => illegal(error),
        DeployError::Refused(findings) => refused(error, findings),
        DeployError::Target(error) => target(error),
        DeployError::Intent(error) => intent(error),
    }
}

fn target(error: &TargetError) -> Answer {
    let finding = |code| vec![one(code, error.to_string(), "topology", "host")];
    match error {
        TargetError::Unknown(_) => Answer::new(INVALID, "target_unknown", error)
            .next("name a host that `decnet host ls` shows, or enroll it first")
            .findings(finding("TARGET_UNKNOWN")),
        TargetError::Closed { standing, .. } => Answer::new(CONFLICT, "target_not_ready", error)
            .next("uncordon the host, or name another")
            .findings(finding("TARGET_NOT_READY"))
            .current(standing),
        TargetError::Away { state, .. } => Answer::new(AWAY, "target_not_ready", error)
            .next("start decnet-agent on the host and wait until it is ready, or name another")
            .findings(finding("TARGET_NOT_READY"))
            .current(state)
            .header(RETRY_AFTER, "10"),
        TargetError::Store(error) => store(error),
    }
}

fn illegal(error: &IllegalTransition) -> Answer {
    let step = match error.from {
        TopologyStatus::Pending => "deploy it",
        TopologyStatus::Deploying => "wait until it is active or failed, or tear it down",
        TopologyStatus::Active | TopologyStatus::Degraded => {
            "it is deployed already; tear it down first, or deploy another in its place"
        }
        TopologyStatus::Failed => "retry it, or tear it down",
        TopologyStatus::TearingDown => {
            "wait until its host has reported that it is gone, or settle it with force"
        }
        TopologyStatus::TornDown => "export it and create it anew",
    };
    Answer::new(CONFLICT, "illegal_transition", error)
        .next(step)
        .current(error.from)
}

fn intent(error: &IntentError) -> Answer {
    match error {
        IntentError::Unknown => Answer::new(StatusCode::NOT_FOUND, "unknown", error),
        IntentError::Illegal(error) => illegal(error),
        IntentError::StaleRevision { current, .. } => {
            Answer::new(CONFLICT, "stale_revision", error)
                .next("read it again and repeat")
                .current(current)
        }
        IntentError::HostOccupied(name) => Answer::new(CONFLICT, "host_occupied", error)
            .next("tear that topology down first, or let it give way with `replace`")
            .current(name),
        IntentError::HostClosed(standing) => Answer::new(CONFLICT, "target_not_ready", error)
            .next("uncordon the host, or name another")
            .current(standing),
        IntentError::Store(error) => store(error),
    }
}

fn topology(error: &TopologyError) -> Answer {
    match error {
        TopologyError::Unknown => Answer::new(StatusCode::NOT_FOUND, "unknown", error),
        TopologyError::NameTaken => Answer::new(CONFLICT, "name_taken", error)
            .next("choose another name, or tear the other topology down and remove it"),
        TopologyError::NotRemovable(status) => Answer::new(CONFLICT, "not_removable", error)
            .next("tear it down, then remove it")
            .current(status),
        TopologyError::StaleRevision { current, .. } => {
            Answer::new(CONFLICT, "stale_revision", error)
                .next("read it again and repeat")
                .current(current)
        }
        TopologyError::Store(error) => store(error),
    }
}

fn standing(error: &StandingError) -> Answer {
    match error {
        StandingError::Unknown => Answer::new(StatusCode::NOT_FOUND, "unknown", error),
        StandingError::Illegal { from, .. } => {
            Answer::new(CONFLICT, "illegal_transition", error).current(from)
        }
        StandingError::Occupied(id) => Answer::new(CONFLICT, "host_occupied", error)
            .next("drain the host first, or remove it with `force`")
            .current(id),
        StandingError::Store(error) => store(error),
    }
}

fn mint(error: &MintError) -> Answer {
    match error {
        MintError::Ttl => Answer::new(INVALID, "malformed", error).findings(vec![one(
            "VALUE_INVALID",
            error.to_string(),
            "request",
            "ttl_seconds",
        )]),
        MintError::NameTaken(name) => Answer::new(CONFLICT, "name_taken", error)
            .next("choose another name, or remove that host first")
            .current(name),
        MintError::Store(error) => store(error),
    }
}

fn store(error: &StoreError) -> Answer {
    match error {
        StoreError::Busy { .. } => Answer::new(AWAY, "busy", "the database is busy")
            .next("try again")
            .header(RETRY_AFTER, "1"),
        StoreError::Full { .. } => Answer::new(AWAY, "disk_full", "the master's disk is full")
            .next("free space in the master's data directory, then try again")
            .header(RETRY_AFTER, "60"),
        StoreError::Failed { .. } | StoreError::Malformed { .. } => Answer::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "the master failed",
        )
        .next("look for the reference in the master's log"),
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let answer = self.answer();
        let reference = (answer.status.is_server_error() && answer.status != AWAY).then(|| {
            let reference = hex::encode(crate::entropy::random::<8>());
            tracing::error!(reference, error = %Chain(&self), "request failed");
            reference
        });
        if answer.status == AWAY {
            tracing::warn!(error = %Chain(&self), "request not carried out");
        }
        let problem = Problem {
            kind: format!("urn:decnet:{}", answer.kind),
            status: answer.status.as_u16(),
            title: answer.title,
            next_step: answer.next_step,
            findings: answer.findings,
            current: answer.current,
            reference,
        };
        let mut response = (answer.status, Json(problem)).into_response();
        response
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM));
        if let Some((name, value)) = answer.header {
            response.headers_mut().insert(name, value);
        }
        response
    }
}
