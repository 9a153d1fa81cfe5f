//! A disk that does what disks do wrong: forgets what was not synced, sector by sector and name by
//! name, fails, fills up, turns bits over, and loses power at any call. What it does follows from
//! its seed.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::store::disk::{Disk, DiskFile};

const SECTOR: usize = 512;

/// Numbers that look random: SplitMix64.
#[derive(Clone, Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// What a file holds.
#[derive(Clone, Debug, Default)]
struct Node {
    /// As it is read.
    seen: Vec<u8>,
    /// As it is after a power cut, but for what is pending.
    kept: Vec<u8>,
    pending: Vec<Change>,
}

#[derive(Clone, Debug)]
enum Change {
    Write(usize, Vec<u8>),
    Cut(usize),
}

impl Change {
    fn apply(&self, to: &mut Vec<u8>) {
        match self {
            Self::Write(at, bytes) if *at == to.len() => to.extend_from_slice(bytes),
            Self::Write(at, bytes) => {
                if to.len() < at + bytes.len() {
                    to.resize(at + bytes.len(), 0);
                }
                to[*at..at + bytes.len()].copy_from_slice(bytes);
            }
            Self::Cut(bytes) => to.truncate(*bytes),
        }
    }

    /// As the disk may do it: each sector for itself.
    fn sectors(&self) -> Vec<Self> {
        let Self::Write(at, bytes) = self else { return vec![self.clone()] };
        let mut sectors = Vec::new();
        let mut from = 0;
        while from < bytes.len() {
            let to = bytes.len().min(from + SECTOR - (at + from) % SECTOR);
            sectors.push(Self::Write(at + from, bytes[from..to].to_vec()));
            from = to;
        }
        sectors
    }
}

/// What becomes of names, together.
type Naming = Vec<(String, Option<usize>)>;

/// How likely what goes wrong: one call in so many; 0 is never.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    pub(crate) write_full: u64,
    pub(crate) sync_fails: u64,
    pub(crate) name_fails: u64,
    pub(crate) read_fails: u64,
}

#[derive(Debug)]
struct State {
    random: Random,
    nodes: Vec<Node>,
    names: BTreeMap<String, usize>,
    kept_names: BTreeMap<String, usize>,
    pending_names: Vec<Naming>,
    faults: Faults,
    /// Every write fails with this.
    broken: Option<io::ErrorKind>,
    /// Calls until the power goes.
    fuse: Option<u64>,
    dark: bool,
    calls: u64,
    syncs: u64,
    /// At which calls files were removed.
    removals: Vec<u64>,
}

/// The disk. Clones are the same one.
#[derive(Clone, Debug)]
pub(crate) struct SimDisk {
    state: Arc<Mutex<State>>,
    /// Held by a test that wants syncs to wait.
    gate: Arc<Mutex<()>>,
}

struct SimFile {
    disk: SimDisk,
    node: usize,
}

fn dark() -> io::Error {
    io::Error::other("the power is gone")
}

impl State {
    /// Called by every call.
    fn tick(&mut self) -> io::Result<()> {
        self.calls += 1;
        if let Some(fuse) = &mut self.fuse {
            if *fuse == 0 {
                self.dark = true;
            }
            *fuse = fuse.saturating_sub(1);
        }
        if self.dark { Err(dark()) } else { Ok(()) }
    }

    fn fails(&mut self, one_in: u64) -> bool {
        one_in > 0 && self.random.one_in(one_in)
    }

    fn changing(&mut self, one_in: u64, kind: io::ErrorKind) -> io::Result<()> {
        self.tick()?;
        if let Some(kind) = self.broken {
            return Err(kind.into());
        }
        if self.fails(one_in) { Err(kind.into()) } else { Ok(()) }
    }

    fn name(&mut self, naming: Naming) {
        for (name, node) in &naming {
            match node {
                Some(node) => self.names.insert(name.clone(), *node),
                None => self.names.remove(name),
            };
        }
        self.pending_names.push(naming);
    }

