//! The `$SYS` tree: what the broker says of itself, under mosquitto's names.
//!
//! [`SysTree`] turns figures into texts and says which of them are new; time is an argument.
//! [`Broker::publish_sys`] takes the figures and publishes.

use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;

use super::rights::Author;
use super::{Broker, write};
use crate::ids::Timestamp;
use crate::metrics::{Snapshot, Totals, anonymous_bytes};
use crate::mqtt::{Publish, QoS};

/// What the tree is made of, at one moment.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Counted since the start.
    pub totals: Totals,
    /// Sums of state.
    pub snapshot: Snapshot,
    /// Memory of this process that stands for no file, where the system tells.
    pub memory_bytes: Option<u64>,
}

/// The topics of the tree with what was last published on them.
#[derive(Debug)]
pub struct SysTree {
    started: Timestamp,
    updated: Timestamp,
    /// At the last update.
    totals: Totals,
    peaks: Peaks,
    loads: Vec<Load>,
    said: Vec<(ByteString, String)>,
}

/// The largest figures of all updates.
#[derive(Clone, Copy, Debug, Default)]
struct Peaks {
    clients: u64,
    memory_bytes: u64,
}

/// One exponential average of a count, per minute.
#[derive(Debug)]
struct Load {
    topic: String,
    count: fn(&Totals) -> u64,
    window: Duration,
    per_minute: f64,
}

