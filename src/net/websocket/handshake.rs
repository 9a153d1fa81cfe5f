//! The opening handshake of RFC 6455: one HTTP request, judged and answered.

use std::io;

use aws_lc_rs::digest;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::net::greeting::{WrongPort, wrong_port};

/// What a listener asks of the handshake.
#[derive(Clone, Debug)]
pub(in crate::net) struct HandshakeRules {
    /// Pages that may connect; any, where none is named.
    pub(in crate::net) origins: Vec<String>,
    /// Longest request, in bytes.
    pub(in crate::net) request_bytes_max: usize,
}

/// Why there is no WebSocket.
#[derive(Debug, thiserror::Error)]
pub(in crate::net) enum HandshakeError {
    #[error(transparent)]
    WrongPort(WrongPort),
    #[error("MQTT on a WebSocket port; connect with a WebSocket, or to the MQTT port")]
    Mqtt,
    #[error("closed within the WebSocket handshake")]
    Closed,
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("WebSocket handshake refused: {}", .0.text())]
    Refused(Refusal),
}

/// What the client is told over HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::net) enum Refusal {
    NotHttp,
    TooLarge,
    Method,
    NoUpgrade,
    Version,
    Key,
    Subprotocol,
    Origin,
}

/// Header lines of one request.
const HEADERS_MAX: usize = 64;
/// What RFC 6455 (1.3) appends to the client's key.
const KEY_SUFFIX: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// Bytes of the client's key behind its base64.
const KEY_BYTES: usize = 16;
/// Names that MQTT has as a subprotocol, the second one from before it was registered.
const SUBPROTOCOLS: [&str; 2] = ["mqtt", "mqttv3.1"];

/// Reads the client's request and answers it. Gives what has come behind it.
///
/// # Errors
/// [`HandshakeError`]; a client that speaks HTTP has been told.
pub(in crate::net) async fn shake_hands<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    rules: &HandshakeRules,
) -> Result<Bytes, HandshakeError> {
    let mut read = BytesMut::new();
    let judged = match read_request(stream, rules, &mut read).await? {
        Ok(len) => {
            let request = read.split_to(len);
            judge(&request, rules)
        }
        Err(refusal) => Err(refusal),
    };
    match judged {
        Ok(agreed) => {
            stream.write_all(agreed.response().as_bytes()).await?;
            stream.flush().await?;
            Ok(if read.is_empty() { Bytes::new() } else { read.freeze() })
        }
        Err(refusal) => {
            stream.write_all(refusal.response().as_bytes()).await?;
            Err(HandshakeError::Refused(refusal))
        }
    }
}

/// Reads to the end of the request's head; gives its length.
async fn read_request<S: AsyncRead + Unpin>(
    stream: &mut S,
    rules: &HandshakeRules,
    read: &mut BytesMut,
) -> Result<Result<usize, Refusal>, HandshakeError> {
    const END: &[u8] = b"\r\n\r\n";
    loop {
        let before = read.len();
        if before >= rules.request_bytes_max {
            return Ok(Err(Refusal::TooLarge));
        }
        let room = (rules.request_bytes_max - before) as u64;
        if (&mut *stream).take(room).read_buf(read).await? == 0 {
            return Err(HandshakeError::Closed);
        }
        if read[0] == MQTT_CONNECT {
            return Err(HandshakeError::Mqtt);
        }
        if let Some(wrong) = wrong_port(read).filter(|wrong| *wrong != WrongPort::Http) {
            return Err(HandshakeError::WrongPort(wrong));
        }
        let from = before.saturating_sub(END.len() - 1);
        let end = read[from..].windows(END.len()).position(|window| window == END);
        if let Some(at) = end {
            return Ok(Ok(from + at + END.len()));
        }
    }
}

/// First byte of every CONNECT; no method of HTTP begins with it.
const MQTT_CONNECT: u8 = 0x10;

/// A request that is in order.
#[derive(Debug, PartialEq, Eq)]
struct Agreed {
    key: String,
    subprotocol: &'static str,
}

fn judge(request: &[u8], rules: &HandshakeRules) -> Result<Agreed, Refusal> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut parsed = httparse::Request::new(&mut headers);
    match parsed.parse(request) {
        Ok(httparse::Status::Complete(_)) => {}
        Err(httparse::Error::TooManyHeaders) => return Err(Refusal::TooLarge),
        Ok(httparse::Status::Partial) | Err(_) => return Err(Refusal::NotHttp),
    }
    if parsed.method != Some("GET") {
        return Err(Refusal::Method);
    }
    let headers = Headers(parsed.headers);
    if parsed.version != Some(1)
        || !headers.lists("connection", |token| token.eq_ignore_ascii_case("upgrade"))
        || !headers.lists("upgrade", |token| token.eq_ignore_ascii_case("websocket"))
    {
        return Err(Refusal::NoUpgrade);
    }
    if headers.only("sec-websocket-version") != Some("13") {
        return Err(Refusal::Version);
    }
    let key = headers.only("sec-websocket-key").ok_or(Refusal::Key)?;
    if BASE64_STANDARD.decode(key).map_or(0, |key| key.len()) != KEY_BYTES {
        return Err(Refusal::Key);
    }
    // Browsers always say which page connects; devices have none and say nothing.
    if !rules.origins.is_empty() && headers.has("origin") {
        let origin = headers.only("origin").ok_or(Refusal::Origin)?;
        if !rules.origins.iter().any(|known| known.eq_ignore_ascii_case(origin)) {
            return Err(Refusal::Origin);
        }
    }
    // [MQTT-6.0.0-3], [MQTT-6.0.0-4]
    let offered = |name: &&str| headers.lists("sec-websocket-protocol", |token| token == *name);
    let subprotocol = SUBPROTOCOLS.into_iter().find(offered).ok_or(Refusal::Subprotocol)?;
    Ok(Agreed { key: key.to_owned(), subprotocol })
}

