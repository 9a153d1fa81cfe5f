//! stub until the real one is merged
use std::fmt;
use std::sync::Arc;
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub table: u8,
    pub id: u64,
    pub part: u32,
}
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    Now,
    Lazy,
}
pub type Commit = u64;
#[derive(Debug, Default)]
pub struct Changes {
    ops: Vec<(Key, Option<Vec<u8>>)>,
}
impl Changes {
    pub fn put(&mut self, key: Key, value: &[u8]) -> Result<(), ()> {
        self.ops.push((key, Some(value.to_vec())));
        Ok(())
    }
    pub fn delete(&mut self, key: Key) -> Result<(), ()> {
        self.ops.push((key, None));
        Ok(())
    }
    pub fn delete_all(&mut self, _table: u8, _id: u64) -> Result<(), ()> {
        Ok(())
    }
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }
}
pub trait Store: Send + Sync + fmt::Debug {
    fn commit(&self, changes: Changes, urgency: Urgency) -> Commit;
    fn durable(&self) -> Commit;
    fn is_durable(&self) -> bool;
}
#[derive(Debug)]
pub struct Memory;
impl Store for Memory {
    fn commit(&self, _changes: Changes, _urgency: Urgency) -> Commit {
        0
    }
    fn durable(&self) -> Commit {
        0
    }
    fn is_durable(&self) -> bool {
        false
    }
}
pub fn memory() -> Arc<dyn Store> {
    Arc::new(Memory)
}
