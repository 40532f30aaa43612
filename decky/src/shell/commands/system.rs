//! Commands about the machine and the session, and the files of `/proc` and `/etc` that agree
//! with them.

use time::macros::format_description;

use super::super::Shell;
use super::Call;
use crate::persona::{Account, Live};

impl Shell {
    /// What a live file holds at this moment.
    pub(super) fn live(&self, live: Live) -> String {
        let facts = &self.facts;
        let release = facts.release;
        match live {
            Live::Passwd => self.accounts().iter().map(passwd_line).collect(),
            Live::Shadow => self.accounts().iter().map(|account| {
                let day = (facts.installed().unix_timestamp() / 86_400).to_string();
                let hash = if account.shell.ends_with("nologin") || account.uid == 4 { "*".to_owned() } else {
                    const ALPHABET: &[u8] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
                    let salt = facts.text(&format!("salt {}", account.name), ALPHABET, 16);
                    let hash = facts.text(&format!("hash {}", account.name), ALPHABET, 86);
                    format!("$6${salt}${hash}")
                };
                format!("{}:{hash}:{day}:0:99999:7:::\n", account.name)
            }).collect(),
            Live::Group => self.accounts().iter().map(|account| {
                format!("{}:x:{}:\n", account.name, account.gid)
            }).collect(),
            Live::Uptime => {
                let up = self.uptime().as_seconds_f64();
                format!("{up:.2} {:.2}\n", up * f64::from(facts.cores) * 0.97)
            }
            Live::Loadavg => {
                let [one, five, fifteen] = self.load();
                let pid = 3000 + self.uptime().whole_seconds() % 28_000;
                format!("{one:.2} {five:.2} {fifteen:.2} 1/{} {pid}\n", 120 + facts.seed.pick("threads", 80))
            }
            Live::Meminfo => {
                let memory = self.memory();
                format!(
                    "MemTotal:       {:>8} kB\nMemFree:        {:>8} kB\nMemAvailable:   {:>8} kB\nBuffers:        {:>8} kB\nCached:         {:>8} kB\nSwapCached:            0 kB\nSwapTotal:      {:>8} kB\nSwapFree:       {:>8} kB\n",
                    memory.total, memory.free, memory.available, memory.cached / 12, memory.cached, memory.swap, memory.swap
                )
            }
            Live::Cpuinfo => (0..facts.cores).map(|core| self.cpuinfo(core)).collect(),
            Live::Version => format!("{} version {} {} {}\n", release.system, release.kernel, release.compiler, release.build),
            Live::Mounts => "sysfs /sys sysfs rw,nosuid,nodev,noexec,relatime 0 0\nproc /proc proc rw,nosuid,nodev,noexec,relatime 0 0\nudev /dev devtmpfs rw,nosuid,relatime,mode=755,inode64 0 0\ndevpts /dev/pts devpts rw,nosuid,noexec,relatime,gid=5,mode=620,ptmxmode=000 0 0\ntmpfs /run tmpfs rw,nosuid,nodev,noexec,relatime,mode=755,inode64 0 0\n/dev/sda1 / ext4 rw,relatime,errors=remount-ro 0 0\ntmpfs /dev/shm tmpfs rw,nosuid,nodev,inode64 0 0\n".to_owned(),
            Live::Hosts => format!(
                "127.0.0.1\tlocalhost\n127.0.1.1\t{}\n\n# The following lines are desirable for IPv6 capable hosts\n::1     localhost ip6-localhost ip6-loopback\nff02::1 ip6-allnodes\nff02::2 ip6-allrouters\n",
                facts.hostname
            ),
        }
    }

