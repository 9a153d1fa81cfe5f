//! A stored password: what a line of the password file has behind the colon.
//!
//! ```text
//! $6$salt$hash                                    SHA-512 of password and salt
//! $7$iterations$salt$hash                         PBKDF2 with HMAC-SHA-512
//! $argon2id$v=19$m=KiB,t=passes,p=lanes$salt$hash argon2id, as the PHC writes it
//! $scram-sha-256$iterations$salt$stored$server    StoredKey and ServerKey of RFC 5802
//! ```
//!
//! The first two are mosquitto's own, the third is that of mosquitto 2.1; the fourth is ours. What
//! a hash costs is bounded, so that no line can make a login take minutes.

use std::borrow::Cow;
use std::fmt;
use std::num::NonZeroU32;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::{digest, hmac, pbkdf2};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};

/// Most iterations of PBKDF2: about a second of one core.
const ITERATIONS_MAX: u32 = 2_000_000;
/// Fewest iterations of SCRAM (RFC 7677, section 4).
const SCRAM_ITERATIONS_MIN: u32 = 4096;
/// Most memory of argon2id, in KiB.
const ARGON2_MEMORY_KIB_MAX: u32 = 256 << 10;
/// Most memory times passes of argon2id, in KiB: about a second of one core.
const ARGON2_WORK_KIB_MAX: u32 = 1 << 20;
/// Most lanes of argon2id.
const ARGON2_LANES_MAX: u32 = 16;
/// Shortest salt of argon2id that its definition (RFC 9106) lets be, in bytes.
const ARGON2_SALT_BYTES_MIN: usize = 8;
/// Lengths of the result of argon2id, in bytes.
const ARGON2_HASH_BYTES: std::ops::RangeInclusive<usize> = 16..=64;
/// Longest salt, in bytes.
const SALT_BYTES_MAX: usize = 64;

/// How new passwords are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Argon2id with the costs of mosquitto 2.1: 46 MiB, one pass, one lane.
    Argon2id,
    /// PBKDF2 with HMAC-SHA-512: what mosquitto 2.0 reads, too.
    Sha512Pbkdf2,
    /// Keys of SCRAM-SHA-256: for clients that log in without sending their password.
    ScramSha256,
}

/// Costs that `simcast passwd` gives.
const NEW_ARGON2_MEMORY_KIB: u32 = 47_104;
const NEW_PBKDF2_ITERATIONS: NonZeroU32 = NonZeroU32::new(210_000).expect("not zero");
const NEW_SCRAM_ITERATIONS: NonZeroU32 = NonZeroU32::new(15_000).expect("not zero");

impl Scheme {
    /// Length of the salt of a new password, in bytes. Mosquitto 2.0 takes no other for `$7$`.
    #[must_use]
    pub fn salt_bytes(self) -> usize {
        match self {
            Self::Sha512Pbkdf2 => 12,
            Self::Argon2id | Self::ScramSha256 => 16,
        }
    }
}

/// A stored password. Its `Debug` shows the kind alone.
#[derive(Clone, PartialEq, Eq)]
pub struct Stored(Kind);

