//! Settings: what the control unit permits, globally and per group, and its limits.
//!
//! `[0054]` `[0063]`: initiator, direction and need for concurrent provisioning are the control
//! unit's to determine. A group's own value beats the global one.

use std::collections::HashMap;
use std::time::Duration;

use serde::Deserialize;

use super::scope::ServerScopes;
use crate::ids::{Gid, NidScheme};

/// Who may start provisioning `[0079]` `[0089]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
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

/// How long an open request waits for its answer, from its publication on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ttl {
    /// A1 and D1.
    pub trigger: Duration,
    /// B1, C1 and the report a device owes after a profile change.
    pub msg: Duration,
    /// E1.
    pub exchange: Duration,
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

impl Default for Ttl {
    /// Triggers and messages wait as long as mail does by default: a device may be switched on
    /// weeks after it was addressed, and its answer is still an answer.
    fn default() -> Self {
        Self { trigger: 30 * DAY, msg: 30 * DAY, exchange: Duration::from_secs(600) }
    }
}

/// The permissions in force.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Who may start.
    pub initiator: Initiator,
    /// Which form of address.
    pub mode: Mode,
    /// Exchanges between devices.
    pub peer: Peer,
    /// How long requests stay open.
    pub ttl: Ttl,
}

/// One group's deviations from the global settings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupSettings {
    /// Instead of the global value.
    pub initiator: Option<Initiator>,
    /// Instead of the global value.
    pub mode: Option<Mode>,
    /// Instead of the global value.
    pub peer: Option<Peer>,
    /// Instead of the global value.
    pub ttl: Option<Ttl>,
}

impl Settings {
    /// These settings with a group's deviations.
    #[must_use]
    pub fn with(self, group: &GroupSettings) -> Self {
        Self {
            initiator: group.initiator.unwrap_or(self.initiator),
            mode: group.mode.unwrap_or(self.mode),
            peer: group.peer.unwrap_or(self.peer),
            ttl: group.ttl.unwrap_or(self.ttl),
        }
    }
}

/// Which of the two provisioning topics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RspTopic {
    /// Towards devices; nid is the receiver.
    ToEuicc,
    /// Towards servers; nid is the sender.
    ToSmSr,
}

/// The names of the two topics `[0058]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicNames {
    /// Devices subscribe to it.
    pub to_euicc: String,
    /// Servers subscribe to it.
    pub to_sm_sr: String,
}

impl Default for TopicNames {
    fn default() -> Self {
        Self { to_euicc: "To_eUICC".into(), to_sm_sr: "To_SM-SR".into() }
    }
}

impl TopicNames {
    /// Whether a topic name is one of the two; compared as it stands, never as a filter.
    #[must_use]
    pub fn topic(&self, name: &str) -> Option<RspTopic> {
        if name == self.to_euicc {
            Some(RspTopic::ToEuicc)
        } else if name == self.to_sm_sr {
            Some(RspTopic::ToSmSr)
        } else {
            None
        }
    }
}

/// Bounds of everything the control unit keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RspLimits {
    /// Messages waiting for one device alone; other devices may fill half of it.
    pub mail_messages_max: usize,
    /// Payload bytes waiting for one device alone; likewise.
    pub mail_bytes_max: usize,
    /// Group messages kept per group until all their receivers have them.
    pub group_messages_max: usize,
    /// Payload bytes of those.
    pub group_bytes_max: usize,
    /// Requests remembered per device; beyond it the oldest is forgotten.
    pub open_requests_max: usize,
    /// A1 and C1 remembered per group (one bit per member each); the oldest is forgotten.
    pub open_group_requests_max: usize,
    /// D1 in group form remembered per group.
    pub open_group_triggers_max: usize,
    /// Payload bytes of one message.
    pub body_bytes_max: usize,
    /// Open exchanges; as many closed ones are remembered.
    pub exchanges_max: usize,
    /// Letters per pull, whatever room the reader claims.
    pub pull_max: usize,
    /// Expired things put away per sweep.
    pub sweep_max: usize,
    /// Groups one device may be in.
    pub groups_per_device_max: usize,
    /// Bytes of one device's labels.
    pub labels_bytes_max: usize,
}

impl Default for RspLimits {
    fn default() -> Self {
        Self {
            mail_messages_max: 1000,
            mail_bytes_max: 4 << 20,
            group_messages_max: 1000,
            group_bytes_max: 64 << 20,
            open_requests_max: 16,
            open_group_requests_max: 64,
            open_group_triggers_max: 4096,
            body_bytes_max: 256 << 10,
            exchanges_max: 100_000,
            pull_max: 1000,
            sweep_max: 10_000,
            groups_per_device_max: 64,
            labels_bytes_max: 1024,
        }
    }
}

/// Everything a control unit is started with.
#[derive(Clone, Debug)]
pub struct ControlOptions {
    /// How devices are numbered.
    pub scheme: NidScheme,
    /// For all groups.
    pub settings: Settings,
    /// For single groups.
    pub groups: HashMap<Gid, GroupSettings>,
    /// Which server speaks with which devices.
    pub scopes: ServerScopes,
    /// How long mail without an expiry of its own waits.
    pub mail_ttl: Duration,
    /// Bounds.
    pub limits: RspLimits,
}

impl Default for ControlOptions {
    fn default() -> Self {
        Self {
            scheme: NidScheme::Eid,
            settings: Settings::default(),
            groups: HashMap::new(),
            scopes: ServerScopes::default(),
            mail_ttl: 30 * DAY,
            limits: RspLimits::default(),
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
    fn topics_are_compared_as_they_stand() {
        let names = TopicNames::default();
        assert_eq!(names.topic("To_eUICC"), Some(RspTopic::ToEuicc));
        assert_eq!(names.topic("To_SM-SR"), Some(RspTopic::ToSmSr));
        for other in ["to_euicc", "To_eUICC/", "#", "+", "$share/a/To_SM-SR"] {
            assert_eq!(names.topic(other), None, "{other}");
        }
    }

    #[test]
    fn settings_are_spelled_as_in_the_configuration_file() {
        let peer: Peer = serde_json::from_str("\"server-triggered\"").unwrap();
        assert_eq!(peer, Peer::ServerTriggered);
    }
}
