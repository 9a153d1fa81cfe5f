//! Listening sockets: accept, what a proxy says, TLS and WebSocket handshakes, one task for each
//! connection.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::Sleep;
use tokio_rustls::TlsAcceptor;

use super::certificate::{CertificateError, PeerCertificate};
use super::conn::{self, ConnLimits, Link};
use super::gate::{Admission, Gate, NoEntry, TOLD_PATIENCE};
use super::greeting::{Access, Admitted, Entry, Unwelcome};
use super::proxy::{self, Proxied, ProxyError};
use super::rules::Rules;
use super::socket::{Acceptor, Socket};
use super::stream::{Channel, Stream};
use super::tls::{self, ServerTls, TlsError};
use super::users::Hashers;
use super::websocket::{HandshakeError, HandshakeRules, WebSocket, shake_hands};
use crate::broker::{Broker, Peer};
use crate::config::{Bind, Config, Listener, Mqtt, Protocol, ProxyProtocol};
use crate::log::Shown;
use crate::metrics::{ConnectResult, Label, PacketType, TlsRejection};
use crate::rsp::CertificateFacts;

/// What all listeners share.
#[derive(Clone, Debug)]
pub struct Shared {
    broker: Arc<Broker>,
    gate: Arc<Gate>,
    shutdown: watch::Receiver<bool>,
    /// Every connection holds a clone; when all are gone, so are the connections.
    open: mpsc::Sender<()>,
    connect_timeout: Duration,
    limits: ConnLimits,
    mqtt: Arc<Mqtt>,
    hashers: Arc<Hashers>,
    websocket_request_bytes_max: usize,
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
    socket: Acceptor,
    index: usize,
    entry: Entry,
    rules: Arc<Rules>,
    proxy_protocol: ProxyProtocol,
    proxy_require_tls: bool,
    tls: Option<ServerTls>,
    /// Present: WebSocket.
    websocket: Option<HandshakeRules>,
    connections: Arc<Semaphore>,
}

/// Why a listener cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The address or path cannot be bound.
    #[error("cannot listen on {0}: {1}")]
    Bind(Bind, io::Error),
    /// Its TLS files are not in order.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// A connection over which MQTT can be spoken.
struct Arrival {
    stream: Stream,
    certificate: Option<CertificateFacts>,
}

/// Why a connection has not come that far.
enum Lost {
    Tls(TlsRejection),
    Certificate(CertificateError),
    Unwelcome(Unwelcome),
}

