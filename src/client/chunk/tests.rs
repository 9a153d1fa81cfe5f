//! Pieces in every order and state.

use serde_json::json;

use super::*;

/// A piece of `content` from `offset` to `end`, the `n`th of `of`, as bytes of a CBOR body.
fn piece(content: &[u8], offset: usize, end: usize, n: u32, of: u32) -> Envelope {
    let total = content.len();
    let chunk = Some(Chunk { n, of, offset, total, form: Form::Bytes });
    let body = Body::Bytes(content[offset..end].to_vec());
    Envelope { chunk, body, ..Envelope::new(7, 0, Kind::Msg) }
}

fn with_tid(envelope: Envelope, tid: u64) -> Envelope {
    envelope.with_tid(Some(Tid::Number(tid)))
}

fn whole(content: &[u8]) -> Envelope {
    Envelope::new(7, 0, Kind::Msg).with_body(content.to_vec())
}

fn broken(taken: Taken) -> PieceError {
    match taken {
        Taken::Broken(_, error) => error,
        other => panic!("{other:?}"),
    }
}

const CONTENT: &[u8] = b"0123456789";

#[test]
fn a_message_is_whole_with_its_last_piece() {
    let mut assembler = Assembler::default();
    assert_eq!(assembler.take(piece(CONTENT, 0, 4, 1, 3)), Taken::Part);
    assert_eq!(assembler.take(piece(CONTENT, 4, 8, 2, 3)), Taken::Part);
    let last = assembler.take(piece(CONTENT, 8, 10, 3, 3));
    assert_eq!(last, Taken::Whole(Box::new(whole(CONTENT)), 3));
    let plain = whole(CONTENT);
    assert_eq!(assembler.take(plain.clone()), Taken::Whole(Box::new(plain), 1), "no piece");
    let empty = assembler.take(with_tid(piece(&[], 0, 0, 1, 1), 2));
    assert_eq!(empty, Taken::Whole(Box::new(with_tid(whole(&[]), 2)), 1));
}

#[test]
fn each_form_gives_the_body_that_was_cut() {
    let bytes: Vec<u8> = (0..=255).collect();
    let encoded = STANDARD.encode(&bytes);
    let object = json!({"é": [1, "\""]});
    let cut = |content: &[u8], form, carry: fn(&[u8]) -> Body| {
        let mut assembler = Assembler::default();
        let middle = content.len() / 2 + 1;
        let mut last = Taken::Part;
        for (n, range) in [(1, 0..middle), (2, middle..content.len())] {
            let chunk = Chunk { n, of: 2, offset: range.start, total: content.len(), form };
            let mut envelope = Envelope::new(7, 0, Kind::Msg).with_body(carry(&content[range]));
            envelope.chunk = Some(chunk);
            last = assembler.take(envelope);
        }
        match last {
            Taken::Whole(envelope, 2) => envelope.body,
            other => panic!("{other:?}"),
        }
    };
    let base64: fn(&[u8]) -> Body = |piece| Body::Value(STANDARD.encode(piece).into());
    let text: fn(&[u8]) -> Body =
        |piece| Body::Value(String::from_utf8(piece.to_vec()).unwrap().into());
    let raw: fn(&[u8]) -> Body = |piece| Body::Bytes(piece.to_vec());
    assert_eq!(cut(&bytes, Form::Base64, base64), Body::Value(encoded.into()));
    let written = object.to_string();
    assert_eq!(cut(written.as_bytes(), Form::Json, text), Body::Value(object));
    assert_eq!(cut(&bytes, Form::Bytes, raw), Body::Bytes(bytes.clone()));
    assert_eq!(cut(&[0x82, 1, 0x61, b'a'], Form::Cbor, raw), Body::Value(json!([1, "a"])));
}

#[test]
fn what_was_there_before_is_passed_over() {
    let mut assembler = Assembler::default();
    let first = piece(CONTENT, 0, 6, 1, 2);
    assert_eq!(assembler.take(first.clone()), Taken::Part);
    assert_eq!(assembler.take(first), Taken::Repeated);
    // The link broke, and the rest of the first piece is cut anew and smaller.
    assert_eq!(assembler.take(piece(CONTENT, 0, 3, 1, 4)), Taken::Repeated);
    assert_eq!(assembler.take(piece(CONTENT, 3, 8, 2, 3)), Taken::Part, "half of it is new");
    let last = assembler.take(piece(CONTENT, 8, 10, 3, 3));
    assert_eq!(last, Taken::Whole(Box::new(whole(CONTENT)), 3));
}

#[test]
fn the_last_piece_gives_the_message_again_until_it_is_settled() {
    let mut assembler = Assembler::default();
    let last = with_tid(piece(CONTENT, 5, 10, 2, 2), 1);
    assert_eq!(assembler.take(with_tid(piece(CONTENT, 0, 5, 1, 2), 1)), Taken::Part);
    let message = Taken::Whole(Box::new(with_tid(whole(CONTENT), 1)), 2);
    assert_eq!(assembler.take(last.clone()), message);
    assert_eq!(assembler.take(last.clone()), message);
    assert_eq!(assembler.take(with_tid(piece(CONTENT, 0, 5, 1, 2), 1)), Taken::Repeated);
    assembler.settle(&with_tid(whole(CONTENT), 1));
    assert_eq!(assembler.take(last), Taken::Repeated);
}

