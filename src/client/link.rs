//! One MQTT 3.1.1 connection, over TCP or TLS.
//!
//! A task owns the socket; [`Link`] sends it requests and [`Inbox`] receives what the broker
//! publishes. The task never waits for the program: what the inbox cannot take yet waits
//! **unacknowledged**, so a slow program slows the broker down instead of filling memory, and
//! acknowledgements of our own publishes are read all the while.
//!
//! Dropping every [`Link`] breaks the connection without a DISCONNECT, as a power cut would.

mod task;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use mqttbytes::QoS;
use mqttbytes::v4::{self, ConnAck, ConnectReturnCode, LastWill, Packet};
use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::tls::{self, TlsError};
use task::{Command, Task};

/// Requests that wait for the task.
const COMMANDS_MAX: usize = 64;

/// How to connect. [`LinkOptions::new`] gives sensible values for all but address and name.
#[derive(Clone, Debug)]
pub struct LinkOptions {
    /// DNS name or IP address; also the name that the broker's certificate must carry.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// TLS, if any; see [`tls::TlsIdentity::config`].
    pub tls: Option<Arc<ClientConfig>>,
    /// Client identifier.
    pub client_id: String,
    /// Forget what an earlier connection of this client identifier left.
    pub clean_session: bool,
    /// Keep alive in seconds; 0 = off. A PINGREQ goes out twice in this time.
    pub keep_alive_secs: u16,
    /// User name and password.
    pub login: Option<(String, String)>,
    /// Topic, payload, QoS and retain of the Will.
    pub will: Option<(String, Bytes, QoS, bool)>,
    /// How long to wait for the network and for each acknowledgement.
    pub patience: Duration,
    /// Messages that wait in the inbox.
    pub inbox_max: usize,
    /// The largest packet to accept, in bytes.
    pub packet_bytes_max: usize,
    /// Acknowledge only what [`Link::acknowledge`] names, not what the inbox has taken.
    pub manual_acks: bool,
}

impl LinkOptions {
    /// Plain TCP, clean session, 60 s keep alive, 10 s patience, packets up to 1 MiB.
    #[must_use]
    pub fn new(host: &str, port: u16, client_id: &str) -> Self {
        Self {
            host: host.into(),
            port,
            tls: None,
            client_id: client_id.into(),
            clean_session: true,
            keep_alive_secs: 60,
            login: None,
            will: None,
            patience: Duration::from_secs(10),
            inbox_max: 64,
            packet_bytes_max: 1024 * 1024,
            manual_acks: false,
        }
    }
}

/// Why a connection came or went not as asked.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// No TCP or TLS connection.
    #[error("cannot connect to {host}:{port}: {source}")]
    Unreachable {
        /// As in the options.
        host: String,
        /// As in the options.
        port: u16,
        /// What the system or TLS said.
        source: io::Error,
    },
    /// The TLS options are unusable.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The broker answered CONNECT with a return code other than 0.
    #[error("the broker refused the connection: {0:?}")]
    Refused(ConnectReturnCode),
    /// The broker did not answer in time.
    #[error("no {0} within the time")]
    Timeout(&'static str),
    /// The connection is gone.
    #[error("connection closed: {0}")]
    Closed(Closed),
    /// All packet identifiers are taken by unacknowledged messages.
    #[error("too many unacknowledged messages")]
    TooManyInFlight,
    /// The packet cannot be written, for instance larger than 256 MiB.
    #[error("not a packet: {0}")]
    Unwritable(mqttbytes::Error),
}

/// How a connection ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Closed {
    /// [`Link::disconnect`].
    #[error("by us")]
    ByUs,
    /// Every [`Link`] was dropped.
    #[error("dropped")]
    Dropped,
    /// The broker closed it.
    #[error("by the broker")]
    ByBroker,
    /// The network failed.
    #[error("{0}")]
    Network(String),
    /// The broker sent what is no MQTT packet, or one that is too large.
    #[error("unreadable packet ({0:?})")]
    Unreadable(mqttbytes::Error),
    /// The broker sent a packet that only clients send, or an acknowledgement of nothing.
    #[error("the broker sent an unexpected {0}")]
    Unexpected(&'static str),
    /// No PINGRESP.
    #[error("the broker is silent")]
    Silent,
    /// The broker keeps sending though nothing is acknowledged.
    #[error("more unacknowledged messages than the inbox can ever take")]
    Overrun,
}

