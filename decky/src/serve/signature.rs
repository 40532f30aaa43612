//! Describes the first segment of a connection in the text form of p0f 3, by which the client's
//! operating system can be told: `4:63+1:0:1460:mss*44,7:mss,sok,ts,nop,ws:df,id+:0`.
//!
//! The fields are: IP version, TTL and the hops that it seems to have come, length of the IP
//! options, MSS, window (as a multiple where it is one) and its scale, order of the TCP options,
//! oddities, payload. What matches which system is not decided here.

use std::fmt::Write as _;

/// The least sum of both headers, by IP version.
const HEADERS_4: u32 = 40;
const HEADERS_6: u32 = 60;
/// Hops beyond which a guess of the distance is none.
const MAX_HOPS: u8 = 35;
/// IPv6 extension headers that are looked through.
const MAX_EXTENSIONS: usize = 8;
const TCP: u8 = 6;
/// The words for oddities, in the order in which they are written.
const ODDITIES: [&str; 17] = [
    "df", "id+", "id-", "ecn", "0+", "flow", "seq-", "ack+", "ack-", "uptr+", "urgf+", "pushf+",
    "ts1-", "ts2+", "opt+", "exws", "bad",
];

/// Flags of a TCP header.
mod flag {
    pub(super) const PSH: u8 = 0x08;
    pub(super) const ACK: u8 = 0x10;
    pub(super) const URG: u8 = 0x20;
    pub(super) const ECE: u8 = 0x40;
    pub(super) const CWR: u8 = 0x80;
}

/// What the IP header says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Ip {
    version: u8,
    ttl: u8,
    /// Length of its options or extensions.
    options: usize,
    /// What should follow it, by its own word.
    payload: usize,
    oddities: Vec<&'static str>,
}

/// What the TCP options say.
#[derive(Debug, Default, PartialEq, Eq)]
struct Options {
    layout: Vec<String>,
    mss: u16,
    scale: u8,
    stamped: bool,
    oddities: Vec<&'static str>,
}

/// The signature of the headers of a SYN; none when they are not headers of IP and TCP.
pub(super) fn signature(headers: &[u8]) -> Option<String> {
    let (ip, tcp) = match headers.first()? >> 4 {
        4 => ipv4(headers)?,
        6 => ipv6(headers)?,
        _ => return None,
    };
    let (fixed, rest) = tcp.split_first_chunk::<20>()?;
    let length = usize::from(fixed[12] >> 4) * 4;
    let options = options(rest.get(..length.checked_sub(20)?)?);
    let window = u16::from_be_bytes([fixed[14], fixed[15]]);

    let mut text = format!("{}:{}", ip.version, ip.ttl);
    let hops = hops(ip.ttl);
    // Writing into a string cannot fail.
    if hops > MAX_HOPS {
        text.push_str("+?");
    } else {
        write!(text, "+{hops}").ok();
    }
    write!(text, ":{}:{}:", ip.options, options.mss).ok();
    match multiple(window, &options, ip.version) {
        Some((unit, times)) => write!(text, "{unit}*{times}").ok(),
        None => write!(text, "{window}").ok(),
    };
    let mut found = ip.oddities;
    found.extend(header_oddities(fixed));
    found.extend(&options.oddities);
    let oddities: Vec<&str> = ODDITIES
        .into_iter()
        .filter(|word| found.contains(word))
        .collect();
    let payload = if ip.payload > length { "+" } else { "0" };
    write!(
        text,
        ",{}:{}:{}:{payload}",
        options.scale,
        options.layout.join(","),
        oddities.join(",")
    )
    .ok();
    Some(text)
}

fn ipv4(headers: &[u8]) -> Option<(Ip, &[u8])> {
    let fixed = headers.first_chunk::<20>()?;
    let length = usize::from(fixed[0] & 0x0f) * 4;
    let options = length.checked_sub(20)?;
    if fixed[9] != TCP {
        return None;
    }
    let total = usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
    let id = u16::from_be_bytes([fixed[4], fixed[5]]);
    let mut oddities = Vec::new();
    match (fixed[6] & 0x40 != 0, id) {
        (true, 0) => oddities.push("df"),
        (true, _) => oddities.extend(["df", "id+"]),
        (false, 0) => oddities.push("id-"),
        (false, _) => {}
    }
    if fixed[1] & 0x03 != 0 {
        oddities.push("ecn");
    }
    if fixed[6] & 0x80 != 0 {
        oddities.push("0+");
    }
    let ip = Ip {
        version: 4,
        ttl: fixed[8],
        options,
        payload: total.saturating_sub(length),
        oddities,
    };
    Some((ip, headers.get(length..)?))
}

