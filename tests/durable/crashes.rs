//! SIGKILL at random moments, with clients that do what the standard asks of them: they send again
//! what was not acknowledged, under the same packet id, and take a QoS 2 message once.
//!
//! `SIMCAST_SEED` replays one history, as far as a process can be replayed; `SIMCAST_SEEDS` asks
//! for so many.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::SocketAddr;
use std::time::Duration;

use proptest::prelude::Rng;
use proptest::test_runner::{RngAlgorithm, TestRng};
use simcast::ids::PacketId;
use simcast::mqtt::{Packet, Publish, QoS, Version};
use tokio::net::TcpStream;

use super::common::client::success;
use super::common::process::Broker;
use super::common::{Client, Dial, in_time};

/// How often a broker is killed in one history.
const CRASHES: usize = 6;
/// Messages on their way from one publisher.
const WINDOW: usize = 10;

/// A publisher: what it has not been told yet.
struct Writer {
    name: String,
    qos: QoS,
    version: Version,
    /// Numbers go up from here.
    next: u32,
    /// By packet id: the number, and whether PUBREC has come.
    open: BTreeMap<u16, (u32, bool)>,
    /// Numbers that the broker has acknowledged.
    acknowledged: BTreeSet<u32>,
}

/// A subscriber: what it has been given.
struct Reader {
    qos: QoS,
    version: Version,
    /// Each message as often as it was taken.
    taken: Vec<String>,
    /// QoS 2 messages that were not released yet.
    unreleased: HashSet<PacketId>,
}

impl Writer {
    fn topic(&self) -> String {
        format!("load/{}/{}", self.qos as u8, self.name)
    }

    fn publish(&self, id: u16, number: u32, dup: bool) -> Packet {
        Packet::Publish(Publish {
            dup,
            qos: self.qos,
            retain: false,
            topic: self.topic().into(),
            packet_id: PacketId::new(id),
            properties: None,
            payload: format!("{} {number}", self.name).into(),
        })
    }

    /// Publishes as fast as it may, until the broker is gone or `last` numbers are acknowledged.
    async fn run(&mut self, address: SocketAddr, last: u32) {
        let dial = Dial::new(self.version, &self.name).persistent();
        let Some(mut client) = connect(address, &dial).await else { return };
        let known = client.session_present();
        for (id, (number, released)) in self.open.clone() {
            // A broker that knows nothing of the session has not taken the message either.
            assert!(known || !released, "the session of {} is lost", self.name);
            if released {
                client.send(&Packet::PubRel(success(PacketId::new(id).unwrap()))).await;
            } else {
                client.send(&self.publish(id, number, true)).await;
            }
        }
        while self.acknowledged.len() < last as usize {
            while self.open.len() < WINDOW && self.next < last {
                let id = (1..).find(|id| !self.open.contains_key(id)).unwrap();
                self.open.insert(id, (self.next, false));
                client.send(&self.publish(id, self.next, false)).await;
                self.next += 1;
            }
            match client.read().await {
                Some(Packet::PubAck(ack)) => self.done(ack.packet_id),
                Some(Packet::PubRec(ack)) => {
                    self.open.entry(ack.packet_id.get()).and_modify(|open| open.1 = true);
                    client.send(&Packet::PubRel(success(ack.packet_id))).await;
                }
                Some(Packet::PubComp(ack)) => self.done(ack.packet_id),
                Some(_other) => {}
                None => return,
            }
        }
    }

    fn done(&mut self, id: PacketId) {
        if let Some((number, _)) = self.open.remove(&id.get()) {
            self.acknowledged.insert(number);
        }
    }
}

impl Reader {
    fn dial(&self) -> Dial {
        Dial::new(self.version, &format!("reader-{}", self.qos as u8)).persistent()
    }

    /// Takes what comes until the broker is gone, or nothing has come for a while.
    async fn run(&mut self, address: SocketAddr, patience: Duration) {
        let Some(mut client) = connect(address, &self.dial()).await else { return };
        (client.auto_ack, client.auto_complete) = (false, false);
        if !client.session_present() {
            assert!(self.taken.is_empty(), "the session of the reader is lost");
            client.subscribe(&format!("load/{}/+", self.qos as u8), self.qos).await;
        }
        while let Ok(Some(packet)) = tokio::time::timeout(patience, client.read()).await {
            match packet {
                Packet::Publish(publish) => {
                    let id = publish.packet_id.unwrap();
                    let is_new = publish.qos != QoS::ExactlyOnce || self.unreleased.insert(id);
                    if is_new {
                        self.taken.push(String::from_utf8(publish.payload.to_vec()).unwrap());
                    }
                    client.acknowledge(&publish).await;
                }
                Packet::PubRel(ack) => {
                    self.unreleased.remove(&ack.packet_id);
                    client.send(&Packet::PubComp(success(ack.packet_id))).await;
                }
                _other => {}
            }
        }
    }
}

