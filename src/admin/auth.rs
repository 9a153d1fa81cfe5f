//! Who may use the API (case S16).
//!
//! | configuration | who may look | who may change |
//! |---|---|---|
//! | a token, or two | whoever has one | whoever has that of `token_file` |
//! | client certificates alone | operators | operators |
//! | neither | programs on this machine | programs on this machine |
//!
//! Browsers on this machine are no such programs: a page from elsewhere must not speak through
//! them, neither under a name that it has made to mean this machine (the `Host` has to be a
//! loopback name), nor across origins (a foreign `Origin` is refused, and so is a POST that a form
//! could send).

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CACHE_CONTROL, HOST, ORIGIN, X_CONTENT_TYPE_OPTIONS};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::sync::watch;

use super::AdminState;
use super::bounded::Peer;
use super::json::media_type;
use super::problem::Problem;
use crate::config::Token;
use crate::log::Shown;

/// Bodies that a form of any page can send without asking (Fetch, section 2.2.2).
const FORM_TYPES: [&str; 3] =
    ["application/x-www-form-urlencoded", "multipart/form-data", "text/plain"];

/// The tokens that open the API.
#[derive(Debug, Default)]
pub struct Tokens {
    write: Option<Secret>,
    read: Option<Secret>,
}

/// Of a token, what is enough to know it again; of equal length for all of them.
struct Secret([u8; 32]);

/// Who may use the API.
#[derive(Debug)]
pub struct Access {
    tokens: watch::Sender<Tokens>,
    by_certificate: bool,
}

/// Who does it, as the audit log names them: the subject of an operator's certificate, `operator`
/// for whoever has the token, `local` for a program on this machine that needs none.
#[derive(Clone, Debug)]
pub(super) struct Actor(pub(super) Arc<str>);

/// What a token permits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rights {
    Read,
    Write,
}

