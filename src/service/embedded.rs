//! An SM-SR within this program: the broker and the RSP server that operates its topics are one
//! process (claims 12 to 17 of the patent), with nothing between them.
//!
//! [`Service::sm_sr`] gives a handle that is a server like any other, except that no socket, no
//! TLS and no certificate is needed: the program says who it is. What it publishes is judged,
//! bounded, counted and logged like a message from the wire; what it receives waits in the same
//! inbox, under the same bounds, beside servers that are connected.
//!
//! ```
//! use simcast::config::Config;
//! use simcast::ids::{Nid, NidScheme};
//! use simcast::service::Service;
//! use simcast::service::embedded::Envelope;
//!
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! // No listener at all. To let devices in, add one to `config.listeners`.
//! let service = Service::start(Config::without_sockets()).await?;
//! let device = Nid::parse("89049032123451234512345678901235", NidScheme::Eid)?;
//! service.broker().put_device("rsp-server", device, &[], "model=tracker")?;
//!
//! let mut sm_sr = service.sm_sr("sm-sr.example").await?;
//! // A1. The device will get it, today or when it is switched on in three weeks.
//! sm_sr.publish(Envelope::trigger_device(device).with_tid("t-1")).await?;
//!
//! // Nobody can be told something that is not true: this device has asked for nothing.
//! let d2 = format!(r#"{{"nid":"{device}","gid":0,"type":"ret(trigger)","body":null}}"#);
//! let refused = sm_sr.publish(d2).await.unwrap_err();
//! assert_eq!(refused.name(), "unsolicited_answer");
//!
//! let answers = tokio::spawn(async move {
//!     while let Some(received) = sm_sr.recv().await {
//!         // … work on `received.payload()`, then say that it need not come again:
//!         received.acknowledge();
//!     }
//!     // The broker has stopped.
//! });
//! service.stop().await;
//! answers.await?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! `examples/embedded_sm_sr.rs` is a whole program with devices that connect over mutual TLS.
//!
//! **At least once.** [`SmSr::recv`] hands out a message and keeps it until
//! [`Received::acknowledge`]. A [`Received`] that is dropped without goes back to its place and is
//! given again; when the [`SmSr`] itself is dropped, all that it held goes to other servers, or
//! waits for the next one. At most `limits.max_inflight` messages are handed out and not
//! acknowledged at a time; then [`SmSr::recv`] waits. What is not fetched waits in the inbox,
//! within `[rsp] server_inbox_messages_max` and `server_inbox_bytes_max`: devices are refused
//! (`over_quota`) when it is full, and memory does not grow.

mod envelope;

use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use bytestring::ByteString;
use tokio::task::coop;

pub use envelope::{Body, Envelope};

use super::Service;
use crate::broker::{
    Attached, Broker, Calls, Handle, Parting, Peer, Rejected, Who, stamped_sender,
};
use crate::ids::{Nid, NidScheme, PacketId};
use crate::log::Shown;
use crate::metrics::DropReason;
use crate::mqtt::{
    Message, Publish, PublishProperties, QoS, ReasonCode, RetainHandling, Subscribe,
    SubscribeFilter, SubscribeOptions, Version, topic,
};
use crate::rsp::{self, Head, Identity, Refusal, RspTopic};
use crate::session::{Delivery, Opening, Origin, Session};

/// Why there is no handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The name would be none in logs and rules.
    #[error("a server's name has at least one character, and no control characters")]
    BadName,
    /// The name of the share group cannot stand in a filter `[MQTT-4.8.2-1]`.
    #[error("a share group's name has at least one character, and none of `/`, `+`, `#`")]
    BadGroup,
    /// The broker has no session for it.
    #[error(transparent)]
    Rejected(#[from] Rejected),
    /// The broker does not let it subscribe; the bounds of subscriptions may be too narrow.
    #[error("no subscription to the servers' topic: {0:?}")]
    NotSubscribed(ReasonCode),
}

/// Why a message was not taken. Nobody will receive it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It breaks a rule of the control unit.
    #[error("{}: {}", .0.name(), .0.explain())]
    ByRule(Refusal),
    /// Its handle is not one any more.
    #[error("{ENDED}: {ENDED_EXPLAINED}")]
    Ended,
}

const ENDED: &str = "ended";
const ENDED_EXPLAINED: &str =
    "The broker has stopped, or the handle was closed or sent away; open another one.";

