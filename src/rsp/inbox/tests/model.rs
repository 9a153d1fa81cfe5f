//! The inbox against a model that is too simple to be wrong: one list of all copies, looked
//! through from the beginning each time.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::rsp::tests::disk::Disk;

const GROUPS: u64 = 3;
/// Groups by bits; `None` for every device. Server 4 is another machine for the work of server 0.
const SCOPES: [Option<u8>; 5] = [Some(0b001), Some(0b010), Some(0b011), None, Some(0b001)];
/// A server that asks and never comes.
const ABSENTEE: usize = 5;
/// Two of each server.
const SESSIONS: usize = 2 * SCOPES.len();
const WIDE: InboxLimits = InboxLimits { messages_max: 10_000, bytes_max: 1 << 20, ..LIMITS };
const LIFETIME: Duration = Duration::from_secs(200);

#[derive(Clone, Debug)]
enum Op {
    Subscribe(usize, Option<usize>),
    Unsubscribe(usize, Option<usize>),
    Leave(usize),
    Post {
        asker: Option<usize>,
        groups: u8,
        expires: bool,
    },
    Pull(usize, usize),
    /// Acknowledges one of those that the session holds.
    Acknowledge(usize, usize),
    /// The connection of a session breaks before the last few had left for it.
    Vanish(usize, usize),
    Return(usize),
    Wait(u64),
    Sweep,
    /// All that is left is what was written down; one of two sessions had QoS 2.
    Restart(bool),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let session = 0..SESSIONS;
    let desk = proptest::option::of(0..2_usize);
    let asker = proptest::option::of(0..=ABSENTEE);
    let op = prop_oneof![
        4 => (session.clone(), desk.clone()).prop_map(|(s, desk)| Op::Subscribe(s, desk)),
        1 => (session.clone(), desk).prop_map(|(s, desk)| Op::Unsubscribe(s, desk)),
        1 => session.clone().prop_map(Op::Leave),
        8 => (asker, 0..8_u8, proptest::bool::weighted(0.2))
            .prop_map(|(asker, groups, expires)| Op::Post { asker, groups, expires }),
        8 => (session.clone(), 0..4_usize).prop_map(|(s, room)| Op::Pull(s, room)),
        6 => (session.clone(), 0..3_usize).prop_map(|(s, at)| Op::Acknowledge(s, at)),
        2 => (session.clone(), 0..3_usize).prop_map(|(s, unsent)| Op::Vanish(s, unsent)),
        2 => session.prop_map(Op::Return),
        1 => (0..200_u64).prop_map(Op::Wait),
        1 => Just(Op::Sweep),
        1 => any::<bool>().prop_map(Op::Restart),
    ];
    proptest::collection::vec(op, 0..150)
}

fn server_of(session: usize) -> usize {
    session % SCOPES.len()
}

fn name(server: usize) -> Arc<str> {
    format!("server-{server}").into()
}

fn gids(groups: u8) -> impl Iterator<Item = Gid> {
    (0..GROUPS).filter(move |at| groups & (1 << at) != 0).filter_map(|at| Gid::new(at + 1))
}

fn scopes() -> ServerScopes {
    let scope = |groups: Option<u8>| groups.map_or(Scope::All, |bits| Scope::groups(gids(bits)));
    let named = SCOPES.iter().enumerate().map(|(server, groups)| (name(server), scope(*groups)));
    ServerScopes::new(named, Scope::none())
}

