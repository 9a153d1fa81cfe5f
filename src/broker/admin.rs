//! What operators ask and change: sessions and devices, page by page, and the registry.
//!
//! No lock is held for longer than one page takes, or one step of an import.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::attach::TAKEOVER_PATIENCE;
use super::events::{BrokerEvent, ClientInfo, EventListener, RegistryChange};
use super::sessions::{Handle, Slots, lock};
use super::{Broker, Calls};
use crate::audit::Entry;
use crate::ids::{ClientId, Gid, Nid, Timestamp};
use crate::log::Rfc3339;
use crate::rsp::{ControlOptions, ControlUnit, Device, ImportReport, Intake, LineReason};

/// Places that are looked at for one page, however few of them are wanted.
const LOOKED_AT_MAX: usize = 10_000;

/// Between two steps of an import publishers have their turn.
const BETWEEN_STEPS: Duration = Duration::from_micros(100);

/// A part of a list, and where the next part begins. It may be empty and not the last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T, P = u32> {
    /// In the order of their places.
    pub items: Vec<T>,
    /// The place to go on from; nothing when that was all.
    pub next: Option<P>,
}

impl<T, P> Page<T, P> {
    /// From places in which there may be something that is wanted.
    pub(super) fn collect(places: impl Iterator<Item = (P, Option<T>)>, limit: usize) -> Self {
        let mut items = Vec::new();
        for (looked_at, (place, item)) in places.enumerate() {
            if items.len() == limit || looked_at == LOOKED_AT_MAX {
                return Self { items, next: Some(place) };
            }
            items.extend(item);
        }
        Self { items, next: None }
    }

    /// The same page of what is made of each.
    pub fn map<U>(self, make: impl FnMut(T) -> U) -> Page<U, P> {
        Page { items: self.items.into_iter().map(make).collect(), next: self.next }
    }
}

/// A session, as operators see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SessionInfo {
    /// Whose it is; with its address while it is connected.
    #[serde(flatten)]
    pub client: ClientInfo,
    /// It is connected.
    pub online: bool,
    /// The version of MQTT that it spoke last.
    pub version: Option<&'static str>,
    /// What carried it then: `mqtt`, `mqtts`, `ws` or `wss`.
    pub transport: Option<&'static str>,
    /// When it connected last.
    pub connected_at: Option<String>,
    /// What stands before every topic of it.
    pub mount_point: Option<String>,
    /// Filters that it is subscribed to.
    pub subscriptions: usize,
    /// What waits for it, beside mail.
    pub queue: QueueInfo,
}

/// What waits for a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct QueueInfo {
    /// Messages.
    pub messages: usize,
    /// Bytes of topics and payloads.
    pub bytes: usize,
}

/// A registered device, as operators see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeviceInfo {
    /// Its number: digits.
    pub nid: String,
    /// Its groups, ascending.
    pub gids: Vec<u64>,
    /// Name and value.
    pub labels: BTreeMap<String, String>,
    /// The client that reads its mail is connected.
    pub online: bool,
    /// The client whose session reads its mail.
    pub client_id: Option<String>,
    /// It has given its profile to another device, and gets no B1 and C1 until it is reinstated.
    pub replaced: bool,
}

/// Which devices are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceFilter {
    /// The members of this group alone.
    pub gid: Option<Gid>,
    /// Only those that are online, or only those that are not.
    pub online: Option<bool>,
}

/// Why a session does not end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotEnded {
    /// There is none of this client.
    #[error("there is no such session")]
    Unknown,
    /// Its connection does not let go.
    #[error("the connection of this client is still busy")]
    StillBusy,
    /// It has no connection that could end.
    #[error("the client is not connected")]
    Away,
}

/// Why a registry file changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotReplaced {
    /// Nothing is in it: somebody may be writing it, and mail goes with its device.
    #[error("it is empty; leave the header line to have no devices")]
    Empty,
    /// It has broken lines.
    #[error("broken lines: {}", .0.rejected)]
    Broken(ImportReport),
}

impl Broker {
    /// Hears what happens from now on.
    #[must_use]
    pub fn listen(&self) -> EventListener {
        self.events.listen()
    }

    /// Tells whoever listens of an event.
    pub fn tell(&self, event: impl FnOnce() -> BrokerEvent) {
        self.events.tell(self.now(), event);
    }

    /// A page of the sessions, from this place on; of those that are online, or are not, where
    /// that is asked.
    #[must_use]
    pub fn sessions_page(
        &self,
        online: Option<bool>,
        from: u32,
        limit: usize,
    ) -> Page<SessionInfo> {
        let wanted = |handle: &Handle| online.is_none_or(|online| handle.is_online() == online);
        self.sessions.page(from, limit, wanted).map(|handle| session_info(&handle))
    }

