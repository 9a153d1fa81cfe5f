//! Who vouches for the eUICC: keys, names, roles, times, and the whole way up to the CI.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, DnValue, GeneralSubtree, IsCa,
    Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, NameConstraints, PKCS_ECDSA_P384_SHA384,
    PKCS_ED25519, PKCS_RSA_SHA256,
};
use simcast::client::payload::{EuiccCa, sample_eid};
use simcast::ids::{Nid, NidScheme, Timestamp};
use simcast::rsp::proof::{Holder, ISSUERS_MAX, IssuerError, ProofError, TrustedIssuers, verify};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::forge::{
    ECDSA_WITH_SHA256, Forge, Made, POLICIES, ROLE_EUICC_V3, ROLE_EUM, ROLE_EUM_V3, certificate_of,
    critical, judge, name, policies, resigned, tlv,
};
use super::{NOW, der, trust};

const PERMITTED_EINS: [u64; 7] = [2, 23, 146, 1, 2, 2, 0];
const DAY: Duration = Duration::from_secs(86_400);

fn params_of(forge: &mut Forge, holder: Holder) -> &mut CertificateParams {
    match holder {
        Holder::Ci => &mut forge.ci,
        Holder::Eum => &mut forge.eum,
        Holder::Euicc => &mut forge.euicc,
    }
}

#[test]
fn every_certificate_is_valid_from_its_first_to_its_last_second() {
    for holder in [Holder::Ci, Holder::Eum, Holder::Euicc] {
        let mut forge = Forge::new();
        let middle = time::OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap();
        let params = params_of(&mut forge, holder);
        params.not_before = middle - time::Duration::MINUTE;
        params.not_after = middle + time::Duration::MINUTE;
        let made = forge.make();
        let at = |ms: i64| made.judged_at(Timestamp(NOW.0.checked_add_signed(ms).unwrap()));
        assert_eq!(at(-60_001), Err(ProofError::NotYetValid(holder)));
        assert!(at(-60_000).is_ok() && at(60_999).is_ok());
        assert_eq!(at(61_000), Err(ProofError::Expired(holder)));
    }
}

#[test]
fn the_reference_chain_ends_with_its_ca_not_with_its_euicc() {
    let ca = EuiccCa::new(NOW).unwrap();
    let issuers = trust(&[&der(ca.ci_pem())]);
    let proof = ca.euicc(sample_eid(7)).unwrap().delete_notification(1, None).unwrap();
    let at = |now| verify(&proof, sample_eid(7), &issuers, now).err();
    assert_eq!(at(NOW.after(DAY * 3_000)), None);
    assert_eq!(at(NOW.after(DAY * 4_000)), Some(ProofError::Expired(Holder::Eum)));
    assert_eq!(at(Timestamp(0)), Some(ProofError::NotYetValid(Holder::Euicc)));
    assert_eq!(at(Timestamp::NEVER), Some(ProofError::Expired(Holder::Euicc)));
}

#[test]
fn certificates_do_not_change_places() {
    let Made { ci, eum, euicc, .. } = Forge::new().make();
    for (first, second, error) in [
        (&eum, &euicc, ProofError::WrongEid),
        (&ci, &eum, ProofError::WrongEid),
        (&euicc, &euicc, ProofError::NotACa(Holder::Eum)),
        (&euicc, &ci, ProofError::WrongRole(Holder::Eum)),
    ] {
        let mut made = Forge::new().make();
        made.euicc.clone_from(first);
        made.eum.clone_from(second);
        assert_eq!(made.judged(), Err(error));
    }
}

#[test]
fn certificates_of_different_chains_do_not_go_together() {
    let (one, two) = (Forge::new().make(), Forge::new().make());
    let mix = |eum: &Made, ci: &Made| {
        let mut made = Forge::new().make();
        made.euicc.clone_from(&one.euicc);
        made.signed.clone_from(&one.signed);
        made.signature.clone_from(&one.signature);
        made.eum.clone_from(&eum.eum);
        made.ci.clone_from(&ci.ci);
        made.judged().map(|deletion| deletion.seq_number)
    };
    assert_eq!(mix(&one, &one), Ok(300));
    assert_eq!(mix(&two, &one), Err(ProofError::BrokenChain(Holder::Euicc)), "another EUM's key");
    assert_eq!(mix(&one, &two), Err(ProofError::UnknownCi), "another CI's key");
}

