//! Slots: subnets and ports of the host that one world has for itself, however many tests run at
//! the same time in however many processes.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

use crate::{docker, native};

const SLOTS: u16 = 64;

/// A slot, held by a lock on a file. The file names the hosts of its last user, so that the next
/// one can remove what a killed test left in Docker and in the kernel.
#[derive(Debug)]
pub struct Slot {
    number: u16,
    file: File,
}

impl Slot {
    /// Takes a free slot and removes what its last user left behind.
    pub fn take() -> Result<Self> {
        let directory = PathBuf::from("/tmp/decnet-e2e");
        std::fs::create_dir_all(&directory)?;
        for number in 0..SLOTS {
            let path = directory.join(format!("slot-{number:02}"));
            let file = OpenOptions::new()
                .create(true)
                .truncate(false)
                .read(true)
                .write(true)
                .open(&path)
                .with_context(|| format!("could not open {}", path.display()))?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => continue,
                Err(TryLockError::Error(error)) => return Err(error.into()),
            }
            let mut slot = Self { number, file };
            slot.sweep()?;
            return Ok(slot);
        }
        bail!("all {SLOTS} slots are in use")
    }

    fn sweep(&mut self) -> Result<()> {
        let mut hosts = String::new();
        self.file.rewind()?;
        self.file.read_to_string(&mut hosts)?;
        for host in hosts.lines() {
            docker::remove_all_of(host)?;
            native::remove_all_of(host)?;
        }
        native::forget_claims(&format!("10.{}.", 128 + self.number));
        self.file.set_len(0)?;
        self.file.rewind()?;
        Ok(())
    }

    /// Notes a host, whose objects the next user removes should this one not come to it.
    pub fn note(&mut self, host: &str) -> Result<()> {
        writeln!(self.file, "{host}")?;
        Ok(())
    }

    /// Its number.
    pub const fn number(&self) -> u16 {
        self.number
    }

    /// A subnet of its own: `10.(128 + slot).lan.0/24`.
    pub fn subnet(&self, lan: u8) -> String {
        format!("10.{}.{lan}.0/24", 128 + self.number)
    }

    /// An address in that subnet.
    pub fn address(&self, lan: u8, host: u8) -> String {
        format!("10.{}.{lan}.{host}", 128 + self.number)
    }

    /// A port of the host of its own; the index is below 100, and the last two are the master's.
    pub const fn port(&self, index: u16) -> u16 {
        20_000 + self.number * 100 + index
    }
}
