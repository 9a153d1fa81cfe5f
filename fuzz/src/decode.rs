//! Any bytes, decoded as every version from either side: no panic; and what is accepted encodes to
//! bytes that decode to the same packet.

#![no_main]

use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;
use simcast::mqtt::{Sender, Version, decode, encode, encoded_len, frame_len};

const VERSIONS: [Version; 3] = [Version::V31, Version::V311, Version::V5];

fuzz_target!(|input: &[u8]| {
    let frame = match frame_len(input) {
        Ok(Some(len)) if len <= input.len() => Bytes::copy_from_slice(&input[..len]),
        Ok(Some(_) | None) | Err(_) => Bytes::copy_from_slice(input),
    };
    for version in VERSIONS {
        for from in [Sender::Client, Sender::Server] {
            round_trip(&frame, version, from);
        }
    }
});

fn round_trip(frame: &Bytes, version: Version, from: Sender) {
    let Ok(packet) = decode(frame.clone(), version, from) else { return };
    let mut out = BytesMut::new();
    encode(&packet, version, &mut out);
    assert_eq!(out.len(), encoded_len(&packet, version));
    assert_eq!(frame_len(&out), Ok(Some(out.len())));
    assert_eq!(decode(out.freeze(), version, from), Ok(packet));
}
