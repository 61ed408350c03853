//! The keys that challenges are signed with, and the file that holds them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How long a new key is known before it signs, in seconds: so long may a node that reads the
/// same file take to notice it.
pub const LEAD_S: u64 = 60;

/// Keys at once.
pub const MOST: usize = 64;

/// Bytes of a file of keys at most.
pub const MOST_BYTES: usize = 16 << 10;

/// A key.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// From when on it signs, in seconds since the Unix epoch.
    pub from_s: u64,
    /// What it is.
    pub secret: [u8; 32],
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key")
            .field("from_s", &self.from_s)
            .finish_non_exhaustive()
    }
}

/// All keys that are known, the newest first. The newest that is in force signs, all verify.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keys(Vec<Key>);

/// Why a text holds no keys.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadKeys {
    /// A line is no key; lines are counted from 1.
    #[error("line {0} is no key: a time in Unix seconds and 64 hexadecimal digits are wanted")]
    Line(usize),
    /// There is none.
    #[error("it holds no key")]
    None,
    /// There are more than are looked at.
    #[error("it holds more than {MOST} keys")]
    TooMany,
}

impl Keys {
    /// Those of a file.
    ///
    /// # Errors
    /// It holds something else.
    pub fn parse(text: &str) -> Result<Self, BadKeys> {
        let mut keys = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            keys.push(key(line).ok_or(BadKeys::Line(number))?);
        }
        match keys.len() {
            0 => Err(BadKeys::None),
            1..=MOST => Ok(Self::sorted(keys)),
            _ => Err(BadKeys::TooMany),
        }
    }

    /// What is written into a file.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::from(
            "# Keys of limiter's challenges: from when on each signs (Unix seconds), and the key.\n\
             # Nodes with the same keys, and the same engine.key, take each other's challenges.\n",
        );
        for key in &self.0 {
            let secret = key.secret.iter().map(|byte| format!("{byte:02x}"));
            text.push_str(&format!("{} {}\n", key.from_s, secret.collect::<String>()));
        }
        text
    }

    /// The key that signs at `now_s`; where the clock is behind all of them, the oldest.
    #[must_use]
    pub fn signing(&self, now_s: u64) -> Option<&Key> {
        let in_force = self.0.iter().find(|key| key.from_s <= now_s);
        in_force.or(self.0.last())
    }

    /// All that verify.
    pub fn all(&self) -> impl Iterator<Item = &Key> {
        self.0.iter()
    }

    /// With one more key if it is time for it: the first one at once, another one when the newest has
    /// nearly signed for `rotate_s`. Keys go whose successor has signed for `life_s`, as long as
    /// anything lasts that they have signed. `None`: nothing is to be changed.
    #[must_use]
    pub fn rotated(
        &self,
        now_s: u64,
        rotate_s: u64,
        life_s: u64,
        secret: [u8; 32],
    ) -> Option<Self> {
        // One that a clock has dated ahead is none that signs for the time being.
        let soon_s = now_s.saturating_add(LEAD_S);
        let mut dates = self.0.iter().map(|key| key.from_s);
        let newest = match self.0.is_empty() {
            true => None,
            false => Some(dates.find(|from_s| *from_s <= soon_s).unwrap_or_default()),
        };
        let from_s = match newest {
            None => now_s,
            Some(from_s) if from_s.saturating_add(rotate_s) <= soon_s => soon_s,
            Some(_) => return None,
        };
        let mut keys = self.0.clone();
        keys.push(Key { from_s, secret });
        let Self(mut keys) = Self::sorted(keys);
        let over = |key: &Key| key.from_s.saturating_add(life_s) < now_s;
        if let Some(successor) = keys.iter().position(over) {
            keys.truncate(successor + 1);
        }
        keys.truncate(MOST);
        Some(Self(keys))
    }

    fn sorted(mut keys: Vec<Key>) -> Self {
        keys.sort_by_key(|key| std::cmp::Reverse(key.from_s));
        Self(keys)
    }
}

