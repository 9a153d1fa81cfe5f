//! Enhanced authentication: SCRAM-SHA-256 over CONNECT and AUTH, and again while connected.

use std::time::Duration;

use aws_lc_rs::{digest, hmac, pbkdf2};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use simcast::mqtt::{Auth, AuthProperties, Packet, QoS, ReasonCode};

use crate::common::{Client, Denied, Dial, Rig};
use crate::{BAD, Guarded, line, scram_line};

const METHOD: &str = "SCRAM-SHA-256";

fn auth(reason: ReasonCode, method: &str, data: &str) -> Packet {
    let properties = AuthProperties {
        authentication_method: Some(method.into()),
        authentication_data: Some(data.to_owned().into()),
        ..AuthProperties::default()
    };
    Packet::Auth(Auth { reason, properties: Some(Box::new(properties)) })
}

/// The client's side of RFC 5802.
struct Proof {
    last: String,
    verdict: String,
}

fn bare(name: &str) -> String {
    format!("n={name},r=fyko+d2lbbFgONRv9qkxdawL")
}

impl Proof {
    fn new(name: &str, password: &str, challenge: &str) -> Self {
        let attribute = |name: &str| {
            challenge.split(',').find_map(|a| a.strip_prefix(name)).expect("an attribute")
        };
        let salt = STANDARD.decode(attribute("s=")).unwrap();
        let rounds = attribute("i=").parse().unwrap();
        let mut salted = [0; 32];
        let secret = password.as_bytes();
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, &salt, secret, &mut salted);
        let sign = |key: &[u8], text: &str| {
            let key = hmac::Key::new(hmac::HMAC_SHA256, key);
            hmac::sign(&key, text.as_bytes()).as_ref().to_vec()
        };
        let client_key = sign(&salted, "Client Key");
        let stored_key = digest::digest(&digest::SHA256, &client_key);
        let said = format!("c=biws,r={}", attribute("r="));
        let transcript = format!("{},{challenge},{said}", bare(name));
        let signature = sign(stored_key.as_ref(), &transcript);
        let proof: Vec<u8> = client_key.iter().zip(signature).map(|(a, b)| a ^ b).collect();
        let verdict = sign(&sign(&salted, "Server Key"), &transcript);
        Self {
            last: format!("{said},p={}", STANDARD.encode(proof)),
            verdict: format!("v={}", STANDARD.encode(verdict)),
        }
    }
}

fn first(name: &str) -> String {
    format!("n,,{}", bare(name))
}

/// The data of an AUTH with this reason, and that its method is the right one.
fn data_of(packet: Option<Packet>, reason: ReasonCode) -> String {
    let Some(Packet::Auth(auth)) = packet else { panic!("{packet:?} instead of AUTH") };
    assert_eq!(auth.reason, reason);
    let properties = auth.properties.unwrap();
    assert_eq!(properties.authentication_method.as_deref(), Some(METHOD), "[MQTT-4.12.0-5]");
    String::from_utf8(properties.authentication_data.unwrap().to_vec()).unwrap()
}

/// A client that has said its name and heard the challenge.
async fn challenged(guarded: &Guarded, name: &str) -> (Client, String) {
    let dial = Dial::v5(name).method(METHOD, &first(name));
    let mut client = Client::begin(guarded.rig.tcp(guarded.rig.plain).await, &dial).await;
    let challenge = data_of(client.read().await, ReasonCode::ContinueAuthentication);
    (client, challenge)
}

/// A client that logs in, and looks whether the broker knows it, too.
pub(crate) async fn log_in(
    guarded: &Guarded,
    name: &str,
    password: &str,
) -> Result<Client, Denied> {
    let dial = Dial::v5(name).method(METHOD, &first(name));
    let mut client = Client::begin(guarded.rig.tcp(guarded.rig.plain).await, &dial).await;
    let challenge = match client.read().await {
        Some(Packet::ConnAck(refusal)) => return Err(Denied::ConnAck(refusal.reason)),
        packet => data_of(packet, ReasonCode::ContinueAuthentication),
    };
    let proof = Proof::new(name, password, &challenge);
    client.send(&auth(ReasonCode::ContinueAuthentication, METHOD, &proof.last)).await;
    client.finish().await?;
    let properties = client.connack.properties.as_ref().unwrap();
    assert_eq!(properties.authentication_method.as_deref(), Some(METHOD), "[MQTT-4.12.0-5]");
    assert_eq!(properties.authentication_data.as_deref(), Some(proof.verdict.as_bytes()));
    Ok(client)
}

