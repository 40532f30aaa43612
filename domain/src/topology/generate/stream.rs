//! The one stream of random numbers of a generated topology.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore as _, SeedableRng as _};
use sha2::{Digest as _, Sha256};

use super::Probability;
use crate::seed::Seed;

pub(super) struct Stream(ChaCha8Rng);

impl Stream {
    pub(super) fn keyed(seed: u64) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"decnet generator v1\0");
        hash.update(seed.to_be_bytes());
        Self(ChaCha8Rng::from_seed(hash.finalize().into()))
    }

    /// A number below `bound`, each as likely; 0 when `bound` is 0. Takes words of 32 bits until
    /// one lies below the largest multiple of `bound`, so that no remainder is favoured.
    pub(super) fn below(&mut self, bound: u32) -> u32 {
        if bound == 0 {
            return 0;
        }
        let bound = u64::from(bound);
        let end = (1_u64 << 32) / bound * bound;
        loop {
            let word = u64::from(self.0.next_u32());
            if word < end {
                return u32::try_from(word % bound).unwrap_or(0);
            }
        }
    }

    /// An index of a list of this length.
    pub(super) fn index(&mut self, length: usize) -> usize {
        let bound = u32::try_from(length).unwrap_or(u32::MAX);
        usize::try_from(self.below(bound)).unwrap_or(0)
    }

    pub(super) fn chance(&mut self, probability: Probability) -> bool {
        self.below(Probability::ALWAYS.millionths()) < probability.millionths()
    }

    pub(super) fn seed(&mut self) -> Seed {
        let mut bytes = [0; 32];
        self.0.fill_bytes(&mut bytes);
        Seed::new(bytes)
    }
}
