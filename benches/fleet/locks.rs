//! How long the control unit is busy with a single thing that concerns a whole group: the broker
//! serves nobody else meanwhile.

use std::time::{Duration, Instant};

use bytes::Bytes;
use simcast::ids::Timestamp;
use simcast::rsp::{
    CampaignId, CampaignStep, DeviceState, Event, Head, Initiator, Intake, Kind, RetryError,
    RspLimits, Settings, Wave,
};

use super::times::{self, Samples};
use super::world::{self, Connected, Shape, World, message, nid, to_device, to_group};

/// What was done, and the longest time it took at once.
pub type Held = (&'static str, Duration);

/// Everything that may take long, with this many devices in one group.
pub fn measure(devices: u32, seed: u64, heap: fn() -> usize) -> Vec<Held> {
    let shape = Shape { devices, groups: 1, seed };
    let fresh = || World::new(shape, Settings::default(), heap);
    let mut held = Vec::new();
    held.extend(whole_group(&mut fresh()));
    held.extend(all_but_three(&mut fresh()));
    held.extend(with_all_online(&mut fresh()));
    held.extend(many_at_once(&mut fresh()));
    held.extend(each_alone(&mut fresh()));
    held.extend(wished(shape, heap));
    held.extend(registry(&mut fresh()));
    held
}

fn since(began: Instant) -> Duration {
    began.elapsed()
}

fn c1(world: &mut World) -> (CampaignId, Duration) {
    let text = to_group(world::gid(0), "msg");
    let began = times::start();
    let outcome = world.publish(&text).expect("is permitted");
    let took = since(began);
    assert_eq!(outcome.reached, world.shape.devices);
    (outcome.campaign.expect("is a campaign"), took)
}

fn tally(world: &World, id: CampaignId, state: DeviceState) -> u32 {
    world.unit.campaign(id, world.now).expect("is remembered").tally.of(state)
}

/// Sweeps at that moment until all is put away; the longest.
fn longest_sweep(world: &mut World, at: Timestamp) -> Duration {
    world.now = at;
    world.times.sweep = Samples::with_capacity(1000);
    world.sweep_all();
    world.times.sweep.max()
}

const DAY: Duration = Duration::from_secs(86_400);

/// A campaign for all, who are away.
fn whole_group(world: &mut World) -> Vec<Held> {
    let all = world.shape.devices;
    let (expires, publish) = c1(world);
    let (cancelled, _) = c1(world);
    let began = times::start();
    assert_eq!(world.unit.cancel(cancelled), Some(all));
    let cancel = since(began);
    let opened = world.now;
    let expiry = longest_sweep(world, opened.after(22 * DAY));
    assert_eq!(tally(world, expires, DeviceState::Expired), all);
    let began = times::start();
    let retried = world.unit.retry(expires, false, world.now);
    let retry_all = since(began);
    assert_eq!(retried.map(|(count, _)| count), Ok(all));
    let again = longest_sweep(world, opened.after(44 * DAY));
    assert_eq!(tally(world, expires, DeviceState::Expired), all);
    assert_eq!(world.unit.stats().mail_messages, 0);
    vec![
        ("C1 to all, who are away", publish),
        ("cancel it", cancel),
        ("it expires: longest sweep", expiry),
        ("retry to all", retry_all),
        ("it expires again: longest sweep", again),
    ]
}

/// All but three have answered.
fn all_but_three(world: &mut World) -> Vec<Held> {
    let (id, _) = c1(world);
    let mute = [1, world.shape.devices / 2, world.shape.devices - 1];
    for device in 0..world.shape.devices {
        let word = world.word(device, Kind::RetMsg, 0);
        let who = world.connect(device);
        world.read_mail(who, (!mute.contains(&device)).then_some(&word));
        world.disconnect(who);
    }
    assert_eq!(tally(world, id, DeviceState::Delivered), 3);
    let began = times::start();
    let retried = world.unit.retry(id, false, world.now);
    let took = since(began);
    assert_eq!(retried.map(|(count, _)| count), Ok(3));
    assert_eq!(world.unit.retry(id, false, world.now).err(), Some(RetryError::NobodyMissing));
    for device in [0, 1, 2] {
        let who = world.connect(device);
        let had = world.had(device, Kind::Msg);
        world.read_mail(who, None);
        let more = world.had(device, Kind::Msg) - had;
        assert_eq!(more, u8::from(mute.contains(&device)), "device {device} was missing or not");
        world.disconnect(who);
    }
    vec![("retry to 3 missing", took)]
}

/// A campaign for all, who are connected.
fn with_all_online(world: &mut World) -> Vec<Held> {
    let all = world.shape.devices;
    let online: Vec<Connected> = (0..all).map(|device| world.connect(device)).collect();
    let (queued, publish) = c1(world);
    let began = times::start();
    assert_eq!(world.unit.cancel(queued), Some(all));
    let cancel_queued = since(began);
    let (taken, _) = c1(world);
    for who in &online {
        assert_eq!(world.unit.pull(who.key, who.session, 1, world.now).len(), 1);
    }
    let began = times::start();
    assert_eq!(world.unit.cancel(taken), Some(0), "all have it on its way");
    let cancel_taken = since(began);
    let (released, waved) = in_waves(world);
    vec![
        ("C1 to all, who are connected", publish),
        ("cancel it", cancel_queued),
        ("cancel one that is on its way to all", cancel_taken),
        ("C1 in waves", waved),
        ("… and its release to all others", released),
    ]
}

fn in_waves(world: &mut World) -> (Duration, Duration) {
    let wave = Some(Wave { first: 1000.min(world.shape.devices / 2), failures_max: None });
    let mut head = Head { gid: Some(world::gid(0)), ..Head::new(Kind::Msg) };
    head.options.wave = wave;
    let text = to_group(world::gid(0), "msg");
    let message = message("To_eUICC", Bytes::from(text));
    let began = times::start();
    let outcome = world.publish_with(&head, &message).expect("is permitted");
    let publish = since(began);
    let id = outcome.campaign.expect("is a campaign");
    let began = times::start();
    let woken = world.unit.release(id).expect("goes out in waves");
    let release = since(began);
    assert_eq!(woken.len(), world.shape.devices as usize);
    assert!(world.unit.take_events().0.contains(&Event::Campaign(id, CampaignStep::Released)));
    (release, publish)
}

/// As many campaigns as a group may have, which end together.
fn many_at_once(world: &mut World) -> Vec<Held> {
    let limits = RspLimits::default();
    let opened = world.now;
    for _ in 0..limits.open_group_requests_max {
        c1(world);
    }
    let expiry = longest_sweep(world, opened.after(22 * DAY));
    assert_eq!(world.unit.stats().mail_messages, 0);
    let (_, forget) = c1(world);
    vec![
        ("64 such campaigns expire together: longest sweep", expiry),
        ("C1 that takes the place of one of them", forget),
    ]
}

/// A B1 to each.
fn each_alone(world: &mut World) -> Vec<Held> {
    let all = world.shape.devices;
    let opened = world.now;
    for device in 0..all {
        world.publish(&to_device(device, "msg")).expect("is permitted");
    }
    let expiry = longest_sweep(world, opened.after(22 * DAY));
    let stats = world.unit.stats();
    assert_eq!((stats.mail_messages, stats.campaign_devices.open()), (0, 0));
    vec![("a B1 to each expires: longest sweep", expiry)]
}

/// All have asked to be provisioned, in the group's name.
fn wished(shape: Shape, heap: fn() -> usize) -> Vec<Held> {
    let settings = Settings { initiator: Initiator::Client, ..Settings::default() };
    let mut world = World::new(shape, settings, heap);
    for device in 0..shape.devices {
        let word = world.word(device, Kind::Trigger, 0);
        assert!(world.say(&word).expect("is permitted").to_servers);
    }
    let d2 = to_group(world::gid(0), r#"ret(trigger)","tid":"of nobody"#);
    let began = times::start();
    world.publish(&d2).expect("is permitted");
    let answer = since(began);
    let a1 = to_group(world::gid(0), "trigger");
    let began = times::start();
    world.publish(&a1).expect("is permitted");
    let trigger = since(began);
    let opened = world.now;
    let expiry = longest_sweep(&mut world, opened.after(22 * DAY));
    vec![
        ("D2 to the group, after a D1 of each", answer),
        ("A1 to the group, where a D1 has to come first", trigger),
        ("the D1s expire: longest sweep", expiry),
    ]
}

/// Changes of the registry while a campaign is open.
fn registry(world: &mut World) -> Vec<Held> {
    let (all, gids) = (world.shape.devices, [world::gid(0)]);
    c1(world);
    let began = times::start();
    world.unit.remove_device(nid(0)).expect("was registered");
    let leave = since(began);
    world.unit.put_device(nid(all + 1000), &gids, "").expect("is one group");
    c1(world);
    let began = times::start();
    world.unit.put_device(nid(all + 2000), &gids, "").expect("is one group");
    let join = since(began);
    let lines = (0..all).map(|device| format!("{},2,\n", nid(device)));
    let others = longest_step(world, &lines.collect::<String>());
    assert_eq!(world.unit.registry().group_size(world::gid(1)), Some(all as usize));
    let none = longest_step(world, &format!("{},2,\n", nid(0)));
    assert_eq!(world.unit.stats().devices, 1);
    vec![
        ("a device is removed, a campaign being open", leave),
        ("a device joins, a campaign being open", join),
        ("a registry file moves all to another group: longest step", others),
        ("a registry file has none of them any more: longest step", none),
    ]
}

/// A registry file takes the place of what is known, a step at a time.
fn longest_step(world: &mut World, file: &str) -> Duration {
    let mut intake = Intake::replace(file, world.unit.options());
    let mut steps = Samples::default();
    loop {
        let began = times::start();
        let is_more = intake.step(&mut world.unit);
        steps.note(began);
        if !is_more {
            assert!(intake.report().errors.is_empty());
            return steps.max();
        }
    }
}
