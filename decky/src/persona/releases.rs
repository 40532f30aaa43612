//! Releases of operating systems with the versions that their packages had: observed, dated.
//!
//! Versions are those of the distributions' archives at the end of 2024 and in 2025. The next
//! release goes at the end of the list of its family.

use domain::persona::Persona;
use domain::seed::Seed;

/// What kind of system a release is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    Debian,
    Bsd,
    Embedded,
    Windows,
    Cisco,
}

/// One release of an operating system and what its programs say of themselves.
#[derive(Debug)]
pub(crate) struct Release {
    pub(crate) family: Family,
    /// `ID` of os-release.
    pub(crate) id: &'static str,
    /// `VERSION_ID` of os-release.
    pub(crate) number: &'static str,
    pub(crate) codename: &'static str,
    /// `PRETTY_NAME` of os-release.
    pub(crate) pretty: &'static str,
    /// The system's name in `uname -s`.
    pub(crate) system: &'static str,
    /// `uname -r`.
    pub(crate) kernel: &'static str,
    /// `uname -v`.
    pub(crate) build: &'static str,
    /// `uname -m`.
    pub(crate) machine: &'static str,
    /// The compiler in `/proc/version`.
    pub(crate) compiler: &'static str,
    /// What follows `SSH-2.0-`.
    pub(crate) ssh: &'static [&'static str],
    /// Server headers.
    pub(crate) http: &'static [&'static str],
    /// Greetings of FTP servers, without the code.
    pub(crate) ftp: &'static [&'static str],
    pub(crate) redis: &'static str,
    pub(crate) gcc: &'static str,
    /// What telnet shows before the login prompt; `%h` is the host name.
    pub(crate) issue: &'static str,
}

