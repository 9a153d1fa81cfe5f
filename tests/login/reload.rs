//! Password files that change while the broker runs.

use simcast::mqtt::ReasonCode;

use crate::common::Dial;
use crate::{BAD, Guarded, line};

#[tokio::test]
async fn who_is_no_user_any_more_has_to_go() {
    let users = |ann: &str, rest: &str| line("ann", ann) + &line("bob", "other") + rest;
    let guarded = Guarded::with(users("secret", &line("carol", "third")), |config| {
        config.listeners[0].allow_anonymous = true;
    });
    let guarded = guarded.await;
    let mut ann = guarded.user("ann", "secret").await;
    let mut bob = guarded.user("bob", "other").await;
    let mut carol = guarded.user("carol", "third").await;
    let mut nobody = guarded.rig.client(Dial::v5("nobody")).await;
    let mut device = guarded.rig.device(1, Dial::v5("device")).await;
    std::fs::write(&guarded.file, users("changed", &line("dave", "fourth"))).unwrap();
    assert_eq!(guarded.rig.service.reload_passwords().unwrap(), 1);
    assert_eq!(ann.expect_goodbye().await, ReasonCode::NotAuthorized, "another password");
    assert_eq!(carol.expect_goodbye().await, ReasonCode::NotAuthorized, "no such user");
    for client in [&mut bob, &mut nobody, &mut device] {
        client.ping().await;
    }
    assert_eq!(guarded.try_user("ann", "secret").await.err(), Some(BAD));
    assert_eq!(guarded.try_user("carol", "third").await.err(), Some(BAD));
    guarded.user("ann", "changed").await.ping().await;
    guarded.user("dave", "fourth").await.ping().await;
}

#[tokio::test]
async fn a_broken_file_changes_nothing() {
    // case S10
    let ann = line("ann", "secret");
    let guarded = Guarded::start(&ann).await;
    let mut early = guarded.rig.client(Dial::v5("early").user("ann", "secret")).await;
    let half = &ann[..ann.len() / 2];
    for text in ["", "\n", half, "\u{feff}bob:x\n", &format!("{}bob:", line("bob", "other"))] {
        std::fs::write(&guarded.file, text).unwrap();
        let error = guarded.rig.service.reload_passwords().unwrap_err().to_string();
        assert!(error.contains("passwords:"), "the file is named: {error}");
        guarded.user("ann", "secret").await.ping().await;
        assert_eq!(guarded.try_user("bob", "other").await.err(), Some(BAD));
    }
    std::fs::remove_file(&guarded.file).unwrap();
    assert!(guarded.rig.service.reload_passwords().is_err());
    guarded.user("ann", "secret").await.ping().await;
    early.ping().await;
    // A file with nobody in it has to say so.
    std::fs::write(&guarded.file, "# nobody\n").unwrap();
    assert_eq!(guarded.rig.service.reload_passwords().unwrap(), 1);
    assert_eq!(early.expect_goodbye().await, ReasonCode::NotAuthorized);
    assert_eq!(guarded.try_user("ann", "secret").await.err(), Some(BAD));
}
