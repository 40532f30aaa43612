//! `ETag`, `If-Match` and `If-None-Match` (RFC 9110, section 13).
//!
//! The tag of a topology is its revision, a hyphen and a digest of what was answered: with its
//! status and its host an answer changes without an edit. `If-None-Match` compares all of it, so
//! that nobody misses a change of status. `If-Match` compares the revision: what a caller wants to
//! be sure of is that nobody has edited the topology meanwhile.

use axum::body::Bytes;
use axum::extract::FromRequestParts;
use axum::http::header::{CONTENT_TYPE, ETAG, IF_MATCH, IF_NONE_MATCH};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use domain::revision::Revision;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::extract::Malformed;
use super::kept::Made;
use super::problem::ApiError;

/// Most tags of one header.
const MOST: usize = 64;

/// On which condition an unsafe request is to be carried out.
#[derive(Debug, Default)]
pub(super) struct IfMatch(Option<Tags>);

/// On which condition a safe request is to be answered.
#[derive(Debug, Default)]
pub(super) struct IfNoneMatch(Option<Tags>);

#[derive(Debug, PartialEq, Eq)]
enum Tags {
    Any,
    Of(Vec<Tag>),
}

#[derive(Debug, PartialEq, Eq)]
struct Tag {
    weak: bool,
    text: String,
}

impl IfMatch {
    /// Whether the request may be carried out on that revision.
    pub(super) fn check(&self, current: Revision) -> Result<(), ApiError> {
        let holds = match &self.0 {
            None | Some(Tags::Any) => true,
            // A weak tag matches nothing here: it never said that nothing has changed.
            Some(Tags::Of(tags)) => {
                let current = current.to_string();
                tags.iter().any(|tag| {
                    let revision = tag.text.split('-').next().unwrap_or_default();
                    !tag.weak && revision == current
                })
            }
        };
        if holds {
            Ok(())
        } else {
            Err(ApiError::Precondition { current })
        }
    }

    /// The revision that the request may be carried out on, of which the one that was just read is
    /// what is known: for a use case that compares once more where it stores. None without a
    /// condition, and with one that any revision meets.
    pub(super) fn expected(&self, current: Revision) -> Result<Option<Revision>, ApiError> {
        self.check(current)?;
        Ok(match &self.0 {
            Some(Tags::Of(_)) => Some(current),
            Some(Tags::Any) | None => None,
        })
    }

    /// Whether there is no condition.
    pub(super) const fn is_absent(&self) -> bool {
        self.0.is_none()
    }
}

impl IfNoneMatch {
    fn matches(&self, etag: &str) -> bool {
        match &self.0 {
            None => false,
            Some(Tags::Any) => true,
            Some(Tags::Of(tags)) => tags.iter().any(|tag| tag.text == etag),
        }
    }

    /// Answers in JSON under a tag, or says that the caller has it already.
    pub(super) fn answer(&self, revision: Revision, value: &impl Serialize) -> Response {
        let Made { tag, json } = Made::of(Some(revision), value);
        self.respond(&tag, json)
    }

    /// Answers what was made, under its tag.
    pub(super) fn give(&self, made: Made) -> Response {
        self.respond(&made.tag, made.json)
    }

    /// Answers bytes of JSON under a tag that is theirs.
    pub(super) fn respond(&self, tag: &str, bytes: impl Into<Bytes>) -> Response {
        if self.matches(tag) {
            return (StatusCode::NOT_MODIFIED, [(ETAG, quoted(tag))]).into_response();
        }
        let kind = HeaderValue::from_static("application/json");
        ([(CONTENT_TYPE, kind), (ETAG, quoted(tag))], bytes.into()).into_response()
    }
}

impl Made {
    /// A value in JSON, under the tag of its revision, where it has one, and its text.
    pub(super) fn of(revision: Option<Revision>, value: &impl Serialize) -> Self {
        let json = serde_json::to_vec(value);
        let json = json.expect("a shape has string keys and no custom serializer");
        let digest = hex::encode(&Sha256::digest(&json)[..8]);
        let tag = match revision {
            Some(revision) => format!("{revision}-{digest}"),
            None => digest,
        };
        Self {
            tag: tag.into(),
            json: json.into(),
        }
    }
}

