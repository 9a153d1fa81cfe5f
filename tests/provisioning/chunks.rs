//! Chunks (section 6): a body that is larger than its device takes, in pieces. By a group's setting
//! or by the client's Maximum Packet Size; one after the other, with nothing in between; and after
//! a lost link from the first piece on that was not acknowledged.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use simcast::client::envelope::{Body, Envelope, Kind, Wire};
use simcast::client::payload::{bound_profile_package, split};
use simcast::mqtt::{Publish, QoS, Version};
use simcast::rsp::DeviceState::{Delivered, Failed, Ok as Done, Queued};
use simcast::rsp::GroupSettings;

use crate::common::{Client, Dial, Rig, TO_EUICC, envelope, envelope_with, nid};
use crate::stage::{A, B, C, D, E, F, SERVER, Stage, VERSIONS, WAYS};

const ONE: QoS = QoS::AtLeastOnce;
const TOO_LARGE: Option<&str> = Some("too_large_for_device");

fn chunk(bytes: usize) -> GroupSettings {
    GroupSettings { chunk: Some(bytes), ..GroupSettings::default() }
}

/// Some text of this length that is no base64 and nowhere the same.
fn noise(bytes: usize) -> String {
    let words = (0..).map(|number| format!("{number:06}-"));
    let text: String = words.take(bytes / 7 + 1).collect();
    text[..bytes].to_owned()
}

