//! Whole flows of a fleet, from the first publish to the last answer; each is checked to its end.

use std::collections::BTreeSet;
use std::time::Duration;

use simcast::ids::Gid;
use simcast::rsp::{
    CampaignId, CampaignState, DeviceState, ForServers, Head, Kind, Refusal, Servers,
};

use super::times::{self, Samples};
use super::world::{self, Connected, World, to_device, to_group};

const HOUR: Duration = Duration::from_secs(3_600);

/// Longer than any request waits by default, and any mail.
const A_MONTH: Duration = Duration::from_secs(31 * 86_400);

/// Bytes that the control unit may need for each registered device with a campaign open.
pub const BYTES_PER_DEVICE_MAX: f64 = 400.0;

/// Bytes for each device, by all that the control unit knows.
#[derive(Debug)]
pub struct Bytes {
    pub registered: f64,
    /// With the campaign open; where there is one for each group, 1 % of the devices are connected.
    pub open: f64,
    /// When all have answered, or their time is over.
    pub ended: f64,
}

/// One C1 to each group; one device of a hundred is connected, the others come within six hours.
pub fn lenient(world: &mut World) -> Bytes {
    let registered = world.bytes_per_device();
    let online = world.connect_some();
    let campaigns = world.publish_to_groups("msg", &online);
    let open = world.bytes_per_device();
    let mut answered = online.len() as u32;
    for who in &online {
        let word = world.word(who.device, Kind::RetMsg, 0);
        world.read_mail(*who, Some(&word));
    }
    expect_ok(world, answered);
    let (tenth, all) = (world.shape.devices / 10, world.shape.devices);
    world.arrivals(6 * HOUR, |world, device| {
        let word = world.word(device, Kind::RetMsg, 0);
        world.visit(device, Some(&word));
        answered += 1;
        if answered.is_multiple_of(tenth) {
            expect_ok(world, answered);
            expect_refusals_of_strangers(world, device);
        }
    });
    assert_eq!(answered, all);
    world.expect_had(Kind::Msg, |_, _| 1);
    world.expect_nothing_for_bystanders();
    expect_end(world, &campaigns, |state| state == DeviceState::Ok);
    online.into_iter().for_each(|who| world.disconnect(who));
    Bytes { registered, open, ended: world.bytes_per_device() }
}

/// The progress that an operator sees is that of the devices.
fn expect_ok(world: &World, answered: u32) {
    let tally = world.unit.stats().campaign_devices;
    assert_eq!(tally.of(DeviceState::Ok), answered);
    assert_eq!(tally.total(), world.shape.devices);
}

/// A device that has answered: once, and for its own group alone.
fn expect_refusals_of_strangers(world: &mut World, device: u32) {
    let again = world.word(device, Kind::RetMsg, 0);
    assert_eq!(world.say(&again).err(), Some(Refusal::DuplicateAnswer));
    let foreign = world.gid_of((device + 1) % world.shape.devices);
    if foreign != world.gid_of(device) {
        let foreign = world.word_in(foreign, device, Kind::RetMsg, 0);
        assert_eq!(world.say(&foreign).err(), Some(Refusal::ForeignGid));
    }
}

/// Nothing waits, and every device is in a state as it should be.
fn expect_end(world: &World, campaigns: &[CampaignId], ends: impl Fn(DeviceState) -> bool) {
    let stats = world.unit.stats();
    assert_eq!((stats.mail_messages, stats.mail_bytes), (0, 0), "mail is left");
    for id in campaigns {
        let campaign = world.unit.campaign(*id, world.now).expect("is remembered");
        assert_eq!(campaign.state, CampaignState::Ended, "{id:?}");
        let others = DeviceState::ALL.into_iter().filter(|state| !ends(*state));
        others.for_each(|state| assert_eq!(campaign.tally.of(state), 0, "{id:?} {state:?}"));
    }
}

/// One B1 to each device, all of which are away, until its time is over. The message is one for
/// all: what counts is what it takes to keep track of it.
pub fn each_alone(world: &mut World) -> Bytes {
    let registered = world.bytes_per_device();
    let message = world::message("To_eUICC", to_device(0, "msg").into());
    for device in 0..world.shape.devices {
        let head = Head { nid: Some(world::nid(device)), ..Head::new(Kind::Msg) };
        let outcome = world.publish_with(&head, &message).expect("is permitted");
        assert_eq!((outcome.reached, outcome.wake.len()), (1, 0));
    }
    let open = world.bytes_per_device();
    let (all, tally) = (world.shape.devices, world.unit.stats().campaign_devices);
    assert_eq!((tally.of(DeviceState::Queued), tally.total()), (all, all));
    world.now = world.now.after(A_MONTH);
    world.sweep_all();
    let stats = world.unit.stats();
    assert_eq!((stats.mail_messages, stats.campaign_devices.open()), (0, 0));
    world.expect_nothing_for_bystanders();
    Bytes { registered, open, ended: world.bytes_per_device() }
}

