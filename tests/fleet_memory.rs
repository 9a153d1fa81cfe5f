//! How much memory the control unit needs for each device, by what is asked of the allocator. A
//! program of its own, so that nothing else is counted. `benches/fleet` does the same with a
//! million devices.

#![allow(dead_code, unreachable_pub, reason = "the benchmark takes more of it")]

#[path = "../benches/fleet/flows.rs"]
mod flows;
#[path = "../benches/fleet/heap.rs"]
mod heap;
#[path = "../benches/fleet/times.rs"]
mod times;
#[path = "../benches/fleet/world.rs"]
mod world;

use flows::BYTES_PER_DEVICE_MAX;
use simcast::rsp::Settings;
use world::{Shape, World};

const SHAPE: Shape = Shape { devices: 50_000, groups: 50, seed: 7 };

/// A registered device of which nothing else is known: its place, its number, its group.
const REGISTERED_MAX: f64 = 80.0;

/// A campaign to a group: a byte for each member in the ledger, a bit or two in the mail, and what
/// one connected device of a hundred needs.
const GROUP_CAMPAIGN_MAX: f64 = 20.0;

#[test]
fn a_device_takes_little_memory_and_a_campaign_gives_back_what_it_took() {
    let mut world = World::new(SHAPE, Settings::default(), heap::live);
    let in_groups = flows::lenient(&mut world);
    drop(world);
    let mut world = World::new(SHAPE, Settings::default(), heap::live);
    let alone = flows::each_alone(&mut world);
    drop(world);
    for bytes in [&in_groups, &alone] {
        assert!((1.0..=REGISTERED_MAX).contains(&bytes.registered), "{bytes:?}");
        assert!((bytes.registered..=BYTES_PER_DEVICE_MAX).contains(&bytes.open), "{bytes:?}");
        assert!(bytes.ended < bytes.open, "{bytes:?}");
    }
    assert!(in_groups.open - in_groups.registered <= GROUP_CAMPAIGN_MAX, "{in_groups:?}");
}
