//! The routes of API tokens.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use proto::line::format_time;
use proto::rest::{ApiTokenCreated, ApiTokenShape, ApiTokensQuery, CreateApiToken, Page};
use time::OffsetDateTime;
use uuid::Uuid;

use super::Api;
use super::auth::Caller;
use super::extract::{Body, Malformed, Params};
use super::pages::{Order, Window};
use super::problem::ApiError;
use crate::db::accounts::{ApiTokenId, ApiTokenRow};
use crate::operators::{NewToken, name};

/// Longest life of a token that ends, in seconds: ten years.
const LONGEST: u32 = 315_360_000;

/// `GET /api-tokens`
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    Params(query): Params<ApiTokensQuery>,
) -> Result<Json<Page<ApiTokenShape>>, ApiError> {
    let window = Window::new(query.limit, query.cursor.as_deref())?;
    let now = (api.clock)();
    let mut rows = api.store.api_tokens().await?;
    rows.retain(|row| query.all || state(row, now) == VALID);
    let place = |row: &ApiTokenRow| {
        let made = row.created_at.unix_timestamp_nanos();
        format!("{made:039}{}", row.id.uuid())
    };
    let page = window.cut(rows, place, Order::Falling);
    Ok(Json(page.map(|row| shape(&row, now))))
}

/// `POST /api-tokens`
pub(super) async fn mint(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Body(request): Body<CreateApiToken>,
) -> Result<(StatusCode, Json<ApiTokenCreated>), ApiError> {
    name::check(&request.name)?;
    if let Some(seconds) = request.ttl_seconds
        && !(1..=LONGEST).contains(&seconds)
    {
        let message = format!("{seconds} is not between 1 and {LONGEST}");
        return Err(ApiError::Malformed(Malformed::body("ttl_seconds", message)));
    }
    let new = NewToken {
        name: request.name,
        role: request.role.into(),
        life: request
            .ttl_seconds
            .map(|seconds| Duration::from_secs(u64::from(seconds))),
        creator: caller.name().to_owned(),
    };
    let (row, secret) = api.operators.mint(new, caller.actor()).await?;
    let created = ApiTokenCreated {
        secret: secret.expose().to_owned(),
        token: shape(&row, (api.clock)()),
    };
    Ok((StatusCode::CREATED, Json(created)))
}

/// `DELETE /api-tokens/{token}`
pub(super) async fn revoke(
    State(api): State<Arc<Api>>,
    Path(token): Path<String>,
    caller: Caller,
) -> Result<StatusCode, ApiError> {
    let unknown = || ApiError::Unknown {
        noun: "API token",
        key: token.clone(),
    };
    let id: Uuid = token.parse().map_err(|_| unknown())?;
    let revoked = api
        .store
        .revoke_api_token(ApiTokenId::new(id), caller.actor(), (api.clock)())
        .await?;
    if revoked {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(unknown())
    }
}

const VALID: &str = "valid";

fn state(row: &ApiTokenRow, now: OffsetDateTime) -> &'static str {
    if row.revoked_at.is_some() {
        "revoked"
    } else if row.expires_at.is_some_and(|expires| expires <= now) {
        "expired"
    } else {
        VALID
    }
}

fn shape(row: &ApiTokenRow, now: OffsetDateTime) -> ApiTokenShape {
    ApiTokenShape {
        id: row.id.uuid().to_string(),
        name: row.name.clone(),
        role: row.role.into(),
        state: state(row, now).to_owned(),
        creator: row.creator.clone(),
        created_at: format_time(row.created_at),
        expires_at: row.expires_at.map(format_time),
        revoked_at: row.revoked_at.map(format_time),
    }
}
