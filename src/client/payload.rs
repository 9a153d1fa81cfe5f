//! GSMA-shaped bodies: made from a seed, cut into segments, checked.
//!
//! The structure is the real one (tags, lengths, segment sizes, the sizes of a whole download);
//! the contents are noise, as they are for anyone but the eUICC. Nothing here can be
//! installed anywhere. Only a delete notification is truly signed: the broker reads it.

mod bpp;
mod es9;
mod notification;

pub use bpp::{
    BPP_BYTES, BPP_TAG, BppError, Outline, PayloadError, bound_profile_package, split, verify,
};
pub use es9::{Step, answer, request};
pub use notification::{Euicc, EuiccCa};

use crate::ids::Nid;

/// The `index`th EID of a made-up fleet: 32 digits with valid check digits.
///
/// # Panics
/// Never: every index gives 30 digits.
#[must_use]
pub fn sample_eid(index: u32) -> Nid {
    let body = 8_904_903_212_345_123_451 * 10u128.pow(11) + u128::from(index);
    Nid::with_check_digits(body).expect("30 digits")
}

/// A short digest to compare bodies by (FNV-1a, 64 bits); no protection against anybody.
#[must_use]
pub fn digest(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Noise that is the same for the same seed (splitmix64).
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(count + 7);
        while bytes.len() < count {
            bytes.extend_from_slice(&self.next().to_be_bytes());
        }
        bytes.truncate(count);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sample_eids_are_eids_and_differ() {
        let eids: std::collections::HashSet<Nid> = (0..1000).map(sample_eid).collect();
        assert_eq!(eids.len(), 1000);
        assert_ne!(sample_eid(u32::MAX), sample_eid(0));
    }

    #[test]
    fn noise_repeats_for_a_seed_and_differs_between_seeds() {
        assert_eq!(Noise(7).bytes(100), Noise(7).bytes(100));
        assert_ne!(Noise(7).bytes(100), Noise(8).bytes(100));
    }
}
