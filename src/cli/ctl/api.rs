//! The API as commands use it: JSON in and out, lists of any length, problems as errors.

use std::io;

use bytes::Bytes;
use hyper::{Method, StatusCode};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use crate::client::http::{Answer, Http, HttpError};

/// Items to ask for at once.
const PAGE_ITEMS_MAX: usize = 1_000;

/// What may stand in a path or a query as it is (RFC 3986, section 2.3).
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Why a command did not do its work.
#[derive(Debug, thiserror::Error)]
pub(super) enum CtlError {
    /// No answer.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// What came over http was no HTTP.
    #[error("{0}; if the broker speaks TLS there, say https:// in --url, and --ca")]
    PerhapsTls(HttpError),
    /// Over https, without a certificate of ours, no answer came.
    #[error("{0}; if the broker wants an operator's certificate, say --cert and --key")]
    PerhapsCertificate(HttpError),
    /// The broker says no; as it says it.
    #[error("{title}: {detail}")]
    Problem {
        title: String,
        detail: String,
        /// All of it.
        whole: Value,
    },
    /// Whoever answers is no simcast.
    #[error("not the answer of a broker: {0}")]
    Foreign(String),
    /// A file of ours cannot be read.
    #[error("{path}: {source}")]
    Unreadable { path: String, source: io::Error },
    /// Some lines of a registry file are broken.
    #[error("broken lines: {0}")]
    BrokenLines(u64),
    /// A name that the broker does not give.
    #[error("there is no refusal {0:?}; `simcast ctl explain` lists all")]
    NoSuchRefusal(String),
    /// Nobody takes what we say.
    #[error("{0}")]
    Output(#[from] io::Error),
}

/// The API of a broker.
pub(super) struct Api {
    http: Http,
    means: Means,
}

/// What we show to the broker, for advice where that is not enough.
#[derive(Clone, Copy, Debug)]
pub(super) struct Means {
    /// Goes over TLS.
    pub(super) over_tls: bool,
    pub(super) certificate: bool,
    pub(super) token: bool,
}

/// What to do without a token where one is wanted.
const SAY_TOKEN: &str = "Say --token-file and the file with the token of the broker.";

impl Means {
    /// The error, with what may help against it.
    fn advise(self, error: HttpError) -> CtlError {
        match error {
            HttpError::Broken(ref why) if !self.over_tls && why.is_parse() => {
                CtlError::PerhapsTls(error)
            }
            HttpError::Broken(_) if self.over_tls && !self.certificate => {
                CtlError::PerhapsCertificate(error)
            }
            other => other.into(),
        }
    }
}

impl Api {
    pub(super) fn new(http: Http, means: Means) -> Self {
        Self { http, means }
    }

    /// What is at this path.
    pub(super) async fn get(&self, path: &str) -> Result<Value, CtlError> {
        self.call(Method::GET, path, None).await
    }

    /// Any request with a JSON body or none; the JSON of the answer, null where it has none.
    pub(super) async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, CtlError> {
        let body = body.map(|body| ("application/json", Bytes::from(body.to_string())));
        self.send(method, path, body).await
    }

    /// The same with a body of any type.
    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<(&'static str, Bytes)>,
    ) -> Result<Value, CtlError> {
        let bytes = self.open(method, path, body).await?.whole().await?;
        if bytes.is_empty() { Ok(Value::Null) } else { json(&bytes) }
    }

    /// The same; the body of the answer is still to be read.
    pub(super) async fn open(
        &self,
        method: Method,
        path: &str,
        body: Option<(&'static str, Bytes)>,
    ) -> Result<Answer, CtlError> {
        let answer = self.http.send(method, path, body).await;
        let answer = answer.map_err(|error| self.means.advise(error))?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let status = answer.status();
        if answer.media_type() != "application/problem+json" {
            return Err(CtlError::Foreign(format!("status {status}")));
        }
        let whole = json(&answer.whole().await?)?;
        let text = |name: &str| whole[name].as_str().unwrap_or_default().to_owned();
        let detail = match status {
            StatusCode::UNAUTHORIZED if !self.means.token => SAY_TOKEN.to_owned(),
            _other => text("detail"),
        };
        Err(CtlError::Problem { title: text("title"), detail, whole })
    }

    /// Each page of a list, to `limit` items in all. `path` may have a query.
    pub(super) async fn pages(
        &self,
        path: &str,
        limit: Option<usize>,
        mut each: impl FnMut(&[Value]) -> io::Result<()>,
    ) -> Result<(), CtlError> {
        let mut left = limit.unwrap_or(usize::MAX);
        let mut after = String::new();
        while left > 0 {
            let separator = if path.contains('?') { '&' } else { '?' };
            let wanted = left.min(PAGE_ITEMS_MAX);
            let page = self.get(&format!("{path}{separator}limit={wanted}{after}")).await?;
            let items = page["items"].as_array();
            let items = items.ok_or_else(|| CtlError::Foreign("a list without items".into()))?;
            each(items)?;
            left = left.saturating_sub(items.len());
            let Some(next) = page["next"].as_str() else { break };
            after = format!("&after={}", escaped(next));
        }
        Ok(())
    }
}

/// A text as a part of a path or as a value in a query.
pub(super) fn escaped(text: &str) -> String {
    // Alone, these two would be steps within the path.
    match text {
        "." => "%2E".to_owned(),
        ".." => "%2E%2E".to_owned(),
        _other => utf8_percent_encode(text, RESERVED).to_string(),
    }
}

/// A query of the fields that have a value, with its `?`.
pub(super) fn query(fields: &[(&str, Option<String>)]) -> String {
    let given = fields.iter().filter_map(|(name, value)| Some((name, value.as_ref()?)));
    let pairs: Vec<String> =
        given.map(|(name, value)| format!("{name}={}", escaped(value))).collect();
    if pairs.is_empty() { String::new() } else { format!("?{}", pairs.join("&")) }
}

fn json(bytes: &[u8]) -> Result<Value, CtlError> {
    serde_json::from_slice(bytes).map_err(|error| CtlError::Foreign(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_their_place_in_an_address() {
        assert_eq!(escaped("a/b c?d&é"), "a%2Fb%20c%3Fd%26%C3%A9");
        assert_eq!((escaped(".."), escaped("a.b")), ("%2E%2E".to_owned(), "a.b".to_owned()));
        assert_eq!(query(&[("a", None)]), "");
        assert_eq!(query(&[("a", None), ("b", Some("1&2".into()))]), "?b=1%262");
    }
}