/// A B1, or C1 for no device, that may be cut.
fn download(device: u128, body: &str) -> String {
    let gid = if device == 0 { 7 } else { 0 };
    envelope_with(device, gid, "msg", &format!(r#""tid":"t","chunks":true,"body":"{body}""#))
}

/// The pieces that a device has, one behind the other.
#[derive(Default)]
struct Pieces {
    content: Vec<u8>,
    count: u64,
    /// Where each ends.
    ends: Vec<usize>,
    of: u64,
    total: u64,
    format: String,
}

impl Pieces {
    /// Takes the next piece; `true` when it is the last one.
    fn take(&mut self, publish: &Publish) -> bool {
        let text = std::str::from_utf8(&publish.payload).unwrap();
        let json: serde_json::Value = serde_json::from_str(text).unwrap();
        assert_eq!((&json["type"], &json["tid"]), (&"msg".into(), &"t".into()));
        assert_eq!(json.get("chunks"), None, "a piece is not cut again");
        let label = &json["chunk"];
        let number = |name: &str| label[name].as_u64().unwrap();
        assert_eq!(number("n"), self.count + 1, "one after the other");
        assert_eq!(number("offset"), self.content.len() as u64, "without a gap");
        self.count += 1;
        (self.of, self.total) = (number("of"), number("total"));
        label["as"].as_str().unwrap().clone_into(&mut self.format);
        let body = json["body"].as_str().unwrap();
        match &*self.format {
            "base64" => self.content.extend(STANDARD.decode(body).unwrap()),
            _ => self.content.extend(body.bytes()),
        }
        self.ends.push(self.content.len());
        assert_eq!(self.count == self.of, self.content.len() as u64 == self.total);
        self.count == self.of
    }

    /// Takes piece after piece, none of which is larger than this, to the last.
    async fn all(&mut self, client: &mut Client, envelope_bytes_max: usize) {
        loop {
            let publish = client.expect_publish().await;
            assert!(publish.payload.len() <= envelope_bytes_max, "{}", publish.payload.len());
            if self.take(&publish) {
                return;
            }
        }
    }

    /// The body that was cut, as it stood in its envelope.
    fn text(&self) -> &str {
        assert_eq!(self.format, "json");
        std::str::from_utf8(&self.content).unwrap()
    }
}

#[tokio::test]
async fn what_is_larger_than_its_group_takes_is_refused_or_cut() {
    for (version, way) in VERSIONS.into_iter().flat_map(|v| WAYS.map(|way| (v, way))) {
        let mut stage = Stage::in_force(version, way, chunk(600)).await;
        let others = TOO_LARGE.filter(|_| way.is_global());
        let body = noise(2000);
        let whole = |device, gid| envelope_with(device, gid, "msg", &format!(r#""body":"{body}""#));
        stage.step_or(TOO_LARGE, SERVER, &whole(1, 0), &[A]).await;
        stage.step_or(TOO_LARGE, SERVER, &whole(0, 7), &[A]).await;
        stage.step_or(TOO_LARGE, SERVER, &whole(5, 0), &[E]).await;
        stage.step_or(others, SERVER, &whole(0, 8), &[D, E]).await;
        stage.step_or(others, SERVER, &whole(6, 0), &[F]).await;
        // What fits is whole, whether it might be cut or not.
        stage.step(SERVER, &envelope(0, 7, "msg"), &[A, B, C, E]).await;
        stage.step(SERVER, &download(1, "small"), &[A]).await;
        stage.tell(SERVER, TO_EUICC, download(2, &body)).await;
        let mut pieces = Pieces::default();
        pieces.all(stage.client(B), 600).await;
        assert!(pieces.count >= 4 && pieces.text() == format!("\"{body}\""));
        stage.nobody_else().await;
        // It is one message: one answer, one campaign.
        stage.step(B, &envelope_with(2, 0, "ret(msg)", r#""tid":"t","body":1"#), &[SERVER]).await;
        assert_eq!(stage.states(stage.newest()), [Done]);
    }
}

#[tokio::test]
async fn each_member_of_a_group_gets_it_at_its_own_pace() {
    for version in VERSIONS {
        let mut stage = Stage::start(version).await;
        stage.set_group(7, chunk(600));
        let body = noise(3000);
        stage.client(A).auto_ack = false;
        stage.tell(SERVER, TO_EUICC, download(0, &body)).await;
        let id = stage.newest();
        for member in [B, C, E] {
            let mut pieces = Pieces::default();
            pieces.all(stage.client(member), 600).await;
            assert_eq!(pieces.text(), format!("\"{body}\""));
        }
        // One at a time: A has not acknowledged the first.
        let first = stage.client(A).expect_publish().await;
        stage.nobody_else().await;
        assert_eq!(stage.states(id), [Queued, Delivered, Delivered, Delivered]);
        // Nobody waits for it, and with it waits what comes behind.
        stage.tell(SERVER, TO_EUICC, envelope(0, 7, "trigger")).await;
        stage.tell(SERVER, TO_EUICC, envelope(1, 0, "trigger")).await;
        stage.reaches(&[B, C, E], envelope(0, 7, "trigger")).await;
        let mut pieces = Pieces::default();
        let client = stage.client(A);
        assert!(!pieces.take(&first));
        client.auto_ack = true;
        client.acknowledge(&first).await;
        pieces.all(client, 600).await;
        assert_eq!(pieces.text(), format!("\"{body}\""));
        let behind = [envelope(0, 7, "trigger"), envelope(1, 0, "trigger")];
        assert_eq!(client.expect_payloads(2).await, behind);
        stage.nobody_else().await;
        assert_eq!(stage.states(id), [Delivered; 4]);
    }
}

#[tokio::test]
async fn the_client_decides_by_its_maximum_packet_size() {
    let mut stage = Stage::start(Version::V5).await;
    stage.take(A).disconnect().await;
    let mut narrow = stage.rig.reader(1, Dial::v5("narrow").packet_bytes_max(500)).await;
    let body = noise(1500);
    let whole = envelope_with(0, 7, "msg", &format!(r#""body":"{body}""#));
    stage.refused(SERVER, TO_EUICC, &whole, "too_large_for_device").await;
    stage
        .refused(
            SERVER,
            TO_EUICC,
            whole.replace("\"0\",\"gid\":7", &format!("\"{}\",\"gid\":0", nid(1))),
            "too_large_for_device",
        )
        .await;
    // Others take it whole, from the same publish.
    stage.tell(SERVER, TO_EUICC, download(0, &body)).await;
    stage.reaches(&[B, C, E], download(0, &body)).await;
    let mut pieces = Pieces::default();
    pieces.all(&mut narrow, 500).await;
    assert_eq!(pieces.text(), format!("\"{body}\""));
    narrow.expect_nothing().await;
    // Who is in no group, or in another one, is not concerned.
    stage.step(SERVER, &whole.replace("\"gid\":7", "\"gid\":8"), &[D, E]).await;
    narrow.disconnect().await;
    stage.step(SERVER, &whole, &[B, C, E]).await;
    let mut wide = stage.rig.reader(1, Dial::v5("wide")).await;
    assert_eq!(wide.expect_payload().await, whole);
}

#[tokio::test]
async fn a_package_is_cut_between_its_segments() {
    let rig = Rig::start().await;
    let mut server = rig.server(Dial::v5("sm-sr")).await;
    let mut device = rig.reader(1, Dial::v5("d").packet_bytes_max(3000)).await;
    let package = bound_profile_package(7, 20_000).unwrap();
    let b1 = download(1, &STANDARD.encode(&package));
    assert!(server.publish(TO_EUICC, &b1, ONE).await.is_ok());
    let mut pieces = Pieces::default();
    pieces.all(&mut device, 3000).await;
    assert_eq!((&*pieces.format, &pieces.content), ("base64", &package));
    let segments = split(&package).unwrap();
    let ends: Vec<usize> = segments
        .iter()
        .scan(0, |at, segment| {
            *at += segment.len();
            Some(*at)
        })
        .collect();
    assert!(pieces.ends.iter().all(|end| ends.contains(end)), "{:?}", pieces.ends);
    assert!((pieces.ends.len() as u64) < segments.len() as u64, "as many together as fit");
}

#[tokio::test]
async fn cbor_is_cut_in_cbor() {
    let mut stage = Stage::start(Version::V5).await;
    stage.set_group(7, chunk(400));
    let body: Vec<u8> = (0..1500_u32).map(|byte| (byte % 251) as u8).collect();
    let envelope = Envelope::new(nid(1).get(), 0, Kind::Msg).with_body(body.clone());
    // Integer keys: a map of four with `chunks`, 8, as the fifth.
    let mut payload = envelope.encode(Wire::Cbor);
    assert_eq!(payload[0], 0xa4);
    payload[0] = 0xa5;
    payload.extend([0x08, 0xf5]);
    stage.tell(SERVER, TO_EUICC, &payload).await;
    let mut content = Vec::new();
    while content.len() < body.len() {
        let publish = stage.client(A).expect_publish().await;
        assert!(publish.payload.len() <= 400);
        let piece = Envelope::decode(&publish.payload).unwrap();
        let Body::Bytes(bytes) = piece.body else { panic!("{piece:?}") };
        content.extend(bytes);
    }
    assert_eq!(content, body);
    stage.nobody_else().await;
}

#[tokio::test]
async fn at_every_qos_the_next_piece_follows_the_one_that_has_arrived() {
    let rig = Rig::start().await;
    let mut server = rig.server(Dial::v5("sm-sr")).await;
    let mut device = rig.device(1, Dial::v5("d").packet_bytes_max(500)).await;
    let body = noise(3000);
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        device.subscribe(TO_EUICC, qos).await;
        assert!(server.publish(TO_EUICC, download(1, &body), QoS::ExactlyOnce).await.is_ok());
        assert!(server.publish(TO_EUICC, envelope(1, 0, "trigger"), ONE).await.is_ok());
        let mut pieces = Pieces::default();
        pieces.all(&mut device, 500).await;
        assert_eq!(pieces.text(), format!("\"{body}\""), "{qos:?}");
        assert_eq!(device.expect_payload().await, envelope(1, 0, "trigger"));
        device.expect_nothing().await;
    }
    assert_eq!(rig.counter("simcast_rsp_mail_messages ").await, 0);
}

/// A device in the middle of a download: two pieces acknowledged, the third under way.
async fn cut_off(rig: &Rig, dial: Dial, body: &str) -> (Pieces, Publish) {
    let mut server = rig.server(Dial::v5("sm-sr")).await;
    let mut device = rig.reader(1, dial).await;
    device.auto_ack = false;
    assert!(server.publish(TO_EUICC, download(1, body), ONE).await.is_ok());
    assert!(server.publish(TO_EUICC, envelope(1, 0, "trigger"), ONE).await.is_ok());
    let mut pieces = Pieces::default();
    for _ in 0..2 {
        let publish = device.expect_publish().await;
        assert!(!pieces.take(&publish));
        device.acknowledge(&publish).await;
    }
    let third = device.expect_publish().await;
    device.vanish().await;
    server.disconnect().await;
    (pieces, third)
}

async fn rest(mut device: Client, mut pieces: Pieces, limit: usize, body: &str) {
    pieces.all(&mut device, limit).await;
    assert_eq!(pieces.text(), format!("\"{body}\""));
    assert_eq!(device.expect_payload().await, envelope(1, 0, "trigger"));
    device.expect_nothing().await;
    device.disconnect().await;
}

#[tokio::test]
async fn a_clean_session_goes_on_with_the_first_piece_that_was_not_acknowledged() {
    let body = noise(3000);
    for version in VERSIONS {
        let rig = Rig::with(|config| config.rsp.settings.chunk = 500).await;
        let dial = Dial::new(version, "d");
        let (pieces, third) = cut_off(&rig, dial.clone(), &body).await;
        let mut device = rig.device(1, dial).await;
        device.auto_ack = false;
        device.subscribe(TO_EUICC, ONE).await;
        let again = device.expect_publish().await;
        assert_eq!((&again.payload, again.dup), (&third.payload, false), "a new packet");
        device.expect_nothing().await;
        device.vanish().await;
        let device = rig.reader(1, Dial::new(version, "another")).await;
        rest(device, pieces, 500, &body).await;
    }
}

#[tokio::test]
async fn another_session_of_the_device_acknowledges_its_own_pieces_alone() {
    let body = noise(3000);
    let rig = Rig::start().await;
    let mut server = rig.server(Dial::v5("sm-sr")).await;
    let mut narrow = rig.reader(1, Dial::v5("narrow").packet_bytes_max(500)).await;
    narrow.auto_ack = false;
    assert!(server.publish(TO_EUICC, download(1, &body), ONE).await.is_ok());
    assert!(server.publish(TO_EUICC, envelope(1, 0, "trigger"), ONE).await.is_ok());
    let small = narrow.expect_publish().await;
    let mut wide = rig.reader(1, Dial::v5("wide").packet_bytes_max(2000)).await;
    wide.auto_ack = false;
    let large = wide.expect_publish().await;
    assert!(large.payload.len() > small.payload.len());
    // It is not the one that is served any more: what it has is not what the other one was given.
    narrow.acknowledge(&small).await;
    narrow.barrier().await;
    wide.expect_nothing().await;
    wide.vanish().await;
    narrow.disconnect().await;
    let device = rig.reader(1, Dial::v5("another").packet_bytes_max(500)).await;
    rest(device, Pieces::default(), 500, &body).await;
}

#[tokio::test]
async fn a_resumed_session_goes_on_with_the_same_packet() {
    let body = noise(3000);
    for version in VERSIONS {
        let rig = Rig::with(|config| config.rsp.settings.chunk = 500).await;
        let dial = Dial::new(version, "d").persistent();
        let (mut pieces, third) = cut_off(&rig, dial.clone(), &body).await;
        let mut device = rig.device(1, dial).await;
        assert!(device.session_present());
        let again = device.expect_publish().await;
        assert_eq!((again.dup, again.packet_id), (true, third.packet_id));
        assert_eq!(again.payload, third.payload);
        pieces.take(&again);
        rest(device, pieces, 500, &body).await;
    }
}

#[tokio::test]
async fn the_rest_is_cut_anew_for_a_client_that_takes_more_or_less() {
    let body = noise(3000);
    for (limit, persistent) in
        [(350, false), (1000, false), (350, true), (1000, true), (100_000, false), (100_000, true)]
    {
        let rig = Rig::start().await;
        let mut dial = Dial::v5("d").packet_bytes_max(500);
        if persistent {
            dial = dial.persistent();
        }
        let (pieces, _third) = cut_off(&rig, dial.clone(), &body).await;
        let mut device = rig.device(1, dial.packet_bytes_max(limit)).await;
        assert_eq!(device.session_present(), persistent);
        if !persistent {
            device.subscribe(TO_EUICC, ONE).await;
        }
        // Of what is taken whole by now it gets the rest all the same.
        rest(device, pieces, limit as usize, &body).await;
    }
}

#[tokio::test]
async fn the_rest_is_cut_anew_when_the_setting_changes() {
    let mut stage = Stage::start(Version::V5).await;
    stage.set_group(7, chunk(500));
    let body = noise(3000);
    stage.client(A).auto_ack = false;
    stage.tell(SERVER, TO_EUICC, download(1, &body)).await;
    let mut pieces = Pieces::default();
    for limit in [500, 400, 700, 1200] {
        stage.set_group(7, chunk(limit));
        let publish = stage.client(A).expect_publish().await;
        let last = pieces.take(&publish);
        stage.set_group(7, chunk(1200));
        stage.client(A).acknowledge(&publish).await;
        assert!(!last);
    }
    stage.client(A).auto_ack = true;
    let publish = stage.client(A).expect_publish().await;
    stage.client(A).acknowledge(&publish).await;
    if !pieces.take(&publish) {
        pieces.all(stage.client(A), 1200).await;
    }
    assert_eq!(pieces.text(), format!("\"{body}\""));
    stage.nobody_else().await;
}

#[tokio::test]
async fn a_client_that_takes_not_even_a_piece_gets_none_and_what_comes_behind() {
    for persistent in [false, true] {
        let rig = Rig::start().await;
        let body = noise(3000);
        let mut dial = Dial::v5("d").packet_bytes_max(500);
        if persistent {
            dial = dial.persistent();
        }
        let (_pieces, _third) = cut_off(&rig, dial.clone(), &body).await;
        let mut device = rig.device(1, dial.packet_bytes_max(150)).await;
        if !persistent {
            device.subscribe(TO_EUICC, ONE).await;
        }
        // The trigger is small enough.
        assert_eq!(device.expect_payload().await, envelope(1, 0, "trigger"));
        device.expect_nothing().await;
        let broker = rig.service.broker();
        let now = broker.now();
        let all: Vec<_> = broker.with_control(|c| c.campaigns(None, now).collect());
        assert_eq!(all[1].tally.of(Failed), 1);
        assert_eq!(rig.counter("simcast_rsp_mail_messages ").await, 0);
    }
}

#[tokio::test]
async fn a_part_is_cut_like_anything_else() {
    let mut stage = Stage::start(Version::V5).await;
    stage.set_group(7, chunk(600));
    let (a, b) = (noise(1500), noise(1000));
    let parts = format!(r#""{}":"{a}","{}":"{b}""#, nid(1), nid(2));
    let body = format!(r#"{{"parts":{{{parts}}},"common":0}}"#);
    let rest = format!(r#""tid":"t","parts":true,"chunks":true,"body":{body}"#);
    stage.tell(SERVER, TO_EUICC, envelope_with(0, 7, "msg", &rest)).await;
    for (member, own) in [(A, a), (B, b)] {
        let mut pieces = Pieces::default();
        pieces.all(stage.client(member), 600).await;
        assert_eq!(pieces.text(), format!(r#"{{"common":0,"part":"{own}"}}"#));
    }
    for member in [C, E] {
        let small = envelope_with(0, 7, "msg", r#""tid":"t","body":{"common":0}"#);
        let received = stage.client(member).expect_payload().await;
        assert_eq!(received, small.replace("\"tid\":\"t\",", "\"tid\":\"t\",\"chunks\":true,"));
    }
    stage.nobody_else().await;
    stage.step(A, &envelope_with(0, 7, "ret(msg)", r#""tid":"t","body":1"#), &[SERVER]).await;
}
