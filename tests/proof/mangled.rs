//! Damaged proofs: whatever is changed, cut, added or written as BER is refused.

use proptest::prelude::*;
use proptest::sample::Index;
use simcast::rsp::proof::{ProofError, verify};

use super::forge::{Forge, tlv};
use super::{Genuine, NOW};

#[test]
fn every_byte_counts() {
    let genuine = Genuine::new();
    let mut bytes = genuine.notification.clone();
    for at in 0..bytes.len() {
        for mask in [0x01, 0x80, 0xff] {
            bytes[at] ^= mask;
            assert!(genuine.verify(&bytes).is_err(), "byte {at} with {mask:02x}");
            bytes[at] ^= mask;
        }
    }
    assert!(genuine.verify(&bytes).is_ok());
}

#[test]
fn no_part_of_a_proof_is_one() {
    let genuine = Genuine::new();
    let bytes = &genuine.notification;
    for at in 0..bytes.len() {
        assert_eq!(genuine.verify(&bytes[..at]), Err(ProofError::NotDer), "cut at {at}");
        assert!(genuine.verify(&bytes[at + 1..]).is_err(), "from {at}");
        let gap = [&bytes[..at], &bytes[at + 1..]].concat();
        assert!(genuine.verify(&gap).is_err(), "without byte {at}");
    }
}

#[test]
fn nothing_may_stand_behind_it() {
    let genuine = Genuine::new();
    for behind in [&[0][..], b"\n", &genuine.notification] {
        let longer = [genuine.notification.as_slice(), behind].concat();
        assert_eq!(genuine.verify(&longer), Err(ProofError::TrailingBytes));
    }
}

#[test]
fn the_same_in_ber_is_refused() {
    let made = Forge::new().make();
    let judged = |bytes: &[u8]| {
        verify(bytes, simcast::client::payload::sample_eid(7), &made.issuers(), NOW).err()
    };
    let whole = made.notification();
    let (head, contents) = whole.split_at(4);
    assert_eq!((head[0], head[1]), (0x30, 0x82));
    let indefinite = [&[0x30, 0x80], contents, &[0, 0]].concat();
    assert_eq!(judged(&indefinite), Some(ProofError::NotDer));
    let long_length = [&[0x30, 0x83, 0, head[2], head[3]], contents].concat();
    assert_eq!(judged(&long_length), Some(ProofError::NotDer));

    let signature = tlv(&[0x5f, 0x37], &made.signature);
    let behind = [made.euicc.as_slice(), &made.eum].concat();
    let with = |signed: &[u8], signature: &[u8]| {
        judged(&tlv(&[0x30], &[signed, signature, &behind].concat()))
    };
    assert_eq!(with(&made.signed, &signature), None);
    let members = made.signed[3..].to_vec();
    let indefinite = [&[0xbf, 0x2f, 0x80], &members[..], &[0, 0]].concat();
    assert_eq!(with(&indefinite, &signature), Some(ProofError::NotDer));
    let long_length = [&[0xbf, 0x2f, 0x81, made.signed[2]], &members[..]].concat();
    assert_eq!(with(&long_length, &signature), Some(ProofError::NotDer));
    let long_tag = [&[0xbf, 0x80, 0x2f], &made.signed[2..]].concat();
    assert_eq!(with(&long_tag, &signature), Some(ProofError::NotDer));
    let in_pieces = tlv(&[0x7f, 0x37], &tlv(&[0x04], &made.signature));
    assert_eq!(with(&made.signed, &in_pieces), Some(ProofError::NotANotification));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn no_change_passes(changes in prop::collection::vec((any::<Index>(), 1u8..), 1..4)) {
        let genuine = Genuine::new();
        let mut bytes = genuine.notification.clone();
        for (at, mask) in &changes {
            let at = at.index(bytes.len());
            bytes[at] ^= mask;
        }
        prop_assume!(bytes != genuine.notification);
        prop_assert!(genuine.verify(&bytes).is_err());
    }

    #[test]
    fn no_noise_passes(bytes in prop::collection::vec(any::<u8>(), 0..2_000)) {
        prop_assert!(Genuine::new().verify(&bytes).is_err());
    }
}
