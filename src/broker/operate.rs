//! What operators see and do of the control unit: campaigns and exchanges, page by page.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use super::admin::Page;
use super::events::rfc3339;
use super::record::News;
use super::{Broker, Calls};
use crate::ids::{Gid, Nid, Timestamp};
use crate::rsp::{
    Campaign, CampaignDevice, CampaignId, CampaignState, ControlUnit, DeviceState, Exchange,
    ExchangeState, Pair, RetryError, Target, Tid, WaveView,
};

/// A campaign, as operators see it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CampaignInfo {
    /// Its number.
    pub id: u64,
    /// A1, B1 or C1.
    pub message: &'static str,
    /// Many equal B1s were merged into it.
    pub merged: bool,
    /// The device, where it is for one that is still registered.
    pub nid: Option<String>,
    /// The group, where it is for one.
    pub gid: Option<u64>,
    /// The envelope's member `campaign`.
    pub name: Option<String>,
    /// The envelope's member `tid`.
    pub tid: Option<Value>,
    /// The server that published it.
    pub server: String,
    /// When it was published.
    #[serde(serialize_with = "rfc3339")]
    pub opened: Timestamp,
    /// Until when it waits for answers.
    #[serde(serialize_with = "rfc3339")]
    pub expires: Timestamp,
    /// Where it is in its life.
    pub state: CampaignState,
    /// Devices that count.
    pub total: u32,
    /// Devices that have answered, whatever.
    pub answered: u32,
    /// How many devices are how far.
    pub devices: BTreeMap<&'static str, u32>,
    /// Its first wave.
    pub wave: Option<WaveView>,
    /// Answers per second, lately; none once it has ended.
    pub rate: Option<f64>,
    /// Seconds until all have answered, if they go on like this; none while nobody is to answer.
    pub eta_secs: Option<u64>,
    /// Its message is still there to be sent again.
    pub retriable: bool,
}

/// Which campaigns are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CampaignFilter {
    /// Those to this group alone.
    pub gid: Option<Gid>,
    /// Those to this device alone.
    pub nid: Option<Nid>,
    /// Those that are here in their life.
    pub state: Option<CampaignState>,
    /// Those whose member `campaign` is this.
    pub name: Option<String>,
}

/// A device of a campaign, as operators see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CampaignDeviceInfo {
    /// Its number: digits.
    pub nid: String,
    /// How far it is.
    pub state: DeviceState,
}

/// An exchange, as operators see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ExchangeInfo {
    /// The old device: digits.
    pub from: String,
    /// The new device.
    pub to: String,
    /// Their common group, in whose name it is.
    pub gid: u64,
    /// How far it is.
    pub state: ExchangeState,
    /// When the new device asked.
    #[serde(serialize_with = "rfc3339")]
    pub opened: Timestamp,
    /// End of its time while something is awaited, else when it is forgotten.
    #[serde(serialize_with = "rfc3339")]
    pub until: Timestamp,
}

/// Why the others of a campaign are not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotReleased {
    /// There is none of that number.
    #[error("no such campaign; it may have been forgotten")]
    Unknown,
    /// All its devices are served alike.
    #[error("the campaign does not go out in waves")]
    NoWaves,
}

impl CampaignFilter {
    fn fits(&self, campaign: &Campaign) -> bool {
        let (device, group) = match campaign.target {
            Target::Device(nid) => (nid, None),
            Target::Group(gid) => (None, Some(gid)),
        };
        self.gid.is_none_or(|gid| group == Some(gid))
            && self.nid.is_none_or(|nid| device == Some(nid))
            && self.state.is_none_or(|state| campaign.state == state)
            && self.name.as_deref().is_none_or(|name| campaign.name.as_deref() == Some(name))
    }
}

impl Broker {
    /// Has an operator change something in the control unit: what follows from it is recorded as
    /// their doing.
    pub(super) fn operate<T>(&self, actor: &str, change: impl FnOnce(&mut ControlUnit) -> T) -> T {
        let (before, done, news) = self.with_control(|control| {
            let before = News::of(control);
            let done = change(control);
            (before, done, News::of(control).by(actor))
        });
        self.record(before);
        self.record(news);
        done
    }

    /// A page of the campaigns, newest first, from this place on; nothing is the newest.
    #[must_use]
    pub fn campaigns_page(
        &self,
        filter: &CampaignFilter,
        from: Option<u64>,
        limit: usize,
    ) -> Page<CampaignInfo, u64> {
        let control = self.control.look();
        let campaigns = control.campaigns(from.map(CampaignId), self.now());
        // Campaigns are listed from below a number on.
        let place = |campaign: &Campaign| campaign.id.0.saturating_add(1);
        let wanted = campaigns.map(|campaign| {
            (place(&campaign), filter.fits(&campaign).then(|| CampaignInfo::from(campaign)))
        });
        Page::collect(wanted, limit)
    }

    /// A campaign.
    #[must_use]
    pub fn campaign_info(&self, id: CampaignId) -> Option<CampaignInfo> {
        self.control.look().campaign(id, self.now()).map(CampaignInfo::from)
    }

