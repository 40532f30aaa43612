//! What deckies say, in files: kept while no agent is there, bounded, and read from any place.
//!
//! A decky appends to `HANDLE.out`, under a shared lock, up to a size that the kernel enforces.
//! Whoever follows it cuts the file once it has grown: under an exclusive lock the file is copied to
//! `HANDLE.old-N` and emptied, where N is the place in the whole stream at which the emptied file
//! begins. Nothing else remembers that place, so that a kill between the two steps leaves nothing
//! that contradicts it.
//!
//! A place in the stream is told to others as a time: that at which the decky was made, and one
//! nanosecond more for each byte.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _, fchown};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bytes::{Bytes, BytesMut};
use domain::event::MAX_LINE;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use rustix::fs::{FlockOperation, flock};
use rustix::process::geteuid;
use time::OffsetDateTime;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

use super::place::gone_is_fine;
use super::ready::awaited;
use crate::engine::{EngineError, EngineErrorKind, OutputLine};
use crate::task;

/// A file that is larger is emptied as soon as it has been read.
const LARGE: u64 = 8 * 1024 * 1024;
/// Most bytes read at once.
const CHUNK: u64 = 256 * 1024;
/// Where a line is cut that no decky of ours can have written.
const LIMIT: usize = 2 * MAX_LINE;
/// What stands at the end of a line that was cut.
const CUT: &[u8] = b" [cut]";
/// How much of two files is compared to know whether one is the other's copy: lines are numbered,
/// so that no two beginnings are alike.
const ALIKE: u64 = 4096;

/// The files of a host's deckies.
#[derive(Debug)]
pub(super) struct Outputs {
    directory: PathBuf,
    open: Mutex<BTreeMap<String, Weak<Mutex<Output>>>>,
}

/// One decky's files.
#[derive(Debug)]
struct Output {
    directory: PathBuf,
    handle: String,
    live: File,
    /// Where in the stream the live file begins.
    base: u64,
    /// What was cut last, and where that begins.
    old: Option<(u64, File)>,
}

/// A piece of the stream.
struct Piece {
    /// Where it begins: later than asked for when what was asked for is gone.
    at: u64,
    bytes: Vec<u8>,
}

impl Outputs {
    pub(super) const fn in_directory(directory: PathBuf) -> Self {
        Self {
            directory,
            open: Mutex::new(BTreeMap::new()),
        }
    }

    /// The file that a decky's process is started with. It is there from its first start on.
    pub(super) fn open_for_process(&self, handle: &str) -> io::Result<File> {
        OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(live(&self.directory, handle))
    }

    /// Whether a decky has ever been started.
    pub(super) fn exists(&self, handle: &str) -> bool {
        live(&self.directory, handle).exists()
    }

    /// The file whose changes are a decky's output.
    pub(super) fn file(&self, handle: &str) -> PathBuf {
        live(&self.directory, handle)
    }

    /// Removes everything that a decky has said.
    pub(super) fn remove(&self, handle: &str) -> io::Result<()> {
        for (_, path) in olds(&self.directory, handle)? {
            gone_is_fine(fs::remove_file(path))?;
        }
        gone_is_fine(fs::remove_file(self.directory.join(growing(handle))))?;
        gone_is_fine(fs::remove_file(live(&self.directory, handle)))
    }

    /// Removes what belongs to no decky.
    pub(super) fn sweep(&self, used: impl Fn(&str) -> bool) -> io::Result<()> {
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let name = entry.file_name();
            let handle = name.to_str().and_then(|name| name.split('.').next());
            if !handle.is_some_and(&used) {
                gone_is_fine(fs::remove_file(entry.path()))?;
            }
        }
        Ok(())
    }

    /// One for all who read the same decky's files: they must agree on where the live one begins.
    fn output(&self, handle: &str) -> io::Result<Arc<Mutex<Output>>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|_, output| output.strong_count() > 0);
        if let Some(output) = open.get(handle).and_then(Weak::upgrade) {
            return Ok(output);
        }
        let output = Arc::new(Mutex::new(Output::open(&self.directory, handle)?));
        open.insert(handle.to_owned(), Arc::downgrade(&output));
        Ok(output)
    }
}

