//! Track: how far each addressed device has come with one request.
//!
//! The members are shared with the group itself until it changes (one pointer); how far each of
//! them is costs one byte. So a campaign for a million devices is one megabyte.

use std::sync::Arc;

use serde::Serialize;

use super::rows::{MEMBERS_PER_PAGE, Pages};

/// How far a device has come with a request: what an operator sees of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum DeviceState {
    /// The message waits in its mail.
    Queued = 0,
    /// The device has acknowledged the message, and not answered yet.
    Delivered = 1,
    /// It has answered with success.
    Ok = 2,
    /// It does not agree to be provisioned.
    Refused = 3,
    /// It has answered with a result code other than 0, or cannot be given the message.
    Failed = 4,
    /// The time for its answer is over.
    Expired = 5,
    /// The message was withdrawn before the device had it.
    Cancelled = 6,
    /// It is no longer in the group, or not registered.
    Gone = 7,
}

impl DeviceState {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 8] = [
        Self::Queued,
        Self::Delivered,
        Self::Ok,
        Self::Refused,
        Self::Failed,
        Self::Expired,
        Self::Cancelled,
        Self::Gone,
    ];

    /// The name in metrics and in the API.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Delivered => "delivered",
            Self::Ok => "ok",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
            Self::Gone => "gone",
        }
    }

    /// An answer may still come.
    #[must_use]
    pub fn is_open(self) -> bool {
        matches!(self, Self::Queued | Self::Delivered)
    }

    /// An answer came.
    #[must_use]
    pub fn is_answered(self) -> bool {
        matches!(self, Self::Ok | Self::Refused | Self::Failed)
    }

    /// Not what was hoped for. Who is gone before it has answered may be gone because of the
    /// message.
    pub(super) fn is_failure(self) -> bool {
        matches!(self, Self::Refused | Self::Failed | Self::Expired | Self::Gone)
    }

    fn from_byte(byte: u8) -> Self {
        Self::ALL[usize::from(byte)]
    }

    /// The state of this number, if it is one's.
    pub(super) fn of_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }
}

/// How many devices are in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally([u32; DeviceState::ALL.len()]);

impl Tally {
    /// Devices in this state.
    #[must_use]
    pub fn of(&self, state: DeviceState) -> u32 {
        self.0[state as usize]
    }

    /// Devices that count: all but those that are gone.
    #[must_use]
    pub fn total(&self) -> u32 {
        self.0.iter().sum::<u32>() - self.of(DeviceState::Gone)
    }

    /// Devices that have answered, whatever.
    #[must_use]
    pub fn answered(&self) -> u32 {
        DeviceState::ALL.iter().filter(|s| s.is_answered()).map(|s| self.of(*s)).sum()
    }

    /// Devices whose answer may still come.
    #[must_use]
    pub fn open(&self) -> u32 {
        self.of(DeviceState::Queued) + self.of(DeviceState::Delivered)
    }

    pub(super) fn add(&mut self, state: DeviceState, devices: u32) {
        self.0[state as usize] += devices;
    }

    pub(super) fn take(&mut self, state: DeviceState, devices: u32) {
        self.0[state as usize] -= devices;
    }

    pub(super) fn add_all(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(mine, more)| *mine += more);
    }

    pub(super) fn take_all(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(mine, less)| *mine -= less);
    }
}

/// The devices of one request and how far each is.
#[derive(Debug)]
pub(super) struct Track {
    /// Device indexes, ascending.
    members: Arc<Vec<u32>>,
    states: Box<[u8]>,
    tally: Tally,
    pages: Pages,
}

impl Track {
    pub(super) fn new(members: Arc<Vec<u32>>) -> Self {
        let states = vec![DeviceState::Queued as u8; members.len()].into_boxed_slice();
        let mut tally = Tally::default();
        tally.add(DeviceState::Queued, u32::try_from(members.len()).unwrap_or(u32::MAX));
        Self { members, states, tally, pages: Pages::default() }
    }

    /// The same, of which what changes has to be written down.
    pub(super) fn kept(self) -> Self {
        Self { pages: Pages::new(true), ..self }
    }

    /// Who was addressed.
    pub(super) fn members(&self) -> &Arc<Vec<u32>> {
        &self.members
    }

