//! The reference SM-SR (in SGP.32 terms: the eIM): triggers devices and groups, provisions
//! them, serves their requests and keeps account of their answers.
//!
//! | call or arrival | sent |
//! |---|---|
//! | [`Server::trigger_device`], [`Server::trigger_group`] | A1, then waits for A2 |
//! | [`Server::provision_device`] | B1, then waits for B2 |
//! | [`Server::provision_group`] | C1, then waits for a C2 of every member |
//! | [`Server::request`] | an A1, B1 or C1 with whatever it asks, then waits for its answers |
//! | D1, or many as one | D2, then A1, then B1 or C1 (flows D→A→B, D→A→C) |
//! | `profile(n)`, or a B2 about it | nothing: the profile has moved `[0069][0098]` |

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mqttbytes::QoS;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::device::fresh_prefix;
use super::envelope::{Body, Envelope, Kind, Tid, Wire};
use super::link::{Incoming, Link, LinkOptions, Traffic};
use super::payload::{self, BPP_BYTES};
use super::{ClientError, TO_EUICC, TO_SM_SR};
use crate::ids::{Gid, Nid, decimal};

/// Messages that a report lists; older ones remain in its counts.
const HISTORY_MAX: usize = 4096;
/// Requests whose answers are awaited at one time.
const OPEN_MAX: usize = 20_000;
/// D1s that are served at one time; further ones are counted and left alone.
const FLOWS_MAX: usize = 10_000;

/// How a server behaves.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// `To_SM-SR`, or a shared subscription to it.
    pub filter: String,
    /// QoS of its subscription and of what it sends.
    pub qos: QoS,
    /// Encoding of what it sends.
    pub wire: Wire,
    /// How long to wait for the answers to one request.
    pub patience: Duration,
    /// Whether a D1 starts provisioning; otherwise it is only counted.
    pub serves_requests: bool,
    /// How many answers a D1 for a group leads to; a group that is not listed is waited for
    /// until patience ends.
    pub group_sizes: HashMap<Gid, usize>,
    /// Receives a copy of every record, unless it is full; ends with the connection.
    pub observer: Option<mpsc::Sender<Heard>>,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            filter: TO_SM_SR.into(),
            qos: QoS::AtLeastOnce,
            wire: Wire::Json,
            patience: Duration::from_secs(30),
            serves_requests: true,
            group_sizes: HashMap::new(),
            observer: None,
        }
    }
}

/// The record of one message from a device or from the control unit.
#[derive(Clone, Debug, PartialEq)]
pub struct Heard {
    /// Its type.
    pub kind: Kind,
    /// Its nid; 0 = none.
    pub nid: u128,
    /// Its gid; 0 = none.
    pub gid: u64,
    /// Who sent it: the stamp of the control unit, else the EID in the body, else the nid.
    pub sender: Option<u128>,
    /// Its transaction id.
    pub tid: Option<Tid>,
    /// Its result code; 0 where there is none.
    pub rc: i64,
    /// Bytes of the body.
    pub body_bytes: usize,
    /// It tells that a profile has moved from one device to another.
    pub profile_change: bool,
    /// Who has asked, where the control unit sends many D1s as one.
    pub requesters: Vec<u128>,
}

/// What a server has heard.
#[derive(Clone, Debug, Default)]
pub struct ServerReport {
    /// The latest messages, oldest first; at most 4096.
    pub messages: VecDeque<Heard>,
    /// All readable messages.
    pub received: u64,
    /// Answers that a request was waiting for.
    pub matched: u64,
    /// Answers that no request was waiting for.
    pub unmatched: u64,
    /// D1s.
    pub requests: u64,
    /// D1s that could not be served.
    pub requests_failed: u64,
    /// D1s whose device, or whose whole group, has been provisioned.
    pub requests_served: u64,
    /// Notices of a moved profile, by the control unit and by devices.
    pub profile_changes: u64,
    /// Payloads that are no envelope.
    pub unreadable: u64,
}

/// A running server. Dropping it cuts its connection.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    listener: AbortHandle,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It holds the connection open otherwise.
        self.listener.abort();
    }
}

