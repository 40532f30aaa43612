//! The OpenAPI document: made of the table of routes and of the shapes that it names, so that it
//! cannot say anything else than the table does.
//!
//! Which refusals a route can answer is not written down at each: it follows from what the route
//! takes and who may use it. Only what is particular to a route stands in the table.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use axum::body::Bytes;
use axum::http::Method;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use proto::rest::{PROBLEM, Problem};
use serde_json::{Map, Value, json};
use utoipa::openapi::path::{Parameter, ParameterIn};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{IntoParams, ToSchema};

use super::auth::{Access, CSRF_HEADER, SESSION_COOKIE};
use super::idempotency;
use super::routes::{ROUTES, Route};

/// `*`, or a list of entity tags.
const TAGS: &str = r#"^(\*|(W/)?"[!#-~]*"( ?, ?(W/)?"[!#-~]*"){0,15})$"#;

/// What the document says of a route beside its method, its path and who may. Shapes are made when the
/// document is: most masters are never asked for it.
#[derive(Default)]
pub(super) struct Doc {
    /// What it does, one sentence.
    pub(super) summary: &'static str,
    body: Option<(fn() -> Shape, Needed)>,
    query: Option<fn() -> Vec<Parameter>>,
    answers: Vec<(u16, Content)>,
    refusals: Vec<u16>,
    condition: Option<Condition>,
}

/// A shape and those that it is made of.
struct Shape {
    schema: Value,
    parts: Vec<(String, RefOr<Schema>)>,
}

