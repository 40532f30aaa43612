//! Host keys from the seed: the same after each restart, others on every decky.
//!
//! There is no RSA key: to find its primes takes seconds of a decky's small share of a processor.

use std::convert::Infallible;

use domain::seed::Seed;
use russh::keys::ssh_key::private::{EcdsaKeypair, Ed25519Keypair};
use russh::keys::ssh_key::rand_core::{TryCryptoRng, TryRng};
use russh::keys::{EcdsaCurve, PrivateKey};

/// The host keys of a machine.
pub(super) fn host_keys(seed: &Seed) -> Result<Vec<PrivateKey>, russh::keys::ssh_key::Error> {
    let ed25519 = Ed25519Keypair::from_seed(&seed.derive("ssh host key ed25519"));
    let mut stream = Stream {
        seed: *seed,
        block: 0,
    };
    let ecdsa = EcdsaKeypair::random(&mut stream, EcdsaCurve::NistP256)?;
    Ok(vec![PrivateKey::from(ecdsa), PrivateKey::from(ed25519)])
}

/// Bytes from a seed, as many as are asked for.
struct Stream {
    seed: Seed,
    block: u64,
}

impl TryRng for Stream {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        for chunk in bytes.chunks_mut(32) {
            let block = self
                .seed
                .derive(&format!("ssh host key ecdsa {}", self.block));
            self.block += 1;
            chunk.copy_from_slice(&block[..chunk.len()]);
        }
        Ok(())
    }
}

impl TryCryptoRng for Stream {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_keeps_the_host_keys_and_two_seeds_differ() {
        let keys = |byte| {
            host_keys(&Seed::new([byte; 32]))
                .expect("the curve is built in")
                .iter()
                .map(|key| {
                    key.public_key()
                        .to_openssh()
                        .expect("a key has a text form")
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(keys(1), keys(1));
        let (one, two) = (keys(1), keys(2));
        assert_eq!(one.len(), 2);
        assert!(one.iter().all(|key| !two.contains(key)));
    }
}
