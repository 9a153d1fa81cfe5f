//! Request: one A1, B1 or C1, and how far each device is with it that it was addressed to.

use std::sync::Arc;

use super::campaign::{CampaignState, FirstWave, Pace, Verdict};
use super::envelope::Tid;
use super::filed::Standing;
use super::mail::Publication;
use super::parts::Parts;
use super::track::{DeviceState, Tally, Track};
use crate::ids::{Gid, Timestamp};
use crate::mqtt::Message;

/// What a request asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// A1: waits for A2; answered, it still permits an E1 until its time is over.
    Trigger,
    /// B1 or C1: waits for B2 or C2.
    Msg,
}

/// An open request, as found for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) id: u64,
    /// Who answers.
    pub(super) index: u32,
    /// It has the answer's tid, and is not just the oldest.
    by_tid: bool,
}

/// What an answer of a device is to the requests it may belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answerable {
    /// The answer to this one.
    Open(Found),
    /// A second answer.
    Answered,
    /// An answer after its time.
    Late,
    /// An answer to what was withdrawn: to nothing else, but of no name of its own.
    Withdrawn,
    /// Nobody asked.
    Never,
}

impl Answerable {
    /// What an answer is to all of these, each of which fits it as well as the others: one that is
    /// open, if there is one.
    pub(super) fn first_open(each: impl Iterator<Item = Self>) -> Self {
        let mut best = Self::Never;
        for next in each {
            best = best.or(next);
            if matches!(best, Self::Open(_)) {
                break;
            }
        }
        best
    }

    /// Nothing fits an answer with this tid better.
    fn is_best(self, tid: Option<&Tid>) -> bool {
        matches!(self, Self::Open(found) if found.by_tid || tid.is_none())
    }

    /// This, or what fits better of some others, which are looked for in vain where this fits
    /// best.
    pub(super) fn or_else(self, tid: Option<&Tid>, others: impl Iterator<Item = Self>) -> Self {
        if self.is_best(tid) { self } else { others.fold(self, Self::or) }
    }

    /// Of two places where the request may be: what fits best; the first, where both do.
    pub(super) fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Open(a), Self::Open(b)) if b.by_tid && !a.by_tid => other,
            (Self::Open(_), _) => self,
            (_, Self::Open(_)) => other,
            (Self::Answered, _) | (_, Self::Answered) => Self::Answered,
            (Self::Late, _) | (_, Self::Late) => Self::Late,
            (Self::Withdrawn, _) | (_, Self::Withdrawn) => Self::Withdrawn,
            (Self::Never, Self::Never) => Self::Never,
        }
    }
}

/// What is known of a request when it is opened.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) asked: Asked,
    pub(super) asker: Arc<str>,
    pub(super) tid: Option<Tid>,
    pub(super) name: Option<Box<str>>,
    pub(super) expires: Timestamp,
    pub(super) publication: Publication,
    /// Equal B1s, delivered as one: their devices may answer by B2 or C2.
    pub(super) merged: bool,
    pub(super) wave: Option<FirstWave>,
}

/// 72 bytes; a million of them may be open.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) asked: Asked,
    pub(super) whom: Whom,
    pub(super) expires: Timestamp,
    pub(super) opened: Timestamp,
    pub(super) asker: Arc<str>,
    /// Boxed: many have none.
    names: Option<Box<Names>>,
    /// What was sent, to send it again; goes when it is not needed any more, or for want of room.
    message: Option<Arc<Message>>,
    chunks: bool,
    needs_consent: bool,
    pub(super) merged: bool,
    pub(super) standing: Standing,
}

/// What the server calls a request.
#[derive(Debug)]
struct Names {
    tid: Option<Tid>,
    campaign: Option<Box<str>>,
}

#[derive(Debug)]
pub(super) enum Whom {
    One { index: u32, state: DeviceState },
    All(Box<Roster>),
}

/// The members of a group that were addressed.
#[derive(Debug)]
pub(super) struct Roster {
    pub(super) gid: Gid,
    pub(super) track: Track,
    pub(super) pace: Pace,
    pub(super) wave: Option<FirstWave>,
    /// What the message consists of; goes with it.
    pub(super) parts: Option<Arc<Parts>>,
    /// The row with the members, where the request is written down.
    pub(super) row: u64,
}

impl Request {
    pub(super) fn new(whom: Whom, draft: Draft, now: Timestamp) -> Self {
        let Draft { asked, asker, tid, name, expires, publication, merged, wave: _ } = draft;
        let is_named = tid.is_some() || name.is_some();
        let names = is_named.then(|| Box::new(Names { tid, campaign: name }));
        Self {
            asked,
            whom,
            expires,
            opened: now,
            asker,
            names,
            message: Some(publication.message),
            chunks: publication.chunks,
            needs_consent: publication.needs_consent,
            merged,
            standing: Standing::Open,
        }
    }

    pub(super) fn tid(&self) -> Option<&Tid> {
        self.names.as_deref()?.tid.as_ref()
    }

