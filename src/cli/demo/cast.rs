//! Devices that play in one flow only: they come for it, may lose their power in the middle, and
//! leave when it is over. What they have seen in all their lives is counted.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::timeout;

use crate::client::ClientError;
use crate::client::device::{Device, DeviceOptions, DeviceReport};
use crate::client::link::LinkOptions;
use crate::ids::{Gid, Nid};

/// How long something may take that a device is to do.
pub(super) const DEVICE_TIME: Duration = Duration::from_secs(30);

/// What a device has seen and done.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) received: u64,
    pub(super) answered: u64,
    pub(super) foreign: u64,
    pub(super) doubled: u64,
}

impl Counts {
    pub(super) fn of(device: &Device) -> Self {
        let mut counts = Self::default();
        device.with_report(|report| counts = Self::from(report));
        counts
    }

    fn plus(self, other: Self) -> Self {
        Self {
            received: self.received + other.received,
            answered: self.answered + other.answered,
            foreign: self.foreign + other.foreign,
            doubled: self.doubled + other.doubled,
        }
    }
}

impl From<&DeviceReport> for Counts {
    fn from(report: &DeviceReport) -> Self {
        Self {
            received: report.received + report.unreadable,
            answered: report.answered,
            foreign: report.foreign,
            doubled: report.duplicates,
        }
    }
}

/// The place of such a device.
pub(super) struct Seat {
    pub(super) nid: Nid,
    pub(super) gid: Gid,
    link: LinkOptions,
    lives: Mutex<Lives>,
}

#[derive(Default)]
struct Lives {
    past: Counts,
    present: Option<Arc<Device>>,
}

impl Seat {
    pub(super) fn new(nid: Nid, gid: Gid, link: LinkOptions) -> Self {
        Self { nid, gid, link, lives: Mutex::default() }
    }

    /// A device as others are, to be changed.
    pub(super) fn options(&self) -> DeviceOptions {
        DeviceOptions::new(self.nid, &[self.gid])
    }

    /// The device comes.
    pub(super) async fn enter(&self, options: DeviceOptions) -> Result<(), ClientError> {
        self.enter_by(self.link.port, options).await
    }

    /// It comes by another port than the broker's own.
    pub(super) async fn enter_by(
        &self,
        port: u16,
        options: DeviceOptions,
    ) -> Result<(), ClientError> {
        self.cut();
        let device = Device::start(LinkOptions { port, ..self.link.clone() }, options).await?;
        self.lives().present = Some(Arc::new(device));
        Ok(())
    }

    /// Its power is cut; gives what it has seen in this life.
    pub(super) fn cut(&self) -> DeviceReport {
        let mut lives = self.lives();
        let Some(device) = lives.present.take() else { return DeviceReport::default() };
        let report = device.report();
        lives.past = lives.past.plus(Counts::from(&report));
        report
    }

    /// It says goodbye.
    pub(super) async fn leave(&self) {
        if let Ok(device) = self.device() {
            device.stop().await;
        }
        self.cut();
    }

    /// The device while it is there.
    pub(super) fn device(&self) -> Result<Arc<Device>, ClientError> {
        self.lives().present.clone().ok_or(ClientError::NoAnswer)
    }

    /// Waits until what it has seen in this life satisfies a condition.
    pub(super) async fn until(
        &self,
        condition: impl FnMut(&DeviceReport) -> bool,
    ) -> Result<(), ClientError> {
        let device = self.device()?;
        let met = timeout(DEVICE_TIME, device.until(condition)).await;
        if met.unwrap_or(false) { Ok(()) } else { Err(ClientError::NoAnswer) }
    }

    /// Waits until its connection has ended.
    pub(super) async fn ended(&self) -> Result<(), ClientError> {
        let device = self.device()?;
        let ended = timeout(DEVICE_TIME, device.until(|_| false)).await;
        ended.map(drop).map_err(|_| ClientError::NoAnswer)
    }

    /// What it has seen in all its lives.
    pub(super) fn counts(&self) -> Counts {
        let lives = self.lives();
        let present = lives.present.as_deref().map(Counts::of).unwrap_or_default();
        lives.past.plus(present)
    }

    /// What the lock protects is valid after every step.
    fn lives(&self) -> MutexGuard<'_, Lives> {
        self.lives.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
