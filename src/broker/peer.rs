//! Where a client is connected from.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// The other end of a connection, as logs name it and brakes count it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// An address of the network: the client's own, also behind a proxy that says it.
    Tcp(SocketAddr),
    /// A program on this machine, or behind a proxy on it, by a socket in the file system.
    Unix,
    /// The program that the broker runs in: nothing is between the two.
    Embedding,
}

impl Peer {
    /// What failed logins are counted by; nothing for a program on this machine.
    #[must_use]
    pub fn ip(self) -> Option<IpAddr> {
        match self {
            Self::Tcp(address) => Some(address.ip()),
            Self::Unix | Self::Embedding => None,
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix => f.write_str("unix"),
            Self::Embedding => f.write_str("in-process"),
        }
    }
}
