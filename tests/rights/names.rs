//! Names that peers choose, in patterns.

use simcast::mqtt::ReasonCode;

use crate::common::Dial;
use crate::{ONE, Stage, VERSIONS, denial, filter_denial};

const ACL: &str = "\
user watch
topic read #
topic read $SYS/#
pattern readwrite dev/%c/#
pattern readwrite user/%u/#
pattern read %c/#
";

#[tokio::test]
async fn a_client_has_its_own_place_and_no_other() {
    let stage = Stage::start(ACL).await;
    let mut watch = stage.user("watch", Dial::v5("watch")).await;
    watch.subscribe("#", ONE).await;
    for version in VERSIONS {
        let mut one = stage.user("ann", Dial::new(version, "c1")).await;
        let mut other = stage.user("bob", Dial::new(version, "c2")).await;
        for client in [&mut one, &mut other] {
            client.subscribe("dev/#", ONE).await;
            client.subscribe("user/#", ONE).await;
        }
        for (topic, permitted) in [
            ("dev/c1/up", true),
            ("user/ann/up", true),
            ("dev/c2/up", false),
            ("user/bob/up", false),
            ("dev/c11/up", false),
            ("dev", false),
        ] {
            let answer = one.publish(topic, topic, ONE).await;
            if !permitted {
                assert_eq!(answer.reason, denial(version), "{topic}");
                continue;
            }
            assert!(answer.is_ok());
            assert_eq!(watch.expect_payload().await, topic);
            assert_eq!(one.expect_payload().await, topic);
        }
        one.expect_nothing().await;
        other.expect_nothing().await;
        watch.expect_nothing().await;
        one.disconnect().await;
        other.disconnect().await;
    }
}

// cases S1, S2
#[tokio::test]
async fn no_client_id_opens_another_place() {
    let stage = Stage::start(ACL).await;
    let mut victim = stage.user("victim", Dial::v5("victim")).await;
    assert!(!victim.subscribe("dev/victim/#", ONE).await.is_error());
    for version in VERSIONS {
        for id in ["+", "#", "victim/x", "+/x", "victim/#", "a+", "$SYS", "/", ".*", "victi?"] {
            let mut client = stage.rig.client(Dial::new(version, id)).await;
            for filter in ["dev/victim/#", "dev/victim/x", "$SYS/#", "victim/#"] {
                let reason = client.subscribe(filter, ONE).await;
                assert_eq!(reason, filter_denial(version), "{id}: {filter}");
            }
            for topic in ["dev/victim/x", "dev", "user/victim/x"] {
                let answer = client.publish(topic, id, ONE).await;
                assert_eq!(answer.reason, denial(version), "{id}: {topic}");
            }
            client.disconnect().await;
        }
    }
    victim.expect_nothing().await;
    assert!(victim.publish("dev/victim/x", "own", ONE).await.is_ok());
    assert_eq!(victim.expect_payload().await, "own");
}

// case S3
#[tokio::test]
async fn no_certificate_opens_another_place() {
    let stage = Stage::start(ACL).await;
    let mut victim = stage.user("victim", Dial::v5("v")).await;
    assert_eq!(victim.subscribe("user/victim/#", ONE).await, ReasonCode::GrantedQoS1);
    for version in VERSIONS {
        for name in ["+", "#", "victim/x", "victim/#", "$SYS", "%c", "victi."] {
            let mut client = stage.user(name, Dial::new(version, "victim2")).await;
            for filter in ["user/victim/#", "user/victim/x", "$SYS/#"] {
                let reason = client.subscribe(filter, ONE).await;
                assert_eq!(reason, filter_denial(version), "{name}: {filter}");
            }
            let answer = client.publish("user/victim/x", name, ONE).await;
            assert_eq!(answer.reason, denial(version), "{name}");
            client.disconnect().await;
        }
    }
    assert!(victim.publish("user/victim/x", "own", ONE).await.is_ok());
    assert_eq!(victim.expect_payload().await, "own");
    victim.expect_nothing().await;
}
