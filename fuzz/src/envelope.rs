//! Any payload as an envelope: no panic; what is taken is one well-formed document and nothing
//! behind it, so that no cut or prolonged one is; and EIDs are numbers like any other.

#![no_main]

use libfuzzer_sys::fuzz_target;
use simcast::ids::NidScheme;
use simcast::rsp::Tid;
use simcast::rsp::envelope::{TID_BYTES_MAX, read};

fuzz_target!(|payload: &[u8]| {
    let (eid, decimal) = (read(payload, NidScheme::Eid), read(payload, NidScheme::Decimal));
    let Ok(head) = decimal else {
        assert!(eid.is_err(), "every EID is a number");
        return;
    };
    assert!(eid.is_err() || eid.as_ref() == Ok(&head), "the scheme forbids, it changes nothing");
    if let Some(Tid::Text(text)) = &head.tid {
        assert!(text.len() <= TID_BYTES_MAX);
    }
    let is_json = payload[0] < 0x80;
    if is_json {
        let _document: serde::de::IgnoredAny =
            serde_json::from_slice(payload).expect("every reader can read it");
        assert_eq!(read(&[b" ", payload, b"\n"].concat(), NidScheme::Decimal).as_ref(), Ok(&head));
    }
    let cut = payload.trim_ascii_end();
    let cut = if is_json { &cut[..cut.len() - 1] } else { &payload[..payload.len() - 1] };
    assert!(read(cut, NidScheme::Decimal).is_err(), "a part of it is taken");
    for behind in [&b"\0"[..], b"{}", b"\xa0"] {
        let longer = [payload, behind].concat();
        assert!(read(&longer, NidScheme::Decimal).is_err(), "something behind it is not seen");
    }
});
