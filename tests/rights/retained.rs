//! Retained messages: who is served, and whose.

use simcast::mqtt::QoS;

use crate::common::Dial;
use crate::{ONE, Stage, VERSIONS, denial};

const ACL: &str = "\
topic read +/open
topic write anonymous/open
user author
topic write +/open
topic write +/closed
user all
topic read #
";

#[tokio::test]
async fn a_subscriber_is_served_what_it_may_read() {
    let stage = Stage::start(ACL).await;
    let mut author = stage.user("author", Dial::v5("author")).await;
    for topic in ["x/open", "x/closed"] {
        assert!(author.retain(topic, topic).await.is_ok());
    }
    for version in VERSIONS {
        let before = stage.denied("retained").await;
        let mut some = stage.rig.client(Dial::new(version, "some")).await;
        assert!(!some.subscribe("#", ONE).await.is_error());
        assert_eq!(some.expect_payload().await, "x/open");
        some.expect_nothing().await;
        let mut all = stage.user("all", Dial::new(version, "all")).await;
        assert!(!all.subscribe("#", ONE).await.is_error());
        let mut served = all.expect_payloads(2).await;
        served.sort();
        assert_eq!(served, ["x/closed", "x/open"]);
        assert_eq!(stage.denied("retained").await - before, 1);
        some.disconnect().await;
        all.disconnect().await;
    }
}

// case S8
#[tokio::test]
async fn what_its_publisher_may_no_longer_publish_is_not_served() {
    let stage = Stage::start(ACL).await;
    let mut author = stage.user("author", Dial::v5("author")).await;
    author.retain("author/open", "author").await;
    // The publisher need not be there any more.
    author.disconnect().await;
    let mut anonymous = stage.rig.client(Dial::v5("anonymous")).await;
    anonymous.retain("anonymous/open", "anonymous").await;
    for version in VERSIONS {
        stage.change(ACL);
        let dial = Dial::new(version, "all");
        let mut all = stage.user("all", dial.clone()).await;
        all.subscribe("+/open", ONE).await;
        let mut served = all.expect_payloads(2).await;
        served.sort();
        assert_eq!(served, ["anonymous", "author"]);
        stage.change(&ACL.replace("topic write +/open\n", ""));
        all.subscribe("+/open", ONE).await;
        assert_eq!(all.expect_payload().await, "anonymous");
        all.expect_nothing().await;
        // It is not gone: with the right it is served again.
        stage.change(ACL);
        all.subscribe("author/open", ONE).await;
        assert_eq!(all.expect_payload().await, "author");
        all.disconnect().await;
    }
    assert_eq!(stage.denied("retained").await, 2);
}

#[tokio::test]
async fn a_denied_message_changes_nothing_that_is_retained() {
    let stage = Stage::start(ACL).await;
    let mut author = stage.user("author", Dial::v5("author")).await;
    author.retain("x/closed", "old").await;
    let mut all = stage.user("all", Dial::v5("all")).await;
    for version in VERSIONS {
        let mut anonymous = stage.rig.client(Dial::new(version, "anonymous")).await;
        for payload in ["new", ""] {
            let answer = anonymous.retain("x/closed", payload).await;
            assert_eq!(answer.reason, denial(version));
        }
        all.subscribe("x/closed", QoS::ExactlyOnce).await;
        assert_eq!(all.expect_payload().await, "old");
        all.expect_nothing().await;
        anonymous.disconnect().await;
    }
    assert!(author.retain("x/closed", "").await.is_ok());
    let emptied = all.expect_publish().await;
    assert!(emptied.payload.is_empty());
    all.subscribe("x/closed", ONE).await;
    all.expect_nothing().await;
}
