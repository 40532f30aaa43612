//! Passwords: hashed slowly, a few at a time, and not too easy.

use std::sync::{Arc, OnceLock};

use argon2::password_hash::phc;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use argon2::{Algorithm, Argon2, Params, Version};
use tokio::sync::Semaphore;

use crate::db::accounts::PasswordHash;
use crate::entropy::random;

/// Memory of one hash in KiB, passes and lanes: what OWASP names for argon2id.
const MEMORY: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;
/// Hashes at a time: each takes a core and 19 MiB.
const AT_A_TIME: usize = 2;
/// Those that wait for it beside.
const WAITING: usize = 32;
/// Shortest and longest password, in characters and bytes.
const SHORTEST: usize = 12;
const LONGEST: usize = 256;

/// Why a password is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Weak {
    /// Too short.
    #[error("a password has at least {SHORTEST} characters")]
    Short,
    /// Too long.
    #[error("a password has at most {LONGEST} bytes")]
    Long,
    /// A few characters over and over.
    #[error("a password has at least five different characters")]
    Monotone,
    /// It is the user's name, more or less.
    #[error("a password does not hold the name of its user")]
    Name,
    /// It is the old one.
    #[error("the new password is the old one")]
    Same,
}

/// Too many passwords are being checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many passwords are being checked")]
pub struct Busy;

/// Whether a password is good enough. Length counts, not the kinds of characters: rules about those
/// make passwords that are written down.
pub fn judge(new: &str, user: &str, old: Option<&str>) -> Result<(), Weak> {
    if new.len() > LONGEST {
        return Err(Weak::Long);
    }
    if new.chars().count() < SHORTEST {
        return Err(Weak::Short);
    }
    let different: std::collections::BTreeSet<char> = new.chars().collect();
    if different.len() < 5 {
        return Err(Weak::Monotone);
    }
    if user.len() > 3 && new.to_lowercase().contains(&user.to_lowercase()) {
        return Err(Weak::Name);
    }
    if old == Some(new) {
        return Err(Weak::Same);
    }
    Ok(())
}

/// Hashes and checks passwords, away from the threads that serve.
pub struct Hasher {
    places: Arc<Semaphore>,
    queue: Arc<Semaphore>,
    /// The hash that the password of an unknown user is checked against, so that it takes as long.
    decoy: Arc<OnceLock<PasswordHash>>,
}

impl Default for Hasher {
    fn default() -> Self {
        Self {
            places: Arc::new(Semaphore::new(AT_A_TIME)),
            queue: Arc::new(Semaphore::new(AT_A_TIME + WAITING)),
            decoy: Arc::default(),
        }
    }
}

impl Hasher {
    /// The hash of a password.
    pub async fn hash(&self, password: String) -> Result<PasswordHash, Busy> {
        self.run(move || hash(&password)).await
    }

    /// Whether a password is the one of a hash; without a hash, takes as long to say no.
    pub async fn verify(
        &self,
        stored: Option<PasswordHash>,
        password: String,
    ) -> Result<bool, Busy> {
        let decoy = Arc::clone(&self.decoy);
        self.run(move || match stored {
            Some(stored) => verify(&stored, &password),
            None => {
                let decoy = decoy.get_or_init(|| hash(&hex::encode(random::<16>())));
                std::hint::black_box(verify(decoy, &password));
                false
            }
        })
        .await
    }

    /// Takes every place, so that whoever comes waits until they are dropped.
    #[cfg(test)]
    pub(super) async fn held(&self) -> tokio::sync::OwnedSemaphorePermit {
        let places = u32::try_from(AT_A_TIME).expect("a few");
        let held = Arc::clone(&self.places).acquire_many_owned(places).await;
        held.expect("it is never closed")
    }

    /// How many wait for a place, or have one.
    #[cfg(test)]
    pub(super) fn queued(&self) -> usize {
        AT_A_TIME + WAITING - self.queue.available_permits()
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Busy> {
        let queued = Arc::clone(&self.queue)
            .try_acquire_owned()
            .map_err(|_| Busy)?;
        let place = Arc::clone(&self.places)
            .acquire_owned()
            .await
            .map_err(|_| Busy)?;
        // The places go with the work: whoever asked and left has not freed its core.
        tokio::task::spawn_blocking(move || {
            let done = work();
            drop((place, queued));
            done
        })
        .await
        .map_err(|_| Busy)
    }
}

fn argon() -> Argon2<'static> {
    let params = Params::new(MEMORY, PASSES, LANES, None)
        .expect("the parameters are within what argon2 takes");
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
}

fn hash(password: &str) -> PasswordHash {
    let hash: phc::PasswordHash = argon()
        .hash_password_with_salt(password.as_bytes(), &random::<16>())
        .expect("a password of bounded length and a salt of 16 bytes can be hashed");
    PasswordHash::new(hash.to_string())
}

fn verify(stored: &PasswordHash, password: &str) -> bool {
    let Ok(parsed) = phc::PasswordHash::new(stored.expose()) else {
        tracing::error!("a stored password hash is malformed");
        return false;
    };
    argon()
        .verify_password(password.as_bytes(), &parsed)
        .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_password_is_known_by_its_hash_alone() {
        let hasher = Hasher::default();
        let stored = hasher.hash("correct horse".to_owned()).await.expect("room");
        assert!(
            stored
                .expose()
                .starts_with("$argon2id$v=19$m=19456,t=2,p=1$")
        );
        let verify = |stored: &PasswordHash, text: &str| {
            hasher.verify(Some(stored.clone()), text.to_owned())
        };
        assert_eq!(verify(&stored, "correct horse").await, Ok(true));
        assert_eq!(verify(&stored, "correct horsf").await, Ok(false));
        let torn = PasswordHash::new("$argon2id$".to_owned());
        assert_eq!(verify(&torn, "correct horse").await, Ok(false));
        assert_eq!(hasher.verify(None, "any".to_owned()).await, Ok(false));
        let again = hasher.hash("correct horse".to_owned()).await.expect("room");
        assert_ne!(again, stored, "each has a salt of its own");
    }

    #[tokio::test]
    async fn no_more_wait_than_have_a_place_in_the_queue() {
        let hasher = Hasher {
            queue: Arc::new(Semaphore::new(1)),
            ..Hasher::default()
        };
        let held = Arc::clone(&hasher.queue)
            .try_acquire_owned()
            .expect("it is free");
        assert_eq!(hasher.hash("a".to_owned()).await, Err(Busy));
        drop(held);
        assert!(hasher.hash("a".to_owned()).await.is_ok());
    }

    #[test]
    fn easy_passwords_are_refused_with_the_reason() {
        let cases = [
            ("short", Err(Weak::Short)),
            ("ab1ab1ab1ab1", Err(Weak::Monotone)),
            ("xAlicexAlicex", Err(Weak::Name)),
            ("the old password", Err(Weak::Same)),
            ("correct horse battery", Ok(())),
            ("пароль-длинный", Ok(())),
        ];
        for (text, verdict) in cases {
            assert_eq!(
                judge(text, "alice", Some("the old password")),
                verdict,
                "{text}"
            );
        }
        assert_eq!(judge(&"abcdef".repeat(50), "alice", None), Err(Weak::Long));
    }
}
