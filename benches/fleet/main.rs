//! A fleet of a million devices in a thousand groups, simulated without sockets: what it costs in
//! time and memory, and that nothing is lost or delivered to anybody else.
//!
//! `cargo bench --bench fleet` prints a table; with `-- --json`, the same for machines. Whatever
//! goes wrong, a bound of memory that is broken included, ends it with an exit code other than 0;
//! `-- --only lenient --only alone` is the check of memory alone. `tests/fleet.rs` and
//! `tests/fleet_memory.rs` do the same in small.

#![allow(clippy::print_stdout, reason = "the output of a benchmark")]
#![allow(unreachable_pub, reason = "a program of its own: nobody reaches into it")]

mod flows;
mod heap;
mod locks;
mod times;
mod world;

use std::time::Duration;

use clap::Parser;
use serde::Serialize;
use simcast::rsp::{Flow, Settings};

use flows::{BYTES_PER_DEVICE_MAX, Coalesced};
use world::{Shape, World};

/// Longest time for which the control unit may be busy with one thing.
const HELD_MAX: Duration = Duration::from_millis(20);

/// Simulates a fleet
#[derive(Parser)]
struct Args {
    /// Devices
    #[arg(long, default_value_t = 1_000_000)]
    devices: u32,
    /// Groups
    #[arg(long, default_value_t = 1_000)]
    groups: u32,
    /// What chances are drawn from
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// This scenario alone, or several of them
    #[arg(long, value_parser = SCENARIOS.map(|(name, _)| name))]
    only: Vec<String>,
    /// Prints JSON instead of a table
    #[arg(long)]
    json: bool,
    /// Given by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

type Scenario = (&'static str, fn(Shape, &mut Report));

const SCENARIOS: [Scenario; 5] = [
    ("lenient", lenient),
    ("strict", strict),
    ("alone", each_alone),
    ("coalescing", coalescing),
    ("held", held),
];

/// One figure.
#[derive(Serialize)]
struct Figure {
    of: &'static str,
    what: String,
    value: f64,
    unit: &'static str,
}

#[derive(Serialize)]
struct Report {
    devices: u32,
    groups: u32,
    seed: u64,
    figures: Vec<Figure>,
}

impl Report {
    fn add(&mut self, of: &'static str, what: impl Into<String>, value: f64, unit: &'static str) {
        self.figures.push(Figure { of, what: what.into(), value, unit });
    }

    fn add_time(&mut self, of: &'static str, what: impl Into<String>, time: Duration) {
        self.add(of, what, time.as_secs_f64() * 1e6, "µs");
    }

    fn add_bytes(&mut self, of: &'static str, what: &str, bytes: f64) {
        self.add(of, what, bytes, "bytes per device");
    }

    fn print(&self) {
        println!("{} devices in {} groups, seed {}", self.devices, self.groups, self.seed);
        let mut of = "";
        for figure in &self.figures {
            if figure.of != of {
                of = figure.of;
                println!("\n{of}");
            }
            println!("  {:60} {:>14.1} {}", figure.what, figure.value, figure.unit);
        }
    }
}

fn main() {
    let Args { devices, groups, seed, only, json, bench: _ } = Args::parse();
    let shape = Shape { devices, groups, seed };
    let mut report = Report { devices, groups, seed, figures: Vec::new() };
    for (name, scenario) in SCENARIOS {
        if only.is_empty() || only.iter().any(|only| only == name) {
            scenario(shape, &mut report);
        }
    }
    if json {
        let text = serde_json::to_string_pretty(&report).expect("numbers and names");
        println!("{text}");
    } else {
        report.print();
    }
}

fn lenient(shape: Shape, report: &mut Report) {
    let of = "one C1 to each group, 1 % connected, the others within 6 h";
    let mut world = World::new(shape, Settings::default(), heap::live);
    report.add_time(of, "register a device", world.registering / shape.devices);
    let bytes = flows::lenient(&mut world);
    flow(of, &world, &bytes, report);
}

fn strict(shape: Shape, report: &mut Report) {
    let of = "the same in strict flow, after an A1 to each group";
    let settings = Settings { flow: Flow::Strict, ..Settings::default() };
    let mut world = World::new(shape, settings, heap::live);
    let bytes = flows::strict(&mut world);
    flow(of, &world, &bytes, report);
}

fn flow(of: &'static str, world: &World, bytes: &flows::Bytes, report: &mut Report) {
    let times = &world.times;
    report.add_time(of, "publish, median", times.publish.median());
    report.add_time(of, "publish, longest", times.publish.max());
    report.add_time(of, "a device comes, answers and goes, median", times.arrival.median());
    report.add_time(of, "sweep, longest", times.sweep.max());
    report.add_bytes(of, "registered", bytes.registered);
    report.add_bytes(of, "with the campaign open", bytes.open);
    report.add_bytes(of, "when all is over", bytes.ended);
    expect_small(bytes.open);
}

fn expect_small(bytes: f64) {
    assert!(bytes <= BYTES_PER_DEVICE_MAX, "{bytes:.0} bytes per device are too many");
}

fn each_alone(shape: Shape, report: &mut Report) {
    let of = "one B1 to each device, all of them away";
    let mut world = World::new(shape, Settings::default(), heap::live);
    let bytes = flows::each_alone(&mut world);
    report.add_time(of, "publish, median", world.times.publish.median());
    report.add_time(of, "publish, longest", world.times.publish.max());
    report.add_time(of, "sweep, longest", world.times.sweep.max());
    report.add_bytes(of, "registered", bytes.registered);
    report.add_bytes(of, "with all campaigns open, messages apart", bytes.open);
    report.add_bytes(of, "a message apart from its payload", world::message_bytes() as f64);
    report.add_bytes(of, "when all is over", bytes.ended);
    expect_small(bytes.open);
}

fn coalescing(shape: Shape, report: &mut Report) {
    let of = "D1s of one group within its window";
    for devices in [100, 10_000] {
        let window = Duration::from_secs(2);
        let settings = Settings { coalesce: window, ..Settings::default() };
        let shape = Shape { devices, groups: 1, ..shape };
        let mut world = World::new(shape, settings, heap::live);
        let Coalesced { triggers, messages, sending } = flows::coalesced(&mut world, window);
        let what = format!("{triggers} D1s: messages to the servers");
        report.add(of, what, messages as f64, "");
        report.add(of, "saved", (triggers - messages) as f64, "messages");
        report.add_time(of, "sending, longest", sending.max());
    }
}

fn held(shape: Shape, report: &mut Report) {
    let of = "all devices in one group: how long one thing takes";
    for (what, time) in locks::measure(shape.devices, shape.seed, heap::live) {
        let mark = if time > HELD_MAX { " (long)" } else { "" };
        report.add_time(of, format!("{what}{mark}"), time);
    }
}
