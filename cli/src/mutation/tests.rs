use super::*;
use crate::stub::{LOOK, Stub, mutation, page, value};

#[test]
fn a_list_and_one_mutation_are_what_an_operator_reads() {
    let mut failed = mutation("failed");
    failed.sequence = 2;
    failed.reason = "port 22 is taken".to_owned();
    let since = clock::ago("2026-01-01T00:00:01Z", clock::now());
    let queued = clock::ago("2026-01-01T00:00:00Z", clock::now());
    let text = format!(
        "{}\n{}",
        many_text(LOOK, &[mutation("applying"), failed.clone()]),
        one_text(LOOK, &failed)
    );
    // How wide a column is depends on the day on which this runs.
    let text = text.replace(&since, "AGO").replace(&queued, "AGO");
    let words = text
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    insta::assert_snapshot!(words.collect::<Vec<_>>().join("\n"));
}

#[tokio::test]
async fn pages_are_read_until_there_are_enough() {
    let route = "GET /topologies/office/mutations";
    let mut first = page(&[mutation("applied"), mutation("applied")]);
    first["next"] = "c1".into();
    let last = page(&[mutation("failed")]);
    let pages = vec![(200, first), (200, last)];
    let stub = Stub::new(vec![(route, pages.clone())]);
    let all = newest(&stub.client(), "office", None, 50).await;
    assert_eq!(all.expect("answered").len(), 3);
    let stub = Stub::new(vec![(route, pages)]);
    let two = newest(&stub.client(), "office", None, 2).await;
    assert_eq!(two.expect("answered").len(), 2);
    assert_eq!(stub.bodies(route).len(), 1);

    // A cursor with nothing leads nowhere.
    let mut empty = page(&[] as &[MutationShape]);
    empty["next"] = "c2".into();
    let stub = Stub::new(vec![(route, vec![(200, empty)])]);
    let none = newest(&stub.client(), "office", None, 50).await;
    assert_eq!(value(&none.expect("answered")), serde_json::json!([]));
}
