//! `decnet doctor`: checks of this machine and its master, each with the way out.

mod docker;
mod files;
mod fleet;
mod system;

use serde::Serialize;

use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::machine;
use crate::machine::binaries::Binaries;
use crate::table::{Field, Look, table};

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    Ok,
    Warn,
    Fail,
}

impl Verdict {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// One check.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Check {
    name: &'static str,
    verdict: Verdict,
    detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_step: Option<String>,
}

impl Check {
    pub(super) fn ok(name: &'static str, detail: impl Into<String>) -> Self {
        Self {
            name,
            verdict: Verdict::Ok,
            detail: detail.into(),
            next_step: None,
        }
    }

    pub(super) fn warn(
        name: &'static str,
        detail: impl Into<String>,
        next: impl Into<String>,
    ) -> Self {
        Self {
            name,
            verdict: Verdict::Warn,
            detail: detail.into(),
            next_step: Some(next.into()),
        }
    }

    pub(super) fn fail(
        name: &'static str,
        detail: impl Into<String>,
        next: impl Into<String>,
    ) -> Self {
        Self {
            verdict: Verdict::Fail,
            ..Self::warn(name, detail, next)
        }
    }
}

#[derive(Serialize)]
struct Report {
    verdict: Verdict,
    checks: Vec<Check>,
}

pub(crate) async fn run(context: &Context) -> Result<Exit, Failure> {
    let binaries = Binaries::new(context.environment.bin_dir.as_deref());
    let directory = machine::data_dir(
        context.place.data_dir.as_deref(),
        context.environment.data_home.as_deref(),
    )?;
    let mut checks = vec![docker::check(context.environment.docker_host.as_deref()).await];
    checks.extend(system::kernel());
    checks.extend(system::rules());
    checks.push(system::clock());
    checks.push(system::disk(&directory));
    checks.extend(files::data_dir(&directory));
    checks.extend(files::binaries(&binaries).await);
    let (master, reached) = fleet::master(context).await;
    checks.extend(system::ports(&directory, reached));
    checks.extend(master);
    let verdict = checks
        .iter()
        .map(|check| check.verdict)
        .max()
        .unwrap_or(Verdict::Ok);
    let look = context.output.look;
    context.output.show(&Report { verdict, checks }, |report| {
        checks_table(look, &report.checks)
    })?;
    Ok(if verdict == Verdict::Fail {
        Exit::Failed
    } else {
        Exit::Done
    })
}

fn checks_table(look: Look, checks: &[Check]) -> String {
    table(
        look,
        &["check", "", "found", "next step"],
        checks.iter().map(|check| {
            [
                Field::text(check.name),
                Field::State(check.verdict.as_str().to_owned()),
                Field::text(&check.detail),
                Field::text(check.next_step.as_deref().unwrap_or_default()),
            ]
        }),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_check_is_the_verdict() {
        assert!(Verdict::Fail > Verdict::Warn && Verdict::Warn > Verdict::Ok);
    }

    #[test]
    fn a_check_that_is_not_ok_says_what_to_do() {
        let checks = [
            Check::ok("disk", "9 GiB free"),
            Check::fail("docker", "no answer", "start it"),
        ];
        let text = checks_table(
            Look {
                width: None,
                colour: false,
            },
            &checks,
        );
        assert_eq!(
            text,
            "CHECK         FOUND       NEXT STEP\n\
             disk    ok    9 GiB free\n\
             docker  fail  no answer   start it\n"
        );
    }
}