impl Refused {
    /// The name in metrics, logs and Reason Strings.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ByRule(refusal) => refusal.name(),
            Self::Ended => ENDED,
        }
    }

    /// What a client of MQTT 5 would be told.
    #[must_use]
    pub fn reason(self) -> ReasonCode {
        match self {
            Self::ByRule(refusal) => refusal.reason_code(),
            Self::Ended => ReasonCode::ServerUnavailable,
        }
    }

    /// One sentence that says what to do about it.
    #[must_use]
    pub fn sentence(self) -> &'static str {
        match self {
            Self::ByRule(refusal) => refusal.explain(),
            Self::Ended => ENDED_EXPLAINED,
        }
    }
}

impl Service {
    /// Opens a handle that is an SM-SR of this name. It gets every message on the servers' topic,
    /// also beside other servers and other handles, whatever their names.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn sm_sr(&self, name: &str) -> Result<SmSr, OpenError> {
        SmSr::open(&self.broker, name, None).await
    }

    /// The same as a member of a share group: of all its members, connected ones among them, one
    /// gets each message. What a member fetches is given to it alone; to share work, fetch when
    /// there is time for it.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn sm_sr_shared(&self, name: &str, group: &str) -> Result<SmSr, OpenError> {
        SmSr::open(&self.broker, name, Some(group)).await
    }
}

/// A server within this program. Dropping it ends it: what it held goes to others.
#[derive(Debug)]
pub struct SmSr {
    seat: Arc<Seat>,
    /// Gone when it has ended.
    session: Option<Box<Session>>,
    batch: Vec<Delivery>,
}

/// The voice of an [`SmSr`]: publishes from as many tasks as there are clones of it. It does not
/// keep the server alive.
#[derive(Clone, Debug)]
pub struct Publisher(Arc<Seat>);

/// A message to the servers. Dropping it without [`Received::acknowledge`] gives it back.
#[derive(Debug)]
pub struct Received {
    seat: Arc<Seat>,
    message: Arc<Message>,
    origin: Origin,
    acknowledged: bool,
}

/// What a server, its voices and its messages share.
struct Seat {
    broker: Arc<Broker>,
    handle: Arc<Handle>,
    to_euicc: ByteString,
    /// Handed out, neither acknowledged nor dropped.
    unacknowledged: AtomicUsize,
    /// How many there may be.
    unacknowledged_max: usize,
    ended: AtomicBool,
}

impl SmSr {
    async fn open(
        broker: &Arc<Broker>,
        name: &str,
        group: Option<&str>,
    ) -> Result<Self, OpenError> {
        if name.is_empty() || name.chars().any(char::is_control) {
            return Err(OpenError::BadName);
        }
        let filter = filter(&broker.options().topics.to_sm_sr, group)?;
        let identity = Identity::server(name);
        let opening = opening(broker.fresh_client_id());
        let client_id = &*opening.client_id;
        let who = Who { identity: &identity, client_id, peer: Some(Peer::Embedding) };
        let attached = broker.attach(&who, &opening, None).await?;
        // From here on whatever fails ends the session.
        let sm_sr = Self::new(broker, attached);
        let handle = &sm_sr.seat.handle;
        let reasons = broker.subscribe(handle, &subscribe(filter)).await.reasons;
        if let Some(refused) = reasons.iter().find(|reason| reason.is_error()) {
            return Err(OpenError::NotSubscribed(*refused));
        }
        let (client, identity, peer) = (Shown(client_id), Shown(name), Peer::Embedding);
        tracing::info!(%client, %identity, role = ?handle.identity.role, %peer, "connected");
        Ok(sm_sr)
    }

    fn new(broker: &Arc<Broker>, attached: Attached) -> Self {
        let options = broker.options();
        let seat = Seat {
            broker: Arc::clone(broker),
            handle: attached.handle,
            to_euicc: ByteString::from(&*options.topics.to_euicc),
            unacknowledged: AtomicUsize::new(0),
            unacknowledged_max: options.session.in_flight_max.into(),
            ended: AtomicBool::new(false),
        };
        Self { seat: Arc::new(seat), session: Some(attached.session), batch: Vec::new() }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.seat.handle.identity.name
    }

    /// A voice of this server, to be given to other tasks.
    #[must_use]
    pub fn publisher(&self) -> Publisher {
        Publisher(Arc::clone(&self.seat))
    }

    /// [`Publisher::publish`].
    ///
    /// # Errors
    /// [`Refused`].
    pub async fn publish(&self, envelope: impl Into<Bytes>) -> Result<(), Refused> {
        self.seat.publish(envelope.into(), None).await
    }

    /// [`Publisher::publish_expiring`].
    ///
    /// # Errors
    /// [`Refused`].
    pub async fn publish_expiring(
        &self,
        envelope: impl Into<Bytes>,
        after: Duration,
    ) -> Result<(), Refused> {
        self.seat.publish(envelope.into(), Some(after)).await
    }