/// Whoever copies names and key identifiers still lacks the key.
#[test]
fn a_copied_key_identifier_is_no_key() {
    let with_ids = || {
        let mut forge = Forge::new();
        forge.ci.key_identifier_method = KeyIdMethod::PreSpecified(vec![1; 20]);
        forge.eum.key_identifier_method = KeyIdMethod::PreSpecified(vec![2; 20]);
        forge.make()
    };
    let (genuine, copy) = (with_ids(), with_ids());
    assert!(genuine.judged().is_ok() && copy.judged().is_ok());
    let mut made = with_ids();
    made.ci.clone_from(&genuine.ci);
    assert_eq!(made.judged(), Err(ProofError::BrokenChain(Holder::Eum)));
    made.eum.clone_from(&genuine.eum);
    assert_eq!(made.judged(), Err(ProofError::BrokenChain(Holder::Euicc)));
}

#[test]
fn the_name_of_the_issuer_is_that_of_the_next_certificate() {
    let mut forge = Forge::new();
    let genuine = forge.make();
    forge.eum.distinguished_name = name(&[("O", "Another EUM")]);
    let mut made = forge.make();
    made.euicc.clone_from(&genuine.euicc);
    assert_eq!(made.judged(), Err(ProofError::BrokenChain(Holder::Euicc)));

    let mut forge = Forge::new();
    let genuine = forge.make();
    forge.ci.distinguished_name = name(&[("O", "Another CI")]);
    let mut made = forge.make();
    made.eum.clone_from(&genuine.eum);
    made.euicc.clone_from(&genuine.euicc);
    assert_eq!(made.judged(), Err(ProofError::UnknownCi));
}

#[test]
fn a_ci_may_have_an_old_and_a_new_certificate_and_others_beside_it() {
    let mut forge = Forge::new();
    let current = forge.make();
    forge.ci.not_after -= time::Duration::DAY * 2;
    forge.ci.not_before -= time::Duration::DAY * 2;
    let expired = forge.make();
    assert_eq!(expired.judged(), Err(ProofError::Expired(Holder::Ci)));
    let stranger = Forge::new().make();
    for order in [
        [&current.ci, &expired.ci, &stranger.ci],
        [&expired.ci, &stranger.ci, &current.ci],
        [&stranger.ci, &current.ci, &expired.ci],
    ] {
        let issuers = trust(&order.map(Vec::as_slice));
        assert_eq!(issuers.len(), 3);
        assert!(verify(&current.notification(), sample_eid(7), &issuers, NOW).is_ok());
    }
}

#[test]
fn key_identifiers_are_there() {
    for holder in [Holder::Eum, Holder::Euicc] {
        let judged = judge(|forge| {
            params_of(forge, holder).use_authority_key_identifier_extension = false;
        });
        assert_eq!(judged, Err(ProofError::NoKeyIdentifier(holder)), "the issuer's");
    }
    let judged = judge(|forge| {
        forge.eum.key_identifier_method = KeyIdMethod::PreSpecified(Vec::new());
    });
    assert_eq!(judged, Err(ProofError::NoKeyIdentifier(Holder::Eum)), "its own");
}

#[test]
fn an_eum_is_a_ca_and_an_euicc_is_none() {
    for (constraints, error) in [
        (IsCa::NoCa, ProofError::NotACa(Holder::Eum)),
        (IsCa::ExplicitNoCa, ProofError::NotACa(Holder::Eum)),
    ] {
        assert_eq!(judge(|forge| forge.eum.is_ca = constraints), Err(error));
    }
    let unconstrained = IsCa::Ca(BasicConstraints::Unconstrained);
    assert!(judge(|forge| forge.eum.is_ca = unconstrained).is_ok());
    assert_eq!(judge(|forge| forge.euicc.is_ca = unconstrained), Err(ProofError::EuiccIsCa));
    assert!(judge(|forge| forge.euicc.is_ca = IsCa::NoCa).is_ok(), "it need not say so");
}