fn ipv6(headers: &[u8]) -> Option<(Ip, &[u8])> {
    let (fixed, mut rest) = headers.split_first_chunk::<40>()?;
    let payload = usize::from(u16::from_be_bytes([fixed[4], fixed[5]]));
    let mut next = fixed[6];
    let mut options = 0_usize;
    for _ in 0..MAX_EXTENSIONS {
        if next == TCP {
            break;
        }
        let head = rest.first_chunk::<8>()?;
        let length = match next {
            // Hop by hop, routing, for the destination: in units of 8 behind the first.
            0 | 43 | 60 => (usize::from(head[1]) + 1) * 8,
            // A fragment's.
            44 => 8,
            _ => return None,
        };
        next = head[0];
        rest = rest.get(length..)?;
        options += length;
    }
    if next != TCP {
        return None;
    }
    let mut oddities = Vec::new();
    if fixed[1] & 0x30 != 0 {
        oddities.push("ecn");
    }
    if fixed[1] & 0x0f != 0 || fixed[2] != 0 || fixed[3] != 0 {
        oddities.push("flow");
    }
    let ip = Ip {
        version: 6,
        ttl: fixed[7],
        options,
        payload: payload.saturating_sub(options),
        oddities,
    };
    Some((ip, rest))
}

/// Oddities of the fixed part of a TCP header.
fn header_oddities(fixed: &[u8; 20]) -> Vec<&'static str> {
    let word =
        |at: usize| u32::from_be_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]]);
    let (sequence, acknowledged) = (word(4), word(8));
    let urgent = u16::from_be_bytes([fixed[18], fixed[19]]);
    let has = |which: u8| fixed[13] & which != 0;
    let mut oddities = Vec::new();
    if has(flag::ECE | flag::CWR) {
        oddities.push("ecn");
    }
    if sequence == 0 {
        oddities.push("seq-");
    }
    match (has(flag::ACK), acknowledged) {
        (true, 0) => oddities.push("ack-"),
        (false, 1..) => oddities.push("ack+"),
        (true, 1..) | (false, 0) => {}
    }
    match (has(flag::URG), urgent) {
        (true, _) => oddities.push("urgf+"),
        (false, 1..) => oddities.push("uptr+"),
        (false, 0) => {}
    }
    if has(flag::PSH) {
        oddities.push("pushf+");
    }
    oddities
}

/// Reads the options as far as they make sense; what does not is an oddity.
fn options(mut bytes: &[u8]) -> Options {
    let mut read = Options::default();
    let mut odd = Odd::default();
    while let Some((&kind, rest)) = bytes.split_first() {
        match kind {
            0 => {
                read.layout.push(format!("eol+{}", rest.len()));
                odd.trailing = rest.iter().any(|byte| *byte != 0);
                break;
            }
            1 => {
                read.layout.push("nop".to_owned());
                bytes = rest;
                continue;
            }
            _ => {}
        }
        let value = rest
            .first()
            .and_then(|length| bytes.get(2..usize::from(*length)));
        let Some(value) = value else {
            read.layout.push(name(kind));
            odd.bad = true;
            break;
        };
        read.layout.push(name(kind));
        odd.bad |= !read.take(kind, value, &mut odd);
        bytes = &bytes[value.len() + 2..];
    }
    let Odd {
        own_stamp_zero,
        other_stamp,
        trailing,
        scale,
        bad,
    } = odd;
    let found = [
        (own_stamp_zero, "ts1-"),
        (other_stamp, "ts2+"),
        (trailing, "opt+"),
        (scale, "exws"),
        (bad, "bad"),
    ];
    read.oddities = found
        .into_iter()
        .filter_map(|(is, word)| is.then_some(word))
        .collect();
    read
}

