//! The shapes of who may ask: logins and sessions, users, API tokens.
//!
//! What carries a secret prints none of it.

use std::fmt;

use domain::role::Role;
use serde::{Deserialize, Serialize};

/// What a user or a token may do; each may do what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum RoleShape {
    /// Look.
    Viewer,
    /// Work with topologies, and take hosts in and out of service.
    Operator,
    /// Everything.
    Admin,
}

impl From<Role> for RoleShape {
    fn from(role: Role) -> Self {
        match role {
            Role::Viewer => Self::Viewer,
            Role::Operator => Self::Operator,
            Role::Admin => Self::Admin,
        }
    }
}

impl From<RoleShape> for Role {
    fn from(role: RoleShape) -> Self {
        match role {
            RoleShape::Viewer => Self::Viewer,
            RoleShape::Operator => Self::Operator,
            RoleShape::Admin => Self::Admin,
        }
    }
}

/// `POST /login`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct LoginRequest {
    /// The user's name.
    pub name: String,
    /// Its password.
    pub password: String,
}

/// A session that was just opened. Its token is shown once.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct SessionOpened {
    /// The token, for `Authorization: Bearer`: a secret. The cookie carries the same.
    pub token: String,
    /// What a page sends as `X-CSRF-Token` when the cookie says who asks.
    pub csrf_token: String,
    /// Until when it is of use.
    pub expires_at: String,
    /// The user's name.
    pub name: String,
    /// What the user may do.
    pub role: RoleShape,
    /// Whether nothing is answered before the user has chosen another password.
    pub must_change_password: bool,
}

/// `GET /me`: who asks.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Me {
    /// The name of the user or of the token.
    pub name: String,
    /// `user`, `token`, or `local` for the admin token of the master's own machine.
    pub kind: String,
    /// What it may do.
    pub role: RoleShape,
    /// Whether nothing else is answered before another password was chosen.
    pub must_change_password: bool,
    /// For a session: what a page sends as `X-CSRF-Token`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub csrf_token: Option<String>,
    /// For a session: its id in `/sessions`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// Until when it is of use, if not for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
}

/// `POST /me/password`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ChangePassword {
    /// The password that is in force.
    pub current: String,
    /// The one to come: 12 characters or more.
    #[cfg_attr(feature = "schema", schema(min_length = 12, max_length = 256))]
    pub new: String,
}

/// A session in a list: never its token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct SessionShape {
    /// Its id.
    pub id: String,
    /// Whose it is.
    pub user: String,
    /// From which address it was opened.
    pub origin: String,
    /// When.
    pub created_at: String,
    /// Until when it is of use.
    pub expires_at: String,
    /// Whether it is the one that asks.
    pub current: bool,
}

/// `GET /sessions`, as query parameters.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::IntoParams))]
#[serde(deny_unknown_fields)]
pub struct SessionsQuery {
    /// Of this user, by name or id: for admins. One's own when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// At most this many, 1 to 1,000; 100 when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", param(minimum = 1, maximum = 1000))]
    pub limit: Option<u32>,
    /// Where the page before ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// `DELETE /sessions` and `DELETE /sessions/{session}`, as query parameters.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::IntoParams))]
#[serde(deny_unknown_fields)]
pub struct SessionOwnerQuery {
    /// Of this user, by name or id: for admins. One's own when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}

/// A user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct UserShape {
    /// Its identity.
    pub id: String,
    /// Its name.
    pub name: String,
    /// What it may do.
    pub role: RoleShape,
    /// Whether it must choose another password first.
    pub must_change_password: bool,
    /// When it was made.
    pub created_at: String,
    /// When its password was set.
    pub password_at: String,
}

/// `GET /users`, as query parameters.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::IntoParams))]
#[serde(deny_unknown_fields)]
pub struct UsersQuery {
    /// With this role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", param(inline))]
    pub role: Option<RoleShape>,
    /// Whose name holds this, in any case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// At most this many, 1 to 1,000; 100 when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", param(minimum = 1, maximum = 1000))]
    pub limit: Option<u32>,
    /// Where the page before ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// `POST /users`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CreateUser {
    /// Its name: letters, digits, dots, hyphens and underscores.
    #[cfg_attr(
        feature = "schema",
        schema(pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    )]
    pub name: String,
    /// What it may do.
    pub role: RoleShape,
    /// Its first password, which it must change; one is made when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(min_length = 12, max_length = 256))]
    pub password: Option<String>,
}

/// `PATCH /users/{user}`: what is left out stays.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ChangeUser {
    /// What it may do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<RoleShape>,
    /// A password, which it must change; ends its sessions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(min_length = 12, max_length = 256))]
    pub password: Option<String>,
    /// Whether to make a one-time password for it; ends its sessions.
    #[serde(default)]
    pub reset_password: bool,
}

/// A user that was made or changed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct UserChanged {
    /// The user.
    pub user: UserShape,
    /// The one-time password that was made: a secret, shown once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub one_time_password: Option<String>,
}

/// An API token in a list: never the token itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct ApiTokenShape {
    /// Its identity.
    pub id: String,
    /// What it is for.
    pub name: String,
    /// What it may do.
    pub role: RoleShape,
    /// `valid`, `expired` or `revoked`.
    pub state: String,
    /// By whom it was made.
    pub creator: String,
    /// When.
    pub created_at: String,
    /// Until when it is of use, if not for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
    /// Since when it is of no use any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<String>,
}

/// `GET /api-tokens`, as query parameters.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::IntoParams))]
#[serde(deny_unknown_fields)]
pub struct ApiTokensQuery {
    /// Whether those are listed too that are of no use any more.
    #[serde(default)]
    pub all: bool,
    /// At most this many, 1 to 1,000; 100 when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", param(minimum = 1, maximum = 1000))]
    pub limit: Option<u32>,
    /// Where the page before ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// `POST /api-tokens`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CreateApiToken {
    /// What it is for: letters, digits, dots, hyphens and underscores.
    #[cfg_attr(
        feature = "schema",
        schema(pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    )]
    pub name: String,
    /// What it may do.
    pub role: RoleShape,
    /// How long it is of use, in seconds, up to ten years; for ever when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(minimum = 1, maximum = 315_360_000))]
    pub ttl_seconds: Option<u32>,
}

/// An API token that was just made. It is shown once.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct ApiTokenCreated {
    /// The token: a secret.
    pub secret: String,
    /// What is listed of it.
    pub token: ApiTokenShape,
}

/// Shapes with a secret print their type alone.
macro_rules! secretive {
    ($($shape:ident),*) => {$(
        impl fmt::Debug for $shape {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($shape), "(…)"))
            }
        }
    )*};
}

secretive!(
    LoginRequest,
    SessionOpened,
    Me,
    ChangePassword,
    CreateUser,
    ChangeUser,
    UserChanged,
    ApiTokenCreated
);
