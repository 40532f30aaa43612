//! Commands about the network: they show the decky's real addresses and reach nothing.

use super::super::Shell;
use super::Call;
use super::processes::{daemon, pid_of};

pub(super) fn run(shell: &Shell, call: &mut Call<'_>) -> u8 {
    match call.name {
        "ifconfig" => ifconfig(shell, call),
        "ip" => ip(shell, call),
        "netstat" => netstat(shell, call),
        "ss" => ss(shell, call),
        "ping" => ping(call),
        "wget" => wget(shell, call),
        "curl" => curl(call),
        _ => {
            let Some(target) = call.operands().into_iter().next() else {
                call.error(
                    "usage: ssh [-46AaCfGgKkMNnqsTtVvXxYy] destination [command [argument ...]]\n",
                );
                return 255;
            };
            let host = target.rsplit('@').next().unwrap_or_default().to_owned();
            call.error(format!(
                "ssh: connect to host {host} port 22: Connection timed out\n"
            ));
            255
        }
    }
}

fn ifconfig(shell: &Shell, call: &mut Call<'_>) -> u8 {
    for each in &shell.login.network.interfaces {
        let mask = std::net::Ipv4Addr::from(u32::MAX.checked_shl(32 - each.prefix).unwrap_or(0));
        let broadcast = std::net::Ipv4Addr::from(u32::from(each.address) | !u32::from(mask));
        let packets = 40_000
            + shell
                .facts
                .seed
                .pick(&format!("packets {}", each.name), 4_000_000);
        let packets = packets + u64::try_from(shell.uptime().whole_seconds()).unwrap_or(0);
        call.say(format!(
            "{}: flags=4163<UP,BROADCAST,RUNNING,MULTICAST>  mtu 1500\n        inet {}  netmask {mask}  broadcast {broadcast}\n        ether {}  txqueuelen 1000  (Ethernet)\n        RX packets {packets}  bytes {}\n        RX errors 0  dropped 0  overruns 0  frame 0\n        TX packets {}  bytes {}\n        TX errors 0  dropped 0 overruns 0  carrier 0  collisions 0\n",
            each.name, each.address, each.mac, packets * 611, packets * 2 / 3, packets * 140
        ));
    }
    call.say("lo: flags=73<UP,LOOPBACK,RUNNING>  mtu 65536\n        inet 127.0.0.1  netmask 255.0.0.0\n        inet6 ::1  prefixlen 128  scopeid 0x10<host>\n        loop  txqueuelen 1000  (Local Loopback)\n        RX packets 1204  bytes 98212\n        TX packets 1204  bytes 98212\n")
}

fn ip(shell: &Shell, call: &mut Call<'_>) -> u8 {
    let network = &shell.login.network;
    let what = call.operands().into_iter().next().unwrap_or_default();
    if what.starts_with('r') {
        if let (Some(gateway), Some(first)) = (network.gateway, network.interfaces.first()) {
            call.say(format!("default via {gateway} dev {} onlink", first.name));
        }
        for each in &network.interfaces {
            let mask = u32::MAX.checked_shl(32 - each.prefix).unwrap_or(0);
            let net = std::net::Ipv4Addr::from(u32::from(each.address) & mask);
            call.say(format!(
                "{net}/{} dev {} proto kernel scope link src {}",
                each.prefix, each.name, each.address
            ));
        }
        return 0;
    }
    if what.starts_with('n') {
        return 0;
    }
    if !what.starts_with('a') && !what.starts_with('l') {
        call.error("Usage: ip [ OPTIONS ] OBJECT { COMMAND | help }\n");
        return 255;
    }
    call.say("1: lo: <LOOPBACK,UP,LOWER_UP> mtu 65536 qdisc noqueue state UNKNOWN group default qlen 1000\n    link/loopback 00:00:00:00:00:00 brd 00:00:00:00:00:00");
    if what.starts_with('a') {
        call.say("    inet 127.0.0.1/8 scope host lo\n       valid_lft forever preferred_lft forever\n    inet6 ::1/128 scope host\n       valid_lft forever preferred_lft forever");
    }
    for (index, each) in network.interfaces.iter().enumerate() {
        let mask = u32::MAX.checked_shl(32 - each.prefix).unwrap_or(0);
        let broadcast = std::net::Ipv4Addr::from(u32::from(each.address) | !mask);
        call.say(format!(
            "{}: {}: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1500 qdisc fq_codel state UP group default qlen 1000\n    link/ether {} brd ff:ff:ff:ff:ff:ff",
            index + 2, each.name, each.mac
        ));
        if what.starts_with('a') {
            call.say(format!(
                "    inet {}/{} brd {broadcast} scope global {}\n       valid_lft forever preferred_lft forever",
                each.address, each.prefix, each.name
            ));
        }
    }
    0
}

/// The ports that listen, with the process behind each.
fn listeners(shell: &Shell) -> Vec<(u16, String)> {
    let mut list: Vec<(u16, String)> = shell
        .facts
        .services()
        .into_iter()
        .flat_map(|kind| {
            let (_, command) = daemon(shell, kind);
            let name = command.split([' ', ':']).next().unwrap_or_default();
            let name = name.rsplit('/').next().unwrap_or_default().to_owned();
            let process = format!("{}/{name}", pid_of(shell, kind));
            kind.ports()
                .iter()
                .map(move |port| (*port, process.clone()))
                .collect::<Vec<_>>()
        })
        .collect();
    list.sort_unstable();
    list
}