    /// The pages that have changed, a byte for each member.
    pub(super) fn take_changed(&mut self) -> Vec<(u32, &[u8])> {
        let pages = self.pages.take().into_iter();
        let states = |page| self.states.chunks(MEMBERS_PER_PAGE).nth(page as usize);
        pages.map(|page| (page, states(page).unwrap_or_default())).collect()
    }

    /// All that is known is to be written anew.
    pub(super) fn note_all(&mut self) {
        self.pages.note_all(self.states.len());
    }

    /// The member at this place is gone; gives where it was, if it was not gone before.
    pub(super) fn lose(&mut self, place: usize) -> Option<DeviceState> {
        let byte = self.states.get(place)?;
        let from = Some(DeviceState::from_byte(*byte)).filter(|from| *from != DeviceState::Gone)?;
        self.pages.note(place);
        self.restore(place, DeviceState::Gone);
        Some(from)
    }

    /// The member at this place is so far, as it was before a restart.
    pub(super) fn restore(&mut self, place: usize, state: DeviceState) {
        let Some(byte) = self.states.get_mut(place) else { return };
        self.tally.take(DeviceState::from_byte(*byte), 1);
        self.tally.add(state, 1);
        *byte = state as u8;
    }

    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    pub(super) fn tally(&self) -> &Tally {
        &self.tally
    }

    /// How far a device is; `None` where it was not addressed.
    pub(super) fn state(&self, index: u32) -> Option<DeviceState> {
        let at = self.members.binary_search(&index).ok()?;
        Some(DeviceState::from_byte(self.states[at]))
    }

    /// Moves a device on; gives where it was.
    pub(super) fn set(&mut self, index: u32, state: DeviceState) -> Option<DeviceState> {
        let at = self.members.binary_search(&index).ok()?;
        let former = DeviceState::from_byte(self.states[at]);
        self.states[at] = state as u8;
        self.pages.note(at);
        self.tally.take(former, 1);
        self.tally.add(state, 1);
        Some(former)
    }

    /// Moves on all devices that `which` picks, in one pass; tells of each where it was.
    pub(super) fn move_where(
        &mut self,
        to: DeviceState,
        mut which: impl FnMut(u32, DeviceState) -> bool,
        mut moved: impl FnMut(u32, DeviceState),
    ) {
        let members = self.members.iter().zip(&mut self.states);
        for (place, (index, byte)) in members.enumerate() {
            let from = DeviceState::from_byte(*byte);
            if which(*index, from) {
                *byte = to as u8;
                self.pages.note(place);
                self.tally.take(from, 1);
                self.tally.add(to, 1);
                moved(*index, from);
            }
        }
    }

    /// The devices from a place in the roll on, with their states and the place after each.
    pub(super) fn from(
        &self,
        place: usize,
    ) -> impl Iterator<Item = (usize, u32, DeviceState)> + '_ {
        let rest = self.members.iter().zip(&self.states).enumerate().skip(place);
        rest.map(|(at, (index, state))| (at + 1, *index, DeviceState::from_byte(*state)))
    }

    /// The devices in states that `wanted` accepts.
    pub(super) fn in_states(&self, wanted: impl Fn(DeviceState) -> bool) -> Vec<u32> {
        self.from(0).filter(|(_, _, state)| wanted(*state)).map(|(_, index, _)| index).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_counted_as_they_change() {
        let mut track = Track::new(Arc::new(vec![3, 5, 8]));
        assert_eq!(track.set(5, DeviceState::Delivered), Some(DeviceState::Queued));
        assert_eq!(track.set(5, DeviceState::Ok), Some(DeviceState::Delivered));
        assert_eq!(track.set(4, DeviceState::Ok), None, "was never addressed");
        assert_eq!(track.set(8, DeviceState::Gone), Some(DeviceState::Queued));
        let tally = track.tally();
        assert_eq!((tally.total(), tally.answered(), tally.open()), (2, 1, 1));
        assert_eq!(track.in_states(DeviceState::is_open), [3]);
        assert_eq!((track.state(8), track.state(9)), (Some(DeviceState::Gone), None));
    }

    #[test]
    fn numbers_and_states_agree() {
        for (number, state) in DeviceState::ALL.into_iter().enumerate() {
            assert_eq!((state as usize, DeviceState::from_byte(number as u8)), (number, state));
            assert!(!(state.is_open() && state.is_answered()), "{}", state.name());
        }
    }
}
