//! Durations and sizes as people write them: `30s`, `7d`, `256KiB`.
//!
//! These are functions for serde's `deserialize_with` and `serialize_with`, so that the rest of the
//! program sees plain [`Duration`]s and numbers of bytes.

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use serde::de::{Deserializer, Error, Unexpected, Visitor};
use serde::ser::Serializer;

const DURATION: &str = "a duration such as `250ms`, `30s`, `5m`, `2h` or `7d`";
const SIZE: &str = "a size such as `4096`, `256KiB`, `2MiB` or `1GiB`";

/// Reads a duration, see [`parse_duration`].
///
/// # Errors
/// The source's, when it is none.
pub fn duration<'de, D: Deserializer<'de>>(source: D) -> Result<Duration, D::Error> {
    source.deserialize_str(DurationVisitor)
}

/// Reads a duration in a key that may be absent.
///
/// # Errors
/// The source's, when it is none.
pub fn optional_duration<'de, D>(source: D) -> Result<Option<Duration>, D::Error>
where
    D: Deserializer<'de>,
{
    duration(source).map(Some)
}

/// A number of bytes, as an integer or with a unit, see [`parse_size`]; it has to fit into `N`.
///
/// # Errors
/// The source's, when it is none.
pub fn size<'de, D, N>(source: D) -> Result<N, D::Error>
where
    D: Deserializer<'de>,
    N: TryFrom<u64>,
{
    source.deserialize_any(SizeVisitor(PhantomData))
}

/// Reads a number of bytes in a key that may be absent.
///
/// # Errors
/// The source's, when it is none.
pub fn optional_size<'de, D>(source: D) -> Result<Option<usize>, D::Error>
where
    D: Deserializer<'de>,
{
    size(source).map(Some)
}

/// Writes a duration as [`duration`] reads it.
///
/// # Errors
/// The target's.
#[allow(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
pub fn write_duration<S: Serializer>(duration: &Duration, target: S) -> Result<S::Ok, S::Error> {
    target.collect_str(&Written(*duration))
}

/// Writes a duration that may be absent as [`optional_duration`] reads it.
///
/// # Errors
/// The target's.
#[allow(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
pub fn write_optional_duration<S: Serializer>(
    duration: &Option<Duration>,
    target: S,
) -> Result<S::Ok, S::Error> {
    match duration {
        Some(duration) => target.collect_str(&Written(*duration)),
        None => target.serialize_none(),
    }
}

/// A duration as people write it: the largest unit that tells it in whole numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written(pub Duration);

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.as_millis();
        let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")];
        let whole = units.iter().find(|(unit, _)| ms.is_multiple_of(*unit) && ms > 0);
        match whole {
            Some((unit, name)) => write!(f, "{}{name}", ms / unit),
            None if ms == 0 => f.write_str("0s"),
            None => write!(f, "{ms}ms"),
        }
    }
}

/// A whole number and its unit: `ms`, `s`, `m`, `h` or `d`. `None` for anything else.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = number_and_unit(text)?;
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(unit_ms).map(Duration::from_millis)
}

/// A whole number of bytes, or of `KiB`, `MiB` or `GiB` (1024-fold each). `None` for anything else.
#[must_use]
pub fn parse_size(text: &str) -> Option<u64> {
    let (number, unit) = number_and_unit(text)?;
    let unit_bytes = match unit {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.checked_mul(unit_bytes)
}

fn number_and_unit(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    Some((digits.parse().ok()?, unit))
}

struct DurationVisitor;

impl Visitor<'_> for DurationVisitor {
    type Value = Duration;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(DURATION)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Duration, E> {
        parse_duration(text).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }
}

struct SizeVisitor<N>(PhantomData<N>);

impl<N: TryFrom<u64>> Visitor<'_> for SizeVisitor<N> {
    type Value = N;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(SIZE)?;
        write!(f, " of at most {} bits", size_of::<N>() * 8)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<N, E> {
        parse_size(text)
            .and_then(|bytes| N::try_from(bytes).ok())
            .ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }

    fn visit_u64<E: Error>(self, bytes: u64) -> Result<N, E> {
        N::try_from(bytes).map_err(|_| E::invalid_value(Unexpected::Unsigned(bytes), &self))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<N, E> {
        let Ok(bytes) = u64::try_from(number) else {
            return Err(E::invalid_value(Unexpected::Signed(number), &self));
        };
        self.visit_u64(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit() {
        assert_eq!(parse_duration("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(parse_duration("30s"), Some(Duration::from_secs(30)));
        assert_eq!(parse_duration("5m"), Some(Duration::from_secs(300)));
        assert_eq!(parse_duration("2h"), Some(Duration::from_secs(7_200)));
        assert_eq!(parse_duration("7d"), Some(Duration::from_secs(604_800)));
        for text in
            ["", "s", "30", "-1s", "1.5h", "1 s", "1S", "1h30m", "1y", "18446744073709551615d"]
        {
            assert_eq!(parse_duration(text), None, "{text:?}");
        }
    }

    #[test]
    fn durations_are_written_as_they_are_read() {
        for text in ["0s", "250ms", "30s", "90s", "5m", "2h", "7d"] {
            let duration = parse_duration(text).unwrap();
            assert_eq!(Written(duration).to_string(), text);
        }
        assert_eq!(Written(Duration::from_secs(86_400)).to_string(), "1d");
    }

    #[test]
    fn sizes_are_bytes_or_have_a_binary_unit() {
        assert_eq!(parse_size("4096"), Some(4_096));
        assert_eq!(parse_size("1B"), Some(1));
        assert_eq!(parse_size("256KiB"), Some(262_144));
        assert_eq!(parse_size("2MiB"), Some(2_097_152));
        assert_eq!(parse_size("1GiB"), Some(1_073_741_824));
        for text in ["", "KiB", "-1", "1KB", "1kib", "1.5MiB", "1 MiB", "99999999999999GiB"] {
            assert_eq!(parse_size(text), None, "{text:?}");
        }
    }
}
