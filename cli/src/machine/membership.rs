//! How this machine belongs to the fleet of its own master.

use std::net::SocketAddr;
use std::path::Path;

use proto::client::Client;
use proto::rest::EnrollRequest;

use super::binaries::Daemon;
use super::{LOCAL, Machine, child};
use crate::connect::Endpoints;
use crate::failure::Failure;
use crate::output::Output;

/// What an agent leaves in its directory when it has joined, with the addresses of its master.
const LINK: &str = "link.json";

impl Machine {
    /// Whether the agent here has joined a master.
    pub(crate) fn has_joined(&self) -> bool {
        self.agent_directory().join(LINK).is_file()
    }

    /// An agent dials the address that it joined at: a master that moved would wait for ever.
    pub(super) fn check_membership(&self, endpoints: &Endpoints) -> Result<(), Failure> {
        let Ok(text) = std::fs::read_to_string(self.agent_directory().join(LINK)) else {
            return Ok(());
        };
        let authority = endpoints
            .fleet
            .trim_start_matches("https://")
            .trim_end_matches('/');
        if text.contains(&format!("{authority}\"")) {
            return Ok(());
        }
        let path = self.agent_directory();
        Err(Failure::say(format!(
            "the agent in {} joined another address than {}",
            path.display(),
            endpoints.fleet
        ))
        .next(format!(
            "start with the --fleet-listen and --advertise of then (see {}), or remove {}",
            path.join(LINK).display(),
            path.display()
        )))
    }

    /// Joins the fleet of the master here, if that is not done.
    pub(crate) async fn join(&self, client: &Client, output: &Output) -> Result<(), Failure> {
        let directory = self.agent_directory().display().to_string();
        if self.has_joined() {
            match client.host(LOCAL).await {
                // The host was removed: what the agent has kept of it is worth nothing any more.
                Err(error) if error.status() == Some(404) => {
                    let leave = ["leave", "--force", "--data-dir", &directory];
                    child::run(&self.binaries, Daemon::Agent, &leave, "", &self.directory).await?;
                }
                known => return known.map(drop).map_err(Failure::from),
            }
        }
        output.note("joining this machine to its fleet as host local");
        let request = EnrollRequest {
            name: LOCAL.to_owned(),
            ttl_seconds: None,
        };
        let enrollment = match client.enroll(&request).await {
            Err(error) if error.status() == Some(409) => {
                // The master knows a host that has lost its key, or never got it.
                client.abandon_host(LOCAL).await?;
                client.enroll(&request).await?
            }
            answer => answer?,
        };
        let arguments = [
            "join",
            &enrollment.master_url,
            "--token-stdin",
            "--data-dir",
            &directory,
        ];
        child::run(
            &self.binaries,
            Daemon::Agent,
            &arguments,
            &enrollment.token,
            &self.directory,
        )
        .await
    }
}

/// Where the agent of a directory found its master when it joined, as far as that is an address.
pub(super) fn joined_at(agent: &Path) -> Option<SocketAddr> {
    let bytes = std::fs::read(agent.join(LINK)).ok()?;
    let link: serde_json::Value = serde_json::from_slice(&bytes).ok()?;
    link.get("masters")?.get(0)?.as_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_of_a_joined_agent_is_found() {
        let directory = tempfile::tempdir().expect("a directory");
        assert_eq!(joined_at(directory.path()), None);
        let write = |text: &str| std::fs::write(directory.path().join(LINK), text).expect("ours");
        write(r#"{"masters": ["127.0.0.1:7443"], "host": "local"}"#);
        assert_eq!(joined_at(directory.path()), "127.0.0.1:7443".parse().ok());
        write(r#"{"masters": ["master.example:7443"]}"#);
        assert_eq!(joined_at(directory.path()), None);
        write("{");
        assert_eq!(joined_at(directory.path()), None);
    }
}