/// A message from the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incoming {
    /// Topic name.
    pub topic: String,
    /// Payload.
    pub payload: Bytes,
    /// QoS of the delivery.
    pub qos: QoS,
    /// The message was retained before the subscription.
    pub retain: bool,
    /// The broker has sent it before, on this or an earlier connection.
    pub duplicate: bool,
    pub(super) packet_id: u16,
}

/// Messages in the order of their arrival; `None` from `recv` when the connection is gone.
pub type Inbox = mpsc::Receiver<Incoming>;

/// What went through a link, in MQTT bytes (TLS adds its own).
#[derive(Debug, Default)]
pub struct Traffic {
    sent_bytes: AtomicU64,
    received_bytes: AtomicU64,
    dropped: AtomicU64,
}

impl Traffic {
    /// Bytes of MQTT packets handed to the socket.
    #[must_use]
    pub fn sent_bytes(&self) -> u64 {
        self.sent_bytes.load(Ordering::Relaxed)
    }

    /// Bytes of MQTT packets read.
    #[must_use]
    pub fn received_bytes(&self) -> u64 {
        self.received_bytes.load(Ordering::Relaxed)
    }

    /// QoS 0 messages that came while the inbox was full.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// A handle on the connection; clones share it.
#[derive(Clone, Debug)]
pub struct Link {
    commands: mpsc::Sender<Command>,
    closed: watch::Receiver<Option<Closed>>,
    traffic: Arc<Traffic>,
    session_present: bool,
    patience: Duration,
}

impl Link {
    /// Connects and waits for the CONNACK.
    ///
    /// # Errors
    /// [`LinkError`]: unreachable, refused, or not in time.
    pub async fn connect(options: LinkOptions) -> Result<(Self, Inbox), LinkError> {
        let opening = open(&options);
        let socket = timeout(options.patience, opening)
            .await
            .map_err(|_| LinkError::Timeout("connection"))??;
        match options.tls.clone() {
            None => Self::greet(socket, options).await,
            Some(config) => {
                let name = tls::server_name(&options.host)?;
                let handshake = TlsConnector::from(config).connect(name, socket);
                let stream = timeout(options.patience, handshake)
                    .await
                    .map_err(|_| LinkError::Timeout("TLS handshake"))?
                    .map_err(|source| unreachable_error(&options, source))?;
                Self::greet(stream, options).await
            }
        }
    }

    /// Publishes and waits until the broker has taken the message: written (QoS 0), PUBACK
    /// (QoS 1) or PUBCOMP (QoS 2).
    ///
    /// # Errors
    /// [`LinkError::Timeout`], [`LinkError::Closed`], [`LinkError::TooManyInFlight`],
    /// [`LinkError::Unwritable`].
    pub async fn publish(
        &self,
        topic: &str,
        qos: QoS,
        retain: bool,
        payload: impl Into<Bytes>,
    ) -> Result<(), LinkError> {
        let mut publish = v4::Publish::from_bytes(topic, qos, payload.into());
        publish.retain = retain;
        self.request("PUBACK", |done| Command::Publish(publish, done)).await
    }

    /// Subscribes and gives the granted QoS, `None` where the broker refused.
    ///
    /// # Errors
    /// As [`Link::publish`].
    pub async fn subscribe(&self, filter: &str, qos: QoS) -> Result<Option<QoS>, LinkError> {
        let subscribe = v4::Subscribe::new(filter, qos);
        self.request("SUBACK", |done| Command::Subscribe(subscribe, done)).await
    }

    /// Removes a subscription.
    ///
    /// # Errors
    /// As [`Link::publish`].
    pub async fn unsubscribe(&self, filter: &str) -> Result<(), LinkError> {
        let unsubscribe = v4::Unsubscribe::new(filter);
        self.request("UNSUBACK", |done| Command::Unsubscribe(unsubscribe, done)).await
    }

    /// Acknowledges a message; only needed with [`LinkOptions::manual_acks`].
    ///
    /// # Errors
    /// [`LinkError::Closed`].
    pub async fn acknowledge(&self, message: &Incoming) -> Result<(), LinkError> {
        let command = Command::Acknowledge(message.packet_id, message.qos);
        self.commands.send(command).await.map_err(|_| self.closed_error())
    }

    /// Says DISCONNECT and closes. The Will is not published.
    pub async fn disconnect(&self) {
        // An error means that the connection has ended already, which is what was wanted.
        let _ = self.commands.send(Command::Disconnect).await;
        let _ = timeout(self.patience, self.closed()).await;
    }

    /// Waits until the connection has ended and says how.
    pub async fn closed(&self) -> Closed {
        let mut closed = self.closed.clone();
        match closed.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or(Closed::Dropped),
            Err(_) => Closed::Dropped,
        }
    }

