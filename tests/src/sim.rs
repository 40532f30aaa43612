//! Hosts without machines: any number of them in one process, over real mutual TLS, that obey at
//! once and hold nothing.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use domain::assign::{HostReport, Phase};
use domain::id::{HostId, TokenId};
use domain::observe::{Attachment, Handle, Inventory, ObservedDecky, ObservedLan, RunState};
use domain::revision::Fence;
use domain::topology::hydrate::{HydratedTopology, VersionHash};
use master::db::sqlite;
use master::db::{Redemption, Store as _, TokenRow};
use pki::ca::CertificateAuthority;
use pki::csr::HostKey;
use pki::identity::files::HostIdentity;
use proto::v1;
use proto::v1::agent_message::Body as Said;
use proto::v1::fleet_client::FleetClient;
use proto::v1::master_message::Body as Heard;
use proto::{convert, hydrated};
use time::OffsetDateTime;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use uuid::Uuid;

/// Enrolls hosts by hand into the data directory of a master that is not running: by the master's
/// own store and CA, past the limit on how often anybody may redeem a token.
pub async fn found_fleet(data: &Path, names: &[String]) -> Result<Vec<HostIdentity>> {
    let now = OffsetDateTime::now_utc();
    let authority = CertificateAuthority::load_or_create(data, now)?;
    let store = sqlite::open(&data.join("master.db")).await?;
    let mut fleet = Vec::with_capacity(names.len());
    for name in names {
        let token = TokenId::new(Uuid::new_v4());
        store
            .insert_token(TokenRow {
                id: token,
                secret_hash: [1; 32],
                name: name.parse()?,
                created_at: now,
                expires_at: now + Duration::from_secs(3600),
                creator: "bench".to_owned(),
                redeemed_by: None,
            })
            .await?;
        let key = HostKey::generate()?;
        let host = HostId::new(Uuid::new_v4());
        store
            .redeem(Redemption {
                token,
                secret_hash: [1; 32],
                expected_name: None,
                host,
                key: key.fingerprint(),
                agent_version: env!("CARGO_PKG_VERSION").to_owned(),
                now,
            })
            .await?;
        let leaf = authority.issue_host(&key.csr_der()?, host, Duration::from_secs(86_400), now)?;
        fleet.push(HostIdentity::new(
            key,
            leaf.certificate_der,
            authority.bundle(),
        )?);
    }
    store.close().await;
    Ok(fleet)
}

/// How a simulated host beats.
#[derive(Debug, Clone, Copy)]
pub enum Beat {
    /// As the master says.
    AsTold,
    /// One after the other without a pause, each a packet of its own.
    Flood,
}

/// What simulated hosts have done, together.
#[derive(Debug, Default)]
pub struct Tally {
    /// Hosts whose stream is open.
    pub connected: AtomicU64,
    /// Heartbeats sent.
    pub beats: AtomicU64,
    /// Assignments obeyed.
    pub obeyed: AtomicU64,
}

/// What an engine would show of a topology that it holds exactly.
pub fn inventory_of(topology: &HydratedTopology) -> Inventory {
    let network = |id: domain::id::LanId| Handle::new(format!("network-{id}"));
    Inventory {
        lans: topology
            .lans
            .iter()
            .map(|lan| ObservedLan {
                handle: network(lan.id),
                id: lan.id,
                topology: topology.id,
                spec: Some(lan.spec()),
                depth: 0,
            })
            .collect(),
        deckies: topology
            .deckies
            .iter()
            .map(|decky| ObservedDecky {
                handle: Handle::new(format!("container-{}", decky.id)),
                id: decky.id,
                topology: topology.id,
                spec: Some(decky.spec()),
                state: RunState::Running,
                attachments: decky
                    .interfaces
                    .iter()
                    .map(|interface| Attachment {
                        network: network(interface.lan),
                        address: Some(interface.address),
                    })
                    .collect(),
                config: None,
                wiring: None,
                published: None,
                outdated: false,
            })
            .collect(),
        foreign: Vec::new(),
    }
}

