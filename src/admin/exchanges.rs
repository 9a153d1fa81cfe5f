//! `/api/v1/exchanges`: the profile changes between two devices that are open or remembered.

use std::sync::Arc;

use axum::extract::State;
use axum::http::Method;

use super::AdminState;
use super::json::Json;
use super::page::{Answer, limit};
use super::problem::Problem;
use super::query::{Fields, FromFields, Query};
use super::resource::Resource;
use crate::broker::ExchangeInfo;
use crate::ids::{Nid, NidScheme};
use crate::rsp::Pair;

pub(super) fn resource() -> Resource {
    Resource::new(include_str!("openapi/exchanges.json")).on(Method::GET, "/api/v1/exchanges", list)
}

/// A pair takes more than the number that other lists go on behind.
struct ListQuery {
    limit: usize,
    behind: Option<Pair>,
}

impl FromFields for ListQuery {
    fn from_fields(fields: &mut Fields) -> Result<Self, Problem> {
        let after: Option<String> = fields.take("after", "a text")?;
        let detail = "`after` must be the `next` of the page before.";
        let read = |text: String| read(&text).ok_or_else(|| Problem::bad_request(detail));
        Ok(Self { limit: limit(fields)?, behind: after.map(read).transpose()? })
    }
}

async fn list(
    State(state): State<Arc<AdminState>>,
    Query(ListQuery { limit, behind }): Query<ListQuery>,
) -> Json<Answer<ExchangeInfo>> {
    let page = state.broker.exchanges_page(behind, limit);
    Answer::part(page.items, page.next.flatten().map(write))
}

fn write(pair: Pair) -> String {
    format!("{}-{}", pair.from, pair.to)
}

fn read(text: &str) -> Option<Pair> {
    let (from, to) = text.split_once('-')?;
    let nid = |digits: &str| Nid::parse(digits, NidScheme::Decimal).ok();
    Some(Pair { from: nid(from)?, to: nid(to)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_goes_on_behind_the_pair_that_was_written() {
        let nid = |number| Nid::new(number, NidScheme::Decimal).unwrap();
        for (from, to) in [(1, 2), (u128::MAX, 7)] {
            let pair = Pair { from: nid(from), to: nid(to) };
            assert_eq!(read(&write(pair)), Some(pair));
        }
        for text in ["", "-", "1", "1-", "-1", "0-1", "1-2-3", "+1-2", "a-b"] {
            assert_eq!(read(text), None, "{text:?}");
        }
    }
}
