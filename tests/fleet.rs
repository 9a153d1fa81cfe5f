//! A fleet through whole flows, simulated without sockets: ten thousand devices in a hundred
//! groups, each of which gets what is its own, once, and nothing else. `benches/fleet` runs the
//! same with a million.

#![allow(clippy::unwrap_used, reason = "these are tests")]
#![allow(dead_code, unreachable_pub, reason = "the benchmark takes more of it")]

#[path = "../benches/fleet/flows.rs"]
mod flows;
#[path = "../benches/fleet/times.rs"]
mod times;
#[path = "../benches/fleet/world.rs"]
mod world;

use std::time::Duration;

use simcast::rsp::{Flow, Settings};
use world::{Shape, World};

const SHAPE: Shape = Shape { devices: 10_000, groups: 100, seed: 7 };

fn world(shape: Shape, settings: Settings) -> World {
    World::new(shape, settings, || 0)
}

#[test]
fn a_group_message_reaches_each_member_once_whenever_it_comes() {
    flows::lenient(&mut world(SHAPE, Settings::default()));
}

#[test]
fn in_strict_flow_a_message_reaches_those_that_agree_when_they_agree() {
    let settings = Settings { flow: Flow::Strict, ..Settings::default() };
    flows::strict(&mut world(SHAPE, settings));
}

#[test]
fn a_message_to_each_alone_waits_for_it_until_its_time_is_over() {
    flows::each_alone(&mut world(SHAPE, Settings::default()));
}

#[test]
fn many_triggers_of_a_group_reach_the_servers_as_few_messages() {
    let window = Duration::from_secs(2);
    for (devices, messages) in [(100, 1), (2_500, 3)] {
        let shape = Shape { devices, groups: 1, seed: 7 };
        let settings = Settings { coalesce: window, ..Settings::default() };
        let done = flows::coalesced(&mut world(shape, settings), window);
        assert_eq!((done.triggers, done.messages), (devices as usize, messages));
    }
}
