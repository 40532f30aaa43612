//! The routes of join tokens.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use domain::id::TokenId;
use domain::name::HostName;
use proto::line::format_time;
use proto::rest::{EnrollRequest, Enrollment, Page, TokenShape, TokensQuery};

use super::auth::Caller;
use super::extract::{Body, Params};
use super::pages::{Order, Window};
use super::problem::ApiError;
use super::{Api, shapes};
use crate::db::TokenRow;

/// For how long a token can be redeemed when nobody says, in seconds.
const TTL: u32 = 900;

/// `GET /tokens`
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    Params(query): Params<TokensQuery>,
) -> Result<Json<Page<TokenShape>>, ApiError> {
    let window = Window::new(query.limit, query.cursor.as_deref())?;
    let rows = api.store.tokens((api.clock)()).await?;
    let place = |row: &TokenRow| {
        let expires = row.expires_at.unix_timestamp_nanos();
        format!("{expires:039}{}", row.id)
    };
    let page = window.cut(rows, place, Order::Rising);
    Ok(Json(page.map(|row| shapes::token(&row))))
}

/// `POST /tokens`
pub(super) async fn mint(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Body(request): Body<EnrollRequest>,
) -> Result<(StatusCode, Json<Enrollment>), ApiError> {
    let name = HostName::parse(&request.name).map_err(ApiError::Name)?;
    let ttl = Duration::from_secs(u64::from(request.ttl_seconds.unwrap_or(TTL)));
    let minted = api
        .enroll
        .mint(name.clone(), ttl, caller.name().to_owned())
        .await?;
    let enrollment = Enrollment {
        id: minted.id.to_string(),
        token: minted.token.expose().to_owned(),
        name: name.to_string(),
        expires_at: format_time(minted.expires_at),
        command: format!("decnet-agent join {} --token-stdin", minted.master_url),
        master_url: minted.master_url,
    };
    Ok((StatusCode::CREATED, Json(enrollment)))
}

/// `DELETE /tokens/{id}`
pub(super) async fn remove(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
    caller: Caller,
) -> Result<StatusCode, ApiError> {
    let unknown = || ApiError::Unknown {
        noun: "token",
        key: id.clone(),
    };
    let token: TokenId = id.parse().map_err(|_| unknown())?;
    if api
        .store
        .delete_token(token, caller.actor(), (api.clock)())
        .await?
    {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(unknown())
    }
}
