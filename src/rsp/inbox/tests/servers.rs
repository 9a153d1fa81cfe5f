//! Several servers: scopes, who asked, and who is away.

use super::super::absence::ABSENCES_MAX;
use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// An inbox with a clock, and servers `ab` for groups 42 and 77, `b` for 77, `all` for every
/// device, `a` and whoever else for 42. What waits is known by numbers of the tests' own.
struct Office {
    inbox: Inbox,
    now: Timestamp,
}

fn gid(number: u64) -> Gid {
    Gid::new(number).unwrap()
}

fn scopes() -> ServerScopes {
    let named = [
        ("all", Scope::All),
        ("ab", Scope::groups([gid(42), gid(77)])),
        ("b", Scope::groups([gid(77)])),
    ];
    let named = named.map(|(server, scope)| (server.into(), scope));
    ServerScopes::new(named, Scope::groups([gid(42)]))
}

fn from(groups: &[u64]) -> Addressee {
    Addressee { asker: None, gids: groups.iter().copied().map(gid).collect() }
}

fn answer(asker: &str, groups: &[u64]) -> Addressee {
    Addressee { asker: Some(asker.into()), ..from(groups) }
}

impl Office {
    fn new() -> Self {
        Self::with(InboxLimits { messages_max: 100, bytes_max: 10_000, ..LIMITS })
    }

    fn with(limits: InboxLimits) -> Self {
        Self { inbox: Inbox::new(limits, scopes()), now: NOW }
    }

    fn wait(&mut self, time: Duration) -> InboxSwept {
        self.now = self.now.after(time);
        self.inbox.sweep(self.now)
    }

    fn sits(&mut self, slot: u32, server: &str, group: Option<&str>) {
        self.inbox.subscribe(key(slot), group, &server.into(), None);
    }

    fn post(&mut self, text: &'static str, to: &Addressee) -> Vec<SessionKey> {
        assert!(self.inbox.has_room(text.len(), None, to, self.now));
        let posted = self.inbox.post(&message(text), None, to, self.now);
        assert_eq!(posted.full, 0);
        posted.wake
    }

    fn post_until(&mut self, text: &'static str, to: &Addressee, expires: Timestamp) {
        let (topic, payload) = ("To_SM-SR".into(), text.into());
        let message = Message::new(topic, payload, QoS::AtLeastOnce, false, None, expires);
        self.inbox.post(&Arc::new(message), None, to, self.now);
    }

    /// Takes up to `room` and keeps them.
    fn holds(&mut self, slot: u32, room: usize) -> Vec<(u64, String)> {
        let messages = self.inbox.pull(key(slot), room, self.now).messages.into_iter();
        messages.map(|(n, m)| (n, String::from_utf8(m.payload.to_vec()).unwrap())).collect()
    }

    /// Takes all and acknowledges it.
    fn gets(&mut self, slot: u32) -> String {
        let held = self.holds(slot, 100);
        held.iter().for_each(|(number, _)| self.inbox.acknowledge(key(slot), *number));
        texts(&held).join(" ")
    }
}

#[test]
fn a_message_reaches_the_servers_in_whose_scope_its_sender_is() {
    let mut office = Office::new();
    for (slot, server) in [(1, "a"), (2, "b"), (3, "ab"), (4, "all")] {
        office.sits(slot, server, None);
    }
    assert_eq!(office.post("of-42", &from(&[42])), [key(1), key(3), key(4)]);
    assert_eq!(office.post("of-77", &from(&[77])), [key(2), key(3), key(4)]);
    assert_eq!(office.post("of-both", &from(&[42, 77])), [key(1), key(2), key(3), key(4)]);
    assert_eq!(office.post("of-9", &from(&[9])), [key(4)]);
    assert_eq!(office.post("of-none", &from(&[])), [key(4)]);
    assert_eq!(office.gets(1), "of-42 of-both");
    assert_eq!(office.gets(2), "of-77 of-both");
    assert_eq!(office.gets(3), "of-42 of-77 of-both");
    assert_eq!(office.gets(4), "of-42 of-77 of-both of-9 of-none");
    assert!(office.inbox.is_empty());
}

