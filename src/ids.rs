//! The names of things: clients, sessions, devices, groups, moments.
//!
//! Newtypes without behaviour beyond parsing and printing, so that no two kinds of number can be
//! mixed up. Everything else may import this module; it imports nothing of ours.

use std::fmt;
use std::num::{NonZeroU16, NonZeroU64, NonZeroU128};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

/// A moment, in milliseconds of Unix time as read from a monotonic clock (see [`crate::clock`]):
/// it never runs backwards, and it means the same after a restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// Later than any moment that will come.
    pub const NEVER: Self = Self(u64::MAX);

    /// This moment plus `wait`; saturates at [`Timestamp::NEVER`].
    #[must_use]
    pub fn after(self, wait: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)))
    }

    /// How long from `earlier` to this moment; zero when `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// An MQTT client identifier: what the client sent, or what the broker assigned.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientId(Arc<str>);

impl ClientId {
    /// The identifier as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for ClientId {
    fn from(text: &str) -> Self {
        Self(Arc::from(text))
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &self.0)
    }
}

/// Names a session in every index. A key whose session has ended resolves to nothing, never to the
/// session that took its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionKey {
    /// Position in the session table.
    pub slot: u32,
    /// How often that position has been given away.
    pub generation: u32,
}

/// A row of the store. Whoever needs what stands there holds one of these; when the last of them
/// is dropped, the row goes.
#[derive(Clone)]
pub struct Kept(Arc<dyn Row>);

/// What knows which row it is, and deletes it when it is dropped.
pub trait Row: Send + Sync {
    /// The number of the row, unlike that of any other row of the store.
    fn id(&self) -> u64;
}

impl Kept {
    /// The row of this guard.
    #[must_use]
    pub fn new(row: Arc<dyn Row>) -> Self {
        Self(row)
    }

    /// The number of the row.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.0.id()
    }
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "row {}", self.id())
    }
}

/// A packet identifier; never zero `[MQTT-2.2.1-3]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PacketId(pub NonZeroU16);

impl PacketId {
    /// `None` for zero.
    #[must_use]
    pub fn new(id: u16) -> Option<Self> {
        NonZeroU16::new(id).map(Self)
    }

    /// The identifier as it stands on the wire.
    #[must_use]
    pub fn get(self) -> u16 {
        self.0.get()
    }
}

/// How devices are numbered (`[rsp] nid`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NidScheme {
    /// EIDs: 32 decimal digits whose value is 1 modulo 97 (SGP.29, ISO 7064 MOD 97-10).
    #[default]
    Eid,
    /// Any number from 1 to 2^128 - 1.
    Decimal,
}

/// A device, by the number of its eUICC. Zero, "no single device" on the wire, is no `Nid`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Nid(NonZeroU128);

/// Why some digits name no device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NidError {
    /// Empty, a character that is no decimal digit, or a number beyond 128 bits.
    #[error("not a decimal number of at most 128 bits")]
    NotANumber,
    /// Zero names no device.
    #[error("zero names no device")]
    Zero,
    /// An EID has 32 digits and does not begin with 0.
    #[error("an EID has 32 decimal digits, the first not 0")]
    NotAnEid,
    /// The check digits do not fit (the number modulo 97 is not 1).
    #[error("wrong EID check digits")]
    CheckDigits,
}

const EID_LOWEST: u128 = 10u128.pow(31);
const EID_HIGHEST: u128 = 10u128.pow(32) - 1;

impl Nid {
    /// Before all others in their order: where a search begins.
    pub const FIRST: Self = Self(NonZeroU128::MIN);

    /// The device with this number, if the scheme allows the number.
    ///
    /// # Errors
    /// [`NidError`] says what is wrong with it.
    pub fn new(number: u128, scheme: NidScheme) -> Result<Self, NidError> {
        let nid = NonZeroU128::new(number).ok_or(NidError::Zero)?;
        if scheme == NidScheme::Eid {
            if !(EID_LOWEST..=EID_HIGHEST).contains(&number) {
                return Err(NidError::NotAnEid);
            }
            if number % 97 != 1 {
                return Err(NidError::CheckDigits);
            }
        }
        Ok(Self(nid))
    }