enum Content {
    Nothing,
    Json(fn() -> Shape),
    Other(&'static str),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Needed {
    Always,
    Optional,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Condition {
    Match,
    NoneMatch,
}

impl Shape {
    fn of<T: ToSchema>() -> Self {
        let name = T::name();
        let mut parts = vec![(name.to_string(), T::schema())];
        T::schemas(&mut parts);
        Self {
            schema: json!({ "$ref": format!("#/components/schemas/{name}") }),
            parts,
        }
    }

    fn any() -> Self {
        Self {
            schema: json!({}),
            parts: Vec::new(),
        }
    }

    fn page_of<T: ToSchema>() -> Self {
        let Self { schema, parts } = Self::of::<T>();
        let schema = json!({
            "type": "object",
            "required": ["items", "total"],
            "properties": {
                "items": { "type": "array", "items": schema, "description": "The part." },
                "total": {
                    "type": "integer", "format": "int64", "minimum": 0,
                    "description": "How many there are in all.",
                },
                "next": {
                    "type": "string",
                    "description": "Give it as `cursor` for the next part; absent at the end.",
                },
            },
        });
        Self { schema, parts }
    }
}

// === impl Route ===

/// How a line of the table says what its route takes and gives.
impl Route {
    /// What it does, one sentence.
    pub(super) fn says(mut self, summary: &'static str) -> Self {
        self.doc.summary = summary;
        self
    }

    /// It takes this body.
    pub(super) fn takes<T: ToSchema>(mut self) -> Self {
        self.doc.body = Some((Shape::of::<T>, Needed::Always));
        self
    }

    /// It takes this body, or none.
    pub(super) fn may_take<T: ToSchema>(mut self) -> Self {
        self.doc.body = Some((Shape::of::<T>, Needed::Optional));
        self
    }

    /// It takes these query parameters.
    pub(super) fn asks<T: IntoParams>(mut self) -> Self {
        self.doc.query = Some(|| T::into_params(|| Some(ParameterIn::Query)));
        self
    }

    /// It answers this, with that status.
    pub(super) fn gives<T: ToSchema>(mut self, status: u16) -> Self {
        let content = Content::Json(Shape::of::<T>);
        self.doc.answers.push((status, content));
        self
    }

    /// It answers JSON of which no more is said.
    pub(super) fn gives_any(mut self) -> Self {
        self.doc.answers.push((200, Content::Json(Shape::any)));
        self
    }

    /// It answers a page of these.
    pub(super) fn lists<T: ToSchema>(mut self) -> Self {
        let content = Content::Json(Shape::page_of::<T>);
        self.doc.answers.push((200, content));
        self
    }

    /// It answers with 204 and nothing.
    pub(super) fn gives_nothing(mut self) -> Self {
        self.doc.answers.push((204, Content::Nothing));
        self
    }

    /// It answers in another form than JSON.
    pub(super) fn gives_other(mut self, media: &'static str) -> Self {
        self.doc.answers.push((200, Content::Other(media)));
        self
    }

    /// It refuses with these too, beside what follows from the rest.
    pub(super) fn refuses(mut self, statuses: &[u16]) -> Self {
        self.doc.refusals.extend(statuses);
        self
    }

    /// It honours `If-Match`.
    pub(super) fn if_match(mut self) -> Self {
        self.doc.condition = Some(Condition::Match);
        self
    }

    /// It honours `If-None-Match`.
    pub(super) fn if_none_match(mut self) -> Self {
        self.doc.condition = Some(Condition::NoneMatch);
        self
    }

    /// Whether a request that is sent again can be told from a new one.
    pub(super) fn is_keyed(&self) -> bool {
        self.method == Method::POST && self.access != Access::Open
    }

    /// Every status that it can answer with.
    pub(super) fn statuses(&self) -> Vec<u16> {
        let mut statuses: Vec<u16> = self.doc.answers.iter().map(|(status, _)| *status).collect();
        // Whom it does not know by name, a fault of ours, and what is busy or away: any of them.
        statuses.extend([400, 403, 421, 500, 503]);
        if self.access != Access::Open {
            statuses.push(401);
        }
        if self.path.contains('{') {
            statuses.push(404);
        }
        if self.doc.body.is_some() {
            statuses.extend([413, 415, 422]);
        }
        if self.doc.query.is_some() {
            statuses.push(422);
        }
        if self.is_keyed() {
            statuses.extend([409, 413, 422]);
        }
        match self.doc.condition {
            Some(Condition::Match) => statuses.extend([412, 422]),
            Some(Condition::NoneMatch) => statuses.extend([304, 422]),
            None => {}
        }
        statuses.extend(&self.doc.refusals);
        statuses.sort_unstable();
        statuses.dedup();
        statuses
    }

    fn operation(&self) -> Value {
        let mut operation = json!({
            "operationId": self.operation_id(),
            "summary": self.doc.summary,
            "tags": [self.noun()],
            "x-role": role(self.access),
            "security": match self.access {
                Access::Open => json!([]),
                Access::Known | Access::Needs(_) => json!([{ "bearer": [] }, { "session": [] }]),
            },
            "parameters": self.parameters(),
            "responses": self.responses(),
        });
        if let (Some((shape, needed)), Some(fields)) = (&self.doc.body, operation.as_object_mut()) {
            let body = json!({
                "required": *needed == Needed::Always,
                "content": { "application/json": { "schema": shape().schema } },
            });
            fields.insert("requestBody".to_owned(), body);
        }
        operation
    }

    fn operation_id(&self) -> String {
        let words = self
            .path
            .split('/')
            .map(|word| word.trim_matches(['{', '}']));
        let words = words.filter(|word| !["", "api", "v1"].contains(word));
        let method = self.method.as_str().to_ascii_lowercase();
        let words: Vec<String> = words.map(|word| word.replace(['-', '.'], "_")).collect();
        format!("{method}_{}", words.join("_"))
    }

    fn noun(&self) -> &str {
        let words = self.path.split('/');
        words
            .into_iter()
            .find(|word| !["", "api", "v1"].contains(word))
            .unwrap_or("master")
    }

    fn parameters(&self) -> Vec<Value> {
        let header = |name: &str, description: &str, pattern: &str| {
            json!({
                "name": name, "in": "header", "required": false, "description": description,
                "schema": { "type": "string", "pattern": pattern },
            })
        };
        let mut parameters: Vec<Value> = self
            .path
            .split('/')
            .filter_map(|word| word.strip_prefix('{')?.strip_suffix('}'))
            .map(|name| {
                json!({
                    "name": name, "in": "path", "required": true,
                    "description": format!("The {name}, by id or, where it has one, by name."),
                    "schema": { "type": "string", "minLength": 1 },
                })
            })
            .collect();
        let query = self.doc.query.map(|query| query()).unwrap_or_default();
        parameters.extend(query.iter().map(value));
        match self.doc.condition {
            Some(Condition::Match) => parameters.push(header(
                "If-Match",
                "The revision that is meant, as an entity tag: it is refused at any other.",
                TAGS,
            )),
            Some(Condition::NoneMatch) => parameters.push(header(
                "If-None-Match",
                "Entity tags of answers that the caller has.",
                TAGS,
            )),
            None => {}
        }
        if self.is_keyed() {
            parameters.push(header(
                "Idempotency-Key",
                "A word of the caller's for this request: sent again within a day by the same \
                 credential, it is answered again and not carried out again. Where the first answer \
                 cannot be given (the master ended before it was kept, it failed after something \
                 was stored, or the answer is too large), 409 says so: look at the state of what \
                 was asked for. What failed (429, 5xx) before anything was stored leaves the word \
                 free.",
                &format!("^[!-~]{{1,{}}}$", idempotency::LONGEST),
            ));
        }
        parameters
    }

    fn responses(&self) -> Map<String, Value> {
        let mut responses = Map::new();
        for status in self.statuses() {
            let description = reason(status);
            let answer = self.doc.answers.iter().find(|(known, _)| *known == status);
            let mut response = match answer {
                Some((_, Content::Json(shape))) => json!({
                    "content": { "application/json": { "schema": shape().schema } },
                }),
                Some((_, Content::Other(media))) => json!({
                    "content": { *media: { "schema": { "type": "string" } } },
                }),
                Some((_, Content::Nothing)) => json!({}),
                None if status == 304 => json!({}),
                None => json!({
                    "content": {
                        PROBLEM: { "schema": { "$ref": "#/components/schemas/Problem" } },
                    },
                }),
            };
            if let Some(fields) = response.as_object_mut() {
                fields.insert("description".to_owned(), description.into());
                if self.doc.condition.is_some() && (status < 400 || status == 412) {
                    let tag = json!({
                        "ETag": {
                            "description": "The revision, and a digest of what was answered.",
                            "schema": { "type": "string" },
                        },
                    });
                    fields.insert("headers".to_owned(), tag);
                }
            }
            responses.insert(status.to_string(), response);
        }
        responses
    }
}

/// `GET /api/openapi.json`. Only for those who are known: whoever comes upon the port learns nothing
/// of what it serves.
pub(super) async fn openapi() -> impl IntoResponse {
    static TEXT: LazyLock<Bytes> = LazyLock::new(|| text().into());
    ([(CONTENT_TYPE, "application/json")], TEXT.clone())
}

/// The document as it is given.
pub(super) fn text() -> String {
    let mut text =
        serde_json::to_string_pretty(&document()).expect("a value of JSON has string keys");
    text.push('\n');
    text
}

/// The document.
pub(super) fn document() -> Value {
    let mut paths: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    let mut schemas: BTreeMap<String, Value> = BTreeMap::new();
    let problem: fn() -> Shape = Shape::of::<Problem>;
    for route in ROUTES.iter() {
        let method = route.method.as_str().to_ascii_lowercase();
        let methods = paths.entry(route.path).or_default();
        methods.insert(method, route.operation());
        let answers = route
            .doc
            .answers
            .iter()
            .filter_map(|(_, content)| match content {
                Content::Json(shape) => Some(shape),
                Content::Nothing | Content::Other(_) => None,
            });
        let body = route.doc.body.iter().map(|(shape, _)| shape);
        for shape in answers.chain(body).chain([&problem]) {
            let parts = shape().parts.into_iter();
            schemas.extend(parts.map(|(name, schema)| (name, value(&schema))));
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "DECNET",
            "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": env!("CARGO_PKG_LICENSE"), "identifier": env!("CARGO_PKG_LICENSE") },
            "description": "The master of a honeynet: its hosts, its topologies and their evidence. \
                Refusals are problem documents (RFC 9457). Lists come in pages: give `next` as \
                `cursor`. `x-role` names who may: `open` everybody, `known` whoever has logged in, \
                else that role and those above it (viewer, operator, admin). An unsafe request that \
                the cookie of a session authenticates needs the header `X-CSRF-Token`.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "bearer": {
                    "type": "http", "scheme": "bearer",
                    "description": "An API token, or the token of a session.",
                },
                "session": {
                    "type": "apiKey", "in": "cookie", "name": SESSION_COOKIE,
                    "description": format!("With the header `{CSRF_HEADER}` on unsafe methods."),
                },
            },
        },
    })
}

