//! Lines survive what attackers put into them, and nothing that they put there ends one early.

use std::net::SocketAddr;

use domain::event::{AuthMethod, AuthOutcome};
use proptest::prelude::*;
use uuid::Uuid;

use super::*;

fn any_evidence() -> impl Strategy<Value = Evidence> {
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..200).prop_map(Evidence::new),
        "\\PC{0,40}".prop_map(|text: String| Evidence::new(text)),
        prop_oneof![
            Just("a\nb"),
            Just("\"]} {\"v\":1"),
            Just("\u{0}\u{1b}[2J"),
            Just("\\\\"),
            Just("\r\n\r\n")
        ]
        .prop_map(Evidence::from),
    ]
}

fn any_payload() -> impl Strategy<Value = Payload> {
    let evidence = any_evidence;
    prop_oneof![
        Just(Payload::Connect),
        any::<(u64, u64, u64)>().prop_map(|(received, sent, millis)| Payload::Disconnect {
            received,
            sent,
            millis
        }),
        (evidence(), evidence(), any::<bool>()).prop_map(|(username, secret, accepted)| {
            let outcome = if accepted {
                AuthOutcome::Accepted
            } else {
                AuthOutcome::Rejected
            };
            Payload::Auth {
                method: AuthMethod::Password,
                username,
                secret,
                outcome,
            }
        }),
        evidence().prop_map(|line| Payload::Command { line }),
        (
            evidence(),
            evidence(),
            proptest::collection::vec((evidence(), evidence()), 0..5),
            evidence(),
            any::<u16>()
        )
            .prop_map(|(method, target, headers, body, status)| Payload::Request {
                method,
                target,
                headers,
                body,
                status
            }),
        ("[a-z_]{1,12}", evidence()).prop_map(|(of, value)| Payload::Fingerprint { of, value }),
        ("[a-z]{1,12}", evidence(), any::<u64>()).prop_map(|(state, detail, count)| {
            Payload::Lifecycle {
                state,
                config: String::new(),
                detail,
                count,
            }
        }),
        "\\PC{0,40}".prop_map(|reason: String| Payload::Raw { reason }),
    ]
}

fn any_line() -> impl Strategy<Value = Line> {
    let stamp = (
        any::<u128>(),
        any::<u64>(),
        0_i64..4_000_000_000,
        0_u32..1_000_000_000,
    );
    let who = proptest::option::of(any::<SocketAddr>().prop_map(|mut address| {
        if let SocketAddr::V6(six) = &mut address {
            // Neither is part of the text form of an address.
            six.set_flowinfo(0);
            six.set_scope_id(0);
        }
        address
    }));
    let service = proptest::option::of(proptest::sample::select(ServiceKind::ALL.to_vec()));
    let severity = proptest::sample::select(Severity::ALL.to_vec());
    let rest = (service, proptest::option::of(any::<u128>()), who, severity);
    (
        stamp,
        rest,
        any_payload(),
        proptest::option::of(any_evidence()),
    )
        .prop_map(
            |(
                (boot, counter, seconds, nanos),
                (service, session, source, severity),
                payload,
                raw,
            )| {
                let at = OffsetDateTime::from_unix_timestamp(seconds)
                    .expect("before the year 2100")
                    .replace_nanosecond(nanos)
                    .expect("below a second");
                Line {
                    position: Position {
                        boot: BootId::new(Uuid::from_u128(boot)),
                        counter,
                    },
                    sighting: Sighting {
                        at,
                        service,
                        session: session.map(|it| SessionId::new(Uuid::from_u128(it))),
                        source,
                        destination: source,
                        severity,
                        payload,
                        raw,
                    },
                }
            },
        )
}

proptest! {
    #[test]
    fn a_line_comes_back_as_it_went_and_is_one_line(line in any_line()) {
        let bytes = encode(&line);
        prop_assert!(bytes.len() <= MAX_LINE);
        prop_assert_eq!(bytes.iter().filter(|byte| **byte == b'\n').count(), 1);
        prop_assert_eq!(bytes.last(), Some(&b'\n'));
        prop_assert_eq!(decode(&bytes).expect("it was encoded"), line);
    }

    #[test]
    fn no_bytes_make_the_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        drop(decode(&bytes));
    }

    #[test]
    fn a_broken_line_is_an_error_or_a_line_and_never_a_panic(
        line in any_line(),
        at in any::<proptest::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut bytes = encode(&line);
        let index = at.index(bytes.len());
        bytes[index] = byte;
        drop(decode(&bytes));
        drop(decode(&bytes[..index]));
    }

    #[test]
    fn a_payload_comes_back_from_its_row(payload in any_payload()) {
        prop_assert_eq!(payload_from_json(payload_json(&payload)).expect("it was written"), payload);
    }
}

#[test]
fn the_largest_sighting_still_fits_a_line_and_says_that_it_was_cut() {
    let worst = Evidence::new(vec![0_u8; Evidence::MAX]);
    let sighting = Sighting {
        at: OffsetDateTime::UNIX_EPOCH,
        service: Some(ServiceKind::Http),
        session: None,
        source: None,
        destination: None,
        severity: Severity::Info,
        payload: Payload::Request {
            method: worst.clone(),
            target: worst.clone(),
            headers: vec![(worst.clone(), worst.clone()); 100],
            body: worst.clone(),
            status: 400,
        },
        raw: Some(worst),
    };
    let position = Position {
        boot: BootId::new(Uuid::nil()),
        counter: u64::MAX,
    };
    let bytes = encode(&Line { position, sighting });
    assert!(bytes.len() <= MAX_LINE, "{}", bytes.len());
    let back = decode(&bytes).expect("what is cut is still a line");
    let Payload::Request { target, .. } = back.sighting.payload else {
        panic!("a request")
    };
    assert!(target.bytes().ends_with(b" [cut]"));
}

#[test]
fn a_line_of_another_version_or_length_is_named_as_such() {
    let long = vec![b' '; MAX_LINE + 1];
    assert!(matches!(decode(&long), Err(InvalidLine::TooLong { .. })));
    let other = br#"{"v":2,"boot":"","n":1,"at":"","sev":"info","data":{"kind":"connect"}}"#;
    assert!(matches!(
        decode(other),
        Err(InvalidLine::Version { got: 2 })
    ));
    let forged =
        br#"{"v":1,"host":"x","boot":"","n":1,"at":"","sev":"info","data":{"kind":"connect"}}"#;
    assert!(matches!(decode(forged), Err(InvalidLine::Json(_))));
}