    /// The next message to this server: those that wait, oldest first, then those that come.
    /// `None`: it has ended, because the broker stops or an operator has sent it away. The future
    /// may be dropped; nothing is lost by that.
    pub async fn recv(&mut self) -> Option<Received> {
        poll_fn(|context| self.poll_recv(context)).await
    }

    /// [`SmSr::recv`] for who polls by hand, such as an implementation of `Stream`. Only the task
    /// that polled last is woken.
    pub fn poll_recv(&mut self, context: &mut Context<'_>) -> Poll<Option<Received>> {
        let turn = ready!(coop::poll_proceed(context));
        if self.session.is_none() {
            return Poll::Ready(None);
        }
        // Registers the task: whoever posts from here on wakes it.
        if let Poll::Ready(calls) = self.seat.handle.signal.poll_take(context)
            && let Some(why) = end_of(calls)
        {
            self.end(why);
            return Poll::Ready(None);
        }
        let Some(received) = self.fetch() else { return Poll::Pending };
        turn.made_progress();
        Poll::Ready(Some(received))
    }

    /// Ends the server, as dropping it does.
    pub fn close(self) {
        drop(self);
    }

    fn fetch(&mut self) -> Option<Received> {
        let Seat { broker, handle, .. } = &*self.seat;
        if self.seat.unacknowledged.load(Ordering::Acquire) >= self.seat.unacknowledged_max {
            return None;
        }
        loop {
            // One at a time: what this server has no time for is free for others of its group.
            let _left = broker.pull(handle, Calls::MAIL, 1, 0, &mut self.batch);
            let Delivery { message, origin, qos, .. } = self.batch.pop()?;
            if message.expires <= broker.now() {
                broker.discard(handle, origin, DropReason::Expired);
                continue;
            }
            broker.metrics().message_out(qos, message.payload.len());
            self.seat.unacknowledged.fetch_add(1, Ordering::AcqRel);
            let seat = Arc::clone(&self.seat);
            return Some(Received { seat, message, origin, acknowledged: false });
        }
    }

    fn end(&mut self, why: &'static str) {
        let Some(session) = self.session.take() else { return };
        let Seat { broker, handle, ended, .. } = &*self.seat;
        ended.store(true, Ordering::Release);
        broker.detach(handle, session, Parting::Ended);
        let (client, peer) = (Shown(handle.client_id.as_str()), Peer::Embedding);
        let identity = Shown(&handle.identity.name);
        tracing::info!(%client, %identity, %peer, "disconnected: {why}");
    }
}

impl Drop for SmSr {
    fn drop(&mut self) {
        self.end("closed by the program");
    }
}

impl Publisher {
    /// Publishes an envelope to devices (`To_eUICC`): an [`Envelope`], or bytes in JSON or CBOR.
    /// When this returns, the broker owns the message or has refused it; from one task, messages
    /// reach each device in the order of the calls. Each device gets it with the quality of
    /// service that it has subscribed with.
    ///
    /// # Errors
    /// [`Refused`]; then nothing has changed and nobody receives anything.
    pub async fn publish(&self, envelope: impl Into<Bytes>) -> Result<(), Refused> {
        self.0.publish(envelope.into(), None).await
    }

    /// The same for a message that is of no use later (in whole seconds, rounded up): whoever has
    /// not fetched it by then does not get it. Never later than `[rsp] mail_ttl`.
    ///
    /// # Errors
    /// [`Refused`].
    pub async fn publish_expiring(
        &self,
        envelope: impl Into<Bytes>,
        after: Duration,
    ) -> Result<(), Refused> {
        self.0.publish(envelope.into(), Some(after)).await
    }
}

impl Seat {
    async fn publish(&self, payload: Bytes, expiry: Option<Duration>) -> Result<(), Refused> {
        // Who publishes a lot leaves others their turn.
        coop::consume_budget().await;
        if self.has_ended() {
            return Err(Refused::Ended);
        }
        let publish = Publish {
            dup: false,
            qos: QoS::ExactlyOnce,
            retain: false,
            topic: self.to_euicc.clone(),
            packet_id: None,
            properties: expiry.map(expiring),
            payload,
        };
        let Self { broker, handle, .. } = self;
        if broker.store_trouble().is_some() {
            return Err(Refused::ByRule(Refusal::OverQuota));
        }
        let received = broker.now();
        broker.metrics().message_in(publish.qos, publish.payload.len());
        let submitted = broker.submit(&handle.publisher(), RspTopic::ToEuicc, publish);
        let submitted = submitted.map_err(Refused::ByRule);
        if let Ok(commit) = submitted {
            broker.durable(commit).await;
        }
        broker.metrics().publish_acked(broker.now().since(received));
        submitted.map(|_commit| ())
    }

