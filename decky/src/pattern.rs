//! Matches names against patterns of `*` and `?`, as shells and key-value stores do.

use crate::budget::Budget;

/// Whether `name` matches `pattern`. Takes a unit for each step, in the worst case as many as the
/// product of both lengths; a name that it cannot finish with does not match.
pub(crate) fn matches(pattern: &[u8], name: &[u8], budget: &Budget) -> bool {
    let (mut p, mut n) = (0, 0);
    // Where to go on after a mismatch: behind the last `*`, one byte later in the name.
    let mut retry = None;
    while budget.spend(1) {
        match (pattern.get(p), name.get(n)) {
            (None, None) => return true,
            (Some(b'*'), _) => {
                p += 1;
                if p == pattern.len() {
                    return true;
                }
                retry = Some((p, n + 1));
            }
            (Some(wanted), Some(found)) if *wanted == b'?' || wanted == found => {
                p += 1;
                n += 1;
            }
            (_, None) => return false,
            (_, Some(_)) => match &mut retry {
                Some((after, from)) => {
                    (p, n) = (*after, *from);
                    *from += 1;
                }
                None => return false,
            },
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn plain(pattern: &[u8], name: &[u8]) -> bool {
        match (pattern.split_first(), name.split_first()) {
            (None, None) => true,
            (Some((b'*', rest)), _) => (0..=name.len()).any(|at| plain(rest, &name[at..])),
            (Some((wanted, pattern)), Some((found, name))) => {
                (*wanted == b'?' || wanted == found) && plain(pattern, name)
            }
            (None | Some(_), _) => false,
        }
    }

    /// Whether it matches, and in how many steps.
    fn counted(pattern: &[u8], name: &[u8]) -> (bool, usize) {
        const ENOUGH: usize = 1 << 40;
        let budget = Budget::of(ENOUGH);
        let matched = matches(pattern, name, &budget);
        (matched, ENOUGH - budget.left())
    }

    #[test]
    fn an_ordinary_pattern_takes_about_a_step_for_each_byte() {
        let name = "session:0123456789abcdef".repeat(40);
        for pattern in ["*", "session:*", "*cdef", "*:0123*", "?ession*f"] {
            let (matched, steps) = counted(pattern.as_bytes(), name.as_bytes());
            assert!(matched, "{pattern}");
            assert!(
                steps <= 2 * name.len() + pattern.len(),
                "{pattern}: {steps}"
            );
        }
    }

    #[test]
    fn it_ends_with_its_budget_whatever_it_is_asked() {
        let name = vec![b'a'; 128 * 1024];
        let almost = [b"*".to_vec(), vec![b'a'; 65_000], b"b".to_vec()].concat();
        let stars = vec![b'*'; 64 * 1024 - 1];
        let starred = [stars, b"b".to_vec()].concat();
        for pattern in [almost, starred] {
            let budget = Budget::of(100_000);
            assert!(!matches(&pattern, &name, &budget));
            assert!(budget.is_spent());
            // Nothing more is done with what is spent.
            assert!(!matches(b"a*", &name, &budget));
        }
    }

    proptest! {
        #[test]
        fn it_matches_what_the_plain_definition_matches(
            pattern in "[ab*?]{0,8}",
            name in "[abc]{0,10}",
        ) {
            let (matched, steps) = counted(pattern.as_bytes(), name.as_bytes());
            prop_assert_eq!(matched, plain(pattern.as_bytes(), name.as_bytes()));
            prop_assert!(steps <= (pattern.len() + 1) * (name.len() + 1) + pattern.len() + 1);
        }
    }
}