#[test]
fn members_of_a_group_take_what_is_in_their_scopes() {
    let mut office = Office::new();
    for (slot, server) in [(1, "a"), (2, "b"), (3, "ab")] {
        office.sits(slot, server, Some("g"));
    }
    for (text, group) in [("1", 42), ("2", 77), ("3", 42), ("4", 77), ("5", 42)] {
        office.post(text, &from(&[group]));
    }
    assert_eq!(texts(&office.holds(3, 1)), ["1"]);
    assert_eq!(office.gets(2), "2 4");
    assert_eq!(office.gets(1), "3 5");
    assert_eq!(office.gets(3), "", "each message goes to one of them");
    assert_eq!(office.inbox.len(), 1, "what the third holds");
}

#[test]
fn what_nobody_in_scope_claims_waits_for_the_first_who_may() {
    let mut office = Office::new();
    office.sits(1, "a", None);
    assert!(office.post("1", &from(&[77])).is_empty());
    office.post("2", &from(&[9]));
    office.post("3", &from(&[77]));
    assert_eq!(office.gets(1), "");
    office.sits(2, "b", Some("g"));
    office.sits(3, "ab", None);
    assert_eq!(office.gets(3), "", "one comes too late");
    assert_eq!(office.gets(2), "1 3");
    assert_eq!(office.inbox.len(), 1, "what others wait for stays");
    office.sits(4, "all", Some("g"));
    assert_eq!(office.gets(4), "2");
}

#[test]
fn an_answer_goes_to_the_server_that_asked_and_to_no_other() {
    let mut office = Office::new();
    for (slot, server) in [(1, "a"), (2, "ab"), (3, "all"), (4, "a"), (5, "b")] {
        office.sits(slot, server, None);
    }
    assert_eq!(office.post("to-a", &answer("a", &[42])), [key(1), key(4)]);
    assert_eq!(office.post("to-ab", &answer("ab", &[42])), [key(2)]);
    // The device has left the group since: whoever asked has the answer all the same.
    assert_eq!(office.post("to-b", &answer("b", &[42])), [key(5)]);
    assert_eq!(office.gets(1), "to-a");
    assert_eq!(office.gets(4), "to-a", "each of its subscriptions is a desk");
    assert_eq!(office.gets(2), "to-ab");
    assert_eq!(office.gets(3), "");
    assert_eq!(office.gets(5), "to-b");
}

#[test]
fn in_a_group_others_have_answers_while_the_asker_has_no_room() {
    let mut office = Office::new();
    for (slot, server) in [(1, "a"), (2, "ab"), (3, "b")] {
        office.sits(slot, server, Some("g"));
    }
    let to = answer("a", &[42]);
    for text in ["1", "2", "3", "4"] {
        assert_eq!(office.post(text, &to), [key(1)]);
    }
    assert_eq!(office.gets(2), "", "the asker is there");
    let handout = office.inbox.pull(key(1), 2, office.now);
    assert_eq!((handout.messages.len(), handout.wake), (2, vec![key(2)]));
    assert_eq!(office.gets(3), "", "not in its scope");
    assert_eq!(texts(&office.holds(2, 1)), ["3"]);
    assert_eq!(office.gets(1), "4", "it has room again");
    office.post("5", &to);
    assert_eq!(office.gets(2), "");
    assert_eq!(office.inbox.away(key(1)), [key(2)], "its client is away");
    assert_eq!(office.post("6", &to), [key(1), key(2)], "for whoever comes first");
    assert_eq!(office.gets(2), "5 6");
    assert_eq!(office.gets(1), "");
}

