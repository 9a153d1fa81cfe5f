//! `simcast certs`: a small CA for development and rigs.
#![allow(clippy::print_stdout, reason = "the output of a command")]

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use crate::ids::{Nid, NidScheme};
use crate::pki::{Authority, PkiError};

/// Make a small CA and certificates for devices, SM-SR servers and brokers
///
/// For development and rigs. Everything stays in one directory: ca.pem is what the others
/// trust, <name>.pem and <name>.key are one identity, crl.pem lists what is revoked.
#[derive(Debug, Args)]
#[command(after_help = "\
Example, from nothing to a device that connects:
  simcast certs init   --dir pki
  simcast certs issue  --dir pki --role broker --host localhost --host 127.0.0.1
  simcast certs issue  --dir pki --role server --name sm-sr.example
  simcast certs issue  --dir pki --role device --nid 89049032123451234512345678901235
  simcast certs revoke --dir pki pki/89049032123451234512345678901235.pem")]
pub struct Certs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    Init(Init),
    Issue(Issue),
    Revoke(Revoke),
    Crl(Crl),
}

/// Make the CA: ca.pem, ca.key and an empty crl.pem
///
/// P-256, valid for ten years. The key is readable by its owner alone.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  simcast certs init --dir pki")]
struct Init {
    #[command(flatten)]
    place: Place,
    /// Replace a CA that is there: certificates it has issued become worthless
    #[arg(long)]
    force: bool,
}

/// Issue a certificate and its key
///
/// P-256, valid for two years. A device carries its EID in the SAN (urn:eid:…), in the
/// subject's serialNumber and in its CN; an SM-SR carries its name as CN and OU=SM-SR; a
/// broker carries its hosts.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  simcast certs issue --role device --nid 89049032123451234512345678901235
  simcast certs issue --role server --name sm-sr.example
  simcast certs issue --role broker --host localhost --host 127.0.0.1 --host ::1")]
struct Issue {
    #[command(flatten)]
    place: Place,
    /// What the certificate is for
    #[arg(long, value_enum)]
    role: Role,
    /// The device's EID: 32 digits with valid check digits
    #[arg(long, value_name = "EID", required_if_eq("role", "device"))]
    nid: Option<String>,
    /// The device is numbered by any number of up to 128 bits instead of an EID
    #[arg(long, requires = "nid")]
    decimal: bool,
    /// The SM-SR's name
    #[arg(long, required_if_eq("role", "server"))]
    name: Option<String>,
    /// A DNS name or IP address that clients use for the broker; may be repeated
    #[arg(long, required_if_eq("role", "broker"))]
    host: Vec<String>,
    /// Name of the two files, without ending [default: the EID, the name, or "broker"]
    #[arg(long, value_name = "NAME")]
    out: Option<String>,
    /// Replace a key of this name
    #[arg(long)]
    force: bool,
}

/// Revoke certificates and write a new crl.pem
///
/// The files must be certificates of this CA. The broker refuses them once it has read the
/// new list, which it does at start.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  simcast certs revoke --dir pki pki/stolen-device.pem")]
struct Revoke {
    #[command(flatten)]
    place: Place,
    /// Certificates (PEM)
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// Write a new crl.pem before the old one runs out
///
/// A list is good for 30 days; brokers refuse to trust an older one.
#[derive(Debug, Args)]
#[command(after_help = "Example, weekly from cron:\n  simcast certs crl --dir /etc/simcast/pki")]
struct Crl {
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, Args)]
struct Place {
    /// The CA's directory
    #[arg(long, value_name = "D", default_value = "certs/dev")]
    dir: PathBuf,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Role {
    /// An IoT device with an eUICC
    Device,
    /// An SM-SR (eIM)
    Server,
    /// A broker
    Broker,
}

/// Why a `simcast certs` command failed.
#[derive(Debug, thiserror::Error)]
pub enum CertsError {
    /// The digits name no device.
    #[error("--nid {digits}: {why}")]
    BadNid {
        /// As given.
        digits: String,
        /// What is wrong with them.
        why: crate::ids::NidError,
    },
    /// A file could not be read.
    #[error("{path}: {source}")]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A certificate could not be revoked.
    #[error("{path}: {source}")]
    NotRevoked {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: PkiError,
    },
    /// The authority refused.
    #[error(transparent)]
    Pki(#[from] PkiError),
}

impl Certs {
    /// Does what the command line says.
    ///
    /// # Errors
    /// [`CertsError`], worded for the terminal.
    pub fn run(self) -> Result<(), CertsError> {
        match self.action {
            Action::Init(init) => init.run(),
            Action::Issue(issue) => issue.run(),
            Action::Revoke(revoke) => revoke.run(),
            Action::Crl(crl) => crl.run(),
        }
    }
}

impl Init {
    fn run(self) -> Result<(), CertsError> {
        let dir = &self.place.dir;
        if self.force {
            Authority::replace(dir)?;
        } else {
            Authority::create(dir)?;
        }
        println!("CA made: {0}/ca.pem, {0}/ca.key, {0}/crl.pem", dir.display());
        Ok(())
    }
}

impl Issue {
    fn run(self) -> Result<(), CertsError> {
        let authority = Authority::open(&self.place.dir)?;
        let (issued, name) = match self.role {
            Role::Device => {
                let nid = self.device()?;
                (authority.issue_device(nid)?, nid.to_string())
            }
            Role::Server => {
                let name = self.name.unwrap_or_default();
                (authority.issue_server(&name)?, name)
            }
            Role::Broker => (authority.issue_broker(&self.host)?, "broker".into()),
        };
        let name = self.out.unwrap_or(name);
        issued.save(&self.place.dir, &name, self.force)?;
        println!("issued: {0}/{name}.pem, {0}/{name}.key", self.place.dir.display());
        Ok(())
    }

    fn device(&self) -> Result<Nid, CertsError> {
        let digits = self.nid.clone().unwrap_or_default();
        let scheme = if self.decimal { NidScheme::Decimal } else { NidScheme::Eid };
        Nid::parse(&digits, scheme).map_err(|why| CertsError::BadNid { digits, why })
    }
}

impl Revoke {
    fn run(self) -> Result<(), CertsError> {
        let mut authority = Authority::open(&self.place.dir)?;
        for path in self.files {
            let pem = std::fs::read_to_string(&path)
                .map_err(|source| CertsError::Unreadable { path: path.clone(), source })?;
            if let Err(source) = authority.revoke(&pem) {
                return Err(CertsError::NotRevoked { path, source });
            }
            println!("revoked: {}", path.display());
        }
        report_crl(&authority, &self.place);
        Ok(())
    }
}

impl Crl {
    fn run(self) -> Result<(), CertsError> {
        let mut authority = Authority::open(&self.place.dir)?;
        authority.write_crl()?;
        report_crl(&authority, &self.place);
        Ok(())
    }
}

fn report_crl(authority: &Authority, place: &Place) {
    let (count, dir) = (authority.revoked_count(), place.dir.display());
    println!("{dir}/crl.pem: {count} revoked, good for 30 days");
}
