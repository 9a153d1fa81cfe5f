//! Notifications and certificates in which anything may be wrong, made without the client's code.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType, DnValue, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SigningKey,
};
use simcast::client::payload::sample_eid;
use simcast::ids::Timestamp;
use simcast::rsp::proof::{Deletion, ProofError, TrustedIssuers, verify};
use time::{Duration, OffsetDateTime};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{ICCID, NOW};

/// The profile is deleted: bit 3 of a named bit list.
pub(crate) const DELETE: &[u8] = &[0x04, 0x10];
pub(crate) const POLICIES: [u64; 4] = [2, 5, 29, 32];
/// `id-rspRole-…`: content of the object identifiers.
pub(crate) const ROLE_EUICC: &[u8] = &[0x67, 0x81, 0x12, 1, 2, 1, 1];
pub(crate) const ROLE_EUM: &[u8] = &[0x67, 0x81, 0x12, 1, 2, 1, 2];
pub(crate) const ROLE_EUICC_V3: &[u8] = &[0x67, 0x81, 0x12, 1, 2, 1, 0, 0, 0, 0, 0];
pub(crate) const ROLE_EUM_V3: &[u8] = &[0x67, 0x81, 0x12, 1, 2, 1, 0, 0, 0];

pub(crate) const ECDSA_WITH_SHA256: &[u8] =
    &[0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];

/// An element with a length in its shortest form.
pub(crate) fn tlv(tag: &[u8], value: &[u8]) -> Vec<u8> {
    let length = match value.len() {
        short @ ..0x80 => vec![u8::try_from(short).unwrap()],
        middle @ 0x80..0x100 => vec![0x81, u8::try_from(middle).unwrap()],
        long => [&[0x82][..], &u16::try_from(long).unwrap().to_be_bytes()].concat(),
    };
    [tag, &length, value].concat()
}

/// The certificates of a chain and the notification, before anything is signed.
pub(crate) struct Forge {
    pub(crate) ci: CertificateParams,
    pub(crate) eum: CertificateParams,
    pub(crate) euicc: CertificateParams,
    /// Keys of CI, EUM and eUICC.
    pub(crate) keys: [KeyPair; 3],
    /// Members of the metadata, each a whole element.
    pub(crate) metadata: Vec<Vec<u8>>,
    /// Elements behind the certificates.
    pub(crate) behind: Vec<u8>,
}

/// What the chain is made of.
pub(crate) struct Made {
    pub(crate) ci: Vec<u8>,
    pub(crate) eum: Vec<u8>,
    pub(crate) euicc: Vec<u8>,
    pub(crate) signed: Vec<u8>,
    pub(crate) signature: Vec<u8>,
    behind: Vec<u8>,
}

impl Forge {
    /// As it should be.
    pub(crate) fn new() -> Self {
        let eid = sample_eid(7).to_string();
        let mut ci = params(&[("O", "Forge"), ("CN", "CI")], &[]);
        ca(&mut ci, BasicConstraints::Unconstrained);
        let mut eum = params(&[("O", "Forge EUM")], ROLE_EUM);
        ca(&mut eum, BasicConstraints::Constrained(0));
        let mut euicc = params(&[("O", "Forge EUM"), ("serialNumber", &eid)], ROLE_EUICC);
        euicc.is_ca = IsCa::ExplicitNoCa;
        euicc.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let metadata = vec![
            tlv(&[0x80], &[0x01, 0x2c]),
            tlv(&[0x81], DELETE),
            tlv(&[0x0c], b"smdp.example"),
            tlv(&[0x5a], &ICCID),
        ];
        let keys = [(); 3].map(|()| KeyPair::generate().unwrap());
        Self { ci, eum, euicc, keys, metadata, behind: Vec::new() }
    }

    /// Signs everything.
    pub(crate) fn make(&self) -> Made {
        let [ci_key, eum_key, euicc_key] = &self.keys;
        let ci = self.ci.self_signed(ci_key).unwrap();
        let eum = self.eum.signed_by(eum_key, &Issuer::from_params(&self.ci, ci_key)).unwrap();
        let eum_issuer = Issuer::from_params(&self.eum, eum_key);
        let euicc = self.euicc.signed_by(euicc_key, &eum_issuer).unwrap();
        let signed = tlv(&[0xbf, 0x2f], &self.metadata.concat());
        Made {
            ci: ci.der().to_vec(),
            eum: eum.der().to_vec(),
            euicc: euicc.der().to_vec(),
            signature: sign(euicc_key, &signed),
            signed,
            behind: self.behind.clone(),
        }
    }