/// The word for who may.
pub(super) fn role(access: Access) -> &'static str {
    match access {
        Access::Open => "open",
        Access::Known => "known",
        Access::Needs(role) => role.as_str(),
    }
}

fn value(part: &impl serde::Serialize) -> Value {
    serde_json::to_value(part).expect("a part of the document has string keys")
}

fn reason(status: u16) -> &'static str {
    match status {
        400 => "The request did not arrive whole, or its path cannot be read.",
        401 => "Nothing says who asks, or nobody knows it.",
        403 => "Whoever asks may not, or a foreign page asks.",
        404 => "There is no such thing.",
        409 => {
            "It is not in a state for this, or the request of that idempotency key is being served, \
             or its answer cannot be given again."
        }
        412 => "The topology is at another revision.",
        413 => "The body is too large.",
        415 => "The body is not JSON, or does not say so.",
        421 => "This server is not asked under that name.",
        422 => "The request breaks a rule; the findings say which and where.",
        429 => "Too many attempts; `Retry-After` says when to come back.",
        500 => "A fault of the master; its log knows the reference.",
        503 => "The database is busy, or a host is away; `Retry-After` says when to come back.",
        200 => "Done.",
        201 => "Made.",
        202 => "Taken; its outcome is read from the topology.",
        204 => "Done; there is nothing to say.",
        304 => "The caller has it already.",
        _ => "See the problem document.",
    }
}
