//! Tests of the control unit as a whole: rules, envelopes, mail.

mod campaigns;
mod chunk;
mod coalescing;
mod consent;
pub(in crate::rsp) mod disk;
mod envelope;
mod exchanges;
mod gathered;
mod identity;
mod mail;
mod merging;
mod model;
mod options;
mod parts;
mod pieces;
mod registry;
mod rows;
mod rules;
mod whole;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::ids::{Gid, Nid, NidScheme, SessionKey, Timestamp};
use crate::mqtt::{Message, QoS};

const TO_EUICC: RspTopic = RspTopic::ToEuicc;
const TO_SM_SR: RspTopic = RspTopic::ToSmSr;

/// A valid EID for a small number: 30 digits and the two check digits.
fn eid(number: u128) -> Nid {
    let base = (890_490_320_000_000_000_000_000_000_000 + number) * 100;
    Nid::new(base + 98 - base % 97, NidScheme::Eid).unwrap()
}

fn gid(number: u64) -> Gid {
    Gid::new(number).unwrap()
}

fn session(slot: u32) -> SessionKey {
    SessionKey { slot, generation: 0 }
}

fn message(text: &str, expires: Timestamp) -> Arc<Message> {
    let payload = Bytes::copy_from_slice(text.as_bytes());
    Arc::new(Message::new("To_eUICC".into(), payload, QoS::AtLeastOnce, false, None, expires))
}

/// A control unit with a clock, spoken to in envelopes.
struct Rig {
    unit: ControlUnit,
    now: Timestamp,
}

impl Rig {
    /// Devices 1, 2, 3 in group 42, devices 3, 4 in group 77, device 5 in none.
    fn new() -> Self {
        Self::with(ControlOptions::default())
    }

    fn with_settings(settings: Settings) -> Self {
        let settings = SettingsTable::new(settings, Default::default());
        Self::with(ControlOptions { settings, ..ControlOptions::default() })
    }

    fn with_ttl(ttl: Ttl) -> Self {
        Self::with_settings(Settings { ttl, ..Settings::default() })
    }

    fn with(options: ControlOptions) -> Self {
        let mut unit = ControlUnit::new(options);
        for (number, gids) in [(1, &[42][..]), (2, &[42]), (3, &[42, 77]), (4, &[77]), (5, &[])] {
            let gids: Vec<Gid> = gids.iter().map(|g| gid(*g)).collect();
            unit.put_device(eid(number), &gids, "").unwrap();
        }
        Self { unit, now: Timestamp(1_000_000) }
    }

    fn wait(&mut self, secs: u64) {
        self.now = self.now.after(Duration::from_secs(secs));
    }

    fn publish(
        &mut self,
        from: &Identity,
        topic: RspTopic,
        text: &str,
    ) -> Result<Outcome, Refusal> {
        let head = super::envelope::read(text.as_bytes(), NidScheme::Eid)?;
        let message = message(text, Timestamp::NEVER);
        let submission = Submission::new(from, topic, &head, text.len());
        let parts = submission.read_parts(&message.payload, NidScheme::Eid)?;
        let submission = Submission { parts: parts.as_ref(), ..submission };
        self.unit.publish(&submission, &message, self.now)
    }

    /// A server publishes on `To_eUICC`.
    fn server(&mut self, nid: u128, gid: u64, kind: &str) -> Result<Outcome, Refusal> {
        self.publish(&Identity::server("sm-sr"), TO_EUICC, &letter(nid, gid, kind))
    }

    /// A device publishes on `To_SM-SR`.
    fn device(&mut self, by: u128, nid: u128, gid: u64, kind: &str) -> Result<Outcome, Refusal> {
        self.publish(&Identity::device(eid(by)), TO_SM_SR, &letter(nid, gid, kind))
    }

    /// A device publishes on `To_eUICC`.
    fn peer(&mut self, by: u128, nid: u128, gid: u64, kind: &str) -> Result<Outcome, Refusal> {
        self.publish(&Identity::device(eid(by)), TO_EUICC, &letter(nid, gid, kind))
    }

    fn attach(&mut self, number: u128, slot: u32) -> DeviceKey {
        self.unit.attach(eid(number), session(slot)).unwrap()
    }

    fn pull(&mut self, device: DeviceKey, slot: u32) -> Vec<Letter> {
        self.unit.pull(device, session(slot), 100, self.now)
    }

    /// The device acknowledges a letter that it gets whole.
    fn arrived(&mut self, device: DeviceKey, letter: u64) -> Arrival {
        match self.unit.acknowledge(device, letter, self.now) {
            Some(Acknowledged::Arrived(arrival)) => arrival,
            other => panic!("{other:?}"),
        }
    }

    /// What waits for a device: attaches a reader of its own, and gives it all back.
    fn mail(&mut self, number: u128) -> Vec<String> {
        let slot = 1_000_000;
        let device = self.attach(number, slot);
        let letters = self.pull(device, slot);
        self.unit.detach(device, session(slot));
        letters.iter().map(text).collect()
    }
}

/// Servers that take packets of so many bytes, and so many messages; and what they have got.
struct Heard {
    packet_bytes_max: u32,
    room: usize,
    messages: Vec<ForServers>,
}

impl Default for Heard {
    fn default() -> Self {
        Self { packet_bytes_max: u32::MAX, room: usize::MAX, messages: Vec::new() }
    }
}

impl Servers for Heard {
    fn packet_bytes_max(&self, _gid: Gid) -> u32 {
        self.packet_bytes_max
    }

    fn post(&mut self, message: &ForServers) -> bool {
        let has_room = self.messages.len() < self.room;
        self.messages.extend(has_room.then(|| message.clone()));
        has_room
    }
}

fn text(letter: &Letter) -> String {
    String::from_utf8(letter.message.payload.to_vec()).unwrap()
}

/// An envelope; 0 stays 0, other device numbers become EIDs, also within `req(2)`.
fn letter(nid: u128, gid: u64, kind: &str) -> String {
    let number = |n: u128| if n == 0 { "0".to_owned() } else { eid(n).to_string() };
    let (kind, rest) = kind.split_once(' ').unwrap_or((kind, ""));
    let kind = match kind.trim_end_matches(')').split_once('(') {
        Some((name, x)) if name != "ret" => format!("{name}({})", number(x.parse().unwrap())),
        _ => kind.to_owned(),
    };
    let nid = number(nid);
    format!(r#"{{"nid":"{nid}","gid":{gid},"type":"{kind}","body":null{rest}}}"#)
}
