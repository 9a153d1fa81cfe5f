//! Any bytes as a proof of deletion, as an envelope with one, and as a CI certificate: no panic;
//! nothing is a proof but what the eUICC of the seed has signed; every envelope has a body, and
//! what is found in it is of the size that its encoding allows.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use simcast::ids::{Nid, NidScheme, Timestamp};
use simcast::rsp::envelope;
use simcast::rsp::proof::{Body, TrustedIssuers, body, extract, verify};

/// When the certificates of the seeds are valid.
const NOW: Timestamp = Timestamp(1_800_000_000_000);
const EID: &str = "89049032123451234510000000000753";
const SEQ_NUMBER: u64 = 300;

static ISSUERS: LazyLock<TrustedIssuers> = LazyLock::new(|| {
    let mut issuers = TrustedIssuers::default();
    issuers.add(include_bytes!("../seeds/proof/ci")).expect("the CI of the seeds");
    assert!(proves(include_bytes!("../seeds/proof/der"), &issuers), "the proof of the seeds");
    issuers
});

fuzz_target!(|bytes: &[u8]| {
    proves(bytes, &ISSUERS);
    let mut issuers = TrustedIssuers::default();
    assert_eq!(issuers.add(bytes).is_ok(), issuers.len() == 1);
    let Some(body) = body(bytes) else {
        assert!(envelope::read(bytes, NidScheme::Decimal).is_err(), "an envelope without a body");
        return;
    };
    let Ok(found) = extract(body) else { return };
    match body {
        Body::Json(text) => assert!(text.len() >= found.len().div_ceil(3) * 4 + 2),
        Body::Cbor(item) => {
            assert!(item.windows(found.len().max(1)).any(|w| w.starts_with(&found)))
        }
    }
    proves(&found, &ISSUERS);
});

/// Whether this is taken for a proof; if so, it is that of the seed.
fn proves(der: &[u8], issuers: &TrustedIssuers) -> bool {
    let eid = Nid::parse(EID, NidScheme::Eid).expect("is an EID");
    let deletion = verify(der, eid, issuers, NOW);
    assert!(deletion.is_err() || deletion.as_ref().is_ok_and(|d| d.seq_number == SEQ_NUMBER));
    deletion.is_ok()
}