impl Secret {
    fn of(token: &str) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
        Self(hash)
    }

    fn is(&self, other: &Self) -> bool {
        verify_slices_are_equal(&self.0, &other.0).is_ok()
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

impl Tokens {
    /// `write` opens all, `read` lets look only; without both, nobody needs one.
    #[must_use]
    pub fn new(write: Option<&Token>, read: Option<&Token>) -> Self {
        let secret = |token: &Token| Secret::of(token.secret());
        Self { write: write.map(secret), read: read.map(secret) }
    }

    fn is_empty(&self) -> bool {
        self.write.is_none() && self.read.is_none()
    }

    /// Takes as long for a wrong one as for a right one.
    fn rights(&self, given: &str) -> Option<Rights> {
        let given = Secret::of(given);
        let is = |own: &Option<Secret>| own.as_ref().is_some_and(|own| own.is(&given));
        let (write, read) = (is(&self.write), is(&self.read));
        write.then_some(Rights::Write).or(read.then_some(Rights::Read))
    }
}

impl Access {
    /// With `by_certificate`, every connection has to be an operator's.
    #[must_use]
    pub fn new(tokens: Tokens, by_certificate: bool) -> Self {
        Self { tokens: watch::Sender::new(tokens), by_certificate }
    }

    /// Other tokens from now on; what was opened with the old ones ends.
    pub fn replace(&self, tokens: Tokens) {
        self.tokens.send_replace(tokens);
    }

    /// Whether the API asks for a token.
    pub(super) fn asks_for_token(&self) -> bool {
        !self.tokens.borrow().is_empty()
    }

    /// Who somebody is that was let in: of whom there is a certificate by its subject, of whom
    /// there is a token as any who has it.
    fn actor(&self, peer: &Peer) -> Actor {
        let other = if self.asks_for_token() { "operator" } else { "local" };
        Actor(peer.operator.clone().unwrap_or_else(|| other.into()))
    }

    /// Resolves once the tokens are others.
    pub(super) fn watch(&self) -> watch::Receiver<Tokens> {
        self.tokens.subscribe()
    }

    fn check(&self, peer: &Peer, method: &Method, headers: &HeaderMap) -> Result<(), Problem> {
        if self.by_certificate && peer.operator.is_none() {
            return Err(forbidden("The client certificate is not that of an operator."));
        }
        if self.asks_for_token() {
            self.check_token(method, headers)?;
        } else if !self.by_certificate {
            check_loopback(peer, headers)?;
        }
        check_origin(headers)
    }

    fn check_token(&self, method: &Method, headers: &HeaderMap) -> Result<(), Problem> {
        let detail = match bearer(headers).map(|given| self.tokens.borrow().rights(given)) {
            Some(Some(Rights::Write)) => return Ok(()),
            Some(Some(Rights::Read)) if !changes(method) => return Ok(()),
            Some(Some(Rights::Read)) => {
                return Err(forbidden("This token lets look only; use that of `token_file`."));
            }
            Some(None) => "This is not the token of this broker.",
            None => "Say \"Authorization: Bearer\" and the token of `[admin] token_file`.",
        };
        Err(Problem::new(StatusCode::UNAUTHORIZED, "Token needed", detail))
    }
}

/// Stands before every resource of the API.
pub(super) async fn guard(
    State(state): State<Arc<AdminState>>,
    mut request: Request,
    next: Next,
) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let peer = request.extensions().get::<Peer>().cloned();
    let peer = peer.expect("every connection says who is there");
    let mut response = match state.access.check(&peer, &method, request.headers()) {
        Ok(()) => {
            request.extensions_mut().insert(state.access.actor(&peer));
            let response = next.run(request).await;
            if changes(&method) { when_written(&state, response).await } else { response }
        }
        Err(problem) => {
            let response = problem.into_response();
            note_refused(&state, &peer, &method, &path, response.status());
            response
        }
    };
    if changes(&method) && !response.status().is_client_error() {
        let (path, status) = (Shown(&path), response.status().as_u16());
        tracing::info!(peer = %peer.address, %method, %path, status, "admin");
    }
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

fn note_refused(state: &AdminState, peer: &Peer, method: &Method, path: &str, status: StatusCode) {
    if let Some(repeats) = state.broker.complain("admin_refused") {
        let (path, status, repeats) = (Shown(path), status.as_u16(), repeats.field());
        tracing::warn!(peer = %peer.address, %method, %path, status, repeats, "admin: refused");
    }
}

/// What an operator has changed is there after a crash, as soon as that is said.
async fn when_written(state: &AdminState, response: Response) -> Response {
    match tokio::time::timeout(STORE_PATIENCE, state.broker.all_written()).await {
        Ok(()) => response,
        Err(_elapsed) => Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "Not written",
            "It is done, but the store cannot be written: it may be undone by a restart before \
             that. See /readyz?verbose.",
        )
        .into_response(),
    }
}

/// How long an operator waits for the disk.
const STORE_PATIENCE: Duration = Duration::from_secs(10);

fn changes(method: &Method) -> bool {
    !matches!(*method, Method::GET | Method::HEAD)
}

fn forbidden(detail: &str) -> Problem {
    Problem::new(StatusCode::FORBIDDEN, "Forbidden", detail)
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = only(headers, AUTHORIZATION.as_str())?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// The value of a header that is there once.
fn only<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    if values.next().is_some() { None } else { value.to_str().ok() }
}

fn check_loopback(peer: &Peer, headers: &HeaderMap) -> Result<(), Problem> {
    if !peer.address.ip().to_canonical().is_loopback() {
        return Err(forbidden("Without `[admin] token_file` the API is for this machine alone."));
    }
    let host = only(headers, HOST.as_str()).and_then(|host| host.parse::<Authority>().ok());
    if host.is_some_and(|host| is_loopback_name(host.host())) {
        return Ok(());
    }
    Err(forbidden(
        "Without `[admin] token_file` the API has to be called localhost or by a loopback address.",
    ))
}

