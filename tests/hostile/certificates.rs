//! Certificates that prove nothing, or the wrong thing.

use simcast::mqtt::{QoS, ReasonCode};
use simcast::pki::{Authority, LeafTemplate, LeafUsage};
use time::{Duration, OffsetDateTime};

use crate::common::{Denied, Dial, Rig, TO_EUICC, TO_SM_SR, envelope, nid};

const ONE: QoS = QoS::AtLeastOnce;

async fn rejected(rig: &Rig, reason: &str) -> u64 {
    rig.counter(&format!("simcast_tls_rejected_total{{reason=\"{reason}\"}}")).await
}

fn without_eid(name: &str) -> LeafTemplate {
    LeafTemplate {
        common_name: name.to_owned(),
        serial_number: None,
        uris: Vec::new(),
        ..LeafTemplate::device(nid(1))
    }
}

#[tokio::test]
async fn a_certificate_without_an_eid_makes_an_ordinary_client() {
    let rig = Rig::start().await;
    let mut client = rig.with_leaf(&without_eid("sensor"), Dial::v5("sensor")).await.unwrap();
    assert_eq!(client.subscribe("news", ONE).await, ReasonCode::GrantedQoS1);
    client.publish("news", "x", ONE).await;
    assert_eq!(client.expect_payload().await, "x");
    for topic in [TO_EUICC, TO_SM_SR] {
        assert_eq!(client.subscribe(topic, ONE).await, ReasonCode::NotAuthorized);
        let answer = client.publish(topic, envelope(1, 0, "trigger"), ONE).await;
        assert_eq!(answer.text.as_deref(), Some("role_not_permitted"));
    }
}

#[tokio::test]
async fn what_a_client_says_never_beats_its_certificate() {
    let rig = Rig::start().await;
    let digits = nid(1).to_string();
    let mut dial = Dial::v5(&digits);
    dial.0.username = Some(digits.as_str().into());
    let mut client = rig.with_leaf(&without_eid("liar"), dial).await.unwrap();
    assert_eq!(client.subscribe(TO_EUICC, ONE).await, ReasonCode::NotAuthorized);
    let mut dial = Dial::v5("sm-sr.test");
    dial.0.username = Some("sm-sr.test".into());
    let mut device = rig.device(2, dial).await;
    assert_eq!(device.subscribe(TO_SM_SR, ONE).await, ReasonCode::NotAuthorized);
    let answer = device.publish(TO_EUICC, envelope(1, 0, "trigger"), ONE).await;
    assert_eq!(answer.text.as_deref(), Some("server_type_from_device"));
}

#[tokio::test]
async fn a_certificate_whose_eid_is_none_is_not_authorized() {
    let rig = Rig::start().await;
    let wrong = (nid(1).get() + 1).to_string();
    let other = nid(2);
    let templates = [
        LeafTemplate { uris: vec![format!("urn:eid:{wrong}")], ..LeafTemplate::device(nid(1)) },
        LeafTemplate { serial_number: Some(wrong.clone()), ..without_eid("x") },
        without_eid(&wrong),
        LeafTemplate {
            uris: vec![format!("urn:eid:{}", nid(1)), format!("urn:eid:{other}")],
            ..LeafTemplate::device(nid(1))
        },
        LeafTemplate { uris: vec!["urn:eid:".to_owned()], ..LeafTemplate::device(nid(1)) },
    ];
    for (count, template) in (1..).zip(&templates) {
        for dial in [Dial::v5("d"), Dial::v311("d")] {
            let denied = rig.with_leaf(template, dial).await.err();
            let expected = Some(Denied::ConnAck(ReasonCode::NotAuthorized));
            assert_eq!(denied, expected, "{:?}", template.uris);
        }
        let counter = "simcast_connects_total{result=\"not_authorized\"}";
        assert_eq!(rig.counter(counter).await, 2 * count);
    }
}

#[tokio::test]
async fn certificates_of_another_authority_are_refused() {
    let rig = Rig::start().await;
    let other = Authority::in_memory().unwrap();
    let forged = [other.issue_device(nid(1)).unwrap(), other.issue_server("sm-sr.test").unwrap()];
    for (count, issued) in (1..).zip(&forged) {
        let denied = rig.with_certificate(issued, Dial::v5("d")).await.err();
        assert_eq!(denied, Some(Denied::Closed));
        assert_eq!(rejected(&rig, "unknown_ca").await, count);
    }
}

#[tokio::test]
async fn certificates_out_of_their_time_are_refused() {
    let rig = Rig::start().await;
    let now = OffsetDateTime::from(simcast::clock::wall());
    let hour = Duration::HOUR;
    let periods = [(now - hour * 2, now - hour), (now + hour, now + hour * 2)];
    for (count, (not_before, not_after)) in (1..).zip(periods) {
        let leaf = LeafTemplate { not_before, not_after, ..LeafTemplate::device(nid(1)) };
        let denied = rig.with_leaf(&leaf, Dial::v5("d")).await.err();
        assert_eq!(denied, Some(Denied::Closed));
        assert_eq!(rejected(&rig, "expired").await, count);
    }
}

#[tokio::test]
async fn a_revoked_certificate_is_refused_and_its_successor_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let mut authority = Authority::create(dir.path()).unwrap();
    let lost = authority.issue_device(nid(1)).unwrap();
    authority.revoke(&lost.cert_pem).unwrap();
    let rig = Rig::with_authority(dir, authority, |_config| {}).await;
    let denied = rig.with_certificate(&lost, Dial::v5("d")).await.err();
    assert_eq!(denied, Some(Denied::Closed));
    assert_eq!(rejected(&rig, "revoked").await, 1);
    rig.reader(1, Dial::v5("d")).await.ping().await;
}

#[tokio::test]
async fn no_certificate_and_one_for_another_purpose_are_refused() {
    let rig = Rig::start().await;
    if let Ok(stream) = rig.handshake(None).await {
        // With TLS 1.3 a client learns of it only after its own last message.
        let denied = crate::common::Client::open(stream, &Dial::v5("d")).await.err();
        assert_eq!(denied, Some(Denied::Closed));
    }
    rig.until_counter("simcast_tls_rejected_total{reason=\"no_certificate\"}", 1).await;
    let leaf = LeafTemplate { usage: LeafUsage::Server, ..LeafTemplate::device(nid(1)) };
    let denied = rig.with_leaf(&leaf, Dial::v5("d")).await.err();
    assert_eq!(denied, Some(Denied::Closed));
    assert_eq!(rejected(&rig, "bad_certificate").await, 1);
}
