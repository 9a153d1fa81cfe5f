//! The reference device: what an IoT device with an eUICC does on the two topics.
//!
//! It subscribes to literally `To_eUICC`, answers what is addressed to it, and keeps account of
//! everything it sees, so that a test can tell whether something was lost, doubled or meant
//! for somebody else.
//!
//! | arrives | sent back |
//! |---|---|
//! | A1 `trigger` | A2 `ret(trigger)`, and E1 if so configured (flow A→E) |
//! | B1, C1 `msg` | B2, C2 `ret(msg)`; a Bound Profile Package in it is verified first |
//! | E1 `req(n)` | E2 `profile(self)` to n, proven if it has an eUICC that signs |
//! | E2 `profile(n)` | B2 `ret(msg)`: the profile has changed `[0069]` |
//! | D2 `ret(trigger)` | nothing |
//!
//! What comes in pieces is answered once, when it is whole (see [`super::chunk`]). A device that
//! holds its answers acknowledges what arrives and says nothing more until it is released.

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mqttbytes::QoS;
use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;

use super::chunk::{Downloads, PieceError, Taken};
use super::envelope::{Body, Envelope, Kind, Tid, Wire};
use super::link::{Incoming, Link, LinkOptions};
use super::payload::{self, Euicc};
use super::{ClientError, TO_EUICC, TO_SM_SR};
use crate::ids::{Gid, Nid};

/// Messages that a report lists; older ones remain in its counts.
const HISTORY_MAX: usize = 1024;
/// Transaction ids that are remembered to recognise doubles.
const SEEN_MAX: usize = 1024;
/// Messages whose answers are held; the oldest is never answered.
const HELD_MAX: usize = 64;
/// `rc` of a device that does not want the profile.
const REFUSED: i64 = 1;
/// `rc` of a device that cannot read the package.
const BAD_PACKAGE: i64 = 2;

/// What a device is and how it behaves.
#[derive(Clone, Debug)]
pub struct DeviceOptions {
    /// Its own number.
    pub nid: Nid,
    /// Groups it belongs to, to judge what is addressed to it. It never claims membership.
    pub groups: Vec<Gid>,
    /// QoS of its subscription and of what it sends.
    pub qos: QoS,
    /// Encoding of what it sends.
    pub wire: Wire,
    /// Whether it agrees to triggers.
    pub agrees: bool,
    /// Answers nothing before [`Device::release`], as a device whose user has to agree first, or
    /// one that hangs.
    pub holds_answers: bool,
    /// Signs that a profile is deleted before it is handed over, counting from 1 at each start.
    pub euicc: Option<Arc<Euicc>>,
    /// Asks this device of this group for its profile when the server triggers it (A→E).
    pub exchange_on_trigger: Option<(Nid, Gid)>,
    /// What it has of messages in pieces; give the same to a device that is started again.
    pub downloads: Downloads,
    /// Receives a copy of every record, unless it is full; ends with the connection.
    pub observer: Option<mpsc::Sender<Received>>,
}

impl DeviceOptions {
    /// A device that agrees to everything, QoS 1, JSON.
    #[must_use]
    pub fn new(nid: Nid, groups: &[Gid]) -> Self {
        Self {
            nid,
            groups: groups.to_vec(),
            qos: QoS::AtLeastOnce,
            wire: Wire::Json,
            agrees: true,
            holds_answers: false,
            euicc: None,
            exchange_on_trigger: None,
            downloads: Downloads::default(),
            observer: None,
        }
    }
}

/// For whom a message was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addressed {
    /// This device, by its nid.
    ToMe,
    /// A group of this device.
    ToMyGroup,
    /// Somebody else: the broker should not have delivered it.
    Foreign,
}