    /// Every account, the one that is logged in among them.
    fn accounts(&self) -> Vec<Account> {
        let mut accounts = self.facts.accounts.clone();
        let name = &self.login.user;
        if self.facts.account(name).is_none() {
            let uid = 1000 + u32::try_from(accounts.len()).unwrap_or(0);
            accounts.push(Account {
                name: name.clone(),
                uid,
                gid: uid,
                gecos: ",,,".to_owned(),
                home: format!("/home/{name}"),
                shell: "/bin/bash".to_owned(),
            });
        }
        accounts
    }

    /// Load averages: small, and moving by the minute.
    pub(super) fn load(&self) -> [f64; 3] {
        let minute = self.now.unix_timestamp() / 60;
        let load = |minutes: i64| {
            let pick = self
                .facts
                .seed
                .pick(&format!("load {}", minute / minutes), 24);
            f64::from(u32::try_from(pick).unwrap_or(0)) / 100.0
        };
        [load(1), load(5), load(15)]
    }

    fn memory(&self) -> Memory {
        let total = self.facts.memory_kib;
        let share = 18 + self.facts.seed.pick("memory used", 30);
        let moving = self
            .facts
            .seed
            .pick(&format!("memory {}", self.now.unix_timestamp() / 30), 9000);
        let used = total * share / 100 + moving;
        let cached = total * (25 + self.facts.seed.pick("memory cached", 25)) / 100;
        let free = total.saturating_sub(used + cached);
        Memory {
            total,
            used,
            free,
            cached,
            available: total.saturating_sub(used),
            swap: 999_420,
        }
    }

    fn cpuinfo(&self, core: u32) -> String {
        let facts = &self.facts;
        let cpu = facts.cpu;
        if facts.release.machine == "armv7l" {
            return format!(
                "processor\t: {core}\nmodel name\t: ARMv7 Processor rev 5 (v7l)\nBogoMIPS\t: 38.40\nFeatures\t: half thumb fastmult vfp edsp neon vfpv3 tls vfpv4 idiva idivt vfpd32 lpae evtstrm\nCPU implementer\t: 0x41\nCPU architecture: 7\nCPU variant\t: 0x0\nCPU part\t: 0xc07\nCPU revision\t: 5\n\n"
            );
        }
        let vendor = if cpu.model.starts_with("AMD") {
            "AuthenticAMD"
        } else {
            "GenuineIntel"
        };
        format!(
            "processor\t: {core}\nvendor_id\t: {vendor}\ncpu family\t: {}\nmodel\t\t: {}\nmodel name\t: {}\nstepping\t: {}\nmicrocode\t: 0x1\ncpu MHz\t\t: {}\ncache size\t: {} KB\nphysical id\t: 0\nsiblings\t: {}\ncore id\t\t: {core}\ncpu cores\t: {}\napicid\t\t: {core}\ninitial apicid\t: {core}\nfpu\t\t: yes\nfpu_exception\t: yes\ncpuid level\t: 13\nwp\t\t: yes\nflags\t\t: fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 ss ht syscall nx pdpe1gb rdtscp lm constant_tsc rep_good nopl xtopology cpuid pni pclmulqdq ssse3 fma cx16 sse4_1 sse4_2 movbe popcnt aes xsave avx f16c rdrand hypervisor lahf_lm\nbogomips\t: {:.2}\nclflush size\t: 64\ncache_alignment\t: 64\naddress sizes\t: 46 bits physical, 48 bits virtual\npower management:\n\n",
            cpu.family,
            cpu.number,
            cpu.model,
            cpu.stepping,
            cpu.mhz,
            cpu.cache_kib,
            facts.cores,
            facts.cores,
            cpu.mhz.parse::<f64>().unwrap_or(2000.0) * 2.0,
        )
    }

