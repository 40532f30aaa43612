//! The files that the FTP server shows: a few, from the seed.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use time::OffsetDateTime;
use time::macros::format_description;

use crate::persona::Facts;

/// Files by absolute path, with the time when each was made; a directory is what a path lies in.
pub(super) struct Tree {
    files: BTreeMap<String, (Vec<u8>, OffsetDateTime)>,
}

impl Tree {
    pub(super) fn new(facts: &Facts) -> Self {
        const NAMES: [(&str, &str); 9] = [
            (
                "pub/README.txt",
                "Files here are removed after 30 days.\r\n",
            ),
            (
                "pub/drivers/lp-setup.txt",
                "Choose port 9100, no authentication.\r\n",
            ),
            ("pub/price-list.csv", "article;unit;price\r\n"),
            ("incoming/.keep", ""),
            ("reports/weekly.csv", "week;orders;returns\r\n"),
            ("reports/inventory.csv", "id;place;count\r\n"),
            (
                "backup/db-schema.sql",
                "CREATE TABLE customers (id bigint primary key, name text);\n",
            ),
            ("exports/customers.csv", "id;name;city\r\n"),
            (
                "scripts/sync.sh",
                "#!/bin/sh\nrsync -a /srv/ftp/ /mnt/backup/ftp/\n",
            ),
        ];
        let mut files = BTreeMap::new();
        for (name, text) in NAMES {
            let kept = facts.seed.pick(&format!("ftp has {name}"), 3) > 0;
            if !kept && !name.starts_with("incoming") {
                continue;
            }
            let mut bytes = text.as_bytes().to_vec();
            if name.ends_with(".csv") {
                for row in 0..20 + facts.seed.pick(&format!("rows {name}"), 60) {
                    let number = facts.seed.pick(&format!("{name} {row}"), 100_000);
                    let line = format!(
                        "{row};{};{number}\r\n",
                        facts.hex(&format!("{name} id {row}"), 8)
                    );
                    bytes.extend_from_slice(line.as_bytes());
                }
            }
            let age =
                i64::try_from(facts.seed.pick(&format!("age {name}"), 86_400 * 90)).unwrap_or(0);
            let made = facts.installed() + time::Duration::seconds(age);
            files.insert(format!("/{name}"), (bytes, made));
        }
        Self { files }
    }

    pub(super) fn file(&self, path: &str) -> Option<&[u8]> {
        self.files.get(path).map(|(bytes, _)| bytes.as_slice())
    }

    pub(super) fn is_directory(&self, path: &str) -> bool {
        let prefix = format!("{}/", path.trim_end_matches('/'));
        path == "/" || self.files.keys().any(|file| file.starts_with(&prefix))
    }

    /// When a file was made, as MDTM tells it.
    pub(super) fn stamp(&self, path: &str) -> String {
        let format = format_description!("[year][month][day][hour][minute][second]");
        self.files
            .get(path)
            .and_then(|(_, made)| made.format(format).ok())
            .unwrap_or_default()
    }

    /// A listing as `ls -l` gives it, or only the names.
    pub(super) fn list(&self, path: &str, names: bool, now: OffsetDateTime) -> String {
        let prefix = format!("{}/", path.trim_end_matches('/'));
        let mut entries: BTreeMap<&str, (bool, usize, OffsetDateTime)> = BTreeMap::new();
        for (file, (bytes, made)) in &self.files {
            if file == path {
                entries.insert(file, (false, bytes.len(), *made));
            } else if let Some(rest) = file.strip_prefix(&prefix) {
                match rest.split_once('/') {
                    Some((directory, _)) => {
                        entries.entry(directory).or_insert((true, 4096, *made));
                    }
                    None => {
                        entries.insert(rest, (false, bytes.len(), *made));
                    }
                }
            }
        }
        let mut text = String::new();
        for (name, (directory, size, made)) in entries
            .into_iter()
            .filter(|(name, _)| !name.starts_with('.'))
        {
            if names {
                text.push_str(name);
            } else {
                let date = if now - made > time::Duration::days(182) {
                    made.format(format_description!("[month repr:short] [day]  [year]"))
                } else {
                    made.format(format_description!(
                        "[month repr:short] [day] [hour]:[minute]"
                    ))
                }
                .unwrap_or_default();
                let mode = if directory {
                    "drwxr-xr-x    2"
                } else {
                    "-rw-r--r--    1"
                };
                write!(text, "{mode} 0        0        {size:>8} {date} {name}").ok();
            }
            text.push_str("\r\n");
        }
        text
    }
}

/// The absolute path that `path` means from `cwd`, `.` and `..` followed.
pub(super) fn join(cwd: &str, path: &str) -> String {
    let from = if path.starts_with('/') { "" } else { cwd };
    let mut parts: Vec<&str> = Vec::new();
    for part in from.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}
