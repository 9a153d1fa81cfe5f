//! Campaigns: waves, retries and withdrawals, and what they leave behind.

use super::*;

/// Group 42 has devices 1 to 3.
impl Rig {
    fn c1(&mut self, rest: &str) -> CampaignId {
        let outcome = self.server(0, 42, &format!("msg {rest}")).unwrap();
        outcome.campaign.unwrap()
    }

    /// Gets its mail and acknowledges it.
    fn fetch(&mut self, number: u128) -> usize {
        let device = self.attach(number, 900);
        let letters = self.pull(device, 900);
        letters.iter().for_each(|letter| {
            self.unit.acknowledge(device, letter.id, self.now);
        });
        self.unit.detach(device, session(900));
        letters.len()
    }

    fn c2(&mut self, number: u128, rc: i64) {
        self.device(number, 0, 42, &format!(r#"ret(msg) ,"rc":{rc}"#)).unwrap();
    }

    fn states(&self, id: CampaignId) -> Vec<DeviceState> {
        self.unit.campaign_devices(id, 0).map(|device| device.state).collect()
    }

    fn campaign(&self, id: CampaignId) -> Campaign {
        self.unit.campaign(id, self.now).unwrap()
    }
}

#[test]
fn a_device_that_is_tried_again_counts_once_in_its_wave() {
    let mut rig = Rig::new();
    let id = rig.c1(r#","wave":{"first":2,"failures_max":0.5}"#);
    assert_eq!([rig.fetch(1), rig.fetch(2), rig.fetch(3)], [1, 1, 0]);
    rig.c2(1, 7);
    assert_eq!(
        (rig.campaign(id).wave.unwrap().done, rig.campaign(id).wave.unwrap().failed),
        (1, 1)
    );
    rig.unit.retry(id, true, rig.now).unwrap();
    let wave = rig.campaign(id).wave.unwrap();
    assert_eq!((wave.done, wave.failed), (0, 0), "it is not through any more");
    assert_eq!(rig.fetch(1), 1);
    rig.c2(1, 0);
    assert_eq!(rig.campaign(id).state, CampaignState::Canary, "the second is still to come");
    assert_eq!(rig.fetch(3), 0);
    rig.c2(2, 0);
    assert_eq!(rig.campaign(id).state, CampaignState::Running);
    assert_eq!(rig.fetch(3), 1);
}

#[test]
fn who_leaves_the_group_after_a_release_gets_what_it_has_passed_over() {
    let mut rig = Rig::new();
    let id = rig.c1(r#","wave":1"#);
    let (released, held) = (rig.attach(3, 5), rig.attach(2, 6));
    assert!(rig.pull(released, 5).is_empty() && rig.pull(held, 6).is_empty(), "1 is first");
    rig.unit.put_device(eid(2), &[gid(77)], "").unwrap();
    assert!(rig.unit.release(id).is_some());
    rig.unit.put_device(eid(3), &[gid(77)], "").unwrap();
    assert_eq!(rig.pull(released, 5).len(), 1);
    assert!(rig.pull(held, 6).is_empty(), "it would have had to wait, and has left");
    assert_eq!(rig.fetch(1), 1);
}

#[test]
fn a_withdrawal_leaves_what_other_waves_have_decided() {
    let mut rig = Rig::new();
    let other = rig.server(0, 77, "msg").unwrap().campaign.unwrap();
    let id = rig.c1(r#","wave":{"first":1,"failures_max":1.0}"#);
    assert_eq!(rig.fetch(1), 1);
    // The one that was to be looked at is gone, which is tolerated here.
    rig.unit.remove_device(eid(1)).unwrap();
    assert_eq!(rig.unit.cancel(other), Some(2));
    rig.unit.sweep(rig.now);
    assert_eq!(rig.campaign(id).state, CampaignState::Running);
    assert_eq!([rig.fetch(2), rig.fetch(3)], [1, 1]);
}

#[test]
fn who_is_gone_before_it_has_answered_speaks_against_the_others() {
    // It may be gone because of the message.
    let mut rig = Rig::new();
    let id = rig.c1(r#","wave":1"#);
    assert_eq!(rig.fetch(1), 1);
    rig.unit.remove_device(eid(1)).unwrap();
    rig.unit.sweep(rig.now);
    assert_eq!(rig.campaign(id).state, CampaignState::Halted);
    let wave = rig.campaign(id).wave.unwrap();
    assert_eq!((wave.done, wave.failed), (1, 1));
    assert_eq!([rig.fetch(2), rig.fetch(3)], [0, 0]);
    rig.unit.release(id).unwrap();
    assert_eq!([rig.fetch(2), rig.fetch(3)], [1, 1]);
}

#[test]
fn who_has_answered_counts_by_its_answer_wherever_it_goes() {
    let mut rig = Rig::new();
    let id = rig.c1(r#","wave":{"first":2,"failures_max":0.0}"#);
    assert_eq!([rig.fetch(1), rig.fetch(2)], [1, 1]);
    rig.c2(1, 0);
    rig.unit.remove_device(eid(1)).unwrap();
    rig.c2(2, 0);
    assert_eq!(rig.campaign(id).state, CampaignState::Running);
    assert_eq!(rig.fetch(3), 1);
}

#[test]
fn what_cannot_be_given_to_the_first_wave_decides_at_once() {
    let mut rig = Rig::new();
    let id = rig.c1(r#","wave":{"first":1,"failures_max":1.0}"#);
    let (first, other) = (rig.attach(1, 1), rig.attach(2, 2));
    let letters = rig.pull(first, 1);
    assert!(rig.pull(other, 2).is_empty());
    let discarded = rig.unit.discard(first, letters[0].id, rig.now).unwrap();
    assert!(discarded.wake.contains(&session(2)), "{discarded:?}");
    assert_eq!(rig.pull(other, 2).len(), 1);
    assert_eq!(rig.campaign(id).state, CampaignState::Running);
}

#[test]
fn what_cannot_be_cut_any_more_comes_behind_what_has_become_free_meanwhile() {
    let mut rig = Rig::with_settings(Settings { chunk: 256, ..Settings::default() });
    let id = rig.c1(r#","wave":1"#);
    let b1 =
        letter(2, 0, "msg").replace("null", &format!(r#""{}","chunks":true"#, "x".repeat(600)));
    rig.publish(&Identity::server("sm-sr"), TO_EUICC, &b1).unwrap();
    let device = rig.attach(2, 1);
    let piece = rig.pull(device, 1);
    assert_eq!(rig.unit.acknowledge(device, piece[0].id, rig.now), Some(Acknowledged::Piece));
    let piece = rig.pull(device, 1);
    assert!(text(&piece[0]).contains("chunk"));
    rig.unit.release(id).unwrap();
    // The client takes so little now that there is no room for a piece.
    rig.unit.resize(device, Reader { key: session(1), packet_bytes_max: 40 });
    assert_eq!(rig.unit.discard(device, piece[0].id, rig.now), None);
    let letters: Vec<String> = rig.pull(device, 1).iter().map(text).collect();
    assert_eq!(letters.len(), 2, "nothing wakes the reader again");
    assert_eq!((letters[0].contains("wave"), &letters[1]), (true, &b1));
}

#[test]
fn what_nobody_may_answer_any_more_is_not_delivered_and_a_retry_comes_once() {
    let brief = Duration::from_secs(10);
    let mut rig = Rig::with_ttl(Ttl { trigger: brief, msg: brief, exchange: brief });
    let id = rig.c1("");
    assert_eq!(rig.fetch(1), 1);
    rig.wait(10);
    rig.unit.sweep(rig.now);
    assert_eq!(rig.states(id), [DeviceState::Expired; 3]);
    assert_eq!(rig.fetch(2), 0);
    assert_eq!(rig.unit.retry(id, false, rig.now).unwrap().0, 3);
    assert_eq!([1, 2, 3].map(|number| rig.fetch(number)), [1; 3]);
    let alone = rig.server(5, 0, "trigger").unwrap().campaign.unwrap();
    rig.wait(10);
    assert_eq!(rig.fetch(5), 0);
    rig.unit.sweep(rig.now);
    assert_eq!(rig.states(alone), [DeviceState::Expired]);
}

#[test]
fn a_withdrawn_download_leaves_nothing_behind() {
    let mut rig = Rig::with_settings(Settings { chunk: 256, ..Settings::default() });
    let body = "x".repeat(2000);
    let id = rig.c1(&format!(r#","chunks":true,"campaign":"c","x":"{}""#, &body[..10]));
    assert!(rig.unit.cancel(id).is_some());
    let text = letter(5, 0, "msg").replace("null", &format!(r#""{body}","chunks":true"#));
    let id = rig.publish(&Identity::server("sm-sr"), TO_EUICC, &text).unwrap().campaign.unwrap();
    let device = rig.attach(5, 1);
    let piece = rig.pull(device, 1);
    assert_eq!(rig.unit.acknowledge(device, piece[0].id, rig.now), Some(Acknowledged::Piece));
    assert_eq!(rig.unit.cancel(id), Some(1));
    assert_eq!(rig.pull(device, 1).len(), 0);
    rig.server(5, 0, "trigger").unwrap();
    assert_eq!(rig.pull(device, 1).len(), 1, "nothing stands in its way");
    rig.unit.detach(device, session(1));
    assert_eq!(rig.mail(5).len(), 1);
}

#[test]
fn a_device_with_the_place_of_another_begins_with_a_full_bucket() {
    let mut settings = Settings::default();
    settings.trigger_rate.device = Rate::new(1, Duration::from_secs(3600));
    let mut rig = Rig::with_settings(settings);
    rig.device(5, 5, 0, "trigger").unwrap();
    assert_eq!(rig.device(5, 5, 0, "trigger"), Err(Refusal::TriggerRate));
    rig.unit.remove_device(eid(5)).unwrap();
    rig.unit.put_device(eid(6), &[], "").unwrap();
    rig.device(6, 6, 0, "trigger").unwrap();
    assert_eq!(rig.device(6, 6, 0, "trigger"), Err(Refusal::TriggerRate));
}

#[test]
fn a_retry_does_not_expire_with_the_first_try() {
    let day = Duration::from_secs(24 * 60 * 60);
    let mut rig = Rig::with_ttl(Ttl { msg: day, ..Ttl::default() });
    let id = rig.c1("");
    assert_eq!(rig.fetch(1), 1);
    rig.wait(3600);
    assert_eq!(rig.unit.retry(id, false, rig.now).unwrap().0, 1);
    rig.wait(23 * 3600);
    rig.unit.sweep(rig.now);
    use DeviceState::{Delivered, Expired, Queued};
    assert_eq!(rig.states(id), [Queued, Expired, Expired]);
    assert_eq!([1, 2].map(|number| rig.fetch(number)), [1, 0]);
    assert_eq!(rig.states(id), [Delivered, Expired, Expired]);
}

#[test]
fn what_comes_back_too_late_does_not_end_a_second_try() {
    let mut rig = Rig::with_ttl(Ttl { msg: Duration::from_secs(10), ..Ttl::default() });
    let id = rig.server(5, 0, "msg").unwrap().campaign.unwrap();
    let device = rig.attach(5, 1);
    assert_eq!(rig.pull(device, 1).len(), 1);
    rig.wait(10);
    rig.unit.sweep(rig.now);
    assert_eq!(rig.states(id), [DeviceState::Expired]);
    rig.unit.retry(id, false, rig.now).unwrap();
    // The first try was on its way, and is given back.
    rig.unit.detach(device, session(1));
    rig.unit.sweep(rig.now);
    assert_eq!(rig.states(id), [DeviceState::Queued]);
    assert_eq!(rig.fetch(5), 1);
    assert_eq!(rig.states(id), [DeviceState::Delivered]);
}

#[test]
fn all_of_a_first_wave_that_expires_at_once_are_through() {
    let mut rig = Rig::with_ttl(Ttl { msg: Duration::from_secs(10), ..Ttl::default() });
    let id = rig.c1(r#","wave":2"#);
    rig.wait(10);
    rig.unit.sweep(rig.now);
    let wave = rig.campaign(id).wave.unwrap();
    assert_eq!((wave.first, wave.done, wave.failed), (2, 2, 2));
    assert_eq!(rig.unit.retry(id, false, rig.now).unwrap().0, 3);
    let wave = rig.campaign(id).wave.unwrap();
    assert_eq!((wave.done, wave.failed), (0, 0));
}

#[test]
fn a_withdrawal_reaches_members_that_have_left_the_group_meanwhile() {
    let mut rig = Rig::new();
    let id = rig.c1("");
    rig.unit.put_device(eid(2), &[gid(77)], "").unwrap();
    let other = rig.c1("");
    assert!(rig.unit.cancel(id).is_some());
    assert_eq!(rig.mail(2).len(), 0, "the message was withdrawn");
    assert_eq!(rig.mail(1).len(), 1, "the other one was not");
    assert_eq!(rig.states(other).len(), 2);
}

#[test]
fn a_withdrawn_trigger_permits_nothing() {
    let settings = Settings { peer: Peer::ServerTriggered, ..Settings::default() };
    let mut rig = Rig::with_settings(settings);
    let id = rig.server(1, 0, "trigger").unwrap().campaign.unwrap();
    rig.unit.cancel(id);
    assert_eq!(rig.peer(1, 2, 42, "req(1)"), Err(Refusal::PeerNotPermitted));
    rig.server(1, 0, "trigger").unwrap();
    rig.peer(1, 2, 42, "req(1)").unwrap();
}

#[test]
fn an_answer_to_what_was_withdrawn_answers_nothing_else() {
    let mut rig = Rig::new();
    let id = rig.server(1, 0, r#"msg ,"tid":7"#).unwrap().campaign.unwrap();
    assert_eq!(rig.fetch(1), 1);
    rig.unit.retry(id, false, rig.now).unwrap();
    assert_eq!(rig.unit.cancel(id), Some(1));
    rig.server(1, 0, "msg").unwrap();
    assert_eq!(rig.device(1, 1, 0, r#"ret(msg) ,"tid":7"#), Err(Refusal::UnsolicitedAnswer));
    rig.device(1, 1, 0, "ret(msg)").unwrap();
}

#[test]
fn a_retry_does_not_get_around_the_first_wave() {
    let brief = Duration::from_secs(10);
    let mut rig = Rig::with_ttl(Ttl { trigger: brief, msg: brief, exchange: brief });
    let id = rig.c1(r#","wave":1"#);
    assert_eq!([rig.fetch(1), rig.fetch(2)], [1, 0]);
    rig.c2(1, 7);
    rig.wait(10);
    rig.unit.sweep(rig.now);
    assert_eq!(rig.unit.retry(id, true, rig.now).unwrap().0, 3);
    assert_eq!(rig.campaign(id).state, CampaignState::Halted);
    assert_eq!(rig.unit.stats().campaigns_halted, 1);
    assert_eq!([rig.fetch(1), rig.fetch(2), rig.fetch(3)], [1, 0, 0], "the others wait still");
    rig.c2(1, 0);
    assert_eq!(rig.fetch(2), 0);
    rig.unit.release(id).unwrap();
    assert_eq!([rig.fetch(2), rig.fetch(3)], [1, 1]);
}

#[test]
fn what_was_given_whole_in_the_end_leaves_nothing_behind_that_became_free_meanwhile() {
    let mut rig = Rig::with_settings(Settings { chunk: 256, ..Settings::default() });
    rig.c1(r#","wave":1"#);
    assert_eq!(rig.fetch(1), 1);
    let body = "x".repeat(600);
    let b1 = letter(2, 0, "msg").replace("null", &format!(r#""{body}","chunks":true"#));
    rig.publish(&Identity::server("sm-sr"), TO_EUICC, &b1).unwrap();
    let device = rig.attach(2, 1);
    assert!(text(&rig.pull(device, 1)[0]).contains("chunk"), "a piece, on its way");
    rig.unit.detach(device, session(1));
    rig.unit.set_settings(Settings::default()).unwrap();
    rig.c2(1, 0);
    let device = rig.attach(2, 2);
    let letters: Vec<String> = rig.pull(device, 2).iter().map(text).collect();
    assert_eq!(letters.len(), 2, "nothing wakes the reader again");
    assert_eq!((letters[0].contains("wave"), &letters[1]), (true, &b1));
}

#[test]
fn a_member_that_had_the_message_on_its_way_when_it_expired_answers_in_time() {
    let mut rig = Rig::new();
    let text = letter(0, 42, "msg");
    let head = crate::rsp::envelope::read(text.as_bytes(), NidScheme::Eid).unwrap();
    let from = Identity::server("sm-sr");
    let submission = Submission::new(&from, TO_EUICC, &head, text.len());
    let brief = message(&text, rig.now.after(Duration::from_secs(1)));
    let id = rig.unit.publish(&submission, &brief, rig.now).unwrap().campaign.unwrap();
    let device = rig.attach(1, 1);
    let letters = rig.pull(device, 1);
    rig.wait(2);
    rig.unit.sweep(rig.now);
    assert_eq!(rig.states(id)[1..], [DeviceState::Expired; 2]);
    assert!(rig.unit.acknowledge(device, letters[0].id, rig.now).is_some());
    assert_eq!(rig.states(id)[0], DeviceState::Delivered);
    rig.c2(1, 0);
    assert_eq!(rig.unit.stats().mail_messages, 0);
}
