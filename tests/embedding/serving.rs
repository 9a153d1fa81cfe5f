//! How in-process servers begin and end, and the registry in the hands of the program.

use simcast::broker::Rejected;
use simcast::ids::SessionKey;
use simcast::mqtt::ReasonCode;
use simcast::rsp::{LineReason, Refusal};
use simcast::service::embedded::{Envelope, OpenError, Refused};

use crate::common::{gid, in_time, nid};
use crate::house::{House, at_once, hold, next};

#[tokio::test]
async fn when_the_broker_stops_everything_ends() {
    let house = House::open().await;
    let (mut sm_sr, idle) = (house.sm_sr().await, house.sm_sr().await);
    let (publisher, idle_publisher) = (sm_sr.publisher(), idle.publisher());
    publisher.publish(Envelope::trigger_device(nid(1))).await.unwrap();
    let waiting = tokio::spawn(async move {
        assert!(sm_sr.recv().await.is_none());
        assert!(sm_sr.recv().await.is_none(), "and stays so");
        sm_sr
    });
    tokio::task::yield_now().await;
    assert!(house.service.stop().await);
    let sm_sr = in_time("the waiting task", waiting).await.unwrap();
    let letter = || Envelope::trigger_device(nid(1));
    assert_eq!(sm_sr.publish(letter()).await, Err(Refused::Ended));
    // Also where nobody has looked since.
    assert_eq!(idle.publish(letter()).await, Err(Refused::Ended));
    drop((sm_sr, idle));
    for publisher in [publisher, idle_publisher] {
        let refused = publisher.publish(letter()).await.unwrap_err();
        assert_eq!((refused, refused.name()), (Refused::Ended, "ended"));
        assert_eq!(refused.reason(), ReasonCode::ServerUnavailable);
    }
}

#[tokio::test]
async fn who_is_sent_away_ends_and_its_messages_go_to_others() {
    let house = House::open().await;
    let mut away = house.sm_sr().await;
    let device = house.device(1).await;
    let asked = device.ask(0).await;
    let held = hold(&mut away).await;
    // The first session of this broker.
    house.service.broker().kick(&[SessionKey { slot: 0, generation: 0 }]);
    let refused = away.publish(Envelope::trigger_device(nid(1))).await;
    assert_eq!(refused, Err(Refused::Ended));
    assert!(away.recv().await.is_none());
    held.acknowledge();
    let mut other = house.sm_sr().await;
    assert_eq!(next(&mut other).await, asked);
    assert!(at_once(&mut other).await.is_none());
    assert_eq!(device.mail(), [""; 0]);
}

#[tokio::test]
async fn a_voice_does_not_keep_its_server_alive() {
    let house = House::open().await;
    let sm_sr = house.sm_sr().await;
    let publisher = sm_sr.publisher();
    publisher.clone().publish(Envelope::trigger_device(nid(1))).await.unwrap();
    drop(sm_sr);
    let refused = publisher.publish(Envelope::trigger_device(nid(1))).await;
    assert_eq!(refused, Err(Refused::Ended));
    assert_eq!(house.service.broker().snapshot().sessions_connected, 0);
    assert_eq!(house.device(1).await.mail().len(), 1);
}

#[tokio::test]
async fn names_that_would_be_none_are_refused() {
    let house = House::open().await;
    for name in ["", "sm\0sr", "sm\nsr"] {
        assert_eq!(house.service.sm_sr(name).await.unwrap_err(), OpenError::BadName);
    }
    let long = "g".repeat(70_000);
    for group in ["", "a/b", "/", "+", "a#", "a\0", &long] {
        let refused = house.service.sm_sr_shared("sm-sr", group).await.unwrap_err();
        assert_eq!(refused, OpenError::BadGroup, "{group}");
    }
    assert_eq!(house.service.broker().snapshot().sessions_connected, 0);
}

#[tokio::test]
async fn servers_count_as_sessions_and_leave_none_behind() {
    let house = House::with(|config| config.limits.max_sessions = 1).await;
    let sm_sr = house.sm_sr().await;
    let refused = house.service.sm_sr("another").await.unwrap_err();
    assert_eq!(refused, OpenError::Rejected(Rejected::TooManySessions));
    drop(sm_sr);
    for _ in 0..3 {
        house.sm_sr().await.close();
    }
    let narrow = House::with(|config| {
        config.limits.max_sessions = 1;
        config.limits.max_subscription_bytes = 1;
    });
    let narrow = narrow.await;
    for _ in 0..2 {
        let refused = narrow.service.sm_sr("sm-sr").await.unwrap_err();
        assert_eq!(refused, OpenError::NotSubscribed(ReasonCode::QuotaExceeded));
    }
}

#[tokio::test]
async fn the_program_registers_and_removes_devices() {
    let house = House::open().await;
    let sm_sr = house.sm_sr().await;
    let letter = || Envelope::message_device(nid(9));
    let unknown = Err(Refused::ByRule(Refusal::UnknownNid));
    assert_eq!(sm_sr.publish(letter()).await, unknown);
    assert!(!house.service.broker().remove_device("rsp-server", nid(9)));
    assert!(house.service.broker().put_device("rsp-server", nid(9), &[gid(5)], "model=x").unwrap());
    assert!(!house.service.broker().put_device("rsp-server", nid(9), &[gid(6)], "").unwrap());
    sm_sr.publish(letter()).await.unwrap();
    sm_sr.publish(Envelope::message_group(gid(6))).await.unwrap();
    let left = sm_sr.publish(Envelope::message_group(gid(5))).await;
    assert_eq!(left, Err(Refused::ByRule(Refusal::UnknownGid)));
    let device = house.device(9).await;
    assert!(house.service.broker().remove_device("rsp-server", nid(9)) && device.is_sent_away());
    assert_eq!(device.mail(), [""; 0], "mail goes with its device");
    assert_eq!(sm_sr.publish(letter()).await, unknown);
    let too_many: Vec<_> = (1..=1000).map(gid).collect();
    let refused =
        house.service.broker().put_device("rsp-server", nid(9), &too_many, "").unwrap_err();
    assert!(matches!(refused, LineReason::TooManyGroups), "{refused:?}");
}

#[tokio::test]
async fn a_text_of_devices_is_taken_line_by_line() {
    let house = House::open().await;
    let sm_sr = house.sm_sr().await;
    let csv = format!("nid,gids,labels\n{},5,\nnonsense,,\n", nid(9));
    let report = house.service.broker().add_to_registry("rsp-server", &csv);
    assert_eq!((report.accepted, report.rejected), (1, 1));
    sm_sr.publish(Envelope::message_group(gid(5))).await.unwrap();
    sm_sr.publish(Envelope::message_group(gid(7))).await.unwrap();
    assert_eq!(house.device(9).await.mail().len(), 1);
}
