//! LANs, deckies and edges of a topology, to rows and back.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use domain::id::{DeckyId, EdgeId, LanId, TopologyId};
use domain::service::{ServiceKind, ServiceOptions, ServiceSet};
use domain::topology::{Decky, Edge, Lan, Protocol, Publish, Topology};
use proto::decky_config::WireOption;
use proto::topology_file::FilePublish;
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;

use super::decode::{Cells, blob, failed};
use crate::db::StoreError;

/// Service to option to value, as in the decky configuration file.
type ServicesJson = BTreeMap<String, BTreeMap<String, WireOption>>;

const INSERT: &str = "store a topology";
const READ: &str = "read a topology";

/// What belongs to a topology.
pub(super) struct Graph {
    pub(super) lans: Vec<Lan>,
    pub(super) deckies: Vec<Decky>,
    pub(super) edges: Vec<Edge>,
}

pub(super) async fn insert(
    tx: &mut SqliteConnection,
    topology: &Topology,
) -> Result<(), StoreError> {
    let id = blob(topology.id.uuid());
    for (position, lan) in (0_i64..).zip(&topology.lans) {
        sqlx::query(
            "INSERT INTO lans (id, topology, position, name, subnet, subnet6, kind, driver)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(blob(lan.id.uuid()))
        .bind(&id)
        .bind(position)
        .bind(lan.name.as_str())
        .bind(lan.subnet.to_string())
        .bind(lan.subnet6.map(|subnet| subnet.to_string()))
        .bind(lan.kind.as_str())
        .bind(lan.driver.to_string())
        .execute(&mut *tx)
        .await
        .map_err(failed(INSERT))?;
    }
    for (position, decky) in (0_i64..).zip(&topology.deckies) {
        sqlx::query(
            "INSERT INTO deckies (id, topology, position, name, hostname, archetype, services,
                                  persona, forwards_l3, publish, seed)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(blob(decky.id.uuid()))
        .bind(&id)
        .bind(position)
        .bind(decky.name.as_str())
        .bind(decky.hostname.as_str())
        .bind(&decky.archetype)
        .bind(services_json(&decky.services))
        .bind(decky.persona.as_str())
        .bind(decky.forwards_l3)
        .bind(publish_json(&decky.publish))
        .bind(decky.seed.hex())
        .execute(&mut *tx)
        .await
        .map_err(failed(INSERT))?;
    }
    for (position, edge) in (0_i64..).zip(&topology.edges) {
        sqlx::query(
            "INSERT INTO edges (id, topology, position, decky, lan, address, mac, home)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(blob(edge.id.uuid()))
        .bind(&id)
        .bind(position)
        .bind(blob(edge.decky.uuid()))
        .bind(blob(edge.lan.uuid()))
        .bind(edge.address.to_string())
        .bind(edge.mac.to_string())
        .bind(edge.home)
        .execute(&mut *tx)
        .await
        .map_err(failed(INSERT))?;
    }
    Ok(())
}

pub(super) async fn read(
    tx: &mut SqliteConnection,
    topology: TopologyId,
) -> Result<Graph, StoreError> {
    let id = blob(topology.uuid());
    let lans = sqlx::query(
        "SELECT id, name, subnet, subnet6, kind, driver FROM lans
         WHERE topology = ? ORDER BY position",
    )
    .bind(&id)
    .fetch_all(&mut *tx)
    .await
    .map_err(failed(READ))?;
    let deckies = sqlx::query(
        "SELECT id, name, hostname, archetype, services, persona, forwards_l3, publish, seed
         FROM deckies WHERE topology = ? ORDER BY position",
    )
    .bind(&id)
    .fetch_all(&mut *tx)
    .await
    .map_err(failed(READ))?;
    let edges = sqlx::query(
        "SELECT id, decky, lan, address, mac, home FROM edges WHERE topology = ?
         ORDER BY position",
    )
    .bind(&id)
    .fetch_all(&mut *tx)
    .await
    .map_err(failed(READ))?;
    Ok(Graph {
        lans: lans.iter().map(lan).collect::<Result<_, _>>()?,
        deckies: deckies.iter().map(decky).collect::<Result<_, _>>()?,
        edges: edges.iter().map(edge).collect::<Result<_, _>>()?,
    })
}

fn lan(row: &SqliteRow) -> Result<Lan, StoreError> {
    let cells = Cells::new(row, "LAN");
    Ok(Lan {
        id: cells.id("id", LanId::new)?,
        name: cells.word("name")?,
        subnet: cells.word("subnet")?,
        subnet6: cells.maybe_word("subnet6")?,
        kind: cells.word("kind")?,
        driver: cells.word("driver")?,
    })
}

fn decky(row: &SqliteRow) -> Result<Decky, StoreError> {
    let cells = Cells::new(row, "decky");
    Ok(Decky {
        id: cells.id("id", DeckyId::new)?,
        name: cells.word("name")?,
        hostname: cells.word("hostname")?,
        archetype: cells.get("archetype")?,
        services: services_from(cells.get("services")?)
            .ok_or_else(|| cells.malformed("services"))?,
        persona: cells.word("persona")?,
        forwards_l3: cells.flag("forwards_l3")?,
        publish: publish_from(cells.get("publish")?).ok_or_else(|| cells.malformed("publish"))?,
        mutate_every: None,
        seed: cells.word("seed")?,
    })
}

fn edge(row: &SqliteRow) -> Result<Edge, StoreError> {
    let cells = Cells::new(row, "edge");
    Ok(Edge {
        id: cells.id("id", EdgeId::new)?,
        decky: cells.id("decky", DeckyId::new)?,
        lan: cells.id("lan", LanId::new)?,
        address: cells.word::<Ipv4Addr>("address")?,
        mac: cells.word("mac")?,
        home: cells.flag("home")?,
    })
}

fn services_json(services: &ServiceSet) -> String {
    let wire: ServicesJson = services
        .iter()
        .map(|(kind, options)| {
            let options = options
                .iter()
                .map(|(name, value)| (name.to_owned(), value.into()));
            (kind.as_str().to_owned(), options.collect())
        })
        .collect();
    serde_json::to_string(&wire).expect("services have string keys and no custom serializer")
}

fn services_from(json: &str) -> Option<ServiceSet> {
    let wire: ServicesJson = serde_json::from_str(json).ok()?;
    let mut services = ServiceSet::new();
    for (name, options) in wire {
        let kind: ServiceKind = name.parse().ok()?;
        let mut set = ServiceOptions::default();
        for (option, value) in options {
            set.set(kind, &option, value.into()).ok()?;
        }
        services.insert(kind, set);
    }
    Some(services)
}

fn publish_json(publish: &[Publish]) -> String {
    let wire: Vec<FilePublish> = publish
        .iter()
        .map(|publish| FilePublish {
            host_ip: publish.host_ip.map(|ip| ip.to_string()),
            host_port: publish.host_port.into(),
            decky_port: publish.decky_port.into(),
            protocol: Some(publish.protocol.as_str().to_owned()),
        })
        .collect();
    serde_json::to_string(&wire).expect("published ports have no custom serializer")
}

fn publish_from(json: &str) -> Option<Vec<Publish>> {
    let wire: Vec<FilePublish> = serde_json::from_str(json).ok()?;
    wire.into_iter()
        .map(|publish| {
            Some(Publish {
                host_ip: match publish.host_ip {
                    Some(ip) => Some(ip.parse().ok()?),
                    None => None,
                },
                host_port: publish.host_port.try_into().ok()?,
                decky_port: publish.decky_port.try_into().ok()?,
                protocol: match publish.protocol {
                    Some(word) => word.parse().ok()?,
                    None => Protocol::Tcp,
                },
            })
        })
        .collect()
}
