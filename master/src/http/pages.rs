//! Lists in pages: how much is given at once, where the next part begins, and in which order.
//!
//! A cursor names the last item that was given by its place in the order, not by a number: what is
//! added or removed between two pages makes none of the others come twice or never.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proto::rest::Page;

use super::extract::Malformed;
use super::problem::ApiError;
use super::shapes::count;

/// Items in a page when nobody says.
const USUAL: u32 = 100;
/// Most items in a page.
const MOST: u32 = 1000;

/// Which part of a list is asked for.
#[derive(Debug)]
pub(super) struct Window {
    limit: usize,
    after: Option<String>,
}

/// Which way the places of a list go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// The least first.
    Rising,
    /// The greatest first.
    Falling,
}

/// One part of a list, before it has its shape.
#[derive(Debug)]
pub(super) struct Part<T> {
    items: Vec<T>,
    total: u64,
    next: Option<String>,
}

impl Window {
    /// Reads it from a query.
    pub(super) fn new(limit: Option<u32>, cursor: Option<&str>) -> Result<Self, ApiError> {
        let limit = bounded(limit, USUAL)?;
        let after = match cursor {
            None => None,
            Some(text) => Some(
                URL_SAFE_NO_PAD
                    .decode(text)
                    .ok()
                    .and_then(|bytes| String::from_utf8(bytes).ok())
                    .ok_or_else(|| malformed("cursor", "it is none of ours"))?,
            ),
        };
        Ok(Self {
            limit: usize::try_from(limit).unwrap_or(usize::MAX),
            after,
        })
    }

    /// The part of a whole list. `place` is different for each item, and its order as text is the
    /// order of the list.
    pub(super) fn cut<T>(
        &self,
        items: Vec<T>,
        place: impl Fn(&T) -> String,
        order: Order,
    ) -> Part<T> {
        let total = count(items.len());
        let mut placed: Vec<(String, T)> =
            items.into_iter().map(|item| (place(&item), item)).collect();
        placed.sort_by(|(one, _), (other, _)| match order {
            Order::Rising => one.cmp(other),
            Order::Falling => other.cmp(one),
        });
        if let Some(after) = &self.after {
            placed.retain(|(place, _)| match order {
                Order::Rising => place > after,
                Order::Falling => place < after,
            });
        }
        let more = placed.len() > self.limit;
        placed.truncate(self.limit);
        let next = placed
            .last()
            .filter(|_| more)
            .map(|(place, _)| URL_SAFE_NO_PAD.encode(place));
        Part {
            items: placed.into_iter().map(|(_, item)| item).collect(),
            total,
            next,
        }
    }
}

impl<T> Part<T> {
    /// Gives each item its shape.
    pub(super) fn map<S>(self, shape: impl FnMut(T) -> S) -> Page<S> {
        Page {
            items: self.items.into_iter().map(shape).collect(),
            total: self.total,
            next: self.next,
        }
    }
}

/// How many items a page has, of a query that may say.
pub(super) fn bounded(limit: Option<u32>, usual: u32) -> Result<u32, ApiError> {
    let limit = limit.unwrap_or(usual);
    if (1..=MOST).contains(&limit) {
        Ok(limit)
    } else {
        let message = format!("{limit} is not between 1 and {MOST}");
        Err(malformed("limit", message))
    }
}

fn malformed(path: &'static str, message: impl ToString) -> ApiError {
    ApiError::Malformed(Malformed::value(path, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(
        items: &mut Vec<u32>,
        order: Order,
        mut between: impl FnMut(&mut Vec<u32>),
    ) -> Vec<u32> {
        let mut seen = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let window = Window::new(Some(3), cursor.as_deref()).expect("a window");
            let place = |item: &u32| format!("{item:09}");
            let page = window.cut(items.clone(), place, order).map(|item| item);
            assert_eq!(page.total, count(items.len()));
            seen.extend(page.items);
            cursor = page.next;
            if cursor.is_none() {
                return seen;
            }
            between(items);
        }
    }

    #[test]
    fn pages_give_every_item_once_in_order_while_others_come_and_go() {
        let all: Vec<u32> = (0..20).map(|number| number * 10).collect();
        assert_eq!(walk(&mut all.clone(), Order::Rising, |_| {}), all);
        let falling: Vec<u32> = all.iter().rev().copied().collect();
        assert_eq!(walk(&mut all.clone(), Order::Falling, |_| {}), falling);

        let mut items = all.clone();
        let seen = walk(&mut items, Order::Falling, |items| {
            // The end of the page before, and one that no page has reached.
            items.retain(|item| ![170, 40].contains(item));
            items.push(1000);
            items.sort_unstable();
            items.dedup();
        });
        let expected: Vec<u32> = falling.into_iter().filter(|item| *item != 40).collect();
        assert_eq!(seen, expected);
    }

    #[test]
    fn a_limit_is_bounded_and_a_cursor_is_ours() {
        for (limit, cursor) in [
            (Some(0), None),
            (Some(1001), None),
            (None, Some("%")),
            (None, Some("_w")),
        ] {
            let refused = Window::new(limit, cursor).expect_err("no window");
            assert!(matches!(refused, ApiError::Malformed(_)), "{refused}");
        }
    }
}