/// How a device takes an A1 in strict flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attitude {
    /// Agrees when it gets the A1.
    Agrees,
    /// Says nothing then, and agrees when it comes the next time.
    AgreesLater,
    /// Says nothing then, and refuses when it comes the next time.
    Refuses,
    /// Never answers.
    Silent,
}

fn attitude(world: &World, device: u32) -> Attitude {
    match world.lot(device) {
        0..900 => Attitude::Agrees,
        900..960 => Attitude::AgreesLater,
        960..980 => Attitude::Refuses,
        _ => Attitude::Silent,
    }
}

/// Strict flow: an A1 to each group, to which nine of ten agree; then a C1, which the others get
/// when they agree, or never.
pub fn strict(world: &mut World) -> Bytes {
    let registered = world.bytes_per_device();
    let online = world.connect_some();
    let triggers = world.publish_to_groups("trigger", &online);
    online.iter().for_each(|who| take_trigger(world, *who));
    world.arrivals(3 * HOUR, |world, device| {
        let who = world.connect(device);
        take_trigger(world, who);
        world.disconnect(who);
    });
    world.expect_had(Kind::Trigger, |_, _| 1);
    expect_consent_to_be_asked(world);
    let campaigns = world.publish_to_groups("msg", &online);
    let open = world.bytes_per_device();
    online.iter().for_each(|who| take_message(world, *who));
    world.arrivals(6 * HOUR, |world, device| match attitude(world, device) {
        Attitude::Agrees => {
            let word = world.word(device, Kind::RetMsg, 0);
            world.visit(device, Some(&word));
        }
        _ => {
            let who = world.connect(device);
            take_message(world, who);
            world.disconnect(who);
        }
    });
    let in_the_end = |attitude| match attitude {
        Attitude::Agrees | Attitude::AgreesLater => 1,
        Attitude::Refuses | Attitude::Silent => 0,
    };
    world.expect_had(Kind::Msg, |world, device| in_the_end(attitude(world, device)));
    expect_tally(world, &campaigns, DeviceState::Queued);
    world.now = world.now.after(A_MONTH);
    world.sweep_all();
    expect_tally(world, &campaigns, DeviceState::Expired);
    world.expect_nothing_for_bystanders();
    let all: Vec<CampaignId> = triggers.into_iter().chain(campaigns).collect();
    expect_end(world, &all, |state| !state.is_open());
    online.into_iter().for_each(|who| world.disconnect(who));
    Bytes { registered, open, ended: world.bytes_per_device() }
}

fn take_trigger(world: &mut World, who: Connected) {
    let agrees = attitude(world, who.device) == Attitude::Agrees;
    let word = agrees.then(|| world.word(who.device, Kind::RetTrigger, 0));
    world.read_mail(who, word.as_ref());
}

/// Who has agreed before has the C1 at once, and nobody else.
fn take_message(world: &mut World, who: Connected) {
    let (device, attitude) = (who.device, attitude(world, who.device));
    world.read_mail(who, None);
    let had = world.had(device, Kind::Msg);
    assert_eq!(had, u8::from(attitude == Attitude::Agrees), "device {device} before its consent");
    let rc = match attitude {
        Attitude::Agrees | Attitude::Silent => None,
        Attitude::AgreesLater => Some(0),
        Attitude::Refuses => Some(1),
    };
    if let Some(rc) = rc {
        let word = world.word(device, Kind::RetTrigger, rc);
        let outcome = world.say(&word).expect("is permitted");
        let woken: &[_] = if rc == 0 { &[who.session] } else { &[] };
        assert_eq!(outcome.wake, woken);
        world.read_mail(who, None);
    }
    if matches!(attitude, Attitude::Agrees | Attitude::AgreesLater) {
        let word = world.word(device, Kind::RetMsg, 0);
        world.say(&word).expect("is permitted");
    }
}