#[test]
fn one_session_of_the_asker_with_room_is_enough() {
    let mut office = Office::new();
    for (slot, server) in [(1, "a"), (2, "a"), (3, "ab")] {
        office.sits(slot, server, Some("g"));
    }
    office.post("1", &answer("a", &[42]));
    office.post("2", &answer("a", &[42]));
    assert!(office.inbox.away(key(1)).is_empty());
    assert_eq!(office.gets(3), "");
    assert_eq!(office.gets(2), "1 2");
}

#[test]
fn answers_wait_in_order_for_a_server_that_is_away() {
    let mut office = Office::new();
    office.sits(2, "ab", None);
    office.sits(1, "a", None);
    office.post("1", &answer("a", &[42]));
    assert_eq!(texts(&office.holds(1, 9)), ["1"]);
    assert!(office.inbox.leave(key(1), office.now).is_empty());
    assert!(office.post("2", &answer("a", &[42])).is_empty());
    office.post("3", &from(&[42]));
    office.post("4", &answer("a", &[42]));
    assert_eq!(office.wait(ABSENCE_MAX - SECOND), InboxSwept::default());
    assert_eq!(office.gets(2), "3");
    office.sits(3, "a", Some("g"));
    assert_eq!(office.gets(3), "1 2 4");
    assert!(office.inbox.is_empty());
    // The next absence begins anew.
    office.inbox.leave(key(3), office.now);
    office.post("5", &answer("a", &[42]));
    office.wait(ABSENCE_MAX - SECOND);
    assert_eq!(office.gets(2), "");
}

#[test]
fn after_too_long_an_absence_others_have_the_answers() {
    let mut office = Office::new();
    office.sits(1, "a", None);
    office.sits(2, "ab", None);
    office.sits(3, "b", None);
    office.inbox.leave(key(1), office.now);
    office.wait(ABSENCE_MAX / 2);
    office.post("1", &answer("a", &[42]));
    office.post("2", &answer("a", &[42]));
    assert_eq!(office.wait(ABSENCE_MAX / 2).wake, [key(2)], "counted from when it left");
    assert_eq!(office.post("3", &answer("a", &[42])), [key(2)], "at once");
    assert!(office.post("4", &answer("a", &[9])).is_empty());
    assert_eq!(office.gets(3), "");
    assert_eq!(office.gets(2), "1 2 3");
    office.sits(4, "a", None);
    assert_eq!(office.gets(4), "4", "what nobody has had is for whoever asked, as ever");
    office.post("5", &answer("a", &[42]));
    assert_eq!((office.gets(2).as_str(), office.gets(4).as_str()), ("", "5"));
}

#[test]
fn a_server_that_was_never_there_is_waited_for_as_well() {
    let mut office = Office::new();
    office.sits(2, "ab", None);
    office.post("1", &answer("unheard-of", &[42]));
    office.wait(ABSENCE_MAX - SECOND);
    assert_eq!(office.gets(2), "");
    office.wait(SECOND);
    assert_eq!(office.gets(2), "1");
}

#[test]
fn nothing_is_kept_where_no_absence_is_borne() {
    let mut office = Office::with(InboxLimits { absence_max: Duration::ZERO, ..LIMITS });
    office.sits(2, "ab", None);
    assert_eq!(office.post("1", &answer("a", &[42])), [key(2)]);
}

#[test]
fn what_was_kept_for_a_server_comes_before_what_follows() {
    let mut office = Office::with(InboxLimits { messages_max: 100_000, ..LIMITS });
    office.sits(2, "all", None);
    for _ in 0..SWEEP_MAX {
        office.inbox.post(&message(""), None, &answer("a", &[]), office.now);
    }
    office.post("last", &answer("a", &[]));
    office.now = office.now.after(ABSENCE_MAX);
    office.post("later", &answer("a", &[]));
    office.inbox.sweep(office.now);
    assert_eq!(office.holds(2, usize::MAX).len(), SWEEP_MAX, "one sweep has its bound");
    office.post("latest", &answer("a", &[]));
    office.inbox.sweep(office.now);
    assert_eq!(office.gets(2), "last later latest");
}

