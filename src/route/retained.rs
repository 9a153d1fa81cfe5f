//! Retained messages: the last one of each topic `[MQTT-3.3.1-5]`.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use bytestring::ByteString;
use foldhash::fast::RandomState;

use crate::ids::Timestamp;
use crate::mqtt::Message;

/// All retained messages, by topic level. With each is kept who published it.
#[derive(Debug)]
pub struct Retained<A> {
    root: Node<A>,
    count: usize,
    /// Of messages with their topics, and of the levels they hang from.
    bytes: usize,
    /// How many each client owns; nobody stands here with none.
    owned: HashMap<Arc<str>, usize, RandomState>,
    /// When those that expire do.
    calendar: BTreeSet<(Timestamp, ByteString)>,
    /// Of messages with their topics alone.
    message_bytes: usize,
}

#[derive(Debug)]
struct Node<A> {
    kept: Option<Kept<A>>,
    children: HashMap<Box<str>, Self, RandomState>,
}

#[derive(Debug)]
struct Kept<A> {
    message: Arc<Message>,
    author: A,
    owner: Arc<str>,
}

impl<A> Default for Retained<A> {
    fn default() -> Self {
        Self {
            root: Node::default(),
            count: 0,
            bytes: 0,
            message_bytes: 0,
            owned: HashMap::default(),
            calendar: BTreeSet::new(),
        }
    }
}

impl<A> Default for Node<A> {
    fn default() -> Self {
        Self { kept: None, children: HashMap::default() }
    }
}

/// Bounds of retained messages (`limits.max_retained_messages`, `max_retained_bytes`).
#[derive(Clone, Copy, Debug)]
pub struct RetainedLimits {
    /// Topics with a retained message.
    pub messages_max: usize,
    /// Those of one client (case D10).
    pub messages_per_client_max: usize,
    /// Bytes of them all: payloads, properties, topics, and 256 for each level of their own.
    pub bytes_max: usize,
}

/// What a level that no other topic shares counts. Many levels of little text take more room than
/// the messages below them.
const LEVEL_BYTES: usize = 256;

impl<A> Retained<A> {
    /// Keeps the message for its topic in place of an older one; an empty payload removes
    /// `[MQTT-3.3.1-6]`. `owner` is the client whose share of the room it takes; nobody's, where
    /// it is empty. `false`: there is no room, and nothing has changed.
    #[must_use]
    pub fn keep(
        &mut self,
        message: &Arc<Message>,
        author: A,
        owner: &str,
        limits: &RetainedLimits,
    ) -> bool {
        let levels: Vec<&str> = message.topic.split('/').collect();
        if message.payload.is_empty() {
            self.remove(&levels);
            return true;
        }
        let (old, known_levels) = self.root.find(&levels);
        let old_bytes = old.map_or(0, |old| cost(&old.message));
        let others = old.is_none_or(|old| *old.owner != *owner);
        let count = self.count + usize::from(old.is_none());
        let new_levels = levels.len() - known_levels;
        let bytes = self.bytes - old_bytes + cost(message) + new_levels * LEVEL_BYTES;
        let full = count > limits.messages_max || bytes > limits.bytes_max;
        let owned = self.owned.get(owner).copied().unwrap_or(0);
        if full || (others && !owner.is_empty() && owned >= limits.messages_per_client_max) {
            return false;
        }
        let owner: Arc<str> = Arc::from(owner);
        let kept = Kept { message: Arc::clone(message), author, owner: Arc::clone(&owner) };
        let old = self.root.put(&levels, kept);
        old.iter().for_each(|old| self.disown(old));
        (self.count, self.bytes) = (count, bytes);
        self.message_bytes = self.message_bytes - old_bytes + cost(message);
        if !owner.is_empty() {
            *self.owned.entry(owner).or_default() += 1;
        }
        if message.expires != Timestamp::NEVER {
            self.calendar.insert((message.expires, message.topic.clone()));
        }
        true
    }

