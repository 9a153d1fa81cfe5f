//! The trie of topic filters, level by level, with the sessions that hold them.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use foldhash::fast::RandomState;
use indexmap::IndexMap;

use crate::ids::SessionKey;
use crate::mqtt::{QoS, SubscribeOptions, topic};

/// What a subscription grants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Highest QoS of deliveries.
    pub qos: QoS,
    /// Not what this session published itself `[MQTT-3.8.3-3]`.
    pub no_local: bool,
    /// Keep the retain flag as published `[MQTT-3.3.1-12]`.
    pub retain_as_published: bool,
    /// Subscription Identifier.
    pub id: Option<u32>,
}

impl Grant {
    /// What the options of a SUBSCRIBE ask for.
    #[must_use]
    pub fn new(options: &SubscribeOptions, id: Option<u32>) -> Self {
        Self {
            qos: options.qos,
            no_local: options.no_local,
            retain_as_published: options.retain_as_published,
            id,
        }
    }
}

/// A session that a message is for, under one of its subscriptions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Whose subscription.
    pub key: SessionKey,
    /// What it grants.
    pub grant: Grant,
    /// The share group for which it was chosen.
    pub share: Option<Share>,
}

/// Whether a member of a share group can be given a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// At once.
    Ready,
    /// It would wait for the client.
    Away,
    /// Never: it may not read the message, or is gone.
    Barred,
}

/// A share group, by the filter that its members have subscribed to: `$share/<name>/<filter>`.
pub type Share = Arc<str>;

/// All subscriptions to ordinary topics.
#[derive(Debug, Default)]
pub struct Subscriptions {
    root: Node,
    count: usize,
    /// Those of share groups among them.
    shared: usize,
}

#[derive(Debug, Default)]
struct Node {
    children: HashMap<Box<str>, Self, RandomState>,
    plus: Option<Box<Self>>,
    /// Subscriptions that end here.
    here: Subscribers,
    /// Subscriptions that end here with `#`.
    below: Subscribers,
}

#[derive(Debug, Default)]
struct Subscribers {
    plain: IndexMap<SessionKey, Grant, RandomState>,
    shared: Vec<ShareGroup>,
}

/// `$share/<name>/…`: each message goes to one of the members `[MQTT-4.8.2-4]`.
#[derive(Debug)]
struct ShareGroup {
    /// As it was subscribed to, the name included.
    share: Share,
    members: IndexMap<SessionKey, Grant, RandomState>,
    /// Whose turn it is; a race between publishers costs fairness, nothing else.
    turn: AtomicUsize,
}

impl Subscriptions {
    /// Adds a subscription or replaces its grant `[MQTT-3.8.4-3]`. `true` when it is new.
    pub fn subscribe(
        &mut self,
        key: SessionKey,
        filter: &str,
        group: Option<&str>,
        grant: Grant,
    ) -> bool {
        let subscribers = self.root.subscribers_mut(filter);
        let new = match group {
            None => subscribers.plain.insert(key, grant).is_none(),
            Some(name) => subscribers.insert_shared(key, name, filter, grant),
        };
        self.count += usize::from(new);
        self.shared += usize::from(new && group.is_some());
        new
    }

    /// Removes a subscription. `false` when there was none.
    pub fn unsubscribe(&mut self, key: SessionKey, filter: &str, group: Option<&str>) -> bool {
        let levels: Vec<&str> = filter.split('/').collect();
        let found = self.root.remove(&levels, key, group);
        self.count -= usize::from(found);
        self.shared -= usize::from(found && group.is_some());
        found
    }

    /// How many subscriptions there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// How many of them belong to share groups.
    #[must_use]
    pub fn shared(&self) -> usize {
        self.shared
    }

    /// There are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The next in turn of a share group that is ready, else the next that may have the message.
    #[must_use]
    pub fn next_of(
        &self,
        share: &str,
        readiness: impl Fn(SessionKey) -> Readiness,
    ) -> Option<Member> {
        let (name, filter) = topic::split_shared(share);
        let subscribers = self.root.subscribers(filter)?;
        let group = subscribers.shared.iter().find(|group| group.name() == name)?;
        group.next(&readiness)
    }

