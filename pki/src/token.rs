//! The join token: what an operator carries from the master to a new host, once.
//!
//! Whether a token is known, unused and unexpired is the master's business, not this file's.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use domain::id::TokenId;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use uuid::Uuid;
use zeroize::{Zeroize, Zeroizing};

use crate::fingerprint::SpkiPin;

#[cfg(test)]
mod tests;

/// What every token begins with; the digit is the version of what follows.
const PREFIX: &str = "dcn1_";
const ID: usize = 16;
const SECRET: usize = 16;
const PIN: usize = 32;
const CHECKSUM: usize = 4;
const BODY: usize = ID + SECRET + PIN;
/// 68 bytes in base64 without padding.
const TEXT: usize = 91;
/// Keeps the checksum from ever being the digest of something else.
const DOMAIN: &[u8] = b"decnet join token v1\0";

/// The secret half of a token. Compared in constant time, wiped when dropped.
#[derive(Clone)]
pub struct Secret([u8; SECRET]);

/// A token: who it is for is known to the master under its id; the pin tells the host whom to
/// trust before it says a word.
#[derive(Debug, Clone)]
pub struct JoinToken {
    id: TokenId,
    secret: Secret,
    pin: SpkiPin,
}

/// The text form of a token: shown once, wiped when dropped.
pub struct EncodedToken(Zeroizing<String>);

/// Why a text is no token. None of these contains any of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidToken {
    /// It begins with something else.
    #[error("a join token begins with {PREFIX}")]
    Prefix,
    /// It begins like a token of another version.
    #[error("this join token has a version that this program does not know")]
    Version,
    /// Letters are missing or added.
    #[error("a join token has {} characters and this has {found}", PREFIX.len() + TEXT)]
    Length {
        /// How many there are.
        found: usize,
    },
    /// It has a character that no token has.
    #[error("this join token has characters that no token has")]
    Characters,
    /// Everything looks right but the checksum.
    #[error("this join token was mistyped or cut short")]
    Checksum,
}

/// Whether two hashes of secrets are the same, in a time that tells nothing.
pub fn same_hash(left: &[u8; 32], right: &[u8; 32]) -> bool {
    left.ct_eq(right).into()
}

// === impl JoinToken ===

impl JoinToken {
    /// Makes a token of 16 random bytes.
    pub const fn mint(id: TokenId, random: [u8; SECRET], pin: SpkiPin) -> Self {
        Self {
            id,
            secret: Secret(random),
            pin,
        }
    }

    /// The public part: safe to log and to look up by.
    pub const fn id(&self) -> TokenId {
        self.id
    }

    /// The part that proves possession. Goes to the master after the pin has matched.
    pub const fn secret(&self) -> &Secret {
        &self.secret
    }

    /// The key that the master's CA must have.
    pub const fn pin(&self) -> SpkiPin {
        self.pin
    }

    /// What the master stores instead of the secret.
    pub fn secret_hash(&self) -> [u8; 32] {
        self.secret.hash()
    }

    /// The text to show to the operator.
    pub fn encode(&self) -> EncodedToken {
        let mut bytes = Zeroizing::new(Vec::with_capacity(BODY + CHECKSUM));
        bytes.extend_from_slice(self.id.uuid().as_bytes());
        bytes.extend_from_slice(&self.secret.0);
        bytes.extend_from_slice(self.pin.as_bytes());
        let checksum = checksum(&bytes);
        bytes.extend_from_slice(&checksum);
        let mut text = Zeroizing::new(String::with_capacity(PREFIX.len() + TEXT));
        text.push_str(PREFIX);
        URL_SAFE_NO_PAD.encode_string(&*bytes, &mut text);
        EncodedToken(text)
    }

    /// Reads a token. White space around it (the newline of standard input) is not part of it.
    pub fn parse(text: &str) -> Result<Self, InvalidToken> {
        let text = text.trim();
        let Some(body) = text.strip_prefix(PREFIX) else {
            return Err(other_version(text));
        };
        if !body
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        {
            return Err(InvalidToken::Characters);
        }
        if body.len() != TEXT {
            return Err(InvalidToken::Length { found: text.len() });
        }
        // Here only stray bits after the last byte are left to be wrong.
        let bytes = Zeroizing::new(
            URL_SAFE_NO_PAD
                .decode(body)
                .map_err(|_| InvalidToken::Checksum)?,
        );
        let (body, given) = bytes
            .split_last_chunk::<CHECKSUM>()
            .ok_or(InvalidToken::Checksum)?;
        if checksum(body) != *given {
            return Err(InvalidToken::Checksum);
        }
        let (id, rest) = body
            .split_first_chunk::<ID>()
            .ok_or(InvalidToken::Checksum)?;
        let (secret, pin) = rest
            .split_first_chunk::<SECRET>()
            .ok_or(InvalidToken::Checksum)?;
        let pin = <[u8; PIN]>::try_from(pin).map_err(|_| InvalidToken::Checksum)?;
        Ok(Self {
            id: TokenId::new(Uuid::from_bytes(*id)),
            secret: Secret(*secret),
            pin: SpkiPin::from_bytes(pin),
        })
    }
}

// === impl Secret ===

impl Secret {
    /// Reads a secret from the wire; `None` if it has another length.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The secret itself, for the request that redeems it and for nothing else.
    pub const fn expose(&self) -> &[u8; SECRET] {
        &self.0
    }

    /// SHA-256: with 128 random bits there is nothing that a slow hash would protect.
    pub fn hash(&self) -> [u8; 32] {
        Sha256::digest(self.0).into()
    }

    /// Whether this is the secret behind a stored hash, in constant time.
    pub fn matches(&self, stored: &[u8; 32]) -> bool {
        same_hash(&self.hash(), stored)
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

// === impl EncodedToken ===

impl EncodedToken {
    /// The text, for the one place that shows it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for EncodedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EncodedToken(…)")
    }
}

fn checksum(body: &[u8]) -> [u8; CHECKSUM] {
    let digest: [u8; 32] = Sha256::new()
        .chain_update(DOMAIN)
        .chain_update(body)
        .finalize()
        .into();
    [digest[0], digest[1], digest[2], digest[3]]
}

fn other_version(text: &str) -> InvalidToken {
    let digits = text
        .strip_prefix("dcn")
        .and_then(|rest| rest.split_once('_'))
        .map(|(version, _)| version);
    match digits {
        Some(version) if !version.is_empty() && version.bytes().all(|b| b.is_ascii_digit()) => {
            InvalidToken::Version
        }
        Some(_) | None => InvalidToken::Prefix,
    }
}
