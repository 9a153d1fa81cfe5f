//! What happens in the world of the model.

use super::*;

#[derive(Clone, Debug)]
pub(super) enum Op {
    /// A1 or B1 to a device.
    Single(bool, usize),
    /// A1 or C1 to a group, with so many at first.
    Group(bool, usize, Option<u32>),
    Attach(usize),
    Detach(usize, usize),
    Pull(usize, usize),
    /// What becomes of one of the letters a device was given.
    Settle(usize, usize, Settled),
    /// By a device, to a campaign counted from the newest; in its group's name; with this result.
    Answer(usize, usize, bool, i64),
    Retry(usize, bool),
    Cancel(usize),
    Release(usize),
    Move(usize, u8),
    Remove(usize),
    Wait(u64),
    Sweep,
    /// All that is left is what was written down.
    Restart,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Settled {
    Acknowledged,
    PutBack,
    Discarded,
}

pub(super) fn ops() -> impl Strategy<Value = Vec<Op>> {
    let device = || 0..DEVICES;
    let latest = || 0..6_usize;
    let settled = prop_oneof![
        6 => Just(Settled::Acknowledged),
        1 => Just(Settled::PutBack),
        1 => Just(Settled::Discarded),
    ];
    let op = prop_oneof![
        4 => (any::<bool>(), device()).prop_map(|(msg, d)| Op::Single(msg, d)),
        6 => (any::<bool>(), 0..GROUPS, proptest::option::of(1..4_u32))
            .prop_map(|(msg, g, wave)| Op::Group(msg, g, wave)),
        3 => device().prop_map(Op::Attach),
        2 => (device(), 0..3_usize).prop_map(|(d, at)| Op::Detach(d, at)),
        8 => (device(), 0..5_usize).prop_map(|(d, room)| Op::Pull(d, room)),
        8 => (device(), 0..4_usize, settled).prop_map(|(d, at, how)| Op::Settle(d, at, how)),
        9 => (device(), latest(), any::<bool>(), 0..2_i64)
            .prop_map(|(d, at, group, rc)| Op::Answer(d, at, group, rc)),
        3 => (latest(), any::<bool>()).prop_map(|(at, failed)| Op::Retry(at, failed)),
        1 => latest().prop_map(Op::Cancel),
        1 => latest().prop_map(Op::Release),
        2 => (device(), 0..4_u8).prop_map(|(d, groups)| Op::Move(d, groups)),
        1 => device().prop_map(Op::Remove),
        2 => (0..120_u64).prop_map(Op::Wait),
        2 => Just(Op::Sweep),
        2 => Just(Op::Restart),
    ];
    proptest::collection::vec(op, 0..150)
}
