//! How a command ends: exit codes, and failures that say cause and next step.

use std::process::ExitCode;

use proto::client::{ClientError, InvalidEndpoint, Url};
use proto::rest::{FindingShape, Problem};

use crate::connect::Origin;
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
    /// The master does not take the token.
    denied: bool,
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
            denied: false,
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

    /// Whether the master does not take the token, which only whoever found it knows by name.
    pub(crate) fn is_denied(&self) -> bool {
        self.denied
    }

    /// Says which token it is that the master does not take.
    pub(crate) fn denied(mut self, url: &Url, origin: &Origin) -> Self {
        let said = self.error.to_string();
        self.error = anyhow::Error::msg(format!(
            "{said}; this one has ended, was revoked, or is of another master"
        ))
        .context(format!("the master at {url} does not take {origin}"));
        if let Origin::Session(name) = origin {
            self.next = Some(format!("log in again: decnet login {name} --url {url}"));
        }
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
        let said = self.error.to_string();
        // One that says no more than the failure itself is said already.
        let findings = self.findings.iter().filter(|each| each.message != said);
        for finding in findings {
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
        let exit = if matches!(error, InvalidEndpoint::Scheme { .. }) {
            Exit::Usage
        } else {
            Exit::Failed
        };
        let next = match &error {
            InvalidEndpoint::Scheme { .. } => "give a URL such as http://127.0.0.1:8080",
            InvalidEndpoint::Plain { .. } => {
                "use https, or forward the port: ssh -L 8080:127.0.0.1:8080 MASTER"
            }
            InvalidEndpoint::Token => "look at DECNET_TOKEN or the token file: one line, no spaces",
            InvalidEndpoint::Setup(_) => "are root certificates installed (ca-certificates)?",
        };
        Self::new(error).next(next).exits(exit)
    }
}

/// Where to look for what there is not, by the noun with which the master says so.
const LISTS: [(&str, &str); 7] = [
    ("topology", "decnet topology ls"),
    ("host", "decnet host ls"),
    ("decky", "decnet decky ls"),
    ("mutation", "decnet topology mutations TOPOLOGY"),
    ("user", "decnet user ls"),
    ("API token", "decnet token ls"),
    ("token", "decnet host token ls"),
];

/// What helps with a problem about which the master gives no advice, or one for programs.
fn advice(problem: &Problem) -> Option<String> {
    match (problem.status, problem.kind.as_str()) {
        (401, _) => Some(
            "log in (decnet login), or give a token of this master: DECNET_TOKEN or --token-file"
                .to_owned(),
        ),
        (403, "urn:decnet:forbidden") => Some(
            "it takes a higher role: an admin gives it, by decnet user role NAME ROLE or decnet \
             token create NAME --role ROLE"
                .to_owned(),
        ),
        (403, "urn:decnet:wrong_password") => {
            Some("the password that is in force comes first, then the new one".to_owned())
        }
        (404, _) => {
            let noun = problem
                .title
                .strip_prefix("there is no such ")
                .or_else(|| problem.title.strip_prefix("there is no "))?;
            let list = LISTS.iter().find(|(known, _)| noun.starts_with(known));
            list.map(|(_, list)| format!("see what there is: {list}"))
        }
        _ => None,
    }
}

/// What failed and the first cause: what lies between repeats both in the words of libraries.
fn shortened(error: ClientError) -> anyhow::Error {
    let text = error.to_string();
    let error = anyhow::Error::new(error);
    match error.chain().skip(1).last() {
        Some(cause) => anyhow::Error::msg(cause.to_string()).context(text),
        None => error,
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
            ClientError::Problem(problem) => advice(problem).or_else(|| problem.next_step.clone()),
            ClientError::Status { .. }
            | ClientError::Malformed { .. }
            | ClientError::TooLong { .. } => Some(
                "is that a DECNET master of this release? compare `decnet --version`".to_owned(),
            ),
        };
        let mut failure = Self::new(anyhow::Error::msg(String::new()));
        failure.next = next;
        failure.denied = error.status() == Some(401);
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
            failure.error = shortened(error);
        }
        failure
    }
}

#[cfg(test)]
mod tests {
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

    fn problem(status: u16, kind: &str, title: &str) -> Problem {
        Problem {
            kind: format!("urn:decnet:{kind}"),
            status,
            title: title.to_owned(),
            next_step: Some("what programs do".to_owned()),
            findings: Vec::new(),
            current: None,
            reference: None,
        }
    }

    fn said(problem: Problem) -> Vec<String> {
        Failure::from(ClientError::Problem(Box::new(problem))).lines()
    }

    #[test]
    fn what_is_not_there_is_told_with_where_to_look() {
        for (title, list) in [
            ("there is no topology \"x\"", "decnet topology ls"),
            ("there is no such topology", "decnet topology ls"),
            ("there is no host \"x\"", "decnet host ls"),
            ("there is no decky \"x\"", "decnet decky ls"),
            (
                "there is no such mutation",
                "decnet topology mutations TOPOLOGY",
            ),
            ("there is no user \"x\"", "decnet user ls"),
            ("there is no API token \"x\"", "decnet token ls"),
            ("there is no token \"x\"", "decnet host token ls"),
        ] {
            let lines = said(problem(404, "unknown", title));
            assert_eq!(
                lines[1],
                format!("  next: see what there is: {list}"),
                "{title}"
            );
        }
        let lines = said(problem(404, "unknown", "there is no weather"));
        assert_eq!(lines[1], "  next: what programs do");
    }

    #[test]
    fn a_role_that_is_too_low_says_who_gives_a_higher_one() {
        let lines = said(problem(403, "forbidden", "the token does not allow this"));
        assert!(lines[1].contains("decnet user role NAME ROLE"), "{lines:?}");
    }

    #[test]
    fn a_token_that_is_not_taken_is_named() {
        let url: Url = "http://127.0.0.1:8080".parse().expect("a URL");
        let refused = || {
            let problem = problem(401, "unauthenticated", "a known bearer token is needed");
            let failure = Failure::from(ClientError::Problem(Box::new(problem)));
            assert!(failure.is_denied());
            failure
        };
        let of = |origin| refused().denied(&url, &origin).lines();
        let why = "  because: a known bearer token is needed; this one has ended, was revoked, \
                   or is of another master";
        let file = of(Origin::File("ci.token".into()));
        assert_eq!(
            file[..2],
            [
                "error: the master at http://127.0.0.1:8080/ does not take the token in ci.token",
                why
            ]
        );
        assert!(file[2].contains("--token-file"), "{file:?}");
        assert!(of(Origin::Variable)[0].ends_with("the token in DECNET_TOKEN"));
        assert_eq!(
            of(Origin::Session("alice".to_owned())),
            [
                "error: the master at http://127.0.0.1:8080/ does not take the session of alice",
                why,
                "  next: log in again: decnet login alice --url http://127.0.0.1:8080/",
            ]
        );
    }

    #[tokio::test]
    async fn a_master_that_is_not_there_is_told_in_three_lines() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        drop(listener);
        let client = proto::client::Client::new(url.parse().expect("a URL"), "dna_x");
        let error = client
            .expect("loopback")
            .status()
            .await
            .expect_err("nobody");
        let lines = Failure::from(error).lines();
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert!(
            lines[1].starts_with("  because: Connection refused"),
            "{lines:?}"
        );
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
