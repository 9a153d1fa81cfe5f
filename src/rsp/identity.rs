//! Identities: who is at the other end of a connection, as its certificate says.
//!
//! What a client *says* about itself (user name, client id) never beats its certificate. `net`
//! reads the certificate and hands over [`CertificateFacts`]; no X.509 is known here.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::ids::{Nid, NidError, NidScheme};

/// What an identity may do with the two provisioning topics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// An SM-SR.
    Server,
    /// A device with an eUICC.
    Device,
    /// Anyone else: ordinary topics only.
    Client,
}

/// Who somebody is. A session belongs to an identity and a client id: another identity that
/// brings the same client id never inherits anything, and equality decides about that.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// What it may do.
    pub role: Role,
    /// The EID of a device, else the common name or whatever the listener took as name.
    pub name: Arc<str>,
    /// The device, iff the role is [`Role::Device`].
    pub nid: Option<Nid>,
    /// The password file that vouches for the name, where one does: another file, or a certificate,
    /// may call somebody else by the same name.
    pub password_file: Option<usize>,
}

/// The texts of a client certificate that can say who it belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertificateFacts {
    /// Subject alternative names of kind URI.
    pub san_uris: Vec<String>,
    /// Subject alternative names of kind DNS.
    pub san_dns: Vec<String>,
    /// Subject attributes serialNumber (2.5.4.5); not the certificate's own serial number.
    pub serial_numbers: Vec<String>,
    /// Subject attributes CN.
    pub common_names: Vec<String>,
    /// Subject attributes OU.
    pub organizational_units: Vec<String>,
    /// The whole subject as one line (RFC 4514).
    pub subject: String,
    /// The first subject alternative name that has a text, of whatever kind.
    pub alternative_name: String,
    /// Number of the certificate, in hexadecimal: as revocation lists name it.
    pub serial_hex: String,
}

/// Which text of a certificate is the name of its owner. What the owner may do does not depend on
/// it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameFrom {
    /// The EID of a device, else the common name.
    EidOrCommonName,
    /// The common name.
    CommonName,
    /// The whole subject.
    Subject,
    /// The first alternative name.
    AlternativeName,
    /// The number of the certificate.
    Serial,
}

/// Which certificates belong to servers.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(try_from = "String")]
pub enum ServerRule {
    /// `cn=…`: a common name is this text.
    CommonName(String),
    /// `ou=…`: an organizational unit is this text.
    OrganizationalUnit(String),
    /// `san=…`: a DNS name (in any case) or URI of the subject alternative names is this text.
    SubjectAltName(String),
}

/// A server rule is spelled `cn=…`, `ou=…` or `san=…`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a server rule is cn=…, ou=… or san=…")]
pub struct ServerRuleError;

/// Why a certificate names nobody: the connection is to be refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// Something that says it is an EID is none.
    #[error("the certificate's EID is none: {0}")]
    BadEid(NidError),
    /// Different EIDs in one place.
    #[error("the certificate names several EIDs")]
    Ambiguous,
    /// NUL or another control character, as used to make one name look like another.
    #[error("a name in the certificate has control characters")]
    ControlCharacter,
    /// No rule fits, there is no EID, and no common name either.
    #[error("the certificate has no name")]
    Nameless,
}

impl Identity {
    /// Who a certificate belongs to: a server when a rule fits, else the device whose EID stands
    /// in SAN URI `urn:eid:…`, in subject serialNumber or in CN, in this order, else a client.
    ///
    /// # Errors
    /// [`IdentityError`] when the certificate must not be served at all.
    pub fn from_certificate(
        facts: &CertificateFacts,
        rules: &[ServerRule],
        scheme: NidScheme,
    ) -> Result<Self, IdentityError> {
        if facts.texts().any(|text| text.chars().any(char::is_control)) {
            return Err(IdentityError::ControlCharacter);
        }
        if rules.iter().any(|rule| rule.fits(facts)) {
            return Ok(Self::server(facts.name().ok_or(IdentityError::Nameless)?));
        }
        if let Some(nid) = facts.eid(scheme)? {
            return Ok(Self::device(nid));
        }
        let name = facts.common_names.iter().find(|name| !name.is_empty());
        Ok(Self::anonymous(name.ok_or(IdentityError::Nameless)?))
    }

    /// The same by another name: a text of the certificate that the listener has chosen.
    ///
    /// # Errors
    /// [`IdentityError`] when the certificate must not be served at all, or has no such text.
    pub fn named(
        from: NameFrom,
        facts: &CertificateFacts,
        rules: &[ServerRule],
        scheme: NidScheme,
    ) -> Result<Self, IdentityError> {
        let name = match from {
            NameFrom::EidOrCommonName => return Self::from_certificate(facts, rules, scheme),
            NameFrom::CommonName => facts.common_names.iter().find(|name| !name.is_empty()),
            NameFrom::Subject => Some(&facts.subject),
            NameFrom::AlternativeName => Some(&facts.alternative_name),
            NameFrom::Serial => Some(&facts.serial_hex),
        };
        let name = name.filter(|name| !name.is_empty()).ok_or(IdentityError::Nameless)?;
        let identity = match Self::from_certificate(facts, rules, scheme) {
            // A client needs no common name when another text is its name.
            Err(IdentityError::Nameless) => Self::anonymous(name),
            identity => identity?,
        };
        Ok(Self { name: name.as_str().into(), ..identity })
    }

