//! The REST API as a client without manners sees it: any path, any token, any body.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use reqwest::{Client, Method};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::runtime::Runtime;

/// What the API has answered.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The media type.
    pub content_type: String,
    /// The body.
    pub body: String,
}

impl Answer {
    /// The body as JSON.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_str(&self.body)
            .with_context(|| format!("{} with an unexpected body: {}", self.status, self.body))
    }
}

/// A client of the API.
pub struct Api {
    base: String,
    token: String,
    client: Client,
    runtime: Runtime,
}

impl Api {
    /// A client for the API at `base`, such as `http://127.0.0.1:8080`.
    pub fn new(base: &str, token: &str) -> Result<Self> {
        pki::install_crypto_provider();
        Ok(Self {
            base: base.trim_end_matches('/').to_owned(),
            token: token.to_owned(),
            client: Client::builder()
                .timeout(Duration::from_secs(60))
                .no_proxy()
                // Nobody polls the connection between two requests: that the master has closed it
                // meanwhile would be noticed too late.
                .pool_max_idle_per_host(0)
                .build()?,
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?,
        })
    }

    /// Where it is.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// The admin token.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Any request, with or without a token.
    pub fn request(
        &self,
        method: &str,
        path: &str,
        token: Option<&str>,
        body: Option<&Value>,
    ) -> Result<Answer> {
        let method = Method::from_bytes(method.as_bytes())?;
        let mut request = self.client.request(method, format!("{}{path}", self.base));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        self.runtime.block_on(async {
            let response = request.send().await?;
            let status = response.status().as_u16();
            let content_type = response
                .headers()
                .get("content-type")
                .and_then(|value| value.to_str().ok())
                .unwrap_or_default()
                .to_owned();
            Ok(Answer {
                status,
                content_type,
                body: response.text().await?,
            })
        })
    }

    /// `GET` with the admin token, which must succeed.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.answer("GET", path, None)?.json()
    }

    /// `POST` with the admin token, which must succeed.
    pub fn post<T: DeserializeOwned>(&self, path: &str, body: &Value) -> Result<T> {
        self.answer("POST", path, Some(body))?.json()
    }

    /// Any request with the admin token, which must succeed.
    pub fn answer(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Answer> {
        let answer = self.request(method, path, Some(&self.token), body)?;
        if !(200..300).contains(&answer.status) {
            bail!("{method} {path} gave {}: {}", answer.status, answer.body);
        }
        Ok(answer)
    }

    /// The sum of a metric over its labels; 0 when it is not there.
    pub fn metric(&self, name: &str) -> Result<f64> {
        let text = self.answer("GET", "/metrics", None)?.body;
        let mut sum = 0.0;
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some((key, value)) = line.rsplit_once(' ') else {
                continue;
            };
            if key.split('{').next() == Some(name) {
                sum += value
                    .parse::<f64>()
                    .with_context(|| format!("metric line {line:?}"))?;
            }
        }
        Ok(sum)
    }
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api")
            .field("base", &self.base)
            .finish_non_exhaustive()
    }
}
