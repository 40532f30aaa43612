//! Reads bodies and queries. What is not of its shape is named, with the nearest known key.

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use proto::rest::FindingShape;
use proto::settings;
use proto::topology_file::MAX_FILE;
use serde::de::DeserializeOwned;

use super::problem::ApiError;

/// Most characters of a message that are sent back.
const LONGEST: usize = 400;

/// A body or query that is not of its shape.
#[derive(Debug)]
pub(super) struct Malformed {
    /// `body`, `query` or `head`.
    target: &'static str,
    /// Where, such as `topology.lans[0].subnet`.
    path: String,
    /// What is wrong there.
    message: String,
    /// The known key that an unknown one resembles.
    pub(super) nearest: Option<String>,
}

/// A JSON body.
pub(super) struct Body<T>(pub(super) T);

/// A JSON body that may be left out.
pub(super) struct BodyOrDefault<T>(pub(super) T);

/// Query parameters.
pub(super) struct Params<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let is_json = is_json(request.headers());
        let bytes = bytes(request, state).await?;
        if !is_json {
            return Err(ApiError::NotJson);
        }
        json(&bytes).map(Self).map_err(ApiError::Malformed)
    }
}

impl<S: Send + Sync, T: DeserializeOwned + Default> FromRequest<S> for BodyOrDefault<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let is_json = is_json(request.headers());
        let bytes = bytes(request, state).await?;
        if bytes.is_empty() {
            return Ok(Self(T::default()));
        }
        if !is_json {
            return Err(ApiError::NotJson);
        }
        json(&bytes).map(Self).map_err(ApiError::Malformed)
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        match Query::<T>::try_from_uri(&parts.uri) {
            Ok(Query(value)) => Ok(Self(value)),
            Err(rejection) => {
                let text = rejection.body_text();
                let text = text
                    .split_once(": ")
                    .map_or(text.as_str(), |(_, cause)| cause);
                Err(ApiError::Malformed(Malformed::of(
                    "query",
                    String::new(),
                    text,
                )))
            }
        }
    }
}

async fn bytes<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, ApiError> {
    Bytes::from_request(request, state)
        .await
        .map_err(|rejection: BytesRejection| {
            if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
                ApiError::TooLarge { limit: MAX_FILE }
            } else {
                ApiError::Torn
            }
        })
}

/// A form or a script of another page can send other types without asking first, never this one.
fn is_json(headers: &HeaderMap) -> bool {
    let value = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or("");
    let essence = value.split(';').next().unwrap_or("").trim();
    essence.eq_ignore_ascii_case("application/json")
}

/// Reads JSON. The parser stops at 128 levels, so depth is no way to exhaust the stack.
fn json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Malformed> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        let path = if path == "." { String::new() } else { path };
        Malformed::of("body", path, &error.into_inner().to_string())
    })?;
    deserializer
        .end()
        .map_err(|error| Malformed::of("body", String::new(), &error.to_string()))?;
    Ok(value)
}

impl Malformed {
    fn of(target: &'static str, path: String, message: &str) -> Self {
        let (path, nearest) = match unknown_key(message) {
            Some((key, known)) => {
                let nearest = settings::nearest(key, known.iter().copied()).map(str::to_owned);
                let ends = path.ends_with(&format!(".{key}")) || path == key;
                let path = match (ends, path.is_empty()) {
                    (true, _) => path,
                    (false, true) => key.to_owned(),
                    (false, false) => format!("{path}.{key}"),
                };
                (path, nearest)
            }
            None => (path, None),
        };
        Self {
            target,
            path: clip(&path),
            message: clip(message),
            nearest,
        }
    }

    /// A value of the query that has its type and is still none of those that it may be.
    pub(super) fn value(path: &'static str, message: impl ToString) -> Self {
        Self::at("query", path, message)
    }

    /// Such a value of the body.
    pub(super) fn body(path: &'static str, message: impl ToString) -> Self {
        Self::at("body", path, message)
    }

    /// A header that says something else than it may.
    pub(super) fn header(name: &'static str, message: impl ToString) -> Self {
        Self::at("head", name, message)
    }

    fn at(target: &'static str, path: &'static str, message: impl ToString) -> Self {
        Self {
            target,
            path: path.to_owned(),
            message: message.to_string(),
            nearest: None,
        }
    }