    /// Keeps one of the broker's own messages, outside of all bounds and counts: its topics are
    /// few, and clients publish to none of them.
    pub fn keep_own(&mut self, message: &Arc<Message>, author: A) {
        let levels: Vec<&str> = message.topic.split('/').collect();
        let kept = Kept { message: Arc::clone(message), author, owner: Arc::from("") };
        self.root.put(&levels, kept);
    }

    /// Removes what has expired.
    pub fn sweep(&mut self, now: Timestamp) {
        while self.calendar.first().is_some_and(|(expires, _)| *expires <= now) {
            let Some((_, topic)) = self.calendar.pop_first() else { return };
            let levels: Vec<&str> = topic.split('/').collect();
            self.remove(&levels);
        }
    }

    /// Retained messages that match the filter, have not expired and that `serve` lets pass, in no
    /// set order: all of them, or `max`.
    #[must_use]
    pub fn matching(
        &self,
        filter: &str,
        max: usize,
        now: Timestamp,
        serve: impl Fn(&Message, &A) -> bool,
    ) -> Vec<Arc<Message>> {
        let mut found = Vec::new();
        let mut open: Vec<(&Node<A>, Option<&str>, usize)> = vec![(&self.root, Some(filter), 0)];
        while let Some((node, rest, depth)) = open.pop() {
            if found.len() >= max {
                break;
            }
            let Some(rest) = rest else {
                let kept = node.kept.as_ref().filter(|kept| kept.message.expires > now);
                let kept = kept.filter(|kept| serve(&kept.message, &kept.author));
                found.extend(kept.map(|kept| Arc::clone(&kept.message)));
                continue;
            };
            let (level, rest) = match rest.split_once('/') {
                Some((level, rest)) => (level, Some(rest)),
                None => (rest, None),
            };
            // [MQTT-4.7.2-1]: a wildcard at the first level does not match `$…`.
            let visible = |name: &str| depth > 0 || !name.starts_with('$');
            match level {
                "#" => {
                    // `#` includes the parent level itself (4.7.1.2).
                    for (_, child) in node.children.iter().filter(|(name, _)| visible(name)) {
                        open.push((child, Some("#"), depth + 1));
                    }
                    // What is pushed last comes first: a topic before those below it.
                    open.push((node, None, depth));
                }
                "+" => {
                    for (_, child) in node.children.iter().filter(|(name, _)| visible(name)) {
                        open.push((child, rest, depth + 1));
                    }
                }
                level => {
                    open.extend(node.children.get(level).map(|child| (child, rest, depth + 1)));
                }
            }
        }
        found
    }

    fn remove(&mut self, levels: &[&str]) {
        let (old, removed_levels) = self.root.remove(levels);
        let Some(old) = old else { return };
        self.count -= 1;
        self.message_bytes -= cost(&old.message);
        self.bytes -= cost(&old.message) + removed_levels * LEVEL_BYTES;
        self.disown(&old);
    }

    /// A message goes: it takes no share of its owner's any more.
    fn disown(&mut self, old: &Kept<A>) {
        if let Some(owned) = self.owned.get_mut(&old.owner) {
            *owned -= 1;
            if *owned == 0 {
                self.owned.remove(&old.owner);
            }
        }
        self.calendar.remove(&(old.message.expires, old.message.topic.clone()));
    }

    /// Bytes of the messages with their topics.
    #[must_use]
    pub fn message_bytes(&self) -> usize {
        self.message_bytes
    }

    /// How many there are, but for the broker's own.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// There are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

impl<A> Node<A> {
    /// Gives what was kept there before.
    fn put(&mut self, levels: &[&str], kept: Kept<A>) -> Option<Kept<A>> {
        let mut node = self;
        for level in levels {
            node = node.children.entry((*level).into()).or_default();
        }
        node.kept.replace(kept)
    }

    /// The message of a topic, and how many of the topic's levels exist.
    fn find(&self, levels: &[&str]) -> (Option<&Kept<A>>, usize) {
        let mut node = self;
        for (at, level) in levels.iter().enumerate() {
            let Some(child) = node.children.get(*level) else { return (None, at) };
            node = child;
        }
        (node.kept.as_ref(), levels.len())
    }

