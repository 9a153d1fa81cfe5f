//! What an in-process server says: whom it reaches, whom it does not, and how it is refused.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use simcast::mqtt::ReasonCode;
use simcast::rsp::Refusal;
use simcast::service::embedded::{Envelope, Refused};
use simcast::session::Routed;

use crate::common::{TO_SM_SR, envelope, envelope_with, gid, nid};
use crate::house::{House, at_once, text};

#[tokio::test]
async fn what_is_addressed_reaches_whom_it_is_for_and_nobody_else() {
    let house = House::open().await;
    let sm_sr = house.sm_sr().await;
    let devices = [house.device(1).await, house.device(2).await, house.device(3).await];
    let cases = [
        (Envelope::trigger_device(nid(1)), [true, false, false]),
        (Envelope::trigger_group(gid(7)), [true, true, false]),
        (Envelope::message_device(nid(3)), [false, false, true]),
        (Envelope::message_group(gid(8)), [false, false, true]),
    ];
    for (number, (envelope, receivers)) in cases.into_iter().enumerate() {
        let envelope = envelope.with_tid(number as i128).with_body(json!({"n": number}));
        let payload = bytes::Bytes::from(envelope.clone());
        sm_sr.publish(envelope).await.unwrap();
        for (device, receives) in devices.iter().zip(receivers) {
            let expected: Vec<String> = receives.then(|| text(&payload)).into_iter().collect();
            assert_eq!(device.mail(), expected);
        }
    }
}

#[tokio::test]
async fn a_device_that_is_away_finds_its_mail() {
    let house = House::open().await;
    let sm_sr = house.sm_sr().await;
    sm_sr.publish(Envelope::trigger_device(nid(1))).await.unwrap();
    sm_sr.publish(Envelope::message_group(gid(7))).await.unwrap();
    drop(sm_sr);
    assert_eq!(house.device(1).await.mail().len(), 2);
    assert_eq!(house.device(2).await.mail().len(), 1);
    assert_eq!(house.device(3).await.mail(), [""; 0]);
}

