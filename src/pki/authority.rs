//! The authority: a root key that signs leaves and revocation lists.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName,
    DnType, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, PublicKeyData, RevokedCertParams,
    SerialNumber,
};
use time::{Duration, OffsetDateTime};
use x509_parser::extensions::ParsedExtension;
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::revocation_list::CertificateRevocationList;

use super::PkiError;
use super::files::{self, Secrecy};
use super::leaf::{BACKDATE, LeafTemplate, bad_name};
use crate::ids::Nid;

const CA_DAYS: i64 = 10 * 365;
const CRL_DAYS: i64 = 30;
const SERIAL_BYTES: usize = 16;
const CA_CERT: &str = "ca.pem";
const CA_KEY: &str = "ca.key";
const CRL: &str = "crl.pem";
const REVOKED: &str = "revoked.txt";
const REVOKED_HEADER: &str = "# Revoked certificates: serial (hex), seconds of Unix time.\n";

/// A leaf certificate and its key, both PEM.
#[derive(Clone)]
pub struct Issued {
    /// The certificate.
    pub cert_pem: String,
    /// Its private key, PKCS #8.
    pub key_pem: String,
}

impl Issued {
    /// Writes `<dir>/<name>.pem` and, for the owner's eyes alone, `<dir>/<name>.key`.
    ///
    /// # Errors
    /// [`PkiError::Exists`] unless `force`; [`PkiError::BadName`] for what is no plain file
    /// name or one of the authority's own; [`PkiError::File`].
    pub fn save(&self, dir: &Path, name: &str, force: bool) -> Result<(), PkiError> {
        check_file_name(name)?;
        let cert = dir.join(format!("{name}.pem"));
        let key = dir.join(format!("{name}.key"));
        if force {
            files::replace(&key, &self.key_pem, Secrecy::Secret)?;
        } else {
            files::create(&key, &self.key_pem, Secrecy::Secret)?;
        }
        // A certificate without its key is worth nothing: it may be replaced.
        files::replace(&cert, &self.cert_pem, Secrecy::Public)
    }
}

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issued").field("cert_pem", &self.cert_pem).finish_non_exhaustive()
    }
}

