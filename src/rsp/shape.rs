//! Shape: what a device gets of a letter: all of it, its part, or the next piece.

use std::sync::Arc;

use super::chunk;
use super::group_log::GroupLetter;
use super::mail::{Publication, Pulling};
use super::mailbox::{Letter, Mailbox, OwnLetter, Progress};
use super::parts::Parts;
use crate::ids::Nid;
use crate::mqtt::Message;

/// The next letter of a mailbox or a log.
pub(super) struct Next<'a> {
    pub(super) id: u64,
    message: &'a Arc<Message>,
    parts: Option<&'a Parts>,
    chunks: bool,
}

impl<'a> Next<'a> {
    pub(super) fn of_own(letter: &'a OwnLetter) -> Self {
        Self { id: letter.id, message: &letter.message, parts: None, chunks: letter.chunks }
    }

    pub(super) fn of_group(letter: &'a GroupLetter) -> Self {
        let Publication { message, parts, chunks, .. } = &letter.publication;
        Self { id: letter.id, message, parts: parts.as_deref(), chunks: *chunks }
    }

    /// What the device gets of it now: all, its part, or the next piece.
    pub(super) fn shape(
        self,
        pulling: &Pulling<'_>,
        mailbox: &Mailbox,
    ) -> (Letter, Option<Progress>) {
        let Self { id, message, parts, chunks } = self;
        let message =
            parts.map_or_else(|| Arc::clone(message), |parts| part(message, parts, pulling.nid));
        let whole = Letter { id, message };
        let envelope_bytes_max = envelope_bytes_max(&whole.message, pulling, mailbox);
        let known = mailbox.progress().filter(|progress| progress.letter == id);
        let (offset, pieces) = known.map_or((0, 0), |known| (known.offset, known.pieces));
        // Who has some of it gets the rest, were it all in one.
        if !chunks || pieces == 0 && whole.message.payload.len() <= envelope_bytes_max {
            return (whole, None);
        }
        let payload = &whole.message.payload;
        // What cannot be cut is given whole, and comes back as undeliverable.
        let Ok(piece) = chunk::piece(payload, offset, pieces + 1, envelope_bytes_max) else {
            return (whole, None);
        };
        let (next, limit) = (piece.next, envelope_bytes_max);
        let progress = Progress { letter: id, offset, pieces, next, limit };
        let message = Arc::new(whole.message.with_payload(piece.payload));
        (Letter { id, message }, Some(progress))
    }
}

/// The message that a device gets of one that consists of parts.
pub(super) fn part(message: &Message, parts: &Parts, nid: Nid) -> Arc<Message> {
    let own = parts.part_of(nid).map(|_| nid);
    Arc::new(message.with_payload(parts.letter(own).unwrap_or_default()))
}

/// The largest envelope that the device takes in one piece.
fn envelope_bytes_max(message: &Message, pulling: &Pulling<'_>, mailbox: &Mailbox) -> usize {
    let packet = usize::try_from(mailbox.packet_bytes_max()).unwrap_or(usize::MAX);
    let by_client = packet.saturating_sub(message.head_bytes_max());
    if pulling.chunk == 0 { by_client } else { by_client.min(pulling.chunk) }
}
