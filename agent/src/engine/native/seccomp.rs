//! What a decky may ask of the kernel: an allow-list for one static program that serves sockets.
//!
//! Whatever is not named is refused with EPERM. Not named on purpose: everything that makes
//! namespaces, mounts, keys, probes, rings or raw sockets, and whatever writes into the output of a
//! decky other than at its end, with which one that was taken over would erase what it has said:
//! `ftruncate`, `pwrite64` and its like, and of `fcntl` the command that takes `O_APPEND` away.

use serde_json::{Value, json};

/// Calls that are allowed with any argument. The next one goes where the alphabet says.
const ALLOWED: &[&str] = &[
    "accept",
    "accept4",
    "access",
    "arch_prctl",
    "bind",
    "brk",
    "clock_getres",
    "clock_gettime",
    "clock_nanosleep",
    "close",
    "close_range",
    "connect",
    "dup",
    "dup2",
    "dup3",
    "epoll_create",
    "epoll_create1",
    "epoll_ctl",
    "epoll_pwait",
    "epoll_pwait2",
    "epoll_wait",
    "eventfd2",
    // The runtime's own last call.
    "execve",
    "exit",
    "exit_group",
    "faccessat",
    "faccessat2",
    "flock",
    "fstat",
    // The runtime looks whether its own /proc is one.
    "fstatfs",
    "futex",
    "getcwd",
    "getdents64",
    "getegid",
    "geteuid",
    "getgid",
    "getpeername",
    "getpid",
    "getppid",
    "getrandom",
    "getrlimit",
    "getsockname",
    "getsockopt",
    "gettid",
    "gettimeofday",
    "getuid",
    "listen",
    "lseek",
    "lstat",
    "madvise",
    "membarrier",
    "mmap",
    "mprotect",
    "mremap",
    "munmap",
    "nanosleep",
    "newfstatat",
    "open",
    "openat",
    "pipe",
    "pipe2",
    "poll",
    "ppoll",
    "prctl",
    "pread64",
    // Reads limits; no process without a capability raises one.
    "prlimit64",
    "pselect6",
    "read",
    "readlink",
    "readlinkat",
    "readv",
    "recvfrom",
    "recvmmsg",
    "recvmsg",
    "restart_syscall",
    "rseq",
    "rt_sigaction",
    "rt_sigprocmask",
    "rt_sigreturn",
    "sched_getaffinity",
    "sched_yield",
    "select",
    "sendmmsg",
    "sendmsg",
    "sendto",
    "set_robust_list",
    "set_tid_address",
    "setsockopt",
    "shutdown",
    "sigaltstack",
    "socketpair",
    "stat",
    "statx",
    "sysinfo",
    "tgkill",
    "time",
    "uname",
    "write",
    "writev",
];

/// Families of sockets: UNIX, IPv4, IPv6. No netlink, no packets, no virtual machines.
const FAMILIES: [u64; 3] = [1, 2, 10];
/// `TCGETS`, `TIOCGWINSZ`, `FIONREAD`, `FIONBIO`, `FIONCLEX`, `FIOCLEX`.
const CONTROLS: [u64; 6] = [0x5401, 0x5413, 0x541b, 0x5421, 0x5450, 0x5451];
/// `F_DUPFD`, `F_GETFD`, `F_SETFD`, `F_GETFL`, `F_DUPFD_CLOEXEC`. Not `F_SETFL`: who wants a socket
/// that does not block says so when it is made, or by `FIONBIO`.
const DESCRIPTORS: [u64; 5] = [0, 1, 2, 3, 1030];
/// Every flag of `clone` that makes a namespace.
const NAMESPACES: u64 = 0x7e02_0000;
/// "No such call": a program then takes the older one, whose flags can be looked at.
const ENOSYS: u32 = 38;
const EPERM: u32 = 1;

/// The profile, as a bundle carries it.
pub(super) fn profile() -> Value {
    let mut calls = vec![json!({ "names": ALLOWED, "action": "SCMP_ACT_ALLOW" })];
    let equal = |name: &str, index: u32, value: u64| {
        json!({
            "names": [name],
            "action": "SCMP_ACT_ALLOW",
            "args": [{ "index": index, "value": value, "op": "SCMP_CMP_EQ" }],
        })
    };
    calls.extend(FAMILIES.map(|family| equal("socket", 0, family)));
    calls.extend(CONTROLS.map(|control| equal("ioctl", 1, control)));
    calls.extend(DESCRIPTORS.map(|command| equal("fcntl", 1, command)));
    calls.push(json!({
        "names": ["clone"],
        "action": "SCMP_ACT_ALLOW",
        "args": [{ "index": 0, "value": NAMESPACES, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ" }],
    }));
    calls.push(json!({
        "names": ["clone3"],
        "action": "SCMP_ACT_ERRNO",
        "errnoRet": ENOSYS,
    }));
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": EPERM,
        "architectures": architectures(),
        "syscalls": calls,
    })
}

/// The machine's own, and none of its older ones: they have other numbers for the same calls.
const fn architectures() -> &'static [&'static str] {
    if cfg!(target_arch = "x86_64") {
        &["SCMP_ARCH_X86_64"]
    } else if cfg!(target_arch = "aarch64") {
        &["SCMP_ARCH_AARCH64"]
    } else {
        &[]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_sorted_and_names_nothing_that_it_must_not() {
        let mut sorted = ALLOWED.to_vec();
        sorted.sort_unstable();
        assert_eq!(ALLOWED, sorted);
        for name in [
            "bpf",
            "copy_file_range",
            "fallocate",
            "fchown",
            "fcntl",
            "ftruncate",
            "io_uring_setup",
            "kexec_load",
            "keyctl",
            "mount",
            "pivot_root",
            "process_vm_writev",
            "ptrace",
            "pwrite64",
            "pwritev",
            "pwritev2",
            "sendfile",
            "setns",
            "splice",
            "truncate",
            "unshare",
            "userfaultfd",
        ] {
            assert!(!ALLOWED.contains(&name), "{name}");
        }
    }

    #[test]
    fn a_decky_may_not_change_how_its_output_is_written() {
        const F_SETFL: u64 = 4;
        let profile = profile();
        let calls = profile["syscalls"].as_array().expect("a list of rules");
        let of_fcntl: Vec<_> = calls
            .iter()
            .filter(|rule| {
                let names = rule["names"].as_array().expect("a rule has names");
                names.iter().any(|name| name == "fcntl")
            })
            .collect();
        assert_eq!(of_fcntl.len(), DESCRIPTORS.len());
        for rule in of_fcntl {
            let only = &rule["args"][0];
            assert_eq!(
                (&only["index"], &only["op"]),
                (&json!(1), &json!("SCMP_CMP_EQ"))
            );
            assert_ne!(only["value"], F_SETFL);
        }
    }
}