/// The header lines of a request.
struct Headers<'a>(&'a [httparse::Header<'a>]);

impl<'a> Headers<'a> {
    fn values(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        let named = self.0.iter().filter(move |header| header.name.eq_ignore_ascii_case(name));
        named.map(|header| header.value.trim_ascii())
    }

    fn has(&self, name: &str) -> bool {
        self.values(name).next().is_some()
    }

    /// The value of a header that stands there once.
    fn only(&self, name: &str) -> Option<&'a str> {
        let mut values = self.values(name);
        let value = values.next()?;
        if values.next().is_some() {
            return None;
        }
        std::str::from_utf8(value).ok()
    }

    /// Whether a header that is a list, on one line or on several, has such an element.
    fn lists(&self, name: &str, wanted: impl Fn(&str) -> bool) -> bool {
        let texts = self.values(name).filter_map(|value| std::str::from_utf8(value).ok());
        texts.flat_map(|text| text.split(',')).any(|token| wanted(token.trim()))
    }
}

impl Agreed {
    fn response(&self) -> String {
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {}\r\nSec-WebSocket-Protocol: {}\r\n\r\n",
            accept_key(&self.key),
            self.subprotocol
        )
    }
}

/// Proves that the key was read by somebody who speaks WebSocket (RFC 6455, 4.2.2). No secret
/// depends on SHA-1 here.
fn accept_key(key: &str) -> String {
    let mut hash = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    hash.update(key.as_bytes());
    hash.update(KEY_SUFFIX);
    BASE64_STANDARD.encode(hash.finish())
}

impl Refusal {
    fn status(self) -> &'static str {
        match self {
            Self::NotHttp | Self::Key | Self::Subprotocol => "400 Bad Request",
            Self::Origin => "403 Forbidden",
            Self::Method => "405 Method Not Allowed",
            Self::NoUpgrade | Self::Version => "426 Upgrade Required",
            Self::TooLarge => "431 Request Header Fields Too Large",
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::NotHttp => "this is no HTTP request; connect with a WebSocket (RFC 6455)",
            Self::TooLarge => "the request is longer than this broker takes; send fewer headers",
            Self::Method => "only GET opens a WebSocket",
            Self::NoUpgrade => {
                "this is the WebSocket port of an MQTT broker; connect with an MQTT client over \
                 WebSocket"
            }
            Self::Version => "only version 13 of WebSocket is spoken here (RFC 6455)",
            Self::Key => "Sec-WebSocket-Key is not 16 bytes in base64, once",
            Self::Subprotocol => {
                "offer the subprotocol mqtt: the header Sec-WebSocket-Protocol: mqtt is missing"
            }
            Self::Origin => "pages of this origin may not connect (websocket_origins)",
        }
    }

    fn response(self) -> String {
        let more = match self {
            Self::Method => "Allow: GET\r\n",
            Self::NoUpgrade => "Upgrade: websocket\r\n",
            Self::Version => "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
            Self::NotHttp | Self::TooLarge | Self::Key | Self::Subprotocol | Self::Origin => "",
        };
        let (status, text) = (self.status(), self.text());
        format!(
            "HTTP/1.1 {status}\r\n{more}Connection: close\r\n\
             Content-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\r\n{text}\n",
            text.len() + 1
        )
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEAD: &str = "GET /mqtt HTTP/1.1\r\nHost: b\r\nConnection: keep-alive, Upgrade\r\n\
        Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nOrigin: https://a.example\r\n\
        Sec-WebSocket-Protocol: mqttv3.1, mqtt\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

    fn rules() -> HandshakeRules {
        let origins = vec!["https://a.example".to_owned()];
        HandshakeRules { origins, request_bytes_max: 8192 }
    }

    /// What a client reads, and whether it has got a WebSocket.
    fn answered(request: &[u8]) -> (Vec<u8>, bool) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (mut near, mut far) = tokio::io::duplex(1 << 14);
            far.write_all(request).await.unwrap();
            far.shutdown().await.unwrap();
            let agreed = shake_hands(&mut near, &rules()).await.is_ok();
            drop(near);
            let mut answer = Vec::new();
            far.read_to_end(&mut answer).await.unwrap();
            (answer, agreed)
        })
    }

    #[test]
    fn the_example_of_the_rfc() {
        let (answer, agreed) = answered(HEAD.as_bytes());
        let answer = String::from_utf8(answer).unwrap();
        assert!(agreed && answer.contains("Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{answer}");
        assert!(answer.ends_with("Protocol: mqtt\r\n\r\n"), "{answer}");
    }

    proptest! {
        // case P31
        #[test]
        fn a_changed_request_is_answered_in_one_way_and_never_in_its_own_words(
            at in 0..HEAD.len(),
            removed in 0..60_usize,
            text in "[ -~]{0,20}(\r\n[A-Za-z-]{0,8}:[ -~]{0,30}\r\n)?|[\\x00-\\xff]{0,4}",
        ) {
            let mut request = HEAD.as_bytes().to_vec();
            let end = (at + removed).min(request.len());
            request.splice(at..end, text.bytes());
            let (answer, agreed) = answered(&request);
            prop_assert_eq!(agreed, answer.starts_with(b"HTTP/1.1 101 "));
            let answer = String::from_utf8(answer).unwrap();
            let refused = answer.starts_with("HTTP/1.1 4") && answer.contains("Connection: close");
            prop_assert!(agreed || refused || answer.is_empty(), "{}", answer);
            // Nothing of the request but the digest of its key comes back.
            let lines = answer.split("\r\n").count();
            prop_assert!(!agreed || lines == 7, "{}", answer);
        }
    }
}