#[tokio::test]
async fn refusals_are_values_with_names_and_change_nothing() {
    let house = House::with(|config| config.rsp.body_bytes_max = 1000).await;
    let mut sm_sr = house.sm_sr().await;
    let device = house.device(1).await;
    let large = envelope_with(1, 0, "msg", &format!(r#""body":"{}""#, "x".repeat(1000)));
    let wrong_digits = envelope(1, 0, "trigger").replace(&nid(1).to_string(), "123");
    let cases = [
        (envelope(99, 0, "trigger"), Refusal::UnknownNid),
        (envelope(0, 99, "msg"), Refusal::UnknownGid),
        (envelope(0, 0, "trigger"), Refusal::BothZero),
        (envelope(1, 7, "msg"), Refusal::BothNonzero),
        (envelope(1, 0, "ret(msg)"), Refusal::DeviceTypeFromServer),
        (envelope(1, 7, &format!("req({})", nid(2))), Refusal::DeviceTypeFromServer),
        (envelope(1, 0, "ret(trigger)"), Refusal::UnsolicitedAnswer),
        (envelope(1, 0, "install"), Refusal::UnknownType),
        (wrong_digits, Refusal::BadEid),
        ("{".to_owned(), Refusal::UnreadableEnvelope),
        (large, Refusal::TooLarge),
    ];
    for (payload, refusal) in cases {
        let before = house.refusals(refusal.name());
        let refused = sm_sr.publish(payload.clone()).await.unwrap_err();
        assert_eq!(refused, Refused::ByRule(refusal), "{payload}");
        assert_eq!(refused.name(), refusal.name());
        assert_eq!(refused.reason(), refusal.reason_code());
        assert_eq!(refused.to_string(), format!("{refusal}: {}", refused.sentence()));
        assert_eq!(house.refusals(refusal.name()), before + 1, "{payload}");
    }
    assert_eq!(device.mail(), [""; 0], "nothing refused is delivered");
    assert!(at_once(&mut sm_sr).await.is_none());
    sm_sr.publish(envelope(1, 0, "trigger")).await.unwrap();
    assert_eq!(device.mail().len(), 1, "and what is permitted is");
}

#[tokio::test]
async fn a_full_mailbox_refuses_and_takes_again_when_it_is_read() {
    let house = House::with(|config| config.rsp.mail_messages_max = 2).await;
    let sm_sr = house.sm_sr().await;
    let letter = || Envelope::message_device(nid(1));
    sm_sr.publish(letter()).await.unwrap();
    sm_sr.publish(letter()).await.unwrap();
    let full = sm_sr.publish(letter()).await;
    assert_eq!(full, Err(Refused::ByRule(Refusal::OverQuota)));
    assert_eq!(full.unwrap_err().reason(), ReasonCode::QuotaExceeded);
    sm_sr.publish(Envelope::message_device(nid(2))).await.unwrap();
    assert_eq!(house.device(1).await.mail().len(), 2);
    sm_sr.publish(letter()).await.unwrap();
}

#[tokio::test]
async fn an_answer_needs_a_question_and_mirrors_it() {
    let house = House::open().await;
    let mut sm_sr = house.sm_sr().await;
    let (asking, member) = (house.device(1).await, house.device(2).await);
    for (wish, receivers) in [
        (envelope_with(1, 0, "trigger", r#""tid":"a","body":1"#), [1, 0]),
        (envelope_with(0, 7, "trigger", r#""tid":"b","body":1"#), [1, 1]),
    ] {
        assert_eq!(asking.publish(TO_SM_SR, wish).await, Routed::Accepted);
        let received = at_once(&mut sm_sr).await.unwrap();
        let (head, sender) = (received.head().unwrap(), received.sender());
        assert_eq!(sender, Some(nid(1)), "also where the envelope names a group alone");
        received.acknowledge();
        sm_sr.publish(Envelope::answer_trigger(&head)).await.unwrap();
        let again = sm_sr.publish(Envelope::answer_trigger(&head)).await;
        assert_eq!(again, Err(Refused::ByRule(Refusal::DuplicateAnswer)));
        assert_eq!([asking.mail().len(), member.mail().len()], receivers);
    }
}

#[tokio::test]
async fn what_is_of_no_use_later_is_not_delivered_later() {
    let house = House::open().await;
    let sm_sr = house.sm_sr().await;
    let letter = |n| Envelope::message_device(nid(1)).with_body(json!(n));
    sm_sr.publish_expiring(letter(1), Duration::ZERO).await.unwrap();
    sm_sr.publisher().publish_expiring(letter(2), Duration::from_secs(3600)).await.unwrap();
    sm_sr.publish(letter(3)).await.unwrap();
    let mail = house.device(1).await.mail();
    assert_eq!(mail, [2, 3].map(|n| text(&bytes::Bytes::from(letter(n)))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_of_many_tasks_keeps_its_order() {
    const TASKS: usize = 8;
    const LETTERS: usize = 100;
    let house = House::open().await;
    let sm_sr = house.sm_sr().await;
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..TASKS {
        let publisher = sm_sr.publisher();
        tasks.spawn(async move {
            for letter in 0..LETTERS {
                let body = json!([task, letter]);
                let envelope = Envelope::message_device(nid(1)).with_body(body);
                publisher.publish(envelope).await.unwrap();
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    let mut next = [0; TASKS];
    for text in house.device(1).await.mail() {
        let envelope: serde_json::Value = serde_json::from_str(&text).unwrap();
        let [task, letter] = [0, 1].map(|at| envelope["body"][at].as_u64().unwrap() as usize);
        assert_eq!(letter, next[task], "task {task}");
        next[task] += 1;
    }
    assert_eq!(next, [LETTERS; TASKS]);
}

/// What this process logs, as text.
#[derive(Clone, Default)]
struct Pages(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Pages {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn the_log_says_who_was_refused_and_no_body() {
    let (pages, name) = (Pages::default(), "sm-sr\u{202e}.log");
    let writer = pages.clone();
    tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).init();
    let house = House::open().await;
    let sm_sr = house.service.sm_sr(name).await.unwrap();
    let secret = envelope_with(99, 0, "msg", r#""body":"a secret""#);
    sm_sr.publish(secret).await.unwrap_err();
    sm_sr.close();
    // Other tests write beside it.
    let text = text(&pages.0.lock().unwrap());
    let about = |part: &str| {
        let mut lines = text.lines().filter(|line| line.contains(part));
        lines.find(|line| line.contains("sm-sr\\u{202e}.log")).unwrap_or_default()
    };
    let refusal = about("refused: No such device in the registry");
    for part in ["WARN", "refusal=\"unknown_nid\"", "role=Server", "peer=in-process"] {
        assert!(refusal.contains(part), "{part}: {refusal}");
    }
    for line in [about(" connected"), about("disconnected: closed by the program")] {
        assert!(line.contains("INFO") && line.contains("peer=in-process"), "{text}");
    }
    assert!(!text.contains("a secret"), "{text}");
}
