//! The files of one login: the machine's tree under what the session has changed.
//!
//! Changes live as long as the session, are seen by nobody else, and have a bound.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use time::OffsetDateTime;

use crate::budget::Budget;
use crate::persona::{Content, Facts, Node, NodeKind};

/// Most bytes that a session may write.
const MAX_BYTES: usize = 1024 * 1024;
/// Most files, directories and removals of a session.
const MAX_NODES: usize = 512;
/// What each part of a path takes to be looked up, beside its bytes.
const PART_WORK: usize = 128;
/// What each node takes that a listing looks at.
const ENTRY_WORK: usize = 128;
/// Longest path.
const MAX_PATH: usize = 4096;

/// Why an operation on a file fails; shown as the C library shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Errno {
    NotFound,
    NotADirectory,
    IsADirectory,
    Denied,
    NoSpace,
    Exists,
    NotEmpty,
    Loop,
    TooLong,
    /// The line has done too much already.
    NoMemory,
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotFound => "No such file or directory",
            Self::NotADirectory => "Not a directory",
            Self::IsADirectory => "Is a directory",
            Self::Denied => "Permission denied",
            Self::NoSpace => "No space left on device",
            Self::Exists => "File exists",
            Self::NotEmpty => "Directory not empty",
            Self::Loop => "Too many levels of symbolic links",
            Self::TooLong => "File name too long",
            Self::NoMemory => "Cannot allocate memory",
        })
    }
}

/// Who touches files, and when.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Actor {
    pub(crate) uid: u32,
    pub(crate) now: OffsetDateTime,
}

/// The files of one login.
pub(crate) struct Files {
    facts: Arc<Facts>,
    /// What differs from the tree; none for what was removed.
    changed: BTreeMap<String, Option<Node>>,
    written: usize,
    /// What the line that runs may still do.
    budget: Arc<Budget>,
}

impl Files {
    pub(crate) fn new(facts: Arc<Facts>, budget: Arc<Budget>) -> Self {
        Self {
            facts,
            changed: BTreeMap::new(),
            written: 0,
            budget,
        }
    }

    fn spend(&self, work: usize) -> Result<(), Errno> {
        if self.budget.spend(work) {
            Ok(())
        } else {
            Err(Errno::NoMemory)
        }
    }

    fn at(&self, path: &str) -> Option<&Node> {
        match self.changed.get(path) {
            Some(changed) => changed.as_ref(),
            None => self.facts.tree().get(path),
        }
    }

    /// The absolute path that `path` means from `cwd`, every link but the last followed, the last
    /// one too if `follow`. The node itself need not exist.
    pub(crate) fn resolve(&self, cwd: &str, path: &str, follow: bool) -> Result<String, Errno> {
        self.spend(PART_WORK + path.len())?;
        if path.len() + cwd.len() > MAX_PATH {
            return Err(Errno::TooLong);
        }
        let mut pending: Vec<String> = Vec::new();
        let push = |pending: &mut Vec<String>, path: &str| {
            pending.extend(
                path.split('/')
                    .rev()
                    .filter(|part| !part.is_empty())
                    .map(str::to_owned),
            );
        };
        push(&mut pending, path);
        if !path.starts_with('/') {
            push(&mut pending, cwd);
        }
        let mut at = String::new();
        let mut links = 0;
        while let Some(part) = pending.pop() {
            self.spend(PART_WORK + at.len())?;
            match part.as_str() {
                "." => {}
                ".." => at.truncate(at.rfind('/').unwrap_or(0)),
                name => {
                    let parent = if at.is_empty() { "/" } else { &at };
                    match self.at(parent).map(|node| &node.kind) {
                        Some(NodeKind::Directory) => {}
                        Some(NodeKind::File(_) | NodeKind::Link(_)) => {
                            return Err(Errno::NotADirectory);
                        }
                        None => return Err(Errno::NotFound),
                    }
                    let next = format!("{at}/{name}");
                    if (follow || !pending.is_empty())
                        && let Some(Node {
                            kind: NodeKind::Link(target),
                            ..
                        }) = self.at(&next)
                    {
                        links += 1;
                        if links > 16 {
                            return Err(Errno::Loop);
                        }
                        if target.starts_with('/') {
                            at.clear();
                        }
                        let target = target.clone();
                        push(&mut pending, &target);
                    } else {
                        at = next;
                    }
                }
            }
        }
        Ok(if at.is_empty() { "/".to_owned() } else { at })
    }

