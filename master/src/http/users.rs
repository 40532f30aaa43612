//! The routes of users.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::response::IntoResponse;
use domain::role::Role;
use proto::line::format_time;
use proto::rest::{ChangeUser, CreateUser, Page, UserChanged, UserShape, UsersQuery};
use uuid::Uuid;

use super::Api;
use super::auth::Caller;
use super::extract::{Body, Malformed, Params};
use super::pages::{Order, Window};
use super::problem::ApiError;
use crate::db::accounts::{UserId, UserRow};
use crate::operators::{Given, NewUser, Set, name};

/// `GET /users`
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    Params(query): Params<UsersQuery>,
) -> Result<Json<Page<UserShape>>, ApiError> {
    let window = Window::new(query.limit, query.cursor.as_deref())?;
    let role = query.role.map(Role::from);
    let part = query.name.map(|part| part.to_lowercase());
    let mut rows = api.store.users().await?;
    rows.retain(|row| {
        role.is_none_or(|role| row.role == role)
            && part
                .as_ref()
                .is_none_or(|part| row.name.to_lowercase().contains(part))
    });
    let page = window.cut(rows, |row| row.name.to_lowercase(), Order::Rising);
    Ok(Json(page.map(|row| shape(&row))))
}

/// `POST /users`
pub(super) async fn create(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Body(request): Body<CreateUser>,
) -> Result<impl IntoResponse, ApiError> {
    name::check(&request.name)?;
    let new = NewUser {
        name: request.name,
        role: request.role.into(),
        password: request.password.map_or(Given::OneTime, Given::Chosen),
    };
    let made = api.operators.create(new, caller.actor()).await?;
    let location = [(LOCATION, format!("/api/v1/users/{}", made.of.id.uuid()))];
    Ok((StatusCode::CREATED, location, Json(changed(made))))
}

/// `GET /users/{user}`
pub(super) async fn inspect(
    State(api): State<Arc<Api>>,
    Path(user): Path<String>,
) -> Result<Json<UserShape>, ApiError> {
    Ok(Json(shape(&find_user(&api, &user).await?)))
}

/// `PATCH /users/{user}`
pub(super) async fn change(
    State(api): State<Arc<Api>>,
    Path(user): Path<String>,
    caller: Caller,
    Body(request): Body<ChangeUser>,
) -> Result<Json<UserChanged>, ApiError> {
    let ChangeUser {
        role,
        password,
        reset_password,
    } = request;
    let password = match (password, reset_password) {
        (Some(_), true) => {
            let message = "a password is chosen or made, not both";
            return Err(ApiError::Malformed(Malformed::body("password", message)));
        }
        (Some(text), false) => Some(Given::Chosen(text)),
        (None, true) => Some(Given::OneTime),
        (None, false) => None,
    };
    let row = find_user(&api, &user).await?;
    let change = (password, role.map(Role::from));
    let set = api.operators.change(&row, change, caller.actor()).await?;
    Ok(Json(changed(set)))
}

/// `DELETE /users/{user}`
pub(super) async fn remove(
    State(api): State<Arc<Api>>,
    Path(user): Path<String>,
    caller: Caller,
) -> Result<StatusCode, ApiError> {
    let row = find_user(&api, &user).await?;
    let now = (api.clock)();
    api.store.delete_user(row.id, caller.actor(), now).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The user of that id or name.
pub(super) async fn find_user(api: &Api, reference: &str) -> Result<UserRow, ApiError> {
    if let Ok(id) = reference.parse::<Uuid>()
        && let Some(row) = api.store.user(UserId::new(id)).await?
    {
        return Ok(row);
    }
    let named = match name::check(reference) {
        Ok(()) => api.store.user_named(reference).await?,
        Err(_) => None,
    };
    named.ok_or_else(|| ApiError::Unknown {
        noun: "user",
        key: reference.to_owned(),
    })
}

fn changed(set: Set<UserRow>) -> UserChanged {
    UserChanged {
        user: shape(&set.of),
        one_time_password: set.one_time.map(|secret| secret.expose().to_owned()),
    }
}

fn shape(row: &UserRow) -> UserShape {
    UserShape {
        id: row.id.uuid().to_string(),
        name: row.name.clone(),
        role: row.role.into(),
        must_change_password: row.must_change,
        created_at: format_time(row.created_at),
        password_at: format_time(row.password_at),
    }
}
