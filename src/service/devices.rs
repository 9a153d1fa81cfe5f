//! The registry as the program sees it that runs the broker: devices come and go.

use super::Service;
use crate::ids::{Gid, Nid};
use crate::rsp::{ImportReport, LineReason};

impl Service {
    /// Registers a device, or gives a known one these groups and labels (`name=value`, separated
    /// by `;`). From now on it has a mailbox, whether or not it ever connects. A registry file, if
    /// there is one, is not changed, and counts again at its next
    /// [`reload`](Service::reload_registry). `true`: it is new.
    ///
    /// # Errors
    /// [`LineReason`]: more groups or labels than one device may have.
    pub fn put_device(&self, nid: Nid, gids: &[Gid], labels: &str) -> Result<bool, LineReason> {
        let put = self.broker.with_control(|control| control.put_device(nid, gids, labels))?;
        Ok(put.is_new)
    }

    /// Adds the devices of a text in the form of a registry file (`nid,gids,labels`) to those that
    /// are known. Broken lines are left out and named in the report.
    pub fn add_to_registry(&self, csv: &str) -> ImportReport {
        self.broker.with_control(|control| control.import(csv))
    }

    /// Removes a device with its mail and its open requests; if it is connected, it is sent away.
    /// `false`: there was no such device.
    pub fn remove_device(&self, nid: Nid) -> bool {
        let removed = self.broker.with_control(|control| control.remove_device(nid));
        let Some(reader) = removed else { return false };
        self.broker.kick(reader.as_slice());
        true
    }
}