    /// What becomes of the proof when its CI is trusted.
    pub(crate) fn judged(&self) -> Result<Deletion, ProofError> {
        self.make().judged_at(NOW)
    }
}

/// The same after a change.
pub(crate) fn judge(change: impl FnOnce(&mut Forge)) -> Result<Deletion, ProofError> {
    let mut forge = Forge::new();
    change(&mut forge);
    forge.judged()
}

impl Made {
    pub(crate) fn notification(&self) -> Vec<u8> {
        let signature = tlv(&[0x5f, 0x37], &self.signature);
        let parts = [&self.signed, &signature, &self.euicc, &self.eum, &self.behind];
        tlv(&[0x30], &parts.map(Vec::as_slice).concat())
    }

    pub(crate) fn issuers(&self) -> TrustedIssuers {
        super::trust(&[&self.ci])
    }

    pub(crate) fn judged(&self) -> Result<Deletion, ProofError> {
        self.judged_at(NOW)
    }

    pub(crate) fn judged_at(&self, now: Timestamp) -> Result<Deletion, ProofError> {
        verify(&self.notification(), sample_eid(7), &self.issuers(), now)
    }
}

/// r and s, 64 bytes; nothing that could verify for other keys than those of P-256.
fn sign(key: &KeyPair, message: &[u8]) -> Vec<u8> {
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key.serialized_der());
    key.map_or_else(
        |_other_curve| vec![1; 64],
        |key| key.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec(),
    )
}

/// A certificate whose signed part was changed before it was signed, here with the issuer's key.
pub(crate) fn resigned(der: &[u8], key: &KeyPair, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let (_, certificate) = X509Certificate::from_der(der).unwrap();
    let mut signed = certificate.tbs_certificate.as_ref().to_vec();
    change(&mut signed);
    let signature = [&[0][..], &key.sign(&signed).unwrap()].concat();
    certificate_of(&signed, ECDSA_WITH_SHA256, &signature)
}

/// A certificate of its three parts; the signature with the count of its loose bits.
pub(crate) fn certificate_of(signed: &[u8], algorithm: &[u8], signature: &[u8]) -> Vec<u8> {
    tlv(&[0x30], &[signed, algorithm, &tlv(&[0x03], signature)].concat())
}

/// A certificate that is valid for a day before and after now, with policies if a role is given.
pub(crate) fn params(subject: &[(&str, &str)], role: &[u8]) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name = name(subject);
    let now = OffsetDateTime::from_unix_timestamp(i64::try_from(NOW.0 / 1000).unwrap()).unwrap();
    params.not_before = now - Duration::DAY;
    params.not_after = now + Duration::DAY;
    params.use_authority_key_identifier_extension = true;
    if !role.is_empty() {
        params.custom_extensions = vec![policies(role)];
    }
    params
}

pub(crate) fn name(attributes: &[(&str, &str)]) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    for (kind, value) in attributes {
        let kind = match *kind {
            "O" => DnType::OrganizationName,
            "CN" => DnType::CommonName,
            "serialNumber" => DnType::CustomDnType(vec![2, 5, 4, 5]),
            other => panic!("{other}"),
        };
        name.push(kind, DnValue::PrintableString((*value).try_into().unwrap()));
    }
    name
}

pub(crate) fn policies(role: &[u8]) -> CustomExtension {
    let list = tlv(&[0x30], &tlv(&[0x30], &tlv(&[0x06], role)));
    critical(&POLICIES, list)
}

pub(crate) fn critical(oid: &[u64], content: Vec<u8>) -> CustomExtension {
    let mut extension = CustomExtension::from_oid_content(oid, content);
    extension.set_criticality(true);
    extension
}

fn ca(params: &mut CertificateParams, constraints: BasicConstraints) {
    params.is_ca = IsCa::Ca(constraints);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
}
