//! Campaigns: what an operator sees of an A1, B1 or C1, and how it goes out in waves.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::envelope::{Tid, Wave, percent};
use super::policy::MessageId;
use super::track::{DeviceState, Tally};
use crate::ids::{Gid, Nid, Timestamp};

/// Names a campaign as long as the control unit remembers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct CampaignId(pub u64);

/// Where a campaign is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CampaignState {
    /// Some device may still answer.
    Running,
    /// Only the first devices have been served; how they fare decides about the others.
    #[serde(rename = "first-wave")]
    Canary,
    /// Too many of the first devices failed: the others wait for an operator.
    Halted,
    /// No device will answer any more.
    Ended,
}

impl CampaignState {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Running, Self::Canary, Self::Halted, Self::Ended];

    /// The name in metrics and in the API.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Canary => "first-wave",
            Self::Halted => "halted",
            Self::Ended => "ended",
        }
    }
}

/// Whom a campaign addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// One device; `None` when it is no longer registered.
    Device(Option<Nid>),
    /// The members of a group at the time of publication.
    Group(Gid),
}

/// A campaign as it stands.
#[derive(Clone, Debug)]
pub struct Campaign {
    /// Its name here.
    pub id: CampaignId,
    /// A1, B1 or C1.
    pub message: MessageId,
    /// Many equal B1s were merged into it.
    pub merged: bool,
    /// Who is addressed.
    pub target: Target,
    /// The envelope's member `campaign`.
    pub name: Option<Box<str>>,
    /// The envelope's member `tid`.
    pub tid: Option<Tid>,
    /// The server that published it.
    pub server: Arc<str>,
    /// When it was published.
    pub opened: Timestamp,
    /// Until when it waits for answers.
    pub expires: Timestamp,
    /// Where it is in its life.
    pub state: CampaignState,
    /// How many devices are how far.
    pub tally: Tally,
    /// The first wave, if it goes out in waves.
    pub wave: Option<WaveView>,
    /// Answers per second, lately.
    pub rate: f64,
    /// How long until all have answered, if they go on like this.
    pub eta: Option<Duration>,
    /// Its message is still there to be sent again.
    pub retriable: bool,
}

/// The first wave of a campaign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct WaveView {
    /// Devices that are served first.
    pub first: u32,
    /// How many of them are through.
    pub done: u32,
    /// How many of those failed, refused, did not answer in time, or left before they answered.
    pub failed: u32,
    /// Highest share of failures at which the others are served, per mille.
    pub failures_max_permille: u16,
}

impl Wave {
    /// A first wave as a user property names it: `100`, or `100;5%`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (first, failures_max) = match text.split_once(';') {
            Some((first, share)) => (first, Some(percent(share.trim())?)),
            None => (text, None),
        };
        let first = first.trim();
        let is_number = !first.is_empty() && first.bytes().all(|b| b.is_ascii_digit());
        Self::new(first.parse().ok().filter(|_| is_number)?, failures_max)
    }
}

/// What the first wave says about the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Release,
    Halt,
}

/// A campaign's first wave: these devices are served before all others.
#[derive(Debug)]
pub(super) struct FirstWave {
    /// Ascending.
    devices: Vec<u32>,
    failures_max_permille: u16,
    done: u32,
    failed: u32,
    verdict: Option<Verdict>,
}

impl FirstWave {
    pub(super) fn new(mut devices: Vec<u32>, failures_max_permille: u16) -> Self {
        devices.sort_unstable();
        Self { devices, failures_max_permille, done: 0, failed: 0, verdict: None }
    }

    /// As it was before a restart.
    pub(super) fn restored(
        devices: Vec<u32>,
        failures_max_permille: u16,
        (done, failed): (u32, u32),
        verdict: Option<Verdict>,
    ) -> Self {
        Self { done, failed, verdict, ..Self::new(devices, failures_max_permille) }
    }

    /// A device has moved on; gives the verdict when this was what was missing for it.
    pub(super) fn note(
        &mut self,
        index: u32,
        from: DeviceState,
        to: DeviceState,
    ) -> Option<Verdict> {
        if self.devices.binary_search(&index).is_err() || from.is_open() == to.is_open() {
            return None;
        }
        if to.is_open() {
            // It is sent the message again, and counts when it is through with that. A verdict
            // stands: who has halted waits for an operator.
            self.done -= 1;
            self.failed -= u32::from(from.is_failure());
            return None;
        }
        self.done += 1;
        self.failed += u32::from(to.is_failure());
        if self.verdict.is_some() {
            return None;
        }
        let first = u64::try_from(self.devices.len()).unwrap_or(u64::MAX);
        let tolerated = first * u64::from(self.failures_max_permille) / 1000;
        self.verdict = if u64::from(self.failed) > tolerated {
            Some(Verdict::Halt)
        } else if u64::from(self.done) == first {
            Some(Verdict::Release)
        } else {
            None
        };
        self.verdict
    }

    /// Ascending.
    pub(super) fn devices(&self) -> &[u32] {
        &self.devices
    }

    pub(super) fn verdict(&self) -> Option<Verdict> {
        self.verdict
    }

    /// An operator decides.
    pub(super) fn release(&mut self) {
        self.verdict = Some(Verdict::Release);
    }

    pub(super) fn view(&self) -> WaveView {
        WaveView {
            first: u32::try_from(self.devices.len()).unwrap_or(u32::MAX),
            done: self.done,
            failed: self.failed,
            failures_max_permille: self.failures_max_permille,
        }
    }
}

