//! Every row of the table of ten messages, and every refusal.

use super::*;

fn refused(result: Result<Outcome, Refusal>) -> &'static str {
    result.expect_err("is to be refused").name()
}

fn id(result: Result<Outcome, Refusal>) -> MessageId {
    result.unwrap().id
}

#[test]
fn a_single_flow_from_the_server() {
    // A → B [0067]
    let mut rig = Rig::new();
    let a1 = rig.server(1, 0, "trigger").unwrap();
    assert_eq!(
        (a1.id, a1.form, a1.reached, a1.to_servers),
        (MessageId::A1, Form::Single, 1, false)
    );
    let a2 = rig.device(1, 1, 0, "ret(trigger)").unwrap();
    assert_eq!((a2.id, a2.reached, a2.to_servers), (MessageId::A2, 0, true));
    assert_eq!(id(rig.server(1, 0, "msg")), MessageId::B1);
    assert_eq!(id(rig.device(1, 1, 0, "ret(msg)")), MessageId::B2);
    assert_eq!(rig.mail(1).len(), 2);
    for other in 2..=5 {
        assert!(rig.mail(other).is_empty(), "{other} was not addressed");
    }
}

#[test]
fn a_group_flow_from_the_server() {
    // A → C, once for the whole group [0067]
    let mut rig = Rig::new();
    assert_eq!(rig.server(0, 42, "trigger").unwrap().reached, 3);
    for member in 1..=3 {
        assert_eq!(id(rig.device(member, 0, 42, "ret(trigger)")), MessageId::A2);
    }
    let c1 = rig.server(0, 42, "msg").unwrap();
    assert_eq!((c1.id, c1.form, c1.reached), (MessageId::C1, Form::Multi, 3));
    for member in 1..=3 {
        assert_eq!(id(rig.device(member, 0, 42, "ret(msg)")), MessageId::C2);
        assert_eq!(rig.mail(member).len(), 2);
    }
    assert!(rig.mail(4).is_empty() && rig.mail(5).is_empty());
}

#[test]
fn flows_from_the_device() {
    // D → A → B and D → A → C [0068]
    let mut rig = Rig::new();
    let d1 = rig.device(1, 1, 0, "trigger").unwrap();
    assert_eq!((d1.id, d1.form, d1.to_servers), (MessageId::D1, Form::Single, true));
    assert_eq!(id(rig.server(1, 0, "ret(trigger)")), MessageId::D2);
    assert_eq!(id(rig.server(1, 0, "trigger")), MessageId::A1);
    let d1 = rig.device(2, 0, 42, "trigger").unwrap();
    assert_eq!((d1.id, d1.form), (MessageId::D1, Form::Multi));
    let d2 = rig.server(0, 42, "ret(trigger)").unwrap();
    assert_eq!((d2.id, d2.reached), (MessageId::D2, 3));
    assert_eq!(id(rig.server(0, 42, "msg")), MessageId::C1);
}

#[test]
fn an_exchange_between_two_devices() {
    // E1 → E2 [0071]: 2 is the new device, 1 the old one
    let mut rig = Rig::new();
    let e1 = rig.peer(2, 1, 42, "req(2)").unwrap();
    assert_eq!((e1.id, e1.form, e1.reached), (MessageId::E1, Form::Peer, 1));
    assert_eq!((rig.mail(1).len(), rig.mail(2).len(), rig.mail(3).len()), (1, 0, 0));
    assert_eq!(id(rig.peer(1, 2, 42, "profile(1)")), MessageId::E2);
    assert_eq!((rig.mail(1).len(), rig.mail(2).len(), rig.mail(3).len()), (1, 1, 0));
}

#[test]
fn an_acknowledged_profile_is_told_once_and_owes_a_report() {
    // [0069] [0098]
    let mut rig = Rig::new();
    rig.peer(2, 1, 42, "req(2)").unwrap();
    rig.peer(1, 2, 42, "profile(1)").unwrap();
    assert_eq!(refused(rig.device(2, 2, 0, "ret(msg)")), "unsolicited_answer", "not yet");
    let device = rig.attach(2, 7);
    let letters = rig.pull(device, 7);
    let change = rig.arrived(device, letters[0].id).change.unwrap();
    assert_eq!(change, ProfileChange { from: eid(1), to: eid(2), gid: gid(42) });
    assert_eq!(rig.unit.acknowledge(device, letters[0].id, rig.now), None, "once");
    let notice = ControlUnit::profile_change_notice(&change);
    let (one, two) = (eid(1), eid(2));
    let expected = serde_json::json!({
        "nid": two.to_string(), "gid": 42, "type": format!("profile({one})"),
        "body": {"event": "profile-change", "from": one.to_string(), "to": two.to_string()},
    });
    assert_eq!(serde_json::from_slice::<serde_json::Value>(&notice).unwrap(), expected);
    assert_eq!(id(rig.device(2, 2, 0, "ret(msg)")), MessageId::B2);
    assert_eq!(refused(rig.device(2, 2, 0, "ret(msg)")), "unsolicited_answer");
}