/// Makes a decky's file the agent's own again: the runtime gives it to the user that the decky runs
/// as, who could then open it a second time, and empty it.
pub(super) fn take_back(file: &File) -> io::Result<()> {
    let own = geteuid().as_raw();
    if file.metadata()?.uid() == own {
        return Ok(());
    }
    fchown(file, Some(own), None)
}

impl Output {
    fn open(directory: &Path, handle: &str) -> io::Result<Self> {
        let live = OpenOptions::new()
            .read(true)
            .write(true)
            .open(live(directory, handle))?;
        // A kill may have come between the launch and this.
        take_back(&live)?;
        let mut this = Self {
            directory: directory.to_owned(),
            handle: handle.to_owned(),
            live,
            base: 0,
            old: None,
        };
        // More than one is left when a kill came before the removal of the one before.
        let mut olds = olds(directory, handle)?;
        while let Some((end, path)) = olds.pop() {
            let old = File::open(&path)?;
            let length = old.metadata()?.len();
            if this.old.is_none() && !same_beginning(&this.live, &old)? {
                this.base = end;
                this.old = Some((end.saturating_sub(length), old));
            } else if this.old.is_none() {
                // A copy whose original was not emptied: it says where the original begins.
                this.base = end.saturating_sub(length);
                let older = olds.pop();
                for (_, stale) in olds.drain(..) {
                    gone_is_fine(fs::remove_file(stale))?;
                }
                if let Some((older_end, older_path)) = older {
                    let older = File::open(older_path)?;
                    let length = older.metadata()?.len();
                    this.old = Some((older_end.saturating_sub(length), older));
                } else if this.base > 0 {
                    // Nobody but this copy knows the place: it stays until the next cut.
                    return Ok(this);
                }
                gone_is_fine(fs::remove_file(path))?;
            } else {
                gone_is_fine(fs::remove_file(path))?;
            }
        }
        Ok(this)
    }

    /// What stands at a place of the stream; empty at its end.
    fn read(&mut self, mut place: u64) -> io::Result<Piece> {
        if place > self.base.saturating_add(self.live.metadata()?.len()) {
            // A loss of power has taken what was read already; what is read twice is known again.
            place = 0;
        }
        if place < self.base
            && let Some((start, old)) = &self.old
        {
            let at = place.max(*start);
            let bytes = read_at(old, at - start)?;
            if !bytes.is_empty() {
                return Ok(Piece { at, bytes });
            }
        }
        let at = place.max(self.base);
        Ok(Piece {
            at,
            bytes: read_at(&self.live, at - self.base)?,
        })
    }

    /// Empties the live file when it is large and was read up to `place`.
    fn cut_if_read(&mut self, place: u64) -> io::Result<()> {
        let length = self.live.metadata()?.len();
        if length <= LARGE || place < self.base.saturating_add(length) {
            return Ok(());
        }
        // A decky that never lets go of it is held to the size that the kernel enforces.
        if flock(&self.live, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Ok(());
        }
        let cut = self.cut();
        flock(&self.live, FlockOperation::Unlock)?;
        cut
    }

    fn cut(&mut self) -> io::Result<()> {
        let before = olds(&self.directory, &self.handle)?;
        let growing = self.directory.join(growing(&self.handle));
        let mut copy = OpenOptions::new()
            .create(true)
            .truncate(true)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(&growing)?;
        (&self.live).seek(SeekFrom::Start(0))?;
        let length = io::copy(&mut (&self.live), &mut copy)?;
        let end = self.base.saturating_add(length);
        let path = self
            .directory
            .join(format!("{}.old-{end:020}", self.handle));
        fs::rename(&growing, &path)?;
        for (_, stale) in before.into_iter().filter(|(_, stale)| *stale != path) {
            gone_is_fine(fs::remove_file(stale))?;
        }
        self.live.set_len(0)?;
        self.old = Some((self.base, copy));
        self.base = end;
        Ok(())
    }
}

