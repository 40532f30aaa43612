//! Load: numbered requests over kept connections, so that each event can be counted.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::patience::until;
use crate::world::SOON;

struct Shared {
    target: SocketAddr,
    prefix: String,
    next: AtomicU64,
    total: u64,
    /// Requests a second of all connections together; 0 for as fast as they are answered.
    pace: u64,
    /// The last number that may be asked for.
    most: AtomicU64,
    answered: AtomicU64,
    stop: AtomicBool,
    since: Instant,
}

/// A running load on an HTTP decky.
pub struct Flood {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Vec<u64>>>,
}

impl Flood {
    /// Waits until the decky listens, and asks for `/PREFIX/NUMBER`, each number once, until `total`
    /// or [`Flood::stop`].
    pub fn start(
        address: &str,
        prefix: &str,
        connections: usize,
        total: u64,
        pace: u64,
    ) -> Result<Self> {
        let target = format!("{address}:80").parse().context("an address")?;
        until("a decky that listens", SOON, || {
            Ok(TcpStream::connect_timeout(&target, Duration::from_secs(5)).is_ok())
        })?;
        let shared = Arc::new(Shared {
            target,
            prefix: prefix.to_owned(),
            next: AtomicU64::new(1),
            total,
            pace,
            most: AtomicU64::new(u64::MAX),
            answered: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            since: Instant::now(),
        });
        let threads = (0..connections)
            .map(|_| {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || shared.run())
            })
            .collect();
        Ok(Self { shared, threads })
    }

    /// How many were answered so far.
    pub fn answered(&self) -> u64 {
        self.shared.answered.load(Ordering::Relaxed)
    }

    /// Asks for no more than this number until it is allowed another one.
    pub fn allow(&self, most: u64) {
        self.shared.most.store(most, Ordering::Relaxed);
    }

    /// Ends it.
    pub fn stop(self) -> Result<BTreeSet<u64>> {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.finish()
    }

    /// Waits until all were asked, and gives the numbers that were answered: the decky has seen
    /// each of these.
    pub fn finish(self) -> Result<BTreeSet<u64>> {
        let mut all = BTreeSet::new();
        for thread in self.threads {
            match thread.join() {
                Ok(numbers) => all.extend(numbers),
                Err(_) => bail!("a thread of the load panicked"),
            }
        }
        Ok(all)
    }
}

impl Shared {
    fn run(&self) -> Vec<u64> {
        let mut answered = Vec::new();
        let mut connection = None;
        while !self.stop.load(Ordering::Relaxed) {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if number > self.total {
                break;
            }
            while number > self.most.load(Ordering::Relaxed) && !self.stop.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(5));
            }
            if let Some(due) = (number * 1_000_000).checked_div(self.pace) {
                let due = self.since + Duration::from_micros(due);
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
            }
            // One that breaks may or may not have been seen: its number is not counted, and the
            // next one has a connection of its own.
            match self.ask(&mut connection, number) {
                Ok(()) => {
                    answered.push(number);
                    self.answered.fetch_add(1, Ordering::Relaxed);
                }
                Err(_) => {
                    connection = None;
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
        }
        answered
    }

    fn ask(&self, connection: &mut Option<BufReader<TcpStream>>, number: u64) -> Result<()> {
        let mut reader = match connection.take() {
            Some(reader) => reader,
            None => {
                let stream = TcpStream::connect_timeout(&self.target, Duration::from_secs(5))?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(Duration::from_secs(10)))?;
                BufReader::new(stream)
            }
        };
        let request = format!(
            "GET /{}/{number} HTTP/1.1\r\nHost: www\r\n\r\n",
            self.prefix
        );
        reader.get_mut().write_all(request.as_bytes())?;
        let mut length = 0_u64;
        let mut close = false;
        let mut line = String::new();
        loop {
            line.clear();
            if reader.read_line(&mut line)? == 0 {
                bail!("the connection ended in the header");
            }
            let text = line.trim_end().to_ascii_lowercase();
            if text.is_empty() {
                break;
            }
            if let Some(value) = text.strip_prefix("content-length:") {
                length = value.trim().parse()?;
            }
            close |= text.starts_with("connection:") && text.contains("close");
        }
        std::io::copy(&mut reader.by_ref().take(length), &mut std::io::sink())?;
        if !close {
            *connection = Some(reader);
        }
        Ok(())
    }
}