const DEBIAN: [Release; 5] = [
    Release {
        family: Family::Debian,
        id: "debian",
        number: "12",
        codename: "bookworm",
        pretty: "Debian GNU/Linux 12 (bookworm)",
        system: "Linux",
        kernel: "6.1.0-28-amd64",
        build: "#1 SMP PREEMPT_DYNAMIC Debian 6.1.119-1 (2024-11-22)",
        machine: "x86_64",
        compiler: "(debian-kernel@lists.debian.org) (gcc-12 (Debian 12.2.0-14) 12.2.0, GNU ld (GNU Binutils for Debian) 2.40)",
        ssh: &[
            "OpenSSH_9.2p1 Debian-2+deb12u3",
            "OpenSSH_9.2p1 Debian-2+deb12u4",
            "OpenSSH_9.2p1 Debian-2+deb12u2",
        ],
        http: &[
            "Apache/2.4.62 (Debian)",
            "Apache/2.4.61 (Debian)",
            "nginx/1.22.1",
        ],
        ftp: &["(vsFTPd 3.0.3)"],
        redis: "7.0.15",
        gcc: "12.2.0",
        issue: "Debian GNU/Linux 12\r\n",
    },
    Release {
        family: Family::Debian,
        id: "debian",
        number: "11",
        codename: "bullseye",
        pretty: "Debian GNU/Linux 11 (bullseye)",
        system: "Linux",
        kernel: "5.10.0-33-amd64",
        build: "#1 SMP Debian 5.10.226-1 (2024-10-03)",
        machine: "x86_64",
        compiler: "(debian-kernel@lists.debian.org) (gcc-10 (Debian 10.2.1-6) 10.2.1 20210110, GNU ld (GNU Binutils for Debian) 2.35.2)",
        ssh: &[
            "OpenSSH_8.4p1 Debian-5+deb11u3",
            "OpenSSH_8.4p1 Debian-5+deb11u2",
        ],
        http: &[
            "Apache/2.4.62 (Debian)",
            "Apache/2.4.56 (Debian)",
            "nginx/1.18.0",
        ],
        ftp: &["(vsFTPd 3.0.3)"],
        redis: "6.0.16",
        gcc: "10.2.1",
        issue: "Debian GNU/Linux 11\r\n",
    },
    Release {
        family: Family::Debian,
        id: "ubuntu",
        number: "22.04",
        codename: "jammy",
        pretty: "Ubuntu 22.04.5 LTS",
        system: "Linux",
        kernel: "5.15.0-126-generic",
        build: "#136-Ubuntu SMP Wed Nov 6 10:38:22 UTC 2024",
        machine: "x86_64",
        compiler: "(buildd@lcy02-amd64-118) (gcc (Ubuntu 11.4.0-1ubuntu1~22.04) 11.4.0, GNU ld (GNU Binutils for Ubuntu) 2.38)",
        ssh: &[
            "OpenSSH_8.9p1 Ubuntu-3ubuntu0.10",
            "OpenSSH_8.9p1 Ubuntu-3ubuntu0.7",
            "OpenSSH_8.9p1 Ubuntu-3ubuntu0.6",
        ],
        http: &["Apache/2.4.52 (Ubuntu)", "nginx/1.18.0 (Ubuntu)"],
        ftp: &["(vsFTPd 3.0.5)"],
        redis: "6.0.16",
        gcc: "11.4.0",
        issue: "Ubuntu 22.04.5 LTS\r\n",
    },
    Release {
        family: Family::Debian,
        id: "ubuntu",
        number: "24.04",
        codename: "noble",
        pretty: "Ubuntu 24.04.1 LTS",
        system: "Linux",
        kernel: "6.8.0-49-generic",
        build: "#49-Ubuntu SMP PREEMPT_DYNAMIC Mon Nov  4 02:06:24 UTC 2024",
        machine: "x86_64",
        compiler: "(buildd@lcy02-amd64-103) (x86_64-linux-gnu-gcc-13 (Ubuntu 13.2.0-23ubuntu4) 13.2.0, GNU ld (GNU Binutils for Ubuntu) 2.42)",
        ssh: &[
            "OpenSSH_9.6p1 Ubuntu-3ubuntu13.5",
            "OpenSSH_9.6p1 Ubuntu-3ubuntu13.4",
        ],
        http: &["Apache/2.4.58 (Ubuntu)", "nginx/1.24.0 (Ubuntu)"],
        ftp: &["(vsFTPd 3.0.5)"],
        redis: "7.0.15",
        gcc: "13.2.0",
        issue: "Ubuntu 24.04.1 LTS\r\n",
    },
    Release {
        family: Family::Debian,
        id: "ubuntu",
        number: "20.04",
        codename: "focal",
        pretty: "Ubuntu 20.04.6 LTS",
        system: "Linux",
        kernel: "5.4.0-200-generic",
        build: "#220-Ubuntu SMP Fri Sep 27 13:19:16 UTC 2024",
        machine: "x86_64",
        compiler: "(buildd@lcy02-amd64-016) (gcc version 9.4.0 (Ubuntu 9.4.0-1ubuntu1~20.04.2))",
        ssh: &[
            "OpenSSH_8.2p1 Ubuntu-4ubuntu0.11",
            "OpenSSH_8.2p1 Ubuntu-4ubuntu0.9",
        ],
        http: &["Apache/2.4.41 (Ubuntu)", "nginx/1.18.0 (Ubuntu)"],
        ftp: &["(vsFTPd 3.0.3)"],
        redis: "5.0.7",
        gcc: "9.4.0",
        issue: "Ubuntu 20.04.6 LTS\r\n",
    },
];

const BSD: [Release; 1] = [Release {
    family: Family::Bsd,
    id: "freebsd",
    number: "13.4",
    codename: "",
    pretty: "FreeBSD 13.4-RELEASE",
    system: "FreeBSD",
    kernel: "13.4-RELEASE-p1",
    build: "FreeBSD 13.4-RELEASE-p1 GENERIC",
    machine: "amd64",
    compiler: "(clang version 18.1.5)",
    ssh: &[
        "OpenSSH_9.7 FreeBSD-20240806",
        "OpenSSH_9.7 FreeBSD-20240701",
    ],
    http: &["Apache/2.4.62 (FreeBSD)", "nginx/1.26.2"],
    ftp: &["FTP server (Version 6.00LS) ready."],
    redis: "7.4.1",
    gcc: "4.2.1",
    issue: "\r\nFreeBSD/amd64 (%h) (pts/0)\r\n\r\n",
}];