    /// Calls `found` for every subscription that matches the topic name. Of a share group it is
    /// called for one member: the next in turn that is ready, else the next that may have it.
    ///
    /// A session with overlapping subscriptions is found more than once. Returns whether that is
    /// possible, that is, whether more than one filter matched.
    pub fn matches(
        &self,
        topic: &str,
        readiness: impl Fn(SessionKey) -> Readiness,
        mut found: impl FnMut(Member),
    ) -> bool {
        let mut filters = 0;
        let mut visit = |subscribers: &Subscribers| {
            filters += subscribers.visit(&readiness, &mut found);
        };
        let Some(first) = topic.split('/').next() else { return false };
        // [MQTT-4.7.2-1]: a wildcard at the first level does not match `$…`.
        let hidden = first.starts_with('$');
        let mut open: Vec<(&Node, Option<&str>)> = vec![(&self.root, Some(topic))];
        while let Some((node, rest)) = open.pop() {
            let at_root = std::ptr::eq(node, &raw const self.root);
            if !(at_root && hidden) {
                visit(&node.below);
            }
            let Some(rest) = rest else {
                visit(&node.here);
                continue;
            };
            let (level, rest) = match rest.split_once('/') {
                Some((level, rest)) => (level, Some(rest)),
                None => (rest, None),
            };
            if let Some(child) = node.children.get(level) {
                open.push((child, rest));
            }
            if let Some(plus) = node.plus.as_deref().filter(|_| !(at_root && hidden)) {
                open.push((plus, rest));
            }
        }
        filters > 1
    }
}

impl Node {
    fn subscribers_mut(&mut self, filter: &str) -> &mut Subscribers {
        let mut node = self;
        for level in filter.split('/') {
            node = match level {
                "#" => return &mut node.below,
                "+" => node.plus.get_or_insert_default(),
                _ => node.children.entry(level.into()).or_default(),
            };
        }
        &mut node.here
    }

    fn subscribers(&self, filter: &str) -> Option<&Subscribers> {
        let mut node = self;
        for level in filter.split('/') {
            node = match level {
                "#" => return Some(&node.below),
                "+" => node.plus.as_deref()?,
                _ => node.children.get(level)?,
            };
        }
        Some(&node.here)
    }