#[test]
fn clients_have_no_part_in_it() {
    let mut rig = Rig::new();
    let client = Identity::anonymous("x");
    for topic in [TO_EUICC, TO_SM_SR] {
        let result = rig.publish(&client, topic, &letter(1, 0, "trigger"));
        assert_eq!(refused(result), "role_not_permitted");
    }
}

#[test]
fn retained_and_oversized_messages_are_refused() {
    let rig = Rig::new();
    let head = super::super::envelope::read(letter(1, 0, "msg").as_bytes(), NidScheme::Eid);
    let (from, head) = (Identity::server("s"), head.unwrap());
    let limit = rig.unit.options().limits.body_bytes_max;
    let decide = |retain, payload_len| {
        let s = Submission { retain, ..Submission::new(&from, TO_EUICC, &head, payload_len) };
        rig.unit.decide(&s, rig.now).map(|decision| decision.audience)
    };
    assert_eq!(decide(true, 9), Err(Refusal::RetainNotPermitted));
    assert_eq!(decide(false, limit + 1), Err(Refusal::TooLarge));
    assert_eq!(decide(false, limit), Ok(Audience::Device(eid(1))));
}

#[test]
fn each_type_goes_one_way() {
    let mut rig = Rig::new();
    let server = Identity::server("s");
    for kind in ["ret(msg)", "req(1)", "profile(1)"] {
        assert_eq!(refused(rig.server(1, 0, kind)), "device_type_from_server", "{kind}");
    }
    for kind in ["trigger", "ret(trigger)", "ret(msg)", "req(1)", "profile(1)"] {
        let result = rig.publish(&server, TO_SM_SR, &letter(1, 0, kind));
        assert_eq!(refused(result), "device_type_from_server", "{kind}");
    }
    let result = rig.publish(&server, TO_SM_SR, &letter(1, 0, "msg"));
    assert_eq!(refused(result), "wrong_topic");
    for kind in ["trigger", "msg", "ret(trigger)"] {
        assert_eq!(refused(rig.peer(1, 1, 0, kind)), "server_type_from_device", "{kind}");
    }
    assert_eq!(refused(rig.device(1, 1, 0, "msg")), "server_type_from_device");
    assert_eq!(refused(rig.peer(1, 1, 0, "ret(msg)")), "wrong_topic");
    for kind in ["req(1)", "profile(1)"] {
        assert_eq!(refused(rig.device(1, 2, 42, kind)), "wrong_topic", "{kind}");
    }
}

#[test]
fn addresses_must_have_the_form_of_their_type() {
    let mut rig = Rig::new();
    for kind in ["trigger", "msg", "ret(trigger)"] {
        assert_eq!(refused(rig.server(0, 0, kind)), "both_zero", "{kind}");
        assert_eq!(refused(rig.server(1, 42, kind)), "both_nonzero", "{kind}");
    }
    for kind in ["trigger", "ret(trigger)", "ret(msg)"] {
        assert_eq!(refused(rig.device(1, 0, 0, kind)), "both_zero", "{kind}");
        assert_eq!(refused(rig.device(1, 1, 42, kind)), "both_nonzero", "{kind}");
    }
    for kind in ["req(2)", "profile(2)"] {
        assert_eq!(refused(rig.peer(2, 0, 0, kind)), "both_zero", "{kind}");
        assert_eq!(refused(rig.peer(2, 1, 0, kind)), "exchange_needs_both", "{kind}");
        assert_eq!(refused(rig.peer(2, 0, 42, kind)), "exchange_needs_both", "{kind}");
    }
}

