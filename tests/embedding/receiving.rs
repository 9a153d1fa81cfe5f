//! What an in-process server hears: at least once, in order, within bounds.

use std::collections::HashSet;
use std::future::poll_fn;
use std::task::Poll;

use simcast::client::envelope::{Envelope, Kind as Type, Tid as ClientTid, Wire};
use simcast::config::Config;
use simcast::rsp::{Kind, Rate, Refusal, Tid};
use simcast::session::Routed;

use crate::common::{TO_EUICC, TO_SM_SR, envelope, in_time, kind_of, nid};
use crate::house::{Device, House, at_once, hold, next, text, wish};

#[tokio::test]
async fn every_server_gets_every_message_with_its_proven_sender() {
    let house = House::open().await;
    let mut one = house.service.sm_sr("one.test").await.unwrap();
    let mut two = house.service.sm_sr("two.test").await.unwrap();
    // Somebody of the same name is not the same server.
    let mut twin = house.service.sm_sr("two.test").await.unwrap();
    assert_eq!((one.name(), twin.name()), ("one.test", "two.test"));
    for number in [1, 3] {
        let asked = house.device(number).await.ask(0).await;
        for server in [&mut one, &mut two, &mut twin] {
            let received = hold(server).await;
            assert_eq!(text(received.payload()), asked);
            assert_eq!(received.sender(), Some(nid(number)));
            let head = received.head().unwrap();
            assert_eq!((head.nid, head.gid, head.kind), (Some(nid(number)), None, Kind::Trigger));
            received.acknowledge();
            assert!(at_once(server).await.is_none());
        }
    }
}

#[tokio::test]
async fn what_came_before_any_server_waits_for_the_first() {
    let house = House::open().await;
    let device = house.device(1).await;
    let asked = [device.ask(0).await, device.ask(1).await];
    let mut sm_sr = house.sm_sr().await;
    assert_eq!([next(&mut sm_sr).await, next(&mut sm_sr).await], asked);
    let mut late = house.sm_sr().await;
    assert!(at_once(&mut late).await.is_none());
}

#[tokio::test]
async fn who_waits_is_woken() {
    let house = House::open().await;
    let (mut sm_sr, device) = (house.sm_sr().await, house.device(1).await);
    for number in 0..3 {
        let waiting = tokio::spawn(async move {
            let text = next(&mut sm_sr).await;
            (sm_sr, text)
        });
        // It looks, and finds nothing.
        tokio::task::yield_now().await;
        let asked = device.ask(number).await;
        let (back, text) = in_time("the waiting task", waiting).await.unwrap();
        assert_eq!(text, asked);
        sm_sr = back;
    }
}

#[tokio::test]
async fn what_is_dropped_without_acknowledgement_comes_again_in_its_place() {
    let house = House::open().await;
    let (mut sm_sr, device) = (house.sm_sr().await, house.device(1).await);
    for number in 0..4 {
        device.ask(number).await;
    }
    let [first, second, third] =
        [hold(&mut sm_sr).await, hold(&mut sm_sr).await, hold(&mut sm_sr).await];
    second.acknowledge();
    drop(first);
    assert_eq!(next(&mut sm_sr).await, wish(1, 0));
    drop(third);
    assert_eq!(next(&mut sm_sr).await, wish(1, 2), "before what came later");
    assert_eq!(next(&mut sm_sr).await, wish(1, 3));
    assert!(at_once(&mut sm_sr).await.is_none(), "and nothing that was acknowledged");
}

#[tokio::test]
async fn a_dropped_message_wakes_who_waits_for_one() {
    let house = House::open().await;
    let (mut sm_sr, device) = (house.sm_sr().await, house.device(1).await);
    let asked = device.ask(0).await;
    let held = hold(&mut sm_sr).await;
    let waiting = tokio::spawn(async move { next(&mut sm_sr).await });
    tokio::task::yield_now().await;
    drop(held);
    assert_eq!(in_time("the waiting task", waiting).await.unwrap(), asked);
}

