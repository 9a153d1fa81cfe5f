//! Downloads in pieces, through readers that come and go and take more or less than before.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use serde_json::Value;

use super::*;

fn reader(slot: u32, packet_bytes_max: u32) -> Reader {
    Reader { key: session(slot), packet_bytes_max }
}

/// A B1 of 4,000 bytes to device 5, which may be cut.
fn download() -> String {
    let body = format!(r#""{}","chunks":true"#, "x".repeat(4000));
    letter(5, 0, "msg").replace("null", &body)
}

#[test]
fn a_reader_that_takes_too_little_ends_the_download_and_holds_up_nobody() {
    let mut rig = Rig::new();
    let server = Identity::server("sm-sr");
    let id = rig.publish(&server, TO_EUICC, &download()).unwrap().campaign.unwrap();
    rig.server(5, 0, "trigger").unwrap();
    let device = rig.unit.attach(eid(5), reader(1, 1000)).unwrap();
    let piece = rig.pull(device, 1);
    assert_eq!(piece.len(), 1, "nothing overtakes it");
    assert_eq!(rig.unit.acknowledge(device, piece[0].id, rig.now), Some(Acknowledged::Piece));
    rig.unit.detach(device, session(1));
    // No piece at all fits into this.
    let device = rig.unit.attach(eid(5), reader(2, 100)).unwrap();
    let whole = rig.pull(device, 2);
    assert!(whole[0].message.payload == download(), "not in pieces");
    let discarded = rig.unit.discard(device, whole[0].id, rig.now).unwrap();
    assert_eq!((discarded.form, &discarded.wake[..]), (Form::Single, &[][..]));
    assert!(rig.pull(device, 2).iter().all(|letter| letter.id != whole[0].id));
    let campaign = rig.unit.campaign(id, rig.now).unwrap();
    assert_eq!(campaign.tally.of(DeviceState::Failed), 1);
}

#[test]
fn what_is_released_meanwhile_waits_for_the_last_piece() {
    let mut rig = Rig::new();
    let server = Identity::server("sm-sr");
    let long = |nid, gid| letter(nid, gid, "msg").replace("null", r#""long","chunks":true"#);
    let long = |nid, gid| long(nid, gid).replace("long", &"x".repeat(4000));
    // The first is held back until device 1 has fared well.
    let wave = long(0, 42).replace(r#""chunks""#, r#""wave":1,"chunks""#);
    let other = rig.attach(1, 7);
    let id = rig.publish(&server, TO_EUICC, &wave).unwrap().campaign.unwrap();
    rig.publish(&server, TO_EUICC, &long(2, 0)).unwrap();
    let device = rig.unit.attach(eid(2), reader(1, 1000)).unwrap();
    let mut numbers = Vec::new();
    let mut next = |rig: &mut Rig| {
        let letters = rig.pull(device, 1);
        let [piece] = &letters[..] else { panic!("{letters:?}") };
        let said = json(piece);
        numbers.push((said["gid"].as_u64().unwrap(), said["chunk"]["n"].as_u64().unwrap()));
        rig.unit.acknowledge(device, piece.id, rig.now).unwrap();
    };
    next(&mut rig);
    assert!(!rig.unit.release(id).unwrap().is_empty());
    for _ in 0..9 {
        next(&mut rig);
    }
    let last = numbers.iter().position(|(gid, _)| *gid == 42).unwrap();
    let expected: Vec<_> = (1..=last as u64).map(|n| (0, n)).collect();
    assert_eq!(numbers[..last], expected);
    let expected: Vec<_> = (1..=(10 - last) as u64).map(|n| (42, n)).collect();
    assert_eq!(numbers[last..], expected);
    assert_eq!(rig.pull(other, 7).len(), 1);
}

#[derive(Clone, Debug)]
enum Op {
    /// A message with a body of so many characters, to the device or to its group.
    Publish(usize, bool),
    /// A reader that takes packets of so many bytes.
    Attach(u32),
    Detach,
    Pull(usize),
    /// The oldest that it was given, or puts back.
    Settle(bool),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let limit = prop_oneof![Just(300), Just(450), Just(800), Just(u32::MAX)];
    let op = prop_oneof![
        2 => (0..2000_usize, any::<bool>()).prop_map(|(len, group)| Op::Publish(len, group)),
        2 => limit.prop_map(Op::Attach),
        1 => Just(Op::Detach),
        6 => (0..4_usize).prop_map(Op::Pull),
        6 => (0..8_usize).prop_map(|n| Op::Settle(n > 0)),
    ];
    proptest::collection::vec(op, 0..120)
}

/// A device that puts together what it gets.
struct Download {
    rig: Rig,
    device: DeviceKey,
    limit: u32,
    sessions: u32,
    is_read: bool,
    sent: Vec<String>,
    /// What it was given and has not acknowledged.
    taken: Vec<Letter>,
    /// Content that has arrived, by the number in the transaction id.
    content: BTreeMap<usize, Vec<u8>>,
    arrived: Vec<usize>,
}

fn json(letter: &Letter) -> Value {
    serde_json::from_slice(&letter.message.payload).unwrap()
}

fn number(letter: &Letter) -> usize {
    usize::try_from(json(letter)["tid"].as_u64().unwrap()).unwrap()
}

impl Download {
    fn new() -> Self {
        let mut rig = Rig::new();
        let device = rig.unit.attach(eid(4), reader(0, u32::MAX)).unwrap();
        Self {
            rig,
            device,
            limit: u32::MAX,
            sessions: 0,
            is_read: true,
            sent: Vec::new(),
            taken: Vec::new(),
            content: BTreeMap::new(),
            arrived: Vec::new(),
        }
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Publish(len, to_group) => self.publish(len, to_group),
            Op::Attach(limit) => {
                self.sessions += 1;
                let reader = reader(self.sessions, limit);
                self.rig.unit.attach(eid(4), reader).unwrap();
                (self.limit, self.is_read) = (limit, true);
                self.taken.clear();
            }
            Op::Detach => {
                self.rig.unit.detach(self.device, session(self.sessions));
                self.is_read = false;
                self.taken.clear();
            }
            Op::Pull(room) => self.pull(room),
            Op::Settle(_) if self.taken.is_empty() => {}
            Op::Settle(true) => self.acknowledge(),
            Op::Settle(false) => {
                let letter = self.taken.pop().unwrap();
                self.rig.unit.put_back(self.device, session(self.sessions), &[letter.id]);
            }
        }
    }

    fn publish(&mut self, len: usize, to_group: bool) {
        let number = self.sent.len();
        let body: String = (0..).map(|n| format!("{n}:")).take(len / 3).collect();
        let rest = format!(r#""{body}","chunks":true,"tid":{number}"#);
        let (nid, gid) = if to_group { (0, 77) } else { (4, 0) };
        let text = letter(nid, gid, "msg").replace("null", &rest);
        self.rig.publish(&Identity::server("s"), TO_EUICC, &text).unwrap();
        self.sent.push(text);
    }

    fn pull(&mut self, room: usize) {
        let reader = session(self.sessions);
        let letters = self.rig.unit.pull(self.device, reader, room, self.rig.now);
        assert!(self.is_read || letters.is_empty());
        let begun = self.content.keys().next().copied();
        for letter in &letters {
            let is_whole = json(letter).get("chunk").is_none();
            let len = letter.message.payload.len();
            assert!(len < self.limit as usize, "{len} bytes");
            assert_eq!(is_whole, *letter.message.payload == *self.sent[number(letter)].as_bytes());
            assert!(begun.is_none_or(|begun| begun == number(letter)), "nothing comes between");
        }
        let pieces = letters.iter().filter(|letter| json(letter).get("chunk").is_some());
        assert!(pieces.count() <= 1, "one piece at a time");
        self.taken.extend(letters);
    }

    fn acknowledge(&mut self) {
        let letter = self.taken.remove(0);
        let (number, json) = (number(&letter), json(&letter));
        let acknowledged = self.rig.unit.acknowledge(self.device, letter.id, self.rig.now).unwrap();
        let is_last = matches!(acknowledged, Acknowledged::Arrived(_));
        if let Some(label) = json.get("chunk") {
            let content = self.content.entry(number).or_default();
            assert_eq!(label["offset"], content.len(), "without a gap");
            let body = json["body"].as_str().unwrap();
            match label["as"].as_str().unwrap() {
                "base64" => content.extend(STANDARD.decode(body).unwrap()),
                _ => content.extend(body.bytes()),
            }
            assert_eq!(label["n"] == label["of"], is_last);
            if is_last {
                let content = self.content.remove(&number).unwrap();
                let sent: Value = serde_json::from_str(&self.sent[number]).unwrap();
                assert_eq!(content, sent["body"].to_string().as_bytes());
            }
        }
        if is_last {
            self.arrived.push(number);
        }
    }

    /// In the end everything is there, once.
    fn finish(mut self) {
        self.apply(&Op::Attach(800));
        for _ in 0..10_000 {
            self.pull(3);
            if self.taken.is_empty() {
                break;
            }
            self.acknowledge();
        }
        self.arrived.sort_unstable();
        assert_eq!(self.arrived, (0..self.sent.len()).collect::<Vec<_>>());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn whoever_reads_with_whatever_limit_the_device_gets_all_of_it_in_order(ops in ops()) {
        let mut download = Download::new();
        ops.iter().for_each(|op| download.apply(op));
        download.finish();
    }
}
