use std::os::unix::fs::PermissionsExt;

use time::macros::datetime;
use x509_parser::extensions::GeneralName;

use super::*;
use crate::csr::HostKey;
use crate::testkit::{DAY, NOW, authority, host_id};

fn certificate_of(leaf: &[u8]) -> x509_parser::certificate::X509Certificate<'_> {
    parse_x509_certificate(leaf).expect("issued by us").1
}

fn names_of(leaf: &[u8]) -> Vec<String> {
    let certificate = certificate_of(leaf);
    let names = certificate
        .subject_alternative_name()
        .expect("well formed")
        .expect("present");
    names
        .value
        .general_names
        .iter()
        .map(|name: &GeneralName<'_>| name.to_string())
        .collect()
}

/// A request that asks for all that a host must never get.
fn greedy_request(key: &KeyPair) -> Vec<u8> {
    let mut params = CertificateParams::new(["evil.example".to_owned(), "10.0.0.1".to_owned()])
        .expect("valid names");
    let master = Ia5String::try_from(Role::Master.to_string()).expect("ASCII");
    params.subject_alt_names.push(SanType::URI(master));
    params.distinguished_name = common_name("the master, honestly");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::Any,
    ];
    params
        .serialize_request(key)
        .expect("own key")
        .der()
        .to_vec()
}

#[test]
fn only_the_public_key_is_taken_from_a_request() {
    let key = KeyPair::generate().expect("randomness");
    let leaf = authority()
        .issue_host(&greedy_request(&key), host_id(7), DAY, NOW)
        .expect("the request itself is sound");

    let certificate = certificate_of(&leaf.certificate_der);
    assert_eq!(certificate.public_key().raw, key.subject_public_key_info());
    assert_eq!(
        certificate.subject().to_string(),
        format!("CN={}", host_id(7))
    );
    assert_eq!(
        names_of(&leaf.certificate_der),
        [format!("URI(decnet://host/{})", host_id(7))]
    );
    assert!(!certificate.is_ca());
    let usage = certificate
        .key_usage()
        .expect("well formed")
        .expect("present")
        .value;
    assert_eq!(usage.to_string(), "Digital Signature");
    let purpose = certificate
        .extended_key_usage()
        .expect("well formed")
        .expect("present")
        .value;
    assert!(purpose.client_auth && !purpose.server_auth && !purpose.any);
}

#[test]
fn a_host_leaf_says_what_the_issuer_reports() {
    let key = HostKey::generate().expect("randomness");
    let now = datetime!(2026-03-01 12:00:00.5 UTC);
    let leaf = authority()
        .issue_host(&key.csr_der().expect("own key"), host_id(7), DAY, now)
        .expect("own request");

    let read = PeerCertificate::parse(&leaf.certificate_der).expect("issued by us");
    assert_eq!(read.role(), Role::Host(host_id(7)));
    assert_eq!(
        (read.key(), leaf.key),
        (key.fingerprint(), key.fingerprint())
    );
    assert_eq!(read.serial(), leaf.serial);
    assert_eq!(read.not_before(), datetime!(2026-03-01 11:55 UTC));
    assert_eq!((read.not_after(), leaf.not_after), (NOW + DAY, NOW + DAY));
}

#[test]
fn serials_do_not_repeat() {
    let (ca, key) = (authority(), HostKey::generate().expect("randomness"));
    let csr = key.csr_der().expect("own key");
    let issue = || {
        ca.issue_host(&csr, host_id(7), DAY, NOW)
            .expect("own request")
            .serial
    };
    assert_ne!(issue(), issue());
}

#[test]
fn a_master_leaf_is_valid_from_the_birth_of_its_ca() {
    let ca = authority();
    let names = [
        "10.0.0.5".parse().expect("address"),
        "master.example".parse().expect("name"),
    ];
    let later = NOW + time::Duration::days(400);
    let leaf = ca.issue_master(&names, DAY, later).expect("sound names");

    let read = PeerCertificate::parse(&leaf.certificate).expect("issued by us");
    assert_eq!(read.role(), Role::Master);
    assert_eq!(read.not_before(), NOW - time::Duration::days(1));
    assert_eq!(leaf.not_after(), later + DAY);
    assert_eq!(
        names_of(&leaf.certificate),
        [
            "URI(decnet://master)",
            "IPAddress(0a:00:00:05)",
            "DNSName(master.example)"
        ]
    );
}