    /// The device named by decimal digits.
    ///
    /// # Errors
    /// [`NidError`] says what is wrong with them.
    pub fn parse(digits: &str, scheme: NidScheme) -> Result<Self, NidError> {
        let number = decimal(digits).ok_or(NidError::NotANumber)?;
        // One device, one spelling: leading zeros are no way around a comparison of texts.
        if scheme == NidScheme::Eid && number != 0 && digits.len() != 32 {
            return Err(NidError::NotAnEid);
        }
        Self::new(number, scheme)
    }

    /// The EID that begins with these 30 digits. `None` when there are fewer or more.
    #[must_use]
    pub fn with_check_digits(body: u128) -> Option<Self> {
        // ISO 7064 MOD 97-10: the whole number modulo 97 is 1.
        let shifted = body.checked_mul(100)?;
        Self::new(shifted + (98 - shifted % 97), NidScheme::Eid).ok()
    }

    /// The number itself.
    #[must_use]
    pub fn get(self) -> u128 {
        self.0.get()
    }
}

/// Decimal digits as a number: no sign, no blanks, at most 39 digits.
#[must_use]
pub fn decimal(digits: &str) -> Option<u128> {
    if digits.is_empty() || digits.len() > 39 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

impl fmt::Display for Nid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Nid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A group of devices. Zero, "no group" on the wire, is no `Gid`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Gid(NonZeroU64);

impl Gid {
    /// `None` for zero.
    #[must_use]
    pub fn new(number: u64) -> Option<Self> {
        NonZeroU64::new(number).map(Self)
    }

    /// The number itself.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0.get()
    }
}

/// A group number is a decimal number from 1 to 2^64 - 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a group is a decimal number from 1 to 18446744073709551615")]
pub struct GidError;

impl FromStr for Gid {
    type Err = GidError;

    fn from_str(digits: &str) -> Result<Self, GidError> {
        let number = decimal(digits).and_then(|n| u64::try_from(n).ok()).ok_or(GidError)?;
        Self::new(number).ok_or(GidError)
    }
}

impl fmt::Display for Gid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Gid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EID: &str = "89049032123451234512345678901235";

    #[test]
    fn an_eid_needs_32_digits_and_its_check_digits() {
        assert_eq!(Nid::parse(EID, NidScheme::Eid).unwrap().to_string(), EID);
        let wrong = "89049032123451234512345678901236";
        assert_eq!(Nid::parse(wrong, NidScheme::Eid), Err(NidError::CheckDigits));
        assert_eq!(Nid::parse("1", NidScheme::Eid), Err(NidError::NotAnEid));
        let padded = format!("0{EID}");
        assert_eq!(Nid::parse(&padded, NidScheme::Eid), Err(NidError::NotAnEid));
        assert_eq!(Nid::parse("0", NidScheme::Decimal), Err(NidError::Zero));
        for text in
            ["", "+1", "-1", " 1", "1 ", "0x1", "1e3", "340282366920938463463374607431768211456"]
        {
            assert_eq!(Nid::parse(text, NidScheme::Decimal), Err(NidError::NotANumber), "{text:?}");
        }
    }

    #[test]
    fn check_digits_make_an_eid_of_thirty_digits() {
        let nid = Nid::with_check_digits(890_490_321_234_512_345_123_456_789_012).unwrap();
        assert_eq!(nid.to_string(), EID);
        assert_eq!(Nid::with_check_digits(1), None);
        assert_eq!(Nid::with_check_digits(u128::MAX), None);
    }

    #[test]
    fn a_group_is_a_non_zero_u64() {
        assert_eq!("42".parse::<Gid>().unwrap().get(), 42);
        for text in ["0", "", "-1", "18446744073709551616"] {
            assert_eq!(text.parse::<Gid>(), Err(GidError), "{text:?}");
        }
    }

    #[test]
    fn moments_saturate() {
        assert_eq!(Timestamp(5).since(Timestamp(9)), Duration::ZERO);
        assert_eq!(Timestamp(5).after(Duration::MAX), Timestamp::NEVER);
    }
}
