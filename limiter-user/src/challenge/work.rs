//! The work: a number `n` for which SHA-256 of `seed ":" n` (in decimal) begins with so many
//! zero bits. Seeds have 43 characters, so that the whole message is one block of the hash.

use sha2::{Digest as _, Sha256};

/// Whether a number solves it.
pub(super) fn is_done(seed: &str, number: u64, bits: u8) -> bool {
    let hash = Sha256::digest(format!("{seed}:{number}"));
    let mut zeros = 0;
    for byte in hash {
        zeros += byte.leading_zeros();
        if byte != 0 {
            break;
        }
    }
    zeros >= u32::from(bits)
}

/// The least number that solves it.
#[cfg(test)]
pub(crate) fn solve(seed: &str, bits: u8) -> u64 {
    (0..).find(|number| is_done(seed, *number, bits)).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_counted_from_the_left() {
        // By another implementation: SHA-256 of "a:0" is 0e…, and the first that begins with
        // three zeros is that of "a:63".
        assert!(is_done("a", 0, 4) && !is_done("a", 0, 5));
        assert_eq!((solve("a", 4), solve("a", 8), solve("a", 12)), (0, 63, 63));
        assert!(!is_done("a", 63, 255));
    }
}
