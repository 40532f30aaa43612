use std::io::Write as _;
use std::time::Duration;

use serde_json::json;

use super::*;
use crate::stub::{Stub, queued, state, value};

const ID: &str = "0190a000-0000-7000-8000-000000000001";

fn args(file: &std::path::Path) -> ApplyArgs {
    ApplyArgs {
        file: file.display().to_string(),
        host: None,
        expected_revision: None,
        dry_run: false,
        wait: WaitArgs::none(),
    }
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(text.as_bytes()).expect("writable");
    file
}

const TEXT: &str = "{\"name\": \"office\", \"lans\": []}";

#[tokio::test]
async fn what_is_stored_is_changed_under_its_id() {
    let apply = format!("POST /topologies/{ID}/apply");
    let stub = Stub::new(vec![
        (
            "GET /topologies/office",
            vec![(200, value(&state("active")))],
        ),
        (&apply, vec![(202, value(&queued("pending")))]),
    ]);
    let context = stub.context(Duration::from_secs(5));
    let document = file(TEXT);
    let mut asked = args(document.path());
    asked.expected_revision = Some(3);
    let exit = run(asked, &context).await.expect("it is queued");
    assert_eq!(exit, Exit::Done);
    assert_eq!(
        stub.bodies(&apply),
        [json!({
            "topology": {"name": "office", "lans": [], "deckies": []},
            "dry_run": false, "expected_revision": 3,
        })]
    );

    let mut elsewhere = args(document.path());
    elsewhere.host = Some("edge-08".to_owned());
    let failure = run(elsewhere, &context).await.expect_err("it has its host");
    assert_eq!(failure.exit(), Exit::Usage);
}

#[tokio::test]
async fn what_is_not_stored_is_created_on_its_host() {
    // The name of one that was torn down is free.
    let stub = Stub::new(vec![
        (
            "GET /topologies/office",
            vec![(200, value(&state("torn_down")))],
        ),
        ("POST /topologies", vec![(201, value(&state("pending")))]),
    ]);
    let context = stub.context(Duration::from_secs(5));
    let document = file(TEXT);
    let mut asked = args(document.path());
    asked.host = Some("edge-07".to_owned());
    assert_eq!(
        run(asked, &context).await.expect("it is created"),
        Exit::Done
    );
    assert_eq!(stub.bodies("POST /topologies")[0]["host"], "edge-07");

    let mut dry = args(document.path());
    dry.dry_run = true;
    let failure = run(dry, &context).await.expect_err("it is not stored");
    assert!(
        failure.lines()[0].contains("office is not stored"),
        "{:?}",
        failure.lines()
    );
    assert_eq!(stub.bodies("POST /topologies").len(), 1);
}

#[tokio::test]
async fn a_document_that_is_not_read_whole_is_not_applied() {
    let stub = Stub::new(Vec::new());
    let context = stub.context(Duration::from_secs(5));
    let document = file(include_str!("../../document/vectors/original.json"));
    let failure = run(args(document.path()), &context)
        .await
        .expect_err("an edge leads nowhere");
    let lines = failure.lines();
    assert!(lines[0].ends_with("cannot be taken whole"), "{lines:?}");
    assert!(
        lines[1].contains("[EDGE_UNKNOWN] edges[5].decky_uuid"),
        "{lines:?}"
    );
}
