use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use proptest::prelude::*;
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose as Usage, IsCa, KeyPair, SanType,
    SerialNumber,
};
use time::macros::datetime;

use super::files::{HostIdentity, IdentityFiles, InvalidIdentity, LoadIdentityError};
use super::*;
use crate::ca::CertificateAuthority;
use crate::csr::HostKey;
use crate::testkit::{DAY, NOW, authority, host_id, host_identity};

/// What our CA could sign if it were careless.
fn params(uris: &[&str], usages: &[Usage]) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.serial_number = Some(SerialNumber::from_slice(&[0x41; 16]));
    params.extended_key_usages = usages.to_vec();
    for uri in uris {
        let uri = Ia5String::try_from(*uri).expect("ASCII");
        params.subject_alt_names.push(SanType::URI(uri));
    }
    params
}

fn read(params: &CertificateParams) -> Result<Role, InvalidPeer> {
    let key = KeyPair::generate().expect("randomness");
    let der = authority().sign_anything(params, &key);
    PeerCertificate::parse(&der).map(|peer| peer.role())
}

const HOST: &str = "decnet://host/00000000-0000-0000-0000-000000000007";
const MASTER: &str = "decnet://master";

#[test]
fn a_certificate_has_exactly_one_role_and_its_usage() {
    const CLIENT: &[Usage] = &[Usage::ClientAuth];
    const SERVER: &[Usage] = &[Usage::ServerAuth];
    const BOTH: &[Usage] = &[Usage::ClientAuth, Usage::ServerAuth];
    const ANY: &[Usage] = &[Usage::ClientAuth, Usage::Any];
    let host = Role::Host(host_id(7));
    for (uris, usages, expected) in [
        (&[HOST][..], CLIENT, Ok(host)),
        (&[MASTER], SERVER, Ok(Role::Master)),
        (&[], CLIENT, Err(InvalidPeer::NoRole)),
        (&[HOST, MASTER], CLIENT, Err(InvalidPeer::ManyRoles)),
        (&[HOST, MASTER], BOTH, Err(InvalidPeer::ManyRoles)),
        (&[HOST, HOST], CLIENT, Err(InvalidPeer::ManyRoles)),
        (
            &[HOST, "https://a.example"],
            CLIENT,
            Err(InvalidPeer::ManyRoles),
        ),
        (
            &["https://a.example"],
            CLIENT,
            Err(InvalidPeer::UnknownRole),
        ),
        (&["decnet://admin"], CLIENT, Err(InvalidPeer::UnknownRole)),
        (
            &["decnet://master/x"],
            SERVER,
            Err(InvalidPeer::UnknownRole),
        ),
        (&["decnet://host/7"], CLIENT, Err(InvalidPeer::UnknownRole)),
        (&[HOST], SERVER, Err(InvalidPeer::Usage { role: host })),
        (&[HOST], BOTH, Err(InvalidPeer::Usage { role: host })),
        (&[HOST], ANY, Err(InvalidPeer::Usage { role: host })),
        (&[HOST], &[], Err(InvalidPeer::Usage { role: host })),
        (
            &[MASTER],
            CLIENT,
            Err(InvalidPeer::Usage { role: Role::Master }),
        ),
        (
            &[MASTER],
            BOTH,
            Err(InvalidPeer::Usage { role: Role::Master }),
        ),
    ] {
        assert_eq!(read(&params(uris, usages)), expected, "{uris:?} {usages:?}");
    }
}

#[test]
fn a_host_has_one_spelling() {
    let upper = "decnet://host/AAAAAAAA-0000-0000-0000-000000000007";
    let simple = "decnet://host/aaaaaaaa000000000000000000000007";
    for uri in [upper, simple] {
        assert_eq!(
            read(&params(&[uri], &[Usage::ClientAuth])),
            Err(InvalidPeer::UnknownRole)
        );
    }
}

#[test]
fn refuses_authorities_and_foreign_serials() {
    let mut authority = params(&[HOST], &[Usage::ClientAuth]);
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    assert_eq!(read(&authority), Err(InvalidPeer::Authority));

    let mut short = params(&[HOST], &[Usage::ClientAuth]);
    short.serial_number = Some(SerialNumber::from_slice(&[1, 2, 3]));
    assert_eq!(read(&short), Err(InvalidPeer::Serial));
}

#[test]
fn refuses_bytes_behind_the_certificate() {
    let mut der = host_identity(&authority(), host_id(7), NOW)
        .certificate_der()
        .to_vec();
    der.push(0);
    assert_eq!(PeerCertificate::parse(&der), Err(InvalidPeer::Malformed));
}

proptest! {
    #[test]
    fn reading_never_panics(bytes: Vec<u8>, at in 0usize..400, flip: u8) {
        drop(PeerCertificate::parse(&bytes));
        let mut der = DAMAGED.with(Clone::clone);
        let at = at % der.len();
        der[at] ^= flip;
        drop(PeerCertificate::parse(&der));
    }
}

thread_local! {
    static DAMAGED: Vec<u8> = host_identity(&authority(), host_id(7), NOW).certificate_der().to_vec();
}

// Files.

fn names_in(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(directory)
        .expect("readable")
        .map(|entry| {
            entry
                .expect("readable")
                .file_name()
                .into_string()
                .expect("ASCII")
        })
        .collect();
    names.sort();
    names
}

