//! Who may send what, and the packets of servers, as a client or a bridge reads them.

use bytes::BytesMut;
use simcast::mqtt::{
    CheckError, ConnAck, DecodeError, Packet, ReasonCode, Sender, SubAck, Version, decode, encode,
};

use crate::build::{Place, frame};
use crate::corpus::bytes;

const VERSIONS: [Version; 3] = [Version::V31, Version::V311, Version::V5];

fn from_server(hex: &str, version: Version) -> Result<Packet, DecodeError> {
    decode(bytes(hex), version, Sender::Server)
}

// case P8
#[test]
fn each_type_has_its_direction() {
    let client_only: [u8; 4] = [0x10, 0x82, 0xA2, 0xC0];
    let server_only: [u8; 4] = [0x20, 0x90, 0xB0, 0xD0];
    for version in VERSIONS {
        for first in client_only {
            let decoded = decode(frame(first, b""), version, Sender::Server);
            assert_eq!(decoded, Err(DecodeError::WrongDirection), "{first:#x} {version:?}");
        }
        for first in server_only {
            let decoded = decode(frame(first, b""), version, Sender::Client);
            assert_eq!(decoded, Err(DecodeError::WrongDirection), "{first:#x} {version:?}");
        }
    }
    for version in [Version::V31, Version::V311] {
        let disconnect = from_server("e000", version);
        assert_eq!(disconnect, Err(DecodeError::WrongDirection), "{version:?}");
        for from in [Sender::Client, Sender::Server] {
            let auth = decode(bytes("f000"), version, from);
            assert_eq!(auth, Err(DecodeError::PacketType), "{version:?}");
        }
    }
    assert!(from_server("e000", Version::V5).is_ok());
    assert!(from_server("f000", Version::V5).is_ok());
    assert_eq!(DecodeError::WrongDirection.reason(), ReasonCode::ProtocolError);
}

// case P9
#[test]
fn connack_with_bad_values() {
    let v3 = [
        ("20020000", None),
        ("20020100", None),
        ("20020005", None),
        ("20020006", Some(DecodeError::ReasonCode(6))),
        ("20020200", Some(DecodeError::ConnAckFlags)),
        ("20020105", Some(DecodeError::SessionPresentOnRefusal)),
        ("2003000000", Some(DecodeError::TrailingBytes)),
        ("200100", Some(DecodeError::Truncated)),
        ("2000", Some(DecodeError::Truncated)),
    ];
    for (hex, error) in v3 {
        assert_eq!(from_server(hex, Version::V311).err(), error, "{hex}");
    }
    let v5 = [
        ("2003000000", None),
        ("2003008600", None),
        ("2003000100", Some(DecodeError::ReasonCode(1))),
        ("2003008d00", Some(DecodeError::ReasonCode(0x8D))),
        ("2003018700", Some(DecodeError::SessionPresentOnRefusal)),
        ("2003800000", Some(DecodeError::ConnAckFlags)),
        ("20020000", Some(DecodeError::Truncated)),
        ("200400000000", Some(DecodeError::TrailingBytes)),
    ];
    for (hex, error) in v5 {
        assert_eq!(from_server(hex, Version::V5).err(), error, "{hex}");
    }
    // The first byte of 3.1's CONNACK is reserved and means nothing.
    let packet = from_server("2002ff00", Version::V31).unwrap();
    assert!(matches!(packet, Packet::ConnAck(packet) if !packet.session_present));
}

// case P9
#[test]
fn suback_and_unsuback_with_bad_values() {
    let cases = [
        (Version::V311, "9003000700", None),
        (Version::V311, "90060007000102 80", None),
        (Version::V311, "90020007", Some(DecodeError::NoEntries)),
        (Version::V311, "9003000703", Some(DecodeError::ReasonCode(3))),
        (Version::V311, "9003000787", Some(DecodeError::ReasonCode(0x87))),
        (Version::V311, "9003000000", Some(DecodeError::PacketIdZero)),
        (Version::V5, "900400070087", None),
        (Version::V5, "9003000700", Some(DecodeError::NoEntries)),
        (Version::V5, "900400070003", Some(DecodeError::ReasonCode(3))),
        (Version::V5, "900400070011", Some(DecodeError::ReasonCode(0x11))),
        (Version::V5, "900400000000", Some(DecodeError::PacketIdZero)),
        (Version::V311, "b0020007", None),
        (Version::V311, "b003000700", Some(DecodeError::TrailingBytes)),
        (Version::V5, "b00400070011", None),
        (Version::V5, "b00400070001", Some(DecodeError::ReasonCode(1))),
        (Version::V5, "b003000700", Some(DecodeError::NoEntries)),
        (Version::V5, "b0020007", Some(DecodeError::Truncated)),
    ];
    for (version, hex, error) in cases {
        assert_eq!(from_server(hex, version).err(), error, "{version:?} {hex}");
    }
}

