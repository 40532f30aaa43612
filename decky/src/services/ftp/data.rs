//! Data connections: opened with the client's own address at the other end, or not at all.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// How long a data connection may take to come about.
const OPENING: Duration = Duration::from_secs(20);
/// How long a transfer may take.
const TRANSFER: Duration = Duration::from_secs(60);
/// Most bytes of one upload.
const MAX_UPLOAD: u64 = 4 * 1024 * 1024;

/// How the next data connection comes about.
#[derive(Default)]
pub(super) enum Channel {
    #[default]
    None,
    Passive(TcpListener),
    Active(SocketAddr),
}

impl Channel {
    /// Listens on a port of its own.
    pub(super) async fn passive(local: IpAddr) -> io::Result<(Self, u16)> {
        let listener = TcpListener::bind((local, 0)).await?;
        let port = listener.local_addr()?.port();
        Ok((Self::Passive(listener), port))
    }

    /// Opens the connection.
    pub(super) async fn open(self, client: SocketAddr) -> io::Result<TcpStream> {
        let opened = async {
            match self {
                Self::None => Err(io::ErrorKind::NotConnected.into()),
                Self::Active(target) => TcpStream::connect(target).await,
                Self::Passive(listener) => loop {
                    let (stream, peer) = listener.accept().await?;
                    // Somebody else who found the port is not served.
                    if peer.ip().to_canonical() == client.ip() {
                        return Ok(stream);
                    }
                },
            }
        };
        timeout(OPENING, opened)
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    }
}

/// Sends everything and closes.
pub(super) async fn send(mut stream: TcpStream, bytes: &[u8]) -> io::Result<()> {
    let sent = async {
        stream.write_all(bytes).await?;
        stream.shutdown().await
    };
    timeout(TRANSFER, sent)
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

/// Receives until the end; gives the size, as an error when it ended otherwise or was too much.
pub(super) async fn receive(
    mut stream: TcpStream,
    mut take: impl FnMut(&[u8]),
) -> Result<u64, u64> {
    let mut size = 0;
    let mut buffer = [0; 4096];
    let received = timeout(TRANSFER, async {
        loop {
            match stream.read(&mut buffer).await {
                Ok(0) => return true,
                Ok(read) => {
                    take(&buffer[..read]);
                    size += read as u64;
                    if size > MAX_UPLOAD {
                        return false;
                    }
                }
                Err(_) => return false,
            }
        }
    })
    .await;
    if received == Ok(true) {
        Ok(size)
    } else {
        Err(size)
    }
}

/// `h1,h2,h3,h4,p1,p2` of PORT.
pub(super) fn parse_port(text: &str) -> Option<SocketAddr> {
    let numbers: Vec<u8> = text
        .trim()
        .split(',')
        .map(str::parse)
        .collect::<Result<_, _>>()
        .ok()?;
    let [a, b, c, d, high, low] = numbers.try_into().ok()?;
    Some(SocketAddr::from((
        Ipv4Addr::new(a, b, c, d),
        u16::from_be_bytes([high, low]),
    )))
}

/// `|1|10.0.0.1|5000|` of EPRT (RFC 2428).
pub(super) fn parse_eprt(text: &str) -> Option<SocketAddr> {
    let delimiter = text.chars().next()?;
    let mut fields = text.split(delimiter).skip(1);
    let (_family, address, port) = (fields.next()?, fields.next()?, fields.next()?);
    Some(SocketAddr::new(address.parse().ok()?, port.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_clients_endpoint_is_read_from_port_and_eprt() {
        let endpoint = "10.1.2.3:1025".parse().ok();
        assert_eq!(parse_port("10,1,2,3,4,1"), endpoint);
        assert_eq!(parse_eprt("|1|10.1.2.3|1025|"), endpoint);
        assert_eq!(parse_port("10,1,2,3,4"), None);
        assert_eq!(parse_port("10,1,2,3,400,1"), None);
        assert_eq!(parse_eprt("|1|10.1.2.3|70000|"), None);
    }

    proptest! {
        #[test]
        fn no_text_makes_them_panic(text: String) {
            parse_port(&text);
            parse_eprt(&text);
        }
    }
}
