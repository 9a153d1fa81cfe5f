//! Who may subscribe, and what a subscription wider than the rights is worth.

use simcast::config::WiderSubscription;
use simcast::mqtt::{QoS, ReasonCode};

use crate::common::{Client, Dial};
use crate::{ONE, QOS, Stage, VERSIONS, filter_denial};

const ACL: &str = "\
user author
topic write #
user narrow
topic read news/#
topic deny news/secret
topic readwrite desk/narrow
";

async fn publish_all(author: &mut Client) {
    for topic in ["other", "news", "news/secret", "news/a", "desk/narrow", "desk/other"] {
        assert!(author.publish(topic, topic, ONE).await.is_ok());
    }
}

// case S4
#[tokio::test]
async fn a_wider_subscription_gets_what_may_be_read() {
    let stage = Stage::start(ACL).await;
    let mut author = stage.user("author", Dial::v5("author")).await;
    for version in VERSIONS {
        for qos in QOS {
            let before = stage.denied("deliver").await;
            let mut all = stage.user("narrow", Dial::new(version, "all")).await;
            assert!(!all.subscribe("#", qos).await.is_error());
            // What is covered is not held up by what is not.
            let mut own = stage.user("narrow", Dial::new(version, "own")).await;
            assert!(!own.subscribe("desk/narrow", qos).await.is_error());
            publish_all(&mut author).await;
            assert_eq!(all.expect_payloads(3).await, ["news", "news/a", "desk/narrow"]);
            all.expect_nothing().await;
            assert_eq!(own.expect_payload().await, "desk/narrow");
            own.expect_nothing().await;
            assert_eq!(stage.denied("deliver").await - before, 3);
            all.disconnect().await;
            own.disconnect().await;
        }
    }
}

#[tokio::test]
async fn a_subscription_without_anything_to_read_is_refused() {
    let stage = Stage::start(ACL).await;
    let mut author = stage.user("author", Dial::v5("author")).await;
    for version in VERSIONS {
        let before = stage.denied("subscribe").await;
        let mut narrow = stage.user("narrow", Dial::new(version, "narrow")).await;
        let mut nobody = stage.rig.client(Dial::new(version, "nobody")).await;
        for filter in ["other", "news/secret", "desk/other", "desk/+/x", "other/#"] {
            assert_eq!(narrow.subscribe(filter, ONE).await, filter_denial(version), "{filter}");
        }
        for filter in ["#", "news/a"] {
            assert_eq!(nobody.subscribe(filter, ONE).await, filter_denial(version));
            let reason = author.subscribe(filter, ONE).await;
            assert_eq!(reason, ReasonCode::NotAuthorized, "it may write, not read");
        }
        assert_eq!(stage.denied("subscribe").await - before, 9);
        publish_all(&mut author).await;
        for client in [&mut narrow, &mut nobody, &mut author] {
            client.expect_nothing().await;
        }
        assert_eq!(narrow.subscribe("news/a", ONE).await, ReasonCode::GrantedQoS1);
        publish_all(&mut author).await;
        assert_eq!(narrow.expect_payload().await, "news/a");
        narrow.expect_nothing().await;
        narrow.disconnect().await;
        nobody.disconnect().await;
    }
}

// case S4
#[tokio::test]
async fn a_wider_subscription_is_refused_where_the_configuration_says_so() {
    let deny = |config: &mut simcast::config::Config| {
        config.auth.subscribe = WiderSubscription::Deny;
    };
    let stage = Stage::with(ACL, deny).await;
    let mut author = stage.user("author", Dial::v5("author")).await;
    for version in VERSIONS {
        let mut narrow = stage.user("narrow", Dial::new(version, "narrow")).await;
        for filter in ["#", "news/#", "+/a", "desk/+", "$share/g/#", "$share/g/desk/+"] {
            // Before version 5 a filter with $share is one like any other, and grants nothing here.
            assert_eq!(narrow.subscribe(filter, ONE).await, filter_denial(version), "{filter}");
        }
        assert!(!narrow.subscribe("desk/narrow", ONE).await.is_error());
        assert!(!narrow.subscribe("news/a/+", ONE).await.is_error());
        publish_all(&mut author).await;
        assert_eq!(narrow.expect_payload().await, "desk/narrow");
        narrow.expect_nothing().await;
        narrow.disconnect().await;
    }
}

