//! Password files: one user a line, `name:hash`, as mosquitto writes and reads them.
//!
//! Reading is strict where mosquitto's is not: a line that is broken refuses the whole file, so
//! that no mistake can make a user without a password or lose one silently.

use std::fmt;

use aws_lc_rs::hmac;

use super::stored::{ScramSecret, Stored, StoredFault, sized};

/// Largest file, in bytes: about a million users.
pub const PASSWORD_FILE_BYTES_MAX: usize = 256 << 20;

/// Mistakes that are named; a file with more has other problems.
const MISTAKES_MAX: usize = 100;

/// Longest user name, in bytes: the longest string of MQTT.
const USER_NAME_BYTES_MAX: usize = 65_535;

/// What some editors put before UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// A broken line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PasswordMistake {
    /// From 1.
    pub line: usize,
    /// What is wrong with it.
    pub fault: PasswordFault,
}

/// What is wrong with a line. Says nothing of what stands in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PasswordFault {
    /// [`PASSWORD_FILE_BYTES_MAX`]
    #[error("the file is larger than {PASSWORD_FILE_BYTES_MAX} bytes")]
    FileTooLarge,
    /// The first three bytes are EF BB BF.
    #[error("the file begins with a byte order mark; save it as plain UTF-8")]
    ByteOrderMark,
    /// Bytes that are no text.
    #[error("not UTF-8")]
    NotUtf8,
    /// Neither `name:hash` nor a comment.
    #[error("no colon: a user is `name:hash`, a comment begins with `#`")]
    NoColon,
    /// Nothing before the colon.
    #[error("no user name before the colon")]
    NoName,
    /// Longer than MQTT can say it.
    #[error("the user name has more than {USER_NAME_BYTES_MAX} bytes")]
    LongName,
    /// A character that no terminal should see.
    #[error("a control character in the user name")]
    ControlCharacter,
    /// The name stands in an earlier line.
    #[error("the user stands in line {0} already")]
    Duplicate(usize),
    /// What stands behind the colon.
    #[error(transparent)]
    Stored(#[from] StoredFault),
}

/// A secret of the process: what a stranger is told about names that are in no file is derived
/// from it, so that it is the same whenever somebody asks, and cannot be told from the truth.
#[derive(Clone, Debug)]
pub struct Disguise(hmac::Key);

impl Disguise {
    /// From 32 random bytes.
    #[must_use]
    pub fn new(random: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA512, random))
    }

    fn of(&self, purpose: &[u8], name: &[u8]) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(purpose);
        context.update(name);
        context.sign()
    }

    fn number(&self, purpose: &[u8], name: &[u8]) -> u64 {
        u64::from_be_bytes(sized(self.of(purpose, name).as_ref()))
    }
}

/// The users of a password file.
pub struct Passwords {
    /// By name.
    users: Vec<(Box<str>, Stored)>,
    /// Positions of the users that may log in by SCRAM.
    scram: Vec<usize>,
    disguise: Disguise,
}

impl Passwords {
    /// Reads a file.
    ///
    /// # Errors
    /// Every broken line; then there are no users at all.
    pub fn parse(bytes: &[u8], disguise: &Disguise) -> Result<Self, Vec<PasswordMistake>> {
        if bytes.len() > PASSWORD_FILE_BYTES_MAX {
            return Err(vec![PasswordMistake { line: 1, fault: PasswordFault::FileTooLarge }]);
        }
        let mut mistakes = Vec::new();
        let mut users = Vec::new();
        for (i, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
            match parse_line(i, line) {
                Ok(Some((name, stored))) => users.push((name, stored, i + 1)),
                Ok(None) => {}
                Err(fault) => mistakes.push(PasswordMistake { line: i + 1, fault }),
            }
        }
        users.sort_by(|(a, _, i), (b, _, j)| a.cmp(b).then(i.cmp(j)));
        for pair in users.windows(2).filter(|pair| pair[0].0 == pair[1].0) {
            let fault = PasswordFault::Duplicate(pair[0].2);
            mistakes.push(PasswordMistake { line: pair[1].2, fault });
        }
        if !mistakes.is_empty() {
            mistakes.sort_by_key(|mistake| mistake.line);
            mistakes.truncate(MISTAKES_MAX);
            return Err(mistakes);
        }
        let users: Vec<_> = users.into_iter().map(|(name, stored, _)| (name, stored)).collect();
        let with_scram = users.iter().enumerate().filter(|(_, user)| user.1.scram().is_some());
        let scram = with_scram.map(|(i, _)| i).collect();
        Ok(Self { users, scram, disguise: disguise.clone() })
    }

    /// Whether the user has this password. An unknown user takes as long as a known one with a
    /// wrong password: as one of the file, always the same for the same name.
    #[must_use]
    pub fn check(&self, name: &str, password: &[u8]) -> bool {
        if let Some(stored) = self.find(name) {
            return stored.matches(password);
        }
        if let Some(at) = self.stand_in(name, self.users.len()) {
            let _same_work = self.users[at].1.matches(password);
        }
        false
    }

