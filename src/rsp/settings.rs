//! Settings: what the control unit permits and what it does by itself (section 6 of the design),
//! for all groups and, where a group deviates, for that group.
//!
//! They are spelled alike in `simcast.toml` and in the admin API. A group names only what differs;
//! what then holds for it is worked out once, when something changes, and looked up by reference
//! for every message.

mod patch;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::de::{Deserializer, Error};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};

use crate::ids::Gid;
use crate::units::{self, Written};
pub use patch::{difference, merge};

/// Who may start provisioning `[0079]` `[0089]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Initiator {
    /// Both sides.
    #[default]
    Any,
    /// Only servers: refuses D1.
    Server,
    /// Only devices: refuses A1 without an open D1 of its target.
    Client,
}

/// Which form of address servers may use on `To_eUICC` `[0082]` `[0096]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Both.
    #[default]
    Any,
    /// One device at a time: refuses {0, g}.
    Single,
    /// Whole groups: refuses {n, 0} for members of the group.
    Multi,
}

/// Whether a device may ask another for its profile (E1) `[0071]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Peer {
    /// At will.
    #[default]
    Client,
    /// Only after an A1 to the asking device, until that A1's time is over `[0067]`.
    ServerTriggered,
    /// Never.
    Off,
}

/// Whether an E2 has to carry the old eUICC's signed delete notification.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PeerProof {
    /// The body is none of the broker's business.
    #[default]
    Off,
    /// Without a valid proof the profile is not handed over.
    Required,
}

/// Whether a device has to agree before it is provisioned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Flow {
    /// B1 and C1 at any time.
    #[default]
    Lenient,
    /// B1 needs an agreeing A2; C1 waits for each member until that member has agreed.
    Strict,
}

/// Whether the control unit merges messages by itself `[0119]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Auto {
    /// Every message goes as it came.
    #[default]
    Off,
    /// The same B1 to many members of a group is delivered as one C1.
    On,
}

/// How long an open request waits for its answer, from its publication on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ttl {
    /// A1 and D1.
    #[serde(deserialize_with = "units::duration", serialize_with = "units::write_duration")]
    pub trigger: Duration,
    /// B1, C1 and the report a device owes after a profile change.
    #[serde(deserialize_with = "units::duration", serialize_with = "units::write_duration")]
    pub msg: Duration,
    /// E1.
    #[serde(deserialize_with = "units::duration", serialize_with = "units::write_duration")]
    pub exchange: Duration,
}

pub(super) const DAY: Duration = Duration::from_secs(24 * 60 * 60);

impl Default for Ttl {
    /// Triggers and messages wait as long as mail does by default: a device may be switched on
    /// weeks after it was addressed, and its answer is still an answer.
    fn default() -> Self {
        Self { trigger: 21 * DAY, msg: 21 * DAY, exchange: Duration::from_secs(3_600) }
    }
}

/// A token bucket, written `"60/1m"`: so many at once, and again so many in each such time.
/// `"off"` has no bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rate(Option<Bucket>);

/// See [`Rate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bucket {
    pub(super) count: u32,
    pub(super) per: Duration,
}

impl Rate {
    /// No bound.
    pub const OFF: Self = Self(None);

    /// So many in so long; no bound when either is zero.
    #[must_use]
    pub fn new(count: u32, per: Duration) -> Self {
        Self((count > 0 && !per.is_zero()).then_some(Bucket { count, per }))
    }

    /// How long one token takes; nothing where there is no bound.
    pub(super) fn interval(self) -> Duration {
        self.0.map_or(Duration::ZERO, |bucket| bucket.per / bucket.count)
    }

    pub(super) fn bucket(self) -> Option<Bucket> {
        self.0
    }

    fn parse(text: &str) -> Option<Self> {
        if text == "off" {
            return Some(Self::OFF);
        }
        let (count, per) = text.split_once('/')?;
        let rate = Self::new(count.trim().parse().ok()?, units::parse_duration(per.trim())?);
        rate.0.is_some().then_some(rate)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(Bucket { count, per }) => write!(f, "{count}/{}", Written(per)),
            None => f.write_str("off"),
        }
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        let text = String::deserialize(source)?;
        Self::parse(&text).ok_or_else(|| {
            D::Error::custom(format!("`{text}` is no rate like \"60/1m\" or \"off\""))
        })
    }
}

