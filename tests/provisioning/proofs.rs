//! Proofs of deletion (section 6): where the settings ask for it, a profile is handed over only
//! with the old eUICC's signed delete notification, once.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use simcast::client::envelope::{Body, Envelope, Kind, Wire};
use simcast::client::payload::EuiccCa;
use simcast::clock::Clock;
use simcast::config::Config;
use simcast::mqtt::{QoS, Version};
use simcast::rsp::{ExchangeState, GroupSettings, Pair, PeerProof};

use crate::common::{TO_EUICC, envelope, gid, kind_of, nid};
use crate::stage::{A, B, C, D, E, SERVER, Stage, VERSIONS};

/// Issuers of eUICC certificates that the broker trusts.
struct Trust(EuiccCa);

impl Trust {
    fn new() -> Self {
        Self(EuiccCa::new(Clock::start().now()).unwrap())
    }

    /// What an eUICC signs after it has deleted its profile.
    fn notification(&self, device: u128, seq_number: u64) -> Vec<u8> {
        let euicc = self.0.euicc(nid(device)).unwrap();
        euicc.delete_notification(seq_number, None).unwrap()
    }

    /// A broker that trusts it, and asks for proofs where the change says so.
    async fn stage(&self, version: Version, change: impl FnOnce(&mut Config)) -> Stage {
        let trust = |config: &mut Config| {
            let directory = config.rsp.registry.as_ref().and_then(|file| file.parent()).unwrap();
            let path = directory.join("ci.pem");
            std::fs::write(&path, self.0.ci_pem()).unwrap();
            config.rsp.proof_issuers = vec![path];
            change(config);
        };
        Stage::with(version, trust).await
    }
}

fn required(config: &mut Config) {
    config.rsp.settings.peer_proof = PeerProof::Required;
}

/// E1: a device asks another one.
fn req(by: u128, of: u128, gid: u64) -> String {
    envelope(of, gid, &kind_of("req", by))
}

/// E2 with this body.
fn profile(by: u128, to: u128, gid: u64, body: impl Into<Body>, wire: Wire) -> Vec<u8> {
    let envelope = Envelope::new(nid(to).get(), gid, Kind::Profile(nid(by).get()));
    envelope.with_body(body).encode(wire)
}

fn base64(bytes: &[u8]) -> Value {
    STANDARD.encode(bytes).into()
}

