//! Proof of deletion: what an eUICC has signed passes, and nothing else does.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod bodies;
mod chain;
mod files;
mod forge;
mod mangled;
mod notifications;

use simcast::client::payload::{EuiccCa, sample_eid};
use simcast::ids::{Nid, Timestamp};
use simcast::rsp::proof::{Deletion, ProofError, TrustedIssuers, verify};

/// In 2027, when all of the tests take place.
const NOW: Timestamp = Timestamp(1_800_000_000_000);
/// 8901234567890123456.
const ICCID: [u8; 10] = [0x98, 0x10, 0x32, 0x54, 0x76, 0x98, 0x10, 0x32, 0x54, 0xf6];

/// The DER in a PEM text of one certificate.
fn der(pem: &str) -> Vec<u8> {
    x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap().1.contents
}

fn trust(certificates: &[&[u8]]) -> TrustedIssuers {
    let mut issuers = TrustedIssuers::default();
    certificates.iter().for_each(|der| issuers.add(der).unwrap());
    issuers
}

/// What the reference eUICC signs, and who vouches for it.
struct Genuine {
    eid: Nid,
    notification: Vec<u8>,
    issuers: TrustedIssuers,
}

impl Genuine {
    fn new() -> Self {
        let ca = EuiccCa::new(NOW).unwrap();
        let eid = sample_eid(7);
        let notification = ca.euicc(eid).unwrap().delete_notification(300, Some(ICCID)).unwrap();
        Self { eid, notification, issuers: trust(&[&der(ca.ci_pem())]) }
    }

    fn verify(&self, notification: &[u8]) -> Result<Deletion, ProofError> {
        verify(notification, self.eid, &self.issuers, NOW)
    }
}