    // The depth is bounded by `limits.max_topic_levels`, checked when a message comes in.
    /// Gives the message, and how many levels went with it.
    fn remove(&mut self, levels: &[&str]) -> (Option<Kept<A>>, usize) {
        let Some((level, rest)) = levels.split_first() else { return (self.kept.take(), 0) };
        let Some(child) = self.children.get_mut(*level) else { return (None, 0) };
        let (old, removed) = child.remove(rest);
        if child.kept.is_some() || !child.children.is_empty() {
            return (old, removed);
        }
        self.children.remove(*level);
        (old, removed + 1)
    }
}

fn cost(message: &Message) -> usize {
    message.kept_bytes() + message.topic.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mqtt::QoS;

    const LIMITS: RetainedLimits =
        RetainedLimits { messages_max: 100, messages_per_client_max: 2, bytes_max: 100_000 };
    const NOW: Timestamp = Timestamp(10);

    fn message(topic: &str, payload: &'static str, expires: Timestamp) -> Arc<Message> {
        let qos = QoS::AtMostOnce;
        Arc::new(Message::new(topic.into(), payload.into(), qos, true, None, expires))
    }

    fn topics(retained: &Retained<()>, filter: &str) -> Vec<String> {
        let found = retained.matching(filter, usize::MAX, NOW, |_, ()| true);
        let mut topics: Vec<String> = found.iter().map(|m| m.topic.to_string()).collect();
        topics.sort_unstable();
        topics
    }

    #[test]
    fn filters_find_what_the_definition_of_matching_says() {
        let names = ["a", "a/b", "a/b/c", "/", "b", "$SYS/x", "$SYS"];
        let mut retained = Retained::default();
        for name in names {
            assert!(retained.keep(&message(name, "x", Timestamp::NEVER), (), "", &LIMITS));
        }
        for filter in ["#", "+", "a/#", "a/+", "+/b", "/#", "$SYS/#", "$SYS/+", "a", "+/#", "x"] {
            let matching = names.iter().filter(|name| crate::mqtt::topic::matches(filter, name));
            let mut expected: Vec<String> = matching.map(ToString::to_string).collect();
            expected.sort_unstable();
            assert_eq!(topics(&retained, filter), expected, "{filter}");
        }
    }

    #[test]
    fn an_empty_payload_removes_and_leaves_nothing_behind() {
        let mut retained = Retained::default();
        assert!(retained.keep(&message("a/b", "x", Timestamp::NEVER), (), "", &LIMITS));
        assert!(retained.keep(&message("a/b", "", Timestamp::NEVER), (), "", &LIMITS));
        assert!(retained.keep(&message("never/there", "", Timestamp::NEVER), (), "", &LIMITS));
        assert!(retained.is_empty() && retained.root.children.is_empty());
        assert_eq!(retained.bytes, 0);
    }

    #[test]
    fn bounds_hold_and_a_refused_message_leaves_the_old_one() {
        let limits = RetainedLimits { messages_max: 1, bytes_max: LEVEL_BYTES + 4, ..LIMITS };
        let mut retained = Retained::default();
        assert!(retained.keep(&message("a", "old", Timestamp::NEVER), (), "", &limits));
        assert!(!retained.keep(&message("a", "longer", Timestamp::NEVER), (), "", &limits));
        assert!(!retained.keep(&message("b", "x", Timestamp::NEVER), (), "", &limits));
        assert_eq!(retained.matching("a", 1, NOW, |_, ()| true)[0].payload, "old");
        assert_eq!((retained.len(), retained.message_bytes()), (1, 4));
        retained.keep_own(&message("$SYS/broker/version", "own", Timestamp::NEVER), ());
        assert_eq!((retained.len(), retained.message_bytes()), (1, 4), "nobody's room is taken");
        assert_eq!(topics(&retained, "$SYS/#"), ["$SYS/broker/version"]);
    }

    #[test]
    fn levels_take_room_until_they_are_gone() {
        let limits = RetainedLimits { bytes_max: 10 * LEVEL_BYTES, ..LIMITS };
        let mut retained = Retained::default();
        let deep = "/".repeat(10);
        assert!(
            !retained.keep(&message(&deep, "x", Timestamp::NEVER), (), "", &limits),
            "11 levels"
        );
        let deep = "/".repeat(8);
        for _ in 0..2 {
            assert!(retained.keep(&message(&deep, "x", Timestamp::NEVER), (), "", &limits));
            assert!(!retained.keep(&message("a/b", "x", Timestamp::NEVER), (), "", &limits));
            // Its levels are there already.
            assert!(retained.keep(&message("/", "x", Timestamp::NEVER), (), "", &limits));
            assert_eq!(
                retained.matching("#", 1, NOW, |_, ()| true).len(),
                1,
                "no more than asked for"
            );
            for topic in [&*deep, "/"] {
                assert!(retained.keep(&message(topic, "", Timestamp::NEVER), (), "", &limits));
            }
            assert_eq!(retained.bytes, 0);
        }
    }

    #[test]
    fn expired_messages_are_not_served() {
        let mut retained = Retained::default();
        assert!(retained.keep(&message("a", "x", NOW), (), "", &LIMITS));
        assert!(topics(&retained, "a").is_empty());
    }

    #[test]
    fn who_serves_decides_by_message_and_author() {
        let mut retained = Retained::default();
        for (topic, author) in [("a", 1), ("b", 2), ("c", 2)] {
            assert!(retained.keep(&message(topic, "x", Timestamp::NEVER), author, "", &LIMITS));
        }
        let served = |retained: &Retained<i32>, max| {
            let serve = |message: &Message, author: &i32| *author == 2 && message.topic != "b";
            let found = retained.matching("#", max, NOW, serve);
            found.iter().map(|message| message.topic.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(served(&retained, 10), ["c"]);
        assert_eq!(served(&retained, 1), ["c"], "what is not served takes no room");
        assert!(retained.keep(&message("a", "x", Timestamp::NEVER), 2, "", &LIMITS));
        assert_eq!(served(&retained, 10).len(), 2, "the last publisher is the author");
    }

    #[test]
    fn no_client_takes_more_than_its_share() {
        // case D10
        let mut retained = Retained::default();
        let mut keep = |topic: &str, payload, owner| {
            retained.keep(&message(topic, payload, Timestamp::NEVER), (), owner, &LIMITS)
        };
        assert!(keep("a", "x", "greedy") && keep("b", "x", "greedy"));
        assert!(!keep("c", "x", "greedy"));
        assert!(keep("a", "y", "greedy"), "in place of its own");
        assert!(keep("c", "x", "other") && keep("a", "z", "other"));
        assert!(keep("d", "x", "greedy"), "another owns `a` now");
        assert!(!keep("c", "x", "greedy"));
        assert!(keep("b", "", "anybody") && keep("c", "x", "greedy"));
        for topic in ["a", "b", "c", "d"] {
            assert!(keep(topic, "", ""));
        }
        assert!(retained.is_empty() && retained.owned.is_empty());
    }

    #[test]
    fn what_expires_takes_no_room_for_ever() {
        let mut retained = Retained::default();
        assert!(retained.keep(&message("a/b", "x", NOW), (), "c", &LIMITS));
        assert!(retained.keep(&message("a/c", "x", NOW.after(SECOND)), (), "c", &LIMITS));
        // A newer message of the topic that lives longer.
        assert!(retained.keep(&message("a/c", "y", Timestamp::NEVER), (), "c", &LIMITS));
        retained.sweep(NOW.after(2 * SECOND));
        assert_eq!(topics(&retained, "#"), ["a/c"]);
        assert!(retained.keep(&message("a/c", "", NOW), (), "c", &LIMITS));
        assert_eq!((retained.len(), retained.bytes), (0, 0));
        assert!(retained.owned.is_empty() && retained.calendar.is_empty());
    }

    const SECOND: std::time::Duration = std::time::Duration::from_secs(1);
}
