//! Where lines are written: a stream, which takes everything sooner or later, or a regular file,
//! which may have reached its greatest size.
//!
//! A file is shared with whoever collects it and cuts what was read away: each write holds a shared
//! lock, so that nothing is cut between a line's two halves.

use std::fs::File;
use std::io::{self, ErrorKind, Seek as _, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{FileType, FlockOperation, flock};

/// What takes whole lines.
pub(crate) trait Output: Send + 'static {
    /// Takes `lines`, each with its newline. Answers how many bytes of whole lines were taken; fewer
    /// than all when there is no room. An error is the output being gone.
    fn put(&mut self, lines: &[u8]) -> io::Result<usize>;
}

/// An output that takes everything, though it may take its time.
pub(crate) struct Stream<W>(pub(crate) W);

impl<W: Write + Send + 'static> Output for Stream<W> {
    fn put(&mut self, lines: &[u8]) -> io::Result<usize> {
        self.0.write_all(lines)?;
        self.0.flush()?;
        Ok(lines.len())
    }
}

/// An output that may be full until somebody cuts it.
pub(crate) struct Bounded<F> {
    file: F,
    /// The last line in it has no newline: what follows must not be taken for its rest.
    torn: bool,
}

/// What of a file an output needs.
pub(crate) trait Shared: Send + 'static {
    /// Waits until nobody cuts the file, and keeps it so until [`Shared::release`].
    fn hold(&mut self) -> io::Result<()>;
    /// Writes behind what is there; maybe not all of it.
    fn append(&mut self, bytes: &[u8]) -> io::Result<usize>;
    /// Lets others cut the file.
    fn release(&mut self) -> io::Result<()>;
}

impl Shared for File {
    fn hold(&mut self) -> io::Result<()> {
        retried(|| flock(self.as_fd(), FlockOperation::LockShared).map_err(io::Error::from))?;
        // Whoever cut it left this process's own place behind the end.
        self.seek(SeekFrom::End(0)).map(drop)
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write(bytes)
    }

    fn release(&mut self) -> io::Result<()> {
        flock(self.as_fd(), FlockOperation::Unlock).map_err(io::Error::from)
    }
}

impl<F: Shared> Bounded<F> {
    /// Writes behind what `file` holds, which may end in a torn line: of another life of this
    /// process, that was killed.
    pub(crate) const fn new(file: F, torn: bool) -> Self {
        Self { file, torn }
    }

    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        if self.torn {
            match self.write_some(b"\n")? {
                0 => return Ok(0),
                _ => self.torn = false,
            }
        }
        let mut written = 0;
        while written < lines.len() {
            match self.write_some(&lines[written..])? {
                0 => break,
                more => written += more,
            }
        }
        let whole = lines[..written]
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |newline| newline + 1);
        self.torn = whole < written;
        // A line that lacks nothing but its newline is read as a whole one, and must not be
        // counted as lost.
        Ok(if self.torn && lines.get(written) == Some(&b'\n') {
            written + 1
        } else {
            whole
        })
    }

    /// Nothing when there is no room.
    fn write_some(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match retried(|| self.file.append(bytes)) {
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::FileTooLarge | ErrorKind::StorageFull | ErrorKind::QuotaExceeded
                ) =>
            {
                Ok(0)
            }
            written => written,
        }
    }
}

impl<F: Shared> Output for Bounded<F> {
    fn put(&mut self, lines: &[u8]) -> io::Result<usize> {
        self.file.hold()?;
        let taken = self.write(lines);
        self.file.release()?;
        taken
    }
}

fn retried<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            answer => return answer,
        }
    }
}

/// The standard output, by what it is.
pub(crate) enum Standard {
    /// A pipe, a terminal, a socket.
    Stream(Stream<io::Stdout>),
    /// A regular file. It may reach its greatest size, which a process survives only that has
    /// taken SIGXFSZ.
    File(Bounded<File>),
}