fn saved(ca: &CertificateAuthority, directory: &Path, now: OffsetDateTime) -> HostIdentity {
    let identity = host_identity(ca, host_id(7), now);
    IdentityFiles::new(directory)
        .save(&identity)
        .expect("writable");
    identity
}

#[test]
fn an_identity_reads_back_from_its_directory() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let files = IdentityFiles::new(directory.path());
    assert!(
        files
            .load()
            .expect("an empty directory is no error")
            .is_none()
    );

    let identity = saved(&authority(), directory.path(), NOW);
    let loaded = files.load().expect("complete").expect("saved");

    assert_eq!(loaded.host(), host_id(7));
    assert_eq!(loaded.key().fingerprint(), identity.key().fingerprint());
    assert_eq!(loaded.certificate_der(), identity.certificate_der());
    assert_eq!(loaded.bundle(), identity.bundle());
    let key = directory
        .path()
        .join(format!("identity-{}.key", identity.serial()));
    assert_eq!(
        fs::metadata(key).expect("written").permissions().mode() & 0o777,
        0o600
    );
}

#[test]
fn renewal_leaves_only_the_newest_identity() {
    let (ca, directory) = (
        authority(),
        tempfile::tempdir().expect("temporary directory"),
    );
    saved(&ca, directory.path(), NOW);
    fs::write(directory.path().join(".identity-ab.key.01.tmp"), "half").expect("writable");
    fs::write(directory.path().join("unrelated"), "stays").expect("writable");
    let newest = saved(&ca, directory.path(), NOW);

    let serial = newest.serial();
    let mut expected = [
        "identity.current".to_owned(),
        format!("identity-{serial}.key"),
        format!("identity-{serial}.pem"),
        "unrelated".to_owned(),
    ];
    expected.sort();
    assert_eq!(names_in(directory.path()), expected);
}

/// What `save` has done when it is killed, after each of its steps.
#[test]
fn a_crash_leaves_the_old_identity_or_the_new_one() {
    let ca = authority();
    let after = tempfile::tempdir().expect("temporary directory");
    let new = saved(&ca, after.path(), NOW);
    let steps = [
        format!("identity-{}.key", new.serial()),
        format!("identity-{}.pem", new.serial()),
        "identity.current".to_owned(),
    ];
    for done in 0..=steps.len() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let old = saved(&ca, directory.path(), NOW);
        for step in &steps[..done] {
            fs::copy(after.path().join(step), directory.path().join(step)).expect("writable");
        }
        let expected = if done == steps.len() { &new } else { &old };

        let loaded = IdentityFiles::new(directory.path())
            .load()
            .expect("whole")
            .expect("saved");

        assert_eq!(loaded.serial(), expected.serial(), "after {done} steps");
    }
}

#[test]
fn damaged_files_are_named() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let files = IdentityFiles::new(directory.path());
    let serial = saved(&authority(), directory.path(), NOW).serial();
    let key = directory.path().join(format!("identity-{serial}.key"));
    let chain = directory.path().join(format!("identity-{serial}.pem"));
    let pem = fs::read_to_string(&chain).expect("written");
    let refusal = || files.load().expect_err("damaged");

    let leaf_only = pem
        .split_inclusive("-----END CERTIFICATE-----\n")
        .next()
        .expect("a leaf");
    fs::write(&chain, leaf_only).expect("writable");
    assert!(matches!(refusal(), LoadIdentityError::Bundle { .. }));
    fs::write(&chain, "").expect("writable");
    assert!(matches!(refusal(), LoadIdentityError::Certificate { .. }));
    fs::remove_file(&chain).expect("own file");
    assert!(matches!(refusal(), LoadIdentityError::Read { path, .. } if path == chain));
    fs::write(&chain, pem).expect("writable");

    fs::write(&key, &*HostKey::generate().expect("randomness").to_pkcs8()).expect("writable");
    assert!(matches!(
        refusal(),
        LoadIdentityError::Parts {
            source: InvalidIdentity::OtherKey { .. },
            ..
        }
    ));
    fs::write(&key, "").expect("writable");
    assert!(matches!(refusal(), LoadIdentityError::Key { .. }));

    fs::write(
        directory.path().join("identity.current"),
        "../../etc/passwd",
    )
    .expect("writable");
    assert!(matches!(refusal(), LoadIdentityError::Pointer { .. }));
}

#[test]
fn a_master_certificate_is_no_host_identity() {
    let ca = authority();
    let leaf = ca.issue_master(&[], DAY, NOW).expect("no names");
    let key = HostKey::generate().expect("randomness");
    let refused = HostIdentity::new(key, leaf.certificate.to_vec(), ca.bundle());
    assert_eq!(refused.expect_err("not a host"), InvalidIdentity::NotHost);
}

#[test]
fn renewal_is_at_half_life_and_up_to_a_tenth_later() {
    let identity = host_identity(&authority(), host_id(7), NOW);
    // The life is 24 h and 5 min, from 11:55.
    let half = datetime!(2026-03-01 23:57:30 UTC);
    let tenth = time::Duration::seconds_f64(24.0 * 360.0 + 30.0);
    for (jitter, expected) in [
        (0.0, half),
        (1.0, half + tenth),
        (7.0, half + tenth),
        (-1.0, half),
        (f64::NAN, half),
    ] {
        let off = identity.renew_at(jitter) - expected;
        assert!(off.abs() < time::Duration::MILLISECOND, "{jitter}: {off}");
    }
}
