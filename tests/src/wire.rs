//! A host that speaks for itself: gRPC with a host's own certificate, without an agent.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use pki::connector::{Connector, MasterAddress, Trust, channel_over};
use pki::identity::files::HostIdentity;
use tonic::transport::Channel;

/// A connection to the master with a host's certificate.
pub async fn channel(identity: &HostIdentity, fleet: &str) -> Result<Channel> {
    let trust = Trust::Bundle {
        bundle: identity.bundle().clone(),
        clock: Arc::new(time::OffsetDateTime::now_utc),
        skew: time::Duration::ZERO,
    };
    let master: MasterAddress = format!("https://{fleet}")
        .parse()
        .context("the master's address")?;
    let stream = Connector::new(trust, Some(identity))?
        .connect(&master)
        .await?;
    Ok(channel_over(stream).await?)
}