    /// The session of a client.
    #[must_use]
    pub fn session_info(&self, client_id: &str) -> Option<SessionInfo> {
        let handle = self.sessions.of_client(&ClientId::from(client_id))?;
        Some(session_info(&handle))
    }

    /// Ends the connection of a client; its session stays as long as the client wanted. The audit
    /// log names the actor.
    ///
    /// # Errors
    /// [`NotEnded::Unknown`] and [`NotEnded::Away`]; then nothing has happened.
    pub fn kick_client(&self, actor: &str, client_id: &str) -> Result<(), NotEnded> {
        let handle = self.sessions.of_client(&ClientId::from(client_id));
        let handle = handle.ok_or(NotEnded::Unknown)?;
        if !handle.is_online() {
            return Err(NotEnded::Away);
        }
        handle.signal.raise(Calls::KICK);
        self.audit.record(Entry::new("session-kicked", actor).with("client_id", client_id));
        Ok(())
    }

    /// Ends the connection and the session of a client, with all that waited for it.
    ///
    /// # Errors
    /// [`NotEnded::Unknown`] and [`NotEnded::StillBusy`].
    pub async fn end_session(&self, actor: &str, client_id: &str) -> Result<(), NotEnded> {
        let handle = self.sessions.of_client(&ClientId::from(client_id));
        let handle = handle.ok_or(NotEnded::Unknown)?;
        let claim = tokio::time::timeout(TAKEOVER_PATIENCE, handle.claim(Calls::KICK)).await;
        let claim = claim.map_err(|_| NotEnded::StillBusy)?;
        self.audit.record(Entry::new("session-ended", actor).with("client_id", client_id));
        // Some sessions end with their connections.
        let Some((session, until)) = claim else { return Ok(()) };
        lock(&self.expirations).remove(until, handle.key);
        self.end(&handle, session);
        Ok(())
    }

    /// A page of the devices, from this place on.
    #[must_use]
    pub fn devices_page(&self, filter: DeviceFilter, from: u32, limit: usize) -> Page<DeviceInfo> {
        let control = self.control.look();
        let slots = self.sessions.slots();
        let wanted = |device: Device<'_>| {
            let reader = reader(&control, &slots, device.nid);
            let online = reader.is_some_and(Handle::is_online);
            filter.online.is_none_or(|wanted| wanted == online).then(|| device_info(device, reader))
        };
        let registry = control.registry();
        match filter.gid {
            Some(gid) => {
                let members = registry.members_from(gid, from);
                Page::collect(members.map(|(at, device)| (at, device.and_then(wanted))), limit)
            }
            None => {
                let devices = registry.slots_from(from);
                Page::collect(devices.map(|(at, device)| (at, device.and_then(wanted))), limit)
            }
        }
    }

    /// A registered device.
    #[must_use]
    pub fn device_info(&self, nid: Nid) -> Option<DeviceInfo> {
        let control = self.control.look();
        let device = control.registry().device(nid)?;
        Some(device_info(device, reader(&control, &self.sessions.slots(), nid)))
    }

    /// Registers a device, or gives a known one these groups and labels (`name=value`, separated
    /// by `;`). `true`: it is new. The audit log names the actor.
    ///
    /// # Errors
    /// [`LineReason`] when there are more groups or labels than one device may have.
    pub fn put_device(
        &self,
        actor: &str,
        nid: Nid,
        gids: &[Gid],
        labels: &str,
    ) -> Result<bool, LineReason> {
        let put = self.operate(actor, |control| control.put_device(nid, gids, labels));
        let is_new = put?.is_new;
        let gids: Vec<u64> = gids.iter().map(|gid| gid.get()).collect();
        self.audit.record(
            Entry::new("device-put", actor)
                .with("nid", nid.to_string())
                .with("gids", gids.clone())
                .with("labels", labels)
                .with("is_new", is_new),
        );
        self.tell(|| {
            BrokerEvent::Registry(RegistryChange::Put { nid: nid.to_string(), gids, is_new })
        });
        Ok(is_new)
    }

    /// Removes a device with its mail and open requests. `false`: it is not registered. The audit
    /// log names the actor.
    #[must_use]
    pub fn remove_device(&self, actor: &str, nid: Nid) -> bool {
        let removed = self.operate(actor, |control| control.remove_device(nid));
        let Some(reader) = removed else { return false };
        // Its mailbox is gone: it connects again and is told so.
        self.kick(reader.as_slice());
        self.audit.record(Entry::new("device-removed", actor).with("nid", nid.to_string()));
        self.tell(|| BrokerEvent::Registry(RegistryChange::Removed { nid: nid.to_string() }));
        true
    }

    /// Adds the devices of a registry file to those that are known. Broken lines are reported and
    /// hurt nobody. Takes about a second for a million devices: not for a thread that others need.
    pub fn add_to_registry(&self, actor: &str, csv: &str) -> ImportReport {
        let options = self.control.look().options().clone();
        self.take_in(actor, false, Intake::add(csv, &options))
    }

    /// Puts a registry file in the place of what is known; clients whose mailbox goes with it have
    /// to go, too.
    ///
    /// # Errors
    /// [`NotReplaced`]; then nothing has changed.
    pub fn replace_registry(&self, actor: &str, csv: &str) -> Result<ImportReport, NotReplaced> {
        self.replace_by(Intake::replace, actor, csv)
    }

    /// Takes in the registry file, which was read again: what operators have changed stays.
    ///
    /// # Errors
    /// [`NotReplaced`]; then nothing has changed.
    pub fn reload_registry(&self, actor: &str, csv: &str) -> Result<ImportReport, NotReplaced> {
        self.replace_by(Intake::reload, actor, csv)
    }

    fn replace_by<'a>(
        &self,
        read: impl FnOnce(&'a str, &ControlOptions) -> Intake<'a>,
        actor: &str,
        csv: &'a str,
    ) -> Result<ImportReport, NotReplaced> {
        if csv.trim().is_empty() {
            return Err(NotReplaced::Empty);
        }
        let options = self.control.look().options().clone();
        let intake = read(csv, &options);
        if intake.report().rejected > 0 {
            return Err(NotReplaced::Broken(intake.report().clone()));
        }
        Ok(self.take_in(actor, true, intake))
    }

    fn take_in(&self, actor: &str, replaces: bool, mut intake: Intake<'_>) -> ImportReport {
        while self.operate(actor, |control| intake.step(control)) {
            // Whoever waits for the lock needs a moment to get it.
            std::thread::sleep(BETWEEN_STEPS);
        }
        let report = intake.report().clone();
        self.kick(&report.orphans);
        self.audit.record(
            Entry::new("registry-imported", actor)
                .with("mode", if replaces { "replace" } else { "add" })
                .with("accepted", report.accepted)
                .with("rejected", report.rejected)
                .with("removed", report.removed),
        );
        self.tell(|| {
            let ImportReport { accepted, rejected, removed, .. } = report;
            BrokerEvent::Registry(RegistryChange::Imported { accepted, rejected, removed })
        });
        report
    }
}