#[test]
fn unknown_devices_and_groups() {
    let mut rig = Rig::new();
    for kind in ["trigger", "msg", "ret(trigger)"] {
        assert_eq!(refused(rig.server(9, 0, kind)), "unknown_nid", "{kind}");
        assert_eq!(refused(rig.server(0, 9, kind)), "unknown_gid", "{kind}");
    }
    rig.unit.remove_device(eid(4));
    rig.unit.remove_device(eid(3));
    assert_eq!(refused(rig.server(0, 77, "msg")), "unknown_gid", "nobody is left in it");
    for kind in ["trigger", "ret(trigger)", "ret(msg)"] {
        assert_eq!(refused(rig.device(9, 9, 0, kind)), "not_registered", "{kind}");
        assert_eq!(refused(rig.device(9, 0, 42, kind)), "not_registered", "{kind}");
    }
    assert_eq!(refused(rig.peer(9, 1, 42, "req(9)")), "not_registered");
}

#[test]
fn nobody_speaks_for_another() {
    let mut rig = Rig::new();
    rig.server(2, 0, "trigger").unwrap();
    rig.server(0, 77, "trigger").unwrap();
    for kind in ["trigger", "ret(trigger)", "ret(msg)"] {
        assert_eq!(refused(rig.device(1, 2, 0, kind)), "spoofed_nid", "{kind}");
        assert_eq!(refused(rig.device(1, 9, 0, kind)), "spoofed_nid", "even of nobody: {kind}");
        assert_eq!(refused(rig.device(1, 0, 77, kind)), "foreign_gid", "{kind}");
        assert_eq!(refused(rig.device(1, 0, 9, kind)), "foreign_gid", "even of none: {kind}");
    }
}

#[test]
fn exchanges_name_the_publisher_another_device_and_a_common_group() {
    let mut rig = Rig::new();
    for kind in ["req", "profile"] {
        let kind = |x: u128| format!("{kind}({x})");
        assert_eq!(refused(rig.peer(2, 1, 42, &kind(3))), "wrong_peer");
        assert_eq!(refused(rig.peer(2, 2, 42, &kind(2))), "same_peer");
        assert_eq!(refused(rig.peer(2, 9, 42, &kind(2))), "unknown_nid");
        assert_eq!(refused(rig.peer(2, 1, 9, &kind(2))), "unknown_gid");
        assert_eq!(refused(rig.peer(2, 4, 42, &kind(2))), "cross_group_exchange");
        assert_eq!(refused(rig.peer(2, 4, 77, &kind(2))), "cross_group_exchange");
    }
}

#[test]
fn answers_need_their_request() {
    let mut rig = Rig::new();
    for (nid, gid, kind) in
        [(1, 0, "ret(trigger)"), (0, 42, "ret(trigger)"), (1, 0, "ret(msg)"), (0, 42, "ret(msg)")]
    {
        assert_eq!(refused(rig.device(1, nid, gid, kind)), "unsolicited_answer", "{kind}");
    }
    assert_eq!(refused(rig.server(1, 0, "ret(trigger)")), "unsolicited_answer");
    assert_eq!(refused(rig.server(0, 42, "ret(trigger)")), "unsolicited_answer");
}

#[test]
fn a_request_is_answered_once_and_by_its_own_kind() {
    let mut rig = Rig::new();
    rig.server(1, 0, "trigger").unwrap();
    assert_eq!(refused(rig.device(1, 1, 0, "ret(msg)")), "unsolicited_answer");
    assert_eq!(refused(rig.device(2, 2, 0, "ret(trigger)")), "unsolicited_answer");
    rig.device(1, 1, 0, "ret(trigger)").unwrap();
    assert_eq!(refused(rig.device(1, 1, 0, "ret(trigger)")), "duplicate_answer");
    rig.server(1, 0, "msg").unwrap();
    assert_eq!(refused(rig.device(1, 0, 42, "ret(msg)")), "unsolicited_answer", "B1 is no C1");
    rig.device(1, 1, 0, "ret(msg)").unwrap();
    assert_eq!(refused(rig.device(1, 1, 0, "ret(msg)")), "duplicate_answer");
}

#[test]
fn each_member_answers_a_group_message_once() {
    let mut rig = Rig::new();
    rig.server(0, 42, "msg").unwrap();
    rig.device(1, 0, 42, "ret(msg)").unwrap();
    assert_eq!(refused(rig.device(1, 0, 42, "ret(msg)")), "duplicate_answer");
    rig.device(2, 0, 42, "ret(msg)").unwrap();
    assert_eq!(refused(rig.device(1, 1, 0, "ret(msg)")), "unsolicited_answer", "C1 is no B1");
    rig.server(0, 42, "msg").unwrap();
    rig.device(1, 0, 42, "ret(msg)").unwrap();
    assert_eq!(refused(rig.device(1, 0, 42, "ret(msg)")), "duplicate_answer");
    rig.unit.put_device(eid(5), &[gid(42)], "").unwrap();
    assert_eq!(refused(rig.device(5, 0, 42, "ret(msg)")), "unsolicited_answer", "joined later");
}

