//! Every verdict of `tests/data/mqtt_corpus.txt`: A is accepted, R is refused by the decoder, S is
//! decoded and then refused by the checks of content.

use bytes::{Bytes, BytesMut};
use simcast::mqtt::{CheckError, Packet, Sender, Version, decode, encode, encoded_len, frame_len};

/// What the corpus expects of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Accept,
    Reject,
    Semantic,
}

/// One line of the corpus.
pub(crate) struct Case {
    pub(crate) version: Version,
    pub(crate) id: &'static str,
    pub(crate) verdict: Verdict,
    pub(crate) frame: Bytes,
}

impl Case {
    /// Version and id, as assertions show them.
    pub(crate) fn name(&self) -> String {
        format!("{:?} {}", self.version, self.id)
    }

    pub(crate) fn decode(&self) -> Result<Packet, simcast::mqtt::DecodeError> {
        decode(self.frame.clone(), self.version, Sender::Client)
    }
}

/// The whole corpus; every packet of it comes from a client.
pub(crate) fn cases() -> Vec<Case> {
    let text = include_str!("../data/mqtt_corpus.txt");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let cases: Vec<_> = lines.map(case).collect();
    assert_eq!(cases.len(), 297, "the corpus has lost or gained packets");
    cases
}

fn case(line: &'static str) -> Case {
    let [version, id, verdict, _source, hex] =
        line.split('|').collect::<Vec<_>>().try_into().expect("five columns");
    let version = match version {
        "4" => Version::V311,
        "5" => Version::V5,
        other => panic!("version {other}"),
    };
    let verdict = match verdict {
        "A" => Verdict::Accept,
        "R" => Verdict::Reject,
        "S" => Verdict::Semantic,
        other => panic!("verdict {other}"),
    };
    Case { version, id, verdict, frame: bytes(hex) }
}

/// Bytes written in hexadecimal.
pub(crate) fn bytes(hex: &str) -> Bytes {
    let digits: Vec<u8> = hex.chars().filter_map(|c| c.to_digit(16)).map(|d| d as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// Every check of content there is, the optional ones included.
fn check(packet: &Packet) -> Result<(), CheckError> {
    match packet {
        Packet::Connect(packet) => {
            packet.check()?;
            packet.will.as_ref().map_or(Ok(()), |will| will.check_payload_format())
        }
        Packet::Publish(packet) => packet.check_payload_format(),
        Packet::Disconnect(packet) => packet.check(Sender::Client),
        Packet::Auth(packet) => packet.check(Sender::Client),
        Packet::ConnAck(_)
        | Packet::PubAck(_)
        | Packet::PubRec(_)
        | Packet::PubRel(_)
        | Packet::PubComp(_)
        | Packet::Subscribe(_)
        | Packet::SubAck(_)
        | Packet::Unsubscribe(_)
        | Packet::UnsubAck(_)
        | Packet::PingReq
        | Packet::PingResp => Ok(()),
    }
}

/// Verdicts that do not hold as they stand, each with the sentence of the standard.
const EXCEPTIONS: [(&str, &str); 1] = [(
    "auth.len0",
    "A for the codec only: 0x00 Success is \"sent by Server\" (table of section 3.15.2.1), so the \
     check of content refuses it from a client",
)];

#[test]
fn every_verdict_holds() {
    let (mut held, mut wrong) = (0, Vec::new());
    for case in cases() {
        let decoded = case.decode();
        let checked = decoded.as_ref().map(check);
        let excepted = EXCEPTIONS.iter().any(|(id, _)| *id == case.id);
        let holds = match case.verdict {
            Verdict::Accept if excepted => matches!(checked, Ok(Err(_))),
            Verdict::Accept => matches!(checked, Ok(Ok(()))),
            Verdict::Reject => decoded.is_err(),
            Verdict::Semantic => matches!(checked, Ok(Err(_))),
        };
        held += usize::from(holds);
        if !holds {
            wrong.push(format!("{} {:?} {decoded:?}", case.name(), case.verdict));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(held, 297);
}

/// Accepted packets whose bytes are not the ones we would write: properties in another order, or
/// said although they are the default, or a longer form of the same.
const NOT_CANONICAL: [&str; 8] = [
    "connect.all_props",
    "pub.q2_all_props",
    "puback.len4",
    "pubrec.len4",
    "pubrel.len4",
    "pubcomp.len4",
    "disc.len1",
    "disc.len2",
];

#[test]
fn accepted_packets_survive_a_round_trip() {
    let mut rewritten = Vec::new();
    for case in cases().into_iter().filter(|case| case.verdict != Verdict::Reject) {
        let packet = case.decode().unwrap();
        let mut out = BytesMut::new();
        encode(&packet, case.version, &mut out);
        assert_eq!(frame_len(&out), Ok(Some(out.len())), "{}", case.name());
        assert_eq!(encoded_len(&packet, case.version), out.len(), "{}", case.name());
        if out != case.frame {
            rewritten.push(case.id);
        }
        let again = decode(out.freeze(), case.version, Sender::Client);
        assert_eq!(again, Ok(packet), "{}", case.name());
    }
    assert_eq!(rewritten, NOT_CANONICAL);
}
