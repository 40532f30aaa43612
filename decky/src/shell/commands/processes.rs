//! What seems to run on the machine: the kernel's threads, the system's daemons, the services
//! that really answer, and the session itself.

use domain::service::ServiceKind;
use time::macros::format_description;

use super::super::Shell;
use super::Call;

/// What the list takes: the figures of each process are derived.
const LIST_WORK: usize = 32 * 1024;

/// One process of the list.
pub(super) struct Process {
    pub(super) user: String,
    pub(super) pid: u64,
    pub(super) parent: u64,
    pub(super) terminal: &'static str,
    pub(super) command: String,
    /// Whether it started with the login, and not with the machine.
    pub(super) young: bool,
}

/// The daemon of a service: its user and command line.
pub(super) fn daemon(shell: &Shell, kind: ServiceKind) -> (&'static str, &'static str) {
    let server = shell
        .facts
        .seed
        .choose("http", shell.facts.release.http)
        .copied()
        .unwrap_or_default();
    // What else there is in the catalogue has no daemon that could run here.
    #[allow(
        clippy::wildcard_enum_match_arm,
        reason = "a service without an implementation never starts, so it has no process"
    )]
    match kind {
        ServiceKind::Ssh => (
            "root",
            "sshd: /usr/sbin/sshd -D [listener] 0 of 10-100 startups",
        ),
        ServiceKind::Telnet => ("root", "/usr/sbin/inetd"),
        ServiceKind::Ftp => ("root", "/usr/sbin/vsftpd /etc/vsftpd.conf"),
        ServiceKind::Redis => ("redis", "/usr/bin/redis-server 0.0.0.0:6379"),
        ServiceKind::Http if server.starts_with("nginx") => (
            "root",
            "nginx: master process /usr/sbin/nginx -g daemon on; master_process on;",
        ),
        ServiceKind::Http => ("root", "/usr/sbin/apache2 -k start"),
        _ => ("root", "/usr/sbin/init"),
    }
}

/// The number of the process that serves `kind`.
pub(super) fn pid_of(shell: &Shell, kind: ServiceKind) -> u64 {
    640 + shell.facts.seed.pick(&format!("pid {kind}"), 400)
}

impl Shell {
    pub(super) fn processes(&self) -> Vec<Process> {
        let process = |user: &str, pid: u64, parent: u64, terminal, command: &str| Process {
            user: user.to_owned(),
            pid,
            parent,
            terminal,
            command: command.to_owned(),
            young: false,
        };
        let mut list = vec![process("root", 1, 0, "?", "/sbin/init")];
        for (pid, thread) in [
            (2, "[kthreadd]"),
            (3, "[rcu_gp]"),
            (4, "[rcu_par_gp]"),
            (10, "[mm_percpu_wq]"),
            (13, "[ksoftirqd/0]"),
            (14, "[rcu_sched]"),
            (15, "[migration/0]"),
            (23, "[kdevtmpfs]"),
            (30, "[kswapd0]"),
            (98, "[scsi_eh_0]"),
            (176, "[jbd2/sda1-8]"),
            (177, "[ext4-rsv-conver]"),
        ] {
            list.push(process(
                "root",
                pid,
                if pid == 2 { 0 } else { 2 },
                "?",
                thread,
            ));
        }
        let base = 210 + self.facts.seed.pick("pid base", 90);
        for (offset, user, command) in [
            (0, "root", "/lib/systemd/systemd-journald"),
            (22, "root", "/lib/systemd/systemd-udevd"),
            (180, "root", "/usr/sbin/cron -f"),
            (
                181,
                "message+",
                "/usr/bin/dbus-daemon --system --address=systemd: --nofork --nopidfile --systemd-activation --syslog-only",
            ),
            (189, "root", "/usr/sbin/rsyslogd -n -iNONE"),
            (192, "root", "/lib/systemd/systemd-logind"),
            (
                240,
                "root",
                "/sbin/agetty -o -p -- \\u --noclear tty1 linux",
            ),
        ] {
            list.push(process(user, base + offset, 1, "?", command));
        }
        for kind in self.facts.services() {
            let (user, command) = daemon(self, kind);
            list.push(process(user, pid_of(self, kind), 1, "?", command));
        }
        let own = 1200 + self.facts.seed.pick("pid", 20_000);
        let user = &self.login.user;
        let parent = self
            .facts
            .services()
            .first()
            .map_or(1, |kind| pid_of(self, *kind));
        list.push(process(
            "root",
            own - 12,
            parent,
            "?",
            &format!("sshd: {user} [priv]"),
        ));
        list.push(process(
            user,
            own - 2,
            own - 12,
            "?",
            &format!("sshd: {user}@pts/0"),
        ));
        list.push(process(user, own, own - 2, "pts/0", "-bash"));
        for process in list.iter_mut().rev().take(3) {
            process.young = true;
        }
        list.sort_by_key(|process| process.pid);
        list
    }
}

