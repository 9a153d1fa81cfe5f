//! What the eUICC says: the event, the profile, the count; and what a proof is worth.

use simcast::client::payload::{EuiccCa, sample_eid};
use simcast::rsp::proof::{Holder, Iccid, PROOF_BYTES_MAX, ProofError, TrustedIssuers, verify};

use super::forge::{DELETE, Forge, judge, tlv};
use super::{Genuine, ICCID, NOW, der, trust};

#[test]
fn what_the_reference_euicc_signs_proves_the_deletion() {
    let genuine = Genuine::new();
    let deletion = genuine.verify(&genuine.notification).unwrap();
    assert_eq!((deletion.seq_number, deletion.iccid), (300, Some(Iccid(ICCID))));
    assert_eq!(deletion.iccid.unwrap().to_string(), "8901234567890123456");
}

#[test]
fn what_another_hand_has_made_proves_it_too() {
    let deletion = Forge::new().judged().unwrap();
    assert_eq!((deletion.seq_number, deletion.iccid), (300, Some(Iccid(ICCID))));
}

#[test]
fn an_euicc_need_not_name_the_profile() {
    let ca = EuiccCa::new(NOW).unwrap();
    let issuers = trust(&[&der(ca.ci_pem())]);
    let euicc = ca.euicc(sample_eid(7)).unwrap();
    for seq_number in [0, 0x7f, 0x80, u64::MAX] {
        let notification = euicc.delete_notification(seq_number, None).unwrap();
        let deletion = verify(&notification, sample_eid(7), &issuers, NOW).unwrap();
        assert_eq!((deletion.seq_number, deletion.iccid), (seq_number, None));
    }
}

#[test]
fn the_proof_of_another_euicc_is_refused() {
    let ca = EuiccCa::new(NOW).unwrap();
    let issuers = trust(&[&der(ca.ci_pem())]);
    let proof = ca.euicc(sample_eid(8)).unwrap().delete_notification(1, None).unwrap();
    assert!(verify(&proof, sample_eid(8), &issuers, NOW).is_ok());
    assert_eq!(verify(&proof, sample_eid(7), &issuers, NOW), Err(ProofError::WrongEid));
}

#[test]
fn what_one_euicc_signed_is_not_taken_with_the_certificate_of_another() {
    // Two keys under one number, as a manufacturer must never give them.
    let (one, two) = (Forge::new().make(), Forge::new().make());
    let mut swapped = one;
    swapped.signature.clone_from(&two.signature);
    assert_eq!(swapped.judged(), Err(ProofError::BadSignature));
    swapped.signature.truncate(63);
    assert_eq!(swapped.judged(), Err(ProofError::BadSignature));
}

#[test]
fn only_a_deletion_is_one() {
    let operation = |bits: &[u8]| judge(|forge| forge.metadata[1] = tlv(&[0x81], bits));
    assert!(operation(DELETE).is_ok());
    for (bits, event) in [
        (&[0x07, 0x80][..], "install"),
        (&[0x06, 0x40], "enable"),
        (&[0x05, 0x20], "disable"),
        (&[0x04, 0x30], "disable and delete"),
        (&[0x04, 0xf0], "everything"),
        (&[0x00], "nothing"),
        (&[0x03, 0x08], "an event that is not known"),
        (&[0x00, 0x10], "delete, but not as DER writes it"),
        (&[0x04, 0x10, 0x00], "delete and another byte"),
        (&[], "no bits at all"),
    ] {
        assert_eq!(operation(bits), Err(ProofError::NotADeletion), "{event}");
    }
}

#[test]
fn the_result_of_an_installation_is_no_deletion() {
    let genuine = Genuine::new();
    let installed = tlv(&[0xbf, 0x37], &tlv(&[0xbf, 0x27], &[]));
    assert_eq!(genuine.verify(&installed), Err(ProofError::NotADeletion));
}

#[test]
fn other_documents_are_no_notification() {
    let genuine = Genuine::new();
    let metadata = tlv(&[0xbf, 0x2f], &tlv(&[0x80], &[1]));
    for other in [
        tlv(&[0x30], &[]),
        tlv(&[0x31], &[]),
        tlv(&[0x04], &genuine.notification),
        tlv(&[0xbf, 0x3d], &genuine.notification), // HandleNotification of ES9+
        tlv(&[0xa1], &metadata),                   // the compact form of SGP.32
        metadata,
    ] {
        assert_eq!(genuine.verify(&other), Err(ProofError::NotANotification), "{other:x?}");
    }
}

#[test]
fn members_of_the_metadata_are_all_there_once_and_in_order() {
    type Change = fn(&mut Vec<Vec<u8>>);
    let changes: [(&str, Change); 10] = [
        ("no count", |m| drop(m.remove(0))),
        ("no event", |m| drop(m.remove(1))),
        ("no address", |m| drop(m.remove(2))),
        ("the profile twice", |m| m.push(m[3].clone())),
        ("another order", |m| m.swap(0, 1)),
        ("a member more", |m| m.push(tlv(&[0x82], &[]))),
        ("a profile of nine bytes", |m| m[3] = tlv(&[0x5a], &[0x98; 9])),
        ("an address that is no text", |m| m[2] = tlv(&[0x0c], &[0xff])),
        ("a count below zero", |m| m[0] = tlv(&[0x80], &[0x80])),
        ("a count with a zero before it", |m| m[0] = tlv(&[0x80], &[0, 1])),
    ];
    for (what, change) in changes {
        let judged = judge(|forge| change(&mut forge.metadata));
        assert_eq!(judged, Err(ProofError::NotANotification), "{what}");
    }
}