/// Ann may use SCRAM, bob may not.
async fn guarded() -> Guarded {
    Guarded::start(&(scram_line("ann", "secret") + &line("bob", "other"))).await
}

#[tokio::test]
async fn a_user_comes_in_without_sending_its_password() {
    let guarded = guarded().await;
    log_in(&guarded, "ann", "secret").await.unwrap().ping().await;
    assert_eq!(log_in(&guarded, "ann", "wrong").await.err(), Some(BAD));
    // The plain password of the same line works, too.
    guarded.user("ann", "secret").await.ping().await;
    assert_eq!(guarded.try_user("ann", "wrong").await.err(), Some(BAD));
    // Those who do not exist are asked for their proof like those who do.
    assert_eq!(log_in(&guarded, "carol", "secret").await.err(), Some(BAD));
    assert_eq!(log_in(&guarded, "bob", "other").await.err(), Some(BAD));
    let salt = |challenge: String| challenge.split(',').nth(1).unwrap().to_owned();
    let (_, once) = challenged(&guarded, "carol").await;
    let (_, twice) = challenged(&guarded, "carol").await;
    assert_eq!(salt(once), salt(twice));
}

#[tokio::test]
async fn a_client_may_wait_to_be_asked_and_may_think_better_of_it() {
    let guarded = guarded().await;
    let mut dial = Dial::v5("ann").method(METHOD, "");
    dial.0.properties.authentication_data = None;
    let stream = guarded.rig.tcp(guarded.rig.plain).await;
    let mut client = Client::begin(stream, &dial).await;
    assert_eq!(data_of(client.read().await, ReasonCode::ContinueAuthentication), "");
    let next = auth(ReasonCode::ContinueAuthentication, METHOD, &first("ann"));
    client.send(&next).await;
    let challenge = data_of(client.read().await, ReasonCode::ContinueAuthentication);
    assert!(challenge.contains(",i="), "{challenge}");
    client.disconnect().await;
}

#[tokio::test]
async fn a_method_that_is_not_offered_is_refused() {
    // [MQTT-4.12.0-1], case P25
    let unknown = Denied::ConnAck(ReasonCode::BadAuthenticationMethod);
    let guarded = guarded().await;
    for method in ["SCRAM-SHA-1", "scram-sha-256", "", "GS2-KRB5"] {
        let dial = Dial::v5("c").method(method, "x").user("ann", "secret");
        assert_eq!(guarded.refuses(dial).await, unknown, "{method}");
    }
    // Where no line is for SCRAM, and where there is no password file.
    let plain = Guarded::start(&line("bob", "other")).await;
    assert_eq!(plain.refuses(Dial::v5("c").method(METHOD, &first("bob"))).await, unknown);
    let rig = Rig::start().await;
    let denied = rig.try_client(Dial::v5("c").method(METHOD, &first("bob"))).await.err();
    assert_eq!(denied, Some(unknown));
}

#[tokio::test]
async fn nothing_but_the_exchange_may_come_before_the_connack() {
    // [MQTT-3.1.2-30], [MQTT-4.12.0-3], case P25
    let guarded = guarded().await;
    let next = ReasonCode::ContinueAuthentication;
    let wrong = Denied::ConnAck(ReasonCode::ProtocolError);
    let cases = [
        (Packet::PingReq, &wrong),
        (auth(next, "SCRAM-SHA-1", "x"), &wrong),
        (auth(ReasonCode::ReAuthenticate, METHOD, "x"), &wrong),
        (auth(ReasonCode::Success, METHOD, "x"), &wrong),
        (Packet::Auth(Auth { reason: ReasonCode::Success, properties: None }), &wrong),
        (auth(next, METHOD, "x"), &crate::NOT_AUTHORIZED),
        (auth(next, METHOD, &first("ann")), &crate::NOT_AUTHORIZED),
    ];
    for (packet, expected) in cases {
        let (mut client, _challenge) = challenged(&guarded, "ann").await;
        client.send(&packet).await;
        assert_eq!(client.finish().await.err().as_ref(), Some(expected), "{packet:?}");
        assert_eq!(client.read().await, None, "and closed");
    }
}