/// A B1 is refused for all but those that agree.
fn expect_consent_to_be_asked(world: &World) {
    for device in (0..world.shape.devices).step_by(97) {
        let refusal = world.would_be_refused(&to_device(device, "msg"));
        let agrees = attitude(world, device) == Attitude::Agrees;
        let expected = (!agrees).then_some(Refusal::ConsentMissing);
        assert_eq!(refusal, expected, "device {device}");
    }
}

/// Each C1 has come to those that agreed, was refused by those that did not, and the silent are
/// in this state.
fn expect_tally(world: &World, campaigns: &[CampaignId], silent: DeviceState) {
    for (group, id) in campaigns.iter().enumerate() {
        let tally = world.unit.campaign(*id, world.now).expect("is remembered").tally;
        let group = u32::try_from(group).expect("there are few");
        let attitudes: Vec<Attitude> =
            world.members(group).map(|device| attitude(world, device)).collect();
        let count = |wanted: &[Attitude]| {
            let those = attitudes.iter().filter(|attitude| wanted.contains(attitude));
            u32::try_from(those.count()).expect("there are few")
        };
        let agreed = count(&[Attitude::Agrees, Attitude::AgreesLater]);
        assert_eq!(tally.of(DeviceState::Ok), agreed, "{id:?}");
        assert_eq!(tally.of(DeviceState::Refused), count(&[Attitude::Refuses]), "{id:?}");
        assert_eq!(tally.of(silent), count(&[Attitude::Silent]), "{id:?}");
    }
}

/// What coalescing makes of many D1s.
#[derive(Debug, Default)]
pub struct Coalesced {
    pub triggers: usize,
    pub messages: usize,
    pub sending: Samples,
}

/// All devices of the only group publish a D1 within its window; each of them gets its D2.
pub fn coalesced(world: &mut World, window: Duration) -> Coalesced {
    let (mut done, mut sent) = (Coalesced::default(), Vec::new());
    for device in 0..world.shape.devices {
        let word = world.word(device, Kind::Trigger, 0);
        let began = times::start();
        let outcome = world.say(&word).expect("is permitted");
        world.times.publish.note(began);
        assert!(!outcome.to_servers, "it waits for others");
        done.triggers += 1;
        send_due(world, &mut done, &mut sent);
    }
    world.now = world.now.after(window);
    send_due(world, &mut done, &mut sent);
    let mut named = BTreeSet::new();
    for ready in &sent {
        let text: serde_json::Value =
            serde_json::from_slice(&ready.message.payload).expect("is JSON");
        let requesters = text["body"]["requesters"].as_array().expect("is a list");
        for requester in requesters {
            assert!(named.insert(requester["nid"].as_str().map(str::to_owned)), "is named twice");
        }
        answer_batch(world, text["tid"].as_str().expect("has a tid"));
    }
    let all = (0..world.shape.devices).map(|device| Some(world::nid(device).to_string()));
    assert_eq!(named, all.collect(), "each requester is named");
    let no_more = world.publish(&to_group(world::gid(0), "ret(trigger)"));
    assert_eq!(no_more.err(), Some(Refusal::DuplicateAnswer));
    done.messages = sent.len();
    let answers = u8::try_from(done.messages).expect("few messages were made of many");
    world.arrivals(HOUR, |world, device| world.visit(device, None));
    let of_those_that_came =
        |world: &World, device| if world.stays_online(device) { 0 } else { answers };
    world.expect_had(Kind::RetTrigger, of_those_that_came);
    done
}

fn send_due(world: &mut World, done: &mut Coalesced, sent: &mut Vec<ForServers>) {
    if world.unit.next_due().is_none_or(|due| due > world.now) {
        return;
    }
    let began = times::start();
    world.unit.send_due(world.now, &mut Sent(sent));
    done.sending.note(began);
}

/// Servers that take everything.
struct Sent<'a>(&'a mut Vec<ForServers>);

impl Servers for Sent<'_> {
    fn packet_bytes_max(&self, _gid: Gid) -> u32 {
        u32::MAX
    }

    fn post(&mut self, message: &ForServers) -> bool {
        self.0.push(message.clone());
        true
    }
}

/// A D2 to the group answers all that were gathered under this tid.
fn answer_batch(world: &mut World, tid: &str) {
    let kind = format!(r#"ret(trigger)","tid":"{tid}"#);
    let d2 = to_group(world::gid(0), &kind);
    let outcome = world.publish(&d2).expect("is permitted");
    assert_eq!(outcome.reached, world.shape.devices);
}
