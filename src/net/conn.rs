//! One connection: the loop that drives a session with a socket.
//!
//! The loop waits for one event, carries it out whole, sends what has become due, and waits again.
//! It never awaits the socket anywhere else, so a client that does not read cannot hold up a
//! take-over, a shutdown or its own keep-alive timer.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::Sleep;

use super::end::End;
use super::held::{Held, Item, is_acknowledgement};
use super::input::Input;
use super::output::{ALIAS_BYTES, Name, Output, frame_len};
use super::rules::{Rules, Verdict};
use super::users::{Next, Proven, Running};
use crate::broker::{Attached, Broker, Calls, Handle, NOTHING, Peer, Subscribed};
use crate::ids::Timestamp;
use crate::log::Shown;
use crate::metrics::{DropReason, OpenConnection};
use crate::mqtt::decode::{Sender, decode};
use crate::mqtt::{Packet, Publish, QoS, Version};
use crate::session::{
    Action, Actions, Alias, Delivery, Judged, Origin, Outgoing, Receipt, Routed, Session, Turn,
    Untold, Violation,
};
use crate::store::Commit;

/// A socket with what has been read and what is to be written.
#[derive(Debug)]
pub(super) struct Link<S> {
    pub(super) stream: S,
    pub(super) input: Input,
    pub(super) output: Output,
    pub(super) peer: Peer,
    /// What the CONNECT said of it; nothing larger is sent, not even a refusal.
    pub(super) packet_bytes_max: usize,
}

/// What has happened since the loop looked last. All of it is looked at every time, so that a busy
/// mailbox keeps nobody from being heard.
#[derive(Debug, PartialEq, Eq)]
struct Events {
    calls: Calls,
    read: bool,
    flushed: bool,
    deadline: bool,
}

impl Events {
    const NONE: Self = Self { calls: Calls::NONE, read: false, flushed: false, deadline: false };
}

/// Bytes of one connection's output that hold up further work for it.
#[derive(Clone, Copy, Debug)]
pub(super) struct ConnLimits {
    pub(super) frame_bytes_max: usize,
    /// Above this no more is read from the client and no more messages are taken for it.
    pub(super) output_bytes_max: usize,
}

