//! The typed client of the REST API: one method a route, shapes in, shapes out.
//!
//! It does not wait, retry or print: that is the caller's.

mod access;
mod error;
mod mutations;
mod sse;
mod stream;
#[cfg(test)]
mod tests;
mod transport;

use std::time::Duration;

use reqwest::Method;
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderValue};

pub use reqwest::Url;

pub use self::error::{ClientError, InvalidEndpoint};
pub use self::stream::{EventStream, ExportStream, NewsStream};
use self::transport::{Path, is_loopback, parse, route};
use crate::rest::{
    CreateTopology, DeployRequest, EnrollRequest, Enrollment, EventQuery, EventShape, Findings,
    HostShape, Page, StatusChangeShape, SystemStatus, TeardownRequest, TokenShape, TopologyFile,
    TopologyShape, TopologyState,
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a stream may be silent: the master says something every 15 s.
const SILENCE: Duration = Duration::from_secs(45);

/// A master, and the right to ask it.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    base: Url,
    authorization: HeaderValue,
}

impl Client {
    /// A client of the master at `base`, such as `http://127.0.0.1:8080`, with a bearer token.
    ///
    /// A token travels over TLS or inside this machine, and nowhere else.
    pub fn new(base: Url, token: &str) -> Result<Self, InvalidEndpoint> {
        Self::with(base, token, SILENCE)
    }

    fn with(base: Url, token: &str, silence: Duration) -> Result<Self, InvalidEndpoint> {
        let plain = match base.scheme() {
            "https" => false,
            "http" if is_loopback(&base) => true,
            "http" => return Err(InvalidEndpoint::Plain { url: base }),
            _ => return Err(InvalidEndpoint::Scheme { url: base }),
        };
        let mut authorization = HeaderValue::from_str(&format!("Bearer {}", token.trim()))
            .map_err(|_| InvalidEndpoint::Token)?;
        authorization.set_sensitive(true);
        // The library panics without a provider; a second installation is refused and harmless.
        rustls::crypto::ring::default_provider()
            .install_default()
            .ok();
        let mut builder = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(silence);
        if plain {
            // No proxy may see the token, and no root certificates need to be read.
            builder = builder.no_proxy().tls_certs_only([]);
        }
        let http = builder.build().map_err(InvalidEndpoint::Setup)?;
        Ok(Self {
            http,
            base,
            authorization,
        })
    }

    /// Which master.
    pub fn base(&self) -> &Url {
        &self.base
    }

    /// `GET /healthz`.
    pub async fn healthz(&self) -> Result<(), ClientError> {
        let mut url = self.base.clone();
        url.set_path("/healthz");
        self.answer(self.http.request(Method::GET, url), "GET /healthz")
            .await
            .map(drop)
    }

    /// `GET /status`.
    pub async fn status(&self) -> Result<SystemStatus, ClientError> {
        self.get(&["status"]).await
    }

    // === tokens ===

    /// `POST /tokens`.
    pub async fn enroll(&self, request: &EnrollRequest) -> Result<Enrollment, ClientError> {
        self.post(&["tokens"], request).await
    }

    /// `GET /tokens`, every page.
    pub async fn tokens(&self) -> Result<Vec<TokenShape>, ClientError> {
        self.list(&["tokens"]).await
    }

    /// `DELETE /tokens/{id}`.
    pub async fn remove_token(&self, id: &str) -> Result<(), ClientError> {
        self.remove(&["tokens", id]).await
    }

    // === hosts ===

    /// `GET /hosts`, every page.
    pub async fn hosts(&self) -> Result<Vec<HostShape>, ClientError> {
        self.list(&["hosts"]).await
    }

    /// `GET /hosts/{id}`.
    pub async fn host(&self, id: &str) -> Result<HostShape, ClientError> {
        self.get(&["hosts", id]).await
    }

    /// `POST /hosts/{id}/cordon`.
    pub async fn cordon(&self, id: &str) -> Result<HostShape, ClientError> {
        self.act(Method::POST, &["hosts", id, "cordon"]).await
    }

    /// `POST /hosts/{id}/uncordon`.
    pub async fn uncordon(&self, id: &str) -> Result<HostShape, ClientError> {
        self.act(Method::POST, &["hosts", id, "uncordon"]).await
    }

    /// `POST /hosts/{id}/drain`.
    pub async fn drain(&self, id: &str) -> Result<HostShape, ClientError> {
        self.act(Method::POST, &["hosts", id, "drain"]).await
    }

    /// `POST /hosts/{id}/revoke`.
    pub async fn revoke(&self, id: &str) -> Result<HostShape, ClientError> {
        self.act(Method::POST, &["hosts", id, "revoke"]).await
    }