#[tokio::test]
async fn an_exchange_has_to_end_in_time() {
    let users = scram_line("ann", "secret");
    let guarded = Guarded::with(&users, |config| {
        config.limits.connect_timeout = Duration::from_millis(300);
    });
    let guarded = guarded.await;
    let (mut client, _challenge) = challenged(&guarded, "ann").await;
    assert_eq!(client.read().await, None);
    assert_eq!(guarded.rig.counter("simcast_connects_total{result=\"timeout\"}").await, 1);
}

#[tokio::test]
async fn a_client_shows_again_who_it_is_while_messages_flow() {
    // [MQTT-4.12.1-1]
    let guarded = guarded().await;
    let mut ann = log_in(&guarded, "ann", "secret").await.unwrap();
    ann.subscribe("t", QoS::AtLeastOnce).await;
    for _twice in 0..2 {
        ann.send(&auth(ReasonCode::ReAuthenticate, METHOD, &first("ann"))).await;
        let challenge = data_of(ann.read().await, ReasonCode::ContinueAuthentication);
        assert!(ann.publish("t", "meanwhile", QoS::AtLeastOnce).await.is_ok());
        assert_eq!(ann.expect_payload().await, "meanwhile");
        let proof = Proof::new("ann", "secret", &challenge);
        ann.send(&auth(ReasonCode::ContinueAuthentication, METHOD, &proof.last)).await;
        assert_eq!(data_of(ann.read().await, ReasonCode::Success), proof.verdict);
        ann.ping().await;
    }
}

#[tokio::test]
async fn a_client_that_fails_to_show_it_again_has_to_go() {
    // [MQTT-4.12.1-2], case P25
    let users = scram_line("ann", "secret") + &scram_line("bob", "other");
    let guarded = Guarded::start(&users).await;
    let again = ReasonCode::ReAuthenticate;
    for (name, password, reason) in [
        ("ann", "wrong", ReasonCode::NotAuthorized),
        ("carol", "secret", ReasonCode::NotAuthorized),
        ("bob", "other", ReasonCode::ProtocolError), // as another user
    ] {
        let mut ann = log_in(&guarded, "ann", "secret").await.unwrap();
        ann.send(&auth(again, METHOD, &first(name))).await;
        let challenge = data_of(ann.read().await, ReasonCode::ContinueAuthentication);
        let proof = Proof::new(name, password, &challenge);
        ann.send(&auth(ReasonCode::ContinueAuthentication, METHOD, &proof.last)).await;
        assert_eq!(ann.expect_goodbye().await, reason, "{name}");
    }
    for packet in [
        auth(again, "SCRAM-SHA-1", &first("ann")),
        auth(ReasonCode::ContinueAuthentication, METHOD, &first("ann")),
        auth(ReasonCode::Success, METHOD, ""),
        Packet::Auth(Auth { reason: ReasonCode::Success, properties: None }),
    ] {
        let mut ann = log_in(&guarded, "ann", "secret").await.unwrap();
        ann.send(&packet).await;
        assert_eq!(ann.expect_goodbye().await, ReasonCode::ProtocolError, "{packet:?}");
    }
    let mut ann = log_in(&guarded, "ann", "secret").await.unwrap();
    ann.send(&auth(again, METHOD, "p=tls-unique,,n=ann,r=x")).await;
    assert_eq!(ann.expect_goodbye().await, ReasonCode::NotAuthorized);
}

#[tokio::test]
async fn auth_without_a_method_is_a_protocol_error() {
    // [MQTT-4.12.0-7], case P25
    let guarded = guarded().await;
    let mut ann = guarded.user("ann", "secret").await;
    ann.send(&auth(ReasonCode::ReAuthenticate, METHOD, &first("ann"))).await;
    assert_eq!(ann.expect_goodbye().await, ReasonCode::ProtocolError);
}
