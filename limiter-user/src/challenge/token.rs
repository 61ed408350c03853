//! Tokens: what is said, and a mark that only who has a key can make.
//!
//! `BASE64URL(said) "." BASE64URL(HMAC-SHA-256(key, kind said))`, without padding.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64URL;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::Sha256;

use super::keys::{Key, Keys};

/// Bytes of a token at most.
pub(super) const MOST_BYTES: usize = 1_024;

/// What a token is for: one of a kind is none of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Puzzle,
    Clearance,
}

impl Kind {
    const fn name(self) -> &'static [u8] {
        match self {
            Self::Puzzle => b"limiter puzzle 2\0",
            Self::Clearance => b"limiter clearance 2\0",
        }
    }
}

/// What a token says; `None`: none of the keys has signed it for this.
pub(super) fn read<T: DeserializeOwned>(kind: Kind, text: &str, keys: &Keys) -> Option<T> {
    if text.len() > MOST_BYTES {
        return None;
    }
    let (said, mark) = text.split_once('.')?;
    let said = BASE64URL.decode(said).ok()?;
    let mark = BASE64URL.decode(mark).ok()?;
    // In constant time.
    let fits = |key: &Key| mac(kind, &said, key).is_some_and(|it| it.verify_slice(&mark).is_ok());
    keys.all().find(|key| fits(key))?;
    postcard::from_bytes(&said).ok()
}

/// A token that says this.
pub(super) fn write<T: Serialize>(kind: Kind, said: &T, key: &Key) -> Option<String> {
    let said = postcard::to_stdvec(said).ok()?;
    let mark = mac(kind, &said, key)?.finalize().into_bytes();
    let (said, mark) = (BASE64URL.encode(said), BASE64URL.encode(mark));
    Some(format!("{said}.{mark}"))
}

/// Its mark: 43 characters that nobody could have chosen.
pub(super) fn mark(text: &str) -> &str {
    text.split_once('.').map_or("", |(_, mark)| mark)
}

fn mac(kind: Kind, said: &[u8], key: &Key) -> Option<Hmac<Sha256>> {
    let mac = Hmac::<Sha256>::new_from_slice(&key.secret).ok()?;
    Some(mac.chain_update(kind.name()).chain_update(said))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_signed_is_read() {
        let keys = Keys::default().rotated(1, 9, 9, [1; 32]).unwrap();
        let others = Keys::default().rotated(1, 9, 9, [2; 32]).unwrap();
        let key = keys.signing(1).unwrap();
        let said = ("said".to_owned(), 7_u64);
        let text = write(Kind::Puzzle, &said, key).unwrap();
        assert_eq!(mark(&text).len(), 43);
        assert_eq!(read(Kind::Puzzle, &text, &keys), Some(said));
        let none: Option<(String, u64)> = None;
        assert_eq!(read(Kind::Clearance, &text, &keys), none);
        assert_eq!(read(Kind::Puzzle, &text, &others), none);
        assert_eq!(read(Kind::Puzzle, &text, &Keys::default()), none);
        for at in 0..text.len() {
            let mut changed = text.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            assert_eq!(read(Kind::Puzzle, &changed, &keys), none, "{at}");
        }
        for end in 0..text.len() {
            assert_eq!(read(Kind::Puzzle, &text[..end], &keys), none, "{end}");
        }
        assert_eq!(read(Kind::Puzzle, &format!("{text}="), &keys), none);
        assert_eq!(read(Kind::Puzzle, &"A".repeat(2_000), &keys), none);
    }
}