/// The codes of section 2.4 that each packet can carry, as counted from the tables of the standard.
#[test]
fn every_reason_code_in_every_packet() {
    let count = |build: &dyn Fn(u8) -> Vec<u8>, first: u8, from: Sender| {
        let good = |code: &u8| decode(frame(first, &build(*code)), Version::V5, from).is_ok();
        (0..=255u8).filter(good).count()
    };
    let ack = |code| vec![0, 7, code];
    assert_eq!(count(&ack, 0x40, Sender::Client), 9);
    assert_eq!(count(&ack, 0x50, Sender::Client), 9);
    assert_eq!(count(&ack, 0x62, Sender::Client), 2);
    assert_eq!(count(&ack, 0x70, Sender::Client), 2);
    assert_eq!(count(&|code| vec![0, code, 0], 0x20, Sender::Server), 22);
    assert_eq!(count(&|code| vec![0, 7, 0, code], 0x90, Sender::Server), 12);
    assert_eq!(count(&|code| vec![0, 7, 0, code], 0xB0, Sender::Server), 7);
    assert_eq!(count(&|code| vec![code], 0xE0, Sender::Client), 30);
    assert_eq!(count(&|code| vec![code, 4, 0x15, 0, 1, b'm'], 0xF0, Sender::Client), 3);
}

#[test]
fn a_disconnect_fits_its_direction() {
    let check = |hex, from| {
        let Ok(Packet::Disconnect(packet)) = decode(bytes(hex), Version::V5, from) else {
            panic!("{hex}")
        };
        packet.check(from)
    };
    let others = Err(CheckError::ReasonOfOtherSide);
    assert_eq!(check("e00104", Sender::Client), Ok(()));
    assert_eq!(check("e00104", Sender::Server), others);
    assert_eq!(check("e0018e", Sender::Server), Ok(()));
    assert_eq!(check("e0018e", Sender::Client), others);
    let expiry = "e00700051100000005";
    assert_eq!(check(expiry, Sender::Client), Ok(()));
    assert_eq!(check(expiry, Sender::Server), Err(CheckError::SessionExpiryFromServer));
    let reference = "e006 9c04 1c000178";
    assert_eq!(check(reference, Sender::Server), Ok(()));
}

#[test]
fn a_servers_publish_repeats_subscription_ids() {
    let Ok(Packet::Publish(packet)) = Place::PublishOut.decode(&[0x0B, 1, 0x0B, 0x80, 1]) else {
        panic!("not a PUBLISH")
    };
    assert_eq!(packet.properties.unwrap().subscription_ids[..], [1, 128]);
}

#[test]
fn reasons_become_return_codes_before_version_5() {
    let byte = |reason, version| {
        let packet = ConnAck { session_present: false, reason, properties: None };
        let mut out = BytesMut::new();
        encode(&Packet::ConnAck(Box::new(packet)), version, &mut out);
        out[3]
    };
    let codes = [
        (ReasonCode::Success, 0),
        (ReasonCode::UnsupportedProtocolVersion, 1),
        (ReasonCode::ClientIdentifierNotValid, 2),
        (ReasonCode::ServerUnavailable, 3),
        (ReasonCode::ServerBusy, 3),
        (ReasonCode::QuotaExceeded, 3),
        (ReasonCode::BadUserNameOrPassword, 4),
        (ReasonCode::NotAuthorized, 5),
        (ReasonCode::Banned, 5),
    ];
    for (reason, code) in codes {
        assert_eq!(byte(reason, Version::V31), code, "{reason:?}");
        assert_eq!(byte(reason, Version::V311), code, "{reason:?}");
        assert_eq!(byte(reason, Version::V5), reason as u8, "{reason:?}");
    }
    let reasons = [ReasonCode::GrantedQoS1, ReasonCode::NotAuthorized].into_iter().collect();
    let packet_id = simcast::ids::PacketId::new(7).unwrap();
    let packet = Packet::SubAck(SubAck { packet_id, properties: None, reasons });
    let mut out = BytesMut::new();
    encode(&packet, Version::V311, &mut out);
    assert_eq!(out.freeze(), bytes("9004 0007 0180"));
}
