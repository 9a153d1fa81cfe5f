//! What is written down whenever it changes: the control unit and the servers' inbox. Whoever
//! changes them does it in a step, all of whose rows are one transaction, and the step is handed to
//! the store before anybody else gets the lock. There is no other way to change them.

use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard};

use super::Broker;
use super::keep::{Keeper, Step};
use super::sessions::lock;
use crate::mqtt::Message;
use crate::rsp::rows::{Pen, Table};
use crate::rsp::{ControlUnit, Inbox};
use crate::store::{Commit, Key, Urgency};

/// Something that is written down when it changes.
#[derive(Debug)]
pub(super) struct Written<T>(Mutex<T>);

/// A look at it, while which nobody changes it.
pub(super) struct Look<'a, T>(MutexGuard<'a, T>);

impl<T> Deref for Look<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// What can be written down.
pub(super) trait Rows {
    /// Writes what has changed.
    fn write(&mut self, pen: &mut dyn Pen);
}

impl Rows for ControlUnit {
    fn write(&mut self, pen: &mut dyn Pen) {
        Self::write(self, pen);
    }
}

impl Rows for Inbox {
    fn write(&mut self, pen: &mut dyn Pen) {
        Self::write(self, pen);
    }
}

impl<T: Rows> Written<T> {
    pub(super) fn new(written: T) -> Self {
        Self(Mutex::new(written))
    }

    pub(super) fn look(&self) -> Look<'_, T> {
        Look(lock(&self.0))
    }

    /// Changes it: the rows of the change are durable with the commit that is given.
    pub(super) fn change<R>(
        &self,
        keeper: &Keeper,
        urgency: Urgency,
        change: impl FnOnce(&mut T) -> R,
    ) -> (R, Commit) {
        let mut written = lock(&self.0);
        let done = change(&mut written);
        let mut step = keeper.step();
        written.write(&mut step);
        (done, step.commit_as(urgency))
    }
}

impl Broker {
    /// Changes the control unit, where it is not urgent that all of it is on the disk.
    pub(super) fn change_control<R>(&self, change: impl FnOnce(&mut ControlUnit) -> R) -> R {
        self.control.change(&self.keeper, Urgency::Lazy, change).0
    }

    /// The same for the inbox.
    pub(super) fn change_inbox<R>(&self, change: impl FnOnce(&mut Inbox) -> R) -> R {
        self.inbox.change(&self.keeper, Urgency::Lazy, change).0
    }

    /// Changes the control unit, and the inbox if it is asked for, in one step to which more may be
    /// added.
    pub(super) fn change_together<R>(
        &self,
        with_inbox: bool,
        change: impl FnOnce(Option<&mut Inbox>, &mut ControlUnit, &mut Step<'_>) -> R,
    ) -> (R, Commit) {
        let mut inbox = with_inbox.then(|| lock(&self.inbox.0));
        let mut control = lock(&self.control.0);
        let mut step = self.keeper.step();
        let done = change(inbox.as_deref_mut(), &mut control, &mut step);
        inbox.iter_mut().for_each(|inbox| inbox.write(&mut step));
        control.write(&mut step);
        (done, step.commit())
    }
}

impl Pen for Step<'_> {
    fn put(&mut self, table: Table, id: u64, part: u32, value: &[u8]) {
        self.push(Key { table: table as u8, id, part }, value);
    }

    fn delete(&mut self, table: Table, id: u64, part: u32) {
        self.remove(Key { table: table as u8, id, part });
    }

    fn delete_all(&mut self, table: Table, id: u64) {
        self.remove_all(table as u8, id);
    }

    fn message(&mut self, message: &Arc<Message>) -> u64 {
        self.message_row(message)
    }

    fn bury(&mut self, message: Arc<Message>) {
        self.keep_until_committed(message);
    }
}