#[test]
fn a_ci_may_issue_over_one_step() {
    let with = |constraints| {
        let mut forge = Forge::new();
        forge.ci.is_ca = constraints;
        TrustedIssuers::default().add(&forge.make().ci)
    };
    let steps = |steps| with(IsCa::Ca(BasicConstraints::Constrained(steps)));
    let unfit = Err(IssuerError::Unfit(ProofError::NotACa(Holder::Ci)));
    assert_eq!((steps(0), steps(1)), (unfit, Ok(())));
    assert_eq!((with(IsCa::NoCa), with(IsCa::ExplicitNoCa)), (unfit, unfit));
}

#[test]
fn keys_are_used_for_what_they_may_be_used_for() {
    let only = |usages: &[KeyUsagePurpose]| usages.to_vec();
    for usages in [&[][..], &[KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::CrlSign]] {
        let judged = judge(|forge| forge.eum.key_usages = only(usages));
        assert_eq!(judged, Err(ProofError::WrongUsage(Holder::Eum)), "{usages:?}");
        let mut forge = Forge::new();
        forge.ci.key_usages = only(usages);
        let added = TrustedIssuers::default().add(&forge.make().ci);
        assert_eq!(added, Err(ProofError::WrongUsage(Holder::Ci).into()), "{usages:?}");
    }
    for usages in [&[][..], &[KeyUsagePurpose::KeyAgreement]] {
        let judged = judge(|forge| forge.euicc.key_usages = only(usages));
        assert_eq!(judged, Err(ProofError::WrongUsage(Holder::Euicc)), "{usages:?}");
    }
}

/// A CI vouches for servers, too: a certificate of a server's issuer is no EUM's.
#[test]
fn roles_are_those_of_an_eum_and_an_euicc() {
    let role = |holder, extensions: Vec<CustomExtension>| {
        judge(|forge| params_of(forge, holder).custom_extensions = extensions).err()
    };
    let wrong = |holder| Some(ProofError::WrongRole(holder));
    assert_eq!(role(Holder::Eum, vec![policies(ROLE_EUM_V3)]), None);
    assert_eq!(role(Holder::Euicc, vec![policies(ROLE_EUICC_V3)]), None);
    for holder in [Holder::Eum, Holder::Euicc] {
        assert_eq!(role(holder, vec![]), wrong(holder));
        let dp_auth = [0x67, 0x81, 0x12, 1, 2, 1, 4];
        assert_eq!(role(holder, vec![policies(&dp_auth)]), wrong(holder));
    }
    assert_eq!(role(Holder::Euicc, vec![policies(ROLE_EUM)]), wrong(Holder::Euicc));
}

#[test]
fn an_unknown_critical_extension_is_not_passed_over() {
    for holder in [Holder::Eum, Holder::Euicc] {
        let with = |extension: CustomExtension| {
            judge(|forge| params_of(forge, holder).custom_extensions.push(extension)).err()
        };
        let unknown = || tlv(&[0x05], &[]);
        assert_eq!(with(CustomExtension::from_oid_content(&[1, 2, 3], unknown())), None);
        let critical = with(critical(&[1, 2, 3], unknown()));
        assert_eq!(critical, Some(ProofError::CriticalExtension(holder)));
        let bad = Some(ProofError::BadCertificate(holder));
        assert_eq!(with(policies(ROLE_EUM)), bad, "the policies twice");
        let broken = CustomExtension::from_oid_content(&[2, 5, 29, 37], vec![0x30, 0x05]);
        assert_eq!(with(broken), bad, "extendedKeyUsage that is cut");
    }
    assert_eq!(POLICIES, [2, 5, 29, 32]);
}

