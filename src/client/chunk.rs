//! Messages that came in pieces, put together on the device's side.
//!
//! A piece says `"chunk":{"n":3,"of":7,"offset":8190,"total":12500,"as":"base64"}` and carries the
//! bytes from `offset` of a content of `total` bytes. After a lost connection the sender begins
//! with the first piece that was not acknowledged, and may cut the rest anew by another limit: a
//! piece may repeat what is there, in part or as a whole, but it must not leave a gap.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::envelope::{Body, Envelope, Kind, Tid};

/// Messages that are put together at one time, those just finished included; the oldest gives way.
const OPEN_MAX: usize = 8;
/// A larger content is refused: no eUICC takes such a package.
const CONTENT_BYTES_MAX: usize = 1024 * 1024;

/// Which piece of a message's body this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk {
    /// Its number, from 1.
    pub n: u32,
    /// How many there are, as the sender cuts now.
    pub of: u32,
    /// Where it begins, in bytes of the content.
    pub offset: usize,
    /// Bytes of the whole content.
    pub total: usize,
    /// What the content is.
    #[serde(rename = "as")]
    pub form: Form,
}

/// What a content is, and how pieces of it are carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// The bytes that a string of base64 means; pieces are base64 as well.
    Base64,
    /// The text of a JSON value; pieces are strings.
    Json,
    /// A byte string; pieces are byte strings.
    Bytes,
    /// A value in CBOR; pieces are byte strings.
    Cbor,
}

/// What a piece leads to.
#[derive(Clone, Debug, PartialEq)]
pub enum Taken {
    /// Others are to follow.
    Part,
    /// All of it was there before, or the message is over.
    Repeated,
    /// The message as it was before it was cut, and the number of pieces it came in.
    Whole(Box<Envelope>, u32),
    /// The message is given up, for what is wrong with this piece of it; its other pieces will be
    /// [`Taken::Repeated`].
    Broken(Box<Envelope>, PieceError),
}

/// Why pieces do not make a message. The sender is at fault, or the broker that cut it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PieceError {
    /// The piece, or all of them together, are not what `as` says.
    #[error("a piece, or the whole, is not what it says it is")]
    Unreadable,
    /// Pieces are missing.
    #[error("a piece begins at byte {offset}, but only {there} bytes are there")]
    Gap {
        /// Where the piece begins.
        offset: usize,
        /// What is there.
        there: usize,
    },
    /// The piece says other things of the message than those before, or repeats other bytes.
    #[error("a piece belongs to another message than those before it")]
    Different,
    /// It is empty, reaches beyond the end, or is the last without reaching it.
    #[error("a piece does not end where its numbers say")]
    Miscounted,
    /// More than a device can keep.
    #[error("{0} bytes are more than a device keeps")]
    TooLarge(usize),
}

/// Whose pieces belong together: those of one transaction, or else of one address and type.
type Key = (u128, u64, Kind, Option<Tid>);

#[derive(Debug)]
struct Message {
    key: Key,
    total: usize,
    form: Form,
    content: Vec<u8>,
    pieces: u32,
    /// Answered or given up; the content is gone.
    over: bool,
}

/// Puts pieces together.
#[derive(Debug, Default)]
pub struct Assembler {
    /// Oldest first.
    messages: VecDeque<Message>,
}

impl Assembler {
    /// Takes what arrived; an envelope that is no piece is whole.
    pub fn take(&mut self, piece: Envelope) -> Taken {
        let Some(chunk) = piece.chunk else { return Taken::Whole(Box::new(piece), 1) };
        let key = key_of(&piece);
        match self.add(&key, chunk, &piece.body) {
            Ok(Added::Part) => Taken::Part,
            Ok(Added::Repeated) => Taken::Repeated,
            Ok(Added::Whole(body, pieces)) => {
                Taken::Whole(Box::new(Envelope { chunk: None, body, ..piece }), pieces)
            }
            Err(error) => {
                self.give_up(key, chunk);
                Taken::Broken(Box::new(piece), error)
            }
        }
    }

    /// The message has been answered for good: its content is forgotten. Until then its last piece,
    /// when it comes again, gives the whole message again.
    pub fn settle(&mut self, message: &Envelope) {
        let key = key_of(message);
        if let Some(message) = self.messages.iter_mut().find(|message| message.key == key) {
            message.close();
        }
    }

    fn add(&mut self, key: &Key, chunk: Chunk, body: &Body) -> Result<Added, PieceError> {
        let bytes = carried(body, chunk.form).ok_or(PieceError::Unreadable)?;
        check(chunk, bytes.len())?;
        let at = self.messages.iter().position(|message| message.key == *key);
        let at = match at {
            Some(at) if self.messages[at].is_followed_by(chunk, &bytes) => {
                self.messages.remove(at);
                self.begin(key.clone(), chunk)
            }
            Some(at) => at,
            None => self.begin(key.clone(), chunk),
        };
        self.messages[at].add(chunk, &bytes)
    }

