//! The facts about the machine that a decky shows, all derived from its seed.
//!
//! Every service and command takes its facts from here, so that they agree with each other.

mod releases;
mod tree;

use std::sync::{OnceLock, PoisonError, RwLock};

use domain::persona::Persona;
use domain::seed::Seed;
use domain::service::ServiceKind;
use proto::decky_config::DeckyConfig;
use time::{Duration, OffsetDateTime};

pub(crate) use self::releases::{Family, Release};
pub(crate) use self::tree::{Content, Live, Node, NodeKind, PROGRAMS, Tree};

/// An account of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) name: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) gecos: String,
    pub(crate) home: String,
    pub(crate) shell: String,
}

/// A processor as `/proc/cpuinfo` names it.
#[derive(Debug)]
pub(crate) struct Cpu {
    pub(crate) model: &'static str,
    pub(crate) family: u32,
    pub(crate) number: u32,
    pub(crate) stepping: u32,
    pub(crate) mhz: &'static str,
    pub(crate) cache_kib: u32,
}

/// Processors that servers of the releases' years have.
const CPUS: [Cpu; 6] = [
    Cpu {
        model: "Intel(R) Xeon(R) CPU E5-2680 v4 @ 2.40GHz",
        family: 6,
        number: 79,
        stepping: 1,
        mhz: "2399.998",
        cache_kib: 35840,
    },
    Cpu {
        model: "Intel(R) Xeon(R) Silver 4214 CPU @ 2.20GHz",
        family: 6,
        number: 85,
        stepping: 7,
        mhz: "2194.842",
        cache_kib: 16896,
    },
    Cpu {
        model: "Intel(R) Xeon(R) Gold 6230 CPU @ 2.10GHz",
        family: 6,
        number: 85,
        stepping: 7,
        mhz: "2095.078",
        cache_kib: 28160,
    },
    Cpu {
        model: "AMD EPYC 7402P 24-Core Processor",
        family: 23,
        number: 49,
        stepping: 0,
        mhz: "2794.748",
        cache_kib: 512,
    },
    Cpu {
        model: "AMD EPYC 7313P 16-Core Processor",
        family: 25,
        number: 1,
        stepping: 1,
        mhz: "2994.372",
        cache_kib: 512,
    },
    Cpu {
        model: "Intel(R) Xeon(R) E-2236 CPU @ 3.40GHz",
        family: 6,
        number: 158,
        stepping: 10,
        mhz: "3407.999",
        cache_kib: 12288,
    },
];

const PEOPLE: [(&str, &str); 16] = [
    ("james", "James Carter"),
    ("mkowalski", "Marek Kowalski"),
    ("deploy", ""),
    ("sarah", "Sarah Lindqvist"),
    ("backup-op", "Backup Operator"),
    ("tomh", "Tom Hughes"),
    ("anna", "Anna Weber"),
    ("jenkins", "Jenkins"),
    ("pgarcia", "Pablo Garcia"),
    ("lchen", "Lin Chen"),
    ("webadmin", "Web Administrator"),
    ("oleg", "Oleg Marin"),
    ("sysop", "System Operator"),
    ("nina", "Nina Rossi"),
    ("dev", "Developer"),
    ("rjones", "Rhys Jones"),
];

/// Accounts that every Debian has, by name, uid, gid, home and shell.
const SYSTEM_ACCOUNTS: [(&str, u32, u32, &str, &str); 18] = [
    ("daemon", 1, 1, "/usr/sbin", "/usr/sbin/nologin"),
    ("bin", 2, 2, "/bin", "/usr/sbin/nologin"),
    ("sys", 3, 3, "/dev", "/usr/sbin/nologin"),
    ("sync", 4, 65534, "/bin", "/bin/sync"),
    ("games", 5, 60, "/usr/games", "/usr/sbin/nologin"),
    ("man", 6, 12, "/var/cache/man", "/usr/sbin/nologin"),
    ("lp", 7, 7, "/var/spool/lpd", "/usr/sbin/nologin"),
    ("mail", 8, 8, "/var/mail", "/usr/sbin/nologin"),
    ("news", 9, 9, "/var/spool/news", "/usr/sbin/nologin"),
    ("uucp", 10, 10, "/var/spool/uucp", "/usr/sbin/nologin"),
    ("proxy", 13, 13, "/bin", "/usr/sbin/nologin"),
    ("www-data", 33, 33, "/var/www", "/usr/sbin/nologin"),
    ("backup", 34, 34, "/var/backups", "/usr/sbin/nologin"),
    ("list", 38, 38, "/var/list", "/usr/sbin/nologin"),
    ("nobody", 65534, 65534, "/nonexistent", "/usr/sbin/nologin"),
    ("_apt", 100, 65534, "/nonexistent", "/usr/sbin/nologin"),
    ("messagebus", 103, 109, "/nonexistent", "/usr/sbin/nologin"),
    ("sshd", 105, 65534, "/run/sshd", "/usr/sbin/nologin"),
];

/// Everything about the machine that somebody outside can see or compare.
pub(crate) struct Facts {
    pub(crate) seed: Seed,
    pub(crate) persona: Persona,
    pub(crate) hostname: String,
    pub(crate) release: &'static Release,
    pub(crate) cpu: &'static Cpu,
    pub(crate) cores: u32,
    pub(crate) memory_kib: u64,
    pub(crate) disk_kib: u64,
    pub(crate) accounts: Vec<Account>,
    /// What it serves at the moment, for what listens and what runs.
    services: RwLock<Vec<ServiceKind>>,
    /// How long a failed login takes to fail.
    pub(crate) fail_delay: std::time::Duration,
    installed: OffsetDateTime,
    period: i64,
    tree: OnceLock<Tree>,
}

