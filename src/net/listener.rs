//! Listening sockets: accept, TLS handshake, one task for each connection.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::Sleep;
use tokio_rustls::TlsAcceptor;

use super::certificate::PeerCertificate;
use super::conn::{ConnLimits, Link};
use super::greeting::{Access, Admitted, Entry, Unwelcome};
use super::tls::{self, ServerTls, TlsError};
use super::users::Hashers;
use crate::broker::Broker;
use crate::config::{Bind, Config, Listener, Mqtt};
use crate::log::Shown;
use crate::metrics::{ConnectResult, Label, PacketType, TlsRejection};
use crate::rsp::CertificateFacts;

/// What all listeners share.
#[derive(Clone, Debug)]
pub struct Shared {
    broker: Arc<Broker>,
    connections: Arc<Semaphore>,
    shutdown: watch::Receiver<bool>,
    /// Every connection holds a clone; when all are gone, so are the connections.
    open: mpsc::Sender<()>,
    connect_timeout: Duration,
    limits: ConnLimits,
    mqtt: Arc<Mqtt>,
    hashers: Arc<Hashers>,
}

/// The other end of [`Shared`]: stops all listeners and waits for their connections.
#[derive(Debug)]
pub struct Stop {
    broker: Arc<Broker>,
    shutdown: watch::Sender<bool>,
    closed: mpsc::Receiver<()>,
}

/// A listening socket that has not accepted anything yet.
pub struct Port {
    shared: Shared,
    socket: TcpListener,
    index: usize,
    entry: Entry,
    tls: Option<ServerTls>,
    connections: Arc<Semaphore>,
}

/// Why a listener cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The address cannot be bound.
    #[error("cannot listen on {0}: {1}")]
    Bind(Bind, io::Error),
    /// Its TLS files are not in order.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl Shared {
    /// What the listeners of one broker share, and what stops them.
    #[must_use]
    pub fn new(broker: Arc<Broker>, config: &Config) -> (Self, Stop) {
        let (stop, shutdown) = watch::channel(false);
        let (open, closed) = mpsc::channel(1);
        let limits = ConnLimits {
            frame_bytes_max: config.limits.max_packet_size as usize,
            output_bytes_max: config.limits.write_buffer,
        };
        let shared = Self {
            broker: Arc::clone(&broker),
            connections: Arc::new(Semaphore::new(config.limits.max_connections)),
            shutdown,
            open,
            connect_timeout: config.limits.connect_timeout,
            limits,
            mqtt: Arc::new(config.mqtt.clone()),
            hashers: Arc::new(Hashers::new()),
        };
        (shared, Stop { broker, shutdown: stop, closed })
    }
}

impl Stop {
    /// Accepts nothing more, says goodbye to every client, and waits until all have gone, at most
    /// `patience`. `false`: some had not.
    pub async fn stop(mut self, patience: Duration) -> bool {
        // Nobody listens any more when every listener and connection has gone already.
        let _heard_or_not = self.shutdown.send(true);
        self.broker.shut_down();
        tokio::time::timeout(patience, self.closed.recv()).await.is_ok()
    }
}

impl Port {
    /// Binds the socket and loads its certificates. Who may come in and what clients may do is up
    /// to `access`.
    ///
    /// # Errors
    /// [`ListenError`] says what is wrong, and with which file or address.
    pub fn open(
        shared: Shared,
        index: usize,
        listener: &Listener,
        access: Access,
    ) -> Result<Self, ListenError> {
        let tls = listener.tls.as_ref().map(ServerTls::load).transpose()?;
        let failed = |e| ListenError::Bind(listener.bind.clone(), e);
        let socket = match &listener.bind {
            Bind::Tcp(address) => bind(*address).map_err(failed)?,
            Bind::Unix(_) => return Err(failed(io::ErrorKind::Unsupported.into())),
        };
        let scheme = shared.broker.options().scheme;
        Ok(Self {
            socket,
            index,
            entry: Entry::new(listener, &shared.mqtt, scheme, access, Arc::clone(&shared.hashers)),
            tls,
            connections: Arc::new(Semaphore::new(listener.max_connections)),
            shared,
        })
    }

    /// The address it listens on, with the port the system chose where none was given.
    ///
    /// # Errors
    /// The system's own.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// End of the broker's certificate here, in seconds of Unix time.
    #[must_use]
    pub fn certificate_not_after(&self) -> Option<i64> {
        self.tls.as_ref().map(|tls| tls.cert_not_after_unix_secs)
    }

    /// End of the first of the client issuers here, in seconds of Unix time.
    #[must_use]
    pub fn client_ca_not_after(&self) -> Option<i64> {
        self.tls.as_ref().and_then(|tls| tls.client_ca_not_after_unix_secs)
    }

