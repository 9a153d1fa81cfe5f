//! What operators see of the control unit: campaigns, page by page.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use super::events::rfc3339;
use crate::ids::Timestamp;
use crate::rsp::{Campaign, CampaignState, DeviceState, Target, Tid, WaveView};

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
    /// Answers per second, lately.
    pub rate: f64,
    /// Seconds until all have answered, if they go on like this.
    pub eta_secs: Option<u64>,
    /// Its message is still there to be sent again.
    pub retriable: bool,
}

impl From<Campaign> for CampaignInfo {
    fn from(campaign: Campaign) -> Self {
        let (nid, gid) = match campaign.target {
            Target::Device(nid) => (nid.map(|nid| nid.to_string()), None),
            Target::Group(gid) => (None, Some(gid.get())),
        };
        let count = |state: &DeviceState| (state.name(), campaign.tally.of(*state));
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
            rate: (campaign.rate * 1000.0).round() / 1000.0,
            eta_secs: campaign.eta.map(|eta| eta.as_secs()),
            retriable: campaign.retriable,
        }
    }
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
