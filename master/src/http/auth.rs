//! Who asks: a bearer token or the cookie of a session, looked up for every request, and the admin's
//! token on disk, which is the credential of the master's own machine.
//!
//! A look-up is one read by an index. Nothing is remembered between two requests, so that what was
//! revoked, demoted or ended is so at once, on every master of a database.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::extract::{FromRequestParts, Request, State};
use axum::http::HeaderMap;
use axum::http::header::{AUTHORIZATION, COOKIE};
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use domain::role::Role;
use pki::file::{WriteFileError, write_private};
use pki::token::same_hash;
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;

use super::Api;
use super::problem::ApiError;
use crate::db::accounts::UserId;
use crate::db::{Actor, StoreError};
use crate::entropy::random;
use crate::operators::secret::{self, SESSION, csrf_token};

/// What every API token begins with, so that a scanner of leaked secrets knows one.
const PREFIX: &str = secret::API_TOKEN;
/// 256 bits in base64 without padding.
const BODY: usize = 43;
/// The cookie of a session.
pub(super) const SESSION_COOKIE: &str = "decnet_session";
/// What a page sends beside that cookie.
pub(super) const CSRF_HEADER: &str = "x-csrf-token";

/// Who may use a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Everybody.
    Open,
    /// Whoever is known, even before a first password was changed.
    Known,
    /// Whoever has this role.
    Needs(Role),
}

/// The address that a connection comes from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub(super) IpAddr);

/// Who asks.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    principal: Principal,
    credential: Credential,
    role: Role,
    must_change: bool,
    expires_at: Option<OffsetDateTime>,
    from: Option<IpAddr>,
    /// For a session: what a page must send beside its cookie.
    csrf: Option<Arc<str>>,
    /// Made of the credential, which the store never sees: what is sealed with it only the same
    /// credential opens.
    seal: [u8; 32],
}

/// As whom somebody asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Principal {
    /// Whoever reads the files of the master.
    Local,
    /// A user who has logged in.
    User(UserId, Arc<str>),
    /// A program with a token of that name.
    Token(Arc<str>),
}

/// What was presented, by its hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Credential {
    Local,
    Session([u8; 32]),
    Token([u8; 32]),
}

/// The admin's token. Neither shown nor serialised but by [`AdminToken::expose`].
pub struct AdminToken(String);

/// The hash of the admin's token: all that is held of it.
pub(super) struct LocalToken([u8; 32]);

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

/// Lets a request to its route, or not: without a known credential nobody learns what the route does.
pub(super) async fn authorize(
    State((api, access)): State<(Arc<Api>, Access)>,
    mut request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    if access == Access::Open {
        return Ok(next.run(request).await);
    }
    let presented = Presented::of(request.headers()).ok_or(ApiError::Unauthenticated)?;
    let caller = api
        .identify(&presented, peer(&request))
        .await?
        .ok_or(ApiError::Unauthenticated)?;
    tracing::Span::current().record("user.id", caller.name());
    if presented.by_cookie && !request.method().is_safe() {
        caller.check_csrf(request.headers())?;
    }
    if let Access::Needs(role) = access {
        if caller.must_change {
            return Err(ApiError::MustChange);
        }
        if caller.role < role {
            return Err(ApiError::Forbidden);
        }
    }
    request.extensions_mut().insert(caller);
    Ok(next.run(request).await)
}

fn peer(request: &Request) -> Option<IpAddr> {
    request.extensions().get::<Peer>().map(|peer| peer.0)
}

/// A credential as it stands in a request.
struct Presented {
    text: Vec<u8>,
    by_cookie: bool,
}

impl Presented {
    /// The token, or else the cookie. A token that is none does not make the cookie count: who
    /// sends one wants to be who it says.
    fn of(headers: &HeaderMap) -> Option<Self> {
        let Some(value) = headers.get(AUTHORIZATION) else {
            return session_cookie(headers).map(|text| Self {
                text: text.into_bytes(),
                by_cookie: true,
            });
        };
        let (scheme, token) = value.as_bytes().split_at_checked("bearer ".len())?;
        scheme.eq_ignore_ascii_case(b"bearer ").then(|| Self {
            text: token.trim_ascii().to_owned(),
            by_cookie: false,
        })
    }
}

/// The session's cookie. Of several none: another page of the same name has set one of them.
fn session_cookie(headers: &HeaderMap) -> Option<String> {
    let mut found = headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .filter(|(name, _)| *name == SESSION_COOKIE)
        .map(|(_, value)| value.to_owned());
    let first = found.next();
    if found.next().is_some() { None } else { first }
}

// === impl Api ===

