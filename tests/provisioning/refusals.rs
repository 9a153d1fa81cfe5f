//! Every refusal that can be provoked over the wire: the reason code and its name in version 5; in
//! 3.1.1 a positive PUBACK, or the end of the connection for who claims to be somebody else. One
//! counter goes up by one, and nobody receives anything.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::time::Duration;

use simcast::client::payload::EuiccCa;
use simcast::clock::Clock;
use simcast::config::{Config, Server, Stamp, UnscopedServers};
use simcast::mqtt::{QoS, Version};
use simcast::rsp::{Flow, GroupSettings, Initiator, Mode, Peer, PeerProof, Rate, Refusal};

use crate::common::{TO_EUICC, TO_SM_SR, envelope, envelope_with, gid, kind_of, nid};
use crate::stage::{A, B, C, D, SERVER, SNOOP, STRANGER, Stage};

/// Refusals that have tests of their own, because no PUBLISH provokes them.
const ELSEWHERE: [(Refusal, &str); 1] = [(
    Refusal::SubscriptionNotPermitted,
    "only a SUBSCRIBE can be refused so: subscriptions.rs, what_nobody_may_subscribe_to",
)];

/// One way to be refused.
struct Case {
    refusal: Refusal,
    change: Option<fn(&mut Config)>,
    /// What must be taken before.
    before: Vec<Message>,
    wait: Duration,
    refused: Message,
}

struct Message {
    by: usize,
    topic: &'static str,
    payload: String,
    retain: bool,
}

impl Case {
    fn name(&self) -> String {
        let Message { by, topic, payload, .. } = &self.refused;
        let head: String = payload.chars().take(120).collect();
        format!("{} by {by} on {topic}: {head}", self.refusal)
    }

    fn given(mut self, before: impl IntoIterator<Item = Message>) -> Self {
        self.before.extend(before);
        self
    }

    fn with(mut self, change: fn(&mut Config)) -> Self {
        self.change = Some(change);
        self
    }

    /// It needs nothing but everybody on stage, and leaves everything as it was: what is refused
    /// changes nothing.
    fn is_simple(&self) -> bool {
        self.change.is_none() && self.before.is_empty()
    }

    fn after(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }
}

/// A message on `To_eUICC`.
fn down(by: usize, device: u128, gid: u64, kind: &str) -> Message {
    raw(by, TO_EUICC, &envelope(device, gid, kind))
}

/// A message on `To_SM-SR`.
fn up(by: usize, device: u128, gid: u64, kind: &str) -> Message {
    raw(by, TO_SM_SR, &envelope(device, gid, kind))
}

fn raw(by: usize, topic: &'static str, payload: &str) -> Message {
    Message { by, topic, payload: payload.to_owned(), retain: false }
}

fn case(refusal: Refusal, refused: Message) -> Case {
    Case { refusal, change: None, before: Vec::new(), wait: Duration::ZERO, refused }
}

/// E1: device 1 asks device 2.
fn e1() -> Message {
    down(A, 2, 7, &kind_of("req", 1))
}

/// E2: device 2 answers.
fn e2() -> Message {
    down(B, 1, 7, &kind_of("profile", 2))
}

fn cases() -> Vec<Case> {
    let mut cases = envelope_cases();
    cases.extend(direction_cases());
    cases.extend(identity_cases());
    cases.extend(scope_cases());
    cases.extend(permission_cases());
    cases.extend(option_cases());
    cases.extend(answer_cases());
    cases.extend(late_cases());
    cases.extend(exchange_cases());
    cases.extend(replaced_cases());
    cases.extend(proof_cases());
    cases.extend(quota_cases());
    cases
}