    pub(super) fn title(&self) -> String {
        if self.path.is_empty() {
            format!("the {} is malformed: {}", self.target, self.message)
        } else {
            format!(
                "{} of the {} is malformed: {}",
                self.path, self.target, self.message
            )
        }
    }

    pub(super) fn finding(&self) -> FindingShape {
        FindingShape {
            severity: "error".to_owned(),
            code: "MALFORMED".to_owned(),
            message: self.message.clone(),
            target: self.target.to_owned(),
            path: self.path.clone(),
        }
    }
}

/// A text of no more than [`LONGEST`] characters, without its middle where it has more: a value of the
/// sender's stands there, and where it was and what was expected comes after it.
fn clip(text: &str) -> String {
    const END: usize = 100;
    let length = text.chars().count();
    if length <= LONGEST {
        return text.to_owned();
    }
    let begin = text.chars().take(LONGEST - END - 1);
    let end = text.chars().skip(length - END);
    begin.chain(['…']).chain(end).collect()
}

/// The unknown key that serde complains about, and the keys that it knows. Serde says so in words
/// only: ``unknown field `a`, expected one of `b`, `c` at line 1 column 2``.
fn unknown_key(message: &str) -> Option<(&str, Vec<&str>)> {
    let (_, rest) = message.split_once("unknown field `")?;
    let (key, expected) = rest.rsplit_once("`, expected ")?;
    // The key is the sender's and may hold anything; the list after it is ours.
    let (key, expected) = match key.split_once("`, expected ") {
        Some(_) => return None,
        None => (key, expected),
    };
    Some((key, expected.split('`').skip(1).step_by(2).collect()))
}

#[cfg(test)]
mod tests {
    use proto::rest::{CreateTopology, DeployRequest};

    use super::*;

    fn refused<T: DeserializeOwned>(text: &str) -> Malformed {
        match json::<T>(text.as_bytes()) {
            Ok(_) => panic!("{text} was read"),
            Err(malformed) => malformed,
        }
    }

    #[test]
    fn an_unknown_key_is_named_with_its_place_and_the_nearest_known_one() {
        let text = r#"{"topology":{"name":"a","lans":[{"name":"l","subnt":"10.0.0.0/24"}]}}"#;
        let malformed = refused::<CreateTopology>(text);
        assert_eq!(malformed.path, "topology.lans[0].subnt");
        assert_eq!(malformed.nearest.as_deref(), Some("subnet"));

        let malformed = refused::<DeployRequest>(r#"{"repalce":true}"#);
        assert_eq!(malformed.path, "repalce");
        assert_eq!(malformed.nearest.as_deref(), Some("replace"));

        let malformed = refused::<DeployRequest>(r#"{"xyzzy":true}"#);
        assert_eq!(malformed.nearest, None);
    }

    #[test]
    fn a_value_of_the_wrong_type_is_named_with_its_place() {
        let malformed = refused::<CreateTopology>(r#"{"topology":{"name":7,"lans":[]}}"#);
        assert_eq!(malformed.path, "topology.name");
    }

    #[test]
    fn depth_and_trailing_bytes_are_refused() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(
            refused::<serde_json::Value>(&deep)
                .message
                .contains("recursion limit")
        );
        assert!(
            refused::<DeployRequest>("{} {}")
                .message
                .contains("trailing")
        );
        assert!(refused::<DeployRequest>("").message.contains("EOF"));
    }

    #[test]
    fn a_long_value_is_not_echoed_and_its_place_still_said() {
        let text = format!("\"{}\"", "x".repeat(10_000));
        let malformed = refused::<DeployRequest>(&text);
        assert_eq!(malformed.message.chars().count(), LONGEST);
        assert!(
            malformed.message.ends_with("at line 1 column 10002"),
            "{malformed:?}"
        );
    }

    #[test]
    fn a_hostile_key_is_neither_trusted_nor_echoed_at_length() {
        let key = format!("`, expected `{}", "x".repeat(10_000));
        let malformed = refused::<DeployRequest>(&format!("{{\"{key}\":1}}"));
        assert_eq!(malformed.nearest, None);
        assert!(malformed.title().len() < 3 * LONGEST);
    }
}