#[test]
fn refuses_requests_that_are_not_sound() {
    let ca = authority();
    let refusal = |csr: &[u8]| {
        ca.issue_host(csr, host_id(7), DAY, NOW)
            .expect_err("unsound")
    };
    let good = HostKey::generate()
        .expect("randomness")
        .csr_der()
        .expect("own key");

    let mut tampered = good.clone();
    *tampered.last_mut().expect("not empty") ^= 1;
    assert!(matches!(refusal(&tampered), IssueError::BadSignature));

    let mut trailing = good.clone();
    trailing.push(0);
    assert!(matches!(refusal(&trailing), IssueError::MalformedRequest));
    assert!(matches!(
        refusal(b"no request"),
        IssueError::MalformedRequest
    ));
    assert!(matches!(
        refusal(&good[..good.len() / 2]),
        IssueError::MalformedRequest
    ));
    assert!(matches!(
        refusal(&vec![0x30; MAX_CSR + 1]),
        IssueError::TooLong { size: 4097 }
    ));

    for other in [&rcgen::PKCS_ED25519, &rcgen::PKCS_ECDSA_P384_SHA384] {
        let key = KeyPair::generate_for(other).expect("randomness");
        assert!(matches!(
            refusal(&greedy_request(&key)),
            IssueError::UnsupportedKey
        ));
    }
}

#[test]
fn a_key_swapped_into_a_signed_request_is_refused() {
    let (victim, thief) = (
        KeyPair::generate().expect("randomness"),
        KeyPair::generate().expect("randomness"),
    );
    let mut csr = greedy_request(&victim);
    let old = victim.public_key_raw();
    let at = csr
        .windows(old.len())
        .position(|window| window == old)
        .expect("its own key");
    csr[at..at + old.len()].copy_from_slice(thief.public_key_raw());

    let refused = authority()
        .issue_host(&csr, host_id(7), DAY, NOW)
        .expect_err("not signed");
    assert!(matches!(refused, IssueError::BadSignature), "{refused:?}");
}

#[test]
fn a_life_beyond_the_calendar_is_refused() {
    let csr = HostKey::generate()
        .expect("randomness")
        .csr_der()
        .expect("own key");
    let refused = authority()
        .issue_host(&csr, host_id(7), Duration::MAX, NOW)
        .expect_err("long");
    assert!(matches!(refused, IssueError::Life { .. }), "{refused:?}");
}

#[test]
fn a_ca_survives_its_directory() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let made = CertificateAuthority::load_or_create(directory.path(), NOW).expect("empty");
    let later = NOW + time::Duration::days(1);
    let loaded = CertificateAuthority::load_or_create(directory.path(), later).expect("complete");

    assert_eq!((loaded.pin(), loaded.bundle()), (made.pin(), made.bundle()));
    let key = fs::metadata(directory.path().join(KEY_FILE)).expect("written");
    assert_eq!(key.permissions().mode() & 0o777, 0o600);
}

#[test]
fn half_a_ca_is_an_error_and_is_left_alone() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let load = || CertificateAuthority::load_or_create(directory.path(), NOW);
    load().expect("empty");
    let (key, certificate) = (
        directory.path().join(KEY_FILE),
        directory.path().join(CERTIFICATE_FILE),
    );
    let (key_bytes, certificate_bytes) = (
        fs::read(&key).expect("written"),
        fs::read(&certificate).expect("written"),
    );

    fs::remove_file(&certificate).expect("own file");
    load().expect("the key file has the certificate too");
    assert_eq!(
        fs::read(&certificate).expect("written anew"),
        certificate_bytes
    );

    let text = String::from_utf8(key_bytes.clone()).expect("PEM");
    let (alone, _) = text
        .split_once("-----BEGIN CERTIFICATE")
        .expect("both blocks");
    fs::write(&key, alone).expect("writable");
    fs::remove_file(&certificate).expect("own file");
    assert!(matches!(load(), Err(CaError::KeyWithoutCertificate { .. })));
    fs::write(&key, key_bytes).expect("writable");

    fs::write(&certificate, certificate_bytes).expect("writable");
    fs::remove_file(&key).expect("own file");
    assert!(matches!(load(), Err(CaError::CertificateWithoutKey { .. })));

    fs::write(&key, "garbage").expect("writable");
    assert!(matches!(load(), Err(CaError::MalformedKey { .. })));

    fs::write(
        &key,
        KeyPair::generate().expect("randomness").serialize_pem(),
    )
    .expect("writable");
    assert!(matches!(load(), Err(CaError::Mismatch { .. })));

    fs::write(&certificate, "garbage").expect("writable");
    assert!(matches!(load(), Err(CaError::MalformedCertificate { .. })));
}

#[test]
fn a_name_that_is_neither_address_nor_dns_is_refused() {
    let refused = "two words".parse::<MasterName>().expect_err("no name");
    assert_eq!(
        refused,
        InvalidMasterName {
            text: "two words".to_owned()
        }
    );
    assert_eq!(
        "10.0.0.5"
            .parse::<MasterName>()
            .map(|name| name.to_string())
            .as_deref(),
        Ok("10.0.0.5")
    );
}

#[test]
fn the_debug_forms_tell_nothing_private() {
    let ca = authority();
    assert_eq!(
        format!("{ca:?}"),
        format!("CertificateAuthority({})", ca.pin())
    );
    let leaf = ca.issue_master(&[], DAY, NOW).expect("no names");
    assert!(format!("{leaf:?}").starts_with(&format!("MasterLeaf({}", leaf.serial())));
}
