//! `simcast ctl events`: what happens, until somebody ends it.

use clap::Args;
use hyper::Method;
use serde_json::{Value, json};

use super::api::{Api, CtlError, query};
use super::output::{Output, text};
use crate::log::Shown;

/// Longest event that is taken.
const EVENT_BYTES_MAX: usize = 1 << 20;

/// Watch what happens: who comes and goes, what is refused, how registry,
/// settings and campaigns change
///
/// Ends with Ctrl-C, or with the broker.
#[derive(Debug, Args)]
pub(super) struct Events {
    /// Only these: connected, disconnected, refused, registry, campaign, control, settings
    #[arg(long, value_delimiter = ',', value_name = "TYPE,…")]
    types: Vec<String>,
}

impl Events {
    pub(super) async fn run(self, api: &Api, output: &mut Output) -> Result<(), CtlError> {
        let types = (!self.types.is_empty()).then(|| self.types.join(","));
        let path = format!("/api/v1/events{}", query(&[("types", types)]));
        let mut answer = api.open(Method::GET, &path, None).await?;
        let mut reader = Reader::default();
        while let Some(part) = answer.part().await? {
            reader.take(&part)?;
            while let Some(event) = reader.next() {
                show(output, &event)?;
            }
        }
        Err(CtlError::Foreign("the stream has ended".to_owned()))
    }
}

fn show(output: &mut Output, event: &Event) -> Result<(), CtlError> {
    let mut data: Value = serde_json::from_str(&event.data)
        .map_err(|error| CtlError::Foreign(format!("an event that is no JSON: {error}")))?;
    if output.is_json() {
        data["event"] = json!(event.name);
        return Ok(output.value(&data)?);
    }
    let members = data.as_object().into_iter().flatten();
    let members = members.filter(|(name, value)| *name != "at" && !value.is_null());
    let members: Vec<String> =
        members.map(|(name, value)| format!("{}={}", Shown(name), text(value))).collect();
    let line = format!("{} {} {}", text(&data["at"]), Shown(&event.name), members.join(" "));
    Ok(output.say(line.trim())?)
}

/// One event.
#[derive(Debug, Default, PartialEq, Eq)]
struct Event {
    name: String,
    data: String,
}

/// Takes a stream apart (WHATWG HTML, section 9.2.6).
#[derive(Debug, Default)]
struct Reader {
    bytes: Vec<u8>,
    event: Event,
}

impl Reader {
    fn take(&mut self, part: &[u8]) -> Result<(), CtlError> {
        self.bytes.extend_from_slice(part);
        if self.bytes.len() + self.event.data.len() > EVENT_BYTES_MAX {
            return Err(CtlError::Foreign("an event without an end".to_owned()));
        }
        Ok(())
    }

    /// The next whole event.
    fn next(&mut self) -> Option<Event> {
        while let Some(end) = self.bytes.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.bytes.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            let line = line.trim_end_matches(['\r', '\n']);
            if line.is_empty() {
                let event = std::mem::take(&mut self.event);
                if !event.data.is_empty() {
                    return Some(event);
                }
                continue;
            }
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "event" => self.event.name = value.to_owned(),
                "data" if self.event.data.is_empty() => self.event.data = value.to_owned(),
                "data" => self.event.data = format!("{}\n{value}", self.event.data),
                // A comment, or a field that nobody needs here.
                _other => {}
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_may_come_in_any_pieces() {
        let stream = ":\n\nevent: a\nid: 1\ndata: {}\n\n:x\n\ndata:1\r\ndata: 2\r\n\r\nevent: b\n";
        let events = [
            Event { name: "a".into(), data: "{}".into() },
            Event { name: String::new(), data: "1\n2".into() },
        ];
        for size in 1..stream.len() {
            let mut reader = Reader::default();
            let mut found = Vec::new();
            for part in stream.as_bytes().chunks(size) {
                reader.take(part).unwrap();
                found.extend(std::iter::from_fn(|| reader.next()));
            }
            assert_eq!(found, events, "{size}");
        }
    }

    #[test]
    fn an_event_without_an_end_is_not_waited_for() {
        let mut reader = Reader::default();
        reader.take(b"data: ").unwrap();
        assert!(reader.take(&vec![b'x'; EVENT_BYTES_MAX]).is_err());
    }
}