    /// ` 10:22:01 up 12 days,  3:04,  1 user,  load average: 0.08, 0.03, 0.01`
    pub(super) fn uptime_line(&self) -> String {
        let up = self.uptime();
        let days = up.whole_days();
        let (hours, minutes) = (up.whole_hours() % 24, up.whole_minutes() % 60);
        let days = match days {
            0 => String::new(),
            1 => "1 day, ".to_owned(),
            days => format!("{days} days, "),
        };
        let clock = if hours > 0 {
            format!("{hours:2}:{minutes:02}")
        } else {
            format!("{minutes} min")
        };
        let [one, five, fifteen] = self.load();
        format!(
            " {} up {days}{clock},  1 user,  load average: {one:.2}, {five:.2}, {fifteen:.2}",
            self.clock_text()
        )
    }

    fn clock_text(&self) -> String {
        self.now
            .format(format_description!("[hour]:[minute]:[second]"))
            .unwrap_or_default()
    }

    fn login_text(&self) -> String {
        self.login
            .at
            .format(format_description!("[hour]:[minute]"))
            .unwrap_or_default()
    }

    fn groups(&self) -> Vec<(u32, String)> {
        let mut groups = vec![(self.account.gid, self.account.name.clone())];
        if self.account.uid >= 1000 && self.facts.account(&self.account.name).is_some() {
            groups.extend([
                (4, "adm".to_owned()),
                (24, "cdrom".to_owned()),
                (27, "sudo".to_owned()),
            ]);
        }
        groups
    }
}

struct Memory {
    total: u64,
    used: u64,
    free: u64,
    cached: u64,
    available: u64,
    swap: u64,
}

fn passwd_line(account: &Account) -> String {
    let Account {
        name,
        uid,
        gid,
        gecos,
        home,
        shell,
    } = account;
    format!("{name}:x:{uid}:{gid}:{gecos}:{home}:{shell}\n")
}

/// Commands that only tell.
pub(super) fn run(shell: &Shell, call: &mut Call<'_>) -> u8 {
    let facts = &shell.facts;
    let user = shell.account.name.clone();
    match call.name {
        "whoami" => call.say(user),
        "id" => {
            let (uid, gid) = (shell.account.uid, shell.account.gid);
            if call.flag('u') {
                return call.say(if call.flag('n') { user } else { uid.to_string() });
            }
            let groups: Vec<String> =
                shell.groups().iter().map(|(gid, name)| format!("{gid}({name})")).collect();
            call.say(format!("uid={uid}({user}) gid={gid}({user}) groups={}", groups.join(",")))
        }
        "groups" => {
            let groups: Vec<String> = shell.groups().into_iter().map(|(_, name)| name).collect();
            call.say(groups.join(" "))
        }
        "hostname" if call.flag('I') || call.flag('i') => {
            let addresses: Vec<String> =
                shell.login.network.interfaces.iter().map(|each| each.address.to_string()).collect();
            call.say(format!("{} ", addresses.join(" ")))
        }
        "hostname" => call.say(&facts.hostname),
        "uname" => uname(shell, call),
        "uptime" => {
            if call.flag('s') {
                let format = format_description!("[year]-[month]-[day] [hour]:[minute]:[second]");
                return call.say(facts.booted(shell.now).format(format).unwrap_or_default());
            }
            call.say(shell.uptime_line())
        }
        "date" => date(shell, call),
        "nproc" => call.say(facts.cores.to_string()),
        "lscpu" => call.say(format!(
            "Architecture:            {}\n  CPU op-mode(s):        32-bit, 64-bit\n  Byte Order:            Little Endian\nCPU(s):                  {}\n  On-line CPU(s) list:   0-{}\nVendor ID:               {}\n  Model name:            {}\n    CPU family:          {}\n    Model:               {}\n    Thread(s) per core:  1\n    Core(s) per socket:  {}\n    Socket(s):           1",
            facts.release.machine, facts.cores, facts.cores - 1,
            if facts.cpu.model.starts_with("AMD") { "AuthenticAMD" } else { "GenuineIntel" },
            facts.cpu.model, facts.cpu.family, facts.cpu.number, facts.cores
        )),
        "df" => df(shell, call),
        "du" => call.say(format!("{}\t.", 4 * (1 + shell.files.list(&shell.cwd).len()))),
        "free" => free(shell, call),
        "env" => {
            for (name, value) in &shell.variables {
                call.say(format!("{name}={value}"));
            }
            0
        }
        "crontab" => {
            if call.flag('l') || call.args.is_empty() {
                call.error(format!("no crontab for {user}\n"));
                return 1;
            }
            0
        }
        "dmesg" => call.fail("read kernel buffer failed: Operation not permitted"),
        "last" => {
            let (source, at) = (shell.login.source.ip(), shell.login_text());
            let day = shell.login.at.format(format_description!("[weekday repr:short] [month repr:short] [day padding:space]")).unwrap_or_default();
            call.say(format!("{user:<8} pts/0        {source:<16} {day} {at}   still logged in\n"))
        }
        "w" | "who" => {
            let name = &shell.login.user;
            let (source, at) = (shell.login.source.ip(), shell.login_text());
            if call.name == "w" {
                call.say(shell.uptime_line());
                call.say("USER     TTY      FROM             LOGIN@   IDLE   JCPU   PCPU WHAT");
                call.say(format!("{name:<8} pts/0    {source:<16} {at}    0.00s  0.02s  0.00s w"))
            } else {
                let day = shell.login.at.format(format_description!("[year]-[month]-[day]")).unwrap_or_default();
                call.say(format!("{name:<8} pts/0        {day} {at} ({source})"))
            }
        }
        _ => 0,
    }
}

