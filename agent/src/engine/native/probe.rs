//! Whether deckies can have user namespaces of their own here: found out by trying, once.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::json;

use super::bundle::{Bundle, Users};
use super::place::gone_is_fine;
use super::program;
use super::record::DeckyRecord;
use super::{Prepared, Shared, disk};
use crate::engine::EngineError;
use crate::engine::image::ENTRYPOINT;
use crate::netns::Namespace;
use crate::task;

/// What is tried; no decky has such a handle.
pub(super) const PROBE: &str = "probe";

impl Shared {
    /// Runs a decky that says its version and ends.
    pub(super) async fn probe(
        self: &Arc<Self>,
        tag: &str,
        prepared: &Prepared,
    ) -> Result<Users, EngineError> {
        let attempt = "could not try whether a decky can run";
        self.end_process(PROBE).await?;
        let (this, tag, prepared) = (Arc::clone(self), tag.to_owned(), *prepared);
        let (namespace, bundle, output) = task::blocking(move || this.lay_out(&tag, &prepared))
            .await
            .map_err(disk(attempt))?;
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        let (runtime, log, bundle) = (
            text(self.places.runtime()),
            text(bundle.join("log")),
            text(bundle),
        );
        let arguments = [
            "--root", &runtime, "--log", &log, "run", "--bundle", &bundle, PROBE,
        ];
        let status = program::launch("runc", &arguments, output, self.limit).await;
        drop(namespace);
        let said = task::blocking(move || fs::read_to_string(log).unwrap_or_default()).await;
        self.end_process(PROBE).await?;
        let users = if status?.success() {
            Users::Own
        } else {
            Users::Hosts
        };
        match users {
            Users::Own => tracing::info!("deckies have user namespaces of their own"),
            Users::Hosts => tracing::warn!(
                said = said.lines().last().unwrap_or_default(),
                "deckies have no user namespaces of their own: this kernel or runtime refuses them"
            ),
        }
        Ok(users)
    }

    fn lay_out(&self, tag: &str, prepared: &Prepared) -> io::Result<(Namespace, PathBuf, File)> {
        let namespace = Namespace::fresh()?;
        let bundle = self.places.bundle(PROBE);
        gone_is_fine(fs::remove_dir_all(&bundle))?;
        fs::create_dir_all(&bundle)?;
        let record = DeckyRecord {
            labels: BTreeMap::new(),
            made: 0,
            root: tag.to_owned(),
            hostname: PROBE.to_owned(),
            memory_mib: 64,
            pids: 64,
            cpu_milli: 1000,
            interfaces: Vec::new(),
            publish: Vec::new(),
        };
        let root = self.places.mounted_root(tag);
        let mut document = Bundle {
            record: &record,
            handle: PROBE,
            root: &root,
            devices: &self.places.devices(),
            config: &root.join("etc"),
            network: &namespace.path(),
            cgroup: &self.groups.path(PROBE),
            users: Users::Own,
            swap: prepared.swap,
            files: prepared.files,
        }
        .document();
        document["process"]["args"] = json!([ENTRYPOINT, "--version"]);
        let bytes = serde_json::to_vec(&document).map_err(io::Error::other)?;
        fs::write(bundle.join("config.json"), bytes)?;
        let output = File::options().write(true).open("/dev/null")?;
        Ok((namespace, bundle, output))
    }
}