    /// Also where nobody has fetched since it was told to end.
    fn has_ended(&self) -> bool {
        let ends = Calls::SHUTDOWN.with(Calls::KICK).with(Calls::TAKEOVER);
        self.ended.load(Ordering::Acquire) || self.handle.signal.is_up(ends)
    }

    /// A message is not in the program's hands any more.
    fn make_room(&self) {
        let before = self.unacknowledged.fetch_sub(1, Ordering::AcqRel);
        if before == self.unacknowledged_max {
            self.handle.signal.raise(Calls::MAIL);
        }
    }
}

impl fmt::Debug for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { handle, unacknowledged, ended, .. } = self;
        f.debug_struct("Seat")
            .field("name", &handle.identity.name)
            .field("client_id", &handle.client_id)
            .field("unacknowledged", unacknowledged)
            .field("ended", ended)
            .finish_non_exhaustive()
    }
}

impl Received {
    /// The whole envelope, as the device sent it.
    #[must_use]
    pub fn payload(&self) -> &Bytes {
        &self.message.payload
    }

    /// The head of the envelope. On the servers' topic nid and gid say who is meant by the
    /// message; who has sent it, [`Received::sender`] knows.
    ///
    /// # Errors
    /// None for what the control unit has let pass, which it has read in the same way.
    pub fn head(&self) -> Result<Head, Refusal> {
        rsp::envelope::read(&self.message.payload, self.seat.broker.options().scheme)
    }

    /// The device that has sent it, proven by its certificate or login `[0069]`. `None`: the
    /// control unit itself, which tells of a profile that has moved `[0098]`.
    #[must_use]
    pub fn sender(&self) -> Option<Nid> {
        // Whatever the scheme is: the number was one before it was written down.
        Nid::parse(stamped_sender(&self.message)?, NidScheme::Decimal).ok()
    }

    /// The message need not come again. Without effect when the [`SmSr`] has ended meanwhile:
    /// another server has the message by then, or the next one will.
    pub fn acknowledge(mut self) {
        self.acknowledged = true;
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        let Seat { broker, handle, .. } = &*self.seat;
        if self.acknowledged {
            let _nobody_waits = broker.delivered(handle, self.origin, false);
        } else {
            broker.put_back(handle, &[self.origin]);
        }
        self.seat.make_room();
    }
}

fn end_of(calls: Calls) -> Option<&'static str> {
    let ends = [
        (Calls::SHUTDOWN, "the broker shuts down"),
        (Calls::KICK, "ended by the operator"),
        (Calls::TAKEOVER, "session taken over"),
    ];
    ends.into_iter().find(|(call, _)| calls.contains(*call)).map(|(_, why)| why)
}

/// A connection that asks for nothing but to be there: its session ends with it, and no packet is
/// too large for it.
fn opening(client_id: ByteString) -> Opening {
    Opening {
        version: Version::V5,
        bridge: false,
        client_id,
        assigned: true,
        clean_start: true,
        expiry: Duration::ZERO,
        expiry_changed: false,
        keep_alive_secs: 0,
        keep_alive_changed: false,
        will: None,
        window: u16::MAX,
        packet_bytes_max: usize::MAX,
        topic_alias_max: 0,
        response_information: None,
        problem_information: true,
        authentication_method: None,
        qos_max: QoS::ExactlyOnce,
        mount_point: None,
    }
}

fn filter(to_sm_sr: &str, group: Option<&str>) -> Result<ByteString, OpenError> {
    let Some(name) = group else { return Ok(to_sm_sr.into()) };
    let filter = topic::shared(name, to_sm_sr);
    let taken_apart = topic::split_shared(&filter) == (group, to_sm_sr);
    if !taken_apart || topic::validate_shared(&filter).is_err() {
        return Err(OpenError::BadGroup);
    }
    Ok(filter.into())
}

fn subscribe(filter: ByteString) -> Subscribe {
    let options = SubscribeOptions {
        qos: QoS::AtLeastOnce,
        no_local: false,
        retain_as_published: false,
        retain_handling: RetainHandling::Never,
    };
    Subscribe {
        packet_id: PacketId(std::num::NonZeroU16::MIN),
        subscription_id: None,
        user: Vec::new(),
        filters: [SubscribeFilter { filter, options }].into_iter().collect(),
    }
}

fn expiring(after: Duration) -> Box<PublishProperties> {
    let secs = after.as_millis().div_ceil(1000);
    let message_expiry_secs = Some(u32::try_from(secs).unwrap_or(u32::MAX));
    Box::new(PublishProperties { message_expiry_secs, ..PublishProperties::default() })
}
