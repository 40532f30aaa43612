//! Which options each service takes. What an option means is carried out in the decky.

use super::OptionDefault::{Boolean, Integer, Seeded, Text, Unset};
use super::{OptionDefault, OptionRule, OptionSchema, ServiceKind};

const fn text(
    name: &'static str,
    max: usize,
    default: OptionDefault,
    help: &'static str,
) -> OptionSchema {
    OptionSchema {
        name,
        rule: OptionRule::Text { max },
        default,
        help,
    }
}

const fn flag(name: &'static str, default: OptionDefault, help: &'static str) -> OptionSchema {
    OptionSchema {
        name,
        rule: OptionRule::Boolean,
        default,
        help,
    }
}

const fn number(
    name: &'static str,
    (min, max): (i64, i64),
    default: OptionDefault,
    help: &'static str,
) -> OptionSchema {
    OptionSchema {
        name,
        rule: OptionRule::Integer { min, max },
        default,
        help,
    }
}

const fn choice(
    name: &'static str,
    of: &'static [&'static str],
    default: OptionDefault,
    help: &'static str,
) -> OptionSchema {
    OptionSchema {
        name,
        rule: OptionRule::Choice { of },
        default,
        help,
    }
}

const ACCEPT_AFTER: OptionSchema = number(
    "accept_after",
    (0, 100),
    Seeded,
    "password attempts of one connection after which a login succeeds; 0 never lets anybody in",
);
const VERSION: OptionSchema = text(
    "version",
    100,
    Seeded,
    "version that the service says of itself",
);
const BANNER: OptionSchema = text(
    "banner",
    200,
    Seeded,
    "greeting line; from the seed when left out",
);
const TLS_NAME: OptionSchema = text(
    "tls_name",
    200,
    Seeded,
    "common name of the certificate; from the seed when left out",
);
const DOMAIN: OptionSchema = text(
    "domain",
    100,
    Seeded,
    "domain that the service says it belongs to",
);
const MTA: OptionSchema = text("mta", 200, Seeded, "host name in the answer to EHLO");
const PLANT: OptionSchema = choice(
    "plant",
    &["water", "factory", "substation", "hospital"],
    Text("water"),
    "the plant whose values are shown",
);
const SERVER: OptionSchema = text(
    "server",
    100,
    Seeded,
    "value of the Server header; from the seed when left out",
);
const TITLE: OptionSchema = text(
    "title",
    100,
    Seeded,
    "title of the start page; from the seed when left out",
);

/// The options of `kind`, each name once.
pub(super) const fn of(kind: ServiceKind) -> &'static [OptionSchema] {
    match kind {
        ServiceKind::Conpot | ServiceKind::Mqtt => const { &[PLANT] },
        ServiceKind::Dns => {
            const {
                &[
                    VERSION,
                    DOMAIN,
                    flag(
                        "recursion",
                        Boolean(false),
                        "whether it claims to resolve foreign names",
                    ),
                ]
            }
        }
        ServiceKind::DockerApi | ServiceKind::K8s | ServiceKind::Mongodb => const { &[VERSION] },
        ServiceKind::Elasticsearch => {
            const {
                &[
                    VERSION,
                    text("cluster_name", 100, Seeded, "name of the cluster"),
                ]
            }
        }
        ServiceKind::Ftp => {
            const {
                &[
                    text(
                        "banner",
                        200,
                        Seeded,
                        "text of the 220 greeting; from the seed when left out",
                    ),
                    flag("anonymous", Seeded, "whether an anonymous login succeeds"),
                ]
            }
        }
        ServiceKind::Http => const { &[SERVER, TITLE] },
        ServiceKind::Https => const { &[SERVER, TITLE, TLS_NAME] },
        ServiceKind::Imap | ServiceKind::Pop3 => const { &[BANNER, TLS_NAME, ACCEPT_AFTER] },
        ServiceKind::Ipp => {
            const {
                &[text(
                    "printer",
                    100,
                    Seeded,
                    "make and model of the printer",
                )]
            }
        }
        ServiceKind::Ldap => {
            const {
                &[
                    DOMAIN,
                    TLS_NAME,
                    flag(
                        "anonymous",
                        Boolean(true),
                        "whether an anonymous bind may search",
                    ),
                ]
            }
        }
        ServiceKind::Llmnr | ServiceKind::Tftp => &[],
        ServiceKind::Mssql => {
            const {
                &[
                    VERSION,
                    text(
                        "instance",
                        16,
                        Text("MSSQLSERVER"),
                        "name of the server's instance",
                    ),
                ]
            }
        }
        ServiceKind::Mysql | ServiceKind::Postgres => const { &[VERSION, ACCEPT_AFTER] },
        ServiceKind::Ntp => {
            const {
                &[number(
                    "stratum",
                    (1, 15),
                    Integer(3),
                    "distance from a reference clock",
                )]
            }
        }
        ServiceKind::Rdp => const { &[TLS_NAME, DOMAIN] },
        ServiceKind::Redis => {
            const {
                &[text(
                    "requirepass",
                    100,
                    Unset,
                    "password that AUTH must give; none when left out",
                )]
            }
        }
        ServiceKind::Sip => {
            const {
                &[
                    text("realm", 100, Seeded, "realm of the digest challenge"),
                    text("user_agent", 100, Seeded, "value of the Server header"),
                ]
            }
        }
        ServiceKind::Smb => {
            const {
                &[
                    DOMAIN,
                    text("share", 80, Seeded, "name of the share that is listed"),
                ]
            }
        }
        ServiceKind::Smtp | ServiceKind::SmtpRelay => const { &[BANNER, MTA, TLS_NAME] },
        ServiceKind::Snmp => {
            const {
                &[
                    text("community", 100, Text("public"), "community that may read"),
                    text("description", 200, Seeded, "value of sysDescr"),
                ]
            }
        }
        ServiceKind::Ssh => {
            const {
                &[
                    text(
                        "banner",
                        200,
                        Seeded,
                        "what follows `SSH-2.0-`; from the seed when left out",
                    ),
                    ACCEPT_AFTER,
                ]
            }
        }
        ServiceKind::Telnet => {
            const {
                &[
                    text(
                        "banner",
                        200,
                        Seeded,
                        "text before the login prompt; from the seed when left out",
                    ),
                    ACCEPT_AFTER,
                ]
            }
        }
        ServiceKind::Vnc => const { &[text("desktop", 100, Seeded, "name of the desktop")] },
        ServiceKind::Winrm => const { &[TLS_NAME, DOMAIN] },
    }
}
