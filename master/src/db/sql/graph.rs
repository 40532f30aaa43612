//! LANs, deckies and edges of a topology, to rows and back.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use domain::id::{DeckyId, EdgeId, LanId, TopologyId};
use domain::service::{ServiceKind, ServiceOptions, ServiceSet};
use domain::topology::{Decky, Edge, Lan, Protocol, Publish, Topology};
use proto::decky_config::WireOption;
use proto::topology_file::FilePublish;

use super::cells::{Cells, blob, failed};
use super::statement::{Builder, Row, Tx, Value, sql};
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

/// Rows of one statement: a whole topology is few of them, and none has more values than SQLite's
/// 32766.
const ROWS: usize = 2048;

/// Up to so many rows have a text that the connection keeps prepared: most topologies are small, and
/// the sizes of their parts are few.
const FEW: usize = 8;

pub(super) async fn insert(tx: &mut Tx, topology: &Topology) -> Result<(), StoreError> {
    let id = || Value::from(blob(topology.id.uuid()));
    let text =
        "INSERT INTO lans (topology, position, id, name, subnet, subnet6, kind, driver) VALUES ";
    insert_rows(tx, text, &topology.lans, |position, lan| {
        [
            id(),
            position,
            blob(lan.id.uuid()).into(),
            lan.name.as_str().into(),
            lan.subnet.to_string().into(),
            lan.subnet6.map(|subnet| subnet.to_string()).into(),
            lan.kind.as_str().into(),
            lan.driver.to_string().into(),
        ]
    })
    .await?;
    let text = "INSERT INTO deckies (topology, position, id, name, hostname, archetype, services,
                                     persona, forwards_l3, publish, mutate_every, seed) VALUES ";
    insert_rows(tx, text, &topology.deckies, |position, decky| {
        [
            id(),
            position,
            blob(decky.id.uuid()).into(),
            decky.name.as_str().into(),
            decky.hostname.as_str().into(),
            (&decky.archetype).into(),
            services_json(&decky.services).into(),
            decky.persona.as_str().into(),
            decky.forwards_l3.into(),
            publish_json(&decky.publish).into(),
            decky.mutate_every.map(|every| every.to_string()).into(),
            decky.seed.hex().into(),
        ]
    })
    .await?;
    let text = "INSERT INTO edges (topology, position, id, decky, lan, address, mac, home) VALUES ";
    insert_rows(tx, text, &topology.edges, |position, edge| {
        [
            id(),
            position,
            blob(edge.id.uuid()).into(),
            blob(edge.decky.uuid()).into(),
            blob(edge.lan.uuid()).into(),
            edge.address.to_string().into(),
            edge.mac.to_string().into(),
            edge.home.into(),
        ]
    })
    .await
}

async fn insert_rows<T, const N: usize>(
    tx: &mut Tx,
    text: &'static str,
    items: &[T],
    row: impl Fn(Value, &T) -> [Value; N],
) -> Result<(), StoreError> {
    let placed: Vec<(i64, &T)> = (0..).zip(items).collect();
    for part in placed.chunks(ROWS) {
        let mut statement = Builder::new(tx.dialect(), text);
        statement.push_rows(part, |(position, item)| row((*position).into(), item));
        let statement = if part.len() <= FEW {
            statement.build()
        } else {
            statement.build_once()
        };
        statement.execute(&mut *tx).await.map_err(failed(INSERT))?;
    }
    Ok(())
}

/// Puts the LANs, deckies and edges of `topology` in the place of those that are stored.
pub(super) async fn replace(tx: &mut Tx, topology: &Topology) -> Result<(), StoreError> {
    for text in [
        "DELETE FROM edges WHERE topology = $1",
        "DELETE FROM deckies WHERE topology = $1",
        "DELETE FROM lans WHERE topology = $1",
    ] {
        sql(text)
            .bind(blob(topology.id.uuid()))
            .execute(&mut *tx)
            .await
            .map_err(failed(INSERT))?;
    }
    insert(tx, topology).await
}

pub(super) async fn read(tx: &mut Tx, topology: TopologyId) -> Result<Graph, StoreError> {
    let id = blob(topology.uuid());
    let lans = sql("SELECT id, name, subnet, subnet6, kind, driver FROM lans
         WHERE topology = $1 ORDER BY position")
    .bind(&id)
    .fetch_all(&mut *tx)
    .await
    .map_err(failed(READ))?;
    let deckies = sql(
        "SELECT id, name, hostname, archetype, services, persona, forwards_l3, publish,
                mutate_every, seed
         FROM deckies WHERE topology = $1 ORDER BY position",
    )
    .bind(&id)
    .fetch_all(&mut *tx)
    .await
    .map_err(failed(READ))?;
    let edges = sql(
        "SELECT id, decky, lan, address, mac, home FROM edges WHERE topology = $1
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

fn lan(row: &Row) -> Result<Lan, StoreError> {
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

fn decky(row: &Row) -> Result<Decky, StoreError> {
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
        mutate_every: cells.maybe_word("mutate_every")?,
        seed: cells.word("seed")?,
    })
}

fn edge(row: &Row) -> Result<Edge, StoreError> {
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
