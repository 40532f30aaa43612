//! How a command ends: exit codes, and failures that say cause and next step.

use std::process::ExitCode;

use proto::client::{ClientError, InvalidEndpoint};
use proto::rest::FindingShape;

use crate::safe::safe;

/// The exit codes, which scripts rely on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// It is done.
    Done,
    /// It failed.
    Failed,
    /// The command line makes no sense.
    Usage,
    /// It was not done in time, or was left alone, and is still running.
    StillRunning,
    /// Something differs, where that was the question.
    Difference,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::StillRunning => 3,
            Exit::Difference => 4,
        })
    }
}

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    error: anyhow::Error,
    findings: Vec<FindingShape>,
    /// What another program said about it.
    quoted: Vec<String>,
    next: Option<String>,
    /// Whoever reads our output has gone: nothing is left to say.
    silent: bool,
}

impl Failure {
    pub(crate) fn new(error: impl Into<anyhow::Error>) -> Self {
        Self {
            exit: Exit::Failed,
            error: error.into(),
            findings: Vec::new(),
            quoted: Vec::new(),
            next: None,
            silent: false,
        }
    }

    pub(crate) fn say(text: impl std::fmt::Display) -> Self {
        Self::new(anyhow::anyhow!("{text}"))
    }

    /// Says what was being attempted.
    pub(crate) fn context(mut self, text: impl std::fmt::Display + Send + Sync + 'static) -> Self {
        self.error = self.error.context(text);
        self
    }

    /// Says what is wrong with a topology.
    pub(crate) fn findings(mut self, findings: Vec<FindingShape>) -> Self {
        self.findings = findings;
        self
    }

    /// Says what to do.
    pub(crate) fn next(mut self, text: impl Into<String>) -> Self {
        self.next = Some(text.into());
        self
    }

    /// Shows what another program said, line by line.
    pub(crate) fn lines_after(mut self, lines: Vec<String>) -> Self {
        self.quoted = lines;
        self
    }

    pub(crate) fn exits(mut self, exit: Exit) -> Self {
        self.exit = exit;
        self
    }

    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }

    /// What is printed: one line for the failure, one for each cause, and the way out.
    pub(crate) fn lines(&self) -> Vec<String> {
        if self.silent {
            return Vec::new();
        }
        let mut lines = vec![format!("error: {}", safe(&self.error.to_string()))];
        let mut last = self.error.to_string();
        for cause in self.error.chain().skip(1) {
            let text = cause.to_string();
            // Libraries like to repeat their source in their own words.
            if !last.contains(&text) {
                lines.push(format!("  because: {}", safe(&text)));
            }
            last = text;
        }
        for finding in &self.findings {
            let FindingShape {
                severity,
                code,
                message,
                path,
                ..
            } = finding;
            lines.push(format!(
                "  {severity} [{code}] {}: {}",
                safe(path),
                safe(message)
            ));
        }
        lines.extend(self.quoted.iter().map(|line| format!("  | {}", safe(line))));
        lines.extend(
            self.next
                .as_deref()
                .map(|next| format!("  next: {}", safe(next))),
        );
        lines
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::new(error)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        let silent = error.kind() == std::io::ErrorKind::BrokenPipe;
        let exit = if silent { Exit::Done } else { Exit::Failed };
        let failure = Self::new(error)
            .context("could not write the output")
            .exits(exit);
        Self { silent, ..failure }
    }
}

impl From<InvalidEndpoint> for Failure {
    fn from(error: InvalidEndpoint) -> Self {
        let next = match &error {
            InvalidEndpoint::Scheme { .. } => "give a URL such as http://127.0.0.1:8080",
            InvalidEndpoint::Plain { .. } => {
                "use https, or forward the port: ssh -L 8080:127.0.0.1:8080 MASTER"
            }
            InvalidEndpoint::Token => "look at DECNET_TOKEN or the token file: one line, no spaces",
            InvalidEndpoint::Setup(_) => "are root certificates installed (ca-certificates)?",
        };
        Self::new(error).next(next)
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let next = match &error {
            ClientError::Unreachable { .. } => Some(
                "start it (`decnet up`, or `decnet-master serve`), or say where it is with --url"
                    .to_owned(),
            ),
            ClientError::Timeout { .. } => {
                Some("try again; if it lasts, `decnet doctor` and the master's log".to_owned())
            }
            ClientError::Cut { .. } => Some("try again".to_owned()),
            // The master speaks of headers, and whoever types commands has none.
            ClientError::Problem(problem) if problem.status == 401 => Some(
                "log in (decnet login), or give a token of this master: DECNET_TOKEN or \
                     --token-file"
                    .to_owned(),
            ),
            ClientError::Problem(problem) => problem.next_step.clone(),
            ClientError::Status { .. }
            | ClientError::Malformed { .. }
            | ClientError::TooLong { .. } => Some(
                "is that a DECNET master of this release? compare `decnet --version`".to_owned(),
            ),
        };
        let mut failure = Self::new(anyhow::Error::msg(String::new()));
        failure.next = next;
        if let Some(problem) = error.problem() {
            failure.findings.clone_from(&problem.findings);
            let mut text = problem.title.clone();
            if let Some(current) = &problem.current {
                text.push_str(&format!(" (current: {current})"));
            }
            if let Some(reference) = &problem.reference {
                text.push_str(&format!(" (reference: {reference})"));
            }
            failure.error = anyhow::Error::msg(text);
        } else {
            failure.error = error.into();
        }
        failure
    }
}

#[cfg(test)]
mod tests {
    use proto::rest::Problem;

    use super::*;

    #[test]
    fn a_problem_says_cause_findings_and_next_step() {
        let problem = Problem {
            kind: "urn:decnet:host_occupied".to_owned(),
            status: 409,
            title: "host edge-07 holds another topology".to_owned(),
            next_step: Some("tear it down, or deploy with --replace".to_owned()),
            findings: vec![FindingShape {
                severity: "error".to_owned(),
                code: "SUBNET_OVERLAP".to_owned(),
                message: "10.0.0.0/24 overlaps".to_owned(),
                target: "lan a".to_owned(),
                path: "lans[0].subnet".to_owned(),
            }],
            current: Some("office".to_owned()),
            reference: None,
        };
        let failure = Failure::from(ClientError::Problem(Box::new(problem)));
        assert_eq!(
            failure.lines(),
            [
                "error: host edge-07 holds another topology (current: office)",
                "  error [SUBNET_OVERLAP] lans[0].subnet: 10.0.0.0/24 overlaps",
                "  next: tear it down, or deploy with --replace",
            ]
        );
        assert_eq!(failure.exit(), Exit::Failed);
    }

    #[test]
    fn a_failure_is_safe_to_print() {
        let failure = Failure::say("bad \x1b[31m").next("look\rhere");
        assert_eq!(
            failure.lines(),
            ["error: bad \\u{1b}[31m", "  next: look\\rhere"]
        );
    }

    #[test]
    fn a_reader_who_left_is_no_failure() {
        let failure = Failure::from(std::io::Error::from(std::io::ErrorKind::BrokenPipe));
        assert_eq!((failure.exit(), failure.lines().len()), (Exit::Done, 0));
    }
}
