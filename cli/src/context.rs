//! What every command is given: how to print, where the master is, and the environment.

use std::path::PathBuf;
use std::time::Duration;

use clap::ArgMatches;
use clap::parser::ValueSource;
use proto::client::Client;

use crate::args::Global;
use crate::connect::{self, Place};
use crate::failure::Failure;
use crate::output::Output;

const DEFAULT_WAIT: Duration = Duration::from_secs(120);

/// What is read from the environment beside the flags' own variables.
#[derive(Debug, Default)]
pub(crate) struct Environment {
    /// `DECNET_TOKEN`: a secret.
    pub(crate) token: Option<Token>,
    /// `DECNET_BIN_DIR`: where the daemons' binaries are.
    pub(crate) bin_dir: Option<PathBuf>,
    /// `DOCKER_HOST`.
    pub(crate) docker_host: Option<String>,
    /// `XDG_DATA_HOME`, or its default in the home directory.
    pub(crate) data_home: Option<PathBuf>,
    /// `XDG_CONFIG_HOME`, or its default in the home directory.
    pub(crate) config_home: Option<PathBuf>,
    /// `NO_COLOR`.
    pub(crate) no_colour: bool,
    /// `COLUMNS`.
    pub(crate) columns: Option<u16>,
}

/// A secret that no debug print shows.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Token(pub(crate) String);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(..)")
    }
}

/// What every command is given.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) output: Output,
    pub(crate) environment: Environment,
    pub(crate) place: Place,
    /// How long to wait for what takes time.
    pub(crate) patience: Duration,
}

impl Context {
    pub(crate) fn new(global: &Global, matches: &ArgMatches, environment: Environment) -> Self {
        let flag = |id| matches.value_source(id) == Some(ValueSource::CommandLine);
        let place = Place {
            url: global.url.clone(),
            data_dir: global.data_dir.clone(),
            // A directory on the command line is meant more than a URL in the environment.
            prefer_data_dir: flag("data_dir") && !flag("url"),
            token_file: global.token_file.clone(),
            token: environment.token.clone(),
            fallbacks: connect::fallbacks(environment.data_home.as_deref()),
            sessions: environment
                .config_home
                .as_ref()
                .map(|home| home.join("decnet")),
        };
        Self {
            output: Output::new(
                global.output,
                global.quiet,
                !environment.no_colour,
                environment.columns,
            ),
            environment,
            place,
            patience: global.timeout.unwrap_or(DEFAULT_WAIT),
        }
    }

    /// A client of the master that is meant.
    pub(crate) fn client(&self) -> Result<Client, Failure> {
        let endpoint = self.place.resolve()?;
        if let Some(name) = &endpoint.lapsed {
            self.output.note(&format!(
                "the session of {name} has ended: going on with {} (log in again, or decnet logout)",
                endpoint.origin
            ));
        }
        Ok(Client::new(endpoint.url, &endpoint.token.0)?)
    }

    /// Says of a failure whose token it was that the master does not take.
    pub(crate) fn explain(&self, failure: Failure) -> Failure {
        if !failure.is_denied() {
            return failure;
        }
        match self.place.resolve() {
            Ok(endpoint) => failure.denied(&endpoint.url, &endpoint.origin),
            Err(_) => failure,
        }
    }
}