fn session_key(session: usize) -> SessionKey {
    key(u32::try_from(session).unwrap())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Where {
    Desk(usize),
    Absent(usize),
    Unclaimed,
}

#[derive(Debug)]
struct Copied {
    at: Where,
    holder: Option<usize>,
}

#[derive(Debug)]
struct Letter {
    asker: Option<usize>,
    groups: u8,
    expires: Timestamp,
    copies: Vec<Copied>,
    /// Desks that were given it.
    given: BTreeSet<usize>,
    /// They were several at once.
    copied: bool,
    acknowledged: bool,
}

#[derive(Debug)]
struct MemberModel {
    session: usize,
    has_room: bool,
}

#[derive(Debug)]
struct DeskModel {
    id: usize,
    group: Option<usize>,
    members: Vec<MemberModel>,
}

struct World {
    inbox: Inbox,
    now: Timestamp,
    desks: Vec<DeskModel>,
    last_desk: usize,
    /// By number, from 1.
    letters: BTreeMap<u64, Letter>,
    absent: BTreeMap<usize, Timestamp>,
    away: BTreeSet<usize>,
    /// Sessions that will look for messages without being told once more.
    woken: BTreeSet<usize>,
    expired: u64,
    disk: Disk,
}

impl Letter {
    /// Whether a server may have it at all; while who asked for it is there, others have to wait.
    fn is_for(&self, server: usize) -> bool {
        let covers = SCOPES[server].is_none_or(|groups| groups & self.groups != 0);
        covers || self.asker == Some(server)
    }

    fn take_from(&mut self, at: Where) {
        self.copies.retain(|copy| copy.at != at);
    }
}

impl DeskModel {
    fn serves(&self, server: usize) -> bool {
        self.members.iter().any(|member| server_of(member.session) == server)
    }

    fn may_have(&self, letter: &Letter) -> bool {
        self.members.iter().any(|member| letter.is_for(server_of(member.session)))
    }

    /// Whether a session may take a letter now.
    fn may_take(&self, session: usize, letter: &Letter) -> bool {
        let server = server_of(session);
        let mut others = self.members.iter().filter(|m| server_of(m.session) != server);
        let kept = others.any(|m| Some(server_of(m.session)) == letter.asker && m.has_room);
        letter.is_for(server) && !kept
    }

    fn has(&self, session: usize) -> bool {
        self.members.iter().any(|member| member.session == session)
    }
}

impl World {
    fn new() -> Self {
        let mut inbox = Inbox::new(WIDE, scopes());
        inbox.keep_rows();
        Self {
            inbox,
            now: NOW,
            desks: Vec::new(),
            last_desk: 0,
            letters: BTreeMap::new(),
            absent: BTreeMap::new(),
            away: BTreeSet::new(),
            woken: BTreeSet::new(),
            expired: 0,
            disk: Disk::default(),
        }
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Subscribe(session, group) => self.subscribe(session, group),
            Op::Unsubscribe(session, group) => self.unsubscribe(session, group),
            Op::Leave(session) => self.leave(session),
            Op::Post { asker, groups, expires } => self.post(asker, groups, expires),
            Op::Pull(session, room) if !self.away.contains(&session) => self.pull(session, room),
            Op::Acknowledge(session, at) if !self.away.contains(&session) => {
                self.acknowledge(session, at);
            }
            Op::Vanish(session, unsent) => self.vanish(session, unsent),
            Op::Return(session) => {
                self.away.remove(&session);
                self.woken.insert(session);
            }
            Op::Wait(secs) => self.now = self.now.after(Duration::from_secs(secs)),
            Op::Sweep => self.sweep(),
            Op::Restart(odd) => self.restart(odd),
            Op::Pull(..) | Op::Acknowledge(..) => {}
        }
        self.disk.write_inbox(&mut self.inbox);
        let copies: usize = self.letters.values().map(|letter| letter.copies.len()).sum();
        assert_eq!(self.inbox.len(), copies);
        assert_eq!(self.inbox.bytes(), copies * "x".len());
        self.nobody_sleeps_over_messages();
    }

    /// Who might take something, is connected and has room, has been told.
    fn nobody_sleeps_over_messages(&self) {
        for desk in &self.desks {
            for member in desk.members.iter().filter(|m| m.has_room) {
                let something = self.letters.values().any(|letter| {
                    let here = |c: &Copied| c.at == Where::Desk(desk.id) && c.holder.is_none();
                    letter.copies.iter().any(here)
                        && letter.expires > self.now
                        && desk.may_take(member.session, letter)
                });
                assert!(!something || self.woken.contains(&member.session), "{member:?}");
            }
        }
    }

    fn wake(&mut self, keys: Vec<SessionKey>) {
        self.woken.extend(keys.into_iter().map(|key| key.slot as usize));
    }

    fn subscribe(&mut self, session: usize, group: Option<usize>) {
        if self.away.contains(&session) {
            return;
        }
        let server = server_of(session);
        let share = group.map(|group| format!("g{group}"));
        let key = session_key(session);
        self.inbox.subscribe(key, share.as_deref(), &name(server), Some(key.slot.into()));
        self.woken.insert(session);
        if self.desks.iter().any(|desk| desk.group == group && desk.has(session)) {
            return;
        }
        let shared = self.desks.iter().position(|desk| group.is_some() && desk.group == group);
        let at = shared.unwrap_or_else(|| {
            self.last_desk += 1;
            self.desks.push(DeskModel { id: self.last_desk, group, members: Vec::new() });
            self.desks.len() - 1
        });
        let desk = &mut self.desks[at];
        desk.members.push(MemberModel { session, has_room: true });
        self.absent.remove(&server);
        for letter in self.letters.values_mut() {
            for copy in &mut letter.copies {
                if copy.at == Where::Absent(server)
                    || copy.at == Where::Unclaimed
                        && (letter.asker == Some(server)
                            || SCOPES[server].is_none_or(|groups| groups & letter.groups != 0))
                {
                    copy.at = Where::Desk(desk.id);
                    letter.given.insert(desk.id);
                }
            }
        }
    }

    fn unsubscribe(&mut self, session: usize, group: Option<usize>) {
        let share = group.map(|group| format!("g{group}"));
        let wake = self.inbox.unsubscribe(session_key(session), share.as_deref(), self.now);
        self.wake(wake);
        self.stand_up(session, group);
    }

    fn leave(&mut self, session: usize) {
        let wake = self.inbox.leave(session_key(session), self.now);
        self.wake(wake);
        let desks = self.desks.iter().filter(|desk| desk.has(session));
        let groups: Vec<_> = desks.map(|desk| desk.group).collect();
        groups.into_iter().for_each(|group| self.stand_up(session, group));
        self.away.remove(&session);
    }

    fn stand_up(&mut self, session: usize, group: Option<usize>) {
        let at = self.desks.iter().position(|desk| desk.group == group && desk.has(session));
        let Some(at) = at else { return };
        let desk = &mut self.desks[at];
        let here = Where::Desk(desk.id);
        desk.members.retain(|member| member.session != session);
        let copies = self.letters.values_mut().flat_map(|letter| &mut letter.copies);
        for copy in copies.filter(|copy| copy.at == here && copy.holder == Some(session)) {
            copy.holder = None;
        }
        let mut orphans = Vec::new();
        for (number, letter) in &mut self.letters {
            if letter.copies.iter().any(|copy| copy.at == here) && !desk.may_have(letter) {
                letter.take_from(here);
                letter.given.remove(&desk.id);
                orphans.push(*number);
            }
        }
        if desk.members.is_empty() {
            self.desks.remove(at);
        }
        let server = server_of(session);
        if !self.desks.iter().any(|desk| desk.serves(server)) {
            self.absent.entry(server).or_insert(self.now);
        }
        for number in orphans {
            let given = &self.letters[&number].given;
            if !self.desks.iter().any(|desk| given.contains(&desk.id)) {
                self.place(number);
            }
        }
    }

    fn post(&mut self, asker: Option<usize>, groups: u8, expires: bool) {
        let expires = if expires { self.now.after(LIFETIME) } else { Timestamp::NEVER };
        let (topic, payload, qos) = ("To_SM-SR".into(), "x".into(), QoS::AtLeastOnce);
        let message = Arc::new(Message::new(topic, payload, qos, false, None, expires));
        let to = Addressee { asker: asker.map(name), gids: gids(groups).collect() };
        let posted = self.inbox.post(&message, None, &to, self.now);
        assert_eq!(posted.full, 0);
        self.wake(posted.wake);
        let number = self.letters.last_key_value().map_or(0, |(number, _)| *number) + 1;
        let (copies, given) = (Vec::new(), BTreeSet::new());
        let (copied, acknowledged) = (false, false);
        let letter = Letter { asker, groups, expires, copies, given, copied, acknowledged };
        self.letters.insert(number, letter);
        self.place(number);
    }

    /// With whoever asked, if that server is here or may be back soon; else with all who may.
    fn place(&mut self, number: u64) {
        let Some(asker) = self.letters[&number].asker else { return self.place_for_all(number) };
        let own = self.desks.iter().filter(|desk| desk.serves(asker));
        let own: Vec<_> = own.map(|desk| Where::Desk(desk.id)).collect();
        if !own.is_empty() {
            return self.put(number, &own);
        }
        let since = self.absent.get(&asker).copied().unwrap_or(self.now);
        let kept = |letter: &Letter| letter.copies.iter().any(|c| c.at == Where::Absent(asker));
        if self.now < since.after(ABSENCE_MAX) || self.letters.values().any(kept) {
            self.absent.insert(asker, since);
            return self.put(number, &[Where::Absent(asker)]);
        }
        self.place_for_all(number);
    }

    fn place_for_all(&mut self, number: u64) {
        let letter = &self.letters[&number];
        let desks = self.desks.iter().filter(|desk| desk.may_have(letter));
        let desks: Vec<_> = desks.map(|desk| Where::Desk(desk.id)).collect();
        self.put(number, if desks.is_empty() { &[Where::Unclaimed] } else { &desks });
    }

    fn put(&mut self, number: u64, places: &[Where]) {
        let letter = self.letters.get_mut(&number).unwrap();
        letter.copied = places.len() > 1;
        for at in places {
            letter.copies.push(Copied { at: *at, holder: None });
            if let Where::Desk(id) = at {
                letter.given.insert(*id);
            }
        }
    }

    /// All sessions are there again, and nobody is connected. Of those that had QoS 2, each has in
    /// hands what it had; what was in one place goes to the
    /// oldest desk that may have it.
    fn restart(&mut self, odd: bool) {
        self.disk.write_inbox(&mut self.inbox);
        self.inbox = self.disk.restored_inbox(Inbox::new(WIDE, scopes()));
        self.expired = 0;
        // In another order than they came.
        self.desks.reverse();
        let mut members = Vec::new();
        for desk in &self.desks {
            members.extend(desk.members.iter().map(|member| (member.session, desk.group)));
        }
        for (session, group) in members {
            let (key, share) = (session_key(session), group.map(|group| format!("g{group}")));
            let row = Some(key.slot.into());
            self.inbox.subscribe(key, share.as_deref(), &name(server_of(session)), row);
            assert!(self.inbox.away(key).is_empty());
            self.note_room(session, false);
            self.away.insert(session);
        }
        let mut held = Vec::new();
        for session in 0..SESSIONS {
            let copies = self.letters.iter_mut().flat_map(|(number, letter)| {
                letter.copies.iter_mut().map(move |copy| (*number, copy))
            });
            for (number, copy) in copies.filter(|(_, copy)| copy.holder == Some(session)) {
                copy.holder = None;
                held.push((session, number));
            }
        }
        let shares = |session: usize| {
            self.desks.iter().filter(|desk| desk.group.is_some() && desk.has(session)).count()
        };
        held.retain(|(session, _)| session % 2 == usize::from(odd) && shares(*session) < 2);
        for (session, number) in held {
            let again = self.inbox.take_again(session_key(session), number, self.now);
            assert!(again.is_some(), "{session} {number}");
            let mut desks: Vec<_> = self.desks.iter().filter(|desk| desk.has(session)).collect();
            desks.sort_by_key(|desk| (desk.group.is_some(), desk.id));
            let copies = &mut self.letters.get_mut(&number).unwrap().copies;
            let mut places = desks.iter().filter_map(|desk| {
                let here = |c: &Copied| c.at == Where::Desk(desk.id) && c.holder.is_none();
                copies.iter().position(here)
            });
            let at = places.next().unwrap();
            copies[at].holder = Some(session);
        }
        self.inbox.place_restored(self.now);
        self.desks.sort_by_key(|desk| desk.id);
        let in_one_place = |letter: &Letter| {
            !letter.copied && letter.copies.iter().any(|copy| copy.holder.is_none())
        };
        let letters = self.letters.iter_mut().filter(|(_, letter)| in_one_place(letter));
        let numbers = letters.map(|(number, letter)| {
            letter.copies.clear();
            letter.given.clear();
            *number
        });
        for number in numbers.collect::<Vec<_>>() {
            self.place(number);
            let letter = self.letters.get_mut(&number).unwrap();
            letter.copied = false;
            letter.copies.sort_by_key(|copy| match copy.at {
                Where::Desk(id) => id,
                Where::Absent(_) | Where::Unclaimed => 0,
            });
            letter.copies.truncate(1);
            letter.given = letter.given.first().copied().into_iter().collect();
        }
    }

    fn pull(&mut self, session: usize, room: usize) {
        let handout = self.inbox.pull(session_key(session), room, self.now);
        let pulled: Vec<u64> = handout.messages.iter().map(|(number, _)| *number).collect();
        let mut expected = Vec::new();
        for desk in self.desks.iter().filter(|desk| desk.has(session)) {
            let here = Where::Desk(desk.id);
            for (number, letter) in &mut self.letters {
                let waits = letter.copies.iter().any(|c| c.at == here && c.holder.is_none());
                if expected.len() == room || !waits || !desk.may_take(session, letter) {
                    continue;
                }
                if letter.expires <= self.now {
                    letter.take_from(here);
                    self.expired += 1;
                    continue;
                }
                expected.push(*number);
                for copy in letter.copies.iter_mut().filter(|copy| copy.at == here) {
                    copy.holder = Some(session);
                }
            }
        }
        assert_eq!(pulled, expected, "session {session}");
        let has_room = pulled.len() < room;
        self.note_room(session, has_room);
        if has_room {
            self.woken.remove(&session);
        }
        self.wake(handout.wake);
    }

    fn note_room(&mut self, session: usize, has_room: bool) {
        let members = self.desks.iter_mut().flat_map(|desk| &mut desk.members);
        for member in members.filter(|member| member.session == session) {
            member.has_room = has_room;
        }
    }

    fn held_by(&self, session: usize) -> Vec<u64> {
        let held = |letter: &Letter| letter.copies.iter().any(|c| c.holder == Some(session));
        self.letters.iter().filter(|(_, letter)| held(letter)).map(|(number, _)| *number).collect()
    }

    fn acknowledge(&mut self, session: usize, at: usize) {
        let Some(number) = self.held_by(session).get(at).copied() else { return };
        let key = session_key(session);
        assert!(self.inbox.holds(key, number));
        // A stranger's acknowledgement is none.
        let stranger = (session + 1) % SESSIONS;
        if !self.held_by(stranger).contains(&number) {
            self.inbox.acknowledge(session_key(stranger), number);
        }
        self.inbox.acknowledge(key, number);
        assert!(!self.inbox.holds(key, number));
        let letter = self.letters.get_mut(&number).unwrap();
        letter.copies.retain(|copy| copy.holder != Some(session));
        letter.acknowledged = true;
    }

    fn vanish(&mut self, session: usize, unsent: usize) {
        let held = self.held_by(session);
        let unsent = &held[held.len() - unsent.min(held.len())..];
        let key = session_key(session);
        let wake = self.inbox.put_back(key, unsent);
        self.wake(wake);
        for number in unsent {
            let letter = self.letters.get_mut(number).unwrap();
            for copy in letter.copies.iter_mut().filter(|copy| copy.holder == Some(session)) {
                copy.holder = None;
            }
        }
        let wake = self.inbox.away(key);
        self.note_room(session, false);
        self.wake(wake);
        self.away.insert(session);
    }

    fn sweep(&mut self) {
        let swept = self.inbox.sweep(self.now);
        for letter in self.letters.values_mut().filter(|letter| letter.expires <= self.now) {
            let before = letter.copies.len();
            letter.copies.retain(|copy| copy.holder.is_some());
            self.expired += (before - letter.copies.len()) as u64;
        }
        assert_eq!(swept.expired, std::mem::take(&mut self.expired));
        let over = |(server, since): (&usize, &Timestamp)| {
            (since.after(ABSENCE_MAX) <= self.now).then_some(Where::Absent(*server))
        };
        let over: Vec<Where> = self.absent.iter().filter_map(over).collect();
        let numbers: Vec<u64> = self.letters.keys().copied().collect();
        for number in numbers {
            let letter = self.letters.get_mut(&number).unwrap();
            if letter.copies.iter().any(|copy| over.contains(&copy.at)) {
                letter.copies.clear();
                self.place_for_all(number);
            }
        }
        self.wake(swept.wake);
    }

    /// In the end all leave, and a server for every device comes: it gets everything that nobody
    /// has had, in order, once.
    fn finish(mut self) {
        (0..SESSIONS).for_each(|session| self.leave(session));
        self.now = self.now.after(ABSENCE_MAX);
        self.sweep();
        let heir = SCOPES.iter().position(Option::is_none).unwrap();
        self.subscribe(heir, None);
        self.pull(heir, usize::MAX);
        let held = self.held_by(heir);
        for (number, letter) in &self.letters {
            let lost = !letter.acknowledged && letter.expires > self.now && !held.contains(number);
            assert!(!lost, "{number}: {letter:?}");
        }
        while !self.held_by(heir).is_empty() {
            self.acknowledge(heir, 0);
        }
        assert!(self.inbox.is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn every_message_reaches_a_right_server_and_no_wrong_one(ops in ops()) {
        let mut world = World::new();
        ops.iter().for_each(|op| world.apply(op));
        world.finish();
    }
}
