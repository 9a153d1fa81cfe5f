//! Times that clients rely on. "Never earlier" is strict; "no later" has slack for a machine that
//! does other things beside.

use std::time::Duration;

use simcast::clock::Clock;
use simcast::ids::Timestamp;
use simcast::mqtt::{Disconnect, DisconnectProperties, Packet, ReasonCode, Version};

use crate::common::{Client, Dial, Rig};
use crate::{ONE, VERSIONS, listener};

/// What a busy machine of two cores may add to any upper bound.
const SLACK: Duration = Duration::from_secs(2);

/// The broker looks for what is due this often.
const SWEEP: Duration = simcast::broker::SWEEP_INTERVAL;

/// A moment, and how long it is ago.
#[derive(Clone, Copy)]
struct Since(Clock, Timestamp);

impl Since {
    fn now() -> Self {
        let clock = Clock::start();
        Self(clock, clock.now())
    }

    fn elapsed(self) -> Duration {
        self.0.now().since(self.1)
    }
}

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// Waits for the end of a connection whose last byte was sent at `since`.
async fn expires(mut client: Client, since: Since, keep_alive_secs: u16) {
    let told = client.expect_closed().await.map(|goodbye| goodbye.reason);
    let waited = since.elapsed();
    assert!(told.is_none_or(|reason| reason == ReasonCode::KeepAliveTimeout));
    let due = ms(u64::from(keep_alive_secs) * 1500);
    assert!(waited >= due, "{waited:?} is earlier than {due:?}");
    assert!(waited <= due + ms(1000) + SLACK, "{waited:?} is too late for {due:?}");
}

/// 5: [MQTT-3.1.2-22] [MQTT-3.2.2-22] [MQTT-3.1.2-20]
/// 3.1.1: [MQTT-3.1.2-24] [MQTT-3.1.2-23]
#[tokio::test]
async fn a_keep_alive_expires_after_one_and_a_half_times_its_length() {
    // case Q10
    let rig = Rig::start().await;
    let mut watcher = listener(&rig, Dial::v5("watcher"), "will", ONE).await;
    let mut expiring = tokio::task::JoinSet::new();
    for keep_alive_secs in [1, 2] {
        for version in VERSIONS {
            // Silent from the CONNECT on.
            let name = format!("{version:?} {keep_alive_secs}");
            let dial = Dial::new(version, &name).keep_alive_secs(keep_alive_secs);
            let dial = dial.will("will", "x");
            let since = Since::now();
            let client = rig.client(dial.clone()).await;
            expiring.spawn(expires(client, since, keep_alive_secs));
            // Heard for a while, and silent then.
            let mut dial = dial;
            dial.0.client_id = format!("{name} late").into();
            let mut client = rig.client(dial).await;
            expiring.spawn(async move {
                for _ in 0..3 {
                    tokio::time::sleep(ms(400)).await;
                    client.ping().await;
                }
                let since = Since::now();
                client.send(&Packet::PingReq).await;
                expires(client, since, keep_alive_secs).await;
            });
        }
    }
    crate::in_time("all of them", expiring.join_all()).await;
    assert_eq!(watcher.expect_payloads(8).await.len(), 8, "as if the network had failed");
}

/// 5: [MQTT-3.1.2-22] [MQTT-3.1.2-21] [MQTT-3.2.2-21]
/// 3.1.1: [MQTT-3.1.2-24]
#[tokio::test]
async fn the_keep_alive_that_counts_is_the_one_agreed_upon() {
    // case Q10, case Q11
    let rig = Rig::with(|config| config.limits.max_keepalive = Duration::from_secs(1)).await;
    let told = |client: &Client| {
        client.connack.properties.as_ref().and_then(|properties| properties.server_keep_alive_secs)
    };
    let mut expiring = tokio::task::JoinSet::new();
    for (asked, server) in [(0, Some(1)), (60, Some(1)), (u16::MAX, Some(1)), (1, None)] {
        let since = Since::now();
        let client = rig.client(Dial::v5(&asked.to_string()).keep_alive_secs(asked)).await;
        assert_eq!(told(&client), server, "{asked}");
        expiring.spawn(expires(client, since, 1));
    }
    // Older clients cannot be told: their own holds, and none is none.
    let mut none = rig.client(Dial::v311("none")).await;
    let mut long = rig.client(Dial::v311("long").keep_alive_secs(60)).await;
    crate::in_time("all of them", expiring.join_all()).await;
    none.ping().await;
    long.ping().await;
}