    /// Accepts connections until the broker stops.
    pub async fn run(self) {
        let port = Arc::new(self);
        let mut shutdown = port.shared.shutdown.clone();
        loop {
            tokio::select! {
                biased;
                () = stopped(&mut shutdown) => return,
                accepted = port.socket.accept() => match accepted {
                    Ok((stream, peer)) => Arc::clone(&port).accept(stream, peer),
                    Err(error) => {
                        // Out of file descriptors, or the peer is gone already: do not spin.
                        tracing::warn!("cannot accept: {error}");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
    }

    fn accept(self: Arc<Self>, stream: TcpStream, peer: SocketAddr) {
        let Some(permits) = self.permits() else {
            // Before any work is done for it: cheaper for both sides than a CONNACK.
            self.shared.broker.metrics().connect(ConnectResult::QuotaExceeded);
            if let Some(repeats) = self.shared.broker.complain("max_connections") {
                let repeats = repeats.field();
                tracing::warn!(%peer, repeats, "refused: `max_connections` is reached");
            }
            return;
        };
        // Without it small packets wait for acknowledgements of the network.
        let _set_or_not = stream.set_nodelay(true);
        let open = self.shared.open.clone();
        tokio::spawn(async move {
            Box::pin(self.serve(stream, peer)).await;
            drop((permits, open));
        });
    }

    fn permits(&self) -> Option<[OwnedSemaphorePermit; 2]> {
        let own = Arc::clone(&self.connections).try_acquire_owned().ok()?;
        let all = Arc::clone(&self.shared.connections).try_acquire_owned().ok()?;
        Some([own, all])
    }

    async fn serve(&self, stream: TcpStream, peer: SocketAddr) {
        let mut patience = std::pin::pin!(tokio::time::sleep(self.shared.connect_timeout));
        let Some(tls) = &self.tls else {
            return self.welcome(Link::new(stream, peer), None, patience.as_mut()).await;
        };
        let acceptor = TlsAcceptor::from(Arc::clone(&tls.config));
        let started = self.shared.broker.now();
        let handshake = tokio::select! {
            done = acceptor.accept(stream) => done.map_err(|error| tls::rejection(&error)),
            () = patience.as_mut() => Err(TlsRejection::Timeout),
        };
        let metrics = self.shared.broker.metrics();
        let stream = match handshake {
            Ok(stream) => stream,
            Err(rejection) => {
                metrics.tls_rejected(rejection);
                if let Some(repeats) = self.shared.broker.complain(rejection.name()) {
                    let (reason, repeats) = (rejection.name(), repeats.field());
                    tracing::warn!(%peer, reason, repeats, "TLS handshake failed");
                }
                return;
            }
        };
        let connection = stream.get_ref().1;
        let resumed = connection.handshake_kind() == Some(rustls::HandshakeKind::Resumed);
        metrics.tls_handshake(resumed, self.shared.broker.now().since(started));
        let leaf = connection.peer_certificates().and_then(|chain| chain.first());
        let certificate = match leaf.map(|leaf| PeerCertificate::read(leaf)).transpose() {
            Ok(certificate) => certificate,
            Err(error) => {
                metrics.tls_rejected(TlsRejection::BadCertificate);
                tracing::warn!(%peer, "client certificate cannot be read: {error}");
                return;
            }
        };
        let facts = certificate.map(|certificate| certificate.facts);
        self.welcome(Link::new(stream, peer), facts.as_ref(), patience).await;
    }

    async fn welcome<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        mut link: Link<S>,
        certificate: Option<&CertificateFacts>,
        patience: Pin<&mut Sleep>,
    ) {
        let Shared { broker, limits, .. } = &self.shared;
        match self.greet(&mut link, certificate, patience).await {
            Ok(admitted) => {
                let (present, version) = (admitted.attached.present, admitted.version);
                let result = if present { ConnectResult::Resumed } else { ConnectResult::Accepted };
                broker.metrics().connect(result);
                let _counted = broker.metrics().connection_opened(self.index, version);
                let shutting_down = *self.shared.shutdown.borrow();
                link.run(Arc::clone(broker), admitted, *limits, shutting_down).await;
            }
            Err(why) => {
                broker.metrics().connect(why.result());
                why.protocol_error().into_iter().for_each(|e| broker.metrics().protocol_error(e));
                if let Some(repeats) = broker.complain(why.result().name()) {
                    let (repeats, user) = (repeats.field(), why.user().map(Shown));
                    let user = user.as_ref().map(tracing::field::display);
                    tracing::warn!(peer = %link.peer, user, repeats, "not connected: {why}");
                }
                link.turn_away(&why).await;
            }
        }
    }

    async fn greet<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        link: &mut Link<S>,
        certificate: Option<&CertificateFacts>,
        patience: Pin<&mut Sleep>,
    ) -> Result<Admitted, Unwelcome> {
        let (broker, entry) = (&self.shared.broker, &self.entry);
        let mut shutdown = self.shared.shutdown.clone();
        let logging_in = async {
            let connect = link.read_connect(entry.tolerance).await?;
            broker.metrics().packet_in(PacketType::Connect);
            let login = link.log_in(broker, entry, certificate, &connect).await?;
            Ok::<_, Unwelcome>((login, connect))
        };
        let (login, connect) = tokio::select! {
            logged_in = logging_in => logged_in?,
            () = patience => return Err(Unwelcome::Timeout),
            () = stopped(&mut shutdown) => return Err(Unwelcome::Shutdown),
        };
        link.admit(broker, entry, login, connect).await
    }
}

/// After a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Connections that may wait to be accepted; the system may allow fewer.
const BACKLOG: i32 = 4096;

/// Resolves when the broker stops.
async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    // A sender that is gone has stopped, too.
    let _down_or_gone = shutdown.wait_for(|down| *down).await;
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
    // A restarted broker gets its port back at once.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}