#[test]
fn the_eid_is_in_the_certificate_in_its_one_form() {
    let eid = sample_eid(7).to_string();
    let named = |number: DnValue| {
        judge(|forge| {
            let kind = DnType::CustomDnType(vec![2, 5, 4, 5]);
            forge.euicc.distinguished_name.push(kind, number);
        })
        .err()
    };
    let printable = |text: &str| DnValue::PrintableString(text.try_into().unwrap());
    assert_eq!(named(printable(&eid)), None);
    assert_eq!(named(DnValue::Utf8String(eid.clone())), None);
    assert_eq!(
        named(DnValue::BmpString(eid.as_str().try_into().unwrap())),
        Some(ProofError::WrongEid)
    );
    for other in [
        sample_eid(8).to_string(),
        String::new(),
        eid[1..].to_owned(),
        format!("0{eid}"),
        format!("0{}", &eid[1..]),
        format!("{eid} "),
        format!(" {eid}"),
        format!("{eid}0"),
        format!("urn:eid:{eid}"),
        format!("+{}", &eid[1..]),
        format!("{}f", &eid[..31]),
        format!("{}F", &eid[..31]),
    ] {
        assert_eq!(named(printable(&other)), Some(ProofError::WrongEid), "{other:?}");
    }
    let arabic: String = eid.chars().map(|digit| if digit == '8' { '٨' } else { digit }).collect();
    assert_eq!(named(DnValue::Utf8String(arabic)), Some(ProofError::WrongEid));
    let judged = judge(|forge| forge.euicc.distinguished_name = name(&[("O", "Forge EUM")]));
    assert_eq!(judged, Err(ProofError::WrongEid), "no number at all");
}

/// The common name becomes a second serialNumber, by a change of its object identifier.
#[test]
fn a_certificate_with_two_eids_names_nobody() {
    let eid = sample_eid(7).to_string();
    let mut forge = Forge::new();
    forge.euicc.distinguished_name.push(DnType::CommonName, eid.as_str());
    let mut made = forge.make();
    assert!(made.judged().is_ok());
    made.euicc = resigned(&made.euicc, &forge.keys[1], |signed| {
        let common_name = [0x06, 0x03, 0x55, 0x04, 0x03];
        let at = signed.windows(5).position(|bytes| bytes == common_name).unwrap();
        signed[at + 4] = 0x05;
    });
    assert_eq!(made.judged(), Err(ProofError::WrongEid));
}

#[test]
fn an_eid_of_a_number_plan_without_eids_is_compared_as_a_number() {
    let proof = Forge::new().make();
    let small = Nid::new(7, NidScheme::Decimal).unwrap();
    let judged = verify(&proof.notification(), small, &proof.issuers(), NOW);
    assert_eq!(judged, Err(ProofError::WrongEid));
    let same = Nid::new(sample_eid(7).get(), NidScheme::Decimal).unwrap();
    assert!(verify(&proof.notification(), same, &proof.issuers(), NOW).is_ok());
}

#[test]
fn an_eum_gives_numbers_of_its_own_alone() {
    let constrained = |permitted: Vec<GeneralSubtree>, excluded: Vec<GeneralSubtree>| {
        judge(|forge| {
            forge.eum.name_constraints = Some(NameConstraints {
                permitted_subtrees: permitted,
                excluded_subtrees: excluded,
            });
        })
        .err()
    };
    let numbers = |organization: &str, prefix: &str| {
        GeneralSubtree::DirectoryName(name(&[("O", organization), ("serialNumber", prefix)]))
    };
    let eid = sample_eid(7).to_string();
    let foreign = Some(ProofError::ForeignEid);
    let own = || numbers("Forge EUM", "89049032");
    assert_eq!(constrained(vec![own()], vec![]), None);
    assert_eq!(constrained(vec![numbers("Forge EUM", &eid)], vec![]), None);
    assert_eq!(constrained(vec![numbers("Forge EUM", "89033023"), own()], vec![]), None);
    assert_eq!(constrained(vec![numbers("Forge EUM", "89033023")], vec![]), foreign);
    assert_eq!(constrained(vec![numbers("Forge", "89049032")], vec![]), foreign);
    assert_eq!(constrained(vec![numbers("Forge EUM", "9049032")], vec![]), foreign);
    let dns = GeneralSubtree::DnsName("example".into());
    assert_eq!(constrained(vec![dns], vec![]), foreign);
    assert_eq!(constrained(vec![own()], vec![own()]), foreign);
}

