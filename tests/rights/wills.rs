//! A Will is checked when it is announced and when it is published.

use simcast::mqtt::ReasonCode;

use crate::common::{Denied, Dial};
use crate::{ONE, Stage, VERSIONS};

const ACL: &str = "\
user mortal
topic write will/#
topic deny will/not
user heir
topic read #
";

const REVOKED: &str = "\
user mortal
topic write other
user heir
topic read #
";

// case S5
#[tokio::test]
async fn a_will_that_may_not_be_published_refuses_the_connection() {
    let stage = Stage::start(ACL).await;
    let mut heir = stage.user("heir", Dial::v5("heir")).await;
    heir.subscribe("#", ONE).await;
    for version in VERSIONS {
        let dial = Dial::new(version, "m");
        for topic in ["will/not", "other"] {
            let denied = stage.try_user("mortal", dial.clone().will(topic, "x")).await.err();
            assert_eq!(denied, Some(Denied::ConnAck(ReasonCode::NotAuthorized)), "{topic}");
        }
        stage.user("mortal", dial.clone().will("will/m", "permitted")).await.vanish().await;
        assert_eq!(heir.expect_payload().await, "permitted");
        heir.expect_nothing().await;
    }
    assert_eq!(stage.denied("will").await, 4);
}

// case S5
#[tokio::test]
async fn a_will_that_may_no_longer_be_published_is_not() {
    let stage = Stage::start(ACL).await;
    let mut heir = stage.user("heir", Dial::v5("heir")).await;
    heir.subscribe("#", ONE).await;
    for (count, version) in (1..).zip(VERSIONS) {
        stage.change(ACL);
        let dial = Dial::new(version, "m").will("will/m", "x");
        let revoked = stage.user("mortal", dial.clone()).await;
        stage.change(REVOKED);
        revoked.vanish().await;
        heir.expect_nothing().await;
        assert_eq!(stage.denied("will").await, count);
        stage.change(ACL);
        stage.user("mortal", dial).await.vanish().await;
        assert_eq!(heir.expect_payload().await, "x");
    }
}

// case S5
#[tokio::test]
async fn a_will_that_waited_is_checked_when_it_is_due() {
    let stage = Stage::start(ACL).await;
    let mut heir = stage.user("heir", Dial::v5("heir")).await;
    heir.subscribe("#", ONE).await;
    let dial = |id| Dial::v5(id).persistent().will("will/m", id).will_delay_secs(1);
    stage.user("mortal", dial("denied")).await.vanish().await;
    stage.change(REVOKED);
    stage.rig.until_counter("simcast_acl_denied_total{action=\"will\"}", 1).await;
    heir.expect_nothing().await;
    stage.change(ACL);
    stage.user("mortal", dial("permitted")).await.vanish().await;
    assert_eq!(heir.expect_payload().await, "permitted");
}
