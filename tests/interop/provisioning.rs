//! Provisioning with devices and servers that are plain MQTT clients.

use crate::WAYS;
use crate::common::{TO_EUICC, TO_SM_SR, envelope, envelope_with, nid};
use crate::leash::{Kind, Leash, Told};
use crate::programs::{Message, MosquittoSub, Stage, VersionName, clients_are_here, mosquitto_pub};

const NOT_AUTHORIZED: u64 = 0x87;
const PACKET_ID_NOT_FOUND: u64 = 0x92;
const PAYLOAD_FORMAT_INVALID: u64 = 0x99;

/// An A1 that can be told from the others.
fn trigger(device: u128, gid: u64, mark: &str) -> String {
    envelope_with(device, gid, "trigger", &format!("\"body\":\"{mark}\""))
}

/// The devices 1 and 2 are in group 7, device 4 in group 8, device 6 in none.
struct Fleet {
    one: MosquittoSub,
    two: Leash,
    four: MosquittoSub,
    six: Leash,
}

impl Fleet {
    async fn start(stage: &Stage, (version, qos): (VersionName, u64)) -> Self {
        let mosquitto = async |number: u128, id: &str| {
            let door = stage.device(number);
            MosquittoSub::start(&door, (version, qos), id, TO_EUICC, &[]).await
        };
        let paho = async |number: u128, id: &str| {
            let mut paho = Leash::start(Kind::Paho, &stage.device(number), version, id, &[]).await;
            assert_eq!(paho.subscribe(TO_EUICC, qos).await, qos);
            paho
        };
        Self {
            one: mosquitto(1, "one").await,
            two: paho(2, "two").await,
            four: mosquitto(4, "four").await,
            six: paho(6, "six").await,
        }
    }

    /// What each device has received, given how many that is for each.
    async fn received(&mut self, counts: [usize; 4]) -> [Vec<Message>; 4] {
        let mut all = [vec![], vec![], vec![], vec![]];
        for (device, count) in counts.into_iter().enumerate() {
            for _ in 0..count {
                let message = match device {
                    0 => self.one.message().await,
                    1 => self.two.message().await,
                    2 => self.four.message().await,
                    _ => self.six.message().await,
                };
                all[device].push(message);
            }
        }
        all
    }
}

/// Mail of a device comes in the order of publishing: the last letter of each proves that nothing
/// else was on its way.
#[tokio::test]
async fn letters_reach_the_addressed_devices_and_nobody_else() {
    if !clients_are_here() {
        return;
    }
    for (version, qos) in WAYS {
        let stage = Stage::start().await;
        let mut fleet = Fleet::start(&stage, (version, qos)).await;
        let letters = [
            trigger(1, 0, "to one"),
            trigger(2, 0, "to two"),
            trigger(0, 7, "to group 7"),
            trigger(0, 8, "to group 8"),
            trigger(1, 0, "last"),
            trigger(2, 0, "last"),
            trigger(4, 0, "last"),
            trigger(6, 0, "last"),
        ];
        mosquitto_pub(&stage.server(), (version, qos), TO_EUICC, &letters, &[]).await;
        let expected: [&[usize]; 4] = [&[0, 2, 4], &[1, 2, 5], &[3, 6], &[7]];
        let received = fleet.received(expected.map(<[usize]>::len)).await;
        for (letters_of, received) in expected.into_iter().zip(received) {
            let expected = letters_of.iter().map(|letter| Message {
                topic: TO_EUICC.to_owned(),
                payload: letters[*letter].clone(),
                qos,
                retain: false,
                nid: None,
            });
            assert_eq!(received, expected.collect::<Vec<_>>(), "version {version}, QoS {qos}");
        }
    }
}

