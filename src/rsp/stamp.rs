//! The stamp: who sent a message, for servers that cannot see a user property (MQTT 3.1.1).

use bytes::Bytes;

use super::envelope::Name;
use super::outline::Outline;
use crate::ids::Nid;

/// The envelope with the member `"src": "<nid>"` in front of all others; in CBOR a text of digits
/// too, under the key 12 where all keys are integers. A `src` that its author put in is left out:
/// nobody stamps for somebody else. What is no envelope comes back as it is.
#[must_use]
pub fn with_src(payload: &Bytes, nid: Nid) -> Bytes {
    let Some(outline) = Outline::read(payload) else { return payload.clone() };
    let digits = nid.to_string();
    let mut draft = outline.draft(&[Name::Src], 1, digits.len() + FRAME_BYTES);
    draft.name(Name::Src);
    draft.writer.text(&digits);
    draft.keep();
    draft.finish()
}

/// `"src":"",` and then some.
const FRAME_BYTES: usize = 16;