fn netstat(shell: &Shell, call: &mut Call<'_>) -> u8 {
    let root = shell.account.uid == 0;
    let programs = call.flag('p');
    call.say("Active Internet connections (servers and established)");
    let heading = if programs {
        "       PID/Program name"
    } else {
        ""
    };
    call.say(format!(
        "Proto Recv-Q Send-Q Local Address           Foreign Address         State{heading}"
    ));
    let mut row = |local: String, foreign: String, state: &str, process: &str| {
        let process = match (programs, root) {
            (true, true) => process,
            (true, false) => "-",
            (false, _) => "",
        };
        call.say(format!(
            "tcp        0      0 {local:<23} {foreign:<23} {state:<11} {process}"
        ));
    };
    for (port, process) in listeners(shell) {
        row(
            format!("0.0.0.0:{port}"),
            "0.0.0.0:*".to_owned(),
            "LISTEN",
            &process,
        );
    }
    let (local, foreign) = (shell.login.destination, shell.login.source);
    row(
        local.to_string(),
        foreign.to_string(),
        "ESTABLISHED",
        &format!("{}/sshd", 1188 + shell.facts.seed.pick("pid", 20_000)),
    );
    0
}

fn ss(shell: &Shell, call: &mut Call<'_>) -> u8 {
    call.say("State    Recv-Q   Send-Q     Local Address:Port      Peer Address:Port  Process");
    for (port, process) in listeners(shell) {
        let process = match process.split_once('/') {
            Some((pid, name)) if call.flag('p') && shell.account.uid == 0 => {
                format!("users:((\"{name}\",pid={pid},fd=3))")
            }
            Some(_) | None => String::new(),
        };
        call.say(format!(
            "LISTEN   0        128              0.0.0.0:{port:<10}      0.0.0.0:*      {process}"
        ));
    }
    if !call.flag('l') {
        let (local, foreign) = (shell.login.destination, shell.login.source);
        call.say(format!(
            "ESTAB    0        0        {local:>16} {foreign:>16}"
        ));
    }
    0
}

fn ping(call: &mut Call<'_>) -> u8 {
    let operands = call.operands();
    let Some(host) = operands.last() else {
        call.error("ping: usage error: Destination address required\n");
        return 1;
    };
    if host.parse::<std::net::IpAddr>().is_err() {
        call.error(format!(
            "ping: {host}: Temporary failure in name resolution\n"
        ));
        return 2;
    }
    call.say(format!("PING {host} ({host}) 56(84) bytes of data.\n\n--- {host} ping statistics ---\n4 packets transmitted, 0 received, 100% packet loss, time 3058ms\n"));
    1
}

/// The host and port of a URL with or without its scheme.
fn place(url: &str) -> (String, u16) {
    let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let authority = authority.rsplit('@').next().unwrap_or_default();
    let default = match scheme {
        "https" => 443,
        "ftp" => 21,
        _ => 80,
    };
    match authority
        .rsplit_once(':')
        .and_then(|(host, port)| Some((host, port.parse().ok()?)))
    {
        Some((host, port)) => (host.to_owned(), port),
        None => (authority.to_owned(), default),
    }
}

fn url(call: &Call<'_>) -> Option<String> {
    let mut rest = call.args.iter();
    let mut found = None;
    while let Some(arg) = rest.next() {
        if matches!(
            arg.as_str(),
            "-O" | "-o"
                | "-P"
                | "-T"
                | "-t"
                | "-A"
                | "-H"
                | "-X"
                | "-d"
                | "-m"
                | "--connect-timeout"
        ) && !(call.name == "curl" && arg == "-O")
        {
            rest.next();
        } else if !arg.starts_with('-') {
            found = Some(arg.clone());
        }
    }
    found
}

fn wget(shell: &Shell, call: &mut Call<'_>) -> u8 {
    let Some(url) = url(call) else {
        call.error("wget: missing URL\nUsage: wget [OPTION]... [URL]...\n\nTry `wget --help' for more options.\n");
        return 1;
    };
    let (host, port) = place(&url);
    let shown = if url.contains("://") {
        url
    } else {
        format!("http://{url}/")
    };
    let at = shell
        .now
        .format(time::macros::format_description!(
            "[year]-[month]-[day] [hour]:[minute]:[second]"
        ))
        .unwrap_or_default();
    let quiet = call.flag('q');
    let text = if host.parse::<std::net::IpAddr>().is_ok() {
        format!("--{at}--  {shown}\nConnecting to {host}:{port}... failed: Connection refused.\n")
    } else {
        format!(
            "--{at}--  {shown}\nResolving {host} ({host})... failed: Temporary failure in name resolution.\nwget: unable to resolve host address ‘{host}’\n"
        )
    };
    if !quiet {
        call.error(text);
    }
    4
}

fn curl(call: &mut Call<'_>) -> u8 {
    let Some(url) = url(call) else {
        call.error("curl: try 'curl --help' or 'curl --manual' for more information\n");
        return 2;
    };
    let (host, port) = place(&url);
    let (text, status) = if host.parse::<std::net::IpAddr>().is_ok() {
        (
            format!(
                "curl: (7) Failed to connect to {host} port {port} after 3 ms: Couldn't connect to server\n"
            ),
            7,
        )
    } else {
        (format!("curl: (6) Could not resolve host: {host}\n"), 6)
    };
    if !call.flag('s') {
        call.error(text);
    }
    status
}