impl Standard {
    /// Looks what the standard output is.
    pub(crate) fn open() -> io::Result<Self> {
        let stdout = io::stdout();
        let about = rustix::fs::fstat(&stdout)?;
        if FileType::from_raw_mode(about.st_mode) != FileType::RegularFile {
            return Ok(Self::Stream(Stream(stdout)));
        }
        // The same open file under another number, so that the lock is its lock.
        let same: OwnedFd = stdout.as_fd().try_clone_to_owned()?;
        // Whether the last line is whole cannot be read from a descriptor for writing; an empty
        // line costs nothing.
        Ok(Self::File(Bounded::new(same.into(), about.st_size > 0)))
    }

    /// Whether it has a greatest size.
    pub(crate) const fn is_file(&self) -> bool {
        matches!(self, Self::File(_))
    }
}

impl Output for Standard {
    fn put(&mut self, lines: &[u8]) -> io::Result<usize> {
        match self {
            Self::Stream(stream) => stream.put(lines),
            Self::File(file) => file.put(lines),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::sync::{Arc, Mutex, PoisonError};

    use super::*;

    /// A file of so many bytes at most.
    #[derive(Clone)]
    struct Small {
        held: Arc<Mutex<Vec<u8>>>,
        room: usize,
    }

    impl Shared for Small {
        fn hold(&mut self) -> io::Result<()> {
            Ok(())
        }

        fn append(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
            let room = self.room.saturating_sub(held.len()).min(bytes.len());
            if room == 0 {
                return Err(ErrorKind::FileTooLarge.into());
            }
            held.extend_from_slice(&bytes[..room]);
            Ok(room)
        }

        fn release(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Small {
        fn of(room: usize) -> Self {
            Self {
                held: Arc::default(),
                room,
            }
        }

        /// What a reader cuts away.
        fn cut(&self) -> String {
            let bytes =
                std::mem::take(&mut *self.held.lock().unwrap_or_else(PoisonError::into_inner));
            String::from_utf8(bytes).expect("tests write text")
        }
    }

    #[test]
    fn a_torn_line_is_ended_before_the_next_begins() {
        let file = Small::of(8);
        let mut output = Bounded::new(file.clone(), false);
        assert_eq!(output.put(b"one\ntwo three\n").expect("not gone"), 4);
        assert_eq!(output.put(b"four\n").expect("not gone"), 0, "it is full");
        assert_eq!(file.cut(), "one\ntwo ");
        assert_eq!(output.put(b"four\n").expect("not gone"), 5);
        assert_eq!(file.cut(), "\nfour\n");
    }

    #[test]
    fn a_line_without_its_newline_only_counts_as_written() {
        let file = Small::of(7);
        let mut output = Bounded::new(file.clone(), false);
        assert_eq!(output.put(b"one\ntwo\nmore\n").expect("not gone"), 8);
        assert_eq!(file.cut(), "one\ntwo");
        assert_eq!(output.put(b"more\n").expect("not gone"), 5);
        assert_eq!(file.cut(), "\nmore\n");
    }

    #[test]
    fn a_cut_file_is_written_from_its_new_end_also_without_append() {
        let directory = tempfile::tempdir().expect("a directory can be made");
        let path = directory.path().join("out");
        let file = File::create(&path).expect("the directory is ours");
        let mut output = Bounded::new(file, false);
        output.put(b"one\n").expect("written");
        let collector = File::options()
            .write(true)
            .open(&path)
            .expect("it is there");
        flock(&collector, FlockOperation::LockExclusive).expect("free");
        collector.set_len(0).expect("ours");
        // The writer waits for the lock: what it writes is behind the cut.
        let writer = std::thread::spawn(move || output.put(b"two\n").expect("written"));
        assert_eq!(std::fs::read(&path).expect("it is there"), b"");
        flock(&collector, FlockOperation::Unlock).expect("held");
        assert_eq!(writer.join().expect("no panic"), 4);
        let mut text = String::new();
        File::open(&path)
            .and_then(|mut file| file.read_to_string(&mut text))
            .expect("it is there");
        assert_eq!(text, "two\n");
    }
}
