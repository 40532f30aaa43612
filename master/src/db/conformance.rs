//! What every store must do: one suite of laws, run against each implementation.

use std::net::Ipv4Addr;
use std::sync::Arc;

use domain::assign::Assignment;
use domain::host::Standing;
use domain::id::{DeckyId, EdgeId, HostId, LanId, SpoolId, TokenId, TopologyId};
use domain::name::{DeckyName, HostName, Hostname, LanName, TopologyName};
use domain::persona::Persona;
use domain::revision::Revision;
use domain::seed::Seed;
use domain::service::{OptionValue, ServiceKind, ServiceOptions, ServiceSet};
use domain::topology::hydrate::hydrate;
use domain::topology::status::{StatusEvent, TopologyStatus};
use domain::topology::{Decky, Edge, Lan, LanDriver, LanKind, Protocol, Publish, Topology};
use pki::fingerprint::KeyFingerprint;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::sql::{SqlStore, Tx};
use super::{
    Actor, Deploy, Force, HostRow, IntentError, Redemption, Removal, Replace, Settlement, Store,
    Teardown, TokenRow, Withdraw,
};

pub(crate) mod accounts;
pub(crate) mod events;
pub(crate) mod hosts;
pub(crate) mod intents;
pub(crate) mod queue;
pub(crate) mod races;
pub(crate) mod topologies;
pub(crate) mod upkeep;

/// Runs every law as a test of its own; `$fresh` makes an empty store and what keeps it alive.
macro_rules! suite {
    ($fresh:path) => {
        crate::db::conformance::suite! { $fresh;
            hosts: a_token_is_redeemed_once_and_given_again_to_the_same_key,
            hosts: of_keys_that_race_for_a_token_one_wins,
            hosts: a_refused_token_leaves_no_host_and_is_audited,
            hosts: tokens_that_are_of_no_use_are_not_listed,
            hosts: a_name_is_free_again_after_removal_and_not_before,
            hosts: a_standing_moves_only_along_its_arrows,
            hosts: revocation_takes_the_keys_and_leaves_the_topology,
            hosts: a_renewal_keeps_the_key_in_use_and_forgets_old_ones,
            hosts: draining_takes_the_topology_down,
            hosts: removal_of_an_occupied_host_needs_force,
            hosts: last_seen_only_advances,
            hosts: the_audit_log_is_read_newest_first,
            topologies: a_topology_reads_back_as_it_was_stored,
            topologies: a_head_is_a_topology_without_its_parts,
            topologies: a_name_is_one_name_in_any_case_until_torn_down,
            topologies: a_decky_is_found_by_its_name_wherever_it_is,
            topologies: subnets_are_taken_until_their_topology_is_torn_down,
            topologies: the_list_is_newest_first_with_counts,
            topologies: only_what_no_host_holds_is_removed,
            topologies: deckies_of_a_host_outlive_their_topology,
            intents: a_deploy_stores_its_intent_whole,
            intents: a_deploy_that_is_refused_changes_nothing,
            intents: a_replaced_topology_is_torn_down,
            intents: of_deploys_that_race_one_wins,
            intents: a_cordoned_host_takes_back_what_it_holds,
            intents: a_retry_on_another_host_leaves_the_first_with_nothing,
            intents: a_teardown_withdraws_the_assignment,
            intents: nothing_ends_at_another_revision_than_is_meant,
            intents: a_settlement_is_written_only_from_the_status_it_was_decided_on,
            intents: a_raised_fence_is_above_what_the_host_obeys,
            intents: a_pass_reads_what_may_connect_and_what_is_live,
            events: an_event_reads_back_as_it_was_stored,
            events: an_event_that_is_delivered_twice_is_stored_once,
            events: pages_miss_nothing_and_repeat_nothing,
            events: filters_and_counts_agree,
            events: batches_are_stored_together_or_not_at_all,
            events: a_decky_is_named_while_its_topology_is_stored,
            queue: a_draft_is_edited_only_from_the_stored_revision,
            queue: mutations_queue_in_order_and_only_behind_what_was_seen,
            queue: a_claim_is_of_one_worker_until_its_lease_runs_out,
            queue: a_commit_stores_everything_or_nothing,
            queue: what_a_host_reports_settles_its_mutations,
            queue: only_what_is_pending_is_cancelled,
            queue: a_teardown_ends_what_is_queued,
            queue: a_removed_topology_takes_its_mutations_along,
            queue: a_failed_deploy_ends_what_is_queued,
            queue: the_next_claim_is_known_without_claiming,
            queue: deckies_that_mutate_by_themselves_are_known_with_their_last_time,
            queue: places_are_beside_the_topology,
            races: editors_lose_no_update_in_any_interleaving,
            races: editors_that_race_lose_no_update,
            races: each_mutation_is_committed_once_whoever_dies,
            races: workers_that_race_commit_each_mutation_once,
            accounts: a_user_has_a_name_of_its_own_in_any_case,
            accounts: of_first_users_that_race_one_is_made,
            accounts: the_last_admin_stays_one,
            accounts: a_user_is_changed_whole_or_not_at_all,
            accounts: a_session_is_of_use_until_it_ends,
            accounts: what_was_checked_against_an_old_password_has_no_effect,
            accounts: an_api_token_is_of_use_until_it_expires_or_is_revoked,
            accounts: a_request_that_is_sent_again_gets_the_first_answer,
            accounts: whoever_witnesses_is_told_of_a_commit_and_of_nothing_else,
            upkeep: the_audit_is_a_chain,
            upkeep: the_audit_is_found_by_who_what_and_on_what,
            upkeep: old_events_go_in_batches_and_others_stay,
            upkeep: what_has_expired_is_forgotten,
            upkeep: old_status_changes_go_in_batches_and_the_newest_stays,
            upkeep: old_mutations_go_in_batches_and_open_ones_stay,
        }
    };
    ($fresh:path; $($module:ident: $law:ident,)*) => {
        $(
            #[tokio::test]
            async fn $law() {
                let (store, _guard) = $fresh().await;
                crate::db::conformance::$module::$law(store).await;
            }
        )*
    };
}
pub(crate) use suite;

