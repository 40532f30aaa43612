//! Whether deckies answer: a TCP connection to a service of each, all at once.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use domain::service::ServiceKind;
use futures_util::future::try_join_all;
use proto::topology_file::{FileDecky, TopologyFile};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use crate::world::LONG;

/// Where a decky answers: its first service at its first address.
pub(super) fn door(decky: &FileDecky) -> Result<SocketAddr> {
    let edge = decky.edges.first().context("a decky has an edge")?;
    let address = edge.address.as_deref().context("the edge has an address")?;
    let service: ServiceKind = decky
        .services
        .first()
        .context("a decky has a service")?
        .parse()?;
    let port = service.ports().first().context("a service has a port")?;
    Ok(SocketAddr::new(address.parse()?, *port))
}

/// Where each decky of a topology answers.
pub(super) fn doors(file: &TopologyFile) -> Result<Vec<SocketAddr>> {
    file.deckies.iter().map(door).collect()
}

/// Waits until a connection opens. To be asked only when the address is up: a question to an
/// absent neighbour is repeated by the kernel once a second, which would be measured.
pub(super) async fn answers(door: SocketAddr) -> Result<()> {
    let end = Instant::now() + LONG;
    loop {
        if let Ok(Ok(_)) = timeout(Duration::from_millis(500), TcpStream::connect(door)).await {
            return Ok(());
        }
        if Instant::now() > end {
            bail!("{door} does not answer");
        }
        sleep(Duration::from_millis(2)).await;
    }
}

/// Waits until all of them answer.
pub(super) async fn all_answer(doors: &[SocketAddr]) -> Result<()> {
    try_join_all(doors.iter().map(|door| answers(*door)))
        .await
        .map(drop)
}
