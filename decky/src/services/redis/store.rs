//! The keys of a decky: some from the seed, and what clients write, within a bound.

use std::collections::BTreeMap;

use crate::persona::Facts;

/// Most bytes that clients may write.
pub(super) const MAX_BYTES: usize = 1024 * 1024;
/// Most keys.
const MAX_KEYS: usize = 4096;
/// Most settings that clients may change.
const MAX_SETTINGS: usize = 64;

/// Keys and settings.
pub(super) struct Store {
    values: BTreeMap<Vec<u8>, Vec<u8>>,
    settings: BTreeMap<String, String>,
    bytes: usize,
}

/// The store has no room left.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

impl Store {
    pub(super) fn new(facts: &Facts) -> Self {
        let mut values = BTreeMap::new();
        const KINDS: [&str; 6] = [
            "session",
            "cache:page",
            "queue:mail",
            "user",
            "rate",
            "lock",
        ];
        for number in 0..6 + facts.seed.pick("redis keys", 14) {
            let kind = facts
                .seed
                .choose(&format!("redis kind {number}"), &KINDS)
                .copied()
                .unwrap_or("cache");
            let key = format!("{kind}:{}", facts.hex(&format!("redis key {number}"), 12));
            let value = facts.hex(&format!("redis value {number}"), 40);
            values.insert(key.into_bytes(), value.into_bytes());
        }
        let settings = [
            ("dir", "/var/lib/redis"),
            ("dbfilename", "dump.rdb"),
            ("maxmemory", "0"),
            ("maxmemory-policy", "noeviction"),
            ("appendonly", "no"),
            ("save", "3600 1 300 100 60 10000"),
            ("port", "6379"),
            ("bind", "0.0.0.0 -::*"),
            ("protected-mode", "no"),
            ("databases", "16"),
            ("timeout", "0"),
            ("logfile", "/var/log/redis/redis-server.log"),
            ("slave-read-only", "yes"),
            ("replica-read-only", "yes"),
        ];
        let settings = settings
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
        Self {
            values,
            settings,
            bytes: 0,
        }
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<&[u8]> {
        self.values.get(key).map(Vec::as_slice)
    }

    pub(super) fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), Full> {
        let before = self
            .values
            .get(key)
            .map_or(0, |value| key.len() + value.len());
        let after = self.bytes.saturating_sub(before) + key.len() + value.len();
        if after > MAX_BYTES || (before == 0 && self.values.len() >= MAX_KEYS) {
            return Err(Full);
        }
        self.bytes = after;
        self.values.insert(key.to_vec(), value.to_vec());
        Ok(())
    }

    /// Adds to the end of a value, which begins empty; gives its length. What it has grown to
    /// is not copied: it may be long, and each addition short.
    pub(super) fn append(&mut self, key: &[u8], value: &[u8]) -> Result<usize, Full> {
        let Some(held) = self.values.get_mut(key) else {
            return self.set(key, value).map(|()| value.len());
        };
        if self.bytes + value.len() > MAX_BYTES {
            return Err(Full);
        }
        self.bytes += value.len();
        held.extend_from_slice(value);
        Ok(held.len())
    }

    pub(super) fn delete(&mut self, key: &[u8]) -> bool {
        let removed = self.values.remove(key);
        if let Some(value) = &removed {
            self.bytes = self.bytes.saturating_sub(key.len() + value.len());
        }
        removed.is_some()
    }

    pub(super) fn clear(&mut self) {
        self.values.clear();
        self.bytes = 0;
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &[u8]> {
        self.values.keys().map(Vec::as_slice)
    }

    pub(super) fn len(&self) -> usize {
        self.values.len()
    }

    pub(super) fn used(&self) -> usize {
        self.bytes
    }

    /// The settings whose names match.
    pub(super) fn settings(&self) -> impl Iterator<Item = (&str, &str)> {
        self.settings
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }

    pub(super) fn configure(&mut self, name: &str, value: &str) -> Result<(), Full> {
        if value.len() > 1024
            || (self.settings.len() >= MAX_SETTINGS && !self.settings.contains_key(name))
        {
            return Err(Full);
        }
        self.settings.insert(name.to_owned(), value.to_owned());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::persona::tests::facts;

    #[test]
    fn what_clients_write_has_a_bound_and_is_given_back_by_deletion() {
        let mut store = Store::new(&facts(1));
        let big = vec![b'x'; MAX_BYTES / 2];
        assert_eq!(store.set(b"a", &big), Ok(()));
        assert_eq!(store.set(b"b", &big), Err(Full));
        assert_eq!(
            store.set(b"a", &big),
            Ok(()),
            "a value is replaced, not added"
        );
        assert!(store.delete(b"a"));
        assert_eq!(store.set(b"b", &big), Ok(()));
    }

    #[test]
    fn a_value_grows_within_the_same_bound() {
        let mut store = Store::new(&facts(1));
        assert_eq!(store.append(b"a", b"one"), Ok(3));
        assert_eq!(store.append(b"a", b" two"), Ok(7));
        assert_eq!(store.get(b"a"), Some(&b"one two"[..]));
        assert_eq!(store.append(b"a", &vec![b'x'; MAX_BYTES]), Err(Full));
        let rest = MAX_BYTES - b"a".len() - b"one two".len();
        assert_eq!(store.append(b"a", &vec![b'x'; rest]), Ok(MAX_BYTES - 1));
        assert_eq!(store.append(b"a", b"x"), Err(Full));
    }
}
