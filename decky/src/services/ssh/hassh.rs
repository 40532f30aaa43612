//! HASSH: the digest of what a client offers in its first key exchange message.

use md5::{Digest, Md5};

/// The HASSH of a client, from the bytes that followed its identification string; none while they
/// hold no whole message.
pub(super) fn hassh(bytes: &[u8]) -> Option<String> {
    let lists = lists(bytes)?;
    // Key exchange, then from client to server: encryption, authentication, compression.
    let text = [lists[0], lists[2], lists[4], lists[6]].join(&b';');
    Some(hex::encode(Md5::digest(text)))
}

/// The ten name lists of SSH_MSG_KEXINIT (RFC 4253, section 7.1).
fn lists(bytes: &[u8]) -> Option<[&[u8]; 10]> {
    const KEXINIT: u8 = 20;
    let length = usize::try_from(u32::from_be_bytes(*bytes.first_chunk()?)).ok()?;
    let packet = bytes.get(4..4_usize.checked_add(length)?)?;
    let (padding, payload) = packet.split_first()?;
    let payload = payload.get(..payload.len().checked_sub(usize::from(*padding))?)?;
    let (KEXINIT, rest) = (*payload.first()?, payload.get(17..)?) else {
        return None;
    };
    let mut rest = rest;
    let mut lists = [&[][..]; 10];
    for list in &mut lists {
        let length = usize::try_from(u32::from_be_bytes(*rest.first_chunk()?)).ok()?;
        *list = rest.get(4..4_usize.checked_add(length)?)?;
        rest = &rest[4 + length..];
    }
    Some(lists)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(lists: [&str; 10]) -> Vec<u8> {
        let mut payload = vec![20; 17];
        for list in lists {
            payload.extend((u32::try_from(list.len()).expect("short")).to_be_bytes());
            payload.extend(list.bytes());
        }
        payload.extend([0; 5]);
        let mut packet = (u32::try_from(payload.len() + 5).expect("short"))
            .to_be_bytes()
            .to_vec();
        packet.push(4);
        packet.extend(payload);
        packet.extend([0; 4]);
        packet
    }

    #[test]
    fn the_digest_is_over_the_four_lists_of_the_client() {
        let packet = message(["k1,k2", "h", "e1", "E2", "m1", "M2", "none", "zlib", "", ""]);
        assert_eq!(
            hassh(&packet),
            Some(hex::encode(Md5::digest(b"k1,k2;e1;m1;none")))
        );
        assert_eq!(hassh(&packet[..40]), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            hassh(&bytes);
        }
    }
}
