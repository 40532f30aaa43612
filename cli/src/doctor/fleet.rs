//! The master, when one is named, and what it says of its hosts.

use proto::client::Client;
use proto::rest::HostShape;

use super::Check;
use crate::context::Context;
use crate::failure::Failure;

/// A clock further off than this makes evidence of two hosts hard to order.
const SKEW_MS: u64 = 2_000;

/// The checks, and whether the master answers.
pub(super) async fn master(context: &Context) -> (Vec<Check>, bool) {
    let client = match context.client() {
        Ok(client) => client,
        Err(failure) => {
            let detail = failure.lines().remove(0).replacen("error: ", "", 1);
            return (
                vec![Check::warn("master", detail, "start one: decnet up")],
                false,
            );
        }
    };
    match ask(&client).await {
        Ok(checks) => (checks, true),
        Err(failure) => {
            let lines = failure.lines();
            let (detail, next) = match lines.as_slice() {
                [first, .., last] => (first.clone(), last.trim().replacen("next: ", "", 1)),
                _ => (lines.join("; "), "read the master's log".to_owned()),
            };
            (
                vec![Check::fail(
                    "master",
                    detail.replacen("error: ", "", 1),
                    next,
                )],
                false,
            )
        }
    }
}

async fn ask(client: &Client) -> Result<Vec<Check>, Failure> {
    client.healthz().await?;
    let status = client.status().await?;
    let mut checks = vec![Check::ok(
        "master",
        format!("{} answers at {}", status.version, client.base()),
    )];
    let hosts = client.hosts().await?;
    if hosts.is_empty() {
        let next = "enroll one: decnet host enroll NAME";
        checks.push(Check::warn("hosts", "the master has none", next));
    }
    checks.extend(
        hosts
            .iter()
            .filter(|host| host.standing != "removed")
            .map(host_check),
    );
    Ok(checks)
}

fn host_check(host: &HostShape) -> Check {
    let name = &host.name;
    let failing: Vec<&str> = host
        .health
        .iter()
        .flat_map(|health| {
            [
                (health.engine_ok, "engine"),
                (health.collect_ok, "collection"),
                (health.spool_ok, "spool"),
            ]
        })
        .filter_map(|(ok, what)| (!ok).then_some(what))
        .collect();
    let skew = host
        .health
        .as_ref()
        .map_or(0, |health| health.clock_skew_ms);
    match host.state.as_str() {
        "lost" => Check::fail(
            "host",
            format!("{name} is lost"),
            format!(
                "is decnet-agent running on {name}? if it is dead: decnet host rm {name} --force"
            ),
        ),
        "ready" if !failing.is_empty() => Check::fail(
            "host",
            format!("{name}: {} failing", failing.join(", ")),
            format!("read the agent's log on {name}"),
        ),
        "ready" if skew.unsigned_abs() > SKEW_MS => Check::warn(
            "host",
            format!("{name}: its clock is {skew:+} ms off"),
            format!("on {name}: timedatectl set-ntp true"),
        ),
        "ready" => Check::ok("host", format!("{name} is ready")),
        "revoked" => Check::ok("host", format!("{name} is revoked")),
        state => Check::warn(
            "host",
            format!("{name} is {state}"),
            "look again in a minute",
        ),
    }
}

#[cfg(test)]
mod tests {
    use proto::rest::HealthShape;

    use super::super::Verdict;
    use super::*;

    fn host(state: &str, clock_skew_ms: i64) -> HostShape {
        HostShape {
            id: String::new(),
            name: "edge-07".to_owned(),
            state: state.to_owned(),
            standing: "open".to_owned(),
            last_seen: None,
            agent_version: String::new(),
            enrolled_at: String::new(),
            desired: None,
            settled: true,
            applied: None,
            observed: None,
            drift: Vec::new(),
            health: Some(HealthShape {
                engine_ok: true,
                collect_ok: true,
                spool_ok: true,
                disk_free_mib: 1,
                memory_free_mib: 1,
                spool_events: 0,
                clock_skew_ms,
            }),
        }
    }

    #[test]
    fn a_lost_host_fails_and_a_wrong_clock_warns() {
        assert_eq!(host_check(&host("ready", 100)).verdict, Verdict::Ok);
        assert_eq!(host_check(&host("ready", -90_000)).verdict, Verdict::Warn);
        assert_eq!(host_check(&host("lost", 0)).verdict, Verdict::Fail);
        assert_eq!(host_check(&host("late", 0)).verdict, Verdict::Warn);
        let mut ill = host("ready", 0);
        ill.health.as_mut().expect("set").engine_ok = false;
        assert_eq!(host_check(&ill).verdict, Verdict::Fail);
    }
}