impl Api {
    async fn identify(
        &self,
        presented: &Presented,
        from: Option<IpAddr>,
    ) -> Result<Option<Caller>, StoreError> {
        let Presented { text, by_cookie } = presented;
        let hash = secret::hash(text);
        let seal = Sha256::new()
            .chain_update(b"decnet seal\0")
            .chain_update(text)
            .finalize()
            .into();
        let now = (self.clock)();
        if !by_cookie && self.local.is(&hash) {
            return Ok(Some(Caller {
                principal: Principal::Local,
                credential: Credential::Local,
                role: Role::Admin,
                must_change: false,
                expires_at: None,
                from,
                csrf: None,
                seal,
            }));
        }
        if text.starts_with(SESSION.as_bytes()) {
            let found = self.store.session(&hash, now).await?;
            return Ok(found.map(|(session, user)| Caller {
                principal: Principal::User(user.id, user.name.into()),
                credential: Credential::Session(hash),
                role: user.role,
                must_change: user.must_change,
                expires_at: Some(session.expires_at),
                from,
                csrf: Some(csrf_token(text).into()),
                seal,
            }));
        }
        if *by_cookie || !text.starts_with(PREFIX.as_bytes()) {
            return Ok(None);
        }
        let found = self.store.api_token(&hash, now).await?;
        Ok(found.map(|token| Caller {
            principal: Principal::Token(token.name.into()),
            credential: Credential::Token(hash),
            role: token.role,
            must_change: false,
            expires_at: token.expires_at,
            from,
            csrf: None,
            seal,
        }))
    }

    /// Whether the credential of a caller that was let in is still of use: for answers that do not
    /// end.
    pub(super) async fn still_knows(&self, caller: &Caller) -> Result<bool, StoreError> {
        let now = (self.clock)();
        Ok(match &caller.credential {
            Credential::Local => true,
            Credential::Session(hash) => self.store.session(hash, now).await?.is_some(),
            Credential::Token(hash) => self.store.api_token(hash, now).await?.is_some(),
        })
    }
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

// === impl LocalToken ===

impl LocalToken {
    pub(super) fn new(token: &AdminToken) -> Self {
        Self(secret::hash(token.expose().as_bytes()))
    }

    fn is(&self, hash: &[u8; 32]) -> bool {
        same_hash(&self.0, hash)
    }
}

// === impl Caller ===

impl Caller {
    /// The name of the user or of the token.
    pub(super) fn name(&self) -> &str {
        match &self.principal {
            Principal::Local => "admin",
            Principal::User(_, name) | Principal::Token(name) => name,
        }
    }

    /// As whom it asks.
    pub(super) const fn principal(&self) -> &Principal {
        &self.principal
    }

    /// The user who has logged in.
    pub(super) fn user(&self) -> Result<UserId, ApiError> {
        match self.principal {
            Principal::User(id, _) => Ok(id),
            Principal::Local | Principal::Token(_) => Err(ApiError::NotAUser),
        }
    }

    /// The hash of the session that asks.
    pub(super) const fn session(&self) -> Option<&[u8; 32]> {
        match &self.credential {
            Credential::Session(hash) => Some(hash),
            Credential::Local | Credential::Token(_) => None,
        }
    }

    /// What it may do.
    pub(super) const fn role(&self) -> Role {
        self.role
    }

    /// Whether it must choose another password first.
    pub(super) const fn must_change(&self) -> bool {
        self.must_change
    }

    /// Until when its credential is of use.
    pub(super) const fn expires_at(&self) -> Option<OffsetDateTime> {
        self.expires_at
    }

    /// What a page must send beside the cookie of the session.
    pub(super) fn csrf(&self) -> Option<&str> {
        self.csrf.as_deref()
    }

    /// From where it asks.
    pub(super) fn from(&self) -> IpAddr {
        // Only a request that came through no connection has none.
        self.from.unwrap_or(IpAddr::from([127, 0, 0, 1]))
    }

    /// The key that only this credential can make again.
    pub(super) const fn seal(&self) -> &[u8; 32] {
        &self.seal
    }

    /// Who it is among those that hold streams open: a user is one, with however many sessions.
    pub(super) fn holder(&self) -> String {
        match &self.principal {
            Principal::User(id, _) => format!("user:{}", id.uuid()),
            Principal::Local | Principal::Token(_) => self.owner(),
        }
    }

    /// Whose idempotency keys it sends: those of its credential, which alone opens what is kept.
    pub(super) fn owner(&self) -> String {
        match &self.credential {
            Credential::Local => "local".to_owned(),
            Credential::Session(hash) => format!("session:{}", hex::encode(hash)),
            Credential::Token(hash) => format!("token:{}", hex::encode(hash)),
        }
    }

    /// Who did it, and from where, for the audit. No name holds an `@`.
    pub(super) fn actor(&self) -> Actor {
        let kind = match &self.principal {
            Principal::Token(_) => "token/",
            Principal::Local | Principal::User(..) => "",
        };
        let name = self.name();
        Actor::Operator(match self.from {
            Some(from) => format!("{kind}{name}@{from}"),
            None => format!("{kind}{name}"),
        })
    }

    fn check_csrf(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        let sent = headers
            .get(CSRF_HEADER)
            .map(|value| secret::hash(value.as_bytes()));
        let wanted = self.csrf().map(|token| secret::hash(token.as_bytes()));
        match (sent, wanted) {
            (Some(sent), Some(wanted)) if same_hash(&sent, &wanted) => Ok(()),
            _ => Err(ApiError::Csrf),
        }
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

impl<S: Send + Sync> FromRequestParts<S> for Peer {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let found = parts.extensions.get::<Self>().copied();
        Ok(found.unwrap_or(Self(IpAddr::from([127, 0, 0, 1]))))
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