    /// A mark of what stands in the file about a user; another password, another mark. `None`:
    /// nothing does.
    #[must_use]
    pub fn mark(&self, name: &str) -> Option<u64> {
        let stored = self.find(name)?;
        Some(self.disguise.number(b"mark", stored.encoded().as_bytes()))
    }

    /// Whether any user may log in by SCRAM.
    #[must_use]
    pub fn offers_scram(&self) -> bool {
        !self.scram.is_empty()
    }

    /// Number of users.
    #[must_use]
    pub fn len(&self) -> usize {
        self.users.len()
    }

    /// Whether nobody can log in.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    /// What a SCRAM exchange needs of a user, and whether it is the truth: of a user that does not
    /// exist, or not for SCRAM, something believable.
    pub(super) fn scram(&self, name: &str) -> Option<(ScramSecret, bool)> {
        if let Some(secret) = self.find(name).and_then(Stored::scram) {
            return Some((secret.clone(), true));
        }
        let at = self.stand_in(name, self.scram.len())?;
        let mut secret = self.users[self.scram[at]].1.scram()?.clone();
        let random = |purpose: &[u8]| self.disguise.of(purpose, name.as_bytes());
        let len = secret.salt.len();
        secret.salt.copy_from_slice(&random(b"salt").as_ref()[..len]);
        secret.stored_key = sized(random(b"stored key").as_ref());
        secret.server_key = sized(random(b"server key").as_ref());
        Some((secret, false))
    }

    fn find(&self, name: &str) -> Option<&Stored> {
        let at = self.users.binary_search_by(|(known, _)| (**known).cmp(name)).ok()?;
        Some(&self.users[at].1)
    }

    /// Which of `count` users an unknown one is treated as.
    fn stand_in(&self, name: &str, count: usize) -> Option<usize> {
        let number = self.disguise.number(b"stand-in", name.as_bytes());
        let at = number.checked_rem(u64::try_from(count).ok()?)?;
        usize::try_from(at).ok()
    }
}

impl fmt::Debug for Passwords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Passwords").field("users", &self.users.len()).finish_non_exhaustive()
    }
}

fn parse_line(number: usize, line: &[u8]) -> Result<Option<(Box<str>, Stored)>, PasswordFault> {
    if number == 0 && line.starts_with(BYTE_ORDER_MARK) {
        return Err(PasswordFault::ByteOrderMark);
    }
    if line.starts_with(b"#") || line.trim_ascii().is_empty() {
        return Ok(None);
    }
    let line = std::str::from_utf8(line).map_err(|_| PasswordFault::NotUtf8)?;
    let (name, hash) = line.split_once(':').ok_or(PasswordFault::NoColon)?;
    // Blanks around both are nobody's, as in mosquitto; the CR of CRLF is one of them.
    let name = name.trim_ascii();
    check_user_name(name)?;
    Ok(Some((name.into(), Stored::parse(hash.trim_ascii())?)))
}