/// The record of one message.
#[derive(Clone, Debug, PartialEq)]
pub struct Received {
    /// Its type.
    pub kind: Kind,
    /// Its nid; 0 = none.
    pub nid: u128,
    /// Its gid; 0 = none.
    pub gid: u64,
    /// Its transaction id.
    pub tid: Option<Tid>,
    /// Bytes of the body.
    pub body_bytes: usize,
    /// Digest of the body (see [`payload::digest`]).
    pub body_digest: u64,
    /// For whom it was.
    pub addressed: Addressed,
    /// A message of this type and transaction id was there before.
    pub duplicate: bool,
    /// In how many pieces it came; 1 for a whole one.
    pub pieces: u32,
}

/// What a device has seen and done.
#[derive(Clone, Debug, Default)]
pub struct DeviceReport {
    /// The latest messages, oldest first; at most 1024.
    pub messages: VecDeque<Received>,
    /// All readable messages; what came in pieces counts when it is whole.
    pub received: u64,
    /// Pieces that brought something new.
    pub pieces: u64,
    /// Pieces that had been there before.
    pub pieces_repeated: u64,
    /// Messages given up because their pieces did not fit together.
    pub pieces_broken: u64,
    /// Messages for somebody else.
    pub foreign: u64,
    /// Messages that had been there before.
    pub duplicates: u64,
    /// Payloads that are no envelope.
    pub unreadable: u64,
    /// Packages that passed the check of their structure.
    pub packages: u64,
    /// Answers that the broker has taken.
    pub answered: u64,
    /// Answers that the broker has not taken.
    pub unanswered: u64,
}

/// A running device. Dropping it cuts its connection.
#[derive(Debug)]
pub struct Device {
    link: Link,
    options: DeviceOptions,
    report: watch::Receiver<DeviceReport>,
    released: watch::Sender<bool>,
    next_tid: AtomicU64,
    tid_prefix: String,
    behaviour: AbortHandle,
}

impl Drop for Device {
    fn drop(&mut self) {
        // It holds the connection open otherwise.
        self.behaviour.abort();
    }
}

impl Device {
    /// Connects, subscribes to `To_eUICC` and serves until the connection ends.
    ///
    /// # Errors
    /// [`ClientError::Link`], [`ClientError::SubscriptionRefused`].
    pub async fn start(mut link: LinkOptions, options: DeviceOptions) -> Result<Self, ClientError> {
        // Only what it has looked at: a piece that is acknowledged never comes again.
        link.manual_acks = true;
        let (link, inbox) = Link::connect(link).await?;
        if link.subscribe(TO_EUICC, options.qos).await?.is_none() {
            link.disconnect().await;
            return Err(ClientError::SubscriptionRefused(TO_EUICC));
        }
        let (writer, report) = watch::channel(DeviceReport::default());
        let (released, release) = watch::channel(!options.holds_answers);
        let behaviour = Behaviour::new(link.clone(), options.clone(), writer, release);
        Ok(Self {
            link,
            options: DeviceOptions { observer: None, ..options },
            report,
            released,
            next_tid: AtomicU64::new(0),
            tid_prefix: fresh_prefix("d"),
            behaviour: tokio::spawn(behaviour.run(inbox)).abort_handle(),
        })
    }

    /// Its number.
    #[must_use]
    pub fn nid(&self) -> Nid {
        self.options.nid
    }

    /// D1: asks the server to provision this device.
    ///
    /// # Errors
    /// [`ClientError::Link`].
    pub async fn request_trigger(&self) -> Result<(), ClientError> {
        let request = Envelope::new(self.nid().get(), 0, Kind::Trigger);
        self.send(TO_SM_SR, request.with_body(self.eid_body())).await
    }

    /// D1 in multi mode: asks the server to provision a whole group.
    ///
    /// # Errors
    /// [`ClientError::Link`].
    pub async fn request_group_trigger(&self, gid: Gid) -> Result<(), ClientError> {
        let request = Envelope::new(0, gid.get(), Kind::Trigger);
        self.send(TO_SM_SR, request.with_body(self.eid_body())).await
    }