/// A certificate authority, in memory or in a directory.
pub struct Authority {
    ca_pem: String,
    issuer: Issuer<'static, KeyPair>,
    /// The key identifier that every leaf of ours carries.
    key_id: Vec<u8>,
    /// Serial (big-endian, no leading zeros) -> moment of revocation, in Unix seconds.
    revoked: BTreeMap<Vec<u8>, i64>,
    crl_number: u64,
    dir: Option<PathBuf>,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl Authority {
    /// A new authority that lives in memory alone, for tests and demonstrations.
    ///
    /// # Errors
    /// [`PkiError::NoRandomness`], [`PkiError::Encoding`].
    pub fn in_memory() -> Result<Self, PkiError> {
        let key = KeyPair::generate()?;
        let params = ca_params()?;
        let ca_pem = params.self_signed(&key)?.pem();
        Self::from_pem(ca_pem, key)
    }

    /// A new authority in a directory, which is made if need be: `ca.pem`, `ca.key` (0600),
    /// an empty `crl.pem` and `revoked.txt`.
    ///
    /// # Errors
    /// [`PkiError::Exists`] if the directory has an authority, and [`PkiError::File`].
    pub fn create(dir: &Path) -> Result<Self, PkiError> {
        Self::create_in(dir, false)
    }

    /// Like [`Authority::create`], and an authority that is there is lost: what it issued
    /// cannot be verified any more.
    ///
    /// # Errors
    /// [`PkiError::File`].
    pub fn replace(dir: &Path) -> Result<Self, PkiError> {
        Self::create_in(dir, true)
    }

    /// The authority in a directory.
    ///
    /// # Errors
    /// [`PkiError::NoAuthority`], [`PkiError::KeyMismatch`], [`PkiError::File`].
    pub fn open(dir: &Path) -> Result<Self, PkiError> {
        let (cert, key) = (dir.join(CA_CERT), dir.join(CA_KEY));
        if !cert.exists() || !key.exists() {
            return Err(PkiError::NoAuthority(dir.into()));
        }
        let key = KeyPair::from_pem(&files::read(&key)?)?;
        let mut authority = Self::from_pem(files::read(&cert)?, key)?;
        authority.dir = Some(dir.into());
        authority.reload()?;
        Ok(authority)
    }

    /// The root certificate: what peers must trust.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// A certificate for a device.
    ///
    /// # Errors
    /// [`PkiError::NoRandomness`], [`PkiError::Encoding`].
    pub fn issue_device(&self, nid: Nid) -> Result<Issued, PkiError> {
        self.issue(&LeafTemplate::device(nid))
    }

    /// A certificate for an SM-SR.
    ///
    /// # Errors
    /// [`PkiError::BadName`] and those of [`Authority::issue`].
    pub fn issue_server(&self, name: &str) -> Result<Issued, PkiError> {
        self.issue(&LeafTemplate::server(name)?)
    }

    /// A certificate for a broker under these DNS names and IP addresses.
    ///
    /// # Errors
    /// [`PkiError::BadName`] and those of [`Authority::issue`].
    pub fn issue_broker<S: AsRef<str>>(&self, hosts: &[S]) -> Result<Issued, PkiError> {
        self.issue(&LeafTemplate::broker(hosts)?)
    }

    /// A certificate with any contents, under a new key.
    ///
    /// # Errors
    /// [`PkiError::NoRandomness`], [`PkiError::Encoding`].
    pub fn issue(&self, leaf: &LeafTemplate) -> Result<Issued, PkiError> {
        let mut params = leaf.params()?;
        params.serial_number = Some(random_serial()?);
        let key = KeyPair::generate()?;
        let cert = params.signed_by(&key, &self.issuer)?;
        Ok(Issued { cert_pem: cert.pem(), key_pem: key.serialize_pem() })
    }

    /// Revokes a certificate and gives the new CRL (written, where there is a directory).
    /// A certificate that is revoked already stays so, with its first date.
    ///
    /// # Errors
    /// [`PkiError::NotACertificate`], [`PkiError::NotOurs`], [`PkiError::File`].
    pub fn revoke(&mut self, cert_pem: &str) -> Result<String, PkiError> {
        let serial = self.serial_of(cert_pem)?;
        self.publish(Some(serial))
    }

    /// A new CRL with a higher number, good for 30 days (written, where there is a
    /// directory).
    ///
    /// # Errors
    /// [`PkiError::File`], [`PkiError::Encoding`].
    pub fn write_crl(&mut self) -> Result<String, PkiError> {
        self.publish(None)
    }

    /// How many certificates are revoked.
    #[must_use]
    pub fn revoked_count(&self) -> usize {
        self.revoked.len()
    }
}

impl Authority {
    fn create_in(dir: &Path, force: bool) -> Result<Self, PkiError> {
        fs::create_dir_all(dir).map_err(|error| files::file_error(dir, error))?;
        let mut authority = Self::in_memory()?;
        let (cert, key) = (dir.join(CA_CERT), dir.join(CA_KEY));
        if cert.exists() && !force {
            return Err(PkiError::Exists(cert));
        }
        let key_pem = authority.issuer.key().serialize_pem();
        if force {
            files::replace(&key, &key_pem, Secrecy::Secret)?;
        } else {
            files::create(&key, &key_pem, Secrecy::Secret)?;
        }
        files::replace(&cert, &authority.ca_pem, Secrecy::Public)?;
        files::replace(&dir.join(REVOKED), REVOKED_HEADER, Secrecy::Public)?;
        authority.dir = Some(dir.into());
        authority.write_crl()?;
        Ok(authority)
    }