#[derive(Clone, PartialEq, Eq)]
enum Kind {
    Sha512 { salt: Box<[u8]>, hash: [u8; digest::SHA512_OUTPUT_LEN] },
    Pbkdf2 { iterations: NonZeroU32, salt: Box<[u8]>, hash: [u8; digest::SHA512_OUTPUT_LEN] },
    Argon2id { cost: Argon2Cost, salt: Box<[u8]>, hash: Box<[u8]> },
    Scram(ScramSecret),
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Argon2Cost {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

/// What a server keeps of a SCRAM-SHA-256 password (RFC 5802, section 3).
#[derive(Clone, PartialEq, Eq)]
pub(super) struct ScramSecret {
    pub(super) iterations: NonZeroU32,
    pub(super) salt: Box<[u8]>,
    pub(super) stored_key: [u8; digest::SHA256_OUTPUT_LEN],
    pub(super) server_key: [u8; digest::SHA256_OUTPUT_LEN],
}

/// Why a text is no stored password. Says nothing of what the text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoredFault {
    /// Nothing behind the colon.
    #[error("a user without a password")]
    Missing,
    /// Not one of the known kinds.
    #[error(
        "no hash that is known here ($6$, $7$, $argon2id$, $scram-sha-256$); is it the password?"
    )]
    Kind,
    /// Too many or too few fields, or one that is not what it should be.
    #[error("a broken hash: {0}")]
    Broken(&'static str),
    /// Checking it would take too long or too much memory.
    #[error("a hash that costs too much: {0}")]
    TooCostly(&'static str),
    /// A hash that gives no protection.
    #[error("a hash that costs too little: {0}")]
    TooCheap(&'static str),
}

type Parsed<T> = Result<T, StoredFault>;

impl Stored {
    /// Reads what stands behind the colon.
    ///
    /// # Errors
    /// [`StoredFault`] for anything whose meaning is not beyond doubt.
    pub fn parse(text: &str) -> Result<Self, StoredFault> {
        if text.is_empty() {
            return Err(StoredFault::Missing);
        }
        let mut fields = text.split('$');
        if fields.next() != Some("") {
            return Err(StoredFault::Kind);
        }
        let kind = fields.next();
        let fields: Vec<&str> = fields.collect();
        match (kind, &fields[..]) {
            (Some("6"), [salt, hash]) => {
                Ok(Self(Kind::Sha512 { salt: parse_salt(salt)?, hash: exactly(hash)? }))
            }
            (Some("7"), [iterations, salt, hash]) => {
                let iterations = parse_iterations(iterations)?;
                let (salt, hash) = (parse_salt(salt)?, exactly(hash)?);
                Ok(Self(Kind::Pbkdf2 { iterations, salt, hash }))
            }
            (Some("argon2id"), ["v=19", cost, salt, hash]) => parse_argon2id(cost, salt, hash),
            (Some("argon2id"), [version, _, _, _]) if version.starts_with("v=") => {
                Err(StoredFault::Broken("a version of argon2id that is not 19"))
            }
            (Some("scram-sha-256"), [iterations, salt, stored_key, server_key]) => {
                let iterations = parse_iterations(iterations)?;
                if iterations.get() < SCRAM_ITERATIONS_MIN {
                    return Err(StoredFault::TooCheap("SCRAM takes 4096 iterations or more"));
                }
                Ok(Self(Kind::Scram(ScramSecret {
                    iterations,
                    salt: parse_salt(salt)?,
                    stored_key: exactly(stored_key)?,
                    server_key: exactly(server_key)?,
                })))
            }
            (Some("6" | "7" | "argon2id" | "scram-sha-256"), _) => {
                Err(StoredFault::Broken("wrong number of fields"))
            }
            _ => Err(StoredFault::Kind),
        }
    }

    /// Stores a new password under a salt of [`Scheme::salt_bytes`] random bytes.
    #[must_use]
    pub fn new(scheme: Scheme, password: &[u8], salt: &[u8]) -> Self {
        let salt: Box<[u8]> = salt.into();
        Self(match scheme {
            Scheme::Argon2id => {
                let cost = Argon2Cost { memory_kib: NEW_ARGON2_MEMORY_KIB, passes: 1, lanes: 1 };
                let hash =
                    cost.hash(password, &salt, 32).expect("costs and salt that argon2id has");
                Kind::Argon2id { cost, salt, hash }
            }
            Scheme::Sha512Pbkdf2 => {
                let iterations = NEW_PBKDF2_ITERATIONS;
                let hash = pbkdf2_sha512(iterations, &salt, password);
                Kind::Pbkdf2 { iterations, salt, hash }
            }
            Scheme::ScramSha256 => {
                Kind::Scram(ScramSecret::derive(password, NEW_SCRAM_ITERATIONS, salt))
            }
        })
    }

    /// Whether this is the password. Takes as long as the hash costs, right or wrong.
    #[must_use]
    pub fn matches(&self, password: &[u8]) -> bool {
        match &self.0 {
            Kind::Sha512 { salt, hash } => {
                let mut context = digest::Context::new(&digest::SHA512);
                context.update(password);
                context.update(salt);
                same(context.finish().as_ref(), hash)
            }
            Kind::Pbkdf2 { iterations, salt, hash } => {
                same(&pbkdf2_sha512(*iterations, salt, password), hash)
            }
            Kind::Argon2id { cost, salt, hash } => {
                cost.hash(password, salt, hash.len()).is_some_and(|computed| same(&computed, hash))
            }
            Kind::Scram(secret) => {
                let ScramSecret { iterations, salt, stored_key, .. } = secret;
                let computed = ScramSecret::derive(password, *iterations, salt.clone());
                same(&computed.stored_key, stored_key)
            }
        }
    }

    /// The form in which [`Stored::parse`] reads it.
    #[must_use]
    pub fn encoded(&self) -> String {
        match &self.0 {
            Kind::Sha512 { salt, hash } => {
                format!("$6${}${}", STANDARD.encode(salt), STANDARD.encode(hash))
            }
            Kind::Pbkdf2 { iterations, salt, hash } => {
                format!("$7${iterations}${}${}", STANDARD.encode(salt), STANDARD.encode(hash))
            }
            Kind::Argon2id { cost, salt, hash } => {
                let Argon2Cost { memory_kib, passes, lanes } = cost;
                let (salt, hash) = (STANDARD_NO_PAD.encode(salt), STANDARD_NO_PAD.encode(hash));
                format!("$argon2id$v=19$m={memory_kib},t={passes},p={lanes}${salt}${hash}")
            }
            Kind::Scram(ScramSecret { iterations, salt, stored_key, server_key }) => {
                let [salt, stored, server] =
                    [&salt[..], stored_key, server_key].map(|bytes| STANDARD.encode(bytes));
                format!("$scram-sha-256${iterations}${salt}${stored}${server}")
            }
        }
    }

    /// What a SCRAM exchange needs, if the password is stored for one.
    pub(super) fn scram(&self) -> Option<&ScramSecret> {
        match &self.0 {
            Kind::Scram(secret) => Some(secret),
            Kind::Sha512 { .. } | Kind::Pbkdf2 { .. } | Kind::Argon2id { .. } => None,
        }
    }
}

impl fmt::Debug for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.0 {
            Kind::Sha512 { .. } => "sha512",
            Kind::Pbkdf2 { .. } => "sha512-pbkdf2",
            Kind::Argon2id { .. } => "argon2id",
            Kind::Scram(_) => "scram-sha-256",
        })
    }
}