/// How fast answers come: counted in windows of some seconds, the latest of which weigh most.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace {
    window_began: Timestamp,
    in_window: u32,
    per_sec: f32,
}

/// Length of a window.
const WINDOW: Duration = Duration::from_secs(5);

impl Pace {
    pub(super) fn starting(now: Timestamp) -> Self {
        Self { window_began: now, ..Self::default() }
    }

    pub(super) fn note(&mut self, now: Timestamp) {
        let open_for = now.since(self.window_began);
        if open_for >= WINDOW {
            self.per_sec = self.rate(now);
            self.window_began = now;
            self.in_window = 0;
        }
        self.in_window = self.in_window.saturating_add(1);
    }

    /// Answers per second; what was before this window counts half.
    pub(super) fn rate(&self, now: Timestamp) -> f32 {
        let secs = now.since(self.window_began).as_secs_f32().max(0.001);
        let here = self.in_window as f32 / secs.max(1.0);
        // A long silence is a rate, too: what was before fades with it.
        let fade = (WINDOW.as_secs_f32() / secs.max(WINDOW.as_secs_f32())).min(1.0);
        if self.per_sec == 0.0 { here } else { (here + self.per_sec * fade) / 2.0 }
    }
}

/// How long until `open` devices have answered at this rate.
pub(super) fn eta(open: u32, per_sec: f32) -> Option<Duration> {
    if open == 0 {
        return Some(Duration::ZERO);
    }
    let secs = f64::from(open) / f64::from(per_sec);
    (secs.is_finite() && secs < ETA_SECS_MAX).then(|| Duration::from_secs_f64(secs))
}

/// Whoever would have to wait longer is better told nothing.
const ETA_SECS_MAX: f64 = 365.0 * 86_400.0;

#[cfg(test)]
mod tests {
    use super::*;

    const QUEUED: DeviceState = DeviceState::Queued;

    #[test]
    fn a_first_wave_that_fares_well_releases_the_others() {
        let mut wave = FirstWave::new(vec![9, 2, 5, 7], 250);
        assert_eq!(wave.note(3, QUEUED, DeviceState::Ok), None, "is not one of the first");
        assert_eq!(wave.note(2, QUEUED, DeviceState::Delivered), None);
        assert_eq!(wave.note(2, DeviceState::Delivered, DeviceState::Ok), None);
        assert_eq!(wave.note(5, QUEUED, DeviceState::Failed), None, "one of four is tolerated");
        assert_eq!(wave.note(7, QUEUED, DeviceState::Ok), None);
        assert_eq!(wave.note(9, QUEUED, DeviceState::Ok), Some(Verdict::Release));
        assert_eq!((wave.view().done, wave.view().failed), (4, 1));
    }

    #[test]
    fn a_user_property_names_a_first_wave() {
        let wave = |text| Wave::parse(text).map(|wave| (wave.first, wave.failures_max));
        assert_eq!(wave("100"), Some((100, None)));
        assert_eq!(wave("100; 2.5%"), Some((100, Some(25))));
        for text in ["", "0", "-1", "+1", "x", "100;", "100;5", "100;101%", "1;5%;5%"] {
            assert_eq!(wave(text), None, "{text}");
        }
    }

    #[test]
    fn one_failure_too_many_halts_at_once() {
        let mut wave = FirstWave::new(vec![1, 2, 3, 4], 250);
        assert_eq!(wave.note(1, QUEUED, DeviceState::Expired), None);
        assert_eq!(wave.note(2, QUEUED, DeviceState::Refused), Some(Verdict::Halt));
        assert_eq!(wave.note(3, QUEUED, DeviceState::Ok), None, "it stays with that");
        assert_eq!(wave.verdict(), Some(Verdict::Halt));
        wave.release();
        assert_eq!(wave.verdict(), Some(Verdict::Release));
    }

    #[test]
    fn who_is_sent_the_message_again_is_not_through() {
        let mut wave = FirstWave::new(vec![1, 2, 3, 4], 250);
        assert_eq!(wave.note(1, QUEUED, DeviceState::Failed), None);
        assert_eq!(wave.note(1, DeviceState::Failed, QUEUED), None);
        assert_eq!((wave.view().done, wave.view().failed), (0, 0));
        assert_eq!(wave.note(1, QUEUED, DeviceState::Ok), None);
        assert_eq!(wave.note(2, QUEUED, DeviceState::Ok), None);
        assert_eq!(wave.note(3, QUEUED, DeviceState::Ok), None, "one is not through");
        assert_eq!(wave.note(4, QUEUED, DeviceState::Failed), Some(Verdict::Release));
    }

    #[test]
    fn the_rate_follows_the_answers() {
        let at = |secs: u64| Timestamp(secs * 1000);
        let mut pace = Pace::starting(at(0));
        (0..100).for_each(|n| pace.note(Timestamp(n * 100)));
        let rate = pace.rate(at(10));
        assert!((8.0..12.0).contains(&rate), "{rate}");
        assert!(pace.rate(at(1000)) < 1.0, "nothing came for long");
        assert_eq!(eta(0, 0.0), Some(Duration::ZERO));
        assert_eq!(eta(5, 0.0), None);
        assert_eq!(eta(50, 10.0), Some(Duration::from_secs(5)));
    }
}
