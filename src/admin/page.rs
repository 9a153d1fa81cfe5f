//! Lists by the page: `?limit=` and `?after=` in the request, `{"items", "next"}` in the answer.
//!
//! What `next` holds goes into the next `after`. Its form is ours alone.

use serde::Serialize;

use super::json::Json;
use super::problem::Problem;
use super::query::{Fields, FromFields};
use crate::broker::Page;

const LIMIT_DEFAULT: usize = 100;
const LIMIT_MAX: usize = 1_000;

/// Which part of a list is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    /// So many items at most.
    pub(super) limit: usize,
    /// What the `next` of the page before said.
    pub(super) after: Option<u64>,
}

/// A page of a list.
#[derive(Debug, Serialize)]
pub(super) struct Answer<T> {
    items: Vec<T>,
    next: Option<String>,
}

impl FromFields for Window {
    fn from_fields(fields: &mut Fields) -> Result<Self, Problem> {
        let limit = limit(fields)?;
        let after: Option<String> = fields.take("after", "a text")?;
        let after = after.map(|text| read(&text)).transpose()?;
        Ok(Self { limit, after })
    }
}

/// How many items are wanted at most.
pub(super) fn limit(fields: &mut Fields) -> Result<usize, Problem> {
    let limit = fields.take("limit", "a number from 1 to 1000")?.unwrap_or(LIMIT_DEFAULT);
    if (1..=LIMIT_MAX).contains(&limit) {
        return Ok(limit);
    }
    Err(Problem::bad_request("`limit` must be a number from 1 to 1000."))
}

impl Window {
    /// Where to begin, in a list whose items have places.
    pub(super) fn place(self) -> u32 {
        // Behind the last place there is nothing.
        self.after.map_or(0, |place| u32::try_from(place).unwrap_or(u32::MAX))
    }
}

impl<T: Serialize> Answer<T> {
    /// All there is.
    pub(super) fn whole(items: Vec<T>) -> Json<Self> {
        Json(Self { items, next: None })
    }

    /// Of a list that goes on in a way of its own.
    pub(super) fn part(items: Vec<T>, next: Option<String>) -> Json<Self> {
        Json(Self { items, next })
    }

    /// Of a list whose items have places.
    pub(super) fn page<P: Into<u64>>(page: Page<T, P>) -> Json<Self> {
        Json(Self { items: page.items, next: page.next.map(|place| write(place.into())) })
    }

    /// Of a list whose items have numbers of their own, in their order; `items` may hold one more
    /// than the limit.
    pub(super) fn numbered(
        mut items: Vec<T>,
        window: Window,
        number: impl Fn(&T) -> u64,
    ) -> Json<Self> {
        let more = items.len() > window.limit;
        items.truncate(window.limit);
        let next = items.last().filter(|_| more).map(|last| write(number(last)));
        Json(Self { items, next })
    }
}

fn write(place: u64) -> String {
    format!("{place:x}")
}

fn read(text: &str) -> Result<u64, Problem> {
    let known = (1..=16).contains(&text.len())
        && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let place = known.then(|| u64::from_str_radix(text, 16).ok()).flatten();
    place.ok_or_else(|| Problem::bad_request("`after` must be the `next` of the page before."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_as_it_was_written_and_in_no_other_form() {
        for place in [0, 9, 0xab, u64::MAX] {
            assert_eq!(read(&write(place)).unwrap(), place);
        }
        for text in ["", "+1", "-1", "A", "0x1", "g", " 1", "00000000000000001"] {
            assert!(read(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_numbered_page_goes_on_behind_its_last_item() {
        let window = Window { limit: 2, after: None };
        let Json(answer) = Answer::numbered(vec![5_u64, 16, 17], window, |number| *number);
        assert_eq!((answer.items, answer.next.as_deref()), (vec![5, 16], Some("10")));
        let Json(answer) = Answer::numbered(vec![5_u64, 16], window, |number| *number);
        assert_eq!((answer.items, answer.next), (vec![5, 16], None));
    }
}