impl ScramSecret {
    /// The keys of a password (RFC 5802, section 3).
    pub(super) fn derive(password: &[u8], iterations: NonZeroU32, salt: Box<[u8]>) -> Self {
        let mut salted = [0; digest::SHA256_OUTPUT_LEN];
        let algorithm = pbkdf2::PBKDF2_HMAC_SHA256;
        pbkdf2::derive(algorithm, iterations, &salt, &prepared(password), &mut salted);
        let key = hmac::Key::new(hmac::HMAC_SHA256, &salted);
        let client_key = hmac::sign(&key, b"Client Key");
        let stored_key = digest::digest(&digest::SHA256, client_key.as_ref());
        Self {
            iterations,
            salt,
            stored_key: sized(stored_key.as_ref()),
            server_key: sized(hmac::sign(&key, b"Server Key").as_ref()),
        }
    }
}

impl Argon2Cost {
    fn hash(&self, password: &[u8], salt: &[u8], hash_bytes: usize) -> Option<Box<[u8]>> {
        let Self { memory_kib, passes, lanes } = *self;
        let params = argon2::Params::new(memory_kib, passes, lanes, Some(hash_bytes)).ok()?;
        let argon2 =
            argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
        let mut hash = vec![0; hash_bytes];
        argon2.hash_password_into(password, salt, &mut hash).ok()?;
        Some(hash.into())
    }
}

