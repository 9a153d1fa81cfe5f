//! D1s that were gathered, and do not all fit into one message.

use serde_json::Value;

use super::*;

/// Devices 1 and 2 of group 42 ask in turn, with bodies of so many bytes.
fn gathered(bytes: &[usize]) -> Rig {
    let coalesce = Duration::from_secs(1);
    let mut rig = Rig::with_settings(Settings { coalesce, ..Settings::default() });
    for (at, bytes) in bytes.iter().copied().enumerate() {
        let number = 1 + at as u128 % 2;
        let body = format!(r#""body":"{}""#, "b".repeat(bytes));
        let text = letter(number, 0, &format!(r#"trigger ,"tid":{at}"#));
        let text = text.replace(r#""body":null"#, &body);
        rig.publish(&Identity::device(eid(number)), TO_SM_SR, &text).unwrap();
    }
    rig.wait(1);
    rig
}

/// The tids of the D1s in each message, and the one that it has itself.
fn heard(servers: &Heard) -> Vec<(Vec<i64>, Option<String>)> {
    let each = servers.messages.iter().map(|ready| {
        let json: Value = serde_json::from_slice(&ready.message.payload).unwrap();
        let requesters = json["body"]["requesters"].as_array();
        assert_eq!(requesters.is_none(), ready.sender.is_some());
        match requesters {
            None => (vec![json["tid"].as_i64().unwrap()], None),
            Some(all) => {
                let tids = all.iter().map(|one| one["tid"].as_i64().unwrap()).collect();
                (tids, json["tid"].as_str().map(str::to_owned))
            }
        }
    });
    each.collect()
}

#[test]
fn what_does_not_fit_into_one_message_comes_in_several_that_are_answered_apart() {
    let mut rig = gathered(&[100; 4]);
    let mut servers = Heard { packet_bytes_max: 600, ..Heard::default() };
    rig.unit.send_due(rig.now, &mut servers);
    for ready in &servers.messages {
        assert!(ready.message.payload.len() + 100 <= 600, "{}", ready.message.payload.len());
    }
    let heard = heard(&servers);
    let all: Vec<i64> = heard.iter().flat_map(|(tids, _)| tids.clone()).collect();
    assert_eq!(all, [0, 1, 2, 3]);
    assert_eq!(heard.iter().map(|(tids, _)| tids.len()).collect::<Vec<_>>(), [2, 2]);
    let d2 = |own: &Option<String>| format!(r#"ret(trigger) ,"tid":"{}""#, own.as_ref().unwrap());
    let (first, second) = (d2(&heard[0].1), d2(&heard[1].1));
    assert_ne!(first, second);
    rig.server(0, 42, &first).unwrap();
    rig.server(1, 0, r#"ret(trigger) ,"tid":2"#).unwrap();
    let again = rig.server(1, 0, r#"ret(trigger) ,"tid":0"#);
    assert_eq!(again, Err(Refusal::DuplicateAnswer), "all of its own are answered");
    rig.server(0, 42, &second).unwrap();
    assert_eq!(rig.server(0, 42, &second), Err(Refusal::DuplicateAnswer));
    assert_eq!(rig.unit.next_due(), None);
}

#[test]
fn what_fits_beside_nothing_else_goes_as_it_came() {
    let mut rig = gathered(&[10, 1000, 10, 10]);
    let mut servers = Heard { packet_bytes_max: 600, ..Heard::default() };
    rig.unit.send_due(rig.now, &mut servers);
    let tids: Vec<Vec<i64>> = heard(&servers).into_iter().map(|(tids, _)| tids).collect();
    assert_eq!(tids, [vec![0], vec![1], vec![2, 3]]);
    assert_eq!(servers.messages[1].sender, Some(eid(2)));
    // However little the servers take, each is told.
    let mut rig = gathered(&[10; 4]);
    let mut servers = Heard { packet_bytes_max: 0, ..Heard::default() };
    rig.unit.send_due(rig.now, &mut servers);
    assert_eq!(servers.messages.len(), 4);
}

#[test]
fn one_message_is_bounded_in_bytes_whatever_servers_take() {
    let mut rig = gathered(&[60 << 10; 3]);
    let mut servers = Heard::default();
    rig.unit.send_due(rig.now, &mut servers);
    assert_eq!(servers.messages.len(), 2);
    let bytes_max = rig.unit.options().limits.gathered_bytes_max;
    assert!(servers.messages.iter().all(|ready| ready.message.payload.len() <= bytes_max));
    let all: Vec<i64> = heard(&servers).into_iter().flat_map(|(tids, _)| tids).collect();
    assert_eq!(all, [0, 1, 2]);
}

#[test]
fn what_finds_no_room_behind_others_waits_for_it() {
    let mut rig = gathered(&[100; 4]);
    let mut servers = Heard { packet_bytes_max: 600, room: 1, ..Heard::default() };
    rig.unit.send_due(rig.now, &mut servers);
    assert_eq!(servers.messages.len(), 1);
    rig.wait(1);
    servers.room = usize::MAX;
    rig.unit.send_due(rig.now, &mut servers);
    let tids: Vec<Vec<i64>> = heard(&servers).into_iter().map(|(tids, _)| tids).collect();
    assert_eq!(tids, [[0, 1], [2, 3]]);
}
