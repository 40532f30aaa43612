//! The file tree of the machine as it was before anybody touched it.

use std::collections::BTreeMap;

use time::{Duration, OffsetDateTime};

use super::{Account, Facts, Family};

/// A file, directory or link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) kind: NodeKind,
    /// The permission bits.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) modified: OffsetDateTime,
}

/// What a node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NodeKind {
    Directory,
    File(Content),
    Link(String),
}

/// What a file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Content {
    /// These bytes.
    Bytes(Vec<u8>),
    /// What is true at the moment when it is read.
    Live(Live),
    /// A program of this size.
    Program(u64),
}

/// Files whose content changes by itself, or depends on who is logged in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Live {
    Passwd,
    Shadow,
    Group,
    Uptime,
    Loadavg,
    Meminfo,
    Cpuinfo,
    Version,
    Mounts,
    Hosts,
}

/// The nodes of a machine by absolute path.
pub(crate) struct Tree(BTreeMap<String, Node>);

/// Programs that the shell answers for, with the directory where each lives.
pub(crate) const PROGRAMS: &[(&str, &str)] = &[
    ("/usr/bin", "awk"),
    ("/usr/bin", "base64"),
    ("/bin", "bash"),
    ("/bin", "busybox"),
    ("/bin", "cat"),
    ("/usr/sbin", "chpasswd"),
    ("/bin", "chmod"),
    ("/bin", "chown"),
    ("/usr/bin", "clear"),
    ("/bin", "cp"),
    ("/usr/bin", "crontab"),
    ("/usr/bin", "curl"),
    ("/usr/bin", "cut"),
    ("/bin", "date"),
    ("/bin", "dd"),
    ("/bin", "df"),
    ("/bin", "dmesg"),
    ("/usr/bin", "du"),
    ("/bin", "echo"),
    ("/usr/bin", "env"),
    ("/bin", "false"),
    ("/usr/bin", "find"),
    ("/usr/bin", "free"),
    ("/bin", "grep"),
    ("/usr/bin", "groups"),
    ("/usr/bin", "head"),
    ("/bin", "hostname"),
    ("/usr/bin", "id"),
    ("/sbin", "ifconfig"),
    ("/sbin", "ip"),
    ("/bin", "kill"),
    ("/usr/bin", "last"),
    ("/bin", "ln"),
    ("/usr/bin", "lscpu"),
    ("/bin", "ls"),
    ("/bin", "mkdir"),
    ("/bin", "mv"),
    ("/bin", "netstat"),
    ("/usr/bin", "nohup"),
    ("/usr/bin", "nproc"),
    ("/usr/bin", "passwd"),
    ("/usr/bin", "perl"),
    ("/bin", "ping"),
    ("/usr/bin", "pkill"),
    ("/bin", "ps"),
    ("/usr/bin", "python3"),
    ("/bin", "rm"),
    ("/bin", "rmdir"),
    ("/bin", "sed"),
    ("/bin", "sh"),
    ("/bin", "sleep"),
    ("/usr/bin", "sort"),
    ("/bin", "ss"),
    ("/usr/bin", "ssh"),
    ("/usr/bin", "sudo"),
    ("/bin", "su"),
    ("/usr/bin", "systemctl"),
    ("/usr/bin", "tail"),
    ("/bin", "tar"),
    ("/usr/bin", "test"),
    ("/usr/bin", "top"),
    ("/bin", "touch"),
    ("/usr/bin", "tr"),
    ("/bin", "true"),
    ("/bin", "uname"),
    ("/usr/bin", "uniq"),
    ("/usr/bin", "uptime"),
    ("/usr/bin", "vi"),
    ("/usr/bin", "w"),
    ("/usr/bin", "wc"),
    ("/usr/bin", "wget"),
    ("/usr/bin", "which"),
    ("/usr/bin", "who"),
    ("/usr/bin", "whoami"),
    ("/usr/bin", "xargs"),
];