    // The depth is bounded by `limits.max_topic_levels`, checked when a filter comes in.
    fn remove(&mut self, levels: &[&str], key: SessionKey, group: Option<&str>) -> bool {
        let Some((level, rest)) = levels.split_first() else {
            return self.here.remove(key, group);
        };
        match *level {
            "#" => self.below.remove(key, group),
            "+" => {
                let Some(plus) = &mut self.plus else { return false };
                let found = plus.remove(rest, key, group);
                if plus.is_empty() {
                    self.plus = None;
                }
                found
            }
            level => {
                let Some(child) = self.children.get_mut(level) else { return false };
                let found = child.remove(rest, key, group);
                if child.is_empty() {
                    self.children.remove(level);
                }
                found
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.children.is_empty()
            && self.plus.is_none()
            && self.here.is_empty()
            && self.below.is_empty()
    }
}

impl Subscribers {
    fn insert_shared(&mut self, key: SessionKey, name: &str, filter: &str, grant: Grant) -> bool {
        if let Some(group) = self.group_mut(name) {
            return group.members.insert(key, grant).is_none();
        }
        let members = std::iter::once((key, grant)).collect();
        let share = topic::shared(name, filter).into();
        self.shared.push(ShareGroup { share, members, turn: AtomicUsize::new(0) });
        true
    }

    fn group_mut(&mut self, name: &str) -> Option<&mut ShareGroup> {
        self.shared.iter_mut().find(|group| group.name() == Some(name))
    }

    fn remove(&mut self, key: SessionKey, group: Option<&str>) -> bool {
        let Some(name) = group else { return self.plain.swap_remove(&key).is_some() };
        let at = self.shared.iter().position(|group| group.name() == Some(name));
        let Some(at) = at else { return false };
        let found = self.shared[at].members.swap_remove(&key).is_some();
        if self.shared[at].members.is_empty() {
            self.shared.swap_remove(at);
        }
        found
    }

    /// Gives how many filters had a subscriber.
    fn visit(
        &self,
        readiness: &impl Fn(SessionKey) -> Readiness,
        found: &mut impl FnMut(Member),
    ) -> usize {
        for (key, grant) in &self.plain {
            found(Member { key: *key, grant: *grant, share: None });
        }
        for group in &self.shared {
            if let Some(member) = group.next(readiness) {
                found(member);
            }
        }
        usize::from(!self.plain.is_empty()) + self.shared.len()
    }

    fn is_empty(&self) -> bool {
        self.plain.is_empty() && self.shared.is_empty()
    }
}

impl ShareGroup {
    fn name(&self) -> Option<&str> {
        topic::split_shared(&self.share).0
    }

    fn next(&self, readiness: &impl Fn(SessionKey) -> Readiness) -> Option<Member> {
        let count = self.members.len();
        let turn = self.turn.load(Ordering::Relaxed);
        let mut away = None;
        let ready = (0..count).map(|step| (turn + step) % count).find(|at| {
            let (key, _) = self.members.get_index(*at).expect("below the count");
            let readiness = readiness(*key);
            if readiness == Readiness::Away {
                away.get_or_insert(*at);
            }
            readiness == Readiness::Ready
        });
        let at = ready.or(away)?;
        self.turn.store(at + 1, Ordering::Relaxed);
        let member = self.members.get_index(at);
        member.map(|(key, grant)| Member {
            key: *key,
            grant: *grant,
            share: Some(Arc::clone(&self.share)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(slot: u32) -> SessionKey {
        SessionKey { slot, generation: 0 }
    }

    fn grant() -> Grant {
        Grant::new(&SubscribeOptions::default(), None)
    }

    fn found(subscriptions: &Subscriptions, topic: &str) -> Vec<u32> {
        let mut keys = Vec::new();
        subscriptions.matches(topic, |_| Readiness::Ready, |member| keys.push(member.key.slot));
        keys.sort_unstable();
        keys
    }

    #[test]
    fn the_trie_agrees_with_the_definition_of_matching() {
        let filters = ["#", "+", "a", "a/#", "a/+", "+/b", "/#", "/+", "+/+/c", "a/b/c", "a//c"];
        let dollar = ["$SYS/#", "$SYS/+", "+/x"];
        let mut subscriptions = Subscriptions::default();
        let all: Vec<&str> = filters.iter().chain(&dollar).copied().collect();
        for (slot, filter) in (0u32..).zip(&all) {
            assert!(subscriptions.subscribe(key(slot), filter, None, grant()));
        }
        for topic in ["a", "b", "/", "a/", "a/b", "/b", "a/b/c", "a//c", "x/y/c", "$SYS", "$SYS/x"]
        {
            let matching =
                (0u32..).zip(&all).filter(|(_, f)| crate::mqtt::topic::matches(f, topic));
            let expected: Vec<u32> = matching.map(|(slot, _)| slot).collect();
            assert_eq!(found(&subscriptions, topic), expected, "{topic}");
        }
        for (slot, filter) in (0u32..).zip(&all) {
            assert!(subscriptions.unsubscribe(key(slot), filter, None));
            assert!(!subscriptions.unsubscribe(key(slot), filter, None));
        }
        assert!(subscriptions.is_empty() && subscriptions.root.is_empty(), "nothing is left");
    }

    #[test]
    fn a_share_group_takes_turns_and_prefers_who_is_able() {
        let mut subscriptions = Subscriptions::default();
        for slot in 1..=3 {
            subscriptions.subscribe(key(slot), "t", Some("g"), grant());
        }
        let next = |readiness: [Readiness; 3]| {
            let mut slot = 0;
            let of = |key: SessionKey| readiness[key.slot as usize - 1];
            subscriptions.matches("t", of, |member| slot = member.key.slot);
            slot
        };
        use Readiness::{Away, Barred, Ready};
        let turns: Vec<u32> = (0..4).map(|_| next([Ready; 3])).collect();
        assert_eq!(turns, [1, 2, 3, 1]);
        assert_eq!(next([Ready, Away, Barred]), 1);
        assert_ne!(next([Away; 3]), 0, "with nobody ready it waits for one of them");
        // case S4
        assert_eq!(next([Barred, Away, Barred]), 2);
        assert_eq!(next([Barred, Away, Ready]), 3);
        assert_eq!(next([Barred; 3]), 0, "nobody may have it");
        subscriptions.subscribe(key(1), "t", None, grant());
        assert_eq!((subscriptions.len(), subscriptions.shared()), (4, 3));
        assert!(subscriptions.unsubscribe(key(1), "t", Some("g")));
        assert!(subscriptions.unsubscribe(key(1), "t", None));
        assert_eq!((subscriptions.len(), subscriptions.shared()), (2, 2));
    }

    #[test]
    fn overlapping_filters_are_reported() {
        let mut subscriptions = Subscriptions::default();
        subscriptions.subscribe(key(1), "a/b", None, grant());
        assert!(!subscriptions.matches("a/b", |_| Readiness::Ready, |_| ()));
        subscriptions.subscribe(key(1), "a/+", None, grant());
        assert!(subscriptions.matches("a/b", |_| Readiness::Ready, |_| ()));
    }
}
