//! What a connection holds back until the store is so far: acknowledgements of what it has to
//! own first, messages that it may have to send again under the same id, and what comes behind
//! them. All else goes at once, so that a slow disk keeps no PINGREQ waiting (case C11).

use std::collections::VecDeque;

use crate::mqtt::Packet;
use crate::session::Outgoing;
use crate::store::Commit;

/// What is held back, in the order in which it will be sent.
#[derive(Debug, Default)]
pub(super) struct Held {
    queue: VecDeque<(Commit, Item)>,
}

/// Something to be sent.
#[derive(Debug)]
pub(super) enum Item {
    /// An acknowledgement.
    Packet(Packet),
    /// A message.
    Message(Outgoing),
}

/// Above this no more is read from the client: before version 5 nothing else bounds what it may
/// publish without waiting for an acknowledgement.
const HELD_MAX: usize = 1024;

impl Held {
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.queue.len() >= HELD_MAX
    }

    pub(super) fn push(&mut self, commit: Commit, item: Item) {
        self.queue.push_back((commit, item));
    }

    /// For what the store has to be ready next.
    pub(super) fn next(&self) -> Option<Commit> {
        self.queue.front().map(|(commit, _)| *commit)
    }

    /// Takes the first, if the store is so far.
    pub(super) fn take(&mut self, is_durable: impl Fn(Commit) -> bool) -> Option<Item> {
        let (commit, _) = self.queue.front()?;
        if !is_durable(*commit) {
            return None;
        }
        // An idle connection holds no buffer of a busy hour.
        let (_, item) = self.queue.pop_front()?;
        if self.queue.is_empty() {
            self.queue = VecDeque::new();
        }
        Some(item)
    }
}

