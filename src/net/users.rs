//! Who may log in with a password: the users of a password file, the brake on guessing, and the
//! threads that hash.
//!
//! Hashing is slow on purpose. It runs on a few threads of its own; those who wait for one stand in
//! a line of bounded length, and beyond it the broker is busy (case D25).

use std::fmt;
use std::hash::RandomState;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use bytes::Bytes;
use tokio::sync::Semaphore;

use super::failures::{Failures, Source};
use crate::auth::{Exchange, Fault, Method, Nonce, Passwords, ScramSha256, Step};
use crate::ids::Timestamp;
use crate::mqtt::{ReasonCode, Version};
use crate::rsp::Identity;

/// Logins that wait for a thread; with argon2id at the costs of `simcast passwd`, a few seconds.
const WAITING_MAX: usize = 512;

/// Threads that hash, at most; each takes the memory of one hash.
const THREADS_MAX: usize = 8;

/// Turns of one exchange.
const TURNS_MAX: u32 = 8;

/// The users of the listeners under one `[auth]` section.
#[derive(Debug)]
pub struct Users {
    /// Number of their file.
    file: usize,
    current: ArcSwap<Passwords>,
    failures: Mutex<Failures>,
}

/// A client has shown that it is this user.
#[derive(Clone, Debug)]
pub(super) struct Proven {
    users: Arc<Users>,
    pub(super) name: Arc<str>,
    /// What stood in the password file at that moment.
    mark: Option<u64>,
}

/// Why somebody is not logged in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotProven {
    #[error(transparent)]
    Failed(#[from] Fault),
    #[error("too many failed logins; wait a minute")]
    Banned,
    #[error("too many clients are logging in; try again")]
    Busy,
}

impl NotProven {
    /// What the CONNACK says. In 3.1.1 "bad user name or password" is for those that are malformed;
    /// wrong ones are "not authorized", as mosquitto's clients know it.
    pub(super) fn reason(self, version: Version) -> ReasonCode {
        match self {
            Self::Failed(Fault::Credentials) if version < Version::V5 => ReasonCode::NotAuthorized,
            Self::Failed(Fault::Credentials) => ReasonCode::BadUserNameOrPassword,
            Self::Failed(Fault::Unreadable(_)) => ReasonCode::NotAuthorized,
            Self::Banned => ReasonCode::Banned,
            Self::Busy => ReasonCode::ServerBusy,
        }
    }
}

impl Users {
    /// Of a file that was read, and that has this number: users of one name are the same person
    /// where the files are. `max_failures` of one user name in a minute are too many.
    #[must_use]
    pub fn new(passwords: Passwords, file: usize, max_failures: u32) -> Self {
        Self {
            file,
            current: ArcSwap::from_pointee(passwords),
            failures: Mutex::new(Failures::new(max_failures, RandomState::new())),
        }
    }

    /// From now on these hold.
    pub fn replace(&self, passwords: Passwords) {
        self.current.store(Arc::new(passwords));
    }

    fn is_banned(&self, source: Source<'_>, now: Timestamp) -> bool {
        self.failures().is_banned(source, now)
    }

    /// A login is over.
    fn note(&self, source: Source<'_>, right: bool, now: Timestamp) {
        let mut failures = self.failures();
        if right { failures.welcome(source) } else { failures.note(source, now) }
    }

    fn failures(&self) -> MutexGuard<'_, Failures> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn proven(self: &Arc<Self>, passwords: &Passwords, name: &str) -> Proven {
        Proven { users: Arc::clone(self), name: name.into(), mark: passwords.mark(name) }
    }
}

impl Proven {
    /// Whether the user is still in the file, with the same password.
    pub(super) fn still_holds(&self) -> bool {
        self.mark.is_some() && self.users.current.load().mark(&self.name) == self.mark
    }

    /// Who the client is, unless a certificate says otherwise.
    pub(super) fn identity(&self) -> Identity {
        Identity::user(&self.name, self.users.file)
    }

    pub(super) fn users(&self) -> &Arc<Users> {
        &self.users
    }
}

/// The threads that hash passwords, for all listeners.
#[derive(Debug)]
pub(super) struct Hashers {
    line: Semaphore,
    threads: Arc<Semaphore>,
}

impl Hashers {
    /// One thread less than the machine has: somebody has to carry the messages.
    pub(super) fn new() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = cores.saturating_sub(1).clamp(1, THREADS_MAX);
        Self {
            line: Semaphore::new(threads + WAITING_MAX),
            threads: Arc::new(Semaphore::new(threads)),
        }
    }

    /// Whether the password is right. `now` is asked again after the time in the line: who was
    /// banned meanwhile costs no hash.
    pub(super) async fn check(
        &self,
        users: &Arc<Users>,
        source: Source<'_>,
        password: Bytes,
        now: impl Fn() -> Timestamp,
    ) -> Result<Proven, NotProven> {
        if users.is_banned(source, now()) {
            return Err(NotProven::Banned);
        }
        let _place = self.line.try_acquire().map_err(|_| NotProven::Busy)?;
        let thread = Arc::clone(&self.threads).acquire_owned().await;
        let thread = thread.map_err(|_| NotProven::Busy)?;
        if users.is_banned(source, now()) {
            return Err(NotProven::Banned);
        }
        let (users, name) = (Arc::clone(users), source.user.to_owned());
        let (address, now) = (source.address, now());
        // The thread stays taken while it works, though nobody may wait for it any more, and until
        // a failure is counted: the next in line may be for the same user. Who does not wait for
        // the answer has cost as much as who does.
        let hashing = tokio::task::spawn_blocking(move || {
            let _thread = thread;
            let passwords = users.current.load_full();
            let source = Source { user: &name, address };
            let right = passwords.check(&name, &password);
            users.note(source, right, now);
            right.then(|| users.proven(&passwords, &name))
        });
        let proven = hashing.await.map_err(|_| NotProven::Busy)?;
        proven.ok_or(NotProven::Failed(Fault::Credentials))
    }
}

