//! Who may come in and what a client may do, as pure data: read from files, asked without locks.

mod acl;
mod filter;

pub use acl::{ACL_BYTES_MAX, Acl, AclFault, AclMistake, Rights};