fn envelope_cases() -> Vec<Case> {
    let wrong_digits = format!("{}", nid(1).get() + 1);
    let bad_eid = format!(r#"{{"nid":"{wrong_digits}","gid":0,"type":"msg","body":0}}"#);
    let bad_peer = envelope(2, 7, &format!("req({wrong_digits})"));
    let twice = envelope_with(1, 0, "trigger", r#""nid":"0","body":1"#);
    let huge_gid = r#"{"nid":0,"gid":18446744073709551616,"type":"msg","body":0}"#;
    let no_body = format!(r#"{{"nid":"{}","gid":0,"type":"msg"}}"#, nid(1));
    let broken_body = envelope_with(1, 0, "trigger", r#""body":{"a":]"#);
    vec![
        case(Refusal::UnreadableEnvelope, raw(A, TO_SM_SR, "")),
        case(Refusal::UnreadableEnvelope, raw(A, TO_SM_SR, "{")),
        case(Refusal::UnreadableEnvelope, raw(A, TO_SM_SR, "[1,2]")),
        case(Refusal::UnreadableEnvelope, raw(A, TO_SM_SR, &twice)),
        case(Refusal::UnreadableEnvelope, raw(SERVER, TO_EUICC, &no_body)),
        case(Refusal::UnreadableEnvelope, raw(A, TO_SM_SR, &broken_body)),
        case(Refusal::UnknownType, down(SERVER, 1, 0, "install")),
        case(Refusal::UnknownType, up(A, 1, 0, "Trigger")),
        case(Refusal::UnknownType, down(A, 2, 7, "req()")),
        case(Refusal::BadEid, raw(SERVER, TO_EUICC, &bad_eid)),
        case(Refusal::BadEid, raw(A, TO_EUICC, &bad_peer)),
        case(Refusal::UnknownGid, raw(SERVER, TO_EUICC, huge_gid)),
        case(Refusal::BothZero, down(SERVER, 0, 0, "trigger")),
        case(Refusal::BothZero, up(A, 0, 0, "trigger")),
        case(Refusal::BothZero, down(A, 0, 0, &kind_of("req", 1))),
        case(Refusal::BothNonzero, down(SERVER, 1, 7, "msg")),
        case(Refusal::BothNonzero, up(A, 1, 7, "trigger")),
        case(Refusal::ExchangeNeedsBoth, down(A, 2, 0, &kind_of("req", 1))),
        case(Refusal::ExchangeNeedsBoth, down(A, 0, 7, &kind_of("req", 1))),
    ]
}

fn direction_cases() -> Vec<Case> {
    let retained = |message: Message| Message { retain: true, ..message };
    let request = kind_of("req", 1);
    vec![
        case(Refusal::RoleNotPermitted, down(SNOOP, 1, 0, "trigger")),
        case(Refusal::RoleNotPermitted, up(SNOOP, 1, 0, "trigger")),
        // Of what they say nothing is read.
        case(Refusal::RoleNotPermitted, raw(SNOOP, TO_EUICC, "{}")),
        case(Refusal::RoleNotPermitted, raw(SNOOP, TO_SM_SR, "")),
        case(Refusal::RoleNotPermitted, retained(raw(SNOOP, TO_EUICC, "{}"))),
        case(Refusal::RetainNotPermitted, retained(raw(A, TO_SM_SR, "{}"))),
        case(Refusal::RetainNotPermitted, retained(down(SERVER, 1, 0, "trigger"))),
        case(Refusal::RetainNotPermitted, retained(up(A, 1, 0, "trigger"))),
        case(Refusal::WrongTopic, up(A, 2, 7, &request)),
        case(Refusal::WrongTopic, down(A, 1, 0, "ret(msg)")),
        case(Refusal::WrongTopic, up(SERVER, 1, 0, "msg")),
        case(Refusal::ServerTypeFromDevice, down(A, 1, 0, "trigger")),
        case(Refusal::ServerTypeFromDevice, down(A, 2, 0, "msg")),
        case(Refusal::ServerTypeFromDevice, down(A, 0, 7, "msg")),
        case(Refusal::ServerTypeFromDevice, down(A, 0, 7, "ret(trigger)")),
        case(Refusal::ServerTypeFromDevice, up(A, 1, 0, "msg")),
        case(Refusal::DeviceTypeFromServer, down(SERVER, 2, 7, &request)),
        case(Refusal::DeviceTypeFromServer, down(SERVER, 1, 0, "ret(msg)")),
        case(Refusal::DeviceTypeFromServer, up(SERVER, 1, 0, "trigger")),
    ]
}

fn identity_cases() -> Vec<Case> {
    vec![
        case(Refusal::NotRegistered, up(STRANGER, 99, 0, "trigger")),
        case(Refusal::NotRegistered, up(STRANGER, 0, 7, "trigger")),
        case(Refusal::NotRegistered, down(STRANGER, 1, 7, &kind_of("req", 99))),
        case(Refusal::UnknownNid, down(SERVER, 50, 0, "trigger")),
        case(Refusal::UnknownNid, down(A, 50, 7, &kind_of("req", 1))),
        case(Refusal::UnknownGid, down(SERVER, 0, 999, "trigger")),
        case(Refusal::UnknownGid, down(A, 2, 999, &kind_of("req", 1))),
        case(Refusal::SpoofedNid, up(A, 2, 0, "trigger")),
        case(Refusal::SpoofedNid, up(A, 50, 0, "trigger")),
        case(Refusal::SpoofedNid, up(A, 2, 0, "ret(trigger)"))
            .given([down(SERVER, 2, 0, "trigger")]),
        case(Refusal::SpoofedNid, up(A, 2, 0, "ret(msg)")).given([down(SERVER, 2, 0, "msg")]),
        case(Refusal::ForeignGid, up(A, 0, 8, "trigger")),
        case(Refusal::ForeignGid, up(A, 0, 999, "trigger")),
        case(Refusal::ForeignGid, up(D, 0, 7, "ret(trigger)"))
            .given([down(SERVER, 0, 7, "trigger")]),
        case(Refusal::ForeignGid, up(D, 0, 7, "ret(msg)")).given([down(SERVER, 0, 7, "msg")]),
        case(Refusal::WrongPeer, down(A, 2, 7, &kind_of("req", 3))),
        case(Refusal::WrongPeer, down(B, 1, 7, &kind_of("profile", 3))).given([e1()]),
        case(Refusal::SamePeer, down(A, 1, 7, &kind_of("req", 1))),
        case(Refusal::CrossGroupExchange, down(A, 4, 7, &kind_of("req", 1))),
        case(Refusal::CrossGroupExchange, down(A, 4, 8, &kind_of("req", 1))),
        case(Refusal::CrossGroupExchange, down(A, 5, 8, &kind_of("req", 1))),
    ]
}

fn scope_cases() -> Vec<Case> {
    let of_8 = |config: &mut Config| {
        config.rsp.servers.insert("sm-sr.test".to_owned(), Server { groups: vec![gid(8)] });
    };
    let of_none = |config: &mut Config| config.rsp.unscoped_servers = UnscopedServers::None;
    vec![
        case(Refusal::OutOfScope, down(SERVER, 1, 0, "trigger")).with(of_8),
        case(Refusal::OutOfScope, down(SERVER, 1, 0, "msg")).with(of_8),
        case(Refusal::OutOfScope, down(SERVER, 6, 0, "msg")).with(of_8),
        case(Refusal::OutOfScope, down(SERVER, 0, 7, "trigger")).with(of_8),
        case(Refusal::OutOfScope, down(SERVER, 0, 7, "msg")).with(of_8),
        case(Refusal::OutOfScope, down(SERVER, 1, 0, "ret(trigger)"))
            .with(of_8)
            .given([up(A, 1, 0, "trigger")]),
        case(Refusal::OutOfScope, down(SERVER, 0, 8, "msg")).with(of_none),
        // Who is unknown is in nobody's scope.
        case(Refusal::UnknownNid, down(SERVER, 50, 0, "trigger")).with(of_8),
    ]
}

fn permission_cases() -> Vec<Case> {
    vec![
        case(Refusal::ModeNotPermitted, down(SERVER, 0, 7, "msg"))
            .with(|config| config.rsp.settings.mode = Mode::Single),
        case(Refusal::ModeNotPermitted, down(SERVER, 0, 7, "trigger"))
            .with(|config| config.rsp.settings.mode = Mode::Single),
        case(Refusal::ModeNotPermitted, down(SERVER, 1, 0, "msg"))
            .with(|config| config.rsp.settings.mode = Mode::Multi),
        case(Refusal::ModeNotPermitted, down(SERVER, 5, 0, "msg")).with(|config| {
            let own = GroupSettings { mode: Some(Mode::Multi), ..GroupSettings::default() };
            config.rsp.groups.insert(gid(8), own);
        }),
        case(Refusal::InitiatorNotPermitted, up(A, 1, 0, "trigger"))
            .with(|config| config.rsp.settings.initiator = Initiator::Server),
        case(Refusal::InitiatorNotPermitted, up(A, 0, 7, "trigger"))
            .with(|config| config.rsp.settings.initiator = Initiator::Server),
        case(Refusal::InitiatorNotPermitted, down(SERVER, 1, 0, "trigger"))
            .with(|config| config.rsp.settings.initiator = Initiator::Client),
        case(Refusal::InitiatorNotPermitted, down(SERVER, 0, 7, "trigger"))
            .with(|config| config.rsp.settings.initiator = Initiator::Client),
        case(Refusal::ConsentMissing, down(SERVER, 1, 0, "msg"))
            .with(|config| config.rsp.settings.flow = Flow::Strict),
        case(Refusal::PeerNotPermitted, e1()).with(|config| config.rsp.settings.peer = Peer::Off),
        case(Refusal::PeerNotPermitted, e1())
            .with(|config| config.rsp.settings.peer = Peer::ServerTriggered),
        case(Refusal::PeerNotPermitted, e1())
            .with(|config| config.rsp.settings.peer = Peer::ServerTriggered)
            // A trigger to the old device is none to the new one.
            .given([down(SERVER, 2, 0, "trigger")]),
    ]
}

fn answer_cases() -> Vec<Case> {
    let unsolicited = |message| case(Refusal::UnsolicitedAnswer, message);
    let duplicate = |message| case(Refusal::DuplicateAnswer, message);
    vec![
        unsolicited(up(A, 1, 0, "ret(trigger)")),
        unsolicited(up(A, 0, 7, "ret(trigger)")),
        unsolicited(up(A, 1, 0, "ret(msg)")),
        unsolicited(up(A, 0, 7, "ret(msg)")),
        unsolicited(down(SERVER, 1, 0, "ret(trigger)")),
        unsolicited(down(SERVER, 0, 7, "ret(trigger)")),
        // A trigger asks for no `ret(msg)`, and another device's request is not this one's.
        unsolicited(up(A, 1, 0, "ret(msg)")).given([down(SERVER, 1, 0, "trigger")]),
        unsolicited(up(A, 1, 0, "ret(msg)")).given([down(SERVER, 2, 0, "msg")]),
        // D2 mirrors its D1.
        unsolicited(down(SERVER, 0, 7, "ret(trigger)")).given([up(A, 1, 0, "trigger")]),
        duplicate(up(A, 1, 0, "ret(trigger)"))
            .given([down(SERVER, 1, 0, "trigger"), up(A, 1, 0, "ret(trigger)")]),
        // Whoever agreed in its own name has answered its group's trigger, and the reverse.
        duplicate(up(A, 0, 7, "ret(trigger)"))
            .given([down(SERVER, 0, 7, "trigger"), up(A, 1, 0, "ret(trigger)")]),
        duplicate(up(A, 1, 0, "ret(msg)"))
            .given([down(SERVER, 1, 0, "msg"), up(A, 1, 0, "ret(msg)")]),
        duplicate(up(A, 0, 7, "ret(msg)"))
            .given([down(SERVER, 0, 7, "msg"), up(A, 0, 7, "ret(msg)")]),
        duplicate(down(SERVER, 1, 0, "ret(trigger)"))
            .given([up(A, 1, 0, "trigger"), down(SERVER, 1, 0, "ret(trigger)")]),
        duplicate(down(SERVER, 0, 7, "ret(trigger)"))
            .given([up(A, 0, 7, "trigger"), down(SERVER, 0, 7, "ret(trigger)")]),
    ]
}

fn late_cases() -> Vec<Case> {
    let late = |asked, refused| {
        let brief = |config: &mut Config| {
            config.rsp.settings.ttl.trigger = Duration::from_millis(1);
            config.rsp.settings.ttl.msg = Duration::from_millis(1);
        };
        let case = case(Refusal::LateAnswer, refused);
        case.with(brief).given([asked]).after(Duration::from_millis(10))
    };
    vec![
        late(down(SERVER, 1, 0, "trigger"), up(A, 1, 0, "ret(trigger)")),
        late(down(SERVER, 0, 7, "trigger"), up(A, 0, 7, "ret(trigger)")),
        late(down(SERVER, 1, 0, "msg"), up(A, 1, 0, "ret(msg)")),
        late(down(SERVER, 0, 7, "msg"), up(A, 0, 7, "ret(msg)")),
    ]
}

/// What an envelope asks for besides its route.
fn option_cases() -> Vec<Case> {
    let with = |device, gid, kind: &str, rest: &str| {
        raw(SERVER, TO_EUICC, &envelope_with(device, gid, kind, rest))
    };
    let misplaced = |message| case(Refusal::OptionMisplaced, message);
    let unreadable = |body: &str| {
        let rest = format!(r#""parts":true,"body":{body}"#);
        case(Refusal::UnreadableParts, with(0, 7, "msg", &rest))
    };
    let part_of = |device| format!(r#""parts":true,"body":{{"parts":{{"{}":1}}}}"#, nid(device));
    let named_twice = format!(r#"{{"parts":{{"{0}":1,"{0}":2}}}}"#, nid(1));
    let long_tid = format!(r#""tid":"{}","body":1"#, "t".repeat(65));
    let forged = envelope_with(1, 0, "trigger", &format!(r#""src":"{}","body":1"#, nid(2)));
    vec![
        misplaced(with(1, 0, "msg", &part_of(1))),
        misplaced(with(0, 7, "trigger", &part_of(1))),
        // Whatever the body is: it belongs to messages to a group.
        misplaced(with(1, 0, "msg", r#""parts":true,"body":1"#)),
        misplaced(with(0, 7, "trigger", r#""parts":true,"body":1"#)),
        misplaced(raw(A, TO_SM_SR, &envelope_with(0, 7, "ret(msg)", r#""parts":true,"body":1"#))),
        case(Refusal::DeviceTypeFromServer, with(0, 7, "ret(msg)", r#""parts":true,"body":1"#)),
        misplaced(with(1, 0, "msg", r#""wave":1,"body":1"#)),
        misplaced(with(1, 0, "trigger", r#""wave":{"first":1},"body":1"#)),
        misplaced(with(1, 0, "trigger", r#""chunks":true,"body":1"#)),
        misplaced(with(1, 0, "msg", r#""reinstate":true,"body":1"#)),
        misplaced(with(0, 7, "trigger", r#""reinstate":true,"body":1"#)),
        misplaced(raw(A, TO_SM_SR, &envelope_with(1, 0, "trigger", r#""chunks":true,"body":1"#))),
        unreadable("1"),
        unreadable(r#"{"common":1}"#),
        unreadable(r#"{"parts":{},"common":1}"#),
        unreadable(r#"{"parts":{"1":1}}"#),
        unreadable(&named_twice),
        case(Refusal::ForeignPart, with(0, 7, "msg", &part_of(4))),
        case(Refusal::ForeignPart, with(0, 7, "msg", &part_of(50))),
        case(Refusal::UnreadableEnvelope, with(0, 7, "msg", r#""wave":0,"body":1"#)),
        case(Refusal::UnreadableEnvelope, with(0, 7, "msg", r#""parts":1,"body":1"#)),
        case(Refusal::UnreadableEnvelope, with(0, 7, "msg", r#""chunks":"yes","body":1"#)),
        case(Refusal::UnreadableEnvelope, with(0, 7, "msg", &long_tid)),
        case(Refusal::SrcReserved, raw(A, TO_SM_SR, &forged)),
        case(Refusal::SrcReserved, raw(A, TO_SM_SR, &forged))
            .with(|config| config.rsp.stamp = Stamp::Member),
    ]
}

fn exchange_cases() -> Vec<Case> {
    let ttl = Duration::from_secs(1);
    vec![
        case(Refusal::ExchangeAlreadyOpen, e1()).given([e1()]),
        case(Refusal::ExchangeRepeated, e2()).given([e1(), e2()]),
        case(Refusal::ExchangeUnsolicited, e2()),
        case(Refusal::ExchangeUnsolicited, down(A, 2, 7, &kind_of("profile", 1))).given([e1()]),
        case(Refusal::ExchangeLate, e2())
            .with(|config| config.rsp.settings.ttl.exchange = Duration::from_secs(1))
            .given([e1()])
            .after(ttl + Duration::from_millis(5)),
        case(Refusal::ConditionsDiffer, e1())
            .with(|config| config.rsp.settings.conditions = vec!["operator".to_owned()]),
    ]
}

/// Device 2 has given its profile to device 1.
fn replaced_cases() -> Vec<Case> {
    let replaced = |message| {
        let case = case(Refusal::DeviceReplaced, message).with(|config| config.rsp.retire = true);
        case.given([e1(), e2()])
    };
    vec![replaced(down(SERVER, 2, 0, "msg")), replaced(down(C, 2, 7, &kind_of("req", 3)))]
}

/// What the old eUICC has to sign; proofs.rs has more of them.
fn proof_cases() -> Vec<Case> {
    let required = |config: &mut Config| {
        let directory = config.rsp.registry.as_ref().and_then(|file| file.parent()).unwrap();
        let path = directory.join("ci.pem");
        std::fs::write(&path, EuiccCa::new(Clock::start().now()).unwrap().ci_pem()).unwrap();
        config.rsp.proof_issuers = vec![path];
        config.rsp.settings.peer_proof = PeerProof::Required;
    };
    let broken = envelope_with(1, 7, &kind_of("profile", 2), r#""body":"not base64""#);
    vec![
        case(Refusal::ProofMissing, e2()).with(required).given([e1()]),
        case(Refusal::ProofInvalid, raw(B, TO_EUICC, &broken)).with(required).given([e1()]),
        // Nobody learns by a proof that nobody asked.
        case(Refusal::ExchangeUnsolicited, e2()).with(required),
    ]
}

fn quota_cases() -> Vec<Case> {
    let large = envelope_with(1, 0, "msg", &format!(r#""body":"{}""#, "x".repeat(1000)));
    vec![
        case(Refusal::TooLarge, raw(SERVER, TO_EUICC, &large))
            .with(|config| config.rsp.body_bytes_max = 1000),
        case(Refusal::TooLargeForDevice, raw(SERVER, TO_EUICC, &large))
            .with(|config| config.rsp.settings.chunk = 1000),
        case(Refusal::TooLargeForDevice, raw(SERVER, TO_EUICC, &large)).with(|config| {
            let own = GroupSettings { chunk: Some(1000), ..GroupSettings::default() };
            config.rsp.groups.insert(gid(7), own);
        }),
        case(Refusal::TriggerRate, up(A, 0, 7, "trigger"))
            .with(|config| config.rsp.settings.trigger_rate.device = rate())
            .given([up(A, 1, 0, "trigger")]),
        case(Refusal::TriggerRate, e1())
            .with(|config| config.rsp.settings.trigger_rate.group = rate())
            .given([up(B, 0, 7, "trigger")]),
        // Device 10, alone in group 9, never connects.
        case(Refusal::OverQuota, down(SERVER, 10, 0, "msg"))
            .with(|config| config.rsp.mail_messages_max = 1)
            .given([down(SERVER, 10, 0, "msg")]),
        case(Refusal::OverQuota, down(SERVER, 0, 9, "msg"))
            .with(|config| config.rsp.group_messages_max = 1)
            .given([down(SERVER, 0, 9, "msg")]),
    ]
}

/// Once an hour.
fn rate() -> Rate {
    Rate::new(1, Duration::from_secs(3600))
}

#[test]
fn every_refusal_has_a_case() {
    let cases = cases();
    for refusal in Refusal::ALL {
        let has_case = cases.iter().any(|case| case.refusal == *refusal);
        let elsewhere = ELSEWHERE.iter().any(|(other, _)| other == refusal);
        assert!(has_case != elsewhere, "{refusal}");
    }
}

#[tokio::test]
async fn version_5_is_told_code_and_name() {
    let mut shared = Stage::start(Version::V5).await;
    for case in cases() {
        let mut own = None;
        let stage = match case.is_simple() {
            true => &mut shared,
            false => own.insert(prepared(Version::V5, &case).await),
        };
        let before = stage.rig.metrics().await;
        let Message { by, topic, payload, retain } = &case.refused;
        let qos = QoS::AtLeastOnce;
        let answer = stage.client(*by).publish_with(topic, payload, qos, *retain, None).await;
        assert_eq!(answer.reason, case.refusal.reason_code(), "{}", case.name());
        let text = answer.text.unwrap();
        let (name, rest) = text.split_once("; ").unwrap_or((&text, ""));
        assert_eq!(name, case.refusal.name(), "{}", case.name());
        let says_when = rest.starts_with("retry-after=");
        assert_eq!(says_when, case.refusal == Refusal::TriggerRate, "{text}: {}", case.name());
        stage.nobody_else().await;
        counted_once(stage, &before, &case).await;
    }
}

#[tokio::test]
async fn before_version_5_it_is_acknowledged_and_dropped() {
    let mut shared = Stage::start(Version::V311).await;
    for case in cases().into_iter().filter(|case| !case.refusal.is_identity_violation()) {
        let mut own = None;
        let stage = match case.is_simple() {
            true => &mut shared,
            false => own.insert(prepared(Version::V311, &case).await),
        };
        let before = stage.rig.metrics().await;
        let Message { by, topic, payload, retain } = &case.refused;
        let qos = QoS::AtLeastOnce;
        let answer = stage.client(*by).publish_with(topic, payload, qos, *retain, None).await;
        assert!(answer.is_ok(), "{}", case.name());
        stage.nobody_else().await;
        counted_once(stage, &before, &case).await;
    }
}

#[tokio::test]
async fn before_version_5_an_impostor_is_disconnected() {
    for case in cases().into_iter().filter(|case| case.refusal.is_identity_violation()) {
        let mut stage = prepared(Version::V311, &case).await;
        let before = stage.rig.metrics().await;
        let mut impostor = stage.take(case.refused.by);
        impostor.throw(case.refused.topic, &case.refused.payload).await;
        impostor.expect_closed().await;
        stage.nobody_else().await;
        counted_once(&stage, &before, &case).await;
        let closed = "simcast_disconnects_total{reason=\"identity_violation\"}";
        assert_eq!(stage.rig.counter(closed).await, 1, "{}", case.name());
    }
}

#[tokio::test]
async fn qos_2_and_qos_0_are_refused_as_well() {
    let mut stage = Stage::start(Version::V5).await;
    let spoof = envelope(2, 0, "trigger");
    let answer = stage.client(A).publish(TO_SM_SR, &spoof, QoS::ExactlyOnce).await;
    assert_eq!(answer.text.as_deref(), Some("spoofed_nid"));
    stage.client(A).publish(TO_SM_SR, &spoof, QoS::AtMostOnce).await;
    stage.nobody_else().await;
    assert_eq!(stage.rig.refusals("spoofed_nid").await, 2);
}

#[tokio::test]
async fn an_impostor_may_stay_where_the_configuration_says_so() {
    let change = |config: &mut Config| config.rsp.close_on_identity_violation = false;
    let mut stage = Stage::with(Version::V311, change).await;
    let spoof = envelope(2, 0, "trigger");
    assert!(stage.publish(A, TO_SM_SR, &spoof).await.is_ok());
    assert!(stage.publish(A, TO_SM_SR, &envelope(0, 8, "trigger")).await.is_ok());
    stage.nobody_else().await;
    assert_eq!(stage.rig.refusals("spoofed_nid").await, 1);
    assert_eq!(stage.rig.refusals("foreign_gid").await, 1);
}

/// Everybody on stage, and all done that the case needs before.
async fn prepared(version: Version, case: &Case) -> Stage {
    let mut stage = Stage::with(version, case.change.unwrap_or(|_config| {})).await;
    for message in &case.before {
        stage.tell(message.by, message.topic, &message.payload).await;
    }
    stage.drain().await;
    // Nothing but time itself makes a request late.
    tokio::time::sleep(case.wait).await;
    stage
}

/// One refusal more, of this name and of no other.
async fn counted_once(stage: &Stage, before: &str, case: &Case) {
    let after = stage.rig.metrics().await;
    let one = format!("simcast_rsp_refusals_total{{reason=\"{}\"}}", case.refusal);
    for series in [one.as_str(), "simcast_rsp_refusals_total{"] {
        let sum = |metrics| crate::common::rig::sum(metrics, series);
        assert_eq!(sum(&after), sum(before) + 1, "{series}: {}", case.name());
    }
}
