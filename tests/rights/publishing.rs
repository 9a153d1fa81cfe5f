//! Who may publish.

use simcast::config::DropOrDisconnect;
use simcast::mqtt::{QoS, ReasonCode, Version};

use crate::common::{Dial, TO_EUICC, TO_SM_SR, envelope};
use crate::{ONE, QOS, Stage, VERSIONS, denial};

const ACL: &str = "\
topic read open/#
user writer
topic write open/#
topic deny open/safe
topic write #
user reader
topic read #
";

#[tokio::test]
async fn a_denied_message_is_answered_counted_and_dropped() {
    let stage = Stage::start(ACL).await;
    let mut reader = stage.user("reader", Dial::v5("r")).await;
    assert_eq!(reader.subscribe("#", QoS::ExactlyOnce).await, ReasonCode::GrantedQoS2);
    let mut denied = 0;
    for version in VERSIONS {
        let mut writer = stage.user("writer", Dial::new(version, "w")).await;
        let mut nobody = stage.rig.client(Dial::new(version, "n")).await;
        for qos in QOS {
            let answer = writer.publish("open/door", "yes", qos).await;
            assert!(answer.is_ok());
            assert_eq!(reader.expect_payload().await, "yes");
            for topic in ["open/safe", "open/door", "x"] {
                let client = if topic == "open/safe" { &mut writer } else { &mut nobody };
                let answer = client.publish(topic, "no", qos).await;
                denied += 1;
                if qos == QoS::AtMostOnce {
                    continue;
                }
                assert_eq!(answer.reason, denial(version), "{version:?} {qos:?} {topic}");
                let text = (version == Version::V5).then_some("not permitted by the ACL");
                assert_eq!(answer.text.as_deref(), text);
            }
        }
        // The connection is as good as before.
        writer.publish("open/door", "still", ONE).await;
        assert_eq!(reader.expect_payload().await, "still");
    }
    reader.expect_nothing().await;
    assert_eq!(stage.denied("publish").await, denied);
}

#[tokio::test]
async fn a_client_of_3_is_disconnected_for_it_where_the_configuration_says_so() {
    let disconnect = |config: &mut simcast::config::Config| {
        config.mqtt.denied_publish = DropOrDisconnect::Disconnect;
    };
    let stage = Stage::with(ACL, disconnect).await;
    let mut reader = stage.user("reader", Dial::v5("r")).await;
    reader.subscribe("#", ONE).await;
    let mut old = stage.rig.client(Dial::v311("old")).await;
    old.throw("x", "no").await;
    assert_eq!(old.expect_closed().await, None);
    let mut new = stage.rig.client(Dial::v5("new")).await;
    assert_eq!(new.publish("x", "no", ONE).await.reason, ReasonCode::NotAuthorized);
    new.ping().await;
    let mut writer = stage.user("writer", Dial::v311("w")).await;
    writer.publish("x", "yes", ONE).await;
    assert_eq!(reader.expect_payload().await, "yes");
    reader.expect_nothing().await;
    let counter = "simcast_disconnects_total{reason=\"not_authorized\"}";
    assert_eq!(stage.rig.counter(counter).await, 1);
}

// case P15
#[tokio::test]
async fn a_grant_of_everything_is_none_of_dollar_topics() {
    let stage = Stage::start("topic #\nuser sys\ntopic $SYS/#\n").await;
    for version in VERSIONS {
        let mut anybody = stage.rig.client(Dial::new(version, "a")).await;
        let mut sys = stage.user("sys", Dial::new(version, "s")).await;
        assert!(!anybody.subscribe("#", ONE).await.is_error());
        for filter in ["$SYS/#", "$SYS/broker/uptime", "$foo", "$share/g/$SYS/#"] {
            let reason = anybody.subscribe(filter, ONE).await;
            assert_eq!(reason, crate::filter_denial(version), "{filter}");
        }
        assert!(!sys.subscribe("$SYS/broker/+/nothing", ONE).await.is_error());
        assert!(sys.subscribe("#", ONE).await.is_error(), "nothing of it may be read");
        for topic in ["$SYS/broker/uptime", "$CONTROL/x", "$share/g/x"] {
            let answer = sys.publish(topic, "x", ONE).await;
            assert_eq!(answer.reason, denial(version), "{topic}: not even with a grant");
        }
        assert!(anybody.publish("x", "x", ONE).await.is_ok());
        assert_eq!(anybody.expect_payload().await, "x");
        sys.expect_nothing().await;
    }
}

#[tokio::test]
async fn the_two_provisioning_topics_are_the_control_units_alone() {
    let stage = Stage::start("# Nobody may do anything.\n").await;
    let rig = &stage.rig;
    let mut server = rig.server(Dial::v5("server")).await;
    assert!(!server.subscribe(TO_SM_SR, ONE).await.is_error());
    for version in VERSIONS {
        let mut device = rig.reader(1, Dial::new(version, "d")).await;
        assert!(server.publish(TO_EUICC, envelope(1, 0, "trigger"), ONE).await.is_ok());
        assert!(device.expect_payload().await.contains("trigger"));
        let answer = device.publish(TO_SM_SR, envelope(1, 0, "ret(trigger)"), ONE).await;
        assert!(answer.is_ok());
        assert!(server.expect_payload().await.contains("ret(trigger)"));
        assert_eq!(device.publish("news", "x", ONE).await.reason, denial(version));
        assert!(device.subscribe("news", ONE).await.is_error());
        device.disconnect().await;
    }
}