impl Serialize for Rate {
    fn serialize<S: Serializer>(&self, target: S) -> Result<S::Ok, S::Error> {
        target.collect_str(self)
    }
}

/// How often devices may start something: D1 and E1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct TriggerRate {
    /// Each device.
    pub device: Rate,
    /// All members of a group together.
    pub group: Rate,
}

impl Default for TriggerRate {
    fn default() -> Self {
        Self { device: Rate::new(60, Duration::from_secs(60)), group: Rate::OFF }
    }
}

/// The permissions in force.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Who may start.
    pub initiator: Initiator,
    /// Which form of address.
    pub mode: Mode,
    /// Exchanges between devices.
    pub peer: Peer,
    /// What an exchange has to prove.
    pub peer_proof: PeerProof,
    /// Names of labels that both devices of an exchange must have, with the same values `[0071]`.
    pub conditions: Vec<String>,
    /// Whether devices have to agree.
    pub flow: Flow,
    /// D1s of a group within this time reach the servers as one; zero is off.
    #[serde(deserialize_with = "units::duration", serialize_with = "units::write_duration")]
    pub coalesce: Duration,
    /// How often devices may start something.
    pub trigger_rate: TriggerRate,
    /// How long requests stay open.
    pub ttl: Ttl,
    /// Whether equal B1s are merged.
    pub auto: Auto,
    /// From how many on.
    pub auto_members: u32,
    /// For how long they are held back to see whether there will be that many.
    #[serde(deserialize_with = "units::duration", serialize_with = "units::write_duration")]
    pub auto_window: Duration,
    /// Largest envelope of a B1 or C1 that devices are given in one piece, in bytes; 0 is off.
    #[serde(deserialize_with = "units::size")]
    pub chunk: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            initiator: Initiator::default(),
            mode: Mode::default(),
            peer: Peer::default(),
            peer_proof: PeerProof::default(),
            conditions: Vec::new(),
            flow: Flow::default(),
            coalesce: Duration::ZERO,
            trigger_rate: TriggerRate::default(),
            ttl: Ttl::default(),
            auto: Auto::default(),
            auto_members: 10,
            auto_window: Duration::from_millis(200),
            chunk: 0,
        }
    }
}

/// One group's deviations from the settings of all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs, reason = "each is the field of that name in Settings, where it differs")]
pub struct GroupSettings {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initiator: Option<Initiator>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<Peer>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer_proof: Option<PeerProof>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conditions: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flow: Option<Flow>,
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "units::optional_duration",
        serialize_with = "units::write_optional_duration"
    )]
    pub coalesce: Option<Duration>,
    #[serde(skip_serializing_if = "GroupTriggerRate::is_empty")]
    pub trigger_rate: GroupTriggerRate,
    #[serde(skip_serializing_if = "GroupTtl::is_empty")]
    pub ttl: GroupTtl,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auto: Option<Auto>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auto_members: Option<u32>,
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "units::optional_duration",
        serialize_with = "units::write_optional_duration"
    )]
    pub auto_window: Option<Duration>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "units::optional_size")]
    pub chunk: Option<usize>,
}

/// One group's deviations from [`Ttl`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs, reason = "each is the field of that name in Ttl, where it differs")]
pub struct GroupTtl {
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "units::optional_duration",
        serialize_with = "units::write_optional_duration"
    )]
    pub trigger: Option<Duration>,
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "units::optional_duration",
        serialize_with = "units::write_optional_duration"
    )]
    pub msg: Option<Duration>,
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "units::optional_duration",
        serialize_with = "units::write_optional_duration"
    )]
    pub exchange: Option<Duration>,
}

/// One group's deviations from [`TriggerRate`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs, reason = "each is the field of that name in TriggerRate, where it differs")]
pub struct GroupTriggerRate {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<Rate>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<Rate>,
}

