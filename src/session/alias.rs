//! Topic aliases, both ways: numbers that stand for topic names, for as long as one connection.

use bytestring::ByteString;

use crate::mqtt::{Publish, detached};

use super::Violation;

/// What the client has set up.
#[derive(Debug)]
pub(super) struct InboundAliases {
    /// Topic Alias Maximum of our CONNACK.
    max: u16,
    topics: Vec<(u16, ByteString)>,
}

impl InboundAliases {
    pub(super) fn new(max: u16) -> Self {
        Self { max, topics: Vec::new() }
    }

    /// A new connection knows no alias `[MQTT-3.3.2-7]`.
    pub(super) fn clear(&mut self) {
        self.topics = Vec::new();
    }

    /// Puts the topic name in place of its alias, and remembers the name that comes with one.
    pub(super) fn resolve(&mut self, publish: &mut Publish) -> Result<(), Violation> {
        let alias = publish.properties.as_ref().and_then(|p| p.topic_alias);
        let Some(alias) = alias else { return Ok(()) };
        // [MQTT-3.3.2-9]
        if alias > self.max {
            return Err(Violation::TopicAliasInvalid);
        }
        let known = self.topics.iter().position(|(number, _)| *number == alias);
        match (publish.topic.is_empty(), known) {
            (true, Some(at)) => publish.topic = self.topics[at].1.clone(),
            (true, None) => return Err(Violation::TopicAliasUnknown),
            (false, Some(at)) => self.topics[at].1 = detached(&publish.topic),
            (false, None) => self.topics.push((alias, detached(&publish.topic))),
        }
        Ok(())
    }
}

/// How the topic of one PUBLISH to the client is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alias {
    /// The number.
    pub number: u16,
    /// The client knows it already: the topic name is left out.
    pub known: bool,
}

/// What we have set up towards the client.
#[derive(Debug, Default)]
pub(super) struct OutboundAliases {
    /// The lower of the client's Topic Alias Maximum and ours; 0: none.
    max: u16,
    /// The one that was used last stands last.
    topics: Vec<(ByteString, u16)>,
}

/// Topics up to this length are shorter than the property that would stand for them.
const SHORT_TOPIC_BYTES: usize = 4;

impl OutboundAliases {
    /// A new connection knows no alias `[MQTT-3.3.2-7]`.
    pub(super) fn open(&mut self, max: u16) {
        *self = Self { max, topics: Vec::new() };
    }

    /// The alias for a topic: one that the client knows, else a free one, else that of the topic
    /// that has not been used for longest (case Q19). `None` where a name serves better.
    pub(super) fn of(&mut self, topic: &ByteString) -> Option<Alias> {
        if self.max == 0 || topic.len() <= SHORT_TOPIC_BYTES {
            return None;
        }
        if let Some(at) = self.topics.iter().rposition(|(known, _)| known == topic) {
            self.topics[at..].rotate_left(1);
            let (_, number) = self.topics.last()?;
            return Some(Alias { number: *number, known: true });
        }
        let used = u16::try_from(self.topics.len()).unwrap_or(u16::MAX);
        let number = if used < self.max { used + 1 } else { self.topics.remove(0).1 };
        // The name alone: with a large payload it stands in the packet that both came in.
        self.topics.push((detached(topic), number));
        Some(Alias { number, known: false })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn the_alias_that_rested_longest_gives_way() {
        // case Q19
        let mut aliases = OutboundAliases::default();
        let say = |aliases: &mut OutboundAliases, topic: &'static str| {
            aliases.of(&topic.into()).map(|alias| (alias.number, alias.known))
        };
        assert_eq!(say(&mut aliases, "topic/a"), None, "the client takes none");
        aliases.open(2);
        assert_eq!(say(&mut aliases, "t/1"), None, "too short to be worth one");
        assert_eq!(say(&mut aliases, "topic/a"), Some((1, false)));
        assert_eq!(say(&mut aliases, "topic/b"), Some((2, false)));
        assert_eq!(say(&mut aliases, "topic/a"), Some((1, true)));
        assert_eq!(say(&mut aliases, "topic/c"), Some((2, false)), "b has rested longest");
        assert_eq!(say(&mut aliases, "topic/a"), Some((1, true)));
        assert_eq!(say(&mut aliases, "topic/b"), Some((2, false)));
        aliases.open(1);
        assert_eq!(say(&mut aliases, "topic/a"), Some((1, false)), "another connection");
        assert_eq!(say(&mut aliases, "topic/b"), Some((1, false)));
    }

    #[test]
    fn an_alias_keeps_nothing_but_the_name() {
        // case D13
        let packet = Bytes::from("topic/a and a payload");
        let topic = ByteString::try_from(packet.slice(..7)).unwrap();
        let mut aliases = OutboundAliases::default();
        aliases.open(1);
        assert!(aliases.of(&topic).is_some());
        drop(topic);
        assert!(packet.is_unique(), "the packet is kept");
    }
}