    fn node(&self, name: &str) -> io::Result<usize> {
        self.names.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Some of what is pending gets onto the disk, the rest never will.
    fn lose(&mut self, node: usize) {
        // All, none, or about half of it.
        let mood = self.random.below(4);
        for change in std::mem::take(&mut self.nodes[node].pending) {
            for sector in change.sectors() {
                let kept = match mood {
                    0 => true,
                    1 => false,
                    _ => self.random.one_in(2),
                };
                if kept {
                    sector.apply(&mut self.nodes[node].kept);
                }
            }
        }
    }
}

impl SimDisk {
    pub(crate) fn new(seed: u64) -> Self {
        let state = State {
            random: Random(seed ^ 0x5eed),
            nodes: Vec::new(),
            names: BTreeMap::new(),
            kept_names: BTreeMap::new(),
            pending_names: Vec::new(),
            faults: Faults::default(),
            broken: None,
            fuse: None,
            dark: false,
            calls: 0,
            syncs: 0,
            removals: Vec::new(),
        };
        Self { state: Arc::new(Mutex::new(state)), gate: Arc::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// As long as it is held, no sync of a file ends.
    pub(crate) fn hold_syncs(&self) -> MutexGuard<'_, ()> {
        self.gate.lock().unwrap()
    }

    /// The power goes after so many calls.
    pub(crate) fn cut_power_after(&self, calls: u64) {
        self.state().fuse = Some(calls);
    }

    pub(crate) fn is_dark(&self) -> bool {
        self.state().dark
    }

    /// The power is back: what was not synced may be there or not.
    pub(crate) fn power_on(&self) {
        let mut state = self.state();
        for node in 0..state.nodes.len() {
            state.lose(node);
            let kept = state.nodes[node].kept.clone();
            state.nodes[node].seen = kept;
        }
        let mood = state.random.below(4);
        for naming in std::mem::take(&mut state.pending_names) {
            let kept = match mood {
                0 => true,
                1 => false,
                _ => state.random.one_in(2),
            };
            if kept {
                for (name, node) in naming {
                    match node {
                        Some(node) => state.kept_names.insert(name, node),
                        None => state.kept_names.remove(&name),
                    };
                }
            }
        }
        state.names = state.kept_names.clone();
        (state.fuse, state.dark) = (None, false);
    }

    /// The process has died, not the machine: everything is as it was seen.
    pub(crate) fn restart(&self) {
        let mut state = self.state();
        (state.fuse, state.dark) = (None, false);
    }

    pub(crate) fn set_faults(&self, faults: Faults) {
        self.state().faults = faults;
    }

    /// Every call that changes something fails, or none.
    pub(crate) fn set_broken(&self, broken: Option<io::ErrorKind>) {
        self.state().broken = broken;
    }

    /// How many calls there were.
    pub(crate) fn calls(&self) -> u64 {
        self.state().calls
    }

    /// At which of them files were removed.
    pub(crate) fn removals(&self) -> Vec<u64> {
        self.state().removals.clone()
    }

    /// How many files were synced.
    pub(crate) fn syncs(&self) -> u64 {
        self.state().syncs
    }

    /// The segments, in their order.
    pub(crate) fn segments(&self) -> Vec<String> {
        self.state().names.keys().filter(|name| name.ends_with(".log")).cloned().collect()
    }

    pub(crate) fn all_names(&self) -> Vec<String> {
        self.state().names.keys().cloned().collect()
    }

    pub(crate) fn contents(&self, name: &str) -> Vec<u8> {
        let state = self.state();
        state.nodes[state.names[name]].seen.clone()
    }

    /// Puts something else there, for good.
    pub(crate) fn replace(&self, name: &str, contents: &[u8]) {
        let mut state = self.state();
        let node = Node { seen: contents.to_vec(), kept: contents.to_vec(), pending: Vec::new() };
        state.nodes.push(node);
        let node = state.nodes.len() - 1;
        state.names.insert(name.to_owned(), node);
        state.kept_names.insert(name.to_owned(), node);
    }

    /// Changes what a file holds, for good, also for those who have it open.
    pub(crate) fn write_over(&self, name: &str, contents: &[u8]) {
        let mut state = self.state();
        let node = state.names[name];
        state.nodes[node].seen = contents.to_vec();
        state.nodes[node].kept = contents.to_vec();
    }

    /// Takes a file away, for good.
    pub(crate) fn take_away(&self, name: &str) {
        let mut state = self.state();
        state.names.remove(name);
        state.kept_names.remove(name);
    }

    /// Another disk that holds the same.
    pub(crate) fn copy(&self) -> Self {
        let seed = self.state().random.next();
        let copy = Self::new(seed);
        for name in self.all_names() {
            copy.replace(&name, &self.contents(&name));
        }
        copy
    }

    fn file(&self, node: usize) -> Box<dyn DiskFile> {
        Box::new(SimFile { disk: self.clone(), node })
    }
}

impl Disk for SimDisk {
    fn names(&self) -> io::Result<Vec<String>> {
        let mut state = self.state();
        state.tick()?;
        Ok(state.names.keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.state();
        let one_in = state.faults.name_fails;
        state.changing(one_in, io::ErrorKind::StorageFull)?;
        if let Ok(node) = state.node(name) {
            state.nodes[node].seen.clear();
            state.nodes[node].pending.push(Change::Cut(0));
            return Ok(self.file(node));
        }
        state.nodes.push(Node::default());
        let node = state.nodes.len() - 1;
        state.name(vec![(name.to_owned(), Some(node))]);
        Ok(self.file(node))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.state();
        state.tick()?;
        state.node(name).map(|node| self.file(node))
    }

    fn reopen(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        self.open(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        let one_in = state.faults.name_fails;
        state.changing(one_in, io::ErrorKind::Other)?;
        let node = state.node(from)?;
        state.name(vec![(to.to_owned(), Some(node)), (from.to_owned(), None)]);
        Ok(())
    }

    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        state.changing(0, io::ErrorKind::Other)?;
        let node = state.node(from)?;
        if state.node(to).is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        state.name(vec![(to.to_owned(), Some(node))]);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        let one_in = state.faults.name_fails;
        state.changing(one_in, io::ErrorKind::Other)?;
        state.node(name)?;
        let call = state.calls;
        state.removals.push(call);
        state.name(vec![(name.to_owned(), None)]);
        Ok(())
    }

    fn sync_names(&self) -> io::Result<()> {
        let mut state = self.state();
        let one_in = state.faults.sync_fails;
        state.changing(one_in, io::ErrorKind::Other)?;
        state.pending_names.clear();
        state.kept_names = state.names.clone();
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from("/sim").join(name)
    }
}

impl DiskFile for SimFile {
    fn bytes(&self) -> io::Result<u64> {
        let mut state = self.disk.state();
        state.tick()?;
        Ok(state.nodes[self.node].seen.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        let mut state = self.disk.state();
        state.tick()?;
        let one_in = state.faults.read_fails;
        if state.fails(one_in) {
            return Err(io::ErrorKind::Other.into());
        }
        let seen = &state.nodes[self.node].seen;
        let from = seen.len().min(at as usize);
        let read = buffer.len().min(seen.len() - from);
        buffer[..read].copy_from_slice(&seen[from..from + read]);
        Ok(read)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        let one_in = state.faults.write_full;
        let result = state.changing(one_in, io::ErrorKind::StorageFull);
        // Where it fails, some of it was written nevertheless.
        let written = match &result {
            Ok(()) => bytes.len(),
            Err(_) => state.random.below(bytes.len() as u64 + 1) as usize,
        };
        if state.broken.is_some() {
            return result;
        }
        let change = Change::Write(at as usize, bytes[..written].to_vec());
        let node = &mut state.nodes[self.node];
        change.apply(&mut node.seen);
        node.pending.push(change);
        result
    }

    fn cut(&self, bytes: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        state.changing(0, io::ErrorKind::Other)?;
        let node = &mut state.nodes[self.node];
        let change = Change::Cut(bytes as usize);
        change.apply(&mut node.seen);
        node.pending.push(change);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        drop(self.disk.gate.lock().unwrap());
        let mut state = self.disk.state();
        let one_in = state.faults.sync_fails;
        let result = state.changing(one_in, io::ErrorKind::Other);
        if state.dark {
            return result;
        }
        if result.is_err() {
            // What was pending counts as written from now on, whether it is or not.
            state.lose(self.node);
            return result;
        }
        state.syncs += 1;
        let node = &mut state.nodes[self.node];
        for change in std::mem::take(&mut node.pending) {
            change.apply(&mut node.kept);
        }
        Ok(())
    }
}
