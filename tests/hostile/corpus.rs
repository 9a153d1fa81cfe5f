//! Every packet of the corpus that a broker must refuse, from a stranger and from a client.

use simcast::mqtt::{Version, frame_len, version_of_connect};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::Bystanders;
use crate::common::{Dial, Rig, in_time};

struct Case {
    version: Version,
    id: &'static str,
    frame: Vec<u8>,
}

/// The packets that no decoder takes.
fn malformed() -> Vec<Case> {
    let text = include_str!("../data/mqtt_corpus.txt");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let cases = lines.filter_map(|line| {
        let columns: Vec<&str> = line.split('|').collect();
        let version = if columns[0] == "5" { Version::V5 } else { Version::V311 };
        let frame = hex(columns[4]);
        (columns[2] == "R").then_some(Case { version, id: columns[1], frame })
    });
    let cases: Vec<Case> = cases.collect();
    assert!(cases.len() > 100, "the corpus has lost its malformed packets");
    cases
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(16)).collect();
    digits.chunks(2).map(|pair| u8::try_from(pair[0] << 4 | pair[1]).unwrap()).collect()
}

impl Case {
    /// The broker must wait for the rest: it says nothing until the connection ends.
    fn is_unfinished(&self) -> bool {
        match frame_len(&self.frame) {
            Ok(Some(len)) => len > self.frame.len(),
            Ok(None) => true,
            Err(_) => false,
        }
    }
}

#[tokio::test]
async fn as_the_first_packet() {
    // The corpus judges by the standards; bridges of mosquitto are a leniency.
    let rig = Rig::with(|config| config.mqtt.bridge_protocol_bit = false).await;
    let mut bystanders = Bystanders::join(&rig).await;
    for (count, case) in (1..).zip(malformed()) {
        let mut socket = rig.tcp(rig.plain).await;
        socket.write_all(&case.frame).await.unwrap();
        if case.is_unfinished() {
            socket.shutdown().await.unwrap();
        }
        let mut answer = Vec::new();
        let what = format!("{:?} {}", case.version, case.id);
        let _ended_or_reset = in_time(&what, socket.read_to_end(&mut answer)).await;
        // Nobody is let in.
        assert!(answer.is_empty() || answer[3] != 0, "{what}: {answer:02x?}");
        if version_of_connect(case.frame.clone().into()) == Some(Version::V5) {
            assert!(answer.len() > 3 && answer[3] >= 0x80, "{what}: told why: {answer:02x?}");
        }
        bystanders.work().await;
        let connects = rig.counter("simcast_connects_total{").await;
        assert_eq!(connects, 2 + count, "{what}: one counter goes up by one");
    }
    assert_eq!(rig.counter("simcast_connects_total{result=\"accepted\"}").await, 2);
    bystanders.rest().await;
}

#[tokio::test]
async fn from_a_connected_client() {
    let rig = Rig::start().await;
    let mut bystanders = Bystanders::join(&rig).await;
    for (count, case) in (1..).zip(malformed()) {
        let what = format!("{:?} {}", case.version, case.id);
        // To who is connected, a CONNECT of any version is wrong.
        let is_connect = case.frame[0] >> 4 == 1;
        let version = if is_connect { Version::V5 } else { case.version };
        let mut client = rig.client(Dial::new(version, "client")).await;
        client.send_raw(&case.frame).await;
        if case.is_unfinished() {
            client.half_close().await;
        }
        let goodbye = client.expect_closed().await;
        assert!(goodbye.as_ref().is_none_or(|goodbye| goodbye.reason.is_error()), "{what}");
        let is_told = version == Version::V5 && !case.is_unfinished();
        assert_eq!(goodbye.is_some(), is_told, "{what}");
        bystanders.work().await;
        let disconnects = rig.counter("simcast_disconnects_total{").await;
        assert_eq!(disconnects, count, "{what}: one counter goes up by one");
    }
    let ours = rig.counter("simcast_disconnects_total{reason=\"client\"}").await;
    assert_eq!(ours, 0, "none of them is a goodbye");
    bystanders.rest().await;
}
