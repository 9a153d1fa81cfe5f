//! Mount points: the clients of a listener live below a topic, and know nothing of it.

use simcast::config::{Auth, Listener, Rsp};
use simcast::mqtt::{PublishProperties, ReasonCode, SubscribeOptions, Version};

use crate::common::{Client, Dial, Rig, TO_EUICC, TO_SM_SR, envelope, nid};
use crate::{ONE, TWO, ZERO};

/// Listeners 2 and 3 are mounted at `site1/` and `site2/`.
async fn rig() -> Rig {
    Rig::with(|config| {
        for mount_point in ["site1/", "site2/"] {
            let mount_point = mount_point.to_owned();
            let listener = Listener { mount_point, ..config.listeners[0].clone() };
            config.listeners.push(listener);
        }
    })
    .await
}

async fn at(rig: &Rig, site: usize, dial: Dial) -> Client {
    let address = rig.service.addresses()[site + 1].tcp().unwrap();
    Client::open(rig.tcp(address).await, &dial).await.expect("a connection")
}

#[tokio::test]
async fn topics_are_mounted_both_ways() {
    let rig = rig().await;
    for version in [Version::V311, Version::V5] {
        let mut outside = rig.client(Dial::new(version, "outside")).await;
        let mut one = at(&rig, 1, Dial::new(version, "one")).await;
        let mut also = at(&rig, 1, Dial::new(version, "also")).await;
        let mut two = at(&rig, 2, Dial::new(version, "two")).await;
        for client in [&mut outside, &mut one, &mut also, &mut two] {
            client.subscribe("#", TWO).await;
        }
        for qos in [ZERO, ONE, TWO] {
            for len in [1, 5000] {
                one.publish("a/b", "x".repeat(len), qos).await;
                for (client, topic) in
                    [(&mut outside, "site1/a/b"), (&mut one, "a/b"), (&mut also, "a/b")]
                {
                    let publish = client.expect_publish().await;
                    assert_eq!((&*publish.topic, publish.payload.len()), (topic, len));
                    assert_eq!(publish.qos, qos);
                }
            }
        }
        outside.publish("site2/c", "x", ONE).await;
        assert_eq!(&*two.expect_publish().await.topic, "c");
        assert_eq!(&*outside.expect_publish().await.topic, "site2/c");
        outside.publish("d", "x", ONE).await;
        assert_eq!(&*outside.expect_publish().await.topic, "d");
        for client in [outside, one, also, two] {
            let mut client = client;
            client.expect_nothing().await;
            client.disconnect().await;
        }
    }
}

#[tokio::test]
async fn retained_messages_and_wills_and_expiries_are_mounted() {
    let rig = rig().await;
    let mut outside = rig.client(Dial::v5("outside")).await;
    outside.subscribe("site1/#", ONE).await;
    let mut one = at(&rig, 1, Dial::v5("one").will("gone", "one").will_retained()).await;
    one.retain("state", "on").await;
    let hour = PublishProperties { message_expiry_secs: Some(3600), ..Default::default() };
    one.publish_with("hour", "x", ONE, true, Some(hour)).await;
    one.vanish().await;
    for topic in ["site1/state", "site1/hour", "site1/gone"] {
        assert_eq!(&*outside.expect_publish().await.topic, topic);
    }
    let mut also = at(&rig, 1, Dial::v5("also")).await;
    let options = SubscribeOptions { qos: ONE, ..SubscribeOptions::default() };
    also.subscribe_with(&[("+", options)], Some(7)).await;
    let mut topics: Vec<_> = Vec::new();
    for _ in 0..3 {
        let publish = also.expect_publish().await;
        assert!(publish.retain);
        assert_eq!(publish.properties.unwrap().subscription_ids[..], [7]);
        topics.push(publish.topic.to_string());
    }
    topics.sort();
    assert_eq!(topics, ["gone", "hour", "state"]);
    let mut two = at(&rig, 2, Dial::v5("two")).await;
    two.subscribe("#", ONE).await;
    two.expect_nothing().await;
}

#[tokio::test]
async fn shared_subscriptions_are_mounted_behind_their_group() {
    let rig = rig().await;
    let mut one = at(&rig, 1, Dial::v5("one")).await;
    let mut two = at(&rig, 2, Dial::v5("two")).await;
    let mut outside = rig.client(Dial::v5("outside")).await;
    for client in [&mut one, &mut two] {
        assert_eq!(client.subscribe("$share/g/jobs/#", ONE).await, ReasonCode::GrantedQoS1);
    }
    outside.subscribe("$share/g/site1/jobs/#", ONE).await;
    for number in 0..10 {
        outside.publish("site1/jobs/a", number.to_string(), ONE).await;
    }
    let of_one = one.arrived().await;
    let of_outside = outside.arrived().await;
    assert_eq!(of_one.len() + of_outside.len(), 10, "one group, whatever its members call it");
    assert!(of_one.iter().all(|publish| publish.topic == "jobs/a"));
    assert!(of_outside.iter().all(|publish| publish.topic == "site1/jobs/a"));
    two.expect_nothing().await;
    one.unsubscribe("$share/g/jobs/#").await;
    outside.unsubscribe("$share/g/site1/jobs/#").await;
    assert_eq!(two.unsubscribe("$share/g/jobs/#").await, Some(ReasonCode::Success));
    let unknown = Some(ReasonCode::NoSubscriptionExisted);
    assert_eq!(one.unsubscribe("$share/g/jobs/#").await, unknown);
    outside.publish("site1/jobs/a", "x", ONE).await;
    one.expect_nothing().await;
}

