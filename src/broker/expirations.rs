//! When the sessions end whose clients are away.

use std::collections::BTreeSet;

use crate::ids::{SessionKey, Timestamp};
use crate::rsp::Identity;

/// The sessions whose clients are away, by the moment until which they are kept.
#[derive(Debug, Default)]
pub(super) struct Expirations {
    /// Those that end.
    calendar: BTreeSet<(Timestamp, SessionKey)>,
    /// Those of strangers, also where they do not end: they make room for others.
    strangers: BTreeSet<(Timestamp, SessionKey)>,
}

impl Expirations {
    /// The client has left.
    pub(super) fn insert(&mut self, until: Timestamp, key: SessionKey, identity: &Identity) {
        if until != Timestamp::NEVER {
            self.calendar.insert((until, key));
        }
        if identity.is_anonymous() {
            self.strangers.insert((until, key));
        }
    }

    /// The client is back, or its session has ended.
    pub(super) fn remove(&mut self, until: Timestamp, key: SessionKey) {
        self.calendar.remove(&(until, key));
        self.strangers.remove(&(until, key));
    }

    /// Takes a session whose time has come.
    pub(super) fn take_due(&mut self, now: Timestamp) -> Option<SessionKey> {
        let (until, key) = self.calendar.first().copied().filter(|(until, _)| *until <= now)?;
        self.remove(until, key);
        Some(key)
    }

    /// Sessions that strangers have left behind, those first that would end first.
    pub(super) fn strangers(&self) -> impl Iterator<Item = SessionKey> {
        self.strangers.iter().map(|(_, key)| *key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(slot: u32) -> SessionKey {
        SessionKey { slot, generation: 0 }
    }

    #[test]
    fn strangers_are_found_however_many_others_end_before_them() {
        // case D8
        let (mut expirations, stranger) = (Expirations::default(), Identity::anonymous(""));
        let known = Identity::anonymous("known");
        (0..5000).for_each(|slot| expirations.insert(Timestamp(slot.into()), key(slot), &known));
        expirations.insert(Timestamp(9000), key(9000), &stranger);
        expirations.insert(Timestamp::NEVER, key(9001), &stranger);
        let strangers: Vec<SessionKey> = expirations.strangers().collect();
        assert_eq!(strangers, [key(9000), key(9001)]);
        assert_eq!(expirations.take_due(Timestamp(0)), Some(key(0)));
        assert_eq!(expirations.take_due(Timestamp(0)), None);
        expirations.remove(Timestamp::NEVER, key(9001));
        while expirations.take_due(Timestamp(9000)).is_some() {}
        assert_eq!(expirations.strangers().count(), 0);
    }
}
