//! The routes of those who ask: login and logout, oneself, sessions.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::header::SET_COOKIE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::IntoResponse;
use proto::line::format_time;
use proto::rest::{
    ChangePassword, LoginRequest, Me, Page, SessionOpened, SessionOwnerQuery, SessionShape,
    SessionsQuery,
};

use super::Api;
use super::auth::{Caller, Peer, Principal, SESSION_COOKIE};
use super::extract::{Body, Params};
use super::pages::{Order, Window};
use super::problem::ApiError;
use super::users::find_user;
use crate::db::AuditEntry;
use crate::db::accounts::{SessionRow, UserRow};
use crate::operators::Opened;
use crate::operators::secret::csrf_token;
use domain::role::Role;

/// `POST /login`
pub(super) async fn login(
    State(api): State<Arc<Api>>,
    Peer(from): Peer,
    Body(request): Body<LoginRequest>,
) -> Result<impl IntoResponse, ApiError> {
    let LoginRequest { name, password } = request;
    let opened = api.operators.login(&name, password, from).await?;
    Ok(answer(&api, &opened))
}

/// `POST /logout`
pub(super) async fn logout(
    State(api): State<Arc<Api>>,
    caller: Caller,
) -> Result<impl IntoResponse, ApiError> {
    let session = caller.session().ok_or(ApiError::NotAUser)?;
    api.operators
        .end(session, caller.name(), caller.actor())
        .await?;
    Ok((StatusCode::NO_CONTENT, [(SET_COOKIE, cookie("", 0))]))
}

/// `GET /me`
pub(super) async fn me(caller: Caller) -> Json<Me> {
    let kind = match caller.principal() {
        Principal::Local => "local",
        Principal::User(..) => "user",
        Principal::Token(_) => "token",
    };
    Json(Me {
        name: caller.name().to_owned(),
        kind: kind.to_owned(),
        role: caller.role().into(),
        must_change_password: caller.must_change(),
        csrf_token: caller.csrf().map(str::to_owned),
        session: caller.session().map(id),
        expires_at: caller.expires_at().map(format_time),
    })
}

/// `POST /me/password`
pub(super) async fn password(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Body(request): Body<ChangePassword>,
) -> Result<impl IntoResponse, ApiError> {
    let passwords = (request.current, request.new);
    let opened = api
        .operators
        .change_own_password(caller.user()?, passwords, caller.from())
        .await?;
    Ok(answer(&api, &opened))
}

/// `GET /sessions`
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Params(query): Params<SessionsQuery>,
) -> Result<Json<Page<SessionShape>>, ApiError> {
    let window = Window::new(query.limit, query.cursor.as_deref())?;
    let user = whose(&api, &caller, query.user.as_deref()).await?;
    let rows = api.store.sessions(user.id, (api.clock)()).await?;
    let place = |row: &SessionRow| {
        let opened = row.created_at.unix_timestamp_nanos();
        format!("{opened:039}{}", hex::encode(row.hash))
    };
    let page = window.cut(rows, place, Order::Falling);
    Ok(Json(page.map(|row| SessionShape {
        id: id(&row.hash),
        user: user.name.clone(),
        origin: row.origin,
        created_at: format_time(row.created_at),
        expires_at: format_time(row.expires_at),
        current: caller.session() == Some(&row.hash),
    })))
}

/// `DELETE /sessions`
pub(super) async fn end_all(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Params(query): Params<SessionOwnerQuery>,
) -> Result<StatusCode, ApiError> {
    let user = whose(&api, &caller, query.user.as_deref()).await?;
    let ended = api.store.end_sessions(user.id).await?;
    let entry = AuditEntry {
        at: (api.clock)(),
        actor: caller.actor(),
        action: "session.end_all".to_owned(),
        subject: user.name,
        detail: format!("{ended} of them"),
    };
    api.store.audit(entry).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `DELETE /sessions/{session}`
pub(super) async fn end(
    State(api): State<Arc<Api>>,
    Path(session): Path<String>,
    caller: Caller,
    Params(query): Params<SessionOwnerQuery>,
) -> Result<StatusCode, ApiError> {
    let user = whose(&api, &caller, query.user.as_deref()).await?;
    let open = api.store.sessions(user.id, (api.clock)()).await?;
    let found = open.into_iter().find(|row| id(&row.hash) == session);
    let ended = match found {
        Some(row) => {
            api.operators
                .end(&row.hash, &user.name, caller.actor())
                .await?
        }
        None => false,
    };
    if ended {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(ApiError::Unknown {
            noun: "session",
            key: session,
        })
    }
}

/// The user whose sessions are meant: oneself, or for an admin anybody.
async fn whose(api: &Api, caller: &Caller, named: Option<&str>) -> Result<UserRow, ApiError> {
    let user = match named {
        Some(reference) if caller.role() == Role::Admin => find_user(api, reference).await?,
        Some(reference) => {
            let user = find_user(api, reference).await;
            // Whether somebody of that name is there is no matter of theirs.
            match user {
                Ok(user) if caller.user().ok() == Some(user.id) => user,
                Ok(_) | Err(ApiError::Unknown { .. }) => return Err(ApiError::Forbidden),
                Err(error) => return Err(error),
            }
        }
        None => {
            let id = caller.user()?;
            let found = api.store.user(id).await?;
            found.ok_or(ApiError::Unauthenticated)?
        }
    };
    Ok(user)
}

/// What a session is called in lists: part of the hash of its token, of which nobody can make one.
fn id(hash: &[u8; 32]) -> String {
    hex::encode(&hash[..16])
}

fn answer(api: &Api, opened: &Opened) -> impl IntoResponse + use<> {
    let token = opened.token.expose();
    let life = (opened.expires_at - (api.clock)()).whole_seconds();
    let shape = SessionOpened {
        token: token.to_owned(),
        csrf_token: csrf_token(token.as_bytes()),
        expires_at: format_time(opened.expires_at),
        name: opened.user.name.clone(),
        role: opened.user.role.into(),
        must_change_password: opened.user.must_change,
    };
    ([(SET_COOKIE, cookie(token, life))], Json(shape))
}

/// Not `Secure`: on loopback, where this server answers, there is no TLS. It is never sent along
/// with a request that another site has brought about.
fn cookie(value: &str, seconds: i64) -> HeaderValue {
    let text =
        format!("{SESSION_COOKIE}={value}; HttpOnly; SameSite=Strict; Path=/; Max-Age={seconds}");
    HeaderValue::try_from(text).expect("a token is letters, digits, hyphens and underscores")
}
