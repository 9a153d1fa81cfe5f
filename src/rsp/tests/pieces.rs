//! Downloads in pieces, through readers that come and go and take more or less than before.

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
    assert_eq!(rig.unit.discard(device, whole[0].id, rig.now), Some(Form::Single));
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
    // The first is held back until device 2 has fared well.
    let wave = long(0, 42).replace(r#""chunks""#, r#""wave":1,"chunks""#);
    let other = rig.attach(1, 7);
    let id = rig.publish(&server, TO_EUICC, &wave).unwrap().campaign.unwrap();
    rig.publish(&server, TO_EUICC, &long(2, 0)).unwrap();
    let device = rig.unit.attach(eid(2), reader(1, 1000)).unwrap();
    let mut numbers = Vec::new();
    let mut next = |rig: &mut Rig| {
        let letters = rig.pull(device, 1);
        let [piece] = &letters[..] else { panic!("{letters:?}") };
        let json: serde_json::Value = serde_json::from_slice(&piece.message.payload).unwrap();
        numbers.push((json["gid"].as_u64().unwrap(), json["chunk"]["n"].as_u64().unwrap()));
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
