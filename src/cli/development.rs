//! Development mode: certificates and a registry made on first start, and how to try them.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use crate::ids::Nid;
use crate::pki::{Authority, PkiError};

/// Name of the SM-SR's certificate; `Config::development` trusts it as server.
const SERVER: &str = "sm-sr.dev";

/// Group of the development devices.
const GROUP: u64 = 42;

/// Leading digits of the development EIDs: an issuer number that no manufacturer has.
const EID_BODIES: [u128; 2] =
    [890_490_321_234_512_345_123_456_000_001, 890_490_321_234_512_345_123_456_000_002];

/// Why development mode cannot begin.
#[derive(Debug, thiserror::Error)]
pub(super) enum DevelopmentError {
    /// The certificates.
    #[error("cannot make development certificates: {0}")]
    Pki(#[from] PkiError),
    /// The registry file.
    #[error("cannot write {}: {error}", path.display())]
    Registry {
        /// Which file.
        path: PathBuf,
        /// The system's reason.
        error: io::Error,
    },
}

/// The files of development mode.
#[derive(Debug)]
pub(super) struct Development {
    dir: PathBuf,
    devices: Vec<Nid>,
}

impl Development {
    /// Makes what is missing in `dir`; what is there stays.
    ///
    /// # Errors
    /// [`DevelopmentError`] names the file.
    pub(super) fn prepare(dir: &Path) -> Result<Self, DevelopmentError> {
        let devices: Vec<Nid> = EID_BODIES.into_iter().filter_map(Nid::with_check_digits).collect();
        let authority = if dir.join("ca.pem").exists() {
            Authority::open(dir)?
        } else {
            Authority::create(dir)?
        };
        if !dir.join("broker.pem").exists() {
            let hosts = ["localhost", "127.0.0.1", "::1"];
            authority.issue_broker(&hosts)?.save(dir, "broker", false)?;
        }
        if !dir.join(format!("{SERVER}.pem")).exists() {
            authority.issue_server(SERVER)?.save(dir, SERVER, false)?;
        }
        for nid in &devices {
            let name = nid.to_string();
            if !dir.join(format!("{name}.pem")).exists() {
                authority.issue_device(*nid)?.save(dir, &name, false)?;
            }
        }
        let registry = dir.join("registry.csv");
        if !registry.exists() {
            std::fs::write(&registry, registry_csv(&devices))
                .map_err(|error| DevelopmentError::Registry { path: registry, error })?;
        }
        Ok(Self { dir: dir.to_owned(), devices })
    }

    /// What development mode is, and lines to paste into a shell.
    #[must_use]
    pub(super) fn banner(&self) -> String {
        let dir = self.dir.display();
        let mut text = format!(
            "\nsimcast in development mode: made for this machine alone, not for the field.\n\
             \x20 127.0.0.1:1883  plain, anonymous: ordinary topics only\n\
             \x20 127.0.0.1:8883  mutual TLS; certificates and registry in {dir}/\n\
             \x20 127.0.0.1:9883  http: /metrics /livez /readyz\n\
             What clients leave behind is kept in simcast-data/.\n\n\
             Ordinary MQTT, in two terminals:\n\
             \x20 mosquitto_sub -t hello -v\n\
             \x20 mosquitto_pub -t hello -m world\n"
        );
        if let Some(nid) = self.devices.first() {
            let tls = |name: &str| {
                format!(
                    "-h localhost -p 8883 --cafile {dir}/ca.pem --cert {dir}/{name}.pem \
                     --key {dir}/{name}.key"
                )
            };
            let (device, server) = (tls(&nid.to_string()), tls(SERVER));
            // Writing to a String cannot fail.
            let _written = write!(
                text,
                "\nA device waits for its mail, the SM-SR triggers it:\n\
                 \x20 mosquitto_sub {device} -i {nid} -q 1 -t To_eUICC -v\n\
                 \x20 mosquitto_pub {server} -q 1 -t To_eUICC \
                 -m '{{\"nid\":\"{nid}\",\"gid\":0,\"type\":\"trigger\",\"body\":null}}'\n"
            );
        }
        text
    }
}

fn registry_csv(devices: &[Nid]) -> String {
    let lines = devices.iter().map(|nid| format!("{nid},{GROUP},model=development\n"));
    std::iter::once("nid,gids,labels\n".to_owned()).chain(lines).collect()
}