/// An exchange of enhanced authentication with one client.
pub(super) struct Running {
    users: Arc<Users>,
    passwords: Arc<Passwords>,
    exchange: Box<dyn Exchange>,
    turns: u32,
}

/// What an exchange says to the client's data.
pub(super) enum Next {
    Continue(Bytes),
    Done(Proven, Bytes),
}

impl Running {
    /// Begins by the method of this name, if these users have it.
    pub(super) fn begin(users: &Arc<Users>, method: &str) -> Option<Self> {
        let passwords = users.current.load_full();
        let scram = ScramSha256(Arc::clone(&passwords));
        if !passwords.offers_scram() || scram.name() != method {
            return None;
        }
        let exchange = scram.begin(Nonce::new(random()));
        Some(Self { users: Arc::clone(users), passwords, exchange, turns: 0 })
    }

    /// Takes the data of one packet.
    pub(super) fn step(
        &mut self,
        data: &[u8],
        address: Option<IpAddr>,
        now: Timestamp,
    ) -> Result<Next, NotProven> {
        self.turns += 1;
        let step = if self.turns > TURNS_MAX {
            Step::Failed(Fault::Unreadable("too many turns"))
        } else {
            self.exchange.step(data)
        };
        let source = Source { user: self.exchange.claimed().unwrap_or_default(), address };
        if self.users.is_banned(source, now) {
            return Err(NotProven::Banned);
        }
        match step {
            Step::Continue(data) => Ok(Next::Continue(data.into())),
            Step::Done { user, data } => {
                self.users.note(source, true, now);
                Ok(Next::Done(self.users.proven(&self.passwords, &user), data.into()))
            }
            Step::Failed(fault) => {
                self.users.note(source, false, now);
                Err(fault.into())
            }
        }
    }
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running").field("turns", &self.turns).finish_non_exhaustive()
    }
}

/// Random bytes that nobody can guess.
fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).expect("the system has random numbers");
    bytes
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::task::{Context, Poll};

    use super::*;
    use crate::auth::Disguise;

    fn users() -> Arc<Users> {
        // The hash is that of no password anybody tries here.
        let hash = format!("ann:$6$c2FsdA==${}==\n", "A".repeat(86));
        let passwords = Passwords::parse(hash.as_bytes(), &Disguise::new(&[1; 32])).unwrap();
        Arc::new(Users::new(passwords, 0, 2))
    }

    async fn check(hashers: &Hashers, users: &Arc<Users>, user: &str) -> NotProven {
        let source = Source { user, address: None };
        let now = || Timestamp(1);
        hashers.check(users, source, "x".into(), now).await.expect_err("a wrong password")
    }

    const WRONG: NotProven = NotProven::Failed(Fault::Credentials);

    #[tokio::test]
    async fn beyond_the_line_the_broker_is_busy() {
        // case D25
        let users = users();
        let threads = Arc::new(Semaphore::new(1));
        let hashers = Hashers { line: Semaphore::new(2), threads: Arc::clone(&threads) };
        let working = threads.acquire().await.unwrap();
        let (one, two) = (check(&hashers, &users, "a"), check(&hashers, &users, "b"));
        let more = async {
            // Both stand in the line by now: a thread was asked for, and none is free.
            let third = check(&hashers, &users, "c").await;
            drop(working);
            third
        };
        assert_eq!(tokio::join!(biased; one, two, more), (WRONG, WRONG, NotProven::Busy));
        assert_eq!(check(&hashers, &users, "d").await, WRONG, "and room again");
    }

    #[tokio::test]
    async fn who_does_not_wait_for_the_answer_is_counted_too() {
        // case S19
        let slow = format!("ann:$7$300000$c2FsdA==${}==\n", "A".repeat(86));
        let passwords = Passwords::parse(slow.as_bytes(), &Disguise::new(&[1; 32])).unwrap();
        let users = Arc::new(Users::new(passwords, 0, 2));
        let threads = Arc::new(Semaphore::new(1));
        let hashers = Hashers { line: Semaphore::new(10), threads: Arc::clone(&threads) };
        let source = Source { user: "ann", address: None };
        for _ in 0..2 {
            assert!(!users.is_banned(source, Timestamp(1)));
            let mut asking = Box::pin(check(&hashers, &users, "ann"));
            let look = |context: &mut Context<'_>| Poll::Ready(asking.as_mut().poll(context));
            let _hashing_by_now = poll_fn(look).await;
            drop(asking);
            // The thread is free again when all has been counted.
            let _thread = threads.acquire().await.unwrap();
        }
        assert!(users.is_banned(source, Timestamp(1)));
    }

    #[tokio::test]
    async fn who_is_banned_while_it_waits_costs_no_hash() {
        // case S19
        let users = users();
        let threads = Arc::new(Semaphore::new(1));
        let hashers = Hashers { line: Semaphore::new(10), threads: Arc::clone(&threads) };
        let working = threads.acquire().await.unwrap();
        let attempts = || check(&hashers, &users, "ann");
        let release = async { drop(working) };
        let (a, b, c, d, ()) =
            tokio::join!(biased; attempts(), attempts(), attempts(), attempts(), release);
        let banned = [a, b, c, d].into_iter().filter(|why| *why == NotProven::Banned).count();
        assert_eq!(banned, 2, "of four, two were wrong");
    }
}