    /// A server.
    #[must_use]
    pub fn server(name: &str) -> Self {
        Self { role: Role::Server, name: name.into(), nid: None, password_file: None }
    }

    /// A device.
    #[must_use]
    pub fn device(nid: Nid) -> Self {
        Self {
            role: Role::Device,
            name: nid.to_string().into(),
            nid: Some(nid),
            password_file: None,
        }
    }

    /// Nobody knows who it is.
    #[must_use]
    pub fn is_anonymous(&self) -> bool {
        self.role == Role::Client && self.name.is_empty()
    }

    /// Who has shown the password of this user of this file.
    #[must_use]
    pub fn user(name: &str, password_file: usize) -> Self {
        Self { password_file: Some(password_file), ..Self::anonymous(name) }
    }

    /// A client without any right on the provisioning topics.
    #[must_use]
    pub fn anonymous(name: &str) -> Self {
        Self { role: Role::Client, name: name.into(), nid: None, password_file: None }
    }
}

impl CertificateFacts {
    fn texts(&self) -> impl Iterator<Item = &String> {
        [
            &self.san_uris,
            &self.san_dns,
            &self.serial_numbers,
            &self.common_names,
            &self.organizational_units,
        ]
        .into_iter()
        .flatten()
        .chain([&self.subject, &self.alternative_name, &self.serial_hex])
    }

    /// What to call a server: its common name, else its first alternative name or unit.
    fn name(&self) -> Option<&String> {
        [&self.common_names, &self.san_dns, &self.san_uris, &self.organizational_units]
            .into_iter()
            .flatten()
            .find(|name| !name.is_empty())
    }

    fn eid(&self, scheme: NidScheme) -> Result<Option<Nid>, IdentityError> {
        let in_uris = self.san_uris.iter().filter_map(|uri| after_prefix(uri, "urn:eid:"));
        if let Some(nid) = only_eid(in_uris, scheme)? {
            return Ok(Some(nid));
        }
        for source in [&self.serial_numbers, &self.common_names] {
            let digits = source.iter().map(String::as_str).filter(|s| looks_like_eid(s, scheme));
            if let Some(nid) = only_eid(digits, scheme)? {
                return Ok(Some(nid));
            }
        }
        Ok(None)
    }
}

impl ServerRule {
    /// Whether this is such a certificate.
    #[must_use]
    pub fn fits(&self, facts: &CertificateFacts) -> bool {
        match self {
            Self::CommonName(name) => facts.common_names.contains(name),
            Self::OrganizationalUnit(unit) => facts.organizational_units.contains(unit),
            Self::SubjectAltName(name) => {
                facts.san_dns.iter().any(|dns| dns.eq_ignore_ascii_case(name))
                    || facts.san_uris.contains(name)
            }
        }
    }
}

impl FromStr for ServerRule {
    type Err = ServerRuleError;

    fn from_str(text: &str) -> Result<Self, ServerRuleError> {
        let (kind, value) = text.split_once('=').ok_or(ServerRuleError)?;
        let value = value.trim();
        // An empty text would fit certificates that merely have an empty attribute.
        if value.is_empty() {
            return Err(ServerRuleError);
        }
        match kind.trim() {
            "cn" => Ok(Self::CommonName(value.into())),
            "ou" => Ok(Self::OrganizationalUnit(value.into())),
            "san" => Ok(Self::SubjectAltName(value.into())),
            _ => Err(ServerRuleError),
        }
    }
}

impl fmt::Display for ServerRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CommonName(value) => write!(f, "cn={value}"),
            Self::OrganizationalUnit(value) => write!(f, "ou={value}"),
            Self::SubjectAltName(value) => write!(f, "san={value}"),
        }
    }
}

impl TryFrom<String> for ServerRule {
    type Error = ServerRuleError;

    fn try_from(text: String) -> Result<Self, ServerRuleError> {
        text.parse()
    }
}

/// The one EID among texts that all claim to be one.
fn only_eid<'a>(
    mut texts: impl Iterator<Item = &'a str>,
    scheme: NidScheme,
) -> Result<Option<Nid>, IdentityError> {
    let parse = |text: &str| Nid::parse(text, scheme).map_err(IdentityError::BadEid);
    let Some(first) = texts.next().map(parse).transpose()? else { return Ok(None) };
    for text in texts {
        if parse(text)? != first {
            return Err(IdentityError::Ambiguous);
        }
    }
    Ok(Some(first))
}

fn looks_like_eid(text: &str, scheme: NidScheme) -> bool {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    match scheme {
        NidScheme::Eid => digits && text.len() == 32,
        NidScheme::Decimal => digits,
    }
}

/// What follows a prefix that is compared without regard to case (RFC 8141: `urn` and the
/// namespace are case-insensitive).
fn after_prefix<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let head = text.get(..prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then(|| &text[prefix.len()..])
}