/// SASLprep (RFC 4013); what it forbids stays as it is, so that any password can be stored.
fn prepared(password: &[u8]) -> Cow<'_, [u8]> {
    let text = std::str::from_utf8(password).ok();
    match text.and_then(|text| stringprep::saslprep(text).ok()) {
        Some(prepared) => Cow::Owned(prepared.into_owned().into_bytes()),
        None => Cow::Borrowed(password),
    }
}

fn pbkdf2_sha512(
    iterations: NonZeroU32,
    salt: &[u8],
    password: &[u8],
) -> [u8; digest::SHA512_OUTPUT_LEN] {
    let mut hash = [0; digest::SHA512_OUTPUT_LEN];
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA512, iterations, salt, password, &mut hash);
    hash
}

fn parse_argon2id(cost: &str, salt: &str, hash: &str) -> Parsed<Stored> {
    let fields: Vec<&str> = cost.split(',').collect();
    let [memory, passes, lanes] = fields[..] else {
        return Err(StoredFault::Broken("the costs of argon2id are m=…,t=…,p=…"));
    };
    let cost = Argon2Cost {
        memory_kib: parse_cost("m=", memory)?,
        passes: parse_cost("t=", passes)?,
        lanes: parse_cost("p=", lanes)?,
    };
    if cost.memory_kib > ARGON2_MEMORY_KIB_MAX || cost.lanes > ARGON2_LANES_MAX {
        return Err(StoredFault::TooCostly("argon2id has at most m=262144 and p=16"));
    }
    if cost.memory_kib.saturating_mul(cost.passes) > ARGON2_WORK_KIB_MAX {
        return Err(StoredFault::TooCostly("m times t of argon2id is at most 1048576"));
    }
    let (salt, hash) = (decoded(&STANDARD_NO_PAD, salt)?, decoded(&STANDARD_NO_PAD, hash)?);
    if !(ARGON2_SALT_BYTES_MIN..=SALT_BYTES_MAX).contains(&salt.len()) {
        return Err(StoredFault::Broken("the salt of argon2id has 8 to 64 bytes"));
    }
    if !ARGON2_HASH_BYTES.contains(&hash.len()) {
        return Err(StoredFault::Broken("the result of argon2id has 16 to 64 bytes"));
    }
    // What remains are costs that contradict each other, such as more lanes than memory.
    if argon2::Params::new(cost.memory_kib, cost.passes, cost.lanes, Some(hash.len())).is_err() {
        return Err(StoredFault::Broken("costs that argon2id cannot have"));
    }
    Ok(Stored(Kind::Argon2id { cost, salt: salt.into(), hash: hash.into() }))
}

fn parse_cost(name: &str, field: &str) -> Parsed<u32> {
    let digits = field.strip_prefix(name);
    let broken = StoredFault::Broken("the costs of argon2id are m=…,t=…,p=…");
    digits.and_then(number).ok_or(broken)
}

fn parse_iterations(field: &str) -> Parsed<NonZeroU32> {
    let iterations = number(field).and_then(NonZeroU32::new);
    let iterations = iterations.ok_or(StoredFault::Broken("no number of iterations"))?;
    if iterations.get() > ITERATIONS_MAX {
        return Err(StoredFault::TooCostly("at most 2000000 iterations"));
    }
    Ok(iterations)
}

fn parse_salt(field: &str) -> Parsed<Box<[u8]>> {
    let salt = decoded(&STANDARD, field)?;
    if salt.is_empty() || salt.len() > SALT_BYTES_MAX {
        return Err(StoredFault::Broken("a salt has 1 to 64 bytes"));
    }
    Ok(salt.into())
}

