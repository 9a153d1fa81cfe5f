//! Who a message to a group is for.

use std::sync::{Arc, Weak};

use super::super::policy::Ask;
use super::super::request::Asked;
use super::ControlUnit;
use crate::ids::Gid;

/// The members of a group without some.
#[derive(Debug)]
pub(super) struct Participants {
    all: Weak<Vec<u32>>,
    without: Vec<u32>,
    members: Arc<Vec<u32>>,
}

impl ControlUnit {
    /// The members of a group that a message is for: all, but in case of C1 for those that gave
    /// their profile away, and those for which there is nothing in it.
    ///
    /// The same devices are the same list, so that they are written down once.
    pub(super) fn addressees(&mut self, gid: Gid, ask: &Ask) -> Option<Arc<Vec<u32>>> {
        let members = self.registry.members(gid)?;
        let parts = ask.parts.as_ref().filter(|parts| parts.common().is_none());
        let without =
            if ask.asked == Asked::Msg { self.registry.replaced_in(members) } else { Vec::new() };
        if parts.is_none() && without.is_empty() {
            return Some(Arc::clone(members));
        }
        let all = Arc::downgrade(members);
        let known = self.participants.get(&gid).filter(|known| {
            parts.is_none() && Weak::ptr_eq(&known.all, &all) && known.without == without
        });
        if let Some(known) = known {
            return Some(Arc::clone(&known.members));
        }
        let mut addressed: Vec<u32> = match parts {
            Some(parts) => {
                let keys = parts.nids().iter().filter_map(|nid| self.registry.key(*nid));
                keys.map(|key| key.index).collect()
            }
            None => members.to_vec(),
        };
        addressed.sort_unstable();
        addressed.retain(|index| without.binary_search(index).is_err());
        let addressed = Arc::new(addressed);
        if parts.is_none() {
            let members = Arc::clone(&addressed);
            self.participants.insert(gid, Participants { all, without, members });
        }
        Some(addressed)
    }
}
