//! What stands in a certificate, before it has a key and a serial number.

use std::net::IpAddr;

use rcgen::{
    CertificateParams, DistinguishedName, DnType, DnValue, ExtendedKeyUsagePurpose, IsCa,
    KeyUsagePurpose, SanType,
};
use time::{Duration, OffsetDateTime};

use super::PkiError;
use crate::ids::{Nid, decimal};

/// How long a leaf is valid.
const LEAF_DAYS: i64 = 2 * 365;
/// Clocks of fresh devices run slow: certificates begin to be valid this long ago.
pub(super) const BACKDATE: Duration = Duration::HOUR;
/// X.520 bounds a common name and a serialNumber at 64 characters.
const NAME_LENGTH_MAX: usize = 64;
/// More host names than any broker has.
const HOSTS_MAX: usize = 100;
/// The subject attribute serialNumber, where GSMA and IEEE 802.1AR put a device's number.
const SERIAL_NUMBER: [u64; 4] = [2, 5, 4, 5];

/// Which side of a TLS connection the certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeafUsage {
    /// Extended key usage clientAuth: devices and SM-SR servers.
    Client,
    /// Extended key usage serverAuth: brokers.
    Server,
}

/// The contents of a leaf certificate. The fields are public so that a test can make any
/// certificate that a broker must refuse: expired, without an EID, with a wrong one.
#[derive(Clone, Debug)]
pub struct LeafTemplate {
    /// Subject CN.
    pub common_name: String,
    /// Subject OU.
    pub organizational_unit: Option<String>,
    /// Subject serialNumber (2.5.4.5), not the certificate's own serial.
    pub serial_number: Option<String>,
    /// SAN URIs.
    pub uris: Vec<String>,
    /// SAN DNS names and IP addresses.
    pub hosts: Vec<String>,
    /// Client or server.
    pub usage: LeafUsage,
    /// Valid from.
    pub not_before: OffsetDateTime,
    /// Valid until.
    pub not_after: OffsetDateTime,
}

impl LeafTemplate {
    /// A device, named by its EID in all three places where a broker may look for it.
    #[must_use]
    pub fn device(nid: Nid) -> Self {
        Self {
            serial_number: Some(nid.to_string()),
            uris: vec![format!("urn:eid:{nid}")],
            ..Self::named(nid.to_string(), LeafUsage::Client)
        }
    }

    /// An SM-SR.
    ///
    /// # Errors
    /// [`PkiError::BadName`]: the name is no DNS name, or a number, as only devices have.
    pub fn server(name: &str) -> Result<Self, PkiError> {
        check_host(name)?;
        if decimal(name).is_some() {
            return Err(bad_name(name, "a number names a device, not a server"));
        }
        Ok(Self {
            organizational_unit: Some("SM-SR".into()),
            hosts: vec![name.into()],
            ..Self::named(name.into(), LeafUsage::Client)
        })
    }

    /// A broker that devices reach under these DNS names and IP addresses.
    ///
    /// # Errors
    /// [`PkiError::BadName`]: no host, more than 100, or one that is neither name nor address.
    pub fn broker<S: AsRef<str>>(hosts: &[S]) -> Result<Self, PkiError> {
        let Some(first) = hosts.first() else {
            return Err(bad_name("", "a broker needs at least one host"));
        };
        if hosts.len() > HOSTS_MAX {
            return Err(bad_name(first.as_ref(), "more than 100 hosts"));
        }
        for host in hosts {
            check_host(host.as_ref())?;
        }
        Ok(Self {
            hosts: hosts.iter().map(|host| host.as_ref().into()).collect(),
            ..Self::named(first.as_ref().into(), LeafUsage::Server)
        })
    }

    pub(super) fn params(&self) -> Result<CertificateParams, PkiError> {
        let mut params = CertificateParams::new(self.hosts.clone())?;
        for uri in &self.uris {
            params.subject_alt_names.push(SanType::URI(uri.as_str().try_into()?));
        }
        params.distinguished_name = self.subject()?;
        params.not_before = self.not_before;
        params.not_after = self.not_after;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![match self.usage {
            LeafUsage::Client => ExtendedKeyUsagePurpose::ClientAuth,
            LeafUsage::Server => ExtendedKeyUsagePurpose::ServerAuth,
        }];
        params.use_authority_key_identifier_extension = true;
        Ok(params)
    }

    fn named(common_name: String, usage: LeafUsage) -> Self {
        let now = OffsetDateTime::now_utc();
        Self {
            common_name,
            organizational_unit: None,
            serial_number: None,
            uris: Vec::new(),
            hosts: Vec::new(),
            usage,
            not_before: now - BACKDATE,
            not_after: now + Duration::days(LEAF_DAYS),
        }
    }

    fn subject(&self) -> Result<DistinguishedName, PkiError> {
        let mut subject = DistinguishedName::new();
        subject.push(DnType::OrganizationName, "simcast");
        if let Some(unit) = &self.organizational_unit {
            subject.push(DnType::OrganizationalUnitName, unit.as_str());
        }
        if let Some(number) = &self.serial_number {
            let printable = DnValue::PrintableString(number.as_str().try_into()?);
            subject.push(DnType::CustomDnType(SERIAL_NUMBER.to_vec()), printable);
        }
        subject.push(DnType::CommonName, self.common_name.as_str());
        Ok(subject)
    }
}

/// A DNS name or an IP address; short enough for a CN, and harmless as a file name.
fn check_host(host: &str) -> Result<(), PkiError> {
    if host.parse::<IpAddr>().is_ok() {
        return Ok(());
    }
    if host.is_empty() || host.len() > NAME_LENGTH_MAX {
        return Err(bad_name(host, "1 to 64 characters, please"));
    }
    let label_is_fine = |label: &str| {
        let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
        edge(label.chars().next())
            && edge(label.chars().next_back())
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
    };
    if host.split('.').all(label_is_fine) {
        return Ok(());
    }
    Err(bad_name(host, "neither a DNS name (letters, digits, '-', '.') nor an IP address"))
}

pub(super) fn bad_name(name: &str, why: &'static str) -> PkiError {
    PkiError::BadName { name: name.into(), why }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_not_named_like_a_device() {
        assert!(LeafTemplate::server("sm-sr.example").is_ok());
        for name in ["", "89049032123451234512345678901235", "7", "../ca", "a b", "-a", "a..b"] {
            assert!(LeafTemplate::server(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn a_broker_has_names_or_addresses() {
        assert!(LeafTemplate::broker(&["localhost", "127.0.0.1", "::1"]).is_ok());
        assert!(LeafTemplate::broker::<&str>(&[]).is_err());
        assert!(LeafTemplate::broker(&["http://localhost"]).is_err());
    }
}
