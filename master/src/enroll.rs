//! Enrollment: join tokens are minted and redeemed, certificates issued and renewed.
//!
//! What a host shows of itself in a CSR is not believed: only its public key is taken. The cause
//! of a refusal goes to the audit log; the caller gets one answer for all of them.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use domain::id::{HostId, TokenId};
use domain::name::HostName;
use pki::acceptor::HostPeer;
use pki::ca::{CertificateAuthority, IssueError};
use pki::token::{EncodedToken, JoinToken, Secret};
use time::OffsetDateTime;

use crate::clock::Clock;
use crate::crash;
use crate::db::{Actor, RedeemError, Redemption, Store, StoreError, TokenRow};
use crate::entropy::{random, uuid_v7};
use crate::fleet::Fleet;

/// Longest life of a join token.
pub const MAX_TTL: Duration = Duration::from_secs(24 * 60 * 60);

/// Redemptions that one address may try in [`WINDOW`].
const TRIES: u32 = 20;
const WINDOW: time::Duration = time::Duration::seconds(10);
/// Addresses whose tries are counted at a time.
const ADDRESSES: usize = 4096;

/// A token that was just made.
pub struct Minted {
    /// The token, to be shown once.
    pub token: EncodedToken,
    /// Its public part.
    pub id: TokenId,
    /// Until when it can be redeemed.
    pub expires_at: OffsetDateTime,
    /// What the host dials.
    pub master_url: String,
}