    /// The name of the campaign it belongs to, as its server has it.
    pub(super) fn campaign_name(&self) -> Option<&str> {
        self.names.as_deref()?.campaign.as_deref()
    }

    /// What was sent, if it is still there.
    pub(super) fn publication(&self) -> Option<Publication> {
        let (message, chunks, needs_consent) =
            (self.message.clone()?, self.chunks, self.needs_consent);
        let parts = match &self.whom {
            Whom::One { .. } => None,
            Whom::All(roster) => roster.parts.clone(),
        };
        Some(Publication { message, parts, chunks, needs_consent })
    }

    /// Whether what was sent may be cut, and whether it waits for the agreement of each device.
    pub(super) fn shape(&self) -> (bool, bool) {
        (self.chunks, self.needs_consent)
    }

    /// Bytes of what was sent, as far as it is kept.
    pub(super) fn message_bytes(&self) -> usize {
        self.message.as_ref().map_or(0, |message| message.kept_bytes())
    }

    /// Whether it can be sent again.
    pub(super) fn keeps_message(&self) -> bool {
        self.message.is_some()
    }

    pub(super) fn drop_message(&mut self) -> Option<Arc<Message>> {
        if let Whom::All(roster) = &mut self.whom {
            roster.parts = None;
        }
        self.message.take()
    }

    pub(super) fn len(&self) -> usize {
        match &self.whom {
            Whom::One { .. } => 1,
            Whom::All(roster) => roster.track.len(),
        }
    }

    pub(super) fn tally(&self) -> Tally {
        match &self.whom {
            Whom::One { state, .. } => {
                let mut tally = Tally::default();
                tally.add(*state, 1);
                tally
            }
            Whom::All(roster) => *roster.track.tally(),
        }
    }

    /// Whether some device may still answer.
    pub(super) fn is_open(&self) -> bool {
        match &self.whom {
            Whom::One { state, .. } => state.is_open(),
            Whom::All(roster) => roster.track.tally().open() > 0,
        }
    }

    /// Where it is in its life, as an operator sees it.
    pub(super) fn campaign_state(&self) -> CampaignState {
        if !self.is_open() {
            return CampaignState::Ended;
        }
        let Whom::All(roster) = &self.whom else { return CampaignState::Running };
        match roster.wave.as_ref().map(FirstWave::verdict) {
            None | Some(Some(Verdict::Release)) => CampaignState::Running,
            Some(None) => CampaignState::Canary,
            Some(Some(Verdict::Halt)) => CampaignState::Halted,
        }
    }

    /// What an answer of the device, now, is to this request.
    pub(super) fn answerable(
        &self,
        id: u64,
        index: u32,
        by_tid: bool,
        now: Timestamp,
    ) -> Answerable {
        match self.state(index) {
            None | Some(DeviceState::Gone) => Answerable::Never,
            Some(DeviceState::Cancelled) => Answerable::Withdrawn,
            Some(DeviceState::Queued | DeviceState::Delivered) if self.expires > now => {
                Answerable::Open(Found { id, index, by_tid })
            }
            Some(DeviceState::Queued | DeviceState::Delivered | DeviceState::Expired) => {
                Answerable::Late
            }
            Some(DeviceState::Ok | DeviceState::Refused | DeviceState::Failed) => {
                Answerable::Answered
            }
        }
    }

    /// How far a device is; `None` where it was not addressed.
    pub(super) fn state(&self, index: u32) -> Option<DeviceState> {
        match &self.whom {
            Whom::One { index: own, state } => (*own == index).then_some(*state),
            Whom::All(roster) => roster.track.state(index),
        }
    }

    /// Moves on the devices that `which` picks, each of which it is asked about once, ascending.
    pub(super) fn move_where(
        &mut self,
        to: DeviceState,
        mut which: impl FnMut(u32, DeviceState) -> bool,
    ) -> Option<Verdict> {
        match &mut self.whom {
            Whom::One { index, state } => {
                if which(*index, *state) {
                    *state = to;
                }
                None
            }
            Whom::All(roster) => {
                let (wave, mut verdict) = (&mut roster.wave, None);
                roster.track.move_where(to, which, |index, from| {
                    let said = wave.as_mut().and_then(|wave| wave.note(index, from, to));
                    verdict = said.or(verdict);
                });
                verdict
            }
        }
    }

    pub(super) fn set(&mut self, index: u32, to: DeviceState) {
        match &mut self.whom {
            Whom::One { state, .. } => *state = to,
            Whom::All(roster) => {
                roster.track.set(index, to);
            }
        }
    }

    /// The devices in states that `wanted` accepts.
    pub(super) fn devices(&self, wanted: impl Fn(DeviceState) -> bool) -> Vec<u32> {
        match &self.whom {
            Whom::One { index, state } => {
                if wanted(*state) {
                    vec![*index]
                } else {
                    Vec::new()
                }
            }
            Whom::All(roster) => roster.track.in_states(wanted),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_small() {
        assert!(size_of::<Request>() <= 72, "{}", size_of::<Request>());
    }
}