impl Stage {
    /// A profile that is taken: it reaches the new device, and the servers are told.
    async fn handed(&mut self, by: usize, to: usize, payload: &[u8]) {
        self.tell(by, TO_EUICC, payload).await;
        assert_eq!(self.client(to).expect_publish().await.payload, payload);
        self.client(to).barrier().await;
        let notice = self.client(SERVER).expect_payload().await;
        assert!(notice.contains(r#""event":"profile-change""#), "{notice}");
        self.nobody_else().await;
    }
}

#[tokio::test]
async fn a_proven_profile_is_handed_over_in_each_form() {
    let trust = Trust::new();
    for version in VERSIONS {
        let mut stage = trust.stage(version, required).await;
        for (seq, wire) in [(1, Wire::Json), (2, Wire::Json), (3, Wire::Cbor)] {
            stage.step(A, &req(1, 2, 7), &[B]).await;
            let notification = trust.notification(2, seq);
            let code = "LPA:1$smdp.example$X";
            let body: Body = match (seq, wire) {
                (_, Wire::Cbor) => notification.into(),
                (1, Wire::Json) => base64(&notification).into(),
                (_, Wire::Json) => {
                    json!({"activationCode": code, "pendingNotification": base64(&notification)})
                        .into()
                }
            };
            stage.handed(B, A, &profile(2, 1, 7, body, wire)).await;
        }
    }
}

#[tokio::test]
async fn without_a_proof_or_with_somebody_elses_it_stays_where_it_is() {
    let trust = Trust::new();
    for version in VERSIONS {
        let mut stage = trust.stage(version, required).await;
        stage.step(A, &req(1, 2, 7), &[B]).await;
        let mut bent = trust.notification(2, 1);
        let at = bent.len() / 2;
        bent[at] ^= 1;
        let stranger = Trust::new().notification(2, 1);
        let refused = [
            ("proof_missing", json!({"activationCode": "LPA:1$smdp.example$X"})),
            ("proof_missing", Value::Null),
            ("proof_invalid", json!("LPA:1$smdp.example$X")),
            ("proof_invalid", base64(&bent)),
            ("proof_invalid", base64(&stranger)),
            // What the new device has deleted is of no use to anybody here.
            ("proof_invalid", base64(&trust.notification(1, 1))),
            ("proof_invalid", base64(&trust.notification(3, 1))),
            ("proof_invalid", json!({"pendingNotification": "?"})),
        ];
        for (name, body) in refused {
            let payload = profile(2, 1, 7, body, Wire::Json);
            stage.refused(B, TO_EUICC, payload, name).await;
        }
        let cbor = profile(2, 1, 7, vec![0x30, 0], Wire::Cbor);
        stage.refused(B, TO_EUICC, cbor, "proof_invalid").await;
        // The exchange is open still.
        let proof = base64(&trust.notification(2, 1));
        stage.handed(B, A, &profile(2, 1, 7, proof, Wire::Json)).await;
    }
}

#[tokio::test]
async fn one_deletion_is_good_for_one_exchange() {
    let trust = Trust::new();
    let mut stage = trust.stage(Version::V5, required).await;
    stage.step(A, &req(1, 2, 7), &[B]).await;
    let first = trust.notification(2, 5);
    stage.handed(B, A, &profile(2, 1, 7, base64(&first), Wire::Json)).await;
    stage.step(C, &req(3, 2, 7), &[B]).await;
    // The same one, the same one signed again, and in another form.
    for notification in [first, trust.notification(2, 5)] {
        for payload in [
            profile(2, 3, 7, base64(&notification), Wire::Json),
            profile(2, 3, 7, notification, Wire::Cbor),
        ] {
            stage.refused(B, TO_EUICC, payload, "proof_invalid").await;
        }
    }
    // Another device's of the same number is another one.
    stage.step(A, &req(1, 3, 7), &[C]).await;
    let other = trust.notification(3, 5);
    stage.handed(C, A, &profile(3, 1, 7, base64(&other), Wire::Json)).await;
    let second = trust.notification(2, 6);
    stage.handed(B, C, &profile(2, 3, 7, base64(&second), Wire::Json)).await;
}

#[tokio::test]
async fn who_is_registered_again_has_deleted_nothing_anew() {
    let trust = Trust::new();
    let mut stage = trust.stage(Version::V5, required).await;
    stage.step(A, &req(1, 2, 7), &[B]).await;
    let first = base64(&trust.notification(2, 5));
    stage.handed(B, A, &profile(2, 1, 7, first.clone(), Wire::Json)).await;
    stage.rig.service.broker().with_control(|control| {
        assert!(control.remove_device(nid(2)).is_some());
        assert!(control.put_device(nid(2), &[gid(7)], "").unwrap().is_new);
    });
    let again = stage.client(B).subscribe(TO_EUICC, QoS::AtLeastOnce).await;
    assert!(!again.is_error());
    stage.step(C, &req(3, 2, 7), &[B]).await;
    let payload = profile(2, 3, 7, first, Wire::Json);
    stage.refused(B, TO_EUICC, payload, "proof_invalid").await;
    let second = base64(&trust.notification(2, 6));
    stage.handed(B, C, &profile(2, 3, 7, second, Wire::Json)).await;
}

#[tokio::test]
async fn a_proof_is_asked_for_where_the_settings_say_so() {
    let trust = Trust::new();
    let own = GroupSettings { peer_proof: Some(PeerProof::Required), ..GroupSettings::default() };
    let in_file = |config: &mut Config| drop(config.rsp.groups.insert(gid(7), own.clone()));
    for at_run_time in [false, true] {
        let mut stage = if at_run_time {
            let stage = trust.stage(Version::V5, |_config| {}).await;
            stage.set_group(7, own.clone());
            stage
        } else {
            trust.stage(Version::V5, in_file).await
        };
        let bare = |by, to, gid| profile(by, to, gid, Value::Null, Wire::Json);
        stage.step(A, &req(1, 2, 7), &[B]).await;
        stage.refused(B, TO_EUICC, bare(2, 1, 7), "proof_missing").await;
        stage.step(E, &req(5, 4, 8), &[D]).await;
        stage.handed(D, E, &bare(4, 5, 8)).await;
        stage.set_group(7, GroupSettings::default());
        // Nobody looks at what nobody asks for.
        stage.handed(B, A, &profile(2, 1, 7, json!("not a proof"), Wire::Json)).await;
    }
}

#[tokio::test]
async fn what_is_refused_leaves_no_trace_in_the_exchange() {
    let trust = Trust::new();
    let mut stage = trust.stage(Version::V5, required).await;
    stage.step(A, &req(1, 2, 7), &[B]).await;
    let state = |stage: &Stage| {
        let pair = Pair { from: nid(2), to: nid(1) };
        stage.rig.service.broker().with_control(|control| {
            let mut all = control.exchanges_behind(None);
            all.find(|(other, _)| *other == pair).map(|(_, exchange)| exchange.state)
        })
    };
    let payload = profile(2, 1, 7, Value::Null, Wire::Json);
    stage.refused(B, TO_EUICC, payload, "proof_missing").await;
    assert_eq!(state(&stage), Some(ExchangeState::Requested));
    // A proof for an exchange that nobody has asked for is not looked at, and not spent.
    let proof = base64(&trust.notification(2, 9));
    let unasked = profile(2, 3, 7, proof.clone(), Wire::Json);
    stage.refused(B, TO_EUICC, unasked, "exchange_unsolicited").await;
    stage.handed(B, A, &profile(2, 1, 7, proof, Wire::Json)).await;
    assert_eq!(state(&stage), Some(ExchangeState::Unreported));
}