/// The servers learn from the broker who has answered, where their protocol can say so.
#[tokio::test]
async fn answers_reach_the_servers_with_the_name_of_the_device() {
    if !clients_are_here() {
        return;
    }
    for (version, qos) in WAYS {
        let stage = Stage::start().await;
        let way = (version, qos);
        let mut fleet = Fleet::start(&stage, way).await;
        let door = stage.server();
        let mut mosquitto = MosquittoSub::start(&door, way, "server-1", TO_SM_SR, &[]).await;
        let mut paho = Leash::start(Kind::Paho, &door, version, "server-2", &[]).await;
        assert_eq!(paho.subscribe(TO_SM_SR, qos).await, qos);
        let asked = paho.publish(TO_EUICC, &trigger(0, 7, "to group 7"), qos).await;
        assert_eq!(asked.reason, 0);
        fleet.received([1, 1, 0, 0]).await;

        // Device 1 has two clients: one that only listens, one that only speaks.
        let answers = [envelope(1, 0, "ret(trigger)"), envelope(0, 7, "ret(trigger)")];
        let from = |number: u128, answer: &String| Message {
            topic: TO_SM_SR.to_owned(),
            payload: answer.clone(),
            qos,
            retain: false,
            nid: (version == "5").then(|| nid(number).to_string()),
        };
        mosquitto_pub(&stage.device(1), way, TO_SM_SR, &answers[..1], &[]).await;
        assert_eq!(mosquitto.message().await, from(1, &answers[0]));
        fleet.two.publish(TO_SM_SR, &answers[1], qos).await;
        assert_eq!(mosquitto.message().await, from(2, &answers[1]));
        assert_eq!(paho.message().await, from(1, &answers[0]));
        assert_eq!(paho.message().await, from(2, &answers[1]));

        // No device has heard of it, and the listening client of device 1 is still its reader.
        let last = [1, 2, 4, 6].map(|number| trigger(number, 0, "last"));
        mosquitto_pub(&stage.server(), way, TO_EUICC, &last, &[]).await;
        for (letter, received) in last.iter().zip(fleet.received([1, 1, 1, 1]).await) {
            assert_eq!(&received[0].payload, letter, "version {version}, QoS {qos}");
        }
    }
}

#[tokio::test]
async fn a_refusal_gives_paho_its_reason_code_and_its_name() {
    if !clients_are_here() {
        return;
    }
    let stage = Stage::start().await;
    let mut device = Leash::start(Kind::Paho, &stage.device(1), "5", "device", &[]).await;
    let told = |reason, text: &str| Told { reason, text: Some(text.to_owned()) };
    let spoofed = device.publish(TO_SM_SR, &envelope(2, 0, "trigger"), 1).await;
    assert_eq!(spoofed, told(NOT_AUTHORIZED, "spoofed_nid"));
    let garbage = device.publish(TO_SM_SR, "{", 1).await;
    assert_eq!(garbage, told(PAYLOAD_FORMAT_INVALID, "unreadable_envelope"));
    // paho does not look at the reason of a PUBREC and goes on with PUBREL; the session lives on.
    let spoofed = device.publish(TO_SM_SR, &envelope(2, 0, "trigger"), 2).await;
    assert_eq!(spoofed.reason, PACKET_ID_NOT_FOUND);
    assert_eq!(device.subscribe(TO_SM_SR, 1).await, NOT_AUTHORIZED);
    assert_eq!(device.publish(TO_SM_SR, &envelope(1, 0, "trigger"), 1).await.reason, 0);

    let mut client = Leash::start(Kind::Paho, &stage.plain(), "5", "client", &[]).await;
    let refused = client.publish(TO_EUICC, &trigger(1, 0, "mine"), 1).await;
    assert_eq!(refused, told(NOT_AUTHORIZED, "role_not_permitted"));
    assert_eq!(stage.rig.refusals("spoofed_nid").await, 2);
}

#[tokio::test]
async fn a_refusal_gives_mosquitto_its_reason_code_and_its_name() {
    if !clients_are_here() {
        return;
    }
    let stage = Stage::start().await;
    for qos in [1, 2] {
        let spoof = [envelope(2, 0, "trigger")];
        let said = mosquitto_pub(&stage.device(1), ("5", qos), TO_SM_SR, &spoof, &[]).await;
        let said = said.join("\n");
        assert!(said.contains("failed: Not authorized"), "QoS {qos}: {said}");
        // Of the refusal of a QoS 2 message it shows the code alone.
        assert!(qos == 2 || said.contains("spoofed_nid"), "QoS {qos}: {said}");
    }
}

/// Version 3.1.1 has no word for a refusal: who claims to be somebody else is disconnected, other
/// messages are acknowledged and go nowhere.
#[tokio::test]
async fn a_refusal_in_version_3_1_1_is_silence_or_the_end() {
    if !clients_are_here() {
        return;
    }
    let stage = Stage::start().await;
    let mut server = Leash::start(Kind::Paho, &stage.server(), "311", "server", &[]).await;
    assert_eq!(server.subscribe(TO_SM_SR, 1).await, 1);
    let mut device = Leash::start(Kind::Paho, &stage.device(1), "311", "device", &[]).await;
    assert_eq!(device.subscribe(TO_SM_SR, 1).await, 0x80);
    for qos in [1, 2] {
        assert_eq!(device.publish(TO_SM_SR, "{", qos).await.reason, 0);
    }
    device.throw(TO_SM_SR, &envelope(2, 0, "trigger"), 1, false);
    device.expect_closed().await;

    let mut device = Leash::start(Kind::Paho, &stage.device(1), "311", "device", &[]).await;
    let wish = envelope(1, 0, "trigger");
    device.publish(TO_SM_SR, &wish, 1).await;
    assert_eq!(server.message().await.payload, wish);
}