#[test]
fn an_eum_of_version_3_lists_beginnings_of_numbers() {
    let eins = |content: Vec<u8>| {
        judge(|forge| forge.eum.custom_extensions.push(critical(&PERMITTED_EINS, content))).err()
    };
    let list = |numbers: &[&str]| {
        let numbers: Vec<_> = numbers.iter().map(|n| tlv(&[0x13], n.as_bytes())).collect();
        tlv(&[0x30], &numbers.concat())
    };
    let foreign = Some(ProofError::ForeignEid);
    assert_eq!(eins(list(&["89033023", "8904903"])), None);
    for content in [
        list(&["89033023"]),
        list(&[""]),
        list(&[]),
        tlv(&[0x13], b"89049032"),
        tlv(&[0x30], &tlv(&[0x0c], b"89049032")),
        vec![0x30, 0x80, 0x13, 0x01, b'8', 0, 0],
        vec![],
    ] {
        assert_eq!(eins(content.clone()), foreign, "{content:x?}");
    }
}

#[test]
fn the_reference_eum_gives_no_numbers_of_others() {
    let ca = EuiccCa::new(NOW).unwrap();
    let other = Nid::with_check_digits(890_330_231_234_512_345_123_456_789_012).unwrap();
    let proof = ca.euicc(other).unwrap().delete_notification(1, None).unwrap();
    let judged = verify(&proof, other, &trust(&[&der(ca.ci_pem())]), NOW);
    assert_eq!(judged, Err(ProofError::ForeignEid));
}

#[test]
fn keys_of_other_curves_and_kinds_are_refused_by_name() {
    for algorithm in [&PKCS_ECDSA_P384_SHA384, &PKCS_ED25519, &PKCS_RSA_SHA256] {
        let key = || KeyPair::generate_for(algorithm).unwrap();
        let judged = judge(|forge| forge.keys[2] = key());
        assert_eq!(judged, Err(ProofError::WrongKey(Holder::Euicc)), "{algorithm:?}");
        let judged = judge(|forge| forge.keys[1] = key());
        // The eUICC's own key is fine; what its certificate is signed with is not.
        assert_eq!(judged, Err(ProofError::WrongAlgorithm(Holder::Euicc)), "{algorithm:?}");
        let mut forge = Forge::new();
        forge.keys[0] = key();
        let added = TrustedIssuers::default().add(&forge.make().ci);
        assert_eq!(added, Err(ProofError::WrongKey(Holder::Ci).into()), "{algorithm:?}");
    }
}

/// Made by OpenSSL 3.0.
#[test]
fn brainpool_is_refused_by_name() {
    let brainpool = der(include_str!("../data/brainpool.pem"));
    let added = TrustedIssuers::default().add(&brainpool);
    assert_eq!(added, Err(ProofError::WrongKey(Holder::Ci).into()));
    let mut made = Forge::new().make();
    made.eum.clone_from(&brainpool);
    assert_eq!(made.judged(), Err(ProofError::WrongKey(Holder::Eum)));
    made.euicc = brainpool;
    assert_eq!(made.judged(), Err(ProofError::WrongKey(Holder::Euicc)));
}

/// The parts of a certificate that are not under its signature.
#[test]
fn a_certificate_has_one_form() {
    let genuine = Forge::new().make();
    let (_, certificate) = X509Certificate::from_der(&genuine.euicc).unwrap();
    let signed = certificate.tbs_certificate.as_ref();
    let bits = [&[0][..], &certificate.signature_value.data].concat();
    let judged = |euicc: Vec<u8>| {
        let mut made = Forge::new().make();
        made.ci.clone_from(&genuine.ci);
        made.eum.clone_from(&genuine.eum);
        made.signed.clone_from(&genuine.signed);
        made.signature.clone_from(&genuine.signature);
        made.euicc = euicc;
        made.judged().err()
    };
    assert_eq!(judged(certificate_of(signed, ECDSA_WITH_SHA256, &bits)), None);
    let wrong_algorithm = Some(ProofError::WrongAlgorithm(Holder::Euicc));
    let with_null = tlv(&[0x30], &[&ECDSA_WITH_SHA256[2..], &[0x05, 0x00]].concat());
    assert_eq!(judged(certificate_of(signed, &with_null, &bits)), wrong_algorithm);
    let bad = Some(ProofError::BadCertificate(Holder::Euicc));
    let loose = [&[1][..], &certificate.signature_value.data].concat();
    assert_eq!(judged(certificate_of(signed, ECDSA_WITH_SHA256, &loose)), bad);
    assert_eq!(judged(certificate_of(signed, ECDSA_WITH_SHA256, &[])), bad);
    let more = tlv(&[0x30], &[&certificate_parts(&genuine.euicc)[..], &[0x05, 0x00]].concat());
    assert_eq!(judged(more), bad);
    assert_eq!(judged(tlv(&[0x30], &[])), bad);
}