    /// E1: asks another device of the group for its profile.
    ///
    /// # Errors
    /// [`ClientError::Link`].
    pub async fn request_profile(&self, from: Nid, gid: Gid) -> Result<(), ClientError> {
        let kind = Kind::Req(self.nid().get());
        let request = Envelope::new(from.get(), gid.get(), kind);
        self.send(TO_EUICC, request.with_body(self.eid_body())).await
    }

    /// Answers what it has held, and everything after at once.
    pub fn release(&self) {
        self.released.send_replace(true);
    }

    /// What it has seen so far.
    #[must_use]
    pub fn report(&self) -> DeviceReport {
        self.report.borrow().clone()
    }

    /// Looks at the report without copying it. The device waits meanwhile.
    pub fn with_report(&self, look: impl FnOnce(&DeviceReport)) {
        look(&self.report.borrow());
    }

    /// Waits until the report satisfies a condition; `false` when the device ended before.
    pub async fn until(&self, condition: impl FnMut(&DeviceReport) -> bool) -> bool {
        self.report.clone().wait_for(condition).await.is_ok()
    }

    /// The connection, for what a well-behaved device would not do.
    #[must_use]
    pub fn link(&self) -> &Link {
        &self.link
    }

    /// Says goodbye to the broker.
    pub async fn stop(&self) {
        self.link.disconnect().await;
    }

    async fn send(&self, topic: &str, envelope: Envelope) -> Result<(), ClientError> {
        let number = self.next_tid.fetch_add(1, Ordering::Relaxed);
        let tid = Tid::Text(format!("{}-{number}", self.tid_prefix));
        let payload = envelope.with_tid(Some(tid)).encode(self.options.wire);
        Ok(self.link.publish(topic, self.options.qos, false, payload).await?)
    }

    fn eid_body(&self) -> Body {
        json!({"eid": self.nid().to_string()}).into()
    }
}

/// A start of transaction ids that no other run has used: two runs must not look like doubles.
pub(super) fn fresh_prefix(role: &str) -> String {
    format!("{role}{:016x}", RandomState::new().build_hasher().finish())
}

/// What tells a double: type and transaction id.
fn key_of(envelope: &Envelope) -> Option<Arc<(Kind, Tid)>> {
    envelope.tid.clone().map(|tid| Arc::new((envelope.kind, tid)))
}

/// Returns when the device is released, or ends.
async fn released_by(released: &mut watch::Receiver<bool>) {
    let _ = released.wait_for(|released| *released).await;
}

struct Behaviour {
    link: Link,
    options: DeviceOptions,
    report: watch::Sender<DeviceReport>,
    released: watch::Receiver<bool>,
    /// What is not to be answered yet.
    held: VecDeque<Envelope>,
    notifications: AtomicU64,
    /// Type and transaction id of earlier messages, oldest first.
    order: VecDeque<Arc<(Kind, Tid)>>,
    seen: HashSet<Arc<(Kind, Tid)>>,
    /// Those among them whose answer the broker has taken.
    settled: HashSet<Arc<(Kind, Tid)>>,
}

impl Behaviour {
    fn new(
        link: Link,
        options: DeviceOptions,
        report: watch::Sender<DeviceReport>,
        released: watch::Receiver<bool>,
    ) -> Self {
        Self {
            link,
            options,
            report,
            released,
            held: VecDeque::new(),
            notifications: AtomicU64::new(0),
            order: VecDeque::new(),
            seen: HashSet::new(),
            settled: HashSet::new(),
        }
    }

    async fn run(mut self, mut inbox: mpsc::Receiver<Incoming>) {
        let mut released = self.released.clone();
        loop {
            let message = tokio::select! {
                message = inbox.recv() => message,
                () = released_by(&mut released), if !self.held.is_empty() => {
                    self.serve_held().await;
                    continue;
                }
            };
            let Some(message) = message else { return };
            let taken = self.take(&message);
            // Where the connection has ended, the inbox will.
            let _ = self.link.acknowledge(&message).await;
            match taken {
                Some(Taken::Whole(request, _)) => self.serve_or_hold(*request).await,
                Some(Taken::Broken(piece, error)) => self.complain(&piece, error).await,
                Some(Taken::Part | Taken::Repeated) | None => {}
            }
        }
    }