    /// Whether the broker still had a session of this client identifier.
    #[must_use]
    pub fn session_present(&self) -> bool {
        self.session_present
    }

    /// Bytes and losses so far.
    #[must_use]
    pub fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    async fn greet<S>(mut socket: S, options: LinkOptions) -> Result<(Self, Inbox), LinkError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let traffic = Arc::new(Traffic::default());
        let mut input = BytesMut::new();
        let greeting = introduce(&mut socket, &options, &traffic, &mut input);
        let connack = timeout(options.patience, greeting)
            .await
            .map_err(|_| LinkError::Timeout("CONNACK"))??;
        if connack.code != ConnectReturnCode::Success {
            return Err(LinkError::Refused(connack.code));
        }
        let (commands, requests) = mpsc::channel(COMMANDS_MAX);
        let (messages, inbox) = mpsc::channel(options.inbox_max.max(1));
        let (ending, closed) = watch::channel(None);
        let patience = options.patience;
        let task = Task::new(options, traffic.clone(), requests, messages, input);
        tokio::spawn(async move {
            let reason = task.run(socket).await;
            // Nobody may be left to hear it.
            let _ = ending.send(Some(reason));
        });
        let session_present = connack.session_present;
        Ok((Self { commands, closed, traffic, session_present, patience }, inbox))
    }

    async fn request<T>(
        &self,
        awaited: &'static str,
        command: impl FnOnce(oneshot::Sender<Result<T, LinkError>>) -> Command,
    ) -> Result<T, LinkError> {
        let (done, answer) = oneshot::channel();
        let exchange = async {
            self.commands.send(command(done)).await.map_err(|_| self.closed_error())?;
            match answer.await {
                Ok(result) => result,
                Err(_) => Err(LinkError::Closed(self.closed().await)),
            }
        };
        timeout(self.patience, exchange).await.map_err(|_| LinkError::Timeout(awaited))?
    }

    fn closed_error(&self) -> LinkError {
        LinkError::Closed(self.closed.borrow().clone().unwrap_or(Closed::Dropped))
    }
}

async fn open(options: &LinkOptions) -> Result<TcpStream, LinkError> {
    let host = options.host.trim_start_matches('[').trim_end_matches(']');
    let socket = TcpStream::connect((host, options.port))
        .await
        .map_err(|source| unreachable_error(options, source))?;
    // An answer of a few bytes must not wait for the acknowledgement of the one before.
    socket.set_nodelay(true).map_err(|source| unreachable_error(options, source))?;
    Ok(socket)
}

async fn introduce<S: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut S,
    options: &LinkOptions,
    traffic: &Traffic,
    input: &mut BytesMut,
) -> Result<ConnAck, LinkError> {
    let network = |source: io::Error| LinkError::Closed(Closed::Network(source.to_string()));
    let mut output = BytesMut::new();
    connect_packet(options).write(&mut output).map_err(LinkError::Unwritable)?;
    traffic.sent_bytes.fetch_add(output.len() as u64, Ordering::Relaxed);
    socket.write_all(&output).await.map_err(network)?;
    socket.flush().await.map_err(network)?;
    loop {
        match v4::read(input, options.packet_bytes_max) {
            Ok(Packet::ConnAck(connack)) => return Ok(connack),
            Ok(other) => {
                return Err(LinkError::Closed(Closed::Unexpected(task::name_of(&other))));
            }
            Err(mqttbytes::Error::InsufficientBytes(_)) => {}
            Err(error) => return Err(LinkError::Closed(Closed::Unreadable(error))),
        }
        let count = socket.read_buf(input).await.map_err(network)?;
        traffic.received_bytes.fetch_add(count as u64, Ordering::Relaxed);
        if count == 0 {
            return Err(LinkError::Closed(Closed::ByBroker));
        }
    }
}

fn connect_packet(options: &LinkOptions) -> v4::Connect {
    let mut connect = v4::Connect::new(options.client_id.as_str());
    connect.clean_session = options.clean_session;
    connect.keep_alive = options.keep_alive_secs;
    if let Some((user, password)) = &options.login {
        connect.set_login(user.as_str(), password.as_str());
    }
    connect.last_will = options.will.as_ref().map(|(topic, payload, qos, retain)| LastWill {
        topic: topic.clone(),
        message: payload.clone(),
        qos: *qos,
        retain: *retain,
    });
    connect
}

fn unreachable_error(options: &LinkOptions, source: io::Error) -> LinkError {
    LinkError::Unreachable { host: options.host.clone(), port: options.port, source }
}

#[cfg(test)]
mod tests;
