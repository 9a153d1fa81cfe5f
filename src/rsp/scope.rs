//! Scopes: which groups of devices an SM-SR server is responsible for.
//!
//! Several servers may share a control unit, each with devices of its own. What is addressed to a
//! server's devices by another one is refused, and what they send never reaches another one.

use std::collections::BTreeMap;
use std::sync::Arc;

use smallvec::SmallVec;

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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerScopes {
    named: BTreeMap<Arc<str>, ScopeId>,
    /// Each once; first that of the servers without a name here.
    scopes: Vec<Scope>,
}

/// Names a scope: its position among [`ServerScopes`]. Servers with the same scope share it.
pub(super) type ScopeId = u32;

/// Scopes by their names, ascending.
pub(super) type ScopeIds = SmallVec<[ScopeId; 4]>;

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
        let mut all = Self { named: BTreeMap::new(), scopes: vec![others] };
        for (server, scope) in named {
            let id = all.name(scope);
            all.named.insert(server, id);
        }
        all
    }

    /// The scope of the server whose identity has this name.
    #[must_use]
    pub fn of(&self, server: &str) -> &Scope {
        &self.scopes[self.id_of(server) as usize]
    }

    /// What names that scope.
    pub(super) fn id_of(&self, server: &str) -> ScopeId {
        self.named.get(server).copied().unwrap_or(OTHERS)
    }

    /// The scopes to which a device of these groups belongs.
    pub(super) fn covering(&self, gids: &[Gid]) -> ScopeIds {
        self.by_id().filter(|(_, scope)| scope.covers(gids)).map(|(id, _)| id).collect()
    }

    fn name(&mut self, scope: Scope) -> ScopeId {
        let known = self.by_id().find(|(_, other)| **other == scope).map(|(id, _)| id);
        known.unwrap_or_else(|| {
            self.scopes.push(scope);
            self.by_id().map(|(id, _)| id).last().unwrap_or(OTHERS)
        })
    }

    fn by_id(&self) -> impl Iterator<Item = (ScopeId, &Scope)> {
        (OTHERS..).zip(&self.scopes)
    }
}

impl Default for ServerScopes {
    fn default() -> Self {
        Self::new([], Scope::default())
    }
}

/// The scope of the servers without one of their own.
const OTHERS: ScopeId = 0;

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

    #[test]
    fn servers_with_the_same_devices_share_a_scope() {
        let of_42 = || Scope::groups(gids(&[42]));
        let named = [("a", of_42()), ("b", Scope::groups(gids(&[42, 77]))), ("c", of_42())];
        let scopes = ServerScopes::new(named.map(|(name, scope)| (name.into(), scope)), Scope::All);
        let id = |server| scopes.id_of(server);
        assert_eq!(id("a"), id("c"));
        assert!(id("a") != id("b") && id("b") != id("stranger"));
        assert_eq!(scopes.covering(&gids(&[42]))[..], [id("stranger"), id("a"), id("b")]);
        assert_eq!(scopes.covering(&gids(&[77]))[..], [id("stranger"), id("b")]);
        assert_eq!(scopes.covering(&[])[..], [id("stranger")]);
    }
}