impl Server {
    /// Connects, subscribes and serves until the connection ends.
    ///
    /// # Errors
    /// [`ClientError::Link`], [`ClientError::SubscriptionRefused`].
    pub async fn start(link: LinkOptions, mut options: ServerOptions) -> Result<Self, ClientError> {
        let (link, inbox) = Link::connect(link).await?;
        if link.subscribe(&options.filter, options.qos).await?.is_none() {
            link.disconnect().await;
            return Err(ClientError::SubscriptionRefused(TO_SM_SR));
        }
        // Only the listener holds the observer: it learns that way when the connection ends.
        let observer = options.observer.take();
        let shared = Arc::new(Shared {
            link,
            options,
            report: watch::channel(ServerReport::default()).0,
            open: Mutex::default(),
            busy_groups: Mutex::default(),
            flows: Arc::new(Semaphore::new(FLOWS_MAX)),
            tid_prefix: fresh_prefix("s"),
        });
        let listener = tokio::spawn(listen(shared.clone(), inbox, observer)).abort_handle();
        Ok(Self { shared, listener })
    }

    /// A1 to one device; its A2.
    ///
    /// # Errors
    /// [`ClientError::Refused`] by the device, [`ClientError::NoAnswer`], and the link's.
    pub async fn trigger_device(&self, nid: Nid) -> Result<Heard, ClientError> {
        self.shared.ask_device(Envelope::new(nid.get(), 0, Kind::Trigger)).await
    }

    /// A1 to a group; the A2s of up to `members` members, or fewer if patience ends before.
    ///
    /// # Errors
    /// [`ClientError::Link`], [`ClientError::TooManyRequests`].
    pub async fn trigger_group(&self, gid: Gid, members: usize) -> Result<Vec<Heard>, ClientError> {
        self.request(Envelope::new(0, gid.get(), Kind::Trigger), members).await
    }

    /// B1 to one device; its B2.
    ///
    /// # Errors
    /// As [`Server::trigger_device`].
    pub async fn provision_device(
        &self,
        nid: Nid,
        body: impl Into<Body>,
    ) -> Result<Heard, ClientError> {
        self.shared.ask_device(Envelope::new(nid.get(), 0, Kind::Msg).with_body(body)).await
    }

    /// C1 to a group; the C2s of up to `members` members, or fewer if patience ends before.
    ///
    /// # Errors
    /// As [`Server::trigger_group`].
    pub async fn provision_group(
        &self,
        gid: Gid,
        body: impl Into<Body>,
        members: usize,
    ) -> Result<Vec<Heard>, ClientError> {
        self.request(Envelope::new(0, gid.get(), Kind::Msg).with_body(body), members).await
    }

    /// Sends an A1, B1 or C1 as it is, under a transaction id of this server's; the answers of up
    /// to `members` devices, or fewer if patience ends before.
    ///
    /// # Errors
    /// As [`Server::trigger_group`].
    pub async fn request(
        &self,
        request: Envelope,
        members: usize,
    ) -> Result<Vec<Heard>, ClientError> {
        self.shared.ask(request, members).await
    }

    /// What it has heard so far.
    #[must_use]
    pub fn report(&self) -> ServerReport {
        self.shared.report.borrow().clone()
    }

    /// Waits until the report satisfies a condition.
    pub async fn until(&self, condition: impl FnMut(&ServerReport) -> bool) {
        // The sender lives in `shared`, so the channel cannot have ended.
        let _ = self.shared.report.subscribe().wait_for(condition).await;
    }

    /// Bytes that went through its connection.
    #[must_use]
    pub fn traffic(&self) -> &Traffic {
        self.shared.link.traffic()
    }

    /// The connection itself.
    #[must_use]
    pub fn link(&self) -> &Link {
        &self.shared.link
    }

    /// Says goodbye to the broker.
    pub async fn stop(&self) {
        self.shared.link.disconnect().await;
    }
}

#[derive(Debug)]
struct Shared {
    link: Link,
    options: ServerOptions,
    report: watch::Sender<ServerReport>,
    open: Mutex<OpenRequests>,
    /// Groups that a D1 is being served for: the second D1 of a group adds nothing.
    busy_groups: Mutex<HashSet<u64>>,
    flows: Arc<Semaphore>,
    tid_prefix: String,
}

#[derive(Debug, Default)]
struct OpenRequests {
    last: u64,
    waiting: BTreeMap<u64, Waiting>,
}

/// A request and what has come back.
#[derive(Debug)]
struct Waiting {
    nid: u128,
    gid: u64,
    awaited: Kind,
    members: usize,
    answers: Vec<Heard>,
    senders: HashSet<u128>,
    done: oneshot::Sender<Vec<Heard>>,
}