fn session_info(handle: &Handle) -> SessionInfo {
    let online = handle.is_online();
    let client = ClientInfo::from(handle.who());
    let opened = *lock(&handle.opened);
    let (messages, bytes) = lock(&handle.outbox).size();
    SessionInfo {
        client: ClientInfo { peer: client.peer.filter(|_| online), ..client },
        online,
        version: opened.map(|(version, _)| version.name()),
        transport: *lock(&handle.transport),
        connected_at: opened.map(|(_, at): (_, Timestamp)| Rfc3339(at).to_string()),
        mount_point: handle.mount_point.as_deref().map(str::to_owned),
        subscriptions: lock(&handle.interests).filters.len(),
        queue: QueueInfo { messages, bytes },
    }
}

/// The session that reads a device's mail.
fn reader<'a>(control: &ControlUnit, slots: &'a Slots, nid: Nid) -> Option<&'a Handle> {
    slots.find(control.reader(nid)?).map(|handle| &**handle)
}

fn device_info(device: Device<'_>, reader: Option<&Handle>) -> DeviceInfo {
    let labels = device.labels.split(';').filter_map(|label| label.split_once('='));
    DeviceInfo {
        nid: device.nid.to_string(),
        gids: device.gids.iter().map(|gid| gid.get()).collect(),
        labels: labels.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        online: reader.is_some_and(Handle::is_online),
        client_id: reader.map(|handle| handle.client_id.to_string()),
        replaced: device.replaced,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_ends_when_it_is_full_or_enough_was_looked_at() {
        let all = |number: u32| (number, Some(number));
        let page = Page::collect((0..5).map(all), 2);
        assert_eq!(page, Page { items: vec![0, 1], next: Some(2) });
        assert_eq!(Page::collect((2..5).map(all), 3), Page { items: vec![2, 3, 4], next: None });
        // Few are wanted, and nobody waits for them for long.
        let few = |number: u32| (number, (number == 20_000).then_some(number));
        let (mut from, mut pages) = (Some(0), Vec::new());
        while let Some(place) = from {
            let page = Page::collect((place..30_000).map(few), 2);
            pages.push(page.items);
            from = page.next;
        }
        assert_eq!(pages, [vec![], vec![], vec![20_000]]);
    }
}
