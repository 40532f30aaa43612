//! How the API is asked: URLs, bounds, and what is no answer.

use std::time::Duration;

use reqwest::header::AUTHORIZATION;
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Client;
use super::error::ClientError;
use crate::rest::{Page, Problem};

/// Largest answer that is read, in bytes: a page of a thousand events fits.
const MAX_ANSWER: usize = 64 * 1024 * 1024;
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Most pages of one list. A master that never ends one must not keep us for ever.
const MAX_PAGES: usize = 10_000;

/// Where a request goes: the words of its path below `/api/v1`.
pub(super) type Path<'a> = &'a [&'a str];

impl Client {
    pub(super) fn url(&self, path: Path<'_>) -> Url {
        let mut url = self.base.clone();
        // `extend` encodes each word, so that an id can never become more of a path.
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(["api", "v1"]).extend(path);
        }
        url
    }

    pub(super) fn request(&self, method: Method, path: Path<'_>) -> RequestBuilder {
        self.http
            .request(method, self.url(path))
            .header(AUTHORIZATION, &self.authorization)
            .timeout(ANSWER_TIMEOUT)
    }

    pub(super) async fn get<T: DeserializeOwned>(&self, path: Path<'_>) -> Result<T, ClientError> {
        let route = route(&Method::GET, path);
        parse(
            &self.answer(self.request(Method::GET, path), &route).await?,
            &route,
        )
    }

    pub(super) async fn page<T: DeserializeOwned>(
        &self,
        path: Path<'_>,
        query: &impl Serialize,
    ) -> Result<Page<T>, ClientError> {
        let route = route(&Method::GET, path);
        let request = self.request(Method::GET, path).query(query);
        parse(&self.answer(request, &route).await?, &route)
    }

    pub(super) async fn list<T: DeserializeOwned>(
        &self,
        path: Path<'_>,
    ) -> Result<Vec<T>, ClientError> {
        let mut items = Vec::new();
        let mut cursor: Vec<(&str, String)> = Vec::new();
        for _ in 0..MAX_PAGES {
            let page: Page<T> = self.page(path, &cursor).await?;
            items.extend(page.items);
            match page.next {
                Some(next) => cursor = vec![("cursor", next)],
                None => break,
            }
        }
        Ok(items)
    }

    pub(super) async fn post<T: DeserializeOwned>(
        &self,
        path: Path<'_>,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        let route = route(&Method::POST, path);
        parse(
            &self
                .answer(self.request(Method::POST, path).json(body), &route)
                .await?,
            &route,
        )
    }

    pub(super) async fn act<T: DeserializeOwned>(
        &self,
        method: Method,
        path: Path<'_>,
    ) -> Result<T, ClientError> {
        let route = route(&method, path);
        parse(
            &self.answer(self.request(method, path), &route).await?,
            &route,
        )
    }

    pub(super) async fn remove(&self, path: Path<'_>) -> Result<(), ClientError> {
        let request = self.request(Method::DELETE, path);
        self.answer(request, &route(&Method::DELETE, path))
            .await
            .map(drop)
    }

    pub(super) async fn answer(
        &self,
        request: RequestBuilder,
        route: &str,
    ) -> Result<Vec<u8>, ClientError> {
        body(self.send(request, route).await?, route).await
    }

    /// Sends, and takes every status but success for a problem.
    pub(super) async fn send(
        &self,
        request: RequestBuilder,
        route: &str,
    ) -> Result<Response, ClientError> {
        let response = request
            .send()
            .await
            .map_err(|error| ClientError::of(error, route, &self.base))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let bytes = body(response, route).await?;
        Err(refusal(status, &bytes, route))
    }
}

pub(super) fn is_loopback(url: &Url) -> bool {
    match url.host_str() {
        Some("localhost") => true,
        Some(host) => host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback()),
        None => false,
    }
}

pub(super) fn route(method: &Method, path: Path<'_>) -> String {
    format!("{method} /api/v1/{}", path.join("/"))
}

pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8], route: &str) -> Result<T, ClientError> {
    serde_json::from_slice(bytes).map_err(|source| ClientError::Malformed {
        route: route.to_owned(),
        source,
    })
}

fn refusal(status: StatusCode, bytes: &[u8], route: &str) -> ClientError {
    match serde_json::from_slice::<Problem>(bytes) {
        Ok(problem) => ClientError::Problem(Box::new(problem)),
        // Not a master, or something between us and it.
        Err(_) => ClientError::Status {
            route: route.to_owned(),
            status: status.as_u16(),
        },
    }
}

async fn body(mut response: Response, route: &str) -> Result<Vec<u8>, ClientError> {
    let url = response.url().clone();
    let mut bytes = Vec::new();
    while let Some(chunk) = response
        .chunk()
        .await
        .map_err(|error| ClientError::of(error, route, &url))?
    {
        if bytes.len() + chunk.len() > MAX_ANSWER {
            return Err(ClientError::TooLong {
                route: route.to_owned(),
                limit: MAX_ANSWER,
            });
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}