/// Whether a packet says that something is the broker's, or may be forgotten by the client.
pub(super) fn is_acknowledgement(packet: &Packet) -> bool {
    match packet {
        Packet::PubAck(_)
        | Packet::PubRec(_)
        | Packet::PubRel(_)
        | Packet::PubComp(_)
        | Packet::SubAck(_)
        | Packet::UnsubAck(_) => true,
        Packet::Connect(_)
        | Packet::ConnAck(_)
        | Packet::Publish(_)
        | Packet::Subscribe(_)
        | Packet::Unsubscribe(_)
        | Packet::PingReq
        | Packet::PingResp
        | Packet::Disconnect(_)
        | Packet::Auth(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
    use std::time::Duration;

    use bytes::BytesMut;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
    use tokio::task::JoinHandle;

    use crate::broker::tests::{broker_with_store, connect};
    use crate::broker::{Broker, NotKept, Peer, Who};
    use crate::config::{Listener, Mqtt};
    use crate::ids::PacketId;
    use crate::mqtt::{
        ConnectProperties, Publish, QoS, Sender, Subscribe, SubscribeFilter, SubscribeOptions,
        Version, decode, encode, frame_len,
    };
    use crate::net::conn::{Conn, ConnLimits, Link};
    use crate::net::rules::Rules;
    use crate::rsp::{Identity, TopicNames};
    use crate::session::Opening;
    use crate::store::{Changes, Figures, Health, Store, Trouble, Urgency};

    use super::*;

    /// A disk that is as slow as a test wants it to be.
    #[derive(Default)]
    struct Slow {
        last: AtomicU64,
        durable: AtomicU64,
        is_full: AtomicBool,
    }

    impl Slow {
        fn catch_up(&self, broker: &Broker) {
            self.durable.store(self.last.load(Ordering::SeqCst), Ordering::SeqCst);
            broker.on_durable();
        }
    }

    impl Store for Slow {
        fn commit(&self, changes: Changes, _urgency: Urgency) -> Commit {
            let new = u64::from(!changes.is_empty());
            Commit(self.last.fetch_add(new, Ordering::SeqCst) + new)
        }

        fn durable(&self) -> Commit {
            Commit(self.durable.load(Ordering::SeqCst))
        }

        fn health(&self) -> Health {
            let is_full = self.is_full.load(Ordering::SeqCst);
            if is_full { Health::Failing(Trouble::Full) } else { Health::Good }
        }

        fn figures(&self) -> Figures {
            Figures::default()
        }

        fn close(&self, _timeout: Duration) -> bool {
            true
        }
    }

    struct Client {
        stream: DuplexStream,
        input: BytesMut,
        running: JoinHandle<()>,
    }

    impl Client {
        /// With a session that is kept.
        async fn new(broker: &Arc<Broker>, client_id: &'static str) -> Self {
            let properties =
                ConnectProperties { session_expiry_secs: 60, ..ConnectProperties::default() };
            let connect = crate::mqtt::Connect { properties, ..connect(client_id) };
            let limits = broker.options().session.clone();
            let opening = Opening::new(&connect, &limits, || "fresh".into()).unwrap();
            let identity = Identity::anonymous("");
            let who = Who { identity: &identity, client_id, peer: Some(Peer::Unix) };
            let attached = broker.attach(&who, &opening, None).await.unwrap();
            let (near, stream) = tokio::io::duplex(10_000);
            let listener = Listener::anonymous(([127, 0, 0, 1], 1).into());
            let rules = Rules::new(&listener, &Mqtt::default(), &TopicNames::default());
            let limits = ConnLimits { frame_bytes_max: 1000, output_bytes_max: 1000 };
            let counted = broker.metrics().connection_opened(0, Version::V5);
            let link = Link::new(near, Peer::Unix);
            let (broker, rules) = (Arc::clone(broker), Arc::new(rules));
            let conn = Conn::new(link, broker, attached, counted, limits, rules, None);
            let running = tokio::spawn(conn.run(false));
            Self { stream, input: BytesMut::new(), running }
        }

        async fn send(&mut self, packet: Packet) {
            let mut bytes = BytesMut::new();
            encode(&packet, Version::V5, &mut bytes);
            self.stream.write_all(&bytes).await.unwrap();
        }

        async fn publish(&mut self, id: u16, qos: QoS) {
            let publish = Publish {
                dup: false,
                qos,
                retain: false,
                topic: "t".into(),
                packet_id: PacketId::new(id),
                properties: None,
                payload: id.to_string().into(),
            };
            self.send(Packet::Publish(publish)).await;
        }

        async fn read(&mut self) -> Packet {
            loop {
                if let Ok(Some(len)) = frame_len(&self.input)
                    && self.input.len() >= len
                {
                    let frame = self.input.split_to(len).freeze();
                    return decode(frame, Version::V5, Sender::Server).unwrap();
                }
                let reading = self.stream.read_buf(&mut self.input);
                let read = tokio::time::timeout(Duration::from_secs(20), reading).await;
                assert!(read.expect("a packet").unwrap() > 0, "closed");
            }
        }

        /// All that comes before the answer to a PINGREQ.
        async fn until_pong(&mut self) -> Vec<Packet> {
            self.send(Packet::PingReq).await;
            let mut packets = Vec::new();
            loop {
                match self.read().await {
                    Packet::PingResp => return packets,
                    other => packets.push(other),
                }
            }
        }
    }

    impl Drop for Client {
        fn drop(&mut self) {
            self.running.abort();
        }
    }

    fn subscribe() -> Packet {
        let options = SubscribeOptions { qos: QoS::ExactlyOnce, ..SubscribeOptions::default() };
        let filters = [SubscribeFilter { filter: "t".into(), options }].into_iter().collect();
        let packet_id = PacketId::new(1).unwrap();
        Packet::Subscribe(Subscribe { packet_id, subscription_id: None, user: Vec::new(), filters })
    }

    #[tokio::test]
    async fn acknowledgements_wait_for_the_disk_in_their_order_and_pings_do_not() {
        // case C11
        let store = Arc::new(Slow::default());
        let broker = Arc::new(broker_with_store(Arc::clone(&store) as Arc<dyn Store>));
        let mut reader = Client::new(&broker, "reader").await;
        reader.send(subscribe()).await;
        assert_eq!(reader.until_pong().await, []);
        store.catch_up(&broker);
        assert!(matches!(reader.read().await, Packet::SubAck(_)));

        let mut writer = Client::new(&broker, "writer").await;
        for (id, qos) in [(1, QoS::AtLeastOnce), (2, QoS::ExactlyOnce), (3, QoS::AtLeastOnce)] {
            writer.publish(id, qos).await;
            assert_eq!(writer.until_pong().await, []);
        }
        store.catch_up(&broker);
        assert!(matches!(writer.read().await, Packet::PubAck(ack) if ack.packet_id.get() == 1));
        assert!(matches!(writer.read().await, Packet::PubRec(ack) if ack.packet_id.get() == 2));
        assert!(matches!(writer.read().await, Packet::PubAck(ack) if ack.packet_id.get() == 3));
        // The id is to be written down before it may be used again.
        writer
            .send(Packet::PubRel(crate::mqtt::Ack {
                packet_id: PacketId::new(2).unwrap(),
                reason: crate::mqtt::ReasonCode::Success,
                properties: None,
            }))
            .await;
        assert_eq!(writer.until_pong().await, []);
        store.catch_up(&broker);
        assert!(matches!(writer.read().await, Packet::PubComp(_)));
    }

    #[tokio::test]
    async fn a_message_that_comes_once_is_sent_when_its_id_is_written_down() {
        let store = Arc::new(Slow::default());
        let broker = Arc::new(broker_with_store(Arc::clone(&store) as Arc<dyn Store>));
        let mut reader = Client::new(&broker, "reader").await;
        reader.send(subscribe()).await;
        reader.until_pong().await;
        store.catch_up(&broker);
        assert!(matches!(reader.read().await, Packet::SubAck(_)));
        let mut writer = Client::new(&broker, "writer").await;
        writer.publish(1, QoS::AtLeastOnce).await;
        // It may come twice, so it may come early.
        let Packet::Publish(first) = reader.read().await else { panic!("no message") };
        assert_eq!((first.qos, &first.payload[..]), (QoS::AtLeastOnce, &b"1"[..]));
        writer.publish(2, QoS::ExactlyOnce).await;
        writer.publish(3, QoS::AtLeastOnce).await;
        writer.until_pong().await;
        assert_eq!(reader.until_pong().await, [], "what comes behind it waits, too");
        store.catch_up(&broker);
        // What it was given now has its own id to write down.
        store.catch_up(&broker);
        for expected in ["2", "3"] {
            let Packet::Publish(publish) = reader.read().await else { panic!("no message") };
            assert_eq!(publish.payload, expected);
        }
    }

    #[tokio::test]
    async fn what_cannot_be_kept_is_refused_until_the_disk_can_be_written_again() {
        // case D18
        let store = Arc::new(Slow::default());
        let broker = Arc::new(broker_with_store(Arc::clone(&store) as Arc<dyn Store>));
        let mut writer = Client::new(&broker, "writer").await;
        store.is_full.store(true, Ordering::SeqCst);
        assert_eq!(broker.store_trouble().map(NotKept::name), Some("store_full"));
        for (id, qos) in [(1, QoS::AtLeastOnce), (2, QoS::ExactlyOnce)] {
            writer.publish(id, qos).await;
            let (Packet::PubAck(ack) | Packet::PubRec(ack)) = writer.read().await else {
                panic!("no answer")
            };
            assert_eq!(ack.reason, crate::mqtt::ReasonCode::QuotaExceeded);
            let text = ack.properties.and_then(|properties| properties.reason_string);
            assert_eq!(text.as_deref(), Some("store_full"));
        }
        assert_eq!(writer.until_pong().await, []);
        store.is_full.store(false, Ordering::SeqCst);
        writer.publish(3, QoS::AtLeastOnce).await;
        store.catch_up(&broker);
        assert!(matches!(writer.read().await, Packet::PubAck(ack) if !ack.reason.is_error()));
    }
}
