//! Operators: who they are, how one shows it, and what each may keep open.
//!
//! Secrets are made here and leave once; what is kept is what was made of them. What a role allows
//! is decided by the table of routes.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use domain::role::Role;
use pki::file::{WriteFileError, write_private};
use time::OffsetDateTime;

use self::password::{Busy, Hasher, Weak};
use self::secret::Secret;
use self::throttle::Throttle;
use crate::clock::Clock;
use crate::db::accounts::{
    ApiTokenId, ApiTokenRow, NewPassword, SessionRow, UserChange, UserError, UserId, UserRow,
};
use crate::db::{Actor, AuditEntry, Store, StoreError};
use crate::entropy::uuid_v7;

pub mod name;
pub mod password;
pub mod secret;
pub mod throttle;

/// The name of the user that the first start makes.
pub const FIRST: &str = "admin";
/// The file of its one-time password, in the data directory.
pub const PASSWORD_FILE: &str = "admin.password";
/// How long a session is of use.
const SESSION_LIFE: time::Duration = time::Duration::hours(12);
/// Most sessions of a user; the oldest gives way.
const SESSIONS: usize = 32;

/// Operators.
pub struct Operators {
    store: Arc<dyn Store>,
    clock: Clock,
    hasher: Hasher,
    throttle: Throttle,
    password_file: PathBuf,
}

/// A session that was just opened. Its token is shown once.
#[derive(Debug)]
pub struct Opened {
    /// The token.
    pub token: Secret,
    /// Until when it is of use.
    pub expires_at: OffsetDateTime,
    /// Whose it is.
    pub user: UserRow,
}

/// A password that was just set. It is shown once when it was made here.
#[derive(Debug)]
pub struct Set<T> {
    /// Of what it is.
    pub of: T,
    /// The password, unless whoever asked has chosen it.
    pub one_time: Option<Secret>,
}

/// A user that is to be made.
#[derive(Debug)]
pub struct NewUser {
    /// Its name.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// Its first password.
    pub password: Given,
}

/// A password that a user is given by another, and must change.
#[derive(Debug)]
pub enum Given {
    /// Whoever gives it has chosen it.
    Chosen(String),
    /// It is made here, and shown once.
    OneTime,
}

/// An API token that is to be made.
#[derive(Debug)]
pub struct NewToken {
    /// What it is for.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// How long it is of use, if not for ever.
    pub life: Option<Duration>,
    /// By whom it is made.
    pub creator: String,
}

