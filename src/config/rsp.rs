//! `[rsp]`: the provisioning control unit.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, Error};

use super::units;
use crate::ids::{Gid, NidScheme};
use crate::rsp::{Initiator, Mode, Peer};

/// Topics, registry, mailboxes and what the control unit permits.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rsp {
    /// Topic towards the devices `[0063]`.
    pub to_euicc: String,
    /// Topic towards the SM-SR servers `[0063]`.
    pub to_sm_sr: String,
    /// CSV file of the known devices: `nid,gids,labels`.
    pub registry: Option<PathBuf>,
    /// CI certificates that a proof of deletion may lead to, PEM, any number in each file.
    pub proof_issuers: Vec<PathBuf>,
    /// How devices are numbered.
    #[serde(deserialize_with = "nid_scheme")]
    pub nid: NidScheme,
    /// How long mail waits for a device that does not fetch it.
    #[serde(deserialize_with = "units::duration")]
    pub mail_ttl: Duration,
    /// Whether a client that spoofs a device or a group is disconnected. Clients of version 5 are
    /// told either way.
    pub close_on_identity_violation: bool,
    /// Messages that wait for an SM-SR that is away.
    pub server_inbox_messages_max: usize,
    /// Bytes that wait for an SM-SR that is away.
    #[serde(deserialize_with = "units::size")]
    pub server_inbox_bytes_max: usize,
    /// Messages addressed to one device that may wait for it.
    pub mail_messages_max: usize,
    /// Bytes addressed to one device that may wait for it.
    #[serde(deserialize_with = "units::size")]
    pub mail_bytes_max: usize,
    /// Messages to one group that may wait for any of its members.
    pub group_messages_max: usize,
    /// Bytes addressed to one group that may wait for any of its members.
    #[serde(deserialize_with = "units::size")]
    pub group_bytes_max: usize,
    /// Requests of or to one device that may wait for their answers.
    pub open_requests_max: usize,
    /// Largest envelope on the two topics, in bytes.
    #[serde(deserialize_with = "units::size")]
    pub body_bytes_max: usize,
    /// What is permitted, and for how long, unless a group has its own.
    pub settings: Settings,
    /// Settings of single groups.
    #[serde(rename = "group", deserialize_with = "groups")]
    pub groups: BTreeMap<Gid, GroupSettings>,
}

impl Default for Rsp {
    fn default() -> Self {
        Self {
            to_euicc: "To_eUICC".to_owned(),
            to_sm_sr: "To_SM-SR".to_owned(),
            registry: None,
            proof_issuers: Vec::new(),
            nid: NidScheme::Eid,
            mail_ttl: Duration::from_secs(21 * 86_400),
            close_on_identity_violation: true,
            server_inbox_messages_max: 100_000,
            server_inbox_bytes_max: 64 << 20,
            mail_messages_max: 1_000,
            mail_bytes_max: 4 << 20,
            group_messages_max: 1_000,
            group_bytes_max: 64 << 20,
            open_requests_max: 16,
            body_bytes_max: 256 << 10,
            settings: Settings::default(),
            groups: BTreeMap::new(),
        }
    }
}

impl Rsp {
    /// The settings that hold for a group: its own where it has some, else the common ones.
    #[must_use]
    pub fn settings_of(&self, group: Gid) -> Settings {
        let common = self.settings;
        let Some(own) = self.groups.get(&group) else {
            return common;
        };
        Settings {
            initiator: own.initiator.unwrap_or(common.initiator),
            mode: own.mode.unwrap_or(common.mode),
            peer: own.peer.unwrap_or(common.peer),
            ttl: Ttl {
                trigger: own.ttl.trigger.unwrap_or(common.ttl.trigger),
                msg: own.ttl.msg.unwrap_or(common.ttl.msg),
                exchange: own.ttl.exchange.unwrap_or(common.ttl.exchange),
            },
        }
    }

