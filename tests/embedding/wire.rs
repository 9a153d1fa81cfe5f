//! In-process servers beside servers and devices that are connected over mutual TLS.

use std::collections::BTreeMap;

use simcast::mqtt::{QoS, Version};
use simcast::service::embedded::Envelope;

use crate::common::{Dial, Rig, TO_EUICC, TO_SM_SR, envelope, gid, nid};
use crate::house::{at_once, hold, next, text};

const ONE: QoS = QoS::AtLeastOnce;
const TWO: QoS = QoS::ExactlyOnce;

#[tokio::test]
async fn a_whole_flow_over_tls_is_seen_by_both_kinds_of_server() {
    let rig = Rig::start().await;
    let mut sm_sr = rig.service.sm_sr("embedded.test").await.unwrap();
    let mut connected = rig.server(Dial::v5("sm-sr")).await;
    assert!(!connected.subscribe(TO_SM_SR, ONE).await.is_error());
    let mut member = rig.reader(1, Dial::v311("one")).await;
    let mut stranger = rig.reader(4, Dial::v5("four")).await;
    let a1 = Envelope::trigger_group(gid(7)).with_tid("t");
    sm_sr.publish(a1.clone()).await.unwrap();
    assert_eq!(member.expect_payload().await, text(&bytes::Bytes::from(a1)));
    let a2 = envelope(0, 7, "ret(trigger)");
    assert!(member.publish(TO_SM_SR, &a2, ONE).await.is_ok());
    assert!(!stranger.publish(TO_SM_SR, &a2, ONE).await.is_ok(), "not of this group");
    let received = hold(&mut sm_sr).await;
    assert_eq!((text(received.payload()), received.sender()), (a2, Some(nid(1))));
    received.acknowledge();
    // The answer is the asker's; what a device begins is everybody's.
    connected.expect_nothing().await;
    let d1 = envelope(0, 7, "trigger");
    assert!(member.publish(TO_SM_SR, &d1, ONE).await.is_ok());
    let received = hold(&mut sm_sr).await;
    assert_eq!((text(received.payload()), received.sender()), (d1.clone(), Some(nid(1))));
    received.acknowledge();
    assert_eq!(connected.expect_payload().await, d1);
    // And the reverse: the connected one asks, and it alone hears the answer.
    assert!(connected.publish(TO_EUICC, envelope(1, 0, "msg"), ONE).await.is_ok());
    assert_eq!(member.expect_payload().await, envelope(1, 0, "msg"));
    let b2 = envelope(1, 0, "ret(msg)");
    assert!(member.publish(TO_SM_SR, &b2, ONE).await.is_ok());
    assert_eq!(connected.expect_payload().await, b2);
    connected.expect_nothing().await;
    assert!(at_once(&mut sm_sr).await.is_none());
    stranger.expect_nothing().await;
}

#[tokio::test]
async fn a_share_group_may_have_members_of_both_kinds() {
    let rig = Rig::start().await;
    let mut device = rig.device(1, Dial::v5("one")).await;
    let mut connected = rig.server(Dial::v5("sm-sr").receive_maximum(1)).await;
    connected.auto_ack = false;
    assert!(!connected.subscribe("$share/g/To_SM-SR", ONE).await.is_error());
    let mut sm_sr = rig.service.sm_sr_shared("embedded.test", "g").await.unwrap();
    let asked: Vec<String> = (0..3).map(|n| crate::house::wish(1, n)).collect();
    for wish in &asked {
        assert!(device.publish(TO_SM_SR, wish, ONE).await.is_ok());
    }
    // The other has room for one, does not acknowledge it, and goes.
    let held = text(&connected.expect_publish().await.payload);
    let mut others = vec![next(&mut sm_sr).await, next(&mut sm_sr).await];
    connected.vanish().await;
    others.push(next(&mut sm_sr).await);
    assert_eq!(others[2], held);
    others.sort();
    assert_eq!(others, asked);
}

/// What is counted of messages, whatever they came over.
async fn counted(rig: &Rig) -> BTreeMap<String, f64> {
    let metrics = rig.metrics().await;
    let families = [
        "simcast_rsp_",
        "simcast_messages_",
        "simcast_payload_bytes_",
        "simcast_publish_ack_seconds_count",
    ];
    let lines = metrics.lines().filter(|line| families.iter().any(|name| line.starts_with(name)));
    let pair = |line: &str| {
        let (name, value) = line.rsplit_once(' ').unwrap();
        (name.to_owned(), value.parse().unwrap())
    };
    lines.map(pair).collect()
}

fn difference(
    before: &BTreeMap<String, f64>,
    after: &BTreeMap<String, f64>,
) -> BTreeMap<String, f64> {
    let changed = after.iter().map(|(name, value)| (name.clone(), value - before[name]));
    changed.filter(|(_, change)| *change != 0.0).collect()
}

#[tokio::test]
async fn what_it_publishes_is_counted_like_a_message_from_the_wire() {
    let rig = Rig::start().await;
    let sm_sr = rig.service.sm_sr("embedded.test").await.unwrap();
    let mut connected = rig.server(Dial::new(Version::V5, "sm-sr")).await;
    for (payload, permitted) in [
        (envelope(1, 0, "msg"), true),
        (envelope(0, 7, "trigger"), true),
        (envelope(99, 0, "msg"), false),
    ] {
        let start = counted(&rig).await;
        assert_eq!(connected.publish(TO_EUICC, &payload, TWO).await.is_ok(), permitted);
        let over_wire = counted(&rig).await;
        assert_eq!(sm_sr.publish(payload).await.is_ok(), permitted);
        let in_process = counted(&rig).await;
        let expected = difference(&start, &over_wire);
        assert!(!expected.is_empty());
        assert_eq!(difference(&over_wire, &in_process), expected);
    }
}

#[tokio::test]
async fn nobody_takes_its_place_by_its_name() {
    let rig = Rig::start().await;
    let mut sm_sr = rig.service.sm_sr("sm-sr.test").await.unwrap();
    // A server with a certificate of this name is another one.
    let mut twin = rig.server(Dial::v5("sm-sr")).await;
    assert!(!twin.subscribe(TO_SM_SR, ONE).await.is_error());
    let mut device = rig.device(1, Dial::v5("one")).await;
    let wish = envelope(1, 0, "trigger");
    assert!(device.publish(TO_SM_SR, &wish, ONE).await.is_ok());
    assert_eq!(next(&mut sm_sr).await, wish);
    assert_eq!(twin.expect_payload().await, wish);
    twin.disconnect().await;
    assert!(device.publish(TO_SM_SR, &wish, ONE).await.is_ok());
    assert_eq!(next(&mut sm_sr).await, wish);
}