/// Answers in JSON with a status and the tag that a later request can name.
pub(super) fn tagged(status: StatusCode, revision: Revision, value: &impl Serialize) -> Response {
    let mut response = IfNoneMatch(None).answer(revision, value);
    *response.status_mut() = status;
    response
}

fn quoted(tag: &str) -> HeaderValue {
    HeaderValue::try_from(format!("\"{tag}\"")).expect("a tag is letters, digits and hyphens")
}

impl<S: Send + Sync> FromRequestParts<S> for IfMatch {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        tags(&parts.headers, &IF_MATCH, "If-Match").map(Self)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for IfNoneMatch {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        tags(&parts.headers, &IF_NONE_MATCH, "If-None-Match").map(Self)
    }
}

fn tags(
    headers: &HeaderMap,
    name: &HeaderName,
    word: &'static str,
) -> Result<Option<Tags>, ApiError> {
    let mut found: Option<Vec<Tag>> = None;
    for value in headers.get_all(name) {
        let parsed = value.to_str().ok().and_then(parse);
        match parsed {
            Some(Tags::Any) => return Ok(Some(Tags::Any)),
            Some(Tags::Of(more)) => found.get_or_insert_default().extend(more),
            None => {
                let message = "it is neither `*` nor a list of entity tags";
                return Err(ApiError::Malformed(Malformed::header(word, message)));
            }
        }
    }
    Ok(found.map(Tags::Of))
}

/// `*`, or `"a", W/"b"`. A comma may stand inside of a tag, so that the text cannot just be split.
fn parse(text: &str) -> Option<Tags> {
    let mut rest = text.trim();
    if rest == "*" {
        return Some(Tags::Any);
    }
    let mut tags = Vec::new();
    while tags.len() < MOST {
        let (weak, quoted) = match rest.strip_prefix("W/") {
            Some(quoted) => (true, quoted),
            None => (false, rest),
        };
        let (text, after) = quoted.strip_prefix('"')?.split_once('"')?;
        tags.push(Tag {
            weak,
            text: text.to_owned(),
        });
        rest = after.trim_start();
        if rest.is_empty() {
            return Some(Tags::Of(tags));
        }
        rest = rest.strip_prefix(',')?.trim_start();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(text: &str, revision: u64) -> Option<bool> {
        let tags = parse(text)?;
        Some(IfMatch(Some(tags)).check(Revision::new(revision)).is_ok())
    }

    #[test]
    fn a_revision_matches_in_its_own_form_alone() {
        for (text, expected) in [
            ("*", Some(true)),
            ("\"7\"", Some(true)),
            ("\"7-0011\"", Some(true)),
            ("\"6\", \"7\"", Some(true)),
            ("\"6,7\" ,\"8\"", Some(false)),
            ("W/\"7\"", Some(false)),
            ("W/\"7\",\"7-aa\"", Some(true)),
            ("\"07\"", Some(false)),
            ("\"77\"", Some(false)),
            ("\"\"", Some(false)),
            ("7", None),
            ("\"7", None),
            ("\"7\" \"8\"", None),
            ("\"7\",", None),
            ("w/\"7\"", None),
            ("", None),
            ("*, \"7\"", None),
        ] {
            assert_eq!(verdict(text, 7), expected, "{text}");
        }
        assert_eq!(parse(&vec!["\"a\""; 1000].join(",")), None);
    }

    #[test]
    fn what_is_there_already_is_compared_whole_and_weakly() {
        let condition = |text: &str| IfNoneMatch(parse(text));
        assert!(condition("W/\"7-aa\"").matches("7-aa"));
        assert!(condition("\"1\", \"7-aa\"").matches("7-aa"));
        assert!(condition("*").matches("7-aa"));
        assert!(!condition("\"7\"").matches("7-aa"));
        assert!(!IfNoneMatch(None).matches("7-aa"));
    }
}
