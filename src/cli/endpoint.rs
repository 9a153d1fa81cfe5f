//! How `simcast device` and `simcast server` reach a broker.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use mqttbytes::QoS;

use crate::client::ClientError;
use crate::client::envelope::Wire;
use crate::client::link::{Closed, LinkOptions};
use crate::client::tls::{TlsError, TlsIdentity};
use crate::ids::{Gid, Nid, NidError, NidScheme};

/// Where the broker is and who we are to it
#[derive(Debug, Args)]
pub(super) struct Endpoint {
    /// The broker's DNS name or IP address, as its certificate has it
    #[arg(long, default_value = "localhost")]
    host: String,
    /// The broker's port [default: 8883 with --ca, else 1883]
    #[arg(long, short)]
    port: Option<u16>,
    /// Use TLS and trust this CA (PEM)
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Our certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "key", requires = "ca")]
    cert: Option<PathBuf>,
    /// Its key (PEM)
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// User name, for brokers that ask for one
    #[arg(long)]
    user: Option<String>,
    /// File with the password; one on the command line could be read by everyone
    #[arg(long, value_name = "FILE", requires = "user")]
    password_file: Option<PathBuf>,
    /// MQTT client identifier [default: the EID of a device, "sm-sr-" and the action of a server]
    #[arg(long, value_name = "ID")]
    client_id: Option<String>,
    /// Keep the session at the broker between runs
    #[arg(long)]
    keep_session: bool,
    /// QoS of the subscription and of what is sent
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=2))]
    qos: u8,
    /// Encoding of what is sent; both are read
    #[arg(long, value_enum, default_value_t = Encoding::Json)]
    wire: Encoding,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Encoding {
    Json,
    Cbor,
}

/// Why `simcast device` or `simcast server` failed.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// The digits name no device.
    #[error("{digits:?} names no device: {why}")]
    BadNid {
        /// As given.
        digits: String,
        /// What is wrong with them.
        why: NidError,
    },
    /// A file could not be read.
    #[error("{path}: {source}")]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Certificates, keys.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The broker, or the other side.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The broker ended the connection.
    #[error("connection closed: {0}")]
    Closed(Closed),
    /// Not every member of a group has done its part.
    #[error("{done} of {wanted} devices have answered with success")]
    Incomplete {
        /// Answers with result code 0.
        done: usize,
        /// As asked for.
        wanted: usize,
    },
}

impl Endpoint {
    pub(super) fn link(&self, name: &str) -> Result<LinkOptions, EndpointError> {
        let default_port = if self.ca.is_some() { 8883 } else { 1883 };
        let id = self.client_id.as_deref().unwrap_or(name);
        let mut link = LinkOptions::new(&self.host, self.port.unwrap_or(default_port), id);
        link.clean_session = !self.keep_session;
        link.login = self.login()?;
        if let Some(ca) = &self.ca {
            let pair = self.cert.as_deref().zip(self.key.as_deref());
            link.tls = Some(TlsIdentity::from_files(ca, pair)?.config()?);
        }
        Ok(link)
    }

    pub(super) fn qos(&self) -> QoS {
        match self.qos {
            0 => QoS::AtMostOnce,
            1 => QoS::AtLeastOnce,
            _ => QoS::ExactlyOnce,
        }
    }

    pub(super) fn wire(&self) -> Wire {
        match self.wire {
            Encoding::Json => Wire::Json,
            Encoding::Cbor => Wire::Cbor,
        }
    }

    fn login(&self) -> Result<Option<(String, String)>, EndpointError> {
        let Some(user) = self.user.clone() else { return Ok(None) };
        let Some(path) = &self.password_file else { return Ok(Some((user, String::new()))) };
        let text = std::fs::read_to_string(path)
            .map_err(|source| EndpointError::Unreadable { path: path.clone(), source })?;
        Ok(Some((user, text.trim_end_matches(['\r', '\n']).to_owned())))
    }
}

/// A device by its EID, or by any number where `decimal` says so.
pub(super) fn nid(digits: &str, decimal: bool) -> Result<Nid, EndpointError> {
    let scheme = if decimal { NidScheme::Decimal } else { NidScheme::Eid };
    Nid::parse(digits, scheme)
        .map_err(|why| EndpointError::BadNid { digits: digits.to_owned(), why })
}

/// For clap.
pub(super) fn gid(digits: &str) -> Result<Gid, crate::ids::GidError> {
    digits.parse()
}