/// Why no token was made.
#[derive(Debug, thiserror::Error)]
pub enum MintError {
    /// A life of nothing, or longer than a day.
    #[error("a join token lives from 1 second to 24 hours")]
    Ttl,
    /// A living host has the name.
    #[error("a host named {0} exists")]
    NameTaken(HostName),
    /// The store failed.
    #[error("join token could not be stored")]
    Store(#[source] StoreError),
}

/// Why a host did not get a certificate.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// Unknown, used, expired or misnamed: the caller learns nothing more.
    #[error("token not accepted; ask for a new one")]
    Refused,
    /// Too many tries from one address.
    #[error("too many attempts; wait ten seconds")]
    TooMany,
    /// The CSR cannot be signed.
    #[error("certificate request is not acceptable")]
    Request(#[source] IssueError),
    /// The host may do nothing any more.
    #[error("host is not allowed")]
    NotAllowed,
    /// The store failed.
    #[error("enrollment could not be stored")]
    Store(#[source] StoreError),
}

/// A certificate for a host, with what it needs beside it.
#[derive(Debug)]
pub struct Issued {
    /// DER.
    pub certificate: Vec<u8>,
    /// DER, every root to trust.
    pub ca: Vec<Vec<u8>>,
    /// The host's name.
    pub name: String,
    /// The master's clock.
    pub now: OffsetDateTime,
}

/// Mints and redeems tokens, issues and renews certificates.
pub struct Enroll {
    store: Arc<dyn Store>,
    authority: Arc<CertificateAuthority>,
    fleet: Arc<Fleet>,
    clock: Clock,
    /// How long a certificate of a host lives.
    life: Duration,
    master_url: String,
    tries: Mutex<HashMap<IpAddr, (OffsetDateTime, u32)>>,
}

impl Enroll {
    /// Enrollment for the given authority; hosts are told to dial `master_url`.
    pub fn new(
        store: Arc<dyn Store>,
        authority: Arc<CertificateAuthority>,
        fleet: Arc<Fleet>,
        clock: Clock,
        life: Duration,
        master_url: String,
    ) -> Self {
        Self {
            store,
            authority,
            fleet,
            clock,
            life,
            master_url,
            tries: Mutex::default(),
        }
    }

    /// What hosts are told to dial.
    pub fn master_url(&self) -> &str {
        &self.master_url
    }

    /// The pin of the CA that every token carries, as hexadecimal digits.
    pub fn pin(&self) -> String {
        self.authority.pin().to_string()
    }

    /// Makes a token for one host of one name.
    pub async fn mint(
        &self,
        name: HostName,
        ttl: Duration,
        creator: String,
    ) -> Result<Minted, MintError> {
        if ttl.is_zero() || ttl > MAX_TTL {
            return Err(MintError::Ttl);
        }
        let hosts = self.store.hosts(false).await.map_err(MintError::Store)?;
        if hosts.iter().any(|host| host.name.folded() == name.folded()) {
            return Err(MintError::NameTaken(name));
        }
        let now = (self.clock)();
        let id = TokenId::new(uuid_v7(now));
        let token = JoinToken::mint(id, random(), self.authority.pin());
        let expires_at = now + ttl;
        let row = TokenRow {
            id,
            secret_hash: token.secret_hash(),
            name,
            created_at: now,
            expires_at,
            creator,
            redeemed_by: None,
        };
        self.store
            .insert_token(row)
            .await
            .map_err(MintError::Store)?;
        Ok(Minted {
            token: token.encode(),
            id,
            expires_at,
            master_url: self.master_url.clone(),
        })
    }

    /// Redeems a token for a certificate of the key in `csr`. The same token with the same key
    /// gives the same certificate again, so that a lost reply is safe.
    pub async fn join(&self, from: IpAddr, join: Join<'_>) -> Result<Issued, JoinError> {
        let now = (self.clock)();
        self.count_try(from, now)?;
        let tentative = HostId::new(uuid_v7(now));
        let leaf = self
            .authority
            .issue_host(join.csr, tentative, self.life, now)
            .map_err(JoinError::Request)?;
        let redemption = Redemption {
            token: join.token,
            secret_hash: join.secret.hash(),
            expected_name: Some(join.expected_name.to_owned()).filter(|name| !name.is_empty()),
            host: tentative,
            key: leaf.key,
            agent_version: join.agent_version.chars().take(64).collect(),
            now,
        };
        let redeemed = self
            .store
            .redeem(redemption)
            .await
            .map_err(|error| match error {
                RedeemError::Refused(cause) => {
                    tracing::warn!(peer.addr = %from, ?cause, "join token refused");
                    JoinError::Refused
                }
                RedeemError::Store(source) => JoinError::Store(source),
            })?;
        crash::point("enroll.redeemed");
        let certificate = match redeemed.certificate {
            Some(certificate) => certificate,
            None => {
                let leaf = if redeemed.host == tentative {
                    leaf
                } else {
                    // The first redemption ended before its certificate was kept.
                    self.authority
                        .issue_host(join.csr, redeemed.host, self.life, now)
                        .map_err(JoinError::Request)?
                };
                self.store
                    .keep_certificate(join.token, &leaf.certificate_der)
                    .await
                    .map_err(JoinError::Store)?;
                crash::point("enroll.kept");
                leaf.certificate_der
            }
        };
        self.fleet
            .reload_allow_list()
            .await
            .map_err(JoinError::Store)?;
        tracing::info!(host.id = %redeemed.host, host.name = %redeemed.name, "host enrolled");
        Ok(Issued {
            certificate,
            ca: self.authority.bundle().der_list(),
            name: redeemed.name.to_string(),
            now,
        })
    }

    /// Issues a certificate for a new key of a host that has proved its present one.
    pub async fn renew(&self, peer: &HostPeer, csr: &[u8]) -> Result<Issued, JoinError> {
        let now = (self.clock)();
        let host = self.store.host(peer.id).await.map_err(JoinError::Store)?;
        let host = host.ok_or(JoinError::NotAllowed)?;
        let leaf = self
            .authority
            .issue_host(csr, peer.id, self.life, now)
            .map_err(JoinError::Request)?;
        // Every key but the one that asks and the one that it asks for is forgotten: a key that
        // was copied off the host long ago must not stay good for ever.
        self.store
            .add_key(peer.id, leaf.key, peer.key, now, now)
            .await
            .map_err(JoinError::Store)?;
        self.fleet
            .reload_allow_list()
            .await
            .map_err(JoinError::Store)?;
        tracing::info!(host.id = %peer.id, not_after = %leaf.not_after, "certificate renewed");
        Ok(Issued {
            certificate: leaf.certificate_der,
            ca: self.authority.bundle().der_list(),
            name: host.name.to_string(),
            now,
        })
    }

    fn count_try(&self, from: IpAddr, now: OffsetDateTime) -> Result<(), JoinError> {
        let mut tries = self.tries.lock().unwrap_or_else(PoisonError::into_inner);
        tries.retain(|_, (since, _)| now - *since < WINDOW);
        if tries.len() >= ADDRESSES && !tries.contains_key(&from) {
            return Err(JoinError::TooMany);
        }
        let (_, count) = tries.entry(from).or_insert((now, 0));
        *count += 1;
        if *count > TRIES {
            Err(JoinError::TooMany)
        } else {
            Ok(())
        }
    }
}

/// What a host presents to join.
pub struct Join<'a> {
    /// The token's public part.
    pub token: TokenId,
    /// The token's secret.
    pub secret: &'a Secret,
    /// PKCS #10, DER.
    pub csr: &'a [u8],
    /// The name that it expects, or empty.
    pub expected_name: &'a str,
    /// The release of its agent.
    pub agent_version: &'a str,
}

/// Who asked, for rows that an operator's request writes.
pub fn operator(name: &str) -> Actor {
    Actor::Operator(name.to_owned())
}