    /// What must not be zero, by key.
    pub(super) fn positive(&self) -> [(&'static str, bool); 12] {
        [
            ("mail_ttl", !self.mail_ttl.is_zero()),
            ("server_inbox_messages_max", self.server_inbox_messages_max > 0),
            ("server_inbox_bytes_max", self.server_inbox_bytes_max > 0),
            ("mail_messages_max", self.mail_messages_max > 0),
            ("mail_bytes_max", self.mail_bytes_max > 0),
            ("group_messages_max", self.group_messages_max > 0),
            ("group_bytes_max", self.group_bytes_max > 0),
            ("open_requests_max", self.open_requests_max > 0),
            ("body_bytes_max", self.body_bytes_max > 0),
            ("settings.ttl.trigger", !self.settings.ttl.trigger.is_zero()),
            ("settings.ttl.msg", !self.settings.ttl.msg.is_zero()),
            ("settings.ttl.exchange", !self.settings.ttl.exchange.is_zero()),
        ]
    }
}

/// `[rsp.settings]`: the control unit's decisions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Who may start provisioning.
    pub initiator: Initiator,
    /// Which addressing is permitted on the topic towards the devices.
    pub mode: Mode,
    /// Whether devices may exchange profiles with each other.
    pub peer: Peer,
    /// How long a request waits for its answer.
    pub ttl: Ttl,
}

/// `[rsp.settings] ttl`: how long a request waits for its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ttl {
    /// For `ret(trigger)`.
    #[serde(deserialize_with = "units::duration")]
    pub trigger: Duration,
    /// For `ret(msg)`.
    #[serde(deserialize_with = "units::duration")]
    pub msg: Duration,
    /// For the `profile(…)` that answers a `req(…)`.
    #[serde(deserialize_with = "units::duration")]
    pub exchange: Duration,
}

impl Default for Ttl {
    /// As long as mail waits by default for triggers and messages, so that a device may answer
    /// what it was still given.
    fn default() -> Self {
        let mail_ttl = Duration::from_secs(21 * 86_400);
        Self { trigger: mail_ttl, msg: mail_ttl, exchange: Duration::from_secs(3_600) }
    }
}

/// `[rsp.group.<gid>]`: what differs for one group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GroupSettings {
    /// Instead of [`Settings::initiator`].
    pub initiator: Option<Initiator>,
    /// Instead of [`Settings::mode`].
    pub mode: Option<Mode>,
    /// Instead of [`Settings::peer`].
    pub peer: Option<Peer>,
    /// Instead of [`Settings::ttl`].
    pub ttl: GroupTtl,
}

/// `[rsp.group.<gid>] ttl`: what differs for one group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GroupTtl {
    /// Instead of [`Ttl::trigger`].
    #[serde(deserialize_with = "units::optional_duration")]
    pub trigger: Option<Duration>,
    /// Instead of [`Ttl::msg`].
    #[serde(deserialize_with = "units::optional_duration")]
    pub msg: Option<Duration>,
    /// Instead of [`Ttl::exchange`].
    #[serde(deserialize_with = "units::optional_duration")]
    pub exchange: Option<Duration>,
}

impl GroupTtl {
    /// What must not be zero, by key.
    pub(super) fn positive(&self) -> [(&'static str, bool); 3] {
        let positive = |ttl: Option<Duration>| ttl != Some(Duration::ZERO);
        [
            ("trigger", positive(self.trigger)),
            ("msg", positive(self.msg)),
            ("exchange", positive(self.exchange)),
        ]
    }
}

fn groups<'de, D>(source: D) -> Result<BTreeMap<Gid, GroupSettings>, D::Error>
where
    D: Deserializer<'de>,
{
    let by_name = BTreeMap::<String, GroupSettings>::deserialize(source)?;
    let by_gid = by_name.into_iter().map(|(name, settings)| match name.parse() {
        Ok(gid) => Ok((gid, settings)),
        Err(e) => Err(D::Error::custom(format_args!("`{name}`: {e}"))),
    });
    by_gid.collect()
}

/// [`NidScheme`] belongs to a module without serde.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum NidSchemeName {
    Eid,
    Decimal,
}

fn nid_scheme<'de, D: Deserializer<'de>>(source: D) -> Result<NidScheme, D::Error> {
    Ok(match NidSchemeName::deserialize(source)? {
        NidSchemeName::Eid => NidScheme::Eid,
        NidSchemeName::Decimal => NidScheme::Decimal,
    })
}