#[test]
fn a_trigger_is_answered_in_either_form_but_once() {
    let mut rig = Rig::new();
    rig.server(0, 42, "trigger").unwrap();
    rig.device(1, 1, 0, "ret(trigger)").unwrap();
    assert_eq!(refused(rig.device(1, 0, 42, "ret(trigger)")), "duplicate_answer");
    rig.server(2, 0, "trigger").unwrap();
    rig.device(2, 0, 42, "ret(trigger)").unwrap();
    rig.device(2, 0, 42, "ret(trigger)").unwrap();
    assert_eq!(refused(rig.device(2, 0, 42, "ret(trigger)")), "duplicate_answer");
}

#[test]
fn a_tid_beats_the_form_when_a_trigger_is_answered() {
    let mut rig = Rig::with_ttl(Ttl { trigger: Duration::from_secs(100), ..Ttl::default() });
    rig.server(0, 42, "trigger ,\"tid\":1").unwrap();
    rig.wait(50);
    rig.server(1, 0, "trigger ,\"tid\":2").unwrap();
    rig.device(1, 1, 0, "ret(trigger) ,\"tid\":1").unwrap();
    rig.wait(50);
    // The group's is over by now; what is left to be answered is the device's own.
    rig.device(1, 1, 0, "ret(trigger)").unwrap();
    assert_eq!(refused(rig.device(1, 1, 0, "ret(trigger)")), "duplicate_answer");
}

#[test]
fn d2_mirrors_the_form_of_d1() {
    let mut rig = Rig::new();
    rig.device(1, 1, 0, "trigger").unwrap();
    assert_eq!(refused(rig.server(0, 42, "ret(trigger)")), "unsolicited_answer");
    assert_eq!(refused(rig.server(2, 0, "ret(trigger)")), "unsolicited_answer");
    rig.server(1, 0, "ret(trigger)").unwrap();
    assert_eq!(refused(rig.server(1, 0, "ret(trigger)")), "duplicate_answer");
    rig.device(1, 0, 42, "trigger").unwrap();
    assert_eq!(refused(rig.server(1, 0, "ret(trigger)")), "duplicate_answer", "D1 was the group's");
    rig.server(0, 42, "ret(trigger)").unwrap();
    assert_eq!(refused(rig.server(0, 42, "ret(trigger)")), "duplicate_answer");
}

#[test]
fn an_answer_takes_the_request_with_its_tid() {
    let mut rig = Rig::with_ttl(Ttl { msg: Duration::from_secs(100), ..Ttl::default() });
    rig.server(1, 0, "msg ,\"tid\":1").unwrap();
    rig.wait(50);
    rig.server(1, 0, "msg ,\"tid\":\"two\"").unwrap();
    rig.device(1, 1, 0, "ret(msg) ,\"tid\":\"two\"").unwrap();
    rig.wait(50);
    // The one that is left was the older one, and its time is over.
    assert_eq!(refused(rig.device(1, 1, 0, "ret(msg) ,\"tid\":1")), "late_answer");
}

#[test]
fn without_a_tid_the_oldest_request_is_answered() {
    let mut rig = Rig::with_ttl(Ttl { msg: Duration::from_secs(100), ..Ttl::default() });
    rig.server(1, 0, "msg ,\"tid\":1").unwrap();
    rig.wait(50);
    rig.server(1, 0, "msg ,\"tid\":2").unwrap();
    assert_eq!(
        refused(rig.device(1, 1, 0, "ret(msg) ,\"tid\":3")),
        "unsolicited_answer",
        "an answer to something else is none to these"
    );
    rig.device(1, 1, 0, "ret(msg)").unwrap();
    rig.wait(50);
    assert_eq!(id(rig.device(1, 1, 0, "ret(msg)")), MessageId::B2, "the newer one is left");
}

