//! A small certificate authority for development and rigs.
//!
//! One root, P-256 throughout, three kinds of leaf: **devices** (the EID in a SAN URI
//! `urn:eid:…`, in the subject's serialNumber and in its CN), **servers** (an SM-SR, by its
//! CN) and **brokers** (by their host names). Revoked certificates go into a CRL.
//!
//! A fleet in the field brings its own certificates; nothing in the broker depends on this
//! module. What it writes is plain X.509: `openssl verify` reads it.

mod authority;
mod files;
mod leaf;

pub use authority::{Authority, Issued};
pub use leaf::{LeafTemplate, LeafUsage};

use std::io;
use std::path::PathBuf;

/// Why the authority did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// The directory holds no authority.
    #[error("no CA in {0}: make one with `simcast certs init --dir {0}`")]
    NoAuthority(PathBuf),
    /// A file that must not be lost is in the way.
    #[error("{0} exists and is kept; give --force to replace it")]
    Exists(PathBuf),
    /// The file system refused.
    #[error("{path}: {source}")]
    File {
        /// Which file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A name that cannot be a file name or a certificate's name.
    #[error("{name:?} is no usable name: {why}")]
    BadName {
        /// The name as given.
        name: String,
        /// What is wrong with it, in words.
        why: &'static str,
    },
    /// The text is not one PEM certificate.
    #[error("not a PEM certificate")]
    NotACertificate,
    /// The certificate comes from another authority, which alone can revoke it.
    #[error("this certificate was not issued by this CA")]
    NotOurs,
    /// `ca.key` is not the key of `ca.pem`.
    #[error("ca.key does not belong to ca.pem: restore the pair from one backup")]
    KeyMismatch,
    /// A line of the list of revoked serials cannot be read.
    #[error("{path} line {line}: expected `<serial in hex> <seconds of Unix time>`")]
    BadRevokedLine {
        /// The list.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
    },
    /// The X.509 library refused the contents.
    #[error("certificate: {0}")]
    Encoding(#[from] rcgen::Error),
    /// The system gave no random numbers.
    #[error("no random numbers from the system")]
    NoRandomness,
}