#[test]
fn what_only_one_member_of_a_group_could_take_leaves_with_it() {
    let mut office = Office::new();
    office.sits(1, "a", Some("g"));
    office.sits(2, "b", Some("g"));
    for (text, group) in [("1", 42), ("2", 77), ("3", 42)] {
        office.post(text, &from(&[group]));
    }
    assert_eq!(texts(&office.holds(1, 1)), ["1"]);
    office.sits(3, "ab", None);
    assert_eq!(office.inbox.leave(key(1), office.now), [key(2), key(3)]);
    assert_eq!(office.gets(2), "2");
    assert_eq!(office.gets(3), "1 3");
    // Nobody else: they wait for the next.
    office.inbox.leave(key(3), office.now);
    office.sits(1, "a", Some("g"));
    office.post("4", &from(&[42]));
    office.inbox.leave(key(1), office.now);
    assert_eq!(office.gets(2), "");
    office.sits(4, "all", None);
    assert_eq!(office.gets(4), "4");
}

#[test]
fn answers_stay_in_a_group_for_replicas_when_the_asker_leaves() {
    let mut office = Office::new();
    office.sits(1, "a", Some("g"));
    office.sits(2, "ab", Some("g"));
    office.post("1", &answer("a", &[42]));
    office.holds(1, 1);
    office.post("2", &answer("a", &[42]));
    assert_eq!(office.inbox.leave(key(1), office.now), [key(2)]);
    assert_eq!(office.gets(2), "1 2");
}

#[test]
fn a_copy_that_another_desk_lost_is_not_counted_on() {
    let mut office = Office::new();
    office.sits(1, "ab", None);
    office.sits(2, "a", Some("g"));
    office.sits(3, "b", Some("g"));
    office.post("1", &from(&[42]));
    // The group's copy goes, because the other desk has one; then that desk closes.
    office.inbox.leave(key(2), office.now);
    assert_eq!(office.inbox.len(), 1);
    office.inbox.leave(key(1), office.now);
    office.sits(4, "a", None);
    assert_eq!(office.gets(4), "1");
}

#[test]
fn what_expires_is_counted_wherever_it_waited() {
    let mut office = Office::new();
    office.sits(1, "a", None);
    office.sits(2, "ab", None);
    let (soon, later) = (office.now.after(SECOND), office.now.after(2 * SECOND));
    office.post_until("on-two-desks", &from(&[42]), soon);
    office.post_until("unclaimed", &from(&[9]), soon);
    office.post_until("for-who-is-away", &answer("c", &[42]), soon);
    office.post_until("later", &from(&[42]), later);
    office.post("never", &from(&[42]));
    assert_eq!(texts(&office.holds(1, 1)), ["on-two-desks"], "in time");
    assert_eq!(office.inbox.len(), 8);
    assert_eq!(office.wait(SECOND).expired, 3, "not what a server holds");
    assert_eq!(office.inbox.len(), 5);
    office.now = later;
    assert_eq!(office.gets(2), "never", "swept or not");
    assert_eq!(office.wait(Duration::ZERO).expired, 2, "one of them found by a pull");
    // What a server held when its time came is gone when it is given back.
    office.inbox.leave(key(1), office.now);
    assert_eq!(office.wait(Duration::ZERO).expired, 0, "the other desk was given it");
    assert!(office.inbox.is_empty());
}

#[test]
fn what_expires_in_the_hands_of_a_server_is_not_given_out_again() {
    let mut office = Office::new();
    office.sits(1, "a", Some("g"));
    office.sits(2, "a", Some("g"));
    office.post_until("1", &from(&[42]), office.now.after(SECOND));
    let held = office.holds(1, 1);
    assert_eq!(office.wait(SECOND).expired, 0);
    assert!(office.inbox.holds(key(1), held[0].0));
    office.inbox.put_back(key(1), &[held[0].0]);
    assert_eq!(office.wait(Duration::ZERO).expired, 1);
    assert!(office.inbox.is_empty());
}

