//! HTTP as the tests speak it: by hand, so that any bytes can be sent.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use serde_json::Value;
use simcast::config::Config;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::common::{Rig, in_time};

/// Opens everything.
pub(crate) const TOKEN: &str = "write-0123456789abcdef";
/// Lets look only.
pub(crate) const READ_TOKEN: &str = "read-0123456789abcdef";

/// One request; the connection closes after it.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    line: String,
    headers: Vec<String>,
    body: Vec<u8>,
}

impl Request {
    /// To a loopback name, without a token.
    pub(crate) fn new(method: &str, path: &str) -> Self {
        let line = format!("{method} {path} HTTP/1.1");
        let headers = vec!["Host: localhost".to_owned(), "Connection: close".to_owned()];
        Self { line, headers, body: Vec::new() }
    }

    pub(crate) fn get(path: &str) -> Self {
        Self::new("GET", path)
    }

    /// One header more.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push(format!("{name}: {value}"));
        self
    }

    /// Instead of the header of this name.
    pub(crate) fn instead(mut self, name: &str, value: &str) -> Self {
        self.headers.retain(|header| !header.starts_with(&format!("{name}:")));
        self.header(name, value)
    }

    pub(crate) fn token(self, token: &str) -> Self {
        self.header("Authorization", &format!("Bearer {token}"))
    }

    pub(crate) fn body(self, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        let body = body.into();
        let sized = self.header("Content-Length", &body.len().to_string());
        Self { body, ..sized.header("Content-Type", content_type) }
    }

    pub(crate) fn json(self, body: &str) -> Self {
        self.body("application/json", body)
    }

    /// As it goes over the wire.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let head = format!("{}\r\n{}\r\n\r\n", self.line, self.headers.join("\r\n"));
        [head.as_bytes(), &self.body].concat()
    }

    /// Sends it; gives what is answered.
    pub(crate) async fn send(&self, rig: &Rig) -> Answer {
        self.send_over(rig.tcp(rig.admin).await).await
    }

    /// The same over any connection.
    pub(crate) async fn send_over(&self, stream: impl AsyncRead + AsyncWrite + Unpin) -> Answer {
        let bytes = exchange(stream, &self.bytes()).await;
        Answer::read(&String::from_utf8(bytes).unwrap())
    }
}

/// Sends any bytes; everything that comes back, to the end.
pub(crate) async fn exchange(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    bytes: &[u8],
) -> Vec<u8> {
    let mut answer = Vec::new();
    let exchanging = async {
        // A server that has heard enough closes before it has heard all.
        let _taken_or_not = stream.write_all(bytes).await;
        let _closed_or_reset = stream.read_to_end(&mut answer).await;
    };
    in_time("an answer", exchanging).await;
    answer
}

/// An answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    fn read(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{text:?}"));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        let (status, head) = (status.unwrap_or_else(|| panic!("{head:?}")), head.to_lowercase());
        Self { status, head, body: body.to_owned() }
    }

    /// Its body, if it went well.
    #[track_caller]
    pub(crate) fn ok(&self) -> Value {
        assert!((200..300).contains(&self.status), "{self:?}");
        assert!(self.head.contains("content-type: application/json"), "{self:?}");
        assert!(self.head.contains("cache-control: no-store"), "{self:?}");
        serde_json::from_str(&self.body).unwrap()
    }

    /// The detail of the problem, if it has this status.
    #[track_caller]
    pub(crate) fn problem(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{self:?}");
        assert!(self.head.contains("content-type: application/problem+json"), "{self:?}");
        let problem: Value = serde_json::from_str(&self.body).unwrap();
        assert_eq!(problem["status"], status);
        assert!(!problem["title"].as_str().unwrap().is_empty());
        problem["detail"].as_str().unwrap().to_owned()
    }
}

/// What is at this path.
pub(crate) async fn get(rig: &Rig, path: &str) -> Value {
    Request::get(path).send(rig).await.ok()
}

/// A member of each item of a list, page by page of so many.
pub(crate) async fn pages(rig: &Rig, path: &str, limit: usize, member: &str) -> Vec<Vec<String>> {
    let separator = if path.contains('?') { '&' } else { '?' };
    let (mut pages, mut after) = (Vec::new(), String::new());
    loop {
        let page = get(rig, &format!("{path}{separator}limit={limit}{after}")).await;
        let items = page["items"].as_array().unwrap();
        let text = |value: &Value| value.as_str().map_or(value.to_string(), str::to_owned);
        pages.push(items.iter().map(|item| text(&item[member])).collect());
        let Some(next) = page["next"].as_str() else { return pages };
        after = format!("&after={next}");
    }
}

/// A file beside those of the rig that its owner alone may read.
pub(crate) fn secret(config: &Config, name: &str, text: &str) -> PathBuf {
    let beside = &config.listeners[1].tls.as_ref().unwrap().cert;
    let path = beside.with_file_name(name);
    write_secret(&path, text);
    path
}

pub(crate) fn write_secret(path: &PathBuf, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// A broker whose API wants one of the two tokens.
pub(crate) async fn rig_with_tokens() -> Rig {
    Rig::with(|config| {
        config.admin.token_file = Some(secret(config, "token", TOKEN));
        config.admin.read_token_file = Some(secret(config, "read-token", READ_TOKEN));
    })
    .await
}
