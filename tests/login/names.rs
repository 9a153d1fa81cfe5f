//! What a client is called: by its certificate, by its password, by its client id.

use simcast::config::UserNameFrom;
use simcast::mqtt::{QoS, ReasonCode};
use simcast::pki::LeafTemplate;

use crate::common::{Denied, Dial, nid};
use crate::{BAD, Guarded, NOT_AUTHORIZED, line};

/// A broker whose TLS port goes by certificates, and takes this for the user name. The client id
/// shows it.
async fn named(from: UserNameFrom) -> Guarded {
    Guarded::with(line("ann", "secret"), |config| {
        config.listeners[1].user_name_from = from;
        config.listeners[1].client_id_is_user_name = true;
    })
    .await
}

/// The client id that a client with this certificate is given there.
async fn name(guarded: &Guarded, leaf: &LeafTemplate) -> Result<String, Denied> {
    let client = guarded.rig.with_leaf(leaf, Dial::v5("")).await?;
    Ok(client.connack.properties.unwrap().assigned_client_id.unwrap().to_string())
}

#[tokio::test]
async fn the_listener_says_which_text_of_a_certificate_is_the_name() {
    let leaf = LeafTemplate {
        common_name: "meter 7".to_owned(),
        organizational_unit: Some("a, b".to_owned()),
        hosts: vec!["meter-7.example".to_owned()],
        ..LeafTemplate::device(nid(1))
    };
    for (from, expected) in [
        (UserNameFrom::Certificate, nid(1).to_string()),
        (UserNameFrom::Cn, "meter 7".to_owned()),
        (UserNameFrom::Subject, format!("CN=meter 7,serialNumber={},OU=a\\, b,O=simcast", nid(1))),
        (UserNameFrom::San, "meter-7.example".to_owned()),
    ] {
        assert_eq!(name(&named(from).await, &leaf).await, Ok(expected));
    }
    let serial = name(&named(UserNameFrom::Serial).await, &leaf).await.unwrap();
    assert!(serial.len() > 8 && serial.bytes().all(|byte| byte.is_ascii_hexdigit()), "{serial}");
    let nameless = LeafTemplate { hosts: vec![], uris: vec![], ..leaf };
    let guarded = named(UserNameFrom::San).await;
    assert_eq!(name(&guarded, &nameless).await, Err(NOT_AUTHORIZED));
}

#[tokio::test]
async fn a_certificate_beats_what_the_client_says() {
    // case S15; that it is logged is tested in `logged`.
    let guarded = named(UserNameFrom::Certificate).await;
    let dial = Dial::v5("").user("ann", "whatever");
    let device = guarded.rig.try_device(1, dial).await.unwrap();
    let id = device.connack.properties.unwrap().assigned_client_id.unwrap();
    assert_eq!(&*id, nid(1).to_string().as_str());
}

#[tokio::test]
async fn a_certificate_opens_the_door_and_the_password_names_the_user() {
    let guarded = named(UserNameFrom::Password).await;
    let device = async |dial| guarded.rig.try_device(1, dial).await;
    let ann = device(Dial::v5("").user("ann", "secret")).await.unwrap();
    assert_eq!(ann.connack.properties.unwrap().assigned_client_id.as_deref(), Some("ann"));
    assert_eq!(device(Dial::v5("").user("ann", "wrong")).await.err(), Some(BAD));
    assert_eq!(device(Dial::v5("")).await.err(), Some(NOT_AUTHORIZED));
    // The role comes with the name: this is no device.
    let mut ann = device(Dial::v5("").user("ann", "secret")).await.unwrap();
    assert!(ann.subscribe("To_eUICC", QoS::AtLeastOnce).await.is_error());
}

#[tokio::test]
async fn the_client_id_may_be_the_user_name() {
    let users = line("ann", "secret") + &line("bob", "other");
    let guarded = Guarded::with(users, |config| {
        config.listeners[0].client_id_is_user_name = true;
        config.listeners[0].allow_anonymous = true;
    });
    let guarded = guarded.await;
    let mut first = guarded.rig.client(Dial::v5("x").user("ann", "secret")).await;
    let mut bob = guarded.rig.client(Dial::v5("x").user("bob", "other")).await;
    let mut second = guarded.rig.client(Dial::v5("y").user("ann", "secret")).await;
    assert_eq!(first.expect_goodbye().await, ReasonCode::SessionTakenOver);
    bob.ping().await;
    second.ping().await;
    assert_eq!(guarded.refuses(Dial::v5("x")).await, NOT_AUTHORIZED, "who has no name has no id");
}

#[tokio::test]
async fn client_ids_begin_as_the_listener_says() {
    let guarded = Guarded::with(line("ann", "secret"), |config| {
        config.listeners[0].client_id_prefixes = vec!["meter-".to_owned(), "auto-".to_owned()];
    });
    let guarded = guarded.await;
    for id in ["meter-1", "meter-", ""] {
        guarded.rig.client(Dial::v5(id).user("ann", "secret")).await.ping().await;
    }
    let refused = Denied::ConnAck(ReasonCode::ClientIdentifierNotValid);
    for id in ["meter", "Meter-1", "x-meter-1"] {
        assert_eq!(guarded.refuses(Dial::v5(id).user("ann", "secret")).await, refused);
        assert_eq!(guarded.refuses(Dial::v311(id).user("ann", "secret")).await, refused);
    }
    // Who may not come in at all is not told how ids begin.
    assert_eq!(guarded.refuses(Dial::v5("x").user("ann", "wrong")).await, BAD);
}