fn live(directory: &Path, handle: &str) -> PathBuf {
    directory.join(format!("{handle}.out"))
}

fn growing(handle: &str) -> String {
    format!("{handle}.new")
}

/// The copies of a decky's file that are there, each with the place at which it ends, in order.
fn olds(directory: &Path, handle: &str) -> io::Result<Vec<(u64, PathBuf)>> {
    let prefix = format!("{handle}.old-");
    let mut olds = Vec::new();
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(olds),
        other => other?,
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let end = name
            .to_str()
            .and_then(|name| name.strip_prefix(&prefix))
            .and_then(|end| end.parse().ok());
        if let Some(end) = end {
            olds.push((end, entry.path()));
        }
    }
    olds.sort();
    Ok(olds)
}

fn same_beginning(one: &File, other: &File) -> io::Result<bool> {
    let length = one
        .metadata()?
        .len()
        .min(other.metadata()?.len())
        .min(ALIKE);
    if length == 0 {
        return Ok(false);
    }
    let read = |file: &File| {
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
        file.read_exact_at(&mut bytes, 0).map(|()| bytes)
    };
    Ok(read(one)? == read(other)?)
}

fn read_at(file: &File, at: u64) -> io::Result<Vec<u8>> {
    let left = file.metadata()?.len().saturating_sub(at).min(CHUNK);
    let mut bytes = Vec::with_capacity(usize::try_from(left).unwrap_or(0));
    if left > 0 {
        let mut file = file;
        file.seek(SeekFrom::Start(at))?;
        file.take(left).read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

/// What somebody follows.
pub(super) struct Following {
    pub(super) outputs: Arc<Outputs>,
    pub(super) handle: String,
    /// When the decky was made, in microseconds since the epoch.
    pub(super) made: u64,
    /// The process that writes; none when none runs.
    pub(super) process: Option<OwnedFd>,
    /// Moves when the file has changed.
    pub(super) changed: watch::Receiver<u64>,
    pub(super) attempt: String,
}

/// The lines of a decky from `since` on, then as they are written; ends with the process.
pub(super) async fn lines(
    following: Following,
    since: Option<OffsetDateTime>,
) -> Result<BoxStream<'static, Result<OutputLine, EngineError>>, EngineError> {
    let Following {
        outputs,
        handle,
        made,
        process,
        changed,
        attempt,
    } = following;
    let failed = move |source: io::Error| EngineError {
        kind: if source.kind() == io::ErrorKind::NotFound {
            EngineErrorKind::NotFound
        } else {
            EngineErrorKind::Disk
        },
        attempt: attempt.clone(),
        source: Some(Box::new(source)),
    };
    if !outputs.exists(&handle) {
        // Made and never started: it has said nothing.
        return Ok(stream::empty().boxed());
    }
    let output = task::blocking(move || outputs.output(&handle))
        .await
        .map_err(&failed)?;
    let process = process.map(awaited).transpose().map_err(&failed)?;
    let reader = Reader {
        output,
        made,
        place: since.map_or(0, |since| place_of(since, made)),
        lines: Lines::default(),
        ready: VecDeque::new(),
        process,
        changed,
    };
    Ok(stream::unfold(Some(reader), move |reader| {
        let failed = failed.clone();
        async move {
            let mut reader = reader?;
            match reader.next().await {
                Ok(Some(line)) => Some((Ok(line), Some(reader))),
                Ok(None) => None,
                Err(error) => Some((Err(failed(error)), None)),
            }
        }
    })
    .boxed())
}

struct Reader {
    output: Arc<Mutex<Output>>,
    made: u64,
    place: u64,
    lines: Lines,
    ready: VecDeque<OutputLine>,
    process: Option<AsyncFd<OwnedFd>>,
    changed: watch::Receiver<u64>,
}

impl Reader {
    async fn next(&mut self) -> io::Result<Option<OutputLine>> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Ok(Some(line));
            }
            // Before the look: what is written after it moves the number again.
            self.changed.mark_unchanged();
            let running = self.process.is_some();
            let (output, place) = (Arc::clone(&self.output), self.place);
            let piece = task::blocking(move || {
                let mut output = lock(&output);
                let piece = output.read(place)?;
                if piece.bytes.is_empty() {
                    output.cut_if_read(piece.at)?;
                }
                Ok::<_, io::Error>(piece)
            })
            .await?;
            if piece.bytes.is_empty() {
                self.place = piece.at;
                if !running {
                    let last = self.lines.end();
                    return Ok(last.map(|(at, line)| self.line(at, line)));
                }
                self.wait().await?;
                continue;
            }
            if piece.at != self.place {
                // What lay between is gone, and the file was cut at a line's end.
                self.lines = Lines::default();
            }
            let (at, made) = (piece.at, self.made);
            self.place = at.saturating_add(u64::try_from(piece.bytes.len()).unwrap_or(u64::MAX));
            let ready = &mut self.ready;
            self.lines.push(at, &piece.bytes, |at, line| {
                ready.push_back(OutputLine {
                    at: time_of(at, made),
                    line,
                });
            });
        }
    }

    fn line(&self, at: u64, line: Bytes) -> OutputLine {
        OutputLine {
            at: time_of(at, self.made),
            line,
        }
    }

    /// Waits until the file has changed or the process has ended.
    async fn wait(&mut self) -> io::Result<()> {
        let Some(process) = &self.process else {
            return Ok(());
        };
        tokio::select! {
            ended = process.readable() => {
                drop(ended?);
                // It is looked at once more: what it said last is there by now.
                self.process = None;
            }
            changed = self.changed.changed() => {
                if changed.is_err() {
                    // The engine is gone.
                    self.process = None;
                }
            }
        }
        Ok(())
    }
}

