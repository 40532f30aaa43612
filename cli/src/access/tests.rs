use super::*;

#[test]
fn names_are_words_and_roles_are_three() {
    for good in ["a", "Alice.B-2_c"] {
        assert_eq!(name(good), Ok(good.to_owned()));
    }
    for bad in ["", "..", "a b", "a/b", "-a", "a@b"] {
        assert!(name(bad).is_err(), "{bad}");
    }
    assert_eq!(role("operator").map(role_word), Ok("operator"));
    assert!(role("root").is_err());
}