const EMBEDDED: [Release; 1] = [Release {
    family: Family::Embedded,
    id: "buildroot",
    number: "2020.02",
    codename: "",
    pretty: "Buildroot 2020.02",
    system: "Linux",
    kernel: "4.14.98",
    build: "#1 SMP PREEMPT Thu Apr 9 07:12:40 UTC 2020",
    machine: "armv7l",
    compiler: "(build@localhost) (gcc version 8.4.0 (Buildroot 2020.02))",
    ssh: &["dropbear_2019.78", "dropbear_2020.81", "dropbear_2018.76"],
    http: &[
        "lighttpd/1.4.54",
        "Boa/0.94.14rc21",
        "mini_httpd/1.30 26Oct2018",
    ],
    ftp: &["Welcome to Pure-FTPd [privsep]"],
    redis: "5.0.7",
    gcc: "8.4.0",
    issue: "",
}];

const WINDOWS: [Release; 2] = [
    Release {
        family: Family::Windows,
        id: "windows",
        number: "10.0.17763",
        codename: "",
        pretty: "Microsoft Windows Server 2019 Standard",
        system: "Windows",
        kernel: "10.0.17763",
        build: "17763",
        machine: "x86_64",
        compiler: "",
        ssh: &["OpenSSH_for_Windows_7.7", "OpenSSH_for_Windows_8.1"],
        http: &["Microsoft-IIS/10.0"],
        ftp: &["Microsoft FTP Service"],
        redis: "3.0.504",
        gcc: "0.0.0",
        issue: "Welcome to Microsoft Telnet Service \r\n\r\n",
    },
    Release {
        family: Family::Windows,
        id: "windows",
        number: "10.0.20348",
        codename: "",
        pretty: "Microsoft Windows Server 2022 Standard",
        system: "Windows",
        kernel: "10.0.20348",
        build: "20348",
        machine: "x86_64",
        compiler: "",
        ssh: &["OpenSSH_for_Windows_8.1", "OpenSSH_for_Windows_9.5"],
        http: &["Microsoft-IIS/10.0"],
        ftp: &["Microsoft FTP Service"],
        redis: "3.0.504",
        gcc: "0.0.0",
        issue: "Welcome to Microsoft Telnet Service \r\n\r\n",
    },
];

const CISCO: [Release; 1] = [Release {
    family: Family::Cisco,
    id: "ios",
    number: "15.2",
    codename: "",
    pretty: "Cisco IOS Software, Version 15.2(7)E3",
    system: "IOS",
    kernel: "15.2(7)E3",
    build: "RELEASE SOFTWARE (fc3)",
    machine: "ppc",
    compiler: "",
    ssh: &["Cisco-1.25"],
    http: &["cisco-IOS"],
    ftp: &["IOS-FTP server (version 1.00) ready."],
    redis: "5.0.7",
    gcc: "0.0.0",
    issue: "\r\n\r\nUser Access Verification\r\n\r\n",
}];

impl Release {
    /// The release of a machine.
    pub(crate) fn choose(persona: Persona, seed: &Seed) -> &'static Self {
        let from: &'static [Self] = match persona {
            Persona::Linux => &DEBIAN,
            Persona::Windows | Persona::WindowsServer => &WINDOWS,
            Persona::Bsd => &BSD,
            Persona::Embedded => &EMBEDDED,
            Persona::Cisco => &CISCO,
        };
        seed.choose("release", from).unwrap_or(&DEBIAN[0])
    }
}