    fn from_pem(ca_pem: String, key: KeyPair) -> Result<Self, PkiError> {
        let der = certificate_der(&ca_pem)?;
        let (_, cert) = X509Certificate::from_der(&der).map_err(|_| PkiError::NotACertificate)?;
        if cert.public_key().raw != key.subject_public_key_info() {
            return Err(PkiError::KeyMismatch);
        }
        let key_id = subject_key_id(&cert).ok_or(PkiError::NotACertificate)?;
        let issuer = Issuer::from_ca_cert_pem(&ca_pem, key)?;
        Ok(Self { ca_pem, issuer, key_id, revoked: BTreeMap::new(), crl_number: 0, dir: None })
    }

    fn serial_of(&self, cert_pem: &str) -> Result<Vec<u8>, PkiError> {
        let der = certificate_der(cert_pem)?;
        let (_, cert) = X509Certificate::from_der(&der).map_err(|_| PkiError::NotACertificate)?;
        if authority_key_id(&cert).as_deref() != Some(&self.key_id) {
            return Err(PkiError::NotOurs);
        }
        Ok(cert.tbs_certificate.serial.to_bytes_be())
    }

    /// One revocation or none, then a new list; alone in the directory meanwhile.
    fn publish(&mut self, revoke: Option<Vec<u8>>) -> Result<String, PkiError> {
        let lock = self.dir.as_ref().map(|dir| files::lock(&dir.join(CA_CERT))).transpose()?;
        self.reload()?;
        let now = OffsetDateTime::now_utc();
        if let Some(serial) = revoke {
            self.revoked.entry(serial).or_insert(now.unix_timestamp());
        }
        // Seconds of Unix time, so that the number grows even where the old list was lost.
        let seconds = u64::try_from(now.unix_timestamp()).unwrap_or(0);
        self.crl_number = self.crl_number.saturating_add(1).max(seconds);
        let crl = self.sign_crl(now)?;
        if let Some(dir) = &self.dir {
            files::replace(&dir.join(REVOKED), &self.revoked_list(), Secrecy::Public)?;
            files::replace(&dir.join(CRL), &crl, Secrecy::Public)?;
        }
        drop(lock);
        Ok(crl)
    }

    fn sign_crl(&self, now: OffsetDateTime) -> Result<String, PkiError> {
        let revoked_certs = self.revoked.iter().map(|(serial, at)| RevokedCertParams {
            serial_number: SerialNumber::from_slice(serial),
            revocation_time: OffsetDateTime::from_unix_timestamp(*at).unwrap_or(now),
            reason_code: None,
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update: now - BACKDATE,
            next_update: now + Duration::days(CRL_DAYS),
            crl_number: SerialNumber::from(self.crl_number),
            issuing_distribution_point: None,
            revoked_certs: revoked_certs.collect(),
            key_identifier_method: KeyIdMethod::PreSpecified(self.key_id.clone()),
        };
        Ok(params.signed_by(&self.issuer)?.pem()?)
    }

    /// Takes over what another process has revoked since.
    fn reload(&mut self) -> Result<(), PkiError> {
        let Some(dir) = &self.dir else { return Ok(()) };
        let list = dir.join(REVOKED);
        if list.exists() {
            self.revoked = parse_revoked(&list, &files::read(&list)?)?;
        }
        let crl = dir.join(CRL);
        if crl.exists() {
            self.crl_number = crl_number(&files::read(&crl)?).unwrap_or(0).max(self.crl_number);
        }
        Ok(())
    }

    fn revoked_list(&self) -> String {
        let mut text = String::from(REVOKED_HEADER);
        for (serial, at) in &self.revoked {
            for byte in serial {
                let _ = write!(text, "{byte:02x}"); // a String takes everything
            }
            let _ = writeln!(text, " {at}");
        }
        text
    }
}

fn ca_params() -> Result<CertificateParams, PkiError> {
    let now = OffsetDateTime::now_utc();
    let mut params = CertificateParams::new(Vec::new())?;
    let serial = random_serial()?;
    // Two authorities of one name would be mixed up by every verifier that looks names up.
    let tag: String = serial.to_bytes().iter().take(4).map(|b| format!("{b:02x}")).collect();
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, "simcast");
    name.push(DnType::CommonName, format!("simcast development CA {tag}"));
    params.serial_number = Some(serial);
    params.distinguished_name = name;
    params.not_before = now - BACKDATE;
    params.not_after = now + Duration::days(CA_DAYS);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// 128 random bits; positive, and never with a leading zero byte that encoders would drop.
fn random_serial() -> Result<SerialNumber, PkiError> {
    let mut bytes = [0; SERIAL_BYTES];
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.secure_random.fill(&mut bytes).map_err(|_| PkiError::NoRandomness)?;
    if bytes[0] == 0 {
        bytes[0] = 1;
    }
    Ok(SerialNumber::from_slice(&bytes))
}

fn check_file_name(name: &str) -> Result<(), PkiError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':');
    if name.is_empty() || name.len() > 128 || name.starts_with('.') || !name.chars().all(plain) {
        return Err(bad_name(name, "a file name of letters, digits, '-', '_', '.', please"));
    }
    if matches!(name, "ca" | "crl") {
        return Err(bad_name(name, "this file belongs to the CA itself"));
    }
    Ok(())
}

