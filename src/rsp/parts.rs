//! Parts: one group message that carries something else for each of its receivers, as N Bound
//! Profile Packages of which each is bound to one eUICC.
//!
//! `{"nid":0,"gid":g,"type":"msg","parts":true,"body":{"parts":{"<nid>":…, …},"common":…}}` is cut
//! into one letter for each member: the same envelope without `parts`, and with the body
//! `{"common":…,"part":…}`. In CBOR the names within `parts` are numbers of devices in any
//! spelling of a `nid`. Nobody gets a byte of what is for somebody else.

use std::ops::Range;

use bytes::Bytes;

use super::envelope::{Name, once};
use super::outline::Outline;
use crate::ids::{Nid, NidScheme};

/// Why a body is none in parts. All of it is the publisher's to mend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PartsError {
    /// Another body, or another member in it.
    #[error(
        "The body is not exactly {{\"parts\": {{…}}, \"common\": …}} with each name once; \
         correct it, or leave out the member parts of the envelope."
    )]
    Unreadable,
    /// A part for no device.
    #[error("A name within parts is no valid EID or number, or is 0; check the digits.")]
    BadNid,
    /// A device has two parts.
    #[error("A device is named twice within parts, perhaps in two spellings; name it once.")]
    NamedTwice,
    /// Nobody has a part.
    #[error("The body has no parts; name at least one device within parts.")]
    Empty,
}

impl PartsError {
    /// The name in metrics, audit log and Reason String.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Unreadable => "unreadable_parts",
            Self::BadNid => "bad_part_nid",
            Self::NamedTwice => "part_named_twice",
            Self::Empty => "no_parts",
        }
    }
}

/// The places of all parts in the payload that carries them: 24 bytes each, and no copy of any.
#[derive(Clone, Debug)]
pub struct Parts {
    outline: Outline,
    common: Option<Range<usize>>,
    /// Sorted.
    nids: Box<[Nid]>,
    /// Start and end of the part of each.
    places: Box<[(u32, u32)]>,
}

impl Parts {
    /// Finds the parts in an envelope that [`super::envelope::read`] has read. Their number is
    /// bounded by the payload: a part takes no fewer than 3 bytes.
    ///
    /// # Errors
    /// [`PartsError`].
    pub fn read(payload: &Bytes, scheme: NidScheme) -> Result<Self, PartsError> {
        let outline = Outline::read(payload).ok_or(PartsError::Unreadable)?;
        let body = outline.value(Name::Body).ok_or(PartsError::Unreadable)?;
        let (mut parts, mut common) = (None, None);
        let known = outline.members(body, |name, value| match name {
            "parts" => once(&mut parts, value),
            "common" => once(&mut common, value),
            _ => None,
        });
        let parts = parts.filter(|_| known.is_some()).ok_or(PartsError::Unreadable)?;
        let sorted = sorted(&outline, parts, scheme)?;
        let nids = sorted.iter().map(|(nid, _)| *nid).collect();
        let places = sorted.iter().map(|(_, place)| *place).collect();
        Ok(Self { outline, common, nids, places })
    }

    /// The devices that have a part, in ascending order.
    #[must_use]
    pub fn nids(&self) -> &[Nid] {
        &self.nids
    }

    /// The part of one device, as it stands in the payload: JSON text, or a CBOR item.
    #[must_use]
    pub fn part_of(&self, nid: Nid) -> Option<Bytes> {
        let part = self.place_of(nid)?;
        Some(self.outline.slice(part))
    }

    /// The common part, as it stands in the payload.
    #[must_use]
    pub fn common(&self) -> Option<Bytes> {
        self.common.clone().map(|common| self.outline.slice(common))
    }

    /// The envelope for one member of the group; `None` as `nid` for members without a part of
    /// their own, which a device that is not named is as well. Nothing when there is neither a
    /// part nor something common for it: it is to receive no message.
    #[must_use]
    pub fn letter(&self, nid: Option<Nid>) -> Option<Bytes> {
        let part = nid.and_then(|nid| self.place_of(nid));
        let values = [("common", self.common.clone()), ("part", part)];
        let values = values.map(|(name, place)| place.map(|p| (name, self.outline.bytes(p))));
        let count = values.iter().flatten().count();
        if count == 0 {
            return None;
        }
        let bytes: usize = values.iter().flatten().map(|(_, value)| value.len()).sum();
        let mut draft = self.outline.draft(&[Name::Parts, Name::Body], 1, bytes + FRAME_BYTES);
        draft.keep();
        draft.name(Name::Body);
        draft.writer.open_map(count);
        for (name, value) in values.into_iter().flatten() {
            draft.writer.key(name);
            draft.writer.raw(value);
        }
        draft.writer.close_map();
        Some(draft.finish())
    }

    fn place_of(&self, nid: Nid) -> Option<Range<usize>> {
        let at = self.nids.binary_search(&nid).ok()?;
        let (start, end) = self.places[at];
        Some(start as usize..end as usize)
    }
}

/// `"body":{"common":,"part":}` and then some.
const FRAME_BYTES: usize = 32;

type Place = (u32, u32);

fn sorted(
    outline: &Outline,
    parts: Range<usize>,
    scheme: NidScheme,
) -> Result<Vec<(Nid, Place)>, PartsError> {
    let mut found = Vec::new();
    let mut bad_nid = false;
    let all = outline.numbered_members(parts, |number, value| {
        let nid = number.nid(scheme).ok().flatten();
        bad_nid = nid.is_none();
        // An MQTT payload ends long before 4 GiB.
        let place = (u32::try_from(value.start).ok()?, u32::try_from(value.end).ok()?);
        found.push((nid?, place));
        Some(())
    });
    match all {
        _ if bad_nid => return Err(PartsError::BadNid),
        None => return Err(PartsError::Unreadable),
        Some(()) if found.is_empty() => return Err(PartsError::Empty),
        Some(()) => found.sort_unstable_by_key(|(nid, _)| *nid),
    }
    if found.windows(2).any(|pair| pair[0].0 == pair[1].0) {
        return Err(PartsError::NamedTwice);
    }
    Ok(found)
}