/// A moment of the suite's time: so many seconds after its start.
pub(crate) fn at(seconds: i64) -> OffsetDateTime {
    OffsetDateTime::UNIX_EPOCH + Duration::days(20_000) + Duration::seconds(seconds)
}

pub(crate) fn uuid(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

pub(crate) fn operator() -> Actor {
    Actor::Operator("alice".to_owned())
}

pub(crate) fn key(number: u8) -> KeyFingerprint {
    KeyFingerprint::from_bytes([number; 32])
}

fn host_name(name: &str) -> HostName {
    HostName::parse(name).expect("a name of the suite is a name")
}

/// A token for `name` with the secret `[number; 32]`, of use in the first hour.
pub(crate) fn token(number: u8, name: &str) -> TokenRow {
    TokenRow {
        id: TokenId::new(uuid(number.into())),
        secret_hash: [number; 32],
        name: host_name(name),
        created_at: at(0),
        expires_at: at(3600),
        creator: "alice".to_owned(),
        redeemed_by: None,
    }
}

/// The redemption of [`token`] of that number, by the key of that number, for a host of it.
pub(crate) fn redemption(number: u8) -> Redemption {
    Redemption {
        token: TokenId::new(uuid(number.into())),
        secret_hash: [number; 32],
        expected_name: None,
        host: HostId::new(uuid(0x0100 + u128::from(number))),
        key: key(number),
        agent_version: "0.1.0".to_owned(),
        now: at(1),
    }
}

/// Enrols a host.
pub(crate) async fn enrolled(store: &Arc<dyn Store>, number: u8, name: &str) -> HostId {
    store
        .insert_token(token(number, name))
        .await
        .expect("a new token is stored");
    store
        .redeem(redemption(number))
        .await
        .expect("a new token is redeemed")
        .host
}

pub(crate) async fn host(store: &Arc<dyn Store>, id: HostId) -> HostRow {
    store
        .host(id)
        .await
        .expect("the store answers")
        .expect("the host is there")
}

/// A topology of two LANs, `deckies` deckies on the first and a gateway between both.
pub(crate) fn topology(number: u8, name: &str, deckies: u8) -> Topology {
    let id =
        |kind: u128, index: u8| uuid((u128::from(number) << 32) | (kind << 16) | u128::from(index));
    let lan = |index: u8, kind: LanKind| Lan {
        id: LanId::new(id(1, index)),
        name: LanName::parse(&format!("LAN-0{index}")).expect("it is a name"),
        subnet: format!("10.{number}.{index}.0/24")
            .parse()
            .expect("it is a subnet"),
        kind,
        subnet6: (number == 1).then(|| "fd00:9::/64".parse().expect("a range")),
        driver: if number == 1 {
            "macvlan:eth0".parse().expect("a driver")
        } else {
            LanDriver::Bridge
        },
    };
    let lans = vec![lan(0, LanKind::Dmz), lan(1, LanKind::Internal)];
    let decky = |index: u8| Decky {
        id: DeckyId::new(id(2, index)),
        name: DeckyName::parse(&format!("decky-{index}")).expect("it is a name"),
        hostname: Hostname::parse(&format!("srv-{index}")).expect("it is a name"),
        archetype: (index == 0).then(|| "gateway".to_owned()),
        services: services(),
        persona: Persona::Linux,
        forwards_l3: index == 0,
        publish: if index == 0 { published() } else { Vec::new() },
        mutate_every: (index == 1).then(|| "30m".parse().expect("an interval")),
        seed: Seed::new([index; 32]),
    };
    let edge = |decky: u8, lan: u8| Edge {
        id: EdgeId::new(id(3, decky * 2 + lan)),
        decky: DeckyId::new(id(2, decky)),
        lan: LanId::new(id(1, lan)),
        address: Ipv4Addr::new(10, number, lan, 10 + decky),
        mac: Persona::Linux.mac(&Seed::new([decky; 32]), usize::from(lan)),
        home: lan == 0,
    };
    let mut edges = vec![edge(0, 0), edge(0, 1)];
    edges.extend((1..=deckies).map(|index| edge(index, 0)));
    Topology {
        id: TopologyId::new(id(0, 0)),
        name: TopologyName::parse(name).expect("a name of the suite is a name"),
        host: None,
        revision: Revision::new(1),
        lans,
        deckies: (0..=deckies).map(decky).collect(),
        edges,
    }
}

fn services() -> ServiceSet {
    let mut ssh = ServiceOptions::default();
    ssh.set(
        ServiceKind::Ssh,
        "banner",
        OptionValue::Text("OpenSSH_9.2 \"x\"".to_owned()),
    )
    .expect("ssh has a banner");
    let mut ftp = ServiceOptions::default();
    ftp.set(ServiceKind::Ftp, "anonymous", OptionValue::Boolean(true))
        .expect("ftp has it");
    ServiceSet::from([
        (ServiceKind::Ssh, ssh),
        (ServiceKind::Ftp, ftp),
        (ServiceKind::Http, ServiceOptions::default()),
    ])
}

fn published() -> Vec<Publish> {
    let publish = |host_ip, host_port| Publish {
        host_ip,
        host_port,
        decky_port: 22,
        protocol: Protocol::Tcp,
    };
    vec![
        publish(None, 2222),
        publish(Some(Ipv4Addr::LOCALHOST), 65535),
    ]
}

/// Stores a topology as pending.
pub(crate) async fn drafted(store: &Arc<dyn Store>, topology: &Topology) {
    store
        .insert_topology(topology, operator(), at(10))
        .await
        .expect("a new topology is stored");
}

/// The deploy of `topology` to `host`.
pub(crate) fn deploy_of(topology: &Topology, host: HostId) -> Deploy {
    let hydrated = hydrate(topology);
    Deploy {
        topology: topology.id,
        revision: topology.revision,
        host,
        hash: hydrated.version_hash(),
        hydrated: proto::hydrated::encode(&hydrated),
        replace: Replace::Refuse,
        deadline: at(600),
        actor: operator(),
        now: at(20),
    }
}

/// Stores and deploys a topology.
pub(crate) async fn deployed(
    store: &Arc<dyn Store>,
    topology: &Topology,
    host: HostId,
) -> Assignment {
    drafted(store, topology).await;
    store
        .deploy(deploy_of(topology, host))
        .await
        .expect("a pending topology is deployed")
}

/// The teardown of `topology`, at whatever revision it is.
pub(crate) fn teardown_of(topology: &Topology) -> Teardown {
    Teardown {
        topology: topology.id,
        expected: None,
        reason: "the exercise is over".to_owned(),
        actor: operator(),
        now: at(50),
    }
}

/// The removal of `topology`, at whatever revision it is, by somebody who has seen that its host
/// holds nothing of it.
pub(crate) fn removal_of(topology: &Topology) -> Removal {
    Removal {
        topology: topology.id,
        expected: None,
        observed_empty: true,
        actor: operator(),
        now: at(90),
    }
}

/// A settlement that keeps the assignment.
pub(crate) fn settlement(
    topology: &Topology,
    from: TopologyStatus,
    event: StatusEvent,
) -> Settlement {
    Settlement {
        topology: topology.id,
        from,
        event,
        reason: "the host says so".to_owned(),
        applied: None,
        withdraw: Withdraw::Keep,
        actor: Actor::Reconciler,
        now: at(30),
    }
}

pub(crate) async fn settled(
    store: &Arc<dyn Store>,
    topology: &Topology,
    from: TopologyStatus,
    event: StatusEvent,
) -> TopologyStatus {
    store
        .settle(settlement(topology, from, event))
        .await
        .expect("the machine has that arrow")
        .expect("the status is as expected")
}

pub(crate) async fn status(store: &Arc<dyn Store>, topology: &Topology) -> TopologyStatus {
    store
        .topology(topology.id)
        .await
        .expect("the store answers")
        .expect("the topology is there")
        .status
}

pub(crate) async fn stand(store: &Arc<dyn Store>, host: HostId, to: Standing) -> HostRow {
    store
        .set_standing(host, to, Force::No, operator(), at(40))
        .await
        .expect("the standing has that arrow")
}

pub(crate) fn spool(number: u128) -> SpoolId {
    SpoolId::new(uuid(0x5000 + number))
}

/// Another master's edit of every topology that is written and not yet committed: whoever else writes waits for it.
pub(crate) struct Held(Tx);

impl Held {
    pub(crate) async fn new(store: &SqlStore) -> Self {
        let mut tx = store.writing("edit").await.expect("nobody else writes");
        tx.edit_all().await;
        Self(tx)
    }

    pub(crate) async fn commit(self) {
        self.0.commit().await.expect("the database answers");
    }
}

/// Unwraps the error of an intent, for asserting on its variant.
pub(crate) fn refusal<T: std::fmt::Debug>(result: Result<T, IntentError>) -> IntentError {
    result.expect_err("the intent is refused")
}
