//! Patterns over paths, hosts and header values: literal text, `*`, `{x}`.
//!
//! A match takes time in proportion to the text's length times the pattern's:
//! `{x}` is always a whole segment, so a stretch of pattern between two `*` fits
//! at a place in one way only, and the leftmost fit of each is the best.

use std::fmt;

use serde::{Serialize, Serializer};

use super::diagnostic::quote;
use super::units::Problem;

/// A compiled pattern over a whole text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    text: Box<str>,
    /// What stands between the `*`: one part without any.
    parts: Box<[Part]>,
}

/// A stretch of pattern without `*`.
type Part = Box<[Piece]>;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    /// Exactly these bytes; never empty.
    Literal(Box<[u8]>),
    /// One segment: one or more bytes other than `/`, as many as there are.
    Segment,
}

impl Pattern {
    /// A pattern in which `*` stands for any text, also none.
    #[must_use]
    pub fn wildcard(text: &str) -> Self {
        let parts = text.split('*').map(literal).collect();
        let text = text.into();
        Self { text, parts }
    }

    /// A pattern of paths: `*` stands for any text, `{x}` for one segment.
    ///
    /// # Errors
    /// A brace that does not enclose a whole segment.
    pub fn path(text: &str) -> Result<Self, Problem> {
        let parts: Result<_, Problem> = text
            .split('*')
            .map(|part| with_segments(text, part))
            .collect();
        let parts: Box<[Part]> = parts?;
        let ends_open = |part: &Part| part.last() == Some(&Piece::Segment);
        let inner = parts.len().saturating_sub(1);
        if parts.iter().take(inner).any(ends_open) {
            return Err(not_whole(text));
        }
        let text = text.into();
        Ok(Self { text, parts })
    }

    /// Whether the whole text fits. Case counts.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        let text = text.as_bytes();
        let [first, rest @ ..] = &*self.parts else {
            return false;
        };
        let Some(mut at) = fits(first, text) else {
            return false;
        };
        let Some((last, middle)) = rest.split_last() else {
            return at == text.len();
        };
        for part in middle {
            let starts = at..=text.len();
            let found = starts.into_iter().find_map(|start| {
                let length = fits(part, text.get(start..)?)?;
                Some(start + length)
            });
            match found {
                Some(end) => at = end,
                None => return false,
            }
        }
        fits_end(last, &text[at..])
    }

    /// The pattern's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for Pattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

fn literal(text: &str) -> Part {
    let bytes = (!text.is_empty()).then(|| Piece::Literal(text.as_bytes().into()));
    bytes.into_iter().collect()
}

fn with_segments(whole: &str, part: &str) -> Result<Part, Problem> {
    let mut pieces = Vec::new();
    let mut rest = part;
    while let Some((before, after)) = rest.split_once('{') {
        let (name, after) = after.split_once('}').ok_or_else(|| not_whole(whole))?;
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let is_whole = before.ends_with('/') && (after.is_empty() || after.starts_with('/'));
        if name.is_empty() || !name.chars().all(is_name) || before.contains('}') || !is_whole {
            return Err(not_whole(whole));
        }
        pieces.extend(literal(before));
        pieces.push(Piece::Segment);
        rest = after;
    }
    if rest.contains('}') {
        return Err(not_whole(whole));
    }
    pieces.extend(literal(rest));
    Ok(pieces.into())
}

fn not_whole(text: &str) -> Problem {
    Problem::new(
        format!("{} has a brace that encloses no whole segment", quote(text)),
        "allowed: /sessions/{id}, with a name of A-Z a-z 0-9 _ between slashes; * for any text",
    )
}

/// How many bytes at the start of `text` the part takes.
fn fits(part: &[Piece], text: &[u8]) -> Option<usize> {
    let mut rest = text;
    for piece in part {
        rest = match piece {
            Piece::Literal(bytes) => rest.strip_prefix(&**bytes)?,
            Piece::Segment => {
                let slash = rest.iter().position(|byte| *byte == b'/');
                rest.split_at_checked(slash.unwrap_or(rest.len()))
                    .filter(|(segment, _)| !segment.is_empty())?
                    .1
            }
        };
    }
    Some(text.len() - rest.len())
}

