//! What is said when everything stands: where it is, and how to attack it.

use std::path::{Path, PathBuf};

use proto::client::Client;
use serde::Serialize;

use super::attack;
use crate::connect::{ADMIN_PASSWORD, ADMIN_TOKEN};
use crate::context::Context;
use crate::failure::Failure;
use crate::machine::Machine;
use crate::safe::safe;

#[derive(Serialize)]
struct Ready {
    api: String,
    token_file: PathBuf,
    /// Where the one-time password of the user `admin` is, until it is changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    password_file: Option<PathBuf>,
    fleet: String,
    topology: Option<String>,
    published: Vec<String>,
    attacks: Vec<String>,
}

/// Says it: lines to people, one document to programs. `topology` is the id of what is live.
pub(super) async fn announce(
    machine: &Machine,
    client: &Client,
    topology: Option<String>,
    context: &Context,
) -> Result<(), Failure> {
    let file = match &topology {
        Some(id) => Some(client.document(id).await?),
        None => None,
    };
    let ready = Ready {
        api: client.base().to_string(),
        token_file: machine.directory().join(ADMIN_TOKEN),
        password_file: Some(machine.directory().join(ADMIN_PASSWORD)).filter(|path| path.exists()),
        fleet: client.status().await?.master_url,
        topology: file.as_ref().map(|file| file.name.clone()),
        published: file.as_ref().map(attack::published).unwrap_or_default(),
        attacks: file.as_ref().map(attack::commands).unwrap_or_default(),
    };
    let output = &context.output;
    if !output.is_table() {
        let text = serde_json::to_string(&ready).map_err(Failure::new)?;
        return output.say(&text);
    }
    output.say(&ready_text(&ready, machine.directory()))
}

fn ready_text(ready: &Ready, directory: &Path) -> String {
    let Ready {
        api,
        token_file,
        password_file,
        fleet,
        topology,
        published,
        attacks,
    } = ready;
    let mut lines = vec![
        String::new(),
        format!("  API          {api}api/v1"),
        format!("  token        in {}", token_file.display()),
        format!("  hosts dial   {fleet}"),
    ];
    if let Some(file) = password_file {
        let line = format!(
            "  log in       as admin with the password in {}",
            file.display()
        );
        lines.push(line);
    }
    if let Some(topology) = topology {
        lines.push(format!("  topology     {topology}"));
    }
    for (number, line) in published.iter().enumerate() {
        let head = if number == 0 { "published" } else { "" };
        lines.push(format!("  {head:12} {line}"));
    }
    if !attacks.is_empty() {
        lines.extend([
            "".to_owned(),
            "  Attack it from another terminal:".to_owned(),
        ]);
        lines.extend(attacks.iter().map(|attack| format!("    {attack}")));
    }
    let look = format!("DECNET_DATA_DIR={} decnet status", directory.display());
    lines.extend([String::new(), format!("  Look at it:  {look}")]);
    lines.push("  Ctrl-C tears it all down. Events:".to_owned());
    lines.push(String::new());
    lines
        .iter()
        .map(|line| safe(line).into_owned())
        .collect::<Vec<_>>()
        .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document;

    const EXAMPLE: &str = super::super::EXAMPLE;

    #[test]
    fn what_is_said_names_the_token_file_and_never_the_token() {
        let file = document::parse_text(EXAMPLE, "example")
            .expect("it is YAML")
            .file;
        let ready = Ready {
            api: "http://127.0.0.1:8080/".to_owned(),
            token_file: "/d/admin.token".into(),
            password_file: Some("/d/admin.password".into()),
            fleet: "https://127.0.0.1:7443".to_owned(),
            topology: Some("office".to_owned()),
            published: attack::published(&file),
            attacks: attack::commands(&file),
        };
        let text = ready_text(&ready, Path::new("/d"));
        assert!(text.contains("token        in /d/admin.token"), "{text}");
        assert!(text.contains("the password in /d/admin.password"), "{text}");
        assert!(text.contains("ssh -p 2222 root@127.0.0.1"), "{text}");
    }
}