/// A connection after its CONNECT.
pub(super) struct Conn<S> {
    link: Link<S>,
    broker: Arc<Broker>,
    handle: Arc<Handle>,
    session: Box<Session>,
    counted: OpenConnection,
    limits: ConnLimits,
    rules: Arc<Rules>,
    timer: Option<Pin<Box<Sleep>>>,
    /// Where something may be waiting for this session.
    waiting: Calls,
    /// Where something waits for room in the client's window.
    blocked: Calls,
    /// Mail sent with QoS 0: the device has it once it has left for the socket.
    unflushed: Vec<Origin>,
    actions: Actions,
    batch: Vec<Delivery>,
    /// Deliveries since others last had their turn.
    in_a_row: usize,
    /// How far the store must be before anything is acknowledged.
    gate: Commit,
    held: Held,
    /// The user that the client has shown to be, if a password file was asked.
    proven: Option<Proven>,
    /// The client is showing it again.
    reauth: Option<Box<Running>>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Conn<S> {
    pub(super) fn new(
        link: Link<S>,
        broker: Arc<Broker>,
        attached: Attached,
        counted: OpenConnection,
        limits: ConnLimits,
        rules: Arc<Rules>,
        proven: Option<Proven>,
    ) -> Self {
        Self {
            link,
            broker,
            handle: attached.handle,
            session: attached.session,
            counted,
            limits,
            rules,
            timer: None,
            waiting: Calls::NONE,
            blocked: Calls::NONE,
            unflushed: Vec::new(),
            actions: Actions::new(),
            batch: Vec::new(),
            in_a_row: 0,
            gate: NOTHING,
            held: Held::default(),
            proven,
            reauth: None,
        }
    }

    /// Runs the connection to its end, then gives the session back to the broker.
    pub(super) async fn run(mut self, resumed: bool) {
        if resumed {
            // What is sent again may have been written down just now.
            self.gate = self.broker.hasten(&self.handle);
            self.session.resend(&mut self.actions);
        }
        let end = match self.turn().await {
            Ok(never) => match never {},
            Err(end) => end,
        };
        // To the end of this function: until it is closed, the connection is there.
        let Self { mut link, broker, handle, session, counted: _counted, unflushed, .. } = self;
        broker.put_back(&handle, &unflushed);
        end.note(&broker, &handle, link.peer);
        broker.metrics().disconnected(end.label());
        end.protocol_error().into_iter().for_each(|error| broker.metrics().protocol_error(error));
        let goodbye = end.reason().and_then(|reason| session.goodbye(reason, &end.to_string()));
        let goodbye = goodbye.and_then(|packet| session.fitted(packet));
        let version = session.version();
        // The session goes back first: a slow socket must not keep a take-over waiting.
        broker.detach(&handle, session, end.parting());
        if let Some(packet) = goodbye {
            broker.metrics().packet_out((&packet).into());
            link.output.packet(&packet, version);
        }
        if !matches!(end, End::Closed | End::Io(_)) {
            link.close().await;
        }
    }

    async fn turn(&mut self) -> Result<std::convert::Infallible, End> {
        self.carry_out().await?;
        self.take_frames().await?;
        loop {
            self.deliver();
            if self.in_a_row >= IN_A_ROW_MAX {
                // A long queue and a socket that takes everything hold up nobody else.
                self.in_a_row = 0;
                tokio::task::yield_now().await;
            }
            let events = poll_fn(|context| self.poll_events(context)).await?;
            if events.flushed {
                for origin in std::mem::take(&mut self.unflushed) {
                    let _nobody_waits = self.broker.delivered(&self.handle, origin, false);
                }
            }
            if events.read {
                self.session.heard(self.broker.now());
                self.take_frames().await?;
            }
            // A client that says goodbye and comes back at once has said goodbye: what it sent
            // before counts before the call of its successor.
            self.on_calls(events.calls)?;
            if events.deadline {
                self.timer = None;
                self.session.on_deadline(self.broker.now())?;
            }
        }
    }

    fn poll_events(&mut self, context: &mut Context<'_>) -> Poll<Result<Events, End>> {
        let mut events = Events::NONE;
        let mut broken = None;
        let Link { stream, output, .. } = &mut self.link;
        if !output.is_empty() {
            let before = output.len();
            let written = output.poll_write(stream, context);
            self.broker.metrics().bytes_out(before - output.len());
            self.counted.output_waits(output.waiting());
            // Nobody needs to hear of it unless something waits for it.
            let awaited = !self.unflushed.is_empty() || self.waiting != Calls::NONE;
            events.flushed = awaited && matches!(written, Poll::Ready(Ok(())));
            if let Poll::Ready(Err(error)) = written {
                broken = Some(error);
            }
        }
        if let Poll::Ready(calls) = self.handle.signal.poll_take(context) {
            events.calls = calls;
        }
        events.deadline = self.poll_timer(context).is_ready();
        let Link { stream, input, output, .. } = &mut self.link;
        // A client that has closed takes nothing more, but may have said goodbye before: all of it
        // is heard first.
        let has_room = output.len() < self.limits.output_bytes_max && !self.held.is_full();
        if broken.is_some() || has_room {
            match input.poll_read(stream, context)? {
                Poll::Ready(0) => return Poll::Ready(Err(End::Closed)),
                Poll::Ready(_) => events.read = true,
                Poll::Pending => {}
            }
        }
        if let (Some(error), false) = (broken, events.read) {
            return Poll::Ready(Err(error.into()));
        }
        if events == Events::NONE { Poll::Pending } else { Poll::Ready(Ok(events)) }
    }

    /// The timer is set once and looked at when it fires: packets do not move it.
    fn poll_timer(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let deadline = self.session.deadline();
        if deadline == Timestamp::NEVER {
            return Poll::Pending;
        }
        let timer = self.timer.get_or_insert_with(|| {
            Box::pin(tokio::time::sleep(deadline.since(self.broker.now()) + TIMER_SLACK))
        });
        timer.as_mut().poll(context)
    }

    fn on_calls(&mut self, calls: Calls) -> Result<(), End> {
        if calls.contains(Calls::TAKEOVER) {
            return Err(End::TakenOver);
        }
        if calls.contains(Calls::KICK) {
            return Err(End::Kicked);
        }
        if calls.contains(Calls::SHUTDOWN) {
            return Err(End::Shutdown);
        }
        let holds = |proven: &Proven| proven.still_holds();
        if calls.contains(Calls::USERS) && !self.proven.as_ref().is_none_or(holds) {
            return Err(End::UserGone);
        }
        self.waiting = self.waiting.with(calls.without(Calls::USERS.with(Calls::DURABLE)));
        if calls.contains(Calls::DURABLE) { self.release_held() } else { Ok(()) }
    }

    /// Takes everything that was read, packet by packet.
    async fn take_frames(&mut self) -> Result<(), End> {
        while let Some(frame) = self.link.input.next_frame(self.limits.frame_bytes_max)? {
            self.on_frame(frame).await?;
            // One read may hold thousands of packets: others have their turn in between.
            tokio::task::coop::consume_budget().await;
        }
        Ok(())
    }

    async fn on_frame(&mut self, frame: Bytes) -> Result<(), End> {
        self.broker.metrics().bytes_in(frame.len());
        let packet = decode(frame, self.session.version(), Sender::Client)?;
        self.broker.metrics().packet_in((&packet).into());
        let room = self.session.room();
        let completed = match &packet {
            Packet::PubComp(ack) => Some(ack.packet_id),
            Packet::PubRec(ack) if ack.reason.is_error() => Some(ack.packet_id),
            _ => None,
        };
        self.session.on_packet(packet, &mut self.actions)?;
        completed.into_iter().for_each(|id| self.broker.completed(&self.handle, id));
        if self.session.room() > room {
            self.unblock();
        }
        self.carry_out().await
    }

    /// The window has room: what waited for it is looked at again.
    fn unblock(&mut self) {
        self.waiting = self.waiting.with(self.blocked);
        self.blocked = Calls::NONE;
    }

    /// Carries out the session's actions, and those that follow from them, in order.
    async fn carry_out(&mut self) -> Result<(), End> {
        while !self.actions.is_empty() {
            for action in std::mem::take(&mut self.actions) {
                self.on_action(action).await?;
            }
        }
        Ok(())
    }

    async fn on_action(&mut self, action: Action) -> Result<(), End> {
        match action {
            Action::Send(packet) => self.send(packet)?,
            Action::Deliver(outgoing) => self.send_again(outgoing),
            Action::Publish(publish, receipt) => self.publish(publish, receipt).await?,
            Action::Subscribe(mut subscribe) => {
                self.rules.subscribe(&mut subscribe);
                let subscribed = self.broker.subscribe(&self.handle, &subscribe).await;
                let Subscribed { reasons, refused, commit } = subscribed;
                self.gate = self.gate.max(commit);
                let id = subscribe.packet_id;
                self.session.on_subscribed(id, reasons, refused, &mut self.actions);
            }
            Action::Unsubscribe(mut unsubscribe) => {
                self.rules.unsubscribe(&mut unsubscribe);
                let (reasons, commit) = self.broker.unsubscribe(&self.handle, &unsubscribe);
                self.gate = self.gate.max(commit);
                self.session.on_unsubscribed(unsubscribe.packet_id, reasons, &mut self.actions);
            }
            Action::Authenticate(turn, data) => self.authenticate(turn, &data)?,
            Action::Delivered(origin, qos) => {
                let once = qos == QoS::ExactlyOnce;
                let commit = self.broker.delivered(&self.handle, origin, once);
                if once {
                    self.gate = self.gate.max(commit);
                }
            }
            Action::Close => return Err(End::Goodbye),
        }
        Ok(())
    }

    /// Has the method judge what the client says of itself while it is connected.
    fn authenticate(&mut self, turn: Turn, data: &[u8]) -> Result<(), End> {
        let unknown = Violation::UnknownAuthenticationMethod;
        let before = self.proven.as_ref().ok_or(unknown)?;
        if turn == Turn::First {
            let method = self.session.authentication_method().unwrap_or_default();
            self.reauth = Running::begin(before.users(), method).map(Box::new);
        }
        let running = self.reauth.as_mut().ok_or(unknown)?;
        let next = running.step(data, self.link.address(), self.broker.now());
        let verdict = match next.map_err(End::NotProven)? {
            Next::Continue(data) => Judged::Continue(data),
            Next::Done(proven, _) if proven.name != before.name => {
                return Err(Violation::AnotherUser.into());
            }
            Next::Done(proven, data) => {
                self.reauth = None;
                self.proven = Some(proven);
                Judged::Done(data)
            }
        };
        self.session.on_authenticated(verdict, &mut self.actions);
        Ok(())
    }

    async fn publish(&mut self, mut publish: Publish, receipt: Receipt) -> Result<(), End> {
        self.broker.metrics().message_in(publish.qos, publish.payload.len());
        let received = self.broker.now();
        let routed = match self.rules.publish(&mut publish, self.session.version())? {
            Verdict::Pass => {
                let published = self.broker.publish(&self.handle.publisher(), publish).await;
                self.gate = self.gate.max(published.commit);
                published.routed
            }
            Verdict::Drop => {
                self.note_qos_exceeded();
                Routed::NoSubscribers
            }
        };
        self.session.on_routed(receipt, routed, &mut self.actions);
        if receipt.is_acknowledged() {
            let took = self.broker.now().since(received);
            self.broker.metrics().publish_acked(took);
        }
        self.close_if_untold(routed)
    }

    fn note_qos_exceeded(&self) {
        self.broker.metrics().dropped(DropReason::QosExceeded);
        if let Some(repeats) = self.broker.complain("qos_exceeded") {
            let (client, peer) = (Shown(self.handle.client_id.as_str()), self.link.peer);
            let repeats = repeats.field();
            tracing::warn!(%client, %peer, repeats, "dropped: published above `max_qos`");
        }
    }

    /// Before version 5 nobody can be told that a message was refused. Who claims to be another
    /// device is disconnected instead.
    fn close_if_untold(&self, routed: Routed) -> Result<(), End> {
        let Routed::Refused(refused) = routed else { return Ok(()) };
        match refused.untold {
            _any if self.session.version() == Version::V5 => Ok(()),
            Untold::Dropped => Ok(()),
            Untold::IdentityViolation => Err(End::IdentityViolation(refused.name)),
            Untold::NotAuthorized => Err(End::NotAuthorized(refused.name)),
            Untold::NoRoom => Err(End::NoRoom(refused.name)),
        }
    }

    /// Sends a packet: an acknowledgement not before the store is so far.
    fn send(&mut self, packet: Packet) -> Result<(), End> {
        let commit = match &packet {
            Packet::PubRel(ack) if !ack.reason.is_error() => {
                self.broker.taken(&self.handle, ack.packet_id)
            }
            Packet::PubComp(ack) => self.broker.released(&self.handle, ack.packet_id),
            _ => NOTHING,
        };
        self.gate = self.gate.max(commit);
        if is_acknowledgement(&packet) && self.holds_back() {
            self.hold(Item::Packet(packet));
            return Ok(());
        }
        self.send_now(packet)
    }

    /// What is sent now has to wait: for the store, or behind something that does.
    fn holds_back(&self) -> bool {
        !self.held.is_empty() || !self.broker.is_durable(self.gate)
    }

    fn hold(&mut self, item: Item) {
        if self.held.is_empty() {
            self.broker.call_when_durable(self.gate, &self.handle);
        }
        self.held.push(self.gate, item);
    }

    /// The store is further than before.
    fn release_held(&mut self) -> Result<(), End> {
        while let Some(item) = self.held.take(|commit| self.broker.is_durable(commit)) {
            match item {
                Item::Packet(packet) => self.send_now(packet)?,
                Item::Message(outgoing) => self.put_now(&outgoing),
            }
        }
        let next = self.held.next();
        next.into_iter().for_each(|next| self.broker.call_when_durable(next, &self.handle));
        Ok(())
    }

    fn send_now(&mut self, packet: Packet) -> Result<(), End> {
        let packet = self.session.fitted(packet).ok_or(End::TooLargeForClient)?;
        self.broker.metrics().packet_out((&packet).into());
        self.link.output.packet(&packet, self.session.version());
        Ok(())
    }

    /// Takes what waits for this session, as much as its window and its output have room for.
    fn deliver(&mut self) {
        while self.waiting != Calls::NONE && self.link.output.len() < self.limits.output_bytes_max {
            let bytes = self.limits.output_bytes_max - self.link.output.len();
            let room = self.session.room();
            let mut batch = std::mem::take(&mut self.batch);
            let left = self.broker.pull(&self.handle, self.waiting, room, bytes, &mut batch);
            self.waiting = left.more;
            self.blocked = self.blocked.with(left.blocked);
            let now = self.broker.now();
            self.in_a_row += batch.len();
            batch.drain(..).for_each(|delivery| self.deliver_one(delivery, now));
            self.batch = batch;
            // What was pulled need not have filled the window: some of it was not fit to be sent,
            // or has QoS 0. No acknowledgement would come to tell that there is room.
            if self.session.room() > 0 {
                self.unblock();
            }
        }
        if self.waiting == Calls::NONE && self.batch.capacity() > IDLE_BATCH {
            self.batch = Vec::new();
        }
    }

    /// What a resumed session sends again has to fit the new connection, and must still be
    /// permitted.
    fn send_again(&mut self, outgoing: Outgoing) {
        let too_large = self.is_too_large(&outgoing.delivery).then_some(DropReason::TooLarge);
        let permitted = self.broker.may_send_again(&self.handle, &outgoing.delivery);
        let denied = (!permitted).then_some(DropReason::NotAuthorized);
        if let Some(reason) = too_large.or(denied) {
            outgoing.packet_id.into_iter().for_each(|id| {
                self.session.give_up(id);
                self.broker.completed(&self.handle, id);
            });
            self.session.resend(&mut self.actions);
            self.broker.discard(&self.handle, outgoing.delivery.origin, reason);
            return;
        }
        self.put(outgoing);
    }

    /// Sends a message, behind what is held back; one of QoS 2 not before its id is written down.
    fn put(&mut self, outgoing: Outgoing) {
        let Outgoing { delivery, packet_id, dup } = &outgoing;
        if let (QoS::ExactlyOnce, Some(id), false) = (delivery.qos, packet_id, dup) {
            self.gate = self.gate.max(self.broker.in_flight(&self.handle, *id, delivery));
        }
        let must_wait = delivery.qos == QoS::ExactlyOnce && self.holds_back();
        if must_wait || !self.held.is_empty() {
            self.hold(Item::Message(outgoing));
            return;
        }
        self.put_now(&outgoing);
    }

    fn put_now(&mut self, outgoing: &Outgoing) {
        let (version, now) = (self.session.version(), self.broker.now());
        let message = &outgoing.delivery.message;
        let Some(topic) = self.rules.unmounted(&message.topic) else { return };
        let (qos, len) = (outgoing.delivery.qos, message.payload.len());
        self.broker.metrics().message_out(qos, len);
        let alias = self.alias(outgoing);
        self.link.output.publish(outgoing, Name { topic, alias }, version, now);
    }

    fn deliver_one(&mut self, mut delivery: Delivery, now: Timestamp) {
        // Subscribed through another listener, perhaps.
        delivery.qos = delivery.qos.min(self.rules.qos_max);
        if let Some(reason) = self.unfit(&delivery, now) {
            self.broker.discard(&self.handle, delivery.origin, reason);
            return;
        }
        if delivery.qos == QoS::AtMostOnce && delivery.origin != Origin::Queue {
            self.unflushed.push(delivery.origin);
        }
        let outgoing = self.session.on_delivery(delivery);
        self.put(outgoing);
    }

    /// Why a delivery is not to be sent.
    fn unfit(&self, delivery: &Delivery, now: Timestamp) -> Option<DropReason> {
        if delivery.message.expires <= now {
            return Some(DropReason::Expired);
        }
        if self.rules.unmounted(&delivery.message.topic).is_none() {
            return Some(DropReason::OutsideMountPoint);
        }
        self.is_too_large(delivery).then_some(DropReason::TooLarge)
    }

    /// Whether the packet would be larger than the client takes `[MQTT-3.1.2-24]`.
    fn is_too_large(&self, delivery: &Delivery) -> bool {
        self.frame_len(delivery).is_some_and(|len| len > self.session.packet_bytes_max())
    }

    /// Bytes of the packet with its topic name, for a client that takes no packet of any size.
    fn frame_len(&self, delivery: &Delivery) -> Option<usize> {
        let bounded = self.session.packet_bytes_max() != usize::MAX;
        let topic = self.rules.unmounted(&delivery.message.topic).filter(|_| bounded)?;
        Some(frame_len(delivery, topic, self.session.version()))
    }

    /// How the topic is written. An alias that is set up makes its packet larger, once.
    fn alias(&mut self, outgoing: &Outgoing) -> Option<Alias> {
        let delivery = &outgoing.delivery;
        let room = self.session.packet_bytes_max() - self.frame_len(delivery).unwrap_or(0);
        if room < ALIAS_BYTES { None } else { self.session.alias(&delivery.message.topic) }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Link<S> {
    /// Writes what is left, then closes. A peer that still talks is listened to for a moment:
    /// closing at once would reset the connection and take the last packet with it.
    pub(super) async fn close(mut self) {
        let Self { stream, output, .. } = &mut self;
        let farewell = async {
            poll_fn(|context| output.poll_write(stream, context)).await?;
            end(stream).await
        };
        // Whether the farewell arrives is up to the peer.
        let _arrived_or_not = tokio::time::timeout(LINGER, farewell).await;
    }
}

/// Closes a stream to which the last has been written, like [`Link::close`].
pub(super) async fn close<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) {
    let _arrived_or_not = tokio::time::timeout(LINGER, end(stream)).await;
}

async fn end<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> io::Result<()> {
    stream.shutdown().await?;
    let mut scratch = [0; 1024];
    for _ in 0..LINGER_READS {
        let mut buffer = ReadBuf::new(&mut scratch);
        poll_fn(|context| Pin::new(&mut *stream).poll_read(context, &mut buffer)).await?;
        if buffer.filled().is_empty() {
            break;
        }
    }
    Ok(())
}

/// Timers of the runtime have a grain of a millisecond; this keeps them from firing early.
const TIMER_SLACK: Duration = Duration::from_millis(2);

/// How long a closing connection waits for its peer.
const LINGER: Duration = Duration::from_millis(500);

/// How many reads of a kilobyte a closing connection discards.
const LINGER_READS: usize = 64;

/// Deliveries after which others have their turn.
const IN_A_ROW_MAX: usize = 1000;

/// Slots for deliveries that an idle connection keeps.
const IDLE_BATCH: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::Who;
    use crate::broker::tests::{broker, connect};
    use crate::config::{Listener, Mqtt};
    use crate::mqtt::encode::encode;
    use crate::mqtt::{Connect, Disconnect, ReasonCode, Will};
    use crate::rsp::{Identity, TopicNames};
    use crate::session::Opening;

    fn connect_with_will() -> Connect {
        let will = Will {
            qos: QoS::AtMostOnce,
            retain: true,
            delay_secs: 0,
            topic: "will".into(),
            payload: "not said".into(),
            properties: None,
        };
        Connect { will: Some(will), ..connect("c") }
    }

    #[tokio::test]
    async fn a_goodbye_counts_before_the_call_of_a_successor() {
        let broker = Arc::new(broker());
        let limits = broker.options().session.clone();
        let opening = Opening::new(&connect_with_will(), &limits, || "fresh".into()).unwrap();
        let peer = Peer::Unix;
        let listener = Listener::anonymous(([127, 0, 0, 1], 1).into());
        let rules = Rules::new(&listener, &Mqtt::default(), &TopicNames::default());
        let rules = Arc::new(rules);
        let identity = Identity::anonymous("");
        let who = Who { identity: &identity, client_id: "c", peer: Some(peer) };
        for (goodbye, wills) in [(true, 0), (false, 1)] {
            let attached = broker.attach(&who, &opening, None).await.unwrap();
            let (near, mut far) = tokio::io::duplex(1000);
            if goodbye {
                let reason = ReasonCode::Success;
                let packet = Packet::Disconnect(Disconnect { reason, properties: None });
                let mut bytes = bytes::BytesMut::new();
                encode(&packet, Version::V5, &mut bytes);
                far.write_all(&bytes).await.unwrap();
            }
            attached.handle.signal.raise(Calls::TAKEOVER);
            let limits = ConnLimits { frame_bytes_max: 1000, output_bytes_max: 1000 };
            let link = Link::new(near, peer);
            let counted = broker.metrics().connection_opened(0, Version::V5);
            let rules = Arc::clone(&rules);
            let conn = Conn::new(link, Arc::clone(&broker), attached, counted, limits, rules, None);
            conn.run(false).await;
            assert_eq!(broker.snapshot().retained_messages, wills);
        }
    }
}