pub(super) fn run(shell: &Shell, call: &mut Call<'_>) -> u8 {
    match call.name {
        "kill" | "pkill" if call.args.is_empty() => {
            call.error("kill: usage: kill [-s sigspec | -n signum | -sigspec] pid | jobspec ... or kill -l [sigspec]\n");
            2
        }
        "kill" => {
            let pid = call.operands().first().cloned().unwrap_or_default();
            let known = shell
                .processes()
                .iter()
                .any(|process| process.pid.to_string() == pid);
            let why = if known {
                "Operation not permitted"
            } else {
                "No such process"
            };
            let text = format!("{}: kill: ({pid}) - {why}\n", shell.name());
            call.error(text);
            1
        }
        "pkill" => 1,
        "systemctl" => 0,
        _ => ps(shell, call),
    }
}

fn ps(shell: &Shell, call: &mut Call<'_>) -> u8 {
    if !shell.budget.spend(LIST_WORK) {
        return 1;
    }
    let booted = shell.facts.booted(shell.now);
    let format = if shell.now - booted > time::Duration::days(1) {
        booted.format(format_description!("[month repr:short][day]"))
    } else {
        booted.format(format_description!("[hour]:[minute]"))
    };
    let started = format.unwrap_or_default();
    let young = shell
        .login
        .at
        .format(format_description!("[hour]:[minute]"))
        .unwrap_or_default();
    let start = |process: &Process| {
        if process.young {
            young.clone()
        } else {
            started.clone()
        }
    };
    let own = 1200 + shell.facts.seed.pick("pid", 20_000) + shell.history.len() as u64 * 7 + 9;
    let mut list = shell.processes();
    let line: Vec<&str> = call.args.iter().map(String::as_str).collect();
    list.push(Process {
        user: shell.account.name.clone(),
        pid: own,
        parent: own - 9,
        terminal: "pts/0",
        command: format!("{} {}", call.name, line.join(" "))
            .trim_end()
            .to_owned(),
        young: true,
    });
    let first = call.args.first().map(String::as_str).unwrap_or_default();
    let size = |process: &Process, what: &str, most: u64| {
        if process.command.starts_with('[') {
            0
        } else {
            800 + shell
                .facts
                .seed
                .pick(&format!("{what} {}", process.command), most)
        }
    };
    if call.name == "top" || (first.contains('a') && first.contains('u')) {
        call.say("USER         PID %CPU %MEM    VSZ   RSS TTY      STAT START   TIME COMMAND");
        for process in &list {
            let (virt, real) = (
                size(process, "vsz", 160_000) + 12_000,
                size(process, "rss", 12_000),
            );
            let virt = if real == 0 { 0 } else { virt };
            let percent =
                f64::from(u32::try_from(real * 1000 / shell.facts.memory_kib.max(1)).unwrap_or(0))
                    / 10.0;
            let state = if process.pid == own { "R+" } else { "Ss" };
            call.say(format!(
                "{:<8} {:>7}  0.0 {percent:>4.1} {virt:>6} {real:>5} {:<8} {state:<4} {:<7} 0:00 {}",
                process.user, process.pid, process.terminal, start(process), process.command
            ));
        }
    } else if first.contains('e') || first.contains('A') || first.contains('a') {
        call.say("UID          PID    PPID  C STIME TTY          TIME CMD");
        for process in &list {
            call.say(format!(
                "{:<8} {:>7} {:>7}  0 {} {:<8} 00:00:00 {}",
                process.user,
                process.pid,
                process.parent,
                start(process),
                process.terminal,
                process.command
            ));
        }
    } else {
        call.say("    PID TTY          TIME CMD");
        for process in list.iter().filter(|process| process.terminal != "?") {
            let name = process
                .command
                .trim_start_matches('-')
                .split(' ')
                .next()
                .unwrap_or_default();
            call.say(format!(
                "{:>7} {:<8} 00:00:00 {name}",
                process.pid, process.terminal
            ));
        }
    }
    0
}