// case S4
#[tokio::test]
async fn every_subscription_is_granted_and_filtered_where_the_configuration_says_so() {
    let grant = |config: &mut simcast::config::Config| {
        config.auth.subscribe = WiderSubscription::Grant;
    };
    let stage = Stage::with(ACL, grant).await;
    let mut author = stage.user("author", Dial::v5("author")).await;
    for version in VERSIONS {
        let mut narrow = stage.user("narrow", Dial::new(version, "narrow")).await;
        for filter in ["other/#", "#"] {
            assert_eq!(narrow.subscribe(filter, ONE).await, ReasonCode::GrantedQoS1, "{filter}");
        }
        publish_all(&mut author).await;
        let mut seen = narrow.arrived().await;
        seen.sort_by(|a, b| a.topic.cmp(&b.topic));
        let topics: Vec<&str> = seen.iter().map(|publish| &*publish.topic).collect();
        assert_eq!(topics, ["desk/narrow", "news", "news/a"], "{version:?}");
        narrow.disconnect().await;
    }
}

// case S4
#[tokio::test]
async fn a_shared_message_goes_to_a_member_that_may_read_it() {
    let stage = Stage::start(ACL).await;
    // `wide` may read what `narrow` may not.
    stage.change(&format!("{ACL}user wide\ntopic read desk/#\ntopic read other\n"));
    let mut author = stage.user("author", Dial::v5("author")).await;
    let mut narrow = stage.user("narrow", Dial::v5("narrow")).await;
    let mut wide = stage.user("wide", Dial::v5("wide")).await;
    for client in [&mut narrow, &mut wide] {
        assert!(!client.subscribe("$share/g/#", QoS::ExactlyOnce).await.is_error());
    }
    for round in 0..6 {
        publish_all(&mut author).await;
        let mut got = Vec::new();
        for client in [&mut narrow, &mut wide] {
            got.push(client.arrived().await.into_iter().map(|m| m.topic.to_string()));
        }
        let [narrow, wide] = <[_; 2]>::try_from(got).ok().unwrap().map(Vec::from_iter);
        let for_narrow_alone = ["news", "news/a"];
        let for_wide_alone = ["other", "desk/other"];
        assert!(for_narrow_alone.iter().all(|t| narrow.contains(&(*t).to_owned())), "{round}");
        assert!(for_wide_alone.iter().all(|t| wide.contains(&(*t).to_owned())), "{round}");
        let both = "desk/narrow".to_owned();
        assert!(narrow.contains(&both) != wide.contains(&both), "one of them: {round}");
        assert_eq!(narrow.len() + wide.len(), 5, "news/secret is for nobody");
    }
    // With nobody left who may read it, it waits for nobody.
    wide.disconnect().await;
    author.publish("other", "lost", ONE).await;
    narrow.expect_nothing().await;
}

// case S4
#[tokio::test]
async fn a_shared_message_waits_for_a_member_that_may_read_it() {
    let acl = "user author\ntopic write #\nuser narrow\ntopic read a\nuser wide\ntopic read b\n";
    let stage = Stage::start(acl).await;
    let mut author = stage.user("author", Dial::v5("author")).await;
    let mut narrow = stage.user("narrow", Dial::v5("narrow")).await;
    let away = Dial::v5("wide").persistent();
    let mut wide = stage.user("wide", away.clone()).await;
    for client in [&mut narrow, &mut wide] {
        assert!(!client.subscribe("$share/g/#", ONE).await.is_error());
    }
    wide.disconnect().await;
    for text in ["1", "2", "3"] {
        author.publish("b", text, ONE).await;
    }
    narrow.expect_nothing().await;
    let mut wide = stage.user("wide", away).await;
    assert_eq!(wide.expect_payloads(3).await, ["1", "2", "3"]);
    assert_eq!(stage.denied("deliver").await, 0);
}