/// A time after each release in the table, before any decky of this version ran.
const EPOCH: i64 = 1_735_689_600; // 2025-01-01

impl Facts {
    pub(crate) fn new(config: &DeckyConfig) -> Self {
        let seed = config.seed;
        let release = Release::choose(config.persona, &seed);
        let cpu = seed.choose("cpu", &CPUS).unwrap_or(&CPUS[0]);
        let cores = [1, 2, 2, 4, 4, 8];
        let memory = [1, 2, 2, 4, 8, 16];
        let size = usize::try_from(seed.pick("size", 6)).unwrap_or(0);
        let (cores, memory) = match release.family {
            Family::Embedded => (1, 1),
            Family::Debian | Family::Bsd | Family::Windows | Family::Cisco => {
                (cores[size], memory[size])
            }
        };
        // What firmware and kernel keep for themselves differs from machine to machine.
        let reserved = 31_000 + seed.pick("memory reserved", 30_000);
        let disk = [20_u64, 40, 40, 80, 160, 240][size];
        let installed = EPOCH - i64::try_from(seed.pick("installed", 300 * 86_400)).unwrap_or(0);
        Self {
            seed,
            persona: config.persona,
            hostname: config.hostname.as_str().to_owned(),
            release,
            cpu,
            cores,
            memory_kib: memory * 1024 * 1024 - reserved,
            disk_kib: disk * 1024 * 1024 - 3_100_000,
            accounts: accounts(&seed),
            services: RwLock::new(config.services.keys().copied().collect()),
            fail_delay: std::time::Duration::from_millis(900 + seed.pick("fail delay", 1400)),
            installed: OffsetDateTime::from_unix_timestamp(installed)
                .unwrap_or(OffsetDateTime::UNIX_EPOCH),
            // Between reboots, in seconds: whoever looks twice sees one machine go on.
            period: 86_400 * 19 + i64::try_from(seed.pick("reboots", 86_400 * 160)).unwrap_or(0),
            tree: OnceLock::new(),
        }
    }

    /// Whether a machine of `config` would have these facts, whatever it serves.
    pub(crate) fn agree_with(&self, config: &DeckyConfig) -> bool {
        self.seed == config.seed
            && self.persona == config.persona
            && self.hostname == config.hostname.as_str()
    }

    /// What it serves at the moment.
    pub(crate) fn services(&self) -> Vec<ServiceKind> {
        self.services
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Says what it serves from here on.
    pub(crate) fn serves(&self, services: Vec<ServiceKind>) {
        *self
            .services
            .write()
            .unwrap_or_else(PoisonError::into_inner) = services;
    }

    /// When the machine was installed.
    pub(crate) fn installed(&self) -> OffsetDateTime {
        self.installed
    }

    /// When it booted: the last of a series of seeded moments, so that a restart of the decky is
    /// no restart of the machine.
    pub(crate) fn booted(&self, now: OffsetDateTime) -> OffsetDateTime {
        let since = (now - self.installed).whole_seconds();
        let boots = since.div_euclid(self.period);
        self.installed + Duration::seconds(boots * self.period)
    }

    /// How long it has been up.
    pub(crate) fn uptime(&self, now: OffsetDateTime) -> Duration {
        now - self.booted(now)
    }

    /// The account of `name`, if the machine has it.
    pub(crate) fn account(&self, name: &str) -> Option<&Account> {
        self.accounts.iter().find(|account| account.name == name)
    }

    /// The file tree as it was before anybody touched it; made when it is first wanted.
    pub(crate) fn tree(&self) -> &Tree {
        self.tree.get_or_init(|| Tree::of(self))
    }

    /// `length` characters of `alphabet` for one purpose.
    pub(crate) fn text(&self, purpose: &str, alphabet: &[u8], length: usize) -> String {
        (0..length)
            .filter_map(|at| self.seed.choose(&format!("{purpose} {at}"), alphabet))
            .map(|byte| char::from(*byte))
            .collect()
    }

    /// Lower-case hexadecimal digits for one purpose, at most 64.
    pub(crate) fn hex(&self, purpose: &str, length: usize) -> String {
        let mut text = hex::encode(self.seed.derive(purpose));
        text.truncate(length);
        text
    }

    /// Password attempts after which a login succeeds when the operator did not say.
    ///
    /// The shell is a Linux one: a machine that shows another system lets nobody in by itself.
    pub(crate) fn accept_after(&self) -> u64 {
        match self.release.family {
            Family::Debian | Family::Embedded => 1 + self.seed.pick("accept after", 3),
            Family::Bsd | Family::Windows | Family::Cisco => 0,
        }
    }
}

fn accounts(seed: &Seed) -> Vec<Account> {
    let account = |name: &str, uid: u32, gid: u32, gecos: &str, home: &str, shell: &str| Account {
        name: name.to_owned(),
        uid,
        gid,
        gecos: gecos.to_owned(),
        home: home.to_owned(),
        shell: shell.to_owned(),
    };
    let mut accounts = vec![account("root", 0, 0, "root", "/root", "/bin/bash")];
    for (name, uid, gid, home, shell) in SYSTEM_ACCOUNTS {
        accounts.push(account(name, uid, gid, name, home, shell));
    }
    let first = seed.pick("person", PEOPLE.len() as u64);
    let count = 1 + seed.pick("people", 3);
    for (uid, step) in (1000_u32..).zip(0..count) {
        let index = usize::try_from((first + step * 5) % PEOPLE.len() as u64).unwrap_or(0);
        let (name, gecos) = PEOPLE[index];
        let home = format!("/home/{name}");
        accounts.push(account(
            name,
            uid,
            uid,
            &format!("{gecos},,,"),
            &home,
            "/bin/bash",
        ));
    }
    accounts
}

#[cfg(test)]
pub(crate) mod tests;