#[test]
fn answers_come_too_late_when_the_time_is_over() {
    let (trigger, msg) = (Duration::from_secs(10), Duration::from_secs(20));
    let mut rig = Rig::with_ttl(Ttl { trigger, msg, ..Ttl::default() });
    rig.server(1, 0, "trigger").unwrap();
    rig.server(0, 42, "trigger").unwrap();
    rig.device(2, 2, 0, "trigger").unwrap();
    rig.device(2, 0, 42, "trigger").unwrap();
    rig.server(1, 0, "msg").unwrap();
    rig.server(0, 42, "msg").unwrap();
    rig.wait(10);
    assert_eq!(refused(rig.device(1, 1, 0, "ret(trigger)")), "late_answer");
    assert_eq!(refused(rig.device(3, 0, 42, "ret(trigger)")), "late_answer");
    assert_eq!(refused(rig.server(2, 0, "ret(trigger)")), "late_answer");
    assert_eq!(refused(rig.server(0, 42, "ret(trigger)")), "late_answer");
    assert_eq!(rig.unit.sweep(rig.now).requests, 4);
    rig.device(2, 0, 42, "ret(msg)").unwrap();
    rig.wait(10);
    assert_eq!(refused(rig.device(1, 1, 0, "ret(msg)")), "late_answer");
    assert_eq!(refused(rig.device(1, 0, 42, "ret(msg)")), "late_answer");
    assert_eq!(refused(rig.device(2, 0, 42, "ret(msg)")), "duplicate_answer");
    assert_eq!(rig.unit.sweep(rig.now).requests, 2);
    assert_eq!((rig.unit.stats().campaigns_open, rig.unit.stats().wishes), (0, 0));
}

#[test]
fn an_exchange_is_open_once_and_answered_once_in_time() {
    let mut rig = Rig::with_ttl(Ttl { exchange: Duration::from_secs(600), ..Ttl::default() });
    assert_eq!(refused(rig.peer(1, 2, 42, "profile(1)")), "exchange_unsolicited");
    rig.peer(2, 1, 42, "req(2)").unwrap();
    assert_eq!(refused(rig.peer(2, 1, 42, "req(2)")), "exchange_already_open");
    assert_eq!(refused(rig.peer(1, 3, 42, "profile(1)")), "exchange_unsolicited");
    assert_eq!(refused(rig.peer(2, 1, 42, "profile(2)")), "exchange_unsolicited");
    rig.peer(1, 2, 42, "profile(1)").unwrap();
    assert_eq!(refused(rig.peer(1, 2, 42, "profile(1)")), "exchange_repeated");
    rig.peer(2, 1, 42, "req(2)").unwrap();
    rig.wait(600);
    assert_eq!(refused(rig.peer(1, 2, 42, "profile(1)")), "exchange_late");
    assert_eq!(rig.unit.sweep(rig.now).exchanges, 1);
    assert_eq!(refused(rig.peer(1, 2, 42, "profile(1)")), "exchange_late", "remembered");
    rig.wait(600);
    rig.unit.sweep(rig.now);
    assert_eq!(refused(rig.peer(1, 2, 42, "profile(1)")), "exchange_unsolicited", "forgotten");
}

#[test]
fn a_late_exchange_may_be_opened_again_before_any_sweep() {
    let mut rig = Rig::with_ttl(Ttl { exchange: Duration::from_secs(600), ..Ttl::default() });
    rig.peer(2, 1, 42, "req(2)").unwrap();
    rig.wait(600);
    rig.peer(2, 1, 42, "req(2)").unwrap();
    assert_eq!(rig.unit.stats().exchanges, 1);
    rig.peer(1, 2, 42, "profile(1)").unwrap();
}

#[test]
fn an_exchange_belongs_to_its_group() {
    let mut rig = Rig::new();
    rig.unit.put_device(eid(4), &[gid(42), gid(77)], "").unwrap();
    rig.peer(3, 4, 77, "req(3)").unwrap();
    assert_eq!(refused(rig.peer(4, 3, 42, "profile(4)")), "exchange_unsolicited");
    rig.peer(4, 3, 77, "profile(4)").unwrap();
}

#[test]
fn a_request_for_a_profile_does_not_arrive_after_its_time() {
    let mut rig = Rig::with_ttl(Ttl { exchange: Duration::from_secs(600), ..Ttl::default() });
    rig.peer(2, 1, 42, "req(2)").unwrap();
    rig.wait(599);
    assert_eq!(rig.mail(1).len(), 1);
    rig.wait(1);
    assert!(rig.mail(1).is_empty(), "the old device must not give its profile away any more");
}