    async fn serve_or_hold(&mut self, request: Envelope) {
        let is_free = *self.released.borrow();
        if is_free {
            self.serve_held().await;
            return self.serve(&request).await;
        }
        if self.held.len() == HELD_MAX {
            self.held.pop_front();
        }
        self.held.push_back(request);
    }

    async fn serve_held(&mut self) {
        while let Some(request) = self.held.pop_front() {
            self.serve(&request).await;
        }
    }

    /// Takes note of a message; `None` where there is nothing to answer.
    fn take(&mut self, message: &Incoming) -> Option<Taken> {
        let Ok(envelope) = Envelope::decode(&message.payload) else {
            self.report.send_modify(|report| report.unreadable += 1);
            return None;
        };
        let addressed = self.addressed(&envelope);
        if addressed == Addressed::Foreign {
            self.record(&envelope, addressed, 1);
            return None;
        }
        let is_piece = envelope.chunk.is_some();
        let taken = self.options.downloads.take(envelope);
        if is_piece {
            self.report.send_modify(|report| match taken {
                Taken::Part | Taken::Whole(..) => report.pieces += 1,
                Taken::Repeated => report.pieces_repeated += 1,
                Taken::Broken(..) => report.pieces_broken += 1,
            });
        }
        if let Taken::Whole(envelope, pieces) = &taken {
            self.record(envelope, addressed, *pieces);
        }
        Some(taken)
    }

    async fn serve(&mut self, request: &Envelope) {
        let key = key_of(request);
        // A double is answered again only if the answer may not have arrived.
        if key.as_ref().is_some_and(|key| self.settled.contains(key)) {
            return;
        }
        if self.answer(request).await {
            self.options.downloads.settle(request);
            self.settled.extend(key);
        }
    }

    /// A download of which pieces are missing is a broken package: the server is told, once.
    async fn complain(&self, piece: &Envelope, error: PieceError) {
        if piece.kind == Kind::Msg {
            let body = json!({"eid": self.eid(), "error": error.to_string()});
            self.reply(piece, Kind::RetMsg, BAD_PACKAGE, body).await;
        }
    }

    fn addressed(&self, envelope: &Envelope) -> Addressed {
        if envelope.nid == self.options.nid.get() {
            return Addressed::ToMe;
        }
        let mine = self.options.groups.iter().any(|gid| gid.get() == envelope.gid);
        if envelope.nid == 0 && mine { Addressed::ToMyGroup } else { Addressed::Foreign }
    }

    fn record(&mut self, envelope: &Envelope, addressed: Addressed, pieces: u32) {
        let body = envelope.body.to_bytes();
        let key = key_of(envelope);
        let record = Received {
            kind: envelope.kind,
            nid: envelope.nid,
            gid: envelope.gid,
            tid: envelope.tid.clone(),
            body_bytes: body.len(),
            body_digest: payload::digest(&body),
            addressed,
            duplicate: key.as_ref().is_some_and(|key| self.seen.contains(key)),
            pieces,
        };
        if let Some(key) = &key {
            self.remember(key);
        }
        if let Some(observer) = &self.options.observer {
            // An observer that is too slow misses something; the counts do not.
            let _ = observer.try_send(record.clone());
        }
        self.report.send_modify(|report| {
            report.received += 1;
            report.foreign += u64::from(record.addressed == Addressed::Foreign);
            report.duplicates += u64::from(record.duplicate);
            if report.messages.len() == HISTORY_MAX {
                report.messages.pop_front();
            }
            report.messages.push_back(record);
        });
    }

