//! A pen with which rows are written that are CBOR, and what stands in many of them.

use std::sync::Arc;

use minicbor::bytes::ByteArray;
use minicbor::{Decode, Encode};

use super::{Pen, Table};
use crate::ids::{Nid, NidScheme};
use crate::mqtt::Message;
use crate::rsp::envelope::Tid;

/// The rows of one step.
pub(in crate::rsp) struct Sheet<'a> {
    pen: &'a mut dyn Pen,
    /// Something was deleted: the youngest of its kind, perhaps.
    pub(in crate::rsp) has_deleted: bool,
}

impl<'a> Sheet<'a> {
    pub(in crate::rsp) fn new(pen: &'a mut dyn Pen) -> Self {
        Self { pen, has_deleted: false }
    }

    pub(in crate::rsp) fn put(&mut self, table: Table, id: u64, part: u32, row: &impl Encode<()>) {
        // Writing to memory does not fail.
        self.put_bytes(table, id, part, &minicbor::to_vec(row).unwrap_or_default());
    }

    pub(in crate::rsp) fn put_bytes(&mut self, table: Table, id: u64, part: u32, bytes: &[u8]) {
        self.pen.put(table, id, part, bytes);
    }

    pub(in crate::rsp) fn delete(&mut self, table: Table, id: u64, part: u32) {
        self.has_deleted = true;
        self.pen.delete(table, id, part);
    }

    pub(in crate::rsp) fn delete_all(&mut self, table: Table, id: u64) {
        self.has_deleted = true;
        self.pen.delete_all(table, id);
    }

    pub(in crate::rsp) fn message(&mut self, message: &Arc<Message>) -> u64 {
        self.pen.message(message)
    }

    pub(in crate::rsp) fn bury(&mut self, message: Arc<Message>) {
        self.pen.bury(message);
    }
}

/// A nid: 16 bytes; zero is nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub(in crate::rsp) struct NidRow(#[n(0)] ByteArray<16>);

impl From<Option<Nid>> for NidRow {
    fn from(nid: Option<Nid>) -> Self {
        Self(nid.map_or(0, Nid::get).to_be_bytes().into())
    }
}

impl From<Nid> for NidRow {
    fn from(nid: Nid) -> Self {
        Some(nid).into()
    }
}

impl NidRow {
    /// Whoever is registered has a number that is permitted.
    pub(in crate::rsp) fn nid(self) -> Option<Nid> {
        Nid::new(u128::from_be_bytes(*self.0), NidScheme::Decimal).ok()
    }
}

/// A transaction id.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(in crate::rsp) struct TidRow {
    #[n(0)]
    number: Option<ByteArray<16>>,
    #[n(1)]
    text: Option<String>,
}

impl From<&Tid> for TidRow {
    fn from(tid: &Tid) -> Self {
        match tid {
            Tid::Number(number) => Self { number: Some(number.to_be_bytes().into()), text: None },
            Tid::Text(text) => Self { number: None, text: Some(text.to_string()) },
        }
    }
}

impl TidRow {
    pub(in crate::rsp) fn tid(self) -> Option<Tid> {
        match self {
            Self { text: Some(text), .. } => Some(Tid::Text(text.into())),
            Self { number, .. } => number.map(|bytes| Tid::Number(i128::from_be_bytes(*bytes))),
        }
    }
}