/// Whether the part fits at the end of `text`.
fn fits_end(part: &[Piece], text: &[u8]) -> bool {
    let mut rest = text;
    for piece in part.iter().rev() {
        let left = match piece {
            Piece::Literal(bytes) => rest.strip_suffix(&**bytes),
            Piece::Segment => {
                let slash = rest.iter().rposition(|byte| *byte == b'/');
                let start = slash.map_or(0, |slash| slash + 1);
                (start < rest.len()).then(|| &rest[..start])
            }
        };
        match left {
            Some(left) => rest = left,
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn wildcards_and_segments() {
        for (pattern, fitting, others) in [
            (
                "/login",
                &["/login"][..],
                &["/login/", "/Login", "", "/a/login", "/login2"][..],
            ),
            ("*", &["", "/", "/a/b"], &[]),
            (
                "/api/*/login",
                &["/api/v1/login", "/api/v1/x/login", "/api//login"],
                &["/api/login", "/api/v1/login/"],
            ),
            ("/img/*", &["/img/", "/img/a/b.png"], &["/img", "/imgs/a"]),
            ("*.php", &["/a.php", "/a/b.php", ".php"], &["/a.php5"]),
            (
                "/sessions/{id}",
                &["/sessions/1", "/sessions/a-b"],
                &["/sessions/", "/sessions", "/sessions/1/2", "/sessions/1/"],
            ),
            ("/a/{x}/b", &["/a/1/b"], &["/a//b", "/a/1/2/b", "/a/b"]),
            ("/a/{x}/{y}", &["/a/1/2"], &["/a/1", "/a/1/2/3"]),
            ("*/{x}", &["/1", "/a/1"], &["/a/", "1"]),
            ("*/{x}/b", &["/1/b", "/a/1/b", "/b/b/b"], &["//b", "/b"]),
            (
                "*/{x}/b/*c",
                &["/1/b/c", "/b/b/b/c", "/a/1/b/xc"],
                &["//b/c", "/1/b/"],
            ),
            ("a*ba", &["aba", "abba", "ababa"], &["ab", "ba", "a"]),
            ("a*a", &["aa", "aba"], &["a"]),
            ("*a*b*c*", &["abc", "xaxbxcx", "aabbcc"], &["acb", "cba"]),
        ] {
            let compiled = Pattern::path(pattern).unwrap();
            for text in fitting {
                assert!(compiled.matches(text), "{pattern} {text}");
            }
            for text in others {
                assert!(!compiled.matches(text), "{pattern} {text}");
            }
        }
    }

    #[test]
    fn braces_enclose_whole_segments() {
        for text in [
            "/{}", "/{x", "/x}", "/a{x}", "/{x}a", "/{x}*", "/{a b}", "/{{x}}", "{x}", "/{x*}",
        ] {
            assert!(Pattern::path(text).is_err(), "{text}");
        }
    }

    /// Whether the pattern fits, by trying everything.
    fn tried(pattern: &[char], text: &[char]) -> bool {
        match (pattern, text) {
            ([], []) => true,
            (['*', rest @ ..], _) => (0..=text.len()).any(|skip| tried(rest, &text[skip..])),
            (['{', _, '}', rest @ ..], _) => {
                let most = text.iter().take_while(|c| **c != '/').count();
                (1..=most).any(|skip| tried(rest, &text[skip..]))
            }
            ([p, pattern @ ..], [t, text @ ..]) => p == t && tried(pattern, text),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn as_by_trying_everything(pattern in "(/\\{x\\}|/|a|b|\\*){0,7}", text in "[/ab]{0,9}") {
            if let Ok(compiled) = Pattern::path(&pattern) {
                let (p, t): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
                prop_assert_eq!(compiled.matches(&text), tried(&p, &t));
            }
        }

        #[test]
        fn nothing_panics(pattern: String, text: String) {
            if let Ok(compiled) = Pattern::path(&pattern) {
                let _ = compiled.matches(&text);
            }
            let _ = Pattern::wildcard(&pattern).matches(&text);
        }
    }

    /// Backtracking would take longer than the universe.
    #[test]
    fn many_wildcards_take_no_longer() {
        let pattern = Pattern::wildcard(&format!("{}b", "*a".repeat(200)));
        assert!(!pattern.matches(&"a".repeat(20_000)));
    }
}
