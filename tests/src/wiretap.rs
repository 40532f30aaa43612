//! A wire between agent and master that records, cuts and holds: the network of a test.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;

/// Bytes in both directions, in the order in which they passed.
#[derive(Debug, Clone, Default)]
pub struct Recording {
    /// From the host.
    pub up: Vec<u8>,
    /// From the master.
    pub down: Vec<u8>,
}

#[derive(Default)]
struct Shared {
    recording: Mutex<Recording>,
    live: Mutex<Vec<TcpStream>>,
    closed: AtomicBool,
    connections: AtomicU64,
    over: AtomicBool,
}

/// A TCP proxy in front of a master.
pub struct Wiretap {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Wiretap {
    /// Listens on loopback and passes on to `target`.
    pub fn before(target: &str) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::default());
        let target = target.to_owned();
        let inner = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if inner.over.load(Ordering::SeqCst) {
                    return;
                }
                inner.connections.fetch_add(1, Ordering::SeqCst);
                if inner.closed.load(Ordering::SeqCst) {
                    continue;
                }
                if let Ok(server) = TcpStream::connect(&target) {
                    pass(&inner, client, server);
                }
            }
        });
        Ok(Self { address, shared })
    }

    /// Where it listens, as `https://…`.
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// What has passed.
    pub fn recording(&self) -> Recording {
        self.shared
            .recording
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// How many connections were opened.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Cuts every connection and lets no new one through.
    pub fn cut(&self) {
        self.shared.closed.store(true, Ordering::SeqCst);
        self.hang_up();
    }

    /// Lets connections through again.
    pub fn mend(&self) {
        self.shared.closed.store(false, Ordering::SeqCst);
    }

    /// Cuts every live connection.
    pub fn hang_up(&self) {
        for stream in self
            .shared
            .live
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .drain(..)
        {
            // One that has ended is cut already.
            drop(stream.shutdown(Shutdown::Both));
        }
    }
}

fn pass(shared: &Arc<Shared>, client: TcpStream, server: TcpStream) {
    let (Ok(client_too), Ok(server_too)) = (client.try_clone(), server.try_clone()) else {
        return;
    };
    if let (Ok(one), Ok(other)) = (client.try_clone(), server.try_clone()) {
        shared
            .live
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend([one, other]);
    }
    let up = Arc::clone(shared);
    std::thread::spawn(move || copy(&up, client, server, |recording| &mut recording.up));
    let down = Arc::clone(shared);
    std::thread::spawn(move || {
        copy(&down, server_too, client_too, |recording| {
            &mut recording.down
        })
    });
}

fn copy(
    shared: &Shared,
    mut from: TcpStream,
    mut to: TcpStream,
    side: fn(&mut Recording) -> &mut Vec<u8>,
) {
    let mut buffer = [0_u8; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        let bytes = &buffer[..count];
        side(
            &mut shared
                .recording
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        )
        .extend_from_slice(bytes);
        if to.write_all(bytes).is_err() {
            break;
        }
    }
    // The other side may be gone, which is the same.
    drop(to.shutdown(Shutdown::Write));
}

impl Drop for Wiretap {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::SeqCst);
        self.cut();
        // Wakes the listener, so that it sees that it is over.
        drop(TcpStream::connect(self.address));
    }
}

/// The TLS records of one direction: type and length of each.
pub fn tls_records(mut bytes: &[u8]) -> Vec<(u8, usize)> {
    let mut records = Vec::new();
    while let [kind, _, _, high, low, rest @ ..] = bytes {
        let length = usize::from(*high) * 256 + usize::from(*low);
        records.push((*kind, length));
        bytes = rest.get(length..).unwrap_or_default();
    }
    records
}
