//! Who may ask, on the command line: the first login, users with roles, API tokens, and what is left
//! of each when it is over.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::cli::{Outcome, run};
use tests::process::binary;
use tests::world::World;

/// Somebody with a home of their own.
struct Person<'a> {
    world: &'a World,
    home: PathBuf,
}

impl<'a> Person<'a> {
    fn new(world: &'a World, name: &str) -> Self {
        Self {
            world,
            home: world.root().join(name),
        }
    }

    /// Runs `decnet` as them, with nothing but the address of the master.
    fn decnet(&self, arguments: &[&str], input: &str) -> Result<Outcome> {
        self.with_token("", arguments, input)
    }

    fn with_token(&self, token: &str, arguments: &[&str], input: &str) -> Result<Outcome> {
        let home = self.home.to_string_lossy();
        let environment = [
            ("DECNET_URL", self.world.api()?.base()),
            ("DECNET_TOKEN", token),
            ("XDG_CONFIG_HOME", &*home),
            ("XDG_DATA_HOME", &*home),
            ("NO_COLOR", "1"),
        ];
        run(&binary("decnet")?, arguments, &environment, input)
    }

    fn json(&self, arguments: &[&str]) -> Result<Value> {
        let arguments = [arguments, &["--output", "json"]].concat();
        self.decnet(&arguments, "")?.ok()?.json()
    }
}

#[test]
fn the_first_admin_logs_in_and_lets_others_in_on_the_command_line() -> Result<()> {
    from_the_first_login_to_the_last_logout(World::with_master()?)
}

#[test]
fn the_same_with_the_store_on_postgresql() -> Result<()> {
    let mut world = World::on_postgres()?;
    world.start_master(&[])?;
    from_the_first_login_to_the_last_logout(world)
}

fn from_the_first_login_to_the_last_logout(world: World) -> Result<()> {
    let file = world.master_dir().join("admin.password");
    let first = std::fs::read_to_string(&file).context("the first start leaves a password")?;
    ensure!(std::fs::metadata(&file)?.permissions().mode() & 0o777 == 0o600);
    ensure!(
        !world.master_log().contains(first.trim()),
        "the password is in the log"
    );

    let admin = Person::new(&world, "admin-home");
    let said = admin.decnet(&["topology", "ls"], "")?.refused(1)?;
    ensure!(said.contains("decnet login"), "{said}");
    let login = ["login", "--password-stdin"];
    let said = admin.decnet(&login, "wrong password\n")?.refused(1)?;
    ensure!(said.contains("name or password is wrong"), "{said}");
    // Without a new password nothing is kept.
    let said = admin.decnet(&login, &first)?.refused(1)?;
    ensure!(said.contains("second line"), "{said}");
    let chosen = "four words of mine";
    let input = format!("{}\n{chosen}\n", first.trim());
    admin.decnet(&login, &input)?.ok()?;
    ensure!(!file.exists(), "the one-time password outlives its change");
    let kept = admin.home.join("decnet/sessions.json");
    ensure!(std::fs::metadata(&kept)?.permissions().mode() & 0o777 == 0o600);
    ensure!(admin.json(&["topology", "ls"])? == Value::Array(Vec::new()));

    let made = admin.json(&["user", "add", "alice"])?;
    let one_time = made["one_time_password"].as_str().context("a password")?;
    let alice = Person::new(&world, "alice-home");
    let input = format!("{one_time}\nfour words of hers\n");
    let login = ["login", "alice", "--password-stdin"];
    alice.decnet(&login, &input)?.ok()?;
    alice.decnet(&["host", "ls"], "")?.ok()?;
    let said = alice.decnet(&["user", "ls"], "")?.refused(1)?;
    ensure!(said.contains("does not allow"), "{said}");
    admin
        .decnet(&["user", "role", "alice", "admin"], "")?
        .ok()?;
    let users = alice.json(&["user", "ls"])?;
    let names: Vec<&str> = users
        .as_array()
        .context("a list")?
        .iter()
        .filter_map(|user| user["name"].as_str())
        .collect();
    ensure!(names == ["admin", "alice"], "{names:?}");

    let made = admin
        .decnet(&["token", "create", "ci", "--ttl", "1h"], "")?
        .ok()?;
    let token = made.stdout.trim().to_owned();
    ensure!(token.starts_with("dca_"), "{made:?}");
    let ci = Person::new(&world, "ci-home");
    ci.with_token(&token, &["status"], "")?.ok()?;
    let listed = admin.json(&["token", "ls"])?;
    ensure!(!listed.to_string().contains(&token), "a list shows a token");
    let id = listed[0]["id"].as_str().context("an id")?;
    admin.decnet(&["token", "rm", id], "")?.ok()?;
    let said = ci.with_token(&token, &["status"], "")?.refused(1)?;
    ensure!(said.contains("known bearer token"), "{said}");

    let audit: Value = world
        .api()?
        .get("/api/v1/audit?actor=operator:admin&action=api_token.create")?;
    ensure!(
        audit["total"] == 1 && audit["items"][0]["origin"] == "127.0.0.1",
        "{audit}"
    );

    // One's own password: the session goes on, every other one has ended.
    let second = Person::new(&world, "second-home");
    let login = ["login", "--password-stdin"];
    second.decnet(&login, &format!("{chosen}\n"))?.ok()?;
    let passwords = format!("{chosen}\nanother four words\n");
    admin
        .decnet(&["user", "passwd", "--password-stdin"], &passwords)?
        .ok()?;
    admin.decnet(&["user", "ls"], "")?.ok()?;
    second.decnet(&["user", "ls"], "")?.refused(1)?;

    admin.decnet(&["user", "rm", "alice"], "")?.ok()?;
    alice.decnet(&["host", "ls"], "")?.refused(1)?;
    admin.decnet(&["logout"], "")?.ok()?;
    admin.decnet(&["user", "ls"], "")?.refused(1)?;
    let text = std::fs::read_to_string(&kept)?;
    ensure!(!text.contains("dcs_"), "a session outlives its end: {text}");
    // The token of the machine is what it was.
    world.decnet(&["topology", "ls"])?.ok()?;
    world.done()
}