    /// A new message, at the end.
    fn begin(&mut self, key: Key, chunk: Chunk) -> usize {
        if self.messages.len() == OPEN_MAX {
            self.messages.pop_front();
        }
        let (total, form) = (chunk.total, chunk.form);
        let message = Message { key, total, form, content: Vec::new(), pieces: 0, over: false };
        self.messages.push_back(message);
        self.messages.len() - 1
    }

    fn give_up(&mut self, key: Key, chunk: Chunk) {
        let at = self.messages.iter().position(|message| message.key == key);
        let at = at.unwrap_or_else(|| self.begin(key, chunk));
        self.messages[at].close();
    }
}

enum Added {
    Part,
    Repeated,
    Whole(Body, u32),
}

impl Message {
    /// Without transaction ids, another message looks the same but for its beginning.
    fn is_followed_by(&self, chunk: Chunk, bytes: &[u8]) -> bool {
        let same = (self.total, self.form) == (chunk.total, chunk.form)
            && self.content.iter().zip(bytes).all(|(here, there)| here == there);
        self.key.3.is_none() && chunk.offset == 0 && (self.over || !same)
    }

    fn add(&mut self, chunk: Chunk, bytes: &[u8]) -> Result<Added, PieceError> {
        if self.over {
            return Ok(Added::Repeated);
        }
        if (self.total, self.form) != (chunk.total, chunk.form) {
            return Err(PieceError::Different);
        }
        let there = self.content.len();
        let Some(known) = self.content.get(chunk.offset..) else {
            return Err(PieceError::Gap { offset: chunk.offset, there });
        };
        let known = &known[..known.len().min(bytes.len())];
        let (again, new) = bytes.split_at(known.len());
        if known != again {
            return Err(PieceError::Different);
        }
        if new.is_empty() && self.pieces > 0 {
            let is_last = there == self.total && chunk.n == chunk.of;
            return if is_last { self.whole() } else { Ok(Added::Repeated) };
        }
        self.content.extend_from_slice(new);
        self.pieces += 1;
        if self.content.len() == self.total { self.whole() } else { Ok(Added::Part) }
    }

    fn whole(&self) -> Result<Added, PieceError> {
        let body = self.body().ok_or(PieceError::Unreadable)?;
        Ok(Added::Whole(body, self.pieces))
    }

    fn body(&self) -> Option<Body> {
        match self.form {
            Form::Base64 => Some(Body::Value(STANDARD.encode(&self.content).into())),
            Form::Json => serde_json::from_slice(&self.content).ok().map(Body::Value),
            Form::Bytes => Some(Body::Bytes(self.content.clone())),
            Form::Cbor => Body::from_cbor(&self.content),
        }
    }

    fn close(&mut self) {
        self.over = true;
        self.content = Vec::new();
    }
}

fn key_of(envelope: &Envelope) -> Key {
    (envelope.nid, envelope.gid, envelope.kind, envelope.tid.clone())
}

/// The bytes of the content that a piece's body carries.
fn carried(body: &Body, form: Form) -> Option<Vec<u8>> {
    match (form, body) {
        (Form::Base64, Body::Value(Value::String(text))) => STANDARD.decode(text).ok(),
        (Form::Json, Body::Value(Value::String(text))) => Some(text.clone().into_bytes()),
        (Form::Bytes | Form::Cbor, Body::Bytes(bytes)) => Some(bytes.clone()),
        (Form::Base64 | Form::Json | Form::Bytes | Form::Cbor, _) => None,
    }
}

/// What a piece says of itself must be possible.
fn check(chunk: Chunk, length: usize) -> Result<(), PieceError> {
    if chunk.total > CONTENT_BYTES_MAX {
        return Err(PieceError::TooLarge(chunk.total));
    }
    let end = chunk.offset.checked_add(length).ok_or(PieceError::Miscounted)?;
    let numbered = 1 <= chunk.n && chunk.n <= chunk.of;
    let is_last = chunk.n == chunk.of;
    let empty = length == 0 && chunk.total > 0;
    if !numbered || empty || end > chunk.total || is_last != (end == chunk.total) {
        return Err(PieceError::Miscounted);
    }
    Ok(())
}

/// What a device keeps through a power cut; clones share it. A device that is started again with
/// it goes on with the pieces that are still to come.
#[derive(Clone, Debug, Default)]
pub struct Downloads(Arc<Mutex<Assembler>>);

impl Downloads {
    /// As [`Assembler::take`].
    #[must_use]
    pub fn take(&self, piece: Envelope) -> Taken {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take(piece)
    }

    /// As [`Assembler::settle`].
    pub fn settle(&self, message: &Envelope) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).settle(message);
    }
}

#[cfg(test)]
mod tests;
