//! How hosts look to people.

use proto::rest::{Enrollment, HostShape};

use crate::clock;
use crate::safe::safe;
use crate::table::{Field, Look, table};

pub(super) fn enrollment_text(enrollment: &Enrollment) -> String {
    let Enrollment {
        token,
        name,
        expires_at,
        command,
        ..
    } = enrollment;
    format!(
        "  Run on {}:   {}      (or --token-file, or DECNET_JOIN_TOKEN)\n  \
         Token, shown once, expires {}:\n{}\n",
        safe(name),
        safe(command),
        safe(&clock::date_and_time(expires_at)),
        safe(token),
    )
}

pub(crate) fn hosts_table(look: Look, hosts: &[HostShape]) -> String {
    let now = clock::now();
    table(
        look,
        &[
            "name",
            "state",
            "standing",
            "last seen",
            "agent",
            "applied",
            "deckies",
            "drift",
            "id",
        ],
        hosts.iter().map(|host| {
            [
                Field::text(&host.name),
                Field::State(host.state.clone()),
                Field::State(host.standing.clone()),
                Field::maybe(host.last_seen.as_deref().map(|at| clock::ago(at, now))),
                Field::text(&host.agent_version),
                Field::maybe(host.applied.as_ref().map(|applied| applied.generation)),
                Field::maybe(host.observed.as_ref().map(|observed| observed.deckies)),
                Field::text(host.drift.len()),
                Field::text(&host.id),
            ]
        }),
    )
}

pub(super) fn host_text(look: Look, host: &HostShape) -> String {
    let now = clock::now();
    let mut rows = vec![
        ["name".to_owned(), host.name.clone()],
        ["id".to_owned(), host.id.clone()],
        [
            "state".to_owned(),
            format!("{} ({})", host.state, host.standing),
        ],
        ["agent".to_owned(), host.agent_version.clone()],
        ["joined".to_owned(), clock::date_and_time(&host.enrolled_at)],
    ];
    let mut row = |name: &str, value: Option<String>| {
        rows.push([name.to_owned(), value.unwrap_or_else(|| "-".to_owned())]);
    };
    row(
        "last seen",
        host.last_seen.as_deref().map(|at| clock::ago(at, now)),
    );
    row(
        "desired",
        host.desired.as_ref().map(crate::topology::desired_text),
    );
    row(
        "applied",
        host.applied.as_ref().map(crate::topology::applied_text),
    );
    row(
        "observed",
        host.observed.as_ref().map(crate::topology::observed_text),
    );
    for drift in &host.drift {
        row("drift", Some(format!("{} {}", drift.kind, drift.object)));
    }
    row("health", host.health.as_ref().map(|health| {
        let word = |ok: bool| if ok { "ok" } else { "failing" };
        format!(
            "engine {}, collection {}, spool {} ({} waiting), {} MiB disk and {} MiB memory free, clock {:+} ms",
            word(health.engine_ok),
            word(health.collect_ok),
            word(health.spool_ok),
            health.spool_events,
            health.disk_free_mib,
            health.memory_free_mib,
            health.clock_skew_ms,
        )
    }));
    table(
        look,
        &[],
        rows.into_iter()
            .map(|[name, value]| [Field::Text(name), Field::Text(value)]),
    )
}
