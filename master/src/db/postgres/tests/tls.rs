//! TLS on the way to the server. What stands before the server of the tests ends the TLS and hands on
//! what is inside: it is our end that is tried, with the URLs that an operator writes.

use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::{Guest, OpenError, Server};
use crate::chain::Chain;
use crate::db::Store as _;
use crate::task;

/// What a client asks with before anything else: its length, and the code for TLS.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

type Issuer = CertifiedIssuer<'static, KeyPair>;

/// A server that is called `localhost`, with TLS.
struct Front {
    guest: Guest,
    port: u16,
    folder: TempDir,
}

fn issuer() -> Issuer {
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key can be made");
    CertifiedIssuer::self_signed(params, key).expect("it can be signed")
}

fn acceptor(issuer: &Issuer) -> TlsAcceptor {
    let key = KeyPair::generate().expect("a key can be made");
    let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("it is a name");
    let leaf = params.signed_by(&key, issuer).expect("it can be signed");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has them")
        .with_no_client_auth()
        .with_single_cert(
            vec![leaf.der().clone()],
            PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
        )
        .expect("the key is the certificate's");
    TlsAcceptor::from(Arc::new(config))
}

impl Front {
    /// Serves with TLS of `issuer`, or refuses it.
    async fn new(issuer: Option<&Issuer>) -> Self {
        let guest = Guest::new().await;
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let options = &guest.server.options;
        let behind = (options.get_host().to_owned(), options.get_port());
        let acceptor = issuer.map(acceptor);
        let served = async move {
            while let Ok((client, _)) = listener.accept().await {
                let one = serve(client, behind.clone(), acceptor.clone());
                drop(task::spawn("front.connection", tracing::Span::none(), one));
            }
        };
        drop(task::spawn("front", tracing::Span::none(), served));
        let folder = tempfile::tempdir().expect("the temporary directory is writable");
        Self {
            guest,
            port,
            folder,
        }
    }

    /// The file that holds what an operator trusts.
    fn trusting(&self, issuer: &Issuer) -> PathBuf {
        let path = self.folder.path().join("ca.pem");
        std::fs::write(&path, issuer.pem()).expect("the folder is ours");
        path
    }

    async fn open(&self, host: &str, query: &str) -> Result<(), OpenError> {
        let url = super::url();
        let (_, rest) = url.split_once("://").expect("it is a URL");
        let (user, _) = rest.rsplit_once('@').expect("it has a user");
        let database = self
            .guest
            .server
            .options
            .get_database()
            .expect("it has one");
        let port = self.port;
        let url = format!("postgres://{user}@{host}:{port}/{database}?{query}");
        let store = super::super::open(&Server::new(&url, None).expect("it is a URL")).await?;
        assert_eq!(store.epoch().await.expect("answered").get(), 1);
        store.close().await;
        Ok(())
    }

    /// Why it was not opened, as the log says it.
    async fn refusal(&self, host: &str, query: &str) -> String {
        let error = self.open(host, query).await.expect_err("it is refused");
        assert!(matches!(error, OpenError::Connect { .. }), "{error:?}");
        format!("{}", Chain(&error))
    }
}

async fn serve(mut client: TcpStream, behind: (String, u16), acceptor: Option<TlsAcceptor>) {
    let mut asked = [0; 8];
    if client.read_exact(&mut asked).await.is_err() {
        return;
    }
    assert_eq!(asked, SSL_REQUEST, "TLS is asked for first");
    let mut server = TcpStream::connect(behind).await.expect("it listens");
    let Some(acceptor) = acceptor else {
        drop(client.write_all(b"N").await);
        drop(copy_bidirectional(&mut client, &mut server).await);
        return;
    };
    if client.write_all(b"S").await.is_err() {
        return;
    }
    // A client that does not like the certificate hangs up.
    if let Ok(mut client) = acceptor.accept(client).await {
        drop(copy_bidirectional(&mut client, &mut server).await);
    }
}

#[tokio::test]
async fn a_server_is_believed_by_the_ca_and_the_name_that_the_url_says() {
    let ours = issuer();
    let front = Front::new(Some(&ours)).await;
    let root = front.trusting(&ours);
    let verified = format!("sslmode=verify-full&sslrootcert={}", root.display());
    front
        .open("localhost", &verified)
        .await
        .expect("it is the one");

    let other = front.refusal("127.0.0.1", &verified).await;
    assert!(other.contains("not valid for name"), "{other}");
    // Whoever does not look at names takes it.
    let unnamed = format!("sslmode=verify-ca&sslrootcert={}", root.display());
    front
        .open("127.0.0.1", &unnamed)
        .await
        .expect("its CA is known");
}

#[tokio::test]
async fn a_server_of_another_ca_is_refused_and_so_is_one_that_refuses_tls() {
    let (ours, theirs) = (issuer(), issuer());
    let front = Front::new(Some(&theirs)).await;
    let root = front.trusting(&ours);
    for mode in ["verify-full", "verify-ca"] {
        let query = format!("sslmode={mode}&sslrootcert={}", root.display());
        let refusal = front.refusal("localhost", &query).await;
        assert!(
            refusal.contains("could not connect to database localhost:"),
            "{refusal}"
        );
        assert!(refusal.contains("invalid peer certificate"), "{refusal}");
    }
    // Nor is it one that this machine trusts.
    let refusal = front.refusal("localhost", "sslmode=verify-full").await;
    assert!(refusal.contains("invalid peer certificate"), "{refusal}");
    let missing = front.folder.path().join("none.pem");
    let query = format!("sslmode=verify-full&sslrootcert={}", missing.display());
    let refusal = front.refusal("localhost", &query).await;
    assert!(refusal.contains("No such file"), "{refusal}");

    let clear = Front::new(None).await;
    let root = clear.trusting(&ours);
    let query = format!("sslmode=verify-full&sslrootcert={}", root.display());
    let refusal = clear.refusal("localhost", &query).await;
    assert!(refusal.to_lowercase().contains("tls"), "{refusal}");
}
