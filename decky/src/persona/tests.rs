use super::*;

/// A Linux machine whose seed is one byte over and over.
pub(crate) fn config(byte: u8) -> DeckyConfig {
    let text = format!(
        "{{\"hostname\":\"web-7\",\"persona\":\"linux\",\"seed\":\"{}\",\"services\":{{\"ssh\":{{}}}}}}",
        Seed::new([byte; 32]).hex()
    );
    DeckyConfig::decode(text.as_bytes()).expect("well formed")
}

pub(crate) fn facts(byte: u8) -> Facts {
    Facts {
        fail_delay: std::time::Duration::ZERO,
        ..Facts::new(&config(byte))
    }
}

#[test]
fn one_machine_always_agrees_with_itself_and_two_differ() {
    let view = |facts: &Facts| {
        let mut text = format!("{} {} {}", facts.memory_kib, facts.installed, facts.period);
        for (path, node) in facts.tree().below("/") {
            text.push_str(&format!("{path} {node:?}\n"));
        }
        text
    };
    assert_eq!(view(&facts(1)), view(&facts(1)));
    assert_ne!(view(&facts(1)), view(&facts(2)));
}

#[test]
fn a_restart_of_the_decky_is_no_restart_of_the_machine() {
    let facts = facts(3);
    let now = OffsetDateTime::from_unix_timestamp(1_790_000_000).expect("in range");
    let booted = facts.booted(now);
    assert!(booted < now);
    assert_eq!(facts.booted(now + Duration::hours(1)), booted);
    assert_eq!(
        facts.uptime(now + Duration::hours(1)) - facts.uptime(now),
        Duration::hours(1)
    );
    let later = now + Duration::days(400);
    assert!(facts.booted(later) > booted && facts.uptime(later) < Duration::days(180));
}

#[test]
fn every_persona_has_a_machine() {
    for persona in Persona::ALL {
        let config = DeckyConfig {
            persona,
            ..config(9)
        };
        let facts = Facts::new(&config);
        assert!(!facts.release.ssh.is_empty());
        assert!(facts.tree().get("/etc/passwd").is_some());
        let plain_linux = matches!(persona, Persona::Linux | Persona::Embedded);
        assert_eq!(facts.accept_after() > 0, plain_linux, "{persona}");
    }
}
