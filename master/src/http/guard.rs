//! What stands before every route: known names only, a span, a time limit, and the headers that
//! every answer carries.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HOST, ORIGIN, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use tracing::Instrument as _;
use tracing::field::Empty;

use super::Api;
use super::problem::ApiError;

/// Under which names this server is asked. A page that a browser loaded from elsewhere and that
/// resolves its own name to this address asks under another one, and is refused.
#[derive(Debug, Clone)]
pub(super) struct KnownNames(BTreeSet<String>);

impl KnownNames {
    /// The names of loopback, and `more`: host names or addresses without a port.
    pub(super) fn loopback_and<'a>(more: impl IntoIterator<Item = &'a str>) -> Self {
        let names = ["localhost", "127.0.0.1", "[::1]"].into_iter().chain(more);
        Self(names.map(str::to_ascii_lowercase).collect())
    }

    /// Whether the authority's host is known. Ports are not compared: a tunnel changes them.
    fn knows(&self, authority: &str) -> bool {
        // What stands before an `@` is no part of a host, and no browser sends it.
        !authority.contains('@')
            && authority
                .parse::<Authority>()
                .is_ok_and(|parsed| self.0.contains(&parsed.host().to_ascii_lowercase()))
    }

    fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), ApiError> {
        let text = |value: &HeaderValue| value.to_str().map(str::to_owned).unwrap_or_default();
        let mut hosts = headers.get_all(HOST).iter().map(text);
        let host = hosts
            .next()
            .or_else(|| uri.authority().map(ToString::to_string));
        let unique = hosts.next().is_none();
        let target_known = uri
            .authority()
            .is_none_or(|target| self.knows(target.as_str()));
        if !unique || !target_known || !host.is_some_and(|host| self.knows(&host)) {
            return Err(ApiError::UnknownName);
        }
        let foreign = headers.get_all(ORIGIN).iter().map(text).any(|origin| {
            let authority = origin
                .strip_prefix("http://")
                .or(origin.strip_prefix("https://"));
            !authority.is_some_and(|authority| self.knows(authority))
        });
        if foreign {
            Err(ApiError::ForeignOrigin)
        } else {
            Ok(())
        }
    }
}

/// Lets a request in, and sends its answer out.
pub(super) async fn admit(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or("", MatchedPath::as_str);
    let span = tracing::info_span!(
        "http.request",
        method = %request.method(),
        route,
        status = Empty,
        user.id = Empty,
    );
    let answer = async {
        if let Err(error) = api.names.check(request.uri(), request.headers()) {
            return error.into_response();
        }
        if !is_text(request.uri().path()) {
            return ApiError::Path.into_response();
        }
        // Bounds the time until the answer begins; a stream that has begun goes on.
        match tokio::time::timeout(api.limits.request, next.run(request)).await {
            Ok(response) => response,
            Err(_) => ApiError::TimedOut.into_response(),
        }
    };
    let mut response = answer.instrument(span.clone()).await;
    api.metrics.http_requests_total.inc();
    span.record("status", response.status().as_u16());
    span.in_scope(|| tracing::debug!("request answered"));
    for (name, value) in [
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (CACHE_CONTROL, "no-store"),
        (
            CONTENT_SECURITY_POLICY,
            "default-src 'none'; frame-ancestors 'none'",
        ),
        (X_FRAME_OPTIONS, "DENY"),
        (REFERRER_POLICY, "no-referrer"),
    ] {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Whether a path is UTF-8 once it is decoded. Handlers take their parameters as text.
fn is_text(path: &str) -> bool {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let [first, tail @ ..] = rest {
        let escaped = match (first, tail) {
            (b'%', [high, low, ..]) => hex::decode([*high, *low]).ok(),
            _ => None,
        };
        match escaped {
            Some(decoded) => {
                bytes.extend(decoded);
                rest = &tail[2..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    std::str::from_utf8(&bytes).is_ok()
}

/// Answers for a path that no route has.
pub(super) async fn no_route() -> ApiError {
    ApiError::NoRoute
}

/// Answers for a method that the route does not have.
pub(super) async fn no_method() -> ApiError {
    ApiError::NoMethod
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(host: &[&str], origin: Option<&str>) -> Result<(), String> {
        let names = KnownNames::loopback_and(["Master.example"]);
        let mut headers = HeaderMap::new();
        for host in host {
            headers.append(HOST, host.parse().expect("a header value"));
        }
        if let Some(origin) = origin {
            headers.insert(ORIGIN, origin.parse().expect("a header value"));
        }
        names
            .check(&Uri::from_static("/"), &headers)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn only_known_names_are_answered() {
        for good in [
            "localhost",
            "LOCALHOST:9",
            "127.0.0.1:8080",
            "[::1]:1",
            "master.example",
        ] {
            assert_eq!(verdict(&[good], None), Ok(()), "{good}");
        }
        for bad in [
            "evil.example",
            "127.0.0.1.evil.example",
            "127.0.0.2",
            "",
            "a@localhost",
        ] {
            assert_eq!(
                verdict(&[bad], None),
                Err(ApiError::UnknownName.to_string()),
                "{bad}"
            );
        }
        assert!(verdict(&[], None).is_err());
        assert!(verdict(&["localhost", "localhost"], None).is_err());
    }

    #[test]
    fn a_path_is_text_once_it_is_decoded() {
        for good in ["/", "/a%20b", "/%C3%a9", "/%", "/%4", "/%zz%25"] {
            assert!(is_text(good), "{good}");
        }
        for bad in ["/%ff", "/%C3", "/a%c3%28"] {
            assert!(!is_text(bad), "{bad}");
        }
    }

    #[test]
    fn a_foreign_page_is_refused() {
        assert_eq!(
            verdict(&["localhost"], Some("http://localhost:5173")),
            Ok(())
        );
        for bad in [
            "null",
            "http://evil.example",
            "file://localhost",
            "http://localhost.evil",
        ] {
            let refused = Err(ApiError::ForeignOrigin.to_string());
            assert_eq!(verdict(&["localhost"], Some(bad)), refused, "{bad}");
        }
    }
}
