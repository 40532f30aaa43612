//! The writer against the RFC's own examples and against another one.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::testkit::rfc8785;

fn members(members: &BTreeMap<String, String>) -> String {
    let mut text = String::new();
    let members = members.iter().map(|(key, value)| (key.as_str(), value));
    write_members(members, &mut text).expect("a string takes everything");
    text
}

#[test]
fn keys_sort_by_utf16_and_texts_escape_as_rfc_8785_shows() {
    // The key order of RFC 8785, section 3.2.3, without its numbers.
    let keys = [
        "\u{20ac}",
        "\r",
        "\u{fb33}",
        "1",
        "\u{1f600}",
        "\u{80}",
        "\u{f6}",
    ];
    let object = keys.map(|key| (key.to_owned(), String::new()));
    assert_eq!(
        members(&BTreeMap::from(object)),
        "{\"\\r\":\"\",\"1\":\"\",\"\u{80}\":\"\",\"\u{f6}\":\"\",\"\u{20ac}\":\"\",\
         \"\u{1f600}\":\"\",\"\u{fb33}\":\"\"}"
    );
    assert_eq!(
        text(&"\u{20ac}$\u{f}\nA'B\"\\\\\"/".to_owned()),
        "\"\u{20ac}$\\u000f\\nA'B\\\"\\\\\\\\\\\"/\""
    );
}

#[test]
fn an_object_of_keys_out_of_order_does_not_compile() {
    assert!(ascend(&["a", "ab", "b", "b6", "b_"]));
    for keys in [["b", "a"], ["ab", "a"], ["a", "a"], ["a", "\u{f6}"]] {
        assert!(!ascend(&keys), "{keys:?}");
    }
}

proptest! {
    #[test]
    fn what_is_written_is_what_another_writer_writes_of_it(
        object in prop::collection::btree_map(any::<String>(), "[\\PC\\x00-\\x1f\"\\\\]*", 0..8),
    ) {
        let value = serde_json::to_value(&object).expect("it is JSON");
        prop_assert_eq!(members(&object), rfc8785(&value));
    }

    #[test]
    fn a_digest_is_that_of_the_text_however_it_is_cut(
        pieces in prop::collection::vec("\\PC{0,3000}", 0..8),
    ) {
        let whole = pieces.concat();
        let digest = digest(|out| pieces.iter().try_for_each(|piece| out.write_str(piece)));
        prop_assert_eq!(digest, <[u8; 32]>::from(Sha256::digest(whole)));
    }
}