#[test]
fn more_certificates_than_two_are_refused_by_name() {
    let others = tlv(&[0xa1], &Forge::new().make().ci);
    let judged = judge(|forge| forge.behind = others);
    assert_eq!(judged, Err(ProofError::LongChain));
    let judged = judge(|forge| forge.behind = tlv(&[0x30], &[]));
    assert_eq!(judged, Err(ProofError::NotANotification));
}

#[test]
fn size_is_bounded() {
    let genuine = Genuine::new();
    let room = PROOF_BYTES_MAX - genuine.notification.len();
    let longest = [genuine.notification.as_slice(), &vec![0; room]].concat();
    assert_eq!(genuine.verify(&longest), Err(ProofError::TrailingBytes));
    let longer = [longest.as_slice(), &[0]].concat();
    assert_eq!(genuine.verify(&longer), Err(ProofError::TooLarge));
}

#[test]
fn nobody_is_trusted_unless_named() {
    let genuine = Genuine::new();
    let nobody = TrustedIssuers::default();
    let judged = verify(&genuine.notification, genuine.eid, &nobody, NOW);
    assert_eq!(judged, Err(ProofError::UnknownCi));
    let another = Genuine::new().issuers;
    let judged = verify(&genuine.notification, genuine.eid, &another, NOW);
    assert_eq!(judged, Err(ProofError::UnknownCi), "same name, another key");
}

/// Whoever sees a signature (r, s) can write (r, n - s), which is as good.
#[test]
fn a_turned_signature_has_the_digest_of_the_first() {
    let mut made = Forge::new().make();
    let first = made.judged().unwrap();
    let before = made.notification();
    let s = turned(made.signature[32..].try_into().unwrap());
    made.signature[32..].copy_from_slice(&s);
    assert_ne!(made.notification(), before);
    assert_eq!(made.judged().unwrap(), first, "it is no second proof");
}

#[test]
fn every_deletion_has_a_digest_of_its_own() {
    let ca = EuiccCa::new(NOW).unwrap();
    let issuers = trust(&[&der(ca.ci_pem())]);
    let mut digests = std::collections::HashSet::new();
    for number in 1..=2 {
        let euicc = ca.euicc(sample_eid(number)).unwrap();
        for seq_number in 1..=2 {
            let proof = euicc.delete_notification(seq_number, Some(ICCID)).unwrap();
            let again = euicc.delete_notification(seq_number, Some(ICCID)).unwrap();
            let digest =
                |proof: &[u8]| verify(proof, sample_eid(number), &issuers, NOW).unwrap().digest;
            assert_eq!(digest(&proof), digest(&again), "signed twice, it is one deletion");
            digests.insert(digest(&proof));
        }
    }
    assert_eq!(digests.len(), 4);
}

#[test]
fn every_error_has_a_name_and_says_what_to_do() {
    for error in [
        ProofError::Missing,
        ProofError::NotBase64,
        ProofError::TooLarge,
        ProofError::NotDer,
        ProofError::TrailingBytes,
        ProofError::NotANotification,
        ProofError::NotADeletion,
        ProofError::LongChain,
        ProofError::BadCertificate(Holder::Eum),
        ProofError::WrongKey(Holder::Euicc),
        ProofError::WrongAlgorithm(Holder::Ci),
        ProofError::WrongEid,
        ProofError::UnknownCi,
        ProofError::BrokenChain(Holder::Eum),
        ProofError::NoKeyIdentifier(Holder::Eum),
        ProofError::NotACa(Holder::Eum),
        ProofError::EuiccIsCa,
        ProofError::WrongUsage(Holder::Euicc),
        ProofError::WrongRole(Holder::Eum),
        ProofError::CriticalExtension(Holder::Eum),
        ProofError::ForeignEid,
        ProofError::NotYetValid(Holder::Ci),
        ProofError::Expired(Holder::Ci),
        ProofError::BadSignature,
    ] {
        assert!(error.name().bytes().all(|b| b.is_ascii_lowercase() || b"_46".contains(&b)));
        let (what, _todo) = error
            .to_string()
            .split_once("; ")
            .map(|(a, b)| (a.len(), b.len()))
            .unwrap_or_else(|| panic!("{error}: no advice"));
        assert!(what > 0);
    }
    assert!(ProofError::Expired(Holder::Euicc).to_string().contains("the eUICC certificate"));
}

/// n - s, n being the order of P-256.
fn turned(s: [u8; 32]) -> [u8; 32] {
    let order: [u8; 32] = [
        0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
        0xff, 0xbc, 0xe6, 0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63,
        0x25, 0x51,
    ];
    let mut difference = [0; 32];
    let mut borrowed = 0;
    for at in (0..32).rev() {
        let left = i16::from(order[at]) - i16::from(s[at]) - borrowed;
        borrowed = i16::from(left < 0);
        difference[at] = u8::try_from(left.rem_euclid(256)).unwrap();
    }
    difference
}