fn lock(output: &Mutex<Output>) -> MutexGuard<'_, Output> {
    // A panic elsewhere leaves files whose names still tell what they are.
    output.lock().unwrap_or_else(PoisonError::into_inner)
}

fn time_of(place: u64, made: u64) -> OffsetDateTime {
    let nanos = i128::from(made) * 1000 + i128::from(place);
    OffsetDateTime::from_unix_timestamp_nanos(nanos).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

fn place_of(at: OffsetDateTime, made: u64) -> u64 {
    let nanos = at.unix_timestamp_nanos() - i128::from(made) * 1000;
    u64::try_from(nanos).unwrap_or(0)
}

/// Puts pieces together.
#[derive(Debug, Default)]
struct Lines {
    partial: BytesMut,
    at: Option<u64>,
    cut: bool,
}

impl Lines {
    fn push(&mut self, at: u64, bytes: &[u8], mut give: impl FnMut(u64, Bytes)) {
        let mut place = at;
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let begins = place;
            place = place.saturating_add(u64::try_from(part.len()).unwrap_or(u64::MAX));
            let (text, whole) = match part.split_last() {
                Some((b'\n', text)) => (text, true),
                Some(_) | None => (part, false),
            };
            let at = *self.at.get_or_insert(begins);
            let room = LIMIT.saturating_sub(self.partial.len());
            self.cut |= text.len() > room;
            self.partial
                .extend_from_slice(text.get(..room).unwrap_or(text));
            if whole {
                let line = self.take();
                // What ends a torn line of an earlier process is no line.
                if !line.is_empty() {
                    give(at, line);
                }
            }
        }
    }

    /// The rest of a line whose writer has died in the middle of it.
    fn end(&mut self) -> Option<(u64, Bytes)> {
        let at = self.at?;
        let line = self.take();
        (!line.is_empty()).then_some((at, line))
    }

    fn take(&mut self) -> Bytes {
        if std::mem::take(&mut self.cut) {
            self.partial.extend_from_slice(CUT);
        }
        self.at = None;
        self.partial.split().freeze()
    }
}

#[cfg(test)]
mod tests;