impl Shared {
    async fn ask_device(&self, request: Envelope) -> Result<Heard, ClientError> {
        let mut answers = self.ask(request, 1).await?;
        let answer = answers.pop().ok_or(ClientError::NoAnswer)?;
        if answer.rc == 0 { Ok(answer) } else { Err(ClientError::Refused(answer.rc)) }
    }

    async fn ask(&self, request: Envelope, members: usize) -> Result<Vec<Heard>, ClientError> {
        let (nid, gid) = (request.nid, request.gid);
        let is_trigger = request.kind == Kind::Trigger;
        let awaited = if is_trigger { Kind::RetTrigger } else { Kind::RetMsg };
        let (done, answers) = oneshot::channel();
        let senders = HashSet::new();
        let waiting = Waiting { nid, gid, awaited, members, answers: Vec::new(), senders, done };
        let number = self.open().insert(waiting).ok_or(ClientError::TooManyRequests)?;
        let tid = Tid::Text(format!("{}-{number}", self.tid_prefix));
        if let Err(error) = self.publish(&request.with_tid(Some(tid))).await {
            self.open().waiting.remove(&number);
            return Err(error);
        }
        if members == 0 {
            return Ok(self.give_up(number));
        }
        match timeout(self.options.patience, answers).await {
            Ok(Ok(answers)) => Ok(answers),
            Ok(Err(_)) | Err(_) => Ok(self.give_up(number)),
        }
    }

    /// What has come until now; later answers are unmatched.
    fn give_up(&self, number: u64) -> Vec<Heard> {
        self.open().waiting.remove(&number).map(|waiting| waiting.answers).unwrap_or_default()
    }

    async fn publish(&self, envelope: &Envelope) -> Result<(), ClientError> {
        let payload = envelope.encode(self.options.wire);
        Ok(self.link.publish(TO_EUICC, self.options.qos, false, payload).await?)
    }

    fn take(self: &Arc<Self>, message: &Incoming) -> Option<Heard> {
        let Ok(envelope) = Envelope::decode(&message.payload) else {
            self.report.send_modify(|report| report.unreadable += 1);
            return None;
        };
        let heard = hear(&envelope);
        let matched = match heard.kind {
            Kind::RetTrigger | Kind::RetMsg if !heard.profile_change => Some(self.settle(&heard)),
            Kind::RetTrigger | Kind::RetMsg | Kind::Msg | Kind::Req(_) | Kind::Profile(_) => None,
            Kind::Trigger => {
                self.clone().serve(envelope);
                None
            }
        };
        self.record(heard.clone(), matched);
        Some(heard)
    }

    fn record(&self, heard: Heard, matched: Option<bool>) {
        self.report.send_modify(|report| {
            report.received += 1;
            report.matched += u64::from(matched == Some(true));
            report.unmatched += u64::from(matched == Some(false));
            report.requests += u64::from(heard.kind == Kind::Trigger);
            report.profile_changes += u64::from(heard.profile_change);
            if report.messages.len() == HISTORY_MAX {
                report.messages.pop_front();
            }
            report.messages.push_back(heard);
        });
    }

    /// Whether a request was waiting for this answer.
    fn settle(&self, heard: &Heard) -> bool {
        let mut open = self.open();
        let number = match &heard.tid {
            Some(Tid::Text(text)) => self.number_of(text),
            Some(Tid::Number(_)) => None,
            None => open.oldest_like(heard),
        };
        number.is_some_and(|number| open.settle(number, heard))
    }

    fn number_of(&self, tid: &str) -> Option<u64> {
        let digits = tid.strip_prefix(self.tid_prefix.as_str())?.strip_prefix('-')?;
        decimal(digits).and_then(|number| u64::try_from(number).ok())
    }

    /// D1: answered at once, served in a task of its own.
    fn serve(self: Arc<Self>, request: Envelope) {
        if !self.options.serves_requests {
            return;
        }
        let Ok(permit) = self.flows.clone().try_acquire_owned() else {
            return self.report.send_modify(|report| report.requests_failed += 1);
        };
        tokio::spawn(async move {
            let served = self.provision_on_request(request).await;
            self.report.send_modify(|report| match served {
                Ok(true) => report.requests_served += 1,
                Ok(false) => {}
                Err(_) => report.requests_failed += 1,
            });
            drop(permit);
        });
    }