const DIRECTORIES: &[&str] = &[
    "/boot",
    "/dev",
    "/dev/pts",
    "/etc/apt",
    "/etc/cron.d",
    "/etc/cron.daily",
    "/etc/default",
    "/etc/init.d",
    "/etc/network",
    "/etc/ssh",
    "/etc/ssl",
    "/etc/ssl/certs",
    "/etc/systemd",
    "/etc/systemd/system",
    "/home",
    "/media",
    "/mnt",
    "/opt",
    "/proc/1",
    "/proc/net",
    "/proc/self",
    "/run",
    "/run/lock",
    "/srv",
    "/sys",
    "/sys/class",
    "/sys/kernel",
    "/usr/include",
    "/usr/lib",
    "/usr/local/bin",
    "/usr/local/lib",
    "/usr/local/share",
    "/usr/sbin",
    "/usr/share",
    "/usr/share/doc",
    "/usr/src",
    "/var/backups",
    "/var/cache",
    "/var/cache/apt",
    "/var/lib",
    "/var/lib/dpkg",
    "/var/lib/systemd",
    "/var/local",
    "/var/mail",
    "/var/opt",
    "/var/spool",
    "/var/spool/cron",
];

struct Builder<'a> {
    facts: &'a Facts,
    nodes: BTreeMap<String, Node>,
}

impl Tree {
    /// The tree of `facts`.
    pub(super) fn of(facts: &Facts) -> Self {
        let mut builder = Builder {
            facts,
            nodes: BTreeMap::new(),
        };
        builder.directory("/", 0o755, 0);
        for path in DIRECTORIES {
            builder.directory(path, 0o755, 0);
        }
        for path in ["/tmp", "/var/tmp", "/dev/shm"] {
            builder.directory(path, 0o1777, 0);
        }
        let merged = facts.release.family != Family::Embedded;
        if merged {
            for directory in ["bin", "sbin", "lib", "lib64"] {
                builder.directory(&format!("/usr/{directory}"), 0o755, 0);
                builder.link(&format!("/{directory}"), &format!("usr/{directory}"));
            }
        }
        for (directory, program) in PROGRAMS {
            let directory = match *directory {
                "/bin" if merged => "/usr/bin",
                "/sbin" if merged => "/usr/sbin",
                directory => directory,
            };
            let size = 18_000 + facts.seed.pick(&format!("size of {program}"), 120_000);
            builder.node(
                &format!("{directory}/{program}"),
                0o755,
                0,
                NodeKind::File(Content::Program(size)),
            );
        }
        builder.etc();
        builder.proc();
        builder.logs();
        for account in &facts.accounts {
            if account.uid == 0 || (1000..65534).contains(&account.uid) {
                builder.home(account);
            }
        }
        builder.web();
        Self(builder.nodes)
    }

    /// The node at an absolute path without `.`, `..` or links.
    pub(crate) fn get(&self, path: &str) -> Option<&Node> {
        self.0.get(path)
    }

    /// The paths and nodes below a directory, at any depth.
    pub(crate) fn below<'t>(
        &'t self,
        path: &str,
    ) -> impl Iterator<Item = (&'t String, &'t Node)> + use<'t> {
        let prefix = if path == "/" {
            "/".to_owned()
        } else {
            format!("{path}/")
        };
        self.0
            .range(prefix.clone()..)
            .take_while(move |(other, _)| other.starts_with(&prefix))
            .filter(|(other, _)| *other != "/")
    }
}

