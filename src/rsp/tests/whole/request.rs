//! A campaign in the model: a state for each device, and how the first wave fares.

use super::*;

/// Who is served first, and how they fare.
pub(super) struct Canaries {
    pub(super) first: BTreeSet<usize>,
    pub(super) done: usize,
    pub(super) failed: usize,
    pub(super) verdict: Option<bool>,
}

pub(super) struct Request {
    pub(super) id: CampaignId,
    pub(super) is_msg: bool,
    pub(super) group: Option<usize>,
    pub(super) expires: Timestamp,
    pub(super) states: BTreeMap<usize, DeviceState>,
    pub(super) wave: Option<Canaries>,
    /// When devices have answered, in the order of all answers.
    pub(super) said: BTreeMap<usize, u32>,
    /// Its device is no longer registered.
    pub(super) forgotten: bool,
}

impl Request {
    pub(super) fn state(&self, device: usize) -> Option<DeviceState> {
        self.states.get(&device).copied().filter(|_| !self.forgotten)
    }

    /// Moves a device on; `true` when the others may follow now.
    pub(super) fn set(&mut self, device: usize, to: DeviceState) -> bool {
        let Some(from) = self.states.insert(device, to) else { return false };
        let Some(wave) = self.wave.as_mut().filter(|w| w.first.contains(&device)) else {
            return false;
        };
        if !from.is_open() || to.is_open() {
            return false;
        }
        wave.done += 1;
        wave.failed += usize::from(is_failure(to));
        if wave.verdict.is_some() {
            return false;
        }
        let tolerated = wave.first.len() * usize::from(TOLERATED_PERMILLE) / 1000;
        if wave.failed > tolerated {
            wave.verdict = Some(false);
        } else if wave.done == wave.first.len() {
            wave.verdict = Some(true);
        }
        wave.verdict == Some(true)
    }

    pub(super) fn ttl(&self) -> Duration {
        if self.is_msg { TTL_MSG } else { TTL_TRIGGER }
    }
}

pub(super) fn is_failure(state: DeviceState) -> bool {
    use DeviceState::{Expired, Failed, Gone, Refused};
    matches!(state, Refused | Failed | Expired | Gone)
}
