//! HTTP towards the admin side of a broker: one connection for each request, so that none is
//! closed while it is used.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use hyper::http::uri::{PathAndQuery, Scheme};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::tls::{self, TlsError, TlsIdentity};

/// To connect.
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);
/// For the head of an answer; a large registry file takes its time.
const ANSWER_PATIENCE: Duration = Duration::from_secs(600);
/// For each part of a body. A stream of events is never silent for so long.
const PART_PATIENCE: Duration = Duration::from_secs(60);
/// Largest answer that is taken whole.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// What was given as address is none.
    #[error("{0:?} is no address such as http://127.0.0.1:9883")]
    Address(String),
    /// Whom to trust has to be said.
    #[error("https needs --ca: the CA that has issued the broker's certificate")]
    NeedsCa,
    /// No connection.
    #[error("cannot connect to {address}: {source}")]
    Unreachable {
        /// Host and port.
        address: String,
        /// What the system or TLS said.
        source: io::Error,
    },
    /// Certificates, keys.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// It takes too long.
    #[error("no {0} within the time")]
    Timeout(&'static str),
    /// The connection broke, or what came was no HTTP.
    #[error("the connection broke: {0}")]
    Broken(#[from] hyper::Error),
    /// More bytes than anybody needs.
    #[error("an answer of more than {ANSWER_BYTES_MAX} bytes")]
    TooLarge,
    /// A path or a token that no request can carry.
    #[error("not a request: {0}")]
    Unwritable(#[from] hyper::http::Error),
}

/// Where the admin side is, and who we are to it.
pub struct Http {
    host: String,
    port: u16,
    /// As the Host header has it.
    authority: String,
    /// What stands before every path.
    prefix: String,
    tls: Option<TlsConnector>,
    token: Option<HeaderValue>,
}

/// An answer; its body is still to be read.
#[derive(Debug)]
pub struct Answer {
    response: Response<Incoming>,
    connection: AbortHandle,
}

impl Http {
    /// `url` is `http://host:port` or `https://host:port`, which needs a CA.
    ///
    /// # Errors
    /// [`HttpError`] says what is wrong with the address, the certificates or the token.
    pub fn new(
        url: &str,
        tls: Option<&TlsIdentity>,
        token: Option<&str>,
    ) -> Result<Self, HttpError> {
        let unknown = || HttpError::Address(url.to_owned());
        let uri: Uri = url.parse().map_err(|_| unknown())?;
        let authority = uri.authority().filter(|authority| !authority.as_str().contains('@'));
        let authority = authority.ok_or_else(unknown)?;
        let (secure, default_port) = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTP => (false, 80),
            Some(scheme) if *scheme == Scheme::HTTPS => (true, 443),
            _other => return Err(unknown()),
        };
        let tls = match (secure, tls) {
            (true, Some(tls)) => Some(TlsConnector::from(tls.config()?)),
            (true, None) => return Err(HttpError::NeedsCa),
            (false, _) => None,
        };
        let bearer = |token| HeaderValue::try_from(format!("Bearer {token}"));
        let token = token.map(bearer).transpose().map_err(hyper::http::Error::from)?;
        Ok(Self {
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port: authority.port_u16().unwrap_or(default_port),
            authority: authority.as_str().to_owned(),
            prefix: uri.path().trim_end_matches('/').to_owned(),
            tls,
            token,
        })
    }

    /// Sends a request with this path and query, and a body of some type; waits for the head of
    /// the answer.
    ///
    /// # Errors
    /// [`HttpError`]; an answer of any status is none.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<(&'static str, Bytes)>,
    ) -> Result<Answer, HttpError> {
        let path = PathAndQuery::try_from(format!("{}{path}", self.prefix));
        let path = path.map_err(hyper::http::Error::from)?;
        let mut request = Request::builder().method(method).uri(Uri::from(path));
        request = request.header(HOST, &self.authority).header(ACCEPT, "*/*");
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, token);
        }
        if let Some((content_type, _)) = &body {
            request = request.header(CONTENT_TYPE, *content_type);
        }
        let request = request.body(Full::new(body.map(|(_, bytes)| bytes).unwrap_or_default()))?;
        let connected = timeout(CONNECT_PATIENCE, TcpStream::connect((&*self.host, self.port)));
        let socket = connected.await.map_err(|_| HttpError::Timeout("connection"))?;
        let socket = socket.map_err(|source| self.unreachable(source))?;
        let Some(tls) = &self.tls else { return exchange(socket, request).await };
        let secured = timeout(CONNECT_PATIENCE, tls.connect(tls::server_name(&self.host)?, socket));
        let stream = secured.await.map_err(|_| HttpError::Timeout("TLS handshake"))?;
        exchange(stream.map_err(|source| self.unreachable(source))?, request).await
    }

    fn unreachable(&self, source: io::Error) -> HttpError {
        HttpError::Unreachable { address: self.authority.clone(), source }
    }
}

