//! Any payload as an envelope: no panic; what is taken is one well-formed document and nothing
//! behind it, so that no cut or prolonged one is; and EIDs are numbers like any other. What is made
//! of it (stamped, merged, gathered, in parts, in pieces) is an envelope again and says the same.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use simcast::ids::{Gid, Nid, NidScheme};
use simcast::rsp::chunk::{ChunkError, content_bytes, piece};
use simcast::rsp::envelope::{CAMPAIGN_BYTES_MAX, Options, TID_BYTES_MAX, raw_body, read};
use simcast::rsp::gathered::{RawBody, Request, coalesced, merged};
use simcast::rsp::parts::Parts;
use simcast::rsp::stamp::with_src;
use simcast::rsp::{Head, Kind, Tid};

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
    if let Some(name) = &head.options.campaign {
        assert!((1..=CAMPAIGN_BYTES_MAX).contains(&name.len()));
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
    let payload = Bytes::copy_from_slice(payload);
    together(&payload, &head);
    in_parts(&payload, &head);
    in_pieces(&payload, &head);
});

fn nid() -> Nid {
    Nid::new(7, NidScheme::Decimal).expect("is not 0")
}

fn heads(payload: &Bytes) -> Head {
    read(payload, NidScheme::Decimal).expect("what is made of an envelope is one")
}

fn together(payload: &Bytes, head: &Head) {
    let options = Options { has_src: true, ..head.options.clone() };
    assert_eq!(heads(&with_src(payload, nid())), Head { options, ..head.clone() });
    let gid = Gid::new(9);
    let whole = merged(gid.expect("is not 0"), payload);
    assert_eq!(heads(&whole), Head { nid: None, gid, ..head.clone() });
    assert_eq!(raw_body(&whole), raw_body(payload));
    let body = RawBody::of(payload).expect("it has one");
    let request = Request { nid: nid(), tid: head.tid.clone(), body };
    let requests = [request.clone(), request];
    let gid_of_all = gid.expect("is not 0");
    let (twice, count) = coalesced(gid_of_all, "t", requests.iter(), usize::MAX);
    assert_eq!(count, 2);
    let tid = Some(Tid::Text("t".into()));
    assert_eq!(heads(&twice), Head { gid, tid, ..Head::new(Kind::Trigger) });
}

fn in_parts(payload: &Bytes, head: &Head) {
    let Ok(parts) = Parts::read(payload, NidScheme::Decimal) else { return };
    assert!(parts.nids().is_sorted_by(|one, two| one < two));
    let options = Options { parts: false, ..head.options.clone() };
    let expected = Head { options, ..head.clone() };
    for nid in parts.nids().iter().copied().map(Some).chain([None]) {
        if let Some(letter) = parts.letter(nid) {
            assert_eq!(heads(&letter), expected);
        }
    }
}

fn in_pieces(payload: &Bytes, head: &Head) {
    let needs = match piece(payload, 0, 1, 0) {
        Err(ChunkError::LimitTooSmall { needs }) => needs,
        other => return assert_eq!(other, Err(ChunkError::AlreadyAPiece)),
    };
    let options = Options { chunks: false, ..head.options.clone() };
    let expected = Head { options, ..head.clone() };
    let (mut next, mut number) = (Some(0), 0);
    // Not to the end where that is far.
    while let (Some(offset), 0..20) = (next, number) {
        number += 1;
        let limit = needs + 20;
        let piece = piece(payload, offset, number, limit).expect("there is room for some of it");
        assert!(piece.payload.len() <= limit);
        assert_eq!(heads(&piece.payload), expected);
        assert_eq!(piece.next.is_none(), piece.number == piece.of);
        assert!(piece.next.is_none_or(|next| next > offset && Some(next) < content_bytes(payload)));
        next = piece.next;
    }
}