    fn remember(&mut self, key: &Arc<(Kind, Tid)>) {
        if !self.seen.insert(key.clone()) {
            return;
        }
        self.order.push_back(key.clone());
        if self.order.len() > SEEN_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.seen.remove(&oldest);
            self.settled.remove(&oldest);
        }
    }

    /// Whether everything that this message asks for has been done.
    async fn answer(&self, request: &Envelope) -> bool {
        match request.kind {
            Kind::Trigger => self.agree(request).await,
            Kind::Msg => self.install(request).await,
            Kind::Req(new) => self.hand_over(new, request).await,
            Kind::Profile(old) => self.report_change(old).await,
            Kind::RetTrigger | Kind::RetMsg => true,
        }
    }

    async fn agree(&self, request: &Envelope) -> bool {
        let rc = if self.options.agrees { 0 } else { REFUSED };
        let agreed = self.reply(request, Kind::RetTrigger, rc, json!({"eid": self.eid()})).await;
        let Some((old, gid)) = self.options.exchange_on_trigger else { return agreed };
        let wish = Envelope::new(old.get(), gid.get(), Kind::Req(self.options.nid.get()));
        let wish = wish.with_tid(request.tid.clone()).with_body(json!({"eid": self.eid()}));
        agreed && self.publish(TO_EUICC, &wish).await
    }

    async fn install(&self, request: &Envelope) -> bool {
        let (rc, body) = match request.body.package().map(|bpp| payload::verify(&bpp)) {
            None => (0, json!({"eid": self.eid()})),
            Some(Ok(outline)) => {
                self.report.send_modify(|report| report.packages += 1);
                let segments = outline.profile_segments;
                (0, json!({"eid": self.eid(), "bytes": outline.total_bytes, "segments": segments}))
            }
            Some(Err(error)) => {
                (BAD_PACKAGE, json!({"eid": self.eid(), "error": error.to_string()}))
            }
        };
        self.reply(request, Kind::RetMsg, rc, body).await
    }

    /// E2 is a token: no eUICC exports its keys. The new device fetches the profile with the
    /// activation code, and a signed notification proves that the old one has deleted it.
    async fn hand_over(&self, new: u128, request: &Envelope) -> bool {
        let kind = Kind::Profile(self.options.nid.get());
        let mut token = json!({"activationCode": format!("1$smdp.example$MOVE-{}", self.eid())});
        if let Some(notification) = self.delete_notification() {
            token["pendingNotification"] = STANDARD.encode(notification).into();
        }
        let answer =
            Envelope::new(new, request.gid, kind).with_tid(request.tid.clone()).with_body(token);
        self.publish(TO_EUICC, &answer).await
    }

    /// What its eUICC, if it has one that signs, says of a profile that is gone.
    fn delete_notification(&self) -> Option<Vec<u8>> {
        let number = self.notifications.fetch_add(1, Ordering::Relaxed) + 1;
        self.options.euicc.as_ref()?.delete_notification(number, None).ok()
    }

    async fn report_change(&self, old: u128) -> bool {
        let body = json!({"eid": self.eid(), "event": "profile-change", "from": old.to_string(),
            "to": self.eid()});
        let notice = Envelope::new(self.options.nid.get(), 0, Kind::RetMsg).with_rc(0);
        self.publish(TO_SM_SR, &notice.with_body(body)).await
    }

    /// An answer is addressed as its request was: single mode by nid, multi mode by gid. The
    /// latter hides who answers, so the body says it, as GSMA messages do.
    async fn reply(
        &self,
        request: &Envelope,
        kind: Kind,
        rc: i64,
        body: serde_json::Value,
    ) -> bool {
        let answer = Envelope::new(request.nid, request.gid, kind)
            .with_tid(request.tid.clone())
            .with_rc(rc)
            .with_body(body);
        self.publish(TO_SM_SR, &answer).await
    }

    async fn publish(&self, topic: &str, envelope: &Envelope) -> bool {
        let payload = envelope.encode(self.options.wire);
        let taken = self.link.publish(topic, self.options.qos, false, payload).await.is_ok();
        self.report.send_modify(|report| {
            if taken {
                report.answered += 1;
            } else {
                report.unanswered += 1;
            }
        });
        taken
    }

    fn eid(&self) -> String {
        self.options.nid.to_string()
    }
}