/// A connection; `None` where the broker dies meanwhile.
async fn connect(address: SocketAddr, dial: &Dial) -> Option<Client> {
    let stream = TcpStream::connect(address).await.ok()?;
    Client::open(stream, dial).await.ok()
}

fn seeds() -> Vec<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    match number("SIMCAST_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("SIMCAST_SEEDS").unwrap_or(3)).collect(),
    }
}

#[tokio::test]
async fn what_was_acknowledged_arrives_and_what_is_to_come_once_comes_once() {
    // case C1
    for seed in seeds() {
        println!("SIMCAST_SEED={seed}");
        history(seed).await;
    }
}

async fn history(seed: u64) {
    let mut random = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes_of(seed));
    let version = |qos| if qos == QoS::AtLeastOnce { Version::V311 } else { Version::V5 };
    let mut writers: Vec<Writer> = Vec::new();
    let mut readers: Vec<Reader> = Vec::new();
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
        for number in 0..3 {
            writers.push(Writer {
                name: format!("w{}-{number}", qos as u8),
                qos,
                version: version(qos),
                next: 0,
                open: BTreeMap::new(),
                acknowledged: BTreeSet::new(),
            });
        }
        let (taken, unreleased) = (Vec::new(), HashSet::new());
        readers.push(Reader { qos, version: version(qos), taken, unreleased });
    }
    // Room for whatever the writers can write while the readers are away.
    let config = "[limits]\nmax_queued_messages = 1000000\nmax_queued_bytes = \"1GiB\"\n";
    let mut broker = Broker::start(config).await;
    for reader in &mut readers {
        reader.run(broker.anybody, Duration::from_millis(200)).await;
    }
    for _ in 0..CRASHES {
        let address = broker.anybody;
        let life = Duration::from_millis(5 + random.next_u64() % 400);
        let mut running = Vec::new();
        let reading = random.next_u64() % 4;
        for mut writer in std::mem::take(&mut writers) {
            running.push(tokio::spawn(async move {
                writer.run(address, u32::MAX).await;
                (Some(writer), None)
            }));
        }
        for (at, mut reader) in std::mem::take(&mut readers).into_iter().enumerate() {
            let comes = reading & (1 << at) != 0;
            running.push(tokio::spawn(async move {
                if comes {
                    reader.run(address, Duration::from_secs(20)).await;
                }
                (None, Some(reader))
            }));
        }
        tokio::time::sleep(life).await;
        let dir = broker.crash().await;
        for task in running {
            let (writer, reader) = in_time("a client", task).await.unwrap();
            writers.extend(writer);
            readers.extend(reader);
        }
        broker = Broker::start_again(dir, super::LOG).await;
    }
    // All is quiet now: what is open is finished, then everything is fetched.
    for writer in &mut writers {
        let last = writer.next + 1;
        in_time("the rest of a writer", writer.run(broker.anybody, last)).await;
        assert_eq!(writer.acknowledged.len(), last as usize);
    }
    for reader in &mut readers {
        reader.run(broker.anybody, Duration::from_secs(1)).await;
        check(reader, &writers, seed);
    }
}

fn check(reader: &Reader, writers: &[Writer], seed: u64) {
    let mut count: BTreeMap<&str, usize> = BTreeMap::new();
    for payload in &reader.taken {
        *count.entry(payload).or_default() += 1;
    }
    let mut expected = 0;
    for writer in writers.iter().filter(|writer| writer.qos == reader.qos) {
        for number in &writer.acknowledged {
            let payload = format!("{} {number}", writer.name);
            let times = count.get(&*payload).copied().unwrap_or(0);
            assert!(times > 0, "SIMCAST_SEED={seed}: `{payload}` was acknowledged and is lost");
            if reader.qos == QoS::ExactlyOnce {
                assert_eq!(times, 1, "SIMCAST_SEED={seed}: `{payload}` came {times} times");
            }
            expected += 1;
        }
    }
    assert_eq!(count.len(), expected, "SIMCAST_SEED={seed}: something came that nobody wrote");
    println!("  QoS {}: {expected} messages, {} taken", reader.qos as u8, reader.taken.len());
}

fn bytes_of(seed: u64) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes
}