    /// The node that `path` means from `cwd`.
    pub(crate) fn find(&self, cwd: &str, path: &str) -> Result<(String, &Node), Errno> {
        let resolved = self.resolve(cwd, path, true)?;
        match self.at(&resolved) {
            Some(Node {
                kind: NodeKind::File(_) | NodeKind::Link(_),
                ..
            }) if path.ends_with('/') => Err(Errno::NotADirectory),
            Some(node) => Ok((resolved, node)),
            None => Err(Errno::NotFound),
        }
    }

    /// The node at a resolved path, a link not followed.
    pub(crate) fn node(&self, resolved: &str) -> Option<&Node> {
        self.at(resolved)
    }

    /// The names and nodes in a directory, in the order of names; not all of them when the line
    /// has done too much already.
    pub(crate) fn list<'t>(&'t self, directory: &str) -> Vec<(String, &'t Node)> {
        let prefix = if directory == "/" {
            "/".to_owned()
        } else {
            format!("{directory}/")
        };
        let name = |path: &str| {
            path.strip_prefix(&prefix)
                .filter(|name| !name.is_empty() && !name.contains('/'))
                .map(str::to_owned)
        };
        let mut found: BTreeMap<String, &'t Node> = self
            .facts
            .tree()
            .below(directory)
            .take_while(|_| self.budget.spend(ENTRY_WORK))
            .filter(|(path, _)| !self.changed.contains_key(*path))
            .filter_map(|(path, node)| Some((name(path)?, node)))
            .collect();
        for (path, node) in &self.changed {
            if !self.budget.spend(ENTRY_WORK) {
                break;
            }
            if let (Some(name), Some(node)) = (name(path), node) {
                found.insert(name, node);
            }
        }
        found.into_iter().collect()
    }

    /// Whether `actor` may write into the directory that holds `resolved`.
    fn may_change(&self, resolved: &str, actor: Actor) -> Result<(), Errno> {
        let parent = match resolved.rsplit_once('/') {
            Some(("", _)) | None => "/",
            Some((parent, _)) => parent,
        };
        let node = self.at(parent).ok_or(Errno::NotFound)?;
        if node.kind != NodeKind::Directory {
            return Err(Errno::NotADirectory);
        }
        let virtual_tree = ["/proc", "/sys"]
            .iter()
            .any(|top| resolved.starts_with(top));
        if virtual_tree || !may(node, actor.uid, 0o2) {
            Err(Errno::Denied)
        } else {
            Ok(())
        }
    }

    fn change(&mut self, path: String, node: Option<Node>) -> Result<(), Errno> {
        if self.changed.len() >= MAX_NODES && !self.changed.contains_key(&path) {
            return Err(Errno::NoSpace);
        }
        self.changed.insert(path, node);
        Ok(())
    }

    /// Writes a file, whole or at its end.
    pub(crate) fn write(
        &mut self,
        cwd: &str,
        path: &str,
        bytes: &[u8],
        append: bool,
        actor: Actor,
    ) -> Result<(), Errno> {
        let resolved = self.resolve(cwd, path, true)?;
        if matches!(resolved.as_str(), "/dev/null" | "/dev/zero" | "/dev/tty") {
            return Ok(());
        }
        self.spend(bytes.len())?;
        let (length, mode, uid) = match self.at(&resolved) {
            Some(Node {
                kind: NodeKind::Directory,
                ..
            }) => return Err(Errno::IsADirectory),
            Some(node) if !may(node, actor.uid, 0o2) => return Err(Errno::Denied),
            Some(Node {
                kind: NodeKind::File(Content::Bytes(held)),
                mode,
                uid,
                ..
            }) if append => (held.len(), *mode, *uid),
            Some(node) => (0, node.mode, node.uid),
            None => {
                self.may_change(&resolved, actor)?;
                (0, 0o644, actor.uid)
            }
        };
        if self.written + length + bytes.len() > MAX_BYTES {
            return Err(Errno::NoSpace);
        }
        // What is written over counts, too: the bound is on what a session makes us do.
        self.written += bytes.len();
        if append
            && let Some(Some(Node {
                kind: NodeKind::File(Content::Bytes(held)),
                modified,
                ..
            })) = self.changed.get_mut(&resolved)
        {
            // Not copied: a file may be long, and each addition short.
            held.extend_from_slice(bytes);
            *modified = actor.now;
            return Ok(());
        }
        let mut held = match self.at(&resolved).map(|node| &node.kind) {
            Some(NodeKind::File(Content::Bytes(held))) if append => held.clone(),
            Some(_) | None => Vec::new(),
        };
        held.extend_from_slice(bytes);
        let kind = NodeKind::File(Content::Bytes(held));
        self.change(
            resolved,
            Some(Node {
                kind,
                mode,
                uid,
                gid: uid,
                modified: actor.now,
            }),
        )
    }

    /// Puts a copy of a node at `path`.
    pub(crate) fn put(
        &mut self,
        cwd: &str,
        path: &str,
        kind: NodeKind,
        mode: u32,
        actor: Actor,
    ) -> Result<(), Errno> {
        let resolved = self.resolve(cwd, path, true)?;
        self.may_change(&resolved, actor)?;
        if let NodeKind::File(Content::Bytes(bytes)) = &kind {
            if self.written + bytes.len() > MAX_BYTES {
                return Err(Errno::NoSpace);
            }
            self.written += bytes.len();
        }
        let node = Node {
            kind,
            mode,
            uid: actor.uid,
            gid: actor.uid,
            modified: actor.now,
        };
        self.change(resolved, Some(node))
    }

    /// Makes a directory.
    pub(crate) fn make_directory(
        &mut self,
        cwd: &str,
        path: &str,
        actor: Actor,
    ) -> Result<(), Errno> {
        let resolved = self.resolve(cwd, path, true)?;
        if self.at(&resolved).is_some() {
            return Err(Errno::Exists);
        }
        self.put("/", &resolved, NodeKind::Directory, 0o755, actor)
    }

    /// Sets the permission bits.
    pub(crate) fn set_mode(
        &mut self,
        cwd: &str,
        path: &str,
        mode: u32,
        actor: Actor,
    ) -> Result<(), Errno> {
        let (resolved, node) = self.find(cwd, path)?;
        if actor.uid != 0 && node.uid != actor.uid {
            return Err(Errno::Denied);
        }
        if let Some(Some(node)) = self.changed.get_mut(&resolved) {
            node.mode = mode;
            return Ok(());
        }
        let node = self.at(&resolved).ok_or(Errno::NotFound)?;
        let node = Node {
            mode,
            ..node.clone()
        };
        self.change(resolved, Some(node))
    }

    /// Removes a file, or a directory and what is in it if `recursive`.
    pub(crate) fn remove(
        &mut self,
        cwd: &str,
        path: &str,
        recursive: bool,
        actor: Actor,
    ) -> Result<(), Errno> {
        let resolved = self.resolve(cwd, path, false)?;
        let node = self.at(&resolved).ok_or(Errno::NotFound)?;
        let directory = node.kind == NodeKind::Directory;
        self.may_change(&resolved, actor)?;
        if directory && !recursive {
            return Err(Errno::IsADirectory);
        }
        if directory {
            let inside: Vec<String> = self
                .list(&resolved)
                .into_iter()
                .map(|(name, _)| format!("{}/{name}", resolved.trim_end_matches('/')))
                .collect();
            for path in inside {
                self.remove("/", &path, true, actor)?;
            }
        }
        if resolved == "/" {
            return Err(Errno::Denied);
        }
        self.change(resolved, None)
    }
}

/// Whether `uid` has the permission `bit` (4 read, 2 write, 1 execute) on a node.
pub(crate) fn may(node: &Node, uid: u32, bit: u32) -> bool {
    let shift = if node.uid == uid { 6 } else { 0 };
    uid == 0 || node.mode >> shift & bit != 0
}

/// The size that a listing shows.
pub(crate) fn size(node: &Node) -> u64 {
    match &node.kind {
        NodeKind::Directory => 4096,
        NodeKind::Link(target) => target.len() as u64,
        NodeKind::File(Content::Bytes(bytes)) => bytes.len() as u64,
        NodeKind::File(Content::Live(_)) => 0,
        NodeKind::File(Content::Program(size)) => *size,
    }
}
