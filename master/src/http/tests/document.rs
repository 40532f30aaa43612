//! The document against the table, and against the file that is committed.

use std::collections::BTreeSet;
use std::path::Path;

use domain::host::Standing;
use domain::observe::DriftKind;
use domain::topology::mutation::state::MutationState;
use domain::topology::status::TopologyStatus;

use super::*;
use crate::http::document::{document, role, text};

#[test]
fn the_document_is_the_one_that_is_committed() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi.json");
    let made = text();
    #[allow(
        clippy::disallowed_methods,
        reason = "whoever blesses golden files says so in the environment"
    )]
    let bless = std::env::var("INSTA_UPDATE").is_ok_and(|update| update == "always");
    if bless {
        std::fs::write(&path, &made).expect("the folder of the crate is writable");
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = committed
        .lines()
        .zip(made.lines())
        .find(|(one, other)| one != other);
    assert!(
        committed == made,
        "{} differs, first at {differs:?}; `make bless` rewrites it",
        path.display()
    );
}

#[test]
fn every_route_is_documented_and_nothing_else_is() {
    let document = document();
    let mut documented = BTreeSet::new();
    let paths = document["paths"].as_object().expect("paths");
    for (path, methods) in paths {
        for method in methods.as_object().expect("methods").keys() {
            documented.insert(format!("{} {path}", method.to_uppercase()));
        }
    }
    let mut routes = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for route in ROUTES.iter() {
        let place = format!("{} {}", route.method, route.path);
        let method = route.method.as_str().to_lowercase();
        let operation = &document["paths"][route.path][method.as_str()];
        assert_eq!(operation["x-role"], role(route.access), "{place}");
        let open = operation["security"]
            .as_array()
            .expect("security")
            .is_empty();
        assert_eq!(open, role(route.access) == "open", "{place}");
        let summary = operation["summary"].as_str().expect("a summary");
        assert!(
            summary.ends_with('.') && summary.len() > 10,
            "{place}: {summary:?}"
        );
        let id = operation["operationId"].as_str().expect("an id");
        assert!(ids.insert(id.to_owned()), "{place}: {id} is there twice");
        let statuses: BTreeSet<u16> = operation["responses"]
            .as_object()
            .expect("responses")
            .keys()
            .map(|status| status.parse().expect("a status"))
            .collect();
        assert_eq!(statuses, route.statuses().into_iter().collect(), "{place}");
        assert!(
            statuses.iter().any(|status| (200..300).contains(status)),
            "{place} says nothing of what it gives"
        );
        for (status, response) in operation["responses"].as_object().expect("responses") {
            let problem = &response["content"]["application/problem+json"]["schema"]["$ref"];
            let is_refusal = status.parse::<u16>().expect("a status") >= 400;
            assert_eq!(
                problem == "#/components/schemas/Problem",
                is_refusal,
                "{place} {status}"
            );
        }
        assert!(routes.insert(place.clone()), "{place} is there twice");
    }
    assert_eq!(documented, routes);
}

/// A client reads there what it has to be ready for.
#[test]
fn a_field_of_few_words_names_each_of_them() {
    fn words<T: Copy>(all: &[T], word: impl Fn(T) -> &'static str) -> Vec<&'static str> {
        all.iter().map(|each| word(*each)).collect()
    }
    let document = document();
    for (schema, field, words) in [
        (
            "DriftShape",
            "kind",
            words(&DriftKind::ALL, DriftKind::as_str),
        ),
        (
            "HostShape",
            "standing",
            words(&Standing::ALL, Standing::as_str),
        ),
        (
            "TopologyShape",
            "status",
            words(&TopologyStatus::ALL, TopologyStatus::as_str),
        ),
        (
            "MutationShape",
            "state",
            words(&MutationState::ALL, MutationState::as_str),
        ),
    ] {
        let told = &document["components"]["schemas"][schema]["properties"][field]["description"];
        let told = told.as_str().expect("it is described");
        let named: BTreeSet<_> = told.split('`').skip(1).step_by(2).collect();
        assert_eq!(named, BTreeSet::from_iter(words), "{schema}.{field}");
    }
}

#[test]
fn every_reference_leads_somewhere_and_no_schema_is_left_over() {
    fn references(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    match value.as_str() {
                        Some(text) if name == "$ref" => {
                            found.insert(text.to_owned());
                        }
                        _ => references(value, found),
                    }
                }
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    let document = document();
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    let schemas = document["components"]["schemas"].as_object();
    let schemas: BTreeSet<String> = schemas
        .expect("schemas")
        .keys()
        .map(|name| format!("#/components/schemas/{name}"))
        .collect();
    assert_eq!(found, schemas);
}

#[tokio::test]
async fn the_document_is_given_to_those_who_are_known() {
    let world = World::new().await;
    let answer = world
        .as_(VIEWER, Method::GET, "/api/openapi.json", None)
        .await;
    assert_eq!(answer.expect(200), document());
    assert_eq!(answer.headers[CONTENT_TYPE], "application/json");
}