#[test]
fn the_table_of_exchanges_is_bounded() {
    let mut options = ControlOptions::default();
    options.limits.exchanges_max = 1;
    let mut rig = Rig::with(options);
    rig.peer(2, 1, 42, "req(2)").unwrap();
    assert_eq!(refused(rig.peer(3, 1, 42, "req(3)")), "over_quota");
    rig.peer(1, 2, 42, "profile(1)").unwrap();
    rig.peer(3, 1, 42, "req(3)").unwrap();
}

fn with_settings(global: Settings, group_42: GroupSettings) -> Rig {
    let settings = SettingsTable::new(global, [(gid(42), group_42)].into());
    Rig::with(ControlOptions { settings, ..ControlOptions::default() })
}

#[test]
fn initiator_server_refuses_d1() {
    let group = GroupSettings { initiator: Some(Initiator::Server), ..GroupSettings::default() };
    let mut rig = with_settings(Settings::default(), group);
    assert_eq!(refused(rig.device(1, 1, 0, "trigger")), "initiator_not_permitted");
    assert_eq!(refused(rig.device(1, 0, 42, "trigger")), "initiator_not_permitted");
    rig.device(3, 0, 77, "trigger").unwrap();
    rig.device(5, 5, 0, "trigger").unwrap();
    rig.server(1, 0, "trigger").unwrap();
}

#[test]
fn initiator_client_refuses_a1_without_d1() {
    let settings = Settings { initiator: Initiator::Client, ..Settings::default() };
    let mut rig = with_settings(settings, GroupSettings::default());
    assert_eq!(refused(rig.server(1, 0, "trigger")), "initiator_not_permitted");
    assert_eq!(refused(rig.server(0, 42, "trigger")), "initiator_not_permitted");
    rig.device(1, 1, 0, "trigger").unwrap();
    assert_eq!(refused(rig.server(0, 42, "trigger")), "initiator_not_permitted");
    rig.server(1, 0, "ret(trigger)").unwrap();
    rig.server(1, 0, "trigger").unwrap();
    rig.device(2, 0, 42, "trigger").unwrap();
    rig.server(0, 42, "trigger").unwrap();
    rig.server(2, 0, "trigger").unwrap();
    assert_eq!(refused(rig.server(3, 0, "trigger")), "initiator_not_permitted");
}

#[test]
fn a_group_setting_beats_the_global_one() {
    let global =
        Settings { initiator: Initiator::Client, mode: Mode::Multi, ..Settings::default() };
    let group = GroupSettings {
        initiator: Some(Initiator::Any),
        mode: Some(Mode::Any),
        ..GroupSettings::default()
    };
    let mut rig = with_settings(global, group);
    rig.server(1, 0, "trigger").unwrap();
    assert_eq!(refused(rig.server(3, 0, "trigger")), "mode_not_permitted", "77 is multi");
    assert_eq!(refused(rig.server(5, 0, "trigger")), "mode_not_permitted", "no group: global");
}

#[test]
fn mode_decides_the_form_towards_devices_only() {
    let group = GroupSettings { mode: Some(Mode::Single), ..GroupSettings::default() };
    let mut rig = with_settings(Settings::default(), group);
    rig.device(1, 0, 42, "trigger").unwrap();
    for kind in ["trigger", "msg", "ret(trigger)"] {
        assert_eq!(refused(rig.server(0, 42, kind)), "mode_not_permitted", "{kind}");
    }
    rig.server(0, 77, "msg").unwrap();
    let group = GroupSettings { mode: Some(Mode::Multi), ..GroupSettings::default() };
    rig.unit.set_group_settings(gid(42), group).unwrap();
    rig.device(1, 1, 0, "trigger").unwrap();
    for kind in ["trigger", "msg", "ret(trigger)"] {
        assert_eq!(refused(rig.server(1, 0, kind)), "mode_not_permitted", "{kind}");
        assert_eq!(refused(rig.server(3, 0, kind)), "mode_not_permitted", "also in 77: {kind}");
    }
    rig.server(4, 0, "msg").unwrap();
    rig.peer(2, 1, 42, "req(2)").unwrap();
    rig.unit.set_group_settings(gid(42), GroupSettings::default()).unwrap();
    rig.server(1, 0, "msg").unwrap();
}