#[test]
fn an_admin_that_nobody_knows_the_password_of_is_reset_while_the_master_rests() -> Result<()> {
    let mut world = World::with_master()?;
    let file = world.master_dir().join("admin.password");
    std::fs::remove_file(&file)?;
    let directory = world.master_dir().to_string_lossy().into_owned();
    let reset = ["admin-reset", "--data-dir", &directory];
    let said = run(&binary("decnet-master")?, &reset, &[], "")?.refused(1)?;
    ensure!(said.contains("another decnet-master runs"), "{said}");
    world.stop_master()?;
    let outcome = run(&binary("decnet-master")?, &reset, &[], "")?.ok()?;
    let password = std::fs::read_to_string(&file)?;
    ensure!(
        !outcome.stdout.contains(password.trim()),
        "the password is shown"
    );
    world.start_master(&[])?;
    let person = Person::new(&world, "home");
    let input = format!("{}\nfour words of mine\n", password.trim());
    person
        .decnet(&["login", "--password-stdin"], &input)?
        .ok()?;
    world.done()
}

/// Types into `decnet` on a terminal: each answer once its question stands there.
const TYPIST: &str = r#"
import os, pty, sys
program, answers = sys.argv[1], sys.argv[2:]
pid, terminal = pty.fork()
if pid == 0:
    os.execv(program, [program, "login"])
seen = b""
try:
    for answer in answers:
        mark = len(seen)
        while b": " not in seen[mark:]:
            seen += os.read(terminal, 1024)
        os.write(terminal, answer.encode() + b"\r")
    while True:
        seen += os.read(terminal, 1024)
except OSError:
    pass
sys.stdout.buffer.write(seen)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"#;

#[test]
fn a_password_is_asked_for_at_the_terminal_and_never_shown() -> Result<()> {
    let world = World::with_master()?;
    let first = std::fs::read_to_string(world.master_dir().join("admin.password"))?;
    let program = binary("decnet")?;
    let program = program.to_string_lossy();
    let home = world.root().join("home");
    let home = home.to_string_lossy();
    let environment = [
        ("DECNET_URL", world.api()?.base()),
        ("XDG_CONFIG_HOME", &*home),
        ("NO_COLOR", "1"),
    ];
    let typed = |answers: &[&str]| {
        let arguments = [&["-c", TYPIST, &*program], answers].concat();
        run(Path::new("python3"), &arguments, &environment, "")
    };
    let wrong = typed(&["not the password"])?;
    ensure!(wrong.code == Some(1), "{wrong:?}");
    let broken_off = typed(&["half\u{3}"])?;
    ensure!(broken_off.stdout.contains("broken off"), "{broken_off:?}");
    let chosen = "four words of mine";
    let unlike = typed(&[first.trim(), chosen, "four words of yours"])?;
    ensure!(unlike.stdout.contains("not the same"), "{unlike:?}");
    let done = typed(&[first.trim(), chosen, chosen])?.ok()?;
    for text in [first.trim(), chosen] {
        ensure!(!done.stdout.contains(text), "it shows {text:?}: {done:?}");
    }
    ensure!(done.stdout.contains("logged in"), "{done:?}");
    world.done()
}
