//! Who may ask: users, their sessions, API tokens; and the answers that are given again to those
//! who ask twice. Secrets never reach the store, only what was made of them.

use std::fmt;

use async_trait::async_trait;
use domain::role::Role;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Actor, StoreError};

/// A user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserId(Uuid);

impl UserId {
    /// Wraps a UUID that the caller made.
    pub const fn new(uuid: Uuid) -> Self {
        Self(uuid)
    }

    /// The UUID itself.
    pub const fn uuid(self) -> Uuid {
        self.0
    }
}

/// An API token (its public part).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ApiTokenId(Uuid);

impl ApiTokenId {
    /// Wraps a UUID that the caller made.
    pub const fn new(uuid: Uuid) -> Self {
        Self(uuid)
    }

    /// The UUID itself.
    pub const fn uuid(self) -> Uuid {
        self.0
    }
}

/// The argon2id hash of a password, in its PHC form.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash(String);

impl PasswordHash {
    /// Wraps what the hasher gave.
    pub const fn new(phc: String) -> Self {
        Self(phc)
    }

    /// For the verifier.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash(…)")
    }
}

/// A user, as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserRow {
    /// Its identity.
    pub id: UserId,
    /// Its name, unique without regard to case.
    pub name: String,
    /// The hash of its password.
    pub password_hash: PasswordHash,
    /// What it may do.
    pub role: Role,
    /// Whether it may do nothing before it has chosen another password.
    pub must_change: bool,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// When its password was set.
    pub password_at: OffsetDateTime,
}

/// What is to become of a user: all of it, or nothing.
#[derive(Debug, Clone)]
pub struct UserChange {
    /// The user.
    pub user: UserId,
    /// Its password from now on, if it is to be another one.
    pub password: Option<NewPassword>,
    /// What it may do from now on, if that is to change.
    pub role: Option<Role>,
    /// Who changes it.
    pub actor: Actor,
    /// The time.
    pub now: OffsetDateTime,
}

/// A password that is to be set.
#[derive(Debug, Clone)]
pub struct NewPassword {
    /// The hash.
    pub hash: PasswordHash,
    /// The hash that it takes the place of, where another one is not to be overwritten.
    pub replaces: Option<PasswordHash>,
    /// Whether it must be changed at the next login.
    pub must_change: bool,
}

/// Why a user was not stored, changed or removed.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// No such user.
    #[error("there is no such user")]
    Unknown,
    /// Another user has that name.
    #[error("a user of that name exists")]
    NameTaken,
    /// Nobody could let anybody in again.
    #[error("it is the last admin")]
    LastAdmin,
    /// The password was changed since it was looked at.
    #[error("the password is another one by now")]
    Overtaken,
    /// The store failed.
    #[error("user could not be stored or read")]
    Store(#[source] StoreError),
}

/// A session, as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRow {
    /// SHA-256 of its token.
    pub hash: [u8; 32],
    /// Whose it is.
    pub user: UserId,
    /// From where it was opened.
    pub origin: String,
    /// When.
    pub created_at: OffsetDateTime,
    /// Until when it is of use.
    pub expires_at: OffsetDateTime,
}

/// An API token, as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiTokenRow {
    /// Its identity.
    pub id: ApiTokenId,
    /// SHA-256 of it.
    pub hash: [u8; 32],
    /// What it is for.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// By whom it was made.
    pub creator: String,
    /// When.
    pub created_at: OffsetDateTime,
    /// Until when it is of use, if not for ever.
    pub expires_at: Option<OffsetDateTime>,
    /// Since when it is of no use any more.
    pub revoked_at: Option<OffsetDateTime>,
}

/// A request that carries an idempotency key.
#[derive(Debug, Clone)]
pub struct KeyedRequest {
    /// Who asks.
    pub owner: String,
    /// The key.
    pub key: String,
    /// SHA-256 of what is asked.
    pub digest: [u8; 32],
    /// Until when it is taken to be still served, when no answer is kept. Whether it was carried out
    /// is not known afterwards.
    pub lease_until: OffsetDateTime,
    /// Until when the key is kept, with the answer if there is one.
    pub expires_at: OffsetDateTime,
    /// The time.
    pub now: OffsetDateTime,
}

