//! Secrets that are shown once: their text, and the hash that is kept of it.
//!
//! API tokens and sessions carry 256 random bits, for which a slow hash protects nothing; passwords
//! are hashed by `password`.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

use crate::entropy::random;

/// What every API token begins with, so that a scanner of leaked secrets knows one.
pub const API_TOKEN: &str = "dca_";
/// What every session begins with.
pub const SESSION: &str = "dcs_";
/// Without those that are read for another one.
const ALPHABET: &[u8; 32] = b"abcdefghjkmnpqrstuvwxyz023456789";

/// A secret. Neither shown nor serialised but by [`Secret::expose`].
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// An API token that nobody has seen.
    pub fn api_token() -> Self {
        Self(format!(
            "{API_TOKEN}{}",
            URL_SAFE_NO_PAD.encode(random::<32>())
        ))
    }

    /// The token of a session that nobody has seen.
    pub fn session() -> Self {
        Self(format!(
            "{SESSION}{}",
            URL_SAFE_NO_PAD.encode(random::<32>())
        ))
    }

    /// A password of a hundred random bits that can be typed.
    pub fn one_time_password() -> Self {
        let letters = random::<20>().map(|byte| char::from(ALPHABET[usize::from(byte & 31)]));
        let groups: Vec<String> = letters
            .chunks(5)
            .map(|group| group.iter().collect())
            .collect();
        Self(groups.join("-"))
    }

    /// The text, for the one place that shows it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What is kept of it.
    pub fn hash(&self) -> [u8; 32] {
        hash(self.0.as_bytes())
    }
}

/// What is kept of a secret that somebody presents.
pub fn hash(text: &[u8]) -> [u8; 32] {
    Sha256::digest(text).into()
}

/// What a page must send beside the cookie of a session, which only that page can know: another
/// site can have the cookie sent, and can read neither the cookie nor this.
pub fn csrf_token(session: &[u8]) -> String {
    let digest = Sha256::new()
        .chain_update(b"decnet csrf\0")
        .chain_update(session)
        .finalize();
    URL_SAFE_NO_PAD.encode(digest)
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_long_different_and_never_printed() {
        let (token, session) = (Secret::api_token(), Secret::session());
        assert_eq!(token.expose().len(), 47);
        assert!(token.expose().starts_with("dca_"));
        assert!(session.expose().starts_with("dcs_"));
        assert_ne!(Secret::session(), session);
        assert_eq!(format!("{token:?}"), "Secret(…)");
        let password = Secret::one_time_password();
        assert_eq!(password.expose().len(), 23, "four groups of five");
        assert_ne!(Secret::one_time_password(), password);
    }

    #[test]
    fn the_csrf_token_is_none_of_what_is_stored() {
        let session = Secret::session();
        let csrf = csrf_token(session.expose().as_bytes());
        assert_ne!(csrf, URL_SAFE_NO_PAD.encode(session.hash()));
        assert_eq!(csrf, csrf_token(session.expose().as_bytes()));
    }
}