    /// A page of the devices of a campaign, from this place on; of those in a state, where that
    /// is asked. `None`: there is no such campaign.
    #[must_use]
    pub fn campaign_devices_page(
        &self,
        id: CampaignId,
        state: Option<DeviceState>,
        from: u32,
        limit: usize,
    ) -> Option<Page<CampaignDeviceInfo>> {
        let control = self.control.look();
        control.campaign(id, self.now())?;
        let from = usize::try_from(from).unwrap_or(usize::MAX);
        let devices = control.campaign_devices(id, from).map(|device: CampaignDevice| {
            let place = u32::try_from(device.place.saturating_sub(1)).unwrap_or(u32::MAX);
            let wanted = state.is_none_or(|state| device.state == state);
            let info = || CampaignDeviceInfo { nid: device.nid.to_string(), state: device.state };
            (place, wanted.then(info))
        });
        Some(Page::collect(devices, limit))
    }

    /// Sends a campaign's message again to those that had it and did not answer; on demand to
    /// those that reported a failure, too. Gives how many. The audit log names the actor.
    ///
    /// # Errors
    /// [`RetryError`]; then nothing has changed.
    pub fn retry_campaign(
        &self,
        actor: &str,
        id: CampaignId,
        failed_too: bool,
    ) -> Result<u32, RetryError> {
        let now = self.now();
        let retried = self.operate(actor, |control| control.retry(id, failed_too, now));
        let (devices, wake) = retried?;
        self.sessions.call(&wake, Calls::MAIL);
        Ok(devices)
    }

    /// Takes a campaign's message back from every device that was not given it yet. Gives from how
    /// many; `None`: there is no such campaign. The audit log names the actor.
    #[must_use]
    pub fn cancel_campaign(&self, actor: &str, id: CampaignId) -> Option<u32> {
        self.operate(actor, |control| control.cancel(id))
    }

    /// Serves all others, whatever the first wave said. The audit log names the actor.
    ///
    /// # Errors
    /// [`NotReleased`].
    pub fn release_campaign(&self, actor: &str, id: CampaignId) -> Result<(), NotReleased> {
        let now = self.now();
        let wake = self.operate(actor, |control| {
            control.campaign(id, now).ok_or(NotReleased::Unknown)?;
            control.release(id).ok_or(NotReleased::NoWaves)
        })?;
        self.sessions.call(&wake, Calls::MAIL);
        Ok(())
    }

    /// A page of the exchanges behind a pair, in the order of pairs. It goes on behind `next`.
    #[must_use]
    pub fn exchanges_page(
        &self,
        behind: Option<Pair>,
        limit: usize,
    ) -> Page<ExchangeInfo, Option<Pair>> {
        let control = self.control.look();
        let mut before = behind;
        let exchanges = control.exchanges_behind(behind).map(|(pair, exchange)| {
            (before.replace(pair), Some(ExchangeInfo::from((pair, exchange))))
        });
        Page::collect(exchanges, limit)
    }

    /// A device that has given its profile away takes part again; `false` where it did, or is not
    /// registered. The audit log names the actor.
    pub fn reinstate_device(&self, actor: &str, nid: Nid) -> bool {
        self.operate(actor, |control| control.reinstate(nid))
    }
}

impl From<(Pair, &Exchange)> for ExchangeInfo {
    fn from((pair, exchange): (Pair, &Exchange)) -> Self {
        Self {
            from: pair.from.to_string(),
            to: pair.to.to_string(),
            gid: exchange.gid.get(),
            state: exchange.state,
            opened: exchange.opened,
            until: exchange.until,
        }
    }
}

impl From<Campaign> for CampaignInfo {
    fn from(campaign: Campaign) -> Self {
        let (nid, gid) = match campaign.target {
            Target::Device(nid) => (nid.map(|nid| nid.to_string()), None),
            Target::Group(gid) => (None, Some(gid.get())),
        };
        let count = |state: &DeviceState| (state.name(), campaign.tally.of(*state));
        let is_served = matches!(campaign.state, CampaignState::Running | CampaignState::Canary);
        let rate = (campaign.rate * 1000.0).round() / 1000.0;
        Self {
            id: campaign.id.0,
            message: campaign.message.name(),
            merged: campaign.merged,
            nid,
            gid,
            name: campaign.name.map(String::from),
            tid: campaign.tid.map(tid),
            server: campaign.server.to_string(),
            opened: campaign.opened,
            expires: campaign.expires,
            state: campaign.state,
            total: campaign.tally.total(),
            answered: campaign.tally.answered(),
            devices: DeviceState::ALL.iter().map(count).collect(),
            wave: campaign.wave,
            rate: (campaign.state != CampaignState::Ended).then_some(rate),
            eta_secs: campaign.eta.filter(|_| is_served).map(whole_secs),
            retriable: campaign.retriable,
        }
    }
}

/// Rounded up: what is not over takes some time.
fn whole_secs(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

/// Numbers that JSON readers may not hold stand as texts.
fn tid(tid: Tid) -> Value {
    match tid {
        Tid::Text(text) => String::from(text).into(),
        Tid::Number(number) => match i64::try_from(number) {
            Ok(number) => number.into(),
            Err(_) => number.to_string().into(),
        },
    }
}
