//! What a control unit is started with: the two topics, bounds, and the settings at first.

use std::time::Duration;

use super::scope::ServerScopes;
use super::settings::{DAY, SettingsTable};
use crate::ids::NidScheme;

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
    /// D1s remembered per device; beyond it the oldest is forgotten.
    pub open_triggers_max: usize,
    /// Payload bytes of one message.
    pub body_bytes_max: usize,
    /// Open exchanges; as many closed ones are remembered.
    pub exchanges_max: usize,
    /// Exchanges that one device may have asked for at a time.
    pub exchanges_per_device_max: usize,
    /// Campaigns that are over and remembered.
    pub ended_campaigns_max: usize,
    /// Devices of all those, each counted for every one of them.
    pub ended_campaign_devices_max: usize,
    /// Bytes of messages that are kept only because somebody might want them sent again.
    pub retry_bytes_max: usize,
    /// Devices that may be served first by a campaign in waves.
    pub wave_devices_max: usize,
    /// D1s held back to be coalesced, per group; one more, and they go.
    pub gathered_max: usize,
    /// Bytes of those, and of one envelope that is made of them: where they do not fit, there are
    /// several.
    pub gathered_bytes_max: usize,
    /// B1s held back to be merged, per batch; one more, and they go.
    pub merged_max: usize,
    /// Events that wait to be fetched; the oldest go, and are counted.
    pub events_max: usize,
    /// Letters per pull, whatever room the reader claims.
    pub pull_max: usize,
    /// Expired things put away per sweep, which nobody is to notice (under 20 ms).
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
            open_triggers_max: 8,
            body_bytes_max: 256 << 10,
            exchanges_max: 100_000,
            exchanges_per_device_max: 8,
            ended_campaigns_max: 10_000,
            ended_campaign_devices_max: 16 << 20,
            retry_bytes_max: 256 << 20,
            wave_devices_max: 10_000,
            gathered_max: 1_000,
            gathered_bytes_max: 128 << 10,
            merged_max: 10_000,
            events_max: 10_000,
            pull_max: 1000,
            sweep_max: 5_000,
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
    /// The names of the two topics.
    pub topics: TopicNames,
    /// What is permitted.
    pub settings: SettingsTable,
    /// Some issuer of eUICC certificates is trusted: proofs of deletion can be asked for.
    pub can_prove: bool,
    /// Which devices each server speaks with.
    pub scopes: ServerScopes,
    /// A device that has given its profile away gets no B1 and C1 until it is reinstated.
    pub retire: bool,
    /// How long mail without an expiry of its own waits.
    pub mail_ttl: Duration,
    /// Bounds.
    pub limits: RspLimits,
}

impl Default for ControlOptions {
    fn default() -> Self {
        Self {
            scheme: NidScheme::Eid,
            topics: TopicNames::default(),
            settings: SettingsTable::default(),
            can_prove: false,
            scopes: ServerScopes::default(),
            retire: false,
            mail_ttl: 30 * DAY,
            limits: RspLimits::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_compared_as_they_stand() {
        let names = TopicNames::default();
        assert_eq!(names.topic("To_eUICC"), Some(RspTopic::ToEuicc));
        assert_eq!(names.topic("To_SM-SR"), Some(RspTopic::ToSmSr));
        for other in ["to_euicc", "To_eUICC/", "#", "+", "$share/a/To_SM-SR"] {
            assert_eq!(names.topic(other), None, "{other}");
        }
    }
}