/// Contents of the outermost sequence; its length has two bytes.
fn certificate_parts(der: &[u8]) -> Vec<u8> {
    assert_eq!(der[1], 0x82);
    der[4..].to_vec()
}

#[test]
fn certificates_are_of_version_3() {
    let forge = Forge::new();
    let mut made = forge.make();
    made.euicc = resigned(&made.euicc, &forge.keys[1], |signed| {
        let version_3 = [0xa0, 0x03, 0x02, 0x01, 0x02];
        let at = signed.windows(5).position(|bytes| bytes == version_3).unwrap();
        signed[at + 4] = 0x01;
    });
    assert_eq!(made.judged(), Err(ProofError::BadCertificate(Holder::Euicc)));
}

#[test]
fn what_is_no_ci_certificate_is_not_trusted() {
    let made = Forge::new().make();
    let add = |der: &[u8]| TrustedIssuers::default().add(der).err();
    let unfit = |error| Some(IssuerError::Unfit(error));
    assert_eq!(add(&made.ci), None);
    for der in [&[][..], b"-----BEGIN CERTIFICATE-----", &made.ci[..300]] {
        assert_eq!(add(der), unfit(ProofError::BadCertificate(Holder::Ci)));
    }
    let behind = [made.ci.as_slice(), &[0]].concat();
    assert_eq!(add(&behind), unfit(ProofError::BadCertificate(Holder::Ci)));
    assert_eq!(add(&vec![0x30; 20_000]), unfit(ProofError::BadCertificate(Holder::Ci)));
    assert_eq!(add(&made.euicc), unfit(ProofError::NotACa(Holder::Ci)));
    assert_eq!(add(&made.eum), unfit(ProofError::NotACa(Holder::Ci)), "it allows no step");
    let mut damaged = made.ci;
    *damaged.last_mut().unwrap() ^= 1;
    assert_eq!(add(&damaged), unfit(ProofError::BrokenChain(Holder::Ci)));
}

#[test]
fn a_ci_whose_own_issuer_is_not_at_hand_may_be_trusted_all_the_same() {
    let mut forge = Forge::new();
    let root = Forge::new();
    forge.ci.distinguished_name = name(&[("O", "Forge"), ("CN", "sub CI")]);
    let issuer = Issuer::from_params(&root.ci, &root.keys[0]);
    let ci = forge.ci.signed_by(&forge.keys[0], &issuer).unwrap();
    let issuers = trust(&[ci.der()]);
    assert!(verify(&forge.make().notification(), sample_eid(7), &issuers, NOW).is_ok());
}

#[test]
fn issuers_are_bounded_and_each_counts_once() {
    let mut issuers = TrustedIssuers::default();
    assert!(issuers.is_empty());
    let first = Forge::new().make().ci;
    for _ in 0..2 {
        issuers.add(&first).unwrap();
        assert_eq!(issuers.len(), 1);
    }
    while issuers.len() < ISSUERS_MAX {
        issuers.add(&Forge::new().make().ci).unwrap();
    }
    assert_eq!(issuers.add(&Forge::new().make().ci), Err(IssuerError::TooMany));
    assert_eq!(issuers.add(&first), Ok(()));
    assert_eq!(issuers.len(), ISSUERS_MAX);
}
