//! Cases in which several things happen at once. Each ends in a state that can be told exactly.

use std::collections::BTreeSet;
use std::time::Duration;

use simcast::ids::SessionKey;
use simcast::mqtt::{Packet, Publish, ReasonCode};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::common::client::success;
use crate::common::{Client, Dial, Rig, in_time};
use crate::{ONE, TWO, VERSIONS, ZERO, answer, id, listener, message};

#[tokio::test]
async fn take_overs_lose_nothing_that_was_acknowledged() {
    // case Q7
    const MESSAGES: usize = 300;
    let rig = Rig::start().await;
    for version in VERSIONS {
        let dial = Dial::new(version, "s").persistent();
        listener(&rig, dial.clone(), "t", ONE).await.disconnect().await;
        let mut publisher = rig.client(Dial::v5("p")).await;
        let publishing = async {
            for number in 0..MESSAGES {
                assert!(publisher.publish("t", number.to_string(), ONE).await.is_ok());
            }
        };
        let receiving = async {
            let mut received = BTreeSet::new();
            let mut take_overs = 0;
            let mut client = rig.client(dial.clone()).await;
            while received.len() < MESSAGES {
                received.insert(client.expect_payload().await);
                if received.len() % 3 == 0 {
                    // The new connection comes while messages are on their way to the old one.
                    client = rig.client(dial.clone()).await;
                    assert!(client.session_present());
                    take_overs += 1;
                }
            }
            take_overs
        };
        let ((), take_overs) =
            in_time("all of them", async { tokio::join!(publishing, receiving) }).await;
        assert!(take_overs >= MESSAGES / 4, "{take_overs}");
        rig.client(dial.clean()).await.disconnect().await;
    }
}

#[tokio::test]
async fn two_devices_with_one_id_are_one_session() {
    // case Q8
    let rig = Rig::start().await;
    let mut bystander = listener(&rig, Dial::v5("bystander"), "b", ONE).await;
    let mut fight = JoinSet::new();
    for _ in 0..2 {
        let port = rig.plain;
        fight.spawn(async move {
            for _ in 0..100 {
                let stream = TcpStream::connect(port).await.unwrap();
                // Each comes back as soon as the other has thrown it out, and now and then before.
                let mut client = Client::open(stream, &Dial::v5("twin").persistent())
                    .await
                    .expect("each comes in, for a while");
                client.send(&Packet::PingReq).await;
                match client.read().await {
                    Some(Packet::PingResp) | None => {}
                    Some(Packet::Disconnect(goodbye)) => {
                        assert_eq!(goodbye.reason, ReasonCode::SessionTakenOver);
                    }
                    other => panic!("{other:?}"),
                }
            }
        });
    }
    while let Some(ended) = fight.join_next().await {
        ended.unwrap();
        let sessions = rig.counter("simcast_sessions{").await;
        assert!(sessions <= 2, "the twins' and the bystander's: {sessions}");
        bystander.publish("b", "x", ONE).await;
        assert_eq!(bystander.expect_payload().await, "x");
    }
}

#[tokio::test]
async fn whoever_is_sent_away_leaves_a_will_and_comes_back() {
    // case Q9
    let rig = Rig::start().await;
    // The first client of a broker has the first slot.
    let dial = Dial::v5("first").persistent().will("will", "sent away");
    let mut first = rig.client(dial.clone()).await;
    let mut heir = listener(&rig, Dial::v5("heir"), "will", ONE).await;
    rig.service.broker().kick(&[SessionKey { slot: 0, generation: 0 }]);
    assert_eq!(first.expect_goodbye().await, ReasonCode::AdministrativeAction);
    assert_eq!(heir.expect_payload().await, "sent away");
    heir.expect_nothing().await;
    assert!(rig.client(dial).await.session_present());
}