    /// `DELETE /hosts/{id}`, of a host that is empty.
    pub async fn remove_host(&self, id: &str) -> Result<HostShape, ClientError> {
        self.act(Method::DELETE, &["hosts", id]).await
    }

    /// `DELETE /hosts/{id}?force=true`, of a host that will not answer.
    pub async fn abandon_host(&self, id: &str) -> Result<HostShape, ClientError> {
        let path: Path<'_> = &["hosts", id];
        let route = route(&Method::DELETE, path);
        let request = self
            .request(Method::DELETE, path)
            .query(&[("force", "true")]);
        parse(&self.answer(request, &route).await?, &route)
    }

    // === topologies ===

    /// `POST /topologies`.
    pub async fn create_topology(
        &self,
        request: &CreateTopology,
    ) -> Result<TopologyState, ClientError> {
        self.post(&["topologies"], request).await
    }

    /// `GET /topologies`, every page.
    pub async fn topologies(&self) -> Result<Vec<TopologyShape>, ClientError> {
        self.list(&["topologies"]).await
    }

    /// `GET /topologies/{id}`.
    pub async fn topology(&self, id: &str) -> Result<TopologyState, ClientError> {
        self.get(&["topologies", id]).await
    }

    /// `GET /topologies/{id}/document`.
    pub async fn document(&self, id: &str) -> Result<TopologyFile, ClientError> {
        self.get(&["topologies", id, "document"]).await
    }

    /// `GET /topologies/{id}/hydrated`: the very bytes that are hashed.
    pub async fn hydrated(&self, id: &str) -> Result<Vec<u8>, ClientError> {
        let path: Path<'_> = &["topologies", id, "hydrated"];
        self.answer(self.request(Method::GET, path), &route(&Method::GET, path))
            .await
    }

    /// `POST /topologies/{id}/deploy`.
    pub async fn deploy(
        &self,
        id: &str,
        request: &DeployRequest,
    ) -> Result<TopologyState, ClientError> {
        self.post(&["topologies", id, "deploy"], request).await
    }

    /// `POST /topologies/{id}/retry`.
    pub async fn retry(
        &self,
        id: &str,
        request: &DeployRequest,
    ) -> Result<TopologyState, ClientError> {
        self.post(&["topologies", id, "retry"], request).await
    }

    /// `POST /topologies/{id}/teardown`.
    pub async fn teardown(
        &self,
        id: &str,
        request: &TeardownRequest,
    ) -> Result<TopologyState, ClientError> {
        self.post(&["topologies", id, "teardown"], request).await
    }

    /// `DELETE /topologies/{id}`.
    pub async fn remove_topology(&self, id: &str) -> Result<(), ClientError> {
        self.remove(&["topologies", id]).await
    }

    /// `GET /topologies/{id}/status-events`, every page.
    pub async fn status_events(&self, id: &str) -> Result<Vec<StatusChangeShape>, ClientError> {
        self.list(&["topologies", id, "status-events"]).await
    }

    /// `POST /topologies/validate`.
    pub async fn validate(&self, file: &TopologyFile) -> Result<Findings, ClientError> {
        self.post(&["topologies", "validate"], file).await
    }

    // === events ===

    /// `GET /events`: one page.
    pub async fn events(&self, query: &EventQuery) -> Result<Page<EventShape>, ClientError> {
        self.page(&["events"], query).await
    }

    /// `GET /events/stream`: live, from after `query.after` on.
    pub async fn event_stream(&self, query: &EventQuery) -> Result<EventStream, ClientError> {
        let path: Path<'_> = &["events", "stream"];
        let mut request = self
            .http
            .request(Method::GET, self.url(path))
            .header(AUTHORIZATION, &self.authorization)
            .header(ACCEPT, "text/event-stream")
            .query(query);
        if let Some(row) = query.after {
            request = request.header("last-event-id", row.to_string());
        }
        let route = route(&Method::GET, path);
        let response = self.send(request, &route).await?;
        Ok(EventStream::new(response, route))
    }

    /// `GET /events/export`: one JSON document a line.
    pub async fn event_export(&self, query: &EventQuery) -> Result<ExportStream, ClientError> {
        let path: Path<'_> = &["events", "export"];
        let request = self
            .http
            .request(Method::GET, self.url(path))
            .header(AUTHORIZATION, &self.authorization)
            .query(query);
        let route = route(&Method::GET, path);
        let response = self.send(request, &route).await?;
        Ok(ExportStream::new(response, route))
    }
}