#[test]
fn each_place_has_its_own_bounds() {
    let mut office = Office::with(LIMITS);
    office.sits(1, "a", None);
    let places = [from(&[42]), from(&[9]), answer("b", &[42]), answer("c", &[42])];
    for to in &places {
        for _ in 0..LIMITS.messages_max {
            office.post("x", to);
        }
        assert!(!office.inbox.has_room(1, None, to, office.now));
        let posted = office.inbox.post(&message("x"), None, to, office.now);
        assert_eq!((posted.full, posted.wake), (1, vec![]), "the same without being asked");
    }
    assert_eq!(office.inbox.len(), places.len() * LIMITS.messages_max);
    // What has been taken is not lost where it comes to exceed them.
    office.wait(ABSENCE_MAX);
    assert_eq!(office.holds(1, 100).len(), 3 * LIMITS.messages_max);
}

#[test]
fn a_fleet_whose_servers_are_away_takes_no_room_of_another() {
    let mut office = Office::with(LIMITS);
    // Server `all` has them all in its scope.
    let fleets = [from(&[42]), from(&[77]), from(&[42, 77]), from(&[9])];
    for to in &fleets {
        for text in ["1", "2", "3"] {
            office.post(text, to);
        }
        assert!(!office.inbox.has_room(1, None, to, office.now));
        let posted = office.inbox.post(&message("4"), None, to, office.now);
        assert_eq!((posted.full, posted.wake), (1, vec![]));
    }
    assert!(!office.inbox.has_room(1, None, &from(&[]), office.now), "the same as group 9");
    office.sits(1, "a", None);
    assert_eq!(office.gets(1), "1 2 3 1 2 3", "of its own devices and of those it shares");
    office.sits(2, "b", None);
    assert_eq!(office.gets(2), "1 2 3");
    office.sits(3, "all", None);
    assert_eq!(office.gets(3), "1 2 3");
    assert!(office.inbox.is_empty());
}

#[test]
fn what_is_unclaimed_has_a_bound_for_all_fleets_together() {
    let groups = 1..=FLEETS as u64 + 1;
    let named = groups.clone().map(|n| (format!("of-{n}").into(), Scope::groups([gid(n)])));
    let scopes = ServerScopes::new(named, Scope::none());
    let mut office = Office { inbox: Inbox::new(LIMITS, scopes), now: NOW };
    for group in groups.take(FLEETS) {
        for _ in 0..LIMITS.messages_max {
            office.post("x", &from(&[group]));
        }
    }
    let last = from(&[FLEETS as u64 + 1]);
    assert!(!office.inbox.has_room(1, None, &last, office.now));
    office.sits(1, "of-1", None);
    assert!(office.inbox.has_room(1, None, &last, office.now), "what is claimed makes room");
}

#[test]
fn a_member_of_a_group_that_does_not_fetch_takes_no_room_of_the_others() {
    let mut office = Office::with(LIMITS);
    for (slot, server) in [(1, "a"), (2, "ab"), (3, "b")] {
        office.sits(slot, server, Some("g"));
    }
    let to_a = answer("a", &[42]);
    for text in ["1", "2", "3"] {
        assert_eq!(office.post(text, &to_a), [key(1)]);
    }
    assert!(
        !office.inbox.has_room(1, None, &to_a, office.now),
        "`a` is connected, and does not read"
    );
    for round in ["4", "5", "6", "7"] {
        assert_eq!(office.post(round, &from(&[42])), [key(1), key(2)]);
        assert_eq!(office.post(round, &answer("ab", &[42])), [key(2)]);
        assert_eq!(office.gets(2), format!("{round} {round}"));
        assert_eq!(office.post(round, &answer("b", &[77])), [key(3)]);
        assert_eq!(office.gets(3), round);
    }
    // What `a` and `ab` alone may have, and do not fetch, leaves the room of `b`.
    for _ in 0..LIMITS.messages_max {
        office.post("x", &from(&[42]));
    }
    assert!(!office.inbox.has_room(1, None, &from(&[42]), office.now));
    office.post("8", &from(&[77]));
    assert_eq!(office.gets(3), "8");
    assert_eq!(office.gets(1), "1 2 3 x x x", "nothing was taken from it");
}

