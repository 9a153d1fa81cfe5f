//! Bad input on every port: whoever sends it is closed and counted, and everybody else goes on.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "../common/mod.rs"]
mod common;

mod bytes;
mod certificates;
mod corpus;
mod envelopes;
mod strangers;

use common::{Client, Dial, Rig};
use simcast::mqtt::QoS;

/// Two clients that mind their own business meanwhile.
struct Bystanders {
    speaker: Client,
    listener: Client,
    said: usize,
}

impl Bystanders {
    async fn join(rig: &Rig) -> Self {
        let speaker = rig.client(Dial::v5("speaker")).await;
        let mut listener = rig.client(Dial::v311("listener")).await;
        listener.subscribe("business", QoS::ExactlyOnce).await;
        Self { speaker, listener, said: 0 }
    }

    /// What one says the other hears, and nothing else.
    async fn work(&mut self) {
        self.said += 1;
        let text = self.said.to_string();
        assert!(self.speaker.publish("business", &text, QoS::ExactlyOnce).await.is_ok());
        assert_eq!(self.listener.expect_payload().await, text);
    }

    /// Nothing else has come to either.
    async fn rest(mut self) {
        self.speaker.expect_nothing().await;
        self.listener.expect_nothing().await;
    }
}

/// Numbers that are the same in every run.
struct Dice(u64);

impl Dice {
    fn throw(&mut self) -> u64 {
        // Knuth's MMIX; the low bits are poor, so they are left out.
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| u8::try_from(self.throw() & 0xff).unwrap()).collect()
    }
}
