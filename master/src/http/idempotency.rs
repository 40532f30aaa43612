//! `Idempotency-Key`: a request that is sent again is carried out once, and answered twice.
//!
//! A key is taken before its request is served, and from then on it is free again only when the
//! request has failed and nothing was stored meanwhile. Everything else is kept for a day: the
//! answer; where there is none that can be given again (the master ended before it was kept, or
//! something was stored and then something failed, or the answer is too large), the fact, which is
//! told as a 409 and sends whoever asks to look.
//!
//! An answer may hold a secret that is shown once, and a request a password. So the digest of what
//! was asked is keyed, and the answer is sealed, with what only the credential of the caller makes:
//! a copy of the database tells nothing, and another credential has keys of its own.

use std::sync::Arc;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_TYPE, ETAG, HeaderName, LOCATION, SET_COOKIE};
use axum::http::{HeaderMap, HeaderValue, StatusCode, response};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use sha2::{Digest as _, Sha256};
use time::Duration;

use super::Api;
use super::auth::Caller;
use super::extract::Malformed;
use super::problem::ApiError;
use crate::chain::Chain;
use crate::db::StoreError;
use crate::db::accounts::{Keyed, KeyedRequest};
use crate::entropy::random;
use crate::task;
use crate::witness::{Effect, witnessed};

/// The header of the key.
pub(super) const KEY: &str = "idempotency-key";
/// The header of an answer that was given before.
pub(super) const REPLAYED: &str = "idempotency-replayed";
/// Longest key, in characters.
pub(super) const LONGEST: usize = 128;
/// How long a request is taken to be still served: longer than any may take. Afterwards nobody knows
/// what became of it.
const LEASE: Duration = Duration::seconds(60);
/// How long a key is kept.
const KEPT: Duration = Duration::hours(24);
/// Largest answer that is kept, in bytes.
const LARGEST: usize = 1024 * 1024;
/// What is kept of an answer's headers.
const HEADERS: [HeaderName; 4] = [CONTENT_TYPE, LOCATION, ETAG, SET_COOKIE];

/// Carries a request out, or gives the answer to the first of its key.
pub(super) async fn keyed(
    State(api): State<Arc<Api>>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let Some(key) = key(request.headers())? else {
        return Ok(next.run(request).await);
    };
    let caller = request.extensions().get::<Caller>();
    let caller = caller.ok_or(ApiError::Unauthenticated)?.clone();
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, api.limits.body)
        .await
        .map_err(|error| too_large_or_torn(&error, api.limits.body))?;
    let now = (api.clock)();
    let keyed = KeyedRequest {
        owner: caller.owner(),
        key,
        digest: digest(&caller, &parts, &body),
        lease_until: now + LEASE,
        expires_at: now + KEPT,
        now,
    };
    let request = Request::from_parts(parts, Body::from(body));
    // A task of its own from before the key is taken: whoever asks and leaves must find the answer
    // when asking again, and not a key that was taken for nothing.
    let served = task::spawn("http.keyed", tracing::Span::current(), async move {
        match api.store.take_keyed(&keyed).await? {
            Keyed::Fresh => {}
            Keyed::Running => return Err(ApiError::KeyRunning),
            Keyed::Unknown => return Err(ApiError::KeyUnknown),
            Keyed::Differs => return Err(ApiError::KeyDiffers),
            Keyed::Answered { status, body } => {
                // None that opens: it was sealed by a release that did it otherwise.
                return replay(&caller, &keyed, status, body).ok_or(ApiError::KeyUnknown);
            }
        }
        let (response, effect) = witnessed(next.run(request)).await;
        Ok(settle(&api, &caller, &keyed, (response, effect)).await)
    });
    served.await.unwrap_or(Err(ApiError::TimedOut))
}

/// Keeps what is to be said to whoever asks again, or frees the key.
async fn settle(
    api: &Api,
    caller: &Caller,
    keyed: &KeyedRequest,
    (response, effect): (Response, Effect),
) -> Response {
    let Ok((parts, bytes)) = whole(response).await else {
        return ApiError::TimedOut.into_response();
    };
    let settled = match verdict(&parts, bytes.len(), effect) {
        Verdict::Free => api.store.release_key(keyed).await,
        Verdict::Answer => keep(api, caller, keyed, (&parts, &bytes)).await,
        Verdict::Fact(fact) => match whole(fact.into_response()).await {
            Ok((parts, bytes)) => keep(api, caller, keyed, (&parts, &bytes)).await,
            // As good: with its lease it becomes one whose outcome is unknown.
            Err(_) => Ok(()),
        },
    };
    if let Err(error) = settled {
        tracing::warn!(error = %Chain(&error), "answer to a keyed request was not kept");
    }
    Response::from_parts(parts, Body::from(bytes))
}

/// What becomes of a key once its request was served.
enum Verdict {
    /// The request may be sent again.
    Free,
    /// The answer is given again.
    Answer,
    /// This is said of the answer, which cannot be given again.
    Fact(ApiError),
}