/// Whether this can be the name of a user in a password file.
///
/// # Errors
/// [`PasswordFault`] says why not.
pub fn check_user_name(name: &str) -> Result<(), PasswordFault> {
    if name.is_empty() {
        return Err(PasswordFault::NoName);
    }
    if name.len() > USER_NAME_BYTES_MAX {
        return Err(PasswordFault::LongName);
    }
    if name.chars().any(char::is_control) {
        return Err(PasswordFault::ControlCharacter);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Scheme;

    fn line(name: &str, scheme: Scheme) -> String {
        let stored = Stored::new(scheme, name.as_bytes(), &vec![1; scheme.salt_bytes()]);
        format!("{name}:{}\n", stored.encoded())
    }

    /// Users whose password is their name.
    fn cheap(name: &str) -> String {
        let hash = "$7$1$c2FsdHNhbHRzYWx0$";
        let mut digest = [0; 64];
        let algorithm = aws_lc_rs::pbkdf2::PBKDF2_HMAC_SHA512;
        let once = std::num::NonZeroU32::MIN;
        aws_lc_rs::pbkdf2::derive(algorithm, once, b"saltsaltsalt", name.as_bytes(), &mut digest);
        let digest = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, digest);
        format!("{name}:{hash}{digest}")
    }

    fn parse(text: impl AsRef<[u8]>) -> Result<Passwords, Vec<PasswordMistake>> {
        Passwords::parse(text.as_ref(), &Disguise::new(&[3; 32]))
    }

    #[test]
    fn users_have_their_own_passwords() {
        let (ann, bob) = (cheap("ann"), cheap("bob"));
        let text = format!("# comment: with colon\n\n \t\n{bob}\r\n  {ann}  \n\r\n");
        let users = parse(text).unwrap();
        assert_eq!(users.len(), 2);
        for (name, password, right) in [
            ("ann", "ann", true),
            ("bob", "bob", true),
            ("ann", "bob", false),
            ("ann", "", false),
            ("", "", false),
            ("carol", "carol", false),
            ("Ann", "Ann", false),
            ("# comment", " with colon", false),
        ] {
            assert_eq!(users.check(name, password.as_bytes()), right, "{name} {password}");
        }
        assert!(!users.offers_scram());
        assert!(parse("").unwrap().is_empty());
        assert!(!parse("").unwrap().check("", b""), "nobody is not anybody");
    }

    #[test]
    fn every_broken_line_is_named_and_refuses_the_file() {
        // case S11
        let (ann, bob) = (cheap("ann"), cheap("bob"));
        let nul = ann.replace("ann", "a\0n");
        let text = format!(
            "{ann}\nno colon\n:{hash}\n  :{hash}\n{ann}\ncarol:\ndave:secret\n{bob}\n #x\n{nul}\n",
            hash = &ann[4..]
        );
        let mistakes = parse(text).unwrap_err();
        let found: Vec<_> = mistakes.iter().map(|m| (m.line, m.fault.clone())).collect();
        assert_eq!(
            found,
            [
                (2, PasswordFault::NoColon),
                (3, PasswordFault::NoName),
                (4, PasswordFault::NoName),
                (5, PasswordFault::Duplicate(1)),
                (6, StoredFault::Missing.into()),
                (7, StoredFault::Kind.into()),
                (9, PasswordFault::NoColon),
                (10, PasswordFault::ControlCharacter),
            ]
        );
        for mistake in &mistakes {
            assert!(!format!("{mistake:?} {}", mistake.fault).contains("secret"), "case S18");
        }
        let odd = |bytes: &[u8]| parse(bytes).unwrap_err()[0].fault.clone();
        let bom = [BYTE_ORDER_MARK, ann.as_bytes()].concat();
        assert_eq!(odd(&bom), PasswordFault::ByteOrderMark);
        assert_eq!(odd(&[b"\xFFx", ann.as_bytes()].concat()), PasswordFault::NotUtf8);
        let long = cheap(&"x".repeat(USER_NAME_BYTES_MAX + 1));
        assert_eq!(odd(long.as_bytes()), PasswordFault::LongName);
    }

    #[test]
    fn a_half_written_line_is_a_broken_one() {
        // case S11
        let ann = line("ann", Scheme::ScramSha256);
        let ann = ann.trim_end();
        assert!(parse(ann).is_ok(), "the last line needs no end");
        for len in 1..ann.len() {
            assert!(parse(&ann[..len]).is_err(), "{}", &ann[..len]);
        }
    }

    #[test]
    fn a_changed_line_has_another_mark() {
        let before = parse(format!("{}\n{}\n", cheap("ann"), cheap("bob"))).unwrap();
        let changed = cheap("ann").replace("$7$1$", "$7$2$");
        let after = parse(format!("{changed}\n{}\n", cheap("bob"))).unwrap();
        assert_eq!(before.mark("bob"), after.mark("bob"));
        assert_ne!(before.mark("ann"), after.mark("ann"));
        assert!(before.mark("ann").is_some() && before.mark("carol").is_none());
    }

    #[test]
    fn an_unknown_user_of_scram_looks_like_a_known_one() {
        let text = line("ann", Scheme::ScramSha256) + &line("bob", Scheme::Sha512Pbkdf2);
        let users = parse(&text).unwrap();
        assert!(users.offers_scram());
        let (ann, true_ann) = users.scram("ann").unwrap();
        assert!(true_ann);
        for name in ["bob", "carol"] {
            let (fake, true_fake) = users.scram(name).unwrap();
            let (again, _) = users.scram(name).unwrap();
            assert!(!true_fake && fake == again, "the same whenever somebody asks");
            assert_eq!((fake.iterations, fake.salt.len()), (ann.iterations, ann.salt.len()));
            assert_ne!(fake.salt, ann.salt);
            let other = Passwords::parse(text.as_bytes(), &Disguise::new(&[4; 32])).unwrap();
            assert_ne!(other.scram(name).unwrap().0.salt, fake.salt);
        }
        assert!(parse(cheap("bob")).unwrap().scram("bob").is_none(), "not offered at all");
    }

    proptest::proptest! {
        #[test]
        fn garbage_makes_no_users(bytes: Vec<u8>) {
            // A user needs a hash, and no random text is one.
            if let Ok(users) = parse(bytes) {
                proptest::prop_assert!(users.is_empty());
            }
        }

        #[test]
        fn a_flipped_bit_never_opens_another_door(at in 0_usize..200, bit in 0..8_u32) {
            let mut bytes = cheap("ann").into_bytes();
            let at = at % bytes.len();
            bytes[at] ^= 1_u8 << bit;
            if let Ok(users) = parse(&bytes) {
                for (name, password) in [("ann", ""), ("", ""), ("ann", "wrong")] {
                    proptest::prop_assert!(!users.check(name, password.as_bytes()));
                }
            }
        }
    }
}