#[tokio::test]
async fn messages_for_sessions_that_end_leave_nothing_behind() {
    // case Q21
    let rig = Rig::start().await;
    let mut publishing = JoinSet::new();
    let (stop, _) = tokio::sync::watch::channel(false);
    for name in ["p1", "p2"] {
        let mut publisher = rig.client(Dial::v5(name)).await;
        let stopped = stop.subscribe();
        publishing.spawn(async move {
            while !*stopped.borrow() {
                publisher.publish("t", "x", ONE).await;
                tokio::task::yield_now().await;
            }
            publisher.disconnect().await;
        });
    }
    // Sessions that end with their connection, by a clean start, by an operator, by their expiry.
    for round in 0..60 {
        let expiry = if round % 4 == 3 { 1 } else { 0 };
        let name = format!("s{}", round % 7);
        let mut client = rig.client(Dial::v5(&name).expiry_secs(expiry)).await;
        client.subscribe("t", TWO).await;
        match round % 4 {
            0 => drop(client),
            1 => drop(rig.client(Dial::v5(&name)).await),
            2 => {
                // Whatever generation its slot has come to; the publishers have the first two.
                let all = (2..10).flat_map(|slot| {
                    (0..=round).map(move |generation| SessionKey { slot, generation })
                });
                let keys: Vec<SessionKey> = all.collect();
                rig.service.broker().kick(&keys);
                client.vanish().await;
            }
            _ => client.vanish().await,
        }
    }
    stop.send(true).unwrap();
    in_time("the publishers", publishing.join_all()).await;
    rig.until_counter("simcast_sessions{", 0).await;
    assert!(rig.counter("simcast_disconnects_total{reason=\"administrative\"}").await > 0);
    for gauge in ["simcast_subscriptions ", "simcast_queue_messages ", "simcast_queue_bytes "] {
        assert_eq!(rig.counter(gauge).await, 0, "{gauge}");
    }
}

#[tokio::test]
async fn a_publish_is_cut_at_every_step_and_arrives_once() {
    // case Q1
    let rig = Rig::start().await;
    let mut subscriber = listener(&rig, Dial::v5("s"), "t", TWO).await;
    for version in VERSIONS {
        let dial = Dial::new(version, "p").persistent();
        let first = message("t", "once", TWO, 5);
        let again = Packet::Publish(Publish { dup: true, ..first.clone() });
        let steps = [
            Packet::Publish(first),
            again.clone(),
            again,
            Packet::PubRel(success(id(5))),
            // Its PUBCOMP was lost; the broker knows nothing of it any more.
            Packet::PubRel(success(id(5))),
        ];
        for packet in steps {
            let mut publisher = rig.client(dial.clone()).await;
            publisher.send(&packet).await;
            let said = answer(&mut publisher).await;
            match packet {
                Packet::Publish(_) => {
                    assert!(matches!(said, Packet::PubRec(ack) if ack.packet_id == id(5)));
                }
                _ => assert!(matches!(said, Packet::PubComp(ack) if ack.packet_id == id(5))),
            }
            publisher.vanish().await;
        }
        assert_eq!(subscriber.expect_payload().await, "once", "{version:?}");
        subscriber.expect_nothing().await;
        // Without the PUBREL a clean start forgets it, and the id stands for a new message.
        for _ in 0..2 {
            let mut publisher = rig.client(dial.clone().clean()).await;
            publisher.send(&Packet::Publish(message("t", "new", TWO, 5))).await;
            answer(&mut publisher).await;
            publisher.vanish().await;
            assert_eq!(subscriber.expect_payload().await, "new");
        }
        rig.client(dial.clean()).await.disconnect().await;
    }
}

#[tokio::test]
async fn a_will_that_is_due_while_its_client_comes_back_fires_at_most_once() {
    // case Q7, case Q12
    let rig = Rig::start().await;
    let mut heir = listener(&rig, Dial::v5("heir"), "will", ZERO).await;
    let mut coming_back = JoinSet::new();
    for number in 0..20u64 {
        let name = format!("w{number}");
        let dial = Dial::v5(&name).persistent().will("will", name.clone()).will_delay_secs(1);
        rig.client(dial).await.vanish().await;
        let port = rig.plain;
        // Around the moment at which the Will is due, some before and some behind it.
        coming_back.spawn(async move {
            tokio::time::sleep(Duration::from_millis(900 + 35 * number)).await;
            let stream = TcpStream::connect(port).await.unwrap();
            Client::open(stream, &Dial::v5(&name).persistent()).await.unwrap().disconnect().await;
        });
    }
    in_time("all of them", coming_back.join_all()).await;
    tokio::time::sleep(2 * simcast::broker::SWEEP_INTERVAL).await;
    let wills = heir.arrived().await;
    let names: BTreeSet<_> = wills.iter().map(|will| will.payload.clone()).collect();
    assert_eq!(names.len(), wills.len(), "no Will came twice");
}
