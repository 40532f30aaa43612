//! Dials the master, and opens the control stream as far as the master's welcome.

use domain::assign::HostReport;
use pki::connector::{Connector, MasterAddress, RefusalWatch, channel_over};
use proto::v1;
use proto::v1::fleet_client::FleetClient;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

use super::wire::{self, Welcome};
use super::{ANSWER, LinkError};
use crate::identity::Credentials;

/// The largest message from the master: the document of a topology of many hundred deckies.
const MAX_MESSAGE: usize = 64 * 1024 * 1024;

/// A connection on which nothing has been called yet.
pub(super) struct Dialled {
    pub(super) channel: Channel,
    pub(super) refusal: RefusalWatch,
}

/// An open control stream.
pub(super) struct Control {
    pub(super) outbound: mpsc::Sender<v1::AgentMessage>,
    pub(super) inbound: Streaming<v1::MasterMessage>,
    pub(super) dialled: Dialled,
    pub(super) welcome: Welcome,
}

pub(super) async fn dial(
    connector: &Connector,
    master: &MasterAddress,
) -> Result<Dialled, LinkError> {
    let stream = connector
        .connect(master)
        .await
        .map_err(|source| LinkError::Connect { source })?;
    let refusal = stream.refusal();
    let channel = match timeout(ANSWER, channel_over(stream)).await {
        Ok(Ok(channel)) => channel,
        Ok(Err(source)) => {
            return Err(match refusal.get() {
                Some(source) => LinkError::Refused { source },
                None => LinkError::Http { source },
            });
        }
        Err(_) => {
            return Err(LinkError::Silent {
                waiting_for: "HTTP/2",
            });
        }
    };
    Ok(Dialled { channel, refusal })
}

/// Says hello with the row, and waits for the welcome.
pub(super) async fn open(
    dialled: Dialled,
    credentials: &Credentials,
    row: &HostReport,
) -> Result<Control, LinkError> {
    const CALL: &str = "control";
    // One message at a time: what is not sent yet is better made anew than sent late.
    let (outbound, messages) = mpsc::channel(1);
    let hello = wire::hello(row, credentials.now());
    outbound
        .try_send(hello)
        .expect("a fresh channel has room for one");
    let mut client =
        FleetClient::new(dialled.channel.clone()).max_decoding_message_size(MAX_MESSAGE);
    let opened = async {
        let mut inbound = client
            .control(ReceiverStream::new(messages))
            .await?
            .into_inner();
        let first = inbound.message().await?;
        Ok((inbound, first))
    };
    let (inbound, first) = match timeout(ANSWER, opened).await {
        Ok(Ok(opened)) => opened,
        Ok(Err(status)) => return Err(LinkError::from_status(CALL, status, &dialled.refusal)),
        Err(_) => {
            return Err(LinkError::Silent {
                waiting_for: "welcome",
            });
        }
    };
    let first = first.ok_or(LinkError::Closed)?;
    let welcome = wire::welcome(first).map_err(|source| LinkError::Protocol { source })?;
    credentials.note_master_time(welcome.master_time);
    Ok(Control {
        outbound,
        inbound,
        dialled,
        welcome,
    })
}

/// Opens the control stream once and leaves again: that the master lets this host in is proven.
pub async fn prove(
    credentials: &Credentials,
    master: &MasterAddress,
    row: &HostReport,
) -> Result<(), LinkError> {
    let connector = credentials
        .connector()
        .map_err(|source| LinkError::Identity { source })?;
    let dialled = dial(&connector, master).await?;
    open(dialled, credentials, row).await.map(drop)
}
