//! What a decky is when nobody says: plausible, and the same each time.

use super::DraftDecky;
use crate::archetype::Archetype;
use crate::name::Hostname;
use crate::persona::Persona;
use crate::seed::Seed;

/// The persona of a decky for which none is written.
pub(super) fn usual_persona(written: &DraftDecky) -> Persona {
    let archetype: Option<Archetype> = written
        .archetype
        .as_ref()
        .and_then(|text| text.parse().ok());
    archetype.map_or_else(
        || {
            let services = written.services.iter().take(64);
            Persona::fitting(services.filter_map(|text| text.parse().ok()))
        },
        Archetype::persona,
    )
}

/// A host name as an administrator would give it, so that a decky never shows its own.
pub(super) fn seeded_hostname(seed: &Seed, persona: Persona) -> Hostname {
    let text = match persona {
        Persona::Windows => {
            let tail: String = seed
                .hex()
                .to_ascii_uppercase()
                .chars()
                .filter(char::is_ascii_alphanumeric)
                .take(7)
                .collect();
            format!("DESKTOP-{tail}")
        }
        Persona::WindowsServer => {
            let role = ["DC", "FS", "APP", "SQL", "WEB"][small(seed, "role", 5)];
            format!("SRV-{role}{:02}", 1 + small(seed, "number", 9))
        }
        Persona::Linux | Persona::Bsd => {
            let role = ["web", "app", "db", "mail", "git", "proxy", "backup", "ci"]
                [small(seed, "role", 8)];
            format!("{role}{:02}", 1 + small(seed, "number", 9))
        }
        Persona::Embedded => format!("cam-{:04x}", small(seed, "number", 0xffff)),
        Persona::Cisco => format!("sw-{:02}", 1 + small(seed, "number", 48)),
    };
    Hostname::parse(&text).expect("made of letters, digits and hyphens, and short")
}

fn small(seed: &Seed, purpose: &str, bound: u64) -> usize {
    usize::try_from(seed.pick(&format!("hostname {purpose}"), bound)).unwrap_or(0)
}