#[tokio::test]
async fn only_so_many_are_out_at_a_time() {
    let house = House::with(|config| config.limits.max_inflight = 2).await;
    let (mut sm_sr, device) = (house.sm_sr().await, house.device(1).await);
    for number in 0..4 {
        device.ask(number).await;
    }
    let (first, second) = (hold(&mut sm_sr).await, hold(&mut sm_sr).await);
    assert!(at_once(&mut sm_sr).await.is_none());
    let waiting = tokio::spawn(async move {
        let third = hold(&mut sm_sr).await;
        (sm_sr, third)
    });
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    second.acknowledge();
    let (mut sm_sr, third) = in_time("the waiting task", waiting).await.unwrap();
    assert_eq!(text(third.payload()), wish(1, 2));
    assert!(at_once(&mut sm_sr).await.is_none());
    drop((first, third));
    let rest = [next(&mut sm_sr).await, next(&mut sm_sr).await, next(&mut sm_sr).await];
    assert_eq!(rest, [wish(1, 0), wish(1, 2), wish(1, 3)]);
}

#[tokio::test]
async fn a_server_that_fetches_nothing_costs_what_its_inbox_may_hold() {
    const ROOM: usize = 32;
    let house = House::with(|config| config.rsp.server_inbox_messages_max = ROOM).await;
    let mut sm_sr = house.sm_sr().await;
    let devices = [house.device(1).await, house.device(2).await, house.device(3).await];
    let mut taken = Vec::new();
    for number in 0..ROOM {
        for (at, device) in devices.iter().enumerate() {
            let text = wish(at as u128 + 1, number);
            match device.publish(TO_SM_SR, text.clone()).await {
                Routed::Accepted => taken.push(text),
                Routed::Refused(refused) => assert_eq!(refused.name, Refusal::OverQuota.name()),
                Routed::NoSubscribers => panic!("there is a server"),
            }
        }
    }
    assert_eq!(taken.len(), ROOM);
    for text in taken {
        assert_eq!(next(&mut sm_sr).await, text);
    }
    assert!(at_once(&mut sm_sr).await.is_none(), "what was refused is nowhere");
    devices[0].ask(0).await;
}

#[tokio::test]
async fn what_has_expired_is_not_handed_out() {
    let house = House::open().await;
    let (mut sm_sr, device) = (house.sm_sr().await, house.device(1).await);
    device.ask(0).await;
    for number in [1, 2] {
        let accepted = device.publish_with(TO_SM_SR, wish(1, number), Some(0)).await;
        assert_eq!(accepted, Routed::Accepted);
    }
    device.ask(3).await;
    let first = hold(&mut sm_sr).await;
    assert_eq!(text(first.payload()), wish(1, 0));
    assert_eq!(next(&mut sm_sr).await, wish(1, 3));
    drop(first);
    assert_eq!(next(&mut sm_sr).await, wish(1, 0));
    assert!(at_once(&mut sm_sr).await.is_none());
}

#[tokio::test]
async fn cbor_is_read_like_json() {
    let house = House::open().await;
    let (mut sm_sr, device) = (house.sm_sr().await, house.device(1).await);
    let tid = Some(ClientTid::Text("t".into()));
    let asked = Envelope::new(nid(1).get(), 0, Type::Trigger).with_tid(tid).encode(Wire::Cbor);
    assert_eq!(device.publish(TO_SM_SR, asked.clone()).await, Routed::Accepted);
    let received = hold(&mut sm_sr).await;
    assert_eq!(received.payload(), &asked);
    let head = received.head().unwrap();
    assert_eq!((head.nid, head.tid), (Some(nid(1)), Some(Tid::from("t"))));
}

