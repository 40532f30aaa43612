//! Figures 19 and 20: what a person waits for at a terminal.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use proto::rest::HostShape;
use rustix::process::Signal;

use super::litter::{self, Litter};
use super::{Report, maze, plain_world};
use crate::process::{Daemon, binary};
use crate::world::{LONG, World};
use crate::{cli, docker};

const HELPS: usize = 20;
const STARTS: usize = 3;

fn wall(program: &Path, argument: &str) -> Result<f64> {
    let start = Instant::now();
    let status = Command::new(program)
        .arg(argument)
        .stdout(Stdio::null())
        .status()?;
    ensure!(
        status.success(),
        "{} {argument} ended with {status}",
        program.display()
    );
    Ok(start.elapsed().as_secs_f64() * 1000.0)
}

/// Figure 19, beside what it takes to start any program at all.
pub(super) fn help(report: &mut Report) -> Result<()> {
    let (decnet, nothing) = (binary("decnet")?, Path::new("/bin/true"));
    let (mut helps, mut starts) = (Vec::new(), Vec::new());
    for _ in 0..HELPS {
        helps.push(wall(&decnet, "--help")?);
        starts.push(wall(nothing, "--help")?);
    }
    report.compare(
        "decnet --help (baseline: /bin/true)",
        "ms",
        (&helps, &starts),
        "≤ 10 ms",
    );
    Ok(())
}

/// `decnet up` in a directory of its own, which is taken down again whatever happens.
struct Up {
    daemon: Option<Daemon>,
    data: PathBuf,
    log: PathBuf,
    hosts: Vec<String>,
}

impl Up {
    fn start(world: &World, number: usize, topology: &Path) -> Result<Self> {
        let data = world.root().join(format!("up-{number}"));
        let log = world.root().join(format!("up-{number}.log"));
        litter::note(Litter::Up(data.clone()));
        let arguments = [
            "up",
            "--data-dir",
            &data.to_string_lossy(),
            "--topology",
            &topology.to_string_lossy(),
        ];
        let free = |name: &str| (name.to_owned(), "127.0.0.1:0".to_owned());
        let environment = [free("DECNET_API_LISTEN"), free("DECNET_FLEET_LISTEN")];
        let daemon = Daemon::start("decnet", &arguments.map(str::to_owned), &environment, &log)?;
        Ok(Self {
            daemon: Some(daemon),
            data,
            log,
            hosts: Vec::new(),
        })
    }

    fn screen(&self) -> String {
        std::fs::read(&self.log)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    fn learn_hosts(&mut self) -> Result<()> {
        let hosts: Vec<HostShape> =
            cli::decnet(&self.data, &["host", "ls", "--output", "json"])?.json()?;
        self.hosts = hosts.into_iter().map(|host| host.id).collect();
        Ok(())
    }

    /// Ctrl-C, and everything must be gone.
    fn stop(mut self) -> Result<()> {
        let daemon = self.daemon.take().context("it was not stopped before")?;
        daemon.signal(Signal::INT)?;
        let mut daemon = daemon;
        let status = daemon.wait(LONG)?;
        ensure!(
            status.success(),
            "decnet up ended with {status}: {}",
            self.screen()
        );
        Ok(())
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        if self.daemon.take().is_some() {
            // It was killed: what it had started is taken down by the command for that.
            litter::take_down(&self.data);
        }
        for host in &self.hosts {
            drop(docker::remove_all_of(host));
        }
    }
}

/// Figure 20: the office of `examples/`, and an attacker who knocks until somebody opens.
pub(super) fn first_event(report: &mut Report) -> Result<()> {
    let mut world = plain_world()?;
    let office = maze::in_slot(maze::example("office")?, &world.slot)?;
    let publish = office.deckies.iter().flat_map(|decky| &decky.publish);
    let port = publish
        .clone()
        .find(|publish| publish.decky_port == 80)
        .context("the office publishes HTTP")?
        .host_port;
    let file = world.write_file(&office)?;
    let mut seconds = Vec::new();
    for number in 0..STARTS {
        let start = Instant::now();
        let mut up = Up::start(&world, number, &file)?;
        let mark = format!("/knock-{number}");
        let url = format!("http://127.0.0.1:{port}{mark}");
        let mut answered = false;
        loop {
            if up.screen().contains(&mark) {
                break;
            }
            ensure!(
                start.elapsed() < LONG,
                "no event of an attacker on the screen: {}",
                up.screen()
            );
            let running = up.daemon.as_mut().is_some_and(Daemon::is_running);
            ensure!(running, "decnet up has ended: {}", up.screen());
            if !answered {
                let knock = ["--silent", "--max-time", "2", "--output", "/dev/null", &url];
                answered = cli::system("curl", &knock, "")?.code == Some(0);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        seconds.push(start.elapsed().as_secs_f64());
        up.learn_hosts()?;
        for host in &up.hosts {
            world.slot.note(host)?;
        }
        up.stop()?;
    }
    report.add(
        "decnet up: start to the first attacker on the screen",
        "s",
        &seconds,
        "≤ 20",
    );
    world.done()
}