/// What is to be done with a request that carries an idempotency key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keyed {
    /// It is to be served.
    Fresh,
    /// It is being served.
    Running,
    /// Whoever served it kept no answer: nobody knows what it has done.
    Unknown,
    /// The key was used for something else.
    Differs,
    /// It was served: this was the answer.
    Answered {
        /// Its status.
        status: u16,
        /// Its body.
        body: Vec<u8>,
    },
}

/// Users, sessions, API tokens, idempotency keys.
#[async_trait]
pub trait Accounts: Send + Sync {
    /// Stores a user, and audits it.
    async fn insert_user(&self, user: &UserRow, actor: Actor) -> Result<(), UserError>;
    /// Stores a user if there is none at all; whether there was none.
    async fn insert_first_user(&self, user: &UserRow) -> Result<bool, UserError>;
    /// Every user, by name.
    async fn users(&self) -> Result<Vec<UserRow>, StoreError>;
    /// One user.
    async fn user(&self, id: UserId) -> Result<Option<UserRow>, StoreError>;
    /// The user of that name, without regard to case.
    async fn user_named(&self, name: &str) -> Result<Option<UserRow>, StoreError>;
    /// Changes a user, and audits what has changed; the user as it is then. Another password ends
    /// every session of it. The last admin stays one.
    async fn change_user(&self, change: UserChange) -> Result<UserRow, UserError>;
    /// Removes a user with its sessions, and audits it. The last admin stays.
    async fn delete_user(
        &self,
        user: UserId,
        actor: Actor,
        now: OffsetDateTime,
    ) -> Result<(), UserError>;

    /// Stores a session if the password that was shown for it is still the one of its user;
    /// whether it is. A change of the password ends every session, and checking one takes long.
    async fn insert_session(
        &self,
        session: &SessionRow,
        shown: &PasswordHash,
    ) -> Result<bool, StoreError>;
    /// A session that is of use, and its user.
    async fn session(
        &self,
        hash: &[u8; 32],
        now: OffsetDateTime,
    ) -> Result<Option<(SessionRow, UserRow)>, StoreError>;
    /// The sessions of a user that are of use, newest first.
    async fn sessions(
        &self,
        user: UserId,
        now: OffsetDateTime,
    ) -> Result<Vec<SessionRow>, StoreError>;
    /// Ends a session; whether there was one.
    async fn end_session(&self, hash: &[u8; 32]) -> Result<bool, StoreError>;
    /// Ends every session of a user; how many there were.
    async fn end_sessions(&self, user: UserId) -> Result<u64, StoreError>;

    /// Stores an API token, and audits it.
    async fn insert_api_token(&self, token: &ApiTokenRow, actor: Actor) -> Result<(), StoreError>;
    /// The API token of that hash, if it is of use.
    async fn api_token(
        &self,
        hash: &[u8; 32],
        now: OffsetDateTime,
    ) -> Result<Option<ApiTokenRow>, StoreError>;
    /// Every API token, newest first, those of no use among them.
    async fn api_tokens(&self) -> Result<Vec<ApiTokenRow>, StoreError>;
    /// Revokes an API token, and audits it; whether there was one to revoke.
    async fn revoke_api_token(
        &self,
        id: ApiTokenId,
        actor: Actor,
        now: OffsetDateTime,
    ) -> Result<bool, StoreError>;

    /// Takes a request in, or gives the answer to the first of its key. Of those that race one
    /// is fresh, and no other until the key is released or has expired.
    async fn take_keyed(&self, request: &KeyedRequest) -> Result<Keyed, StoreError>;
    /// Keeps the answer to a request that was fresh.
    async fn keep_answer(
        &self,
        request: &KeyedRequest,
        status: u16,
        body: &[u8],
    ) -> Result<(), StoreError>;
    /// Forgets a request that was fresh and did nothing, so that it may be sent again.
    async fn release_key(&self, request: &KeyedRequest) -> Result<(), StoreError>;
}