fn uname(shell: &Shell, call: &mut Call<'_>) -> u8 {
    let facts = &shell.facts;
    let release = facts.release;
    let all = call.flag('a') || call.args.iter().any(|arg| arg == "--all");
    let mut words = Vec::new();
    for (letter, word) in [
        ('s', release.system),
        ('n', facts.hostname.as_str()),
        ('r', release.kernel),
        ('v', release.build),
        ('m', release.machine),
        ('p', release.machine),
        ('i', release.machine),
        ('o', "GNU/Linux"),
    ] {
        // Debian's uname -a leaves out what -p and -i do not know.
        let known = release.id == "ubuntu" || !matches!(letter, 'p' | 'i');
        if (all && known) || call.flag(letter) {
            words.push(word);
        }
    }
    if words.is_empty() {
        words.push(release.system);
    }
    call.say(words.join(" "))
}

fn date(shell: &Shell, call: &mut Call<'_>) -> u8 {
    let now = shell.now;
    let Some(format) = call.args.iter().find_map(|arg| arg.strip_prefix('+')) else {
        let format = format_description!(
            "[weekday repr:short] [month repr:short] [day padding:space] [hour]:[minute]:[second] UTC [year]"
        );
        return call.say(now.format(format).unwrap_or_default());
    };
    let mut text = String::new();
    let mut rest = format.chars();
    while let Some(next) = rest.next() {
        if next != '%' {
            text.push(next);
            continue;
        }
        let two = |number: u8| format!("{number:02}");
        match rest.next() {
            Some('s') => text.push_str(&now.unix_timestamp().to_string()),
            Some('Y') => text.push_str(&now.year().to_string()),
            Some('m') => text.push_str(&two(u8::from(now.month()))),
            Some('d') => text.push_str(&two(now.day())),
            Some('H') => text.push_str(&two(now.hour())),
            Some('M') => text.push_str(&two(now.minute())),
            Some('S') => text.push_str(&two(now.second())),
            Some('F') => text.push_str(&now.date().to_string()),
            Some('T') => text.push_str(&shell.clock_text()),
            Some('N') => text.push_str(&format!("{:09}", now.nanosecond())),
            Some(other) => text.extend(['%', other]),
            None => text.push('%'),
        }
    }
    call.say(text)
}