#[test]
fn pieces_of_different_messages_are_kept_apart() {
    let mut assembler = Assembler::default();
    for tid in 0..3 {
        assert_eq!(assembler.take(with_tid(piece(CONTENT, 0, 5, 1, 2), tid)), Taken::Part);
    }
    let group = Envelope { nid: 0, gid: 9, ..piece(CONTENT, 0, 5, 1, 2) };
    assert_eq!(assembler.take(group), Taken::Part);
    for tid in [2, 0, 1] {
        let last = assembler.take(with_tid(piece(CONTENT, 5, 10, 2, 2), tid));
        assert_eq!(last, Taken::Whole(Box::new(with_tid(whole(CONTENT), tid)), 2));
    }
}

#[test]
fn without_transaction_ids_a_new_beginning_is_a_new_message() {
    let other = b"abcdefghij";
    let mut assembler = Assembler::default();
    assert_eq!(assembler.take(piece(CONTENT, 0, 4, 1, 3)), Taken::Part);
    assert_eq!(assembler.take(piece(other, 0, 4, 1, 2)), Taken::Part, "the first was withdrawn");
    let last = assembler.take(piece(other, 4, 10, 2, 2));
    assert_eq!(last, Taken::Whole(Box::new(whole(other)), 2));
    assembler.settle(&whole(other));
    assert_eq!(assembler.take(piece(other, 4, 10, 2, 2)), Taken::Repeated);
    assert_eq!(assembler.take(piece(other, 0, 4, 1, 2)), Taken::Part, "the same once more");
}

#[test]
fn pieces_that_do_not_fit_end_the_message_once() {
    let two = b"other bytes that are longer";
    for (bad, expected) in [
        (piece(CONTENT, 5, 8, 2, 3), PieceError::Gap { offset: 5, there: 4 }),
        (piece(two, 4, 8, 2, 3), PieceError::Different),
        (piece(b"012x456789", 2, 6, 2, 3), PieceError::Different),
        (piece(CONTENT, 4, 8, 3, 3), PieceError::Miscounted),
        (piece(CONTENT, 4, 10, 2, 3), PieceError::Miscounted),
        (piece(CONTENT, 4, 8, 0, 3), PieceError::Miscounted),
        (piece(CONTENT, 4, 8, 4, 3), PieceError::Miscounted),
        (piece(CONTENT, 4, 4, 2, 3), PieceError::Miscounted),
        (piece(CONTENT, 4, 8, 2, 3).with_body(vec![0; 7]), PieceError::Miscounted),
        (piece(CONTENT, 4, 8, 2, 3).with_body(json!("AAAA")), PieceError::Unreadable),
    ] {
        let mut assembler = Assembler::default();
        assert_eq!(assembler.take(with_tid(piece(CONTENT, 0, 4, 1, 3), 1)), Taken::Part);
        assert_eq!(broken(assembler.take(with_tid(bad, 1))), expected);
        for rest in [piece(CONTENT, 4, 8, 2, 3), piece(CONTENT, 8, 10, 3, 3)] {
            assert_eq!(assembler.take(with_tid(rest, 1)), Taken::Repeated);
        }
    }
    let mut assembler = Assembler::default();
    let late = assembler.take(piece(CONTENT, 4, 8, 2, 3));
    assert_eq!(broken(late), PieceError::Gap { offset: 4, there: 0 }, "without a beginning");
    let mut assembler = Assembler::default();
    let mut text = piece(b"{", 0, 1, 1, 1).with_body(json!("{"));
    text.chunk = text.chunk.map(|chunk| Chunk { form: Form::Json, ..chunk });
    assert_eq!(broken(assembler.take(text)), PieceError::Unreadable, "the whole is no JSON");
}

#[test]
fn what_is_kept_is_bounded() {
    let mut assembler = Assembler::default();
    let mut large = piece(CONTENT, 0, 4, 1, 3);
    large.chunk = large.chunk.map(|chunk| Chunk { total: CONTENT_BYTES_MAX + 1, ..chunk });
    let too_large = PieceError::TooLarge(CONTENT_BYTES_MAX + 1);
    assert_eq!(broken(assembler.take(large.clone())), too_large);
    large.chunk = large.chunk.map(|chunk| Chunk { total: CONTENT_BYTES_MAX, ..chunk });
    assert_eq!(assembler.take(with_tid(large, 0)), Taken::Part);
    assert!(assembler.messages.iter().all(|message| message.content.capacity() < 100));
    let huge = Chunk { n: 1, of: 2, offset: usize::MAX, total: 10, form: Form::Bytes };
    let huge = Envelope { chunk: Some(huge), ..piece(CONTENT, 0, 4, 1, 3) };
    assert_eq!(broken(assembler.take(with_tid(huge, 99))), PieceError::Miscounted);
    for tid in 1..=OPEN_MAX as u64 {
        assembler.take(with_tid(piece(CONTENT, 0, 4, 1, 3), tid));
    }
    assert_eq!(assembler.messages.len(), OPEN_MAX);
    let oldest = assembler.take(with_tid(piece(CONTENT, 4, 8, 2, 3), 1));
    assert_eq!(oldest, Taken::Part, "this one is still there");
}
