//! Connections of the HTTP side: few, and each with its times. A client that sends or reads slowly
//! costs one place for a limited time, never the broker.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Sleep, sleep, timeout};

/// Open connections; the next ones wait in the kernel.
const CONNECTIONS_MAX: usize = 64;
/// Wait after a failed accept: it mostly means that file descriptors are used up (case D17).
const ACCEPT_BACKOFF: Duration = Duration::from_millis(500);
/// Bytes of the head of a request.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// How long a connection may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    /// For its TLS handshake.
    handshake: Duration,
    /// For the head of a request, and between two requests.
    head: Duration,
    /// From accept on; then the request at hand is the last one. Whoever keeps its connection
    /// opens another one then.
    life: Duration,
    /// For that last request, unless it is one that may take long.
    last_request: Duration,
    /// Without a byte to or from the other end.
    idle: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(10),
            head: Duration::from_secs(30),
            life: Duration::from_secs(60),
            last_request: Duration::from_secs(60),
            idle: Duration::from_secs(60),
        }
    }
}

/// A connection, secure or not.
pub trait Channel: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Channel for S {}

/// A connection with what is known of the other end.
pub struct Opened {
    /// The connection.
    pub channel: Box<dyn Channel>,
    /// The subject of a certificate that says that an operator is there.
    pub operator: Option<String>,
}

/// What a [`Secure`] does, in its own time; an error is for the log.
pub type Securing = Pin<Box<dyn Future<Output = Result<Opened, String>> + Send>>;

/// Makes a connection secure.
pub type Secure = Arc<dyn Fn(TcpStream) -> Securing + Send + Sync>;

/// Who is at the other end, for handlers.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    /// The subject of its certificate, where it is that of an operator.
    pub(super) operator: Option<Arc<str>>,
}

/// Has a connection live on after its time, as long as bytes go to and fro.
#[derive(Clone, Debug, Default)]
pub(super) struct Lifetime(Arc<AtomicBool>);

impl Lifetime {
    /// The request at hand may take long.
    pub(super) fn extend(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_extended(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Accepts and serves connections as long as it is polled; all of them end with it.
pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    secure: Option<Secure>,
    times: Times,
    refused: impl Fn(SocketAddr, String) + Clone + Send + 'static,
) -> Infallible {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let place = Arc::clone(&places).acquire_owned().await;
        let place = place.expect("the semaphore is never closed");
        // What has ended is put away before something new comes.
        while connections.try_join_next().is_some() {}
        let Ok((socket, address)) = listener.accept().await else {
            sleep(ACCEPT_BACKOFF).await;
            continue;
        };
        let (router, secure, refused) = (router.clone(), secure.clone(), refused.clone());
        connections.spawn(async move {
            match open(socket, secure, times).await {
                Ok(opened) => attend(opened, address, router, times).await,
                Err(why) => refused(address, why),
            }
            drop(place);
        });
    }
}

async fn open(socket: TcpStream, secure: Option<Secure>, times: Times) -> Result<Opened, String> {
    let Some(secure) = secure else {
        return Ok(Opened { channel: Box::new(socket), operator: None });
    };
    let opened = timeout(times.handshake, secure(socket)).await;
    opened.unwrap_or_else(|_elapsed| Err("no TLS handshake within its time".to_owned()))
}

async fn attend(opened: Opened, address: SocketAddr, router: Router, times: Times) {
    let peer = Peer { address, operator: opened.operator.map(Arc::from) };
    let lifetime = Lifetime::default();
    let extended = lifetime.clone();
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(peer.clone());
        request.extensions_mut().insert(lifetime.clone());
        let answer: Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>> =
            Box::pin(router.call(request));
        answer
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(times.head)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_header_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(Watched::new(opened.channel, times.idle)), service);
    let mut connection = pin!(connection);
    // How it ends is up to the other end, and nobody needs to know.
    tokio::select! {
        _ended = connection.as_mut() => return,
        () = sleep(times.life) => connection.as_mut().graceful_shutdown(),
    }
    tokio::select! {
        _ended = connection.as_mut() => return,
        () = sleep(times.last_request) => {}
    }
    if extended.is_extended() {
        let _ended = connection.await;
    }
}

/// A connection that fails when nothing goes to or fro for too long.
struct Watched<S> {
    stream: S,
    patience: Duration,
    idle: Pin<Box<Sleep>>,
}

impl<S> Watched<S> {
    fn new(stream: S, patience: Duration) -> Self {
        Self { stream, patience, idle: Box::pin(sleep(patience)) }
    }

