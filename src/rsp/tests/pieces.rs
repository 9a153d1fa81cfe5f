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
