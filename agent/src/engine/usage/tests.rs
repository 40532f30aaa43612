use tempfile::TempDir;

use super::*;

const ONE: &str = "1111111111111111111111111111111111111111111111111111111111111111";
const TWO: &str = "2222222222222222222222222222222222222222222222222222222222222222";

/// A kernel's files.
struct Kernel(TempDir);

impl Kernel {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory can be made");
        for name in ["proc/self", "proc/1", "cgroup"] {
            fs::create_dir_all(directory.path().join(name)).expect("ours");
        }
        let this = Self(directory);
        this.write("proc/1/cgroup", "0::/init.scope\n");
        this
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().expect("in the directory")).expect("ours");
        fs::write(path, text).expect("ours");
    }

    fn remove(&self, path: &str) {
        fs::remove_dir_all(self.0.path().join(path)).expect("it is there");
    }

    fn meter(&self) -> Meter {
        Meter::within(self.0.path().join("proc"), self.0.path().join("cgroup"))
    }

    fn unified(&self, pid: u32, group: &str, memory: u64) {
        self.write(&format!("proc/{pid}/cgroup"), &format!("0::/{group}\n"));
        for (name, text) in [
            ("memory.current", format!("{memory}\n")),
            ("memory.events", "low 0\noom 3\noom_kill 2\n".to_owned()),
            ("cpu.stat", "usage_usec 1234\nuser_usec 1000\n".to_owned()),
            ("pids.current", "5\n".to_owned()),
        ] {
            self.write(&format!("cgroup/{group}/{name}"), &text);
        }
    }

    fn split(&self, pid: u32, group: &str) {
        self.write(
            &format!("proc/{pid}/cgroup"),
            &format!(
                "9:name=systemd:/{group}\n8:pids:/{group}\n4:memory:/{group}\n2:cpu,cpuacct:/{group}\n0::/\n"
            ),
        );
        for (name, text) in [
            ("memory/G/memory.usage_in_bytes", "4096\n"),
            (
                "memory/G/memory.oom_control",
                "oom_kill_disable 0\nunder_oom 0\noom_kill 7\n",
            ),
            ("cpu,cpuacct/G/cpuacct.usage", "5000999\n"),
            ("pids/G/pids.current", "3\n"),
        ] {
            self.write(&format!("cgroup/{}", name.replace('G', group)), text);
        }
    }
}

#[test]
fn reads_the_unified_layout_as_either_driver_of_docker_makes_it() {
    for group in [
        format!("docker/{ONE}"),
        format!("system.slice/docker-{ONE}.scope"),
    ] {
        let kernel = Kernel::new();
        kernel.unified(42, &group, 3_000_000);
        let handle = Handle::new(ONE);
        let found = kernel.meter().measure(&[handle.clone(), Handle::new(TWO)]);
        let expected = Usage {
            memory_bytes: 3_000_000,
            cpu_micros: 1234,
            pids: 5,
            refused_packets: None,
            oom_kills: Some(2),
        };
        assert_eq!(found, HashMap::from([(handle, expected)]), "{group}");
    }
}

#[test]
fn reads_the_split_layout() {
    let kernel = Kernel::new();
    kernel.split(42, &format!("docker/{ONE}"));
    let handle = Handle::new(ONE);
    let expected = Usage {
        memory_bytes: 4096,
        cpu_micros: 5000,
        pids: 3,
        refused_packets: None,
        oom_kills: Some(7),
    };
    assert_eq!(
        kernel.meter().measure(std::slice::from_ref(&handle)),
        HashMap::from([(handle, expected)])
    );
}

#[test]
fn finds_a_decky_again_that_was_restarted_into_another_group() {
    let kernel = Kernel::new();
    kernel.unified(42, &format!("docker/{ONE}"), 1);
    let mut meter = kernel.meter();
    let handle = Handle::new(ONE);
    let memory = |meter: &mut Meter| {
        meter
            .measure(std::slice::from_ref(&handle))
            .get(&handle)
            .map(|usage| usage.memory_bytes)
    };
    assert_eq!(memory(&mut meter), Some(1));
    kernel.remove("proc/42");
    kernel.remove(&format!("cgroup/docker/{ONE}"));
    assert_eq!(memory(&mut meter), None);
    kernel.unified(43, &format!("other/docker-{ONE}.scope"), 2);
    assert_eq!(memory(&mut meter), Some(2));
    // An empty group is one that was left.
    kernel.write(
        &format!("cgroup/other/docker-{ONE}.scope/pids.current"),
        "0\n",
    );
    kernel.remove("proc/43");
    assert_eq!(memory(&mut meter), None);
}

#[test]
fn a_group_is_a_deckys_only_by_its_whole_name() {
    let kernel = Kernel::new();
    // Another container, whose name begins or ends like it; one that names it to be taken for it.
    kernel.unified(42, &format!("docker/{ONE}2"), 1);
    kernel.unified(43, &format!("docker/x{ONE}"), 1);
    kernel.unified(44, &format!("docker/{ONE}/.."), 1);
    let handle = Handle::new(ONE);
    assert_eq!(
        kernel.meter().measure(std::slice::from_ref(&handle)),
        HashMap::new()
    );
    // Anything may have so short a name.
    kernel.unified(45, "web", 1);
    assert_eq!(
        kernel.meter().measure(&[Handle::new("web")]),
        HashMap::new()
    );
}

#[test]
fn an_engine_may_say_which_process_is_a_deckys() {
    let kernel = Kernel::new();
    kernel.unified(42, "decnet/a/b", 9);
    let mut meter = kernel.meter();
    let handle = Handle::new("decnet-0011-web");
    meter.learn(&handle, 42);
    assert_eq!(
        meter.measure(std::slice::from_ref(&handle))[&handle].memory_bytes,
        9
    );
    // The root group holds everything, and is nobody's.
    kernel.write("proc/42/cgroup", "0::/\n");
    meter.learn(&handle, 42);
    assert_eq!(meter.measure(std::slice::from_ref(&handle)), HashMap::new());
}

#[test]
fn this_kernels_own_files_are_read() {
    let text = fs::read_to_string("/proc/self/cgroup").expect("Linux");
    let Some(groups) = Groups::of(&text, Path::new("/sys/fs/cgroup")) else {
        // In the root of everything there is nothing of one's own.
        return;
    };
    // Whatever of it is not to be read here is 0 or absent; nothing panics.
    assert!(groups.usage().is_none_or(|usage| usage.pids < 1 << 40));
}