fn exactly<const N: usize>(field: &str) -> Parsed<[u8; N]> {
    let bytes = decoded(&STANDARD, field)?;
    bytes.try_into().map_err(|_| StoredFault::Broken("a key or hash of the wrong length"))
}

fn decoded(engine: &impl Engine, field: &str) -> Parsed<Vec<u8>> {
    engine.decode(field).map_err(|_| StoredFault::Broken("no base64"))
}

/// A decimal number without sign; one that no machine can hold is as good as the largest.
fn number(field: &str) -> Option<u32> {
    let digits = !field.is_empty() && field.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| field.parse().unwrap_or(u32::MAX))
}

/// Equality in a time that does not depend on where the difference is.
pub(super) fn same(a: &[u8], b: &[u8]) -> bool {
    verify_slices_are_equal(a, b).is_ok()
}

/// The first bytes of a digest that is at least as long.
pub(super) fn sized<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[..N]);
    array
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written by mosquitto_passwd 2.0.11 (`-H sha512`, `-H sha512-pbkdf2`); the password is
    /// `secret`.
    const SHA512: &str = "$6$mZhMjjfiGITLCOyC$nLmEkGJiw6/r95Q3DEy7bpQH4mmI+9rO95iQ/\
                          kG3ZIJvg+HcZoLUQZ9cMTbT4tTCehcG+oWvspnQQ06q7PMYaQ==";
    const PBKDF2: &str = "$7$101$aQIZG+mpg2HD8fuE$SGJue4a9wlmXfel8joiy2PZx7sUOiqRP2psOvLb/\
                          zj/UyJ3bKyV4cBTaY/z9wFG63xAxXF4aBEaWYjCP6Ynpdw==";
    /// Written by argon2-cffi, a binding of the reference library; the password is `secret`.
    const ARGON2ID: &str = "$argon2id$v=19$m=47104,t=1,p=1$W7r1ZGdFyf521sljoc0gDw$\
                            rqnR6tx63oCkdcL0aHzt1NwluU1ODV0+LLqtaNPNiFb2qg7X1WvXwbSmLxr+bHWNcLbJlMX\
                            cqLy9Y6JRmnqjEQ";

    #[test]
    fn lines_of_other_programs_are_read() {
        for line in [SHA512, PBKDF2, ARGON2ID] {
            let stored = Stored::parse(line).unwrap();
            assert!(stored.matches(b"secret"), "{line}");
            for wrong in [&b"Secret"[..], b"", b"secrets", b"secre"] {
                assert!(!stored.matches(wrong), "{line}");
            }
            assert_eq!(stored.encoded(), line);
        }
    }

    #[test]
    fn new_passwords_are_read_again() {
        for scheme in [Scheme::Argon2id, Scheme::Sha512Pbkdf2, Scheme::ScramSha256] {
            let salt = vec![7; scheme.salt_bytes()];
            let stored = Stored::new(scheme, "pä:$ss".as_bytes(), &salt);
            let again = Stored::parse(&stored.encoded()).unwrap();
            assert!(again == stored, "{scheme:?}");
            assert!(again.matches("pä:$ss".as_bytes()), "{scheme:?}");
            assert!(!again.matches(b"p"), "{scheme:?}");
        }
    }

    #[test]
    fn scram_takes_a_password_in_either_spelling() {
        let stored = Stored::new(Scheme::ScramSha256, "\u{e9}".as_bytes(), &[1; 16]);
        assert!(stored.matches("e\u{301}".as_bytes()));
        // Not fit for SASLprep, and not UTF-8: still passwords.
        for odd in [&b"a\x07"[..], b"\xff"] {
            assert!(Stored::new(Scheme::ScramSha256, odd, &[1; 16]).matches(odd));
        }
    }

    #[test]
    fn broken_hashes_have_their_faults() {
        // case S11
        let key = STANDARD.encode([0; 32]);
        let hash = STANDARD.encode([0; 64]);
        let broken = |text: &str| matches!(Stored::parse(text), Err(StoredFault::Broken(_)));
        assert_eq!(Stored::parse(""), Err(StoredFault::Missing));
        for text in ["secret", "$", "$$", "$1$abc$def", "$argon2i$v=19$m=8,t=1,p=1$x$y", "6$a$b"] {
            assert_eq!(Stored::parse(text), Err(StoredFault::Kind), "{text}");
        }
        for text in [
            "$6$",
            "$6$c2FsdA==",
            "$6$c2FsdA==$",
            "$6$c2FsdA$x",
            "$7$101$c2FsdA==$c2FsdA==",
            &format!("$6$${hash}"),
            &format!("$6$c2FsdA==${hash}$"),
            &format!("$6$c2FsdA=${hash}"),
            &format!("$7$0$c2FsdA==${hash}"),
            &format!("$7$-1$c2FsdA==${hash}"),
            &format!("$7$+1$c2FsdA==${hash}"),
            &format!("$7$$c2FsdA==${hash}"),
            &format!("$7$1 $c2FsdA==${hash}"),
            &format!("$6${}${hash}", STANDARD.encode([0; 65])),
            &format!("$scram-sha-256$4096$c2FsdA==${key}"),
            &format!("$scram-sha-256$4096$c2FsdA==${key}${hash}"),
            "$argon2id$v=16$m=8,t=1,p=1$c29tZXNhbHQ$AAAAAAAAAAAAAAAAAAAAAA",
            "$argon2id$v=19$m=8,t=1$c29tZXNhbHQ$AAAAAAAAAAAAAAAAAAAAAA",
            "$argon2id$v=19$t=1,m=8,p=1$c29tZXNhbHQ$AAAAAAAAAAAAAAAAAAAAAA",
            "$argon2id$v=19$m=8,t=0,p=1$c29tZXNhbHQ$AAAAAAAAAAAAAAAAAAAAAA",
            "$argon2id$v=19$m=8,t=1,p=4$c29tZXNhbHQ$AAAAAAAAAAAAAAAAAAAAAA",
            "$argon2id$v=19$m=8,t=1,p=1$c2FsdA$AAAAAAAAAAAAAAAAAAAAAA",
            "$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ$AAAA",
            "$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ=$AAAAAAAAAAAAAAAAAAAAAA",
        ] {
            assert!(broken(text), "{text}: {:?}", Stored::parse(text));
        }
    }

    #[test]
    fn no_line_can_make_a_login_take_minutes() {
        // case S11
        let (key, hash) = (STANDARD.encode([0; 32]), STANDARD.encode([0; 64]));
        for text in [
            &format!("$7$2000001$c2FsdA==${hash}"),
            &format!("$7$99999999999999999999$c2FsdA==${hash}"),
            &format!("$scram-sha-256$2000001$c2FsdA==${key}${key}"),
            "$argon2id$v=19$m=262145,t=1,p=1$c29tZXNhbHQ$AAAAAAAAAAAAAAAAAAAAAA",
            "$argon2id$v=19$m=262144,t=5,p=1$c29tZXNhbHQ$AAAAAAAAAAAAAAAAAAAAAA",
            "$argon2id$v=19$m=8192,t=4294967295,p=1$c29tZXNhbHQ$AAAAAAAAAAAAAAAAAAAAAA",
            "$argon2id$v=19$m=8192,t=1,p=17$c29tZXNhbHQ$AAAAAAAAAAAAAAAAAAAAAA",
        ] {
            let parsed = Stored::parse(text);
            assert!(matches!(parsed, Err(StoredFault::TooCostly(_))), "{text}: {parsed:?}");
        }
        let cheap = Stored::parse(&format!("$scram-sha-256$4095$c2FsdA==${key}${key}"));
        assert!(matches!(cheap, Err(StoredFault::TooCheap(_))), "{cheap:?}");
    }

    #[test]
    fn nothing_is_shown() {
        // case S18
        assert_eq!(format!("{:?}", Stored::parse(PBKDF2).unwrap()), "sha512-pbkdf2");
    }
}