impl From<Unwelcome> for Lost {
    fn from(why: Unwelcome) -> Self {
        Self::Unwelcome(why)
    }
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
            gate: Arc::new(Gate::new(&config.limits)),
            shutdown,
            open,
            connect_timeout: config.limits.connect_timeout,
            limits,
            mqtt: Arc::new(config.mqtt.clone()),
            hashers: Arc::new(Hashers::new()),
            websocket_request_bytes_max: config.limits.max_websocket_handshake_bytes,
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
        let load = |tls| ServerTls::load(tls, listener.protocol);
        let tls = listener.tls.as_ref().map(load).transpose()?;
        let socket = Acceptor::bind(&listener.bind)
            .map_err(|error| ListenError::Bind(listener.bind.clone(), error))?;
        let options = shared.broker.options();
        let websocket = (listener.protocol == Protocol::Websocket).then(|| HandshakeRules {
            origins: listener.websocket_origins.clone(),
            request_bytes_max: shared.websocket_request_bytes_max,
        });
        Ok(Self {
            socket,
            index,
            entry: Entry::new(
                listener,
                &shared.mqtt,
                options.scheme,
                access,
                Arc::clone(&shared.hashers),
            ),
            rules: Arc::new(Rules::new(listener, &shared.mqtt, &options.topics)),
            proxy_protocol: listener.proxy_protocol,
            proxy_require_tls: listener.proxy_require_tls,
            tls,
            websocket,
            connections: Arc::new(Semaphore::new(listener.max_connections)),
            shared,
        })
    }

    /// Where it listens, with the port the system chose where none was given.
    ///
    /// # Errors
    /// The system's own.
    pub fn address(&self) -> io::Result<Bind> {
        self.socket.address()
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
                () = stopped(&mut shutdown) => break,
                accepted = port.socket.accept() => match accepted {
                    Ok((socket, peer)) => Arc::clone(&port).admit(socket, peer),
                    Err(error) => {
                        // Out of file descriptors, or the peer is gone already: do not spin.
                        tracing::warn!("cannot accept: {error}");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
        // Its connections hold the port for as long as they last.
        port.socket.withdraw();
    }

    fn admit(self: Arc<Self>, socket: Socket, peer: Peer) {
        self.shared.broker.metrics().socket_accepted();
        let now = self.shared.broker.now();
        let open = self.shared.open.clone();
        match self.shared.gate.ask(&self.connections, now) {
            Admission::Admitted(place) => {
                tokio::spawn(async move {
                    Box::pin(self.serve(socket, peer)).await;
                    drop((place, open));
                });
            }
            Admission::Told(no_entry, permit) => {
                self.note_refused(peer, no_entry);
                tokio::spawn(async move {
                    Box::pin(self.tell(socket, peer, no_entry)).await;
                    drop((permit, open));
                });
            }
            // Before any work is done for it.
            Admission::Closed(no_entry) => self.note_refused(peer, no_entry),
        }
    }

    fn note_refused(&self, peer: Peer, no_entry: NoEntry) {
        let broker = &self.shared.broker;
        broker.metrics().connect(no_entry.result());
        if let Some(repeats) = broker.complain(no_entry.result().name()) {
            let repeats = repeats.field();
            tracing::warn!(%peer, repeats, "not connected: {no_entry}");
        }
    }

    /// Lets somebody who may not come in say CONNECT, to be told why.
    async fn tell(&self, socket: Socket, mut peer: Peer, no_entry: NoEntry) {
        let patience = self.shared.connect_timeout.min(TOLD_PATIENCE);
        let mut patience = std::pin::pin!(tokio::time::sleep(patience));
        let Ok(arrival) = self.arrive(socket, &mut peer, patience.as_mut()).await else { return };
        let mut link = Link::new(arrival.stream, peer);
        let connect = within(patience, link.read_connect(self.entry.tolerance)).await;
        if let Some(Ok(connect)) = connect {
            link.turn_away(&Unwelcome::NoEntry(connect.version, no_entry)).await;
        }
    }

    async fn serve(&self, socket: Socket, mut peer: Peer) {
        let mut patience = std::pin::pin!(tokio::time::sleep(self.shared.connect_timeout));
        let mut shutdown = self.shared.shutdown.clone();
        let arrival = tokio::select! {
            biased;
            arrival = self.arrive(socket, &mut peer, patience.as_mut()) => arrival,
            () = stopped(&mut shutdown) => Err(Unwelcome::Shutdown.into()),
        };
        match arrival {
            Ok(Arrival { stream, certificate }) => {
                self.welcome(Link::new(stream, peer), certificate.as_ref(), patience).await;
            }
            Err(lost) => self.note_lost(peer, &lost),
        }
    }

    /// From a socket to a stream of MQTT packets.
    async fn arrive(
        &self,
        mut socket: Socket,
        peer: &mut Peer,
        mut patience: Pin<&mut Sleep>,
    ) -> Result<Arrival, Lost> {
        let proxied = self.proxied(&mut socket, patience.as_mut()).await?;
        // Whoever the proxy does not name is the proxy itself.
        *peer = proxied.peer.unwrap_or(*peer);
        let shown_to_proxy = proxied.tls.and_then(|tls| tls.certificate);
        let (mut channel, shown_to_us) = self.secured(socket, patience.as_mut()).await?;
        // What is verified here beats what is told.
        let certificate = shown_to_us.or(shown_to_proxy);
        let Some(rules) = &self.websocket else {
            return Ok(Arrival { stream: Stream::Mqtt(channel), certificate });
        };
        match within(patience, shake_hands(&mut channel, rules)).await {
            Some(Ok(early)) => {
                let stream = Stream::WebSocket(Box::new(WebSocket::new(channel, early)));
                Ok(Arrival { stream, certificate })
            }
            Some(Err(error)) => {
                if matches!(error, HandshakeError::Refused(_)) {
                    conn::close(&mut channel).await;
                }
                Err(Unwelcome::Handshake(error).into())
            }
            None => Err(Unwelcome::Timeout.into()),
        }
    }

    async fn proxied(
        &self,
        socket: &mut Socket,
        patience: Pin<&mut Sleep>,
    ) -> Result<Proxied, Unwelcome> {
        let header = within(patience, proxy::read(socket, self.proxy_protocol)).await;
        let proxied = header.ok_or(Unwelcome::Timeout)?.map_err(Unwelcome::Proxy)?;
        if self.proxy_require_tls && proxied.tls.is_none() {
            return Err(Unwelcome::Proxy(ProxyError::WithoutTls));
        }
        Ok(proxied)
    }

    /// The TLS handshake, where there is one, and the client's certificate, where it has shown one.
    async fn secured(
        &self,
        socket: Socket,
        patience: Pin<&mut Sleep>,
    ) -> Result<(Channel, Option<CertificateFacts>), Lost> {
        let Some(tls) = &self.tls else { return Ok((Channel::Plain(socket), None)) };
        let broker = &self.shared.broker;
        let acceptor = TlsAcceptor::from(Arc::clone(&tls.config));
        let started = broker.now();
        let stream = match within(patience, acceptor.accept(socket)).await {
            Some(Ok(stream)) => stream,
            Some(Err(error)) => return Err(Lost::Tls(tls::rejection(&error))),
            None => return Err(Lost::Tls(TlsRejection::Timeout)),
        };
        let connection = stream.get_ref().1;
        let resumed = connection.handshake_kind() == Some(rustls::HandshakeKind::Resumed);
        broker.metrics().tls_handshake(resumed, broker.now().since(started));
        let leaf = connection.peer_certificates().and_then(|chain| chain.first());
        let certificate = leaf.map(|leaf| PeerCertificate::read(leaf)).transpose();
        let certificate = certificate.map_err(Lost::Certificate)?;
        let facts = certificate.map(|certificate| certificate.facts);
        Ok((Channel::Tls(Box::new(stream)), facts))
    }

    /// Counts and logs a connection that has not come to a CONNECT.
    fn note_lost(&self, peer: Peer, lost: &Lost) {
        let broker = &self.shared.broker;
        match lost {
            Lost::Tls(rejection) => {
                broker.metrics().tls_rejected(*rejection);
                if let Some(repeats) = broker.complain(rejection.name()) {
                    let (reason, repeats) = (rejection.name(), repeats.field());
                    tracing::warn!(%peer, reason, repeats, "TLS handshake failed");
                }
            }
            Lost::Certificate(error) => {
                broker.metrics().tls_rejected(TlsRejection::BadCertificate);
                if let Some(repeats) = broker.complain(TlsRejection::BadCertificate.name()) {
                    let repeats = repeats.field();
                    tracing::warn!(%peer, repeats, "client certificate cannot be read: {error}");
                }
            }
            Lost::Unwelcome(why) => self.note_unwelcome(peer, why),
        }
    }

    fn note_unwelcome(&self, peer: Peer, why: &Unwelcome) {
        let broker = &self.shared.broker;
        broker.metrics().connect(why.result());
        why.protocol_error().into_iter().for_each(|e| broker.metrics().protocol_error(e));
        if let Some(repeats) = broker.complain(why.result().name()) {
            let (repeats, user) = (repeats.field(), why.user().map(Shown));
            let user = user.as_ref().map(tracing::field::display);
            tracing::warn!(%peer, user, repeats, "not connected: {why}");
        }
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
                let counted = broker.metrics().connection_opened(self.index, version);
                let shutting_down = *self.shared.shutdown.borrow();
                let rules = Arc::clone(&self.rules);
                let broker = Arc::clone(broker);
                link.run(broker, admitted, counted, *limits, rules, shutting_down).await;
            }
            Err(why) => {
                self.note_unwelcome(link.peer, &why);
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
        let (broker, entry, rules) = (&self.shared.broker, &self.entry, &self.rules);
        let mut shutdown = self.shared.shutdown.clone();
        let logging_in = async {
            let connect = link.read_connect(entry.tolerance).await?;
            broker.metrics().packet_in(PacketType::Connect);
            if !rules.versions.contains(&connect.version) {
                return Err(Unwelcome::Version(connect.version));
            }
            let login = link.log_in(broker, entry, certificate, &connect).await?;
            Ok::<_, Unwelcome>((login, connect))
        };
        let (login, connect) = tokio::select! {
            logged_in = logging_in => logged_in?,
            () = patience => return Err(Unwelcome::Timeout),
            () = stopped(&mut shutdown) => return Err(Unwelcome::Shutdown),
        };
        link.admit(broker, entry, rules, login, connect).await
    }
}

/// After a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Resolves when the broker stops.
async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    // A sender that is gone has stopped, too.
    let _down_or_gone = shutdown.wait_for(|down| *down).await;
}

/// What somebody does in time; nothing when the patience is over.
async fn within<T>(patience: Pin<&mut Sleep>, work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        done = work => Some(done),
        () = patience => None,
    }
}
