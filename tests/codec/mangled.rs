//! Packets cut short, drawn out and bent, and bytes that are no packets at all: an error with a
//! name, or the right packet, but never a panic.

use bytes::{Bytes, BytesMut};
use simcast::mqtt::{DecodeError, Packet, Sender, Version, decode, encode, frame_len};

use crate::build::frame;
use crate::corpus::{Case, Verdict, cases};

const VERSIONS: [Version; 3] = [Version::V31, Version::V311, Version::V5];
const SENDERS: [Sender; 2] = [Sender::Client, Sender::Server];

/// Decodes as everything, and holds what is accepted against its own encoding.
fn decode_every_way(bytes: &Bytes) {
    for version in VERSIONS {
        for from in SENDERS {
            let Ok(packet) = decode(bytes.clone(), version, from) else { continue };
            let mut out = BytesMut::new();
            encode(&packet, version, &mut out);
            assert_eq!(decode(out.freeze(), version, from), Ok(packet), "{bytes:?}");
        }
    }
}

fn accepted() -> impl Iterator<Item = Case> {
    cases().into_iter().filter(|case| case.verdict != Verdict::Reject)
}

/// The packet behind its fixed header.
fn body(frame: &Bytes) -> Bytes {
    let header = 2 + frame[1..].iter().take_while(|&&byte| byte >= 0x80).count();
    frame.slice(header..)
}

// case P1
#[test]
fn every_string_of_up_to_three_bytes() {
    for first in 0..=255u8 {
        decode_every_way(&Bytes::copy_from_slice(&[first]));
        for second in 0..=255u8 {
            decode_every_way(&Bytes::copy_from_slice(&[first, second]));
            for third in 0..=255u8 {
                let len = frame_len(&[first, second, third]);
                if first < 0x10 {
                    assert_eq!(len, Err(DecodeError::PacketType));
                }
                // Elsewhere the third byte is beyond the packet, or the packet beyond it.
                if len == Ok(Some(3)) {
                    decode_every_way(&Bytes::copy_from_slice(&[first, second, third]));
                }
            }
        }
    }
}

// case P1
#[test]
fn every_first_byte_with_bodies_of_every_short_length() {
    let fill: [&[u8]; 6] =
        [&[0], &[1], &[0, 1], &[0, 4, b'M', b'Q', b'T', b'T', 5, 2], &[0x26], &[0xFF]];
    for first in 0x10..=255 {
        for len in 0..=24 {
            for pattern in fill {
                let body: Vec<u8> = pattern.iter().copied().cycle().take(len).collect();
                decode_every_way(&frame(first, &body));
            }
        }
    }
}

// case P2
#[test]
fn a_fifth_length_byte_is_never_read() {
    for first in 0x10..=255 {
        let bytes = [first, 0xFF, 0xFF, 0xFF, 0xFF];
        for end in 1..5 {
            assert_eq!(frame_len(&bytes[..end]), Ok(None));
        }
        assert_eq!(frame_len(&bytes), Err(DecodeError::VarintTooLong));
    }
    // case P3
    assert_eq!(frame_len(&[0x30, 0xFF, 0xFF, 0xFF, 0x7F]), Ok(Some(268_435_460)));
}

// case P4
#[test]
fn a_cut_packet_is_incomplete() {
    for case in accepted() {
        let whole = case.frame.len();
        for cut in 0..whole {
            let part = case.frame.slice(..cut);
            let len = frame_len(&part);
            assert!(len == Ok(None) || len == Ok(Some(whole)), "{} at {cut}", case.name());
            let decoded = decode(part, case.version, Sender::Client);
            assert_eq!(decoded, Err(DecodeError::Truncated), "{} at {cut}", case.name());
        }
    }
}

/// Packets in which a shorter body, or a longer one, can be another packet of the same type.
fn has_open_end(packet: &Packet, version: Version) -> bool {
    match packet {
        Packet::Publish(_) => true,
        Packet::Subscribe(_) | Packet::Unsubscribe(_) => true,
        Packet::PubAck(_)
        | Packet::PubRec(_)
        | Packet::PubRel(_)
        | Packet::PubComp(_)
        | Packet::Disconnect(_)
        | Packet::Auth(_) => version == Version::V5,
        Packet::Connect(_)
        | Packet::ConnAck(_)
        | Packet::SubAck(_)
        | Packet::UnsubAck(_)
        | Packet::PingReq
        | Packet::PingResp => false,
    }
}

// case P4
#[test]
fn a_body_cut_anywhere_is_malformed_or_a_shorter_packet() {
    let mut shorter = 0;
    for case in accepted() {
        let packet = case.decode().unwrap();
        let body = body(&case.frame);
        for cut in 0..body.len() {
            let cut_frame = frame(case.frame[0], &body[..cut]);
            decode_every_way(&cut_frame);
            let decoded = decode(cut_frame, case.version, Sender::Client);
            shorter += usize::from(decoded.is_ok());
            let explained = decoded.is_err() || has_open_end(&packet, case.version);
            assert!(explained, "{} at {cut}: {decoded:?}", case.name());
        }
    }
    assert!(shorter > 20, "no shorter packet was met: {shorter}");
}

