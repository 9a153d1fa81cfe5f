//! `[rsp]`: the provisioning control unit.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, Error};

use super::servers::{Server, UnscopedServers};
use crate::ids::{Gid, NidScheme};
use crate::rsp::{GroupSettings, ServerScopes, Settings, SettingsTable};
use crate::units;

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
    /// How long answers are kept for an SM-SR that has gone without a session; then any other may
    /// have them.
    #[serde(deserialize_with = "units::duration")]
    pub server_absence_max: Duration,
    /// Which devices a server speaks with that is not among `servers`.
    pub unscoped_servers: UnscopedServers,
    /// Servers that speak with some groups alone.
    #[serde(rename = "server")]
    pub servers: BTreeMap<String, Server>,
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
    /// How servers are told who sent a message.
    pub stamp: Stamp,
    /// Whether a device that has given its profile away gets no B1 and C1 until it is reinstated.
    pub retire: bool,
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
            server_absence_max: Duration::from_secs(300),
            unscoped_servers: UnscopedServers::default(),
            servers: BTreeMap::new(),
            mail_messages_max: 1_000,
            mail_bytes_max: 4 << 20,
            group_messages_max: 1_000,
            group_bytes_max: 64 << 20,
            open_requests_max: 16,
            body_bytes_max: 256 << 10,
            stamp: Stamp::default(),
            retire: false,
            settings: Settings::default(),
            groups: BTreeMap::new(),
        }
    }
}

impl Rsp {
    /// The settings for all and for single groups, as the control unit looks them up.
    #[must_use]
    pub fn settings_table(&self) -> SettingsTable {
        SettingsTable::new(self.settings.clone(), self.groups.clone())
    }

    /// The scopes of all servers.
    #[must_use]
    pub fn server_scopes(&self) -> ServerScopes {
        let named = self.servers.iter().map(|(name, server)| (name.as_str().into(), server.into()));
        ServerScopes::new(named, self.unscoped_servers.into())
    }

    /// What must not be zero, by key.
    pub(super) fn positive(&self) -> [(&'static str, bool); 9] {
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
        ]
    }

    /// Values of settings that no control unit works with: their keys, and what they have to be.
    pub(super) fn unworkable(&self) -> Vec<(String, &'static str)> {
        let mut found = Vec::new();
        if let Err((key, why)) = self.settings.check() {
            found.push((format!("rsp.settings.{key}"), why));
            // What is wrong for all would be named again for each group.
            return found;
        }
        for (gid, group) in &self.groups {
            if let Err((key, why)) = self.settings.with(group).check() {
                found.push((format!("rsp.group.{gid}.{key}"), why));
            }
        }
        found
    }
}

/// How servers are told who sent a message `[0069]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stamp {
    /// By the user property `nid`: for servers of version 5.
    #[default]
    Property,
    /// By the envelope's member `src` as well: for servers of 3.1.1, which see no properties.
    Member,
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
