//! Envelopes broken at every byte: what is cut off is refused, and what is bent reaches nobody but
//! the rightful addressee.

use simcast::client::envelope::{Envelope, Kind, Wire};
use simcast::mqtt::QoS;

use crate::common::{Client, Dial, Rig, TO_EUICC, TO_SM_SR, nid};

const ONE: QoS = QoS::AtLeastOnce;

/// Whom a message of the cast is for.
struct Cast {
    rig: Rig,
    server: Client,
    /// Device 1 of group 7: publishes.
    author: Client,
    /// Device 2 of group 7.
    peer: Client,
    /// Device 3 of the same group, device 4 of another, device 6 of none, an ordinary client.
    others: Vec<Client>,
}

impl Cast {
    async fn start() -> Self {
        let rig = Rig::start().await;
        let mut server = rig.server(Dial::v5("sm-sr")).await;
        server.subscribe(TO_SM_SR, ONE).await;
        let author = rig.reader(1, Dial::v5("author")).await;
        let peer = rig.reader(2, Dial::v5("peer")).await;
        let mut others = Vec::new();
        for number in [3, 4, 5, 6] {
            others.push(rig.reader(number, Dial::v5(&format!("device-{number}"))).await);
        }
        let mut snoop = rig.client(Dial::v5("snoop")).await;
        snoop.subscribe("#", ONE).await;
        others.push(snoop);
        Self { rig, server, author, peer, others }
    }

    /// How many of these the author, or else the server, may publish.
    async fn publish(&mut self, by_server: bool, topic: &str, payloads: &[Vec<u8>]) -> usize {
        let mut taken = 0;
        for payload in payloads {
            let publisher = if by_server { &mut self.server } else { &mut self.author };
            let answer = publisher.publish(topic, payload, ONE).await;
            taken += usize::from(answer.is_ok());
        }
        taken
    }

    async fn others_got_nothing(&mut self) {
        for other in &mut self.others {
            other.expect_nothing().await;
        }
    }
}

/// All proper beginnings.
fn cut(payload: &[u8]) -> Vec<Vec<u8>> {
    (0..payload.len()).map(|len| payload[..len].to_vec()).collect()
}

/// All payloads that differ in one bit.
fn bent(payload: &[u8]) -> Vec<Vec<u8>> {
    let flip = |at: usize, bit: u32| {
        let mut bent = payload.to_vec();
        bent[at] ^= 1 << bit;
        bent
    };
    (0..payload.len())
        .flat_map(|at| (0..8).map(move |bit| (at, bit)))
        .map(|(at, bit)| flip(at, bit))
        .collect()
}

fn envelope(device: u128, gid: u64, kind: Kind) -> Envelope {
    Envelope::new(nid(device).get(), gid, kind).with_body(serde_json::json!({"k": "v"}))
}

#[tokio::test]
async fn a_trigger_of_a_device() {
    for wire in [Wire::Json, Wire::Cbor] {
        let mut cast = Cast::start().await;
        let payload = envelope(1, 0, Kind::Trigger).encode(wire);
        assert_eq!(cast.publish(false, TO_SM_SR, &cut(&payload)).await, 0, "{wire:?}");
        cast.server.expect_nothing().await;
        let taken = cast.publish(false, TO_SM_SR, &bent(&payload)).await;
        assert_eq!(cast.server.arrived().await.len(), taken, "{wire:?}");
        // A bent body is a body, a bent head is none.
        assert!((1..bent(&payload).len() / 2).contains(&taken), "{wire:?}: {taken}");
        cast.author.expect_nothing().await;
        cast.peer.expect_nothing().await;
        cast.others_got_nothing().await;
        assert_eq!(cast.rig.refusals("other").await, 0);
    }
}

#[tokio::test]
async fn a_request_from_device_to_device() {
    for wire in [Wire::Json, Wire::Cbor] {
        let mut cast = Cast::start().await;
        let payload = envelope(2, 7, Kind::Req(nid(1).get())).encode(wire);
        assert_eq!(cast.publish(false, TO_EUICC, &cut(&payload)).await, 0, "{wire:?}");
        cast.peer.expect_nothing().await;
        let taken = cast.publish(false, TO_EUICC, &bent(&payload)).await;
        // One exchange of the pair is open at a time.
        assert_eq!(taken, 1, "{wire:?}");
        assert_eq!(cast.peer.arrived().await.len(), 1, "{wire:?}");
        cast.author.expect_nothing().await;
        cast.server.expect_nothing().await;
        cast.others_got_nothing().await;
    }
}

#[tokio::test]
async fn a_message_of_a_server() {
    for wire in [Wire::Json, Wire::Cbor] {
        let mut cast = Cast::start().await;
        let payload = envelope(2, 0, Kind::Msg).encode(wire);
        assert_eq!(cast.publish(true, TO_EUICC, &cut(&payload)).await, 0, "{wire:?}");
        cast.peer.expect_nothing().await;
        let taken = cast.publish(true, TO_EUICC, &bent(&payload)).await;
        assert_eq!(cast.peer.arrived().await.len(), taken, "{wire:?}");
        cast.author.expect_nothing().await;
        cast.server.expect_nothing().await;
        cast.others_got_nothing().await;
    }
}