impl Builder<'_> {
    fn node(&mut self, path: &str, mode: u32, uid: u32, kind: NodeKind) {
        if let Some((parent, _)) = path.rsplit_once('/')
            && !parent.is_empty()
            && !self.nodes.contains_key(parent)
        {
            self.directory(parent, 0o755, 0);
        }
        // Files of a machine do not all stem from one second.
        let spread = self
            .facts
            .seed
            .pick(&format!("modified {path}"), 86_400 * 9);
        let modified =
            self.facts.installed() + Duration::seconds(i64::try_from(spread).unwrap_or(0));
        self.nodes.insert(
            path.to_owned(),
            Node {
                kind,
                mode,
                uid,
                gid: uid,
                modified,
            },
        );
    }

    fn directory(&mut self, path: &str, mode: u32, uid: u32) {
        self.node(path, mode, uid, NodeKind::Directory);
    }

    fn file(&mut self, path: &str, mode: u32, uid: u32, text: impl Into<String>) {
        let text: String = text.into();
        self.node(
            path,
            mode,
            uid,
            NodeKind::File(Content::Bytes(text.into_bytes())),
        );
    }

    fn live(&mut self, path: &str, mode: u32, live: Live) {
        self.node(path, mode, 0, NodeKind::File(Content::Live(live)));
    }

    fn link(&mut self, path: &str, target: &str) {
        self.node(path, 0o777, 0, NodeKind::Link(target.to_owned()));
    }

    fn etc(&mut self) {
        let facts = self.facts;
        let release = facts.release;
        let host = &facts.hostname;
        self.file("/etc/hostname", 0o644, 0, format!("{host}\n"));
        self.live("/etc/hosts", 0o644, Live::Hosts);
        self.live("/etc/passwd", 0o644, Live::Passwd);
        self.live("/etc/shadow", 0o640, Live::Shadow);
        self.live("/etc/group", 0o644, Live::Group);
        let family = if release.id == "ubuntu" {
            "ID_LIKE=debian\n"
        } else {
            ""
        };
        let name = release.pretty.split(' ').next().unwrap_or_default();
        let name = if release.id == "debian" {
            "Debian GNU/Linux"
        } else {
            name
        };
        let codename = release.codename;
        let number = release.number;
        let os_release = format!(
            "PRETTY_NAME=\"{}\"\nNAME=\"{name}\"\nVERSION_ID=\"{number}\"\nVERSION=\"{number} ({codename})\"\nVERSION_CODENAME={codename}\nID={}\n{family}",
            release.pretty, release.id,
        );
        self.file("/usr/lib/os-release", 0o644, 0, os_release);
        self.link("/etc/os-release", "/usr/lib/os-release");
        self.file(
            "/etc/issue",
            0o644,
            0,
            format!("{} \\n \\l\n\n", release.pretty),
        );
        self.file("/etc/issue.net", 0o644, 0, format!("{}\n", release.pretty));
        if release.id == "debian" {
            self.file("/etc/debian_version", 0o644, 0, format!("{number}.8\n"));
        }
        self.file(
            "/etc/machine-id",
            0o444,
            0,
            format!("{}\n", facts.hex("machine id", 32)),
        );
        self.file(
            "/etc/resolv.conf",
            0o644,
            0,
            "nameserver 127.0.0.53\noptions edns0 trust-ad\nsearch .\n",
        );
        self.file("/etc/fstab", 0o644, 0, format!(
            "# <file system> <mount point> <type> <options> <dump> <pass>\nUUID={} / ext4 errors=remount-ro 0 1\n",
            uuid::Builder::from_random_bytes(
                facts.seed.derive("root file system")[..16].try_into().unwrap_or_default()
            ).into_uuid(),
        ));
        self.file(
            "/etc/shells",
            0o644,
            0,
            "# /etc/shells: valid login shells\n/bin/sh\n/bin/bash\n/usr/bin/bash\n/bin/dash\n",
        );
        self.file("/etc/crontab", 0o644, 0, "SHELL=/bin/sh\nPATH=/usr/local/sbin:/usr/local/bin:/sbin:/bin:/usr/sbin:/usr/bin\n\n17 *\t* * *\troot\tcd / && run-parts --report /etc/cron.hourly\n25 6\t* * *\troot\ttest -x /usr/sbin/anacron || { cd / && run-parts --report /etc/cron.daily; }\n");
        self.file("/etc/ssh/sshd_config", 0o644, 0, "Include /etc/ssh/sshd_config.d/*.conf\n\nPermitRootLogin yes\nKbdInteractiveAuthentication no\nUsePAM yes\nX11Forwarding yes\nPrintMotd no\nAcceptEnv LANG LC_*\nSubsystem\tsftp\t/usr/lib/openssh/sftp-server\n");
        self.file("/etc/profile", 0o644, 0, "# /etc/profile: system-wide .profile file for the Bourne shell (sh(1))\n\nif [ \"$(id -u)\" -eq 0 ]; then\n  PATH=\"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\"\nfi\nexport PATH\n");
        self.link("/etc/localtime", "/usr/share/zoneinfo/Etc/UTC");
        self.file("/usr/share/zoneinfo/Etc/UTC", 0o644, 0, "TZif2");
        self.file("/etc/timezone", 0o644, 0, "Etc/UTC\n");
    }

    fn proc(&mut self) {
        for (path, live) in [
            ("/proc/cpuinfo", Live::Cpuinfo),
            ("/proc/loadavg", Live::Loadavg),
            ("/proc/meminfo", Live::Meminfo),
            ("/proc/mounts", Live::Mounts),
            ("/proc/uptime", Live::Uptime),
            ("/proc/version", Live::Version),
        ] {
            self.live(path, 0o444, live);
        }
        self.file("/proc/filesystems", 0o444, 0, "nodev\tsysfs\nnodev\ttmpfs\nnodev\tproc\nnodev\tcgroup2\nnodev\tdevtmpfs\n\text3\n\text4\n\tvfat\n");
        self.file("/proc/1/comm", 0o444, 0, "systemd\n");
        self.file(
            "/proc/sys/kernel/hostname",
            0o644,
            0,
            format!("{}\n", self.facts.hostname),
        );
        self.file(
            "/proc/sys/kernel/osrelease",
            0o444,
            0,
            format!("{}\n", self.facts.release.kernel),
        );
        for device in ["null", "zero", "urandom", "random", "tty"] {
            self.file(&format!("/dev/{device}"), 0o666, 0, "");
        }
    }

    fn logs(&mut self) {
        let host = self.facts.hostname.clone();
        self.file("/var/log/dpkg.log", 0o644, 0, "");
        self.file("/var/log/auth.log", 0o640, 0, format!(
            "{host} systemd-logind[612]: New seat seat0.\n{host} systemd-logind[612]: Watching system buttons on /dev/input/event0 (Power Button)\n"
        ));
        self.file("/var/log/syslog", 0o640, 0, format!(
            "{host} systemd[1]: Started Daily apt download activities.\n{host} CRON[21873]: (root) CMD (   cd / && run-parts --report /etc/cron.hourly)\n"
        ));
        self.file("/var/log/wtmp", 0o664, 0, "");
        self.file("/var/log/lastlog", 0o664, 0, "");
        self.directory("/var/log/apt", 0o755, 0);
        self.directory("/var/log/journal", 0o2755, 0);
    }

    fn home(&mut self, account: &Account) {
        let (home, uid) = (account.home.as_str(), account.uid);
        self.directory(home, if uid == 0 { 0o700 } else { 0o755 }, uid);
        self.file(&format!("{home}/.bashrc"), 0o644, uid, "# ~/.bashrc: executed by bash(1) for non-login shells.\n\ncase $- in\n    *i*) ;;\n      *) return;;\nesac\n\nHISTCONTROL=ignoreboth\nshopt -s histappend\nHISTSIZE=1000\nHISTFILESIZE=2000\n");
        self.file(&format!("{home}/.profile"), 0o644, uid, "# ~/.profile: executed by the command interpreter for login shells.\n\nif [ -n \"$BASH_VERSION\" ]; then\n    if [ -f \"$HOME/.bashrc\" ]; then\n\t. \"$HOME/.bashrc\"\n    fi\nfi\n");
        if uid != 0 {
            self.file(
                &format!("{home}/.bash_logout"),
                0o644,
                uid,
                "# ~/.bash_logout: executed by bash(1) when login shell exits.\n",
            );
        }
        self.directory(&format!("{home}/.ssh"), 0o700, uid);
        self.file(&format!("{home}/.ssh/authorized_keys"), 0o600, uid, "");
        let history = [
            "df -h\nfree -m\napt update\napt upgrade\nreboot\n",
            "systemctl status ssh\njournalctl -xe\ntop\n",
            "ls -la\ncd /var/www/html\nls\nvi index.html\n",
            "ip a\nss -tlnp\nping -c 3 10.0.0.1\n",
        ];
        if let Some(text) = self.facts.seed.choose(&format!("history {home}"), &history) {
            self.file(&format!("{home}/.bash_history"), 0o600, uid, *text);
        }
        let notes = ["todo.txt", "notes.md", "backup.sh", "migrate.sql"];
        if let Some(name) = self.facts.seed.choose(&format!("note {home}"), &notes) {
            let text = match *name {
                "backup.sh" => "#!/bin/sh\ntar czf /var/backups/etc-$(date +%F).tgz /etc\n",
                "migrate.sql" => "ALTER TABLE customers ADD COLUMN vat_id varchar(20);\n",
                "notes.md" => {
                    "- renew certificate before the 1st\n- ask hosting about the second disk\n"
                }
                _ => "rotate logs\ncheck backup restore\n",
            };
            self.file(&format!("{home}/{name}"), 0o644, uid, text);
        }
    }

    fn web(&mut self) {
        if self.facts.release.family == Family::Embedded {
            return;
        }
        self.directory("/var/www", 0o755, 0);
        self.file("/var/www/html/index.html", 0o644, 0, "<!DOCTYPE html>\n<html><head><title>It works!</title></head><body><h1>It works!</h1></body></html>\n");
    }
}