#[tokio::test]
async fn what_the_control_unit_says_itself_has_no_sender() {
    let house = House::open().await;
    let (mut sm_sr, new, old) = (house.sm_sr().await, house.device(1).await, house.device(2).await);
    let e1 = envelope(2, 7, &kind_of("req", 1));
    assert_eq!(new.publish(TO_EUICC, e1).await, Routed::Accepted);
    assert_eq!(old.mail().len(), 1);
    let e2 = envelope(1, 7, &kind_of("profile", 2));
    assert_eq!(old.publish(TO_EUICC, e2).await, Routed::Accepted);
    assert!(at_once(&mut sm_sr).await.is_none(), "not before it has arrived");
    assert_eq!(new.mail().len(), 1);
    let notice = hold(&mut sm_sr).await;
    assert_eq!((notice.sender(), notice.head().unwrap().kind), (None, Kind::Profile(nid(2))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_dropped_in_the_middle_of_a_burst_loses_nothing() {
    const BURST: usize = 400;
    let flood = |config: &mut Config| config.rsp.settings.trigger_rate.device = Rate::OFF;
    let house = House::with(flood).await;
    let mut first = house.sm_sr().await;
    let device = house.device(1).await;
    let burst = tokio::spawn(burst(device, BURST));
    let (mut done, mut held) = (HashSet::new(), Vec::new());
    while done.len() < BURST / 4 {
        let received = hold(&mut first).await;
        // Some are worked on for a long time, and some are given up.
        match done.len() % 8 {
            0 if held.len() < 10 => held.push(received),
            3 => {
                let again = text(received.payload());
                drop(received);
                let received = hold(&mut first).await;
                assert_eq!(text(received.payload()), again);
                received.acknowledge();
                done.insert(again);
            }
            _ => {
                assert!(done.insert(text(received.payload())), "nothing acknowledged comes again");
                received.acknowledge();
            }
        }
    }
    drop(first);
    // Too late: they are given to the next server.
    held.into_iter().for_each(simcast::service::embedded::Received::acknowledge);
    let mut second = house.sm_sr().await;
    in_time("the burst", burst).await.unwrap();
    let expected: Vec<String> =
        (0..BURST).map(|number| wish(1, number)).filter(|text| !done.contains(text)).collect();
    for text in expected {
        assert_eq!(next(&mut second).await, text);
    }
    assert!(at_once(&mut second).await.is_none());
}

async fn burst(device: Device, messages: usize) {
    for number in 0..messages {
        device.ask(number).await;
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn members_of_a_share_group_divide_the_work_and_inherit_it() {
    let house = House::open().await;
    let mut one = house.service.sm_sr_shared("one.test", "g").await.unwrap();
    let mut two = house.service.sm_sr_shared("two.test", "g").await.unwrap();
    let mut other = house.service.sm_sr_shared("other.test", "h").await.unwrap();
    let device = house.device(1).await;
    for number in 0..6 {
        device.ask(number).await;
    }
    assert_eq!(next(&mut one).await, wish(1, 0));
    assert_eq!(next(&mut two).await, wish(1, 1));
    let _held = [hold(&mut one).await, hold(&mut one).await];
    assert_eq!(next(&mut two).await, wish(1, 4));
    assert_eq!(next(&mut two).await, wish(1, 5));
    assert!(at_once(&mut two).await.is_none(), "what another has in its hands is its own");
    let waiting = tokio::spawn(async move {
        let inherited = [next(&mut two).await, next(&mut two).await];
        (two, inherited)
    });
    tokio::task::yield_now().await;
    one.close();
    let (mut two, inherited) = in_time("the waiting task", waiting).await.unwrap();
    assert_eq!(inherited, [wish(1, 2), wish(1, 3)]);
    assert!(at_once(&mut two).await.is_none());
    for number in 0..6 {
        assert_eq!(next(&mut other).await, wish(1, number), "another group has its own copy");
    }
}

#[tokio::test]
async fn a_busy_server_leaves_others_their_turn() {
    let house = House::open().await;
    let (mut sm_sr, device) = (house.sm_sr().await, house.device(1).await);
    device.ask(0).await;
    let publisher = sm_sr.publisher();
    let mut receiving = Box::pin(async move {
        for _ in 0..BUSY {
            drop(hold(&mut sm_sr).await);
        }
        sm_sr
    });
    let mut publishing = Box::pin(async move {
        for _ in 0..BUSY {
            publisher.publish("refused").await.unwrap_err();
        }
    });
    // Nothing that they do waits for anybody, and yet neither goes through in one turn.
    assert!(poll_fn(|context| Poll::Ready(receiving.as_mut().poll(context).is_pending())).await);
    tokio::task::yield_now().await;
    assert!(poll_fn(|context| Poll::Ready(publishing.as_mut().poll(context).is_pending())).await);
    in_time("both", async { tokio::join!(receiving, publishing) }).await;
}

/// More than the budget of a task in one turn.
const BUSY: usize = 1000;