/// Why nobody was let in.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// Too many attempts were made.
    #[error("too many attempts to log in")]
    Throttled {
        /// After how long the next one is taken.
        after: Duration,
    },
    /// Name and password do not belong together.
    #[error("name or password is wrong")]
    Refused,
    /// Too many passwords are being checked.
    #[error(transparent)]
    Busy(#[from] Busy),
    /// The store failed.
    #[error("login could not be carried out")]
    Store(#[from] StoreError),
}

/// Why a password was not set.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// The one that is in force was not given.
    #[error(transparent)]
    Current(LoginError),
    /// The new one is too easy.
    #[error(transparent)]
    Weak(#[from] Weak),
    /// Too many passwords are being checked.
    #[error(transparent)]
    Busy(#[from] Busy),
    /// The user was not changed.
    #[error(transparent)]
    User(#[from] UserError),
    /// The store failed.
    #[error("password could not be set")]
    Store(#[from] StoreError),
}

/// Why there is no first admin.
#[derive(Debug, thiserror::Error)]
pub enum FirstAdminError {
    /// The password was not kept.
    #[error("could not keep the first password")]
    Write(#[source] WriteFileError),
    /// The password was not hashed.
    #[error("could not hash the first password")]
    Hash(#[source] Busy),
    /// The user was not stored.
    #[error("could not store the first admin")]
    User(#[source] UserError),
    /// The store failed.
    #[error("could not look for users")]
    Store(#[source] StoreError),
}

// === impl Operators ===

impl Operators {
    /// Those of a store; the one-time password of the first one is kept in `password_file`.
    pub fn new(store: Arc<dyn Store>, clock: Clock, password_file: PathBuf) -> Self {
        Self {
            store,
            clock,
            hasher: Hasher::default(),
            throttle: Throttle::default(),
            password_file,
        }
    }

    /// Makes the first admin when there is no user at all: its one-time password is in a file that
    /// only this user reads, until it is changed.
    pub async fn ensure_first(&self) -> Result<(), FirstAdminError> {
        let users = self.store.users().await.map_err(FirstAdminError::Store)?;
        if !users.is_empty() {
            let waits = users
                .iter()
                .any(|user| user.name == FIRST && user.must_change);
            if !waits {
                self.forget_password();
            }
            return Ok(());
        }
        let (user, password) = self.first().await?;
        // Kept before the user is stored: one without a known password would let nobody in.
        self.keep_password(&password)?;
        let made = self.store.insert_first_user(&user).await;
        if !made.map_err(FirstAdminError::User)? {
            // Another master on the same database was first, and its file counts.
            self.forget_password();
        }
        Ok(())
    }

    /// Gives the first admin a new one-time password, and makes it anew when it is gone.
    pub async fn reset_admin(&self) -> Result<(), FirstAdminError> {
        let (fresh, password) = self.first().await?;
        self.keep_password(&password)?;
        let found = self.store.user_named(FIRST).await;
        let actor = Actor::Reconciler;
        let now = (self.clock)();
        let stored = match found.map_err(FirstAdminError::Store)? {
            None => self.store.insert_user(&fresh, actor).await,
            Some(user) => {
                let password = NewPassword {
                    hash: fresh.password_hash,
                    replaces: None,
                    must_change: true,
                };
                let change = UserChange {
                    user: user.id,
                    password: Some(password),
                    role: Some(Role::Admin),
                    actor,
                    now,
                };
                self.store.change_user(change).await.map(drop)
            }
        };
        stored.map_err(FirstAdminError::User)
    }

    async fn first(&self) -> Result<(UserRow, Secret), FirstAdminError> {
        let password = Secret::one_time_password();
        let hash = self
            .hasher
            .hash(password.expose().to_owned())
            .await
            .map_err(FirstAdminError::Hash)?;
        let now = (self.clock)();
        let user = UserRow {
            id: UserId::new(uuid_v7(now)),
            name: FIRST.to_owned(),
            password_hash: hash,
            role: Role::Admin,
            must_change: true,
            created_at: now,
            password_at: now,
        };
        Ok((user, password))
    }

    fn keep_password(&self, password: &Secret) -> Result<(), FirstAdminError> {
        let text = format!("{}\n", password.expose());
        write_private(&self.password_file, text.as_bytes()).map_err(FirstAdminError::Write)
    }

    /// Removes the file of a password that is of no use any more.
    fn forget_password(&self) {
        match std::fs::remove_file(&self.password_file) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!(%error, "the file of the first password could not be removed");
            }
        }
    }

    /// Lets somebody in who knows a password.
    pub async fn login(
        &self,
        name: &str,
        password: String,
        from: IpAddr,
    ) -> Result<Opened, LoginError> {
        // What is no name is nobody's, and no database needs to be asked for it.
        let found = match name::check(name) {
            Ok(()) => self.store.user_named(name).await?,
            Err(_) => None,
        };
        let checked = self.check(name, found.as_ref(), password, from).await;
        let opened = match (checked, &found) {
            (Ok(()), Some(user)) => self.open(user.clone(), from).await?,
            (Err(LoginError::Refused) | Ok(()), _) => None,
            (Err(error), _) => return Err(error),
        };
        if let Some(opened) = opened {
            return Ok(opened);
        }
        // A name that nobody has may be a password in the wrong field: not written down.
        let subject = found.map_or_else(|| "unknown".to_owned(), |user| user.name);
        let told = ("session.refuse", subject, format!("from {from}"));
        self.audit(Actor::Reconciler, told).await?;
        Err(LoginError::Refused)
    }

    /// Checks a password, not more often than is good, and as long for a name that nobody has.
    async fn check(
        &self,
        name: &str,
        user: Option<&UserRow>,
        password: String,
        from: IpAddr,
    ) -> Result<(), LoginError> {
        let attempt = self
            .throttle
            .attempt(name, from, (self.clock)())
            .map_err(|after| LoginError::Throttled { after })?;
        let hash = user.map(|user| user.password_hash.clone());
        match self.hasher.verify(hash, password).await {
            Ok(true) => {
                self.throttle.succeeded(attempt);
                Ok(())
            }
            Ok(false) => Err(LoginError::Refused),
            Err(busy) => {
                self.throttle.withdrawn(attempt);
                Err(LoginError::Busy(busy))
            }
        }
    }

    /// Opens a session of a user whose password was shown; none when it has another one by now.
    async fn open(&self, user: UserRow, from: IpAddr) -> Result<Option<Opened>, StoreError> {
        let now = (self.clock)();
        let token = Secret::session();
        let expires_at = now + SESSION_LIFE;
        let session = SessionRow {
            hash: token.hash(),
            user: user.id,
            origin: from.to_string(),
            created_at: now,
            expires_at,
        };
        let opened = self.store.insert_session(&session, &user.password_hash);
        if !opened.await? {
            return Ok(None);
        }
        let mut others = self.store.sessions(user.id, now).await?;
        others.retain(|other| other.hash != session.hash);
        for old in others.iter().skip(SESSIONS.saturating_sub(1)) {
            self.store.end_session(&old.hash).await?;
        }
        let actor = Actor::Operator(format!("{}@{from}", user.name));
        let told = ("session.open", user.name.clone(), String::new());
        self.audit(actor, told).await?;
        Ok(Some(Opened {
            token,
            expires_at,
            user,
        }))
    }

    /// Ends a session; whether there was one.
    pub async fn end(
        &self,
        session: &[u8; 32],
        owner: &str,
        actor: Actor,
    ) -> Result<bool, StoreError> {
        let ended = self.store.end_session(session).await?;
        if ended {
            let told = ("session.end", owner.to_owned(), String::new());
            self.audit(actor, told).await?;
        }
        Ok(ended)
    }

    /// Sets a user's own password, which ends every session of it, and opens a new one.
    pub async fn change_own_password(
        &self,
        id: UserId,
        (current, new): (String, String),
        from: IpAddr,
    ) -> Result<Opened, PasswordError> {
        let user = self.store.user(id).await?.ok_or(UserError::Unknown)?;
        password::judge(&new, &user.name, Some(&current))?;
        self.check(&user.name, Some(&user), current, from)
            .await
            .map_err(PasswordError::Current)?;
        let actor = Actor::Operator(format!("{}@{from}", user.name));
        let password = NewPassword {
            hash: self.hasher.hash(new).await?,
            replaces: Some(user.password_hash),
            must_change: false,
        };
        let user = self.store_change(id, (Some(password), None), actor).await?;
        let opened = self.open(user, from).await?;
        Ok(opened.ok_or(UserError::Overtaken)?)
    }

    /// Gives a user another role, another password, or both: all that is asked for, or nothing.
    pub async fn change(
        &self,
        user: &UserRow,
        (password, role): (Option<Given>, Option<Role>),
        actor: Actor,
    ) -> Result<Set<UserRow>, PasswordError> {
        let mut one_time = None;
        let mut new = None;
        if let Some(given) = password {
            let (text, made) = first_password(given, &user.name)?;
            one_time = made;
            new = Some(NewPassword {
                hash: self.hasher.hash(text).await?,
                replaces: None,
                must_change: true,
            });
        }
        let of = self.store_change(user.id, (new, role), actor).await?;
        Ok(Set { of, one_time })
    }

    async fn store_change(
        &self,
        user: UserId,
        (password, role): (Option<NewPassword>, Option<Role>),
        actor: Actor,
    ) -> Result<UserRow, UserError> {
        let is_another = password.is_some();
        let change = UserChange {
            user,
            password,
            role,
            actor,
            now: (self.clock)(),
        };
        let user = self.store.change_user(change).await?;
        if is_another && user.name == FIRST {
            self.forget_password();
        }
        Ok(user)
    }

    /// Makes a user.
    pub async fn create(&self, new: NewUser, actor: Actor) -> Result<Set<UserRow>, PasswordError> {
        let (text, one_time) = first_password(new.password, &new.name)?;
        let hash = self.hasher.hash(text).await?;
        let now = (self.clock)();
        let user = UserRow {
            id: UserId::new(uuid_v7(now)),
            name: new.name,
            password_hash: hash,
            role: new.role,
            must_change: true,
            created_at: now,
            password_at: now,
        };
        self.store.insert_user(&user, actor).await?;
        Ok(Set { of: user, one_time })
    }

    /// Makes an API token.
    pub async fn mint(
        &self,
        new: NewToken,
        actor: Actor,
    ) -> Result<(ApiTokenRow, Secret), StoreError> {
        let secret = Secret::api_token();
        let now = (self.clock)();
        let row = ApiTokenRow {
            id: ApiTokenId::new(uuid_v7(now)),
            hash: secret.hash(),
            name: new.name,
            role: new.role,
            creator: new.creator,
            created_at: now,
            expires_at: new.life.map(|life| now + life),
            revoked_at: None,
        };
        self.store.insert_api_token(&row, actor).await?;
        Ok((row, secret))
    }

    async fn audit(
        &self,
        actor: Actor,
        (action, subject, detail): (&str, String, String),
    ) -> Result<(), StoreError> {
        let entry = AuditEntry {
            at: (self.clock)(),
            actor,
            action: action.to_owned(),
            subject,
            detail,
        };
        self.store.audit(entry).await
    }
}

/// The password that was chosen, or one that is made, which is given back too.
fn first_password(given: Given, user: &str) -> Result<(String, Option<Secret>), Weak> {
    match given {
        Given::Chosen(text) => {
            password::judge(&text, user, None)?;
            Ok((text, None))
        }
        Given::OneTime => {
            let secret = Secret::one_time_password();
            Ok((secret.expose().to_owned(), Some(secret)))
        }
    }
}

#[cfg(test)]
mod tests;