    /// What became of reading or writing. Each byte gives a new term; else the task is woken at
    /// its end.
    fn watch<T>(
        &mut self,
        context: &mut Context<'_>,
        progress: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if progress.is_ready() {
            self.idle.set(sleep(self.patience));
            return progress;
        }
        match self.idle.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.watch(context, read)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watch(context, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Extension;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn a_connection_ends_when_nothing_happens_on_it() {
        let (near, mut far) = tokio::io::duplex(1);
        let mut connection = Watched::new(near, Duration::from_millis(1));
        far.write_u8(7).await.unwrap();
        assert_eq!(connection.read_u8().await.unwrap(), 7);
        let error = connection.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        // The other end does not read.
        connection.idle.set(sleep(connection.patience));
        connection.write_u8(0).await.unwrap();
        let error = connection.write_u8(0).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    const SHORT: Duration = Duration::from_millis(1);
    /// Long enough for what is sent at once to be read at once, also on a busy machine.
    const LONGER: Duration = Duration::from_millis(300);

    /// A server whose requests take as long as the other end wants.
    async fn start(times: Times) -> (SocketAddr, tokio::task::JoinHandle<Infallible>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let long = |Extension(lifetime): Extension<Lifetime>| async move {
            lifetime.extend();
            std::future::pending::<()>().await;
        };
        let router = Router::new()
            .route("/", get(|| async { "here" }))
            .route("/never", get(std::future::pending::<()>))
            .route("/long", get(long));
        let refused = |_, why| panic!("{why}");
        (address, tokio::spawn(serve(listener, router, None, times, refused)))
    }

    async fn say(address: SocketAddr, bytes: &[u8]) -> TcpStream {
        let mut guest = TcpStream::connect(address).await.unwrap();
        guest.write_all(bytes).await.unwrap();
        guest
    }

    /// Everything it is told, to the end.
    async fn told(mut guest: TcpStream) -> String {
        let mut text = String::new();
        guest.read_to_string(&mut text).await.unwrap();
        text
    }

    #[tokio::test]
    async fn whoever_does_not_finish_the_head_of_a_request_has_to_go() {
        let (address, _serving) = start(Times { head: SHORT, ..Times::default() }).await;
        for bytes in [&b""[..], b"GET", &REQUEST[..REQUEST.len() - 1]] {
            let text = told(say(address, bytes).await).await;
            assert!(!text.contains(" 200 "), "{text}");
        }
        // Nor may it stay without another request.
        let (address, _serving) = start(Times { head: LONGER, ..Times::default() }).await;
        assert!(told(say(address, REQUEST).await).await.ends_with("here"));
    }

    #[tokio::test]
    async fn a_request_takes_no_longer_than_its_connection_lives_unless_it_may() {
        let never = b"GET /never HTTP/1.1\r\nHost: x\r\n\r\n";
        let long = b"GET /long HTTP/1.1\r\nHost: x\r\n\r\n";
        let short = Times { life: LONGER, last_request: SHORT, ..Times::default() };
        let (address, _serving) = start(short).await;
        let mut long_lived = say(address, long).await;
        assert_eq!(told(say(address, never).await).await, "");
        assert_eq!(told(TcpStream::connect(address).await.unwrap()).await, "", "no request");
        assert!(timeout(Duration::from_millis(20), long_lived.read_u8()).await.is_err());

        let (address, _serving) = start(Times { idle: SHORT, ..short }).await;
        assert_eq!(told(say(address, long).await).await, "", "as long as bytes go to and fro");
    }

    #[tokio::test]
    async fn a_full_house_serves_again_when_one_leaves_and_closes_with_its_server() {
        let (address, serving) = start(Times::default()).await;
        let mut guests = Vec::new();
        for _ in 0..CONNECTIONS_MAX {
            let mut guest = say(address, REQUEST).await;
            assert_eq!(guest.read_u8().await.unwrap(), b'H');
            guests.push(guest);
        }
        let mut next = say(address, REQUEST).await;
        assert!(timeout(Duration::from_millis(20), next.read_u8()).await.is_err());
        drop(guests.pop());
        assert_eq!(next.read_u8().await.unwrap(), b'H');

        serving.abort();
        assert!(serving.await.unwrap_err().is_cancelled());
        for mut guest in guests {
            let mut rest = Vec::new();
            let _closed_or_reset = guest.read_to_end(&mut rest).await;
        }
        assert!(TcpStream::connect(address).await.is_err());
    }
}
