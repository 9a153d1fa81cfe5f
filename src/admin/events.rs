//! `/api/v1/events`: what happens in the broker, as server-sent events (WHATWG HTML, section 9.2).
//!
//! `event:` is the name of the event, `id:` its number, `data:` JSON. A reader that is too slow
//! gets a `lagged` event with the number of those it has missed.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::http::Method;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::unfold;
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::AdminState;
use super::auth::Tokens;
use super::bounded::Lifetime;
use super::problem::Problem;
use super::query::{Fields, FromFields, Query};
use super::resource::Resource;
use crate::broker::{BrokerEvent, EventListener, Heard, Occurrence};

/// Streams at once; less than the connections there may be, so that others have some left.
const STREAMS_MAX: usize = 32;

/// A comment in this time where nothing happens: who has gone is noticed, and proxies are kept
/// from closing.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

pub(super) fn resource() -> Resource {
    Resource::new(include_str!("openapi/events.json")).on(Method::GET, "/api/v1/events", stream)
}

/// The places for streams.
pub(super) fn places() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(STREAMS_MAX))
}

/// Which events are wanted; all, where none is named.
struct EventsQuery {
    types: Option<Vec<String>>,
}

impl FromFields for EventsQuery {
    fn from_fields(fields: &mut Fields) -> Result<Self, Problem> {
        let Some(types) = fields.take::<String>("types", "a text")? else {
            return Ok(Self { types: None });
        };
        let types: Vec<String> = types.split(',').map(|name| name.trim().to_owned()).collect();
        match types.iter().find(|name| !BrokerEvent::NAMES.contains(&name.as_str())) {
            None => Ok(Self { types: Some(types) }),
            Some(other) => {
                let known = BrokerEvent::NAMES.join(", ");
                Err(Problem::bad_request(format!("`{other}` is no type of event; use {known}.")))
            }
        }
    }
}

/// A reader of events.
struct Feed {
    listener: EventListener,
    types: Option<Vec<String>>,
    tokens: watch::Receiver<Tokens>,
    _place: OwnedSemaphorePermit,
}

async fn stream(
    State(state): State<Arc<AdminState>>,
    Extension(lifetime): Extension<Lifetime>,
    Query(EventsQuery { types }): Query<EventsQuery>,
) -> Result<Response, Problem> {
    let place = Arc::clone(&state.streams).try_acquire_owned();
    let busy = |_| Problem::busy(format!("{STREAMS_MAX} streams are open; close one."));
    let place = place.map_err(busy)?;
    lifetime.extend();
    let listener = state.broker.listen();
    let feed = Feed { listener, types, tokens: state.access.watch(), _place: place };
    let events = unfold(feed, |mut feed| async {
        let event = feed.next().await?;
        Some((Ok::<_, Infallible>(event), feed))
    });
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE);
    Ok(Sse::new(events).keep_alive(keep_alive).into_response())
}

impl Feed {
    async fn next(&mut self) -> Option<Event> {
        loop {
            let heard = tokio::select! {
                heard = self.listener.next() => heard?,
                // Whoever had an old token may have the new one, and comes again.
                _others = self.tokens.changed() => return None,
            };
            match heard {
                Heard::Event(occurrence) if self.wants(&occurrence.event) => {
                    return Some(event(&occurrence));
                }
                Heard::Event(_) => {}
                Heard::Missed(missed) => {
                    let data = json!({ "missed": missed }).to_string();
                    return Some(Event::default().event("lagged").data(data));
                }
            }
        }
    }

    fn wants(&self, event: &BrokerEvent) -> bool {
        self.types.as_ref().is_none_or(|types| types.iter().any(|name| name == event.name()))
    }
}

fn event(occurrence: &Occurrence) -> Event {
    let event = Event::default().event(occurrence.event.name());
    event.id(occurrence.number.to_string()).data(json!(occurrence).to_string())
}
