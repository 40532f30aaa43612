//! Slots: subnets and ports of the machine that one test of an engine has for itself, whoever else
//! runs tests there.

use std::fs::File;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU16, Ordering};

use ipnet::Ipv4Net;

/// How many slots an engine has.
const SLOTS: u8 = 28;
/// How many subnets and ports, together, a test may draw.
const DRAWS: u16 = 64;

/// A slot, held by a lock on a file: whatever is there when it is taken is of nobody who runs.
pub(crate) struct Slot {
    name: String,
    subnets: Ipv4Net,
    ports: u16,
    next: AtomicU16,
    _lock: File,
}

impl Slot {
    /// One of the tests on a Docker daemon; waits for whoever has it.
    pub(crate) fn docker(number: u8) -> Self {
        Self::take("docker", 231, 28_000, number)
    }

    /// One of the tests on the kernel; waits for whoever has it.
    pub(crate) fn native(number: u8) -> Self {
        Self::take("native", 230, 26_200, number)
    }

    /// The ports lie above those of the end-to-end tests and below those that the kernel gives to
    /// whoever asks for any.
    fn take(engine: &str, second_octet: u8, ports: u16, number: u8) -> Self {
        assert!(number < SLOTS, "there are {SLOTS} slots");
        let name = format!("{engine}-{number}");
        let directory = directory();
        std::fs::create_dir_all(&directory).expect("the temporary directory is writable");
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(directory.join(format!("{name}.lock")))
            .expect("the temporary directory is writable");
        lock.lock().expect("the temporary directory has locks");
        // As many /28 networks as draws.
        let subnets = Ipv4Net::new(Ipv4Addr::new(10, second_octet, number * 4, 0), 22);
        Self {
            name,
            subnets: subnets.expect("22 is a length"),
            ports: ports + u16::from(number) * DRAWS,
            next: AtomicU16::new(0),
            _lock: lock,
        }
    }

    /// What no other slot is called.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// A place for files that outlive a test that is killed, so that the next one finds them.
    pub(crate) fn files(&self) -> PathBuf {
        directory().join(&self.name)
    }

    /// Everything that [`Slot::subnet`] gives.
    pub(crate) fn subnets(&self) -> Ipv4Net {
        self.subnets
    }

    /// A subnet that nobody uses.
    pub(crate) fn subnet(&self) -> Ipv4Net {
        let address = u32::from(self.subnets.network()) + u32::from(self.draw()) * 16;
        Ipv4Net::new(address.into(), 28).expect("28 is a length")
    }

    /// A port that nobody uses.
    pub(crate) fn port(&self) -> u16 {
        self.ports + self.draw()
    }

    fn draw(&self) -> u16 {
        let drawn = self.next.fetch_add(1, Ordering::Relaxed);
        assert!(drawn < DRAWS, "a test draws from its own slot only");
        drawn
    }
}

fn directory() -> PathBuf {
    std::env::temp_dir().join("decnet-engine-tests")
}
