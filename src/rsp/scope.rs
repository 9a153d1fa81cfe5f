//! Scopes: which groups of devices an SM-SR server is responsible for.
//!
//! Several servers may share a control unit, each with devices of its own. What is addressed to a
//! server's devices by another one is refused, and what they send never reaches another one.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::ids::Gid;

/// The devices a server speaks with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// Every device, in a group or not.
    #[default]
    All,
    /// The devices of these groups, ascending.
    Groups(Arc<[Gid]>),
}

/// The scopes of all servers, by their identities' names (`[rsp.server."…"]`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerScopes {
    named: BTreeMap<Arc<str>, Scope>,
    others: Scope,
}

impl Scope {
    /// Not one device.
    #[must_use]
    pub fn none() -> Self {
        Self::groups([])
    }

    /// The devices of these groups, in whatever order.
    #[must_use]
    pub fn groups(groups: impl IntoIterator<Item = Gid>) -> Self {
        let mut groups: Vec<Gid> = groups.into_iter().collect();
        groups.sort_unstable();
        groups.dedup();
        Self::Groups(groups.into())
    }

    /// Whether a device of these groups belongs to it: one common group is enough, and a device
    /// without groups belongs to [`Scope::All`] alone.
    #[must_use]
    pub fn covers(&self, gids: &[Gid]) -> bool {
        match self {
            Self::All => true,
            Self::Groups(groups) => gids.iter().any(|gid| groups.binary_search(gid).is_ok()),
        }
    }
}

impl ServerScopes {
    /// Servers with scopes of their own, and the scope of all `others`.
    #[must_use]
    pub fn new(named: impl IntoIterator<Item = (Arc<str>, Scope)>, others: Scope) -> Self {
        Self { named: named.into_iter().collect(), others }
    }

    /// The scope of the server whose identity has this name.
    #[must_use]
    pub fn of(&self, server: &str) -> &Scope {
        self.named.get(server).unwrap_or(&self.others)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gids(numbers: &[u64]) -> Vec<Gid> {
        numbers.iter().map(|number| Gid::new(*number).unwrap()).collect()
    }

    #[test]
    fn one_common_group_is_enough() {
        let scope = Scope::groups(gids(&[77, 42, 42]));
        for inside in [&[42][..], &[77], &[1, 77], &[42, 100]] {
            assert!(scope.covers(&gids(inside)), "{inside:?}");
        }
        for outside in [&[][..], &[1], &[41, 43, 78]] {
            assert!(!scope.covers(&gids(outside)), "{outside:?}");
        }
    }

    #[test]
    fn a_device_without_groups_belongs_to_servers_for_all_devices() {
        assert!(Scope::All.covers(&[]));
        assert!(!Scope::groups(gids(&[42])).covers(&[]));
        assert!(!Scope::none().covers(&[]) && !Scope::none().covers(&gids(&[42])));
    }

    #[test]
    fn a_server_without_a_scope_of_its_own_has_that_of_the_others() {
        let of_42 = Scope::groups(gids(&[42]));
        let scopes = ServerScopes::new([("a".into(), of_42.clone())], Scope::none());
        assert_eq!(scopes.of("a"), &of_42);
        assert_eq!(scopes.of("A"), &Scope::none(), "names are compared as they stand");
        assert_eq!(ServerScopes::default().of("a"), &Scope::All);
    }
}