fn key(line: &str) -> Option<Key> {
    let (from_s, digits) = line.split_once(' ')?;
    let digits = digits.trim().as_bytes();
    let mut secret = [0; 32];
    if digits.len() != 2 * secret.len() {
        return None;
    }
    for (byte, pair) in secret.iter_mut().zip(digits.chunks(2)) {
        let pair = std::str::from_utf8(pair).ok()?;
        if !pair.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        *byte = u8::from_str_radix(pair, 16).ok()?;
    }
    Some(Key {
        from_s: from_s.parse().ok()?,
        secret,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400;
    const LIFE: u64 = 1_800;

    #[test]
    fn a_file_holds_keys_and_nothing_else() {
        let keys = Keys::default().rotated(5, DAY, LIFE, [7; 32]).unwrap();
        let keys = keys.rotated(DAY, DAY, LIFE, [9; 32]).unwrap();
        assert_eq!(Keys::parse(&keys.text()), Ok(keys.clone()));
        assert!(!format!("{keys:?}").contains('7'), "{keys:?}");
        assert_eq!(Keys::parse("# nothing\n"), Err(BadKeys::None));
        let line = format!("5 {}", "0f".repeat(32));
        assert!(Keys::parse(&line).is_ok());
        for bad in [
            &line[..line.len() - 1],
            &format!("{line}0"),
            &line.replace('f', "+"),
            &line.replace("5 ", "x "),
            &line.replace(' ', ""),
        ] {
            assert_eq!(Keys::parse(bad), Err(BadKeys::Line(1)), "{bad}");
        }
        let many = format!("{line}\n").repeat(MOST + 1);
        assert_eq!(Keys::parse(&many), Err(BadKeys::TooMany));
    }

    #[test]
    fn a_new_key_is_known_before_it_signs_and_an_old_one_is_kept_while_it_is_needed() {
        let first = Keys::default().rotated(1_000, DAY, LIFE, [1; 32]).unwrap();
        assert_eq!(first.signing(1_000).unwrap().secret, [1; 32]);
        // A clock that is behind signs all the same.
        assert_eq!(first.signing(0).unwrap().secret, [1; 32]);
        let due_s = 1_000 + DAY - LEAD_S;
        assert_eq!(first.rotated(due_s - 1, DAY, LIFE, [2; 32]), None);
        let second = first.rotated(due_s, DAY, LIFE, [2; 32]).unwrap();
        assert_eq!(second.signing(due_s + LEAD_S - 1).unwrap().secret, [1; 32]);
        assert_eq!(second.signing(due_s + LEAD_S).unwrap().secret, [2; 32]);
        assert_eq!(second.all().count(), 2);
        let third = second.rotated(due_s + DAY, DAY, LIFE, [3; 32]).unwrap();
        let secrets: Vec<u8> = third.all().map(|key| key.secret[0]).collect();
        assert_eq!(secrets, [3, 2]);
        // One that still signs is kept, however old.
        let late = first.rotated(9 * DAY, DAY, LIFE, [4; 32]).unwrap();
        assert_eq!(late.signing(9 * DAY).unwrap().secret, [1; 32]);
    }

    #[test]
    fn a_key_of_a_clock_that_was_ahead_does_not_stop_rotation() {
        let ahead = Keys::default()
            .rotated(9 * DAY, DAY, LIFE, [1; 32])
            .unwrap();
        let now_s = 2 * DAY;
        let second = ahead.rotated(now_s, DAY, LIFE, [2; 32]).unwrap();
        assert_eq!(second.rotated(now_s + 1, DAY, LIFE, [3; 32]), None);
        assert_eq!(second.signing(now_s + LEAD_S).unwrap().secret, [2; 32]);
        // What it has signed while there was no other is still good.
        assert_eq!(second.all().count(), 2);
        let third = second.rotated(now_s + DAY, DAY, LIFE, [3; 32]).unwrap();
        assert_eq!(third.signing(now_s + DAY + LEAD_S).unwrap().secret, [3; 32]);
        assert_eq!(Keys::parse(&third.text()), Ok(third));
    }
}