fn df(shell: &Shell, call: &mut Call<'_>) -> u8 {
    let total = shell.facts.disk_kib;
    let used = total * (12 + shell.facts.seed.pick("disk used", 50)) / 100;
    let rows = [
        ("udev", shell.facts.memory_kib / 2, 0, "/dev"),
        ("tmpfs", shell.facts.memory_kib / 10, 900, "/run"),
        ("/dev/sda1", total, used, "/"),
        ("tmpfs", shell.facts.memory_kib / 2, 0, "/dev/shm"),
    ];
    let human = call.flag('h');
    let size = |kib: u64| {
        if !human {
            kib.to_string()
        } else if kib >= 1024 * 1024 {
            format!("{}G", kib.div_ceil(1024 * 1024))
        } else if kib >= 1024 {
            format!("{}M", kib.div_ceil(1024))
        } else {
            format!("{kib}K")
        }
    };
    let heading = if human {
        "Size  Used Avail Use%"
    } else {
        "1K-blocks    Used Available Use%"
    };
    call.say(format!("Filesystem     {heading} Mounted on"));
    for (name, total, used, place) in rows {
        let percent = used * 100 / total.max(1);
        let widths = if human { 5 } else { 9 };
        call.say(format!(
            "{name:<14} {:>widths$} {:>widths$} {:>widths$} {percent:>3}% {place}",
            size(total),
            size(used),
            size(total - used)
        ));
    }
    0
}

fn free(shell: &Shell, call: &mut Call<'_>) -> u8 {
    let memory = shell.memory();
    let unit = |kib: u64| {
        if call.flag('h') {
            if kib >= 1024 * 1024 {
                format!(
                    "{}.{}Gi",
                    kib / (1024 * 1024),
                    kib % (1024 * 1024) * 10 / (1024 * 1024)
                )
            } else {
                format!("{}Mi", kib / 1024)
            }
        } else if call.flag('m') {
            (kib / 1024).to_string()
        } else if call.flag('g') {
            (kib / 1024 / 1024).to_string()
        } else {
            kib.to_string()
        }
    };
    let lines = [
        "               total        used        free      shared  buff/cache   available"
            .to_owned(),
        format!(
            "Mem:     {:>11} {:>11} {:>11} {:>11} {:>11} {:>11}",
            unit(memory.total),
            unit(memory.used),
            unit(memory.free),
            unit(1240),
            unit(memory.cached),
            unit(memory.available)
        ),
        format!(
            "Swap:    {:>11} {:>11} {:>11}",
            unit(memory.swap),
            unit(0),
            unit(memory.swap)
        ),
    ];
    call.say(lines.join("\n"))
}

/// Commands about the session.
pub(super) fn session(shell: &mut Shell, call: &mut Call<'_>) -> u8 {
    match call.name {
        "export" => {
            for arg in call.args {
                if let Some((name, value)) = super::super::expand::assignment(arg) {
                    shell.set(name, value.to_owned());
                }
            }
            if call.args.is_empty() {
                for (name, value) in &shell.variables {
                    call.say(format!("declare -x {name}=\"{value}\""));
                }
            }
            0
        }
        "unset" => {
            for name in call.args {
                shell.variables.remove(name);
            }
            0
        }
        "history" => {
            if call.flag('c') {
                shell.history.clear();
            }
            for (index, line) in shell.history.iter().enumerate() {
                call.say(format!("{:5}  {line}", index + 1));
            }
            0
        }
        "exit" | "logout" => {
            shell.exited = true;
            call.args
                .first()
                .and_then(|arg| arg.parse().ok())
                .unwrap_or(shell.status)
        }
        "clear" => {
            call.out("\x1b[H\x1b[2J\x1b[3J");
            0
        }
        "passwd" if call.stdin.is_empty() => {
            call.fail("Authentication token manipulation error\npasswd: password unchanged")
        }
        "chpasswd" if shell.account.uid != 0 => {
            call.fail("cannot lock /etc/passwd; try again later.")
        }
        _ => 0,
    }
}
