//! User names and passwords, and those who have none.

use simcast::config::{Auth, Listener};
use simcast::mqtt::{QoS, ReasonCode, Version};
use simcast::pki::LeafTemplate;

use crate::common::{Client, Denied, Dial};
use crate::{BAD, Guarded, NOT_AUTHORIZED, line};

#[tokio::test]
async fn a_user_comes_in_with_its_password_and_nothing_else() {
    let users = line("ann", "secret") + &line("bob", "other");
    let guarded = Guarded::with(&users, |config| config.auth.max_failures = 100).await;
    for version in [Version::V31, Version::V311, Version::V5] {
        let dial = || Dial::new(version, "c");
        let bad = if version == Version::V5 { BAD } else { NOT_AUTHORIZED };
        let mut ann = guarded.rig.client(dial().user("ann", "secret")).await;
        ann.ping().await;
        for (name, password) in
            [("ann", "other"), ("ann", ""), ("ann", "Secret"), ("carol", "secret"), ("", "")]
        {
            assert_eq!(guarded.refuses(dial().user(name, password)).await, bad, "{name}");
        }
        let mut without_password = dial();
        without_password.0.username = Some("ann".into());
        assert_eq!(guarded.refuses(without_password).await, bad);
        assert_eq!(guarded.refuses(dial()).await, NOT_AUTHORIZED);
        ann.ping().await;
    }
    let bad = guarded.rig.counter("simcast_connects_total{result=\"bad_credentials\"}").await;
    assert_eq!(bad, 18);
}

#[tokio::test]
async fn anonymous_is_who_gives_no_user_name() {
    let guarded = Guarded::with(line("ann", "secret"), |config| {
        config.listeners[0].allow_anonymous = true;
    });
    let guarded = guarded.await;
    guarded.rig.client(Dial::v311("nobody")).await.ping().await;
    guarded.user("ann", "secret").await.ping().await;
    // A user name has to be right even where none is needed.
    for (name, password) in [("ann", "x"), ("carol", ""), ("", "")] {
        assert_eq!(guarded.refuses(Dial::v5("c").user(name, password)).await, BAD);
    }
}

#[tokio::test]
async fn an_empty_user_name_may_count_as_none() {
    let guarded = Guarded::with(line("ann", "secret"), |config| {
        config.listeners[0].allow_anonymous = true;
        config.mqtt.empty_user_name_is_anonymous = true;
    });
    let guarded = guarded.await;
    guarded.rig.client(Dial::v311("c").user("", "")).await.ping().await;
    assert_eq!(guarded.refuses(Dial::v311("c").user(" ", "")).await, NOT_AUTHORIZED);
}

#[tokio::test]
async fn where_nobody_checks_a_password_nobody_believes_a_user_name() {
    let rig = crate::common::Rig::start().await;
    let first = rig.client(Dial::v5("c").persistent().user("admin", "x")).await;
    first.disconnect().await;
    // All are the same nobody: the session is that of an anonymous client.
    assert!(rig.client(Dial::v5("c").persistent()).await.session_present());
}

#[tokio::test]
async fn a_session_belongs_to_its_user() {
    // case S14
    let users = line("ann", "secret") + &line("bob", "other");
    let guarded = Guarded::start(&users).await;
    let dial = || Dial::v5("c").persistent();
    let mut ann = guarded.rig.client(dial().user("ann", "secret")).await;
    ann.subscribe("t", QoS::AtLeastOnce).await;
    let taken = Denied::ConnAck(ReasonCode::ClientIdentifierNotValid);
    assert_eq!(guarded.refuses(dial().user("bob", "other")).await, taken);
    ann.ping().await;
    ann.disconnect().await;
    assert_eq!(guarded.refuses(dial().user("bob", "other")).await, taken);
    assert!(guarded.rig.client(dial().user("ann", "secret")).await.session_present());
}

#[tokio::test]
async fn the_same_name_in_another_file_is_somebody_else() {
    // case S14
    let dir = tempfile::tempdir().unwrap();
    let own = dir.path().join("own");
    std::fs::write(&own, line("ann", "another ann")).unwrap();
    let guarded = Guarded::with(line("ann", "secret"), |config| {
        let common = config.listeners[0].clone();
        let auth = Auth { password_file: Some(own), ..Auth::default() };
        let same = Auth { password_file: config.auth.password_file.clone(), ..Auth::default() };
        config.listeners.push(Listener { auth: Some(auth), ..common.clone() });
        config.listeners.push(Listener { auth: Some(same), ..common });
    });
    let guarded = guarded.await;
    let at = async |listener: usize, password: &str| {
        let address = guarded.rig.service.addresses()[listener].tcp().unwrap();
        let dial = Dial::v5("c").persistent().user("ann", password);
        Client::open(guarded.rig.tcp(address).await, &dial).await
    };
    let mut ann = at(0, "secret").await.unwrap();
    ann.subscribe("t", QoS::AtLeastOnce).await;
    let taken = Some(Denied::ConnAck(ReasonCode::ClientIdentifierNotValid));
    assert_eq!(at(2, "another ann").await.err(), taken);
    ann.ping().await;
    ann.disconnect().await;
    assert_eq!(at(2, "another ann").await.err(), taken);
    // Nor is she who has a certificate with this name.
    let leaf = LeafTemplate {
        common_name: "ann".to_owned(),
        serial_number: None,
        uris: Vec::new(),
        ..LeafTemplate::device(crate::common::nid(1))
    };
    let denied = guarded.rig.with_leaf(&leaf, Dial::v5("c").persistent()).await.err();
    assert_eq!(denied, taken);
    assert!(at(3, "secret").await.unwrap().session_present(), "the same file at another listener");
}

#[tokio::test]
async fn each_listener_has_its_own_file() {
    // case S12
    let dir = tempfile::tempdir().unwrap();
    let own = dir.path().join("own");
    std::fs::write(&own, line("bob", "other")).unwrap();
    let guarded = Guarded::with(line("ann", "secret"), |config| {
        let listener = &mut config.listeners[1];
        listener.tls.as_mut().unwrap().require_client_cert = Some(false);
        listener.auth = Some(Auth { password_file: Some(own), ..Auth::default() });
    });
    let guarded = guarded.await;
    let tls = async |name: &str, password: &str| {
        let stream = guarded.rig.handshake(None).await.unwrap();
        Client::open(stream, &Dial::v5(name).user(name, password)).await.map(drop)
    };
    guarded.user("ann", "secret").await.ping().await;
    assert_eq!(guarded.refuses(Dial::v5("bob").user("bob", "other")).await, BAD);
    assert_eq!(tls("bob", "other").await, Ok(()));
    assert_eq!(tls("ann", "secret").await, Err(BAD));
}
