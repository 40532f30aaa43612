//! Who may ask: bearer tokens, their roles, and the admin's token on disk.
//!
//! Only hashes are held in memory. With 256 random bits there is nothing for a slow hash to
//! protect, and two hashes are compared in constant time.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::extract::{FromRequestParts, Request, State};
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use pki::file::{WriteFileError, write_private};
use pki::token::same_hash;
use sha2::{Digest as _, Sha256};

use super::Api;
use super::problem::ApiError;
use crate::db::Actor;
use crate::entropy::random;

/// What every API token begins with, so that a scanner of leaked secrets knows one.
const PREFIX: &str = "dca_";
/// 256 bits in base64 without padding.
const BODY: usize = 43;

/// What somebody may do; each may do what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Look.
    Viewer,
    /// Change topologies.
    Operator,
    /// Everything.
    Admin,
}

/// Who may use a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Everybody.
    Open,
    /// Whoever has this role.
    Needs(Role),
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Caller {
    name: Arc<str>,
    role: Role,
}

/// The admin's token. Neither shown nor serialised but by [`AdminToken::expose`].
pub struct AdminToken(String);

/// The tokens that are accepted.
#[derive(Default)]
pub struct ApiTokens {
    known: Vec<Known>,
}

struct Known {
    caller: Caller,
    hash: [u8; 32],
}

/// Why there is no admin token.
#[derive(Debug, thiserror::Error)]
pub enum AdminTokenError {
    /// The file is there and cannot be read.
    #[error("could not read the admin token {}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file holds something else.
    #[error("{} holds no admin token; remove it and a new one is made", path.display())]
    Malformed {
        /// Which file.
        path: PathBuf,
    },
    /// The file could not be made.
    #[error("could not keep a new admin token")]
    Write(#[source] WriteFileError),
}

/// Reads the admin's token, or makes one: 256 random bits in a file that only this user reads.
pub fn load_or_create_admin_token(path: &Path) -> Result<AdminToken, AdminTokenError> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let token = AdminToken::generate();
            write_private(path, format!("{}\n", token.0).as_bytes())
                .map_err(AdminTokenError::Write)?;
            return Ok(token);
        }
        Err(source) => {
            return Err(AdminTokenError::Read {
                path: path.to_owned(),
                source,
            });
        }
    };
    let body = text.trim().strip_prefix(PREFIX);
    let decoded = body
        .filter(|body| body.len() == BODY)
        .map(|body| URL_SAFE_NO_PAD.decode(body));
    match decoded {
        Some(Ok(_)) => Ok(AdminToken(text.trim().to_owned())),
        Some(Err(_)) | None => Err(AdminTokenError::Malformed {
            path: path.to_owned(),
        }),
    }
}

/// Lets a request to its route, or not: without a known token nobody learns what the route does.
pub(super) async fn authorize(
    State((api, access)): State<(Arc<Api>, Access)>,
    mut request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    if let Access::Needs(role) = access {
        let caller = api
            .tokens
            .caller(request.headers())
            .ok_or(ApiError::Unauthenticated)?;
        tracing::Span::current().record("user.id", &*caller.name);
        if caller.role < role {
            return Err(ApiError::Forbidden);
        }
        request.extensions_mut().insert(caller);
    }
    Ok(next.run(request).await)
}

// === impl AdminToken ===

impl AdminToken {
    /// A token that nobody has seen.
    pub fn generate() -> Self {
        Self(format!(
            "{PREFIX}{}",
            URL_SAFE_NO_PAD.encode(random::<32>())
        ))
    }

    /// The text, for the one place that shows it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdminToken(…)")
    }
}

// === impl ApiTokens ===

impl ApiTokens {
    /// Accepts the admin's token, under the name `admin`.
    pub fn with_admin(token: &AdminToken) -> Self {
        Self::default().with("admin", Role::Admin, token.expose())
    }

    /// Accepts one more token.
    #[must_use]
    pub fn with(mut self, name: &str, role: Role, token: &str) -> Self {
        let caller = Caller {
            name: name.into(),
            role,
        };
        self.known.push(Known {
            caller,
            hash: Sha256::digest(token).into(),
        });
        self
    }

    fn caller(&self, headers: &HeaderMap) -> Option<Caller> {
        let value = headers.get(AUTHORIZATION)?.as_bytes();
        let (scheme, token) = value.split_at_checked("bearer ".len())?;
        if !scheme.eq_ignore_ascii_case(b"bearer ") {
            return None;
        }
        let hash: [u8; 32] = Sha256::digest(token.trim_ascii()).into();
        let mut found = None;
        // Every one is compared, so that the time does not tell which.
        for known in &self.known {
            if same_hash(&known.hash, &hash) {
                found = Some(known.caller.clone());
            }
        }
        found
    }
}

impl fmt::Debug for ApiTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiTokens({})", self.known.len())
    }
}

// === impl Caller ===

impl Caller {
    /// The name of the token that was used.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Who did it, for the audit.
    pub(super) fn actor(&self) -> Actor {
        Actor::Operator(self.name.to_string())
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        parts
            .extensions
            .get::<Self>()
            .cloned()
            .ok_or(ApiError::Unauthenticated)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_admin_token_is_made_once_and_for_this_user_only() {
        let folder = tempfile::tempdir().expect("temporary directory");
        let path = folder.path().join("admin.token");

        let made = load_or_create_admin_token(&path).expect("writable");
        let read = load_or_create_admin_token(&path).expect("readable");

        assert_eq!(made.expose(), read.expose());
        assert_eq!(made.expose().len(), PREFIX.len() + BODY);
        assert_eq!(
            std::fs::metadata(&path).expect("made").permissions().mode() & 0o777,
            0o600
        );
        assert!(!format!("{made:?}").contains(PREFIX));
    }

    #[test]
    fn a_file_that_holds_no_token_is_refused_and_never_overwritten() {
        let folder = tempfile::tempdir().expect("temporary directory");
        let path = folder.path().join("admin.token");
        for wrong in ["", "\n", "dca_", "dca_short", "secret"] {
            std::fs::write(&path, wrong).expect("writable");
            let refused = load_or_create_admin_token(&path).expect_err("no token");
            assert!(
                matches!(refused, AdminTokenError::Malformed { .. }),
                "{wrong:?}: {refused}"
            );
            assert_eq!(std::fs::read_to_string(&path).expect("still there"), wrong);
        }
    }
}
