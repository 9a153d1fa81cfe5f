//! Retained messages: the last one of each topic `[MQTT-3.3.1-5]`.

use std::collections::HashMap;
use std::sync::Arc;

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
}

impl<A> Default for Retained<A> {
    fn default() -> Self {
        Self { root: Node::default(), count: 0, bytes: 0 }
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
    /// Bytes of them all: payloads, properties, topics, and 256 for each level of their own.
    pub bytes_max: usize,
}

/// What a level that no other topic shares counts. Many levels of little text take more room than
/// the messages below them.
const LEVEL_BYTES: usize = 256;

impl<A> Retained<A> {
    /// Keeps the message for its topic in place of an older one; an empty payload removes
    /// `[MQTT-3.3.1-6]`. `false`: there is no room, and nothing has changed.
    #[must_use]
    pub fn keep(&mut self, message: &Arc<Message>, author: A, limits: &RetainedLimits) -> bool {
        let levels: Vec<&str> = message.topic.split('/').collect();
        let (old, known_levels) = self.root.find(&levels);
        let old_bytes = old.map_or(0, |old| cost(old));
        if message.payload.is_empty() {
            self.count -= usize::from(old.is_some());
            self.bytes -= old_bytes;
            self.bytes -= self.root.remove(&levels) * LEVEL_BYTES;
            return true;
        }
        let count = self.count + usize::from(old.is_none());
        let new_levels = levels.len() - known_levels;
        let bytes = self.bytes - old_bytes + cost(message) + new_levels * LEVEL_BYTES;
        if count > limits.messages_max || bytes > limits.bytes_max {
            return false;
        }
        (self.count, self.bytes) = (count, bytes);
        let mut node = &mut self.root;
        for level in levels {
            node = node.children.entry(level.into()).or_default();
        }
        node.kept = Some(Kept { message: Arc::clone(message), author });
        true
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
                    open.push((node, None, depth));
                    for (_, child) in node.children.iter().filter(|(name, _)| visible(name)) {
                        open.push((child, Some("#"), depth + 1));
                    }
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

    /// How many there are.
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
    /// The message of a topic, and how many of the topic's levels exist.
    fn find(&self, levels: &[&str]) -> (Option<&Arc<Message>>, usize) {
        let mut node = self;
        for (at, level) in levels.iter().enumerate() {
            let Some(child) = node.children.get(*level) else { return (None, at) };
            node = child;
        }
        (node.kept.as_ref().map(|kept| &kept.message), levels.len())
    }

    // The depth is bounded by `limits.max_topic_levels`, checked when a message comes in.
    /// Gives how many levels went with the message.
    fn remove(&mut self, levels: &[&str]) -> usize {
        let Some((level, rest)) = levels.split_first() else {
            self.kept = None;
            return 0;
        };
        let Some(child) = self.children.get_mut(*level) else { return 0 };
        let removed = child.remove(rest);
        if child.kept.is_some() || !child.children.is_empty() {
            return removed;
        }
        self.children.remove(*level);
        removed + 1
    }
}

fn cost(message: &Message) -> usize {
    message.kept_bytes() + message.topic.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mqtt::QoS;

    const LIMITS: RetainedLimits = RetainedLimits { messages_max: 100, bytes_max: 100_000 };
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
            assert!(retained.keep(&message(name, "x", Timestamp::NEVER), (), &LIMITS));
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
        assert!(retained.keep(&message("a/b", "x", Timestamp::NEVER), (), &LIMITS));
        assert!(retained.keep(&message("a/b", "", Timestamp::NEVER), (), &LIMITS));
        assert!(retained.keep(&message("never/there", "", Timestamp::NEVER), (), &LIMITS));
        assert!(retained.is_empty() && retained.root.children.is_empty());
        assert_eq!(retained.bytes, 0);
    }

    #[test]
    fn bounds_hold_and_a_refused_message_leaves_the_old_one() {
        let limits = RetainedLimits { messages_max: 1, bytes_max: LEVEL_BYTES + 4 };
        let mut retained = Retained::default();
        assert!(retained.keep(&message("a", "old", Timestamp::NEVER), (), &limits));
        assert!(!retained.keep(&message("a", "longer", Timestamp::NEVER), (), &limits));
        assert!(!retained.keep(&message("b", "x", Timestamp::NEVER), (), &limits));
        assert_eq!(retained.matching("a", 1, NOW, |_, ()| true)[0].payload, "old");
    }

    #[test]
    fn levels_take_room_until_they_are_gone() {
        let limits = RetainedLimits { messages_max: 100, bytes_max: 10 * LEVEL_BYTES };
        let mut retained = Retained::default();
        let deep = "/".repeat(10);
        assert!(!retained.keep(&message(&deep, "x", Timestamp::NEVER), (), &limits), "11 levels");
        let deep = "/".repeat(8);
        for _ in 0..2 {
            assert!(retained.keep(&message(&deep, "x", Timestamp::NEVER), (), &limits));
            assert!(!retained.keep(&message("a/b", "x", Timestamp::NEVER), (), &limits));
            // Its levels are there already.
            assert!(retained.keep(&message("/", "x", Timestamp::NEVER), (), &limits));
            assert_eq!(
                retained.matching("#", 1, NOW, |_, ()| true).len(),
                1,
                "no more than asked for"
            );
            for topic in [&*deep, "/"] {
                assert!(retained.keep(&message(topic, "", Timestamp::NEVER), (), &limits));
            }
            assert_eq!(retained.bytes, 0);
        }
    }

    #[test]
    fn expired_messages_are_not_served() {
        let mut retained = Retained::default();
        assert!(retained.keep(&message("a", "x", NOW), (), &LIMITS));
        assert!(topics(&retained, "a").is_empty());
    }

    #[test]
    fn who_serves_decides_by_message_and_author() {
        let mut retained = Retained::default();
        for (topic, author) in [("a", 1), ("b", 2), ("c", 2)] {
            assert!(retained.keep(&message(topic, "x", Timestamp::NEVER), author, &LIMITS));
        }
        let served = |retained: &Retained<i32>, max| {
            let serve = |message: &Message, author: &i32| *author == 2 && message.topic != "b";
            let found = retained.matching("#", max, NOW, serve);
            found.iter().map(|message| message.topic.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(served(&retained, 10), ["c"]);
        assert_eq!(served(&retained, 1), ["c"], "what is not served takes no room");
        assert!(retained.keep(&message("a", "x", Timestamp::NEVER), 2, &LIMITS));
        assert_eq!(served(&retained, 10).len(), 2, "the last publisher is the author");
    }
}