async fn exchange<S>(stream: S, request: Request<Full<Bytes>>) -> Result<Answer, HttpError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // What goes wrong on it is told to whoever waits for the answer.
    let connection = tokio::spawn(async { drop(connection.await) }).abort_handle();
    let answered = timeout(ANSWER_PATIENCE, sender.send_request(request)).await;
    let response = answered.map_err(|_| HttpError::Timeout("answer"))??;
    Ok(Answer { response, connection })
}

impl Answer {
    /// Its status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.response.status()
    }

    /// Its media type, without parameters; empty where it says none.
    #[must_use]
    pub fn media_type(&self) -> &str {
        let text = self.response.headers().get(CONTENT_TYPE).and_then(|text| text.to_str().ok());
        text.and_then(|text| text.split(';').next()).unwrap_or_default()
    }

    /// The next bytes of its body; nothing at its end.
    ///
    /// # Errors
    /// [`HttpError`] when the connection breaks or is silent.
    pub async fn part(&mut self) -> Result<Option<Bytes>, HttpError> {
        loop {
            let frame = timeout(PART_PATIENCE, self.response.body_mut().frame()).await;
            let Some(frame) = frame.map_err(|_| HttpError::Timeout("part of the answer"))? else {
                return Ok(None);
            };
            // Anything else than data is a trailer, which nobody asked for.
            if let Ok(bytes) = frame?.into_data() {
                return Ok(Some(bytes));
            }
        }
    }

    /// Its whole body.
    ///
    /// # Errors
    /// [`HttpError`] when the connection breaks, is silent, or has too much to say.
    pub async fn whole(mut self) -> Result<Vec<u8>, HttpError> {
        let mut whole = Vec::new();
        while let Some(part) = self.part().await? {
            if whole.len() + part.len() > ANSWER_BYTES_MAX {
                return Err(HttpError::TooLarge);
            }
            whole.extend_from_slice(&part);
        }
        Ok(whole)
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_scheme_and_a_host() {
        let http = Http::new("http://[::1]:9883/broker/", None, None).unwrap();
        assert_eq!((http.host.as_str(), http.port), ("::1", 9883));
        assert_eq!((http.authority.as_str(), http.prefix.as_str()), ("[::1]:9883", "/broker"));
        assert_eq!(Http::new("http://broker", None, None).unwrap().port, 80);
        for url in
            ["", "broker", "broker:9883", "ftp://broker", "http://", "http://a@b", "http://a b"]
        {
            assert!(matches!(Http::new(url, None, None), Err(HttpError::Address(_))), "{url:?}");
        }
        assert!(matches!(Http::new("https://broker", None, None), Err(HttpError::NeedsCa)));
        assert!(matches!(
            Http::new("http://broker", None, Some("a\nb")),
            Err(HttpError::Unwritable(_))
        ));
    }
}
