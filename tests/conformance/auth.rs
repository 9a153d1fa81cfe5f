//! Enhanced authentication (sections 3.15 and 4.12 of version 5).

use simcast::mqtt::{ReasonCode, Version};

use crate::common::Rig;
use crate::{connect_head, ends, field, frame, last_words};

/// A CONNECT with this authentication method.
fn with_method(method: &[u8]) -> Vec<u8> {
    let head = connect_head(Version::V5, 0x02);
    let property = [&[0x15], &field(method)[..]].concat();
    let (before, _no_properties) = head.split_at(head.len() - 1);
    let length = [u8::try_from(property.len()).unwrap()];
    frame(0x10, &[before, &length, &property, &field(b"c")].concat())
}

/// 5: [MQTT-4.12.0-1]
#[tokio::test]
async fn a_method_that_nobody_knows_is_refused_by_name() {
    // case P25
    let rig = Rig::start().await;
    for method in [&b"NOBODY-KNOWS"[..], b"", b"SCRAM-SHA-256\xc2\xa0"] {
        let said = last_words(&rig, &with_method(method)).await;
        assert_eq!((said[0], said[3]), (0x20, 0x8C), "{said:02x?}");
    }
}

/// 5: [MQTT-4.12.0-7] [MQTT-4.12.0-6]
#[tokio::test]
async fn without_a_method_there_is_no_auth() {
    // case P25
    let rig = Rig::start().await;
    for reason in [0x18, 0x19] {
        let auth = frame(0xF0, &[&[reason, 4, 0x15, 0, 1][..], b"m"].concat());
        ends(&rig, Version::V5, &auth, ReasonCode::ProtocolError).await;
    }
    ends(&rig, Version::V5, b"\xf0\0", ReasonCode::ProtocolError).await;
}
