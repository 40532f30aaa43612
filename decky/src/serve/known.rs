//! Remembers which first segment each source has last shown to a service, so that a flood of alike
//! connections is not twice as many lines.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

/// Most sources that are remembered: one is told anew when it was forgotten.
const MOST: usize = 1024;

/// The last signature of each source.
#[derive(Default)]
pub(super) struct Known(Mutex<HashMap<IpAddr, String>>);

impl Known {
    /// Whether this is another signature than the source has shown before. Remembers it.
    pub(super) fn is_new(&self, source: IpAddr, signature: &str) -> bool {
        // A map is whole whatever panicked elsewhere.
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.get(&source).is_some_and(|last| last == signature) {
            return false;
        }
        if known.len() >= MOST && !known.contains_key(&source) {
            known.clear();
        }
        known.insert(source, signature.to_owned());
        true
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn a_source_is_told_once_for_each_face_that_it_shows() {
        let known = Known::default();
        let (one, two) = (
            IpAddr::from(Ipv4Addr::new(192, 0, 2, 1)),
            IpAddr::from(Ipv4Addr::new(192, 0, 2, 2)),
        );
        assert!(known.is_new(one, "linux") && known.is_new(two, "linux"));
        assert!(!known.is_new(one, "linux") && !known.is_new(two, "linux"));
        assert!(known.is_new(one, "nmap") && known.is_new(one, "linux"));
    }

    #[test]
    fn it_does_not_grow_with_the_number_of_sources() {
        let known = Known::default();
        for number in 0..10_000_u32 {
            assert!(known.is_new(Ipv4Addr::from_bits(number).into(), "x"));
        }
        let held = known.0.lock().expect("nothing panics here").len();
        assert!(held <= MOST, "{held}");
    }
}