impl GroupTtl {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl GroupTriggerRate {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Settings {
    /// These settings with a group's deviations.
    #[must_use]
    pub fn with(&self, group: &GroupSettings) -> Self {
        let (rate, ttl) = (&self.trigger_rate, &self.ttl);
        Self {
            initiator: group.initiator.unwrap_or(self.initiator),
            mode: group.mode.unwrap_or(self.mode),
            peer: group.peer.unwrap_or(self.peer),
            peer_proof: group.peer_proof.unwrap_or(self.peer_proof),
            conditions: group.conditions.as_ref().unwrap_or(&self.conditions).clone(),
            flow: group.flow.unwrap_or(self.flow),
            coalesce: group.coalesce.unwrap_or(self.coalesce),
            trigger_rate: TriggerRate {
                device: group.trigger_rate.device.unwrap_or(rate.device),
                group: group.trigger_rate.group.unwrap_or(rate.group),
            },
            ttl: Ttl {
                trigger: group.ttl.trigger.unwrap_or(ttl.trigger),
                msg: group.ttl.msg.unwrap_or(ttl.msg),
                exchange: group.ttl.exchange.unwrap_or(ttl.exchange),
            },
            auto: group.auto.unwrap_or(self.auto),
            auto_members: group.auto_members.unwrap_or(self.auto_members),
            auto_window: group.auto_window.unwrap_or(self.auto_window),
            chunk: group.chunk.unwrap_or(self.chunk),
        }
    }

    /// The first value that no control unit works with: its key, and what it has to be.
    ///
    /// # Errors
    /// That key and that sentence.
    pub fn check(&self) -> Result<(), (&'static str, &'static str)> {
        let positive = [
            ("ttl.trigger", self.ttl.trigger),
            ("ttl.msg", self.ttl.msg),
            ("ttl.exchange", self.ttl.exchange),
            ("auto_window", self.auto_window),
        ];
        if let Some((key, _)) = positive.iter().find(|(_, duration)| duration.is_zero()) {
            return Err((key, "must not be zero"));
        }
        if self.auto_members < 2 {
            return Err(("auto_members", "must be at least 2"));
        }
        let windows = [("coalesce", self.coalesce), ("auto_window", self.auto_window)];
        if let Some((key, _)) = windows.iter().find(|(_, window)| *window > WINDOW_MAX) {
            return Err((key, "at most 5m: what is held back is not delivered"));
        }
        if self.chunk > 0 && self.chunk < CHUNK_BYTES_MIN {
            return Err(("chunk", "at least 256 bytes, or 0 for off"));
        }
        let is_name = |name: &String| {
            (1..=CONDITION_BYTES_MAX).contains(&name.len()) && !name.contains(['=', ';'])
        };
        if self.conditions.len() > CONDITIONS_MAX || !self.conditions.iter().all(is_name) {
            return Err((
                "conditions",
                "at most 16 names of labels, up to 256 bytes each, without `=` and `;`",
            ));
        }
        Ok(())
    }
}

/// How long messages may be held back to be merged.
const WINDOW_MAX: Duration = Duration::from_secs(300);

/// The head of an envelope alone takes some 150 bytes.
const CHUNK_BYTES_MIN: usize = 256;

/// Labels that are compared for one exchange.
const CONDITIONS_MAX: usize = 16;
/// Bytes of the name of one.
const CONDITION_BYTES_MAX: usize = 256;

/// The settings of all, the deviations of groups, and what follows from both.
#[derive(Clone, Debug, Default)]
pub struct SettingsTable {
    common: Settings,
    groups: BTreeMap<Gid, GroupSettings>,
    effective: BTreeMap<Gid, Settings>,
}

impl SettingsTable {
    /// A table of these.
    #[must_use]
    pub fn new(common: Settings, groups: BTreeMap<Gid, GroupSettings>) -> Self {
        let effective = groups.iter().map(|(gid, group)| (*gid, common.with(group))).collect();
        Self { common, groups, effective }
    }

    /// What holds where no group deviates.
    #[must_use]
    pub fn common(&self) -> &Settings {
        &self.common
    }

    /// The groups that deviate, and where.
    #[must_use]
    pub fn groups(&self) -> &BTreeMap<Gid, GroupSettings> {
        &self.groups
    }

    /// What holds for a group.
    #[must_use]
    pub fn of_group(&self, gid: Gid) -> &Settings {
        self.effective.get(&gid).unwrap_or(&self.common)
    }