#[test]
fn peer_exchanges_need_their_permission() {
    let group = GroupSettings { peer: Some(Peer::Off), ..GroupSettings::default() };
    let settings = Settings { peer: Peer::ServerTriggered, ..Settings::default() };
    let mut rig = with_settings(settings, group);
    assert_eq!(refused(rig.peer(2, 1, 42, "req(2)")), "peer_not_permitted");
    rig.unit.set_group_settings(gid(42), GroupSettings::default()).unwrap();
    rig.server(1, 0, "trigger").unwrap();
    assert_eq!(refused(rig.peer(2, 1, 42, "req(2)")), "peer_not_permitted", "1 was triggered");
    rig.server(2, 0, "trigger").unwrap();
    rig.device(2, 2, 0, "ret(trigger)").unwrap();
    rig.peer(2, 1, 42, "req(2)").unwrap();
    // A → E by way of the group [0067]
    assert_eq!(refused(rig.peer(3, 1, 42, "req(3)")), "peer_not_permitted");
    rig.server(0, 77, "trigger").unwrap();
    rig.peer(3, 1, 42, "req(3)").unwrap();
    rig.wait(31 * 24 * 3600);
    assert_eq!(refused(rig.peer(2, 1, 42, "req(2)")), "peer_not_permitted", "A1 is too old");
}

#[test]
fn requests_are_bounded_and_the_oldest_goes() {
    let mut options = ControlOptions::default();
    options.limits.open_requests_max = 2;
    options.limits.open_group_requests_max = 1;
    options.limits.open_triggers_max = 2;
    let mut rig = Rig::with(options);
    for _ in 0..3 {
        rig.server(1, 0, "msg").unwrap();
    }
    rig.device(1, 1, 0, "ret(msg)").unwrap();
    rig.device(1, 1, 0, "ret(msg)").unwrap();
    assert_eq!(refused(rig.device(1, 1, 0, "ret(msg)")), "duplicate_answer");
    rig.server(0, 42, "trigger").unwrap();
    rig.server(0, 42, "msg").unwrap();
    assert_eq!(refused(rig.device(1, 0, 42, "ret(trigger)")), "unsolicited_answer");
    rig.device(2, 0, 42, "trigger ,\"tid\":2").unwrap();
    for _ in 0..9 {
        rig.device(1, 0, 42, "trigger ,\"tid\":1").unwrap();
    }
    assert_eq!(rig.unit.stats().wishes, 3);
    for _ in 0..3 {
        rig.server(0, 42, "ret(trigger)").unwrap();
    }
    assert_eq!(refused(rig.server(0, 42, "ret(trigger)")), "duplicate_answer");
}

#[test]
fn full_mail_refuses_more() {
    let mut options = ControlOptions::default();
    options.limits.mail_messages_max = 2;
    options.limits.group_messages_max = 1;
    let mut rig = Rig::with(options);
    rig.server(1, 0, "msg").unwrap();
    rig.server(1, 0, "msg").unwrap();
    assert_eq!(refused(rig.server(1, 0, "msg")), "over_quota");
    rig.server(0, 42, "msg").unwrap();
    assert_eq!(refused(rig.server(0, 42, "msg")), "over_quota");
    rig.server(0, 77, "msg").unwrap();
    rig.server(2, 0, "msg").unwrap();
    assert_eq!(rig.unit.stats().mail_messages, 5);
}

#[test]
fn devices_cannot_lock_the_server_out_of_a_mailbox() {
    let mut options = ControlOptions::default();
    options.limits.mail_messages_max = 2;
    let mut rig = Rig::with(options);
    rig.peer(2, 1, 42, "req(2)").unwrap();
    assert_eq!(refused(rig.peer(3, 1, 42, "req(3)")), "over_quota");
    rig.server(1, 0, "msg").unwrap();
    assert_eq!(refused(rig.server(1, 0, "msg")), "over_quota");
}

#[test]
fn members_cannot_lock_the_server_out_of_their_group() {
    let limits = RspLimits { group_messages_max: 4, ..RspLimits::default() };
    let mut rig = Rig::with(ControlOptions { limits, ..ControlOptions::default() });
    for _ in 0..3 {
        rig.device(1, 0, 42, "trigger").unwrap();
    }
    for _ in 0..2 {
        rig.server(0, 42, "ret(trigger)").unwrap();
    }
    assert_eq!(refused(rig.server(0, 42, "ret(trigger)")), "over_quota");
    for _ in 0..2 {
        rig.server(0, 42, "msg").unwrap();
    }
    assert_eq!(refused(rig.server(0, 42, "msg")), "over_quota");
    rig.server(0, 77, "msg").unwrap();
}