fn verdict(parts: &response::Parts, length: usize, effect: Effect) -> Verdict {
    let status = parts.status;
    let has_failed = status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS;
    match effect {
        Effect::Nothing if has_failed || length > LARGEST => Verdict::Free,
        Effect::Possible if has_failed => Verdict::Fact(ApiError::KeyUnknown),
        Effect::Possible if length > LARGEST => {
            let location = parts.headers.get(LOCATION);
            let location = location.and_then(|value| value.to_str().ok());
            Verdict::Fact(ApiError::KeyUnkept {
                status,
                location: location.map(str::to_owned),
            })
        }
        Effect::Nothing | Effect::Possible => Verdict::Answer,
    }
}

async fn whole(response: Response) -> Result<(response::Parts, Bytes), axum::Error> {
    let (parts, body) = response.into_parts();
    Ok((parts, to_bytes(body, usize::MAX).await?))
}

async fn keep(
    api: &Api,
    caller: &Caller,
    keyed: &KeyedRequest,
    (parts, bytes): (&response::Parts, &Bytes),
) -> Result<(), StoreError> {
    let sealed = seal(caller, keyed, &parts.headers, bytes);
    api.store
        .keep_answer(keyed, parts.status.as_u16(), &sealed)
        .await
}

fn key(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let mut values = headers.get_all(KEY).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let text = value.to_str().unwrap_or_default().trim();
    let fits =
        (1..=LONGEST).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    if !fits || values.next().is_some() {
        let message = format!("it is not one word of 1 to {LONGEST} visible ASCII characters");
        return Err(ApiError::Malformed(Malformed::header(
            "Idempotency-Key",
            message,
        )));
    }
    Ok(Some(text.to_owned()))
}

pub(super) fn too_large_or_torn(error: &axum::Error, limit: usize) -> ApiError {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = cause {
        if error.is::<http_body_util::LengthLimitError>() {
            return ApiError::TooLarge { limit };
        }
        cause = error.source();
    }
    ApiError::Torn
}

fn digest(caller: &Caller, parts: &axum::http::request::Parts, body: &[u8]) -> [u8; 32] {
    let mut digest = Sha256::new();
    digest.update(caller.seal());
    for field in [
        parts.method.as_str().as_bytes(),
        parts.uri.path().as_bytes(),
        parts.uri.query().unwrap_or_default().as_bytes(),
        // The same request under another condition is another request.
        parts
            .headers
            .get(axum::http::header::IF_MATCH)
            .map_or(b"", HeaderValue::as_bytes),
        body,
    ] {
        digest.update((field.len() as u64).to_be_bytes());
        digest.update(field);
    }
    digest.finalize().into()
}

fn sealing_key(caller: &Caller) -> LessSafeKey {
    let key = UnboundKey::new(&CHACHA20_POLY1305, caller.seal());
    LessSafeKey::new(key.expect("a digest has the length of a key"))
}

/// Headers as JSON on one line, then the body; sealed, behind the nonce.
fn seal(caller: &Caller, keyed: &KeyedRequest, headers: &HeaderMap, body: &Bytes) -> Vec<u8> {
    let kept: Vec<(&str, &str)> = HEADERS
        .iter()
        .filter_map(|name| Some((name.as_str(), headers.get(name)?.to_str().ok()?)))
        .collect();
    let mut plain = serde_json::to_vec(&kept).expect("pairs of text");
    plain.push(b'\n');
    plain.extend_from_slice(body);
    let nonce = random::<NONCE_LEN>();
    sealing_key(caller)
        .seal_in_place_append_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(keyed.digest),
            &mut plain,
        )
        .expect("an answer is shorter than what the cipher takes");
    [nonce.as_slice(), &plain].concat()
}

fn replay(
    caller: &Caller,
    keyed: &KeyedRequest,
    status: u16,
    mut sealed: Vec<u8>,
) -> Option<Response> {
    let mut plain = sealed.split_off(NONCE_LEN.min(sealed.len()));
    let nonce = Nonce::try_assume_unique_for_key(&sealed).ok()?;
    let plain = sealing_key(caller)
        .open_in_place(nonce, Aad::from(keyed.digest), &mut plain)
        .ok()?;
    let end = plain.iter().position(|byte| *byte == b'\n')?;
    let headers: Vec<(String, String)> = serde_json::from_slice(&plain[..end]).ok()?;
    let body = plain[end + 1..].to_vec();
    let mut response = (StatusCode::from_u16(status).ok()?, body).into_response();
    // `into_response` has set a type of its own.
    response.headers_mut().remove(CONTENT_TYPE);
    for (name, value) in headers {
        let name = HeaderName::try_from(name).ok()?;
        response
            .headers_mut()
            .insert(name, HeaderValue::try_from(value).ok()?);
    }
    response
        .headers_mut()
        .insert(REPLAYED, HeaderValue::from_static("true"));
    Some(response)
}
