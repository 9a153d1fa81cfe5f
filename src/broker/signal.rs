//! How the broker calls a connection's task: a few flags and one waker.

use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};

use atomic_waker::AtomicWaker;

/// Reasons to wake a connection. Raised by anyone, taken by the one task that owns the connection.
#[derive(Debug, Default)]
pub struct Signal {
    raised: AtomicU8,
    waker: AtomicWaker,
}

/// A set of reasons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Calls(u8);

impl Calls {
    /// No reason.
    pub const NONE: Self = Self(0);
    /// The session's own queue has something.
    pub const QUEUE: Self = Self(1);
    /// A mailbox or the server inbox has something.
    pub const MAIL: Self = Self(2);
    /// Another connection of the same client wants the session.
    pub const TAKEOVER: Self = Self(4);
    /// The operator ends the connection.
    pub const KICK: Self = Self(16);
    /// The users of a password file have changed.
    pub const USERS: Self = Self(32);
    /// The broker shuts down.
    pub const SHUTDOWN: Self = Self(8);
    /// The store is as far as something has waited for.
    pub const DURABLE: Self = Self(64);

    /// These and those.
    #[must_use]
    pub fn with(self, more: Self) -> Self {
        Self(self.0 | more.0)
    }

    /// These but not those.
    #[must_use]
    pub fn without(self, less: Self) -> Self {
        Self(self.0 & !less.0)
    }

    /// Whether `call` is among them.
    #[must_use]
    pub fn contains(self, call: Self) -> bool {
        self.0 & call.0 != 0
    }
}

impl Signal {
    /// Raises a flag; wakes the task unless the flag was up already.
    pub fn raise(&self, call: Calls) {
        // Release: what the caller queued before is seen by the task that takes the flag.
        if self.raised.fetch_or(call.0, Ordering::Release) & call.0 == 0 {
            self.waker.wake();
        }
    }

    /// Takes flags down that nobody has answered.
    pub(super) fn withdraw(&self, calls: Calls) {
        self.raised.fetch_and(!calls.0, Ordering::AcqRel);
    }

    /// Whether one of these is up. Takes nothing: who owns the connection will do so.
    #[must_use]
    pub fn is_up(&self, calls: Calls) -> bool {
        Calls(self.raised.load(Ordering::Acquire)).contains(calls)
    }

    /// Takes all flags; pending while none is up.
    pub fn poll_take(&self, context: &Context<'_>) -> Poll<Calls> {
        self.waker.register(context.waker());
        match self.raised.swap(0, Ordering::Acquire) {
            0 => Poll::Pending,
            raised => Poll::Ready(Calls(raised)),
        }
    }
}
