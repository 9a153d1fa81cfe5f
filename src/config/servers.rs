//! `[rsp.server."<name>"]`: which SM-SR server speaks with which groups.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, Unexpected, Visitor};

use crate::ids::Gid;
use crate::rsp::Scope;

/// The scope of the server whose identity has this name.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// Its groups. It neither hears from the devices of others nor may it address them.
    #[serde(deserialize_with = "group_list")]
    pub groups: Vec<Gid>,
}

/// `[rsp] unscoped_servers`: the scope of servers without a section.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UnscopedServers {
    /// Every device.
    #[default]
    All,
    /// No device at all.
    None,
}

impl From<&Server> for Scope {
    fn from(server: &Server) -> Self {
        Self::groups(server.groups.iter().copied())
    }
}

impl From<UnscopedServers> for Scope {
    fn from(servers: UnscopedServers) -> Self {
        match servers {
            UnscopedServers::All => Self::All,
            UnscopedServers::None => Self::none(),
        }
    }
}

fn group_list<'de, D: Deserializer<'de>>(source: D) -> Result<Vec<Gid>, D::Error> {
    let groups = Vec::<Group>::deserialize(source)?;
    Ok(groups.into_iter().map(|group| group.0).collect())
}

/// [`Gid`] belongs to a module without serde.
struct Group(Gid);

impl<'de> Deserialize<'de> for Group {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        source.deserialize_any(GroupVisitor).map(Self)
    }
}

/// An integer, or digits: TOML has no integers beyond 63 bits.
struct GroupVisitor;

impl Visitor<'_> for GroupVisitor {
    type Value = Gid;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the number of a group, from 1 to 18446744073709551615")
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Gid, E> {
        Gid::new(number).ok_or_else(|| E::invalid_value(Unexpected::Unsigned(number), &self))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Gid, E> {
        let number = u64::try_from(number)
            .map_err(|_| E::invalid_value(Unexpected::Signed(number), &self))?;
        self.visit_u64(number)
    }

    fn visit_str<E: Error>(self, digits: &str) -> Result<Gid, E> {
        digits.parse().map_err(|_| E::invalid_value(Unexpected::Str(digits), &self))
    }
}
