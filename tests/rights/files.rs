//! ACL files: broken ones, and one for each listener.

use simcast::config::{Auth, Config};
use simcast::mqtt::ReasonCode;
use simcast::service::{FileError, Service, StartError};

use crate::common::{Dial, Rig};
use crate::{ONE, Stage, VERSIONS, filter_denial};

const ACL: &str = "topic a\n";

// case S10
#[tokio::test]
async fn a_file_that_is_not_in_order_changes_nothing() {
    let stage = Stage::start(ACL).await;
    let mut client = stage.rig.client(Dial::v5("c")).await;
    let broken = |error: FileError| error.to_string();
    let path = stage.acl_file().display().to_string();
    for (text, complaint) in [
        ("topic b\ntopik a\n", format!("{path}:2: begins with \"topik\"")),
        ("topic b\ntopic a#\n\nuser", format!("{path}:2: the topic filter has # elsewhere")),
        ("", format!("{path}: is empty")),
        (" \r\n\n", format!("{path}: is empty")),
    ] {
        let error = broken(stage.try_change(text).unwrap_err());
        assert!(error.starts_with(&complaint), "{error}");
        assert!(client.publish("a", "x", ONE).await.is_ok());
        assert_eq!(client.publish("b", "x", ONE).await.reason, ReasonCode::NotAuthorized);
    }
    let error = broken(stage.try_change("x\nuser\n").unwrap_err());
    assert_eq!(error.lines().count(), 2, "each line: {error}");
    std::fs::remove_file(stage.acl_file()).unwrap();
    let error = broken(stage.rig.service.reload_acls().unwrap_err());
    assert!(error.starts_with(&path), "{error}");
    assert!(client.publish("a", "x", ONE).await.is_ok());
    // A file of comments is meant: nobody may do anything.
    stage.change("# closed\n");
    assert_eq!(client.publish("a", "x", ONE).await.reason, ReasonCode::NotAuthorized);
    stage.change("topic b\r\n");
    assert!(client.publish("b", "x", ONE).await.is_ok());
}

// case S10
#[tokio::test]
async fn a_broker_does_not_start_with_half_an_acl_and_denies_all_with_an_empty_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("acl");
    let start = || async {
        let mut config = Config::default();
        config.listeners[0].bind = simcast::config::Bind::Tcp(([127, 0, 0, 1], 0).into());
        config.admin.bind = None;
        config.auth.acl_file = Some(path.clone());
        Service::start(config).await
    };
    assert!(matches!(start().await.unwrap_err(), StartError::File(FileError::Unreadable { .. })));
    std::fs::write(&path, "topic a\npatern b\n").unwrap();
    let error = start().await.unwrap_err();
    assert!(matches!(error, StartError::File(FileError::Broken { .. })));
    assert!(error.to_string().starts_with(&format!("{}:2: ", path.display())), "{error}");
    std::fs::write(&path, [b"topic a\n".as_slice(), &[0xff, 0xfe], b"\n"].concat()).unwrap();
    assert!(start().await.is_err());
    std::fs::write(&path, "").unwrap();
    start().await.unwrap().stop().await;
    let stage = Stage::start("").await;
    for version in VERSIONS {
        let mut client = stage.rig.client(Dial::new(version, "c")).await;
        assert_eq!(client.subscribe("#", ONE).await, filter_denial(version));
    }
}

// case S12
#[tokio::test]
async fn each_listener_has_its_own_file_or_the_common_one() {
    let own = |config: &mut Config| {
        let path = config.auth.acl_file.as_ref().unwrap().with_file_name("acl-of-tls");
        std::fs::write(&path, "user ann\ntopic b\ntopic both\n").unwrap();
        config.listeners[1].auth = Some(Auth { acl_file: Some(path), ..Auth::default() });
    };
    let common = "topic a\ntopic both\nuser ann\ntopic a\n";
    let stage = Stage::with(common, own).await;
    for version in VERSIONS {
        let mut plain = stage.rig.client(Dial::new(version, "plain")).await;
        let mut secure = stage.user("ann", Dial::new(version, "secure")).await;
        assert!(!plain.subscribe("#", ONE).await.is_error());
        assert!(!secure.subscribe("#", ONE).await.is_error());
        plain.publish("b", "no", ONE).await;
        secure.publish("a", "no", ONE).await;
        // What is published under one ACL is delivered under another.
        plain.publish("a", "a", ONE).await;
        secure.publish("b", "b", ONE).await;
        plain.publish("both", "both", ONE).await;
        assert_eq!(plain.expect_payloads(2).await, ["a", "both"]);
        assert_eq!(secure.expect_payloads(2).await, ["b", "both"]);
        plain.expect_nothing().await;
        secure.expect_nothing().await;
        plain.disconnect().await;
        secure.disconnect().await;
    }
    // A reload reads both files; one that is broken leaves both as they were.
    let tls_file = stage.rig.dir.path().join("acl-of-tls");
    std::fs::write(&tls_file, "user\n").unwrap();
    assert!(stage.try_change("topic c\n").is_err());
    let mut plain = stage.rig.client(Dial::v5("plain")).await;
    assert!(plain.publish("a", "x", ONE).await.is_ok());
    assert!(!plain.publish("c", "x", ONE).await.is_ok());
    std::fs::write(&tls_file, "user ann\ntopic c\n").unwrap();
    assert_eq!(stage.try_change("topic d\n").unwrap(), 2);
    assert!(plain.publish("d", "x", ONE).await.is_ok());
    let mut secure = stage.user("ann", Dial::v5("secure")).await;
    assert!(secure.publish("c", "x", ONE).await.is_ok());
    assert!(!secure.publish("d", "x", ONE).await.is_ok());
}

// case S12
#[tokio::test]
async fn a_listener_whose_section_names_no_file_has_no_acl() {
    let none = |config: &mut Config| config.listeners[0].auth = Some(Auth::default());
    let stage = Stage::with("# nobody\n", none).await;
    for version in VERSIONS {
        let mut plain = stage.rig.client(Dial::new(version, "plain")).await;
        let mut secure = stage.user("ann", Dial::new(version, "secure")).await;
        assert!(!plain.subscribe("#", ONE).await.is_error());
        assert_eq!(secure.subscribe("#", ONE).await, filter_denial(version));
        plain.publish("a", "x", ONE).await;
        assert_eq!(plain.expect_payload().await, "x");
        plain.disconnect().await;
    }
}

#[tokio::test]
async fn without_a_file_everything_is_permitted() {
    let rig = Rig::start().await;
    for version in VERSIONS {
        let mut client = rig.client(Dial::new(version, "#")).await;
        assert!(!client.subscribe("#", ONE).await.is_error());
        assert!(client.publish("a", "x", ONE).await.is_ok());
        assert_eq!(client.expect_payload().await, "x");
        client.disconnect().await;
    }
    assert_eq!(rig.service.reload_acls().unwrap(), 0);
    assert_eq!(rig.counter("simcast_acl_denied_total{").await, 0);
}