/// Oddities of options.
#[derive(Default)]
struct Odd {
    own_stamp_zero: bool,
    other_stamp: bool,
    trailing: bool,
    scale: bool,
    bad: bool,
}

impl Options {
    /// Whether the option has the length that it must have.
    fn take(&mut self, kind: u8, value: &[u8], odd: &mut Odd) -> bool {
        match (kind, value) {
            (2, [high, low]) => self.mss = u16::from_be_bytes([*high, *low]),
            (3, [scale]) => {
                self.scale = *scale;
                odd.scale |= *scale > 14;
            }
            (4, []) => {}
            // Blocks have no place in a SYN, but a form.
            (5, blocks) => return !blocks.is_empty() && blocks.len().is_multiple_of(8),
            (8, [own @ .., _, _, _, _]) if value.len() == 8 => {
                self.stamped = own.iter().any(|byte| *byte != 0);
                odd.own_stamp_zero = !self.stamped;
                odd.other_stamp = value[4..].iter().any(|byte| *byte != 0);
            }
            (2..=4 | 8, _) => return false,
            _ => {}
        }
        true
    }
}

fn name(kind: u8) -> String {
    match kind {
        2 => "mss".to_owned(),
        3 => "ws".to_owned(),
        4 => "sok".to_owned(),
        5 => "sack".to_owned(),
        8 => "ts".to_owned(),
        other => format!("?{other}"),
    }
}

/// How far it seems to be to a sender: systems begin with 32, 64, 128 or 255.
fn hops(ttl: u8) -> u8 {
    let first = [32, 64, 128, 255]
        .into_iter()
        .find(|first| ttl <= *first)
        .unwrap_or(u8::MAX);
    first - ttl
}