/// A figure under its name.
type Named<T> = (&'static str, fn(&T) -> u64);

/// Counts with their topics below `$SYS/broker/`.
const COUNTS: &[Named<Figures>] = &[
    ("bytes/received", |f| f.totals.bytes.received),
    ("bytes/sent", |f| f.totals.bytes.sent),
    ("clients/total", |f| f.sessions()),
    ("clients/connected", |f| f.totals.clients),
    ("clients/active", |f| f.totals.clients),
    ("clients/disconnected", |f| f.snapshot.sessions_away as u64),
    ("clients/inactive", |f| f.snapshot.sessions_away as u64),
    ("clients/expired", |f| f.totals.sessions_expired),
    ("connections/socket/count", |f| f.totals.sockets),
    ("messages/received", |f| f.totals.packets.received),
    ("messages/sent", |f| f.totals.packets.sent),
    ("messages/stored", |f| f.stored_messages()),
    ("packet/out/count", |f| f.totals.waiting.packets),
    ("packet/out/bytes", |f| f.totals.waiting.bytes),
    ("publish/bytes/received", |f| f.totals.payload_bytes.received),
    ("publish/bytes/sent", |f| f.totals.payload_bytes.sent),
    ("publish/messages/received", |f| f.totals.publishes.received),
    ("publish/messages/sent", |f| f.totals.publishes.sent),
    ("publish/messages/dropped", |f| f.totals.dropped),
    ("retained messages/count", |f| f.snapshot.retained_messages as u64),
    ("store/messages/count", |f| f.stored_messages()),
    ("store/messages/bytes", |f| f.stored_bytes()),
    ("subscriptions/count", |f| f.snapshot.ordinary_subscriptions() as u64),
    ("shared_subscriptions/count", |f| f.snapshot.shared_subscriptions as u64),
];

/// Counts of which there are averages, with their names below `$SYS/broker/load/`.
const LOADS: &[Named<Totals>] = &[
    ("bytes/received", |t| t.bytes.received),
    ("bytes/sent", |t| t.bytes.sent),
    ("connections", |t| t.connects),
    ("messages/received", |t| t.packets.received),
    ("messages/sent", |t| t.packets.sent),
    ("publish/dropped", |t| t.dropped),
    ("publish/received", |t| t.publishes.received),
    ("publish/sent", |t| t.publishes.sent),
    ("sockets", |t| t.sockets),
];

const WINDOWS_MIN: [u64; 3] = [1, 5, 15];

impl Figures {
    fn sessions(&self) -> u64 {
        (self.snapshot.sessions_connected + self.snapshot.sessions_away) as u64
    }

    /// A message counts for each session that it waits for.
    fn stored_messages(&self) -> u64 {
        let Snapshot { queue_messages, retained_messages, rsp_mail_messages, .. } = self.snapshot;
        (queue_messages + retained_messages + rsp_mail_messages) as u64
    }

    fn stored_bytes(&self) -> u64 {
        let Snapshot { queue_bytes, retained_bytes, rsp_mail_bytes, .. } = self.snapshot;
        (queue_bytes + retained_bytes + rsp_mail_bytes) as u64
    }
}

impl Load {
    fn all() -> Vec<Self> {
        let windows = |(name, count): &Named<Totals>| {
            WINDOWS_MIN.map(|minutes| Self {
                topic: format!("load/{name}/{minutes}min"),
                count: *count,
                window: Duration::from_secs(minutes * 60),
                per_minute: 0.0,
            })
        };
        LOADS.iter().flat_map(windows).collect()
    }

    /// Adds what was counted within `elapsed`. What was before counts the less the longer ago it
    /// was: 1/e of it after the window.
    fn add(&mut self, count: u64, elapsed: Duration) {
        let minutes = elapsed.as_secs_f64() / 60.0;
        if minutes > 0.0 {
            let now = count as f64 / minutes;
            let keeps = (-elapsed.as_secs_f64() / self.window.as_secs_f64()).exp();
            self.per_minute = now + keeps * (self.per_minute - now);
        }
    }
}

impl SysTree {
    /// A tree of which nothing was published.
    #[must_use]
    pub fn new(started: Timestamp) -> Self {
        Self {
            started,
            updated: started,
            totals: Totals::default(),
            peaks: Peaks::default(),
            loads: Load::all(),
            said: Vec::new(),
        }
    }

    /// Takes new figures. Gives the topics whose texts have changed since they were last given:
    /// the first time, all of them.
    pub fn update(&mut self, now: Timestamp, figures: &Figures) -> Vec<(ByteString, String)> {
        let elapsed = now.since(self.updated);
        for load in &mut self.loads {
            let count = (load.count)(&figures.totals).saturating_sub((load.count)(&self.totals));
            load.add(count, elapsed);
        }
        self.updated = now;
        self.totals = figures.totals;
        self.peaks.clients = self.peaks.clients.max(figures.sessions());
        let texts = self.texts(figures);
        let topics = |(name, text): (String, String)| (format!("$SYS/broker/{name}").into(), text);
        let texts: Vec<(ByteString, String)> = texts.into_iter().map(topics).collect();
        let changed = texts.iter().filter(|entry| !self.said.contains(entry)).cloned().collect();
        self.said = texts;
        changed
    }

    fn texts(&mut self, figures: &Figures) -> Vec<(String, String)> {
        let count = |(name, of): &Named<Figures>| ((*name).to_owned(), of(figures));
        let mut counts: Vec<(String, u64)> = COUNTS.iter().map(count).collect();
        counts.push(("clients/maximum".to_owned(), self.peaks.clients));
        if let Some(bytes) = figures.memory_bytes {
            self.peaks.memory_bytes = self.peaks.memory_bytes.max(bytes);
            counts.push(("heap/current".to_owned(), bytes));
            counts.push(("heap/maximum".to_owned(), self.peaks.memory_bytes));
        }
        let uptime_secs = self.updated.since(self.started).as_secs();
        let sentences = [
            ("version".to_owned(), concat!("simcast version ", env!("CARGO_PKG_VERSION")).into()),
            ("uptime".to_owned(), format!("{uptime_secs} seconds")),
        ];
        let counts = counts.into_iter().map(|(name, count)| (name, count.to_string()));
        let loads = self.loads.iter().map(|l| (l.topic.clone(), format!("{:.2}", l.per_minute)));
        sentences.into_iter().chain(counts).chain(loads).collect()
    }
}

impl Broker {
    /// Publishes what has changed in the `$SYS` tree: retained, QoS 2, outside of the bounds of
    /// retained messages. It waits for no receiver.
    pub fn publish_sys(&self, tree: &mut SysTree) {
        let figures = Figures {
            totals: self.metrics.totals(),
            snapshot: self.snapshot(),
            memory_bytes: anonymous_bytes(),
        };
        for (topic, text) in tree.update(self.now(), &figures) {
            let publish = Publish {
                dup: false,
                qos: QoS::ExactlyOnce,
                retain: true,
                topic,
                packet_id: None,
                properties: None,
                payload: text.into(),
            };
            let message = Arc::new(self.message(publish));
            write(&self.retained).keep_own(&message, Author::default());
            let (receivers, _wanted) = self.receivers(None, &message.topic);
            let _nobody_waits = self.fan_out(&message, &receivers, self.keeper.step());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Both;

    const START: Timestamp = Timestamp(1_000_000);

    fn at(secs: u64) -> Timestamp {
        START.after(Duration::from_secs(secs))
    }

    fn received(packets: u64) -> Figures {
        let totals = Totals { packets: Both { received: packets, sent: 0 }, ..Totals::default() };
        Figures { totals, ..Figures::default() }
    }

    fn text(tree: &SysTree, name: &str) -> String {
        let topic = format!("$SYS/broker/{name}");
        let (_, text) = tree.said.iter().find(|(said, _)| *said == topic).expect(name);
        text.clone()
    }

    #[test]
    fn the_averages_follow_the_rate_with_their_windows() {
        let mut tree = SysTree::new(START);
        tree.update(START, &received(0));
        // 120 packets in a minute, ten seconds at a time.
        for step in 1..=6 {
            tree.update(at(step * 10), &received(step * 20));
        }
        // 120 × (1 - e^(-60/window))
        assert_eq!(text(&tree, "load/messages/received/1min"), "75.85");
        assert_eq!(text(&tree, "load/messages/received/5min"), "21.75");
        assert_eq!(text(&tree, "load/messages/received/15min"), "7.74");
        // An hour later the shortest has long forgotten, the longest not quite.
        tree.update(at(3660), &received(120));
        assert_eq!(text(&tree, "load/messages/received/1min"), "0.00");
        assert_eq!(text(&tree, "load/messages/received/15min"), "0.14");
        // And a steady rate is what they end with.
        tree.update(at(3660 + 86_400), &received(120 + 1440 * 60));
        assert_eq!(text(&tree, "load/messages/received/15min"), "60.00");
    }

    #[test]
    fn an_average_does_not_depend_on_how_often_it_is_taken() {
        let [mut often, mut seldom] = [SysTree::new(START), SysTree::new(START)];
        for second in 1..=60 {
            often.update(at(second), &received(second * 3));
        }
        seldom.update(at(60), &received(180));
        for name in ["load/messages/received/1min", "load/messages/received/15min"] {
            assert_eq!(text(&often, name), text(&seldom, name), "{name}");
        }
    }

    #[test]
    fn everything_is_published_first_and_then_what_has_changed() {
        let mut tree = SysTree::new(START);
        let first = tree.update(START, &received(0));
        assert_eq!(first.len(), COUNTS.len() + 1 + 2 + LOADS.len() * 3, "no heap was measured");
        assert!(first.iter().all(|(topic, _)| topic.starts_with("$SYS/broker/")));
        let topics = |changed: Vec<(ByteString, String)>| -> Vec<String> {
            let mut topics: Vec<_> = changed.iter().map(|(topic, _)| topic.to_string()).collect();
            topics.sort_unstable();
            topics
        };
        assert!(tree.update(START, &received(0)).is_empty());
        let after = topics(tree.update(at(10), &received(0)));
        assert_eq!(after, ["$SYS/broker/uptime"]);
        let after = topics(tree.update(at(20), &received(30)));
        let loads = ["15min", "1min", "5min"];
        let loads = loads.map(|window| format!("$SYS/broker/load/messages/received/{window}"));
        let expected = loads
            .into_iter()
            .chain(["$SYS/broker/messages/received", "$SYS/broker/uptime"].map(str::to_owned));
        assert_eq!(after, expected.collect::<Vec<_>>());
        assert_eq!(text(&tree, "uptime"), "20 seconds");
    }

    #[test]
    fn peaks_stay() {
        let mut tree = SysTree::new(START);
        let mut figures = Figures { memory_bytes: Some(700), ..Figures::default() };
        (figures.snapshot.sessions_connected, figures.snapshot.sessions_away) = (2, 3);
        tree.update(at(1), &figures);
        figures.memory_bytes = Some(600);
        figures.snapshot.sessions_away = 0;
        tree.update(at(2), &figures);
        assert_eq!(text(&tree, "clients/maximum"), "5");
        assert_eq!(text(&tree, "clients/total"), "2");
        assert_eq!(text(&tree, "heap/maximum"), "700");
        assert_eq!(text(&tree, "heap/current"), "600");
    }
}
