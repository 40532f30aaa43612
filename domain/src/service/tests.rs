//! What holds of the whole catalogue.

use std::collections::BTreeSet;

use super::*;

#[test]
fn names_are_sorted_and_every_service_listens_and_fits_somewhere() {
    let names: Vec<_> = ServiceKind::ALL.iter().map(|kind| kind.as_str()).collect();
    assert!(names.is_sorted(), "{names:?}");
    assert_eq!(names.len(), 31);
    for kind in ServiceKind::ALL.iter().copied() {
        assert_eq!(kind.as_str().parse(), Ok(kind));
        let ports: Vec<_> = kind.listens().collect();
        let distinct: BTreeSet<_> = ports.iter().collect();
        assert!(!ports.is_empty() && distinct.len() == ports.len(), "{kind}");
        assert!(!kind.personas().is_empty() && !kind.help().is_empty());
    }
}

#[test]
fn implemented_services_are_sorted_and_distinct() {
    let names: Vec<_> = ServiceKind::IMPLEMENTED.iter().collect();
    assert!(names.is_sorted_by(|a, b| a < b));
}

#[test]
fn every_option_is_named_once_and_its_default_keeps_its_rule() {
    for kind in ServiceKind::ALL.iter().copied() {
        let mut names = BTreeSet::new();
        for option in kind.schema() {
            assert!(names.insert(option.name), "{kind} {}", option.name);
            assert!(!option.help.is_empty());
            let value = match option.default {
                OptionDefault::Seeded | OptionDefault::Unset => continue,
                OptionDefault::Text(text) => OptionValue::Text(text.to_owned()),
                OptionDefault::Integer(number) => OptionValue::Integer(number),
                OptionDefault::Boolean(flag) => OptionValue::Boolean(flag),
            };
            let mut set = ServiceOptions::default();
            assert_eq!(set.set(kind, option.name, value), Ok(()));
        }
    }
}

#[test]
fn a_value_outside_its_rule_is_refused_with_field_expectation_and_value() {
    let mut set = ServiceOptions::default();
    let refused = |result: Result<(), InvalidOption>| result.expect_err("refused").to_string();
    assert_eq!(
        refused(set.set(ServiceKind::Ntp, "stratum", OptionValue::Integer(16))),
        "option stratum of ntp must be a whole number from 1 to 15, got 16"
    );
    assert_eq!(
        refused(set.set(
            ServiceKind::Mqtt,
            "plant",
            OptionValue::Text("moon".to_owned())
        )),
        "option plant of mqtt must be one of water, factory, substation, hospital, got \"moon\""
    );
    assert_eq!(
        refused(set.set(ServiceKind::Redis, "port", OptionValue::Integer(1))),
        "redis has no option \"port\"; it has requirepass"
    );
    assert_eq!(set, ServiceOptions::default());
}

#[test]
fn a_refused_value_is_quoted_in_part() {
    let text = OptionValue::Text("x".repeat(1_000_000));
    let error = ServiceOptions::default()
        .set(ServiceKind::Ssh, "banner", text)
        .expect_err("too long");
    assert!(error.to_string().len() < 300, "{error}");
}
