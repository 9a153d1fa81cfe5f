//! What the log says of logins, and what it must never say.

use std::io::Write;
use std::sync::{Arc, Mutex, OnceLock};

use simcast::mqtt::QoS;
use tracing_subscriber::fmt::MakeWriter;

use crate::common::Dial;
use crate::{BAD, Guarded, line, scram_line};

/// Every line of every broker of this process, at the level `trace`.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// Listens, once for all tests.
    fn listen() -> Self {
        static LOG: OnceLock<Log> = OnceLock::new();
        let start = || {
            let log = Self::default();
            let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE);
            subscriber.with_ansi(false).with_writer(log.clone()).init();
            log
        };
        LOG.get_or_init(start).clone()
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn passwords_hashes_and_keys_are_never_logged() {
    // case S18
    let log = Log::listen();
    let users = line("canary-user", "canary-right") + &scram_line("canary-scram", "canary-right");
    let guarded = Guarded::start(&users).await;
    let mut user = guarded.user("canary-user", "canary-right").await;
    user.publish("t", "canary-body", QoS::AtLeastOnce).await;
    assert_eq!(guarded.try_user("canary-user", "canary-wrong").await.err(), Some(BAD));
    assert_eq!(guarded.refuses(Dial::v5("c").user("canary-x", "canary-wrong")).await, BAD);
    let scram = crate::scram::log_in(&guarded, "canary-scram", "canary-right").await;
    scram.unwrap().disconnect().await;
    let broken = format!("{users}canary-plain:canary-secret\n");
    std::fs::write(&guarded.file, broken).unwrap();
    let error = guarded.rig.service.reload_passwords().unwrap_err();
    tracing::error!("{error} {error:?} {guarded:?}", guarded = guarded.rig.service);
    let text = log.text();
    assert!(text.contains("canary-user"), "the log is heard");
    let stored = users.lines().flat_map(|line| line.split(['$', ':'])).filter(|f| f.len() > 20);
    let secrets = ["canary-right", "canary-wrong", "canary-body", "canary-secret"];
    for secret in stored.chain(secrets) {
        assert!(!text.contains(secret), "{secret} is in the log");
    }
    let metrics = guarded.rig.metrics().await;
    assert!(!metrics.contains("canary"), "nor in the metrics");
}

#[tokio::test]
async fn a_user_name_that_contradicts_the_certificate_is_logged() {
    // case S15
    let log = Log::listen();
    let guarded = Guarded::start(&line("ann", "secret")).await;
    let device = guarded.rig.try_device(2, Dial::v5("c").user("contradiction", "x")).await;
    device.unwrap().disconnect().await;
    let text = log.text();
    let contradicted = text.lines().any(|line| {
        line.contains("said=contradiction") && line.contains("the proven identity, which holds")
    });
    assert!(contradicted, "{text}");
}