    /// `false` where another D1 of the same group is being served already.
    async fn provision_on_request(&self, request: Envelope) -> Result<bool, ClientError> {
        let (nid, gid) = (request.nid, request.gid);
        let reply = Envelope::new(nid, gid, Kind::RetTrigger).with_tid(request.tid).with_rc(0);
        self.publish(&reply).await?;
        if nid == 0 && !lock(&self.busy_groups).insert(gid) {
            return Ok(false);
        }
        let result = self.trigger_and_provision(nid, gid).await;
        lock(&self.busy_groups).remove(&gid);
        result.map(|()| true)
    }

    async fn trigger_and_provision(&self, nid: u128, gid: u64) -> Result<(), ClientError> {
        let members = match Gid::new(gid) {
            Some(gid) => self.options.group_sizes.get(&gid).copied().unwrap_or(usize::MAX),
            None => 1,
        };
        let agreed = self.ask(Envelope::new(nid, gid, Kind::Trigger), members).await?;
        if agreed.iter().all(|answer| answer.rc != 0) {
            return Err(agreed
                .first()
                .map_or(ClientError::NoAnswer, |a| ClientError::Refused(a.rc)));
        }
        let seed = (nid >> 64) as u64 ^ nid as u64 ^ gid; // any number that differs will do
        let package = payload::bound_profile_package(seed, BPP_BYTES).unwrap_or_default();
        let message = Envelope::new(nid, gid, Kind::Msg).with_body(package);
        let answers = self.ask(message, members).await?;
        match answers.iter().find(|answer| answer.rc != 0) {
            Some(refusal) => Err(ClientError::Refused(refusal.rc)),
            None if answers.is_empty() => Err(ClientError::NoAnswer),
            None => Ok(()),
        }
    }

    fn open(&self) -> MutexGuard<'_, OpenRequests> {
        lock(&self.open)
    }
}

impl OpenRequests {
    fn insert(&mut self, waiting: Waiting) -> Option<u64> {
        if self.waiting.len() >= OPEN_MAX {
            return None;
        }
        self.last += 1;
        self.waiting.insert(self.last, waiting);
        Some(self.last)
    }

    /// For devices that echo no transaction id.
    fn oldest_like(&self, heard: &Heard) -> Option<u64> {
        self.waiting.iter().find(|(_, waiting)| waiting.fits(heard)).map(|(number, _)| *number)
    }

    fn settle(&mut self, number: u64, heard: &Heard) -> bool {
        let Some(waiting) = self.waiting.get_mut(&number) else { return false };
        if !waiting.fits(heard) || heard.sender.is_some_and(|s| !waiting.senders.insert(s)) {
            return false;
        }
        waiting.answers.push(heard.clone());
        if waiting.answers.len() >= waiting.members
            && let Some(complete) = self.waiting.remove(&number)
        {
            // Whoever asked may have stopped waiting.
            let _ = complete.done.send(complete.answers);
        }
        true
    }
}

impl Waiting {
    fn fits(&self, heard: &Heard) -> bool {
        self.awaited == heard.kind && self.nid == heard.nid && self.gid == heard.gid
    }
}

async fn listen(
    shared: Arc<Shared>,
    mut inbox: mpsc::Receiver<Incoming>,
    observer: Option<mpsc::Sender<Heard>>,
) {
    while let Some(message) = inbox.recv().await {
        if let (Some(heard), Some(observer)) = (shared.take(&message), &observer) {
            // An observer that is too slow misses something; the counts do not.
            let _ = observer.try_send(heard);
        }
    }
}

fn hear(envelope: &Envelope) -> Heard {
    let eid = envelope.body.member("eid").and_then(serde_json::Value::as_str).and_then(decimal);
    let alone = Some(envelope.nid).filter(|nid| *nid != 0);
    let event = envelope.body.member("event").and_then(serde_json::Value::as_str);
    Heard {
        kind: envelope.kind,
        nid: envelope.nid,
        gid: envelope.gid,
        sender: envelope.src.or(eid).or(alone),
        tid: envelope.tid.clone(),
        rc: envelope.rc.unwrap_or(0),
        body_bytes: envelope.body.to_bytes().len(),
        profile_change: event == Some("profile-change"),
        requesters: requesters(&envelope.body),
    }
}

/// Those whose D1s a message stands for.
fn requesters(body: &Body) -> Vec<u128> {
    let list = body.member("requesters").and_then(serde_json::Value::as_array);
    let nid = |requester: &serde_json::Value| requester.get("nid")?.as_str().and_then(decimal);
    list.into_iter().flatten().filter_map(nid).collect()
}

/// What the lock protects is valid after every step, so a panic elsewhere does not spoil it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