fn certificate_der(pem: &str) -> Result<Vec<u8>, PkiError> {
    match Pem::iter_from_buffer(pem.as_bytes()).next() {
        Some(Ok(block)) if block.label == "CERTIFICATE" => Ok(block.contents),
        Some(_) | None => Err(PkiError::NotACertificate),
    }
}

fn subject_key_id(cert: &X509Certificate<'_>) -> Option<Vec<u8>> {
    cert.extensions().iter().find_map(|extension| {
        if let ParsedExtension::SubjectKeyIdentifier(id) = extension.parsed_extension() {
            return Some(id.0.to_vec());
        }
        None
    })
}

fn authority_key_id(cert: &X509Certificate<'_>) -> Option<Vec<u8>> {
    cert.extensions().iter().find_map(|extension| {
        if let ParsedExtension::AuthorityKeyIdentifier(id) = extension.parsed_extension() {
            return id.key_identifier.as_ref().map(|id| id.0.to_vec());
        }
        None
    })
}

fn crl_number(pem: &str) -> Option<u64> {
    let block = Pem::iter_from_buffer(pem.as_bytes()).next()?.ok()?;
    let (_, crl) = CertificateRevocationList::from_der(&block.contents).ok()?;
    crl.crl_number().and_then(|number| u64::try_from(number).ok())
}

fn parse_revoked(path: &Path, text: &str) -> Result<BTreeMap<Vec<u8>, i64>, PkiError> {
    let mut revoked = BTreeMap::new();
    for (index, line) in text.lines().enumerate() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let bad = || PkiError::BadRevokedLine { path: path.into(), line: index + 1 };
        let (serial, at) = line.split_once(' ').ok_or_else(bad)?;
        let serial = hex(serial).ok_or_else(bad)?;
        revoked.insert(serial, at.trim().parse().map_err(|_| bad())?);
    }
    Ok(revoked)
}

fn hex(text: &str) -> Option<Vec<u8>> {
    if text.is_empty()
        || !text.len().is_multiple_of(2)
        || !text.bytes().all(|b| b.is_ascii_hexdigit())
    {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_stay_in_the_directory() {
        assert!(check_file_name("89049032123451234512345678901235").is_ok());
        for name in ["", "ca", "crl", "../x", "a/b", ".hidden", "a b", "é"] {
            assert!(check_file_name(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn a_damaged_list_of_revoked_serials_is_an_error_not_an_empty_list() {
        let path = Path::new("revoked.txt");
        assert_eq!(parse_revoked(path, "# x\n\n0aff 17\n").unwrap()[&vec![10, 255]], 17);
        for text in ["0aff", "0af 17", "zz 17", "0aff x", "+1 17"] {
            let error = parse_revoked(path, text).unwrap_err();
            assert!(matches!(error, PkiError::BadRevokedLine { line: 1, .. }), "{text:?}");
        }
    }

    #[test]
    fn debug_output_shows_no_key() {
        let issued = Authority::in_memory().unwrap().issue_server("s").unwrap();
        assert!(!format!("{issued:?}").contains("PRIVATE"));
    }
}