#[tokio::test]
async fn aliases_response_topics_and_sizes_are_of_the_clients_own_topics() {
    let rig = rig().await;
    let mut dial = Dial::v5("one");
    dial.0.properties.topic_alias_maximum = 5;
    let mut one = at(&rig, 1, dial).await;
    one.subscribe("#", ONE).await;
    let mut also = at(&rig, 1, Dial::v5("also")).await;
    let properties = PublishProperties {
        topic_alias: Some(1),
        response_topic: Some("answers".into()),
        ..PublishProperties::default()
    };
    also.publish_with("questions", "1", ONE, false, Some(properties.clone())).await;
    also.publish_with("", "2", ONE, false, Some(properties)).await;
    let first = one.expect_publish().await;
    assert_eq!(&*first.topic, "questions");
    let (alias, response) = first.properties.map(|p| (p.topic_alias, p.response_topic)).unwrap();
    assert_eq!(response.as_deref(), Some("answers"), "below the mount point for both");
    let second = one.expect_publish().await;
    assert_eq!((&*second.topic, &*second.payload), ("", &b"2"[..]));
    assert_eq!(second.properties.unwrap().topic_alias, alias);
    // A packet that fits because the mount point is not in it, and one byte too many (case Q18):
    // head 2, topic 2 + 1, id 2, no properties 1.
    let mut small = at(&rig, 1, Dial::v5("small").packet_bytes_max(50)).await;
    small.subscribe("s", ONE).await;
    also.publish("s", "x".repeat(43), ONE).await;
    also.publish("s", "y".repeat(42), ONE).await;
    assert_eq!(small.expect_payload().await, "y".repeat(42));
}

#[tokio::test]
async fn a_session_does_not_move_to_another_mount_point() {
    let rig = rig().await;
    let dial = || Dial::v5("traveller").persistent();
    let mut traveller = at(&rig, 1, dial()).await;
    traveller.subscribe("a", ONE).await;
    traveller.disconnect().await;
    rig.client(Dial::v5("p")).await.publish("site1/a", "for site 1", ONE).await;
    let mut same = at(&rig, 1, dial()).await;
    assert!(same.session_present());
    assert_eq!(same.expect_payload().await, "for site 1");
    same.disconnect().await;
    rig.client(Dial::v5("p")).await.publish("site1/a", "again", ONE).await;
    for other in [2, 0] {
        let address =
            [rig.plain, rig.service.addresses()[3].tcp().unwrap()][usize::from(other > 0)];
        let mut moved = Client::open(rig.tcp(address).await, &dial()).await.unwrap();
        assert!(!moved.session_present(), "another session");
        moved.expect_nothing().await;
        moved.subscribe("b", ONE).await;
        moved.disconnect().await;
    }
}

#[tokio::test]
async fn what_is_addressed_is_not_mounted() {
    let change = |listener: &mut Listener| listener.mount_point = "site1/".to_owned();
    let rig = Rig::with_secure_listener(change).await;
    let mut server = rig.server(Dial::v5("sm-sr")).await;
    server.subscribe(TO_SM_SR, ONE).await;
    let issued = rig.authority.issue_device(nid(1)).unwrap();
    let stream = rig.handshake_at(rig.extra(), Some(&issued)).await.unwrap();
    let mut device = Client::open(stream, &Dial::v5("device")).await.unwrap();
    assert_eq!(device.subscribe(TO_EUICC, ONE).await, ReasonCode::GrantedQoS1);
    server.publish(TO_EUICC, envelope(1, 0, "trigger"), ONE).await;
    assert_eq!(&*device.expect_publish().await.topic, TO_EUICC);
    assert!(device.publish(TO_SM_SR, envelope(1, 0, "ret(trigger)"), ONE).await.is_ok());
    assert_eq!(&*server.expect_publish().await.topic, TO_SM_SR);
    device.publish("ordinary", "x", ONE).await;
    server.expect_nothing().await;
    // Nobody publishes to what is the broker's, mounted or not.
    let answer = device.publish("$SYS/broker/uptime", "x", ONE).await;
    assert_eq!(answer.reason, ReasonCode::NotAuthorized);
}