fn obey(assign: &v1::Assign) -> Result<HostReport> {
    let fence = convert::fence(assign.fence, "fence")?;
    let mut report = idle(fence);
    if !assign.topology_id.is_empty() {
        let topology = hydrated::decode(&assign.hydrated)?;
        let hash = VersionHash::new(convert::bytes32(&assign.version_hash, "version_hash")?);
        report.phase = Phase::Applied;
        report.content = Some((topology.id, hash));
        report.applied_at = Some(OffsetDateTime::now_utc());
        report.observed = Some(inventory_of(&topology));
    }
    Ok(report)
}

fn idle(fence: Fence) -> HostReport {
    HostReport {
        fence,
        phase: Phase::Idle,
        in_flight: false,
        content: None,
        applied_at: None,
        failure: None,
        refusal: None,
        observed: Some(Inventory::default()),
        drift: Vec::new(),
        timings: domain::assign::Timings::new(),
    }
}

fn heartbeat(report: &HostReport, digest: u64) -> v1::AgentMessage {
    let hash = report.content.map(|(_, hash)| hash.bytes().to_vec());
    let body = Said::Heartbeat(v1::Heartbeat {
        fence: Some(report.fence.into()),
        version_hash: hash.unwrap_or_default(),
        observed_digest: digest,
        phase: v1::Phase::from(report.phase).into(),
        in_flight: false,
        health: Some(v1::Health {
            engine_ok: true,
            collect_ok: true,
            spool_ok: true,
            disk_free_mib: 10_000,
            memory_free_mib: 1_000,
            spool_events: 0,
        }),
    });
    v1::AgentMessage { body: Some(body) }
}

/// Is a host until its stream ends.
pub async fn live(
    identity: &HostIdentity,
    fleet: &str,
    beat: Beat,
    tally: Arc<Tally>,
) -> Result<()> {
    let channel = crate::wire::channel(identity, fleet).await?;
    // Room for one: what waits together would travel together.
    let (say, said) = mpsc::channel(1);
    let mut report = idle(Fence::default());
    let hello = Said::Hello(v1::Hello {
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        report: Some(
            (&HostReport {
                observed: None,
                ..report.clone()
            })
                .into(),
        ),
        agent_time: convert::millis(Some(OffsetDateTime::now_utc())),
    });
    say.send(v1::AgentMessage { body: Some(hello) }).await?;
    let mut heard = FleetClient::new(channel)
        .control(ReceiverStream::new(said))
        .await?
        .into_inner();
    let mut wire: v1::Report = (&report).into();
    let mut digest = convert::observed_digest(&wire);
    let mut ticks: Option<tokio::time::Interval> = None;
    loop {
        tokio::select! {
            message = heard.message() => {
                match message?.context("the master has ended the stream")?.body {
                    Some(Heard::Welcome(welcome)) => {
                        let period = Duration::from_millis(welcome.heartbeat_ms.into());
                        tally.connected.fetch_add(1, Ordering::Relaxed);
                        say.send(v1::AgentMessage { body: Some(Said::Report(wire.clone())) }).await?;
                        let spread = u64::from(identity.host().uuid().as_bytes()[15]);
                        let start = tokio::time::Instant::now() + period * u32::try_from(spread)? / 256;
                        ticks = Some(tokio::time::interval_at(start, period));
                    }
                    Some(Heard::Assign(assign)) => {
                        report = obey(&assign)?;
                        wire = (&report).into();
                        digest = convert::observed_digest(&wire);
                        tally.obeyed.fetch_add(1, Ordering::Relaxed);
                        say.send(v1::AgentMessage { body: Some(Said::Report(wire.clone())) }).await?;
                    }
                    Some(Heard::ReportWanted(_)) => {
                        say.send(v1::AgentMessage { body: Some(Said::Report(wire.clone())) }).await?;
                    }
                    Some(Heard::RenewNow(_)) | None => {}
                }
            }
            _ = tick(&mut ticks), if matches!(beat, Beat::AsTold) => {
                say.send(heartbeat(&report, digest)).await?;
                tally.beats.fetch_add(1, Ordering::Relaxed);
            }
            permit = say.reserve(), if matches!(beat, Beat::Flood) && ticks.is_some() => {
                permit?.send(heartbeat(&report, digest));
                tally.beats.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
        }
    }
}

async fn tick(ticks: &mut Option<tokio::time::Interval>) {
    match ticks {
        Some(ticks) => {
            ticks.tick().await;
        }
        None => std::future::pending().await,
    }
}