#[test]
fn mail_is_bounded_in_bytes_too() {
    let mut options = ControlOptions::default();
    let size = letter(1, 0, "msg").len();
    options.limits.mail_bytes_max = 2 * size;
    options.limits.group_bytes_max = 2 * size - 1;
    let mut rig = Rig::with(options);
    rig.server(1, 0, "msg").unwrap();
    rig.server(1, 0, "msg").unwrap();
    assert_eq!(refused(rig.server(1, 0, "msg")), "over_quota");
    let group_size = letter(0, 42, "msg").len();
    while rig.unit.stats().mail_bytes + group_size < 4 * size {
        rig.server(0, 42, "msg").unwrap();
    }
    assert_eq!(refused(rig.server(0, 42, "msg")), "over_quota");
}

#[test]
fn a_decision_changes_nothing() {
    let mut rig = Rig::new();
    let text = letter(0, 42, "msg");
    let head = super::super::envelope::read(text.as_bytes(), NidScheme::Eid).unwrap();
    let from = Identity::server("s");
    let submission = Submission::new(&from, TO_EUICC, &head, 9);
    let before = rig.unit.stats();
    let decision = rig.unit.decide(&submission, rig.now).unwrap();
    assert_eq!(rig.unit.stats(), before);
    assert_eq!((decision.id, decision.audience), (MessageId::C1, Audience::Group(gid(42))));
    let outcome = rig.unit.commit(decision, &message(&text, Timestamp::NEVER), rig.now);
    assert_eq!(outcome.reached, 3);
    assert_eq!(rig.unit.stats().campaigns_open, 1);
}

#[test]
fn subscriptions_by_role() {
    let topics = TopicNames::default();
    let (server, device) = (Identity::server("s"), Identity::device(eid(1)));
    let client = Identity::anonymous("c");
    let of = |who: &Identity, filter| ControlUnit::may_subscribe(who, filter, &topics);
    let not = Subscription::Refused(Refusal::SubscriptionNotPermitted);
    let never = Subscription::Refused(Refusal::RoleNotPermitted);
    assert_eq!(of(&device, "To_eUICC"), Subscription::Mailbox);
    assert_eq!(of(&server, "To_SM-SR"), Subscription::Servers { group: None });
    assert_eq!(of(&server, "$share/g/To_SM-SR"), Subscription::Servers { group: Some("g") });
    for filter in ["To_SM-SR", "$share/g/To_SM-SR", "$share/g/To_eUICC"] {
        assert_eq!(of(&device, filter), not, "{filter}");
    }
    for filter in ["To_eUICC", "$share/g/To_eUICC"] {
        assert_eq!(of(&server, filter), not, "{filter}");
    }
    for filter in ["To_SM-SR", "To_eUICC", "$share/g/To_SM-SR", "$share/g/To_eUICC"] {
        assert_eq!(of(&client, filter), never, "{filter}");
    }
    for who in [&server, &device, &client] {
        for filter in ["#", "+", "$share/g/#", "$share/g/+", "To_eUICC/#", "to_euicc", "a/To_eUICC"]
        {
            assert_eq!(of(who, filter), Subscription::Ordinary, "{filter}");
        }
    }
}

#[test]
fn the_readme_lists_every_refusal() {
    let readme = include_str!("../../../README.md");
    for refusal in Refusal::ALL {
        let code = refusal.reason_code() as u8;
        let row = format!("| `{}` | 0x{code:02X} | {} |", refusal.name(), refusal.explain());
        assert!(readme.contains(&row), "README.md lacks the line\n{row}");
    }
}

#[test]
fn a_gathered_trigger_in_its_own_name_stays_when_the_device_leaves_the_group() {
    let coalesce = Duration::from_secs(1);
    let mut rig = Rig::with_settings(Settings { coalesce, ..Settings::default() });
    rig.device(1, 1, 0, "trigger").unwrap();
    rig.device(2, 0, 42, "trigger").unwrap();
    for number in [1, 2] {
        rig.unit.put_device(eid(number), &[gid(77)], "").unwrap();
    }
    rig.server(1, 0, "ret(trigger)").unwrap();
    assert_eq!(refused(rig.server(2, 0, "ret(trigger)")), "unsolicited_answer");
    assert_eq!(refused(rig.server(0, 42, "ret(trigger)")), "unsolicited_answer");
}
