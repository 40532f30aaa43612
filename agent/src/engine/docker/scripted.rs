//! A daemon for tests that answers each request as it is told to.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// A daemon on a socket, which is gone with it.
pub(super) struct Daemon {
    socket: PathBuf,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Daemon {
    /// Answers each path with a status and a document.
    pub(super) fn at(
        socket: &Path,
        answer: impl Fn(&str) -> (u16, String) + Send + 'static,
    ) -> Self {
        let listener = UnixListener::bind(socket).expect("the place is free");
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let log = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                let Some(path) = path(&stream) else { continue };
                log.lock().expect("no test panics here").push(path.clone());
                let (status, body) = answer(&path);
                let length = body.len();
                let text = format!(
                    "HTTP/1.1 {status} Said\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
                );
                (&stream).write_all(text.as_bytes()).ok();
            }
        });
        Self {
            socket: socket.to_owned(),
            asked,
        }
    }

    /// How often paths with this end were asked for.
    pub(super) fn asked(&self, end: &str) -> usize {
        let asked = self.asked.lock().expect("no test panics here");
        asked.iter().filter(|path| path.ends_with(end)).count()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        std::fs::remove_file(&self.socket).ok();
    }
}

/// Reads a request; its path, without the query.
fn path(stream: &UnixStream) -> Option<String> {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let length = head
        .lines()
        .filter_map(|line| line.split_once(": "))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, length)| length.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body).ok()?;
    let target = head.split(' ').nth(1)?;
    Some(target.split('?').next()?.to_owned())
}