#[test]
fn one_device_cannot_take_the_room_of_others_in_its_fleet() {
    // case D8
    let mut office = Office::with(InboxLimits { messages_max: 1000, bytes_max: 1 << 30, ..LIMITS });
    let nid = |number| Nid::new(number, crate::ids::NidScheme::Decimal).ok();
    // It speaks for one of its groups, for the other, and for itself.
    for to in [from(&[42]), from(&[77]), from(&[42, 77])] {
        let mut flood = 0;
        while office.inbox.has_room(1, nid(1), &to, office.now) {
            office.inbox.post(&message("x"), nid(1), &to, office.now);
            flood += 1;
        }
        assert_eq!(flood, 1000 / SENDERS);
        assert!(office.inbox.has_room(1, nid(2), &to, office.now));
    }
    office.sits(1, "ab", None);
    assert!(!office.inbox.has_room(1, nid(1), &from(&[42]), office.now), "it has too much already");
    assert!(office.inbox.has_room(1, nid(2), &from(&[42]), office.now));
}

#[test]
fn one_device_cannot_take_the_room_for_answers_to_an_absent_server() {
    // case D8
    let mut office = Office::with(InboxLimits { messages_max: 1000, bytes_max: 1 << 30, ..LIMITS });
    let nid = |number| Nid::new(number, crate::ids::NidScheme::Decimal).ok();
    let to = answer("a", &[42]);
    let mut flood = 0;
    while office.inbox.has_room(1, nid(1), &to, office.now) {
        office.inbox.post(&message("x"), nid(1), &to, office.now);
        flood += 1;
    }
    assert_eq!(flood, 1000 / SENDERS);
    assert!(office.inbox.has_room(1, nid(2), &to, office.now));
}

#[test]
fn no_more_absent_servers_are_remembered_than_their_bound() {
    let mut office = Office::new();
    office.sits(1, "all", None);
    // Nothing is kept for these, so that they can be forgotten.
    for number in 0..ABSENCES_MAX {
        office.sits(2, &format!("idle-{number}"), None);
        office.inbox.leave(key(2), office.now);
        office.now = office.now.after(Duration::from_millis(1));
    }
    for number in 0..ABSENCES_MAX {
        let to = answer(&format!("asker-{number}"), &[]);
        assert!(office.post("x", &to).is_empty(), "kept for {number}");
    }
    assert_eq!(office.post("1", &answer("one-too-many", &[])), [key(1)]);
    assert_eq!(office.gets(1), "1");
    office.sits(3, "asker-0", None);
    assert_eq!(office.gets(3), "x");
    assert!(office.post("2", &answer("one-too-many", &[])).is_empty(), "there is a place again");
}

#[test]
fn a_subscription_that_exists_changes_nothing() {
    let mut office = Office::new();
    office.sits(1, "a", Some("g"));
    office.sits(2, "ab", Some("g"));
    office.post("1", &answer("a", &[42]));
    let held = office.holds(1, 1);
    office.sits(1, "a", Some("g"));
    assert!(office.inbox.holds(key(1), held[0].0));
    office.post("2", &answer("a", &[42]));
    assert_eq!(office.gets(2), "2", "its window is as full as it was");
    // A second subscription is a desk of its own.
    office.sits(1, "a", None);
    office.post("3", &from(&[42]));
    assert_eq!(office.gets(1), "3 3");
}
