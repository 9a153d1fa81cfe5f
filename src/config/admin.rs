//! `[admin]`: the HTTP side, and the tokens that open it.

use std::fmt;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{TlsVersion, address_or_off, loopback};
use crate::rsp::ServerRule;

/// Shorter tokens can be guessed.
const TOKEN_BYTES_MIN: usize = 16;
/// Longer ones are no tokens.
const TOKEN_BYTES_MAX: usize = 1_024;

/// Where health, metrics and the API are, and who may use the API. Health and metrics are for
/// everybody who gets that far.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Admin {
    /// Address and port, or `None` for `"off"`.
    #[serde(deserialize_with = "address_or_off")]
    pub bind: Option<SocketAddr>,
    /// File with the token of those who may change things. Without any token, whoever is on this
    /// machine may, or whoever has a certificate of `tls.client_ca`.
    pub token_file: Option<PathBuf>,
    /// File with the token of those who may look only.
    pub read_token_file: Option<PathBuf>,
    /// HTTPS; HTTP without it.
    pub tls: Option<AdminTls>,
}

impl Default for Admin {
    fn default() -> Self {
        Self { bind: Some(loopback(9883)), token_file: None, read_token_file: None, tls: None }
    }
}

/// `[admin.tls]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdminTls {
    /// Our certificate chain, PEM, leaf first.
    pub cert: PathBuf,
    /// The key of the leaf, PEM.
    pub key: PathBuf,
    /// The certificates that issue the operators' certificates, PEM; with it, nobody gets in
    /// without one, not even to `/livez`.
    pub client_ca: Option<PathBuf>,
    /// Revocation lists of those issuers, PEM.
    pub crl: Option<PathBuf>,
    /// Which of their certificates are those of operators; all, where none is named.
    #[serde(default)]
    pub operators: Vec<ServerRule>,
    /// Oldest version of TLS to accept.
    #[serde(default)]
    pub min_version: TlsVersion,
}

/// What somebody knows who may use the API (RFC 6750). It is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

/// What is wrong with a file of a token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// It cannot be read.
    #[error("cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    /// Its mode lets everybody on the machine read or write it.
    #[error("is open to everybody on this machine (mode {0:o}): chmod 600 or 640")]
    Open(u32),
    /// It has something else than one line with one word in it.
    #[error(
        "must hold one line of {TOKEN_BYTES_MIN} to {TOKEN_BYTES_MAX} letters, digits and signs, \
         as `openssl rand -hex 32` prints it"
    )]
    NoToken,
}

impl Token {
    /// Reads the token in a file.
    ///
    /// # Errors
    /// [`TokenError`]; the caller knows which file.
    pub fn read(path: &Path) -> Result<Self, TokenError> {
        let file = std::fs::File::open(path)?;
        let mode = file.metadata()?.permissions().mode() & 0o777;
        if mode & 0o006 != 0 {
            return Err(TokenError::Open(mode));
        }
        let mut text = String::new();
        // The end of a line, and one byte too much to know of it.
        file.take(TOKEN_BYTES_MAX as u64 + 3).read_to_string(&mut text).map_err(
            |error| match error.kind() {
                io::ErrorKind::InvalidData => TokenError::NoToken,
                _other => TokenError::Unreadable(error),
            },
        )?;
        let token = text.strip_suffix('\n').unwrap_or(&text);
        let token = token.strip_suffix('\r').unwrap_or(token);
        let fits = (TOKEN_BYTES_MIN..=TOKEN_BYTES_MAX).contains(&token.len());
        if !fits || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(TokenError::NoToken);
        }
        Ok(Self(token.to_owned()))
    }

    /// The token itself, for a header or a comparison.
    #[must_use]
    pub fn secret(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};

    use super::*;

    const GOOD: &str = "0123456789abcdef";

    fn read(text: &str, mode: u32) -> Result<Token, TokenError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        Token::read(&path)
    }

    #[test]
    fn a_token_is_one_line_of_enough_signs() {
        // case S16
        for text in [GOOD.to_owned(), format!("{GOOD}\n"), format!("{GOOD}\r\n")] {
            assert_eq!(read(&text, 0o600).unwrap().secret(), GOOD);
        }
        let long = "x".repeat(TOKEN_BYTES_MAX);
        assert_eq!(read(&long, 0o640).unwrap().secret(), long);
        for text in [
            "",
            "\n",
            "0123456789abcde\n",
            " 0123456789abcdef",
            "0123456789abcdef\n\n",
            "passwörter-genug",
        ] {
            assert!(matches!(read(text, 0o600), Err(TokenError::NoToken)), "{text:?}");
        }
        assert!(matches!(read(&format!("{long}x"), 0o600), Err(TokenError::NoToken)));
    }

    #[test]
    fn a_token_that_everybody_may_read_is_no_secret() {
        // case S16
        for mode in [0o644, 0o604, 0o602, 0o666] {
            let error = read(GOOD, mode).unwrap_err();
            assert!(matches!(error, TokenError::Open(m) if m == mode), "{error}");
        }
        for mode in [0o600, 0o400, 0o640, 0o660] {
            assert!(read(GOOD, mode).is_ok(), "{mode:o}");
        }
        let missing = Token::read(Path::new("/nowhere/token"));
        assert!(matches!(missing, Err(TokenError::Unreadable(_))));
    }

    #[test]
    fn a_token_is_not_printed() {
        // case S18
        let token = read(GOOD, 0o600).unwrap();
        assert_eq!(format!("{token:?}"), "Token");
    }
}