    /// What holds for each of a device's groups, or for all where it is in none.
    pub(super) fn of_groups<'a>(&'a self, gids: &'a [Gid]) -> impl Iterator<Item = &'a Settings> {
        let common = gids.is_empty().then_some(&self.common);
        common.into_iter().chain(gids.iter().map(|gid| self.of_group(*gid)))
    }

    pub(super) fn set_common(&mut self, common: Settings) {
        *self = Self::new(common, std::mem::take(&mut self.groups));
    }

    pub(super) fn set_group(&mut self, gid: Gid, group: GroupSettings) {
        if group == GroupSettings::default() {
            self.groups.remove(&gid);
            self.effective.remove(&gid);
        } else {
            self.effective.insert(gid, self.common.with(&group));
            self.groups.insert(gid, group);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_overrides_what_it_names_and_nothing_else() {
        let global = Settings { mode: Mode::Multi, peer: Peer::Off, ..Settings::default() };
        let group = GroupSettings { mode: Some(Mode::Any), ..GroupSettings::default() };
        let both = global.with(&group);
        assert_eq!((both.mode, both.peer), (Mode::Any, Peer::Off));
    }

    #[test]
    fn a_change_of_the_common_settings_reaches_groups_that_do_not_deviate_there() {
        let gid = Gid::new(7).unwrap();
        let mut table = SettingsTable::default();
        table.set_group(gid, GroupSettings { mode: Some(Mode::Single), ..Default::default() });
        table.set_common(Settings { peer: Peer::Off, mode: Mode::Multi, ..Settings::default() });
        assert_eq!((table.of_group(gid).mode, table.of_group(gid).peer), (Mode::Single, Peer::Off));
        table.set_group(gid, GroupSettings::default());
        assert_eq!(table.of_group(gid).mode, Mode::Multi);
        assert!(table.groups().is_empty());
    }

    #[test]
    fn settings_are_spelled_as_in_the_configuration_file() {
        let text = r#"{"peer":"server-triggered","coalesce":"2s","trigger_rate":{"group":"9/1h"},
            "ttl":{"msg":"3d"},"chunk":"4KiB"}"#;
        let settings: Settings = serde_json::from_str(text).unwrap();
        assert_eq!(settings.peer, Peer::ServerTriggered);
        assert_eq!(settings.coalesce, Duration::from_secs(2));
        assert_eq!(settings.trigger_rate.group, Rate::new(9, Duration::from_secs(3_600)));
        assert_eq!((settings.ttl.msg, settings.chunk), (3 * DAY, 4096));
        let written = serde_json::to_string(&settings).unwrap();
        assert_eq!(serde_json::from_str::<Settings>(&written).unwrap(), settings);
    }

    #[test]
    fn a_group_is_written_with_what_differs() {
        let text = r#"{"coalesce":"5s","trigger_rate":{"group":"9/1h"},"ttl":{"msg":"3d"}}"#;
        let group: GroupSettings = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&group).unwrap(), text);
        assert_eq!(serde_json::to_string(&GroupSettings::default()).unwrap(), "{}");
    }

    #[test]
    fn rates_are_counts_per_time() {
        for text in ["60/1m", "1/1s", "off"] {
            assert_eq!(Rate::parse(text).unwrap().to_string(), text);
        }
        for text in ["", "60", "0/1m", "60/0s", "60/m", "-1/1m", "1/1m/1m", "on"] {
            assert_eq!(Rate::parse(text), None, "{text}");
        }
    }

    #[test]
    fn what_cannot_work_is_named_by_its_key() {
        let key = |settings: Settings| settings.check().unwrap_err().0;
        let default = Settings::default;
        assert_eq!(default().check(), Ok(()));
        assert_eq!(key(Settings { auto_members: 1, ..default() }), "auto_members");
        assert_eq!(key(Settings { coalesce: DAY, ..default() }), "coalesce");
        assert_eq!(key(Settings { chunk: 10, ..default() }), "chunk");
        let ttl = Ttl { exchange: Duration::ZERO, ..Ttl::default() };
        assert_eq!(key(Settings { ttl, ..default() }), "ttl.exchange");
        let conditions = vec!["model=tracker".to_owned()];
        assert_eq!(key(Settings { conditions, ..default() }), "conditions");
    }
}