fn is_loopback_name(host: &str) -> bool {
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host.eq_ignore_ascii_case("localhost")
        || address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn check_origin(headers: &HeaderMap) -> Result<(), Problem> {
    if headers.contains_key(ORIGIN) && !is_same_origin(headers) {
        return Err(forbidden("Pages from elsewhere may not use the API."));
    }
    Ok(())
}

/// Stands before every POST: a form of a page from elsewhere needs no answer of ours to be sent.
pub(super) async fn no_form(request: Request, next: Next) -> Response {
    match check_no_form(request.headers()) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

fn check_no_form(headers: &HeaderMap) -> Result<(), Problem> {
    let is = |given: &str| FORM_TYPES.iter().any(|form| form.eq_ignore_ascii_case(given));
    if media_type(headers).is_some_and(|given| !is(given)) {
        return Ok(());
    }
    let detail = "Say \"Content-Type: application/json\", or text/csv for a registry file.";
    let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
    Err(Problem::new(status, "Unsupported media type", detail))
}

fn is_same_origin(headers: &HeaderMap) -> bool {
    let host = only(headers, HOST.as_str());
    let origin = only(headers, ORIGIN.as_str()).and_then(|origin| origin.split_once("://"));
    matches!((host, origin), (Some(host), Some((_, origin))) if host.eq_ignore_ascii_case(origin))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_are_loopback_names() {
        // case S16
        for name in ["localhost", "LOCALHOST", "127.0.0.1", "127.9.9.9", "[::1]"] {
            assert!(is_loopback_name(name), "{name}");
        }
        for name in [
            "",
            "localhost.evil.example",
            "evil.example",
            "127.0.0.1.evil.example",
            "0.0.0.0",
            "192.0.2.1",
            "[::]",
            "[::ffff:192.0.2.1]",
            "localhost.",
        ] {
            assert!(!is_loopback_name(name), "{name}");
        }
    }

    #[test]
    fn an_origin_is_ours_when_it_is_where_the_request_went() {
        // case S16
        let headers = |pairs: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.append(*name, HeaderValue::from_static(value));
            }
            headers
        };
        let check = |pairs: &[_]| check_origin(&headers(pairs)).is_ok();
        assert!(check(&[("host", "localhost:9883")]));
        assert!(check(&[("host", "localhost:9883"), ("origin", "http://LOCALHOST:9883")]));
        for origin in [
            "null",
            "",
            "http://localhost",
            "http://localhost:1",
            "http://evil.example",
            "localhost:9883",
        ] {
            assert!(!check(&[("host", "localhost:9883"), ("origin", origin)]), "{origin}");
        }
        let twice = [("host", "a"), ("origin", "http://a"), ("origin", "http://evil.example")];
        assert!(!check(&twice));
        assert!(!check(&[("origin", "http://a")]), "without a host nothing is ours");
    }

    #[test]
    fn a_form_cannot_post() {
        // case S16
        let post = |content_type: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("content-type", HeaderValue::from_static(content_type));
            check_no_form(&headers).is_ok()
        };
        assert!(post("application/json; charset=utf-8") && post("text/csv"));
        for form in FORM_TYPES {
            assert!(!post(form), "{form}");
        }
        assert!(!post("Text/Plain;charset=utf-8"));
        assert!(check_no_form(&HeaderMap::new()).is_err());
    }

    #[test]
    fn tokens_are_told_apart_and_not_printed() {
        // cases S16, S18
        let tokens = Tokens { write: Some(Secret::of("write")), read: Some(Secret::of("read")) };
        assert_eq!(tokens.rights("write"), Some(Rights::Write));
        assert_eq!(tokens.rights("read"), Some(Rights::Read));
        assert_eq!(tokens.rights(""), None);
        assert_eq!(tokens.rights("writ"), None);
        assert!(format!("{tokens:?}").len() < 80, "{tokens:?}");
        assert!(Tokens::default().rights("").is_none());
    }
}