/// What the control unit has not seen must not look as if it had: below the mount point of somebody
/// else, the two topics and the broker's own are ordinary names.
#[tokio::test]
async fn nothing_mounted_looks_like_what_is_addressed_or_the_brokers_own() {
    let change = |listener: &mut Listener| listener.mount_point = "site1/".to_owned();
    let rig = Rig::with_secure_listener(change).await;
    let issued = [
        rig.authority.issue_device(nid(1)).unwrap(),
        rig.authority.issue_server("sm-sr.test").unwrap(),
    ];
    let mut outside = rig.client(Dial::v5("outside")).await;
    for (version, issued) in [(Version::V311, &issued[0]), (Version::V5, &issued[1])] {
        let stream = rig.handshake_at(rig.extra(), Some(issued)).await.unwrap();
        let mut victim = Client::open(stream, &Dial::new(version, "victim")).await.unwrap();
        assert!(!victim.subscribe("#", ONE).await.is_error());
        for topic in [TO_EUICC, TO_SM_SR, "$SYS/broker/version", "$share/g/x"] {
            let forged = envelope(1, 0, "trigger");
            assert!(outside.publish(&format!("site1/{topic}"), forged, ONE).await.is_ok());
        }
        outside.publish("site1/end", "x", ONE).await;
        assert_eq!(&*victim.expect_publish().await.topic, "end", "forged mail came first");
        victim.expect_nothing().await;
        victim.disconnect().await;
    }
}

#[tokio::test]
async fn rights_are_given_to_whole_topics() {
    let dir = tempfile::tempdir().unwrap();
    let acl = dir.path().join("acl");
    std::fs::write(&acl, "topic readwrite site1/open/#\ntopic read $SYS/#\n").unwrap();
    let rig = Rig::with_listener(|listener| {
        listener.mount_point = "site1/".to_owned();
        let acl_file = Some(acl.clone());
        listener.auth = Some(Auth { acl_file, ..Auth::default() });
    })
    .await;
    let mut one = Client::open(rig.tcp(rig.extra()).await, &Dial::v5("one")).await.unwrap();
    one.subscribe("#", ONE).await;
    assert!(one.publish("open/a", "x", ONE).await.is_ok());
    assert_eq!(&*one.expect_publish().await.topic, "open/a");
    assert_eq!(one.publish("a", "x", ONE).await.reason, ReasonCode::NotAuthorized);
    let answer = one.publish("site1/open/a", "x", ONE).await;
    assert_eq!(answer.reason, ReasonCode::NotAuthorized, "it is site1/site1/open/a");
    assert_eq!(one.subscribe("$SYS/broker/version", ZERO).await, ReasonCode::Success);
    assert!(one.subscribe("$other/#", ZERO).await.is_error());
    assert_eq!(&*one.expect_publish().await.topic, "$SYS/broker/version", "not mounted");
    one.expect_nothing().await;
}

#[tokio::test]
async fn names_that_do_not_exist_below_the_mount_point_are_not_delivered() {
    let rig = rig().await;
    let mut one = at(&rig, 1, Dial::v5("one")).await;
    one.subscribe("#", ONE).await;
    let mut outside = rig.client(Dial::v5("outside")).await;
    for topic in ["site1", "site1/", "site1/x"] {
        outside.publish(topic, topic, ONE).await;
    }
    let arrived = one.arrived().await;
    let topics: Vec<&str> = arrived.iter().map(|publish| &*publish.topic).collect();
    assert_eq!(topics, ["x"]);
    let dropped = "simcast_messages_dropped_total{reason=\"outside_mount_point\"}";
    assert_eq!(rig.counter(dropped).await, 2);
}

#[tokio::test]
async fn a_topic_that_is_too_long_with_its_mount_point_is_refused() {
    let rig = rig().await;
    let mut one = at(&rig, 1, Dial::v5("one")).await;
    let fits = "x".repeat(65_535 - 6);
    let too_long = "x".repeat(65_535 - 5);
    assert!(one.publish(&fits, "x", ONE).await.is_ok());
    assert_eq!(one.publish(&too_long, "x", ONE).await.reason, ReasonCode::TopicNameInvalid);
    assert_eq!(one.subscribe(&fits, ONE).await, ReasonCode::GrantedQoS1);
    assert_eq!(one.subscribe(&too_long, ONE).await, ReasonCode::TopicFilterInvalid);
}

#[test]
fn a_mount_point_is_whole_levels_and_no_way_to_the_rsp_topics() {
    let problems = |mount_point: &str| {
        let listener = Listener {
            mount_point: mount_point.to_owned(),
            ..Listener::anonymous(([127, 0, 0, 1], 1883).into())
        };
        let rsp = Rsp { to_euicc: "rsp/down".to_owned(), ..Rsp::default() };
        let listeners = vec![listener];
        simcast::config::Config { listeners, rsp, ..Default::default() }.validate().is_err()
    };
    for wrong in ["site", "a+/", "#/", "$SYS/", "$x/", "rsp/"] {
        assert!(problems(wrong), "{wrong}");
    }
    for right in ["", "site/", "a/b/c/", "/"] {
        assert!(!problems(right), "{right}");
    }
}