/// 5: [MQTT-3.1.2-22]
/// 3.1.1: [MQTT-3.1.2-24]
#[tokio::test]
async fn every_packet_is_a_sign_of_life_and_so_is_a_piece_of_one() {
    // case Q10
    let rig = Rig::start().await;
    let mut living = tokio::task::JoinSet::new();
    for version in VERSIONS {
        let dial =
            |name: &str| Dial::new(version, &format!("{version:?} {name}")).keep_alive_secs(1);
        let properties: &[u8] = if version == Version::V5 { &[0] } else { &[] };
        // A PUBLISH of 20 pieces, one every 150 ms: three seconds.
        let payload = [0; 200];
        let large = crate::frame(0x30, &[&b"\0\x01t"[..], properties, &payload].concat());
        let mut client = rig.client(dial("slow")).await;
        living.spawn(async move {
            for piece in large.chunks(large.len().div_ceil(20)) {
                client.send_raw(piece).await;
                tokio::time::sleep(ms(150)).await;
            }
            client.ping().await;
        });
        // Messages, requests and acknowledgements do as well as PINGREQ.
        let mut client = rig.client(dial("busy")).await;
        living.spawn(async move {
            for turn in 0..6 {
                match turn % 3 {
                    0 => drop(client.publish("t", "x", crate::ZERO).await),
                    1 => drop(client.subscribe("u", ONE).await),
                    _ => client.send_raw(&[0x40, 2, 0, 9]).await,
                }
                tokio::time::sleep(ms(500)).await;
            }
            client.ping().await;
        });
    }
    crate::in_time("three seconds", living.join_all()).await;
}

/// A client whose Will waits for `delay` seconds, and what ends its session.
async fn leaves_a_will(rig: &Rig, name: &str, delay: u32, expiry: u32) -> Since {
    let dial = Dial::v5(name).expiry_secs(expiry).will(&format!("will/{name}"), "x");
    let client = rig.client(dial.will_delay_secs(delay)).await;
    let since = Since::now();
    client.vanish().await;
    since
}

/// Waits for one Will, and says how long after `since` it came.
async fn inherits(mut heir: Client, since: Since, earliest: Duration) {
    heir.expect_publish().await;
    let waited = since.elapsed();
    assert!(waited >= earliest, "{waited:?} is earlier than {earliest:?}");
    // [n, n + 2 s] is what clients may rely on; the sweep takes half a second of it.
    assert!(SWEEP <= ms(500) && waited <= earliest + ms(2000) + SLACK, "{waited:?} is too late");
    heir.expect_nothing().await;
}

/// 5: [MQTT-3.1.2-8] [MQTT-4.1.0-2]
#[tokio::test]
async fn a_delayed_will_fires_when_its_time_has_come_or_its_session_ends() {
    // case Q12, case Q13
    let rig = Rig::start().await;
    let mut waiting = tokio::task::JoinSet::new();
    // (delay, session expiry, when it is due)
    for (name, delay, expiry, due) in [
        ("none", 0, 60, 0),
        ("one", 1, 60, 1),
        ("two", 2, 60, 2),
        ("equal", 1, 1, 1),
        ("ends first", 60, 1, 1),
        ("ends at once", 60, 0, 0),
        ("never ends", 1, u32::MAX, 1),
    ] {
        let dial = Dial::v5(&format!("heir of {name}"));
        let heir = listener(&rig, dial, &format!("will/{name}"), ONE).await;
        let since = leaves_a_will(&rig, name, delay, expiry).await;
        waiting.spawn(inherits(heir, since, Duration::from_secs(due)));
    }
    crate::in_time("all Wills", waiting.join_all()).await;
}

/// 5: [MQTT-3.1.3-9] [MQTT-3.1.2-10]
#[tokio::test]
async fn who_comes_back_in_time_leaves_no_will() {
    // case Q12
    let rig = Rig::start().await;
    let mut heir = listener(&rig, Dial::v5("heir"), "will/#", ONE).await;
    leaves_a_will(&rig, "back", 1, 60).await;
    leaves_a_will(&rig, "back and gone", 1, 60).await;
    let back = rig.client(Dial::v5("back").persistent()).await;
    assert!(back.session_present());
    rig.client(Dial::v5("back and gone").persistent()).await.vanish().await;
    tokio::time::sleep(ms(1000) + 2 * SWEEP).await;
    heir.expect_nothing().await;
}

/// 5: [MQTT-3.1.2-10] [MQTT-3.14.4-3]
#[tokio::test]
async fn a_goodbye_with_will_that_shortens_the_session_fires_at_its_end() {
    let rig = Rig::start().await;
    let heir = listener(&rig, Dial::v5("heir"), "will/w", ONE).await;
    let dial = Dial::v5("w").expiry_secs(60).will("will/w", "x").will_delay_secs(60);
    let mut client = rig.client(dial).await;
    let properties = DisconnectProperties { session_expiry_secs: Some(1), ..Default::default() };
    let reason = ReasonCode::DisconnectWithWill;
    let since = Since::now();
    client
        .send(&Packet::Disconnect(Disconnect { reason, properties: Some(Box::new(properties)) }))
        .await;
    client.expect_closed().await;
    inherits(heir, since, Duration::from_secs(1)).await;
}
