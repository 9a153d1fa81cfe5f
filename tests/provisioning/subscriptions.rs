//! Who may subscribe to what (section 4).

use simcast::mqtt::{QoS, ReasonCode, Version};

use crate::common::{Dial, Rig, TO_EUICC, TO_SM_SR, envelope};
use crate::stage::{A, SERVER, SNOOP, STRANGER, Stage};

#[tokio::test]
async fn what_nobody_may_subscribe_to() {
    let denied = [
        (A, TO_SM_SR, "subscription_not_permitted"),
        (A, "$share/g/To_SM-SR", "subscription_not_permitted"),
        (A, "$share/g/To_eUICC", "subscription_not_permitted"),
        (SERVER, TO_EUICC, "subscription_not_permitted"),
        (SERVER, "$share/g/To_eUICC", "subscription_not_permitted"),
        (SNOOP, TO_EUICC, "role_not_permitted"),
        (SNOOP, TO_SM_SR, "role_not_permitted"),
        (SNOOP, "$share/g/To_eUICC", "role_not_permitted"),
        (SNOOP, "$share/g/To_SM-SR", "role_not_permitted"),
        (STRANGER, TO_EUICC, "not_registered"),
    ];
    for version in [Version::V311, Version::V5] {
        let mut stage = Stage::start(version).await;
        for (who, filter, name) in denied {
            let before = stage.rig.refusals(name).await;
            let options = simcast::mqtt::SubscribeOptions::default();
            let ack = stage.client(who).subscribe_with(&[(filter, options)], None).await;
            let (reason, text) = match version {
                Version::V5 => (ReasonCode::NotAuthorized, Some(name)),
                _ => (ReasonCode::UnspecifiedError, None),
            };
            assert_eq!(ack.reasons[..], [reason], "{who} {filter}");
            let told = ack.properties.as_ref().and_then(|p| p.reason_string.as_deref());
            assert_eq!(told, text, "{who} {filter}");
            assert_eq!(stage.rig.refusals(name).await, before + 1, "{who} {filter}");
        }
        // What was refused has no effect.
        stage.step(SERVER, &envelope(1, 0, "trigger"), &[A]).await;
        stage.step(A, &envelope(1, 0, "trigger"), &[SERVER]).await;
    }
}

#[tokio::test]
async fn one_refused_filter_leaves_its_neighbours_alone() {
    let rig = Rig::start().await;
    let mut device = rig.device(1, Dial::v5("d")).await;
    let at_least_once = simcast::mqtt::SubscribeOptions {
        qos: QoS::AtLeastOnce,
        ..simcast::mqtt::SubscribeOptions::default()
    };
    let filters = [(TO_SM_SR, at_least_once), ("news", at_least_once), (TO_EUICC, at_least_once)];
    let ack = device.subscribe_with(&filters, None).await;
    assert_eq!(
        ack.reasons[..],
        [ReasonCode::NotAuthorized, ReasonCode::GrantedQoS1, ReasonCode::GrantedQoS1]
    );
}

#[tokio::test]
async fn a_device_subscribes_at_any_qos() {
    let rig = Rig::start().await;
    let mut server = rig.server(Dial::v5("s")).await;
    let mut device = rig.device(1, Dial::v5("d")).await;
    for (qos, granted) in [
        (QoS::AtMostOnce, ReasonCode::Success),
        (QoS::AtLeastOnce, ReasonCode::GrantedQoS1),
        (QoS::ExactlyOnce, ReasonCode::GrantedQoS2),
    ] {
        assert_eq!(device.subscribe(TO_EUICC, qos).await, granted);
        server.publish(TO_EUICC, envelope(1, 0, "trigger"), QoS::ExactlyOnce).await;
        assert_eq!(device.expect_publish().await.qos, qos);
        device.expect_nothing().await;
    }
}

#[tokio::test]
async fn who_unsubscribes_gets_no_more_and_the_mail_waits() {
    let rig = Rig::start().await;
    let mut server = rig.server(Dial::v5("s")).await;
    let mut device = rig.reader(1, Dial::v5("d")).await;
    assert_eq!(device.unsubscribe(TO_EUICC).await, Some(ReasonCode::Success));
    assert_eq!(device.unsubscribe(TO_EUICC).await, Some(ReasonCode::NoSubscriptionExisted));
    server.publish(TO_EUICC, envelope(1, 0, "trigger"), QoS::AtLeastOnce).await;
    device.expect_nothing().await;
    device.subscribe(TO_EUICC, QoS::AtLeastOnce).await;
    assert_eq!(device.expect_payload().await, envelope(1, 0, "trigger"));
    device.expect_nothing().await;
}

#[tokio::test]
async fn servers_in_a_share_group_divide_the_work_and_others_get_a_copy() {
    let rig = Rig::start().await;
    let mut sharers = Vec::new();
    for id in ["s1", "s2"] {
        let mut server = rig.server(Dial::v5(id)).await;
        let granted = server.subscribe("$share/g/To_SM-SR", QoS::AtLeastOnce).await;
        assert_eq!(granted, ReasonCode::GrantedQoS1);
        sharers.push(server);
    }
    let mut alone = rig.server(Dial::v5("s3")).await;
    alone.subscribe(TO_SM_SR, QoS::AtLeastOnce).await;
    let mut device = rig.device(1, Dial::v5("d")).await;
    for _ in 0..10 {
        device.publish(TO_SM_SR, envelope(1, 0, "trigger"), QoS::AtLeastOnce).await;
    }
    assert_eq!(alone.arrived().await.len(), 10);
    let mut shared = 0;
    for server in &mut sharers {
        shared += server.arrived().await.len();
    }
    assert_eq!(shared, 10, "each message goes to one of the two");
}

#[tokio::test]
async fn a_subscription_identifier_stands_on_the_mail() {
    let rig = Rig::start().await;
    let mut server = rig.server(Dial::v5("s")).await;
    let mut device = rig.device(1, Dial::v5("d")).await;
    let options = simcast::mqtt::SubscribeOptions::default();
    device.subscribe_with(&[(TO_EUICC, options)], Some(77)).await;
    server.publish(TO_EUICC, envelope(1, 0, "trigger"), QoS::AtLeastOnce).await;
    let publish = device.expect_publish().await;
    assert_eq!(publish.properties.unwrap().subscription_ids[..], [77]);
}

#[tokio::test]
async fn the_topics_may_have_other_names() {
    let rig = Rig::with(|config| {
        config.rsp.to_euicc = "fleet/down".to_owned();
        config.rsp.to_sm_sr = "fleet/up".to_owned();
    })
    .await;
    let mut snoop = rig.client(Dial::v5("snoop")).await;
    for filter in ["#", "fleet/+", "fleet/#", "+/down", TO_EUICC] {
        assert!(!snoop.subscribe(filter, QoS::AtLeastOnce).await.is_error());
    }
    assert_eq!(snoop.subscribe("fleet/down", QoS::AtLeastOnce).await, ReasonCode::NotAuthorized);
    let mut server = rig.server(Dial::v5("s")).await;
    let mut device = rig.device(1, Dial::v5("d")).await;
    assert!(!device.subscribe("fleet/down", QoS::AtLeastOnce).await.is_error());
    assert!(
        server.publish("fleet/down", envelope(1, 0, "trigger"), QoS::AtLeastOnce).await.is_ok()
    );
    assert_eq!(device.expect_payload().await, envelope(1, 0, "trigger"));
    snoop.expect_nothing().await;
}
