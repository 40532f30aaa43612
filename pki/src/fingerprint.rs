//! Short names of keys and certificates: the fingerprint of a key, the pin of a CA, a serial.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};

/// A text that is not the hexadecimal form of the wanted thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a {noun} ({digits} hexadecimal digits)")]
pub struct InvalidHex {
    noun: &'static str,
    digits: usize,
}

macro_rules! hex_bytes {
    ($(#[$doc:meta])* $name:ident, $size:literal, $noun:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $size]);

        impl $name {
            /// Wraps bytes that were stored or sent before.
            pub const fn from_bytes(bytes: [u8; $size]) -> Self {
                Self(bytes)
            }

            /// The bytes themselves.
            pub const fn as_bytes(&self) -> &[u8; $size] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($noun, ":{}"), self)
            }
        }

        impl FromStr for $name {
            type Err = InvalidHex;

            fn from_str(text: &str) -> Result<Self, InvalidHex> {
                let mut bytes = [0; $size];
                hex::decode_to_slice(text, &mut bytes)
                    .map_err(|_| InvalidHex { noun: $noun, digits: $size * 2 })?;
                Ok(Self(bytes))
            }
        }
    };
}

hex_bytes!(
    /// SHA-256 of a public key (its SubjectPublicKeyInfo in DER): what the allow-list holds.
    KeyFingerprint, 32, "key fingerprint"
);
hex_bytes!(
    /// SHA-256 of a certificate authority's public key (its SubjectPublicKeyInfo in DER): what a
    /// join token carries. The key and not the certificate, so that a CA certificate can be
    /// reissued without voiding the tokens that are under way.
    SpkiPin, 32, "CA pin"
);
hex_bytes!(
    /// The serial number of a certificate that our CA issued: always 16 bytes, positive.
    Serial, 16, "certificate serial"
);

impl KeyFingerprint {
    /// The fingerprint of a SubjectPublicKeyInfo in DER.
    pub fn of_spki(der: &[u8]) -> Self {
        Self(Sha256::digest(der).into())
    }
}

impl SpkiPin {
    /// The pin of a SubjectPublicKeyInfo in DER.
    pub fn of_spki(der: &[u8]) -> Self {
        Self(Sha256::digest(der).into())
    }
}

impl Serial {
    /// Makes a serial of random bytes. The first two bits are set to 01: DER integers are signed,
    /// and a leading zero byte would be dropped, so only this form has one length.
    pub(crate) const fn from_random(mut random: [u8; 16]) -> Self {
        random[0] = (random[0] & 0x3f) | 0x40;
        Self(random)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_reads_back_from_its_text() {
        let key = KeyFingerprint::of_spki(b"some key");
        assert_eq!(key.to_string().parse(), Ok(key));
    }

    #[test]
    fn refuses_hex_of_the_wrong_length() {
        let expected = InvalidHex {
            noun: "CA pin",
            digits: 64,
        };
        assert_eq!("abcd".parse::<SpkiPin>(), Err(expected));
        assert_eq!("g".repeat(64).parse::<SpkiPin>(), Err(expected));
    }

    #[test]
    fn a_serial_is_positive_and_has_no_leading_zero_byte() {
        for byte in 0..=u8::MAX {
            let first = Serial::from_random([byte; 16]).as_bytes()[0];
            assert!((0x40..0x80).contains(&first), "{first:#x}");
        }
    }
}