// case P5
#[test]
fn trailing_bytes_inside_the_frame() {
    for case in accepted() {
        let packet = case.decode().unwrap();
        let body = body(&case.frame);
        for extra in 1..=64 {
            for fill in [0x00, 0x01, 0x26, 0xFF] {
                let long = frame(case.frame[0], &[&body[..], &vec![fill; extra]].concat());
                decode_every_way(&long);
                let decoded = decode(long, case.version, Sender::Client);
                let name = format!("{} {extra} of {fill}: {decoded:?}", case.name());
                match (&packet, decoded) {
                    (Packet::Publish(was), Ok(Packet::Publish(is))) => {
                        assert_eq!(is.payload.len(), was.payload.len() + extra, "{name}");
                    }
                    (Packet::Publish(_) | Packet::Subscribe(_) | Packet::Unsubscribe(_), Ok(_))
                    | (Packet::Publish(_), Err(_)) => panic!("{name}"),
                    (_, Err(_)) => {}
                    (_, Ok(_)) => assert!(has_open_end(&packet, case.version), "{name}"),
                }
            }
        }
    }
}

// case P5
#[test]
fn trailing_bytes_behind_the_frame() {
    for case in accepted() {
        for extra in 1..=64 {
            let long = Bytes::from([&case.frame[..], &vec![0; extra]].concat());
            let decoded = decode(long, case.version, Sender::Client);
            assert_eq!(decoded, Err(DecodeError::TrailingBytes), "{}", case.name());
        }
    }
}

// case P6
#[test]
fn reserved_header_flags() {
    let bodies: [(u8, &[u8], &[u8], Sender); 13] = [
        (
            0x10,
            b"\0\x04MQTT\x04\x02\0\0\0\x01c",
            b"\0\x04MQTT\x05\x02\0\0\0\0\x01c",
            Sender::Client,
        ),
        (0x20, b"\0\0", b"\0\0\0", Sender::Server),
        (0x40, b"\0\x07", b"\0\x07", Sender::Client),
        (0x50, b"\0\x07", b"\0\x07", Sender::Client),
        (0x62, b"\0\x07", b"\0\x07", Sender::Client),
        (0x70, b"\0\x07", b"\0\x07", Sender::Client),
        (0x82, b"\0\x07\0\x01t\0", b"\0\x07\0\0\x01t\0", Sender::Client),
        (0x90, b"\0\x07\0", b"\0\x07\0\0", Sender::Server),
        (0xA2, b"\0\x07\0\x01t", b"\0\x07\0\0\x01t", Sender::Client),
        (0xB0, b"\0\x07", b"\0\x07\0\0", Sender::Server),
        (0xC0, b"", b"", Sender::Client),
        (0xD0, b"", b"", Sender::Server),
        (0xE0, b"", b"", Sender::Client),
    ];
    for (right, v3, v5, from) in bodies {
        for flags in 0..16 {
            let first = right & 0xF0 | flags;
            for (version, body) in [(Version::V311, v3), (Version::V5, v5)] {
                let decoded = decode(frame(first, body), version, from);
                if first == right {
                    assert!(decoded.is_ok(), "{first:#x} {version:?} {decoded:?}");
                } else {
                    assert_eq!(decoded, Err(DecodeError::HeaderFlags), "{first:#x} {version:?}");
                }
            }
            // 3.1 forbids none of them.
            let body = if right == 0x10 { &b"\0\x06MQIsdp\x03\x02\0\0\0\x01c"[..] } else { v3 };
            let decoded = decode(frame(first, body), Version::V31, from);
            assert!(decoded.is_ok(), "{first:#x} {decoded:?}");
        }
    }
    for flags in (0..16).filter(|&flags| flags != 0) {
        let auth = frame(0xF0 | flags, b"");
        assert_eq!(decode(auth, Version::V5, Sender::Client), Err(DecodeError::HeaderFlags));
    }
    let dup = frame(0x38, b"\0\x01t");
    let decoded = decode(dup, Version::V31, Sender::Client);
    assert!(matches!(decoded, Ok(Packet::Publish(packet)) if !packet.dup));
}

#[test]
fn every_byte_of_every_packet_bent() {
    for case in cases().into_iter().filter(|case| case.frame.len() < 200) {
        for at in 0..case.frame.len() {
            for bent in [0x00, 0x01, 0x7F, 0x80, 0xFF, case.frame[at] ^ 0x01, case.frame[at] ^ 0x80]
            {
                let mut bytes = case.frame.to_vec();
                bytes[at] = bent;
                decode_every_way(&Bytes::from(bytes));
            }
        }
    }
}