/// The window as a multiple of the MSS or of the MTU, as several systems choose it.
fn multiple(window: u16, options: &Options, version: u8) -> Option<(&'static str, u32)> {
    let (window, mss) = (u32::from(window), u32::from(options.mss));
    if window == 0 || mss < 100 {
        return None;
    }
    let six = version == 6;
    let stamped = options.stamped;
    // Some subtract 12 for the timestamps; some take an interface of 1500 for granted.
    let units = [
        (true, "mss", mss),
        (stamped, "mss", mss - 12),
        (true, "mss", 1500 - HEADERS_4),
        (true, "mss", 1500 - HEADERS_4 - 12),
        (six, "mss", 1500 - HEADERS_6),
        (six, "mss", 1500 - HEADERS_6 - 12),
        (true, "mtu", mss + HEADERS_4),
        (six, "mtu", mss + HEADERS_6),
        (true, "mtu", 1500),
    ];
    units
        .into_iter()
        .find(|(applies, _, unit)| *applies && window.is_multiple_of(*unit))
        .map(|(_, word, unit)| (word, window / unit))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes(text: &str) -> Vec<u8> {
        hex::decode(text.replace(' ', "")).expect("tests write hexadecimal")
    }

    /// A SYN of IPv4 with these TCP options, DF set and an id, from 64 hops at most.
    fn v4(ttl: u8, window: u16, options: &str) -> Vec<u8> {
        let options = bytes(options);
        let length = 20 + options.len();
        let mut headers = bytes("4500 0000 abcd 4000 0006 0000 0a000001 0a000002");
        headers[8] = ttl;
        headers[3] = u8::try_from(20 + length).expect("short");
        headers.extend(bytes("c001 0016 00000001 00000000 0002 0000 0000 0000"));
        headers[32] = u8::try_from(length / 4 * 16).expect("at most 60");
        headers[34..36].copy_from_slice(&window.to_be_bytes());
        headers.extend(options);
        headers
    }

    /// The options of Linux: MSS, SACK, timestamps, window scale.
    const LINUX: &str = "020405b4 0402 080a 01020304 00000000 01 030307";
    /// Those of Windows.
    const WINDOWS: &str = "020405b4 01 030308 01 01 0402";

    #[test]
    fn describes_systems_as_p0f_does() {
        for (ttl, window, options, expected) in [
            (
                64,
                64240,
                LINUX,
                "4:64+0:0:1460:mss*44,7:mss,sok,ts,nop,ws:df,id+:0",
            ),
            (
                121,
                8192,
                WINDOWS,
                "4:121+7:0:1460:8192,8:mss,nop,ws,nop,nop,sok:df,id+:0",
            ),
            // nmap's: a window of its choice, and an MSS alone.
            (48, 1024, "020405b4", "4:48+16:0:1460:1024,0:mss:df,id+:0"),
            // Beyond what can be a distance.
            (200, 1024, "", "4:200+?:0:0:1024,0::df,id+:0"),
        ] {
            assert_eq!(
                signature(&v4(ttl, window, options)).as_deref(),
                Some(expected)
            );
        }
    }

    #[test]
    fn every_oddity_has_its_word() {
        let mut odd = v4(64, 512, "080a 00000000 00000001 03030f 00 01 00");
        odd[1] = 0x01;
        odd[6] = 0x80;
        odd[4..6].fill(0);
        odd[3] += 1;
        odd[24..28].fill(0);
        odd[31] = 1;
        odd[33] = 0x0a;
        odd[39] = 1;
        assert_eq!(
            signature(&odd).as_deref(),
            Some(
                "4:64+0:0:0:512,15:ts,ws,eol+2:id-,ecn,0+,seq-,ack+,uptr+,pushf+,ts1-,ts2+,opt+,exws:+"
            )
        );
        odd[33] = 0x32;
        odd[31] = 0;
        assert_eq!(
            signature(&odd).as_deref(),
            Some("4:64+0:0:0:512,15:ts,ws,eol+2:id-,ecn,0+,seq-,ack-,urgf+,ts1-,ts2+,opt+,exws:+")
        );
        for bad in [
            "02030000",
            "0200 0000",
            "02ff 0000",
            "0305 0000 00 000000",
            "fe01 0000",
        ] {
            let text = signature(&v4(64, 512, bad)).expect("headers all the same");
            assert!(text.ends_with("bad:0"), "{bad}: {text}");
        }
        assert_eq!(
            signature(&v4(64, 512, "fd04 0000 050a 0000000000000000 0101")).as_deref(),
            Some("4:64+0:0:0:512,0:?253,sack,nop,nop:df,id+:0")
        );
    }

    #[test]
    fn reads_ipv6_through_its_extensions() {
        let tcp = &v4(64, 64800, LINUX)[20..];
        let mut plain = bytes("6000 0000 0028 06 3f");
        plain.extend([0xfd; 32]);
        let mut extended = plain.clone();
        plain.extend(tcp);
        assert_eq!(
            signature(&plain).as_deref(),
            Some("6:63+1:0:1460:mss*45,7:mss,sok,ts,nop,ws::0")
        );
        extended[1] = 0x2f;
        extended[5] += 8;
        extended[6] = 60;
        extended.extend(bytes("0600 0104 00000000"));
        extended.extend(tcp);
        assert_eq!(
            signature(&extended).as_deref(),
            Some("6:63+1:8:1460:mss*45,7:mss,sok,ts,nop,ws:ecn,flow:0")
        );
    }

    #[test]
    fn what_is_no_header_has_no_signature() {
        let whole = v4(64, 64240, LINUX);
        for length in 0..whole.len() {
            assert_eq!(signature(&whole[..length]), None, "{length}");
        }
        let mut udp = whole.clone();
        udp[9] = 17;
        assert_eq!(signature(&udp), None);
        let mut short = whole;
        short[32] = 0x40;
        assert_eq!(signature(&short), None);
    }

    proptest! {
        #[test]
        fn never_panics_and_stays_short(mut headers in prop::collection::vec(any::<u8>(), 0..600), version in prop::sample::select(vec![0x45_u8, 0x4f, 0x60, 0x00])) {
            if let Some(first) = headers.first_mut() {
                *first = version;
            }
            let text = signature(&headers).unwrap_or_default();
            prop_assert!(text.len() < 512);
        }

        #[test]
        fn options_never_panic(options in prop::collection::vec(any::<u8>(), 0..=40)) {
            let read = super::options(&options);
            prop_assert!(read.layout.len() <= 40);
        }
    }
}
