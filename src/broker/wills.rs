//! Wills that wait for their delay (3.1.3.2.2 of version 5).

use std::collections::{BTreeSet, HashMap};

use crate::ids::{Kept, SessionKey, Timestamp};
use crate::mqtt::Will;

/// At most one Will for each session whose client is away.
#[derive(Debug, Default)]
pub(super) struct Wills {
    by_session: HashMap<SessionKey, Waiting>,
    calendar: BTreeSet<(Timestamp, SessionKey)>,
}

#[derive(Debug)]
struct Waiting {
    due: Timestamp,
    will: Box<Will>,
    /// Its row in the store.
    _kept: Option<Kept>,
}

impl Wills {
    /// Keeps a Will until it is due or taken.
    pub(super) fn put(
        &mut self,
        key: SessionKey,
        due: Timestamp,
        will: Box<Will>,
        kept: Option<Kept>,
    ) {
        self.take(key);
        self.calendar.insert((due, key));
        self.by_session.insert(key, Waiting { due, will, _kept: kept });
    }

    /// Takes the Will of a session: its client has come back, or the session ends.
    pub(super) fn take(&mut self, key: SessionKey) -> Option<Box<Will>> {
        let waiting = self.by_session.remove(&key)?;
        self.calendar.remove(&(waiting.due, key));
        Some(waiting.will)
    }

    /// Takes a Will whose time has come.
    pub(super) fn take_due(&mut self, now: Timestamp) -> Option<(SessionKey, Box<Will>)> {
        let (due, key) = *self.calendar.first()?;
        if due > now {
            return None;
        }
        Some((key, self.take(key)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mqtt::QoS;

    fn key(slot: u32) -> SessionKey {
        SessionKey { slot, generation: 0 }
    }

    fn will(topic: &'static str) -> Box<Will> {
        Box::new(Will {
            qos: QoS::AtMostOnce,
            retain: false,
            delay_secs: 1,
            topic: topic.into(),
            payload: "x".into(),
            properties: None,
        })
    }

    #[test]
    fn a_will_is_given_once_when_it_is_due_or_before() {
        // case Q12
        let mut wills = Wills::default();
        wills.put(key(1), Timestamp(10), will("one"), None);
        wills.put(key(2), Timestamp(5), will("two"), None);
        assert_eq!(wills.take_due(Timestamp(4)), None);
        assert_eq!(wills.take_due(Timestamp(9)).unwrap().0, key(2));
        assert_eq!(wills.take_due(Timestamp(9)), None);
        assert!(wills.take(key(1)).is_some());
        assert_eq!(wills.take_due(Timestamp::NEVER), None);
        assert!(wills.take(key(1)).is_none() && wills.calendar.is_empty());
    }
}
